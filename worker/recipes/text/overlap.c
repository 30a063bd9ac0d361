/* overlap.c - see overlap.h. N-grams are hashes of their words' hashes, counted by sorting: a
 * sentence has few, and sorted arrays need neither a table nor its iteration order. */
#include "worker/recipes/text/overlap.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- n-grams ---------------------------------------------------------------------------- */

struct grams {
    uint64_t *gram; /* sorted */
    size_t count;
};

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

static size_t gram_count(const struct words *words, unsigned n)
{
    return words->count >= n ? words->count - n + 1 : 0;
}

static size_t gather(const struct words *words, unsigned n, uint64_t *out)
{
    size_t count = gram_count(words, n);

    for (size_t i = 0; i < count; i++) {
        uint64_t gram = n;
        for (unsigned j = 0; j < n; j++)
            gram = rng_mix(gram ^ words->word[i + j]);
        out[i] = gram;
    }
    return count;
}

static struct grams grams_of(const struct words *words, unsigned n)
{
    struct grams grams = {.gram = mem_array(gram_count(words, n) + 1, sizeof *grams.gram)};

    grams.count = gather(words, n, grams.gram);
    qsort(grams.gram, grams.count, sizeof *grams.gram, compare);
    return grams;
}

/* Length of the run of equal grams that starts at `from`. */
static size_t run_length(const struct grams *grams, size_t from)
{
    size_t to = from;

    while (to < grams->count && grams->gram[to] == grams->gram[from])
        to++;
    return to - from;
}

static size_t occurrences(const struct grams *grams, uint64_t gram)
{
    size_t from = 0, to = grams->count;

    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (grams->gram[middle] < gram)
            from = middle + 1;
        else
            to = middle;
    }
    return from < grams->count && grams->gram[from] == gram ? run_length(grams, from) : 0;
}

/* Sum over the candidate's grams of min(its count, the most that any reference has). */
static size_t clipped_matches(const struct grams *candidate, const struct grams *references,
                              size_t count)
{
    size_t sum = 0;

    for (size_t i = 0, run; i < candidate->count; i += run) {
        size_t most = 0;
        run = run_length(candidate, i);
        for (size_t r = 0; r < count && most < run; r++) {
            size_t there = occurrences(&references[r], candidate->gram[i]);
            most = there > most ? there : most;
        }
        sum += most < run ? most : run;
    }
    return sum;
}

/* ---- ROUGE ------------------------------------------------------------------------------ */

static bool slot_is_free(const struct lcs_pattern *pattern, size_t slot)
{
    for (size_t k = 0; k < pattern->blocks; k++)
        if (pattern->mask[slot * pattern->blocks + k])
            return false;
    return true;
}

/* The slot of a word, or the free one where it would go: the table is at most half full. */
static size_t slot_of(const struct lcs_pattern *pattern, uint64_t word)
{
    size_t slot = rng_mix(word) & (pattern->slots - 1);

    while (pattern->word[slot] != word && !slot_is_free(pattern, slot))
        slot = (slot + 1) & (pattern->slots - 1);
    return slot;
}

void lcs_pattern_init(const struct words *text, struct lcs_pattern *out)
{
    size_t slots = 2;

    while (slots < 2 * text->count)
        slots *= 2;
    *out = (struct lcs_pattern){.length = text->count, .blocks = (text->count + 63) / 64};
    out->slots = slots;
    out->word = mem_array(slots, sizeof *out->word);
    out->mask = mem_array(slots * out->blocks + 1, sizeof *out->mask);
    for (size_t i = 0; i < text->count; i++) {
        size_t slot = slot_of(out, text->word[i]);
        out->word[slot] = text->word[i];
        out->mask[slot * out->blocks + i / 64] |= 1ull << i % 64;
    }
}

void lcs_pattern_done(struct lcs_pattern *pattern)
{
    mem_free(pattern->word);
    mem_free(pattern->mask);
    *pattern = (struct lcs_pattern){0};
}

/* Bit i of v is 0 where the table grows between words i and i+1 of the pattern: its zeros are
 * the length. One word of b: u = v & mask; v = (v + u) | (v - u), the sum carried over blocks. */
static void advance(uint64_t *v, const uint64_t *mask, size_t blocks)
{
    uint64_t carry = 0;

    for (size_t k = 0; k < blocks; k++) {
        uint64_t u = v[k] & mask[k], sum = v[k] + carry;
        carry = sum < carry;
        sum += u;
        carry |= sum < u;
        v[k] = sum | (v[k] - u);
    }
}

size_t lcs_length(const struct lcs_pattern *a, const struct words *b)
{
    uint64_t few[8], *v = a->blocks <= ARRAY_COUNT(few) ? few : mem_alloc(a->blocks * sizeof *v);
    size_t length = a->length;

    memset(v, 0xff, a->blocks * sizeof *v);
    for (size_t j = 0; j < b->count && a->length; j++)
        advance(v, a->mask + slot_of(a, b->word[j]) * a->blocks, a->blocks);
    for (size_t i = 0; i < a->length; i++)
        length -= v[i / 64] >> i % 64 & 1;
    if (v != few)
        mem_free(v);
    return length;
}

static struct overlap overlap_of(size_t common, size_t candidate, size_t reference)
{
    struct overlap out = {0};

    if (common == 0)
        return out;
    out.precision = (double)common / (double)candidate;
    out.recall = (double)common / (double)reference;
    out.f = 2 * out.precision * out.recall / (out.precision + out.recall);
    return out;
}

struct overlap rouge_l(const struct lcs_pattern *candidate, const struct words *reference)
{
    return overlap_of(lcs_length(candidate, reference), candidate->length, reference->count);
}

double rouge_l_texts(const char *candidate, const char *reference)
{
    struct words a = {0}, b = {0};
    struct lcs_pattern pattern;

    words_split(&a, WORDS_ROUGE, candidate, strlen(candidate));
    words_split(&b, WORDS_ROUGE, reference, strlen(reference));
    lcs_pattern_init(&a, &pattern);
    double f = rouge_l(&pattern, &b).f;
    lcs_pattern_done(&pattern);
    words_done(&a);
    words_done(&b);
    return f;
}

struct overlap rouge_n(const struct words *candidate, const struct words *reference, unsigned n)
{
    struct grams left = grams_of(candidate, n), right = grams_of(reference, n);
    size_t common = clipped_matches(&left, &right, 1);
    struct overlap out = overlap_of(common, left.count, right.count);

    mem_free(left.gram);
    mem_free(right.gram);
    return out;
}

/* ---- BLEU ------------------------------------------------------------------------------- */

static size_t closest_length(const struct words *candidate, const struct words *const *references,
                             size_t count)
{
    size_t best = 0, best_distance = SIZE_MAX;

    for (size_t r = 0; r < count; r++) {
        size_t length = references[r]->count;
        size_t distance = length > candidate->count ? length - candidate->count
                                                    : candidate->count - length;
        if (distance < best_distance || (distance == best_distance && length < best)) {
            best = length;
            best_distance = distance;
        }
    }
    return best;
}

void bleu_add(struct bleu *bleu, const struct words *candidate,
              const struct words *const *references, size_t count)
{
    struct grams *theirs = mem_array(count + 1, sizeof *theirs);

    for (unsigned n = 1; n <= BLEU_ORDER; n++) {
        struct grams ours = grams_of(candidate, n);
        for (size_t r = 0; r < count; r++)
            theirs[r] = grams_of(references[r], n);
        bleu->match[n - 1] += clipped_matches(&ours, theirs, count);
        bleu->total[n - 1] += ours.count;
        for (size_t r = 0; r < count; r++)
            mem_free(theirs[r].gram);
        mem_free(ours.gram);
    }
    bleu->candidate_length += candidate->count;
    bleu->reference_length += closest_length(candidate, references, count);
    mem_free(theirs);
}

void bleu_join(struct bleu *to, const struct bleu *from)
{
    for (int n = 0; n < BLEU_ORDER; n++) {
        to->match[n] += from->match[n];
        to->total[n] += from->total[n];
    }
    to->candidate_length += from->candidate_length;
    to->reference_length += from->reference_length;
}

double bleu_score(const struct bleu *bleu, bool effective_order)
{
    double log_sum = 0, smooth = 1, c = (double)bleu->candidate_length;
    unsigned order = BLEU_ORDER;

    if (bleu->match[0] == 0)
        return 0;
    for (unsigned n = 0; n < BLEU_ORDER; n++) {
        if (bleu->total[n] == 0) {
            if (!effective_order)
                return 0;
            order = n;
            break;
        }
        smooth *= bleu->match[n] ? 1 : 2;
        log_sum += log(bleu->match[n] ? (double)bleu->match[n] / (double)bleu->total[n]
                                      : 1 / (smooth * (double)bleu->total[n]));
    }
    double brevity = bleu->candidate_length >= bleu->reference_length
                         ? 0
                         : 1 - (double)bleu->reference_length / c;
    return 100 * exp(brevity + log_sum / order);
}

double bleu_sentence(const struct words *candidate, const struct words *reference)
{
    struct bleu bleu = {0};

    bleu_add(&bleu, candidate, &reference, 1);
    return bleu_score(&bleu, true);
}

void self_bleu_each(const struct words *const *texts, size_t count, double *out)
{
    const struct words **others = mem_array(count + 1, sizeof *others);

    for (size_t i = 0; i < count; i++) {
        struct bleu bleu = {0};
        size_t kept = 0;
        for (size_t j = 0; j < count; j++)
            if (j != i)
                others[kept++] = texts[j];
        bleu_add(&bleu, texts[i], others, kept);
        out[i] = kept ? bleu_score(&bleu, true) : 0;
    }
    mem_free(others);
}

double self_bleu(const struct words *const *texts, size_t count)
{
    double *each = mem_array(count + 1, sizeof *each), sum = 0;

    self_bleu_each(texts, count, each);
    for (size_t i = 0; i < count; i++)
        sum += each[i];
    mem_free(each);
    return count > 1 ? sum / (double)count : 0;
}

double ibleu(double to_reference, double to_source, double alpha)
{
    return alpha * to_reference - (1 - alpha) * to_source;
}

double distinct_n(const struct words *const *texts, size_t count, unsigned n)
{
    size_t total = 0, distinct = 0;

    for (size_t i = 0; i < count; i++)
        total += gram_count(texts[i], n);
    struct grams all = {mem_array(total + 1, sizeof *all.gram), 0};
    for (size_t i = 0; i < count; i++)
        all.count += gather(texts[i], n, all.gram + all.count);
    qsort(all.gram, all.count, sizeof *all.gram, compare);
    for (size_t i = 0; i < all.count; i += run_length(&all, i))
        distinct++;
    mem_free(all.gram);
    return total ? (double)distinct / (double)total : 0;
}
