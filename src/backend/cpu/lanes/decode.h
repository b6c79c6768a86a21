/* decode.h - panels of weights decoded on lanes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The layout stands in panels.h, the formulas in ref/weights.h. A step is STEP_VECTORS vectors:
 * lane i of vector v is weight v LANES + i, so two neighbouring lanes are two columns of one row.
 *
 * Where the level multiplies f32, a block becomes its weights. Where it multiplies bf16, a step is
 * one row of a tile, or lanes of pairs; types with codes become their whole numbers, of 16 bits or,
 * for tiles, of bf16, which holds them exactly, and what a block comes to is scaled afterwards. */
#ifndef QUIRE_BACKEND_CPU_LANES_DECODE_H
#define QUIRE_BACKEND_CPU_LANES_DECODE_H

enum {
    STEP_VECTORS = QUIRE__STEP_WEIGHTS / LANES,
    ROW_VECTORS = QUIRE__PANEL_ROWS / LANES,
    PART_STEPS = QUIRE__BLOCK_STEPS / 2, /* of half a block */
};

#if defined(WITH_PRODUCTS)
typedef uint16_t weight_element;
#else
typedef float weight_element;
#endif

FN void put_step(weight_element *to, const vf *w)
{
#if defined(WITH_PRODUCTS)
    UNROLL
    for (int v = 0; v < STEP_VECTORS; v += 2) {
        vu pairs = v_pack2(w[v], w[v + 1]);
        memcpy(to + v * LANES, &pairs, sizeof pairs);
    }
#else
    UNROLL
    for (int v = 0; v < STEP_VECTORS; v++)
        v_store(to + v * LANES, w[v]);
#endif
}

/* What is known of a type when the kernels are compiled. */
struct form {
    uint32_t type;
    enum quire__codes codes;
    enum quire__scaling scaling;
};

FN bool has_offset(enum quire__scaling scaling)
{
    return scaling == QUIRE__OFFSET || scaling == QUIRE__SUPER;
}

/* ---- factors and addends ---- */

/* Factors of the rows of a block, or of one half of it. */
FN void load_factors(vf *d, enum quire__scaling scaling, const struct quire__block *from, int half)
{
    const uint16_t *scales = (const void *)from->scales, *supers = (const void *)from->supers;
    UNROLL
    for (int v = 0; v < ROW_VECTORS; v++) {
        int at = v * LANES;
        if (scaling == QUIRE__SCALED || scaling == QUIRE__OFFSET)
            d[v] = v_from_f16(scales + at);
        else if (scaling == QUIRE__SUPER)
            d[v] = v_from_f16(supers + at) * v_float(v_from_u8(from->scales + at));
        else
            d[v] = v_from_f16(supers + at) * v_float(v_from_i8(from->scales + 16 * half + at));
    }
}

/* Addends of the rows of a block; zero where there are none. */
FN void load_addends(vf *m, enum quire__scaling scaling, const struct quire__block *from)
{
    const uint16_t *scales = (const void *)from->scales, *supers = (const void *)from->supers;
    UNROLL
    for (int v = 0; v < ROW_VECTORS; v++) {
        int at = 16 + v * LANES;
        if (scaling == QUIRE__OFFSET)
            m[v] = v_from_f16(scales + at);
        else if (scaling == QUIRE__SUPER)
            m[v] = -v_from_f16(supers + at) * v_float(v_from_u8(from->scales + at));
        else
            m[v] = v_zero();
    }
}

/* ---- whole numbers ---- */

/* The whole numbers at the bottom of the lanes; the bits above mean nothing. */
FN vf nibbles_of(vu word, int offset)
{
#if LANES == 16
    vf table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return v_look_up(table - (float)offset, (vi)word);
#else
    return v_float((vi)(word & 15u) - offset);
#endif
}

FN int offset_of(struct form form)
{
    return form.codes == QUIRE__NIBBLES && form.scaling == QUIRE__SCALED ? 8 : 0;
}

/* The words of which step j has a nibble. */
FN const uint16_t *nibble_words(const uint8_t *codes, int j)
{
    return (const uint16_t *)(const void *)codes + j / 4 * QUIRE__STEP_WEIGHTS;
}

/* Vector v of step j of a block: whole numbers, or the elements of a type without codes. */
FN vf step_numbers(const uint8_t *codes, struct form form, int j, int v)
{
    size_t at = (size_t)j * QUIRE__STEP_WEIGHTS + (size_t)v * LANES;
    if (form.scaling == QUIRE__PLAIN) {
        uint32_t dtype = form.type == QUIRE_W_F32   ? QUIRE_F32
                         : form.type == QUIRE_W_F16 ? QUIRE_F16
                                                    : QUIRE_BF16;
        return element_load(dtype, element_at(dtype, codes, at));
    }
    if (form.codes == QUIRE__NIBBLES) {
        vu words = (vu)v_from_u16(nibble_words(codes, j) + v * LANES);
        return nibbles_of(words >> (4 * (j % 4)), offset_of(form));
    }
    return v_float(v_from_i8(codes + at));
}

#if defined(WITH_PRODUCTS)

/* Vector v of step j of a block: pairs of columns, of 16 bits. */
FN vu step_codes(const uint8_t *codes, struct form form, int j, int v)
{
    vw words;
    if (form.codes == QUIRE__BYTES)
        return (vu)v_words_from_i8(codes + j * QUIRE__STEP_WEIGHTS + v * 2 * LANES);
    memcpy(&words, nibble_words(codes, j) + v * 2 * LANES, sizeof words);
    return (vu)((words >> (4 * (j % 4)) & 15) - (uint16_t)offset_of(form));
}

#if defined(WITH_TILES)
/* A whole number as bfloat16; its size is at most 32. */
#define CODE_SIZE(x)                                                                               \
    ((x) < 1    ? 0                                                                                \
     : (x) < 2  ? 0x3f80                                                                           \
     : (x) < 4  ? 0x4000 + ((x)-2) * 64                                                            \
     : (x) < 8  ? 0x4080 + ((x)-4) * 32                                                            \
     : (x) < 16 ? 0x4100 + ((x)-8) * 16                                                            \
     : (x) < 32 ? 0x4180 + ((x)-16) * 8                                                            \
                : 0x4200)
#define CODE(x)     ((x) < 0 ? 0x8000 | CODE_SIZE(-(x)) : CODE_SIZE(x))
#define CODES_4(x)  CODE(x), CODE((x) + 1), CODE((x) + 2), CODE((x) + 3)
#define CODES_16(x) CODES_4(x), CODES_4((x) + 4), CODES_4((x) + 8), CODES_4((x) + 12)

/* The whole numbers of 32 words; only their lowest bits are read. */
FN vw words_of(vw words, struct form form)
{
    const vw nibbles = {CODES_16(0), CODES_16(0)}, below = {CODES_16(-8), CODES_16(-8)};
    const vw fifths = {CODES_16(0), CODES_16(16)}, around = {CODES_16(0), CODES_16(-16)};
    const vw upper = {CODES_16(-32), CODES_16(-16)};
    if (form.codes == QUIRE__NIBBLES)
        return v_look_up_words(offset_of(form) == 0 ? nibbles : below, words);
    if (form.type == QUIRE_W_Q6_K)
        return v_look_up_words2(fifths, upper, words);
    return v_look_up_words(form.scaling == QUIRE__SCALED ? around : fifths, words);
}
#undef CODES_16
#undef CODES_4
#undef CODE
#undef CODE_SIZE
#endif

/* Vector v of step j of a block as it is multiplied, with pairs of columns in the lanes. */
FN vu step_words(const uint8_t *codes, struct form form, int j, int v)
{
#if defined(WITH_TILES)
    if (form.codes == QUIRE__NIBBLES) {
        vw words;
        memcpy(&words, nibble_words(codes, j), sizeof words);
        return (vu)words_of(words >> (4 * (j % 4)), form);
    }
    if (form.codes == QUIRE__BYTES && form.type != QUIRE_W_Q8_0)
        return (vu)words_of(v_words_from_u8(codes + j * QUIRE__STEP_WEIGHTS), form);
#else
    if (form.scaling != QUIRE__PLAIN)
        return step_codes(codes, form, j, v);
#endif
    if (form.type == QUIRE_W_BF16)
        return (vu)v_load(
            (const float *)(const void *)(codes + j * 2 * QUIRE__STEP_WEIGHTS + v * 4 * LANES));
    return v_pack2(step_numbers(codes, form, j, 2 * v), step_numbers(codes, form, j, 2 * v + 1));
}

/* ---- a block ---- */

/* A decoded block: its steps, then the factors and addends of its rows, or the factors of both its
 * halves, as f32. */
enum { LINES_AT = QUIRE__BLOCK_WEIGHTS, DECODED_ELEMENTS = LINES_AT + 4 * QUIRE__PANEL_ROWS };

FN float *lines_at(const weight_element *block)
{
    return (float *)(uintptr_t)(const void *)(block + LINES_AT);
}

FN void put_lines(weight_element *block, const struct quire__block *from, struct form form)
{
    vf d[ROW_VECTORS], second[ROW_VECTORS];
    float *to = lines_at(block);
    load_factors(d, form.scaling, from, 0);
    if (form.scaling == QUIRE__SUPER_16)
        load_factors(second, form.scaling, from, 1);
    else
        load_addends(second, form.scaling, from);
    UNROLL
    for (int v = 0; v < ROW_VECTORS; v++) {
        v_store(to + v * LANES, d[v]);
        v_store(to + QUIRE__PANEL_ROWS + v * LANES, second[v]);
    }
}

FN void decode_block(weight_element *to, const struct quire__block *from, struct form form)
{
    if (form.scaling != QUIRE__PLAIN)
        put_lines(to, from, form);
    UNROLL
    for (int j = 0; j < QUIRE__BLOCK_STEPS; j++) {
        UNROLL
        for (int v = 0; v < ROW_VECTORS; v++) {
            vu pairs = step_words(from->codes, form, j, v);
            memcpy(to + j * QUIRE__STEP_WEIGHTS + v * 2 * LANES, &pairs, sizeof pairs);
        }
    }
}

#else

enum { DECODED_ELEMENTS = QUIRE__BLOCK_WEIGHTS };

/* The lines of half a block, for the lanes of a step. */
struct half {
    const uint8_t *codes;
    vf d[STEP_VECTORS], m[STEP_VECTORS];
};

/* 16 numbers, one a row, to the two lanes of each row. */
FN void spread_rows(vf *lanes, const vf *rows)
{
    UNROLL
    for (int i = 0; i < ROW_VECTORS; i++) {
        lanes[2 * i] = v_interleave_low(rows[i], rows[i]);
        lanes[2 * i + 1] = v_interleave_high(rows[i], rows[i]);
    }
}

/* The lines of the first half are those of the second but for halves with scales of their own. */
FN void load_half(struct half *half, const struct quire__block *from, struct form form, int i)
{
    half->codes = from->codes + (size_t)i * quire__codes_bytes(form.codes) / 2;
    if (form.scaling != QUIRE__PLAIN && (i == 0 || form.scaling == QUIRE__SUPER_16)) {
        vf d[ROW_VECTORS], m[ROW_VECTORS];
        load_factors(d, form.scaling, from, i);
        load_addends(m, form.scaling, from);
        spread_rows(half->d, d);
        spread_rows(half->m, m);
    }
}

/* Vector v of step j of a half. */
FN vf half_weights(const struct half *half, struct form form, int j, int v)
{
    vf q = step_numbers(half->codes, form, j, v);
    if (form.scaling == QUIRE__PLAIN)
        return q;
    return has_offset(form.scaling) ? v_fma(q, half->d[v], half->m[v]) : q * half->d[v];
}

FN void decode_block(weight_element *to, const struct quire__block *from, struct form form)
{
    struct half half;
    UNROLL
    for (int i = 0; i < 2; i++) {
        load_half(&half, from, form, i);
        UNROLL
        for (int j = 0; j < PART_STEPS; j++, to += QUIRE__STEP_WEIGHTS) {
            vf w[STEP_VECTORS];
            UNROLL
            for (int v = 0; v < STEP_VECTORS; v++)
                w[v] = half_weights(&half, form, j, v);
            put_step(to, w);
        }
    }
}
#endif

/* ---- some blocks ---- */

enum {
    LINE_BYTES = 64, /* of a cache */
    BLOCKS_NEAR = 2,
};

/* Asks for `bytes` bytes, a constant, from a place that may lie past the last panel. */
FN void prefetch_ahead(const uint8_t *p, size_t ahead, uint32_t bytes, bool near)
{
    UNROLL
    for (uint32_t i = 0; i < bytes; i += LINE_BYTES) {
        const void *at = (const void *)((uintptr_t)p + ahead + i);
        if (near)
            __builtin_prefetch(at, 0, 3);
        else
            __builtin_prefetch(at, 0, 2);
    }
}

/* Asks for a block that is near, into the first-level cache. Blocks of nibbles are so short that
 * one of the next group is asked for too; longer ones fill the line buffers, and a processor that
 * follows the stream itself brings them sooner. */
FN void prefetch_block(const struct quire__panels *panels, const struct quire__block *block,
                       struct form form)
{
    size_t ahead = QUIRE__GROUP * panels->panel_bytes;
    uint32_t codes = quire__codes_bytes(form.codes), scales = quire__scales_bytes(form.scaling);
    if (form.codes == QUIRE__NIBBLES) {
        prefetch_ahead(block->codes, ahead, codes, false);
        prefetch_ahead(block->scales, ahead, scales, false);
    }
    prefetch_ahead(block->codes, BLOCKS_NEAR * codes, codes, true);
    prefetch_ahead(block->scales, BLOCKS_NEAR * scales, scales, true);
}

/* Elements of a decoded block. */
FN size_t decoded_elements(enum quire__scaling scaling)
{
    return scaling == QUIRE__PLAIN ? QUIRE__BLOCK_WEIGHTS : DECODED_ELEMENTS;
}

FN void decode_blocks(weight_element *to, const struct quire__panels *panels, uint32_t panel,
                      uint32_t block, uint32_t blocks, struct form form)
{
    for (uint32_t b = block; b < block + blocks; b++, to += decoded_elements(form.scaling)) {
        struct quire__block from = quire__block_at(panels, panel, b);
        prefetch_block(panels, &from, form);
        decode_block(to, &from, form);
    }
}

#define DECODE_KERNEL(name, codes, scaling)                                                        \
    KERNEL void decode_##name(void *to, const struct quire__panels *panels, uint32_t panel,        \
                              uint32_t block, uint32_t blocks)                                     \
    {                                                                                              \
        decode_blocks(to, panels, panel, block, blocks,                                            \
                      (struct form){QUIRE_W_##name, codes, scaling});                              \
    }
QUIRE__FORMAT_LIST(DECODE_KERNEL)
#undef DECODE_KERNEL

#endif
