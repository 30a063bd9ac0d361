/* link: client */
/* squeue_fuzz.c - whatever Slurm's programs print is read or refused. */
#include "client/pilot/slurm.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct arena arena = {0};
    struct slurm_job *jobs = NULL;
    size_t count = 0;
    const char *reason;
    struct err err;
    if (slurm_parse_queue((const char *)bytes, length, &arena, &jobs, &count, &err) == 0)
        for (size_t i = 0; i < count; i++)
            CHECK(slurm_slot(jobs[i].name, "hpc", "cpu") <= PILOT_ALLOCATIONS_MAX);
    else
        CHECK(err.kind == ERR_PROTOCOL || err.kind == ERR_INVALID);
    CHECK(slurm_parse_end((const char *)bytes, length, &arena, &reason) < END_END);
    arena_done(&arena);
    return 0;
}
