/* tiles.h - products of a stretch on tiles.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A row of a tile is computed alone, in a fixed order (Intel SDM volume 2, TDPBF16PS), so tiles
 * with fewer rows give the same bits: 16 rows take 5.2 ns, four or one 2.9 on the machine of
 * DESIGN.md. */
#ifndef QUIRE_BACKEND_CPU_LANES_TILES_H
#define QUIRE_BACKEND_CPU_LANES_TILES_H

/* Tiles 0-3 are sums, or what blocks add up to. Without factors, 2 x 2: of tokens 0-15 and panels 0
 * and 1, then of tokens 16-31; tiles 4 and 5 are tokens, 6 and 7 weights. 1 x 4: of up to 16 tokens
 * and four panels; tile 4 is tokens, 6 and 7 are weights by turns. */
enum { TOKENS_0 = 4, TOKENS_1, WEIGHTS_0, WEIGHTS_1, TWO_TILES = 2 * TILE_ROWS_MAX };

/* Shapes the tiles for so many tokens, at most 32, and so many parts of a block: up to 16 tokens
 * are those of the first tile, the others those of the second. */
FN void shape_tiles(uint32_t tokens, uint32_t parts)
{
    uint8_t first = (uint8_t)(tokens < TILE_ROWS_MAX ? tokens : TILE_ROWS_MAX);
    uint8_t second = tokens > TILE_ROWS_MAX ? (uint8_t)(tokens - first) : first;
    uint8_t steps = (uint8_t)(QUIRE__BLOCK_STEPS / parts);
    struct tiles shapes = {
        .palette = 1,
        .rows = {first, first, second, second, first, second, steps, steps},
    };
    for (int i = 0; i < TILES; i++)
        shapes.colsb[i] = TILE_ROW_BYTES_MAX;
    shapes.colsb[TOKENS_0] = shapes.colsb[TOKENS_1] = (uint16_t)(4 * steps);
    tiles_configure(&shapes);
}

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

/* ---- types without codes: sums stay in tiles ---- */

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

/* Over 16 tokens at token t, one or two panels from panel p; their number is a constant. */
FN void products_2x2(const struct stretch_product *s, uint32_t t, uint32_t p, int panels)
{
    size_t stride = s->x_stride * sizeof(weight_element);
    const weight_element *w = s->w + p * s->panel_stride;
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
            WEIGH(1, TOKENS_0, WEIGHTS_1, w + s->panel_stride);
            TILE_DOT(3, TOKENS_1, WEIGHTS_1);
        }
        x += QUIRE__BLOCK_COLUMNS;
        w += s->block_stride;
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
    size_t stride = s->x_stride * sizeof(weight_element);
    const weight_element *w = s->w + p * s->panel_stride;
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
            WEIGH(1, TOKENS_0, WEIGHTS_1, w + s->panel_stride);
            WEIGH(2, TOKENS_0, WEIGHTS_0, w + 2 * s->panel_stride);
            WEIGH(3, TOKENS_0, WEIGHTS_1, w + 3 * s->panel_stride);
        }
        x += QUIRE__BLOCK_COLUMNS;
        w += s->block_stride;
    }
    SUM_END(0, s, t, p);
    if (panels == 4) {
        SUM_END(1, s, t, p + 1);
        SUM_END(2, s, t, p + 2);
        SUM_END(3, s, t, p + 3);
    }
}
#undef WEIGH
#undef SUM_END
#undef SUM_BEGIN

/* Up to 32 tokens of all panels. */
FN void plain_32(const struct stretch_product *s, uint32_t t)
{
    uint32_t p = 0;
    if (s->tokens - t > TILE_ROWS_MAX) {
        for (; p + 2 <= s->panels; p += 2)
            products_2x2(s, t, p, 2);
        if (p < s->panels)
            products_2x2(s, t, p, 1);
        return;
    }
    for (; p + 4 <= s->panels; p += 4)
        products_1x4(s, t, p, 4);
    for (; p < s->panels; p++)
        products_1x4(s, t, p, 1);
}

/* ---- types with codes: what each part of a block adds up to is scaled on vectors ---- */

enum {
    DOTS = TILE_ROWS_MAX * QUIRE__PANEL_ROWS, /* of a tile */
    DOTS_ROOM = 4,                            /* parts whose products lie in memory */
    FEW_ROWS = 4,                             /* of a tile: its products take half as long */
};
_Static_assert(DOTS_ROOM *DOTS * sizeof(float) <= QUIRE__DOTS_BYTES, "room for the products");

/* Some tokens of a stretch, from token t. */
struct scaled_work {
    uint32_t t, tokens;
};

/* Up to four parts of a panel, which follow each other. */
struct quad {
    uint32_t panel, first, count;
};

FN void next_quad(struct quad *q, uint32_t parts)
{
    q->first += q->count;
    if (q->first == parts) {
        q->first = 0;
        q->panel++;
    }
    q->count = parts - q->first < DOTS_ROOM ? parts - q->first : DOTS_ROOM;
}

/* Where part i of a panel's stretch lies. */
FN const weight_element *part_at(const struct stretch_product *s, uint32_t panel, uint32_t i,
                                 enum quire__scaling scaling)
{
    uint32_t parts = parts_of(scaling);
    return s->w + panel * s->panel_stride + i / parts * s->block_stride +
           i % parts * QUIRE__BLOCK_WEIGHTS / parts;
}

/* The sums so far, and the addends of the stretch; `most`, a constant, is the number of tokens or
 * over it, and scaling is a constant too. */
FN void begin_sums(const struct stretch_product *s, const struct scaled_work *g, vf *sums,
                   uint32_t panel, uint32_t most, enum quire__scaling scaling)
{
    prefetch_rows(s, g->t, g->tokens, panel);
    UNROLL
    for (uint32_t a = 0; a < most; a++)
        sums[a] = s->first || a >= g->tokens ? v_zero() : v_load(sums_at(s, g->t + a, panel));
    for (uint32_t b = 0; has_offset(scaling) && b < s->blocks; b++) {
        const weight_element *block = s->w + panel * s->panel_stride + b * s->block_stride;
        const float *x_sums = s->x_sums + b * s->x_sums_stride + g->t;
        vf m = v_load(lines_at(block) + QUIRE__PANEL_ROWS);
        UNROLL
        for (uint32_t a = 0; a < most; a++)
            sums[a] = v_fma(m, v_set1(x_sums[a]), sums[a]);
    }
}

FN void end_sums(const struct stretch_product *s, const struct scaled_work *g, const vf *sums,
                 uint32_t panel, uint32_t most)
{
    float *to = sums_at(s, g->t, panel);
    size_t stride = SUM_LANES;
    if (s->y != NULL) {
        to = s->y + g->t * s->y_stride + (size_t)panel * QUIRE__PANEL_ROWS;
        stride = s->y_stride;
    }
    UNROLL
    for (uint32_t a = 0; a < most; a++) {
        if (a < g->tokens)
            v_store(to + a * stride, sums[a]);
    }
}

/* The factors of part i of a panel's stretch. */
FN vf factors_of(const struct stretch_product *s, uint32_t panel, uint32_t i,
                 enum quire__scaling scaling)
{
    uint32_t parts = parts_of(scaling);
    const weight_element *block = s->w + panel * s->panel_stride + i / parts * s->block_stride;
    return v_load(lines_at(block) + i % parts * QUIRE__PANEL_ROWS);
}

FN void fold_part(vf *sums, vf d, const float *dots, uint32_t most)
{
    UNROLL
    for (uint32_t a = 0; a < most; a++)
        sums[a] = v_fma(v_load(dots + a * QUIRE__PANEL_ROWS), d, sums[a]);
}

/* A part is multiplied; two parts later its products are stored, and two more later they are
 * scaled: each takes long to end, and so nothing needs to wait for it. */
FN void scaled_panels(const struct stretch_product *s, const struct scaled_work *g, uint32_t most,
                      enum quire__scaling scaling)
{
    uint32_t parts = s->blocks * parts_of(scaling);
    size_t stride = s->x_stride * sizeof(weight_element);
    const weight_element *x = s->x + g->t * s->x_stride;
    struct quad now = {.count = parts < DOTS_ROOM ? parts : DOTS_ROOM}, last = {0};
    vf sums[TILE_ROWS_MAX];
    UNROLL
    for (uint32_t a = 0; a < most; a++)
        sums[a] = v_zero();
    while (now.panel < s->panels || last.count != 0) {
        if (now.panel == s->panels)
            now.count = 0;
        if (last.count != 0 && last.first == 0)
            begin_sums(s, g, sums, last.panel, most, scaling);
#define PART(k, sum, tokens_tile, weights_tile, stored, in_store)                                  \
    do {                                                                                           \
        if ((k) < now.count) {                                                                     \
            uint32_t i = now.first + (k);                                                          \
            TILE_LOAD(tokens_tile, x + i * QUIRE__BLOCK_COLUMNS / parts_of(scaling), stride);      \
            TILE_LOAD(weights_tile, part_at(s, now.panel, i, scaling), TILE_ROW_BYTES_MAX);        \
            TILE_ZERO(sum);                                                                        \
            TILE_DOT(sum, tokens_tile, weights_tile);                                              \
        }                                                                                          \
        if ((stored) < (in_store).count)                                                           \
            TILE_STORE(stored, s->dots + (stored)*DOTS, TILE_ROW_BYTES_MAX);                       \
        if ((k) < last.count)                                                                      \
            fold_part(sums, factors_of(s, last.panel, last.first + (k), scaling),                  \
                      s->dots + (k)*DOTS, most);                                                   \
    } while (0)
        PART(0, 0, TOKENS_0, WEIGHTS_0, 2, last);
        PART(1, 1, TOKENS_1, WEIGHTS_1, 3, last);
        PART(2, 2, TOKENS_0, WEIGHTS_0, 0, now);
        PART(3, 3, TOKENS_1, WEIGHTS_1, 1, now);
#undef PART
        if (last.count != 0 && last.first + last.count == parts)
            end_sums(s, g, sums, last.panel, most);
        last = now;
        if (now.count != 0)
            next_quad(&now, parts);
    }
}

/* Up to 16 tokens of all panels; scaling is a constant. */
FN void scaled_16(const struct stretch_product *s, uint32_t t, enum quire__scaling scaling)
{
    uint32_t left = s->tokens - t;
    struct scaled_work g = {.t = t, .tokens = left < TILE_ROWS_MAX ? left : TILE_ROWS_MAX};
    if (g.tokens > FEW_ROWS)
        scaled_panels(s, &g, TILE_ROWS_MAX, scaling);
    else
        scaled_panels(s, &g, FEW_ROWS, scaling);
}

FN void any_scaled_16(const struct stretch_product *s, uint32_t t)
{
    if (has_offset(s->scaling))
        scaled_16(s, t, QUIRE__OFFSET);
    else if (s->scaling == QUIRE__SUPER_16)
        scaled_16(s, t, QUIRE__SUPER_16);
    else
        scaled_16(s, t, QUIRE__SCALED);
}

/* ---- all of a stretch ---- */

/* As many tokens as are left, or as are taken at once. */
FN void multiply_some(const struct stretch_product *s, uint32_t t)
{
    if (s->scaling == QUIRE__PLAIN)
        plain_32(s, t);
    else
        any_scaled_16(s, t);
}

FN uint32_t tokens_at_once(enum quire__scaling scaling)
{
    return scaling == QUIRE__PLAIN ? TWO_TILES : TILE_ROWS_MAX;
}

FN void multiply(const struct stretch_product *s)
{
    uint32_t most = tokens_at_once(s->scaling), t = 0, rest = s->tokens % most;
    for (; t + most <= s->tokens; t += most)
        multiply_some(s, t);
    if (rest == 0)
        return;
    if (t != 0)
        shape_tiles(rest, parts_of(s->scaling));
    multiply_some(s, t);
    if (t != 0)
        shape_tiles(most, parts_of(s->scaling));
}

FN void multiply_begin(const struct quire__linear *t)
{
    uint32_t most = tokens_at_once(t->panels->scaling);
    shape_tiles(t->tokens < most ? t->tokens : most, parts_of(t->panels->scaling));
}

FN void multiply_end(void)
{
    tiles_release();
}

#endif
