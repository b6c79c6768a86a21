/* beam.c - beam search: fork and drop every step, and copy next to nothing.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Of all tokens that may follow all beams, those with the best sums of log-probabilities live on. A
 * beam that is followed twice is forked, one that is not followed ends. At the end every beam is
 * computed again alone: its log-probability must be the same, bit for bit.
 * Usage: example-beam MODEL PROMPT [WIDTH [TOKENS]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/example.h"

enum { WIDTH_MAX = 16, TOKENS_MAX = 4096 };

struct beam {
    quire_seq seq;
    double score; /* sum of the tokens' log-probabilities */
    uint32_t *tokens;
    uint32_t count;
    bool over;
};

/* One way on: beam `parent` followed by a token, or a beam that is over as it is. */
struct way {
    uint32_t parent, token;
    double score;
};

struct search {
    struct example *e;
    uint32_t width, num_beams;
    struct beam beams[WIDTH_MAX], next[WIDTH_MAX];
    uint32_t *tokens; /* memory of both */
    uint64_t forks, naive_blocks;
};

/* log(sum(exp(logits))), in the order of the tokens. */
static double log_sum(const struct example *e, const float *logits)
{
    const double largest = (double)logits[example_best(e, logits)];
    double sum = exp((double)logits[0] - largest);
    for (uint32_t i = 1; i < e->vocabulary; i++)
        sum += exp((double)logits[i] - largest);
    return largest + log(sum);
}

/* Keeps the best `width` ways, best first; of equals what came first. */
static void offer(struct search *s, struct way *ways, uint32_t *num_ways, struct way way)
{
    uint32_t at = *num_ways;
    while (at > 0 && ways[at - 1].score < way.score)
        at--;
    if (at >= s->width)
        return;
    if (*num_ways < s->width)
        ++*num_ways;
    memmove(ways + at + 1, ways + at, (*num_ways - at - 1) * sizeof *ways);
    ways[at] = way;
}

static uint32_t find_ways(struct search *s, struct way *ways)
{
    uint32_t num_ways = 0, row = 0;
    for (uint32_t b = 0; b < s->num_beams; b++) {
        const struct beam *beam = &s->beams[b];
        if (beam->over) {
            offer(s, ways, &num_ways, (struct way){.parent = b, .score = beam->score});
            continue;
        }
        const float *logits = example_row(s->e, row++);
        const double total = log_sum(s->e, logits);
        for (uint32_t t = 0; t < s->e->vocabulary; t++)
            offer(s, ways, &num_ways,
                  (struct way){b, t, beam->score + ((double)logits[t] - total)});
    }
    return num_ways;
}

/* The first way on from a beam goes on in its sequence, the others in forks of it. */
static quire_status follow(struct search *s, const struct way *ways, uint32_t num_ways)
{
    uint32_t followers[WIDTH_MAX] = {0};
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < num_ways; i++)
        followers[ways[i].parent]++;
    for (uint32_t b = 0; b < s->num_beams && status == QUIRE_OK; b++)
        if (followers[b] == 0)
            status = quire_seq_destroy(s->e->pool, s->beams[b].seq);
    for (uint32_t i = 0; i < num_ways && status == QUIRE_OK; i++) {
        const struct beam *parent = &s->beams[ways[i].parent];
        struct beam *child = &s->next[i];
        uint32_t len = 0;
        memcpy(child->tokens, parent->tokens, parent->count * sizeof *child->tokens);
        *child =
            (struct beam){parent->seq, ways[i].score, child->tokens, parent->count, parent->over};
        if (!parent->over) {
            child->tokens[child->count++] = ways[i].token;
            child->over = quire__tokenizer_is_end(s->e->tokenizer, ways[i].token);
        }
        if (--followers[ways[i].parent] == 0)
            continue; /* the last one takes the sequence over */
        status = quire_seq_length(s->e->pool, parent->seq, &len);
        if (status == QUIRE_OK)
            status = quire_seq_fork(s->e->pool, parent->seq, len, &child->seq, NULL);
        struct quire_seq_stats held = {.struct_size = sizeof held};
        if (status == QUIRE_OK)
            status = quire_seq_stats(s->e->pool, child->seq, &held);
        s->forks++;
        s->naive_blocks += held.blocks;
    }
    for (uint32_t i = 0; i < num_ways; i++) {
        struct beam beam = s->beams[i];
        s->beams[i] = s->next[i];
        s->next[i] = beam;
    }
    s->num_beams = num_ways;
    return status;
}

static quire_status search(struct search *s, uint32_t max_tokens)
{
    quire_status status = quire_seq_create(s->e->pool, NULL, &s->beams[0].seq);
    if (status == QUIRE_OK)
        status = example_prompt(s->e, s->beams[0].seq, 0);
    s->num_beams = 1;
    for (uint32_t t = 0; t < max_tokens && status == QUIRE_OK; t++) {
        struct way ways[WIDTH_MAX + 1];
        struct quire__batch_item items[WIDTH_MAX];
        uint32_t live = 0;
        status = follow(s, ways, find_ways(s, ways));
        for (uint32_t b = 0; b < s->num_beams; b++)
            if (!s->beams[b].over)
                items[live++] =
                    (struct quire__batch_item){.seq = s->beams[b].seq,
                                               .tokens = &s->beams[b].tokens[s->beams[b].count - 1],
                                               .count = 1,
                                               .want = QUIRE__WANT_LAST};
        if (live == 0)
            break;
        if (status == QUIRE_OK)
            status = example_step(s->e, items, live, NULL);
    }
    return status;
}

/* Computes a beam alone, from nothing, one token a step. */
static quire_status check(struct search *s, const struct beam *beam)
{
    struct example *e = s->e;
    struct quire_seq_config config;
    quire_seq seq = {0};
    double score = 0.0;
    quire_seq_config_init(&config);
    config.no_lookup = 1;
    quire_status status = quire_seq_create(e->pool, &config, &seq);
    if (status == QUIRE_OK)
        status = example_prompt(e, seq, 0);
    for (uint32_t i = 0; i < beam->count && status == QUIRE_OK; i++) {
        const float *logits = example_row(e, 0);
        score += (double)logits[beam->tokens[i]] - log_sum(e, logits);
        const struct quire__batch_item item = {
            .seq = seq, .tokens = &beam->tokens[i], .count = 1, .want = QUIRE__WANT_LAST};
        status = i + 1 < beam->count ? example_step(e, &item, 1, NULL) : QUIRE_OK;
    }
    if (seq.id != 0)
        (void)quire_seq_destroy(e->pool, seq);
    if (status == QUIRE_OK && score != beam->score) {
        (void)fprintf(stderr, "beam: %.17g alone, %.17g in the search\n", score, beam->score);
        return QUIRE_E_MISMATCH;
    }
    return status;
}

static quire_status report(struct search *s)
{
    const struct quire_pool_stats stats = example_stats(s->e);
    quire_status status = QUIRE_OK;
    uint64_t alone = 0;
    for (uint32_t b = 0; b < s->num_beams; b++) {
        struct quire_seq_stats held = {.struct_size = sizeof held};
        (void)quire_seq_stats(s->e->pool, s->beams[b].seq, &held);
        alone += held.blocks;
        printf("%.6f  ", s->beams[b].score);
        example_print(s->e, s->beams[b].tokens, s->beams[b].count);
    }
    const uint64_t saved = (alone - stats.blocks_owned) * stats.block_bytes;
    printf("--- %u beams, %llu forks ---\n"
           "copied  %llu blocks, where a copy for each fork takes %llu\n"
           "memory  %llu blocks hold what would take %llu, %llu bytes saved\n",
           s->num_beams, (unsigned long long)s->forks, (unsigned long long)stats.blocks_copied,
           (unsigned long long)s->naive_blocks, (unsigned long long)stats.blocks_owned,
           (unsigned long long)alone, (unsigned long long)saved);
    for (uint32_t b = 0; b < s->num_beams && status == QUIRE_OK; b++)
        status = check(s, &s->beams[b]);
    if (status == QUIRE_OK)
        printf("checked %u beams: computed alone, they have the same bits\n", s->num_beams);
    return status;
}

int main(int argc, char **argv)
{
    struct example e = {0};
    struct search s = {.e = &e};
    const uint32_t width = example_number(argc, argv, 3, 4);
    const uint32_t max_tokens = example_number(argc, argv, 4, 32);
    if (argc < 3 || argc > 5 || width == 0 || width > WIDTH_MAX || max_tokens == 0) {
        (void)fprintf(stderr, "usage: %s MODEL PROMPT [WIDTH, 1 to %d [TOKENS, 1 to %d]]\n",
                      argv[0], WIDTH_MAX, TOKENS_MAX);
        return 2;
    }
    const struct example_needs needs = {.seqs = width + 1, .tokens = max_tokens, .rows = width};
    quire_status status = example_open(&e, argv[1], argv[2], &needs);
    s.width = width;
    s.tokens = calloc((size_t)2 * WIDTH_MAX * max_tokens, sizeof *s.tokens);
    for (uint32_t i = 0; i < WIDTH_MAX && s.tokens != NULL; i++) {
        s.beams[i].tokens = s.tokens + (size_t)i * max_tokens;
        s.next[i].tokens = s.tokens + (size_t)(WIDTH_MAX + i) * max_tokens;
    }
    if (status == QUIRE_OK && s.tokens == NULL)
        status = QUIRE_E_NOMEM;
    if (status == QUIRE_OK)
        status = search(&s, max_tokens);
    if (status == QUIRE_OK)
        status = report(&s);
    free(s.tokens);
    return example_end(&e, "beam", status);
}
