/* md5.h - MD5 (RFC 1321), because the published anchors of the data room are MD5s. */
#ifndef ATHANOR_TEST_MD5_H
#define ATHANOR_TEST_MD5_H

#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static inline uint32_t md5_turn(uint32_t x, unsigned bits)
{
    return x << bits | x >> (32 - bits);
}

/* One block of 64 bytes: RFC 1321, section 3.4. */
static inline void md5_block(uint32_t state[4], const uint8_t *block)
{
    static const uint8_t turns[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23},
                                        {6, 10, 15, 21}};
    uint32_t words[16], a = state[0], b = state[1], c = state[2], d = state[3];
    memcpy(words, block, sizeof words); /* little-endian machines only, as the shards are */
    for (unsigned i = 0; i < 64; i++) {
        const unsigned places[4] = {i, 5 * i + 1, 3 * i + 5, 7 * i};
        const uint32_t mixes[4] = {(b & c) | (~b & d), (d & b) | (~d & c), b ^ c ^ d,
                                   c ^ (b | ~d)};
        uint32_t sine = (uint32_t)(fabs(sin(i + 1.0)) * 0x1p32);
        uint32_t sum = a + mixes[i / 16] + sine + words[places[i / 16] % 16];
        a = d;
        d = c;
        c = b;
        b += md5_turn(sum, turns[i / 16][i % 4]);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

static inline void md5_of(const void *bytes, size_t length, char out[33])
{
    uint32_t state[4] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476};
    size_t padded = (length + 8) / 64 * 64 + 64;
    uint64_t bits = 8 * (uint64_t)length;
    uint8_t *copy = mem_zalloc(padded);
    memcpy(copy, bytes, length);
    copy[length] = 0x80;
    memcpy(copy + padded - 8, &bits, sizeof bits);
    for (size_t at = 0; at < padded; at += 64)
        md5_block(state, copy + at);
    for (size_t i = 0; i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", (unsigned)(state[i / 4] >> 8 * (i % 4) & 0xFF));
    mem_free(copy);
}

#endif
