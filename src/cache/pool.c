/* pool.c - reset, stats and check of a pool.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by: pool->mutex.
 * Invariants: quire_pool_check walks P1, P2, P4, P5, S1 and S3 of DESIGN.md. */
#include "cache/pool.h"

/* Gets the device going again; what its buffers held is lost. */
static quire_status recover(struct quire_pool *pool)
{
    const struct quire_memory_ops *memory = pool->backend->memory;
    quire_status status = memory->recover != NULL ? memory->recover(pool->backend) : QUIRE_OK;
    return status == QUIRE_OK && pool->has_kv ? quire__pool_fill_tables(pool) : status;
}

quire_status quire_pool_reset(struct quire_pool *pool)
{
    if (pool == NULL)
        return QUIRE_E_INVAL;
    quire__pool_lock(pool);
    quire_status status = pool->num_open > 0 ? QUIRE_E_BUSY : QUIRE_OK;
    if (status == QUIRE_OK && pool->failed)
        status = recover(pool);
    if (status == QUIRE_OK) {
        pool->failed = false;
        for (uint32_t i = 0; i < pool->max_seqs; i++) {
            if (pool->seqs[i].live)
                quire__seq_end(pool, &pool->seqs[i]);
        }
        status = pool->failed ? QUIRE_E_DEVICE : QUIRE_OK;
    }
    quire__pool_unlock(pool);
    return status;
}

quire_status quire_pool_stats(struct quire_pool *pool, struct quire_pool_stats *stats)
{
    if (pool == NULL || stats == NULL || stats->struct_size != sizeof *stats)
        return QUIRE_E_INVAL;
    quire__pool_lock(pool);
    const uint32_t *in_state = pool->blocks.in_state;
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
        .bytes_used =
            (uint64_t)(pool->blocks.total - in_state[QUIRE__BLOCK_FREE]) * pool->layout.block_bytes,
        .metadata_bytes = pool->metadata_bytes,
        .seqs = pool->num_live,
        .open_steps = pool->num_open,
        .steps_committed = pool->steps_committed,
        .steps_aborted = pool->steps_aborted,
        .uploads = pool->num_uploads,
    };
    quire__pool_unlock(pool);
    return QUIRE_OK;
}

quire_status quire_pool_measure(const struct quire_pool_config *config, uint64_t *block_bytes,
                                uint64_t *position_bytes)
{
    if (config == NULL || block_bytes == NULL || position_bytes == NULL ||
        config->struct_size != sizeof *config)
        return QUIRE_E_INVAL;
    struct quire__layout layout;
    uint32_t kind = config->layout != QUIRE_LAYOUT_AUTO ? config->layout : QUIRE_LAYOUT_PAGED;
    quire_status status = quire__layout_init(&layout, config, kind, NULL);
    if (status != QUIRE_OK)
        return status;
    *block_bytes = layout.block_bytes;
    *position_bytes = layout.position_bytes;
    quire__layout_deinit(&layout);
    return QUIRE_OK;
}

/* ---- check ---- */

/* S1 and S3 of one sequence, and its part of P2: counts its table entries in refs. */
static quire_status check_seq(const struct quire_pool *pool, const struct quire__seq *seq,
                              uint32_t *refs, struct quire_error *error)
{
    uint32_t slot = quire__seq_slot(pool, seq);
    if (seq->num_tokens > seq->len)
        return quire__fail(error, QUIRE_E_CORRUPT, "S3: sequence %u has %u tokens in %u positions",
                           slot, seq->num_tokens, seq->len);
    if (seq->num_blocks > pool->layout.max_blocks ||
        (seq->step == QUIRE__NO_STEP &&
         seq->num_blocks != quire__layout_blocks(&pool->layout, seq->len)))
        return quire__fail(error, QUIRE_E_CORRUPT, "S1: sequence %u has %u blocks for %u positions",
                           slot, seq->num_blocks, seq->len);
    for (uint32_t table = 0; table < pool->layout.num_tables; table++) {
        uint64_t row = quire__pool_row(pool, table, slot);
        for (uint32_t i = 0; i < seq->num_blocks; i++) {
            uint32_t index = pool->table_indices[row + i];
            if (index >= pool->blocks.total ||
                pool->blocks.blocks[index].generation != pool->table_generations[row + i])
                return quire__fail(error, QUIRE_E_CORRUPT,
                                   "P5: table %u of sequence %u names dead block %u", table, slot,
                                   index);
            refs[index]++;
        }
    }
    return QUIRE_OK;
}

static quire_status check_locked(const struct quire_pool *pool, uint32_t *refs,
                                 struct quire_error *error)
{
    uint32_t live = 0, open = 0;
    for (uint32_t i = 0; i < pool->max_seqs; i++) {
        if (!pool->seqs[i].live)
            continue;
        live++;
        quire_status status = check_seq(pool, &pool->seqs[i], refs, error);
        if (status != QUIRE_OK)
            return status;
    }
    for (uint32_t i = 0; i < pool->max_open_steps; i++)
        open += pool->steps[i].open;
    if (live != pool->num_live || open != pool->num_open)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "P4: %u sequences and %u steps live, %u and %u counted", live, open,
                           pool->num_live, pool->num_open);
    return quire__blocks_check(&pool->blocks, refs, error);
}

quire_status quire_pool_check(struct quire_pool *pool, struct quire_error *error)
{
    if (pool == NULL)
        return quire__fail(error, QUIRE_E_INVAL, "pool must not be NULL");
    uint32_t *refs = quire__calloc(pool->blocks.total, sizeof *refs);
    if (refs == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "no memory to count references");
    quire__pool_lock(pool);
    quire_status status = check_locked(pool, refs, error);
    quire__pool_unlock(pool);
    quire__free(refs);
    return status;
}
