/* link: recipes */
/* data_order_fuzz.c - an accepted data order can be used, and its own text reads back. */
#include "common/base/mem.h"
#include "worker/recipes/order.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct err err;
    struct data_order order, again;

    if (order_parse((const char *)bytes, length, &order, &err) < 0)
        return 0;
    CHECK(order.batch > 0 && order.items > 0 && (!order.windows || order.context > 0));
    char *text = order_text(&order);

    CHECK(order_parse(text, strlen(text), &again, &err) == 0);
    CHECK(again.seed == order.seed && again.skip == order.skip);
    order_done(&again);
    order_done(&order);
    mem_free(text);
    return 0;
}
