/* answers.h - several answers to one prompt, decoded together.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The prompt is computed once. Every answer is a fork of it with a sampler of its own, and every
 * step takes one token of each answer that goes on. Answer i is, token for token, what a run alone
 * gives with seed + i. */
#ifndef QUIRE_TOOL_ANSWERS_H
#define QUIRE_TOOL_ANSWERS_H

#include "quire/generate.h"

enum { ANSWERS_MAX = 256 };

struct answers {
    struct engine *engine;
    struct generation *each; /* [count] */
    enum generation_end *ends;
    bool *over;
    uint32_t count;
    uint64_t seed; /* of the first; the next has the next */
    uint64_t max_new;
    bool print;
    uint32_t shown;       /* answers whose text is out */
    uint64_t shown_bytes; /* of the text of the one that is being shown */
    bool unprinted;
    struct figures figures;
};

/* What sharing saves while all answers are held. */
struct answers_saving {
    uint64_t blocks;        /* that a pool without sharing would need more */
    uint64_t blocks_shared; /* that several answers hold */
    uint64_t bytes;
};

/* Makes samplers, and the sequence that reads the prompt. The pool has room for all sequences; the
 * caller has set engine, count, seed, max_new and print, the rest is zero. */
int answers_open(struct answers *answers, const struct quire__sampler_config *config);
void answers_close(struct answers *answers); /* fine when not open, and after a failure */

/* Computes and prints all answers. */
int answers_run(struct answers *answers, const struct quire__ids *prompt);
int answers_measure(const struct answers *answers, struct answers_saving *saving);

#endif
