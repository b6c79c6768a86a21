/* matrix_fixture.h - random weights of every type, in panels, and what products of them may be.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_MATRIX_FIXTURE_H
#define QUIRE_TESTS_MATRIX_FIXTURE_H

#include "kernel_fixture.h"

/* What QUIRE_WEIGHT_LIST says of a type. */
struct kt_type {
    uint32_t type, elements, bytes;
};
extern const struct kt_type kt_types[QUIRE__NUM_WEIGHTS];

/* A matrix as a file holds it, and its weights by ref/weights.h. */
struct kt_matrix {
    uint32_t type;
    uint64_t rows, columns, row_bytes;
    struct kt_guard file;   /* [rows][row_bytes] */
    float *weights;         /* [rows][columns] */
    struct kt_guard memory; /* of the panels */
    struct quire__panels panels;
};

/* Random bytes; the scales, and elements, are below 2 in size. */
void kt_matrix_new(struct kt_matrix *m, const struct kt_type *type, uint64_t rows, uint64_t columns,
                   uint64_t seed);
/* The same over `file`, which it takes. */
void kt_matrix_of(struct kt_matrix *m, uint32_t type, uint64_t rows, uint64_t columns,
                  struct kt_guard file);
void kt_matrix_free(struct kt_matrix *m);

/* The level's kernels of that type. */
const struct quire__weight_kernels *kt_weight_kernels(const struct quire__kernels *kernels,
                                                      uint32_t type);
/* An element of a weight as the level multiplies it: rounded to bf16, subnormal numbers to zero, or
 * as it is. */
float kt_operand(const struct quire__kernels *kernels, float x);
/* The same of a row of x, [n], for weights without codes or with them: those round a block of 32 to
 * multiples of a power of two, 2^-11 of the one in the largest element, and below 2^-100 to 0. */
void kt_inputs(const struct quire__kernels *kernels, bool codes, const float *x, size_t n,
               double *to);
/* Bytes from the start of prepared rows to part `part` of row i, column k. */
struct kt_rows {
    const struct quire__kernels *kernels;
    bool codes;
    uint32_t tokens;
    size_t stride; /* bytes */
};
size_t kt_place(const struct kt_rows *rows, uint32_t i, size_t k, uint32_t part);
/* Parts and bytes of an element there. */
uint32_t kt_parts(const struct kt_rows *rows);
size_t kt_part_bytes(const struct kt_rows *rows);
/* What the element is, given the scale of its block. */
double kt_prepared(const struct kt_rows *rows, const void *data, uint32_t i, size_t k, float scale);

/* A weight is d q + m. Levels that multiply f32, and types without codes, have q alone. */
struct kt_weight {
    float q, d, m;
};
/* The weight of row r of the panel and column k of the block, of what `decode` made of a block. */
struct kt_weight kt_decoded(const struct quire__kernels *kernels,
                            const struct quire__panels *panels, const void *decoded, uint32_t r,
                            uint32_t k);
/* What `decode` makes of a block. */
size_t kt_decoded_bytes(const struct quire__kernels *kernels, const struct quire__panels *panels);

/* Asserts y [tokens, rows] = x [tokens, columns] times the matrix, within what the arithmetic of
 * the level may do to each sum. Strides in elements. */
struct kt_product {
    const struct kt_matrix *m;
    const float *x, *y;
    uint64_t x_stride, y_stride, tokens;
};
void kt_product_check(const struct quire__kernels *kernels, const struct kt_product *p);

#endif
