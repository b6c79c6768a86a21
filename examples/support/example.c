/* example.c - what the examples with a model have in common: open one, read a prompt, run a step.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/example.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/template.h"

enum { STEP_TOKENS_MAX = 512 };

/* ---- a model and a prompt ---- */

static quire_status templated(struct example *e, struct quire__text source, struct quire__text user)
{
    enum quire__template_kind kind;
    struct quire__template turns;
    quire_status status = quire__template_detect(source, &kind, &e->error);
    if (status == QUIRE_OK)
        status = quire__template_init(&turns, kind, source, e->tokenizer, &e->error);
    if (status != QUIRE_OK)
        return status;
    status = quire__template_begin(&turns, NULL, user, &e->prompt, &e->error);
    if (status == QUIRE_OK)
        status = quire__template_open_assistant(&turns, &e->prompt, &e->error);
    quire__template_deinit(&turns);
    return status;
}

static quire_status read_prompt(struct example *e, const char *prompt)
{
    struct quire__gguf_string template = {0};
    struct quire__text user = {.bytes = prompt, .count = strlen(prompt)};
    quire_status status = QUIRE_OK;
    if (quire__gguf_str(e->gguf, "tokenizer.chat_template", &template) == QUIRE_OK)
        return templated(e, (struct quire__text){.bytes = template.data, .count = template.size},
                         user);
    if (quire__tokenizer_add_bos(e->tokenizer))
        status = quire__ids_push(&e->prompt, quire__tokenizer_bos(e->tokenizer), &e->error);
    if (status == QUIRE_OK)
        status = quire__tokenizer_encode(e->tokenizer, user.bytes, user.count, true, &e->prompt,
                                         &e->error);
    return status;
}

static quire_status open_pool(struct example *e, const struct example_needs *needs)
{
    const uint64_t len = e->prompt.count + needs->tokens;
    struct quire_pool_config config;
    quire_pool_config_init(&config);
    config.backend = e->backend;
    config.groups = quire__model_groups(e->model, &config.num_groups);
    config.merge_equal = 1; /* a model's rows do not depend on the batch */
    config.max_seqs = needs->seqs;
    config.max_seq_len = (uint32_t)len;
    config.max_step_tokens = e->step_tokens;
    config.num_blocks = config.num_groups * needs->seqs *
                        (uint32_t)((len + config.block_size - 1) / config.block_size + 1);
    quire_status status = quire_pool_create(&config, &e->pool, &e->error);
    if (status == QUIRE_OK)
        status = quire__runner_create(e->model, e->pool, e->step_tokens, needs->seqs, &e->runner,
                                      &e->error);
    return status;
}

static quire_status fail(struct example *e, quire_status status, const char *text)
{
    e->error.status = status;
    (void)snprintf(e->error.message, sizeof e->error.message, "%s", text);
    return status;
}

quire_status example_open(struct example *example, const char *model, const char *prompt,
                          const struct example_needs *needs)
{
    struct example *e = example;
    *e = (struct example){0};
    quire_status status = quire__gguf_open(model, &e->gguf, &e->error);
    if (status == QUIRE_OK)
        status = quire__tokenizer_from_gguf(e->gguf, &e->tokenizer, &e->error);
    if (status == QUIRE_OK)
        status = read_prompt(e, prompt);
    if (status == QUIRE_OK && e->prompt.count == 0)
        status = fail(e, QUIRE_E_INVAL, "the prompt has no token");
    if (status == QUIRE_OK)
        status = quire_backend_create("cpu", NULL, &e->backend, &e->error);
    const struct quire__model_config config = {
        .gguf = e->gguf, .name = model, .backend = e->backend};
    if (status == QUIRE_OK)
        status = quire__model_open(&config, &e->model, &e->error);
    if (status != QUIRE_OK)
        return status;
    if (e->prompt.count + needs->tokens > quire__model_shapes(e->model)->context_length)
        return fail(e, QUIRE_E_LIMIT, "prompt and answer are longer than the model's context");
    e->vocabulary = quire__model_shapes(e->model)->vocabulary;
    e->step_tokens = needs->rows > STEP_TOKENS_MAX ? needs->rows : STEP_TOKENS_MAX;
    e->rows_max = needs->rows;
    e->rows = calloc((size_t)needs->rows * e->vocabulary, sizeof *e->rows);
    return e->rows != NULL ? open_pool(e, needs) : fail(e, QUIRE_E_NOMEM, "no memory for logits");
}

void example_close(struct example *example)
{
    quire__runner_destroy(example->runner);
    quire_pool_destroy(example->pool); /* with its sequences */
    quire__model_close(example->model);
    quire_backend_destroy(example->backend);
    quire__ids_deinit(&example->prompt);
    quire__tokenizer_destroy(example->tokenizer);
    quire__gguf_close(example->gguf);
    free(example->rows);
    *example = (struct example){0};
}

uint32_t example_number(int argc, char **argv, int at, uint32_t otherwise)
{
    if (at >= argc)
        return otherwise;
    char *end = NULL;
    unsigned long number = strtoul(argv[at], &end, 10);
    return argv[at][0] >= '0' && argv[at][0] <= '9' && *end == '\0' && number <= 4096
               ? (uint32_t)number
               : 0;
}

/* ---- steps ---- */

static quire_status keep_rows(void *context, const struct quire__logits *logits)
{
    struct example *e = context;
    if (logits->count > e->rows_max - e->num_rows)
        return QUIRE_E_LIMIT;
    memcpy(e->rows + (size_t)e->num_rows * e->vocabulary, logits->values,
           (size_t)logits->count * e->vocabulary * sizeof *e->rows);
    e->num_rows += logits->count;
    return QUIRE_OK;
}

quire_status example_step(struct example *example, const struct quire__batch_item *items,
                          uint32_t num_items, quire_step *open)
{
    const struct quire__batch batch = {.items = items,
                                       .num_items = num_items,
                                       .logits = keep_rows,
                                       .context = example,
                                       .open = open};
    example->num_rows = 0;
    return quire__runner_step(example->runner, &batch, &example->error);
}

quire_status example_prompt(struct example *example, quire_seq seq, uint32_t held)
{
    quire_status status = QUIRE_OK;
    for (uint64_t done = held; done < example->prompt.count && status == QUIRE_OK;) {
        const uint64_t left = example->prompt.count - done;
        const uint32_t count = left < example->step_tokens ? (uint32_t)left : example->step_tokens;
        const struct quire__batch_item item = {.seq = seq,
                                               .tokens = example->prompt.ids + done,
                                               .count = count,
                                               .want = count == left ? QUIRE__WANT_LAST
                                                                     : QUIRE__WANT_NONE};
        status = example_step(example, &item, 1, NULL);
        done += count;
    }
    return status;
}

const float *example_row(const struct example *example, uint32_t row)
{
    return example->rows + (size_t)row * example->vocabulary;
}

uint32_t example_best(const struct example *example, const float *logits)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < example->vocabulary; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* ---- words ---- */

void example_print(const struct example *example, const uint32_t *tokens, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        const char *piece = NULL;
        uint64_t bytes = 0;
        if (!quire__tokenizer_is_end(example->tokenizer, tokens[i]) &&
            quire__tokenizer_piece(example->tokenizer, tokens[i], &piece, &bytes, NULL) == QUIRE_OK)
            (void)fwrite(piece, 1, bytes, stdout);
    }
    (void)putchar('\n');
}

struct quire_pool_stats example_stats(const struct example *example)
{
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    (void)quire_pool_stats(example->pool, &stats);
    return stats;
}

int example_end(struct example *example, const char *name, quire_status status)
{
    if (status != QUIRE_OK)
        (void)fprintf(stderr, "%s: %s\n", name,
                      example->error.message[0] != '\0' ? example->error.message
                                                        : quire_status_text(status));
    example_close(example);
    return status == QUIRE_OK && fflush(stdout) == 0 ? 0 : 1;
}
