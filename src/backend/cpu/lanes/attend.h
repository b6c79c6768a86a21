/* attend.h - attention over one tile, and the merging of splits.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A lane is a position in scores and softmax, and a dimension in accumulate; every sum but the
 * softmax denominator runs in one lane, so the order is the same for any number of lanes. */
#ifndef QUIRE_BACKEND_CPU_LANES_ATTEND_H
#define QUIRE_BACKEND_CPU_LANES_ATTEND_H

enum {
    BLOCK_VECTORS = 4, /* vectors side by side in a register tile */
    TILE_VECTORS = QUIRE__TILE / LANES,
};

/* s[rows][vectors] at row r, position p; rows and vectors are constants. */
FN void score_block(const struct quire__tile *tile, uint32_t r, uint32_t p, int rows, int vectors)
{
    vf s[SCORE_ROWS][BLOCK_VECTORS];
    const float *q = tile->q + (size_t)r * tile->dim;
    const float *keys = tile->keys + p;
    uint32_t dim = tile->dim;
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++)
            s[i][j] = v_zero();
    }
    for (uint32_t d = 0; d < dim; d++) {
        vf k[BLOCK_VECTORS];
        UNROLL
        for (int j = 0; j < vectors; j++)
            k[j] = v_load(keys + (size_t)d * QUIRE__TILE + j * LANES);
        UNROLL
        for (int i = 0; i < rows; i++) {
            vf x = v_set1(q[(size_t)i * dim + d]);
            UNROLL
            for (int j = 0; j < vectors; j++)
                s[i][j] = v_fma(x, k[j], s[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++)
            v_store(tile->s + (size_t)(r + (uint32_t)i) * QUIRE__TILE + p + j * LANES, s[i][j]);
    }
}

FN void score_rows(const struct quire__tile *tile, uint32_t r, int rows)
{
    uint32_t p = 0;
    for (; p + (BLOCK_VECTORS - 1) * LANES < tile->positions; p += BLOCK_VECTORS * LANES)
        score_block(tile, r, p, rows, BLOCK_VECTORS);
    for (; p < tile->positions; p += LANES)
        score_block(tile, r, p, rows, 1);
}

KERNEL void scores(const struct quire__tile *tile)
{
    uint32_t r = 0;
    for (; r + SCORE_ROWS <= tile->rows; r += SCORE_ROWS)
        score_rows(tile, r, SCORE_ROWS);
    uint32_t left = tile->rows - r;
#if LANES == 16
    if (left >= 4) {
        score_rows(tile, r, 4);
        r += 4;
        left -= 4;
    }
    if (left == 3)
        score_rows(tile, r, 3);
#endif
    if (left == 2)
        score_rows(tile, r, 2);
    if (left == 1)
        score_rows(tile, r, 1);
}

FN vf softcap_lanes(vf x, float cap)
{
    vf y = x / v_set1(cap);
    vu sign = (vu)y & 0x80000000u;
    vf e = v_exp(-2.0f * (vf)((vu)y ^ sign));
    vf t = (1.0f - e) / (1.0f + e);
    return v_set1(cap) * (vf)((vu)t | sign);
}

/* What a maximum of nothing but -inf is replaced by, so that exp(-inf - max) is 0 and not NaN. */
FN float finite_max(float max)
{
    return max == -INFINITY ? 0.0f : max;
}

FN void softmax_row(const struct quire__tile *tile, uint32_t r)
{
    float *s = tile->s + (size_t)r * QUIRE__TILE;
    float *state = tile->state + (size_t)r * (QUIRE__STATE_HEAD + tile->dim_v);
    vf x[TILE_VECTORS], distance = v_zero();
    for (int i = 0; i < LANES; i++)
        distance[i] = (float)i;
    vf most = v_set1(-INFINITY);
    UNROLL
    for (int j = 0; j < TILE_VECTORS; j++) {
        uint32_t bits = (uint32_t)(tile->mask[r] >> (j * LANES)) & ((1u << LANES) - 1);
        x[j] = v_load(s + j * LANES);
        if (tile->softcap != 0.0f)
            x[j] = softcap_lanes(x[j], tile->softcap);
        if (tile->slope != NULL) {
            vf far = v_set1(tile->distance[r]) + (distance + (float)(j * LANES));
            x[j] = v_fma(v_set1(tile->slope[r]), far, x[j]);
        }
        x[j] = v_if_bits(bits, x[j], v_set1(-INFINITY));
        most = v_max(x[j], most);
    }
    float old = state[QUIRE__STATE_MAX];
    float tile_max = v_largest(most);
    float max = tile_max > old ? tile_max : old;
    vf base = v_set1(finite_max(max));
    UNROLL
    for (int j = 0; j < TILE_VECTORS; j++) {
        x[j] = v_exp(x[j] - base);
        v_store(s + j * LANES, x[j]);
    }
    UNROLL
    for (int half = TILE_VECTORS / 2; half > 0; half /= 2) {
        UNROLL
        for (int j = 0; j < half; j++)
            x[j] += x[j + half];
    }
    float alpha = exp_one(old - base[0]);
    state[QUIRE__STATE_ALPHA] = alpha;
    state[QUIRE__STATE_SUM] =
        v_fma(v_set1(state[QUIRE__STATE_SUM]), v_set1(alpha), v_set1(v_sum(x[0])))[0];
    state[QUIRE__STATE_MAX] = max;
}

KERNEL void softmax(const struct quire__tile *tile)
{
    for (uint32_t r = 0; r < tile->rows; r++) {
        if (tile->mask[r] != 0)
            softmax_row(tile, r);
    }
}

/* Sums of values of [rows][vectors] at row r, dimension d; the rows' masks are equal. */
FN void value_block(const struct quire__tile *tile, uint32_t r, uint32_t d, int rows, int vectors)
{
    vf acc[VALUE_ROWS][BLOCK_VECTORS];
    size_t floats = QUIRE__STATE_HEAD + tile->dim_v, dim_v = tile->dim_v;
    float *state = tile->state + r * floats;
    const float *s = tile->s + (size_t)r * QUIRE__TILE;
    UNROLL
    for (int i = 0; i < rows; i++) {
        vf alpha = v_set1(state[(size_t)i * floats + QUIRE__STATE_ALPHA]);
        UNROLL
        for (int j = 0; j < vectors; j++)
            acc[i][j] =
                v_load(state + (size_t)i * floats + QUIRE__STATE_HEAD + d + j * LANES) * alpha;
    }
    uint64_t mask = tile->mask[r];
    for (uint32_t p = 0; mask != 0; p++, mask >>= 1) {
        uint32_t gap = (uint32_t)__builtin_ctzll(mask);
        mask >>= gap;
        p += gap;
        const float *value = tile->values + p * dim_v + d;
        vf v[BLOCK_VECTORS];
        UNROLL
        for (int j = 0; j < vectors; j++)
            v[j] = v_load(value + j * LANES);
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

FN void value_rows(const struct quire__tile *tile, uint32_t r, int rows)
{
    uint32_t d = 0;
    for (; d + BLOCK_VECTORS * LANES <= tile->dim_v; d += BLOCK_VECTORS * LANES)
        value_block(tile, r, d, rows, BLOCK_VECTORS);
    for (; d < tile->dim_v; d += LANES)
        value_block(tile, r, d, rows, 1);
}

KERNEL void accumulate(const struct quire__tile *tile)
{
    uint32_t r = 0;
    while (r < tile->rows) {
        uint32_t n = 1;
        while (n < VALUE_ROWS && r + n < tile->rows && tile->mask[r + n] == tile->mask[r])
            n++;
#if LANES == 16
        n = n == 5 ? 4 : n;
#endif
        if (tile->mask[r] == 0)
            ; /* sees nothing of this tile */
        else if (n == VALUE_ROWS)
            value_rows(tile, r, VALUE_ROWS);
#if LANES == 16
        else if (n == 4)
            value_rows(tile, r, 4);
        else if (n == 3)
            value_rows(tile, r, 3);
#endif
        else if (n == 2)
            value_rows(tile, r, 2);
        else
            value_rows(tile, r, 1);
        r += n;
    }
}

KERNEL void merge(float *total, const float *state, uint32_t dim_v)
{
    float m = state[QUIRE__STATE_MAX];
    if (m == -INFINITY && state[QUIRE__STATE_SUM] == 0.0f)
        return; /* nothing was visible; a sum of NaN goes on to the output */
    float old = total[QUIRE__STATE_MAX];
    float max = m > old ? m : old;
    vf a = v_exp(v_set1(old - max)), b = v_exp(v_set1(m - max));
    vf sum = v_fma(b, v_set1(state[QUIRE__STATE_SUM]), a * v_set1(total[QUIRE__STATE_SUM]));
    total[QUIRE__STATE_MAX] = max;
    total[QUIRE__STATE_SUM] = sum[0];
    for (uint32_t d = QUIRE__STATE_HEAD; d < QUIRE__STATE_HEAD + dim_v; d += LANES)
        v_store(total + d, v_fma(b, v_load(state + d), a * v_load(total + d)));
}

KERNEL void finish(float *out, float *lse, const float *total, const float *sink, uint32_t dim)
{
    float max = total[QUIRE__STATE_MAX], sum = total[QUIRE__STATE_SUM], a = 1.0f;
    if (sink != NULL) {
        float old = max;
        max = *sink > old ? *sink : old;
        a = exp_one(old - finite_max(max));
        sum = v_fma(v_set1(sum), v_set1(a), v_exp(v_set1(*sink - finite_max(max))))[0];
    }
    uint32_t d = 0;
    for (; d < dim; d += LANES) {
        vf x = v_zero();
        if (sum != 0.0f)
            x = v_load(total + QUIRE__STATE_HEAD + d) * a / v_set1(sum);
        if (dim - d >= LANES)
            v_store(out + d, x);
        else
            v_store_part(out + d, x, dim - d);
    }
    if (lse != NULL)
        *lse = max + logf(sum);
}

#endif
