/* microworld.c - see microworld.h. */
#include "worker/recipes/text/microworld.h"

#include <string.h>

#define WORDS_PER_SENSE 2
#define SENTENCE_WORDS_MAX 16 /* the longest template has 12 */
#define PLACE_DROPPED 0.25

struct slot {
    int count;
    const char *const (*words)[WORDS_PER_SENSE]; /* two lemmas of one synset of WordNet 3.0 */
    const char *context[2];                      /* around the word, in a context */
};

static const char *const agents[][WORDS_PER_SENSE] = {
    {"doctor", "physician"}, {"lawyer", "attorney"},   {"teacher", "instructor"},
    {"thief", "stealer"},    {"sailor", "crewman"},    {"farmer", "husbandman"},
    {"tailor", "seamster"},  {"author", "writer"},     {"wizard", "magician"},
    {"beggar", "mendicant"},
};
static const char *const verbs[][WORDS_PER_SENSE] = {
    {"buy", "purchase"},  {"hide", "conceal"},    {"repair", "mend"},     {"destroy", "ruin"},
    {"choose", "select"}, {"carry", "transport"}, {"discover", "detect"}, {"drag", "haul"},
};
static const char *const patients[][WORDS_PER_SENSE] = {
    {"car", "automobile"},  {"sofa", "couch"},    {"bucket", "pail"},   {"rock", "stone"},
    {"rug", "carpet"},      {"purse", "handbag"}, {"airplane", "plane"}, {"bicycle", "bike"},
    {"curtain", "drape"},   {"jewel", "gem"},
};
static const char *const places[][WORDS_PER_SENSE] = {
    {"forest", "woods"},   {"shop", "store"},       {"cemetery", "graveyard"},
    {"seashore", "coast"}, {"airport", "airdrome"}, {"hospital", "infirmary"},
};

static const struct slot slots[SLOT_END] = {
    [SLOT_AGENT] = {ARRAY_COUNT(agents), agents, {"someone is the ", " ."}},
    [SLOT_VERB] = {ARRAY_COUNT(verbs), verbs, {"someone acts ", " ."}},
    [SLOT_PATIENT] = {ARRAY_COUNT(patients), patients, {"something is the ", " ."}},
    [SLOT_PLACE] = {ARRAY_COUNT(places), places, {"somewhere is the ", " ."}},
};

_Static_assert(ARRAY_COUNT(agents) * ARRAY_COUNT(verbs) * ARRAY_COUNT(patients) *
                       ARRAY_COUNT(places) == MICROWORLD_FACTS, "every combination is a fact");

/* Capitals are words of a slot; what stands in brackets is left out with the place. */
static const char *const templates[] = {
    "the A V the P [ near the L ] .",
    "the P is V by the A [ near the L ] .",
    "[ near the L , ] the A V the P .",
    "it is the P that the A V [ near the L ] .",
};
static const char slot_letters[SLOT_END + 1] = "AVPL";

struct fact microworld_fact(unsigned number)
{
    struct fact fact;

    CHECK(number < MICROWORLD_FACTS);
    for (int slot = 0; slot < SLOT_END; slot++) {
        fact.value[slot] = (int)(number % (unsigned)slots[slot].count);
        number /= (unsigned)slots[slot].count;
    }
    return fact;
}

static const char *pick_word(const struct fact *fact, int slot, struct rng *rng)
{
    return slots[slot].words[fact->value[slot]][rng_below(rng, WORDS_PER_SENSE)];
}

/* The next word of a template, without what stands in brackets unless the place is told; NULL at
 * its end. *inside starts as false. */
static const char *template_next(const char **at, bool place, bool *inside, size_t *out_length)
{
    while (**at) {
        const char *word = *at;
        size_t length = strcspn(word, " ");

        *at += length + (word[length] == ' ');
        if (*word == '[' || *word == ']') {
            *inside = *word == '[';
        } else if (!*inside || place) {
            *out_length = length;
            return word;
        }
    }
    return NULL;
}

void microworld_sentence(const struct fact *fact, struct rng *rng, struct buf *out)
{
    const char *at = templates[rng_below(rng, ARRAY_COUNT(templates))];
    bool place = fact->value[SLOT_PLACE] >= 0 && rng_unit(rng) >= PLACE_DROPPED;
    bool first = true, inside = false;
    size_t length;

    for (const char *word; (word = template_next(&at, place, &inside, &length));) {
        const char *slot = strchr(slot_letters, *word);
        buf_puts(out, first ? "" : " ");
        if (slot)
            buf_puts(out, pick_word(fact, (int)(slot - slot_letters), rng));
        else
            buf_add(out, word, length);
        first = false;
    }
}

void microworld_context(const struct fact *fact, unsigned sentences, struct rng *rng,
                        struct buf *out)
{
    unsigned left = sentences, first = 1;

    CHECK(sentences <= SLOT_END);
    for (int slot = 0; slot < SLOT_END; slot++) {
        /* Each subset of that size is as likely as any other (Knuth 3.4.2, algorithm S). */
        if (rng_below(rng, (uint64_t)(SLOT_END - slot)) >= left)
            continue;
        buf_printf(out, "%s%s%s%s", first ? "" : " ", slots[slot].context[0],
                   pick_word(fact, slot, rng), slots[slot].context[1]);
        first = 0;
        left--;
    }
}

/* ---- parsing ---------------------------------------------------------------------------- */

struct token {
    const char *text;
    size_t length;
};

static size_t cut(const char *text, size_t length, struct token out[SENTENCE_WORDS_MAX])
{
    size_t count = 0, start = 0;

    for (size_t i = 0; i <= length; i++) {
        if (i < length && text[i] != ' ')
            continue;
        if (i > start && count == SENTENCE_WORDS_MAX)
            return 0;
        if (i > start)
            out[count++] = (struct token){text + start, i - start};
        start = i + 1;
    }
    return count;
}

static bool is_word(const struct token *token, const char *word, size_t length)
{
    return token->length == length && memcmp(token->text, word, length) == 0;
}

static bool read_slot(const struct token *token, int slot, int *out)
{
    for (int value = 0; value < slots[slot].count; value++)
        for (int w = 0; w < WORDS_PER_SENSE; w++) {
            const char *word = slots[slot].words[value][w];
            if (is_word(token, word, strlen(word))) {
                *out = value;
                return true;
            }
        }
    return false;
}

static bool matches(const char *at, bool place, const struct token *tokens, size_t count,
                    struct fact *out)
{
    struct fact fact = {{MICROWORLD_UNSAID, MICROWORLD_UNSAID, MICROWORLD_UNSAID,
                         MICROWORLD_UNSAID}};
    bool inside = false;
    size_t used = 0, length;

    for (const char *word; (word = template_next(&at, place, &inside, &length));) {
        const char *slot = strchr(slot_letters, *word);
        if (used == count ||
            !(slot ? read_slot(&tokens[used], (int)(slot - slot_letters),
                               &fact.value[slot - slot_letters])
                   : is_word(&tokens[used], word, length)))
            return false;
        used++;
    }
    if (used == count)
        *out = fact;
    return used == count;
}

bool microworld_parse(const char *text, size_t length, struct fact *out)
{
    struct token tokens[SENTENCE_WORDS_MAX];
    size_t count = cut(text, length, tokens);

    for (size_t t = 0; t < ARRAY_COUNT(templates); t++)
        if (matches(templates[t], true, tokens, count, out) ||
            matches(templates[t], false, tokens, count, out))
            return true;
    return false;
}

bool microworld_entails(const struct fact *x, const struct fact *y)
{
    for (int slot = 0; slot < SLOT_END; slot++)
        if (y->value[slot] >= 0 && y->value[slot] != x->value[slot])
            return false;
    return true;
}
