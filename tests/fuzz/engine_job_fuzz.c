/* link: recipes */
/* engine_job_fuzz.c - resolved jobs are accepted complete or refused with a text. */
#include "worker/recipes/job.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err = {0};
    struct job job;
    if (job_parse((const char *)bytes, length, &job, &err) < 0) {
        CHECK(err.text[0]);
        return 0;
    }
    for (size_t i = 0; i < job.recipe->input_count; i++)
        CHECK(job.inputs[i].path || !job.recipe->inputs[i].required);
    job_done(&job);
    return 0;
}
