/* components.c - see components.h. */
#include "worker/recipes/distillation/impossible/components.h"

#include "common/base/mem.h"

void components_init(struct components *components, size_t count)
{
    components->parent = mem_array(count + 1, sizeof *components->parent);
    components->size = mem_array(count + 1, sizeof *components->size);
    for (size_t i = 0; i < count; i++) {
        components->parent[i] = i;
        components->size[i] = 1;
    }
}

void components_done(struct components *components)
{
    mem_free(components->parent);
    mem_free(components->size);
}

size_t components_find(struct components *components, size_t node)
{
    size_t *parent = components->parent;

    while (parent[node] != node)
        node = parent[node] = parent[parent[node]];
    return node;
}

void components_join(struct components *components, size_t a, size_t b)
{
    a = components_find(components, a);
    b = components_find(components, b);
    if (a == b)
        return;
    if (components->size[a] < components->size[b]) {
        size_t held = a;
        a = b;
        b = held;
    }
    components->parent[b] = a;
    components->size[a] += components->size[b];
}
