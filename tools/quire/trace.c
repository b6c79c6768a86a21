/* trace.c - quire trace replay: what a cache of a given size makes of recorded requests.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/trace.h"

#include <stdio.h>
#include <string.h>

#include "quire/args.h"
#include "quire/commands.h"
#include "quire/console.h"
#include "quire/files.h"

struct replay_options {
    const char *path;
    const char *eviction;
    uint64_t memory, bytes_per_token; /* 0: not given */
    double step_ms;
    bool json;
    struct trace_replay_config config;
};

static double percent(uint64_t part, uint64_t whole)
{
    return whole > 0 ? 100.0 * (double)part / (double)whole : 0;
}

static int print_json(const struct replay_options *options, const struct trace_figures *f)
{
    json_t *root = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "file", options->path, "eviction",
        options->eviction, "block_size", (json_int_t)options->config.block_size, "blocks",
        (json_int_t)f->num_blocks, "requests", (json_int_t)f->requests, "served",
        (json_int_t)f->served, "waited", (json_int_t)f->waited, "refused", (json_int_t)f->refused,
        "preempted", (json_int_t)f->preempted);
    json_t *tokens = json_pack(
        "{s:I, s:I, s:I, s:f, s:f, s:I, s:I}", "prompt_tokens", (json_int_t)f->prompt_tokens,
        "hit_tokens", (json_int_t)f->hit_tokens, "hit_requests", (json_int_t)f->hit_requests,
        "hit_tokens_pct", percent(f->hit_tokens, f->prompt_tokens), "hit_requests_pct",
        percent(f->hit_requests, f->served), "output_tokens", (json_int_t)f->output_tokens,
        "computed_tokens", (json_int_t)f->computed_tokens);
    json_t *rest = json_pack(
        "{s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "waste_pct_max",
        f->waste_pct_max, "waste_pct_mean", f->waste_pct_mean, "evictions",
        (json_int_t)f->evictions, "copies", (json_int_t)f->copies, "merges", (json_int_t)f->merges,
        "peak_held_blocks", (json_int_t)f->peak_held, "peak_blocks", (json_int_t)f->peak_blocks,
        "steps", (json_int_t)f->steps, "end_s", (double)f->end_us / 1e6, "wait_s_max",
        (double)f->wait_us_max / 1e6, "wait_s_mean", f->wait_us_mean / 1e6);
    bool whole = root != NULL && tokens != NULL && rest != NULL &&
                 json_object_update(root, tokens) == 0 && json_object_update(root, rest) == 0;
    json_decref(tokens);
    json_decref(rest);
    if (!whole) {
        json_decref(root);
        root = NULL;
    }
    return files_print_json(root);
}

static int print_text(const struct replay_options *options, const struct trace_figures *f)
{
    typedef unsigned long long number;
    (void)printf("pool       %u blocks of %u, eviction %s%s\n", f->num_blocks,
                 options->config.block_size, options->eviction,
                 options->config.num_blocks == 0 ? "; as large as all requests together" : "");
    (void)printf("requests   %u: %u served, %u of them waited, %u refused; %u times one gave way\n",
                 f->requests, f->served, f->waited, f->refused, f->preempted);
    (void)printf("wait       mean %.3f s, longest %.3f s\n", f->wait_us_mean / 1e6,
                 (double)f->wait_us_max / 1e6);
    (void)printf("hits       %u requests (%.1f %%), %llu of %llu prompt tokens (%.1f %%)\n",
                 f->hit_requests, percent(f->hit_requests, f->served), (number)f->hit_tokens,
                 (number)f->prompt_tokens, percent(f->hit_tokens, f->prompt_tokens));
    (void)printf("computed   %llu tokens, %llu generated, in %llu steps and %.3f s\n",
                 (number)f->computed_tokens, (number)f->output_tokens, (number)f->steps,
                 (double)f->end_us / 1e6);
    (void)printf("waste      %.2f %% at the worst moment, mean %.2f %%\n", f->waste_pct_max,
                 f->waste_pct_mean);
    (void)printf("blocks     at most %llu held, %llu with cached ones\n", (number)f->peak_held,
                 (number)f->peak_blocks);
    (void)printf("changes    %llu evicted, %llu copied, %llu merged\n", (number)f->evictions,
                 (number)f->copies, (number)f->merges);
    return CLI_OK;
}

/* Turns what the user said into the config. */
static int settle(struct replay_options *options)
{
    struct trace_replay_config *config = &options->config;
    config->step_us = (uint32_t)(options->step_ms * 1000);
    if (options->path == NULL) {
        cli_error("trace replay: no file is given: name a trace, as examples/traces/chats.trace");
        return CLI_BAD_USAGE;
    }
    if (strcmp(options->eviction, "cost") == 0) {
        config->eviction = QUIRE_EVICT_COST;
    } else if (strcmp(options->eviction, "lru") != 0) {
        cli_error("trace replay: --eviction is \"%s\", expected lru or cost", options->eviction);
        return CLI_BAD_USAGE;
    }
    if (config->max_seqs > config->step_tokens) {
        cli_error("trace replay: --seqs %u needs --step-tokens of at least that", config->max_seqs);
        return CLI_BAD_USAGE;
    }
    if ((options->memory != 0) != (options->bytes_per_token != 0) ||
        (options->memory != 0 && config->num_blocks != 0)) {
        cli_error("trace replay: expected --blocks, or --memory with --bytes-per-token (which "
                  "quire info prints), or none of them");
        return CLI_BAD_USAGE;
    }
    if (options->memory == 0)
        return CLI_OK;
    uint64_t block_bytes = 0;
    uint64_t blocks = quire__mul_u64(options->bytes_per_token, config->block_size, &block_bytes)
                          ? options->memory / block_bytes
                          : 0;
    if (blocks == 0 || blocks >= QUIRE_BLOCK_NONE) {
        cli_error("trace replay: --memory %llu holds %llu blocks of %u tokens, expected 1 to "
                  "2^32 - 2",
                  (unsigned long long)options->memory, (unsigned long long)blocks,
                  config->block_size);
        return CLI_BAD_USAGE;
    }
    config->num_blocks = (uint32_t)blocks;
    return CLI_OK;
}

static int run_replay(const struct replay_options *options)
{
    struct quire__bytes text = {0};
    struct quire_error error;
    struct trace trace = {0};
    struct trace_figures figures = {0};
    const char *name = strcmp(options->path, "-") == 0 ? "standard input" : options->path;
    int result = files_read(options->path, &text);
    if (result == CLI_OK && (trace_parse(name, text.data, text.count, &trace, &error) != QUIRE_OK ||
                             trace_replay(&trace, &options->config, &figures, &error) != QUIRE_OK))
        result = cli_fail(&error);
    if (result == CLI_OK)
        result = options->json ? print_json(options, &figures) : print_text(options, &figures);
    if (result == CLI_OK && figures.requests > 0 && figures.refused == figures.requests) {
        cli_error("trace replay: the pool of %u blocks is too small for any of the %u requests: "
                  "the largest needs %llu blocks",
                  figures.num_blocks, figures.requests, (unsigned long long)figures.largest_blocks);
        result = CLI_BAD_DATA;
    }
    trace_deinit(&trace);
    quire__bytes_deinit(&text);
    return result;
}

static int command_trace_replay(int argc, char **argv)
{
    struct replay_options options = {
        .eviction = "lru", .step_ms = 25, .config = TRACE_REPLAY_DEFAULT};
    struct trace_replay_config *config = &options.config;
    const struct cli_arg args[] = {
        {"--block-size", CLI_U32, &config->block_size, 1, QUIRE_MAX_BLOCK_SIZE, "P",
         "positions per block (16)"},
        {"--blocks", CLI_U32, &config->num_blocks, 1, QUIRE_BLOCK_NONE - 1, "N",
         "blocks of the pool (all that is asked for)"},
        {"--memory", CLI_SIZE, &options.memory, 0, 0, "SIZE", "bytes of the pool instead"},
        {"--bytes-per-token", CLI_SIZE, &options.bytes_per_token, 0, 0, "SIZE",
         "of K and V, as quire info prints them"},
        {"--eviction", CLI_TEXT, (void *)&options.eviction, 0, 0, "POLICY", "lru or cost (lru)"},
        {"--seqs", CLI_U32, &config->max_seqs, 1, QUIRE_MAX_SEQS, "N",
         "requests that run at once (16)"},
        {"--step-tokens", CLI_U32, &config->step_tokens, 1, 1u << 20, "N",
         "tokens of one step (512)"},
        {"--step-ms", CLI_REAL, &options.step_ms, 0.001, 60000, "MS", "time of one step (25)"},
        {"--json", CLI_FLAG, &options.json, 0, 0, NULL, "print one JSON object"},
    };
    const struct cli_command command = {
        .name = "trace replay",
        .synopsis = "FILE [options]",
        .about = "Plays a recorded list of requests against a pool without a model, and prints "
                 "hits, waste,\nevictions, and the blocks that were needed. Time is virtual. The "
                 "format is in docs/formats/trace.md.",
        .example = "quire trace replay examples/traces/chats.trace --blocks 2000 --eviction cost",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
        .positional = "FILE",
        .positional_value = &options.path,
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    int result = settle(&options);
    return result == CLI_OK ? run_replay(&options) : result;
}

int command_trace(int argc, char **argv)
{
    const char *which = argc > 0 ? argv[0] : "";
    if (strcmp(which, "replay") == 0)
        return command_trace_replay(argc - 1, argv + 1);
    if (strcmp(which, "--help") == 0 || strcmp(which, "-h") == 0) {
        (void)printf("usage: quire trace replay FILE [options]\n\n"
                     "  replay  plays recorded requests against a pool without a model\n\n"
                     "quire trace replay --help says more.\n\n"
                     "options:\n  --help  print this\n\n"
                     "example:\n  quire trace replay examples/traces/chats.trace --blocks 2000\n");
        return CLI_OK;
    }
    cli_error("trace: expected replay%s%s; quire trace --help says more", argc > 0 ? ", not " : "",
              which);
    return CLI_BAD_USAGE;
}
