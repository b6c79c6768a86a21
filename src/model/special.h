/* special.h - finds the texts of special tokens inside a text.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_MODEL_SPECIAL_H
#define QUIRE_MODEL_SPECIAL_H

#include "model/vocab.h"

struct quire__specials {
    const struct quire__token_table *table; /* borrowed */
    uint32_t *ids;                          /* [count], sorted by the bytes of their texts */
    uint32_t count;
    uint32_t first[257]; /* first[b] .. first[b + 1] - 1: places of the texts that begin with b */
};

/* chosen [table->count]: the tokens to look for. Those whose text is empty or not UTF-8 are not
 * looked for, so that a match begins and ends between characters. NOMEM; on error specials is
 * deinitialised. */
quire_status quire__specials_init(struct quire__specials *specials,
                                  const struct quire__token_table *table, const bool *chosen,
                                  struct quire_error *error);
void quire__specials_deinit(struct quire__specials *specials);

/* The leftmost special token of text at or after `at`, and of those that begin there the longest:
 * true with its place and id. Cost: a table look-up per byte, and where a special token may begin
 * log(count) per byte that agrees with one. */
bool quire__specials_find(const struct quire__specials *specials, struct quire__text text,
                          uint64_t at, uint64_t *found_at, uint32_t *id);

#endif
