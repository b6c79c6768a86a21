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

/* ---- pairs ---- */

enum { BATCH = 4096, BATCHES = 1000 };

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
        pf_fill_dot2(c, a, b, BATCH, &random);
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
            uint32_t bits =
                pf_element((enum pf_kind)qt_below(&random, PF_NUM_KINDS), true, &random);
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

static void dot_words_are_exact(void **state)
{
    (void)state;
    pf_check_dot_words(&emulated);
    if (machine_has("avx512bf16"))
        pf_check_dot_words(pf_native);
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
static void fill_tiles(struct tile_memory *m, enum pf_kind kind, struct qt_random *random)
{
    uint32_t odd_ones = qt_below(random, 3);
    for (size_t i = 0; i < TILE_WORDS; i++) {
        enum pf_kind mine = qt_chance(random, odd_ones) ? PF_SPECIAL : kind;
        m->c[i] = pf_element(mine, true, random);
        m->a[i] = pf_pair(mine, random);
        m->b[i] = pf_pair(mine, random);
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
        fill_tiles(&got, (enum pf_kind)(i % PF_NUM_KINDS), &random);
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
        cmocka_unit_test(dot_words_are_exact),
        cmocka_unit_test(tiles_have_every_bit),
    };
    return cmocka_run_group_tests_name("kernel/products", tests, NULL, NULL);
}
