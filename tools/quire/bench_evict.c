/* bench_evict.c - quire bench evict: hit rates of the policies of eviction, and of one that knows.
 * SPDX-License-Identifier: Apache-2.0
 *
 * lru and cost are measured in a real pool. gdsf and the oracle are simulated, as is lru a second
 * time: the simulation must hit exactly as often as the pool, or the bench fails. */
#include <stdio.h>

#include <quire/quire.h>

#include "quire/args.h"
#include "quire/commands.h"
#include "quire/console.h"
#include "quire/files.h"
#include "quire/workload.h"

enum { BLOCK_SIZE = 16, REQUESTS_MAX = 100000 };

static const double cache_pcts[] = {1, 2, 5, 10, 15, 20, 25, 50};

struct row {
    const char *workload;
    uint32_t blocks;  /* of the cache */
    double share_pct; /* of the distinct blocks */
    double lru_pct, cost_pct, gdsf_pct, oracle_pct;
};

/* ---- simulated policies ---- */

static double lru(const struct sim_facts *facts)
{
    return facts->now;
}

/* Cherkasova, HPL-98-69R1, section 3: blocks have one size and one cost. */
static double gdsf(const struct sim_facts *facts)
{
    return facts->floor + facts->hits;
}

/* Belady 1966: what is needed last goes first. Its parent is needed no later, so leaves first. */
static double oracle(const struct sim_facts *facts)
{
    return -(double)facts->next_use;
}

static double hit_pct(uint64_t hit, uint64_t asked)
{
    return asked > 0 ? 100.0 * (double)hit / (double)asked : 0;
}

static quire_status simulate(const struct sim_workload *workload, uint32_t blocks,
                             sim_priority priority, double *pct)
{
    struct sim_result result;
    quire_status status = sim_run(workload, blocks, priority, &result);
    *pct = hit_pct(result.blocks_hit, result.blocks_asked);
    return status;
}

/* ---- the pool ---- */

static quire_status make_pool(struct quire_backend *backend, const struct sim_workload *workload,
                              struct row *row, uint32_t eviction, struct quire_pool **pool)
{
    const uint32_t layer = 0;
    const struct quire_group_config group = {
        .layers = &layer, .num_layers = 1, .num_heads = 1, .num_kv_heads = 1, .head_dim = 1};
    struct quire_pool_config config;
    quire_pool_config_init(&config);
    config.backend = backend;
    config.groups = &group;
    config.num_groups = 1;
    config.layout = QUIRE_LAYOUT_PAGED;
    config.block_size = BLOCK_SIZE;
    config.num_blocks = row->blocks;
    config.max_seqs = 1;
    config.max_seq_len = workload->longest * BLOCK_SIZE;
    config.max_step_tokens = config.max_seq_len;
    config.max_open_steps = 1;
    config.eviction = eviction;
    return quire_pool_create(&config, pool, NULL);
}

/* The tokens of a path: every block repeats the number of its node. */
static uint32_t write_path(const struct sim_workload *workload, uint32_t leaf, uint32_t *tokens)
{
    const struct sim_node *nodes = workload->nodes;
    for (uint32_t node = leaf; node != 0; node = nodes[node].parent)
        for (uint32_t i = 0; i < BLOCK_SIZE; i++)
            tokens[(nodes[node].depth - 1) * BLOCK_SIZE + i] = node;
    return nodes[leaf].depth * BLOCK_SIZE;
}

static quire_status serve(struct quire_pool *pool, const struct sim_workload *workload,
                          const struct sim_request *request, uint32_t *tokens)
{
    struct quire_seq_config config;
    uint32_t count = write_path(workload, request->leaf, tokens), len = 0;
    quire_seq seq;
    quire_step step;
    quire_seq_config_init(&config);
    config.tokens = tokens;
    config.num_tokens = request->prompt_blocks * BLOCK_SIZE;
    quire_status status = quire_seq_create(pool, &config, &seq);
    if (status == QUIRE_OK)
        status = quire_seq_length(pool, seq, &len);
    const struct quire_step_item item = {seq, count - len, tokens + len};
    if (status == QUIRE_OK)
        status = quire_step_begin(pool, &item, 1, &step, NULL);
    if (status == QUIRE_OK)
        status = quire_step_commit(pool, step, NULL);
    return status == QUIRE_OK ? quire_seq_destroy(pool, seq) : status;
}

static quire_status measure(const struct sim_workload *workload, struct row *row, uint32_t eviction,
                            double *pct)
{
    struct quire_backend *backend = NULL;
    struct quire_pool *pool = NULL;
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    uint32_t *tokens = quire__calloc((uint64_t)workload->longest * BLOCK_SIZE, sizeof *tokens);
    quire_status status = tokens != NULL ? QUIRE_OK : QUIRE_E_NOMEM;
    if (status == QUIRE_OK)
        status = quire_backend_create("none", NULL, &backend, NULL);
    if (status == QUIRE_OK)
        status = make_pool(backend, workload, row, eviction, &pool);
    for (uint32_t i = 0; i < workload->num_requests && status == QUIRE_OK; i++)
        status = serve(pool, workload, &workload->requests[i], tokens);
    if (status == QUIRE_OK)
        status = quire_pool_stats(pool, &stats);
    *pct = hit_pct(stats.hit_tokens, stats.lookup_tokens);
    quire_pool_destroy(pool);
    quire_backend_destroy(backend);
    quire__free(tokens);
    return status;
}

/* ---- rows ---- */

static int run_row(const struct sim_workload *workload, struct row *row)
{
    double simulated_pct = 0;
    quire_status status = measure(workload, row, QUIRE_EVICT_LRU, &row->lru_pct);
    if (status == QUIRE_OK)
        status = measure(workload, row, QUIRE_EVICT_COST, &row->cost_pct);
    if (status == QUIRE_OK)
        status = simulate(workload, row->blocks, lru, &simulated_pct);
    if (status == QUIRE_OK)
        status = simulate(workload, row->blocks, gdsf, &row->gdsf_pct);
    if (status == QUIRE_OK)
        status = simulate(workload, row->blocks, oracle, &row->oracle_pct);
    if (status != QUIRE_OK) {
        cli_error("bench evict: %s in a cache of %u blocks failed: %s", row->workload, row->blocks,
                  quire_status_text(status));
        return CLI_BAD_DATA;
    }
    if (simulated_pct != row->lru_pct) {
        cli_error("bench evict: %s in a cache of %u blocks: the pool hit %.6f %%, its simulation "
                  "%.6f %%",
                  row->workload, row->blocks, row->lru_pct, simulated_pct);
        return CLI_BAD_DATA;
    }
    return CLI_OK;
}

static void tell(const struct row *row, json_t *list)
{
    if (list == NULL)
        (void)printf("%10s %7.1f %% %9u %8.2f %8.2f %8.2f %8.2f\n", row->workload, row->share_pct,
                     row->blocks, row->lru_pct, row->cost_pct, row->gdsf_pct, row->oracle_pct);
    else
        (void)json_array_append_new(
            list, json_pack("{s:s, s:f, s:I, s:f, s:f, s:f, s:f}", "workload", row->workload,
                            "share_pct", row->share_pct, "blocks", (json_int_t)row->blocks,
                            "lru_pct", row->lru_pct, "cost_pct", row->cost_pct, "gdsf_pct",
                            row->gdsf_pct, "oracle_pct", row->oracle_pct));
}

static int run_workload(enum workload_kind kind, uint32_t requests, uint64_t seed, json_t *list)
{
    struct sim_workload workload;
    if (workload_create(kind, requests, seed, &workload) != QUIRE_OK) {
        cli_error("bench evict: no memory for the workload");
        return CLI_BAD_DATA;
    }
    int result = CLI_OK;
    const uint32_t distinct = workload.num_nodes - 1;
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(cache_pcts) && result == CLI_OK; i++) {
        uint32_t blocks = (uint32_t)(distinct * cache_pcts[i] / 100);
        struct row row = {.workload = workload_name(kind),
                          .blocks = blocks > workload.longest ? blocks : workload.longest};
        row.share_pct = 100.0 * row.blocks / distinct;
        result = run_row(&workload, &row);
        if (result == CLI_OK)
            tell(&row, list);
    }
    workload_deinit(&workload);
    return result;
}

int command_bench_evict(int argc, char **argv)
{
    bool json = false;
    uint32_t requests = 4000;
    uint64_t seed = 1;
    const struct cli_arg args[] = {
        {"--requests", CLI_U32, &requests, 1, REQUESTS_MAX, "N", "of each workload (4000)"},
        {"--seed", CLI_U64, &seed, 0, 0, "S", "of the workloads (1)"},
        {"--json", CLI_FLAG, &json, 0, 0, NULL, "print one JSON object"},
    };
    const struct cli_command command = {
        .name = "bench evict",
        .synopsis = "[--requests N] [--seed S] [--json]",
        .about = "Prints what part of the prompts is found in the cache, in percent, for caches of "
                 "several shares\nof all blocks: with both policies of a pool, with "
                 "GreedyDual-Size-Frequency, and with an oracle\nthat knows the future; for chats, "
                 "agents, documents, and all of them at once.",
        .example = "quire bench evict --json",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    json_t *list = json ? json_array() : NULL;
    int result = CLI_OK;
    if (!json)
        (void)printf("%10s %9s %9s %8s %8s %8s %8s\n", "workload", "cache", "blocks", "lru", "cost",
                     "gdsf", "oracle");
    for (uint32_t kind = 0; kind < NUM_WORKLOADS && result == CLI_OK; kind++)
        result = run_workload((enum workload_kind)kind, requests, seed, list);
    if (result == CLI_OK && json)
        return files_print_json(json_pack("{s:o}", "rows", list));
    json_decref(list);
    return result;
}
