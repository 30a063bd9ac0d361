/* recipes.c - the catalogue that specs are checked against: what workers announced, now and before
 * this coordinator began. A text that was seen is not parsed again. */
#include "coordinator/shell/shell.h"

#include "common/base/mem.h"
#include "common/base/json_text.h"

#define CATALOGUES_SEEN_MAX 4096u /* different engines over a coordinator's life */

static bool seen(const struct shell *shell, const struct hash *hash)
{
    for (size_t i = 0; i < shell->seen_count; i++)
        if (hash_equal(&shell->catalogues_seen[i], hash))
            return true;
    return false;
}

int recipes_announced(struct shell *shell, const struct wire_bytes *text, struct err *err)
{
    struct hash hash;

    if (text->length == 0)
        return 0; /* a worker without an engine runs commands only */
    hash_bytes(text->bytes, text->length, &hash);
    if (seen(shell, &hash))
        return 0;
    if (shell->seen_count >= CATALOGUES_SEEN_MAX)
        return err_set(err, ERR_LIMIT, "more than %u different catalogues of recipes",
                       CATALOGUES_SEEN_MAX);
    if (!json_text_is_valid(text->bytes, text->length))
        return err_set(err, ERR_PROTOCOL, "the catalogue of recipes is not JSON");
    if (catalogue_add(shell->catalogue, text->bytes, text->length, err) < 0)
        return err_wrap(err, "the catalogue of recipes");
    VEC_RESERVE(shell->catalogues_seen, shell->seen_count, shell->seen_capacity);
    shell->catalogues_seen[shell->seen_count++] = hash;
    struct texts *texts = &shell->catalogues_new;
    VEC_RESERVE(texts->items, texts->count, texts->capacity);
    texts->items[texts->count++] = mem_strndup(text->bytes, text->length);
    return 0;
}

void texts_free(struct texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        mem_free(texts->items[i]);
    mem_free(texts->items);
    *texts = (struct texts){0};
}

void recipes_free(struct shell *shell)
{
    texts_free(&shell->catalogues_new);
    texts_free(&shell->catalogues_flying);
    mem_free(shell->catalogues_seen);
    shell->catalogues_seen = NULL;
    shell->seen_count = shell->seen_capacity = 0;
}
