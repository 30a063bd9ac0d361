/* critic_nli.c - entailment by a classifier of pairs, as Jung et al. 2024 judge with
 * RoBERTa-large-WANLI. */
#include "worker/recipes/distillation/impossible/critic.h"

#include "common/base/mem.h"
#include "worker/recipes/encode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct nli {
    struct critic critic;
    struct encoder encoder;
    int64_t entailment; /* its class */
};

struct answers {
    const struct nli *critic;
    double *out;
};

static void take(void *argument, size_t index, const float *values, size_t rows)
{
    const struct answers *answers = argument;
    int64_t labels = answers->critic->encoder.model->config.labels;
    double most = values[0], sum = 0;

    (void)rows;
    for (int64_t i = 1; i < labels; i++)
        most = fmax(most, (double)values[i]);
    for (int64_t i = 0; i < labels; i++)
        sum += exp((double)values[i] - most);
    answers->out[index] = exp((double)values[answers->critic->entailment] - most) / sum;
}

static int nli_score(struct critic *base, const struct critic_pair *pairs, size_t count,
                     double *out, struct err *err)
{
    struct nli *critic = (struct nli *)base;
    struct encode_text *texts = mem_array(count + 1, sizeof *texts);
    struct answers answers = {critic, out};

    for (size_t i = 0; i < count; i++)
        texts[i] = (struct encode_text){pairs[i].x, pairs[i].y};
    int rc = encode(&critic->encoder, texts, count, ENCODE_LABELS, take, &answers, err);
    base->cut = critic->encoder.cut;
    mem_free(texts);
    return rc;
}

static void nli_free(struct critic *base)
{
    struct nli *critic = (struct nli *)base;

    encoder_close(&critic->encoder);
    mem_free(critic);
}

/* "entailment", in any case; models of two classes also say "entailed" and "not_entailment". */
static bool is_entailment(const char *name)
{
    return strncasecmp(name, "entail", 6) == 0;
}

static int find_entailment(struct nli *critic, const char *folder, struct err *err)
{
    const struct model_config *config = &critic->encoder.model->config;
    struct buf known = {0};
    size_t found = 0;

    if (config->top != MODEL_TOP_LABELS)
        return err_set(err, ERR_INVALID, "'%s' has no classes: critic nli needs a "
                       "BertForSequenceClassification or a RobertaForSequenceClassification",
                       folder);
    for (int64_t i = 0; i < config->labels && i < MODEL_LABELS_NAMED; i++) {
        buf_printf(&known, "%s%s", i ? ", " : "",
                   config->label_name[i][0] ? config->label_name[i] : "(none)");
        if (is_entailment(config->label_name[i])) {
            critic->entailment = i;
            found++;
        }
    }
    if (found != 1)
        err_set(err, ERR_INVALID, "'%s': %zu of its classes are called entailment in id2label of "
                "config.json, not one: %s", folder, found, buf_text(&known));
    buf_done(&known);
    return found == 1 ? 0 : -1;
}

int critic_nli(const char *folder, struct device *device, struct critic **out, struct err *err)
{
    static const struct critic_class class = {"nli", true, true, nli_score, nli_free};
    struct nli *critic = mem_zalloc(sizeof *critic);

    critic->critic.class = &class;
    if (encoder_open(folder, device, &critic->encoder, err) < 0 ||
        find_entailment(critic, folder, err) < 0) {
        nli_free(&critic->critic);
        return -1;
    }
    *out = &critic->critic;
    return 0;
}
