/* linear.h - products of panels and rows of activations.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A stretch of a few panels is decoded, then multiplied with every token, whether there are two or
 * 512. Every sum runs in one lane over the blocks in order; between stretches it waits in memory,
 * which changes no bit. With f32 a lane is the even or the odd columns of a row, and the two are
 * added at the end; with bf16 it is a row.
 *
 * Where the level multiplies bf16, the products of a block, or of half of one that has two factors,
 * have a sum of their own, which begins at zero:
 *
 *     sum = sum + m (x + .. + x)   of the eight blocks of a stretch,
 *     sum = sum + d dot            of each of them
 *
 * with a factor d and an addend m of each row, in f32. Types without codes have one sum. */
#ifndef QUIRE_BACKEND_CPU_LANES_LINEAR_H
#define QUIRE_BACKEND_CPU_LANES_LINEAR_H

enum {
#if defined(WITH_PRODUCTS)
    SUM_VECTORS = ROW_VECTORS, /* of a panel and a token */
#else
    SUM_VECTORS = STEP_VECTORS,
#endif
    SUM_LANES = SUM_VECTORS * LANES,
    VECTOR_ROWS = QUIRE__PANEL_ROWS / SUM_VECTORS,
};

/* ---- rows of x ---- */

#if defined(WITH_PRODUCTS)
/* Below this, products with whole numbers could lose bits of subnormal sums, which an instruction
 * flushes and another one keeps. */
#define X_SMALLEST 0x1p-100f

FN vf without_tiny(vf x)
{
    vf size = (vf)((vu)x & 0x7fffffffu);
    return v_if_less(size, v_set1(X_SMALLEST), v_zero(), x);
}

/* The sum of a block's elements, as they were rounded. */
FN float block_sum(const weight_element *x)
{
    vf sum = v_zero();
    UNROLL
    for (int i = 0; i < QUIRE__BLOCK_COLUMNS / LANES; i++)
        sum += v_from_bf16(x + i * LANES);
    return v_sum(sum);
}
#endif

/* Row i of x. */
FN void prepare_row(const struct quire__inputs *rows, uint32_t i)
{
    const float *x = rows->x + i * rows->x_stride;
    weight_element *to = (weight_element *)rows->to + i * rows->to_stride;
    for (size_t k = 0; k < rows->columns; k += QUIRE__BLOCK_COLUMNS) {
        vf part[QUIRE__BLOCK_COLUMNS / LANES];
        UNROLL
        for (size_t v = 0; v < QUIRE__BLOCK_COLUMNS / LANES; v++) {
            size_t at = k + v * LANES;
            size_t left = rows->columns > at ? rows->columns - at : 0;
            part[v] = left >= LANES ? v_load(x + at) : v_load_part(x + at, left);
#if defined(WITH_PRODUCTS)
            if (rows->codes)
                part[v] = without_tiny(part[v]);
#endif
        }
        put_step(to + k, part);
#if defined(WITH_PRODUCTS)
        rows->sums[k / QUIRE__BLOCK_COLUMNS * rows->sums_stride + i] = block_sum(to + k);
#endif
    }
}

KERNEL void prepare(const struct quire__inputs *rows)
{
    for (uint32_t i = 0; i < rows->rows; i++)
        prepare_row(rows, i);
}

/* ---- a stretch ---- */

/* Blocks of a stretch: its weights stay in the first-level cache while all tokens pass. Where bf16
 * is multiplied, its addends come first, so another number gives other bits. */
#if defined(WITH_PRODUCTS)
enum { STRETCH_BLOCKS = 8 };
#else
enum { STRETCH_BLOCKS = 4 };
#endif

/* A decoded stretch and the prepared tokens that it is multiplied with. */
struct stretch_product {
    const weight_element *w; /* [panels][blocks], so many elements apart: */
    size_t panel_stride, block_stride;
    const weight_element *x; /* [tokens] at the stretch's first column */
    size_t x_stride;
    const float *x_sums; /* [blocks][tokens], bf16 only */
    size_t x_sums_stride;
    float *sums; /* [panels][tokens][SUM_LANES] */
    float *dots; /* room for the products of tiles */
    uint32_t panels, blocks, tokens;
    enum quire__scaling scaling;
    bool first; /* sums begin at zero */
    float *y;   /* where the sums are wanted: of the panels' first row; NULL: as sums */
    size_t y_stride;
};

/* y of the panels' first row where all of them are full, else NULL: then a copy goes between. */
FN float *full_rows(const struct quire__linear *t, uint32_t panel, uint32_t panels)
{
    uint64_t first = (uint64_t)panel * QUIRE__PANEL_ROWS, rows = panels * QUIRE__PANEL_ROWS;
    return first + rows <= t->panels->rows ? t->y + first : NULL;
}

/* The rows of y whose sums some vectors are. */
FN void put_rows(float *y, const vf *sums, int vectors)
{
#if defined(WITH_PRODUCTS)
    UNROLL
    for (int v = 0; v < vectors; v++)
        v_store(y + v * LANES, sums[v]);
#else
    UNROLL
    for (int v = 0; v < vectors; v += 2)
        v_store(y + v / 2 * LANES, v_even(sums[v], sums[v + 1]) + v_odd(sums[v], sums[v + 1]));
#endif
}

/* Rows of a panel that may not be full, from the sums of a token. */
FN void copy_rows(const struct quire__linear *t, const vf *sums, uint32_t panel, uint32_t token)
{
    uint64_t first = (uint64_t)panel * QUIRE__PANEL_ROWS, left = t->panels->rows - first;
    float rows[QUIRE__PANEL_ROWS];
    put_rows(rows, sums, SUM_VECTORS);
    memcpy(t->y + token * t->y_stride + first, rows,
           (left < QUIRE__PANEL_ROWS ? left : QUIRE__PANEL_ROWS) * sizeof(float));
}

#include "backend/cpu/lanes/lone.h"

#if defined(WITH_TILES)
#include "backend/cpu/lanes/tiles.h"

#else
#include "backend/cpu/lanes/multiply.h"
#endif

/* ---- all of a matrix ---- */

_Static_assert(sizeof(weight_element) * QUIRE__GROUP * STRETCH_BLOCKS * DECODED_ELEMENTS <=
                   QUIRE__DECODED_BYTES,
               "a stretch fits");

/* Panels that pass before the next stretch: their sums wait meanwhile, and the tokens' part of x
 * stays in the second-level cache. Where all of x fits there, a group is done at once. */
enum {
    CHUNK_PANELS = QUIRE__SUMS_BYTES / (QUIRE__TOKENS_MAX * SUM_LANES * 4),
    X_BYTES_MAX = 512 << 10,
};

/* Decodes [panels][blocks]. */
FN void decode_stretch(const struct quire__linear *t, struct stretch_product *s, uint32_t panel,
                       uint32_t first)
{
    weight_element *to = t->scratch;
    s->w = to;
    s->block_stride = decoded_elements(s->scaling);
    s->panel_stride = s->blocks * s->block_stride;
    for (uint32_t p = panel; p < panel + s->panels; p++, to += s->panel_stride)
        t->type->decode(to, t->panels, p, first, s->blocks);
}

/* s->blocks blocks, from block `first`, of s->panels panels. */
FN void linear_stretch(const struct quire__linear *t, struct stretch_product *s, uint32_t panel,
                       uint32_t first)
{
    s->x = (const weight_element *)t->x + (size_t)first * QUIRE__BLOCK_COLUMNS;
#if defined(WITH_PRODUCTS)
    s->x_sums = t->x_sums + first * t->x_sums_stride;
#endif
    s->first = first == 0;
    s->y = first + s->blocks == t->panels->blocks ? full_rows(t, panel, s->panels) : NULL;
    decode_stretch(t, s, panel, first);
    multiply(s);
    for (uint32_t i = 0;
         first + s->blocks == t->panels->blocks && s->y == NULL && i < s->panels * s->tokens; i++) {
        vf sums[SUM_VECTORS];
        memcpy(sums, s->sums + (size_t)i * SUM_LANES, sizeof sums);
        copy_rows(t, sums, panel + i / s->tokens, i % s->tokens);
    }
}

/* Panels that are decoded before they are multiplied. With few tokens on tiles it is one, so that
 * memory, which only decoding reads, does not rest for long. */
FN uint32_t panels_together(const struct quire__linear *t)
{
#if defined(WITH_TILES)
    if (t->panels->scaling != QUIRE__PLAIN && t->tokens <= TWO_TILES)
        return 1;
#endif
    (void)t;
    return QUIRE__GROUP;
}

FN void linear_chunk(const struct quire__linear *t, uint32_t panel, uint32_t panels)
{
    uint8_t *room = (uint8_t *)t->scratch + QUIRE__DECODED_BYTES;
    struct stretch_product s = {
        .x_stride = t->x_stride,
        .x_sums_stride = t->x_sums_stride,
        .tokens = t->tokens,
        .scaling = t->panels->scaling,
        .y_stride = t->y_stride,
        .dots = (float *)(void *)(room + QUIRE__SUMS_BYTES),
    };
    uint32_t together = panels_together(t);
    for (uint32_t b = 0; b < t->panels->blocks; b += s.blocks) {
        uint32_t left = t->panels->blocks - b;
        s.blocks = left < STRETCH_BLOCKS ? left : STRETCH_BLOCKS;
        for (uint32_t p = 0; p < panels; p += s.panels) {
            s.panels = panels - p < together ? panels - p : together;
            s.sums = (float *)(void *)room + (size_t)p * t->tokens * SUM_LANES;
            linear_stretch(t, &s, panel + p, b);
        }
    }
}

KERNEL void linear(const struct quire__linear *t)
{
    uint32_t end = t->first_panel + t->num_panels;
    size_t x_bytes = t->tokens * t->panels->columns * sizeof(weight_element);
    uint32_t most = x_bytes <= X_BYTES_MAX ? QUIRE__GROUP : CHUNK_PANELS;
    if (t->tokens == 1 && t->type->lone != NULL) {
        t->type->lone(t);
        return;
    }
    multiply_begin(t);
    for (uint32_t p = t->first_panel; p < end; p += most)
        linear_chunk(t, p, end - p < most ? end - p : most);
    multiply_end();
}

#endif
