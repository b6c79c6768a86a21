/* factors.h - what attention on vectors multiplies: f32, or pairs of bfloat16.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   factors             a vector of them: STEP elements of a row of q or K; of V, LANES dimensions
 *                       of TOGETHER positions, those of a dimension side by side
 *   add_products        a sum in each lane
 *   key_load            STEP elements of row p from d on, from any dtype
 *   value_load          of positions p .. p + TOGETHER, dimensions d .. d + LANES
 *   seen_only           0 for the positions that the lowest bits of a mask exclude
 *   round_weights, softmax_weight    the weights of a tile, and one of them for all lanes
 *   readable_keys, readable_values    the rows where they lie, or copies as factors
 *
 * dtype is a constant wherever it is a parameter. */
#ifndef QUIRE_BACKEND_CPU_LANES_FACTORS_H
#define QUIRE_BACKEND_CPU_LANES_FACTORS_H

#include "backend/cpu/lanes/pairs.h"

enum { WOVEN = 31 }; /* besides enum quire_dtype: copies of values, TOGETHER positions a row */

#if defined(WITH_PRODUCTS)

typedef vu factors;
enum { STEP = PAIR, TOGETHER = 2, FACTOR_BYTES = 2, STORED_KEYS = QUIRE_BF16 };

FN vf add_products(vf sum, factors a, factors b)
{
    return v_dot2(sum, a, b);
}

FN void put_factors(void *to, const vf *part)
{
    v_store(to, (vf)v_pack2(part[0], part[1]));
}

FN factors key_load(uint32_t dtype, const struct quire__rows *rows, uint32_t p, uint32_t d)
{
    return pair_load(dtype, true, row_of(dtype, rows, p), d);
}

FN factors value_load(uint32_t dtype, const struct quire__rows *rows, uint32_t p, uint32_t d)
{
    if (dtype == WOVEN)
        return (vu)v_load((const float *)(const void *)rows->data[p] + d);
    return pair_of_rows(dtype, true, row_of(dtype, rows, p), row_of(dtype, rows, p + 1), d);
}

FN factors seen_only(factors v, uint64_t mask)
{
    uint32_t here = (uint32_t)mask & 3u;
    if (here == 3)
        return v;
    return v & (vu)v_spread(here == 1 ? 0xffffu : 0xffff0000u);
}

FN void round_weights(const struct quire__tile *t)
{
    for (uint32_t r = 0; r < t->rows; r++) {
        float *s = t->s + (size_t)r * QUIRE__TILE;
        for (uint32_t p = 0; t->mask[r] != 0 && p < QUIRE__TILE; p += PAIR)
            v_store(s + p / 2, (vf)v_pack2(v_load(s + p), v_load(s + p + LANES)));
    }
}

FN factors softmax_weight(const float *s, uint32_t p)
{
    return (vu)v_set1(s[p / 2]);
}

#else

typedef vf factors;
enum { STEP = LANES, TOGETHER = 1, FACTOR_BYTES = 4, STORED_KEYS = QUIRE_F32 };

FN vf add_products(vf sum, factors a, factors b)
{
    return v_fma(a, b, sum);
}

FN void put_factors(void *to, const vf *part)
{
    v_store(to, part[0]);
}

FN factors key_load(uint32_t dtype, const struct quire__rows *rows, uint32_t p, uint32_t d)
{
    return part_load(dtype, true, row_of(dtype, rows, p), d);
}

FN factors value_load(uint32_t dtype, const struct quire__rows *rows, uint32_t p, uint32_t d)
{
    dtype = dtype == WOVEN ? QUIRE_F32 : dtype;
    return part_load(dtype, true, row_of(dtype, rows, p), d);
}

FN factors seen_only(factors v, uint64_t mask)
{
    (void)mask;
    return v;
}

FN void round_weights(const struct quire__tile *t)
{
    (void)t;
}

FN factors softmax_weight(const float *s, uint32_t p)
{
    return v_set1(s[p]);
}

#endif

/* Factors of a row, from its first one on: whole vectors at every level. */
FN uint32_t factor_stride(uint32_t dim)
{
    return (uint32_t)quire__round_up(dim, (int)STEP > QUIRE__LANES_MAX ? STEP : QUIRE__LANES_MAX);
}

FN void *factors_at(void *row, size_t i)
{
    return (uint8_t *)row + i * FACTOR_BYTES;
}

FN factors get_factors(const void *row, size_t i)
{
    return (factors)v_load((const float *)(const void *)((const uint8_t *)row + i * FACTOR_BYTES));
}

/* ---- copies ---- */

/* Keys as factors, zero from dim on. */
FN void copy_keys(const struct quire__tile *t, uint32_t dtype, const uint8_t **at)
{
    uint32_t stride = factor_stride(t->k.dim);
    for (uint32_t p = 0; p < t->positions; p++) {
        void *to = factors_at(t->scratch, (size_t)p * stride);
        struct row row = row_of(dtype, &t->k, p);
        for (uint32_t d = 0; d < stride; d += STEP) {
            vf part[STEP / LANES];
            UNROLL
            for (uint32_t i = 0; i < STEP / LANES; i++)
                part[i] = part_load(dtype, false, row, d + i * LANES);
            put_factors(factors_at(to, d), part);
        }
        at[p] = to;
    }
}

/* Values as factors, TOGETHER positions a row. */
FN void copy_values(const struct quire__tile *t, uint32_t dtype, const uint8_t **at)
{
    for (uint32_t p = 0; p < t->positions; p += TOGETHER) {
        float *to = (float *)t->scratch + (size_t)p / TOGETHER * t->dim_v;
        struct row row = row_of(dtype, &t->v, p);
#if defined(WITH_PRODUCTS)
        struct row next = row_of(dtype, &t->v, p + 1);
#endif
        for (uint32_t d = 0; d < t->dim_v; d += LANES) {
#if defined(WITH_PRODUCTS)
            v_store(to + d, (vf)pair_of_rows(dtype, false, row, next, d));
#else
            v_store(to + d, part_load(dtype, false, row, d));
#endif
        }
        at[p] = (const uint8_t *)to;
    }
}

#define COPY(what, rows, at)                                                                       \
    do {                                                                                           \
        if ((rows)->dtype == QUIRE_F32)                                                            \
            what(t, QUIRE_F32, at);                                                                \
        else if ((rows)->dtype == QUIRE_F16)                                                       \
            what(t, QUIRE_F16, at);                                                                \
        else if ((rows)->dtype == QUIRE_BF16)                                                      \
            what(t, QUIRE_BF16, at);                                                               \
        else if ((rows)->dtype == QUIRE_Q8)                                                        \
            what(t, QUIRE_Q8, at);                                                                 \
        else                                                                                       \
            what(t, QUIRE_Q4, at);                                                                 \
    } while (0)

/* Whether rows can be read a vector at a time, none of which is cut off. */
FN bool is_whole(const struct quire__rows *rows, uint32_t stride)
{
    return rows->dim == stride && (rows->scales == NULL || rows->dim % QUANTISED_PERIOD == 0);
}

/* `few` says that the readers of a row are no more than one register tile: then copying costs more
 * than it saves. */
FN struct quire__rows readable_keys(const struct quire__tile *t, bool few, const uint8_t **at)
{
    struct quire__rows ready = t->k;
    bool whole = is_whole(&t->k, factor_stride(t->k.dim));
    if (whole && (few || t->k.dtype == STORED_KEYS))
        return ready;
    COPY(copy_keys, &t->k, at);
    for (uint32_t p = t->positions; p < quire__round_up(t->positions, QUIRE__LANES_MAX); p++)
        at[p] = at[0];
    ready.data = at;
    ready.dtype = STORED_KEYS;
    return ready;
}

FN struct quire__rows readable_values(const struct quire__tile *t, bool few, const uint8_t **at)
{
    struct quire__rows ready = t->v;
    bool whole = is_whole(&t->v, t->dim_v);
    if (whole && (few || (TOGETHER == 1 && t->v.dtype == QUIRE_F32)))
        return ready;
    COPY(copy_values, &t->v, at);
    ready.data = at;
    ready.dtype = WOVEN;
    return ready;
}
#undef COPY

#endif
