/* block.c - see block.h. */
#include "worker/recipes/distillation/impossible/block.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "worker/recipes/distillation/impossible/sentence.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void outcome_done(struct outcome *outcome)
{
    mem_free(outcome->origin);
    mem_free(outcome->text);
    for (size_t i = 0; i < outcome->sample_count; i++)
        mem_free(outcome->samples[i]);
    mem_free(outcome->samples);
    filtered_done(&outcome->filtered);
    *outcome = (struct outcome){0};
}

/* ---- writing ---------------------------------------------------------------------------- */

static json_t *verdict_rows(const struct filtered *filtered)
{
    size_t n = filtered->distinct_count;
    json_t *rows = json_array();
    char *row = mem_alloc(n + 1);

    for (size_t x = 0; x < n; x++) {
        for (size_t y = 0; y < n; y++) {
            enum verdict verdict = filtered->verdict[x * n + y];
            row[y] = verdict == VERDICT_END ? '-' : verdict_letter(verdict);
        }
        json_array_append_new(rows, json_stringn(row, n));
    }
    mem_free(row);
    return rows;
}

static json_t *kept_rows(const struct filtered *filtered)
{
    json_t *rows = json_array();

    for (size_t i = 0; i < filtered->kept_count; i++) {
        const struct kept_pair *pair = &filtered->kept[i];
        json_t *reverse = isnan(pair->reverse) ? json_null() : json_real(pair->reverse);
        json_array_append_new(rows, json_pack("{s:I, s:I, s:f, s:o, s:f}", "x", (json_int_t)pair->x,
                                              "y", (json_int_t)pair->y, "forward", pair->forward,
                                              "reverse", reverse, "rouge", pair->rouge));
    }
    return rows;
}

static json_t *strings(char *const *texts, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_string(texts[i]));
    return array;
}

void outcome_write(const struct outcome *outcome, struct buf *out)
{
    const struct filtered *filtered = &outcome->filtered;
    json_t *distinct = json_array(), *pool = json_object();

    for (size_t i = 0; i < filtered->distinct_count; i++)
        json_array_append_new(distinct, json_integer((json_int_t)filtered->distinct[i]));
    for (enum verdict v = 0; v < VERDICT_END; v++)
        json_object_set_new(pool, verdict_name(v), json_integer((json_int_t)filtered->count[v]));
    json_t *line = json_pack("{s:I, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "context",
                             (json_int_t)outcome->context, "origin", outcome->origin, "text",
                             outcome->text, "samples",
                             strings(outcome->samples, outcome->sample_count), "distinct", distinct,
                             "verdicts", verdict_rows(filtered), "pool", pool, "kept",
                             kept_rows(filtered));
    CHECK(line);
    char *text = json_dumps(line, JSON_COMPACT);
    CHECK(text);
    buf_puts(out, text);
    buf_putc(out, '\n');
    free(text);
    json_decref(line);
}

void block_begin(struct buf *out, const char *settings)
{
    buf_printf(out, "{\"settings\":\"%s\"}\n", settings);
}

static int compare_made(const char *path, const struct buf *bytes, struct err *err)
{
    struct hash there, ours;
    char left[HASH_HEX_SIZE], right[HASH_HEX_SIZE];

    if (hash_file(path, &there, err) < 0)
        return -1;
    hash_bytes(bytes->bytes, bytes->length, &ours);
    if (hash_equal(&there, &ours))
        return 0;
    hash_to_hex(&there, left);
    hash_to_hex(&ours, right);
    return err_set(err, ERR_INVALID, "block '%s' was made twice and differs: %.16s... is there, "
                   "%.16s... was made again; the ranks' devices or libraries do not compute the "
                   "same bits", path, left, right);
}

int block_write(const char *path, const struct buf *bytes, bool *out_first, struct err *err)
{
    *out_first = true;
    if (file_create(path, bytes->bytes, bytes->length, 0644, err) == 0)
        return 0;
    if (err->kind != ERR_EXISTS)
        return -1;
    err_clear(err);
    *out_first = false;
    return compare_made(path, bytes, err);
}

/* ---- lines that ranks make side by side (evaluations) ----------------------------------- */

static char *part_path(const char *path, unsigned rank)
{
    return mem_printf("%s.part-%u", path, rank);
}

int block_write_part(const char *path, unsigned rank, const struct buf *lines, struct err *err)
{
    char *part = part_path(path, rank);
    int rc = file_replace(part, buf_text(lines), lines->length, 0644, err);

    mem_free(part);
    return rc;
}

struct part {
    char *bytes;
    const char *at;
};

static int take_line(struct part *part, struct buf *out, struct err *err)
{
    const char *end = strchr(part->at, '\n');

    if (!end)
        return err_set(err, ERR_PROTOCOL, "a rank's part of a block ends too early");
    buf_add(out, part->at, (size_t)(end - part->at) + 1);
    part->at = end + 1;
    return 0;
}

int block_merge(const char *path, const char *settings, uint64_t first, uint64_t count,
                unsigned ranks, struct err *err)
{
    struct part *parts = mem_array(ranks, sizeof *parts);
    struct buf merged = {0};
    int rc = 0;

    block_begin(&merged, settings);
    for (unsigned r = 0; r < ranks && rc == 0; r++) {
        char *name = part_path(path, r);
        size_t length;
        rc = file_read(name, BLOCK_BYTES_MAX, &parts[r].bytes, &length, err);
        parts[r].at = parts[r].bytes;
        mem_free(name);
    }
    for (uint64_t c = first; c < first + count && rc == 0; c++)
        rc = take_line(&parts[c % ranks], &merged, err);
    if (rc == 0)
        rc = file_replace(path, merged.bytes, merged.length, 0644, err);
    for (unsigned r = 0; r < ranks; r++) {
        char *name = part_path(path, r);
        if (rc == 0)
            unlink(name);
        mem_free(name);
        mem_free(parts[r].bytes);
    }
    mem_free(parts);
    buf_done(&merged);
    return rc;
}

/* ---- reading ---------------------------------------------------------------------------- */

static const char *sample_at(const json_t *line, json_int_t index)
{
    return json_string_value(
        json_array_get(json_object_get(line, "samples"), index < 0 ? SIZE_MAX : (size_t)index));
}

static int read_kept(const json_t *line, struct block_line *out)
{
    const json_t *list = json_object_get(line, "kept");
    size_t count = json_array_size(list);

    out->kept = mem_array(count + 1, sizeof *out->kept);
    for (size_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(list, i);
        json_int_t x = json_integer_value(json_object_get(pair, "x"));
        json_int_t y = json_integer_value(json_object_get(pair, "y"));
        const char *x_text = sample_at(line, x), *y_text = sample_at(line, y);
        if (!x_text || !y_text)
            return -1;
        const json_t *reverse = json_object_get(pair, "reverse");
        out->kept[out->kept_count++] = (struct kept_text){
            .x = mem_strdup(x_text), .y = mem_strdup(y_text), .x_sample = (size_t)x,
            .y_sample = (size_t)y, .rouge = json_number_value(json_object_get(pair, "rouge")),
            .forward = json_number_value(json_object_get(pair, "forward")),
            .reverse = json_is_number(reverse) ? json_number_value(reverse) : NAN};
    }
    return 0;
}

/* The first pair with each verdict's letter: 1 + its row and column in the matrix; 0: none. */
struct firsts {
    size_t x[VERDICT_END], y[VERDICT_END];
};

static void find_firsts(const json_t *rows, struct firsts *out)
{
    for (size_t x = 0; x < json_array_size(rows); x++) {
        const char *row = json_string_value(json_array_get(rows, x));
        for (size_t y = 0; row && row[y]; y++)
            for (enum verdict v = 0; v < VERDICT_END; v++)
                if (row[y] == verdict_letter(v) && !out->x[v]) {
                    out->x[v] = x + 1;
                    out->y[v] = y + 1;
                }
    }
}

static void read_dropped(const json_t *line, struct block_line *out)
{
    const json_t *distinct = json_object_get(line, "distinct");
    struct firsts firsts = {0};
    enum verdict take = VERDICT_LENGTH + out->context % (VERDICT_KEPT - VERDICT_LENGTH);

    find_firsts(json_object_get(line, "verdicts"), &firsts);
    for (enum verdict v = VERDICT_KEPT - 1; v >= VERDICT_LENGTH && !firsts.x[take]; v--)
        take = v;
    if (!firsts.x[take])
        return;
    json_int_t x = json_integer_value(json_array_get(distinct, firsts.x[take] - 1));
    json_int_t y = json_integer_value(json_array_get(distinct, firsts.y[take] - 1));
    if (!sample_at(line, x) || !sample_at(line, y))
        return;
    out->dropped_x = mem_strdup(sample_at(line, x));
    out->dropped_y = mem_strdup(sample_at(line, y));
    out->dropped_x_sample = (size_t)x;
    out->dropped_y_sample = (size_t)y;
    out->dropped = take;
}

static void line_done(struct block_line *line)
{
    for (size_t i = 0; i < line->kept_count; i++) {
        mem_free(line->kept[i].x);
        mem_free(line->kept[i].y);
    }
    mem_free(line->kept);
    mem_free(line->dropped_x);
    mem_free(line->dropped_y);
}

static uint64_t text_hash(const char *text)
{
    struct hash hash;
    uint64_t out;

    hash_bytes(text, strlen(text), &hash);
    memcpy(&out, &hash, sizeof out);
    return out;
}

static int visit_line(const char *text, size_t length, block_visit visit, void *argument,
                      struct err *err)
{
    json_error_t where;
    struct block_line line = {0};
    json_t *root = json_loadb(text, length, 0, &where);
    int rc = -1;

    if (!root || !json_is_integer(json_object_get(root, "context")) || read_kept(root, &line) < 0) {
        err_set(err, ERR_PROTOCOL, "damaged: %s", root ? "a pair names no sample" : where.text);
    } else {
        const json_t *pool = json_object_get(root, "pool");
        const char *context = json_string_value(json_object_get(root, "text"));
        context = context ? context : "";
        sentence_prefix(context, SIZE_MAX, &line.context_sentences);
        line.text = context;
        line.text_hash = text_hash(context);
        line.context = (uint64_t)json_integer_value(json_object_get(root, "context"));
        for (enum verdict v = 0; v < VERDICT_END; v++)
            line.count[v] = (uint64_t)json_integer_value(json_object_get(pool, verdict_name(v)));
        read_dropped(root, &line);
        rc = visit(argument, &line, err);
    }
    line_done(&line);
    json_decref(root);
    return rc;
}

static bool settings_are(const char *text, size_t length, const char *settings)
{
    char *wanted = mem_printf("{\"settings\":\"%s\"}", settings);
    bool same = length == strlen(wanted) && memcmp(text, wanted, length) == 0;

    mem_free(wanted);
    return same;
}

int block_parse(const char *bytes, const char *settings, uint64_t count, block_visit visit,
                void *argument, struct err *err)
{
    unsigned number = 1;

    for (const char *at = bytes, *end; (end = strchr(at, '\n')); at = end + 1, number++) {
        size_t length = (size_t)(end - at);
        if (number == 1 && !settings_are(at, length, settings))
            return err_set(err, ERR_STALE, "made with other settings");
        if (number > 1 && visit_line(at, length, visit, argument, err) < 0)
            return err_wrap(err, "line %u", number);
    }
    return number == count + 2 ? 0
                               : err_set(err, ERR_PROTOCOL, "has %u lines instead of %llu",
                                         number - 1, (unsigned long long)count + 1);
}

int block_read(const char *path, const char *settings, uint64_t count, block_visit visit,
               void *argument, struct err *err)
{
    char *bytes;
    size_t length;

    if (file_read(path, BLOCK_BYTES_MAX, &bytes, &length, err) < 0)
        return -1;
    int rc = block_parse(bytes, settings, count, visit, argument, err);
    mem_free(bytes);
    return rc < 0 ? err_wrap(err, "block '%s'", path) : 0;
}

static int expect_context(void *argument, const struct block_line *line, struct err *err)
{
    const uint64_t *expected = argument;

    return line->context == *expected ? 0 : err_set(err, ERR_PROTOCOL, "another context");
}

int block_read_start(const char *path, const char *settings, uint64_t first, uint64_t most,
                     struct buf *out, uint64_t *out_count, struct err *err)
{
    char *bytes;
    size_t length;
    bool begun = false;

    *out_count = 0;
    if (file_read(path, BLOCK_BYTES_MAX, &bytes, &length, err) < 0) {
        if (err->kind != ERR_NOT_FOUND)
            return -1;
        err_clear(err);
        return 0;
    }
    const char *end;
    for (const char *at = bytes; *out_count < most && (end = strchr(at, '\n')); at = end + 1) {
        size_t line = (size_t)(end - at);
        uint64_t context = first + *out_count;
        if (begun ? visit_line(at, line, expect_context, &context, err) < 0
                  : !settings_are(at, line, settings))
            break;
        buf_add(out, at, line + 1);
        *out_count += begun;
        begun = true;
    }
    err_clear(err);
    mem_free(bytes);
    return 0;
}
