/* web_dolma_test.c - what Dolma's own tools put out for their test documents, document by document;
 * and the verdicts of C4, classifiers and perplexity just below and just above each limit. */
#include "tests/train/web_fixture.h"

#include "tests/unit/data/inputs.h"
#include "worker/engine/io/model_files.h"
#include "worker/recipes/data/web/chars.h"
#include "worker/recipes/data/web/classifier.h"
#include "worker/recipes/data/web/pii.h"
#include "worker/recipes/data/web/predicate.h"
#include "worker/recipes/data/web/spans.h"
#include "worker/recipes/data/web/stream.h"
#include "worker/recipes/data/web/trigram.h"

#define FOLDER    "webdocs/dolma-mixer/"
#define DOCUMENTS 10 /* of each of Dolma's files */

/* ---- Dolma's files ----------------------------------------------------------------------- */

static json_t *dolma_lines(const char *name)
{
    char whole[128], *path;

    snprintf(whole, sizeof whole, FOLDER "%s", name); /* input_path may skip the test here */
    path = input_path(whole);
    json_t *all = json_array();
    struct stream stream;
    bool more = true;

    OK(stream_open(path, &stream, &fixture_err));
    for (;;) {
        OK(stream_line(&stream, &more, &fixture_err));
        if (!more)
            break;
        assert_int_equal(json_array_append_new(all, json_loads(buf_text(&stream.line), 0, NULL)),
                         0);
    }
    stream_close(&stream);
    mem_free(path);
    return all;
}

static const char *text_of(const json_t *lines, size_t i, const char *name)
{
    const char *text = json_string_value(json_object_get(json_array_get(lines, i), name));

    assert_non_null(text);
    return text;
}

static const json_t *attributes_of(const json_t *lines, size_t i)
{
    return json_object_get(json_array_get(lines, i), "attributes");
}

/* Dolma counts characters, and its last paragraph ends one behind a text that ends in none. */
static size_t byte_of(const char *text, const json_t *place)
{
    size_t length = strlen(text), at = 0, bytes;

    for (json_int_t c = json_integer_value(place); c > 0 && at < length; c--, at += bytes)
        char_at(text + at, length - at, &bytes);
    return at;
}

/* ---- duplicates -------------------------------------------------------------------------- */

static void run_stages(const struct place *place, const char *name, const char *documents,
                       const char *params)
{
    char *whole = mem_printf(FOLDER "%s", documents), *path = input_path(whole);
    char *spec = mem_printf("\"kind\": \"data\", \"recipe\": \"dolma\", \"params\": {\"name\": "
                            "\"clean\", \"documents\": [\"%s\"], \"vocab_size\": 300, "
                            "\"holdout_share\": 0, %s}", path, params);
    struct job_run job = {.name = name, .spec = spec};

    run_job_in(place, &job, NULL);
    mem_free(spec);
    mem_free(path);
    mem_free(whole);
}

static void the_documents_that_dolma_marks_by_url_are_dropped(void **state)
{
    struct place *place = *state;
    json_t *expected = dolma_lines("expected/dedupe-by-url.json.gz");
    size_t marked = 0;

    run_stages(place, "urls", "provided/deduper/documents/000.json.gz", "\"stages\": [\"url\"]");
    json_t *lines = block_lines(place, "urls"), *card = card_of(place, "urls");
    assert_int_equal(json_array_size(lines), DOCUMENTS);
    assert_int_equal(json_array_size(expected), DOCUMENTS);
    for (size_t i = 0; i < DOCUMENTS; i++) {
        bool mark = json_object_get(attributes_of(expected, i), "bff_duplicate_url") != NULL;
        assert_string_equal(text_of(lines, i, "id"), text_of(expected, i, "id"));
        assert_string_equal(text_of(lines, i, "verdict"), mark ? "url_dup" : "kept");
        marked += mark;
    }
    assert_int_equal(marked, 1);
    assert_int_equal(filter_count(card, "url_dup"), marked);
    json_decref(card);
    json_decref(lines);
    json_decref(expected);
}

/* A document's text without the spans of an attribute, and without one more passage. */
static void cut_text(const char *text, const json_t *list, const char *also, struct buf *out)
{
    struct spans spans = {0};
    const json_t *span;
    size_t i;

    json_array_foreach(list, i, span)
        spans_add(&spans, byte_of(text, json_array_get(span, 0)),
                  byte_of(text, json_array_get(span, 1)), NULL);
    if (also) {
        const char *found = strstr(text, also);
        assert_non_null(found);
        spans_add(&spans, (size_t)(found - text), (size_t)(found - text) + strlen(also), NULL);
    }
    buf_clear(out);
    spans_apply(&spans, text, strlen(text), out);
    spans_done(&spans);
}

/* Whole paragraphs: every cut is Dolma's. By n-grams there is one more, and no less. Dolma's tool
 * takes words as UAX 29 has them, each punctuation mark one, and begins n-grams at the words 0, 1,
 * 4, 7 and so on of a paragraph; ours are cut at white space and begin at 0, 3, 6. So of one
 * paragraph in ten documents it has seen two n-grams of four, which it leaves, and we two of
 * three. */
static void paragraphs_are_cut_where_dolma_cuts_them(void **state)
{
    static const struct {
        const char *name, *expected, *more;
        size_t extra_document;
        const char *extra;
        json_int_t cuts;
    } jobs[] = {
        {"paragraphs", "expected/dedupe-paragraphs.json.gz", "", 0, NULL, 43},
        {"ngrams", "expected/dedupe-paragraph-ngrams.json.gz",
         ", \"dedup_ngram\": 6, \"dedup_stride\": 3, \"dedup_overlap\": 0.5", 9,
         "1,000 Jazz Albums You Should Hear Before You Die \xE2\x80\x93 The First 750\n", 45},
    };
    struct place *place = *state;
    json_t *documents = dolma_lines("provided/deduper/documents/000.json.gz");
    struct buf wanted = {0};

    for (size_t j = 0; j < ARRAY_COUNT(jobs); j++) {
        json_t *expected = dolma_lines(jobs[j].expected), *lines;
        char *params = mem_printf("\"stages\": [\"paragraph\"]%s", jobs[j].more);
        json_int_t cuts = 0;
        run_stages(place, jobs[j].name, "provided/deduper/documents/000.json.gz", params);
        lines = block_lines(place, jobs[j].name);
        assert_int_equal(json_array_size(lines), DOCUMENTS);
        for (size_t i = 0; i < DOCUMENTS; i++) {
            const json_t *spans = json_object_get(attributes_of(expected, i),
                                                  "bff_duplicate_paragraph_spans");
            const json_t *edits = json_object_get(json_array_get(lines, i), "edits");
            const char *also = i == jobs[j].extra_document ? jobs[j].extra : NULL;
            size_t count = json_array_size(spans) + (also != NULL);
            cut_text(text_of(documents, i, "text"), spans, also, &wanted);
            assert_string_equal(text_of(lines, i, "text"), buf_text(&wanted));
            assert_int_equal(json_integer_value(json_object_get(edits, "paragraphs_cut")), count);
            cuts += (json_int_t)count;
        }
        assert_int_equal(cuts, jobs[j].cuts);
        mem_free(params);
        json_decref(lines);
        json_decref(expected);
    }
    json_decref(documents);
    buf_done(&wanted);
}

/* ---- spans ------------------------------------------------------------------------------- */

#define MIN_SCORE 0.5 /* of Dolma's mixer in these tests */

/* Spans of an attribute as cuts, or as masks of what they hold. */
static void add_spans(struct spans *spans, const char *text, const json_t *list, bool mask,
                      char *masks[], size_t *mask_count)
{
    const json_t *span;
    size_t i;

    json_array_foreach(list, i, span) {
        size_t begin = byte_of(text, json_array_get(span, 0));
        size_t end = byte_of(text, json_array_get(span, 1));
        if (json_number_value(json_array_get(span, 2)) < MIN_SCORE)
            continue;
        if (mask)
            masks[(*mask_count)++] = mem_printf("[B-EMAIL]%.*s[E-EMAIL]", (int)(end - begin),
                                                text + begin);
        spans_add(spans, begin, end, mask ? masks[*mask_count - 1] : NULL);
    }
}

/* Dolma's mixer replaced these spans; our edits of the same spans give the same texts. */
static void spans_are_cut_and_masked_as_the_mixer_does(void **state)
{
    static const struct {
        const char *attributes, *group, *cut, *mask, *expected;
    } cases[] = {
        {"pii", "pii", "company_name", "email", "expected/email-spans.json.gz"},
        {"pii", "pii", "none", "email", "expected/email-spans-jq.json.gz"},
        {"duplicate_paragraphs", NULL, "bff_duplicate_paragraph_spans", "none",
         "expected/remove-paragraphs.json.gz"},
    };
    json_t *documents = dolma_lines("provided/documents/000.json.gz");
    struct buf out = {0};

    (void)state;
    for (size_t c = 0; c < ARRAY_COUNT(cases); c++) {
        char *name = mem_printf("provided/attributes/%s/000.json.gz", cases[c].attributes);
        json_t *attributes = dolma_lines(name), *expected = dolma_lines(cases[c].expected);
        size_t edited = 0;
        assert_int_equal(json_array_size(expected), DOCUMENTS);
        for (size_t i = 0; i < DOCUMENTS; i++) {
            const char *text = text_of(documents, i, "text");
            const json_t *all = attributes_of(attributes, i);
            const json_t *group = cases[c].group ? json_object_get(all, cases[c].group) : all;
            struct spans spans = {0};
            char *masks[8];
            size_t mask_count = 0;
            add_spans(&spans, text, json_object_get(group, cases[c].cut), false, NULL, NULL);
            add_spans(&spans, text, json_object_get(group, cases[c].mask), true, masks,
                      &mask_count);
            edited += spans.count > 0;
            buf_clear(&out);
            spans_apply(&spans, text, strlen(text), &out);
            assert_string_equal(buf_text(&out), text_of(expected, i, "text"));
            spans_done(&spans);
            while (mask_count)
                mem_free(masks[--mask_count]);
        }
        assert_int_equal(edited, cases[c].group ? 3 : 1);
        json_decref(attributes);
        json_decref(expected);
        mem_free(name);
    }
    json_decref(documents);
    buf_done(&out);
}

/* The addresses that people marked in these documents, but for one: it ends its text, where the
 * published pattern asks for white space. */
static void addresses_are_found_where_people_marked_them(void **state)
{
    json_t *documents = dolma_lines("provided/documents/000.json.gz");
    json_t *attributes = dolma_lines("provided/attributes/pii/000.json.gz");
    size_t marked = 0, at_end = 0;

    (void)state;
    for (size_t i = 0; i < DOCUMENTS; i++) {
        const char *text = text_of(documents, i, "text");
        const json_t *list = json_object_get(json_object_get(attributes_of(attributes, i), "pii"),
                                             "email"), *span;
        struct pii_spans found = {0};
        size_t s, next = 0;
        pii_find(text, strlen(text), &found);
        json_array_foreach(list, s, span) {
            size_t end = byte_of(text, json_array_get(span, 1));
            if (json_number_value(json_array_get(span, 2)) < MIN_SCORE)
                continue;
            marked++;
            if (!text[end]) {
                at_end++;
                continue;
            }
            while (next < found.count && found.items[next].kind != PII_EMAIL)
                next++;
            assert_true(next < found.count);
            assert_int_equal(found.items[next].begin, byte_of(text, json_array_get(span, 0)));
            assert_int_equal(found.items[next++].end, end);
        }
        for (; next < found.count; next++)
            assert_int_not_equal(found.items[next].kind, PII_EMAIL);
        pii_done(&found);
    }
    assert_int_equal(marked, 3);
    assert_int_equal(at_end, 1);
    json_decref(documents);
    json_decref(attributes);
}

/* ---- mixing ------------------------------------------------------------------------------ */

enum { LENGTH, TOO_MUCH, TOXICITY, RANDOM, DUMMY, NAME_COUNT };
static const struct predicate_name names[NAME_COUNT] = {
    {"length", "metadata", false}, {"too_much_pii", "pii", false}, {"toxicity", NULL, false},
    {"random", "sample", false},   {"dummy", NULL, false}};

static struct predicate_value number_of(const json_t *value)
{
    return (struct predicate_value){.known = json_is_number(value) || json_is_boolean(value),
                                    .number = json_is_boolean(value) ? json_is_true(value)
                                                                     : json_number_value(value)};
}

static bool holds(const char *condition, const struct predicate_value *values)
{
    struct predicate *predicate;

    OK(predicate_parse(condition, names, NAME_COUNT, &predicate, &fixture_err));
    bool answer = predicate_holds(predicate, values);
    predicate_free(predicate);
    return answer;
}

/* The conditions of Dolma's two configurations in our words choose the documents it chose. */
static void conditions_choose_the_documents_that_the_mixer_chose(void **state)
{
    static const struct {
        const char *include, *exclude, *expected;
    } cases[] = {
        {"metadata.length < 10000",
         "metadata.length < 500 or pii.too_much_pii = 1 or toxicity > 0.8",
         "expected/mixer.json.gz"},
        {"sample.random < 0.5", "dummy and dummy > 0.5", "expected/filter-by-spans.json.gz"},
    };
    json_t *documents = dolma_lines("provided/documents/000.json.gz");
    json_t *pii = dolma_lines("provided/attributes/pii/000.json.gz");
    json_t *toxicity = dolma_lines("provided/attributes/toxicity/000.json.gz");
    json_t *sample = dolma_lines("provided/attributes/sample/000.json.gz");

    (void)state;
    for (size_t c = 0; c < ARRAY_COUNT(cases); c++) {
        json_t *expected = dolma_lines(cases[c].expected);
        size_t next = 0;
        for (size_t i = 0; i < DOCUMENTS; i++) {
            const json_t *line = json_array_get(documents, i);
            const json_t *draws = json_object_get(attributes_of(sample, i),
                                                  "sample__random_number_v1__random");
            struct predicate_value values[NAME_COUNT] = {
                [LENGTH] = number_of(json_object_get(json_object_get(line, "metadata"), "length")),
                [TOO_MUCH] = number_of(json_object_get(json_object_get(attributes_of(pii, i),
                                                                       "pii"), "too_much_pii")),
                [TOXICITY] = number_of(json_object_get(attributes_of(toxicity, i), "toxicity")),
                [RANDOM] = number_of(json_array_get(json_array_get(draws, 0), 2))};
            if (!holds(cases[c].include, values) || holds(cases[c].exclude, values))
                continue;
            assert_string_equal(text_of(expected, next, "id"), text_of(documents, i, "id"));
            assert_string_equal(text_of(expected, next++, "text"), text_of(documents, i, "text"));
        }
        assert_int_equal(next, json_array_size(expected));
        assert_int_equal(next, 6);
        json_decref(expected);
    }
    json_decref(documents);
    json_decref(pii);
    json_decref(toxicity);
    json_decref(sample);
}

/* ---- verdicts at their limits ------------------------------------------------------------ */

static void write_text(const struct place *place, const char *name, const char *rest,
                       const char *text)
{
    char *path = job_path(place, name, rest);

    OK(file_replace(path, text, strlen(text), 0644, &fixture_err));
    mem_free(path);
}

/* Of a job that judges the documents of NAME.jsonl. (mem_free) */
static char *judge_spec(const struct place *place, const char *name, const char *recipe,
                        const char *inputs, const char *params)
{
    return mem_printf("\"kind\": \"data\", \"recipe\": \"%s\", \"inputs\": {%s}, \"params\": "
                      "{\"name\": \"clean\", \"documents\": [\"%s/%s.jsonl\"], "
                      "\"vocab_size\": 300, \"holdout_share\": 0, %s}",
                      recipe, inputs, place->folder, name, params);
}

/* Lines with their verdicts, in one file, and the job that judges them. */
static void judge(const struct place *place, const char *name, struct buf *lines,
                  const char *recipe, const char *inputs, const char *params)
{
    char *spec = judge_spec(place, name, recipe, inputs, params);
    struct job_run job = {.name = name, .spec = spec};

    write_text(place, name, ".jsonl", lines->bytes);
    run_job_in(place, &job, NULL);
    assert_expected_verdicts(place, name);
    mem_free(spec);
}

/* The job again where it was, with another list: what the former found is not taken for its own. */
static void judge_by_another_list(const struct place *place, const char *params)
{
    char *spec = judge_spec(place, "c4", "dolma", "", params);
    struct job_run job = {.name = "c4", .spec = spec};

    write_text(place, "naughty", ".txt", "dolor\n");
    run_job_in(place, &job, NULL);
    json_t *card = card_of(place, "c4");
    assert_int_equal(filter_count(card, "c4_naughty"), 1);
    json_decref(card);
    mem_free(spec);
}

#define FOUR "One is here. Is two? Three! And four. "

static void pages_fall_to_the_rules_of_c4_just_beyond_their_limits(void **state)
{
    static const struct {
        const char *verdict, *text;
    } pages[] = {
        {"kept", FOUR "Five."},
        {"c4_minsents", FOUR "Five, not ended"},
        {"c4_minsents", "One. Two. Three. Four. 5.0 is no end"},
        {"kept", "\"One.\" (Two?) [Three!] 'Four.' Five.\")]"},
        {"kept", FOUR "javascripts, javascript, script."},
        {"c4_js", FOUR "Five. Turn on JavaScript now"},
        {"c4_js", "javascript\n" FOUR "Five."},
        {"kept", FOUR "lorem  ipsum, lorem\nipsum, loremipsum."},
        {"c4_lorem", FOUR "xLorem Ipsumx."},
        {"kept", FOUR "So much dolor was there."},
        {"c4_lorem", "lorem ipsum"}, /* and too short, which is asked later */
        {"kept", FOUR "Five } [ (."},
        {"c4_brace", FOUR "Five {."},
        {"kept", FOUR "grublots, grublot, snark of a tale."},
        {"c4_naughty", FOUR "A GRUBLOT sat."},
        {"c4_naughty", FOUR "Snark\n Tale again."},
        {"kept", FOUR "tale snark, snark-tale again."},
        {"c4_naughty", FOUR "one bad two bad three again."},
        {"kept", FOUR "one bad two bad four again."},
        {"c4_naughty", "a grublot { of javascript"},
        {"c4_js", "javascript { lorem ipsum"},
    };
    struct place *place = *state;
    struct buf lines = {0};

    write_text(place, "naughty", ".txt", "grublot\r\nSnark  tale\n\none bad two bad three\n");
    for (size_t i = 0; i < ARRAY_COUNT(pages); i++)
        expect(&lines, pages[i].verdict, pages[i].text, "");
    char *params = mem_printf("\"stages\": [\"c4\"], \"c4_rules\": [\"naughty\", \"js\", "
                              "\"lorem\", \"brace\", \"minsents\"], \"naughty_words\": "
                              "\"%s/naughty.txt\"", place->folder);
    judge(place, "c4", &lines, "dolma", "", params);
    judge_by_another_list(place, params);
    mem_free(params);
    buf_done(&lines);
}

/* A classifier of two labels that says p of a text that is one of these words, and `other` of any
 * text without them: a text of one word has one feature, whose weight counts CLASSIFIER_SCALE
 * times. Its path (mem_free). */
static char *plant_classifier(const struct place *place, const char *label, float threshold,
                              double other, const char *const words[], const double p[],
                              size_t count)
{
    const char *const labels[] = {label, "other"};
    struct classifier *made;
    struct features features = {0};
    char *folder = job_path(place, label, ""), *file, *text;

    OK(classifier_new(FEATURES_WORDS, 12, labels, 2, &made, &fixture_err));
    made->bias[0] = (float)log(other / (1 - other));
    made->threshold[0] = threshold;
    for (size_t i = 0; i < count; i++) {
        features_set(&features, made, words[i], strlen(words[i]));
        assert_int_equal(features.count, 1);
        float *weight = &made->weights[2 * (size_t)features.bucket[0]];
        assert_true(*weight == 0); /* no bucket is another word's too */
        *weight = ((float)log(p[i] / (1 - p[i])) - made->bias[0]) / CLASSIFIER_SCALE;
    }
    struct named_array arrays[] = {
        {.name = "weights", .dim_count = 2, .values = made->weights, .shape = {1 << 12, 2}},
        {.name = "bias", .dim_count = 1, .shape = {2}, .values = made->bias},
        {.name = "threshold", .dim_count = 1, .shape = {2}, .values = made->threshold}};
    OK(file_make_folders(folder, 0755, &fixture_err));
    file = mem_printf("%s/model.safetensors", folder);
    OK(arrays_write(file, arrays, ARRAY_COUNT(arrays), &fixture_err));
    text = classifier_text(made);
    write_text(place, label, "/classifier.json", text);
    mem_free(text);
    mem_free(file);
    features_done(&features);
    classifier_free(made);
    return folder;
}

/* p(word) of these: 1e-4 beyond a limit, within it, and for languages at it, which f32 holds. */
static const char *const strange[] = {"strange", "familiar"}, *const rude[] = {"rude", "curt"},
                  *const poor[] = {"poor", "fair"};
static const double p_strange[] = {0.4999, 0.5001}, p_rude[] = {0.4001, 0.3999},
                    p_poor[] = {0.6999, 0.7001};

static void told(const struct place *place, const char *job, size_t line, const char *name,
                 double p)
{
    json_t *lines = block_lines(place, job);
    const json_t *value = json_object_get(attributes_of(lines, line), name);

    assert_true(json_is_number(value));
    assert_true(fabs(json_number_value(value) - p) < 1e-6); /* of f32 logits and exp */
    json_decref(lines);
}

static void documents_fall_to_classifiers_just_beyond_their_limits(void **state)
{
    struct place *place = *state;
    struct buf lines = {0};
    char *langid = plant_classifier(place, "en", 0, 0.5, strange, p_strange, 2);
    char *toxic = plant_classifier(place, "toxic", 0, 0.01, rude, p_rude, 2);
    char *good = plant_classifier(place, "good", 0.7F, 0.95, poor, p_poor, 2);

    expect(&lines, "language", "strange", "");
    expect(&lines, "kept", "familiar", "");
    expect(&lines, "kept", "neither", ""); /* p = 0.5 = language_min */
    expect(&lines, "toxicity", "rude.", "");
    expect(&lines, "kept", "curt.", "");
    expect(&lines, "toxicity", "Curt. Calm. Rude. Curt.", ""); /* the worst sentence's */
    expect(&lines, "kept", "Curt. Calm. Curt. Curt.", "");
    expect(&lines, "quality", "poor", "");
    expect(&lines, "kept", "fair", "");
    char *inputs = mem_printf("\"langid\": {\"path\": \"%s\"}, \"toxicity\": {\"path\": \"%s\"}, "
                              "\"quality\": {\"path\": \"%s\"}", langid, toxic, good);
    judge(place, "judged", &lines, "dolma", inputs,
          "\"stages\": [\"language\", \"toxicity\", \"quality\"]");
    told(place, "judged", 0, "language", p_strange[0]);
    told(place, "judged", 2, "language", 0.5);
    told(place, "judged", 5, "toxicity", p_rude[0]);
    told(place, "judged", 6, "toxicity", p_rude[1]);
    told(place, "judged", 7, "quality", p_poor[0]);
    mem_free(inputs);
    mem_free(langid);
    mem_free(toxic);
    mem_free(good);
    buf_done(&lines);
}

/* ---- perplexity -------------------------------------------------------------------------- */

#define SEED 1337 /* the recipe's default, by which some of the reference is held out */

/* Twelve words of thirty, in an order of their own. */
static void put_known(struct buf *out, uint64_t number)
{
    for (uint64_t w = 0; w < 12; w++)
        buf_printf(out, "known%d ", (int)(rng_at(31, number, w) % 30));
}

/* One unknown word after another makes a text less likely, by less than the limit is wide: the last
 * above the limit stays, and the first below it goes. (The model's own figures: tests/unit/recipes/
 * web_stages_test.c computes them by hand.) */
static void texts_fall_to_perplexity_with_one_unknown_word_too_many(void **state)
{
    struct place *place = *state;
    struct trigram *model = trigram_new(SEED);
    struct buf reference = {0}, lines = {0}, text = {0};
    size_t crossed = 0;

    for (uint64_t i = 0; i < 300; i++) {
        buf_clear(&text);
        put_known(&text, i);
        put(&reference, "r", "books", NULL, text.bytes);
        trigram_add(model, text.bytes, text.length);
    }
    OK(trigram_finish(model, &fixture_err));
    double limit = trigram_limit(model, 2);
    for (uint64_t i = 1000; i < 1008; i++) {
        bool kept = true;
        buf_clear(&text);
        put_known(&text, i);
        put_known(&text, i + 500);
        for (size_t unknown = 0; kept && unknown < 30; unknown++) {
            kept = trigram_mean(model, text.bytes, text.length) >= limit;
            expect(&lines, kept ? "kept" : "perplexity", text.bytes, "");
            buf_printf(&text, "unknown%zu ", unknown);
            crossed += !kept && unknown > 0;
        }
    }
    assert_true(crossed >= 4);
    write_text(place, "reference", ".jsonl", reference.bytes);
    char *params = mem_printf("\"stages\": [\"perplexity\"], \"reference\": "
                              "[\"%s/reference.jsonl\"]", place->folder);
    judge(place, "unlikely", &lines, "yi", "", params);
    mem_free(params);
    trigram_free(model);
    buf_done(&reference);
    buf_done(&lines);
    buf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_documents_that_dolma_marks_by_url_are_dropped),
        cmocka_unit_test(paragraphs_are_cut_where_dolma_cuts_them),
        cmocka_unit_test(spans_are_cut_and_masked_as_the_mixer_does),
        cmocka_unit_test(addresses_are_found_where_people_marked_them),
        cmocka_unit_test(conditions_choose_the_documents_that_the_mixer_chose),
        cmocka_unit_test(pages_fall_to_the_rules_of_c4_just_beyond_their_limits),
        cmocka_unit_test(documents_fall_to_classifiers_just_beyond_their_limits),
        cmocka_unit_test(texts_fall_to_perplexity_with_one_unknown_word_too_many),
    };
    cmocka_set_test_filter(getenv("ATHANOR_TEST_FILTER"));
    return cmocka_run_group_tests(tests, place_open, place_close);
}
