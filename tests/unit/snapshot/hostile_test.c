/* hostile_test.c - archives that somebody made by hand: refused, and nothing leaves the folder. */
#include "tests/unit/snapshot/support.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>

struct item {
    const char *path, *link, *hardlink;
    mode_t type, mode; /* 0: a file, 0644 */
};

static int archive_of(const struct item *items, size_t count)
{
    int fd = memory_file();
    struct archive *archive = archive_write_new();
    assert_int_equal(archive_write_set_format_gnutar(archive), ARCHIVE_OK);
    assert_int_equal(archive_write_open_fd(archive, fd), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        struct archive_entry *entry = archive_entry_new();
        archive_entry_set_pathname(entry, items[i].path);
        archive_entry_set_filetype(entry, items[i].type ? items[i].type : S_IFREG);
        archive_entry_set_perm(entry, items[i].mode ? items[i].mode : 0644);
        archive_entry_set_size(entry, 0);
        if (items[i].link)
            archive_entry_set_symlink(entry, items[i].link);
        if (items[i].hardlink)
            archive_entry_set_hardlink(entry, items[i].hardlink);
        archive_write_header(archive, entry);
        archive_entry_free(entry);
    }
    assert_int_equal(archive_write_free(archive), ARCHIVE_OK);
    return fd;
}

static size_t entries_in(const char *folder)
{
    size_t count = 0;
    DIR *open = opendir(folder);
    assert_non_null(open);
    while (readdir(open))
        count++;
    closedir(open);
    return count - 2;
}

/* Refused with a text that says why, and beside the folder there is nothing new. */
static void assert_refused(int fd, const char *part)
{
    char *outer = folder_make(), *inner = mem_printf("%s/inner", outer);
    struct snapshot_counts counts;
    struct buf list = {0};
    struct err err;
    assert_int_equal(mkdir(inner, 0755), 0);
    assert_int_equal(snapshot_extract(fd, inner, true, &counts, &err), -1);
    if (!strstr(err.text, part))
        fail_msg("'%s' has no '%s'", err.text, part);
    assert_int_equal(snapshot_list(fd, list_one, &list, &err), -1);
    assert_int_equal(entries_in(outer), 1);
    buf_done(&list);
    close(fd);
    mem_free(inner);
    folder_drop(outer);
}

static void paths_out_of_the_folder_are_refused(void **state)
{
    (void)state;
    static const char *const paths[] = {"../x", "/tmp/x", "a/../../x", "a/./b", "a//b", ".", "..",
                                        "a/..", "\xff"};
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++)
        assert_refused(archive_of(&(struct item){.path = paths[i]}, 1), "a path in the archive");
}

static void links_out_of_the_folder_are_refused(void **state)
{
    (void)state;
    static const struct item items[] = {
        {"l", "/etc", NULL, S_IFLNK, 0777},
        {"l", "..", NULL, S_IFLNK, 0777},
        {"d/l", "../../x", NULL, S_IFLNK, 0777},
        {"d/l", "m/../../../x", NULL, S_IFLNK, 0777},
    };
    for (size_t i = 0; i < ARRAY_COUNT(items); i++)
        assert_refused(archive_of(&items[i], 1), "the link");
}

static void a_path_through_a_link_is_refused(void **state)
{
    (void)state;
    static const struct item items[] = {{"l", "d", NULL, S_IFLNK, 0777}, {"l/x"}};
    assert_refused(archive_of(items, 2), "which is no folder");
}

static void everything_but_files_and_links_is_refused(void **state)
{
    (void)state;
    static const struct item items[] = {
        {"x", NULL, NULL, S_IFCHR}, {"x", NULL, NULL, S_IFBLK},   {"x", NULL, NULL, S_IFIFO},
        {"x/", NULL, NULL, S_IFDIR}, {"x", NULL, "/etc/passwd"}, {"x", NULL, "y"},
        {"x", NULL, NULL, 0, 04755}, {"x", NULL, NULL, 0, 0666},
    };
    for (size_t i = 0; i < ARRAY_COUNT(items); i++)
        assert_refused(archive_of(&items[i], 1), "");
}

static void doubles_and_disorder_are_refused(void **state)
{
    (void)state;
    static const struct item twice[] = {{"a"}, {"a"}}, disorder[] = {{"b"}, {"a"}},
                             below[] = {{"a"}, {"a/b"}};
    assert_refused(archive_of(twice, 2), "twice or out of order");
    assert_refused(archive_of(disorder, 2), "twice or out of order");
    assert_refused(archive_of(below, 2), "no folder");
}

/* A header that claims more than there is, or more than may be. */
static void sizes_that_are_not_true_are_refused(void **state)
{
    (void)state;
    static const char *const sizes[] = {"00000002000", "77777777777"};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        int fd = archive_of(&(struct item){.path = "a"}, 1);
        char header[512];
        assert_int_equal(pread(fd, header, sizeof header, 0), sizeof header);
        memcpy(header + 124, sizes[i], 11);
        memset(header + 148, ' ', 8);
        unsigned sum = 0;
        for (size_t k = 0; k < sizeof header; k++)
            sum += (unsigned char)header[k];
        snprintf(header + 148, 8, "%06o", sum);
        assert_int_equal(pwrite(fd, header, sizeof header, 0), sizeof header);
        assert_int_equal(ftruncate(fd, 1024), 0);
        assert_refused(fd, "");
    }
}

static void other_formats_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"\x1f\x8b\x08garbage", "PK\x03\x04", "no archive at all",
                                        "#mtree\n./x type=file\n"};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        int fd = memory_file();
        assert_true(write(fd, texts[i], strlen(texts[i])) > 0);
        assert_refused(fd, "damaged");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_out_of_the_folder_are_refused),
        cmocka_unit_test(links_out_of_the_folder_are_refused),
        cmocka_unit_test(a_path_through_a_link_is_refused),
        cmocka_unit_test(everything_but_files_and_links_is_refused),
        cmocka_unit_test(doubles_and_disorder_are_refused),
        cmocka_unit_test(sizes_that_are_not_true_are_refused),
        cmocka_unit_test(other_formats_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
