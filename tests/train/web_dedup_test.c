/* web_dedup_test.c - what data/dolma and data/yi remove as copies, at the sizes that the methods'
 * papers state: near paragraphs against the formula, WordNet's glosses by number, planted eval
 * sets, and what filtering is for. Long ones only with ATHANOR_TEST_MODE=long. */
#include "tests/train/web_fixture.h"

#include <fcntl.h>

static bool long_mode(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

static void write_lines(const struct place *place, const char *name, const struct buf *lines)
{
    char *path = job_path(place, "", name);

    OK(file_replace(path, lines->bytes, lines->length, 0644, &fixture_err));
    mem_free(path);
}

/* Documents of a job's dataset: "all" as an array. */
static json_t *kept_lines(const struct place *place, const char *job)
{
    char *path = job_path(place, job, "/datasets/clean/all.jsonl"), *bytes;
    json_t *all = json_array();
    size_t length;

    OK(file_read(path, (size_t)1 << 30, &bytes, &length, &fixture_err));
    for (char *rest = bytes, *line; (line = strsep(&rest, "\n"));)
        if (*line)
            json_array_append_new(all, json_loads(line, 0, NULL));
    mem_free(bytes);
    mem_free(path);
    return all;
}

static json_int_t edit_count(const json_t *card, const char *edit)
{
    const json_t *edits = json_object_get(json_object_get(card, "web"), "edits");

    return json_integer_value(json_object_get(edits, edit));
}

/* ---- near paragraphs --------------------------------------------------------------------- */

/* A paragraph of 60 words that occur nowhere else is 56 shingles of 5 words, and each of its words
 * but the outermost is in five of them. So a copy in which m words far apart are exchanged has
 * Jaccard similarity (56 - 5m) / (56 + 5m): .836, .697, .577. */
#define WORDS     60
#define SHINGLES  (WORDS - 4)
#define SIMILAR   0.6
#define BANDS     4
#define ROWS      6
#define EXCHANGED 4 /* m from 0, the same words in capitals, to 3 */

static size_t of_each(void)
{
    return long_mode() ? 2000 : 120;
}

/* Word 8, 20, 32 of a copy is another one. */
static void put_paragraph(struct buf *out, size_t number, bool copy, unsigned exchanged)
{
    for (size_t w = 0; w < WORDS; w++)
        buf_printf(out, "%s%c%zux%zu%s", w ? " " : "", copy && exchanged == 0 ? 'W' : 'w', number,
                   w, copy && w % 12 == 8 && w / 12 < exchanged ? "other" : "");
    buf_puts(out, copy ? "!\n" : ".\n");
}

/* Originals first, then a document for each one's copy, so that no two copies are alike. A heading
 * of 13 words is in all of them. */
static void write_near_paragraphs(const struct place *place)
{
    struct buf out = {0}, text = {0};
    size_t count = of_each() * EXCHANGED;
    char id[48];

    for (size_t i = 0; i < 2 * count; i++) {
        unsigned m = (unsigned)(i % count / of_each());
        buf_clear(&text);
        buf_puts(&text, "This heading of all documents has thirteen words and is left as it\n");
        put_paragraph(&text, i, false, 0);
        if (i >= count)
            put_paragraph(&text, i % count, true, m);
        snprintf(id, sizeof id, i < count ? "original" : "copy-%u", m);
        put(&out, id, "web", NULL, text.bytes);
    }
    write_lines(place, "/paragraphs.jsonl", &out);
    buf_done(&out);
    buf_done(&text);
}

static char *near_spec(const struct place *place, const char *documents, const char *more)
{
    return mem_printf("\"kind\": \"data\", \"recipe\": \"yi\", \"params\": {\"name\": \"clean\", "
                      "\"documents\": [\"%s%s%s\"], \"stages\": [\"minhash_paragraph\"], "
                      "\"vocab_size\": 257, \"block_bytes\": 65536, \"holdout_share\": 0%s}",
                      *documents == '/' ? "" : place->folder, *documents == '/' ? "" : "/",
                      documents, more);
}

static void run_near(const struct place *place, const char *name, int ranks, const char *documents,
                     const char *more)
{
    char *spec = near_spec(place, documents, more);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};

    run_job_in(place, &job, NULL);
    mem_free(spec);
}

#define FORMULA ", \"minhash_bands\": 4, \"minhash_rows\": 6, \"minhash_jaccard\": 0.6"

/* Killed once its last block is there, in or before the stage over all. */
static void kill_when_blocks_are_there(const struct place *place, const char *name, size_t last)
{
    char *spec = near_spec(place, "paragraphs.jsonl", FORMULA);
    char *whole = mem_printf("{\"name\": \"%s\", %s}", name, spec);
    char *spec_path = job_path(place, name, ".json"), *out = job_path(place, name, "");
    char *rest = mem_printf("/web/block-%06zu.jsonl", last), *block = job_path(place, name, rest);
    char *arguments[] = {(char *)place->engine, "run", "--spec", spec_path, "--out", out, NULL};
    posix_spawn_file_actions_t actions;
    bool done = false;
    int status = 0;
    pid_t pid;

    OK(file_replace(spec_path, whole, strlen(whole), 0644, &fixture_err));
    unsetenv("ATHANOR_REPORT");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    assert_int_equal(posix_spawn(&pid, place->engine, &actions, NULL, arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    while (!done && !file_exists(block))
        done = waitpid(pid, &status, WNOHANG) == pid;
    if (!done) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    mem_free(spec);
    mem_free(whole);
    mem_free(spec_path);
    mem_free(out);
    mem_free(rest);
    mem_free(block);
}

/* How many copies of each kind lost their copied paragraph; everything else is there. */
static void count_cut(const struct place *place, const char *job, size_t cut[EXCHANGED])
{
    json_t *lines = kept_lines(place, job), *line;
    size_t i;

    assert_int_equal(json_array_size(lines), 2 * of_each() * EXCHANGED);
    json_array_foreach(lines, i, line) {
        const char *text = json_string_value(json_object_get(line, "text"));
        const char *id = json_string_value(json_object_get(line, "id"));
        char *own = mem_printf("w%zux59.\n", i);
        size_t paragraphs = 0;
        assert_ptr_equal(strstr(text, "This heading"), text);
        assert_non_null(strstr(text, own));
        for (const char *c = text; (c = strchr(c, '\n')); c++)
            paragraphs++;
        if (*id == 'c')
            cut[id[5] - '0'] += paragraphs == 2;
        else
            assert_int_equal(paragraphs, 2);
        mem_free(own);
    }
    json_decref(lines);
}

static void near_paragraphs_are_cut_as_often_as_the_formula_says(void **state)
{
    struct place *place = *state;
    size_t cut[EXCHANGED] = {0}, total = 0, count = of_each();
    json_t *card, *sample;
    size_t i;

    write_near_paragraphs(place);
    run_near(place, "near-1", 1, "paragraphs.jsonl", FORMULA);
    count_cut(place, "near-1", cut);
    for (unsigned m = 0; m < EXCHANGED; m++) {
        double s = (double)(SHINGLES - 5 * m) / (SHINGLES + 5 * m);
        double p = m == 0 ? 1 : s <= SIMILAR ? 0 : 1 - pow(1 - pow(s, ROWS), BANDS);
        double share = (double)cut[m] / (double)count;
        print_message("%u exchanged, similarity %.3f: %.4f cut, the formula says %.4f\n", m, s,
                      share, p);
        assert_true(fabs(share - p) <= 3 * sqrt(p * (1 - p) / (double)count));
        total += cut[m];
    }
    card = card_of(place, "near-1");
    assert_int_equal(edit_count(card, "near_paragraphs_cut"), total);
    const json_t *cuts = json_object_get(json_object_get(card, "web"), "cuts");
    assert_int_equal(json_array_size(cuts), 5); /* card_samples */
    json_array_foreach(cuts, i, sample) {
        assert_string_equal(json_string_value(json_object_get(sample, "edit")),
                            "near_paragraphs_cut");
        assert_int_equal(*json_string_value(json_object_get(sample, "id")), 'c');
        assert_non_null(strstr(json_string_value(json_object_get(sample, "text")), "x0"));
        assert_non_null(strstr(json_string_value(json_object_get(sample, "where")), ".jsonl:"));
    }
    json_decref(card);
}

static void near_paragraphs_are_the_same_on_any_number_of_ranks_and_after_a_kill(void **state)
{
    struct place *place = *state;
    char *folder = job_path(place, "near-1", "/web");
    struct dirent **names;
    int count = scandir(folder, &names, is_no_dot, alphasort);

    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
    assert_true(count >= 8); /* of lines and of keys */
    run_near(place, "near-4", 4, "paragraphs.jsonl", FORMULA);
    assert_same_jobs(place, "near-1", "near-4");
    kill_when_blocks_are_there(place, "near-2", (size_t)count / 2 - 1);
    run_near(place, "near-2", 2, "paragraphs.jsonl", FORMULA);
    assert_same_jobs(place, "near-1", "near-2");
    mem_free(folder);
}

/* Fifty pairs side by side that share most words with all others: buckets of a hundred, of which
 * only the first are compared at a time. */
static void write_crowded(const struct place *place)
{
    struct buf out = {0}, text = {0};

    for (size_t i = 0; i < 100; i++) {
        char id[32];
        buf_clear(&text);
        for (size_t w = 0; w < 100; w++)
            buf_printf(&text, w < 85 ? "common%zu " : "own%zux%zu ", w, i / 2);
        buf_puts(&text, i % 2 ? "second" : "first");
        snprintf(id, sizeof id, "crowd-%zu", i);
        put(&out, id, "web", NULL, text.bytes);
    }
    write_lines(place, "/crowded.jsonl", &out);
    buf_done(&out);
    buf_done(&text);
}

static void a_second_run_finds_no_near_paragraph(void **state)
{
    static const char crowd[] = ", \"minhash_bands\": 2, \"minhash_rows\": 1";
    struct place *place = *state;
    char *again = job_path(place, "near-1", "/datasets/clean/all.jsonl");
    json_t *card;

    run_near(place, "near-again", 1, again, FORMULA);
    card = card_of(place, "near-again");
    assert_int_equal(edit_count(card, "near_paragraphs_cut"), 0);
    json_decref(card);
    /* Nor was the heading too long by more than a word to be left alone. */
    run_near(place, "near-13", 1, again, FORMULA ", \"minhash_min_words\": 13");
    card = card_of(place, "near-13");
    assert_int_equal(edit_count(card, "near_paragraphs_cut"), 2 * of_each() * EXCHANGED - 1);
    json_decref(card);
    mem_free(again);
    write_crowded(place);
    run_near(place, "crowd", 1, "crowded.jsonl", crowd);
    card = card_of(place, "crowd");
    json_int_t gone = filter_count(card, "near_dup_paragraphs");
    print_message("%d of 50 second ones of a crowd are gone\n", (int)gone);
    assert_in_range(gone, 17, 50); /* more than the first 32 units' own */
    json_decref(card);
    again = job_path(place, "crowd", "/datasets/clean/all.jsonl");
    run_near(place, "crowd-again", 1, again, crowd);
    card = card_of(place, "crowd-again");
    assert_int_equal(filter_count(card, "near_dup_paragraphs"), 0);
    json_decref(card);
    mem_free(again);
}

/* ---- stages see what those before left --------------------------------------------------- */

/* A passage of 60 words is in a paragraph that is cut as nearly an earlier one, and then in another
 * document: there it is the first one left, so it stays. */
static void passages_in_paragraphs_that_were_cut_are_no_first_copies(void **state)
{
    struct place *place = *state;
    struct buf out = {0}, text = {0}, long_part = {0}, passage = {0};

    for (size_t i = 0; i < 900; i++)
        buf_printf(&long_part, "long%zu ", i);
    for (size_t i = 0; i < 60; i++)
        buf_printf(&passage, "passage%zu ", i);
    put(&out, "first", "web", NULL, long_part.bytes);
    buf_printf(&text, "Here is something of its own.\n%s%s", long_part.bytes, passage.bytes);
    put(&out, "near", "web", NULL, text.bytes);
    buf_clear(&text);
    buf_printf(&text, "Another beginning. %s and an end.", passage.bytes);
    put(&out, "later", "web", NULL, text.bytes);
    write_lines(place, "/layers.jsonl", &out);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"yi\", \"params\": {\"name\": "
                            "\"clean\", \"documents\": [\"%s/layers.jsonl\"], \"stages\": "
                            "[\"minhash_paragraph\", \"exact\"], \"vocab_size\": 257, "
                            "\"holdout_share\": 0}", place->folder);
    struct job_run job = {.name = "layers", .spec = spec};
    run_job_in(place, &job, NULL);
    json_t *card = card_of(place, "layers"), *lines = kept_lines(place, "layers");
    assert_int_equal(edit_count(card, "near_paragraphs_cut"), 1);
    assert_int_equal(edit_count(card, "passages_cut"), 0);
    assert_string_equal(json_string_value(json_object_get(json_array_get(lines, 1), "text")),
                        "Here is something of its own.\n");
    assert_string_equal(json_string_value(json_object_get(json_array_get(lines, 2), "text")),
                        text.bytes);
    json_decref(lines);
    json_decref(card);
    mem_free(spec);
    buf_done(&out);
    buf_done(&text);
    buf_done(&long_part);
    buf_done(&passage);
}

/* ---- WordNet's glosses ------------------------------------------------------------------- */

struct glosses {
    char **items;
    size_t count, capacity;
};

/* What follows " | " on each line of the four files, without the spaces at its ends. */
static void read_glosses(struct glosses *glosses)
{
    static const char *const files[] = {"noun", "verb", "adj", "adv"};

    for (size_t f = 0; f < ARRAY_COUNT(files); f++) {
        char *path = mem_printf("/usr/share/wordnet/data.%s", files[f]), *bytes;
        size_t length;
        if (file_read(path, 1 << 28, &bytes, &length, &fixture_err) < 0) {
            mem_free(path);
            print_message("[  SKIP  ] needs the package wordnet-base\n");
            skip();
        }
        for (char *rest = bytes, *line; (line = strsep(&rest, "\n"));) {
            char *gloss = line[0] != ' ' ? strstr(line, " | ") : NULL;
            if (!gloss)
                continue;
            gloss += 3 + strspn(gloss + 3, " ");
            size_t end = strlen(gloss);
            while (end && gloss[end - 1] == ' ')
                end--;
            VEC_RESERVE(glosses->items, glosses->count, glosses->capacity);
            glosses->items[glosses->count++] = mem_strndup(gloss, end);
        }
        mem_free(bytes);
        mem_free(path);
    }
}

static void glosses_done(struct glosses *glosses)
{
    for (size_t i = 0; i < glosses->count; i++)
        mem_free(glosses->items[i]);
    mem_free(glosses->items);
}

static void need_long_mode(void)
{
    if (long_mode())
        return;
    print_message("[  SKIP  ] needs ATHANOR_TEST_MODE=long\n");
    skip();
}

static json_int_t run_glosses(const struct place *place, const char *name, int ranks,
                              const char *order, const char *more)
{
    struct buf documents = {0};

    for (const char *o = order; *o; o++)
        buf_printf(&documents, "%s\"%s/shard-%c.jsonl\"", o > order ? ", " : "", place->folder,
                   *o);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"dolma\", \"params\": {\"name\": "
                            "\"clean\", \"documents\": [%s], \"stages\": [\"document\"], "
                            "\"vocab_size\": 257, \"block_bytes\": 500000%s}",
                            documents.bytes, more);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};
    run_job_in(place, &job, NULL);
    json_t *card = card_of(place, name);
    json_int_t kept = filter_count(card, "kept");
    assert_int_equal(kept + filter_count(card, "document_dup"), 117659);
    json_decref(card);
    mem_free(spec);
    buf_done(&documents);
    return kept;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Of the texts that a job kept, sorted. */
static struct hash hash_kept(const struct place *place, const char *job)
{
    json_t *lines = kept_lines(place, job), *line;
    size_t count = json_array_size(lines), i;
    const char **texts = mem_array(count + 1, sizeof *texts);
    struct hash_stream stream;
    struct hash hash;

    json_array_foreach(lines, i, line)
        texts[i] = json_string_value(json_object_get(line, "text"));
    qsort(texts, count, sizeof *texts, compare_texts);
    hash_start(&stream);
    for (i = 0; i < count; i++)
        hash_add(&stream, texts[i], strlen(texts[i]) + 1);
    hash_end(&stream, &hash);
    mem_free(texts);
    json_decref(lines);
    return hash;
}

/* Card data-dolma, acceptance 2: 117,033 of 117,659, whoever looks and in whatever order. */
static void glosses_lose_their_copies_on_any_ranks_and_in_any_order(void **state)
{
    struct place *place = *state;
    struct glosses glosses = {0};
    struct buf out[4] = {{0}};
    char id[32], name[32];

    need_long_mode();
    read_glosses(&glosses);
    assert_int_equal(glosses.count, 117659);
    for (size_t i = 0; i < glosses.count; i++) {
        snprintf(id, sizeof id, "g%zu", i);
        put(&out[i / 30000], id, "wordnet", NULL, glosses.items[i]);
    }
    for (int f = 0; f < 4; f++) {
        snprintf(name, sizeof name, "/shard-%d.jsonl", f);
        write_lines(place, name, &out[f]);
        buf_done(&out[f]);
    }
    glosses_done(&glosses);
    assert_int_equal(run_glosses(place, "glosses-1", 1, "0123", ""), 117033);
    struct hash expected = hash_kept(place, "glosses-1");
    for (int ranks = 2; ranks <= 4; ranks += 2) {
        snprintf(name, sizeof name, "glosses-%d", ranks);
        assert_int_equal(run_glosses(place, name, ranks, "0123", ""), 117033);
        assert_same_jobs(place, "glosses-1", name);
        snprintf(name, sizeof name, "turned-%d", ranks);
        assert_int_equal(run_glosses(place, name, ranks, ranks == 2 ? "3210" : "2031", ""),
                         117033);
        struct hash hash = hash_kept(place, name);
        assert_true(hash_equal(&hash, &expected));
    }
    /* 0.12 mistakes are expected; 5 or more have probability 2e-7. */
    json_int_t kept = run_glosses(place, "glosses-bloom", 2, "0123",
                                  ", \"dedup\": \"bloom\", \"bloom_n\": 117659");
    assert_in_range(kept, 117033 - 4, 117033);
}

/* ---- eval sets --------------------------------------------------------------------------- */

#define EVAL    500
#define PLANTED 20
#define TEXTS   600 /* of five glosses, one a line */

static size_t words_in(const char *text)
{
    size_t words = 0;

    for (const char *c = text; *c; c++)
        words += *c != ' ' && (c == text || c[-1] == ' ');
    return words;
}

/* Card data-dolma, acceptance 4: of 500 eval glosses 20 are planted; exactly the documents that
 * hold one, by comparing all lines with all, are dropped. */
static void planted_eval_glosses_drop_exactly_the_documents_that_hold_them(void **state)
{
    struct place *place = *state;
    struct glosses glosses = {0};
    struct buf eval = {0}, out = {0}, text = {0};
    const char *set[EVAL];
    bool expected[TEXTS] = {false};
    size_t count = 0, next, hits = 0, i;
    struct hash before, after;
    json_t *line;
    char id[32];

    read_glosses(&glosses);
    for (next = 0; count < EVAL; next += 7)
        if (words_in(glosses.items[next]) > 13) {
            set[count++] = glosses.items[next];
            put(&eval, "q", "eval", NULL, glosses.items[next]);
        }
    for (size_t d = 0; d < TEXTS; d++) {
        buf_clear(&text);
        for (size_t g = 0; g < 5; g++) {
            const char *gloss = glosses.items[next + 23 * (5 * d + g)];
            if (g == 2 && d % (TEXTS / PLANTED) == 11)
                gloss = set[d * EVAL / TEXTS];
            buf_printf(&text, "%s\n", gloss);
            for (size_t e = 0; e < EVAL; e++)
                expected[d] = expected[d] || strcmp(gloss, set[e]) == 0;
        }
        hits += expected[d];
        snprintf(id, sizeof id, "%zu", d);
        put(&out, id, "wordnet", NULL, text.bytes);
    }
    assert_in_range(hits, PLANTED, PLANTED + 5); /* some glosses are in WordNet twice */
    write_lines(place, "/eval.jsonl", &eval);
    write_lines(place, "/train.jsonl", &out);
    char *path = job_path(place, "eval", ".jsonl");
    OK(hash_file(path, &before, &fixture_err));
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"dolma\", \"params\": {\"name\": "
                            "\"clean\", \"documents\": [\"%s/train.jsonl\"], \"stages\": "
                            "[\"decontaminate\"], \"decontaminate\": [\"%s\"], "
                            "\"decon_max_removal\": 0.1, \"vocab_size\": 257}", place->folder,
                            path);
    struct job_run job = {.name = "decontaminated", .spec = spec};
    run_job_in(place, &job, NULL);
    json_t *lines = block_lines(place, "decontaminated");
    assert_int_equal(json_array_size(lines), TEXTS);
    json_array_foreach(lines, i, line)
        assert_int_equal(is_in(line, "verdict", "decontaminated"), expected[i]);
    OK(hash_file(path, &after, &fixture_err));
    assert_true(hash_equal(&before, &after)); /* what is looked for is only read */
    json_decref(lines);
    mem_free(path);
    mem_free(spec);
    buf_done(&eval);
    buf_done(&out);
    buf_done(&text);
    glosses_done(&glosses);
}

/* ---- what it is for ---------------------------------------------------------------------- */

#define CLEAN_TEXTS 3000 /* of five glosses; as many are the reference, and 300 are held out */

static void put_gloss_text(const struct glosses *glosses, size_t number, bool shuffled,
                           struct buf *out)
{
    char *words[1024];
    struct buf whole = {0};
    size_t count = 0;

    for (size_t g = 0; g < 5; g++)
        buf_printf(&whole, "%s%s.", g ? " " : "",
                   glosses->items[(5 * number + g) * 7919 % glosses->count]);
    for (char *rest = whole.bytes, *word; (word = strsep(&rest, " ")) && count < 1024;)
        if (*word)
            words[count++] = word;
    for (size_t i = count; i > 1 && shuffled; i--) {
        size_t k = rng_at(91, number, i) % i;
        char *held = words[i - 1];
        words[i - 1] = words[k];
        words[k] = held;
    }
    buf_clear(out);
    for (size_t i = 0; i < count; i++)
        buf_printf(out, "%s%s", i ? " " : "", words[i]);
    buf_done(&whole);
}

static void write_texts(const struct place *place, const char *name, size_t from, size_t to,
                        bool polluted)
{
    struct glosses glosses = {0};
    struct buf out = {0}, text = {0};
    char id[32];

    read_glosses(&glosses);
    for (size_t i = from; i < to; i++) {
        put_gloss_text(&glosses, i, false, &text);
        snprintf(id, sizeof id, "t%zu", i);
        put(&out, id, "wordnet", NULL, text.bytes);
        /* For ten texts three that are shuffled, and for a hundred one thirty times more. */
        if (polluted && i % 10 < 3) {
            put_gloss_text(&glosses, i, true, &text);
            snprintf(id, sizeof id, "s%zu", i);
            put(&out, id, "wordnet", NULL, text.bytes);
        }
        for (int copy = 0; polluted && i % 100 == 55 && copy < 30; copy++) {
            snprintf(id, sizeof id, "c%zu-%d", i, copy);
            put(&out, id, "wordnet", NULL, text.bytes);
        }
    }
    write_lines(place, name, &out);
    buf_done(&out);
    buf_done(&text);
    glosses_done(&glosses);
}

static void make_set(const struct place *place, const char *name, const char *documents,
                     const char *more)
{
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"yi\", \"params\": {\"name\": "
                            "\"clean\", \"documents\": [\"%s/%s\"], \"holdout_share\": 0, %s}",
                            place->folder, documents, more);
    struct job_run job = {.name = name, .spec = spec};

    run_job_in(place, &job, NULL);
    mem_free(spec);
}

static double held_out_loss(const struct place *place, const char *set, int seed)
{
    char *name = mem_printf("lm-%s-%d", set, seed), *at = mem_strdup(place->folder);
    struct trace trace = {0};
    char *spec = mem_printf("\"kind\": \"pretraining\", \"recipe\": \"clm\", \"inputs\": {"
                            "\"data\": {\"path\": \"%s/%s/datasets/clean\", \"part\": "
                            "\"train\"}, \"valid\": "
                            "{\"path\": \"%s/held/datasets/clean\", \"part\": \"train\"}}, "
                            "\"params\": {\"arch\": \"llama\", \"layers\": 2, \"d_model\": 48, "
                            "\"heads\": 4, \"context\": 64, \"batch\": 16, \"steps\": 600, "
                            "\"warmup\": 40, \"learning_rate\": 1e-3, \"eval_every\": 0, "
                            "\"seed\": %d}", at, set, at, seed);
    struct job_run job = {.name = name, .spec = spec};
    double loss = NAN;

    run_job_in(place, &job, &trace);
    for (size_t i = 0; i < trace.count; i++)
        if (strcmp(trace.points[i].name, "val_loss") == 0)
            loss = trace.points[i].value;
    trace_done(&trace);
    mem_free(spec);
    mem_free(name);
    mem_free(at);
    return loss;
}

/* Card data-dolma, acceptance 7: of texts polluted by 30 % of shuffled and 30 % of repeated ones
 * the same small model learns less in as many steps than of what filtering leaves, each time. */
static void filtered_texts_teach_more_than_polluted_ones(void **state)
{
    struct place *place = *state;

    need_long_mode();
    write_texts(place, "/texts.jsonl", 0, CLEAN_TEXTS, true);
    write_texts(place, "/reference.jsonl", CLEAN_TEXTS, 2 * CLEAN_TEXTS, false);
    write_texts(place, "/held.jsonl", 2 * CLEAN_TEXTS, 2 * CLEAN_TEXTS + 300, false);
    make_set(place, "held", "held.jsonl", "\"stages\": [], \"vocab_size\": 2048");
    char *same = mem_printf("\"tokenizer\": \"%s/held/datasets/clean\", \"stages\": ",
                            place->folder);
    char *filter = mem_printf("%s[\"document\", \"perplexity\", \"minhash\"], \"reference\": "
                              "[\"%s/reference.jsonl\"]", same, place->folder);
    char *none = mem_printf("%s[]", same);
    make_set(place, "polluted", "texts.jsonl", none);
    make_set(place, "filtered", "texts.jsonl", filter);
    for (int seed = 0; seed < 3; seed++) {
        double polluted = held_out_loss(place, "polluted", seed);
        double filtered = held_out_loss(place, "filtered", seed);
        print_message("seed %d: held-out loss %.4f polluted, %.4f filtered\n", seed, polluted,
                      filtered);
        assert_true(filtered < polluted);
    }
    mem_free(same);
    mem_free(filter);
    mem_free(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(near_paragraphs_are_cut_as_often_as_the_formula_says),
        cmocka_unit_test(near_paragraphs_are_the_same_on_any_number_of_ranks_and_after_a_kill),
        cmocka_unit_test(a_second_run_finds_no_near_paragraph),
        cmocka_unit_test(passages_in_paragraphs_that_were_cut_are_no_first_copies),
        cmocka_unit_test(planted_eval_glosses_drop_exactly_the_documents_that_hold_them),
        cmocka_unit_test(glosses_lose_their_copies_on_any_ranks_and_in_any_order),
        cmocka_unit_test(filtered_texts_teach_more_than_polluted_ones),
    };
    return cmocka_run_group_tests(tests, place_open, place_close);
}
