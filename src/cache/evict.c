/* evict.c - which cached block goes first: a heap of those that may go, and the policy's order.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Four children a node: half the levels of a binary heap, and the children lie in one or two cache
 * lines. Guarded by: the pool's mutex. Invariants: E1 through blocks.c, which decides what is in
 * the heap. */
#include "cache/evict.h"

#include <quire/pool.h>

#include "cache/blocks.h"

enum { FAN = 4 };
static const uint32_t time_max = UINT32_C(1) << 31;

/* ---- policies ---- */

static uint32_t lru_stamp(uint32_t tick, uint32_t floor)
{
    (void)floor;
    return tick;
}

static uint32_t lru_priority(const struct quire__evict_facts *facts)
{
    return facts->stamp;
}

static uint32_t cost_stamp(uint32_t tick, uint32_t floor)
{
    (void)tick;
    return floor;
}

/* GreedyDual-Size-Frequency (Cherkasova, HPL-98-69R1, section 3): floor + hits * cost / size.
 * Blocks are of one size, and what a block costs to compute again are its tokens. */
static uint32_t cost_priority(const struct quire__evict_facts *facts)
{
    enum { UNIT = 1024 };
    uint64_t cost = (uint64_t)facts->num_tokens * UNIT / facts->block_size;
    return facts->stamp + (uint32_t)(cost * facts->hits);
}

static const struct quire__policy policies[] = {
    [QUIRE_EVICT_LRU] = {lru_stamp, lru_priority},
    [QUIRE_EVICT_COST] = {cost_stamp, cost_priority},
};

quire_status quire__evictor_init(struct quire__evictor *self, uint32_t eviction, uint32_t capacity)
{
    *self = (struct quire__evictor){0};
    if (eviction >= QUIRE_ARRAY_LEN(policies))
        return QUIRE_E_INVAL;
    self->policy = &policies[eviction];
    self->heap = quire__reserve((uint64_t)capacity * sizeof *self->heap);
    return self->heap != NULL ? QUIRE_OK : QUIRE_E_NOMEM;
}

void quire__evictor_deinit(struct quire__evictor *self, uint32_t capacity)
{
    quire__unreserve(self->heap, (uint64_t)capacity * sizeof *self->heap);
    self->heap = NULL;
}

/* ---- the heap ---- */

static void put(struct quire__evictor *self, struct quire__block *records, uint32_t place,
                struct quire__candidate candidate)
{
    self->heap[place] = candidate;
    records[candidate.block].place = place;
}

static void rise(struct quire__evictor *self, struct quire__block *records, uint32_t place,
                 struct quire__candidate candidate)
{
    while (place > 0) {
        uint32_t above = (place - 1) / FAN;
        if (self->heap[above].priority <= candidate.priority)
            break;
        put(self, records, place, self->heap[above]);
        place = above;
    }
    put(self, records, place, candidate);
}

static void sink(struct quire__evictor *self, struct quire__block *records, uint32_t place,
                 struct quire__candidate candidate)
{
    for (;;) {
        uint64_t first = (uint64_t)place * FAN + 1;
        uint64_t end = first + FAN < self->count ? first + FAN : self->count;
        if (first >= end)
            break;
        uint32_t least = (uint32_t)first;
        for (uint32_t i = (uint32_t)first + 1; i < end; i++) {
            if (self->heap[i].priority < self->heap[least].priority)
                least = i;
        }
        if (self->heap[least].priority >= candidate.priority)
            break;
        put(self, records, place, self->heap[least]);
        place = least;
    }
    put(self, records, place, candidate);
}

void quire__evictor_push(struct quire__evictor *self, struct quire__block *records, uint32_t block,
                         const struct quire__evict_facts *facts)
{
    QUIRE_CHECK(records[block].place == QUIRE__PLACE_NONE);
    struct quire__candidate candidate = {self->policy->priority(facts), block};
    rise(self, records, self->count++, candidate);
}

void quire__evictor_remove(struct quire__evictor *self, struct quire__block *records,
                           uint32_t block)
{
    uint32_t place = records[block].place;
    QUIRE_CHECK(place < self->count && self->heap[place].block == block);
    uint32_t priority = self->heap[place].priority;
    struct quire__candidate last = self->heap[--self->count];
    records[block].place = QUIRE__PLACE_NONE;
    if (last.block == block)
        return;
    if (last.priority < priority)
        rise(self, records, place, last);
    else
        sink(self, records, place, last);
}

uint32_t quire__evictor_pop(struct quire__evictor *self, struct quire__block *records)
{
    if (self->count == 0)
        return QUIRE_BLOCK_NONE;
    struct quire__candidate first = self->heap[0];
    quire__evictor_remove(self, records, first.block);
    self->floor = first.priority > self->floor ? first.priority : self->floor;
    return first.block;
}

/* ---- time ---- */

uint32_t quire__evictor_stamp(struct quire__evictor *self)
{
    return self->policy->stamp(self->tick++, self->floor);
}

bool quire__evictor_is_old(const struct quire__evictor *self)
{
    return self->tick >= time_max || self->floor >= time_max;
}

void quire__evictor_halve(struct quire__evictor *self)
{
    self->tick /= 2;
    self->floor /= 2;
    for (uint32_t i = 0; i < self->count; i++)
        self->heap[i].priority /= 2;
}

quire_status quire__evictor_check(const struct quire__evictor *self,
                                  const struct quire__block *records, struct quire_error *error)
{
    for (uint32_t i = 0; i < self->count; i++) {
        const struct quire__candidate *c = &self->heap[i];
        if (records[c->block].place != i ||
            (i > 0 && self->heap[(i - 1) / FAN].priority > c->priority))
            return quire__fail(error, QUIRE_E_CORRUPT,
                               "E1: block %u is out of place %u of the heap", c->block, i);
    }
    return QUIRE_OK;
}
