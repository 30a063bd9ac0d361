/* pages.c - help, man page and completion from the verbs' tables; see cli.h. */
#include "client/verbs.h"

#include "common/base/roff.h"

#include <stdio.h>
#include <string.h>

#define OPTION_COLUMN 26
#define PAGE_COLUMNS  80

static const struct entry {
    const char *group; /* a GROUP row; verb is NULL then */
    const struct verb *verb;
} entries[] = {
#define GROUP(title) {title, NULL},
#define VERB(name)   {NULL, &verb_##name},
#include "client/verbs.def"
#undef GROUP
#undef VERB
};

const struct verb *verb_at(size_t index)
{
    for (size_t i = 0; i < ARRAY_COUNT(entries); i++)
        if (entries[i].verb && index-- == 0)
            return entries[i].verb;
    return NULL;
}

const struct verb *verb_find(const char *name)
{
    const struct verb *verb;
    for (size_t i = 0; (verb = verb_at(i)); i++)
        if (strcmp(verb->name, name) == 0)
            return verb;
    return NULL;
}

static const char *const exit_texts[] = {
    [EXIT_DONE] = "done; with wait: every job succeeded",
    [EXIT_JOB_FAILED] = "with wait: a job failed or was cancelled",
    [EXIT_USAGE] = "wrong arguments, or a file that cannot be read",
    [EXIT_UNREACHABLE] = "the coordinator cannot be reached, or does not know our key",
    [EXIT_REFUSED] = "refused: the request was understood and changes nothing",
    [EXIT_LOCAL] = "a local failure: a program did not start, a disk is full",
};

/* Adds a paragraph with its lines broken before `columns`, each indented. */
static void add_wrapped(struct buf *out, const char *text, size_t indent, size_t columns)
{
    size_t column = indent;
    buf_printf(out, "%*s", (int)indent, "");
    while (*text) {
        size_t length = strcspn(text, " \n");
        if (column > indent && column + 1 + length > columns) {
            buf_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            buf_putc(out, ' ');
            column++;
        }
        buf_add(out, text, length);
        column += length;
        text += length;
        if (text[0] == '\n' && text[1] == '\n') {
            buf_printf(out, "\n\n%*s", (int)indent, "");
            column = indent;
        }
        text += strspn(text, " \n");
    }
    buf_putc(out, '\n');
}

static void option_head(const struct option *option, char *out, size_t size)
{
    char letter[5] = "    ";
    if (option->letter)
        snprintf(letter, sizeof letter, "-%c, ", option->letter);
    snprintf(out, size, "  %s--%s%s%s", letter, option->name, option->value ? " " : "",
             option->value ? option->value : "");
}

static void add_option(struct buf *out, const struct option *option)
{
    char head[80];
    struct buf text = {0};
    option_head(option, head, sizeof head);
    add_wrapped(&text, option->help, OPTION_COLUMN, PAGE_COLUMNS);
    if (strlen(head) + 2 > OPTION_COLUMN)
        buf_printf(out, "%s\n%s", head, text.bytes);
    else
        buf_printf(out, "%-*s%s", OPTION_COLUMN, head, text.bytes + OPTION_COLUMN);
    buf_done(&text);
}

void page_usage(struct buf *out)
{
    buf_puts(out,
             "usage: athanor VERB [ARGUMENT...]\n\n"
             "Runs language-model experiments: submits jobs, follows them, reads their results.\n");
    for (size_t i = 0; i < ARRAY_COUNT(entries); i++) {
        if (entries[i].group)
            buf_printf(out, "\n%s\n", entries[i].group);
        else
            buf_printf(out, "  %-12s %s\n", entries[i].verb->name, entries[i].verb->summary);
    }
    buf_puts(out, "\n'athanor VERB --help' explains a verb, 'man athanor' all of them.\n");
}

void page_help(const struct verb *verb, struct buf *out)
{
    buf_printf(out, "usage: athanor %s%s%s%s\n\n", verb->name, *verb->words ? " " : "", verb->words,
               verb->option_count ? " [OPTION...]" : "");
    add_wrapped(out, verb->text, 0, PAGE_COLUMNS);
    if (verb->option_count)
        buf_puts(out, "\noptions\n");
    for (size_t i = 0; i < verb->option_count; i++)
        add_option(out, &verb->options[i]);
    buf_puts(out, "\noptions of every verb\n");
    for (size_t i = 0; i < global_option_count; i++)
        add_option(out, &global_options[i]);
    buf_puts(out, "\nexit codes\n");
    for (size_t i = 0; i < ARRAY_COUNT(exit_texts); i++)
        buf_printf(out, "  %zu  %s\n", i, exit_texts[i]);
}

/* ---- man page ----------------------------------------------------------------------------- */

static void add_roff_options(struct buf *out, const struct option *options, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct buf term = {0};
        if (options[i].letter)
            buf_printf(&term, "-%c, ", options[i].letter);
        buf_printf(&term, "--%s", options[i].name);
        roff_item(out, term.bytes, options[i].value, options[i].help);
        buf_done(&term);
    }
}

static void add_roff_verb(struct buf *out, const struct verb *verb)
{
    struct buf title = {0};
    buf_printf(&title, "athanor %s %s", verb->name, verb->words);
    roff_subsection(out, title.bytes);
    buf_done(&title);
    roff_text(out, verb->text);
    add_roff_options(out, verb->options, verb->option_count);
}

void page_man(struct buf *out)
{
    roff_title(out, "athanor", 1, "Athanor " ATHANOR_VERSION,
               "distributed scheduler for language-model experiments");
    roff_section(out, "SYNOPSIS");
    buf_puts(out, "\\fBathanor\\fR \\fIVERB\\fR [\\fIARGUMENT\\fR...]\n");
    roff_section(out, "VERBS");
    for (size_t i = 0; i < ARRAY_COUNT(entries); i++)
        if (entries[i].verb)
            add_roff_verb(out, entries[i].verb);
    roff_section(out, "OPTIONS OF EVERY VERB");
    add_roff_options(out, global_options, global_option_count);
    roff_section(out, "EXIT STATUS");
    for (size_t i = 0; i < ARRAY_COUNT(exit_texts); i++) {
        char number[8];
        snprintf(number, sizeof number, "%zu", i);
        roff_item(out, number, NULL, exit_texts[i]);
    }
    roff_section(out, "FILES");
    roff_item(out, "~/.local/state/athanor", NULL,
              "The cluster's directory: keys, logs, pid files, the private database; "
              "/var/lib/athanor for root. ATHANOR_HOME names another.");
    roff_section(out, "SEE ALSO");
    buf_puts(out, "\\fBathanor\\-engine\\fR(1), \\fBathanor\\-coordinator\\fR(8), "
                  "\\fBathanor\\-worker\\fR(8)\n");
}

/* ---- completion --------------------------------------------------------------------------- */

static void add_completion_options(struct buf *out, const struct option *options, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buf_printf(out, " --%s", options[i].name);
}

/* How the words of a verb complete, as a shell fragment. */
static void add_completion_words(struct buf *out, const struct verb *verb)
{
    static const char *const queries[] = {
        [WORD_JOB] = "ls -n 200 --column name",
        [WORD_WORKER] = "workers --column name",
        [WORD_RECIPE] = "recipes --column name",
    };
    if (verb->choices)
        buf_printf(out, " words='%s'", verb->choices);
    else if (verb->word_kind == WORD_FILE)
        buf_puts(out, " files=1");
    else if (verb->word_kind == WORD_VERB)
        buf_puts(out, " words=$verbs");
    else if (verb->word_kind != WORD_OTHER)
        buf_printf(out, " words=$(athanor %s --timeout 1s 2>/dev/null)", queries[verb->word_kind]);
}

void page_completion_bash(struct buf *out)
{
    buf_puts(out,
             "# bash completion for athanor: source this file, or put it into\n"
             "# /usr/share/bash-completion/completions/athanor\n"
             "_athanor() {\n"
             "    local current=${COMP_WORDS[COMP_CWORD]} options='' words='' files='' verbs='");
    const struct verb *verb;
    for (size_t i = 0; (verb = verb_at(i)); i++)
        buf_printf(out, "%s%s", i ? " " : "", verb->name);
    buf_puts(out, "'\n    COMPREPLY=()\n    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                  "        COMPREPLY=($(compgen -W \"$verbs\" -- \"$current\"))\n        return\n"
                  "    fi\n    case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; (verb = verb_at(i)); i++) {
        buf_printf(out, "        %s) options='", verb->name);
        struct buf names = {0};
        add_completion_options(&names, verb->options, verb->option_count);
        buf_puts(out, names.length ? names.bytes + 1 : "");
        buf_done(&names);
        buf_puts(out, "'; [[ $current == -* ]] ||");
        struct buf words = {0};
        add_completion_words(&words, verb);
        buf_puts(out, words.length ? words.bytes : " words=''");
        buf_done(&words);
        buf_puts(out, " ;;\n");
    }
    buf_puts(
        out,
        "    esac\n    if [[ $current == -* ]]; then\n        COMPREPLY=($(compgen -W \"$options");
    add_completion_options(out, global_options, global_option_count);
    buf_puts(out, "\" -- \"$current\"))\n    elif [ -n \"$files\" ]; then\n"
                  "        COMPREPLY=($(compgen -f -- \"$current\"))\n    else\n"
                  "        COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n    fi\n}\n"
                  "complete -o filenames -F _athanor athanor\n");
}
