/* pieces_test.c - the pre-tokeniser's vectors, and that no byte is lost. */
#include "common/base/buf.h"
#include "common/base/json_text.h"
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "tests/unit/data/md5.h"
#include "worker/engine/data/pieces.h"

#include <jansson.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* The pieces with '|' between them. */
static void assert_pieces(const char *text, const char *expected)
{
    struct buf got = {0};
    size_t length = strlen(text);
    for (size_t at = 0; at < length;) {
        size_t piece = piece_next(text + at, length - at);
        assert_true(piece > 0 && piece <= length - at);
        if (at)
            buf_putc(&got, '|');
        buf_add(&got, text + at, piece);
        at += piece;
    }
    assert_string_equal(buf_text(&got), expected);
    buf_done(&got);
}

/* Vectors measured with the reference pattern; card data-tokenizers-and-shards, section 1. */
static void text_is_cut_as_gpt2_cuts_it(void **state)
{
    (void)state;
    assert_pieces("  two  spaces", " | two| | spaces");
    assert_pieces("a\n\n b", "a|\n\n| b");
    assert_pieces("don't DON'T we'll", "don|'t| DON|'|T| we|'ll");
    assert_pieces("tab\tx  \t y ", "tab|\t|x|  \t| y| ");
    assert_pieces("x=1234.5e-6;", "x|=|1234|.|5|e|-|6|;");
    assert_pieces("  \n", "  \n");
    assert_pieces("it's   it'S", "it|'s|  | it|'|S");
    assert_pieces("\x1c" "a \xC2\x85" "b", "\x1c|a| |\xC2\x85|b");
    assert_pieces("a\xC2\xA0" "b", "a|\xC2\xA0|b");
    assert_pieces("caf\xC3\xA9 \xC2\xBD\xC2\xB2 \xE4\xBD\xA0\xE5\xA5\xBD",
                  "caf\xC3\xA9| \xC2\xBD\xC2\xB2| \xE4\xBD\xA0\xE5\xA5\xBD");
}

static void an_apostrophe_after_a_space_begins_no_contraction(void **state)
{
    (void)state;
    assert_pieces(" 's", " '|s");
}

static void bytes_that_are_not_utf8_are_kept_as_others(void **state)
{
    (void)state;
    assert_pieces("a\xFF\xC0\x80z", "a|\xFF\xC0\x80|z");
    assert_pieces("\xED\xA0\x80", "\xED\xA0\x80"); /* a surrogate */
    assert_pieces("x\xE2\x82", "x|\xE2\x82");      /* a truncated sequence */
}

static void pieces_of_random_bytes_concatenate_to_the_input(void **state)
{
    (void)state;
    static const char alphabet[] = " \t\n'ste\xC3\xA9\xE2\x80\x8B\xF0\x9F\x98\x80\xFF\xC0" "9a.";
    struct rng rng;
    rng_init(&rng, 7);
    for (int round = 0; round < 100000; round++) {
        char text[24];
        size_t length = rng_below(&rng, sizeof text) + 1, at = 0;
        for (size_t i = 0; i < length; i++)
            text[i] = rng_below(&rng, 4) ? alphabet[rng_below(&rng, sizeof alphabet - 1)]
                                         : (char)rng_below(&rng, 256);
        while (at < length) {
            size_t piece = piece_next(text + at, length - at);
            assert_true(piece >= 1 && piece <= length - at);
            at += piece;
        }
    }
    assert_int_equal(piece_next("", 0), 0);
}

static void the_byte_alphabet_is_gpt2s(void **state)
{
    (void)state;
    uint16_t map[BYTE_CHARS];
    char md5[33];
    for (unsigned byte = 0; byte < BYTE_CHARS; byte++) {
        map[byte] = (uint16_t)byte_to_char((uint8_t)byte);
        assert_int_equal(char_to_byte(map[byte]), byte);
    }
    md5_of(map, sizeof map, md5);
    assert_string_equal(md5, "fffb4c7d5ead8956c7af2fc51604afae");
    const struct {
        unsigned byte, code_point;
    } known[] = {{0x00, 0x100}, {'\t', 0x109}, {'\n', 0x10A}, {' ', 0x120},
                 {0x7F, 0x121}, {0x80, 0x122}, {0xA0, 0x142}, {0xAD, 0x143}};
    for (size_t i = 0; i < ARRAY_COUNT(known); i++)
        assert_int_equal(byte_to_char((uint8_t)known[i].byte), known[i].code_point);
    assert_int_equal(char_to_byte(0x144), -1);
    assert_int_equal(char_to_byte(' '), -1);
}

/* The oracle's lists: a JSON list a line. */
static char *ask_oracle(const struct buf *lines)
{
    char *folder = folder_make(), *from = mem_printf("%s/texts", folder), *answer;
    char *to = mem_printf("%s/pieces", folder);
    char *command = mem_printf("exec python3 -B tests/unit/data/pieces_oracle.py <'%s' >'%s'", from,
                               to);
    char *arguments[] = {"sh", "-c", command, NULL};
    struct err err;
    size_t length;
    pid_t pid;
    int status;
    if (access("/usr/bin/python3", X_OK) != 0) {
        print_message("[  SKIP  ] needs python3\n");
        skip();
    }
    write_bytes(from, lines->bytes, lines->length);
    assert_int_equal(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(file_read(to, INPUT_BYTES_MAX, &answer, &length, &err), 0);
    mem_free(command);
    mem_free(from);
    mem_free(to);
    folder_done(folder);
    return answer;
}

static void put_pieces(enum piece_pattern pattern, const char *text, struct buf *out)
{
    size_t length = strlen(text);
    buf_putc(out, '[');
    for (size_t at = 0; at < length;) {
        size_t piece = piece_next_of(pattern, text + at, length - at);
        assert_true(piece > 0 && piece <= length - at);
        if (at)
            buf_putc(out, ',');
        json_text_quote(out, text + at, piece);
        at += piece;
    }
    buf_puts(out, "]\n");
}

#define TEXTS 2000
/* Random texts of what the patterns tell apart, cut by each of them. */
static void every_pattern_cuts_as_its_regular_expression_does(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt2", "llama3", "qwen2", "digits"};
    static const char *const parts[] = {
        " ", "  ", "\n", "\r\n", "\t", "a", "The", "\u00E9", "e\u0301", "'s", "'S", "'LL", "'Re",
        "'\u017F", "'", "1", "42", "2024", "\u00BD", "\u0663", "\u4E2D", "\U0001F99C", "\u00A0",
        "\u3000", "\u2028", "\u200B", ".", "...", "(", "_", "\x1C", "\x7F", "\u0985", "!\n",
    };
    struct buf asked = {0}, mine = {0};
    struct rng rng;
    rng_init(&rng, 11);
    for (int i = 0; i < TEXTS; i++) {
        enum piece_pattern pattern = (enum piece_pattern)(i % PIECES_END);
        struct buf text = {0};
        for (uint64_t n = 1 + rng_below(&rng, 14); n > 0; n--)
            buf_puts(&text, parts[rng_below(&rng, ARRAY_COUNT(parts))]);
        buf_printf(&asked, "[\"%s\", ", names[pattern]);
        json_text_quote(&asked, text.bytes, text.length);
        buf_puts(&asked, "]\n");
        put_pieces(pattern, buf_text(&text), &mine);
        buf_done(&text);
    }
    char *told = ask_oracle(&asked), *at = told, *got = buf_take(&mine), *here = got;
    for (int i = 0; i < TEXTS; i++) {
        char *end = strchr(at, '\n'), *stop = strchr(here, '\n');
        assert_true(end && stop);
        *end = *stop = '\0';
        json_t *a = json_loads(at, 0, NULL), *b = json_loads(here, 0, NULL);
        if (!a || !json_equal(a, b))
            fail_msg("%s: %s, expected %s", names[i % PIECES_END], here, at);
        json_decref(a);
        json_decref(b);
        at = end + 1;
        here = stop + 1;
    }
    buf_done(&asked);
    mem_free(told);
    mem_free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_cut_as_gpt2_cuts_it),
        cmocka_unit_test(an_apostrophe_after_a_space_begins_no_contraction),
        cmocka_unit_test(bytes_that_are_not_utf8_are_kept_as_others),
        cmocka_unit_test(every_pattern_cuts_as_its_regular_expression_does),
        cmocka_unit_test(pieces_of_random_bytes_concatenate_to_the_input),
        cmocka_unit_test(the_byte_alphabet_is_gpt2s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
