/* line_server_test.c - who comes when as many connections are open as may be. */
#include "worker/shepherd/line_server.h"

#include "common/base/mem.h"
#include "common/net/lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM   3
#define COMERS 8

struct fixture {
    char folder[64], path[80], last[1000]; /* newest text that was refused */
    struct poller *poller;
    struct line_server *server;
    unsigned lines, refused;
    int fds[COMERS];
};

static int on_line(void *user, struct line_client *client, char *line, size_t length,
                   struct err *err)
{
    struct fixture *f = user;
    (void)line, (void)length, (void)err;
    f->lines++;
    line_client_answer(client, "{\"ok\": true}");
    return 0;
}

static void on_refused(void *user, const struct line_client *client, const struct err *why)
{
    struct fixture *f = user;
    (void)client;
    f->refused++;
    snprintf(f->last, sizeof f->last, "%s", why->text);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct err err;
    snprintf(f->folder, sizeof f->folder, "/tmp/athanor-lines-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof f->path, "%s/socket", f->folder);
    f->poller = poller_new();
    for (size_t i = 0; i < COMERS; i++)
        f->fds[i] = -1;
    struct line_server_config config = {f->path, 0600, ROOM, on_line, on_refused, f};
    assert_int_equal(line_server_open(f->poller, &config, &f->server, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < COMERS; i++)
        if (f->fds[i] >= 0)
            close(f->fds[i]);
    line_server_close(f->server);
    poller_free(f->poller);
    assert_int_equal(rmdir(f->folder), 0);
    mem_free(f);
    return 0;
}

static void come(struct fixture *f, size_t count)
{
    struct err err;
    for (size_t i = 0; i < count; i++)
        assert_int_equal(unix_connect(f->path, &f->fds[i], &err), 0);
}

static void say(struct fixture *f, size_t index)
{
    assert_int_equal(send(f->fds[index], "{}\n", 3, MSG_NOSIGNAL), 3);
}

/* All that there is to be done: unix sockets are written and read at once. */
static void serve(struct fixture *f)
{
    struct err err;
    for (int i = 0; i < 4 * COMERS; i++)
        assert_int_equal(poller_wait(f->poller, 0, &err), 0);
}

static void leave(struct fixture *f, size_t index)
{
    close(f->fds[index]);
    f->fds[index] = -1;
}

/* What has come for it, without waiting; "" for the end, NULL when there is nothing yet. */
static const char *heard(struct fixture *f, size_t index)
{
    static char text[500];
    ssize_t got = recv(f->fds[index], text, sizeof text - 1, MSG_DONTWAIT);
    if (got < 0) {
        assert_int_equal(errno, EAGAIN);
        return NULL;
    }
    text[got] = '\0';
    return text;
}

static void who_comes_beyond_the_room_is_served_when_others_have_left(void **state)
{
    struct fixture *f = *state;
    come(f, 5);
    for (size_t i = 0; i < 5; i++)
        say(f, i);
    serve(f);
    assert_int_equal(f->lines, ROOM);
    assert_string_equal(heard(f, 2), "{\"ok\": true}\n");
    assert_null(heard(f, 3));
    leave(f, 0);
    serve(f);
    assert_int_equal(f->lines, ROOM + 1);
    assert_string_equal(heard(f, 3), "{\"ok\": true}\n");
    leave(f, 1);
    leave(f, 2);
    serve(f);
    assert_string_equal(heard(f, 4), "{\"ok\": true}\n");
    assert_int_equal(f->refused, 0);
}

static void who_waits_while_nobody_leaves_is_told_why_at_the_end_of_patience(void **state)
{
    struct fixture *f = *state;
    come(f, 5);
    serve(f);
    uint64_t now_ms = 1000;
    line_server_tick(f->server, now_ms);
    line_server_tick(f->server, now_ms += 500); /* nobody has moved since the last one */
    line_server_tick(f->server, now_ms + LINE_SERVER_PATIENCE_MS - 1);
    assert_null(heard(f, 3));
    line_server_tick(f->server, now_ms + LINE_SERVER_PATIENCE_MS);
    const char *told = heard(f, 3);
    assert_non_null(told);
    assert_non_null(strstr(told, "{\"ok\": false, \"error\": \"3 connections are open, which is "
                                 "the most, and none was closed for 10 s"));
    assert_string_equal(heard(f, 3), ""); /* and closed */
    assert_int_equal(f->refused, 2);
    assert_non_null(strstr(f->last, "close those that are done"));
    say(f, 0); /* those that are open stay so */
    serve(f);
    assert_string_equal(heard(f, 0), "{\"ok\": true}\n");
}

static void patience_begins_anew_when_somebody_comes_or_goes(void **state)
{
    struct fixture *f = *state;
    come(f, 5);
    serve(f);
    line_server_tick(f->server, 1);
    line_server_tick(f->server, 2);
    leave(f, 0);
    serve(f); /* the fourth has come in, the fifth waits */
    line_server_tick(f->server, 2 + LINE_SERVER_PATIENCE_MS);
    assert_null(heard(f, 4));
    assert_int_equal(f->refused, 0);
}

static void patience_has_no_end_while_answers_are_held_or_nothing_is_read(void **state)
{
    struct fixture *f = *state;
    come(f, 4);
    serve(f);
    line_server_tick(f->server, 1);
    for (int i = 0; i < 2; i++) {
        line_server_hold(f->server, i == 0);
        line_server_pause(f->server, i == 1);
        line_server_tick(f->server, 2);
        line_server_tick(f->server, 2 + 2 * LINE_SERVER_PATIENCE_MS);
        assert_null(heard(f, 3));
    }
    assert_int_equal(f->refused, 0);
}

static void what_all_have_sent_is_taken_at_the_end(void **state)
{
    struct fixture *f = *state;
    come(f, COMERS);
    for (size_t i = 0; i < COMERS; i++) {
        say(f, i);
        assert_int_equal(shutdown(f->fds[i], SHUT_WR), 0);
    }
    line_server_drain(f->server);
    assert_int_equal(f->lines, COMERS);
    assert_int_equal(f->refused, 0);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(who_comes_beyond_the_room_is_served_when_others_have_left),
        CASE(who_waits_while_nobody_leaves_is_told_why_at_the_end_of_patience),
        CASE(patience_begins_anew_when_somebody_comes_or_goes),
        CASE(patience_has_no_end_while_answers_are_held_or_nothing_is_read),
        CASE(what_all_have_sent_is_taken_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
