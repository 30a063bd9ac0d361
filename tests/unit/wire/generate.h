/* generate.h - messages made from the field tables, random or fixed; compared field by field. */
#ifndef ATHANOR_TESTS_WIRE_GENERATE_H
#define ATHANOR_TESTS_WIRE_GENERATE_H

#include "common/base/rng.h"
#include "common/wire/layout.h"

#include <string.h>

/* Where values come from: rng drawn (NULL: fixed values that depend on key and depth only). */
struct generate {
    struct rng *rng;
    struct arena *arena;
    size_t items_max; /* of a list */
};

static inline const char *generate_str(struct generate *g, uint64_t key)
{
    static const char *const pieces[] = {"a", "ß", "漢", "loss", " ",
                                         "\n", "\"", "🍺", "/", "0"};
    if (!g->rng)
        return arena_printf(g->arena, "text-%llu", (unsigned long long)key);
    const char *text = "";
    for (size_t left = rng_below(g->rng, 40); left > 0; left--)
        text = arena_printf(g->arena, "%s%s", text, pieces[rng_below(g->rng, ARRAY_COUNT(pieces))]);
    return text;
}

static inline uint64_t generate_number(struct generate *g, uint64_t key)
{
    if (!g->rng)
        return 100 + key;
    return rng_next(g->rng) >> rng_below(g->rng, 64);
}

static inline double generate_real(struct generate *g, uint64_t key)
{
    double value = (double)key / 8;
    uint64_t bits;
    if (!g->rng)
        return value;
    bits = rng_next(g->rng);
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline struct wire_bytes generate_bytes(struct generate *g, uint64_t key)
{
    size_t length = g->rng ? rng_below(g->rng, 300) : 3;
    char *bytes = arena_alloc(g->arena, length + 1);
    for (size_t i = 0; i < length; i++)
        bytes[i] = (char)(g->rng ? rng_next(g->rng) : key + i);
    return (struct wire_bytes){bytes, length};
}

static inline struct hash generate_hash(struct generate *g, uint64_t key)
{
    struct hash hash;
    for (size_t i = 0; i < HASH_BYTES; i++)
        hash.bytes[i] = (uint8_t)(g->rng ? rng_next(g->rng) : key + i);
    return hash;
}

static inline void generate_struct(struct generate *g, const struct wire_layout *layout,
                                   char *base);

static inline void generate_list(struct generate *g, const struct wire_field *field, char *base)
{
    const struct wire_layout *record = field->record();
    size_t count = g->rng ? rng_below(g->rng, g->items_max + 1) : 2;
    char *items = count ? arena_alloc(g->arena, count * record->size_bytes) : NULL;
    for (size_t i = 0; i < count; i++)
        generate_struct(g, record, items + i * record->size_bytes);
    memcpy(base + field->offset, &items, sizeof items);
    memcpy(base + field->count_offset, &count, sizeof count);
}

static inline void generate_struct(struct generate *g, const struct wire_layout *layout, char *base)
{
    for (size_t i = 0; i < layout->field_count; i++) {
        const struct wire_field *field = &layout->fields[i];
        void *at = base + field->offset;
        switch (field->type) {
        case WIRE_u64:
            *(uint64_t *)at = generate_number(g, field->key);
            break;
        case WIRE_i64:
            *(int64_t *)at = (int64_t)(0 - generate_number(g, field->key));
            break;
        case WIRE_f64:
            *(double *)at = generate_real(g, field->key);
            break;
        case WIRE_flag:
            *(bool *)at = !g->rng || rng_below(g->rng, 2);
            break;
        case WIRE_str:
            *(const char **)at = generate_str(g, field->key);
            break;
        case WIRE_bytes:
            *(struct wire_bytes *)at = generate_bytes(g, field->key);
            break;
        case WIRE_hash:
            *(struct hash *)at = generate_hash(g, field->key);
            break;
        case WIRE_list:
            generate_list(g, field, base);
            break;
        }
    }
}

static inline void generate_message(struct generate *g, uint64_t tag, struct message *out)
{
    memset(out, 0, sizeof *out);
    out->tag = (enum msg_tag)tag;
    generate_struct(g, layout_find(tag), (char *)&out->u);
}

static inline bool same_struct(const struct wire_layout *layout, const char *a, const char *b);

static inline bool same_field(const struct wire_field *field, const char *a, const char *b)
{
    const void *p = a + field->offset, *q = b + field->offset;
    const struct wire_bytes *x = p, *y = q;
    size_t count, other;
    switch (field->type) {
    case WIRE_u64:
    case WIRE_i64:
    case WIRE_f64: /* by bits: a NaN equals itself */
        return memcmp(p, q, 8) == 0;
    case WIRE_flag:
        return *(const bool *)p == *(const bool *)q;
    case WIRE_str:
        return strcmp(*(const char *const *)p, *(const char *const *)q) == 0;
    case WIRE_bytes:
        return x->length == y->length && memcmp(x->bytes, y->bytes, x->length) == 0;
    case WIRE_hash:
        return memcmp(p, q, HASH_BYTES) == 0;
    case WIRE_list:
        memcpy(&count, a + field->count_offset, sizeof count);
        memcpy(&other, b + field->count_offset, sizeof other);
        for (size_t i = 0; count == other && i < count; i++)
            if (!same_struct(field->record(),
                             *(const char *const *)p + i * field->record()->size_bytes,
                             *(const char *const *)q + i * field->record()->size_bytes))
                return false;
        return count == other;
    }
    return false;
}

static inline bool same_struct(const struct wire_layout *layout, const char *a, const char *b)
{
    for (size_t i = 0; i < layout->field_count; i++)
        if (!same_field(&layout->fields[i], a, b))
            return false;
    return true;
}

static inline bool same_message(const struct message *a, const struct message *b)
{
    return a->tag == b->tag &&
           same_struct(layout_find((uint64_t)a->tag), (const char *)&a->u, (const char *)&b->u);
}

#endif
