/* kv_formats.h - the rows of q8 and q4 K/V, and their rotation, in plain C: the specification.
 * SPDX-License-Identifier: Apache-2.0
 *
 * docs/formats/kv.md has the formulas and says why. Every level stores these bytes and loads these
 * values: nothing here may be fused or summed in another order. */
#ifndef QUIRE_BACKEND_CPU_REF_KV_FORMATS_H
#define QUIRE_BACKEND_CPU_REF_KV_FORMATS_H

#include <math.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar.h"

/* NaN and -0 as 0, and at most +-KV_LARGEST. */
static inline float kv_clean(float x)
{
    x = x != x ? 0.0f : x + 0.0f;
    x = x > -KV_LARGEST ? x : -KV_LARGEST;
    return x < KV_LARGEST ? x : KV_LARGEST;
}

/* The nearest integer, ties to even; |x| < 2^22. */
static inline float kv_round(float x)
{
    return x + ROUND_MAGIC - ROUND_MAGIC;
}

/* ---- q8 ---- */

static inline float kv_load_q8(const uint8_t *data, const uint8_t *scales, uint32_t i, uint32_t dim)
{
    float scale = f16_to_f32(u16_at(scales + i / q8_group(dim) * 2));
    int8_t code = (int8_t)data[i];
    return scale * (float)code;
}

static inline void kv_store_q8_group(uint8_t *data, uint8_t *scale, const float *from, uint32_t n)
{
    float largest = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        float size = fabsf(kv_clean(from[i]));
        largest = size > largest ? size : largest;
    }
    float inverse = q8_scale(scale, largest);
    for (uint32_t i = 0; i < n; i++)
        data[i] = (uint8_t)(int8_t)kv_round(kv_clean(from[i]) * inverse);
}

static inline void kv_store_q8(uint8_t *data, uint8_t *scales, const float *from, uint32_t dim)
{
    uint32_t n = q8_group(dim);
    for (uint32_t d = 0; d < dim; d += n)
        kv_store_q8_group(data + d, scales + d / n * 2, from + d, n);
}

/* ---- q4 ---- */

static inline float kv_load_q4(const uint8_t *data, const uint8_t *scales, uint32_t i, uint32_t dim)
{
    struct q4_place place = q4_place(i, dim);
    const uint8_t *group = scales + i / Q4_GROUP * 4;
    float code = (float)(data[place.byte] >> place.shift & 15);
    return f16_to_f32(u16_at(group)) * code + f16_to_f32(u16_at(group + 2));
}

/* One candidate: the line that fits its codes, and sums over the codes. */
struct kv_q4_line {
    float scale, least, error;
    float codes, squares, products; /* sum code, code^2, code y */
};

static inline float kv_q4_code(float x)
{
    x = x > 0.0f ? x : 0.0f;
    x = x < 15.0f ? x : 15.0f;
    return kv_round(x);
}

static inline void kv_q4_count(struct kv_q4_line *line, float code, float y)
{
    line->codes += code;
    line->squares += code * code;
    line->products += code * y;
}

/* The least-squares line through the codes, as halves. */
static inline void kv_q4_fit(struct kv_q4_line *line, float low, float sum_y)
{
    float det = 16.0f * line->squares - line->codes * line->codes;
    float slope = 16.0f * line->products - sum_y * line->codes;
    slope = slope / (det > 1.0f ? det : 1.0f);
    line->least = f16_to_f32(f32_to_f16(kv_clean(low + (sum_y - slope * line->codes) * 0.0625f)));
    line->scale = f16_to_f32(f32_to_f16(slope > 0.0f ? slope : 0.0f));
}

/* The codes nearest to a line: their sums and their error. */
static inline void kv_q4_measure(struct kv_q4_line *line, const float *x, const float *y)
{
    float inverse = line->scale > 0.0f ? 1.0f / line->scale : 0.0f;
    *line = (struct kv_q4_line){.scale = line->scale, .least = line->least};
    for (int i = 0; i < Q4_GROUP; i++) {
        float code = kv_q4_code((x[i] - line->least) * inverse);
        float off = x[i] - (line->scale * code + line->least);
        line->error += off * off;
        kv_q4_count(line, code, y[i]);
    }
}

static inline struct kv_q4_line kv_q4_search(const float *x, float low, float step)
{
    struct kv_q4_line best = {.error = INFINITY};
    float y[Q4_GROUP], sum_y = 0.0f, inverse = 1.0f / step;
    for (int i = 0; i < Q4_GROUP; i++) {
        y[i] = x[i] - low;
        sum_y += y[i];
    }
    for (int c = 0; c < Q4_CANDIDATES; c++) {
        struct kv_q4_line line = {0};
        for (int i = 0; i < Q4_GROUP; i++)
            kv_q4_count(&line, kv_q4_code((y[i] * inverse - q4_trims[c]) * q4_stretches[c]), y[i]);
        for (int round = 0; round < Q4_ROUNDS; round++) {
            kv_q4_fit(&line, low, sum_y);
            kv_q4_measure(&line, x, y);
            best = line.error < best.error ? line : best;
        }
    }
    return best;
}

static inline void kv_store_q4_group(uint8_t *codes, uint8_t *scales, const float *from)
{
    float x[Q4_GROUP], low = kv_clean(from[0]), high = low;
    for (int i = 0; i < Q4_GROUP; i++) {
        x[i] = kv_clean(from[i]);
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    float step = (high - low) / 15.0f;
    struct kv_q4_line line = {.least = f16_to_f32(f32_to_f16((low + high) * 0.5f))};
    if (step >= Q4_STEP_LEAST)
        line = kv_q4_search(x, low, step);
    float inverse = line.scale > 0.0f ? 1.0f / line.scale : 0.0f;
    for (int i = 0; i < Q4_GROUP; i++)
        codes[i] = (uint8_t)kv_q4_code((x[i] - line.least) * inverse);
    u16_put(scales, f32_to_f16(line.scale));
    u16_put(scales + 2, f32_to_f16(line.least));
}

static inline void kv_store_q4(uint8_t *data, uint8_t *scales, const float *from, uint32_t dim)
{
    uint8_t codes[QUIRE__HEAD_DIM_MAX];
    for (uint32_t d = 0; d < dim; d += Q4_GROUP)
        kv_store_q4_group(codes + d, scales + d / 4, from + d);
    q4_pack(data, codes, dim);
}

/* ---- rotation ---- */

/* Turns n elements, a power of two and at least 2. to may be from. */
static inline void kv_rotate_block(float *to, const float *from, uint32_t n)
{
    float x[QUIRE__HEAD_DIM_MAX], t[QUIRE__HEAD_DIM_MAX] = {0};
    memcpy(x, from, n * sizeof *x);
    for (uint32_t pass = 1; pass < n; pass *= 2) {
        for (uint32_t i = 0; i < n / 2; i++) {
            t[i] = x[2 * i] + x[2 * i + 1];
            t[i + n / 2] = x[2 * i] - x[2 * i + 1];
        }
        memcpy(x, t, n * sizeof *x);
    }
    float scale = 1.0f / sqrtf((float)n);
    for (uint32_t i = 0; i < n; i++)
        to[i] = x[i] * scale;
}

static inline void kv_rotate(float *to, const float *from, uint32_t dim)
{
    uint32_t n = rotation_block(dim);
    for (uint32_t d = 0; d < dim; d += n)
        kv_rotate_block(to + d, from + d, n);
}

#endif
