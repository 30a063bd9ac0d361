/* encode.c - structs to frames, by walking the field tables; see wire.h. */
#include "common/base/parse.h"
#include "common/wire/frame.h"
#include "common/wire/layout.h"

#include <msgpack/pack.h>
#include <string.h>

static int buf_write(void *user, const char *bytes, size_t length)
{
    buf_add(user, bytes, length);
    return 0;
}

static int pack_str(msgpack_packer *packer, const char *text, struct err *err)
{
    if (!text)
        text = "";
    size_t length = strlen(text);
    if (length > WIRE_STRING_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "has %zu bytes, at most %zu are sent", length,
                       WIRE_STRING_BYTES_MAX);
    if (!text_is_utf8(text, length))
        return err_set(err, ERR_INVALID, "is not valid UTF-8");
    msgpack_pack_str(packer, length);
    msgpack_pack_str_body(packer, text, length);
    return 0;
}

static int pack_bytes(msgpack_packer *packer, const struct wire_bytes *bytes, struct err *err)
{
    if (bytes->length > WIRE_STRING_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "has %zu bytes, at most %zu are sent", bytes->length,
                       WIRE_STRING_BYTES_MAX);
    msgpack_pack_bin(packer, bytes->length);
    msgpack_pack_bin_body(packer, bytes->bytes ? bytes->bytes : "", bytes->length);
    return 0;
}

/* Whether an OPTIONAL or LIST field has the value that a missing key stands for. */
static bool is_missing(const struct wire_field *field, const char *at)
{
    static const struct hash zero_hash;
    switch (field->type) {
    case WIRE_u64:
    case WIRE_i64:
        return *(const uint64_t *)at == 0;
    case WIRE_f64: /* by bits: -0.0 is sent */
        return memcmp(at, &(double){0}, sizeof(double)) == 0;
    case WIRE_flag:
        return !*(const bool *)at;
    case WIRE_str:
        return *(const char *const *)at == NULL || **(const char *const *)at == '\0';
    case WIRE_bytes:
        return ((const struct wire_bytes *)at)->length == 0;
    case WIRE_hash:
        return hash_equal((const struct hash *)at, &zero_hash);
    case WIRE_list:
        return false; /* decided by its count */
    }
    return false;
}

static int pack_scalar(msgpack_packer *packer, const struct wire_field *field, const char *at,
                       struct err *err)
{
    switch (field->type) {
    case WIRE_u64:
        msgpack_pack_uint64(packer, *(const uint64_t *)at);
        return 0;
    case WIRE_i64:
        msgpack_pack_int64(packer, *(const int64_t *)at);
        return 0;
    case WIRE_f64:
        msgpack_pack_double(packer, *(const double *)at);
        return 0;
    case WIRE_flag:
        if (*(const bool *)at)
            msgpack_pack_true(packer);
        else
            msgpack_pack_false(packer);
        return 0;
    case WIRE_str:
        return pack_str(packer, *(const char *const *)at, err);
    case WIRE_bytes:
        return pack_bytes(packer, (const struct wire_bytes *)at, err);
    case WIRE_hash:
        msgpack_pack_bin(packer, HASH_BYTES);
        msgpack_pack_bin_body(packer, at, HASH_BYTES);
        return 0;
    case WIRE_list:
        break;
    }
    CHECK(false);
    return -1;
}

static size_t count_at(const struct wire_field *field, const char *base)
{
    size_t count;
    memcpy(&count, base + field->count_offset, sizeof count);
    return count;
}

static bool is_sent(const struct wire_field *field, const char *base)
{
    if (field->type == WIRE_list)
        return count_at(field, base) > 0;
    return field->required || !is_missing(field, base + field->offset);
}

static int pack_struct(msgpack_packer *packer, const struct wire_layout *layout, const char *base,
                       struct err *err);

static int pack_list(msgpack_packer *packer, const struct wire_field *field, const char *base,
                     struct err *err)
{
    const struct wire_layout *record = field->record();
    const char *items = *(const char *const *)(const void *)(base + field->offset);
    size_t count = count_at(field, base);
    if (count > WIRE_LIST_ITEMS_MAX)
        return err_set(err, ERR_LIMIT, "has %zu items, at most %u are sent", count,
                       WIRE_LIST_ITEMS_MAX);
    CHECK(items);
    msgpack_pack_array(packer, count);
    for (size_t i = 0; i < count; i++)
        if (pack_struct(packer, record, items + i * record->size_bytes, err) < 0)
            return err_wrap(err, "item %zu", i);
    return 0;
}

/* Depth of recursion is that of messages.def: a list's record holds no list. */
static int pack_struct(msgpack_packer *packer, const struct wire_layout *layout, const char *base,
                       struct err *err)
{
    size_t sent = 0;
    for (size_t i = 0; i < layout->field_count; i++)
        sent += is_sent(&layout->fields[i], base);
    msgpack_pack_map(packer, sent);
    for (size_t i = 0; i < layout->field_count; i++) {
        const struct wire_field *field = &layout->fields[i];
        if (!is_sent(field, base))
            continue;
        msgpack_pack_uint64(packer, field->key);
        int rc = field->type == WIRE_list ? pack_list(packer, field, base, err)
                                          : pack_scalar(packer, field, base + field->offset, err);
        if (rc < 0)
            return err_wrap(err, "field '%s'", field->name);
    }
    return 0;
}

int wire_encode(const struct envelope *envelope, const struct message *message, struct buf *out,
                struct err *err)
{
    const struct wire_layout *layout = layout_find((uint64_t)message->tag);
    CHECK(layout);
    size_t start = out->length;
    msgpack_packer packer;
    msgpack_packer_init(&packer, out, buf_write);

    const uint64_t head[FRAME_BODY - 1] = {WIRE_PROTOCOL, envelope->epoch, envelope->session,
                                           envelope->seq, envelope->ack,   message->tag};
    msgpack_pack_map(&packer, FRAME_BODY);
    for (uint64_t key = FRAME_PROTOCOL; key < FRAME_BODY; key++) {
        msgpack_pack_uint64(&packer, key);
        msgpack_pack_uint64(&packer, head[key - 1]);
    }
    msgpack_pack_uint64(&packer, FRAME_BODY);
    int rc = pack_struct(&packer, layout, (const char *)&message->u, err);
    if (rc == 0 && out->length - start > WIRE_FRAME_BYTES_MAX)
        rc = err_set(err, ERR_LIMIT, "has %zu bytes, at most %zu are sent", out->length - start,
                     WIRE_FRAME_BYTES_MAX);
    if (rc == 0)
        return 0;
    out->length = start;
    out->bytes[start] = '\0';
    return err_wrap(err, "message '%s'", layout->name);
}
