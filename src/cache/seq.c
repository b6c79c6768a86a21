/* seq.c - sequences: handles, lengths, growth, and rows in and out.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: one row of every table, of lens and of tokens for each sequence.
 * Guarded by: pool->mutex.
 * Invariants: S1, S2, S3 of DESIGN.md. */
#include "cache/pool.h"

#include <string.h>

void quire_seq_config_init(struct quire_seq_config *config)
{
    memset(config, 0, sizeof *config);
    config->struct_size = sizeof *config;
}

/* ---- handles ---- */

static quire_seq handle_of(const struct quire_pool *pool, const struct quire__seq *seq)
{
    return (quire_seq){(uint64_t)seq->generation << 32 | (quire__seq_slot(pool, seq) + 1u)};
}

struct quire__seq *quire__seq_find(struct quire_pool *pool, quire_seq seq)
{
    uint32_t slot = (uint32_t)seq.id - 1u;
    if (slot >= pool->max_seqs)
        return NULL;
    struct quire__seq *found = &pool->seqs[slot];
    return found->live && found->generation == (uint32_t)(seq.id >> 32) ? found : NULL;
}

/* Locks the pool and finds a sequence; unlocked again when the handle is stale. */
static struct quire__seq *lock_seq(struct quire_pool *pool, quire_seq seq)
{
    if (pool == NULL)
        return NULL;
    quire__pool_lock(pool);
    struct quire__seq *found = quire__seq_find(pool, seq);
    if (found == NULL)
        quire__pool_unlock(pool);
    return found;
}

/* ---- blocks ---- */

void quire__seq_grow(struct quire_pool *pool, struct quire__seq *seq, uint32_t num_blocks)
{
    QUIRE_CHECK(num_blocks <= pool->layout.max_blocks);
    for (uint32_t table = 0; table < pool->layout.num_tables; table++) {
        uint64_t row = quire__pool_row(pool, table, quire__seq_slot(pool, seq));
        for (uint32_t i = seq->num_blocks; i < num_blocks; i++) {
            struct quire__block_id id = quire__blocks_take(&pool->blocks);
            pool->table_indices[row + i] = id.index;
            pool->table_generations[row + i] = id.generation;
        }
    }
    seq->num_blocks = num_blocks;
}

/* Takes the memory of a contiguous region past the first `num_blocks` blocks back: up to its end,
 * as the pages that earlier cuts could only use in part may be whole now. */
static void decommit(struct quire_pool *pool, const struct quire__seq *seq, uint32_t num_blocks)
{
    const struct quire__layout *layout = &pool->layout;
    uint32_t first = num_blocks * layout->block_size;
    for (uint32_t layer = 0; layer < layout->num_layers; layer++) {
        uint32_t count = quire__layout_ranges(layout, layer, quire__seq_slot(pool, seq), first,
                                              layout->max_seq_len, pool->ranges);
        pool->backend->memory->decommit(pool->backend, pool->arena, pool->ranges, count);
    }
}

/* S2: the slots of a table past the first `num_blocks` name nothing. A device that cannot be told
 * fails the pool, as its table would name blocks that others take. */
static void forget_slots(struct quire_pool *pool, const struct quire__seq *seq, uint64_t row,
                         uint32_t num_blocks)
{
    uint64_t bytes = (uint64_t)(seq->num_blocks - num_blocks) * sizeof(uint32_t);
    uint64_t offset = (row + num_blocks) * sizeof(uint32_t);
    if (pool->backend->memory->fill(pool->backend, pool->tables, offset, bytes, 0xff) != QUIRE_OK)
        pool->failed = true;
}

void quire__seq_shrink(struct quire_pool *pool, struct quire__seq *seq, uint32_t num_blocks)
{
    if (num_blocks >= seq->num_blocks)
        return;
    for (uint32_t table = 0; table < pool->layout.num_tables; table++) {
        uint64_t row = quire__pool_row(pool, table, quire__seq_slot(pool, seq));
        for (uint32_t i = seq->num_blocks; i-- > num_blocks;) {
            struct quire__block_id id = {pool->table_indices[row + i],
                                         pool->table_generations[row + i]};
            QUIRE_CHECK(quire__blocks_release(&pool->blocks, id) == QUIRE_OK);
        }
        if (pool->has_kv && !pool->layout.contiguous)
            forget_slots(pool, seq, row, num_blocks);
    }
    if (pool->commits)
        decommit(pool, seq, num_blocks);
    seq->num_blocks = num_blocks;
}

void quire__seq_end(struct quire_pool *pool, struct quire__seq *seq)
{
    quire__seq_shrink(pool, seq, 0);
    *seq = (struct quire__seq){.generation = seq->generation + 1u,
                               .step = QUIRE__NO_STEP,
                               .next_free = pool->first_free_seq};
    pool->first_free_seq = quire__seq_slot(pool, seq);
    pool->num_live--;
}

/* ---- life ---- */

quire_status quire_seq_create(struct quire_pool *pool, const struct quire_seq_config *config,
                              quire_seq *seq)
{
    if (pool == NULL || seq == NULL)
        return QUIRE_E_INVAL;
    if (config != NULL && (config->struct_size != sizeof *config ||
                           (config->tokens == NULL && config->num_tokens > 0)))
        return QUIRE_E_INVAL;
    quire__pool_lock(pool);
    quire_status status = pool->failed ? QUIRE_E_DEVICE : QUIRE_OK;
    if (status == QUIRE_OK && pool->first_free_seq == pool->max_seqs)
        status = QUIRE_E_LIMIT;
    if (status == QUIRE_OK) {
        struct quire__seq *slot = &pool->seqs[pool->first_free_seq];
        pool->first_free_seq = slot->next_free;
        slot->live = true;
        slot->has_tokens = true;
        slot->salt = config != NULL ? config->salt : 0;
        slot->adapter = config != NULL ? config->adapter : 0;
        pool->num_live++;
        *seq = handle_of(pool, slot);
    }
    quire__pool_unlock(pool);
    return status;
}

quire_status quire_seq_destroy(struct quire_pool *pool, quire_seq seq)
{
    struct quire__seq *found = lock_seq(pool, seq);
    if (found == NULL)
        return QUIRE_E_INVAL;
    quire_status status = found->step != QUIRE__NO_STEP ? QUIRE_E_BUSY : QUIRE_OK;
    if (status == QUIRE_OK)
        quire__seq_end(pool, found);
    quire__pool_unlock(pool);
    return status;
}

quire_status quire_seq_truncate(struct quire_pool *pool, quire_seq seq, uint32_t len)
{
    struct quire__seq *found = lock_seq(pool, seq);
    if (found == NULL)
        return QUIRE_E_INVAL;
    quire_status status = QUIRE_OK;
    if (found->step != QUIRE__NO_STEP)
        status = QUIRE_E_BUSY;
    else if (len > found->len)
        status = QUIRE_E_INVAL;
    if (status == QUIRE_OK) {
        quire__seq_shrink(pool, found, quire__layout_blocks(&pool->layout, len));
        found->len = len;
        if (found->num_tokens >= len) {
            found->num_tokens = len;
            found->has_tokens = true;
        }
    }
    quire__pool_unlock(pool);
    return status;
}

quire_status quire_seq_reset(struct quire_pool *pool, quire_seq seq)
{
    return quire_seq_truncate(pool, seq, 0);
}

quire_status quire_seq_length(struct quire_pool *pool, quire_seq seq, uint32_t *len)
{
    struct quire__seq *found = len != NULL ? lock_seq(pool, seq) : NULL;
    if (found == NULL)
        return QUIRE_E_INVAL;
    *len = found->len;
    quire__pool_unlock(pool);
    return QUIRE_OK;
}

quire_status quire_seq_tokens(struct quire_pool *pool, quire_seq seq, const uint32_t **tokens,
                              uint32_t *count)
{
    struct quire__seq *found = tokens != NULL && count != NULL ? lock_seq(pool, seq) : NULL;
    if (found == NULL)
        return QUIRE_E_INVAL;
    *tokens = pool->tokens + (uint64_t)quire__seq_slot(pool, found) * pool->layout.max_seq_len;
    *count = found->num_tokens;
    quire__pool_unlock(pool);
    return QUIRE_OK;
}

/* ---- the view of one layer ---- */

static struct quire_view plane_view(const struct quire_pool *pool, uint32_t layer,
                                    enum quire__plane plane, uint32_t page)
{
    const struct quire_kv_layer *geometry = &pool->layout.layers[layer];
    return quire_view_buffer(
        pool->arena, quire__layout_offset(&pool->layout, layer, plane, page, 0, 0),
        plane == QUIRE__K ? geometry->dtype_k : geometry->dtype_v, geometry->num_kv_heads,
        pool->layout.page_positions, plane == QUIRE__K ? geometry->head_dim : geometry->head_dim_v);
}

static void view_paged(const struct quire_pool *pool, const struct quire__seq *seq, uint32_t layer,
                       struct quire_kv_cache *cache)
{
    const struct quire__layout *layout = &pool->layout;
    uint32_t slot = quire__seq_slot(pool, seq);
    uint64_t row = quire__pool_row(pool, layout->layers[layer].group, slot);
    cache->capacity = layout->max_blocks * layout->block_size;
    cache->block_size = layout->block_size;
    cache->num_blocks = pool->blocks.total;
    cache->block_stride_k = layout->page_bytes / quire_dtype_bytes(cache->dtype_k);
    cache->block_stride_v = layout->page_bytes / quire_dtype_bytes(cache->dtype_v);
    cache->block_table = quire_view_buffer(pool->tables, row * sizeof(uint32_t), QUIRE_U32, 1, 1,
                                           layout->max_blocks);
    cache->context_lens = quire_view_buffer(
        pool->tables, pool->lens_offset + slot * sizeof(uint32_t), QUIRE_U32, 1, 1, 1);
    cache->paged_block_indices = pool->table_indices + row;
    cache->paged_block_count = seq->num_blocks;
}

quire_status quire_seq_kv_cache(struct quire_pool *pool, quire_seq seq, uint32_t layer,
                                struct quire_kv_cache *cache)
{
    struct quire__seq *found = cache != NULL ? lock_seq(pool, seq) : NULL;
    if (found == NULL)
        return QUIRE_E_INVAL;
    quire_status status = pool->has_kv ? QUIRE_OK : QUIRE_E_UNSUPPORTED;
    if (layer >= pool->layout.num_layers)
        status = QUIRE_E_INVAL;
    if (status == QUIRE_OK) {
        const struct quire_kv_layer *geometry = &pool->layout.layers[layer];
        uint32_t page = pool->layout.contiguous ? quire__seq_slot(pool, found) : 0;
        *cache = (struct quire_kv_cache){
            .k = plane_view(pool, layer, QUIRE__K, page),
            .v = plane_view(pool, layer, QUIRE__V, page),
            .len = found->len,
            .capacity = pool->layout.max_seq_len,
            .num_kv_heads = geometry->num_kv_heads,
            .head_dim = geometry->head_dim,
            .head_dim_v = geometry->head_dim_v,
            .dtype_k = geometry->dtype_k,
            .dtype_v = geometry->dtype_v,
            .window = geometry->window,
            .sink_positions = geometry->sink_positions,
        };
        if (!pool->layout.contiguous)
            view_paged(pool, found, layer, cache);
    }
    quire__pool_unlock(pool);
    return status;
}
