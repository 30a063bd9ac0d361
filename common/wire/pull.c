/* pull.c - MessagePack reader; see pull.h. Format: the MessagePack specification (2013 types). */
#include "common/wire/pull.h"

#include <string.h>

enum kind {
    KIND_NIL = 1,
    KIND_FLAG,
    KIND_UINT,
    KIND_INT,
    KIND_FLOAT,
    KIND_STR,
    KIND_BIN,
    KIND_ARRAY,
    KIND_MAP,
    KIND_EXT
};

static const char *const kind_names[] = {
    [KIND_NIL] = "nil",         [KIND_FLAG] = "a flag",
    [KIND_UINT] = "an integer", [KIND_INT] = "a negative integer",
    [KIND_FLOAT] = "a float",   [KIND_STR] = "a string",
    [KIND_BIN] = "bytes",       [KIND_ARRAY] = "an array",
    [KIND_MAP] = "a map",       [KIND_EXT] = "an extension",
};

/* One value's head. For STR, BIN, EXT `number` is the length of the content that follows, for
 * ARRAY and MAP the count of items, for UINT, INT and FLAG the value (INT as its bits). */
struct head {
    enum kind kind;
    uint64_t number;
    double real;
};

/* The types from 0xc0 to 0xdf: kind, and the bytes of big-endian number that follow. */
static const struct {
    uint8_t kind, width;
} types[32] = {
    {KIND_NIL, 0},   {0, 0},          {KIND_FLAG, 0}, {KIND_FLAG, 0},  {KIND_BIN, 1},
    {KIND_BIN, 2},   {KIND_BIN, 4},   {KIND_EXT, 1},  {KIND_EXT, 2},   {KIND_EXT, 4},
    {KIND_FLOAT, 4}, {KIND_FLOAT, 8}, {KIND_UINT, 1}, {KIND_UINT, 2},  {KIND_UINT, 4},
    {KIND_UINT, 8},  {KIND_INT, 1},   {KIND_INT, 2},  {KIND_INT, 4},   {KIND_INT, 8},
    {KIND_EXT, 0},   {KIND_EXT, 0},   {KIND_EXT, 0},  {KIND_EXT, 0},   {KIND_EXT, 0},
    {KIND_STR, 1},   {KIND_STR, 2},   {KIND_STR, 4},  {KIND_ARRAY, 2}, {KIND_ARRAY, 4},
    {KIND_MAP, 2},   {KIND_MAP, 4},
};

static size_t left(const struct pull *pull)
{
    return (size_t)(pull->end - pull->at);
}

static int truncated(struct err *err)
{
    return err_set(err, ERR_PROTOCOL, "the frame ends inside a value");
}

/* Heads that carry their number within the first byte. Returns whether it was one. */
static bool head_fixed(uint8_t first, struct head *out)
{
    if (first <= 0x7f)
        *out = (struct head){KIND_UINT, first, 0};
    else if (first <= 0x8f)
        *out = (struct head){KIND_MAP, first & 0x0f, 0};
    else if (first <= 0x9f)
        *out = (struct head){KIND_ARRAY, first & 0x0f, 0};
    else if (first <= 0xbf)
        *out = (struct head){KIND_STR, first & 0x1f, 0};
    else if (first >= 0xe0)
        *out = (struct head){KIND_INT, (uint64_t)(int64_t)(int8_t)first, 0};
    else
        return false;
    return true;
}

static uint64_t big_endian(const uint8_t *bytes, size_t width)
{
    uint64_t number = 0;
    for (size_t i = 0; i < width; i++)
        number = number << 8 | bytes[i];
    return number;
}

/* Interprets the number behind the head byte according to its kind and width. */
static void head_number(struct head *head, uint8_t first, uint64_t number, size_t width)
{
    head->number = number;
    if (head->kind == KIND_FLAG)
        head->number = first == 0xc3;
    if (head->kind == KIND_EXT) /* fixext 1, 2, 4, 8, 16, or a length; and one type byte */
        head->number = 1 + (first >= 0xd4 ? UINT64_C(1) << (first - 0xd4) : number);
    if (head->kind == KIND_INT) {
        unsigned shift = 64 - 8 * (unsigned)width;
        int64_t value = (int64_t)(number << shift) >> shift;
        head->number = (uint64_t)value;
        if (value >= 0)
            head->kind = KIND_UINT;
    }
    if (head->kind == KIND_FLOAT && width == 4) {
        uint32_t bits = (uint32_t)number;
        float single;
        memcpy(&single, &bits, sizeof single);
        head->real = (double)single;
    } else if (head->kind == KIND_FLOAT) {
        memcpy(&head->real, &number, sizeof head->real);
    }
}

static int head_take(struct pull *pull, struct head *out, struct err *err)
{
    if (left(pull) == 0)
        return truncated(err);
    uint8_t first = *pull->at;
    size_t width = 0;
    if (!head_fixed(first, out)) {
        if (types[first - 0xc0].kind == 0)
            return err_set(err, ERR_PROTOCOL, "byte 0x%02x starts no MessagePack value", first);
        width = types[first - 0xc0].width;
        if (left(pull) < 1 + width)
            return truncated(err);
        out->kind = (enum kind)types[first - 0xc0].kind;
        out->real = 0;
        head_number(out, first, big_endian(pull->at + 1, width), width);
    }
    pull->at += 1 + width;
    return 0;
}

static int expect(struct pull *pull, enum kind kind, struct head *out, struct err *err)
{
    if (head_take(pull, out, err) < 0)
        return -1;
    if (out->kind != kind)
        return err_set(err, ERR_PROTOCOL, "is %s where %s belongs", kind_names[out->kind],
                       kind_names[kind]);
    return 0;
}

int pull_u64(struct pull *pull, uint64_t *out, struct err *err)
{
    struct head head;
    if (expect(pull, KIND_UINT, &head, err) < 0)
        return -1;
    *out = head.number;
    return 0;
}

int pull_i64(struct pull *pull, int64_t *out, struct err *err)
{
    struct head head;
    if (head_take(pull, &head, err) < 0)
        return -1;
    if (head.kind != KIND_INT && head.kind != KIND_UINT)
        return err_set(err, ERR_PROTOCOL, "is %s where an integer belongs", kind_names[head.kind]);
    if (head.kind == KIND_UINT && head.number > INT64_MAX)
        return err_set(err, ERR_PROTOCOL, "is above the largest signed integer");
    *out = (int64_t)head.number;
    return 0;
}

int pull_f64(struct pull *pull, double *out, struct err *err)
{
    struct head head;
    if (expect(pull, KIND_FLOAT, &head, err) < 0)
        return -1;
    *out = head.real;
    return 0;
}

int pull_flag(struct pull *pull, bool *out, struct err *err)
{
    struct head head;
    if (expect(pull, KIND_FLAG, &head, err) < 0)
        return -1;
    *out = head.number != 0;
    return 0;
}

static int pull_content(struct pull *pull, enum kind kind, const char **out, size_t *out_length,
                        struct err *err)
{
    struct head head;
    if (expect(pull, kind, &head, err) < 0)
        return -1;
    if (head.number > left(pull))
        return truncated(err);
    *out = (const char *)pull->at;
    *out_length = (size_t)head.number;
    pull->at += head.number;
    return 0;
}

int pull_str(struct pull *pull, const char **out, size_t *out_length, struct err *err)
{
    return pull_content(pull, KIND_STR, out, out_length, err);
}

int pull_bin(struct pull *pull, const char **out, size_t *out_length, struct err *err)
{
    return pull_content(pull, KIND_BIN, out, out_length, err);
}

static int pull_count(struct pull *pull, enum kind kind, size_t item_bytes_min, uint32_t *out_count,
                      struct err *err)
{
    struct head head;
    if (expect(pull, kind, &head, err) < 0)
        return -1;
    if (head.number * item_bytes_min > left(pull))
        return truncated(err);
    *out_count = (uint32_t)head.number;
    return 0;
}

int pull_array(struct pull *pull, uint32_t *out_count, struct err *err)
{
    return pull_count(pull, KIND_ARRAY, 1, out_count, err);
}

int pull_map(struct pull *pull, uint32_t *out_count, struct err *err)
{
    return pull_count(pull, KIND_MAP, 2, out_count, err);
}

#define SKIP_DEPTH_MAX 8u

int pull_skip(struct pull *pull, unsigned depth, struct err *err)
{
    CHECK(depth <= SKIP_DEPTH_MAX);
    uint64_t open[SKIP_DEPTH_MAX + 1] = {1}; /* values still to pass at each level */
    unsigned level = 0;
    for (;;) {
        while (open[level] == 0) {
            if (level == 0)
                return 0;
            level--;
        }
        open[level]--;
        struct head head;
        if (head_take(pull, &head, err) < 0)
            return -1;
        if (head.kind == KIND_ARRAY || head.kind == KIND_MAP) {
            if (level == depth)
                return err_set(err, ERR_LIMIT, "is nested too deeply");
            open[++level] = head.kind == KIND_MAP ? 2 * head.number : head.number;
        } else if (head.kind == KIND_STR || head.kind == KIND_BIN || head.kind == KIND_EXT) {
            if (head.number > left(pull))
                return truncated(err);
            pull->at += head.number;
        }
    }
}
