/* cgroup_file.c - see cgroup_file.h. Formats: proc(5) for mountinfo, cgroups(7) for cgroup. */
#include "worker/attempt/cgroup_file.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

char *cgroup_file(const char *path, const char *leaf, const char *file)
{
    return mem_printf("%s/%s%s%s", path, leaf ? leaf : "", leaf ? "/" : "", file);
}

bool cgroup_write(const char *path, const char *leaf, const char *file, const char *text)
{
    char *name = cgroup_file(path, leaf, file);
    int fd = open(name, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    mem_free(name);
    return done;
}

char *cgroup_read(const char *path, const char *leaf, const char *file)
{
    char *name = cgroup_file(path, leaf, file), *text = NULL;
    size_t length;
    struct err err = {0};
    if (file_read(name, (size_t)1 << 20, &text, &length, &err) < 0)
        text = NULL;
    mem_free(name);
    return text;
}

bool cgroup_is_v1(const char *path)
{
    char *name = cgroup_file(path, NULL, "cgroup.controllers");
    bool v1 = access(name, F_OK) < 0;
    mem_free(name);
    return v1;
}

/* Whether `word` is one of a comma-separated list. */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
        if (strncmp(at, word, length) == 0 && (!at[length] || strchr(",\n ", at[length])))
            return true;
    return false;
}

struct mount {
    char root[1024], point[1024];
};

/* Fields 4 and 5 of the mountinfo line, and what follows " - ": type, source, super options. */
static bool mount_is(const char *line, const char *controller, struct mount *out)
{
    char type[32], options[1024];
    const char *rest = strstr(line, " - ");
    if (!rest || sscanf(rest, " - %31s %*s %1023s", type, options) != 2 ||
        sscanf(line, "%*s %*s %*s %1023s %1023s", out->root, out->point) != 2)
        return false;
    return controller ? strcmp(type, "cgroup") == 0 && list_has(options, controller)
                      : strcmp(type, "cgroup2") == 0;
}

static bool mount_find(const char *mountinfo, const char *controller, struct mount *out)
{
    char *text = mem_strdup(mountinfo), *save = NULL;
    bool found = false;
    for (char *line = strtok_r(text, "\n", &save); line && !found;
         line = strtok_r(NULL, "\n", &save))
        found = mount_is(line, controller, out);
    mem_free(text);
    return found;
}

/* "ID:CONTROLLERS:PATH"; version 2 has ID 0 and no controllers. */
static char *group_find(const char *groups, const char *controller)
{
    char *text = mem_strdup(groups), *save = NULL, *found = NULL;
    for (char *line = strtok_r(text, "\n", &save); line && !found;
         line = strtok_r(NULL, "\n", &save)) {
        char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
        if (!path)
            continue;
        *path = '\0';
        if (controller ? list_has(list + 1, controller) : strcmp(line, "0:") == 0)
            found = mem_strdup(path + 1);
    }
    mem_free(text);
    return found;
}

char *cgroup_own_in(const char *mountinfo, const char *groups, const char *controller,
                    bool *out_is_root)
{
    struct mount mount;
    char *own = mount_find(mountinfo, controller, &mount) ? group_find(groups, controller) : NULL;
    if (!own)
        return NULL;
    /* A container may see only a part of the hierarchy: its own group is then the mount's root. */
    size_t skip = strcmp(mount.root, "/") == 0 ? 0 : strlen(mount.root);
    const char *below = skip && strncmp(own, mount.root, skip) == 0 ? own + skip : own;
    *out_is_root = !below[0] || strcmp(below, "/") == 0;
    char *path = mem_printf("%s%s", mount.point, *out_is_root ? "" : below);
    mem_free(own);
    return path;
}

char *cgroup_own(const char *controller, bool *out_is_root)
{
    char *mountinfo = cgroup_read("/proc/self", NULL, "mountinfo");
    char *groups = cgroup_read("/proc/self", NULL, "cgroup");
    char *own = mountinfo && groups ? cgroup_own_in(mountinfo, groups, controller, out_is_root)
                                    : NULL;
    mem_free(mountinfo);
    mem_free(groups);
    return own;
}
