/* status.c - athanor status */
#include "client/client.h"
#include "client/verbs.h"

#include <string.h>

static const struct option options[] = {OPTION_JSON};

static unsigned long long number(const struct msg_table *table, const char *column)
{
    return (unsigned long long)table_u64(table, 0, column);
}

/* Those that do not lead, one a line. */
static void print_standbys(const struct msg_table *others, struct buf *out)
{
    for (size_t i = 0; i < table_rows(others); i++) {
        if (strcmp(table_text(others, i, "state"), "leader") == 0)
            continue;
        buf_printf(out, "%-12s ", table_text(others, i, "state"));
        text_add_clean(out, table_text(others, i, "name"), 0);
        buf_puts(out, " at ");
        text_add_clean(out, table_text(others, i, "endpoints"), 0);
        buf_puts(out, "\n");
    }
}

static void print_status(const struct client *client, const struct msg_table *table,
                         const struct msg_table *others, struct buf *out)
{
    static const struct heading since[] = {{"leader_since", "leads since"}};
    static const struct heading sizes[] = {{"memory_used", "memory used"},
                                           {"memory_bytes", "memory"},
                                           {"database_bytes", "database"}};
    buf_printf(out, "home         %s\n", client->home);
    buf_puts(out, "coordinator  ");
    text_add_clean(out, table_text(table, 0, "leader"), 0);
    buf_printf(out, ", epoch %llu, cluster %llu\n", number(table, "epoch"),
               number(table, "cluster_id"));
    if (!table_is_null(table, 0, "leader_since"))
        table_print_row(table, 0, since, ARRAY_COUNT(since), &client->style, out);
    print_standbys(others, out);
    buf_printf(out, "workers      %llu of %llu ok, %llu drained\n", number(table, "workers_ok"),
               number(table, "workers"), number(table, "workers_drained"));
    buf_printf(out,
               "jobs         %llu running, %llu ready, %llu waiting, %llu in backoff, %llu held\n",
               number(table, "running"), number(table, "ready"), number(table, "waiting"),
               number(table, "backoff"), number(table, "held"));
    if (number(table, "on_lost_nodes"))
        buf_printf(out, "             %s%llu of them on lost nodes, see 'athanor ls --live'%s\n",
                   tint_on(&client->style, TINT_BAD), number(table, "on_lost_nodes"),
                   tint_off(&client->style, TINT_BAD));
    buf_printf(out, "cores        %llu of %llu used\n", number(table, "cores_used"),
               number(table, "cores"));
    if (number(table, "gpus"))
        buf_printf(out, "gpus         %llu of %llu used\n", number(table, "gpus_used"),
                   number(table, "gpus"));
    table_print_row(table, 0, sizes, ARRAY_COUNT(sizes), &client->style, out);
}

static int run(struct client *client, const struct args *args)
{
    struct msg_table table, others = {0};
    struct buf out = {0};
    int code = client_query(client, "status", NULL, 1, &table);
    if (code == EXIT_DONE && !args_has(args, "json"))
        code = client_query(client, "coordinators", NULL, QUERY_ROWS_MAX, &others);
    if (code != EXIT_DONE)
        return code;
    if (args_has(args, "json"))
        table_print_json(&table, &out);
    else if (table_rows(&table) == 0)
        buf_puts(&out, "the coordinator has no state yet\n");
    else
        print_status(client, &table, &others, &out);
    code = client_print(client, &out);
    buf_done(&out);
    return code;
}

const struct verb verb_status = {
    .name = "status",
    .words = "",
    .summary = "the cluster at a glance",
    .text = "Who leads since when and who stands by, how many jobs wait and run, what the workers "
            "offer and what is used.",
    VERB_OPTIONS(options),
    .run = run,
};
