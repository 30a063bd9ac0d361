/* bpe_test.c - training against published anchors and against naive recounting. */
#include "common/base/buf.h"
#include "common/base/rng.h"
#include "tests/unit/data/inputs.h"
#include "tests/unit/data/md5.h"
#include "worker/engine/data/bpe.h"
#include "worker/engine/data/pieces.h"

#define ANCHOR_MERGES 768 /* |V| = 1024 */

/* The text after " | " of every synset line, stripped, each ended by a newline. */
static void add_glosses(const char *file, struct buf *out, size_t *count)
{
    struct err err;
    char *path = mem_printf("%s/data.%s", WORDNET_FOLDER, file), *bytes;
    size_t length;
    assert_int_equal(file_read(path, INPUT_BYTES_MAX, &bytes, &length, &err), 0);
    for (char *rest = bytes, *line; (line = strsep(&rest, "\n"));) {
        if (!*line || *line == ' ')
            continue;
        char *gloss = strstr(line, " | ") + 3;
        gloss += strspn(gloss, " ");
        size_t end = strlen(gloss);
        while (end > 0 && gloss[end - 1] == ' ')
            end--;
        buf_add(out, gloss, end);
        buf_putc(out, '\n');
        ++*count;
    }
    mem_free(bytes);
    mem_free(path);
}

/* Card data-tokenizers-and-shards, section 3: counts, MD5s and the first 16 merges. */
static void training_on_wordnet_meets_the_published_anchors(void **state)
{
    (void)state;
    static const char *const files[] = {"noun", "verb", "adj", "adv"};
    static const int64_t first_counts[16] = {164203, 154036, 147549, 147173, 115551, 89323,
                                             89049,  77858,  76750,  76606,  75602,  74328,
                                             72254,  70606,  70443,  66134};
    static const char *const first_tokens[16] = {"in", "th", " o", " a", "er", " th", " s", "es",
                                                 "on", "ed", " of", "at", "en", "an", " c", " the"};
    struct buf text = {0}, merges_text = {0};
    struct word_counts counts = {0};
    struct merge_table merges = {0};
    struct byte_map tokens = {0};
    static int64_t merge_counts[ANCHOR_MERGES];
    size_t glosses = 0, encoded = 0;
    char md5[33];

    need_wordnet();
    for (size_t i = 0; i < ARRAY_COUNT(files); i++)
        add_glosses(files[i], &text, &glosses);
    assert_int_equal(glosses, 117659);
    assert_int_equal(text.length, 8963291);
    md5_of(text.bytes, text.length, md5);
    assert_string_equal(md5, "595434a23dcfe4a2ef8b9f2979606227");

    word_counts_add_text(&counts, text.bytes, text.length);
    assert_int_equal(counts.piece_count, 1804884);
    assert_int_equal(counts.words.count, 72388);
    bpe_train(&counts, 256 + ANCHOR_MERGES, 1, &merges, merge_counts);
    assert_int_equal(merges.count, ANCHOR_MERGES);
    for (unsigned byte = 0; byte < 256; byte++)
        byte_map_put(&tokens, &(uint8_t){(uint8_t)byte}, 1);
    for (size_t i = 0; i < merges.count; i++) {
        struct byte_entry left = tokens.entries[merges.merges[i].left];
        struct byte_entry right = tokens.entries[merges.merges[i].right];
        char *joined = mem_printf("%s%s", left.bytes, right.bytes);
        byte_map_put(&tokens, joined, strlen(joined));
        if (i < 16) {
            assert_string_equal(joined, first_tokens[i]);
            assert_int_equal(merge_counts[i], first_counts[i]);
        }
        mem_free(joined);
        buf_printf(&merges_text, "%s%u %u", i ? "," : "", merges.merges[i].left,
                   merges.merges[i].right);
    }
    md5_of(merges_text.bytes, merges_text.length, md5);
    assert_string_equal(md5, "e1af35d7dfc61e594741b781db9a96a6");

    for (size_t w = 0; w < counts.words.count; w++) {
        const struct byte_entry *word = &counts.words.entries[w];
        uint32_t scan[BPE_PIECE_MAX_BYTES], heap[BPE_PIECE_MAX_BYTES];
        for (uint32_t i = 0; i < word->length; i++)
            scan[i] = heap[i] = (uint8_t)word->bytes[i];
        size_t count = bpe_merge_heap(&merges, heap, word->length);
        encoded += count * word->value;
        if (word->length <= BPE_SCAN_MAX) {
            assert_int_equal(bpe_merge_scan(&merges, scan, word->length), count);
            assert_memory_equal(scan, heap, count * sizeof *heap);
        }
    }
    assert_int_equal(encoded, 3517805);
    byte_map_done(&tokens);
    merge_table_done(&merges);
    word_counts_done(&counts);
    buf_done(&merges_text);
    buf_done(&text);
}

/* Plain recounting, as an independent judge: pieces as arrays of spelled tokens. */
struct naive {
    struct buf *tokens; /* one after the other over all pieces */
    bool *begins;       /* the token begins a piece */
    size_t count;
};

static void naive_init(struct naive *naive, const char *text, size_t length)
{
    naive->tokens = mem_array(length, sizeof *naive->tokens);
    naive->begins = mem_array(length + 1, sizeof *naive->begins);
    naive->count = length;
    for (size_t i = 0; i < length; i++)
        buf_putc(&naive->tokens[i], text[i]);
    for (size_t at = 0; at < length; at += piece_next(text + at, length - at))
        naive->begins[at] = true;
    naive->begins[length] = true;
}

static bool token_is(const struct buf *token, const char *text)
{
    return strcmp(buf_text(token), text) == 0;
}

/* How often the pair occurs, and then merges it, left to right. */
static int64_t naive_merge(struct naive *naive, const char *left, const char *right)
{
    int64_t occurrences = 0;
    size_t kept = 0;
    for (size_t i = 0; i + 1 < naive->count; i++)
        occurrences += !naive->begins[i + 1] && token_is(&naive->tokens[i], left) &&
                       token_is(&naive->tokens[i + 1], right);
    for (size_t i = 0; i < naive->count; kept++) {
        bool hit = i + 1 < naive->count && !naive->begins[i + 1] &&
                   token_is(&naive->tokens[i], left) && token_is(&naive->tokens[i + 1], right);
        struct buf token = naive->tokens[i];
        bool begins = naive->begins[i];
        if (hit) {
            buf_puts(&token, buf_text(&naive->tokens[i + 1]));
            buf_done(&naive->tokens[i + 1]);
        }
        i += hit ? 2 : 1;
        naive->tokens[kept] = token;
        naive->begins[kept] = begins;
    }
    naive->count = kept;
    naive->begins[kept] = true;
    return occurrences;
}

/* The published result breaks ties the other way. The counts at each merge, recounted naively
 * for the reference's merges, must be ours until two tied pairs first share a token: from
 * there on (merge 219) the two vocabularies differ for good. */
static void merge_counts_equal_those_of_a_published_training_run(void **state)
{
    (void)state;
    enum { MERGES = 243, COMPARED = 219 };
    size_t length, rules_length, step = 0;
    char *text = input_read("tokenizers/bpe-train/corpus.en", &length);
    char *rules = input_read("tokenizers/bpe-train/train-bpe-reference-merges.txt", &rules_length);
    struct word_counts counts = {0};
    struct merge_table merges = {0};
    struct naive naive;
    int64_t merge_counts[MERGES];
    word_counts_add_text(&counts, text, length);
    bpe_train(&counts, 256 + MERGES, 1, &merges, merge_counts);
    assert_int_equal(merges.count, MERGES);
    naive_init(&naive, text, length);
    for (char *rest = rules, *line; (line = strsep(&rest, "\n")) && *line; step++) {
        char *space = strchr(line, ' '), left[64], right[64];
        *space = 0;
        /* The only mapped byte in these rules is the space, "\u0120". */
        snprintf(left, sizeof left, "%s%s", strncmp(line, "\xC4\xA0", 2) ? "" : " ",
                 strncmp(line, "\xC4\xA0", 2) ? line : line + 2);
        snprintf(right, sizeof right, "%s", space + 1);
        int64_t occurrences = naive_merge(&naive, left, right);
        if (step < COMPARED)
            assert_int_equal(occurrences, merge_counts[step]);
    }
    assert_int_equal(step, MERGES);
    for (size_t i = 0; i < naive.count; i++)
        buf_done(&naive.tokens[i]);
    mem_free(naive.tokens);
    mem_free(naive.begins);
    merge_table_done(&merges);
    word_counts_done(&counts);
    mem_free(rules);
    mem_free(text);
}

static void equal_counts_merge_the_smaller_pair_first(void **state)
{
    (void)state;
    struct word_counts counts = {0};
    struct merge_table merges = {0};
    word_counts_add_text(&counts, "cd ab", 5); /* "cd", " ab": three pairs, once each */
    bpe_train(&counts, 258, 1, &merges, NULL);
    assert_int_equal(merges.count, 2);
    assert_int_equal(merges.merges[0].left, ' ');
    assert_int_equal(merges.merges[0].right, 'a');
    assert_int_equal(merges.merges[1].left, 'c');
    merge_table_done(&merges);
    word_counts_done(&counts);
}

static void training_stops_at_the_rarest_pair_allowed(void **state)
{
    (void)state;
    struct word_counts counts = {0};
    struct merge_table merges = {0};
    word_counts_add_text(&counts, "ab ab xy", 8);
    bpe_train(&counts, 1000, 2, &merges, NULL);
    assert_int_equal(merges.count, 1); /* "ab" twice; " ab" and " xy" once */
    merge_table_done(&merges);
    word_counts_done(&counts);
}

/* "aaaa" counts (a,a) three times but merges twice. */
static void overlapping_pairs_are_counted_and_merged_left_to_right(void **state)
{
    (void)state;
    struct word_counts counts = {0};
    struct merge_table merges = {0};
    int64_t merge_counts[2];
    word_counts_add_text(&counts, "aaaa", 4);
    bpe_train(&counts, 258, 1, &merges, merge_counts);
    assert_int_equal(merge_counts[0], 3);
    assert_int_equal(merges.merges[1].left, 256);
    assert_int_equal(merges.merges[1].right, 256);
    assert_int_equal(merge_counts[1], 1);
    merge_table_done(&merges);
    word_counts_done(&counts);
}

static void scan_and_heap_agree_on_random_rules_and_texts(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 3);
    for (int round = 0; round < 300; round++) {
        struct merge_table table = {0};
        for (uint32_t id = 256; id < 286; id++) {
            uint32_t letter = (uint32_t)('a' + rng_below(&rng, 3));
            uint32_t token = (uint32_t)(256 + rng_below(&rng, id - 255));
            uint32_t left = rng_below(&rng, 3) ? letter : token;
            merge_table_add(&table,
                            (struct merge){left, (uint32_t)('a' + rng_below(&rng, 3)), id});
        }
        for (int text = 0; text < 20; text++) {
            uint32_t scan[BPE_SCAN_MAX], heap[BPE_SCAN_MAX];
            size_t length = 1 + rng_below(&rng, BPE_SCAN_MAX);
            for (size_t i = 0; i < length; i++)
                scan[i] = heap[i] = (uint32_t)('a' + rng_below(&rng, 3));
            size_t count = bpe_merge_scan(&table, scan, length);
            assert_int_equal(bpe_merge_heap(&table, heap, length), count);
            assert_memory_equal(scan, heap, count * sizeof *scan);
        }
        merge_table_done(&table);
    }
}

/* Quadratic time would need hours here; the result is known: halves, again and again. */
static void a_million_equal_bytes_are_merged(void **state)
{
    (void)state;
    enum { LENGTH = 1000000 };
    struct merge_table table = {0};
    uint32_t *ids = mem_array(LENGTH, sizeof *ids), left = 'a';
    for (uint32_t id = 256; id < 262; id++) {
        merge_table_add(&table, (struct merge){left, left, id});
        left = id;
    }
    for (size_t i = 0; i < LENGTH; i++)
        ids[i] = 'a';
    assert_int_equal(bpe_merge_heap(&table, ids, LENGTH), LENGTH / 64);
    for (size_t i = 0; i < LENGTH / 64; i++)
        assert_int_equal(ids[i], 261);
    mem_free(ids);
    merge_table_done(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_on_wordnet_meets_the_published_anchors),
        cmocka_unit_test(merge_counts_equal_those_of_a_published_training_run),
        cmocka_unit_test(equal_counts_merge_the_smaller_pair_first),
        cmocka_unit_test(training_stops_at_the_rarest_pair_allowed),
        cmocka_unit_test(overlapping_pairs_are_counted_and_merged_left_to_right),
        cmocka_unit_test(scan_and_heap_agree_on_random_rules_and_texts),
        cmocka_unit_test(a_million_equal_bytes_are_merged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
