/* matrix_fixture.c - random weights of every type, in panels, and what products of them may be.
 * SPDX-License-Identifier: Apache-2.0 */
#include "matrix_fixture.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/ref/weights.h"

#define TYPE_ROW(name, value, elements, bytes, text) {QUIRE_W_##name, (elements), (bytes)},
const struct kt_type kt_types[QUIRE__NUM_WEIGHTS] = {QUIRE_WEIGHT_LIST(TYPE_ROW)};
#undef TYPE_ROW

/* Makes the scales of a block finite: clears the top bit of their exponents. */
static void tame_block(uint32_t type, uint8_t *block)
{
    if (type == QUIRE_W_Q6_K)
        block[209] &= 0xbf;
    else if (type == QUIRE_W_F32)
        block[3] &= 0xbf;
    else
        block[1] &= 0xbf;
    if (type == QUIRE_W_Q4_1 || type == QUIRE_W_Q5_1 || type == QUIRE_W_Q4_K ||
        type == QUIRE_W_Q5_K)
        block[3] &= 0xbf;
}

static void dequant(uint32_t type, float *to, const uint8_t *row, size_t columns)
{
    switch (type) {
#define DEQUANT_CASE(name, value, elements, bytes, text)                                           \
    case QUIRE_W_##name:                                                                           \
        dequant_##name(to, row, columns);                                                          \
        break;
        QUIRE_WEIGHT_LIST(DEQUANT_CASE)
#undef DEQUANT_CASE
    default:
        fail_msg("no weight type %u", type);
    }
}

void kt_matrix_of(struct kt_matrix *m, uint32_t type, uint64_t rows, uint64_t columns,
                  struct kt_guard file)
{
    *m = (struct kt_matrix){.type = type, .rows = rows, .columns = columns, .file = file};
    assert_int_equal(quire_weight_row_bytes(type, columns, &m->row_bytes), QUIRE_OK);
    m->weights = qt_alloc(rows * columns * sizeof(float));
    for (uint64_t r = 0; r < rows; r++)
        dequant(type, m->weights + r * columns, (uint8_t *)file.data + r * m->row_bytes, columns);
    assert_int_equal(quire__panels_shape(&m->panels, type, rows, columns), QUIRE_OK);
    m->memory = kt_guard_new(m->panels.num_panels * m->panels.panel_bytes);
    m->panels.data = m->memory.data;
    for (uint64_t i = 0; i < m->panels.num_panels; i++)
        quire__panels_pack(&m->panels, i,
                           (uint8_t *)file.data + i * QUIRE__PANEL_ROWS * m->row_bytes);
}

void kt_matrix_new(struct kt_matrix *m, const struct kt_type *type, uint64_t rows, uint64_t columns,
                   uint64_t seed)
{
    struct qt_random random = {seed};
    uint64_t row_bytes;
    assert_int_equal(quire_weight_row_bytes(type->type, columns, &row_bytes), QUIRE_OK);
    struct kt_guard file = kt_guard_new(rows * row_bytes);
    uint8_t *bytes = file.data;
    for (uint64_t i = 0; i < rows * row_bytes; i += 8) {
        uint64_t word = qt_next(&random), left = rows * row_bytes - i;
        memcpy(bytes + i, &word, left < 8 ? left : 8);
    }
    for (uint64_t i = 0; i < rows * row_bytes; i += type->bytes)
        tame_block(type->type, bytes + i);
    kt_matrix_of(m, type->type, rows, columns, file);
}

void kt_matrix_free(struct kt_matrix *m)
{
    kt_guard_free(&m->file);
    kt_guard_free(&m->memory);
    qt_free(m->weights);
}

const struct quire__weight_kernels *kt_weight_kernels(const struct quire__kernels *kernels,
                                                      uint32_t type)
{
    for (uint32_t i = 0; i < QUIRE__NUM_WEIGHTS; i++) {
        if (kernels->weights[i].type == type)
            return &kernels->weights[i];
    }
    fail_msg("level %s does not decode type %u", kernels->level, type);
    return NULL;
}

float kt_operand(const struct quire__kernels *kernels, float x)
{
    if (kernels->products != QUIRE_BF16)
        return x;
    float rounded = bf16_to_f32(f32_to_bf16(x));
#if defined(__aarch64__)
    x = rounded; /* Arm rounds a subnormal number before its products take it as zero */
#endif
    return fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : rounded;
}

static void round_block(const float *x, size_t n, double *to)
{
    double largest = 0;
    for (size_t k = 0; k < n; k++)
        largest = fmax(largest, fabs((double)x[k]));
    double unit = largest < 0x1p-100 ? INFINITY : ldexp(1, ilogb(largest) - 11);
    for (size_t k = 0; k < n; k++)
        to[k] = isinf(unit) ? 0 : nearbyint((double)x[k] / unit) * unit;
}

void kt_inputs(const struct quire__kernels *kernels, bool codes, const float *x, size_t n,
               double *to)
{
    for (size_t k = 0; k < n; k += QUIRE__BLOCK_COLUMNS) {
        size_t count = n - k < QUIRE__BLOCK_COLUMNS ? n - k : QUIRE__BLOCK_COLUMNS;
        if (codes && kernels->products == QUIRE_BF16) {
            round_block(x + k, count, to + k);
            continue;
        }
        for (size_t j = k; j < k + count; j++)
            to[j] = (double)kt_operand(kernels, x[j]);
    }
}

static bool in_tiles(const struct kt_rows *rows)
{
    return rows->kernels->tiles && (!rows->codes || rows->tokens > 1);
}

uint32_t kt_parts(const struct kt_rows *rows)
{
    return in_tiles(rows) && rows->codes ? 2 : 1;
}

size_t kt_part_bytes(const struct kt_rows *rows)
{
    return rows->kernels->products == QUIRE_BF16 ? 2 : 4;
}

size_t kt_place(const struct kt_rows *rows, uint32_t i, size_t k, uint32_t part)
{
    if (!in_tiles(rows))
        return i * rows->stride + k * kt_part_bytes(rows);
    size_t tile = k / 32 * kt_parts(rows) + part;
    return i / 16 * 16 * rows->stride + ((tile * 16 + i % 16) * 32 + k % 32) * 2;
}

double kt_prepared(const struct kt_rows *rows, const void *data, uint32_t i, size_t k, float scale)
{
    double sum = 0;
    for (uint32_t part = 0; part < kt_parts(rows); part++) {
        const uint8_t *at = (const uint8_t *)data + kt_place(rows, i, k, part);
        int16_t whole;
        memcpy(&whole, at, sizeof whole);
        if (rows->kernels->products != QUIRE_BF16)
            sum += qt_load(QUIRE_F32, at);
        else if (rows->codes && !in_tiles(rows))
            sum += (double)whole * (double)scale;
        else
            sum += qt_load(QUIRE_BF16, at);
    }
    return sum;
}

/* Whether the level multiplies whole numbers, and scales sums of them. */
static bool is_scaled(const struct quire__kernels *kernels, const struct quire__panels *panels)
{
    return kernels->products == QUIRE_BF16 && panels->scaling != QUIRE__PLAIN;
}

size_t kt_decoded_bytes(const struct quire__kernels *kernels, const struct quire__panels *panels)
{
    size_t elements = (size_t)QUIRE__BLOCK_WEIGHTS * (kernels->products == QUIRE_BF16 ? 2 : 4);
    return elements + (is_scaled(kernels, panels) ? 2 * QUIRE__PANEL_ROWS * sizeof(float) : 0);
}

struct kt_weight kt_decoded(const struct quire__kernels *kernels,
                            const struct quire__panels *panels, const void *decoded, uint32_t r,
                            uint32_t k)
{
    size_t at = (size_t)k / 2 * QUIRE__STEP_WEIGHTS + 2 * r + k % 2;
    struct kt_weight w = {.d = 1, .m = 0};
    float lines[2][QUIRE__PANEL_ROWS];
    uint16_t half;
    if (kernels->products != QUIRE_BF16) {
        w.q = ((const float *)decoded)[at];
        return w;
    }
    memcpy(&half, (const uint8_t *)decoded + 2 * at, sizeof half);
    if ((half & 0x7f80u) == 0) /* Arm keeps subnormal numbers; products take them as zero */
        half &= 0x8000u;
    w.q = (float)qt_load(QUIRE_BF16, &half);
    if (!is_scaled(kernels, panels))
        return w;
    if (!kernels->tiles) {
        int16_t code;
        memcpy(&code, (const uint8_t *)decoded + 2 * at, sizeof code);
        w.q = code;
    }
    memcpy(lines, (const uint8_t *)decoded + 2 * QUIRE__BLOCK_WEIGHTS, sizeof lines);
    w.d = lines[panels->scaling == QUIRE__SUPER_16 && k >= QUIRE__BLOCK_COLUMNS / 2][r];
    if (panels->scaling == QUIRE__OFFSET || panels->scaling == QUIRE__SUPER)
        w.m = lines[1][r];
    return w;
}

/* The weights of a matrix as the level has them, and the sizes of what each adds up. */
struct operands {
    double *w, *size; /* [rows][columns] */
};

static struct operands operands_of(const struct quire__kernels *kernels, const struct kt_matrix *m)
{
    struct operands o = {qt_alloc(m->rows * m->columns * sizeof(double)),
                         qt_alloc(m->rows * m->columns * sizeof(double))};
    void *block = qt_alloc(kt_decoded_bytes(kernels, &m->panels));
    for (uint64_t i = 0; i < (uint64_t)m->panels.num_panels * m->panels.blocks; i++) {
        uint32_t panel = (uint32_t)(i / m->panels.blocks), b = (uint32_t)(i % m->panels.blocks);
        kt_weight_kernels(kernels, m->type)->decode(block, &m->panels, panel, b, 1);
        for (uint32_t j = 0; j < QUIRE__BLOCK_WEIGHTS; j++) {
            uint32_t r = j / QUIRE__BLOCK_COLUMNS, k = j % QUIRE__BLOCK_COLUMNS;
            uint64_t row = (uint64_t)panel * QUIRE__PANEL_ROWS + r;
            uint64_t column = (uint64_t)b * QUIRE__BLOCK_COLUMNS + k;
            if (row >= m->rows || column >= m->columns)
                continue;
            struct kt_weight w = kt_decoded(kernels, &m->panels, block, r, k);
            double scaled = (double)w.d * (double)w.q, added = (double)w.m;
            o.w[row * m->columns + column] = scaled + added;
            o.size[row * m->columns + column] = fabs(scaled) + fabs(added);
        }
    }
    qt_free(block);
    return o;
}

/* Additions and roundings that a product may go through. n products and their sum, in any order,
 * are off by at most n u sum |terms| (N. J. Higham, Accuracy and Stability of Numerical Algorithms,
 * section 3.1); products of bf16 are exact in f32. One more addition joins the two sums of a row.
 * Scaled: those of a block are exact; two multiply-adds of each part of one round. */
static double roundings(const struct quire__kernels *kernels, const struct kt_matrix *m)
{
    if (!is_scaled(kernels, &m->panels))
        return (double)m->columns + 1;
    return 2 * (double)m->panels.blocks * (m->panels.scaling == QUIRE__SUPER_16 ? 2 : 1);
}

/* The instructions for bf16 flush subnormal sums: each of n additions may lose what is below the
 * smallest normal number. */
void kt_product_check(const struct quire__kernels *kernels, const struct kt_product *p)
{
    const struct kt_matrix *m = p->m;
    struct operands o = operands_of(kernels, m);
    bool codes = m->panels.scaling != QUIRE__PLAIN;
    double n = roundings(kernels, m),
           lost = kernels->products == QUIRE_BF16 ? 2 * n * (double)FLT_MIN : 0;
    double *x = qt_alloc(m->columns * sizeof *x);
    for (uint64_t i = 0; i < p->tokens * m->rows; i++) {
        uint64_t t = i / m->rows, r = i % m->rows;
        double sum = 0, size = 0;
        if (r == 0)
            kt_inputs(kernels, codes, p->x + t * p->x_stride, m->columns, x);
        for (uint64_t k = 0; k < m->columns; k++) {
            sum += o.w[r * m->columns + k] * x[k];
            size += o.size[r * m->columns + k] * fabs(x[k]);
        }
        double got = (double)p->y[t * p->y_stride + r];
        if (!(fabs(got - sum) <= n * KT_U * size + lost))
            fail_msg("%s at level %s: token %llu row %llu of %llu x %llu is %.9g, not %.9g",
                     quire_weight_name(m->type), kernels->level, (unsigned long long)t,
                     (unsigned long long)r, (unsigned long long)m->rows,
                     (unsigned long long)m->columns, got, sum);
    }
    qt_free(x);
    qt_free(o.w);
    qt_free(o.size);
}
