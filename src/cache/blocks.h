/* blocks.h - the accountant of a pool: which blocks are free, owned or cached, and who names them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The only place that changes the state of a block. None of these allocates. Guarded by the pool's
 * mutex. */
#ifndef QUIRE_CACHE_BLOCKS_H
#define QUIRE_CACHE_BLOCKS_H

#include "base/base.h"

struct quire_pool;

enum quire__block_state {
    QUIRE__BLOCK_FREE = 0,
    QUIRE__BLOCK_OWNED = 1,      /* refs > 0 */
    QUIRE__BLOCK_CACHED = 2,     /* refs = 0, named by a node */
    QUIRE__BLOCK_IN_TRANSIT = 3, /* a transfer reads or writes it */
    QUIRE__BLOCK_STATES = 4
};

#define QUIRE__REFS_MAX 0xffffffu

/* 16 bytes: four to a cache line. */
struct quire__block {
    uint32_t refs : 24; /* of tables, pins, and steps that hold the original of a copy */
    uint32_t state : 2;
    uint32_t table : 6; /* that it serves, while not free */
    uint32_t node;      /* that names it, or QUIRE__NODE_NONE */
    uint32_t place;     /* free: the next free block; cached: in the heap, or NONE */
    uint32_t tenant;    /* whose bytes it may hold (tenants.h) */
};

struct quire__blocks {
    struct quire__block *records; /* [total] */
    uint32_t total;
    uint32_t first_free; /* a stack: the block freed last, whose memory is warm, is taken first */
    uint32_t in_state[QUIRE__BLOCK_STATES];
    uint32_t peak; /* most blocks not free */
};

quire_status quire__blocks_init(struct quire__blocks *self, uint32_t total);
void quire__blocks_deinit(struct quire__blocks *self);

/* Blocks that can be had: the free and the cached (E2). */
static inline uint64_t quire__blocks_available(const struct quire__blocks *self)
{
    return (uint64_t)self->in_state[QUIRE__BLOCK_FREE] + self->in_state[QUIRE__BLOCK_CACHED];
}

/* Takes a block with one reference, a free one or the first to evict; the caller has seen that one
 * is available. What another tenant left in it is zeroed (T2). */
uint32_t quire__block_take(struct quire_pool *pool, uint32_t table, uint32_t tenant);
/* Adds a reference to an owned or cached block. */
void quire__block_acquire(struct quire_pool *pool, uint32_t block);
/* Drops a reference that is not the last one; false, and nothing done, for any other. Most
 * references of a fork are such: no call for each. */
static inline bool quire__block_let_go(struct quire__blocks *self, uint32_t block)
{
    if (block >= self->total || self->records[block].refs < 2)
        return false;
    self->records[block].refs--;
    return true;
}

/* Drops the last reference, which caches the block where a node that is not detached names it, else
 * frees it; `wipe`, or a detached node, zeroes what is freed. INVAL, and nothing done, for a block
 * that is free, cached or does not exist. */
quire_status quire__block_release_last(struct quire_pool *pool, uint32_t block, bool wipe);
/* Drops a reference, the last one or not. */
quire_status quire__block_release(struct quire_pool *pool, uint32_t block, bool wipe);

/* Makes a node name an owned block, or no block any more. */
void quire__block_name(struct quire_pool *pool, uint32_t block, uint32_t node);
void quire__block_unname(struct quire_pool *pool, uint32_t block);
/* Evicts the block that the policy names; false when none is cached. */
bool quire__block_evict(struct quire_pool *pool);
/* Frees every cached block; no bytes are touched. */
void quire__block_forget_all(struct quire_pool *pool);
/* Frees a cached block and zeroes it. */
void quire__block_drop(struct quire_pool *pool, uint32_t block);
/* Zeroes a block's bytes, if it may hold any. */
void quire__block_wipe(struct quire_pool *pool, uint32_t block);

/* Whether a node has a cached block of a group without a window, counted anew. */
bool quire__node_has_cached(const struct quire_pool *pool, uint32_t node);
/* Takes a node and those above it away that have neither blocks, children nor cursors. */
void quire__node_prune(struct quire_pool *pool, uint32_t node);

/* P1, P2, P4, E1 and the blocks' part of X4. refs [total]: the entries that name each block. */
quire_status quire__blocks_check(const struct quire_pool *pool, const uint32_t *refs,
                                 struct quire_error *error);

#endif
