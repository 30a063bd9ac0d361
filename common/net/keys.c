/* keys.c - CURVE key pairs and their files; see keys.h. */
#include "common/net/keys.h"

#include "common/base/buf.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

void keypair_make(struct keypair *out)
{
    CHECK(zmq_curve_keypair(out->public_key, out->secret_key) == 0);
}

void keypair_wipe(struct keypair *keys)
{
    sodium_memzero(keys, sizeof *keys);
}

/* Z85 writes 4 bytes as 5 characters of base 85, so 5 characters can also spell more than
 * 2^32 - 1; zmq_z85_decode of Debian 12 refuses both that and foreign characters. */
int public_key_check(const char *text, struct err *err)
{
    uint8_t bytes[32];
    size_t length = strnlen(text, KEY_TEXT_SIZE);
    if (length != KEY_TEXT_LENGTH)
        return err_set(err, ERR_INVALID, "a key has %d characters of Z85, this one has %s%zu",
                       KEY_TEXT_LENGTH, length > KEY_TEXT_LENGTH ? "at least " : "", length);
    if (!zmq_z85_decode(bytes, text))
        return err_set(err, ERR_INVALID, "the key holds characters that are not Z85");
    sodium_memzero(bytes, sizeof bytes);
    return 0;
}

/* ---- the file format ---------------------------------------------------------------------- */

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

/* If the line is NAME = "VALUE", copies VALUE. Returns 1 (was it), 0 (another name) or -1. */
static int line_value(const char *at, const char *end, const char *name, char out[KEY_TEXT_SIZE],
                      struct err *err)
{
    size_t length = strlen(name);
    if ((size_t)(end - at) < length || memcmp(at, name, length) != 0)
        return 0;
    at = skip_blanks(at + length, end);
    if (at == end || *at != '=')
        return 0;
    at = skip_blanks(at + 1, end);
    if (end - at < KEY_TEXT_LENGTH + 2 || *at != '"' || at[KEY_TEXT_LENGTH + 1] != '"' ||
        skip_blanks(at + KEY_TEXT_LENGTH + 2, end) != end)
        return err_set(err, ERR_INVALID, "%s needs a value of %d characters in double quotes", name,
                       KEY_TEXT_LENGTH);
    if (out[0])
        return err_set(err, ERR_INVALID, "%s is given twice", name);
    char text[KEY_TEXT_SIZE] = {0};
    memcpy(text, at + 1, KEY_TEXT_LENGTH);
    if (public_key_check(text, err) < 0)
        return err_wrap(err, "%s", name);
    memcpy(out, text, KEY_TEXT_SIZE);
    sodium_memzero(text, sizeof text);
    return 1;
}

static int line_parse(const char *at, const char *end, struct keypair *out, struct err *err)
{
    at = skip_blanks(at, end);
    if (at == end || *at == '#')
        return 0;
    int rc = line_value(at, end, "public-key", out->public_key, err);
    if (rc == 0)
        rc = line_value(at, end, "secret-key", out->secret_key, err);
    if (rc == 0)
        return err_set(err, ERR_INVALID,
                       "expected public-key = \"...\", secret-key = \"...\" or a # comment");
    return rc < 0 ? -1 : 0;
}

static int keypair_complete(const struct keypair *keys, struct err *err)
{
    char derived[KEY_TEXT_SIZE];
    if (!keys->public_key[0])
        return err_set(err, ERR_INVALID, "there is no public-key line");
    if (!keys->secret_key[0])
        return 0;
    if (zmq_curve_public(derived, keys->secret_key) != 0 || strcmp(derived, keys->public_key) != 0)
        return err_set(err, ERR_INVALID, "the public key does not belong to the secret key");
    return 0;
}

int keypair_parse(const char *text, size_t length, struct keypair *out, struct err *err)
{
    struct keypair keys = {0};
    const char *at = text, *end = text + length;
    int rc = -1;
    if (length > KEY_FILE_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "a key file has at most %u bytes", KEY_FILE_BYTES_MAX);
    for (unsigned line = 1; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop)
            stop = end;
        if (line_parse(at, stop, &keys, err) < 0) {
            err_wrap(err, "line %u", line);
            goto out;
        }
        at = stop < end ? stop + 1 : end;
    }
    if (keypair_complete(&keys, err) < 0)
        goto out;
    *out = keys;
    rc = 0;
out:
    keypair_wipe(&keys);
    return rc;
}

/* ---- files -------------------------------------------------------------------------------- */

static int file_parse(const char *path, struct keypair *out, struct err *err)
{
    char *text = NULL;
    size_t length = 0;
    if (file_read(path, KEY_FILE_BYTES_MAX, &text, &length, err) < 0)
        return err_wrap(err, "key file");
    int rc = keypair_parse(text, length, out, err);
    sodium_memzero(text, length);
    mem_free(text);
    return rc < 0 ? err_wrap(err, "key file '%s'", path) : 0;
}

int keypair_write(const char *path, const struct keypair *keys, struct err *err)
{
    CHECK(keys->public_key[0] && keys->secret_key[0]);
    if (file_exists(path))
        return err_set(err, ERR_EXISTS,
                       "key file '%s' exists: remove it first if it is no longer needed", path);
    char *public_path = mem_printf("%s.pub", path);
    struct buf text = {0};
    buf_printf(&text, "# public key of Athanor; may be shown to anyone\npublic-key = \"%s\"\n",
               keys->public_key);
    int rc = file_replace(public_path, text.bytes, text.length, 0644, err);
    buf_clear(&text);
    buf_printf(&text,
               "# secret key of Athanor; keep it readable by its owner only\n"
               "public-key = \"%s\"\nsecret-key = \"%s\"\n",
               keys->public_key, keys->secret_key);
    if (rc == 0)
        rc = file_replace(path, text.bytes, text.length, 0600, err);
    sodium_memzero(text.bytes, text.length);
    buf_done(&text);
    mem_free(public_path);
    return rc;
}

static bool is_credential(const char *path)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    size_t length = folder ? strlen(folder) : 0;
    return length > 0 && strncmp(path, folder, length) == 0 && path[length] == '/';
}

int secret_file_check(const char *what, const char *path, struct err *err)
{
    struct stat status;
    unsigned others = is_credential(path) ? 037 : 077;
    if (stat(path, &status) < 0)
        return err_errno(err, "%s '%s'", what, path);
    if (!S_ISREG(status.st_mode))
        return err_set(err, ERR_INVALID, "%s '%s' is not a regular file", what, path);
    if (status.st_mode & others)
        return err_set(err, ERR_DENIED,
                       "%s '%s' has mode %03o, others may read it: chmod 600, and replace "
                       "the key if it may have been read",
                       what, path, status.st_mode & 0777u);
    if (status.st_uid != geteuid() && status.st_uid != 0)
        return err_set(err, ERR_DENIED, "%s '%s' belongs to user %u, not to %u or root", what, path,
                       (unsigned)status.st_uid, (unsigned)geteuid());
    return 0;
}

int keypair_read(const char *path, struct keypair *out, struct err *err)
{
    struct keypair keys;
    if (secret_file_check("key file", path, err) < 0 || file_parse(path, &keys, err) < 0)
        return -1;
    if (!keys.secret_key[0])
        return err_set(err, ERR_INVALID, "key file '%s' has no secret-key line", path);
    *out = keys;
    keypair_wipe(&keys);
    return 0;
}

int public_key_read(const char *path, char out[KEY_TEXT_SIZE], struct err *err)
{
    struct keypair keys;
    if (file_parse(path, &keys, err) < 0)
        return -1;
    memcpy(out, keys.public_key, KEY_TEXT_SIZE);
    keypair_wipe(&keys);
    return 0;
}

int public_key_given(const char *given, char out[KEY_TEXT_SIZE], struct err *err)
{
    struct err ignored;
    if (file_exists(given) || public_key_check(given, &ignored) < 0)
        return public_key_read(given, out, err);
    memcpy(out, given, KEY_TEXT_SIZE);
    return 0;
}
