/* bpe.h - byte pair encoding of one piece of text.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A piece starts as the tokens of its bytes. Of all neighbours that a merge names, the pair of the
 * first merge in the list becomes one token, the leftmost pair first, until none is left (Sennrich,
 * Haddow, Birch 2016, section 3.2). */
#ifndef QUIRE_MODEL_BPE_H
#define QUIRE_MODEL_BPE_H

#include "model/heap.h"
#include "model/vocab.h"

struct quire__merge {
    uint32_t left, right; /* token ids; left is QUIRE__TOKEN_NONE in an empty slot */
    uint32_t rank;        /* place in the list of merges */
};

struct quire__bpe {
    struct quire__merge *merges; /* hash table */
    uint64_t slot_mask;
    uint32_t *merged;          /* [rank]: the token that a merge makes */
    uint32_t byte_tokens[256]; /* QUIRE__TOKEN_NONE where the vocabulary has no token for a byte */
};

/* Resolves merges written as "left right" against the vocabulary. Of equal pairs the last counts.
 * CORRUPT names the first merge that is not of that form or that names a token which does not
 * exist; LIMIT past 2^31 merges, NOMEM. On error bpe is deinitialised. */
quire_status quire__bpe_init(struct quire__bpe *bpe, const struct quire__token_table *table,
                             const struct quire__text *merges, uint64_t count,
                             struct quire_error *error);
void quire__bpe_deinit(struct quire__bpe *bpe);

struct quire__bpe_symbol {
    uint32_t id;             /* QUIRE__TOKEN_NONE once its left neighbour has swallowed it */
    uint32_t previous, next; /* index, or QUIRE__TOKEN_NONE at the ends */
    uint32_t rank;           /* of the merge with `next`, or QUIRE__TOKEN_NONE */
};

/* Scratch of one thread. Zero-initialise; give back with quire__bpe_scratch_deinit. */
struct quire__bpe_scratch {
    struct quire__bpe_symbol *symbols; /* [capacity] */
    struct quire__heap heap;           /* [2 * capacity] */
    uint64_t capacity;
};
void quire__bpe_scratch_deinit(struct quire__bpe_scratch *scratch);

/* Appends the tokens of a piece to ids. Bytes without a token are left out, as the reference
 * implementation does. Takes O(n log n) for n bytes, and 32 n bytes of scratch. n < 2^31. */
quire_status quire__bpe_encode(const struct quire__bpe *bpe, struct quire__bpe_scratch *scratch,
                               struct quire__text piece, struct quire__ids *ids,
                               struct quire_error *error);

#endif
