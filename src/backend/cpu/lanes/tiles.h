/* tiles.h - products of a stretch on tiles: 32 tokens and 2 panels at a time, or 16 and 4.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A row of a tile is computed alone, in a fixed order (Intel SDM volume 2, TDPBF16PS), so tiles
 * with fewer rows give the same bits: 16 rows take 5.5 ns, one takes 3.2 on the machine of
 * DESIGN.md. */
#ifndef QUIRE_BACKEND_CPU_LANES_TILES_H
#define QUIRE_BACKEND_CPU_LANES_TILES_H

/* Tiles 0-3 are sums. 2 x 2: of tokens 0-15 and panels 0 and 1, then of tokens 16-31; tiles 4 and 5
 * are tokens, 6 and 7 weights. 1 x 4: of up to 16 tokens and four panels; tile 4 is tokens, 6 and 7
 * are weights by turns. */
enum { TOKENS_0 = 4, TOKENS_1, WEIGHTS_0, WEIGHTS_1, TWO_TILES = 2 * TILE_ROWS_MAX };

/* Shapes the tiles for so many tokens: 2 x 2 for over 16, at most 32, else 1 x 4. */
FN void shape_tiles(uint32_t tokens)
{
    uint8_t first = (uint8_t)(tokens < TILE_ROWS_MAX ? tokens : TILE_ROWS_MAX);
    uint8_t second = tokens > TILE_ROWS_MAX ? (uint8_t)(tokens - first) : first;
    struct tiles shapes = {
        .palette = 1,
        .rows = {first, first, second, second, first, second, TILE_ROWS_MAX, TILE_ROWS_MAX},
    };
    for (int i = 0; i < TILES; i++)
        shapes.colsb[i] = TILE_ROW_BYTES_MAX;
    tiles_configure(&shapes);
}

FN void multiply_begin(uint32_t tokens)
{
    shape_tiles(tokens < TWO_TILES ? tokens : TWO_TILES);
}

FN void multiply_end(void)
{
    tiles_release();
}

#define SUM_BEGIN(tile, first, sums)                                                               \
    do {                                                                                           \
        if (first)                                                                                 \
            TILE_ZERO(tile);                                                                       \
        else                                                                                       \
            TILE_LOAD(tile, sums, TILE_ROW_BYTES_MAX);                                             \
    } while (0)

/* Where the sums of a tile go, for tokens from token t and the panel that is p-th. */
#define SUM_END(tile, s, t, p)                                                                     \
    do {                                                                                           \
        if ((s)->y != NULL)                                                                        \
            TILE_STORE(tile, (s)->y + (t) * (s)->y_stride + (size_t)(p)*QUIRE__PANEL_ROWS,         \
                       (s)->y_stride * sizeof(float));                                             \
        else                                                                                       \
            TILE_STORE(tile, sums_at(s, t, p), TILE_ROW_BYTES_MAX);                                \
    } while (0)

#define WEIGH(sum, tokens, weights, w)                                                             \
    do {                                                                                           \
        TILE_LOAD(weights, w, TILE_ROW_BYTES_MAX);                                                 \
        TILE_DOT(sum, tokens, weights);                                                            \
    } while (0)

FN float *sums_at(const struct stretch_product *s, uint32_t t, uint32_t p)
{
    return s->sums + ((size_t)p * s->tokens + t) * SUM_LANES;
}

/* Asks for the lines of y that some tokens' sums of a panel will go to, before they are summed. */
FN void prefetch_rows(const struct stretch_product *s, uint32_t t, uint32_t tokens, uint32_t p)
{
    for (uint32_t i = 0; s->y != NULL && i < tokens; i++)
        __builtin_prefetch(s->y + (t + i) * s->y_stride + (size_t)p * QUIRE__PANEL_ROWS, 1, 3);
}

/* Over 16 tokens at token t, one or two panels from panel p; their number is a constant. */
FN void products_2x2(const struct stretch_product *s, uint32_t t, uint32_t p, int panels)
{
    size_t panel_weights = (size_t)s->blocks * QUIRE__BLOCK_WEIGHTS;
    size_t stride = s->x_stride * sizeof(weight_element);
    const weight_element *w = s->w + p * panel_weights;
    const weight_element *x = s->x + t * s->x_stride;
    uint32_t later = t + TILE_ROWS_MAX,
             tokens = s->tokens - t < TWO_TILES ? s->tokens - t : TWO_TILES;
    prefetch_rows(s, t, tokens, p);
    if (panels == 2)
        prefetch_rows(s, t, tokens, p + 1);
    SUM_BEGIN(0, s->first, sums_at(s, t, p));
    SUM_BEGIN(2, s->first, sums_at(s, later, p));
    if (panels == 2) {
        SUM_BEGIN(1, s->first, sums_at(s, t, p + 1));
        SUM_BEGIN(3, s->first, sums_at(s, later, p + 1));
    }
    for (uint32_t b = 0; b < s->blocks; b++) {
        TILE_LOAD(TOKENS_0, x, stride);
        WEIGH(0, TOKENS_0, WEIGHTS_0, w);
        TILE_LOAD(TOKENS_1, x + TILE_ROWS_MAX * s->x_stride, stride);
        TILE_DOT(2, TOKENS_1, WEIGHTS_0);
        if (panels == 2) {
            WEIGH(1, TOKENS_0, WEIGHTS_1, w + panel_weights);
            TILE_DOT(3, TOKENS_1, WEIGHTS_1);
        }
        x += QUIRE__BLOCK_COLUMNS;
        w += QUIRE__BLOCK_WEIGHTS;
    }
    SUM_END(0, s, t, p);
    SUM_END(2, s, later, p);
    if (panels == 2) {
        SUM_END(1, s, t, p + 1);
        SUM_END(3, s, later, p + 1);
    }
}

/* Up to 16 tokens at token t, up to four panels from panel p; their number is a constant. */
FN void products_1x4(const struct stretch_product *s, uint32_t t, uint32_t p, int panels)
{
    size_t panel_weights = (size_t)s->blocks * QUIRE__BLOCK_WEIGHTS;
    size_t stride = s->x_stride * sizeof(weight_element);
    const weight_element *w = s->w + p * panel_weights;
    const weight_element *x = s->x + t * s->x_stride;
    SUM_BEGIN(0, s->first, sums_at(s, t, p));
    if (panels == 4) {
        SUM_BEGIN(1, s->first, sums_at(s, t, p + 1));
        SUM_BEGIN(2, s->first, sums_at(s, t, p + 2));
        SUM_BEGIN(3, s->first, sums_at(s, t, p + 3));
    }
    for (uint32_t b = 0; b < s->blocks; b++) {
        TILE_LOAD(TOKENS_0, x, stride);
        WEIGH(0, TOKENS_0, WEIGHTS_0, w);
        if (panels == 4) {
            WEIGH(1, TOKENS_0, WEIGHTS_1, w + panel_weights);
            WEIGH(2, TOKENS_0, WEIGHTS_0, w + 2 * panel_weights);
            WEIGH(3, TOKENS_0, WEIGHTS_1, w + 3 * panel_weights);
        }
        x += QUIRE__BLOCK_COLUMNS;
        w += QUIRE__BLOCK_WEIGHTS;
    }
    SUM_END(0, s, t, p);
    if (panels == 4) {
        SUM_END(1, s, t, p + 1);
        SUM_END(2, s, t, p + 2);
        SUM_END(3, s, t, p + 3);
    }
}

/* Up to 16 tokens of all panels. */
FN void multiply_16(const struct stretch_product *s, uint32_t t)
{
    uint32_t p = 0;
    for (; p + 4 <= s->panels; p += 4)
        products_1x4(s, t, p, 4);
    for (; p < s->panels; p++)
        products_1x4(s, t, p, 1);
}

/* Over 16 tokens, up to 32, of all panels. */
FN void multiply_32(const struct stretch_product *s, uint32_t t)
{
    uint32_t p = 0;
    for (; p + 2 <= s->panels; p += 2)
        products_2x2(s, t, p, 2);
    if (p < s->panels)
        products_2x2(s, t, p, 1);
}

FN void multiply(const struct stretch_product *s)
{
    uint32_t t = 0, rest = s->tokens % TWO_TILES;
    for (; t + TWO_TILES <= s->tokens; t += TWO_TILES)
        multiply_32(s, t);
    if (rest == 0)
        return;
    if (t != 0)
        shape_tiles(rest);
    if (rest > TILE_ROWS_MAX)
        multiply_32(s, t);
    else
        multiply_16(s, t);
    if (t != 0)
        shape_tiles(TWO_TILES);
}

#define LONE(name) NULL

/* ---- up to 32 tokens: a block is multiplied when the next ones have been decoded ---- */

enum { FEW_TOKENS = TWO_TILES };

/* Four slots of the scratch for a block each. A tile cannot be loaded before the stores of its
 * weights have reached the cache, so one or two more blocks are decoded meanwhile. */
#define WEIGH_SLOT(sum, tokens, weights, s, slot)                                                  \
    WEIGH(sum, tokens, weights, (s)->w + (slot)*QUIRE__BLOCK_WEIGHTS)

FN void decode_slot(const struct quire__linear *t, uint32_t panel, uint32_t block, uint32_t slot)
{
    decode_at(t, (weight_element *)t->scratch + slot * QUIRE__BLOCK_WEIGHTS, panel, block);
}

/* Up to 16 tokens, four panels. */
FN void few_1x4(const struct quire__linear *t, const struct stretch_product *s, uint32_t panel)
{
    size_t stride = s->x_stride * sizeof(weight_element);
    const weight_element *x = t->x;
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (uint32_t b = 0; b < t->panels->blocks; b++, x += QUIRE__BLOCK_COLUMNS) {
        decode_slot(t, panel, b, 0);
        if (b != 0)
            WEIGH_SLOT(2, TOKENS_0, WEIGHTS_0, s, 2);
        decode_slot(t, panel + 1, b, 1);
        if (b != 0)
            WEIGH_SLOT(3, TOKENS_0, WEIGHTS_1, s, 3);
        TILE_LOAD(TOKENS_0, x, stride);
        decode_slot(t, panel + 2, b, 2);
        WEIGH_SLOT(0, TOKENS_0, WEIGHTS_0, s, 0);
        decode_slot(t, panel + 3, b, 3);
        WEIGH_SLOT(1, TOKENS_0, WEIGHTS_1, s, 1);
    }
    WEIGH_SLOT(2, TOKENS_0, WEIGHTS_0, s, 2);
    WEIGH_SLOT(3, TOKENS_0, WEIGHTS_1, s, 3);
    SUM_END(0, s, 0, 0);
    SUM_END(1, s, 0, 1);
    SUM_END(2, s, 0, 2);
    SUM_END(3, s, 0, 3);
}

#define WEIGH_PAIR(s, x, stride, slot)                                                             \
    do {                                                                                           \
        TILE_LOAD(TOKENS_0, x, stride);                                                            \
        WEIGH_SLOT(0, TOKENS_0, WEIGHTS_0, s, slot);                                               \
        TILE_LOAD(TOKENS_1, (x) + TILE_ROWS_MAX * (s)->x_stride, stride);                          \
        TILE_DOT(2, TOKENS_1, WEIGHTS_0);                                                          \
        WEIGH_SLOT(1, TOKENS_0, WEIGHTS_1, s, (slot) + 1);                                         \
        TILE_DOT(3, TOKENS_1, WEIGHTS_1);                                                          \
    } while (0)

/* 17 to 32 tokens, the panels p and p + 1 of the group. */
FN void few_2x2(const struct quire__linear *t, const struct stretch_product *s, uint32_t panel,
                uint32_t p)
{
    size_t stride = s->x_stride * sizeof(weight_element);
    const weight_element *x = t->x;
    uint32_t slot = 0;
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (uint32_t b = 0; b < t->panels->blocks; b++, slot ^= 2) {
        decode_slot(t, panel + p, b, slot);
        decode_slot(t, panel + p + 1, b, slot + 1);
        if (b != 0)
            WEIGH_PAIR(s, x + (size_t)(b - 1) * QUIRE__BLOCK_COLUMNS, stride, slot ^ 2);
    }
    WEIGH_PAIR(s, x + (size_t)(t->panels->blocks - 1) * QUIRE__BLOCK_COLUMNS, stride, slot ^ 2);
    SUM_END(0, s, 0, p);
    SUM_END(1, s, 0, p + 1);
    SUM_END(2, s, TILE_ROWS_MAX, p);
    SUM_END(3, s, TILE_ROWS_MAX, p + 1);
}

FN void linear_stretches(const struct quire__linear *t, struct stretch_product *s, uint32_t panel,
                         uint32_t most);

FN void linear_few(const struct quire__linear *t, struct stretch_product *s, uint32_t panel)
{
    if (s->panels != QUIRE__GROUP) {
        linear_stretches(t, s, panel, QUIRE__SUPER_BLOCKS);
    } else if (t->tokens <= TILE_ROWS_MAX) {
        few_1x4(t, s, panel);
    } else {
        few_2x2(t, s, panel, 0);
        few_2x2(t, s, panel, 2);
    }
}

#endif
