/* configure.h - a CONFIGURE being answered. Private to core/, part of state.h. */
#ifndef ATHANOR_CORE_CONFIGURE_H
#define ATHANOR_CORE_CONFIGURE_H

#include "coordinator/core/rights.h"

struct configure_pass {
    struct core *core;
    const struct event_configure *event;
    const struct msg_configure *request;
    struct arena *arena;
    struct rec_refusal *refusals;
    size_t refusal_count;
    bool changed;
};

void configure_on_configure(struct core *core, const struct event_configure *event);
/* Refuses; `path` names the setting. Text in arena or static. */
void configure_refuse(struct configure_pass *pass, const char *path, const char *text);
/* The last value given, NULL when none was. */
const char *configure_value(const struct configure_pass *pass, const char *setting);
/* Takes a whole number, or "none" where none >= 0 says what that means. Leaves *out alone when the
 * setting was not given or is refused. */
void configure_number(struct configure_pass *pass, const char *setting, int64_t least, int64_t most,
                      const int64_t *none, int64_t *out);
void configure_flag(struct configure_pass *pass, const char *setting, bool *out);
/* Refuses settings beyond `names` (NULL at the end) with the nearest one as a hint. */
void configure_known(struct configure_pass *pass, const char *const *names);
/* False, and refused, unless text may be a name: CONFIG_NAME_MAX bytes as in specs. */
bool configure_name(struct configure_pass *pass, const char *path, const char *name);
/* False, and refused, when nobody of that name is enrolled. */
bool configure_principal(struct configure_pass *pass, const char *path, const char *name);
/* "; did you mean 'x'?" for the name nearest to `wrong` that was offered; "" for none. */
struct hint {
    const char *wrong, *best;
    unsigned distance;
};
void hint_offer(struct hint *hint, const char *name);
const char *hint_text(const struct hint *hint, struct arena *arena);

#endif
