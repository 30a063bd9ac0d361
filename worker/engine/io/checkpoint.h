/* checkpoint.h - a training state as a directory that is either complete or absent.
 *
 * Layout (Athanor; contract in worker/README.md):
 *   manifest.json      {"format": 1, "step", "files": [{"name", "size_bytes", "blake2b"}], ...}
 *   model.safetensors  weights under their Hugging Face names, with config.json and the
 *                      tokenizer's files beside it: the directory is itself a model
 *   optim-RRRRR-of-RRRRR.safetensors   1-D slices of flat tensors, "<kind>:<name>:<begin>-<end>"
 *   trainer.json       {"format": 1, "step", "rank_count", "values": {name: number or text}}
 *
 * Everything is written to tmp-step-XXXXXXXXXX, synced, hashed and renamed to
 * step-XXXXXXXXXX. A reader of a slice does interval arithmetic over all optim files, so a
 * resume may use another number of ranks. Writers on all ranks share one file system.
 *
 * Order of calls (run.c does begin and commit; recipes only add):
 *   rank 0 begin | barrier | others begin | all add | barrier | rank 0 commit | barrier */
#ifndef ATHANOR_CHECKPOINT_H
#define ATHANOR_CHECKPOINT_H

#include "common/base/hash.h"
#include "worker/engine/io/model_files.h"

struct checkpoint_writer;
struct checkpoint_reader;

/* Removes tmp-step-* folders that a killed run left in `folder`; a missing folder is fine.
 * For rank 0, before the run's first save. */
int checkpoint_sweep(const char *folder, struct err *err) WARN_UNUSED;

/* folder: where step-XXXXXXXXXX will appear; created by rank 0 if missing. */
int checkpoint_begin(const char *folder, uint64_t step, unsigned rank, unsigned rank_count,
                     struct checkpoint_writer **out, struct err *err) WARN_UNUSED;
unsigned checkpoint_rank(const struct checkpoint_writer *writer);
unsigned checkpoint_rank_count(const struct checkpoint_writer *writer);
/* The temporary directory, for writers of further files; complete paths are theirs to build. */
const char *checkpoint_folder(const struct checkpoint_writer *writer);
/* model.safetensors from arrays; ranks other than 0 return at once. config.json is added with
 * checkpoint_add_file. training.h does both for a model and its optimiser. */
int checkpoint_add_arrays(struct checkpoint_writer *writer, const struct named_array *arrays,
                          size_t count, struct err *err) WARN_UNUSED;
/* Elements [begin, end) of the flat tensor `name`; kind: "m", "v", "master", ... Values are
 * copied. Any rank may add any slice; the union must cover what a reader will ask for. */
int checkpoint_add_slice(struct checkpoint_writer *writer, const char *kind, const char *name,
                         uint64_t begin, uint64_t end, const float *values,
                         struct err *err) WARN_UNUSED;
/* Small state: counters, seeds, cursors. Rank 0's values are the ones kept. */
void checkpoint_put_int(struct checkpoint_writer *writer, const char *name, int64_t value);
void checkpoint_put_float(struct checkpoint_writer *writer, const char *name, double value);
void checkpoint_put_text(struct checkpoint_writer *writer, const char *name, const char *value);
/* Any further file (tokenizer.json ...): rank 0 only, others return at once. */
int checkpoint_add_file(struct checkpoint_writer *writer, const char *name, const void *bytes,
                        size_t length, struct err *err) WARN_UNUSED;
int checkpoint_copy_file(struct checkpoint_writer *writer, const char *name, const char *from,
                         struct err *err) WARN_UNUSED;
/* Copies the tokenizer's files of a dataset or a model directory, if it has one; a tokenizer of
 * another form than tokenizer.json is written as one. */
int checkpoint_copy_tokenizer(struct checkpoint_writer *writer, const char *from_folder,
                              struct err *err) WARN_UNUSED;

/* Writes this rank's optim file. After it the barrier, then rank 0 commits. */
int checkpoint_finish_rank(struct checkpoint_writer *writer, struct err *err) WARN_UNUSED;
/* Rank 0: trainer.json, hashes, manifest, fsync, rename. An older directory of the same step
 * is replaced. *out_path: the final path (mem_free). */
int checkpoint_commit(struct checkpoint_writer *writer, char **out_path,
                      struct err *err) WARN_UNUSED;
/* Frees; an uncommitted temporary directory is removed by rank 0. NULL is fine. */
void checkpoint_writer_free(struct checkpoint_writer *writer);

/* What a manifest.json lists. Errors: ERR_PROTOCOL naming the field; names are plain. */
struct manifest {
    uint64_t step;
    struct manifest_file {
        char *name;
        uint64_t size_bytes;
        struct hash hash;
    } *files;
    size_t file_count;
};
int manifest_parse(const char *json, size_t length, struct manifest *out,
                   struct err *err) WARN_UNUSED;
void manifest_done(struct manifest *manifest);

/* Opens a checkpoint: every file of the manifest is present, of its size and hash.
 * Errors: ERR_NOT_FOUND, ERR_IO, ERR_PROTOCOL naming the file. */
int checkpoint_open(const char *path, struct checkpoint_reader **out, struct err *err) WARN_UNUSED;
const char *checkpoint_path(const struct checkpoint_reader *reader);
uint64_t checkpoint_step(const struct checkpoint_reader *reader);
/* Fills every array from model.safetensors (see arrays_read). */
int checkpoint_read_arrays(struct checkpoint_reader *reader, bool tied,
                           const struct named_array *arrays, size_t count,
                           struct err *err) WARN_UNUSED;
/* Elements [begin, end) of a flat tensor, from however many files hold them. ERR_PROTOCOL
 * when an element is missing. */
int checkpoint_read_slice(struct checkpoint_reader *reader, const char *kind, const char *name,
                          uint64_t begin, uint64_t end, float *out, struct err *err) WARN_UNUSED;
/* Errors: ERR_NOT_FOUND naming the value, ERR_PROTOCOL when of another type. */
int checkpoint_get_int(const struct checkpoint_reader *reader, const char *name, int64_t *out,
                       struct err *err) WARN_UNUSED;
int checkpoint_get_float(const struct checkpoint_reader *reader, const char *name, double *out,
                         struct err *err) WARN_UNUSED;
/* *out lives as long as the reader. */
int checkpoint_get_text(const struct checkpoint_reader *reader, const char *name,
                        const char **out, struct err *err) WARN_UNUSED;
void checkpoint_close(struct checkpoint_reader *reader);

#endif
