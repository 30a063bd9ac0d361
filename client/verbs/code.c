/* code.c - athanor code: what a snapshot of a folder would hold. */
#include "client/client.h"
#include "client/verbs.h"
#include "common/base/parse.h"
#include "common/snapshot/snapshot.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct option options[] = {OPTION_JSON};

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

/* The files of an archive, and its hash. */
static int print_archive(struct client *client, int fd)
{
    static const struct heading headings[] = {
        {"path", NULL}, {"size_bytes", "SIZE"}, {"executable", "RUNS"}, {"link", "LINK TO"}};
    struct listing listing = {.client = client};
    struct chunks *chunks = arena_alloc(&client->arena, sizeof *chunks);
    char hex[HASH_HEX_SIZE];
    struct err err;
    if (chunks_of_file(fd, chunks, &err) < 0 ||
        snapshot_list(fd, list_one, &listing, &err) < 0)
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

static int list_folder(struct client *client, const char *folder)
{
    struct snapshot_counts counts;
    struct err err;
    int fd = memfd_create("athanor-code", MFD_CLOEXEC);
    if (fd < 0) {
        err_errno(&err, "keep an archive in memory");
        return client_fail(client, EXIT_LOCAL, &err);
    }
    int code = snapshot_pack(folder, fd, &counts, &err) < 0
                   ? client_fail(client, EXIT_USAGE, &err)
                   : print_archive(client, fd);
    close(fd);
    return code;
}

static int run(struct client *client, const struct args *args)
{
    const char *action = args->words[0];
    if (strcmp(action, "list") == 0 && args->word_count == 2)
        return list_folder(client, args->words[1]);
    return client_failf(client, EXIT_USAGE, "expected: athanor code list DIR");
}

const struct verb verb_code = {
    .name = "code",
    .words = "list DIR",
    .summary = "what a snapshot of a folder holds",
    .text = "`list DIR` prints what a snapshot of the folder would hold: its files without .git "
            "and what .gitignore names, and the hash of the archive.",
    .choices = "list",
    .word_kind = WORD_FILE,
    .words_min = 2,
    .words_max = 2,
    VERB_OPTIONS(options),
    .run = run,
};
