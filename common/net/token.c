/* token.c - see token.h. */
#include "common/net/token.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#define KEY_BYTES      32u
#define CHECK_BYTES    4u
#define PAYLOAD_BYTES  (2 * KEY_BYTES + CHECK_BYTES)
#define PAYLOAD_BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING

static void payload_check(const uint8_t payload[PAYLOAD_BYTES], uint8_t out[CHECK_BYTES])
{
    struct hash hash;
    hash_bytes(payload, 2 * KEY_BYTES, &hash);
    memcpy(out, hash.bytes, CHECK_BYTES);
}

void token_write(const struct token *token, struct buf *out)
{
    uint8_t payload[PAYLOAD_BYTES];
    char text[2 * PAYLOAD_BYTES];
    CHECK(zmq_z85_decode(payload, token->server_key) &&
          zmq_z85_decode(payload + KEY_BYTES, token->keys.secret_key));
    payload_check(payload, payload + 2 * KEY_BYTES);
    sodium_bin2base64(text, sizeof text, payload, sizeof payload, PAYLOAD_BASE64);
    buf_printf(out, TOKEN_PREFIX "%s", text);
    for (size_t i = 0; i < token->endpoint_count; i++) {
        const char *endpoint = token->endpoints[i];
        bool is_tcp = strncmp(endpoint, "tcp://", 6) == 0;
        buf_printf(out, "%c%s", i ? ',' : '@', is_tcp ? endpoint + 6 : endpoint);
    }
    sodium_memzero(payload, sizeof payload);
    sodium_memzero(text, sizeof text);
}

int token_add_endpoint(struct token *token, const char *text, size_t length, struct err *err)
{
    bool whole = length > 6 && (memcmp(text, "tcp://", 6) == 0 || memcmp(text, "ipc://", 6) == 0);
    bool is_ipc = whole && *text == 'i';
    if (token->endpoint_count == TOKEN_ENDPOINTS_MAX)
        return err_set(err, ERR_LIMIT, "more than %u endpoints", TOKEN_ENDPOINTS_MAX);
    if (length + 6 >= TOKEN_ENDPOINT_SIZE)
        return err_set(err, ERR_INVALID, "an endpoint has %zu characters, expected at most %u",
                       length, TOKEN_ENDPOINT_SIZE - 7);
    for (size_t i = 0; i < length; i++)
        if (text[i] <= ' ' || text[i] > '~' || text[i] == ',' || text[i] == '@')
            return err_set(err, ERR_INVALID, "an endpoint holds a character that no address has");
    const char *host = whole ? text + 6 : text;
    size_t rest = length - (size_t)(host - text);
    if (!is_ipc && (!memchr(host, ':', rest) || *host == ':' || memchr(host, '/', rest)))
        return err_set(err, ERR_INVALID, "'%.*s' is no endpoint, expected HOST:PORT", (int)length,
                       text);
    snprintf(token->endpoints[token->endpoint_count++], TOKEN_ENDPOINT_SIZE, "%s%.*s",
             whole ? "" : "tcp://", (int)length, text);
    return 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int payload_parse(const char *text, size_t length, struct token *out, struct err *err)
{
    uint8_t payload[PAYLOAD_BYTES], check[CHECK_BYTES];
    size_t got = 0;
    int rc = -1;
    bool decoded = sodium_base642bin(payload, sizeof payload, text, length, NULL, &got, NULL,
                                     PAYLOAD_BASE64) == 0 &&
                   got == sizeof payload;
    if (decoded)
        payload_check(payload, check);
    if (!decoded || memcmp(check, payload + 2 * KEY_BYTES, CHECK_BYTES) != 0) {
        err_set(err, ERR_INVALID,
                "the token is damaged: it was not copied whole, or a character was changed");
    } else {
        zmq_z85_encode(out->server_key, payload, KEY_BYTES);
        zmq_z85_encode(out->keys.secret_key, payload + KEY_BYTES, KEY_BYTES);
        CHECK(zmq_curve_public(out->keys.public_key, out->keys.secret_key) == 0);
        rc = 0;
    }
    sodium_memzero(payload, sizeof payload);
    return rc;
}

static int endpoints_parse(const char *at, const char *end, struct token *out, struct err *err)
{
    while (at < end) {
        const char *stop = memchr(at, ',', (size_t)(end - at));
        size_t length = (size_t)((stop ? stop : end) - at);
        if (token_add_endpoint(out, at, length, err) < 0)
            return err_wrap(err, "the token");
        at += length + (stop != NULL);
    }
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

int token_parse(const char *text, size_t length, struct token *out, struct err *err)
{
    struct token token = {0};
    size_t prefix = strlen(TOKEN_PREFIX);
    while (length > 0 && is_blank(text[length - 1]))
        length--;
    for (; length > 0 && is_blank(*text); length--)
        text++;
    if (length < prefix || memcmp(text, TOKEN_PREFIX, prefix) != 0)
        return err_set(err, ERR_INVALID,
                       "this is no token, which begins with " TOKEN_PREFIX
                       " and is made by 'athanor keys token'");
    const char *at = memchr(text, '@', length), *end = text + length;
    if (!at || at + 1 == end)
        return err_set(err, ERR_INVALID,
                       "the token does not end with @HOST:PORT, where the coordinator is");
    int rc = payload_parse(text + prefix, (size_t)(at - text) - prefix, &token, err);
    if (rc == 0)
        rc = endpoints_parse(at + 1, end, &token, err);
    if (rc == 0)
        *out = token;
    token_wipe(&token);
    return rc;
}

int token_read(const char *path, struct token *out, struct err *err)
{
    bool is_input = strcmp(path, "-") == 0;
    char *text = NULL;
    size_t length = 0;
    if (strncmp(path, TOKEN_PREFIX, strlen(TOKEN_PREFIX)) == 0)
        return err_set(err, ERR_DENIED,
                       "a token on a command line can be read by every account of this machine: "
                       "put it into a file of mode 600 and name that, or give '-' and the token on "
                       "standard input");
    if (file_read(is_input ? "/dev/stdin" : path, TOKEN_TEXT_MAX, &text, &length, err) < 0)
        return err_wrap(err, "token");
    int rc = token_parse(text, length, out, err);
    sodium_memzero(text, length);
    mem_free(text);
    return rc < 0 ? err_wrap(err, "%s", is_input ? "standard input" : path) : 0;
}

void token_wipe(struct token *token)
{
    sodium_memzero(token, sizeof *token);
}
