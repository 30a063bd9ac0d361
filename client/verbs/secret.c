/* secret.c - athanor secret: values that jobs need and nobody else may see. */
#include "client/client.h"
#include "client/verbs.h"
#include "common/net/sealed.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static const struct option options[] = {
    {"exact", 0, VALUE_NONE, NULL, "set: keep a newline at the end of the input", false},
    {"project", 0, VALUE_TEXT, "NAME", "the secret of this project; ls: of this one alone", false},
    {"account", 0, VALUE_TEXT, "NAME", "ls: of this account alone", false},
    OPTION_COLUMN,
    OPTION_JSON,
};

static const struct heading columns[] = {
    {"name", "SECRET"}, {"owner", NULL}, {"set_by", "BY"}, {"set_at", "SET"}};

/* ---- reading a value ------------------------------------------------------------------------ */

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

/* `open`: signals that are let in while we wait, and only then: one that came before is not missed.
 * NULL: input is waited for by reading. */
static ssize_t read_some(unsigned char *bytes, size_t room, const sigset_t *open)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    if (open && ppoll(&input, 1, NULL, open) < 0)
        return -1;
    return read(STDIN_FILENO, bytes, room);
}

/* From a terminal one line, from anything else all there is. One byte more than is allowed fits. */
static int bytes_read(const sigset_t *open, struct clear_value *value, struct err *err)
{
    size_t room = value->length, length = 0;
    while (length < room) {
        ssize_t got = read_some(value->bytes + length, room - length, open);
        if (got < 0 && errno == EINTR && interrupted)
            return err_set(err, ERR_CLOSED, "interrupted, nothing was stored");
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, "read the value from standard input");
        if (got == 0)
            break;
        length += (size_t)got;
        if (open && value->bytes[length - 1] == '\n')
            break;
    }
    value->length = length;
    return 0;
}

/* A signal must not leave the terminal silent: it ends the reading instead of us. */
struct caught {
    struct sigaction actions[4];
    sigset_t open;
};

static const int catchable[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP};

static void signals_catch(struct caught *before)
{
    const struct sigaction ours = {.sa_handler = on_signal};
    sigset_t held;
    sigemptyset(&held);
    for (size_t i = 0; i < ARRAY_COUNT(catchable); i++) {
        sigaddset(&held, catchable[i]);
        sigaction(catchable[i], &ours, &before->actions[i]);
    }
    sigprocmask(SIG_BLOCK, &held, &before->open);
}

static void signals_restore(const struct caught *before)
{
    sigprocmask(SIG_SETMASK, &before->open, NULL);
    for (size_t i = 0; i < ARRAY_COUNT(catchable); i++)
        sigaction(catchable[i], &before->actions[i], NULL);
}

/* What is typed does not appear. */
static int line_read(const char *name, struct clear_value *value, struct err *err)
{
    struct termios before, silent;
    struct caught caught;
    if (tcgetattr(STDIN_FILENO, &before) < 0)
        return err_errno(err, "the terminal");
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    silent.c_lflag |= ECHONL | ICANON;
    signals_catch(&caught);
    int rc = tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent) < 0
                 ? err_errno(err, "turn off the terminal's echo")
                 : 0;
    if (rc == 0) {
        fprintf(stderr, "value of %s (it is not shown): ", name);
        rc = bytes_read(&caught.open, value, err);
    }
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &before) < 0 && rc == 0)
        rc = err_errno(err, "turn on the terminal's echo");
    signals_restore(&caught);
    return rc;
}

static int value_read(const char *name, bool exact, struct clear_value *out, struct err *err)
{
    struct clear_value value;
    if (clear_value_new(SECRET_BYTES_MAX + 2, &value, err) < 0)
        return -1;
    int rc = isatty(STDIN_FILENO) ? line_read(name, &value, err) : bytes_read(NULL, &value, err);
    if (rc == 0 && !exact && value.length > 0 && value.bytes[value.length - 1] == '\n')
        value.length--;
    if (rc == 0 && (value.length == 0 || value.length > SECRET_BYTES_MAX))
        rc = err_set(err, ERR_INVALID, "the value is %s, expected 1 to %u bytes of standard input",
                     value.length ? "too long" : "empty", SECRET_BYTES_MAX);
    if (rc < 0)
        clear_value_done(&value);
    else
        *out = value;
    return rc;
}

/* ---- what can be done ----------------------------------------------------------------------- */

static int change(struct client *client, const struct msg_secret_change *change)
{
    struct message request = {.tag = MSG_SECRET_CHANGE, .u.secret_change = *change}, reply;
    return client_ask(client, &request, MSG_DONE, &reply);
}

static const char *project_of(const struct args *args)
{
    const char *project = args_text(args, "project");
    return project ? project : "";
}

/* It leaves this process only in a box that the coordinators can open. */
static int set(struct client *client, const struct args *args, const char *name)
{
    char key[KEY_TEXT_SIZE];
    struct clear_value value;
    struct buf box = {0};
    struct err err;
    if (client_server_key(client, key, &err) < 0)
        return client_fail(client, EXIT_LOCAL, &err);
    if (value_read(name, args_has(args, "exact"), &value, &err) < 0)
        return client_fail(client, EXIT_USAGE, &err);
    int rc = sealed_make(key, &value, &box, &err);
    clear_value_done(&value);
    int code = rc < 0 ? client_fail(client, EXIT_LOCAL, &err)
                      : change(client, &(struct msg_secret_change){
                                           .action = "set",
                                           .name = name,
                                           .sealed = {box.bytes, box.length},
                                           .project = project_of(args)});
    buf_done(&box);
    return code;
}

static int list(struct client *client, const struct args *args)
{
    struct pairs pairs = {0};
    pairs_add(&pairs, "account", args_text(args, "account"));
    pairs_add(&pairs, "project", args_text(args, "project"));
    int code = client_list(client, "secrets", &pairs, UINT32_MAX, columns, ARRAY_COUNT(columns),
                           "no secrets");
    pairs_done(&pairs);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    const char *action = args->words[0], *project = args_text(args, "project");
    if (project && !*project)
        return client_failf(client, EXIT_USAGE, "--project is empty, expected a project's name");
    if (strcmp(action, "ls") == 0 && args->word_count == 1)
        return list(client, args);
    if (strcmp(action, "set") == 0 && args->word_count == 2)
        return set(client, args, args->words[1]);
    if (strcmp(action, "rm") == 0 && args->word_count == 2)
        return change(client, &(struct msg_secret_change){.action = "remove",
                                                          .name = args->words[1],
                                                          .project = project_of(args)});
    return client_failf(client, EXIT_USAGE,
                        "expected: athanor secret set NAME, secret ls, or secret rm NAME");
}

const struct verb verb_secret = {
    .name = "secret",
    .words = "set NAME | ls | rm NAME",
    .summary = "tokens and passwords that your jobs, or a project's, read",
    .text =
        "`set NAME` reads the value from standard input, or from the terminal without showing it, "
        "and stores it encrypted, in place of an earlier one; at most 16 KiB. A job of yours whose "
        "spec says `secrets: {HF_TOKEN: NAME}` can read it, in each rank, from the descriptor "
        "whose number is in ATHANOR_SECRET_HF_TOKEN_FD:\n\n"
        "HF_TOKEN=$(cat /dev/fd/$ATHANOR_SECRET_HF_TOKEN_FD)\n\n"
        "The value is in no environment, argument, file or log, cannot be shown again, and is the "
        "one of the moment when an attempt starts: set it anew, and the next attempt has it. "
        "A secret belongs to one account, and other accounts cannot name it; with --project P it "
        "belongs to project P, and every job that is submitted there can name it. Of two with one "
        "name a job reads that of its account, not that of its project. Those of a project are "
        "set and removed by operators and, unless it is open to everybody, by its members; nobody "
        "can show them, but who may submit there may run a job that reads them. A job of "
        "somebody who may not submit there any more gets none of them. `ls` shows all names, and "
        "whose they are.",
    .choices = "set ls rm",
    .words_min = 1,
    .words_max = 2,
    VERB_OPTIONS(options),
    .run = run,
};
