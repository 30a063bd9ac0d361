/* bpe_train.c - learning merges from piece counts; see bpe.h.
 *
 * Each distinct piece is merged once, weighted by its count. A pair knows the words it
 * occurs in, so one merge touches only those. Counts in the heap may be out of date, but
 * never too low: a pair whose count rose is pushed again. So a popped entry that disagrees
 * goes back with its true count and nothing better is missed. */
#include "common/base/mem.h"
#include "worker/engine/data/bpe.h"
#include "worker/engine/data/pieces.h"

#include <string.h>

struct pair {
    uint32_t left, right;
    int64_t count;   /* over all words, overlapping occurrences included */
    uint32_t *words; /* every word that ever contained it, possibly twice */
    size_t word_count, word_capacity;
    size_t raised_in; /* number of the last merge that raised the count */
};

struct word {
    uint32_t *ids;
    uint32_t count;
    int64_t occurrences;
};

struct entry {
    int64_t count;
    uint32_t pair;
};

struct trainer {
    struct word *words;
    size_t word_count;
    uint32_t *ids; /* of all words, one after the other */
    struct pair *pairs;
    size_t pair_count, pair_capacity;
    struct pair_map pair_of;
    struct entry *heap;
    size_t heap_count, heap_capacity;
    struct byte_map tokens; /* spellings; a token's id is its entry number */
    uint32_t *raised;       /* pairs whose count the current merge raised */
    size_t raised_count, raised_capacity, merges_done;
};

void word_counts_add_text(struct word_counts *counts, const char *text, size_t length)
{
    size_t most = counts->piece_max_bytes ? counts->piece_max_bytes : BPE_PIECE_MAX_BYTES;
    while (length > 0) {
        size_t piece = piece_next_of(counts->pattern, text, length);
        if (piece > most)
            piece = most;
        uint32_t word = byte_map_put(&counts->words, text, piece); /* may move the entries */
        counts->words.entries[word].value++;
        counts->piece_count++;
        text += piece;
        length -= piece;
    }
}

void word_counts_done(struct word_counts *counts)
{
    byte_map_done(&counts->words);
    *counts = (struct word_counts){0};
}

/* The order of merging: count, then the smaller pair. */
static bool entry_before(const struct trainer *trainer, struct entry a, struct entry b)
{
    if (a.count != b.count)
        return a.count > b.count;
    const struct pair *x = &trainer->pairs[a.pair], *y = &trainer->pairs[b.pair];
    return x->left != y->left ? x->left < y->left : x->right < y->right;
}

static void heap_push(struct trainer *trainer, struct entry entry)
{
    VEC_RESERVE(trainer->heap, trainer->heap_count, trainer->heap_capacity);
    struct entry *heap = trainer->heap;
    size_t at = trainer->heap_count++;
    while (at > 0 && entry_before(trainer, entry, heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = entry;
}

static struct entry heap_pop(struct trainer *trainer)
{
    struct entry *heap = trainer->heap;
    struct entry top = heap[0], last = heap[--trainer->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= trainer->heap_count)
            break;
        if (child + 1 < trainer->heap_count && entry_before(trainer, heap[child + 1], heap[child]))
            child++;
        if (!entry_before(trainer, heap[child], last))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

static uint32_t pair_intern(struct trainer *trainer, uint32_t left, uint32_t right)
{
    uint32_t at = pair_map_find(&trainer->pair_of, left, right);
    if (at != BYTE_MAP_NONE)
        return at;
    VEC_RESERVE(trainer->pairs, trainer->pair_count, trainer->pair_capacity);
    at = (uint32_t)trainer->pair_count++;
    trainer->pairs[at] = (struct pair){.left = left, .right = right};
    pair_map_add(&trainer->pair_of, left, right, at);
    return at;
}

static void pair_mark_raised(struct trainer *trainer, uint32_t at)
{
    if (trainer->pairs[at].raised_in == trainer->merges_done)
        return;
    trainer->pairs[at].raised_in = trainer->merges_done;
    VEC_RESERVE(trainer->raised, trainer->raised_count, trainer->raised_capacity);
    trainer->raised[trainer->raised_count++] = at;
}

/* One occurrence of (left, right) in word w; known: the pair lists the word already. */
static void pair_count_in(struct trainer *trainer, uint32_t left, uint32_t right, uint32_t w,
                          bool known)
{
    uint32_t at = pair_intern(trainer, left, right);
    struct pair *pair = &trainer->pairs[at];
    pair->count += trainer->words[w].occurrences;
    if (known)
        return;
    pair_mark_raised(trainer, at);
    if (pair->word_count && pair->words[pair->word_count - 1] == w)
        return;
    VEC_RESERVE(pair->words, pair->word_count, pair->word_capacity);
    pair->words[pair->word_count++] = w;
}

/* Gives every pair whose count rose its place in the heap. */
static void push_raised(struct trainer *trainer)
{
    for (size_t i = 0; i < trainer->raised_count; i++) {
        uint32_t at = trainer->raised[i];
        heap_push(trainer, (struct entry){trainer->pairs[at].count, at});
    }
    trainer->raised_count = 0;
}

static void trainer_init(struct trainer *trainer, const struct byte_map *words)
{
    trainer->merges_done = 1; /* 0 stands for "never raised" */
    for (unsigned byte = 0; byte < 256; byte++)
        byte_map_put(&trainer->tokens, &(uint8_t){(uint8_t)byte}, 1);
    size_t total = 0;
    for (size_t w = 0; w < words->count; w++)
        total += words->entries[w].length;
    trainer->ids = mem_array(total + 1, sizeof *trainer->ids);
    trainer->words = mem_array(words->count + 1, sizeof *trainer->words);
    trainer->word_count = words->count;
    uint32_t *ids = trainer->ids;
    for (size_t w = 0; w < words->count; w++) {
        const struct byte_entry *entry = &words->entries[w];
        trainer->words[w] = (struct word){ids, entry->length, (int64_t)entry->value};
        for (uint32_t i = 0; i < entry->length; i++)
            ids[i] = (uint8_t)entry->bytes[i];
        for (uint32_t i = 0; i + 1 < entry->length; i++)
            pair_count_in(trainer, ids[i], ids[i + 1], (uint32_t)w, false);
        ids += entry->length;
    }
    push_raised(trainer);
}

/* Replaces the pair in one word, left to right, and moves the counts of all its pairs. */
static void word_merge(struct trainer *trainer, uint32_t w, uint32_t left, uint32_t right,
                       uint32_t id)
{
    struct word *word = &trainer->words[w];
    bool found = false;
    for (uint32_t i = 0; i + 1 < word->count && !found; i++)
        found = word->ids[i] == left && word->ids[i + 1] == right;
    if (!found)
        return; /* an earlier merge consumed it */
    for (uint32_t i = 0; i + 1 < word->count; i++) {
        uint32_t at = pair_map_find(&trainer->pair_of, word->ids[i], word->ids[i + 1]);
        trainer->pairs[at].count -= word->occurrences;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < word->count; kept++) {
        bool hit = i + 1 < word->count && word->ids[i] == left && word->ids[i + 1] == right;
        word->ids[kept] = hit ? id : word->ids[i];
        i += hit ? 2 : 1;
    }
    word->count = kept;
    for (uint32_t i = 0; i + 1 < kept; i++) {
        bool fresh = word->ids[i] == id || word->ids[i + 1] == id;
        pair_count_in(trainer, word->ids[i], word->ids[i + 1], w, !fresh);
    }
}

static void pair_merge(struct trainer *trainer, uint32_t p, uint32_t id)
{
    struct pair pair = trainer->pairs[p]; /* a copy: the array may move */
    trainer->pairs[p].words = NULL;
    trainer->pairs[p].word_count = trainer->pairs[p].word_capacity = 0;
    trainer->merges_done++;
    for (size_t i = 0; i < pair.word_count; i++)
        word_merge(trainer, pair.words[i], pair.left, pair.right, id);
    mem_free(pair.words);
    push_raised(trainer);
}

/* The id of the bytes that left and right spell together; new ones get the next number. */
static uint32_t token_join(struct trainer *trainer, uint32_t left, uint32_t right)
{
    struct byte_entry a = trainer->tokens.entries[left], b = trainer->tokens.entries[right];
    char *bytes = mem_alloc((size_t)a.length + b.length);
    memcpy(bytes, a.bytes, a.length);
    memcpy(bytes + a.length, b.bytes, b.length);
    uint32_t id = byte_map_put(&trainer->tokens, bytes, (size_t)a.length + b.length);
    mem_free(bytes);
    return id;
}

/* The best pair with its true count; false when none occurs min_count times. */
static bool trainer_best(struct trainer *trainer, int64_t min_count, struct entry *out)
{
    while (trainer->heap_count > 0) {
        struct entry top = heap_pop(trainer);
        int64_t count = trainer->pairs[top.pair].count;
        if (count < min_count)
            continue;
        if (count == top.count) {
            *out = top;
            return true;
        }
        heap_push(trainer, (struct entry){count, top.pair});
    }
    return false;
}

static void trainer_done(struct trainer *trainer)
{
    for (size_t p = 0; p < trainer->pair_count; p++)
        mem_free(trainer->pairs[p].words);
    mem_free(trainer->pairs);
    mem_free(trainer->words);
    mem_free(trainer->ids);
    mem_free(trainer->heap);
    mem_free(trainer->raised);
    byte_map_done(&trainer->tokens);
    pair_map_done(&trainer->pair_of);
}

void bpe_train(const struct word_counts *counts, size_t vocab_count, uint64_t min_count,
               struct merge_table *out, int64_t *counts_out)
{
    struct trainer trainer = {0};
    struct entry best;
    trainer_init(&trainer, &counts->words);
    while (trainer.tokens.count < vocab_count &&
           trainer_best(&trainer, min_count ? (int64_t)min_count : 1, &best)) {
        struct pair pair = trainer.pairs[best.pair];
        if (pair_map_find(&out->rank, pair.left, pair.right) != BYTE_MAP_NONE)
            continue; /* came back through a shared id: the rule exists already */
        if (counts_out && out->count < vocab_count - 256)
            counts_out[out->count] = best.count;
        uint32_t id = token_join(&trainer, pair.left, pair.right);
        merge_table_add(out, (struct merge){pair.left, pair.right, id});
        pair_merge(&trainer, best.pair, id);
    }
    trainer_done(&trainer);
}
