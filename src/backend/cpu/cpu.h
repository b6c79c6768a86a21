/* cpu.h - the CPU backend's own struct, and what its files share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_CPU_H
#define QUIRE_BACKEND_CPU_CPU_H

#include <pthread.h>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/threads.h"

struct quire__cpu {
    struct quire__host host; /* first: a pointer to the backend is a pointer to this */
    const struct quire__kernels *kernels;
    struct quire__threads *threads;
    bool no_cascade;
    uint8_t *scratch; /* [num_threads][QUIRE__SCRATCH_BYTES] */
    void *rows; /* prepared for one linear; only grows. Guarded by rows_turn, as is rows_bytes */
    uint64_t rows_bytes;
    pthread_mutex_t rows_turn;
};

extern const struct quire_kv_ops quire__cpu_kv_ops;
extern const struct quire_nn_ops quire__cpu_nn_ops;

/* ---- cpu.c: what a config means ---- */

const char *quire__cpu_cap(const struct quire_backend_config *); /* of the level; NULL: none */
quire_status quire__cpu_num_threads(const struct quire_backend_config *, uint32_t *num_threads,
                                    struct quire_error *);

/* ---- linear.c: the part of the nn group that uses weights ---- */

quire_status quire__cpu_weight_create(struct quire_backend *, const struct quire_weight_desc *,
                                      struct quire_weight **);
void quire__cpu_weight_destroy(struct quire_backend *, struct quire_weight *);
quire_status quire__cpu_linear(struct quire_backend *, struct quire_weight *,
                               const struct quire_view *, const struct quire_view *);
quire_status quire__cpu_embed(struct quire_backend *, struct quire_weight *,
                              const struct quire_view *, const struct quire_view *);

/* ---- views ---- */

/* A resolved view: element [i][j][k] is data[i * stride[0] + j * stride[1] + k]. */
struct quire__span {
    void *data; /* may be NULL when a dimension is 0 */
    uint64_t shape[3];
    uint64_t stride[2];
};

/* Resolves a view of that dtype. False when it is NULL, of another dtype, misaligned for its
 * element, or reaches outside of its buffer. */
bool quire__span_of(const struct quire_backend *backend, const struct quire_view *view,
                    uint32_t dtype, struct quire__span *span);

static inline bool quire__span_is(const struct quire__span *span, uint64_t d0, uint64_t d1,
                                  uint64_t d2)
{
    return span->shape[0] == d0 && span->shape[1] == d1 && span->shape[2] == d2;
}

static inline bool quire__span_same(const struct quire__span *a, const struct quire__span *b)
{
    return quire__span_is(a, b->shape[0], b->shape[1], b->shape[2]);
}

static inline float *quire__span_row(const struct quire__span *span, uint64_t i, uint64_t j)
{
    return (float *)span->data + i * span->stride[0] + j * span->stride[1];
}

#endif
