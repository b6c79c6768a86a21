/* linear.h - products of panels and rows of activations.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A stretch of a few panels is decoded, then multiplied with every token, whether there are two or
 * 512. Every sum runs in one lane over the blocks in order; between stretches it waits in memory,
 * which changes no bit. With f32 a lane is the even or the odd columns of a row, and the two are
 * added at the end; with bf16 it is a row.
 *
 * Where the level multiplies bf16, weights with codes q meet whole numbers X (kernels.h,
 * `prepare`), and the products of a block, or of half of one that has two factors, are added up
 * without a rounding: 32 of at most 128 x 2^12 are at most 2^24. So whatever instruction adds them,
 * in whatever order, gives the same bits:
 *
 *     sum = sum + d (scale (q X + .. + q X))    of each block, or half of one,
 *     sum = sum + m (scale (X + .. + X))        of each block, where there are addends
 *
 * with d and m of each row, in f32. Types without codes have one sum. */
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

enum { X_VECTORS = QUIRE__BLOCK_COLUMNS / LANES };

#if defined(WITH_PRODUCTS)
/* A block of x: whole numbers of at most 2^12 in size, times a power of two. */
struct rounded_block {
    vf x[X_VECTORS];
    float scale, sum; /* sum is scaled */
};

#define X_SMALLEST   0x1p-100f /* of the largest of a block; its products stay normal */
#define X_LARGEST    0x1p115f  /* 2^24 times the scale is finite below this */
#define TO_WHOLES    0x1.8p23f /* adding it, then taking it away, rounds to nearest even */
#define TO_MULTIPLES 0x1.8p28f /* of 32 */

FN float largest_of_block(const vf *x)
{
    vf most = v_zero();
    UNROLL
    for (int v = 0; v < X_VECTORS; v++)
        most = v_max(most, (vf)((vu)x[v] & 0x7fffffffu));
    return v_largest(most);
}

/* What is no number makes the sum none, whatever the largest is then. */
FN void round_block(struct rounded_block *block, const vf *x)
{
    float largest = largest_of_block(x), up = 0;
    uint32_t power = f32_bits(X_SMALLEST);
    if (largest >= X_SMALLEST) {
        power = f32_bits(largest) & 0x7f800000u; /* 2^e in 2^e .. 2^(e + 1) */
        up = f32_from(f32_bits(0x1p127f) - (power - f32_bits(0x1p-116f))); /* 2^(11 - e) */
    }
    vf sum = v_zero();
    UNROLL
    for (int v = 0; v < X_VECTORS; v++) {
        block->x[v] = (x[v] * v_set1(up) + TO_WHOLES) - TO_WHOLES;
        sum += block->x[v];
    }
    float wholes = v_sum(sum);
    bool is_number = wholes - wholes == 0 && largest < X_LARGEST;
    block->scale = is_number ? f32_from(power - f32_bits(0x1p11f) + f32_bits(1.0f)) : NAN;
    block->sum = wholes * block->scale;
}

FN void put_wholes(weight_element *to, const struct rounded_block *block)
{
    UNROLL
    for (int v = 0; v < X_VECTORS; v++)
        v_to_u16(to + v * LANES, (vi)((vu)(block->x[v] + TO_WHOLES) - (vu)v_set1(TO_WHOLES)));
}

#if defined(WITH_TILES)
/* Tiles load fastest what lies together, so 16 rows are kept as [blocks][parts][16]. */
enum { X_TILE_ROWS = 16, X_PART_ELEMENTS = X_TILE_ROWS * QUIRE__BLOCK_COLUMNS };

/* Where row i has the first part of block b. */
FN weight_element *place_in_tile(const struct quire__inputs *rows, uint32_t i, size_t b,
                                 uint32_t parts)
{
    uint8_t *tiles = (uint8_t *)rows->to + i / X_TILE_ROWS * X_TILE_ROWS * rows->to_stride;
    return (weight_element *)(void *)tiles + b * parts * X_PART_ELEMENTS +
           i % X_TILE_ROWS * QUIRE__BLOCK_COLUMNS;
}

FN void put_parts(weight_element *to, const struct rounded_block *block)
{
    vf high[X_VECTORS], low[X_VECTORS], scale = v_set1(block->scale);
    UNROLL
    for (int v = 0; v < X_VECTORS; v++) {
        high[v] = (block->x[v] + TO_MULTIPLES) - TO_MULTIPLES;
        low[v] = (block->x[v] - high[v]) * scale;
        high[v] *= scale;
    }
    put_step(to, high);
    put_step(to + X_PART_ELEMENTS, low);
}
#endif

/* Whether so many tokens, of weights with codes, are multiplied on tiles. */
FN bool codes_on_tiles(uint32_t tokens)
{
#if defined(WITH_TILES)
    return tokens > 1;
#else
    (void)tokens;
    return false;
#endif
}
#endif

FN weight_element *prepared_row(const struct quire__inputs *rows, uint32_t i)
{
    return (weight_element *)(void *)((uint8_t *)rows->to + i * rows->to_stride);
}

#if defined(WITH_PRODUCTS)
/* Block b of row i, for weights with codes. */
FN void prepare_block(const struct quire__inputs *rows, uint32_t i, size_t b, const vf *x)
{
    struct rounded_block block;
    round_block(&block, x);
    rows->at.scales[b * rows->at.stride + i] = block.scale;
    rows->at.sums[b * rows->at.stride + i] = block.sum;
#if defined(WITH_TILES)
    if (codes_on_tiles(rows->tokens)) {
        put_parts(place_in_tile(rows, i, b, 2), &block);
        return;
    }
#endif
    put_wholes(prepared_row(rows, i) + b * QUIRE__BLOCK_COLUMNS, &block);
}
#endif

/* Block b of row i, for weights without. */
FN void prepare_plain(const struct quire__inputs *rows, uint32_t i, size_t b, const vf *x)
{
#if defined(WITH_TILES)
    put_step(place_in_tile(rows, i, b, 1), x);
#else
    put_step(prepared_row(rows, i) + b * QUIRE__BLOCK_COLUMNS, x);
#endif
}

/* Row i of x. */
FN void prepare_row(const struct quire__inputs *rows, uint32_t i)
{
    const float *x = rows->x + i * rows->x_stride;
    for (size_t k = 0; k < rows->columns; k += QUIRE__BLOCK_COLUMNS) {
        vf part[X_VECTORS];
        UNROLL
        for (size_t v = 0; v < X_VECTORS; v++)
            part[v] = v_load_row(x, k + v * LANES, rows->columns);
#if defined(WITH_PRODUCTS)
        if (rows->codes) {
            prepare_block(rows, i, k / QUIRE__BLOCK_COLUMNS, part);
            continue;
        }
#endif
        prepare_plain(rows, i, k / QUIRE__BLOCK_COLUMNS, part);
    }
}

KERNEL void prepare(const struct quire__inputs *rows)
{
    for (uint32_t i = 0; i < rows->rows; i++)
        prepare_row(rows, i);
}

/* ---- a stretch ---- */

/* Blocks of a stretch: its weights stay near while all tokens pass. */
#if defined(WITH_PRODUCTS)
enum { STRETCH_BLOCKS = 8 };
#else
enum { STRETCH_BLOCKS = 4 };
#endif

/* A decoded stretch and the prepared tokens that it is multiplied with. */
struct stretch_product {
    const weight_element *w; /* [panels][blocks], so many elements apart: */
    size_t panel_stride, block_stride;
    const weight_element *x; /* [tokens] at the stretch's first block, as `prepare` lays them out */
    size_t x_stride;         /* elements */
    struct quire__lines at;  /* of the stretch's first block; with bf16 and codes only */
    float *sums;             /* [panels][tokens][SUM_LANES] */
    float *dots;             /* room for the products of tiles */
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

/* Elements from a block of a prepared row to the next. */
FN size_t x_block_elements(const struct quire__linear *t)
{
#if defined(WITH_TILES)
    return t->panels->scaling == QUIRE__PLAIN ? X_PART_ELEMENTS : 2 * X_PART_ELEMENTS;
#else
    (void)t;
    return QUIRE__BLOCK_COLUMNS;
#endif
}

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
    s->x = (const weight_element *)t->x + first * x_block_elements(t);
    if (t->at.sums != NULL) {
        s->at.scales = t->at.scales + first * t->at.stride;
        s->at.sums = t->at.sums + first * t->at.stride;
    }
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
    if (t->panels->scaling != QUIRE__PLAIN && t->tokens <= 2 * TILE_ROWS_MAX)
        return 1;
#endif
    (void)t;
    return QUIRE__GROUP;
}

FN void linear_chunk(const struct quire__linear *t, uint32_t panel, uint32_t panels)
{
    uint8_t *room = (uint8_t *)t->scratch + QUIRE__DECODED_BYTES;
    struct stretch_product s = {
        .x_stride = t->x_stride / sizeof(weight_element),
        .at.stride = t->at.stride,
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

FN void lone_token(const struct quire__linear *t)
{
#if defined(WITH_TILES)
    if (t->panels->scaling == QUIRE__PLAIN) {
        uint32_t saved = flush_begin();
        t->type->lone(t);
        flush_end(saved);
        return;
    }
#endif
    t->type->lone(t);
}

KERNEL void linear(const struct quire__linear *t)
{
    uint32_t end = t->first_panel + t->num_panels;
    size_t x_bytes = t->tokens * t->x_stride;
    uint32_t most = x_bytes <= X_BYTES_MAX ? QUIRE__GROUP : CHUNK_PANELS;
    if (t->tokens == 1) {
        lone_token(t);
        return;
    }
    multiply_begin(t);
    for (uint32_t p = t->first_panel; p < end; p += most)
        linear_chunk(t, p, end - p < most ? end - p : most);
    multiply_end();
}

#endif
