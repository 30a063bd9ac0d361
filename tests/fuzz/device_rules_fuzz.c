/* link: worker-attempt */
/* device_rules_fuzz.c - of any list of allowed devices each rule taken out stands there (or all are
 * allowed), and what is put in its place never allows what is refused. */
#include "common/base/mem.h"
#include "worker/attempt/device_group.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const struct device_number refused[] = {{195, 0}, {1, 7}};
    struct buf deny = {0}, allow = {0};
    struct err err;
    char *list = mem_strndup((const char *)bytes, length);
    if (device_group_rules(list, refused, ARRAY_COUNT(refused), &deny, &allow, &err) < 0) {
        CHECK(err.kind == ERR_INVALID);
    } else {
        char *save = NULL, *rules = mem_strdup(buf_text(&deny));
        for (char *rule = strtok_r(rules, "\n", &save); rule; rule = strtok_r(NULL, "\n", &save))
            CHECK(strncmp(list, "a *:* rwm", 9) == 0 || strstr(list, rule));
        mem_free(rules);
        CHECK(!strstr(buf_text(&allow), "c 195:0 ") && !strstr(buf_text(&allow), "c 1:7 "));
    }
    buf_done(&deny);
    buf_done(&allow);
    mem_free(list);
    return 0;
}
