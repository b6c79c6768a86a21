/* model_fixture.h - a model with its pool and runner, ready to compute logits in any manner.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_MODEL_FIXTURE_H
#define QUIRE_TESTS_MODEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/model.h"
#include "support.h"

/* How to compute; zero is a good value for everything. */
struct qt_engine_config {
    bool opaque;             /* on the backend that hides its memory */
    const char *cpu_level;   /* NULL: the best */
    uint32_t threads;        /* 0: 2 */
    uint32_t layout;         /* 0: paged */
    uint32_t block_size;     /* 0: 16 */
    uint32_t dtype;          /* of K and V; 0 is f32 */
    uint32_t context;        /* 0: 512 */
    uint32_t max_seqs;       /* 0: 1 */
    uint32_t max_tokens;     /* of a step; 0: 512 */
    uint32_t num_blocks;     /* 0: enough for all sequences */
    uint32_t blocks_percent; /* of that; 0: 100 */
    uint32_t merge_equal;
};

struct qt_engine {
    struct quire__gguf *gguf;
    struct quire_backend *backend;
    struct quire__model *model;
    struct quire_pool *pool;
    struct quire__runner *runner;
    uint32_t vocabulary;
    uint32_t max_tokens;
};

/* Fails the test when anything does. */
void qt_engine_open(struct qt_engine *engine, const char *path,
                    const struct qt_engine_config *config);
void qt_engine_close(struct qt_engine *engine);

/* How a prompt is cut into steps. */
enum qt_cut {
    QT_WHOLE,   /* in steps as long as the runner takes */
    QT_SINGLES, /* token by token */
    QT_RANDOM,  /* in pieces of 1 to 40 */
    QT_CUT_COUNT,
};

/* Logits of every position [count, V], in a sequence of its own; give back with qt_free. */
float *qt_engine_logits(struct qt_engine *engine, const uint32_t *ids, uint32_t count,
                        enum qt_cut cut);
/* The same of the positions at and after `from` only: [count - from, V]. */
float *qt_engine_logits_from(struct qt_engine *engine, const uint32_t *ids, uint32_t count,
                             uint32_t from, enum qt_cut cut);
/* The last position's logits after appending ids to a sequence; out [V]. */
void qt_engine_append(struct qt_engine *engine, quire_seq seq, const uint32_t *ids, uint32_t count,
                      float *out);

uint32_t qt_argmax(const float *logits, uint32_t count);
/* Natural logarithm of the probability of a token. */
double qt_logprob(const float *logits, uint32_t count, uint32_t token);

/* Path of the real model that an environment variable names; skips the test where it names none. */
const char *qt_real_model(const char *variable);
/* Path of a tiny model, made by scripts/make_tiny_model.py with these arguments and kept in the
 * build folder under `name`; skips the test where there is no Python. */
const char *qt_tiny_model(const char *name, const char *arguments);

#endif
