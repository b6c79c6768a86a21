/* test_kv_formats.c - rows of q8 and q4: the same bytes at every level, and how far they err.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The list of kernels makes the table of checks, so a kernel without a check does not build. ref is
 * docs/formats/kv.md in plain C; the bounds are derived there and hold for ref, and the other
 * levels must store ref's bytes and load its values. */
#include "kernel_fixture.h"

#include <math.h>
#include <string.h>

#define U KT_U

enum { DIM_MAX = 512, LARGEST = 65504, KINDS = 14 };

static const uint32_t dims[] = {16, 32, 48, 64, 80, 96, 112, 128, 144, 256, 512};

struct bench {
    const struct quire__kernels *k, *ref;
    struct qt_random random;
};

/* ---- rows ---- */

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* What a kind of row has at its elements; some have it at every 11th only, between numbers. */
static float strange(struct bench *b, uint32_t kind, uint32_t i)
{
    const float plain = qt_unit(qt_next(&b->random));
    const bool here = i % 11 == 3;
    switch (kind) {
    case 0: /* numbers */
        return plain;
    case 1: /* zeros of both signs */
        return from_bits((uint32_t)qt_next(&b->random) & 0x80000000u);
    case 2: /* all equal, and no half */
        return 0.1f;
    case 3: /* one huge */
        return here ? 1e30f : plain;
    case 4:
        return here ? (i % 2 == 0 ? INFINITY : -INFINITY) : plain;
    case 5:
        return here ? from_bits(0xffc00001u | i << 4) : plain;
    case 6: /* denormals */
        return from_bits((uint32_t)qt_next(&b->random) & 0x807fffffu);
    case 7: /* scales that are no normal halves */
        return plain * 0x1p-18f;
    case 8: /* scales around the least half */
        return plain * 0x1p-21f;
    case 9: /* far from 0, close together */
        return 300.0f + plain;
    case 10: /* ends of what halves hold */
        return i % 2 == 0 ? 65504.0f : -65504.0f;
    case 11: /* beyond them */
        return 1e6f * plain;
    case 12: /* codes on ties */
        return (float)(i % 31) * 0.5f;
    default: /* any bits at all */
        return from_bits((uint32_t)qt_next(&b->random));
    }
}

static float clean(float x)
{
    if (isnan(x) || x == 0.0f)
        return 0.0f; /* -0 as well */
    return x > LARGEST ? LARGEST : x < -LARGEST ? -LARGEST : x;
}

/* A row between guards, and as every level must read it. */
struct row {
    uint32_t dim, kind;
    struct kt_guard guard;
    float *from;
    float clean[DIM_MAX];
};

static void row_open(struct row *row, struct bench *b, uint32_t dim, uint32_t kind)
{
    row->dim = dim;
    row->kind = kind;
    row->guard = kt_guard_new(dim * sizeof(float));
    row->from = row->guard.data;
    for (uint32_t i = 0; i < dim; i++) {
        row->from[i] = strange(b, kind, i);
        row->clean[i] = clean(row->from[i]);
    }
}

typedef void each_fn(struct bench *b, const struct row *row);

/* Rows of every dim and kind, and more of plain numbers. */
static void each_row(struct bench *b, each_fn *check)
{
    for (size_t i = 0; i < QT_LEN(dims); i++) {
        for (uint32_t kind = 0; kind < KINDS + 20; kind++) {
            struct row row;
            row_open(&row, b, dims[i], kind < KINDS ? kind : kind % 2 == 0 ? 0 : KINDS - 1);
            check(b, &row);
            kt_guard_free(&row.guard);
        }
    }
}

static void differ(const struct bench *b, const struct row *row, const char *what)
{
    fail_msg("%s of a row of %u at level %s differs from ref, kind %u", what, row->dim, b->k->level,
             row->kind);
}

/* ---- storing and loading ---- */

typedef void load_fn(float *to, const uint8_t *data, const uint8_t *scales, uint32_t dim);
typedef void store_fn(uint8_t *data, uint8_t *scales, const float *from, uint32_t dim);

/* A dtype, its functions of one level and of ref, and the bound of ref's error. */
struct format {
    uint32_t dtype;
    store_fn *store, *ref_store;
    load_fn *load, *ref_load;
    void (*bound)(const struct bench *b, const struct row *row, const uint8_t *scales,
                  const float *values);
};

static double half_at(const uint8_t *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return qt_load(QUIRE_F16, &bits);
}

/* |value - x| <= scale (1/2 + 2^-15), and scale <= (largest / 127)(1 + 2^-10) + 2^-24. */
static void bound_q8(const struct bench *b, const struct row *row, const uint8_t *scales,
                     const float *values)
{
    uint32_t n = row->dim % 32 == 0 ? 32 : 16;
    (void)b;
    for (uint32_t g = 0; g < row->dim / n; g++) {
        double scale = half_at(scales + (size_t)g * 2), largest = 0;
        for (uint32_t i = g * n; i < (g + 1) * n; i++)
            largest = fmax(largest, fabs((double)row->clean[i]));
        assert_true(scale >= largest / 127 * (1 - 2 * U));
        assert_true(scale <= largest / 127 * (1 + 0x1p-10) + 0x1p-24);
        for (uint32_t i = g * n; i < (g + 1) * n; i++) {
            double off = fabs((double)values[i] - (double)row->clean[i]);
            if (!(off <= scale * (0.5 + 0x1p-15)))
                fail_msg("q8 of %a is %a with the scale %a, kind %u", (double)row->clean[i],
                         (double)values[i], scale, row->kind);
        }
    }
}

static double half_step(double h)
{
    return fmax(0x1p-11 * fabs(h), 0x1p-25);
}

/* The mean square of the error, and every error, as docs/formats/kv.md derives them. Any one error
 * is at most 4 times the root of the mean square of 16. */
static void bound_q4(const struct bench *b, const struct row *row, const uint8_t *scales,
                     const float *values)
{
    (void)b;
    for (uint32_t g = 0; g < row->dim / 16; g++) {
        const float *x = row->clean + (size_t)g * 16;
        double low = (double)x[0], high = low, sum = 0;
        for (uint32_t i = 0; i < 16; i++) {
            double off = (double)values[g * 16 + i] - (double)x[i];
            low = fmin(low, (double)x[i]);
            high = fmax(high, (double)x[i]);
            sum += off * off;
        }
        double step = (high - low) / 15, size = fmax(fabs(low), fabs(high));
        /* Below 2^-24 the middle of the group stands for all of it. */
        double codes = step < 0x1p-24 ? (high - low) / 2 : step / 2;
        double limit = codes + 15 * half_step(1.2 * step) + half_step(size + step) + 0x1p-20 * size;
        if (!(sqrt(sum / 16) <= limit))
            fail_msg("q4 of a group of %u, scale %g, least %g: rms error %g, bound %g, kind %u",
                     row->dim, half_at(scales + (size_t)g * 4), half_at(scales + (size_t)g * 4 + 2),
                     sqrt(sum / 16), limit, row->kind);
    }
}

/* The row's bytes by ref, and the level's next to forbidden pages; then the loads of both. */
static void check_format(struct bench *b, const struct row *row, const struct format *f)
{
    uint32_t data_bytes = quire_kv_data_bytes(f->dtype, row->dim);
    uint32_t scale_bytes = quire_kv_scale_bytes(f->dtype, row->dim);
    struct kt_guard data = kt_guard_new(data_bytes), scales = kt_guard_new(scale_bytes);
    struct kt_guard to = kt_guard_new(row->dim * sizeof(float));
    uint8_t want_data[DIM_MAX], want_scales[DIM_MAX];
    float values[DIM_MAX];
    memset(want_data, 0xff, sizeof want_data);
    memset(want_scales, 0xff, sizeof want_scales);
    f->ref_store(want_data, want_scales, row->from, row->dim);
    f->store(data.data, scales.data, row->from, row->dim);
    if (memcmp(data.data, want_data, data_bytes) != 0)
        differ(b, row, "the data");
    if (memcmp(scales.data, want_scales, scale_bytes) != 0)
        differ(b, row, "the scales");
    f->ref_load(values, want_data, want_scales, row->dim);
    f->load(to.data, data.data, scales.data, row->dim);
    if (memcmp(to.data, values, row->dim * sizeof(float)) != 0)
        differ(b, row, "what is loaded");
    for (uint32_t i = 0; i < row->dim; i++)
        assert_true(isfinite(values[i]));
    f->bound(b, row, want_scales, values);
    kt_guard_free(&data);
    kt_guard_free(&scales);
    kt_guard_free(&to);
}

static void check_row_q8(struct bench *b, const struct row *row)
{
    const struct format format = {QUIRE_Q8,      b->k->store_q8,  b->ref->store_q8,
                                  b->k->load_q8, b->ref->load_q8, bound_q8};
    check_format(b, row, &format);
}

static void check_row_q4(struct bench *b, const struct row *row)
{
    const struct format format = {QUIRE_Q4,      b->k->store_q4,  b->ref->store_q4,
                                  b->k->load_q4, b->ref->load_q4, bound_q4};
    check_format(b, row, &format);
}

static void check_store_q8(struct bench *b)
{
    each_row(b, check_row_q8);
}

static void check_store_q4(struct bench *b)
{
    each_row(b, check_row_q4);
}

/* Any bytes, NaN scales among them, load alike; q4 halves lie where docs/formats/kv.md says. */
static void check_loads(struct bench *b, load_fn *load, load_fn *ref, uint32_t dtype)
{
    for (size_t d = 0; d < QT_LEN(dims) * 10; d++) {
        uint32_t dim = dims[d % QT_LEN(dims)], bytes = quire_kv_data_bytes(dtype, dim);
        uint32_t scale_bytes = quire_kv_scale_bytes(dtype, dim);
        struct kt_guard data = kt_guard_new(bytes), scales = kt_guard_new(scale_bytes);
        float got[DIM_MAX], want[DIM_MAX];
        for (uint32_t i = 0; i < bytes; i++)
            ((uint8_t *)data.data)[i] = (uint8_t)qt_next(&b->random);
        for (uint32_t i = 0; i < scale_bytes; i++)
            ((uint8_t *)scales.data)[i] = (uint8_t)qt_next(&b->random);
        load(got, data.data, scales.data, dim);
        ref(want, data.data, scales.data, dim);
        for (uint32_t i = 0; i < dim; i++) {
            uint32_t x, y;
            memcpy(&x, &got[i], sizeof x);
            memcpy(&y, &want[i], sizeof y);
            bool same = isnan(want[i]) ? isnan(got[i]) : x == y;
            if (!same)
                fail_msg("element %u of %u at level %s: %a, ref has %a", i, dim, b->k->level,
                         (double)got[i], (double)want[i]);
        }
        kt_guard_free(&data);
        kt_guard_free(&scales);
    }
}

static void check_load_q8(struct bench *b)
{
    uint8_t data[64], scales[4] = {0x00, 0x3c, 0x00, 0xc0}; /* 1 and -2 */
    float to[64];
    for (uint32_t i = 0; i < 64; i++)
        data[i] = (uint8_t)(i - 20);
    b->k->load_q8(to, data, scales, 64);
    for (int i = 0; i < 64; i++)
        assert_true(to[i] == (float)((i < 32 ? 1 : -2) * (i - 20)));
    check_loads(b, b->k->load_q8, b->ref->load_q8, QUIRE_Q8);
}

static void check_load_q4(struct bench *b)
{
    uint8_t data[24], scales[12];
    float to[48];
    for (uint32_t i = 0; i < 16; i++)
        data[i] = (uint8_t)(i | (15 - i) << 4);
    for (uint32_t i = 0; i < 8; i++)
        data[16 + i] = (uint8_t)(i | (8 + i) << 4);
    for (uint32_t g = 0; g < 3; g++)
        memcpy(scales + (size_t)g * 4, (uint8_t[]){0x00, 0x40, 0x00, 0xbc}, 4); /* 2 and -1 */
    b->k->load_q4(to, data, scales, 48);
    for (int i = 0; i < 48; i++) {
        int code = i < 16 ? i : i < 32 ? 31 - i : i - 32;
        assert_true(to[i] == (float)(2 * code - 1));
    }
    check_loads(b, b->k->load_q4, b->ref->load_q4, QUIRE_Q4);
}

/* ---- rotation ---- */

/* (-1)^(ones in i and j) / sqrt(n), in the order of the definition. log2 n sums and one product,
 * each off by u of at most sum |x| / sqrt(n), and the factor itself by 2 u. */
static void check_turn(struct bench *b, const struct row *row, const float *turned)
{
    uint32_t n = row->dim & (0u - row->dim);
    for (uint32_t i = 0; i < row->dim; i++) {
        const float *x = row->from + i / n * n;
        double sum = 0, size = 0;
        for (uint32_t j = 0; j < n; j++) {
            sum += __builtin_parity(i % n & j) != 0 ? -(double)x[j] : (double)x[j];
            size += fabs((double)x[j]);
        }
        double root = sqrt((double)n);
        if (!(fabs((double)turned[i] - sum / root) <= (log2(n) + 3) * U * size / root + 0x1p-149))
            fail_msg("element %u of %u at level %s turns to %g, not %g", i, row->dim, b->k->level,
                     (double)turned[i], sum / root);
    }
}

static void check_row_turns(struct bench *b, const struct row *row)
{
    struct kt_guard to = kt_guard_new(row->dim * sizeof(float));
    float want[DIM_MAX];
    const bool finite = memcmp(row->from, row->clean, row->dim * sizeof(float)) == 0;
    b->ref->rotate_finite(want, row->from, row->dim);
    b->k->rotate_finite(to.data, row->from, row->dim);
    if (memcmp(to.data, want, row->dim * sizeof(float)) != 0)
        differ(b, row, "rotate_finite");
    for (uint32_t i = 0; i < row->dim; i++)
        assert_true(isfinite(want[i]));
    b->k->rotate(to.data, row->from, row->dim);
    if (finite && memcmp(to.data, want, row->dim * sizeof(float)) != 0)
        differ(b, row, "rotate");
    if (finite)
        check_turn(b, row, to.data);
    memcpy(to.data, row->from, row->dim * sizeof(float)); /* in place */
    b->k->rotate_finite(to.data, to.data, row->dim);
    if (memcmp(to.data, want, row->dim * sizeof(float)) != 0)
        differ(b, row, "rotate_finite in place");
    kt_guard_free(&to);
}

static void check_rotate_finite(struct bench *b)
{
    each_row(b, check_row_turns);
}

/* What rotate does with what is no number: it stays none, in its block and in no other. */
static void check_rotate(struct bench *b)
{
    float x[96], y[96];
    for (uint32_t i = 0; i < 96; i++)
        x[i] = qt_unit(qt_next(&b->random));
    x[40] = NAN;
    b->k->rotate(y, x, 96);
    for (uint32_t i = 0; i < 96; i++)
        assert_int_equal(isnan(y[i]) != 0, i / 32 == 1);
    memcpy(y, x, sizeof y);
    b->k->rotate(y, y, 96);
    b->k->rotate(y, y, 96); /* its own inverse: two turns err by what one does, twice */
    for (uint32_t i = 0; i < 96; i++)
        assert_true(i / 32 == 1 || fabs((double)y[i] - (double)x[i]) <= 2 * 8 * U * 32);
}

/* ---- all of them ---- */

static const struct {
    const char *name;
    void (*run)(struct bench *b);
} checks[] = {
#define CHECK_ROW(name, parameters) {#name, check_##name},
    QUIRE__KV_LIST(CHECK_ROW)
#undef CHECK_ROW
};

static void every_format_at_every_level(void **state)
{
    (void)state;
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        for (size_t c = 0; c < QT_LEN(checks); c++) {
            struct bench b = {kernels, kt_level(0), {qt_env_u64("QUIRE_TEST_SEED", 1) + c}};
            checks[c].run(&b);
        }
    }
}

/* Sixteen numbers a group: 12 uniform ones added make a normal one. The search must be worth its
 * time: docs/formats/kv.md claims 29 % less than smallest and largest, which leave
 * step^2 / 12 on average. */
static void the_search_finds_better_lines(void **state)
{
    enum { GROUPS = 4000 };
    const struct quire__kernels *k = kt_level(0);
    struct qt_random random = {5};
    double plain = 0, searched = 0;
    (void)state;
    for (uint32_t g = 0; g < GROUPS; g++) {
        float x[16], y[16], low = INFINITY, high = -INFINITY;
        uint8_t data[8], scales[4];
        for (uint32_t i = 0; i < 16; i++) {
            x[i] = 0;
            for (uint32_t j = 0; j < 12; j++)
                x[i] += qt_unit(qt_next(&random));
            low = x[i] < low ? x[i] : low;
            high = x[i] > high ? x[i] : high;
        }
        k->store_q4(data, scales, x, 16);
        k->load_q4(y, data, scales, 16);
        double step = ((double)high - (double)low) / 15;
        for (uint32_t i = 0; i < 16; i++) {
            double code = round(((double)x[i] - (double)low) / step);
            double off = (double)x[i] - ((double)low + step * code);
            plain += off * off;
            searched += ((double)y[i] - (double)x[i]) * ((double)y[i] - (double)x[i]);
        }
    }
    if (!(searched < 0.74 * plain))
        fail_msg("the searched lines leave %.3f of the error", searched / plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_at_every_level),
        cmocka_unit_test(the_search_finds_better_lines),
    };
    return cmocka_run_group_tests_name("kernel/kv_formats", tests, NULL, NULL);
}
