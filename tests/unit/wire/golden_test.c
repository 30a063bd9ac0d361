/* golden_test.c - the bytes of every message, so that no number changes its meaning unnoticed.
 *
 * tests/golden/wire/<message>.hex holds a message whose fields are made from their keys. With
 * ATHANOR_BLESS=1 the files are written anew: review the difference, an existing number must
 * keep its bytes. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/unit/wire/generate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_keeps_its_bytes),
        cmocka_unit_test(golden_bytes_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
