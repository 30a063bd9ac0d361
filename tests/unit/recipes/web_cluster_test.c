/* web_cluster_test.c - vectors and clusters against their definitions. */
#include "common/base/buf.h"
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "worker/engine/comm.h"
#include "worker/recipes/data/web/cluster.h"

#include <math.h>

enum { TOPICS = 4, EACH = 60, DOCUMENTS = TOPICS * EACH };

/* Words of one topic out of four, among words that all have. */
static char *topic_text(uint64_t number)
{
    struct buf out = {0};

    for (uint64_t i = 0; i < 60; i++)
        if (rng_at(number, i, 0) % 2)
            buf_printf(&out, "topic%dword%d ", (int)(number % TOPICS),
                       (int)(rng_at(number, i, 1) % 30));
        else
            buf_printf(&out, "common%d ", (int)(rng_at(number, i, 2) % 40));
    return buf_take(&out);
}

static void make_vectors(struct vectors *vectors)
{
    struct word_spread spread = {0};
    struct comm comm = {.size = 1};

    for (int pass = 0; pass < 2; pass++) {
        for (uint64_t i = 0; i < DOCUMENTS; i++) {
            char *text = topic_text(i);
            if (pass == 0)
                word_spread_add(&spread, text, strlen(text));
            else
                vectors_add_text(vectors, &spread, text, strlen(text));
            mem_free(text);
        }
        if (pass == 0)
            word_spread_sum(&spread, &comm);
    }
    assert_int_equal(spread.count, DOCUMENTS);
    word_spread_done(&spread);
}

static int64_t dot(const int16_t *a, const int16_t *b, size_t width)
{
    int64_t sum = 0;

    for (size_t i = 0; i < width; i++)
        sum += (int64_t)a[i] * b[i];
    return sum;
}

static void vectors_have_length_one_and_texts_alike_are_near(void **state)
{
    struct vectors vectors = {.width = CLUSTER_WIDTH};
    double one = (double)CLUSTER_ONE * CLUSTER_ONE, same = 0, other = 0;
    size_t same_count = 0, other_count = 0;

    (void)state;
    make_vectors(&vectors);
    assert_int_equal(vectors.count, DOCUMENTS);
    for (size_t i = 0; i < DOCUMENTS; i++) {
        const int16_t *a = vectors.items + i * CLUSTER_WIDTH;
        assert_true(fabs((double)dot(a, a, CLUSTER_WIDTH) / one - 1) < 1e-3);
        for (size_t k = 0; k < i; k++) {
            double cosine = (double)dot(a, vectors.items + k * CLUSTER_WIDTH, CLUSTER_WIDTH) / one;
            *(i % TOPICS == k % TOPICS ? &same : &other) += cosine;
            *(i % TOPICS == k % TOPICS ? &same_count : &other_count) += 1;
        }
    }
    assert_true(same / (double)same_count > 0.3);
    assert_true(fabs(other / (double)other_count) < 0.15);
    vectors_done(&vectors);
}

/* The product of 16-bit vectors of length 1 fits 32 bits, also where one place has all of it. */
static void a_text_of_no_words_and_one_of_one_word_have_vectors(void **state)
{
    struct word_spread spread = {0};
    struct vectors vectors = {.width = CLUSTER_WIDTH};

    (void)state;
    word_spread_add(&spread, "alone", 5);
    word_spread_add(&spread, "", 0);
    vectors_add_text(&vectors, &spread, "", 0);
    vectors_add_text(&vectors, &spread, "alone", 5);
    vectors_add_text(&vectors, &spread, "never counted", 13);
    const int16_t *two = vectors.items + CLUSTER_WIDTH;
    assert_int_equal(dot(vectors.items, vectors.items, CLUSTER_WIDTH), 0);
    assert_true(dot(two, two, CLUSTER_WIDTH) > (int64_t)(CLUSTER_ONE - 4) * (CLUSTER_ONE - 4));
    assert_true(dot(two, two, CLUSTER_WIDTH) < (int64_t)1 << 31);
    word_spread_done(&spread);
    vectors_done(&vectors);
}

/* At the end each owner has the greatest product, each centre is the scaled sum of what it owns. */
static void clusters_are_a_fixed_point(void **state)
{
    struct comm comm = {.size = 1};
    struct vectors vectors = {.width = CLUSTER_WIDTH};
    uint64_t order[DOCUMENTS];

    (void)state;
    make_vectors(&vectors);
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct clusters clusters;
        struct err err;
        int64_t total = 0;
        for (size_t i = 0; i < DOCUMENTS; i++)
            order[i] = rng_at(seed, i, 0);
        assert_int_equal(clusters_find(&comm, &vectors, order, 3 + seed, 100, &clusters, &err), 0);
        assert_int_equal(clusters.count, 3 + seed);
        assert_true(clusters.rounds > 0 && clusters.rounds < 100);
        for (size_t i = 0; i < DOCUMENTS; i++) {
            const int16_t *vector = vectors.items + i * CLUSTER_WIDTH;
            int64_t own = dot(vector, clusters.centres + clusters.owners[i] * CLUSTER_WIDTH,
                              CLUSTER_WIDTH);
            for (uint32_t c = 0; c < clusters.count; c++) {
                int64_t its = dot(vector, clusters.centres + c * CLUSTER_WIDTH, CLUSTER_WIDTH);
                assert_true(c < clusters.owners[i] ? its < own : its <= own);
            }
        }
        for (uint32_t c = 0; c < clusters.count; c++) {
            double sum[CLUSTER_WIDTH] = {0}, squares = 0;
            int64_t size = 0;
            for (size_t i = 0; i < DOCUMENTS; i++)
                for (size_t d = 0; clusters.owners[i] == c && d < CLUSTER_WIDTH; size += ++d == 1)
                    sum[d] += vectors.items[i * CLUSTER_WIDTH + d];
            for (size_t d = 0; d < CLUSTER_WIDTH; d++)
                squares += sum[d] * sum[d];
            assert_int_equal(clusters.sizes[c], size);
            for (size_t d = 0; d < CLUSTER_WIDTH && size > 0; d++)
                assert_true(fabs(sum[d] * CLUSTER_ONE / sqrt(squares) -
                                 clusters.centres[c * CLUSTER_WIDTH + d]) <= 0.501);
            total += size;
        }
        assert_int_equal(total, DOCUMENTS);
        clusters_done(&clusters);
    }
    vectors_done(&vectors);
}

/* With a dozen clusters for four topics, no cluster has documents of two. */
static void no_cluster_mixes_topics(void **state)
{
    struct comm comm = {.size = 1};
    struct vectors vectors = {.width = CLUSTER_WIDTH};
    struct clusters clusters;
    struct err err;
    uint64_t order[DOCUMENTS];
    int topic[12];

    (void)state;
    make_vectors(&vectors);
    for (size_t i = 0; i < DOCUMENTS; i++)
        order[i] = rng_at(5, i, 0);
    for (int c = 0; c < 12; c++)
        topic[c] = -1;
    assert_int_equal(clusters_find(&comm, &vectors, order, 12, 100, &clusters, &err), 0);
    for (size_t i = 0; i < DOCUMENTS; i++) {
        int *of = &topic[clusters.owners[i]];
        *of = *of < 0 ? (int)(i % TOPICS) : *of;
        assert_int_equal(*of, i % TOPICS);
    }
    clusters_done(&clusters);
    vectors_done(&vectors);
}

static void there_are_as_many_clusters_as_the_card_says(void **state)
{
    static const struct {
        int64_t documents;
        size_t clusters;
    } card[] = {{0, 1}, {1, 1}, {2, 1}, {3, 2}, {200, 10}, {201, 11}, {1000000, 708},
                {200000000, 10000}, {1000000000, 10000}};
    struct comm comm = {.size = 1};
    struct vectors none = {.width = CLUSTER_WIDTH};
    struct clusters clusters;
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(card); i++)
        assert_int_equal(cluster_count(card[i].documents), card[i].clusters);
    assert_int_equal(clusters_find(&comm, &none, NULL, 5, 3, &clusters, &err), 0);
    assert_int_equal(clusters.count, 0);
    clusters_done(&clusters);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_have_length_one_and_texts_alike_are_near),
        cmocka_unit_test(a_text_of_no_words_and_one_of_one_word_have_vectors),
        cmocka_unit_test(clusters_are_a_fixed_point),
        cmocka_unit_test(no_cluster_mixes_topics),
        cmocka_unit_test(there_are_as_many_clusters_as_the_card_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
