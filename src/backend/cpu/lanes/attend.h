/* attend.h - attention over one tile in f32, and the merging of splits.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A logit is summed as a norm is: element d goes to lane d mod LANES, in order of d, and v_sum4
 * adds the lanes. A lane is a position in the softmax, and a dimension in the sums of values, whose
 * positions are added in order. K and V are read where they lie while few rows share them; for more
 * rows they are widened once, which changes no bit. */
#ifndef QUIRE_BACKEND_CPU_LANES_ATTEND_H
#define QUIRE_BACKEND_CPU_LANES_ATTEND_H

#include "backend/cpu/lanes/ahead.h"

#include "backend/cpu/lanes/softmax.h"

enum {
    SUM_POSITIONS = 4, /* as many as v_sum4 adds up together */
    BLOCK_VECTORS = 4, /* of values side by side in a register tile */
};

KERNEL void queries(void *to, const float *const *rows, uint32_t n, uint32_t dim, float scale)
{
    uint32_t stride = (uint32_t)quire__round_up(dim, QUIRE__LANES_MAX);
    for (uint32_t r = 0; r < n; r++) {
        float *q = (float *)to + (size_t)r * stride;
        uint32_t d = 0;
        for (; d + LANES <= dim; d += LANES)
            v_store(q + d, v_load(rows[r] + d) * scale);
        for (; d < stride; d += LANES)
            v_store(q + d, d < dim ? v_load_part(rows[r] + d, dim - d) * scale : v_zero());
    }
}

/* ---- rows of K and V ---- */

/* The rows as f32, zero from dim up to a whole number of vectors. They go to `scratch`, and where
 * they lie to `at`. */
FN void widen(uint32_t dtype, struct quire__rows *rows, uint32_t positions, float *scratch,
              const uint8_t **at)
{
    uint32_t stride = (uint32_t)quire__round_up(rows->dim, QUIRE__LANES_MAX);
    for (uint32_t p = 0; p < positions; p++) {
        float *to = scratch + (size_t)p * stride;
        if (dtype == QUIRE_Q8 || dtype == QUIRE_Q4) {
            for (uint32_t d = 0; d < stride; d += LANES)
                v_store(to + d, kv_load(dtype, rows->data[p], rows->scales[p], d, rows->dim));
        } else {
            widen_row(dtype, to, stride, rows->data[p], rows->dim);
        }
        at[p] = (const uint8_t *)to;
    }
    for (uint32_t p = positions; p < quire__round_up(positions, QUIRE__LANES_MAX); p++)
        at[p] = at[0];
    rows->data = at;
    rows->dtype = QUIRE_F32;
}

/* Rows that are read where they lie, or widened copies of them: `few` says that their readers are
 * no more than one register tile. q8 and q4 are always widened. */
FN struct quire__rows readable(const struct quire__tile *t, const struct quire__rows *rows,
                               bool few, float *scratch, const uint8_t **at)
{
    struct quire__rows ready = *rows;
    bool whole = rows->dim % QUIRE__LANES_MAX == 0;
    if (whole && ((few && rows->scales == NULL) || rows->dtype == QUIRE_F32))
        return ready;
    if (rows->dtype == QUIRE_F32)
        widen(QUIRE_F32, &ready, t->positions, scratch, at);
    else if (rows->dtype == QUIRE_F16)
        widen(QUIRE_F16, &ready, t->positions, scratch, at);
    else if (rows->dtype == QUIRE_BF16)
        widen(QUIRE_BF16, &ready, t->positions, scratch, at);
    else if (rows->dtype == QUIRE_Q8)
        widen(QUIRE_Q8, &ready, t->positions, scratch, at);
    else
        widen(QUIRE_Q4, &ready, t->positions, scratch, at);
    return ready;
}

/* Where a block of a tile begins: a row, and a position or a dimension. */
struct corner {
    uint32_t row, column;
};

/* ---- logits ---- */

/* s[rows] at row r, from position p on; dtype, rows and positions are constants. */
FN void score_block(const struct quire__tile *t, const struct quire__rows *k, uint32_t dtype,
                    struct corner at, int rows, int positions)
{
    uint32_t r = at.row, p = at.column;
    vf s[SCORE_ROWS][2 * SUM_POSITIONS];
    uint32_t stride = (uint32_t)quire__round_up(k->dim, QUIRE__LANES_MAX);
    const float *q = (const float *)t->q + (size_t)r * stride;
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < positions; j++)
            s[i][j] = v_zero();
    }
    for (uint32_t d = 0; d < stride; d += LANES) {
        vf key[2 * SUM_POSITIONS];
        UNROLL
        for (int j = 0; j < positions; j++)
            key[j] = element_load(dtype, element_at(dtype, k->data[p + (uint32_t)j], d));
        UNROLL
        for (int i = 0; i < rows; i++) {
            vf x = v_load(q + (size_t)i * stride + d);
            UNROLL
            for (int j = 0; j < positions; j++)
                s[i][j] = v_fma(x, key[j], s[i][j]);
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
                   uint32_t r, int rows)
{
    int positions = rows == 1 ? 2 * SUM_POSITIONS : SUM_POSITIONS;
    bool asks = r == 0 && t->rows <= ASKING_ROWS;
    for (uint32_t p = 0; p < t->positions; p += (uint32_t)positions) {
        for (uint32_t i = 0; asks && i < (uint32_t)positions; i++)
            ask_ahead(&t->k, &t->v, p + i, t->positions);
        score_block(t, k, dtype, (struct corner){r, p}, rows, positions);
    }
}

FN void scores_of(const struct quire__tile *t, const struct quire__rows *k, uint32_t dtype)
{
    uint32_t r = 0;
    for (; r + SCORE_ROWS <= t->rows; r += SCORE_ROWS)
        score_rows(t, k, dtype, r, SCORE_ROWS);
    uint32_t left = t->rows - r;
#if LANES == 16
    if (left >= 4) {
        score_rows(t, k, dtype, r, 4);
        r += 4;
        left -= 4;
    }
    if (left == 3)
        score_rows(t, k, dtype, r, 3);
#endif
    if (left == 2)
        score_rows(t, k, dtype, r, 2);
    if (left == 1)
        score_rows(t, k, dtype, r, 1);
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
    bool asks = r == 0 && d == 0 && t->rows <= ASKING_ROWS;
    UNROLL
    for (int i = 0; i < rows; i++) {
        vf alpha = v_set1(state[(size_t)i * floats + QUIRE__STATE_ALPHA]);
        UNROLL
        for (int j = 0; j < vectors; j++)
            acc[i][j] =
                v_load(state + (size_t)i * floats + QUIRE__STATE_HEAD + d + j * LANES) * alpha;
    }
    uint64_t mask = t->mask[r];
    for (uint32_t p = 0; mask != 0; p++, mask >>= 1) {
        uint32_t gap = (uint32_t)__builtin_ctzll(mask);
        mask >>= gap;
        p += gap;
        vf v[2 * BLOCK_VECTORS];
        UNROLL
        for (int j = 0; j < vectors; j++)
            v[j] =
                element_load(dtype, element_at(dtype, values->data[p], d + (uint32_t)(j * LANES)));
        if (asks)
            ask_ahead(&t->v, &t->k_next, p, t->positions);
        UNROLL
        for (int i = 0; i < rows; i++) {
            vf weight = v_set1(s[i * QUIRE__TILE + (int)p]);
            UNROLL
            for (int j = 0; j < vectors; j++)
                acc[i][j] = v_fma(weight, v[j], acc[i][j]);
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
                   uint32_t r, int rows)
{
    uint32_t d = 0;
    int most = rows == 1 ? 2 * BLOCK_VECTORS : BLOCK_VECTORS;
    for (; d + (uint32_t)most * LANES <= t->dim_v; d += (uint32_t)most * LANES)
        value_block(t, values, dtype, (struct corner){r, d}, rows, most);
    for (; d < t->dim_v; d += LANES)
        value_block(t, values, dtype, (struct corner){r, d}, rows, 1);
}

FN void values_of(const struct quire__tile *t, const struct quire__rows *values, uint32_t dtype)
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
            value_rows(t, values, dtype, r, VALUE_ROWS);
#if LANES == 16
        else if (n == 4)
            value_rows(t, values, dtype, r, 4);
        else if (n == 3)
            value_rows(t, values, dtype, r, 3);
#endif
        else if (n == 2)
            value_rows(t, values, dtype, r, 2);
        else
            value_rows(t, values, dtype, r, 1);
        r += n;
    }
}

/* ---- a tile ---- */

KERNEL void attend_keys(const struct quire__tile *t)
{
    const uint8_t *at[QUIRE__TILE];
    struct quire__rows k = readable(t, &t->k, t->rows <= SCORE_ROWS, t->scratch, at);
    if (k.dtype == QUIRE_F32)
        scores_of(t, &k, QUIRE_F32);
    else if (k.dtype == QUIRE_F16)
        scores_of(t, &k, QUIRE_F16);
    else
        scores_of(t, &k, QUIRE_BF16);
}

KERNEL void attend_values(const struct quire__tile *t)
{
    const uint8_t *at[QUIRE__TILE];
    struct quire__rows v = readable(t, &t->v, t->rows <= VALUE_ROWS, t->scratch, at);
    if (v.dtype == QUIRE_F32)
        values_of(t, &v, QUIRE_F32);
    else if (v.dtype == QUIRE_F16)
        values_of(t, &v, QUIRE_F16);
    else
        values_of(t, &v, QUIRE_BF16);
}

KERNEL void attend(const struct quire__tile *t)
{
    attend_keys(t);
    softmax(t);
    attend_values(t);
}

#endif
