/* tokenizer.h - text to token ids and back: byte-level BPE and SentencePiece, special tokens.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A tokenizer owns everything it needs and never changes after creation: any number of threads may
 * use one. Its ids are those of the model's own tokenizer without a normalizer: what a text means
 * as Unicode is never touched. */
#ifndef QUIRE_MODEL_TOKENIZER_H
#define QUIRE_MODEL_TOKENIZER_H

#include "model/vocab.h"

struct quire__gguf;
struct quire__tokenizer;

/* A vocabulary as a GGUF file has it. Everything is borrowed for the call that takes it. Zero means
 * a byte-level vocabulary; pre and merges are its own, scores and space_prefix SentencePiece's. */
struct quire__vocab {
    enum quire__vocab_kind kind;
    struct quire__text pre; /* name of the pre-tokenizer: smollm, gpt-2, llama-bpe, qwen2, ... */
    const struct quire__text
        *tokens; /* [token_count], in the byte-level alphabet, or with U+2581 */
    uint64_t token_count;
    const int32_t *types; /* [type_count], or NULL: all ordinary; see QUIRE__TOKEN_CONTROL */
    uint64_t type_count;
    const struct quire__text *merges; /* [merge_count], "left right" */
    uint64_t merge_count;
    const float *scores; /* [score_count] */
    uint64_t score_count;
    bool space_prefix;      /* a text is encoded as if it began with one more space */
    uint32_t bos, eos, eot; /* QUIRE__TOKEN_NONE where the file has none */
    bool has_add_bos, add_bos;
};

/* Of equal tokens the last one is produced; of equal merges the last counts; an unknown token type
 * is an ordinary token; an ordinary token outside the byte-level alphabet is never produced and
 * decodes to its own text. All of that is what the reference implementation does. SentencePiece:
 * spm.h.
 *
 * CORRUPT: no tokens, types or scores of another number than tokens, a score that is not finite, a
 * merge that is malformed or names an
 * unknown token, a bos/eos/eot past the end. UNSUPPORTED: the pre-tokenizer. LIMIT: over 2 GiB.
 * NOMEM. *out is written on success only. */
quire_status quire__tokenizer_create(const struct quire__vocab *vocab,
                                     struct quire__tokenizer **out, struct quire_error *error);
/* The same from the keys tokenizer.ggml.*; also UNSUPPORTED for a tokenizer that is neither gpt2
 * nor llama. The file may be closed afterwards. */
quire_status quire__tokenizer_from_gguf(const struct quire__gguf *gguf,
                                        struct quire__tokenizer **out, struct quire_error *error);
void quire__tokenizer_destroy(struct quire__tokenizer *tokenizer); /* NULL is fine */

/* Appends the tokens of a text, which may be empty and may contain NUL. With parse_special, texts
 * of special tokens inside it (the leftmost, then the longest) become those tokens, and the text
 * between them is encoded piece by piece; without, it is all plain text. Never adds BOS.
 * User-defined tokens of SentencePiece are plain text, and always become themselves.
 *
 * Decoding gives the text back, unless the vocabulary lacks one of its bytes: such a byte is left
 * out, as the reference implementation does. SentencePiece does not tell U+2581 from a space, and
 * what it encodes with a space in front it decodes with that space.
 *
 * INVAL: not UTF-8, the message has the byte offset; LIMIT: over 2^31 - 1 bytes; NOMEM. On error
 * ids has what it had. Cost: O(n log n) for n bytes, and 48 bytes of memory per byte of the longest
 * piece; SentencePiece: of the text. */
quire_status quire__tokenizer_encode(const struct quire__tokenizer *tokenizer, const char *text,
                                     uint64_t bytes, bool parse_special, struct quire__ids *ids,
                                     struct quire_error *error);

/* The bytes of one token, borrowed: the text of an id stream is their concatenation. A special
 * token gives its text. A piece may end inside a character: quire__stream is for that. INVAL when
 * the id is not in the vocabulary. */
quire_status quire__tokenizer_piece(const struct quire__tokenizer *tokenizer, uint32_t id,
                                    const char **bytes, uint64_t *count, struct quire_error *error);

/* ---- properties ---- */

uint32_t quire__tokenizer_vocab_size(const struct quire__tokenizer *tokenizer);
/* QUIRE__TOKEN_NONE where the file has none. */
uint32_t quire__tokenizer_bos(const struct quire__tokenizer *tokenizer);
uint32_t quire__tokenizer_eos(const struct quire__tokenizer *tokenizer);
uint32_t quire__tokenizer_eot(const struct quire__tokenizer *tokenizer);
/* Whether the model wants BOS before a text: there is one, and the file or its family says so. */
bool quire__tokenizer_add_bos(const struct quire__tokenizer *tokenizer);
/* Control, or user-defined in a byte-level vocabulary: a token that is no part of an ordinary text.
 * False past the end. */
bool quire__tokenizer_is_special(const struct quire__tokenizer *tokenizer, uint32_t id);
/* Whether the model ends its answer with this token: eos, eot, or one of <|im_end|>, <|eot_id|>,
 * <end_of_turn>, <|end_of_text|>, <|endoftext|>. */
bool quire__tokenizer_is_end(const struct quire__tokenizer *tokenizer, uint32_t id);
/* Id of the token with this text as the file writes it (a special token's marker), or
 * QUIRE__TOKEN_NONE. */
uint32_t quire__tokenizer_find(const struct quire__tokenizer *tokenizer, const char *text);

/* ---- for tests: the work of one text ---- */

struct quire__encode_work {
    uint64_t pieces;     /* matches of the pre-tokenizer's pattern */
    uint64_t heap_steps; /* of the merges */
};
/* quire__tokenizer_encode without special tokens, which also says what it did. */
quire_status quire__tokenizer_measure(const struct quire__tokenizer *tokenizer,
                                      struct quire__text text, struct quire__ids *ids,
                                      struct quire__encode_work *work, struct quire_error *error);

#endif
