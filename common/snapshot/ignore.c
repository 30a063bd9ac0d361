/* ignore.c - see ignore.h.
 *
 * A pattern becomes a list of steps, and a path is walked through all of them at once, as a
 * non-deterministic automaton: no pattern makes it slow, and nothing recurses. Where gitignore(5)
 * is silent the code of git decides (dir.c, wildmatch.c), and tests compare with `git ls-files`. */
#include "common/snapshot/ignore.h"

#include "common/base/mem.h"

#include <string.h>

enum step_kind {
    STEP_CHAR = 1,
    STEP_ANY,     /* one character but '/' */
    STEP_CLASS,   /* one of a set */
    STEP_STAR,    /* any number of characters but '/' */
    STEP_ALL,     /* any number of characters */
    STEP_FOLDERS, /* "**" with its slash may be nothing: go on behind the next two steps, too */
    STEP_NEVER,   /* damaged: matches nothing */
};

struct step {
    enum step_kind kind;
    unsigned char c;
    uint8_t set[32]; /* bit c % 8 of byte c / 8 */
};

struct rule {
    struct step *steps;
    size_t step_count;
    bool takes_back, folders_only;
    bool name_only; /* no slash: matches the last name of a path, at any depth */
};

struct ignore {
    struct rule *rules;
    size_t count, capacity;
    size_t steps_max;
};

/* ---- patterns ----------------------------------------------------------------------------- */

struct pattern {
    const unsigned char *at, *end;
    struct step *steps;
    size_t count, capacity;
};

static struct step *step_add(struct pattern *pattern, enum step_kind kind)
{
    VEC_RESERVE(pattern->steps, pattern->count, pattern->capacity);
    struct step *step = &pattern->steps[pattern->count++];
    *step = (struct step){.kind = kind};
    return step;
}

static void set_range(struct step *step, unsigned from, unsigned to)
{
    for (unsigned c = from; c <= to; c++)
        step->set[c / 8] |= (uint8_t)(1u << (c % 8));
}

/* [:name:] of ASCII; false for no such name. */
static bool set_named(struct step *step, const char *name, size_t length)
{
    static const struct {
        const char *name;
        uint8_t ranges[8]; /* pairs; 0, 0 ends */
    } classes[] = {
        {"alnum", {'0', '9', 'A', 'Z', 'a', 'z'}}, {"alpha", {'A', 'Z', 'a', 'z'}},
        {"blank", {' ', ' ', '\t', '\t'}},         {"cntrl", {1, 31, 127, 127}},
        {"digit", {'0', '9'}},                     {"graph", {33, 126}},
        {"lower", {'a', 'z'}},                     {"print", {32, 126}},
        {"punct", {33, 47, 58, 64, 91, 96, 123, 126}},
        {"space", {'\t', '\r', ' ', ' '}},         {"upper", {'A', 'Z'}},
        {"xdigit", {'0', '9', 'A', 'F', 'a', 'f'}},
    };
    for (size_t i = 0; i < ARRAY_COUNT(classes); i++) {
        if (strlen(classes[i].name) != length || memcmp(classes[i].name, name, length) != 0)
            continue;
        for (size_t k = 0; k < 8 && classes[i].ranges[k]; k += 2)
            set_range(step, classes[i].ranges[k], classes[i].ranges[k + 1]);
        return true;
    }
    return false;
}

/* At the "[" of "[:": takes the named class and returns 1; 0: it is no such thing, take the
 * bracket for itself; -1: damaged. */
static int class_named(struct pattern *p, struct step *step)
{
    const unsigned char *name = p->at + 2, *close = name;
    while (close < p->end && *close != ']')
        close++;
    if (close == p->end)
        return -1;
    if (close - name < 1 || close[-1] != ':')
        return 0;
    if (!set_named(step, (const char *)name, (size_t)(close - 1 - name)))
        return -1;
    p->at = close + 1;
    return 1;
}

/* One member of a class, at p->at; *previous is what a range may begin with, 0: nothing.
 * False: damaged. */
static bool class_member(struct pattern *p, struct step *step, unsigned *previous)
{
    unsigned c = *p->at;
    if (c == '[' && p->at + 1 < p->end && p->at[1] == ':') {
        int taken = class_named(p, step);
        *previous = taken == 0 ? '[' : 0;
        if (taken == 0) {
            set_range(step, '[', '[');
            p->at++;
        }
        return taken >= 0;
    }
    bool is_range = c == '-' && *previous && p->at + 1 < p->end && p->at[1] != ']';
    p->at += is_range;
    if (*p->at == '\\' && ++p->at == p->end)
        return false;
    c = *p->at++;
    set_range(step, is_range ? *previous : c, c);
    *previous = is_range ? 0 : c;
    return true;
}

/* Behind the "[". As in wildmatch.c a "]" that comes first is a member, and a class never
 * matches a slash where paths are matched (names have none). */
static void class_add(struct pattern *p)
{
    struct step *step = step_add(p, STEP_CLASS);
    bool negated = p->at < p->end && (*p->at == '!' || *p->at == '^');
    unsigned previous = 0;
    bool first = true;
    p->at += negated;
    while (p->at < p->end && (first || *p->at != ']')) {
        first = false;
        if (!class_member(p, step, &previous)) {
            step->kind = STEP_NEVER;
            return;
        }
    }
    if (p->at == p->end) {
        step->kind = STEP_NEVER;
        return;
    }
    p->at++;
    for (size_t i = 0; negated && i < sizeof step->set; i++)
        step->set[i] = (uint8_t)~step->set[i];
    step->set['/' / 8] &= (uint8_t)~(1u << ('/' % 8));
}

/* At a "*". Two or more mean folders where they stand alone between slashes. */
static void stars_add(struct pattern *p, const unsigned char *start)
{
    const unsigned char *first = p->at;
    while (p->at < p->end && *p->at == '*')
        p->at++;
    bool alone = p->at - first > 1 && (first == start || first[-1] == '/');
    bool at_end = p->at == p->end, slash = !at_end && *p->at == '/';
    bool escaped = p->end - p->at >= 2 && p->at[0] == '\\' && p->at[1] == '/';
    if (!alone || !(at_end || slash || escaped)) {
        step_add(p, STEP_STAR);
        return;
    }
    if (slash)
        step_add(p, STEP_FOLDERS);
    step_add(p, STEP_ALL);
}

/* Git compares what stands before the first special character by itself and matches the rest as
 * a pattern of its own, so that "**" may begin there: `start`. */
static void pattern_read(struct pattern *p)
{
    const unsigned char *start = p->at;
    while (start < p->end && !strchr("*?[\\", *start))
        start++;
    while (p->at < p->end) {
        unsigned char c = *p->at;
        if (c == '*') {
            stars_add(p, start);
            continue;
        }
        p->at++;
        if (c == '?')
            step_add(p, STEP_ANY);
        else if (c == '[')
            class_add(p);
        else if (c == '\\' && p->at == p->end)
            step_add(p, STEP_NEVER);
        else
            step_add(p, STEP_CHAR)->c = c == '\\' ? *p->at++ : c;
    }
}

/* ---- lines -------------------------------------------------------------------------------- */

/* Spaces at the end do not count, unless a backslash stands before. */
static size_t trimmed(const char *line, size_t length)
{
    size_t kept = 0;
    for (size_t i = 0; i < length; i++) {
        if (line[i] == '\\' && i + 1 < length)
            i++;
        else if (line[i] == ' ')
            continue;
        kept = i + 1;
    }
    return kept;
}

static void line_add(struct ignore *ignore, const char *line, size_t length)
{
    struct rule rule = {0};
    length = trimmed(line, length);
    rule.takes_back = length > 0 && line[0] == '!';
    line += rule.takes_back;
    length -= rule.takes_back;
    rule.folders_only = length > 0 && line[length - 1] == '/';
    length -= rule.folders_only;
    rule.name_only = !memchr(line, '/', length);
    if (length > 0 && line[0] == '/') {
        line++;
        length--;
    }
    struct pattern pattern = {.at = (const unsigned char *)line,
                              .end = (const unsigned char *)line + length};
    pattern_read(&pattern);
    rule.steps = pattern.steps;
    rule.step_count = pattern.count;
    ignore->steps_max = ignore->steps_max > rule.step_count ? ignore->steps_max : rule.step_count;
    VEC_RESERVE(ignore->rules, ignore->count, ignore->capacity);
    ignore->rules[ignore->count++] = rule;
}

struct ignore *ignore_parse(const char *text, size_t length)
{
    struct ignore *ignore = mem_zalloc(sizeof *ignore);
    size_t at = length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    while (at < length) {
        const char *line = text + at, *newline = memchr(line, '\n', length - at);
        size_t bytes = newline ? (size_t)(newline - line) : length - at;
        at += bytes + 1;
        if (bytes > 0 && line[bytes - 1] == '\r')
            bytes--;
        bytes = strnlen(line, bytes);
        if (bytes > 0 && *line != '#')
            line_add(ignore, line, bytes);
    }
    return ignore;
}

void ignore_free(struct ignore *ignore)
{
    if (!ignore)
        return;
    for (size_t i = 0; i < ignore->count; i++)
        mem_free(ignore->rules[i].steps);
    mem_free(ignore->rules);
    mem_free(ignore);
}

/* ---- matching ----------------------------------------------------------------------------- */

/* Steps that take no character let those behind them begin as well. */
static void states_spread(const struct rule *rule, uint8_t *states)
{
    for (size_t i = 0; i < rule->step_count; i++) {
        enum step_kind kind = rule->steps[i].kind;
        if (!states[i])
            continue;
        if (kind == STEP_STAR || kind == STEP_ALL || kind == STEP_FOLDERS)
            states[i + 1] = 1;
        if (kind == STEP_FOLDERS)
            states[i + 3] = 1; /* behind STEP_ALL and the slash, which follow it */
    }
}

static void states_advance(const struct rule *rule, const uint8_t *states, unsigned char c,
                           uint8_t *next)
{
    memset(next, 0, rule->step_count + 1);
    for (size_t i = 0; i < rule->step_count; i++) {
        const struct step *step = &rule->steps[i];
        if (!states[i])
            continue;
        if (step->kind == STEP_ALL || (step->kind == STEP_STAR && c != '/'))
            next[i] = 1;
        if ((step->kind == STEP_CHAR && step->c == c) || (step->kind == STEP_ANY && c != '/') ||
            (step->kind == STEP_CLASS && (step->set[c / 8] >> (c % 8) & 1)))
            next[i + 1] = 1;
    }
}

static bool rule_matches(const struct rule *rule, const char *text, uint8_t *states, uint8_t *next)
{
    if (rule->step_count == 0)
        return false; /* an empty pattern: git matches nothing with it */
    memset(states, 0, rule->step_count + 1);
    states[0] = 1;
    states_spread(rule, states);
    for (const char *at = text; *at; at++) {
        states_advance(rule, states, (unsigned char)*at, next);
        states_spread(rule, next);
        uint8_t *swap = states;
        states = next;
        next = swap;
    }
    return states[rule->step_count];
}

enum ignore_verdict ignore_match(const struct ignore *ignore, const char *path, bool is_folder)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    uint8_t *states = mem_alloc(2 * (ignore->steps_max + 1));
    enum ignore_verdict verdict = IGNORE_SILENT;
    for (size_t i = ignore->count; i > 0 && verdict == IGNORE_SILENT; i--) {
        const struct rule *rule = &ignore->rules[i - 1];
        if ((!rule->folders_only || is_folder) &&
            rule_matches(rule, rule->name_only ? name : path, states,
                         states + ignore->steps_max + 1))
            verdict = rule->takes_back ? IGNORE_IN : IGNORE_OUT;
    }
    mem_free(states);
    return verdict;
}
