/* student.c - the shape of a student, and blocks of its teacher to start from; see kd.h. */
#include "worker/recipes/distillation/kd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An encoder and a decoder as wide and as deep as the teacher. */
static struct model_config encoder_and_decoder(const struct model *teacher)
{
    const struct model_config *c = &teacher->config;

    return (struct model_config){.family = MODEL_T5, .vocab_size = c->vocab_size,
                                 .context = c->context, .width = c->width, .layers = c->layers,
                                 .heads = c->heads, .tied = c->tied, .bos_token = -1,
                                 .eos_token = c->eos_token};
}

int student_config(const struct run *run, const struct model *teacher, struct model_config *out,
                   struct err *err)
{
    struct model_config config = teacher->config;

    if (strcmp(run_string(run, "arch"), "t5") == 0 && config.family != MODEL_T5)
        config = encoder_and_decoder(teacher);
    if (config.family == MODEL_T5)
        config.decoder_layers = run_int(run, "layers");
    if (run_int(run, "layers") > 0)
        config.layers = run_int(run, "layers");
    if (run_int(run, "d_model") > 0) {
        config.width = run_int(run, "d_model");
        config.head_width = 0;
        config.ffn_width = 0;
    }
    if (run_int(run, "heads") > 0) {
        config.heads = run_int(run, "heads");
        config.kv_heads = 0;
        config.head_width = 0;
    }
    if (run_int(run, "kv_heads") > 0)
        config.kv_heads = run_int(run, "kv_heads");
    if (run_int(run, "d_ff") > 0)
        config.ffn_width = run_int(run, "d_ff");
    if (run_int(run, "context") > 0)
        config.context = run_int(run, "context");
    if (model_config_complete(&config, err) < 0)
        return err_wrap(err, "shape of the student");
    *out = config;
    return 0;
}

int64_t student_origin(int64_t block, int64_t student_layers, int64_t teacher_layers)
{
    if (student_layers == 1)
        return 0;
    return (2 * block * (teacher_layers - 1) + student_layers - 1) / (2 * (student_layers - 1));
}

/* The teacher's name of a student weight: "block.1.qkv.weight" becomes "block.3.qkv.weight". */
static void teacher_name(const char *name, const struct model *student, const struct model *teacher,
                         char out[MODEL_NAME_SIZE])
{
    long long block;
    int rest = 0;

    if (sscanf(name, "block.%lld.%n", &block, &rest) == 1 && rest > 0)
        snprintf(out, MODEL_NAME_SIZE, "block.%lld.%s",
                 (long long)student_origin(block, student->config.layers, teacher->config.layers),
                 name + rest);
    else
        snprintf(out, MODEL_NAME_SIZE, "%s", name);
}

static int copy_weight(struct model_weight *to, const struct model_weight *from, struct err *err)
{
    int64_t count = tensor_count(&to->tensor);
    float *host;

    if (!from || tensor_count(&from->tensor) != count)
        return err_set(err, ERR_INVALID,
                       "parameter 'student_init' is teacher-layers, but weight "
                       "'%s' has another shape in the teacher: leave d_model, heads, kv_heads, "
                       "d_ff and (gpt2, opt) context at 0",
                       to->name);
    host = malloc((size_t)count * sizeof *host);
    if (!host)
        return err_set(err, ERR_MEMORY, "cannot allocate %lld bytes to copy '%s'",
                       (long long)count * 4, to->name);
    model_weight_read(from, host);
    model_weight_write(to, host);
    free(host);
    return 0;
}

int student_copy_layers(struct model *student, struct model *teacher, struct err *err)
{
    if (student->config.family != teacher->config.family)
        return err_set(err, ERR_INVALID, "parameter 'student_init' is teacher-layers, but a %s has "
                       "no blocks of a %s: take scratch or checkpoint",
                       model_family_name(student->config.family),
                       model_family_name(teacher->config.family));
    for (int64_t i = 0; i < student->weight_count; i++) {
        char name[MODEL_NAME_SIZE];

        teacher_name(student->weight[i].name, student, teacher, name);
        if (copy_weight(&student->weight[i], model_weight_find(teacher, name), err) < 0)
            return -1;
    }
    return 0;
}
