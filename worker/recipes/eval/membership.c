/* membership.c - see membership.h. */
#include "worker/recipes/eval/membership.h"

#include <math.h>
#include <stdlib.h>

double extraction_strength(const bool *hit, int64_t count)
{
    int64_t prefix = count;

    while (prefix > 0 && hit[prefix - 1])
        prefix--;
    return count > 0 ? 1.0 - (double)prefix / (double)count : 0;
}

double exact_memorisation(const bool *hit, int64_t count)
{
    int64_t hits = 0;

    for (int64_t i = 0; i < count; i++)
        hits += hit[i];
    return count > 0 ? (double)hits / (double)count : 0;
}

static int descending(const void *a, const void *b)
{
    float left = *(const float *)a, right = *(const float *)b;

    return (left < right) - (left > right);
}

double min_k_score(float *nll, int64_t count, double share)
{
    int64_t taken = (int64_t)floor(share * (double)count);
    double sum = 0;

    if (count <= 0)
        return 0;
    if (taken < 1)
        taken = 1;
    qsort(nll, (size_t)count, sizeof *nll, descending);
    for (int64_t i = 0; i < taken; i++)
        sum += (double)nll[i];
    return sum / (double)taken;
}

static int ascending(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

double membership_auc(double *member, int64_t member_count, double *outsider,
                      int64_t outsider_count)
{
    double wins = 0;
    int64_t below = 0, upto = 0; /* outsiders < and <= the member */

    if (member_count <= 0 || outsider_count <= 0)
        return NAN;
    qsort(member, (size_t)member_count, sizeof *member, ascending);
    qsort(outsider, (size_t)outsider_count, sizeof *outsider, ascending);
    for (int64_t i = 0; i < member_count; i++) {
        while (below < outsider_count && outsider[below] < member[i])
            below++;
        while (upto < outsider_count && outsider[upto] <= member[i])
            upto++;
        wins += (double)(outsider_count - upto) + 0.5 * (double)(upto - below);
    }
    return wins / ((double)member_count * (double)outsider_count);
}

double privacy_leak(double auc, double reference_auc)
{
    double x = 1 - auc, reference = 1 - reference_auc;

    return 100 * (x - reference) / (reference + 1e-10);
}
