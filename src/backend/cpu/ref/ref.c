/* ref.c - the kernels in plain C: the specification that every faster level is held against.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include "backend/cpu/kernels.h"
#include "backend/cpu/ref/kv_formats.h"
#include "backend/cpu/scalar.h"

#include <math.h>
#include <string.h>

/* ---- conversions ---- */

static void load_f16(float *to, const uint16_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = f16_to_f32(from[i]);
}

static void load_bf16(float *to, const uint16_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = bf16_to_f32(from[i]);
}

static void store_f16(uint16_t *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = f32_to_f16(from[i]);
}

static void store_bf16(uint16_t *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = f32_to_bf16(from[i]);
}

static void load_q8(float *to, const uint8_t *data, const uint8_t *scales, uint32_t dim)
{
    for (uint32_t i = 0; i < dim; i++)
        to[i] = kv_load_q8(data, scales, i, dim);
}

static void load_q4(float *to, const uint8_t *data, const uint8_t *scales, uint32_t dim)
{
    for (uint32_t i = 0; i < dim; i++)
        to[i] = kv_load_q4(data, scales, i, dim);
}

static void store_q8(uint8_t *data, uint8_t *scales, const float *from, uint32_t dim)
{
    kv_store_q8(data, scales, from, dim);
}

static void store_q4(uint8_t *data, uint8_t *scales, const float *from, uint32_t dim)
{
    kv_store_q4(data, scales, from, dim);
}

static void rotate(float *to, const float *from, uint32_t dim)
{
    kv_rotate(to, from, dim);
}

static void rotate_finite(float *to, const float *from, uint32_t dim)
{
    for (uint32_t i = 0; i < dim; i++)
        to[i] = kv_clean(from[i]);
    kv_rotate(to, to, dim);
}

/* ---- attention ---- */

static void queries(void *to, const float *const *rows, uint32_t n, uint32_t dim, float scale)
{
    for (uint32_t r = 0; r < n; r++) {
        for (uint32_t d = 0; d < dim; d++)
            ((float *)to)[(size_t)r * dim + d] = rows[r][d] * scale;
    }
}

static float element(const struct quire__rows *rows, uint32_t p, uint32_t d)
{
    const void *row = rows->data[p];
    if (rows->dtype == QUIRE_Q8)
        return kv_load_q8(rows->data[p], rows->scales[p], d, rows->dim);
    if (rows->dtype == QUIRE_Q4)
        return kv_load_q4(rows->data[p], rows->scales[p], d, rows->dim);
    if (rows->dtype == QUIRE_F32)
        return ((const float *)row)[d];
    uint16_t half = ((const uint16_t *)row)[d];
    return rows->dtype == QUIRE_F16 ? f16_to_f32(half) : bf16_to_f32(half);
}

static void scores(const struct quire__tile *tile)
{
    for (uint32_t r = 0; r < tile->rows; r++) {
        const float *q = (const float *)tile->q + (size_t)r * tile->k.dim;
        for (uint32_t p = 0; p < tile->positions; p++) {
            float s = 0.0f;
            for (uint32_t d = 0; d < tile->k.dim; d++)
                s += q[d] * element(&tile->k, p, d);
            tile->s[(size_t)r * QUIRE__TILE + p] = s;
        }
    }
}

static float exp_ref(float x)
{
    if (x != x)
        return x;
    if (x < EXP_LOW)
        return 0.0f;
    if (x > EXP_HIGH)
        return INFINITY;
    float t = x * EXP_LOG2E + EXP_MAGIC;
    float n = t - EXP_MAGIC;
    float r = x - n * EXP_LN2_HI - n * EXP_LN2_LO;
    float q = (((EXP_C6 * r + EXP_C5) * r + EXP_C4) * r + EXP_C3) * r + EXP_C2;
    float y = q * r * r + r + 1.0f;
    return f32_from(f32_bits(y) + (f32_bits(t) << 23));
}

/* tanh(y) = (1 - e) / (1 + e) with e = exp(-2 |y|), and the sign of y. */
static float softcap_ref(float x, float cap)
{
    float y = x / cap;
    float e = exp_ref(-2.0f * fabsf(y));
    return cap * copysignf((1.0f - e) / (1.0f + e), y);
}

/* What a maximum of nothing but -inf is replaced by, so that exp(-inf - max) is 0 and not NaN. */
static float finite_max(float max)
{
    return max == -INFINITY ? 0.0f : max;
}

/* Sums 64 numbers as a tree: i and i + 32, then i and i + 16, and so on. */
static float sum_tile(const float *p)
{
    float sums[QUIRE__TILE / 2];
    for (int i = 0; i < QUIRE__TILE / 2; i++)
        sums[i] = p[i] + p[i + QUIRE__TILE / 2];
    for (int half = QUIRE__TILE / 4; half > 0; half /= 2) {
        for (int i = 0; i < half; i++)
            sums[i] += sums[i + half];
    }
    return sums[0];
}

static void softmax_row(const struct quire__tile *tile, uint32_t r)
{
    float *s = tile->s + (size_t)r * QUIRE__TILE;
    float *state = tile->state + (size_t)r * (QUIRE__STATE_HEAD + tile->dim_v);
    float max = tile->max[r];
    for (uint32_t p = 0; p < QUIRE__TILE; p++) {
        if ((tile->mask[r] >> p & 1) == 0)
            continue;
        if (tile->softcap != 0.0f)
            s[p] = softcap_ref(s[p], tile->softcap);
        if (tile->slope != NULL)
            s[p] = tile->slope[r] * (tile->distance[r] + (float)p) + s[p];
        max = s[p] > max ? s[p] : max;
    }
    float base = finite_max(max);
    for (uint32_t p = 0; p < QUIRE__TILE; p++)
        s[p] = (tile->mask[r] >> p & 1) != 0 ? exp_ref(s[p] - base) : 0.0f;
    float alpha = exp_ref(tile->max[r] - base);
    state[QUIRE__STATE_ALPHA] = alpha;
    tile->sum[r] = tile->sum[r] * alpha + sum_tile(s);
    tile->max[r] = max;
}

static void softmax(const struct quire__tile *tile)
{
    for (uint32_t r = 0; r < tile->rows; r++) {
        if (tile->mask[r] != 0)
            softmax_row(tile, r);
    }
}

static void accumulate(const struct quire__tile *tile)
{
    for (uint32_t r = 0; r < tile->rows; r++) {
        float *state = tile->state + (size_t)r * (QUIRE__STATE_HEAD + tile->dim_v);
        float *sums = state + QUIRE__STATE_HEAD;
        if (tile->fresh)
            memset(sums, 0, tile->dim_v * sizeof *sums);
        if (tile->mask[r] == 0)
            continue;
        for (uint32_t d = 0; d < tile->dim_v; d++)
            sums[d] *= state[QUIRE__STATE_ALPHA];
        for (uint32_t p = 0; p < QUIRE__TILE; p++) {
            if ((tile->mask[r] >> p & 1) == 0)
                continue;
            float weight = tile->s[(size_t)r * QUIRE__TILE + p];
            for (uint32_t d = 0; d < tile->v.dim; d++)
                sums[d] = weight * element(&tile->v, p, d) + sums[d];
        }
    }
}

static void attend(const struct quire__tile *tiles, uint32_t n)
{
    for (const struct quire__tile *tile = tiles; tile < tiles + n; tile++) {
        scores(tile);
        softmax(tile);
        accumulate(tile);
    }
}

static void merge(float *total, const float *state, uint32_t dim_v)
{
    float m = state[QUIRE__STATE_MAX];
    if (m == -INFINITY && state[QUIRE__STATE_SUM] == 0.0f)
        return; /* nothing was visible; a sum of NaN goes on to the output */
    float old = total[QUIRE__STATE_MAX];
    float max = m > old ? m : old;
    float a = exp_ref(old - max), b = exp_ref(m - max);
    total[QUIRE__STATE_MAX] = max;
    total[QUIRE__STATE_SUM] = b * state[QUIRE__STATE_SUM] + a * total[QUIRE__STATE_SUM];
    for (uint32_t d = QUIRE__STATE_HEAD; d < QUIRE__STATE_HEAD + dim_v; d++)
        total[d] = b * state[d] + a * total[d];
}

static void finish(float *out, float *lse, const float *total, const float *sink, uint32_t dim)
{
    float max = total[QUIRE__STATE_MAX], sum = total[QUIRE__STATE_SUM], a = 1.0f;
    if (sink != NULL) {
        float old = max;
        max = *sink > old ? *sink : old;
        a = exp_ref(old - finite_max(max));
        sum = sum * a + exp_ref(*sink - finite_max(max));
    }
    for (uint32_t d = 0; d < dim; d++)
        out[d] = sum != 0.0f ? total[QUIRE__STATE_HEAD + d] * a / sum + 0.0f : 0.0f;
    if (lse != NULL)
        *lse = max + logf(sum);
}

/* ---- nn ---- */

static float dot(const float *w, const float *x, size_t n)
{
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++)
        sum += w[i] * x[i];
    return sum;
}

static void prepare(const struct quire__inputs *rows)
{
    size_t padded = quire__round_up(rows->columns, QUIRE__BLOCK_COLUMNS);
    for (uint32_t i = 0; i < rows->rows; i++) {
        float *to = (float *)(void *)((uint8_t *)rows->to + i * rows->to_stride);
        memcpy(to, rows->x + i * rows->x_stride, rows->columns * sizeof(float));
        memset(to + rows->columns, 0, (padded - rows->columns) * sizeof(float));
    }
}

static void decode_blocks(float *to, const struct quire__panels *panels, uint32_t panel,
                          uint32_t block, uint32_t blocks)
{
    for (uint32_t b = block; b < block + blocks; b++, to += QUIRE__BLOCK_WEIGHTS) {
        struct quire__block from = quire__block_at(panels, panel, b);
        quire__block_decode(&from, panels->type, to);
    }
}

#define DECODE(name, codes, scaling)                                                               \
    static void decode_##name(void *to, const struct quire__panels *panels, uint32_t panel,        \
                              uint32_t block, uint32_t blocks)                                     \
    {                                                                                              \
        decode_blocks(to, panels, panel, block, blocks);                                           \
    }
QUIRE__FORMAT_LIST(DECODE)
#undef DECODE

/* Adds the products of one block of a panel to y. */
static void add_block(const struct quire__linear *t, const float *w, uint32_t panel, uint32_t block)
{
    uint64_t first = (uint64_t)panel * QUIRE__PANEL_ROWS, left = t->panels->rows - first;
    for (uint32_t i = 0; i < t->tokens; i++) {
        const void *row = (const uint8_t *)t->x + i * t->x_stride;
        const float *x = (const float *)row + block * QUIRE__BLOCK_COLUMNS;
        for (uint32_t r = 0; r < QUIRE__PANEL_ROWS && r < left; r++) {
            float *y = t->y + i * t->y_stride + first + r;
            for (uint32_t k = 0; k < QUIRE__BLOCK_COLUMNS; k++)
                *y += w[k / 2 * QUIRE__STEP_WEIGHTS + 2 * r + k % 2] * x[k];
        }
    }
}

static void linear(const struct quire__linear *t)
{
    for (uint32_t p = t->first_panel; p < t->first_panel + t->num_panels; p++) {
        uint64_t first = (uint64_t)p * QUIRE__PANEL_ROWS;
        for (uint32_t i = 0; i < t->tokens; i++) {
            for (uint64_t r = first; r < first + QUIRE__PANEL_ROWS && r < t->panels->rows; r++)
                t->y[i * t->y_stride + r] = 0.0f;
        }
        for (uint32_t b = 0; b < t->panels->blocks; b++) {
            t->type->decode(t->scratch, t->panels, p, b, 1);
            add_block(t, t->scratch, p, b);
        }
    }
}

static void norm(float *y, const float *x, const float *weight, size_t n, float epsilon)
{
    float scale = 1.0f / sqrtf(dot(x, x, n) / (float)n + epsilon);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

static void turn(float *a, float *b, const float *table)
{
    float x = *a, y = *b;
    *a = x * table[0] - y * table[1];
    *b = x * table[1] + y * table[0];
}

static void rotary_pairs(float *x, const float *table, size_t n)
{
    for (size_t i = 0; i < n / 2; i++)
        turn(&x[2 * i], &x[2 * i + 1], &table[2 * i]);
}

static void rotary_halves(float *x, const float *table, size_t n)
{
    for (size_t i = 0; i < n / 2; i++)
        turn(&x[i], &x[i + n / 2], &table[2 * i]);
}

static void silu(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = gate[i] / (1.0f + exp_ref(-gate[i])) * up[i];
}

static void gelu(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = gate[i];
        float u = x * (GELU_B * (x * x) + GELU_A);
        y[i] = x / (1.0f + exp_ref(u)) * up[i];
    }
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void scale(float *x, float factor, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

static void argmax(uint32_t *index, const float *x, size_t n)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    size_t at = 0;
    while (at < n && x[at] != max)
        at++;
    *index = at < n ? (uint32_t)at : 0;
}

/* ---- what the machine can do at most ---- */

static void read_all(uint64_t *all, const uint8_t *memory, size_t bytes)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes; i += sizeof sum) {
        uint64_t word;
        memcpy(&word, memory + i, sizeof word);
        sum ^= word;
    }
    *all = sum;
}

static void peak_f32(float *end, size_t rounds)
{
    enum { CHAINS = 12 };
    float x[CHAINS], sum = 0;
    for (size_t i = 0; i < CHAINS; i++)
        x[i] = 1;
    for (size_t step = 0; step < rounds * (QUIRE__PEAK_ROUND / CHAINS); step++) {
        for (size_t i = 0; i < CHAINS; i++)
            x[i] = x[i] * 0.5f + 1;
    }
    for (size_t i = 0; i < CHAINS; i++)
        sum += x[i];
    *end = sum / CHAINS;
}

static void peak_bf16(float *end, size_t rounds)
{
    peak_f32(end, rounds);
}

static void peak_codes(float *end, size_t rounds)
{
    peak_f32(end, rounds);
}

#define LONE(name) NULL

const struct quire__kernels quire__kernels_ref = {
    .level = "ref",
    .arithmetic = "cpu/ref",
    .x_bytes = sizeof(float),
    QUIRE__KERNEL_ENTRIES,
};
