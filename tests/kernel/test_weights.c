/* test_weights.c - decoding of every weight format, and products with it, at every level.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What the formats mean comes from outside: hashes of what the Python package gguf decodes from the
 * same bytes (weight_hashes.py made them). Products are held against f64; the sum of K products in
 * any order is off by at most (K + 1) u sum |w x|. */
#include "kernel_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HASH_ROWS = 5, HASH_COLUMNS = 512 };

struct known_hash {
    uint32_t type;
    uint64_t hash;
};

static const struct known_hash hashes[] = {
    {QUIRE_W_Q4_0, 0x9e25862bb5afacacu}, {QUIRE_W_Q4_1, 0x8bbbd3d576248511u},
    {QUIRE_W_Q5_0, 0x971dfa442f2fca76u}, {QUIRE_W_Q5_1, 0x9c2aec0e216ecdf6u},
    {QUIRE_W_Q8_0, 0x4703116c69fbc406u}, {QUIRE_W_Q4_K, 0xa4e5318a1077aed4u},
    {QUIRE_W_Q5_K, 0x9267ba669f597507u}, {QUIRE_W_Q6_K, 0x2be33f93a3fd44a8u},
    {QUIRE_W_F16, 0xebbf7ece2187533au},  {QUIRE_W_BF16, 0x401c77be3bf09c2bu},
    {QUIRE_W_F32, 0x33a263ba99442e15u},
};

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

/* Random rows, ending at a page that must not be touched. */
static struct kt_guard random_rows(const struct quire__weight_kernels *w, uint64_t rows,
                                   uint32_t columns, uint64_t seed)
{
    uint64_t row_bytes;
    struct qt_random random = {seed};
    assert_int_equal(quire_weight_row_bytes(w->type, columns, &row_bytes), QUIRE_OK);
    struct kt_guard guard = kt_guard_new(rows * row_bytes);
    uint8_t *bytes = guard.data;
    for (uint64_t i = 0; i < rows * row_bytes; i += 8) {
        uint64_t word = qt_next(&random), left = rows * row_bytes - i;
        memcpy(bytes + i, &word, left < 8 ? left : 8);
    }
    for (uint64_t i = 0; i < rows * row_bytes; i += w->bytes)
        tame_block(w->type, bytes + i);
    return guard;
}

static uint64_t fnv(const void *data, size_t n)
{
    const uint8_t *bytes = data;
    uint64_t value = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        value = (value ^ bytes[i]) * 0x100000001b3u;
    return value;
}

static void decoding_is_ggufs(void **state)
{
    (void)state;
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        uint32_t checked = 0;
        for (uint32_t j = 0; j < QUIRE__NUM_WEIGHTS; j++) {
            const struct quire__weight_kernels *w = &kernels->weights[j];
            struct kt_guard rows = random_rows(w, HASH_ROWS, HASH_COLUMNS, w->type);
            struct kt_guard to = kt_guard_new(HASH_COLUMNS * HASH_ROWS * 4);
            for (uint32_t r = 0; r < HASH_ROWS; r++)
                w->dequant((float *)to.data + r * HASH_COLUMNS,
                           (uint8_t *)rows.data + r * (HASH_COLUMNS / w->elements * w->bytes),
                           HASH_COLUMNS);
            uint64_t hash = fnv(to.data, HASH_COLUMNS * HASH_ROWS * 4);
            for (size_t h = 0; h < QT_LEN(hashes); h++) {
                if (hashes[h].type != w->type)
                    continue;
                checked++;
                if (hash != hashes[h].hash)
                    fail_msg("%s at level %s: the hash is 0x%016llx", quire_weight_name(w->type),
                             kernels->level, (unsigned long long)hash);
            }
            kt_guard_free(&rows);
            kt_guard_free(&to);
        }
        assert_int_equal(checked, QUIRE__NUM_WEIGHTS);
    }
}

/* Every odd length of a format without blocks: the end of a row is no whole unit or vector. */
static void plain_rows_of_any_length(void **state)
{
    (void)state;
    static const uint32_t plain[] = {QUIRE_W_F32, QUIRE_W_F16, QUIRE_W_BF16};
    const struct quire__kernels *kernels;
    for (uint32_t i = 1; (kernels = kt_level(i)) != NULL; i++) {
        for (uint32_t columns = 1; columns < 100; columns++) {
            for (uint32_t j = 0; j < QUIRE__NUM_WEIGHTS; j++) {
                const struct quire__weight_kernels *w = &kernels->weights[j];
                if (w->type != plain[0] && w->type != plain[1] && w->type != plain[2])
                    continue;
                struct kt_guard row = random_rows(w, 1, columns, columns);
                struct kt_guard to = kt_guard_new(columns * 4), want = kt_guard_new(columns * 4);
                w->dequant(to.data, row.data, columns);
                kt_level(0)->weights[j].dequant(want.data, row.data, columns);
                assert_memory_equal(to.data, want.data, columns * 4);
                kt_guard_free(&row);
                kt_guard_free(&to);
                kt_guard_free(&want);
            }
        }
    }
}

struct product {
    const struct quire__kernels *kernels;
    const struct quire__weight_kernels *weight;
    uint32_t rows, columns, tokens;
    const uint8_t *w;
    size_t w_stride;
    const float *x;
    float *decoded; /* [rows][columns] */
};

/* y of tokens first .. first + count from kernel `direct` must be y of the panel, bit for bit. */
static void compare_direct(const struct product *p, const float *panel, uint32_t first,
                           uint32_t count)
{
    struct kt_guard guard = kt_guard_new((size_t)p->rows * count * 4);
    struct quire__linear task = {p->w,       p->w_stride, p->x + first * p->columns,
                                 p->columns, guard.data,  p->rows,
                                 p->columns, p->rows,     count};
    p->weight->direct(&task);
    if (memcmp(guard.data, panel + (size_t)first * p->rows, (size_t)p->rows * count * 4) != 0)
        fail_msg(
            "direct %s at level %s: %u rows, %u columns, tokens %u .. %u differ from the panel",
            quire_weight_name(p->weight->type), p->kernels->level, p->rows, p->columns, first,
            first + count);
    kt_guard_free(&guard);
}

static void check_bounds(const struct product *p, const float *y)
{
    for (uint32_t t = 0; t < p->tokens; t++) {
        for (uint32_t r = 0; r < p->rows; r++) {
            double sum = 0, size = 0;
            for (uint32_t k = 0; k < p->columns; k++) {
                double z = (double)p->decoded[(size_t)r * p->columns + k] *
                           (double)p->x[(size_t)t * p->columns + k];
                sum += z;
                size += fabs(z);
            }
            double got = (double)y[(size_t)t * p->rows + r];
            if (!(fabs(got - sum) <= (p->columns + 1) * KT_U * size))
                fail_msg("%s at level %s: token %u row %u of %u x %u is %.9g, not %.9g",
                         quire_weight_name(p->weight->type), p->kernels->level, t, r, p->rows,
                         p->columns, got, sum);
        }
    }
}

static void product_once(struct product *p, uint64_t seed)
{
    struct qt_random random = {seed};
    uint64_t row_bytes;
    assert_int_equal(quire_weight_row_bytes(p->weight->type, p->columns, &row_bytes), QUIRE_OK);
    struct kt_guard w = random_rows(p->weight, p->rows, p->columns, seed), x_guard;
    struct kt_guard decoded = kt_guard_new((size_t)p->rows * p->columns * 4);
    struct kt_guard y = kt_guard_new((size_t)p->rows * p->tokens * 4);
    p->x = kt_floats(&x_guard, &random, (size_t)p->tokens * p->columns, 1);
    p->w = w.data;
    p->w_stride = row_bytes;
    p->decoded = decoded.data;
    for (uint32_t r = 0; r < p->rows; r++)
        p->weight->dequant(p->decoded + (size_t)r * p->columns, p->w + r * row_bytes, p->columns);
    struct quire__linear task = {decoded.data, p->columns * sizeof(float),
                                 p->x,         p->columns,
                                 y.data,       p->rows,
                                 p->columns,   p->rows,
                                 p->tokens};
    p->kernels->panel_dot(&task);
    check_bounds(p, y.data);
    for (uint32_t t = 0; t < p->tokens; t++) {
        for (uint32_t n = 1; n <= QUIRE__TOKENS_DIRECT && t + n <= p->tokens; n++)
            compare_direct(p, y.data, t, n);
    }
    kt_guard_free(&w);
    kt_guard_free(&x_guard);
    kt_guard_free(&decoded);
    kt_guard_free(&y);
}

static void products_of_every_type(void **state)
{
    (void)state;
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        for (uint32_t j = 0; j < QUIRE__NUM_WEIGHTS; j++) {
            const struct quire__weight_kernels *w = &kernels->weights[j];
            static const uint32_t odd[] = {1, 3, 16, 31, 33, 100, 333};
            for (uint32_t c = 0; c < 7; c++) {
                uint32_t columns = w->elements == 1 ? odd[c] : w->elements * (1 + c);
                struct product p = {.kernels = kernels, .weight = w, .columns = columns};
                p.rows = 1 + (c * 5 + j) % 11;
                p.tokens = 1 + (c + j) % 7;
                product_once(&p, 100 * c + j + 1);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_is_ggufs),
        cmocka_unit_test(plain_rows_of_any_length),
        cmocka_unit_test(products_of_every_type),
    };
    return cmocka_run_group_tests_name("kernel/weights", tests, NULL, NULL);
}
