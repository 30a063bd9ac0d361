/* llama2c_import.h - checkpoints of llama2.c (github.com/karpathy/llama2.c) as models of ours.
 *
 * All numbers are little-endian, weights float32. Version 0 ("legacy"): seven int32 (dim,
 * hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len; a negative vocab_size: the output
 * matrix is a weight of its own), then weights, then cosines and sines of rotary positions, which
 * are skipped. Version 1: magic "ak42" as a uint32, the int32 1, the same seven, a byte that says
 * whether the output matrix is the embedding, zeros up to byte 256, then weights. Source: export.py
 * there. Version 2 (int8) is refused. There rotary pairs are neighbours; here and in Hugging Face's
 * layout they are half a head apart, so rows of queries and keys change places. */
#ifndef ATHANOR_LLAMA2C_IMPORT_H
#define ATHANOR_LLAMA2C_IMPORT_H

#include "worker/engine/model.h"

#include <stddef.h>

/* A frozen Llama with its weights from a whole file's bytes. Nothing is allocated before the sizes
 * of the header and of the file agree. bos and eos are tokens 1 and 2 of its tokenizer.
 * Errors: ERR_PROTOCOL and ERR_INVALID naming the field of the header, the weight that the file
 * ends within, or the weight and number that is not finite. */
int llama2c_parse(const void *bytes, size_t length, struct device *device, struct model **out,
                  struct err *err) WARN_UNUSED;
/* The same from a file, which is mapped. */
int llama2c_import(const char *path, struct device *device, struct model **out,
                   struct err *err) WARN_UNUSED;

#endif
