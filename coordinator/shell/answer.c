/* answer.c - questions: bound here, read by the reader, sent when it has the rows. They state only
 * what is durable, so they do not wait for a batch. `why` combines a row with the core's reasons.
 */
#include "coordinator/shell/shell.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <string.h>

#define ASKED_PER_PEER_MAX 64u

struct asked {
    struct asked *next;
    uint64_t ticket, peer, request_seq;
    bool why;
};

static unsigned asked_by(const struct shell *shell, uint64_t peer)
{
    unsigned count = 0;

    for (const struct asked *asked = shell->asked; asked; asked = asked->next)
        count += asked->peer == peer;
    return count;
}

void answer_query(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                  const struct msg_query *query)
{
    struct err err;
    uint64_t ticket = ++shell->last_ticket;

    if (asked_by(shell, from->peer_id) >= ASKED_PER_PEER_MAX) {
        err_set(&err, ERR_LIMIT, "%u questions of yours are under way already", ASKED_PER_PEER_MAX);
        shell_refuse(shell, from->peer_id, request_seq, &err);
        return;
    }
    if (reader_query(shell->reader, ticket, query, from->role, &err) < 0) {
        shell_refuse(shell, from->peer_id, request_seq, &err);
        return;
    }
    struct asked *asked = mem_zalloc(sizeof *asked);
    *asked = (struct asked){shell->asked, ticket, from->peer_id, request_seq,
                            strcmp(query->name, "why") == 0};
    shell->asked = asked;
}

/* ---- why ------------------------------------------------------------------------------------ */

#define WHY_COLUMNS 6u

static const struct rec_column why_columns[WHY_COLUMNS] = {{"job_id", "int"},  {"name", "text"},
                                                           {"state", "text"},  {"reason", "text"},
                                                           {"detail", "text"}, {"remedy", "text"}};

static void why_row(struct msg_table *out, const struct msg_table *job, const char *reason,
                    const char *detail, const char *remedy)
{
    struct rec_cell *cells = out->cells + out->cells_count;

    for (size_t i = 0; i < 3; i++)
        cells[i] = job->cells[i];
    cells[3].text = reason;
    cells[4].text = detail;
    cells[5].text = remedy;
    out->cells_count += WHY_COLUMNS;
}

static void why_table(const struct shell *shell, const struct msg_table *job, struct arena *arena,
                      struct msg_table *out)
{
    struct core_reason *reasons = NULL;
    struct err err;
    uint64_t job_id;

    out->columns = arena_alloc(arena, sizeof why_columns);
    memcpy(out->columns, why_columns, sizeof why_columns);
    out->columns_count = WHY_COLUMNS;
    out->next = "";
    if (job->cells_count == 0 || parse_u64(job->cells[0].text, &job_id, &err) < 0)
        return; /* no such job: no rows */
    int count = core_why(shell->core, job_id, arena, &reasons);
    size_t rows = count > 0 ? (size_t)count : 1;
    out->cells = arena_alloc(arena, rows * WHY_COLUMNS * sizeof *out->cells);
    for (int i = 0; i < count; i++)
        why_row(out, job, reasons[i].reason, reasons[i].detail, reasons[i].remedy);
    if (count == 0)
        why_row(out, job, "placed", "it has a worker", "");
    if (count < 0)
        why_row(out, job, "ended", *job->cells[4].text ? job->cells[4].text : job->cells[3].text,
                strcmp(job->cells[2].text, "SUCCEEDED") == 0 ? "" : "athanor retry opens it again");
}

/* ---- sending -------------------------------------------------------------------------------- */

static struct asked *asked_take(struct shell *shell, uint64_t ticket)
{
    for (struct asked **at = &shell->asked; *at; at = &(*at)->next)
        if ((*at)->ticket == ticket) {
            struct asked *asked = *at;
            *at = asked->next;
            return asked;
        }
    return NULL;
}

void answer_table(struct shell *shell, uint64_t ticket, const struct msg_table *table,
                  const struct err *err)
{
    struct asked *asked = asked_take(shell, ticket);
    struct arena arena = {0};

    CHECK(asked != NULL);
    if (!table) {
        shell_refuse(shell, asked->peer, asked->request_seq, err);
    } else {
        struct message answer = {.tag = MSG_TABLE, .u.table = *table};
        if (asked->why) {
            answer.u.table = (struct msg_table){0};
            why_table(shell, table, &arena, &answer.u.table);
        }
        answer.u.table.request_seq = asked->request_seq;
        outbox_answer(shell->server, asked->peer, asked->request_seq, &answer);
    }
    arena_done(&arena);
    mem_free(asked);
}

void answer_free(struct shell *shell)
{
    while (shell->asked) {
        struct asked *asked = shell->asked;
        shell->asked = asked->next;
        mem_free(asked);
    }
}
