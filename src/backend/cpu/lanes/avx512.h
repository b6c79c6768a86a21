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

#include "backend/cpu/lanes/sixteen.h"

FN vf v_set1(float x)
{
    return (vf)_mm512_set1_ps(x);
}

/* p[0] in even lanes, p[1] in odd ones. */
FN vf v_set2(const float *p)
{
    double pair;
    memcpy(&pair, p, sizeof pair);
    return (vf)_mm512_set1_pd(pair);
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

/* a < b in some lane */
FN bool v_some_less(vf a, vf b)
{
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ) != 0;
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

/* Entry i mod 16 of a table. */
FN vf v_look_up(vf table, vi index)
{
    return (vf)_mm512_permutexvar_ps((__m512i)index, (__m512)table);
}

/* Entry i mod 32 of a table. */
FN vw v_look_up_words(vw table, vw index)
{
    return (vw)_mm512_permutexvar_epi16((__m512i)index, (__m512i)table);
}

/* Entry i mod 64 of a table in two parts. */
FN vw v_look_up_words2(vw lower, vw upper, vw index)
{
    return (vw)_mm512_permutex2var_epi16((__m512i)lower, (__m512i)index, (__m512i)upper);
}

/* a - floor(a), rounded down. */
FN vf v_fraction(vf a)
{
    return (vf)_mm512_reduce_ps((__m512)a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

/* a 2^floor(b), rounded once. */
FN vf v_times_power(vf a, vf b)
{
    return (vf)_mm512_scalef_ps((__m512)a, (__m512)b);
}

FN vw v_words_from_i8(const uint8_t *p)
{
    return (vw)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

FN vw v_words_from_u8(const uint8_t *p)
{
    return (vw)_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

#endif
