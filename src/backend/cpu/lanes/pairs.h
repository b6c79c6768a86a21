/* pairs.h - rows of K and V as vectors and, where the level multiplies it, as bfloat16.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_PAIRS_H
#define QUIRE_BACKEND_CPU_LANES_PAIRS_H

#include "backend/cpu/lanes/ahead.h"

enum { PAIR = 2 * LANES }; /* elements of a vector of bfloat16 */

enum { QUANTISED_PERIOD = 32 }; /* elements of q8 and q4 after which the layout repeats */

/* LANES elements of a row from d on; unless the row is whole vectors, and of q8 and q4 whole
 * periods, what lies past its end is 0. */
FN vf part_load(uint32_t dtype, bool whole, const struct quire__rows *rows, uint32_t p, uint32_t d)
{
    if (!whole && d >= rows->dim)
        return v_zero();
    if (dtype == QUIRE_Q8 || dtype == QUIRE_Q4) {
        uint32_t next = (d / QUANTISED_PERIOD + 1) * QUANTISED_PERIOD;
        return kv_load(dtype, rows->data[p], rows->scales[p], d, whole ? next : rows->dim);
    }
    const void *at = element_at(dtype, rows->data[p], d);
    if (whole || d + LANES <= rows->dim)
        return element_load(dtype, at);
    return element_load_part(dtype, at, rows->dim - d);
}

#if defined(WITH_PRODUCTS)
/* PAIR elements of a row from d on, as bfloat16. */
FN vu pair_load(uint32_t dtype, bool whole, const struct quire__rows *rows, uint32_t p, uint32_t d)
{
    if (dtype == QUIRE_BF16 && (whole || d + PAIR <= rows->dim))
        return (vu)v_load(element_at(dtype, rows->data[p], d));
    return v_pack2(part_load(dtype, whole, rows, p, d),
                   part_load(dtype, whole, rows, p, d + LANES));
}

/* The words of a vector, those of its halves in turn. */
FN vu weave(vu a)
{
    typedef uint16_t words __attribute__((vector_size(4 * LANES)));
#if LANES == 16
    return (vu)__builtin_shufflevector((words)a, (words)a, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21,
                                       6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                       14, 30, 15, 31);
#else
    return (vu)__builtin_shufflevector((words)a, (words)a, 0, 4, 1, 5, 2, 6, 3, 7);
#endif
}

/* Elements d .. d + LANES of rows p and p + 1, side by side. */
FN vu pair_of_rows(uint32_t dtype, bool whole, const struct quire__rows *rows, uint32_t p,
                   uint32_t d)
{
    if (dtype == QUIRE_BF16 && (whole || d + LANES <= rows->dim)) {
        const uint16_t *low = element_at(dtype, rows->data[p], d);
        return (vu)v_from_u16(low) | (vu)v_from_u16(element_at(dtype, rows->data[p + 1], d)) << 16;
    }
    return weave(
        v_pack2(part_load(dtype, whole, rows, p, d), part_load(dtype, whole, rows, p + 1, d)));
}
#endif

#endif
