/* convert.h - rows of K/V elements to and from f32.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_CONVERT_H
#define QUIRE_BACKEND_CPU_LANES_CONVERT_H

/* dtype is a constant wherever these are used, so that one branch remains. */
FN vf element_load(uint32_t dtype, const void *p)
{
    if (dtype == QUIRE_F32)
        return v_load(p);
    return dtype == QUIRE_F16 ? v_from_f16(p) : v_from_bf16(p);
}

/* The first n < LANES elements; the other lanes are 0. */
FN vf element_load_part(uint32_t dtype, const void *p, size_t n)
{
    if (dtype == QUIRE_F32)
        return v_load_part(p, n);
    uint16_t lanes[LANES] = {0};
    memcpy(lanes, p, n * sizeof(uint16_t));
    return element_load(dtype, lanes);
}

FN const void *element_at(uint32_t dtype, const void *p, size_t i)
{
    return (const uint8_t *)p + i * (dtype == QUIRE_F32 ? 4 : 2);
}

FN void load_elements(uint32_t dtype, float *to, const void *from, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store(to + i, element_load(dtype, element_at(dtype, from, i)));
    if (i < n)
        v_store_part(to + i, element_load_part(dtype, element_at(dtype, from, i), n - i), n - i);
}

KERNEL void load_f16(float *to, const uint16_t *from, size_t n)
{
    load_elements(QUIRE_F16, to, from, n);
}

KERNEL void load_bf16(float *to, const uint16_t *from, size_t n)
{
    load_elements(QUIRE_BF16, to, from, n);
}

FN void store_elements(uint32_t dtype, uint16_t *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i += LANES) {
        size_t left = n - i;
        vf x = v_load_row(from, i, n);
        uint16_t lanes[LANES];
        uint16_t *target = left >= LANES ? to + i : lanes;
        if (dtype == QUIRE_F16)
            v_to_f16(target, x);
        else
            v_to_bf16(target, x);
        if (left < LANES)
            memcpy(to + i, lanes, left * sizeof(uint16_t));
    }
}

KERNEL void store_f16(uint16_t *to, const float *from, size_t n)
{
    store_elements(QUIRE_F16, to, from, n);
}

KERNEL void store_bf16(uint16_t *to, const float *from, size_t n)
{
    store_elements(QUIRE_BF16, to, from, n);
}

#endif
