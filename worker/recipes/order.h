/* order.h - in which order a training sees its data: the few numbers from which the documents of
 * any step follow, without anything being run again.
 *
 * Every recipe that trains tells them at its start as the event `data_order`, so that they are in
 * athanor.events with the attempt; athanor.lineages has the hash of what the input was then. Row r
 * of step s (counted from 1, as metrics are) is the item at position (s - 1 + skip) * batch + r of
 * the shuffled stream (sampler.h), on any number of ranks. An item is a document, or a window of
 * `context` tokens, whose documents are looked up in the part's shards by halving. */
#ifndef ATHANOR_ORDER_H
#define ATHANOR_ORDER_H

#include "common/base/buf.h"
#include "worker/recipes/train.h"

struct data_order {
    char *input, *path, *part; /* the input's name; dataset folder; its part */
    bool windows;              /* else documents                          */
    uint64_t seed, batch, items, context, skip;
};

/* windows: NULL for documents. */
void order_tell(const struct trainer *trainer, const struct corpus *corpus, uint64_t seed,
                const struct windows *windows);

/* The event's text. Errors: ERR_PROTOCOL naming the member, with what is accepted. */
int order_parse(const char *json, size_t length, struct data_order *out,
                struct err *err) WARN_UNUSED;
char *order_text(const struct data_order *order); /* mem_free */
void order_done(struct data_order *order);        /* a zeroed struct is fine */

/* Appends a line {"step", "row", "window", "documents": [...]} for each row of steps first..last,
 * with "ids" where the part has texts. Errors: ERR_INVALID for a step 0, ERR_NOT_FOUND and
 * ERR_PROTOCOL of the dataset, ERR_INVALID when it is not the one of the order. */
int order_print(const struct data_order *order, uint64_t first, uint64_t last, struct buf *out,
                struct err *err) WARN_UNUSED;

#endif
