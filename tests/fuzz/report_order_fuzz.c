/* link: engine-io */
/* report_order_fuzz.c - lines of the shepherd's never upset a rank. */
#include "worker/engine/io/report.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct report_order order;
    if (report_order_parse((const char *)bytes, length, &order, &err) == 0)
        CHECK(strlen(order.text) < sizeof order.text);
    return 0;
}
