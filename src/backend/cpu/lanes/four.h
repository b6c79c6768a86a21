/* four.h - what lanes of 4 are like whatever the processor: shuffles and sums.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_FOUR_H
#define QUIRE_BACKEND_CPU_LANES_FOUR_H

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

/* p[0] in even lanes, p[1] in odd ones. */
FN vf v_set2(const float *p)
{
    return (vf){p[0], p[1], p[0], p[1]};
}

/* The sums of a, b, c, d: lanes i and i + 2 first, then i and i + 1. */
FN v4 v_sum4(vf a, vf b, vf c, vf d)
{
    vf ab = v_low_halves(a, b) + v_high_halves(a, b);
    vf cd = v_low_halves(c, d) + v_high_halves(c, d);
    return v_even(ab, cd) + v_odd(ab, cd);
}

#endif
