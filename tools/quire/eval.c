/* eval.c - quire eval: negative log-likelihood and perplexity of a text, and its last logits.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quire/commands.h"
#include "quire/console.h"
#include "quire/engine.h"
#include "quire/files.h"

/* Positions of a chunk where -c says nothing: as long as the goldens, and quick. */
enum { CHUNK_DEFAULT = 2048 };

struct options {
    struct engine_options engine;
    const char *file, *ids, *logits;
    uint32_t chunks;
    bool json;
};

/* Sums over the text so far, and the logits of its last position. */
struct evaluation {
    const uint32_t *chunk;
    uint32_t chunk_count, vocabulary;
    double nll; /* in nats */
    uint64_t tokens;
    float *last; /* [V] */
};

/* log sum exp in double: sums of 100,000 terms keep their digits. */
static double log_denominator(const float *logits, uint32_t count)
{
    float largest = logits[0];
    for (uint32_t i = 1; i < count; i++)
        largest = logits[i] > largest ? logits[i] : largest;
    double sum = exp((double)logits[0] - (double)largest);
    for (uint32_t i = 1; i < count; i++)
        sum += exp((double)logits[i] - (double)largest);
    return (double)largest + log(sum);
}

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
        e->nll += log_denominator(row, e->vocabulary) - (double)row[e->chunk[next]];
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

static int evaluate_chunk(struct engine *engine, struct evaluation *e)
{
    struct quire_error error;
    quire_seq seq;
    if (quire_seq_create(engine->pool, NULL, &seq) != QUIRE_OK) {
        cli_error("cannot start a sequence");
        return CLI_BAD_DATA;
    }
    struct engine_feed feed = {.seq = seq,
                               .tokens = e->chunk,
                               .count = e->chunk_count,
                               .want = QUIRE__WANT_ALL,
                               .logits = take_logits,
                               .context = e,
                               .label = "evaluating"};
    quire_status status = engine_feed_tokens(engine, &feed, &error);
    (void)quire_seq_destroy(engine->pool, seq);
    return status == QUIRE_OK ? CLI_OK : cli_fail(&error);
}

/* Goes over the text chunk by chunk, each with BOS in front where the file asks for it. */
static int evaluate(struct engine *engine, const struct options *options,
                    const struct quire__ids *ids, struct evaluation *e)
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
        e->chunk = chunk;
        e->chunk_count = used;
        result = evaluate_chunk(engine, e);
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

static int run(struct engine *engine, const struct options *options)
{
    struct quire__ids ids = {0};
    struct evaluation e = {0};
    int result = engine_open_file(engine, &options->engine, options->ids == NULL);
    if (result == CLI_OK)
        result = engine_open_model(engine);
    if (result == CLI_OK)
        result = load_ids(engine, options, &ids);
    if (result == CLI_OK)
        result = choose_chunks(engine, options, ids.count);
    if (result == CLI_OK)
        result = engine_open_pool(engine, 1);
    if (result == CLI_OK) {
        e.vocabulary = quire__model_shapes(engine->model)->vocabulary;
        e.last = quire__calloc(e.vocabulary, sizeof *e.last);
        if (e.last == NULL) {
            cli_error("no memory for the logits");
            result = CLI_BAD_DATA;
        }
    }
    if (result == CLI_OK)
        result = evaluate(engine, options, &ids, &e);
    if (result == CLI_OK)
        result = check_result(options, &e);
    if (result == CLI_OK && options->logits != NULL)
        result = files_write(options->logits, e.last, (uint64_t)e.vocabulary * sizeof *e.last);
    if (result == CLI_OK)
        result = print_result(options, &e);
    quire__free(e.last);
    quire__ids_deinit(&ids);
    return result;
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
    if ((options.file != NULL) == (options.ids != NULL)) {
        cli_error("eval: give a text with -f or token ids with --ids, one of them");
        return CLI_BAD_USAGE;
    }
    if (options.ids != NULL && options.chunks != 0) {
        cli_error("eval: --ids is one chunk: leave --chunks out");
        return CLI_BAD_USAGE;
    }
    struct engine engine = {0};
    int result = run(&engine, &options);
    engine_close(&engine);
    return result;
}
