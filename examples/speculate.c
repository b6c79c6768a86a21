/* speculate.c - speculative decoding: guess some tokens, verify them all in one step.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The guess is a look-up: what followed the last time that the text had these last tokens. One step
 * computes the logits after every guessed token; commit keeps those that greedy decoding chooses,
 * and the others are gone as if never written. Plain greedy decoding runs beside it: the tokens
 * must be the same. Usage: example-speculate MODEL PROMPT [TOKENS [GUESSED]] */
#include <stdio.h>
#include <string.h>

#include "support/example.h"

enum { GUESS_MAX = 31, NGRAM_MAX = 4 };

/* A text that grows: the prompt and what was decoded. */
struct text {
    quire_seq seq;
    struct quire__ids ids; /* all but the last are in the sequence */
    uint32_t num_steps;
    bool over;
};

struct counts {
    uint32_t guessed, accepted;
};

static quire_status push(struct example *e, struct text *text, uint32_t token)
{
    text->over = quire__tokenizer_is_end(e->tokenizer, token);
    return quire__ids_push(&text->ids, token, &e->error);
}

/* Computes the prompt, less what the pool has of it, and takes the first token. */
static quire_status begin(struct example *e, struct text *text, uint32_t *held)
{
    struct quire_seq_config config;
    quire_seq_config_init(&config);
    config.tokens = e->prompt.ids;
    config.num_tokens = (uint32_t)e->prompt.count;
    quire_status status = quire__ids_reserve(&text->ids, e->prompt.count, &e->error);
    for (uint64_t i = 0; i < e->prompt.count && status == QUIRE_OK; i++)
        status = quire__ids_push(&text->ids, e->prompt.ids[i], &e->error);
    if (status == QUIRE_OK)
        status = quire_seq_create(e->pool, &config, &text->seq);
    if (status == QUIRE_OK)
        status = quire_seq_length(e->pool, text->seq, held);
    if (status == QUIRE_OK)
        status = example_prompt(e, text->seq, *held);
    return status == QUIRE_OK ? push(e, text, example_best(e, example_row(e, 0))) : status;
}

static quire_status plain(struct example *e, struct text *text, uint32_t max_tokens)
{
    quire_status status = QUIRE_OK;
    while (status == QUIRE_OK && !text->over && text->ids.count < e->prompt.count + max_tokens) {
        const struct quire__batch_item item = {.seq = text->seq,
                                               .tokens = &text->ids.ids[text->ids.count - 1],
                                               .count = 1,
                                               .want = QUIRE__WANT_LAST};
        status = example_step(e, &item, 1, NULL);
        text->num_steps++;
        if (status == QUIRE_OK)
            status = push(e, text, example_best(e, example_row(e, 0)));
    }
    return status;
}

/* Finds the longest end of the text, up to NGRAM_MAX tokens, that is in the text already, and
 * guesses that what followed it follows again. Gives how many tokens. */
static uint32_t guess(const struct text *text, uint32_t *tokens, uint32_t max)
{
    const uint32_t *ids = text->ids.ids;
    const uint64_t count = text->ids.count;
    for (uint64_t n = NGRAM_MAX; n > 0; n--) {
        for (uint64_t at = count > n ? count - n : 0; at-- > 0;) {
            if (memcmp(ids + at, ids + count - n, n * sizeof *ids) != 0)
                continue;
            const uint64_t there = count - (at + n);
            const uint32_t found = there < max ? (uint32_t)there : max;
            memcpy(tokens, ids + at + n, found * sizeof *tokens);
            return found;
        }
    }
    return 0;
}

/* One step: the newest token and the guessed ones behind it. */
static quire_status verify(struct example *e, struct text *text, const uint32_t *guessed,
                           uint32_t num_guessed, struct counts *counts)
{
    uint32_t tokens[GUESS_MAX + 1] = {text->ids.ids[text->ids.count - 1]};
    quire_step step = {0};
    memcpy(tokens + 1, guessed, num_guessed * sizeof *tokens);
    const struct quire__batch_item item = {
        .seq = text->seq, .tokens = tokens, .count = num_guessed + 1, .want = QUIRE__WANT_ALL};
    quire_status status = example_step(e, &item, 1, &step);
    if (status != QUIRE_OK)
        return status;
    uint32_t accepted = 0;
    /* Row i is what follows tokens[i]: a guess is right where it is the likeliest token. */
    while (accepted < num_guessed &&
           guessed[accepted] == example_best(e, example_row(e, accepted)) &&
           !quire__tokenizer_is_end(e->tokenizer, guessed[accepted]))
        accepted++;
    const uint32_t keep = accepted + 1;
    status = quire_step_commit(e->pool, step, &keep);
    for (uint32_t i = 0; i < accepted && status == QUIRE_OK; i++)
        status = push(e, text, guessed[i]);
    if (status == QUIRE_OK)
        status = push(e, text, example_best(e, example_row(e, accepted)));
    text->num_steps++;
    counts->guessed += num_guessed;
    counts->accepted += accepted;
    return status;
}

static quire_status speculate(struct example *e, struct text *text, uint32_t max_tokens,
                              uint32_t max_guess, struct counts *counts)
{
    quire_status status = QUIRE_OK;
    while (status == QUIRE_OK && !text->over && text->ids.count < e->prompt.count + max_tokens) {
        uint32_t tokens[GUESS_MAX] = {0};
        /* A step gives one token more than it guesses right. */
        const uint64_t left = e->prompt.count + max_tokens - text->ids.count - 1;
        const uint32_t most = left < max_guess ? (uint32_t)left : max_guess;
        status = verify(e, text, tokens, guess(text, tokens, most), counts);
    }
    return status;
}

static quire_status compare(const struct text *a, const struct text *b)
{
    if (a->ids.count == b->ids.count &&
        memcmp(a->ids.ids, b->ids.ids, a->ids.count * sizeof *a->ids.ids) == 0)
        return QUIRE_OK;
    (void)fprintf(stderr, "speculate: other tokens than those of plain decoding\n");
    return QUIRE_E_MISMATCH;
}

static quire_status run(struct example *e, struct text *texts, uint32_t max_tokens,
                        uint32_t max_guess)
{
    struct counts counts = {0};
    uint32_t held = 0;
    quire_status status = begin(e, &texts[0], &held);
    if (status == QUIRE_OK)
        status = plain(e, &texts[0], max_tokens);
    /* Full blocks can be found since their commit; this adds the last one. */
    if (status == QUIRE_OK && example_stats(e).layout == QUIRE_LAYOUT_PAGED)
        status = quire_seq_publish(e->pool, texts[0].seq);
    if (status == QUIRE_OK)
        status = begin(e, &texts[1], &held);
    if (status == QUIRE_OK)
        status = speculate(e, &texts[1], max_tokens, max_guess, &counts);
    if (status == QUIRE_OK)
        status = compare(&texts[0], &texts[1]);
    if (status != QUIRE_OK)
        return status;
    example_print(e, texts[1].ids.ids + e->prompt.count, texts[1].ids.count - e->prompt.count);
    const uint32_t tokens = (uint32_t)(texts[1].ids.count - e->prompt.count);
    printf("--- %u tokens, the same with and without guesses ---\n"
           "prompt   %u of %llu tokens were in the cache the second time\n"
           "guessed  %u tokens, %u were right (%.1f %%)\n"
           "steps    %u instead of %u: %u saved\n",
           tokens, held, (unsigned long long)e->prompt.count, counts.guessed, counts.accepted,
           counts.guessed != 0 ? 100.0 * counts.accepted / counts.guessed : 0.0, texts[1].num_steps,
           texts[0].num_steps, texts[0].num_steps - texts[1].num_steps);
    return status;
}

int main(int argc, char **argv)
{
    struct example e = {0};
    struct text texts[2] = {0};
    const uint32_t max_tokens = example_number(argc, argv, 3, 64);
    const uint32_t max_guess = example_number(argc, argv, 4, 8);
    if (argc < 3 || argc > 5 || max_tokens == 0 || max_guess == 0 || max_guess > GUESS_MAX) {
        (void)fprintf(stderr, "usage: %s MODEL PROMPT [TOKENS, 1 to 4096 [GUESSED, 1 to %d]]\n",
                      argv[0], GUESS_MAX);
        return 2;
    }
    const struct example_needs needs = {.seqs = 2, .tokens = max_tokens, .rows = max_guess + 1};
    quire_status status = example_open(&e, argv[1], argv[2], &needs);
    if (status == QUIRE_OK)
        status = run(&e, texts, max_tokens, max_guess);
    quire__ids_deinit(&texts[0].ids);
    quire__ids_deinit(&texts[1].ids);
    return example_end(&e, "speculate", status);
}
