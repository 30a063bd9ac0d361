/* replay_main.c - runs a fuzz target over files and folders, without a fuzzer.
 *
 * Each input is tried whole, cut off at every length up to REPLAY_CUTS and with single
 * bytes changed, so that even a plain build meets damaged input. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define REPLAY_BYTES_MAX ((size_t)1 << 20)
#define REPLAY_CUTS 512u
#define REPLAY_CHANGES 512u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* A fresh exact-size copy each time, so that an overrun of one byte is seen by ASan. */
static void try_copy(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1);
    if (!copy)
        abort();
    memcpy(copy, bytes, length);
    LLVMFuzzerTestOneInput(copy, length);
    free(copy);
}

static void try_damaged(uint8_t *bytes, size_t length)
{
    size_t stride = length / REPLAY_CUTS + 1;
    for (size_t cut = 0; cut < length; cut += stride)
        try_copy(bytes, cut);
    stride = length / REPLAY_CHANGES + 1;
    for (size_t at = 0; at < length; at += stride) {
        uint8_t saved = bytes[at];
        bytes[at] = (uint8_t)(saved ^ (1u << (at % 8)));
        try_copy(bytes, length);
        bytes[at] = saved;
    }
}

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return -1;
    }
    uint8_t *bytes = malloc(REPLAY_BYTES_MAX);
    if (!bytes)
        abort();
    size_t length = fread(bytes, 1, REPLAY_BYTES_MAX, file);
    fclose(file);
    try_copy(bytes, length);
    try_damaged(bytes, length);
    free(bytes);
    return 1;
}

/* Returns how many files ran, or -1. */
static int replay_path(const char *path)
{
    struct stat info;
    if (stat(path, &info) < 0) {
        perror(path);
        return -1;
    }
    if (!S_ISDIR(info.st_mode))
        return replay_file(path);
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);
    int ran = 0;
    for (int i = 0; i < count; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && ran >= 0)
            ran = replay_file(file) < 0 ? -1 : ran + 1;
        free(names[i]);
    }
    if (count >= 0)
        free(names);
    return ran;
}

int main(int argc, char **argv)
{
    int total = 0;
    for (int i = 1; i < argc; i++) {
        int ran = replay_path(argv[i]);
        if (ran < 0)
            return 1;
        total += ran;
    }
    printf("%d inputs replayed\n", total);
    return total > 0 ? 0 : 1; /* a target without seeds tests nothing */
}
