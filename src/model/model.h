/* model.h - a transformer over the cache: loading, shapes, and the forward pass of ragged batches.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A model is the weights and shapes of one GGUF file on one backend; it holds no state of a text
 * and any number of threads may use it. A runner holds the activations of one step at a time, and
 * belongs to one thread. Keys and values live in a pool that the caller makes from
 * quire__model_groups.
 *
 * Logits of a row depend on the tokens before it alone, bit for bit: not on the batch, on how the
 * tokens were cut into steps, on the layout or on the number of threads. */
#ifndef QUIRE_MODEL_MODEL_H
#define QUIRE_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include <quire/quire.h>

#include "model/gguf.h"

/* ---- the model ---- */

/* The shapes of a model, all checked: none is 0, heads are a multiple of kv_heads, and every tensor
 * of the file fits them. */
struct quire__shapes {
    uint32_t layers;         /* L */
    uint32_t embedding;      /* E, width of the residual stream */
    uint32_t heads;          /* H */
    uint32_t kv_heads;       /* G */
    uint32_t head_dim;       /* D of q and k */
    uint32_t head_dim_v;     /* D of v */
    uint32_t feed_forward;   /* F */
    uint32_t vocabulary;     /* V */
    uint32_t context_length; /* positions that the model was trained for */
    uint32_t rope_dim;       /* n: elements of a head that turn, even, at most D */
    float norm_epsilon;
    float rope_base;
    float rope_scale;        /* positions are divided by it */
    uint32_t window;         /* W of the layers with a window, own position included; 0: none has */
    uint32_t window_pattern; /* layer l sees everything where it divides l + 1 */
    float rope_base_local;   /* of the layers with a window, without scale; 0: as all */
};

struct quire__model;

struct quire__model_config {
    const struct quire__gguf *gguf; /* borrowed until quire__model_close */
    const char *name;               /* stands for the file in messages */
    struct quire_backend *backend;  /* borrowed; NULL: shapes only, no weights and no runner */
    /* Called while the weights are read, with done <= total bytes; NULL: not wanted. */
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *progress_context;
};

/* Reads the shapes, checks every tensor, and hands the weights to the backend as bytes of the
 * mapped file. UNSUPPORTED for an architecture, scaling, tensor or weight type that Quire or the
 * backend lacks; CORRUPT for keys that are missing or contradict each other and for tensors that
 * are missing or misshapen; the message names them. NOMEM. */
quire_status quire__model_open(const struct quire__model_config *config, struct quire__model **out,
                               struct quire_error *error);
void quire__model_close(struct quire__model *model); /* NULL is fine */

const struct quire__shapes *quire__model_shapes(const struct quire__model *model);
const char *quire__model_architecture(const struct quire__model *model);
/* The groups of a pool for this model; borrowed until quire__model_close. */
const struct quire_group_config *quire__model_groups(const struct quire__model *model,
                                                     uint32_t *num_groups);

/* ---- the runner ---- */

struct quire__runner;

/* Logits of consecutive wanted rows of a step. */
struct quire__logits {
    uint32_t item;       /* of the batch */
    uint32_t token;      /* of the item: the first row's */
    uint32_t count;      /* rows */
    const float *values; /* [count, V], valid during the call */
};

enum quire__want { QUIRE__WANT_NONE, QUIRE__WANT_LAST, QUIRE__WANT_ALL };

struct quire__batch_item {
    quire_seq seq;
    const uint32_t *tokens; /* [count], each below V */
    uint32_t count;
    enum quire__want want;
};

/* One step: the items' tokens are appended to their sequences. */
struct quire__batch {
    const struct quire__batch_item *items;
    uint32_t num_items;
    /* Gets the wanted rows in order, in portions; a status other than OK ends the step. */
    quire_status (*logits)(void *context, const struct quire__logits *logits);
    void *context;
    quire_step *open; /* NULL: the step is committed; else it is left open and its handle put here,
                         for the caller to commit or abort */
};

/* Makes a runner for steps of up to max_tokens rows on max_items sequences; it takes all memory
 * that steps need. The pool must hold the model's groups and outlive it, as must the model. */
quire_status quire__runner_create(const struct quire__model *model, struct quire_pool *pool,
                                  uint32_t max_tokens, uint32_t max_items,
                                  struct quire__runner **out, struct quire_error *error);
void quire__runner_destroy(struct quire__runner *runner); /* NULL is fine */

/* Runs one step. Waits for the device only when logits are wanted. INVAL for an empty item, a token
 * outside the vocabulary, or logits wanted without a function; LIMIT over max_tokens or max_items;
 * else what quire_step_begin and the backend answer. After an error the sequences are as before. */
quire_status quire__runner_step(struct quire__runner *runner, const struct quire__batch *batch,
                                struct quire_error *error);

#endif
