/* gang_load.c - loading the module of attempts on several nodes; see worker/gang/gang.h. */
#include "worker/shepherd/run.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <dlfcn.h>

int gang_host_load(const struct gang_host **out, struct err *err)
{
    char *path;
    if (file_module(GANG_HOST_MODULE, &path, err) < 0)
        return err_wrap(err, "several nodes need their links");
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    mem_free(path);
    const struct gang_host *host = module ? dlsym(module, GANG_HOST_SYMBOL) : NULL;
    if (!host)
        return err_set(err, ERR_NOT_FOUND, "several nodes need their links: %s", dlerror());
    *out = host;
    return 0;
}
