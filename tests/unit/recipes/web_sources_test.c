/* web_sources_test.c - the rules for code, social media and encyclopedias against
 * web_sources_oracle.py, which shares nothing with them but the published definitions; every limit
 * just below, at and above; secrets, and the fields of documents. */
#include "common/base/json_text.h"
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "worker/recipes/data/web/secrets.h"
#include "worker/recipes/data/web/source.h"

#include <jansson.h>
#include <math.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* -- texts ---------------------------------------------------------------------------------- */

struct made {
    char *text;
    const char *ext;
};

#define MADE_MAX 400

static const char *const any_pieces[] = {
    "word", " ", "\n", "\r\n", "_x1", "+=", "(", "\xC3\xA4", "\xE4\xBD\xA0", "7", "\xC2\xB2",
    "\t", "\xC2\xA0", "==", "long_identifier", "\n\n", ".", "\xE2\x80\xA6", "\r"};
static const char *const python_lines[] = {
    "x = 'a # b'  # why\n", "# a comment\n", "\n", "def f(a,\n      b):\n",
    "    \"\"\"What it does.\n"
    "    # inside \"quotes\" too\n    \"\"\"\n", "    return a\n", "y = \"\"\"no docstring\"\"\"\n",
    "z = (1,\n     '''in brackets'''\n     )\n", "s = 'it\\'s'\n", "r'''raw docstring \\w'''\n",
    "t = \"\xC3\xA4\" # \xC3\xB6\n", "d = {'k': [1, 2]}  # \xE4\xBD\xA0\n"};
static const char *const slash_lines[] = {
    "int x = 1; // one\n", "/* a\n * comment */\n", "s = \"// none /* of */ it\";\n",
    "c = '\\'';\n",
    "t = `back\n// tick`;\n", "y = a / b;\n", "u = \"\\\"\"; // \"end\n", "\n",
    "/** \xC3\xA4 **/ z();\n",
    "v = 'open\n"};

static char *random_lines(const char *const *pieces, size_t count, uint64_t number)
{
    struct buf out = {0};

    for (uint64_t i = 0; i < 1 + rng_at(31, number, 0) % 40; i++)
        buf_puts(&out, pieces[rng_at(31, number, 1 + i) % count]);
    return buf_take(&out);
}

static size_t make_texts(struct made *out)
{
    size_t count = 0;

    for (uint64_t i = 0; count < MADE_MAX; i++) {
        unsigned kind = i % 4;
        out[count++] = (struct made){
            kind == 0   ? random_lines(python_lines, ARRAY_COUNT(python_lines), i)
            : kind == 1 ? random_lines(slash_lines, ARRAY_COUNT(slash_lines), i)
                        : random_lines(any_pieces, ARRAY_COUNT(any_pieces), i),
            kind == 0 ? "py" : kind == 1 ? (i % 8 == 1 ? "js" : "java") : NULL};
    }
    return count;
}

/* -- secrets -------------------------------------------------------------------------------- */

#define TEN "a1B2c3D4e5"

/* Built from parts, so that no scanner of sources takes this file for one that leaks. */
static const struct {
    const char *prefix, *rest;
    size_t secrets;
} secret_table[] = {
    {"AKI" "A", "ABCDEFGHIJKLMNOP", 1},
    {"key=AKI" "A", "ABCDEFGHIJKLMNO", 0},
    {"AKI" "A", "ABCDEFGHIJKLMNOPQ", 0},
    {"xAKI" "A", "ABCDEFGHIJKLMNOP", 0},
    {"(ASI" "A", "ABCDEFGHIJKLMNOP)", 1},
    {"ghp" "_", TEN TEN TEN "abcdef", 1},
    {"ghp" "_", TEN TEN TEN "abcde", 0},
    {"token ghs" "_", TEN TEN TEN "abcdef.", 1},
    {"ghr" "_", TEN TEN TEN TEN TEN TEN TEN "abcdef", 1},
    {"ghr" "_", TEN TEN TEN TEN TEN TEN TEN "abcdefg", 0},
    {"github_pat" "_", TEN TEN "a_" TEN TEN TEN TEN TEN TEN, 1},
    {"glpat" "-", TEN "-" TEN, 1},
    {"AIz" "a", TEN TEN TEN "ab_-e", 1},
    {"AIz" "a", TEN TEN TEN "ab_-", 0},
    {"xox" "b-", "12345678901-abcdefgh", 1},
    {"xox" "b-", "short", 0},
    {"sk_li" "ve_", TEN TEN "abcd", 1},
    {"sk_te" "st_", TEN TEN "abcd", 0},
    {"np" "m_", TEN TEN TEN "abcdef", 1},
    {"SG" ".", TEN TEN "ab." TEN, 1},
    {"-----BEGIN RSA ", "PRIVATE KEY-----\nMII", 1},
    {"-----BEGIN ", "PRIVATE KEY-----", 1},
    {"-----BEGIN PGP ", "PRIVATE KEY BLOCK-----", 1},
    {"-----BEGIN PUBLIC", " KEY-----", 0},
    {"-----BEGIN PRIVATE", " KEYS-----", 0},
    {"ey" "J", TEN ".ey" "J" TEN "." TEN, 1},
    {"ey" "J", TEN ".ey" "J" TEN "." "123456789", 0},
    {"ey" "J", "short.ey" "J" TEN "." TEN, 0},
    {"db://me", ":word@host", 1},
    {"http://host", ":8080/a@b", 0},
    {"http://", "me@host", 0},
    {"ftp://a:b@c ", "ftp://d:e@f", 2},
    {"nothing ", "to see", 0},
};

static void secrets_are_found_as_the_table_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(secret_table); i++) {
        char *text = mem_printf("%s%s", secret_table[i].prefix, secret_table[i].rest);
        if (secrets_count(text, strlen(text)) != secret_table[i].secrets)
            fail_msg("%zu secrets instead of %zu in row %zu", secrets_count(text, strlen(text)),
                     secret_table[i].secrets, i);
        mem_free(text);
    }
}

/* -- the oracle ----------------------------------------------------------------------------- */

static json_t *ask_oracle(const struct made *made, size_t count)
{
    char *folder = folder_make(), *path = mem_printf("%s/texts.jsonl", folder), *answer;
    char *told = mem_printf("%s/answers.jsonl", folder);
    char *command = mem_printf("exec python3 tests/unit/recipes/web_sources_oracle.py <'%s' >'%s'",
                               path, told);
    char *arguments[] = {"sh", "-c", command, NULL};
    struct buf lines = {0};
    struct err err;
    json_t *all = json_array();
    size_t length;
    int status;
    pid_t pid;

    if (access("/usr/bin/python3", X_OK) != 0) {
        print_message("[  SKIP  ] needs python3\n");
        skip();
    }
    for (size_t i = 0; i < count; i++) {
        buf_puts(&lines, "{\"text\": ");
        json_text_quote(&lines, made[i].text, strlen(made[i].text));
        if (made[i].ext)
            buf_printf(&lines, ", \"ext\": \"%s\"", made[i].ext);
        buf_puts(&lines, "}\n");
    }
    assert_int_equal(file_replace(path, lines.bytes, lines.length, 0644, &err), 0);
    assert_int_equal(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(file_read(told, INPUT_BYTES_MAX, &answer, &length, &err), 0);
    for (char *at = answer, *end; (end = strchr(at, '\n')); at = end + 1)
        json_array_append_new(all, json_loadb(at, (size_t)(end - at), 0, NULL));
    assert_int_equal(json_array_size(all), count);
    buf_done(&lines);
    mem_free(answer);
    mem_free(told);
    mem_free(command);
    mem_free(path);
    folder_done(folder);
    return all;
}

static void compare_measure(const struct made *made, const json_t *expected,
                            enum source_measure measure, double value)
{
    const json_t *wanted = json_object_get(expected, source_name(measure));

    if (!wanted)
        return;
    if (json_is_null(wanted) ? !isnan(value)
                             : !(fabs(value - json_number_value(wanted)) <= 1e-12))
        fail_msg("%s: %.17g, the oracle says %.17g, of '%.400s'", source_name(measure), value,
                 json_number_value(wanted), made->text);
}

static void every_measure_agrees_with_the_oracle(void **state)
{
    struct made made[MADE_MAX + ARRAY_COUNT(secret_table)];
    size_t count = make_texts(made);

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(secret_table); i++)
        made[count++] = (struct made){
            mem_printf("%s%s", secret_table[i].prefix, secret_table[i].rest), NULL};
    json_t *all = ask_oracle(made, count);
    for (size_t i = 0; i < count; i++) {
        struct document document = {.text = made[i].text, .length = strlen(made[i].text),
                                    .ext = (char *)made[i].ext};
        const json_t *expected = json_array_get(all, i);
        double code[SOURCE_END], social[SOURCE_END], wiki[SOURCE_END];
        source_code(&document, code);
        source_social(&document, social);
        source_wiki(&document, wiki);
        for (enum source_measure m = 0; m < SOURCE_END; m++)
            compare_measure(&made[i], expected, m, !isnan(code[m])     ? code[m]
                                                   : !isnan(social[m]) ? social[m]
                                                                       : wiki[m]);
        assert_int_equal(secrets_count(document.text, document.length),
                         json_integer_value(json_object_get(expected, "secrets")));
    }
    json_decref(all);
    for (size_t i = 0; i < count; i++)
        mem_free(made[i].text);
}

/* -- limits --------------------------------------------------------------------------------- */

/* The card's, written out again: measure, low, high; NAN: none. */
static const struct {
    enum source_measure measure;
    double low, high;
} card[] = {
    {SOURCE_CODE_LINE_MEAN, NAN, 100},        {SOURCE_CODE_LINE_MAX, NAN, 1000},
    {SOURCE_CODE_ALNUM, .25, NAN},            {SOURCE_CODE_ALPHA_TOKENS, 1.5, NAN},
    {SOURCE_CODE_STARS, NAN, NAN},            {SOURCE_CODE_COMMENTS, .01, .8},
    {SOURCE_CODE_HTML_TEXT, .2, NAN},         {SOURCE_SOCIAL_COMMENT, 500, 40000},
    {SOURCE_SOCIAL_SUBMISSION, 400, 40000},   {SOURCE_SOCIAL_VOTES, 3, NAN},
    {SOURCE_WIKI_WORDS, 26, NAN},
};

static enum source_measure judge_one(enum source_measure measure, double value)
{
    struct source_limits limits;
    double all[SOURCE_END];

    for (int m = 0; m < SOURCE_END; m++)
        all[m] = NAN;
    all[measure] = value;
    source_limits_init(&limits);
    return source_judge(&limits, all);
}

static void a_limit_itself_passes_and_what_is_beyond_it_does_not(void **state)
{
    (void)state;
    assert_int_equal(ARRAY_COUNT(card), SOURCE_END);
    for (size_t i = 0; i < ARRAY_COUNT(card); i++) {
        enum source_measure m = card[i].measure;
        double low = card[i].low, high = card[i].high;
        assert_int_equal(judge_one(m, isnan(low) ? -1e9 : low), SOURCE_END);
        assert_int_equal(judge_one(m, isnan(high) ? 1e9 : high), SOURCE_END);
        assert_int_equal(judge_one(m, NAN), SOURCE_END);
        if (!isnan(low))
            assert_int_equal(judge_one(m, nextafter(low, -1e9)), m);
        if (!isnan(high))
            assert_int_equal(judge_one(m, nextafter(high, 1e9)), m);
        assert_int_equal(source_find(source_name(m), strlen(source_name(m))), m);
    }
    assert_int_equal(source_find("code", 4), SOURCE_END);
}

/* -- fields --------------------------------------------------------------------------------- */

static void fields_are_read_from_the_line_or_its_metadata(void **state)
{
    static const char line[] =
        "{\"id\": \"1\", \"text\": \"t\", \"path\": \"A.d/B.Py\", \"lang\": \"C#\", "
        "\"stars\": 3.5, "
        "\"metadata\": {\"title\": \"T\", \"score\": 2, \"type\": \"Comment\", \"over_18\": true, "
        "\"subreddit\": \"AskX\", \"stars\": 9}}";
    static const char other[] = "{\"id\": \"1\", \"text\": \" [Removed] \", \"path\": \"a.d/b\", "
                                "\"votes\": \"4\", \"over_18\": 1, \"stars\": null}";
    struct document document;
    struct err err;

    (void)state;
    assert_int_equal(document_parse(line, strlen(line), &document, &err), 0);
    assert_string_equal(document.ext, "py");
    assert_string_equal(document.lang, "c#");
    assert_string_equal(document.title, "T");
    assert_string_equal(document.type, "comment");
    assert_string_equal(document.subreddit, "askx");
    assert_true(document.has_stars && document.stars == 3.5);
    assert_true(document.has_votes && document.votes == 2);
    assert_true(document.adult && !document.deleted);
    document_done(&document);
    assert_int_equal(document_parse(other, strlen(other), &document, &err), 0);
    assert_null(document.ext);
    assert_false(document.has_stars || document.has_votes || document.adult || document.deleted);
    document_done(&document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_are_found_as_the_table_says),
        cmocka_unit_test(every_measure_agrees_with_the_oracle),
        cmocka_unit_test(a_limit_itself_passes_and_what_is_beyond_it_does_not),
        cmocka_unit_test(fields_are_read_from_the_line_or_its_metadata),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
