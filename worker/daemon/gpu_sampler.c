/* gpu_sampler.c - what GPUs do, sampled while attempts have some.
 *
 * Calls of NVML may block in the kernel when a device or its driver is broken, and then not even
 * SIGKILL ends whoever made them. So each sample is taken by a process of its own, which replaces
 * the file that shepherds read (worker/attempt/gpu_usage.h) and ends. One that does not end in time
 * is killed, and no second one is started before the first is gone: a hung driver costs one process
 * and the GPU series, which have no points then. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "worker/attempt/folder.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/hook.h"

#define SAMPLE_TIMEOUT_MS 10000u /* loading the driver of an idle node was seen to take 2 s */

static bool somebody_has_gpus(const struct daemon *daemon)
{
    for (const struct attempt *attempt = daemon->attempts; attempt; attempt = attempt->next)
        if (attempt->state == ATTEMPT_RUNNING && slots_gpu(&daemon->slots, attempt->attempt_id, 0))
            return true;
    return false;
}

static void on_sample(void *user, const struct hook_result *result)
{
    struct daemon *daemon = user;
    bool failed = result->status != HOOK_OK;
    daemon->sample_hook = NULL;
    if (failed && !daemon->sample_failed) {
        char *how = hook_text(result);
        log_warn("no series of what GPUs do for now: looking at them %s", how);
        mem_free(how);
    } else if (!failed && daemon->sample_failed) {
        log_info("what GPUs do can be seen again");
    }
    daemon->sample_failed = failed;
}

/* A little before shepherds look, who look as often. */
void gpu_sampler_tick(struct daemon *daemon)
{
    static char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
    uint64_t now_ms = clock_steady_ms();
    if (daemon->sample_hook || now_ms - daemon->sampled_ms < daemon->options->usage_every_ms / 2 ||
        !somebody_has_gpus(daemon))
        return;
    daemon->sampled_ms = now_ms;
    const char *const arguments[] = {"--gpus", daemon->options->gpus, "--gpu-sample",
                                     daemon->gpu_usage, NULL};
    struct hook_config config = {.loop = daemon->loop,
                                 .program = "/proc/self/exe",
                                 .arguments = arguments,
                                 .environment = environment,
                                 .timeout_ms = SAMPLE_TIMEOUT_MS,
                                 .on_end = on_sample,
                                 .user = daemon};
    daemon->sample_hook = hook_start(&config);
}
