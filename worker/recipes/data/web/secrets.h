/* secrets.h - keys, tokens and passwords in a text, by their form.
 *
 * Found are the tokens of secrets.def, and
 *   private keys   -----BEGIN, a space, letters, digits, spaces, PRIVATE KEY, maybe " BLOCK", -----
 *   web tokens     eyJ, 10 or more of [A-Za-z0-9_-], ".eyJ", 10 or more, ".", 10 or more
 *   passwords      of an address: ://USER:PASSWORD@, neither with white space or any of / : @
 * Dolma asks detect-secrets, which also guesses by entropy and by names of variables: that marks
 * hashes and examples, and is not done here. */
#ifndef ATHANOR_WEB_SECRETS_H
#define ATHANOR_WEB_SECRETS_H

#include "common/base/base.h"

/* How many there are. */
size_t secrets_count(const char *text, size_t length);

#endif
