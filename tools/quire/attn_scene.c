/* attn_scene.c - a pool full of K and V, and calls of attention over its layers.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/attn_scene.h"

#include "base/base.h"

enum { FILL_TOKENS = 2048 };

static uint32_t most_rows(const struct attn_shape *shape)
{
    const uint32_t step = shape->seqs * shape->new_max;
    return step > FILL_TOKENS ? step : FILL_TOKENS;
}

/* ---- making the pool ---- */

static quire_status make_pool(struct attn_scene *scene, const struct ruler *ruler,
                              struct quire_error *error)
{
    const struct attn_shape *shape = &scene->shape;
    uint32_t layers[QUIRE_MAX_LAYERS] = {0};
    struct quire_group_config group = {.layers = layers,
                                       .num_layers = 1,
                                       .num_heads = ATTN_HEADS,
                                       .num_kv_heads = shape->kv_heads,
                                       .head_dim = ATTN_DIM};
    struct quire_pool_config config;
    uint64_t block_bytes;
    quire_pool_config_init(&config);
    config.backend = ruler->backend;
    config.groups = &group;
    config.num_groups = 1;
    config.layout = shape->layout;
    config.dtype_k = config.dtype_v = shape->dtype;
    config.block_size = ATTN_BLOCK;
    quire_status status = quire_pool_measure(&config, &block_bytes, &scene->position_bytes);
    if (status != QUIRE_OK)
        return quire__fail(error, status, "cannot measure the pool");
    const uint64_t positions = shape->shared + (uint64_t)shape->seqs * shape->own;
    scene->layers =
        ruler_ring(ruler, (double)(positions * scene->position_bytes), QUIRE_MAX_LAYERS);
    for (uint32_t i = 0; i < scene->layers; i++)
        layers[i] = i;
    group.num_layers = scene->layers;
    config.max_seqs = shape->seqs + 1;
    config.max_seq_len =
        (uint32_t)quire__round_up(shape->shared + shape->own + shape->new_max, ATTN_BLOCK);
    config.max_step_tokens = most_rows(shape);
    config.max_open_steps = 1;
    /* Each sequence has a block of its own begun at both ends of what it shares. */
    config.num_blocks =
        (uint32_t)((shape->shared + (uint64_t)shape->seqs * (shape->own + shape->new_max)) /
                   ATTN_BLOCK) +
        2 * (shape->seqs + 1);
    return quire_pool_create(&config, &scene->pool, error);
}

static quire_status make_rows(struct attn_scene *scene)
{
    const size_t floats = (size_t)most_rows(&scene->shape) * ATTN_HEADS * ATTN_DIM;
    uint64_t state = 1;
    scene->rows = quire__calloc(floats, sizeof(float));
    scene->out = quire__calloc(floats, sizeof(float));
    scene->seqs = quire__calloc(scene->shape.seqs, sizeof *scene->seqs);
    if (scene->rows == NULL || scene->out == NULL || scene->seqs == NULL)
        return QUIRE_E_NOMEM;
    for (size_t i = 0; i < floats; i++) { /* Knuth, TAOCP vol. 2, 3.3.4; -1 .. 1 */
        state = state * 6364136223846793005u + 1442695040888963407u;
        scene->rows[i] = (float)(int32_t)(state >> 32) * 0x1p-31f;
    }
    return QUIRE_OK;
}

/* ---- filling it ---- */

static quire_status write_layers(struct attn_scene *scene, uint32_t tokens)
{
    const uint32_t heads = scene->shape.kv_heads;
    struct quire_view k = quire_view_host(scene->rows, QUIRE_F32, tokens, heads, ATTN_DIM);
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < scene->layers && status == QUIRE_OK; i++)
        status = quire_step_write(scene->pool, scene->step, i, &k, &k);
    return status;
}

static quire_status append(struct attn_scene *scene, quire_seq seq, uint32_t count)
{
    quire_status status = QUIRE_OK;
    while (count > 0 && status == QUIRE_OK) {
        const uint32_t tokens = count < FILL_TOKENS ? count : FILL_TOKENS;
        const struct quire_step_item item = {.seq = seq, .n_new = tokens};
        status = quire_step_begin(scene->pool, &item, 1, &scene->step, NULL);
        if (status == QUIRE_OK)
            status = write_layers(scene, tokens);
        if (status == QUIRE_OK)
            status = quire_step_commit(scene->pool, scene->step, NULL);
        count -= tokens;
    }
    return status;
}

static quire_status fill(struct attn_scene *scene)
{
    const struct attn_shape *shape = &scene->shape;
    quire_seq parent = {0};
    quire_status status = QUIRE_OK;
    if (shape->shared > 0) {
        status = quire_seq_create(scene->pool, NULL, &parent);
        if (status == QUIRE_OK)
            status = append(scene, parent, shape->shared);
    }
    for (uint32_t i = 0; i < shape->seqs && status == QUIRE_OK; i++) {
        if (shape->shared > 0)
            status = quire_seq_fork(scene->pool, parent, shape->shared, &scene->seqs[i], NULL);
        else
            status = quire_seq_create(scene->pool, NULL, &scene->seqs[i]);
        if (status == QUIRE_OK)
            status = append(scene, scene->seqs[i], shape->own);
    }
    return status;
}

quire_status attn_scene_open(struct attn_scene *scene, const struct ruler *ruler,
                             const struct attn_shape *shape, struct quire_error *error)
{
    *scene = (struct attn_scene){.backend = ruler->backend, .shape = *shape};
    quire_status status = make_pool(scene, ruler, error);
    if (status != QUIRE_OK)
        return status;
    status = make_rows(scene);
    if (status == QUIRE_OK)
        status = fill(scene);
    return status == QUIRE_OK
               ? QUIRE_OK
               : quire__fail(error, status, "cannot fill the pool: %s", quire_status_text(status));
}

void attn_scene_close(struct attn_scene *scene)
{
    quire_pool_destroy(scene->pool);
    quire__free(scene->rows);
    quire__free(scene->out);
    quire__free(scene->seqs);
    *scene = (struct attn_scene){0};
}

/* ---- the measured step ---- */

quire_status attn_scene_begin(struct attn_scene *scene, uint32_t n_new)
{
    const uint32_t seqs = scene->shape.seqs;
    struct quire_step_item *items = quire__calloc(seqs, sizeof *items);
    if (items == NULL)
        return QUIRE_E_NOMEM;
    for (uint32_t i = 0; i < seqs; i++)
        items[i] = (struct quire_step_item){.seq = scene->seqs[i], .n_new = n_new};
    scene->step_tokens = seqs * n_new;
    quire_status status = quire_step_begin(scene->pool, items, seqs, &scene->step, NULL);
    quire__free(items);
    return status == QUIRE_OK ? write_layers(scene, scene->step_tokens) : status;
}

quire_status attn_scene_call(void *context, uint32_t layer)
{
    struct attn_scene *scene = context;
    struct quire_view q =
        quire_view_host(scene->rows, QUIRE_F32, scene->step_tokens, ATTN_HEADS, ATTN_DIM);
    struct quire_view out =
        quire_view_host(scene->out, QUIRE_F32, scene->step_tokens, ATTN_HEADS, ATTN_DIM);
    return quire_step_attend(scene->pool, scene->step, layer, &q, &out, NULL);
}

quire_status attn_scene_end(struct attn_scene *scene)
{
    return quire_step_abort(scene->pool, scene->step);
}

double attn_scene_bytes(const struct attn_scene *scene, uint32_t n_new)
{
    const struct attn_shape *shape = &scene->shape;
    return (double)scene->position_bytes *
           (shape->shared + (double)shape->seqs * (shape->own + n_new));
}

/* A token at position t sees t + 1 positions; each is D products of a score and D of a sum. */
double attn_scene_products(const struct attn_scene *scene, uint32_t n_new)
{
    const struct attn_shape *shape = &scene->shape;
    const double before = shape->shared + shape->own;
    const double seen = n_new * before + n_new * (n_new + 1.0) / 2;
    return 2.0 * ATTN_DIM * ATTN_HEADS * shape->seqs * seen;
}
