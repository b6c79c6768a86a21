/* example.h - what the examples with a model have in common: open one, read a prompt, run a step.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_EXAMPLE_H
#define QUIRE_EXAMPLE_H

#include <quire/quire.h>

#include "model/model.h"
#include "model/tokenizer.h"

struct example {
    struct quire__gguf *gguf;
    struct quire__tokenizer *tokenizer;
    struct quire_backend *backend;
    struct quire__model *model;
    struct quire_pool *pool;
    struct quire__runner *runner;
    struct quire__ids prompt;
    uint32_t vocabulary;
    uint32_t step_tokens; /* most rows of a step */
    float *rows;          /* [rows_max, vocabulary] logits of the last step's wanted rows */
    uint32_t rows_max, num_rows;
    struct quire_error error;
};

struct example_needs {
    uint32_t seqs;   /* alive at once */
    uint32_t tokens; /* that each adds to the prompt */
    uint32_t rows;   /* of logits that one step wants at most */
};

/* Opens a model, turns the prompt into ids (with the chat template of the file, where it has a
 * known one), and makes a pool and a runner with room for it. */
quire_status example_open(struct example *example, const char *model, const char *prompt,
                          const struct example_needs *needs);
void example_close(struct example *example); /* fine at any stage */
/* Reads the number at argv[at], or gives `otherwise` when there is none. 0 is no number. */
uint32_t example_number(int argc, char **argv, int at, uint32_t otherwise);

/* Appends the prompt to a sequence that holds its first `held` tokens; rows then has the logits of
 * its last token. */
quire_status example_prompt(struct example *example, quire_seq seq, uint32_t held);
/* One step. rows has the wanted logits, in the order of the items. open: NULL, or gets the step. */
quire_status example_step(struct example *example, const struct quire__batch_item *items,
                          uint32_t num_items, quire_step *open);
/* The logits of a wanted row of the last step. */
const float *example_row(const struct example *example, uint32_t row);
/* The likeliest token; of equals the lowest. */
uint32_t example_best(const struct example *example, const float *logits);

/* Prints the text of tokens. */
void example_print(const struct example *example, const uint32_t *tokens, uint64_t count);
struct quire_pool_stats example_stats(const struct example *example);
/* Says what failed, frees everything, and gives the exit status. */
int example_end(struct example *example, const char *name, quire_status status);

#endif
