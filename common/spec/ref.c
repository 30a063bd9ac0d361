/* ref.c - the grammar of references; see ref.h. */
#include "common/spec/ref.h"

#include "common/base/parse.h"
#include "common/spec/spec.h"

#include <stdio.h>
#include <string.h>

#define REF_BYTES_MAX 4096 /* a path of the operating system */
#define REF_FORMS \
    "expected job:NAME/checkpoint:best, job:NAME/checkpoint:last, job:NAME/checkpoint:STEP, " \
    "dataset:NAME, dataset:NAME/PART or file:PATH"

static int selector_parse(const char *selector, struct spec_ref *ref, struct err *err)
{
    if (strcmp(selector, "best") == 0)
        ref->select = SPEC_SELECT_BEST;
    else if (strcmp(selector, "last") == 0)
        ref->select = SPEC_SELECT_LAST;
    else if (parse_u64(selector, &ref->step, err) == 0)
        ref->select = SPEC_SELECT_STEP;
    else
        return err_set(err, ERR_INVALID,
                       "'%.80s' selects no checkpoint, expected best, last or a step number",
                       selector);
    return 0;
}

static int name_check(const char *what, const char *name, struct err *err)
{
    if (spec_name_is_valid(name))
        return 0;
    return err_set(err, ERR_INVALID,
                   "'%.80s' is no name of a %s, expected at most %u letters, digits, '.', '_' and "
                   "'-'",
                   name, what, SPEC_NAME_BYTES_MAX);
}

static int job_parse(char *name, struct spec_ref *ref, struct err *err)
{
    char *slash = strchr(name, '/');
    static const char before[] = "checkpoint:";
    if (!slash || strncmp(slash + 1, before, strlen(before)) != 0)
        return err_set(err, ERR_INVALID,
                       "'job:%.80s' names no checkpoint, expected job:NAME/checkpoint:best, "
                       "job:NAME/checkpoint:last or job:NAME/checkpoint:STEP",
                       name);
    *slash = '\0';
    ref->kind = SPEC_REF_CHECKPOINT;
    ref->name = name;
    if (name_check("job", name, err) < 0)
        return -1;
    return selector_parse(slash + 1 + strlen(before), ref, err);
}

static int dataset_parse(char *name, struct spec_ref *ref, struct err *err)
{
    char *slash = strchr(name, '/');
    if (slash)
        *slash = '\0';
    ref->kind = SPEC_REF_DATASET;
    ref->name = name;
    ref->part = slash ? slash + 1 : "";
    if (name_check("dataset", name, err) < 0)
        return -1;
    return slash ? name_check("part", slash + 1, err) : 0;
}

static int file_parse(const char *path, const char *folder, struct arena *arena,
                      struct spec_ref *ref, struct err *err)
{
    if (path[0] == '\0')
        return err_set(err, ERR_INVALID, "'file:' names no path, expected file:PATH");
    if (path[0] != '/' && !folder)
        return err_set(err, ERR_INVALID,
                       "'file:%.80s' is relative and the submitter's folder is not known, "
                       "expected an absolute path",
                       path);
    ref->kind = SPEC_REF_FILE;
    ref->name = path[0] == '/' ? path : arena_printf(arena, "%s/%s", folder, path);
    ref->text = arena_printf(arena, "file:%s", ref->name);
    return 0;
}

int spec_ref_parse(const char *text, const char *folder, struct arena *arena,
                   struct spec_ref *out, struct err *err)
{
    struct spec_ref ref = {.part = ""};
    size_t length = strlen(text);
    if (length > REF_BYTES_MAX)
        return err_set(err, ERR_INVALID, "a reference of %zu bytes, at most %d are accepted",
                       length, REF_BYTES_MAX);
    ref.text = arena_strndup(arena, text, length);
    char *rest = arena_strndup(arena, text, length);
    char *colon = strchr(rest, ':');
    int rc = -1;
    if (colon)
        *colon = '\0';
    if (rest[0] == '/')
        rc = file_parse(text, folder, arena, &ref, err);
    else if (colon && strcmp(rest, "job") == 0)
        rc = job_parse(colon + 1, &ref, err);
    else if (colon && strcmp(rest, "dataset") == 0)
        rc = dataset_parse(colon + 1, &ref, err);
    else if (colon && strcmp(rest, "file") == 0)
        rc = file_parse(colon + 1, folder, arena, &ref, err);
    else
        err_set(err, ERR_INVALID, "'%.80s' is no reference, " REF_FORMS, text);
    if (rc == 0)
        *out = ref;
    return rc;
}
