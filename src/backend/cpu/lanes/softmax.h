/* softmax.h - the softmax of one tile, and what splits add up to.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_SOFTMAX_H
#define QUIRE_BACKEND_CPU_LANES_SOFTMAX_H

enum { TILE_VECTORS = QUIRE__TILE / LANES };

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

/* Sums of values before the first ones. */
FN void clear_sums(const struct quire__tile *t, uint32_t r, uint32_t rows)
{
    size_t floats = QUIRE__STATE_HEAD + t->dim_v;
    for (uint32_t i = r; i < r + rows; i++)
        memset(t->state + i * floats + QUIRE__STATE_HEAD, 0, t->dim_v * sizeof(float));
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
    float old = tile->max[r];
    float tile_max = v_largest(most);
    float max = tile_max > old ? tile_max : old;
    vf base = v_set1(finite_max(max));
    UNROLL
    for (int j = 0; j < TILE_VECTORS; j++) {
        x[j] = v_exp_down(x[j] - base);
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
    tile->sum[r] = v_fma(v_set1(tile->sum[r]), v_set1(alpha), v_set1(v_sum(x[0])))[0];
    tile->max[r] = max;
}

FN void softmax(const struct quire__tile *tile)
{
    for (uint32_t r = 0; r < tile->rows; r++) {
        if (tile->mask[r] != 0)
            softmax_row(tile, r);
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
            x = v_load(total + QUIRE__STATE_HEAD + d) * a / v_set1(sum) + 0.0f;
        if (dim - d >= LANES)
            v_store(out + d, x);
        else
            v_store_part(out + d, x, dim - d);
    }
    if (lse != NULL)
        *lse = max + logf(sum);
}

#endif
