/* threads.c - a pool that splits work into fixed shares.
 *
 * Kernels are short (tens of microseconds), so workers spin a little before they sleep on
 * a futex. The generation counter is the only thing both sides wait for. */
#include "worker/engine/threads.h"

#include "common/base/mem.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS_MAX 512  /* more cores than one rank is ever given */
#define SPIN_ROUNDS 4000 /* about 50 us of pause instructions      */

struct share {
    struct threads *threads;
    unsigned index;
};

struct threads {
    unsigned count;
    pthread_t *thread;
    struct share *share;
    _Atomic uint32_t generation; /* workers wait for it to change     */
    _Atomic uint32_t pending;    /* shares of this generation not done */
    _Atomic uint32_t sleepers;
    bool ending;
    threads_body body;
    void *argument;
    int64_t items;
    unsigned shares;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Returns when *word is no longer `seen`. */
static void wait_change(struct threads *threads, _Atomic uint32_t *word, uint32_t seen)
{
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != seen)
            return;
        relax();
    }
    atomic_fetch_add(&threads->sleepers, 1);
    while (atomic_load(word) == seen)
        futex_wait(word, seen);
    atomic_fetch_sub(&threads->sleepers, 1);
}

static void run_share(struct threads *threads, unsigned index)
{
    int64_t from = threads->items * index / threads->shares;
    int64_t to = threads->items * (index + 1) / threads->shares;

    if (from < to)
        threads->body(threads->argument, from, to, index);
}

static void *worker_main(void *argument)
{
    struct share *share = argument;
    struct threads *threads = share->threads;
    uint32_t seen = 0;

    for (;;) {
        wait_change(threads, &threads->generation, seen);
        seen = atomic_load_explicit(&threads->generation, memory_order_acquire);
        if (threads->ending)
            return NULL;
        if (share->index < threads->shares)
            run_share(threads, share->index);
        if (atomic_fetch_sub(&threads->pending, 1) == 1 && atomic_load(&threads->sleepers))
            futex_wake_all(&threads->pending);
    }
}

static void release_workers(struct threads *threads)
{
    atomic_store(&threads->pending, threads->count - 1);
    atomic_fetch_add(&threads->generation, 1);
    if (atomic_load(&threads->sleepers))
        futex_wake_all(&threads->generation);
}

static void wait_workers(struct threads *threads)
{
    uint32_t left;

    while ((left = atomic_load_explicit(&threads->pending, memory_order_acquire)) != 0)
        wait_change(threads, &threads->pending, left);
}

int threads_new(unsigned count, struct threads **out, struct err *err)
{
    struct threads *threads;

    if (count < 1 || count > THREADS_MAX)
        return err_set(err, ERR_INVALID, "threads of a rank: %u, expected 1..%d", count,
                       THREADS_MAX);
    threads = mem_zalloc(sizeof *threads);
    threads->thread = mem_array(count, sizeof *threads->thread);
    threads->share = mem_array(count, sizeof *threads->share);
    threads->count = 1;
    for (unsigned i = 1; i < count; i++) {
        int rc;

        threads->share[i] = (struct share){threads, i};
        rc = pthread_create(&threads->thread[i], NULL, worker_main, &threads->share[i]);
        if (rc != 0) {
            threads_free(threads);
            return err_set(err, ERR_LIMIT, "starting thread %u of %u: %s", i + 1, count,
                           strerror(rc));
        }
        threads->count = i + 1;
    }
    *out = threads;
    return 0;
}

void threads_free(struct threads *threads)
{
    if (!threads)
        return;
    threads->ending = true;
    release_workers(threads);
    for (unsigned i = 1; i < threads->count; i++)
        pthread_join(threads->thread[i], NULL);
    mem_free(threads->thread);
    mem_free(threads->share);
    mem_free(threads);
}

unsigned threads_count(const struct threads *threads)
{
    return threads->count;
}

void threads_run(struct threads *threads, int64_t items, int64_t least, threads_body body,
                 void *argument)
{
    int64_t shares = least > 0 ? items / least : items;

    if (items <= 0)
        return;
    if (shares > (int64_t)threads->count)
        shares = threads->count;
    if (shares <= 1) {
        body(argument, 0, items, 0);
        return;
    }
    threads->body = body;
    threads->argument = argument;
    threads->items = items;
    threads->shares = (unsigned)shares;
    release_workers(threads);
    run_share(threads, 0);
    wait_workers(threads);
}
