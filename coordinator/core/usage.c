/* usage.c - fair share: what accounts and projects have used of late, and the points for it.
 *
 * A share's use halves every half-life h and grows with what runs: with rate r (cores, a GPU
 * counting as several) over a time t it becomes
 *     use * 2^(-t/h)  +  r * h/ln 2 * (1 - 2^(-t/h)),
 * so that it is exact at any moment without looking at the attempts, and a change of r is the only
 * time to write it down. 2^-x is a product of 2^-(1/2), 2^-(1/4), ... in 32-bit fixed point: its
 * error is below 2^-26. Below h/1024 the second term is r * t, 0.04 % too much at most.
 *
 * Times are wall time, because the rows outlive the leader. A clock that was set back costs the
 * interval; one that jumped ahead ages everybody alike. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"

#include <stdlib.h>
#include <string.h>

#define ONE_Q32             ((uint64_t)1 << 32)
#define USE_MAX             ((uint64_t)1 << 62)
#define LOG2_E_FRACTION_Q32 1901360723u /* 1/ln 2 - 1 */

/* 2^-(2^-(i+1)) in Q32: correctly rounded. */
static const uint32_t roots[32] = {
    3037000500u, 3611622603u, 3938502376u, 4112874773u, 4202935003u, 4248701965u, 4271771996u,
    4283353945u, 4289156690u, 4292061010u, 4293513907u, 4294240540u, 4294603903u, 4294785595u,
    4294876445u, 4294921870u, 4294944583u, 4294955939u, 4294961618u, 4294964457u, 4294965876u,
    4294966586u, 4294966941u, 4294967119u, 4294967207u, 4294967252u, 4294967274u, 4294967285u,
    4294967290u, 4294967293u, 4294967295u, 4294967295u,
};

uint64_t decay_q32(uint64_t elapsed_ms, uint64_t half_life_ms)
{
    uint64_t whole = elapsed_ms / half_life_ms, part = elapsed_ms % half_life_ms;
    if (whole >= 32)
        return 0;
    uint32_t bits = (uint32_t)((part << 28) / half_life_ms) << 4; /* half_life < 2^35 */
    uint64_t power = ONE_Q32;
    for (int i = 0; i < 32; i++)
        if (bits & (uint32_t)1 << (31 - i))
            power = power * roots[i] >> 32;
    return power >> whole;
}

static uint64_t mul_q32(uint64_t value, uint64_t factor_q32)
{
    return (value >> 32) * factor_q32 + ((value & UINT32_MAX) * factor_q32 >> 32);
}

uint64_t decay_integral_ms(uint64_t elapsed_ms, uint64_t half_life_ms)
{
    if (elapsed_ms < half_life_ms / 1024)
        return elapsed_ms;
    uint64_t gone = mul_q32(half_life_ms, ONE_Q32 - decay_q32(elapsed_ms, half_life_ms));
    return gone + mul_q32(gone, LOG2_E_FRACTION_Q32);
}

/* ---- one share --------------------------------------------------------------------------- */

static struct share *share_get(struct core *core, char kind, const char *name)
{
    struct share *share = NULL;
    struct buf key = {0};
    buf_putc(&key, kind);
    buf_puts(&key, name);
    HASH_FIND(hh, core->shares_by_key, buf_text(&key), key.length, share);
    if (share) {
        buf_done(&key);
        return share;
    }
    share = mem_zalloc(sizeof *share);
    size_t length = key.length;
    share->key = buf_take(&key);
    share->weight = 1;
    share->as_of = core->wall_us;
    HASH_ADD_KEYPTR(hh, core->shares_by_key, share->key, length, share);
    list_add(&core->shares, share);
    return share;
}

static void share_mark(struct core *core, struct share *share)
{
    if (share->dirty)
        return;
    share->dirty = true;
    list_add(&core->dirty_shares, share);
}

static uint64_t elapsed_ms(const struct core *core, const struct share *share)
{
    return core->wall_us > share->as_of ? (core->wall_us - share->as_of) / 1000 : 0;
}

static uint64_t share_use(const struct core *core, const struct share *share)
{
    uint64_t half_life = (uint64_t)core->settings[SETTING_HALF_LIFE_MS];
    uint64_t elapsed = elapsed_ms(core, share);
    uint64_t grown = share->rate * decay_integral_ms(elapsed, half_life);
    return min_u64(mul_q32(share->core_ms, decay_q32(elapsed, half_life)) + min_u64(grown, USE_MAX),
                   USE_MAX);
}

/* Brings it up to now. The part of a millisecond stays for the next time. */
static void share_settle(struct core *core, struct share *share)
{
    uint64_t elapsed = elapsed_ms(core, share);
    share->core_ms = share_use(core, share);
    share->as_of = core->wall_us < share->as_of ? core->wall_us : share->as_of + elapsed * 1000;
    share_mark(core, share);
}

static uint64_t charge_rate(const struct core *core, struct charge charge)
{
    return charge.cores + charge.gpus * (uint64_t)core->settings[SETTING_GPU_CORES];
}

/* ---- when attempts come and go ----------------------------------------------------------- */

void shares_take(struct core *core, const struct attempt *attempt)
{
    const struct job *job = attempt->job;
    struct share *both[] = {share_get(core, 'a', job->account),
                            share_get(core, 'p', job->project->name)};
    for (size_t i = 0; i < 2; i++) {
        share_settle(core, both[i]);
        both[i]->rate += charge_rate(core, attempt->charge);
    }
}

void shares_give(struct core *core, const struct attempt *attempt)
{
    const struct job *job = attempt->job;
    struct share *both[] = {share_get(core, 'a', job->account),
                            share_get(core, 'p', job->project->name)};
    for (size_t i = 0; i < 2; i++) {
        share_settle(core, both[i]);
        CHECK(both[i]->rate >= charge_rate(core, attempt->charge));
        both[i]->rate -= charge_rate(core, attempt->charge);
    }
}

void shares_take_loaded(struct core *core, const struct attempt *attempt)
{
    const struct job *job = attempt->job;
    share_get(core, 'a', job->account)->rate += charge_rate(core, attempt->charge);
    share_get(core, 'p', job->project->name)->rate += charge_rate(core, attempt->charge);
}

/* Before a setting changes all that was used is written down under the old ones. */
void shares_resettle(struct core *core, const int64_t wanted[SETTING_END])
{
    for (size_t i = 0; i < core->shares.count; i++) {
        share_settle(core, core->shares.items[i]);
        ((struct share *)core->shares.items[i])->rate = 0;
    }
    memcpy(core->settings, wanted, sizeof core->settings);
    struct attempt *attempt, *next;
    HASH_ITER(hh, core->attempts, attempt, next)
    {
        shares_take_loaded(core, attempt);
    }
}

bool share_weigh(struct core *core, const char *account, uint64_t weight)
{
    struct share *share = share_get(core, 'a', account);
    if (share->weight == weight)
        return false;
    share->weight = weight;
    share_mark(core, share);
    return true;
}

/* ---- rows -------------------------------------------------------------------------------- */

void shares_flush(struct core *core)
{
    for (size_t i = 0; i < core->dirty_shares.count; i++) {
        struct share *share = core->dirty_shares.items[i];
        struct row_usage row = {
            .kind = share->key[0] == 'a' ? "account" : "project",
            .name = share->key + 1,
            .weight = share->weight,
            .core_ms = share->core_ms,
            .as_of = share->as_of,
        };
        effects_persist(core->effects, ROW_TABLE_usage, PERSIST_UPSERT, &row);
        share->dirty = false;
    }
    core->dirty_shares.count = 0;
}

void core_load_usage(struct core *core, const struct row_usage *row)
{
    struct share *share = share_get(core, row->kind[0] == 'a' ? 'a' : 'p', row->name);
    share->weight = row->weight;
    share->core_ms = row->core_ms;
    share->as_of = row->as_of;
}

void shares_free(struct core *core)
{
    HASH_CLEAR(hh, core->shares_by_key);
    for (size_t i = 0; i < core->shares.count; i++) {
        struct share *share = core->shares.items[i];
        mem_free(share->key);
        mem_free(share);
    }
    mem_free(core->shares.items);
    mem_free(core->dirty_shares.items);
}

static int share_compare(const void *left, const void *right)
{
    const struct share *const *a = left, *const *b = right;
    return strcmp((*a)->key, (*b)->key);
}

void shares_dump(const struct core *core, struct buf *out)
{
    struct share **sorted = mem_array(core->shares.count, sizeof *sorted);
    for (size_t i = 0; i < core->shares.count; i++)
        sorted[i] = core->shares.items[i];
    qsort(sorted, core->shares.count, sizeof *sorted, share_compare);
    for (size_t i = 0; i < core->shares.count; i++)
        buf_printf(out, "share %s weight=%llu use=%llu at=%llu rate=%llu\n", sorted[i]->key,
                   (unsigned long long)sorted[i]->weight, (unsigned long long)sorted[i]->core_ms,
                   (unsigned long long)sorted[i]->as_of, (unsigned long long)sorted[i]->rate);
    mem_free(sorted);
}

/* ---- points ------------------------------------------------------------------------------ */

/* 2^-(used/due), where used is the part of all use and due the part of all weights. */
static uint64_t factor_q32(uint64_t use, uint64_t use_sum, uint64_t weight, uint64_t weight_sum)
{
    if (use_sum == 0)
        return ONE_Q32;
    unsigned shift = 0;
    while (use_sum >> shift >= (uint64_t)1 << 33)
        shift++;
    uint64_t used_q30 = (use >> shift << 30) / (use_sum >> shift);
    uint64_t ratio_q20 = (used_q30 >> 10) * weight_sum / weight; /* sum of weights < 2^44 */
    return decay_q32(ratio_q20, (uint64_t)1 << 20);
}

struct share_sums {
    uint64_t use, weight;
};

static uint64_t share_weight(const struct core *core, const struct share *share)
{
    const struct project *project =
        share->key[0] == 'p' ? project_find(core, share->key + 1) : NULL;
    return project ? project->weight : share->weight;
}

void shares_rate(struct core *core)
{
    struct share_sums sums[2] = {{0, 0}, {0, 0}};
    for (size_t i = 0; i < core->shares.count; i++) {
        struct share *share = core->shares.items[i];
        struct share_sums *sum = &sums[share->key[0] == 'p'];
        share->use_now = share_use(core, share);
        sum->use = min_u64(sum->use + share->use_now, USE_MAX);
        sum->weight += share_weight(core, share);
    }
    for (size_t i = 0; i < core->shares.count; i++) {
        struct share *share = core->shares.items[i];
        bool is_project = share->key[0] == 'p';
        uint64_t factor = factor_q32(share->use_now, sums[is_project].use,
                                     share_weight(core, share), sums[is_project].weight);
        uint64_t weight =
            (uint64_t)core->settings[is_project ? SETTING_WEIGHT_PROJECT : SETTING_WEIGHT_ACCOUNT];
        share->points = (int64_t)mul_q32(weight, factor);
    }
}

/* Who has used nothing yet has no share, and all the points. */
static int64_t points_of(const struct core *core, char kind, const char *name, enum setting weight)
{
    struct share *share = NULL;
    char key[256];
    size_t length = strlen(name);
    if (length + 1 >= sizeof key)
        return 0;
    key[0] = kind;
    memcpy(key + 1, name, length);
    HASH_FIND(hh, core->shares_by_key, key, length + 1, share);
    return share ? share->points : core->settings[weight];
}

/* Loaded attempts of a time when use was not yet counted. */
void shares_load_end(struct core *core)
{
    for (size_t i = 0; i < core->shares.count; i++) {
        struct share *share = core->shares.items[i];
        if (share->as_of == 0)
            share->as_of = core->wall_us;
    }
}

int64_t share_points(const struct core *core, const struct class *class)
{
    return points_of(core, 'a', class->account, SETTING_WEIGHT_ACCOUNT) +
           points_of(core, 'p', class->project->name, SETTING_WEIGHT_PROJECT);
}
