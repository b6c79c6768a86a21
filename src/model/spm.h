/* spm.h - SentencePiece's byte pair encoding: the tokens with the best scores come to be first.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A text's spaces become U+2581 (arXiv:1808.06226, section 3.1). It starts as user-defined tokens,
 * of each place the longest, and between them single characters. Of all neighbours whose joined
 * text is a token, those of the best score become that token, the leftmost first, until none is
 * left. What is no token then gives its bytes as tokens <0xNN>, or where the vocabulary lacks these
 * the unknown token, once for a run of such. Tokens of type UNUSED help others to come to be, and
 * are taken apart again at the end. */
#ifndef QUIRE_MODEL_SPM_H
#define QUIRE_MODEL_SPM_H

#include "model/heap.h"
#include "model/special.h"

struct quire__spm {
    const struct quire__token_table *table; /* borrowed */
    struct quire__specials user_defined;
    /* [count] of the token's score, less is better; QUIRE__TOKEN_NONE: merges do not make it */
    uint32_t *ranks;
    bool *unused;              /* [count], or NULL: there is none */
    uint32_t byte_tokens[256]; /* of value when has_bytes */
    bool has_bytes;            /* the vocabulary has all 256 */
    bool space_prefix;         /* a text begins with a space that it does not have */
    uint32_t unknown;          /* QUIRE__TOKEN_NONE: there is none */
};

/* scores [list->count]; list is what the table was made of. CORRUPT for a score that is no number;
 * NOMEM. On error spm is deinitialised. */
quire_status quire__spm_init(struct quire__spm *spm, const struct quire__token_table *table,
                             const struct quire__token_list *list, const float *scores,
                             struct quire_error *error);
void quire__spm_deinit(struct quire__spm *spm);

struct quire__spm_symbol {
    uint32_t start, length; /* bytes of the text; length 0 once its left neighbour has it */
    uint32_t id;            /* of a user-defined token, which nothing joins, or QUIRE__TOKEN_NONE */
    uint32_t previous, next; /* index, or QUIRE__TOKEN_NONE at the ends */
    uint32_t rank;           /* of the merge with `next`, or QUIRE__TOKEN_NONE */
};

/* Scratch of one thread. Zero-initialise; give back with quire__spm_scratch_deinit. */
struct quire__spm_scratch {
    struct quire__bytes text;          /* with its spaces replaced */
    struct quire__spm_symbol *symbols; /* [capacity] */
    struct quire__heap heap;           /* [2 * capacity] */
    uint64_t capacity;
    uint32_t *splits; /* [tokens] of an unused token: bytes of its left part; NULL: not needed */
};
void quire__spm_scratch_deinit(struct quire__spm_scratch *scratch);

/* Appends the tokens of a text, which is UTF-8. LIMIT past 2^31 - 1 bytes with spaces replaced,
 * NOMEM. Takes O(n log n), a look-up of a text no longer than the longest token for each merge, and
 * 41 bytes of scratch for each byte with spaces replaced. */
quire_status quire__spm_encode(const struct quire__spm *spm, struct quire__spm_scratch *scratch,
                               struct quire__text text, struct quire__ids *ids,
                               struct quire_error *error);

#endif
