/* overlap_test.c - the vectors of card eval-general (items E1, E12), and the bit-parallel
 * subsequence and its ROUGE-L against the table they stand for (card distillation-impossible,
 * gate 7). */
#include "common/base/mem.h"
#include "common/base/rng.h"
#include "worker/recipes/text/overlap.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* cmocka compares floats only. */
#define assert_near(value, wanted, tolerance) assert_true(fabs((value) - (wanted)) <= (tolerance))

static struct words cut(enum words_style style, const char *text)
{
    struct words words = {0};

    words_split(&words, style, text, strlen(text));
    return words;
}

static const char *const hypotheses[] = {"the cat sat on the mat",
                                         "a dog is running in the park quickly"};
static const char *const references[][2] = {
    {"the cat is on the mat", "a dog runs fast in the park"},
    {"there is a cat on the mat", "the dog is running in the park"}};

static double corpus_bleu(size_t sets)
{
    struct bleu bleu = {0};

    for (size_t i = 0; i < ARRAY_COUNT(hypotheses); i++) {
        struct words candidate = cut(WORDS_13A, hypotheses[i]), there[2];
        const struct words *list[2] = {&there[0], &there[1]};
        for (size_t r = 0; r < sets; r++)
            there[r] = cut(WORDS_13A, references[r][i]);
        bleu_add(&bleu, &candidate, list, sets);
        for (size_t r = 0; r < sets; r++)
            words_done(&there[r]);
        words_done(&candidate);
    }
    return bleu_score(&bleu, false);
}

static void bleu_gives_the_values_of_sacrebleu(void **state)
{
    struct words a = cut(WORDS_13A, hypotheses[0]), b = cut(WORDS_13A, references[0][0]);

    (void)state;
    assert_near(corpus_bleu(2), 58.9221976, 1e-6);
    assert_near(corpus_bleu(1), 25.8486577, 1e-6);
    assert_near(bleu_sentence(&a, &b), 37.9917843, 1e-6);
    words_done(&a);
    words_done(&b);
}

static struct overlap rouge(const char *candidate, const char *reference)
{
    struct words a = cut(WORDS_ROUGE, candidate), b = cut(WORDS_ROUGE, reference);
    struct lcs_pattern pattern;

    lcs_pattern_init(&a, &pattern);
    struct overlap out = rouge_l(&pattern, &b);
    lcs_pattern_done(&pattern);
    words_done(&a);
    words_done(&b);
    return out;
}

static void rouge_l_gives_the_values_of_the_card(void **state)
{
    (void)state;
    assert_near(rouge(hypotheses[0], references[0][0]).f, 5 / 6.0, 1e-12);
    struct overlap second = rouge(hypotheses[1], references[0][1]);
    assert_near(second.precision, .625, 1e-12);
    assert_near(second.recall, 5 / 7.0, 1e-12);
    assert_near(second.f, 2 / 3.0, 1e-12);
    assert_near(rouge("The CAT, sat!", "the cat sat").f, 1, 0);
    assert_near(rouge("", "the cat sat").f, 0, 0);
    assert_near(rouge("the cat", "").f, 0, 0);
}

static size_t lcs_by_table(const struct words *a, const struct words *b)
{
    size_t row[513] = {0};

    for (size_t i = 0; i < a->count; i++) {
        size_t diagonal = 0;
        for (size_t j = 1; j <= b->count; j++) {
            size_t above = row[j];
            if (a->word[i] == b->word[j - 1])
                row[j] = diagonal + 1;
            else if (row[j - 1] > row[j])
                row[j] = row[j - 1];
            diagonal = above;
        }
    }
    return row[b->count];
}

static void draw(struct rng *rng, struct words *out)
{
    size_t count = rng_below(rng, rng_below(rng, 10) == 0 ? 513 : 40);
    uint64_t kinds = 1 + rng_below(rng, 30);

    for (out->count = 0; out->count < count;) {
        VEC_RESERVE(out->word, out->count, out->capacity);
        out->word[out->count++] = rng_below(rng, kinds); /* 0 as well: no value is special */
    }
}

/* ROUGE-L as Lin 2004 has it, beta 1: a common subsequence's share of each side. */
static void assert_rouge(const struct overlap *got, const struct words *a, const struct words *b)
{
    double common = (double)lcs_by_table(a, b), p = a->count ? common / (double)a->count : 0;
    double r = b->count ? common / (double)b->count : 0;

    assert_true(got->precision == p && got->recall == r);
    assert_near(got->f, p + r > 0 ? 2 * p * r / (p + r) : 0, 1e-15);
    if (common > 0) /* the same by another way: Dice's coefficient */
        assert_near(got->f, 2 * common / (double)(a->count + b->count), 1e-15);
}

static void subsequence_and_rouge_l_are_those_of_the_table_on_10000_random_pairs(void **state)
{
    struct words a = {0}, b = {0};
    struct lcs_pattern pattern;
    struct rng rng;

    (void)state;
    rng_init(&rng, 7);
    for (int i = 0; i < 10000; i++) {
        draw(&rng, &a);
        draw(&rng, &b);
        lcs_pattern_init(&a, &pattern);
        assert_int_equal(lcs_length(&pattern, &b), lcs_by_table(&a, &b));
        struct overlap got = rouge_l(&pattern, &b);
        assert_rouge(&got, &a, &b);
        lcs_pattern_done(&pattern);
    }
    words_done(&a);
    words_done(&b);
}

static void distinct_n_gives_the_values_of_the_card(void **state)
{
    struct words text = cut(WORDS_SPACE, "a b a b c a");
    const struct words *once[] = {&text}, *twice[] = {&text, &text};

    (void)state;
    assert_near(distinct_n(once, 1, 1), .5, 1e-12);
    assert_near(distinct_n(once, 1, 2), .8, 1e-12);
    assert_near(distinct_n(once, 1, 3), 1, 1e-12);
    assert_true(distinct_n(twice, 2, 2) < distinct_n(once, 1, 2));
    assert_near(distinct_n(once, 1, 7), 0, 0);
    words_done(&text);
}

static void copies_have_a_self_bleu_of_100_and_copying_the_source_does_not_pay(void **state)
{
    struct words source = cut(WORDS_13A, "the old man walked slowly to the harbour ."),
                 good = cut(WORDS_13A, "slowly , the aged man went to the port .");
    const struct words *copies[] = {&source, &source, &source};

    (void)state;
    assert_near(self_bleu(copies, 3), 100, 1e-9);
    assert_near(self_bleu(copies, 1), 0, 0);
    double copy = ibleu(bleu_sentence(&source, &good), 100, .8);
    double reference = ibleu(100, bleu_sentence(&good, &source), .8);
    assert_true(copy < reference);
    words_done(&source);
    words_done(&good);
}

static void rouge_n_clips_repeated_words(void **state)
{
    struct words a = cut(WORDS_ROUGE, "the the the the"), b = cut(WORDS_ROUGE, "the cat the");

    (void)state;
    assert_near(rouge_n(&a, &b, 1).precision, .5, 1e-12);
    assert_near(rouge_n(&a, &b, 1).recall, 2 / 3.0, 1e-12);
    assert_near(rouge_n(&a, &b, 2).f, 0, 0);
    words_done(&a);
    words_done(&b);
}

/* Texts and tokens worked out by hand from the rules as words.h names them. */
static void tokens_of_13a_are_those_of_the_rules(void **state)
{
    static const struct {
        const char *text, *tokens;
    } cases[] = {
        {"Hello, world!", "Hello , world !"},
        {"It's 3.5% (or 1,000)...", "It's 3.5 % ( or 1,000 ) . . ."},
        {"well-known 10-fold", "well-known 10 - fold"},
        {"&quot;a&quot; &lt;b&gt; &amp;", "\" a \" < b > &"},
        {"end-\nline\nbreak", "endline break"},
        {"U.S. dollars.", "U . S . dollars ."},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char *tokens = words_13a(cases[i].text, strlen(cases[i].text));
        assert_string_equal(tokens, cases[i].tokens);
        mem_free(tokens);
    }
}

static void words_of_other_scripts_and_broken_bytes_are_handled(void **state)
{
    struct words a = cut(WORDS_ROUGE, "\xc3\x89t\xc3\xa9 \xd0\x9c\xd0\xb8\xd1\x80"),
                 b = cut(WORDS_ROUGE, "\xc3\xa9t\xc3\xa9, \xd0\xbc\xd0\xb8\xd1\x80"),
                 broken = cut(WORDS_ROUGE, "ab\xff\xfe" "cd \x80");

    (void)state;
    assert_int_equal(a.count, 2);
    assert_int_equal(b.count, 2);
    assert_memory_equal(a.word, b.word, 2 * sizeof *a.word);
    assert_int_equal(broken.count, 2);
    words_done(&a);
    words_done(&b);
    words_done(&broken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bleu_gives_the_values_of_sacrebleu),
        cmocka_unit_test(rouge_l_gives_the_values_of_the_card),
        cmocka_unit_test(subsequence_and_rouge_l_are_those_of_the_table_on_10000_random_pairs),
        cmocka_unit_test(distinct_n_gives_the_values_of_the_card),
        cmocka_unit_test(copies_have_a_self_bleu_of_100_and_copying_the_source_does_not_pay),
        cmocka_unit_test(rouge_n_clips_repeated_words),
        cmocka_unit_test(tokens_of_13a_are_those_of_the_rules),
        cmocka_unit_test(words_of_other_scripts_and_broken_bytes_are_handled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
