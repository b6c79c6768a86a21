/* generate.c - a prompt in, tokens out: the loop behind quire run and its chat.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/generate.h"

#include "quire/console.h"

int generation_open(struct generation *generation, struct engine *engine,
                    const struct quire__sampler_config *config)
{
    struct quire_error error;
    generation->engine = engine;
    quire_status status = quire__sampler_create(
        config, quire__model_shapes(engine->model)->vocabulary, &generation->sampler, &error);
    if (status != QUIRE_OK)
        return cli_fail(&error);
    status = quire_seq_create(engine->pool, NULL, &generation->seq);
    if (status != QUIRE_OK) {
        cli_error("cannot start a sequence: %s", quire_status_text(status));
        return CLI_BAD_DATA;
    }
    return CLI_OK;
}

void generation_close(struct generation *generation)
{
    if (generation->seq.id != 0)
        (void)quire_seq_destroy(generation->engine->pool, generation->seq);
    quire__ids_deinit(&generation->output);
    quire__bytes_deinit(&generation->text);
    quire__sampler_destroy(generation->sampler);
    *generation = (struct generation){0};
}

void generation_pick(struct generation *generation, const float *logits)
{
    struct generation *g = generation;
    g->sampled = quire__sampler_pick(g->sampler, logits, &g->next, &g->error);
}

static quire_status pick(void *context, const struct quire__logits *logits)
{
    generation_pick(context, logits->values);
    return QUIRE_OK;
}

/* Feeds tokens and picks the next; the sampler's own error outlives the step. */
static quire_status feed(struct generation *g, const uint32_t *tokens, uint32_t count,
                         const char *label, struct quire_error *error)
{
    struct engine_feed feed = {.seq = g->seq,
                               .tokens = tokens,
                               .count = count,
                               .want = QUIRE__WANT_LAST,
                               .logits = pick,
                               .context = g,
                               .label = label,
                               .stop = g->stop};
    g->sampled = QUIRE_OK;
    quire_status status = engine_feed_tokens(g->engine, &feed, error);
    if (status == QUIRE_OK && g->sampled != QUIRE_OK) {
        status = g->sampled;
        *error = g->error;
    }
    return status;
}

void generation_remember(struct generation *generation, const struct quire__ids *text)
{
    /* As many tokens as the sampler keeps, whatever it was told before; it passes over NONE. */
    for (uint64_t i = 0; i < QUIRE__REPEAT_WINDOW; i++) {
        bool there = text->count + i >= QUIRE__REPEAT_WINDOW;
        quire__sampler_accept(generation->sampler,
                              there ? text->ids[text->count + i - QUIRE__REPEAT_WINDOW]
                                    : QUIRE__TOKEN_NONE);
    }
}

quire_status generation_prompt(struct generation *generation, const struct quire__ids *text,
                               uint64_t held, struct quire_error *error)
{
    generation_remember(generation, text);
    uint64_t started_ns = quire__now_ns();
    quire_status status = feed(generation, text->ids + held, (uint32_t)(text->count - held),
                               "reading the prompt", error);
    generation->figures.prompt_ns += quire__now_ns() - started_ns;
    uint32_t length = 0; /* a prompt that was stopped is there in part */
    if (quire_seq_length(generation->engine->pool, generation->seq, &length) == QUIRE_OK)
        generation->figures.prompt_tokens += length - held;
    if (generation->output.count == 0) /* else it is an answer that goes on */
        generation->figures.reused_tokens += held;
    return status;
}

void generation_begin(struct generation *generation)
{
    generation->output.count = 0;
    generation->text.count = 0;
    generation->stream = (struct quire__stream){0};
}

/* Prints what has come to the text since it had `before` bytes. */
static bool print_new(const struct generation *g, uint64_t before)
{
    if (!g->print || g->text.count == before)
        return true;
    return cli_write(g->text.data + before, g->text.count - before);
}

static quire_status put(struct generation *g, uint32_t token, bool *printed,
                        struct quire_error *error)
{
    const char *piece = NULL;
    uint64_t count = 0, before = g->text.count;
    quire_status status =
        quire__tokenizer_piece(g->engine->tokenizer, token, &piece, &count, error);
    if (status == QUIRE_OK)
        status = quire__stream_feed(&g->stream, piece, count, &g->text, error);
    *printed = status != QUIRE_OK || print_new(g, before);
    return status;
}

quire_status generation_finish(struct generation *generation, struct quire_error *error)
{
    uint64_t before = generation->text.count;
    quire_status status = quire__stream_flush(&generation->stream, &generation->text, error);
    if (status == QUIRE_OK)
        (void)print_new(generation, before);
    return status;
}

quire_status generation_take(struct generation *generation, uint64_t max_new, bool *over,
                             enum generation_end *end, struct quire_error *error)
{
    struct generation *g = generation;
    *over = true;
    quire_status status = quire__ids_push(&g->output, g->next, error);
    if (status != QUIRE_OK)
        return status;
    g->figures.answer_tokens++;
    quire__sampler_accept(g->sampler, g->next);
    if (quire__tokenizer_is_end(g->engine->tokenizer, g->next)) {
        *end = GENERATION_ENDED;
        return QUIRE_OK;
    }
    bool printed = true;
    status = put(g, g->next, &printed, error);
    if (status != QUIRE_OK)
        return status;
    uint32_t length = 0;
    status = quire_seq_length(g->engine->pool, g->seq, &length);
    if (!printed)
        *end = GENERATION_UNPRINTED;
    else if (g->output.count >= max_new)
        *end = GENERATION_LIMITED;
    else if (length >= g->engine->context)
        *end = GENERATION_FULL;
    else if (g->stop != NULL && *g->stop != 0)
        *end = GENERATION_STOPPED;
    else
        *over = false;
    return status;
}

quire_status generation_answer(struct generation *generation, uint64_t max_new,
                               enum generation_end *end, struct quire_error *error)
{
    struct generation *g = generation;
    *end = GENERATION_LIMITED;
    if (g->output.count >= max_new)
        return QUIRE_OK;
    quire_status status = QUIRE_OK;
    for (;;) {
        bool over = false;
        status = generation_take(g, max_new, &over, end, error);
        if (status != QUIRE_OK || over)
            return status;
        uint64_t started_ns = quire__now_ns();
        status = feed(g, &g->output.ids[g->output.count - 1], 1, NULL, error);
        g->figures.decode_ns += quire__now_ns() - started_ns;
        g->figures.decode_steps++;
        if (status == QUIRE_E_CANCELED) {
            *end = GENERATION_STOPPED;
            return QUIRE_OK;
        }
        if (status != QUIRE_OK)
            return status;
    }
}
