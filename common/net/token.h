/* token.h - one-time tokens, as they are handed on.
 *
 *   atk1_BASE64@HOST:PORT[,HOST:PORT...]     (or ipc:///PATH in the place of HOST:PORT)
 *
 * BASE64 (RFC 4648 with the URL alphabet, no padding) holds 68 bytes: the public key of the
 * coordinators, the secret half of the token's own CURVE key pair, and four bytes of a BLAKE2b hash
 * over both, so that a slip of the hand is told from a token that was used. The coordinator knows
 * the other half: whoever has the token speaks to that coordinator and nobody else, encrypted from
 * the first byte, and may say one thing, ENROL. */
#ifndef ATHANOR_TOKEN_H
#define ATHANOR_TOKEN_H

#include "common/base/buf.h"
#include "common/net/keys.h"

#define TOKEN_PREFIX        "atk1_"
#define TOKEN_ENDPOINTS_MAX 8u
#define TOKEN_ENDPOINT_SIZE 256u
#define TOKEN_TEXT_MAX      2300u /* the prefix, 91 characters, and 8 endpoints of 255 */

struct token {
    char server_key[KEY_TEXT_SIZE];
    struct keypair keys;
    char endpoints[TOKEN_ENDPOINTS_MAX][TOKEN_ENDPOINT_SIZE]; /* with tcp:// or ipc:// */
    size_t endpoint_count;
};

/* Appends the text, without a newline. */
void token_write(const struct token *token, struct buf *out);
/* White space around it is passed over. Errors: ERR_INVALID, never with the token in the text. */
int token_parse(const char *text, size_t length, struct token *out, struct err *err) WARN_UNUSED;
/* The place of an endpoint: "HOST:PORT" gets tcp:// in front. Errors: ERR_INVALID, ERR_LIMIT. */
int token_add_endpoint(struct token *token, const char *text, size_t length,
                       struct err *err) WARN_UNUSED;
/* From a file, or from standard input for "-". A token itself is refused in its place: the words of
 * a command line can be read by every account of the machine. */
int token_read(const char *path, struct token *out, struct err *err) WARN_UNUSED;
void token_wipe(struct token *token);

#endif
