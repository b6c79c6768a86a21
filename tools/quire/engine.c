/* engine.c - what a command computes with: file, tokenizer, backend, model, pool and runner.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/engine.h"

#include <stdio.h>
#include <string.h>

#include "quire/console.h"

/* Rows of one step: enough to decode every weight once for many rows, few enough that activations
 * stay small and a user's Ctrl-C does not wait long. */
enum { STEP_TOKENS_MAX = 512 };

void engine_args(struct engine_options *options, struct cli_arg args[ENGINE_ARGS_CONTEXT])
{
    const struct cli_arg rows[ENGINE_ARGS_CONTEXT] = {
        {"-m", CLI_TEXT, &options->model, 0, 0, "MODEL", "GGUF file of the model"},
        {"--threads", CLI_U32, &options->threads, 1, 1024, "N", "CPU threads (what there is)"},
        {"--layout", CLI_LAYOUT, &options->layout, 0, 0, "LAYOUT",
         "auto, paged or contiguous (auto obeys QUIRE_PAGED_KV)"},
        {"--block-size", CLI_U32, &options->block_size, 1, QUIRE_MAX_BLOCK_SIZE, "P",
         "positions per block (16)"},
        {"--kv", CLI_DTYPES, options->dtypes, 0, 0, "TYPE[,TYPE]",
         "K and V as f32, f16, bf16, q8 or q4 (f16)"},
        {"--kv-rotation", CLI_ROTATION, &options->rotation, 0, 0, "ROTATION",
         "of q8 and q4: auto, none or hadamard (auto: q4 only)"},
        {"-c", CLI_U32, &options->context, 1, QUIRE_MAX_SEQ_LEN, "CTX",
         "positions of the context, at most the model's"},
        {"--kv-memory", CLI_SIZE, &options->kv_memory, 0, 0, "SIZE",
         "bytes for K and V, as 512M (what the context needs)"},
    };
    memcpy(args, rows, sizeof rows);
}

int engine_open_file(struct engine *engine, const struct engine_options *options,
                     bool with_tokenizer)
{
    struct quire_error error;
    *engine = (struct engine){.options = options};
    if (options->model == NULL) {
        cli_error("no model is given: name a GGUF file with -m");
        return CLI_BAD_USAGE;
    }
    if (quire__gguf_open(options->model, &engine->gguf, &error) != QUIRE_OK)
        return cli_fail(&error);
    if (with_tokenizer &&
        quire__tokenizer_from_gguf(engine->gguf, &engine->tokenizer, &error) != QUIRE_OK) {
        cli_error("%s: %s", options->model, error.message);
        return CLI_BAD_DATA;
    }
    return CLI_OK;
}

int engine_open_model(struct engine *engine)
{
    struct quire_error error;
    struct quire_backend_config config;
    quire_backend_config_init(&config);
    config.num_threads = engine->options->threads;
    config.no_cascade = engine->options->no_cascade;
    if (quire_backend_create("cpu", &config, &engine->backend, &error) != QUIRE_OK)
        return cli_fail(&error);
    struct cli_progress progress;
    cli_progress_begin(&progress, "loading");
    struct quire__model_config model = {.gguf = engine->gguf,
                                        .name = engine->options->model,
                                        .backend = engine->backend,
                                        .progress = cli_progress_update,
                                        .progress_context = &progress};
    quire_status status = quire__model_open(&model, &engine->model, &error);
    cli_progress_end(&progress);
    return status == QUIRE_OK ? CLI_OK : cli_fail(&error);
}

int engine_describe(struct engine *engine)
{
    struct quire_error error;
    struct quire__model_config model = {.gguf = engine->gguf, .name = engine->options->model};
    return quire__model_open(&model, &engine->model, &error) == QUIRE_OK ? CLI_OK
                                                                         : cli_fail(&error);
}

/* ---- the context ---- */

static struct quire_pool_config pool_config(const struct engine *engine)
{
    const struct engine_options *options = engine->options;
    struct quire_pool_config config;
    quire_pool_config_init(&config);
    config.backend = engine->backend;
    config.groups = quire__model_groups(engine->model, &config.num_groups);
    config.layout = options->layout;
    config.dtype_k = options->dtypes[0];
    config.dtype_v = options->dtypes[1];
    config.kv_rotation = options->rotation;
    config.block_size = options->block_size;
    config.max_open_steps = 1;
    config.vocab_size = quire__model_shapes(engine->model)->vocabulary;
    config.merge_equal = 1; /* rows of a model do not depend on the batch */
    return config;
}

int engine_context_limit(const struct engine *engine, uint32_t *limit)
{
    uint32_t models = quire__model_shapes(engine->model)->context_length;
    uint32_t asked = engine->options->context;
    if (asked > models) {
        cli_error("-c %u is over the %u positions that %s was made for: ask for at most that",
                  asked, models, engine->options->model);
        return CLI_BAD_DATA;
    }
    *limit = asked != 0 ? asked : models;
    return CLI_OK;
}

/* What AUTO becomes (<quire/types.h>); the CPU has both layouts. */
static bool is_contiguous(const struct engine *engine)
{
    const char *paged = quire__getenv("QUIRE_PAGED_KV");
    return engine->options->layout == QUIRE_LAYOUT_CONTIGUOUS ||
           (engine->options->layout == QUIRE_LAYOUT_AUTO && paged != NULL &&
            strcmp(paged, "0") == 0);
}

/* Blocks that hold positions in every group; a contiguous block is one of all groups. */
static uint64_t blocks_of(const struct engine *engine, uint64_t positions)
{
    uint32_t num_groups = 0;
    (void)quire__model_groups(engine->model, &num_groups);
    return quire__ceil_div(positions, engine->options->block_size) *
           (is_contiguous(engine) ? 1 : num_groups);
}

int engine_cannot_hold(const struct engine *engine, quire_status status)
{
    const struct quire__shapes *shapes = quire__model_shapes(engine->model);
    if (status == QUIRE_E_UNSUPPORTED)
        cli_error("%s: q8 and q4 need heads whose elements are a multiple of 16, not %u and %u: "
                  "choose f32, f16 or bf16 with --kv",
                  engine->options->model, shapes->head_dim, shapes->head_dim_v);
    else
        cli_error("%s: the cache cannot hold its shapes: %s", engine->options->model,
                  quire_status_text(status));
    return CLI_BAD_DATA;
}

static int block_bytes_of(const struct engine *engine, uint64_t *block_bytes)
{
    struct quire_pool_config config = pool_config(engine);
    uint64_t position_bytes = 0;
    quire_status status = quire_pool_measure(&config, block_bytes, &position_bytes);
    return status == QUIRE_OK ? CLI_OK : engine_cannot_hold(engine, status);
}

static bool is_bounded(const struct engine *engine)
{
    return engine->options->kv_memory != UINT64_MAX;
}

int engine_positions_max(const struct engine *engine, uint64_t *positions)
{
    uint64_t block_bytes = 0;
    int result = block_bytes_of(engine, &block_bytes);
    if (result != CLI_OK)
        return result;
    uint64_t free_bytes = quire__memory_available();
    uint64_t budget = is_bounded(engine) ? engine->options->kv_memory : free_bytes / 2;
    *positions = budget / block_bytes / blocks_of(engine, 1) * engine->options->block_size;
    if (!is_bounded(engine) && free_bytes == 0) /* not known */
        *positions = QUIRE_MAX_SEQ_LEN;
    return CLI_OK;
}

static int memory_too_small(const struct engine *engine, const char *what, uint64_t positions,
                            const char *advice)
{
    uint64_t block_bytes = 0;
    int result = block_bytes_of(engine, &block_bytes);
    if (result != CLI_OK)
        return result;
    uint64_t bytes = blocks_of(engine, positions) * block_bytes;
    cli_error("--kv-memory %llu is too small: %s %llu bytes (%llu MiB)%s",
              (unsigned long long)engine->options->kv_memory, what, (unsigned long long)bytes,
              (unsigned long long)quire__ceil_div(bytes, 1u << 20), advice);
    return CLI_BAD_DATA;
}

int engine_choose_context(struct engine *engine, uint32_t needed)
{
    const bool asked = engine->options->context != 0;
    uint32_t limit = 0;
    uint64_t fits = 0;
    int result = engine_context_limit(engine, &limit);
    if (result == CLI_OK)
        result = engine_positions_max(engine, &fits);
    if (result != CLI_OK)
        return result;
    needed = needed > limit || asked ? limit : needed;
    if (is_bounded(engine) && fits < needed) {
        char what[64];
        (void)snprintf(what, sizeof what, "a context of %u positions needs", needed);
        return memory_too_small(engine, what, needed, asked ? ", or ask for less with -c" : "");
    }
    if (!asked && fits < limit)
        limit = fits > needed ? (uint32_t)fits : needed;
    engine->context = limit;
    return CLI_OK;
}

int engine_choose_shared_context(struct engine *engine, uint32_t needed, uint32_t shared,
                                 struct engine_room *room)
{
    const uint32_t p = engine->options->block_size;
    uint32_t limit = 0;
    uint64_t fits = 0;
    int result = engine_context_limit(engine, &limit);
    if (result == CLI_OK)
        result = engine_positions_max(engine, &fits);
    if (result != CLI_OK)
        return result;
    /* Whole blocks of the common beginning are there once, and a block beside what a step copies
     * from it. */
    const uint64_t common = is_contiguous(engine) ? 0 : shared / p * p;
    const uint64_t beside = common + p;
    needed = needed > limit ? limit : needed;
    uint64_t least = beside + room->num_seqs * quire__round_up(needed - common, p);
    if (is_bounded(engine) && fits < least) {
        char what[64];
        (void)snprintf(what, sizeof what, "%u sequences of %u positions need", room->num_seqs,
                       needed);
        return memory_too_small(engine, what, least, ", or ask for less with -n or --n");
    }
    const bool asked = engine->options->context != 0 && !is_bounded(engine);
    uint64_t each = fits > least ? (fits - beside) / room->num_seqs / p * p : 0;
    engine->context = asked || common + each > limit ? limit : (uint32_t)(common + each);
    if (engine->context < needed)
        engine->context = needed;
    room->positions = beside + room->num_seqs * quire__round_up(engine->context - common, p);
    return CLI_OK;
}

int engine_open_pool(struct engine *engine, uint32_t num_seqs)
{
    const struct engine_room room = {
        .num_seqs = num_seqs,
        .positions = quire__round_up(engine->context, engine->options->block_size) * num_seqs,
    };
    return engine_open_shared_pool(engine, &room);
}

int engine_open_shared_pool(struct engine *engine, const struct engine_room *room)
{
    struct quire_error error;
    struct quire_pool_config config = pool_config(engine);
    uint64_t rows = (uint64_t)engine->context * room->num_seqs;
    engine->step_tokens = rows < STEP_TOKENS_MAX ? (uint32_t)rows : STEP_TOKENS_MAX;
    if (engine->step_tokens < room->num_seqs)
        engine->step_tokens = room->num_seqs;
    config.max_seqs = room->num_seqs;
    config.max_seq_len = engine->context;
    config.max_step_tokens = engine->step_tokens;
    config.event_capacity = room->events;
    uint64_t blocks = blocks_of(engine, room->positions);
    if (blocks >= QUIRE_BLOCK_NONE) {
        cli_error("%llu blocks are more than a pool can hold: ask for larger blocks with "
                  "--block-size",
                  (unsigned long long)blocks);
        return CLI_BAD_DATA;
    }
    config.num_blocks = (uint32_t)blocks;
    if (quire_pool_create(&config, &engine->pool, &error) != QUIRE_OK)
        return cli_fail(&error);
    if (quire__runner_create(engine->model, engine->pool, engine->step_tokens, room->num_seqs,
                             &engine->runner, &error) != QUIRE_OK)
        return cli_fail(&error);
    return CLI_OK;
}

void engine_close_pool(struct engine *engine)
{
    quire__runner_destroy(engine->runner);
    quire_pool_destroy(engine->pool);
    engine->runner = NULL;
    engine->pool = NULL;
}

void engine_close(struct engine *engine)
{
    engine_close_pool(engine);
    quire__model_close(engine->model);
    quire_backend_destroy(engine->backend);
    quire__tokenizer_destroy(engine->tokenizer);
    quire__gguf_close(engine->gguf);
    *engine = (struct engine){0};
}

/* ---- feeding ---- */

/* Counts rows from the start of the whole feed. */
struct shifted {
    const struct engine_feed *feed;
    uint32_t done;
};

static quire_status shift(void *context, const struct quire__logits *logits)
{
    const struct shifted *shifted = context;
    struct quire__logits moved = *logits;
    moved.token += shifted->done;
    return shifted->feed->logits(shifted->feed->context, &moved);
}

quire_status engine_feed_tokens(struct engine *engine, const struct engine_feed *feed,
                                struct quire_error *error)
{
    quire_status status = QUIRE_OK;
    struct cli_progress progress;
    if (feed->label != NULL)
        cli_progress_begin(&progress, feed->label);
    for (uint32_t done = 0; done < feed->count && status == QUIRE_OK;) {
        uint32_t left = feed->count - done;
        uint32_t count = left < engine->step_tokens ? left : engine->step_tokens;
        bool wants = feed->want == QUIRE__WANT_ALL || count == left;
        struct shifted shifted = {.feed = feed, .done = done};
        struct quire__batch_item item = {.seq = feed->seq,
                                         .tokens = feed->tokens + done,
                                         .count = count,
                                         .want = wants ? feed->want : QUIRE__WANT_NONE};
        struct quire__batch batch = {
            .items = &item, .num_items = 1, .logits = shift, .context = &shifted};
        if (feed->stop != NULL && *feed->stop != 0) {
            status = quire__fail(error, QUIRE_E_CANCELED, "stopped");
            break;
        }
        status = quire__runner_step(engine->runner, &batch, error);
        done += count;
        if (feed->label != NULL)
            cli_progress_update(&progress, done, feed->count);
    }
    if (feed->label != NULL)
        cli_progress_end(&progress);
    return status;
}
