/* configure.c - CONFIGURE: operators change who may use how much. All of a request or nothing. */
#include "coordinator/core/state.h"

#include "common/base/parse.h"

#include <string.h>

#define REFUSALS_MAX 20u

/* ---- refusing ---------------------------------------------------------------------------- */

void configure_refuse(struct configure_pass *pass, const char *path, const char *text)
{
    if (pass->refusal_count == REFUSALS_MAX)
        return;
    if (!pass->refusals)
        pass->refusals = arena_alloc(pass->arena, REFUSALS_MAX * sizeof *pass->refusals);
    pass->refusals[pass->refusal_count++] =
        (struct rec_refusal){.file = "", .path = arena_strdup(pass->arena, path), .text = text};
}

void hint_offer(struct hint *hint, const char *name)
{
    unsigned distance = text_distance(hint->wrong, name);
    if (hint->best ? distance >= hint->distance
                   : 2 * distance > strlen(hint->wrong)) /* half of it is wrong: no hint */
        return;
    hint->best = name;
    hint->distance = distance;
}

const char *hint_text(const struct hint *hint, struct arena *arena)
{
    return hint->best ? arena_printf(arena, "; did you mean '%s'?", hint->best) : "";
}

/* ---- settings ---------------------------------------------------------------------------- */

const char *configure_value(const struct configure_pass *pass, const char *setting)
{
    const char *value = NULL;
    for (size_t i = 0; i < pass->request->settings_count; i++)
        if (strcmp(pass->request->settings[i].name, setting) == 0)
            value = pass->request->settings[i].value;
    return value;
}

void configure_number(struct configure_pass *pass, const char *setting, int64_t least, int64_t most,
                      const int64_t *none, int64_t *out)
{
    const char *text = configure_value(pass, setting);
    struct err err;
    int64_t value;
    if (!text)
        return;
    if (none && strcmp(text, "none") == 0)
        value = *none;
    else if (parse_i64(text, &value, &err) < 0 || value < least || value > most) {
        configure_refuse(pass, setting,
                         arena_printf(pass->arena,
                                      "is '%.40s', expected a whole number from %lld to %lld%s",
                                      text, (long long)least, (long long)most,
                                      none ? ", or none" : ""));
        return;
    }
    *out = value;
}

void configure_flag(struct configure_pass *pass, const char *setting, bool *out)
{
    const char *text = configure_value(pass, setting);
    struct err err;
    if (text && parse_bool(text, out, &err) < 0)
        configure_refuse(pass, setting,
                         arena_printf(pass->arena, "is '%.40s', expected true or false", text));
}

void configure_known(struct configure_pass *pass, const char *const *names)
{
    for (size_t i = 0; i < pass->request->settings_count; i++) {
        const char *given = pass->request->settings[i].name;
        struct hint hint = {.wrong = given};
        size_t k = 0;
        for (; names[k] && strcmp(names[k], given) != 0; k++)
            hint_offer(&hint, names[k]);
        if (!names[k])
            configure_refuse(pass, given,
                             arena_printf(pass->arena, "is no setting of a %s%s",
                                          pass->request->table, hint_text(&hint, pass->arena)));
    }
}

bool configure_name(struct configure_pass *pass, const char *path, const char *name)
{
    if (strlen(name) <= CONFIG_NAME_MAX && spec_name_is_valid(name) && !spec_name_is_id(name))
        return true;
    configure_refuse(pass, path,
                     arena_printf(pass->arena,
                                  "'%.80s' is no name, expected at most %u of a-z A-Z 0-9 . _ -, "
                                  "beginning with a letter or digit, not only digits",
                                  name, CONFIG_NAME_MAX));
    return false;
}

bool configure_principal(struct configure_pass *pass, const char *path, const char *name)
{
    const struct event_configure *event = pass->event;
    struct hint hint = {.wrong = name};
    if (!event->principals && configure_name(pass, path, name))
        return true;
    for (size_t i = 0; i < event->principal_count; i++) {
        if (strcmp(event->principals[i], name) == 0)
            return true;
        hint_offer(&hint, event->principals[i]);
    }
    if (event->principals)
        configure_refuse(pass, path,
                         arena_printf(pass->arena, "nobody called '%.80s' has a key%s", name,
                                      hint_text(&hint, pass->arena)));
    return false;
}

/* ---- the request ------------------------------------------------------------------------- */

typedef void configure_fn(struct configure_pass *pass);
static const struct {
    const char *name;
    configure_fn *run;
} tables[] = {
    {"queue", queue_configure},     {"project", project_configure},
    {"setting", setting_configure}, {"reservation", reservation_configure},
    {"quota", quota_configure},
};

static configure_fn *table_find(struct configure_pass *pass)
{
    const char *list = "";
    for (size_t i = 0; i < ARRAY_COUNT(tables); i++) {
        if (strcmp(tables[i].name, pass->request->table) == 0)
            return tables[i].run;
        list = arena_printf(pass->arena, "%s%s%s", list, *list ? ", " : "", tables[i].name);
    }
    configure_refuse(pass, "table",
                     arena_printf(pass->arena, "'%.40s' cannot be configured, expected one of %s",
                                  pass->request->table, list));
    return NULL;
}

/* "priority=500 evicts=true", for the history. */
static const char *settings_text(const struct configure_pass *pass)
{
    const char *text = pass->request->name;
    for (size_t i = 0; i < pass->request->settings_count && strlen(text) < TEXT_KEPT_MAX; i++)
        text = arena_printf(pass->arena, "%s%s%s=%.100s", text, *text ? " " : "",
                            pass->request->settings[i].name, pass->request->settings[i].value);
    return text;
}

static void answer(struct configure_pass *pass)
{
    struct core *core = pass->core;
    const struct event_configure *event = pass->event;
    if (pass->refusal_count) {
        answer_refused(core, ADDRESS_CLIENT, event->client, event->request_seq,
                       event->is_operator ? ERR_INVALID : ERR_DENIED, pass->refusals[0].text,
                       pass->refusals, pass->refusal_count);
        return;
    }
    const char *name = *pass->request->name ? pass->request->name : settings_text(pass);
    struct msg_done *done =
        &effects_release(core->effects, ADDRESS_CLIENT, event->client, MSG_DONE)->u.done;
    done->request_seq = event->request_seq;
    done->count = pass->changed;
    done->text = !pass->changed ? "it was so already"
                 : strcmp(pass->request->action, "remove") == 0
                     ? arena_printf(pass->arena, "%s %s is removed", pass->request->table, name)
                     : arena_printf(pass->arena, "%s %s is set", pass->request->table, name);
}

/* "add" is for what must be new. */
static bool action_is_known(const struct msg_configure *request)
{
    return strcmp(request->action, "set") == 0 || strcmp(request->action, "remove") == 0 ||
           (strcmp(request->action, "add") == 0 && strcmp(request->table, "reservation") == 0);
}

void configure_on_configure(struct core *core, const struct event_configure *event)
{
    const struct msg_configure *request = event->configure;
    struct configure_pass pass = {.core = core,
                                  .event = event,
                                  .request = request,
                                  .arena = step_arena(core)};
    configure_fn *run = table_find(&pass);
    if (!event->is_operator)
        configure_refuse(&pass, request->table, "only operators and admins may change it");
    if (!action_is_known(request))
        configure_refuse(&pass, "action",
                         arena_printf(pass.arena, "'%.40s' is unknown, expected set or remove",
                                      request->action));
    if (pass.refusal_count == 0)
        run(&pass);
    if (pass.changed)
        history_add(core,
                    arena_printf(pass.arena, "%s_%s", request->table,
                                 strcmp(request->action, "remove") == 0 ? "removed" : "set"),
                    0, 0, 0, event->account, settings_text(&pass));
    answer(&pass);
}
