/* pack_test.c - a tree packed and unpacked: the same bytes, the same hash, nothing from outside. */
#include "tests/unit/snapshot/support.h"

#include <errno.h>
#include <utime.h>

static char *tree_make(const char *order[], size_t count)
{
    char *folder = folder_make(), *script;
    for (size_t i = 0; i < count; i++)
        put(folder, order[i], order[i]);
    script = mem_printf("%s/bin/run.sh", folder);
    assert_int_equal(chmod(script, 0700), 0);
    mem_free(script);
    char *link = mem_printf("%s/bin/lib", folder);
    assert_int_equal(symlink("../lib", link), 0);
    mem_free(link);
    return folder;
}

static void the_same_tree_gives_the_same_hash(void **state)
{
    (void)state;
    const char *one[] = {"a.py", "bin/run.sh", "lib/x.py", "lib-y"};
    const char *two[] = {"lib-y", "lib/x.py", "bin/run.sh", "a.py"};
    char *a = tree_make(one, 4), *b = tree_make(two, 4);
    struct utimbuf old = {1000000, 1000000};
    char *path = mem_printf("%s/a.py", b);
    assert_int_equal(utime(path, &old), 0);
    assert_int_equal(chmod(path, 0600), 0);
    int fd_a = packed(a), fd_b = packed(b);
    struct hash hash_a = hash_of(fd_a), hash_b = hash_of(fd_b);
    assert_true(hash_equal(&hash_a, &hash_b));
    char *list = listing(fd_a);
    assert_string_equal(list, "a.py\nbin/lib -> ../lib\nbin/run.sh*\nlib/x.py\nlib-y\n");
    put(b, "a.py", "changed");
    int fd_c = packed(b);
    struct hash hash_c = hash_of(fd_c);
    assert_false(hash_equal(&hash_a, &hash_c));
    mem_free(list);
    mem_free(path);
    close(fd_a);
    close(fd_b);
    close(fd_c);
    folder_drop(a);
    folder_drop(b);
}

/* Guards the format: a hash that an older version stored must stay reachable. */
static void the_hash_of_a_known_tree_never_changes(void **state)
{
    (void)state;
    char *folder = folder_make(), hex[HASH_HEX_SIZE];
    put(folder, "train.py", "print('hello')\n");
    put(folder, "lib/long-name-of-a-folder-that-is-longer-than-the-hundred-bytes-which-the-oldest-"
                "form-of-tar-can-hold/module.py",
        "x = 1\n");
    int fd = packed(folder);
    struct hash hash = hash_of(fd);
    hash_to_hex(&hash, hex);
    assert_string_equal(hex, "09c6d5759744b9493212f710d8ae182f6d12aab3fdf112c79fb87ac325d29a02");
    close(fd);
    folder_drop(folder);
}

static void what_was_packed_comes_back_read_only(void **state)
{
    (void)state;
    const char *files[] = {"a.py", "bin/run.sh", "lib/deep/x.py"};
    char *from = tree_make(files, 3), *to = folder_make();
    struct snapshot_counts counts;
    struct stat info;
    struct err err;
    int fd = packed(from);
    assert_int_equal(snapshot_extract(fd, to, true, &counts, &err), 0);
    assert_int_equal(counts.files, 4);
    static const struct {
        const char *path;
        mode_t mode;
    } wanted[] = {{"", 0555}, {"a.py", 0444}, {"bin", 0555}, {"bin/run.sh", 0555},
                  {"lib/deep", 0555}, {"lib/deep/x.py", 0444}};
    for (size_t i = 0; i < ARRAY_COUNT(wanted); i++) {
        char *path = mem_printf("%s/%s", to, wanted[i].path);
        assert_int_equal(lstat(path, &info), 0);
        assert_int_equal(info.st_mode & 07777, wanted[i].mode);
        mem_free(path);
    }
    char *link = mem_printf("%s/bin/lib", to), target[100] = "";
    assert_int_equal(readlink(link, target, sizeof target - 1), 6);
    assert_string_equal(target, "../lib");
    int again = packed(to);
    struct hash one = hash_of(fd), two = hash_of(again);
    assert_true(hash_equal(&one, &two));
    mem_free(link);
    close(fd);
    close(again);
    folder_drop(from);
    folder_drop(to);
}

static void refused(const char *folder, const char *part)
{
    struct snapshot_counts counts;
    struct err err;
    int fd = memory_file();
    assert_int_equal(snapshot_pack(folder, fd, &counts, &err), -1);
    if (!strstr(err.text, part))
        fail_msg("'%s' has no '%s'", err.text, part);
    close(fd);
}

static void links_to_the_outside_are_refused_when_packing(void **state)
{
    (void)state;
    static const char *const targets[] = {"/etc/passwd", "../x", "d/../../x", "a/..", "./../x"};
    for (size_t i = 0; i < ARRAY_COUNT(targets); i++) {
        char *folder = folder_make(), *link = mem_printf("%s/link", folder);
        put(folder, "a", "x");
        assert_int_equal(symlink(targets[i], link), 0);
        refused(folder, "link");
        put(folder, ".gitignore", "link\n");
        close(packed(folder));
        mem_free(link);
        folder_drop(folder);
    }
}

static void a_folder_that_is_too_large_is_refused_with_the_sum(void **state)
{
    (void)state;
    char *folder = folder_make(), *path = mem_printf("%s/data/model.bin", folder);
    put(folder, "train.py", "x");
    put(folder, "data/model.bin", "");
    assert_int_equal(truncate(path, (off_t)SNAPSHOT_BYTES_MAX), 0);
    refused(folder, "data/model.bin (64 MiB), train.py (1 B)");
    refused(folder, "67111424 bytes: 67108865 in 2 files");
    put(folder, ".gitignore", "data/\n");
    close(packed(folder));
    mem_free(path);
    folder_drop(folder);
}

static void nothing_and_odd_things_are_refused(void **state)
{
    (void)state;
    char *folder = folder_make(), *pipe = mem_printf("%s/pipe", folder);
    refused(folder, "nothing to pack");
    refused("/nowhere/at/all", "/nowhere/at/all");
    put(folder, "a", "x");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    refused(folder, "neither a file");
    mem_free(pipe);
    folder_drop(folder);
}

static void a_flipped_bit_changes_the_hash(void **state)
{
    (void)state;
    char *folder = folder_make();
    put(folder, "a", "some text of a program");
    int fd = packed(folder);
    struct hash before = hash_of(fd);
    char byte;
    for (off_t at = 0; pread(fd, &byte, 1, at) == 1; at += 37) {
        char flipped = (char)(byte ^ 4);
        assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
        struct hash after = hash_of(fd);
        assert_false(hash_equal(&before, &after));
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
    folder_drop(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_tree_gives_the_same_hash),
        cmocka_unit_test(the_hash_of_a_known_tree_never_changes),
        cmocka_unit_test(what_was_packed_comes_back_read_only),
        cmocka_unit_test(links_to_the_outside_are_refused_when_packing),
        cmocka_unit_test(a_folder_that_is_too_large_is_refused_with_the_sum),
        cmocka_unit_test(nothing_and_odd_things_are_refused),
        cmocka_unit_test(a_flipped_bit_changes_the_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
