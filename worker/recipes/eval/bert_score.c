/* bert_score.c - see bert_score.h. */
#include "worker/recipes/eval/bert_score.h"

#include "common/base/mem.h"

#include <string.h>

struct token_vectors {
    size_t width;
    struct {
        float *values;
        size_t rows;
    } text[2];
};

static void take(void *argument, size_t index, const float *values, size_t rows)
{
    struct token_vectors *to = argument;

    to->text[index].rows = rows;
    to->text[index].values = mem_array(rows * to->width + 1, sizeof *values);
    if (rows)
        memcpy(to->text[index].values, values, rows * to->width * sizeof *values);
}

/* Mean over the tokens of one text of the best cosine among those of the other. */
static double mean_of_best(const struct token_vectors *vectors, int of, int among)
{
    double sum = 0;

    for (size_t i = 0; i < vectors->text[of].rows; i++) {
        double best = -1;
        for (size_t j = 0; j < vectors->text[among].rows; j++) {
            double cosine = embed_cosine(vectors->text[of].values + i * vectors->width,
                                         vectors->text[among].values + j * vectors->width,
                                         vectors->width);
            best = cosine > best ? cosine : best;
        }
        sum += best;
    }
    return sum / (double)vectors->text[of].rows;
}

int bert_score(struct embedder *embedder, const char *candidate, const char *reference,
               struct overlap *out, struct err *err)
{
    const char *texts[] = {candidate, reference};
    struct token_vectors vectors = {.width = embedder_width(embedder)};
    int rc = embedder_tokens(embedder, texts, 2, take, &vectors, err);

    if (rc == 0) {
        *out = (struct overlap){0};
        if (vectors.text[0].rows && vectors.text[1].rows) {
            out->precision = mean_of_best(&vectors, 0, 1);
            out->recall = mean_of_best(&vectors, 1, 0);
        }
        if (out->precision > 0 && out->recall > 0)
            out->f = 2 * out->precision * out->recall / (out->precision + out->recall);
    }
    mem_free(vectors.text[0].values);
    mem_free(vectors.text[1].values);
    return rc;
}

double bert_ibleu(double bert, double bleu, double beta)
{
    double unlike = 1 - bleu / 100;

    return bert > 0 && unlike > 0 ? 100 * (beta + 1) / (beta / bert + 1 / unlike) : 0;
}
