/* sampler.h - chooses the next token from logits.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The filters run in the order that users of the field expect: repetition penalty, top-k, top-p,
 * min-p, temperature. All arithmetic is double and every tie goes to the lowest id, so equal logits
 * and seeds give equal tokens on every machine and layout. A sampler belongs to one thread. */
#ifndef QUIRE_MODEL_SAMPLER_H
#define QUIRE_MODEL_SAMPLER_H

#include "base/base.h"

/* Tokens back from the newest that the repetition penalty looks at. */
#define QUIRE__REPEAT_WINDOW 64u

struct quire__sampler_config {
    double temperature;    /* 0: always the likeliest token; else logits are divided by it */
    uint32_t top_k;        /* keep the k likeliest; 0: all */
    double top_p;          /* keep the fewest likeliest whose probabilities sum to p; 1: all */
    double min_p;          /* keep what has p times the likeliest's probability; 0: all */
    double repeat_penalty; /* over 1: recent tokens become less likely; 1: off */
    uint64_t seed;
};

/* Temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalty, seed 0. */
void quire__sampler_config_init(struct quire__sampler_config *config);

struct quire__sampler;
/* INVAL for a temperature or penalty that is negative or not finite, a penalty of 0, a top-p
 * outside (0, 1] or a min-p outside [0, 1]; NOMEM. */
quire_status quire__sampler_create(const struct quire__sampler_config *config, uint32_t vocabulary,
                                   struct quire__sampler **out, struct quire_error *error);
void quire__sampler_destroy(struct quire__sampler *sampler); /* NULL is fine */

/* Tells the sampler a token of the text: of the prompt, or the one that was picked. */
void quire__sampler_accept(struct quire__sampler *sampler, uint32_t token);
/* Picks a token; logits [V]. CORRUPT when no logit is a number. Costs a pass over V and a sort of
 * what the filters leave; allocates nothing. */
quire_status quire__sampler_pick(struct quire__sampler *sampler, const float *logits,
                                 uint32_t *token, struct quire_error *error);

#endif
