/* pmix_load.c - loading the PMIx module; see pmix_host.h. */
#include "worker/shepherd/pmix_host.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <dlfcn.h>

int pmix_host_load(const struct pmix_host **out, struct err *err)
{
    char *path;
    if (file_module(PMIX_HOST_MODULE, &path, err) < 0)
        return err_wrap(err, "several ranks need PMIx");
    /* Global: PMIx's own plugins look for its symbols. */
    void *module = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    mem_free(path);
    const struct pmix_host *host = module ? dlsym(module, PMIX_HOST_SYMBOL) : NULL;
    if (!host)
        return err_set(err, ERR_NOT_FOUND, "several ranks need PMIx: %s", dlerror());
    *out = host;
    return 0;
}
