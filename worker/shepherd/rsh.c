/* rsh.c - athanor-rsh: what mpirun calls in place of ssh, and what each of its ranks begins as.
 *
 *   athanor-rsh HOST WORD...          runs the words on HOST through the shepherds, ends as they do
 *   athanor-rsh --rank -- PROGRAM...  becomes a rank: cores, GPUs, variables, output; see mpirun.h
 *
 * Small, and links nothing but libc and JSON: it runs once for each rank. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

#define SET_PREFIX "ATHANOR_SET_"
#define CPUS_MAX    4096 /* PLAN_CPUS_MAX */
#define SECRETS_MAX 32   /* PLAN_SECRETS_MAX */

static int failed(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int failed(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("athanor-rsh: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return 255; /* as ssh does */
}

/* ---- a rank ---------------------------------------------------------------------------------- */

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

/* The part of "a;b;c" that is this rank's. */
static char *share_of(const char *name, unsigned local)
{
    const char *at = variable(name);
    for (; local > 0 && *at; local--)
        at += strcspn(at, ";") + (at[strcspn(at, ";")] == ';');
    return strndup(at, strcspn(at, ";"));
}

/* mpirun gives its own settings to all nodes, so those of a node travel under another name. */
static void settings_unpack(void)
{
    char *found[256];
    size_t count = 0;
    for (char **item = environ; *item && count < 256; item++)
        if (strncmp(*item, SET_PREFIX, strlen(SET_PREFIX)) == 0)
            found[count++] = *item;
    for (size_t i = 0; i < count; i++)
        putenv(found[i] + strlen(SET_PREFIX)); /* stays valid: nothing frees the first environ */
}

/* As set_gpus of environment.c. */
static void rank_gpus(const char *gpus)
{
    char numbers[4 * 64] = "";
    bool amd = strcmp(variable("ATHANOR_GPU_KIND"), "amd") == 0;
    setenv("CUDA_VISIBLE_DEVICES", gpus, 1);
    if (!amd)
        return;
    size_t length = 0, count = *gpus ? 1 : 0;
    for (const char *at = gpus; *at; at++)
        count += *at == ',';
    for (size_t i = 0; i < count && length + 4 < sizeof numbers; i++)
        length += (size_t)snprintf(numbers + length, sizeof numbers - length, "%s%zu",
                                   i ? "," : "", i);
    setenv("ROCR_VISIBLE_DEVICES", count ? gpus : "-1", 1);
    setenv("HIP_VISIBLE_DEVICES", count ? numbers : "-1", 1);
    setenv("CUDA_VISIBLE_DEVICES", numbers, 1);
}

static void rank_variables(unsigned local)
{
    static const char *const pairs[][2] = {{"RANK", "OMPI_COMM_WORLD_RANK"},
                                           {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"},
                                           {"LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"},
                                           {"LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        setenv(pairs[i][0], variable(pairs[i][1]), 1);
    char *gpus = share_of("ATHANOR_RANK_GPUS", local);
    rank_gpus(gpus ? gpus : "");
    free(gpus);
}

static int rank_bind(unsigned local)
{
    cpu_set_t set[CPUS_MAX / CPU_SETSIZE];
    char *cpus = share_of("ATHANOR_RANK_CPUS", local), *save = NULL;
    bool any = false;
    CPU_ZERO_S(sizeof set, set);
    for (char *at = cpus ? strtok_r(cpus, ",", &save) : NULL; at; at = strtok_r(NULL, ",", &save)) {
        CPU_SET_S((size_t)atoi(at), sizeof set, set);
        any = true;
    }
    free(cpus);
    if (any && sched_setaffinity(0, sizeof set, set) < 0)
        return failed("bind to the assigned cores: %s", strerror(errno));
    return 0;
}

static int output_connect(const char *folder, const char *name, unsigned local, int fd)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/.%s.%u", folder, name, local);
    int pipe = open(path, O_WRONLY | O_CLOEXEC);
    if (pipe < 0 || dup2(pipe, fd) < 0)
        return failed("connect output to '%s': %s", path, strerror(errno));
    close(pipe);
    return 0;
}

static int pid_note(const char *folder, unsigned local)
{
    char path[4096], made[4096 + 8];
    snprintf(path, sizeof path, "%s/.pid.%u", folder, local);
    snprintf(made, sizeof made, "%s.new", path);
    FILE *file = fopen(made, "w");
    if (!file || fprintf(file, "%d", (int)getpid()) < 0 || fclose(file) != 0 ||
        rename(made, path) < 0)
        return failed("write '%s': %s", path, strerror(errno));
    return 0;
}

/* Names from the shepherd, one a line, and a descriptor for each: inherited by the program. */
static int secrets_receive(int fd)
{
    char names[SECRETS_MAX * 128], *save = NULL;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * SECRETS_MAX)];
    } control;
    struct iovec part = {names, sizeof names - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    ssize_t got = recvmsg(fd, &message, 0);
    struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!header || header->cmsg_type != SCM_RIGHTS)
        return failed("the shepherd did not hand over the job's secrets");
    int fds[SECRETS_MAX];
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof *fds, i = 0;
    memcpy(fds, CMSG_DATA(header), count * sizeof *fds);
    names[got] = '\0';
    for (char *name = strtok_r(names, "\n", &save); name && i < count;
         name = strtok_r(NULL, "\n", &save)) {
        char variable[160], number[16];
        snprintf(variable, sizeof variable, "ATHANOR_SECRET_%s_FD", name);
        snprintf(number, sizeof number, "%d", fds[i++]);
        setenv(variable, number, 1);
    }
    return 0;
}

static int secrets_fetch(const char *folder)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path, sizeof address.sun_path, "%s/.secrets", folder);
    if (length < 0 || (size_t)length >= sizeof address.sun_path ||
        access(address.sun_path, F_OK) < 0)
        return 0; /* the job has none */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return failed("connect to '%s': %s", address.sun_path, strerror(errno));
    int rc = secrets_receive(fd);
    close(fd);
    return rc;
}

static int rank_become(char **program)
{
    const char *folder = variable("TMPDIR"), *number = variable("OMPI_COMM_WORLD_LOCAL_RANK");
    if (!*number || !*program)
        return failed("--rank is for mpirun: 'launcher: mpirun' in a job's spec");
    unsigned local = (unsigned)atoi(number);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing stays behind when mpirun or orted is killed */
    settings_unpack();
    rank_variables(local);
    int rc = rank_bind(local);
    if (rc == 0)
        rc = pid_note(folder, local);
    if (rc == 0)
        rc = output_connect(folder, "out", local, STDOUT_FILENO);
    if (rc == 0)
        rc = output_connect(folder, "err", local, STDERR_FILENO);
    if (rc == 0)
        rc = secrets_fetch(folder);
    if (rc != 0)
        return rc;
    execvp(program[0], program);
    failed("run '%s': %s", program[0], strerror(errno));
    return 127;
}

/* ---- in place of ssh ------------------------------------------------------------------------- */

static char *joined(char **words)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    for (char **word = words; out && *word; word++)
        fprintf(out, "%s%s", word == words ? "" : " ", *word);
    if (out)
        fclose(out);
    return text;
}

static int shepherd_connect(FILE **out)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = variable("ATHANOR_LAUNCH");
    if (!*path || strlen(path) >= sizeof address.sun_path)
        return failed("ATHANOR_LAUNCH names no socket: this program is for 'launcher: mpirun'");
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return failed("connect to the shepherd at '%s': %s", path, strerror(errno));
    *out = fdopen(fd, "r+");
    return *out ? 0 : failed("%s", strerror(errno));
}

static int request_send(FILE *shepherd, const char *host, char **words)
{
    char *text = joined(words);
    json_t *root = text ? json_pack("{s:s, s:s}", "host", host, "words", text) : NULL;
    free(text);
    if (!root)
        return failed("the words for '%s' are no text", host);
    char *line = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    bool sent = line && fprintf(shepherd, "%s\n", line) > 0 && fflush(shepherd) == 0;
    free(line);
    return sent ? 0 : failed("ask the shepherd: %s", strerror(errno));
}

/* Returns whether the line is about our host; then *out_code is how to end. */
static bool answer_read(const char *line, unsigned node, const char *host, int *out_code)
{
    json_t *root = json_loads(line, 0, NULL);
    const char *refused = json_string_value(json_object_get(root, "refused"));
    const char *text = json_string_value(json_object_get(root, "text"));
    const json_t *number = json_object_get(root, "node");
    bool ours = refused || (json_is_integer(number) && json_integer_value(number) == node);
    if (refused)
        *out_code = failed("%s: %s", host, refused);
    else if (ours && json_is_true(json_object_get(root, "ok")))
        *out_code = atoi(text ? text : "255");
    else if (ours)
        *out_code = failed("%s: %s", host, text ? text : "");
    json_decref(root);
    return ours;
}

static int run_there(const char *host, char **words)
{
    FILE *shepherd;
    unsigned node = 0;
    char *line = NULL;
    size_t size = 0;
    int code = shepherd_connect(&shepherd);
    if (code != 0)
        return code;
    sscanf(host, "node-%u-", &node); /* what is no node of ours is refused by the shepherd */
    code = request_send(shepherd, host, words);
    bool ended = code != 0;
    while (!ended && getline(&line, &size, shepherd) > 0)
        ended = answer_read(line, node, host, &code);
    if (!ended)
        code = failed("%s: the shepherd has ended", host);
    free(line);
    fclose(shepherd);
    return code;
}

int main(int count, char **arguments)
{
    if (count >= 4 && strcmp(arguments[1], "--rank") == 0 && strcmp(arguments[2], "--") == 0)
        return rank_become(arguments + 3);
    if (count >= 3 && arguments[1][0] != '-')
        return run_there(arguments[1], arguments + 2);
    fputs("usage: athanor-rsh HOST WORD...\n"
          "       athanor-rsh --rank -- PROGRAM [ARGUMENT...]\n"
          "Used by mpirun in jobs with 'launcher: mpirun'; of no use by hand.\n",
          stderr);
    return 2;
}
