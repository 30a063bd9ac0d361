/* usage.h - fair share: what accounts and projects have used of late. Private to core/, part of
 * state.h. */
#ifndef ATHANOR_CORE_USAGE_H
#define ATHANOR_CORE_USAGE_H

#include "coordinator/core/rights.h"

/* What an account ("a" and its name) or project ("p") has used of late. */
struct share {
    char *key;
    uint64_t weight;  /* of an account; a project has its own */
    uint64_t core_ms; /* decayed use at as_of (wall us) */
    uint64_t as_of;
    uint64_t rate;    /* cores that run now, GPUs weighted */
    uint64_t use_now; /* of this pass */
    int64_t points;   /* of this pass */
    bool dirty;
    UT_hash_handle hh;
};

/* 2^-(elapsed/half_life) in 32-bit fixed point; half_life below 2^35. */
uint64_t decay_q32(uint64_t elapsed_ms, uint64_t half_life_ms);
/* What a rate of 1 leaves behind after that time. */
uint64_t decay_integral_ms(uint64_t elapsed_ms, uint64_t half_life_ms);
void shares_take(struct core *core, const struct attempt *attempt); /* it begins */
void shares_give(struct core *core, const struct attempt *attempt); /* it has ended */
void shares_take_loaded(struct core *core, const struct attempt *attempt);
void shares_load_end(struct core *core);
void shares_resettle(struct core *core, const int64_t wanted[SETTING_END]);
bool share_weigh(struct core *core, const char *account, uint64_t weight); /* true: changed */
void shares_rate(struct core *core); /* works out the points of all */
int64_t share_points(const struct core *core, const struct class *class);
void shares_flush(struct core *core);
void shares_dump(const struct core *core, struct buf *out);
void shares_free(struct core *core);

#endif
