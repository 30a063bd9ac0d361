/* charbpe_forms.c - BPE over characters in tokenizer.json, and from llama2.c's tokenizer.bin.
 *
 * tokenizer.bin (tokenizer.py of llama2.c): a uint32, the longest piece; then for each id a float32
 * score, a uint32 length and so many bytes, all little-endian. Ids 0, 1 and 2 are <unk>, <s> and
 * </s>, ids 3 to 258 the bytes, as "<0x0A>" or, in old files, as the character of that number. The
 * number of ids is the model's. A pair is merged that makes the piece of highest score, so merge
 * rules follow from pieces and scores, in the order in which transformers' converter has them. */
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "worker/engine/data/metaspace.h"
#include "worker/engine/data/tokenizer_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define PIECES_BEFORE 259u  /* three special ones and the bytes */
#define PIECE_BYTES_MAX 1024u

/* ---- tokenizer.json ----------------------------------------------------------------------- */

static const char *text_of(json_t *object, const char *field)
{
    const char *text = json_string_value(json_object_get(object, field));
    return text ? text : "";
}

bool charbpe_is_form(json_t *model)
{
    const char *type = text_of(model, "type");
    return (!*type || strcmp(type, "BPE") == 0) &&
           json_is_true(json_object_get(model, "byte_fallback"));
}

static int read_normalizer(struct tokenizer *t, json_t *normalizer, bool *marks, struct err *err)
{
    const char *type = text_of(normalizer, "type");
    const char *from = text_of(json_object_get(normalizer, "pattern"), "String");
    if (strcmp(type, "Prepend") == 0 && strcmp(text_of(normalizer, "prepend"), METASPACE) == 0)
        t->charbpe.mark_first = true;
    else if (strcmp(type, "Replace") == 0 && strcmp(from, " ") == 0 &&
             strcmp(text_of(normalizer, "content"), METASPACE) == 0)
        *marks = true;
    else
        return err_set(err, ERR_INVALID, "normalizer is %s; with byte_fallback Prepend of U+2581 "
                       "and Replace of spaces by it are accepted", *type ? type : "none");
    return 0;
}

/* Spaces are marked by normalizers, or by a pre-tokenizer that does not cut at them. */
static int read_surroundings(struct tokenizer *t, json_t *root, struct err *err)
{
    json_t *normalizer = json_object_get(root, "normalizer"), *one;
    json_t *list = json_object_get(normalizer, "normalizers");
    json_t *cutter = json_object_get(root, "pre_tokenizer");
    const char *scheme = text_of(cutter, "prepend_scheme");
    bool marks = false;
    size_t index;
    if (json_is_object(normalizer) && !list && read_normalizer(t, normalizer, &marks, err) < 0)
        return -1;
    json_array_foreach(list, index, one)
        if (read_normalizer(t, one, &marks, err) < 0)
            return -1;
    if (json_is_object(cutter)) {
        if (strcmp(text_of(cutter, "type"), "Metaspace") != 0 ||
            strcmp(text_of(cutter, "replacement"), METASPACE) != 0 ||
            !json_is_false(json_object_get(cutter, "split")) || strcmp(scheme, "first") == 0)
            return err_set(err, ERR_INVALID, "pre_tokenizer is %s; with byte_fallback none is "
                           "accepted, or Metaspace of U+2581 with split false and prepend_scheme "
                           "always or never", text_of(cutter, "type"));
        t->charbpe.mark_first |= strcmp(scheme, "never") != 0;
        marks = true;
    }
    if (!marks)
        return err_set(err, ERR_INVALID, "neither normalizer nor pre_tokenizer replaces spaces by "
                       "U+2581, as with byte_fallback they must");
    return 0;
}

static int add_rule(struct tokenizer *t, const char *left, size_t left_length, const char *right,
                    size_t right_length, struct err *err)
{
    if (memchr(left, ' ', left_length) || memchr(right, ' ', right_length) || left_length == 0 ||
        right_length == 0)
        return err_set(err, ERR_INVALID, "merge %zu is not two tokens without spaces",
                       t->merges.count);
    return tokenizer_add_merge(t, left, left_length, right, right_length, err);
}

static int read_rule(struct tokenizer *t, json_t *merge, struct err *err)
{
    json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
    const char *text = json_string_value(merge), *space = text ? strchr(text, ' ') : NULL;
    if (space)
        return add_rule(t, text, (size_t)(space - text), space + 1, strlen(space + 1), err);
    if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right))
        return add_rule(t, json_string_value(left), json_string_length(left),
                        json_string_value(right), json_string_length(right), err);
    return err_set(err, ERR_INVALID, "merge %zu is neither \"a b\" nor [\"a\", \"b\"]",
                   t->merges.count);
}

static int read_model(struct tokenizer *t, json_t *model, struct err *err)
{
    json_t *merges = json_object_get(model, "merges"), *merge;
    const char *unknown = text_of(model, "unk_token");
    size_t index;
    if (json_number_value(json_object_get(model, "dropout")) != 0 ||
        json_is_true(json_object_get(model, "ignore_merges")))
        return err_set(err, ERR_INVALID, "model.dropout or model.ignore_merges is set; with "
                       "byte_fallback only none and false are accepted");
    if (*text_of(model, "continuing_subword_prefix") || *text_of(model, "end_of_word_suffix"))
        return err_set(err, ERR_INVALID, "model.continuing_subword_prefix or end_of_word_suffix "
                       "is set; only none is accepted");
    if (tokenizer_read_pieces(t, json_object_get(model, "vocab"), err) < 0)
        return -1;
    t->charbpe.unknown = *unknown ? tokenizer_find(t, unknown, strlen(unknown))
                                  : TOKENIZER_VOCAB_MAX;
    if (*unknown && t->charbpe.unknown == TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "model.unk_token is %s, which the vocabulary lacks",
                       unknown);
    if (!json_is_array(merges))
        return err_set(err, ERR_INVALID, "model.merges is not an array");
    json_array_foreach(merges, index, merge)
        if (read_rule(t, merge, err) < 0)
            return -1;
    return 0;
}

int charbpe_read(struct tokenizer *t, json_t *root, struct err *err)
{
    t->kind = TOKENIZER_CHARBPE;
    if (read_surroundings(t, root, err) < 0 ||
        tokenizer_read_added(t, json_object_get(root, "added_tokens"), err) < 0 ||
        read_model(t, json_object_get(root, "model"), err) < 0)
        return -1;
    return tokenizer_read_frame(t, json_object_get(root, "post_processor"), err);
}

static void put_rules(struct buf *out, const struct tokenizer *t)
{
    struct buf rule = {0};
    for (size_t i = 0; i < t->merges.count; i++) {
        const struct merge *merge = &t->merges.merges[i];
        const struct token *left = &t->tokens[merge->left], *right = &t->tokens[merge->right];
        buf_clear(&rule);
        buf_add(&rule, left->bytes, left->length);
        buf_putc(&rule, ' ');
        buf_add(&rule, right->bytes, right->length);
        buf_puts(out, i ? ",\n      " : "\n      ");
        tokenizer_put_text(out, buf_text(&rule), rule.length);
    }
    buf_done(&rule);
}

void charbpe_put(struct buf *out, const struct tokenizer *t)
{
    bool first = t->charbpe.mark_first;
    buf_printf(out, "  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [%s"
                    "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
                    "\"content\": \"" METASPACE "\"}]},\n  \"pre_tokenizer\": null,\n",
               first ? "{\"type\": \"Prepend\", \"prepend\": \"" METASPACE "\"}, " : "");
    tokenizer_put_processor(out, t);
    buf_printf(out, "  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": "
                    "\"Replace\", \"pattern\": {\"String\": \"" METASPACE "\"}, "
                    "\"content\": \" \"}, {\"type\": \"ByteFallback\"}, "
                    "{\"type\": \"Fuse\"}%s]},\n",
               first ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}"
                     : "");
    buf_puts(out, "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": ");
    if (t->charbpe.unknown < TOKENIZER_VOCAB_MAX)
        tokenizer_put_text(out, t->tokens[t->charbpe.unknown].bytes,
                           t->tokens[t->charbpe.unknown].length);
    else
        buf_puts(out, "null");
    buf_puts(out, ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
                  "\"fuse_unk\": true, \"byte_fallback\": true, \"ignore_merges\": false,\n"
                  "    \"vocab\": {");
    tokenizer_put_pieces(out, t, false);
    buf_puts(out, "},\n    \"merges\": [");
    put_rules(out, t);
    buf_puts(out, "]}\n}\n");
}

/* ---- tokenizer.bin of llama2.c ------------------------------------------------------------ */

struct bin {
    const char *start, *at, *end;
    uint32_t longest;
};

/* One piece as the file has it. */
static int next_piece(struct bin *bin, uint32_t id, float *score, const char **piece,
                      uint32_t *length, struct err *err)
{
    long long place = bin->at - bin->start;
    if (bin->end - bin->at < 8)
        return err_set(err, ERR_PROTOCOL, "cut off at byte %lld, within piece %u", place, id);
    memcpy(score, bin->at, 4);
    memcpy(length, bin->at + 4, 4);
    bin->at += 8;
    if (!isfinite(*score))
        return err_set(err, ERR_PROTOCOL, "piece %u at byte %lld has a score that is not a number",
                       id, place);
    if (*length == 0 || *length > bin->longest || *length > PIECE_BYTES_MAX)
        return err_set(err, ERR_PROTOCOL, "piece %u at byte %lld has %u bytes, expected 1..%u", id,
                       place, *length, bin->longest);
    if ((size_t)(bin->end - bin->at) < *length)
        return err_set(err, ERR_PROTOCOL, "cut off at byte %lld, within piece %u", place, id);
    *piece = bin->at;
    bin->at += *length;
    if (!text_is_utf8(*piece, *length) ||
        (memchr(*piece, 0, *length) && !(id == 3 && *length == 1)))
        return err_set(err, ERR_PROTOCOL, "piece %u at byte %lld is not UTF-8 text", id, place);
    return 0;
}

/* <unk>, "\n<s>\n", "\n</s>\n". */
static int add_control(struct tokenizer *t, uint32_t id, const char *piece, uint32_t length,
                       struct err *err)
{
    static const char *const names[] = {"<unk>", "<s>", "</s>"};
    while (length > 1 && *piece == '\n') {
        piece++;
        length--;
    }
    while (length > 1 && piece[length - 1] == '\n')
        length--;
    if (length != strlen(names[id]) || memcmp(piece, names[id], length) != 0)
        return err_set(err, ERR_INVALID, "piece %u is '%.*s', expected %s: not a tokenizer.bin of "
                       "llama2.c", id, (int)length, piece, names[id]);
    return tokenizer_add_special(t, id, piece, length, true, err);
}

static int add_byte(struct tokenizer *t, uint32_t id, const char *piece, uint32_t length,
                    struct err *err)
{
    unsigned byte = id - 3;
    char name[8];
    uint8_t old[4];
    size_t old_length = (size_t)utf8proc_encode_char((int32_t)byte, old);
    snprintf(name, sizeof name, "<0x%02X>", byte);
    if (!(length == 6 && memcmp(piece, name, 6) == 0) &&
        !(length == old_length && memcmp(piece, old, length) == 0))
        return err_set(err, ERR_INVALID, "piece %u is '%.*s', expected the byte %s", id,
                       (int)length, piece, name);
    return tokenizer_add_token(t, id, name, 6, err);
}

static int add_text(struct tokenizer *t, uint32_t id, const char *piece, uint32_t length,
                    struct err *err)
{
    struct buf marked = {0};
    int rc;
    for (uint32_t i = 0; i < length; i++) {
        if (piece[i] == ' ')
            buf_puts(&marked, METASPACE);
        else
            buf_putc(&marked, piece[i]);
    }
    rc = tokenizer_add_token(t, id, marked.bytes, marked.length, err);
    buf_done(&marked);
    return rc;
}

static int read_pieces(struct tokenizer *t, struct bin *bin, uint32_t count, float *scores,
                       struct err *err)
{
    for (uint32_t id = 0; id < count; id++) {
        const char *piece = NULL;
        uint32_t length = 0;
        if (next_piece(bin, id, &scores[id], &piece, &length, err) < 0 ||
            (id < 3               ? add_control
             : id < PIECES_BEFORE ? add_byte
                                  : add_text)(t, id, piece, length, err) < 0)
            return -1;
    }
    if (bin->at != bin->end)
        return err_set(err, ERR_INVALID, "%lld bytes follow its %u pieces, as many as the model "
                       "has tokens: another model's tokenizer", (long long)(bin->end - bin->at),
                       count);
    return 0;
}

struct rule {
    float score;
    uint32_t left, right, left_length, right_length; /* ids, and bytes of their texts */
    size_t order;
};

struct rules {
    struct rule *list;
    size_t count, capacity;
};

static uint32_t text_id(const struct tokenizer *t, const char *text, size_t length)
{
    uint32_t entry = byte_map_find(&t->vocab, text, length);
    return entry == BYTE_MAP_NONE ? 0 : (uint32_t)t->vocab.entries[entry].value;
}

/* The ways to make a piece of two others. */
static void add_rules(const struct tokenizer *t, uint32_t id, float score, struct rules *rules)
{
    const struct token *piece = &t->tokens[id];
    for (size_t cut = 1; cut < piece->length; cut++) {
        uint32_t left = text_id(t, piece->bytes, cut);
        uint32_t right = text_id(t, piece->bytes + cut, piece->length - cut);
        if (left < PIECES_BEFORE || right < PIECES_BEFORE)
            continue;
        VEC_RESERVE(rules->list, rules->count, rules->capacity);
        rules->list[rules->count] = (struct rule){
            score, left, right, (uint32_t)cut, piece->length - (uint32_t)cut, rules->count};
        rules->count++;
    }
}

/* Highest score first, then the longer left part, then the longer right one. */
static int compare_rules(const void *a, const void *b)
{
    const struct rule *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->left_length != y->left_length)
        return x->left_length > y->left_length ? -1 : 1;
    if (x->right_length != y->right_length)
        return x->right_length > y->right_length ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static int make_merges(struct tokenizer *t, const float *scores, struct err *err)
{
    struct rules rules = {0};
    int rc = 0;
    for (uint32_t id = PIECES_BEFORE; id < t->vocab_size; id++)
        add_rules(t, id, scores[id], &rules);
    if (rules.count)
        qsort(rules.list, rules.count, sizeof *rules.list, compare_rules);
    for (size_t i = 0; i < rules.count && rc == 0; i++) {
        const struct token *left = &t->tokens[rules.list[i].left];
        const struct token *right = &t->tokens[rules.list[i].right];
        rc = tokenizer_add_merge(t, left->bytes, left->length, right->bytes, right->length, err);
    }
    mem_free(rules.list);
    return rc;
}

/* <s> before each text, as Llama has it. */
static void frame_by_start(struct tokenizer *t)
{
    t->single = (struct frame){.item = {{FRAME_TOKEN, 1, 0}, {FRAME_FIRST, 0, 0}}, .count = 2};
    t->pair = (struct frame){.item = {{FRAME_TOKEN, 1, 0}, {FRAME_FIRST, 0, 0},
                                      {FRAME_TOKEN, 1, 1}, {FRAME_SECOND, 0, 1}},
                             .count = 4};
}

static int read_bin(struct tokenizer *t, struct bin *bin, uint32_t count, struct err *err)
{
    float *scores;
    int rc;
    if (count <= PIECES_BEFORE || count > TOKENIZER_VOCAB_MAX)
        return err_set(err, ERR_INVALID, "for a model of %u tokens, expected %u..%u", count,
                       PIECES_BEFORE + 1, TOKENIZER_VOCAB_MAX);
    if (bin->end - bin->at < 4)
        return err_set(err, ERR_PROTOCOL, "cut off at byte 0, within the longest piece's length");
    memcpy(&bin->longest, bin->at, 4);
    bin->at += 4;
    if (bin->longest == 0 || bin->longest > PIECE_BYTES_MAX)
        return err_set(err, ERR_PROTOCOL, "its longest piece has %u bytes, expected 1..%u: not a "
                       "tokenizer.bin of llama2.c", bin->longest, PIECE_BYTES_MAX);
    scores = mem_array(count, sizeof *scores);
    t->kind = TOKENIZER_CHARBPE;
    t->charbpe = (struct charbpe){.unknown = 0, .mark_first = true};
    rc = read_pieces(t, bin, count, scores, err);
    if (rc == 0)
        rc = make_merges(t, scores, err);
    mem_free(scores);
    frame_by_start(t);
    t->role[ROLE_BOS] = t->role[ROLE_EOS] = 1; /* run.c ends a text at <s> */
    return rc == 0 ? tokenizer_finish(t, err) : -1;
}

int tokenizer_parse_llama2c(const void *bytes, size_t length, uint32_t vocab_size,
                            struct tokenizer **out, struct err *err)
{
    struct tokenizer *t = tokenizer_new();
    struct bin bin = {bytes, bytes, (const char *)bytes + length, 0};
    if (read_bin(t, &bin, vocab_size, err) < 0) {
        tokenizer_free(t);
        return -1;
    }
    *out = t;
    return 0;
}
