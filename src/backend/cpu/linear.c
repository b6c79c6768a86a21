/* linear.c - weights where they lie, and their products with activations.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A weight stays as the caller's bytes. For few tokens the kernel decodes it in registers, once;
 * for many, a panel of rows is decoded to f32 first and used by all tokens. Both sum in the same
 * order, so a row of y does not depend on the way that was taken. */
#include "backend/cpu/cpu.h"

#include <string.h>

enum {
    PANEL_ROWS_MIN = 4,
    PANEL_ROWS_MAX = 64,
    DIRECT_ROWS_MIN = 16,
    UNITS_PER_THREAD = 4,
    EMBED_ROWS = 16,
};

struct quire_weight {
    const struct quire_backend *owner;
    const struct quire__weight_kernels *kernels;
    const uint8_t *data;
    uint64_t rows, columns, row_bytes;
};

struct job {
    struct quire__cpu *cpu;
    const struct quire_weight *weight;
    struct quire__span x, y;
    uint64_t rows_per_unit;
    uint64_t panel_stride; /* floats */
};

/* Makes room for the smallest panel of a matrix with that many columns. */
static quire_status grow_panels(struct quire__cpu *cpu, uint64_t columns)
{
    uint64_t floats = quire__round_up(columns, QUIRE__LANES_MAX) * PANEL_ROWS_MIN;
    uint64_t bytes;
    if (!quire__mul_u64(floats, quire__threads_count(cpu->threads) * sizeof(float), &bytes))
        return QUIRE_E_NOMEM;
    quire_status status = QUIRE_OK;
    quire__threads_lock(cpu->threads);
    if (floats > cpu->panel_floats) {
        float *panels = quire__alloc_aligned(64, bytes);
        if (panels != NULL) {
            quire__free(cpu->panels);
            cpu->panels = panels;
            cpu->panel_floats = floats;
        } else {
            status = QUIRE_E_NOMEM;
        }
    }
    quire__threads_unlock(cpu->threads);
    return status;
}

static const struct quire__weight_kernels *find_kernels(const struct quire__cpu *cpu, uint32_t type)
{
    for (uint32_t i = 0; i < QUIRE__NUM_WEIGHTS; i++) {
        if (cpu->kernels->weights[i].type == type)
            return &cpu->kernels->weights[i];
    }
    return NULL;
}

quire_status quire__cpu_weight_create(struct quire_backend *backend,
                                      const struct quire_weight_desc *desc,
                                      struct quire_weight **out)
{
    struct quire__cpu *cpu = (struct quire__cpu *)backend;
    uint64_t row_bytes, bytes;
    if (desc == NULL || out == NULL || desc->data == NULL || desc->rows == 0 ||
        desc->columns > UINT32_MAX ||
        quire_weight_row_bytes(desc->type, desc->columns, &row_bytes) != QUIRE_OK ||
        !quire__mul_u64(desc->rows, row_bytes, &bytes) || bytes != desc->bytes)
        return QUIRE_E_INVAL;
    const struct quire__weight_kernels *kernels = find_kernels(cpu, desc->type);
    if (kernels == NULL)
        return QUIRE_E_UNSUPPORTED;
    struct quire_weight *weight = quire__calloc(1, sizeof *weight);
    if (weight == NULL)
        return QUIRE_E_NOMEM;
    quire_status status = grow_panels(cpu, desc->columns);
    if (status != QUIRE_OK) {
        quire__free(weight);
        return status;
    }
    *weight =
        (struct quire_weight){backend, kernels, desc->data, desc->rows, desc->columns, row_bytes};
    *out = weight;
    return QUIRE_OK;
}

void quire__cpu_weight_destroy(struct quire_backend *backend, struct quire_weight *weight)
{
    QUIRE_CHECK(weight == NULL || weight->owner == backend);
    quire__free(weight);
}

static struct quire__linear task_of(const struct job *job, uint64_t first_row)
{
    uint64_t left = job->weight->rows - first_row;
    return (struct quire__linear){
        .w = job->weight->data + first_row * job->weight->row_bytes,
        .w_stride = job->weight->row_bytes,
        .x = job->x.data,
        .x_stride = job->x.stride[0],
        .y = (float *)job->y.data + first_row,
        .y_stride = job->y.stride[0],
        .columns = job->weight->columns,
        .rows = (uint32_t)(left < job->rows_per_unit ? left : job->rows_per_unit),
        .tokens = (uint32_t)job->x.shape[0],
    };
}

static void direct_unit(void *argument, uint32_t unit, uint32_t thread)
{
    (void)thread;
    const struct job *job = argument;
    struct quire__linear task = task_of(job, unit * job->rows_per_unit);
    job->weight->kernels->direct(&task);
}

static void panel_unit(void *argument, uint32_t unit, uint32_t thread)
{
    const struct job *job = argument;
    const struct quire_weight *weight = job->weight;
    struct quire__linear task = task_of(job, unit * job->rows_per_unit);
    float *panel = job->cpu->panels + thread * job->cpu->panel_floats;
    for (uint32_t r = 0; r < task.rows; r++) {
        float *row = panel + r * job->panel_stride;
        weight->kernels->dequant(row, task.w + r * task.w_stride, weight->columns);
        memset(row + weight->columns, 0, (job->panel_stride - weight->columns) * sizeof(float));
    }
    task.w = (const uint8_t *)panel;
    task.w_stride = job->panel_stride * sizeof(float);
    job->cpu->kernels->panel_dot(&task);
}

static uint64_t clamp(uint64_t n, uint64_t low, uint64_t high)
{
    return n < low ? low : n > high ? high : n;
}

quire_status quire__cpu_linear(struct quire_backend *backend, struct quire_weight *weight,
                               const struct quire_view *x, const struct quire_view *y)
{
    struct quire__cpu *cpu = (struct quire__cpu *)backend;
    struct job job = {.cpu = cpu, .weight = weight};
    if (weight == NULL || weight->owner != backend ||
        !quire__span_of(backend, x, QUIRE_F32, &job.x) ||
        !quire__span_of(backend, y, QUIRE_F32, &job.y) ||
        !quire__span_is(&job.x, job.y.shape[0], 1, weight->columns) ||
        !quire__span_is(&job.y, job.x.shape[0], 1, weight->rows) || job.x.shape[0] > UINT32_MAX)
        return QUIRE_E_INVAL;
    uint64_t tokens = job.x.shape[0];
    if (tokens == 0)
        return QUIRE_OK;
    uint64_t units = (uint64_t)UNITS_PER_THREAD * quire__threads_count(cpu->threads);
    uint64_t share = quire__round_up(quire__ceil_div(weight->rows, units), PANEL_ROWS_MIN);
    bool direct = tokens <= QUIRE__TOKENS_DIRECT;
    if (direct) {
        job.rows_per_unit = clamp(share, DIRECT_ROWS_MIN, UINT32_MAX / 2);
    } else {
        job.panel_stride = quire__round_up(weight->columns, QUIRE__LANES_MAX);
        quire__threads_lock(cpu->threads);
        uint64_t floats = cpu->panel_floats; /* only grows */
        quire__threads_unlock(cpu->threads);
        uint64_t fit = floats / job.panel_stride / PANEL_ROWS_MIN * PANEL_ROWS_MIN;
        job.rows_per_unit =
            clamp(share, PANEL_ROWS_MIN, fit < PANEL_ROWS_MAX ? fit : PANEL_ROWS_MAX);
    }
    uint64_t num_units = quire__ceil_div(weight->rows, job.rows_per_unit);
    if (num_units > UINT32_MAX / 2)
        return QUIRE_E_INVAL;
    quire__threads_run(cpu->threads, direct ? direct_unit : panel_unit, &job, (uint32_t)num_units);
    return QUIRE_OK;
}

static void embed_unit(void *argument, uint32_t unit, uint32_t thread)
{
    (void)thread;
    const struct job *job = argument;
    const struct quire_weight *weight = job->weight;
    uint64_t end = clamp((unit + 1) * job->rows_per_unit, 0, job->x.shape[0]);
    for (uint64_t i = unit * job->rows_per_unit; i < end; i++) {
        uint32_t id = *(const uint32_t *)(const void *)quire__span_row(&job->x, i, 0);
        weight->kernels->dequant(quire__span_row(&job->y, i, 0),
                                 weight->data + id * weight->row_bytes, weight->columns);
    }
}

quire_status quire__cpu_embed(struct quire_backend *backend, struct quire_weight *weight,
                              const struct quire_view *ids, const struct quire_view *y)
{
    struct quire__cpu *cpu = (struct quire__cpu *)backend;
    struct job job = {.cpu = cpu, .weight = weight, .rows_per_unit = EMBED_ROWS};
    if (weight == NULL || weight->owner != backend ||
        !quire__span_of(backend, ids, QUIRE_U32, &job.x) ||
        !quire__span_of(backend, y, QUIRE_F32, &job.y) ||
        !quire__span_is(&job.x, job.y.shape[0], 1, 1) ||
        !quire__span_is(&job.y, job.x.shape[0], 1, weight->columns) ||
        job.x.shape[0] > UINT32_MAX / 2)
        return QUIRE_E_INVAL;
    for (uint64_t i = 0; i < job.x.shape[0]; i++) {
        if (*(const uint32_t *)(const void *)quire__span_row(&job.x, i, 0) >= weight->rows)
            return QUIRE_E_INVAL;
    }
    quire__threads_run(cpu->threads, embed_unit, &job,
                       (uint32_t)quire__ceil_div(job.x.shape[0], EMBED_ROWS));
    return QUIRE_OK;
}
