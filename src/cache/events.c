/* events.c - what happened to blocks, in a ring that an embedder drains.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A ring of one producer and one consumer: `head` and `tail` count for ever, the release of one and
 * the acquire of the other order the slots between them. A full ring refuses new events and counts
 * them; their numbers are used up, so that the consumer sees the gap.
 *
 * Owns: the ring. Guarded by: the pool's mutex on the producer's side. */
#include "cache/events.h"

#include "cache/pool.h"

quire_status quire__events_init(struct quire__events *self, uint32_t capacity)
{
    if (capacity == 0)
        return QUIRE_OK;
    uint64_t size = 1;
    while (size < capacity)
        size *= 2;
    self->ring = quire__calloc(size, sizeof *self->ring);
    self->mask = size - 1;
    return self->ring != NULL ? QUIRE_OK : QUIRE_E_NOMEM;
}

void quire__events_deinit(struct quire__events *self)
{
    quire__free(self->ring);
    self->ring = NULL;
}

void quire__events_put(struct quire_pool *pool, struct quire_event event)
{
    struct quire__events *self = &pool->events;
    if (self->ring == NULL)
        return;
    event.number = self->next_number++;
    uint64_t head = atomic_load_explicit(&self->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&self->tail, memory_order_acquire);
    if (head - tail > self->mask) {
        atomic_fetch_add_explicit(&self->lost, 1, memory_order_relaxed);
        return;
    }
    self->ring[head & self->mask] = event;
    atomic_store_explicit(&self->head, head + 1, memory_order_release);
}

void quire__events_block(struct quire_pool *pool, enum quire_event_kind kind, uint32_t block)
{
    if (pool->events.ring == NULL)
        return;
    const struct quire__block *record = &pool->blocks.records[block];
    const struct quire__node *node = &pool->index.nodes[record->node];
    uint32_t parent = QUIRE_BLOCK_NONE;
    if (!quire__index_is_root(&pool->index, node->parent))
        parent = quire__index_blocks(&pool->index, node->parent)[record->table];
    quire__events_put(pool, (struct quire_event){.kind = kind,
                                                 .group = record->table,
                                                 .block = block,
                                                 .parent = parent,
                                                 .num_tokens = node->num_tokens});
}

quire_status quire_pool_events(struct quire_pool *pool, struct quire_event *events,
                               uint32_t max_events, uint32_t *count, uint64_t *lost)
{
    if (pool == NULL || count == NULL || (events == NULL && max_events != 0))
        return QUIRE_E_INVAL;
    struct quire__events *self = &pool->events;
    if (self->ring == NULL)
        return QUIRE_E_UNSUPPORTED;
    uint64_t tail = atomic_load_explicit(&self->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&self->head, memory_order_acquire);
    uint32_t taken = 0;
    while (taken < max_events && tail != head)
        events[taken++] = self->ring[tail++ & self->mask];
    atomic_store_explicit(&self->tail, tail, memory_order_release);
    *count = taken;
    if (lost != NULL)
        *lost = atomic_load_explicit(&self->lost, memory_order_relaxed);
    return QUIRE_OK;
}
