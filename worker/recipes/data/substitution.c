/* substitution.c - see substitution.h. */
#include "worker/recipes/data/substitution.h"

#include "common/base/mem.h"
#include "worker/engine/data/bytemap.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct noun {
    const char *text;
    const struct synset *synset;
    size_t frames; /* that it was taken out of */
};

struct frame {
    char *text;            /* "the \1 barked": \1 is the gap */
    size_t before, length; /* bytes of what stands before the gap, and of all */
};

struct family {
    const struct synset *synset;
    const char *name;
    const struct noun **nouns;
    size_t count, capacity, told; /* told: nouns that some frame had */
};

struct substitution {
    const struct wordnet *wordnet;
    struct byte_map lemmas; /* value: synsets that have it */
    struct byte_map index;  /* nouns; value: number in nouns */
    struct noun *nouns;
    size_t noun_count, noun_capacity;
    struct frame *frames;
    size_t frame_count, frame_capacity;
    struct family *families;
    size_t family_count, family_capacity;
};

/* ---- nouns ------------------------------------------------------------------------------ */

static bool is_plain(const char *lemma)
{
    size_t length = strspn(lemma, "abcdefghijklmnopqrstuvwxyz");

    return length >= 3 && !lemma[length];
}

/* In lower case, since "May" and "may" are one in an example. */
static void lower(const char *text, size_t length, struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < length; i++)
        buf_putc(out, text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i]);
}

static void count_lemmas(struct substitution *s)
{
    struct buf word = {0};

    for (size_t i = 0; i < s->wordnet->count; i++) {
        const struct synset *synset = &s->wordnet->synsets[i];
        for (size_t l = 0; l < synset->lemma_count; l++) {
            lower(synset->lemmas[l], strlen(synset->lemmas[l]), &word);
            uint32_t entry = byte_map_put(&s->lemmas, buf_text(&word), word.length);
            s->lemmas.entries[entry].value++;
        }
    }
    buf_done(&word);
}

static bool has_one_meaning(const struct substitution *s, const char *lemma)
{
    uint32_t entry = byte_map_find(&s->lemmas, lemma, strlen(lemma));

    return entry != BYTE_MAP_NONE && s->lemmas.entries[entry].value == 1;
}

static void find_nouns(struct substitution *s)
{
    const size_t *first = s->wordnet->first;

    for (size_t i = first[WORDNET_NOUN]; i < first[WORDNET_NOUN + 1]; i++) {
        const struct synset *synset = &s->wordnet->synsets[i];
        for (size_t l = 0; l < synset->lemma_count; l++) {
            const char *lemma = synset->lemmas[l];
            if (!is_plain(lemma) || !has_one_meaning(s, lemma))
                continue;
            VEC_RESERVE(s->nouns, s->noun_count, s->noun_capacity);
            uint32_t entry = byte_map_put(&s->index, lemma, strlen(lemma));
            s->index.entries[entry].value = s->noun_count;
            s->nouns[s->noun_count++] = (struct noun){.text = lemma, .synset = synset};
        }
    }
}

/* ---- frames ----------------------------------------------------------------------------- */

static bool is_one_of(const char *const *words, size_t count, const char *word, size_t length)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(words[i]) == length && strncasecmp(words[i], word, length) == 0)
            return true;
    return false;
}

static bool is_determiner(const char *word, size_t length)
{
    static const char *const words[] = {"a",  "an",   "the", "his",  "her",  "their",
                                        "my", "your", "our", "this", "that"};

    return is_one_of(words, ARRAY_COUNT(words), word, length);
}

static bool turns_entailment(const char *word, size_t length)
{
    static const char *const words[] = {
        "no",     "not",    "never", "none",   "nobody", "nothing", "neither", "nor",   "without",
        "few",    "every",  "all",   "each",   "any",    "only",    "if",      "than",  "most",
        "hardly", "rarely", "less",  "refuse", "deny",   "doubt",   "lack",    "avoid", "against",
        "cannot"};

    return is_one_of(words, ARRAY_COUNT(words), word, length) ||
           (length > 3 && strncasecmp(word + length - 3, "n't", 3) == 0);
}

static bool is_word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '\'';
}

/* Finds the one noun of an example. Returns its place, or NULL. */
static const char *find_gap(struct substitution *s, const char *text, size_t length,
                            struct noun **out, size_t *out_length)
{
    const char *end = text + length, *gap = NULL;
    struct buf word = {0};
    bool after = false, refused = false;
    size_t words = 0;

    for (const char *at = text; at < end && !refused;) {
        const char *begin = at;
        while (at < end && is_word_byte(*at))
            at++;
        size_t bytes = (size_t)(at - begin);
        if (bytes == 0) {
            after = after && *at == ' ';
            at++;
            continue;
        }
        lower(begin, bytes, &word);
        uint32_t entry = byte_map_find(&s->index, buf_text(&word), word.length);
        if (after && entry != BYTE_MAP_NONE) {
            refused = gap != NULL;
            gap = begin;
            *out_length = bytes;
            *out = &s->nouns[s->index.entries[entry].value];
        }
        refused |= turns_entailment(begin, bytes);
        after = is_determiner(begin, bytes);
        words++;
    }
    buf_done(&word);
    return refused || words < SUBSTITUTION_WORDS_MIN || words > SUBSTITUTION_WORDS_MAX ? NULL : gap;
}

/* One that has only printable ASCII: nothing else stands where words are cut. */
static bool is_ascii(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (text[i] < ' ' || text[i] > '~')
            return false;
    return true;
}

static void add_frame(struct substitution *s, const char *text, size_t length)
{
    struct noun *noun = NULL;
    size_t bytes = 0;
    const char *gap = is_ascii(text, length) ? find_gap(s, text, length, &noun, &bytes) : NULL;

    if (!gap)
        return;
    size_t before = (size_t)(gap - text);
    VEC_RESERVE(s->frames, s->frame_count, s->frame_capacity);
    s->frames[s->frame_count++] =
        (struct frame){.text = mem_printf("%.*s\1%.*s", (int)before, text,
                                          (int)(length - before - bytes), gap + bytes),
                       .before = before, .length = length - bytes + 1};
    noun->frames++;
}

static void find_frames(struct substitution *s)
{
    for (size_t i = 0; i < s->wordnet->count; i++) {
        const char *at = s->wordnet->synsets[i].gloss, *open, *close;
        while ((open = strchr(at, '"')) && (close = strchr(open + 1, '"'))) {
            add_frame(s, open + 1, (size_t)(close - open - 1));
            at = close + 1;
        }
    }
}

/* ---- families --------------------------------------------------------------------------- */

/* The first lemma that means nothing else, or the first. */
static const char *name_of(const struct substitution *s, const struct synset *synset)
{
    for (size_t l = 0; l < synset->lemma_count; l++)
        if (has_one_meaning(s, synset->lemmas[l]))
            return synset->lemmas[l];
    return synset->lemmas[0];
}

static int compare_nouns(const void *a, const void *b)
{
    const struct noun *x = *(const struct noun *const *)a, *y = *(const struct noun *const *)b;

    if (x->frames != y->frames)
        return x->frames > y->frames ? -1 : 1;
    return strcmp(x->text, y->text);
}

static int compare_families(const void *a, const void *b)
{
    const struct family *x = a, *y = b;

    if (x->told != y->told)
        return x->told > y->told ? -1 : 1;
    return x->synset < y->synset ? -1 : x->synset > y->synset;
}

static void add_family(struct substitution *s, const struct synset *synset,
                       size_t *family_of, const struct noun *noun)
{
    size_t *number = &family_of[synset - s->wordnet->synsets]; /* 1 + number; 0: new */

    if (*number == 0) {
        VEC_RESERVE(s->families, s->family_count, s->family_capacity);
        s->families[s->family_count++] =
            (struct family){.synset = synset, .name = name_of(s, synset)};
        *number = s->family_count;
    }
    struct family *family = &s->families[*number - 1];
    VEC_RESERVE(family->nouns, family->count, family->capacity);
    family->nouns[family->count++] = noun;
    family->told += noun->frames > 0;
}

static void find_families(struct substitution *s, size_t most, size_t nouns)
{
    size_t *family_of = mem_array(s->wordnet->count + 1, sizeof *family_of);

    for (size_t n = 0; n < s->noun_count; n++) {
        const struct synset *synset = s->nouns[n].synset;
        for (size_t p = 0; p < synset->pointer_count; p++) {
            const struct synset_pointer *pointer = &synset->pointers[p];
            const struct synset *above =
                strcmp(pointer->symbol, "@") == 0
                    ? wordnet_find(s->wordnet, pointer->file, pointer->offset)
                    : NULL;
            if (above)
                add_family(s, above, family_of, &s->nouns[n]);
        }
    }
    mem_free(family_of);
    if (s->family_count)
        qsort(s->families, s->family_count, sizeof *s->families, compare_families);
    size_t kept = 0;
    for (size_t f = 0; f < s->family_count; f++) {
        struct family family = s->families[f];
        qsort(family.nouns, family.count, sizeof *family.nouns, compare_nouns);
        family.count = family.count > nouns ? nouns : family.count;
        if (kept < most && family.count >= 2)
            s->families[kept++] = family;
        else
            mem_free(family.nouns);
    }
    s->family_count = kept;
}

/* ---- pairs ------------------------------------------------------------------------------ */

static bool begins_with_vowel(const char *noun)
{
    return strchr("aeiou", *noun) != NULL;
}

/* The frame with a noun in its gap; "a" or "an" before it becomes what it must be. It ends as
 * sentences do, which is what a model that reads it has to write. */
static void put(const struct frame *frame, const char *noun, struct buf *out)
{
    size_t before = frame->before, cut = 0;
    const char *text = frame->text;

    if (before >= 2 && strncasecmp(text + before - 2, "a ", 2) == 0 &&
        (before == 2 || text[before - 3] == ' '))
        cut = 1;
    if (before >= 3 && strncasecmp(text + before - 3, "an ", 3) == 0 &&
        (before == 3 || text[before - 4] == ' '))
        cut = 2;
    buf_clear(out);
    buf_add(out, text, cut ? before - cut : before); /* keeps the A of "A" and "An" */
    if (cut)
        buf_puts(out, begins_with_vowel(noun) ? "n " : " ");
    buf_puts(out, noun);
    buf_add(out, text + before + 1, frame->length - before - 1);
    if (!strchr(".?!", out->bytes[out->length - 1]))
        buf_putc(out, '.');
}

/* Another lemma of a noun's synset that is a noun of ours, or NULL. */
static const char *synonym(const struct substitution *s, const struct noun *noun)
{
    for (size_t l = 0; l < noun->synset->lemma_count; l++) {
        const char *lemma = noun->synset->lemmas[l];
        if (strcmp(lemma, noun->text) != 0 &&
            byte_map_find(&s->index, lemma, strlen(lemma)) != BYTE_MAP_NONE)
            return lemma;
    }
    return NULL;
}

static uint64_t relation_of(const char *a, const char *b)
{
    uint64_t sum = 0;

    for (int side = 0; side < 2; side++) {
        uint64_t hash = 0;
        for (const char *at = side ? b : a; *at; at++)
            hash = rng_mix(hash + (unsigned char)*at);
        sum += rng_mix(hash);
    }
    return rng_mix(sum);
}

void substitution_draw(const struct substitution *s, struct rng *rng, struct substituted *out)
{
    const struct family *family = &s->families[rng_below(rng, s->family_count)];
    const struct frame *frame = &s->frames[out->frame = rng_below(rng, s->frame_count)];
    size_t one = rng_below(rng, family->count), other = rng_below(rng, family->count - 1);
    const char *x = family->nouns[one]->text, *y = family->name, *held;
    unsigned label = (unsigned)rng_below(rng, 3), way = (unsigned)rng_below(rng, 3);

    other += other >= one;
    out->label = "entailment";
    if (label == 0 && way == 0 && (held = synonym(s, family->nouns[one])))
        y = held;
    if (label == 1) {
        out->label = "neutral";
        held = x;
        x = y;
        y = held;
    }
    if (label == 2) {
        out->label = "contradiction";
        y = family->nouns[other]->text;
        if (family->nouns[other]->synset == family->nouns[one]->synset)
            out->label = "entailment"; /* two words for one thing */
    }
    out->relation = relation_of(x, y);
    put(frame, x, &out->x);
    put(frame, y, &out->y);
}

/* ---- the whole -------------------------------------------------------------------------- */

int substitution_open(const struct wordnet *wordnet, size_t families, size_t nouns,
                      struct substitution **out, struct err *err)
{
    struct substitution *s = mem_zalloc(sizeof *s);

    s->wordnet = wordnet;
    count_lemmas(s);
    find_nouns(s);
    find_frames(s);
    find_families(s, families, nouns);
    if (s->frame_count && s->family_count) {
        *out = s;
        return 0;
    }
    err_set(err, ERR_INVALID, "the database has %zu example sentences with a noun to put others "
            "for, and %zu families of such nouns; both are needed", s->frame_count,
            s->family_count);
    substitution_close(s);
    return -1;
}

void substitution_close(struct substitution *s)
{
    if (!s)
        return;
    for (size_t f = 0; f < s->frame_count; f++)
        mem_free(s->frames[f].text);
    for (size_t f = 0; f < s->family_count; f++)
        mem_free(s->families[f].nouns);
    byte_map_done(&s->lemmas);
    byte_map_done(&s->index);
    mem_free(s->nouns);
    mem_free(s->frames);
    mem_free(s->families);
    mem_free(s);
}

size_t substitution_frame_count(const struct substitution *s)
{
    return s->frame_count;
}

size_t substitution_family_count(const struct substitution *s)
{
    return s->family_count;
}

const char *substitution_frame(const struct substitution *s, size_t frame)
{
    return s->frames[frame].text;
}
