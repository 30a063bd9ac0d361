/* decon.c - see decon.h. Keys are sorted and looked up by halving: the set is read only. */
#include "worker/recipes/data/web/decon.h"

#include "common/base/mem.h"
#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/data/web/texts.h"
#include "worker/recipes/data/web/web.h"
#include "worker/recipes/text/words.h"

#include <stdlib.h>
#include <string.h>

#define KIND_PARAGRAPH 0x646563u
#define KIND_GRAM      0x67u

struct decon {
    struct key *keys;
    size_t count, capacity;
    size_t min_words, ngram;
    double overlap;
    const struct web *web; /* while reading */
};

static size_t word_count(const char *text, size_t length)
{
    size_t words = 0, bytes;
    bool within = false;

    for (size_t i = 0; i < length; i += bytes) {
        bool space = char_is_space(char_at(text + i, length - i, &bytes));
        words += !space && !within;
        within = !space;
    }
    return words;
}

static int compare(const void *a, const void *b)
{
    const struct key *x = a, *y = b;

    if (x->high != y->high)
        return x->high < y->high ? -1 : 1;
    return (x->low > y->low) - (x->low < y->low);
}

static void add_key(struct decon *decon, struct key key)
{
    VEC_RESERVE(decon->keys, decon->count, decon->capacity);
    decon->keys[decon->count++] = key;
}

static struct key gram_key(const struct words *words, size_t first, size_t n)
{
    return key_of(words->word + first, n * sizeof *words->word, KIND_GRAM);
}

static void add_paragraph(struct decon *decon, const char *text, size_t length)
{
    struct words words = {0};

    if (word_count(text, length) <= decon->min_words)
        return;
    if (decon->ngram)
        words_split(&words, WORDS_ROUGE, text, length);
    if (decon->ngram && words.count > decon->ngram) {
        for (size_t i = 0; i + decon->ngram <= words.count; i++)
            add_key(decon, gram_key(&words, i, decon->ngram));
    }
    add_key(decon, web_key(decon->web, text, length, KIND_PARAGRAPH));
    words_done(&words);
}

static int add_text(void *argument, const char *text, size_t length, struct err *err)
{
    (void)err;
    for (size_t at = 0; at < length;) {
        const char *end = memchr(text + at, '\n', length - at);
        size_t bytes = end ? (size_t)(end - text) - at : length - at;
        add_paragraph(argument, text + at, bytes);
        at += bytes + 1;
    }
    return 0;
}

int decon_new(const struct web *web, struct decon **out, struct err *err)
{
    const struct run *run = web->run;
    struct decon *decon = mem_zalloc(sizeof *decon);
    int rc = 0;

    decon->web = web;
    decon->min_words = (size_t)run_int(run, "decon_min_words");
    decon->ngram = (size_t)run_int(run, "decon_ngram");
    decon->overlap = run_float(run, "decon_overlap");
    for (size_t i = 0; i < run_list_count(run, "decontaminate") && rc == 0; i++)
        rc = texts_read(run_list_item(run, "decontaminate", i), TEXTS_STRINGS, add_text, decon,
                        err);
    if (rc < 0) {
        decon_free(decon);
        return err_wrap(err, "params.decontaminate");
    }
    if (decon->count > 1)
        qsort(decon->keys, decon->count, sizeof *decon->keys, compare);
    *out = decon;
    return 0;
}

void decon_free(struct decon *decon)
{
    if (!decon)
        return;
    mem_free(decon->keys);
    mem_free(decon);
}

size_t decon_count(const struct decon *decon)
{
    return decon->count;
}

static bool knows(const struct decon *decon, struct key key)
{
    return decon->count && bsearch(&key, decon->keys, decon->count, sizeof key, compare);
}

static bool is_hit(const struct web *web, const struct decon *decon, const char *text,
                   size_t length)
{
    struct words words = {0};
    bool hit;

    if (word_count(text, length) <= decon->min_words)
        return false;
    if (decon->ngram)
        words_split(&words, WORDS_ROUGE, text, length);
    if (words.count > decon->ngram && decon->ngram) {
        size_t grams = words.count - decon->ngram + 1, known = 0;
        for (size_t i = 0; i < grams; i++)
            known += knows(decon, gram_key(&words, i, decon->ngram));
        hit = known > 0 && (double)known >= decon->overlap * (double)grams;
    } else {
        hit = knows(decon, web_key(web, text, length, KIND_PARAGRAPH));
    }
    words_done(&words);
    return hit;
}

size_t decon_hits(const struct web *web, const struct decon *decon, const char *text,
                  size_t length)
{
    size_t hits = 0;

    for (size_t at = 0; at < length;) {
        const char *end = memchr(text + at, '\n', length - at);
        size_t bytes = end ? (size_t)(end - text) - at : length - at;
        hits += is_hit(web, decon, text + at, bytes);
        at += bytes + 1;
    }
    return hits;
}
