/* ruler.h - holds calls of kernels against what the machine can do at most.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The roof of a call is the longer of two times: to read the bytes that it must read, and to make
 * its multiply-adds in the arithmetic of the level. Both rates are measured between the runs of the
 * call itself, the best of five; the call's time is the median of its runs. Calls go round in a
 * ring of layers or tensors that is four times as large as the last cache, so that nothing is read
 * from a cache. A call that is faster than its roof by over 2 % was measured wrongly. */
#ifndef QUIRE_TOOL_RULER_H
#define QUIRE_TOOL_RULER_H

#include <jansson.h>

#include <quire/quire.h>

#include "quire/args.h"
#include "quire/bench_stats.h"

enum { RULER_ARGS = 5, RULER_RUNS_MAX = 101, RULER_ROWS_MAX = 256 };

struct ruler_options {
    uint32_t threads, runs; /* 0: what the machine allows; what is usual */
    const char *only;       /* a part of the names of the rows to measure, or NULL */
    bool quick;             /* small shapes, to see that it works */
    bool json;
};

/* Fills the rows of a command's table for these options. */
void ruler_args(struct ruler_options *options, struct cli_arg args[RULER_ARGS]);

/* What is measured: call(context, i) for i in 0 .. count, each on other memory. */
struct ruler_work {
    quire_status (*call)(void *context, uint32_t i);
    void *context;
    uint32_t count;
};

/* One kind of call. The caller sets the upper part. */
struct ruler_row {
    char name[40];
    double bytes, products; /* that a call must read, and make */
    double target;          /* of roof / time; 0: none */
    bool codes;             /* the products are those of weights with codes */
    uint32_t curve, x;      /* of a drawing: which line, 0 for none, and where on it */

    double ns, roof_ns; /* of a call */
    bool by_memory;
};

struct ruler {
    const struct ruler_options *options;
    const char *bench;
    uint32_t runs; /* of each row */
    struct quire_cpu_choice choice;
    struct quire_backend *backend;
    uint64_t cache_bytes; /* of the last level */
    uint64_t ring_bytes;  /* four times as much, unless memory is short */
    bool capped;
    void *memory;                       /* [ring_bytes] that the roof reads */
    struct stats_roof roof, codes_roof; /* of rows without and with codes */
    struct ruler_row *rows;             /* [RULER_ROWS_MAX] */
    uint32_t num_rows, num_below, num_wrong;
    bool said; /* the table has its head */
    json_t *json, *skipped;
};

/* Makes the backend and says what is measured on; ruler_close is fine after any result. */
int ruler_open(struct ruler *ruler, const char *bench, const struct ruler_options *options);
bool ruler_wants(const struct ruler *ruler, const char *name);
/* True where the roof is that of AMX tiles, which is far harder to come near. */
bool ruler_has_tiles(const struct ruler *ruler);
/* How many layers or tensors of so many bytes make the ring: at least 1, at most `max`. */
uint32_t ruler_ring(const struct ruler *ruler, double bytes, uint32_t max);
/* Measures, prints and remembers a row. */
quire_status ruler_measure(struct ruler *ruler, const struct ruler_work *work,
                           struct ruler_row *row);
/* The same without printing, for one of many rows that are told together. */
quire_status ruler_time(struct ruler *ruler, const struct ruler_work *work, struct ruler_row *row);
/* The better of the roofs of rows with codes and without. */
struct stats_roof ruler_roof(const struct ruler *ruler);
void ruler_skip(struct ruler *ruler, const char *name, const char *why);
/* Prints what follows the rows; BAD_DATA where a row was wrong. `more`: NULL, or an object whose
 * keys the JSON gets too. */
int ruler_finish(struct ruler *ruler, json_t *more);
void ruler_close(struct ruler *ruler);

#endif
