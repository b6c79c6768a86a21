/* test_linear.c - the backend's linear and embed: every type, any number of tokens and threads.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A row of y depends on its row of x and the weights alone, so 70 tokens at once, fewer at once,
 * one at a time and any number of threads give the same bytes. */
#include "kernel_fixture.h"

#include <math.h>
#include <string.h>

enum { TOKENS = 70 };

struct matrix {
    uint32_t type;
    uint64_t rows, columns;
    uint8_t *bytes;
    uint64_t num_bytes;
};

static void matrix_make(struct matrix *m, uint32_t type, uint64_t rows, uint64_t columns)
{
    struct qt_random random = {type * 100 + rows};
    uint64_t row_bytes;
    assert_int_equal(quire_weight_row_bytes(type, columns, &row_bytes), QUIRE_OK);
    *m = (struct matrix){type, rows, columns, NULL, rows * row_bytes};
    /* One byte off: weights may lie at any address. */
    m->bytes = (uint8_t *)qt_alloc(m->num_bytes + 1) + 1;
    /* Small bytes are finite as a half, a bfloat or an f32 in any place. */
    for (uint64_t i = 0; i < m->num_bytes; i++)
        m->bytes[i] = (uint8_t)(qt_below(&random, 60) + 1);
}

static void matrix_free(struct matrix *m)
{
    qt_free(m->bytes - 1);
}

struct inputs {
    struct kt_guard x_guard;
    float *x, *all; /* all: y of all tokens at once */
};

static struct quire_weight *weight_of(struct quire_backend *backend, const struct matrix *m)
{
    struct quire_weight_desc desc = {m->type, m->rows, m->columns, m->bytes, m->num_bytes};
    struct quire_weight *weight = NULL;
    assert_int_equal(backend->nn->weight_create(backend, &desc, &weight), QUIRE_OK);
    return weight;
}

/* Asserts y of some tokens; the views have gaps between their rows. */
static void compare(struct quire_backend *backend, struct quire_weight *weight,
                    const struct matrix *m, const struct inputs *in, uint64_t first, uint64_t count)
{
    uint64_t stride = m->rows + 3;
    struct kt_guard guard = kt_guard_new((size_t)(count * stride - 3) * 4);
    struct quire_view x = quire_view_host(in->x, QUIRE_F32, count, 1, m->columns);
    struct quire_view y = quire_view_host(guard.data, QUIRE_F32, count, 1, m->rows);
    x.offset = first * m->columns * 4;
    y.stride[0] = stride;
    assert_int_equal(backend->nn->linear(backend, weight, &x, &y), QUIRE_OK);
    for (uint64_t t = 0; t < count; t++) {
        if (memcmp((float *)guard.data + t * stride, in->all + (first + t) * m->rows,
                   m->rows * 4) != 0)
            fail_msg("%s at %s: token %llu of %llu at once, %llu x %llu",
                     quire_weight_name(m->type), backend->caps.arithmetic, (unsigned long long)t,
                     (unsigned long long)count, (unsigned long long)m->rows,
                     (unsigned long long)m->columns);
    }
    kt_guard_free(&guard);
}

/* The first answer against f64, by what embed says the weights are. */
static void check(struct quire_backend *backend, struct quire_weight *weight,
                  const struct matrix *m, const struct inputs *in)
{
    float *row = qt_alloc(m->columns * 4);
    for (uint32_t r = 0; r<m->rows; r += m->rows> 50 ? 37 : 1) {
        struct quire_view id = quire_view_host(&r, QUIRE_U32, 1, 1, 1);
        struct quire_view to = quire_view_host(row, QUIRE_F32, 1, 1, m->columns);
        assert_int_equal(backend->nn->embed(backend, weight, &id, &to), QUIRE_OK);
        for (uint64_t t = 0; t < TOKENS; t += 23) {
            double sum = 0, size = 0;
            for (uint64_t k = 0; k < m->columns; k++) {
                double z = (double)row[k] * (double)in->x[t * m->columns + k];
                sum += z;
                size += fabs(z);
            }
            double got = (double)in->all[t * m->rows + r];
            assert_true(fabs(got - sum) <= (double)(m->columns + 1) * KT_U * size);
        }
    }
    qt_free(row);
}

static void one_matrix(const char *level, const struct matrix *m)
{
    static const uint32_t threads[] = {1, 2, 5};
    static const uint64_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 13, 33, 70};
    struct qt_random random = {m->rows};
    struct inputs in;
    in.x = kt_floats(&in.x_guard, &random, TOKENS * m->columns, 1);
    in.all = qt_alloc(TOKENS * m->rows * 4);
    for (uint32_t i = 0; i < QT_LEN(threads); i++) {
        struct quire_backend *backend = kt_backend(level, threads[i]);
        struct quire_weight *weight = weight_of(backend, m);
        if (i == 0) {
            struct quire_view x = quire_view_host(in.x, QUIRE_F32, TOKENS, 1, m->columns);
            struct quire_view y = quire_view_host(in.all, QUIRE_F32, TOKENS, 1, m->rows);
            assert_int_equal(backend->nn->linear(backend, weight, &x, &y), QUIRE_OK);
            check(backend, weight, m, &in);
        }
        for (uint32_t c = 0; c < QT_LEN(counts); c++)
            compare(backend, weight, m, &in, qt_below(&random, (uint32_t)(TOKENS - counts[c] + 1)),
                    counts[c]);
        backend->nn->weight_destroy(backend, weight);
        quire_backend_destroy(backend);
    }
    qt_free(in.all);
    kt_guard_free(&in.x_guard);
}

#define LINEAR_TYPE(name, value, elements, bytes, text) {QUIRE_W_##name, (elements)},
static const struct {
    uint32_t type, elements;
} types[] = {QUIRE_WEIGHT_LIST(LINEAR_TYPE)};
#undef LINEAR_TYPE

static void rows_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        for (size_t t = 0; t < QT_LEN(types); t++) {
            uint64_t odd = types[t].elements == 1 ? 37 : types[t].elements;
            struct matrix matrices[2];
            matrix_make(&matrices[0], types[t].type, 1 + t * 3, odd);
            matrix_make(&matrices[1], types[t].type, 131, odd * 3);
            for (size_t j = 0; j < 2; j++) {
                one_matrix(kernels->level, &matrices[j]);
                matrix_free(&matrices[j]);
            }
        }
    }
}

/* More columns than the panels of a new backend hold at the least number of rows. */
static void very_long_rows(void **state)
{
    (void)state;
    struct matrix m;
    matrix_make(&m, QUIRE_W_Q8_0, 6, 32 * 1024);
    const struct quire__kernels *best = NULL;
    for (uint32_t i = 0; kt_level(i) != NULL; i++)
        best = kt_level(i);
    one_matrix(best->level, &m);
    matrix_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_do_not_depend_on_the_batch),
        cmocka_unit_test(very_long_rows),
    };
    return cmocka_run_group_tests_name("kernel/linear", tests, NULL, NULL);
}
