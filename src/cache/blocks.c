/* blocks.c - the accountant of a pool: which blocks are free, and how often the others are held.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: the block records and the free list, an intrusive stack, so that the block freed last,
 * whose memory is warm, is taken first. Guarded by: the pool's mutex. Invariants: P1, P2, P4, P5 of
 * DESIGN.md. */
#include "cache/blocks.h"

#include <quire/backend.h>

quire_status quire__blocks_init(struct quire__blocks *self, uint32_t total)
{
    *self = (struct quire__blocks){.total = total, .first_free = QUIRE_BLOCK_NONE};
    self->blocks = quire__calloc(total, sizeof *self->blocks);
    if (self->blocks == NULL)
        return QUIRE_E_NOMEM;
    for (uint32_t i = total; i-- > 0;) {
        self->blocks[i].next_free = self->first_free;
        self->blocks[i].generation = 1;
        self->first_free = i;
    }
    self->in_state[QUIRE__BLOCK_FREE] = total;
    return QUIRE_OK;
}

void quire__blocks_deinit(struct quire__blocks *self)
{
    quire__free(self->blocks);
    self->blocks = NULL;
}

static void move(struct quire__blocks *self, struct quire__block *block,
                 enum quire__block_state state)
{
    self->in_state[block->state]--;
    self->in_state[state]++;
    block->state = state;
}

struct quire__block_id quire__blocks_take(struct quire__blocks *self)
{
    uint32_t index = self->first_free;
    QUIRE_CHECK(index < self->total);
    struct quire__block *block = &self->blocks[index];
    QUIRE_CHECK(block->state == QUIRE__BLOCK_FREE && block->refs == 0);
    self->first_free = block->next_free;
    block->next_free = QUIRE_BLOCK_NONE;
    block->refs = 1;
    move(self, block, QUIRE__BLOCK_OWNED);
    uint32_t in_use = self->total - self->in_state[QUIRE__BLOCK_FREE];
    self->peak = in_use > self->peak ? in_use : self->peak;
    return (struct quire__block_id){index, block->generation};
}

/* The block that a fresh id names, while somebody holds it; NULL otherwise. */
static struct quire__block *find_owned(struct quire__blocks *self, struct quire__block_id id)
{
    if (id.index >= self->total)
        return NULL;
    struct quire__block *block = &self->blocks[id.index];
    if (block->generation != id.generation || block->state != QUIRE__BLOCK_OWNED)
        return NULL;
    QUIRE_CHECK(block->refs > 0);
    return block;
}

quire_status quire__blocks_acquire(struct quire__blocks *self, struct quire__block_id id)
{
    struct quire__block *block = find_owned(self, id);
    if (block == NULL)
        return QUIRE_E_INVAL;
    if (block->refs == UINT32_MAX)
        return QUIRE_E_LIMIT;
    block->refs++;
    return QUIRE_OK;
}

quire_status quire__blocks_release(struct quire__blocks *self, struct quire__block_id id)
{
    struct quire__block *block = find_owned(self, id);
    if (block == NULL)
        return QUIRE_E_INVAL;
    if (--block->refs > 0)
        return QUIRE_OK;
    block->generation++;
    move(self, block, QUIRE__BLOCK_FREE);
    block->next_free = self->first_free;
    self->first_free = id.index;
    return QUIRE_OK;
}

static quire_status check_free_list(const struct quire__blocks *self, struct quire_error *error)
{
    uint32_t length = 0;
    for (uint32_t i = self->first_free; i != QUIRE_BLOCK_NONE; i = self->blocks[i].next_free) {
        if (i >= self->total || self->blocks[i].state != QUIRE__BLOCK_FREE)
            return quire__fail(error, QUIRE_E_CORRUPT, "P1: block %u in the free list is not free",
                               i);
        if (++length > self->total)
            return quire__fail(error, QUIRE_E_CORRUPT, "P1: the free list has a cycle");
    }
    if (length != self->in_state[QUIRE__BLOCK_FREE])
        return quire__fail(error, QUIRE_E_CORRUPT, "P4: %u blocks in the free list, %u counted",
                           length, self->in_state[QUIRE__BLOCK_FREE]);
    return QUIRE_OK;
}

quire_status quire__blocks_check(const struct quire__blocks *self, const uint32_t *refs,
                                 struct quire_error *error)
{
    uint32_t counted[QUIRE__BLOCK_STATES] = {0};
    for (uint32_t i = 0; i < self->total; i++) {
        const struct quire__block *block = &self->blocks[i];
        if (block->state >= QUIRE__BLOCK_STATES)
            return quire__fail(error, QUIRE_E_CORRUPT, "P1: block %u has no state", i);
        if ((block->refs > 0) != (block->state == QUIRE__BLOCK_OWNED))
            return quire__fail(error, QUIRE_E_CORRUPT, "P1: block %u in state %u has %u references",
                               i, block->state, block->refs);
        if (block->refs != refs[i])
            return quire__fail(error, QUIRE_E_CORRUPT,
                               "P2: block %u has %u references, tables name it %u times", i,
                               block->refs, refs[i]);
        counted[block->state]++;
    }
    for (uint32_t state = 0; state < QUIRE__BLOCK_STATES; state++) {
        if (counted[state] != self->in_state[state])
            return quire__fail(error, QUIRE_E_CORRUPT, "P4: %u blocks in state %u, %u counted",
                               counted[state], state, self->in_state[state]);
    }
    return check_free_list(self, error);
}
