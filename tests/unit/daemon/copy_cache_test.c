/* copy_cache_test.c - copies kept by content: what counts as one, what goes and when. */
#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/daemon/copy_cache.h"
#include "worker/daemon/copy_index.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE 1000u /* of the one file of each copy */

struct fixture {
    char home[64], *folder;
    struct copy_cache *cache;
    struct hash in_use[4];
    size_t in_use_count;
};

static bool is_used(void *user, const struct hash *content)
{
    const struct fixture *f = user;
    for (size_t i = 0; i < f->in_use_count; i++)
        if (hash_equal(&f->in_use[i], content))
            return true;
    return false;
}

static void reopen(struct fixture *f, uint64_t budget)
{
    struct err err;
    copy_cache_close(f->cache);
    f->cache = NULL;
    if (copy_cache_open(f->folder, budget, is_used, f, &f->cache, &err) < 0)
        fail_msg("%s", err.text);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    snprintf(f->home, sizeof f->home, "/tmp/copy_cache_test-XXXXXX");
    assert_non_null(mkdtemp(f->home));
    f->folder = mem_printf("%s/copies", f->home);
    reopen(f, 1 << 20);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err;
    copy_cache_close(f->cache);
    assert_int_equal(file_remove_tree(f->home, &err), 0);
    mem_free(f->folder);
    mem_free(f);
    return 0;
}

static void put(const char *path, const char *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    struct err err;
    assert_true(fd >= 0);
    assert_int_equal(file_write_all(fd, bytes, length, &err), 0);
    close(fd);
}

/* As a fetch leaves it: one file full of `letter`, and the index of it. */
static struct hash arrive(struct fixture *f, char letter)
{
    char bytes[SIZE], hex[HASH_HEX_SIZE], *path, *name;
    struct hash content;
    struct buf index = {0};
    struct err err;
    memset(bytes, letter, sizeof bytes);
    hash_bytes(bytes, sizeof bytes, &content);
    hash_to_hex(&content, hex);
    buf_printf(&index,
               "{\"files\": [{\"name\": \"a/b\", \"size_bytes\": %u, \"blake2b\": \"%s\"}]}", SIZE,
               hex);
    hash_bytes(index.bytes, index.length, &content);
    path = copy_cache_part(f->cache, &content);
    name = mem_printf("%s/a", path);
    assert_int_equal(file_make_folders(name, 0755, &err), 0);
    mem_free(name);
    name = mem_printf("%s/a/b", path);
    put(name, bytes, sizeof bytes);
    mem_free(name);
    name = mem_printf("%s/manifest.json", path);
    put(name, index.bytes, index.length);
    mem_free(name);
    mem_free(path);
    buf_done(&index);
    return content;
}

static struct hash keep(struct fixture *f, char letter)
{
    struct hash content = arrive(f, letter);
    struct err err;
    if (copy_cache_keep(f->cache, &content, false, "w1", &err) < 0)
        fail_msg("%s", err.text);
    return content;
}

static size_t count_of(const struct fixture *f)
{
    size_t count;
    copy_cache_list(f->cache, &count);
    return count;
}

static size_t names_in(const char *path)
{
    DIR *folder = opendir(path);
    size_t count = 0;
    assert_non_null(folder);
    for (const struct dirent *entry; (entry = readdir(folder));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(folder);
    return count;
}

static void a_copy_is_found_by_its_hash_also_after_a_restart(void **state)
{
    struct fixture *f = *state;
    struct hash content = keep(f, 'x'), other = arrive(f, 'y');
    const struct cached_copy *copy = copy_cache_find_whole(f->cache, &content);
    assert_non_null(copy);
    uint64_t bytes = copy->size_bytes, fetched_us = copy->fetched_us;
    assert_true(bytes > SIZE && bytes < 2 * SIZE); /* the file and its index */
    assert_null(copy_cache_find(f->cache, &other));
    reopen(f, 1 << 20);
    copy = copy_cache_find_whole(f->cache, &content);
    assert_non_null(copy);
    assert_string_equal(copy->source, "w1");
    assert_int_equal(copy->size_bytes, bytes);
    assert_int_equal(copy->fetched_us, fetched_us);
}

static void what_a_killed_daemon_left_half_done_is_removed_at_the_next_start(void **state)
{
    struct fixture *f = *state;
    struct hash half = arrive(f, 'x'), unnoted = keep(f, 'y'), gone = keep(f, 'z');
    char hex[HASH_HEX_SIZE], *path;
    hash_to_hex(&unnoted, hex); /* killed between putting it at its place and noting it */
    path = mem_printf("%s/%s.json", f->folder, hex);
    assert_int_equal(unlink(path), 0);
    mem_free(path);
    hash_to_hex(&gone, hex); /* somebody has removed it */
    struct err err;
    path = mem_printf("%s/%s", f->folder, hex);
    assert_int_equal(file_remove_tree(path, &err), 0);
    mem_free(path);
    path = mem_printf("%s/7", f->folder); /* of an attempt, as older daemons had them */
    assert_int_equal(mkdir(path, 0755), 0);
    mem_free(path);
    reopen(f, 1 << 20);
    assert_int_equal(count_of(f), 0);
    assert_int_equal(names_in(f->folder), 0);
    assert_null(copy_cache_find(f->cache, &half));
}

static void the_least_recently_used_go_first_and_never_what_is_in_use(void **state)
{
    struct fixture *f = *state;
    struct hash a = keep(f, 'a'), b = keep(f, 'b'), c = keep(f, 'c'), d = keep(f, 'd');
    uint64_t bytes = copy_cache_find(f->cache, &a)->size_bytes; /* used: now b is the oldest */
    reopen(f, 3 * bytes); /* the order is on the disk */
    f->in_use[f->in_use_count++] = b;
    copy_cache_trim(f->cache, 0);
    assert_int_equal(count_of(f), 3);
    assert_null(copy_cache_find(f->cache, &c));
    copy_cache_trim(f->cache, bytes); /* room for one that is on its way */
    assert_null(copy_cache_find(f->cache, &d));
    copy_cache_trim(f->cache, 10 * bytes); /* and one larger than the budget */
    assert_null(copy_cache_find(f->cache, &a));
    assert_non_null(copy_cache_find_whole(f->cache, &b));
    f->in_use_count = 0;
    reopen(f, 0);
    uint64_t version = copy_cache_version(f->cache);
    copy_cache_trim(f->cache, 0);
    assert_int_equal(names_in(f->folder), 0);
    assert_true(copy_cache_version(f->cache) > version);
}

static void a_copy_that_is_dropped_while_in_use_goes_when_it_is_free(void **state)
{
    struct fixture *f = *state;
    struct hash a = keep(f, 'a'), b = keep(f, 'b');
    f->in_use[f->in_use_count++] = a;
    assert_false(copy_cache_drop(f->cache, &a));
    assert_true(copy_cache_drop(f->cache, &b));
    assert_true(copy_cache_drop(f->cache, &b)); /* a repeat */
    copy_cache_trim(f->cache, 0);
    assert_non_null(copy_cache_find(f->cache, &a));
    f->in_use_count = 0;
    copy_cache_trim(f->cache, 0);
    assert_null(copy_cache_find(f->cache, &a));
    assert_int_equal(names_in(f->folder), 0);
}

static void a_copy_somebody_has_written_to_is_thrown_away(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"a/b", "manifest.json"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        struct hash content = keep(f, 'x');
        char *path = copy_cache_path(f->cache, &content);
        char *file = mem_printf("%s/%s", path, names[i]);
        struct stat info;
        assert_int_equal(stat(file, &info), 0);
        assert_int_equal(info.st_mode & 0777, 0444);
        assert_int_equal(chmod(file, 0644), 0);
        int fd = open(file, O_RDWR);
        assert_int_equal(pwrite(fd, "X", 1, 0), 1); /* the size stays */
        close(fd);
        assert_null(copy_cache_find_whole(f->cache, &content));
        assert_false(file_exists(path));
        mem_free(file);
        mem_free(path);
    }
}

static void an_index_names_plain_files_with_size_and_hash_or_is_refused(void **state)
{
    static const char *const bad[] = {
        "", "[]", "{}", "{\"files\": []}", "{\"files\": [{\"name\": \"a\"}]}",
        "{\"files\": [{\"name\": \"a\", \"size_bytes\": 1, \"blake2b\": \"12\"}]}",
        "{\"files\": [{\"name\": \"../a\", \"size_bytes\": 1, \"blake2b\": "
        "\"0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8\"}]}",
        "{\"files\": [{\"name\": \"dataset.json\", \"size_bytes\": 1, \"blake2b\": "
        "\"0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8\"}]}",
        "{\"files\": [{\"name\": \"a\", \"size_bytes\": -1, \"blake2b\": "
        "\"0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8\"}]}"};
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct arena arena = {0};
        struct copy_file *files;
        size_t count;
        struct err err;
        assert_int_equal(
            copy_index_read(bad[i], strlen(bad[i]), true, &arena, &files, &count, &err), -1);
        assert_int_equal(err.kind, ERR_PROTOCOL);
        assert_non_null(strstr(err.text, "its dataset.json lists"));
        arena_done(&arena);
    }
    assert_true(copy_name_is_inside("deep/word"));
    assert_false(copy_name_is_inside("a//b"));
    assert_false(copy_name_is_inside("a/.."));
    assert_false(copy_name_is_inside("/a"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_copy_is_found_by_its_hash_also_after_a_restart),
        TEST(what_a_killed_daemon_left_half_done_is_removed_at_the_next_start),
        TEST(the_least_recently_used_go_first_and_never_what_is_in_use),
        TEST(a_copy_that_is_dropped_while_in_use_goes_when_it_is_free),
        TEST(a_copy_somebody_has_written_to_is_thrown_away),
        cmocka_unit_test(an_index_names_plain_files_with_size_and_hash_or_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
