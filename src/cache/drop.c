/* drop.c - forgetting on purpose: by prefix, and by tenant.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What is dropped is severed from the index node by node, from the top. Cached blocks are zeroed
 * and free at once. Blocks that somebody holds keep their nodes, out of everybody's sight, until
 * the last holder lets go; then blocks.c zeroes them, as their node is detached.
 *
 * Guarded by: pool->mutex. Invariants: T2, X4. */
#include "cache/prefix.h"

#include <string.h>

/* Forgets one severed node's cached blocks; its children have been severed. */
static void drop_blocks(struct quire_pool *pool, uint32_t node)
{
    const uint32_t *blocks = quire__index_blocks(&pool->index, node);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        if (blocks[t] == QUIRE_BLOCK_NONE)
            continue;
        pool->figures.dropped++;
        if (pool->blocks.records[blocks[t]].state == QUIRE__BLOCK_CACHED)
            quire__block_drop(pool, blocks[t]);
        else
            quire__events_block(pool, QUIRE_EVENT_DROPPED, blocks[t]);
    }
}

/* Severs a node and all below it. `left` of severed nodes links the ones still to be looked at. */
static void drop_tree(struct quire_pool *pool, uint32_t top)
{
    struct quire__node *nodes = pool->index.nodes;
    quire__index_sever(&pool->index, top);
    nodes[top].left = QUIRE__NODE_NONE;
    for (uint32_t node = top; node != QUIRE__NODE_NONE;) {
        uint32_t todo = nodes[node].left;
        nodes[node].left = QUIRE__NODE_NONE;
        nodes[node].cursors++; /* stay while it is looked at */
        while (nodes[node].children != QUIRE__NODE_NONE) {
            uint32_t child = nodes[node].children;
            quire__index_sever(&pool->index, child);
            nodes[child].left = todo;
            todo = child;
        }
        if (!quire__index_is_root(&pool->index, node))
            drop_blocks(pool, node);
        nodes[node].cursors--;
        quire__node_prune(pool, node);
        node = todo;
    }
}

/* Drops the children of a node (NONE: roots) whose keys begin with these words; all of a node that
 * exists when there are none. */
static void drop_children(struct quire_pool *pool, uint32_t parent, const uint32_t *words,
                          uint32_t count)
{
    if (parent != QUIRE__NODE_NONE)
        pool->index.nodes[parent].cursors++;
    for (;;) {
        struct quire__match match = {QUIRE__NODE_NONE, 0};
        if (count > 0)
            match = quire__index_match(&pool->index, parent, words, count);
        else
            match.node = pool->index.nodes[parent].children;
        if (match.node == QUIRE__NODE_NONE || match.common < count)
            break;
        drop_tree(pool, match.node);
    }
    if (parent != QUIRE__NODE_NONE) {
        pool->index.nodes[parent].cursors--;
        quire__node_prune(pool, parent);
    }
}

static void end_dropped_pins(struct quire_pool *pool)
{
    for (uint32_t i = 0; i < pool->max_pins; i++) {
        if (pool->pins[i].live && pool->index.nodes[pool->pins[i].node].detached)
            quire__pin_end(pool, &pool->pins[i]);
    }
}

/* ---- by tenant ---- */

/* Whether bytes may be a tenant's: it may have left some before it had a number of its own. */
static bool may_be(uint32_t left_by, uint32_t tenant)
{
    return left_by == tenant || left_by == QUIRE__TENANT_OTHERS;
}

static void drop_salt(struct quire_pool *pool, uint64_t salt)
{
    const uint32_t words[2] = {(uint32_t)salt, (uint32_t)(salt >> 32)};
    uint32_t tenant = quire__tenant_find(&pool->tenants, salt);
    if (!pool->layout.contiguous) {
        drop_children(pool, QUIRE__NODE_NONE, words, 2);
        end_dropped_pins(pool);
    }
    for (uint32_t i = 0; i < pool->max_seqs; i++) {
        struct quire__seq *seq = &pool->seqs[i];
        if (seq->live && seq->salt == salt)
            seq->wipe = true;
        else if (!seq->live && pool->layout.contiguous && may_be(pool->regions[i].tenant, tenant))
            quire__region_wipe(pool, i);
    }
    for (uint32_t i = 0; i < pool->blocks.total; i++) {
        const struct quire__block *block = &pool->blocks.records[i];
        if (block->state == QUIRE__BLOCK_FREE && may_be(block->tenant, tenant))
            quire__block_wipe(pool, i);
    }
}

quire_status quire_pool_drop(struct quire_pool *pool, uint64_t salt)
{
    if (pool == NULL)
        return QUIRE_E_INVAL;
    quire__pool_lock(pool);
    quire_status status = pool->failed ? QUIRE_E_DEVICE : QUIRE_OK;
    if (status == QUIRE_OK) {
        drop_salt(pool, salt);
        status = pool->failed ? QUIRE_E_DEVICE : QUIRE_OK;
    }
    quire__pool_unlock(pool);
    return status;
}

/* ---- by prefix ---- */

/* Live sequences in the middle of the first dropped block: what they go on to compute would bring
 * the prefix back. */
static void hide_tails(struct quire_pool *pool, uint32_t parent, const uint32_t *words,
                       uint32_t count)
{
    for (uint32_t i = 0; i < pool->max_seqs; i++) {
        struct quire__seq *seq = &pool->seqs[i];
        if (seq->live && seq->cursor == parent && seq->tail_count > 0 && seq->tail_count >= count &&
            memcmp(quire__seq_tail(pool, seq), words, count * sizeof *words) == 0)
            seq->hidden = true;
    }
}

static void drop_prefix(struct quire_pool *pool, const struct quire_seq_config *config)
{
    uint32_t size = pool->layout.block_size, at = 0;
    uint32_t node = quire__prefix_root(pool, config->salt, config->adapter);
    while (node != QUIRE__NODE_NONE && config->num_tokens - at > size) {
        struct quire__match match =
            quire__index_match(&pool->index, node, config->tokens + at, size);
        node = match.common == size ? match.node : QUIRE__NODE_NONE;
        at += size;
    }
    if (node == QUIRE__NODE_NONE)
        return;
    static const uint32_t no_words[1] = {0};
    uint32_t left = config->num_tokens - at;
    const uint32_t *words = left > 0 ? config->tokens + at : no_words;
    hide_tails(pool, node, words, left);
    drop_children(pool, node, words, left);
    end_dropped_pins(pool);
}

quire_status quire_pool_drop_prefix(struct quire_pool *pool, const struct quire_seq_config *config,
                                    uint64_t *dropped)
{
    if (pool == NULL || config == NULL)
        return QUIRE_E_INVAL;
    quire__pool_lock(pool);
    quire_status status = quire__prefix_check(pool, config);
    if (status == QUIRE_OK && pool->failed)
        status = QUIRE_E_DEVICE;
    if (status == QUIRE_OK) {
        uint64_t before = pool->figures.dropped;
        if (!pool->layout.contiguous)
            drop_prefix(pool, config);
        if (dropped != NULL)
            *dropped = pool->figures.dropped - before;
        status = pool->failed ? QUIRE_E_DEVICE : QUIRE_OK;
    }
    quire__pool_unlock(pool);
    return status;
}
