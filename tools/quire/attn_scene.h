/* attn_scene.h - a pool full of K and V, and calls of attention over its layers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_ATTN_SCENE_H
#define QUIRE_TOOL_ATTN_SCENE_H

#include "quire/ruler.h"

enum { ATTN_DIM = 128, ATTN_HEADS = 32, ATTN_BLOCK = 16, ATTN_NEW_MAX = 512 };

/* `seqs` sequences of the same length, which begin with the same `shared` positions. */
struct attn_shape {
    uint32_t seqs, shared, own; /* positions before the new ones */
    uint32_t kv_heads, dtype, layout;
    uint32_t new_max; /* tokens that a step adds to each */
};

struct attn_scene {
    struct quire_backend *backend;
    struct quire_pool *pool;
    struct attn_shape shape;
    uint32_t layers;
    uint64_t position_bytes; /* K and V of one position in one layer */
    quire_seq *seqs;         /* [shape.seqs] */
    quire_step step;
    uint32_t step_tokens;
    float *rows; /* random; [rows_max][ATTN_HEADS][ATTN_DIM] K, V and q are read from here */
    float *out;  /* [rows_max][ATTN_HEADS][ATTN_DIM] */
};

/* Makes a pool whose layers are the ruler's ring, and fills it. */
quire_status attn_scene_open(struct attn_scene *scene, const struct ruler *ruler,
                             const struct attn_shape *shape, struct quire_error *error);
void attn_scene_close(struct attn_scene *scene); /* fine after any result of open */

/* Opens a step of n_new tokens a sequence and writes their K and V in all layers. */
quire_status attn_scene_begin(struct attn_scene *scene, uint32_t n_new);
/* Attends in layer i; a struct ruler_work calls it. */
quire_status attn_scene_call(void *scene, uint32_t layer);
quire_status attn_scene_end(struct attn_scene *scene);

/* What one call of the open step must read and make: shared positions are read once. */
double attn_scene_bytes(const struct attn_scene *scene, uint32_t n_new);
double attn_scene_products(const struct attn_scene *scene, uint32_t n_new);

#endif
