/* prepare.c - from documents and parts to a published dataset; see prepare.h. */
#include "worker/recipes/data/prepare.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/rng.h"
#include "worker/engine/data/bpe.h"
#include "worker/recipes/ngram.h"

#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* Length of the UTF-8 sequence at text; 0 when there is none. */
static size_t sequence_length(const char *text, size_t length)
{
    uint8_t first = (uint8_t)text[0];
    size_t want = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    return want <= length && text_is_utf8(text, want) ? want : 0;
}

static void add_repaired(struct buf *out, const char *text, size_t length)
{
    for (size_t at = 0; at < length;) {
        size_t good = text[at] ? sequence_length(text + at, length - at) : 0;
        if (good)
            buf_add(out, text + at, good);
        else
            buf_puts(out, REPLACEMENT);
        at += good ? good : 1;
    }
}

uint64_t preparation_add(struct preparation *preparation, const char *id, const char *text,
                         size_t length)
{
    struct buf repaired = {0};
    if (!text_is_utf8(text, length) || memchr(text, 0, length)) {
        add_repaired(&repaired, text, length);
        text = buf_text(&repaired);
        length = repaired.length;
    }
    VEC_RESERVE(preparation->documents, preparation->count, preparation->capacity);
    preparation->documents[preparation->count] = (struct dataset_document){
        .id = arena_strdup(&preparation->arena, id),
        .text = arena_strndup(&preparation->arena, text, length),
        .length = length,
    };
    preparation->bytes += length;
    buf_done(&repaired);
    return preparation->count++;
}

/* From 0 to 1, of the seed, the text and the question. */
static double text_unit(const struct run *run, const char *text, size_t length, uint64_t question)
{
    struct hash hash;
    uint64_t bits;
    hash_bytes(text, length, &hash);
    memcpy(&bits, hash.bytes, sizeof bits);
    return rng_unit_at((uint64_t)run_int(run, "seed"), bits, question);
}

bool preparation_is_held_out(const struct run *run, const char *text, size_t length)
{
    return text_unit(run, text, length, 0) < run_float(run, "holdout_share");
}

static size_t part_find(const struct preparation *preparation, const char *name)
{
    size_t p = 0;
    while (p < preparation->part_count && strcmp(preparation->parts[p].name, name) != 0)
        p++;
    return p;
}

const struct prepared_part *preparation_part(const struct preparation *preparation,
                                             const char *name)
{
    size_t p = part_find(preparation, name);
    return p < preparation->part_count ? &preparation->parts[p] : NULL;
}

int preparation_join(struct preparation *preparation, const char *part, uint64_t document,
                     struct err *err)
{
    size_t p = part_find(preparation, part);
    if (p == DATASET_PARTS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d parts", DATASET_PARTS_MAX);
    struct prepared_part *list = &preparation->parts[p];
    if (p == preparation->part_count) {
        list->name = mem_strdup(part);
        preparation->part_count++;
    }
    VEC_RESERVE(list->indices, list->count, list->capacity);
    list->indices[list->count++] = document;
    return 0;
}

int preparation_join_split(struct preparation *preparation, const char *part, bool held_out,
                           uint64_t document, struct err *err)
{
    char *name = mem_printf("%s%s", part, held_out ? "_holdout" : "");
    int rc = preparation_join(preparation, name, document, err);
    mem_free(name);
    return rc;
}

/* What training recipes need beside the texts: [MASK], sentinels. */
static int add_specials(struct run *run, struct preparation *preparation, struct err *err)
{
    size_t listed = run_list_count(run, "special_tokens");
    size_t count = listed + (size_t)run_int(run, "sentinels");
    const char **texts = mem_array(count + 1, sizeof *texts);
    int rc = 0;
    for (size_t i = 0; i < count; i++)
        texts[i] = i < listed ? run_list_item(run, "special_tokens", i)
                              : arena_printf(&preparation->arena, "<extra_id_%zu>", i - listed);
    if (count > 0)
        rc = tokenizer_extend(&preparation->tokenizer, texts, count, err);
    mem_free(texts);
    return rc < 0 ? err_wrap(err, "params.special_tokens") : 0;
}

static enum piece_pattern pattern_of(const char *name)
{
    return strcmp(name, "cl100k") == 0   ? PIECES_LLAMA3
           : strcmp(name, "digits") == 0 ? PIECES_GPT2_DIGITS
                                         : PIECES_GPT2;
}

/* Of more than train_bytes each document is in with the same chance, by its text alone. Returns how
 * many are. */
static size_t count_words(struct run *run, const struct preparation *preparation,
                          const struct prepared_part *train, struct word_counts *counts)
{
    double bytes = 0, most = (double)run_int(run, "train_bytes");
    size_t used = 0;
    for (size_t i = 0; i < train->count; i++)
        bytes += (double)preparation->documents[train->indices[i]].length;
    for (size_t i = 0; i < train->count; i++) {
        const struct dataset_document *document = &preparation->documents[train->indices[i]];
        if (bytes > most && text_unit(run, document->text, document->length, 1) >= most / bytes)
            continue;
        word_counts_add_text(counts, document->text, document->length);
        used++;
    }
    return used;
}

/* Step 2: the tokenizer sees `train` only, so that `valid` stays unseen in every respect. */
static int make_tokenizer(struct run *run, struct preparation *preparation, struct err *err)
{
    const char *given = run_string(run, "tokenizer");
    const struct prepared_part *train = preparation_part(preparation, "train");
    struct word_counts counts = {0};
    run->phase = "tokenizer";
    if (*given) {
        if (tokenizer_read(given, &preparation->tokenizer, err) < 0)
            return -1;
        return add_specials(run, preparation, err);
    }
    counts.pattern = pattern_of(run_string(run, "pattern"));
    counts.piece_max_bytes = (size_t)run_int(run, "max_piece_bytes");
    size_t used = count_words(run, preparation, train, &counts);
    int rc = tokenizer_train(&counts, (uint32_t)run_int(run, "vocab_size"),
                             (uint64_t)run_int(run, "min_frequency"), &preparation->tokenizer, err);
    word_counts_done(&counts);
    if (rc == 0)
        run_note(run, "tokenizer with %u ids, trained on %zu documents",
                 tokenizer_vocab_size(preparation->tokenizer), used);
    return rc == 0 ? add_specials(run, preparation, err) : -1;
}

/* Step 3: every part as shards and texts, into a temporary folder. */
static int write_parts(struct run *run, struct preparation *preparation, struct err *err)
{
    const char *name = *run_string(run, "name") ? run_string(run, "name") : run->name;
    char *parent = mem_printf("%s/datasets", run->job_dir);
    int rc = file_make_folders(parent, 0755, err);
    run->phase = "shards";
    preparation->folder = mem_printf("%s/%s", parent, name);
    mem_free(parent);
    if (rc < 0)
        return -1;
    if (strchr(name, '/') || name[0] == '.')
        return err_set(err, ERR_INVALID, "params.name is '%s'; a name without '/' that does not "
                       "begin with '.' is accepted", name);
    rc = dataset_writer_open(preparation->folder, name, preparation->tokenizer,
                             preparation->documents, preparation->count,
                             (uint64_t)run_int(run, "shard_tokens"), &preparation->writer, err);
    for (size_t p = 0; p < preparation->part_count && rc == 0; p++) {
        const struct prepared_part *part = &preparation->parts[p];
        rc = dataset_writer_part(preparation->writer, part->name, part->indices, part->count, err);
    }
    return rc == 0 ? dataset_writer_index(preparation->writer, NULL, err) : -1;
}

/* What counting alone predicts of `valid` after `train` (ngram.h states the smoothing). */
static int measure_baselines(const struct preparation *preparation, struct ngram_losses *out,
                             struct err *err)
{
    struct dataset *dataset = NULL;
    const struct dataset_part *train, *valid;
    if (dataset_open(dataset_writer_folder(preparation->writer), &dataset, err) < 0)
        return -1;
    int rc = dataset_part(dataset, "train", &train, err);
    if (rc == 0)
        rc = dataset_part(dataset, "valid", &valid, err);
    if (rc == 0)
        rc = ngram_losses(train, valid, out, err);
    dataset_close(dataset);
    return rc;
}

static char *meta_text(const struct preparation *preparation, const struct ngram_losses *losses)
{
    struct buf meta = {0};
    buf_printf(&meta, "{\"baselines\": ");
    if (losses)
        buf_printf(&meta, "{\"train\": \"train\", \"valid\": \"valid\", \"unigram_loss\": %.12g, "
                          "\"bigram_loss\": %.12g, \"unit\": \"nats per token\", \"smoothing\": "
                          "\"interpolated Witten-Bell\"}", losses->unigram, losses->bigram);
    else
        buf_puts(&meta, "null");
    buf_puts(&meta, ", \"documents\": {");
    for (size_t p = 0; p < preparation->part_count; p++)
        buf_printf(&meta, "%s\"%s\": %zu", p ? ", " : "", preparation->parts[p].name,
                   preparation->parts[p].count);
    buf_putc(&meta, '}');
    if (preparation->card)
        buf_printf(&meta, ", %s", preparation->card);
    buf_putc(&meta, '}');
    return buf_take(&meta);
}

static void report_sizes(struct run *run, const struct preparation *preparation)
{
    const struct tokenizer *tokenizer = preparation->tokenizer;
    bool two = tokenizer_begin_of_text(tokenizer) != tokenizer_end_of_text(tokenizer);
    double separators = (double)preparation->count * (two ? 2 : 1);
    double tokens = (double)dataset_writer_tokens(preparation->writer) - separators;
    run_metric(run, "documents", (double)preparation->count);
    run_metric(run, "bytes", (double)preparation->bytes);
    run_metric(run, "tokens", (double)dataset_writer_tokens(preparation->writer));
    run_metric(run, "bytes_per_token", tokens > 0 ? (double)preparation->bytes / tokens : 0);
    run_metric(run, "vocab_size", tokenizer_vocab_size(preparation->tokenizer));
    for (size_t p = 0; p < preparation->part_count; p++)
        run_note(run, "part %s: %zu documents", preparation->parts[p].name,
                 preparation->parts[p].count);
}

/* Step 4: baselines, the final dataset.json, the rename, the announcement. */
static int publish(struct run *run, struct preparation *preparation, struct err *err)
{
    struct ngram_losses losses;
    bool measured = preparation_part(preparation, "valid") != NULL;
    run->phase = "baselines";
    if (measured && measure_baselines(preparation, &losses, err) < 0)
        return -1;
    report_sizes(run, preparation);
    if (measured) {
        run_metric(run, "unigram_loss", losses.unigram);
        run_metric(run, "bigram_loss", losses.bigram);
        run_note(run, "baselines on valid, nats a token: unigram %.4f, bigram %.4f",
                 losses.unigram, losses.bigram);
    }
    char *meta = meta_text(preparation, measured ? &losses : NULL);
    int rc = dataset_writer_index(preparation->writer, meta, err);
    if (rc == 0)
        rc = dataset_writer_commit(preparation->writer, err);
    if (rc == 0)
        rc = run_artifact(run, "dataset", strrchr(preparation->folder, '/') + 1,
                          preparation->folder, meta, err);
    mem_free(meta);
    return rc;
}

int preparation_step(struct run *run, struct preparation *preparation, uint64_t number,
                     struct err *err)
{
    if (number == 2)
        return make_tokenizer(run, preparation, err);
    if (number == 3)
        return write_parts(run, preparation, err);
    return publish(run, preparation, err);
}

void preparation_done(struct preparation *preparation)
{
    for (size_t p = 0; p < preparation->part_count; p++) {
        mem_free(preparation->parts[p].name);
        mem_free(preparation->parts[p].indices);
    }
    dataset_writer_close(preparation->writer);
    tokenizer_free(preparation->tokenizer);
    arena_done(&preparation->arena);
    mem_free(preparation->documents);
    mem_free(preparation->folder);
    mem_free(preparation->card);
}
