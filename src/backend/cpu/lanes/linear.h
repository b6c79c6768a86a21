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

/* ---- decoding a unit of 32 weights; formats and formulas: ref/weights.h ---- */

/* w = d q + m for q of 4 bits in the low and high halves of 16 bytes. */
FN void decode_halves(vf *w, const uint8_t *q, vf d, vf m)
{
#if LANES == 16
    vf steps = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vf table = v_fma(steps, d, m);
    vi both = v_from_u8(q);
    w[0] = v_look_up(table, both);
    w[1] = v_look_up(table, both >> 4);
#else
    UNROLL
    for (int i = 0; i < UNIT_VECTORS / 2; i++) {
        vi both = v_from_u8(q + i * LANES);
        w[i] = v_fma(v_float(both & 15), d, m);
        w[i + UNIT_VECTORS / 2] = v_fma(v_float(both >> 4), d, m);
    }
#endif
}

/* w = d (q - 8), where an fma could turn a zero's sign. */
FN void decode_Q4_0(vf *w, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit * 18;
    vf d = v_set1(half_at(block));
#if LANES == 16
    vf steps = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
    vf table = steps * d;
    vi both = v_from_u8(block + 2);
    w[0] = v_look_up(table, both);
    w[1] = v_look_up(table, both >> 4);
#else
    UNROLL
    for (int i = 0; i < UNIT_VECTORS / 2; i++) {
        vi both = v_from_u8(block + 2 + i * LANES);
        w[i] = v_float((both & 15) - 8) * d;
        w[i + UNIT_VECTORS / 2] = v_float((both >> 4) - 8) * d;
    }
#endif
}

FN void decode_Q4_1(vf *w, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit * 20;
    decode_halves(w, block + 4, v_set1(half_at(block)), v_set1(half_at(block + 2)));
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

FN void decode_Q5_0(vf *w, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit * 22;
    vf d = v_set1(half_at(block));
    uint32_t h = u32_at(block + 2);
    UNROLL
    for (int i = 0; i < UNIT_VECTORS / 2; i++) {
        vi both = v_from_u8(block + 6 + i * LANES);
        w[i] = v_float(((both & 15) | fifth_bits(h, i * LANES)) - 16) * d;
        w[i + UNIT_VECTORS / 2] = v_float((both >> 4 | fifth_bits(h, 16 + i * LANES)) - 16) * d;
    }
}

FN void decode_Q5_1(vf *w, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit * 24;
    vf d = v_set1(half_at(block)), m = v_set1(half_at(block + 2));
    uint32_t h = u32_at(block + 4);
    UNROLL
    for (int i = 0; i < UNIT_VECTORS / 2; i++) {
        vi both = v_from_u8(block + 8 + i * LANES);
        w[i] = v_fma(v_float((both & 15) | fifth_bits(h, i * LANES)), d, m);
        w[i + UNIT_VECTORS / 2] = v_fma(v_float(both >> 4 | fifth_bits(h, 16 + i * LANES)), d, m);
    }
}

FN void decode_Q8_0(vf *w, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit * 34;
    vf d = v_set1(half_at(block));
    UNROLL
    for (int i = 0; i < UNIT_VECTORS; i++)
        w[i] = v_float(v_from_i8(block + 2 + i * LANES)) * d;
}

/* d scale and -m offset of unit j of a Q4_K or Q5_K block. */
FN void decode_scales(const uint8_t *block, uint32_t j, vf *d, vf *m)
{
    uint8_t scale, offset;
    scale_and_offset(block + 4, j, &scale, &offset);
    *d = v_set1(half_at(block) * (float)scale);
    *m = v_set1(-(half_at(block + 2) * (float)offset));
}

FN void decode_Q4_K(vf *w, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit / 8 * 144;
    uint32_t j = (uint32_t)(unit % 8);
    const uint8_t *q = block + 16 + j / 2 * 32;
    vf d, m;
    decode_scales(block, j, &d, &m);
    UNROLL
    for (int i = 0; i < UNIT_VECTORS; i++)
        w[i] = v_fma(v_float(v_from_u8(q + i * LANES) >> (int)(j % 2 * 4) & 15), d, m);
}

FN void decode_Q5_K(vf *w, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit / 8 * 176;
    uint32_t j = (uint32_t)(unit % 8);
    const uint8_t *high = block + 16, *q = block + 48 + j / 2 * 32;
    vf d, m;
    decode_scales(block, j, &d, &m);
    UNROLL
    for (int i = 0; i < UNIT_VECTORS; i++) {
        vi low = v_from_u8(q + i * LANES) >> (int)(j % 2 * 4) & 15;
        vi fifth = (v_from_u8(high + i * LANES) >> (int)j & 1) << 4;
        w[i] = v_fma(v_float(low | fifth), d, m);
    }
}

FN void decode_Q6_K(vf *w, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit / 8 * 210;
    uint32_t n = (uint32_t)(unit % 8 / 4), j = (uint32_t)(unit % 4);
    const uint8_t *low = block + 64 * n + j % 2 * 32, *high = block + 128 + 32 * n;
    const uint8_t *scales = block + 192 + 8 * n + 2 * j;
    float d = half_at(block + 208);
    UNROLL
    for (int i = 0; i < UNIT_VECTORS; i++) {
        vi whole = v_from_u8(low + i * LANES) >> (int)(j / 2 * 4) & 15;
        whole |= (v_from_u8(high + i * LANES) >> (int)(2 * j) & 3) << 4;
        vf scale = v_set1(d * (float)(int8_t)scales[i * LANES / 16]);
        w[i] = scale * v_float(whole - 32);
    }
}

FN void decode_elements(uint32_t dtype, vf *w, const uint8_t *row, size_t unit)
{
    UNROLL
    for (int i = 0; i < UNIT_VECTORS; i++)
        w[i] = element_load(dtype, element_at(dtype, row, unit * UNIT + (size_t)(i * LANES)));
}

FN void decode_F32(vf *w, const uint8_t *row, size_t unit)
{
    decode_elements(QUIRE_F32, w, row, unit);
}

FN void decode_F16(vf *w, const uint8_t *row, size_t unit)
{
    decode_elements(QUIRE_F16, w, row, unit);
}

FN void decode_BF16(vf *w, const uint8_t *row, size_t unit)
{
    decode_elements(QUIRE_BF16, w, row, unit);
}

/* type is a constant wherever this is used, so that one call remains. */
FN void decode(uint32_t type, vf *w, const uint8_t *row, size_t unit)
{
    switch (type) {
#define DECODE_CASE(name, value, elements, bytes, text)                                            \
    case QUIRE_W_##name:                                                                           \
        decode_##name(w, row, unit);                                                               \
        break;
        QUIRE_WEIGHT_LIST(DECODE_CASE)
#undef DECODE_CASE
    default:
        break;
    }
}

/* ---- whole rows ---- */

/* The element type of weights without blocks; their rows may end inside a unit. */
FN bool plain_dtype(uint32_t type, uint32_t *dtype)
{
    *dtype = type == QUIRE_W_F32 ? QUIRE_F32 : type == QUIRE_W_F16 ? QUIRE_F16 : QUIRE_BF16;
    return type == QUIRE_W_F32 || type == QUIRE_W_F16 || type == QUIRE_W_BF16;
}

/* Products of the elements after the last whole unit, one vector at a time. */
FN void direct_rest(const struct quire__linear *t, uint32_t dtype, const uint8_t *row,
                    const float *x, vf *acc)
{
    for (size_t k = t->columns / UNIT * UNIT; k < t->columns; k += LANES) {
        size_t left = t->columns - k;
        const void *w = element_at(dtype, row, k);
        if (left >= LANES)
            *acc = v_fma(element_load(dtype, w), v_load(x + k), *acc);
        else
            *acc = v_fma(element_load_part(dtype, w, left), v_load_part(x + k, left), *acc);
    }
}

/* y of [tokens][rows] at token i, row r; type, rows and tokens are constants. */
FN void direct_block(const struct quire__linear *t, uint32_t r, uint32_t i, uint32_t type, int rows,
                     int tokens)
{
    vf acc[QUIRE__TOKENS_DIRECT][DOT_ROWS];
    const uint8_t *row = t->w + r * t->w_stride;
    const float *x = t->x + i * t->x_stride;
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
            decode(type, w, row + (size_t)b * t->w_stride, unit);
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
    uint32_t dtype;
    if (plain_dtype(type, &dtype) && t->columns % UNIT != 0) {
        UNROLL
        for (int a = 0; a < tokens; a++) {
            UNROLL
            for (int b = 0; b < rows; b++)
                direct_rest(t, dtype, row + (size_t)b * t->w_stride, x + (size_t)a * t->x_stride,
                            &acc[a][b]);
        }
    }
    UNROLL
    for (int a = 0; a < tokens; a++)
        sum_and_store(t->y + (i + (uint32_t)a) * t->y_stride + r, acc[a], rows);
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
    if (t->tokens == 1) {
        direct_tokens(t, 0, type, 1);
        return;
    }
    uint32_t i = 0;
    for (; i + 2 <= t->tokens; i += 2)
        direct_tokens(t, i, type, 2);
    if (i < t->tokens)
        direct_tokens(t, i, type, 1);
}

FN void dequant(float *to, const uint8_t *row, size_t columns, uint32_t type)
{
    uint32_t dtype;
    size_t units = columns / UNIT;
    for (size_t unit = 0; unit < units; unit++) {
        vf w[UNIT_VECTORS];
        decode(type, w, row, unit);
        UNROLL
        for (int i = 0; i < UNIT_VECTORS; i++)
            v_store(to + unit * UNIT + (size_t)(i * LANES), w[i]);
    }
    if (plain_dtype(type, &dtype) && columns % UNIT != 0)
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
