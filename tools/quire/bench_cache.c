/* bench_cache.c - quire bench cache: what the cache's own work costs, without any kernel.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include <quire/quire.h>

#include "base/base.h"
#include "quire/args.h"
#include "quire/bench_stats.h"
#include "quire/cache_work.h"
#include "quire/commands.h"
#include "quire/console.h"
#include "quire/files.h"
#include "quire/trace.h"

enum { RUNS_MAX = 101, MILLION = 1000000 };

/* Keys of the JSON object, what they mean, and how much they may be. */
enum row { ALLOC_FREE, STEP1, STEP64, FORK, MATCH, MATCH_COLD, FANOUT_ONE, FANOUT, EVICT, ROWS };

static const struct {
    const char *key, *text, *unit;
    double scale; /* of nanoseconds */
} rows[ROWS] = {
    [ALLOC_FREE] = {"alloc_free_ns", "take and release a block", "ns", 1},
    [STEP1] = {"step1_us", "begin + commit, 1 sequence", "us", 1e-3},
    [STEP64] = {"step64_us", "begin + commit, 64 sequences", "us", 1e-3},
    [FORK] = {"fork_100k_us", "fork of 100,000 tokens", "us", 1e-3},
    [MATCH] = {"match_100k_ms", "match of 100,000 cached tokens", "ms", 1e-6},
    [MATCH_COLD] = {"match_100k_of_1m_ms", "the same, cold, of a million blocks", "ms", 1e-6},
    [FANOUT_ONE] = {"match_one_us", "match behind a parent of one", "us", 1e-3},
    [FANOUT] = {"match_fanout_us", "what 100,000 children add to it", "us", 1e-3},
    [EVICT] = {"evict_1m_s", "a million evictions", "s", 1e-3}, /* a million times 1e-9 */
};

struct figures {
    double ns[ROWS][RUNS_MAX];
    double median[ROWS]; /* in each row's unit */
    uint64_t meta_bytes;
    double waste_pct; /* positions without a token, of prompts of 1,000 to 4,000 */
};

/* ---- the pools ---- */

/* Blocks and steps of an 8B model's geometry, so that the plan is one of eight K/V heads. */
static quire_status run_steps(const char *backend, uint32_t run, struct figures *f,
                              struct quire_error *error)
{
    const struct cache_work_config config = {backend, 16384, 65, 16384, 16384, true};
    struct cache_work work;
    quire_status status = cache_work_open(&work, &config, error);
    if (status == QUIRE_OK)
        status = cache_work_blocks(&work, &f->ns[ALLOC_FREE][run]);
    if (status == QUIRE_OK)
        status = cache_work_step(&work, 1, &f->ns[STEP1][run]);
    if (status == QUIRE_OK)
        status = cache_work_step(&work, 64, &f->ns[STEP64][run]);
    cache_work_close(&work);
    return status;
}

static quire_status run_long(const char *backend, uint32_t run, struct figures *f,
                             struct quire_error *error)
{
    const struct cache_work_config config = {backend, 210000, 4, CACHE_WORK_LONG + 16, 4096, false};
    struct cache_work work;
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    quire_status status = cache_work_open(&work, &config, error);
    if (status == QUIRE_OK)
        status = quire_pool_stats(work.pool, &stats);
    f->meta_bytes = stats.block_meta_bytes;
    if (status == QUIRE_OK)
        status = cache_work_fork(&work, &f->ns[FORK][run]);
    if (status == QUIRE_OK)
        status = cache_work_fill(&work, 1, CACHE_WORK_LONG / CACHE_WORK_P, 1);
    if (status == QUIRE_OK)
        status = cache_work_match(&work, false, &f->ns[MATCH][run]);
    if (status == QUIRE_OK) /* again: the first look has warmed the caches */
        status = cache_work_match(&work, false, &f->ns[MATCH][run]);
    if (status == QUIRE_OK)
        status = quire_pool_reset(work.pool);
    if (status == QUIRE_OK)
        status = cache_work_fanout(&work, 1, &f->ns[FANOUT_ONE][run]);
    if (status == QUIRE_OK)
        status = cache_work_fanout(&work, 100000, &f->ns[FANOUT][run]);
    f->ns[FANOUT][run] -= f->ns[FANOUT_ONE][run];
    cache_work_close(&work);
    return status;
}

/* A million cached blocks: the long chain, and others of 16 blocks, a conversation of 256 tokens
 * each; then a million evictions. */
static quire_status run_million(const char *backend, uint32_t run, struct figures *f,
                                struct quire_error *error)
{
    enum { LONG_BLOCKS = CACHE_WORK_LONG / CACHE_WORK_P, CHAIN = 16 };
    const uint32_t chains = (MILLION - LONG_BLOCKS) / CHAIN + 1;
    const struct cache_work_config config = {
        backend, LONG_BLOCKS + chains * CHAIN, 256, CACHE_WORK_LONG + 16, 65536, false};
    struct cache_work work;
    quire_status status = cache_work_open(&work, &config, error);
    if (status == QUIRE_OK)
        status = cache_work_fill(&work, chains / 2, CHAIN, 2);
    if (status == QUIRE_OK)
        status = cache_work_fill(&work, 1, LONG_BLOCKS, 1);
    if (status == QUIRE_OK)
        status = cache_work_fill(&work, chains - chains / 2, CHAIN, 2 + chains / 2);
    if (status == QUIRE_OK)
        status = cache_work_match(&work, true, &f->ns[MATCH_COLD][run]);
    if (status == QUIRE_OK)
        status = cache_work_evict(&work, MILLION, &f->ns[EVICT][run]);
    cache_work_close(&work);
    return status;
}

static quire_status measure(const char *backend, uint32_t runs, struct figures *f,
                            struct quire_error *error)
{
    quire_status status = QUIRE_OK;
    for (uint32_t run = 0; run < runs && status == QUIRE_OK; run++) {
        struct cli_progress progress;
        cli_progress_begin(&progress, "measuring");
        cli_progress_update(&progress, run, runs);
        error->message[0] = '\0';
        status = run_steps(backend, run, f, error);
        if (status == QUIRE_OK)
            status = run_long(backend, run, f, error);
        if (status == QUIRE_OK)
            status = run_million(backend, run, f, error);
        cli_progress_end(&progress);
    }
    if (status == QUIRE_OK)
        status = trace_measure_waste(CACHE_WORK_P, &f->waste_pct, error);
    if (status != QUIRE_OK && error->message[0] == '\0')
        (void)quire__fail(error, status, "the work of the bench failed: %s",
                          quire_status_text(status));
    for (uint32_t row = 0; row < ROWS && status == QUIRE_OK; row++)
        f->median[row] = stats_median(f->ns[row], runs) * rows[row].scale;
    return status;
}

/* ---- the command ---- */

static int print(const char *backend, uint32_t runs, const struct figures *f, bool json)
{
    if (json) {
        json_t *root =
            json_pack("{s:s, s:i, s:I, s:f}", "backend", backend, "runs", (int)runs,
                      "meta_bytes_per_block", (json_int_t)f->meta_bytes, "waste_pct", f->waste_pct);
        for (uint32_t row = 0; row < ROWS; row++)
            (void)json_object_set_new(root, rows[row].key, json_real(f->median[row]));
        return files_print_json(root);
    }
    (void)printf("%-38s %12s\n", "blocks of 16, backend", backend);
    for (uint32_t row = 0; row < ROWS; row++)
        (void)printf("%-38s %9.3f %s\n", rows[row].text, f->median[row], rows[row].unit);
    (void)printf("%-38s %9llu bytes\n", "metadata of a block, tokens apart",
                 (unsigned long long)f->meta_bytes);
    (void)printf("%-38s %9.3f %%\n", "waste, prompts of 1,000 tokens and up", f->waste_pct);
    return CLI_OK;
}

int command_bench_cache(int argc, char **argv)
{
    bool json = false;
    uint32_t runs = 5;
    const char *backend = "cpu";
    const struct cli_arg args[] = {
        {"--backend", CLI_TEXT, &backend, 0, 0, "NAME", "cpu or none (cpu)"},
        {"--runs", CLI_U32, &runs, 1, RUNS_MAX, "N", "runs behind each median (5)"},
        {"--json", CLI_FLAG, &json, 0, 0, NULL, "print one JSON object"},
    };
    const struct cli_command command = {
        .name = "bench cache",
        .synopsis = "[--backend NAME] [--runs N] [--json]",
        .about = "Prints what the cache's own work costs, at 16 positions a block, with tokens, "
                 "plans and uploads:\nblocks, steps, forks, matches, evictions; medians.",
        .example = "quire bench cache --json",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    struct quire_error error = {0};
    struct figures *figures = quire__calloc(1, sizeof *figures);
    if (figures == NULL) {
        cli_error("no memory for the figures");
        return CLI_BAD_DATA;
    }
    quire_status status = measure(backend, runs, figures, &error);
    int result = status == QUIRE_OK ? print(backend, runs, figures, json) : cli_fail(&error);
    quire__free(figures);
    return result;
}
