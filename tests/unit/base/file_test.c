/* file_test.c - whole files, durably: what a reader sees when a write fails half-way. */
#include "tests/unit/base/support.h"

#include "common/base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t entries_in(const char *folder)
{
    size_t count = 0;
    DIR *open = opendir(folder);
    assert_non_null(open);
    while (readdir(open))
        count++;
    closedir(open);
    return count - 2; /* . and .. */
}

static void assert_content(const char *path, const char *expected)
{
    char *bytes;
    size_t length;
    struct err err;
    assert_int_equal(file_read(path, 1000, &bytes, &length, &err), 0);
    assert_int_equal(length, strlen(expected));
    assert_string_equal(bytes, expected);
    mem_free(bytes);
}

static void of_two_who_create_a_file_one_succeeds_and_its_bytes_stay(void **state)
{
    (void)state;
    char *folder = folder_make(), *path = mem_printf("%s/f", folder);
    struct err err;
    assert_int_equal(file_create(path, "first", 5, 0644, &err), 0);
    assert_int_equal(file_create(path, "other", 5, 0644, &err), -1);
    assert_int_equal(err.kind, ERR_EXISTS);
    assert_content(path, "first");
    assert_int_equal(entries_in(folder), 1);
    mem_free(path);
    folder_drop(folder);
}

static void replacing_gives_the_new_content_and_mode(void **state)
{
    (void)state;
    char *folder = folder_make(), *path = mem_printf("%s/f", folder);
    struct err err;
    struct stat status;
    assert_int_equal(file_replace(path, "old", 3, 0600, &err), 0);
    assert_int_equal(file_replace(path, "newer", 5, 0644, &err), 0);
    assert_content(path, "newer");
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0644);
    assert_int_equal(entries_in(folder), 1);
    assert_int_equal(file_replace(path, "", 0, 0600, &err), 0);
    assert_content(path, "");
    mem_free(path);
    folder_drop(folder);
}

static void what_a_killed_replacement_left_is_swept_and_nothing_else(void **state)
{
    (void)state;
    static const char *const names[] = {"f.tmp-Ab3xyZ", "deep/g.json.tmp-000000", "f.tmp-short",
                                        "f.tmp-longer7", "deep/kept", "tmp-Ab3xyZ"};
    char *folder = folder_make(), *deep = mem_printf("%s/deep", folder);
    struct err err;
    assert_int_equal(file_make_folders(deep, 0755, &err), 0);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *path = mem_printf("%s/%s", folder, names[i]);
        assert_int_equal(file_replace(path, "x", 1, 0644, &err), 0);
        mem_free(path);
    }
    assert_int_equal(file_sweep_replaced(folder, &err), 0);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *path = mem_printf("%s/%s", folder, names[i]);
        assert_int_equal(file_exists(path), i >= 2);
        mem_free(path);
    }
    mem_free(deep);
    folder_drop(folder);
    assert_int_equal(file_sweep_replaced("/nowhere/at/all", &err), 0);
}

/* The kernel cuts the write off after each possible number of bytes in turn. */
static void a_failed_write_leaves_the_old_content_and_nothing_else(void **state)
{
    (void)state;
    char *folder = folder_make(), *path = mem_printf("%s/f", folder);
    struct err err;
    struct rlimit before, limit;
    assert_int_equal(file_replace(path, "old", 3, 0600, &err), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    limit = before;
    for (limit.rlim_cur = 0; limit.rlim_cur < 8; limit.rlim_cur++) {
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        int rc = file_replace(path, "new text", 8, 0600, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_int_equal(rc, -1);
        assert_int_equal(err.kind, ERR_IO);
        assert_non_null(strstr(err.text, path));
        assert_content(path, "old");
        assert_int_equal(entries_in(folder), 1);
    }
    signal(SIGXFSZ, SIG_DFL);
    mem_free(path);
    folder_drop(folder);
}

static void a_failed_rename_or_a_missing_folder_leaves_nothing(void **state)
{
    (void)state;
    char *folder = folder_make(), *path = mem_printf("%s/sub/f", folder);
    char *sub = mem_printf("%s/sub", folder);
    struct err err;
    assert_int_equal(file_replace(path, "x", 1, 0600, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    assert_int_equal(file_make_folders(path, 0700, &err), 0); /* now a folder has the name */
    assert_int_equal(file_replace(path, "x", 1, 0600, &err), -1);
    assert_int_equal(err.kind, ERR_IO);
    assert_int_equal(entries_in(sub), 1);
    mem_free(sub);
    mem_free(path);
    folder_drop(folder);
}

static void reading_stops_at_the_limit(void **state)
{
    (void)state;
    char *folder = folder_make(), *path = mem_printf("%s/f", folder), *bytes = NULL;
    size_t length = 0;
    struct err err;
    assert_int_equal(file_replace(path, "0123456789", 10, 0600, &err), 0);
    assert_int_equal(file_read(path, 10, &bytes, &length, &err), 0);
    assert_int_equal(length, 10);
    mem_free(bytes);
    bytes = NULL;
    assert_int_equal(file_read(path, 9, &bytes, &length, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
    assert_null(bytes);
    assert_int_equal(file_read(folder, 9, &bytes, &length, &err), -1);
    assert_int_equal(err.kind, ERR_IO);
    mem_free(path);
    folder_drop(folder);
}

static void an_endless_file_is_refused_at_the_limit(void **state)
{
    (void)state;
    char *bytes;
    size_t length;
    struct err err;
    assert_int_equal(file_read("/dev/zero", 1 << 20, &bytes, &length, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
}

static void writing_to_a_closed_pipe_is_an_error(void **state)
{
    (void)state;
    int ends[2];
    struct err err;
    char *large = mem_zalloc(1 << 20);
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(file_write_all(ends[1], large, 1 << 20, &err), -1);
    assert_int_equal(err.kind, ERR_IO);
    signal(SIGPIPE, SIG_DFL);
    close(ends[1]);
    mem_free(large);
}

static void folders_are_made_with_their_parents_and_again_without_complaint(void **state)
{
    (void)state;
    char *folder = folder_make(), *deep = mem_printf("%s/a/b/c", folder);
    char *file = mem_printf("%s/a/file", folder), *below = mem_printf("%s/a/file/x", folder);
    struct err err;
    assert_int_equal(file_make_folders(deep, 0700, &err), 0);
    assert_int_equal(file_make_folders(deep, 0700, &err), 0);
    assert_true(file_exists(deep));
    assert_int_equal(file_sync_folder(deep, &err), 0);
    assert_int_equal(file_replace(file, "", 0, 0600, &err), 0);
    assert_int_equal(file_make_folders(below, 0700, &err), -1);
    assert_int_equal(file_sync_folder(file, &err), -1);
    mem_free(below);
    mem_free(file);
    mem_free(deep);
    folder_drop(folder);
}

static void removing_a_tree_does_not_follow_links(void **state)
{
    (void)state;
    char *folder = folder_make(), *kept = folder_make();
    char *inside = mem_printf("%s/a/b", folder), *link = mem_printf("%s/a/link", folder);
    char *file = mem_printf("%s/f", kept), *tree = mem_printf("%s/a", folder);
    struct err err;
    assert_int_equal(file_replace(file, "keep", 4, 0600, &err), 0);
    assert_int_equal(file_make_folders(inside, 0700, &err), 0);
    assert_int_equal(symlink(kept, link), 0);
    assert_int_equal(file_remove_tree(tree, &err), 0);
    assert_false(file_exists(tree));
    assert_content(file, "keep");
    assert_int_equal(file_remove_tree(tree, &err), 0); /* missing is success */
    mem_free(tree);
    mem_free(file);
    mem_free(link);
    mem_free(inside);
    folder_drop(kept);
    folder_drop(folder);
}

/* mkdir x; cd x; mkdir x; ... beyond what any path can say. */
static void a_tree_deeper_than_a_path_can_say_is_removed(void **state)
{
    (void)state;
    char *folder = folder_make(), *tree = mem_printf("%s/deep", folder), name[201];
    struct err err;
    memset(name, 'd', 200);
    name[200] = '\0';
    assert_int_equal(file_make_folders(tree, 0700, &err), 0);
    int at = open(tree, O_RDONLY | O_DIRECTORY);
    for (int depth = 0; depth < 100; depth++) { /* 20,000 bytes of path */
        assert_int_equal(mkdirat(at, name, 0700), 0);
        assert_int_equal(mkdirat(at, ".removing-0", 0700), 0); /* the name that moving uses */
        assert_int_equal(mkdirat(at, ".removing-0/x", 0700), 0);
        int file = openat(at, ".removing-1", O_CREAT | O_WRONLY, 0600);
        assert_true(file >= 0);
        close(file);
        int next = openat(at, name, O_RDONLY | O_DIRECTORY);
        assert_true(next >= 0);
        close(at);
        at = next;
    }
    close(at);
    assert_int_equal(file_remove_tree(tree, &err), 0);
    assert_false(file_exists(tree));
    mem_free(tree);
    folder_drop(folder);
}

static void folders_closed_to_their_owner_are_removed(void **state)
{
    (void)state;
    char *folder = folder_make(), *tree = mem_printf("%s/closed", folder);
    char *deep = mem_printf("%s/a/b/c", tree), *b = mem_printf("%s/a/b", tree);
    char *a = mem_printf("%s/a", tree);
    struct err err;
    assert_int_equal(file_make_folders(deep, 0700, &err), 0);
    assert_int_equal(chmod(deep, 0), 0);
    assert_int_equal(chmod(b, 0500), 0);
    assert_int_equal(chmod(a, 0), 0);
    pid_t child = fork(); /* root may enter anything: as somebody else, who owns the tree */
    if (child == 0) {
        bool root = geteuid() == 0;
        if (root &&
            (chmod(a, 0700) < 0 || chmod(b, 0700) < 0 || chown(folder, 65534, 65534) < 0 ||
             chown(tree, 65534, 65534) < 0 || chown(deep, 65534, 65534) < 0 ||
             chown(b, 65534, 65534) < 0 || chmod(b, 0500) < 0 || chown(a, 65534, 65534) < 0 ||
             chmod(a, 0) < 0 || setgid(65534) < 0 || setuid(65534) < 0))
            _exit(2);
        _exit(file_remove_tree(tree, &err) < 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_false(file_exists(tree));
    mem_free(a);
    mem_free(b);
    mem_free(deep);
    mem_free(tree);
    folder_drop(folder);
}

static void the_steady_clock_never_goes_back_and_the_wall_clock_is_this_century(void **state)
{
    (void)state;
    uint64_t last = clock_steady_us();
    for (int i = 0; i < 1000; i++) {
        uint64_t now = clock_steady_us();
        assert_true(now >= last);
        last = now;
    }
    assert_true(clock_steady_ms() >= last / 1000);
    assert_true(clock_wall_ms() > UINT64_C(1600000000000));
    assert_true(clock_wall_us() / 1000 >= UINT64_C(1600000000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_killed_replacement_left_is_swept_and_nothing_else),
        cmocka_unit_test(replacing_gives_the_new_content_and_mode),
        cmocka_unit_test(of_two_who_create_a_file_one_succeeds_and_its_bytes_stay),
        cmocka_unit_test(a_failed_write_leaves_the_old_content_and_nothing_else),
        cmocka_unit_test(a_failed_rename_or_a_missing_folder_leaves_nothing),
        cmocka_unit_test(reading_stops_at_the_limit),
        cmocka_unit_test(an_endless_file_is_refused_at_the_limit),
        cmocka_unit_test(writing_to_a_closed_pipe_is_an_error),
        cmocka_unit_test(folders_are_made_with_their_parents_and_again_without_complaint),
        cmocka_unit_test(removing_a_tree_does_not_follow_links),
        cmocka_unit_test(a_tree_deeper_than_a_path_can_say_is_removed),
        cmocka_unit_test(folders_closed_to_their_owner_are_removed),
        cmocka_unit_test(the_steady_clock_never_goes_back_and_the_wall_clock_is_this_century),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
