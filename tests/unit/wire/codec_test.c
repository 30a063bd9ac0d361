/* codec_test.c - what goes in comes out, and nothing damaged does. */
#include "common/base/mem.h"
#include "tests/unit/wire/generate.h"

#include <math.h>
#include <msgpack/pack.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct envelope test_envelope = {.epoch = 7,
                                              .session = UINT64_C(0x123456789abcdef0),
                                              .seq = 42,
                                              .ack = 41};

struct fixture {
    struct arena arena;
    struct buf frame;
    struct err err;
    struct envelope envelope;
    struct message message;
};

static int setup(void **state)
{
    *state = mem_zalloc(sizeof(struct fixture));
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    arena_done(&f->arena);
    buf_done(&f->frame);
    mem_free(f);
    return 0;
}

/* Decodes a copy of exactly `length` bytes, so that ASan sees an overrun of one. */
static int decode(struct fixture *f, const char *bytes, size_t length)
{
    char *copy = mem_alloc(length + !length);
    memcpy(copy, bytes, length);
    int rc = wire_decode(copy, length, &f->arena, &f->envelope, &f->message, &f->err);
    mem_free(copy);
    return rc;
}

static void encode_fixed(struct fixture *f, uint64_t tag)
{
    struct generate g = {NULL, &f->arena, 2};
    struct message message;
    generate_message(&g, tag, &message);
    buf_clear(&f->frame);
    assert_int_equal(wire_encode(&test_envelope, &message, &f->frame, &f->err), 0);
}

static void random_messages_survive_the_round_trip(void **state)
{
    struct fixture *f = *state;
    struct rng rng;
    rng_init(&rng, 20260101);
    for (int round = 0; round < 40; round++) {
        for (uint64_t tag = layout_next(0); tag; tag = layout_next(tag)) {
            struct generate g = {&rng, &f->arena, 6};
            struct message message;
            generate_message(&g, tag, &message);
            buf_clear(&f->frame);
            assert_int_equal(wire_encode(&test_envelope, &message, &f->frame, &f->err), 0);
            assert_int_equal(decode(f, f->frame.bytes, f->frame.length), 0);
            assert_true(same_message(&message, &f->message));
            assert_int_equal(f->envelope.protocol, WIRE_PROTOCOL);
            assert_int_equal(f->envelope.epoch, 7);
            assert_true(f->envelope.session == test_envelope.session);
            assert_int_equal(f->envelope.seq, 42);
            assert_int_equal(f->envelope.ack, 41);
            arena_reset(&f->arena);
        }
    }
}

static void a_frame_cut_at_any_byte_is_refused(void **state)
{
    struct fixture *f = *state;
    for (uint64_t tag = layout_next(0); tag; tag = layout_next(tag)) {
        encode_fixed(f, tag);
        for (size_t length = 0; length < f->frame.length; length++) {
            err_clear(&f->err);
            assert_int_equal(decode(f, f->frame.bytes, length), -1);
            assert_int_equal(f->err.kind, ERR_PROTOCOL);
        }
        arena_reset(&f->arena);
    }
}

static void a_byte_behind_the_message_is_refused(void **state)
{
    struct fixture *f = *state;
    encode_fixed(f, MSG_QUERY);
    buf_putc(&f->frame, '\0');
    assert_int_equal(decode(f, f->frame.bytes, f->frame.length), -1);
    assert_int_equal(f->err.kind, ERR_PROTOCOL);
    assert_non_null(strstr(f->err.text, "follow"));
}

/* A flipped bit may yield another valid message; what is decoded must encode again. */
static void flipped_bits_are_refused_or_make_another_valid_message(void **state)
{
    struct fixture *f = *state;
    struct buf again = {0};
    size_t refused = 0, accepted = 0;
    for (uint64_t tag = layout_next(0); tag; tag = layout_next(tag)) {
        encode_fixed(f, tag);
        for (size_t bit = 0; bit < 8 * f->frame.length; bit++) {
            f->frame.bytes[bit / 8] ^= (char)(1 << bit % 8);
            if (decode(f, f->frame.bytes, f->frame.length) < 0) {
                refused++;
            } else {
                accepted++;
                buf_clear(&again);
                assert_int_equal(wire_encode(&f->envelope, &f->message, &again, &f->err), 0);
            }
            f->frame.bytes[bit / 8] ^= (char)(1 << bit % 8);
        }
        arena_reset(&f->arena);
    }
    buf_done(&again);
    assert_true(refused > 1000);
    assert_true(accepted > 1000);
}

static void missing_optional_fields_read_as_zero_and_empty(void **state)
{
    struct fixture *f = *state;
    struct message message = {.tag = MSG_DONE, .u.done = {.request_seq = 3}};
    assert_int_equal(wire_encode(&test_envelope, &message, &f->frame, &f->err), 0);
    assert_int_equal(decode(f, f->frame.bytes, f->frame.length), 0);
    assert_string_equal(f->message.u.done.text, "");
    assert_int_equal(f->message.u.done.count, 0);
}

static void special_floats_arrive_bit_for_bit(void **state)
{
    struct fixture *f = *state;
    const double values[] = {NAN, INFINITY, -INFINITY, -0.0, 5e-324};
    struct rec_report reports[ARRAY_COUNT(values)] = {0};
    for (size_t i = 0; i < ARRAY_COUNT(values); i++)
        reports[i] = (struct rec_report){.seq = i + 1, .kind = REPORT_METRIC, .value = values[i]};
    struct message message = {.tag = MSG_REPORT, .u.report = {1, 0, reports, ARRAY_COUNT(values)}};
    assert_int_equal(wire_encode(&test_envelope, &message, &f->frame, &f->err), 0);
    assert_int_equal(decode(f, f->frame.bytes, f->frame.length), 0);
    for (size_t i = 0; i < ARRAY_COUNT(values); i++)
        assert_memory_equal(&f->message.u.report.reports[i].value, &values[i], sizeof(double));
}

/* ---- frames written by hand --------------------------------------------------------------- */

static int buf_write(void *user, const char *bytes, size_t length)
{
    buf_add(user, bytes, length);
    return 0;
}

/* Starts a frame up to and including the key of its body. */
static msgpack_packer frame_start(struct fixture *f, uint64_t protocol, uint64_t tag)
{
    const uint64_t head[] = {protocol, 1, 2, 3, 4, tag};
    msgpack_packer packer;
    buf_clear(&f->frame);
    msgpack_packer_init(&packer, &f->frame, buf_write);
    msgpack_pack_map(&packer, 7);
    for (uint64_t key = 1; key <= 6; key++) {
        msgpack_pack_uint64(&packer, key);
        msgpack_pack_uint64(&packer, head[key - 1]);
    }
    msgpack_pack_uint64(&packer, 7);
    return packer;
}

static void pack_text(msgpack_packer *packer, const char *text)
{
    msgpack_pack_str_with_body(packer, text, strlen(text));
}

/* HELLO with program "p", version "v" and as many entries more as the caller adds. */
static msgpack_packer hello_start(struct fixture *f, uint64_t protocol, size_t more)
{
    msgpack_packer packer = frame_start(f, protocol, MSG_HELLO);
    msgpack_pack_map(&packer, 2 + more);
    msgpack_pack_uint64(&packer, 1);
    pack_text(&packer, "p");
    msgpack_pack_uint64(&packer, 2);
    pack_text(&packer, "v");
    return packer;
}

static void assert_refused(struct fixture *f, enum err_kind kind, const char *words)
{
    f->message.tag = MSG_END;
    f->envelope.seq = 99;
    assert_int_equal(decode(f, f->frame.bytes, f->frame.length), -1);
    assert_int_equal(f->err.kind, kind);
    if (!strstr(f->err.text, words))
        fail_msg("'%s' does not say '%s'", f->err.text, words);
    assert_int_equal(f->message.tag, MSG_END); /* outputs untouched */
    assert_int_equal(f->envelope.seq, 99);
}

static void neighbouring_protocols_are_read_and_others_refused(void **state)
{
    struct fixture *f = *state;
    for (uint64_t protocol = WIRE_PROTOCOL - 1; protocol <= WIRE_PROTOCOL + 1; protocol++) {
        hello_start(f, protocol, 0);
        assert_int_equal(decode(f, f->frame.bytes, f->frame.length), 0);
        assert_true(f->envelope.protocol == protocol);
    }
    hello_start(f, WIRE_PROTOCOL + 2, 0);
    assert_refused(f, ERR_PROTOCOL, "protocol version");
}

static void unknown_keys_of_any_type_are_passed_over(void **state)
{
    struct fixture *f = *state;
    msgpack_packer packer = hello_start(f, WIRE_PROTOCOL, 3);
    msgpack_pack_uint64(&packer, 900);
    msgpack_pack_array(&packer, 2);
    msgpack_pack_nil(&packer);
    msgpack_pack_map(&packer, 1);
    pack_text(&packer, "key");
    msgpack_pack_double(&packer, 1.5);
    msgpack_pack_uint64(&packer, 901);
    msgpack_pack_bin_with_body(&packer, "\0\1", 2);
    msgpack_pack_uint64(&packer, 902);
    msgpack_pack_ext_with_body(&packer, "abc", 3, 5);
    assert_int_equal(decode(f, f->frame.bytes, f->frame.length), 0);
    assert_string_equal(f->message.u.hello.program, "p");
    assert_string_equal(f->message.u.hello.version, "v");
}

static void unknown_keys_nested_too_deeply_are_refused(void **state)
{
    struct fixture *f = *state;
    msgpack_packer packer = hello_start(f, WIRE_PROTOCOL, 1);
    msgpack_pack_uint64(&packer, 900);
    for (int i = 0; i < 3; i++)
        msgpack_pack_array(&packer, 1);
    msgpack_pack_nil(&packer);
    assert_refused(f, ERR_LIMIT, "deeply");
}

static void a_million_open_arrays_cost_nothing(void **state)
{
    struct fixture *f = *state;
    msgpack_packer packer = hello_start(f, WIRE_PROTOCOL, 1);
    msgpack_pack_uint64(&packer, 900);
    for (int i = 0; i < 1000000; i++)
        msgpack_pack_array(&packer, 1);
    assert_refused(f, ERR_LIMIT, "deeply");
}

static void a_missing_required_field_is_named(void **state)
{
    struct fixture *f = *state;
    msgpack_packer packer = frame_start(f, WIRE_PROTOCOL, MSG_HELLO);
    msgpack_pack_map(&packer, 1);
    msgpack_pack_uint64(&packer, 1);
    pack_text(&packer, "p");
    assert_refused(f, ERR_PROTOCOL, "message 'hello': field 'version' is missing");
}

static void a_field_that_comes_twice_is_refused(void **state)
{
    struct fixture *f = *state;
    msgpack_packer packer = hello_start(f, WIRE_PROTOCOL, 1);
    msgpack_pack_uint64(&packer, 2);
    pack_text(&packer, "again");
    assert_refused(f, ERR_PROTOCOL, "field 'version' comes twice");
}

static void a_field_of_the_wrong_type_is_named(void **state)
{
    struct fixture *f = *state;
    msgpack_packer packer = frame_start(f, WIRE_PROTOCOL, MSG_HELLO);
    msgpack_pack_map(&packer, 2);
    msgpack_pack_uint64(&packer, 1);
    msgpack_pack_uint64(&packer, 5);
    msgpack_pack_uint64(&packer, 2);
    pack_text(&packer, "v");
    assert_refused(f, ERR_PROTOCOL, "field 'program': is an integer where a string belongs");
}

static void text_that_is_no_utf8_or_holds_zero_is_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *bytes;
        size_t length;
        const char *words;
    } cases[] = {{"a\0b", 3, "zero byte"}, {"\xff", 1, "UTF-8"}, {"\xc3", 1, "UTF-8"}};
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        msgpack_packer packer = frame_start(f, WIRE_PROTOCOL, MSG_HELLO);
        msgpack_pack_map(&packer, 2);
        msgpack_pack_uint64(&packer, 1);
        msgpack_pack_str_with_body(&packer, cases[i].bytes, cases[i].length);
        msgpack_pack_uint64(&packer, 2);
        pack_text(&packer, "v");
        assert_refused(f, ERR_PROTOCOL, cases[i].words);
    }
}

static void an_unknown_message_number_is_refused_with_its_envelope(void **state)
{
    struct fixture *f = *state;
    msgpack_packer packer = frame_start(f, WIRE_PROTOCOL + 1, 9999);
    msgpack_pack_map(&packer, 1);
    msgpack_pack_uint64(&packer, 1);
    pack_text(&packer, "of a later version");
    assert_int_equal(decode(f, f->frame.bytes, f->frame.length), -1);
    assert_int_equal(f->err.kind, ERR_NOT_FOUND);
    assert_non_null(strstr(f->err.text, "message number 9999"));
    assert_int_equal(f->envelope.protocol, WIRE_PROTOCOL + 1);
    assert_int_equal(f->envelope.seq, 3);
}

static void an_unknown_message_with_a_damaged_body_is_damaged(void **state)
{
    struct fixture *f = *state;
    msgpack_packer packer = frame_start(f, WIRE_PROTOCOL + 1, 9999);
    msgpack_pack_map(&packer, 2);
    msgpack_pack_uint64(&packer, 1);
    assert_refused(f, ERR_PROTOCOL, "ends inside");
}

static void frame_keys_out_of_order_are_refused(void **state)
{
    struct fixture *f = *state;
    msgpack_packer packer;
    msgpack_packer_init(&packer, &f->frame, buf_write);
    msgpack_pack_map(&packer, 2);
    msgpack_pack_uint64(&packer, 1);
    msgpack_pack_uint64(&packer, WIRE_PROTOCOL);
    msgpack_pack_uint64(&packer, 7);
    msgpack_pack_map(&packer, 0);
    assert_refused(f, ERR_PROTOCOL, "out of order");
}

static void an_array_that_claims_more_than_the_frame_holds_is_refused(void **state)
{
    struct fixture *f = *state;
    msgpack_packer packer = frame_start(f, WIRE_PROTOCOL, MSG_TABLE);
    msgpack_pack_map(&packer, 1);
    msgpack_pack_uint64(&packer, 3);
    msgpack_pack_array(&packer, 4000000000u);
    assert_refused(f, ERR_PROTOCOL, "ends inside");
    assert_true(f->arena.used_bytes < 4096);
}

static void a_list_above_its_limit_is_refused_on_both_sides(void **state)
{
    struct fixture *f = *state;
    size_t count = WIRE_LIST_ITEMS_MAX + 1;
    msgpack_packer packer = frame_start(f, WIRE_PROTOCOL, MSG_TABLE);
    msgpack_pack_map(&packer, 1);
    msgpack_pack_uint64(&packer, 3);
    msgpack_pack_array(&packer, count);
    for (size_t i = 0; i < count; i++)
        msgpack_pack_map(&packer, 0);
    assert_refused(f, ERR_LIMIT, "field 'cells'");

    struct message message = {.tag = MSG_TABLE};
    message.u.table.cells = mem_array(count, sizeof(struct rec_cell));
    message.u.table.cells_count = count;
    buf_clear(&f->frame);
    assert_int_equal(wire_encode(&test_envelope, &message, &f->frame, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_LIMIT);
    assert_int_equal(f->frame.length, 0);
    mem_free(message.u.table.cells);
}

static void a_full_page_of_a_table_fits(void **state)
{
    struct fixture *f = *state;
    size_t count = (size_t)QUERY_ROWS_MAX * 32;
    struct message message = {.tag = MSG_TABLE, .u.table.request_seq = 1};
    message.u.table.cells = mem_array(count, sizeof(struct rec_cell));
    message.u.table.cells_count = count;
    for (size_t i = 0; i < count; i++)
        message.u.table.cells[i].text = "cell of about thirty-two bytes.";
    assert_int_equal(wire_encode(&test_envelope, &message, &f->frame, &f->err), 0);
    assert_int_equal(decode(f, f->frame.bytes, f->frame.length), 0);
    assert_int_equal(f->message.u.table.cells_count, count);
    assert_string_equal(f->message.u.table.cells[count - 1].text, message.u.table.cells[0].text);
    mem_free(message.u.table.cells);
}

static void a_text_or_frame_above_the_limit_is_not_sent(void **state)
{
    struct fixture *f = *state;
    char *text = mem_alloc(WIRE_STRING_BYTES_MAX + 2);
    memset(text, 'x', WIRE_STRING_BYTES_MAX + 1);
    text[WIRE_STRING_BYTES_MAX + 1] = '\0';
    struct message message = {.tag = MSG_DONE, .u.done = {.request_seq = 1, .text = text}};
    buf_puts(&f->frame, "before");
    assert_int_equal(wire_encode(&test_envelope, &message, &f->frame, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_LIMIT);
    assert_string_equal(f->frame.bytes, "before");

    text[WIRE_STRING_BYTES_MAX] = '\0';
    struct rec_name_value pairs[] = {{text, text}, {text, text}};
    struct message large = {.tag = MSG_QUERY, .u.query = {"q", pairs, 2, 0, ""}};
    assert_int_equal(wire_encode(&test_envelope, &large, &f->frame, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_LIMIT);
    assert_string_equal(f->frame.bytes, "before");
    mem_free(text);
}

static void text_that_would_be_refused_is_not_sent(void **state)
{
    struct fixture *f = *state;
    struct message message = {.tag = MSG_DONE, .u.done = {.request_seq = 1, .text = "\xff"}};
    assert_int_equal(wire_encode(&test_envelope, &message, &f->frame, &f->err), -1);
    assert_int_equal(f->err.kind, ERR_INVALID);
    assert_non_null(strstr(f->err.text, "message 'done': field 'text'"));
}

static void a_frame_above_the_limit_is_refused_unread(void **state)
{
    struct fixture *f = *state;
    char *bytes = mem_zalloc(WIRE_FRAME_BYTES_MAX + 1);
    assert_int_equal(wire_decode(bytes, WIRE_FRAME_BYTES_MAX + 1, &f->arena, &f->envelope,
                                 &f->message, &f->err),
                     -1);
    assert_int_equal(f->err.kind, ERR_LIMIT);
    mem_free(bytes);
}

/* ---- the tables --------------------------------------------------------------------------- */

static void roles_may_send_what_the_sender_column_says(void **state)
{
    (void)state;
    assert_true(msg_allowed(MSG_HELLO, ROLE_USER));
    assert_true(msg_allowed(MSG_HELLO, ROLE_WORKER));
    assert_true(msg_allowed(MSG_SUBMIT, ROLE_USER));
    assert_true(msg_allowed(MSG_SUBMIT, ROLE_OPERATOR));
    assert_true(msg_allowed(MSG_SUBMIT, ROLE_ADMIN));
    assert_false(msg_allowed(MSG_SUBMIT, ROLE_WORKER));
    assert_true(msg_allowed(MSG_REPORT, ROLE_WORKER));
    assert_false(msg_allowed(MSG_REPORT, ROLE_ADMIN));
    assert_true(msg_allowed(MSG_QUERY, ROLE_PILOT));
    assert_true(msg_allowed(MSG_KEY_CHANGE, ROLE_PILOT));
    assert_false(msg_allowed(MSG_SUBMIT, ROLE_PILOT));
    assert_false(msg_allowed(MSG_CONTROL, ROLE_PILOT));
    assert_false(msg_allowed(MSG_CONFIGURE, ROLE_PILOT));
    assert_false(msg_allowed(MSG_REPORT, ROLE_PILOT));
    for (uint64_t tag = layout_next(0); tag; tag = layout_next(tag))
        assert_true(msg_allowed((enum msg_tag)tag, ROLE_TOKEN) ==
                    (tag == MSG_HELLO || tag == MSG_ENROL));
    assert_false(msg_allowed(MSG_ENROL, ROLE_ADMIN));
    assert_true(msg_allowed(MSG_CODE_GET, ROLE_WORKER) && msg_allowed(MSG_CODE_GET, ROLE_USER));
    assert_false(msg_allowed(MSG_CODE_GET, ROLE_PILOT));
    for (int role = ROLE_USER; role < ROLE_END; role++) {
        assert_false(msg_allowed(MSG_START, (enum role)role));
        assert_false(msg_allowed(MSG_WELCOME, (enum role)role));
    }
}

static void answers_know_their_request(void **state)
{
    (void)state;
    uint64_t seq = 0;
    struct message table = {.tag = MSG_TABLE, .u.table.request_seq = 17};
    struct message start = {.tag = MSG_START};
    assert_true(msg_request_seq(&table, &seq));
    assert_int_equal(seq, 17);
    assert_false(msg_request_seq(&start, &seq));
    assert_string_equal(msg_name(MSG_WORKER_JOIN), "worker_join");
    assert_string_equal(msg_name((enum msg_tag)0), "unknown");
}

static void check_keys(const struct wire_layout *layout, unsigned depth)
{
    assert_true(depth <= WIRE_DEPTH_MAX);
    assert_true(layout->field_count <= WIRE_MAP_KEYS_MAX);
    for (size_t i = 0; i < layout->field_count; i++) {
        assert_true(layout->fields[i].key > 0);
        for (size_t j = 0; j < i; j++)
            assert_true(layout->fields[i].key != layout->fields[j].key);
        if (layout->fields[i].type == WIRE_list)
            check_keys(layout->fields[i].record(), depth + 2);
    }
}

static void keys_are_unique_and_messages_shallow(void **state)
{
    (void)state;
    for (uint64_t tag = layout_next(0); tag; tag = layout_next(tag))
        check_keys(layout_find(tag), 2);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(random_messages_survive_the_round_trip),
        T(a_frame_cut_at_any_byte_is_refused),
        T(a_byte_behind_the_message_is_refused),
        T(flipped_bits_are_refused_or_make_another_valid_message),
        T(missing_optional_fields_read_as_zero_and_empty),
        T(special_floats_arrive_bit_for_bit),
        T(neighbouring_protocols_are_read_and_others_refused),
        T(unknown_keys_of_any_type_are_passed_over),
        T(unknown_keys_nested_too_deeply_are_refused),
        T(a_million_open_arrays_cost_nothing),
        T(a_missing_required_field_is_named),
        T(a_field_that_comes_twice_is_refused),
        T(a_field_of_the_wrong_type_is_named),
        T(text_that_is_no_utf8_or_holds_zero_is_refused),
        T(an_unknown_message_number_is_refused_with_its_envelope),
        T(an_unknown_message_with_a_damaged_body_is_damaged),
        T(frame_keys_out_of_order_are_refused),
        T(an_array_that_claims_more_than_the_frame_holds_is_refused),
        T(a_list_above_its_limit_is_refused_on_both_sides),
        T(a_full_page_of_a_table_fits),
        T(a_text_or_frame_above_the_limit_is_not_sent),
        T(text_that_would_be_refused_is_not_sent),
        T(a_frame_above_the_limit_is_refused_unread),
        T(roles_may_send_what_the_sender_column_says),
        T(answers_know_their_request),
        T(keys_are_unique_and_messages_shallow),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
