/* critic.c - see critic.h. */
#include "worker/recipes/distillation/impossible/critic.h"

#include "common/base/hash.h"
#include "common/base/mem.h"
#include "worker/engine/io/model_files.h"
#include "worker/recipes/text/microworld.h"

#include <string.h>

/* ---- memory ----------------------------------------------------------------------------- */

/* Scores by the hash of a pair's texts: two of 2^20 pairs share 128 bits with probability 2^-89.
 * 2^21 slots of 24 bytes are 48 MiB; a full memory is emptied. */
#define MEMORY_SLOTS ((size_t)1 << 21)
#define MEMORY_MOST  (MEMORY_SLOTS / 2)

struct key {
    uint64_t a, b; /* both 0: free */
};

struct critic_memory {
    struct slot {
        struct key key;
        double score;
    } slots[MEMORY_SLOTS];
    size_t count;
};

static struct key key_of(const struct critic_pair *pair)
{
    struct hash_stream stream;
    struct hash hash;
    struct key key;

    hash_start(&stream);
    hash_add(&stream, pair->x, strlen(pair->x) + 1); /* the zero divides the two */
    hash_add(&stream, pair->y, strlen(pair->y));
    hash_end(&stream, &hash);
    memcpy(&key, hash.bytes, sizeof key);
    return key;
}

static struct slot *find(struct critic_memory *memory, struct key key)
{
    size_t at = key.a & (MEMORY_SLOTS - 1);

    while ((memory->slots[at].key.a || memory->slots[at].key.b) &&
           (memory->slots[at].key.a != key.a || memory->slots[at].key.b != key.b))
        at = (at + 1) & (MEMORY_SLOTS - 1);
    return &memory->slots[at];
}

static void keep(struct critic_memory *memory, struct key key, double score)
{
    if (memory->count == MEMORY_MOST)
        memset(memory, 0, sizeof *memory);
    struct slot *slot = find(memory, key);
    memory->count += !slot->key.a && !slot->key.b;
    *slot = (struct slot){key, score};
}

static bool is_known(struct critic_memory *memory, struct key key, double *out)
{
    const struct slot *slot = find(memory, key);

    if (!slot->key.a && !slot->key.b)
        return false;
    *out = slot->score;
    return true;
}

static int score_fresh(struct critic *critic, const struct critic_pair *pairs, size_t count,
                       double *out, struct err *err)
{
    critic->scored += count;
    return count ? critic->class->score(critic, pairs, count, out, err) : 0;
}

static int score_remembered(struct critic *critic, const struct critic_pair *pairs, size_t count,
                            double *out, struct err *err)
{
    struct critic_pair *fresh = mem_array(count + 1, sizeof *fresh);
    double *scores = mem_array(count + 1, sizeof *scores);
    struct key *keys = mem_array(count + 1, sizeof *keys);
    bool *known = mem_array(count + 1, sizeof *known);
    size_t asked = 0;

    if (!critic->memory)
        critic->memory = mem_zalloc(sizeof *critic->memory);
    for (size_t i = 0; i < count; i++) {
        keys[i] = key_of(&pairs[i]);
        known[i] = is_known(critic->memory, keys[i], &out[i]);
        if (!known[i])
            fresh[asked++] = pairs[i];
    }
    int rc = score_fresh(critic, fresh, asked, scores, err);
    for (size_t i = 0, f = 0; i < count && rc == 0; i++)
        if (!known[i]) {
            out[i] = scores[f++];
            keep(critic->memory, keys[i], out[i]);
        }
    mem_free(fresh);
    mem_free(scores);
    mem_free(keys);
    mem_free(known);
    return rc;
}

int critic_score(struct critic *critic, const struct critic_pair *pairs, size_t count, double *out,
                 struct err *err)
{
    critic->asked += count;
    return critic->class->remembers ? score_remembered(critic, pairs, count, out, err)
                                    : score_fresh(critic, pairs, count, out, err);
}

void critic_context_begin(struct critic *critic)
{
    critic->in_context = true;
}

void critic_context_end(struct critic *critic)
{
    critic->in_context = false;
    byte_map_done(&critic->alone);
}

bool critic_is_scaled(const struct critic *critic)
{
    return critic->class->scaled;
}

uint64_t critic_asked_count(const struct critic *critic)
{
    return critic->asked;
}

uint64_t critic_pair_count(const struct critic *critic)
{
    return critic->scored;
}

uint64_t critic_cut_count(const struct critic *critic)
{
    return critic->cut;
}

void critic_free(struct critic *critic)
{
    if (!critic)
        return;
    mem_free(critic->memory);
    byte_map_done(&critic->alone);
    critic->class->free(critic);
}

/* ---- by name ---------------------------------------------------------------------------- */

/* A folder that cannot be read is left to the critic that opens it, and its message. */
const char *critic_resolve(const char *name, const char *folder)
{
    struct model_config config;
    struct err unread;

    if (strcmp(name, "auto") != 0)
        return name;
    if (folder && model_config_read(folder, &config, &unread) == 0 &&
        config.family == MODEL_BERT && config.top == MODEL_TOP_LABELS)
        return "nli";
    return "lm_mi";
}

int critic_choose(const struct critic_choice *choice, struct critic **out, struct err *err)
{
    bool nli = strcmp(choice->name, "nli") == 0;
    bool embed = strcmp(choice->name, "embed") == 0;

    if (strcmp(choice->name, "oracle") == 0) {
        *out = critic_oracle();
        return 0;
    }
    if (nli && !choice->folder)
        return err_set(err, ERR_INVALID, "critic nli needs the input 'judge': a classifier of "
                       "pairs, say of the recipe finetuning/classify");
    if (embed && !choice->folder)
        return err_set(err, ERR_INVALID,
                       "critic embed needs the input 'judge': a sentence encoder");
    if (!choice->folder && !choice->model)
        return err_set(err, ERR_INVALID, "critic %s needs the input 'judge': a language model",
                       choice->name);
    if (nli)
        return critic_nli(choice->folder, choice->device, out, err);
    if (embed)
        return critic_embed(choice->folder, choice->device, out, err);
    if (choice->folder)
        return critic_lm_mi_open(choice->folder, choice->device, out, err);
    return critic_lm_mi(choice->model, choice->tokenizer, out, err);
}

/* ---- oracle ---- */

static int oracle_score(struct critic *critic, const struct critic_pair *pairs, size_t count,
                        double *out, struct err *err)
{
    (void)critic;
    (void)err;
    for (size_t i = 0; i < count; i++) {
        struct fact x, y;
        out[i] = microworld_parse(pairs[i].x, strlen(pairs[i].x), &x) &&
                 microworld_parse(pairs[i].y, strlen(pairs[i].y), &y) && microworld_entails(&x, &y);
    }
    return 0;
}

static void oracle_free(struct critic *critic)
{
    mem_free(critic);
}

struct critic *critic_oracle(void)
{
    static const struct critic_class class = {"oracle", true, false, oracle_score, oracle_free};
    struct critic *critic = mem_zalloc(sizeof *critic);

    critic->class = &class;
    return critic;
}
