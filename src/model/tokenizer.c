/* tokenizer.c - text to token ids and back: byte-level BPE and SentencePiece, special tokens.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: the token table, merges or scores, special tokens, the compiled pattern. Nothing changes
 * after creation; what one text needs while it is encoded is in struct encoder, on the stack. */
#include "model/tokenizer.h"

#include "model/bpe.h"
#include "model/pretokenize.h"
#include "model/special.h"
#include "model/spm.h"

#include <string.h>

#define TEXT_BYTES_MAX INT32_MAX

static const char *const end_names[] = {"<|im_end|>", "<|eot_id|>", "<end_of_turn>",
                                        "<|end_of_text|>", "<|endoftext|>"};

struct quire__tokenizer {
    enum quire__vocab_kind kind;
    struct quire__token_table table;
    struct quire__bpe bpe; /* of a byte-level vocabulary, as pre */
    struct quire__spm spm;
    struct quire__specials specials;
    struct quire__pretokenizer *pre;
    bool ignore_merges, add_bos;
    uint32_t bos, eos, eot;
    uint32_t ends[QUIRE_ARRAY_LEN(end_names)];
};

/* ---- creation ---- */

static quire_status check_id(const char *key, uint32_t id, uint64_t count,
                             struct quire_error *error)
{
    if (id == QUIRE__TOKEN_NONE || id < count)
        return QUIRE_OK;
    return quire__fail(error, QUIRE_E_CORRUPT, "%s is %u, but the vocabulary has %llu tokens", key,
                       id, (unsigned long long)count);
}

static quire_status check_vocab(const struct quire__vocab *vocab, struct quire_error *error)
{
    quire_status status = QUIRE_OK;
    if (vocab->token_count == 0)
        return quire__fail(error, QUIRE_E_CORRUPT, "tokenizer.ggml.tokens is empty");
    if (vocab->types != NULL && vocab->type_count != vocab->token_count)
        return quire__fail(
            error, QUIRE_E_CORRUPT, "tokenizer.ggml.token_type has %llu entries for %llu tokens",
            (unsigned long long)vocab->type_count, (unsigned long long)vocab->token_count);
    if (vocab->kind == QUIRE__VOCAB_SPM && vocab->score_count != vocab->token_count)
        return quire__fail(
            error, QUIRE_E_CORRUPT, "tokenizer.ggml.scores has %llu entries for %llu tokens",
            (unsigned long long)vocab->score_count, (unsigned long long)vocab->token_count);
    status = check_id("tokenizer.ggml.bos_token_id", vocab->bos, vocab->token_count, error);
    if (status == QUIRE_OK)
        status = check_id("tokenizer.ggml.eos_token_id", vocab->eos, vocab->token_count, error);
    if (status == QUIRE_OK)
        status = check_id("tokenizer.ggml.eot_token_id", vocab->eot, vocab->token_count, error);
    return status;
}

static quire_status init_byte_level(struct quire__tokenizer *tokenizer,
                                    const struct quire__vocab *vocab,
                                    const struct quire__token_list *list, struct quire_error *error)
{
    enum quire__pretokenizer_kind kind;
    quire_status status = quire__pretokenizer_find(vocab->pre, &kind, error);
    if (status == QUIRE_OK)
        status = quire__pretokenizer_create(kind, &tokenizer->pre, error);
    if (status == QUIRE_OK)
        status = quire__token_table_init(&tokenizer->table, list, error);
    if (status == QUIRE_OK)
        status = quire__bpe_init(&tokenizer->bpe, &tokenizer->table, vocab->merges,
                                 vocab->merge_count, error);
    if (status != QUIRE_OK)
        return status;
    const struct quire__pretokenizer_rules *rules = quire__pretokenizer_rules(kind);
    tokenizer->ignore_merges = rules->ignore_merges;
    tokenizer->add_bos = rules->add_bos;
    return QUIRE_OK;
}

/* Files write user-defined tokens with spaces, as people see them; texts are matched with their
 * spaces as U+2581. tokens: a copy of the list's; *texts owns what is new, room for it is made
 * before anything points into it. */
static quire_status mark_spaces(const struct quire__token_list *list, struct quire__text *tokens,
                                struct quire__bytes *texts, struct quire_error *error)
{
    uint64_t room = 0;
    for (uint64_t i = 0; i < list->count; i++)
        if (list->types != NULL && list->types[i] == QUIRE__TOKEN_USER_DEFINED &&
            (list->tokens[i].count > UINT32_MAX ||
             !quire__add_u64(room, 3 * list->tokens[i].count, &room)))
            return quire__fail(error, QUIRE_E_LIMIT, "the vocabulary is too large");
    quire_status status = quire__bytes_reserve(texts, room, error);
    for (uint64_t i = 0; i < list->count && status == QUIRE_OK; i++) {
        const struct quire__text from = tokens[i] = list->tokens[i];
        if (list->types == NULL || list->types[i] != QUIRE__TOKEN_USER_DEFINED || from.count == 0)
            continue;
        const uint64_t start = texts->count;
        for (uint64_t at = 0; at < from.count && status == QUIRE_OK; at++)
            status = from.bytes[at] == ' ' ? quire__bytes_append(texts, QUIRE__SPM_SPACE,
                                                                 sizeof QUIRE__SPM_SPACE - 1, error)
                                           : quire__bytes_append(texts, from.bytes + at, 1, error);
        tokens[i] = (struct quire__text){texts->data + start, texts->count - start};
    }
    return status;
}

static quire_status init_spm(struct quire__tokenizer *tokenizer, const struct quire__vocab *vocab,
                             const struct quire__token_list *list, struct quire_error *error)
{
    struct quire__bytes texts = {0};
    struct quire__token_list marked = *list;
    struct quire__text *tokens = quire__calloc(list->count, sizeof *tokens);
    quire_status status = QUIRE_OK;
    if (tokens == NULL)
        status = quire__fail(error, QUIRE_E_NOMEM, "out of memory for the tokenizer");
    if (status == QUIRE_OK)
        status = mark_spaces(list, tokens, &texts, error);
    marked.tokens = tokens;
    if (status == QUIRE_OK)
        status = quire__token_table_init(&tokenizer->table, &marked, error);
    if (status == QUIRE_OK)
        status = quire__spm_init(&tokenizer->spm, &tokenizer->table, &marked, vocab->scores, error);
    quire__bytes_deinit(&texts);
    quire__free(tokens);
    tokenizer->spm.space_prefix = vocab->space_prefix;
    tokenizer->add_bos = true; /* what a file means that does not say */
    return status;
}

/* Fills a zeroed tokenizer; the caller destroys it on failure. */
static quire_status init(struct quire__tokenizer *tokenizer, const struct quire__vocab *vocab,
                         struct quire_error *error)
{
    const struct quire__token_list list = {.kind = vocab->kind,
                                           .tokens = vocab->tokens,
                                           .types = vocab->types,
                                           .count = vocab->token_count};
    tokenizer->kind = vocab->kind;
    quire_status status = vocab->kind == QUIRE__VOCAB_SPM
                              ? init_spm(tokenizer, vocab, &list, error)
                              : init_byte_level(tokenizer, vocab, &list, error);
    if (status == QUIRE_OK)
        status = quire__specials_init(&tokenizer->specials, &tokenizer->table,
                                      tokenizer->table.special, error);
    if (status != QUIRE_OK)
        return status;
    tokenizer->bos = vocab->bos;
    tokenizer->eos = vocab->eos;
    tokenizer->eot = vocab->eot;
    if (vocab->has_add_bos)
        tokenizer->add_bos = vocab->add_bos;
    tokenizer->add_bos = tokenizer->add_bos && vocab->bos != QUIRE__TOKEN_NONE;
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(end_names); i++)
        tokenizer->ends[i] = quire__tokenizer_find(tokenizer, end_names[i]);
    return QUIRE_OK;
}

quire_status quire__tokenizer_create(const struct quire__vocab *vocab,
                                     struct quire__tokenizer **out, struct quire_error *error)
{
    quire_status status = check_vocab(vocab, error);
    if (status != QUIRE_OK)
        return status;
    struct quire__tokenizer *tokenizer = quire__calloc(1, sizeof(*tokenizer));
    if (tokenizer == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory for the tokenizer");
    status = init(tokenizer, vocab, error);
    if (status != QUIRE_OK) {
        quire__tokenizer_destroy(tokenizer);
        return status;
    }
    *out = tokenizer;
    return QUIRE_OK;
}

void quire__tokenizer_destroy(struct quire__tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    quire__specials_deinit(&tokenizer->specials);
    quire__bpe_deinit(&tokenizer->bpe);
    quire__spm_deinit(&tokenizer->spm);
    quire__token_table_deinit(&tokenizer->table);
    quire__pretokenizer_destroy(tokenizer->pre);
    quire__free(tokenizer);
}

/* ---- encoding ---- */

/* What encoding one text needs. */
struct encoder {
    const struct quire__tokenizer *tokenizer;
    struct quire__pretokenizer_scratch *pre;
    struct quire__bpe_scratch bpe;
    struct quire__spm_scratch spm;
    struct quire__bytes text; /* a piece in the byte-level alphabet */
    struct quire__ids *ids;
    uint64_t pieces;
};

/* *id is the ordinary token that the piece is as a whole, or QUIRE__TOKEN_NONE. */
static quire_status find_whole(struct encoder *encoder, struct quire__text piece, uint32_t *id,
                               struct quire_error *error)
{
    const struct quire__token_table *table = &encoder->tokenizer->table;
    *id = QUIRE__TOKEN_NONE;
    if (piece.count > table->text_bytes_max)
        return QUIRE_OK;
    quire_status status = quire__bytes_reserve(&encoder->text, 2 * piece.count, error);
    if (status != QUIRE_OK)
        return status;
    uint64_t count = quire__byte_level_encode(piece.bytes, piece.count, encoder->text.data);
    *id = quire__token_find(table, (struct quire__text){encoder->text.data, count},
                            (struct quire__text){0});
    if (*id != QUIRE__TOKEN_NONE && table->special[*id])
        *id = QUIRE__TOKEN_NONE;
    return QUIRE_OK;
}

/* Text without special tokens. */
static quire_status encode_plain(struct encoder *encoder, struct quire__text text,
                                 struct quire_error *error)
{
    const struct quire__tokenizer *tokenizer = encoder->tokenizer;
    if (tokenizer->kind == QUIRE__VOCAB_SPM) {
        encoder->pieces++;
        return quire__spm_encode(&tokenizer->spm, &encoder->spm, text, encoder->ids, error);
    }
    for (uint64_t at = 0, length; at < text.count; at += length) {
        uint32_t whole = QUIRE__TOKEN_NONE;
        quire_status status =
            quire__pretokenizer_next(tokenizer->pre, encoder->pre, text, at, &length, error);
        struct quire__text piece = {text.bytes + at, length};
        encoder->pieces++;
        if (status == QUIRE_OK && tokenizer->ignore_merges)
            status = find_whole(encoder, piece, &whole, error);
        if (status == QUIRE_OK)
            status = whole != QUIRE__TOKEN_NONE ? quire__ids_push(encoder->ids, whole, error)
                                                : quire__bpe_encode(&tokenizer->bpe, &encoder->bpe,
                                                                    piece, encoder->ids, error);
        if (status != QUIRE_OK)
            return status;
    }
    return QUIRE_OK;
}

static quire_status encode_special(struct encoder *encoder, struct quire__text text,
                                   struct quire_error *error)
{
    uint64_t from = 0, found_at;
    uint32_t id;
    while (quire__specials_find(&encoder->tokenizer->specials, text, from, &found_at, &id)) {
        struct quire__text before = {text.bytes + from, found_at - from};
        quire_status status = encode_plain(encoder, before, error);
        if (status == QUIRE_OK)
            status = quire__ids_push(encoder->ids, id, error);
        if (status != QUIRE_OK)
            return status;
        from = found_at + quire__token_text(&encoder->tokenizer->table, id).count;
    }
    return encode_plain(encoder, (struct quire__text){text.bytes + from, text.count - from}, error);
}

static quire_status check_text(struct quire__text text, struct quire_error *error)
{
    uint64_t bad_offset;
    if (text.count > TEXT_BYTES_MAX)
        return quire__fail(error, QUIRE_E_LIMIT, "a text of %llu bytes is too long (at most %lld)",
                           (unsigned long long)text.count, (long long)TEXT_BYTES_MAX);
    if (!quire__utf8_check(text.bytes, text.count, &bad_offset))
        return quire__fail(error, QUIRE_E_INVAL,
                           "the text is not UTF-8: byte 0x%02x at offset %llu",
                           (uint8_t)text.bytes[bad_offset], (unsigned long long)bad_offset);
    return QUIRE_OK;
}

static quire_status encode(struct encoder *encoder, struct quire__text text, bool parse_special,
                           struct quire_error *error)
{
    quire_status status = check_text(text, error);
    if (status != QUIRE_OK || text.count == 0)
        return status;
    if (encoder->tokenizer->kind == QUIRE__VOCAB_BYTE_LEVEL)
        status = quire__pretokenizer_scratch_create(encoder->tokenizer->pre, &encoder->pre, error);
    if (status != QUIRE_OK)
        return status;
    uint64_t count_before = encoder->ids->count;
    status =
        parse_special ? encode_special(encoder, text, error) : encode_plain(encoder, text, error);
    if (status != QUIRE_OK)
        encoder->ids->count = count_before;
    quire__pretokenizer_scratch_destroy(encoder->pre);
    return status;
}

static void encoder_deinit(struct encoder *encoder)
{
    quire__bytes_deinit(&encoder->text);
    quire__bpe_scratch_deinit(&encoder->bpe);
    quire__spm_scratch_deinit(&encoder->spm);
}

quire_status quire__tokenizer_encode(const struct quire__tokenizer *tokenizer, const char *text,
                                     uint64_t bytes, bool parse_special, struct quire__ids *ids,
                                     struct quire_error *error)
{
    struct encoder encoder = {.tokenizer = tokenizer, .ids = ids};
    quire_status status = encode(&encoder, (struct quire__text){text, bytes}, parse_special, error);
    encoder_deinit(&encoder);
    return status;
}

quire_status quire__tokenizer_measure(const struct quire__tokenizer *tokenizer,
                                      struct quire__text text, struct quire__ids *ids,
                                      struct quire__encode_work *work, struct quire_error *error)
{
    struct encoder encoder = {.tokenizer = tokenizer, .ids = ids};
    quire_status status = encode(&encoder, text, false, error);
    *work = (struct quire__encode_work){encoder.pieces,
                                        encoder.bpe.heap.steps + encoder.spm.heap.steps};
    encoder_deinit(&encoder);
    return status;
}

/* ---- decoding and properties ---- */

quire_status quire__tokenizer_piece(const struct quire__tokenizer *tokenizer, uint32_t id,
                                    const char **bytes, uint64_t *count, struct quire_error *error)
{
    if (id >= tokenizer->table.count)
        return quire__fail(error, QUIRE_E_INVAL, "there is no token %u: the vocabulary has %u", id,
                           tokenizer->table.count);
    struct quire__text piece = quire__token_piece(&tokenizer->table, id);
    *bytes = piece.bytes;
    *count = piece.count;
    return QUIRE_OK;
}

uint32_t quire__tokenizer_vocab_size(const struct quire__tokenizer *tokenizer)
{
    return tokenizer->table.count;
}

uint32_t quire__tokenizer_bos(const struct quire__tokenizer *tokenizer)
{
    return tokenizer->bos;
}

uint32_t quire__tokenizer_eos(const struct quire__tokenizer *tokenizer)
{
    return tokenizer->eos;
}

uint32_t quire__tokenizer_eot(const struct quire__tokenizer *tokenizer)
{
    return tokenizer->eot;
}

bool quire__tokenizer_add_bos(const struct quire__tokenizer *tokenizer)
{
    return tokenizer->add_bos;
}

bool quire__tokenizer_is_special(const struct quire__tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->table.count && tokenizer->table.special[id];
}

bool quire__tokenizer_is_end(const struct quire__tokenizer *tokenizer, uint32_t id)
{
    if (id == QUIRE__TOKEN_NONE)
        return false;
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(end_names); i++)
        if (tokenizer->ends[i] == id)
            return true;
    return id == tokenizer->eos || id == tokenizer->eot;
}

uint32_t quire__tokenizer_find(const struct quire__tokenizer *tokenizer, const char *text)
{
    return quire__token_find(&tokenizer->table, (struct quire__text){text, strlen(text)},
                             (struct quire__text){0});
}
