/* multiply.h - products of a stretch on vectors.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_MULTIPLY_H
#define QUIRE_BACKEND_CPU_LANES_MULTIPLY_H

enum {
    REST_VECTORS =
        (int)SUM_VECTORS < (int)PRODUCT_VECTORS ? (int)SUM_VECTORS : (int)PRODUCT_VECTORS,
    VECTOR_ELEMENTS = 4 * LANES / (int)sizeof(weight_element),
    STEPS_UNROLLED = 4,
    WHOLE_TOKENS = 4, /* of a tile of whole numbers, whose compilers need more registers */
};

/* Sums in registers: of some tokens from token t, and of some vectors of the panels from vector u.
 */
struct register_tile {
    vf sum[PRODUCT_TOKENS][8];
    uint32_t t;
    int u;
    const weight_element *w, *x; /* where its next step begins */
};

/* Where vector v lies after the first of a tile, given what a whole panel takes; the first one is
 * at a multiple of as many as a tile has. */
FN size_t vector_at(int v, size_t panel, size_t vector)
{
    return (size_t)(v / SUM_VECTORS) * panel + (size_t)(v % SUM_VECTORS) * vector;
}

/* Where the sums of the tile's token a and vector v wait. */
FN float *waiting_sums(const struct stretch_product *s, const struct register_tile *r, int a, int v)
{
    size_t panel = (size_t)s->tokens * SUM_LANES;
    return s->sums + vector_at(r->u, panel, LANES) + (r->t + (size_t)a) * SUM_LANES +
           vector_at(v, panel, LANES);
}

/* Zeros, or the sums of the stretches before; tokens and vectors are constants here and below. */
FN void begin_sums(const struct stretch_product *s, struct register_tile *r, bool zeros, int tokens,
                   int vectors)
{
    UNROLL
    for (int a = 0; a < tokens; a++) {
        UNROLL
        for (int v = 0; v < vectors; v++)
            r->sum[a][v] = zeros ? v_zero() : v_load(waiting_sums(s, r, a, v));
    }
}

/* To y, or where the next stretch finds them. */
FN void end_sums(const struct stretch_product *s, const struct register_tile *r, int tokens,
                 int vectors)
{
    UNROLL
    for (int a = 0; a < tokens; a++) {
        if (s->y != NULL) {
            put_rows(s->y + (r->t + (uint32_t)a) * s->y_stride + r->u * VECTOR_ROWS, r->sum[a],
                     vectors);
            continue;
        }
        UNROLL
        for (int v = 0; v < vectors; v++)
            v_store(waiting_sums(s, r, a, v), r->sum[a][v]);
    }
}

FN vf step_add(vf sum, vf w, vf x)
{
#if defined(WITH_PRODUCTS)
    return step_dot(sum, (vu)w, (vu)x);
#else
    return v_fma(w, x, sum);
#endif
}

FN void load_step(const struct stretch_product *s, const struct register_tile *r, vf *weights,
                  int vectors)
{
    UNROLL
    for (int v = 0; v < vectors; v++)
        memcpy(&weights[v], r->w + vector_at(v, s->panel_stride, VECTOR_ELEMENTS),
               sizeof weights[v]);
}

FN void add_steps(const struct stretch_product *s, struct register_tile *r, uint32_t steps,
                  int tokens, int vectors)
{
    for (uint32_t step = 0; step < steps; step++) {
        vf weights[8];
        load_step(s, r, weights, vectors);
        UNROLL
        for (int a = 0; a < tokens; a++) {
            vf columns = step_columns(r->x + (size_t)a * s->x_stride);
            UNROLL
            for (int v = 0; v < vectors; v++)
                r->sum[a][v] = step_add(r->sum[a][v], weights[v], columns);
        }
        r->w += QUIRE__STEP_WEIGHTS;
        r->x += 2;
    }
}

#if defined(WITH_PRODUCTS)
/* Factors or addends of the rows of vector v of the tile, in block b. */
FN vf tile_lines(const struct stretch_product *s, const struct register_tile *r, int v, uint32_t b,
                 uint32_t line)
{
    const weight_element *block =
        s->w + vector_at(r->u + v, s->panel_stride, 0) + b * s->block_stride;
    return v_load(lines_at(block) + line * QUIRE__PANEL_ROWS + (r->u + v) % SUM_VECTORS * LANES);
}

/* What a part of a block comes to. */
struct whole_tile {
    vi sum[PRODUCT_TOKENS][8];
};

FN void add_whole_step(const struct stretch_product *s, struct register_tile *r,
                       struct whole_tile *dots, int tokens, int vectors)
{
    vf weights[8];
    load_step(s, r, weights, vectors);
    UNROLL
    for (int a = 0; a < tokens; a++) {
        vu columns = (vu)step_columns(r->x + (size_t)a * s->x_stride);
        UNROLL
        for (int v = 0; v < vectors; v++)
            dots->sum[a][v] = step_dot_words(dots->sum[a][v], (vu)weights[v], columns);
    }
    r->w += QUIRE__STEP_WEIGHTS;
    r->x += 2;
}

FN void add_whole_steps(const struct stretch_product *s, struct register_tile *r,
                        struct whole_tile *dots, uint32_t steps, int tokens, int vectors)
{
    UNROLL
    for (int a = 0; a < tokens; a++) {
        UNROLL
        for (int v = 0; v < vectors; v++)
            dots->sum[a][v] = v_spread(0);
    }
    for (uint32_t step = 0; step < steps; step += STEPS_UNROLLED) {
        UNROLL
        for (int i = 0; i < STEPS_UNROLLED; i++)
            add_whole_step(s, r, dots, tokens, vectors);
    }
}

/* Adds what part `part` of block b came to, scaled, and after its last part the addends. */
struct whole_part {
    uint32_t b, part;
    bool zeros; /* the sums begin here */
};

FN void fold_part(const struct stretch_product *s, const struct register_tile *r,
                  const struct whole_tile *dots, struct whole_part p, int tokens, int vectors)
{
    const float *scales = s->at.scales + p.b * s->at.stride + r->t;
    const float *x_sums = s->at.sums + p.b * s->at.stride + r->t;
    UNROLL
    for (int v = 0; v < vectors; v++) {
        vf d = tile_lines(s, r, v, p.b, p.part), m = tile_lines(s, r, v, p.b, 1);
        UNROLL
        for (int a = 0; a < tokens; a++) {
            float *at = waiting_sums(s, r, a, v);
            vf dot = v_float(dots->sum[a][v]) * v_set1(scales[a]);
            vf sum = v_fma(dot, d, p.zeros ? v_zero() : v_load(at));
            v_store(at, has_offset(s->scaling) ? v_fma(m, v_set1(x_sums[a]), sum) : sum);
        }
    }
}

FN void scaled_tile(const struct stretch_product *s, struct register_tile *r, int tokens,
                    int vectors)
{
    uint32_t parts = parts_of(s->scaling);
    const weight_element *w = r->w;
    for (uint32_t i = 0; i < s->blocks * parts; i++) {
        struct whole_part p = {i / parts, i % parts, s->first && i == 0};
        struct whole_tile dots;
        if (p.part == 0)
            r->w = w + p.b * s->block_stride;
        add_whole_steps(s, r, &dots, QUIRE__BLOCK_STEPS / parts, tokens, vectors);
        fold_part(s, r, &dots, p, tokens, vectors);
    }
    if (s->y != NULL) {
        begin_sums(s, r, false, tokens, vectors);
        end_sums(s, r, tokens, vectors);
    }
}
#endif

FN void product_tile(const struct stretch_product *s, uint32_t t, int u, int tokens, int vectors,
                     bool scaled)
{
    struct register_tile r = {
        .t = t,
        .u = u,
        .w = s->w + vector_at(u, s->panel_stride, VECTOR_ELEMENTS),
        .x = s->x + t * s->x_stride,
    };
#if defined(WITH_PRODUCTS)
    if (scaled) {
        scaled_tile(s, &r, tokens, vectors);
        return;
    }
#endif
    (void)scaled;
    begin_sums(s, &r, s->first, tokens, vectors);
    add_steps(s, &r, s->blocks * QUIRE__BLOCK_STEPS, tokens, vectors);
    end_sums(s, &r, tokens, vectors);
}

/* All tokens and some vectors; their number is a constant. */
FN void product_vectors(const struct stretch_product *s, int u, int vectors)
{
    uint32_t t = 0;
#if defined(WITH_PRODUCTS)
    for (; s->scaling != QUIRE__PLAIN && t + WHOLE_TOKENS <= s->tokens; t += WHOLE_TOKENS)
        product_tile(s, t, u, WHOLE_TOKENS, vectors, true);
    for (; s->scaling != QUIRE__PLAIN && t < s->tokens; t++)
        product_tile(s, t, u, 1, vectors, true);
#endif
    for (; t + PRODUCT_TOKENS <= s->tokens; t += PRODUCT_TOKENS)
        product_tile(s, t, u, PRODUCT_TOKENS, vectors, false);
#if LANES == 16
    for (; t + 3 <= s->tokens; t += 3)
        product_tile(s, t, u, 3, vectors, false);
#endif
    for (; t < s->tokens; t++)
        product_tile(s, t, u, 1, vectors, false);
}

FN void multiply(const struct stretch_product *s)
{
    int vectors = (int)s->panels * SUM_VECTORS, u = 0;
    for (; u + PRODUCT_VECTORS <= vectors; u += PRODUCT_VECTORS)
        product_vectors(s, u, PRODUCT_VECTORS);
    for (; u < vectors; u += REST_VECTORS)
        product_vectors(s, u, REST_VECTORS);
}

FN void multiply_begin(const struct quire__linear *t)
{
    (void)t;
}

FN void multiply_end(void)
{
}

#endif
