/* parallel.c - several answers to one prompt, which is computed once.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every answer is a fork of the prompt's sequence: it refers to the same blocks, and the first
 * token that it adds copies at most the last of them. One step takes a token of every answer.
 * Usage: example-parallel MODEL PROMPT [ANSWERS [TOKENS]] */
#include <stdio.h>

#include "model/sampler.h"
#include "support/example.h"

enum { ANSWERS_MAX = 64 };

struct answer {
    quire_seq seq;
    struct quire__sampler *sampler;
    struct quire__ids tokens;
    bool over;
};

/* Every answer chooses its next token; row i of the logits is that of the i-th that goes on. */
static quire_status choose(struct example *e, struct answer *answers, uint32_t count, bool one_row)
{
    uint32_t row = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct answer *a = &answers[i];
        uint32_t token = 0;
        if (a->over)
            continue;
        const float *logits = example_row(e, one_row ? 0 : row++);
        quire_status status = quire__sampler_pick(a->sampler, logits, &token, &e->error);
        if (status == QUIRE_OK)
            status = quire__ids_push(&a->tokens, token, &e->error);
        if (status != QUIRE_OK)
            return status;
        quire__sampler_accept(a->sampler, token);
        a->over = quire__tokenizer_is_end(e->tokenizer, token);
    }
    return QUIRE_OK;
}

/* Appends the newest token of every answer that goes on; gives how many do. */
static quire_status step(struct example *e, struct answer *answers, uint32_t count, uint32_t *live)
{
    struct quire__batch_item items[ANSWERS_MAX];
    *live = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!answers[i].over)
            items[(*live)++] = (struct quire__batch_item){
                .seq = answers[i].seq,
                .tokens = &answers[i].tokens.ids[answers[i].tokens.count - 1],
                .count = 1,
                .want = QUIRE__WANT_LAST};
    return *live > 0 ? example_step(e, items, *live, NULL) : QUIRE_OK;
}

static quire_status answer_all(struct example *e, struct answer *answers, uint32_t count,
                               uint32_t max_tokens)
{
    quire_status status = quire_seq_create(e->pool, NULL, &answers[0].seq);
    for (uint32_t i = 0; i < count && status == QUIRE_OK; i++) {
        struct quire__sampler_config config;
        quire__sampler_config_init(&config);
        config.seed = i + 1;
        status = quire__sampler_create(&config, e->vocabulary, &answers[i].sampler, &e->error);
    }
    if (status == QUIRE_OK)
        status = example_prompt(e, answers[0].seq, 0);
    for (uint32_t i = 1; i < count && status == QUIRE_OK; i++)
        status = quire_seq_fork(e->pool, answers[0].seq, (uint32_t)e->prompt.count, &answers[i].seq,
                                NULL);
    if (status == QUIRE_OK)
        status = choose(e, answers, count, true);
    uint32_t live = count;
    for (uint32_t t = 1; t < max_tokens && live > 0 && status == QUIRE_OK; t++) {
        status = step(e, answers, count, &live);
        if (status == QUIRE_OK)
            status = choose(e, answers, count, false);
    }
    return status;
}

static void report(struct example *e, struct answer *answers, uint32_t count)
{
    uint64_t alone = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct quire_seq_stats held = {.struct_size = sizeof held};
        (void)quire_seq_stats(e->pool, answers[i].seq, &held);
        alone += held.blocks;
        printf("--- answer %u ---\n", i + 1);
        example_print(e, answers[i].tokens.ids, answers[i].tokens.count);
    }
    const struct quire_pool_stats stats = example_stats(e);
    const uint64_t saved = (alone - stats.blocks_owned) * stats.block_bytes;
    const uint64_t saved_tokens = (count - 1) * e->prompt.count;
    printf("--- %u answers to %llu tokens of prompt ---\n"
           "computing  %llu tokens of prompt saved\n"
           "memory     %llu blocks hold what would take %llu, %llu bytes saved\n"
           "copied     %llu blocks\n",
           count, (unsigned long long)e->prompt.count, (unsigned long long)saved_tokens,
           (unsigned long long)stats.blocks_owned, (unsigned long long)alone,
           (unsigned long long)saved, (unsigned long long)stats.blocks_copied);
}

int main(int argc, char **argv)
{
    struct example e = {0};
    struct answer answers[ANSWERS_MAX] = {0};
    const uint32_t count = example_number(argc, argv, 3, 4);
    const uint32_t max_tokens = example_number(argc, argv, 4, 64);
    if (argc < 3 || argc > 5 || count == 0 || count > ANSWERS_MAX || max_tokens == 0) {
        (void)fprintf(stderr, "usage: %s MODEL PROMPT [ANSWERS, 1 to %d [TOKENS, 1 to 4096]]\n",
                      argv[0], ANSWERS_MAX);
        return 2;
    }
    const struct example_needs needs = {.seqs = count, .tokens = max_tokens, .rows = count};
    quire_status status = example_open(&e, argv[1], argv[2], &needs);
    if (status == QUIRE_OK)
        status = answer_all(&e, answers, count, max_tokens);
    if (status == QUIRE_OK)
        report(&e, answers, count);
    for (uint32_t i = 0; i < count; i++) {
        quire__sampler_destroy(answers[i].sampler);
        quire__ids_deinit(&answers[i].tokens);
    }
    return example_end(&e, "parallel", status);
}
