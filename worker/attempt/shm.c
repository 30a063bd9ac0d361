/* shm.c - see shm.h. */
#include "worker/attempt/shm.h"

#include <errno.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHM "/dev/shm"

struct mount_text {
    char options[64];
};

/* Of something that is no tmpfs the size means nothing; the kernel's default is half of memory. */
static struct mount_text mount_options(void)
{
    struct mount_text text;
    struct statfs status;
    bool known = statfs(SHM, &status) == 0 && status.f_type == TMPFS_MAGIC && status.f_blocks > 0;
    if (known)
        snprintf(text.options, sizeof text.options, "mode=1777,size=%llu",
                 (unsigned long long)status.f_blocks * (unsigned long long)status.f_bsize);
    else
        snprintf(text.options, sizeof text.options, "mode=1777");
    return text;
}

/* Only async-signal-safe calls. NULL: done; else what failed, with errno. */
static const char *mount_own(const struct mount_text *text)
{
    if (unshare(CLONE_NEWNS) < 0)
        return "unshare the mounts";
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return "keep our mounts to ourselves";
    if (mount("shm", SHM, "tmpfs", MS_NOSUID | MS_NODEV, text->options) < 0)
        return "mount " SHM;
    return NULL;
}

int shm_make_private(struct err *err)
{
    struct mount_text text = mount_options();
    const char *failed = mount_own(&text);
    return failed ? err_errno(err, "%s", failed) : 0;
}

int shm_try_private(struct err *err)
{
    struct mount_text text = mount_options();
    int status = 0;
    pid_t pid = fork();
    if (pid == 0)
        _exit(mount_own(&text) ? errno : 0);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (pid > 0)
        errno = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
    return err_errno(err, "a " SHM " for each attempt");
}
