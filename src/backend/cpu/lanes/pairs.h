/* pairs.h - rows of K and V as vectors and, where the level multiplies it, as bfloat16.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_PAIRS_H
#define QUIRE_BACKEND_CPU_LANES_PAIRS_H

#include "backend/cpu/lanes/ahead.h"

enum { PAIR = 2 * LANES }; /* elements of a vector of bfloat16 */

enum { QUANTISED_PERIOD = 32 }; /* elements of q8 and q4 after which the layout repeats */

/* A row of K or V; no scales but of q8 and q4. */
struct row {
    const uint8_t *data, *scales;
    uint32_t dim;
};

FN struct row row_of(uint32_t dtype, const struct quire__rows *rows, uint32_t p)
{
    bool quantised = dtype == QUIRE_Q8 || dtype == QUIRE_Q4;
    return (struct row){rows->data[p], quantised ? rows->scales[p] : NULL, rows->dim};
}

/* LANES elements of a row from d on; unless the row is whole vectors, and of q8 and q4 whole
 * periods, what lies past its end is 0. */
FN vf part_load(uint32_t dtype, bool whole, struct row row, uint32_t d)
{
    if (whole)
        return kv_load_whole(dtype, row.data, row.scales, d);
    return d < row.dim ? kv_load(dtype, row.data, row.scales, d, row.dim) : v_zero();
}

#if defined(WITH_PRODUCTS)
#if LANES == 16
/* What the codes of a group of each row come to, as bfloat16: 16 of the first, 16 of the second. */
FN vu q4_table(const uint8_t *first, const uint8_t *second)
{
    static const float codes[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vf c = v_load(codes);
    return v_pack2(v_fma(c, v_set1(half_at(first)), v_set1(half_at(first + 2))),
                   v_fma(c, v_set1(half_at(second)), v_set1(half_at(second + 2))));
}

/* PAIR elements from d on, a multiple of their number. */
FN vu q4_pairs(struct row row, uint32_t d)
{
    const uint8_t *group = row.scales + d / Q4_GROUP * 4;
    return v_pick_words(q4_table(group, group + 4), v_two_nibbles(row.data + d / 2));
}

/* Elements d .. d + LANES of both rows, side by side. */
FN vu q4_woven(struct row low, struct row high, uint32_t d)
{
    struct q4_place place = q4_place_in_unit(d, LANES);
    vu codes = (vu)(v_from_u8(low.data + place.byte) | v_from_u8(high.data + place.byte) << 16);
    size_t group = d / Q4_GROUP * 4;
    return v_pick_words(q4_table(low.scales + group, high.scales + group),
                        (codes >> place.shift & 0xf000fu) | 0x100000u);
}
#endif

/* PAIR elements of a row from d on, as bfloat16. */
FN vu pair_load(uint32_t dtype, bool whole, struct row row, uint32_t d)
{
    if (dtype == QUIRE_BF16 && (whole || d + PAIR <= row.dim))
        return (vu)v_load(element_at(dtype, row.data, d));
#if LANES == 16
    if (dtype == QUIRE_Q4 && whole)
        return q4_pairs(row, d);
#endif
    return v_pack2(part_load(dtype, whole, row, d), part_load(dtype, whole, row, d + LANES));
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

/* Elements d .. d + LANES of two rows, side by side. */
FN vu pair_of_rows(uint32_t dtype, bool whole, struct row low, struct row high, uint32_t d)
{
    if (dtype == QUIRE_BF16 && (whole || d + LANES <= low.dim))
        return (vu)v_from_u16(element_at(dtype, low.data, d)) |
               (vu)v_from_u16(element_at(dtype, high.data, d)) << 16;
#if LANES == 16
    if (dtype == QUIRE_Q4 && whole)
        return q4_woven(low, high, d);
#endif
    return weave(v_pack2(part_load(dtype, whole, low, d), part_load(dtype, whole, high, d)));
}
#endif

#endif
