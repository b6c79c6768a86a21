/* products_fixture.h - runs the shims of lanes/products.h over arrays, native or emulated.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A file that includes this after lanes/products.h, with WITH_TILES, gets PRODUCTS_TABLE too. */
#ifndef QUIRE_TESTS_PRODUCTS_FIXTURE_H
#define QUIRE_TESTS_PRODUCTS_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

/* Tiles of c [m][n], a [m][k] and b [k][n]: f32 in c, pairs of bfloat16 in a and b. */
struct pf_tiles {
    uint32_t m, k, n;
    size_t stride;             /* of all three, in bytes */
    uint32_t *c, *a, *b;       /* c += a b */
    uint32_t *zeros, *a_again; /* what a tile of zeros, of c's shape, and a itself are stored as */
};

struct pf_products {
    void (*dot2)(float *c, const float *a, const float *b, size_t n);
    /* to [n] pairs: every 32 floats of x make 16 of them */
    void (*pack2)(float *to, const float *x, size_t n);
    void (*tiles)(const struct pf_tiles *t);
};

/* The processor's own; NULL where this build has none. Whoever calls looks whether it can. */
extern const struct pf_products *const pf_native;

#if defined(WITH_TILES)
KERNEL void run_dot2(float *c, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i += LANES)
        v_store(c + i, v_dot2(v_load(c + i), (vu)v_load(a + i), (vu)v_load(b + i)));
}

KERNEL void run_pack2(float *to, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += LANES)
        v_store(to + i, (vf)v_pack2(v_load(x + 2 * i), v_load(x + 2 * i + LANES)));
}

KERNEL void run_tiles(const struct pf_tiles *t)
{
    enum { C = 3, A = 0, B = 7, ZEROS = 5 };
    uint16_t wide = (uint16_t)(4 * t->n), pairs = (uint16_t)(4 * t->k);
    uint8_t m = (uint8_t)t->m, k = (uint8_t)t->k;
    struct tiles shapes = {
        .palette = 1,
        .colsb = {[C] = wide, [A] = pairs, [B] = wide, [ZEROS] = wide},
        .rows = {[C] = m, [A] = m, [B] = k, [ZEROS] = m},
    };
    tiles_configure(&shapes);
    TILE_LOAD(C, t->c, t->stride);
    TILE_LOAD(A, t->a, t->stride);
    TILE_LOAD(B, t->b, t->stride);
    TILE_LOAD(ZEROS, t->c, t->stride);
    TILE_DOT(C, A, B);
    TILE_ZERO(ZEROS);
    TILE_STORE(C, t->c, t->stride);
    TILE_STORE(ZEROS, t->zeros, t->stride);
    TILE_STORE(A, t->a_again, t->stride);
    tiles_release();
}

#define PRODUCTS_TABLE                                                                             \
    {                                                                                              \
        run_dot2, run_pack2, run_tiles                                                             \
    }
#endif

#endif
