/* evict.h - which cached block goes first: a heap of those that may go, and the policy's order.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by the pool's mutex. */
#ifndef QUIRE_CACHE_EVICT_H
#define QUIRE_CACHE_EVICT_H

#include "base/base.h"

#define QUIRE__PLACE_NONE UINT32_MAX

/* What a policy may look at. */
struct quire__evict_facts {
    uint32_t stamp;      /* of the block's node, see below */
    uint32_t hits;       /* lookups that came by its node, at least 1 */
    uint32_t num_tokens; /* that its node has, of block_size */
    uint32_t block_size;
};

/* A policy: two functions. What has the lowest priority goes first. */
struct quire__policy {
    /* A node's stamp when its blocks are let go. tick counts such moments; floor is the priority
     * of what was evicted last. */
    uint32_t (*stamp)(uint32_t tick, uint32_t floor);
    /* Rises with the stamp, one for one. */
    uint32_t (*priority)(const struct quire__evict_facts *facts);
};

struct quire__candidate {
    uint32_t priority;
    uint32_t block;
};

struct quire__evictor {
    const struct quire__policy *policy;
    struct quire__candidate *heap; /* [capacity], the lowest priority first; four children each */
    uint32_t count;
    uint32_t tick, floor;
};

/* eviction: an enum quire_eviction. INVAL for another, NOMEM. */
quire_status quire__evictor_init(struct quire__evictor *self, uint32_t eviction, uint32_t capacity);
void quire__evictor_deinit(struct quire__evictor *self, uint32_t capacity);

struct quire__block;
/* Blocks know their place in the heap: records[block].place. */
void quire__evictor_push(struct quire__evictor *self, struct quire__block *records, uint32_t block,
                         const struct quire__evict_facts *facts);
void quire__evictor_remove(struct quire__evictor *self, struct quire__block *records,
                           uint32_t block);
/* Takes out the block that goes first; QUIRE_BLOCK_NONE when there is none. */
uint32_t quire__evictor_pop(struct quire__evictor *self, struct quire__block *records);
/* The next stamp. */
uint32_t quire__evictor_stamp(struct quire__evictor *self);

/* Time is 32 bits wide. True when it has to be halved: then the pool halves every stamp, and calls
 * the second function for the rest. The order stays, but for ties. */
bool quire__evictor_is_old(const struct quire__evictor *self);
void quire__evictor_halve(struct quire__evictor *self);

/* The heap's order, and that blocks know their places. */
quire_status quire__evictor_check(const struct quire__evictor *self,
                                  const struct quire__block *records, struct quire_error *error);

#endif
