/* blocked.h - lists of hosts and addresses whose documents are not wanted; text that is garbled.
 *
 * A list has an entry a line: a host, which blocks it and all below it ("example.org" also blocks
 * "a.example.org"), or a host with a path, which blocks what begins with it up to a '/', '?', '#'
 * or the end ("example.org/ads", among the first 16 such borders). Case of the host, "http://",
 * "www." and a final '/' do not matter; of a line of a hosts file ("0.0.0.0 ads.example") the last
 * word counts; '#' begins a comment. Card data-yi-pipeline ("URL/domain/word block-lists, garbled
 * text"). */
#ifndef ATHANOR_WEB_BLOCKED_H
#define ATHANOR_WEB_BLOCKED_H

#include "common/base/err.h"
#include "worker/engine/data/bytemap.h"

struct blocked { /* a zeroed struct is empty */
    struct byte_map entries;
};

void blocked_add(struct blocked *blocked, const char *list, size_t length);
void blocked_done(struct blocked *blocked);
bool blocked_has(const struct blocked *blocked, const char *url);

/* The share of characters that are no text: replacement characters, controls, private and
 * unassigned ones. 0 for an empty text. */
double garbled_share(const char *text, size_t length);

#endif
