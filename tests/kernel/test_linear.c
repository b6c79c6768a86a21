/* test_linear.c - the backend's linear and embed: every type, any number of tokens and threads.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A row of y depends on its row of x and the weights alone, so 70 tokens at once, fewer at once,
 * one at a time and any number of threads give the same bytes. */
#include "matrix_fixture.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/float_mode.h"
#include "backend/cpu/scalar.h"

enum { TOKENS = 70 };

/* ---- the kernels ---- */

enum { PREPARED = 19 }; /* rows */

/* Where the rows of a check lie. */
struct prepared {
    struct kt_rows rows;
    struct quire__lines at;
    struct kt_guard to, lines;
    size_t blocks, bytes;
};

static struct prepared prepared_new(const struct quire__kernels *kernels, bool codes,
                                    uint32_t tokens, size_t columns)
{
    enum { GAP = 12 };
    struct prepared p = {.blocks = (columns + 31) / 32};
    size_t stride = p.blocks * 32 * kernels->x_bytes + GAP, whole = (tokens + 15) / 16 * 16;
    p.rows = (struct kt_rows){kernels, codes, tokens, stride};
    p.bytes = whole * stride;
    p.to = kt_guard_new(p.bytes);
    p.lines = kt_guard_new(2 * p.blocks * whole * sizeof(float));
    p.at = (struct quire__lines){p.lines.data, (float *)p.lines.data + p.blocks * whole, whole};
    return p;
}

static void prepared_free(struct prepared *p)
{
    kt_guard_free(&p->to);
    kt_guard_free(&p->lines);
}

/* A row is what the level rounds to, padded with zeros; the sums are those of what was rounded. */
static void check_row(const struct prepared *p, const float *x, size_t n, uint32_t i)
{
    const struct quire__lines *at = &p->at;
    bool lines = p->rows.codes && p->rows.kernels->products == QUIRE_BF16;
    double *want = qt_alloc(p->blocks * 32 * sizeof *want);
    memset(want, 0, p->blocks * 32 * sizeof *want);
    kt_inputs(p->rows.kernels, p->rows.codes, x, n, want);
    for (size_t b = 0; b < p->blocks; b++) {
        float scale = at->scales[b * at->stride + i], sum = at->sums[b * at->stride + i];
        double all = 0;
        for (size_t k = 32 * b; k < 32 * b + 32; k++) {
            assert_true(kt_prepared(&p->rows, p->to.data, i, k, scale) == want[k]);
            all += want[k];
        }
        assert_true(lines ? (double)sum == all : isnan(sum) && isnan(scale)); /* as it was filled */
    }
    qt_free(want);
}

/* What lies between rows, and behind, is left alone. */
static void check_gaps(const struct prepared *p)
{
    size_t element = kt_part_bytes(&p->rows);
    bool *taken = qt_alloc(p->bytes * sizeof *taken);
    memset(taken, 0, p->bytes * sizeof *taken);
    for (uint32_t i = 0; i < p->rows.tokens; i++) {
        for (size_t k = 0; k < p->blocks * 32 * kt_parts(&p->rows); k++) {
            uint32_t part = (uint32_t)(k % kt_parts(&p->rows));
            memset(taken + kt_place(&p->rows, i, k / kt_parts(&p->rows), part), true, element);
        }
    }
    for (size_t i = 0; i < p->bytes; i++)
        assert_true(taken[i] || ((uint8_t *)p->to.data)[i] == 0xff);
    qt_free(taken);
}

static void check_prepare(const struct quire__kernels *kernels)
{
    enum { GAP = 7 };
    static const uint32_t sizes[] = {1, 2, 15, 16, 17, 31, 32, 33, 64, 80, 127, 500};
    struct qt_random random = {1};
    for (size_t i = 0; i < 4 * QT_LEN(sizes); i++) {
        size_t n = sizes[i / 4];
        uint32_t tokens = i % 2 == 0 ? PREPARED : 1;
        struct prepared p = prepared_new(kernels, i / 2 % 2 == 0, tokens, n);
        struct kt_guard x_guard;
        float *x = kt_floats(&x_guard, &random, tokens * (n + GAP) - GAP, 3);
        if (n <= 32) /* 0 where bf16 is multiplied with codes */
            memset(x, 0, n * sizeof *x);
        x[0] = n <= 32 ? 0x1.8p-101f : x[0];
        x[n - 1] = n > 32 ? 0x1.ffffp114f : x[n - 1];
        kernels->prepare(&(struct quire__inputs){x, n + GAP, n, tokens, p.to.data, p.rows.stride,
                                                 p.at, tokens, p.rows.codes});
        for (uint32_t row = 0; row < tokens; row++)
            check_row(&p, x + row * (n + GAP), n, row);
        check_gaps(&p);
        kt_guard_free(&x_guard);
        prepared_free(&p);
    }
}

/* y of some rows of x, by the kernels alone. */
static void run_linear(const struct quire__kernels *kernels, const struct kt_matrix *m,
                       const float *x, uint32_t tokens, float *y)
{
    bool codes = m->panels.scaling != QUIRE__PLAIN;
    struct prepared p = prepared_new(kernels, codes, tokens, m->columns);
    struct kt_guard scratch = kt_guard_new(QUIRE__SCRATCH_BYTES);
    kernels->prepare(&(struct quire__inputs){x, m->columns, m->columns, tokens, p.to.data,
                                             p.rows.stride, p.at, tokens, codes});
    kernels->linear(&(struct quire__linear){.panels = &m->panels,
                                            .type = kt_weight_kernels(kernels, m->type),
                                            .num_panels = m->panels.num_panels,
                                            .x = p.to.data,
                                            .x_stride = p.rows.stride,
                                            .at = p.at,
                                            .y = y,
                                            .y_stride = m->rows,
                                            .tokens = tokens,
                                            .scratch = scratch.data});
    kt_guard_free(&scratch);
    prepared_free(&p);
}

/* Rows and tokens around every tile and group, columns around blocks and stretches; then each token
 * alone, whose bits must be the same. */
static void check_linear(const struct quire__kernels *kernels)
{
    static const uint32_t tokens_of[] = {1, 2, 3, 4, 5, 7, 12, 16, 17, 31, 32, 33, 47, 48, 64, 70};
    struct qt_random random = {2};
    for (uint32_t i = 0; i < 5 * QT_LEN(tokens_of); i++) {
        const struct kt_type *type = &kt_types[i % QUIRE__NUM_WEIGHTS];
        uint32_t tokens = tokens_of[i % QT_LEN(tokens_of)], rows = 1 + i * 13 % 150;
        uint32_t blocks = 1 + i * 5 % 13, columns = blocks * 32;
        if (columns % type->elements != 0)
            columns = type->elements;
        struct kt_matrix m;
        struct kt_guard x_guard, y = kt_guard_new((size_t)rows * tokens * 4);
        struct kt_guard alone = kt_guard_new((size_t)rows * 4);
        float *x = kt_floats(&x_guard, &random, (size_t)tokens * columns, 1);
        kt_matrix_new(&m, type, rows, columns, i);
        run_linear(kernels, &m, x, tokens, y.data);
        kt_product_check(kernels, &(struct kt_product){&m, x, y.data, columns, rows, tokens});
        for (uint32_t t = 0; t < tokens; t++) {
            run_linear(kernels, &m, x + (size_t)t * columns, 1, alone.data);
            if (memcmp(alone.data, (float *)y.data + (size_t)t * rows, (size_t)rows * 4) != 0)
                fail_msg("%s at level %s: token %u of %u, %u x %u, differs when it is alone",
                         quire_weight_name(m.type), kernels->level, t, tokens, rows, columns);
        }
        kt_matrix_free(&m);
        kt_guard_free(&x_guard);
        kt_guard_free(&y);
        kt_guard_free(&alone);
    }
}

/* y of `tokens` equal rows of x; each must have the bits of the first. */
static void run_equal_rows(const struct quire__kernels *kernels, const struct kt_matrix *m,
                           const float *x, uint32_t tokens, float *y)
{
    float *rows = qt_alloc(tokens * m->columns * sizeof *rows);
    for (uint32_t t = 0; t < tokens; t++)
        memcpy(rows + t * m->columns, x, m->columns * sizeof *rows);
    run_linear(kernels, m, rows, tokens, y);
    for (uint32_t t = 1; t < tokens; t++)
        assert_memory_equal(y, y + t * m->rows, m->rows * sizeof *y);
    qt_free(rows);
}

/* Q8_0 with factors of 1 and codes of -128, or any, in every row. */
static void q8_matrix(struct kt_matrix *m, uint32_t rows, uint32_t blocks, struct qt_random *random)
{
    struct kt_guard file = kt_guard_new((size_t)rows * blocks * 34);
    for (size_t i = 0; i < (size_t)rows * blocks; i++) {
        uint8_t *block = (uint8_t *)file.data + i * 34;
        block[0] = 0;
        block[1] = 0x3c;
        for (uint32_t k = 0; k < 32; k++)
            block[2 + k] = random == NULL ? 0x80 : (uint8_t)qt_next(random);
    }
    kt_matrix_of(m, QUIRE_W_Q8_0, rows, (uint64_t)blocks * 32, file);
}

/* A block's products have an exact sum, whatever x is and up to 2^24. */
static void blocks_are_exact(const struct quire__kernels *kernels)
{
    enum { ROWS = 20, TOKENS_MOST = 33 };
    static const uint32_t counts[] = {1, 2, TOKENS_MOST};
    static const float sizes[] = {1, 0x1p-101f, 0x1p114f};
    struct qt_random random = {9};
    float y[ROWS * TOKENS_MOST];
    for (uint32_t i = 0; kernels->products == QUIRE_BF16 && i < 300; i++) {
        struct kt_matrix m;
        float x[32], size = sizes[i / 3 % 3];
        double want[32];
        q8_matrix(&m, ROWS, 1, i % 2 == 0 ? NULL : &random);
        for (uint32_t k = 0; k < 32; k++) {
            bool most = i < 50 || qt_chance(&random, 50);
            float part = most ? 0x1.ffffp0f : (float)qt_below(&random, 1 << 24) * 0x1p-23f;
            x[k] = (i >= 100 && qt_chance(&random, 50) ? -part : part) * size;
        }
        kt_inputs(kernels, true, x, 32, want);
        run_equal_rows(kernels, &m, x, counts[i % 3], y);
        for (uint32_t r = 0; r < ROWS; r++) {
            double sum = 0;
            for (uint32_t k = 0; k < 32; k++)
                sum += (double)m.weights[r * 32 + k] * want[k];
            assert_true((double)y[r] == sum);
        }
        kt_matrix_free(&m);
    }
}

/* Blocks below 2^-100 are 0; those that reach 2^115 make their token NaN. */
static void sizes_have_ends(const struct quire__kernels *kernels)
{
    enum { ROWS = 3, TOKENS_MOST = 17 };
    static const uint32_t counts[] = {1, TOKENS_MOST};
    float x[64] = {0}, y[ROWS * TOKENS_MOST];
    struct kt_matrix m;
    q8_matrix(&m, ROWS, 2, NULL);
    for (uint32_t i = 0; kernels->products == QUIRE_BF16 && i < QT_LEN(counts); i++) {
        x[40] = 0x1p-100f;
        run_equal_rows(kernels, &m, x, counts[i], y);
        assert_true(y[0] == -0x1p-93f);
        x[40] = 0x1.fffffep-101f;
        run_equal_rows(kernels, &m, x, counts[i], y);
        assert_true(y[0] == 0);
        x[40] = 0x1.fffffep114f;
        run_equal_rows(kernels, &m, x, counts[i], y);
        assert_true(y[0] == -0x1p122f);
        x[40] = 0x1p115f;
        run_equal_rows(kernels, &m, x, counts[i], y);
        assert_true(isnan(y[0]));
    }
    kt_matrix_free(&m);
}

/* Products of tiny numbers: what instructions flush, one token alone flushes too; the caller's
 * rounding and denormal rules are as before. */
static void tiny_numbers_are_flushed(const struct quire__kernels *kernels)
{
    enum { ROWS = 35, COLUMNS = 96, TOKENS_MOST = 18 };
    struct qt_random random = {10};
    float x[COLUMNS], alone[ROWS], y[ROWS * TOKENS_MOST];
    for (uint32_t i = 0; i < 40; i++) {
        struct kt_matrix m;
        struct kt_guard file = kt_guard_new(ROWS * COLUMNS * sizeof(float));
        float *weights = file.data;
        for (uint32_t k = 0; k < ROWS * COLUMNS; k++)
            weights[k] = ldexpf((float)qt_below(&random, 512) - 256, -71);
        for (uint32_t k = 0; k < COLUMNS; k++)
            x[k] = ldexpf((float)qt_below(&random, 512) - 256, -71 + (int)(i % 4));
        kt_matrix_of(&m, QUIRE_W_F32, ROWS, COLUMNS, file);
        uint64_t mode = quire__float_mode_enter();
        run_equal_rows(kernels, &m, x, TOKENS_MOST, y);
        run_equal_rows(kernels, &m, x, 1, alone);
        assert_memory_equal(alone, y, sizeof alone);
        quire__float_mode_leave(mode);
        volatile float least = FLT_MIN;
        assert_true(least / 2 > 0);
        kt_matrix_free(&m);
    }
}

static void numbers_at_the_ends(void **state)
{
    (void)state;
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        blocks_are_exact(kernels);
        sizes_have_ends(kernels);
        tiny_numbers_are_flushed(kernels);
    }
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
            run_linear(kernels, &m, x + BAD * COLUMNS, 1, y);
            for (uint32_t j = 0; j < ROWS; j++)
                assert_true(!isfinite(y[j]));
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
        cmocka_unit_test(numbers_at_the_ends),
        cmocka_unit_test(rows_do_not_depend_on_the_batch),
        cmocka_unit_test(very_long_rows),
        cmocka_unit_test(very_many_tokens),
        cmocka_unit_test(no_numbers_stay_in_their_row),
        cmocka_unit_test(the_data_is_not_kept),
    };
    return cmocka_run_group_tests_name("kernel/linear", tests, NULL, NULL);
}
