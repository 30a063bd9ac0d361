/* parked.c - submits and controls, on their way to the core.
 *
 * The core lists what it must be told about history (core_lookups). If it lists nothing the event
 * goes in at once. Otherwise the request is parked: first until everything decided so far is
 * durable (a job that just ended is found in the database only then), then until the reader has
 * looked. What the core lists may have grown meanwhile, because other events went in: then it
 * looks again, LOOKUP_ROUNDS_MAX times at most. */
#include "coordinator/shell/shell.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARKED_MAX        1024u /* requests waiting; one more is refused */
#define LOOKUP_ROUNDS_MAX 8u
#define SUBMIT_KEY_BYTES  16u

struct parked {
    struct parked *next;
    struct arena arena; /* holds what the event points to, but for spec and found */
    struct event event;
    struct spec *spec;
    uint64_t ticket;      /* of the reader; 0: not asked yet */
    uint64_t after_batch; /* ask once this one has committed */
    unsigned rounds;
    struct core_lookup *asked;
    size_t asked_count;
};

static void parked_one_free(struct parked *parked)
{
    spec_free(parked->spec);
    arena_done(&parked->arena);
    mem_free(parked);
}

static struct parked *parked_new(void)
{
    return mem_zalloc(sizeof(struct parked));
}

static void list_add(struct parked_list *list, struct parked *parked)
{
    if (list->last)
        list->last->next = parked;
    else
        list->first = parked;
    list->last = parked;
    list->count++;
}

static void list_remove(struct parked_list *list, struct parked *gone)
{
    struct parked *before = NULL;

    for (struct parked *at = list->first; at != gone; at = at->next)
        before = at;
    if (before)
        before->next = gone->next;
    else
        list->first = gone->next;
    if (list->last == gone)
        list->last = before;
    list->count--;
}

static void refuse(struct shell *shell, const struct parked *parked, const struct err *err)
{
    const struct event *event = &parked->event;

    if (event->kind == EVENT_SUBMIT)
        shell_refuse(shell, event->submit.client, event->submit.request_seq, err);
    else if (event->kind == EVENT_CONTROL)
        shell_refuse(shell, event->control.client, event->control.request_seq, err);
    else if (event->collect.client)
        shell_refuse(shell, event->collect.client, event->collect.request_seq, err);
    else
        log_warn("what nothing needs was not looked for, trying again later: %s", err->text);
}

/* ---- looking up ----------------------------------------------------------------------------- */

static bool text_equal(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

/* All lookups of a submit key are of the same key. */
static bool lookup_equal(const struct core_lookup *a, const struct core_lookup *b)
{
    return a->kind == b->kind && a->job_id == b->job_id && a->collections == b->collections &&
           text_equal(a->name, b->name) &&
           text_equal(a->experiment, b->experiment);
}

/* The core lists them in the same order each time, so the one at `place` nearly always is it. */
static bool was_asked(const struct parked *parked, const struct core_lookup *wanted, size_t place)
{
    if (place < parked->asked_count && lookup_equal(&parked->asked[place], wanted))
        return true;
    for (size_t i = 0; i < parked->asked_count; i++)
        if (lookup_equal(&parked->asked[i], wanted))
            return true;
    return false;
}

/* What the core wants to know now. True: all of it has been asked already. */
static bool lookups_settled(const struct shell *shell, struct parked *parked)
{
    struct core_lookup *wanted = NULL;
    size_t count = core_lookups(shell->core, &parked->event, &parked->arena, &wanted);
    bool settled = true;

    for (size_t i = 0; i < count; i++)
        settled = settled && was_asked(parked, &wanted[i], i);
    if (settled)
        return true;
    parked->asked = wanted;
    parked->asked_count = count;
    return false;
}

static bool lookups_need_commit(const struct parked *parked)
{
    for (size_t i = 0; i < parked->asked_count; i++)
        if (parked->asked[i].kind != LOOKUP_SUBMIT)
            return true;
    return false;
}

/* Asks the reader. False: refused, and gone. */
static void ask(struct shell *shell, struct parked *parked)
{
    struct err err;

    parked->ticket = ++shell->last_ticket;
    if (reader_lookup(shell->reader, parked->ticket, parked->asked, parked->asked_count, &err) == 0)
        return;
    refuse(shell, parked, &err);
    list_remove(&shell->parked, parked);
    parked_one_free(parked);
}

static void step_and_free(struct shell *shell, struct parked *parked)
{
    shell_step(shell, &parked->event);
    parked_one_free(parked);
}

/* The event is complete but for history. Takes parked. */
static void begin(struct shell *shell, struct parked *parked)
{
    struct err err;

    if (lookups_settled(shell, parked)) {
        step_and_free(shell, parked);
        return;
    }
    if (shell->parked.count >= PARKED_MAX) {
        err_set(&err, ERR_LIMIT, "%u requests wait for the database already, try again later",
                PARKED_MAX);
        refuse(shell, parked, &err);
        parked_one_free(parked);
        return;
    }
    list_add(&shell->parked, parked);
    parked->after_batch = lookups_need_commit(parked) ? shell_pending_batch(shell) : 0;
    if (parked->after_batch == 0)
        ask(shell, parked);
}

void parked_committed(struct shell *shell)
{
    for (struct parked *at = shell->parked.first, *next; at; at = next) {
        next = at->next;
        if (at->ticket == 0 && at->after_batch <= shell->outbox.begun)
            ask(shell, at);
    }
}

void parked_found(struct shell *shell, uint64_t ticket, const struct event_found *found,
                  const struct err *err)
{
    struct parked *parked = shell->parked.first;

    while (parked && parked->ticket != ticket)
        parked = parked->next;
    CHECK(parked != NULL);
    if (!found) {
        refuse(shell, parked, err);
        list_remove(&shell->parked, parked);
        parked_one_free(parked);
        return;
    }
    if (!lookups_settled(shell, parked) && ++parked->rounds < LOOKUP_ROUNDS_MAX) {
        parked->ticket = 0;
        parked->after_batch = shell_pending_batch(shell);
        if (parked->after_batch == 0)
            ask(shell, parked);
        return;
    }
    if (parked->event.kind == EVENT_SUBMIT)
        parked->event.submit.found = *found;
    else if (parked->event.kind == EVENT_COLLECT)
        parked->event.collect.found = *found;
    else
        parked->event.control.found = *found;
    list_remove(&shell->parked, parked);
    step_and_free(shell, parked);
}

void parked_free(struct shell *shell)
{
    while (shell->parked.first) {
        struct parked *parked = shell->parked.first;
        list_remove(&shell->parked, parked);
        parked_one_free(parked);
    }
}

/* ---- submits -------------------------------------------------------------------------------- */

/* Every error of the spec with its place, in one REFUSED. */
static void refuse_spec(struct shell *shell, uint64_t peer, uint64_t request_seq,
                        const struct spec_errors *errors)
{
    struct message message = {.tag = MSG_REFUSED};
    struct msg_refused *refused = &message.u.refused;
    struct rec_refusal *list = mem_array(errors->count + 1, sizeof *list);
    char text[100];

    for (size_t i = 0; i < errors->count; i++) {
        const struct spec_error *error = &errors->items[i];
        list[i] = (struct rec_refusal){error->file, error->line, error->column, error->path,
                                       error->message};
    }
    snprintf(text, sizeof text, "the spec has %zu error%s", errors->count + errors->dropped,
             errors->count + errors->dropped == 1 ? "" : "s");
    *refused = (struct msg_refused){.request_seq = request_seq,
                                    .kind = err_kind_name(ERR_INVALID),
                                    .text = text,
                                    .refusals = list,
                                    .refusals_count = errors->count};
    outbox_answer(shell->server, peer, request_seq, &message);
    mem_free(list);
}

static int check_submit(const struct msg_submit *submit, struct err *err)
{
    if (submit->submit_key.length != SUBMIT_KEY_BYTES)
        return err_set(err, ERR_INVALID, "submit_key has %zu bytes, expected %u",
                       submit->submit_key.length, SUBMIT_KEY_BYTES);
    if (submit->folder[0] && submit->folder[0] != '/')
        return err_set(err, ERR_INVALID, "folder is '%.100s', expected an absolute path",
                       submit->folder);
    return 0;
}

/* Reads the spec into *out; -1 when it was refused, which has been answered. */
static int read_spec(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                     const struct msg_submit *submit, struct spec **out)
{
    struct spec_errors errors = {0};
    struct spec_set *sets = mem_array(submit->sets_count + 1, sizeof *sets);

    for (size_t i = 0; i < submit->sets_count; i++)
        sets[i] = (struct spec_set){submit->sets[i].name, submit->sets[i].value};
    struct spec_snapshot *snapshots = mem_array(submit->snapshots_count + 1, sizeof *snapshots);
    char (*hex)[HASH_HEX_SIZE] = mem_array(submit->snapshots_count + 1, sizeof *hex);
    for (size_t i = 0; i < submit->snapshots_count; i++) {
        hash_to_hex(&submit->snapshots[i].content, hex[i]);
        snapshots[i] = (struct spec_snapshot){submit->snapshots[i].folder, hex[i]};
    }
    struct spec_source source = {.name = submit->file,
                                 .bytes = submit->yaml.bytes,
                                 .length = submit->yaml.length,
                                 .folder = submit->folder[0] ? submit->folder : NULL,
                                 .sets = sets,
                                 .set_count = submit->sets_count,
                                 .snapshots = snapshots,
                                 .snapshot_count = submit->snapshots_count};
    int rc = spec_read(&source, shell->catalogue, out, &errors);
    if (rc < 0)
        refuse_spec(shell, from->peer_id, request_seq, &errors);
    spec_errors_done(&errors);
    mem_free(sets);
    mem_free(snapshots);
    mem_free(hex);
    return rc;
}

static int project_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The projects whose secrets the jobs may name: sorted, each once. */
static size_t spec_projects(const struct spec *spec, struct arena *arena,
                            const char *const **out)
{
    const char **projects = arena_alloc(arena, (spec->job_count + 1) * sizeof *projects);
    size_t found = 0, count = 0;

    for (size_t i = 0; i < spec->job_count; i++)
        if (spec->jobs[i].secret_count)
            projects[found++] = spec->jobs[i].project;
    qsort(projects, found, sizeof *projects, project_compare);
    for (size_t i = 0; i < found; i++)
        if (count == 0 || strcmp(projects[count - 1], projects[i]) != 0)
            projects[count++] = projects[i];
    *out = projects;
    return count;
}

static void secrets_note(struct shell *shell, const struct server_source *from,
                         struct parked *parked)
{
    struct event_submit *submit = &parked->event.submit;
    const char *const *projects;
    size_t count = spec_projects(parked->spec, &parked->arena, &projects);

    submit->secret_count = secrets_names(shell->secrets, from->principal, projects, count,
                                         &parked->arena, &submit->secrets);
}

void parked_submit(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                   const struct msg_submit *submit)
{
    struct spec *spec = NULL;
    struct err err;

    if (check_submit(submit, &err) < 0) {
        shell_refuse(shell, from->peer_id, request_seq, &err);
        return;
    }
    if (read_spec(shell, from, request_seq, submit, &spec) < 0)
        return;
    struct parked *parked = parked_new();
    struct arena *arena = &parked->arena;
    parked->spec = spec;
    parked->event.kind = EVENT_SUBMIT;
    parked->event.submit = (struct event_submit){
        .client = from->peer_id,
        .request_seq = request_seq,
        .account = arena_strdup(arena, from->principal),
        .submit_key =
            (const uint8_t *)arena_strndup(arena, submit->submit_key.bytes, SUBMIT_KEY_BYTES),
        .spec = spec,
        .source = arena_strndup(arena, submit->yaml.bytes, submit->yaml.length),
        .check_only = submit->check_only,
        .reuse = submit->reuse,
    };
    secrets_note(shell, from, parked);
    begin(shell, parked);
}

/* ---- collections ---------------------------------------------------------------------------- */

void parked_collect(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                    const struct msg_collect *collect)
{
    struct parked *parked = parked_new();
    struct arena *arena = &parked->arena;
    struct msg_collect *copy = arena_alloc(arena, sizeof *copy);

    *copy = (struct msg_collect){.at_once = collect && collect->at_once,
                                 .keep_ms = collect ? collect->keep_ms : 0,
                                 .kind = arena_strdup(arena, collect ? collect->kind : "")};
    parked->event.kind = EVENT_COLLECT;
    parked->event.collect = (struct event_collect){
        .client = from ? from->peer_id : 0,
        .request_seq = request_seq,
        .account = from ? arena_strdup(arena, from->principal) : NULL,
        .is_operator = !from || from->role == ROLE_OPERATOR || from->role == ROLE_ADMIN,
        .collect = copy};
    begin(shell, parked);
}

/* ---- controls ------------------------------------------------------------------------------- */

static struct msg_control *control_copy(struct arena *arena, const struct msg_control *control)
{
    struct msg_control *copy = arena_alloc(arena, sizeof *copy);

    *copy = *control;
    copy->action = arena_strdup(arena, control->action);
    copy->reason = arena_strdup(arena, control->reason);
    copy->targets = arena_alloc(arena, (control->targets_count + 1) * sizeof *copy->targets);
    for (size_t i = 0; i < control->targets_count; i++) {
        copy->targets[i].name = arena_strdup(arena, control->targets[i].name);
        copy->targets[i].value = arena_strdup(arena, control->targets[i].value);
    }
    return copy;
}

void parked_control(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                    const struct msg_control *control)
{
    struct parked *parked = parked_new();

    parked->event.kind = EVENT_CONTROL;
    parked->event.control = (struct event_control){
        .client = from->peer_id,
        .request_seq = request_seq,
        .account = arena_strdup(&parked->arena, from->principal),
        .may_act_for_others = from->role == ROLE_OPERATOR || from->role == ROLE_ADMIN,
        .control = control_copy(&parked->arena, control),
    };
    begin(shell, parked);
}
