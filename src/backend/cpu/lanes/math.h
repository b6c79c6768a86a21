/* math.h - sums, exp and half precision on lanes.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_MATH_H
#define QUIRE_BACKEND_CPU_LANES_MATH_H

/* The lanes' sum, in the order of v_sum4. */
FN float v_sum(vf a)
{
    return v_sum4(a, a, a, a)[0];
}

/* The largest lane of a vector without NaN: neighbours first, so that half as many are left. */
FN float v_largest(vf a)
{
    UNROLL
    for (int n = LANES; n > 1; n /= 2)
        a = v_max(v_even(a, a), v_odd(a, a));
    return a[0];
}

/* The method and constants stand in scalar.h. Error: rounding of the last three additions, at most
 * 1 unit of the last place with fma and 2 without. Of x in EXP_LOW .. EXP_HIGH. */
FN vf exp_inside(vf x)
{
    vf t = v_fma(x, v_set1(EXP_LOG2E), v_set1(EXP_MAGIC));
    vf n = t - EXP_MAGIC;
    vf r = v_fma(n, v_set1(-EXP_LN2_HI), x);
    r = v_fma(n, v_set1(-EXP_LN2_LO), r);
    vf q = v_fma(v_set1(EXP_C6), r, v_set1(EXP_C5));
    q = v_fma(q, r, v_set1(EXP_C4));
    q = v_fma(q, r, v_set1(EXP_C3));
    q = v_fma(q, r, v_set1(EXP_C2));
    vf y = v_fma(q * r, r, r) + 1.0f;
    return (vf)((vu)y + ((vu)t << 23));
}

FN vf v_exp(vf x)
{
    vf y = exp_inside(x);
    y = v_if_less(x, v_set1(EXP_LOW), v_zero(), y);
    y = v_if_less(v_set1(EXP_HIGH), x, v_set1(INFINITY), y);
    return v_keep_nan(x, y);
}

/* The bits of v_exp where no x is over 0; v_max(0, x) is 0, or x where that is NaN. */
FN vf v_exp_down(vf x)
{
    return v_if_less(v_set1(EXP_UNDER), x, exp_inside(x), v_max(v_zero(), x));
}

FN float exp_one(float x)
{
    return v_exp(v_set1(x))[0];
}

FN vf v_from_bf16(const uint16_t *p)
{
    return (vf)((vu)v_from_u16(p) << 16);
}

/* The steps of f32_to_bf16 in scalar.h. */
FN void v_to_bf16(uint16_t *p, vf x)
{
    vu bits = (vu)x;
    vu rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    vu nan = (vu)((bits & 0x7fffffffu) > 0x7f800000u);
    v_to_u16(p, (vi)((nan & (bits >> 16 | 0x40u)) | (~nan & rounded)));
}

#endif
