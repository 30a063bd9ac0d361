/* courier.c - see courier.h. */
#include "coordinator/shell/courier.h"

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "coordinator/store/notices.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOK_MS          1000
#define SECRET_BYTES_MAX 1024u
#define WORDS_MAX        32u

extern char **environ;

struct courier {
    struct courier_config config;
    char *secret; /* NULL: none */
    size_t secret_length;
    struct notices *notices;
    pthread_t thread;
    atomic_bool stop;
    char said[1000]; /* trouble that the log has */
};

/* ---- webhooks ------------------------------------------------------------------------------- */

static bool is_near_v4(uint32_t address)
{
    uint32_t top = address >> 24;

    return top == 127 || top == 0 || (address >> 16) == 0xa9fe; /* loopback, this host, link */
}

static bool is_near(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return is_near_v4(
            ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr));
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(v6)) {
        uint32_t v4;
        memcpy(&v4, v6->s6_addr + 12, sizeof v4);
        return is_near_v4(ntohl(v4));
    }
    return IN6_IS_ADDR_LOOPBACK(v6) || IN6_IS_ADDR_UNSPECIFIED(v6) || IN6_IS_ADDR_LINKLOCAL(v6);
}

/* After the name was resolved: names that mean this machine do not get around it. */
static curl_socket_t socket_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    const struct courier *courier = user;

    (void)purpose;
    if (courier->config.allowed_count == 0 && is_near(&address->addr))
        return CURL_SOCKET_BAD;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static bool host_is_allowed(const struct courier *courier, const char *url)
{
    CURLU *parts = curl_url();
    char *host = NULL, *port = NULL;
    bool found = courier->config.allowed_count == 0;

    if (parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK) {
        char *both = mem_printf("%s:%s", host, port);
        for (size_t i = 0; i < courier->config.allowed_count; i++)
            found = found || strcasecmp(courier->config.allowed[i], host) == 0 ||
                    strcasecmp(courier->config.allowed[i], both) == 0;
        mem_free(both);
    } else {
        found = false;
    }
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parts);
    return found;
}

static char *signature_of(const struct courier *courier, const char *body)
{
    unsigned char mac[crypto_auth_hmacsha256_BYTES];
    char hex[2 * sizeof mac + 1];
    crypto_auth_hmacsha256_state state;

    crypto_auth_hmacsha256_init(&state, (const unsigned char *)courier->secret,
                                courier->secret_length);
    crypto_auth_hmacsha256_update(&state, (const unsigned char *)body, strlen(body));
    crypto_auth_hmacsha256_final(&state, mac);
    sodium_bin2hex(hex, sizeof hex, mac, sizeof mac);
    return mem_printf("Athanor-Signature: sha256=%s", hex);
}

static size_t answer_ignored(char *bytes, size_t size, size_t count, void *user)
{
    (void)bytes, (void)user;
    return size * count;
}

static struct curl_slist *headers_of(const struct courier *courier, const struct notice *notice)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    char *key = mem_printf("Idempotency-Key: %" PRIu64 "-%s", courier->config.cluster_id,
                           notice->id);
    char *signature = courier->secret ? signature_of(courier, notice->payload) : NULL;

    headers = curl_slist_append(headers, key);
    if (signature)
        headers = curl_slist_append(headers, signature);
    mem_free(signature);
    mem_free(key);
    return headers;
}

static int post(const struct courier *courier, const struct notice *notice, struct err *err)
{
    char why[CURL_ERROR_SIZE] = "";
    long status = 0;
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = headers_of(courier, notice);

    CHECK(curl && headers);
    curl_easy_setopt(curl, CURLOPT_URL, notice->target);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* the allow-list speaks of who is reached */
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)COURIER_SEND_MS);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, notice->payload);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "athanor");
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, answer_ignored);
    curl_easy_setopt(curl, CURLOPT_MAXFILESIZE, 1048576L);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, socket_open);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, courier);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    if (code != CURLE_OK)
        return err_set(err, ERR_IO, "%s", *why ? why : curl_easy_strerror(code));
    return status >= 200 && status < 300 ? 0 : err_set(err, ERR_IO, "answered %ld", status);
}

static int send_webhook(const struct courier *courier, const struct notice *notice,
                        struct err *err)
{
    if (!host_is_allowed(courier, notice->target))
        return err_set(err, ERR_DENIED, "its host is not among those of --notify-allow");
    return post(courier, notice, err);
}

/* ---- mail ----------------------------------------------------------------------------------- */

/* A member of the notice as a text: "" when it is null. For a header bytes that are no ASCII, and
 * ends of lines anywhere, become '?'. */
static void member_add(struct buf *out, const json_t *notice, const char *name, bool header)
{
    const json_t *member = json_object_get(notice, name);

    if (json_is_integer(member))
        buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(member));
    for (const char *at = json_string_value(member); at && *at; at++)
        buf_putc(out, (unsigned char)*at < ' ' || (header && (unsigned char)*at > '~') ? '?' : *at);
}

static void line_add(struct buf *out, const json_t *notice, const char *name)
{
    buf_printf(out, "%-13s", name);
    member_add(out, notice, name, false);
    buf_putc(out, '\n');
}

/* "NAME (job N) failed: CAUSE" */
static void subject_add(struct buf *out, const json_t *notice)
{
    const char *event = json_string_value(json_object_get(notice, "event"));

    member_add(out, notice, "name", true);
    buf_puts(out, " (job ");
    member_add(out, notice, "job_id", true);
    buf_puts(out, ") ");
    member_add(out, notice, "event", true);
    if (!event || strcmp(event, "done") == 0)
        return;
    buf_puts(out, ": ");
    member_add(out, notice, "cause", true);
}

/* The same as a webhook gets, for people. */
static void body_add(struct buf *out, const json_t *notice)
{
    static const char *const names[] = {"state", "cause", "detail", "experiment", "kind", "account",
                                        "attempts", "submitted_at", "started_at", "ended_at"};

    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        line_add(out, notice, names[i]);
    buf_puts(out, "\nathanor show ");
    member_add(out, notice, "job_id", false);
    buf_puts(out, "\nathanor logs ");
    member_add(out, notice, "job_id", false);
    buf_putc(out, '\n');
}

static char *message_of(const struct courier *courier, const struct notice *notice)
{
    char host[256] = "localhost";
    struct buf text = {0};
    json_t *payload = json_loads(notice->payload, 0, NULL);

    gethostname(host, sizeof host - 1);
    if (courier->config.mail_from)
        buf_printf(&text, "From: %s\n", courier->config.mail_from);
    else
        buf_printf(&text, "From: athanor@%s\n", host);
    buf_printf(&text, "To: %s\nSubject: ", notice->target);
    subject_add(&text, payload);
    buf_printf(&text,
               "\nMessage-ID: <%" PRIu64 "-%s@athanor>\n"
               "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n",
               courier->config.cluster_id, notice->id);
    body_add(&text, payload);
    json_decref(payload);
    return buf_take(&text);
}

/* Bounded: a program that neither reads nor ends is killed. */
static int program_feed(pid_t pid, int fd, const char *text, struct err *err)
{
    uint64_t until_ms = clock_steady_ms() + COURIER_SEND_MS;
    size_t length = strlen(text), done = 0;
    int status = 0;
    pid_t ended = 0;

    while (ended == 0 && clock_steady_ms() < until_ms) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        poll(&wait, fd >= 0 ? 1 : 0, fd >= 0 ? 100 : 20);
        ssize_t wrote = fd >= 0 && wait.revents ? write(fd, text + done, length - done) : 0;
        done += wrote > 0 ? (size_t)wrote : 0;
        if (fd >= 0 && (done == length || (wrote < 0 && errno != EAGAIN))) {
            close(fd);
            fd = -1;
        }
        ended = waitpid(pid, &status, WNOHANG);
    }
    if (fd >= 0)
        close(fd);
    if (ended == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        return err_set(err, ERR_TIMEOUT, "the mail command took more than %u s",
                       COURIER_SEND_MS / 1000);
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 && done == length
               ? 0
               : err_set(err, ERR_IO, "the mail command ended with status %d", status);
}

static int program_start(char *const words[], pid_t *out_pid, int *out_fd, struct err *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_errno(err, "make a pipe");
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &none);
    errno = posix_spawnp(out_pid, words[0], &actions, &attributes, words, environ);
    int rc = errno ? err_errno(err, "run the mail command '%s'", words[0]) : 0;
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[0]);
    if (rc == 0 && fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0) {
        *out_fd = ends[1];
        return 0;
    }
    close(ends[1]);
    return rc;
}

static int send_mail(const struct courier *courier, const struct notice *notice, struct err *err)
{
    char *words[WORDS_MAX + 1], *line, *rest, *word;
    size_t count = 0;
    pid_t pid = 0;
    int fd = -1;

    if (!courier->config.mail_command)
        return err_set(err, ERR_NOT_FOUND, "the coordinators have no --mail-command");
    rest = line = mem_strdup(courier->config.mail_command);
    while ((word = strsep(&rest, " ")) && count < WORDS_MAX)
        if (*word)
            words[count++] = word;
    words[count] = NULL;
    int rc = count ? program_start(words, &pid, &fd, err)
                   : err_set(err, ERR_INVALID, "--mail-command is empty");
    mem_free(line);
    if (rc < 0)
        return -1;
    char *message = message_of(courier, notice);
    rc = program_feed(pid, fd, message, err);
    mem_free(message);
    return rc;
}

/* ---- the thread ----------------------------------------------------------------------------- */

static void say_once(struct courier *courier, const struct err *why)
{
    if (strncmp(courier->said, why->text, sizeof courier->said - 1) == 0)
        return;
    snprintf(courier->said, sizeof courier->said, "%s", why->text);
    log_warn("notifications wait: %s", why->text);
}

static void deliver(struct courier *courier, const struct notice *notice)
{
    struct err err = {0};
    bool mail = strcmp(notice->kind, "mail") == 0;
    int rc = mail ? send_mail(courier, notice, &err) : send_webhook(courier, notice, &err);

    if (notices_settle(courier->notices, notice->id, rc < 0 ? err.text : NULL, &err) < 0)
        say_once(courier, &err); /* it is due again in a minute */
}

/* False: nothing was due. */
static bool round_make(struct courier *courier)
{
    struct notice list[NOTICES_CLAIMED_MAX];
    struct arena arena = {0};
    struct err err;
    size_t count = 0;

    if (notices_claim(courier->notices, &arena, list, &count, &err) < 0)
        say_once(courier, &err);
    for (size_t i = 0; i < count && !atomic_load(&courier->stop); i++)
        deliver(courier, &list[i]);
    arena_done(&arena);
    return count > 0;
}

static void *work(void *user)
{
    struct courier *courier = user;
    sigset_t pipe;

    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, NULL); /* a mail command that does not read is an error */
    while (!atomic_load(&courier->stop))
        if (!round_make(courier))
            for (int i = 0; i < 10 && !atomic_load(&courier->stop); i++)
                poll(NULL, 0, LOOK_MS / 10);
    return NULL;
}

static int secret_read(struct courier *courier, struct err *err)
{
    if (!courier->config.secret_file)
        return 0;
    if (file_read(courier->config.secret_file, SECRET_BYTES_MAX, &courier->secret,
                  &courier->secret_length, err) < 0)
        return err_wrap(err, "--notify-secret");
    while (courier->secret_length && courier->secret[courier->secret_length - 1] == '\n')
        courier->secret_length--;
    return courier->secret_length
               ? 0
               : err_set(err, ERR_INVALID, "--notify-secret: '%s' is empty",
                         courier->config.secret_file);
}

int courier_start(const struct courier_config *config, struct courier **out, struct err *err)
{
    struct courier *courier = mem_zalloc(sizeof *courier);

    courier->config = *config;
    if (secret_read(courier, err) < 0) {
        mem_free(courier->secret);
        mem_free(courier);
        return -1;
    }
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == 0);
    courier->notices = notices_open(config->db);
    CHECK(pthread_create(&courier->thread, NULL, work, courier) == 0);
    *out = courier;
    return 0;
}

void courier_stop(struct courier *courier)
{
    if (!courier)
        return;
    atomic_store(&courier->stop, true);
    pthread_join(courier->thread, NULL);
    notices_close(courier->notices);
    mem_free(courier->secret);
    mem_free(courier);
}
