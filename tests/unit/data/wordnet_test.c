/* wordnet_test.c - records of the database format, and the subtrees of the installed one. */
#include "tests/unit/data/inputs.h"
#include "worker/engine/data/wordnet.h"

#define GOOD "00015388 03 n 02 animal 0 blue_jay(ip) a 002 ~ 01314388 n 0000 +c 01234567 s 0102 " \
             "| a living organism; \"it moves\"  "

static void a_record_gives_lemmas_pointers_and_gloss(void **state)
{
    (void)state;
    struct err err = {0};
    struct arena arena = {0};
    struct synset synset;
    assert_int_equal(wordnet_record_parse(&arena, GOOD, strlen(GOOD), &synset, &err), 0);
    assert_int_equal(synset.offset, 15388);
    assert_int_equal(synset.file, WORDNET_NOUN);
    assert_string_equal(wordnet_lexfile_name(synset.lexfile), "noun.Tops");
    assert_int_equal(synset.lemma_count, 2);
    assert_string_equal(synset.lemmas[1], "blue jay");
    assert_int_equal(synset.pointer_count, 2);
    assert_string_equal(synset.pointers[0].symbol, "~");
    assert_int_equal(synset.pointers[0].offset, 1314388);
    assert_int_equal(synset.pointers[1].file, WORDNET_ADJ);
    assert_string_equal(synset.gloss, "a living organism; \"it moves\"");
    arena_done(&arena);
}

/* Each cut loses a field; the bar before the gloss is the last thing that must be there. */
static void every_truncation_before_the_gloss_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct arena arena = {0};
    struct synset synset;
    for (size_t cut = 0; cut <= (size_t)(strchr(GOOD, '|') - GOOD); cut++)
        assert_int_equal(wordnet_record_parse(&arena, GOOD, cut, &synset, &err), -1);
    arena_done(&arena);
}

static void damaged_fields_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *line, *expected;
    } cases[] = {
        {"0001538x 03 n 01 a 0 000 | g", "offset"},
        {"00015388 77 n 01 a 0 000 | g", "lexicographer file 77"},
        {"00015388 03 q 01 a 0 000 | g", "type"},
        {"00015388 03 n 00 000 | g", "word count is 0"},
        {"00015388 03 n 01 a 0 001 ~ 00000001 x 0000 | g", "part of speech"},
        {"00015388 03 n 01 a 0 001 ~~~ 00000001 n 0000 | g", "symbol"},
        {"00015388 03 n 01 a 0 000 g", "'|'"},
    };
    struct err err = {0};
    struct arena arena = {0};
    struct synset synset;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(wordnet_record_parse(&arena, cases[i].line, strlen(cases[i].line),
                                              &synset, &err), -1);
        if (!strstr(err.text, cases[i].expected))
            fail_msg("'%s' does not say '%s'", err.text, cases[i].expected);
    }
    arena_done(&arena);
}

static size_t subtree_size(const struct wordnet *wordnet, const uint32_t *roots, size_t count)
{
    struct err err = {0};
    bool *member = mem_array(wordnet->count, sizeof *member);
    size_t size = 0;
    assert_int_equal(wordnet_subtree(wordnet, roots, count, member, &err), 0);
    for (size_t i = 0; i < wordnet->count; i++)
        size += member[i];
    mem_free(member);
    return size;
}

/* corpora page, section 2: synset counts by file and by topic. */
static void the_installed_database_has_the_documented_counts(void **state)
{
    (void)state;
    static const struct {
        uint32_t root;
        size_t synsets;
    } topics[] = {{1503061, 872},  {2084071, 190},  {3800933, 164},  {9505418, 446},
                  {9947232, 150},  {12992868, 309}, {10794014, 656}, {14070360, 606},
                  {14622893, 200}, {8524735, 915},  {1861778, 1182}, {1473806, 633},
                  {1661091, 297},  {1627424, 96}};
    static const uint32_t birds[] = {1503061, 1504437, 1507175};
    struct err err = {0};
    struct wordnet wordnet;
    unsigned animal;
    size_t animals = 0;
    need_wordnet();
    assert_int_equal(wordnet_read(WORDNET_FOLDER, &wordnet, &err), 0);
    assert_int_equal(wordnet.first[1], 82115);
    assert_int_equal(wordnet.first[2] - wordnet.first[1], 13767);
    assert_int_equal(wordnet.first[3] - wordnet.first[2], 18156);
    assert_int_equal(wordnet.count - wordnet.first[3], 3621);
    for (size_t i = 0; i < ARRAY_COUNT(topics); i++)
        assert_int_equal(subtree_size(&wordnet, &topics[i].root, 1), topics[i].synsets);
    assert_int_equal(subtree_size(&wordnet, birds, 3), 1414);
    assert_int_equal(wordnet_lexfile_find("noun.animal", &animal, &err), 0);
    for (size_t i = 0; i < wordnet.count; i++)
        animals += wordnet.synsets[i].lexfile == animal;
    assert_int_equal(animals, 7509);
    assert_null(wordnet_find(&wordnet, WORDNET_NOUN, 1503062));
    wordnet_done(&wordnet);
}

/* Offsets are file positions: a file whose line ends were changed has lost its pointers. */
static void a_recoded_file_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"noun", "verb", "adj", "adv"};
    struct err err = {0};
    struct wordnet wordnet;
    char *folder = folder_make();
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char *path = mem_printf("%s/data.%s", folder, names[i]);
        const char *text = i == 0 ? "00000001 03 n 01 a 0 000 | g\n" : "";
        write_bytes(path, text, strlen(text));
        mem_free(path);
    }
    assert_int_equal(wordnet_read(folder, &wordnet, &err), -1);
    assert_non_null(strstr(err.text, "line 1"));
    assert_int_equal(wordnet_read("/nowhere", &wordnet, &err), -1);
    assert_int_equal(err.kind, ERR_NOT_FOUND);
    folder_done(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_gives_lemmas_pointers_and_gloss),
        cmocka_unit_test(every_truncation_before_the_gloss_is_refused),
        cmocka_unit_test(damaged_fields_are_refused_by_name),
        cmocka_unit_test(the_installed_database_has_the_documented_counts),
        cmocka_unit_test(a_recoded_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
