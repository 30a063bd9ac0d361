/* inventory.c - see inventory.h. */
#include "worker/daemon/inventory.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/attempt/gpu_usage.h"
#include "worker/daemon/amd.h"
#include "worker/daemon/nvml.h"

#include <hwloc.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* ---- cores ----------------------------------------------------------------------------------- */

static void core_fill(struct inventory *inventory, struct inventory_core *core,
                      hwloc_topology_t topology, hwloc_obj_t object)
{
    int count = hwloc_bitmap_weight(object->cpuset);
    core->cpus = arena_alloc(&inventory->arena, (size_t)(count + 1) * sizeof *core->cpus);
    int cpu;
    hwloc_bitmap_foreach_begin(cpu, object->cpuset) core->cpus[core->cpu_count++] = (unsigned)cpu;
    hwloc_bitmap_foreach_end();
    hwloc_obj_t package = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_PACKAGE, object);
    int node = object->nodeset ? hwloc_bitmap_first(object->nodeset) : 0;
    core->numa = node > 0 ? node : 0;
    core->package = package ? (int)package->logical_index : 0;
    inventory->numa_count = max_u64(inventory->numa_count, (uint64_t)core->numa + 1);
}

/* Hardware threads of one core share its arithmetic units: a core is offered once. */
static int cores_fill(struct inventory *inventory, hwloc_topology_t topology, struct err *err)
{
    hwloc_obj_type_t type = HWLOC_OBJ_CORE;
    int count = hwloc_get_nbobjs_by_type(topology, type);
    if (count <= 0) { /* some virtual machines know only processing units */
        type = HWLOC_OBJ_PU;
        count = hwloc_get_nbobjs_by_type(topology, type);
    }
    if (count <= 0)
        return err_set(err, ERR_IO, "hwloc finds no core that we may use");
    count = (int)min_u64((uint64_t)count, INVENTORY_CORES_MAX);
    inventory->cores = arena_alloc(&inventory->arena, (size_t)count * sizeof *inventory->cores);
    inventory->core_count = (size_t)count;
    for (int i = 0; i < count; i++)
        core_fill(inventory, &inventory->cores[i], topology,
                  hwloc_get_obj_by_type(topology, type, (unsigned)i));
    return 0;
}

static const char *topology_text(struct inventory *inventory, hwloc_topology_t topology)
{
    const char *model =
        hwloc_obj_get_info_by_name(hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0)
                                       ? hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0)
                                       : hwloc_get_root_obj(topology),
                                   "CPUModel");
    json_t *root = json_pack("{s:i, s:i, s:i, s:i, s:s}", "packages",
                             hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE), "numa_nodes",
                             hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE), "cores",
                             (int)inventory->core_count, "threads",
                             hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU), "cpu",
                             model && text_is_utf8(model, strlen(model)) ? model : "");
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    CHECK(text);
    const char *kept = arena_strdup(&inventory->arena, text);
    mem_free(text);
    return kept;
}

/* Who starts us bound to some CPUs, as taskset and batch systems do, means those. */
static void keep_to_binding(hwloc_topology_t topology)
{
    hwloc_cpuset_t set = hwloc_bitmap_alloc();
    if (set && hwloc_topology_is_thissystem(topology) &&
        hwloc_get_cpubind(topology, set, HWLOC_CPUBIND_PROCESS) == 0)
        hwloc_topology_restrict(topology, set, 0); /* refused when nothing would be left */
    hwloc_bitmap_free(set);
}

/* Probing for devices takes long: only where there are GPUs whose place is to be found. */
static bool has_pci(const struct inventory *inventory)
{
    bool any = false;
    for (size_t i = 0; i < inventory->gpu_count; i++)
        any = any || inventory->gpus[i].pci;
    return any;
}

/* The node of a device that is near to one; -1: near to several, or not found. */
static int node_near(hwloc_topology_t topology, const char *pci)
{
    unsigned domain, bus, device, function;
    if (sscanf(pci, "%x:%x:%x.%x", &domain, &bus, &device, &function) != 4)
        return -1;
    hwloc_obj_t object = hwloc_get_pcidev_by_busid(topology, domain, bus, device, function);
    hwloc_obj_t above = object ? hwloc_get_non_io_ancestor_obj(topology, object) : NULL;
    if (!above || !above->nodeset || hwloc_bitmap_weight(above->nodeset) != 1)
        return -1;
    return hwloc_bitmap_first(above->nodeset);
}

static int topology_take(struct inventory *inventory, struct err *err)
{
    hwloc_topology_t topology;
    bool devices = has_pci(inventory);
    if (!getenv("HWLOC_XMLFILE") && !getenv("HWLOC_SYNTHETIC")) /* which it would override */
        setenv("HWLOC_COMPONENTS", "-gl,-opencl,-cuda,-nvml,-rsmi,-levelzero", 0);
    if (hwloc_topology_init(&topology) < 0)
        return err_errno(err, "hwloc");
    hwloc_topology_set_io_types_filter(topology, devices ? HWLOC_TYPE_FILTER_KEEP_IMPORTANT
                                                         : HWLOC_TYPE_FILTER_KEEP_NONE);
    int rc = hwloc_topology_load(topology) < 0 ? err_errno(err, "hwloc: read the topology") : 0;
    if (rc == 0) {
        keep_to_binding(topology);
        rc = cores_fill(inventory, topology, err);
    }
    for (size_t i = 0; rc == 0 && i < inventory->gpu_count; i++)
        if (inventory->gpus[i].pci && inventory->gpus[i].numa < 0)
            inventory->gpus[i].numa = node_near(topology, inventory->gpus[i].pci);
    if (rc == 0)
        inventory->topology = topology_text(inventory, topology);
    hwloc_topology_destroy(topology);
    return rc;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static uint64_t limit_read(const char *path)
{
    char *text;
    size_t length;
    uint64_t limit = UINT64_MAX;
    struct err err = {0};
    if (file_read(path, 64, &text, &length, &err) < 0)
        return UINT64_MAX;
    if (sscanf(text, "%" SCNu64, &limit) != 1)
        limit = UINT64_MAX; /* "max" */
    mem_free(text);
    return limit;
}

static uint64_t memory_take(void)
{
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t v2 = limit_read("/sys/fs/cgroup/memory.max"); /* as a container sees its own */
    uint64_t v1 = limit_read("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    return min_u64(machine, min_u64(v1, v2));
}

/* ---- GPUs ------------------------------------------------------------------------------------ */

static int gpus_fake(struct inventory *inventory, const char *number, struct err *err)
{
    uint64_t count;
    if (strchr(number, '/'))
        return inventory_fake_gpus(number, inventory, err);
    if (parse_u64(number, &count, err) < 0 || count > INVENTORY_GPUS_MAX)
        return err_set(err, ERR_INVALID,
                       "--gpus fake:%s, expected fake:0 to fake:%u, or the path of a file", number,
                       INVENTORY_GPUS_MAX);
    inventory->gpu_count = (size_t)count;
    for (size_t i = 0; i < inventory->gpu_count; i++) {
        struct inventory_gpu *gpu = &inventory->gpus[i];
        gpu->model = "fake";
        gpu->imaginary = true;
        gpu->numa = -1;
        gpu->uuid = arena_printf(&inventory->arena, "fake-%zu", i);
        gpu->visible = arena_printf(&inventory->arena, "%zu", i);
        gpu->memory_bytes = (uint64_t)16 << 30;
    }
    return 0;
}

static void gpus_real(struct inventory *inventory)
{
    struct nvml_gpu found[INVENTORY_GPUS_MAX];
    struct err err = {0};
    size_t count = 0;
    if (nvml_list(found, INVENTORY_GPUS_MAX, &count, &err) < 0)
        inventory->gpu_note = arena_strdup(&inventory->arena, err.text);
    for (size_t i = 0; i < count; i++) {
        struct inventory_gpu *gpu = &inventory->gpus[i];
        gpu->model = arena_strdup(&inventory->arena, found[i].model);
        gpu->uuid = arena_strdup(&inventory->arena, found[i].uuid);
        gpu->visible = gpu->uuid; /* the index depends on CUDA_DEVICE_ORDER */
        gpu->memory_bytes = found[i].memory_bytes;
        gpu->pci = found[i].pci[0] ? arena_strdup(&inventory->arena, found[i].pci) : NULL;
        gpu->numa = -1;
        if (found[i].minor >= 0)
            gpu->device = arena_printf(&inventory->arena, "/dev/nvidia%d", found[i].minor);
    }
    inventory->gpu_count = count;
    /* Variables name either the one or the other: on a mixed node NVIDIA's are offered. */
    if (count == 0 && amd_list("/sys", inventory, &err) < 0)
        inventory->gpu_note = arena_strdup(&inventory->arena, err.text);
    else if (inventory->gpu_count > 0)
        inventory->gpu_note = "";
}

#define DRIVER_BYTES ((uint64_t)256 << 20)

bool inventory_gpu_tells(const struct inventory_gpu *gpu)
{
    return gpu->used || (!gpu->imaginary && !gpu->is_amd);
}

static int file_number(const char *path, uint64_t *out_used, struct err *err)
{
    char *text;
    size_t length;
    *out_used = 0;
    if (file_read(path, 64, &text, &length, err) < 0)
        return err->kind == ERR_NOT_FOUND ? 0 : -1;
    text[strcspn(text, "\n")] = '\0';
    int rc = text[0] ? parse_u64(text, out_used, err) : 0;
    mem_free(text);
    return rc;
}

int inventory_gpu_is_free(const struct inventory_gpu *gpu, struct err *err)
{
    uint64_t used, most = gpu->memory_bytes / 64 + DRIVER_BYTES;
    char used_text[PARSE_TEXT_SIZE], all_text[PARSE_TEXT_SIZE];
    int rc = gpu->used ? file_number(gpu->used, &used, err) : nvml_used(gpu->uuid, &used, err);
    if (rc < 0 || used <= most)
        return rc;
    return err_set(err, ERR_EXISTS, "%s (%s) is not free: %s of %s are in use, by no attempt",
                   gpu->uuid, gpu->model, format_size_short(used, used_text),
                   format_size_short(gpu->memory_bytes, all_text));
}

static int file_usage(const struct inventory_gpu *gpu, struct gpu_usage *out, struct err *err)
{
    uint64_t used = 0, busy = 0;
    if ((gpu->used && file_number(gpu->used, &used, err) < 0) ||
        (gpu->busy && file_number(gpu->busy, &busy, err) < 0))
        return err_wrap(err, "%s", gpu->uuid);
    *out = (struct gpu_usage){.busy_known = gpu->busy != NULL,
                              .used_known = gpu->used != NULL,
                              .busy_percent = (unsigned)min_u64(busy, 100),
                              .used_bytes = used};
    return 0;
}

/* By NVML, in one session: opening the library may take a tenth of a second. */
static int real_usage(const struct inventory *inventory, struct gpu_usage *out, struct err *err)
{
    const char *uuids[INVENTORY_GPUS_MAX];
    struct nvml_usage found[INVENTORY_GPUS_MAX];
    for (size_t i = 0; i < inventory->gpu_count; i++)
        uuids[i] = inventory->gpus[i].uuid;
    if (nvml_usage(uuids, inventory->gpu_count, found, err) < 0)
        return -1;
    for (size_t i = 0; i < inventory->gpu_count; i++)
        out[i] = (struct gpu_usage){found[i].busy_known, found[i].used_known,
                                    found[i].busy_percent, found[i].used_bytes};
    return 0;
}

int inventory_gpu_usage(const struct inventory *inventory, struct buf *out, struct err *err)
{
    struct gpu_usage usage[INVENTORY_GPUS_MAX];
    const struct inventory_gpu *first = inventory->gpus; /* all are of one kind */
    bool files = inventory->gpu_count == 0 || first->imaginary || first->is_amd;
    int rc = files ? 0 : real_usage(inventory, usage, err);
    for (size_t i = 0; rc == 0 && files && i < inventory->gpu_count; i++)
        rc = file_usage(&inventory->gpus[i], &usage[i], err);
    if (rc < 0)
        return -1;
    gpu_usage_begin(out, clock_steady_ms());
    for (size_t i = 0; i < inventory->gpu_count; i++)
        gpu_usage_add(out, inventory->gpus[i].visible, &usage[i]);
    return 0;
}

static int gpus_take(struct inventory *inventory, const char *wanted, struct err *err)
{
    inventory->gpus = arena_alloc(&inventory->arena, INVENTORY_GPUS_MAX * sizeof *inventory->gpus);
    inventory->gpu_note = "";
    if (strncmp(wanted, "fake:", 5) == 0)
        return gpus_fake(inventory, wanted + 5, err);
    if (strcmp(wanted, "auto") == 0) {
        gpus_real(inventory);
        return 0;
    }
    if (strcmp(wanted, "none") == 0)
        return 0;
    return err_set(err, ERR_INVALID, "--gpus '%s', expected auto, none, fake:N or fake:FILE",
                   wanted);
}

int inventory_take(const char *gpus, struct inventory *out, struct err *err)
{
    struct inventory inventory = {0};
    struct utsname machine;
    if (gpus_take(&inventory, gpus, err) < 0 || topology_take(&inventory, err) < 0) {
        inventory_done(&inventory);
        return -1;
    }
    inventory.memory_bytes = memory_take();
    inventory.machine = arena_strdup(&inventory.arena, uname(&machine) == 0 ? machine.machine : "");
    *out = inventory;
    return 0;
}

int inventory_take_gpus(const char *gpus, struct inventory *out, struct err *err)
{
    struct inventory inventory = {0};
    if (gpus_take(&inventory, gpus, err) < 0) {
        inventory_done(&inventory);
        return -1;
    }
    *out = inventory;
    return 0;
}

void inventory_done(struct inventory *inventory)
{
    arena_done(&inventory->arena);
    memset(inventory, 0, sizeof *inventory);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static struct inventory_core *core_of_cpu(struct inventory *inventory, unsigned cpu)
{
    for (size_t i = 0; i < inventory->core_count; i++)
        for (size_t k = 0; k < inventory->cores[i].cpu_count; k++)
            if (inventory->cores[i].cpus[k] == cpu)
                return &inventory->cores[i];
    return NULL;
}

static int choose_cpu(struct inventory *inventory, unsigned cpu, struct inventory_core *chosen,
                      size_t *count, struct err *err)
{
    if (!core_of_cpu(inventory, cpu))
        return err_set(err, ERR_INVALID, "--cores: CPU %u does not exist or may not be used", cpu);
    for (size_t i = 0; i < *count; i++)
        if (chosen[i].cpus[0] == cpu)
            return err_set(err, ERR_INVALID, "--cores: CPU %u is listed twice", cpu);
    if (*count == INVENTORY_CORES_MAX)
        return err_set(err, ERR_INVALID, "--cores: at most %u", INVENTORY_CORES_MAX);
    chosen[*count].cpus = arena_alloc(&inventory->arena, sizeof(unsigned));
    chosen[*count].cpus[0] = cpu;
    chosen[*count].numa = core_of_cpu(inventory, cpu)->numa;
    chosen[*count].package = core_of_cpu(inventory, cpu)->package;
    chosen[(*count)++].cpu_count = 1;
    return 0;
}

/* Cores that another worker binds to are offered, but not bound to. */
static size_t unbind_claimed(struct inventory *inventory, inventory_claim_fn *claim, void *user)
{
    size_t unbound = 0;
    for (size_t i = 0; i < inventory->core_count; i++)
        if (!claim(user, inventory->cores[i].cpus[0])) {
            inventory->cores[i].cpu_count = 0;
            unbound++;
        }
    return unbound;
}

/* "0-3,8": who lists CPUs means exactly these. */
static int choose_list(struct inventory *inventory, const char *wanted, struct err *err)
{
    struct inventory_core *chosen =
        arena_alloc(&inventory->arena, INVENTORY_CORES_MAX * sizeof *chosen);
    size_t count = 0;
    const char *at = wanted;
    while (*at) {
        unsigned first, last;
        int used = 0;
        if (sscanf(at, "%u-%u%n", &first, &last, &used) != 2) {
            if (sscanf(at, "%u%n", &first, &used) != 1)
                break;
            last = first;
        }
        at += used;
        if (first > last || last >= INVENTORY_CORES_MAX || (*at && *at != ','))
            break;
        for (unsigned cpu = first; cpu <= last; cpu++)
            if (choose_cpu(inventory, cpu, chosen, &count, err) < 0)
                return -1;
        if (*at == ',' && at[1])
            at++;
    }
    if (*at || count == 0)
        return err_set(err, ERR_INVALID,
                       "--cores '%s', expected a number, or CPU numbers such as 0-3,8", wanted);
    inventory->cores = chosen;
    inventory->core_count = count;
    return 0;
}

static int choose_number(struct inventory *inventory, const char *wanted, inventory_claim_fn *claim,
                         void *user, size_t *out_unbound, struct err *err)
{
    uint64_t number;
    if (parse_u64(wanted, &number, err) < 0 || number == 0 || number > INVENTORY_CORES_MAX)
        return err_set(err, ERR_INVALID,
                       "--cores '%s', expected 1 to %u, or CPU numbers such as 0-3,8", wanted,
                       INVENTORY_CORES_MAX);
    struct inventory_core *chosen = arena_alloc(&inventory->arena, number * sizeof *chosen);
    size_t count = 0;
    for (size_t i = 0; i < inventory->core_count && count < number; i++)
        if (claim(user, inventory->cores[i].cpus[0]))
            chosen[count++] = inventory->cores[i];
    *out_unbound = (size_t)number - count; /* zeroed entries have no CPUs */
    inventory->cores = chosen;
    inventory->core_count = (size_t)number;
    return 0;
}

int inventory_choose(struct inventory *inventory, const char *wanted, inventory_claim_fn *claim,
                     void *user, size_t *out_unbound, struct err *err)
{
    bool is_list = strpbrk(wanted, "-,") != NULL;
    if (wanted[0] && !is_list)
        return choose_number(inventory, wanted, claim, user, out_unbound, err);
    if (is_list && choose_list(inventory, wanted, err) < 0)
        return -1;
    *out_unbound = unbind_claimed(inventory, claim, user);
    return 0;
}
