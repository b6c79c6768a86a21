/* linear.h - products of panels and rows of activations.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A stretch of a few panels is decoded, then multiplied with every token, whether there is one or
 * 512. Every sum runs in one lane over the steps in order; between stretches it waits in memory,
 * which changes no bit. With f32 a lane is the even or the odd columns of a row, and the two are
 * added at the end; with bf16 it is a row. */
#ifndef QUIRE_BACKEND_CPU_LANES_LINEAR_H
#define QUIRE_BACKEND_CPU_LANES_LINEAR_H

enum {
#if defined(WITH_PRODUCTS)
    SUM_VECTORS = QUIRE__PANEL_ROWS / LANES, /* of a panel and a token */
#else
    SUM_VECTORS = STEP_VECTORS,
#endif
    SUM_LANES = SUM_VECTORS * LANES,
    VECTOR_ROWS = QUIRE__PANEL_ROWS / SUM_VECTORS,
};

KERNEL void prepare(const struct quire__inputs *rows)
{
    for (uint32_t i = 0; i < rows->rows; i++) {
        const float *x = rows->x + i * rows->x_stride;
        weight_element *to = (weight_element *)rows->to + i * rows->to_stride;
        for (size_t k = 0; k < rows->columns; k += QUIRE__BLOCK_COLUMNS) {
            vf part[QUIRE__BLOCK_COLUMNS / LANES];
            UNROLL
            for (size_t v = 0; v < QUIRE__BLOCK_COLUMNS / LANES; v++) {
                size_t at = k + v * LANES;
                size_t left = rows->columns > at ? rows->columns - at : 0;
                part[v] = left >= LANES ? v_load(x + at) : v_load_part(x + at, left);
            }
            put_step(to + k, part);
        }
    }
}

/* A decoded stretch and the prepared tokens that it is multiplied with. */
struct stretch_product {
    const weight_element *w; /* [panels][blocks] */
    const weight_element *x; /* [tokens] at the stretch's first column */
    size_t x_stride;
    float *sums; /* [panels][tokens][SUM_LANES] */
    uint32_t panels, blocks, tokens;
    bool first; /* sums begin at zero */
    float *y;   /* where the sums are wanted: of the panels' first row; NULL: as sums */
    size_t y_stride;
};

enum { LINE_BYTES = 64 }; /* of a cache */

/* Asks for `bytes` bytes that are needed soon; they may lie past the last panel. */
FN void prefetch_ahead(const uint8_t *p, size_t ahead, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i += LINE_BYTES)
        __builtin_prefetch((const void *)((uintptr_t)p + ahead + i), 0, 2);
}

/* Asks for a block of the next group. */
FN void prefetch_block(const struct quire__panels *panels, const struct quire__block *block)
{
    size_t ahead = QUIRE__GROUP * panels->panel_bytes;
    prefetch_ahead(block->codes, ahead, quire__codes_bytes(panels->codes));
    prefetch_ahead(block->scales, ahead, quire__scales_bytes(panels->scaling));
}

FN void decode_at(const struct quire__linear *t, weight_element *to, uint32_t panel, uint32_t block)
{
    struct quire__block from = quire__block_at(t->panels, panel, block);
    prefetch_block(t->panels, &from);
    t->type->decode(to, &from);
}

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

#if defined(WITH_TILES)
#include "backend/cpu/lanes/tiles.h"
#else
enum {
    REST_VECTORS =
        (int)SUM_VECTORS < (int)PRODUCT_VECTORS ? (int)SUM_VECTORS : (int)PRODUCT_VECTORS,
};

/* The two columns of a step of one token, over all lanes. */
FN vf step_columns(const weight_element *x)
{
#if defined(WITH_PRODUCTS)
    uint32_t pair;
    memcpy(&pair, x, sizeof pair);
    return (vf)v_spread(pair);
#else
    return v_set2(x);
#endif
}

FN vf step_add(vf sum, vf w, vf x)
{
#if defined(WITH_PRODUCTS)
    return step_dot(sum, (vu)w, (vu)x);
#else
    return v_fma(w, x, sum);
#endif
}

/* Where vector v lies after the first of a tile, given what a whole panel takes; the first one is
 * at a multiple of as many as a tile has. */
FN size_t vector_at(int v, size_t panel, size_t vector)
{
    return (size_t)(v / SUM_VECTORS) * panel + (size_t)(v % SUM_VECTORS) * vector;
}

/* Sums of [tokens][vectors] at token t, vector u of the panels; tokens and vectors are constants.
 */
FN void product_tile(const struct stretch_product *s, uint32_t t, int u, int tokens, int vectors)
{
    vf sum[PRODUCT_TOKENS][8];
    size_t vector = 4 * LANES / sizeof(weight_element);
    size_t panel_sums = (size_t)s->tokens * SUM_LANES;
    size_t panel_weights = (size_t)s->blocks * QUIRE__BLOCK_WEIGHTS;
    float *sums = s->sums + vector_at(u, panel_sums, LANES) + (size_t)t * SUM_LANES;
    const weight_element *w = s->w + vector_at(u, panel_weights, vector);
    const weight_element *x = s->x + t * s->x_stride;
    UNROLL
    for (int a = 0; a < tokens; a++) {
        UNROLL
        for (int v = 0; v < vectors; v++)
            sum[a][v] = s->first ? v_zero()
                                 : v_load(sums + vector_at(v, panel_sums, LANES) + a * SUM_LANES);
    }
    for (uint32_t step = 0; step < s->blocks * QUIRE__BLOCK_STEPS; step++) {
        vf weights[8];
        UNROLL
        for (int v = 0; v < vectors; v++)
            memcpy(&weights[v], w + vector_at(v, panel_weights, vector), sizeof weights[v]);
        UNROLL
        for (int a = 0; a < tokens; a++) {
            vf columns = step_columns(x + (size_t)a * s->x_stride);
            UNROLL
            for (int v = 0; v < vectors; v++)
                sum[a][v] = step_add(sum[a][v], weights[v], columns);
        }
        w += QUIRE__STEP_WEIGHTS;
        x += 2;
    }
    UNROLL
    for (int a = 0; a < tokens; a++) {
        if (s->y != NULL) {
            put_rows(s->y + (t + (uint32_t)a) * s->y_stride + u * VECTOR_ROWS, sum[a], vectors);
            continue;
        }
        UNROLL
        for (int v = 0; v < vectors; v++)
            v_store(sums + vector_at(v, panel_sums, LANES) + a * SUM_LANES, sum[a][v]);
    }
}

/* All tokens and some vectors; their number is a constant. */
FN void product_vectors(const struct stretch_product *s, int u, int vectors)
{
    uint32_t t = 0;
    for (; t + PRODUCT_TOKENS <= s->tokens; t += PRODUCT_TOKENS)
        product_tile(s, t, u, PRODUCT_TOKENS, vectors);
#if LANES == 16
    for (; t + 3 <= s->tokens; t += 3)
        product_tile(s, t, u, 3, vectors);
#endif
    for (; t < s->tokens; t++)
        product_tile(s, t, u, 1, vectors);
}

FN void multiply(const struct stretch_product *s)
{
    int vectors = (int)s->panels * SUM_VECTORS, u = 0;
    for (; u + PRODUCT_VECTORS <= vectors; u += PRODUCT_VECTORS)
        product_vectors(s, u, PRODUCT_VECTORS);
    for (; u < vectors; u += REST_VECTORS)
        product_vectors(s, u, REST_VECTORS);
}

/* ---- one token: a step is multiplied in the registers where it is decoded ---- */

/* Adds the products of half a block to the sums of its panel. */
FN void add_half(vf *sums, const struct half *half, struct form form, const weight_element *x)
{
#if defined(WITH_PRODUCTS)
    UNROLL
    for (int v = 0; v < SUM_VECTORS; v++) {
        UNROLL
        for (int j = 0; j < HALF_STEPS; j++) {
            vf low = half_weights(half, form, j, 2 * v),
               high = half_weights(half, form, j, 2 * v + 1);
            sums[v] = step_dot(sums[v], step_pairs(low, high), (vu)step_columns(x + 2 * j));
        }
    }
#else
    UNROLL
    for (int v = 0; v < STEP_VECTORS; v++) {
        UNROLL
        for (int j = 0; j < HALF_STEPS; j++)
            sums[v] = v_fma(half_weights(half, form, j, v), step_columns(x + 2 * j), sums[v]);
    }
#endif
}

FN void lone_panels(const struct quire__linear *t, struct form form, vf (*sums)[SUM_VECTORS],
                    uint32_t panel, uint32_t panels)
{
    for (uint32_t b = 0; b < t->panels->blocks; b++) {
        const weight_element *x = (const weight_element *)t->x + (size_t)b * QUIRE__BLOCK_COLUMNS;
        for (uint32_t p = 0; p < panels; p++) {
            struct quire__block from = quire__block_at(t->panels, panel + p, b);
            struct half half;
            prefetch_block(t->panels, &from);
            UNROLL
            for (int i = 0; i < 2; i++) {
                load_half(&half, &from, form, i);
                add_half(sums[p], &half, form, x + i * QUIRE__BLOCK_COLUMNS / 2);
            }
        }
    }
}

FN void lone(const struct quire__linear *t, struct form form)
{
    uint32_t end = t->first_panel + t->num_panels;
    for (uint32_t panel = t->first_panel; panel < end; panel += QUIRE__GROUP) {
        uint32_t panels = end - panel < QUIRE__GROUP ? end - panel : QUIRE__GROUP;
        vf sums[QUIRE__GROUP][SUM_VECTORS];
        memset(sums, 0, sizeof sums);
        lone_panels(t, form, sums, panel, panels);
        for (uint32_t p = 0; p < panels; p++) {
            uint64_t first = (uint64_t)(panel + p) * QUIRE__PANEL_ROWS;
            uint64_t left = t->panels->rows - first;
            float rows[QUIRE__PANEL_ROWS];
            put_rows(rows, sums[p], SUM_VECTORS);
            memcpy(t->y + first, rows,
                   (left < QUIRE__PANEL_ROWS ? left : QUIRE__PANEL_ROWS) * sizeof(float));
        }
    }
}

#define LONE_KERNEL(name, codes, scaling)                                                          \
    KERNEL void lone_##name(const struct quire__linear *task)                                      \
    {                                                                                              \
        lone(task, (struct form){QUIRE_W_##name, codes, scaling});                                 \
    }
QUIRE__FORMAT_LIST(LONE_KERNEL)
#undef LONE_KERNEL
#define LONE(name) lone_##name

FN void multiply_begin(uint32_t tokens)
{
    (void)tokens;
}

FN void multiply_end(void)
{
}
#endif

/* ---- all of a matrix ---- */

/* Blocks of a stretch of many tokens: its weights stay near while all of them pass, in the
 * first-level cache where a step is short, in the second where a tile takes long to set up. */
#if defined(WITH_TILES)
enum { STRETCH_BLOCKS = 64 };
#else
enum { STRETCH_BLOCKS = 4 };
#endif
_Static_assert(sizeof(weight_element) * QUIRE__GROUP * STRETCH_BLOCKS * QUIRE__BLOCK_WEIGHTS <=
                   QUIRE__DECODED_BYTES,
               "a stretch fits");

/* Decodes [panels][blocks]. */
FN void decode_stretch(const struct quire__linear *t, uint32_t panel, uint32_t panels,
                       uint32_t first, uint32_t blocks)
{
    weight_element *to = t->scratch;
    for (uint32_t p = panel; p < panel + panels; p++) {
        for (uint32_t b = first; b < first + blocks; b++, to += QUIRE__BLOCK_WEIGHTS)
            decode_at(t, to, p, b);
    }
}

/* Some panels of all tokens, `most` blocks at a time. */
FN void linear_stretches(const struct quire__linear *t, struct stretch_product *s, uint32_t panel,
                         uint32_t most)
{
    float *y = s->y;
    for (uint32_t b = 0; b < t->panels->blocks; b += s->blocks) {
        uint32_t left = t->panels->blocks - b;
        s->blocks = left < most ? left : most;
        s->x = (const weight_element *)t->x + (size_t)b * QUIRE__BLOCK_COLUMNS;
        s->first = b == 0;
        s->y = s->blocks == left ? y : NULL;
        decode_stretch(t, panel, s->panels, b, s->blocks);
        multiply(s);
    }
}

/* Rows of panels that are not all full, from their sums. */
FN void copy_rows(const struct quire__linear *t, const float *sums, uint32_t panel)
{
    uint64_t first = (uint64_t)panel * QUIRE__PANEL_ROWS, left = t->panels->rows - first;
    for (uint32_t i = 0; i < t->tokens; i++, sums += SUM_LANES) {
        float rows[QUIRE__PANEL_ROWS];
        vf vectors[SUM_VECTORS];
        memcpy(vectors, sums, sizeof vectors);
        put_rows(rows, vectors, SUM_VECTORS);
        memcpy(t->y + i * t->y_stride + first, rows,
               (left < QUIRE__PANEL_ROWS ? left : QUIRE__PANEL_ROWS) * sizeof(float));
    }
}

FN void linear_group(const struct quire__linear *t, uint32_t panel, uint32_t panels)
{
    struct stretch_product s = {
        .w = t->scratch,
        .x_stride = t->x_stride,
        .sums = (float *)(void *)((uint8_t *)t->scratch + QUIRE__DECODED_BYTES),
        .panels = panels,
        .tokens = t->tokens,
        .y = full_rows(t, panel, panels),
        .y_stride = t->y_stride,
    };
    bool full = s.y != NULL;
#if defined(WITH_TILES)
    if (t->tokens <= FEW_TOKENS)
        linear_few(t, &s, panel);
    else
#endif
        linear_stretches(t, &s, panel, STRETCH_BLOCKS);
    for (uint32_t i = 0; i < panels && !full; i++)
        copy_rows(t, s.sums + (size_t)i * t->tokens * SUM_LANES, panel + i);
}

KERNEL void linear(const struct quire__linear *t)
{
    uint32_t end = t->first_panel + t->num_panels;
#if !defined(WITH_TILES)
    if (t->tokens == 1) {
        t->type->lone(t);
        return;
    }
#endif
    multiply_begin(t->tokens);
    for (uint32_t p = t->first_panel; p < end; p += QUIRE__GROUP)
        linear_group(t, p, end - p < QUIRE__GROUP ? end - p : QUIRE__GROUP);
    multiply_end();
}

#endif
