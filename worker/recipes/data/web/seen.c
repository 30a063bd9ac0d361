/* seen.c - see seen.h. */
#include "worker/recipes/data/web/seen.h"

#include "common/base/mem.h"
#include "worker/engine/comm.h"

#include <string.h>

int seen_init(struct seen *seen, struct comm *comm, const struct bloom_plan *plan, struct err *err)
{
    *seen = (struct seen){.comm = comm};
    for (int q = comm->rank; q < KEY_PARTITIONS; q += comm->size)
        if (key_set_new(plan, &seen->sets[q], err) < 0)
            return -1;
    return 0;
}

void seen_done(struct seen *seen)
{
    for (int q = 0; q < KEY_PARTITIONS; q++)
        key_set_free(seen->sets[q]);
    *seen = (struct seen){0};
}

uint64_t seen_bytes(const struct seen *seen)
{
    uint64_t bytes = 0;

    for (int q = 0; q < KEY_PARTITIONS; q++)
        bytes += seen->sets[q] ? key_set_bytes(seen->sets[q]) : 0;
    return bytes;
}

static int owner_of(const struct seen *seen, struct key key)
{
    return (int)key_partition(key) % seen->comm->size;
}

/* The keys grouped by owner: *out_keys in that order, place[i] where keys[i] went. */
static void group(const struct seen *seen, const struct key *keys, size_t count,
                  struct key *out_keys, size_t *place, size_t *bytes)
{
    int ranks = seen->comm->size;
    size_t *next = mem_array((size_t)ranks, sizeof *next);

    for (size_t i = 0; i < count; i++)
        bytes[owner_of(seen, keys[i])] += sizeof *keys;
    for (int r = 1; r < ranks; r++)
        next[r] = next[r - 1] + bytes[r - 1] / sizeof *keys;
    for (size_t i = 0; i < count; i++) {
        place[i] = next[owner_of(seen, keys[i])]++;
        out_keys[place[i]] = keys[i];
    }
    mem_free(next);
}

int seen_ask(struct seen *seen, const struct key *keys, size_t count, bool *out, struct err *err)
{
    size_t ranks = (size_t)seen->comm->size;
    struct key *grouped = mem_array(count + 1, sizeof *grouped), *arrived = NULL;
    size_t *place = mem_array(count + 1, sizeof *place);
    size_t *send = mem_array(ranks, sizeof *send), *came = mem_array(ranks, sizeof *came);
    bool *answer = NULL, *answers = NULL;
    size_t total = 0;
    int rc = -1;

    group(seen, keys, count, grouped, place, send);
    if (comm_exchange(seen->comm, grouped, send, (void **)&arrived, came, err) < 0)
        goto out;
    for (size_t r = 0; r < ranks; r++) {
        total += came[r] / sizeof *keys;
        came[r] /= sizeof *keys; /* one byte of answer for each key */
        send[r] /= sizeof *keys;
    }
    answer = mem_alloc(total + 1);
    for (size_t i = 0; i < total; i++)
        answer[i] = key_set_seen(seen->sets[key_partition(arrived[i])], arrived[i]);
    if (comm_exchange(seen->comm, answer, came, (void **)&answers, send, err) < 0)
        goto out;
    for (size_t i = 0; i < count; i++)
        out[i] = answers[place[i]];
    rc = 0;
out:
    mem_free(grouped);
    mem_free(arrived);
    mem_free(place);
    mem_free(send);
    mem_free(came);
    mem_free(answer);
    mem_free(answers);
    return rc;
}
