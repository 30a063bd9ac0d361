/* manifest.h - makes a directory a complete checkpoint: manifest.json with sizes and hashes. */
#ifndef ATHANOR_CLIENT_MANIFEST_H
#define ATHANOR_CLIENT_MANIFEST_H

#include "common/base/err.h"

#define MANIFEST_FILES_MAX 100000u

/* Hashes and fsyncs every regular file below `folder`, in order of their names, and writes
 * manifest.json (worker/README.md) durably. Links and special files are refused. An existing
 * manifest of the same step is kept as it is. Errors: ERR_INVALID, ERR_IO, ERR_LIMIT. */
int manifest_write(const char *folder, uint64_t step, struct err *err) WARN_UNUSED;

#endif
