/* critic.c - see critic.h. */
#include "worker/recipes/distillation/impossible/critic.h"

#include "common/base/mem.h"
#include "worker/recipes/text/microworld.h"

#include <string.h>

int critic_score(struct critic *critic, const struct critic_pair *pairs, size_t count, double *out,
                 struct err *err)
{
    critic->scored += count;
    return count ? critic->class->score(critic, pairs, count, out, err) : 0;
}

uint64_t critic_pair_count(const struct critic *critic)
{
    return critic->scored;
}

void critic_free(struct critic *critic)
{
    if (critic)
        critic->class->free(critic);
}

/* ---- oracle ---- */

static int oracle_score(struct critic *critic, const struct critic_pair *pairs, size_t count,
                        double *out, struct err *err)
{
    (void)critic;
    (void)err;
    for (size_t i = 0; i < count; i++) {
        struct fact x, y;
        out[i] = microworld_parse(pairs[i].x, strlen(pairs[i].x), &x) &&
                 microworld_parse(pairs[i].y, strlen(pairs[i].y), &y) && microworld_entails(&x, &y);
    }
    return 0;
}

static void oracle_free(struct critic *critic)
{
    mem_free(critic);
}

struct critic *critic_oracle(void)
{
    static const struct critic_class class = {"oracle", oracle_score, oracle_free};
    struct critic *critic = mem_zalloc(sizeof *critic);

    critic->class = &class;
    return critic;
}
