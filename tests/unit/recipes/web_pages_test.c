/* web_pages_test.c - web archives and the text of pages, against web_pages_oracle.py (Python's own
 * html.parser, codecs, gzip), and what is damaged or hostile. */
#include "common/base/buf.h"
#include "common/base/json_text.h"
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "worker/recipes/data/web/document.h"
#include "worker/recipes/data/web/warc.h"

#include <jansson.h>
#include <spawn.h>
#include <sys/wait.h>
#include <zlib.h>

extern char **environ;

static const struct html_skip usual = {{"nav", "footer", "aside", "form", "menu", "dialog"}, 6};

/* -- the oracle ----------------------------------------------------------------------------- */

/* Its answers, a JSON value each; skips where there is no python3. */
static json_t *ask_oracle(const char *arguments)
{
    char *folder = folder_make(), *told = mem_printf("%s/told", folder), *answer;
    char *command = mem_printf("exec python3 tests/unit/recipes/web_pages_oracle.py %s >'%s'",
                               arguments, told);
    char *words[] = {"sh", "-c", command, NULL};
    json_t *all = json_array();
    struct err err;
    size_t length;
    pid_t pid;
    int status;

    if (access("/usr/bin/python3", X_OK) != 0) {
        print_message("[  SKIP  ] needs python3\n");
        skip();
    }
    assert_int_equal(posix_spawn(&pid, "/bin/sh", NULL, NULL, words, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(file_read(told, INPUT_BYTES_MAX, &answer, &length, &err), 0);
    for (char *rest = answer, *line; (line = strsep(&rest, "\n"));)
        if (*line)
            assert_int_equal(json_array_append_new(all, json_loads(line, 0, NULL)), 0);
    mem_free(answer);
    folder_done(folder);
    mem_free(told);
    mem_free(command);
    return all;
}

/* -- archives ------------------------------------------------------------------------------- */

static int take(void *argument, struct document_line *line, struct err *err)
{
    json_t *made = json_object();

    (void)err;
    if (!line->document) {
        json_object_set_new(made, "malformed", json_string(line->malformed));
    } else {
        assert_int_equal(strlen(line->document->text), line->document->length);
        json_object_set_new(made, "id", json_string(line->document->id));
        json_object_set_new(made, "url", json_string(line->document->url));
        if (line->no_page)
            json_object_set_new(made, "no_page", json_true());
        else
            json_object_set_new(made, "text", json_string(line->document->text));
    }
    json_array_append_new(argument, made);
    return 0;
}

static json_t *read_pages(const char *path)
{
    struct document_list list = {.skip = usual};
    json_t *all = json_array();
    struct err err = {0};

    if (document_list_add(&list, path, 4096, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(list.block_count, 1);
    assert_true(list.files[0].archive);
    if (document_read(&list, 0, take, all, &err) < 0)
        fail_msg("%s", err.text);
    document_list_done(&list);
    return all;
}

static void assert_same(const json_t *ours, const json_t *oracle)
{
    for (size_t i = 0; i < json_array_size(ours) && i < json_array_size(oracle); i++) {
        const json_t *a = json_array_get(ours, i), *b = json_array_get(oracle, i);
        if (json_equal(a, b))
            continue;
        const char *x = json_string_value(json_object_get(a, "text"));
        const char *y = json_string_value(json_object_get(b, "text"));
        size_t same = 0;
        while (x && y && x[same] && x[same] == y[same])
            same++;
        size_t from = same > 40 ? same - 40 : 0;
        fail_msg("document %zu, %s: at %zu '%.80s', the oracle '%.80s'", i,
                 json_string_value(json_object_get(b, "url")), same, x ? x + from : "none",
                 y ? y + from : "none");
    }
    assert_int_equal(json_array_size(ours), json_array_size(oracle));
}

static void built_archives_hold_what_the_oracle_says(void **state)
{
    static const char *const names[] = {"built.warc", "built.warc.gz"};
    char *folder = folder_make();

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *path = mem_printf("%s/%s", folder, names[i]);
        char *arguments = mem_printf("make '%s'", path);
        json_t *oracle = ask_oracle(arguments), *ours = read_pages(path);
        assert_true(json_array_size(oracle) > 50);
        assert_same(ours, oracle);
        json_decref(ours);
        json_decref(oracle);
        mem_free(arguments);
        mem_free(path);
    }
    folder_done(folder);
}

static void a_crawl_holds_what_the_oracle_says(void **state)
{
    const char *shared = getenv("ATHANOR_SHARED_DATA");
    char *path = mem_printf("%s/webdocs/sample-0000.warc.gz",
                            shared && *shared ? shared : "../shared/data");

    (void)state;
    if (!file_exists(path)) {
        print_message("[  SKIP  ] needs %s\n", path);
        mem_free(path);
        skip();
    }
    char *arguments = mem_printf("read '%s'", path);
    json_t *oracle = ask_oracle(arguments), *ours = read_pages(path);
    assert_int_equal(json_array_size(oracle), 22);
    assert_same(ours, oracle);
    json_decref(ours);
    json_decref(oracle);
    mem_free(arguments);
    mem_free(path);
}

/* -- pages ---------------------------------------------------------------------------------- */

/* Pages of pieces that both take for the same: html.parser is looser than browsers elsewhere. */
static char *random_page(uint64_t number)
{
    static const char *const pieces[] = {
        "word", " ", "\n", "two words", "<p>", "</p>", "<div class=\"a>b\">", "</div>", "<br/>",
        "<b>", "</b>", "&amp;", "&lt;p&gt;", "&notit;", "&notin;", "&#x2014;", "&#8217", "&nosuch;",
        "& ", "<nav>", "</nav>", "<aside>", "</aside>", "<script>if (a<b) x='<p>';</script>",
        "<style>p{}</style>", "<!-- <p> not seen -->", "<td>", "<li title='x'>", "</ul>", "<svg>",
        "</svg>", "\xC3\xA9", "<H2 ID=x>", "</H2>", "<form>", "</form>", "&hellip;", "&Aacute",
        "<img src=a.png alt='x'>", "<pre>", "</pre>", "\t"};
    struct buf out = {0};
    size_t length = rng_at(3, number, 0) % 60;

    for (size_t i = 0; i < length; i++)
        buf_puts(&out, pieces[rng_at(3, number, i + 1) % ARRAY_COUNT(pieces)]);
    char *text = mem_strdup(buf_text(&out));
    buf_done(&out);
    return text;
}

static void pages_say_what_the_oracle_says(void **state)
{
    enum { PAGES = 1500 };
    char *folder = folder_make(), *path = mem_printf("%s/pages.jsonl", folder);
    char *arguments = mem_printf("html <'%s'", path);
    struct buf lines = {0}, text = {0};
    struct err err;

    (void)state;
    for (uint64_t i = 0; i < PAGES; i++) {
        char *page = random_page(i);
        buf_puts(&lines, "{\"html\": ");
        json_text_quote(&lines, page, strlen(page));
        buf_puts(&lines, "}\n");
        mem_free(page);
    }
    assert_int_equal(file_replace(path, lines.bytes, lines.length, 0644, &err), 0);
    json_t *oracle = ask_oracle(arguments);
    assert_int_equal(json_array_size(oracle), PAGES);
    for (uint64_t i = 0; i < PAGES; i++) {
        char *page = random_page(i);
        const char *said =
            json_string_value(json_object_get(json_array_get(oracle, (size_t)i), "text"));
        buf_clear(&text);
        html_text(&usual, page, strlen(page), &text);
        if (strcmp(buf_text(&text), said) != 0)
            fail_msg("'%s': '%s', the oracle '%s'", page, buf_text(&text), said);
        mem_free(page);
    }
    json_decref(oracle);
    buf_done(&lines);
    buf_done(&text);
    mem_free(arguments);
    folder_done(folder);
    mem_free(path);
}

/* What browsers do and html.parser does not, or not in every version. */
static void pages_are_cut_as_browsers_cut_them(void **state)
{
    static const struct {
        const char *html, *text;
    } pages[] = {
        {"", ""},
        {"a < b and c <3", "a < b and c <3"},
        {"a<", "a<"},
        {"x<p", "x"},
        {"x<a title='open>y", "x"},
        {"<a title='it>s' href=b>c>d</a>e", "c>de"},
        {"<a =x>y</a>", "y"},
        {"<!DOCTYPE html><?php p() ?>x<!x>y</>z</ b>w", "xyzw"},
        {"a<!-->b<!--->c<!-- -- --!>d<!-- open", "abcd"},
        {"a<script>x</script >b<SCRIPT>'</scripty>'</ScRiPt>c<script>open", "abc"},
        {"<title>T</title>x<textarea><p>in</p></textarea>y", "xy"},
        {"one<p>two\n\n three<br>four<div><div>five</div>", "one\ntwo three\nfour\nfive"},
        {"<table><tr><td>a</td><td>b</td></tr><tr><th>c<td>d</table>", "a b\nc d"},
        {"<pre>\n  if x:\n    y\n</pre>z", "if x:\n    y\nz"},
        {"a<nav>menu<nav>in</nav></nav>b", "a\nb"},
        {"a<nav>not closed<p>b", "a\nnot closed\nb"},
        {"a<nav><nav>x</nav>b", "a\nb"},
        {"a</nav>b<noscript>c</noscript>d", "a\nbd"},
        {"&amp&AMP;&copy;&copycat;&ampx;&#0;&#x110000;&#xD800;&#150;&#65", "&&\xC2\xA9\xC2\xA9"
         "cat;&x;\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xE2\x80\x93" "A"},
        {"&#;&#x;&;&&#99999999999999999999;&NotEqualTilde;", "&#;&#x;&;&\xEF\xBF\xBD"
         "\xE2\x89\x82\xCC\xB8"},
        {"a\x01" "b\x7F" "c\xC2\xA0" "d", "abc\xC2\xA0" "d"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(pages); i++) {
        struct buf out = {0};
        html_text(&usual, pages[i].html, strlen(pages[i].html), &out);
        if (strcmp(buf_text(&out), pages[i].text) != 0)
            fail_msg("'%s': '%s', not '%s'", pages[i].html, buf_text(&out), pages[i].text);
        buf_done(&out);
    }
}

/* A mebibyte of each: what takes quadratic time somewhere would not end within the test's time. */
static void hostile_pages_take_linear_time(void **state)
{
    static const char *const pieces[] = {"<a ", "<a b=c ", "<div>", "</b>", "<nav>", "</nav>",
                                         "<!--", "<!-", "-", "&", "&#", "&a", "<script>",
                                         "</script",
                                         "<", "</", "<pre>\n", "<a b='", "<p", "&notit"};
    struct buf page = {0}, out = {0};

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_COUNT(pieces); i++) {
        const char *piece = pieces[i % ARRAY_COUNT(pieces)];
        buf_clear(&page);
        buf_clear(&out);
        while (page.length < 1 << 20) {
            buf_puts(&page, piece);
            if (i >= ARRAY_COUNT(pieces))
                buf_puts(&page, pieces[(i + 7) % ARRAY_COUNT(pieces)]);
        }
        html_text(&usual, page.bytes, page.length, &out);
        assert_true(out.length <= page.length);
    }
    buf_done(&page);
    buf_done(&out);
}

/* -- damage --------------------------------------------------------------------------------- */

static json_t *read_bytes(const char *bytes, size_t length)
{
    char *folder = folder_make(), *path = mem_printf("%s/some.warc", folder);
    struct err err;

    assert_int_equal(file_replace(path, bytes, length, 0644, &err), 0);
    json_t *all = read_pages(path);
    folder_done(folder);
    mem_free(path);
    return all;
}

#define GOOD                                                                                       \
    "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <a>\r\nContent-Type: text/plain\r\n"     \
    "Content-Length: 5\r\n\r\nhello\r\n\r\n"

static void what_is_torn_is_malformed_and_the_rest_is_read(void **state)
{
    static const struct {
        const char *bytes, *says;
        size_t good;
    } files[] = {
        {GOOD GOOD, NULL, 2},
        {GOOD "garbage\nand more\n" GOOD, "no record", 2},
        {GOOD "WARC/2.0\r\nWARC-Type: x\r\n\r\n" GOOD, "no record", 2},
        {GOOD "WARC/1.1\r\nContent-Length: 0\r\n\r\n\r\n\r\n" GOOD, "no WARC-Type", 2},
        {GOOD "WARC/1.1\r\nWARC-Type: response\r\n\r\n\r\n" GOOD, "no Content-Length", 2},
        {GOOD "WARC/1.1\r\nWARC-Type: x\r\nContent-Length: -1\r\n\r\n" GOOD, "'-1' is no", 2},
        {GOOD "WARC/1.1\r\nWARC-Type: x\r\nContent-Length: 99999999999\r\n\r\n" GOOD,
         "ends within a record", 1},
        {GOOD "WARC/1.1\r\nWARC-Type: x\r\n", "ends within a record's header", 1},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
        json_t *all = read_bytes(files[i].bytes, strlen(files[i].bytes));
        size_t good = 0, k;
        const json_t *made;
        const char *said = NULL;
        json_array_foreach(all, k, made) {
            good += json_object_get(made, "text") != NULL;
            if (json_object_get(made, "malformed"))
                said = json_string_value(json_object_get(made, "malformed"));
        }
        if (good != files[i].good || (said != NULL) != (files[i].says != NULL) ||
            (said && !strstr(said, files[i].says)))
            fail_msg("file %zu: %zu documents, '%s'", i, good, said ? said : "");
        json_decref(all);
    }
}

/* A page of 64 MiB of zeros in 64 KiB, and one that only claims to be packed. */
static void a_bomb_is_no_page(void **state)
{
    size_t length = (size_t)64 << 20;
    char *zeros = mem_zalloc(length);
    uLongf packed_length = compressBound(length);
    Bytef *packed = mem_alloc(packed_length);
    struct buf content = {0}, text = {0};
    struct warc_header header = {.type = WARC_RESPONSE};

    (void)state;
    assert_int_equal(compress(packed, &packed_length, (Bytef *)zeros, length), Z_OK);
    buf_puts(&content, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
                       "Content-Encoding: gzip\r\n\r\n");
    size_t head = content.length;
    buf_add(&content, packed, packed_length);
    const char *why = warc_page_text(&header, &usual, content.bytes, content.length, &text);
    assert_non_null(strstr(why, "32 MiB"));
    assert_int_equal(text.length, 0);
    content.length = head;
    buf_puts(&content, "<p>unpacked already");
    assert_null(warc_page_text(&header, &usual, content.bytes, content.length, &text));
    assert_string_equal(text.bytes, "unpacked already");
    buf_done(&content);
    buf_done(&text);
    mem_free(packed);
    mem_free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_archives_hold_what_the_oracle_says),
        cmocka_unit_test(a_crawl_holds_what_the_oracle_says),
        cmocka_unit_test(pages_say_what_the_oracle_says),
        cmocka_unit_test(pages_are_cut_as_browsers_cut_them),
        cmocka_unit_test(hostile_pages_take_linear_time),
        cmocka_unit_test(what_is_torn_is_malformed_and_the_rest_is_read),
        cmocka_unit_test(a_bomb_is_no_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
