/* ignore.h - which files a .gitignore leaves out, as gitignore(5) of git 2.39 says it.
 *
 * One struct ignore is one .gitignore. Who walks a tree asks the one of the nearest folder first
 * and then those above, and does not enter a folder that is left out: nothing below it can be
 * taken back in. */
#ifndef ATHANOR_SNAPSHOT_IGNORE_H
#define ATHANOR_SNAPSHOT_IGNORE_H

#include "common/base/base.h"

#define IGNORE_FILE_BYTES_MAX ((size_t)1 << 20) /* of one .gitignore: 10,000 lines of 100 bytes */

enum ignore_verdict {
    IGNORE_SILENT = 0, /* no line speaks of it */
    IGNORE_OUT,
    IGNORE_IN, /* taken back by a line with '!' */
};

struct ignore;

/* Any bytes are a .gitignore; lines that git takes for no pattern match nothing. */
struct ignore *ignore_parse(const char *text, size_t length);
void ignore_free(struct ignore *ignore);

/* path: relative to the folder of the .gitignore, without a slash at its ends. The last line that
 * matches decides. Takes time of length(path) x length(pattern) for each line, whatever the
 * pattern. */
enum ignore_verdict ignore_match(const struct ignore *ignore, const char *path, bool is_folder);

#endif
