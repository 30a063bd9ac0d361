/* frame.h - keys of a frame's outer map, shared by encode.c and decode.c. Never reused. */
#ifndef ATHANOR_WIRE_FRAME_H
#define ATHANOR_WIRE_FRAME_H

enum frame_key {
    FRAME_PROTOCOL = 1,
    FRAME_EPOCH,
    FRAME_SESSION,
    FRAME_SEQ,
    FRAME_ACK,
    FRAME_TAG,
    FRAME_BODY, /* stays the last one that encode.c writes: the tag is known before it */
};

#endif
