/* names.c - the names that references and jobs may have; see ref.h. */
#include "common/spec/spec.h"

#include <string.h>

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool spec_name_is_valid(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > SPEC_NAME_BYTES_MAX || !name_char(name[0]))
        return false;
    for (size_t i = 1; i < length; i++)
        if (!name_char(name[i]) && !strchr("._-", name[i]))
            return false;
    return true;
}

bool spec_name_is_id(const char *name)
{
    return name[0] != '\0' && strspn(name, "0123456789") == strlen(name);
}
