/* types.h - element types, weight formats and layouts that every other header names.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TYPES_H
#define QUIRE_TYPES_H

#include <stdint.h>

#include <quire/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Element types of views and of the K/V cache. Q8 and Q4 are of the cache only, 8 and 4 bits an
 * element and scales beside them (docs/formats/kv.md); a view counts them in bytes.
 * X(name, value, bytes, text) */
#define QUIRE_DTYPE_LIST(X)                                                                        \
    X(F32, 0, 4, "f32")                                                                            \
    X(F16, 1, 2, "f16")                                                                            \
    X(BF16, 2, 2, "bf16")                                                                          \
    X(U32, 3, 4, "u32")                                                                            \
    X(Q8, 4, 1, "q8")                                                                              \
    X(Q4, 5, 1, "q4")

enum quire_dtype {
#define QUIRE_DTYPE_ENUM(name, value, bytes, text) QUIRE_##name = (value),
    QUIRE_DTYPE_LIST(QUIRE_DTYPE_ENUM)
#undef QUIRE_DTYPE_ENUM
};

/* Formats of weights, as GGUF files hold them: rows of `elements`-wide blocks of `bytes` bytes.
 * X(name, GGUF type number, elements per block, bytes per block, text)
 * Source of numbers and sizes: the GGUF specification and the block structs of ggml. */
#define QUIRE_WEIGHT_LIST(X)                                                                       \
    X(F32, 0, 1, 4, "F32")                                                                         \
    X(F16, 1, 1, 2, "F16")                                                                         \
    X(Q4_0, 2, 32, 18, "Q4_0")                                                                     \
    X(Q4_1, 3, 32, 20, "Q4_1")                                                                     \
    X(Q5_0, 6, 32, 22, "Q5_0")                                                                     \
    X(Q5_1, 7, 32, 24, "Q5_1")                                                                     \
    X(Q8_0, 8, 32, 34, "Q8_0")                                                                     \
    X(Q4_K, 12, 256, 144, "Q4_K")                                                                  \
    X(Q5_K, 13, 256, 176, "Q5_K")                                                                  \
    X(Q6_K, 14, 256, 210, "Q6_K")                                                                  \
    X(BF16, 30, 1, 2, "BF16")

enum quire_weight_type {
#define QUIRE_WEIGHT_ENUM(name, value, elements, bytes, text) QUIRE_W_##name = (value),
    QUIRE_WEIGHT_LIST(QUIRE_WEIGHT_ENUM)
#undef QUIRE_WEIGHT_ENUM
};

/* What is done to rows of K and V before they are stored as q8 or q4; q and the output are turned
 * alike, so that only rounding differs. Planes of other dtypes are never turned. */
enum quire_kv_rotation {
    QUIRE_KV_ROTATION_AUTO = 0,    /* Hadamard where a plane is q4 */
    QUIRE_KV_ROTATION_NONE = 1,    /* stored as they are */
    QUIRE_KV_ROTATION_HADAMARD = 2 /* by blocks of the largest power of two that divides D */
};

/* Where the K/V of a sequence lies. */
enum quire_layout {
    QUIRE_LAYOUT_AUTO = 0,       /* QUIRE_PAGED_KV decides: "0" contiguous, anything else paged */
    QUIRE_LAYOUT_CONTIGUOUS = 1, /* [num_kv_heads, capacity, head_dim], one region a sequence */
    QUIRE_LAYOUT_PAGED = 2       /* [num_blocks, num_kv_heads, block_size, head_dim] + table */
};

/* Bytes of one element of a dtype; 1 for q8 and q4, of which views count bytes.
 *
 * dtype: an enum quire_dtype. Returns 0 for an unknown one.
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API uint32_t quire_dtype_bytes(uint32_t dtype);

/* The lower-case name of a dtype: "f16".
 *
 * dtype: an enum quire_dtype. Returns a static string; NULL for an unknown one.
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API const char *quire_dtype_name(uint32_t dtype);

/* Bytes of the data of one K or V row: one position of one head. A plane of a page and head is the
 * data of its P rows, then their scales.
 *
 * dtype: an enum quire_dtype; dim: elements of the row. Returns 0 where the cache has no such
 * dtype, or q8 and q4 no such dim: theirs are multiples of 16.
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API uint32_t quire_kv_data_bytes(uint32_t dtype, uint32_t dim);

/* Bytes of the scales of one K or V row; 0 but for q8 and q4.
 *
 * dtype, dim: as quire_kv_data_bytes.
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API uint32_t quire_kv_scale_bytes(uint32_t dtype, uint32_t dim);

/* The format name of a weight type: "Q4_1".
 *
 * type: an enum quire_weight_type. Returns a static string; NULL for an unknown one.
 * Statuses: none.
 * Threads: any.
 * Cost: a walk over 11 rows. */
QUIRE_API const char *quire_weight_name(uint32_t type);

/* Bytes of one row of weights.
 *
 * type: an enum quire_weight_type; columns: elements of the row, a multiple of the block's
 * elements; *bytes gets the size. Statuses: INVAL for an unknown type, NULL, a zero or uneven
 * number of columns, or a size over 64 bits. Threads: any. Cost: constant. */
QUIRE_API quire_status quire_weight_row_bytes(uint32_t type, uint64_t columns, uint64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
