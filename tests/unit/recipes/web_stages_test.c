/* web_stages_test.c - what data/dolma and data/yi compare documents with: sets, signatures,
 * suffixes, counts; against formulas, quadratic definitions and published figures. */
#include "common/base/buf.h"
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "worker/engine/comm.h"
#include "worker/engine/data/sampler.h"
#include "worker/recipes/data/web/classifier.h"
#include "worker/recipes/data/web/document.h"
#include "worker/recipes/data/web/minhash.h"
#include "worker/recipes/data/web/repeats.h"
#include "worker/recipes/data/web/seen.h"
#include "worker/recipes/data/web/texts.h"
#include "worker/recipes/data/web/trigram.h"

#include <math.h>
#include <zlib.h>

static bool long_mode(void)
{
    const char *mode = getenv("ATHANOR_TEST_MODE");

    return mode && strcmp(mode, "long") == 0;
}

/* -- Bloom filters -------------------------------------------------------------------------- */

/* The card's computed figures: units, p, bytes, hashes. */
static void filters_are_planned_as_the_card_computes(void **state)
{
    static const struct {
        double n, p;
        uint64_t mib;
        unsigned k;
        double reached;
    } card[] = {{6e10, 1e-6, 262144, 26, 2.3e-8}, {1e6, 1e-3, 2, 12, 3.2e-4},
                {1e6, 1e-6, 4, 24, 1e-7},         {2336120, 1e-15, 32, 80, 1e-24}};
    struct bloom_plan plan;
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(card); i++) {
        assert_int_equal(bloom_plan(card[i].n, card[i].p, 100, &plan, &err), 0);
        assert_int_equal(plan.bytes, card[i].mib << 20);
        assert_int_equal(plan.k, card[i].k);
        assert_true(plan.p <= card[i].p);
        if (i < 3)
            assert_true(fabs(plan.p / card[i].reached - 1) < 0.06);
    }
    assert_int_equal(bloom_plan(1e6, 1e-6, 24, &plan, &err), 0);
    assert_int_equal(plan.k, 24);
    assert_int_equal(bloom_plan(1e12, 1e-18, 1, &plan, &err), -1);
    assert_non_null(strstr(err.text, "bloom_k_max"));
}

/* 10^6 keys, then 10^6 fresh ones: within 3 standard deviations of the formula. */
static void a_full_filter_errs_as_often_as_the_formula_says(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct bloom_plan plan;
        struct seen seen;
        struct err err;
        struct comm comm = {.size = 1};
        size_t n = 1000000, known = 0, mistaken = 0;
        struct key *keys = mem_array(n, sizeof *keys);
        bool *answer = mem_array(n, sizeof *answer);

        assert_int_equal(bloom_plan(1e6, i ? 1e-6 : 1e-3, 32, &plan, &err), 0);
        assert_int_equal(seen_init(&seen, &comm, &plan, &err), 0);
        assert_int_equal(seen_bytes(&seen), plan.bytes);
        for (int round = 0; round < 3; round++) {
            for (uint64_t k = 0; k < n; k++) {
                uint64_t number = k + (round == 2 ? n : 0);
                keys[k] = key_of(&number, sizeof number, 1);
            }
            assert_int_equal(seen_ask(&seen, keys, n, answer, &err), 0);
            for (size_t k = 0; k < n; k++) {
                known += round == 1 && answer[k];
                mistaken += round == 2 && answer[k];
            }
        }
        /* The probes of the third round fill the filter too: p grows with it, by its mean here. */
        double rate = 0;
        for (int s = 0; s < 1000; s++) {
            double full = 1e6 * (1 + (s + 0.5) / 1000);
            rate += pow(-expm1(-(double)plan.k * full / (8.0 * (double)plan.bytes)), plan.k) / 1000;
        }
        double expected = rate * 1e6;
        assert_int_equal(known, n); /* no false negatives */
        if (fabs((double)mistaken - expected) > 3 * sqrt(expected) + 3)
            fail_msg("%zu mistaken, %.1f expected", mistaken, expected);
        seen_done(&seen);
        mem_free(keys);
        mem_free(answer);
    }
}

/* -- WordNet -------------------------------------------------------------------------------- */

/* The glosses as the card counts them: what follows " | " on each line, stripped. */
struct glosses {
    char **items;
    size_t count, capacity;
};

static void read_glosses(struct glosses *glosses)
{
    static const char *const files[] = {"noun", "verb", "adj", "adv"};

    for (size_t f = 0; f < ARRAY_COUNT(files); f++) {
        char *path = mem_printf(WORDNET_FOLDER "/data.%s", files[f]), *bytes, *rest, *line;
        size_t length;
        struct err err;
        assert_int_equal(file_read(path, INPUT_BYTES_MAX, &bytes, &length, &err), 0);
        for (rest = bytes; (line = strsep(&rest, "\n"));) {
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

/* 117,033 of 117,659 glosses differ; a Bloom filter may lose a few more. */
static void glosses_lose_exactly_their_copies(void **state)
{
    struct glosses glosses = {0};
    struct comm comm = {.size = 1};
    struct bloom_plan plan;
    struct err err;

    (void)state;
    need_wordnet();
    read_glosses(&glosses);
    assert_int_equal(glosses.count, 117659);
    assert_int_equal(bloom_plan((double)glosses.count, 1e-6, 32, &plan, &err), 0);
    for (int bloom = 0; bloom < 2; bloom++) {
        struct seen seen;
        struct key *keys = mem_array(glosses.count, sizeof *keys);
        bool *answer = mem_array(glosses.count, sizeof *answer);
        size_t fresh = 0;
        assert_int_equal(seen_init(&seen, &comm, bloom ? &plan : NULL, &err), 0);
        for (size_t i = 0; i < glosses.count; i++)
            keys[i] = key_of(glosses.items[i], strlen(glosses.items[i]), 2);
        assert_int_equal(seen_ask(&seen, keys, glosses.count, answer, &err), 0);
        for (size_t i = 0; i < glosses.count; i++)
            fresh += !answer[i];
        if (bloom) /* 1.2e5 * 1e-6 mistakes are expected; 5 or more have probability 2e-7 */
            assert_in_range(fresh, 117033 - 4, 117033);
        else
            assert_int_equal(fresh, 117033);
        seen_done(&seen);
        mem_free(keys);
        mem_free(answer);
    }
    glosses_done(&glosses);
}

/* Document first/5: 5 glosses drawn from all over, maybe with their words in another order. */
static char *gloss_document(const struct glosses *glosses, size_t first, bool shuffled)
{
    struct buf text = {0}, out = {0};
    char *words[4096];
    size_t count = 0;

    for (size_t i = first; i < first + 5; i++)
        buf_printf(&text, "%s ", glosses->items[sampler_permute(1, glosses->count, i)]);
    if (!shuffled)
        return buf_take(&text);
    for (char *rest = text.bytes, *word; (word = strsep(&rest, " ")) && count < 4096;)
        if (*word)
            words[count++] = word;
    for (size_t i = count; i > 1; i--) {
        size_t k = rng_at(3, first, i) % i;
        char *held = words[i - 1];
        words[i - 1] = words[k];
        words[k] = held;
    }
    for (size_t i = 0; i < count; i++)
        buf_printf(&out, "%s ", words[i]);
    buf_done(&text);
    return buf_take(&out);
}

/* Card data-yi-pipeline, acceptance 3: at mu - 2 sigma at least 80 % of shuffled and at most 5 % of
 * intact documents fall; the area under the curve is at least .97. */
static void the_trigram_model_tells_shuffled_from_intact_glosses(void **state)
{
    enum { INTACT = 500, SHUFFLED = 100 };
    struct glosses glosses = {0};
    struct trigram *trigram = trigram_new(1);
    double intact[INTACT], shuffled[SHUFFLED], wins = 0;
    size_t flagged = 0, wrong = 0, spread;
    struct err err;

    (void)state;
    need_wordnet();
    read_glosses(&glosses);
    spread = glosses.count / 5 / (INTACT + SHUFFLED);
    for (size_t d = 0; d < glosses.count / 5; d++) {
        char *text = gloss_document(&glosses, 5 * d, false);
        if (d % spread != 0)
            trigram_add(trigram, text, strlen(text));
        mem_free(text);
    }
    assert_int_equal(trigram_finish(trigram, &err), 0);
    for (size_t d = 0; d < INTACT + SHUFFLED; d++) {
        char *text = gloss_document(&glosses, 5 * d * spread, d >= INTACT);
        double mean = trigram_mean(trigram, text, strlen(text));
        bool low = mean < trigram_limit(trigram, 2);
        flagged += low && d >= INTACT;
        wrong += low && d < INTACT;
        *(d < INTACT ? &intact[d] : &shuffled[d - INTACT]) = mean;
        mem_free(text);
    }
    for (size_t i = 0; i < INTACT; i++)
        for (size_t s = 0; s < SHUFFLED; s++)
            wins += intact[i] > shuffled[s];
    print_message("AUC %.4f, flagged %.3f, intact flagged %.4f\n", wins / INTACT / SHUFFLED,
                  (double)flagged / SHUFFLED, (double)wrong / INTACT);
    assert_true(wins / INTACT / SHUFFLED >= 0.97);
    assert_true(flagged >= 80);
    assert_true(wrong <= INTACT / 20);
    trigram_free(trigram);
    glosses_done(&glosses);
}

/* The counts of a small reference, by hand. */
static void the_trigram_model_has_the_stated_probabilities(void **state)
{
    struct trigram *trigram = trigram_new(0);
    struct err err;
    size_t held, before = 0, counted = 0;
    double mu, sigma;

    (void)state;
    /* Which of these are held out is the seed's choice; of the others all counts are equal. */
    for (int i = 0; i < 60; i++) {
        char *text = mem_printf("a b c%*s", i, "");
        trigram_add(trigram, text, strlen(text));
        mem_free(text);
    }
    assert_int_equal(trigram_finish(trigram, &err), 0);
    trigram_stats(trigram, &mu, &sigma, &held);
    counted = 60 - held;
    assert_true(held >= 2 && counted > before);
    double n = (double)counted, unseen = 0.5 / (3 * n + 2), seen = (n + 0.5) / (3 * n + 2);
    /* a after nothing, b after a, c after a b: each as often as its context. */
    assert_true(fabs(trigram_mean(trigram, "a b c", 5) - log(0.85 + 0.15 * seen)) < 1e-12);
    /* c first: never after nothing; d: never at all. */
    assert_true(fabs(trigram_mean(trigram, "c", 1) - log(0.15 * seen)) < 1e-12);
    assert_true(fabs(trigram_mean(trigram, "d", 1) - log(0.15 * unseen)) < 1e-12);
    assert_true(fabs(mu - log(0.85 + 0.15 * seen)) < 1e-12 && sigma < 1e-6);
    trigram_free(trigram);
}

/* -- MinHash -------------------------------------------------------------------------------- */

/* Two sets of Jaccard similarity exactly `common` of 100 + (100 - common)... built to size. */
static void make_pair(uint64_t number, size_t both, size_t each, struct shingles *a,
                      struct shingles *b)
{
    a->count = b->count = 0;
    for (size_t i = 0; i < both + 2 * each; i++) {
        uint64_t item = rng_at(77, number, i) >> 3;
        struct shingles *sets[2] = {i < both + each ? a : NULL,
                                    i < both || i >= both + each ? b : NULL};
        for (int s = 0; s < 2; s++) {
            if (!sets[s])
                continue;
            VEC_RESERVE(sets[s]->items, sets[s]->count, sets[s]->capacity);
            sets[s]->items[sets[s]->count++] = item;
        }
    }
}

/* 1,000 pairs of each similarity: candidates as often as 1 - (1 - s^r)^b. */
static void candidates_are_found_as_often_as_the_formula_says(void **state)
{
    static const struct {
        unsigned bands, rows;
        size_t pairs;
    } shapes[] = {{14, 8, 1000}, {450, 20, 1000}};
    struct shingles a = {0}, b = {0};
    struct err err;

    (void)state;
    for (size_t shape = 0; shape < (long_mode() ? 2 : 1); shape++)
        for (size_t tenth = 6; tenth <= 9; tenth++) {
            struct minhash minhash;
            unsigned bands = shapes[shape].bands, rows = shapes[shape].rows;
            uint64_t *left = mem_array(bands, 8), *right = mem_array(bands, 8);
            size_t found = 0, pairs = shapes[shape].pairs;
            double s = (double)tenth / 10, p = 1 - pow(1 - pow(s, rows), bands);
            assert_int_equal(minhash_init(&minhash, bands, rows, 5, 1337, &err), 0);
            for (size_t i = 0; i < pairs; i++) {
                bool same = false;
                make_pair(10000 * tenth + i, 4 * tenth, 2 * (10 - tenth), &a, &b); /* of 40 */
                assert_true(minhash_keys(&minhash, &a, left) && minhash_keys(&minhash, &b, right));
                for (unsigned k = 0; k < bands; k++)
                    same = same || left[k] == right[k];
                found += same;
            }
            double rate = (double)found / (double)pairs;
            if (fabs(rate - p) > 3 * sqrt(p * (1 - p) / (double)pairs) + 0.005)
                fail_msg("%ux%u at %.1f: %.4f, the formula says %.4f", bands, rows, s, rate, p);
            minhash_done(&minhash);
            mem_free(left);
            mem_free(right);
        }
    shingles_done(&a);
    shingles_done(&b);
}

static void shingles_are_sets_of_words_in_a_row(void **state)
{
    struct shingles a = {0}, b = {0};
    const char *one = "The quick, brown FOX jumps over", *two = "the quick brown fox jumps under";

    (void)state;
    shingles_set(&a, 5, one, strlen(one));
    shingles_set(&b, 5, two, strlen(two));
    assert_int_equal(a.count, 2);
    assert_true(fabs(shingles_jaccard(&a, &b) - 1.0 / 3) < 1e-12);
    shingles_set(&a, 5, "a a a a a a a a", 15);
    assert_int_equal(a.count, 1);
    shingles_set(&a, 5, "Two words", 9);
    shingles_set(&b, 5, "two  words!", 11);
    assert_true(shingles_jaccard(&a, &b) == 1);
    shingles_set(&a, 5, " ...", 4);
    assert_int_equal(a.count, 0);
    assert_true(shingles_jaccard(&a, &a) == 0);
    shingles_done(&a);
    shingles_done(&b);
}

/* -- repeated passages ---------------------------------------------------------------------- */

/* The definition: word i of text t is in a window of `least` words that equals another one (with
 * keep_first: an earlier one). */
static bool is_repeated(const struct corpus_words *words, size_t at, size_t text, size_t least,
                        bool keep_first)
{
    size_t from = words->start[text], to = words->start[text + 1];

    for (size_t w = at + 1 >= from + least ? at + 1 - least : from; w <= at; w++) {
        if (w + least > to)
            continue;
        for (size_t t = 0; t < words->text_count; t++)
            for (size_t o = words->start[t]; o + least <= words->start[t + 1]; o++)
                if (o != w && (!keep_first || o < w) &&
                    memcmp(words->word + o, words->word + w, 8 * least) == 0)
                    return true;
    }
    return false;
}

static void passages_equal_the_quadratic_definition(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 60; n++) {
        struct corpus_words words = {0};
        struct buf text = {0};
        size_t least = 3 + n % 6, alphabet = 2 + n % 5;
        bool keep_first = n % 2, *marked;
        for (size_t t = 0; t < 6; t++) {
            buf_clear(&text);
            for (size_t i = 0; i < rng_at(8, n, t) % 40; i++)
                buf_printf(&text, "%c\n ", (char)('a' + rng_at(8, n, 100 * t + i) % alphabet));
            corpus_words_add(&words, buf_text(&text), text.length);
        }
        marked = mem_array(words.count + 1, sizeof *marked);
        for (unsigned ranks = 1; ranks <= 3; ranks += 2) {
            struct word_ranges all = {0};
            memset(marked, 0, words.count);
            for (unsigned r = 0; r < ranks; r++)
                repeats_find(&words, least, keep_first, r, ranks, &all);
            word_ranges_merge(&all);
            for (size_t i = 0; i < all.count; i++)
                for (uint64_t w = all.items[i].begin; w < all.items[i].end; w++)
                    marked[words.start[all.items[i].text] + w] = true;
            for (size_t t = 0; t < words.text_count; t++)
                for (size_t i = words.start[t]; i < words.start[t + 1]; i++)
                    assert_int_equal(marked[i], is_repeated(&words, i, t, least, keep_first));
            mem_free(all.items);
        }
        mem_free(marked);
        buf_done(&text);
        corpus_words_done(&words);
    }
}

/* 20 documents share 60 words, 20 others 49: only the former are found, whole. */
static void a_shared_passage_of_fifty_words_is_found_and_a_shorter_one_is_not(void **state)
{
    struct corpus_words words = {0};
    struct word_ranges found = {0};
    struct buf text = {0};

    (void)state;
    for (unsigned d = 0; d < 40; d++) {
        unsigned shared = d < 20 ? 60 : 49;
        buf_clear(&text);
        for (unsigned i = 0; i < 30 + d; i++)
            buf_printf(&text, "own%u-%u ", d, i);
        for (unsigned i = 0; i < shared; i++)
            buf_printf(&text, "shared%u-%u\n", shared, i);
        for (unsigned i = 0; i < 10; i++)
            buf_printf(&text, "end%u-%u ", d, i);
        corpus_words_add(&words, text.bytes, text.length);
    }
    repeats_find(&words, 50, false, 0, 1, &found);
    assert_int_equal(found.count, 20);
    for (size_t i = 0; i < found.count; i++) {
        assert_int_equal(found.items[i].text, i);
        assert_int_equal(found.items[i].begin, 30 + i);
        assert_int_equal(found.items[i].end, 90 + i);
    }
    found.count = 0;
    repeats_find(&words, 50, true, 0, 1, &found);
    assert_int_equal(found.count, 19);
    assert_int_equal(found.items[0].text, 1);
    size_t begin, end;
    word_range_bytes("a  bc\nd e ", 10, 1, 3, &begin, &end);
    assert_int_equal(begin, 3);
    assert_int_equal(end, 8);
    mem_free(found.items);
    buf_done(&text);
    corpus_words_done(&words);
}

/* -- a planted corpus ----------------------------------------------------------------------- */

#define INTACT 1000 /* documents of five glosses */
#define COPIES 50   /* of each kind */
#define SHARED 20   /* documents with a passage in common */

/* Of every 20 words one is another. */
static char *change_words(const char *text, uint64_t number)
{
    struct buf out = {0};
    char *copy = mem_strdup(text), *rest = copy;
    size_t at = 0;

    for (char *word; (word = strsep(&rest, " "));) {
        if (!*word)
            continue;
        bool other = at % 20 == rng_at(41, number, at / 20) % 20;
        at++;
        buf_printf(&out, "%s%s ", word, other ? "zz" : "");
    }
    mem_free(copy);
    return buf_take(&out);
}

static struct texts {
    char *items[INTACT + 2 * COPIES + SHARED];
    size_t count;
} planted_texts(const struct glosses *glosses)
{
    struct texts texts = {.count = 0};
    struct buf passage = {0};

    for (size_t d = 0; d < INTACT; d++)
        texts.items[texts.count++] = gloss_document(glosses, 5 * d, false);
    for (size_t c = 0; c < COPIES; c++)
        texts.items[texts.count++] = mem_strdup(texts.items[7 * c]);
    for (size_t c = 0; c < COPIES; c++)
        texts.items[texts.count++] = change_words(texts.items[7 * c + 1], c);
    for (int i = 0; i < 60; i++)
        buf_printf(&passage, "shared%d ", i);
    for (size_t c = 0; c < SHARED; c++) {
        char *own = gloss_document(glosses, 5 * (INTACT + c), false);
        texts.items[texts.count++] = mem_printf("%s %s%s", own, passage.bytes, own);
        mem_free(own);
    }
    buf_done(&passage);
    return texts;
}

/* Whether two documents have a band in common, and what the formula says of their true sets. */
static bool are_candidates(struct minhash *minhash, const char *a, const char *b,
                           double *out_p)
{
    struct shingles one = {0}, two = {0};
    uint64_t *left = mem_array(minhash->bands, 8), *right = mem_array(minhash->bands, 8);
    bool same = false;

    shingles_set(&one, minhash->ngram, a, strlen(a));
    shingles_set(&two, minhash->ngram, b, strlen(b));
    double s = shingles_jaccard(&one, &two);
    *out_p = 1 - pow(1 - pow(s, minhash->rows), minhash->bands);
    assert_true(minhash_keys(minhash, &one, left) && minhash_keys(minhash, &two, right));
    for (unsigned k = 0; k < minhash->bands; k++)
        same = same || left[k] == right[k];
    shingles_done(&one);
    shingles_done(&two);
    mem_free(left);
    mem_free(right);
    return same;
}

/* Words in a window of `least` that occurs elsewhere: by comparing windows, those of the same first
 * words side by side. */
static const struct corpus_words *sorted_words;
static size_t sorted_least;

static int compare_windows(const void *a, const void *b)
{
    const uint64_t *x = sorted_words->word + *(const size_t *)a;
    const uint64_t *y = sorted_words->word + *(const size_t *)b;

    for (size_t i = 0; i < sorted_least; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

static bool *mark_repeated(const struct corpus_words *words, size_t least)
{
    bool *marked = mem_array(words->count + 1, sizeof *marked);
    size_t *windows = mem_array(words->count + 1, sizeof *windows), count = 0;

    for (size_t t = 0; t < words->text_count; t++)
        for (size_t w = words->start[t]; w + least <= words->start[t + 1]; w++)
            windows[count++] = w;
    sorted_words = words;
    sorted_least = least;
    qsort(windows, count, sizeof *windows, compare_windows);
    for (size_t i = 1; i < count; i++)
        if (compare_windows(&windows[i - 1], &windows[i]) == 0) {
            memset(marked + windows[i - 1], true, least);
            memset(marked + windows[i], true, least);
        }
    mem_free(windows);
    return marked;
}

/* Card data-yi-pipeline, acceptance 2: all exact copies, near copies as often as the formula says
 * of their Jaccard similarity, every shared passage, and nothing that is shorter than 50 words. */
static void planted_copies_and_passages_are_found_in_a_corpus_of_glosses(void **state)
{
    struct glosses glosses = {0};
    struct corpus_words words = {0};
    struct word_ranges found = {0};
    struct minhash minhash;
    struct err err;
    size_t near = 0, covered = 0;
    double expected = 0, variance = 0, p;

    (void)state;
    need_wordnet();
    read_glosses(&glosses);
    struct texts texts = planted_texts(&glosses);
    assert_int_equal(minhash_init(&minhash, 14, 8, 5, 1337, &err), 0);
    for (size_t c = 0; c < COPIES; c++) {
        assert_true(are_candidates(&minhash, texts.items[7 * c], texts.items[INTACT + c], &p));
        near += are_candidates(&minhash, texts.items[7 * c + 1],
                               texts.items[INTACT + COPIES + c], &p);
        expected += p;
        variance += p * (1 - p);
    }
    print_message("near copies: %zu found, %.1f expected, standard deviation %.1f\n", near,
                  expected, sqrt(variance));
    assert_true(fabs((double)near - expected) <= 3 * sqrt(variance));
    for (size_t t = 0; t < texts.count; t++)
        corpus_words_add(&words, texts.items[t], strlen(texts.items[t]));
    repeats_find(&words, 50, false, 0, 1, &found);
    word_ranges_merge(&found);
    bool *marked = mark_repeated(&words, 50);
    for (size_t i = 0; i < found.count; i++) {
        const struct word_range *range = &found.items[i];
        assert_true(range->end - range->begin >= 50);
        covered += range->text >= INTACT + 2 * COPIES && range->end - range->begin >= 60;
        for (uint64_t w = range->begin; w < range->end; w++) {
            assert_true(marked[words.start[range->text] + w]);
            marked[words.start[range->text] + w] = false;
        }
    }
    for (size_t w = 0; w < words.count; w++)
        assert_false(marked[w]); /* all that there are were found */
    assert_int_equal(covered, SHARED);
    mem_free(marked);
    mem_free(found.items);
    minhash_done(&minhash);
    corpus_words_done(&words);
    for (size_t t = 0; t < texts.count; t++)
        mem_free(texts.items[t]);
    glosses_done(&glosses);
}

/* -- documents ------------------------------------------------------------------------------ */

struct heard {
    struct buf lines;
};

static int hear(void *argument, struct document_line *line, struct err *err)
{
    struct heard *heard = argument;

    (void)err;
    buf_printf(&heard->lines, "%llu %s\n", (unsigned long long)line->number,
               line->document ? line->document->text : line->malformed);
    return 0;
}

static char *read_all(const char *path, uint64_t block_bytes, size_t *out_blocks)
{
    struct document_list list = {0};
    struct heard heard = {0};
    struct err err = {0};

    if (document_list_add(&list, path, block_bytes, &err) < 0)
        fail_msg("%s", err.text);
    for (size_t b = 0; b < list.block_count; b++)
        if (document_read(&list, b, hear, &heard, &err) < 0)
            fail_msg("%s", err.text);
    *out_blocks = list.block_count;
    document_list_done(&list);
    return buf_take(&heard.lines);
}

static const char four_lines[] =
    "{\"id\": \"1\", \"text\": \"first\"}\n\n{\"id\": 2, \"text\": \"x\"}\nnonsense\n"
    "{\"id\": \"4\", \"text\": \"nul\\u0000nul\", \"metadata\": {\"url\": \"u\"}}\n[1]\n"
    "{\"id\": \"7\"}\n{\"id\": \"8\", \"text\": \"last without end\"}";

static void blocks_of_any_size_hold_the_same_numbered_lines(void **state)
{
    char *folder = folder_make(), *path = mem_printf("%s/d.jsonl", folder);
    size_t blocks;
    struct err err;

    (void)state;
    assert_int_equal(file_replace(path, four_lines, sizeof four_lines - 1, 0644, &err), 0);
    char *whole = read_all(path, 1 << 20, &blocks);
    assert_int_equal(blocks, 1);
    assert_string_equal(whole, "1 first\n3 has no text 'id'\n4 is no JSON: '[' or '{' expected "
                               "near 'nonsense' at column 8\n5 nul\xEF\xBF\xBDnul\n6 is no "
                               "JSON object\n"
                               "7 has no text 'text'\n8 last without end\n");
    for (uint64_t bytes = 1; bytes < sizeof four_lines; bytes++) {
        char *cut = read_all(path, bytes, &blocks);
        assert_int_equal(blocks, (sizeof four_lines - 1 + bytes - 1) / bytes);
        assert_string_equal(cut, whole);
        mem_free(cut);
    }
    mem_free(whole);
    mem_free(path);
    folder_done(folder);
}

static void gzip_is_read_and_damaged_gzip_refused(void **state)
{
    char *folder = folder_make(), *path = mem_printf("%s/d.json.gz", folder), *bytes;
    size_t blocks, length;
    struct document_list list = {0};
    struct heard heard = {0};
    struct err err;

    (void)state;
    gzFile out = gzopen(path, "wb");
    assert_int_equal(gzwrite(out, four_lines, sizeof four_lines - 1), sizeof four_lines - 1);
    gzclose(out);
    char *whole = read_all(path, 10, &blocks);
    assert_int_equal(blocks, 1);
    assert_non_null(strstr(whole, "8 last without end"));
    assert_int_equal(file_read(path, 1 << 20, &bytes, &length, &err), 0);
    assert_int_equal(file_replace(path, bytes, length - 12, 0644, &err), 0);
    assert_int_equal(document_list_add(&list, path, 10, &err), 0);
    assert_int_equal(document_read(&list, 0, hear, &heard, &err), -1);
    assert_int_equal(err.kind, ERR_PROTOCOL);
    assert_non_null(strstr(err.text, "damaged"));
    document_list_done(&list);
    buf_done(&heard.lines);
    mem_free(bytes);
    mem_free(whole);
    mem_free(path);
    folder_done(folder);
}

static int join(void *argument, const char *text, size_t length, struct err *err)
{
    (void)err;
    buf_printf(argument, "<%.*s>", (int)length, text);
    return 0;
}

static void strings_of_json_and_fields_of_csv_are_all_found(void **state)
{
    struct buf out = {0};
    struct err err;
    const char *json = "{\"a\": [\"x\", {\"b\": \"y\"}, 3, []], \"c\": {}, \"d\": \"z\"}";
    const char *csv = "one,\"two, \"\"2\"\"\",\n\"line\nbreak\",last";

    (void)state;
    assert_int_equal(texts_of_json(json, strlen(json), join, &out, &err), 0);
    assert_string_equal(out.bytes, "<x><y><z>");
    buf_clear(&out);
    assert_int_equal(texts_of_csv(csv, strlen(csv), join, &out, &err), 0);
    assert_string_equal(out.bytes, "<one><two, \"2\"><line\nbreak><last>");
    assert_int_equal(texts_of_csv("a,\"b", 4, join, &out, &err), -1);
    assert_int_equal(texts_of_json("[1", 2, join, &out, &err), -1);
    buf_done(&out);
}

/* -- classifiers ---------------------------------------------------------------------------- */

static void damaged_classifiers_are_refused(void **state)
{
    static const char *const texts[] = {
        "", "[]", "{\"format\": 2}",
        "{\"format\": 1, \"features\": \"pixels\", \"buckets_log2\": 12, \"labels\": [\"a\", "
        "\"b\"]}",
        "{\"format\": 1, \"features\": \"chars\", \"buckets_log2\": 9, \"labels\": [\"a\", \"b\"]}",
        "{\"format\": 1, \"features\": \"chars\", \"buckets_log2\": 25, \"labels\": [\"a\", "
        "\"b\"]}",
        "{\"format\": 1, \"features\": \"words\", \"buckets_log2\": 12, \"labels\": [\"a\"]}",
        "{\"format\": 1, \"features\": \"words\", \"buckets_log2\": 12, \"labels\": [\"a\", 3]}"};
    struct classifier *made = NULL;
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        assert_int_equal(classifier_parse(texts[i], strlen(texts[i]), &made, &err), -1);
        assert_int_equal(err.kind, ERR_PROTOCOL);
        assert_null(made);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_are_planned_as_the_card_computes),
        cmocka_unit_test(a_full_filter_errs_as_often_as_the_formula_says),
        cmocka_unit_test(glosses_lose_exactly_their_copies),
        cmocka_unit_test(the_trigram_model_tells_shuffled_from_intact_glosses),
        cmocka_unit_test(the_trigram_model_has_the_stated_probabilities),
        cmocka_unit_test(candidates_are_found_as_often_as_the_formula_says),
        cmocka_unit_test(shingles_are_sets_of_words_in_a_row),
        cmocka_unit_test(passages_equal_the_quadratic_definition),
        cmocka_unit_test(a_shared_passage_of_fifty_words_is_found_and_a_shorter_one_is_not),
        cmocka_unit_test(planted_copies_and_passages_are_found_in_a_corpus_of_glosses),
        cmocka_unit_test(blocks_of_any_size_hold_the_same_numbered_lines),
        cmocka_unit_test(gzip_is_read_and_damaged_gzip_refused),
        cmocka_unit_test(strings_of_json_and_fields_of_csv_are_all_found),
        cmocka_unit_test(damaged_classifiers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
