/* support.c - random numbers, memory, dtype conversion and output capture for tests.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *qt_alloc(size_t bytes)
{
    void *memory = calloc(1, bytes != 0 ? bytes : 1);
    if (memory == NULL) {
        (void)fprintf(stderr, "tests: out of memory\n");
        abort();
    }
    return memory;
}

void qt_free(void *memory)
{
    free(memory);
}

void *qt_grow(void *memory, size_t old_bytes, size_t new_bytes)
{
    char *grown = qt_alloc(new_bytes);
    if (old_bytes != 0)
        memcpy(grown, memory, old_bytes);
    free(memory);
    return grown;
}

uint64_t qt_mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
}

uint64_t qt_next(struct qt_random *random)
{
    random->state += 0x9E3779B97F4A7C15u;
    return qt_mix(random->state);
}

uint32_t qt_below(struct qt_random *random, uint32_t limit)
{
    return (uint32_t)(((qt_next(random) >> 32) * limit) >> 32);
}

bool qt_chance(struct qt_random *random, uint32_t percent)
{
    return qt_below(random, 100) < percent;
}

float qt_unit(uint64_t bits)
{
    return (float)((int32_t)(bits >> 40) - (1 << 23)) / (float)(1 << 23);
}

uint64_t qt_env_u64(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != '\0' ? strtoull(text, NULL, 0) : otherwise;
}

/* Rounds a finite double to a binary format with `bits` bits of significand (the hidden one
 * included) and the least exponent `least`: the spacing of numbers is a power of two. */
static double round_to(double value, int bits, int least)
{
    int exponent;
    if (value == 0)
        return value;
    (void)frexp(value, &exponent);
    int unit = (exponent > least ? exponent : least) - bits;
    return ldexp(nearbyint(ldexp(value, -unit)), unit);
}

static uint16_t f16_bits(double value)
{
    double rounded = fabs(round_to(value, 11, -13));
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    if (rounded > 65504)
        return (uint16_t)(sign | 0x7C00);
    int exponent;
    double fraction = frexp(rounded, &exponent);
    if (rounded == 0)
        return sign;
    if (exponent < -13) /* subnormal: units of 2^-24 */
        return (uint16_t)(sign | (uint16_t)ldexp(rounded, 24));
    uint16_t significand = (uint16_t)ldexp(fraction, 11);
    return (uint16_t)(sign | (uint16_t)((exponent + 14) << 10) | (significand & 0x3FF));
}

static double f16_value(uint16_t bits)
{
    int exponent = (bits >> 10) & 31, fraction = bits & 0x3FF;
    double value = exponent == 0    ? ldexp(fraction, -24)
                   : exponent == 31 ? (fraction != 0 ? (double)NAN : (double)INFINITY)
                                    : ldexp(1024 + fraction, exponent - 25);
    return (bits & 0x8000) != 0 ? -value : value;
}

void qt_store(uint32_t dtype, float value, void *element)
{
    if (dtype == QUIRE_F32) {
        memcpy(element, &value, sizeof value);
        return;
    }
    uint16_t bits;
    if (dtype == QUIRE_F16) {
        bits = f16_bits((double)value);
    } else {
        float rounded = (float)round_to((double)value, 8, -125);
        uint32_t wide;
        memcpy(&wide, &rounded, sizeof wide);
        bits = (uint16_t)(wide >> 16);
    }
    memcpy(element, &bits, sizeof bits);
}

double qt_load(uint32_t dtype, const void *element)
{
    float value;
    uint16_t bits;
    if (dtype == QUIRE_F32) {
        memcpy(&value, element, sizeof value);
        return (double)value;
    }
    memcpy(&bits, element, sizeof bits);
    if (dtype == QUIRE_F16)
        return f16_value(bits);
    uint32_t wide = (uint32_t)bits << 16;
    memcpy(&value, &wide, sizeof value);
    return (double)value;
}

void qt_capture_begin(struct qt_capture *capture)
{
    (void)fflush(NULL);
    capture->saved_out = dup(STDOUT_FILENO);
    capture->saved_err = dup(STDERR_FILENO);
    capture->file = memfd_create("quire-test-capture", MFD_CLOEXEC);
    (void)dup2(capture->file, STDOUT_FILENO);
    (void)dup2(capture->file, STDERR_FILENO);
}

uint64_t qt_capture_end(struct qt_capture *capture)
{
    (void)fflush(NULL);
    off_t bytes = lseek(capture->file, 0, SEEK_END);
    (void)dup2(capture->saved_out, STDOUT_FILENO);
    (void)dup2(capture->saved_err, STDERR_FILENO);
    (void)close(capture->saved_out);
    (void)close(capture->saved_err);
    (void)close(capture->file);
    return bytes > 0 ? (uint64_t)bytes : 0;
}
