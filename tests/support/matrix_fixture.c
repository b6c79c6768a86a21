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

/* Products of bf16 are exact in f32. n products and their sum, in any order, are off by at most
 * n u sum |terms| (N. J. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); one
 * more addition joins the two sums of a row. The instructions for bf16 flush subnormal sums: each
 * of n additions may lose what is below the smallest normal number. */
void kt_product_check(const struct quire__kernels *kernels, const struct kt_product *p)
{
    const struct kt_matrix *m = p->m;
    double n = (double)m->columns + 1,
           lost = kernels->products == QUIRE_BF16 ? 2 * n * (double)FLT_MIN : 0;
    for (uint64_t t = 0; t < p->tokens; t++) {
        for (uint64_t r = 0; r < m->rows; r++) {
            double sum = 0, size = 0;
            for (uint64_t k = 0; k < m->columns; k++) {
                double w = (double)kt_operand(kernels, m->weights[r * m->columns + k]);
                double z = w * (double)kt_operand(kernels, p->x[t * p->x_stride + k]);
                sum += z;
                size += fabs(z);
            }
            double got = (double)p->y[t * p->y_stride + r];
            if (!(fabs(got - sum) <= n * KT_U * size + lost))
                fail_msg("%s at level %s: token %llu row %llu of %llu x %llu is %.9g, not %.9g",
                         quire_weight_name(m->type), kernels->level, (unsigned long long)t,
                         (unsigned long long)r, (unsigned long long)m->rows,
                         (unsigned long long)m->columns, got, sum);
        }
    }
}
