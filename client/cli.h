/* cli.h - a verb of the command line as data, and the arguments it was given.
 *
 * The tables are the only description: they drive parsing, --help, the man page and bash
 * completion (args.c, pages.c). */
#ifndef ATHANOR_CLIENT_CLI_H
#define ATHANOR_CLIENT_CLI_H

#include "common/base/buf.h"
#include "common/base/err.h"

enum exit_code {
    EXIT_DONE = 0,
    EXIT_JOB_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3,
    EXIT_REFUSED = 4,
    EXIT_LOCAL = 5,
};

/* What an option's value is; checked while parsing, so that verbs read without errors. */
enum value_kind {
    VALUE_NONE = 0, /* a switch */
    VALUE_TEXT,
    VALUE_COUNT,    /* a natural number */
    VALUE_DURATION, /* "2s", "1h30m" */
    VALUE_SIZE,     /* "512MiB" */
    VALUE_FILE,
    VALUE_PAIR, /* NAME=VALUE */
};

/* What words are, for completion. */
enum word_kind { WORD_OTHER = 0, WORD_JOB, WORD_FILE, WORD_WORKER, WORD_RECIPE, WORD_VERB };

struct option {
    const char *name;
    char letter; /* 0: none */
    enum value_kind kind;
    const char *value; /* name of the value in help */
    const char *help;
    bool repeat; /* may be given several times */
};

struct args;
struct client;

struct verb {
    const char *name;
    const char *words; /* usage of the words: "JOB [METRIC...]" */
    const char *summary;
    const char *text;    /* paragraphs of the help */
    const char *choices; /* first words that complete: "new enrol revoke"; NULL: by word_kind */
    enum word_kind word_kind;
    unsigned words_min, words_max; /* words_max 0: none, UINT_MAX: any */
    const struct option *options;
    size_t option_count;
    int (*run)(struct client *client, const struct args *args); /* returns enum exit_code */
};

#define VERB_OPTIONS(table) .options = (table), .option_count = ARRAY_COUNT(table)

/* Rows that several verbs share. */
#define OPTION_JSON                                                                                \
    {                                                                                              \
        "json", 0, VALUE_NONE, NULL, "print JSON: an array of objects, every column", false        \
    }
#define OPTION_LIMIT                                                                               \
    {                                                                                              \
        "limit", 'n', VALUE_COUNT, "N", "at most N rows", false                                    \
    }

/* All verbs in the order of verbs.def; NULL at the end. */
const struct verb *verb_at(size_t index);
const struct verb *verb_find(const char *name);
/* Options that every verb takes. */
extern const struct option global_options[];
extern const size_t global_option_count;

/* ---- arguments (args.c) ------------------------------------------------------------------- */

struct given {
    const struct option *option;
    const char *value; /* NULL for a switch */
};

struct args {
    const struct verb *verb;
    const char **words;
    size_t word_count;
    struct given *given;
    size_t given_count;
};

/* Texts are borrowed from argv. Errors: ERR_INVALID with the nearest option as a hint. Options and
 * words may mix; everything after "--" is a word. */
int args_parse(const struct verb *verb, int argc, char **argv, struct args *out,
               struct err *err) WARN_UNUSED;
void args_done(struct args *args);

bool args_has(const struct args *args, const char *option);
const char *args_text(const struct args *args, const char *option); /* NULL: not given; last wins */
uint64_t args_count(const struct args *args, const char *option, uint64_t otherwise);
uint64_t args_duration_ms(const struct args *args, const char *option, uint64_t otherwise);

/* ---- pages (pages.c) ---------------------------------------------------------------------- */

void page_usage(struct buf *out);                         /* `athanor help` */
void page_help(const struct verb *verb, struct buf *out); /* `athanor VERB --help` */
void page_man(struct buf *out);                           /* athanor.1 */
void page_completion_bash(struct buf *out);

#endif
