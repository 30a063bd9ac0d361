/* inputs.h - real inputs and private folders for the tests of data, io and recipes.
 *
 * Real inputs are not in the repository: ATHANOR_SHARED_DATA, default ../shared/data beside
 * the source tree, and /usr/share/wordnet. A test that lacks one says so and skips. */
#ifndef ATHANOR_TEST_INPUTS_H
#define ATHANOR_TEST_INPUTS_H

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define INPUT_BYTES_MAX ((size_t)1 << 28)
#define WORDNET_FOLDER  "/usr/share/wordnet"

/* Skips the test, visibly, when the file is absent. Returns the path (mem_free). */
static inline char *input_path(const char *name)
{
    const char *folder = getenv("ATHANOR_SHARED_DATA");
    char *path = mem_printf("%s/%s", folder && *folder ? folder : "../shared/data", name);
    if (!file_exists(path)) {
        print_message("[  SKIP  ] needs %s (set ATHANOR_SHARED_DATA)\n", path);
        mem_free(path);
        skip();
    }
    return path;
}

static inline char *input_read(const char *name, size_t *out_length)
{
    struct err err;
    char *path = input_path(name), *bytes;
    assert_int_equal(file_read(path, INPUT_BYTES_MAX, &bytes, out_length, &err), 0);
    mem_free(path);
    return bytes;
}

/* Skips unless the data.noun of WordNet 3.0 is installed. */
static inline void need_wordnet(void)
{
    struct err err;
    char *bytes, hex[HASH_HEX_SIZE] = "";
    size_t length;
    struct hash hash;
    if (file_read(WORDNET_FOLDER "/data.noun", INPUT_BYTES_MAX, &bytes, &length, &err) == 0) {
        hash_sha256(bytes, length, &hash);
        hash_to_hex(&hash, hex);
        mem_free(bytes);
    }
    if (strncmp(hex, "fea17d2f", 8) != 0) {
        print_message("[  SKIP  ] needs WordNet 3.0 (Debian package wordnet-base)\n");
        skip();
    }
}

/* A private folder; remove it with folder_done. */
static inline char *folder_make(void)
{
    const char *parent = getenv("TMPDIR");
    char *path = mem_printf("%s/athanor-test-XXXXXX", parent && *parent ? parent : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void folder_done(char *path)
{
    struct err err;
    assert_int_equal(file_remove_tree(path, &err), 0);
    mem_free(path);
}

static inline void write_bytes(const char *path, const void *bytes, size_t length)
{
    struct err err;
    assert_int_equal(file_replace(path, bytes, length, 0644, &err), 0);
}

#endif
