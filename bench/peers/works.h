/* works.h - the sizes, token lists and clock of the works of bench/peers, for the programs in C.
 * SPDX-License-Identifier: Apache-2.0
 *
 * works.py says the same in Python. */
#ifndef QUIRE_BENCH_WORKS_H
#define QUIRE_BENCH_WORKS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    BLOCK = 16,      /* positions of a block */
    SEQS = 64,       /* prompts taken at once, and sequences of a step */
    PROMPT = 2048,   /* tokens of such a prompt */
    LONG = 100000,   /* tokens of the prompt that is found or forked */
    REQUESTS = 2000, /* short requests of a run */
    ROLLBACK = 64,   /* tokens that a rollback takes back */
    VOCAB = 32000,
    RUNS_MAX = 1000,
};

/* The time of every run of one work. */
struct row {
    const char *name;
    int num_runs;
    double runs[RUNS_MAX];
};

/* Token i of one list. Lists of different sequences differ from their first block on. */
static inline uint32_t prompt_token(uint32_t sequence, uint32_t i)
{
    return (uint32_t)(i * 2654435761u + sequence * 40503u + 12345u) % VOCAB;
}

/* The token that a sequence gets in a step. */
static inline uint32_t step_token(uint32_t sequence, uint32_t step)
{
    return (sequence * 31 + step * 17 + 7) % VOCAB;
}

static inline double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline void add_run(struct row *row, double value)
{
    if (row->num_runs < RUNS_MAX)
        row->runs[row->num_runs++] = value;
}

static inline int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(struct row *row)
{
    int n = row->num_runs;
    qsort(row->runs, (size_t)n, sizeof row->runs[0], compare_doubles);
    return n == 0 ? 0 : (row->runs[(n - 1) / 2] + row->runs[n / 2]) / 2;
}

static inline void print_rows(const char *peer, const char *version, struct row *rows, int num_rows)
{
    printf("{\"peer\": \"%s\", \"version\": \"%s\", \"rows\": {", peer, version);
    for (int i = 0; i < num_rows; i++)
        printf("%s\"%s\": %.3f", i == 0 ? "" : ", ", rows[i].name, median(&rows[i]));
    printf("}}\n");
}

/* The number of runs from the command line, or 0 with a line of help. */
static inline int runs_argument(const char *text)
{
    char *end;
    long runs = strtol(text, &end, 10);
    if (*end == '\0' && end != text && runs >= 1 && runs <= RUNS_MAX)
        return (int)runs;
    fprintf(stderr, "%s: runs are a number from 1 to %d\n", text, RUNS_MAX);
    return 0;
}

#endif
