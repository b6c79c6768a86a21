/* copy.h - copy-on-write: what a step must copy before it may write.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_CACHE_COPY_H
#define QUIRE_CACHE_COPY_H

#include "cache/pool.h"

/* P3: whether writing rows from `row` on of a block needs a copy of it first: the index publishes
 * one of them, or somebody else holds the block. */
bool quire__copy_is_due(const struct quire_pool *pool, uint32_t block, uint32_t row);

/* Finds what the items of a step must copy (step->originals), and returns how many blocks that
 * takes. Of several items that hold one block, the last one writes in place, where it writes behind
 * all that the others see. */
uint64_t quire__copies_plan(const struct quire_pool *pool, const struct quire__step *step);
/* How many of those copies can be avoided: of blocks that only one item holds, and the index. */
uint64_t quire__copies_avoidable(const struct quire_pool *pool, const struct quire__step *step);
/* Avoids `count` of them, at most so many: takes the blocks out of the index, to be written in
 * place. */
void quire__copies_avoid(struct quire_pool *pool, const struct quire__step *step, uint64_t count);
/* Takes the blocks and points the tables at them; the step keeps the originals' references. The
 * copies of rows are listed in step->copies, for the backend. */
void quire__copies_begin(struct quire_pool *pool, struct quire__step *step);
/* Lets the originals go (`keep`), or puts them back in the tables and lets the copies go. */
void quire__copies_end(struct quire_pool *pool, struct quire__step *step, bool keep);

#endif
