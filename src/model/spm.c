/* spm.c - SentencePiece's byte pair encoding: the tokens with the best scores come to be first.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The symbols of a text are a linked list in an array, each a range of its bytes; a heap holds the
 * pairs that can merge, ordered by (rank, place). A symbol keeps the rank of its pair, so that an
 * entry which a neighbouring merge has overtaken is recognised by its rank when it comes up. */
#include "model/spm.h"

#include <math.h>
#include <string.h>

#define NONE QUIRE__TOKEN_NONE

/* ---- the vocabulary ---- */

/* Less for more: the order of the bits of IEEE 754 numbers turned round, so that ranks compare as
 * scores do. Finite numbers never give QUIRE__TOKEN_NONE. */
static uint32_t rank_of_score(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 and 0 are equal */
    memcpy(&bits, &score, sizeof bits);
    return (bits >> 31) != 0 ? bits : ~bits & 0x7fffffffu;
}

static void find_bytes(struct quire__spm *spm, const struct quire__token_list *list)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < 256; i++)
        spm->byte_tokens[i] = NONE;
    for (uint32_t id = 0; id < spm->table->count; id++) {
        const int byte = quire__spm_byte(list->tokens[id]);
        if (list->types == NULL || list->types[id] != QUIRE__TOKEN_BYTE || byte < 0)
            continue;
        found += spm->byte_tokens[byte] == NONE;
        spm->byte_tokens[byte] = id;
    }
    spm->has_bytes = found == 256;
}

static quire_status rank_tokens(struct quire__spm *spm, const struct quire__token_list *list,
                                const float *scores, struct quire_error *error)
{
    const uint32_t count = spm->table->count;
    bool any_unused = false;
    for (uint32_t id = 0; id < count; id++) {
        const int32_t type = list->types != NULL ? list->types[id] : 1;
        if (!isfinite(scores[id]))
            return quire__fail(error, QUIRE_E_CORRUPT,
                               "tokenizer.ggml.scores[%u] is not a finite number", id);
        const bool made = type != QUIRE__TOKEN_CONTROL && type != QUIRE__TOKEN_BYTE &&
                          type != QUIRE__TOKEN_UNKNOWN;
        spm->ranks[id] = made ? rank_of_score(scores[id]) : NONE;
        spm->unused[id] = type == QUIRE__TOKEN_UNUSED;
        any_unused = any_unused || spm->unused[id];
        if (type == QUIRE__TOKEN_UNKNOWN && spm->unknown == NONE)
            spm->unknown = id;
    }
    if (!any_unused) {
        quire__free(spm->unused);
        spm->unused = NULL;
    }
    return QUIRE_OK;
}

static quire_status find_user_defined(struct quire__spm *spm, const struct quire__token_list *list,
                                      struct quire_error *error)
{
    bool *chosen = quire__calloc(spm->table->count, sizeof *chosen);
    if (chosen == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory for the tokenizer");
    for (uint32_t id = 0; id < spm->table->count; id++)
        chosen[id] = list->types != NULL && list->types[id] == QUIRE__TOKEN_USER_DEFINED;
    quire_status status = quire__specials_init(&spm->user_defined, spm->table, chosen, error);
    quire__free(chosen);
    return status;
}

quire_status quire__spm_init(struct quire__spm *spm, const struct quire__token_table *table,
                             const struct quire__token_list *list, const float *scores,
                             struct quire_error *error)
{
    *spm = (struct quire__spm){.table = table, .unknown = NONE};
    spm->ranks = quire__calloc(table->count, sizeof *spm->ranks);
    spm->unused = quire__calloc(table->count, sizeof *spm->unused);
    quire_status status = QUIRE_OK;
    if (spm->ranks == NULL || spm->unused == NULL)
        status = quire__fail(error, QUIRE_E_NOMEM, "out of memory for %u scores", table->count);
    if (status == QUIRE_OK)
        status = rank_tokens(spm, list, scores, error);
    if (status == QUIRE_OK)
        status = find_user_defined(spm, list, error);
    if (status != QUIRE_OK)
        quire__spm_deinit(spm);
    else
        find_bytes(spm, list);
    return status;
}

void quire__spm_deinit(struct quire__spm *spm)
{
    quire__specials_deinit(&spm->user_defined);
    quire__free(spm->ranks);
    quire__free(spm->unused);
    *spm = (struct quire__spm){0};
}

/* ---- scratch ---- */

void quire__spm_scratch_deinit(struct quire__spm_scratch *scratch)
{
    quire__bytes_deinit(&scratch->text);
    quire__free(scratch->symbols);
    quire__free(scratch->heap.keys);
    quire__free(scratch->splits);
    *scratch = (struct quire__spm_scratch){0};
}

static quire_status reserve(const struct quire__spm *spm, struct quire__spm_scratch *scratch,
                            struct quire_error *error)
{
    const uint64_t count = scratch->text.count;
    if (count > INT32_MAX)
        return quire__fail(error, QUIRE_E_LIMIT,
                           "a text of %llu bytes is too long for the tokenizer",
                           (unsigned long long)count);
    if (spm->unused != NULL && scratch->splits == NULL) {
        scratch->splits = quire__calloc(spm->table->count, sizeof *scratch->splits);
        if (scratch->splits == NULL)
            return quire__fail(error, QUIRE_E_NOMEM, "out of memory to encode a text");
    }
    if (count <= scratch->capacity)
        return QUIRE_OK;
    uint64_t capacity = count < 256 ? 256 : count;
    struct quire__spm_symbol *symbols = quire__alloc(capacity * sizeof *symbols);
    uint64_t *keys = quire__alloc(2 * capacity * sizeof *keys);
    if (symbols == NULL || keys == NULL) {
        quire__free(symbols);
        quire__free(keys);
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory to encode a text of %llu bytes",
                           (unsigned long long)count);
    }
    quire__free(scratch->symbols);
    quire__free(scratch->heap.keys);
    scratch->symbols = symbols;
    scratch->heap.keys = keys;
    scratch->capacity = capacity;
    return QUIRE_OK;
}

/* Puts the text into scratch->text with every space as U+2581, one more in front where the model
 * wants that. */
static quire_status mark_spaces(const struct quire__spm *spm, struct quire__spm_scratch *scratch,
                                struct quire__text text, struct quire_error *error)
{
    const uint64_t marker = sizeof QUIRE__SPM_SPACE - 1;
    uint64_t spaces = spm->space_prefix ? 1 : 0;
    for (uint64_t i = 0; i < text.count; i++)
        spaces += text.bytes[i] == ' ';
    scratch->text.count = 0;
    quire_status status = quire__bytes_reserve(&scratch->text, text.count + spaces * marker, error);
    if (status != QUIRE_OK)
        return status;
    char *out = scratch->text.data;
    if (spm->space_prefix) {
        memcpy(out, QUIRE__SPM_SPACE, marker);
        out += marker;
    }
    for (uint64_t i = 0; i < text.count; i++) {
        if (text.bytes[i] == ' ') {
            memcpy(out, QUIRE__SPM_SPACE, marker);
            out += marker;
        } else {
            *out++ = text.bytes[i];
        }
    }
    scratch->text.count = (uint64_t)(out - scratch->text.data);
    return QUIRE_OK;
}

/* ---- merging ---- */

static struct quire__text bytes_of(const struct quire__spm_scratch *scratch, uint32_t start,
                                   uint32_t length)
{
    return (struct quire__text){scratch->text.data + start, length};
}

static uint32_t find_token(const struct quire__spm *spm, struct quire__text text)
{
    if (text.count > spm->table->text_bytes_max)
        return NONE;
    return quire__token_find(spm->table, text, (struct quire__text){0});
}

/* The rank of the merge of symbols[at] and its right neighbour. */
static uint32_t rank_pair(const struct quire__spm *spm, struct quire__spm_scratch *scratch,
                          uint32_t at)
{
    const struct quire__spm_symbol *left = &scratch->symbols[at];
    if (left->next == NONE || left->id != NONE || scratch->symbols[left->next].id != NONE)
        return NONE;
    uint32_t length = left->length + scratch->symbols[left->next].length;
    uint32_t id = find_token(spm, bytes_of(scratch, left->start, length));
    if (id == NONE || spm->ranks[id] == NONE)
        return NONE;
    if (spm->unused != NULL && spm->unused[id])
        scratch->splits[id] = left->length;
    return spm->ranks[id];
}

/* The symbols of the text, and every pair that can merge on the heap. Returns their number. */
static uint32_t start(const struct quire__spm *spm, struct quire__spm_scratch *scratch)
{
    const struct quire__text text = {scratch->text.data, scratch->text.count};
    uint32_t count = 0, id = NONE;
    uint64_t found_at = 0;
    bool found = quire__specials_find(&spm->user_defined, text, 0, &found_at, &id);
    for (uint64_t at = 0; at < text.count; count++) {
        const bool here = found && at == found_at;
        const uint64_t length =
            here ? quire__token_text(spm->table, id).count
                 : (uint64_t)quire__utf8_length(text.bytes + at, text.count - at);
        scratch->symbols[count] = (struct quire__spm_symbol){.start = (uint32_t)at,
                                                             .length = (uint32_t)length,
                                                             .id = here ? id : NONE,
                                                             .previous = count - 1,
                                                             .next = count + 1,
                                                             .rank = NONE};
        at += length;
        if (here)
            found = quire__specials_find(&spm->user_defined, text, at, &found_at, &id);
    }
    scratch->symbols[count - 1].next = NONE;
    scratch->heap.count = 0;
    for (uint32_t i = 0; i + 1 < count; i++) {
        uint32_t rank = scratch->symbols[i].rank = rank_pair(spm, scratch, i);
        if (rank != NONE)
            scratch->heap.keys[scratch->heap.count++] = (uint64_t)rank << 32 | i;
    }
    quire__heap_build(&scratch->heap);
    return count;
}

static void refresh(const struct quire__spm *spm, struct quire__spm_scratch *scratch, uint32_t at)
{
    uint32_t rank = scratch->symbols[at].rank = rank_pair(spm, scratch, at);
    if (rank != NONE)
        quire__heap_push(&scratch->heap, (uint64_t)rank << 32 | at);
}

static void merge_all(const struct quire__spm *spm, struct quire__spm_scratch *scratch)
{
    struct quire__spm_symbol *symbols = scratch->symbols;
    while (scratch->heap.count > 0) {
        const uint64_t key = quire__heap_pop(&scratch->heap);
        const uint32_t at = (uint32_t)key;
        struct quire__spm_symbol *symbol = &symbols[at];
        if (symbol->rank != (uint32_t)(key >> 32))
            continue;
        struct quire__spm_symbol *right = &symbols[symbol->next];
        symbol->length += right->length;
        symbol->next = right->next;
        right->length = 0;
        right->rank = NONE;
        if (symbol->next != NONE)
            symbols[symbol->next].previous = at;
        /* The left pair first: of equal texts that come apart again the later pair counts. */
        if (symbol->previous != NONE)
            refresh(spm, scratch, symbol->previous);
        refresh(spm, scratch, at);
    }
}

/* ---- output ---- */

static quire_status put_unknown(const struct quire__spm *spm, struct quire__text text,
                                bool *was_unknown, struct quire__ids *ids,
                                struct quire_error *error)
{
    quire_status status = QUIRE_OK;
    if (spm->has_bytes) {
        for (uint64_t i = 0; i < text.count && status == QUIRE_OK; i++)
            status = quire__ids_push(ids, spm->byte_tokens[(uint8_t)text.bytes[i]], error);
    } else {
        if (!*was_unknown && spm->unknown != NONE)
            status = quire__ids_push(ids, spm->unknown, error);
        *was_unknown = true;
    }
    return status;
}

/* Appends the tokens of one symbol: itself, or the parts of an unused one, which wait, the left one
 * on top, where the heap was. */
static quire_status put_symbol(const struct quire__spm *spm, struct quire__spm_scratch *scratch,
                               const struct quire__spm_symbol *symbol, bool *was_unknown,
                               struct quire__ids *ids, struct quire_error *error)
{
    uint64_t *stack = scratch->heap.keys, depth = 0;
    stack[depth++] = (uint64_t)symbol->start << 32 | symbol->length;
    quire_status status = QUIRE_OK;
    while (depth > 0 && status == QUIRE_OK) {
        const uint64_t top = stack[--depth];
        const uint32_t at = (uint32_t)(top >> 32), length = (uint32_t)top;
        const struct quire__text text = bytes_of(scratch, at, length);
        const uint32_t id = symbol->id != NONE ? symbol->id : find_token(spm, text);
        const bool unused = id != NONE && spm->unused != NULL && spm->unused[id];
        if (unused && scratch->splits[id] != 0) {
            const uint32_t left = scratch->splits[id];
            stack[depth++] = (uint64_t)(at + left) << 32 | (length - left);
            stack[depth++] = (uint64_t)at << 32 | left;
        } else if (unused || id == NONE || (symbol->id == NONE && spm->ranks[id] == NONE)) {
            status = put_unknown(spm, text, was_unknown, ids, error);
        } else {
            *was_unknown = false;
            status = quire__ids_push(ids, id, error);
        }
    }
    return status;
}

quire_status quire__spm_encode(const struct quire__spm *spm, struct quire__spm_scratch *scratch,
                               struct quire__text text, struct quire__ids *ids,
                               struct quire_error *error)
{
    if (text.count == 0)
        return QUIRE_OK;
    quire_status status = mark_spaces(spm, scratch, text, error);
    if (status == QUIRE_OK)
        status = reserve(spm, scratch, error);
    if (status != QUIRE_OK)
        return status;
    const uint32_t count = start(spm, scratch);
    merge_all(spm, scratch);
    bool was_unknown = false;
    for (uint32_t i = 0; i < count && status == QUIRE_OK;
         i = scratch->symbols[i].next < count ? scratch->symbols[i].next : count)
        status = put_symbol(spm, scratch, &scratch->symbols[i], &was_unknown, ids, error);
    return status;
}
