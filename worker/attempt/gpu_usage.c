/* gpu_usage.c - see gpu_usage.h. */
#include "worker/attempt/gpu_usage.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HEAD "athanor-gpu-usage 1 "

void gpu_usage_begin(struct buf *out, uint64_t steady_ms)
{
    buf_printf(out, HEAD "%" PRIu64 "\n", steady_ms);
}

void gpu_usage_add(struct buf *out, const char *word, const struct gpu_usage *usage)
{
    buf_printf(out, "%s ", word);
    if (usage->busy_known)
        buf_printf(out, "%u ", usage->busy_percent);
    else
        buf_puts(out, "- ");
    if (usage->used_known)
        buf_printf(out, "%" PRIu64 "\n", usage->used_bytes);
    else
        buf_puts(out, "-\n");
}

/* The line that begins with the word. */
static bool device_find(const char *text, const char *word, size_t length, struct gpu_usage *out)
{
    for (const char *line = strchr(text, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if (strncmp(line, word, length) != 0 || line[length] != ' ')
            continue;
        const char *busy = line + length + 1, *used = strchr(busy, ' ');
        out->busy_known = sscanf(busy, "%3u", &out->busy_percent) == 1;
        out->used_known = used && sscanf(used + 1, "%19" SCNu64, &out->used_bytes) == 1;
        return true;
    }
    return false;
}

static bool is_fresh(const char *text, uint64_t now_ms, uint64_t age_max_ms)
{
    uint64_t at_ms;
    return strncmp(text, HEAD, strlen(HEAD)) == 0 &&
           sscanf(text + strlen(HEAD), "%19" SCNu64, &at_ms) == 1 && at_ms <= now_ms &&
           now_ms - at_ms <= age_max_ms;
}

void gpu_usage_sum(const char *text, const char *words, uint64_t now_ms, uint64_t age_max_ms,
                   struct gpu_usage *out)
{
    struct gpu_usage sum = {.busy_known = true, .used_known = true};
    *out = (struct gpu_usage){0};
    if (!words[0] || !is_fresh(text, now_ms, age_max_ms))
        return;
    for (const char *word = words; *word;) {
        struct gpu_usage one = {0};
        size_t length = strcspn(word, ",");
        bool found = device_find(text, word, length, &one);
        sum.busy_known = sum.busy_known && found && one.busy_known;
        sum.used_known = sum.used_known && found && one.used_known;
        sum.busy_percent += one.busy_percent;
        sum.used_bytes += one.used_bytes;
        word += length + (word[length] == ',');
    }
    *out = sum;
}
