/* checkpoint_check.h - does a reported path hold what it claims? See worker/README.md. */
#ifndef ATHANOR_SHEPHERD_CHECKPOINT_CHECK_H
#define ATHANOR_SHEPHERD_CHECKPOINT_CHECK_H

#include "common/base/hash.h"

#define MANIFEST_BYTES_MAX ((size_t)16 << 20) /* 100,000 files of 160 bytes */

struct checkpoint_facts {
    uint64_t size_bytes; /* of all files of the manifest */
    struct hash content; /* of manifest.json */
};

/* A checkpoint lies below job_dir (links resolved), its manifest.json has this step, and every
 * file of it is there with the stated size. Contents are not hashed here: that is the reader's
 * check on resume. Errors: ERR_INVALID naming the file and what is wrong with it. */
int checkpoint_check(const char *path, uint64_t step, const char *job_dir,
                     struct checkpoint_facts *out, struct err *err) WARN_UNUSED;

/* An artifact: a file or directory below job_dir. content: the hash of the file, or of the
 * directory's manifest.json or dataset.json (zero when it has none). */
int artifact_check(const char *path, const char *job_dir, struct checkpoint_facts *out,
                   struct err *err) WARN_UNUSED;

/* The manifest's text: the sum of its sizes, after calling `file` for each entry (NULL: none).
 * Exposed for fuzzing. */
typedef int manifest_file_fn(void *user, const char *name, uint64_t size_bytes, struct err *err);
int manifest_parse(const char *text, size_t length, uint64_t step, manifest_file_fn *file,
                   void *user, uint64_t *out_bytes, struct err *err) WARN_UNUSED;

#endif
