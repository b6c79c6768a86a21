/* seq.c - sequences: handles, growth, creation, truncation and end.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: one row of every table, of lens and of tails for each sequence.
 * Guarded by: pool->mutex.
 * Invariants: S1, S2, S3 of DESIGN.md. */
#include "cache/prefix.h"

#include <string.h>

void quire_seq_config_init(struct quire_seq_config *config)
{
    memset(config, 0, sizeof *config);
    config->struct_size = sizeof *config;
}

/* ---- handles ---- */

struct quire__seq *quire__seq_find(struct quire_pool *pool, quire_seq seq)
{
    uint32_t slot = (uint32_t)seq.id - 1u;
    if (slot >= pool->max_seqs)
        return NULL;
    struct quire__seq *found = &pool->seqs[slot];
    return found->live && found->generation == (uint32_t)(seq.id >> 32) ? found : NULL;
}

struct quire__seq *quire__seq_lock(struct quire_pool *pool, quire_seq seq)
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
        uint32_t *entries = quire__seq_entries(pool, seq, table);
        for (uint32_t i = seq->num_blocks; i < num_blocks; i++)
            entries[i] = quire__block_take(pool, table, seq->tenant);
    }
    seq->num_blocks = num_blocks;
}

/* Takes the memory of a contiguous region past the first `num_blocks` blocks back: up to the
 * highest position there ever was, as the pages that earlier cuts could only use in part may be
 * whole now. */
static void decommit(struct quire_pool *pool, const struct quire__seq *seq, uint32_t num_blocks)
{
    const struct quire__layout *layout = &pool->layout;
    uint32_t slot = quire__seq_slot(pool, seq);
    uint32_t first = num_blocks * layout->block_size, end = pool->regions[slot].high;
    for (uint32_t layer = 0; layer < layout->num_layers && first < end; layer++) {
        uint32_t count = quire__layout_ranges(layout, layer, slot, first, end, pool->ranges);
        pool->backend->memory->decommit(pool->backend, pool->arena, pool->ranges, count);
    }
}

/* S2: the slots of a table past the first `num_blocks` name nothing. A device that cannot be told
 * fails the pool, as its table would name blocks that others take. */
static void forget_slots(struct quire_pool *pool, const struct quire__seq *seq, uint32_t table,
                         uint32_t num_blocks)
{
    uint64_t row = quire__pool_row(pool, table, quire__seq_slot(pool, seq));
    uint64_t bytes = (uint64_t)(seq->num_blocks - num_blocks) * sizeof(uint32_t);
    uint64_t offset = (row + num_blocks) * sizeof(uint32_t);
    if (pool->backend->memory->fill(pool->backend, pool->tables, offset, bytes, 0xff) != QUIRE_OK)
        pool->failed = true;
}

void quire__seq_shrink(struct quire_pool *pool, struct quire__seq *seq, uint32_t num_blocks)
{
    if (num_blocks >= seq->num_blocks)
        return;
    uint32_t num_tables = pool->layout.num_tables, *first = quire__seq_first(pool, seq);
    uint32_t *last = quire__seq_entries(pool, seq, 0) + seq->num_blocks;
    uint64_t stride = quire__pool_row(pool, 1, 0) - quire__pool_row(pool, 0, 0);
    for (uint32_t i = seq->num_blocks; i-- > num_blocks;) {
        uint32_t *entry = --last;
        for (uint32_t table = 0; table < num_tables; table++, entry += stride) {
            if (*entry == QUIRE_BLOCK_NONE)
                continue;
            if (!quire__block_let_go(&pool->blocks, *entry))
                QUIRE_CHECK(quire__block_release_last(pool, *entry, seq->wipe) == QUIRE_OK);
            *entry = QUIRE_BLOCK_NONE;
        }
    }
    for (uint32_t table = 0; table < num_tables; table++) {
        if (pool->has_kv && !pool->layout.contiguous)
            forget_slots(pool, seq, table, num_blocks);
        first[table] = first[table] < num_blocks ? first[table] : num_blocks;
    }
    if (pool->commits)
        decommit(pool, seq, num_blocks);
    seq->num_blocks = num_blocks;
}

quire_seq quire__seq_start(struct quire_pool *pool, uint64_t salt, uint64_t adapter,
                           struct quire__seq **out)
{
    uint32_t slot = pool->first_free_seq;
    struct quire__seq *seq = &pool->seqs[slot];
    pool->first_free_seq = seq->next_free;
    pool->num_live++;
    seq->live = true;
    seq->has_tokens = true;
    seq->salt = salt;
    seq->adapter = adapter;
    seq->tenant = quire__tenant_acquire(&pool->tenants, salt);
    if (!pool->layout.contiguous) {
        quire__prefix_stand(pool, seq, quire__prefix_make_root(pool, salt, adapter));
    } else {
        struct quire__region *region = &pool->regions[slot];
        if (!quire__tenant_may_follow(seq->tenant, region->tenant))
            quire__region_wipe(pool, slot);
        quire__tenant_set(&pool->tenants, &region->tenant, seq->tenant);
    }
    *out = seq;
    return (quire_seq){(uint64_t)seq->generation << 32 | (slot + 1u)};
}

void quire__seq_end(struct quire_pool *pool, struct quire__seq *seq)
{
    uint32_t slot = quire__seq_slot(pool, seq);
    if (!pool->layout.contiguous) {
        quire__prefix_publish_tail(pool, seq);
        quire__prefix_refill(pool, seq);
    }
    quire__seq_shrink(pool, seq, 0);
    if (!pool->layout.contiguous) {
        pool->index.nodes[seq->cursor].cursors--;
        quire__node_prune(pool, seq->cursor);
    } else if (pool->commits) {
        quire__region_forget(pool, slot); /* its memory went back, and its bytes with it */
    } else if (seq->wipe) {
        quire__region_wipe(pool, slot);
    }
    quire__tenant_set(&pool->tenants, &seq->tenant, QUIRE__TENANT_NOBODY);
    *seq = (struct quire__seq){.generation = seq->generation + 1u,
                               .step = QUIRE__NO_STEP,
                               .cursor = QUIRE__NODE_NONE,
                               .twins_from = QUIRE__NO_TWIN,
                               .dirty_from = QUIRE__CLEAN,
                               .next_free = pool->first_free_seq};
    pool->first_free_seq = slot;
    pool->num_live--;
    quire__pool_keep_young(pool);
}

/* ---- life ---- */

static quire_status create_locked(struct quire_pool *pool, const struct quire_seq_config *config,
                                  quire_seq *seq)
{
    quire_status status = quire__prefix_check(pool, config);
    if (status == QUIRE_OK && pool->failed)
        status = QUIRE_E_DEVICE;
    if (status == QUIRE_OK && pool->first_free_seq == pool->max_seqs)
        status = QUIRE_E_LIMIT;
    if (status != QUIRE_OK)
        return status;
    struct quire__seq *slot = NULL;
    *seq = quire__seq_start(pool, config->salt, config->adapter, &slot);
    if (config->num_tokens == 0)
        return QUIRE_OK;
    uint32_t found = 0;
    if (config->no_lookup == 0)
        found = quire__prefix_find(pool, config, config->num_tokens - 1);
    if (found > 0)
        quire__prefix_adopt(pool, slot, config->tokens, found);
    quire__prefix_note(pool, config->num_tokens, found);
    return QUIRE_OK;
}

quire_status quire_seq_create(struct quire_pool *pool, const struct quire_seq_config *config,
                              quire_seq *seq)
{
    if (pool == NULL || seq == NULL)
        return QUIRE_E_INVAL;
    struct quire_seq_config none;
    quire_seq_config_init(&none);
    quire__pool_lock(pool);
    quire_status status = create_locked(pool, config != NULL ? config : &none, seq);
    quire__pool_unlock(pool);
    return status;
}

quire_status quire_seq_destroy(struct quire_pool *pool, quire_seq seq)
{
    struct quire__seq *found = quire__seq_lock(pool, seq);
    if (found == NULL)
        return QUIRE_E_INVAL;
    quire_status status = found->step != QUIRE__NO_STEP ? QUIRE_E_BUSY : QUIRE_OK;
    if (status == QUIRE_OK)
        quire__seq_end(pool, found);
    quire__pool_unlock(pool);
    return status;
}

/* Takes blocks that a window had let go back from the index, for a sequence that is to end at
 * `len`. pool->path has the nodes. */
static void retake(struct quire_pool *pool, struct quire__seq *seq, uint32_t len)
{
    uint32_t end = quire__layout_blocks(&pool->layout, len);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        uint32_t *first = &quire__seq_first(pool, seq)[t];
        uint32_t *entries = quire__seq_entries(pool, seq, t);
        uint32_t wanted = quire__window_first(pool, t, len);
        for (uint32_t i = wanted; i < *first && i < end; i++) {
            if (entries[i] != QUIRE_BLOCK_NONE)
                continue; /* a sink */
            entries[i] = quire__index_blocks(&pool->index, pool->path[i])[t];
            quire__block_acquire(pool, entries[i]);
            quire__seq_mark_dirty(seq, i);
        }
        if (wanted < *first)
            *first = wanted;
    }
}

bool quire__seq_can_return(struct quire_pool *pool, const struct quire__seq *seq, uint32_t len,
                           uint32_t *longest)
{
    bool holds = true;
    for (uint32_t t = 0; t < pool->layout.num_tables && holds; t++)
        holds = quire__seq_first(pool, seq)[t] <= quire__window_first(pool, t, len);
    if (holds)
        return true;
    quire__prefix_path(pool, seq, 0);
    uint32_t works = quire__window_longest(pool, seq, seq->num_published, len);
    if (works == len)
        return true;
    if (longest != NULL)
        *longest = works;
    return false;
}

static void cut(struct quire_pool *pool, struct quire__seq *seq, uint32_t len)
{
    if (!pool->layout.contiguous)
        quire__prefix_refill(pool, seq);
    if (pool->layout.has_windows)
        retake(pool, seq, len);
    quire__seq_shrink(pool, seq, quire__layout_blocks(&pool->layout, len));
    quire__prefix_rewind(pool, seq, len);
    seq->len = len;
}

quire_status quire_seq_truncate(struct quire_pool *pool, quire_seq seq, uint32_t len,
                                uint32_t *longest)
{
    struct quire__seq *found = quire__seq_lock(pool, seq);
    if (found == NULL)
        return QUIRE_E_INVAL;
    quire_status status = QUIRE_OK;
    if (found->step != QUIRE__NO_STEP)
        status = QUIRE_E_BUSY;
    else if (len > found->len)
        status = QUIRE_E_INVAL;
    else if (!quire__seq_can_return(pool, found, len, longest))
        status = QUIRE_E_NOTFOUND;
    if (status == QUIRE_OK)
        cut(pool, found, len);
    quire__pool_unlock(pool);
    return status;
}

quire_status quire_seq_reset(struct quire_pool *pool, quire_seq seq)
{
    return quire_seq_truncate(pool, seq, 0, NULL);
}

quire_status quire_seq_publish(struct quire_pool *pool, quire_seq seq)
{
    struct quire__seq *found = quire__seq_lock(pool, seq);
    if (found == NULL)
        return QUIRE_E_INVAL;
    quire_status status = pool->layout.contiguous ? QUIRE_E_UNSUPPORTED : QUIRE_OK;
    if (found->step != QUIRE__NO_STEP)
        status = QUIRE_E_BUSY;
    if (status == QUIRE_OK)
        quire__prefix_publish_tail(pool, found);
    quire__pool_unlock(pool);
    return status;
}
