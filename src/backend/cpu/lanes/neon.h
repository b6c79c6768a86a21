/* neon.h - lanes of 4 for Armv8.0-A and, with WITH_BF16, what products.h needs of Armv8.6-A.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_NEON_H
#define QUIRE_BACKEND_CPU_LANES_NEON_H

#include <arm_neon.h>

#define LANES 4
#if !defined(WITH_BF16)
#define TARGET
#elif defined(__clang__)
#define TARGET __attribute__((target("bf16")))
#else
#define TARGET __attribute__((target("+bf16")))
#endif

#include "backend/cpu/lanes/lanes.h"

/* Register tiles: sums that fit into 32 registers beside their operands. */
enum { PRODUCT_TOKENS = 4, PRODUCT_VECTORS = 4, SCORE_ROWS = 3, VALUE_ROWS = 2 };

#include "backend/cpu/lanes/four.h"

FN vf v_fma(vf a, vf b, vf c)
{
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

/* a > b ? a : b */
FN vf v_max(vf a, vf b)
{
    uint32x4_t more = vcgtq_f32((float32x4_t)a, (float32x4_t)b);
    return (vf)vbslq_f32(more, (float32x4_t)a, (float32x4_t)b);
}

/* a < b ? x : y */
FN vf v_if_less(vf a, vf b, vf x, vf y)
{
    uint32x4_t less = vcltq_f32((float32x4_t)a, (float32x4_t)b);
    return (vf)vbslq_f32(less, (float32x4_t)x, (float32x4_t)y);
}

/* a is NaN ? a : y */
FN vf v_keep_nan(vf a, vf y)
{
    uint32x4_t number = vceqq_f32((float32x4_t)a, (float32x4_t)a);
    return (vf)vbslq_f32(number, (float32x4_t)y, (float32x4_t)a);
}

/* Lane i of a where bit i is set, else of b. */
FN vf v_if_bits(uint32_t bits, vf a, vf b)
{
    vu lanes = {1, 2, 4, 8};
    uint32x4_t set = vtstq_u32(vdupq_n_u32(bits), (uint32x4_t)lanes);
    return (vf)vbslq_f32(set, (float32x4_t)a, (float32x4_t)b);
}

FN vf v_from_f16(const uint16_t *p)
{
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

FN void v_to_f16(uint16_t *p, vf a)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)a)));
}

FN vi v_from_u16(const uint16_t *p)
{
    return (vi)vmovl_u16(vld1_u16(p));
}

FN void v_to_u16(uint16_t *p, vi a)
{
    vst1_u16(p, vmovn_u32((uint32x4_t)a));
}

FN vw v_words_from_i8(const uint8_t *p)
{
    return (vw)vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));
}

FN vi v_from_u8(const uint8_t *p)
{
    uint8x8_t bytes = vcreate_u8(u32_at(p));
    return (vi)vmovl_u16(vget_low_u16(vmovl_u8(bytes)));
}

FN vi v_from_i8(const uint8_t *p)
{
    int8x8_t bytes = vcreate_s8(u32_at(p));
    return (vi)vmovl_s16(vget_low_s16(vmovl_s8(bytes)));
}

#endif
