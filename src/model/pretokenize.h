/* pretokenize.h - cuts text into the pieces inside which byte pairs are merged.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A pre-tokenizer is one regular expression of which every match is a piece; the expressions below
 * match at every place of every text, so that the pieces cover it. */
#ifndef QUIRE_MODEL_PRETOKENIZE_H
#define QUIRE_MODEL_PRETOKENIZE_H

#include "model/utf8.h"

enum quire__pretokenizer_kind {
    QUIRE__PRE_SMOLLM,
    QUIRE__PRE_GPT2,
    QUIRE__PRE_LLAMA_BPE,
    QUIRE__PRE_QWEN2,
    QUIRE__PRE_COUNT
};

/* What a kind brings beside its pattern. */
struct quire__pretokenizer_rules {
    const char *pattern; /* PCRE2, for UTF and UCP */
    bool ignore_merges;  /* a piece that is a token as a whole is taken as such */
    bool add_bos;        /* what a file means that does not say */
};
const struct quire__pretokenizer_rules *quire__pretokenizer_rules(
    enum quire__pretokenizer_kind kind);

/* Finds a kind by its name in GGUF files (tokenizer.ggml.pre). UNSUPPORTED lists the names. */
quire_status quire__pretokenizer_find(struct quire__text name, enum quire__pretokenizer_kind *kind,
                                      struct quire_error *error);

/* A compiled pattern; immutable, for any number of threads. */
struct quire__pretokenizer;
quire_status quire__pretokenizer_create(enum quire__pretokenizer_kind kind,
                                        struct quire__pretokenizer **out,
                                        struct quire_error *error);
void quire__pretokenizer_destroy(struct quire__pretokenizer *pre);

/* Scratch of one thread that cuts. */
struct quire__pretokenizer_scratch;
quire_status quire__pretokenizer_scratch_create(const struct quire__pretokenizer *pre,
                                                struct quire__pretokenizer_scratch **out,
                                                struct quire_error *error);
void quire__pretokenizer_scratch_destroy(struct quire__pretokenizer_scratch *scratch);

/* Length of the piece that begins at text[at]; at < count. The text is UTF-8 and `at` begins a
 * character: neither is checked. Takes time in proportion to the piece. */
quire_status quire__pretokenizer_next(const struct quire__pretokenizer *pre,
                                      struct quire__pretokenizer_scratch *scratch,
                                      struct quire__text text, uint64_t at, uint64_t *length,
                                      struct quire_error *error);

#endif
