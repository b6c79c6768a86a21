/* products.h - products of pairs and tiles, for the levels that multiply bfloat16.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A vu holds 2 LANES bfloat16: lane i has elements 2i (low half) and 2i + 1.
 *
 *   v_dot2(c, a, b)    c + a1 b1 + a0 b0 in each lane
 *   v_pack2(low, high) the lanes of low, then those of high, rounded to nearest even
 *   v_dot_words(c, a, b) c + a1 b1 + a0 b0 of signed words of 16 bits, in whole numbers of 32
 *
 * With lanes of 16, for bytes of two codes of 4 bits:
 *
 *   v_two_nibbles(p)   of the 16 bytes at p, their low halves as words, then their high halves + 16
 *   v_pick_words(table, index)    word i is word index[i] mod 32 of the table
 *
 * x86 takes and gives subnormal numbers as zero, whatever the caller's mode; v_dot2 is two fused
 * multiply-adds to nearest even, the odd product first (Intel SDM volume 2, VDPBF16PS,
 * VCVTNE2PS2BF16, TDPBF16PS). Arm's v_dot2 adds the products to each other, then to c; both sums
 * are rounded to odd, subnormal numbers are zero, every NaN is the default one (Arm ARM, BFDotAdd
 * with FPCR.EBF 0); its v_pack2 keeps subnormal numbers.
 *
 * A file that defines WITH_TILES before gets x86's tiles too; one that defines QUIRE_EMULATE gets
 * what x86 has in C. */
#ifndef QUIRE_BACKEND_CPU_LANES_PRODUCTS_H
#define QUIRE_BACKEND_CPU_LANES_PRODUCTS_H

#define WITH_PRODUCTS /* the level multiplies bfloat16 */

#if defined(WITH_TILES)
enum { TILES = 8, TILE_ROWS_MAX = 16, TILE_ROW_BYTES_MAX = 64 };

/* The operand of LDTILECFG: palette is 1; tiles that are not used have no rows and no bytes. */
struct tiles {
    uint8_t palette;
    uint8_t start_row;
    uint8_t zero_a[14];
    uint16_t colsb[TILES]; /* bytes of a row */
    uint16_t zero_b[8];
    uint8_t rows[TILES];
    uint8_t zero_c[8];
};
_Static_assert(sizeof(struct tiles) == 64, "LDTILECFG reads 64 bytes");

/* tiles_configure(&shapes) sets the shapes of this thread's tiles and zeroes them, until
 * tiles_release(). A tile's number is a constant; its row i is at pointer + i stride.
 *
 *   TILE_ZERO(n)   TILE_LOAD(n, pointer, stride)   TILE_STORE(n, pointer, stride)
 *
 *   TILE_DOT(c, a, b)   c[m][n] += sum over k of a[m][2k] b[k][2n] + a[m][2k + 1] b[k][2n + 1],
 *                       with c of f32, a and b of bfloat16: b holds pairs, those of one n side by
 *                       side in row k
 *
 * Between flush_begin() and flush_end(what it gave), v_fma_flushed and v_add_flushed are the steps
 * of TILE_DOT, which takes and gives subnormal numbers as zero. */
#endif

#if defined(QUIRE_EMULATE)
#include "backend/cpu/lanes/emulated.h"

#define LEVEL_TABLE(name) quire__kernels_##name##_emulated
#define LEVEL_NAME(name)  #name "_emulated"
#else
#define LEVEL_TABLE(name) quire__kernels_##name
#define LEVEL_NAME(name)  #name

#if defined(__aarch64__)
FN vi v_dot_words(vi c, vu a, vu b)
{
    int32x4_t low = vmull_s16(vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
    int32x4_t high = vmull_high_s16((int16x8_t)a, (int16x8_t)b);
    return (vi)vaddq_s32((int32x4_t)c, vpaddq_s32(low, high));
}

/* Not the compilers' own: clang 14 has them only where the whole file is compiled for bfloat16. */
FN vf v_dot2(vf c, vu a, vu b)
{
    __asm__("bfdot %0.4s, %1.8h, %2.8h" : "+w"(c) : "w"(a), "w"(b));
    return c;
}

FN vu v_pack2(vf low, vf high)
{
    vu y;
    __asm__("bfcvtn %0.4h, %1.4s\n\tbfcvtn2 %0.8h, %2.4s" : "=&w"(y) : "w"(low), "w"(high));
    return y;
}
#else
/* Not the compilers' own: gcc 12 copies its sums to memory and back. */
FN vi v_dot_words(vi c, vu a, vu b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    return c;
}

FN vf v_dot2(vf c, vu a, vu b)
{
    return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
}

FN vu v_pack2(vf low, vf high)
{
    return (vu)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
}

FN vu v_two_nibbles(const uint8_t *p)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m512i words = _mm512_cvtepu8_epi16(_mm256_broadcastsi128_si256(bytes));
    __m512i high = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1);
    words = _mm512_srlv_epi16(words, _mm512_srli_epi16(high, 2));
    return ((vu)words & 0xf000fu) | (vu)high;
}

FN vu v_pick_words(vu table, vu index)
{
    return (vu)_mm512_permutexvar_epi16((__m512i)index, (__m512i)table);
}

#endif

#if defined(WITH_TILES)
FN void tiles_configure(const struct tiles *shapes)
{
    __asm__ volatile("ldtilecfg %0" : : "m"(*shapes));
}

FN void tiles_release(void)
{
    __asm__ volatile("tilerelease");
}

FN uint32_t flush_begin(void)
{
    uint32_t saved = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(saved | 0x8040u); /* FTZ and DAZ */
    return saved;
}

FN void flush_end(uint32_t saved)
{
    __builtin_ia32_ldmxcsr(saved);
}

FN vf v_fma_flushed(vf a, vf b, vf c)
{
    return v_fma(a, b, c);
}

FN vf v_add_flushed(vf a, vf b)
{
    return a + b;
}

/* Not the compilers' own: gcc 12 does not say that a load reads memory, and may drop the stores
 * before it. No compiler uses a tile unasked, so none needs to be named as changed. */
#define TILE_ZERO(n) __asm__ volatile("tilezero %%tmm%c0" : : "i"(n))
#define TILE_LOAD(n, pointer, stride)                                                              \
    __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0"                                               \
                     :                                                                             \
                     : "i"(n), "r"((const void *)(pointer)), "r"((size_t)(stride))                 \
                     : "memory")
#define TILE_STORE(n, pointer, stride)                                                             \
    __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)"                                              \
                     :                                                                             \
                     : "i"(n), "r"((void *)(pointer)), "r"((size_t)(stride))                       \
                     : "memory")
#define TILE_DOT(c, a, b)                                                                          \
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b))
#endif
#endif

#endif
