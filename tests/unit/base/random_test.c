/* random_test.c - generators and hashes against published vectors. */
#include "tests/unit/base/support.h"

#include "common/base/hash.h"
#include "common/base/rng.h"

#include <math.h>

/* First outputs for the state 1, 2, 3, 4, from its authors' C code (prng.di.unimi.it). */
static void xoshiro_gives_its_authors_numbers(void **state)
{
    (void)state;
    static const uint64_t expected[] = {
        11520u, 0u, 1509978240u, 1215971899390074240u, 1216172134540287360u,
        607988272756665600u, 16172922978634559625u, 8476171486693032832u,
        10595114339597558777u, 2904607092377533576u,
    };
    struct rng rng = {.state = {1, 2, 3, 4}};
    for (size_t i = 0; i < ARRAY_COUNT(expected); i++)
        assert_true(rng_next(&rng) == expected[i]);
}

static void splitmix_gives_its_authors_numbers(void **state)
{
    (void)state;
    assert_true(rng_mix(0) == 0xE220A8397B1DCDAFu);
    assert_true(rng_mix(1477776061723855037u) == 1985237415132408290u);
}

static void one_seed_gives_one_sequence_and_another_gives_another(void **state)
{
    (void)state;
    struct rng a, b, c;
    rng_init(&a, 7);
    rng_init(&b, 7);
    rng_init(&c, 8);
    int same = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t x = rng_next(&a);
        assert_true(x == rng_next(&b));
        same += x == rng_next(&c);
    }
    assert_int_equal(same, 0);
}

/* Chi-square with 9 degrees of freedom: 27.88 is passed with probability 0.001; the seed is
 * fixed, so the test cannot flicker. */
static void draws_below_a_bound_are_even(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 3);
    double chi = 0;
    int count[10] = {0};
    for (int i = 0; i < 100000; i++)
        count[rng_below(&rng, 10)]++;
    for (int i = 0; i < 10; i++)
        chi += (count[i] - 10000.0) * (count[i] - 10000.0) / 10000.0;
    assert_true(chi < 27.88);
    for (int i = 0; i < 100; i++)
        assert_true(rng_below(&rng, 1) == 0);
    uint64_t bound = ((uint64_t)1 << 63) + 1; /* rejects nearly half of the draws */
    for (int i = 0; i < 1000; i++)
        assert_true(rng_below(&rng, bound) < bound);
}

/* Tolerances are four standard errors of each mean: 4 / sqrt(12 n), 4 / sqrt(n), 4 sqrt(2 / n). */
static void unit_and_normal_draws_have_their_moments(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct rng rng;
    rng_init(&rng, 5);
    double unit = 0, mean = 0, square = 0;
    for (int i = 0; i < N; i++) {
        double u = rng_unit(&rng), z = rng_normal(&rng);
        assert_true(u >= 0 && u < 1 && isfinite(z));
        unit += u / N;
        mean += z / N;
        square += z * z / N;
    }
    assert_true(fabs(unit - 0.5) < 4 / sqrt(12.0 * N));
    assert_true(fabs(mean) < 4 / sqrt(N));
    assert_true(fabs(square - 1) < 4 * sqrt(2.0 / N));
}

static void counter_draws_depend_on_all_three_arguments(void **state)
{
    (void)state;
    assert_true(rng_at(1, 2, 3) == rng_at(1, 2, 3));
    assert_true(rng_at(1, 2, 3) != rng_at(1, 2, 4));
    assert_true(rng_at(1, 2, 3) != rng_at(1, 3, 2));
    assert_true(rng_at(1, 2, 3) != rng_at(2, 1, 3));
    double mean = 0;
    for (uint64_t i = 0; i < 100000; i++)
        mean += rng_unit_at(9, 1, i) / 100000;
    assert_true(fabs(mean - 0.5) < 4 / sqrt(12.0 * 100000));
}

/* ---- hashes ----------------------------------------------------------------------------- */

static const char *hex_of(const void *bytes, size_t length, char out[HASH_HEX_SIZE])
{
    struct hash hash;
    hash_bytes(bytes, length, &hash);
    hash_to_hex(&hash, out);
    return out;
}

static void hashes_match_the_reference_implementations(void **state)
{
    (void)state;
    char hex[HASH_HEX_SIZE];
    struct hash hash;
    assert_string_equal(hex_of("", 0, hex),
                        "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
    assert_string_equal(hex_of("abc", 3, hex),
                        "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    hash_sha256("abc", 3, &hash);
    hash_to_hex(&hash, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/* 76,800 bytes 0, 1, ..., 255, 0, ...: more than one chunk of hash_file. */
static void a_file_hashes_like_its_bytes_in_any_pieces(void **state)
{
    (void)state;
    static unsigned char bytes[76800];
    char hex[HASH_HEX_SIZE];
    struct err err;
    struct hash whole, pieces, file;
    struct hash_stream stream;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    assert_string_equal(hex_of(bytes, sizeof bytes, hex),
                        "ec4f8836546d9707c9b48b45ee2f64b6a0ab22ac8e823bcb79fb90467c2c73ed");
    hash_bytes(bytes, sizeof bytes, &whole);
    hash_start(&stream);
    for (size_t at = 0, step = 1; at < sizeof bytes; at += step, step = step * 2 % 4099 + 1)
        hash_add(&stream, bytes + at, min_u64(step, sizeof bytes - at));
    hash_end(&stream, &pieces);
    assert_true(hash_equal(&whole, &pieces));
    char *folder = folder_make(), *path = mem_printf("%s/f", folder);
    assert_int_equal(file_replace(path, bytes, sizeof bytes, 0600, &err), 0);
    assert_int_equal(hash_file(path, &file, &err), 0);
    assert_true(hash_equal(&whole, &file));
    assert_int_equal(hash_file(folder, &file, &err), -1);
    assert_int_equal(err.kind, ERR_IO);
    unlink(path);
    assert_int_equal(hash_file(path, &file, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    mem_free(path);
    folder_drop(folder);
}

static void a_hash_reads_back_from_its_hex(void **state)
{
    (void)state;
    char hex[HASH_HEX_SIZE];
    struct hash hash, again;
    struct err err;
    hash_bytes("x", 1, &hash);
    hash_to_hex(&hash, hex);
    assert_int_equal(hash_from_hex(hex, &again, &err), 0);
    assert_true(hash_equal(&hash, &again));
    again.bytes[31] ^= 1;
    assert_false(hash_equal(&hash, &again));
    hex[63] = '\0';
    assert_int_equal(hash_from_hex(hex, &again, &err), -1);
    hex[63] = 'g';
    assert_int_equal(hash_from_hex(hex, &again, &err), -1);
    assert_int_equal(hash_from_hex("", &again, &err), -1);
    assert_non_null(strstr(err.text, "64 hex digits"));
}

static void unpredictable_numbers_differ(void **state)
{
    (void)state;
    uint64_t a = random_u64();
    assert_true(a != random_u64() || a != random_u64()); /* both equal: once in 2^128 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xoshiro_gives_its_authors_numbers),
        cmocka_unit_test(splitmix_gives_its_authors_numbers),
        cmocka_unit_test(one_seed_gives_one_sequence_and_another_gives_another),
        cmocka_unit_test(draws_below_a_bound_are_even),
        cmocka_unit_test(unit_and_normal_draws_have_their_moments),
        cmocka_unit_test(counter_draws_depend_on_all_three_arguments),
        cmocka_unit_test(hashes_match_the_reference_implementations),
        cmocka_unit_test(a_file_hashes_like_its_bytes_in_any_pieces),
        cmocka_unit_test(a_hash_reads_back_from_its_hex),
        cmocka_unit_test(unpredictable_numbers_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
