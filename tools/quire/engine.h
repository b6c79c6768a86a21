/* engine.h - what a command computes with: file, tokenizer, backend, model, pool and runner.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_ENGINE_H
#define QUIRE_TOOL_ENGINE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include <quire/quire.h>

#include "model/model.h"
#include "model/tokenizer.h"
#include "quire/args.h"

/* Options that every computing command has. */
struct engine_options {
    const char *model;
    uint32_t threads;    /* 0: what the machine allows */
    uint32_t context;    /* 0: chosen by engine_choose_context */
    uint32_t layout;     /* enum quire_layout */
    uint32_t block_size; /* P */
    uint32_t dtypes[2];  /* of K and V */
    uint32_t rotation;   /* enum quire_kv_rotation */
    uint64_t kv_memory;  /* bytes; UINT64_MAX: what the context needs */
    bool no_cascade;     /* of the backend */
};

#define ENGINE_OPTIONS_DEFAULT                                                                     \
    {                                                                                              \
        .layout = QUIRE_LAYOUT_AUTO, .block_size = 16, .dtypes = {QUIRE_F16, QUIRE_F16},           \
        .kv_memory = UINT64_MAX                                                                    \
    }

/* Fills the rows of a command's table for these options; a command takes as many as it has use
 * for. */
enum { ENGINE_ARGS_FILE = 1, ENGINE_ARGS_CACHE = 6, ENGINE_ARGS_CONTEXT = 8 };
void engine_args(struct engine_options *options, struct cli_arg args[ENGINE_ARGS_CONTEXT]);

struct engine {
    const struct engine_options *options;
    struct quire__gguf *gguf;
    struct quire__tokenizer *tokenizer;
    struct quire_backend *backend;
    struct quire__model *model;
    struct quire_pool *pool;
    struct quire__runner *runner;
    uint32_t context;     /* positions of a sequence of the pool */
    uint32_t step_tokens; /* most rows of a step */
};

/* What a pool has room for. */
struct engine_room {
    uint32_t num_seqs;  /* alive at once */
    uint64_t positions; /* of all of them together, those that they share counted once */
    uint32_t events;    /* that wait for quire_pool_events */
};

/* Each stage returns an exit status after one line on stderr; engine_close ends all of them, and is
 * fine at any stage. */
int engine_open_file(struct engine *engine, const struct engine_options *options,
                     bool with_tokenizer);
int engine_open_model(struct engine *engine);
/* Instead of engine_open_model: shapes only, without weights. */
int engine_describe(struct engine *engine);
/* Chooses the context for a text that takes `needed` positions: the -c of the user; else the
 * model's, as far as half of the free memory or --kv-memory reach. Fails when --kv-memory is too
 * small, and says how much is needed. */
int engine_choose_context(struct engine *engine, uint32_t needed);
/* The same for room->num_seqs sequences that begin with the same `shared` positions; also sets
 * room->positions. */
int engine_choose_shared_context(struct engine *engine, uint32_t needed, uint32_t shared,
                                 struct engine_room *room);
/* Positions that --kv-memory has room for, else half of the free memory. */
int engine_positions_max(const struct engine *engine, uint64_t *positions);
/* Makes pool and runner for num_seqs sequences of engine->context positions. */
int engine_open_pool(struct engine *engine, uint32_t num_seqs);
/* The same for sequences that share what they have in common. */
int engine_open_shared_pool(struct engine *engine, const struct engine_room *room);
void engine_close_pool(struct engine *engine);
void engine_close(struct engine *engine);

/* Says why quire_pool_measure refused the model's shapes; BAD_DATA. */
int engine_cannot_hold(const struct engine *engine, quire_status status);

/* The upper end of any context: -c, or the model's. Fails when -c is over the model's. */
int engine_context_limit(const struct engine *engine, uint32_t *limit);

/* Tokens to append to one sequence, in as many steps as it takes. */
struct engine_feed {
    quire_seq seq;
    const uint32_t *tokens;
    uint32_t count;
    enum quire__want want; /* LAST: of the last token of all */
    /* Gets logits with `token` counted from the first of `tokens`. */
    quire_status (*logits)(void *context, const struct quire__logits *logits);
    void *context;
    const char *label;                 /* of a progress bar; NULL: none */
    const volatile sig_atomic_t *stop; /* not 0: stop between steps; NULL: never */
};
/* CANCELED when stopped: the steps before stay committed. */
quire_status engine_feed_tokens(struct engine *engine, const struct engine_feed *feed,
                                struct quire_error *error);

#endif
