/* link: common-base
 *
 * spawn_bench.c - the reference for starting processes: posix_spawn of /bin/true in a loop, with
 * at most `width` alive. Prints processes/s.
 *
 *   spawn_bench [COUNT [WIDTH]] */
#include "common/base/clock.h"
#include "common/base/parse.h"

#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t argument(int argc, char **argv, int index, uint64_t otherwise)
{
    struct err err;
    uint64_t value = otherwise;
    if (index < argc && parse_u64(argv[index], &value, &err) < 0) {
        fprintf(stderr, "spawn_bench: %s\n", err.text);
        exit(2);
    }
    return value;
}

static void reap_one(void)
{
    int status;
    CHECK(wait(&status) > 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
    uint64_t count = argument(argc, argv, 1, 2000), width = argument(argc, argv, 2, 2);
    char *arguments[] = {"true", NULL};
    uint64_t alive = 0, start_us = clock_steady_us();
    for (uint64_t i = 0; i < count; i++) {
        pid_t pid;
        if (alive == width) {
            reap_one();
            alive--;
        }
        CHECK(posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ) == 0);
        alive++;
    }
    while (alive--)
        reap_one();
    printf("%.1f\n", (double)count * 1e6 / (double)(clock_steady_us() - start_us));
    return 0;
}
