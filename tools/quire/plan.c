/* plan.c - quire plan: how many sequences of a model fit into memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "quire/commands.h"
#include "quire/console.h"
#include "quire/engine.h"
#include "quire/files.h"
#include "quire/plan_fit.h"

/* As many rows as quire run computes at once. */
enum { STEP_TOKENS = 512 };

struct answer {
    const struct engine_options *options;
    const struct plan_question *question;
    struct plan plan;
    double waste_pct; /* of the bytes that are of use */
};

static int print_json(const struct answer *answer)
{
    const struct plan_question *q = answer->question;
    const struct plan *plan = &answer->plan;
    json_t *groups = json_array();
    for (uint32_t i = 0; i < q->config->num_groups; i++) {
        const struct quire_group_config *group = &q->config->groups[i];
        (void)json_array_append_new(
            groups, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "layers",
                              (json_int_t)group->num_layers, "window", (json_int_t)group->window,
                              "sink_positions", (json_int_t)group->sink_positions, "block_bytes",
                              (json_int_t)plan->groups[i].block_bytes, "blocks_sequence",
                              (json_int_t)plan->groups[i].blocks_sequence, "blocks_shared",
                              (json_int_t)plan->groups[i].blocks_shared));
    }
    return files_print_json(json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
        "s:f, "
        "s:I}",
        "file", answer->options->model, "dtype_k", quire_dtype_name(q->config->dtype_k), "dtype_v",
        quire_dtype_name(q->config->dtype_v), "block_size", (json_int_t)q->config->block_size,
        "context", (json_int_t)q->context, "prefix", (json_int_t)q->prefix, "step_tokens",
        (json_int_t)q->step_tokens, "groups", groups, "memory_bytes",
        (json_int_t)q->config->memory_bytes, "block_bytes", (json_int_t)plan->block_bytes, "blocks",
        (json_int_t)plan->num_blocks, "blocks_shared", (json_int_t)plan->blocks_shared,
        "blocks_sequence", (json_int_t)plan->blocks_sequence, "blocks_growing",
        (json_int_t)plan->blocks_growing, "blocks_first", (json_int_t)plan->blocks_first,
        "sequences", (json_int_t)plan->sequences, "waste_bytes", (json_int_t)plan->waste_bytes,
        "waste_pct", answer->waste_pct, "left_bytes", (json_int_t)plan->left_bytes));
}

static int print_text(const struct answer *answer)
{
    typedef unsigned long long number;
    const struct plan_question *q = answer->question;
    const struct plan *plan = &answer->plan;
    (void)printf("file       %s\n", answer->options->model);
    (void)printf("cache      K %s, V %s, blocks of %u positions and %llu bytes\n",
                 quire_dtype_name(q->config->dtype_k), quire_dtype_name(q->config->dtype_v),
                 q->config->block_size, (number)plan->block_bytes);
    (void)printf("%5s %7s %7s %6s %15s %15s %15s\n", "group", "layers", "window", "sinks",
                 "bytes a block", "blocks a seq.", "blocks shared");
    for (uint32_t i = 0; i < q->config->num_groups; i++) {
        const struct quire_group_config *group = &q->config->groups[i];
        char window[16] = "all";
        if (group->window != 0)
            (void)snprintf(window, sizeof window, "%u", group->window);
        (void)printf("%5u %7u %7s %6u %15llu %15llu %15llu\n", i, group->num_layers, window,
                     group->sink_positions, (number)plan->groups[i].block_bytes,
                     (number)plan->groups[i].blocks_sequence,
                     (number)plan->groups[i].blocks_shared);
    }
    (void)printf("memory     %llu bytes, %llu blocks\n", (number)q->config->memory_bytes,
                 (number)plan->num_blocks);
    (void)printf("a sequence %llu blocks at %u positions, at most %llu while it grows by steps of "
                 "%u\n",
                 (number)plan->blocks_sequence, q->context, (number)plan->blocks_growing,
                 q->step_tokens);
    (void)printf("fit        %llu sequences of %u positions", (number)plan->sequences, q->context);
    if (q->prefix > 0)
        (void)printf(", the first %u shared and pinned in %llu blocks", q->prefix,
                     (number)plan->blocks_shared);
    if (plan->sequences == 0)
        (void)printf("; one needs %llu blocks, %llu bytes", (number)plan->blocks_first,
                     (number)plan->blocks_first * plan->block_bytes);
    (void)printf("\nwaste      %llu bytes (%.2f %%); left over %llu bytes\n",
                 (number)plan->waste_bytes, answer->waste_pct, (number)plan->left_bytes);
    return CLI_OK;
}

/* Chooses what the user did not, and refuses what does not go together. */
static int settle(const struct engine *engine, struct quire_pool_config *config,
                  struct plan_question *question)
{
    const struct engine_options *options = engine->options;
    const uint32_t models = quire__model_shapes(engine->model)->context_length;
    if (options->context > models) {
        cli_error("plan: --context %u is over the %u positions that %s was made for: ask for at "
                  "most that",
                  options->context, models, options->model);
        return CLI_BAD_DATA;
    }
    question->context = options->context != 0 ? options->context : models;
    if (question->prefix >= question->context) {
        cli_error("plan: --prefix %u is not below the %u positions of a sequence: --context says "
                  "how many",
                  question->prefix, question->context);
        return CLI_BAD_DATA;
    }
    quire_pool_config_init(config);
    config->groups = quire__model_groups(engine->model, &config->num_groups);
    config->layout = QUIRE_LAYOUT_PAGED;
    config->dtype_k = options->dtypes[0];
    config->dtype_v = options->dtypes[1];
    config->block_size = options->block_size;
    config->memory_bytes = options->kv_memory;
    if (options->kv_memory == UINT64_MAX)
        config->memory_bytes = quire__memory_available() / 2;
    return CLI_OK;
}

static int answer_with(const struct engine *engine, uint32_t prefix, bool json)
{
    struct quire_pool_config config;
    struct plan_question question = {
        .config = &config, .prefix = prefix, .step_tokens = STEP_TOKENS};
    struct answer answer = {.options = engine->options, .question = &question};
    int result = settle(engine, &config, &question);
    if (result != CLI_OK)
        return result;
    quire_status status = plan_fit(&question, &answer.plan);
    if (status != QUIRE_OK)
        return engine_cannot_hold(engine, status);
    const uint64_t useful = answer.plan.used_bytes - answer.plan.waste_bytes;
    answer.waste_pct = useful > 0 ? 100.0 * (double)answer.plan.waste_bytes / (double)useful : 0;
    return json ? print_json(&answer) : print_text(&answer);
}

int command_plan(int argc, char **argv)
{
    struct engine_options options = ENGINE_OPTIONS_DEFAULT;
    uint32_t prefix = 0;
    bool json = false;
    const struct cli_arg args[] = {
        {"--kv", CLI_DTYPES, options.dtypes, 0, 0, "TYPE[,TYPE]",
         "K and V as f32, f16, bf16, q8 or q4 (f16)"},
        {"--memory", CLI_SIZE, &options.kv_memory, 0, 0, "SIZE",
         "bytes for K and V, as 512M (half of what is free)"},
        {"--context", CLI_U32, &options.context, 1, QUIRE_MAX_SEQ_LEN, "N",
         "positions of each sequence (the model's context)"},
        {"--block-size", CLI_U32, &options.block_size, 1, QUIRE_MAX_BLOCK_SIZE, "P",
         "positions per block (16)"},
        {"--prefix", CLI_U32, &prefix, 0, QUIRE_MAX_SEQ_LEN, "N",
         "positions at the start that all sequences share (0)"},
        {"--json", CLI_FLAG, &json, 0, 0, NULL, "print one JSON object"},
    };
    const struct cli_command command = {
        .name = "plan",
        .synopsis = "MODEL [options]",
        .about = "Says how many sequences of a model fit into memory, and what of it is wasted. "
                 "Windows hold\nonly what they reach; a shared prefix is held once.",
        .example = "quire plan model.gguf --memory 8G --context 4096 --prefix 1000",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
        .positional = "MODEL",
        .positional_value = &options.model,
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    if (options.model == NULL) {
        cli_error("plan: no model is given: name a GGUF file");
        return CLI_BAD_USAGE;
    }
    struct engine engine;
    int result = engine_open_file(&engine, &options, false);
    if (result == CLI_OK)
        result = engine_describe(&engine);
    if (result == CLI_OK)
        result = answer_with(&engine, prefix, json);
    engine_close(&engine);
    return result;
}
