/* order.c - see order.h. */
#include "worker/recipes/order.h"

#include "common/base/json_text.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <jansson.h>
#include <string.h>

/* ---- telling ---------------------------------------------------------------------------- */

char *order_text(const struct data_order *order)
{
    const struct {
        const char *name, *value;
    } texts[] = {{"input", order->input}, {"path", order->path}, {"part", order->part}};
    struct buf out = {0};

    buf_putc(&out, '{');
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        buf_printf(&out, "\"%s\": ", texts[i].name);
        json_text_quote(&out, texts[i].value, strlen(texts[i].value));
        buf_puts(&out, ", ");
    }
    /* Readers of JSON may round numbers above 2^53: the seed is a text. */
    buf_printf(&out, "\"unit\": \"%s\", \"seed\": \"%llu\", \"batch\": %llu, \"items\": %llu, "
               "\"context\": %llu, \"skip\": %llu}", order->windows ? "windows" : "documents",
               (unsigned long long)order->seed, (unsigned long long)order->batch,
               (unsigned long long)order->items, (unsigned long long)order->context,
               (unsigned long long)order->skip);
    return buf_take(&out);
}

void order_tell(const struct trainer *trainer, const struct corpus *corpus, uint64_t seed,
                const struct windows *windows)
{
    const struct data_order order = {
        .input = (char *)corpus->input, .path = (char *)dataset_path(corpus->dataset),
        .part = (char *)corpus->part->name, .windows = windows != NULL, .seed = seed,
        .batch = (uint64_t)trainer->batch,
        .items = windows ? (uint64_t)windows->window_count : corpus->part->document_count,
        .context = windows ? (uint64_t)windows->T : 0, .skip = trainer->run->data_skip};
    char *text = order_text(&order);

    run_event(trainer->run, "data_order", text);
    mem_free(text);
}

/* ---- reading ---------------------------------------------------------------------------- */

static int take_text(json_t *root, const char *name, char **out, struct err *err)
{
    const char *text = json_string_value(json_object_get(root, name));

    if (!text || !*text)
        return err_set(err, ERR_PROTOCOL, "'%s' is not a text", name);
    *out = mem_strdup(text);
    return 0;
}

static int take_number(json_t *root, const char *name, uint64_t least, uint64_t *out,
                       struct err *err)
{
    json_t *value = json_object_get(root, name);

    if (!json_is_integer(value) || json_integer_value(value) < (json_int_t)least ||
        json_integer_value(value) > (json_int_t)1 << 60)
        return err_set(err, ERR_PROTOCOL, "'%s' is not a whole number of %llu to 2^60", name,
                       (unsigned long long)least);
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

static int take_members(json_t *root, struct data_order *out, struct err *err)
{
    char *unit = NULL, *seed = NULL;
    int rc = -1;

    if (take_text(root, "input", &out->input, err) == 0 &&
        take_text(root, "path", &out->path, err) == 0 &&
        take_text(root, "part", &out->part, err) == 0 && take_text(root, "unit", &unit, err) == 0 &&
        take_text(root, "seed", &seed, err) == 0 && parse_u64(seed, &out->seed, err) == 0) {
        out->windows = strcmp(unit, "windows") == 0;
        if (!out->windows && strcmp(unit, "documents") != 0)
            err_set(err, ERR_PROTOCOL, "'unit' is '%.40s', expected windows or documents", unit);
        else if (take_number(root, "batch", 1, &out->batch, err) == 0 &&
                 take_number(root, "items", 1, &out->items, err) == 0 &&
                 take_number(root, "context", out->windows, &out->context, err) == 0)
            rc = take_number(root, "skip", 0, &out->skip, err);
    }
    mem_free(unit);
    mem_free(seed);
    return rc;
}

int order_parse(const char *json, size_t length, struct data_order *out, struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &why);
    int rc = -1;

    *out = (struct data_order){0};
    if (!root)
        err_set(err, ERR_PROTOCOL, "column %d: %s", why.column, why.text);
    else if (!json_is_object(root))
        err_set(err, ERR_PROTOCOL, "not an object");
    else
        rc = take_members(root, out, err);
    json_decref(root);
    if (rc == 0)
        return 0;
    order_done(out);
    return err_wrap(err, "data order");
}

void order_done(struct data_order *order)
{
    mem_free(order->input);
    mem_free(order->path);
    mem_free(order->part);
    *order = (struct data_order){0};
}

/* ---- from steps to documents ------------------------------------------------------------ */

struct look_up {
    const struct data_order *order;
    const struct dataset_part *part;
    struct windows windows;
    struct dataset_texts texts; /* none: only numbers are printed */
};

static int look_up_open(struct look_up *look, struct dataset *dataset, struct err *err)
{
    const struct data_order *order = look->order;
    uint64_t items;

    if (dataset_part(dataset, order->part, &look->part, err) < 0)
        return -1;
    if (look->part->texts_path && dataset_texts_read(look->part, &look->texts, err) < 0)
        return -1;
    if (order->windows &&
        (order->context > (uint64_t)1 << 31 ||
         windows_init(&look->windows, look->part, (int64_t)order->context, err) < 0))
        return order->context > (uint64_t)1 << 31 ?
               err_set(err, ERR_INVALID, "windows of %llu tokens, expected at most 2^31",
                       (unsigned long long)order->context) : -1;
    items = order->windows ? (uint64_t)look->windows.window_count : look->part->document_count;
    if (items == order->items)
        return 0;
    return err_set(err, ERR_INVALID, "part '%s' of '%s' has %llu %s, but %llu were trained on: it "
                   "is another dataset by now", order->part, order->path,
                   (unsigned long long)items, order->windows ? "windows" : "documents",
                   (unsigned long long)order->items);
}

static void print_row(const struct look_up *look, uint64_t step, uint64_t row, struct buf *out)
{
    const struct data_order *order = look->order;
    uint64_t item = sampler_item(order->seed, order->items,
                                 (step - 1 + order->skip) * order->batch + row);
    uint64_t from = item, to = item;

    buf_printf(out, "{\"step\": %llu, \"row\": %llu, ", (unsigned long long)step,
               (unsigned long long)row);
    if (order->windows) {
        buf_printf(out, "\"window\": %llu, ", (unsigned long long)item);
        windows_documents(&look->windows, (int64_t)item, &from, &to);
    }
    buf_puts(out, "\"documents\": [");
    for (uint64_t document = from; document <= to; document++)
        buf_printf(out, "%s%llu", document > from ? ", " : "", (unsigned long long)document);
    for (uint64_t document = from; document <= to && document < look->texts.count; document++) {
        const char *id = look->texts.items[document].id;

        buf_puts(out, document > from ? ", " : "], \"ids\": [");
        json_text_quote(out, id, strlen(id));
    }
    buf_puts(out, "]}\n");
}

int order_print(const struct data_order *order, uint64_t first, uint64_t last, struct buf *out,
                struct err *err)
{
    struct look_up look = {.order = order};
    struct dataset *dataset = NULL;
    int rc = -1;

    if (first == 0 || last < first || last > UINT64_MAX / 2 / order->batch - order->skip)
        return err_set(err, ERR_INVALID, "steps %llu to %llu: steps are counted from 1",
                       (unsigned long long)first, (unsigned long long)last);
    if (dataset_open(order->path, &dataset, err) == 0)
        rc = look_up_open(&look, dataset, err);
    for (uint64_t step = first; rc == 0 && step <= last; step++)
        for (uint64_t row = 0; row < order->batch; row++)
            print_row(&look, step, row, out);
    windows_done(&look.windows);
    dataset_texts_done(&look.texts);
    dataset_close(dataset);
    return rc;
}
