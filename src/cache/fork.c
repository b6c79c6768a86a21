/* fork.c - sequences that start from others: forks, and second looks at the index.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by: pool->mutex. Invariants: P2, S1. */
#include "cache/prefix.h"

#include <string.h>

/* ---- paged: references ---- */

/* quire__block_acquire, with nothing to call for a block that the parent holds: forks are many. */
static inline void acquire(struct quire_pool *pool, uint32_t block)
{
    struct quire__block *record = &pool->blocks.records[block];
    if (record->state != QUIRE__BLOCK_OWNED || record->refs == QUIRE__REFS_MAX)
        quire__block_acquire(pool, block);
    else
        record->refs++;
}

/* Shares the blocks that the first `len` positions need. pool->path has the parent's nodes where a
 * window has let blocks go. */
static void share_blocks(struct quire_pool *pool, const struct quire__seq *parent,
                         struct quire__seq *fork, uint32_t len)
{
    uint32_t num_blocks = quire__layout_blocks(&pool->layout, len);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        const uint32_t *from = quire__seq_entries(pool, parent, t);
        uint32_t *to = quire__seq_entries(pool, fork, t);
        uint32_t first = quire__window_first(pool, t, len);
        uint32_t held = quire__seq_first(pool, parent)[t];
        /* What the parent keeps for rollbacks, the fork keeps too. */
        first = held < first ? held : first;
        first = first < num_blocks ? first : num_blocks;
        quire__seq_first(pool, fork)[t] = first;
        memcpy(to, from, num_blocks * sizeof *to);
        for (uint32_t i = 0; i < num_blocks; i++) {
            if (to[i] == QUIRE_BLOCK_NONE && i >= first)
                to[i] = quire__index_blocks(&pool->index, pool->path[i])[t];
            if (to[i] != QUIRE_BLOCK_NONE)
                acquire(pool, to[i]);
        }
    }
    fork->num_blocks = num_blocks;
}

static void fork_paged(struct quire_pool *pool, const struct quire__seq *parent,
                       struct quire__seq *fork, uint32_t len)
{
    share_blocks(pool, parent, fork, len);
    fork->len = len;
    fork->hit_tokens = len;
    fork->hidden = parent->hidden;
    fork->has_tokens = parent->has_tokens;
    fork->num_published = parent->num_published;
    fork->twins_from = parent->twins_from;
    fork->tail_count = parent->tail_count;
    fork->dirty_from = 0;
    memcpy(quire__seq_tail(pool, fork), quire__seq_tail(pool, parent),
           parent->tail_count * sizeof(uint32_t));
    quire__prefix_stand(pool, fork, parent->cursor);
    quire__prefix_rewind(pool, fork, len);
    if (len > 0)
        quire__events_put(pool,
                          (struct quire_event){
                              .kind = QUIRE_EVENT_SHARED,
                              .block = quire__seq_entries(pool, fork, 0)[fork->num_blocks - 1],
                              .parent = QUIRE_BLOCK_NONE,
                              .num_tokens = len,
                          });
}

/* ---- contiguous: copies ---- */

/* Copies `len` positions between two regions; the new one gets memory for `end`. */
static quire_status copy_rows(struct quire_pool *pool, uint32_t from, uint32_t to, uint32_t len,
                              uint32_t end)
{
    const struct quire__layout *layout = &pool->layout;
    const struct quire_memory_ops *memory = pool->backend->memory;
    quire_status status = QUIRE_OK;
    for (uint32_t layer = 0; layer < layout->num_layers && status == QUIRE_OK; layer++) {
        uint32_t count = quire__layout_ranges(layout, layer, to, 0, end, pool->ranges);
        if (pool->commits)
            status = memory->commit(pool->backend, pool->arena, pool->ranges, count);
        (void)quire__layout_ranges(layout, layer, to, 0, len, pool->ranges);
        uint64_t distance = ((uint64_t)from - to) * layout->page_bytes; /* may wrap, and back */
        for (uint32_t i = 0; i < count && status == QUIRE_OK; i++)
            status = memory->copy(pool->backend, pool->arena, pool->ranges[i].offset, pool->arena,
                                  pool->ranges[i].offset + distance, pool->ranges[i].bytes);
    }
    return quire__pool_note(pool, status);
}

static quire_status fork_contiguous(struct quire_pool *pool, const struct quire__seq *parent,
                                    struct quire__seq *fork, uint32_t len)
{
    uint32_t slot = quire__seq_slot(pool, fork);
    uint32_t num_blocks = quire__layout_blocks(&pool->layout, len);
    uint64_t end = (uint64_t)num_blocks * pool->layout.block_size;
    end = end < pool->layout.max_seq_len ? end : pool->layout.max_seq_len;
    if (num_blocks > quire__blocks_available(&pool->blocks))
        return QUIRE_E_NOSPACE;
    quire__seq_grow(pool, fork, num_blocks);
    if (pool->regions[slot].high < end)
        pool->regions[slot].high = (uint32_t)end;
    if (pool->has_kv && len > 0) {
        quire_status status =
            copy_rows(pool, quire__seq_slot(pool, parent), slot, len, (uint32_t)end);
        if (status != QUIRE_OK)
            return status;
    }
    fork->len = len;
    fork->hit_tokens = len;
    fork->has_tokens = parent->has_tokens;
    fork->tail_count = parent->tail_count;
    memcpy(quire__seq_tail(pool, fork), quire__seq_tail(pool, parent),
           parent->tail_count * sizeof(uint32_t));
    quire__prefix_rewind(pool, fork, len);
    return QUIRE_OK;
}

quire_status quire_seq_fork(struct quire_pool *pool, quire_seq seq, uint32_t len, quire_seq *fork,
                            uint32_t *longest)
{
    struct quire__seq *parent = fork != NULL ? quire__seq_lock(pool, seq) : NULL;
    if (parent == NULL)
        return QUIRE_E_INVAL;
    quire_status status = pool->failed ? QUIRE_E_DEVICE : QUIRE_OK;
    if (parent->step != QUIRE__NO_STEP)
        status = QUIRE_E_BUSY;
    else if (len > parent->len)
        status = QUIRE_E_INVAL;
    else if (pool->first_free_seq == pool->max_seqs)
        status = QUIRE_E_LIMIT;
    else if (!quire__seq_can_return(pool, parent, len, longest))
        status = QUIRE_E_NOTFOUND;
    if (status == QUIRE_OK) {
        struct quire__seq *slot = NULL;
        quire_seq handle = quire__seq_start(pool, parent->salt, parent->adapter, &slot);
        slot->wipe = parent->wipe; /* also of what a fork that fails leaves behind */
        if (pool->layout.contiguous)
            status = fork_contiguous(pool, parent, slot, len);
        else
            fork_paged(pool, parent, slot, len);
        if (status == QUIRE_OK)
            *fork = handle;
        else
            quire__seq_end(pool, slot);
    }
    quire__pool_unlock(pool);
    return status;
}

/* ---- looking again ---- */

/* Whether the tokens of a sequence are the first of a prefix, under the same salt and adapter. */
static bool begins(const struct quire_pool *pool, const struct quire__seq *seq,
                   const struct quire_seq_config *config)
{
    uint32_t size = pool->layout.block_size, node = seq->cursor;
    uint32_t full = pool->layout.contiguous ? 0 : seq->num_published * size;
    if (seq->salt != config->salt || seq->adapter != config->adapter || !seq->has_tokens ||
        seq->len > config->num_tokens)
        return false;
    if (seq->tail_count > 0 && memcmp(quire__seq_tail(pool, seq), config->tokens + full,
                                      seq->tail_count * sizeof(uint32_t)) != 0)
        return false;
    for (uint32_t i = seq->num_published; i-- > 0; node = pool->index.nodes[node].parent) {
        if (memcmp(quire__index_key(&pool->index, node), config->tokens + i * size,
                   size * sizeof(uint32_t)) != 0)
            return false;
    }
    return true;
}

static void rematch(struct quire_pool *pool, struct quire__seq *seq,
                    const struct quire_seq_config *config)
{
    if (config->num_tokens == 0)
        return;
    uint32_t found = quire__prefix_find(pool, config, config->num_tokens - 1);
    quire__prefix_note(pool, config->num_tokens, found > seq->len ? found : seq->len);
    if (found <= seq->len)
        return;
    /* Let go what it has: the longer prefix is in the index, and letting go evicts nothing. */
    quire__prefix_refill(pool, seq);
    quire__seq_shrink(pool, seq, 0);
    quire__prefix_rewind(pool, seq, 0);
    seq->len = 0;
    quire__prefix_adopt(pool, seq, config->tokens, found);
}

quire_status quire_seq_rematch(struct quire_pool *pool, quire_seq seq,
                               const struct quire_seq_config *config, uint32_t *len)
{
    struct quire__seq *found = config != NULL ? quire__seq_lock(pool, seq) : NULL;
    if (found == NULL)
        return QUIRE_E_INVAL;
    quire_status status = quire__prefix_check(pool, config);
    if (status == QUIRE_OK && pool->failed)
        status = QUIRE_E_DEVICE;
    if (status == QUIRE_OK && found->step != QUIRE__NO_STEP)
        status = QUIRE_E_BUSY;
    if (status == QUIRE_OK && !begins(pool, found, config))
        status = QUIRE_E_MISMATCH;
    if (status == QUIRE_OK)
        rematch(pool, found, config);
    if (status == QUIRE_OK && len != NULL)
        *len = found->len;
    quire__pool_unlock(pool);
    return status;
}

quire_status quire_pool_lookup(struct quire_pool *pool, const struct quire_seq_config *config,
                               uint32_t *len)
{
    if (pool == NULL || config == NULL || len == NULL)
        return QUIRE_E_INVAL;
    quire__pool_lock(pool);
    quire_status status = quire__prefix_check(pool, config);
    if (status == QUIRE_OK)
        *len =
            config->num_tokens > 0 ? quire__prefix_find(pool, config, config->num_tokens - 1) : 0;
    quire__pool_unlock(pool);
    return status;
}
