/* emulated.h - bfloat16 products and tiles in C, with every bit that the instructions give.
 * SPDX-License-Identifier: Apache-2.0
 *
 * From the pseudocode of VDPBF16PS, VCVTNE2PS2BF16, TDPBF16PS and the tile instructions in the
 * Intel SDM, volume 2. What it leaves open is what processors do (test_products.c compares): a
 * result is subnormal, hence flushed, when it is so after rounding to 24 bits; of NaN operands the
 * first in the order a, b, c of a b + c is kept, quiet, and that of the left operand of a sum; what
 * is invalid becomes the negative quiet NaN. */
#ifndef QUIRE_BACKEND_CPU_LANES_EMULATED_H
#define QUIRE_BACKEND_CPU_LANES_EMULATED_H

/* Long, hence called: inlined into loops that are unrolled they take compilers minutes. */
#define INSN static __attribute__((noinline, unused)) TARGET

FN vu pick(vu mask, vu x, vu y)
{
    return (mask & x) | (~mask & y);
}

FN vu is_nan(vu bits)
{
    return (vu)((bits & 0x7fffffffu) > 0x7f800000u);
}

/* Subnormal numbers become zero and keep their sign. */
FN vu flush(vu bits)
{
    return pick((vu)((bits & 0x7f800000u) == 0), bits & 0x80000000u, bits);
}

/* y, or the first NaN of a, b and c. */
FN vu keep_nan3(vu a, vu b, vu c, vu y)
{
    y = pick(is_nan(y), (vu){0} + 0xffc00000u, y);
    y = pick(is_nan(c), c | 0x400000u, y);
    y = pick(is_nan(b), b | 0x400000u, y);
    return pick(is_nan(a), a | 0x400000u, y);
}

/* a b + c without subnormal numbers. The same 2^64 times larger has none, so it shows the size of
 * the result after rounding; where it overflows, the result is 0 or far from subnormal. */
INSN vf v_fma_flushed(vf a, vf b, vf c)
{
    a = (vf)flush((vu)a);
    b = (vf)flush((vu)b);
    c = (vf)flush((vu)c);
    vu y = (vu)v_fma(a, b, c);
    vf larger = v_fma(a * 0x1p64f, b, c * 0x1p64f);
    vu tiny = (vu)((vf)((vu)larger & 0x7fffffffu) < 0x1p-62f);
    return (vf)keep_nan3((vu)a, (vu)b, (vu)c, pick(tiny, y & 0x80000000u, y));
}

INSN vf v_add_flushed(vf a, vf b)
{
    a = (vf)flush((vu)a);
    b = (vf)flush((vu)b);
    return (vf)keep_nan3((vu)a, (vu)b, (vu)b, flush((vu)(a + b)));
}

FN vf low_of_pair(vu pair)
{
    return (vf)(pair << 16);
}

FN vf high_of_pair(vu pair)
{
    return (vf)(pair & 0xffff0000u);
}

/* VPDPWSSD */
INSN vi v_dot_words(vi c, vu a, vu b)
{
    vi even = (vi)(a << 16) >> 16, odd = (vi)a >> 16;
    vi x = (vi)(b << 16) >> 16, y = (vi)b >> 16;
    return (vi)((vu)c + (vu)even * (vu)x + (vu)odd * (vu)y);
}

/* VDPBF16PS */
INSN vf v_dot2(vf c, vu a, vu b)
{
    c = v_fma_flushed(high_of_pair(a), high_of_pair(b), c);
    return v_fma_flushed(low_of_pair(a), low_of_pair(b), c);
}

FN vu to_bf16_flushed(vf x)
{
    vu bits = flush((vu)x);
    vu rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    return pick(is_nan(bits), bits | 0x400000u, rounded) >> 16;
}

/* VCVTNE2PS2BF16 */
INSN vu v_pack2(vf low, vf high)
{
    vu a = to_bf16_flushed(low), b = to_bf16_flushed(high);
    return (v_even(a, b)) | (v_odd(a, b)) << 16;
}

INSN vu v_two_nibbles(const uint8_t *p)
{
    uint16_t words[2 * LANES];
    vu y;
    for (uint32_t i = 0; i < LANES; i++) {
        words[i] = p[i] & 15;
        words[LANES + i] = (uint16_t)(16 + (p[i] >> 4));
    }
    memcpy(&y, words, sizeof y);
    return y;
}

/* VPERMW */
INSN vu v_pick_words(vu table, vu index)
{
    uint16_t from[2 * LANES], at[2 * LANES], words[2 * LANES];
    memcpy(from, &table, sizeof from);
    memcpy(at, &index, sizeof at);
    for (uint32_t i = 0; i < 2 * LANES; i++)
        words[i] = from[at[i] % 32];
    memcpy(&table, words, sizeof table);
    return table;
}

#if defined(WITH_TILES)
FN uint32_t flush_begin(void)
{
    return 0;
}

FN void flush_end(uint32_t saved)
{
    (void)saved;
}

/* A thread's tiles; what is outside of a shape is 0. */
static _Thread_local struct tile_state {
    struct tiles shapes;
    uint8_t rows[TILES][TILE_ROWS_MAX][TILE_ROW_BYTES_MAX];
} tile_state;

/* LDTILECFG */
FN void tiles_configure(const struct tiles *shapes)
{
    static const struct tiles none;
    QUIRE_CHECK(shapes->palette == 1 && shapes->start_row == 0);
    QUIRE_CHECK(memcmp(shapes->zero_a, none.zero_a, sizeof none.zero_a) == 0);
    QUIRE_CHECK(memcmp(shapes->zero_b, none.zero_b, sizeof none.zero_b) == 0);
    QUIRE_CHECK(memcmp(shapes->zero_c, none.zero_c, sizeof none.zero_c) == 0);
    for (int i = 0; i < TILES; i++) {
        QUIRE_CHECK(shapes->rows[i] <= TILE_ROWS_MAX);
        QUIRE_CHECK(shapes->colsb[i] <= TILE_ROW_BYTES_MAX);
        QUIRE_CHECK((shapes->rows[i] == 0) == (shapes->colsb[i] == 0));
    }
    memset(&tile_state, 0, sizeof tile_state);
    tile_state.shapes = *shapes;
}

/* TILERELEASE */
FN void tiles_release(void)
{
    memset(&tile_state, 0, sizeof tile_state);
}

/* Every instruction on a tile without a shape is invalid. */
INSN void tile_check(int n)
{
    QUIRE_CHECK(n >= 0 && n < TILES && tile_state.shapes.rows[n] != 0);
}

/* TILEZERO */
INSN void tile_zero(int n)
{
    tile_check(n);
    memset(tile_state.rows[n], 0, sizeof tile_state.rows[n]);
}

/* TILELOADD */
INSN void tile_load(int n, const void *from, size_t stride)
{
    tile_zero(n);
    for (size_t i = 0; i < tile_state.shapes.rows[n]; i++)
        memcpy(tile_state.rows[n][i], (const uint8_t *)from + i * stride,
               tile_state.shapes.colsb[n]);
}

/* TILESTORED */
INSN void tile_store(int n, void *to, size_t stride)
{
    tile_check(n);
    for (size_t i = 0; i < tile_state.shapes.rows[n]; i++)
        memcpy((uint8_t *)to + i * stride, tile_state.rows[n][i], tile_state.shapes.colsb[n]);
}

/* TDPBF16PS: even and odd products in sums of their own, added to each other, then to c. */
INSN void tile_dot(int c, int a, int b)
{
    const struct tiles *shapes = &tile_state.shapes;
    tile_check(c);
    tile_check(a);
    tile_check(b);
    QUIRE_CHECK(c != a && a != b && b != c);
    QUIRE_CHECK(shapes->colsb[a] % 4 == 0 && shapes->colsb[b] % 4 == 0);
    QUIRE_CHECK(shapes->rows[c] == shapes->rows[a] && shapes->colsb[c] == shapes->colsb[b]);
    QUIRE_CHECK(shapes->colsb[a] / 4 == shapes->rows[b]);
    for (int m = 0; m < shapes->rows[c]; m++) {
        float *sums = (float *)(void *)tile_state.rows[c][m];
        vf even = v_zero(), odd = v_zero();
        for (int k = 0; k < shapes->rows[b]; k++) {
            vu x = (vu){0} + u32_at(tile_state.rows[a][m] + 4 * k);
            vu y = (vu)v_load((const float *)(const void *)tile_state.rows[b][k]);
            even = v_fma_flushed(low_of_pair(x), low_of_pair(y), even);
            odd = v_fma_flushed(high_of_pair(x), high_of_pair(y), odd);
        }
        vf sum = v_add_flushed(v_load(sums), v_add_flushed(even, odd));
        v_store_part(sums, sum, shapes->colsb[c] / 4);
    }
}

#define TILE_ZERO(n)                   tile_zero(n)
#define TILE_LOAD(n, pointer, stride)  tile_load(n, pointer, stride)
#define TILE_STORE(n, pointer, stride) tile_store(n, pointer, stride)
#define TILE_DOT(c, a, b)              tile_dot(c, a, b)
#endif

#endif
