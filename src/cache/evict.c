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
/* Their sum stays below 2^32, with room for the steps between two looks at the time. */
static const uint32_t tick_max = UINT32_C(1) << 31, worth_max = UINT32_C(1) << 29;

/* ---- policies ---- */

static uint32_t lru_worth(const struct quire__evictor *self, const struct quire__evict_facts *facts)
{
    (void)self;
    (void)facts;
    return 0;
}

/* GreedyDual (Cao, Irani 1997) keeps what is worth most for its bytes: here the tokens that a block
 * saves, times how likely it is to be found again. GreedyDual-Size-Frequency takes the hits for
 * that likelihood; counting how often blocks of so many hits came back tells it from one-shot
 * prompts. A block that surely returns outlives two turnovers of the pool. docs/eviction.md has
 * the measurements behind both numbers. */
static uint32_t cost_worth(const struct quire__evictor *self,
                           const struct quire__evict_facts *facts)
{
    enum { TURNOVERS = 2, PRIOR_SEEN = 20, PRIOR_REUSED = 10 };
    uint32_t class = quire__hit_class(facts->hits);
    uint64_t most = (uint64_t)TURNOVERS * self->capacity;
    most = most < worth_max ? most : worth_max;
    uint64_t whole = most * ((uint64_t)self->reused[class] + PRIOR_REUSED) /
                     ((uint64_t)self->seen[class] + PRIOR_SEEN);
    return (uint32_t)(whole * facts->num_tokens / facts->block_size);
}

static const struct quire__policy policies[] = {
    [QUIRE_EVICT_LRU] = {lru_worth},
    [QUIRE_EVICT_COST] = {cost_worth},
};

quire_status quire__evictor_init(struct quire__evictor *self, uint32_t eviction, uint32_t capacity)
{
    *self = (struct quire__evictor){.capacity = capacity};
    if (eviction >= QUIRE_ARRAY_LEN(policies))
        return QUIRE_E_INVAL;
    self->policy = &policies[eviction];
    self->heap = quire__reserve((uint64_t)capacity * sizeof *self->heap);
    return self->heap != NULL ? QUIRE_OK : QUIRE_E_NOMEM;
}

void quire__evictor_deinit(struct quire__evictor *self)
{
    quire__unreserve(self->heap, (uint64_t)self->capacity * sizeof *self->heap);
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
                         uint32_t stamp, const struct quire__evict_facts *facts)
{
    QUIRE_CHECK(records[block].place == QUIRE__PLACE_NONE);
    struct quire__candidate candidate = {stamp + self->policy->worth(self, facts), block};
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
    return first.block;
}

/* ---- time ---- */

void quire__evictor_found(struct quire__evictor *self, uint32_t hits)
{
    uint32_t class = quire__hit_class(hits);
    if (self->reused[class] < self->seen[class])
        self->reused[class]++;
}

bool quire__evictor_is_old(const struct quire__evictor *self)
{
    return self->tick >= tick_max;
}

void quire__evictor_halve(struct quire__evictor *self)
{
    self->tick /= 2;
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
