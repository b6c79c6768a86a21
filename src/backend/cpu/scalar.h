/* scalar.h - one number at a time: half-precision formats, the constants of exp and of K/V formats.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_SCALAR_H
#define QUIRE_BACKEND_CPU_SCALAR_H

#include <stdint.h>
#include <string.h>

static inline uint32_t f32_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float f32_from(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Reading by bytes: weight blocks have no alignment. */
static inline uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)u16_at(p) | (uint32_t)u16_at(p + 2) << 16;
}

/* f16_to_f32 of every half: a lookup and a load that spreads it cost no arithmetic where the
 * weights keep those units busy. Filled before any level's table is handed out. */
extern float quire__half_values[65536];

static inline float half_at(const uint8_t *p)
{
    return quire__half_values[u16_at(p)];
}

/* IEEE 754 binary16. The exponent and fraction move to their places in binary32, where they stand
 * for a value 2^112 times too small, subnormals included; one exact multiplication repairs that. */
static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t magnitude = (uint32_t)(h & 0x7fffu) << 13;
    if (magnitude > 0x0f800000u) /* NaN becomes quiet and keeps its payload */
        return f32_from(sign | 0x7fc00000u | magnitude);
    if (magnitude == 0x0f800000u)
        return f32_from(sign | 0x7f800000u);
    return f32_from(sign | f32_bits(f32_from(magnitude) * 0x1p112f));
}

/* Round to nearest even; 65520 and above become infinite; NaN becomes quiet and keeps the top of
 * its payload. */
static inline uint16_t f32_to_f16(float x)
{
    uint32_t bits = f32_bits(x);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t a = bits & 0x7fffffffu;
    uint32_t h;
    if (a > 0x7f800000u)
        h = 0x7e00u | (a >> 13 & 0x3ffu);
    else if (a >= 0x477ff000u)
        h = 0x7c00u;
    else if (a >= 0x38800000u) /* 2^-14: normal; add half of the last place, ties to even */
        h = (a + 0xfffu + (a >> 13 & 1u) - 0x38000000u) >> 13;
    else /* the last place of 0.5 is 2^-24, the unit of subnormal halves: the adder rounds */
        h = f32_bits(f32_from(a) + 0.5f) - 0x3f000000u;
    return (uint16_t)(sign | h);
}

static inline float bf16_to_f32(uint16_t h)
{
    return f32_from((uint32_t)h << 16);
}

static inline uint16_t f32_to_bf16(float x)
{
    uint32_t bits = f32_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* exp(x) = 2^n exp(r), n = round(x / ln 2), r = x - n ln 2, |r| <= ln(2) / 2 (W. J. Cody and
 * W. Waite, Software Manual for the Elementary Functions, chapter 6). ln 2 is split so that n times
 * the high part is exact: 16 bits times 8. exp(r) = 1 + r + r^2 q(r); the coefficients of q
 * minimise the largest relative error on the interval (Lawson's weights), which is 3.1e-9, 0.05
 * units of the last place. Adding EXP_MAGIC = 1.5 * 2^23 rounds to an integer, whose low bits are
 * then n. Below EXP_LOW the result would be subnormal, and is 0; above EXP_HIGH it is infinite. */
#define EXP_LOG2E  0x1.715476p+0f
#define EXP_MAGIC  0x1.8p+23f
#define EXP_LN2_HI 0x1.62e4p-1f
#define EXP_LN2_LO 0x1.7f7d1cp-20f
#define EXP_C2     0x1.fffffcp-2f
#define EXP_C3     0x1.555492p-3f
#define EXP_C4     0x1.5558f2p-5f
#define EXP_C5     0x1.1239e2p-7f
#define EXP_C6     0x1.6a2434p-10f
#define EXP_LOW    -87.33f
#define EXP_UNDER  -0x1.5d51ee0000000p+6f /* the number below EXP_LOW */
#define EXP_HIGH   88.7228f

/* gelu(x) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): the tanh form, since
 * (1 + tanh u) / 2 = 1 / (1 + exp(-2u)). The constants are -2 sqrt(2/pi) and that times 0.044715.
 */
#define GELU_A -1.5957691216057308f
#define GELU_B -0.07135481627260025f

/* The 6-bit scale and offset of unit j (0..7) of a Q4_K or Q5_K block, from its 12 bytes: units 0-3
 * have theirs in the low 6 bits of bytes j and j + 4; units 4-7 have the low 4 bits in the halves
 * of byte j + 4 and the top 2 bits in the top of bytes j - 4 and j. */
static inline void scale_and_offset(const uint8_t *s, uint32_t j, uint8_t *scale, uint8_t *offset)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *offset = s[j + 4] & 63;
    } else {
        *scale = (uint8_t)((s[j + 4] & 15) | s[j - 4] >> 6 << 4);
        *offset = (uint8_t)(s[j + 4] >> 4 | s[j] >> 6 << 4);
    }
}

/* ---- q8 and q4 K/V: docs/formats/kv.md ---- */

#define KV_LARGEST    65504.0f
#define ROUND_MAGIC   0x1.8p+23f /* its low bits count ones: adding it rounds to an integer */
#define Q4_STEP_LEAST 0x1p-24f

enum { Q4_GROUP = 16, Q4_CANDIDATES = 16, Q4_ROUNDS = 2 };

/* Of each candidate of the search: a, and 15 / (15 - a - b). */
static const float q4_trims[Q4_CANDIDATES] = {
    -0.5f, -0.5f, -0.5f, -0.5f, 0.0f, 0.0f, 0.0f, 0.0f,
    0.5f,  0.5f,  0.5f,  0.5f,  1.0f, 1.0f, 1.0f, 1.0f,
};
#define Q4_STRETCHES(a)                                                                            \
    15.0f / (15.5f - (a)), 15.0f / (15.0f - (a)), 15.0f / (14.5f - (a)), 15.0f / (14.0f - (a))
static const float q4_stretches[Q4_CANDIDATES] = {
    Q4_STRETCHES(-0.5f),
    Q4_STRETCHES(0.0f),
    Q4_STRETCHES(0.5f),
    Q4_STRETCHES(1.0f),
};

static inline void u16_put(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

/* Elements of a q8 row that share a scale. */
static inline uint32_t q8_group(uint32_t dim)
{
    return dim % 32 == 0 ? 32 : 16;
}

/* Stores the scale of a q8 group, the least half that is not below largest / 127, and returns what
 * its elements are to be multiplied by. */
static inline float q8_scale(uint8_t *scale, float largest)
{
    float wanted = largest / 127.0f;
    uint16_t half = f32_to_f16(wanted);
    if (f16_to_f32(half) < wanted)
        half++;
    u16_put(scale, half);
    return half != 0 ? 1.0f / f16_to_f32(half) : 0.0f;
}

/* Where the code of element i of a q4 row lies. */
struct q4_place {
    uint32_t byte, shift;
};

/* Of a unit of two halves, the first in the lower bits. */
static inline struct q4_place q4_place_in_unit(uint32_t i, uint32_t half)
{
    uint32_t unit = i / 32 * 32;
    return (struct q4_place){unit / 2 + i % half, i - unit >= half ? 4 : 0};
}

static inline struct q4_place q4_place(uint32_t i, uint32_t dim)
{
    return q4_place_in_unit(i, dim - i / 32 * 32 >= 32 ? 16 : 8);
}

static inline void q4_pack(uint8_t *data, const uint8_t *codes, uint32_t dim)
{
    for (uint32_t unit = 0; unit < dim; unit += 32) {
        uint32_t half = dim - unit >= 32 ? 16 : 8;
        for (uint32_t i = 0; i < half; i++)
            data[unit / 2 + i] = (uint8_t)(codes[unit + i] | codes[unit + half + i] << 4);
    }
}

/* Elements that are turned together: the largest power of two that divides dim. */
static inline uint32_t rotation_block(uint32_t dim)
{
    return dim & (0u - dim);
}

#endif
