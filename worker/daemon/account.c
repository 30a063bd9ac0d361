/* account.c - see account.h. The file is read for each start: an operator's change counts at once.
 */
#include "worker/daemon/account.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILE_BYTES_MAX ((size_t)4 << 20) /* 30,000 people */

int account_line(const char *text, const char *principal, char name[ACCOUNT_NAME_MAX + 1],
                 struct err *err)
{
    char *copy = mem_strdup(text);
    size_t number = 0;
    int rc = 0;
    name[0] = '\0';
    for (char *line = copy, *next; rc == 0 && line; line = next) {
        char who[128] = "", as[ACCOUNT_NAME_MAX + 1] = "", more[2] = "";
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        number++;
        line[strcspn(line, "#")] = '\0';
        int words = sscanf(line, "%127s %63s %1s", who, as, more);
        if (words <= 0)
            continue;
        if (words != 2)
            rc = err_set(err, ERR_INVALID, "line %zu: expected a principal and an account", number);
        else if (strcmp(who, principal) == 0 || (strcmp(who, "*") == 0 && !name[0]))
            memcpy(name, as, sizeof as);
        if (rc == 0 && strcmp(who, principal) == 0)
            break;
    }
    mem_free(copy);
    if (rc == 0 && !name[0])
        return err_set(err, ERR_NOT_FOUND, "no line for '%s'", principal);
    return rc;
}

static int name_find(const struct options *options, const char *principal,
                     char name[ACCOUNT_NAME_MAX + 1], struct err *err)
{
    char *text;
    size_t length;
    if (options->job_user[0] || strcmp(options->job_accounts, "same") == 0) {
        const char *given = options->job_user[0] ? options->job_user : principal;
        if (strlen(given) > ACCOUNT_NAME_MAX)
            return err_set(err, ERR_NOT_FOUND, "'%s' is no name of an account", given);
        snprintf(name, ACCOUNT_NAME_MAX + 1, "%s", given);
        return 0;
    }
    if (file_read(options->job_accounts, FILE_BYTES_MAX, &text, &length, err) < 0)
        return err_wrap(err, "--job-accounts");
    int rc = account_line(text, principal, name, err);
    mem_free(text);
    return rc < 0 ? err_wrap(err, "--job-accounts '%s'", options->job_accounts) : 0;
}

int account_find(const struct options *options, const char *principal, struct account *out,
                 struct err *err)
{
    struct account account = {.uid = geteuid(), .gid = getegid()};
    if (!options->job_user[0] && !options->job_accounts[0]) {
        *out = account;
        return 0;
    }
    if (name_find(options, principal, account.name, err) < 0)
        return -1;
    errno = 0;
    const struct passwd *entry = getpwnam(account.name);
    if (!entry)
        return err_set(err, ERR_NOT_FOUND, "jobs of '%s' run as '%s' here: no such account%s%s",
                       principal, account.name, errno ? ": " : "", errno ? strerror(errno) : "");
    if (entry->pw_uid == 0 && !options->allow_root_jobs)
        return err_set(err, ERR_DENIED,
                       "jobs of '%s' would run as root here, which needs --allow-root-jobs",
                       principal);
    account.uid = entry->pw_uid;
    account.gid = entry->pw_gid;
    *out = account;
    return 0;
}
