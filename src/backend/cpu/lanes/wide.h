/* wide.h - lanes of 16 for any processor with fused multiply-add.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Slow, but with the bits of avx512.h: for tests of the levels above it where it is missing. */
#ifndef QUIRE_BACKEND_CPU_LANES_WIDE_H
#define QUIRE_BACKEND_CPU_LANES_WIDE_H

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LANES 16
#if defined(__x86_64__)
#define TARGET __attribute__((target("arch=x86-64-v3")))
#else
#define TARGET
#endif

#include "backend/cpu/lanes/lanes.h"

#include "backend/cpu/lanes/sixteen.h"

FN vf v_set1(float x)
{
    return (vf){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

#if defined(__x86_64__)
FN vf v_fma(vf a, vf b, vf c)
{
    union {
        vf all;
        __m256 half[2];
    } x = {a}, y = {b}, z = {c};
    z.half[0] = _mm256_fmadd_ps(x.half[0], y.half[0], z.half[0]);
    z.half[1] = _mm256_fmadd_ps(x.half[1], y.half[1], z.half[1]);
    return z.all;
}
#else
FN vf v_fma(vf a, vf b, vf c)
{
    vf y;
    UNROLL
    for (int i = 0; i < LANES; i++)
        y[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return y;
}
#endif

#include "backend/cpu/lanes/portable.h"

/* a < b in some lane */
FN bool v_some_less(vf a, vf b)
{
    bool some = false;
    for (int i = 0; i < LANES; i++)
        some = some || a[i] < b[i];
    return some;
}

/* Entry i mod 16 of a table. */
FN vf v_look_up(vf table, vi index)
{
    vf y;
    for (int i = 0; i < LANES; i++)
        y[i] = table[index[i] & 15];
    return y;
}

/* Entry i mod 32 of a table. */
FN vw v_look_up_words(vw table, vw index)
{
    vw y;
    for (int i = 0; i < 2 * LANES; i++)
        y[i] = table[index[i] & 31];
    return y;
}

/* Entry i mod 64 of a table in two parts. */
FN vw v_look_up_words2(vw lower, vw upper, vw index)
{
    vw y;
    for (int i = 0; i < 2 * LANES; i++)
        y[i] = (index[i] & 32 ? upper : lower)[index[i] & 31];
    return y;
}

/* a - floor(a), rounded down; 0 of an infinity. */
FN vf v_fraction(vf a)
{
    vf y;
    for (int i = 0; i < LANES; i++) {
        float whole = floorf(a[i]), rest = a[i] - whole;
        if (a[i] - (rest + whole) < 0) /* what rounding to nearest added */
            rest = nextafterf(rest, 0);
        y[i] = isinf(a[i]) ? 0.0f : rest;
    }
    return y;
}

/* a 2^floor(b), rounded once, of a in 1 .. 2 and b of at most 0. */
FN vf v_times_power(vf a, vf b)
{
    vf y;
    for (int i = 0; i < LANES; i++)
        y[i] = isnan(b[i]) ? b[i] : ldexpf(a[i], b[i] < -200 ? -200 : (int)floorf(b[i]));
    return y;
}

FN vw v_words_from_i8(const uint8_t *p)
{
    vw y;
    for (int i = 0; i < 2 * LANES; i++)
        y[i] = (uint16_t)(int8_t)p[i];
    return y;
}

FN vw v_words_from_u8(const uint8_t *p)
{
    vw y;
    for (int i = 0; i < 2 * LANES; i++)
        y[i] = p[i];
    return y;
}

#endif
