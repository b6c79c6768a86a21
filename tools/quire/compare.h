/* compare.h - the formats of K/V side by side over one text: quire eval --compare.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_COMPARE_H
#define QUIRE_TOOL_COMPARE_H

#include "quire/engine.h"

enum { COMPARE_MAX = 12 };

/* One format, and its sums over the text so far. */
struct compare_format {
    char name[16];
    struct engine_options options;
    struct engine engine; /* the common one with this format's pool */
    quire_seq seq;
    double nll, divergence; /* sums, in nats */
    float *divergences;     /* [tokens_max] each position's */
    uint64_t same_best;     /* positions with the first format's likeliest token */
    uint64_t ns;            /* of computing, without what is done to the logits */
    uint64_t position_bytes;
};

struct compare {
    uint32_t count;
    struct compare_format formats[COMPARE_MAX];
    uint64_t tokens, tokens_max; /* predicted; room for */
    uint32_t rows, vocabulary;   /* positions that are compared at a time; V */
    const uint32_t *chunk;
    uint32_t chunk_count, at;     /* of the chunk: its first compared position */
    float *logits, *weights;      /* [rows][V] the first format's, and exp of them */
    double *denominators;         /* [rows] log of the sum of exp */
    uint32_t *best;               /* [rows] its likeliest token */
    struct compare_format *taker; /* whose logits come */
};

/* Reads "f16 q8 q8,q4"; one line on stderr says what is wrong. */
int compare_parse(struct compare *self, const char *list);
/* Makes the pools of the formats and room for tokens_max predictions; the engine has its model open
 * and its context chosen, and stays without a pool of its own. */
int compare_open(struct compare *self, const struct engine *engine, uint64_t tokens_max);
int compare_chunk(struct compare *self, const uint32_t *tokens, uint32_t count);
/* Sorts what was gathered and prints it. */
int compare_print(struct compare *self, bool json);
/* Draws it: bars for each format and figure. */
int compare_draw(const struct compare *self, const char *path);
void compare_close(struct compare *self);

/* What is told of a format. */
struct compare_row {
    double mean_nll, ppl, ppl_more; /* ppl_more: over the first format's, in percent */
    double divergence, divergence_99, same_best, tokens_s; /* same_best in percent */
};
struct compare_row compare_row(const struct compare *self, uint32_t index);

/* log of the sum of exp, in double: sums of 100,000 terms keep their digits. */
double compare_denominator(const float *logits, uint32_t count);

#endif
