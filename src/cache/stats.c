/* stats.c - the figures of a pool.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by: pool->mutex. */
#include "cache/pool.h"

static void fill_gauges(const struct quire_pool *pool, struct quire_pool_stats *stats)
{
    const uint32_t *in_state = pool->blocks.in_state;
    uint32_t used = pool->blocks.total - in_state[QUIRE__BLOCK_FREE];
    *stats = (struct quire_pool_stats){
        .struct_size = sizeof *stats,
        .layout = pool->layout.contiguous ? QUIRE_LAYOUT_CONTIGUOUS : QUIRE_LAYOUT_PAGED,
        .block_size = pool->layout.block_size,
        .block_bytes = pool->layout.block_bytes,
        .blocks_total = pool->blocks.total,
        .blocks_free = in_state[QUIRE__BLOCK_FREE],
        .blocks_owned = in_state[QUIRE__BLOCK_OWNED],
        .blocks_cached = in_state[QUIRE__BLOCK_CACHED],
        .blocks_in_transit = in_state[QUIRE__BLOCK_IN_TRANSIT],
        .blocks_peak = pool->blocks.peak,
        .bytes_used = used * pool->layout.block_bytes,
        .metadata_bytes = pool->metadata_bytes,
        .block_meta_bytes = pool->block_meta_bytes,
        .seqs = pool->num_live,
        .open_steps = pool->num_open,
        .index_nodes = pool->index.used,
        .blocks_pinned = pool->num_pinned_blocks,
        .pins = pool->num_pins,
    };
}

quire_status quire_pool_stats(struct quire_pool *pool, struct quire_pool_stats *stats)
{
    if (pool == NULL || stats == NULL || stats->struct_size != sizeof *stats)
        return QUIRE_E_INVAL;
    quire__pool_lock(pool);
    const struct quire__figures *figures = &pool->figures;
    fill_gauges(pool, stats);
    stats->steps_committed = figures->steps_committed;
    stats->steps_aborted = figures->steps_aborted;
    stats->uploads = figures->uploads;
    stats->lookups = figures->lookups;
    stats->lookup_tokens = figures->lookup_tokens;
    stats->hit_tokens = figures->hit_tokens;
    stats->recent_lookups = pool->recent.count;
    stats->recent_tokens = pool->recent.tokens;
    stats->recent_hit_tokens = pool->recent.hit_tokens;
    stats->blocks_stored = figures->stored;
    stats->blocks_evicted = figures->evicted;
    stats->blocks_copied = figures->copied;
    stats->blocks_merged = figures->merged;
    stats->blocks_dropped = figures->dropped;
    stats->blocks_released = figures->released;
    stats->events_lost = atomic_load_explicit(&pool->events.lost, memory_order_relaxed);
    quire__pool_unlock(pool);
    return QUIRE_OK;
}

quire_status quire_pool_group_stats(struct quire_pool *pool, uint32_t group,
                                    struct quire_group_stats *stats)
{
    if (pool == NULL || stats == NULL || stats->struct_size != sizeof *stats ||
        group >= pool->layout.num_groups)
        return QUIRE_E_INVAL;
    if (pool->layout.contiguous)
        return QUIRE_E_UNSUPPORTED;
    struct quire_group_stats found = {.struct_size = sizeof found};
    for (uint32_t i = 0; i < pool->layout.num_layers; i++) {
        const struct quire_kv_layer *layer = &pool->layout.layers[i];
        if (layer->group != group)
            continue;
        found.num_layers++;
        found.window = layer->window;
        found.sink_positions = layer->sink_positions;
        uint64_t rows = (uint64_t)layer->num_kv_heads * pool->layout.block_size;
        found.block_bytes_used += rows * quire__layout_row_bytes(&pool->layout, i, QUIRE__K) +
                                  rows * quire__layout_row_bytes(&pool->layout, i, QUIRE__V);
    }
    quire__pool_lock(pool);
    for (uint32_t i = 0; i < pool->blocks.total; i++) {
        const struct quire__block *block = &pool->blocks.records[i];
        found.blocks_owned += block->state == QUIRE__BLOCK_OWNED && block->table == group;
        found.blocks_cached += block->state == QUIRE__BLOCK_CACHED && block->table == group;
    }
    quire__pool_unlock(pool);
    *stats = found;
    return QUIRE_OK;
}
