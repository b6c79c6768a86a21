/* generic.h - lanes of 4 for any processor, by the compiler's vector extensions alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_GENERIC_H
#define QUIRE_BACKEND_CPU_LANES_GENERIC_H

#define LANES 4
#define TARGET

#include "backend/cpu/lanes/lanes.h"

/* Register tiles: sums that fit into 16 registers beside their operands. */
enum { DOT_TOKENS = 2, SCORE_ROWS = 2, VALUE_ROWS = 2, DIRECT_ROWS = 4, DIRECT_ROWS_WIDE = 2 };

#define v_low_halves(a, b)      __builtin_shufflevector(a, b, 0, 1, 4, 5)
#define v_high_halves(a, b)     __builtin_shufflevector(a, b, 2, 3, 6, 7)
#define v_interleave_low(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define v_interleave_high(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define v_even(a, b)            __builtin_shufflevector(a, b, 0, 2, 4, 6)
#define v_odd(a, b)             __builtin_shufflevector(a, b, 1, 3, 5, 7)

FN vf v_set1(float x)
{
    return (vf){x, x, x, x};
}

/* Two roundings: this level has no fused multiply-add. */
FN vf v_fma(vf a, vf b, vf c)
{
    return a * b + c;
}

FN vf choose(vi mask, vf x, vf y)
{
    return (vf)((mask & (vi)x) | (~mask & (vi)y));
}

/* a > b ? a : b */
FN vf v_max(vf a, vf b)
{
    return choose((vi)(a > b), a, b);
}

/* a < b ? x : y */
FN vf v_if_less(vf a, vf b, vf x, vf y)
{
    return choose((vi)(a < b), x, y);
}

/* a is NaN ? a : y */
FN vf v_keep_nan(vf a, vf y)
{
    return choose((vi)(a != a), a, y);
}

/* Lane i of a where bit i is set, else of b. */
FN vf v_if_bits(uint32_t bits, vf a, vf b)
{
    vi lanes = {1, 2, 4, 8};
    int32_t n = (int32_t)bits;
    return choose((vi)(((vi){n, n, n, n} & lanes) == lanes), a, b);
}

typedef uint16_t v4u16 __attribute__((vector_size(8), aligned(1), may_alias));
typedef uint8_t v4u8 __attribute__((vector_size(4), aligned(1), may_alias));
typedef int8_t v4i8 __attribute__((vector_size(4), aligned(1), may_alias));

FN vi v_from_u16(const uint16_t *p)
{
    return __builtin_convertvector(*(const v4u16 *)(const void *)p, vi);
}

FN void v_to_u16(uint16_t *p, vi a)
{
    *(v4u16 *)(void *)p = __builtin_convertvector(a, v4u16);
}

FN vi v_from_u8(const uint8_t *p)
{
    return __builtin_convertvector(*(const v4u8 *)(const void *)p, vi);
}

FN vi v_from_i8(const uint8_t *p)
{
    return __builtin_convertvector(*(const v4i8 *)(const void *)p, vi);
}

/* The steps of f16_to_f32 in scalar.h, lane by lane. */
FN vf v_from_f16(const uint16_t *p)
{
    vi h = v_from_u16(p);
    vi sign = (vi)((vu)(h & 0x8000) << 16), magnitude = (h & 0x7fff) << 13;
    vi finite = (vi)((vf)magnitude * 0x1p112f);
    vi nan = (vi)(magnitude > 0x0f800000) & 0x400000;
    vi special = (vi)(magnitude >= 0x0f800000);
    return (vf)(sign | (special & (magnitude | 0x7f800000 | nan)) | (~special & finite));
}

/* The steps of f32_to_f16 in scalar.h, lane by lane. */
FN void v_to_f16(uint16_t *p, vf x)
{
    vi bits = (vi)x, a = bits & 0x7fffffff;
    vi normal = (a + 0xfff + (a >> 13 & 1) - 0x38000000) >> 13;
    vi small = (vi)((vf)a + 0.5f) - 0x3f000000;
    vi is_normal = (vi)(a >= 0x38800000);
    vi h = (is_normal & normal) | (~is_normal & small);
    vi overflow = (vi)(a >= 0x477ff000), nan = (vi)(a > 0x7f800000);
    h = (overflow & 0x7c00) | (~overflow & h);
    h = (nan & (0x7e00 | (a >> 13 & 0x3ff))) | (~nan & h);
    v_to_u16(p, h | (bits >> 16 & 0x8000));
}

/* The sums of a, b, c, d: lanes i and i + 2 first, then i and i + 1. */
FN v4 v_sum4(vf a, vf b, vf c, vf d)
{
    vf ab = v_low_halves(a, b) + v_high_halves(a, b);
    vf cd = v_low_halves(c, d) + v_high_halves(c, d);
    return v_even(ab, cd) + v_odd(ab, cd);
}

#endif
