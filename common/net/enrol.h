/* enrol.h - a one-time token (token.h) becomes a key of one's own that is enrolled.
 *
 * The key pair is on disk before it is sent, so that whoever is cut off enrols the same key when
 * asked again, which the coordinator allows. What the token says of the cluster is written last. */
#ifndef ATHANOR_ENROL_H
#define ATHANOR_ENROL_H

#include "common/base/arena.h"
#include "common/net/token.h"

struct enrol {
    const struct token *token;
    const char *name;       /* "": as the token says, */
    const char *otherwise;  /*     or this where it says nothing */
    const char *key;        /* secret key: read when it is there, else made, with KEY.pub */
    const char *server_key; /* gets the coordinators' public key */
    const char *endpoints;  /* gets where they are, with commas */
    const char *program, *version;
    uint64_t timeout_ms;
};

/* *out_name, *out_role: who the key is now, in arena. A key pair that was made here and is refused
 * for good is removed again. Errors: ERR_DENIED, ERR_EXISTS, ERR_INVALID as the coordinator says;
 * ERR_TIMEOUT (also for tokens it does not know, which get no answer; asking again is safe);
 * ERR_EXISTS when server_key holds the key of another cluster. */
int enrol_run(const struct enrol *enrol, struct arena *arena, const char **out_name,
              const char **out_role, struct err *err) WARN_UNUSED;

#endif
