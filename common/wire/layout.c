/* layout.c - expands messages.def into field tables; see layout.h.
 *
 * Each struct gets a function, because only inside one can a field's row name "the struct around
 * me" (self) for offsetof. */
#include "common/wire/layout.h"

#define FIELD(key_, type_, name_)                                                                  \
    {key_, WIRE_##type_, true, #name_, offsetof(self, name_), 0, NULL},
#define OPTIONAL(key_, type_, name_)                                                               \
    {key_, WIRE_##type_, false, #name_, offsetof(self, name_), 0, NULL},
#define LIST(key_, record_, name_)                                                                 \
    {key_,                                                                                         \
     WIRE_list,                                                                                    \
     false,                                                                                        \
     #name_,                                                                                       \
     offsetof(self, name_),                                                                        \
     offsetof(self, name_##_count),                                                                \
     rec_##record_##_layout},
#define LAYOUT(struct_, sender_, ...)                                                              \
    static const struct wire_layout *struct_##_layout(void)                                        \
    {                                                                                              \
        typedef struct struct_ self;                                                               \
        static const struct wire_field fields[] = {__VA_ARGS__};                                   \
        static const struct wire_layout layout = {&#struct_[4], sender_, sizeof(self), fields,     \
                                                  ARRAY_COUNT(fields)};                            \
        _Static_assert(ARRAY_COUNT(fields) <= 64, "decode.c marks fields in one word");            \
        return &layout;                                                                            \
    }
#define RECORD(record, ...) LAYOUT(rec_##record, SENDER_ANY, __VA_ARGS__)
#define MESSAGE(number, TAG, message, sender, ...)                                                 \
    LAYOUT(msg_##message, SENDER_##sender, __VA_ARGS__)
#define RETIRED(number)
#include "common/wire/messages.def"
#undef RECORD
#undef MESSAGE
#undef RETIRED

static const struct row {
    uint64_t tag; /* 0: retired */
    const struct wire_layout *(*layout)(void);
} rows[] = {
#define RECORD(record, ...)
#define MESSAGE(number, TAG, message, sender, ...) [number] = {number, msg_##message##_layout},
#define RETIRED(number)                            [number] = {0, NULL},
#include "common/wire/messages.def"
};

const struct wire_layout *layout_find(uint64_t tag)
{
    if (tag >= ARRAY_COUNT(rows) || rows[tag].layout == NULL)
        return NULL;
    return rows[tag].layout();
}

uint64_t layout_next(uint64_t tag)
{
    for (tag++; tag < ARRAY_COUNT(rows); tag++)
        if (rows[tag].layout)
            return tag;
    return 0;
}

const char *msg_name(enum msg_tag tag)
{
    const struct wire_layout *layout = layout_find((uint64_t)tag);
    return layout ? layout->name : "unknown";
}

enum wire_sender msg_sender(enum msg_tag tag)
{
    const struct wire_layout *layout = layout_find((uint64_t)tag);
    return layout ? layout->sender : SENDER_COORDINATOR;
}

bool msg_allowed(enum msg_tag tag, enum role role)
{
    switch (msg_sender(tag)) {
    case SENDER_ANY:
        return true;
    case SENDER_MEMBER:
        return role == ROLE_USER || role == ROLE_OPERATOR || role == ROLE_ADMIN ||
               role == ROLE_WORKER;
    case SENDER_COORDINATOR:
        return false;
    case SENDER_CLIENT:
        return role == ROLE_USER || role == ROLE_OPERATOR || role == ROLE_ADMIN ||
               (role == ROLE_PILOT && (tag == MSG_QUERY || tag == MSG_KEY_CHANGE));
    case SENDER_WORKER:
    case SENDER_NEIGHBOUR:
        return role == ROLE_WORKER;
    case SENDER_TOKEN:
        return role == ROLE_TOKEN;
    }
    return false;
}

bool msg_request_seq(const struct message *message, uint64_t *out_seq)
{
    const struct wire_layout *layout = layout_find((uint64_t)message->tag);
    if (!layout)
        return false;
    for (size_t i = 0; i < layout->field_count; i++) {
        const struct wire_field *field = &layout->fields[i];
        if (field->type == WIRE_u64 && __builtin_strcmp(field->name, "request_seq") == 0) {
            *out_seq = *(const uint64_t *)((const char *)&message->u + field->offset);
            return true;
        }
    }
    return false;
}
