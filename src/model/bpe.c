/* bpe.c - byte pair encoding of one piece of text.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The symbols of a piece are a linked list in an array; a heap holds the pairs that can merge,
 * ordered by (rank, place). A symbol keeps the rank of its pair, so that an entry which a
 * neighbouring merge has overtaken is recognised by its rank when it comes up. */
#include "model/bpe.h"

#include <string.h>

#define NONE       QUIRE__TOKEN_NONE
#define MERGES_MAX ((uint64_t)1 << 31)

/* ---- merges ---- */

static uint64_t first_slot(const struct quire__bpe *bpe, uint32_t left, uint32_t right)
{
    /* Multiplicative hashing (Knuth, The Art of Computer Programming 3, section 6.4). */
    uint64_t hash = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    return (hash ^ hash >> 32) & bpe->slot_mask;
}

/* The merge of the pair, or the empty slot where it would be. */
static struct quire__merge *find_merge(const struct quire__bpe *bpe, uint32_t left, uint32_t right)
{
    uint64_t at = first_slot(bpe, left, right);
    while (bpe->merges[at].left != NONE &&
           (bpe->merges[at].left != left || bpe->merges[at].right != right))
        at = (at + 1) & bpe->slot_mask;
    return &bpe->merges[at];
}

static uint32_t rank_of(const struct quire__bpe *bpe, uint32_t left, uint32_t right)
{
    const struct quire__merge *merge = find_merge(bpe, left, right);
    return merge->left != NONE ? merge->rank : NONE;
}

static quire_status fail_merge(struct quire_error *error, uint32_t rank, struct quire__text merge,
                               const char *what)
{
    char quoted[64];
    return quire__fail(error, QUIRE_E_CORRUPT, "tokenizer.ggml.merges[%u] = \"%s\": %s", rank,
                       quire__quote(merge.bytes, merge.count, quoted, sizeof(quoted)), what);
}

static quire_status add_merge(struct quire__bpe *bpe, const struct quire__token_table *table,
                              uint32_t rank, struct quire__text text, struct quire_error *error)
{
    const struct quire__text nothing = {0};
    const char *space = text.count > 0 ? memchr(text.bytes, ' ', text.count) : NULL;
    const char *end = text.bytes + text.count;
    if (space == NULL || space == text.bytes || space + 1 == end ||
        memchr(space + 1, ' ', (size_t)(end - space - 1)) != NULL)
        return fail_merge(error, rank, text, "a merge is two tokens with one space between");
    struct quire__text left = {text.bytes, (uint64_t)(space - text.bytes)};
    struct quire__text right = {space + 1, (uint64_t)(end - space - 1)};
    uint32_t left_id = quire__token_find(table, left, nothing);
    uint32_t right_id = quire__token_find(table, right, nothing);
    uint32_t merged_id = quire__token_find(table, left, right);
    if (left_id == NONE || right_id == NONE)
        return fail_merge(error, rank, text, "it joins a token that is not in the vocabulary");
    if (merged_id == NONE)
        return fail_merge(error, rank, text, "the joined token is not in the vocabulary");
    bpe->merged[rank] = merged_id;
    *find_merge(bpe, left_id, right_id) = (struct quire__merge){left_id, right_id, rank};
    return QUIRE_OK;
}

quire_status quire__bpe_init(struct quire__bpe *bpe, const struct quire__token_table *table,
                             const struct quire__text *merges, uint64_t count,
                             struct quire_error *error)
{
    uint64_t slots = 16;
    *bpe = (struct quire__bpe){0};
    if (count > MERGES_MAX)
        return quire__fail(error, QUIRE_E_LIMIT, "tokenizer.ggml.merges: %llu merges are too many",
                           (unsigned long long)count);
    while (slots < count * 2)
        slots *= 2;
    bpe->slot_mask = slots - 1;
    bpe->merges = quire__alloc(slots * sizeof(*bpe->merges));
    bpe->merged = quire__calloc(count, sizeof(*bpe->merged));
    if (bpe->merges == NULL || bpe->merged == NULL) {
        quire__bpe_deinit(bpe);
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory for %llu merges",
                           (unsigned long long)count);
    }
    memset(bpe->merges, 0xff, slots * sizeof(*bpe->merges));
    for (unsigned byte = 0; byte < 256; byte++) {
        char raw = (char)byte, text[2];
        uint64_t length = quire__byte_level_encode(&raw, 1, text);
        bpe->byte_tokens[byte] =
            quire__token_find(table, (struct quire__text){text, length}, (struct quire__text){0});
    }
    for (uint32_t rank = 0; rank < count; rank++) {
        quire_status status = add_merge(bpe, table, rank, merges[rank], error);
        if (status != QUIRE_OK) {
            quire__bpe_deinit(bpe);
            return status;
        }
    }
    return QUIRE_OK;
}

void quire__bpe_deinit(struct quire__bpe *bpe)
{
    quire__free(bpe->merges);
    quire__free(bpe->merged);
    *bpe = (struct quire__bpe){0};
}

/* ---- encoding ---- */

static quire_status reserve(struct quire__bpe_scratch *scratch, uint64_t count,
                            struct quire_error *error)
{
    if (count <= scratch->capacity)
        return QUIRE_OK;
    if (count > INT32_MAX)
        return quire__fail(error, QUIRE_E_LIMIT,
                           "a piece of %llu bytes is too long for the tokenizer",
                           (unsigned long long)count);
    uint64_t capacity = count < 256 ? 256 : count;
    struct quire__bpe_symbol *symbols = quire__alloc(capacity * sizeof(*symbols));
    uint64_t *heap = quire__alloc(2 * capacity * sizeof(*heap));
    if (symbols == NULL || heap == NULL) {
        quire__free(symbols);
        quire__free(heap);
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory to encode a piece of %llu bytes",
                           (unsigned long long)count);
    }
    quire__free(scratch->symbols);
    quire__free(scratch->heap.keys);
    scratch->symbols = symbols;
    scratch->heap.keys = heap;
    scratch->capacity = capacity;
    return QUIRE_OK;
}

void quire__bpe_scratch_deinit(struct quire__bpe_scratch *scratch)
{
    quire__free(scratch->symbols);
    quire__free(scratch->heap.keys);
    *scratch = (struct quire__bpe_scratch){0};
}

/* The tokens of the bytes as a list, and every pair that can merge on the heap. Returns their
 * number. */
static uint32_t start(const struct quire__bpe *bpe, struct quire__bpe_scratch *scratch,
                      struct quire__text piece)
{
    struct quire__bpe_symbol *symbols = scratch->symbols;
    uint32_t count = 0;
    for (uint64_t i = 0; i < piece.count; i++) {
        uint32_t id = bpe->byte_tokens[(uint8_t)piece.bytes[i]];
        if (id == NONE)
            continue;
        symbols[count] = (struct quire__bpe_symbol){id, count - 1, count + 1, NONE};
        count++;
    }
    if (count > 0)
        symbols[count - 1].next = NONE;
    scratch->heap.count = 0;
    for (uint32_t i = 0; i + 1 < count; i++) {
        symbols[i].rank = rank_of(bpe, symbols[i].id, symbols[i + 1].id);
        if (symbols[i].rank != NONE)
            scratch->heap.keys[scratch->heap.count++] = (uint64_t)symbols[i].rank << 32 | i;
    }
    quire__heap_build(&scratch->heap);
    return count;
}

/* Looks up the pair of symbols[at] and its right neighbour afresh. */
static void refresh(const struct quire__bpe *bpe, struct quire__bpe_scratch *scratch, uint32_t at)
{
    struct quire__bpe_symbol *symbol = &scratch->symbols[at];
    symbol->rank =
        symbol->next != NONE ? rank_of(bpe, symbol->id, scratch->symbols[symbol->next].id) : NONE;
    if (symbol->rank != NONE)
        quire__heap_push(&scratch->heap, (uint64_t)symbol->rank << 32 | at);
}

quire_status quire__bpe_encode(const struct quire__bpe *bpe, struct quire__bpe_scratch *scratch,
                               struct quire__text piece, struct quire__ids *ids,
                               struct quire_error *error)
{
    quire_status status = reserve(scratch, piece.count, error);
    if (status == QUIRE_OK)
        status = quire__ids_reserve(ids, piece.count, error);
    if (status != QUIRE_OK)
        return status;
    struct quire__bpe_symbol *symbols = scratch->symbols;
    uint32_t count = start(bpe, scratch, piece);
    while (scratch->heap.count > 0) {
        uint64_t key = quire__heap_pop(&scratch->heap);
        uint32_t at = (uint32_t)key, rank = (uint32_t)(key >> 32);
        struct quire__bpe_symbol *symbol = &symbols[at];
        if (symbol->rank != rank)
            continue;
        struct quire__bpe_symbol *right = &symbols[symbol->next];
        symbol->id = bpe->merged[rank];
        symbol->next = right->next;
        right->id = right->rank = NONE;
        if (symbol->next != NONE)
            symbols[symbol->next].previous = at;
        refresh(bpe, scratch, at);
        if (symbol->previous != NONE)
            refresh(bpe, scratch, symbol->previous);
    }
    for (uint32_t i = 0; i < count; i = symbols[i].next < count ? symbols[i].next : count)
        ids->ids[ids->count++] = symbols[i].id;
    return QUIRE_OK;
}
