/* linear.h - weights decoded on lanes, and their products with activations.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every product sums element k into lane k mod LANES, in order of k, then sums the lanes by v_sum4.
 * A row whose length is no multiple of LANES ends with a vector that is padded with zeros. */
#ifndef QUIRE_BACKEND_CPU_LANES_LINEAR_H
#define QUIRE_BACKEND_CPU_LANES_LINEAR_H

enum {
    UNIT = 32, /* weights that are decoded together */
    UNIT_VECTORS = UNIT / LANES,
    DOT_ROWS = 4, /* as many as v_sum4 sums */
};

FN void sum_and_store(float *y, const vf *acc, int rows)
{
    if (rows == DOT_ROWS) {
        *(v4_any *)(void *)y = v_sum4(acc[0], acc[1], acc[2], acc[3]);
    } else {
        for (int r = 0; r < rows; r++)
            y[r] = v_sum(acc[r]);
    }
}

/* ---- a panel of f32 rows ---- */

/* y of [tokens][rows] at token i, row r; rows and tokens are constants. */
FN void panel_block(const struct quire__linear *t, uint32_t r, uint32_t i, int rows, int tokens)
{
    vf acc[DOT_TOKENS][DOT_ROWS];
    const float *w = (const float *)(const void *)(t->w + r * t->w_stride);
    const float *x = t->x + i * t->x_stride;
    size_t w_stride = t->w_stride / sizeof(float), k = 0;
    UNROLL
    for (int a = 0; a < tokens; a++) {
        UNROLL
        for (int b = 0; b < rows; b++)
            acc[a][b] = v_zero();
    }
    for (; k + LANES <= t->columns; k += LANES) {
        vf weight[DOT_ROWS];
        UNROLL
        for (int b = 0; b < rows; b++)
            weight[b] = v_load(w + (size_t)b * w_stride + k);
        UNROLL
        for (int a = 0; a < tokens; a++) {
            vf value = v_load(x + (size_t)a * t->x_stride + k);
            UNROLL
            for (int b = 0; b < rows; b++)
                acc[a][b] = v_fma(weight[b], value, acc[a][b]);
        }
    }
    size_t left = t->columns - k;
    if (left != 0) {
        UNROLL
        for (int a = 0; a < tokens; a++) {
            vf value = v_load_part(x + (size_t)a * t->x_stride + k, left);
            UNROLL
            for (int b = 0; b < rows; b++)
                acc[a][b] =
                    v_fma(v_load_part(w + (size_t)b * w_stride + k, left), value, acc[a][b]);
        }
    }
    UNROLL
    for (int a = 0; a < tokens; a++)
        sum_and_store(t->y + (i + (uint32_t)a) * t->y_stride + r, acc[a], rows);
}

/* The rows of x stay in the first-level cache while all rows of the panel pass. */
FN void panel_tokens(const struct quire__linear *t, uint32_t i, int tokens)
{
    uint32_t r = 0;
    for (; r + DOT_ROWS <= t->rows; r += DOT_ROWS)
        panel_block(t, r, i, DOT_ROWS, tokens);
    for (; r < t->rows; r++)
        panel_block(t, r, i, 1, tokens);
}

KERNEL void panel_dot(const struct quire__linear *t)
{
    uint32_t i = 0;
    for (; i + DOT_TOKENS <= t->tokens; i += DOT_TOKENS)
        panel_tokens(t, i, DOT_TOKENS);
#if LANES == 16
    for (; i + 3 <= t->tokens; i += 3)
        panel_tokens(t, i, 3);
#endif
    for (; i < t->tokens; i++)
        panel_tokens(t, i, 1);
}

/* ---- decoding units of 32 weights; formats and formulas: ref/weights.h ---- */

/* d scale, then -m offset, of the 8 units of a Q4_K or Q5_K block, four bytes at a time. */
FN void prepare_block_K(float *scales, const uint8_t *block)
{
    uint32_t a = u32_at(block + 4), b = u32_at(block + 8), c = u32_at(block + 12);
    uint32_t words[4] = {
        a & 0x3f3f3f3fu,
        (c & 0x0f0f0f0fu) | (a >> 6 & 0x03030303u) << 4,
        b & 0x3f3f3f3fu,
        (c >> 4 & 0x0f0f0f0fu) | (b >> 6 & 0x03030303u) << 4,
    };
    vf d = v_set1(half_at(block)), m = v_set1(-half_at(block + 2));
    UNROLL
    for (int i = 0; i < 16; i += LANES) {
        vf factor = v_if_bits(0xffu >> i, d, m);
        v_store(scales + i, v_float(v_from_u8((const uint8_t *)words + i)) * factor);
    }
}

/* d scale of both halves of the 8 units of a Q6_K block. */
FN void prepare_block_6K(float *scales, const uint8_t *block)
{
    vf d = v_set1(half_at(block + 208));
    UNROLL
    for (int i = 0; i < 16; i += LANES)
        v_store(scales + i, v_float(v_from_i8(block + 192 + i)) * d);
}

enum { BLOCK_UNITS = 8 }; /* units of a block of 256 weights, whose scales are unpacked together */

/* The 16 scales of the block that starts at a unit. Formats of smaller blocks have none. type is a
 * constant. */
FN void prepare(uint32_t type, float *scales, const uint8_t *row, size_t unit)
{
    if (type == QUIRE_W_Q4_K)
        prepare_block_K(scales, row + unit / BLOCK_UNITS * 144);
    else if (type == QUIRE_W_Q5_K)
        prepare_block_K(scales, row + unit / BLOCK_UNITS * 176);
    else if (type == QUIRE_W_Q6_K)
        prepare_block_6K(scales, row + unit / BLOCK_UNITS * 210);
}

/* w = d q + m, or d (q - 8) with an offset of 8, for q of 4 bits in the halves of 16 bytes. A
 * product with q - 8 keeps the sign of a zero where d q - 8 d would not. */
FN void decode_halves(vf *w, const uint8_t *q, vf d, vf m, int offset)
{
#if LANES == 16
    vf steps = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vf table = offset != 0 ? (steps - (float)offset) * d : v_fma(steps, d, m);
    vi both = v_from_u8(q);
    w[0] = v_look_up(table, both);
    w[1] = v_look_up(table, both >> 4);
#else
    UNROLL
    for (int i = 0; i < UNIT_VECTORS / 2; i++) {
        vi both = v_from_u8(q + i * LANES);
        vf low = v_float((both & 15) - offset), high = v_float((both >> 4) - offset);
        w[i] = offset != 0 ? low * d : v_fma(low, d, m);
        w[i + UNIT_VECTORS / 2] = offset != 0 ? high * d : v_fma(high, d, m);
    }
#endif
}

FN void decode_Q4_0(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    const uint8_t *block = row + unit * 18;
    (void)scales;
    decode_halves(w, block + 2, v_set1(half_at(block)), v_zero(), 8);
}

FN void decode_Q4_1(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    const uint8_t *block = row + unit * 20;
    (void)scales;
    decode_halves(w, block + 4, v_set1(half_at(block)), v_set1(half_at(block + 2)), 0);
}

/* Bit 4 of LANES whole numbers, from bits `first` and up of h. */
FN vi fifth_bits(uint32_t h, int first)
{
    vu shift = {0};
    UNROLL
    for (int i = 0; i < LANES; i++)
        shift[i] = (uint32_t)(first + i);
    return (vi)(((vu)v_spread(h) >> shift & 1u) << 4);
}

FN void decode_Q5_0(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    const uint8_t *block = row + unit * 22;
    (void)scales;
    vf d = v_set1(half_at(block));
    uint32_t h = u32_at(block + 2);
    UNROLL
    for (int i = 0; i < UNIT_VECTORS / 2; i++) {
        vi both = v_from_u8(block + 6 + i * LANES);
        w[i] = v_float(((both & 15) | fifth_bits(h, i * LANES)) - 16) * d;
        w[i + UNIT_VECTORS / 2] = v_float((both >> 4 | fifth_bits(h, 16 + i * LANES)) - 16) * d;
    }
}

FN void decode_Q5_1(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    const uint8_t *block = row + unit * 24;
    (void)scales;
    vf d = v_set1(half_at(block)), m = v_set1(half_at(block + 2));
    uint32_t h = u32_at(block + 4);
    UNROLL
    for (int i = 0; i < UNIT_VECTORS / 2; i++) {
        vi both = v_from_u8(block + 8 + i * LANES);
        w[i] = v_fma(v_float((both & 15) | fifth_bits(h, i * LANES)), d, m);
        w[i + UNIT_VECTORS / 2] = v_fma(v_float(both >> 4 | fifth_bits(h, 16 + i * LANES)), d, m);
    }
}

FN void decode_Q8_0(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    const uint8_t *block = row + unit * 34;
    (void)scales;
    vf d = v_set1(half_at(block));
    UNROLL
    for (int i = 0; i < UNIT_VECTORS; i++)
        w[i] = v_float(v_from_i8(block + 2 + i * LANES)) * d;
}

FN void decode_Q4_K(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    int shift = (int)(unit % 2 * 4);
    const uint8_t *q = row + unit / 8 * 144 + 16 + unit % 8 / 2 * 32;
    vf d = v_set1(scales[unit % 8]), m = v_set1(scales[8 + unit % 8]);
    UNROLL
    for (int i = 0; i < UNIT_VECTORS; i++)
        w[i] = v_fma(v_float(v_from_u8(q + i * LANES) >> shift & 15), d, m);
}

FN void decode_Q5_K(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    const uint8_t *block = row + unit / 8 * 176;
    int j = (int)(unit % 8), shift = j % 2 * 4;
    const uint8_t *high = block + 16, *q = block + 48 + j / 2 * 32;
    vf d = v_set1(scales[unit % 8]), m = v_set1(scales[8 + unit % 8]);
    UNROLL
    for (int i = 0; i < UNIT_VECTORS; i++) {
        vi low = v_from_u8(q + i * LANES) >> shift & 15;
        vi fifth = (v_from_u8(high + i * LANES) >> j & 1) << 4;
        w[i] = v_fma(v_float(low | fifth), d, m);
    }
}

FN void decode_Q6_K(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    const uint8_t *block = row + unit / 8 * 210;
    int n = (int)(unit % 8 / 4), j = (int)(unit % 4);
    const uint8_t *low = block + 64 * n + j % 2 * 32, *high = block + 128 + 32 * n;
    UNROLL
    for (int i = 0; i < UNIT_VECTORS; i++) {
        vi whole = v_from_u8(low + i * LANES) >> (j / 2 * 4) & 15;
        whole |= (v_from_u8(high + i * LANES) >> (2 * j) & 3) << 4;
        w[i] = v_set1(scales[2 * (unit % 8) + (size_t)(i * LANES / 16)]) * v_float(whole - 32);
    }
}

FN void decode_elements(uint32_t dtype, vf *w, const uint8_t *row, size_t unit)
{
    UNROLL
    for (int i = 0; i < UNIT_VECTORS; i++)
        w[i] = element_load(dtype, element_at(dtype, row, unit * UNIT + (size_t)(i * LANES)));
}

FN void decode_F32(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    (void)scales;
    decode_elements(QUIRE_F32, w, row, unit);
}

FN void decode_F16(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    (void)scales;
    decode_elements(QUIRE_F16, w, row, unit);
}

FN void decode_BF16(vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    (void)scales;
    decode_elements(QUIRE_BF16, w, row, unit);
}

/* type is a constant wherever this is used, so that one call remains. */
FN void decode(uint32_t type, vf *w, const uint8_t *row, size_t unit, const float *scales)
{
    switch (type) {
#define DECODE_CASE(name, value, elements, bytes, text)                                            \
    case QUIRE_W_##name:                                                                           \
        decode_##name(w, row, unit, scales);                                                       \
        break;
        QUIRE_WEIGHT_LIST(DECODE_CASE)
#undef DECODE_CASE
    default:
        break;
    }
}

/* ---- whole rows ---- */

/* Asks for the part of a later row of weights that stands at a unit. Few tokens need every weight
 * once, sooner than the hardware's own prefetching brings short rows. Nothing is read, so the
 * address may lie past the last row. */
FN void prefetch_unit(uint32_t type, const uint8_t *row, size_t ahead, size_t unit)
{
    size_t bytes = 0;
    switch (type) {
#define UNIT_BYTES_CASE(name, value, elements, block_bytes, text)                                  \
    case QUIRE_W_##name:                                                                           \
        bytes = (block_bytes)*UNIT / (elements);                                                   \
        break;
        QUIRE_WEIGHT_LIST(UNIT_BYTES_CASE)
#undef UNIT_BYTES_CASE
    default:
        break;
    }
    __builtin_prefetch((const void *)((uintptr_t)row + ahead + unit * bytes));
}

/* The element type of weights without blocks; their rows may end inside a unit. */
FN bool plain_dtype(uint32_t type, uint32_t *dtype)
{
    *dtype = type == QUIRE_W_F32 ? QUIRE_F32 : type == QUIRE_W_F16 ? QUIRE_F16 : QUIRE_BF16;
    return type == QUIRE_W_F32 || type == QUIRE_W_F16 || type == QUIRE_W_BF16;
}

/* Products of the elements after the last whole unit, one vector at a time. */
FN vf direct_rest(const struct quire__linear *t, uint32_t dtype, const uint8_t *row, const float *x,
                  vf acc)
{
    for (size_t k = t->columns / UNIT * UNIT; k < t->columns; k += LANES) {
        size_t left = t->columns - k;
        const void *w = element_at(dtype, row, k);
        if (left >= LANES)
            acc = v_fma(element_load(dtype, w), v_load(x + k), acc);
        else
            acc = v_fma(element_load_part(dtype, w, left), v_load_part(x + k, left), acc);
    }
    return acc;
}

/* y of [tokens][rows] at token i, row r; type, rows and tokens are constants. */
FN void direct_block(const struct quire__linear *t, uint32_t r, uint32_t i, uint32_t type, int rows,
                     int tokens)
{
    vf acc[4][DOT_ROWS];
    float scales[DOT_ROWS][2 * BLOCK_UNITS];
    const uint8_t *row = t->w + r * t->w_stride;
    const float *x = t->x + i * t->x_stride;
    uint32_t dtype;
    UNROLL
    for (int a = 0; a < tokens; a++) {
        UNROLL
        for (int b = 0; b < rows; b++)
            acc[a][b] = v_zero();
    }
    size_t units = t->columns / UNIT;
    for (size_t unit = 0; unit < units; unit++) {
        UNROLL
        for (int b = 0; b < rows; b++) {
            vf w[UNIT_VECTORS];
            if (unit % BLOCK_UNITS == 0)
                prepare(type, scales[b], row + (size_t)b * t->w_stride, unit);
            decode(type, w, row + (size_t)b * t->w_stride, unit, scales[b]);
            prefetch_unit(type, row, (size_t)(b + rows) * t->w_stride, unit);
            UNROLL
            for (int j = 0; j < UNIT_VECTORS; j++) {
                UNROLL
                for (int a = 0; a < tokens; a++) {
                    vf value = v_load(x + (size_t)a * t->x_stride + unit * UNIT + j * LANES);
                    acc[a][b] = v_fma(w[j], value, acc[a][b]);
                }
            }
        }
    }
    UNROLL
    for (int a = 0; a < tokens; a++) {
        UNROLL
        for (int b = 0; b < rows; b++) {
            if (plain_dtype(type, &dtype))
                acc[a][b] = direct_rest(t, dtype, row + (size_t)b * t->w_stride,
                                        x + (size_t)a * t->x_stride, acc[a][b]);
        }
        sum_and_store(t->y + (i + (uint32_t)a) * t->y_stride + r, acc[a], rows);
    }
}

FN void direct_tokens(const struct quire__linear *t, uint32_t i, uint32_t type, int tokens)
{
    uint32_t r = 0;
    int rows = tokens == 1 ? DIRECT_ROWS : DIRECT_ROWS_WIDE;
    for (; r + (uint32_t)rows <= t->rows; r += (uint32_t)rows)
        direct_block(t, r, i, type, rows, tokens);
    for (; r < t->rows; r++)
        direct_block(t, r, i, type, 1, tokens);
}

FN void direct(const struct quire__linear *t, uint32_t type)
{
    uint32_t i = 0, left = t->tokens;
#if LANES == 16
    for (; left >= 4; i += 4, left -= 4)
        direct_tokens(t, i, type, 4);
    if (left == 3) {
        direct_tokens(t, i, type, 3);
        return;
    }
#endif
    for (; left >= 2; i += 2, left -= 2)
        direct_tokens(t, i, type, 2);
    if (left == 1)
        direct_tokens(t, i, type, 1);
}

FN void dequant(float *to, const uint8_t *row, size_t columns, uint32_t type)
{
    float scales[2 * BLOCK_UNITS];
    uint32_t dtype;
    size_t units = columns / UNIT;
    for (size_t unit = 0; unit < units; unit++) {
        vf w[UNIT_VECTORS];
        if (unit % BLOCK_UNITS == 0)
            prepare(type, scales, row, unit);
        decode(type, w, row, unit, scales);
        UNROLL
        for (int i = 0; i < UNIT_VECTORS; i++)
            v_store(to + unit * UNIT + (size_t)(i * LANES), w[i]);
    }
    if (plain_dtype(type, &dtype))
        load_elements(dtype, to + units * UNIT, element_at(dtype, row, units * UNIT),
                      columns % UNIT);
}

#define WEIGHT_KERNELS(name, value, elements, bytes, text)                                         \
    KERNEL void dequant_##name(float *to, const uint8_t *row, size_t columns)                      \
    {                                                                                              \
        dequant(to, row, columns, QUIRE_W_##name);                                                 \
    }                                                                                              \
    KERNEL void direct_##name(const struct quire__linear *task)                                    \
    {                                                                                              \
        direct(task, QUIRE_W_##name);                                                              \
    }
QUIRE_WEIGHT_LIST(WEIGHT_KERNELS)
#undef WEIGHT_KERNELS

#endif
