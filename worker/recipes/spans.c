/* spans.c - see spans.h. */
#include "worker/recipes/spans.h"


#include <math.h>
#include <string.h>

/* As Python rounds: halves to even. */
static int64_t rounded(double x)
{
    return (int64_t)nearbyint(x);
}

static int64_t clamp(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
}

struct spans_sizes spans_sizes(const struct spans_config *config, int64_t n)
{
    struct spans_sizes sizes = {0};

    if (n >= 2) {
        sizes.noise = clamp(rounded((double)n * config->density), 1, n - 1);
        sizes.spans = clamp(rounded((double)sizes.noise / config->length), 1, sizes.noise);
        if (sizes.spans > n - sizes.noise)
            sizes.spans = n - sizes.noise;
    }
    sizes.source = n - sizes.noise + sizes.spans + 1;
    sizes.target = sizes.noise + sizes.spans + 1;
    return sizes;
}

int64_t spans_longest(const struct spans_config *config, int64_t source)
{
    int64_t n = 1;

    while (spans_sizes(config, n + 1).source <= source)
        n++;
    return n;
}

/* Cuts `total` into `parts` lengths of at least one: parts - 1 of the total - 1 places between
 * items, by a shuffle. */
static void cut(int64_t total, int64_t parts, struct rng *rng, struct arena *room,
                int64_t *out_length)
{
    bool *ends = arena_alloc(room, (size_t)total);
    int64_t at = 0;

    for (int64_t i = 0; i < parts - 1; i++)
        ends[i] = true;
    for (int64_t i = total - 2; i > 0; i--) {
        int64_t j = (int64_t)rng_below(rng, (uint64_t)i + 1);
        bool held = ends[i];

        ends[i] = ends[j];
        ends[j] = held;
    }
    for (int64_t i = 0; i < parts; i++)
        out_length[i] = 0;
    for (int64_t i = 0; i < total; i++) {
        out_length[at]++;
        if (i < total - 1 && ends[i])
            at++;
    }
}

void spans_draw(const struct spans_config *config, int64_t n, struct rng *rng, struct arena *room,
                bool *noise)
{
    struct spans_sizes sizes = spans_sizes(config, n);
    int64_t *lost, *kept, at = 0;

    memset(noise, 0, (size_t)n);
    if (sizes.noise == 0)
        return;
    lost = arena_alloc(room, (size_t)sizes.spans * sizeof *lost);
    kept = arena_alloc(room, (size_t)sizes.spans * sizeof *kept);
    cut(sizes.noise, sizes.spans, rng, room, lost);
    cut(n - sizes.noise, sizes.spans, rng, room, kept);
    for (int64_t i = 0; i < sizes.spans; i++) {
        at += kept[i];
        memset(noise + at, 1, (size_t)lost[i]);
        at += lost[i];
    }
    CHECK(at == n);
    arena_join(room);
}

void spans_write(const int32_t *token, const bool *noise, int64_t n, const int32_t *sentinel,
                 int32_t end, int32_t *source, int64_t *out_source, int32_t *target,
                 int64_t *out_target)
{
    int64_t s = 0, t = 0, span = -1;

    for (int64_t i = 0; i < n; i++) {
        if (!noise[i]) {
            source[s++] = token[i];
            continue;
        }
        if (i == 0 || !noise[i - 1]) {
            source[s++] = sentinel[++span];
            target[t++] = sentinel[span];
        }
        target[t++] = token[i];
    }
    source[s++] = end;
    target[t++] = end;
    *out_source = s;
    *out_target = t;
}
