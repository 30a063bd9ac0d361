/* sanitizer.c - what sanitizer builds must know of the engine; empty otherwise.
 *
 * Open MPI keeps memory to the end and unloads its modules before that, so that leaks of a run of
 * several ranks cannot even be told by their library. One rank loads no MPI and is checked. */
#if defined(__SANITIZE_ADDRESS__)
#define CHECKS_LEAKS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CHECKS_LEAKS 1
#endif
#endif

#ifdef CHECKS_LEAKS
#include <stdlib.h>
#include <string.h>

int __lsan_is_turned_off(void);

int __lsan_is_turned_off(void)
{
    const char *ranks = getenv("WORLD_SIZE");
    return ranks && strcmp(ranks, "1") != 0;
}
#else
typedef int sanitizer_is_off; /* C wants a declaration in each file */
#endif
