/* configure.c - CONFIGURE messages; see configure.h. */
#include "client/configure.h"

#include "common/base/clock.h"
#include "common/base/parse.h"

#include <string.h>
#include <time.h>

/* "2026-03-01 12:00[:30][Z]", also with T between; "12:00" is today. */
static int calendar_parse(const char *text, uint64_t now_us, uint64_t *out_us)
{
    static const char *const forms[] = {"%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M",
                                        "%Y-%m-%dT%H:%M",    "%Y-%m-%d",          "%H:%M"};
    time_t now = (time_t)(now_us / 1000000);
    for (size_t i = 0; i < ARRAY_COUNT(forms); i++) {
        struct tm tm = {0};
        if (i + 1 == ARRAY_COUNT(forms)) {
            localtime_r(&now, &tm);
            tm.tm_sec = 0;
        }
        const char *end = strptime(text, forms[i], &tm);
        bool utc = end && strcmp(end, "Z") == 0;
        if (!end || (*end && !utc))
            continue;
        tm.tm_isdst = -1;
        time_t at = utc ? timegm(&tm) : mktime(&tm);
        if (at <= 0)
            return -1;
        *out_us = (uint64_t)at * 1000000;
        return 0;
    }
    return -1;
}

int time_parse(const char *text, uint64_t now_us, uint64_t *out_us, struct err *err)
{
    uint64_t ms;
    if (strcmp(text, "now") == 0) {
        *out_us = now_us;
        return 0;
    }
    if (text[0] == '+' && parse_duration_ms(text + 1, &ms, err) == 0 && ms < UINT64_MAX / 4000) {
        *out_us = now_us + ms * 1000;
        return 0;
    }
    if (text[0] != '+' && calendar_parse(text, now_us, out_us) == 0)
        return 0;
    return err_set(
        err, ERR_INVALID,
        "'%.60s' is no point in time, expected now, +DURATION such as +2h, HH:MM (today), "
        "or YYYY-MM-DD HH:MM, with a Z at the end for UTC",
        text);
}

static int value_read(struct client *client, const struct setting_option *row, const char *value,
                      const char **out, struct err *err)
{
    uint64_t number;
    *out = value;
    if (row->kind == SETTING_TEXT || strcmp(value, "none") == 0)
        return 0;
    if (row->kind == SETTING_DURATION && parse_duration_ms(value, &number, err) < 0)
        return -1;
    if (row->kind == SETTING_TIME && time_parse(value, clock_wall_us(), &number, err) < 0)
        return -1;
    *out = arena_printf(&client->arena, "%llu", (unsigned long long)number);
    return 0;
}

int configure_settings(struct client *client, const struct args *args,
                       const struct setting_option *table, size_t count, struct pairs *pairs)
{
    struct err err;
    for (size_t i = 0; i < args->given_count; i++) {
        const struct given *given = &args->given[i];
        for (size_t k = 0; k < count; k++) {
            const char *value;
            if (strcmp(given->option->name, table[k].option) != 0)
                continue;
            if (value_read(client, &table[k], given->value ? given->value : "true", &value, &err) <
                0)
                return client_failf(client, EXIT_USAGE, "option --%s: %s", table[k].option,
                                    err.text);
            pairs_add(pairs, table[k].setting, value);
        }
    }
    return EXIT_DONE;
}

int configure_send(struct client *client, const char *table, const char *action, const char *name,
                   const struct pairs *settings)
{
    struct message request = {.tag = MSG_CONFIGURE}, reply;
    request.u.configure = (struct msg_configure){.table = table,
                                                 .action = action,
                                                 .name = name,
                                                 .settings = settings->items,
                                                 .settings_count = settings->count};
    struct buf out = {0};
    int code = client_ask(client, &request, MSG_DONE, &reply);
    if (code != EXIT_DONE)
        return code;
    text_add_clean(&out, reply.u.done.text, 0);
    buf_putc(&out, '\n');
    code = client_print(client, &out);
    buf_done(&out);
    return code;
}

static int configured_change(struct client *client, const struct args *args,
                             const struct configured *what, const char *action)
{
    struct pairs pairs = {0};
    int code = configure_settings(client, args, what->settings, what->setting_count, &pairs);
    if (code == EXIT_DONE)
        code = configure_send(client, what->kind, action, args->words[1], &pairs);
    pairs_done(&pairs);
    return code;
}

int configured_run(struct client *client, const struct args *args, const struct configured *what)
{
    const char *action = args->word_count ? args->words[0] : "ls";
    bool set = strcmp(action, "set") == 0, remove = strcmp(action, "rm") == 0;
    if ((set || remove) && args->word_count < 2)
        return client_failf(client, EXIT_USAGE, "'%s %s' needs the name of a %s", what->kind,
                            action, what->kind);
    if (set || remove)
        return configured_change(client, args, what, set ? "set" : "remove");
    if (strcmp(action, "ls") != 0)
        return client_failf(client, EXIT_USAGE, "there is no '%s %s', expected ls, set or rm",
                            what->kind, action);
    struct pairs pairs = {0};
    pairs_add(&pairs, "name", args->word_count > 1 ? args->words[1] : NULL);
    int code = client_list(client, what->list, &pairs, UINT32_MAX, what->columns,
                           what->column_count, what->none);
    pairs_done(&pairs);
    return code;
}
