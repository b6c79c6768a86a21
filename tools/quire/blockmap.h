/* blockmap.h - a drawing of the pool: what each physical block is, and which branch holds it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Who holds a block is read from the tables of the sequences. Which blocks the pool could find
 * again is learnt from its events, so a map watches its pool from the beginning. */
#ifndef QUIRE_TOOL_BLOCKMAP_H
#define QUIRE_TOOL_BLOCKMAP_H

#include <stdbool.h>
#include <stdint.h>

#include <quire/quire.h>

#include "model/model.h"

enum {
    BLOCKMAP_HOLDERS_MAX = 26,  /* a letter each */
    BLOCKMAP_EVENTS = 1u << 16, /* that a pool must keep between two looks */
};

struct blockmap {
    struct quire_pool *pool;
    const struct quire__model *model;
    uint32_t num_blocks;
    uint32_t block_size;
    uint64_t block_bytes;
    uint32_t *holders; /* [num_blocks] a bit for each sequence, as of the last look */
    bool *findable;    /* [num_blocks] by the events so far */
    bool *pinned;      /* [num_blocks] */
    uint64_t lost;     /* events that did not fit: findable is not to be trusted */
};

struct blockmap_counts {
    uint64_t own, shared, cached, pinned, free;
};

/* Makes a map of a new pool with at least BLOCKMAP_EVENTS events. UNSUPPORTED in the contiguous
 * layout, where every sequence has a region of its own. NOMEM. */
quire_status blockmap_open(struct blockmap *map, struct quire_pool *pool,
                           const struct quire__model *model);
void blockmap_close(struct blockmap *map); /* fine when not open */

/* Learns what happened since the last call. */
quire_status blockmap_watch(struct blockmap *map);
/* Marks the blocks of a prefix that is pinned: those that this sequence of it holds. */
quire_status blockmap_pin(struct blockmap *map, quire_seq seq);
/* Watches, and reads who holds what; a sequence {0} holds nothing. */
quire_status blockmap_look(struct blockmap *map, const quire_seq *seqs, uint32_t count);
struct blockmap_counts blockmap_count(const struct blockmap *map);

/* Draws what the last look saw on standard output, with the legend. False when that failed. */
bool blockmap_draw(const struct blockmap *map, bool colour);
/* The letter of sequence i, coloured. */
const char *blockmap_letter(uint32_t i, bool colour, char text[16]);

#endif
