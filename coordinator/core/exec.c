/* exec.c - who may be in which job, and where that is. Nothing of it is kept but the line of
 * history: the program lives on the worker, its bytes go through the shell. */
#include "coordinator/core/state.h"

#include <string.h>

#define COMMAND_SHOWN 200u

static int request_check(const struct msg_exec *exec, struct err *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < exec->arguments_count; i++)
        bytes += strlen(exec->arguments[i].text) + 1;
    if (exec->arguments_count == 0 || !exec->arguments[0].text[0])
        return err_set(err, ERR_INVALID, "no program is named");
    if (exec->arguments_count > EXEC_ARGUMENTS_MAX || bytes > EXEC_ARGUMENT_BYTES_MAX)
        return err_set(err, ERR_LIMIT, "%zu arguments of %zu bytes, expected at most %u of %u",
                       exec->arguments_count, bytes, EXEC_ARGUMENTS_MAX, EXEC_ARGUMENT_BYTES_MAX);
    return 0;
}

static const struct part *part_of_rank(const struct attempt *attempt, uint64_t rank)
{
    for (size_t i = 0; i < attempt->part_count; i++) {
        const struct part *part = &attempt->parts[i];
        if (rank >= part->first_rank && rank - part->first_rank < part->ranks)
            return part;
    }
    return NULL;
}

int core_exec_find(const struct core *core, const struct event_exec *event,
                   struct core_exec_place *out, struct err *err)
{
    const struct msg_exec *exec = event->exec;
    const struct job *job = job_find(core, exec->job_id);
    unsigned long long id = (unsigned long long)exec->job_id;
    if (request_check(exec, err) < 0)
        return -1;
    if (!job || job_state_is_terminal(job->state))
        return err_set(err, ERR_NOT_FOUND, "job %llu does not run: it has ended, or never was", id);
    if (!job->attempt || !job->attempt->started_at)
        return err_set(err, ERR_NOT_FOUND, "job %llu does not run yet: it is %s, see athanor why",
                       id, job_state_name(job->state));
    if (!event->is_admin && strcmp(event->account, job->account) != 0)
        return err_set(err, ERR_DENIED,
                       "job %llu belongs to %s: only its account and administrators may be in it",
                       id, job->account);
    const struct part *part = part_of_rank(job->attempt, exec->rank);
    if (!part)
        return err_set(err, ERR_NOT_FOUND, "job %llu has ranks 0 to %u, not %llu", id,
                       job->ranks - 1, (unsigned long long)exec->rank);
    if (part->ended || !worker_is_reachable(part->worker))
        return err_set(err, ERR_CLOSED, "rank %llu of job %llu: %s %s",
                       (unsigned long long)exec->rank, id, part->worker->name,
                       part->ended ? "has ended its part" : "cannot be reached now");
    *out = (struct core_exec_place){.attempt_id = job->attempt->attempt_id,
                                    .worker_peer = part->worker->peer,
                                    .worker = part->worker->name};
    return 0;
}

bool core_exec_lives(const struct core *core, uint64_t attempt_id, uint64_t worker_peer)
{
    const struct attempt *attempt = attempt_find(core, attempt_id);
    for (size_t i = 0; attempt && i < attempt->part_count; i++) {
        const struct part *part = &attempt->parts[i];
        if (!part->ended && part->worker->peer == worker_peer && worker_is_reachable(part->worker))
            return true;
    }
    return false;
}

static struct rec_word *words_copy(struct core *core, const struct msg_exec *exec)
{
    struct rec_word *words =
        arena_alloc(step_arena(core), (exec->arguments_count + 1) * sizeof *words);
    for (size_t i = 0; i < exec->arguments_count; i++)
        words[i].text = arena_strdup(step_arena(core), exec->arguments[i].text);
    return words;
}

/* "rank 0: ps aux", for the history. */
static const char *command_text(struct core *core, const struct msg_exec *exec)
{
    struct arena *arena = step_arena(core);
    const char *text = arena_printf(arena, "rank %llu%s:", (unsigned long long)exec->rank,
                                    exec->terminal ? ", terminal" : "");
    for (size_t i = 0; i < exec->arguments_count && strlen(text) < COMMAND_SHOWN; i++)
        text = arena_printf(arena, "%s %.*s", text, (int)COMMAND_SHOWN, exec->arguments[i].text);
    return report_text(core, text, min_u64(strlen(text), COMMAND_SHOWN));
}

/* The line of history is durable before the program is started. */
void exec_on_exec(struct core *core, const struct event_exec *event)
{
    const struct msg_exec *exec = event->exec;
    struct core_exec_place place;
    struct err err;
    if (core_exec_find(core, event, &place, &err) < 0) {
        answer_refused(core, ADDRESS_CLIENT, event->client, event->request_seq, err.kind, err.text,
                       NULL, 0);
        return;
    }
    const struct job *job = job_find(core, exec->job_id);
    const struct part *part = part_of_rank(job->attempt, exec->rank);
    history_add(core, "exec", job->job_id, place.attempt_id, part->worker->worker_id,
                event->account, command_text(core, exec));
    struct rec_word *words = words_copy(core, exec);
    struct msg_exec_start *start =
        &effects_release(core->effects, ADDRESS_WORKER, place.worker_peer, MSG_EXEC_START)
             ->u.exec_start;
    *start = (struct msg_exec_start){.exec_id = event->exec_id,
                                     .attempt_id = place.attempt_id,
                                     .rank = exec->rank,
                                     .arguments = words,
                                     .arguments_count = exec->arguments_count,
                                     .terminal = exec->terminal,
                                     .rows = exec->rows,
                                     .columns = exec->columns,
                                     .term = arena_strdup(step_arena(core), exec->term)};
    struct msg_exec_opened *opened =
        &effects_release(core->effects, ADDRESS_CLIENT, event->client, MSG_EXEC_OPENED)
             ->u.exec_opened;
    *opened = (struct msg_exec_opened){.request_seq = event->request_seq,
                                       .exec_id = event->exec_id,
                                       .worker = arena_strdup(step_arena(core), place.worker)};
}
