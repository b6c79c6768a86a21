/* attend.h - attention over one tile on vectors, and the merging of splits.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A logit is summed as a norm is: a vector of factors at a time, in order, and v_sum4 adds the
 * lanes. A lane is a position in the softmax, and a dimension in the sums of values, whose
 * positions are added in order. K and V are read where they lie while few rows share them; for more
 * rows they are copied once as factors, which changes no bit. */
#ifndef QUIRE_BACKEND_CPU_LANES_ATTEND_H
#define QUIRE_BACKEND_CPU_LANES_ATTEND_H

#include "backend/cpu/lanes/factors.h"

#include "backend/cpu/lanes/softmax.h"

enum {
    SUM_POSITIONS = 4, /* as many as v_sum4 adds up together */
    BLOCK_VECTORS = 4, /* of values side by side in a register tile */
};

FN void scale_query(void *to, uint32_t stride, const float *from, uint32_t dim, float scale)
{
    for (uint32_t d = 0; d < stride; d += STEP) {
        vf part[STEP / LANES];
        UNROLL
        for (uint32_t i = 0; i < STEP / LANES; i++)
            part[i] = v_load_row(from, d + i * LANES, dim) * scale;
        put_factors(factors_at(to, d), part);
    }
}

KERNEL void queries(void *to, const float *const *rows, uint32_t n, uint32_t dim, float scale)
{
    uint32_t stride = factor_stride(dim);
    for (uint32_t r = 0; r < n; r++)
        scale_query(factors_at(to, (size_t)r * stride), stride, rows[r], dim, scale);
}

/* Where a block of a tile begins: a row, and a position or a dimension. */
struct corner {
    uint32_t row, column;
    struct asking *ask; /* of sums of values */
};

/* What blocks of so many rows and columns ask for at each position: K and V half of it each. */
FN uint32_t ask_share(const struct asking *a, const struct quire__tile *t, int rows,
                      uint32_t columns)
{
    uint32_t blocks = (t->rows + (uint32_t)rows - 1) / (uint32_t)rows * columns;
    return share_of(a, 1, 2, t->positions * blocks);
}

/* ---- logits ---- */

/* s[rows] at row r, from position p on; dtype, rows and positions are constants. */
FN void score_block(const struct quire__tile *t, const struct quire__rows *k, uint32_t dtype,
                    struct corner at, int rows, int positions)
{
    uint32_t r = at.row, p = at.column;
    vf s[SCORE_ROWS][2 * SUM_POSITIONS];
    uint32_t stride = factor_stride(k->dim);
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < positions; j++)
            s[i][j] = v_zero();
    }
    for (uint32_t d = 0; d < stride; d += STEP) {
        factors key[2 * SUM_POSITIONS];
        UNROLL
        for (int j = 0; j < positions; j++)
            key[j] = key_load(dtype, k, p + (uint32_t)j, d);
        UNROLL
        for (int i = 0; i < rows; i++) {
            factors q = get_factors(t->q, (size_t)(r + (uint32_t)i) * stride + d);
            UNROLL
            for (int j = 0; j < positions; j++)
                s[i][j] = add_products(s[i][j], q, key[j]);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        float *to = t->s + (size_t)(r + (uint32_t)i) * QUIRE__TILE + p;
        UNROLL
        for (int j = 0; j < positions; j += SUM_POSITIONS)
            *(v4_any *)(void *)(to + j) = v_sum4(s[i][j], s[i][j + 1], s[i][j + 2], s[i][j + 3]);
    }
}

/* One row alone has too few sums to keep the units busy: it takes twice the positions. */
FN void score_rows(const struct quire__tile *t, const struct quire__rows *k, uint32_t dtype,
                   uint32_t r, int rows, struct asking *a)
{
    int positions = rows == 1 ? 2 * SUM_POSITIONS : SUM_POSITIONS;
    uint32_t share = ask_share(a, t, rows, 1) * (uint32_t)positions;
    for (uint32_t p = 0; p < t->positions; p += (uint32_t)positions) {
        ask(a, share);
        score_block(t, k, dtype, (struct corner){r, p, a}, rows, positions);
    }
}

FN void scores_of(const struct quire__tile *t, const struct quire__rows *k, uint32_t dtype,
                  struct asking *a)
{
    uint32_t r = 0;
    for (; r + SCORE_ROWS <= t->rows; r += SCORE_ROWS)
        score_rows(t, k, dtype, r, SCORE_ROWS, a);
    uint32_t left = t->rows - r;
#if LANES == 16
    if (left >= 4) {
        score_rows(t, k, dtype, r, 4, a);
        r += 4;
        left -= 4;
    }
    if (left == 3)
        score_rows(t, k, dtype, r, 3, a);
#endif
    if (left == 2)
        score_rows(t, k, dtype, r, 2, a);
    if (left == 1)
        score_rows(t, k, dtype, r, 1, a);
}

/* ---- sums of values ---- */

/* [rows][vectors] at row r, dimension d; the rows' masks are equal. */
FN void value_block(const struct quire__tile *t, const struct quire__rows *values, uint32_t dtype,
                    struct corner at, int rows, int vectors)
{
    uint32_t r = at.row, d = at.column;
    vf acc[VALUE_ROWS][2 * BLOCK_VECTORS];
    size_t floats = QUIRE__STATE_HEAD + t->dim_v;
    float *state = t->state + r * floats;
    const float *s = t->s + (size_t)r * QUIRE__TILE;
    uint32_t columns = (t->dim_v / LANES + (uint32_t)vectors - 1) / (uint32_t)vectors;
    uint32_t share = ask_share(at.ask, t, rows, columns) * TOGETHER;
    UNROLL
    for (int i = 0; i < rows; i++) {
        vf alpha = v_set1(state[(size_t)i * floats + QUIRE__STATE_ALPHA]);
        UNROLL
        for (int j = 0; j < vectors; j++)
            acc[i][j] =
                v_load(state + (size_t)i * floats + QUIRE__STATE_HEAD + d + j * LANES) * alpha;
    }
    uint32_t p = 0;
    for (uint64_t mask = t->mask[r]; mask != 0; mask >>= TOGETHER, p += TOGETHER) {
        uint32_t gap = (uint32_t)__builtin_ctzll(mask) / TOGETHER * TOGETHER;
        mask >>= gap;
        p += gap;
        factors v[2 * BLOCK_VECTORS];
        UNROLL
        for (int j = 0; j < vectors; j++)
            v[j] = seen_only(value_load(dtype, values, p, d + (uint32_t)(j * LANES)), mask);
        ask(at.ask, share);
        UNROLL
        for (int i = 0; i < rows; i++) {
            factors weight = softmax_weight(s + (size_t)i * QUIRE__TILE, p);
            UNROLL
            for (int j = 0; j < vectors; j++)
                acc[i][j] = add_products(acc[i][j], weight, v[j]);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++)
            v_store(state + (size_t)i * floats + QUIRE__STATE_HEAD + d + j * LANES, acc[i][j]);
    }
}

FN void value_rows(const struct quire__tile *t, const struct quire__rows *values, uint32_t dtype,
                   uint32_t r, int rows, struct asking *a)
{
    uint32_t d = 0;
    int most = rows == 1 ? 2 * BLOCK_VECTORS : BLOCK_VECTORS;
    for (; d + (uint32_t)most * LANES <= t->dim_v; d += (uint32_t)most * LANES)
        value_block(t, values, dtype, (struct corner){r, d, a}, rows, most);
    for (; d < t->dim_v; d += LANES)
        value_block(t, values, dtype, (struct corner){r, d, a}, rows, 1);
}

FN void values_of(const struct quire__tile *t, const struct quire__rows *values, uint32_t dtype,
                  struct asking *a)
{
    uint32_t r = 0;
    while (r < t->rows) {
        uint32_t n = 1;
        while (n < VALUE_ROWS && r + n < t->rows && t->mask[r + n] == t->mask[r])
            n++;
#if LANES == 16
        n = n == 5 ? 4 : n;
#endif
        if (t->mask[r] == 0)
            ; /* sees nothing of this tile */
        else if (n == VALUE_ROWS)
            value_rows(t, values, dtype, r, VALUE_ROWS, a);
#if LANES == 16
        else if (n == 4)
            value_rows(t, values, dtype, r, 4, a);
        else if (n == 3)
            value_rows(t, values, dtype, r, 3, a);
#endif
        else if (n == 2)
            value_rows(t, values, dtype, r, 2, a);
        else
            value_rows(t, values, dtype, r, 1, a);
        r += n;
    }
}

/* ---- a tile ---- */

KERNEL void attend_keys(const struct quire__tile *t, struct asking *a)
{
    const uint8_t *at[QUIRE__TILE];
    struct quire__rows k = readable_keys(t, t->rows <= SCORE_ROWS, at);
    if (k.dtype == QUIRE_F32)
        scores_of(t, &k, QUIRE_F32, a);
    else if (k.dtype == QUIRE_F16)
        scores_of(t, &k, QUIRE_F16, a);
    else if (k.dtype == QUIRE_BF16)
        scores_of(t, &k, QUIRE_BF16, a);
    else if (k.dtype == QUIRE_Q8)
        scores_of(t, &k, QUIRE_Q8, a);
    else
        scores_of(t, &k, QUIRE_Q4, a);
}

KERNEL void attend_values(const struct quire__tile *t, struct asking *a)
{
    const uint8_t *at[QUIRE__TILE];
    struct quire__rows v = readable_values(t, t->rows <= VALUE_ROWS, at);
    if (v.dtype == QUIRE_F32)
        values_of(t, &v, QUIRE_F32, a);
    else if (v.dtype == QUIRE_F16)
        values_of(t, &v, QUIRE_F16, a);
    else if (v.dtype == QUIRE_BF16)
        values_of(t, &v, QUIRE_BF16, a);
    else if (v.dtype == QUIRE_Q8)
        values_of(t, &v, QUIRE_Q8, a);
    else if (v.dtype == QUIRE_Q4)
        values_of(t, &v, QUIRE_Q4, a);
    else
        values_of(t, &v, WOVEN, a);
}

KERNEL void attend(const struct quire__tile *tiles, uint32_t n)
{
    for (const struct quire__tile *t = tiles; t < tiles + n; t++) {
        struct asking a = asking_after(t);
        if (t->first)
            ask_now(t);
        if (t->fresh)
            clear_sums(t, 0, t->rows);
        attend_keys(t, &a);
        softmax(t);
        round_weights(t);
        attend_values(t, &a);
    }
}

#endif
