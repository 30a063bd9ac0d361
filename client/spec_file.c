/* spec_file.c - from a file and --set options to a SUBMIT; see spec_file.h. */
#include "client/spec_file.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

/* Splits PATH=VALUE; the '=' was seen while parsing the arguments. */
static struct rec_name_value split_set(struct client *client, const char *text)
{
    const char *equals = strchr(text, '=');
    return (struct rec_name_value){arena_strndup(&client->arena, text, (size_t)(equals - text)),
                                   equals + 1};
}

static void collect_sets(struct client *client, const struct args *args, struct msg_submit *submit)
{
    struct rec_name_value *sets =
        arena_alloc(&client->arena, (args->given_count + 1) * sizeof *sets);
    size_t count = 0;
    for (size_t i = 0; i < args->given_count; i++) {
        const struct given *given = &args->given[i];
        if (strcmp(given->option->name, "set") == 0)
            sets[count++] = split_set(client, given->value);
        else if (strcmp(given->option->name, "experiment") == 0)
            sets[count++] = (struct rec_name_value){"experiment", given->value};
    }
    submit->sets = sets;
    submit->sets_count = count;
}

int spec_file_message(struct client *client, const struct args *args, struct message *out)
{
    const char *name = args->words[0];
    bool input = strcmp(name, "-") == 0;
    char folder[PATH_MAX] = "", *text;
    size_t length;
    struct err err;
    if (file_read(input ? "/dev/stdin" : name, SPEC_BYTES_MAX, &text, &length, &err) < 0) {
        if (!strstr(err.text, name))
            err_wrap(&err, "spec '%s'", name);
        return client_fail(client, EXIT_USAGE, &err);
    }
    *out = (struct message){.tag = MSG_SUBMIT};
    out->u.submit.file = input ? "<stdin>" : arena_strdup(&client->arena, name);
    out->u.submit.yaml = (struct wire_bytes){arena_strndup(&client->arena, text, length), length};
    mem_free(text);
    collect_sets(client, args, &out->u.submit);
    if (getcwd(folder, sizeof folder))
        out->u.submit.folder = arena_strdup(&client->arena, folder);
    return EXIT_DONE;
}
