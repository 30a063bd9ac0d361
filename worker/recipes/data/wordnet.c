/* wordnet.c - recipe data/wordnet: synsets as documents "lemmas: gloss", parts by topic.
 *
 * A document is "lemma, lemma: gloss". A topic is a set of noun synsets: some roots and all
 * that is below them over hyponym (~) and instance (~i) pointers. Parts:
 *   all              every document
 *   train, valid     the documents to train on, and those held out
 *   TOPIC            train documents of a topic, to be forgotten;   TOPIC_holdout
 *   rest             train documents outside all topics, leaks left out;   rest_holdout
 *   leak             train documents outside the topics that still name a lemma which only
 *                    topics have: they would teach what was to be forgotten;   leak_holdout
 *   NEAR             train documents of `rest` below other roots (mammals beside birds);
 *                    NEAR_holdout
 * With lexfile noun.animal of WordNet 3.0 these are 7,509 documents, of which 1,414 are of
 * the topic birds (methods/corpora section 2 names the same figures). */
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/engine/data/bytemap.h"
#include "worker/engine/data/wordnet.h"
#include "worker/recipes/data/prepare.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define TOPICS_MAX 64
#define ROOTS_MAX 256

/* Of wordnet-base 1:3.0 in Debian 12: the files whose counts are stated above. */
static const char *const known_sha256[WORDNET_FILE_END] = {"fea17d2f", "adcf43e3", "c89120df",
                                                           "444a63bf"};

struct topic {
    char *name;
    bool near;    /* a named share of rest rather than something to forget */
    bool *member; /* by synset number */
};

struct wordnet_recipe {
    struct preparation preparation;
    struct wordnet wordnet;
    struct topic topics[TOPICS_MAX];
    size_t topic_count;
    struct byte_map telling; /* lower-case lemmas that only topics have */
};

static int read_root(const char *text, size_t length, uint32_t *out, struct err *err)
{
    char *copy = mem_strndup(text, length);
    uint64_t offset;
    int rc = parse_u64(copy, &offset, err);
    mem_free(copy);
    if (rc == 0 && offset > 99999999)
        rc = err_set(err, ERR_INVALID, "%llu is not an offset of 8 digits",
                     (unsigned long long)offset);
    if (rc == 0)
        *out = (uint32_t)offset;
    return rc;
}

/* "birds=01503061,01504437" */
static int read_topic(struct wordnet_recipe *state, const char *text, bool near, struct err *err)
{
    static const char *const taken[] = {"all", "train", "valid", "rest", "leak"};
    const char *equals = strchr(text, '=');
    uint32_t roots[ROOTS_MAX];
    size_t count = 0;
    if (!equals || equals == text || state->topic_count == TOPICS_MAX)
        return err_set(err, ERR_INVALID, "'%s' is not NAME=OFFSET,OFFSET..., or there are more "
                       "than %d", text, TOPICS_MAX);
    struct topic *topic = &state->topics[state->topic_count++];
    topic->name = mem_strndup(text, (size_t)(equals - text));
    topic->near = near;
    for (size_t i = 0; i < ARRAY_COUNT(taken); i++)
        if (strcmp(topic->name, taken[i]) == 0)
            return err_set(err, ERR_INVALID, "'%s': %s is a part that always exists", text,
                           taken[i]);
    for (const char *at = equals + 1; count < ROOTS_MAX;) {
        size_t length = strcspn(at, ",");
        if (read_root(at, length, &roots[count++], err) < 0)
            return err_wrap(err, "'%s'", text);
        if (!at[length])
            break;
        at += length + 1;
    }
    topic->member = mem_array(state->wordnet.count + 1, sizeof *topic->member);
    if (wordnet_subtree(&state->wordnet, roots, count, topic->member, err) < 0)
        return err_wrap(err, "'%s'", text);
    return 0;
}

static int read_topics(struct run *run, struct wordnet_recipe *state, struct err *err)
{
    static const char *const lists[] = {"topics", "near"};
    for (size_t l = 0; l < ARRAY_COUNT(lists); l++)
        for (size_t i = 0; i < run_list_count(run, lists[l]); i++)
            if (read_topic(state, run_list_item(run, lists[l], i), l == 1, err) < 0)
                return err_wrap(err, "params.%s", lists[l]);
    return 0;
}

static bool is_forgotten(const struct wordnet_recipe *state, size_t synset)
{
    for (size_t t = 0; t < state->topic_count; t++)
        if (!state->topics[t].near && state->topics[t].member[synset])
            return true;
    return false;
}

static void lower_case(struct buf *out, const char *text)
{
    buf_clear(out);
    for (; *text; text++)
        buf_putc(out, (char)tolower((unsigned char)*text));
}

/* Lemmas of the topics that no synset outside has. Value 1: telling, 2: also used outside. */
static void find_telling_lemmas(struct wordnet_recipe *state)
{
    struct buf lemma = {0};
    for (int outside = 0; outside < 2; outside++)
        for (size_t s = 0; s < state->wordnet.count; s++) {
            const struct synset *synset = &state->wordnet.synsets[s];
            if (is_forgotten(state, s) == (outside == 1))
                continue;
            for (size_t i = 0; i < synset->lemma_count; i++) {
                lower_case(&lemma, synset->lemmas[i]);
                uint32_t entry = outside ? byte_map_find(&state->telling, buf_text(&lemma),
                                                         lemma.length)
                                         : byte_map_put(&state->telling, buf_text(&lemma),
                                                        lemma.length);
                if (entry != BYTE_MAP_NONE)
                    state->telling.entries[entry].value = outside ? 2 : 1;
            }
        }
    buf_done(&lemma);
}

static bool is_telling(const struct wordnet_recipe *state, const char *text, size_t length)
{
    uint32_t entry = byte_map_find(&state->telling, text, length);
    return entry != BYTE_MAP_NONE && state->telling.entries[entry].value == 1;
}

static bool is_word_byte(char c)
{
    return isalnum((unsigned char)c) || c == '\'' || c == '-' || (c & 0x80);
}

/* Whether a lower-case text names a telling lemma of up to LEMMA_WORDS words, also in the
 * plural (s, es). Words are runs of letters, digits, apostrophes and hyphens. */
static bool names_telling_lemma(const struct wordnet_recipe *state, const char *text)
{
    enum { LEMMA_WORDS = 6 };
    for (const char *word = text; *word;) {
        if (!is_word_byte(*word) || (word > text && is_word_byte(word[-1]))) {
            word++;
            continue;
        }
        const char *end = word;
        for (int words = 0; words < LEMMA_WORDS && is_word_byte(*end); words++) {
            while (is_word_byte(*end))
                end++;
            size_t length = (size_t)(end - word);
            if (is_telling(state, word, length) ||
                (length > 2 && end[-1] == 's' && is_telling(state, word, length - 1)) ||
                (length > 3 && end[-1] == 's' && end[-2] == 'e' &&
                 is_telling(state, word, length - 2)))
                return true;
            end += *end == ' ';
        }
        word++;
    }
    return false;
}

static void document_text(const struct synset *synset, struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < synset->lemma_count; i++)
        buf_printf(out, "%s%s", i ? ", " : "", synset->lemmas[i]);
    buf_printf(out, ": %s", synset->gloss);
}

/* Adds one document to all parts it belongs to. */
static int place_document(struct run *run, struct wordnet_recipe *state, size_t s,
                          uint64_t document, struct err *err)
{
    struct preparation *preparation = &state->preparation;
    const struct dataset_document *added = &preparation->documents[document];
    bool held_out = preparation_is_held_out(run, added->text, added->length);
    bool forgotten = is_forgotten(state, s), leaks = false;
    if (!forgotten && state->telling.count) {
        struct buf lower = {0};
        lower_case(&lower, added->text);
        leaks = names_telling_lemma(state, buf_text(&lower));
        buf_done(&lower);
    }
    if (preparation_join(preparation, "all", document, err) < 0 ||
        preparation_join(preparation, held_out ? "valid" : "train", document, err) < 0)
        return -1;
    if (!forgotten && state->topic_count &&
        preparation_join_split(preparation, leaks ? "leak" : "rest", held_out, document, err) < 0)
        return -1;
    for (size_t t = 0; t < state->topic_count; t++) {
        const struct topic *topic = &state->topics[t];
        bool in = topic->member[s] && (!topic->near || (!forgotten && !leaks));
        if (in && preparation_join_split(preparation, topic->name, held_out, document, err) < 0)
            return -1;
    }
    return 0;
}

static void warn_unless_known(struct run *run, const struct wordnet *wordnet)
{
    for (enum wordnet_file file = 0; file < WORDNET_FILE_END; file++) {
        char hex[HASH_HEX_SIZE];
        hash_to_hex(&wordnet->sha256[file], hex);
        if (strncmp(hex, known_sha256[file], strlen(known_sha256[file])) == 0)
            continue;
        char *text = mem_printf("data.%s is not the file of WordNet 3.0 (sha256 %.8s, expected "
                                "%s): counts will differ from the documented ones",
                                wordnet_file_name(file), hex, known_sha256[file]);
        run_event(run, "unexpected_source", text);
        mem_free(text);
    }
}

static int gather(struct run *run, struct wordnet_recipe *state, struct err *err)
{
    const char *lexfile = run_string(run, "lexfile");
    unsigned wanted = WORDNET_LEXFILE_END;
    struct buf text = {0};
    int rc = 0;
    if (*lexfile && wordnet_lexfile_find(lexfile, &wanted, err) < 0)
        return err_wrap(err, "params.lexfile");
    for (size_t s = 0; s < state->wordnet.count && rc == 0; s++) {
        const struct synset *synset = &state->wordnet.synsets[s];
        if (wanted < WORDNET_LEXFILE_END && synset->lexfile != wanted)
            continue;
        char id[32];
        snprintf(id, sizeof id, "%s.%08u", wordnet_file_name(synset->file), synset->offset);
        document_text(synset, &text);
        uint64_t document = preparation_add(&state->preparation, id, buf_text(&text), text.length);
        rc = place_document(run, state, s, document, err);
    }
    buf_done(&text);
    return rc;
}

static int check_parts(const struct wordnet_recipe *state, struct err *err)
{
    if (!preparation_part(&state->preparation, "train"))
        return err_set(err, ERR_INVALID, "no document is left to train on: choose another lexfile "
                       "or a smaller holdout_share");
    for (size_t t = 0; t < state->topic_count; t++)
        if (!preparation_part(&state->preparation, state->topics[t].name))
            return err_set(err, ERR_INVALID, "topic '%s' has no document to train on in this "
                           "lexfile", state->topics[t].name);
    return 0;
}

/* Step 1: read the database, choose documents, place them in parts. */
static int select_documents(struct run *run, struct wordnet_recipe *state, struct err *err)
{
    run->phase = "documents";
    if (wordnet_read(run_string(run, "source_dir"), &state->wordnet, err) < 0)
        return err_wrap(err, "params.source_dir (Debian: apt-get install wordnet-base)");
    warn_unless_known(run, &state->wordnet);
    if (read_topics(run, state, err) < 0)
        return -1;
    find_telling_lemmas(state);
    if (gather(run, state, err) < 0 || check_parts(state, err) < 0)
        return -1;
    run_note(run, "%zu of %zu synsets chosen", state->preparation.count, state->wordnet.count);
    return 0;
}

static int wordnet_open_recipe(struct run *run, void *state, struct err *err)
{
    (void)state;
    (void)err;
    run->step_count = PREPARE_STEPS;
    return 0;
}

static int wordnet_step(struct run *run, void *opaque, struct err *err)
{
    struct wordnet_recipe *state = opaque;
    if (run->rank != 0)
        return 0;
    return run->step == 0 ? select_documents(run, state, err)
                          : preparation_step(run, &state->preparation, run->step + 1, err);
}

static void wordnet_close(struct run *run, void *opaque)
{
    struct wordnet_recipe *state = opaque;
    (void)run;
    for (size_t t = 0; t < state->topic_count; t++) {
        mem_free(state->topics[t].name);
        mem_free(state->topics[t].member);
    }
    byte_map_done(&state->telling);
    wordnet_done(&state->wordnet);
    preparation_done(&state->preparation);
}

static const struct param wordnet_params[] = {
    {"source_dir", PARAM_STRING, "/usr/share/wordnet", 0, 0, NULL,
     "folder that holds data.noun, data.verb, data.adj and data.adv"},
    {"lexfile", PARAM_STRING, "noun.animal", 0, 0, NULL,
     "lexicographer file whose synsets become documents; empty: all 117,659 synsets"},
    {"topics", PARAM_LIST, "birds=01503061,01504437,01507175", 0, 0, NULL,
     "parts to be forgotten, each NAME=OFFSET,OFFSET... of root synsets in data.noun"},
    {"near", PARAM_LIST, "mammals=01861778;reptiles=01661091", 0, 0, NULL,
     "further parts of what is retained, in the same form: measured apart, never forgotten"},
    PREPARE_PARAMS,
};

const struct recipe recipe_data_wordnet = {
    .name = "wordnet",
    .kind = RECIPE_DATA,
    .version = 1,
    .summary = "WordNet's definitions as token shards, with topics to forget as named parts",
    .source = "WordNet 3.0 (Miller 1995); hyponym subtrees as forget sets: Athanor",
    .params = wordnet_params,
    .param_count = ARRAY_COUNT(wordnet_params),
    .outputs = "dataset|metrics",
    .state_size = sizeof(struct wordnet_recipe),
    .open = wordnet_open_recipe,
    .step = wordnet_step,
    .close = wordnet_close,
};
