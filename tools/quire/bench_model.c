/* bench_model.c - quire bench model: tokens per second of prompts and of generation.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For each depth, that many tokens are in every sequence before the clock starts; they are computed
 * once, and each run goes back to them by truncating. Tokens are random, as the speed of a dense
 * model does not depend on them. */
#include <stdio.h>
#include <string.h>

#include "quire/bench_stats.h"
#include "quire/commands.h"
#include "quire/console.h"
#include "quire/engine.h"
#include "quire/files.h"

struct options {
    struct engine_options engine;
    struct cli_list depths, batches;
    uint32_t prompt, generate, runs;
    bool shared, json;
};

enum { RUNS_MAX = 101, BATCH_MAX = 256 };

struct row {
    uint32_t depth, batch;
    double prompt_tok_s, gen_tok_s;
};

/* One measurement under way: `batch` sequences that hold `depth` tokens between runs. */
struct bench {
    struct engine *engine;
    const struct options *options;
    uint32_t depth, batch;
    uint32_t *tokens; /* [depth + prompt + generate] of every sequence */
    quire_seq seqs[BATCH_MAX];
    struct quire_error error;
};

static quire_status ignore_logits(void *context, const struct quire__logits *logits)
{
    (void)context;
    (void)logits;
    return QUIRE_OK;
}

/* ---- what is measured ---- */

static quire_status feed(struct bench *bench, quire_seq seq, uint32_t first, uint32_t count,
                         const char *label)
{
    const struct engine_feed tokens = {.seq = seq,
                                       .tokens = bench->tokens + first,
                                       .count = count,
                                       .want = QUIRE__WANT_LAST,
                                       .logits = ignore_logits,
                                       .label = label};
    return engine_feed_tokens(bench->engine, &tokens, &bench->error);
}

/* Appends the prompt to every sequence, one after the other. */
static quire_status feed_prompts(struct bench *bench)
{
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < bench->batch && status == QUIRE_OK; i++)
        status = feed(bench, bench->seqs[i], bench->depth, bench->options->prompt, NULL);
    return status;
}

/* Appends tokens one by one, to all sequences together, and fetches the logits of each. */
static quire_status decode(struct bench *bench, uint32_t first, uint32_t count)
{
    struct quire__batch_item items[BATCH_MAX];
    quire_status status = QUIRE_OK;
    for (uint32_t t = first; t < first + count && status == QUIRE_OK; t++) {
        for (uint32_t i = 0; i < bench->batch; i++)
            items[i] = (struct quire__batch_item){.seq = bench->seqs[i],
                                                  .tokens = &bench->tokens[t],
                                                  .count = 1,
                                                  .want = QUIRE__WANT_LAST};
        struct quire__batch batch = {
            .items = items, .num_items = bench->batch, .logits = ignore_logits};
        status = quire__runner_step(bench->engine->runner, &batch, &bench->error);
    }
    return status;
}

static quire_status go_back(struct bench *bench)
{
    for (uint32_t i = 0; i < bench->batch; i++) {
        quire_status status =
            quire_seq_truncate(bench->engine->pool, bench->seqs[i], bench->depth, NULL);
        if (status != QUIRE_OK)
            return quire__fail(&bench->error, status, "cannot truncate a sequence");
    }
    return QUIRE_OK;
}

static double rate(uint64_t tokens, uint64_t ns)
{
    return (double)tokens * 1e9 / (double)(ns != 0 ? ns : 1);
}

static quire_status measure(struct bench *bench, struct row *row)
{
    const struct options *options = bench->options;
    double prompt[RUNS_MAX] = {0}, generate[RUNS_MAX] = {0};
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < options->runs && status == QUIRE_OK; i++) {
        uint64_t started_ns = quire__now_ns();
        status = feed_prompts(bench);
        prompt[i] = rate((uint64_t)options->prompt * bench->batch, quire__now_ns() - started_ns);
        if (status == QUIRE_OK)
            status = go_back(bench);
        started_ns = quire__now_ns();
        if (status == QUIRE_OK)
            status = decode(bench, bench->depth, options->generate);
        generate[i] =
            rate((uint64_t)options->generate * bench->batch, quire__now_ns() - started_ns);
        if (status == QUIRE_OK)
            status = go_back(bench);
    }
    row->prompt_tok_s = stats_median(prompt, options->runs);
    row->gen_tok_s = stats_median(generate, options->runs);
    return status;
}

/* ---- one row ---- */

/* A sequence with the first `depth` tokens, which are computed for it alone. */
static quire_status open_sequence(struct bench *bench, uint32_t i)
{
    struct quire_seq_config config;
    quire_seq_config_init(&config);
    config.salt = i + 1; /* they have equal tokens, and are to share nothing */
    quire_status status = quire_seq_create(bench->engine->pool, &config, &bench->seqs[i]);
    if (status != QUIRE_OK)
        return quire__fail(&bench->error, status, "cannot start a sequence");
    return feed(bench, bench->seqs[i], 0, bench->depth, "filling the cache");
}

static quire_status open_sequences(struct bench *bench)
{
    quire_status status = open_sequence(bench, 0);
    for (uint32_t i = 1; i < bench->batch && status == QUIRE_OK; i++) {
        if (!bench->options->shared) {
            status = open_sequence(bench, i);
            continue;
        }
        status = quire_seq_fork(bench->engine->pool, bench->seqs[0], bench->depth, &bench->seqs[i],
                                NULL);
        if (status != QUIRE_OK)
            return quire__fail(&bench->error, status, "cannot fork a sequence");
    }
    return status;
}

/* Ids of the vocabulary from a linear congruential generator (Knuth, TAOCP vol. 2, 3.3.4). */
static void fill_tokens(uint32_t *tokens, uint64_t count, uint32_t vocabulary)
{
    uint64_t state = 1;
    for (uint64_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        tokens[i] = (uint32_t)((state >> 33) % vocabulary);
    }
}

static uint32_t longest_run(const struct options *options)
{
    return options->prompt > options->generate ? options->prompt : options->generate;
}

static int check_depths(const struct engine *engine, const struct options *options)
{
    const uint32_t context = quire__model_shapes(engine->model)->context_length;
    for (uint32_t i = 0; i < options->depths.count; i++) {
        uint32_t depth = options->depths.values[i];
        if ((uint64_t)depth + longest_run(options) > context) {
            cli_error("--depth %u with %u more tokens passes the model's context of %u: ask for "
                      "less",
                      depth, longest_run(options), context);
            return CLI_BAD_DATA;
        }
    }
    return CLI_OK;
}

static int run_row(struct engine *engine, const struct options *options, struct row *row)
{
    struct bench bench = {
        .engine = engine, .options = options, .depth = row->depth, .batch = row->batch};
    const uint64_t positions = (uint64_t)row->depth + longest_run(options);
    const struct quire__shapes *shapes = quire__model_shapes(engine->model);
    engine->context = (uint32_t)positions;
    bench.tokens = quire__calloc(positions, sizeof *bench.tokens);
    if (bench.tokens == NULL) {
        cli_error("no memory for %llu tokens", (unsigned long long)positions);
        return CLI_BAD_DATA;
    }
    fill_tokens(bench.tokens, positions, shapes->vocabulary);
    /* A block more for each: going back into one that can be found again copies it. */
    const uint32_t p = engine->options->block_size;
    const struct engine_room room = {.num_seqs = row->batch,
                                     .positions = (quire__round_up(positions, p) + p) * row->batch};
    int result = engine_open_shared_pool(engine, &room);
    if (result == CLI_OK &&
        (open_sequences(&bench) != QUIRE_OK || measure(&bench, row) != QUIRE_OK))
        result = cli_fail(&bench.error);
    engine_close_pool(engine);
    quire__free(bench.tokens);
    return result;
}

/* ---- all rows ---- */

static json_t *json_row(const struct row *row)
{
    return json_pack("{s:i, s:i, s:f, s:f}", "depth", (int)row->depth, "batch", (int)row->batch,
                     "prompt_tok_s", row->prompt_tok_s, "gen_tok_s", row->gen_tok_s);
}

static int look_at_machine(const struct engine_options *options, struct quire_cpu_choice *choice)
{
    struct quire_backend_config config;
    struct quire_error error;
    quire_backend_config_init(&config);
    config.num_threads = options->threads;
    *choice = (struct quire_cpu_choice){.struct_size = sizeof *choice};
    return quire_cpu_choose(&config, choice, &error) == QUIRE_OK ? CLI_OK : cli_fail(&error);
}

static void say_machine(const struct engine_options *options, const struct quire_cpu_choice *choice)
{
    info_cpu_line(choice);
    (void)printf("; K in %s, V in %s\n%8s %6s %14s %14s\n", quire_dtype_name(options->dtypes[0]),
                 quire_dtype_name(options->dtypes[1]), "depth", "batch", "prompt tok/s",
                 "gen tok/s");
}

static json_t *json_whole(const struct options *options, const struct quire_cpu_choice *choice,
                          json_t *rows)
{
    const struct engine_options *engine = &options->engine;
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:b, s:b, s:i, s:i, s:i, s:o}",
                     "bench", "model", "processor", choice->processor, "level", choice->level.name,
                     "products", quire_dtype_name(choice->level.products), "threads",
                     (int)choice->num_threads, "dtype_k", quire_dtype_name(engine->dtypes[0]),
                     "dtype_v", quire_dtype_name(engine->dtypes[1]), "model", engine->model,
                     "shared", options->shared, "cascade", !engine->no_cascade, "prompt",
                     (int)options->prompt, "generate", (int)options->generate, "runs",
                     (int)options->runs, "rows", rows);
}

static int run(struct engine *engine, const struct options *options)
{
    struct quire_cpu_choice choice;
    int result = engine_open_file(engine, &options->engine, false);
    if (result == CLI_OK)
        result = engine_open_model(engine);
    if (result == CLI_OK)
        result = check_depths(engine, options);
    if (result == CLI_OK)
        result = look_at_machine(&options->engine, &choice);
    if (result != CLI_OK)
        return result;
    if (!options->json)
        say_machine(&options->engine, &choice);
    json_t *rows = json_array();
    for (uint32_t d = 0; d < options->depths.count && result == CLI_OK; d++) {
        for (uint32_t b = 0; b < options->batches.count && result == CLI_OK; b++) {
            struct row row = {.depth = options->depths.values[d],
                              .batch = options->batches.values[b]};
            result = run_row(engine, options, &row);
            if (result != CLI_OK)
                break;
            (void)json_array_append_new(rows, json_row(&row));
            char line[96];
            int length = snprintf(line, sizeof line, "%8u %6u %14.1f %14.1f\n", row.depth,
                                  row.batch, row.prompt_tok_s, row.gen_tok_s);
            if (!options->json && !cli_write(line, (uint64_t)length))
                result = CLI_BAD_DATA;
        }
    }
    if (result != CLI_OK || !options->json) {
        json_decref(rows);
        return result;
    }
    return files_print_json(json_whole(options, &choice, rows));
}

int command_bench_model(int argc, char **argv)
{
    struct options options = {.engine = ENGINE_OPTIONS_DEFAULT,
                              .depths = {.count = 2, .values = {0, 4096}},
                              .batches = {.count = 1, .values = {1}},
                              .prompt = 512,
                              .generate = 128,
                              .runs = 3};
    struct cli_arg shared[ENGINE_ARGS_CONTEXT];
    engine_args(&options.engine, shared);
    const struct cli_arg args[] = {
        {"--depth", CLI_NUMBERS, &options.depths, 0, QUIRE_MAX_SEQ_LEN, "LIST",
         "tokens in the cache beforehand (0,4096)"},
        {"--batch", CLI_NUMBERS, &options.batches, 1, BATCH_MAX, "LIST",
         "sequences decoded together (1)"},
        {"--prompt", CLI_U32, &options.prompt, 1, 65536, "N", "tokens of the prompt (512)"},
        {"--generate", CLI_U32, &options.generate, 1, 65536, "N", "tokens to generate (128)"},
        {"--runs", CLI_U32, &options.runs, 3, RUNS_MAX, "N", "runs behind each median (3)"},
        {"--shared", CLI_FLAG, &options.shared, 0, 0, NULL,
         "the sequences share the tokens in the cache"},
        {"--no-cascade", CLI_FLAG, &options.engine.no_cascade, 0, 0, NULL,
         "with --shared: each reads them for itself"},
        {"--json", CLI_FLAG, &options.json, 0, 0, NULL, "print one JSON object"},
    };
    const struct cli_command command = {
        .name = "bench model",
        .synopsis = "-m MODEL [--depth LIST] [--batch LIST] [options]",
        .about = "Prints tokens per second of computing a prompt and of generating, medians of "
                 "several runs.",
        .example = "quire bench model -m model.gguf --depth 0,4096 --batch 1,8",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
        .shared = shared,
        .num_shared = ENGINE_ARGS_CACHE,
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    if (options.engine.no_cascade && !options.shared) {
        cli_error("bench model: --no-cascade changes nothing without --shared");
        return CLI_BAD_USAGE;
    }
    if (options.shared && options.engine.layout == QUIRE_LAYOUT_CONTIGUOUS) {
        cli_error("bench model: --shared needs pages: nothing is shared in --layout contiguous");
        return CLI_BAD_USAGE;
    }
    struct engine engine;
    int result = run(&engine, &options);
    engine_close(&engine);
    return result;
}
