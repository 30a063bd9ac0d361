/* decode.c - frames to structs, by walking the field tables; see wire.h.
 *
 * Trusts nothing: every count is held against the bytes that are left before memory is taken for
 * it, so a frame costs at most (list fields of a message) x (bytes of a record) per byte of it. */
#include "common/base/parse.h"
#include "common/wire/frame.h"
#include "common/wire/layout.h"
#include "common/wire/pull.h"

#include <string.h>

/* A str that is missing is "", never NULL. */
static void set_defaults(const struct wire_layout *layout, char *base)
{
    for (size_t i = 0; i < layout->field_count; i++) {
        const struct wire_field *field = &layout->fields[i];
        if (field->type == WIRE_str)
            *(const char **)(void *)(base + field->offset) = "";
        if (field->type == WIRE_bytes)
            *(struct wire_bytes *)(void *)(base + field->offset) = (struct wire_bytes){"", 0};
    }
}

static int check_length(size_t length, struct err *err)
{
    if (length > WIRE_STRING_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "has %zu bytes, at most %zu are read", length,
                       WIRE_STRING_BYTES_MAX);
    return 0;
}

static int take_str(struct pull *pull, struct arena *arena, const char **out, struct err *err)
{
    const char *text;
    size_t length;
    if (pull_str(pull, &text, &length, err) < 0 || check_length(length, err) < 0)
        return -1;
    if (memchr(text, '\0', length))
        return err_set(err, ERR_PROTOCOL, "holds a zero byte");
    if (!text_is_utf8(text, length))
        return err_set(err, ERR_PROTOCOL, "is not valid UTF-8");
    *out = arena_strndup(arena, text, length);
    return 0;
}

static int take_bytes(struct pull *pull, struct arena *arena, struct wire_bytes *out,
                      struct err *err)
{
    const char *bytes;
    size_t length;
    if (pull_bin(pull, &bytes, &length, err) < 0 || check_length(length, err) < 0)
        return -1;
    char *copy = arena_alloc(arena, length + 1);
    memcpy(copy, bytes, length);
    *out = (struct wire_bytes){copy, length};
    return 0;
}

static int take_hash(struct pull *pull, struct hash *out, struct err *err)
{
    const char *bytes;
    size_t length;
    if (pull_bin(pull, &bytes, &length, err) < 0)
        return -1;
    if (length != HASH_BYTES)
        return err_set(err, ERR_PROTOCOL, "is a hash of %zu bytes, expected %d", length,
                       HASH_BYTES);
    memcpy(out->bytes, bytes, HASH_BYTES);
    return 0;
}

static int take_struct(struct pull *pull, struct arena *arena, const struct wire_layout *layout,
                       unsigned depth, char *base, struct err *err);

static int take_list(struct pull *pull, struct arena *arena, const struct wire_field *field,
                     unsigned depth, char *base, struct err *err)
{
    const struct wire_layout *record = field->record();
    uint32_t count;
    if (pull_array(pull, &count, err) < 0)
        return -1;
    if (count > WIRE_LIST_ITEMS_MAX)
        return err_set(err, ERR_LIMIT, "has %u items, at most %u are read", count,
                       WIRE_LIST_ITEMS_MAX);
    char *items = count ? arena_alloc(arena, count * record->size_bytes) : NULL;
    for (uint32_t i = 0; i < count; i++)
        if (take_struct(pull, arena, record, depth + 1, items + i * record->size_bytes, err) < 0)
            return err_wrap(err, "item %u", i);
    size_t size = count;
    memcpy(base + field->offset, &items, sizeof(void *));
    memcpy(base + field->count_offset, &size, sizeof size);
    return 0;
}

static int take_field(struct pull *pull, struct arena *arena, const struct wire_field *field,
                      unsigned depth, char *base, struct err *err)
{
    void *at = base + field->offset;
    switch (field->type) {
    case WIRE_u64:
        return pull_u64(pull, at, err);
    case WIRE_i64:
        return pull_i64(pull, at, err);
    case WIRE_f64:
        return pull_f64(pull, at, err);
    case WIRE_flag:
        return pull_flag(pull, at, err);
    case WIRE_str:
        return take_str(pull, arena, at, err);
    case WIRE_bytes:
        return take_bytes(pull, arena, at, err);
    case WIRE_hash:
        return take_hash(pull, at, err);
    case WIRE_list:
        return take_list(pull, arena, field, depth + 1, base, err);
    }
    CHECK(false);
    return -1;
}

static int field_index(const struct wire_layout *layout, uint64_t key)
{
    for (size_t i = 0; i < layout->field_count; i++)
        if (layout->fields[i].key == key)
            return (int)i;
    return -1;
}

static int take_entry(struct pull *pull, struct arena *arena, const struct wire_layout *layout,
                      unsigned depth, char *base, uint64_t *seen, struct err *err)
{
    uint64_t key;
    if (pull_u64(pull, &key, err) < 0)
        return err_wrap(err, "a key");
    int index = field_index(layout, key);
    if (index < 0) { /* of a newer version: passed over, within the limits */
        if (pull_skip(pull, WIRE_DEPTH_MAX - depth, err) < 0)
            return err_wrap(err, "unknown field %llu", (unsigned long long)key);
        return 0;
    }
    const struct wire_field *field = &layout->fields[index];
    if (*seen >> index & 1)
        return err_set(err, ERR_PROTOCOL, "field '%s' comes twice", field->name);
    *seen |= UINT64_C(1) << index;
    if (take_field(pull, arena, field, depth, base, err) < 0)
        return err_wrap(err, "field '%s'", field->name);
    return 0;
}

/* `depth`: nesting of this map within the frame, 2 for a body. Recursion is bounded by
 * messages.def, not by the frame: a record holds no list. */
static int take_struct(struct pull *pull, struct arena *arena, const struct wire_layout *layout,
                       unsigned depth, char *base, struct err *err)
{
    uint32_t count;
    uint64_t seen = 0;
    CHECK(depth <= WIRE_DEPTH_MAX);
    set_defaults(layout, base);
    if (pull_map(pull, &count, err) < 0)
        return -1;
    if (count > WIRE_MAP_KEYS_MAX)
        return err_set(err, ERR_LIMIT, "has %u keys, at most %u are read", count,
                       WIRE_MAP_KEYS_MAX);
    for (uint32_t i = 0; i < count; i++)
        if (take_entry(pull, arena, layout, depth, base, &seen, err) < 0)
            return -1;
    for (size_t i = 0; i < layout->field_count; i++)
        if (layout->fields[i].required && !(seen >> i & 1))
            return err_set(err, ERR_PROTOCOL, "field '%s' is missing", layout->fields[i].name);
    return 0;
}

static int check_protocol(uint64_t protocol, struct err *err)
{
    if (protocol + 1 < WIRE_PROTOCOL || protocol > WIRE_PROTOCOL + 1)
        return err_set(err, ERR_PROTOCOL,
                       "the peer speaks protocol version %llu, this program %d and its neighbours",
                       (unsigned long long)protocol, WIRE_PROTOCOL);
    return 0;
}

static int take_body(struct pull *pull, struct arena *arena, uint64_t tag, struct message *out,
                     struct err *err)
{
    const struct wire_layout *layout = layout_find(tag);
    if (!layout) { /* of a newer version: its body is passed over; wire_decode says so */
        out->tag = (enum msg_tag)0;
        return pull_skip(pull, WIRE_DEPTH_MAX - 1, err);
    }
    out->tag = (enum msg_tag)tag;
    if (take_struct(pull, arena, layout, 2, (char *)&out->u, err) < 0)
        return err_wrap(err, "message '%s'", layout->name);
    return 0;
}

/* The outer map. Its known keys come in ascending order, so that protocol and tag are known
 * before the body; keys of newer versions may stand anywhere. */
static int take_frame(struct pull *pull, struct arena *arena, struct envelope *envelope,
                      struct message *message, uint64_t *tag, struct err *err)
{
    uint64_t values[FRAME_BODY] = {0};
    uint64_t next = FRAME_PROTOCOL;
    uint32_t count;
    if (pull_map(pull, &count, err) < 0)
        return -1;
    if (count > WIRE_MAP_KEYS_MAX)
        return err_set(err, ERR_LIMIT, "has %u keys, at most %u are read", count,
                       WIRE_MAP_KEYS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t key;
        if (pull_u64(pull, &key, err) < 0)
            return err_wrap(err, "a key");
        int rc = 0;
        if (key < FRAME_PROTOCOL || key > FRAME_BODY)
            rc = pull_skip(pull, WIRE_DEPTH_MAX - 1, err);
        else if (key != next++)
            rc = err_set(err, ERR_PROTOCOL, "key %llu is out of order", (unsigned long long)key);
        else if (key == FRAME_BODY)
            rc = take_body(pull, arena, values[FRAME_TAG], message, err);
        else if (pull_u64(pull, &values[key], err) < 0)
            rc = err_wrap(err, "key %llu", (unsigned long long)key);
        if (rc == 0 && key == FRAME_PROTOCOL)
            rc = check_protocol(values[FRAME_PROTOCOL], err);
        if (rc < 0)
            return -1;
    }
    if (next != FRAME_BODY + 1)
        return err_set(err, ERR_PROTOCOL, "key %llu is missing", (unsigned long long)next);
    *envelope = (struct envelope){.protocol = values[FRAME_PROTOCOL],
                                  .epoch = values[FRAME_EPOCH],
                                  .session = values[FRAME_SESSION],
                                  .seq = values[FRAME_SEQ],
                                  .ack = values[FRAME_ACK]};
    *tag = values[FRAME_TAG];
    return 0;
}

int wire_decode(const void *bytes, size_t length, struct arena *arena,
                struct envelope *out_envelope, struct message *out_message, struct err *err)
{
    if (length > WIRE_FRAME_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "the frame has %zu bytes, at most %zu are read", length,
                       WIRE_FRAME_BYTES_MAX);
    struct pull pull = {bytes, (const uint8_t *)bytes + length};
    struct envelope envelope;
    struct message message;
    uint64_t tag = 0;
    memset(&message, 0, sizeof message);
    if (take_frame(&pull, arena, &envelope, &message, &tag, err) < 0)
        return -1;
    if (pull.at != pull.end)
        return err_set(err, ERR_PROTOCOL, "%zu bytes follow the message '%s'",
                       (size_t)(pull.end - pull.at), msg_name(message.tag));
    *out_envelope = envelope;
    if (message.tag == 0)
        return err_set(err, ERR_NOT_FOUND, "message number %llu is not known to this version",
                       (unsigned long long)tag);
    *out_message = message;
    return 0;
}
