/* secrets.c - see secrets.h. */
#include "worker/recipes/data/web/secrets.h"

#include <string.h>

enum class { UPPER, WORD, LINE, DASH };

static const struct form {
    const char *prefix;
    size_t least, most;
    enum class class;
} forms[] = {
#define SECRET(name, prefix, class, least, most) {prefix, least, most, class},
#include "worker/recipes/data/web/secrets.def"
#undef SECRET
};

static bool is_of(enum class class, char c)
{
    bool upper = (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

    switch (class) {
    case UPPER:
        return upper;
    case WORD:
        return upper || (c >= 'a' && c <= 'z');
    case LINE:
        return is_of(WORD, c) || c == '_';
    default:
        return is_of(LINE, c) || c == '-';
    }
}

/* Characters of the class from `at` on. */
static size_t run_of(enum class class, const char *text, size_t length, size_t at)
{
    size_t end = at;

    while (end < length && is_of(class, text[end]))
        end++;
    return end - at;
}

static bool has(const char *text, size_t length, size_t at, const char *what)
{
    size_t bytes = strlen(what);

    return at <= length && length - at >= bytes && memcmp(text + at, what, bytes) == 0;
}

static size_t count_form(const struct form *form, const char *text, size_t length)
{
    const char *at = text, *end = text + length;
    size_t count = 0;

    while ((at = memmem(at, (size_t)(end - at), form->prefix, strlen(form->prefix)))) {
        size_t place = (size_t)(at - text), behind = place + strlen(form->prefix);
        size_t run = run_of(form->class, text, length, behind);
        bool apart = place == 0 || !is_of(WORD, text[place - 1]);
        count += apart && run >= form->least && run <= form->most;
        at = text + behind;
    }
    return count;
}

/* Behind "-----BEGIN ". */
static bool is_private_key(const char *text, size_t length, size_t at)
{
    static const char what[] = "PRIVATE KEY";
    size_t end = at;

    while (end < length && (is_of(UPPER, text[end]) || text[end] == ' '))
        end++;
    if (!has(text, length, end, "-----"))
        return false;
    end -= end - at >= 6 && has(text, length, end - 6, " BLOCK") ? 6 : 0;
    return end - at >= sizeof what - 1 && has(text, length, end - (sizeof what - 1), what);
}

/* Behind "eyJ". */
static bool is_web_token(const char *text, size_t length, size_t at)
{
    size_t run = run_of(DASH, text, length, at);

    if (run < 10 || !has(text, length, at + run, ".eyJ"))
        return false;
    at += run + 4;
    run = run_of(DASH, text, length, at);
    return run >= 10 && has(text, length, at + run, ".") &&
           run_of(DASH, text, length, at + run + 1) >= 10;
}

static size_t part_of_address(const char *text, size_t length, size_t at)
{
    size_t end = at;

    while (end < length && !strchr(" \t\n\v\f\r/:@", text[end]))
        end++;
    return end - at;
}

/* Behind "://". */
static bool is_password(const char *text, size_t length, size_t at)
{
    size_t user = part_of_address(text, length, at), rest = at + user + 1;

    if (user == 0 || !has(text, length, at + user, ":"))
        return false;
    size_t password = part_of_address(text, length, rest);
    return password > 0 && has(text, length, rest + password, "@");
}

static size_t count_behind(const char *text, size_t length, const char *mark, bool word,
                           bool (*is)(const char *, size_t, size_t))
{
    const char *at = text, *end = text + length;
    size_t count = 0;

    while ((at = memmem(at, (size_t)(end - at), mark, strlen(mark)))) {
        bool apart = !word || at == text || !is_of(DASH, at[-1]);
        at += strlen(mark);
        count += apart && is(text, length, (size_t)(at - text));
    }
    return count;
}

size_t secrets_count(const char *text, size_t length)
{
    size_t count = count_behind(text, length, "-----BEGIN ", false, is_private_key) +
                   count_behind(text, length, "://", false, is_password);

    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
        count += count_form(&forms[f], text, length);
    return count + count_behind(text, length, "eyJ", true, is_web_token);
}
