/* coherence.c - see coherence.h. */
#include "worker/recipes/data/web/coherence.h"

#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/recipes/data/web/scorer.h"
#include "worker/recipes/text/words.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CELLS_LOG2    23
#define HELD_SHARE    0.1
#define HELD_LEAST    20
#define WEIGHT_BEFORE 0.5 /* of the sentence before; the rest is the word's own p */

struct sentence {
    size_t begin, end, word_count;
    uint64_t word[COHERENCE_WORDS]; /* different ones */
    size_t different;
};

struct text {
    char *bytes;
    size_t length;
};

struct coherence {
    uint64_t seed, words;
    uint32_t *cells[2];
    struct text *held;
    size_t held_count, held_capacity;
    double limit;
    /* of the current text */
    struct words room;
    struct sentence *sentences;
    size_t count, capacity;
    double *fit; /* of each sentence with the one before it; of the first: unused */
    size_t fit_capacity;
};

struct coherence *coherence_new(uint64_t seed)
{
    struct coherence *coherence = mem_zalloc(sizeof *coherence);

    coherence->seed = seed;
    for (int r = 0; r < 2; r++)
        coherence->cells[r] = mem_array((size_t)1 << CELLS_LOG2, sizeof(uint32_t));
    return coherence;
}

void coherence_free(struct coherence *coherence)
{
    if (!coherence)
        return;
    for (size_t i = 0; i < coherence->held_count; i++)
        mem_free(coherence->held[i].bytes);
    mem_free(coherence->held);
    mem_free(coherence->cells[0]);
    mem_free(coherence->cells[1]);
    words_done(&coherence->room);
    mem_free(coherence->sentences);
    mem_free(coherence->fit);
    mem_free(coherence);
}

/* ---- counts ----------------------------------------------------------------------------- */

/* Keys of a word alone, of a word that is followed by any, and of one followed by another. */
static uint64_t key_word(uint64_t w)
{
    return rng_mix(w ^ 1);
}
static uint64_t key_before(uint64_t v)
{
    return rng_mix(v ^ 2);
}
static uint64_t key_pair(uint64_t v, uint64_t w)
{
    return rng_mix(rng_mix(v ^ 3) + w);
}

static void count(struct coherence *coherence, uint64_t key)
{
    for (int r = 0; r < 2; r++) {
        uint32_t *cell =
            &coherence->cells[r][(r ? key >> 32 : key) & (((uint64_t)1 << CELLS_LOG2) - 1)];
        *cell += *cell < UINT32_MAX;
    }
}

static double count_of(const struct coherence *coherence, uint64_t key)
{
    uint64_t mask = ((uint64_t)1 << CELLS_LOG2) - 1;
    uint32_t a = coherence->cells[0][key & mask], b = coherence->cells[1][key >> 32 & mask];

    return a < b ? a : b;
}

/* ---- sentences -------------------------------------------------------------------------- */

static void take_words(struct coherence *coherence, struct sentence *sentence, const char *text)
{
    struct words *words = &coherence->room;

    words->count = 0;
    words_split(words, WORDS_ROUGE, text + sentence->begin, sentence->end - sentence->begin);
    sentence->word_count = words->count;
    for (size_t i = 0; i < words->count && sentence->different < COHERENCE_WORDS; i++) {
        size_t k = 0;
        while (k < sentence->different && sentence->word[k] != words->word[i])
            k++;
        if (k == sentence->different)
            sentence->word[sentence->different++] = words->word[i];
    }
}

/* Stretches without words belong to the sentence before them, or to the first. */
static void cut(struct coherence *coherence, const char *text, size_t length)
{
    size_t begin, end = 0;

    coherence->count = 0;
    while (scorer_next_unit(SCORER_SENTENCE, text, length, &begin, &end)) {
        struct sentence sentence = {.begin = coherence->count ? begin : 0, .end = end};
        take_words(coherence, &sentence, text);
        if (sentence.word_count == 0) {
            if (coherence->count)
                coherence->sentences[coherence->count - 1].end = end;
            continue;
        }
        VEC_RESERVE(coherence->sentences, coherence->count, coherence->capacity);
        coherence->sentences[coherence->count++] = sentence;
    }
}

static double fit_of(const struct coherence *coherence, const struct sentence *a,
                     const struct sentence *b)
{
    double sum = 0, all = (double)coherence->words + 1;

    for (size_t i = 0; i < b->different; i++) {
        double p = (count_of(coherence, key_word(b->word[i])) + 0.5) / all, given = 0;
        for (size_t k = 0; k < a->different; k++) {
            double before = count_of(coherence, key_before(a->word[k]));
            if (before > 0)
                given += count_of(coherence, key_pair(a->word[k], b->word[i])) / before;
        }
        given /= (double)a->different;
        sum += log((WEIGHT_BEFORE * given + (1 - WEIGHT_BEFORE) * p) / p);
    }
    return sum / (double)b->different;
}

static void fit_all(struct coherence *coherence, const char *text, size_t length)
{
    cut(coherence, text, length);
    if (coherence->count > coherence->fit_capacity) {
        coherence->fit_capacity = coherence->capacity;
        coherence->fit = mem_grow(coherence->fit, coherence->fit_capacity, sizeof(double));
    }
    for (size_t i = 1; i < coherence->count; i++)
        coherence->fit[i] = fit_of(coherence, &coherence->sentences[i - 1],
                                   &coherence->sentences[i]);
}

/* Of the sentences [from, to); *worst: the one that fits worst to the one before it. */
static double score_of(const struct coherence *coherence, size_t from, size_t to, size_t *worst)
{
    double sum = 0;

    *worst = from + 1;
    for (size_t i = from + 1; i < to; i++) {
        sum += coherence->fit[i];
        if (coherence->fit[i] < coherence->fit[*worst])
            *worst = i;
    }
    return to - from >= 2 ? sum / (double)(to - from - 1) : NAN;
}

/* ---- the reference ---------------------------------------------------------------------- */

void coherence_add(struct coherence *coherence, const char *text, size_t length)
{
    struct hash hash;
    uint64_t bits;

    hash_bytes(text, length, &hash);
    memcpy(&bits, hash.bytes, sizeof bits);
    if (rng_unit_at(coherence->seed, bits, 4) < HELD_SHARE) {
        VEC_RESERVE(coherence->held, coherence->held_count, coherence->held_capacity);
        coherence->held[coherence->held_count++] =
            (struct text){mem_strndup(text, length), length};
        return;
    }
    cut(coherence, text, length);
    for (size_t s = 0; s < coherence->count; s++) {
        const struct sentence *b = &coherence->sentences[s];
        for (size_t i = 0; i < b->different; i++) {
            count(coherence, key_word(b->word[i]));
            for (size_t k = 0; s > 0 && k < b[-1].different; k++) {
                count(coherence, key_pair(b[-1].word[k], b->word[i]));
                count(coherence, key_before(b[-1].word[k]));
            }
        }
        coherence->words += b->different;
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int coherence_finish(struct coherence *coherence, double percent, struct err *err)
{
    double *scores = mem_array(coherence->held_count + 1, sizeof *scores);
    size_t scored = 0;

    for (size_t i = 0; i < coherence->held_count; i++) {
        scores[scored] = coherence_score(coherence, coherence->held[i].bytes,
                                         coherence->held[i].length);
        scored += !isnan(scores[scored]);
    }
    if (scored > 1)
        qsort(scores, scored, sizeof *scores, compare);
    size_t at = (size_t)((double)scored * percent / 100);
    coherence->limit = scored ? scores[at < scored ? at : scored - 1] : 0;
    mem_free(scores);
    if (scored < HELD_LEAST)
        return err_set(err, ERR_INVALID, "the reference has too few texts of two sentences: %zu "
                       "to measure with (a tenth), at least %d are needed; without the stage "
                       "coherence none are", scored, HELD_LEAST);
    return 0;
}

double coherence_limit(const struct coherence *coherence)
{
    return coherence->limit;
}

double coherence_score(struct coherence *coherence, const char *text, size_t length)
{
    size_t worst;

    fit_all(coherence, text, length);
    return score_of(coherence, 0, coherence->count, &worst);
}

/* ---- parts ------------------------------------------------------------------------------ */

struct stretch {
    size_t from, to; /* sentences */
    size_t worst;
    double score;
};

static struct stretch stretch_of(const struct coherence *coherence, size_t from, size_t to)
{
    struct stretch out = {.from = from, .to = to};

    out.score = score_of(coherence, from, to, &out.worst);
    return out;
}

static struct coherent_part part_of(const struct coherence *coherence,
                                    const struct stretch *stretch, size_t length)
{
    size_t words = 0;

    for (size_t i = stretch->from; i < stretch->to; i++)
        words += coherence->sentences[i].word_count;
    return (struct coherent_part){
        .begin = coherence->sentences[stretch->from].begin,
        .end = stretch->to < coherence->count ? coherence->sentences[stretch->to].begin : length,
        .kept = words >= COHERENCE_LEAST_WORDS && !(stretch->score < coherence->limit),
        .score = stretch->score};
}

size_t coherence_parts(struct coherence *coherence, const char *text, size_t length,
                       struct coherent_part out[COHERENCE_PARTS_MAX], double *out_score)
{
    struct stretch list[COHERENCE_PARTS_MAX];
    size_t count = 1;

    fit_all(coherence, text, length);
    list[0] = stretch_of(coherence, 0, coherence->count);
    *out_score = list[0].score;
    for (size_t i = 0; i < count;) { /* in order of the text */
        struct stretch whole = list[i];
        if (!(whole.score < coherence->limit) || count == COHERENCE_PARTS_MAX) {
            i++;
            continue;
        }
        memmove(&list[i + 1], &list[i], (count++ - i) * sizeof *list);
        list[i] = stretch_of(coherence, whole.from, whole.worst);
        list[i + 1] = stretch_of(coherence, whole.worst, whole.to);
    }
    if (count == 1) {
        out[0] = (struct coherent_part){0, length, true, list[0].score};
        return 1;
    }
    for (size_t i = 0; i < count; i++)
        out[i] = part_of(coherence, &list[i], length);
    return count;
}
