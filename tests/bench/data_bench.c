/* link: recipes
 *
 * data_bench.c - what a core makes of text: each rule of data/dolma and data/yi, all of Dolma's,
 * and the tokenizer's training and encoding.
 *
 *   data_bench [--mb N] [TOKENIZER...]     tokenizer.json, vocab.txt or .model: encoding with it
 *
 * Bytes of text a second of processor time, beside counting its lines (what wc -l does) and copying
 * it (memcpy, the memory's bandwidth as one core has it), in the same run. The text is Markov prose
 * of WordNet-like words, cut into documents of 4 KB and paragraphs of 400 bytes. The implied rate
 * of Dolma's own tools is 2.3 MB/s of a core (card data-dolma, "Cost"). */
#include "common/base/buf.h"
#include "common/base/json_text.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/rng.h"
#include "worker/engine/comm.h"
#include "worker/engine/data/bpe.h"
#include "worker/engine/data/tokenizer.h"
#include "worker/recipes/data/web/cluster.h"
#include "worker/recipes/data/web/coherence.h"
#include "worker/recipes/data/web/html.h"
#include "worker/recipes/data/web/minhash.h"
#include "worker/recipes/data/web/repetition.h"
#include "worker/recipes/data/web/trigram.h"
#include "worker/recipes/data/web/web.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DOCUMENT_BYTES 4096
#define WORDS          4000
#define LANGUAGES      10

struct bench {
    char *text;
    size_t length, documents;
    struct view view;
    struct buf json;          /* the same as JSON lines */
    struct classifier *langid, *hate;
    struct features features;
    struct word_spread spread;
    struct vectors vectors;
    struct minhash minhash;
    struct shingles shingles;
    struct trigram *trigram;
    struct coherence *coherence;
    struct tokenizer *tokenizer;
    double copy_rate;
    uint64_t kept_busy; /* what results are added to, so that no call is left out */
};

static void must(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "data_bench: %s\n", err->text);
    exit(1);
}

/* ---- the text --------------------------------------------------------------------------- */

static void make_words(char words[WORDS][16])
{
    static const char *const parts[] = {"ra", "be", "ti", "lo", "mun", "ser", "ka", "din", "o",
                                        "ple", "sta", "ing"};

    for (unsigned w = 0; w < WORDS; w++) {
        size_t length = 0;
        for (unsigned p = 0; p < 1 + w % 4; p++)
            length += (size_t)snprintf(words[w] + length, sizeof words[w] - length, "%s",
                                       parts[rng_at(1, w, p) % ARRAY_COUNT(parts)]);
    }
}

/* Words by a power law, with the common ones of English. */
static void make_text(struct bench *bench, size_t bytes)
{
    static const char *const common[] = {"the", "of", "and", "to", "that", "have", "with", "be"};
    static char words[WORDS][16];
    struct buf text = {0};
    size_t sentence = 0, paragraph = 0;

    make_words(words);
    for (uint64_t i = 0; text.length < bytes; i++) {
        double draw = rng_unit_at(2, i, 0);
        const char *word = rng_at(2, i, 1) % 4 == 0 ? common[rng_at(2, i, 2) % ARRAY_COUNT(common)]
                                                    : words[(size_t)(draw * draw * draw * WORDS)];
        buf_puts(&text, word);
        if (++sentence == 14) {
            bool end = text.length - paragraph > 400;
            buf_puts(&text, end ? ".\n" : ". ");
            paragraph = end ? text.length : paragraph;
            sentence = 0;
        } else {
            buf_putc(&text, ' ');
        }
    }
    bench->length = text.length;
    bench->text = buf_take(&text);
    bench->documents = bench->length / DOCUMENT_BYTES;
    for (size_t d = 0; d < bench->documents; d++) {
        buf_printf(&bench->json, "{\"id\":\"%zu\",\"text\":", d);
        json_text_quote(&bench->json, bench->text + d * DOCUMENT_BYTES, DOCUMENT_BYTES);
        buf_puts(&bench->json, "}\n");
    }
}

/* ---- what is measured ------------------------------------------------------------------- */

typedef void (*measured)(struct bench *bench, const char *text, size_t length);

static void do_copy(struct bench *bench, const char *text, size_t length)
{
    static char *room;

    room = room ? room : mem_alloc(bench->length);
    memcpy(room + (text - bench->text), text, length);
    bench->kept_busy += (uint8_t)room[text - bench->text];
}

static void do_lines(struct bench *bench, const char *text, size_t length)
{
    const char *end = text + length;

    for (; (text = memchr(text, '\n', (size_t)(end - text))); text++)
        bench->kept_busy++;
}

static void do_language(struct bench *bench, const char *text, size_t length)
{
    float p[LANGUAGES];

    features_set(&bench->features, bench->langid, text, length);
    classifier_predict(bench->langid, &bench->features, p);
    bench->kept_busy += p[0] > 0.5f;
}

static void do_words(struct bench *bench, const char *text, size_t length)
{
    view_set(&bench->view, text, length);
    bench->kept_busy += bench->view.word_count;
}

static void do_gopher(struct bench *bench, const char *text, size_t length)
{
    double value[GOPHER_END];

    (void)text;
    (void)length;
    gopher_measure(&bench->view, GOPHER_DOLMA, value);
    bench->kept_busy += value[GOPHER_DUP_5] > 0;
}

static void do_c4(struct bench *bench, const char *text, size_t length)
{
    struct spans spans = {0};
    struct c4_result result;

    (void)text;
    (void)length;
    c4_check(&bench->view, C4_NOPUNC, NULL, &spans, &result);
    bench->kept_busy += spans.count;
    spans_done(&spans);
}

static void do_words_gopher(struct bench *bench, const char *text, size_t length)
{
    do_words(bench, text, length);
    do_gopher(bench, text, length);
}

static void do_words_c4(struct bench *bench, const char *text, size_t length)
{
    do_words(bench, text, length);
    do_c4(bench, text, length);
}

static void do_pii(struct bench *bench, const char *text, size_t length)
{
    struct pii_spans found = {0};

    pii_find(text, length, &found);
    bench->kept_busy += found.count;
    pii_done(&found);
}

static void do_repetition(struct bench *bench, const char *text, size_t length)
{
    bench->kept_busy += repetition_most(text, length);
}

static void do_keys(struct bench *bench, const char *text, size_t length)
{
    const char *end = text + length, *next;

    for (; text < end; text = next) {
        next = memchr(text, '\n', (size_t)(end - text));
        next = next ? next + 1 : end;
        bench->kept_busy += key_of(text, (size_t)(next - text), 1).low;
    }
}

static void do_perplexity(struct bench *bench, const char *text, size_t length)
{
    bench->kept_busy += trigram_mean(bench->trigram, text, length) < -5;
}

static void do_coherence(struct bench *bench, const char *text, size_t length)
{
    bench->kept_busy += coherence_score(bench->coherence, text, length) < 0;
}

static void do_minhash(struct bench *bench, const char *text, size_t length)
{
    uint64_t keys[64];

    shingles_set(&bench->shingles, 5, text, length);
    bench->kept_busy += minhash_keys(&bench->minhash, &bench->shingles, keys);
}

static void do_dolma(struct bench *bench, const char *text, size_t length)
{
    do_language(bench, text, length);
    do_words(bench, text, length);
    do_gopher(bench, text, length);
    do_c4(bench, text, length);
    do_pii(bench, text, length);
}

/* As the scorers hate and nsfw of data/dolma work: by sentence, words and pairs of them. */
static void do_sentences(struct bench *bench, const char *text, size_t length)
{
    size_t begin, end = 0;
    float p[2];

    while (scorer_next_unit(SCORER_SENTENCE, text, length, &begin, &end)) {
        features_set(&bench->features, bench->hate, text + begin, end - begin);
        classifier_predict(bench->hate, &bench->features, p);
        bench->kept_busy += p[0] > 0.4f;
    }
}

static void do_spread(struct bench *bench, const char *text, size_t length)
{
    word_spread_add(&bench->spread, text, length);
    bench->kept_busy += (uint64_t)bench->spread.count;
}

static void do_vector(struct bench *bench, const char *text, size_t length)
{
    bench->vectors.count = 0;
    vectors_add_text(&bench->vectors, &bench->spread, text, length);
    bench->kept_busy += (uint64_t)bench->vectors.items[0] + 1;
}

static void do_count(struct bench *bench, const char *text, size_t length)
{
    static struct word_counts counts;

    word_counts_add_text(&counts, text, length);
    bench->kept_busy += counts.piece_count;
    if (text + length >= bench->text + bench->documents * DOCUMENT_BYTES)
        word_counts_done(&counts), counts = (struct word_counts){0};
}

static void do_encode(struct bench *bench, const char *text, size_t length)
{
    struct token_list ids = {0};

    tokenizer_encode(bench->tokenizer, text, length, &ids);
    bench->kept_busy += ids.count;
    token_list_done(&ids);
}

/* MB a second of processor time, document by document; at least half a second is measured. */
static double rate(struct bench *bench, measured what)
{
    clock_t began = clock(), spent;
    double bytes = 0;

    do {
        for (size_t d = 0; d < bench->documents; d++)
            what(bench, bench->text + d * DOCUMENT_BYTES, DOCUMENT_BYTES);
        bytes += (double)(bench->documents * DOCUMENT_BYTES);
        spent = clock() - began;
    } while (spent < CLOCKS_PER_SEC / 2);
    return bytes / 1e6 / ((double)spent / CLOCKS_PER_SEC);
}

static double parse_rate(struct bench *bench)
{
    clock_t began = clock();
    struct document document;
    struct err err;

    for (const char *at = bench->json.bytes, *end; (end = strchr(at, '\n')); at = end + 1) {
        must(document_parse(at, (size_t)(end - at), &document, &err), &err);
        bench->kept_busy += document.length;
        document_done(&document);
    }
    return (double)bench->json.length / 1e6 / ((double)(clock() - began) / CLOCKS_PER_SEC);
}

/* The text as a page with markup around each paragraph, as much again as it is long. */
static double page_rate(struct bench *bench)
{
    static const struct html_skip skip = {{"nav", "footer", "aside", "form"}, 4};
    struct buf page = {0}, text = {0};
    double bytes = 0;

    for (size_t at = 0; page.length < 1 << 20;) {
        size_t take = min_u64(400, bench->length - at);
        buf_puts(&page, "<div class=\"entry content-main\" id=\"paragraph\">"
                        "<p style='margin: 0 auto'>");
        buf_add(&page, bench->text + at, take);
        buf_puts(&page, "</p><a href=\"https://example.org/a/path/to/a/page.html?query=of-some-"
                        "length&amp;more\" title=\"A title\">&raquo;</a><script>var a = 1 < 2; "
                        "document.write('<p>' + a);</script></div>\n");
        at += take;
    }
    clock_t began = clock(), spent;
    do {
        buf_clear(&text);
        html_text(&skip, page.bytes, page.length, &text);
        bytes += (double)page.length;
        bench->kept_busy += text.length;
        spent = clock() - began;
    } while (spent < CLOCKS_PER_SEC / 2);
    buf_done(&page);
    buf_done(&text);
    return bytes / 1e6 / ((double)spent / CLOCKS_PER_SEC);
}

/* A round of k-means over all documents, with as many clusters as the card would have. */
static double round_rate(struct bench *bench, struct err *err)
{
    struct comm comm = {.size = 1};
    struct vectors vectors = {.width = CLUSTER_WIDTH};
    struct clusters clusters;
    uint64_t *order = mem_array(bench->documents + 1, sizeof *order);

    for (size_t d = 0; d < bench->documents; d++) {
        order[d] = rng_at(4, d, 0);
        vectors_add_text(&vectors, &bench->spread, bench->text + d * DOCUMENT_BYTES,
                         DOCUMENT_BYTES);
    }
    clock_t began = clock();
    must(clusters_find(&comm, &vectors, order, cluster_count((int64_t)bench->documents), 3,
                       &clusters, err), err);
    double spent = (double)(clock() - began) / CLOCKS_PER_SEC;
    double bytes = (double)(bench->documents * DOCUMENT_BYTES) * (clusters.rounds + 1);
    bench->kept_busy += clusters.count;
    clusters_done(&clusters);
    vectors_done(&vectors);
    mem_free(order);
    return bytes / 1e6 / spent;
}

/* ---- the table -------------------------------------------------------------------------- */

static void open_bench(struct bench *bench, struct err *err)
{
    static const char *const labels[LANGUAGES] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"};
    struct word_counts counts = {0};

    must(classifier_new(FEATURES_CHARS, 18, labels, LANGUAGES, &bench->langid, err), err);
    must(classifier_new(FEATURES_WORDS, 18, labels, 2, &bench->hate, err), err);
    must(minhash_init(&bench->minhash, 14, 8, 5, 1, err), err);
    bench->trigram = trigram_new(1);
    for (size_t d = 0; d < bench->documents; d++)
        trigram_add(bench->trigram, bench->text + d * DOCUMENT_BYTES, DOCUMENT_BYTES);
    must(trigram_finish(bench->trigram, err), err);
    bench->coherence = coherence_new(1);
    for (size_t d = 0; d < bench->documents && d < 1000; d++)
        coherence_add(bench->coherence, bench->text + d * DOCUMENT_BYTES, DOCUMENT_BYTES);
    must(coherence_finish(bench->coherence, 5, err), err);
    word_counts_add_text(&counts, bench->text, bench->length);
    clock_t began = clock();
    must(tokenizer_train(&counts, 2048, 2, &bench->tokenizer, err), err);
    printf("%-34s %10.2f s for %zu different pieces\n", "training 2,048 ids, once counted",
           (double)(clock() - began) / CLOCKS_PER_SEC, counts.words.count);
    word_counts_done(&counts);
}

static void put_row(const struct bench *bench, const char *name, double mb_per_s)
{
    printf("%-34s %10.1f %11.3f %%\n", name, mb_per_s, 100 * mb_per_s / bench->copy_rate);
}

static void put_tokenizer(struct bench *bench, const char *path)
{
    struct tokenizer *own = bench->tokenizer;
    char *name = mem_printf("tokenizer: %s", strrchr(path, '/') ? strrchr(path, '/') + 1 : path);
    struct err err;

    must(tokenizer_read(path, &bench->tokenizer, &err), &err);
    put_row(bench, name, rate(bench, do_encode));
    mem_free(name);
    tokenizer_free(bench->tokenizer);
    bench->tokenizer = own;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        measured what;
    } rows[] = {{"counting lines (wc -l)", do_lines},
                {"words and lines of a text", do_words},
                {"language, 10 labels", do_language},
                {"gopher, with words", do_words_gopher},
                {"c4, with words", do_words_c4},
                {"pii", do_pii},
                {"a scorer of sentences", do_sentences},
                {"repetition", do_repetition},
                {"keys of paragraphs", do_keys},
                {"perplexity", do_perplexity},
                {"coherence", do_coherence},
                {"minhash 14 x 8", do_minhash},
                {"cluster: counting words", do_spread},
                {"cluster: vectors", do_vector},
                {"language + gopher + c4 + pii", do_dolma},
                {"tokenizer: counting pieces", do_count},
                {"tokenizer: encoding", do_encode}};
    struct bench bench = {.vectors.width = CLUSTER_WIDTH};
    struct err err;
    uint64_t megabytes = 32; /* more than caches hold */

    int at = 1;

    if (argc >= 3 && strcmp(argv[1], "--mb") == 0) {
        must(parse_u64(argv[2], &megabytes, &err), &err);
        at = 3;
    }
    make_text(&bench, (size_t)megabytes << 20);
    open_bench(&bench, &err);
    bench.copy_rate = rate(&bench, do_copy);
    printf("%-34s %10s %13s\n", "of a core", "MB/s", "of memcpy");
    put_row(&bench, "copying (memcpy)", bench.copy_rate);
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        put_row(&bench, rows[i].name, rate(&bench, rows[i].what));
    put_row(&bench, "reading JSON lines", parse_rate(&bench));
    put_row(&bench, "cluster: a round of k-means", round_rate(&bench, &err));
    put_row(&bench, "text of HTML pages", page_rate(&bench));
    for (; at < argc; at++)
        put_tokenizer(&bench, argv[at]);
    return bench.kept_busy == 0; /* which it is not */
}
