/* avx2.h - lanes of 8 for x86-64-v3.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_AVX2_H
#define QUIRE_BACKEND_CPU_LANES_AVX2_H

#include <immintrin.h>

#define LANES  8
#define TARGET __attribute__((target("arch=x86-64-v3")))

#include "backend/cpu/lanes/lanes.h"

/* Register tiles: sums that fit into 16 registers beside their operands. */
enum { PRODUCT_TOKENS = 3, PRODUCT_VECTORS = 4, SCORE_ROWS = 2, VALUE_ROWS = 2 };

#define v_low_halves(a, b)      __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define v_high_halves(a, b)     __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#define v_interleave_low(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define v_interleave_high(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define v_even(a, b)            __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define v_odd(a, b)             __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)

FN vf v_set1(float x)
{
    return (vf)_mm256_set1_ps(x);
}

/* p[0] in even lanes, p[1] in odd ones. */
FN vf v_set2(const float *p)
{
    double pair;
    memcpy(&pair, p, sizeof pair);
    return (vf)_mm256_set1_pd(pair);
}

FN vf v_fma(vf a, vf b, vf c)
{
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

/* a > b ? a : b */
FN vf v_max(vf a, vf b)
{
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}

/* a < b ? x : y */
FN vf v_if_less(vf a, vf b, vf x, vf y)
{
    return (vf)_mm256_blendv_ps((__m256)y, (__m256)x,
                                _mm256_cmp_ps((__m256)a, (__m256)b, _CMP_LT_OQ));
}

/* a is NaN ? a : y */
FN vf v_keep_nan(vf a, vf y)
{
    return (vf)_mm256_blendv_ps((__m256)y, (__m256)a,
                                _mm256_cmp_ps((__m256)a, (__m256)a, _CMP_UNORD_Q));
}

/* Lane i of a where bit i is set, else of b. */
FN vf v_if_bits(uint32_t bits, vf a, vf b)
{
    __m256i lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i set = _mm256_and_si256(_mm256_set1_epi32((int)bits), lanes);
    return (vf)_mm256_blendv_ps((__m256)b, (__m256)a,
                                _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lanes)));
}

FN vf v_from_f16(const uint16_t *p)
{
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

FN void v_to_f16(uint16_t *p, vf a)
{
    _mm_storeu_si128((__m128i *)(void *)p,
                     _mm256_cvtps_ph((__m256)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

FN vi v_from_u16(const uint16_t *p)
{
    return (vi)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

FN void v_to_u16(uint16_t *p, vi a)
{
    __m128i low = _mm256_castsi256_si128((__m256i)a);
    __m128i high = _mm256_extracti128_si256((__m256i)a, 1);
    _mm_storeu_si128((__m128i *)(void *)p, _mm_packus_epi32(low, high));
}

FN vi v_from_u8(const uint8_t *p)
{
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

FN vi v_from_i8(const uint8_t *p)
{
    return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

/* The sums of a, b, c, d: lanes i and i + 4 first, then i and i + 2, i + 1. */
FN v4 v_sum4(vf a, vf b, vf c, vf d)
{
    vf ab = v_low_halves(a, b) + v_high_halves(a, b);
    vf cd = v_low_halves(c, d) + v_high_halves(c, d);
    v8 pairs = __builtin_shufflevector(ab, cd, 0, 1, 4, 5, 8, 9, 12, 13) +
               __builtin_shufflevector(ab, cd, 2, 3, 6, 7, 10, 11, 14, 15);
    return __builtin_shufflevector(pairs, pairs, 0, 2, 4, 6) +
           __builtin_shufflevector(pairs, pairs, 1, 3, 5, 7);
}

#endif
