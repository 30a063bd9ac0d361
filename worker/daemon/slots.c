/* slots.c - see slots.h. */
#include "worker/daemon/slots.h"

#include "common/base/mem.h"
#include "common/spec/spec.h"

#include <string.h>

void slots_init(struct slots *slots, const struct inventory *inventory)
{
    slots->inventory = inventory;
    slots->core_owner = mem_array(inventory->core_count, sizeof(uint64_t));
    slots->gpu_owner = mem_array(inventory->gpu_count + 1, sizeof(uint64_t));
}

void slots_done(struct slots *slots)
{
    mem_free(slots->core_owner);
    mem_free(slots->gpu_owner);
    memset(slots, 0, sizeof *slots);
}

static size_t owned_count(const uint64_t *owners, size_t count, uint64_t owner)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += owners[i] == owner;
    return found;
}

static void cores_take(struct slots *slots, uint64_t owner, size_t wanted)
{
    for (size_t i = 0; i < slots->inventory->core_count && wanted > 0; i++)
        if (slots->core_owner[i] == 0) {
            slots->core_owner[i] = owner;
            wanted--;
        }
}

/* How many free GPUs of the model there are; the first `wanted` of them get the owner. */
static size_t gpus_take(struct slots *slots, uint64_t owner, size_t wanted, const char *model)
{
    size_t found = 0;
    for (size_t i = 0; i < slots->inventory->gpu_count; i++)
        if (slots->gpu_owner[i] == 0 && spec_gpu_model_fits(model, slots->inventory->gpus[i].model))
            if (++found <= wanted)
                slots->gpu_owner[i] = owner;
    return found;
}

bool slots_have(const struct slots *slots, size_t core_count, size_t gpu_count, const char *model)
{
    const struct inventory *inventory = slots->inventory;
    size_t gpus = 0;
    for (size_t i = 0; i < inventory->gpu_count; i++)
        gpus += slots->gpu_owner[i] == 0 && spec_gpu_model_fits(model, inventory->gpus[i].model);
    return core_count <= owned_count(slots->core_owner, inventory->core_count, 0) &&
           gpu_count <= gpus;
}

int slots_take(struct slots *slots, uint64_t attempt_id, size_t core_count, size_t gpu_count,
               const char *model, struct err *err)
{
    size_t cores = slots->inventory->core_count;
    size_t free_cores = owned_count(slots->core_owner, cores, 0);
    size_t free_gpus = gpus_take(slots, 0, 0, model);
    if (core_count > free_cores || gpu_count > free_gpus)
        return err_set(err, ERR_LIMIT,
                       "%zu cores and %zu GPUs%s%s are wanted, %zu and %zu are free on this worker",
                       core_count, gpu_count, *model ? " of model " : "", model, free_cores,
                       free_gpus);
    cores_take(slots, attempt_id, core_count);
    gpus_take(slots, attempt_id, gpu_count, model);
    return 0;
}

void slots_mark_cpu(struct slots *slots, uint64_t attempt_id, unsigned cpu)
{
    const struct inventory *inventory = slots->inventory;
    for (size_t i = 0; i < inventory->core_count; i++)
        for (size_t k = 0; k < inventory->cores[i].cpu_count; k++)
            if (inventory->cores[i].cpus[k] == cpu)
                slots->core_owner[i] = attempt_id;
}

void slots_mark_gpu(struct slots *slots, uint64_t attempt_id, const char *visible)
{
    for (size_t i = 0; i < slots->inventory->gpu_count; i++)
        if (strcmp(slots->inventory->gpus[i].visible, visible) == 0)
            slots->gpu_owner[i] = attempt_id;
}

void slots_mark_unbound(struct slots *slots, uint64_t attempt_id, size_t count)
{
    for (size_t i = 0; i < slots->inventory->core_count && count > 0; i++)
        if (slots->inventory->cores[i].cpu_count == 0 && slots->core_owner[i] == 0) {
            slots->core_owner[i] = attempt_id;
            count--;
        }
}

static void owner_clear(uint64_t *owners, size_t count, uint64_t owner)
{
    for (size_t i = 0; i < count; i++)
        if (owners[i] == owner)
            owners[i] = 0;
}

void slots_release(struct slots *slots, uint64_t attempt_id)
{
    owner_clear(slots->core_owner, slots->inventory->core_count, attempt_id);
    owner_clear(slots->gpu_owner, slots->inventory->gpu_count, attempt_id);
}

/* Position of the owner's index-th entry, or count. */
static size_t owned_at(const uint64_t *owners, size_t count, uint64_t owner, size_t index)
{
    for (size_t i = 0; i < count; i++)
        if (owners[i] == owner && index-- == 0)
            return i;
    return count;
}

const struct inventory_core *slots_core(const struct slots *slots, uint64_t attempt_id,
                                        size_t index)
{
    size_t count = slots->inventory->core_count;
    size_t at = owned_at(slots->core_owner, count, attempt_id, index);
    return at < count ? &slots->inventory->cores[at] : NULL;
}

const struct inventory_gpu *slots_gpu(const struct slots *slots, uint64_t attempt_id, size_t index)
{
    size_t count = slots->inventory->gpu_count;
    size_t at = owned_at(slots->gpu_owner, count, attempt_id, index);
    return at < count ? &slots->inventory->gpus[at] : NULL;
}
