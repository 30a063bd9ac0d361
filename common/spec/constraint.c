/* constraint.c - what a label of a worker must be; see spec.h for the forms. */
#include "common/spec/spec.h"

#include "common/base/parse.h"

#include <string.h>
#include <strings.h>

enum form { FORM_PLAIN = 1, FORM_NOT, FORM_ANY, FORM_ABSENT, FORM_AT_LEAST, FORM_ABOVE,
            FORM_AT_MOST, FORM_BELOW };

/* The form of a value; *out_rest is what follows its sign. */
static enum form form_of(const char *value, const char **out_rest)
{
    static const struct {
        const char *sign;
        enum form form;
    } signs[] = {{"!*", FORM_ABSENT}, {"!", FORM_NOT},     {"*", FORM_ANY},  {">=", FORM_AT_LEAST},
                 {">", FORM_ABOVE},   {"<=", FORM_AT_MOST}, {"<", FORM_BELOW}};
    for (size_t i = 0; i < ARRAY_COUNT(signs); i++) {
        size_t length = strlen(signs[i].sign);
        if (strncmp(value, signs[i].sign, length) == 0) {
            *out_rest = value + length;
            return signs[i].form;
        }
    }
    *out_rest = value;
    return FORM_PLAIN;
}

const char *spec_label_fault(const char *value)
{
    struct err err;
    int64_t number;
    const char *rest;
    switch (form_of(value, &rest)) {
    case FORM_PLAIN:
    case FORM_NOT:
        return !*rest              ? "names no value"
               : strchr(rest, '*') ? "has text beside a *: patterns are not known, only * alone"
                                   : NULL;
    case FORM_ANY:
    case FORM_ABSENT:
        return *rest ? "has text beside a *: patterns are not known, only * alone" : NULL;
    case FORM_AT_LEAST:
    case FORM_ABOVE:
    case FORM_AT_MOST:
    case FORM_BELOW:
        return parse_i64(rest, &number, &err) == 0 ? NULL : "compares with no whole number";
    }
    return NULL;
}

static bool compares(enum form form, const char *bound_text, const char *value)
{
    struct err err;
    int64_t bound, number;
    if (!value || parse_i64(value, &number, &err) < 0 || parse_i64(bound_text, &bound, &err) < 0)
        return false;
    return form == FORM_AT_LEAST ? number >= bound
           : form == FORM_ABOVE  ? number > bound
           : form == FORM_AT_MOST ? number <= bound
                                  : number < bound;
}

bool spec_label_holds(const struct spec_label *label, const char *value)
{
    bool listed = false, found = false;
    for (size_t i = 0; i < label->value_count; i++) {
        const char *rest;
        enum form form = form_of(label->values[i], &rest);
        bool holds = true;
        if (form == FORM_PLAIN) {
            listed = true;
            found = found || (value && strcmp(value, rest) == 0);
        } else if (form == FORM_NOT) {
            holds = !value || strcmp(value, rest) != 0;
        } else if (form == FORM_ANY || form == FORM_ABSENT) {
            holds = (value != NULL) == (form == FORM_ANY);
        } else {
            holds = compares(form, rest, value);
        }
        if (!holds)
            return false;
    }
    return found || !listed;
}

bool spec_gpu_model_fits(const char *wanted, const char *model)
{
    size_t length = strlen(wanted);
    for (; strlen(model) >= length; model++)
        if (strncasecmp(model, wanted, length) == 0)
            return true;
    return false;
}
