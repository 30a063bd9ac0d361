/* safetensors_test.c - a file made by hand, round trips, and every kind of damage. */
#include "common/base/buf.h"
#include "tests/unit/data/inputs.h"
#include "worker/engine/io/safetensors.h"

/* Three tensors: F32 [2,2], BF16 [2], BOOL []. The header is 8-byte padded with a space. */
#define GOLDEN_HEADER \
    "{\"__metadata__\":{\"format\":\"pt\"}," \
    "\"w\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}," \
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[16,20]}," \
    "\"f\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[20,21]}}  "

static const uint8_t golden_data[] = {
    0x00, 0x00, 0x80, 0x3F, 0x00, 0x00, 0x00, 0xC0, 0x00, 0x00, 0x00, 0x3F, 0x00, 0x00, 0xC0, 0x7F,
    0x80, 0x3F, 0x20, 0xC1, 0x01};

static char *golden(size_t *out_length)
{
    struct buf out = {0};
    uint64_t header = strlen(GOLDEN_HEADER);
    buf_add(&out, &header, sizeof header);
    buf_puts(&out, GOLDEN_HEADER);
    buf_add(&out, golden_data, sizeof golden_data);
    *out_length = out.length;
    return buf_take(&out);
}

static void a_file_made_by_hand_has_the_known_values(void **state)
{
    (void)state;
    struct err err = {0};
    struct safetensors file;
    size_t length;
    char *bytes = golden(&length);
    float values[4];
    if (safetensors_parse(bytes, length, &file, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(file.count, 3);
    const struct st_entry *w = safetensors_find(&file, "w"), *b = safetensors_find(&file, "b");
    assert_int_equal(w->dim_count, 2);
    assert_int_equal(safetensors_read_f32(&file, w, 0, 4, values, &err), 0);
    assert_true(values[0] == 1.0f && values[1] == -2.0f && values[2] == 0.5f);
    assert_true(values[3] != values[3]);
    assert_int_equal(safetensors_read_f32(&file, b, 1, 1, values, &err), 0);
    assert_true(values[0] == -10.0f);
    const struct st_entry *flag = safetensors_find(&file, "f");
    assert_int_equal(st_entry_count(flag), 1);
    assert_int_equal(safetensors_read_f32(&file, flag, 0, 1, values, &err), -1);
    assert_null(safetensors_find(&file, "x"));
    safetensors_close(&file);
    mem_free(bytes);
}

/* Also the reader's own promise: whatever is accepted is sound. */
static void check_sound(const struct safetensors *file)
{
    uint64_t at = 0;
    for (size_t i = 0; i < file->count; i++) {
        assert_true(file->entries[i].begin == at && file->entries[i].end >= at);
        at = file->entries[i].end;
    }
    assert_true(at == file->data_bytes);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct safetensors file;
    size_t length;
    char *bytes = golden(&length);
    for (size_t cut = 0; cut < length; cut++) {
        char *copy = mem_alloc(cut + 1); /* its own block: reading past it is seen by ASan */
        memcpy(copy, bytes, cut);
        assert_int_equal(safetensors_parse(copy, cut, &file, &err), -1);
        mem_free(copy);
    }
    mem_free(bytes);
}

static void every_header_mutation_is_refused_or_gives_a_sound_parse(void **state)
{
    (void)state;
    struct err err = {0};
    struct safetensors file;
    size_t length;
    char *bytes = golden(&length);
    for (size_t i = 0; i < 8 + strlen(GOLDEN_HEADER); i++)
        for (int value = 0; value < 256; value++) {
            char kept = bytes[i];
            bytes[i] = (char)value;
            if (safetensors_parse(bytes, length, &file, &err) == 0) {
                check_sound(&file);
                safetensors_close(&file);
            }
            bytes[i] = kept;
        }
    mem_free(bytes);
}

static void assert_refused(const char *header, size_t data_bytes, const char *expected)
{
    struct err err = {0};
    struct safetensors file;
    struct buf out = {0};
    uint64_t header_bytes = strlen(header);
    buf_add(&out, &header_bytes, sizeof header_bytes);
    buf_puts(&out, header);
    for (size_t i = 0; i < data_bytes; i++)
        buf_putc(&out, 0);
    assert_int_equal(safetensors_parse(out.bytes, out.length, &file, &err), -1);
    if (!strstr(err.text, expected))
        fail_msg("'%s' does not say '%s'", err.text, expected);
    buf_done(&out);
}

#define T(name, dtype, shape, range) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" range "]}"

static void the_validators_rules_are_kept(void **state)
{
    (void)state;
    assert_refused("[]", 0, "does not begin with '{'");
    assert_refused(" {}", 0, "does not begin with '{'");
    assert_refused("{" T("a", "F32", "1", "4,8") "}", 8, "hole");
    assert_refused("{" T("a", "F32", "1", "0,4") "," T("b", "F32", "1", "2,6") "}", 6, "overlap");
    assert_refused("{" T("a", "F32", "1", "0,4") "," T("b", "F32", "1", "8,12") "}", 12, "hole");
    assert_refused("{" T("a", "F32", "1", "0,4") "}", 5, "end at 4");
    assert_refused("{" T("a", "F32", "2", "0,4") "}", 4, "disagree");
    assert_refused("{" T("a", "F32", "4294967296,4294967296", "0,4") "}", 4, "disagree");
    assert_refused("{" T("a", "F32", "1", "4,0") "}", 4, "disagree");
    assert_refused("{" T("a", "F32", "-1", "0,4") "}", 4, "dimension");
    assert_refused("{" T("a", "F32", "1.0", "0,4") "}", 4, "dimension");
    assert_refused("{" T("a", "F32", "1,1,1,1,1,1,1,1,1", "0,4") "}", 4, "8 dimensions");
    assert_refused("{" T("a", "F64", "1", "0,8") "}", 8, "F64");
    assert_refused("{" T("a", "F32", "1", "0,4") "," T("a", "F32", "1", "4,8") "}", 8, "duplicate");
    assert_refused("{\"__metadata__\":{\"format\":1}}", 0, "not a text");
    assert_refused("{\"a\":[[[[[1]]]]]}", 0, "deeper");
    assert_refused("{\"a\":{\"dtype\":\"F32\"}}", 0, "dtype, shape, data_offsets");
}

static void empty_tensors_scalars_and_empty_files_are_allowed(void **state)
{
    (void)state;
    static const char *const headers[] = {"{}", "{" T("a", "F32", "0", "0,0") "}",
                                          "{" T("a", "F32", "0", "0,0") ","
                                          T("b", "I64", "", "0,8") ","
                                          T("c", "U8", "5,0", "8,8") "}"};
    static const size_t data[] = {0, 0, 8};
    for (size_t i = 0; i < ARRAY_COUNT(headers); i++) {
        struct err err = {0};
        struct safetensors file;
        struct buf out = {0};
        uint64_t header_bytes = strlen(headers[i]);
        buf_add(&out, &header_bytes, sizeof header_bytes);
        buf_puts(&out, headers[i]);
        for (size_t n = 0; n < data[i]; n++)
            buf_putc(&out, 7);
        if (safetensors_parse(out.bytes, out.length, &file, &err) < 0)
            fail_msg("%s", err.text);
        safetensors_close(&file);
        buf_done(&out);
    }
}

static void what_is_written_reads_back_bit_for_bit(void **state)
{
    (void)state;
    struct err err = {0};
    struct safetensors file;
    char *folder = folder_make(), *path = mem_printf("%s/x.safetensors", folder);
    const uint32_t floats[] = {0x3F800000, 0x7FC00001, 0x80000000, 0x00000001};
    const uint16_t halves[] = {float_to_bf16(1.5f), float_to_bf16(-3.0f)};
    const int64_t wholes[] = {-5};
    const struct st_array arrays[] = {
        {"z.bf16", ST_BF16, 1, {2}, halves},
        {"b \"quoted\" \xC3\xA9", ST_F32, 2, {2, 2}, floats},
        {"a", ST_F32, 0, {0}, floats},
        {"n", ST_I64, 1, {1}, wholes},
        {"none", ST_U8, 2, {0, 9}, ""},
    };
    assert_int_equal(safetensors_write(path, arrays, ARRAY_COUNT(arrays), &err), 0);
    assert_int_equal(safetensors_open(path, &file, &err), 0);
    assert_int_equal(file.count, ARRAY_COUNT(arrays));
    /* Wider types first, then by name; the data section is aligned to 8 bytes. */
    assert_string_equal(file.entries[0].name, "n");
    assert_string_equal(file.entries[1].name, "a");
    assert_int_equal((uintptr_t)(file.data - (const uint8_t *)file.mapping) % 8, 0);
    for (size_t i = 0; i < ARRAY_COUNT(arrays); i++) {
        const struct st_entry *entry = safetensors_find(&file, arrays[i].name);
        assert_non_null(entry);
        assert_int_equal(entry->type, arrays[i].type);
        assert_memory_equal(file.data + entry->begin, arrays[i].values, entry->end - entry->begin);
    }
    safetensors_close(&file);
    mem_free(path);
    folder_done(folder);
}

static void two_tensors_of_one_name_are_not_written(void **state)
{
    (void)state;
    struct err err = {0};
    const float one = 1;
    const struct st_array arrays[] = {{"a", ST_F32, 0, {0}, &one}, {"b", ST_U8, 0, {0}, &one},
                                      {"a", ST_BF16, 0, {0}, &one}};
    assert_int_equal(safetensors_write("/nowhere/x", arrays, 3, &err), -1);
    assert_non_null(strstr(err.text, "two tensors are called 'a'"));
}

static void half_floats_widen_exactly(void **state)
{
    (void)state;
    assert_true(float_from_f16(0x3C00) == 1.0f);
    assert_true(float_from_f16(0xC000) == -2.0f);
    assert_true(float_from_f16(0x7BFF) == 65504.0f);
    assert_true(float_from_f16(0x0001) == 0x1p-24f);
    assert_true(float_from_f16(0x03FF) == 0x1.ff8p-15f);
    assert_true(float_from_f16(0x0400) == 0x1p-14f);
    assert_true(float_from_f16(0x7C00) == __builtin_inff());
    assert_true(float_from_f16(0x7E00) != float_from_f16(0x7E00));
    assert_true(__builtin_signbit(float_from_f16(0x8000)));
    for (unsigned bits = 0; bits < 65536; bits++) {
        float value = float_from_bf16((uint16_t)bits);
        if (value == value)
            assert_int_equal(float_to_bf16(value), bits);
        else
            assert_true(float_from_bf16(float_to_bf16(value)) != value);
    }
    assert_int_equal(float_to_bf16(1.00390625f), 0x3F80); /* a tie goes to even */
    assert_int_equal(float_to_bf16(1.01171875f), 0x3F82);
}

/* Tables written by other software: F32 and F16 forms of one matrix. */
static void foreign_files_are_read(void **state)
{
    (void)state;
    struct err err = {0};
    struct safetensors wide, half;
    char *path32 = input_path("models/model2vec-test/float32/model.safetensors");
    char *path16 = input_path("models/model2vec-test/float16/model.safetensors");
    assert_int_equal(safetensors_open(path32, &wide, &err), 0);
    assert_int_equal(safetensors_open(path16, &half, &err), 0);
    uint64_t count = st_entry_count(&wide.entries[0]);
    assert_int_equal(count, 29528 * 2);
    float *a = mem_array(count, sizeof *a), *b = mem_array(count, sizeof *b);
    assert_int_equal(safetensors_read_f32(&wide, &wide.entries[0], 0, count, a, &err), 0);
    assert_int_equal(safetensors_read_f32(&half, &half.entries[0], 0, count, b, &err), 0);
    for (uint64_t i = 0; i < count; i++) { /* F16 rounds to 11 bits: relative error 2^-11 */
        float size = a[i] < 0 ? -a[i] : a[i], off = a[i] < b[i] ? b[i] - a[i] : a[i] - b[i];
        assert_true(off <= size * 0x1p-11f + 0x1p-24f);
    }
    mem_free(a);
    mem_free(b);
    safetensors_close(&wide);
    safetensors_close(&half);
    mem_free(path32);
    mem_free(path16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_made_by_hand_has_the_known_values),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_header_mutation_is_refused_or_gives_a_sound_parse),
        cmocka_unit_test(the_validators_rules_are_kept),
        cmocka_unit_test(empty_tensors_scalars_and_empty_files_are_allowed),
        cmocka_unit_test(what_is_written_reads_back_bit_for_bit),
        cmocka_unit_test(two_tensors_of_one_name_are_not_written),
        cmocka_unit_test(half_floats_widen_exactly),
        cmocka_unit_test(foreign_files_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
