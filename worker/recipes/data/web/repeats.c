/* repeats.c - see repeats.h. */
#include "worker/recipes/data/web/repeats.h"

#include "common/base/mem.h"
#include "worker/recipes/data/web/chars.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Where the next word begins and ends; false after the last. */
static bool next_word(const char *text, size_t length, size_t *at, size_t *out_begin)
{
    size_t bytes;

    while (*at < length && char_is_space(char_at(text + *at, length - *at, &bytes)))
        *at += bytes;
    *out_begin = *at;
    while (*at < length && !char_is_space(char_at(text + *at, length - *at, &bytes)))
        *at += bytes;
    return *at > *out_begin;
}

void corpus_words_add(struct corpus_words *words, const char *text, size_t length)
{
    size_t begin;

    for (size_t at = 0; next_word(text, length, &at, &begin);) {
        VEC_RESERVE(words->word, words->count, words->capacity);
        words->word[words->count++] = XXH3_64bits(text + begin, at - begin);
    }
    if (words->text_count + 1 >= words->text_capacity) {
        words->text_capacity = words->text_capacity ? 2 * words->text_capacity : 64;
        words->start = mem_grow(words->start, words->text_capacity, sizeof *words->start);
        words->start[0] = words->text_count ? words->start[0] : 0;
    }
    words->start[++words->text_count] = words->count;
}

void corpus_words_done(struct corpus_words *words)
{
    mem_free(words->word);
    mem_free(words->start);
    *words = (struct corpus_words){0};
}

struct order {
    const uint64_t *word;
    size_t bytes;
};

/* Any total order does, as long as equal windows are neighbours: that of bytes is the fastest. */
static int compare_windows(const void *a, const void *b, void *argument)
{
    const struct order *order = argument;
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    int by_content = memcmp(order->word + x, order->word + y, order->bytes);

    return by_content ? by_content : (x > y) - (x < y);
}

static int compare_ranges(const void *a, const void *b)
{
    const struct word_range *x = a, *y = b;

    if (x->text != y->text)
        return x->text < y->text ? -1 : 1;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

void word_ranges_merge(struct word_ranges *ranges)
{
    size_t kept = 0;

    if (ranges->count > 1)
        qsort(ranges->items, ranges->count, sizeof *ranges->items, compare_ranges);
    for (size_t i = 0; i < ranges->count; i++) {
        struct word_range *last = kept ? &ranges->items[kept - 1] : NULL, now = ranges->items[i];
        if (last && last->text == now.text && now.begin <= last->end)
            last->end = max_u64(last->end, now.end);
        else
            ranges->items[kept++] = now;
    }
    ranges->count = kept;
}

static size_t text_of(const struct corpus_words *words, size_t position)
{
    size_t low = 0, high = words->text_count;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (words->start[middle] <= position)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void add_window(const struct corpus_words *words, size_t position, size_t least,
                       struct word_ranges *out)
{
    size_t text = text_of(words, position), first = position - words->start[text];

    VEC_RESERVE(out->items, out->count, out->capacity);
    out->items[out->count++] = (struct word_range){text, first, first + least};
}

void repeats_find(const struct corpus_words *words, size_t least, bool keep_first, unsigned rank,
                  unsigned ranks, struct word_ranges *out)
{
    uint64_t *suffix = NULL;
    size_t count = 0, capacity = 0;
    struct order order = {words->word, least * sizeof *words->word};

    for (size_t t = 0; t < words->text_count; t++)
        for (size_t i = words->start[t]; i + least <= words->start[t + 1]; i++)
            if (words->word[i] % ranks == rank) {
                VEC_RESERVE(suffix, count, capacity);
                suffix[count++] = i;
            }
    if (count > 1)
        qsort_r(suffix, count, sizeof *suffix, compare_windows, &order);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count; end++)
            if (memcmp(words->word + suffix[i], words->word + suffix[end], order.bytes) != 0)
                break;
        for (size_t k = i + keep_first; k < end && end - i > 1; k++)
            add_window(words, suffix[k], least, out);
    }
    mem_free(suffix);
    word_ranges_merge(out);
}

void word_range_bytes(const char *text, size_t length, size_t begin, size_t end, size_t *out_begin,
                      size_t *out_end)
{
    size_t at = 0, from, number = 0;

    *out_begin = *out_end = length;
    while (next_word(text, length, &at, &from)) {
        if (number == begin)
            *out_begin = from;
        if (number == end) {
            *out_end = from;
            return;
        }
        number++;
    }
}
