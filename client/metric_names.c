/* metric_names.c - see metric_names.h. */
#include "client/metric_names.h"

#include <string.h>

#define NAMES_TOLD 40u /* of those that exist, in a refusal */

static bool table_has(const struct msg_table *table, const char *name)
{
    for (size_t row = 0; row < table_rows(table); row++)
        if (strcmp(table_text(table, row, "name"), name) == 0)
            return true;
    return false;
}

static int refuse(struct client *client, const char *job, const struct msg_table *known,
                  const char *name)
{
    struct buf text = {0};
    size_t count = table_rows(known);
    for (size_t row = 0; row < count && row < NAMES_TOLD; row++)
        buf_printf(&text, "%s%s", row ? ", " : "", table_text(known, row, "name"));
    if (count > NAMES_TOLD)
        buf_printf(&text, " and %zu more", count - NAMES_TOLD);
    int code = count == 0
                   ? client_failf(client, EXIT_REFUSED, "job '%s' has reported no metrics yet", job)
                   : client_failf(client, EXIT_REFUSED, "job '%s' has no metric '%s', it has %s",
                                  job, name, buf_text(&text));
    buf_done(&text);
    return code;
}

int metric_names_check(struct client *client, const char *job, const char *id,
                       const char *const *names, size_t count)
{
    struct pairs pairs = {0};
    struct msg_table known;
    if (count == 0)
        return EXIT_DONE;
    pairs_add(&pairs, "job", id);
    int code = client_query(client, "metric_names", &pairs, UINT32_MAX, &known);
    pairs_done(&pairs);
    for (size_t i = 0; i < count && code == EXIT_DONE; i++)
        if (!table_has(&known, names[i]))
            code = refuse(client, job, &known, names[i]);
    return code;
}

const char *metric_names_join(struct client *client, const char *const *names, size_t count)
{
    const char *joined = "";
    for (size_t i = 0; i < count; i++)
        joined = arena_printf(&client->arena, "%s%s%s", joined, i ? "," : "", names[i]);
    return joined;
}
