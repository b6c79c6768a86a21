/* arch.h - what an architecture implements, and what model.c and runner.c give it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_MODEL_ARCH_H
#define QUIRE_MODEL_ARCH_H

#include "base/base.h"
#include "model/model.h"

/* An architecture: one file, one row in the registry of model.c. */
struct quire__arch {
    const char *name; /* general.architecture */
    /* Fills shapes, output and arch_data from model->gguf. What it took stays in the model, which
     * also frees it after an error. */
    quire_status (*load)(struct quire__model *model, struct quire_error *error);
    /* Queues all layers of an open step: x [T,E] enters as embeddings and leaves as the last
     * residual stream. */
    quire_status (*forward)(struct quire__runner *runner, quire_step step, uint32_t num_tokens);
};

extern const struct quire__arch quire__arch_llama;
extern const struct quire__arch quire__arch_gemma3;

enum { QUIRE__ROPES_MAX = 2 };

struct quire__model {
    const struct quire__gguf *gguf;
    const char *name;
    struct quire_backend *backend; /* NULL: shapes only */
    const struct quire__arch *arch;
    struct quire__shapes shapes;
    uint32_t *layer_indices; /* [L] those that see all, then those with a window; each ascending */
    struct quire_group_config groups[QUIRE_MAX_GROUPS];
    uint32_t num_groups;
    /* Kinds of rotary embedding, which layers choose from: each [n/2] radians a position. */
    double *rope_frequencies[QUIRE__ROPES_MAX];
    uint32_t num_ropes;
    void *arch_data; /* one allocation, the architecture's own */

    struct quire_weight *embedding; /* [V,E] */
    struct quire_weight *output;    /* [V,E]; may be the embedding */
    struct quire_view output_norm;  /* f32 [1,1,E] */

    /* Everything to give back, and which tensors of the file found their place. */
    struct quire_weight **weights;
    uint64_t num_weights;
    struct quire_buffer **buffers;
    uint64_t num_buffers;
    bool *used; /* [tensors of the file] */
    uint64_t bytes_done, bytes_total;
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *progress_context;
};

/* The activations of one step. Every view is dense; T is the number of rows of the step. */
struct quire__runner {
    const struct quire__model *model;
    struct quire_pool *pool;
    uint32_t max_tokens, max_items;
    struct quire_buffer *ids;  /* u32 [T] */
    struct quire_buffer *rope; /* f32 [kinds of rotary embedding][max_tokens, n/2, 2] */
    struct quire_buffer *x;    /* f32 [T,E] the residual stream */
    struct quire_buffer *h;    /* f32 [T,E] input or output of a part of a layer */
    struct quire_buffer *q;    /* f32 [T,H,D] */
    struct quire_buffer *k;    /* f32 [T,G,D] */
    struct quire_buffer *v;    /* f32 [T,G,Dv] */
    struct quire_buffer *att;  /* f32 [T,H,Dv] */
    struct quire_buffer *gate; /* f32 [T,F] */
    struct quire_buffer *up;   /* f32 [T,F] */
    struct quire_buffer *logits;
    float *host_logits; /* of one portion */
    float *host_rope;
    uint32_t *host_ids;
    struct quire_step_item *step_items; /* [max_items] */
    uint32_t *first_positions;          /* [max_items] of the items' first rows */
};

/* ---- for an architecture's load ---- */

/* Keys are given without the architecture's prefix: "block_count" stands for "llama.block_count".
 * CORRUPT names the key, the value and the bounds. */
quire_status quire__model_key_u32(struct quire__model *model, const char *key, uint32_t min,
                                  uint32_t max, uint32_t *value, struct quire_error *error);
/* The same for a key that may be missing: *value stays then. */
quire_status quire__model_key_u32_or(struct quire__model *model, const char *key, uint32_t min,
                                     uint32_t max, uint32_t *value, struct quire_error *error);
bool quire__model_has_key(const struct quire__model *model, const char *key);
/* A positive finite number; *value stays when the key is missing. */
quire_status quire__model_key_f32_or(struct quire__model *model, const char *key, float *value,
                                     struct quire_error *error);

bool quire__model_has_tensor(const struct quire__model *model, const char *name);
/* Takes a matrix of rows x columns, in any type that the backend has. */
quire_status quire__model_matrix(struct quire__model *model, const char *name, uint64_t rows,
                                 uint64_t columns, struct quire_weight **out,
                                 struct quire_error *error);
/* Takes an f32 vector as a view [1,1,count]. */
quire_status quire__model_vector(struct quire__model *model, const char *name, uint64_t count,
                                 struct quire_view *out, struct quire_error *error);
/* Takes an f32 vector that the host reads: NULL in *out when the file has none. */
quire_status quire__model_host_vector(struct quire__model *model, const char *name, uint64_t count,
                                      const float **out, struct quire_error *error);

/* rope.c: fills the first kind of rotary embedding from base, scaling and factors of the file. */
quire_status quire__rope_load(struct quire__model *model, struct quire_error *error);
/* Adds a kind with a base of its own and positions as they are. */
quire_status quire__rope_add(struct quire__model *model, float base, struct quire_error *error);
/* table [n/2][2]: cosine and sine of one position's angles. */
void quire__rope_row(const struct quire__model *model, uint32_t kind, uint64_t position,
                     float *table);

/* decoder.c: the keys that every architecture has. */
quire_status quire__decoder_shapes(struct quire__model *model, struct quire_error *error);
/* Embedding, output norm, and the output matrix where it is not the embedding. */
quire_status quire__decoder_ends(struct quire__model *model, struct quire_error *error);

/* The tensor blk.N.NAME.weight: a matrix, or a vector of `columns` elements. */
struct quire__layer_part {
    const char *name;
    uint64_t rows, columns;
    struct quire_weight **matrix;
    struct quire_view *vector; /* NULL: a matrix */
};
quire_status quire__decoder_layer(struct quire__model *model, uint32_t index,
                                  const struct quire__layer_part *parts, size_t count,
                                  struct quire_error *error);

/* Whether a layer sees only its window. */
static inline bool quire__layer_is_windowed(const struct quire__shapes *shapes, uint32_t layer)
{
    return shapes->window != 0 && (layer + 1) % shapes->window_pattern != 0;
}

/* ---- for an architecture's forward ---- */

/* The activations of a step of T rows; the same memory as a matrix and by heads. */
struct quire__step_views {
    struct quire_view x, h, gate, up;
    struct quire_view q, k, v, att;
    struct quire_view q_heads, k_heads, v_heads, att_heads;
    struct quire_view rope[QUIRE__ROPES_MAX];
};
struct quire__step_views quire__decoder_views(const struct quire__runner *runner, uint64_t t);

/* Where the angles of one kind begin in `rope` and host_rope, in floats. */
static inline uint64_t quire__runner_rope_at(const struct quire__runner *runner, uint32_t kind)
{
    return (uint64_t)kind * runner->max_tokens * runner->model->shapes.rope_dim;
}

/* Runs one call and leaves the function with its status when it fails. */
#define QUIRE__TRY(call)                                                                           \
    do {                                                                                           \
        quire_status try_status = (call);                                                          \
        if (try_status != QUIRE_OK)                                                                \
            return try_status;                                                                     \
    } while (0)

#endif
