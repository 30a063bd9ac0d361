/* predicate.c - see predicate.h. Operators wait on a stack until what they bind is complete
 * (Dijkstra's shunting yard), so a condition is a list of steps in postfix order and neither
 * parsing nor judging recurses. */
#include "worker/recipes/data/web/predicate.h"

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/recipes/data/web/chars.h"

#include <string.h>
#include <strings.h>

enum step_kind { STEP_HAS = 1, STEP_COMPARE, STEP_OPEN, STEP_OR, STEP_AND, STEP_NOT };
enum sign { SIGN_BELOW = 1, SIGN_AT_MOST, SIGN_ABOVE, SIGN_AT_LEAST, SIGN_EQUAL, SIGN_OTHER };

struct step {
    enum step_kind kind;
    enum sign sign;
    size_t name;
    double number;
    char *text; /* NULL: compares numbers */
};

struct predicate {
    char *text;
    struct step steps[PREDICATE_STEPS_MAX];
    size_t count;
};

struct parsing {
    const char *text, *at;
    const struct predicate_name *names;
    size_t name_count;
    struct predicate *out;
    enum step_kind waiting[PREDICATE_STEPS_MAX];
    const char *waiting_at[PREDICATE_STEPS_MAX];
    size_t waiting_count;
    bool complete; /* a condition has just ended: and, or, ) or the end may follow */
};

void predicate_free(struct predicate *predicate)
{
    if (!predicate)
        return;
    for (size_t i = 0; i < predicate->count; i++)
        mem_free(predicate->steps[i].text);
    mem_free(predicate->text);
    mem_free(predicate);
}

const char *predicate_text(const struct predicate *predicate)
{
    return predicate->text;
}

/* ---- words and signs -------------------------------------------------------------------- */

static int refuse(const struct parsing *parsing, const char *at, struct err *err, char *why)
{
    size_t column = 1 + char_count(parsing->text, (size_t)(at - parsing->text));

    err_set(err, ERR_INVALID, "column %zu: %s", column, why);
    mem_free(why);
    return -1;
}

static void skip_space(struct parsing *parsing)
{
    parsing->at += strspn(parsing->at, " \t\r\n");
}

static size_t word_length(const char *at)
{
    return strcspn(at, " \t\r\n()<>=!'");
}

/* Takes the word if it comes next, in small letters or capitals. */
static bool take_word(struct parsing *parsing, const char *word)
{
    size_t length = word_length(parsing->at);

    if (length != strlen(word) || strncasecmp(parsing->at, word, length) != 0)
        return false;
    parsing->at += length;
    return true;
}

static enum sign take_sign(struct parsing *parsing)
{
    static const struct {
        const char *text;
        enum sign sign;
    } signs[] = {{"<=", SIGN_AT_MOST}, {">=", SIGN_AT_LEAST}, {"!=", SIGN_OTHER},
                 {"==", SIGN_EQUAL},   {"<", SIGN_BELOW},     {">", SIGN_ABOVE},
                 {"=", SIGN_EQUAL}};

    skip_space(parsing);
    for (size_t i = 0; i < ARRAY_COUNT(signs); i++) {
        size_t length = strlen(signs[i].text);
        if (strncmp(parsing->at, signs[i].text, length) != 0)
            continue;
        parsing->at += length;
        return signs[i].sign;
    }
    return 0;
}

/* ---- names ------------------------------------------------------------------------------ */

static bool is_called(const struct predicate_name *name, const char *word, size_t length)
{
    size_t group = name->group ? strlen(name->group) : 0;

    if (strlen(name->name) == length && strncmp(name->name, word, length) == 0)
        return true;
    return name->group && length == group + 1 + strlen(name->name) && word[group] == '.' &&
           strncmp(word, name->group, group) == 0 &&
           strncmp(word + group + 1, name->name, length - group - 1) == 0;
}

static int refuse_name(const struct parsing *parsing, size_t length, struct err *err)
{
    char *word = mem_strndup(parsing->at, length < 64 ? length : 64);
    const struct predicate_name *nearest = NULL;
    struct buf why = {0};

    for (size_t i = 0; i < parsing->name_count; i++)
        if (!nearest ||
            text_distance(word, parsing->names[i].name) < text_distance(word, nearest->name))
            nearest = &parsing->names[i];
    buf_printf(&why, "'%s' is nothing that this job knows of documents", word);
    if (nearest && text_distance(word, nearest->name) <= 2)
        buf_printf(&why, "; did you mean '%s'?", nearest->name);
    else
        buf_puts(&why, "; it knows");
    for (size_t i = 0; i < parsing->name_count && !strchr(buf_text(&why), '?'); i++)
        buf_printf(&why, "%s %s", i ? "," : "", parsing->names[i].name);
    mem_free(word);
    return refuse(parsing, parsing->at, err, buf_take(&why));
}

/* ---- conditions ------------------------------------------------------------------------- */

static int add_step(struct parsing *parsing, struct step step, const char *at, struct err *err)
{
    if (parsing->out->count == PREDICATE_STEPS_MAX) {
        mem_free(step.text);
        return refuse(parsing, at, err, mem_printf("more than %d conditions and words between "
                                                   "them; use several items of the list",
                                                   PREDICATE_STEPS_MAX));
    }
    parsing->out->steps[parsing->out->count++] = step;
    return 0;
}

static int read_text(struct parsing *parsing, struct step *step, struct err *err)
{
    const char *begin = parsing->at, *end;

    if (*begin != '\'') {
        parsing->at += word_length(begin);
        step->text = mem_strndup(begin, (size_t)(parsing->at - begin));
        return 0;
    }
    end = strchr(begin + 1, '\'');
    if (!end)
        return refuse(parsing, begin, err, mem_strdup("this ' is not closed by another"));
    step->text = mem_strndup(begin + 1, (size_t)(end - begin - 1));
    parsing->at = end + 1;
    return 0;
}

static int read_number(struct parsing *parsing, struct step *step, struct err *err)
{
    size_t length = word_length(parsing->at);
    char *word = mem_strndup(parsing->at, length);
    struct err unused;
    int rc = parse_f64(word, &step->number, &unused);

    if (rc < 0)
        refuse(parsing, parsing->at, err, mem_printf("'%.40s' is no number, which '%s' is compared "
                                                     "with", word,
                                                     parsing->names[step->name].name));
    mem_free(word);
    parsing->at += length;
    return rc;
}

/* NAME [SIGN VALUE] */
static int read_condition(struct parsing *parsing, struct err *err)
{
    const char *begin = parsing->at;
    size_t length = word_length(begin);
    struct step step = {.kind = STEP_HAS};

    if (length == 0)
        return refuse(parsing, begin, err, mem_strdup(
            *begin ? "a name, not or ( is expected here" : "a condition is expected at the end"));
    while (step.name < parsing->name_count &&
           !is_called(&parsing->names[step.name], begin, length))
        step.name++;
    if (step.name == parsing->name_count)
        return refuse_name(parsing, length, err);
    parsing->at += length;
    skip_space(parsing);
    const char *sign_at = parsing->at;
    step.sign = take_sign(parsing);
    if (step.sign) {
        bool is_text = parsing->names[step.name].is_text;
        step.kind = STEP_COMPARE;
        skip_space(parsing);
        if (!*parsing->at || strchr("()<>=!", *parsing->at))
            return refuse(parsing, parsing->at, err, mem_strdup("a value is expected here"));
        if (is_text && step.sign < SIGN_EQUAL)
            return refuse(parsing, sign_at, err, mem_printf("'%s' is a text: = and != compare it",
                                                            parsing->names[step.name].name));
        if ((is_text ? read_text(parsing, &step, err) : read_number(parsing, &step, err)) < 0)
            return -1;
    }
    parsing->complete = true;
    return add_step(parsing, step, begin, err);
}

/* ---- the whole -------------------------------------------------------------------------- */

static int push(struct parsing *parsing, enum step_kind kind, const char *at, struct err *err)
{
    if (parsing->waiting_count == PREDICATE_STEPS_MAX)
        return refuse(parsing, at, err, mem_printf("more than %d words and ( wait for their end",
                                                   PREDICATE_STEPS_MAX));
    parsing->waiting[parsing->waiting_count] = kind;
    parsing->waiting_at[parsing->waiting_count++] = at;
    return 0;
}

/* Operators that bind at least as closely as `least` are complete. */
static int pop(struct parsing *parsing, enum step_kind least, struct err *err)
{
    while (parsing->waiting_count && parsing->waiting[parsing->waiting_count - 1] >= least) {
        size_t top = --parsing->waiting_count;
        if (add_step(parsing, (struct step){.kind = parsing->waiting[top]},
                     parsing->waiting_at[top], err) < 0)
            return -1;
    }
    return 0;
}

/* After a condition. */
static int read_between(struct parsing *parsing, struct err *err)
{
    const char *begin = parsing->at;
    enum step_kind kind = take_word(parsing, "and") ? STEP_AND
                          : take_word(parsing, "or") ? STEP_OR : 0;

    if (kind) {
        parsing->complete = false;
        return pop(parsing, kind, err) < 0 ? -1 : push(parsing, kind, begin, err);
    }
    if (*begin != ')')
        return refuse(parsing, begin, err, mem_strdup("and, or or ) is expected here"));
    parsing->at++;
    if (pop(parsing, STEP_OR, err) < 0)
        return -1;
    if (parsing->waiting_count == 0)
        return refuse(parsing, begin, err, mem_strdup("this ) has no ( before it"));
    parsing->waiting_count--;
    return 0;
}

static int read_one(struct parsing *parsing, struct err *err)
{
    const char *begin = parsing->at;

    if (*begin == '(') {
        parsing->at++;
        return push(parsing, STEP_OPEN, begin, err);
    }
    if (take_word(parsing, "not"))
        return push(parsing, STEP_NOT, begin, err);
    return read_condition(parsing, err);
}

static int parse_all(struct parsing *parsing, struct err *err)
{
    for (skip_space(parsing); *parsing->at || !parsing->complete; skip_space(parsing))
        if ((parsing->complete ? read_between : read_one)(parsing, err) < 0)
            return -1;
    if (pop(parsing, STEP_OR, err) < 0)
        return -1;
    if (parsing->waiting_count)
        return refuse(parsing, parsing->waiting_at[parsing->waiting_count - 1], err,
                      mem_strdup("this ( is not closed"));
    return 0;
}

int predicate_parse(const char *text, const struct predicate_name *names, size_t name_count,
                    struct predicate **out, struct err *err)
{
    struct predicate *predicate = mem_zalloc(sizeof *predicate);
    struct parsing *parsing = mem_zalloc(sizeof *parsing);

    predicate->text = mem_strdup(text);
    *parsing = (struct parsing){.text = text, .at = text, .names = names,
                                .name_count = name_count, .out = predicate};
    int rc = parse_all(parsing, err);
    mem_free(parsing);
    if (rc == 0)
        *out = predicate;
    else
        predicate_free(predicate);
    return rc;
}

/* ---- judging ---------------------------------------------------------------------------- */

static bool compare_number(enum sign sign, double a, double b)
{
    switch (sign) {
    case SIGN_BELOW:
        return a < b;
    case SIGN_AT_MOST:
        return a <= b;
    case SIGN_ABOVE:
        return a > b;
    case SIGN_AT_LEAST:
        return a >= b;
    case SIGN_EQUAL:
        return a == b;
    case SIGN_OTHER:
        return a != b;
    }
    return false;
}

static bool step_holds(const struct step *step, const struct predicate_value *value)
{
    if (step->kind == STEP_HAS || !value->known)
        return value->known;
    if (step->text)
        return (strcmp(value->text, step->text) == 0) == (step->sign == SIGN_EQUAL);
    return compare_number(step->sign, value->number, step->number);
}

bool predicate_holds(const struct predicate *predicate, const struct predicate_value *values)
{
    bool stack[PREDICATE_STEPS_MAX];
    size_t top = 0;

    for (size_t i = 0; i < predicate->count; i++) {
        const struct step *step = &predicate->steps[i];
        if (step->kind <= STEP_COMPARE) {
            stack[top++] = step_holds(step, &values[step->name]);
        } else if (step->kind == STEP_NOT) {
            stack[top - 1] = !stack[top - 1];
        } else {
            top--;
            stack[top - 1] = step->kind == STEP_AND ? stack[top - 1] && stack[top]
                                                    : stack[top - 1] || stack[top];
        }
    }
    CHECK(top == 1);
    return stack[0];
}
