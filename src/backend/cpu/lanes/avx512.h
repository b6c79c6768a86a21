/* avx512.h - lanes of 16 for x86-64-v4 and, with MORE set to their names, what a higher level adds.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_AVX512_H
#define QUIRE_BACKEND_CPU_LANES_AVX512_H

#include <immintrin.h>

#define LANES 16
#ifndef MORE
#define MORE ""
#endif
#if defined(__clang__)
#define TARGET __attribute__((target("arch=x86-64-v4" MORE), min_vector_width(512)))
#else
#define TARGET __attribute__((target("arch=x86-64-v4" MORE ",prefer-vector-width=512")))
#endif

#include "backend/cpu/lanes/lanes.h"

/* Register tiles: sums that fit into 32 registers beside their operands. */
enum { DOT_TOKENS = 6, SCORE_ROWS = 6, VALUE_ROWS = 6, DIRECT_ROWS = 4, DIRECT_ROWS_WIDE = 4 };

#define LANES_16(first, step)                                                                      \
    (first), (first) + (step), (first) + 2 * (step), (first) + 3 * (step), (first) + 4 * (step),   \
        (first) + 5 * (step), (first) + 6 * (step), (first) + 7 * (step)

#define v_low_halves(a, b)                                                                         \
    __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define v_high_halves(a, b)                                                                        \
    __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define v_interleave_low(a, b)                                                                     \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define v_interleave_high(a, b)                                                                    \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define v_even(a, b) __builtin_shufflevector(a, b, LANES_16(0, 2), LANES_16(16, 2))
#define v_odd(a, b)  __builtin_shufflevector(a, b, LANES_16(1, 2), LANES_16(17, 2))

FN vf v_set1(float x)
{
    return (vf)_mm512_set1_ps(x);
}

FN vf v_fma(vf a, vf b, vf c)
{
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

/* a > b ? a : b */
FN vf v_max(vf a, vf b)
{
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}

/* a < b ? x : y */
FN vf v_if_less(vf a, vf b, vf x, vf y)
{
    return (vf)_mm512_mask_blend_ps(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ), (__m512)y,
                                    (__m512)x);
}

/* a is NaN ? a : y */
FN vf v_keep_nan(vf a, vf y)
{
    return (vf)_mm512_mask_blend_ps(_mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q),
                                    (__m512)y, (__m512)a);
}

/* Lane i of a where bit i is set, else of b. */
FN vf v_if_bits(uint32_t bits, vf a, vf b)
{
    return (vf)_mm512_mask_blend_ps((__mmask16)bits, (__m512)b, (__m512)a);
}

FN vf v_from_f16(const uint16_t *p)
{
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

FN void v_to_f16(uint16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_cvtps_ph((__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

FN vi v_from_u16(const uint16_t *p)
{
    return (vi)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

FN void v_to_u16(uint16_t *p, vi a)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16((__m512i)a));
}

FN vi v_from_u8(const uint8_t *p)
{
    return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

FN vi v_from_i8(const uint8_t *p)
{
    return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* The sums of a, b, c, d: lanes i and i + 8 first, then i and i + 4, i + 2, i + 1. */
FN v4 v_sum4(vf a, vf b, vf c, vf d)
{
    vf ab = v_low_halves(a, b) + v_high_halves(a, b);
    vf cd = v_low_halves(c, d) + v_high_halves(c, d);
    vf quarters =
        __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
        __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    v8 pairs = __builtin_shufflevector(quarters, quarters, 0, 1, 4, 5, 8, 9, 12, 13) +
               __builtin_shufflevector(quarters, quarters, 2, 3, 6, 7, 10, 11, 14, 15);
    return __builtin_shufflevector(pairs, pairs, 0, 2, 4, 6) +
           __builtin_shufflevector(pairs, pairs, 1, 3, 5, 7);
}

/* Entry i mod 16 of a table. */
FN vf v_look_up(vf table, vi index)
{
    return (vf)_mm512_permutexvar_ps((__m512i)index, (__m512)table);
}

#endif
