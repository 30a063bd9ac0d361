/* critic_embed.c - likeness of two sentences by their vectors; see critic.h for what it is not. */
#include "worker/recipes/distillation/impossible/critic.h"

#include "common/base/mem.h"
#include "worker/engine/data/bytemap.h"
#include "worker/recipes/embed.h"

#include <string.h>

#define SENTENCES_MOST 65536 /* whose vectors are kept: of 1024 floats, 256 MiB */

struct embed {
    struct critic critic;
    struct embedder *embedder;
    struct byte_map known; /* sentence to its number; values */
    float *vectors;        /* (capacity, width) */
    size_t capacity;
};

/* Numbers of a call's sentences; those that are new are appended to `fresh`. */
static size_t number_of(struct embed *critic, const char *text, const char **fresh,
                        size_t *fresh_count)
{
    size_t before = critic->known.count;
    uint32_t number = byte_map_put(&critic->known, text, strlen(text));

    if (critic->known.count > before)
        fresh[(*fresh_count)++] = text;
    return number;
}

static void make_room(struct embed *critic)
{
    if (critic->known.count <= critic->capacity)
        return;
    critic->capacity = 2 * critic->known.count;
    critic->vectors = mem_grow(critic->vectors, critic->capacity * embedder_width(critic->embedder),
                               sizeof *critic->vectors);
}

static int embed_score(struct critic *base, const struct critic_pair *pairs, size_t count,
                       double *out, struct err *err)
{
    struct embed *critic = (struct embed *)base;
    size_t width = embedder_width(critic->embedder), fresh_count = 0;
    const char **fresh = mem_array(2 * count + 1, sizeof *fresh);
    size_t *number = mem_array(2 * count + 1, sizeof *number);

    if (critic->known.count > SENTENCES_MOST)
        byte_map_done(&critic->known);
    size_t first = critic->known.count;
    for (size_t i = 0; i < count; i++) {
        number[2 * i] = number_of(critic, pairs[i].x, fresh, &fresh_count);
        number[2 * i + 1] = number_of(critic, pairs[i].y, fresh, &fresh_count);
    }
    make_room(critic);
    int rc = embedder_vectors(critic->embedder, fresh, fresh_count, critic->vectors + first * width,
                              err);
    for (size_t i = 0; i < count && rc == 0; i++)
        out[i] = embed_cosine(critic->vectors + number[2 * i] * width,
                              critic->vectors + number[2 * i + 1] * width, width);
    if (rc < 0)
        byte_map_done(&critic->known); /* of some there are no vectors */
    base->cut = embedder_cut_count(critic->embedder);
    mem_free(fresh);
    mem_free(number);
    return rc;
}

static void embed_free(struct critic *base)
{
    struct embed *critic = (struct embed *)base;

    embedder_close(critic->embedder);
    byte_map_done(&critic->known);
    mem_free(critic->vectors);
    mem_free(critic);
}

int critic_embed(const char *folder, struct device *device, struct critic **out, struct err *err)
{
    static const struct critic_class class = {"embed", false, false, embed_score, embed_free};
    struct embed *critic = mem_zalloc(sizeof *critic);

    critic->critic.class = &class;
    if (embedder_open(folder, device, &critic->embedder, err) < 0) {
        embed_free(&critic->critic);
        return -1;
    }
    *out = &critic->critic;
    return 0;
}
