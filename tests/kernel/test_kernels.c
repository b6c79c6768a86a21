/* test_kernels.c - every kernel of the list, at every level, against f64 or against ref.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The list of kernels makes the table of checks below, so a kernel without a check does not build;
 * test_linear.c, test_kv_formats.c and test_peak.c have those of their parts of the list.
 * u is the unit roundoff; a sum of n products in any order is off by n u sum |terms| at most
 * (N. J. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). */
#include "kernel_fixture.h"
#include "tile_fixture.h"

#include "backend/cpu/scalar.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define U KT_U

struct bench {
    const struct quire__kernels *k, *ref;
    struct qt_random random;
    uint64_t *hash; /* of all results that were near; NULL: nobody asks */
};

static const uint32_t sizes[] = {1, 2, 3, 7, 15, 16, 17, 31, 33, 64, 80, 127, 500};

static void near(const struct bench *b, const char *what, size_t at, double got, double want,
                 double bound)
{
    if (!(fabs(got - want) <= bound))
        fail_msg("%s at level %s: element %zu is %.9g, not %.9g (bound %.3g)", what, b->k->level,
                 at, got, want, bound);
    if (b->hash != NULL)
        *b->hash = qt_mix(*b->hash ^ f32_bits((float)got));
}

static void same(const struct bench *b, const char *what, size_t n, const void *got,
                 const void *want, size_t bytes)
{
    if (memcmp(got, want, bytes) != 0)
        fail_msg("%s at level %s, n %zu: the bytes differ from ref", what, b->k->level, n);
}

/* ---- conversions ---- */

typedef void load_fn(float *to, const uint16_t *from, size_t n);
typedef void store_fn(uint16_t *to, const float *from, size_t n);

static void check_load(struct bench *b, load_fn *load, load_fn *ref, uint32_t dtype)
{
    struct kt_guard from = kt_guard_new(65536 * 2), to = kt_guard_new(65536 * 4);
    struct kt_guard wanted = kt_guard_new(65536 * 4);
    uint16_t *halves = from.data;
    float *want = wanted.data;
    for (uint32_t i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    load(to.data, halves, 65536);
    ref(want, halves, 65536);
    same(b, "load", 65536, to.data, want, 65536 * 4);
    for (uint32_t i = 0; i < 65536; i++) {
        double exact = qt_load(dtype, &halves[i]);
        if (!(isnan(exact) ? isnan(want[i]) : exact == (double)want[i]))
            fail_msg("ref loads half %04x as %g, not %g", i, (double)want[i], exact);
    }
    for (size_t i = 0; i < QT_LEN(sizes); i++) { /* ends, at every alignment */
        size_t n = sizes[i];
        load((float *)to.data + (65536 - n), halves + (65536 - n), n);
        same(b, "load", n, (float *)to.data + (65536 - n), want + (65536 - n), n * 4);
    }
    kt_guard_free(&from);
    kt_guard_free(&to);
    kt_guard_free(&wanted);
}

static void check_load_f16(struct bench *b)
{
    check_load(b, b->k->load_f16, b->ref->load_f16, QUIRE_F16);
}

static void check_load_bf16(struct bench *b)
{
    check_load(b, b->k->load_bf16, b->ref->load_bf16, QUIRE_BF16);
}

/* Every half, the middle between it and the next, and the f32 on both sides of that; then random
 * bit patterns, NaN and infinities among them. */
static void check_store(struct bench *b, store_fn *store, store_fn *ref, uint32_t dtype)
{
    enum { N = 65536 * 4 + 500000 };
    struct kt_guard from = kt_guard_new(N * 4), to = kt_guard_new(N * 2);
    struct kt_guard wanted = kt_guard_new(N * 2);
    uint32_t *bits = from.data;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t half = (uint16_t)i, next = (uint16_t)(i + 1);
        float middle = (float)((qt_load(dtype, &half) + qt_load(dtype, &next)) / 2);
        float value = (float)qt_load(dtype, &half);
        memcpy(&bits[4 * i], &value, 4);
        memcpy(&bits[4 * i + 1], &middle, 4);
        bits[4 * i + 2] = bits[4 * i + 1] + 1;
        bits[4 * i + 3] = bits[4 * i + 1] - 1;
    }
    for (uint32_t i = 65536 * 4; i < N; i++)
        bits[i] = (uint32_t)qt_next(&b->random);
    store(to.data, from.data, N);
    ref(wanted.data, from.data, N);
    same(b, "store", N, to.data, wanted.data, N * 2);
    for (uint32_t i = 0; i < N; i++) {
        uint16_t exact = 0;
        float value = ((float *)from.data)[i];
        if (!isnan(value))
            qt_store(dtype, value, &exact);
        if (!isnan(value) && exact != ((uint16_t *)wanted.data)[i])
            fail_msg("ref stores %a as %04x, not %04x", (double)value, ((uint16_t *)wanted.data)[i],
                     exact);
        if (isnan(value) && !isnan(qt_load(dtype, (uint16_t *)wanted.data + i)))
            fail_msg("ref stores a NaN as %04x", ((uint16_t *)wanted.data)[i]);
    }
    for (size_t i = 0; i < QT_LEN(sizes); i++) {
        size_t n = sizes[i];
        store((uint16_t *)to.data + (N - n), (float *)from.data + (N - n), n);
        same(b, "store", n, (uint16_t *)to.data + (N - n), (uint16_t *)wanted.data + (N - n),
             n * 2);
    }
    kt_guard_free(&from);
    kt_guard_free(&to);
    kt_guard_free(&wanted);
}

static void check_store_f16(struct bench *b)
{
    check_store(b, b->k->store_f16, b->ref->store_f16, QUIRE_F16);
}

static void check_store_bf16(struct bench *b)
{
    check_store(b, b->k->store_bf16, b->ref->store_bf16, QUIRE_BF16);
}

/* ---- one tile ---- */

/* The logit of one position and how far off it may be: D products and their sum, then softcap and
 * ALiBi as in kernel_fixture.c. */
static double logit(const struct bench *b, const struct tf_case *c, uint32_t r, uint32_t p,
                    double *error)
{
    const struct quire__tile *t = &c->tile;
    double s = 0, size = 0;
    for (uint32_t d = 0; d < t->k.dim; d++) {
        double x =
            (double)(c->queries[(size_t)r * t->k.dim + d] * TF_SCALE) * tf_element(&t->k, p, d);
        s += x;
        size += fabs(x);
    }
    *error = ((t->k.dim + 4) * U + qt_product_error(b->k->arithmetic)) * size;
    if (t->softcap != 0.0f) {
        s = (double)t->softcap * tanh(s / (double)t->softcap);
        *error += 10 * U * (double)t->softcap;
    }
    if (t->slope != NULL) {
        double bias = (double)t->slope[r] * ((double)t->distance[r] + p);
        s += bias;
        *error += 2 * U * (fabs(bias) + fabs(s));
    }
    return s;
}

/* What a row was before a tile. */
struct row_before {
    double max, sum;
    const float *values; /* NULL: there were none */
};

/* What exponents are taken against: the largest logit or, with tiles, what it was before while no
 * logit is much over it. */
static void check_max(const struct bench *b, uint32_t r, double old, double got, double max,
                      double off)
{
    bool may_stay = b->k->tiles && max - old <= (double)QUIRE__SLACK + off;
    bool may_move = !b->k->tiles || max - old >= (double)QUIRE__SLACK - off;
    if (may_stay && got == old)
        return;
    assert_true(may_move || got == old);
    near(b, "attend: max", r, got, max, off);
}

/* One row's state after the tile, against f64. */
static void attend_row(struct bench *b, const struct tf_case *c, uint32_t r,
                       const struct row_before *before)
{
    const struct quire__tile *t = &c->tile;
    const float *values = t->state + r * c->state_floats + QUIRE__STATE_HEAD;
    double x[QUIRE__TILE], weight[QUIRE__TILE], slack[QUIRE__TILE];
    double old = before->max, max = old, worst = 0;
    for (uint32_t p = 0; p < t->positions; p++) {
        if ((c->mask[r] >> p & 1) == 0)
            continue;
        x[p] = logit(b, c, r, p, &slack[p]);
        max = fmax(max, x[p]);
        worst = fmax(worst, slack[p]);
    }
    check_max(b, r, old, (double)c->max[r], max, worst);
    max = (double)c->max[r]; /* its rounding cancels */
    double alpha = old == -INFINITY ? 0 : exp(old - max), sum = before->sum * alpha;
    double alpha_error = old == -INFINITY ? 0 : alpha * U * (6 + 1.1 * fabs(max - old));
    double sum_error = before->sum * alpha_error + sum * U;
    for (uint32_t p = 0; p < t->positions; p++) {
        if ((c->mask[r] >> p & 1) == 0)
            continue;
        weight[p] = exp(x[p] - max);
        slack[p] = weight[p] * (expm1(slack[p]) + U * fabs(x[p] - max) + 5 * U +
                                qt_weight_error(b->k->arithmetic, max - x[p])) +
                   1e-37;
        sum += weight[p];
        sum_error += slack[p];
    }
    near(b, "attend: sum", r, (double)c->sum[r], sum, sum_error + 70 * U * sum);
    for (uint32_t d = 0; d < t->v.dim && !tf_sees_wild(c, r); d++) {
        double had = before->values != NULL ? (double)before->values[d] : 0;
        double at = had * alpha, size = fabs(at), error = fabs(had) * alpha_error;
        for (uint32_t p = 0; p < t->positions; p++) {
            if ((c->mask[r] >> p & 1) == 0)
                continue;
            double value = tf_element(&t->v, p, d);
            at += weight[p] * value;
            size += weight[p] * fabs(value);
            error += fabs(value) *
                     (slack[p] + qt_product_error(b->k->arithmetic) * (weight[p] + slack[p]));
        }
        near(b, "attend: values", d, (double)values[d], at, error + 70 * U * size);
    }
}

/* A row that sees nothing keeps its state, but for the sign of zeros. */
static void attend_hidden(const struct tf_case *c, uint32_t r, const struct row_before *before)
{
    const float *values = c->tile.state + r * c->state_floats + QUIRE__STATE_HEAD;
    assert_true((double)c->max[r] == before->max && (double)c->sum[r] == before->sum);
    for (size_t d = 0; d < c->tile.v.dim; d++)
        assert_true(values[d] == (before->values != NULL ? before->values[d] : 0.0f));
}

static void attend_once(struct bench *b, struct tf_case *c)
{
    size_t bytes = c->tile.rows * c->state_floats * 4;
    float *states = qt_alloc(bytes), max[TF_ROWS_MAX], sum[TF_ROWS_MAX];
    memcpy(states, c->tile.state, bytes);
    memcpy(max, c->max, sizeof max);
    memcpy(sum, c->sum, sizeof sum);
    c->tile.softcap = qt_chance(&b->random, 30) ? 3.0f : 0.0f;
    c->tile.slope = qt_chance(&b->random, 30) ? c->slope : NULL;
    b->k->attend(&c->tile, 1);
    for (uint32_t r = 0; r < c->tile.rows; r++) {
        const float *values = states + r * c->state_floats + QUIRE__STATE_HEAD;
        const struct row_before before = {(double)max[r], (double)sum[r],
                                          c->tile.fresh ? NULL : values};
        if (c->mask[r] != 0)
            attend_row(b, c, r, &before);
        else
            attend_hidden(c, r, &before);
    }
    qt_free(states);
}

/* Rows 1 .. 33, all kinds of tiles, dims and dtypes. */
static void check_attend(struct bench *b)
{
    for (uint32_t i = 0; i < 2 * TF_ROWS_MAX; i++) {
        struct tf_case c;
        const struct tf_shape shape = {.rows = 1 + i % TF_ROWS_MAX,
                                       .positions = tf_sizes[i % TF_SIZES_LEN],
                                       .dim = tf_dims[i % TF_DIMS_LEN],
                                       .dim_v = tf_dims[(i + i / 12) % TF_DIMS_LEN]};
        tf_open(&c, b->k, &b->random, &shape);
        attend_once(b, &c);
        tf_close(&c);
    }
}

/* Queries are scaled and laid out as the level likes: `attend` above shows that it can read them.
 * Nothing outside of the promised bytes is written, whatever rows and dim. */
static void check_queries(struct bench *b)
{
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t rows = 1 + i % TF_ROWS_MAX, dim = 1 + i * 7 % 300;
        struct kt_guard in, out = kt_guard_new(quire__queries_bytes(rows, dim));
        struct kt_guard again = kt_guard_new(quire__queries_bytes(rows, dim));
        const float *at[TF_ROWS_MAX], *q = kt_floats(&in, &b->random, (size_t)rows * dim, 1);
        for (uint32_t r = 0; r < rows; r++)
            at[r] = q + (size_t)r * dim;
        b->k->queries(out.data, at, rows, dim, 1.0f);
        b->k->queries(again.data, at, rows, dim, 1.0f);
        same(b, "queries", dim, out.data, again.data, quire__queries_bytes(rows, dim));
        kt_guard_free(&in);
        kt_guard_free(&out);
        kt_guard_free(&again);
    }
}

static void merge_once(struct bench *b, float old, float new, uint32_t dim_v)
{
    size_t n = QUIRE__STATE_HEAD + dim_v;
    struct kt_guard total_guard, state_guard;
    float *total = kt_floats(&total_guard, &b->random, n, 1), *before = qt_alloc(n * 4);
    float *state = kt_floats(&state_guard, &b->random, n, 1);
    total[QUIRE__STATE_MAX] = old;
    state[QUIRE__STATE_MAX] = new;
    if (new == -INFINITY)
        state[QUIRE__STATE_SUM] = 0;
    if (old == -INFINITY)
        memset(total + 1, 0, (n - 1) * 4);
    memcpy(before, total, n * 4);
    b->k->merge(total, state, dim_v);
    double max = fmax((double)old, (double)new);
    double x = exp((double)old - max), y = exp((double)new - max);
    double slack = U * (8 + 1.1 * fabs((double)fmaxf(old, -1e3f) - (double)fmaxf(new, -1e3f)));
    if (new == -INFINITY)
        same(b, "merge of an empty split", n, total, before, n * 4);
    else
        near(b, "merge: max", 0, (double)total[QUIRE__STATE_MAX], max, 0);
    for (size_t i = QUIRE__STATE_SUM; i < n && new != -INFINITY; i++) {
        if (i == QUIRE__STATE_ALPHA || (i > QUIRE__STATE_ALPHA && i < QUIRE__STATE_HEAD))
            continue;
        double p = x * (double)before[i], q = y * (double)state[i];
        near(b, "merge", i, (double)total[i], p + q, slack * (fabs(p) + fabs(q)) + 1e-37);
    }
    qt_free(before);
    kt_guard_free(&total_guard);
    kt_guard_free(&state_guard);
}

static void check_merge(struct bench *b)
{
    static const float maxima[] = {-INFINITY, -90.0f, -1.0f, 0.0f, 2.5f, 1e4f};
    for (size_t i = 0; i < QT_LEN(maxima) * QT_LEN(maxima); i++)
        merge_once(b, maxima[i % QT_LEN(maxima)], maxima[i / QT_LEN(maxima)],
                   16 * (1 + (uint32_t)i % 5));
}

static void finish_once(struct bench *b, float max, const float *sink, uint32_t dim)
{
    uint32_t dim_v = (dim + 15) / 16 * 16;
    struct kt_guard total_guard, out_guard = kt_guard_new(dim * 4);
    float *total = kt_floats(&total_guard, &b->random, QUIRE__STATE_HEAD + dim_v, 1);
    float *out = out_guard.data, lse;
    total[QUIRE__STATE_MAX] = max;
    total[QUIRE__STATE_SUM] = max == -INFINITY ? 0.0f : 3.0f;
    b->k->finish(out, &lse, total, sink, dim);
    double most = sink != NULL ? fmax((double)max, (double)*sink) : (double)max;
    double a = max == -INFINITY ? 0 : exp((double)max - most), sum = 3 * a;
    sum += sink != NULL ? exp((double)*sink - most) : 0;
    for (uint32_t d = 0; d < dim; d++) {
        double want = sum > 0 ? (double)total[QUIRE__STATE_HEAD + d] * a / sum : 0;
        double far = sink != NULL && max != -INFINITY ? fabs((double)max - (double)*sink) : 0;
        near(b, "finish", d, (double)out[d], want, fabs(want) * U * (16 + 2 * far) + 1e-37);
    }
    if (sum > 0)
        near(b, "finish: lse", 0, (double)lse, most + log(sum), U * (16 + 2 * fabs(most)));
    else
        assert_true(lse == -INFINITY);
    kt_guard_free(&total_guard);
    kt_guard_free(&out_guard);
}

static void check_finish(struct bench *b)
{
    static const float maxima[] = {-INFINITY, -20.0f, 0.0f, 3.0f, 1e4f};
    for (size_t i = 0; i < QT_LEN(maxima) * QT_LEN(sizes); i++) {
        float sink = qt_unit(qt_next(&b->random)) * 5;
        finish_once(b, maxima[i % QT_LEN(maxima)], i % 2 == 0 ? &sink : NULL,
                    sizes[i / QT_LEN(maxima)]);
    }
}

/* ---- nn ---- */

struct nn_case {
    struct kt_guard x_guard, up_guard, y_guard;
    float *x, *up, *y;
    size_t n;
};

static void nn_open(struct nn_case *c, struct bench *b, size_t n, float size)
{
    c->n = n;
    c->x = kt_floats(&c->x_guard, &b->random, n, size);
    c->up = kt_floats(&c->up_guard, &b->random, n, 2);
    c->y = kt_floats(&c->y_guard, &b->random, n, 1);
}

static void nn_close(struct nn_case *c)
{
    kt_guard_free(&c->x_guard);
    kt_guard_free(&c->up_guard);
    kt_guard_free(&c->y_guard);
}

/* The products are added in some order: off by n u of their sum, which the root halves. */
static void check_norm(struct bench *b)
{
    for (size_t i = 0; i < QT_LEN(sizes); i++) {
        struct nn_case c;
        nn_open(&c, b, sizes[i], 3);
        b->k->norm(c.y, c.x, c.up, c.n, 1e-5f);
        double sum = 0;
        for (size_t j = 0; j < c.n; j++)
            sum += (double)c.x[j] * (double)c.x[j];
        double scale = 1 / sqrt(sum / (double)c.n + (double)1e-5f);
        for (size_t j = 0; j < c.n; j++) {
            double want = (double)c.x[j] * scale * (double)c.up[j];
            near(b, "norm", j, (double)c.y[j], want, ((double)c.n / 2 + 8) * U * fabs(want));
        }
        memcpy(c.y, c.x, c.n * 4); /* in place */
        b->k->norm(c.y, c.y, c.up, c.n, 1e-5f);
        b->k->norm(c.x, c.x, c.up, c.n, 1e-5f);
        same(b, "norm in place", c.n, c.x, c.y, c.n * 4);
        nn_close(&c);
    }
}

static void rotary_check(struct bench *b, bool halves)
{
    for (size_t i = 0; i < QT_LEN(sizes); i++) {
        struct nn_case c;
        size_t n = (size_t)sizes[i] / 2 * 2;
        nn_open(&c, b, n, 3);
        memcpy(c.y, c.x, n * 4);
        (halves ? b->k->rotary_halves : b->k->rotary_pairs)(c.y, c.up, n);
        for (size_t j = 0; j < n / 2; j++) {
            size_t p = halves ? j : 2 * j, q = halves ? j + n / 2 : 2 * j + 1;
            double x = (double)c.x[p], y = (double)c.x[q];
            double cosine = (double)c.up[2 * j], sine = (double)c.up[2 * j + 1];
            near(b, "rotary", p, (double)c.y[p], x * cosine - y * sine,
                 2 * U * (fabs(x * cosine) + fabs(y * sine)));
            near(b, "rotary", q, (double)c.y[q], x * sine + y * cosine,
                 2 * U * (fabs(x * sine) + fabs(y * cosine)));
        }
        nn_close(&c);
    }
}

static void check_rotary_pairs(struct bench *b)
{
    rotary_check(b, false);
}

static void check_rotary_halves(struct bench *b)
{
    rotary_check(b, true);
}

/* exp is off by 4 u, the sum, quotient and product by u each: 7 u. Below exp's range the result is
 * 0 where x exp(x) would still be subnormal: 1e-35 covers it. */
static void check_silu(struct bench *b)
{
    static const float ranges[] = {1e-3f, 3.0f, 30.0f, 200.0f};
    for (size_t i = 0; i < QT_LEN(sizes) * QT_LEN(ranges); i++) {
        struct nn_case c;
        nn_open(&c, b, sizes[i / QT_LEN(ranges)], ranges[i % QT_LEN(ranges)]);
        b->k->silu(c.y, c.x, c.up, c.n);
        for (size_t j = 0; j < c.n; j++) {
            double x = (double)c.x[j], want = x / (1 + exp(-x)) * (double)c.up[j];
            near(b, "silu", j, (double)c.y[j], want, 7.1 * U * fabs(want) + 1e-35);
        }
        nn_close(&c);
    }
}

/* The exponent a = -2u takes 5 u |a| with it into exp, damped by e / (1 + e). */
static void check_gelu(struct bench *b)
{
    static const float ranges[] = {1e-3f, 3.0f, 10.0f, 200.0f};
    for (size_t i = 0; i < QT_LEN(sizes) * QT_LEN(ranges); i++) {
        struct nn_case c;
        nn_open(&c, b, sizes[i / QT_LEN(ranges)], ranges[i % QT_LEN(ranges)]);
        b->k->gelu(c.y, c.x, c.up, c.n);
        for (size_t j = 0; j < c.n; j++) {
            double x = (double)c.x[j];
            double a = -2 * sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x);
            double e = exp(a), want = x / (1 + e) * (double)c.up[j];
            double damped = isinf(e) ? 1 : e / (1 + e);
            near(b, "gelu", j, (double)c.y[j], want,
                 (7.1 + 5.5 * fabs(a) * damped) * U * fabs(want) + 1e-35);
        }
        nn_close(&c);
    }
}

static void check_add(struct bench *b)
{
    for (size_t i = 0; i < QT_LEN(sizes); i++) {
        struct nn_case c;
        nn_open(&c, b, sizes[i], 3);
        float *before = qt_alloc(c.n * 4);
        memcpy(before, c.y, c.n * 4);
        b->k->add(c.y, c.x, c.n);
        for (size_t j = 0; j < c.n; j++)
            near(b, "add", j, (double)c.y[j], (double)(before[j] + c.x[j]), 0);
        qt_free(before);
        nn_close(&c);
    }
}

static void check_scale(struct bench *b)
{
    for (size_t i = 0; i < QT_LEN(sizes); i++) {
        struct nn_case c;
        nn_open(&c, b, sizes[i], 3);
        float *before = qt_alloc(c.n * 4);
        memcpy(before, c.y, c.n * 4);
        b->k->scale(c.y, 25.298221f, c.n);
        for (size_t j = 0; j < c.n; j++)
            near(b, "scale", j, (double)c.y[j], (double)(before[j] * 25.298221f), 0);
        qt_free(before);
        nn_close(&c);
    }
}

static void check_argmax(struct bench *b)
{
    for (size_t i = 0; i < 2 * QT_LEN(sizes); i++) { /* and 11 times as many: several parts */
        struct nn_case c;
        uint32_t n = sizes[i / 2] * (i % 2 == 0 ? 1 : 11);
        uint32_t at = UINT32_MAX, first = qt_below(&b->random, n);
        nn_open(&c, b, n, 3);
        c.x[first] = 5;
        for (size_t j = first; j < c.n; j += 3) /* a tie: the lowest wins */
            c.x[j] = 5;
        if (first > 0)
            c.x[first - 1] = NAN; /* is never the largest */
        b->k->argmax(&at, c.x, c.n);
        assert_int_equal(at, first);
        for (size_t j = 0; j < c.n; j++)
            c.x[j] = -INFINITY;
        b->k->argmax(&at, c.x, c.n);
        assert_int_equal(at, 0);
        for (size_t j = 0; j < first; j++)
            c.x[j] = NAN;
        b->k->argmax(&at, c.x, c.n);
        assert_int_equal(at, first); /* the first that is a number */
        for (size_t j = 0; j < c.n; j++)
            c.x[j] = NAN;
        b->k->argmax(&at, c.x, c.n);
        assert_int_equal(at, 0);
        nn_close(&c);
    }
}

struct check {
    const char *name;
    void (*run)(struct bench *b);
};

static const struct check checks[] = {
#define CHECK_ROW(name, parameters) {#name, check_##name},
    QUIRE__ATTEND_LIST(CHECK_ROW) QUIRE__NN_LIST(CHECK_ROW)
#undef CHECK_ROW
};

/* Levels that claim one arithmetic, emulated or not, give the same bits. */
static void compare_hashes(uint64_t hashes[][QT_LEN(checks)], uint32_t i)
{
    for (uint32_t j = 0; j < i; j++) {
        if (strcmp(kt_level(j)->arithmetic, kt_level(i)->arithmetic) != 0)
            continue;
        for (size_t c = 0; c < QT_LEN(checks); c++) {
            if (hashes[i][c] != hashes[j][c])
                fail_msg("%s: other bits at level %s than at %s", checks[c].name,
                         kt_level(i)->level, kt_level(j)->level);
        }
    }
}

static void every_kernel_at_every_level(void **state)
{
    (void)state;
    static uint64_t hashes[QUIRE__NUM_LEVELS + 2][QT_LEN(checks)]; /* 2: emulated */
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        for (size_t c = 0; c < QT_LEN(checks); c++) {
            struct bench b = {
                kernels, kt_level(0), {qt_env_u64("QUIRE_TEST_SEED", 1) + c}, &hashes[i][c]};
            checks[c].run(&b);
        }
        compare_hashes(hashes, i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_at_every_level),
    };
    return cmocka_run_group_tests_name("kernel/kernels", tests, NULL, NULL);
}
