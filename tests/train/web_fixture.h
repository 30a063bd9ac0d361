/* web_fixture.h - what the tests of data/dolma and data/yi share: lines of documents, the cards and
 * blocks of jobs, and folders that must be equal. */
#ifndef ATHANOR_TRAIN_WEB_FIXTURE_H
#define ATHANOR_TRAIN_WEB_FIXTURE_H

#include "tests/train/fixture.h"

#include <dirent.h>

/* ---- documents and jobs ------------------------------------------------------------------ */

static inline void put(struct buf *out, const char *id, const char *source, const char *url,
                const char *text)
{
    json_t *line = json_pack("{s:s, s:s, s:s}", "id", id, "source", source, "text", text);

    if (url)
        json_object_set_new(line, "url", json_string(url));
    char *json = json_dumps(line, JSON_COMPACT);
    buf_printf(out, "%s\n", json);
    free(json);
    json_decref(line);
}

static inline json_t *card_of(const struct place *place, const char *job)
{
    char *path = job_path(place, job, "/datasets/clean/dataset.json");
    json_t *root = json_load_file(path, 0, NULL);

    assert_non_null(root);
    mem_free(path);
    return root;
}

static inline json_int_t filter_count(const json_t *card, const char *filter)
{
    const json_t *list = json_object_get(json_object_get(card, "web"), "filters");
    const json_t *row;
    size_t i;

    json_array_foreach(list, i, row)
        if (strcmp(json_string_value(json_object_get(row, "name")), filter) == 0)
            return json_integer_value(json_object_get(row, "documents"));
    return 0;
}

/* ---- the same bytes ---------------------------------------------------------------------- */

static inline int is_no_dot(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static inline unsigned assert_same_folder(const char *a, const char *b)
{
    struct dirent **names;
    int count = scandir(a, &names, is_no_dot, alphasort);

    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        assert_same_file(a, b, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return (unsigned)count;
}

static inline void assert_same_jobs(const struct place *place, const char *a, const char *b)
{
    static const char *const folders[] = {"/web", "/datasets/clean"};

    for (size_t i = 0; i < ARRAY_COUNT(folders); i++) {
        char *left = job_path(place, a, folders[i]), *right = job_path(place, b, folders[i]);
        assert_int_equal(assert_same_folder(left, right), assert_same_folder(right, left));
        mem_free(left);
        mem_free(right);
    }
}

/* Lines of the files of blocks of a job, as an array. */
static inline json_t *block_lines(const struct place *place, const char *job)
{
    char *folder = job_path(place, job, "/web"), *bytes;
    struct dirent **names;
    int count = scandir(folder, &names, is_no_dot, alphasort);
    json_t *all = json_array();
    size_t length;

    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        char *path = mem_printf("%s/%s", folder, names[i]->d_name);
        bool lines = strstr(path, ".jsonl") != NULL, head = true;
        OK(file_read(path, 1 << 26, &bytes, &length, &fixture_err));
        for (char *rest = bytes, *line; lines && (line = strsep(&rest, "\n")); head = false)
            if (*line && !head)
                json_array_append_new(all, json_loads(line, 0, NULL));
        mem_free(bytes);
        mem_free(path);
        free(names[i]);
    }
    free(names);
    mem_free(folder);
    return all;
}

static inline bool is_in(const json_t *line, const char *name, const char *text)
{
    return strcmp(json_string_value(json_object_get(line, name)), text) == 0;
}

/* ---- documents that know their verdict --------------------------------------------------- */

/* A document whose id begins with the verdict that it must get. fields: members of its line. */
static inline void expect(struct buf *out, const char *verdict, const char *text,
                          const char *fields)
{
    char *whole = mem_printf("{%s}", fields), *json;
    json_t *line = json_loads(whole, 0, NULL);

    assert_non_null(line);
    json_object_set_new(line, "id", json_sprintf("%s:%zu", verdict, out->length));
    json_object_set_new(line, "text", json_string(text));
    json = json_dumps(line, JSON_COMPACT);
    buf_printf(out, "%s\n", json);
    free(json);
    json_decref(line);
    mem_free(whole);
}

/* Every document has the verdict that its id begins with, and the card counts them by name. */
static inline void assert_expected_verdicts(const struct place *place, const char *job)
{
    json_t *lines = block_lines(place, job), *card = card_of(place, job), *wanted = json_object();
    json_t *line, *count;
    const char *name;
    size_t i;

    assert_true(json_array_size(lines) > 5);
    json_array_foreach(lines, i, line) {
        const char *id = json_string_value(json_object_get(line, "id"));
        const char *verdict = json_string_value(json_object_get(line, "verdict"));
        if (strncmp(id, verdict, strlen(verdict)) != 0 || id[strlen(verdict)] != ':')
            fail_msg("document %s of %s got the verdict %s", id, job, verdict);
        json_int_t before = json_integer_value(json_object_get(wanted, verdict));
        json_object_set_new(wanted, verdict, json_integer(before + 1));
    }
    json_object_foreach(wanted, name, count)
        assert_int_equal(filter_count(card, name), json_integer_value(count));
    json_decref(lines);
    json_decref(card);
    json_decref(wanted);
}

#endif
