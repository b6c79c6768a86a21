/* products.h - products of bfloat16 pairs and tiles, for the levels that have them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A vu holds 32 bfloat16: lane i has elements 2i (low half) and 2i + 1. The instructions flush
 * subnormal numbers to zero and round to nearest even, whatever the caller's mode (Intel SDM volume
 * 2, VDPBF16PS and TDPBF16PS). */
#ifndef QUIRE_BACKEND_CPU_LANES_PRODUCTS_H
#define QUIRE_BACKEND_CPU_LANES_PRODUCTS_H

/* c + a1 b1 + a0 b0 in each lane, the odd product first. */
FN vf v_dot2(vf c, vu a, vu b)
{
    return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
}

/* Elements 0-15 are those of low, 16-31 those of high, rounded to nearest even. */
FN vu v_pack2(vf low, vf high)
{
    return (vu)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
}

#endif
