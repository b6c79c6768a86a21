/* products_fixture.c - what products of bfloat16 are tried on.
 * SPDX-License-Identifier: Apache-2.0 */
#include "products_fixture.h"

#include "kernel_fixture.h"

#include "backend/cpu/scalar.h"

static uint32_t with_exponent(uint32_t bits, uint32_t low, uint32_t high, struct qt_random *random)
{
    return (bits & 0x807fffffu) | (low + qt_below(random, high - low + 1)) << 23;
}

/* 2^-126 as a summand or a product, 2^-151 to 2^-150 as a product, or nothing. */
static uint32_t edge(uint32_t bits, bool sum, struct qt_random *random)
{
    static const uint32_t exponents[] = {0, 127 - 63, 127 - 75, 127 - 76};
    uint32_t at = qt_below(random, QT_LEN(exponents)), sign = bits & 0x80000000u;
    return sum ? sign | 0x00800000u : sign | exponents[at] << 23 | (at == 2 ? bits & 0x7f0000u : 0);
}

uint32_t pf_element(enum pf_kind kind, bool sum, struct qt_random *random)
{
    static const uint32_t special[] = {
        0x00000000u, 0x00000001u, 0x00010000u, 0x007f0000u, 0x007fffffu, 0x00800000u, 0x00800001u,
        0x00810000u, 0x3f800000u, 0x3f808000u, 0x3f818000u, 0x7f7f0000u, 0x7f7f7fffu, 0x7f7f8000u,
        0x7f7fffffu, 0x7f800000u, 0x7f800001u, 0x7f810000u, 0x7fbf1234u, 0x7fc00000u, 0x7fd55555u,
    };
    uint32_t bits = (uint32_t)qt_next(random);
    switch (kind) {
    case PF_SPECIAL:
        return special[qt_below(random, QT_LEN(special))] | (bits & 0x80000000u);
    case PF_ORDINARY:
    case PF_CANCELLED:
        return with_exponent(bits, 127 - 8, 127 + 8, random);
    case PF_TINY:
        return with_exponent(bits, sum ? 1 : 52, sum ? 26 : 64, random);
    case PF_EDGE:
        return edge(bits, sum, random);
    case PF_LARGE:
        return with_exponent(bits, sum ? 250 : 186, sum ? 254 : 192, random);
    default:
        return bits;
    }
}

uint32_t pf_pair(enum pf_kind kind, struct qt_random *random)
{
    uint32_t low = pf_element(kind, false, random), high = pf_element(kind, false, random);
    return low >> 16 | (high & 0xffff0000u);
}

/* A sum that the products take away, to some units of its last place. */
static uint32_t cancelling(uint32_t a, uint32_t b, struct qt_random *random)
{
    float high = f32_from(a & 0xffff0000u) * f32_from(b & 0xffff0000u);
    float low = f32_from(a << 16) * f32_from(b << 16);
    float sum = qt_chance(random, 50) ? -high : -(high + low);
    return f32_bits(sum) + qt_below(random, 5) - 2;
}

void pf_fill_dot2(float *c, float *a, float *b, size_t n, struct qt_random *random)
{
    for (size_t i = 0; i < n; i++) {
        enum pf_kind kind = (enum pf_kind)qt_below(random, PF_NUM_KINDS);
        uint32_t x = pf_pair(kind, random), y = pf_pair(kind, random);
        uint32_t sum = pf_element(kind, true, random);
        if (qt_chance(random, 2)) /* one special among others */
            sum = pf_element(PF_SPECIAL, true, random);
        if (kind == PF_CANCELLED)
            sum = cancelling(x, y, random);
        memcpy(&a[i], &x, 4);
        memcpy(&b[i], &y, 4);
        memcpy(&c[i], &sum, 4);
    }
}

void pf_check_dot_words(const struct pf_products *products)
{
    enum { BATCH = 256, BATCHES = 200 };
    static const uint32_t edges[] = {0x80008000u, 0x7fff8000u, 0x00010001u, 0xffff0000u};
    uint32_t a[BATCH], b[BATCH];
    int32_t c[BATCH], got[BATCH];
    struct qt_random random = {14};
    for (int i = 0; i < BATCHES; i++) {
        for (int j = 0; j < BATCH; j++) {
            bool edge = qt_chance(&random, 20);
            a[j] = edge ? edges[qt_below(&random, QT_LEN(edges))] : (uint32_t)qt_next(&random);
            b[j] = edge ? edges[qt_below(&random, QT_LEN(edges))] : (uint32_t)qt_next(&random);
            c[j] = got[j] = (int32_t)qt_next(&random);
        }
        products->dot_words(got, a, b, BATCH);
        for (int j = 0; j < BATCH; j++) {
            int64_t low = (int64_t)(int16_t)a[j] * (int16_t)b[j];
            int64_t high = (int64_t)(int16_t)(a[j] >> 16) * (int16_t)(b[j] >> 16);
            if ((uint32_t)got[j] != (uint32_t)(c[j] + low + high))
                fail_msg("dot_words of c %08x a %08x b %08x is %08x", (uint32_t)c[j], a[j], b[j],
                         (uint32_t)got[j]);
        }
    }
}
