/* small_vocab.h - the vocabularies of tests/golden/tokenizer, for tests that need no model.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_SMALL_VOCAB_H
#define QUIRE_TESTS_SMALL_VOCAB_H

#include "model/tokenizer.h"

struct qt_vocab {
    struct quire__vocab vocab; /* to change and to pass to quire__tokenizer_create */
    struct quire__text *tokens, *merges;
    int32_t *types;
    float *scores;
    char *bytes;
};

/* A whole file below tests/golden/tokenizer, NUL-terminated; *size may be NULL. Ends the program
 * when it cannot be read. Give back with qt_free. */
char *qt_read_golden(const char *name, size_t *size);

/* Ends the program when the file is not as it should be. bos, eos and eot are none. */
void qt_vocab_init(struct qt_vocab *vocab, const char *pre);
/* The same of spm.txt. prefix: a text begins with a space, and there are no tokens of bytes. */
void qt_vocab_init_spm(struct qt_vocab *vocab, bool prefix);
void qt_vocab_deinit(struct qt_vocab *vocab);
/* Index of a token by its text as the file has it; ends the program without one. */
uint32_t qt_vocab_find(const struct qt_vocab *vocab, const char *text);
/* Undoes \xNN in place and returns the length. */
uint64_t qt_unescape(char *text);
/* Puts another text in a token's place; text must outlive the vocabulary. */
void qt_vocab_replace(struct qt_vocab *vocab, const char *old_text, const char *text);

#endif
