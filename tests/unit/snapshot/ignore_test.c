/* ignore_test.c - .gitignore as git reads it: cases by hand, and random trees beside git. */
#include "tests/unit/snapshot/support.h"

#include "common/base/rng.h"
#include "common/snapshot/ignore.h"

#include <sys/wait.h>

static enum ignore_verdict verdict(const char *rules, const char *path, bool is_folder)
{
    struct ignore *ignore = ignore_parse(rules, strlen(rules));
    enum ignore_verdict result = ignore_match(ignore, path, is_folder);
    ignore_free(ignore);
    return result;
}

static void the_forms_of_the_manual_mean_what_it_says(void **state)
{
    (void)state;
    static const struct {
        const char *rules, *path;
        bool folder;
        enum ignore_verdict expected;
    } cases[] = {
        {"*.o", "a.o", false, IGNORE_OUT},
        {"*.o", "deep/a.o", false, IGNORE_OUT},
        {"/*.o", "deep/a.o", false, IGNORE_SILENT},
        {"doc/frotz", "a/doc/frotz", false, IGNORE_SILENT},
        {"build/", "build", true, IGNORE_OUT},
        {"build/", "build", false, IGNORE_SILENT},
        {"build/", "a/build", true, IGNORE_OUT},
        {"**/foo/bar", "x/y/foo/bar", false, IGNORE_OUT},
        {"**/foo/bar", "foo/bar", false, IGNORE_OUT},
        {"abc/**", "abc/x/y", false, IGNORE_OUT},
        {"abc/**", "abc", true, IGNORE_SILENT},
        {"a/**/b", "a/b", false, IGNORE_OUT},
        {"a/**/b", "a/x/y/b", false, IGNORE_OUT},
        {"a/**/b", "ab", false, IGNORE_SILENT},
        {"a*c/d", "a/c/d", false, IGNORE_SILENT},
        {"*.o\n!keep.o", "keep.o", false, IGNORE_IN},
        {"!keep.o\n*.o", "keep.o", false, IGNORE_OUT},
        {"# *.o", "# *.o", false, IGNORE_SILENT},
        {"\\#x", "#x", false, IGNORE_OUT},
        {"\\!x", "!x", false, IGNORE_OUT},
        {"x  ", "x", false, IGNORE_OUT},
        {"x\\ ", "x ", false, IGNORE_OUT},
        {"x\r\n", "x", false, IGNORE_OUT},
        {"\xef\xbb\xbfx", "x", false, IGNORE_OUT},
        {"[a-c]1", "b1", false, IGNORE_OUT},
        {"[!a-c]1", "b1", false, IGNORE_SILENT},
        {"[[:digit:]]x", "7x", false, IGNORE_OUT},
        {"[]-]x", "]x", false, IGNORE_OUT},
        {"[]-]x", "-x", false, IGNORE_OUT},
        {"[", "[", false, IGNORE_SILENT},
        {"x\\", "x\\", false, IGNORE_SILENT},
        {"a?c/d", "a/c/d", false, IGNORE_SILENT},
        {"/", "a", true, IGNORE_SILENT},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        if (verdict(cases[i].rules, cases[i].path, cases[i].folder) != cases[i].expected)
            fail_msg("'%s' of '%s'", cases[i].rules, cases[i].path);
}

static void no_pattern_makes_matching_slow(void **state)
{
    (void)state;
    struct buf rules = {0}, path = {0};
    for (int i = 0; i < 1000; i++)
        buf_puts(&rules, "*a");
    buf_puts(&rules, "*b");
    for (int i = 0; i < 1000; i++)
        buf_puts(&path, "a");
    assert_int_equal(verdict(buf_text(&rules), buf_text(&path), false), IGNORE_SILENT);
    buf_done(&rules);
    buf_done(&path);
}

/* ---- beside git --------------------------------------------------------------------------- */

static const char *pick(struct rng *rng, const char *const *from, size_t count)
{
    return from[rng_below(rng, count)];
}

static void random_pattern(struct rng *rng, struct buf *out)
{
    static const char *const pieces[] = {"a",  "b",   "ab", "*",    "**",    "?",   "/",   "/",
                                         "[ab]", "[!a]", "\\a", "**/", "/**", "[a-c]", ".",
                                         "[[:alpha:]]", "c", "[", "\\", "]", "-", "[b-]", " "};
    size_t count = 1 + rng_below(rng, 5);
    if (rng_below(rng, 4) == 0)
        buf_putc(out, '!');
    for (size_t i = 0; i < count; i++)
        buf_puts(out, pick(rng, pieces, ARRAY_COUNT(pieces)));
    if (rng_below(rng, 4) == 0)
        buf_putc(out, '/');
    buf_putc(out, '\n');
}

static void random_tree(struct rng *rng, const char *folder)
{
    static const char *const names[] = {"a", "b", "ab", "abc", "c.b", "-", "ca", ".a"};
    for (size_t i = 0; i < 25; i++) {
        struct buf path = {0};
        for (size_t depth = rng_below(rng, 4); depth > 0; depth--)
            buf_printf(&path, "d%s/", pick(rng, names, ARRAY_COUNT(names)));
        buf_puts(&path, pick(rng, names, ARRAY_COUNT(names)));
        put(folder, buf_text(&path), "x");
        if (rng_below(rng, 5) == 0) {
            struct buf rules = {0};
            for (size_t k = 1 + rng_below(rng, 4); k > 0; k--)
                random_pattern(rng, &rules);
            char *last = strrchr(path.bytes, '/');
            path.length = last ? (size_t)(last + 1 - path.bytes) : 0;
            buf_puts(&path, ".gitignore");
            put(folder, buf_text(&path), buf_text(&rules));
            buf_done(&rules);
        }
        buf_done(&path);
    }
}

/* Runs `sh -c script`; what it prints (mem_free). */
static char *output_of(const char *script, int *out_status)
{
    struct buf out = {0};
    char chunk[4096];
    ssize_t got;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        close(pipes[0]);
        execl("/bin/sh", "sh", "-c", script, NULL);
        _exit(127);
    }
    close(pipes[1]);
    while ((got = read(pipes[0], chunk, sizeof chunk)) > 0)
        buf_add(&out, chunk, (size_t)got);
    close(pipes[0]);
    assert_int_equal(waitpid(pid, out_status, 0), pid);
    buf_add(&out, "", 1);
    out.length--;
    return buf_take(&out);
}

static bool succeeds(const char *script)
{
    int status;
    mem_free(output_of(script, &status));
    return status == 0;
}

static int by_path(const void *a, const void *b)
{
    return snapshot_path_compare(*(char *const *)a, *(char *const *)b);
}

static char *lines_sorted(char *text)
{
    char **lines = NULL;
    size_t count = 0, capacity = 0;
    struct buf out = {0};
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        if (!*line)
            continue;
        VEC_RESERVE(lines, count, capacity);
        lines[count++] = line;
    }
    if (count)
        qsort(lines, count, sizeof *lines, by_path);
    for (size_t i = 0; i < count; i++)
        buf_printf(&out, "%s\n", lines[i]);
    mem_free(lines);
    mem_free(text);
    buf_puts(&out, ""); /* never NULL */
    return buf_take(&out);
}

static void compare_with_git(uint64_t seed, const char *below)
{
    struct rng rng;
    char *folder = folder_make();
    rng_init(&rng, seed);
    random_tree(&rng, folder);
    put(folder, "da/never-empty", "x");
    put(folder, "never-empty", "x");
    /* A folder that is named is packed, even where a rule above leaves it out. */
    char *left_out = mem_printf("cd %s && git init -q . && git -c core.excludesFile=/dev/null "
                                "check-ignore -q ./%s",
                                folder, *below ? below : "none");
    if (*below && succeeds(left_out))
        below = "";
    mem_free(left_out);
    char *command = mem_printf("cd %s && git init -q . && cd ./%s && "
                               "git -c core.excludesFile=/dev/null -c core.quotePath=false "
                               "ls-files --others --exclude-standard",
                               folder, below);
    int status;
    char *wanted = lines_sorted(output_of(command, &status));
    assert_int_equal(status, 0);
    char *start = mem_printf("%s/%s", folder, below);
    int fd = memory_file();
    struct snapshot_counts counts;
    struct err err;
    int rc = snapshot_pack(start, fd, &counts, &err);
    char *got = rc == 0 ? lines_sorted(listing(fd)) : mem_strdup("");
    if (strcmp(wanted, got) != 0)
        fail_msg("seed %llu, below '%s': git lists\n%s\nwe pack\n%s", (unsigned long long)seed,
                 below, wanted, got);
    close(fd);
    mem_free(got);
    mem_free(start);
    mem_free(wanted);
    mem_free(command);
    folder_drop(folder);
}

static void random_trees_are_packed_as_git_lists_them(void **state)
{
    (void)state;
    const char *mode = getenv("ATHANOR_TEST_MODE");
    if (!succeeds("git --version")) {
        print_message("skipped: no git to compare with\n");
        skip();
    }
    uint64_t count = mode && strcmp(mode, "long") == 0 ? 3000 : 40;
    for (uint64_t seed = 1; seed <= count; seed++)
        compare_with_git(seed, seed % 4 == 0 ? "da" : "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_forms_of_the_manual_mean_what_it_says),
        cmocka_unit_test(no_pattern_makes_matching_slow),
        cmocka_unit_test(random_trees_are_packed_as_git_lists_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
