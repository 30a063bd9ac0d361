/* args.c - command-line words checked against a verb's tables; see cli.h. */
#include "client/cli.h"

#include "common/base/mem.h"
#include "common/base/parse.h"

#include <string.h>

const struct option global_options[] = {
    {"home", 0, VALUE_FILE, "DIR", "the cluster's directory (ATHANOR_HOME)", false},
    {"coordinator", 0, VALUE_TEXT, "ENDPOINT",
     "where the coordinator listens (ATHANOR_COORDINATOR)", true},
    {"key", 0, VALUE_FILE, "FILE", "our secret key (ATHANOR_KEY)", false},
    {"server-key", 0, VALUE_TEXT, "KEY",
     "the coordinator's public key, or its file "
     "(ATHANOR_SERVER_KEY)",
     false},
    {"timeout", 0, VALUE_DURATION, "TIME", "how long to wait for an answer (default 10s)", false},
    {"color", 0, VALUE_TEXT, "WHEN", "auto, always or never; NO_COLOR means never", false},
    {"help", 'h', VALUE_NONE, NULL, "print the help of this verb", false},
};
const size_t global_option_count = ARRAY_COUNT(global_options);

/* All options of a verb: its own, then the global ones. NULL at the end. */
static const struct option *option_at(const struct verb *verb, size_t index)
{
    if (index < verb->option_count)
        return &verb->options[index];
    index -= verb->option_count;
    return index < global_option_count ? &global_options[index] : NULL;
}

static const struct option *find_long(const struct verb *verb, const char *name, size_t length)
{
    const struct option *option;
    for (size_t i = 0; (option = option_at(verb, i)); i++)
        if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
            return option;
    return NULL;
}

static const struct option *find_letter(const struct verb *verb, char letter)
{
    const struct option *option;
    for (size_t i = 0; (option = option_at(verb, i)); i++)
        if (option->letter == letter)
            return option;
    return NULL;
}

static int unknown_option(const struct verb *verb, const char *name, size_t length, struct err *err)
{
    char *text = mem_strndup(name, length);
    const struct option *option, *nearest = NULL;
    unsigned best = 3;
    for (size_t i = 0; (option = option_at(verb, i)); i++) {
        unsigned distance = text_distance(text, option->name);
        if (distance < best) {
            best = distance;
            nearest = option;
        }
    }
    if (nearest)
        err_set(err, ERR_INVALID, "there is no option --%s, did you mean --%s?", text,
                nearest->name);
    else
        err_set(err, ERR_INVALID, "there is no option --%s, see 'athanor %s --help'", text,
                verb->name);
    mem_free(text);
    return -1;
}

static int check_value(const struct option *option, const char *value, struct err *err)
{
    uint64_t number;
    int rc = 0;
    switch (option->kind) {
    case VALUE_COUNT:
        rc = parse_u64(value, &number, err);
        break;
    case VALUE_DURATION:
        rc = parse_duration_ms(value, &number, err);
        break;
    case VALUE_SIZE:
        rc = parse_size_bytes(value, &number, err);
        break;
    case VALUE_PAIR:
        if (!strchr(value, '=') || *value == '=')
            rc = err_set(err, ERR_INVALID, "'%s' is not of the form NAME=VALUE", value);
        break;
    case VALUE_NONE:
    case VALUE_TEXT:
    case VALUE_FILE:
        break;
    }
    return rc < 0 ? err_wrap(err, "option --%s", option->name) : 0;
}

static int give(struct args *args, const struct option *option, const char *value, struct err *err)
{
    if (option->kind != VALUE_NONE && check_value(option, value, err) < 0)
        return -1;
    if (!option->repeat && args_has(args, option->name))
        return err_set(err, ERR_INVALID, "option --%s is given twice", option->name);
    args->given[args->given_count++] = (struct given){option, value};
    return 0;
}

/* One of "--name", "--name=value", "--name value". *at is advanced past a value taken. */
static int take_long(struct args *args, int argc, char **argv, int *at, struct err *err)
{
    const char *name = argv[*at] + 2;
    const char *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct option *option = find_long(args->verb, name, length);
    if (!option)
        return unknown_option(args->verb, name, length, err);
    if (option->kind == VALUE_NONE) {
        if (equals)
            return err_set(err, ERR_INVALID, "option --%s takes no value", option->name);
        return give(args, option, NULL, err);
    }
    if (equals)
        return give(args, option, equals + 1, err);
    if (*at + 1 >= argc)
        return err_set(err, ERR_INVALID, "option --%s needs a value: %s", option->name,
                       option->value);
    return give(args, option, argv[++*at], err);
}

/* "-f", "-n 5", "-n5", "-fn5". */
static int take_letters(struct args *args, int argc, char **argv, int *at, struct err *err)
{
    for (const char *letter = argv[*at] + 1; *letter; letter++) {
        const struct option *option = find_letter(args->verb, *letter);
        if (!option)
            return err_set(err, ERR_INVALID, "there is no option -%c, see 'athanor %s --help'",
                           *letter, args->verb->name);
        if (option->kind == VALUE_NONE) {
            if (give(args, option, NULL, err) < 0)
                return -1;
            continue;
        }
        if (letter[1])
            return give(args, option, letter + 1, err);
        if (*at + 1 >= argc)
            return err_set(err, ERR_INVALID, "option -%c needs a value: %s", *letter,
                           option->value);
        return give(args, option, argv[++*at], err);
    }
    return 0;
}

static int check_words(const struct args *args, struct err *err)
{
    const struct verb *verb = args->verb;
    if (args_has(args, "help"))
        return 0;
    if (args->word_count < verb->words_min)
        return err_set(err, ERR_INVALID, "'athanor %s' needs %s", verb->name, verb->words);
    if (args->word_count > verb->words_max)
        return err_set(err, ERR_INVALID, "'%s' is one word too many: usage is 'athanor %s%s%s'",
                       args->words[verb->words_max], verb->name, *verb->words ? " " : "",
                       verb->words);
    return 0;
}

int args_parse(const struct verb *verb, int argc, char **argv, struct args *out, struct err *err)
{
    struct args args = {.verb = verb,
                        .words = mem_array((size_t)argc + 1, sizeof *args.words),
                        .given = mem_array((size_t)argc * 64 + 1, sizeof *args.given)};
    bool only_words = false;
    int rc = 0;
    for (int at = 0; at < argc && rc == 0; at++) {
        if (only_words || argv[at][0] != '-' || argv[at][1] == '\0')
            args.words[args.word_count++] = argv[at];
        else if (strcmp(argv[at], "--") == 0)
            only_words = true;
        else if (argv[at][1] == '-')
            rc = take_long(&args, argc, argv, &at, err);
        else if (strlen(argv[at]) > 64)
            rc = err_set(err, ERR_INVALID, "too many letters in one word");
        else
            rc = take_letters(&args, argc, argv, &at, err);
    }
    if (rc == 0)
        rc = check_words(&args, err);
    if (rc < 0) {
        args_done(&args);
        return -1;
    }
    *out = args;
    return 0;
}

void args_done(struct args *args)
{
    mem_free(args->words);
    mem_free(args->given);
}

bool args_has(const struct args *args, const char *option)
{
    for (size_t i = 0; i < args->given_count; i++)
        if (strcmp(args->given[i].option->name, option) == 0)
            return true;
    return false;
}

const char *args_text(const struct args *args, const char *option)
{
    for (size_t i = args->given_count; i > 0; i--)
        if (strcmp(args->given[i - 1].option->name, option) == 0)
            return args->given[i - 1].value;
    return NULL;
}

uint64_t args_count(const struct args *args, const char *option, uint64_t otherwise)
{
    const char *text = args_text(args, option);
    uint64_t value;
    struct err err;
    if (!text)
        return otherwise;
    CHECK(parse_u64(text, &value, &err) == 0); /* checked while parsing */
    return value;
}

uint64_t args_duration_ms(const struct args *args, const char *option, uint64_t otherwise)
{
    const char *text = args_text(args, option);
    uint64_t value;
    struct err err;
    if (!text)
        return otherwise;
    CHECK(parse_duration_ms(text, &value, &err) == 0); /* checked while parsing */
    return value;
}
