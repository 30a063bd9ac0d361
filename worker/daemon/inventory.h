/* inventory.h - what this node has: cores by hwloc, memory, GPUs by NVML (opened at run time; its
 * absence is fine) or imaginary ones. */
#ifndef ATHANOR_DAEMON_INVENTORY_H
#define ATHANOR_DAEMON_INVENTORY_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"

#define INVENTORY_CORES_MAX 4096u
#define INVENTORY_GPUS_MAX  64u

struct inventory_core {
    unsigned *cpus; /* operating system's numbers of its hardware threads; none: not to be bound */
    size_t cpu_count;
    int numa, package; /* number of its NUMA node; index of its package */
};

/* A whole GPU, or a slice of one (MIG), which carries "MIG" in its model's name. */
struct inventory_gpu {
    const char *model, *uuid;
    const char *visible; /* word for CUDA_VISIBLE_DEVICES */
    uint64_t memory_bytes;
    const char *pci;     /* "0000:17:00.0"; NULL: not known */
    int numa;            /* node that it is near to; -1: not known, or to all alike */
    const char *used, *busy; /* of imaginary ones and AMD's: files with the bytes in use, and
                                percent of time; NULL: none */
    const char *device;  /* file that is opened to use it: "/dev/nvidia0"; NULL: not known */
    bool imaginary, is_amd;
};

struct inventory {
    struct arena arena; /* holds everything below */
    struct inventory_core *cores;
    size_t core_count;
    size_t numa_count; /* greatest number of a node, and one more */
    struct inventory_gpu *gpus;
    size_t gpu_count;
    uint64_t memory_bytes; /* of the machine, or what our cgroup allows when that is less */
    const char *topology;  /* JSON for people */
    const char *machine;   /* "x86_64" */
    char *gpu_note;        /* why no GPU was found, when that was asked for; "" */
};

/* gpus: "auto", "none", "fake:N" or "fake:FILE" (fake_gpus.c). Only cores that our cpuset and our
 * binding allow are there, and of each all its hardware threads that are online. hwloc's own
 * variables (HWLOC_XMLFILE, HWLOC_SYNTHETIC) put another machine in place of this one. Errors:
 * ERR_INVALID (gpus), ERR_NOT_FOUND, ERR_IO (hwloc, FILE). */
int inventory_take(const char *gpus, struct inventory *out, struct err *err) WARN_UNUSED;
/* The GPUs alone, without a look at their places. */
int inventory_take_gpus(const char *gpus, struct inventory *out, struct err *err) WARN_UNUSED;
void inventory_done(struct inventory *inventory);

/* Whether anybody holds memory on the device: more than drivers keep for themselves, for which 1/64
 * of it and 256 MiB are allowed. May hang where a device does: to be called in a process of its
 * own. Errors: ERR_EXISTS (held, with the figures), ERR_NOT_FOUND, ERR_IO. */
int inventory_gpu_is_free(const struct inventory_gpu *gpu, struct err *err) WARN_UNUSED;
/* Whether that can be known. */
bool inventory_gpu_tells(const struct inventory_gpu *gpu);

/* What is used of all of them, as text for shepherds (worker/attempt/gpu_usage.h). May hang, too.
 * Errors: ERR_IO, ERR_NOT_FOUND, ERR_INVALID. */
int inventory_gpu_usage(const struct inventory *inventory, struct buf *out,
                        struct err *err) WARN_UNUSED;

/* Imaginary GPUs from a file; appends to gpus. Errors: ERR_NOT_FOUND, ERR_INVALID, ERR_LIMIT. */
int inventory_fake_gpus(const char *path, struct inventory *inventory, struct err *err) WARN_UNUSED;

/* Reduces the cores to those offered. wanted: "" all; "N" that many; "0-3,8" those CPUs, each as
 * a core. Cores that `claim` refuses, because another worker of this machine binds to them, are
 * not bound to: with "N" others are preferred. *out_unbound counts what is offered unbound.
 * Errors: ERR_INVALID. */
typedef bool inventory_claim_fn(void *user, unsigned cpu);
int inventory_choose(struct inventory *inventory, const char *wanted, inventory_claim_fn *claim,
                     void *user, size_t *out_unbound, struct err *err) WARN_UNUSED;

/* JSON of the catalogue that `engine --catalogue` prints (mem_free). Errors: ERR_NOT_FOUND (no
 * such program), ERR_IO, ERR_TIMEOUT, ERR_LIMIT, ERR_PROTOCOL (not a catalogue). */
int inventory_catalogue(const char *engine, char **out, struct err *err) WARN_UNUSED;

#endif
