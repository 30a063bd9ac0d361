/* device_group.c - see device_group.h. */
#include "worker/attempt/device_group.h"

#include "common/base/mem.h"
#include "worker/attempt/cgroup_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MINORS 256u /* of a major that are allowed one by one: as many as old drivers can have */

struct rule { /* of a list of what is allowed */
    char type, access[8];
    bool any_major, any_minor;
    struct device_number number;
};

static bool number_read(const char *text, bool *out_any, unsigned *out)
{
    *out_any = strcmp(text, "*") == 0;
    return *out_any || sscanf(text, "%u", out) == 1;
}

/* "c 195:* rwm" */
static bool rule_read(const char *line, struct rule *out)
{
    char major[12], minor[12];
    *out = (struct rule){0};
    return sscanf(line, "%c %11[0-9*]:%11[0-9*] %7[rwm]", &out->type, major, minor, out->access) ==
               4 &&
           number_read(major, &out->any_major, &out->number.major) &&
           number_read(minor, &out->any_minor, &out->number.minor);
}

/* A rule that only lets device files be made opens none. */
static bool rule_opens(const struct rule *rule, const struct device_number *device)
{
    return rule->type == 'c' && strpbrk(rule->access, "rw") &&
           (rule->any_major || rule->number.major == device->major) &&
           (rule->any_minor || rule->number.minor == device->minor);
}

static bool is_refused(const struct device_number *refused, size_t count, unsigned major,
                       unsigned minor)
{
    for (size_t i = 0; i < count; i++)
        if (refused[i].major == major && refused[i].minor == minor)
            return true;
    return false;
}

static int rule_narrow(const char *line, const struct rule *rule,
                       const struct device_number *refused, size_t count, struct buf *deny,
                       struct buf *allow, struct err *err)
{
    if (rule->any_major)
        return err_set(err, ERR_INVALID,
                       "devices.list has '%s', which cannot be narrowed: expected rules that name "
                       "a major, or all devices", line);
    buf_printf(deny, "%s\n", line);
    for (unsigned minor = 0; rule->any_minor && minor < MINORS; minor++)
        if (!is_refused(refused, count, rule->number.major, minor))
            buf_printf(allow, "c %u:%u %s\n", rule->number.major, minor, rule->access);
    return 0;
}

static int line_narrow(const char *line, const struct device_number *refused, size_t count,
                       struct buf *deny, struct buf *allow, struct err *err)
{
    struct rule rule;
    if (!rule_read(line, &rule))
        return err_set(err, ERR_INVALID, "devices.list has '%.40s', expected a rule", line);
    for (size_t i = 0; i < count; i++)
        if (rule_opens(&rule, &refused[i]))
            return rule_narrow(line, &rule, refused, count, deny, allow, err);
    return 0;
}

int device_group_rules(const char *list, const struct device_number *refused, size_t count,
                       struct buf *deny, struct buf *allow, struct err *err)
{
    int rc = 0;
    if (strncmp(list, "a *:* rwm", 9) == 0) {
        for (size_t i = 0; i < count; i++)
            buf_printf(deny, "c %u:%u rwm\n", refused[i].major, refused[i].minor);
        return 0;
    }
    char *lines = mem_strdup(list), *save = NULL;
    for (char *line = strtok_r(lines, "\n", &save); line && rc == 0;
         line = strtok_r(NULL, "\n", &save))
        rc = line_narrow(line, refused, count, deny, allow, err);
    mem_free(lines);
    return rc;
}

/* The kernel takes one rule a write. */
static int rules_write(const char *path, const char *file, const struct buf *rules,
                       struct err *err)
{
    char *lines = mem_strdup(buf_text(rules)), *save = NULL;
    int rc = 0;
    for (char *line = strtok_r(lines, "\n", &save); line && rc == 0;
         line = strtok_r(NULL, "\n", &save))
        if (!cgroup_write(path, NULL, file, line))
            rc = err_errno(err, "write '%s' to '%s/%s'", line, path, file);
    mem_free(lines);
    return rc;
}

static int group_narrow(const char *path, const struct device_number *refused, size_t count,
                        struct err *err)
{
    struct buf deny = {0}, allow = {0};
    char *list = cgroup_read(path, NULL, "devices.list");
    int rc = list ? device_group_rules(list, refused, count, &deny, &allow, err)
                  : err_errno(err, "read '%s/devices.list'", path);
    if (rc == 0)
        rc = rules_write(path, "devices.deny", &deny, err);
    if (rc == 0)
        rc = rules_write(path, "devices.allow", &allow, err);
    buf_done(&deny);
    buf_done(&allow);
    mem_free(list);
    return rc;
}

int device_group_make(const char *base, const char *name, const struct device_number *refused,
                      size_t count, char **out_path, struct err *err)
{
    char *path = cgroup_file(base, NULL, name);
    int rc = mkdir(path, 0755) == 0 || errno == EEXIST ? 0 : err_errno(err, "make '%s'", path);
    if (rc == 0 && group_narrow(path, refused, count, err) < 0) {
        rmdir(path);
        rc = -1;
    }
    if (rc < 0)
        mem_free(path);
    else
        *out_path = path;
    return rc;
}
