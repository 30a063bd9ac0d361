/* sql.c - athanor sql */
#include "client/client.h"
#include "client/conninfo.h"
#include "client/home.h"
#include "client/postgres.h"
#include "client/verbs.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct option options[] = {
    {"write", 0, VALUE_NONE, NULL, "let statements change rows (default: a read-only session)",
     false},
};

/* psql NAME... -d CONNINFO ARGUMENT...; a first word that is no option is SQL. */
static char **psql_arguments(struct client *client, const struct args *args, const char *conninfo)
{
    char **argv = arena_alloc(&client->arena, (args->word_count + 6) * sizeof *argv);
    size_t count = 0;
    argv[count++] = arena_strdup(&client->arena, "psql");
    argv[count++] = arena_strdup(&client->arena, "-d");
    argv[count++] = arena_strdup(&client->arena, conninfo);
    if (args->word_count && args->words[0][0] != '-')
        argv[count++] = arena_strdup(&client->arena, "-c");
    for (size_t i = 0; i < args->word_count; i++)
        argv[count++] = arena_strdup(&client->arena, args->words[i]);
    return argv;
}

static int run(struct client *client, const struct args *args)
{
    const char *conninfo, *password, *program, *before = getenv("PGOPTIONS");
    struct err err;
    if (home_conninfo(&client->arena, client->home, &conninfo, &err) < 0) {
        err_wrap(&err, "no database is known here: run 'athanor up', or set ATHANOR_DB");
        return client_fail(client, EXIT_UNREACHABLE, &err);
    }
    if (conninfo_split(&client->arena, conninfo, &conninfo, &password, &err) < 0)
        return client_fail(client, EXIT_USAGE, &err);
    if (postgres_program(&client->arena, "psql", &program, &err) < 0)
        return client_fail(client, EXIT_LOCAL, &err);
    const char *settings =
        arena_printf(&client->arena, "%s -c search_path=athanor,public%s", before ? before : "",
                     args_has(args, "write") ? "" : " -c default_transaction_read_only=on");
    if (setenv("PGOPTIONS", settings, 1) < 0)
        return client_failf(client, EXIT_LOCAL, "setting PGOPTIONS: %s", strerror(errno));
    if (password && setenv("PGPASSWORD", password, 1) < 0)
        return client_failf(client, EXIT_LOCAL, "setting PGPASSWORD: %s", strerror(errno));
    execv(program, psql_arguments(client, args, conninfo));
    return client_failf(client, EXIT_LOCAL, "starting '%s': %s", program, strerror(errno));
}

const struct verb verb_sql = {
    .name = "sql",
    .words = "[SQL | -- PSQL-ARGUMENT...]",
    .summary = "open psql on the results",
    .text =
        "Runs psql on the cluster's database; what follows '--' goes to psql: athanor sql -- -At "
        "-c 'SELECT * FROM athanor.jobs'. A single word is SQL: athanor sql 'TABLE "
        "athanor.best_metrics'. '\\dv+ athanor.*' in psql lists the views with their "
        "explanations.\n\nThe database is ATHANOR_DB, else the one that 'athanor up' started. Its "
        "password, if it has one, does not show in 'ps'.",
    .words_max = UINT_MAX,
    VERB_OPTIONS(options),
    .run = run,
};
