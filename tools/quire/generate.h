/* generate.h - a prompt in, tokens out: the loop behind quire run and its chat.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_GENERATE_H
#define QUIRE_TOOL_GENERATE_H

#include <signal.h>

#include "model/sampler.h"
#include "quire/engine.h"

enum generation_end {
    GENERATION_ENDED,    /* the model ended its answer */
    GENERATION_LIMITED,  /* max_new tokens are there */
    GENERATION_FULL,     /* the context is full; the last token is not in the sequence */
    GENERATION_STOPPED,  /* *stop was set */
    GENERATION_UNPRINTED /* standard output failed, and a line has said so */
};

/* Of all prompts and answers so far. */
struct figures {
    uint64_t prompt_tokens, prompt_ns; /* computed */
    uint64_t reused_tokens;            /* of prompts, that were in the cache */
    uint64_t decode_steps, decode_ns;
    uint64_t answer_tokens;
};

struct generation {
    struct engine *engine;
    struct quire__sampler *sampler;
    quire_seq seq;
    bool print;                        /* stream the text to standard output */
    const volatile sig_atomic_t *stop; /* NULL: never */
    uint32_t next;                     /* the token that comes next */
    struct quire_error error;          /* of the sampler */
    quire_status sampled;              /* what the sampler said */
    struct quire__ids output;          /* of the answer; the token that ends it included */
    struct quire__bytes text;          /* of the answer; always UTF-8 */
    struct quire__stream stream;
    struct figures figures;
};

/* Starts a sequence and a sampler. The caller has set print and stop, the rest is zero. */
int generation_open(struct generation *generation, struct engine *engine,
                    const struct quire__sampler_config *config);
void generation_close(struct generation *generation); /* before the engine; fine when not open */

/* The sequence holds the first `held` tokens of a text, fewer than all: computes the others and
 * picks the token after them. */
quire_status generation_prompt(struct generation *generation, const struct quire__ids *text,
                               uint64_t held, struct quire_error *error);
/* Tells the sampler the text that the next token follows. */
void generation_remember(struct generation *generation, const struct quire__ids *text);
/* Picks the next token from logits; the sampler's error waits in the generation, so that it
 * outlives the step. */
void generation_pick(struct generation *generation, const float *logits);
/* Begins an answer: forgets the output and text of the last. */
void generation_begin(struct generation *generation);
/* Goes on with the answer up to max_new tokens of output. Every token of the output but the last is
 * in the sequence afterwards. */
quire_status generation_answer(struct generation *generation, uint64_t max_new,
                               enum generation_end *end, struct quire_error *error);
/* One token of an answer: takes the next one into the output, and sets *end where the answer is
 * *over with it. */
quire_status generation_take(struct generation *generation, uint64_t max_new, bool *over,
                             enum generation_end *end, struct quire_error *error);
/* Puts the text of a character that was cut off out as U+FFFD. */
quire_status generation_finish(struct generation *generation, struct quire_error *error);

#endif
