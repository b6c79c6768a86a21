/* checks.c - what a backend and its kernels can do, asked by the pool and by those without one.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cache/checks.h"

#include <quire/pool.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

quire_status quire__check_backend(const struct quire_backend *backend, struct quire_error *error)
{
    if (backend->struct_size != sizeof *backend || backend->memory == NULL ||
        ((backend->caps.flags & QUIRE_CAP_KV) != 0 && backend->kv == NULL))
        return quire__fail(error, QUIRE_E_INVAL, "the backend is of another version or incomplete");
    return QUIRE_OK;
}

quire_status quire__check_formats(uint32_t kv_rotation, uint32_t dtype_k, uint32_t dtype_v,
                                  struct quire_error *error)
{
    if (quire_kv_data_bytes(dtype_k, 16) == 0 || quire_kv_data_bytes(dtype_v, 16) == 0)
        return quire__fail(error, QUIRE_E_UNSUPPORTED, "K and V may be f32, f16, bf16, q8 or q4");
    if (kv_rotation > QUIRE_KV_ROTATION_HADAMARD)
        return quire__fail(error, QUIRE_E_INVAL, "kv_rotation is %u, which is none", kv_rotation);
    return QUIRE_OK;
}

quire_status quire__check_row(uint32_t layer, uint32_t dtype, uint32_t dim,
                              struct quire_error *error)
{
    if (quire_kv_data_bytes(dtype, dim) != 0)
        return QUIRE_OK;
    return quire__fail(error, QUIRE_E_UNSUPPORTED,
                       "layer %u: %s has head dims that are multiples of 16, not %u; any have: "
                       "f32 f16 bf16",
                       layer, quire_dtype_name(dtype), dim);
}

quire_status quire__check_heads(const char *what, uint32_t index, struct quire__heads heads,
                                struct quire_error *error)
{
    if (heads.num_kv_heads == 0 || heads.num_heads == 0 ||
        heads.num_heads % heads.num_kv_heads != 0)
        return quire__fail(error, QUIRE_E_INVAL,
                           "%s %u: %u query heads are not a multiple of %u KV heads", what, index,
                           heads.num_heads, heads.num_kv_heads);
    if (heads.head_dim == 0)
        return quire__fail(error, QUIRE_E_INVAL, "%s %u: head_dim is 0", what, index);
    if (heads.num_heads > QUIRE_MAX_HEADS || heads.head_dim > QUIRE_MAX_HEAD_DIM ||
        heads.head_dim_v > QUIRE_MAX_HEAD_DIM)
        return quire__fail(error, QUIRE_E_LIMIT, "%s %u: at most %u heads of at most %u elements",
                           what, index, QUIRE_MAX_HEADS, QUIRE_MAX_HEAD_DIM);
    return QUIRE_OK;
}

quire_status quire__check_dtype(const struct quire_backend *backend, uint32_t dtype,
                                struct quire_error *error)
{
    if ((backend->caps.kv_dtypes & 1u << dtype) != 0)
        return QUIRE_OK;
    char list[64] = "";
    for (uint32_t i = 0; quire_dtype_name(i) != NULL; i++) {
        size_t used = strlen(list);
        if (quire_kv_data_bytes(i, 16) != 0 && (backend->caps.kv_dtypes & 1u << i) != 0)
            (void)snprintf(list + used, sizeof list - used, " %s", quire_dtype_name(i));
    }
    return quire__fail(error, QUIRE_E_UNSUPPORTED, "backend %s has no K/V in %s; it has:%s",
                       backend->name, quire_dtype_name(dtype), list);
}

quire_status quire__check_dims(const struct quire_backend *backend, uint32_t index,
                               const struct quire_kv_layer *layer, struct quire_error *error)
{
    const struct quire_backend_caps *caps = &backend->caps;
    uint32_t small = layer->head_dim < layer->head_dim_v ? layer->head_dim : layer->head_dim_v;
    uint32_t large = layer->head_dim > layer->head_dim_v ? layer->head_dim : layer->head_dim_v;
    if (small >= caps->head_dim_min && large <= caps->head_dim_max)
        return QUIRE_OK;
    return quire__fail(error, QUIRE_E_UNSUPPORTED,
                       "layer %u: backend %s has head dims %u to %u, not %u", index, backend->name,
                       caps->head_dim_min, caps->head_dim_max,
                       small < caps->head_dim_min ? small : large);
}

quire_status quire__check_block_size(const struct quire_backend *backend, uint32_t block_size,
                                     struct quire_error *error)
{
    const struct quire_backend_caps *caps = &backend->caps;
    if (block_size >= caps->block_size_min && block_size <= caps->block_size_max)
        return QUIRE_OK;
    return quire__fail(error, QUIRE_E_UNSUPPORTED, "backend %s has block sizes %u to %u, not %u",
                       backend->name, caps->block_size_min, caps->block_size_max, block_size);
}

bool quire__is_rotated(uint32_t kv_rotation, uint32_t dtype)
{
    if (kv_rotation == QUIRE_KV_ROTATION_AUTO)
        return dtype == QUIRE_Q4;
    return kv_rotation == QUIRE_KV_ROTATION_HADAMARD && (dtype == QUIRE_Q8 || dtype == QUIRE_Q4);
}

/* ---- at every step ---- */

bool quire__view_is_given(const struct quire_view *view)
{
    return view != NULL && (view->buffer != NULL || view->host != NULL);
}

bool quire__view_has_shape(const struct quire_view *view, uint64_t rows, uint64_t heads,
                           uint64_t dim)
{
    return quire__view_is_given(view) && view->dtype == QUIRE_F32 && view->shape[0] == rows &&
           view->shape[1] == heads && view->shape[2] == dim;
}

/* Whether `outer` stretches, of `inner` rows of dim elements each, lie one behind the other; false
 * on overflow too. */
static bool nests(uint64_t outer, uint64_t outer_stride, uint64_t inner, uint64_t inner_stride,
                  uint64_t dim)
{
    uint64_t end;
    return (inner < 2 || inner_stride >= dim) &&
           (outer < 2 || (inner == 0 || (quire__mul_u64(inner - 1, inner_stride, &end) &&
                                         quire__add_u64(end, dim, &end) && outer_stride >= end)));
}

bool quire__view_rows_apart(const struct quire_view *view)
{
    const uint64_t *n = view->shape, *stride = view->stride;
    return nests(n[0], stride[0], n[1], stride[1], n[2]) ||
           nests(n[1], stride[1], n[0], stride[0], n[2]);
}

bool quire__attend_params_take(const struct quire_attend_params *params, uint64_t rows,
                               uint64_t heads, struct quire_attend_params *used)
{
    quire_attend_params_init(used);
    if (params != NULL && params->struct_size != sizeof *used)
        return false; /* before more of it is read */
    if (params != NULL)
        *used = *params;
    return isfinite(used->scale) && isfinite(used->softcap) && used->softcap >= 0.0f &&
           (!quire__view_is_given(&used->lse) ||
            (quire__view_has_shape(&used->lse, rows, 1, heads) &&
             quire__view_rows_apart(&used->lse)));
}
