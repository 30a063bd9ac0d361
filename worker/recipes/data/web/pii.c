/* pii.c - see pii.h. Each finder answers for one start; scanning and order are shared. */
#include "worker/recipes/data/web/pii.h"

#include "common/base/mem.h"
#include "worker/recipes/data/web/chars.h"

#include <stdlib.h>
#include <string.h>

const char *pii_name(enum pii_kind kind)
{
    static const char *const names[] = {"email", "phone", "ip"};

    CHECK(kind < PII_KIND_END);
    return names[kind];
}

const char *pii_mask(enum pii_kind kind)
{
    static const char *const masks[] = {" |||EMAIL_ADDRESS||| ", " |||PHONE_NUMBER||| ",
                                        " |||IP_ADDRESS||| "};

    CHECK(kind < PII_KIND_END);
    return masks[kind];
}

void pii_done(struct pii_spans *spans)
{
    mem_free(spans->items);
    *spans = (struct pii_spans){0};
}

/* A paragraph: bytes [begin, end) of the text. */
struct piece {
    const char *text;
    size_t begin, end;
};

static uint32_t char_in(const struct piece *piece, size_t at, size_t *bytes)
{
    return char_at(piece->text + at, piece->end - at, bytes);
}

static bool is_digit(const struct piece *piece, size_t at)
{
    return at < piece->end && piece->text[at] >= '0' && piece->text[at] <= '9';
}

static void add(struct pii_spans *out, enum pii_kind kind, size_t begin, size_t end)
{
    VEC_RESERVE(out->items, out->count, out->capacity);
    out->items[out->count++] = (struct pii_span){kind, begin, end};
}

/* ---- e-mail ----------------------------------------------------------------------------- */

/* The domain that begins after the '@': the shortest run that may be followed by at most one of
 * the marks and then white space. Such a run ends where white space begins, or one mark before.
 * *out_rest: behind the white space character. False: no match. */
static bool email_domain(const struct piece *piece, size_t from, size_t *out_end, size_t *out_rest)
{
    static const char marks[] = ".@,?!;:)(";
    size_t at = from, bytes, previous = from;
    bool mark_before = false; /* the last character was the one optional mark */

    while (at < piece->end) {
        uint32_t c = char_in(piece, at, &bytes);
        if (char_is_space(c)) {
            /* [^...]+? prefers the shorter run: "b.com." ends before its last dot. */
            size_t next = at + bytes, more;
            bool shorter = mark_before && previous > from;
            *out_end = shorter ? previous : at;
            *out_rest = next;
            /* The optional mark may be white space too, and then more must follow. */
            if (!shorter && next < piece->end && char_is_space(char_in(piece, next, &more)))
                *out_rest = next + more;
            return at > from;
        }
        if (mark_before && piece->text[previous] != '.')
            return false; /* a mark that the run cannot hold, and no white space after it */
        mark_before = c < 0x80 && strchr(marks, (int)c) != NULL;
        if (mark_before && at == from && c != '.')
            return false; /* the run needs a character of its own */
        previous = at;
        at += bytes;
    }
    return false;
}

static void find_emails(const struct piece *piece, struct pii_spans *out)
{
    size_t floor = piece->begin; /* nothing before it may be matched again */

    for (size_t at = piece->begin; at < piece->end; at++) {
        size_t begin = at, end, rest;
        if (piece->text[at] != '@')
            continue;
        while (begin > floor) {
            size_t last = begin - 1, bytes;
            while (last > floor && ((uint8_t)piece->text[last] & 0xC0) == 0x80)
                last--;
            uint32_t c = char_in(piece, last, &bytes);
            if (char_is_space(c) || c == '@')
                break;
            begin = last;
        }
        if (begin == at || !email_domain(piece, at + 1, &end, &rest))
            continue;
        bool bracket = at - begin == 1 && piece->text[begin] == '(';
        if (!bracket && memchr(piece->text + at + 1, '.', end - at - 1))
            add(out, PII_EMAIL, begin, end);
        floor = rest;
        at = rest - 1;
    }
}

/* ---- phone ------------------------------------------------------------------------------ */

static bool take_digits(const struct piece *piece, size_t *at, unsigned count)
{
    for (unsigned i = 0; i < count; i++, ++*at)
        if (!is_digit(piece, *at))
            return false;
    return true;
}

static bool is_one_of(const struct piece *piece, size_t at, const char *set)
{
    return at < piece->end && piece->text[at] != 0 && strchr(set, piece->text[at]) != NULL;
}

/* From behind the leading white space. No choice of the pattern needs to be taken back: digits
 * and separators never match the same character. */
static bool phone_at(const struct piece *piece, size_t at, size_t *out_end)
{
    at += is_one_of(piece, at, "(");
    if (!take_digits(piece, &at, 3))
        return false;
    at += is_one_of(piece, at, ")");
    while (is_one_of(piece, at, "-. "))
        at++;
    if (!take_digits(piece, &at, 3))
        return false;
    at += is_one_of(piece, at, "-. ");
    if (!take_digits(piece, &at, 4))
        return false;
    *out_end = at;
    return true;
}

static void find_phones(const struct piece *piece, struct pii_spans *out)
{
    bool space_before = false;
    size_t bytes, end;

    for (size_t at = piece->begin; at < piece->end; at += bytes) {
        uint32_t c = char_in(piece, at, &bytes);
        if (space_before && phone_at(piece, at, &end)) {
            add(out, PII_PHONE, at, end);
            bytes = end - at;
            space_before = false;
        } else {
            space_before = char_is_space(c);
        }
    }
}

/* ---- IPv4 ------------------------------------------------------------------------------- */

/* The alternatives of an octet in the pattern's order, so that backtracking is a loop:
 * 25[0-5] | 2[0-4][0-9] | [01]?[0-9][0-9]? (three digits first, then two, then one). */
static bool octet_fits(const char *digits, unsigned count)
{
    if (count < 3)
        return true;
    if (digits[0] == '2')
        return digits[1] < '5' || (digits[1] == '5' && digits[2] <= '5');
    return digits[0] == '0' || digits[0] == '1';
}

static bool octet(const struct piece *piece, size_t at, bool dot, size_t *out_end)
{
    unsigned digits = 0;

    while (digits < 3 && is_digit(piece, at + digits))
        digits++;
    for (unsigned count = digits; count >= 1; count--) {
        bool dotted = at + count < piece->end && piece->text[at + count] == '.';
        if (octet_fits(piece->text + at, count) && (!dot || dotted)) {
            *out_end = at + count + dot;
            return true;
        }
    }
    return false;
}

static void find_ips(const struct piece *piece, struct pii_spans *out)
{
    for (size_t at = piece->begin; at < piece->end; at++) {
        size_t end = at;
        if (!is_digit(piece, at))
            continue;
        if (octet(piece, at, true, &end) && octet(piece, end, true, &end) &&
            octet(piece, end, true, &end) && octet(piece, end, false, &end)) {
            add(out, PII_IP, at, end);
            at = end - 1;
        }
    }
}

/* ---- all -------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    const struct pii_span *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end > y->end ? -1 : 1;
    return (int)x->kind - (int)y->kind;
}

static void drop_overlaps(struct pii_spans *spans)
{
    size_t kept = 0;

    if (spans->count > 1)
        qsort(spans->items, spans->count, sizeof *spans->items, compare);
    for (size_t i = 0; i < spans->count; i++)
        if (kept == 0 || spans->items[i].begin >= spans->items[kept - 1].end)
            spans->items[kept++] = spans->items[i];
    spans->count = kept;
}

static bool has_many_questions(const char *text, size_t length)
{
    size_t questions = 0;

    for (size_t i = 0; i < length; i++)
        questions += text[i] == '?';
    return questions > PII_QUESTIONS_MAX;
}

void pii_find(const char *text, size_t length, struct pii_spans *out)
{
    out->count = 0;
    out->skipped = has_many_questions(text, length);
    for (size_t at = 0; at < length && !out->skipped;) {
        const char *end = memchr(text + at, '\n', length - at);
        struct piece piece = {text, at, end ? (size_t)(end - text) + 1 : length};
        find_emails(&piece, out);
        find_phones(&piece, out);
        find_ips(&piece, out);
        at = piece.end;
    }
    drop_overlaps(out);
}
