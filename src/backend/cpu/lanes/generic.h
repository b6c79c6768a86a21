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

#include "backend/cpu/lanes/portable.h"

/* The sums of a, b, c, d: lanes i and i + 2 first, then i and i + 1. */
FN v4 v_sum4(vf a, vf b, vf c, vf d)
{
    vf ab = v_low_halves(a, b) + v_high_halves(a, b);
    vf cd = v_low_halves(c, d) + v_high_halves(c, d);
    return v_even(ab, cd) + v_odd(ab, cd);
}

#endif
