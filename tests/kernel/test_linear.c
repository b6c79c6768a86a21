/* test_linear.c - the backend's linear and embed: every type, any number of tokens and threads.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A row of y depends on its row of x and the weights alone, so 70 tokens at once, fewer at once,
 * one at a time and any number of threads give the same bytes. */
#include "matrix_fixture.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/scalar.h"

enum { TOKENS = 70 };

/* ---- the kernels ---- */

enum { PREPARED = 5 }; /* rows */

/* The sums of a row's blocks are those of what was rounded. */
static void check_sums(const struct quire__kernels *kernels, bool codes, const float *x, size_t n,
                       const float *sums)
{
    const size_t stride = PREPARED + 1;
    for (size_t b = 0; b < (n + 31) / 32; b++) {
        double sum = 0, size = 0, got = (double)sums[b * stride];
        for (size_t k = 32 * b; k < 32 * b + 32 && k < n; k++) {
            sum += (double)kt_input(kernels, codes, x[k]);
            size += fabs((double)x[k]);
        }
        if (kernels->products == QUIRE_BF16)
            assert_true(fabs(got - sum) <= 32 * KT_U * size);
        else
            assert_true(isnan(got)); /* as the fixture filled it */
    }
}

/* The padding of a prepared row is zero, what lies behind is left alone. */
static void check_prepare(const struct quire__kernels *kernels)
{
    enum { ROWS = PREPARED, GAP = 7 };
    static const uint32_t sizes[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 80, 127, 500};
    struct qt_random random = {1};
    for (size_t i = 0; i < QT_LEN(sizes); i++) {
        size_t n = sizes[i], padded = (n + 31) / 32 * 32, stride = padded + GAP;
        size_t bytes = kernels->x_bytes;
        bool codes = i % 2 == 0;
        struct kt_guard x_guard, to = kt_guard_new((ROWS * stride - GAP) * bytes);
        struct kt_guard sums = kt_guard_new(padded / 32 * (ROWS + 1) * sizeof(float));
        float *x = kt_floats(&x_guard, &random, ROWS * (n + GAP) - GAP, 3);
        x[0] = 0x1.8p-101f; /* 0 where bf16 is multiplied with codes */
        kernels->prepare(&(struct quire__inputs){x, n + GAP, n, ROWS, to.data, stride, sums.data,
                                                 ROWS + 1, codes});
        for (size_t j = 0; j < ROWS * stride - GAP; j++) {
            size_t row = j / stride, k = j % stride;
            float want = k < n ? kt_input(kernels, codes, x[row * (n + GAP) + k]) : 0.0f;
            uint16_t half = k < n ? f32_to_bf16(want) : 0;
            const void *element = bytes == 2 ? (const void *)&half : (const void *)&want;
            if (k >= padded) /* as the fixture filled it */
                element = "\xff\xff\xff\xff";
            assert_memory_equal((uint8_t *)to.data + j * bytes, element, bytes);
        }
        for (size_t row = 0; row < ROWS; row++)
            check_sums(kernels, codes, x + row * (n + GAP), n, (float *)sums.data + row);
        kt_guard_free(&x_guard);
        kt_guard_free(&to);
        kt_guard_free(&sums);
    }
}

/* Rows and tokens around every tile and group, columns around blocks and stretches; then each token
 * alone, whose bits must be the same. */
static void check_linear(const struct quire__kernels *kernels)
{
    static const uint32_t tokens_of[] = {1, 2, 3, 4, 5, 7, 12, 16, 17, 31, 32, 33, 47, 48, 64, 70};
    struct qt_random random = {2};
    struct kt_guard scratch = kt_guard_new(QUIRE__SCRATCH_BYTES);
    for (uint32_t i = 0; i < 5 * QT_LEN(tokens_of); i++) {
        const struct kt_type *type = &kt_types[i % QUIRE__NUM_WEIGHTS];
        uint32_t tokens = tokens_of[i % QT_LEN(tokens_of)], rows = 1 + i * 13 % 150;
        uint32_t blocks = 1 + i * 5 % 13, columns = blocks * 32;
        if (columns % type->elements != 0)
            columns = type->elements;
        size_t stride = (size_t)columns + 5, sums_stride = (tokens + 15) / 16 * 16;
        struct kt_matrix m;
        struct kt_guard x_guard, to = kt_guard_new((tokens * stride - 5) * kernels->x_bytes);
        struct kt_guard y_guard = kt_guard_new((size_t)rows * tokens * 4);
        struct kt_guard alone_guard = kt_guard_new((size_t)rows * 4);
        float *x = kt_floats(&x_guard, &random, (size_t)tokens * columns, 1);
        kt_matrix_new(&m, type, rows, columns, i);
        struct kt_guard sums = kt_guard_new(columns / 32 * sums_stride * sizeof(float));
        kernels->prepare(&(struct quire__inputs){x, columns, columns, tokens, to.data, stride,
                                                 sums.data, sums_stride,
                                                 m.panels.scaling != QUIRE__PLAIN});
        struct quire__linear task = {.panels = &m.panels,
                                     .type = kt_weight_kernels(kernels, m.type),
                                     .num_panels = m.panels.num_panels,
                                     .x = to.data,
                                     .x_stride = stride,
                                     .x_sums = sums.data,
                                     .x_sums_stride = sums_stride,
                                     .y = y_guard.data,
                                     .y_stride = rows,
                                     .tokens = tokens,
                                     .scratch = scratch.data};
        kernels->linear(&task);
        kt_product_check(kernels, &(struct kt_product){&m, x, y_guard.data, columns, rows, tokens});
        for (uint32_t t = 0; t < tokens; t++) {
            task.x = (uint8_t *)to.data + t * stride * kernels->x_bytes;
            task.x_sums = (float *)sums.data + t;
            task.y = alone_guard.data;
            task.tokens = 1;
            kernels->linear(&task);
            if (memcmp(alone_guard.data, (float *)y_guard.data + (size_t)t * rows,
                       (size_t)rows * 4) != 0)
                fail_msg("%s at level %s: token %u of %u, %u x %u, differs when it is alone",
                         quire_weight_name(m.type), kernels->level, t, tokens, rows, columns);
        }
        kt_matrix_free(&m);
        kt_guard_free(&x_guard);
        kt_guard_free(&to);
        kt_guard_free(&sums);
        kt_guard_free(&y_guard);
        kt_guard_free(&alone_guard);
    }
    kt_guard_free(&scratch);
}

static void (*const checks[])(const struct quire__kernels *) = {
#define CHECK_ROW(name, parameters) check_##name,
    QUIRE__LINEAR_LIST(CHECK_ROW)
#undef CHECK_ROW
};

static void every_kernel_at_every_level(void **state)
{
    (void)state;
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        for (size_t c = 0; c < QT_LEN(checks); c++)
            checks[c](kernels);
    }
}

/* ---- the backend ---- */

struct inputs {
    struct kt_guard x_guard;
    float *x, *all; /* all: y of all tokens at once */
};

static struct quire_weight *weight_of(struct quire_backend *backend, const struct kt_matrix *m)
{
    struct quire_weight_desc desc = {.type = m->type,
                                     .rows = m->rows,
                                     .columns = m->columns,
                                     .data = m->file.data,
                                     .bytes = m->rows * m->row_bytes};
    struct quire_weight *weight = NULL;
    assert_int_equal(backend->nn->weight_create(backend, &desc, &weight), QUIRE_OK);
    return weight;
}

/* Asserts y of some tokens; the views have gaps between their rows. */
static void compare(struct quire_backend *backend, struct quire_weight *weight,
                    const struct kt_matrix *m, const struct inputs *in, uint64_t first,
                    uint64_t count)
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

/* The first answer against f64. */
static void check(const struct quire__kernels *kernels, const struct kt_matrix *m,
                  const struct inputs *in)
{
    for (uint64_t t = 0; t < TOKENS; t += 23)
        kt_product_check(kernels, &(struct kt_product){m, in->x + t * m->columns,
                                                       in->all + t * m->rows, 0, 0, 1});
}

/* embed gives the very weights. */
static void check_embed(struct quire_backend *backend, struct quire_weight *weight,
                        const struct kt_matrix *m)
{
    float *row = qt_alloc(m->columns * 4);
    for (uint32_t r = 0; r < m->rows; r++) {
        struct quire_view id = quire_view_host(&r, QUIRE_U32, 1, 1, 1);
        struct quire_view to = quire_view_host(row, QUIRE_F32, 1, 1, m->columns);
        assert_int_equal(backend->nn->embed(backend, weight, &id, &to), QUIRE_OK);
        assert_memory_equal(row, m->weights + r * m->columns, m->columns * 4);
    }
    qt_free(row);
}

static void one_matrix(const struct quire__kernels *kernels, const struct kt_matrix *m)
{
    static const uint32_t threads[] = {1, 2, 5};
    static const uint64_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 13, 33, 70};
    struct qt_random random = {m->rows};
    struct inputs in;
    in.x = kt_floats(&in.x_guard, &random, TOKENS * m->columns, 1);
    in.all = qt_alloc(TOKENS * m->rows * 4);
    for (uint32_t i = 0; i < QT_LEN(threads); i++) {
        struct quire_backend *backend = kt_backend(kernels->level, threads[i]);
        struct quire_weight *weight = weight_of(backend, m);
        if (i == 0) {
            struct quire_view x = quire_view_host(in.x, QUIRE_F32, TOKENS, 1, m->columns);
            struct quire_view y = quire_view_host(in.all, QUIRE_F32, TOKENS, 1, m->rows);
            assert_int_equal(backend->nn->linear(backend, weight, &x, &y), QUIRE_OK);
            check(kernels, m, &in);
            check_embed(backend, weight, m);
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

static void rows_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        for (size_t t = 0; t < QUIRE__NUM_WEIGHTS; t++) {
            uint64_t odd = kt_types[t].elements == 1 ? 37 : kt_types[t].elements;
            struct kt_matrix matrices[2];
            kt_matrix_new(&matrices[0], &kt_types[t], 1 + t * 3, odd, t);
            kt_matrix_new(&matrices[1], &kt_types[t], 131, odd * 3, t);
            for (size_t j = 0; j < 2; j++) {
                one_matrix(kernels, &matrices[j]);
                kt_matrix_free(&matrices[j]);
            }
        }
    }
}

static const struct quire__kernels *best_level(void)
{
    const struct quire__kernels *best = NULL;
    for (uint32_t i = 0; kt_level(i) != NULL; i++)
        best = kt_level(i);
    return best;
}

static const struct kt_type *type_of(uint32_t type)
{
    for (size_t t = 0; t < QUIRE__NUM_WEIGHTS; t++) {
        if (kt_types[t].type == type)
            return &kt_types[t];
    }
    return NULL;
}

/* More columns than a stretch has. */
static void very_long_rows(void **state)
{
    (void)state;
    struct kt_matrix m;
    kt_matrix_new(&m, type_of(QUIRE_W_Q8_0), 6, 32 * 1024, 1);
    one_matrix(best_level(), &m);
    kt_matrix_free(&m);
}

/* More tokens than one linear takes. */
static void very_many_tokens(void **state)
{
    (void)state;
    enum { MANY = QUIRE__TOKENS_MAX + 40, COLUMNS = 96, ROWS = 33 };
    const struct quire__kernels *kernels = best_level();
    struct quire_backend *backend = kt_backend(kernels->level, 2);
    struct qt_random random = {3};
    struct kt_matrix m;
    struct kt_guard x_guard, y_guard = kt_guard_new((size_t)MANY * ROWS * 4);
    kt_matrix_new(&m, type_of(QUIRE_W_Q4_0), ROWS, COLUMNS, 1);
    struct quire_weight *weight = weight_of(backend, &m);
    float *x = kt_floats(&x_guard, &random, (size_t)MANY * COLUMNS, 1);
    struct quire_view xv = quire_view_host(x, QUIRE_F32, MANY, 1, COLUMNS);
    struct quire_view yv = quire_view_host(y_guard.data, QUIRE_F32, MANY, 1, ROWS);
    assert_int_equal(backend->nn->linear(backend, weight, &xv, &yv), QUIRE_OK);
    kt_product_check(kernels, &(struct kt_product){&m, x, y_guard.data, COLUMNS, ROWS, MANY});
    backend->nn->weight_destroy(backend, weight);
    quire_backend_destroy(backend);
    kt_matrix_free(&m);
    kt_guard_free(&x_guard);
    kt_guard_free(&y_guard);
}

/* What is no number in one token stays in its row, and makes all of it no number. */
static void no_numbers_stay_in_their_row(void **state)
{
    (void)state;
    enum { COUNT = 33, COLUMNS = 64, ROWS = 20, BAD = 17 };
    static const uint32_t types[] = {QUIRE_W_F16, QUIRE_W_Q8_0, QUIRE_W_Q4_1};
    const float values[] = {NAN, INFINITY, -INFINITY};
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i / QT_LEN(types))) != NULL; i++) {
        struct quire_backend *backend = kt_backend(kernels->level, 2);
        struct kt_matrix m;
        kt_matrix_new(&m, type_of(types[i % QT_LEN(types)]), ROWS, COLUMNS, 5);
        struct quire_weight *weight = weight_of(backend, &m);
        for (size_t v = 0; v < QT_LEN(values); v++) {
            struct qt_random random = {v};
            struct kt_guard x_guard, y_guard = kt_guard_new((size_t)COUNT * ROWS * 4);
            float *x = kt_floats(&x_guard, &random, (size_t)COUNT * COLUMNS, 1);
            float *y = y_guard.data;
            x[BAD * COLUMNS + 39] = values[v];
            struct quire_view xv = quire_view_host(x, QUIRE_F32, COUNT, 1, COLUMNS);
            struct quire_view yv = quire_view_host(y, QUIRE_F32, COUNT, 1, ROWS);
            assert_int_equal(backend->nn->linear(backend, weight, &xv, &yv), QUIRE_OK);
            for (uint32_t j = 0; j < COUNT * ROWS; j++)
                assert_true(isfinite(y[j]) == (j / ROWS != BAD));
            kt_guard_free(&x_guard);
            kt_guard_free(&y_guard);
        }
        backend->nn->weight_destroy(backend, weight);
        quire_backend_destroy(backend);
        kt_matrix_free(&m);
    }
}

/* ---- what weight_create says as it goes ---- */

struct taken {
    uint64_t last, calls;
    uint8_t *data;
};

/* Spoils what is no longer needed. */
static void take(void *context, uint64_t bytes)
{
    struct taken *taken = context;
    assert_true(bytes > taken->last);
    memset(taken->data + taken->last, 0xff, bytes - taken->last);
    taken->last = bytes;
    taken->calls++;
}

static void the_data_is_not_kept(void **state)
{
    (void)state;
    struct quire_backend *backend = kt_backend(NULL, 2);
    struct kt_matrix m;
    kt_matrix_new(&m, type_of(QUIRE_W_F32), 8193, 512, 9);
    struct taken taken = {.data = m.file.data};
    struct quire_weight_desc desc = {m.type, m.rows, m.columns, m.file.data, m.rows * m.row_bytes,
                                     take,   &taken};
    struct quire_weight *weight = NULL;
    assert_int_equal(backend->nn->weight_create(backend, &desc, &weight), QUIRE_OK);
    assert_int_equal(taken.last, desc.bytes);
    assert_true(taken.calls > 3);
    check_embed(backend, weight, &m);
    backend->nn->weight_destroy(backend, weight);
    quire_backend_destroy(backend);
    kt_matrix_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_at_every_level),
        cmocka_unit_test(rows_do_not_depend_on_the_batch),
        cmocka_unit_test(very_long_rows),
        cmocka_unit_test(very_many_tokens),
        cmocka_unit_test(no_numbers_stay_in_their_row),
        cmocka_unit_test(the_data_is_not_kept),
    };
    return cmocka_run_group_tests_name("kernel/linear", tests, NULL, NULL);
}
