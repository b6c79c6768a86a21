/* events.h - what happened to blocks, in a ring that an embedder drains.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One producer, whoever holds the pool's mutex; one consumer, who does not. */
#ifndef QUIRE_CACHE_EVENTS_H
#define QUIRE_CACHE_EVENTS_H

#include <stdatomic.h>

#include "base/base.h"

#include <quire/pool.h>

struct quire__events {
    struct quire_event *ring; /* [mask + 1]; NULL: nobody listens */
    uint64_t mask;
    uint64_t next_number;  /* of the producer */
    _Atomic uint64_t head; /* events put in so far */
    _Atomic uint64_t tail; /* events taken out so far */
    _Atomic uint64_t lost;
};

/* capacity: 0 for none; rounded up to a power of two. NOMEM. */
quire_status quire__events_init(struct quire__events *self, uint32_t capacity);
void quire__events_deinit(struct quire__events *self);

/* Notes an event of a block that a node names; the parent is found through the node. */
void quire__events_block(struct quire_pool *pool, enum quire_event_kind kind, uint32_t block);
/* Notes any event; its number is filled in. */
void quire__events_put(struct quire_pool *pool, struct quire_event event);

#endif
