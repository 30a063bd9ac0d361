/* pii.h - e-mail addresses, phone numbers and IPv4 addresses, as allenai/dolma finds them.
 *
 * Its patterns (taggers/pii.py, fast v2), applied to each paragraph (text up to and including
 * '\n') from left to right, first match first, without overlap within one kind:
 *   e-mail  [^\s@]+ @ [^\s@,?!;:)(]+? [.\s@,?!;:)(]? \s   no "(" as local part, a dot in the domain
 *   phone   \s+ \(? (ddd) \)? [-. ]* (ddd) [-. ]? (dddd)
 *   IPv4    octet . octet . octet . octet, octets 0 to 255, no word boundary
 * so that an address at the very end of a text without white space is missed, and 1.2.3.4.5 is
 * an IP: known faults of the source that are kept. The mask takes the place of the address
 * itself, not of the white space and punctuation around it. Where two kinds overlap, the one that
 * begins first wins, then the longer. Digits are ASCII's.
 * Source: card data-dolma, "PII"; Soldaini et al. 2024, section 5. */
#ifndef ATHANOR_WEB_PII_H
#define ATHANOR_WEB_PII_H

#include "common/base/base.h"

enum pii_kind { PII_EMAIL = 0, PII_PHONE, PII_IP, PII_KIND_END };

struct pii_span {
    enum pii_kind kind;
    size_t begin, end;
};

struct pii_spans { /* a zeroed struct is empty */
    struct pii_span *items;
    size_t count, capacity;
    bool skipped; /* more than PII_QUESTIONS_MAX question marks: the text was not searched */
};

#define PII_QUESTIONS_MAX 10000

/* Replaces the content by what is found in the text, in order of place, without overlaps. */
void pii_find(const char *text, size_t length, struct pii_spans *out);
void pii_done(struct pii_spans *spans);
const char *pii_name(enum pii_kind kind); /* "email" */
const char *pii_mask(enum pii_kind kind); /* " |||EMAIL_ADDRESS||| " */

#endif
