/* layout.h - messages.def as tables for the codec and its tests: which key sits where. */
#ifndef ATHANOR_WIRE_LAYOUT_H
#define ATHANOR_WIRE_LAYOUT_H

#include "common/wire/wire.h"

enum wire_type {
    WIRE_u64 = 1,
    WIRE_i64,
    WIRE_f64,
    WIRE_flag,
    WIRE_str,
    WIRE_bytes,
    WIRE_hash,
    WIRE_list
};

struct wire_layout;

struct wire_field {
    uint64_t key;
    enum wire_type type;
    bool required;
    const char *name;
    size_t offset;                             /* of the value, or of a list's items pointer */
    size_t count_offset;                       /* of a list's count */
    const struct wire_layout *(*record)(void); /* of a list's items */
};

struct wire_layout {
    const char *name;
    enum wire_sender sender; /* messages only */
    size_t size_bytes;       /* of the C struct */
    const struct wire_field *fields;
    size_t field_count; /* at most 64: decode.c keeps what it has seen in a word */
};

const struct wire_layout *layout_find(uint64_t tag); /* NULL for a number that is no message */

/* Tags in order of their numbers: 0 starts, 0 ends. For tests that walk all messages. */
uint64_t layout_next(uint64_t tag);

#endif
