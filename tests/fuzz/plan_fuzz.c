/* link: worker-attempt */
/* plan_fuzz.c - start.json, and through it specs of any content. */
#include "worker/attempt/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct plan plan;
    struct err err = {0};
    if (plan_parse((const char *)bytes, length, &plan, &err) == 0) {
        CHECK(plan.rank_count >= 1 && plan.rank_count <= PLAN_RANKS_MAX);
        CHECK(plan.command[0]);
        plan_done(&plan);
    } else {
        CHECK(err.kind == ERR_PROTOCOL && err.text[0]);
    }
    return 0;
}
