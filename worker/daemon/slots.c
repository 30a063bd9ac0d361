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
    slots->core_place = mem_array(inventory->core_count, sizeof(uint32_t));
    slots->gpu_place = mem_array(inventory->gpu_count + 1, sizeof(uint32_t));
}

void slots_done(struct slots *slots)
{
    mem_free(slots->core_owner);
    mem_free(slots->gpu_owner);
    mem_free(slots->core_place);
    mem_free(slots->gpu_place);
    memset(slots, 0, sizeof *slots);
}

static size_t owned_count(const uint64_t *owners, size_t count, uint64_t owner)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += owners[i] == owner;
    return found;
}

static bool gpu_is_fit(const struct slots *slots, size_t index, const char *model)
{
    return slots->gpu_owner[index] == 0 &&
           spec_gpu_model_fits(model, slots->inventory->gpus[index].model);
}

static size_t gpus_fit(const struct slots *slots, const char *model)
{
    size_t found = 0;
    for (size_t i = 0; i < slots->inventory->gpu_count; i++)
        found += gpu_is_fit(slots, i, model);
    return found;
}

/* ---- NUMA nodes ------------------------------------------------------------------------------ */

/* What is free in one node. A GPU of unknown place is in all of them. */
struct room {
    size_t cores, gpus, any_gpus; /* GPUs of the model; of any */
};

static struct room room_in(const struct slots *slots, int node, const char *model)
{
    const struct inventory *inventory = slots->inventory;
    struct room room = {0};
    for (size_t i = 0; i < inventory->core_count; i++)
        room.cores += slots->core_owner[i] == 0 && inventory->cores[i].numa == node;
    for (size_t i = 0; i < inventory->gpu_count; i++) {
        bool here = inventory->gpus[i].numa == node || inventory->gpus[i].numa < 0;
        room.gpus += here && gpu_is_fit(slots, i, model);
        room.any_gpus += here && slots->gpu_owner[i] == 0;
    }
    return room;
}

static bool room_suffices(const struct room *room, const struct slots_want *want)
{
    return room->cores >= want->cores && room->gpus >= want->gpus;
}

/* Which of two nodes with room leaves less unused. */
static bool fits_better(const struct room *a, const struct room *b, const struct slots_want *want)
{
    size_t left_a = want->gpus ? a->gpus : a->any_gpus, left_b = want->gpus ? b->gpus : b->any_gpus;
    return left_a != left_b ? left_a < left_b : a->cores < b->cores;
}

/* Where to begin when no node has room for all of a rank. */
static bool has_more(const struct room *a, const struct room *b, const struct slots_want *want)
{
    if (want->gpus && a->gpus != b->gpus)
        return a->gpus > b->gpus;
    return a->cores > b->cores;
}

static int node_choose(const struct slots *slots, const struct slots_want *want, int before)
{
    int best = -1, most = -1;
    struct room best_room = {0}, most_room = {0};
    if (before >= 0) {
        struct room room = room_in(slots, before, want->model);
        if (room_suffices(&room, want))
            return before;
    }
    for (int node = 0; node < (int)slots->inventory->numa_count; node++) {
        struct room room = room_in(slots, node, want->model);
        if (room_suffices(&room, want) &&
            (best < 0 || fits_better(&room, &best_room, want))) {
            best = node;
            best_room = room;
        }
        if (most < 0 || has_more(&room, &most_room, want)) {
            most = node;
            most_room = room;
        }
    }
    return best >= 0 ? best : most;
}

static int package_of(const struct slots *slots, int node)
{
    for (size_t i = 0; i < slots->inventory->core_count; i++)
        if (slots->inventory->cores[i].numa == node)
            return slots->inventory->cores[i].package;
    return -1;
}

/* 0: in the node; 1: beside it in the package; 2: elsewhere. */
static int core_distance(const struct inventory_core *core, int node, int package)
{
    return core->numa == node ? 0 : core->package == package ? 1 : 2;
}

static void cores_take(struct slots *slots, uint64_t owner, int node, size_t wanted, uint32_t place)
{
    int package = package_of(slots, node);
    for (int distance = 0; distance <= 2 && wanted > 0; distance++)
        for (size_t i = 0; i < slots->inventory->core_count && wanted > 0; i++)
            if (slots->core_owner[i] == 0 &&
                core_distance(&slots->inventory->cores[i], node, package) == distance) {
                slots->core_owner[i] = owner;
                slots->core_place[i] = place++;
                wanted--;
            }
}

static int gpu_distance(const struct inventory_gpu *gpu, int node)
{
    return gpu->numa == node ? 0 : gpu->numa < 0 ? 1 : 2;
}

static void gpus_take(struct slots *slots, uint64_t owner, int node, const struct slots_want *want,
                      uint32_t place)
{
    size_t wanted = want->gpus;
    for (int distance = 0; distance <= 2 && wanted > 0; distance++)
        for (size_t i = 0; i < slots->inventory->gpu_count && wanted > 0; i++)
            if (gpu_is_fit(slots, i, want->model) &&
                gpu_distance(&slots->inventory->gpus[i], node) == distance) {
                slots->gpu_owner[i] = owner;
                slots->gpu_place[i] = place++;
                wanted--;
            }
}

/* ---- taking ---------------------------------------------------------------------------------- */

bool slots_have(const struct slots *slots, const struct slots_want *want)
{
    return want->ranks * want->cores <=
               owned_count(slots->core_owner, slots->inventory->core_count, 0) &&
           want->ranks * want->gpus <= gpus_fit(slots, want->model);
}

int slots_take(struct slots *slots, uint64_t attempt_id, const struct slots_want *want,
               struct err *err)
{
    int node = -1;
    if (!slots_have(slots, want))
        return err_set(err, ERR_LIMIT,
                       "%zu cores and %zu GPUs%s%s are wanted, %zu and %zu are free on this worker",
                       want->ranks * want->cores, want->ranks * want->gpus,
                       *want->model ? " of model " : "", want->model,
                       owned_count(slots->core_owner, slots->inventory->core_count, 0),
                       gpus_fit(slots, want->model));
    for (size_t rank = 0; rank < want->ranks; rank++) {
        node = node_choose(slots, want, node);
        cores_take(slots, attempt_id, node, want->cores, (uint32_t)(rank * want->cores));
        gpus_take(slots, attempt_id, node, want, (uint32_t)(rank * want->gpus));
    }
    return 0;
}

static void core_mark(struct slots *slots, uint64_t attempt_id, size_t index)
{
    size_t has = owned_count(slots->core_owner, slots->inventory->core_count, attempt_id);
    slots->core_owner[index] = attempt_id;
    slots->core_place[index] = (uint32_t)has;
}

void slots_mark_cpu(struct slots *slots, uint64_t attempt_id, unsigned cpu)
{
    const struct inventory *inventory = slots->inventory;
    for (size_t i = 0; i < inventory->core_count; i++)
        for (size_t k = 0; k < inventory->cores[i].cpu_count; k++)
            if (inventory->cores[i].cpus[k] == cpu && slots->core_owner[i] != attempt_id)
                core_mark(slots, attempt_id, i);
}

void slots_mark_gpu(struct slots *slots, uint64_t attempt_id, const char *visible)
{
    for (size_t i = 0; i < slots->inventory->gpu_count; i++)
        if (strcmp(slots->inventory->gpus[i].visible, visible) == 0) {
            slots->gpu_place[i] = (uint32_t)owned_count(
                slots->gpu_owner, slots->inventory->gpu_count, attempt_id);
            slots->gpu_owner[i] = attempt_id;
        }
}

void slots_mark_unbound(struct slots *slots, uint64_t attempt_id, size_t count)
{
    for (size_t i = 0; i < slots->inventory->core_count && count > 0; i++)
        if (slots->inventory->cores[i].cpu_count == 0 && slots->core_owner[i] == 0) {
            core_mark(slots, attempt_id, i);
            count--;
        }
}

#define WITHHELD UINT64_MAX /* no attempt has this number: they are signed in rows */

void slots_withhold_gpu(struct slots *slots, const struct inventory_gpu *gpu)
{
    slots->gpu_owner[gpu - slots->inventory->gpus] = WITHHELD;
}

void slots_give_back_gpu(struct slots *slots, const struct inventory_gpu *gpu)
{
    slots->gpu_owner[gpu - slots->inventory->gpus] = 0;
}

bool slots_gpu_is_withheld(const struct slots *slots, const struct inventory_gpu *gpu)
{
    return slots->gpu_owner[gpu - slots->inventory->gpus] == WITHHELD;
}

size_t slots_gpu_count(const struct slots *slots, uint64_t attempt_id)
{
    return owned_count(slots->gpu_owner, slots->inventory->gpu_count, attempt_id);
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

/* The owner's entry of that place, or count. What was found again has places in order of number. */
static size_t owned_at(const uint64_t *owners, const uint32_t *places, size_t count, uint64_t owner,
                       size_t place)
{
    size_t at = 0;
    while (at < count && !(owners[at] == owner && places[at] == place))
        at++;
    return at;
}

const struct inventory_core *slots_core(const struct slots *slots, uint64_t attempt_id,
                                        size_t index)
{
    size_t count = slots->inventory->core_count;
    size_t at = owned_at(slots->core_owner, slots->core_place, count, attempt_id, index);
    return at < count ? &slots->inventory->cores[at] : NULL;
}

const struct inventory_gpu *slots_gpu(const struct slots *slots, uint64_t attempt_id, size_t index)
{
    size_t count = slots->inventory->gpu_count;
    size_t at = owned_at(slots->gpu_owner, slots->gpu_place, count, attempt_id, index);
    return at < count ? &slots->inventory->gpus[at] : NULL;
}
