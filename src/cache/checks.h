/* checks.h - what a backend and its kernels can do, asked by the pool and by those without one.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_CACHE_CHECKS_H
#define QUIRE_CACHE_CHECKS_H

#include "base/base.h"

#include <quire/backend.h>

/* ---- at creation; statuses and messages are those that the caller passes on ---- */

quire_status quire__check_backend(const struct quire_backend *backend, struct quire_error *error);
/* INVAL for a rotation that is none, UNSUPPORTED for a dtype that no cache has. */
quire_status quire__check_formats(uint32_t kv_rotation, uint32_t dtype_k, uint32_t dtype_v,
                                  struct quire_error *error);
/* Whether a dtype of the cache has rows of that many elements. */
quire_status quire__check_row(uint32_t layer, uint32_t dtype, uint32_t dim,
                              struct quire_error *error);
/* The heads of a layer, or of a group of them: `what` and `index` name it. */
struct quire__heads {
    uint32_t num_heads, num_kv_heads, head_dim, head_dim_v; /* head_dim_v 0: as head_dim */
};
quire_status quire__check_heads(const char *what, uint32_t index, struct quire__heads heads,
                                struct quire_error *error);
/* Whether the backend has the dtype; the head dims of a layer; the positions of a page. */
quire_status quire__check_dtype(const struct quire_backend *backend, uint32_t dtype,
                                struct quire_error *error);
quire_status quire__check_dims(const struct quire_backend *backend, uint32_t index,
                               const struct quire_kv_layer *layer, struct quire_error *error);
quire_status quire__check_block_size(const struct quire_backend *backend, uint32_t block_size,
                                     struct quire_error *error);

/* Only q8 and q4 are turned, and by default only q4. */
bool quire__is_rotated(uint32_t kv_rotation, uint32_t dtype);

/* ---- at every step ---- */

bool quire__view_is_given(const struct quire_view *view);
/* An f32 view of [rows, heads, dim]. */
bool quire__view_has_shape(const struct quire_view *view, uint64_t rows, uint64_t heads,
                           uint64_t dim);
/* Whether tokens, or else heads, of a view with a shape lie one behind the other, so that each row
 * can be written. Rows that interleave otherwise do not count, though they may be apart. */
bool quire__view_rows_apart(const struct quire_view *view);
/* Fills *used from the caller's params or, where they are NULL, from the defaults. False for a bad
 * struct_size, numbers that cannot be, or an lse that is not [rows, 1, heads], its rows apart. */
bool quire__attend_params_take(const struct quire_attend_params *params, uint64_t rows,
                               uint64_t heads, struct quire_attend_params *used);

#endif
