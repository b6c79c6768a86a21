/* nn.c - the rest of a transformer: operations on rows that need no weights matrix.
 * SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/cpu.h"

enum { UNIT_ROWS = 16 };

/* One operation over rows: row r is [r / shape[1]][r % shape[1]] of its views. */
struct job {
    const struct quire__kernels *kernels;
    void (*row)(const struct job *job, uint64_t i, uint64_t j);
    struct quire__span x, up, y, table;
    const float *weight;
    float epsilon, factor;
    enum quire_activation activation;
    enum quire_rotary_style style;
    uint64_t num_rows;
};

static void rows_unit(void *argument, uint32_t unit, uint32_t thread)
{
    (void)thread;
    const struct job *job = argument;
    uint64_t first = (uint64_t)unit * UNIT_ROWS;
    uint64_t end = first + UNIT_ROWS < job->num_rows ? first + UNIT_ROWS : job->num_rows;
    for (uint64_t r = first; r < end; r++)
        job->row(job, r / job->x.shape[1], r % job->x.shape[1]);
}

static quire_status run_rows(struct quire_backend *backend, struct job *job)
{
    struct quire__cpu *cpu = (struct quire__cpu *)backend;
    uint64_t elements;
    if (job->x.shape[2] == 0 || !quire__mul_u64(job->x.shape[0], job->x.shape[1], &job->num_rows) ||
        !quire__mul_u64(job->num_rows, job->x.shape[2], &elements) || job->num_rows > UINT32_MAX)
        return job->x.shape[2] == 0 ? QUIRE_OK : QUIRE_E_INVAL;
    job->kernels = cpu->kernels;
    uint32_t num_units = (uint32_t)quire__ceil_div(job->num_rows, UNIT_ROWS);
    if (elements > QUIRE__INLINE_ELEMENTS)
        quire__threads_run(cpu->threads, rows_unit, job, num_units);
    else
        quire__threads_run_here(rows_unit, job, num_units);
    return QUIRE_OK;
}

static void norm_row(const struct job *job, uint64_t i, uint64_t j)
{
    job->kernels->norm(quire__span_row(&job->y, i, j), quire__span_row(&job->x, i, j), job->weight,
                       job->x.shape[2], job->epsilon);
}

static quire_status norm(struct quire_backend *backend, const struct quire_view *weight,
                         float epsilon, const struct quire_view *x, const struct quire_view *y)
{
    struct job job = {.row = norm_row, .epsilon = epsilon};
    struct quire__span w;
    if (!quire__span_of(backend, weight, QUIRE_F32, &w) ||
        !quire__span_of(backend, x, QUIRE_F32, &job.x) ||
        !quire__span_of(backend, y, QUIRE_F32, &job.y) || !quire__span_same(&job.x, &job.y) ||
        !quire__span_is(&w, 1, 1, job.x.shape[2]))
        return QUIRE_E_INVAL;
    job.weight = w.data;
    return run_rows(backend, &job);
}

static void rotary_row(const struct job *job, uint64_t i, uint64_t j)
{
    float *x = quire__span_row(&job->x, i, j);
    const float *table = quire__span_row(&job->table, i, 0);
    if (job->style == QUIRE_ROTARY_PAIRS)
        job->kernels->rotary_pairs(x, table, job->table.shape[1] * 2);
    else
        job->kernels->rotary_halves(x, table, job->table.shape[1] * 2);
}

static quire_status rotary(struct quire_backend *backend, enum quire_rotary_style style,
                           const struct quire_view *table, const struct quire_view *x)
{
    struct job job = {.row = rotary_row, .style = style};
    if ((style != QUIRE_ROTARY_PAIRS && style != QUIRE_ROTARY_HALVES) ||
        !quire__span_of(backend, table, QUIRE_F32, &job.table) ||
        !quire__span_of(backend, x, QUIRE_F32, &job.x) || job.table.shape[2] != 2 ||
        job.table.shape[0] != job.x.shape[0] || job.table.shape[1] > job.x.shape[2] / 2 ||
        (job.table.shape[1] > 1 && job.table.stride[1] != 2))
        return QUIRE_E_INVAL;
    return run_rows(backend, &job);
}

static void activate_row(const struct job *job, uint64_t i, uint64_t j)
{
    float *y = quire__span_row(&job->y, i, j);
    const float *gate = quire__span_row(&job->x, i, j), *up = quire__span_row(&job->up, i, j);
    if (job->activation == QUIRE_SILU)
        job->kernels->silu(y, gate, up, job->x.shape[2]);
    else
        job->kernels->gelu(y, gate, up, job->x.shape[2]);
}

static quire_status activate(struct quire_backend *backend, enum quire_activation activation,
                             const struct quire_view *gate, const struct quire_view *up,
                             const struct quire_view *y)
{
    struct job job = {.row = activate_row, .activation = activation};
    if ((activation != QUIRE_SILU && activation != QUIRE_GELU) ||
        !quire__span_of(backend, gate, QUIRE_F32, &job.x) ||
        !quire__span_of(backend, up, QUIRE_F32, &job.up) ||
        !quire__span_of(backend, y, QUIRE_F32, &job.y) || !quire__span_same(&job.x, &job.up) ||
        !quire__span_same(&job.x, &job.y))
        return QUIRE_E_INVAL;
    return run_rows(backend, &job);
}

static void add_row(const struct job *job, uint64_t i, uint64_t j)
{
    job->kernels->add(quire__span_row(&job->y, i, j), quire__span_row(&job->x, i, j),
                      job->x.shape[2]);
}

static quire_status add(struct quire_backend *backend, const struct quire_view *x,
                        const struct quire_view *y)
{
    struct job job = {.row = add_row};
    if (!quire__span_of(backend, x, QUIRE_F32, &job.x) ||
        !quire__span_of(backend, y, QUIRE_F32, &job.y) || !quire__span_same(&job.x, &job.y))
        return QUIRE_E_INVAL;
    return run_rows(backend, &job);
}

static void scale_row(const struct job *job, uint64_t i, uint64_t j)
{
    job->kernels->scale(quire__span_row(&job->x, i, j), job->factor, job->x.shape[2]);
}

static quire_status scale(struct quire_backend *backend, float factor, const struct quire_view *x)
{
    struct job job = {.row = scale_row, .factor = factor};
    return quire__span_of(backend, x, QUIRE_F32, &job.x) ? run_rows(backend, &job) : QUIRE_E_INVAL;
}

static void argmax_row(const struct job *job, uint64_t i, uint64_t j)
{
    uint32_t *id = (uint32_t *)(void *)quire__span_row(&job->y, i, j);
    job->kernels->argmax(id, quire__span_row(&job->x, i, j), job->x.shape[2]);
}

static quire_status argmax(struct quire_backend *backend, const struct quire_view *x,
                           const struct quire_view *ids)
{
    struct job job = {.row = argmax_row};
    if (!quire__span_of(backend, x, QUIRE_F32, &job.x) ||
        !quire__span_of(backend, ids, QUIRE_U32, &job.y) || job.x.shape[2] == 0 ||
        job.x.shape[2] > UINT32_MAX || job.x.shape[1] != 1 ||
        !quire__span_is(&job.y, job.x.shape[0], 1, 1))
        return QUIRE_E_INVAL;
    return run_rows(backend, &job);
}

const struct quire_nn_ops quire__cpu_nn_ops = {
    .weight_create = quire__cpu_weight_create,
    .weight_destroy = quire__cpu_weight_destroy,
    .linear = quire__cpu_linear,
    .norm = norm,
    .rotary = rotary,
    .activate = activate,
    .add = add,
    .scale = scale,
    .embed = quire__cpu_embed,
    .argmax = argmax,
};
