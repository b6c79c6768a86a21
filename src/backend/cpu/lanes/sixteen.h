/* sixteen.h - what lanes of 16 are like whatever the processor: shuffles, sums, register tiles.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_SIXTEEN_H
#define QUIRE_BACKEND_CPU_LANES_SIXTEEN_H

/* Register tiles: sums that fit into 32 registers beside their operands. */
enum { PRODUCT_TOKENS = 6, PRODUCT_VECTORS = 4, SCORE_ROWS = 6, VALUE_ROWS = 6 };

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

#endif
