/* write.c - converts new K and V rows and stores them in their pages; copies rows between pages.
 * SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/plan.h"

#include <string.h>

struct plane {
    struct quire__span from; /* [T, G, dim] */
    uint32_t dtype, dim;
    uint64_t offset; /* of the layer in a page */
};

struct job {
    const struct quire_plan *plan;
    const struct quire_kv_layer *layer;
    struct plane k, v;
};

static void store(const struct quire__kernels *kernels, uint32_t dtype, void *to, const float *from,
                  uint32_t n)
{
    if (dtype == QUIRE_F32)
        memcpy(to, from, n * sizeof(float));
    else if (dtype == QUIRE_F16)
        kernels->store_f16(to, from, n);
    else
        kernels->store_bf16(to, from, n);
}

static void write_row(const struct job *job, const struct plane *plane, uint32_t token,
                      uint8_t *page, uint32_t row)
{
    uint64_t per_page = job->plan->spec.positions_per_page;
    uint64_t row_bytes = (uint64_t)plane->dim * quire_dtype_bytes(plane->dtype);
    for (uint32_t h = 0; h < job->layer->num_kv_heads; h++)
        store(job->plan->cpu->kernels, plane->dtype,
              page + plane->offset + (h * per_page + row) * row_bytes,
              quire__span_row(&plane->from, token, h), plane->dim);
}

static void write_unit(void *argument, uint32_t index, uint32_t thread)
{
    (void)thread;
    const struct job *job = argument;
    const struct quire_kv_spec *spec = &job->plan->spec;
    const struct quire_plan *plan = job->plan;
    uint32_t end = (index + 1) * QUIRE__WRITE_TOKENS;
    for (uint32_t i = index * QUIRE__WRITE_TOKENS; i < end && i < plan->num_tokens; i++) {
        const struct quire__token *token = &plan->tokens[i];
        const uint32_t *table =
            quire__plan_table(plan, job->layer->group, plan->parts[token->part].slot);
        uint32_t block = token->position / spec->positions_per_page;
        uint8_t *page = spec->arena->data + table[block] * spec->page_bytes;
        uint32_t row = token->position % spec->positions_per_page;
        write_row(job, &job->k, token->row, page, row);
        write_row(job, &job->v, token->row, page, row);
    }
}

quire_status quire__cpu_write(struct quire_backend *backend, struct quire_plan *plan,
                              uint32_t layer_index, const struct quire_view *k,
                              const struct quire_view *v)
{
    if (plan == NULL || layer_index >= plan->spec.num_layers)
        return QUIRE_E_INVAL;
    const struct quire_kv_layer *layer = &plan->spec.layers[layer_index];
    struct job job = {
        .plan = plan,
        .layer = layer,
        .k = {.dtype = layer->dtype_k, .dim = layer->head_dim, .offset = layer->k_offset},
        .v = {.dtype = layer->dtype_v, .dim = layer->head_dim_v, .offset = layer->v_offset},
    };
    if (!quire__span_of(backend, k, QUIRE_F32, &job.k.from) ||
        !quire__span_of(backend, v, QUIRE_F32, &job.v.from) ||
        !quire__span_is(&job.k.from, plan->num_rows, layer->num_kv_heads, layer->head_dim) ||
        !quire__span_is(&job.v.from, plan->num_rows, layer->num_kv_heads, layer->head_dim_v))
        return QUIRE_E_INVAL;
    uint64_t elements = (uint64_t)plan->num_tokens * layer->num_kv_heads *
                        ((uint64_t)layer->head_dim + layer->head_dim_v);
    uint32_t units = (uint32_t)quire__ceil_div(plan->num_tokens, QUIRE__WRITE_TOKENS);
    if (elements > QUIRE__INLINE_ELEMENTS)
        quire__threads_run(plan->cpu->threads, write_unit, &job, units);
    else
        quire__threads_run_here(write_unit, &job, units);
    return QUIRE_OK;
}

/* ---- copies ---- */

/* The first `rows` rows of every head of one plane. */
static void copy_plane(const struct quire_kv_spec *spec, const struct quire_block_copy *copy,
                       uint64_t offset, uint64_t row_bytes, uint32_t heads)
{
    uint8_t *to = spec->arena->data + copy->to * spec->page_bytes + offset;
    const uint8_t *from = spec->arena->data + copy->from * spec->page_bytes + offset;
    uint64_t head_bytes = row_bytes * spec->positions_per_page;
    for (uint32_t h = 0; h < heads; h++)
        memcpy(to + h * head_bytes, from + h * head_bytes, copy->rows * row_bytes);
}

static bool copy_ok(const struct quire_kv_spec *spec, const struct quire_block_copy *copy)
{
    return copy->group < spec->num_groups && copy->from < spec->num_pages &&
           copy->to < spec->num_pages && copy->from != copy->to &&
           copy->rows <= spec->positions_per_page;
}

quire_status quire__cpu_copy(struct quire_backend *backend, struct quire_plan *plan,
                             const struct quire_block_copy *copies, uint32_t num_copies)
{
    (void)backend;
    if (plan == NULL || (copies == NULL && num_copies != 0))
        return QUIRE_E_INVAL;
    const struct quire_kv_spec *spec = &plan->spec;
    for (uint32_t i = 0; i < num_copies; i++) {
        if (!copy_ok(spec, &copies[i]))
            return QUIRE_E_INVAL;
    }
    for (uint32_t i = 0; i < num_copies; i++) {
        for (uint32_t l = 0; l < spec->num_layers; l++) {
            const struct quire_kv_layer *layer = &spec->layers[l];
            if (layer->group != copies[i].group)
                continue;
            copy_plane(spec, &copies[i], layer->k_offset,
                       (uint64_t)layer->head_dim * quire_dtype_bytes(layer->dtype_k),
                       layer->num_kv_heads);
            copy_plane(spec, &copies[i], layer->v_offset,
                       (uint64_t)layer->head_dim_v * quire_dtype_bytes(layer->dtype_v),
                       layer->num_kv_heads);
        }
    }
    return QUIRE_OK;
}
