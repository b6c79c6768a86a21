/* bench_cache.c - quire bench cache: nanoseconds of the cache's own work, without any kernel.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A step that is begun and aborted takes its blocks and gives them back. The difference between one
 * of many blocks and one of a single block, divided by the blocks between, is what a block costs.
 */
#include <stdio.h>
#include <stdlib.h>

#include <quire/quire.h>

#include "quire/args.h"
#include "quire/commands.h"
#include "quire/console.h"
#include "quire/files.h"

/* The geometry of an 8B model: 32 layers, 8 key/value heads of 128. */
enum {
    LAYERS = 32,
    KV_HEADS = 8,
    HEADS = 32,
    HEAD_DIM = 128,
    BLOCK_SIZE = 16,
    MANY_BLOCKS = 1025,
    SEQS = 64,
    STEPS = 1024,
    RUNS_MAX = 101
};

struct row {
    const char *backend;
    double block_ns;   /* allocate + free */
    double step_ns[2]; /* begin + commit at 1 and at SEQS sequences */
};

struct bench {
    struct quire_pool *pool;
    quire_seq seqs[SEQS];
};

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Nanoseconds of a begin + abort of one sequence that takes `blocks` blocks, mean of `times`. */
static quire_status time_blocks(const struct bench *bench, uint32_t blocks, uint32_t times,
                                double *ns)
{
    const struct quire_step_item item = {.seq = bench->seqs[0], .n_new = blocks * BLOCK_SIZE};
    quire_status status = QUIRE_OK;
    uint64_t started_ns = quire__now_ns();
    for (uint32_t i = 0; i < times && status == QUIRE_OK; i++) {
        quire_step step;
        status = quire_step_begin(bench->pool, &item, 1, &step, NULL);
        if (status == QUIRE_OK)
            status = quire_step_abort(bench->pool, step);
    }
    *ns = (double)(quire__now_ns() - started_ns) / times;
    return status;
}

/* Nanoseconds of a begin + commit that adds a token to each of `count` sequences. */
static quire_status time_steps(const struct bench *bench, uint32_t count, double *ns)
{
    struct quire_step_item items[SEQS];
    const uint32_t token = 1;
    for (uint32_t i = 0; i < count; i++)
        items[i] = (struct quire_step_item){.seq = bench->seqs[i], .n_new = 1, .tokens = &token};
    quire_status status = QUIRE_OK;
    uint64_t started_ns = quire__now_ns();
    for (uint32_t i = 0; i < STEPS && status == QUIRE_OK; i++) {
        quire_step step;
        status = quire_step_begin(bench->pool, items, count, &step, NULL);
        if (status == QUIRE_OK)
            status = quire_step_commit(bench->pool, step, NULL);
    }
    *ns = (double)(quire__now_ns() - started_ns) / STEPS;
    for (uint32_t i = 0; i < count && status == QUIRE_OK; i++)
        status = quire_seq_truncate(bench->pool, bench->seqs[i], 0, NULL);
    return status;
}

static double median(double *values, uint32_t count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

static quire_status measure(const struct bench *bench, uint32_t runs, struct row *row)
{
    double block[RUNS_MAX] = {0}, one[RUNS_MAX] = {0}, many[RUNS_MAX] = {0};
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < runs && status == QUIRE_OK; i++) {
        double few_ns = 0, many_ns = 0;
        status = time_blocks(bench, 1, 1000, &few_ns);
        if (status == QUIRE_OK)
            status = time_blocks(bench, MANY_BLOCKS, 100, &many_ns);
        block[i] = (many_ns - few_ns) / (MANY_BLOCKS - 1);
        if (status == QUIRE_OK)
            status = time_steps(bench, 1, &one[i]);
        if (status == QUIRE_OK)
            status = time_steps(bench, SEQS, &many[i]);
    }
    row->block_ns = median(block, runs);
    row->step_ns[0] = median(one, runs);
    row->step_ns[1] = median(many, runs);
    return status;
}

static quire_status make_pool(struct quire_backend *backend, struct bench *bench,
                              struct quire_error *error)
{
    uint32_t layers[LAYERS];
    for (uint32_t i = 0; i < LAYERS; i++)
        layers[i] = i;
    const struct quire_group_config group = {.layers = layers,
                                             .num_layers = LAYERS,
                                             .num_heads = HEADS,
                                             .num_kv_heads = KV_HEADS,
                                             .head_dim = HEAD_DIM};
    struct quire_pool_config config;
    quire_pool_config_init(&config);
    config.backend = backend;
    config.groups = &group;
    config.num_groups = 1;
    config.layout = QUIRE_LAYOUT_PAGED;
    config.block_size = BLOCK_SIZE;
    config.max_seqs = SEQS;
    config.max_seq_len = MANY_BLOCKS * BLOCK_SIZE;
    config.max_step_tokens = MANY_BLOCKS * BLOCK_SIZE;
    config.max_open_steps = 1;
    config.num_blocks = SEQS * (STEPS / BLOCK_SIZE + 1);
    quire_status status = quire_pool_create(&config, &bench->pool, error);
    for (uint32_t i = 0; i < SEQS && status == QUIRE_OK; i++) {
        status = quire_seq_create(bench->pool, NULL, &bench->seqs[i]);
        if (status != QUIRE_OK)
            return quire__fail(error, status, "cannot start a sequence");
    }
    return status;
}

static int run_row(uint32_t runs, struct row *row)
{
    struct quire_error error;
    struct quire_backend *backend = NULL;
    struct bench bench = {0};
    quire_status status = quire_backend_create(row->backend, NULL, &backend, &error);
    if (status == QUIRE_OK)
        status = make_pool(backend, &bench, &error);
    if (status == QUIRE_OK) {
        status = measure(&bench, runs, row);
        if (status != QUIRE_OK)
            (void)quire__fail(&error, status, "a step of the bench failed: %s",
                              quire_status_text(status));
    }
    quire_pool_destroy(bench.pool);
    quire_backend_destroy(backend);
    return status == QUIRE_OK ? CLI_OK : cli_fail(&error);
}

int command_bench_cache(int argc, char **argv)
{
    bool json = false;
    uint32_t runs = 5;
    const struct cli_arg args[] = {
        {"--runs", CLI_U32, &runs, 3, RUNS_MAX, "N", "runs behind each median (5)"},
        {"--json", CLI_FLAG, &json, 0, 0, NULL, "print one JSON object"},
    };
    const struct cli_command command = {
        .name = "bench cache",
        .synopsis = "[--runs N] [--json]",
        .about = "Prints nanoseconds of a block's allocation and release, and of a step's begin "
                 "and commit at 1\nand 64 sequences, on the backends none and cpu; medians.",
        .example = "quire bench cache --json",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    struct row rows[] = {{.backend = "none"}, {.backend = "cpu"}};
    json_t *list = json_array();
    int result = CLI_OK;
    if (!json)
        (void)printf("%8s %14s %14s %14s\n", "backend", "ns a block", "ns a step", "at 64 seqs");
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(rows) && result == CLI_OK; i++) {
        result = run_row(runs, &rows[i]);
        (void)json_array_append_new(list, json_pack("{s:s, s:f, s:f, s:f}", "backend",
                                                    rows[i].backend, "block_ns", rows[i].block_ns,
                                                    "step_ns", rows[i].step_ns[0], "step_64_ns",
                                                    rows[i].step_ns[1]));
        if (result == CLI_OK && !json)
            (void)printf("%8s %14.1f %14.1f %14.1f\n", rows[i].backend, rows[i].block_ns,
                         rows[i].step_ns[0], rows[i].step_ns[1]);
    }
    if (result != CLI_OK || !json) {
        json_decref(list);
        return result;
    }
    return files_print_json(json_pack("{s:o}", "rows", list));
}
