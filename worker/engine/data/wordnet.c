/* wordnet.c - parsing of the database files and walking of hyponyms; see wordnet.h. */
#include "worker/engine/data/wordnet.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/parse.h"

#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 28)

static const char *const lexfile_names[WORDNET_LEXFILE_END] = {
    "adj.all",            "adj.pert",         "adv.all",          "noun.Tops",
    "noun.act",           "noun.animal",      "noun.artifact",    "noun.attribute",
    "noun.body",          "noun.cognition",   "noun.communication", "noun.event",
    "noun.feeling",       "noun.food",        "noun.group",       "noun.location",
    "noun.motive",        "noun.object",      "noun.person",      "noun.phenomenon",
    "noun.plant",         "noun.possession",  "noun.process",     "noun.quantity",
    "noun.relation",      "noun.shape",       "noun.state",       "noun.substance",
    "noun.time",          "verb.body",        "verb.change",      "verb.cognition",
    "verb.communication", "verb.competition", "verb.consumption", "verb.contact",
    "verb.creation",      "verb.emotion",     "verb.motion",      "verb.perception",
    "verb.possession",    "verb.social",      "verb.stative",     "verb.weather",
    "adj.ppl",
};

const char *wordnet_file_name(enum wordnet_file file)
{
    static const char *const names[WORDNET_FILE_END] = {"noun", "verb", "adj", "adv"};
    CHECK(file < WORDNET_FILE_END);
    return names[file];
}

const char *wordnet_lexfile_name(unsigned lexfile)
{
    CHECK(lexfile < WORDNET_LEXFILE_END);
    return lexfile_names[lexfile];
}

int wordnet_lexfile_find(const char *name, unsigned *out, struct err *err)
{
    unsigned nearest = 0;
    for (unsigned i = 0; i < WORDNET_LEXFILE_END; i++) {
        if (strcmp(lexfile_names[i], name) == 0) {
            *out = i;
            return 0;
        }
        if (text_distance(lexfile_names[i], name) < text_distance(lexfile_names[nearest], name))
            nearest = i;
    }
    return err_set(err, ERR_NOT_FOUND, "there is no lexicographer file '%s'; the nearest is '%s'",
                   name, lexfile_names[nearest]);
}

/* The rest of a line that is being read. */
struct cursor {
    const char *at, *end;
};

/* The next blank-separated word; length 0 at the end. */
static size_t next_word(struct cursor *cursor, const char **out)
{
    while (cursor->at < cursor->end && *cursor->at == ' ')
        cursor->at++;
    *out = cursor->at;
    while (cursor->at < cursor->end && *cursor->at != ' ')
        cursor->at++;
    return (size_t)(cursor->at - *out);
}

static int digit_of(char c, unsigned base)
{
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : 99;
    return digit < (int)base ? digit : -1;
}

/* A number of exactly `digits` digits. */
static int next_number(struct cursor *cursor, unsigned digits, unsigned base, const char *field,
                       uint32_t *out, struct err *err)
{
    const char *word;
    size_t length = next_word(cursor, &word);
    uint32_t value = 0;
    for (size_t i = 0; i < length && length == digits; i++) {
        int digit = digit_of(word[i], base);
        if (digit < 0)
            length = 0;
        else
            value = value * base + (uint32_t)digit;
    }
    if (length != digits)
        return err_set(err, ERR_PROTOCOL, "%s is not a number of %u %s digits", field, digits,
                       base == 16 ? "hexadecimal" : "decimal");
    *out = value;
    return 0;
}

static int file_of_letter(char letter, enum wordnet_file *out)
{
    switch (letter) {
    case 'n': *out = WORDNET_NOUN; return 0;
    case 'v': *out = WORDNET_VERB; return 0;
    case 'a':
    case 's': *out = WORDNET_ADJ; return 0;
    case 'r': *out = WORDNET_ADV; return 0;
    default: return -1;
    }
}

/* "galore(ip)" -> "galore"; "blue_jay" -> "blue jay". */
static const char *lemma_text(struct arena *arena, const char *word, size_t length)
{
    static const char *const markers[] = {"(a)", "(p)", "(ip)"};
    for (size_t i = 0; i < ARRAY_COUNT(markers); i++) {
        size_t marker = strlen(markers[i]);
        if (length > marker && memcmp(word + length - marker, markers[i], marker) == 0)
            length -= marker;
    }
    char *text = arena_strndup(arena, word, length);
    for (size_t i = 0; i < length; i++)
        if (text[i] == '_')
            text[i] = ' ';
    return text;
}

static int read_words(struct arena *arena, struct cursor *cursor, struct synset *out,
                      struct err *err)
{
    uint32_t count, ignored;
    const char *word;
    if (next_number(cursor, 2, 16, "word count", &count, err) < 0)
        return -1;
    if (count == 0)
        return err_set(err, ERR_PROTOCOL, "word count is 0; at least 1 is accepted");
    out->lemmas = arena_alloc(arena, count * sizeof *out->lemmas);
    for (out->lemma_count = 0; out->lemma_count < count; out->lemma_count++) {
        size_t length = next_word(cursor, &word);
        if (length == 0 || memchr(word, 0, length))
            return err_set(err, ERR_PROTOCOL, "word %zu of %u is missing", out->lemma_count + 1,
                           count);
        out->lemmas[out->lemma_count] = lemma_text(arena, word, length);
        if (next_number(cursor, 1, 16, "lex_id", &ignored, err) < 0)
            return -1;
    }
    return 0;
}

static int read_pointer(struct cursor *cursor, struct synset_pointer *out, struct err *err)
{
    const char *symbol, *pos;
    uint32_t ignored;
    size_t length = next_word(cursor, &symbol);
    if (length < 1 || length > 2)
        return err_set(err, ERR_PROTOCOL, "a pointer's symbol is not of 1 or 2 characters");
    memcpy(out->symbol, symbol, length);
    if (next_number(cursor, 8, 10, "pointer offset", &out->offset, err) < 0)
        return -1;
    if (next_word(cursor, &pos) != 1 || file_of_letter(*pos, &out->file) < 0)
        return err_set(err, ERR_PROTOCOL, "a pointer's part of speech is none of n v a s r");
    return next_number(cursor, 4, 16, "pointer source/target", &ignored, err);
}

static int read_pointers(struct arena *arena, struct cursor *cursor, struct synset *out,
                         struct err *err)
{
    uint32_t count;
    if (next_number(cursor, 3, 10, "pointer count", &count, err) < 0)
        return -1;
    out->pointers = arena_alloc(arena, (count + 1) * sizeof *out->pointers);
    for (out->pointer_count = 0; out->pointer_count < count; out->pointer_count++)
        if (read_pointer(cursor, &out->pointers[out->pointer_count], err) < 0)
            return -1;
    return 0;
}

static int read_gloss(struct arena *arena, struct cursor *cursor, struct synset *out,
                      struct err *err)
{
    const char *bar = memchr(cursor->at, '|', (size_t)(cursor->end - cursor->at));
    const char *end = cursor->end;
    if (!bar)
        return err_set(err, ERR_PROTOCOL, "there is no '|' before a gloss");
    for (bar++; bar < end && *bar == ' ';)
        bar++;
    while (end > bar && (end[-1] == ' ' || end[-1] == '\r'))
        end--;
    if (memchr(bar, 0, (size_t)(end - bar)))
        return err_set(err, ERR_PROTOCOL, "the gloss holds a zero byte");
    out->gloss = arena_strndup(arena, bar, (size_t)(end - bar));
    return 0;
}

int wordnet_record_parse(struct arena *arena, const char *line, size_t length,
                         struct synset *out, struct err *err)
{
    struct cursor cursor = {line, line + length};
    struct synset synset = {0};
    const char *type;
    uint32_t lexfile;
    if (length > WORDNET_LINE_MAX)
        return err_set(err, ERR_PROTOCOL, "a line of over %d bytes", WORDNET_LINE_MAX);
    if (next_number(&cursor, 8, 10, "offset", &synset.offset, err) < 0 ||
        next_number(&cursor, 2, 10, "lexicographer file", &lexfile, err) < 0)
        return -1;
    if (lexfile >= WORDNET_LEXFILE_END)
        return err_set(err, ERR_PROTOCOL, "lexicographer file %u; 0 to %d are accepted", lexfile,
                       WORDNET_LEXFILE_END - 1);
    synset.lexfile = lexfile;
    if (next_word(&cursor, &type) != 1 || file_of_letter(*type, &synset.file) < 0)
        return err_set(err, ERR_PROTOCOL, "the synset's type is none of n v a s r");
    if (read_words(arena, &cursor, &synset, err) < 0 ||
        read_pointers(arena, &cursor, &synset, err) < 0 ||
        read_gloss(arena, &cursor, &synset, err) < 0)
        return -1;
    *out = synset;
    return 0;
}

static int read_lines(struct wordnet *wordnet, enum wordnet_file file, const char *bytes,
                      size_t length, struct err *err)
{
    size_t line_number = 1;
    for (size_t at = 0; at < length; line_number++) {
        const char *line = bytes + at, *end = memchr(line, '\n', length - at);
        size_t line_length = end ? (size_t)(end - line) : length - at;
        struct synset synset;
        if (line_length > 0 && line[0] != ' ') {
            if (wordnet_record_parse(&wordnet->arena, line, line_length, &synset, err) < 0)
                return err_wrap(err, "line %zu", line_number);
            /* Pointers are file positions: a file that was edited or recoded has lost them. */
            if (synset.offset != at || synset.file != file)
                return err_set(err, ERR_PROTOCOL, "line %zu: offset or type do not match its "
                               "place in the file (byte %zu)", line_number, at);
            VEC_RESERVE(wordnet->synsets, wordnet->count, wordnet->capacity);
            wordnet->synsets[wordnet->count++] = synset;
        }
        at += line_length + 1;
    }
    return 0;
}

int wordnet_read(const char *folder, struct wordnet *out, struct err *err)
{
    struct wordnet wordnet = {0};
    int rc = 0;
    for (enum wordnet_file file = 0; file < WORDNET_FILE_END && rc == 0; file++) {
        char *path = mem_printf("%s/data.%s", folder, wordnet_file_name(file)), *bytes = NULL;
        size_t length = 0;
        wordnet.first[file] = wordnet.count;
        rc = file_read(path, FILE_BYTES_MAX, &bytes, &length, err);
        if (rc == 0) {
            hash_sha256(bytes, length, &wordnet.sha256[file]);
            if (read_lines(&wordnet, file, bytes, length, err) < 0)
                rc = err_wrap(err, "'%s'", path);
        }
        mem_free(bytes);
        mem_free(path);
    }
    wordnet.first[WORDNET_FILE_END] = wordnet.count;
    if (rc < 0)
        wordnet_done(&wordnet);
    else
        *out = wordnet;
    return rc;
}

void wordnet_done(struct wordnet *wordnet)
{
    mem_free(wordnet->synsets);
    arena_done(&wordnet->arena);
    *wordnet = (struct wordnet){0};
}

const struct synset *wordnet_find(const struct wordnet *wordnet, enum wordnet_file file,
                                  uint32_t offset)
{
    size_t low = wordnet->first[file], high = wordnet->first[file + 1];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (wordnet->synsets[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < wordnet->first[file + 1] && wordnet->synsets[low].offset == offset;
    return found ? &wordnet->synsets[low] : NULL;
}

/* Adds a synset to the walk unless it was seen. */
static void visit(const struct wordnet *wordnet, const struct synset *synset, bool *member,
                  size_t *stack, size_t *depth)
{
    size_t index = (size_t)(synset - wordnet->synsets);
    if (member[index])
        return;
    member[index] = true;
    stack[(*depth)++] = index;
}

int wordnet_subtree(const struct wordnet *wordnet, const uint32_t *roots, size_t root_count,
                    bool *member, struct err *err)
{
    size_t *stack = mem_array(wordnet->count + 1, sizeof *stack), depth = 0;
    int rc = 0;
    for (size_t i = 0; i < root_count && rc == 0; i++) {
        const struct synset *root = wordnet_find(wordnet, WORDNET_NOUN, roots[i]);
        if (root)
            visit(wordnet, root, member, stack, &depth);
        else
            rc = err_set(err, ERR_NOT_FOUND, "data.noun has no synset at offset %08u", roots[i]);
    }
    while (depth > 0 && rc == 0) {
        const struct synset *synset = &wordnet->synsets[stack[--depth]];
        for (size_t p = 0; p < synset->pointer_count; p++) {
            const struct synset_pointer *pointer = &synset->pointers[p];
            bool down = strcmp(pointer->symbol, "~") == 0 || strcmp(pointer->symbol, "~i") == 0;
            const struct synset *below =
                down ? wordnet_find(wordnet, pointer->file, pointer->offset) : NULL;
            if (below)
                visit(wordnet, below, member, stack, &depth);
        }
    }
    mem_free(stack);
    return rc;
}
