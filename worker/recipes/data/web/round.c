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
#include "worker/recipes/data/web/coherence.h"
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

void item_done(struct item *item)
{
    document_done(&item->document);
    mem_free(item->malformed);
    spans_done(&item->spans);
    buf_done(&item->attributes);
    mem_free(item->parts);
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
static void apply_answers(const struct web *web, enum stage stage, const struct seen_units *units,
                          const bool *seen)
{
    for (size_t u = 0; u < units->count; u++) {
        const struct seen_unit *unit = &units->items[u];
        size_t hits = 0;
        for (size_t k = 0; k < unit->keys; k++)
            hits += *seen++;
        if (!stage_unit_seen(web, unit, hits))
            continue;
        if (stage == STAGE_PARAGRAPH) {
            spans_add(&unit->item->spans, unit->begin, unit->end, NULL);
            unit->item->edits[EDIT_PARAGRAPHS]++;
        } else {
            unit->item->verdict = stage == STAGE_URL     ? FILTER_URL
                                  : stage == STAGE_TITLE ? FILTER_TITLE
                                                         : FILTER_DOCUMENT;
        }
    }
}

static int ask(struct round *round, enum stage stage, struct err *err)
{
    struct web *web = round->web;
    struct key_list *keys = &round->keys[stage];
    struct seen_units units = {0};
    uint64_t began = cpu_us();

    for (size_t i = 0; i < round->count && !round->replay; i++)
        if (round->items[i].verdict == FILTER_KEPT)
            stage_keys(web, stage, &round->items[i], keys, &units);
    bool *seen = mem_array(keys->count + 1, sizeof *seen);
    web->busy_us += cpu_us() - began;
    int rc = seen_ask(&web->seen[stage], keys->items, keys->count, seen, err);
    if (rc == 0 && !round->replay)
        apply_answers(web, stage, &units, seen);
    mem_free(seen);
    mem_free(units.items);
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

/* What becomes one line: a document, or a part of one that was split. */
struct piece {
    size_t begin, end; /* bytes of the document's text */
    size_t number;     /* of the part, from 1; 0: a whole document */
    enum filter verdict;
    double value;
};

static struct piece piece_of(const struct item *item, size_t number)
{
    if (item->verdict != FILTER_KEPT || item->part_count == 0)
        return (struct piece){0, item->document.length, 0, item->verdict, item->value};
    const struct coherent_part *part = &item->parts[number];
    return (struct piece){part->begin, part->end, number + 1,
                          part->kept ? FILTER_KEPT : FILTER_COHERENCE, part->score};
}

static size_t piece_count(const struct item *item)
{
    return item->verdict != FILTER_KEPT || item->part_count == 0 ? 1 : item->part_count;
}

/* The spans within a piece, counted from its beginning. A mask over its border goes to the piece
 * that it begins in, the other one loses those bytes. */
static void clip(const struct spans *spans, const struct piece *piece, struct spans *out)
{
    for (size_t i = 0; i < spans->count; i++) {
        const struct span *span = &spans->items[i];
        size_t begin = span->begin > piece->begin ? span->begin : piece->begin;
        size_t end = span->end < piece->end ? span->end : piece->end;
        if (begin < end)
            spans_add(out, begin - piece->begin, end - piece->begin,
                      span->begin >= piece->begin ? span->mask : NULL);
    }
}

/* Applies the edits; a piece of which nothing is left is dropped. */
static void edit(const struct item *item, struct piece *piece, struct buf *out)
{
    const char *text;
    size_t length;
    struct spans clipped = {0};

    buf_clear(out);
    if (piece->verdict != FILTER_KEPT)
        return;
    clip(&item->spans, piece, &clipped);
    spans_apply(&clipped, item->document.text + piece->begin, piece->end - piece->begin, out);
    spans_done(&clipped);
    text = buf_text(out);
    length = out->length;
    char_trim(&text, &length);
    if (length == 0)
        piece->verdict = FILTER_EMPTY;
}

static void put_text(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, "%s\"%s\":", *name == 'i' ? "{" : ",", name);
    json_text_quote(out, text ? text : "", text ? strlen(text) : 0);
}

static void put_names(const struct round *round, const struct item *item,
                      const struct piece *piece, struct buf *out)
{
    const char *id = item->document.id ? item->document.id : "";
    char *part = piece->number ? mem_printf("%s:%zu", id, piece->number) : mem_strdup(id);
    char *where = mem_printf("%s:%llu", round->file->path, (unsigned long long)item->line);

    put_text(out, "id", part);
    put_text(out, "source", item->document.source);
    put_text(out, "where", where);
    mem_free(part);
    mem_free(where);
}

/* Attributes are the document's, and so those of all its parts; edits are told once. */
static void put_piece(struct round *round, const struct item *item, const struct piece *piece,
                      const struct buf *text, struct buf *out)
{
    size_t bytes = piece->end - piece->begin;
    const char *excerpt = item->document.text ? item->document.text + piece->begin : NULL;
    bool kept = piece->verdict == FILTER_KEPT;

    put_names(round, item, piece, out);
    buf_printf(out, ",\"bytes\":%zu,\"verdict\":\"%s\"", bytes,
               web_filter_name(round->web, piece->verdict));
    if (isfinite(piece->value))
        buf_printf(out, ",\"value\":%.9g", piece->value);
    if (item->attributes.length)
        buf_printf(out, ",\"attributes\":{%s}", item->attributes.bytes);
    if (piece->number <= 1)
        put_edits(out, item);
    buf_puts(out, kept ? ",\"text\":" : ",\"excerpt\":");
    if (kept)
        json_text_quote(out, text->bytes, text->length);
    else if (item->malformed)
        json_text_quote(out, item->malformed, strlen(item->malformed));
    else
        json_text_quote(out, excerpt, char_prefix(excerpt, bytes, WEB_EXCERPT_CHARS));
    buf_puts(out, "}\n");
    round->tally[piece->verdict]++;
    round->tally[FILTER_END] += (int64_t)bytes;
    round->tally[FILTER_END + 1] += kept ? (int64_t)text->length : 0;
}

static int write_block(struct round *round, struct err *err)
{
    char *path = web_block_path(round->web, round->block, "jsonl");
    uint64_t began = cpu_us();
    struct buf out = {0}, text = {0};
    size_t lines = 0;

    for (size_t i = 0; i < round->count; i++)
        lines += piece_count(&round->items[i]);
    buf_printf(&out, "{\"settings\":\"%s\",\"documents\":%zu}\n", round->web->settings, lines);
    for (size_t i = 0; i < round->count; i++) {
        size_t pieces = piece_count(&round->items[i]);
        for (size_t n = 0; n < pieces; n++) {
            struct piece piece = piece_of(&round->items[i], n);
            edit(&round->items[i], &piece, &text);
            put_piece(round, &round->items[i], &piece, &text, &out);
        }
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
