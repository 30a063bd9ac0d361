/* repetition.h - runs of one token sequence said over and over.
 *
 * Tokens are GPT-2's pieces (worker/engine/data/pieces.h), so that no vocabulary is needed. A
 * sequence of period p that occurs r times in a row is r*p tokens each equal to the one p before,
 * the first p excepted. Dolma drops a document in which some sequence of period 1 to 13 occurs
 * at least 100 times in a row (configuration v1.6). Source: card data-dolma, "Repetition". */
#ifndef ATHANOR_WEB_REPETITION_H
#define ATHANOR_WEB_REPETITION_H

#include "common/base/base.h"

#define REPETITION_PERIOD_MAX 13

/* The most times that any sequence of 1 .. REPETITION_PERIOD_MAX tokens occurs in a row: 0 for a
 * text without tokens, 1 when nothing repeats. */
uint64_t repetition_most(const char *text, size_t length);

#endif
