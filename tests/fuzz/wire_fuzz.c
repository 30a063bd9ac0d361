/* link: common-wire */
/* wire_fuzz.c - any bytes decode or are refused; what decodes, encodes and decodes again. */
#include "common/wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct arena arena = {0};
    struct buf frame = {0};
    struct envelope envelope, again_envelope;
    struct message message, again;
    struct err err;
    if (wire_decode(bytes, length, &arena, &envelope, &message, &err) == 0) {
        CHECK(wire_encode(&envelope, &message, &frame, &err) == 0);
        CHECK(wire_decode(frame.bytes, frame.length, &arena, &again_envelope, &again, &err) == 0);
        CHECK(again.tag == message.tag && again_envelope.seq == envelope.seq);
    }
    buf_done(&frame);
    arena_done(&arena);
    return 0;
}
