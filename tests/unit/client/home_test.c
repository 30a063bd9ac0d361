/* home_test.c - where a cluster is, its settings, manifests, and daemons found by pid file. */
#include "client/cluster.h"
#include "client/daemons.h"
#include "client/manifest.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    struct arena arena;
    struct err err;
    char home[64];
};

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    snprintf(f->home, sizeof f->home, "/tmp/athanor-home-XXXXXX");
    assert_non_null(mkdtemp(f->home));
    unsetenv("ATHANOR_HOME");
    unsetenv("ATHANOR_DB");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(file_remove_tree(f->home, &f->err), 0);
    arena_done(&f->arena);
    mem_free(f);
    return 0;
}

static const char *in_home(struct fixture *f, const char *name)
{
    return arena_printf(&f->arena, "%s/%s", f->home, name);
}

static void write_file(struct fixture *f, const char *name, const char *text)
{
    assert_int_equal(file_replace(in_home(f, name), text, strlen(text), 0644, &f->err), 0);
}

static void the_home_is_the_option_the_variable_or_the_state_directory(void **state)
{
    struct fixture *f = *state;
    const char *home;
    setenv("XDG_STATE_HOME", "/x/state", 1);
    assert_int_equal(home_find(&f->arena, NULL, &home, &f->err), 0);
    assert_string_equal(home, "/x/state/athanor");
    setenv("ATHANOR_HOME", "/y", 1);
    assert_int_equal(home_find(&f->arena, NULL, &home, &f->err), 0);
    assert_string_equal(home, "/y");
    assert_int_equal(home_find(&f->arena, "/z", &home, &f->err), 0);
    assert_string_equal(home, "/z");
    unsetenv("ATHANOR_HOME");
    unsetenv("XDG_STATE_HOME");
}

static void endpoints_are_read_line_by_line(void **state)
{
    struct fixture *f = *state;
    const char *endpoints[HOME_ENDPOINTS_MAX];
    size_t count;
    assert_int_equal(home_endpoints(&f->arena, f->home, endpoints, &count, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    write_file(f, "endpoints", "ipc:///a\ntcp://h:1\n");
    assert_int_equal(home_endpoints(&f->arena, f->home, endpoints, &count, &f->err), 0);
    assert_int_equal(count, 2);
    assert_string_equal(endpoints[1], "tcp://h:1");
}

static void the_wishes_of_up_are_kept(void **state)
{
    struct fixture *f = *state;
    struct cluster cluster, read;
    assert_int_equal(cluster_load(&f->arena, f->home, &cluster, &f->err), 0);
    assert_int_equal(cluster.workers, 1);
    cluster.workers = 3;
    cluster.cores = 2;
    assert_int_equal(cluster_endpoints(&f->arena, f->home, &cluster, &f->err), 0);
    assert_int_equal(cluster_save(&f->arena, f->home, &cluster, &f->err), 0);
    assert_int_equal(cluster_load(&f->arena, f->home, &read, &f->err), 0);
    assert_int_equal(read.workers, 3);
    assert_int_equal(read.cores, 2);
    assert_int_equal(read.listen_count, 1);
    assert_non_null(strstr(read.listen[0], "ipc://"));
    write_file(f, "up.json", "{\"workers\": -1}");
    assert_int_equal(cluster_load(&f->arena, f->home, &read, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_INVALID);
}

static void a_port_of_zero_becomes_a_free_one_that_clients_find(void **state)
{
    struct fixture *f = *state;
    struct cluster cluster = {.workers = 1, .listen = {"tcp://*:0"}, .listen_count = 1};
    const char *endpoints[HOME_ENDPOINTS_MAX];
    size_t count;
    assert_int_equal(cluster_endpoints(&f->arena, f->home, &cluster, &f->err), 0);
    assert_int_equal(home_endpoints(&f->arena, f->home, endpoints, &count, &f->err), 0);
    assert_int_equal(strncmp(endpoints[0], "tcp://127.0.0.1:", 16), 0);
    assert_string_equal(endpoints[0] + 16, cluster.listen[0] + strlen("tcp://*:"));
    assert_true(atoi(endpoints[0] + 16) > 0);
    cluster.listen[0] = "carrier-pigeon";
    assert_int_equal(cluster_endpoints(&f->arena, f->home, &cluster, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_INVALID);
}

/* ---- manifests ---------------------------------------------------------------------------- */

static void a_manifest_lists_every_file_with_size_and_hash(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(file_make_folders(in_home(f, "ck/sub"), 0755, &f->err), 0);
    write_file(f, "ck/b.bin", "four");
    write_file(f, "ck/sub/a.bin", "");
    assert_int_equal(manifest_write(in_home(f, "ck/"), 7, &f->err), 0);
    json_t *manifest = json_load_file(in_home(f, "ck/manifest.json"), 0, NULL);
    const json_t *files = json_object_get(manifest, "files"), *first = json_array_get(files, 0);
    assert_int_equal(json_integer_value(json_object_get(manifest, "format")), 1);
    assert_int_equal(json_integer_value(json_object_get(manifest, "step")), 7);
    assert_int_equal(json_array_size(files), 2);
    assert_string_equal(json_string_value(json_object_get(first, "name")), "b.bin");
    assert_int_equal(json_integer_value(json_object_get(first, "size_bytes")), 4);
    assert_int_equal(strlen(json_string_value(json_object_get(first, "blake2b"))), 64);
    assert_string_equal(json_string_value(json_object_get(json_array_get(files, 1), "name")),
                        "sub/a.bin");
    json_decref(manifest);
}

static void a_manifest_of_another_step_is_never_overwritten(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(file_make_folders(in_home(f, "ck"), 0755, &f->err), 0);
    write_file(f, "ck/w", "x");
    assert_int_equal(manifest_write(in_home(f, "ck"), 1, &f->err), 0);
    assert_int_equal(manifest_write(in_home(f, "ck"), 1, &f->err), 0);
    assert_int_equal(manifest_write(in_home(f, "ck"), 2, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_EXISTS);
}

static void links_and_empty_directories_are_no_checkpoints(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(file_make_folders(in_home(f, "ck"), 0755, &f->err), 0);
    assert_int_equal(manifest_write(in_home(f, "ck"), 1, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_INVALID);
    assert_int_equal(symlink("/etc/passwd", in_home(f, "ck/link")), 0);
    assert_int_equal(manifest_write(in_home(f, "ck"), 1, &f->err), -1);
    assert_non_null(strstr(f->err.text, "link"));
}

/* ---- daemons ------------------------------------------------------------------------------ */

static struct daemon_spec sleeper(struct fixture *f, const char *const *arguments)
{
    assert_int_equal(file_make_folders(in_home(f, "run"), 0755, &f->err), 0);
    assert_int_equal(file_make_folders(in_home(f, "log"), 0755, &f->err), 0);
    return (struct daemon_spec){.home = f->home,
                                .name = "sleeper",
                                .program = "/bin/sh",
                                .arguments = arguments};
}

static void a_daemon_is_started_found_and_stopped(void **state)
{
    static const char *const arguments[] = {"sleep", "60", NULL};
    struct fixture *f = *state;
    struct daemon_spec spec = sleeper(f, arguments);
    pid_t pid = 0;
    spec.program = "/bin/sleep";
    assert_int_equal(daemon_find(&f->arena, f->home, "sleeper"), 0);
    assert_int_equal(daemon_start(&f->arena, &spec, &pid, &f->err), 0);
    assert_int_equal(daemon_find(&f->arena, f->home, "sleeper"), pid);
    assert_true(daemon_stop(&f->arena, f->home, "sleeper", SIGTERM, 10000));
    assert_int_equal(daemon_find(&f->arena, f->home, "sleeper"), 0);
    assert_false(daemon_stop(&f->arena, f->home, "sleeper", SIGTERM, 10000));
}

static void a_daemon_that_ignores_the_signal_is_killed(void **state)
{
    static const char *const arguments[] = {"sh", "-c",
                                            "trap '' TERM; echo armed >&2; sleep 60 & wait; wait",
                                            NULL};
    struct fixture *f = *state;
    struct daemon_spec spec = sleeper(f, arguments);
    pid_t pid = 0;
    assert_int_equal(daemon_start(&f->arena, &spec, &pid, &f->err), 0);
    while (!strstr(daemon_log_tail(&f->arena, f->home, "sleeper"), "armed"))
        assert_int_equal(kill(pid, 0), 0); /* bounded: a shell that ends fails the test */
    assert_true(daemon_stop(&f->arena, f->home, "sleeper", SIGTERM, 200));
    assert_int_equal(daemon_find(&f->arena, f->home, "sleeper"), 0);
}

static void a_reused_pid_is_not_ours(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(file_make_folders(in_home(f, "run"), 0755, &f->err), 0);
    write_file(f, "run/other.pid", arena_printf(&f->arena, "%d\n1\n/bin/sh\n", (int)getpid()));
    assert_int_equal(daemon_find(&f->arena, f->home, "other"), 0);
    assert_false(daemon_stop(&f->arena, f->home, "other", SIGKILL, 100));
    write_file(f, "run/other.pid", "garbage");
    assert_int_equal(daemon_find(&f->arena, f->home, "other"), 0);
    write_file(f, "run/other.pid", "1\n0\n/sbin/init\n");
    assert_int_equal(daemon_find(&f->arena, f->home, "other"), 0);
}

static void a_program_that_cannot_start_is_named(void **state)
{
    static const char *const arguments[] = {"nothing", NULL};
    struct fixture *f = *state;
    struct daemon_spec spec = sleeper(f, arguments);
    pid_t pid = 0;
    spec.program = "/no/such/program";
    assert_int_equal(daemon_start(&f->arena, &spec, &pid, &f->err), -1);
    assert_non_null(strstr(f->err.text, "/no/such/program"));
    assert_non_null(strstr(f->err.text, "No such file"));
}

static void a_program_that_fails_shows_its_last_words(void **state)
{
    static const char *const arguments[] = {"sh", "-c", "echo last words >&2; exit 3", NULL};
    struct fixture *f = *state;
    struct daemon_spec spec = sleeper(f, arguments);
    assert_int_equal(daemon_run(&f->arena, &spec, &f->err), -1);
    assert_non_null(strstr(f->err.text, "last words"));
}

static void daemons_do_not_see_what_speaks_to_us(void **state)
{
    static const char *const arguments[] = {
        "sh", "-c", "echo \"key=[$ATHANOR_KEY] db=[$ATHANOR_DB]\" >&2; exit 1", NULL};
    static const char *const settings[] = {"ATHANOR_DB=given", NULL};
    struct fixture *f = *state;
    struct daemon_spec spec = sleeper(f, arguments);
    spec.settings = settings;
    setenv("ATHANOR_KEY", "secret", 1);
    setenv("ATHANOR_DB", "inherited", 1);
    assert_int_equal(daemon_run(&f->arena, &spec, &f->err), -1);
    assert_non_null(strstr(f->err.text, "key=[] db=[given]"));
    unsetenv("ATHANOR_KEY");
    unsetenv("ATHANOR_DB");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_home_is_the_option_the_variable_or_the_state_directory),
        T(endpoints_are_read_line_by_line),
        T(the_wishes_of_up_are_kept),
        T(a_port_of_zero_becomes_a_free_one_that_clients_find),
        T(a_manifest_lists_every_file_with_size_and_hash),
        T(a_manifest_of_another_step_is_never_overwritten),
        T(links_and_empty_directories_are_no_checkpoints),
        T(a_daemon_is_started_found_and_stopped),
        T(a_daemon_that_ignores_the_signal_is_killed),
        T(a_reused_pid_is_not_ours),
        T(a_program_that_cannot_start_is_named),
        T(a_program_that_fails_shows_its_last_words),
        T(daemons_do_not_see_what_speaks_to_us),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
