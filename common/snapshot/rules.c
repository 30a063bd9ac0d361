/* rules.c - what an archive may hold: what writer and reader agree on. */
#include "common/snapshot/snapshot.h"

#include "common/base/parse.h"

#include <string.h>

const char *snapshot_path_fault(const char *path)
{
    size_t depth = 0, length = strlen(path);
    if (length == 0 || length > SNAPSHOT_PATH_MAX)
        return "is empty or longer than 1000 bytes";
    if (!text_is_utf8(path, length))
        return "is not UTF-8";
    for (const char *name = path; name; depth++) {
        const char *slash = strchr(name, '/');
        size_t bytes = slash ? (size_t)(slash - name) : strlen(name);
        if (bytes == 0)
            return "is absolute or has an empty name";
        if ((bytes == 1 && name[0] == '.') || (bytes == 2 && name[0] == '.' && name[1] == '.'))
            return "has a name '.' or '..'";
        name = slash ? slash + 1 : NULL;
    }
    return depth > SNAPSHOT_DEPTH_MAX ? "is more than 64 folders deep" : NULL;
}

const char *snapshot_link_fault(const char *path, const char *target)
{
    size_t above = 0, length = strlen(target);
    for (const char *at = path; (at = strchr(at, '/')); at++)
        above++;
    if (length == 0 || length > SNAPSHOT_PATH_MAX || !text_is_utf8(target, length))
        return "is empty, longer than 1000 bytes or not UTF-8";
    if (target[0] == '/')
        return "is absolute, expected one within the folder";
    bool front = true;
    for (const char *name = target; name;) {
        size_t bytes = strcspn(name, "/");
        bool up = bytes == 2 && name[0] == '.' && name[1] == '.';
        if (up && !front)
            return "has '..' behind another name, expected it at the front alone";
        if (up && above-- == 0)
            return "leads outside the folder";
        front = front && (up || bytes == 0 || (bytes == 1 && name[0] == '.'));
        name = name[bytes] ? name + bytes + 1 : NULL;
    }
    return NULL;
}

int snapshot_path_compare(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    unsigned x = *a == '/' ? 1 : *a ? (unsigned char)*a + 1u : 0;
    unsigned y = *b == '/' ? 1 : *b ? (unsigned char)*b + 1u : 0;
    return (x > y) - (x < y);
}
