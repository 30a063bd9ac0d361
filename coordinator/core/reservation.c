/* reservation.c - windows: workers kept free for some, or for nobody, for a while; and the
 * deadlines of drains.
 *
 * A job that is not entitled may start on such a worker only if its wall time is over before the
 * window begins; one without a limit, and without its queue's default, not while a window is to
 * come. What runs when the window begins stays, unless the window says stop.
 *
 * Windows are wall time, like the rows; a clock that jumps moves them. When one is over its row
 * is closed (removed_at), so that memory holds what has not ended, and rows say the same. */
#include "coordinator/core/state.h"

#include "common/base/buf.h"
#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

#define LOOK_MS 60000u /* the clock may have jumped: nothing waits longer than this for it */
#define YEAR_US (366ull * 86400 * 1000000)

/* ---- tables ------------------------------------------------------------------------------ */

static void texts_clear(char ***texts, size_t *count)
{
    for (size_t i = 0; i < *count; i++)
        mem_free((*texts)[i]);
    mem_free(*texts);
    *texts = NULL;
    *count = 0;
}

static void texts_copy(char ***texts, size_t *count, const char *const *from, size_t from_count)
{
    texts_clear(texts, count);
    *texts = mem_array(from_count, sizeof **texts);
    for (size_t i = 0; i < from_count; i++)
        (*texts)[i] = mem_strdup(from[i]);
    *count = from_count;
}

static void reservation_free(struct reservation *reservation)
{
    texts_clear(&reservation->workers, &reservation->worker_count);
    texts_clear(&reservation->labels, &reservation->label_count);
    texts_clear(&reservation->entitled, &reservation->entitled_count);
    mem_free(reservation->name);
    mem_free(reservation->reason);
    mem_free(reservation->account);
    mem_free(reservation);
}

void reservations_free(struct core *core)
{
    for (size_t i = 0; i < core->reservations.count; i++)
        reservation_free(core->reservations.items[i]);
    mem_free(core->reservations.items);
}

static struct reservation *reservation_find(const struct core *core, const char *name)
{
    for (size_t i = 0; i < core->reservations.count; i++) {
        struct reservation *reservation = core->reservations.items[i];
        if (strcmp(reservation->name, name) == 0)
            return reservation;
    }
    return NULL;
}

/* In order of names. */
static struct reservation *reservation_add(struct core *core, const char *name)
{
    struct reservation *reservation = mem_zalloc(sizeof *reservation);
    reservation->name = mem_strdup(name);
    list_add(&core->reservations, reservation);
    struct reservation **items = (struct reservation **)core->reservations.items;
    size_t at = core->reservations.count - 1;
    for (; at > 0 && strcmp(items[at - 1]->name, name) > 0; at--)
        items[at] = items[at - 1];
    items[at] = reservation;
    return reservation;
}

static void reservation_drop(struct core *core, struct reservation *reservation)
{
    size_t at = 0;
    while (core->reservations.items[at] != reservation)
        at++;
    core->reservations.count--;
    for (; at < core->reservations.count; at++)
        core->reservations.items[at] = core->reservations.items[at + 1];
    reservation_free(reservation);
}

/* ---- whom it concerns -------------------------------------------------------------------- */

static bool worker_has(const struct worker *worker, const char *label)
{
    for (size_t i = 0; i < worker->label_count; i++) {
        size_t length = strlen(worker->labels[i].name);
        if (strncmp(label, worker->labels[i].name, length) == 0 && label[length] == '=' &&
            strcmp(label + length + 1, worker->labels[i].value) == 0)
            return true;
    }
    return false;
}

/* Named, or with all the labels; a window that says neither is of all workers. */
static bool reservation_covers(const struct reservation *reservation, const struct worker *worker)
{
    bool labelled = reservation->label_count > 0;
    for (size_t i = 0; i < reservation->worker_count; i++)
        if (strcmp(reservation->workers[i], worker->name) == 0)
            return true;
    for (size_t i = 0; labelled && i < reservation->label_count; i++)
        labelled = worker_has(worker, reservation->labels[i]);
    return labelled || reservation->worker_count + reservation->label_count == 0;
}

static bool reservation_entitles(const struct reservation *reservation, const struct class *class)
{
    for (size_t i = 0; i < reservation->entitled_count; i++) {
        const char *who = reservation->entitled[i], *name = strchr(who, ':') + 1;
        if (strcmp(name, who[0] == 'u' ? class->account : class->project->name) == 0)
            return true;
    }
    return false;
}

uint64_t class_wall_ms(const struct class *class)
{
    return class->ask.wall_time_ms ? class->ask.wall_time_ms : class->queue_config->default_wall_ms;
}

const struct reservation *reservation_against(const struct core *core, const struct class *class,
                                              const struct worker *worker, uint64_t start_ms)
{
    uint64_t wall_ms = class_wall_ms(class);
    uint64_t start_us =
        core->wall_us + (start_ms > core->now_ms ? start_ms - core->now_ms : 0) * 1000;
    for (size_t i = 0; i < core->reservations.count; i++) {
        const struct reservation *reservation = core->reservations.items[i];
        bool is_over = start_us >= reservation->until_at;
        bool ends_before = wall_ms && start_us + wall_ms * 1000 <= reservation->from_at;
        if (!is_over && !ends_before && reservation_covers(reservation, worker) &&
            !reservation_entitles(reservation, class))
            return reservation;
    }
    return NULL;
}

static int time_compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

void reservations_view(const struct core *core, struct arena *arena, struct policy_view *view)
{
    uint64_t *times = arena_alloc(arena, core->reservations.count * sizeof *times);
    for (size_t i = 0; i < core->reservations.count; i++) {
        const struct reservation *reservation = core->reservations.items[i];
        uint64_t left_us =
            reservation->until_at > core->wall_us ? reservation->until_at - core->wall_us : 0;
        times[i] = core->now_ms + (left_us + 999) / 1000;
    }
    qsort(times, core->reservations.count, sizeof *times, time_compare);
    view->times = times;
    view->time_count = core->reservations.count;
}

/* ---- why --------------------------------------------------------------------------------- */

static const char *span(struct arena *arena, uint64_t us)
{
    char text[PARSE_TEXT_SIZE];
    return arena_strdup(arena, format_duration_short(us / 1000, text));
}

static const char *entitled_text(const struct reservation *reservation, struct arena *arena)
{
    const char *text = reservation->entitled_count ? "" : "nobody";
    for (size_t i = 0; i < reservation->entitled_count; i++)
        text = arena_printf(arena, "%s%s%s", text, i ? ", " : "", reservation->entitled[i]);
    return text;
}

const char *reservation_why(const struct core *core, const struct class *class, struct arena *arena,
                            const char **out_remedy)
{
    const struct reservation *first = NULL;
    size_t kept = 0, usable = 0;
    for (size_t i = 0; core->reservations.count && i < core->worker_count; i++) {
        const struct worker *worker = core->workers[i];
        if (!worker_is_usable(worker) || !class_allows(class, worker))
            continue;
        const struct reservation *against = reservation_against(core, class, worker, core->now_ms);
        usable++;
        kept += against != NULL;
        first = first ? first : against;
    }
    if (!first)
        return NULL;
    const char *left = span(arena, first->until_at - min_u64(core->wall_us, first->until_at));
    if (first->from_at <= core->wall_us) {
        *out_remedy = arena_printf(arena, "it ends in %s, or an operator lets you in", left);
        return arena_printf(arena, "reservation '%s' keeps %zu of %zu fitting workers for %s",
                            first->name, kept, usable, entitled_text(first, arena));
    }
    const char *until_begin = span(arena, first->from_at - core->wall_us);
    *out_remedy = arena_printf(arena, "state a limits.wall_time shorter than %s, or it ends in %s",
                               until_begin, left);
    return arena_printf(
        arena, "reservation '%s' begins in %s on %zu of %zu fitting workers, and the job %s",
        first->name, until_begin, kept, usable,
        class_wall_ms(class) ? "may run longer" : "has no wall time limit");
}

/* ---- beginnings and ends ----------------------------------------------------------------- */

static void workers_gain(struct core *core, const struct reservation *reservation)
{
    for (size_t i = 0; i < core->worker_count; i++)
        if (reservation_covers(reservation, core->workers[i]))
            worker_gained(core, core->workers[i]);
    core_mark_placement(core);
}

/* Parts that end at once leave the list, so the next one is taken before. */
static void worker_clear(struct core *core, struct worker *worker,
                         const struct reservation *reservation, const char *why)
{
    enum cause cause = reservation ? CAUSE_PREEMPTED : CAUSE_DRAINED;
    struct part *next;
    for (struct part *part = worker->parts; part; part = next) {
        struct attempt *attempt = part->attempt;
        next = part->next;
        if (!reservation || !reservation_entitles(reservation, attempt->job->class))
            attempt_preempt(core, attempt, cause, why);
    }
}

static void window_clear(struct core *core, const struct reservation *reservation)
{
    const char *why = arena_printf(step_arena(core), "reservation %s has begun", reservation->name);
    for (size_t i = 0; i < core->worker_count; i++)
        if (reservation_covers(reservation, core->workers[i]))
            worker_clear(core, core->workers[i], reservation, why);
}

static const char *texts_json(char *const *texts, size_t count, struct arena *arena)
{
    struct buf json = {0};
    buf_putc(&json, '[');
    for (size_t i = 0; i < count; i++) {
        buf_puts(&json, i ? "," : "");
        json_quote(&json, texts[i]);
    }
    buf_putc(&json, ']');
    const char *text = arena_strdup(arena, buf_text(&json));
    buf_done(&json);
    return text;
}

static void reservation_write(struct core *core, const struct reservation *reservation, bool over)
{
    struct arena *arena = step_arena(core);
    struct row_reservation row = {
        .name = reservation->name,
        .from_at = reservation->from_at,
        .until_at = reservation->until_at,
        .workers = texts_json(reservation->workers, reservation->worker_count, arena),
        .worker_constraint = texts_json(reservation->labels, reservation->label_count, arena),
        .entitled = texts_json(reservation->entitled, reservation->entitled_count, arena),
        .stop = reservation->stop,
        .reason = reservation->reason,
        .account = reservation->account,
        .removed_at = over ? core->wall_us : 0,
    };
    effects_persist(core->effects, ROW_TABLE_reservation, PERSIST_UPSERT, &row);
}

static void reservation_end(struct core *core, struct reservation *reservation)
{
    reservation_write(core, reservation, true);
    workers_gain(core, reservation);
    reservation_drop(core, reservation);
}

static void reservations_due(struct core *core)
{
    for (size_t i = core->reservations.count; i > 0; i--) {
        struct reservation *reservation = core->reservations.items[i - 1];
        if (reservation->until_at <= core->wall_us) {
            history_add(core, "reservation_over", 0, 0, 0, NULL,
                        arena_strdup(step_arena(core), reservation->name));
            reservation_end(core, reservation);
        } else if (reservation->from_at <= core->wall_us && reservation->stop) {
            window_clear(core, reservation);
        }
    }
}

static const char *drain_text(struct core *core, const struct worker *worker)
{
    const char *reason = worker->drain_reason;
    return arena_printf(step_arena(core), "the deadline of the drain of %s has come%s%s",
                        worker->name, reason && *reason ? ": " : "", reason ? reason : "");
}

static void drains_due(struct core *core)
{
    for (size_t i = 0; i < core->worker_count; i++) {
        struct worker *worker = core->workers[i];
        if (worker->drain_by_at && worker->drain_by_at <= core->wall_us)
            worker_clear(core, worker, NULL, drain_text(core, worker));
    }
}

/* The next moment in wall time that something here begins or ends; 0: none. */
static uint64_t next_at(const struct core *core)
{
    uint64_t next = min_u64(quotas_next_at(core), untils_next_at(core));
    for (size_t i = 0; i < core->reservations.count; i++) {
        const struct reservation *reservation = core->reservations.items[i];
        next = min_u64(next, reservation->from_at > core->wall_us ? reservation->from_at
                                                                  : reservation->until_at);
    }
    for (size_t i = 0; i < core->worker_count; i++)
        if (core->workers[i]->drain_by_at > core->wall_us)
            next = min_u64(next, core->workers[i]->drain_by_at);
    return next == UINT64_MAX ? 0 : next;
}

void windows_timer_set(struct core *core)
{
    uint64_t next = next_at(core);
    uint64_t left_us = next > core->wall_us ? next - core->wall_us : 0;
    uint64_t wait_ms = min_u64((left_us + 999) / 1000, LOOK_MS);
    timer_set(&core->timers, &core->window_timer, next ? max_u64(core->now_ms + wait_ms, 1) : 0);
}

/* Only a TICK makes things happen. */
void windows_look(struct core *core)
{
    timer_set(&core->timers, &core->window_timer, max_u64(core->now_ms, 1));
}

void windows_due(struct core *core)
{
    reservations_due(core);
    drains_due(core);
    untils_due(core);
    if (quotas_next_at(core) != UINT64_MAX)
        core_mark_placement(core); /* a period may have ended */
    windows_timer_set(core);
}

/* ---- configuration ----------------------------------------------------------------------- */

/* What a request asks for, in the arena. */
struct wanted {
    int64_t from_us, until_us;
    const char **workers, **labels, **entitled;
    size_t worker_count, label_count, entitled_count;
    bool stop;
    const char *reason;
};

static size_t values_of(struct configure_pass *pass, const char *setting, const char ***out)
{
    const struct msg_configure *request = pass->request;
    size_t count = 0;
    *out = arena_alloc(pass->arena, (request->settings_count + 1) * sizeof **out);
    for (size_t i = 0; i < request->settings_count; i++)
        if (strcmp(request->settings[i].name, setting) == 0)
            (*out)[count++] = request->settings[i].value;
    return count;
}

static bool is_label(const char *text)
{
    const char *equals = strchr(text, '=');
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == '"' || *c == '\\')
            return false;
    return equals && equals > text && strlen(text) <= TEXT_KEPT_MAX;
}

static void workers_check(struct configure_pass *pass, const struct wanted *wanted)
{
    for (size_t i = 0; i < wanted->worker_count; i++) {
        struct hint hint = {.wrong = wanted->workers[i]};
        if (worker_find_name(pass->core, wanted->workers[i]))
            continue;
        for (size_t k = 0; k < pass->core->worker_count; k++)
            hint_offer(&hint, pass->core->workers[k]->name);
        configure_refuse(pass, "worker",
                         arena_printf(pass->arena, "no worker '%.80s' has ever joined%s",
                                      wanted->workers[i], hint_text(&hint, pass->arena)));
    }
    for (size_t i = 0; i < wanted->label_count; i++)
        if (!is_label(wanted->labels[i]))
            configure_refuse(pass, "where",
                             arena_printf(pass->arena, "'%.80s' is no label, expected NAME=VALUE",
                                          wanted->labels[i]));
}

static void entitled_check(struct configure_pass *pass, const char *who)
{
    if (strncmp(who, "user:", 5) == 0)
        configure_principal(pass, "for", who + 5);
    else if (strncmp(who, "project:", 8) != 0)
        configure_refuse(pass, "for",
                         arena_printf(pass->arena, "'%.80s' is neither user:NAME nor project:NAME",
                                      who));
    else if (!project_find(pass->core, who + 8))
        configure_refuse(pass, "for",
                         arena_printf(pass->arena, "there is no project '%.80s'", who + 8));
}

static void interval_check(struct configure_pass *pass, const struct wanted *wanted)
{
    int64_t now = (int64_t)pass->core->wall_us;
    if (wanted->from_us <= 0 || wanted->until_us <= 0)
        configure_refuse(pass, "from", "a reservation needs from and until");
    else if (wanted->until_us <= wanted->from_us)
        configure_refuse(pass, "until", "it would end before it begins");
    else if (wanted->until_us <= now)
        configure_refuse(pass, "until", "that is past already");
    else if ((uint64_t)(wanted->until_us - wanted->from_us) > YEAR_US)
        configure_refuse(pass, "until", "it would last longer than 366 days");
}

static void wanted_read(struct configure_pass *pass, const struct reservation *present,
                        struct wanted *wanted)
{
    if (present)
        *wanted = (struct wanted){.from_us = (int64_t)present->from_at,
                                  .until_us = (int64_t)present->until_at,
                                  .stop = present->stop};
    configure_number(pass, "from", 1, INT64_MAX / 2, NULL, &wanted->from_us);
    configure_number(pass, "until", 1, INT64_MAX / 2, NULL, &wanted->until_us);
    configure_flag(pass, "stop", &wanted->stop);
    wanted->worker_count = values_of(pass, "worker", &wanted->workers);
    wanted->label_count = values_of(pass, "where", &wanted->labels);
    wanted->entitled_count = values_of(pass, "for", &wanted->entitled);
    wanted->reason = configure_value(pass, "reason");
    if (wanted->reason && strlen(wanted->reason) > TEXT_KEPT_MAX)
        configure_refuse(pass, "reason",
                         arena_printf(pass->arena, "has more than %u bytes", TEXT_KEPT_MAX));
    interval_check(pass, wanted);
    workers_check(pass, wanted);
    for (size_t i = 0; i < wanted->entitled_count; i++)
        entitled_check(pass, wanted->entitled[i]);
}

static bool texts_equal(char *const *a, size_t a_count, const char *const *b, size_t b_count)
{
    for (size_t i = 0; i < a_count && i < b_count; i++)
        if (strcmp(a[i], b[i]) != 0)
            return false;
    return a_count == b_count;
}

/* Lists that the request does not give stay as they are. */
static bool reservation_is(const struct reservation *r, const struct wanted *wanted)
{
    return r->from_at == (uint64_t)wanted->from_us && r->until_at == (uint64_t)wanted->until_us &&
           r->stop == wanted->stop &&
           (!wanted->worker_count ||
            texts_equal(r->workers, r->worker_count, wanted->workers, wanted->worker_count)) &&
           (!wanted->label_count ||
            texts_equal(r->labels, r->label_count, wanted->labels, wanted->label_count)) &&
           (!wanted->entitled_count || texts_equal(r->entitled, r->entitled_count, wanted->entitled,
                                                   wanted->entitled_count)) &&
           (!wanted->reason || strcmp(r->reason, wanted->reason) == 0);
}

static void reservation_apply(struct configure_pass *pass, struct reservation *r,
                              const struct wanted *wanted)
{
    r->from_at = (uint64_t)wanted->from_us;
    r->until_at = (uint64_t)wanted->until_us;
    r->stop = wanted->stop;
    if (wanted->worker_count)
        texts_copy(&r->workers, &r->worker_count, wanted->workers, wanted->worker_count);
    if (wanted->label_count)
        texts_copy(&r->labels, &r->label_count, wanted->labels, wanted->label_count);
    if (wanted->entitled_count)
        texts_copy(&r->entitled, &r->entitled_count, wanted->entitled, wanted->entitled_count);
    if (wanted->reason || !r->reason)
        text_set(&r->reason, wanted->reason ? wanted->reason : "");
    text_set(&r->account, pass->event->account);
}

static void reservation_remove(struct configure_pass *pass)
{
    struct reservation *reservation = reservation_find(pass->core, pass->request->name);
    if (!reservation)
        return; /* it is over, or was removed: what was asked for is so */
    pass->changed = true;
    reservation_end(pass->core, reservation);
    windows_look(pass->core);
}

void reservation_configure(struct configure_pass *pass)
{
    static const char *const known[] = {"from", "until", "worker", "where",
                                        "for",  "stop",  "reason", NULL};
    struct core *core = pass->core;
    const char *name = pass->request->name;
    struct reservation *present = reservation_find(core, name);
    struct wanted wanted = {0};
    configure_known(pass, known);
    if (!configure_name(pass, "name", name))
        return;
    if (strcmp(pass->request->action, "remove") == 0) {
        reservation_remove(pass);
        return;
    }
    bool adds = strcmp(pass->request->action, "add") == 0;
    wanted_read(pass, adds ? NULL : present, &wanted);
    if (!present && !adds)
        configure_refuse(pass, "name",
                         arena_printf(pass->arena, "there is no reservation '%s'", name));
    if (!present && core->reservations.count >= RESERVATIONS_MAX)
        configure_refuse(pass, "name",
                         arena_printf(pass->arena, "there are %u reservations, which is the limit",
                                      RESERVATIONS_MAX));
    if (pass->refusal_count || (present && reservation_is(present, &wanted)))
        return;
    if (present && adds) {
        configure_refuse(pass, "name",
                         arena_printf(pass->arena,
                                      "there is another reservation '%s': change it with "
                                      "set, or remove it",
                                      name));
        return;
    }
    if (present)
        workers_gain(core, present); /* what it covered may now be free */
    else
        present = reservation_add(core, name);
    reservation_apply(pass, present, &wanted);
    reservation_write(core, present, false);
    pass->changed = true;
    rights_changed(core);
    windows_look(core);
}

void core_load_reservation(struct core *core, const struct row_reservation *row)
{
    struct arena arena = {0};
    const char **texts;
    if (row->removed_at)
        return;
    struct reservation *r = reservation_add(core, row->name);
    r->from_at = row->from_at;
    r->until_at = row->until_at;
    size_t count = json_texts(row->workers, &arena, &texts);
    texts_copy(&r->workers, &r->worker_count, texts, count);
    count = json_texts(row->worker_constraint, &arena, &texts);
    texts_copy(&r->labels, &r->label_count, texts, count);
    count = json_texts(row->entitled, &arena, &texts);
    texts_copy(&r->entitled, &r->entitled_count, texts, count);
    r->stop = row->stop;
    text_set(&r->reason, row->reason);
    text_set(&r->account, row->account);
    arena_done(&arena);
}

void reservations_dump(const struct core *core, struct buf *out)
{
    struct arena arena = {0};
    for (size_t i = 0; i < core->reservations.count; i++) {
        const struct reservation *r = core->reservations.items[i];
        buf_printf(out,
                   "reservation %s %llu..%llu workers=%s labels=%s for=%s stop=%d by %s '%s'\n",
                   r->name, (unsigned long long)r->from_at, (unsigned long long)r->until_at,
                   texts_json(r->workers, r->worker_count, &arena),
                   texts_json(r->labels, r->label_count, &arena),
                   texts_json(r->entitled, r->entitled_count, &arena), r->stop, r->account,
                   r->reason);
    }
    arena_done(&arena);
}
