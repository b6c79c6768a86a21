/* portable.h - shims for any number of lanes, by the compiler's vector extensions alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_PORTABLE_H
#define QUIRE_BACKEND_CPU_LANES_PORTABLE_H

FN vf choose(vi mask, vf x, vf y)
{
    return (vf)((mask & (vi)x) | (~mask & (vi)y));
}

/* a > b ? a : b */
FN vf v_max(vf a, vf b)
{
    return choose((vi)(a > b), a, b);
}

/* a < b ? x : y */
FN vf v_if_less(vf a, vf b, vf x, vf y)
{
    return choose((vi)(a < b), x, y);
}

/* a is NaN ? a : y */
FN vf v_keep_nan(vf a, vf y)
{
    return choose((vi)(a != a), a, y);
}

/* Lane i of a where bit i is set, else of b. */
FN vf v_if_bits(uint32_t bits, vf a, vf b)
{
    vi lanes;
    UNROLL
    for (int i = 0; i < LANES; i++)
        lanes[i] = 1 << i;
    return choose((vi)((v_spread(bits) & lanes) == lanes), a, b);
}

typedef uint16_t vu16_any __attribute__((vector_size(2 * LANES), aligned(1), may_alias));
typedef uint8_t vu8_any __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef int8_t vi8_any __attribute__((vector_size(LANES), aligned(1), may_alias));

FN vi v_from_u16(const uint16_t *p)
{
    return __builtin_convertvector(*(const vu16_any *)(const void *)p, vi);
}

FN void v_to_u16(uint16_t *p, vi a)
{
    *(vu16_any *)(void *)p = __builtin_convertvector(a, vu16_any);
}

FN vi v_from_u8(const uint8_t *p)
{
    return __builtin_convertvector(*(const vu8_any *)(const void *)p, vi);
}

FN vi v_from_i8(const uint8_t *p)
{
    return __builtin_convertvector(*(const vi8_any *)(const void *)p, vi);
}

/* The steps of f16_to_f32 in scalar.h, lane by lane. */
FN vf v_from_f16(const uint16_t *p)
{
    vi h = v_from_u16(p);
    vi sign = (vi)((vu)(h & 0x8000) << 16), magnitude = (h & 0x7fff) << 13;
    vi finite = (vi)((vf)magnitude * 0x1p112f);
    vi nan = (vi)(magnitude > 0x0f800000) & 0x400000;
    vi special = (vi)(magnitude >= 0x0f800000);
    return (vf)(sign | (special & (magnitude | 0x7f800000 | nan)) | (~special & finite));
}

/* The steps of f32_to_f16 in scalar.h, lane by lane. */
FN void v_to_f16(uint16_t *p, vf x)
{
    vi bits = (vi)x, a = bits & 0x7fffffff;
    vi normal = (a + 0xfff + (a >> 13 & 1) - 0x38000000) >> 13;
    vi small = (vi)((vf)a + 0.5f) - 0x3f000000;
    vi is_normal = (vi)(a >= 0x38800000);
    vi h = (is_normal & normal) | (~is_normal & small);
    vi overflow = (vi)(a >= 0x477ff000), nan = (vi)(a > 0x7f800000);
    h = (overflow & 0x7c00) | (~overflow & h);
    h = (nan & (0x7e00 | (a >> 13 & 0x3ff))) | (~nan & h);
    v_to_u16(p, h | (bits >> 16 & 0x8000));
}

#endif
