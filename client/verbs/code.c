/* code.c - athanor code: what jobs run, and what a snapshot of a folder would hold. */
#include "client/code.h"
#include "client/verbs.h"
#include "common/base/file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct option options[] = {
    {"hash", 0, VALUE_NONE, NULL, "JOB is the hash of an archive, in hexadecimal", false},
    OPTION_JSON};

static int list_folder(struct client *client, const char *folder)
{
    int fd = -1, code = code_pack(client, folder, &fd);
    if (code != EXIT_DONE)
        return code;
    code = code_print(client, fd);
    close(fd);
    return code;
}

static int fetch(struct client *client, const struct args *args, const char *job, int *out_fd)
{
    const char *hex = job;
    int code = args_has(args, "hash") ? EXIT_DONE : code_of_job(client, job, &hex);
    return code == EXIT_DONE ? code_fetch(client, hex, out_fd) : code;
}

static int show_job(struct client *client, const struct args *args, const char *job)
{
    int fd = -1, code = fetch(client, args, job, &fd);
    if (code != EXIT_DONE)
        return code;
    code = code_print(client, fd);
    close(fd);
    return code;
}

/* Into a folder that is not there yet: nothing is ever written over, and a failure leaves none. */
static int get_into(struct client *client, int fd, const char *folder)
{
    struct snapshot_counts counts;
    struct buf out = {0};
    struct err err, trouble;
    if (mkdir(folder, 0755) < 0) {
        err_errno(&err, "make the folder '%s'", folder);
        return client_fail(client, EXIT_LOCAL, &err);
    }
    if (snapshot_extract(fd, folder, false, &counts, &err) < 0) {
        if (file_remove_tree(folder, &trouble) < 0)
            err_wrap(&err, "%s", trouble.text);
        return client_fail(client, EXIT_LOCAL, &err);
    }
    if (client_for_people(client))
        buf_printf(&out, "%zu files in %s\n", counts.files, folder);
    int code = client_print(client, &out);
    buf_done(&out);
    return code;
}

static int get(struct client *client, const struct args *args, const char *job, const char *folder)
{
    int fd = -1, code = fetch(client, args, job, &fd);
    if (code != EXIT_DONE)
        return code;
    code = get_into(client, fd, folder);
    close(fd);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    const char *action = args->words[0];
    if (strcmp(action, "list") == 0 && args->word_count == 2)
        return list_folder(client, args->words[1]);
    if (strcmp(action, "show") == 0 && args->word_count == 2)
        return show_job(client, args, args->words[1]);
    if (strcmp(action, "get") == 0 && args->word_count == 3)
        return get(client, args, args->words[1], args->words[2]);
    return client_failf(client, EXIT_USAGE,
                        "expected: athanor code show JOB, code get JOB DIR, or code list DIR");
}

const struct verb verb_code = {
    .name = "code",
    .words = "show JOB | get JOB DIR | list DIR",
    .summary = "the code that a job runs, and what a snapshot of a folder holds",
    .text = "A job with code: {snapshot: DIR} in its spec runs the files of DIR as they were when "
            "it was submitted, whatever becomes of them while it waits. `show JOB` lists them with "
            "the hash of the archive; `get JOB DIR` writes them into DIR, a new folder; `list DIR` "
            "prints what a snapshot of DIR would hold: its files without .git and what .gitignore "
            "names, at most 64 MiB.",
    .choices = "show get list",
    .word_kind = WORD_FILE,
    .words_min = 2,
    .words_max = 3,
    VERB_OPTIONS(options),
    .run = run,
};
