/* function_words.c - see function_words.h. */
#include "worker/recipes/text/function_words.h"

#include <string.h>
#include <strings.h>

/* Determiners, pronouns, prepositions, conjunctions, auxiliaries, question words and particles,
 * each between two blanks. */
static const char function_words[] =
    " a an the this that these those each every either neither some any no all both half "
    "such more most what which whose another other i me my mine myself you your yours "
    "yourself he him his himself she her hers herself it its itself we us our ours ourselves "
    "they them their theirs themselves one ones someone somebody something somewhere anyone "
    "anybody anything nobody nothing everyone everybody everything who whom about above "
    "across after against along among around as at before behind below beneath beside "
    "besides between beyond but by despite down during except for from in inside into like "
    "near of off on onto out outside over past per since than through throughout till to "
    "toward towards under underneath until up upon via with within without and or nor so yet "
    "if unless because although though while whereas whether when whenever where wherever "
    "why how am is are was were be been being have has had having do does did doing will "
    "would shall should can could may might must ought not there here then too also only "
    "just even ";

bool is_function_word(const char *word, size_t length)
{
    for (const char *at = function_words; at[1]; at += 1 + strcspn(at + 1, " "))
        if (strcspn(at + 1, " ") == length && strncasecmp(at + 1, word, length) == 0)
            return true;
    return false;
}

void function_words_split(struct words *out)
{
    words_split(out, WORDS_ROUGE, function_words, strlen(function_words));
}
