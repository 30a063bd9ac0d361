/* round.c - a round: each rank reads one block, all go through the stages side by side.
 *
 * The file of a block is written after the file of its keys, both whole or absent. A block that is
 * there is not read again: its keys are brought as they were, so that the sets of what was seen
 * become what they would be, and its counts are added. */
#include "common/base/file.h"
#include "common/base/json_text.h"
#include "common/base/mem.h"
#include "worker/engine/comm.h"
#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/data/web/web.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define KEYS_MAGIC "ATHWKEY1"
#define KEYS_BYTES_MAX ((size_t)1 << 36)

struct keys_head {
    char magic[8];
    char settings[HASH_HEX_SIZE + 7]; /* padded to a multiple of 8 */
    uint64_t count[STAGE_END];
};

struct round {
    struct web *web;
    size_t block; /* block_count and above: this rank has none */
    struct item *items;
    size_t count, capacity;
    struct key_list keys[STAGE_END]; /* of SEEN stages */
    bool replay;
    int64_t tally[FILTER_END + 2]; /* filters, bytes read, bytes kept */
    const struct document_file *file;
};

/* Of the processor, so that a busy machine does not look slow. Only a metric. */
static uint64_t cpu_us(void)
{
    return (uint64_t)clock() * (1000000 / CLOCKS_PER_SEC);
}

/* ---- reading ---------------------------------------------------------------------------- */

static int take_line(void *argument, struct document_line *line, struct err *err)
{
    struct round *round = argument;
    const struct web *web = round->web;

    if (!line->document && strcmp(run_string(web->run, "malformed"), "fail") == 0)
        return err_set(err, ERR_PROTOCOL, "%s:%llu %s; params.malformed: skip counts such lines",
                       line->file->path, (unsigned long long)line->number, line->malformed);
    VEC_RESERVE(round->items, round->count, round->capacity);
    struct item *item = &round->items[round->count++];
    *item = (struct item){.line = line->number, .value = NAN, .verdict = FILTER_KEPT};
    round->file = line->file;
    if (line->document) {
        item->document = *line->document;
        *line->document = (struct document){0};
        if (line->no_page)
            item->verdict = FILTER_NO_PAGE;
        item->malformed = mem_strdup(line->no_page);
    } else {
        item->verdict = FILTER_MALFORMED;
        item->malformed = mem_strdup(line->malformed);
    }
    return 0;
}

static void item_done(struct item *item)
{
    document_done(&item->document);
    mem_free(item->malformed);
    spans_done(&item->spans);
    buf_done(&item->attributes);
}

/* ---- keys of a block that is there ------------------------------------------------------ */

static void set_head(const struct round *round, struct keys_head *head)
{
    *head = (struct keys_head){.magic = KEYS_MAGIC};
    memcpy(head->settings, round->web->settings, HASH_HEX_SIZE);
    for (int s = 0; s < STAGE_END; s++)
        head->count[s] = round->keys[s].count;
}

static int write_keys(const struct round *round, struct err *err)
{
    char *path = web_block_path(round->web, round->block, "keys");
    struct keys_head head;
    struct buf out = {0};

    set_head(round, &head);
    buf_add(&out, &head, sizeof head);
    for (int s = 0; s < STAGE_END; s++)
        if (round->keys[s].count)
            buf_add(&out, round->keys[s].items, round->keys[s].count * sizeof(struct key));
    int rc = file_replace(path, out.bytes, out.length, 0644, err);
    buf_done(&out);
    mem_free(path);
    return rc;
}

/* False when they are not of this job's settings, or not whole. */
static bool parse_keys(struct round *round, const char *bytes, size_t length)
{
    struct keys_head head;
    uint64_t total = sizeof head;

    if (length < sizeof head)
        return false;
    memcpy(&head, bytes, sizeof head);
    if (memcmp(head.magic, KEYS_MAGIC, 8) != 0 ||
        memcmp(head.settings, round->web->settings, HASH_HEX_SIZE) != 0)
        return false;
    for (int s = 0; s < STAGE_END; s++) {
        if (head.count[s] > KEYS_BYTES_MAX / sizeof(struct key))
            return false;
        total += head.count[s] * sizeof(struct key);
    }
    if (total != length)
        return false;
    bytes += sizeof head;
    for (int s = 0; s < STAGE_END; s++) {
        struct key_list *list = &round->keys[s];
        list->count = list->capacity = head.count[s];
        list->items = mem_array(list->count + 1, sizeof *list->items);
        memcpy(list->items, bytes, list->count * sizeof *list->items);
        bytes += list->count * sizeof *list->items;
    }
    return true;
}

static int tally_item(void *argument, size_t block, size_t index, struct block_item *item,
                      struct err *err)
{
    struct round *round = argument;

    (void)block;
    (void)index;
    (void)err;
    round->tally[item->verdict]++;
    round->tally[FILTER_END] += (int64_t)item->bytes;
    round->tally[FILTER_END + 1] += item->verdict == FILTER_KEPT ? (int64_t)item->length : 0;
    return 0;
}

/* *out: the block and its keys are there, whole and of these settings. */
static int find_block(struct round *round, bool *out, struct err *err)
{
    char *path = web_block_path(round->web, round->block, "keys"), *bytes = NULL;
    size_t length;
    int rc = web_block_read(round->web, round->block, tally_item, round, err);

    if (rc == 0)
        rc = file_read(path, KEYS_BYTES_MAX, &bytes, &length, err);
    *out = rc == 0 && parse_keys(round, bytes, length);
    if (!*out)
        memset(round->tally, 0, sizeof round->tally);
    if (rc < 0 &&
        (err->kind == ERR_NOT_FOUND || err->kind == ERR_STALE || err->kind == ERR_PROTOCOL)) {
        err_clear(err);
        rc = 0;
    }
    mem_free(bytes);
    mem_free(path);
    return rc;
}

/* ---- stages ----------------------------------------------------------------------------- */

/* The verdicts that a SEEN stage's answers give: a whole document, or paragraphs to cut. */
static void apply_answers(struct round *round, enum stage stage, const bool *seen)
{
    size_t next = 0;

    for (size_t i = 0; i < round->count; i++) {
        struct item *item = &round->items[i];
        struct key_list none = {0};
        struct spans places = {0};
        if (item->verdict != FILTER_KEPT)
            continue;
        stage_keys(round->web, stage, item, &none, &places);
        for (size_t k = 0; k < none.count; k++, next++) {
            if (!seen[next])
                continue;
            if (stage == STAGE_PARAGRAPH) {
                spans_add(&item->spans, places.items[k].begin, places.items[k].end, NULL);
                item->edits[EDIT_PARAGRAPHS]++;
            } else {
                item->verdict = stage == STAGE_URL ? FILTER_URL : FILTER_DOCUMENT;
            }
        }
        mem_free(none.items);
        spans_done(&places);
    }
    CHECK(next == round->keys[stage].count);
}

static int ask(struct round *round, enum stage stage, struct err *err)
{
    struct web *web = round->web;
    struct key_list *keys = &round->keys[stage];
    uint64_t began = cpu_us();

    for (size_t i = 0; i < round->count && !round->replay; i++)
        if (round->items[i].verdict == FILTER_KEPT)
            stage_keys(web, stage, &round->items[i], keys, NULL);
    bool *seen = mem_array(keys->count + 1, sizeof *seen);
    web->busy_us += cpu_us() - began;
    int rc = seen_ask(&web->seen[stage], keys->items, keys->count, seen, err);
    if (rc == 0 && !round->replay)
        apply_answers(round, stage, seen);
    mem_free(seen);
    return rc;
}

/* LOCAL stages [from, to) document by document, so that a text is cut into words once. */
static int look(struct round *round, size_t from, size_t to, struct err *err)
{
    struct web *web = round->web;
    uint64_t began = cpu_us();

    for (size_t i = 0; i < round->count; i++) {
        struct item *item = &round->items[i];
        for (size_t s = from; s < to && item->verdict == FILTER_KEPT; s++)
            if (stage_run(web, web->stages[s], item, err) < 0)
                return err_wrap(err, "stage %s of %s:%llu", stage_name(web->stages[s]),
                                round->file->path, (unsigned long long)item->line);
    }
    web->busy_us += cpu_us() - began;
    return 0;
}

/* ---- writing ---------------------------------------------------------------------------- */

static void put_edits(struct buf *out, const struct item *item)
{
    bool any = false;

    for (enum edit e = 0; e < EDIT_END; e++)
        if (item->edits[e]) {
            buf_printf(out, "%s\"%s\":%llu", any ? "," : ",\"edits\":{", edit_name(e),
                       (unsigned long long)item->edits[e]);
            any = true;
        }
    if (any)
        buf_putc(out, '}');
}

/* Applies the edits; a document of which nothing is left is dropped. */
static void edit(struct item *item, struct buf *out)
{
    const char *text;
    size_t length;

    buf_clear(out);
    if (item->verdict != FILTER_KEPT)
        return;
    if (item->spans.count)
        spans_apply(&item->spans, item->document.text, item->document.length, out);
    else
        buf_add(out, item->document.text, item->document.length);
    text = buf_text(out);
    length = out->length;
    char_trim(&text, &length);
    if (length == 0)
        item->verdict = FILTER_EMPTY;
}

static void put_item(struct round *round, struct item *item, struct buf *text, struct buf *out)
{
    const struct document *document = &item->document;

    buf_puts(out, "{\"id\":");
    json_text_quote(out, document->id ? document->id : "", document->id ? strlen(document->id) : 0);
    buf_puts(out, ",\"source\":");
    json_text_quote(out, document->source ? document->source : "",
                    document->source ? strlen(document->source) : 0);
    buf_puts(out, ",\"where\":");
    char *where = mem_printf("%s:%llu", round->file->path, (unsigned long long)item->line);
    json_text_quote(out, where, strlen(where));
    mem_free(where);
    buf_printf(out, ",\"bytes\":%zu,\"verdict\":\"%s\"", document->length,
               web_filter_name(round->web, item->verdict));
    if (isfinite(item->value))
        buf_printf(out, ",\"value\":%.9g", item->value);
    if (item->attributes.length)
        buf_printf(out, ",\"attributes\":{%s}", item->attributes.bytes);
    put_edits(out, item);
    bool kept = item->verdict == FILTER_KEPT;
    buf_puts(out, kept ? ",\"text\":" : ",\"excerpt\":");
    if (kept)
        json_text_quote(out, text->bytes, text->length);
    else if (item->malformed)
        json_text_quote(out, item->malformed, strlen(item->malformed));
    else
        json_text_quote(out, document->text,
                        char_prefix(document->text, document->length, WEB_EXCERPT_CHARS));
    buf_puts(out, "}\n");
    round->tally[item->verdict]++;
    round->tally[FILTER_END] += (int64_t)document->length;
    round->tally[FILTER_END + 1] += kept ? (int64_t)text->length : 0;
}

static int write_block(struct round *round, struct err *err)
{
    char *path = web_block_path(round->web, round->block, "jsonl");
    uint64_t began = cpu_us();
    struct buf out = {0}, text = {0};

    buf_printf(&out, "{\"settings\":\"%s\",\"documents\":%zu}\n", round->web->settings,
               round->count);
    for (size_t i = 0; i < round->count; i++) {
        edit(&round->items[i], &text);
        put_item(round, &round->items[i], &text, &out);
    }
    round->web->busy_us += cpu_us() - began;
    int rc = write_keys(round, err);
    if (rc == 0)
        rc = file_replace(path, out.bytes, out.length, 0644, err);
    buf_done(&out);
    buf_done(&text);
    mem_free(path);
    return rc;
}

/* ---- the round -------------------------------------------------------------------------- */

static int open_round(struct round *round, struct err *err)
{
    struct web *web = round->web;
    uint64_t began = cpu_us();

    if (round->block >= web->list.block_count)
        return 0;
    round->file = &web->list.files[web->list.blocks[round->block].file];
    if (find_block(round, &round->replay, err) < 0)
        return -1;
    if (round->replay)
        return 0;
    int rc = document_read(&web->list, round->block, take_line, round, err);
    web->busy_us += cpu_us() - began;
    return rc;
}

static int do_stages(struct round *round, struct err *err)
{
    struct web *web = round->web;
    size_t next;

    web->view.text = NULL; /* of a document of another round, whose memory may be in use again */
    for (size_t s = 0; s < web->local_count; s = next) {
        next = s + 1;
        if (stage_kind(web->stages[s]) == STAGE_SEEN) {
            if (ask(round, web->stages[s], err) < 0)
                return err_wrap(err, "stage %s", stage_name(web->stages[s]));
            continue;
        }
        while (next < web->local_count && stage_kind(web->stages[next]) == STAGE_LOCAL)
            next++;
        if (look(round, s, next, err) < 0)
            return -1;
    }
    if (round->block < web->list.block_count && !round->replay)
        return write_block(round, err);
    return 0;
}

static void report(struct web *web)
{
    struct run *run = web->run;
    int64_t in = 0;
    double busy[] = {(double)web->busy_us};

    for (int f = 0; f < FILTER_END; f++)
        in += web->count[f];
    run_metric(run, "documents_read", (double)in);
    run_metric(run, "bytes_read", (double)web->bytes_read);
    run_metric(run, "documents_kept", (double)web->count[FILTER_KEPT]);
    run_metric(run, "bytes_kept", (double)web->bytes_kept);
    for (int f = 0; f < FILTER_KEPT; f++) {
        char name[64];
        snprintf(name, sizeof name, "dropped_%s", web_filter_name(web, (enum filter)f));
        if (web->count[f])
            run_metric(run, name, (double)web->count[f]);
    }
    comm_sum_f64(run->comm, busy, 1);
    if (busy[0] > 0)
        run_metric(run, "mb_per_s_per_core", (double)web->bytes_read / busy[0]);
}

int round_run(struct web *web, uint64_t number, struct err *err)
{
    struct run *run = web->run;
    struct round round = {.web = web, .block = number * run->rank_count + run->rank};
    int rc = open_round(&round, err);

    run->phase = "filter";
    if (rc == 0)
        rc = do_stages(&round, err);
    for (size_t i = 0; i < round.count; i++)
        item_done(&round.items[i]);
    mem_free(round.items);
    for (int s = 0; s < STAGE_END; s++)
        mem_free(round.keys[s].items);
    if (rc < 0)
        return -1;
    comm_sum_i64(run->comm, round.tally, ARRAY_COUNT(round.tally));
    for (int f = 0; f < FILTER_END; f++)
        web->count[f] += round.tally[f];
    web->bytes_read += round.tally[FILTER_END];
    web->bytes_kept += round.tally[FILTER_END + 1];
    report(web);
    return 0;
}
