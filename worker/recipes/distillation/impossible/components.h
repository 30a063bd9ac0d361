/* components.h - connected components by union-find with path halving and union by size
 * (Tarjan and van Leeuwen 1984). */
#ifndef ATHANOR_COMPONENTS_H
#define ATHANOR_COMPONENTS_H

#include "common/base/base.h"

struct components {
    size_t *parent, *size;
};

void components_init(struct components *components, size_t count); /* each node alone */
void components_done(struct components *components);
size_t components_find(struct components *components, size_t node); /* the component's name */
void components_join(struct components *components, size_t a, size_t b);

#endif
