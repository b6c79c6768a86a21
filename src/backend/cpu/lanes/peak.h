/* peak.h - what the machine can do at most: reading, and multiply-adds without any memory.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_PEAK_H
#define QUIRE_BACKEND_CPU_LANES_PEAK_H

typedef vi vi_any __attribute__((aligned(1), may_alias));

enum {
    READ_STREAMS = 4, /* with one, a page without a large mapping ends what is fetched ahead */
    READ_LINE = 64,
    READ_AHEAD = 2048,
    READ_PIECE = 1 << 20, /* of READ_STREAMS streams */
};

/* The streams of one piece side by side. */
FN void read_piece(vi sums[READ_STREAMS], const uint8_t *memory, size_t bytes)
{
    enum { LOADS = READ_LINE / (int)sizeof(vi) };
    const size_t stream = bytes / READ_STREAMS;
    for (size_t at = 0; at < stream; at += READ_LINE) {
        UNROLL
        for (size_t s = 0; s < READ_STREAMS; s++) {
            const uint8_t *line = memory + s * stream + at;
            __builtin_prefetch(line + READ_AHEAD);
            UNROLL
            for (size_t i = 0; i < LOADS; i++)
                sums[s] ^= ((const vi_any *)(const void *)line)[i];
        }
    }
}

KERNEL void read_all(uint64_t *all, const uint8_t *memory, size_t bytes)
{
    vi sums[READ_STREAMS] = {{0}};
    for (size_t at = 0; at < bytes; at += READ_PIECE)
        read_piece(sums, memory + at, bytes - at < READ_PIECE ? bytes - at : READ_PIECE);
    uint64_t words[sizeof(vi) / sizeof(uint64_t)];
    vi sum = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
    memcpy(words, &sum, sizeof sum);
    *all = 0;
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(words); i++)
        *all ^= words[i];
}

/* More chains than the latency of a multiply-add, 4 to 8 cycles, times two a cycle; and all of them
 * in registers. */
enum {
    PEAK_CHAINS = LANES == 16 ? 24 : 12,
    PEAK_STEPS = QUIRE__PEAK_ROUND / (PEAK_CHAINS * LANES),
};

KERNEL void peak_f32(float *end, size_t rounds)
{
    vf x[PEAK_CHAINS];
    const vf half = v_set1(0.5f), one = v_set1(1.0f);
    for (size_t i = 0; i < PEAK_CHAINS; i++)
        x[i] = one;
    for (size_t step = 0; step < rounds * PEAK_STEPS; step++) {
        UNROLL
        for (size_t i = 0; i < PEAK_CHAINS; i++)
            x[i] = v_fma(x[i], half, one);
    }
    vf sum = v_zero();
    for (size_t i = 0; i < PEAK_CHAINS; i++)
        sum += x[i];
    *end = v_sum(sum) / (PEAK_CHAINS * LANES);
}

#if defined(WITH_TILES)
/* Six sums, which hide the latency of a product, 52 cycles, behind the 16 that each takes (Intel
 * 64 and IA-32 Architectures Optimization Reference Manual, chapter on AMX). */
KERNEL void peak_bf16(float *end, size_t rounds)
{
    enum { SUMS = 6, ROWS = 16, COLUMNS = 16, PAIRS = 32 };
    enum { STEPS = QUIRE__PEAK_ROUND / (SUMS * ROWS * COLUMNS * PAIRS) };
    struct tiles shapes = {.palette = 1};
    uint16_t ones[ROWS * PAIRS];
    float sums[ROWS * COLUMNS];
    for (size_t i = 0; i < TILES; i++) {
        shapes.rows[i] = ROWS;
        shapes.colsb[i] = TILE_ROW_BYTES_MAX;
    }
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(ones); i++)
        ones[i] = 0x3f80; /* 1 */
    tiles_configure(&shapes);
    TILE_LOAD(6, ones, TILE_ROW_BYTES_MAX);
    TILE_LOAD(7, ones, TILE_ROW_BYTES_MAX);
    for (size_t step = 0; step < rounds * STEPS; step++) {
        TILE_DOT(0, 6, 7);
        TILE_DOT(1, 6, 7);
        TILE_DOT(2, 6, 7);
        TILE_DOT(3, 6, 7);
        TILE_DOT(4, 6, 7);
        TILE_DOT(5, 6, 7);
    }
    TILE_STORE(0, sums, TILE_ROW_BYTES_MAX);
    tiles_release();
    *end = rounds != 0 ? 2 * sums[0] / (float)(rounds * STEPS * PAIRS) : 2;
}
#elif defined(WITH_PRODUCTS)
KERNEL void peak_bf16(float *end, size_t rounds)
{
    enum { STEPS = PEAK_STEPS / 2 }; /* a lane multiplies pairs */
    vf sums[PEAK_CHAINS];
    const vu ones = {0};
    for (size_t i = 0; i < PEAK_CHAINS; i++)
        sums[i] = v_zero();
    for (size_t step = 0; step < rounds * STEPS; step++) {
        UNROLL
        for (size_t i = 0; i < PEAK_CHAINS; i++)
            sums[i] = v_dot2(sums[i], ones + 0x3f803f80u, ones + 0x3f803f80u);
    }
    vf sum = v_zero();
    for (size_t i = 0; i < PEAK_CHAINS; i++)
        sum += sums[i];
    *end = rounds != 0 ? v_sum(sum) / (float)(rounds * STEPS * PEAK_CHAINS * LANES) : 2;
}
#else
KERNEL void peak_bf16(float *end, size_t rounds)
{
    peak_f32(end, rounds);
}
#endif

#if defined(WITH_PRODUCTS) && !defined(WITH_TILES)
/* What a register holds, from here on unknown: or a compiler would multiply once. */
#if defined(QUIRE_EMULATE)
#define UNKNOWN(register) (void)(register)
#elif defined(__aarch64__)
#define UNKNOWN(register) __asm__("" : "+w"(register))
#else
#define UNKNOWN(register) __asm__("" : "+v"(register))
#endif

KERNEL void peak_codes(float *end, size_t rounds)
{
    enum { STEPS = PEAK_STEPS / 2 };
    vi sums[PEAK_CHAINS];
    vu ones = (vu)v_spread(0x10001u);
    for (size_t i = 0; i < PEAK_CHAINS; i++)
        sums[i] = v_spread(0);
    for (size_t step = 0; step < rounds * STEPS; step++) {
        UNROLL
        for (size_t i = 0; i < PEAK_CHAINS; i++) {
            UNKNOWN(ones);
            sums[i] = v_dot_words(sums[i], ones, ones);
        }
    }
    vf sum = v_zero();
    for (size_t i = 0; i < PEAK_CHAINS; i++)
        sum += v_float(sums[i]);
#undef UNKNOWN
    *end = rounds != 0 ? v_sum(sum) / (float)(rounds * STEPS * PEAK_CHAINS * LANES) : 2;
}
#else
KERNEL void peak_codes(float *end, size_t rounds)
{
    peak_bf16(end, rounds);
}
#endif

#endif
