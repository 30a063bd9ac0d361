/* token_test.c - one-time tokens as text. */
#include "common/net/token.h"

#include "common/base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void token_make(struct token *out)
{
    struct keypair server;
    struct err err;
    *out = (struct token){0};
    keypair_make(&server);
    keypair_make(&out->keys);
    memcpy(out->server_key, server.public_key, KEY_TEXT_SIZE);
    assert_int_equal(token_add_endpoint(out, "head:7117", 9, &err), 0);
    assert_int_equal(token_add_endpoint(out, "ipc:///run/a", 12, &err), 0);
}

static void a_token_reads_back_as_it_was_written(void **state)
{
    (void)state;
    struct token token, back;
    struct buf text = {0};
    struct err err;
    token_make(&token);
    buf_puts(&text, " \n");
    token_write(&token, &text);
    buf_puts(&text, "\r\n");
    assert_non_null(strstr(text.bytes, "@head:7117,ipc:///run/a"));
    assert_int_equal(token_parse(text.bytes, text.length, &back, &err), 0);
    assert_memory_equal(&token, &back, sizeof token);
    buf_done(&text);
}

static void every_changed_or_missing_character_is_noticed(void **state)
{
    (void)state;
    struct token token, back;
    struct buf text = {0};
    struct err err;
    token_make(&token);
    token_write(&token, &text);
    size_t end = (size_t)(strchr(text.bytes, '@') - text.bytes);
    for (size_t i = 0; i < end; i++) {
        char was = text.bytes[i];
        text.bytes[i] = was == 'A' ? 'B' : 'A';
        assert_int_equal(token_parse(text.bytes, text.length, &back, &err), -1);
        assert_int_equal(err.kind, ERR_INVALID);
        text.bytes[i] = was;
    }
    for (size_t length = 0; length <= end + 1; length++)
        assert_int_equal(token_parse(text.bytes, length, &back, &err), -1);
    buf_done(&text);
}

static void refusals_say_what_is_expected_and_never_the_token(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {{"hello", "begins with atk1_"},
                 {"atk1_abc", "@HOST:PORT"},
                 {"atk1_abc@", "@HOST:PORT"},
                 {"atk1_abc@host:1", "damaged"}};
    struct token token;
    struct err err;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(token_parse(cases[i].text, strlen(cases[i].text), &token, &err), -1);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_null(strstr(err.text, "abc"));
    }
}

static void endpoints_without_a_port_or_with_odd_characters_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "head", "he ad:1", "a@b:1", "a,b:1", "h\n:1"};
    struct token token = {0};
    struct err err;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(token_add_endpoint(&token, bad[i], strlen(bad[i]), &err), -1);
    for (unsigned i = 0; i < TOKEN_ENDPOINTS_MAX; i++)
        assert_int_equal(token_add_endpoint(&token, "h:1", 3, &err), 0);
    assert_int_equal(token_add_endpoint(&token, "h:1", 3, &err), -1);
    assert_int_equal(err.kind, ERR_LIMIT);
}

static void a_token_in_the_place_of_its_file_is_refused(void **state)
{
    (void)state;
    struct token token;
    struct err err;
    assert_int_equal(token_read("atk1_abc@host:1", &token, &err), -1);
    assert_int_equal(err.kind, ERR_DENIED);
    assert_null(strstr(err.text, "abc"));
    assert_int_equal(token_read("/nonexistent/token", &token, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_reads_back_as_it_was_written),
        cmocka_unit_test(every_changed_or_missing_character_is_noticed),
        cmocka_unit_test(refusals_say_what_is_expected_and_never_the_token),
        cmocka_unit_test(endpoints_without_a_port_or_with_odd_characters_are_refused),
        cmocka_unit_test(a_token_in_the_place_of_its_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
