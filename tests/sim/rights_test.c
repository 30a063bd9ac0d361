/* rights_test.c - random configuration, submits, runs, drains and restarts:
 * after every step the core's invariants hold, no limit is exceeded, and what
 * the rows say is what memory said. */
#include "tests/lib/core/trace.h"

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STEPS    160u
#define ATTEMPTS 40u /* more than a story places */

struct story {
    struct rng rng;
    struct buf text;
    uint64_t now_ms;
    unsigned submits, steps;
};

static unsigned draw(struct story *story, unsigned below)
{
    return (unsigned)rng_below(&story->rng, below);
}

static const char *pick(struct story *story, const char *const *names, size_t count)
{
    return names[draw(story, (unsigned)count)];
}

#define PICK(story, ...)                                                                           \
    pick(story, (const char *const[]){__VA_ARGS__},                                                \
         sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void line(struct story *story, const char *format, ...)
{
    va_list list;
    char text[600];
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    buf_printf(&story->text, "> %llu %s\n", (unsigned long long)story->now_ms, text);
}

static void submit(struct story *story)
{
    line(story, "submit k%u as=%s", story->submits, PICK(story, "ann", "bob", "root"));
    buf_printf(&story->text, "| name: j%u\n| kind: command\n| command: [x]\n| array: %u\n",
               story->submits++, 1 + draw(story, 3));
    buf_printf(&story->text, "| queue: %s\n| project: %s\n", PICK(story, "default", "gpu", "low"),
               PICK(story, "default", "birds"));
    buf_printf(&story->text, "| resources: {cores: %u, gpus: %u}\n| limits: {stop_grace: 1s%s}\n",
               1 + draw(story, 3), draw(story, 3), PICK(story, "", ", wall_time: 4s"));
}

static void quota(struct story *story)
{
    const char *scope = PICK(story, "user=ann", "user=*", "project=birds", "queue=*", "queue=gpu",
                             "user=* queue=gpu", "user=bob project=* queue=low", "project=*");
    if (draw(story, 4) == 0)
        line(story, "configure quota remove %s", scope);
    else
        line(story, "configure quota set %s %s=%u", scope,
             PICK(story, "jobs", "cores", "gpus", "queued", "period_ms=86400000 gpu_ms"),
             draw(story, 9) ? 1 + draw(story, 6) * 3 : 0);
}

static void window(struct story *story)
{
    uint64_t from = story->now_ms + draw(story, 4000);
    if (draw(story, 3) == 0)
        line(story, "configure reservation remove %s", PICK(story, "r1", "r2"));
    else
        line(story, "configure reservation %s %s from=@%llu until=@%llu %s %s stop=%s",
             PICK(story, "add", "set"), PICK(story, "r1", "r2"), (unsigned long long)from,
             (unsigned long long)from + 1000 + draw(story, 5000),
             PICK(story, "worker=w1", "", "where=zone=b"),
             PICK(story, "for=user:ann", "for=project:birds", ""), PICK(story, "true", "false"));
}

static void other(struct story *story)
{
    if (draw(story, 4) == 0)
        line(story, "configure setting set %s=%u", PICK(story, "age_per_hour", "gpu_cores"),
             draw(story, 30));
    else if (draw(story, 3) == 0)
        line(story, "configure project set birds weight=%u open=%s member=bob", 1 + draw(story, 5),
             PICK(story, "true", "false"));
    else if (draw(story, 2) == 0)
        line(story, "configure queue %s %s", PICK(story, "remove", "set"),
             PICK(story, "gpu", "low"));
    else if (draw(story, 2) == 0)
        line(story, "drain worker:w%u by=%llu", 1 + draw(story, 2),
             (unsigned long long)story->now_ms + 1 + draw(story, 3000));
    else
        line(story, "undrain worker:w%u", 1 + draw(story, 2));
}

/* Both workers say that they hold everything: what they should not is fenced.
 */
static void joins(struct story *story)
{
    buf_printf(&story->text, "> %llu join w1 cores=6 gpus=3 memory=16 held=a1",
               (unsigned long long)story->now_ms);
    for (unsigned i = 2; i <= ATTEMPTS; i++)
        buf_printf(&story->text, ",a%u", i);
    buf_puts(&story->text, "\n");
    line(story, "join w2 cores=4 gpus=1 memory=16 label=zone:b");
}

/* A guess at an attempt that runs. */
static unsigned attempt_draw(struct story *story)
{
    return 1 + draw(story, 3 + story->steps / 6);
}

static void step(struct story *story)
{
    story->steps++;
    story->now_ms += draw(story, 400);
    switch (draw(story, 12)) {
    case 0:
    case 1:
        submit(story);
        break;
    case 2:
        quota(story);
        break;
    case 3:
        window(story);
        break;
    case 4:
        other(story);
        break;
    case 5:
        line(story, "restart");
        joins(story);
        break;
    case 6:
    case 7:
        line(story, "started a%u", attempt_draw(story));
        break;
    case 8:
    case 9:
        line(story, "finished a%u %s", attempt_draw(story), PICK(story, "success", "preempted"));
        break;
    default:
        line(story, "beat w1");
        line(story, "beat w2");
        line(story, "tick");
    }
}

static void a_random_story_of_rights_holds_every_invariant(void **state)
{
    (void)state;
    const char *mode = getenv("ATHANOR_TEST_MODE");
    unsigned seeds = mode && strcmp(mode, "long") == 0 ? 2000 : 60;
    size_t placed = 0, limited = 0, preempted = 0;
    for (unsigned seed = 1; seed <= seeds; seed++) {
        struct story story = {0};
        struct buf out = {0};
        struct err err;
        rng_init(&story.rng, seed);
        joins(&story);
        line(&story, "configure queue set gpu priority=5");
        line(&story, "configure queue set low default_wall_ms=3000");
        line(&story, "configure project set birds");
        for (unsigned i = 0; i < STEPS; i++)
            step(&story);
        line(&story, "restart");
        if (trace_run(buf_text(&story.text), &out, &err) < 0)
            fail_msg("seed %u: %s", seed, err.text);
        placed += strstr(buf_text(&out), "event placed") != NULL;
        limited += strstr(buf_text(&out), "wait, this submit adds") != NULL;
        preempted += strstr(buf_text(&out), "event requeued") != NULL;
        buf_done(&out);
        buf_done(&story.text);
    }
    /* A story in which nothing happens would prove nothing. */
    assert_true(placed > seeds / 2 && limited > 0 && preempted > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_random_story_of_rights_holds_every_invariant),
    };
    return cmocka_run_group_tests_name("rights", tests, NULL, NULL);
}
