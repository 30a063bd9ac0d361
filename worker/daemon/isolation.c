/* isolation.c - attempts cannot open the device files of GPUs that they were not given.
 *
 * CUDA_VISIBLE_DEVICES is a request to programs; whoever sets it anew has all GPUs. So the
 * attempt's cgroup gets a filter (device_filter.h) that refuses the files of every GPU of the node
 * but its own, of NVIDIA's also of those that are not offered; where that cannot be had and version
 * 1's devices hierarchy is there, the attempt has a group in that as well (device_group.h). All
 * slices of a GPU (MIG) share its file: between them only the variable stands. Files that all need
 * (nvidiactl, nvidia-uvm, kfd) stay open. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/cgroup_file.h"
#include "worker/attempt/device_group.h"
#include "worker/daemon/daemon.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct isolation {
    struct device_number all[DEVICE_FILTER_MAX]; /* of the node's GPUs */
    size_t count;
    bool by_group;  /* of version 1; else by a filter */
    bool off, said; /* it cannot be done; the reason was logged */
};

static bool number_find(const struct device_number *numbers, size_t count,
                        const struct device_number *wanted)
{
    for (size_t i = 0; i < count; i++)
        if (numbers[i].major == wanted->major && numbers[i].minor == wanted->minor)
            return true;
    return false;
}

static void device_note(struct isolation *isolation, const char *path)
{
    struct device_number number;
    struct err err = {0};
    if (device_number_of(path, &number, &err) < 0)
        log_warn("GPU isolation: %s", err.text);
    else if (isolation->count < DEVICE_FILTER_MAX &&
             !number_find(isolation->all, isolation->count, &number))
        isolation->all[isolation->count++] = number;
}

/* nvidia0, nvidia1, ...: also of GPUs that other daemons offer, or nobody. */
static void node_scan(struct isolation *isolation)
{
    DIR *dir = opendir("/dev");
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char path[300];
        unsigned number;
        int end = 0;
        if (sscanf(entry->d_name, "nvidia%4u%n", &number, &end) != 1 || entry->d_name[end])
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        device_note(isolation, path);
    }
    if (dir)
        closedir(dir);
}

static void switch_off(struct isolation *isolation, const char *why)
{
    isolation->off = true;
    if (!isolation->said)
        log_warn("jobs are kept from GPUs of others by variables only, not by the kernel: %s", why);
    isolation->said = true;
}

void isolation_open(struct daemon *daemon)
{
    struct isolation *isolation = daemon->isolation = mem_zalloc(sizeof *isolation);
    const struct inventory *inventory = &daemon->inventory;
    for (size_t i = 0; i < inventory->gpu_count; i++)
        if (inventory->gpus[i].device)
            device_note(isolation, inventory->gpus[i].device);
    if (inventory->gpu_count == 0 || !inventory->gpus[0].imaginary)
        node_scan(isolation);
    if (isolation->count == 0)
        return;
    isolation->by_group = !daemon->cgroup_base || cgroup_is_v1(daemon->cgroup_base);
    if (isolation->by_group && !daemon->cgroup_device_base)
        switch_off(isolation, "there are neither cgroups of version 2 for attempts nor version 1's "
                              "devices hierarchy, or we are not root");
}

void isolation_close(struct daemon *daemon)
{
    mem_free(daemon->isolation);
}

/* The files of the attempt's own GPUs. False: one of them is not known. */
static bool given_find(const struct attempt *attempt, struct device_number *out, size_t *out_count)
{
    const struct slots *slots = &attempt->daemon->slots;
    const struct inventory_gpu *gpu;
    struct err err = {0};
    *out_count = 0;
    for (size_t i = 0; (gpu = slots_gpu(slots, attempt->attempt_id, i)); i++) {
        if (!gpu->device && gpu->imaginary)
            continue;
        if (!gpu->device || device_number_of(gpu->device, &out[*out_count], &err) < 0)
            return false;
        (*out_count)++;
    }
    return true;
}

static int group_apply(struct attempt *attempt, const char *name,
                       const struct device_number *refused, size_t count, struct err *err)
{
    char *path;
    if (count == 0)
        return 0;
    if (device_group_make(attempt->daemon->cgroup_device_base, name, refused, count, &path, err) <
        0)
        return -1;
    mem_free(attempt->device_cgroup);
    attempt->device_cgroup = path;
    return 0;
}

static int refuse(struct attempt *attempt, const char *name, const struct device_number *refused,
                  size_t count, struct err *err)
{
    struct isolation *isolation = attempt->daemon->isolation;
    if (!isolation->by_group && device_filter_attach(attempt->cgroup, refused, count, err) == 0)
        return 0;
    if (!isolation->by_group && !attempt->daemon->cgroup_device_base)
        return -1;
    isolation->by_group = true;
    return group_apply(attempt, name, refused, count, err);
}

void isolation_apply(struct attempt *attempt, const char *name)
{
    struct isolation *isolation = attempt->daemon->isolation;
    struct device_number given[INVENTORY_GPUS_MAX], refused[DEVICE_FILTER_MAX];
    size_t given_count, count = 0;
    struct err err = {0};
    if (isolation->count == 0 || isolation->off)
        return;
    if (!given_find(attempt, given, &given_count)) {
        switch_off(isolation, "the driver does not tell which file is which GPU");
        return;
    }
    for (size_t i = 0; i < isolation->count; i++)
        if (!number_find(given, given_count, &isolation->all[i]))
            refused[count++] = isolation->all[i];
    if (refuse(attempt, name, refused, count, &err) < 0)
        switch_off(isolation, err.text);
}
