/* write.c - converts new K and V rows and stores them in their pages; copies rows between pages.
 * SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/plan.h"

#include <string.h>

struct plane {
    struct quire__span from; /* [T, G, dim] */
    struct quire__kv_plane to;
};

struct job {
    const struct quire_plan *plan;
    const struct quire_kv_layer *layer;
    struct plane k, v;
};

static void store(const struct quire__kernels *kernels, const struct quire__kv_plane *plane,
                  uint8_t *data, uint8_t *scales, const float *from)
{
    float turned[QUIRE__HEAD_DIM_MAX];
    if (plane->rotated) {
        kernels->rotate_finite(turned, from, plane->dim);
        from = turned;
    }
    if (plane->dtype == QUIRE_F32)
        memcpy(data, from, plane->dim * sizeof(float));
    else if (plane->dtype == QUIRE_F16)
        kernels->store_f16((uint16_t *)(void *)data, from, plane->dim);
    else if (plane->dtype == QUIRE_BF16)
        kernels->store_bf16((uint16_t *)(void *)data, from, plane->dim);
    else if (plane->dtype == QUIRE_Q8)
        kernels->store_q8(data, scales, from, plane->dim);
    else
        kernels->store_q4(data, scales, from, plane->dim);
}

static void write_row(const struct job *job, const struct plane *plane, uint32_t token,
                      uint32_t block, uint64_t row)
{
    const struct quire__kv_plane *to = &plane->to;
    uint8_t *page = quire__kv_page(to, block);
    for (uint32_t h = 0; h < job->layer->num_kv_heads; h++)
        store(job->plan->cpu->kernels, to, page + quire__kv_data_at(to, h) + row * to->data_bytes,
              page + quire__kv_scales_at(to, h) + row * to->scale_bytes,
              quire__span_row(&plane->from, token, h));
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
        uint32_t block = table[token->position / spec->positions_per_page];
        uint32_t row = token->position % spec->positions_per_page;
        write_row(job, &job->k, token->row, block, row);
        write_row(job, &job->v, token->row, block, row);
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
        .k.to = quire__kv_plane(&plan->spec, layer, true),
        .v.to = quire__kv_plane(&plan->spec, layer, false),
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
static void copy_plane(const struct quire_block_copy *copy, const struct quire__kv_plane *plane,
                       uint32_t heads)
{
    uint8_t *to = quire__kv_page(plane, copy->to);
    const uint8_t *from = quire__kv_page(plane, copy->from);
    for (uint32_t h = 0; h < heads; h++) {
        uint64_t data = quire__kv_data_at(plane, h), scales = quire__kv_scales_at(plane, h);
        memcpy(to + data, from + data, (uint64_t)copy->rows * plane->data_bytes);
        memcpy(to + scales, from + scales, (uint64_t)copy->rows * plane->scale_bytes);
    }
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
            struct quire__kv_plane k = quire__kv_plane(spec, layer, true);
            struct quire__kv_plane v = quire__kv_plane(spec, layer, false);
            copy_plane(&copies[i], &k, layer->num_kv_heads);
            copy_plane(&copies[i], &v, layer->num_kv_heads);
        }
    }
    return QUIRE_OK;
}
