/* device.c - opening backends, memory against a limit, and the calls of ops. */
#include "worker/engine/backend.h"
#include "worker/engine/builtin.h"
#include "worker/engine/packed.h"
#include "worker/engine/threads.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct op_facts {
    const char *name;
    bool differentiable;
} op_facts[OP_END] = {
#define OP(NAME, inputs, outputs, differentiable, wholes, reals) {#NAME, differentiable},
#include "worker/engine/ops.def"
#undef OP
};

#define OP(NAME, inputs, outputs, differentiable, wholes, reals) \
    _Static_assert((inputs) <= OP_INPUTS_MAX && (outputs) <= OP_OUTPUTS_MAX && \
                   (wholes) <= OP_WHOLES_MAX && (reals) <= OP_REALS_MAX, #NAME);
#include "worker/engine/ops.def"
#undef OP

/* The CUDA backend is a module of its own, so that programs start without the CUDA libraries
 * (which take longer to load than many jobs run) and the build works without them. It knows no
 * MPI: the exchange of rows between ranks is added to its table here. */
static const struct backend *module_backend(struct err *why_not)
{
    static struct op_kernels kernels[OP_END];
    static struct backend backend;
    const struct backend *loaded;
    char *path;

    if (backend.ops)
        return &backend;
    if (file_module("athanor-cuda.so", &path, why_not) < 0) {
        err_wrap(why_not, "this Athanor was built without nvcc");
        return NULL;
    }
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    loaded = module ? dlsym(module, "backend_cuda") : NULL;
    if (!loaded)
        err_set(why_not, ERR_NOT_FOUND, "cuda module %s: %s", path, dlerror());
    mem_free(path);
    if (!loaded)
        return NULL;
    memcpy(kernels, loaded->ops, sizeof kernels);
    kernels[OP_EXCHANGE] = exchange_staged;
    backend = *loaded;
    backend.ops = kernels;
    return &backend;
}

const struct backend *backend_find(enum backend_kind kind)
{
    struct err ignored;

    switch (kind) {
    case BACKEND_REFERENCE:
        return &backend_reference;
    case BACKEND_CPU:
#ifdef ATHANOR_WITHOUT_BLAS
        return NULL;
#else
        return &backend_cpu;
#endif
    case BACKEND_CUDA:
        return module_backend(&ignored);
    case BACKEND_KIND_END:
        break;
    }
    return NULL;
}

int backend_parse(const char *name, enum backend_kind *out, struct err *err)
{
    static const char *const names[BACKEND_KIND_END] = {
        [BACKEND_REFERENCE] = "reference", [BACKEND_CPU] = "cpu", [BACKEND_CUDA] = "cuda"};

    for (int kind = 1; kind < BACKEND_KIND_END; kind++) {
        if (strcmp(names[kind], name) == 0) {
            *out = (enum backend_kind)kind;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID, "backend '%s' is unknown, expected reference, cpu or cuda",
                   name);
}

bool backend_usable(enum backend_kind kind, struct err *why_not)
{
    struct device_config config = {.kind = kind, .threads = 1};
    struct device *device;

    if (device_open(&config, &device, why_not) < 0)
        return false;
    device_close(device);
    return true;
}

/* A number in the environment, or 0. */
static uint64_t environment_number(const char *name)
{
    const char *text = getenv(name);
    uint64_t number;
    struct err ignored;

    return text && parse_u64(text, &number, &ignored) == 0 ? number : 0;
}

static unsigned default_threads(void)
{
    uint64_t count = environment_number("OMP_NUM_THREADS");

    return count > 0 && count < 512 ? (unsigned)count : 1;
}

int device_open(const struct device_config *config, struct device **out, struct err *err)
{
    const struct backend *backend = backend_find(config->kind);
    struct device *device;

    if (!backend)
        return config->kind == BACKEND_CUDA && !module_backend(err)
                   ? -1
                   : err_set(err, ERR_INVALID, "this build has no such backend");
    device = mem_zalloc(sizeof *device);
    device->backend = backend;
    device->config = *config;
    if (device->config.threads == 0)
        device->config.threads = default_threads();
    if (device->config.memory_bytes == 0)
        device->config.memory_bytes = environment_number("ATHANOR_RANK_MEMORY_BYTES");
    if (threads_new(device->config.threads, &device->threads, err) < 0)
        goto fail;
    if (backend->open(device, err) < 0)
        goto fail;
    *out = device;
    return 0;
fail:
    threads_free(device->threads);
    mem_free(device);
    return -1;
}

void device_close(struct device *device)
{
    if (!device)
        return;
    device->backend->finish(device);
    packed_free(device);
    device_release(device, device->scratch, device->scratch_bytes);
    device->backend->close(device);
    threads_free(device->threads);
    mem_free(device);
}

bool device_supports(const struct device *device, enum op op, bool backward)
{
    const struct op_kernels *kernels = &device->backend->ops[op];

    return backward ? kernels->backward != NULL : kernels->forward != NULL;
}

static int refuse_memory(const struct device *device, size_t size_bytes, struct err *err)
{
    char wanted[PARSE_TEXT_SIZE], used[PARSE_TEXT_SIZE], limit[PARSE_TEXT_SIZE];
    uint64_t limit_bytes = device->config.memory_limit_bytes;

    format_size_short(size_bytes, wanted);
    format_size_short(device->used_bytes, used);
    format_size_short(limit_bytes, limit);
    return err_set(err, ERR_MEMORY,
                   "%s device: %s more are wanted (%zu bytes), %s are in use, limit %s; ask for "
                   "more resources.memory, a smaller batch or a smaller model",
                   device->backend->name, wanted, size_bytes, used, limit_bytes ? limit : "none");
}

static void *alloc_within(struct device *device, size_t size_bytes)
{
    uint64_t limit_bytes = device->config.memory_limit_bytes;

    if (limit_bytes && device->used_bytes + size_bytes > limit_bytes)
        return NULL;
    return device->backend->alloc(device, size_bytes);
}

int device_alloc(struct device *device, size_t size_bytes, void **out, struct err *err)
{
    void *memory = alloc_within(device, size_bytes);

    if (!memory && packed_give_up(device))
        memory = alloc_within(device, size_bytes);
    if (!memory)
        return refuse_memory(device, size_bytes, err);
    device->used_bytes += size_bytes;
    device->peak_bytes = max_u64(device->peak_bytes, device->used_bytes);
    *out = memory;
    return 0;
}

void device_release(struct device *device, void *memory, size_t size_bytes)
{
    if (!memory)
        return;
    packed_forget(device, memory, size_bytes);
    device->backend->release(device, memory);
    device->used_bytes -= size_bytes;
}

int device_scratch_reserve(struct device *device, size_t size_bytes, struct err *err)
{
    void *memory;

    if (size_bytes <= device->scratch_bytes)
        return 0;
    device->backend->finish(device);
    device_release(device, device->scratch, device->scratch_bytes);
    device->scratch = NULL;
    device->scratch_bytes = 0;
    if (device_alloc(device, size_bytes, &memory, err) < 0)
        return err_wrap(err, "scratch of kernels");
    device->scratch = memory;
    device->scratch_bytes = size_bytes;
    return 0;
}

const char *op_name(enum op op)
{
    CHECK(op < OP_END);
    return op_facts[op].name;
}

bool op_differentiable(enum op op)
{
    CHECK(op < OP_END);
    return op_facts[op].differentiable;
}

void op_forward(struct device *device, const struct op_call *call)
{
    CHECK(device->backend->ops[call->op].forward != NULL);
    device->backend->ops[call->op].forward(device, call);
}

void op_backward(struct device *device, const struct op_call *call)
{
    CHECK(device->backend->ops[call->op].backward != NULL);
    device->backend->ops[call->op].backward(device, call);
}
