/* web_test.c - data/dolma and data/yi as jobs: planted documents fall to the rule they were planted
 * for, any number of ranks and any kill give the same bytes, and a second run removes nothing. */
#include "tests/train/web_fixture.h"
#include "tests/unit/data/inputs.h"

#include <fcntl.h>
#include <signal.h>

#define PROSE 60 /* documents that no rule touches */

/* Every stage is run on 1, 2 and 4 ranks by one test; each by itself on three in long mode. */
static bool long_mode(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

/* ---- a corpus ---------------------------------------------------------------------------- */

static void put_word(struct buf *out, uint64_t number, uint64_t place)
{
    static const char *const parts[] = {"ba", "ce", "di", "fo", "gu", "ha", "je", "ki",
                                        "lo", "mu", "na", "pe", "ri", "so", "tu", "va"};
    uint64_t draw = rng_at(number, place, 1);

    for (unsigned i = 0; i < 2 + draw % 3; i++)
        buf_puts(out, parts[draw >> (8 * i + 8) & 15]);
}

/* Sentences without anything to object to, different for every number. */
static char *prose(uint64_t number)
{
    static const char *const small[] = {" the ", " of ", " and ", " to ", " with ", " that "};
    struct buf out = {0};

    for (uint64_t i = 0; i < 14 * 6; i++) {
        put_word(&out, number, 2 * i);
        buf_puts(&out, small[rng_at(number, i, 2) % ARRAY_COUNT(small)]);
        put_word(&out, number, 2 * i + 1);
        buf_puts(&out, i % 6 < 5 ? " " : i + 1 < 14 * 6 ? ".\n" : ".");
    }
    return buf_take(&out);
}

struct planted {
    const char *filter;
    unsigned documents;
};

/* What each document of the first file is there for; the rest is kept. */
static const struct planted planted[] = {
    {"malformed", 2},    {"blocked", 1},
    {"url_dup", 1},        {"document_dup", 2},   {"gopher_words", 1},
    {"gopher_symbols", 1}, {"gopher_required", 1}, {"pii", 1},          {"repetition", 1},
    {"decontaminated", 1}, {"empty", 1},
};

static const char eval_text[] =
    "{\"question\": \"If a train of seven wagons leaves the harbour at noon, how many sailors are "
    "there on the second bridge by night?\", \"answer\": \"9\"}\n{\"question\": \"short one\"}\n";

static char *joined(const char *a, const char *b)
{
    return mem_printf("%s\n%s", a, b);
}

static void write_corpus(const struct place *place)
{
    struct buf one = {0}, two = {0};
    char id[32], *first = prose(1), *text, *both;

    for (uint64_t i = 0; i < PROSE; i++) {
        char url[64];
        text = prose(i);
        snprintf(id, sizeof id, "p%llu", (unsigned long long)i);
        snprintf(url, sizeof url, "http://example.org/%llu", (unsigned long long)i);
        put(i % 3 ? &one : &two, id, i % 3 ? "web" : "books", url, text);
        mem_free(text);
    }
    buf_puts(&one, "{\"id\": \"torn\n[]\n");
    text = prose(1001);
    put(&one, "same-url", "web", "http://example.org/1", text);
    mem_free(text);
    text = prose(1010);
    put(&one, "unwanted", "web", "http://ads.example.com/page", text);
    mem_free(text);
    put(&one, "copy-1", "web", NULL, first);
    put(&two, "copy-2", "books", NULL, first);
    put(&one, "short", "web", NULL, "the end of that, to be short with the point of it.");
    text = prose(1002);
    for (char *c = text; (c = strchr(c, ' ')); c += 3)
        c[1] = '#';
    put(&one, "symbols", "web", NULL, text);
    mem_free(text);
    struct buf plain = {0};
    for (int i = 0; i < 80; i++)
        buf_printf(&plain, "word%d ", i);
    put(&one, "required", "web", NULL, plain.bytes);
    text = prose(1004);
    both = joined(text, "Write to a@b.org c@d.org e@f.org g@h.org i@j.org k@l.org now.");
    put(&one, "personal", "web", NULL, both);
    mem_free(both);
    mem_free(text);
    /* Repeated 100 times without breaking a rule of Gopher first: within much other text. */
    buf_clear(&plain);
    for (uint64_t i = 0; i < 30; i++) {
        text = prose(2000 + i);
        buf_printf(&plain, "%s\n", text);
        mem_free(text);
    }
    for (int i = 0; i < 100; i++)
        buf_puts(&plain, " ha");
    put(&one, "laughter", "web", NULL, plain.bytes);
    text = prose(1005);
    both = joined(text, "If a train of seven wagons leaves the harbour at noon, how many "
                        "sailors are there on the second bridge by night?");
    put(&one, "leak", "web", NULL, both);
    mem_free(both);
    mem_free(text);
    text = prose(1003);
    for (char *c = text; (c = strchr(c, '.')); c++)
        *c = ',';
    put(&one, "no-ends", "web", NULL, text);
    mem_free(text);
    /* Two documents that are kept: one with a paragraph seen before, one with masks. */
    text = prose(3000);
    char *stop = strchr(first, '\n');
    char *sentence = mem_strndup(first, (size_t)(stop - first));
    both = joined(text, sentence);
    put(&one, "paragraph", "web", NULL, both);
    mem_free(both);
    mem_free(text);
    text = prose(3001);
    both = joined(text, "Call 555-123-4567 or write to me@example.org today.");
    put(&one, "masked", "web", NULL, both);
    mem_free(both);
    mem_free(text);
    mem_free(sentence);
    mem_free(first);
    buf_done(&plain);
    char *paths[] = {job_path(place, "one", ".jsonl"), job_path(place, "two", ".jsonl"),
                     job_path(place, "eval", ".jsonl"), job_path(place, "hosts", ".txt")};
    OK(file_replace(paths[3], "example.com\n", 12, 0644, &fixture_err));
    OK(file_replace(paths[0], one.bytes, one.length, 0644, &fixture_err));
    OK(file_replace(paths[1], two.bytes, two.length, 0644, &fixture_err));
    OK(file_replace(paths[2], eval_text, strlen(eval_text), 0644, &fixture_err));
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++)
        mem_free(paths[i]);
    buf_done(&one);
    buf_done(&two);
}

static char *dolma_spec(const struct place *place, const char *more)
{
    return mem_printf("\"kind\": \"data\", \"recipe\": \"dolma\", \"params\": {"
                      "\"name\": \"clean\", \"documents\": [\"%s/one.jsonl\", "
                      "\"%s/two.jsonl\"], \"decontaminate\": "
                      "[\"%s/eval.jsonl\"], \"decon_max_removal\": 0.05, \"vocab_size\": 300, "
                      "\"block_lists\": [\"%s/hosts.txt\"], \"block_bytes\": 16384%s}",
                      place->folder, place->folder, place->folder, place->folder, more);
}

static void run_dolma(const struct place *place, const char *name, int ranks, const char *more)
{
    char *spec = dolma_spec(place, more);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};

    run_job_in(place, &job, NULL);
    mem_free(spec);
}

/* Lines of a job's dataset whose text has the word, or all. */
static size_t count_texts(const struct place *place, const char *name, const char *word)
{
    char *path = job_path(place, name, "/datasets/clean/all.jsonl"), *bytes;
    size_t length, count = 0;

    OK(file_read(path, 1 << 26, &bytes, &length, &fixture_err));
    for (char *rest = bytes, *line; (line = strsep(&rest, "\n"));)
        count += *line && strstr(line, word) != NULL;
    mem_free(bytes);
    mem_free(path);
    return count;
}

static void planted_documents_fall_to_the_rule_they_were_planted_for(void **state)
{
    struct place *place = *state;
    json_int_t dropped = 0;

    write_corpus(place);
    run_dolma(place, "one-rank", 1, "");
    json_t *card = card_of(place, "one-rank"), *web = json_object_get(card, "web");
    for (size_t i = 0; i < ARRAY_COUNT(planted); i++) {
        if (filter_count(card, planted[i].filter) != planted[i].documents)
            fail_msg("%s: %d dropped instead of %u", planted[i].filter,
                     (int)filter_count(card, planted[i].filter), planted[i].documents);
        dropped += planted[i].documents;
    }
    json_int_t kept = json_integer_value(json_object_get(web, "kept"));
    assert_int_equal(kept, PROSE + 2);
    assert_int_equal(json_integer_value(json_object_get(web, "documents")), kept + dropped);
    const json_t *edits = json_object_get(web, "edits");
    assert_int_equal(json_integer_value(json_object_get(edits, "paragraphs_cut")), 1);
    assert_int_equal(json_integer_value(json_object_get(edits, "emails_masked")), 1);
    assert_int_equal(json_integer_value(json_object_get(edits, "phones_masked")), 1);
    /* One sample of each document that fell, naming it and its place. */
    assert_int_equal(json_array_size(json_object_get(web, "samples")), dropped);
    json_decref(card);
}

static void any_number_of_ranks_gives_the_same_bytes(void **state)
{
    struct place *place = *state;

    run_dolma(place, "three-ranks", 3, "");
    assert_same_jobs(place, "one-rank", "three-ranks");
}

/* Killed when its third block is there, and begun again: by another number of ranks. */
static void a_killed_run_goes_on_to_the_same_bytes(void **state)
{
    struct place *place = *state;
    char *spec = dolma_spec(place, ""), *whole = mem_printf("{\"name\": \"killed\", %s}", spec);
    char *spec_path = job_path(place, "killed", ".json"), *out = job_path(place, "killed", "");
    char *block = job_path(place, "killed", "/web/block-000002.jsonl");
    char *arguments[] = {place->engine, "run", "--spec", spec_path, "--out", out, NULL};
    int status = 0;
    bool done = false;
    pid_t pid;

    OK(file_replace(spec_path, whole, strlen(whole), 0644, &fixture_err));
    unsetenv("ATHANOR_REPORT");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    assert_int_equal(posix_spawn(&pid, place->engine, &actions, NULL, arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    while (!done && !file_exists(block))
        done = waitpid(pid, &status, WNOHANG) == pid;
    if (!done) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    struct job_run again = {.name = "killed", .spec = spec, .ranks = 2};
    run_job_in(place, &again, NULL);
    assert_same_jobs(place, "one-rank", "killed");
    mem_free(spec);
    mem_free(whole);
    mem_free(spec_path);
    mem_free(out);
    mem_free(block);
}

static void filters_of_bloom_and_mixing_do_not_depend_on_the_ranks(void **state)
{
    static const char more[] = ", \"dedup\": \"bloom\", \"bloom_n\": 100000, \"holdout_share\": 0, "
                               "\"mix\": [\"books=2.5\", \"web=0.5\"]";
    struct place *place = *state;

    run_dolma(place, "bloom-1", 1, more);
    run_dolma(place, "bloom-2", 2, more);
    assert_same_jobs(place, "bloom-1", "bloom-2");
    json_t *card = card_of(place, "bloom-1"), *web = json_object_get(card, "web");
    const json_t *sources = json_object_get(web, "sources");
    const json_t *books = json_object_get(sources, "books");
    const json_t *texts = json_object_get(sources, "web");
    json_int_t books_kept = json_integer_value(json_object_get(books, "kept"));
    json_int_t web_kept = json_integer_value(json_object_get(texts, "kept"));
    json_int_t added = json_integer_value(json_object_get(web, "added"));
    assert_int_equal(books_kept, 20);
    assert_int_equal(web_kept + json_integer_value(json_object_get(texts, "sampled")), 42);
    assert_in_range(web_kept, 21 - 11, 21 + 11); /* 3.4 standard deviations */
    assert_in_range(added - web_kept, 2 * books_kept, 3 * books_kept);
    assert_int_equal(filter_count(card, "document_dup"), 2); /* filters of this size err never */
    json_decref(card);
}

/* ---- mixing by conditions ---------------------------------------------------------------- */

/* Every kept document by the same conditions in C, from the lines that tell its attributes. */
static void conditions_choose_documents_by_what_the_stages_wrote(void **state)
{
    static const char more[] =
        ", \"mix_include\": [\"source = 'books'\", \"gopher.required >= 84 and (bytes < "
        "1550 or paragraphs_cut = 1)\"], "
        "\"mix_exclude\": [\"word_length > 4 or not pii = 0\", \"paragraphs_cut > 0\", "
        "\"source = books and (top_2 > 0.012 or quoted)\"]";
    struct place *place = *state;
    json_int_t out[4] = {0};
    struct buf every = {0};
    json_t *lines = block_lines(place, "one-rank"), *line, *told;
    const char *name;
    size_t i;

    json_array_foreach(lines, i, line) {
        const json_t *attributes = json_object_get(line, "attributes");
        const json_t *edits = json_object_get(line, "edits");
        double bytes = json_number_value(json_object_get(line, "bytes"));
        bool books = is_in(line, "source", "books");
        if (!is_in(line, "verdict", "kept"))
            continue;
        bool cut = json_object_get(edits, "paragraphs_cut") != NULL;
        if (!books && !(json_number_value(json_object_get(attributes, "required")) >= 84 &&
                        (bytes < 1550 || cut)))
            out[0]++;
        else if (json_number_value(json_object_get(attributes, "word_length")) > 4 ||
                 json_number_value(json_object_get(attributes, "pii")) != 0)
            out[1]++;
        else if (cut)
            out[2]++;
        else if (books && json_number_value(json_object_get(attributes, "top_2")) > 0.012)
            out[3]++;
        json_object_foreach((json_t *)attributes, name, told) {
            struct buf once = {0};
            buf_printf(&once, " %s ", name);
            if (!strstr(buf_text(&every), once.bytes))
                buf_printf(&every, "%s%s", every.length ? "or" : "", once.bytes);
            buf_done(&once);
        }
    }
    json_decref(lines);
    char *said = mem_strdup(more), *quoted = strstr(said, " or quoted");
    memset(quoted, ' ', strlen(" or quoted"));
    run_dolma(place, "conditions", 1, said);
    json_t *card = card_of(place, "conditions"), *web = json_object_get(card, "web");
    print_message("left out: %d %d %d %d\n", (int)out[0], (int)out[1], (int)out[2], (int)out[3]);
    assert_int_equal(filter_count(card, "mix_include"), out[0]);
    assert_int_equal(filter_count(card, "mix_exclude_1"), out[1]);
    assert_int_equal(filter_count(card, "mix_exclude_2"), out[2]);
    assert_int_equal(filter_count(card, "mix_exclude_3"), out[3]);
    assert_true(out[0] && out[1] && out[2] && out[3]);
    assert_int_equal(filter_count(card, "kept"),
                     PROSE + 2 - out[0] - out[1] - out[2] - out[3]);
    assert_int_equal(json_array_size(json_object_get(web, "filters")),
                     ARRAY_COUNT(planted) + 1 + 4);
    json_decref(card);
    mem_free(said);
    /* Every attribute that was written can be asked for. */
    said = mem_printf(", \"mix_include\": [\"%s\"]", every.bytes);
    run_dolma(place, "every-attribute", 1, said);
    card = card_of(place, "every-attribute");
    assert_int_equal(filter_count(card, "kept"), PROSE + 2);
    json_decref(card);
    mem_free(said);
    buf_done(&every);
    /* One that no stage writes can not, and the log says where it stands. */
    char *spec = dolma_spec(place, more), *text, *log = job_path(place, "wrong", ".log");
    struct job_run job = {.name = "wrong", .spec = spec, .may_fail = true};
    size_t length;
    assert_int_not_equal(run_job_in(place, &job, NULL), 0);
    OK(file_read(log, 1 << 20, &text, &length, &fixture_err));
    assert_non_null(strstr(text, "params.mix_exclude: 'source = books and (top_2 > 0.012 or "
                                 "quoted)': column 38: 'quoted' is nothing"));
    mem_free(text);
    mem_free(log);
    mem_free(spec);
}

/* ---- paragraphs by their n-grams --------------------------------------------------------- */

#define GRAM_DOCUMENTS  60
#define GRAM_PARAGRAPHS 4

/* The words of a paragraph, from a small alphabet. */
static size_t gram_words(uint64_t document, uint64_t paragraph, char words[16])
{
    size_t count = rng_at(71, document, paragraph) % 13;

    for (size_t i = 0; i < count; i++)
        words[i] = (char)('a' + rng_at(72, 100 * document + paragraph, i) % 5);
    words[count] = 0;
    return count;
}

static void put_gram_paragraph(struct buf *out, const char *words)
{
    for (; *words; words++)
        buf_printf(out, "%s%c%c", out->length && out->bytes[out->length - 1] != '\n' ? "  " : " ",
                   *words, *words);
    buf_puts(out, "\n");
}

struct told {
    char *items[8192];
    size_t count;
};

static bool was_told(struct told *told, char *key)
{
    for (size_t i = 0; i < told->count; i++)
        if (strcmp(told->items[i], key) == 0) {
            mem_free(key);
            return true;
        }
    assert_true(told->count < ARRAY_COUNT(told->items));
    told->items[told->count++] = key;
    return false;
}

/* The definition, word for word: what came before is in a list of texts. */
static bool is_cut(struct told *told, const char *words, size_t count, size_t n, size_t stride,
                   double overlap)
{
    size_t grams = 0, known = 0;

    for (size_t i = 0; i + n <= count; i += stride)
        grams++;
    if (grams < 2)
        return was_told(told, mem_printf("whole %s", words));
    for (size_t i = 0; i + n <= count; i += stride)
        known += was_told(told, mem_strndup(words + i, n));
    return known > 0 && (double)known / (double)grams >= overlap;
}

static void paragraphs_are_cut_by_the_share_of_their_n_grams_that_was_seen(void **state)
{
    static const struct {
        unsigned n, stride;
        double overlap;
        const char *more;
        int ranks;
    } jobs[] = {{4, 2, 0.5, "", 1}, {4, 2, 0.5, ", \"dedup\": \"bloom\", \"bloom_n\": 10000", 3},
                {5, 1, 1, "", 3},   {3, 3, 0, "", 1}};
    struct place *place = *state;
    struct buf out = {0}, text = {0};
    char *path = job_path(place, "grams", ".jsonl"), words[16], id[32];

    for (uint64_t d = 0; d < GRAM_DOCUMENTS; d++) {
        buf_clear(&text);
        for (uint64_t p = 0; p < GRAM_PARAGRAPHS; p++)
            if (gram_words(d, p, words) > 0)
                put_gram_paragraph(&text, words);
        snprintf(id, sizeof id, "g%d", (int)d);
        put(&out, id, "web", NULL, buf_text(&text));
    }
    OK(file_replace(path, out.bytes, out.length, 0644, &fixture_err));
    for (size_t j = 0; j < ARRAY_COUNT(jobs); j++) {
        struct told told = {.count = 0};
        json_int_t cut = 0;
        char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"dolma\", \"params\": {\"name\": "
                                "\"clean\", \"documents\": [\"%s\"], \"stages\": [\"paragraph\"], "
                                "\"vocab_size\": 300, \"block_bytes\": 4096, \"dedup_ngram\": %u, "
                                "\"dedup_stride\": %u, \"dedup_overlap\": %g%s}",
                                path, jobs[j].n, jobs[j].stride, jobs[j].overlap, jobs[j].more);
        snprintf(id, sizeof id, "grams-%zu", j);
        struct job_run job = {.name = id, .spec = spec, .ranks = jobs[j].ranks};
        run_job_in(place, &job, NULL);
        buf_clear(&out);
        for (uint64_t d = 0; d < GRAM_DOCUMENTS; d++) {
            buf_clear(&text);
            for (uint64_t p = 0; p < GRAM_PARAGRAPHS; p++) {
                size_t count = gram_words(d, p, words);
                bool gone = count && is_cut(&told, words, count, jobs[j].n, jobs[j].stride,
                                            jobs[j].overlap);
                cut += gone;
                if (count && !gone)
                    put_gram_paragraph(&text, words);
            }
            if (text.length)
                buf_printf(&out, "g%d %s", (int)d, text.bytes);
        }
        struct buf kept = {0};
        json_t *lines = block_lines(place, id), *line;
        size_t i;
        json_array_foreach(lines, i, line)
            if (is_in(line, "verdict", "kept"))
                buf_printf(&kept, "%s %s", json_string_value(json_object_get(line, "id")),
                           json_string_value(json_object_get(line, "text")));
        assert_string_equal(kept.bytes, out.bytes);
        print_message("%u-grams: %d paragraphs cut\n", jobs[j].n, (int)cut);
        assert_true(cut > 5);
        json_decref(lines);
        buf_done(&kept);
        for (size_t k = 0; k < told.count; k++)
            mem_free(told.items[k]);
        mem_free(spec);
    }
    buf_done(&out);
    buf_done(&text);
    mem_free(path);
}

static void a_common_eval_set_and_a_malformed_line_end_a_strict_job(void **state)
{
    static const struct {
        const char *more, *says;
    } jobs[] = {{", \"decon_max_removal\": 0.001", "decon_max_removal"},
                {", \"malformed\": \"fail\"", "one.jsonl:"}};
    struct place *place = *state;

    for (size_t i = 0; i < ARRAY_COUNT(jobs); i++) {
        char *base = dolma_spec(place, ""), *cut = strstr(base, ", \"decon_max_removal\": 0.05");
        char *spec = mem_printf("%.*s%s%s", (int)(cut - base), base, jobs[i].more, cut + 27);
        struct job_run job = {.name = "strict", .spec = spec, .may_fail = true};
        char *log = job_path(place, "strict", ".log"), *text;
        size_t length;
        assert_int_not_equal(run_job_in(place, &job, NULL), 0);
        OK(file_read(log, 1 << 20, &text, &length, &fixture_err));
        assert_non_null(strstr(text, jobs[i].says));
        mem_free(text);
        mem_free(log);
        mem_free(spec);
        mem_free(base);
    }
}

/* ---- yi ---------------------------------------------------------------------------------- */

/* Near copies (one word in 40 replaced), and 5 documents that share 60 words. */
static void write_near_copies(const struct place *place)
{
    struct buf out = {0}, shared = {0};
    char id[32], *path = job_path(place, "near", ".jsonl");

    for (int i = 0; i < 60; i++)
        buf_printf(&shared, " passage%d", i);
    for (uint64_t i = 0; i < 40; i++) {
        char *text = prose(5000 + i % 30);
        for (unsigned w = 0, at = 0; i >= 30 && text[at]; at++)
            if (text[at] == ' ' && ++w % 40 == 0)
                text[at + 1] = 'q';
        char *whole = i >= 10 && i < 15 ? joined(text, shared.bytes) : mem_strdup(text);
        snprintf(id, sizeof id, "n%llu", (unsigned long long)i);
        put(&out, id, "web", NULL, whole);
        mem_free(whole);
        mem_free(text);
    }
    OK(file_replace(path, out.bytes, out.length, 0644, &fixture_err));
    buf_done(&out);
    buf_done(&shared);
    mem_free(path);
}

static void run_yi(const struct place *place, const char *name, int ranks, const char *documents)
{
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"yi\", \"params\": {\"name\": "
                            "\"clean\", \"documents\": [\"%s\"], \"stages\": [\"gopher\", "
                            "\"minhash\", \"exact\"], \"vocab_size\": 300, "
                            "\"block_bytes\": 8192, \"holdout_share\": 0, "
                            "\"minhash_jaccard\": 0.5}",
                            documents);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};

    run_job_in(place, &job, NULL);
    mem_free(spec);
}

static void near_copies_and_shared_passages_are_found_and_then_there_are_none(void **state)
{
    struct place *place = *state;
    char *path = job_path(place, "near", ".jsonl");

    write_near_copies(place);
    run_yi(place, "yi-1", 1, path);
    run_yi(place, "yi-3", 3, path);
    assert_same_jobs(place, "yi-1", "yi-3");
    json_t *card = card_of(place, "yi-1");
    const json_t *edits = json_object_get(json_object_get(card, "web"), "edits");
    assert_int_equal(filter_count(card, "near_dup"), 10);
    assert_int_equal(filter_count(card, "kept"), 30);
    assert_int_equal(json_integer_value(json_object_get(edits, "passages_cut")), 4);
    json_decref(card);
    char *again = job_path(place, "yi-1", "/datasets/clean/all.jsonl");
    run_yi(place, "yi-again", 1, again);
    card = card_of(place, "yi-again");
    edits = json_object_get(json_object_get(card, "web"), "edits");
    assert_int_equal(filter_count(card, "kept"), 30);
    assert_int_equal(json_integer_value(json_object_get(edits, "passages_cut")), 0);
    json_decref(card);
    mem_free(again);
    mem_free(path);
}

/* in = kept + the sum of what was dropped by reason, in all and for each source. */
static void check_sums(const json_t *card)
{
    const json_t *web = json_object_get(card, "web"), *filter, *source;
    json_int_t all = 0, of_sources = 0;
    const char *name, *member;
    size_t i;

    json_array_foreach(json_object_get(web, "filters"), i, filter)
        all += json_integer_value(json_object_get(filter, "documents"));
    assert_int_equal(all, json_integer_value(json_object_get(web, "documents")));
    json_object_foreach(json_object_get(web, "sources"), name, source)
    {
        json_int_t sum = 0, in = json_integer_value(json_object_get(source, "documents"));
        json_t *value;
        json_object_foreach((json_t *)source, member, value)
            if (strcmp(member, "documents") != 0 && strcmp(member, "rate") != 0)
                sum += json_integer_value(value);
        assert_int_equal(sum, in);
        of_sources += in;
    }
    assert_int_equal(of_sources, all);
}

#define REAL_PAGES 42 /* of the three files: 10, 10 and 22 */

static void run_real(const struct place *place, const char *name, int ranks, const char *documents)
{
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"yi\", \"params\": {\"name\": "
                            "\"clean\", \"documents\": [%s], \"vocab_size\": 300, "
                            "\"holdout_share\": 0}", documents);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};

    run_job_in(place, &job, NULL);
    mem_free(spec);
}

static json_int_t edit_count(const json_t *card, const char *edit)
{
    return json_integer_value(json_object_get(
        json_object_get(json_object_get(card, "web"), "edits"), edit));
}

/* The whole cascade over pages that were crawled (where each rule fires on them, the oracle of
 * web_rules_test says): all are accounted for, on any ranks, and of what is left a second run drops
 * and cuts nothing. */
static void real_pages_go_through_the_cascade_once(void **state)
{
    static const char *const edits[] = {"lines_cut", "paragraphs_cut", "passages_cut"};
    const struct place *place = *state;
    char *paths[3];

    if (!long_mode()) {
        print_message("[  SKIP  ] needs ATHANOR_TEST_MODE=long\n");
        skip();
    }
    paths[0] = input_path("webdocs/cc_en_head-0091.jsonl");
    paths[1] = input_path("webdocs/dolma-mixer/provided/documents/000.json.gz");
    paths[2] = input_path("webdocs/sample-0000.warc.gz");
    char *all = mem_printf("\"%s\", \"%s\", \"%s\"", paths[0], paths[1], paths[2]);
    for (int ranks = 1; ranks <= 4; ranks *= 2) {
        char *name = mem_printf("real-%d", ranks);
        run_real(place, name, ranks, all);
        assert_same_jobs(place, "real-1", name);
        mem_free(name);
    }
    json_t *card = card_of(place, "real-1");
    json_int_t kept = filter_count(card, "kept");
    check_sums(card);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(card, "web"),
                                                        "documents")), REAL_PAGES);
    assert_true(kept > REAL_PAGES / 2 && kept < REAL_PAGES && edit_count(card, "lines_cut") > 0);
    json_decref(card);
    char *again = job_path(place, "real-1", "/datasets/clean/all.jsonl");
    char *quoted = mem_printf("\"%s\"", again);
    run_real(place, "real-again", 1, quoted);
    card = card_of(place, "real-again");
    assert_int_equal(filter_count(card, "kept"), kept);
    for (size_t i = 0; i < ARRAY_COUNT(edits); i++)
        assert_int_equal(edit_count(card, edits[i]), 0);
    json_decref(card);
    mem_free(quoted);
    mem_free(again);
    mem_free(all);
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++)
        mem_free(paths[i]);
}

/* ---- web archives ------------------------------------------------------------------------ */

#define ARCHIVES 5
#define PAGES    8 /* of an archive; one more is not there */

static void put_record(struct buf *out, const char *id, const char *status, const char *page)
{
    char *http = mem_printf("HTTP/1.1 %s\r\nContent-Type: text/html; charset=utf-8\r\n\r\n%s",
                            status, page);

    buf_printf(out, "WARC/1.1\r\nWARC-Type: response\r\nWARC-Record-ID: <%s>\r\n"
               "WARC-Target-URI: http://example.org/%s\r\nContent-Type: application/http;"
               "msgtype=response\r\nContent-Length: %zu\r\n\r\n%s\r\n\r\n", id, id,
               strlen(http), http);
    mem_free(http);
}

static void write_archives(const struct place *place)
{
    char id[32], name[32];

    for (uint64_t a = 0; a < ARCHIVES; a++) {
        struct buf out = {0};
        for (uint64_t i = 0; i < PAGES; i++) {
            char *text = prose(8000 + a * PAGES + i);
            char *page = mem_printf("<html><head><title>T</title></head><body><nav>Menu</nav><p>%s"
                                    "<p>Copyright &copy; everyone.</body></html>", text);
            snprintf(id, sizeof id, "a%d-%d", (int)a, (int)i);
            put_record(&out, id, "200 OK", page);
            mem_free(page);
            mem_free(text);
        }
        put_record(&out, "gone", "404 Not Found", "gone");
        snprintf(name, sizeof name, "part-%d", (int)a);
        char *path = job_path(place, name, ".warc");
        OK(file_replace(path, out.bytes, out.length, 0644, &fixture_err));
        mem_free(path);
        buf_done(&out);
    }
}

static void pages_of_archives_are_documents_on_any_number_of_ranks(void **state)
{
    static const char *const names[] = {"archives-1", "archives-3"};
    struct place *place = *state;

    write_archives(place);
    for (int i = 0; i < 1 + long_mode(); i++) {
        char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"dolma\", \"params\": {"
                                "\"name\": \"clean\", \"vocab_size\": 300, "
                                "\"documents\": [\"%s/part-*.warc\"]}",
                                place->folder);
        struct job_run job = {.name = names[i], .spec = spec, .ranks = 1 + 2 * i};
        run_job_in(place, &job, NULL);
        mem_free(spec);
    }
    if (long_mode())
        assert_same_jobs(place, names[0], names[1]);
    json_t *card = card_of(place, names[0]);
    assert_int_equal(filter_count(card, "kept"), ARCHIVES * PAGES);
    assert_int_equal(filter_count(card, "no_page"), ARCHIVES);
    /* Said by every page, so it stays in one; what is in <nav> in none. */
    assert_int_equal(count_texts(place, names[0], "Copyright \xC2\xA9 everyone."), 1);
    assert_int_equal(count_texts(place, names[0], "Menu"), 0);
    json_decref(card);
}

/* ---- scorers ----------------------------------------------------------------------------- */

#define LABELLED 300 /* comments of a labelled set: a third each clean, hateful, obscene */
#define ADS      60  /* documents of the topic, as many as others */

static const char *const marker[] = {"", "grublot", "snarkle"}; /* what judges object to */

/* A set as Jigsaw's is, and one of topics. */
static void write_labelled(const struct place *place)
{
    struct buf csv = {0}, topics = {0};
    char *csv_path = job_path(place, "comments", ".csv");
    char *topics_path = job_path(place, "topics", ".jsonl");

    buf_puts(&csv, "id,comment_text,toxic,severe_toxic,obscene,threat,insult,identity_hate\n");
    for (uint64_t i = 0; i < LABELLED; i++) {
        unsigned kind = i % 3;
        char *text = prose(9000 + i / 6); /* the mark alone tells the kinds apart */
        *strchr(text, '.') = 0;
        buf_printf(&csv, "%d,\"%s %s\",%d,0,%d,0,%d,0\n", (int)i, text, marker[kind], kind == 1,
                   kind == 2, kind == 1);
        buf_printf(&topics, "{\"body\": \"%s %s\", \"topic\": \"%s\"}\n", text,
                   i % 2 ? "buy it cheaply" : "as is known", i % 2 ? "ads" : "knowledge");
        mem_free(text);
    }
    OK(file_replace(csv_path, csv.bytes, csv.length, 0644, &fixture_err));
    OK(file_replace(topics_path, topics.bytes, topics.length, 0644, &fixture_err));
    buf_done(&csv);
    buf_done(&topics);
    mem_free(csv_path);
    mem_free(topics_path);
}

static void learn(const struct place *place, const char *name, const char *classes)
{
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"classifier\", \"params\": "
                            "{\"classes\": [%s], \"features\": \"words\", \"buckets_log2\": 20, "
                            "\"window\": 0, \"epochs\": 40}", classes);
    struct job_run job = {.name = name, .spec = spec};

    run_job_in(place, &job, NULL);
    mem_free(spec);
}

/* Documents whose first sentence is marked, but for every third; and advertisements. */
static void write_marked(const struct place *place)
{
    struct buf out = {0};
    char *path = job_path(place, "marked", ".jsonl"), id[32];

    for (uint64_t i = 0; i < 30 + 2 * ADS; i++) {
        char *text = prose(7000 + i), *stop = strchr(text, '.');
        bool ad = i >= 30 && i % 2;
        char *whole = mem_printf("%.*s %s%s %s", (int)(stop - text), text,
                                 i < 30 ? marker[i % 3] : "", stop,
                                 ad ? "Buy it cheaply. Cheaply buy it, cheaply!"
                                    : "As is known. It is known, as is known.");
        snprintf(id, sizeof id, "m%llu", (unsigned long long)i);
        put(&out, id, "web", NULL, whole);
        mem_free(whole);
        mem_free(text);
    }
    OK(file_replace(path, out.bytes, out.length, 0644, &fixture_err));
    buf_done(&out);
    mem_free(path);
}

static void run_scored(const struct place *place, const char *name, int ranks, const char *params)
{
    char *hate = checkpoint_of(place, "hate", 40), *nsfw = checkpoint_of(place, "nsfw", 40);
    char *topic = checkpoint_of(place, "topic", 40);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"dolma\", \"inputs\": {\"hate\": "
                            "{\"path\": \"%s\"}, \"nsfw\": {\"path\": \"%s\"}, \"topic\": "
                            "{\"path\": \"%s\"}}, \"params\": {\"name\": \"clean\", "
                            "\"documents\": [\"%s/marked.jsonl\"], \"vocab_size\": 300, "
                            "\"block_bytes\": 16384, %s}",
                            hate, nsfw, topic, place->folder, params);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};

    run_job_in(place, &job, NULL);
    mem_free(spec);
    mem_free(hate);
    mem_free(nsfw);
    mem_free(topic);
}

/* Every marked sentence goes, and only it; a scorer that drops takes the marked documents. */
static void scorers_learned_from_labelled_sets_find_what_judges_marked(void **state)
{
    static const char stages[] = "\"stages\": [\"scores\", \"topic\"]";
    struct place *place = *state;
    char *more = mem_printf("%s, \"scorers\": ["
                            "\"hate=hate/hate max=0.4 unit=sentence action=cut\", "
                            "\"rude=nsfw/nsfw max=0.4 unit=sentence\", "
                            "\"late=scorer_1/x max=0.5\"], \"topic_keep\": [\"ads=0.25\"]", stages);
    char *classes = mem_printf("\"hate=%s/comments.csv?text=comment_text&any=toxic|severe_toxic|"
                               "threat|insult|identity_hate\", \"clean=%s/comments.csv?text="
                               "comment_text&none=toxic|severe_toxic|threat|insult|identity_hate\"",
                               place->folder, place->folder);

    write_labelled(place);
    write_marked(place);
    learn(place, "hate", classes);
    mem_free(classes);
    classes = mem_printf("\"nsfw=%s/comments.csv?text=comment_text&any=obscene\", \"clean=%s/"
                         "comments.csv?text=comment_text&none=obscene\"", place->folder,
                         place->folder);
    learn(place, "nsfw", classes);
    mem_free(classes);
    classes = mem_printf("\"ads=%s/topics.jsonl?text=body&is=topic:ads\", \"knowledge=%s/"
                         "topics.jsonl?text=body&is=topic:knowledge\"", place->folder,
                         place->folder);
    learn(place, "topic", classes);
    mem_free(classes);
    run_scored(place, "scored-1", 1, more);
    run_scored(place, "scored-3", 3, more);
    assert_same_jobs(place, "scored-1", "scored-3");
    json_t *card = card_of(place, "scored-1"), *web = json_object_get(card, "web");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(web, "edits"),
                                                        "scored_cut")), 10);
    assert_int_equal(filter_count(card, "rude"), 10);
    assert_string_equal(json_string_value(json_array_get(json_object_get(web, "off"), 0)),
                        "scores: late");
    assert_int_equal(count_texts(place, "scored-1", marker[1]), 0);
    assert_int_equal(count_texts(place, "scored-1", marker[2]), 0);
    assert_int_equal(count_texts(place, "scored-1", "As is known"), 20 + ADS);
    json_int_t kept = (json_int_t)count_texts(place, "scored-1", "Buy it cheaply");
    assert_in_range(kept, 15 - 12, 15 + 12); /* 3.6 standard deviations of 60 draws of 1/4 */
    assert_int_equal(filter_count(card, "topic"), ADS - kept);
    assert_int_equal(filter_count(card, "kept"), 20 + ADS + kept);
    json_decref(card);
    /* The defaults of dolma: both are cut by sentence at 0.4, and a sentence is all that goes. */
    run_scored(place, "scored-default", 2, "\"stages\": [\"scores\"]");
    card = card_of(place, "scored-default");
    web = json_object_get(card, "web");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(web, "edits"),
                                                        "scored_cut")), 20);
    assert_int_equal(filter_count(card, "kept"), 30 + 2 * ADS);
    assert_int_equal(count_texts(place, "scored-default", marker[1]), 0);
    json_decref(card);
    mem_free(more);
}

/* ---- clusters ---------------------------------------------------------------------------- */

#define OF_EACH 40 /* documents of knowledge (k...) and advertisements (a...) */

static void write_groups(const struct place *place)
{
    struct buf out = {0};
    char *path = job_path(place, "groups", ".jsonl"), id[32];

    for (uint64_t i = 0; i < 2 * OF_EACH; i++) {
        struct buf text = {0};
        for (uint64_t w = 0; w < 40; w++)
            buf_printf(&text, "%s%d ", i % 2 ? "offer" : "element", (int)(rng_at(i, w, 0) % 25));
        buf_puts(&text, i % 2 ? "Buy it cheaply. Cheaply buy it, cheaply!"
                              : "As is known. It is known, as is known.");
        snprintf(id, sizeof id, "%c%d", i % 2 ? 'a' : 'k', (int)i);
        put(&out, id, "web", NULL, text.bytes);
        buf_done(&text);
    }
    OK(file_replace(path, out.bytes, out.length, 0644, &fixture_err));
    buf_done(&out);
    mem_free(path);
}

static void run_clusters(const struct place *place, const char *name, int ranks, const char *more)
{
    char *topic = checkpoint_of(place, "topic", 40);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"yi\", \"inputs\": {\"quality\": "
                            "{\"path\": \"%s\"}}, \"params\": {\"name\": \"clean\", "
                            "\"documents\": [\"%s/groups.jsonl\"], \"vocab_size\": 300, "
                            "\"quality_label\": \"knowledge\", "
                            "\"stages\": [\"minhash\", \"cluster\"], "
                            "\"block_bytes\": 4096%s}", topic, place->folder, more);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};

    run_job_in(place, &job, NULL);
    mem_free(spec);
    mem_free(topic);
}

/* What the job tells of its clusters, by number. */
static json_t *clusters_of(const struct place *place, const char *name)
{
    char *path = job_path(place, name, "/web/clusters.jsonl"), *bytes;
    json_t *all = json_array();
    size_t length;

    OK(file_read(path, 1 << 24, &bytes, &length, &fixture_err));
    for (char *rest = bytes, *line; (line = strsep(&rest, "\n"));)
        if (*line)
            json_array_append_new(all, json_loads(line, 0, NULL));
    mem_free(bytes);
    mem_free(path);
    return all;
}

static double number_in(const json_t *cluster, const char *name)
{
    return json_number_value(json_object_get(cluster, name));
}

/* Looked at first, without a drop; then the bad ones are named, and gone with all they have. */
static void clusters_are_told_first_and_dropped_when_named(void **state)
{
    struct place *place = *state;
    struct buf more = {0};
    json_int_t documents = 0;
    size_t i;

    write_groups(place);
    run_clusters(place, "clusters-1", 1, "");
    run_clusters(place, "clusters-3", 3, "");
    assert_same_jobs(place, "clusters-1", "clusters-3");
    json_t *all = clusters_of(place, "clusters-1"), *cluster, *card;
    buf_puts(&more, ", \"cluster_keep\": [");
    json_array_foreach(all, i, cluster) {
        const json_t *first = json_array_get(json_object_get(cluster, "samples"), 0);
        const char *id = json_string_value(json_object_get(first, "id"));
        assert_int_equal(json_array_size(json_object_get(cluster, "samples")) < 3,
                         number_in(cluster, "documents") < 3);
        assert_int_equal(*id == 'a', number_in(cluster, "label") < 0.5);
        if (*id == 'a')
            buf_printf(&more, "%s\"%zu=0\"", more.bytes[more.length - 1] == '[' ? "" : ", ", i);
        documents += (json_int_t)number_in(cluster, "documents");
    }
    assert_int_equal(documents, 2 * OF_EACH);
    assert_in_range(json_array_size(all), 2, 7); /* of the root of half of 80 */
    buf_puts(&more, "]");
    run_clusters(place, "clusters-named", 2, more.bytes);
    card = card_of(place, "clusters-named");
    assert_int_equal(filter_count(card, "cluster"), OF_EACH);
    assert_int_equal(filter_count(card, "kept"), OF_EACH);
    assert_int_equal(count_texts(place, "clusters-named", "Buy it"), 0);
    json_decref(card);
    json_decref(all);
    /* A share of the worst: the lowest labels, and no document of another cluster. */
    run_clusters(place, "clusters-worst", 1, ", \"cluster_drop_pct\": 40");
    all = clusters_of(place, "clusters-worst");
    double dropped_most = 0, kept_least = 1, gone = 0;
    json_array_foreach(all, i, cluster) {
        double label = number_in(cluster, "label");
        if (number_in(cluster, "rate") == 0) {
            dropped_most = fmax(dropped_most, label);
            gone += number_in(cluster, "documents");
        } else {
            kept_least = fmin(kept_least, label);
        }
    }
    card = card_of(place, "clusters-worst");
    assert_true(gone > 0 && dropped_most <= kept_least);
    assert_int_equal(filter_count(card, "cluster"), (json_int_t)gone);
    json_decref(card);
    json_decref(all);
    buf_done(&more);
}

/* ---- coherence --------------------------------------------------------------------------- */

/* Sentences of words of a topic each ("AABB": two of each), of twenty words. */
static void put_topics(struct buf *out, uint64_t number, const char *topics)
{
    for (uint64_t s = 0; topics[s]; s++)
        for (uint64_t w = 0; w < 30; w++)
            buf_printf(out, "%c%s%d%s", topics[s], rng_at(number, 100 * s + w, 0) % 3 ? "ra" : "",
                       (int)(rng_at(number, 100 * s + w, 1) % 20), w < 29 ? " " : ". ");
}

static void run_coherence(const struct place *place, const char *name, int ranks)
{
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"yi\", \"params\": {"
                            "\"name\": \"clean\", "
                            "\"documents\": [\"%s/joined.jsonl\"], \"reference\": "
                            "[\"%s/alike.jsonl\"], \"vocab_size\": 300, \"block_bytes\": 8192, "
                            "\"stages\": [\"coherence\", \"pii\", \"paragraph\"]}",
                            place->folder, place->folder);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};

    run_job_in(place, &job, NULL);
    mem_free(spec);
}

/* Documents with words of two topics, which begin with its letter and end with a digit. */
static size_t count_mixed(const struct place *place, const char *name)
{
    char *path = job_path(place, name, "/datasets/clean/all.jsonl"), *bytes;
    size_t length, mixed = 0;

    OK(file_read(path, 1 << 26, &bytes, &length, &fixture_err));
    for (char *rest = bytes, *line; (line = strsep(&rest, "\n"));) {
        unsigned topics = 0;
        for (char *word; (word = strsep(&line, " ."));) {
            size_t end = strlen(word);
            if (end > 1 && word[end - 1] >= '0' && word[end - 1] <= '9' && *word >= 'a' &&
                *word <= 'c')
                topics |= 1u << (*word - 'a');
        }
        mixed += (topics & (topics - 1)) != 0;
    }
    mem_free(bytes);
    mem_free(path);
    return mixed;
}

/* Texts of one topic for reference, and others that are joined of two. */
static void write_joined(const struct place *place)
{
    struct buf out = {0}, text = {0};
    char *alike = job_path(place, "alike", ".jsonl");
    char *joined_path = job_path(place, "joined", ".jsonl");
    char id[32];

    for (uint64_t i = 0; i < 400; i++) {
        static const char *const topics[] = {"aaaa", "bbbb", "cccc"};
        buf_clear(&text);
        put_topics(&text, i, topics[i % 3]);
        snprintf(id, sizeof id, "r%d", (int)i);
        put(&out, id, "web", NULL, text.bytes);
    }
    OK(file_replace(alike, out.bytes, out.length, 0644, &fixture_err));
    buf_clear(&out);
    for (uint64_t i = 0; i < 60; i++) {
        static const char *const topics[] = {"aaaaaa", "bbaacc", "aacc"};
        buf_clear(&text);
        put_topics(&text, 1000 + i, topics[i % 3]);
        buf_puts(&text, "Mail to me@example.org there.");
        snprintf(id, sizeof id, "%s%d", i % 3 == 0 ? "whole" : "joined", (int)i);
        put(&out, id, "web", NULL, text.bytes);
    }
    OK(file_replace(joined_path, out.bytes, out.length, 0644, &fixture_err));
    buf_done(&out);
    buf_done(&text);
    mem_free(alike);
    mem_free(joined_path);
}

/* Texts of one topic stay; those joined of two become two documents, their masks with them. */
static void joined_texts_become_documents_of_their_own(void **state)
{
    struct place *place = *state;

    write_joined(place);
    run_coherence(place, "coherence-1", 1);
    if (long_mode()) {
        run_coherence(place, "coherence-3", 3);
        assert_same_jobs(place, "coherence-1", "coherence-3");
    }
    assert_int_equal(count_mixed(place, "coherence-1"), 0);
    assert_int_equal(count_texts(place, "coherence-1", "joined1:1"), 1);
    assert_int_equal(count_texts(place, "coherence-1", "me@example"), 0);
    json_t *card = card_of(place, "coherence-1"), *web = json_object_get(card, "web");
    json_int_t kept = filter_count(card, "kept"), gone = filter_count(card, "coherence");
    assert_int_equal(json_integer_value(json_object_get(web, "documents")), kept + gone);
    assert_in_range(kept, 60, 130);
    json_decref(card);
}

/* ---- limits from the documents ----------------------------------------------------------- */

#define OF_A 120 /* documents of language a; of b a quarter */

/* Texts of any length and of more or less repetition, which is what measures tell apart. */
static void write_tongues(const struct place *place)
{
    struct buf out = {0};
    char *path = job_path(place, "tongues", ".jsonl"), id[32];

    for (uint64_t i = 0; i < OF_A + OF_A / 4; i++) {
        bool b = i % 5 == 4;
        struct buf text = {0};
        uint64_t words = 20 + rng_at(21, i, 0) % 300, kinds = 4 + rng_at(21, i, 1) % 200;
        for (uint64_t w = 0; w < words; w++) {
            put_word(&text, rng_at(21, i, 2 + w) % kinds, i);
            buf_puts(&text, b ? "qx " : w % 9 ? " " : " the of\n");
        }
        snprintf(id, sizeof id, "%c%d", b ? 'b' : 'a', (int)i);
        put(&out, id, "web", NULL, text.bytes);
        buf_done(&text);
    }
    OK(file_replace(path, out.bytes, out.length, 0644, &fixture_err));
    buf_done(&out);
    mem_free(path);
}

static char *tongues_spec(const struct place *place, const char *params)
{
    char *langid = checkpoint_of(place, "tongue", 40);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"yi\", \"inputs\": {\"langid\": "
                            "{\"path\": \"%s\"}}, \"params\": {\"name\": \"clean\", "
                            "\"documents\": [\"%s/tongues.jsonl\"], \"vocab_size\": 300, "
                            "\"stages\": [\"gopher\"], \"block_bytes\": 16384, "
                            "\"holdout_share\": 0, %s}", langid, place->folder, params);

    mem_free(langid);
    return spec;
}

/* 40 epochs: where checkpoint_of looks. */
static void learn_tongues(const struct place *place)
{
    struct buf a = {0}, b = {0};
    char *classes, *paths[] = {job_path(place, "a", ".txt"), job_path(place, "b", ".txt")};

    for (uint64_t i = 0; i < 400; i++) {
        put_word(&a, 3, i);
        put_word(&b, 3, i);
        buf_puts(&a, i % 9 ? " " : " the of ");
        buf_puts(&b, "qx ");
    }
    OK(file_replace(paths[0], a.bytes, a.length, 0644, &fixture_err));
    OK(file_replace(paths[1], b.bytes, b.length, 0644, &fixture_err));
    classes = mem_printf("\"a=%s\", \"b=%s\"", paths[0], paths[1]);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"classifier\", \"params\": "
                            "{\"classes\": [%s], \"buckets_log2\": 12, \"epochs\": 40}", classes);
    struct job_run job = {.name = "tongue", .spec = spec};
    run_job_in(place, &job, NULL);
    mem_free(spec);
    mem_free(classes);
    for (int i = 0; i < 2; i++)
        mem_free(paths[i]);
    buf_done(&a);
    buf_done(&b);
}

static int run_tongues(const struct place *place, const char *name, int ranks, const char *params)
{
    char *spec = tongues_spec(place, params);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks, .may_fail = true};
    int status = run_job_in(place, &job, NULL);

    mem_free(spec);
    return status;
}

static json_t *limits_in(const json_t *card, const char *language)
{
    json_t *limits = json_object_get(json_object_get(card, "web"), "limits"), *row;
    size_t i;

    json_array_foreach(json_object_get(limits, "languages"), i, row)
        if (strcmp(json_string_value(json_object_get(row, "language")), language) == 0)
            return row;
    fail_msg("no limits of language %s", language);
    return NULL;
}

/* The documents of a job as its blocks tell of them: id, verdict, attributes. */
static json_t *documents_of(const struct place *place, const char *name)
{
    char *folder = job_path(place, name, "/web"), *bytes;
    json_t *all = json_array();
    size_t length;

    for (unsigned b = 0;; b++) {
        char *path = mem_printf("%s/block-%06u.jsonl", folder, b);
        bool there = file_exists(path);
        if (there)
            OK(file_read(path, 1 << 26, &bytes, &length, &fixture_err));
        mem_free(path);
        if (!there)
            break;
        for (char *rest = strchr(bytes, '\n') + 1, *line; (line = strsep(&rest, "\n"));)
            if (*line)
                json_array_append_new(all, json_loads(line, 0, NULL));
        mem_free(bytes);
    }
    mem_free(folder);
    return all;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double attribute_of(const json_t *document, const char *name)
{
    return json_number_value(json_object_get(json_object_get(document, "attributes"), name));
}

/* Sorts the measure of all documents of a language: the limits are the values that one in ten is
 * below, or above, but for the 256th part that a bin is wide and for nine digits. */
static void check_measure(const json_t *documents, const char *language, const char *measure,
                          const json_t *sides)
{
    double value[OF_A], places[2] = {0.1, 0.9};
    const json_t *document;
    size_t count = 0, i;

    json_array_foreach(documents, i, document)
        if (json_string_value(json_object_get(document, "id"))[0] == *language)
            value[count++] = attribute_of(document, measure);
    qsort(value, count, sizeof *value, compare_doubles);
    for (int side = 0; side < 2; side++) {
        const json_t *told = json_array_get(sides, (size_t)side);
        if (json_is_null(told))
            continue;
        size_t place = side ? (size_t)ceil(places[1] * (double)count) - 1
                            : (size_t)floor(places[0] * (double)count);
        double off = json_number_value(told) - value[place], most = value[place] / 255 + 1e-8;
        if (side ? off < -1e-8 * value[place] || off > most : off > 1e-8 || -off > most)
            fail_msg("%s of %s: %g is told, %g is at its place", measure, language,
                     json_number_value(told), value[place]);
    }
}

/* Dropped exactly when a measure is beyond a limit; what nine digits cannot tell is left out. */
static void check_verdict(const json_t *document, const json_t *measures)
{
    bool beyond = false, near = false;
    const char *measure;
    json_t *sides;

    json_object_foreach((json_t *)measures, measure, sides)
    {
        const json_t *low = json_array_get(sides, 0), *high = json_array_get(sides, 1);
        double value = attribute_of(document, measure), least = json_number_value(low);
        double most = json_number_value(high), margin = 1e-8 * fabs(value);
        near = near || (!json_is_null(low) && fabs(value - least) <= margin && value != least) ||
               (!json_is_null(high) && fabs(value - most) <= margin && value != most);
        beyond = beyond || (!json_is_null(low) && value < least - margin) ||
                 (!json_is_null(high) && value > most + margin);
    }
    const char *verdict = json_string_value(json_object_get(document, "verdict"));
    if (!near)
        assert_int_equal(beyond, strcmp(verdict, "kept") != 0);
}

/* The limits of a card as params.limits takes them. */
static char *pinned(const json_t *card)
{
    struct buf out = {0};
    const char *languages = "ab", *measure;
    json_t *sides;

    for (; *languages; languages++) {
        char language[2] = {*languages, 0};
        json_object_foreach(json_object_get(limits_in(card, language), "measures"), measure, sides)
        {
            buf_printf(&out, "%s\"%s/%s=", out.length ? ", " : "", language, measure);
            for (size_t side = 0; side < 2; side++) {
                const json_t *limit = json_array_get(sides, side);
                if (!json_is_null(limit))
                    buf_printf(&out, "%.17g", json_number_value(limit));
                buf_puts(&out, side ? "\"" : ":");
            }
        }
    }
    return buf_take(&out);
}

static void limits_are_drawn_from_the_documents_of_each_language(void **state)
{
    static const char all[] = "\"rules_mode\": \"quantile\", \"rules_sample\": 1, "
                              "\"rules_sample_min\": 30";
    struct place *place = *state;
    json_t *card, *documents, *document, *sides;
    const char *languages[] = {"a", "b"}, *measure;
    size_t i, kept = 0;

    write_tongues(place);
    learn_tongues(place);
    assert_int_equal(run_tongues(place, "drawn-1", 1, all), 0);
    assert_int_equal(run_tongues(place, "drawn-3", 3, all), 0);
    assert_same_jobs(place, "drawn-1", "drawn-3");
    card = card_of(place, "drawn-1");
    documents = documents_of(place, "drawn-1");
    for (size_t l = 0; l < ARRAY_COUNT(languages); l++) {
        const json_t *told = limits_in(card, languages[l]);
        assert_int_equal(json_integer_value(json_object_get(told, "documents")),
                         l ? OF_A / 4 : OF_A);
        assert_true(json_is_true(json_object_get(told, "drawn")));
        json_object_foreach(json_object_get(told, "measures"), measure, sides)
            check_measure(documents, languages[l], measure, sides);
    }
    json_array_foreach(documents, i, document)
    {
        const char *id = json_string_value(json_object_get(document, "id"));
        check_verdict(document, json_object_get(limits_in(card, *id == 'a' ? "a" : "b"),
                                                "measures"));
        kept += strcmp(json_string_value(json_object_get(document, "verdict")), "kept") == 0;
    }
    assert_in_range(kept, 10, OF_A);
    /* Looked at and pinned: nothing is drawn any more, and the same documents are kept. */
    char *pins = pinned(card), *params = mem_printf("\"limits\": [%s]", pins);
    assert_int_equal(run_tongues(place, "pinned", 2, params), 0);
    char *a = job_path(place, "drawn-1", "/datasets/clean");
    char *b = job_path(place, "pinned", "/datasets/clean");
    assert_same_file(a, b, "all.jsonl");
    mem_free(a);
    mem_free(b);
    mem_free(params);
    mem_free(pins);
    json_decref(documents);
    json_decref(card);
}

/* The sample is a share of the ids; a language with too few documents keeps the published limits,
 * and when all have too few the job says so. */
static void too_small_a_sample_is_told_and_falls_back(void **state)
{
    struct place *place = *state;
    char *log = job_path(place, "too-few", ".log"), *text;
    size_t length, expected = 0;
    json_t *card;

    assert_int_equal(run_tongues(place, "some", 2, "\"rules_mode\": \"quantile\", "
                                 "\"rules_sample\": 0.5, \"rules_sample_min\": 40, \"limits\": "
                                 "[\"words=21:\"]"), 0);
    card = card_of(place, "some");
    for (int i = 0; i < OF_A + OF_A / 4; i++) {
        char id[32];
        struct hash hash;
        uint64_t bits;
        snprintf(id, sizeof id, "a%d", i);
        hash_bytes(id, strlen(id), &hash);
        memcpy(&bits, hash.bytes, sizeof bits);
        expected += i % 5 != 4 && rng_unit_at(1337, bits, 10) < 0.5;
    }
    const json_t *a = limits_in(card, "a"), *b = limits_in(card, "b");
    assert_int_equal(json_integer_value(json_object_get(a, "documents")), expected);
    assert_true(json_is_true(json_object_get(a, "drawn")));
    assert_false(json_is_true(json_object_get(b, "drawn")));
    const json_t *published = json_object_get(json_object_get(b, "measures"), "letters");
    assert_true(json_number_value(json_array_get(published, 0)) == 0.8);
    for (int l = 0; l < 2; l++) { /* pinned wins over both */
        const json_t *words = json_object_get(json_object_get(l ? b : a, "measures"), "words");
        assert_true(json_number_value(json_array_get(words, 0)) == 21);
        assert_true(json_is_null(json_array_get(words, 1)));
    }
    json_decref(card);
    assert_int_not_equal(run_tongues(place, "too-few", 1, "\"rules_mode\": \"quantile\""), 0);
    OK(file_read(log, 1 << 20, &text, &length, &fixture_err));
    assert_non_null(strstr(text, "no language has rules_sample_min (100)"));
    mem_free(text);
    mem_free(log);
}

/* ---- other sources ----------------------------------------------------------------------- */

/* head, a letter that many times, tail. */
static const char *spread(const char *head, char letter, size_t count, const char *tail)
{
    static char room[50000];

    assert_true(strlen(head) + count + strlen(tail) < sizeof room);
    char *at = stpcpy(room, head);
    memset(at, letter, count);
    memcpy(at + count, tail, strlen(tail) + 1);
    return room;
}

static void write_code(struct buf *out)
{
    struct buf tail = {0};

    /* Just at, and just beyond, each limit of the card. */
    expect(out, "kept", spread("", 'x', 100, ""), "");
    expect(out, "code_line_mean", spread("", 'x', 101, ""), "");
    for (int i = 0; i < 20; i++)
        buf_puts(&tail, "\nten_letter");
    expect(out, "kept", spread("", 'x', 1000, tail.bytes), "");
    expect(out, "code_line_max", spread("", 'x', 1001, tail.bytes), "");
    buf_done(&tail);
    expect(out, "kept", spread("abcdefghijklmnopqrstuvwxy", '+', 75, ""), "");
    expect(out, "code_alnum", spread("abcdefghijklmnopqrstuvwx", '+', 76, ""), "");
    expect(out, "kept", "aa bb cc", "");
    expect(out, "code_alpha_tokens", "aa bb c", "");
    expect(out, "code_comments", spread("", 'x', 100, ""), "\"ext\": \"py\"");
    expect(out, "kept", spread("", 'x', 98, "\n#"), "\"ext\": \".PY\"");
    expect(out, "code_comments", spread("", 'x', 99, "\n#"), "\"lang\": \"Python\"");
    expect(out, "kept", spread("#", 'x', 79, "\ncode=and+more+codes"), "\"ext\": \"py\"");
    expect(out, "code_comments", spread("#", 'x', 80, "\ncode=and+more+code"),
           "\"path\": \"a.b/c.py\"");
    expect(out, "kept", spread("'#' + 1 #", 'x', 60, "\nabcdefghi=1"), "\"ext\": \"py\"");
    expect(out, "code_comments", spread("'// no comment';", 'x', 60, ""), "\"ext\": \"js\"");
    expect(out, "kept", spread("/* one */", 'x', 60, ""), "\"ext\": \"java\"");
    expect(out, "kept", spread("none asked for", 'x', 60, ""), "\"ext\": \"c\"");
    /* 120 and 119 of 600 characters; 101 and 100 of 300. */
    for (int i = 0; i < 4; i++) {
        static const int texts[] = {120, 119, 101, 100}, whole[] = {600, 600, 300, 300};
        struct buf page = {0};
        buf_puts(&page, "<p>");
        for (int c = 0; c < texts[i]; c++)
            buf_putc(&page, 'x');
        buf_puts(&page, "</p>\n<!--");
        while ((int)page.length < whole[i] - 3)
            buf_putc(&page, page.length % 50 ? 'y' : '\n');
        buf_puts(&page, "-->");
        expect(out, i % 2 ? "code_html_text" : "kept", page.bytes, "\"ext\": \"html\"");
        buf_done(&page);
    }
    expect(out, "kept", "stars are few", "\"stars\": 2");
    expect(out, "code_stars", "stars are few", "\"metadata\": {\"max_stars_count\": 1}");
    expect(out, "code_data", "some numbers", "\"path\": \"data/table.csv\"");
    expect(out, "code_data", "some numbers", "\"lang\": \"JSON\"");
    expect(out, "kept", "some numbers", "\"path\": \"data.csv/table\"");
    expect(out, "code_xml", spread("", 'x', 86, "<?xml version=\"1.0\"?>\n\n\n"), "");
    expect(out, "kept", spread("", 'x', 87, "<?xml version=\"1.0\"?>\n\n\n"), "");
    expect(out, "secret", "login = https://me:word@example.org", "");
    expect(out, "kept", "login = https://example.org/me", "");
}

static void write_social(struct buf *out)
{
    expect(out, "social_comment", spread("", 'x', 499, ""), "");
    expect(out, "kept", spread("", 'x', 500, ""), "\"type\": \"comment\"");
    expect(out, "kept", spread("", 'x', 40000, ""), "\"type\": \"comment\"");
    expect(out, "social_comment", spread("", 'x', 40001, ""), "");
    expect(out, "social_submission", spread("", 'x', 399, ""), "\"type\": \"submission\"");
    expect(out, "kept", spread("", 'x', 400, ""), "\"type\": \"Submission\"");
    expect(out, "kept", spread("", 'x', 40000, ""), "\"type\": \"submission\"");
    expect(out, "social_submission", spread("", 'x', 40001, ""), "\"type\": \"submission\"");
    expect(out, "social_votes", spread("", 'x', 600, ""), "\"votes\": 2");
    expect(out, "kept", spread("", 'x', 600, ""), "\"score\": 3");
    expect(out, "social_deleted", " [removed]\n", "");
    expect(out, "social_deleted", spread("", 'x', 600, ""), "\"author\": \"[deleted]\"");
    expect(out, "social_deleted", spread("", 'x', 600, ""), "\"deleted\": true");
    expect(out, "social_adult", spread("", 'x', 600, ""), "\"over_18\": true");
    expect(out, "kept", spread("", 'x', 600, ""), "\"over_18\": false");
    expect(out, "social_blocked", spread("", 'x', 600, ""), "\"subreddit\": \"BadPlace\"");
    expect(out, "kept", spread("", 'x', 600, ""), "\"subreddit\": \"BadPlaces\"");
    expect(out, "pii", spread("1.2.3.4 ", 'x', 600, ""), "");
}

static void write_books(struct buf *out)
{
    struct buf words = {0};

    for (int i = 0; i < 25; i++)
        buf_puts(&words, "word ");
    expect(out, "wiki_words", words.bytes, "\"title\": \"Short\"");
    buf_puts(&words, "last");
    expect(out, "kept", words.bytes, "\"title\": \"Emma\"");
    expect(out, "kept", words.bytes, "\"title\": \"emma\"");
    expect(out, "title_dup", words.bytes, "\"metadata\": {\"title\": \"Emma\"}");
    expect(out, "kept", words.bytes, "");
    expect(out, "kept", words.bytes, "\"title\": \"\"");
    expect(out, "kept", words.bytes, "\"title\": \"\"");
    expect(out, "title_dup", words.bytes, "\"title\": \"emma\"");
    buf_done(&words);
}

/* The place's folder for P. */
static char *placed_list(const struct place *place, const char *params)
{
    const char *mark = strstr(params, "\"P/");

    if (!mark)
        return mem_strdup(params);
    return mem_printf("%.*s\"%s/%s", (int)(mark - params), params, place->folder, mark + 3);
}

static void run_source(const struct place *place, const char *name, int ranks,
                       void (*write)(struct buf *), const char *params)
{
    struct buf lines = {0};
    char *path = job_path(place, name, ".jsonl"), *own;

    write(&lines);
    OK(file_replace(path, lines.bytes, lines.length, 0644, &fixture_err));
    own = placed_list(place, params);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"dolma\", \"params\": {\"name\": "
                            "\"clean\", \"documents\": [\"%s\"], \"vocab_size\": 300, "
                            "\"block_bytes\": 4096, \"holdout_share\": 0, %s}", path, own);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks};
    run_job_in(place, &job, NULL);
    assert_expected_verdicts(place, name);
    mem_free(spec);
    mem_free(own);
    mem_free(path);
    buf_done(&lines);
}

static void documents_of_other_sources_fall_just_beyond_their_limits(void **state)
{
    struct place *place = *state;
    char *list = job_path(place, "forums", ".txt");

    OK(file_replace(list, "worse\r\nBADPLACE\n", 16, 0644, &fixture_err));
    mem_free(list);
    run_source(place, "code", 1, write_code, "\"stages\": [\"code\", \"secrets\"], "
               "\"source_limits\": [\"code_stars=2:\"]");
    run_source(place, "social", 1, write_social, "\"stages\": [\"social\", \"pii\"], "
               "\"pii_action\": \"drop\", \"forum_lists\": [\"P/forums.txt\"]");
    run_source(place, "books", 3, write_books, "\"stages\": [\"wiki\", \"title\"]");
}

/* ---- killed in every stage ---------------------------------------------------------------- */

/* Texts of one paragraph, which only minhash and exact compare: six of them, half with a passage of
 * 60 words in common, and near copies of all. */
static void write_paragraphs(const struct place *place)
{
    struct buf out = {0}, text = {0};
    char id[32], *path = job_path(place, "paragraphs", ".jsonl");

    for (uint64_t i = 0; i < 12; i++) {
        buf_clear(&text);
        put_topics(&text, 2000 + i % 6, "aaaaaa");
        for (size_t w = 0, at = 0; i >= 6 && at < text.length; at++)
            if (text.bytes[at] == ' ' && ++w % 40 == 0)
                text.bytes[at + 1] = 'b';
        if (i % 2)
            put_topics(&text, 3000, "aa");
        snprintf(id, sizeof id, "l%d", (int)i);
        put(&out, id, "books", NULL, text.bytes);
    }
    for (uint64_t i = 0; i < 2; i++) { /* and two of two paragraphs, one of them the same */
        buf_clear(&text);
        put_topics(&text, 4000 + i, "aaaa");
        buf_putc(&text, '\n');
        put_topics(&text, 5000, "aa");
        put(&out, i ? "two" : "one", "books", NULL, text.bytes);
    }
    OK(file_replace(path, out.bytes, out.length, 0644, &fixture_err));
    buf_done(&out);
    buf_done(&text);
    mem_free(path);
}

/* Limits from the documents, web archives and lines, stages of every kind. */
static char *every_stage(const struct place *place)
{
    return mem_printf(
        "\"kind\": \"data\", \"recipe\": \"yi\", \"params\": {\"name\": \"clean\", "
        "\"documents\": [\"%s/part-*.warc\", \"%s/joined.jsonl\", \"%s/paragraphs.jsonl\"], "
        "\"reference\": [\"%s/alike.jsonl\"], \"vocab_size\": 300, \"block_bytes\": 16384, "
        "\"stages\": [\"url\", \"document\", \"gopher\", \"pii\", \"perplexity\", \"coherence\", "
        "\"paragraph\", \"minhash\", \"exact\", \"cluster\"], \"rules_mode\": \"quantile\", "
        "\"rules_sample\": 1, \"rules_q_low\": 0.01, \"rules_q_high\": 0.99, "
        "\"perplexity_sigma\": 6, \"cluster_k\": 4, \"cluster_keep\": [\"3=0.5\"], "
        "\"minhash_jaccard\": 0.5, \"mix\": [\"web=1.5\"]}",
        place->folder, place->folder, place->folder, place->folder);
}

static size_t blocks_of(const struct place *place, const char *name)
{
    for (size_t count = 0;; count++) {
        char rest[64];
        snprintf(rest, sizeof rest, "/web/block-%06zu.jsonl", count);
        char *path = job_path(place, name, rest);
        bool there = file_exists(path);
        mem_free(path);
        if (!there)
            return count;
    }
}

/* Runs with `ranks`, is killed in the step behind `step`, goes on with `others`. False: there is no
 * such step. */
static bool kill_behind(const struct place *place, const char *spec, uint64_t step, int ranks,
                        int others)
{
    char *name = mem_printf("killed-%d-%d-%d", (int)step, ranks, others);
    struct job_run job = {.name = name, .spec = spec, .ranks = ranks, .may_fail = true,
                          .kill_step = step};
    struct job_run again = {.name = name, .spec = spec, .ranks = others};
    int status = run_job_in(place, &job, NULL);

    run_job_in(place, &again, NULL);
    assert_same_jobs(place, "every-1", name);
    mem_free(name);
    return status != 0;
}

static void a_kill_in_any_stage_and_any_ranks_leave_the_same_bytes(void **state)
{
    struct place *place = *state;
    char *spec;

    write_archives(place);
    write_joined(place);
    write_paragraphs(place);
    spec = every_stage(place);
    for (int ranks = 1; ranks <= 4; ranks *= 2) {
        char *name = mem_printf("every-%d", ranks);
        struct job_run job = {.name = name, .spec = spec, .ranks = ranks};
        run_job_in(place, &job, NULL);
        assert_same_jobs(place, "every-1", name);
        mem_free(name);
    }
    json_t *card = card_of(place, "every-1");
    check_sums(card);
    static const char *const fired[] = {"no_page", "near_dup", "coherence", "cluster"};
    for (size_t i = 0; i < ARRAY_COUNT(fired); i++)
        if (filter_count(card, fired[i]) == 0)
            fail_msg("nothing was dropped by %s", fired[i]);
    const json_t *edits = json_object_get(json_object_get(card, "web"), "edits");
    assert_true(json_integer_value(json_object_get(edits, "passages_cut")) > 0);
    assert_true(json_integer_value(json_object_get(edits, "paragraphs_cut")) > 0);
    json_decref(card);
    /* Behind a round, all rounds, near duplicates and passages; in long mode behind every step. */
    uint64_t blocks = blocks_of(place, "every-1");
    if (long_mode()) {
        for (int ranks = 1; ranks <= 4; ranks *= 2)
            for (uint64_t step = 1; kill_behind(place, spec, step, ranks, 4 / ranks); step++)
                ;
    } else {
        const uint64_t steps[] = {1 + blocks / 2, 1 + blocks, 2 + blocks, 3 + blocks};
        for (size_t i = 0; i < ARRAY_COUNT(steps); i++)
            kill_behind(place, spec, steps[i], 1, i == 0 ? 2 : 1);
    }
    mem_free(spec);
}

/* ---- languages --------------------------------------------------------------------------- */

static void languages_are_told_apart_on_texts_not_learned_from(void **state)
{
    static const char *const languages[] = {"eng", "deu", "fra", "spa", "ita", "nld", "por_PT",
                                            "swe", "pol", "dan"};
    struct place *place = *state;
    const char *shared = getenv("ATHANOR_SHARED_DATA");
    char *zip = mem_printf("%s/corpora/udhr2.zip", shared && *shared ? shared : "../shared/data");
    struct trace trace = {0};
    struct buf classes = {0};

    if (!file_exists(zip) || access("/usr/bin/python3", X_OK) != 0) {
        print_message("[  SKIP  ] needs %s and python3\n", zip);
        mem_free(zip);
        skip();
    }
    assert_int_equal(spawn_line(mem_printf("exec python3 -m zipfile -e '%s' '%s'", zip,
                                           place->folder)), 0);
    for (size_t i = 0; i < ARRAY_COUNT(languages); i++)
        buf_printf(&classes, "%s\"%s=%s/udhr2/%s.txt\"", i ? ", " : "", languages[i],
                   place->folder, languages[i]);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"classifier\", \"params\": "
                            "{\"classes\": [%s], \"epochs\": 4, \"buckets_log2\": 16}",
                            classes.bytes);
    struct job_run job = {.name = "langid", .spec = spec};
    run_job_in(place, &job, &trace);
    double accuracy = 0, held = 0;
    for (size_t i = 0; i < trace.count; i++) {
        if (strcmp(trace.points[i].name, "accuracy") == 0)
            accuracy = trace.points[i].value;
        if (strcmp(trace.points[i].name, "held_out_texts") == 0)
            held = trace.points[i].value;
    }
    print_message("accuracy %.4f on %.0f held-out texts of 200 characters\n", accuracy, held);
    assert_true(held > 30 && accuracy >= 0.95);
    trace_done(&trace);
    buf_done(&classes);
    mem_free(spec);
    mem_free(zip);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planted_documents_fall_to_the_rule_they_were_planted_for),
        cmocka_unit_test(any_number_of_ranks_gives_the_same_bytes),
        cmocka_unit_test(a_killed_run_goes_on_to_the_same_bytes),
        cmocka_unit_test(filters_of_bloom_and_mixing_do_not_depend_on_the_ranks),
        cmocka_unit_test(conditions_choose_documents_by_what_the_stages_wrote),
        cmocka_unit_test(paragraphs_are_cut_by_the_share_of_their_n_grams_that_was_seen),
        cmocka_unit_test(a_common_eval_set_and_a_malformed_line_end_a_strict_job),
        cmocka_unit_test(near_copies_and_shared_passages_are_found_and_then_there_are_none),
        cmocka_unit_test(real_pages_go_through_the_cascade_once),
        cmocka_unit_test(pages_of_archives_are_documents_on_any_number_of_ranks),
        cmocka_unit_test(scorers_learned_from_labelled_sets_find_what_judges_marked),
        cmocka_unit_test(clusters_are_told_first_and_dropped_when_named),
        cmocka_unit_test(joined_texts_become_documents_of_their_own),
        cmocka_unit_test(limits_are_drawn_from_the_documents_of_each_language),
        cmocka_unit_test(too_small_a_sample_is_told_and_falls_back),
        cmocka_unit_test(documents_of_other_sources_fall_just_beyond_their_limits),
        cmocka_unit_test(a_kill_in_any_stage_and_any_ranks_leave_the_same_bytes),
        cmocka_unit_test(languages_are_told_apart_on_texts_not_learned_from),
    };
    cmocka_set_test_filter(getenv("ATHANOR_TEST_FILTER"));
    return cmocka_run_group_tests(tests, place_open, place_close);
}
