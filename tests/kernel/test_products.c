/* test_products.c - the emulated products of bfloat16 give every bit that processors give.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Twice: the emulation's results have the hash that a processor's had, on any machine; and where
 * the processor has the instructions, each result is compared with what it gives here. */
#define QUIRE_EMULATE
#define WITH_TILES
#include "backend/cpu/lanes/wide.h"

#include "backend/cpu/lanes/products.h"

#include "kernel_fixture.h"
#include "products_fixture.h"

#include <stdio.h>

static const struct pf_products emulated = PRODUCTS_TABLE;

/* Of what an Intel Xeon with AMX (Sapphire Rapids) gave. */
static const uint64_t dot2_hash = 0x26d0a4ed84f9819du, pack2_hash = 0x39af06238ed64cfcu,
                      tiles_hash = 0x20e7abc8708bd913u;

static bool machine_has(const char *level)
{
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        if (strcmp(kernels->level, level) == 0)
            return true;
    }
    print_message("[  NOTE    ] no %s here: the emulation is held against a hash alone\n", level);
    return false;
}

static uint64_t hash_add(uint64_t hash, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 4)
        hash = qt_mix(hash ^ u32_at((const uint8_t *)data + i));
    return hash;
}

static void hash_is(const char *what, uint64_t hash, uint64_t want)
{
    if (hash != want)
        fail_msg("the hash of %s is 0x%016llx", what, (unsigned long long)hash);
}

/* ---- what is multiplied ---- */

enum kind {
    ANY_BITS,
    SPECIAL,   /* zeros, subnormals, the ends of the range, infinities, NaN of all sorts */
    ORDINARY,  /* from 2^-8 to 2^8 */
    TINY,      /* products about the smallest normal number */
    EDGE,      /* sums that only rounding to 24 bits tells from the smallest normal number */
    LARGE,     /* products about the largest number */
    CANCELLED, /* ordinary, with sums near 0 where the caller arranges them */
    NUM_KINDS
};

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

/* f32 bits; the top half is a bfloat16. sum: a summand, not a factor. */
static uint32_t element(enum kind kind, bool sum, struct qt_random *random)
{
    static const uint32_t special[] = {
        0x00000000u, 0x00000001u, 0x00010000u, 0x007f0000u, 0x007fffffu, 0x00800000u, 0x00800001u,
        0x00810000u, 0x3f800000u, 0x3f808000u, 0x3f818000u, 0x7f7f0000u, 0x7f7f7fffu, 0x7f7f8000u,
        0x7f7fffffu, 0x7f800000u, 0x7f800001u, 0x7f810000u, 0x7fbf1234u, 0x7fc00000u, 0x7fd55555u,
    };
    uint32_t bits = (uint32_t)qt_next(random);
    switch (kind) {
    case SPECIAL:
        return special[qt_below(random, QT_LEN(special))] | (bits & 0x80000000u);
    case ORDINARY:
    case CANCELLED:
        return with_exponent(bits, 127 - 8, 127 + 8, random);
    case TINY:
        return with_exponent(bits, sum ? 1 : 52, sum ? 26 : 64, random);
    case EDGE:
        return edge(bits, sum, random);
    case LARGE:
        return with_exponent(bits, sum ? 250 : 186, sum ? 254 : 192, random);
    default:
        return bits;
    }
}

static uint32_t pair(enum kind kind, struct qt_random *random)
{
    uint32_t low = element(kind, false, random), high = element(kind, false, random);
    return low >> 16 | (high & 0xffff0000u);
}

/* ---- pairs ---- */

enum { BATCH = 4096, BATCHES = 1000 };

/* A sum that the products take away, to some units of its last place. */
static uint32_t cancelling(uint32_t a, uint32_t b, struct qt_random *random)
{
    float high = f32_from(a & 0xffff0000u) * f32_from(b & 0xffff0000u);
    float low = f32_from(a << 16) * f32_from(b << 16);
    float sum = qt_chance(random, 50) ? -high : -(high + low);
    return f32_bits(sum) + qt_below(random, 5) - 2;
}

static void fill_dot2(float *c, float *a, float *b, struct qt_random *random)
{
    for (size_t i = 0; i < BATCH; i++) {
        enum kind kind = (enum kind)qt_below(random, NUM_KINDS);
        uint32_t x = pair(kind, random), y = pair(kind, random);
        uint32_t sum = element(kind, true, random);
        if (qt_chance(random, 2)) /* one special among others */
            sum = element(SPECIAL, true, random);
        if (kind == CANCELLED)
            sum = cancelling(x, y, random);
        memcpy(&a[i], &x, 4);
        memcpy(&b[i], &y, 4);
        memcpy(&c[i], &sum, 4);
    }
}

static void differ(const char *what, const float *c, const float *a, const float *b,
                   const float *got, const float *want)
{
    for (size_t i = 0; i < BATCH; i++) {
        if (f32_bits(got[i]) != f32_bits(want[i]))
            fail_msg("%s of c %08x a %08x b %08x is %08x here, emulated %08x", what, f32_bits(c[i]),
                     f32_bits(a[i]), f32_bits(b[i]), f32_bits(want[i]), f32_bits(got[i]));
    }
}

static void dot2_has_every_bit(void **state)
{
    (void)state;
    static float a[BATCH], b[BATCH], c[BATCH], got[BATCH], want[BATCH];
    bool native = machine_has("avx512bf16");
    struct qt_random random = {11};
    uint64_t hash = 0;
    for (int i = 0; i < BATCHES; i++) {
        fill_dot2(c, a, b, &random);
        memcpy(got, c, sizeof c);
        memcpy(want, c, sizeof c);
        emulated.dot2(got, a, b, BATCH);
        if (native) {
            pf_native->dot2(want, a, b, BATCH);
            differ("dot2", c, a, b, got, want);
        }
        hash = hash_add(hash, got, sizeof got);
    }
    hash_is("dot2", hash, dot2_hash);
}

static void pack2_has_every_bit(void **state)
{
    (void)state;
    static float x[2 * BATCH], got[BATCH], want[BATCH];
    bool native = machine_has("avx512bf16");
    struct qt_random random = {12};
    uint64_t hash = 0;
    for (int i = 0; i < BATCHES; i++) {
        for (size_t j = 0; j < 2 * BATCH; j++) {
            uint32_t bits = element((enum kind)qt_below(&random, NUM_KINDS), true, &random);
            if (qt_chance(&random, 20)) /* a tie, or next to it */
                bits = (bits & 0xffff0000u) + 0x7fffu + qt_below(&random, 3);
            memcpy(&x[j], &bits, 4);
        }
        emulated.pack2(got, x, BATCH);
        if (native) {
            pf_native->pack2(want, x, BATCH);
            differ("pack2", x, x, x, got, want);
        }
        hash = hash_add(hash, got, sizeof got);
    }
    hash_is("pack2", hash, pack2_hash);
}

/* ---- tiles ---- */

enum { STRIDE = 68, TILE_WORDS = 16 * STRIDE / 4, TILE_CASES = 3000 };

struct tile_memory {
    uint32_t c[TILE_WORDS], a[TILE_WORDS], b[TILE_WORDS], zeros[TILE_WORDS], a_again[TILE_WORDS];
};

static struct pf_tiles tiles_of(struct tile_memory *m, struct qt_random shape)
{
    return (struct pf_tiles){
        .m = 1 + qt_below(&shape, 16),
        .k = 1 + qt_below(&shape, 16),
        .n = 1 + qt_below(&shape, 16),
        .stride = STRIDE,
        .c = m->c,
        .a = m->a,
        .b = m->b,
        .zeros = m->zeros,
        .a_again = m->a_again,
    };
}

/* Mostly one kind a case, so that a sum of many products is often finite. */
static void fill_tiles(struct tile_memory *m, enum kind kind, struct qt_random *random)
{
    uint32_t odd_ones = qt_below(random, 3);
    for (size_t i = 0; i < TILE_WORDS; i++) {
        enum kind mine = qt_chance(random, odd_ones) ? SPECIAL : kind;
        m->c[i] = element(mine, true, random);
        m->a[i] = pair(mine, random);
        m->b[i] = pair(mine, random);
        m->zeros[i] = m->a_again[i] = 0x5a5a5a5au; /* what is outside of the tile stays */
    }
}

static void tiles_have_every_bit(void **state)
{
    (void)state;
    static struct tile_memory got, want;
    bool native = machine_has("amx");
    struct qt_random random = {13};
    uint64_t hash = 0;
    for (int i = 0; i < TILE_CASES; i++) {
        fill_tiles(&got, (enum kind)(i % NUM_KINDS), &random);
        want = got;
        struct pf_tiles mine = tiles_of(&got, random), theirs = tiles_of(&want, random);
        emulated.tiles(&mine);
        if (native) {
            pf_native->tiles(&theirs);
            if (memcmp(&got, &want, sizeof got) != 0)
                fail_msg("case %d, %u x %u x %u: the tiles differ", i, mine.m, mine.k, mine.n);
        }
        hash = hash_add(hash, &got, sizeof got);
    }
    hash_is("tiles", hash, tiles_hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dot2_has_every_bit),
        cmocka_unit_test(pack2_has_every_bit),
        cmocka_unit_test(tiles_have_every_bit),
    };
    return cmocka_run_group_tests_name("kernel/products", tests, NULL, NULL);
}
