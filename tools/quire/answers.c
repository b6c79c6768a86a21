/* answers.c - several answers to one prompt, decoded together.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/answers.h"

#include <stdio.h>
#include <string.h>

#include "quire/console.h"

/* ---- beginning and end ---- */

int answers_open(struct answers *answers, const struct quire__sampler_config *config)
{
    const uint32_t count = answers->count;
    answers->each = quire__calloc(count, sizeof *answers->each);
    answers->ends = quire__calloc(count, sizeof *answers->ends);
    answers->over = quire__calloc(count, sizeof *answers->over);
    if (answers->each == NULL || answers->ends == NULL || answers->over == NULL) {
        cli_error("no memory for %u answers", count);
        return CLI_BAD_DATA;
    }
    const uint32_t vocabulary = quire__model_shapes(answers->engine->model)->vocabulary;
    for (uint32_t i = 0; i < count; i++) {
        struct quire__sampler_config own = *config;
        struct quire_error error;
        own.seed = answers->seed + i;
        answers->each[i].engine = answers->engine;
        if (quire__sampler_create(&own, vocabulary, &answers->each[i].sampler, &error) != QUIRE_OK)
            return cli_fail(&error);
    }
    quire_status status = quire_seq_create(answers->engine->pool, NULL, &answers->each[0].seq);
    if (status != QUIRE_OK) {
        cli_error("cannot start a sequence: %s", quire_status_text(status));
        return CLI_BAD_DATA;
    }
    return CLI_OK;
}

void answers_close(struct answers *answers)
{
    for (uint32_t i = 0; answers->each != NULL && i < answers->count; i++)
        generation_close(&answers->each[i]);
    quire__free(answers->each);
    quire__free(answers->ends);
    quire__free(answers->over);
    *answers = (struct answers){0};
}

/* ---- the prompt, once ---- */

static quire_status pick_all(void *context, const struct quire__logits *logits)
{
    struct answers *a = context;
    for (uint32_t i = 0; i < a->count; i++)
        generation_pick(&a->each[i], logits->values);
    return QUIRE_OK;
}

static quire_status first_error(const struct answers *a, struct quire_error *error)
{
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->each[i].sampled != QUIRE_OK) {
            *error = a->each[i].error;
            return a->each[i].sampled;
        }
    }
    return QUIRE_OK;
}

static quire_status read_prompt(struct answers *a, const struct quire__ids *prompt,
                                struct quire_error *error)
{
    struct engine_feed feed = {.seq = a->each[0].seq,
                               .tokens = prompt->ids,
                               .count = (uint32_t)prompt->count,
                               .want = QUIRE__WANT_LAST,
                               .logits = pick_all,
                               .context = a,
                               .label = "reading the prompt"};
    for (uint32_t i = 0; i < a->count; i++)
        generation_remember(&a->each[i], prompt);
    uint64_t started_ns = quire__now_ns();
    quire_status status = engine_feed_tokens(a->engine, &feed, error);
    a->figures.prompt_ns = quire__now_ns() - started_ns;
    a->figures.prompt_tokens = prompt->count;
    a->figures.reused_tokens = (a->count - 1) * prompt->count;
    if (status == QUIRE_OK)
        status = first_error(a, error);
    for (uint32_t i = 1; i < a->count && status == QUIRE_OK; i++) {
        status = quire_seq_fork(a->engine->pool, a->each[0].seq, feed.count, &a->each[i].seq, NULL);
        if (status != QUIRE_OK)
            return quire__fail(error, status, "cannot fork the prompt for answer %u: %s", i + 1,
                               quire_status_text(status));
    }
    return status;
}

/* ---- printing: one answer after the other, each as soon as it is its turn ---- */

static bool show_head(const struct answers *a)
{
    const uint64_t seed = a->seed + a->shown;
    char line[96];
    int length = snprintf(line, sizeof line, "--- answer %u of %u, seed %llu ---\n", a->shown + 1,
                          a->count, (unsigned long long)seed);
    return cli_write(line, (uint64_t)length);
}

/* False when standard output failed. */
static bool show(struct answers *a)
{
    bool ok = a->print;
    while (ok && a->shown < a->count) {
        const struct generation *g = &a->each[a->shown];
        uint64_t new_bytes = g->text.count - a->shown_bytes;
        if (new_bytes > 0)
            ok = cli_write(g->text.data + a->shown_bytes, new_bytes);
        a->shown_bytes = g->text.count;
        if (!a->over[a->shown])
            break;
        if (ok && (g->text.count == 0 || g->text.data[g->text.count - 1] != '\n'))
            ok = cli_write("\n", 1);
        if (a->ends[a->shown] == GENERATION_FULL)
            cli_notice("the context is full: answer %u ends here", a->shown + 1);
        a->shown_bytes = 0;
        a->shown++;
        if (ok && a->shown < a->count)
            ok = show_head(a);
    }
    return ok || !a->print;
}

/* ---- the answers, a token of each in a step ---- */

struct decode {
    struct answers *answers;
    struct quire__batch_item *items; /* [count] */
    uint32_t *owners;                /* [count] answers of the items */
};

static quire_status pick_own(void *context, const struct quire__logits *logits)
{
    const struct decode *decode = context;
    generation_pick(&decode->answers->each[decode->owners[logits->item]], logits->values);
    return QUIRE_OK;
}

/* Takes the token that comes next of every answer; gives how many go on. */
static quire_status take_all(struct decode *decode, uint32_t *live, struct quire_error *error)
{
    struct answers *a = decode->answers;
    quire_status status = QUIRE_OK;
    *live = 0;
    for (uint32_t i = 0; i < a->count && status == QUIRE_OK; i++) {
        struct generation *g = &a->each[i];
        if (a->over[i])
            continue;
        status = generation_take(g, a->max_new, &a->over[i], &a->ends[i], error);
        if (status == QUIRE_OK && a->over[i])
            status = generation_finish(g, error);
        a->figures.answer_tokens++;
        if (status != QUIRE_OK || a->over[i])
            continue;
        decode->owners[*live] = i;
        decode->items[(*live)++] =
            (struct quire__batch_item){.seq = g->seq,
                                       .tokens = &g->output.ids[g->output.count - 1],
                                       .count = 1,
                                       .want = QUIRE__WANT_LAST};
    }
    return status;
}

static quire_status decode_all(struct decode *decode, struct quire_error *error)
{
    struct answers *a = decode->answers;
    for (;;) {
        uint32_t live = 0;
        quire_status status = take_all(decode, &live, error);
        if (status == QUIRE_OK && !show(a))
            a->unprinted = true;
        if (status != QUIRE_OK || live == 0 || a->unprinted)
            return status;
        const struct quire__batch batch = {
            .items = decode->items, .num_items = live, .logits = pick_own, .context = decode};
        uint64_t started_ns = quire__now_ns();
        status = quire__runner_step(a->engine->runner, &batch, error);
        a->figures.decode_ns += quire__now_ns() - started_ns;
        a->figures.decode_steps += live;
        if (status == QUIRE_OK)
            status = first_error(a, error);
        if (status != QUIRE_OK)
            return status;
    }
}

int answers_run(struct answers *answers, const struct quire__ids *prompt)
{
    struct answers *a = answers;
    struct quire_error error;
    struct decode decode = {.answers = a};
    decode.items = quire__calloc(a->count, sizeof *decode.items);
    decode.owners = quire__calloc(a->count, sizeof *decode.owners);
    quire_status status = QUIRE_OK;
    if (decode.items == NULL || decode.owners == NULL)
        status = quire__fail(&error, QUIRE_E_NOMEM, "no memory for %u answers", a->count);
    if (status == QUIRE_OK)
        status = read_prompt(a, prompt, &error);
    for (uint32_t i = 0; i < a->count && a->max_new == 0; i++) {
        a->over[i] = true;
        a->ends[i] = GENERATION_LIMITED;
    }
    if (status == QUIRE_OK && a->print && !show_head(a))
        a->unprinted = true;
    if (status == QUIRE_OK && !a->unprinted)
        status = decode_all(&decode, &error);
    quire__free(decode.items);
    quire__free(decode.owners);
    if (status != QUIRE_OK)
        return cli_fail(&error);
    return a->unprinted ? CLI_BAD_DATA : CLI_OK;
}

/* ---- what it saved ---- */

int answers_measure(const struct answers *answers, struct answers_saving *saving)
{
    struct quire_pool *pool = answers->engine->pool;
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    quire_status status = quire_pool_stats(pool, &stats);
    uint64_t alone = 0, shared = 0;
    for (uint32_t i = 0; i < answers->count && status == QUIRE_OK; i++) {
        struct quire_seq_stats seq = {.struct_size = sizeof seq};
        status = quire_seq_stats(pool, answers->each[i].seq, &seq);
        alone += seq.blocks;
        shared = seq.blocks_shared > shared ? seq.blocks_shared : shared;
    }
    if (status != QUIRE_OK) {
        cli_error("cannot read the figures of the cache: %s", quire_status_text(status));
        return CLI_BAD_DATA;
    }
    uint64_t saved = alone > stats.blocks_owned ? alone - stats.blocks_owned : 0;
    *saving = (struct answers_saving){
        .blocks = saved, .blocks_shared = shared, .bytes = saved * stats.block_bytes};
    return CLI_OK;
}
