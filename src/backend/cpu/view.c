/* view.c - turns a view into a checked host pointer with strides.
 * SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/cpu.h"

/* Elements from the first to one past the last that the view names; false on overflow. */
static bool extent(const struct quire_view *view, uint64_t *elements)
{
    uint64_t outer, inner, sum;
    return quire__mul_u64(view->shape[0] - 1, view->stride[0], &outer) &&
           quire__mul_u64(view->shape[1] - 1, view->stride[1], &inner) &&
           quire__add_u64(outer, inner, &sum) && quire__add_u64(sum, view->shape[2], elements);
}

bool quire__span_of(const struct quire_backend *backend, const struct quire_view *view,
                    uint32_t dtype, struct quire__span *span)
{
    if (view == NULL || view->dtype != dtype)
        return false;
    *span = (struct quire__span){
        NULL,
        {view->shape[0], view->shape[1], view->shape[2]},
        {view->stride[0], view->stride[1]},
    };
    if (view->shape[0] == 0 || view->shape[1] == 0 || view->shape[2] == 0)
        return true;
    uint32_t element = quire_dtype_bytes(dtype);
    uint64_t elements, bytes;
    if (!extent(view, &elements) || !quire__mul_u64(elements, element, &bytes))
        return false;
    if (view->buffer != NULL)
        span->data = quire__host_range(backend, view->buffer, view->offset, bytes);
    else if (view->host != NULL)
        span->data = (uint8_t *)view->host + view->offset;
    return span->data != NULL && (uintptr_t)span->data % element == 0;
}
