/* overlap.h - how much two texts have in common, and how much a set repeats itself.
 *
 * All take words (words.h), so that a text is cut once for many comparisons. Definitions:
 * ROUGE (Lin 2004), BLEU (Papineni et al. 2002) with sacreBLEU's smoothing, self-BLEU (Zhu et
 * al. 2018), iBLEU (Sun and Zhou 2012), distinct-n (Li et al. 2016). Shares are in [0, 1];
 * BLEU and what is made of it in [0, 100] (iBLEU: [-100, 100]). */
#ifndef ATHANOR_OVERLAP_H
#define ATHANOR_OVERLAP_H

#include "worker/recipes/text/words.h"

struct overlap {
    double precision; /* of the candidate's words */
    double recall;    /* of the reference's words */
    double f;         /* 2PR/(P+R); 0 when either text is empty */
};

/* A text to be compared with many: where each of its words stands, as bits. Then a longest
 * common subsequence costs 64 cells of its table an operation (Hyyro 2004):
 * O(words of the pattern / 64 x words of the other text). */
struct lcs_pattern {
    size_t length;  /* words of the text              */
    size_t blocks;  /* of 64 words                    */
    size_t slots;   /* of the table; a power of two   */
    uint64_t *word; /* (slots)                        */
    uint64_t *mask; /* (slots, blocks); a free slot has no bit set */
};
void lcs_pattern_init(const struct words *text, struct lcs_pattern *out);
void lcs_pattern_done(struct lcs_pattern *pattern); /* a zeroed struct is fine */

size_t lcs_length(const struct lcs_pattern *a, const struct words *b);
/* The pattern is the candidate. */
struct overlap rouge_l(const struct lcs_pattern *candidate, const struct words *reference);
/* F of two texts, terminated, in words of WORDS_ROUGE. */
double rouge_l_texts(const char *candidate, const char *reference);
struct overlap rouge_n(const struct words *candidate, const struct words *reference, unsigned n);

#define BLEU_ORDER 4

/* Sums over a corpus: start zeroed, add each candidate, ask once. */
struct bleu {
    uint64_t match[BLEU_ORDER];
    uint64_t total[BLEU_ORDER];
    uint64_t candidate_length;
    uint64_t reference_length; /* of the closest reference; ties: the shorter */
};

void bleu_add(struct bleu *bleu, const struct words *candidate,
              const struct words *const *references, size_t count);
void bleu_join(struct bleu *to, const struct bleu *from);
/* effective_order: n-grams longer than the candidate do not count, as for single sentences. An
 * order without a match counts as 1/(2^k total), k the number of such orders so far. */
double bleu_score(const struct bleu *bleu, bool effective_order);
double bleu_sentence(const struct words *candidate, const struct words *reference);

/* Mean over the texts of each one's BLEU against all others. 0 for under two texts. O(count^2). */
double self_bleu(const struct words *const *texts, size_t count);
/* What it is the mean of. out (count) */
void self_bleu_each(const struct words *const *texts, size_t count, double *out);
/* alpha BLEU(output, reference) - (1 - alpha) BLEU(output, source). */
double ibleu(double to_reference, double to_source, double alpha);
/* Distinct n-grams among all n-grams of all texts; 0 where there are none. */
double distinct_n(const struct words *const *texts, size_t count, unsigned n);

#endif
