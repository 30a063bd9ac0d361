/* cache.h - what a decoder keeps of the tokens it has read: keys and values, or a state.
 *
 * Rows are independent; each counts its own tokens. A cache can be forked, so that many rows go
 * on from one prefix that is computed once, and its rows can change places, as beams do. */
#ifndef ATHANOR_ENGINE_CACHE_H
#define ATHANOR_ENGINE_CACHE_H

#include "worker/engine/model.h"

struct kv_cache;

/* Room for `capacity` tokens in each of B rows. Errors: ERR_MEMORY; ERR_INVALID when the family
 * cannot continue texts. */
int kv_cache_new(const struct model *model, int64_t B, int64_t capacity, struct kv_cache **out,
                 struct err *err) WARN_UNUSED;
void kv_cache_free(struct kv_cache *cache);
/* Appends T tokens to each of B rows (tape: TAPE_INFER) and gives hidden (B*T, D).
 * advance[b] <= T says how many of them count; the rest is padding. NULL: all. */
int kv_cache_extend(struct tape *tape, struct kv_cache *cache, const int32_t *token, int64_t T,
                    const int64_t *advance, struct tensor **out_hidden, struct err *err)
    WARN_UNUSED;
/* T5, once and first: the encoder reads S source tokens in each of B rows (length[b] of which
 * count; NULL: all), for the decoder to look at. Errors as model_forward. */
int kv_cache_read(struct tape *tape, struct kv_cache *cache, const int32_t *source, int64_t S,
                  const int32_t *length, struct err *err) WARN_UNUSED;
/* What texts go on from, first: decoders read it as kv_cache_extend does (count[b] of T tokens;
 * NULL: all). A T5's encoder reads it instead, and its decoder the token 0 that texts begin with
 * (Raffel et al. 2020). The next token of row b follows its column kv_cache_begun - 1 of hidden,
 * which has *out_columns of each row. Errors: as kv_cache_extend. */
int kv_cache_begin(struct tape *tape, struct kv_cache *cache, const int32_t *prompt, int64_t T,
                   const int64_t *count, struct tensor **out_hidden, int64_t *out_columns,
                   struct err *err) WARN_UNUSED;
/* Tokens that a row holds after a prompt of `count`: as many, or the one of T5's decoder. */
int64_t kv_cache_begun(const struct model *model, int64_t count);
/* Tokens that row b holds. */
int64_t kv_cache_count(const struct kv_cache *cache, int64_t b);

/* A new cache of B rows, each what row `row` of `prefix` holds. */
int kv_cache_fork(const struct kv_cache *prefix, int64_t row, int64_t B, int64_t capacity,
                  struct kv_cache **out, struct err *err) WARN_UNUSED;
/* Row b becomes what row source[b] was, for all rows at once. Errors: ERR_MEMORY. */
int kv_cache_select(struct kv_cache *cache, const int32_t *source, struct err *err) WARN_UNUSED;

#endif
