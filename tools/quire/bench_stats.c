/* bench_stats.c - the arithmetic of the benches: medians, roofs, cliffs.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/bench_stats.h"

#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double stats_median(double *values, uint32_t count)
{
    qsort(values, count, sizeof *values, compare);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

void stats_roof_raise(struct stats_roof *roof, const struct stats_roof *seen)
{
    roof->bytes = seen->bytes > roof->bytes ? seen->bytes : roof->bytes;
    roof->products = seen->products > roof->products ? seen->products : roof->products;
}

double stats_roof_ns(const struct stats_roof *roof, double bytes, double products, bool *by_memory)
{
    const double memory = bytes * 1e9 / roof->bytes, multiply = products * 1e9 / roof->products;
    if (by_memory != NULL)
        *by_memory = memory >= multiply;
    return memory >= multiply ? memory : multiply;
}

struct stats_cliff stats_cliff(const double *ns, uint32_t count)
{
    struct stats_cliff cliff = {.over = 1, .over_at = 1, .drop = 1, .drop_at = 1};
    for (uint32_t i = 1; i < count; i++) {
        const double chord = ns[0] + (ns[count - 1] - ns[0]) * i / (count - 1);
        if (ns[i] / chord > cliff.over) {
            cliff.over = ns[i] / chord;
            cliff.over_at = i + 1;
        }
        if (ns[i] / ns[i - 1] < cliff.drop) {
            cliff.drop = ns[i] / ns[i - 1];
            cliff.drop_at = i + 1;
        }
    }
    return cliff;
}
