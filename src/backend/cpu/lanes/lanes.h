/* lanes.h - vectors of LANES floats, for the one source that every fast level compiles.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A level's header sets LANES and TARGET, includes this, and adds what needs its instructions:
 *
 *   v_set1  v_fma  v_max  v_if_less  v_if_bits  v_keep_nan  v_sum4
 *   v_from_f16  v_from_u16  v_from_u8  v_from_i8  v_to_f16  v_to_u16
 *   v_low_halves  v_high_halves  v_interleave_low  v_interleave_high  v_even  v_odd
 *   v_look_up  v_look_up_words  v_look_up_words2  v_words_from_u8      with lanes of 16
 *   v_fraction  v_times_power  v_some_less                             the same
 *   v_words_from_i8  v_dot2  v_pack2  v_dot_words  and the tiles       products.h
 *   DOT_TOKENS and the like           register tiles
 *
 * A new one is needed in avx2.h, avx512.h, neon.h and, for generic.h and wide.h, in portable.h;
 * what depends on the number of lanes alone stands in four.h and sixteen.h. Kernels name no
 * instruction but through these. Everything is inlined: functions of different levels never meet.
 */
#ifndef QUIRE_BACKEND_CPU_LANES_LANES_H
#define QUIRE_BACKEND_CPU_LANES_LANES_H

#include "base/base.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar.h"

#define FN     static inline __attribute__((always_inline, unused)) TARGET
#define KERNEL static TARGET

/* Every bound of an unrolled loop is a constant after inlining. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vw __attribute__((vector_size(4 * LANES)));
typedef float vf_any __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
typedef float v4 __attribute__((vector_size(16)));
typedef float v8 __attribute__((vector_size(32)));
typedef float v4_any __attribute__((vector_size(16), aligned(1), may_alias));

FN vf v_zero(void)
{
    return (vf){0};
}

FN vf v_load(const float *p)
{
    return *(const vf_any *)(const void *)p;
}

FN void v_store(float *p, vf a)
{
    *(vf_any *)(void *)p = a;
}

/* The first n < LANES elements; the other lanes are 0. */
FN vf v_load_part(const float *p, size_t n)
{
    float lanes[LANES] = {0};
    memcpy(lanes, p, n * sizeof(float));
    return v_load(lanes);
}

/* Elements i .. i + LANES of a row of n; from its end on they are 0. */
FN vf v_load_row(const float *row, size_t i, size_t n)
{
    if (i >= n)
        return v_zero();
    return n - i >= LANES ? v_load(row + i) : v_load_part(row + i, n - i);
}

FN void v_store_part(float *p, vf a, size_t n)
{
    float lanes[LANES];
    v_store(lanes, a);
    memcpy(p, lanes, n * sizeof(float));
}

FN vi v_spread(uint32_t x)
{
    return (vi){0} + (int32_t)x;
}

FN vf v_float(vi a)
{
    return __builtin_convertvector(a, vf);
}

#endif
