/* linear.c - weights packed into panels, and their products with activations.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A weight is packed when it is made; the caller's bytes are not needed after that. A product is
 * cut into ranges of panels, each of which meets up to QUIRE__TOKENS_MAX tokens at a time. */
#include "backend/cpu/cpu.h"

#include <string.h>

enum {
    MANY_TOKENS = 8,                  /* from here on, arithmetic takes longer than reading */
    UNITS_PER_THREAD = 4,             /* of many tokens, or of a large matrix */
    UNIT_BYTES_MIN = 128 * 1024,      /* of panels read for few tokens: some 8 us */
    PACK_BYTES_MAX = 4 * 1024 * 1024, /* of a matrix, packed between two calls of `taken` */
    PACK_BYTES_MIN = 64 * 1024,       /* of a unit of packing */
    PREPARE_ROWS = 16,                /* a tile of rows, which one thread lays out */
    EMBED_ROWS = 16,
    LINE_TOGETHER = 16, /* tokens of a block: a line of a cache */
    X_PADDING = 64,     /* bytes after a prepared row, so that rows do not share sets of a cache */
};

struct quire_weight {
    const struct quire_backend *owner;
    const struct quire__weight_kernels *type;
    struct quire__panels panels;
};

/* ---- making ---- */

static const struct quire__weight_kernels *find_kernels(const struct quire__cpu *cpu, uint32_t type)
{
    for (uint32_t i = 0; i < QUIRE__NUM_WEIGHTS; i++) {
        if (cpu->kernels->weights[i].type == type)
            return &cpu->kernels->weights[i];
    }
    return NULL;
}

/* Whether linear cannot take rows of x as the caller has them. */
static bool is_prepared(const struct quire__cpu *cpu, uint64_t columns)
{
    return cpu->kernels->products == QUIRE_BF16 || columns % QUIRE__BLOCK_COLUMNS != 0;
}

/* Bytes of a prepared row. */
static uint64_t prepared_stride(const struct quire__cpu *cpu, uint64_t columns)
{
    return quire__round_up(columns, QUIRE__BLOCK_COLUMNS) * cpu->kernels->x_bytes + X_PADDING;
}

/* Numbers that a line of all blocks takes, of the two that lie after the prepared rows. */
static uint64_t line_length(uint64_t columns)
{
    return quire__ceil_div(columns, QUIRE__BLOCK_COLUMNS) * QUIRE__TOKENS_MAX;
}

/* Makes room for the prepared rows of a matrix with that many columns. */
static quire_status grow_rows(struct quire__cpu *cpu, uint64_t columns)
{
    if (!is_prepared(cpu, columns))
        return QUIRE_OK;
    uint64_t bytes = prepared_stride(cpu, columns) * QUIRE__TOKENS_MAX +
                     2 * line_length(columns) * sizeof(float);
    quire_status status = QUIRE_OK;
    (void)pthread_mutex_lock(&cpu->rows_turn);
    if (bytes > cpu->rows_bytes) {
        void *rows = quire__alloc_aligned(64, bytes);
        if (rows != NULL) {
            quire__free(cpu->rows);
            cpu->rows = rows;
            cpu->rows_bytes = bytes;
        } else {
            status = QUIRE_E_NOMEM;
        }
    }
    (void)pthread_mutex_unlock(&cpu->rows_turn);
    return status;
}

struct packing {
    const struct quire__panels *panels;
    const uint8_t *rows;
    uint64_t row_bytes;
    uint64_t first, end; /* panels */
    uint64_t panels_per_unit;
};

static void pack_unit(void *argument, uint32_t unit, uint32_t thread)
{
    (void)thread;
    const struct packing *job = argument;
    uint64_t first = job->first + unit * job->panels_per_unit;
    for (uint64_t i = first; i < first + job->panels_per_unit && i < job->end; i++)
        quire__panels_pack(job->panels, i, job->rows + i * QUIRE__PANEL_ROWS * job->row_bytes);
}

/* Packs a portion at a time, and says after each how much of the data is no longer needed. */
static void pack(struct quire__cpu *cpu, const struct quire__panels *panels,
                 const struct quire_weight_desc *desc, uint64_t row_bytes)
{
    uint64_t panel_bytes = QUIRE__PANEL_ROWS * row_bytes;
    uint64_t portion = quire__ceil_div(PACK_BYTES_MAX, panel_bytes);
    struct packing job = {
        .panels = panels,
        .rows = desc->data,
        .row_bytes = row_bytes,
        .panels_per_unit = quire__ceil_div(PACK_BYTES_MIN, panel_bytes),
    };
    while (job.end < panels->num_panels) {
        job.first = job.end;
        uint64_t left = panels->num_panels - job.first;
        job.end += left < portion ? left : portion;
        quire__threads_run(cpu->threads, pack_unit, &job,
                           (uint32_t)quire__ceil_div(job.end - job.first, job.panels_per_unit));
        uint64_t taken = job.end * panel_bytes;
        if (desc->taken != NULL)
            desc->taken(desc->context, taken < desc->bytes ? taken : desc->bytes);
    }
}

quire_status quire__cpu_weight_create(struct quire_backend *backend,
                                      const struct quire_weight_desc *desc,
                                      struct quire_weight **out)
{
    struct quire__cpu *cpu = (struct quire__cpu *)backend;
    uint64_t row_bytes, bytes;
    struct quire__panels panels;
    if (desc == NULL || out == NULL || desc->data == NULL || desc->rows == 0 ||
        desc->columns > UINT32_MAX ||
        quire_weight_row_bytes(desc->type, desc->columns, &row_bytes) != QUIRE_OK ||
        !quire__mul_u64(desc->rows, row_bytes, &bytes) || bytes != desc->bytes ||
        quire__panels_shape(&panels, desc->type, desc->rows, desc->columns) != QUIRE_OK)
        return QUIRE_E_INVAL;
    struct quire_weight *weight = quire__calloc(1, sizeof *weight);
    panels.data = quire__alloc_aligned(64, panels.num_panels * panels.panel_bytes);
    if (weight == NULL || panels.data == NULL || grow_rows(cpu, desc->columns) != QUIRE_OK) {
        quire__free(panels.data);
        quire__free(weight);
        return QUIRE_E_NOMEM;
    }
    pack(cpu, &panels, desc, row_bytes);
    *weight = (struct quire_weight){backend, find_kernels(cpu, desc->type), panels};
    *out = weight;
    return QUIRE_OK;
}

void quire__cpu_weight_destroy(struct quire_backend *backend, struct quire_weight *weight)
{
    QUIRE_CHECK(weight == NULL || weight->owner == backend);
    if (weight != NULL)
        quire__free(weight->panels.data);
    quire__free(weight);
}

/* ---- linear ---- */

struct job {
    struct quire__cpu *cpu;
    const struct quire_weight *weight;
    struct quire__span x, y;
    uint64_t first_token;
    uint32_t tokens;
    uint32_t panels_per_unit;
};

/* The lines of a job's prepared rows, from row `first` on. */
static struct quire__lines lines_of(const struct job *job, uint32_t first)
{
    uint64_t columns = job->weight->panels.columns;
    uint64_t after = prepared_stride(job->cpu, columns) * QUIRE__TOKENS_MAX;
    float *lines = (float *)(void *)((uint8_t *)job->cpu->rows + after) + first;
    return (struct quire__lines){
        .scales = lines,
        .sums = lines + line_length(columns),
        .stride = quire__round_up(job->tokens, LINE_TOGETHER),
    };
}

static uint32_t lesser(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

static void prepare_unit(void *argument, uint32_t unit, uint32_t thread)
{
    (void)thread;
    const struct job *job = argument;
    const struct quire__kernels *kernels = job->cpu->kernels;
    uint64_t columns = job->weight->panels.columns, stride = prepared_stride(job->cpu, columns);
    uint32_t first = unit * PREPARE_ROWS;
    kernels->prepare(&(struct quire__inputs){
        .x = quire__span_row(&job->x, job->first_token + first, 0),
        .x_stride = job->x.stride[0],
        .columns = columns,
        .rows = lesser(job->tokens - first, PREPARE_ROWS),
        .to = (uint8_t *)job->cpu->rows + first * stride,
        .to_stride = stride,
        .at = lines_of(job, first),
        .tokens = job->tokens,
        .codes = job->weight->panels.scaling != QUIRE__PLAIN,
    });
}

static void linear_unit(void *argument, uint32_t unit, uint32_t thread)
{
    const struct job *job = argument;
    const struct quire_weight *weight = job->weight;
    bool prepared = is_prepared(job->cpu, weight->panels.columns);
    uint32_t first = unit * job->panels_per_unit;
    struct quire__linear task = {
        .panels = &weight->panels,
        .type = weight->type,
        .first_panel = first,
        .num_panels = lesser(weight->panels.num_panels - first, job->panels_per_unit),
        .x = prepared ? job->cpu->rows : (void *)quire__span_row(&job->x, job->first_token, 0),
        .x_stride = prepared ? prepared_stride(job->cpu, weight->panels.columns)
                             : job->x.stride[0] * sizeof(float),
        .y = quire__span_row(&job->y, job->first_token, 0),
        .y_stride = job->y.stride[0],
        .tokens = job->tokens,
        .scratch = job->cpu->scratch + (size_t)thread * QUIRE__SCRATCH_BYTES,
    };
    if (prepared)
        task.at = lines_of(job, 0);
    job->cpu->kernels->linear(&task);
}

/* Few tokens: as few units as keep all threads reading. Many: enough that threads end together. */
static uint32_t panels_per_unit(const struct job *job)
{
    const struct quire__panels *panels = &job->weight->panels;
    uint64_t threads = quire__threads_count(job->cpu->threads);
    uint64_t units = threads * UNITS_PER_THREAD;
    if (job->tokens < MANY_TOKENS) {
        uint64_t most = panels->num_panels * panels->panel_bytes / UNIT_BYTES_MIN;
        most = most / threads * threads;
        units = most < threads ? threads : most < units ? most : units;
    }
    uint64_t share = quire__ceil_div(panels->num_panels, units);
    return (uint32_t)(share <= 2 ? share : quire__round_up(share, 2));
}

static void prepare(struct job *job)
{
    struct quire__threads *threads = job->cpu->threads;
    uint32_t units = (uint32_t)quire__ceil_div(job->tokens, PREPARE_ROWS);
    if (job->tokens * job->weight->panels.columns > QUIRE__INLINE_ELEMENTS)
        quire__threads_run(threads, prepare_unit, job, units);
    else
        quire__threads_run_here(prepare_unit, job, units);
}

/* The tokens of a job that one linear takes. */
static void linear_some(struct job *job)
{
    uint32_t panels = job->weight->panels.num_panels;
    bool prepared = is_prepared(job->cpu, job->weight->panels.columns);
    if (prepared) {
        (void)pthread_mutex_lock(&job->cpu->rows_turn);
        prepare(job);
    }
    job->panels_per_unit = panels_per_unit(job);
    quire__threads_run(job->cpu->threads, linear_unit, job,
                       (uint32_t)quire__ceil_div(panels, job->panels_per_unit));
    if (prepared)
        (void)pthread_mutex_unlock(&job->cpu->rows_turn);
}

quire_status quire__cpu_linear(struct quire_backend *backend, struct quire_weight *weight,
                               const struct quire_view *x, const struct quire_view *y)
{
    struct quire__cpu *cpu = (struct quire__cpu *)backend;
    struct job job = {.cpu = cpu, .weight = weight};
    if (weight == NULL || weight->owner != backend ||
        !quire__span_of(backend, x, QUIRE_F32, &job.x) ||
        !quire__span_of(backend, y, QUIRE_F32, &job.y) ||
        !quire__span_is(&job.x, job.y.shape[0], 1, weight->panels.columns) ||
        !quire__span_is(&job.y, job.x.shape[0], 1, weight->panels.rows))
        return QUIRE_E_INVAL;
    for (; job.first_token < job.x.shape[0]; job.first_token += job.tokens) {
        job.tokens = lesser(job.x.shape[0] - job.first_token, QUIRE__TOKENS_MAX);
        linear_some(&job);
    }
    return QUIRE_OK;
}

/* ---- embed ---- */

static void embed_unit(void *argument, uint32_t unit, uint32_t thread)
{
    (void)thread;
    const struct job *job = argument;
    const struct quire_weight *weight = job->weight;
    uint64_t first = (uint64_t)unit * EMBED_ROWS;
    for (uint64_t i = first; i < first + EMBED_ROWS && i < job->x.shape[0]; i++) {
        uint32_t id = *(const uint32_t *)(const void *)quire__span_row(&job->x, i, 0);
        quire__panels_row(&weight->panels, id, quire__span_row(&job->y, i, 0));
    }
}

quire_status quire__cpu_embed(struct quire_backend *backend, struct quire_weight *weight,
                              const struct quire_view *ids, const struct quire_view *y)
{
    struct quire__cpu *cpu = (struct quire__cpu *)backend;
    struct job job = {.cpu = cpu, .weight = weight};
    if (weight == NULL || weight->owner != backend ||
        !quire__span_of(backend, ids, QUIRE_U32, &job.x) ||
        !quire__span_of(backend, y, QUIRE_F32, &job.y) ||
        !quire__span_is(&job.x, job.y.shape[0], 1, 1) ||
        !quire__span_is(&job.y, job.x.shape[0], 1, weight->panels.columns) ||
        job.x.shape[0] > UINT32_MAX / 2)
        return QUIRE_E_INVAL;
    for (uint64_t i = 0; i < job.x.shape[0]; i++) {
        if (*(const uint32_t *)(const void *)quire__span_row(&job.x, i, 0) >= weight->panels.rows)
            return QUIRE_E_INVAL;
    }
    quire__threads_run(cpu->threads, embed_unit, &job,
                       (uint32_t)quire__ceil_div(job.x.shape[0], EMBED_ROWS));
    return QUIRE_OK;
}
