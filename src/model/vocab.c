/* vocab.c - the tokens of a vocabulary: their texts, their bytes, and how to find one.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/vocab.h"

#include <string.h>

#define TOKENS_MAX ((uint64_t)1 << 31)

/* ---- the byte-level alphabet ---- */

/* Bytes that stand for themselves: Latin-1 without controls, spaces and the soft hyphen. The others
 * are U+0100, U+0101, ... in their order: 0 to 0x20, 0x7f to 0xa0, 0xad. */
static bool stands_for_itself(uint32_t code)
{
    return (code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xff && code != 0xad);
}

static uint32_t byte_to_code(uint8_t byte)
{
    if (stands_for_itself(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    return byte == 0xad ? 0x143u : 0x121u + (byte - 0x7fu);
}

/* -1 when no byte is written so. */
static int code_to_byte(uint32_t code)
{
    if (stands_for_itself(code))
        return (int)code;
    if (code < 0x100 || code > 0x143)
        return -1;
    if (code <= 0x120)
        return (int)(code - 0x100);
    return code == 0x143 ? 0xad : (int)(code - 0x121 + 0x7f);
}

uint64_t quire__byte_level_encode(const char *bytes, uint64_t count, char *out)
{
    uint64_t length = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t code = byte_to_code((uint8_t)bytes[i]);
        if (code < 0x80) {
            out[length++] = (char)code;
        } else {
            out[length++] = (char)(0xc0 | code >> 6);
            out[length++] = (char)(0x80 | (code & 0x3f));
        }
    }
    return length;
}

/* Returns the number of bytes written to out, which has room for text.count; a text outside the
 * alphabet is copied. */
static uint64_t byte_level_decode(struct quire__text text, char *out)
{
    uint64_t length = 0, at = 0;
    while (at < text.count) {
        uint8_t lead = (uint8_t)text.bytes[at];
        int size = quire__utf8_length(text.bytes + at, text.count - at), byte = -1;
        if (size == 1)
            byte = code_to_byte(lead);
        else if (size == 2)
            byte = code_to_byte((lead & 0x1fu) << 6 | ((uint8_t)text.bytes[at + 1] & 0x3fu));
        if (byte < 0) {
            memcpy(out, text.bytes, text.count);
            return text.count;
        }
        out[length++] = (char)byte;
        at += (uint64_t)size;
    }
    return length;
}

/* ---- SentencePiece ---- */

/* The value of a digit as SentencePiece writes it, or -1. */
static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

int quire__spm_byte(struct quire__text text)
{
    if (text.count != 6 || memcmp(text.bytes, "<0x", 3) != 0 || text.bytes[5] != '>')
        return -1;
    int high = hex_digit(text.bytes[3]), low = hex_digit(text.bytes[4]);
    return high >= 0 && low >= 0 ? high * 16 + low : -1;
}

/* As byte_level_decode: U+2581 becomes a space. */
static uint64_t spm_decode(struct quire__text text, char *out)
{
    const uint64_t marker = sizeof QUIRE__SPM_SPACE - 1;
    uint64_t length = 0;
    for (uint64_t at = 0; at < text.count; length++) {
        bool space =
            text.count - at >= marker && memcmp(text.bytes + at, QUIRE__SPM_SPACE, marker) == 0;
        out[length] = space ? ' ' : text.bytes[at];
        at += space ? marker : 1;
    }
    return length;
}

/* ---- the table ---- */

/* FNV-1a (Fowler, Noll, Vo; draft-eastlake-fnv): goes on from `hash`, so that the hash of two texts
 * one after the other needs no copy. */
static uint64_t hash_more(uint64_t hash, struct quire__text text)
{
    for (uint64_t i = 0; i < text.count; i++)
        hash = (hash ^ (uint8_t)text.bytes[i]) * 0x100000001b3u;
    return hash;
}

static uint32_t hash_pair(struct quire__text head, struct quire__text tail)
{
    uint64_t hash = hash_more(hash_more(0xcbf29ce484222325u, head), tail);
    return (uint32_t)(hash ^ hash >> 32);
}

struct quire__text quire__token_text(const struct quire__token_table *table, uint32_t id)
{
    uint32_t from = table->text_at[id];
    return (struct quire__text){table->bytes + from, table->text_at[id + 1] - from};
}

struct quire__text quire__token_piece(const struct quire__token_table *table, uint32_t id)
{
    uint32_t from = table->piece_at[id];
    return (struct quire__text){table->bytes + from, table->piece_at[id + 1] - from};
}

static bool is_concatenation(struct quire__text text, struct quire__text head,
                             struct quire__text tail)
{
    return text.count == head.count + tail.count &&
           (head.count == 0 || memcmp(text.bytes, head.bytes, head.count) == 0) &&
           (tail.count == 0 || memcmp(text.bytes + head.count, tail.bytes, tail.count) == 0);
}

/* The slot of the token, or the empty one where it would be. */
static struct quire__token_slot *find_slot(const struct quire__token_table *table, uint32_t hash,
                                           struct quire__text head, struct quire__text tail)
{
    uint64_t at = hash & table->slot_mask;
    for (;; at = (at + 1) & table->slot_mask) {
        struct quire__token_slot *slot = &table->slots[at];
        if (slot->id == QUIRE__TOKEN_NONE ||
            (slot->hash == hash &&
             is_concatenation(quire__token_text(table, slot->id), head, tail)))
            return slot;
    }
}

uint32_t quire__token_find(const struct quire__token_table *table, struct quire__text head,
                           struct quire__text tail)
{
    return find_slot(table, hash_pair(head, tail), head, tail)->id;
}

static quire_status allocate(struct quire__token_table *table, uint64_t text_bytes,
                             struct quire_error *error)
{
    uint64_t slots = 16, count = table->count;
    while (slots < count * 2)
        slots *= 2;
    table->text_at = quire__calloc(count + 1, sizeof(uint32_t));
    table->piece_at = quire__calloc(count + 1, sizeof(uint32_t));
    table->special = quire__calloc(count, sizeof(bool));
    table->slots = quire__alloc(slots * sizeof(*table->slots));
    table->bytes = quire__alloc(text_bytes * 2);
    table->slot_mask = slots - 1;
    if (table->text_at == NULL || table->piece_at == NULL || table->special == NULL ||
        table->slots == NULL || table->bytes == NULL) {
        quire__token_table_deinit(table);
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory for a vocabulary of %llu tokens",
                           (unsigned long long)count);
    }
    memset(table->slots, 0xff, slots * sizeof(*table->slots));
    return QUIRE_OK;
}

static int32_t type_of(const struct quire__token_list *list, uint64_t id)
{
    return list->types != NULL ? list->types[id] : 1;
}

/* Writes the bytes of a token to out, which has room for its text; returns their number. */
static uint64_t put_piece(const struct quire__token_list *list, uint64_t id, bool special,
                          char *out)
{
    const struct quire__text text = list->tokens[id];
    const int32_t type = type_of(list, id);
    if (list->kind == QUIRE__VOCAB_SPM && type == QUIRE__TOKEN_BYTE && quire__spm_byte(text) >= 0) {
        *out = (char)quire__spm_byte(text);
        return 1;
    }
    if (!special && list->kind == QUIRE__VOCAB_SPM && type != QUIRE__TOKEN_UNKNOWN)
        return spm_decode(text, out);
    if (!special && list->kind == QUIRE__VOCAB_BYTE_LEVEL)
        return byte_level_decode(text, out);
    if (text.count > 0)
        memcpy(out, text.bytes, text.count);
    return text.count;
}

quire_status quire__token_table_init(struct quire__token_table *table,
                                     const struct quire__token_list *list,
                                     struct quire_error *error)
{
    uint64_t text_bytes = 0;
    const struct quire__text nothing = {0}, *tokens = list->tokens;
    *table = (struct quire__token_table){0};
    for (uint64_t i = 0; i < list->count; i++)
        if (!quire__add_u64(text_bytes, tokens[i].count, &text_bytes))
            text_bytes = UINT64_MAX;
    if (list->count > TOKENS_MAX || text_bytes > UINT32_MAX / 2)
        return quire__fail(error, QUIRE_E_LIMIT,
                           "the vocabulary is too large: %llu tokens, %llu bytes",
                           (unsigned long long)list->count, (unsigned long long)text_bytes);
    table->count = (uint32_t)list->count;
    quire_status status = allocate(table, text_bytes, error);
    if (status != QUIRE_OK)
        return status;
    uint64_t at = 0;
    for (uint32_t id = 0; id < table->count; id++) {
        if (tokens[id].count > 0)
            memcpy(table->bytes + at, tokens[id].bytes, tokens[id].count);
        at += tokens[id].count;
        if (tokens[id].count > table->text_bytes_max)
            table->text_bytes_max = tokens[id].count;
        table->text_at[id + 1] = (uint32_t)at;
        const int32_t type = type_of(list, id);
        table->special[id] =
            type == QUIRE__TOKEN_CONTROL ||
            (type == QUIRE__TOKEN_USER_DEFINED && list->kind == QUIRE__VOCAB_BYTE_LEVEL);
        uint32_t hash = hash_pair(tokens[id], nothing);
        *find_slot(table, hash, tokens[id], nothing) = (struct quire__token_slot){hash, id};
    }
    for (uint32_t id = 0; id < table->count; id++) {
        table->piece_at[id] = (uint32_t)at;
        at += put_piece(list, id, table->special[id], table->bytes + at);
    }
    table->piece_at[table->count] = (uint32_t)at;
    return QUIRE_OK;
}

void quire__token_table_deinit(struct quire__token_table *table)
{
    quire__free(table->text_at);
    quire__free(table->piece_at);
    quire__free(table->bytes);
    quire__free(table->special);
    quire__free(table->slots);
    *table = (struct quire__token_table){0};
}

/* ---- growable ids ---- */

quire_status quire__ids_reserve(struct quire__ids *ids, uint64_t extra, struct quire_error *error)
{
    uint64_t needed, doubled, bytes;
    if (!quire__add_u64(ids->count, extra, &needed))
        needed = UINT64_MAX;
    if (needed <= ids->capacity)
        return QUIRE_OK;
    if (!quire__mul_u64(ids->capacity, 2, &doubled) || doubled < needed)
        doubled = needed;
    if (doubled < 64)
        doubled = 64;
    uint32_t *grown =
        quire__mul_u64(doubled, sizeof(*grown), &bytes) ? quire__realloc(ids->ids, bytes) : NULL;
    if (grown == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory for %llu tokens",
                           (unsigned long long)needed);
    ids->ids = grown;
    ids->capacity = doubled;
    return QUIRE_OK;
}

quire_status quire__ids_push(struct quire__ids *ids, uint32_t id, struct quire_error *error)
{
    if (ids->count == ids->capacity) {
        quire_status status = quire__ids_reserve(ids, 1, error);
        if (status != QUIRE_OK)
            return status;
    }
    ids->ids[ids->count++] = id;
    return QUIRE_OK;
}

void quire__ids_deinit(struct quire__ids *ids)
{
    quire__free(ids->ids);
    *ids = (struct quire__ids){0};
}
