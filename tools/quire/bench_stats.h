/* bench_stats.h - the arithmetic of the benches: medians, roofs, cliffs.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_BENCH_STATS_H
#define QUIRE_TOOL_BENCH_STATS_H

#include <stdbool.h>
#include <stdint.h>

/* Sorts the values, of which there is at least one. */
double stats_median(double *values, uint32_t count);

/* What a machine does at most in a second. */
struct stats_roof {
    double bytes;    /* read */
    double products; /* multiply-adds */
};

/* Takes the better of each. */
void stats_roof_raise(struct stats_roof *roof, const struct stats_roof *seen);
/* The least time in which so many bytes are read and so many products made. *by_memory, if not
 * NULL, says which of the two takes that long. */
double stats_roof_ns(const struct stats_roof *roof, double bytes, double products, bool *by_memory);

/* How far the times of 1 .. count rows are from growing evenly. */
struct stats_cliff {
    double over;      /* the largest t(n) / chord(n); the chord goes from t(1) to t(count) */
    uint32_t over_at; /* its n */
    double drop;      /* the least t(n + 1) / t(n); 1 where there is one time only */
    uint32_t drop_at; /* its n + 1 */
};
struct stats_cliff stats_cliff(const double *ns, uint32_t count);

#endif
