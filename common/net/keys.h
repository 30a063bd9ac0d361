/* keys.h - CURVE key pairs and the files that hold them.
 *
 * A key is 32 bytes, written as 40 characters of Z85. A key file is text:
 *   # comment
 *   public-key = "..."
 *   secret-key = "..."
 * The secret file has both lines and mode 0600; NAME.pub beside it has the public line only. */
#ifndef ATHANOR_KEYS_H
#define ATHANOR_KEYS_H

#include "common/base/err.h"

#define KEY_TEXT_LENGTH    40
#define KEY_TEXT_SIZE      (KEY_TEXT_LENGTH + 1) /* terminated */
#define KEY_FILE_BYTES_MAX 4096u

struct keypair {
    char public_key[KEY_TEXT_SIZE];
    char secret_key[KEY_TEXT_SIZE]; /* "" when only the public key is known */
};

void keypair_make(struct keypair *out);
void keypair_wipe(struct keypair *keys); /* zeroes, not optimised away */

/* Whether a file may hold a secret: nobody but its owner can read it, who is the caller or root. In
 * $CREDENTIALS_DIRECTORY a group may, because systemd's access list shows as one there; the folder
 * itself lets only the service in. Errors: ERR_NOT_FOUND, ERR_IO, ERR_DENIED, ERR_INVALID; `what`
 * begins each. */
int secret_file_check(const char *what, const char *path, struct err *err) WARN_UNUSED;

/* Writes PATH (0600) and PATH.pub (0644), each atomically. Refuses to replace an existing
 * secret: ERR_EXISTS. */
int keypair_write(const char *path, const struct keypair *keys, struct err *err) WARN_UNUSED;
/* Reads a secret file. Errors: ERR_NOT_FOUND, ERR_IO; ERR_DENIED when group or others may read
 * it, or it belongs to another user than the caller or root; ERR_INVALID. */
int keypair_read(const char *path, struct keypair *out, struct err *err) WARN_UNUSED;
/* Reads the public key of a .pub or secret file, whatever its mode. */
int public_key_read(const char *path, char out[KEY_TEXT_SIZE], struct err *err) WARN_UNUSED;
/* What a person gave: the name of a file, or a key itself. A name of 40 characters may look like a
 * key, so a file that is there comes first. */
int public_key_given(const char *given, char out[KEY_TEXT_SIZE], struct err *err) WARN_UNUSED;
/* Accepts exactly 40 Z85 characters that decode to 32 bytes. */
int public_key_check(const char *text, struct err *err) WARN_UNUSED;

/* The parser of key files, exposed for tests and fuzzing. secret_key is "" when absent; when
 * both are present the public key must belong to the secret one. */
int keypair_parse(const char *text, size_t length, struct keypair *out,
                  struct err *err) WARN_UNUSED;

#endif
