/* link: common-spec */
/* job_json_fuzz.c - any text is a resolved job or is refused; a job's JSON is a fixed point. */
#include "common/base/mem.h"
#include "common/spec/spec.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char *text = mem_strndup((const char *)bytes, length);
    struct arena arena = {0};
    struct spec_job job, again;
    struct spec_place place = {.name = "data", .path = "/p", .part = "x"};
    struct spec_run run = {.job_id = 1, .attempt_id = 2, .attempt = 1, .places = &place,
                           .place_count = 1};
    struct err err;
    char *complete = NULL;
    if (spec_job_from_json(text, &arena, &job, &err) == 0) {
        char *json = spec_job_json(&job);
        CHECK(spec_job_from_json(json, &arena, &again, &err) == 0);
        char *json_again = spec_job_json(&again);
        CHECK(strcmp(json, json_again) == 0);
        mem_free(json_again);
        mem_free(json);
    }
    if (spec_json_complete(text, &run, &complete, &err) == 0)
        mem_free(complete);
    arena_done(&arena);
    mem_free(text);
    return 0;
}
