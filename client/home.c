/* home.c - the directory of a cluster; see home.h. */
#include "client/home.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALL_FILE_BYTES 65536u

static const char *absolute(struct arena *arena, const char *path)
{
    char folder[PATH_MAX];
    if (*path == '/' || !getcwd(folder, sizeof folder))
        return arena_strdup(arena, path);
    return arena_printf(arena, "%s/%s", folder, path);
}

static const char *from_environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

int home_find(struct arena *arena, const char *given, const char **out, struct err *err)
{
    const char *home = given ? given : from_environment("ATHANOR_HOME");
    const char *state = from_environment("XDG_STATE_HOME"), *user_home = from_environment("HOME");
    if (home)
        *out = absolute(arena, home);
    else if (state)
        *out = arena_printf(arena, "%s/athanor", absolute(arena, state));
    else if (geteuid() == 0) /* the account postgres cannot enter /root */
        *out = "/var/lib/athanor";
    else if (user_home)
        *out = arena_printf(arena, "%s/.local/state/athanor", absolute(arena, user_home));
    else
        return err_set(err, ERR_INVALID,
                       "neither ATHANOR_HOME nor HOME is set: where is the cluster?");
    return 0;
}

int home_programs(struct arena *arena, const char **out, struct err *err)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0)
        return err_errno(err, "finding this program's directory");
    path[length] = '\0';
    *strrchr(path, '/') = '\0';
    *out = arena_strdup(arena, path);
    return 0;
}

static int small_file(struct arena *arena, const char *path, char **out, struct err *err)
{
    char *text;
    size_t length;
    if (file_read(path, SMALL_FILE_BYTES, &text, &length, err) < 0)
        return -1;
    *out = arena_strndup(arena, text, length);
    mem_free(text);
    return 0;
}

int home_endpoints_split(struct arena *arena, const char *text, const char **out, size_t *count,
                         struct err *err)
{
    char *copy = arena_strdup(arena, text), *save = NULL;
    for (char *part = strtok_r(copy, ", \n", &save); part; part = strtok_r(NULL, ", \n", &save)) {
        if (*count == HOME_ENDPOINTS_MAX)
            return err_set(err, ERR_LIMIT, "more than %u endpoints", HOME_ENDPOINTS_MAX);
        out[(*count)++] = part;
    }
    return 0;
}

int home_endpoints(struct arena *arena, const char *home, const char **out, size_t *out_count,
                   struct err *err)
{
    char *text;
    size_t count = 0;
    if (small_file(arena, arena_printf(arena, "%s/endpoints", home), &text, err) < 0)
        return -1;
    if (home_endpoints_split(arena, text, out, &count, err) < 0)
        return -1;
    if (count == 0)
        return err_set(err, ERR_NOT_FOUND, "'%s/endpoints' is empty", home);
    *out_count = count;
    return 0;
}

int home_conninfo(struct arena *arena, const char *home, const char **out, struct err *err)
{
    const char *given = from_environment("ATHANOR_DB");
    char *text;
    if (given) {
        *out = given;
        return 0;
    }
    if (small_file(arena, arena_printf(arena, "%s/conninfo", home), &text, err) < 0)
        return -1;
    text[strcspn(text, "\n")] = '\0';
    *out = text;
    return 0;
}

const char *home_user(struct arena *arena)
{
    const struct passwd *entry = getpwuid(geteuid());
    return entry ? arena_strdup(arena, entry->pw_name)
                 : arena_printf(arena, "uid-%u", (unsigned)geteuid());
}
