/* tiles.h - products of a stretch on tiles.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A row of a tile is computed alone, in a fixed order (Intel SDM volume 2, TDPBF16PS), so tiles
 * with fewer rows give the same bits: 16 rows take 5.2 ns, four or one 2.9 on the machine of
 * DESIGN.md. */
#ifndef QUIRE_BACKEND_CPU_LANES_TILES_H
#define QUIRE_BACKEND_CPU_LANES_TILES_H

/* Tiles 0-3 are sums, or what blocks come to, of up to 16 tokens. Types without codes have those of
 * four panels there, tokens in tile 4 and weights in 6 and 7 by turns; types with codes have two
 * parts of the tokens in 4 and 5. */
enum { TOKENS_0 = 4, TOKENS_1, WEIGHTS_0, WEIGHTS_1 };

/* Shapes the tiles for so many tokens and so many parts of a block. */
FN void shape_tiles(uint32_t tokens, uint32_t parts)
{
    uint8_t rows = (uint8_t)(tokens < TILE_ROWS_MAX ? tokens : TILE_ROWS_MAX);
    uint8_t steps = (uint8_t)(QUIRE__BLOCK_STEPS / parts);
    struct tiles shapes = {
        .palette = 1,
        .rows = {rows, rows, rows, rows, rows, rows, steps, steps},
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

/* Up to 16 tokens at token t, up to four panels from panel p; their number is a constant. */
FN void plain_panels(const struct stretch_product *s, uint32_t t, uint32_t p, int panels)
{
    const weight_element *w = s->w + p * s->panel_stride;
    const weight_element *x = s->x + t * s->x_stride;
    SUM_BEGIN(0, s->first, sums_at(s, t, p));
    if (panels == 4) {
        SUM_BEGIN(1, s->first, sums_at(s, t, p + 1));
        SUM_BEGIN(2, s->first, sums_at(s, t, p + 2));
        SUM_BEGIN(3, s->first, sums_at(s, t, p + 3));
    }
    for (uint32_t b = 0; b < s->blocks; b++) {
        TILE_LOAD(TOKENS_0, x, TILE_ROW_BYTES_MAX);
        WEIGH(0, TOKENS_0, WEIGHTS_0, w);
        if (panels == 4) {
            WEIGH(1, TOKENS_0, WEIGHTS_1, w + s->panel_stride);
            WEIGH(2, TOKENS_0, WEIGHTS_0, w + 2 * s->panel_stride);
            WEIGH(3, TOKENS_0, WEIGHTS_1, w + 3 * s->panel_stride);
        }
        x += X_PART_ELEMENTS;
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

/* Up to 16 tokens of all panels. */
FN void plain_16(const struct stretch_product *s, uint32_t t)
{
    uint32_t p = 0;
    for (; p + 4 <= s->panels; p += 4)
        plain_panels(s, t, p, 4);
    for (; p < s->panels; p++)
        plain_panels(s, t, p, 1);
}

/* ---- types with codes: what each part of a block comes to is scaled on vectors ---- */

enum {
    DOTS = TILE_ROWS_MAX * QUIRE__PANEL_ROWS, /* of a tile */
    QUAD = 4,                                 /* parts whose products lie in memory */
    FEW_ROWS = 4,                             /* of a tile: its products take half as long */
};
_Static_assert(QUAD *DOTS * sizeof(float) <= QUIRE__DOTS_BYTES, "room for the products");

/* Tokens of a stretch, from token t. */
struct scaled_work {
    const struct stretch_product *s;
    uint32_t t, tokens;
    uint32_t most; /* tokens or over it; a constant, like scaling */
    enum quire__scaling scaling;
};

/* Up to four parts of a panel, which follow each other from the one that is `first`. */
struct quad {
    const weight_element *w, *x; /* where its first block begins */
    uint32_t panel, first, count;
};

FN uint32_t stretch_parts(const struct scaled_work *g)
{
    return g->s->blocks * parts_of(g->scaling);
}

FN uint32_t quad_count(const struct scaled_work *g, uint32_t first)
{
    uint32_t left = stretch_parts(g) - first;
    return left < QUAD ? left : QUAD;
}

FN void next_quad(const struct scaled_work *g, struct quad *q)
{
    uint32_t blocks = q->count / parts_of(g->scaling);
    q->first += q->count;
    q->w += blocks * DECODED_ELEMENTS;
    q->x += blocks * 2 * X_PART_ELEMENTS;
    if (q->first == stretch_parts(g)) {
        q->x -= g->s->blocks * 2 * X_PART_ELEMENTS;
        q->first = 0;
        q->panel++;
    }
    q->count = quad_count(g, q->first);
}

FN void begin_sums(const struct scaled_work *g, vf *sums, uint32_t panel)
{
    const struct stretch_product *s = g->s;
    prefetch_rows(s, g->t, g->tokens, panel);
    UNROLL
    for (uint32_t a = 0; a < g->most; a++)
        sums[a] = s->first || a >= g->tokens ? v_zero() : v_load(sums_at(s, g->t + a, panel));
}

FN void end_sums(const struct scaled_work *g, const vf *sums, uint32_t panel)
{
    const struct stretch_product *s = g->s;
    float *to = sums_at(s, g->t, panel);
    size_t stride = SUM_LANES;
    if (s->y != NULL) {
        to = s->y + g->t * s->y_stride + (size_t)panel * QUIRE__PANEL_ROWS;
        stride = s->y_stride;
    }
    UNROLL
    for (uint32_t a = 0; a < g->most; a++) {
        if (a < g->tokens)
            v_store(to + a * stride, sums[a]);
    }
}

/* Adds what part k of a quad came to. */
FN void fold_part(const struct scaled_work *g, const struct quad *q, uint32_t k, vf *sums)
{
    uint32_t parts = parts_of(g->scaling), block = (q->first + k) / parts;
    const float *lines = lines_at(q->w + k / parts * DECODED_ELEMENTS);
    const float *dots = g->s->dots + (size_t)k * DOTS;
    const float *x_sums = g->s->at.sums + block * g->s->at.stride + g->t;
    vf d = v_load(lines + k % parts * QUIRE__PANEL_ROWS);
    vf m = v_load(lines + QUIRE__PANEL_ROWS);
    UNROLL
    for (uint32_t a = 0; a < g->most; a++) {
        sums[a] = v_fma(v_load(dots + a * QUIRE__PANEL_ROWS), d, sums[a]);
        if (has_offset(g->scaling))
            sums[a] = v_fma(m, v_set1(x_sums[a]), sums[a]);
    }
}

/* A part is multiplied; two parts later its products are stored, and two more later they are
 * scaled: each takes long to end, and so nothing needs to wait for it. Counts may be constants. */
FN void multiply_quad(const struct scaled_work *g, const struct quad *now, const struct quad *last,
                      uint32_t now_count, uint32_t last_count, vf *sums)
{
    const uint32_t parts = parts_of(g->scaling);
#define PART(k, weights_tile, stored, in_store)                                                    \
    do {                                                                                           \
        if ((k) < now_count) {                                                                     \
            const weight_element *x = now->x + (k) / parts * (2 * X_PART_ELEMENTS) +               \
                                      (k) % parts * (QUIRE__BLOCK_COLUMNS / 2);                    \
            const weight_element *w = now->w + (k) / parts * DECODED_ELEMENTS +                    \
                                      (k) % parts * (QUIRE__BLOCK_WEIGHTS / 2);                    \
            TILE_LOAD(TOKENS_0, x, TILE_ROW_BYTES_MAX);                                            \
            TILE_LOAD(weights_tile, w, TILE_ROW_BYTES_MAX);                                        \
            TILE_ZERO(k);                                                                          \
            TILE_DOT(k, TOKENS_0, weights_tile);                                                   \
            TILE_LOAD(TOKENS_1, x + X_PART_ELEMENTS, TILE_ROW_BYTES_MAX);                          \
            TILE_DOT(k, TOKENS_1, weights_tile);                                                   \
        }                                                                                          \
        if ((stored) < (in_store))                                                                 \
            TILE_STORE(stored, g->s->dots + (stored)*DOTS, TILE_ROW_BYTES_MAX);                    \
        if ((k) < last_count)                                                                      \
            fold_part(g, last, k, sums);                                                           \
    } while (0)
    PART(0, WEIGHTS_0, 2, last_count);
    PART(1, WEIGHTS_1, 3, last_count);
    PART(2, WEIGHTS_0, 0, now_count);
    PART(3, WEIGHTS_1, 1, now_count);
#undef PART
}

/* All panels; `whole`, a constant: every quad has four parts. */
FN void scaled_panels(const struct scaled_work *g, bool whole)
{
    const struct stretch_product *s = g->s;
    struct quad now = {.w = s->w, .x = s->x + g->t * s->x_stride, .count = quad_count(g, 0)};
    struct quad last = now;
    vf sums[TILE_ROWS_MAX];
    multiply_quad(g, &now, &last, now.count, 0, sums);
    for (next_quad(g, &now); last.panel < s->panels; last = now, next_quad(g, &now)) {
        if (last.first == 0)
            begin_sums(g, sums, last.panel);
        if (now.panel == s->panels)
            multiply_quad(g, &now, &last, 0, last.count, sums);
        else if (whole)
            multiply_quad(g, &now, &last, QUAD, QUAD, sums);
        else
            multiply_quad(g, &now, &last, now.count, last.count, sums);
        if (last.first + last.count == stretch_parts(g))
            end_sums(g, sums, last.panel);
    }
}

FN void scaled_tokens(const struct stretch_product *s, uint32_t t, uint32_t tokens, uint32_t most,
                      enum quire__scaling scaling)
{
    struct scaled_work g = {s, t, tokens, most, scaling};
    if (stretch_parts(&g) % QUAD == 0)
        scaled_panels(&g, true);
    else
        scaled_panels(&g, false);
}

/* Up to 16 tokens of all panels; scaling is a constant. */
FN void scaled_16(const struct stretch_product *s, uint32_t t, enum quire__scaling scaling)
{
    uint32_t left = s->tokens - t, tokens = left < TILE_ROWS_MAX ? left : TILE_ROWS_MAX;
    if (tokens > FEW_ROWS)
        scaled_tokens(s, t, tokens, TILE_ROWS_MAX, scaling);
    else
        scaled_tokens(s, t, tokens, FEW_ROWS, scaling);
}

/* ---- all of a stretch ---- */

FN void multiply_16(const struct stretch_product *s, uint32_t t)
{
    if (s->scaling == QUIRE__PLAIN)
        plain_16(s, t);
    else if (has_offset(s->scaling))
        scaled_16(s, t, QUIRE__OFFSET);
    else if (s->scaling == QUIRE__SUPER_16)
        scaled_16(s, t, QUIRE__SUPER_16);
    else
        scaled_16(s, t, QUIRE__SCALED);
}

FN void multiply(const struct stretch_product *s)
{
    uint32_t t = 0, rest = s->tokens % TILE_ROWS_MAX;
    for (; t + TILE_ROWS_MAX <= s->tokens; t += TILE_ROWS_MAX)
        multiply_16(s, t);
    if (rest == 0)
        return;
    if (t != 0)
        shape_tiles(rest, parts_of(s->scaling));
    multiply_16(s, t);
    if (t != 0)
        shape_tiles(TILE_ROWS_MAX, parts_of(s->scaling));
}

FN void multiply_begin(const struct quire__linear *t)
{
    shape_tiles(t->tokens, parts_of(t->panels->scaling));
}

FN void multiply_end(void)
{
    tiles_release();
}

#endif
