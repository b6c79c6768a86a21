/* multiply.h - products of a stretch on vectors.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_MULTIPLY_H
#define QUIRE_BACKEND_CPU_LANES_MULTIPLY_H

enum {
    VECTOR_ELEMENTS = 4 * LANES / (int)sizeof(weight_element),
};

_Static_assert(LANES == 16 || SUM_VECTORS % PRODUCT_VECTORS == 0, "no vectors of a panel remain");

/* Sums in registers: of some tokens from token t, and of some vectors of the panels from vector u.
 */
struct register_tile {
    vf sum[PRODUCT_TOKENS][PRODUCT_VECTORS];
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
    return v_dot2(sum, (vu)w, (vu)x);
#else
    return v_fma(w, x, sum);
#endif
}

FN void load_step(const struct stretch_product *s, const weight_element *w, vf *weights,
                  int vectors)
{
    UNROLL
    for (int v = 0; v < vectors; v++)
        memcpy(&weights[v], w + vector_at(v, s->panel_stride, VECTOR_ELEMENTS), sizeof weights[v]);
}

FN void add_steps(const struct stretch_product *s, struct register_tile *r, uint32_t steps,
                  int tokens, int vectors)
{
    for (uint32_t step = 0; step < steps; step++) {
        vf weights[PRODUCT_VECTORS];
        load_step(s, r->w, weights, vectors);
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
/* What a part of a block comes to. */
struct whole_dots {
    vi dot[PRODUCT_TOKENS][PRODUCT_VECTORS];
    enum quire__scaling scaling; /* a constant */
};

FN void add_whole_step(const struct stretch_product *s, struct whole_dots *part,
                       const weight_element *w, const weight_element *x, int tokens, int vectors)
{
    vf weights[PRODUCT_VECTORS];
    load_step(s, w, weights, vectors);
    UNROLL
    for (int a = 0; a < tokens; a++) {
        vu columns = (vu)step_columns(x + (size_t)a * s->x_stride);
        UNROLL
        for (int v = 0; v < vectors; v++)
            part->dot[a][v] = v_dot_words(part->dot[a][v], (vu)weights[v], columns);
    }
}

/* Adds what part i of a stretch came to, scaled; after the last part of a block its addends. */
FN void fold_part(const struct stretch_product *s, struct register_tile *r,
                  const struct whole_dots *part, uint32_t i, int tokens, int vectors)
{
    const enum quire__scaling scaling = part->scaling;
    uint32_t parts = parts_of(scaling), b = i / parts;
    const weight_element *block = s->w + vector_at(r->u, s->panel_stride, 0) + b * s->block_stride;
    const float *scales = s->at.scales + b * s->at.stride + r->t;
    const float *x_sums = s->at.sums + b * s->at.stride + r->t;
    UNROLL
    for (int v = 0; v < vectors; v++) {
        const float *lines =
            lines_at(block + vector_at(v, s->panel_stride, 0)) + (r->u + v) % SUM_VECTORS * LANES;
        vf d = v_load(lines + i % parts * QUIRE__PANEL_ROWS);
        vf m = v_load(lines + QUIRE__PANEL_ROWS);
        UNROLL
        for (int a = 0; a < tokens; a++) {
            vf dot = v_float(part->dot[a][v]) * v_set1(scales[a]);
            r->sum[a][v] = v_fma(dot, d, r->sum[a][v]);
            if (has_offset(scaling))
                r->sum[a][v] = v_fma(m, v_set1(x_sums[a]), r->sum[a][v]);
        }
    }
}

/* Sums lie in memory while a part is multiplied, which needs the registers. */
FN void scaled_tile(const struct stretch_product *s, struct register_tile *r, int tokens,
                    int vectors, enum quire__scaling scaling)
{
    uint32_t parts = parts_of(scaling), steps = QUIRE__BLOCK_STEPS / parts;
    const weight_element *x = r->x;
    begin_sums(s, r, s->first, tokens, vectors);
    for (uint32_t i = 0; i < s->blocks * parts; i++) {
        const weight_element *w =
            r->w + i / parts * s->block_stride + i % parts * (QUIRE__BLOCK_WEIGHTS / parts);
        struct whole_dots part;
        part.scaling = scaling;
        UNROLL
        for (int a = 0; a < tokens; a++) {
            UNROLL
            for (int v = 0; v < vectors; v++)
                part.dot[a][v] = v_spread(0);
        }
        for (uint32_t step = 0; step < steps; step++, w += QUIRE__STEP_WEIGHTS, x += 2)
            add_whole_step(s, &part, w, x, tokens, vectors);
        __asm__("" : "+m"(r->sum));
        fold_part(s, r, &part, i, tokens, vectors);
        __asm__("" : "+m"(r->sum));
    }
    end_sums(s, r, tokens, vectors);
}
#endif

FN void product_tile(const struct stretch_product *s, uint32_t t, int u, int tokens, int vectors,
                     enum quire__scaling scaling)
{
    struct register_tile r;
    r.t = t;
    r.u = u;
    r.w = s->w + vector_at(u, s->panel_stride, VECTOR_ELEMENTS);
    r.x = s->x + t * s->x_stride;
#if defined(WITH_PRODUCTS)
    if (scaling != QUIRE__PLAIN) {
        scaled_tile(s, &r, tokens, vectors, scaling);
        return;
    }
#endif
    (void)scaling;
    begin_sums(s, &r, s->first, tokens, vectors);
    add_steps(s, &r, s->blocks * QUIRE__BLOCK_STEPS, tokens, vectors);
    end_sums(s, &r, tokens, vectors);
}

/* All tokens and some vectors; their number is a constant, and so is scaling here and below. */
FN void product_vectors(const struct stretch_product *s, int u, int vectors,
                        enum quire__scaling scaling)
{
    uint32_t t = 0;
    for (; t + PRODUCT_TOKENS <= s->tokens; t += PRODUCT_TOKENS)
        product_tile(s, t, u, PRODUCT_TOKENS, vectors, scaling);
#if LANES == 16
    for (; t + 2 <= s->tokens; t += 2)
        product_tile(s, t, u, 2, vectors, scaling);
#endif
    for (; t < s->tokens; t++)
        product_tile(s, t, u, 1, vectors, scaling);
}

FN void multiply_panels(const struct stretch_product *s, enum quire__scaling scaling)
{
    int vectors = (int)s->panels * SUM_VECTORS, u = 0;
    for (; u + PRODUCT_VECTORS <= vectors; u += PRODUCT_VECTORS)
        product_vectors(s, u, PRODUCT_VECTORS, scaling);
#if LANES == 16 /* with fewer, nothing remains */
    for (; u + 2 <= vectors; u += 2)
        product_vectors(s, u, 2, scaling);
#if defined(WITH_PRODUCTS)
    if (u < vectors)
        product_vectors(s, u, 1, scaling);
#endif
#endif
}

FN void multiply(const struct stretch_product *s)
{
#if defined(WITH_PRODUCTS)
    if (s->scaling == QUIRE__SUPER_16)
        multiply_panels(s, QUIRE__SUPER_16);
    else if (has_offset(s->scaling))
        multiply_panels(s, QUIRE__OFFSET);
    else if (s->scaling == QUIRE__SCALED)
        multiply_panels(s, QUIRE__SCALED);
    else
#endif
        multiply_panels(s, QUIRE__PLAIN);
}

FN void multiply_begin(const struct quire__linear *t)
{
    (void)t;
}

FN void multiply_end(void)
{
}

#endif
