/* pairs_work.c - how blocks are shared among the ranks and counted; see pairs.h, lease.h. */
#include "worker/recipes/distillation/impossible/pairs.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/engine/comm.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REST_MS_MAX 128

uint64_t pairs_block_size(const struct pairs *pairs, uint64_t number)
{
    return min_u64(pairs->block_contexts, pairs->context_count - number * pairs->block_contexts);
}

uint64_t pairs_block_first(const struct pairs *pairs, uint64_t number)
{
    return pairs->context_first + number * pairs->block_contexts;
}

char *pairs_block_path(const struct pairs *pairs, uint64_t number, const char *extension)
{
    return mem_printf("%s/block-%06llu.%s", pairs->folder, (unsigned long long)number, extension);
}

static int remove_file(struct pairs *pairs, uint64_t number, const char *extension, struct err *err)
{
    char *path = pairs_block_path(pairs, number, extension);
    int rc = unlink(path) < 0 && errno != ENOENT ? err_errno(err, "remove '%s'", path) : 0;

    mem_free(path);
    return rc;
}

static int read_record(struct pairs *pairs, uint64_t number, struct record *out, struct err *err)
{
    char *path = pairs_block_path(pairs, number, "done");
    int rc = record_read(path, pairs->header, number, pairs_block_size(pairs, number), out, err);

    mem_free(path);
    return rc;
}

/* Another rank may have been faster: its record is as good. */
static int write_record(struct pairs *pairs, const struct record *record, struct err *err)
{
    char *path = pairs_block_path(pairs, record->block, "done");
    int rc = record_write(path, pairs->header, record, err);

    if (rc < 0 && err->kind == ERR_EXISTS) {
        err_clear(err);
        rc = 0;
    }
    mem_free(path);
    return rc;
}

/* ---- what earlier attempts left --------------------------------------------------------- */

static bool is_of_no_use(const struct err *err)
{
    return err->kind == ERR_NOT_FOUND || err->kind == ERR_STALE || err->kind == ERR_PROTOCOL;
}

static int compare_hash(const char *path, const char *expected, struct err *err)
{
    char hex[HASH_HEX_SIZE];
    struct hash hash;

    if (hash_file(path, &hash, err) < 0)
        return -1;
    hash_to_hex(&hash, hex);
    return strcmp(hex, expected) == 0
               ? 0
               : err_set(err, ERR_PROTOCOL, "block '%s' is not what its record says", path);
}

/* Reads all of a block and makes its record, in place of one that is of no use. */
static int make_record(struct pairs *pairs, uint64_t number, const char *path, struct err *err)
{
    struct record record = {0};
    char *bytes = NULL;
    size_t length;
    int rc = remove_file(pairs, number, "done", err);

    if (rc == 0)
        rc = file_read(path, BLOCK_BYTES_MAX, &bytes, &length, err);
    if (rc == 0)
        rc = record_count(bytes, length, pairs->header, pairs_block_size(pairs, number), &record,
                          err);
    record.block = number;
    if (rc == 0)
        rc = write_record(pairs, &record, err);
    record_done(&record);
    mem_free(bytes);
    return rc;
}

/* A block is trusted by the hash in its record, or, without one, when all of it can be read. */
static int check_block(struct pairs *pairs, uint64_t number, struct err *err)
{
    char *path = pairs_block_path(pairs, number, "jsonl");
    struct record record;
    int rc = read_record(pairs, number, &record, err);

    if (rc == 0) {
        rc = compare_hash(path, record.hash, err);
        record_done(&record);
    } else if (is_of_no_use(err)) {
        err_clear(err);
        rc = make_record(pairs, number, path, err);
    }
    mem_free(path);
    if (rc == 0)
        return remove_file(pairs, number, "part", err);
    if (!is_of_no_use(err))
        return -1;
    err_clear(err);
    return remove_file(pairs, number, "jsonl", err) < 0 ? -1
                                                        : remove_file(pairs, number, "done", err);
}

/* The number of a file of blocks that ends in .jsonl or .done. */
static bool block_of(const char *name, uint64_t *out)
{
    unsigned long long number;
    int length = 0;

    if (sscanf(name, "block-%llu%n", &number, &length) != 1 || !length)
        return false;
    *out = number;
    return strcmp(name + length, ".jsonl") == 0 || strcmp(name + length, ".done") == 0;
}

/* Each rank checks the blocks of its turn; names are listed first, since checking makes others. */
int pairs_resume(struct pairs *pairs, struct err *err)
{
    struct run *run = pairs->run;
    uint64_t *numbers = NULL, number;
    size_t count = 0, capacity = 0;
    int rc = run->rank == 0 ? lease_sweep(pairs->folder, err) : 0;
    DIR *dir = rc == 0 ? opendir(pairs->folder) : NULL;

    if (rc == 0 && !dir)
        rc = err_errno(err, "open folder '%s'", pairs->folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (block_of(entry->d_name, &number) && number % run->rank_count == run->rank &&
            number < pairs->block_count) {
            VEC_RESERVE(numbers, count, capacity);
            numbers[count++] = number;
        }
    if (dir)
        closedir(dir);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = check_block(pairs, numbers[i], err);
    mem_free(numbers);
    if (rc == 0)
        comm_barrier(run->comm);
    return rc;
}

/* ---- counting --------------------------------------------------------------------------- */

static uint64_t pool_of(const struct pairs_sum *sum)
{
    uint64_t pool = 0;

    for (enum verdict v = 0; v < VERDICT_END; v++)
        pool += sum->count[v];
    return pool;
}

double pairs_accepted(const struct pairs *pairs)
{
    const uint64_t *count = pairs->sum.count;
    double pool = (double)pool_of(&pairs->sum);
    uint64_t accepted = count[VERDICT_KEPT] + count[VERDICT_SIMILAR] + count[VERDICT_SURPLUS];

    return pool > 0 ? (double)accepted / pool : 0;
}

/* Rates are of all ranks: each works the sum of its time in turns with none of the others. */
static void report_rates(struct pairs *pairs)
{
    struct run *run = pairs->run;
    double made = (double)pairs->figures.made, ranks = run->rank_count;
    double sample_s = (double)(pairs->figures.sample_us + 1) / 1e6;
    double critic_s = (double)(pairs->figures.critic_us + 1) / 1e6;

    run_metric(run, "sampled_tokens_per_s", (double)pairs->figures.tokens / sample_s * ranks);
    run_metric(run, "critic_pairs_per_s", (double)pairs->figures.scored / critic_s * ranks);
    run_metric(run, "critic_time_share", critic_s / (sample_s + critic_s));
    run_metric(run, "sampled_contexts_per_s", made / sample_s * ranks);
    run_metric(run, "judged_contexts_per_s", made / critic_s * ranks);
}

static void report(struct pairs *pairs)
{
    struct run *run = pairs->run;
    const struct pairs_sum *sum = &pairs->sum;
    double pool = (double)pool_of(sum), scored = (double)pairs->figures.scored;

    run_metric(run, "contexts", (double)sum->contexts);
    run_metric(run, "distinct_contexts", (double)sum->distinct);
    run_metric(run, "pool", pool);
    for (enum verdict v = 0; v < VERDICT_END; v++) {
        char name[64];
        snprintf(name, sizeof name, "share_%s", verdict_name(v));
        run_metric(run, name, pool > 0 ? (double)sum->count[v] / pool : 0);
    }
    run_metric(run, "pairs", (double)sum->count[VERDICT_KEPT]);
    run_metric(run, "critic_cut", scored > 0 ? (double)pairs->figures.cut / scored : 0);
    if (pairs->figures.made)
        report_rates(pairs);
}

static double yield_of(const struct pairs_sum *sum)
{
    double pool = (double)pool_of(sum);

    return pool > 0 ? (double)sum->count[VERDICT_KEPT] / pool : 0;
}

/* Why the work is in vain; NULL: it is not, or it is too early to tell. */
static const char *futile(const struct pairs *pairs)
{
    const struct pairs_sum *sum = &pairs->sum;

    if (sum->contexts < PAIRS_CONTEXTS_FEW)
        return NULL;
    if ((double)sum->distinct < run_float(pairs->run, "min_distinct") * (double)sum->contexts)
        return "min_distinct";
    return yield_of(sum) < run_float(pairs->run, "min_yield") ? "min_yield" : NULL;
}

static int give_up(struct pairs *pairs, const char *why, struct err *err)
{
    const struct pairs_sum *sum = &pairs->sum;
    double pool = (double)pool_of(sum);
    enum verdict most = 0;

    if (strcmp(why, "min_distinct") == 0)
        return run_gave_up(pairs->run, err, why,
                           "only %llu of %llu contexts differ from all before them, less than "
                           "%.3g of them: pairs would repeat as well",
                           (unsigned long long)sum->distinct, (unsigned long long)sum->contexts,
                           run_float(pairs->run, why));
    for (enum verdict v = 1; v < VERDICT_KEPT; v++)
        most = sum->count[v] > sum->count[most] ? v : most;
    return run_gave_up(pairs->run, err, why,
                       "after %llu contexts %.3g of %.0f pairs are kept, less than %.3g; most "
                       "(%.1f %%) are dropped as '%s'",
                       (unsigned long long)sum->contexts, yield_of(sum), pool,
                       run_float(pairs->run, why),
                       100 * (double)sum->count[most] / (pool > 0 ? pool : 1),
                       verdict_name(most));
}

static void count_record(struct pairs *pairs, const struct record *record)
{
    struct pairs_sum *sum = &pairs->sum;

    for (uint64_t i = 0; i < record->contexts; i++) {
        size_t known = pairs->seen.count;
        byte_map_put(&pairs->seen, (const char *)&record->texts[i], sizeof record->texts[i]);
        sum->distinct += pairs->seen.count - known;
    }
    sum->contexts += record->contexts;
    for (enum verdict v = 0; v < VERDICT_END; v++)
        sum->count[v] += record->count[v];
    pairs->figures.made += record->made;
    pairs->figures.tokens += record->tokens;
    pairs->figures.sample_us += record->sample_us;
    pairs->figures.critic_us += record->critic_us;
    pairs->figures.scored += record->scored;
    pairs->figures.cut += record->cut;
    pairs->rules.longest_ms = max_u64(pairs->rules.longest_ms, record->ms);
}

/* A row of athanor.distillation_blocks. A stage's name ends in its round. */
static void tell(struct pairs *pairs, const struct record *record)
{
    const char *stage = pairs->run->stage ? pairs->run->stage : "pairs";
    const char *dash = strrchr(stage, '-');
    struct pairs_sum sum = {0};
    struct buf text = {0};

    memcpy(sum.count, record->count, sizeof sum.count);
    buf_printf(&text, "{\"stage\": \"%s\", \"block\": %llu, \"blocks\": %llu, \"first\": %llu, ",
               stage, (unsigned long long)record->block, (unsigned long long)pairs->block_count,
               (unsigned long long)pairs_block_first(pairs, record->block));
    if (dash || !pairs->student)
        buf_printf(&text, "\"round\": %s, ", dash ? dash + 1 : "0");
    buf_printf(&text, "\"contexts\": %llu, \"pool\": %llu, \"pairs\": %llu, \"hash\": \"%s\", ",
               (unsigned long long)record->contexts, (unsigned long long)pool_of(&sum),
               (unsigned long long)record->count[VERDICT_KEPT], record->hash);
    buf_printf(&text, "\"rank\": %llu, \"leases\": %llu, \"ms\": %llu, \"sample_us\": %llu, "
               "\"critic_us\": %llu}", (unsigned long long)record->rank,
               (unsigned long long)record->leases, (unsigned long long)record->ms,
               (unsigned long long)record->sample_us, (unsigned long long)record->critic_us);
    run_fact(pairs->run, "block", buf_text(&text));
    buf_done(&text);
}

/* Takes the next block in order into the sums, if it is done. */
static int count_next(struct pairs *pairs, bool *out_counted, struct err *err)
{
    struct record record;

    *out_counted = false;
    if (read_record(pairs, pairs->counted, &record, err) < 0) {
        if (err->kind != ERR_NOT_FOUND)
            return -1;
        err_clear(err);
        return 0;
    }
    count_record(pairs, &record);
    tell(pairs, &record);
    pairs->counted++;
    if (pairs->peek_count)
        memmove(pairs->peek, pairs->peek + 1, --pairs->peek_count * sizeof *pairs->peek);
    pairs->over = pairs->sum.count[VERDICT_KEPT] >= pairs->target || futile(pairs) ||
                  pairs->counted == pairs->block_count;
    report(pairs);
    record_done(&record);
    *out_counted = true;
    return 0;
}

/* ---- the block in hand ------------------------------------------------------------------ */

static int pick_up(struct pairs *pairs, uint64_t number, unsigned turn, struct err *err)
{
    struct hand *hand = &pairs->hand;
    char *path = pairs_block_path(pairs, number, "part");

    hand->held = true;
    hand->block = number;
    hand->began_ms = clock_steady_ms();
    hand->bytes.length = 0;
    hand->record = (struct record){.block = number, .rank = pairs->run->rank, .leases = turn,
                                   .tokens = pairs->tokens, .sample_us = pairs->sample_us,
                                   .critic_us = pairs->critic_us,
                                   .scored = critic_pair_count(pairs->critic),
                                   .cut = critic_cut_count(pairs->critic)};
    int rc = block_read_start(path, pairs->header, pairs_block_first(pairs, number),
                              pairs_block_size(pairs, number), &hand->bytes, &hand->next, err);
    mem_free(path);
    if (rc == 0 && hand->bytes.length == 0)
        block_begin(&hand->bytes, pairs->header);
    hand->record.made = hand->next;
    return rc;
}

/* What a whole block takes this rank, by what it did of this one. */
static uint64_t pace_of(const struct pairs *pairs)
{
    const struct hand *hand = &pairs->hand;
    uint64_t made = hand->next - hand->record.made, ms = clock_steady_ms() - hand->began_ms;

    return made ? ms * pairs_block_size(pairs, hand->block) / made : 0;
}

static void let_go(struct pairs *pairs)
{
    pairs->rules.own_ms = max_u64(pairs->rules.own_ms, pace_of(pairs));
    pairs->hand.held = false;
}

int pairs_put_down(struct pairs *pairs, struct err *err)
{
    struct hand *hand = &pairs->hand;
    int rc = 0;

    if (hand->held && hand->next > hand->record.made && !pairs->over) {
        char *path = pairs_block_path(pairs, hand->block, "part");
        rc = file_replace(path, hand->bytes.bytes, hand->bytes.length, 0644, err);
        mem_free(path);
    }
    hand->held = false;
    return rc;
}

/* The block, then its record: who is killed between leaves a block that the next attempt trusts. */
static int finish(struct pairs *pairs, struct err *err)
{
    struct hand *hand = &pairs->hand;
    struct record *begun = &hand->record, record = {0};
    char *path = pairs_block_path(pairs, hand->block, "jsonl");
    bool first;
    int rc = record_count(hand->bytes.bytes, hand->bytes.length, pairs->header,
                          pairs_block_size(pairs, hand->block), &record, err);

    record.block = hand->block;
    record.rank = begun->rank;
    record.leases = begun->leases;
    record.ms = clock_steady_ms() - hand->began_ms;
    record.made = hand->next - begun->made;
    record.tokens = pairs->tokens - begun->tokens;
    record.sample_us = pairs->sample_us - begun->sample_us;
    record.critic_us = pairs->critic_us - begun->critic_us;
    record.scored = critic_pair_count(pairs->critic) - begun->scored;
    record.cut = critic_cut_count(pairs->critic) - begun->cut;
    if (rc == 0)
        rc = block_write(path, &hand->bytes, &first, err);
    if (rc == 0)
        rc = write_record(pairs, &record, err);
    if (rc == 0)
        rc = remove_file(pairs, hand->block, "part", err);
    let_go(pairs);
    record_done(&record);
    mem_free(path);
    return rc;
}

static bool is_done(const struct pairs *pairs, uint64_t number)
{
    char *path = pairs_block_path(pairs, number, "done");
    bool done = number < pairs->counted || file_exists(path);

    mem_free(path);
    return done;
}

/* One context of it; a block that another rank has made meanwhile is let go. */
static int go_on(struct pairs *pairs, struct err *err)
{
    struct hand *hand = &pairs->hand;

    if (is_done(pairs, hand->block)) {
        let_go(pairs);
        return 0;
    }
    if (hand->next < pairs_block_size(pairs, hand->block)) {
        if (pairs_context(pairs, pairs_block_first(pairs, hand->block) + hand->next, &hand->bytes,
                          err) < 0)
            return -1;
        hand->next++;
    }
    return hand->next == pairs_block_size(pairs, hand->block) ? finish(pairs, err) : 0;
}

/* ---- the next block --------------------------------------------------------------------- */

static struct peek *peek_at(struct pairs *pairs, uint64_t number)
{
    size_t at = (size_t)(number - pairs->counted);

    while (pairs->peek_count <= at) {
        VEC_RESERVE(pairs->peek, pairs->peek_count, pairs->peek_capacity);
        pairs->peek[pairs->peek_count++] = (struct peek){0};
    }
    return &pairs->peek[at];
}

static int look_at(struct pairs *pairs, uint64_t number, struct peek *peek, struct err *err)
{
    struct record record;

    if (peek->done)
        return 0;
    if (read_record(pairs, number, &record, err) < 0) {
        if (err->kind != ERR_NOT_FOUND)
            return -1;
        err_clear(err);
        return 0;
    }
    peek->done = true;
    peek->kept = record.count[VERDICT_KEPT];
    pairs->rules.longest_ms = max_u64(pairs->rules.longest_ms, record.ms);
    record_done(&record);
    return 0;
}

/* The lowest block that is free, or whose lease has expired. Blocks that are done further on may
 * hold enough pairs already: then only the gaps before them are wanted. */
static int take_next(struct pairs *pairs, struct err *err)
{
    uint64_t kept = pairs->sum.count[VERDICT_KEPT];
    bool taken = false;

    for (uint64_t n = pairs->counted; n < pairs->block_count && kept < pairs->target; n++) {
        struct peek *peek = peek_at(pairs, n);
        if (look_at(pairs, n, peek, err) < 0)
            return -1;
        kept += peek->kept;
        if (peek->done)
            continue;
        if (lease_take(&pairs->rules, n, clock_steady_ms(), &peek->lease, &taken, err) < 0)
            return -1;
        if (taken)
            return pick_up(pairs, n, peek->lease.turn, err);
    }
    return 0;
}

/* Nothing to do but wait for others: longer and longer, so that many do not ask all the time. */
static void rest(struct pairs *pairs)
{
    uint64_t ms = min_u64(REST_MS_MAX, (uint64_t)1 << min_u64(pairs->idle++, 20));
    struct timespec time = {.tv_nsec = (long)ms * 1000000};

    nanosleep(&time, NULL);
}

int pairs_work(struct pairs *pairs, struct err *err)
{
    struct run *run = pairs->run;
    bool counted = false;

    run->phase = pairs->student ? "rewrite and judge" : "sample and judge";
    if (!pairs->over && count_next(pairs, &counted, err) < 0)
        return -1;
    if (counted && !pairs->over)
        return 0;
    if (pairs->over && !run->pace.apart) { /* all are here: the build is next */
        const char *why = futile(pairs);
        run->step_count = run->step + 2;
        return why ? give_up(pairs, why, err) : 0;
    }
    run->pace.again = true;
    run->pace.ready = pairs->over;
    if (pairs->over)
        pairs->hand.held = false;
    else if (pairs->hand.held)
        return go_on(pairs, err);
    else if (take_next(pairs, err) < 0)
        return -1;
    if (pairs->hand.held)
        pairs->idle = 0;
    else
        rest(pairs);
    return 0;
}
