/* pin.c - prefixes that are kept whatever else needs memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A pin holds a reference on each block that a sequence of its length would: in a group with a
 * window, the sinks and the last window. It stands on the node of its last block, from which it
 * finds the others again, as a named block that is held keeps its name.
 *
 * Owns: the pins. Guarded by: pool->mutex. Invariants: P2, P5, E1. */
#include "cache/prefix.h"

/* Fills pool->path with the nodes of a pin's blocks; returns how many. */
static uint32_t fill_path(struct quire_pool *pool, const struct quire__pin *pin)
{
    uint32_t count = quire__layout_blocks(&pool->layout, pin->len), node = pin->node;
    for (uint32_t i = count; i-- > 0; node = pool->index.nodes[node].parent)
        pool->path[i] = node;
    return count;
}

/* The block i of a table that a prefix of `len` positions needs, or QUIRE_BLOCK_NONE. */
static uint32_t needed(const struct quire_pool *pool, uint32_t table, uint32_t len, uint32_t i)
{
    uint32_t first = quire__window_first(pool, table, len);
    return quire__window_needs(pool, table, first, i)
               ? quire__index_blocks(&pool->index, pool->path[i])[table]
               : QUIRE_BLOCK_NONE;
}

static uint32_t count_needed(const struct quire_pool *pool, uint32_t len)
{
    uint32_t count = 0, end = quire__layout_blocks(&pool->layout, len);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        for (uint32_t i = 0; i < end; i++)
            count += quire__window_needs(pool, t, quire__window_first(pool, t, len), i);
    }
    return count;
}

/* pool->path has the nodes of the prefix. */
static quire_pin hold(struct quire_pool *pool, uint32_t len, uint32_t blocks)
{
    uint32_t slot = pool->first_free_pin, end = quire__layout_blocks(&pool->layout, len);
    struct quire__pin *pin = &pool->pins[slot];
    pool->first_free_pin = pin->next_free;
    for (uint32_t i = 0; i < end; i++) {
        for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
            uint32_t block = needed(pool, t, len, i);
            if (block != QUIRE_BLOCK_NONE)
                quire__block_acquire(pool, block);
        }
    }
    pin->live = true;
    pin->len = len;
    pin->blocks = blocks;
    pin->node = pool->path[end - 1];
    pool->index.nodes[pin->node].cursors++;
    pool->num_pins++;
    pool->num_pinned_blocks += blocks;
    return (quire_pin){(uint64_t)pin->generation << 32 | (slot + 1u)};
}

static quire_status pin_locked(struct quire_pool *pool, const struct quire_seq_config *config,
                               quire_pin *pin, uint32_t *len, struct quire_error *error)
{
    quire_status status = quire__prefix_check(pool, config);
    if (status != QUIRE_OK)
        return quire__fail(error, status, "the prefix to pin is wrong or too long");
    if (pool->failed)
        return quire__fail(error, QUIRE_E_DEVICE, "the device failed: reset the pool");
    if (pool->layout.contiguous)
        return quire__fail(error, QUIRE_E_UNSUPPORTED, "the contiguous layout caches no prefix");
    uint32_t found = quire__prefix_find(pool, config, config->num_tokens);
    if (found == 0)
        return quire__fail(error, QUIRE_E_NOTFOUND, "nothing of the prefix is cached");
    uint32_t blocks = count_needed(pool, found);
    if (pool->first_free_pin == pool->max_pins)
        return quire__fail(error, QUIRE_E_LIMIT, "%u pins are alive, which is all (max_pins)",
                           pool->num_pins);
    if ((uint64_t)pool->num_pinned_blocks + blocks > pool->max_pinned_blocks)
        return quire__fail(error, QUIRE_E_LIMIT,
                           "the prefix has %u blocks, and %u of %u pinned blocks "
                           "(max_pinned_blocks) are taken",
                           blocks, pool->num_pinned_blocks, pool->max_pinned_blocks);
    *pin = hold(pool, found, blocks);
    if (len != NULL)
        *len = found;
    return QUIRE_OK;
}

quire_status quire_pool_pin(struct quire_pool *pool, const struct quire_seq_config *config,
                            quire_pin *pin, uint32_t *len, struct quire_error *error)
{
    if (pool == NULL || config == NULL || pin == NULL)
        return quire__fail(error, QUIRE_E_INVAL, "pool, config and pin must not be NULL");
    quire__pool_lock(pool);
    quire_status status = pin_locked(pool, config, pin, len, error);
    quire__pool_unlock(pool);
    return status;
}

void quire__pin_end(struct quire_pool *pool, struct quire__pin *pin)
{
    for (uint32_t i = fill_path(pool, pin); i-- > 0;) {
        for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
            uint32_t block = needed(pool, t, pin->len, i);
            if (block != QUIRE_BLOCK_NONE)
                QUIRE_CHECK(quire__block_release(pool, block, false) == QUIRE_OK);
        }
    }
    pool->index.nodes[pin->node].cursors--;
    quire__node_prune(pool, pin->node);
    pool->num_pinned_blocks -= pin->blocks;
    pool->num_pins--;
    *pin =
        (struct quire__pin){.generation = pin->generation + 1u, .next_free = pool->first_free_pin};
    pool->first_free_pin = (uint32_t)(pin - pool->pins);
}

quire_status quire_pool_unpin(struct quire_pool *pool, quire_pin pin)
{
    if (pool == NULL)
        return QUIRE_E_INVAL;
    quire__pool_lock(pool);
    uint32_t slot = (uint32_t)pin.id - 1u;
    quire_status status = QUIRE_E_INVAL;
    if (slot < pool->max_pins && pool->pins[slot].live &&
        pool->pins[slot].generation == (uint32_t)(pin.id >> 32)) {
        quire__pin_end(pool, &pool->pins[slot]);
        status = QUIRE_OK;
    }
    quire__pool_unlock(pool);
    return status;
}

uint32_t quire__pins_count(struct quire_pool *pool, uint32_t *refs, uint32_t *cursors)
{
    uint32_t held = 0;
    for (uint32_t slot = 0; slot < pool->max_pins; slot++) {
        const struct quire__pin *pin = &pool->pins[slot];
        if (!pin->live)
            continue;
        cursors[pin->node]++;
        for (uint32_t i = fill_path(pool, pin); i-- > 0;) {
            for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
                uint32_t block = needed(pool, t, pin->len, i);
                if (block == QUIRE_BLOCK_NONE)
                    continue;
                refs[block]++;
                held++;
            }
        }
    }
    return held;
}
