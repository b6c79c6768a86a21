/* types.c - sizes and names of dtypes and weight formats.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <quire/types.h>

struct dtype_row {
    const char *text;
    uint32_t bytes;
};

static const struct dtype_row dtypes[] = {
#define DTYPE_ROW(name, value, bytes, text) [value] = {(text), (bytes)},
    QUIRE_DTYPE_LIST(DTYPE_ROW)
#undef DTYPE_ROW
};

struct weight_row {
    uint32_t type;
    uint32_t elements;
    uint32_t bytes;
    const char *text;
};

static const struct weight_row weights[] = {
#define WEIGHT_ROW(name, value, elements, bytes, text) {(value), (elements), (bytes), (text)},
    QUIRE_WEIGHT_LIST(WEIGHT_ROW)
#undef WEIGHT_ROW
};

uint32_t quire_dtype_bytes(uint32_t dtype)
{
    return dtype < QUIRE_ARRAY_LEN(dtypes) ? dtypes[dtype].bytes : 0;
}

const char *quire_dtype_name(uint32_t dtype)
{
    return dtype < QUIRE_ARRAY_LEN(dtypes) ? dtypes[dtype].text : NULL;
}

/* Elements that share a scale; docs/formats/kv.md. */
static uint32_t group_elements(uint32_t dtype, uint32_t dim)
{
    return dtype == QUIRE_Q8 && dim % 32 == 0 ? 32 : 16;
}

static bool is_grouped(uint32_t dtype)
{
    return dtype == QUIRE_Q8 || dtype == QUIRE_Q4;
}

uint32_t quire_kv_data_bytes(uint32_t dtype, uint32_t dim)
{
    if (dtype == QUIRE_U32 || dim > UINT32_MAX / 4 ||
        (is_grouped(dtype) && dim % group_elements(dtype, dim) != 0))
        return 0;
    return dtype == QUIRE_Q4 ? dim / 2 : dim * quire_dtype_bytes(dtype);
}

uint32_t quire_kv_scale_bytes(uint32_t dtype, uint32_t dim)
{
    if (!is_grouped(dtype) || quire_kv_data_bytes(dtype, dim) == 0)
        return 0;
    return dim / group_elements(dtype, dim) * (dtype == QUIRE_Q4 ? 4 : 2);
}

static const struct weight_row *find_weight(uint32_t type)
{
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(weights); i++) {
        if (weights[i].type == type)
            return &weights[i];
    }
    return NULL;
}

const char *quire_weight_name(uint32_t type)
{
    const struct weight_row *row = find_weight(type);
    return row != NULL ? row->text : NULL;
}

quire_status quire_weight_row_bytes(uint32_t type, uint64_t columns, uint64_t *bytes)
{
    const struct weight_row *row = find_weight(type);
    if (row == NULL || bytes == NULL || columns == 0 || columns % row->elements != 0)
        return QUIRE_E_INVAL;
    return quire__mul_u64(columns / row->elements, row->bytes, bytes) ? QUIRE_OK : QUIRE_E_INVAL;
}
