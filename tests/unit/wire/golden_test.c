/* golden_test.c - the bytes of every message, so that no number changes its meaning unnoticed.
 *
 * tests/golden/wire/<message>.hex holds a message whose fields are made from their keys. With
 * ATHANOR_BLESS=1 the files are written anew: review the difference, an existing number must
 * keep its bytes. tests/golden/wire/first/ holds the messages as they were first released, for
 * ever: a peer that was never upgraded sends these. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/unit/wire/generate.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct envelope golden_envelope = {.epoch = 3, .session = 5, .seq = 9, .ack = 8};

static void to_hex(const struct buf *frame, struct buf *out)
{
    for (size_t i = 0; i < frame->length; i++)
        buf_printf(out, "%02x%s", (uint8_t)frame->bytes[i], i % 32 == 31 ? "\n" : "");
    buf_puts(out, "\n");
}

static void from_hex(const char *text, struct buf *out)
{
    unsigned byte;
    int used;
    while (sscanf(text, " %2x%n", &byte, &used) == 1) {
        buf_putc(out, (char)byte);
        text += used;
    }
}

static void check_golden(const char *path, const struct buf *hex)
{
    char *expected;
    size_t length;
    struct err err;
    if (getenv("ATHANOR_BLESS"))
        assert_int_equal(file_replace(path, hex->bytes, hex->length, 0644, &err), 0);
    if (file_read(path, 1 << 20, &expected, &length, &err) < 0)
        fail_msg("%s; a new message needs its golden bytes: run with ATHANOR_BLESS=1", err.text);
    assert_string_equal(hex->bytes, expected);
    mem_free(expected);
}

static void every_message_keeps_its_bytes(void **state)
{
    struct arena arena = {0};
    (void)state;
    for (uint64_t tag = layout_next(0); tag; tag = layout_next(tag)) {
        struct generate g = {NULL, &arena, 2};
        struct buf frame = {0}, hex = {0};
        struct message message;
        struct err err;
        generate_message(&g, tag, &message);
        assert_int_equal(wire_encode(&golden_envelope, &message, &frame, &err), 0);
        to_hex(&frame, &hex);
        check_golden(arena_printf(&arena, "tests/golden/wire/%s.hex", layout_find(tag)->name),
                     &hex);
        buf_done(&frame);
        buf_done(&hex);
    }
    arena_done(&arena);
}

static void golden_bytes_are_read_back(void **state)
{
    struct arena arena = {0};
    (void)state;
    for (uint64_t tag = layout_next(0); tag; tag = layout_next(tag)) {
        struct generate g = {NULL, &arena, 2};
        struct buf frame = {0};
        struct message expected, message;
        struct envelope envelope;
        struct err err;
        char *hex;
        size_t length;
        const char *path = arena_printf(&arena, "tests/golden/wire/%s.hex", layout_find(tag)->name);
        assert_int_equal(file_read(path, 1 << 20, &hex, &length, &err), 0);
        from_hex(hex, &frame);
        assert_int_equal(wire_decode(frame.bytes, frame.length, &arena, &envelope, &message, &err),
                         0);
        generate_message(&g, tag, &expected);
        assert_true(same_message(&expected, &message));
        buf_done(&frame);
        mem_free(hex);
    }
    arena_done(&arena);
}

/* The golden file's name is the message's. */
static const char *name_of_path(struct arena *arena, const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    return arena_strndup(arena, name, strcspn(name, "."));
}

/* Peers of the neighbouring protocol versions differ by the number alone, until a field becomes
 * required: every field added since is therefore optional (README.md, invariant 5). */
static void messages_of_the_first_release_are_read_under_each_neighbouring_protocol(void **state)
{
    struct arena arena = {0};
    glob_t found;
    (void)state;
    assert_int_equal(glob("tests/golden/wire/first/*.hex", 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 23);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct buf frame = {0};
        struct message message;
        struct envelope envelope;
        struct err err;
        char *hex;
        size_t length;
        assert_int_equal(file_read(found.gl_pathv[i], 1 << 20, &hex, &length, &err), 0);
        from_hex(hex, &frame);
        for (int protocol = WIRE_PROTOCOL - 1; protocol <= WIRE_PROTOCOL + 1; protocol++) {
            frame.bytes[2] = (char)protocol; /* a map, key 1, its value */
            assert_int_equal(wire_decode(frame.bytes, frame.length, &arena, &envelope, &message,
                                         &err),
                             0);
            assert_int_equal(envelope.protocol, protocol);
            assert_string_equal(msg_name(message.tag), name_of_path(&arena, found.gl_pathv[i]));
        }
        buf_done(&frame);
        mem_free(hex);
    }
    globfree(&found);
    arena_done(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_keeps_its_bytes),
        cmocka_unit_test(golden_bytes_are_read_back),
        cmocka_unit_test(messages_of_the_first_release_are_read_under_each_neighbouring_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
