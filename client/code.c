/* code.c - see code.h. */
#include "client/code.h"

#include "client/render/bar.h"
#include "common/base/file.h"
#include "common/base/parse.h"
#include "common/spec/spec.h"

#include <jansson.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BAR_COLUMNS 30u

static int memory_file(struct client *client, int *out_fd)
{
    struct err err;
    int fd = memfd_create("athanor-code", MFD_CLOEXEC);
    if (fd < 0) {
        err_errno(&err, "keep an archive in memory");
        return client_fail(client, EXIT_LOCAL, &err);
    }
    *out_fd = fd;
    return EXIT_DONE;
}

int code_pack(struct client *client, const char *folder, int *out_fd)
{
    struct snapshot_counts counts;
    struct err err;
    int fd = -1, code = memory_file(client, &fd);
    if (code != EXIT_DONE)
        return code;
    if (snapshot_pack(folder, fd, &counts, &err) < 0) {
        close(fd);
        return client_fail(client, EXIT_USAGE, &err);
    }
    *out_fd = fd;
    return EXIT_DONE;
}

/* ---- sending ------------------------------------------------------------------------------ */

/* Over itself, on a terminal alone; a transfer that is done leaves no trace. */
static void progress_show(const char *what, const char *folder, uint64_t done, uint64_t total)
{
    struct buf out = {0};
    char have[PARSE_TEXT_SIZE], all[PARSE_TEXT_SIZE];
    if (!isatty(STDERR_FILENO))
        return;
    buf_puts(&out, "\r");
    if (done < total) {
        bar_add(&out, done, total, BAR_COLUMNS);
        buf_printf(&out, " %s of %s, %s ", format_size_short(done, have),
                   format_size_short(total, all), what);
        text_add_output(&out, folder, strnlen(folder, 40));
    }
    buf_puts(&out, "\x1b[K");
    fwrite(out.bytes, 1, out.length, stderr);
    fflush(stderr);
    buf_done(&out);
}

static int chunk_send(struct client *client, int fd, const struct chunks *chunks, char *room,
                      uint64_t *stored)
{
    struct message request = {.tag = MSG_CODE_PUT}, reply;
    size_t length;
    struct err err;
    if (chunk_read(fd, (size_t)*stored, room, &length, &err) < 0)
        return client_fail(client, EXIT_LOCAL, &err);
    request.u.code_put = (struct msg_code_put){
        .content = chunks->whole, .chunk = *stored, .data = {room, length}};
    int code = client_ask(client, &request, MSG_CODE_STATE, &reply);
    if (code == EXIT_DONE && reply.u.code_state.stored <= *stored)
        return client_failf(client, EXIT_REFUSED,
                            "the coordinator did not store chunk %llu of the code",
                            (unsigned long long)*stored);
    if (code == EXIT_DONE)
        *stored = reply.u.code_state.stored;
    return code;
}

/* Goes on from what is stored, also after a broken connection or under another leader. */
static int archive_send(struct client *client, const char *folder, int fd,
                        const struct chunks *chunks)
{
    struct message request = {.tag = MSG_CODE_OFFER}, reply;
    char *room = arena_alloc(&client->arena, CHUNK_BYTES);
    request.u.code_offer = (struct msg_code_offer){
        .content = chunks->whole,
        .size_bytes = chunks->size_bytes,
        .chunks = {(const char *)chunks->each, chunks->count * sizeof chunks->each[0]}};
    int code = client_ask(client, &request, MSG_CODE_STATE, &reply);
    uint64_t stored = code == EXIT_DONE ? reply.u.code_state.stored : 0;
    while (code == EXIT_DONE && stored < chunks->count) {
        progress_show("sending", folder, stored * CHUNK_BYTES, chunks->size_bytes);
        code = chunk_send(client, fd, chunks, room, &stored);
    }
    progress_show("sending", folder, 1, 1);
    return code;
}

static int folder_attach(struct client *client, const char *folder, bool send,
                         struct rec_snapshot *out)
{
    struct chunks *chunks = arena_alloc(&client->arena, sizeof *chunks);
    struct err err;
    int fd = -1, code = code_pack(client, folder, &fd);
    if (code != EXIT_DONE)
        return code;
    if (chunks_of_file(fd, chunks, &err) < 0)
        code = client_fail(client, EXIT_LOCAL, &err);
    else if (send)
        code = archive_send(client, folder, fd, chunks);
    close(fd);
    *out = (struct rec_snapshot){.folder = folder, .content = chunks->whole};
    return code;
}

int code_attach(struct client *client, struct message *message, bool send)
{
    struct msg_submit *submit = &message->u.submit;
    struct spec_set *sets = arena_alloc(&client->arena, (submit->sets_count + 1) * sizeof *sets);
    const char *const *folders;
    for (size_t i = 0; i < submit->sets_count; i++)
        sets[i] = (struct spec_set){submit->sets[i].name, submit->sets[i].value};
    struct spec_source source = {.name = submit->file,
                                 .bytes = submit->yaml.bytes,
                                 .length = submit->yaml.length,
                                 .folder = submit->folder[0] ? submit->folder : NULL,
                                 .sets = sets,
                                 .set_count = submit->sets_count};
    size_t count = spec_folders(&source, &client->arena, &folders);
    int code = EXIT_DONE;
    submit->snapshots = arena_alloc(&client->arena, (count + 1) * sizeof *submit->snapshots);
    for (size_t i = 0; i < count && code == EXIT_DONE; i++)
        code = folder_attach(client, folders[i], send, &submit->snapshots[i]);
    submit->snapshots_count = count;
    return code;
}

/* ---- and back ----------------------------------------------------------------------------- */

int code_of_job(struct client *client, const char *job, const char **out_hex)
{
    struct pairs pairs = {0};
    struct msg_table table;
    const char *id = NULL;
    int code = client_job_id(client, job, &id);
    if (code != EXIT_DONE)
        return code;
    pairs_add(&pairs, "job", id);
    code = client_query(client, "job", &pairs, 1, &table);
    pairs_done(&pairs);
    if (code == EXIT_DONE && table_rows(&table) == 0)
        return client_failf(client, EXIT_REFUSED, "there is no job '%s'", job);
    if (code != EXIT_DONE)
        return code;
    json_t *spec = json_loads(table_text(&table, 0, "spec"), 0, NULL);
    const char *hex = json_string_value(json_object_get(json_object_get(spec, "code"), "hash"));
    if (hex)
        *out_hex = arena_strdup(&client->arena, hex);
    else
        code = client_failf(client, EXIT_REFUSED,
                            "job '%s' was submitted without code: expected code: {snapshot: DIR} "
                            "in its spec",
                            job);
    json_decref(spec);
    return code;
}

/* Whether the answer is that chunk of that archive. */
static bool chunk_is_sound(const struct msg_code_chunk *chunk, const struct hash *wanted,
                           uint64_t index)
{
    struct hash whole, found, each[CHUNKS_MAX];
    size_t count = chunks_count(chunk->size_bytes);
    if (count == 0 || index >= count || chunk->chunks.length != count * sizeof *each)
        return false;
    memcpy(each, chunk->chunks.bytes, chunk->chunks.length);
    chunks_hash(chunk->size_bytes, each, count, &whole);
    hash_bytes(chunk->data.bytes, chunk->data.length, &found);
    return hash_equal(&whole, wanted) && hash_equal(&found, &each[index]) &&
           chunk->data.length == chunk_bytes(chunk->size_bytes, (size_t)index);
}

static int archive_fetch(struct client *client, const struct hash *content, const char *hex, int fd)
{
    uint64_t count = 1;
    struct err err;
    int code = EXIT_DONE;
    for (uint64_t i = 0; i < count && code == EXIT_DONE; i++) {
        struct message request = {.tag = MSG_CODE_GET}, reply;
        request.u.code_get = (struct msg_code_get){.content = *content, .chunk = i};
        code = client_ask(client, &request, MSG_CODE_CHUNK, &reply);
        const struct msg_code_chunk *chunk = &reply.u.code_chunk;
        if (code == EXIT_DONE && !chunk_is_sound(chunk, content, i))
            code = client_failf(client, EXIT_REFUSED,
                                "chunk %llu of the code %.12s is damaged: its hash is another",
                                (unsigned long long)i, hex);
        else if (code == EXIT_DONE &&
                 file_write_all(fd, chunk->data.bytes, chunk->data.length, &err) < 0)
            code = client_fail(client, EXIT_LOCAL, &err);
        else if (code == EXIT_DONE) {
            count = chunks_count(chunk->size_bytes);
            progress_show("fetching", hex, (i + 1) * CHUNK_BYTES, chunk->size_bytes);
        }
    }
    progress_show("fetching", hex, 1, 1);
    return code;
}

int code_fetch(struct client *client, const char *hex, int *out_fd)
{
    struct hash content;
    struct err err;
    if (hash_from_hex(hex, &content, &err) < 0)
        return client_fail(client, EXIT_REFUSED, &err);
    int fd = -1, code = memory_file(client, &fd);
    if (code != EXIT_DONE)
        return code;
    code = archive_fetch(client, &content, hex, fd);
    if (code == EXIT_DONE)
        *out_fd = fd;
    else
        close(fd);
    return code;
}

/* ---- showing ------------------------------------------------------------------------------ */

struct listing {
    struct client *client;
    struct rec_cell *cells;
    size_t count, capacity;
};

#define LIST_COLUMNS 4u
static struct rec_column columns[LIST_COLUMNS] = {
    {"path", "text"}, {"size_bytes", "int"}, {"executable", "bool"}, {"link", "text"}};

static int list_one(void *user, const struct snapshot_file *file, struct err *err)
{
    struct listing *listing = user;
    struct arena *arena = &listing->client->arena;
    (void)err;
    if (listing->count + LIST_COLUMNS > listing->capacity) {
        size_t capacity = listing->capacity ? 2 * listing->capacity : 64 * LIST_COLUMNS;
        struct rec_cell *cells = arena_alloc(arena, capacity * sizeof *cells);
        if (listing->count)
            memcpy(cells, listing->cells, listing->count * sizeof *cells);
        listing->cells = cells;
        listing->capacity = capacity;
    }
    struct rec_cell *row = &listing->cells[listing->count];
    row[0] = (struct rec_cell){.text = arena_strdup(arena, file->path)};
    row[1] = (struct rec_cell){
        .text = arena_printf(arena, "%llu", (unsigned long long)file->size_bytes)};
    row[2] = (struct rec_cell){.text = file->executable ? "true" : "false"};
    row[3] = (struct rec_cell){.is_null = !file->link,
                               .text = file->link ? arena_strdup(arena, file->link) : ""};
    listing->count += LIST_COLUMNS;
    return 0;
}

int code_print(struct client *client, int fd)
{
    static const struct heading headings[] = {
        {"path", NULL}, {"size_bytes", "SIZE"}, {"executable", "RUNS"}, {"link", "LINK TO"}};
    struct listing listing = {.client = client};
    struct chunks *chunks = arena_alloc(&client->arena, sizeof *chunks);
    char hex[HASH_HEX_SIZE];
    struct err err;
    if (chunks_of_file(fd, chunks, &err) < 0 || snapshot_list(fd, list_one, &listing, &err) < 0)
        return client_fail(client, EXIT_LOCAL, &err);
    struct msg_table table = {.columns = columns,
                              .columns_count = LIST_COLUMNS,
                              .cells = listing.cells,
                              .cells_count = listing.count,
                              .next = ""};
    int code = client_table(client, &table, headings, ARRAY_COUNT(headings), "no files");
    if (code != EXIT_DONE || !client_for_people(client))
        return code;
    struct buf out = {0};
    hash_to_hex(&chunks->whole, hex);
    buf_printf(&out, "\n%zu files, %llu bytes packed, hash %s\n", listing.count / LIST_COLUMNS,
               (unsigned long long)chunks->size_bytes, hex);
    code = client_print(client, &out);
    buf_done(&out);
    return code;
}
