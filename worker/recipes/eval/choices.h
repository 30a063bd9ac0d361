/* choices.h - multiple-choice items: reading, cutting into tokens, judging. No model here.
 *
 * A file has one JSON object a line: {"context": text, "choices": [text, ..], "gold": index}, or
 * instead of gold "labels": [0, 1, ..] where several are true; "id" if wanted.
 * Source: lm-evaluation-harness, api/task.py and models/huggingface.py (_encode_pair). */
#ifndef ATHANOR_CHOICES_H
#define ATHANOR_CHOICES_H

#include "worker/engine/data/tokenizer.h"

#define CHOICES_MAX 256 /* of one item */
#define CHOICES_TEXT_MAX (1 << 20) /* bytes of a line */

struct choice_item {
    char *id;       /* NULL: its line */
    char *context;
    char **choice;
    size_t count;   /* 2..CHOICES_MAX */
    bool *label;    /* NULL: gold alone is true */
    size_t gold;    /* the first true one */
};
/* One line. Errors: ERR_PROTOCOL (JSON), ERR_INVALID naming field, value and what is accepted. */
int choice_item_parse(const char *json, size_t length, struct choice_item *out,
                      struct err *err) WARN_UNUSED;
void choice_item_done(struct choice_item *item);

struct choice_items {
    struct choice_item *items;
    size_t count, capacity;
};
/* A whole file; empty lines are skipped. Errors name the line. */
int choice_items_read(const char *path, struct choice_items *out, struct err *err) WARN_UNUSED;
void choice_items_done(struct choice_items *items);

/* Tokens of context and choice, cut where the context's own tokens end: spaces at the context's
 * end belong to the choice, `delimiter` stands between them, both are encoded as one text, and
 * an empty context is `prefix` (also put before every context when `always`). *out_start: first
 * token of the choice. */
struct choice_encoding {
    const struct tokenizer *tokenizer;
    const char *delimiter;
    uint32_t prefix;
    bool always;
};
void choice_encode(const struct choice_encoding *how, const char *context, const char *choice,
                   struct token_list *out, size_t *out_start);

/* What the log probabilities of an item's choices say. mutual: log p without context, or NULL. */
struct choice_verdict {
    size_t best;          /* highest log p; ties: the first      */
    bool acc, acc_norm, acc_bytes, acc_mutual_info; /* of best log p, log p over Unicode characters,
                                                       over bytes, and less log p without context */
    double brier;         /* sum_j (p_j - [j = gold])^2, p the softmax of log p */
    double confidence;    /* p of the best                       */
    double mc2;           /* probability of the true ones among all; NAN without labels */
};
void choice_judge(const struct choice_item *item, const double *log_p, const double *mutual,
                  struct choice_verdict *out);

size_t text_characters(const char *text); /* code points of UTF-8 */

#endif
