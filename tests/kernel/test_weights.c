/* test_weights.c - weights of every format in panels, and decoded out of them at every level.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What the formats mean comes from outside: hashes of what the Python package gguf decodes from the
 * same bytes (weight_hashes.py made them). The panels must give the same numbers, bit for bit; of
 * types without codes, or what bf16 rounds them to. */
#include "matrix_fixture.h"

#include <math.h>
#include <string.h>

enum { HASH_ROWS = 5, HASH_COLUMNS = 512, HALVES = 65536 };

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

static uint64_t fnv(const void *data, size_t n)
{
    const uint8_t *bytes = data;
    uint64_t value = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        value = (value ^ bytes[i]) * 0x100000001b3u;
    return value;
}

/* The numbers that the panels give, by the row, which is what embed does. */
static float *unpacked(const struct kt_matrix *m)
{
    float *rows = qt_alloc(m->rows * m->columns * sizeof *rows);
    for (uint64_t r = 0; r < m->rows; r++)
        quire__panels_row(&m->panels, r, rows + r * m->columns);
    return rows;
}

static void rows_are_ggufs(void **state)
{
    (void)state;
    uint32_t checked = 0;
    for (uint32_t i = 0; i < QUIRE__NUM_WEIGHTS; i++) {
        struct kt_matrix m;
        kt_matrix_new(&m, &kt_types[i], HASH_ROWS, HASH_COLUMNS, kt_types[i].type);
        float *rows = unpacked(&m);
        uint64_t hash = fnv(rows, (size_t)HASH_ROWS * HASH_COLUMNS * sizeof *rows);
        for (size_t h = 0; h < QT_LEN(hashes); h++) {
            if (hashes[h].type != m.type)
                continue;
            checked++;
            if (hash != hashes[h].hash)
                fail_msg("%s: the hash is 0x%016llx", quire_weight_name(m.type),
                         (unsigned long long)hash);
        }
        qt_free(rows);
        kt_matrix_free(&m);
    }
    assert_int_equal(checked, QUIRE__NUM_WEIGHTS);
}

/* ---- stretches ---- */

/* Some blocks of some neighbouring panels. */
struct stretch {
    uint32_t first_panel, num_panels, first_block, num_blocks;
};

/* Bit for bit, but for the sign and payload of NaN. */
static bool same_number(float a, float b)
{
    uint32_t x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return x == y || (isnan(a) && isnan(b));
}

/* What a level multiplies instead of a weight of the file. */
static float wanted(const struct quire__kernels *kernels, const struct kt_matrix *m, float weight)
{
    return m->panels.scaling == QUIRE__PLAIN ? kt_operand(kernels, weight) : weight;
}

static bool has_addend(const struct quire__kernels *kernels, const struct kt_matrix *m)
{
    return kernels->products == QUIRE_BF16 &&
           (m->panels.scaling == QUIRE__OFFSET || m->panels.scaling == QUIRE__SUPER);
}

/* Every weight of a decoded block. Padding is a number that is no trap: 0, and so are its lines. */
static void check_block(const struct quire__kernels *kernels, const struct kt_matrix *m,
                        uint64_t panel, uint64_t block, const void *decoded)
{
    for (uint32_t i = 0; i < QUIRE__BLOCK_WEIGHTS; i++) {
        uint32_t r = i / QUIRE__BLOCK_COLUMNS, k = i % QUIRE__BLOCK_COLUMNS;
        uint64_t row = panel * QUIRE__PANEL_ROWS + r, column = block * QUIRE__BLOCK_COLUMNS + k;
        bool inside = row < m->rows && column < m->columns;
        float want = inside ? wanted(kernels, m, m->weights[row * m->columns + column]) : 0.0f;
        struct kt_weight w = kt_decoded(kernels, &m->panels, decoded, r, k);
        float got = has_addend(kernels, m) ? fmaf(w.d, w.q, w.m) : w.d * w.q;
        if (inside ? !same_number(got, want) : got != 0.0f)
            fail_msg("%s at level %s: row %llu column %llu of %llu x %llu is %a, not %a",
                     quire_weight_name(m->type), kernels->level, (unsigned long long)row,
                     (unsigned long long)column, (unsigned long long)m->rows,
                     (unsigned long long)m->columns, (double)got, (double)want);
    }
}

static void decode_and_check(const struct quire__kernels *kernels, const struct kt_matrix *m,
                             const struct stretch *s)
{
    size_t bytes = kt_decoded_bytes(kernels, &m->panels);
    struct kt_guard to = kt_guard_new(s->num_blocks * bytes);
    for (uint32_t p = s->first_panel; p < s->first_panel + s->num_panels; p++) {
        kt_weight_kernels(kernels, m->type)
            ->decode(to.data, &m->panels, p, s->first_block, s->num_blocks);
        for (uint32_t b = 0; b < s->num_blocks; b++)
            check_block(kernels, m, p, s->first_block + b, (uint8_t *)to.data + b * bytes);
    }
    kt_guard_free(&to);
}

/* All of a matrix, and every stretch of up to three blocks of its last panel. */
static void every_level_decodes(const struct kt_matrix *m)
{
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        struct stretch all = {0, m->panels.num_panels, 0, m->panels.blocks};
        decode_and_check(kernels, m, &all);
        for (uint32_t b = 0; b < m->panels.blocks && b < 20; b++) {
            uint32_t left = m->panels.blocks - b, last = m->panels.num_panels - 1;
            struct stretch some = {last, 1, b, left < 3 ? left : 3};
            decode_and_check(kernels, m, &some);
        }
    }
}

static void panels_of_any_size(void **state)
{
    (void)state;
    static const uint32_t columns[] = {1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 65, 100, 257};
    for (uint32_t i = 0; i < QUIRE__NUM_WEIGHTS; i++) {
        for (uint32_t j = 0; j < QT_LEN(columns); j++) {
            struct kt_matrix m;
            uint64_t rows = 1 + (j * 7 + i) % 40;
            uint64_t k = kt_types[i].elements == 1 ? columns[j] : kt_types[i].elements * (1 + j);
            kt_matrix_new(&m, &kt_types[i], rows, k, 100 * i + j);
            float *rows_again = unpacked(&m);
            assert_memory_equal(rows_again, m.weights, rows * k * sizeof(float));
            every_level_decodes(&m);
            qt_free(rows_again);
            kt_matrix_free(&m);
        }
    }
}

/* Sets the halves of block b of a type: every pattern, infinities and NaN among them. */
static void set_halves(const struct kt_type *type, uint8_t *block, uint32_t b)
{
    size_t at = type->type == QUIRE_W_Q6_K ? 208 : 0;
    block[at] = (uint8_t)b;
    block[at + 1] = (uint8_t)(b >> 8);
    if (type->type == QUIRE_W_F32) /* its upper half: every exponent */
        memcpy(block + 2, block, 2);
}

/* Every f16 as a scale, and every element of 16 bits, by panels whose rows are blocks. */
static void every_scale(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < QUIRE__NUM_WEIGHTS; i++) {
        struct kt_matrix random, m;
        uint64_t columns = kt_types[i].elements * 64u, rows = HALVES / 64;
        kt_matrix_new(&random, &kt_types[i], rows, columns, i);
        struct kt_guard file = kt_guard_new(rows * random.row_bytes);
        memcpy(file.data, random.file.data, rows * random.row_bytes);
        kt_matrix_free(&random);
        for (uint32_t b = 0; b < HALVES; b++)
            set_halves(&kt_types[i], (uint8_t *)file.data + (size_t)b * kt_types[i].bytes, b);
        kt_matrix_of(&m, kt_types[i].type, rows, columns, file);
        const struct quire__kernels *kernels;
        for (uint32_t l = 1; (kernels = kt_level(l)) != NULL; l++) {
            for (uint32_t p = 0; p < m.panels.num_panels; p++)
                decode_and_check(kernels, &m, &(struct stretch){p, 1, 0, m.panels.blocks});
        }
        kt_matrix_free(&m);
    }
}

/* What a weight takes in memory, of what it takes in the file. */
static void panels_are_small(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < QUIRE__NUM_WEIGHTS; i++) {
        struct quire__panels panels;
        uint64_t row_bytes, rows = 1600, columns = 2304;
        uint32_t type = kt_types[i].type;
        assert_int_equal(quire_weight_row_bytes(type, columns, &row_bytes), QUIRE_OK);
        assert_int_equal(quire__panels_shape(&panels, type, rows, columns), QUIRE_OK);
        double part = (double)(panels.num_panels * panels.panel_bytes) / (double)(rows * row_bytes);
        bool wide = type == QUIRE_W_Q5_0 || type == QUIRE_W_Q5_1 || type == QUIRE_W_Q5_K ||
                    type == QUIRE_W_Q6_K;
        if (part > (wide ? 1.6 : 1.25))
            fail_msg("%s takes %.3f of its file", quire_weight_name(type), part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_ggufs),
        cmocka_unit_test(panels_of_any_size),
        cmocka_unit_test(every_scale),
        cmocka_unit_test(panels_are_small),
    };
    return cmocka_run_group_tests_name("kernel/weights", tests, NULL, NULL);
}
