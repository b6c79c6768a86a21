/* run.c - quire run: completes a prompt, answers a question, or chats on a terminal.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "quire/answers.h"
#include "quire/chat.h"
#include "quire/commands.h"
#include "quire/console.h"
#include "quire/files.h"
#include "quire/generate.h"
#include "quire/prompt.h"

struct options {
    struct engine_options engine;
    struct prompt_options prompt;
    struct quire__sampler_config sampler;
    const char *dash;
    uint64_t max_new; /* UINT64_MAX: no limit */
    uint32_t count;   /* K answers */
    bool seeded, stats, json;
};

/* ---- what came of it ---- */

static double per_second(uint64_t count, uint64_t ns)
{
    return ns != 0 ? (double)count * 1e9 / (double)ns : 0.0;
}

static const char *layout_name(uint32_t layout)
{
    return layout == QUIRE_LAYOUT_PAGED ? "paged" : "contiguous";
}

/* Blocks that are not free. */
static uint64_t blocks_used(const struct quire_pool_stats *stats)
{
    return stats->blocks_owned + stats->blocks_cached;
}

static int read_stats(const struct engine *engine, struct quire_pool_stats *stats)
{
    *stats = (struct quire_pool_stats){.struct_size = sizeof *stats};
    if (quire_pool_stats(engine->pool, stats) == QUIRE_OK)
        return CLI_OK;
    cli_error("cannot read the figures of the cache");
    return CLI_BAD_DATA;
}

static void print_stats(const struct options *options, const struct engine *engine,
                        const struct figures *figures, const struct quire_pool_stats *stats)
{
    uint32_t threads = options->engine.threads != 0 ? options->engine.threads : quire__cpu_count();
    (void)fprintf(stderr,
                  "prompt  %llu tokens, %.1f tokens/s; reused %llu\n"
                  "answer  %llu tokens, %.1f tokens/s\n"
                  "cache   %llu blocks of %u positions, %llu bytes of K/V, %s, K %s, V %s\n"
                  "engine  %s, %u thread%s, seed %llu\n",
                  (unsigned long long)figures->prompt_tokens,
                  per_second(figures->prompt_tokens, figures->prompt_ns),
                  (unsigned long long)figures->reused_tokens,
                  (unsigned long long)figures->answer_tokens,
                  per_second(figures->decode_steps, figures->decode_ns),
                  (unsigned long long)blocks_used(stats), stats->block_size,
                  (unsigned long long)stats->bytes_used, layout_name(stats->layout),
                  quire_dtype_name(options->engine.dtypes[0]),
                  quire_dtype_name(options->engine.dtypes[1]), engine->backend->caps.arithmetic,
                  threads, threads == 1 ? "" : "s", (unsigned long long)options->sampler.seed);
}

/* What every JSON output has. */
static json_t *json_figures(const struct options *options, const struct figures *figures,
                            const struct quire__ids *prompt, const struct quire_pool_stats *stats)
{
    return json_pack("{s:o, s:f, s:f, s:I, s:I, s:I, s:I, s:s, s:I}", "prompt_ids",
                     files_json_ids(prompt->ids, prompt->count), "prompt_tok_s",
                     per_second(figures->prompt_tokens, figures->prompt_ns), "gen_tok_s",
                     per_second(figures->decode_steps, figures->decode_ns), "computed_tokens",
                     (json_int_t)figures->prompt_tokens, "reused_tokens",
                     (json_int_t)figures->reused_tokens, "kv_bytes", (json_int_t)stats->bytes_used,
                     "kv_blocks", (json_int_t)blocks_used(stats), "layout",
                     layout_name(stats->layout), "seed", (json_int_t)options->sampler.seed);
}

/* output_ids and text; NULL without memory. */
static json_t *json_output(const struct generation *g)
{
    return json_pack("{s:o, s:s%}", "output_ids", files_json_ids(g->output.ids, g->output.count),
                     "text", g->text.count > 0 ? g->text.data : "", (size_t)g->text.count);
}

/* Adds the pairs of more, which is released, to root; NULL when either is or there is no memory. */
static json_t *json_merge(json_t *root, json_t *more)
{
    bool ok = root != NULL && more != NULL && json_object_update(root, more) == 0;
    json_decref(more);
    if (ok)
        return root;
    json_decref(root);
    return NULL;
}

/* prompt: NULL for a chat, which is not reported as JSON. */
static int report(const struct options *options, const struct generation *g,
                  const struct quire__ids *prompt)
{
    struct quire_pool_stats stats;
    int result = read_stats(g->engine, &stats);
    if (result != CLI_OK)
        return result;
    if (options->stats)
        print_stats(options, g->engine, &g->figures, &stats);
    if (prompt == NULL || !options->json)
        return CLI_OK;
    return files_print_json(
        json_merge(json_figures(options, &g->figures, prompt, &stats), json_output(g)));
}

static json_t *json_answers(const struct answers *answers)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < answers->count && array != NULL; i++) {
        const uint64_t seed = answers->seed + i;
        json_t *one = json_merge(json_pack("{s:I}", "seed", (json_int_t)seed),
                                 json_output(&answers->each[i]));
        if (one == NULL || json_array_append_new(array, one) != 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

static int report_answers(const struct options *options, const struct answers *answers,
                          const struct quire__ids *prompt)
{
    struct quire_pool_stats stats;
    struct answers_saving saving;
    int result = read_stats(answers->engine, &stats);
    if (result == CLI_OK)
        result = answers_measure(answers, &saving);
    if (result != CLI_OK)
        return result;
    if (options->stats) {
        print_stats(options, answers->engine, &answers->figures, &stats);
        (void)fprintf(
            stderr,
            "shared  %llu blocks by %u answers: saved %llu blocks, %llu bytes of K/V, and "
            "computing %llu tokens of the prompt\n",
            (unsigned long long)saving.blocks_shared, answers->count,
            (unsigned long long)saving.blocks, (unsigned long long)saving.bytes,
            (unsigned long long)answers->figures.reused_tokens);
    }
    if (!options->json)
        return CLI_OK;
    json_t *more = json_pack("{s:o, s:I, s:I, s:I}", "answers", json_answers(answers),
                             "blocks_shared", (json_int_t)saving.blocks_shared, "blocks_saved",
                             (json_int_t)saving.blocks, "bytes_saved", (json_int_t)saving.bytes);
    return files_print_json(
        json_merge(json_figures(options, &answers->figures, prompt, &stats), more));
}

/* ---- one prompt, one answer ---- */

static int answer(const struct options *options, struct generation *g,
                  const struct quire__ids *prompt)
{
    struct quire_error error;
    enum generation_end end = GENERATION_ENDED;
    quire_status status = generation_prompt(g, prompt, 0, &error);
    if (status == QUIRE_OK)
        status = generation_answer(g, options->max_new, &end, &error);
    if (status == QUIRE_OK)
        status = generation_finish(g, &error);
    if (status != QUIRE_OK)
        return cli_fail(&error);
    bool open_line = g->text.count > 0 && g->text.data[g->text.count - 1] != '\n';
    if (g->print && open_line && !cli_write("\n", 1))
        return CLI_BAD_DATA;
    if (end == GENERATION_FULL && !options->json)
        cli_notice("the context is full: the answer ends here");
    return end == GENERATION_UNPRINTED ? CLI_BAD_DATA : report(options, g, prompt);
}

/* Checks the prompt against the context, which it also sizes. */
static int fit_context(struct engine *engine, const struct options *options, uint64_t prompt,
                       struct engine_room *room)
{
    uint32_t limit = 0;
    int result = engine_context_limit(engine, &limit);
    if (result != CLI_OK)
        return result;
    uint32_t models = quire__model_shapes(engine->model)->context_length;
    if (prompt > limit) {
        cli_error("the prompt has %llu tokens, the context holds %u: shorten it%s",
                  (unsigned long long)prompt, limit, limit < models ? ", or raise -c" : "");
        return CLI_BAD_DATA;
    }
    uint64_t new_tokens = options->max_new == UINT64_MAX ? 1 : options->max_new;
    uint64_t needed = new_tokens > limit - prompt ? limit : prompt + new_tokens;
    if (options->count > 1)
        return engine_choose_shared_context(engine, (uint32_t)needed, (uint32_t)prompt, room);
    return engine_choose_context(engine, (uint32_t)needed);
}

static int run_one(struct engine *engine, const struct options *options, struct generation *g,
                   const struct quire__ids *prompt)
{
    int result = engine_open_pool(engine, 1);
    if (result == CLI_OK)
        result = generation_open(g, engine, &options->sampler);
    return result == CLI_OK ? answer(options, g, prompt) : result;
}

static int run_many(struct engine *engine, const struct options *options,
                    const struct engine_room *room, const struct quire__ids *prompt)
{
    struct answers answers = {.engine = engine,
                              .count = options->count,
                              .seed = options->sampler.seed,
                              .max_new = options->max_new,
                              .print = !options->json};
    int result = engine_open_shared_pool(engine, room);
    if (result == CLI_OK)
        result = answers_open(&answers, &options->sampler);
    if (result == CLI_OK)
        result = answers_run(&answers, prompt);
    if (result == CLI_OK)
        result = report_answers(options, &answers, prompt);
    answers_close(&answers);
    return result;
}

static int run_once(struct engine *engine, const struct options *options, struct generation *g,
                    const struct prompt_style *style)
{
    struct quire__ids prompt = {0};
    struct engine_room room = {.num_seqs = options->count};
    int result = prompt_load(style, engine, &options->prompt, &prompt);
    if (result == CLI_OK)
        result = engine_open_model(engine);
    if (result == CLI_OK)
        result = fit_context(engine, options, prompt.count, &room);
    if (result == CLI_OK)
        result = options->count > 1 ? run_many(engine, options, &room, &prompt)
                                    : run_one(engine, options, g, &prompt);
    quire__ids_deinit(&prompt);
    return result;
}

static int run_chat(struct engine *engine, const struct options *options, struct generation *g,
                    const struct prompt_style *style)
{
    int result = engine_open_model(engine);
    if (result == CLI_OK)
        result = engine_choose_context(engine, 1);
    if (result == CLI_OK)
        result = chat_open_pool(engine);
    if (result == CLI_OK)
        result = generation_open(g, engine, &options->sampler);
    if (result == CLI_OK)
        result = chat(g, style, options->prompt.system, options->max_new);
    return result == CLI_OK ? report(options, g, NULL) : result;
}

/* ---- the command line ---- */

static int misuse(const char *text)
{
    cli_error("run: %s", text);
    return CLI_BAD_USAGE;
}

static int check(struct options *options)
{
    struct prompt_options *prompt = &options->prompt;
    if (options->dash != NULL) {
        if (strcmp(options->dash, "-") != 0) {
            cli_error("run: unexpected argument %s: give the prompt with -p", options->dash);
            return CLI_BAD_USAGE;
        }
        if (prompt->file != NULL)
            return misuse("-f and - exclude each other: give one of them");
        prompt->file = "-";
    }
    if ((prompt->text != NULL) + (prompt->file != NULL) + (prompt->ids != NULL) > 1)
        return misuse("-p, -f, - and --ids exclude each other: give one of them");
    if ((prompt->raw || prompt->ids != NULL) &&
        (prompt->system != NULL || prompt->template_name != NULL))
        return misuse("--system and --template have no place in a raw prompt: leave them out");
    if (options->sampler.seed != UINT64_MAX &&
        options->sampler.seed > (uint64_t)INT64_MAX - (options->count - 1))
        return misuse("--n counts the seeds on from --seed, past 2^63: give a smaller --seed");
    return CLI_OK;
}

static int run(const struct options *options)
{
    const struct prompt_options *prompt = &options->prompt;
    const bool given = prompt->text != NULL || prompt->file != NULL || prompt->ids != NULL;
    const bool chats = !given && isatty(STDIN_FILENO) == 1;
    if (chats && options->json)
        return misuse("--json needs a prompt: give one with -p, -f or --ids");
    if (chats && options->count > 1)
        return misuse("--n needs a prompt: give one with -p, -f or --ids, or /fork in the chat");
    struct engine engine;
    struct prompt_style style = {0};
    struct generation g = {.print = !options->json};
    int result = engine_open_file(&engine, &options->engine, true);
    if (result == CLI_OK)
        result = prompt_style_init(&style, &engine, prompt);
    if (result == CLI_OK)
        result =
            chats ? run_chat(&engine, options, &g, &style) : run_once(&engine, options, &g, &style);
    generation_close(&g);
    prompt_style_deinit(&style);
    engine_close(&engine);
    return result;
}

int command_run(int argc, char **argv)
{
    struct options o = {.engine = ENGINE_OPTIONS_DEFAULT, .max_new = UINT64_MAX, .count = 1};
    quire__sampler_config_init(&o.sampler);
    o.sampler.seed = UINT64_MAX;
    struct cli_arg shared[ENGINE_ARGS_CONTEXT];
    engine_args(&o.engine, shared);
    const struct cli_arg args[] = {
        {"-p", CLI_TEXT, &o.prompt.text, 0, 0, "TEXT", "the prompt"},
        {"-f", CLI_TEXT, &o.prompt.file, 0, 0, "FILE", "a file with the prompt; - is stdin"},
        {"--ids", CLI_TEXT, &o.prompt.ids, 0, 0, "FILE.json", "the prompt as token ids"},
        {"-n", CLI_U64, &o.max_new, 0, 0, "N", "at most N new tokens (until it ends)"},
        {"--n", CLI_U32, &o.count, 1, ANSWERS_MAX, "K",
         "K answers, the next with the next seed (1)"},
        {"--temp", CLI_REAL, &o.sampler.temperature, 0, 1000, "T",
         "temperature (0.8); 0: always the likeliest token"},
        {"--top-k", CLI_U32, &o.sampler.top_k, 0, UINT32_MAX, "K",
         "choose among the K likeliest (40); 0: all"},
        {"--top-p", CLI_REAL, &o.sampler.top_p, 1e-9, 1, "P",
         "choose among those that sum to P (0.95)"},
        {"--min-p", CLI_REAL, &o.sampler.min_p, 0, 1, "P",
         "leave out what has less than P of the likeliest (0.05)"},
        {"--repeat-penalty", CLI_REAL, &o.sampler.repeat_penalty, 1e-3, 1000, "X",
         "make the last 64 tokens less likely (1: off)"},
        {"--seed", CLI_U64, &o.sampler.seed, 0, 0, "S", "seed of the choice (random)"},
        {"--raw", CLI_FLAG, &o.prompt.raw, 0, 0, NULL, "complete the text as it is"},
        {"--system", CLI_TEXT, &o.prompt.system, 0, 0, "TEXT", "the system message"},
        {"--template", CLI_TEXT, &o.prompt.template_name, 0, 0, "NAME",
         "chat template: chatml, llama3 or gemma (the model's)"},
        {"--stats", CLI_FLAG, &o.stats, 0, 0, NULL, "print figures on stderr at the end"},
        {"--json", CLI_FLAG, &o.json, 0, 0, NULL, "print one JSON object instead of text"},
    };
    const struct cli_command command = {
        .name = "run",
        .synopsis = "-m MODEL [-p TEXT | -f FILE | - | --ids FILE.json] [options]",
        .about = "Writes the model's answer to a prompt. Without a prompt it reads standard input, "
                 "or, on a\nterminal, chats: Ctrl-C stops an answer, Ctrl-D ends the chat.",
        .example = "quire run -m model.gguf -p \"Why is the sky blue?\" --temp 0 --stats",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
        .shared = shared,
        .num_shared = ENGINE_ARGS_CONTEXT,
        .positional = "-",
        .positional_value = &o.dash,
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    int result = check(&o);
    if (result != CLI_OK)
        return result;
    /* 53 bits, so that JSON readers that know only doubles give the seed back unharmed. */
    if (o.sampler.seed == UINT64_MAX) {
        uint64_t random = quire__now_ns();
        (void)getrandom(&random, sizeof random, 0);
        o.sampler.seed = random >> 11;
    }
    return run(&o);
}
