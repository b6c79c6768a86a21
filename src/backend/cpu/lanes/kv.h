/* kv.h - rows of q8 and q4 K/V, and their rotation, on lanes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The bytes and the bits are those of ref/kv_formats.h: every lane adds up in the same order, and
 * nothing is fused but what is exact. */
#ifndef QUIRE_BACKEND_CPU_LANES_KV_H
#define QUIRE_BACKEND_CPU_LANES_KV_H

typedef uint8_t v_bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

/* ---- loading ---- */

FN vf kv_load_8(const uint8_t *data, const uint8_t *scales, uint32_t d, uint32_t group)
{
    return v_float(v_from_i8(data + d)) * half_at(scales + d / group * 2);
}

FN vf q4_values(vi codes, const uint8_t *group)
{
    return v_fma(v_float(codes), v_set1(half_at(group)), v_set1(half_at(group + 2)));
}

FN vi q4_codes(const uint8_t *data, uint32_t d, uint32_t dim)
{
    struct q4_place place = q4_place(d, dim);
#if LANES == 16
    if (dim % 32 != 0 && d + 16 == dim) { /* the last 16 lie in 8 bytes */
        uint8_t both[16];
        memcpy(both, data + place.byte, 8);
        for (int i = 0; i < 8; i++)
            both[8 + i] = both[i] >> 4;
        return v_from_u8(both) & 15;
    }
#endif
    return v_from_u8(data + place.byte) >> (int)place.shift & 15;
}

/* As kv_load, of a row that is whole units of 32 elements. */
FN vf kv_load_whole(uint32_t dtype, const uint8_t *data, const uint8_t *scales, uint32_t d)
{
    if (dtype == QUIRE_Q8)
        return kv_load_8(data, scales, d, 32);
    if (dtype == QUIRE_Q4) {
        struct q4_place place = q4_place_in_unit(d, 16);
        vi codes = v_from_u8(data + place.byte) >> (int)place.shift & 15;
        return q4_values(codes, scales + d / Q4_GROUP * 4);
    }
    return element_load(dtype, element_at(dtype, data, d));
}

/* Elements d .. d + LANES of a K or V row, d a multiple of LANES; the lanes past dim are 0. dtype
 * is a constant wherever this is used, so that one branch remains. */
FN vf kv_load(uint32_t dtype, const uint8_t *data, const uint8_t *scales, uint32_t d, uint32_t dim)
{
    if (dtype == QUIRE_Q8)
        return kv_load_8(data, scales, d, q8_group(dim));
    if (dtype == QUIRE_Q4)
        return q4_values(q4_codes(data, d, dim), scales + d / Q4_GROUP * 4);
    if (dim - d >= LANES)
        return element_load(dtype, element_at(dtype, data, d));
    return element_load_part(dtype, element_at(dtype, data, d), dim - d);
}

KERNEL void load_q8(float *to, const uint8_t *data, const uint8_t *scales, uint32_t dim)
{
    for (uint32_t d = 0; d < dim; d += LANES)
        v_store(to + d, kv_load(QUIRE_Q8, data, scales, d, dim));
}

KERNEL void load_q4(float *to, const uint8_t *data, const uint8_t *scales, uint32_t dim)
{
    for (uint32_t d = 0; d < dim; d += LANES)
        v_store(to + d, kv_load(QUIRE_Q4, data, scales, d, dim));
}

/* ---- storing ---- */

FN vf v_min(vf a, vf b)
{
    return v_if_less(a, b, a, b);
}

/* NaN and -0 as 0, and at most +-KV_LARGEST. */
FN vf kv_clean(vf x)
{
    x = (vf)((vi)x & (vi)(x == x)) + 0.0f;
    return v_min(v_max(x, v_set1(-KV_LARGEST)), v_set1(KV_LARGEST));
}

/* The low bits of numbers that ROUND_MAGIC was added to. */
FN void kv_put_codes(uint8_t *to, vf rounded)
{
    *(v_bytes *)(void *)to = __builtin_convertvector((vu)rounded & 0xff, v_bytes);
}

KERNEL void store_q8(uint8_t *data, uint8_t *scales, const float *from, uint32_t dim)
{
    uint32_t n = q8_group(dim);
    for (uint32_t d = 0; d < dim; d += n) {
        vf largest = v_zero();
        for (uint32_t i = d; i < d + n; i += LANES)
            largest = v_max((vf)((vi)kv_clean(v_load(from + i)) & 0x7fffffff), largest);
        vf inverse = v_set1(q8_scale(scales + d / n * 2, v_largest(largest)));
        for (uint32_t i = d; i < d + n; i += LANES)
            kv_put_codes(data + i, kv_clean(v_load(from + i)) * inverse + ROUND_MAGIC);
    }
}

/* A candidate of the q4 search in each lane: as struct kv_q4_line of ref/kv_formats.h. */
struct q4_lines {
    vf scale, least, error;
    vf codes, squares, products;
};

/* The code of x, plus ROUND_MAGIC. */
FN vf q4_code(vf x)
{
    return v_min(v_max(x, v_zero()), v_set1(15.0f)) + ROUND_MAGIC;
}

FN void q4_count(struct q4_lines *lines, vf code, float y)
{
    lines->codes += code;
    lines->squares += code * code;
    lines->products += code * y;
}

FN vf v_round_half(vf x)
{
    uint16_t halves[LANES];
    v_to_f16(halves, x);
    return v_from_f16(halves);
}

FN vf q4_inverse(vf scale)
{
    return v_if_less(v_zero(), scale, 1.0f / scale, v_zero());
}

FN void q4_fit(struct q4_lines *lines, float low, float sum_y)
{
    vf det = 16.0f * lines->squares - lines->codes * lines->codes;
    vf slope = 16.0f * lines->products - sum_y * lines->codes;
    slope = slope / v_max(det, v_set1(1.0f));
    lines->least = v_round_half(kv_clean(low + (sum_y - slope * lines->codes) * 0.0625f));
    lines->scale = v_round_half(v_max(slope, v_zero()));
}

FN void q4_measure(struct q4_lines *lines, const float *x, const float *y)
{
    vf inverse = q4_inverse(lines->scale);
    lines->error = lines->codes = lines->squares = lines->products = v_zero();
    for (int i = 0; i < Q4_GROUP; i++) {
        vf code = q4_code((x[i] - lines->least) * inverse) - ROUND_MAGIC;
        vf off = x[i] - (lines->scale * code + lines->least);
        lines->error += off * off;
        q4_count(lines, code, y[i]);
    }
}

/* Keeps the better line in each lane. */
FN void q4_keep(struct q4_lines *best, const struct q4_lines *lines)
{
    best->scale = v_if_less(lines->error, best->error, lines->scale, best->scale);
    best->least = v_if_less(lines->error, best->error, lines->least, best->least);
    best->error = v_min(lines->error, best->error);
}

/* The best of LANES candidates from c on, each in its lane. */
FN struct q4_lines q4_try(const float *x, const float *y, const float *limits, int c)
{
    float low = limits[0], inverse = limits[1], sum_y = limits[2];
    struct q4_lines lines = {0}, best = {.error = v_set1(INFINITY)};
    vf trim = v_load(q4_trims + c), stretch = v_load(q4_stretches + c);
    for (int i = 0; i < Q4_GROUP; i++) {
        vf code = q4_code((y[i] * inverse - trim) * stretch) - ROUND_MAGIC;
        q4_count(&lines, code, y[i]);
    }
    for (int round = 0; round < Q4_ROUNDS; round++) {
        q4_fit(&lines, low, sum_y);
        q4_measure(&lines, x, y);
        q4_keep(&best, &lines);
    }
    return best;
}

struct q4_line {
    float scale, least;
};

FN struct q4_line q4_search(const float *x, float low, float step)
{
    float y[Q4_GROUP], limits[3] = {low, 1.0f / step, 0.0f}, error = INFINITY;
    struct q4_line line = {0.0f, 0.0f};
    for (int i = 0; i < Q4_GROUP; i++) {
        y[i] = x[i] - low;
        limits[2] += y[i];
    }
    for (int c = 0; c < Q4_CANDIDATES; c += LANES) {
        struct q4_lines best = q4_try(x, y, limits, c);
        for (int i = 0; i < LANES; i++) {
            if (best.error[i] < error) {
                error = best.error[i];
                line = (struct q4_line){best.scale[i], best.least[i]};
            }
        }
    }
    return line;
}

FN void store_q4_group(uint8_t *codes, uint8_t *scales, const float *from)
{
    float x[Q4_GROUP];
    vf lowest = v_set1(INFINITY), highest = v_set1(-INFINITY);
    for (int i = 0; i < Q4_GROUP; i += LANES) {
        vf clean = kv_clean(v_load(from + i));
        v_store(x + i, clean);
        lowest = v_min(clean, lowest);
        highest = v_max(clean, highest);
    }
    float low = -v_largest(-lowest), high = v_largest(highest);
    float step = (high - low) / 15.0f;
    struct q4_line line = {0.0f, f16_to_f32(f32_to_f16((low + high) * 0.5f))};
    if (step >= Q4_STEP_LEAST)
        line = q4_search(x, low, step);
    vf inverse = q4_inverse(v_set1(line.scale));
    for (int i = 0; i < Q4_GROUP; i += LANES)
        kv_put_codes(codes + i, q4_code((v_load(x + i) - line.least) * inverse));
    u16_put(scales, f32_to_f16(line.scale));
    u16_put(scales + 2, f32_to_f16(line.least));
}

KERNEL void store_q4(uint8_t *data, uint8_t *scales, const float *from, uint32_t dim)
{
    uint8_t codes[QUIRE__HEAD_DIM_MAX];
    for (uint32_t d = 0; d < dim; d += Q4_GROUP)
        store_q4_group(codes + d, scales + d / 4, from + d);
    q4_pack(data, codes, dim);
}

/* ---- rotation ---- */

/* One pass over n elements: sums of neighbours, then differences. */
FN void rotate_pass(float *to, const float *from, uint32_t n)
{
    if (n == LANES) {
        vf even = v_even(v_load(from), v_load(from)), odd = v_odd(v_load(from), v_load(from));
        v_store(to, v_low_halves(even + odd, even - odd));
        return;
    }
    for (uint32_t i = 0; i < n / 2; i += LANES) {
        vf a = v_load(from + 2 * i), b = v_load(from + 2 * i + LANES);
        vf even = v_even(a, b), odd = v_odd(a, b);
        v_store(to + i, even + odd);
        v_store(to + n / 2 + i, even - odd);
    }
}

/* Turns the n elements of x, a power of two and at least 16. */
FN void rotate_block(float *to, const float *x, uint32_t n)
{
    float ways[2][QUIRE__HEAD_DIM_MAX];
    uint32_t way = 0;
    const float *from = x;
    for (uint32_t pass = 1; pass < n; pass *= 2, way ^= 1) {
        rotate_pass(ways[way], from, n);
        from = ways[way];
    }
    vf scale = v_set1(1.0f / sqrtf((float)n));
    for (uint32_t i = 0; i < n; i += LANES)
        v_store(to + i, v_load(from + i) * scale);
}

KERNEL void rotate(float *to, const float *from, uint32_t dim)
{
    uint32_t n = rotation_block(dim);
    for (uint32_t d = 0; d < dim; d += n)
        rotate_block(to + d, from + d, n);
}

KERNEL void rotate_finite(float *to, const float *from, uint32_t dim)
{
    uint32_t n = rotation_block(dim);
    float clean[QUIRE__HEAD_DIM_MAX];
    for (uint32_t i = 0; i < dim; i += LANES)
        v_store(clean + i, kv_clean(v_load(from + i)));
    for (uint32_t d = 0; d < dim; d += n)
        rotate_block(to + d, clean + d, n);
}

#endif
