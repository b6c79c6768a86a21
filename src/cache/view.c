/* view.c - what others may see of a sequence: length, tokens, figures, and the view of one layer.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by: pool->mutex. */
#include "cache/prefix.h"

#include <string.h>

quire_status quire_seq_length(struct quire_pool *pool, quire_seq seq, uint32_t *len)
{
    struct quire__seq *found = len != NULL ? quire__seq_lock(pool, seq) : NULL;
    if (found == NULL)
        return QUIRE_E_INVAL;
    *len = found->len;
    quire__pool_unlock(pool);
    return QUIRE_OK;
}

/* Copies words first .. first + count of a token list into the places below `max`. */
static void copy_tokens(uint32_t *tokens, uint32_t max, uint32_t first, const uint32_t *from,
                        uint32_t count)
{
    if (first >= max)
        return;
    uint32_t room = max - first;
    memcpy(tokens + first, from, (count < room ? count : room) * sizeof *tokens);
}

quire_status quire_seq_tokens(struct quire_pool *pool, quire_seq seq, uint32_t *tokens,
                              uint32_t max_tokens, uint32_t *count)
{
    if (count == NULL || (tokens == NULL && max_tokens > 0))
        return QUIRE_E_INVAL;
    struct quire__seq *found = quire__seq_lock(pool, seq);
    if (found == NULL)
        return QUIRE_E_INVAL;
    uint32_t size = pool->layout.block_size, node = found->cursor;
    uint32_t full = found->num_published * size;
    copy_tokens(tokens, max_tokens, full, quire__seq_tail(pool, found), found->tail_count);
    for (uint32_t i = found->num_published; i-- > 0; node = pool->index.nodes[node].parent)
        copy_tokens(tokens, max_tokens, i * size, quire__index_key(&pool->index, node), size);
    *count = full + found->tail_count;
    quire__pool_unlock(pool);
    return QUIRE_OK;
}

quire_status quire_seq_stats(struct quire_pool *pool, quire_seq seq, struct quire_seq_stats *stats)
{
    if (stats == NULL || stats->struct_size != sizeof *stats)
        return QUIRE_E_INVAL;
    struct quire__seq *found = quire__seq_lock(pool, seq);
    if (found == NULL)
        return QUIRE_E_INVAL;
    uint64_t blocks = 0, shared = 0;
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        const uint32_t *entries = quire__seq_entries(pool, found, t);
        for (uint32_t i = 0; i < found->num_blocks; i++) {
            if (entries[i] == QUIRE_BLOCK_NONE)
                continue;
            blocks++;
            shared += pool->blocks.records[entries[i]].refs > 1;
        }
    }
    *stats = (struct quire_seq_stats){
        .struct_size = sizeof *stats,
        .len = found->len,
        .hit_tokens = found->hit_tokens,
        .blocks = blocks,
        .blocks_shared = shared,
        .own_bytes = (blocks - shared) * pool->layout.block_bytes,
        .shared_bytes = shared * pool->layout.block_bytes,
    };
    quire__pool_unlock(pool);
    return QUIRE_OK;
}

/* ---- the view of one layer ---- */

static struct quire_view plane_view(const struct quire_pool *pool, uint32_t layer,
                                    enum quire__plane plane, uint32_t page)
{
    const struct quire_kv_layer *geometry = &pool->layout.layers[layer];
    struct quire__rows_at at = quire__layout_at(&pool->layout, layer, plane, page, 0, 0);
    uint32_t dtype = plane == QUIRE__K ? geometry->dtype_k : geometry->dtype_v;
    uint64_t element = quire_dtype_bytes(dtype), positions = pool->layout.page_positions;
    struct quire_view view = quire_view_buffer(pool->arena, at.data, dtype, geometry->num_kv_heads,
                                               positions, at.data_bytes / element);
    view.stride[0] = positions * ((at.data_bytes + at.scale_bytes) / element);
    return view;
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
    struct quire__seq *found = cache != NULL ? quire__seq_lock(pool, seq) : NULL;
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
            .rotated_k = geometry->rotated_k,
            .rotated_v = geometry->rotated_v,
            .window = geometry->window,
            .sink_positions = geometry->sink_positions,
        };
        if (!pool->layout.contiguous)
            view_paged(pool, found, layer, cache);
    }
    quire__pool_unlock(pool);
    return status;
}
