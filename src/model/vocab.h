/* vocab.h - the tokens of a vocabulary: their texts, their bytes, and how to find one.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A byte-level vocabulary writes every byte as one printable character (the table of GPT-2: itself
 * where it is printable Latin-1, else U+0100 and on). A token's *text* is what the file says, its
 * *piece* the bytes that it stands for. In a SentencePiece vocabulary (arXiv:1808.06226,
 * section 3.1) U+2581 stands for a space, and a token <0xNN> of type BYTE for a byte. */
#ifndef QUIRE_MODEL_VOCAB_H
#define QUIRE_MODEL_VOCAB_H

#include "model/utf8.h"

#define QUIRE__TOKEN_NONE UINT32_MAX

/* Token types of GGUF that matter here; any other number is an ordinary token. */
enum {
    QUIRE__TOKEN_UNKNOWN = 2,
    QUIRE__TOKEN_CONTROL = 3,
    QUIRE__TOKEN_USER_DEFINED = 4,
    QUIRE__TOKEN_UNUSED = 5,
    QUIRE__TOKEN_BYTE = 6,
};

enum quire__vocab_kind {
    QUIRE__VOCAB_BYTE_LEVEL,
    QUIRE__VOCAB_SPM, /* SentencePiece */
};

#define QUIRE__SPM_SPACE "\xe2\x96\x81" /* U+2581 */

struct quire__token_slot {
    uint32_t hash;
    uint32_t id; /* QUIRE__TOKEN_NONE: empty */
};

struct quire__token_table {
    uint32_t count;
    uint32_t *text_at;       /* [count + 1], into bytes */
    uint32_t *piece_at;      /* [count + 1], into bytes */
    char *bytes;             /* all texts, then all pieces */
    bool *special;           /* [count]: CONTROL, and in a byte-level vocabulary USER_DEFINED */
    uint64_t text_bytes_max; /* length of the longest text */
    struct quire__token_slot *slots;
    uint64_t slot_mask;
};

/* A vocabulary's tokens; types may be NULL (all ordinary). */
struct quire__token_list {
    enum quire__vocab_kind kind;
    const struct quire__text *tokens; /* [count] */
    const int32_t *types;             /* [count] */
    uint64_t count;
};

/* Copies the tokens. Of equal texts the last is found. A byte-level text that is not wholly in the
 * alphabet, and that of a special token, is its own piece.
 * LIMIT past 2^31 tokens or 2 GiB of text, NOMEM; on error the table is deinitialised. */
quire_status quire__token_table_init(struct quire__token_table *table,
                                     const struct quire__token_list *list,
                                     struct quire_error *error);
void quire__token_table_deinit(struct quire__token_table *table);

struct quire__text quire__token_text(const struct quire__token_table *table, uint32_t id);
struct quire__text quire__token_piece(const struct quire__token_table *table, uint32_t id);

/* Id of the token whose text is head followed by tail, or QUIRE__TOKEN_NONE. */
uint32_t quire__token_find(const struct quire__token_table *table, struct quire__text head,
                           struct quire__text tail);

/* The byte that a text such as "<0x0A>" names, or -1. */
int quire__spm_byte(struct quire__text text);

/* Writes bytes in the byte-level alphabet to out, which has room for twice as many. Returns the
 * length. */
uint64_t quire__byte_level_encode(const char *bytes, uint64_t count, char *out);

/* ---- growable ids ---- */

/* Zero-initialise; give back with quire__ids_deinit. */
struct quire__ids {
    uint32_t *ids;
    uint64_t count, capacity;
};
quire_status quire__ids_reserve(struct quire__ids *ids, uint64_t extra, struct quire_error *error);
quire_status quire__ids_push(struct quire__ids *ids, uint32_t id, struct quire_error *error);
void quire__ids_deinit(struct quire__ids *ids);

#endif
