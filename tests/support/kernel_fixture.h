/* kernel_fixture.h - levels, guarded memory and an f64 attention for the tests of the CPU backend.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_KERNEL_FIXTURE_H
#define QUIRE_TESTS_KERNEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <quire/backend.h>

#include "backend/cpu/kernels.h"
#include "products.h"
#include "support.h"

/* The unit roundoff of f32: half of the distance from 1 to the next number. */
#define KT_U 0x1p-24

/* ---- levels ---- */

/* The i-th level of this machine, as quire__kernels_at; says once which levels it lacks. With the
 * environment variable QUIRE_TEST_LEVEL there are two: ref and the one that it names. */
const struct quire__kernels *kt_level(uint32_t i);
struct quire_backend *kt_backend(const char *level, uint32_t num_threads);

/* ---- memory between two pages that must not be touched ---- */

struct kt_guard {
    void *data; /* ends where a forbidden page begins */
    void *map;
    size_t map_bytes;
};
/* The memory is filled with 0xff: NaN in every float format. */
struct kt_guard kt_guard_new(size_t bytes);
void kt_guard_free(struct kt_guard *guard);

float *kt_floats(struct kt_guard *guard, struct qt_random *random, size_t n, float size);

/* ---- attention ---- */

struct kt_shape {
    uint32_t num_heads, num_kv_heads, dim, dim_v;
    uint32_t block; /* positions of a page; 0: contiguous, the whole capacity */
    uint32_t dtype_k, dtype_v;
    uint32_t window, sinks;
    bool rotated; /* K and V in q8 or q4 are turned */
};

struct kt_params {
    float scale, softcap;
    bool alibi, sink_logits, lse;
};

/* One sequence of a batch: n_new tokens at positions len .. len + n_new. */
struct kt_part {
    uint32_t slot, len, n_new;
};

enum { KT_SLOTS = 4 };

/* A cache of KT_SLOTS sequences over one layer. K, V and Q of a position depend on its slot and
 * position alone. */
struct kt_cache {
    struct quire_backend *backend;
    struct kt_shape shape;
    uint32_t capacity, blocks; /* positions and table entries of a slot */
    uint64_t seed;
    float size;            /* of q and k: elements lie within -size .. size */
    uint32_t spike;        /* a position whose key is 40 times as large; UINT32_MAX: none */
    uint32_t check_stride; /* kt_cache_check looks at every such row, and always at the last */
    struct quire_kv_layer layer;
    struct quire_plan *plan;
    struct quire_buffer *arena, *tables;
    struct kt_guard arena_memory;
    uint32_t *table; /* host copy, [KT_SLOTS][blocks] */
    uint32_t num_pages;
};

void kt_cache_open(struct kt_cache *cache, struct quire_backend *backend,
                   const struct kt_shape *shape, uint32_t capacity, uint64_t seed);
void kt_cache_close(struct kt_cache *cache);

/* Stores positions 0 .. len of a slot. */
void kt_cache_fill(struct kt_cache *cache, uint32_t slot, uint32_t len);
/* Builds the step, writes its K and V, attends. out [sum of n_new][H][Dv]; lse [..][H] or NULL. */
void kt_cache_step(struct kt_cache *cache, const struct kt_part *parts, uint32_t num_parts,
                   const struct kt_params *params, float *out, float *lse);
/* Attends again without writing: for positions that are stored already. */
void kt_cache_attend(struct kt_cache *cache, const struct kt_part *parts, uint32_t num_parts,
                     const struct kt_params *params, float *out, float *lse);
/* Asserts that what step or attend gave is within the bound of the f64 attention. Prints the case
 * when it is not. */
void kt_cache_check(const struct kt_cache *cache, const struct kt_part *parts, uint32_t num_parts,
                    const struct kt_params *params, const float *out, const float *lse);

#endif
