/* link: common-spec */
/* spec_fuzz.c - any bytes are a spec or are refused with a reason; jobs survive their JSON.
 *
 * The input is the document, then overrides "path=value", each after a NUL. */
#include "common/base/mem.h"
#include "common/spec/spec.h"

#include <string.h>

#define SETS_MAX 4

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static const char recipes[] =
    "{\"format\": 1, \"recipes\": ["
    "{\"kind\": \"data\", \"name\": \"text\", \"version\": 1, \"outputs\": [\"dataset\"], "
    "\"params\": [{\"name\": \"name\", \"type\": \"string\"}, "
    "{\"name\": \"parts\", \"type\": \"list\", \"default\": []}]},"
    "{\"kind\": \"pretraining\", \"name\": \"clm\", \"version\": 1, "
    "\"outputs\": [\"checkpoint\"], "
    "\"inputs\": [{\"name\": \"data\", \"type\": \"dataset\", \"required\": true}, "
    "{\"name\": \"init\", \"type\": \"checkpoint\"}], "
    "\"params\": [{\"name\": \"steps\", \"type\": \"int\", \"default\": 9, "
    "\"min\": 1, \"max\": 99}, "
    "{\"name\": \"rate\", \"type\": \"float\", \"default\": 0.1}, "
    "{\"name\": \"tied\", \"type\": \"bool\", \"default\": true}, "
    "{\"name\": \"shape\", \"type\": \"choice\", \"default\": \"a\", "
    "\"choices\": [\"a\", \"b\"]}]}]}";

static struct catalogue *catalogue_once(void)
{
    static struct catalogue *catalogue; /* reachable at exit, so no leak */
    struct err err;
    if (!catalogue) {
        catalogue = catalogue_new();
        CHECK(catalogue_add(catalogue, recipes, strlen(recipes), &err) == 0);
    }
    return catalogue;
}

static void job_check(const struct spec_job *job)
{
    struct arena arena = {0};
    struct spec_job again;
    struct err err;
    char *json = spec_job_json(job);
    CHECK(spec_job_from_json(json, &arena, &again, &err) == 0);
    char *json_again = spec_job_json(&again);
    CHECK(strcmp(json, json_again) == 0);
    mem_free(json_again);
    mem_free(json);
    arena_done(&arena);
}

static size_t sets_read(char *rest, const char *end, struct spec_set sets[SETS_MAX])
{
    size_t count = 0;
    struct err err;
    while (rest < end && count < SETS_MAX) {
        char *next = rest + strlen(rest) + 1;
        count += spec_set_split(rest, &sets[count], &err) == 0;
        rest = next;
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char *text = mem_strndup((const char *)bytes, length);
    char *end = text + length;
    struct spec_set sets[SETS_MAX];
    struct spec_errors errors = {0};
    struct spec *spec = NULL;
    char *nul = memchr(text, '\0', length);
    struct spec_source source = {.name = "fuzz.yaml", .bytes = text, .sets = sets,
                                 .folder = length % 2 ? "/folder" : NULL};
    source.length = nul ? (size_t)(nul - text) : length;
    source.set_count = nul ? sets_read(nul + 1, end, sets) : 0;
    if (spec_read(&source, catalogue_once(), &spec, &errors) == 0) {
        CHECK(errors.count == 0 && spec->job_count > 0);
        for (size_t i = 0; i < spec->job_count && i < 20; i++)
            job_check(&spec->jobs[i]);
    } else {
        CHECK(errors.count > 0);
        mem_free(spec_errors_text(&errors));
        mem_free(spec_errors_json(&errors));
    }
    spec_free(spec);
    spec_errors_done(&errors);
    mem_free(text);
    return 0;
}
