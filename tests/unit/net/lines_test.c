/* lines_test.c - lines over real unix sockets, and who is at the other end. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/net/lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char folder[64];
    char path[100];
    int fds[2];
    struct lines lines;
    struct err err;
};

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    snprintf(f->folder, sizeof f->folder, "/tmp/athanor-lines-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof f->path, "%s/socket", f->folder);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, f->fds), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    close(f->fds[0]);
    close(f->fds[1]);
    lines_done(&f->lines);
    assert_int_equal(file_remove_tree(f->folder, &f->err), 0);
    mem_free(f);
    return 0;
}

static void say(struct fixture *f, const char *text)
{
    assert_int_equal(write(f->fds[1], text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(lines_fill(&f->lines, f->fds[0], &f->err), 1);
}

static void expect_line(struct fixture *f, const char *expected)
{
    char *line;
    size_t length;
    assert_int_equal(lines_next(&f->lines, &line, &length, &f->err), 1);
    assert_string_equal(line, expected);
    assert_int_equal(length, strlen(expected));
}

static void expect_none(struct fixture *f)
{
    char *line;
    size_t length;
    assert_int_equal(lines_next(&f->lines, &line, &length, &f->err), 0);
}

static void lines_come_out_whole_however_they_arrive(void **state)
{
    struct fixture *f = *state;
    say(f, "first\nsec");
    expect_line(f, "first");
    expect_none(f);
    say(f, "ond\r\n\nlast");
    expect_line(f, "second");
    expect_line(f, "");
    expect_none(f);
    assert_false(f->lines.ended);
    close(f->fds[1]);
    f->fds[1] = dup(f->fds[0]);
    assert_int_equal(lines_fill(&f->lines, f->fds[0], &f->err), 0);
    assert_true(f->lines.ended);
    expect_none(f);
}

static void a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not(void **state)
{
    struct fixture *f = *state;
    char *line;
    size_t length;
    f->lines.limit_bytes = 8;
    say(f, "12345678\n");
    expect_line(f, "12345678");
    say(f, "123456789");
    assert_int_equal(lines_next(&f->lines, &line, &length, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_LIMIT);
}

static void a_zero_byte_is_refused(void **state)
{
    struct fixture *f = *state;
    char *line;
    size_t length;
    lines_add(&f->lines, "a\0b\n", 4);
    assert_int_equal(lines_next(&f->lines, &line, &length, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_PROTOCOL);
}

static void many_lines_do_not_pile_up(void **state)
{
    struct fixture *f = *state;
    char text[100];
    char *line;
    size_t length;
    for (int i = 0; i < 100000; i++) {
        snprintf(text, sizeof text, "line %d\n", i);
        lines_add(&f->lines, text, strlen(text));
        assert_int_equal(lines_next(&f->lines, &line, &length, &f->err), 1);
    }
    assert_true(f->lines.buf.capacity < 1024);
}

static void a_reader_that_does_not_read_is_cut_off(void **state)
{
    struct fixture *f = *state;
    struct lines_out out = {.limit_bytes = 1000};
    char text[100];
    memset(text, 'x', sizeof text);
    text[99] = '\0';
    for (int i = 0; i < 10; i++)
        assert_int_equal(lines_put(&out, text, &f->err), 0);
    assert_int_equal(lines_put(&out, text, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_LIMIT);
    assert_int_equal(lines_flush(&out, f->fds[0], &f->err), 0);
    assert_int_equal(out.buf.length, 0);
    close(f->fds[1]);
    f->fds[1] = dup(f->fds[0]);
    assert_int_equal(lines_put(&out, text, &f->err), 0);
    assert_int_equal(lines_flush(&out, f->fds[0], &f->err), -1);
    assert_int_equal(f->err.kind, ERR_CLOSED);
    lines_out_done(&out);
}

static void whoever_connects_is_known_by_the_kernel(void **state)
{
    struct fixture *f = *state;
    int listener, client, server;
    struct unix_peer peer;
    struct stat status;
    assert_int_equal(unix_listen(f->path, 0600, &listener, &f->err), 0);
    assert_int_equal(stat(f->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(unix_accept(listener, &server, &peer, &f->err), 0);
    assert_int_equal(unix_connect(f->path, &client, &f->err), 0);
    assert_int_equal(unix_accept(listener, &server, &peer, &f->err), 1);
    assert_int_equal(peer.pid, getpid());
    assert_int_equal(peer.uid, geteuid());
    assert_int_equal(unix_peer_check(&peer, geteuid(), &f->err), 0);
    peer.uid = geteuid() + 1;
    assert_int_equal(unix_peer_check(&peer, geteuid(), &f->err), -1);
    assert_int_equal(f->err.kind, ERR_DENIED);
    close(server);
    close(client);
    close(listener);
}

static void a_left_over_socket_is_replaced_and_a_living_one_not(void **state)
{
    struct fixture *f = *state;
    int first, second;
    assert_int_equal(unix_listen(f->path, 0600, &first, &f->err), 0);
    assert_int_equal(unix_listen(f->path, 0600, &second, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_EXISTS);
    close(first);
    assert_int_equal(unix_connect(f->path, &second, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_CLOSED);
    assert_int_equal(unix_listen(f->path, 0600, &second, &f->err), 0);
    close(second);
}

static void a_listener_that_is_behind_is_told_from_one_that_is_gone(void **state)
{
    struct fixture *f = *state;
    int listener, fds[1000];
    size_t count = 0;
    assert_int_equal(unix_listen(f->path, 0600, &listener, &f->err), 0);
    while (count < 1000 && unix_connect(f->path, &fds[count], &f->err) == 0)
        count++;
    assert_in_range(count, 100, 999);
    assert_int_equal(f->err.kind, ERR_LIMIT);
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
    close(listener);
}

static void a_plain_file_is_never_removed_for_a_socket(void **state)
{
    struct fixture *f = *state;
    int fd;
    assert_int_equal(file_replace(f->path, "x", 1, 0644, &f->err), 0);
    assert_int_equal(unix_listen(f->path, 0600, &fd, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_EXISTS);
    assert_true(file_exists(f->path));
}

static void a_path_too_long_is_refused_with_its_length(void **state)
{
    struct fixture *f = *state;
    char path[200];
    int fd;
    memset(path, 'x', sizeof path);
    path[150] = '\0';
    assert_int_equal(unix_listen(path, 0600, &fd, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_INVALID);
    assert_non_null(strstr(f->err.text, "150"));
}

static void a_missing_socket_is_not_found(void **state)
{
    struct fixture *f = *state;
    int fd;
    assert_int_equal(unix_connect(f->path, &fd, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(lines_come_out_whole_however_they_arrive),
        T(a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not),
        T(a_zero_byte_is_refused),
        T(many_lines_do_not_pile_up),
        T(a_reader_that_does_not_read_is_cut_off),
        T(whoever_connects_is_known_by_the_kernel),
        T(a_left_over_socket_is_replaced_and_a_living_one_not),
        T(a_listener_that_is_behind_is_told_from_one_that_is_gone),
        T(a_plain_file_is_never_removed_for_a_socket),
        T(a_path_too_long_is_refused_with_its_length),
        T(a_missing_socket_is_not_found),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
