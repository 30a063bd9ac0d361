/* spans.c - see spans.h. */
#include "worker/recipes/data/web/spans.h"

#include "common/base/mem.h"

#include <stdlib.h>

void spans_add(struct spans *spans, size_t begin, size_t end, const char *mask)
{
    CHECK(begin <= end);
    VEC_RESERVE(spans->items, spans->count, spans->capacity);
    spans->items[spans->count++] = (struct span){begin, end, mask};
}

void spans_clear(struct spans *spans)
{
    spans->count = 0;
}

void spans_done(struct spans *spans)
{
    mem_free(spans->items);
    *spans = (struct spans){0};
}

/* Cuts before masks, each by place. */
static int compare(const void *a, const void *b)
{
    const struct span *x = a, *y = b;

    if (!x->mask != !y->mask)
        return x->mask ? 1 : -1;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* Merges cuts that touch, in place; returns how many are left. */
static size_t merge(struct span *cuts, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        if (kept && cuts[i].begin <= cuts[kept - 1].end) {
            if (cuts[i].end > cuts[kept - 1].end)
                cuts[kept - 1].end = cuts[i].end;
        } else {
            cuts[kept++] = cuts[i];
        }
    }
    return kept;
}

/* Walks cuts and masks side by side, always past whichever comes next. */
void spans_apply(struct spans *spans, const char *text, size_t length, struct buf *out)
{
    size_t total = spans->count, masks = 0, at = 0, c = 0;

    if (total > 1)
        qsort(spans->items, total, sizeof *spans->items, compare);
    while (masks < total && !spans->items[masks].mask)
        masks++;
    size_t cuts = merge(spans->items, masks), m = masks;
    while (at < length) {
        const struct span *cut = c < cuts ? &spans->items[c] : NULL;
        const struct span *mask = m < total ? &spans->items[m] : NULL;
        CHECK(!mask || (mask->begin >= at && mask->end <= length) ||
              (cut && mask->end <= cut->end));
        if (cut && cut->end <= at) {
            c++;
        } else if (mask && cut && mask->begin >= cut->begin && mask->end <= cut->end) {
            m++;
        } else if (cut && cut->begin <= at && (!mask || mask->begin > at)) {
            at = mask && mask->begin < cut->end ? mask->begin : cut->end;
        } else if (mask && mask->begin <= at) {
            buf_puts(out, mask->mask);
            at = mask->end;
            m++;
        } else {
            size_t next = cut && cut->begin < length ? cut->begin : length;
            next = mask && mask->begin < next ? mask->begin : next;
            buf_add(out, text + at, next - at);
            at = next;
        }
    }
}
