/* safetensors.h - named arrays in one file: u64 header length, JSON header, data.
 *
 * Source: the safetensors format text and its reference validator. Both the reader and the
 * writer obey: ranges sorted by offset are contiguous from 0 without hole or overlap, the
 * last one ends the file, a range is exactly prod(shape) * item size, names are unique.
 * Additional limits of ours, against hostile files: header at most 16 MiB, 1e6 tensors,
 * names of 512 bytes, 8 dimensions, JSON depth 4. */
#ifndef ATHANOR_SAFETENSORS_H
#define ATHANOR_SAFETENSORS_H

#include "common/base/err.h"

#define SAFETENSORS_HEADER_MAX ((uint64_t)16 << 20)
#define SAFETENSORS_TENSORS_MAX 1000000
#define SAFETENSORS_NAME_MAX 512
#define SAFETENSORS_DIMS_MAX 8
#define SAFETENSORS_DEPTH_MAX 4

/* In the reference writer's order: later ones come first in a file. */
enum st_type { ST_BOOL = 1, ST_U8, ST_I8, ST_F16, ST_BF16, ST_I32, ST_F32, ST_I64, ST_TYPE_END };

const char *st_type_name(enum st_type type); /* "F32" */
unsigned st_type_bytes(enum st_type type);

struct st_entry {
    char *name;
    enum st_type type;
    unsigned dim_count;
    uint64_t shape[SAFETENSORS_DIMS_MAX];
    uint64_t begin, end; /* bytes within the data section */
};

struct safetensors {
    struct st_entry *entries; /* by offset */
    size_t count;
    const uint8_t *data; /* not aligned */
    uint64_t data_bytes;
    void *mapping; /* NULL after safetensors_parse: bytes are the caller's */
    size_t mapping_bytes;
};

/* Checks and indexes bytes in memory, which must outlive `out`. Errors: ERR_PROTOCOL. */
int safetensors_parse(const void *bytes, size_t length, struct safetensors *out,
                      struct err *err) WARN_UNUSED;
/* Maps a file. Errors: ERR_NOT_FOUND, ERR_IO, ERR_PROTOCOL, naming the file. */
int safetensors_open(const char *path, struct safetensors *out, struct err *err) WARN_UNUSED;
void safetensors_close(struct safetensors *file);
const struct st_entry *safetensors_find(const struct safetensors *file, const char *name);
uint64_t st_entry_count(const struct st_entry *entry); /* elements */
/* Elements [first, first + count) as floats; F16 and BF16 are widened exactly, integers
 * and BOOL refused (ERR_INVALID). */
int safetensors_read_f32(const struct safetensors *file, const struct st_entry *entry,
                         uint64_t first, uint64_t count, float *out, struct err *err) WARN_UNUSED;

struct st_array {
    const char *name;
    enum st_type type;
    unsigned dim_count;
    uint64_t shape[SAFETENSORS_DIMS_MAX];
    const void *values; /* prod(shape) items */
};
/* Writes and syncs `path` (not atomically: callers write into a temporary folder), with the
 * metadata {"format": "pt"} that transformers demands. Names must be unique (ERR_INVALID). */
int safetensors_write(const char *path, const struct st_array *arrays, size_t count,
                      struct err *err) WARN_UNUSED;

float float_from_f16(uint16_t bits);
float float_from_bf16(uint16_t bits);
uint16_t float_to_bf16(float value); /* nearest, ties to even; NaN stays NaN */

#endif
