/* evict.h - which cached block goes first: a heap of those that may go, and the policy's order.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by the pool's mutex. */
#ifndef QUIRE_CACHE_EVICT_H
#define QUIRE_CACHE_EVICT_H

#include "base/base.h"

#define QUIRE__PLACE_NONE UINT32_MAX
enum { QUIRE__HIT_CLASSES = 8 };

/* What a policy may look at. */
struct quire__evict_facts {
    uint32_t hits;       /* lookups that came by the block's node, at least 1 */
    uint32_t num_tokens; /* that its node has, of block_size */
    uint32_t block_size;
};

struct quire__evictor;

/* A policy: how many let-gos of other blocks one block is worth more than recency says. The block
 * of the lowest priority goes first: the time when it was let go, plus its worth. */
struct quire__policy {
    uint32_t (*worth)(const struct quire__evictor *self, const struct quire__evict_facts *facts);
};

struct quire__candidate {
    uint32_t priority;
    uint32_t block;
};

struct quire__evictor {
    const struct quire__policy *policy;
    struct quire__candidate *heap; /* [capacity], the lowest priority first; four children each */
    uint32_t count, capacity;
    uint32_t tick; /* counts let-gos */
    /* By the class of a block's hits, floor(log2): how many were cached, and found again. */
    uint32_t seen[QUIRE__HIT_CLASSES], reused[QUIRE__HIT_CLASSES];
};

/* eviction: an enum quire_eviction. INVAL for another, NOMEM. */
quire_status quire__evictor_init(struct quire__evictor *self, uint32_t eviction, uint32_t capacity);
void quire__evictor_deinit(struct quire__evictor *self);

struct quire__block;
/* Blocks know their place in the heap: records[block].place. */
void quire__evictor_push(struct quire__evictor *self, struct quire__block *records, uint32_t block,
                         uint32_t stamp, const struct quire__evict_facts *facts);
void quire__evictor_remove(struct quire__evictor *self, struct quire__block *records,
                           uint32_t block);
/* Takes out the block that goes first; QUIRE_BLOCK_NONE when there is none. */
uint32_t quire__evictor_pop(struct quire__evictor *self, struct quire__block *records);
static inline uint32_t quire__hit_class(uint32_t hits)
{
    uint32_t class = 31u - (uint32_t)__builtin_clz(hits | 1u);
    return class < QUIRE__HIT_CLASSES ? class : QUIRE__HIT_CLASSES - 1;
}

/* A block with so many hits was let go and is cached; returns its stamp. */
static inline uint32_t quire__evictor_cached(struct quire__evictor *self, uint32_t hits)
{
    uint32_t class = quire__hit_class(hits);
    if (++self->seen[class] / 4 > self->capacity) { /* what was long ago counts less */
        self->seen[class] /= 2;
        self->reused[class] /= 2;
    }
    return self->tick++;
}

/* A cached block with so many hits was found. */
void quire__evictor_found(struct quire__evictor *self, uint32_t hits);

/* Time is 32 bits wide. True when it has to be halved: then the pool halves every stamp, and calls
 * the second function for the rest. The order stays, but for ties. */
bool quire__evictor_is_old(const struct quire__evictor *self);
void quire__evictor_halve(struct quire__evictor *self);

/* The heap's order, and that blocks know their places. */
quire_status quire__evictor_check(const struct quire__evictor *self,
                                  const struct quire__block *records, struct quire_error *error);

#endif
