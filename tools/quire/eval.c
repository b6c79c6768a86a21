/* eval.c - quire eval: what a model makes of a text, and what the formats of K/V make of that.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quire/commands.h"
#include "quire/compare.h"
#include "quire/console.h"
#include "quire/engine.h"
#include "quire/files.h"

/* Positions of a chunk where -c says nothing: as long as the goldens, and quick. */
enum { CHUNK_DEFAULT = 2048 };

struct options {
    struct engine_options engine;
    const char *file, *ids, *logits, *compare, *svg;
    uint32_t chunks;
    bool json;
};

/* Sums over the text so far, and the logits of its last position. */
struct evaluation {
    struct engine *engine;
    const uint32_t *chunk;
    uint32_t chunk_count, vocabulary;
    double nll; /* in nats */
    uint64_t tokens;
    float *last; /* [V] */
};

static quire_status take_logits(void *context, const struct quire__logits *logits)
{
    struct evaluation *e = context;
    for (uint32_t i = 0; i < logits->count; i++) {
        const float *row = logits->values + (size_t)i * e->vocabulary;
        uint32_t next = logits->token + i + 1;
        if (next == e->chunk_count) {
            memcpy(e->last, row, e->vocabulary * sizeof *row);
            continue;
        }
        e->nll += compare_denominator(row, e->vocabulary) - (double)row[e->chunk[next]];
        e->tokens++;
    }
    return QUIRE_OK;
}

/* ---- the text ---- */

static int load_ids(const struct engine *engine, const struct options *options,
                    struct quire__ids *ids)
{
    struct quire_error error;
    struct quire__bytes text = {0};
    const char *path = options->ids != NULL ? options->ids : options->file;
    int result = files_read(path, &text);
    if (result == CLI_OK && options->ids != NULL)
        result = files_parse_ids(path, &text, quire__model_shapes(engine->model)->vocabulary, ids);
    else if (result == CLI_OK && quire__tokenizer_encode(engine->tokenizer, text.data, text.count,
                                                         true, ids, &error) != QUIRE_OK) {
        cli_error("%s: %s", path, error.message);
        result = CLI_BAD_DATA;
    }
    quire__bytes_deinit(&text);
    if (result == CLI_OK && ids->count == 0) {
        cli_error("%s has no tokens: there is nothing to evaluate", path);
        result = CLI_BAD_DATA;
    }
    return result;
}

/* Ids are one chunk as they are; a text is cut into chunks of the context. */
static int choose_chunks(struct engine *engine, const struct options *options, uint64_t count)
{
    uint32_t limit = 0;
    int result = engine_context_limit(engine, &limit);
    if (result != CLI_OK)
        return result;
    if (options->ids != NULL && count > limit) {
        cli_error("%s has %llu tokens, the context %u: give fewer%s", options->ids,
                  (unsigned long long)count, limit,
                  options->engine.context != 0 ? ", or raise -c" : "");
        return CLI_BAD_DATA;
    }
    uint32_t wanted = limit;
    if (options->ids != NULL)
        wanted = (uint32_t)count;
    else if (options->engine.context == 0 && limit > CHUNK_DEFAULT)
        wanted = CHUNK_DEFAULT;
    if (options->ids == NULL && wanted < 2) {
        cli_error("a context of 1 predicts nothing: ask for more with -c");
        return CLI_BAD_DATA;
    }
    result = engine_choose_context(engine, wanted);
    engine->context = wanted;
    return result;
}

static int evaluate_chunk(void *context, const uint32_t *tokens, uint32_t count)
{
    struct evaluation *e = context;
    struct quire_error error;
    quire_seq seq;
    e->chunk = tokens;
    e->chunk_count = count;
    if (quire_seq_create(e->engine->pool, NULL, &seq) != QUIRE_OK) {
        cli_error("cannot start a sequence");
        return CLI_BAD_DATA;
    }
    struct engine_feed feed = {.seq = seq,
                               .tokens = tokens,
                               .count = count,
                               .want = QUIRE__WANT_ALL,
                               .logits = take_logits,
                               .context = e,
                               .label = "evaluating"};
    quire_status status = engine_feed_tokens(e->engine, &feed, &error);
    (void)quire_seq_destroy(e->engine->pool, seq);
    return status == QUIRE_OK ? CLI_OK : cli_fail(&error);
}

static int compare_next(void *context, const uint32_t *tokens, uint32_t count)
{
    return compare_chunk(context, tokens, count);
}

/* What is done with each chunk of a text. */
struct reader {
    int (*chunk)(void *context, const uint32_t *tokens, uint32_t count);
    void *context;
};

/* Goes over the text chunk by chunk, each with BOS in front where the file asks for it. */
static int read_chunks(const struct engine *engine, const struct options *options,
                       const struct quire__ids *ids, const struct reader *reader)
{
    const bool bos = options->ids == NULL && quire__tokenizer_add_bos(engine->tokenizer);
    uint32_t *chunk = quire__calloc(engine->context, sizeof *chunk);
    if (chunk == NULL) {
        cli_error("no memory for a chunk of %u tokens", engine->context);
        return CLI_BAD_DATA;
    }
    int result = CLI_OK;
    uint64_t at = 0;
    for (uint32_t i = 0; at < ids->count && result == CLI_OK; i++) {
        if (options->chunks != 0 && i == options->chunks)
            break;
        uint32_t used = 0;
        if (bos)
            chunk[used++] = quire__tokenizer_bos(engine->tokenizer);
        while (used < engine->context && at < ids->count)
            chunk[used++] = ids->ids[at++];
        result = reader->chunk(reader->context, chunk, used);
    }
    quire__free(chunk);
    return result;
}

/* ---- the answer ---- */

static double mean_nll(const struct evaluation *e)
{
    return e->tokens > 0 ? e->nll / (double)e->tokens : 0.0;
}

/* Whether the logits and what is printed of them are numbers, perplexity included. */
static int check_result(const struct options *options, const struct evaluation *e)
{
    bool numbers = isfinite(mean_nll(e)) && isfinite(exp(mean_nll(e)));
    for (uint32_t i = 0; numbers && e->last != NULL && i < e->vocabulary; i++)
        numbers = isfinite(e->last[i]);
    if (numbers)
        return CLI_OK;
    cli_error("%s computes no numbers: its file is damaged", options->engine.model);
    return CLI_BAD_DATA;
}

static int print_result(const struct options *options, const struct evaluation *e)
{
    const bool any = e->tokens > 0;
    const double mean = mean_nll(e);
    if (options->json)
        return files_print_json(json_pack("{s:I, s:o, s:o}", "tokens", (json_int_t)e->tokens,
                                          "mean_nll", any ? json_real(mean) : json_null(), "ppl",
                                          any ? json_real(exp(mean)) : json_null()));
    char text[128];
    int length =
        any ? snprintf(text, sizeof text, "tokens    %llu\nmean_nll  %.6f\nppl       %.4f\n",
                       (unsigned long long)e->tokens, mean, exp(mean))
            : snprintf(text, sizeof text, "tokens    0\n");
    return cli_write(text, (uint64_t)length) ? CLI_OK : CLI_BAD_DATA;
}

static int evaluate(struct engine *engine, const struct options *options,
                    const struct quire__ids *ids)
{
    struct evaluation e = {.engine = engine,
                           .vocabulary = quire__model_shapes(engine->model)->vocabulary};
    const struct reader reader = {evaluate_chunk, &e};
    int result = engine_open_pool(engine, 1);
    e.last = quire__calloc(e.vocabulary, sizeof *e.last);
    if (result == CLI_OK && e.last == NULL) {
        cli_error("no memory for the logits");
        result = CLI_BAD_DATA;
    }
    if (result == CLI_OK)
        result = read_chunks(engine, options, ids, &reader);
    if (result == CLI_OK)
        result = check_result(options, &e);
    if (result == CLI_OK && options->logits != NULL)
        result = files_write(options->logits, e.last, (uint64_t)e.vocabulary * sizeof *e.last);
    if (result == CLI_OK)
        result = print_result(options, &e);
    quire__free(e.last);
    return result;
}

static int compare_formats(struct engine *engine, const struct options *options,
                           const struct quire__ids *ids)
{
    struct compare compare = {0};
    const struct reader reader = {compare_next, &compare};
    int result = compare_parse(&compare, options->compare);
    if (result == CLI_OK)
        result = compare_open(&compare, engine, ids->count);
    if (result == CLI_OK)
        result = read_chunks(engine, options, ids, &reader);
    if (result == CLI_OK)
        result = compare_print(&compare, options->json);
    if (result == CLI_OK && options->svg != NULL)
        result = compare_draw(&compare, options->svg);
    compare_close(&compare);
    return result;
}

static int run(struct engine *engine, const struct options *options)
{
    struct quire__ids ids = {0};
    int result = engine_open_file(engine, &options->engine, options->ids == NULL);
    if (result == CLI_OK)
        result = engine_open_model(engine);
    if (result == CLI_OK)
        result = load_ids(engine, options, &ids);
    if (result == CLI_OK)
        result = choose_chunks(engine, options, ids.count);
    if (result == CLI_OK)
        result = options->compare != NULL ? compare_formats(engine, options, &ids)
                                          : evaluate(engine, options, &ids);
    quire__ids_deinit(&ids);
    return result;
}

/* Says what goes with what. */
static int check_options(const struct options *options)
{
    struct compare formats = {0};
    if ((options->file != NULL) == (options->ids != NULL)) {
        cli_error("eval: give a text with -f or token ids with --ids, one of them");
        return CLI_BAD_USAGE;
    }
    if (options->ids != NULL && options->chunks != 0) {
        cli_error("eval: --ids is one chunk: leave --chunks out");
        return CLI_BAD_USAGE;
    }
    if (options->compare != NULL && options->logits != NULL) {
        cli_error("eval: --logits are of one format: leave --compare out");
        return CLI_BAD_USAGE;
    }
    if (options->compare == NULL && options->svg != NULL) {
        cli_error("eval: --svg draws what --compare finds: say what with --compare");
        return CLI_BAD_USAGE;
    }
    int result = options->compare != NULL ? compare_parse(&formats, options->compare) : CLI_OK;
    if (result == CLI_OK)
        result = files_try_write(options->svg);
    return result == CLI_OK ? files_try_write(options->logits) : result;
}

int command_eval(int argc, char **argv)
{
    struct options options = {.engine = ENGINE_OPTIONS_DEFAULT};
    struct cli_arg shared[ENGINE_ARGS_CONTEXT];
    engine_args(&options.engine, shared);
    const struct cli_arg args[] = {
        {"-f", CLI_TEXT, &options.file, 0, 0, "FILE", "the text; - is stdin"},
        {"--ids", CLI_TEXT, &options.ids, 0, 0, "FILE.json",
         "token ids instead of a text: one chunk"},
        {"--chunks", CLI_U32, &options.chunks, 1, UINT32_MAX, "N", "only the first N chunks"},
        {"--logits", CLI_TEXT, &options.logits, 0, 0, "OUT.f32",
         "write the last position's logits, little-endian f32"},
        {"--compare", CLI_TEXT, &options.compare, 0, 0, "LIST",
         "formats of K/V side by side, as \"f16 q8 q8,q4 q4\""},
        {"--svg", CLI_TEXT, &options.svg, 0, 0, "FILE.svg", "draw what --compare finds"},
        {"--json", CLI_FLAG, &options.json, 0, 0, NULL, "print one JSON object"},
    };
    const struct cli_command command = {
        .name = "eval",
        .synopsis = "-m MODEL (-f FILE [-c CTX] [--chunks N] | --ids FILE.json) [options]",
        .about = "Prints the mean negative log-likelihood (nats) and the perplexity of a text.\n"
                 "The text is cut into chunks of CTX positions (2048, or the model's context where "
                 "that is less);\nevery position but the first of each chunk counts.",
        .example = "quire eval -m model.gguf -f book.txt -c 1024 --chunks 4",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
        .shared = shared,
        .num_shared = ENGINE_ARGS_CONTEXT,
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    int result = check_options(&options);
    if (result != CLI_OK)
        return result;
    struct engine engine = {0};
    result = run(&engine, &options);
    engine_close(&engine);
    return result;
}
