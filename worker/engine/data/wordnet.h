/* wordnet.h - the synsets of a WordNet 3 database: lemmas, gloss, pointers, subtrees.
 *
 * Each of data.noun, data.verb, data.adj and data.adv is a licence text (lines that begin
 * with a space) and then one synset per line:
 *   offset(8 digits) lexfile(2 digits) type(n v a s r) words(2 hex digits) {word lex_id}...
 *   pointers(3 digits) {symbol offset pos source/target(4 hex digits)}... [verb frames] | gloss
 * where offset is the line's own position in the file. Source: wndb(5WN). */
#ifndef ATHANOR_WORDNET_H
#define ATHANOR_WORDNET_H

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/hash.h"

enum wordnet_file { WORDNET_NOUN = 0, WORDNET_VERB, WORDNET_ADJ, WORDNET_ADV, WORDNET_FILE_END };

#define WORDNET_LEXFILE_END 45
#define WORDNET_LINE_MAX 65536

struct synset_pointer {
    char symbol[3]; /* "~" hyponym, "~i" instance, "@" hypernym, ... */
    enum wordnet_file file;
    uint32_t offset;
};

struct synset {
    enum wordnet_file file;
    uint32_t offset;
    unsigned lexfile;        /* below WORDNET_LEXFILE_END */
    const char **lemmas;     /* spaces for underscores, adjective markers removed */
    size_t lemma_count;      /* at least 1 */
    struct synset_pointer *pointers;
    size_t pointer_count;
    const char *gloss;       /* without the blanks around it */
};

struct wordnet {
    struct arena arena; /* holds all texts */
    struct synset *synsets; /* noun, verb, adj, adv; each in file order, so by offset */
    size_t count, capacity;
    size_t first[WORDNET_FILE_END + 1]; /* synsets of file f: first[f] .. first[f+1]-1 */
    struct hash sha256[WORDNET_FILE_END];
};

/* "noun" ... for data.noun; "noun.animal" for lexicographer file 5. */
const char *wordnet_file_name(enum wordnet_file file);
const char *wordnet_lexfile_name(unsigned lexfile);
/* The number of a lexicographer file's name. ERR_NOT_FOUND lists the nearest. */
int wordnet_lexfile_find(const char *name, unsigned *out, struct err *err) WARN_UNUSED;

/* One line without its newline; texts go to the arena. Errors: ERR_PROTOCOL naming the field. */
int wordnet_record_parse(struct arena *arena, const char *line, size_t length,
                         struct synset *out, struct err *err) WARN_UNUSED;
/* Reads folder/data.*. Errors: ERR_NOT_FOUND, ERR_IO, ERR_PROTOCOL with file and line. */
int wordnet_read(const char *folder, struct wordnet *out, struct err *err) WARN_UNUSED;
void wordnet_done(struct wordnet *wordnet);
/* NULL when there is none. */
const struct synset *wordnet_find(const struct wordnet *wordnet, enum wordnet_file file,
                                  uint32_t offset);

/* Marks every noun synset reachable from the roots over hyponym and instance pointers, the
 * roots included; member has wordnet->count entries and is added to. ERR_NOT_FOUND for a
 * root that is no noun. Returns 0. */
int wordnet_subtree(const struct wordnet *wordnet, const uint32_t *roots, size_t root_count,
                    bool *member, struct err *err) WARN_UNUSED;

#endif
