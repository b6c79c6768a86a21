/* test_products_arm.c - Arm's products of bfloat16 are what the manual's pseudocode says.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The Arm Architecture Reference Manual (DDI 0487), shared/functions/float: BFDotAdd with FPCR.EBF
 * 0, BFMul, BFAdd, BFRound and FPConvertBF. */
#include "kernel_fixture.h"
#include "products_fixture.h"

#include "backend/cpu/scalar.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BATCH = 4096, BATCHES = 250 };

static const uint32_t default_nan = 0x7fc00000u;

/* Subnormal operands are zero. */
static double unpacked(uint32_t bits)
{
    return (bits & 0x7f800000u) != 0 ? (double)f32_from(bits) : copysign(0, (double)f32_from(bits));
}

/* BFRound of x + rest, where |rest| is below the last place of x: towards zero to 24 bits, the last
 * of which is set when anything was lost. Subnormal results are zero. */
static uint32_t rounded_to_odd(double x, double rest)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (rest != 0 && (rest < 0) != (x < 0))
        bits--;
    uint32_t sign = (uint32_t)(bits >> 32) & 0x80000000u;
    int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
    bool lost = rest != 0 || (bits & 0x1fffffffu) != 0;
    if (exponent < -126)
        return sign;
    if (exponent > 127)
        return sign | 0x7f800000u;
    return sign | (uint32_t)(exponent + 127) << 23 | ((uint32_t)(bits >> 29) & 0x7fffffu) | lost;
}

/* BFMul: 8 bits times 8 bits are exact. */
static uint32_t multiplied(uint32_t a, uint32_t b)
{
    double product = unpacked(a) * unpacked(b);
    uint32_t sign = (a ^ b) & 0x80000000u;
    if (isnan(product))
        return default_nan;
    if (isinf(product))
        return sign | 0x7f800000u;
    return product == 0 ? sign : rounded_to_odd(product, 0);
}

/* BFAdd. The sum in f64 and what it lacks are exact together (D. E. Knuth, The Art of Computer
 * Programming, volume 2, section 4.2.2, theorem B). */
static uint32_t added(uint32_t a, uint32_t b)
{
    double x = unpacked(a), y = unpacked(b), sum = x + y;
    if (isnan(sum))
        return default_nan;
    if (isinf(sum) || sum == 0)
        return f32_bits((float)sum);
    double part = sum - x, rest = (x - (sum - part)) + (y - part);
    return rounded_to_odd(sum, rest);
}

static uint32_t dot2(uint32_t c, uint32_t a, uint32_t b)
{
    uint32_t low = multiplied(a << 16, b << 16);
    uint32_t high = multiplied(a & 0xffff0000u, b & 0xffff0000u);
    return added(c, added(low, high));
}

static bool machine_has_bf16(void)
{
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        if (strcmp(kernels->level, "neonbf16") == 0)
            return true;
    }
    return false;
}

static void dot2_is_the_manuals(void **state)
{
    (void)state;
    static float a[BATCH], b[BATCH], c[BATCH], got[BATCH];
    struct qt_random random = {21};
    if (!machine_has_bf16())
        skip();
    for (int i = 0; i < BATCHES; i++) {
        pf_fill_dot2(c, a, b, BATCH, &random);
        memcpy(got, c, sizeof c);
        pf_native->dot2(got, a, b, BATCH);
        for (size_t j = 0; j < BATCH; j++) {
            uint32_t want = dot2(f32_bits(c[j]), f32_bits(a[j]), f32_bits(b[j]));
            if (f32_bits(got[j]) != want)
                fail_msg("dot2 of c %08x a %08x b %08x is %08x here, %08x in the manual",
                         f32_bits(c[j]), f32_bits(a[j]), f32_bits(b[j]), f32_bits(got[j]), want);
        }
    }
}

static void pack2_is_the_manuals(void **state)
{
    (void)state;
    static float x[2 * BATCH], got[BATCH];
    struct qt_random random = {22};
    if (!machine_has_bf16())
        skip();
    for (int i = 0; i < BATCHES; i++) {
        for (size_t j = 0; j < 2 * BATCH; j++) {
            uint32_t bits =
                pf_element((enum pf_kind)qt_below(&random, PF_NUM_KINDS), true, &random);
            x[j] = f32_from(bits);
        }
        pf_native->pack2(got, x, BATCH);
        for (size_t j = 0; j < 2 * BATCH; j++) {
            uint16_t want = f32_to_bf16(x[j]), half;
            memcpy(&half, (uint16_t *)(void *)got + j, sizeof half);
            if (half != want)
                fail_msg("pack2 of %08x is %04x here, not %04x", f32_bits(x[j]), half, want);
        }
    }
}

static void dot_words_are_exact(void **state)
{
    (void)state;
    if (!machine_has_bf16())
        skip();
    pf_check_dot_words(pf_native);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dot2_is_the_manuals),
        cmocka_unit_test(pack2_is_the_manuals),
        cmocka_unit_test(dot_words_are_exact),
    };
    return cmocka_run_group_tests_name("kernel/products_arm", tests, NULL, NULL);
}
