/* answer.c - questions: bound here, read by the reader, sent when it has the rows. They state only
 * what is durable, so they do not wait for a batch. `why` combines a row with the core's reasons.
 */
#include "coordinator/shell/shell.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define ASKED_PER_PEER_MAX 64u

struct asked {
    struct asked *next;
    uint64_t ticket, peer, request_seq;
    bool why, code;
    struct msg_code_get get; /* of code */
    struct core_changes changes; /* of why --what-if; queue is owned */
};

static void asked_free(struct asked *asked)
{
    mem_free((char *)asked->changes.queue);
    mem_free(asked);
}

/* ---- what if -------------------------------------------------------------------------------- */

static int change_number(const char *text, uint64_t most, uint64_t *out, struct err *err)
{
    if (parse_u64(text, out, err) < 0)
        return -1;
    return *out <= most
               ? 0
               : err_set(err, ERR_INVALID, "expected at most %llu", (unsigned long long)most);
}

/* Takes one "NAME=VALUE". */
static int change_take(char *pair, struct core_changes *out, struct err *err)
{
    const struct {
        const char *name;
        unsigned bit;
        uint64_t *field, most;
    } counts[] = {{"cores", CORE_CHANGE_CORES, &out->cores, 65536},
                  {"gpus", CORE_CHANGE_GPUS, &out->gpus, 65536},
                  {"ranks", CORE_CHANGE_RANKS, &out->ranks, 65536},
                  {"nodes", CORE_CHANGE_NODES, &out->nodes, 65536}};
    char *value = strchr(pair, '=');

    if (!value)
        return err_set(err, ERR_INVALID, "'%.60s', expected NAME=VALUE", pair);
    *value++ = '\0';
    for (size_t i = 0; i < ARRAY_COUNT(counts); i++)
        if (strcmp(pair, counts[i].name) == 0) {
            out->given |= counts[i].bit;
            return change_number(value, counts[i].most, counts[i].field, err);
        }
    if (strcmp(pair, "memory") == 0) {
        out->given |= CORE_CHANGE_MEMORY;
        return parse_size_bytes(value, &out->memory_bytes, err);
    }
    if (strcmp(pair, "wall_time") == 0) {
        out->given |= CORE_CHANGE_WALL_TIME;
        return parse_duration_ms(value, &out->wall_time_ms, err);
    }
    if (strcmp(pair, "queue") != 0)
        return err_set(err, ERR_INVALID,
                       "'%.60s', expected cores, gpus, memory, ranks, nodes, wall_time or queue",
                       pair);
    mem_free((char *)out->queue);
    out->queue = mem_strdup(value);
    return 0;
}

static int changes_read(const struct msg_query *query, struct core_changes *out, struct err *err)
{
    const char *given = NULL;
    int rc = 0;

    for (size_t i = 0; i < query->arguments_count; i++)
        if (strcmp(query->arguments[i].name, "what_if") == 0)
            given = query->arguments[i].value;
    if (!given)
        return 0;
    char *copy = mem_strdup(given), *rest = copy;
    for (char *pair; rc == 0 && (pair = strsep(&rest, ","));)
        rc = change_take(pair, out, err) < 0 ? err_wrap(err, "what_if") : 0;
    if (rc == 0 && ((out->given & CORE_CHANGE_RANKS && out->ranks == 0) ||
                    (out->given & CORE_CHANGE_NODES && out->nodes == 0)))
        rc = err_set(err, ERR_INVALID, "what_if: ranks and nodes are at least 1");
    mem_free(copy);
    return rc;
}

static unsigned asked_by(const struct shell *shell, uint64_t peer)
{
    unsigned count = 0;

    for (const struct asked *asked = shell->asked; asked; asked = asked->next)
        count += asked->peer == peer;
    return count;
}

/* Takes note of a question, or refuses it. Takes asked. */
static void ask(struct shell *shell, const struct server_source *from, struct asked *asked,
                const struct msg_query *query)
{
    struct err err;

    asked->ticket = ++shell->last_ticket;
    asked->peer = from->peer_id;
    if (asked_by(shell, from->peer_id) >= ASKED_PER_PEER_MAX)
        err_set(&err, ERR_LIMIT, "%u questions of yours are under way already", ASKED_PER_PEER_MAX);
    else if ((!asked->why || changes_read(query, &asked->changes, &err) == 0) &&
             reader_query(shell->reader, asked->ticket, query, from->role, &err) == 0) {
        asked->next = shell->asked;
        shell->asked = asked;
        return;
    }
    shell_refuse(shell, from->peer_id, asked->request_seq, &err);
    asked_free(asked);
}

void answer_query(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                  const struct msg_query *query)
{
    struct asked *asked = mem_zalloc(sizeof *asked);

    asked->request_seq = request_seq;
    asked->why = strcmp(query->name, "why") == 0;
    ask(shell, from, asked, query);
}

void answer_code(struct shell *shell, const struct server_source *from, uint64_t request_seq,
                 const struct msg_code_get *get)
{
    struct asked *asked = mem_zalloc(sizeof *asked);
    char hex[HASH_HEX_SIZE], chunk[24];

    asked->request_seq = request_seq;
    asked->code = true;
    asked->get = *get;
    hash_to_hex(&get->content, hex);
    snprintf(chunk, sizeof chunk, "%llu", (unsigned long long)min_u64(get->chunk, INT32_MAX));
    struct rec_name_value arguments[] = {{"hash", hex}, {"chunk", chunk}};
    ask(shell, from, asked,
        &(struct msg_query){.name = "snapshot_chunk",
                            .arguments = arguments,
                            .arguments_count = ARRAY_COUNT(arguments),
                            .after = ""});
}

/* ---- why ------------------------------------------------------------------------------------ */

#define WHY_COLUMNS 8u

static const struct rec_column why_columns[WHY_COLUMNS] = {
    {"job_id", "int"},  {"name", "text"},   {"state", "text"},     {"reason", "text"},
    {"detail", "text"}, {"remedy", "text"}, {"starts_at", "time"}, {"starts", "text"}};

/* When the job would start; the same in every row. */
struct start_cells {
    struct rec_cell at, text;
};

static struct start_cells start_cells(const struct core_outlook *outlook, struct arena *arena)
{
    struct start_cells cells = {.at = {.is_null = true, .text = ""}};
    uint64_t at_s = clock_wall_us() / 1000000 + outlook->in_ms / 1000;
    time_t seconds = (time_t)at_s;
    struct tm parts;
    char text[40];

    cells.text.text =
        outlook->ready ? outlook->text : arena_printf(arena, "if it were ready: %s", outlook->text);
    if ((outlook->when != CORE_STARTS_NOW && outlook->when != CORE_STARTS_BY) || !outlook->ready)
        return cells;
    if (gmtime_r(&seconds, &parts) && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S+00", &parts))
        cells.at = (struct rec_cell){.text = arena_strdup(arena, text)};
    return cells;
}

static void why_row(struct msg_table *out, const struct msg_table *job,
                    const struct core_reason *reason, const struct start_cells *start)
{
    struct rec_cell *cells = out->cells + out->cells_count;

    for (size_t i = 0; i < 3; i++)
        cells[i] = job->cells[i];
    cells[3].text = reason->reason;
    cells[4].text = reason->detail;
    cells[5].text = reason->remedy;
    cells[6] = start->at;
    cells[7] = start->text;
    out->cells_count += WHY_COLUMNS;
}

static const struct start_cells no_start = {{.is_null = true, .text = ""},
                                            {.is_null = true, .text = ""}};

/* Of a job that has a worker, or has ended. */
static void settled_table(const struct shell *shell, const struct msg_table *job, uint64_t job_id,
                          struct arena *arena, struct msg_table *out)
{
    struct core_reason *reasons = NULL;
    const char *cause = job->cells[3].text, *detail = job->cells[4].text;
    bool succeeded = strcmp(job->cells[2].text, "SUCCEEDED") == 0;
    const char *state = job->cells[2].text;
    const struct core_reason placed = {"placed",
                                       strcmp(state, "STOPPING") == 0 ? "it is being stopped"
                                       : strcmp(state, "RUNNING") == 0
                                           ? "it runs"
                                           : "it has its workers, its ranks are being started",
                                       ""};
    const struct core_reason ended = {"ended",
                                      *detail  ? detail
                                      : *cause ? cause
                                               : "it has just ended",
                                      succeeded ? "" : "athanor retry opens it again"};
    int count = core_why(shell->core, job_id, arena, &reasons);

    out->cells =
        arena_alloc(arena, (count > 0 ? (size_t)count : 1) * WHY_COLUMNS * sizeof *out->cells);
    for (int i = 0; i < count; i++)
        why_row(out, job, &reasons[i], &no_start);
    if (count <= 0)
        why_row(out, job, count == 0 ? &placed : &ended, &no_start);
}

static int why_table(const struct shell *shell, const struct asked *asked,
                     const struct msg_table *job, struct arena *arena, struct msg_table *out,
                     struct err *err)
{
    struct core_outlook outlook;
    bool changed = asked->changes.given || asked->changes.queue;
    uint64_t job_id;

    out->columns = arena_alloc(arena, sizeof why_columns);
    memcpy(out->columns, why_columns, sizeof why_columns);
    out->columns_count = WHY_COLUMNS;
    out->next = "";
    if (job->cells_count == 0 || parse_u64(job->cells[0].text, &job_id, err) < 0)
        return 0; /* no such job: no rows */
    if (!changed && !core_waits(shell->core, job_id)) {
        settled_table(shell, job, job_id, arena, out);
        return 0;
    }
    if (core_outlook(shell->core, job_id, &asked->changes, arena, &outlook, err) < 0)
        return -1;
    struct start_cells start = start_cells(&outlook, arena);
    out->cells = arena_alloc(arena, outlook.reason_count * WHY_COLUMNS * sizeof *out->cells);
    for (size_t i = 0; i < outlook.reason_count; i++)
        why_row(out, job, &outlook.reasons[i], &start);
    return 0;
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

static int bytes_of_cell(const struct rec_cell *cell, struct arena *arena, struct wire_bytes *out,
                         struct err *err)
{
    size_t length = strlen(cell->text) / 2;
    unsigned char *bytes = arena_alloc(arena, length + 1);

    if (sodium_hex2bin(bytes, length, cell->text, 2 * length, NULL, &out->length, NULL) < 0)
        return err_set(err, ERR_PROTOCOL, "a chunk of code is not in hexadecimal");
    out->bytes = (const char *)bytes;
    return 0;
}

static int code_chunk(const struct asked *asked, const struct msg_table *table, struct arena *arena,
                      struct msg_code_chunk *out, struct err *err)
{
    *out = (struct msg_code_chunk){.request_seq = asked->request_seq,
                                   .content = asked->get.content,
                                   .chunk = asked->get.chunk};
    if (table->cells_count == 0)
        return err_set(err, ERR_NOT_FOUND,
                       "chunk %llu of this code is not stored: retention may have removed it",
                       (unsigned long long)asked->get.chunk);
    return parse_u64(table->cells[0].text, &out->size_bytes, err) < 0 ||
                   bytes_of_cell(&table->cells[1], arena, &out->chunks, err) < 0 ||
                   bytes_of_cell(&table->cells[2], arena, &out->data, err) < 0
               ? -1
               : 0;
}

/* The rows as the answer that was asked for. */
static int answer_make(const struct shell *shell, const struct asked *asked,
                       const struct msg_table *table, struct arena *arena, struct message *out,
                       struct err *err)
{
    *out = (struct message){.tag = asked->code ? MSG_CODE_CHUNK : MSG_TABLE};
    if (asked->code)
        return code_chunk(asked, table, arena, &out->u.code_chunk, err);
    if (asked->why && why_table(shell, asked, table, arena, &out->u.table, err) < 0)
        return -1;
    if (!asked->why)
        out->u.table = *table;
    out->u.table.request_seq = asked->request_seq;
    return 0;
}

void answer_table(struct shell *shell, uint64_t ticket, const struct msg_table *table,
                  const struct err *err)
{
    struct asked *asked = asked_take(shell, ticket);
    struct arena arena = {0};
    struct message answer;
    struct err why;

    CHECK(asked != NULL);
    if (!table)
        shell_refuse(shell, asked->peer, asked->request_seq, err);
    else if (answer_make(shell, asked, table, &arena, &answer, &why) < 0)
        shell_refuse(shell, asked->peer, asked->request_seq, &why);
    else
        outbox_answer(shell->server, asked->peer, asked->request_seq, &answer);
    arena_done(&arena);
    asked_free(asked);
}

void answer_free(struct shell *shell)
{
    while (shell->asked) {
        struct asked *asked = shell->asked;
        shell->asked = asked->next;
        asked_free(asked);
    }
}
