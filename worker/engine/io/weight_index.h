/* weight_index.h - model.safetensors.index.json: which file has which tensor.
 *
 * {"metadata": {"total_size": bytes}, "weight_map": {tensor: file}}, as transformers writes it. The
 * text is another's: names of files are plain names of the index's own folder that end with
 * .safetensors, so nothing outside is ever opened, nor the index itself. Whether the files are
 * there and hold what is promised is for the reader of weights. */
#ifndef ATHANOR_WEIGHT_INDEX_H
#define ATHANOR_WEIGHT_INDEX_H

#include "worker/engine/data/bytemap.h"
#include "worker/engine/io/safetensors.h"

#define WEIGHT_INDEX_BYTES_MAX ((size_t)64 << 20)
#define WEIGHT_INDEX_FILES_MAX 1024 /* of 5 GB, as transformers cuts them: 5 TB */

struct weight_index {
    struct byte_map files;   /* names in the order of their first mention */
    struct byte_map tensors; /* names, at most SAFETENSORS_TENSORS_MAX; value: the file's number */
};

/* Errors: ERR_PROTOCOL and ERR_LIMIT, naming line and tensor and what would be accepted. */
int weight_index_parse(const char *json, size_t length, struct weight_index *out,
                       struct err *err) WARN_UNUSED;
void weight_index_done(struct weight_index *index);
/* The line of the text that first has the name as a JSON string; 0: none. */
size_t weight_index_line(const char *json, const char *name);

#endif
