/* tile_fixture.h - random tiles for the kernel `attend`, between pages that must not be touched.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_TILE_FIXTURE_H
#define QUIRE_TESTS_TILE_FIXTURE_H

#include "kernel_fixture.h"

enum { TF_ROWS_MAX = 33, TF_SIZES_LEN = 6, TF_DIMS_LEN = 12 };
#define TF_SCALE 0.75f /* of queries */

/* Positions of a tile, and elements of a row, around every boundary. */
extern const uint32_t tf_sizes[TF_SIZES_LEN], tf_dims[TF_DIMS_LEN];

/* K or V rows of one tile. Each ends at a page that must not be touched; those that nobody sees
 * hold NaN, and some of them are the row of a neighbour. */
struct tf_rows {
    struct quire__rows rows;
    uint32_t n;
    const uint8_t *at[QUIRE__TILE];
    struct kt_guard guards[QUIRE__TILE];
};

/* A tile of random rows and masks, in the middle of a softmax or at its start. */
struct tf_case {
    struct quire__tile tile;
    struct tf_rows k, v;
    struct kt_guard q_in, q, s, state, scratch;
    float *queries; /* [rows][dim], before they are scaled */
    float max[TF_ROWS_MAX], sum[TF_ROWS_MAX];
    uint64_t mask[TF_ROWS_MAX], seen;
    uint32_t wild; /* a position whose values are infinite, seen by some; QUIRE__TILE: none */
    float slope[TF_ROWS_MAX], distance[TF_ROWS_MAX];
    size_t state_floats;
};

struct tf_shape {
    uint32_t rows, positions, dim, dim_v;
};

void tf_open(struct tf_case *c, const struct quire__kernels *kernels, struct qt_random *random,
             const struct tf_shape *shape);
void tf_close(struct tf_case *c);
bool tf_sees_wild(const struct tf_case *c, uint32_t r);
double tf_element(const struct quire__rows *rows, uint32_t p, uint32_t d);

#endif
