/* blocks.h - the accountant of a pool: which blocks are free, and how often the others are held.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The only place that changes the state of a block. All functions are O(1) but the check, and none
 * allocates after init. Guarded by the pool's mutex. */
#ifndef QUIRE_CACHE_BLOCKS_H
#define QUIRE_CACHE_BLOCKS_H

#include "base/base.h"

enum quire__block_state {
    QUIRE__BLOCK_FREE = 0,
    QUIRE__BLOCK_OWNED = 1,      /* refs > 0 */
    QUIRE__BLOCK_CACHED = 2,     /* refs = 0, findable */
    QUIRE__BLOCK_IN_TRANSIT = 3, /* a transfer reads or writes it */
    QUIRE__BLOCK_STATES = 4
};

/* A physical block at one time of its life: a released id is refused for ever (P5). */
struct quire__block_id {
    uint32_t index;
    uint32_t generation;
};

struct quire__block {
    uint32_t refs;
    uint32_t generation; /* counts the lives of the block; moves on when it becomes free */
    uint32_t next_free;  /* while free; QUIRE_BLOCK_NONE ends the list */
    uint32_t state;
};

struct quire__blocks {
    struct quire__block *blocks; /* [total] */
    uint32_t total;
    uint32_t first_free;
    uint32_t in_state[QUIRE__BLOCK_STATES];
    uint32_t peak; /* most blocks not free */
};

quire_status quire__blocks_init(struct quire__blocks *self, uint32_t total);
void quire__blocks_deinit(struct quire__blocks *self);

/* Takes a free block with one reference. The caller has seen that one is free. */
struct quire__block_id quire__blocks_take(struct quire__blocks *self);
/* Adds a reference. INVAL for a stale or free id. */
quire_status quire__blocks_acquire(struct quire__blocks *self, struct quire__block_id id);
/* Drops a reference; the last one frees the block. INVAL for a stale or doubly freed id. */
quire_status quire__blocks_release(struct quire__blocks *self, struct quire__block_id id);

/* P1, P2, P4. refs [total]: the table entries that name each block. */
quire_status quire__blocks_check(const struct quire__blocks *self, const uint32_t *refs,
                                 struct quire_error *error);

#endif
