/* ops.h - the operations of models: each a forward/backward pair on tensors of a tape.
 *
 * N is rows (B*T of a batch), C, D, K, M, F widths, V the vocabulary, H heads, d their width.
 * Every function returns the output (owned by the tape) or NULL once the tape has failed.
 * Wrong shapes are programmer errors (CHECK). Backward adds to the inputs' gradients.
 * The index of an input in op_call.in is its place in the argument list. */
#ifndef ATHANOR_ENGINE_OPS_H
#define ATHANOR_ENGINE_OPS_H

#include "worker/engine/tape.h"

/* y[n] = wte[token[n]] + wpe[position[n]]
 * token, position (N) i32; wte (V, D); wpe (P, D), or NULL with position then ignored. */
struct tensor *op_embed(struct tape *tape, struct tensor *token, struct tensor *position,
                        struct tensor *wte, struct tensor *wpe);

/* y = x w' + b;  x (N, K), w (M, K) as [out, in], b (M) or NULL; y (N, M). */
struct tensor *op_linear(struct tape *tape, struct tensor *x, struct tensor *w, struct tensor *b);

/* y = f(x w1' + b1) w2' + b2, f being op_gelu, or op_swiglu when gated;  x (N, K), w1 (F, K), gated
 * (2 F, K), b1 (F or 2 F), w2 (M, F), b2 (M), biases NULL or there; y (N, M).
 * With bf16 it is one op, where the device has it: what lies between the products is then bf16 and
 * f part of them where their library can. Elsewhere, and with adapters, it is the three. */
struct mlp {
    struct tensor *w1, *b1, *w2, *b2;
    bool gated;
};
struct tensor *op_mlp(struct tape *tape, struct tensor *x, const struct mlp *mlp);

/* y = (x - mean) / sqrt(var + eps) * g + b per row;  x (N, C), g, b (C).
 * Kept for backward: mean (N), 1/std (N). Ba et al. 2016, eq. 4. */
struct tensor *op_layernorm(struct tape *tape, struct tensor *x, struct tensor *g,
                            struct tensor *b, double eps);

/* y = x / sqrt(mean(x^2) + eps) * g per row;  x (N, C), g (C). Zhang and Sennrich 2019, eq. 4. */
struct tensor *op_rmsnorm(struct tape *tape, struct tensor *x, struct tensor *g, double eps);

/* y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). Hendrycks and Gimpel 2016, section 2. */
struct tensor *op_gelu(struct tape *tape, struct tensor *x);

/* y = silu(gate) * up;  x (N, 2F) holds gate then up in each row; y (N, F). Shazeer 2020, eq. 6. */
struct tensor *op_swiglu(struct tape *tape, struct tensor *x);

struct tensor *op_add(struct tape *tape, struct tensor *a, struct tensor *b);

/* y = softmax(x / temperature) per row. */
struct tensor *op_softmax(struct tape *tape, struct tensor *x, double temperature);

/* Where the heads lie in a packed row: q heads, k heads, v heads, each head_width wide.
 * heads is a multiple of kv_heads (grouped queries share keys and values). */
struct heads {
    int64_t heads;
    int64_t kv_heads;
    int64_t head_width;
};

/* Rotates q and k heads of packed rows by position: element i pairs with i + d/2
 * (the Hugging Face convention), angle position * theta^(-2i/d) or scaled (rope.h); v is copied.
 * qkv (N, (H + 2 Hk) d), position (N) i32, turns (P, d) of rope_turns. Su et al. 2021, eq. 34. */
struct tensor *op_rope(struct tape *tape, struct tensor *qkv, struct tensor *position,
                       struct tensor *turns, struct heads heads);

/* Causal attention within each of B rows of T tokens, scale 1/sqrt(d).
 * qkv (B*T, (H + 2 Hk) d); first (B*T) i32 or NULL: token t sees keys first[t]..t of its own
 * row (indices within the row), so that packed documents do not see each other.
 * y (B*T, H d). Kept: log-sum-exp (B*H*T). Memory beyond that: one block of queries. */
struct tensor *op_attention(struct tape *tape, struct tensor *qkv, struct tensor *first,
                            struct heads heads, int64_t B, int64_t T);

/* Decoding: appends the T new keys and values of each row at start[b] and attends to all.
 * qkv (B*T, ..); start (B) i32: tokens cached so far; k, v (B, capacity, Hk d). No backward. */
struct tensor *op_attention_cached(struct tape *tape, struct tensor *qkv, struct tensor *start,
                                   struct tensor *k, struct tensor *v, struct heads heads,
                                   int64_t B, int64_t T);

/* Attention in general: y = softmax(scale q k' + bias) v, over the keys that a query may see.
 * Of itself (kv NULL): x (B*Tq, (H + 2 Hk) d) packed as above, Tk = Tq. Of something else:
 * x (B*Tq, H d) holds queries, kv (B*Tk, 2 Hk d) all key heads, then all value heads.
 * Query t of a row sees its keys first[t]..last[t], both (B*Tq) i32 within 0..Tk-1 and
 * first <= last; NULL: from 0, up to Tk-1. So causal, prefix, sliding and padded attention
 * differ by these numbers only.
 * bias (Tq + Tk - 1, H) or NULL: added to the score of query t and key j of head h is
 * bias[j - t + Tq - 1, h] (relative positions of T5; ALiBi). y (B*Tq, H d). */
struct attend {
    struct tensor *kv, *first, *last, *bias;
    struct heads heads;
    int64_t B, Tq, Tk;
    double scale; /* 0: 1/sqrt(d) */
};
struct tensor *op_attend(struct tape *tape, struct tensor *x, const struct attend *attend);

/* op_attention_cached in general: scale (0: 1/sqrt(d)); a query sees the last `window` keys up to
 * its own (0: all); bias (R, H) or NULL by distance: bias[min(query - key, R-1), h] is added. */
struct attend_cached {
    struct tensor *start, *k, *v, *bias;
    struct heads heads;
    int64_t B, window;
    double scale;
};
struct tensor *op_attend_cached(struct tape *tape, struct tensor *qkv,
                                const struct attend_cached *attend);

/* y = f(x), and y = f(gate) * up for x (N, 2F) that holds gate then up in each row.
 * gelu is x/2 (1 + erf(x/sqrt 2)), gelu_tanh its approximation (op_gelu), silu x sigmoid(x),
 * elu1 1 + elu(x). Gated units: Shazeer 2020, eq. 5 and 6; ACTIVATION_NONE is the bilinear one. */
enum activation {
    ACTIVATION_NONE = 0,
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_TANH,
    ACTIVATION_SIGMOID,
    ACTIVATION_ELU1,
    ACTIVATION_END,
};
struct tensor *op_activate(struct tape *tape, struct tensor *x, enum activation f);
struct tensor *op_glu(struct tape *tape, struct tensor *x, enum activation f);

struct tensor *op_mul(struct tape *tape, struct tensor *a, struct tensor *b); /* elementwise */
struct tensor *op_scale(struct tape *tape, struct tensor *x, double factor);

/* Columns from..from+count-1 of every row. */
struct tensor *op_slice(struct tape *tape, struct tensor *x, int64_t from, int64_t count);

/* y = [a | b | c] in each row; c may be NULL. */
struct tensor *op_join(struct tape *tape, struct tensor *a, struct tensor *b, struct tensor *c);

/* y = a, and y[:, from..] += factor * b for the columns of b. What adapters add to a product. */
struct tensor *op_add_columns(struct tape *tape, struct tensor *a, struct tensor *b, int64_t from,
                              double factor);

/* y = 0 with probability p, else x / (1 - p). Element i is a function of (seed, stream, i):
 * backward draws again, and nothing is kept. Srivastava et al. 2014; 0 <= p < 1. */
struct tensor *op_dropout(struct tape *tape, struct tensor *x, double p, uint64_t seed,
                          uint64_t stream);
#ifdef __CUDACC__
#define ON_HOST_AND_DEVICE __host__ __device__
#else
#define ON_HOST_AND_DEVICE
#endif
/* Whether element `index` stays: 32-bit so that vectors of them are cheap. */
ON_HOST_AND_DEVICE static inline bool dropout_keeps(uint64_t seed, uint64_t stream, uint64_t index,
                                                    uint32_t limit)
{
    uint64_t x = (seed ^ stream * 0x9E3779B97F4A7C15u) + index * 0xD1342543DE82EF95u;

    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    return (uint32_t)(x >> 32) >= limit;
}

/* Mixture of experts: each token goes to its `choices` best experts, by logits (N, E).
 *   route = op_route(..);  x' = op_dispatch(x, route): the rows each expert wants, in order;
 *   y' = op_experts(x', w, route): row r of expert e times its matrix;
 *   y = op_combine(y', route): y[n] = sum of gate * y' over the token's choices.
 * The gates are softmax of the chosen logits (ROUTE_AFTER: Mixtral), or the chosen part of the
 * softmax of all, not renormalised (ROUTE_BEFORE: Switch, OLMoE). Of more than `capacity`
 * assignments to one expert (0: no limit) the weakest gates or the latest tokens are dropped:
 * they add nothing. Added to the tape's loss, with f_i the share of assignments to expert i and
 * P_i the mean of its probability:
 *   balance_weight * E sum_i f_i P_i + z_weight * mean_n (log-sum-exp of logits n)^2
 * With `comm` f and P are means over its ranks, which must all route at the same time: batches of
 * equal size are then balanced as one batch on one rank would be.
 * Sources: Shazeer et al. 2017, Fedus et al. 2022 (eq. 4), Zoph et al. 2022 (eq. 5). */
enum { ROUTE_AFTER = 0, ROUTE_BEFORE };
enum { ROUTE_DROP_WEAK = 0, ROUTE_DROP_LATE };
#define ROUTE_CHOICES_MAX 16
/* route.stats, (5): the terms without their weights; the most and the least loaded expert's share
 * times E; the share of assignments that were dropped. */
enum {
    ROUTE_STAT_BALANCE,
    ROUTE_STAT_Z,
    ROUTE_STAT_HIGHEST_LOAD,
    ROUTE_STAT_LOWEST_LOAD,
    ROUTE_STAT_DROPPED,
    ROUTE_STATS,
};

struct comm;

struct route_config {
    int64_t choices, mode, capacity, drop;
    double balance_weight, z_weight;
    struct comm *comm; /* NULL: balance these tokens alone */
};

struct route {
    struct tensor *gate;   /* (N, k)                                        */
    struct tensor *expert; /* (N, k) i32                                    */
    struct tensor *slot;   /* (N, k) i32: row among x', -1: dropped         */
    struct tensor *starts; /* (E + 1) i32: rows of expert e in x'           */
    struct tensor *stats;
    struct tensor *loads;  /* (2, E): f, then P                             */
    int64_t experts, choices;
};

/* False once the tape has failed. */
bool op_route(struct tape *tape, struct tensor *logits, const struct route_config *config,
              struct route *out);
struct tensor *op_dispatch(struct tape *tape, struct tensor *x, const struct route *route);
/* w (E * M, K): the experts' [out, in] matrices, one below the other. */
struct tensor *op_experts(struct tape *tape, struct tensor *x, struct tensor *w,
                          const struct route *route);
struct tensor *op_combine(struct tape *tape, struct tensor *y, const struct route *route);

/* Experts on several ranks, in even shares (comm_share): rows travel to the rank of their expert
 * and come back.
 *   x'' = op_exchange(x', spread, false);  y'' = the experts of this rank on x'', by spread.here;
 *   y' = op_exchange(y'', spread, true).
 * x'' (spread.rows, D) is in order of experts, then of the ranks that the rows come from, then of
 * their tokens: as on one rank that has all tokens in order of ranks. Both exchanges, and both
 * backward, are made by all ranks of device->comm together. Lepikhin et al. 2020, section 3.2. */
struct spread {
    struct tensor *counts; /* (ranks, E) i32: rows from each rank for each expert */
    struct route here;     /* starts and experts of this rank only                */
    int64_t rows;          /* that come here                                      */
    int64_t rows_back;     /* of x'                                               */
};
/* False once the tape has failed. Ranks tell each other their counts. */
bool op_spread(struct tape *tape, const struct route *route, struct spread *out);
struct tensor *op_exchange(struct tape *tape, struct tensor *x, const struct spread *spread,
                           bool back);

/* Linear attention with decay, no softmax and no scale: for each head
 *   y_t = sum_{first[t] <= j <= t} exp(-slope (t - j)) (q_t k_j) v_j
 * qkv (B*T, H (2 dk + e)): q heads, k heads (dk wide), v heads (e wide); slope (H) >= 0; first
 * (B*T) i32 as in op_attention, of packed documents; y (B*T, H e). Time linear in T.
 * Qin et al. 2024 (TransNormerLLM, eq. 10; Lightning Attention-2). */
struct lightning {
    int64_t H, dk, e, B;
    struct tensor *slope, *first;
};
struct tensor *op_lightning(struct tape *tape, struct tensor *qkv, const struct lightning *l);
/* The same token by token: state (B, H dk e) holds sum_j exp(-slope (t - j)) k_j v_j' and goes on
 * by take[b] of the T tokens of row b; y of the rest is 0. No backward. */
struct tensor *op_lightning_step(struct tape *tape, struct tensor *qkv,
                                 const struct lightning *l, struct tensor *take,
                                 struct tensor *state);

/* x (N, ..) begins with q heads, k heads and v heads, d wide each; y has f(q), f(k), v. With theta
 * (H, d), q and k are twice as wide: f(q) cos(p theta), then f(q) sin(p theta), p the position
 * (N) i32, so that products of q and k depend on differences of positions. */
struct tensor *op_lrpe(struct tape *tape, struct tensor *x, struct tensor *position,
                       struct tensor *theta, int64_t H, int64_t d, enum activation f);

/* y[s] = mean of rows bound[2s]..bound[2s+1]-1 of x (an empty range gives zeros);
 * bound (2 S) i32; y (S, C). Ranges must not overlap when x wants a gradient. */
struct tensor *op_pool(struct tape *tape, struct tensor *x, struct tensor *bound);

/* y[n] = -log softmax(x[n])[target[n]], 0 where target is -1; x (N, V), target (N) i32; y (N).
 * For heads with few classes or few rows; tape_seed(y, weights) makes a loss of it. */
struct tensor *op_nll(struct tape *tape, struct tensor *x, struct tensor *target);

/* y[m] = x[index[m]];  index (M) i32, without repeats when x wants a gradient. */
struct tensor *op_gather(struct tape *tape, struct tensor *x, struct tensor *index);

#endif
