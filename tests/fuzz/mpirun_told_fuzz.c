/* link: worker-shepherd */
/* mpirun_told_fuzz.c - whatever mpirun or athanor-rsh say, numbers stay in their bounds. */
#include "worker/shepherd/mpirun.h"

#include "common/base/mem.h"
#include "worker/gang/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char *text = mem_strndup((const char *)bytes, length);
    unsigned rank, node;
    int number;
    if (mpirun_signal_told(text, &rank, &number))
        CHECK(number >= 1 && number <= 64);
    if (mpirun_node_of(text, &node))
        CHECK(node < GANG_NODES_MAX);
    mem_free(text);
    return 0;
}
