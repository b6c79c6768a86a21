/* products_fixture.h - runs the shims of lanes/products.h over arrays, native or emulated.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A file that includes this after lanes/products.h gets PRODUCTS_TABLE too. */
#ifndef QUIRE_TESTS_PRODUCTS_FIXTURE_H
#define QUIRE_TESTS_PRODUCTS_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support.h"

/* ---- what is multiplied ---- */

enum pf_kind {
    PF_ANY_BITS,
    PF_SPECIAL,   /* zeros, subnormals, the ends of the range, infinities, NaN of all sorts */
    PF_ORDINARY,  /* from 2^-8 to 2^8 */
    PF_TINY,      /* products about the smallest normal number */
    PF_EDGE,      /* sums that only rounding to 24 bits tells from the smallest normal number */
    PF_LARGE,     /* products about the largest number */
    PF_CANCELLED, /* ordinary, with sums near 0 where the caller arranges them */
    PF_NUM_KINDS
};

/* f32 bits; the top half is a bfloat16. sum: a summand, not a factor. */
uint32_t pf_element(enum pf_kind kind, bool sum, struct qt_random *random);
uint32_t pf_pair(enum pf_kind kind, struct qt_random *random);
/* n sums and pairs of all kinds. */
void pf_fill_dot2(float *c, float *a, float *b, size_t n, struct qt_random *random);

/* ---- runs ---- */

/* Tiles of c [m][n], a [m][k] and b [k][n]: f32 in c, pairs of bfloat16 in a and b. */
struct pf_tiles {
    uint32_t m, k, n;
    size_t stride;             /* of all three, in bytes */
    uint32_t *c, *a, *b;       /* c += a b */
    uint32_t *zeros, *a_again; /* what a tile of zeros, of c's shape, and a itself are stored as */
};

struct pf_products {
    void (*dot2)(float *c, const float *a, const float *b, size_t n);
    /* to [n] pairs: every two vectors of x make one of pairs */
    void (*pack2)(float *to, const float *x, size_t n);
    void (*dot_words)(int32_t *c, const uint32_t *a, const uint32_t *b, size_t n);
    void (*tiles)(const struct pf_tiles *t); /* NULL where there are none */
};

/* Asserts that dot_words gives c + a1 b1 + a0 b0 modulo 2^32. */
void pf_check_dot_words(const struct pf_products *products);

/* The processor's own; NULL where this build has none. Whoever calls looks whether it can. */
extern const struct pf_products *const pf_native;

#if defined(LANES)
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

KERNEL void run_dot_words(int32_t *c, const uint32_t *a, const uint32_t *b, size_t n)
{
    for (size_t i = 0; i < n; i += LANES) {
        vi sum;
        vu x, y;
        memcpy(&sum, c + i, sizeof sum);
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        sum = v_dot_words(sum, x, y);
        memcpy(c + i, &sum, sizeof sum);
    }
}

#if defined(WITH_TILES)
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
        run_dot2, run_pack2, run_dot_words, run_tiles                                              \
    }
#else
#define PRODUCTS_TABLE                                                                             \
    {                                                                                              \
        run_dot2, run_pack2, run_dot_words, NULL                                                   \
    }
#endif
#endif

#endif
