/* health.c - see health.h.
 *
 * Checks know nothing of the cluster: what they print and how they end is all they say, and the
 * daemon passes it on. They run with a plain environment and the daemon's rights, never two at a
 * time. A directory that cannot be read is itself a failing check. */
#include "worker/daemon/health.h"

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/daemon/hook.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_AGAIN_MS 10000u /* at least between the beginnings of rounds */
#define ENVIRON_MAX   4u

struct check {
    char *name, *text;
    enum hook_status status; /* 0: has not ended yet */
    int code;
    uint64_t ran_at_us, took_ms;
};

struct health {
    struct health_config config;
    struct loop_timer timer;
    uint64_t began_ms;
    struct hook *hook; /* of the check that runs */
    struct check *checks; /* of this round; those before `at` have ended */
    size_t count, at;
    char *told; /* verdicts as one text, to see a change; NULL: nothing was told yet */
    char *environment[ENVIRON_MAX];
};

static void checks_free(struct health *health)
{
    for (size_t i = 0; i < health->count; i++) {
        mem_free(health->checks[i].name);
        mem_free(health->checks[i].text);
    }
    mem_free(health->checks);
    health->checks = NULL;
    health->count = health->at = 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct check *)a)->name, ((const struct check *)b)->name);
}

static bool is_check(const char *folder, const char *name)
{
    struct stat info;
    char *path = mem_printf("%s/%s", folder, name);
    bool is = name[0] != '.' && stat(path, &info) == 0 && S_ISREG(info.st_mode) &&
              access(path, X_OK) == 0;
    mem_free(path);
    return is;
}

static void check_add(struct health *health, const char *name)
{
    if (health->count == HEALTH_CHECKS_MAX)
        return;
    if (!health->checks)
        health->checks = mem_array(HEALTH_CHECKS_MAX, sizeof *health->checks);
    health->checks[health->count++] = (struct check){.name = mem_strdup(name)};
}

static void folder_unreadable(struct health *health)
{
    check_add(health, "health");
    health->checks[0].status = HOOK_ERROR;
    health->checks[0].text = mem_printf("open '%s': %s", health->config.folder, strerror(errno));
    health->checks[0].ran_at_us = clock_wall_us();
    health->at = 1;
}

static void checks_find(struct health *health)
{
    DIR *dir = opendir(health->config.folder);
    checks_free(health);
    if (!dir) {
        folder_unreadable(health);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir));)
        if (is_check(health->config.folder, entry->d_name))
            check_add(health, entry->d_name);
    closedir(dir);
    if (health->count)
        qsort(health->checks, health->count, sizeof *health->checks, by_name);
}

/* ---- the end of a round ---------------------------------------------------------------------- */

static char *failing_text(const struct health *health)
{
    struct buf text = {0};
    for (size_t i = 0; i < health->count; i++) {
        const struct check *check = &health->checks[i];
        struct hook_result result = {check->status, check->code, check->text, 0, check->took_ms};
        if (check->status == HOOK_OK)
            continue;
        char *how = hook_text(&result);
        buf_printf(&text, "%s%s %s", text.length ? "; " : "", check->name, how);
        mem_free(how);
    }
    return text.length ? buf_take(&text) : mem_strdup("");
}

static void round_end(struct health *health)
{
    struct buf verdicts = {0};
    for (size_t i = 0; i < health->count; i++)
        buf_printf(&verdicts, "%s %d %d\n", health->checks[i].name, health->checks[i].status,
                   health->checks[i].code);
    bool changed = !health->told || strcmp(health->told, buf_text(&verdicts)) != 0;
    mem_free(health->told);
    health->told = mem_strdup(buf_text(&verdicts));
    buf_done(&verdicts);
    loop_timer_start(health->config.loop, &health->timer, health->config.every_ms);
    if (!changed)
        return;
    char *text = failing_text(health);
    health->config.on_change(health->config.user, text);
    mem_free(text);
}

static void check_next(struct health *health);

static void on_end(void *user, const struct hook_result *result)
{
    struct health *health = user;
    struct check *check = &health->checks[health->at++];
    health->hook = NULL;
    check->status = result->status;
    check->code = result->code;
    check->text = mem_strdup(result->text);
    check->ran_at_us = result->ran_at_us;
    check->took_ms = result->took_ms;
    check_next(health);
}

static void check_next(struct health *health)
{
    if (health->at == health->count) {
        round_end(health);
        return;
    }
    char *program =
        mem_printf("%s/%s", health->config.folder, health->checks[health->at].name);
    struct hook_config config = {.loop = health->config.loop,
                                 .program = program,
                                 .environment = health->environment,
                                 .timeout_ms = health->config.timeout_ms,
                                 .on_end = on_end,
                                 .user = health};
    health->hook = hook_start(&config);
    mem_free(program);
}

static void round_begin(void *user)
{
    struct health *health = user;
    loop_timer_stop(&health->timer);
    health->began_ms = clock_steady_ms();
    checks_find(health);
    check_next(health);
}

/* ---- from outside ---------------------------------------------------------------------------- */

struct health *health_new(const struct health_config *config)
{
    if (!config->folder[0])
        return NULL;
    struct health *health = mem_zalloc(sizeof *health);
    health->config = *config;
    health->environment[0] = mem_strdup("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:"
                                        "/sbin:/bin");
    health->environment[1] = mem_strdup("ATHANOR_HOOK=health");
    health->environment[2] = mem_printf("ATHANOR_WORKER=%s", config->worker);
    health->timer = (struct loop_timer){.fire = round_begin, .user = health};
    loop_timer_start(config->loop, &health->timer, 0);
    return health;
}

void health_free(struct health *health)
{
    if (!health)
        return;
    hook_cancel(health->hook);
    loop_timer_stop(&health->timer);
    checks_free(health);
    for (size_t i = 0; i < ENVIRON_MAX; i++)
        mem_free(health->environment[i]);
    mem_free(health->told);
    mem_free(health);
}

void health_look(struct health *health)
{
    if (!health || health->hook)
        return;
    uint64_t since_ms = clock_steady_ms() - health->began_ms;
    if (since_ms >= min_u64(LOOK_AGAIN_MS, health->config.every_ms))
        loop_timer_start(health->config.loop, &health->timer, 0);
}

struct rec_health_check *health_checks(const struct health *health, struct arena *arena,
                                       size_t *out_count)
{
    *out_count = 0;
    if (!health)
        return NULL;
    struct rec_health_check *list = arena_alloc(arena, (health->count + 1) * sizeof *list);
    for (size_t i = 0; i < health->at; i++) {
        const struct check *check = &health->checks[i];
        list[(*out_count)++] = (struct rec_health_check){.name = check->name,
                                                         .status = hook_status_name(check->status),
                                                         .code = check->code,
                                                         .text = check->text,
                                                         .ran_at_us = check->ran_at_us,
                                                         .took_ms = check->took_ms};
    }
    return list;
}
