/* pmix_load.c - loading the PMIx module; see pmix_host.h. */
#include "worker/shepherd/pmix_host.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int pmix_host_load(const struct pmix_host **out, struct err *err)
{
    char path[PATH_MAX + sizeof PMIX_HOST_MODULE];
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    if (length <= 0)
        return err_errno(err, "find our own program");
    path[length] = '\0';
    memcpy(strrchr(path, '/') + 1, PMIX_HOST_MODULE, sizeof PMIX_HOST_MODULE);
    void *module =
        dlopen(path, RTLD_NOW | RTLD_GLOBAL); /* PMIx's own plugins look for its symbols */
    const struct pmix_host *host = module ? dlsym(module, PMIX_HOST_SYMBOL) : NULL;
    if (!host)
        return err_set(err, ERR_NOT_FOUND, "several ranks need PMIx: %s", dlerror());
    *out = host;
    return 0;
}
