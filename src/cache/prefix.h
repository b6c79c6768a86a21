/* prefix.h - tokens to blocks and back: lookup, adoption, publication; and what windows need.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All with the pool's mutex held. The paged layout only, but where a function says so. */
#ifndef QUIRE_CACHE_PREFIX_H
#define QUIRE_CACHE_PREFIX_H

#include "cache/pool.h"

/* ---- window.c ---- */

/* The first block that the window of the token at position `len` reaches. */
uint32_t quire__window_first(const struct quire_pool *pool, uint32_t table, uint32_t len);
/* Whether a table whose window starts at block `first` needs block i. */
static inline bool quire__window_needs(const struct quire_pool *pool, uint32_t table,
                                       uint32_t first, uint32_t i)
{
    return i >= first || i < pool->layout.tables[table].sink_blocks;
}
/* The longest position, at most `len`, whose windows are whole. A block is there when the sequence
 * (NULL: none) holds it, or when one of the num_path nodes of pool->path names it. */
uint32_t quire__window_longest(const struct quire_pool *pool, const struct quire__seq *seq,
                               uint32_t num_path, uint32_t len);
/* W1: gives the blocks back that no window within reach of a rollback needs. */
void quire__window_release(struct quire_pool *pool, struct quire__seq *seq);

/* ---- prefix.c ---- */

/* INVAL and LIMIT as quire_seq_create says. */
quire_status quire__prefix_check(const struct quire_pool *pool,
                                 const struct quire_seq_config *config);
/* The root of a tenant; NONE when it has none. */
uint32_t quire__prefix_root(struct quire_pool *pool, uint64_t salt, uint64_t adapter);
/* The same; makes it where it has none. */
uint32_t quire__prefix_make_root(struct quire_pool *pool, uint64_t salt, uint64_t adapter);

/* How many of the first `limit` tokens of a prefix can be had; pool->path gets the nodes of their
 * blocks, the last of which may be used in part. */
uint32_t quire__prefix_find(struct quire_pool *pool, const struct quire_seq_config *config,
                            uint32_t limit);
/* Gives an empty sequence the first `len` tokens that quire__prefix_find found. */
void quire__prefix_adopt(struct quire_pool *pool, struct quire__seq *seq, const uint32_t *tokens,
                         uint32_t len);
/* Whether a node has its block in every group without a window. */
bool quire__prefix_is_whole(const struct quire_pool *pool, uint32_t node);
/* Counts a lookup in the figures. */
void quire__prefix_note(struct quire_pool *pool, uint32_t asked, uint32_t found);

/* Fills pool->path with the nodes of the sequence's published blocks, from block `from` on. */
void quire__prefix_path(struct quire_pool *pool, const struct quire__seq *seq, uint32_t from);
/* Makes the cursor and the tail those of the first `len` positions. Any layout. */
void quire__prefix_rewind(struct quire_pool *pool, struct quire__seq *seq, uint32_t len);
/* Moves a cursor. */
void quire__prefix_stand(struct quire_pool *pool, struct quire__seq *seq, uint32_t node);

/* ---- publish.c ---- */

/* Appends committed tokens: each block that they fill becomes findable. Any layout. */
void quire__prefix_append(struct quire_pool *pool, struct quire__seq *seq, const uint32_t *tokens,
                          uint32_t count);
/* Makes the last, partial block findable. */
void quire__prefix_publish_tail(struct quire_pool *pool, struct quire__seq *seq);
/* Puts the sequence's blocks where nodes of its path have lost theirs. O(1) for a sequence without
 * twins of other blocks, else O(blocks behind the first). */
void quire__prefix_refill(struct quire_pool *pool, struct quire__seq *seq);

/* ---- pin.c ---- */

/* Ends a pin and lets its blocks go. */
void quire__pin_end(struct quire_pool *pool, struct quire__pin *pin);
/* Adds what pins hold to refs [total] and cursors [nodes]; returns how many blocks that are. */
uint32_t quire__pins_count(struct quire_pool *pool, uint32_t *refs, uint32_t *cursors);

#endif
