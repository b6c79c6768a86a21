/* runner.c - one step of a model: embeddings in, layers over the cache, logits of the wanted rows.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/arch.h"

#include <string.h>

/* Rows of logits computed at a time: enough that the output matrix is read once for many rows, few
 * enough that a long prompt does not need [T,V]. */
#define PORTION_ROWS_MAX 32u

/* A wanted row: token of an item, and where it lies in the step. */
struct wanted {
    uint32_t item, token, row;
};

struct portion {
    uint32_t count;
    struct wanted rows[PORTION_ROWS_MAX];
};

/* ---- memory ---- */

/* One buffer of rows x columns f32, or u32: both have 4 bytes. */
static quire_status make_buffer(struct quire__runner *runner, uint64_t rows, uint64_t columns,
                                struct quire_buffer **out)
{
    uint64_t elements = 0, bytes = 0;
    if (!quire__mul_u64(rows, columns, &elements) || !quire__mul_u64(elements, 4, &bytes))
        return QUIRE_E_NOMEM;
    struct quire_backend *backend = runner->model->backend;
    return backend->memory->buffer_create(backend, bytes, 0, out);
}

static quire_status make_buffers(struct quire__runner *runner)
{
    const struct quire__shapes *s = &runner->model->shapes;
    const uint64_t t = runner->max_tokens;
    const struct {
        uint64_t rows, columns;
        struct quire_buffer **out;
    } buffers[] = {
        {t, 1, &runner->ids},
        {runner->model->num_ropes * t, s->rope_dim, &runner->rope},
        {t, s->embedding, &runner->x},
        {t, s->embedding, &runner->h},
        {t, (uint64_t)s->heads * s->head_dim, &runner->q},
        {t, (uint64_t)s->kv_heads * s->head_dim, &runner->k},
        {t, (uint64_t)s->kv_heads * s->head_dim_v, &runner->v},
        {t, (uint64_t)s->heads * s->head_dim_v, &runner->att},
        {t, s->feed_forward, &runner->gate},
        {t, s->feed_forward, &runner->up},
        {PORTION_ROWS_MAX, s->vocabulary, &runner->logits},
    };
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(buffers); i++) {
        quire_status status =
            make_buffer(runner, buffers[i].rows, buffers[i].columns, buffers[i].out);
        if (status != QUIRE_OK)
            return status;
    }
    uint64_t rope_floats = quire__runner_rope_at(runner, runner->model->num_ropes);
    uint64_t logit_floats = (uint64_t)PORTION_ROWS_MAX * s->vocabulary;
    runner->host_rope = quire__calloc(rope_floats, sizeof(float));
    runner->host_logits = quire__calloc(logit_floats, sizeof(float));
    runner->host_ids = quire__calloc(t, sizeof(uint32_t));
    runner->step_items = quire__calloc(runner->max_items, sizeof *runner->step_items);
    runner->first_positions = quire__calloc(runner->max_items, sizeof *runner->first_positions);
    bool ok = runner->host_rope != NULL && runner->host_logits != NULL &&
              runner->host_ids != NULL && runner->step_items != NULL &&
              runner->first_positions != NULL;
    return ok ? QUIRE_OK : QUIRE_E_NOMEM;
}

quire_status quire__runner_create(const struct quire__model *model, struct quire_pool *pool,
                                  uint32_t max_tokens, uint32_t max_items,
                                  struct quire__runner **out, struct quire_error *error)
{
    if (model->backend == NULL || pool == NULL || max_tokens == 0 || max_items == 0)
        return quire__fail(error, QUIRE_E_INVAL,
                           "a runner needs a model with weights, a pool, and room for a token");
    struct quire__runner *runner = quire__calloc(1, sizeof *runner);
    if (runner == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "no memory for the activations");
    runner->model = model;
    runner->pool = pool;
    runner->max_tokens = max_tokens;
    runner->max_items = max_items;
    quire_status status = make_buffers(runner);
    if (status != QUIRE_OK) {
        quire__runner_destroy(runner);
        return quire__fail(error, status, "no memory for the activations of %u tokens", max_tokens);
    }
    *out = runner;
    return QUIRE_OK;
}

void quire__runner_destroy(struct quire__runner *runner)
{
    if (runner == NULL)
        return;
    struct quire_backend *backend = runner->model->backend;
    quire_fence fence = 0;
    /* A failed step may have left a download to host_logits in the queue. */
    if (backend->memory->fence_record(backend, &fence) == QUIRE_OK)
        (void)backend->memory->fence_wait(backend, fence);
    struct quire_buffer *buffers[] = {runner->ids, runner->rope, runner->x,     runner->h,
                                      runner->q,   runner->k,    runner->v,     runner->att,
                                      runner->up,  runner->gate, runner->logits};
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(buffers); i++)
        backend->memory->buffer_destroy(backend, buffers[i]);
    quire__free(runner->host_rope);
    quire__free(runner->host_logits);
    quire__free(runner->host_ids);
    quire__free(runner->step_items);
    quire__free(runner->first_positions);
    quire__free(runner);
}

/* ---- the input side ---- */

static quire_status check_batch(const struct quire__runner *runner,
                                const struct quire__batch *batch, uint32_t *num_tokens,
                                struct quire_error *error)
{
    uint64_t total = 0;
    if (batch->num_items == 0 || batch->num_items > runner->max_items)
        return quire__fail(error, batch->num_items == 0 ? QUIRE_E_INVAL : QUIRE_E_LIMIT,
                           "a step of %u sequences, this runner takes 1 to %u", batch->num_items,
                           runner->max_items);
    for (uint32_t i = 0; i < batch->num_items; i++) {
        const struct quire__batch_item *item = &batch->items[i];
        if (item->count == 0 || item->tokens == NULL)
            return quire__fail(error, QUIRE_E_INVAL, "item %u of the step has no tokens", i);
        if (item->want != QUIRE__WANT_NONE && batch->logits == NULL)
            return quire__fail(error, QUIRE_E_INVAL, "item %u wants logits that nobody takes", i);
        for (uint32_t t = 0; t < item->count; t++)
            if (item->tokens[t] >= runner->model->shapes.vocabulary)
                return quire__fail(error, QUIRE_E_INVAL,
                                   "token %u is outside the vocabulary of %u tokens",
                                   item->tokens[t], runner->model->shapes.vocabulary);
        total += item->count;
    }
    if (total > runner->max_tokens)
        return quire__fail(error, QUIRE_E_LIMIT, "a step of %llu tokens, this runner takes %u",
                           (unsigned long long)total, runner->max_tokens);
    *num_tokens = (uint32_t)total;
    return QUIRE_OK;
}

/* Uploads the ids and angles of every row and queues the embedding. */
static quire_status feed(struct quire__runner *runner, const struct quire__batch *batch,
                         uint32_t num_tokens)
{
    const struct quire__model *model = runner->model;
    struct quire_backend *backend = model->backend;
    const uint32_t angles = model->shapes.rope_dim;
    uint32_t row = 0;
    for (uint32_t i = 0; i < batch->num_items; i++) {
        const struct quire__batch_item *item = &batch->items[i];
        for (uint32_t t = 0; t < item->count; t++, row++) {
            runner->host_ids[row] = item->tokens[t];
            for (uint32_t kind = 0; kind < model->num_ropes; kind++)
                quire__rope_row(model, kind, (uint64_t)runner->first_positions[i] + t,
                                runner->host_rope + quire__runner_rope_at(runner, kind) +
                                    (size_t)row * angles);
        }
    }
    struct quire_upload ids = {.bytes = (uint64_t)num_tokens * 4, .data = runner->host_ids};
    struct quire_upload ropes[QUIRE__ROPES_MAX];
    for (uint32_t kind = 0; kind < model->num_ropes; kind++) {
        uint64_t at = quire__runner_rope_at(runner, kind);
        ropes[kind] = (struct quire_upload){.offset = at * sizeof(float),
                                            .bytes = (uint64_t)num_tokens * angles * sizeof(float),
                                            .data = runner->host_rope + at};
    }
    quire_status status = backend->memory->upload(backend, runner->ids, &ids, 1);
    if (status == QUIRE_OK)
        status = backend->memory->upload(backend, runner->rope, ropes, model->num_ropes);
    if (status != QUIRE_OK)
        return status;
    struct quire_view id_view = quire_view_buffer(runner->ids, 0, QUIRE_U32, num_tokens, 1, 1);
    struct quire_view x =
        quire_view_buffer(runner->x, 0, QUIRE_F32, num_tokens, 1, model->shapes.embedding);
    return backend->nn->embed(backend, model->embedding, &id_view, &x);
}

/* ---- the output side ---- */

/* Hands the rows of a computed portion on, one call for each run of an item's rows. */
static quire_status portion_emit(const struct quire__runner *runner,
                                 const struct quire__batch *batch, const struct portion *portion)
{
    const uint64_t width = runner->model->shapes.vocabulary;
    for (uint32_t i = 0; i < portion->count;) {
        struct quire__logits logits = {.item = portion->rows[i].item,
                                       .token = portion->rows[i].token,
                                       .values = runner->host_logits + i * width};
        while (i < portion->count && portion->rows[i].item == logits.item) {
            i++;
            logits.count++;
        }
        quire_status status = batch->logits(batch->context, &logits);
        if (status != QUIRE_OK)
            return status;
    }
    return QUIRE_OK;
}

/* Normalises the wanted rows into neighbours, multiplies them by the output matrix, fetches. */
static quire_status portion_run(struct quire__runner *runner, const struct quire__batch *batch,
                                struct portion *portion)
{
    const struct quire__model *model = runner->model;
    struct quire_backend *backend = model->backend;
    const uint64_t e = model->shapes.embedding, row_bytes = e * 4, count = portion->count;
    if (count == 0)
        return QUIRE_OK;
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < count && status == QUIRE_OK;) {
        uint32_t run = 1;
        while (i + run < count && portion->rows[i + run].row == portion->rows[i].row + run)
            run++;
        struct quire_view x =
            quire_view_buffer(runner->x, portion->rows[i].row * row_bytes, QUIRE_F32, run, 1, e);
        struct quire_view h = quire_view_buffer(runner->h, i * row_bytes, QUIRE_F32, run, 1, e);
        status =
            backend->nn->norm(backend, &model->output_norm, model->shapes.norm_epsilon, &x, &h);
        i += run;
    }
    struct quire_view h = quire_view_buffer(runner->h, 0, QUIRE_F32, count, 1, e);
    struct quire_view y =
        quire_view_buffer(runner->logits, 0, QUIRE_F32, count, 1, model->shapes.vocabulary);
    if (status == QUIRE_OK)
        status = backend->nn->linear(backend, model->output, &h, &y);
    if (status == QUIRE_OK)
        status = backend->memory->download(
            backend, runner->logits, 0, count * model->shapes.vocabulary * 4, runner->host_logits);
    quire_fence fence = 0;
    if (status == QUIRE_OK)
        status = backend->memory->fence_record(backend, &fence);
    if (status == QUIRE_OK)
        status = backend->memory->fence_wait(backend, fence);
    if (status == QUIRE_OK)
        status = portion_emit(runner, batch, portion);
    portion->count = 0;
    return status;
}

static quire_status give_logits(struct quire__runner *runner, const struct quire__batch *batch)
{
    struct portion portion = {0};
    quire_status status = QUIRE_OK;
    uint32_t first_row = 0;
    for (uint32_t i = 0; i < batch->num_items; i++) {
        const struct quire__batch_item *item = &batch->items[i];
        uint32_t t = item->want == QUIRE__WANT_ALL    ? 0
                     : item->want == QUIRE__WANT_LAST ? item->count - 1
                                                      : item->count;
        for (; t < item->count && status == QUIRE_OK; t++) {
            portion.rows[portion.count++] =
                (struct wanted){.item = i, .token = t, .row = first_row + t};
            if (portion.count == PORTION_ROWS_MAX)
                status = portion_run(runner, batch, &portion);
        }
        first_row += item->count;
    }
    return status == QUIRE_OK ? portion_run(runner, batch, &portion) : status;
}

/* ---- the step ---- */

static quire_status begin(struct quire__runner *runner, const struct quire__batch *batch,
                          quire_step *step, struct quire_error *error)
{
    for (uint32_t i = 0; i < batch->num_items; i++) {
        const struct quire__batch_item *item = &batch->items[i];
        runner->step_items[i] = (struct quire_step_item){
            .seq = item->seq, .n_new = item->count, .tokens = item->tokens};
        /* The length before the step is the position of the item's first row. */
        quire_status status =
            quire_seq_length(runner->pool, item->seq, &runner->first_positions[i]);
        if (status != QUIRE_OK)
            return quire__fail(error, status, "item %u of the step names no living sequence", i);
    }
    uint64_t missing = 0;
    quire_status status =
        quire_step_begin(runner->pool, runner->step_items, batch->num_items, step, &missing);
    if (status == QUIRE_E_NOSPACE)
        return quire__fail(error, status, "the K/V memory is full: %llu more blocks are needed",
                           (unsigned long long)missing);
    if (status != QUIRE_OK)
        return quire__fail(error, status, "cannot open a step: %s", quire_status_text(status));
    return QUIRE_OK;
}

quire_status quire__runner_step(struct quire__runner *runner, const struct quire__batch *batch,
                                struct quire_error *error)
{
    uint32_t num_tokens = 0;
    quire_step step = {0};
    quire_status status = check_batch(runner, batch, &num_tokens, error);
    if (status == QUIRE_OK)
        status = begin(runner, batch, &step, error);
    if (status != QUIRE_OK)
        return status;
    status = feed(runner, batch, num_tokens);
    if (status == QUIRE_OK)
        status = runner->model->arch->forward(runner, step, num_tokens);
    if (status == QUIRE_OK)
        status = give_logits(runner, batch);
    if (status == QUIRE_OK && batch->open == NULL)
        status = quire_step_commit(runner->pool, step, NULL);
    if (status != QUIRE_OK) {
        (void)quire_step_abort(runner->pool, step);
        return quire__fail(error, status, "the step failed: %s", quire_status_text(status));
    }
    if (batch->open != NULL)
        *batch->open = step;
    return QUIRE_OK;
}
