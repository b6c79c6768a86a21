/* features.c - which kernel levels this processor can run, and which one is chosen.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include "backend/cpu/float_mode.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar.h"

#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the machine lacks for a level in a few words; NULL: it runs. */
struct level_row {
    const struct quire__kernels *kernels;
    const char *(*lacks)(void);
};

static const char *lacks_ref(void)
{
    return NULL;
}

static const char *lacks_generic(void)
{
    return NULL;
}

#if defined(__x86_64__)
#include <cpuid.h>

/* Bits of CPUID leaves 1, 7 and 80000001h (AMD64 Architecture Programmer's Manual volume 3,
 * appendix E; Intel SDM volume 2, CPUID), and of the extended control register 0. The sets are
 * those of the x86-64 psABI's levels v3 and v4. */
enum {
    LEAF1_ECX_V3 = 1 << 12 | 1 << 22 | 1 << 27 | 1 << 28 | 1 << 29, /* FMA MOVBE OSXSAVE AVX F16C */
    LEAF7_EBX_V3 = 1 << 3 | 1 << 5 | 1 << 8,                        /* BMI1 AVX2 BMI2 */
    EXTENDED_ECX_V3 = 1 << 5,                                       /* LZCNT */
    LEAF7_EBX_V4 = 1 << 16 | 1 << 17 | 1 << 28 | 1 << 30,           /* F DQ CD BW; VL is bit 31 */
    LEAF7_ECX_VNNI = 1 << 11,
    LEAF71_EAX_BF16 = 1 << 5,
    LEAF7_EDX_AMX = 1 << 22 | 1 << 24 | 1 << 25, /* BF16 TILE INT8 */
    XCR0_AVX = 0x06,
    XCR0_AVX512 = 0xe6,
    XCR0_AMX = 0x60000, /* TILECFG TILEDATA */
    STATE_TILE_DATA = 18,
};

static uint32_t enabled_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool has(uint32_t value, uint32_t bits)
{
    return (value & bits) == bits;
}

static const char *lacks_avx2(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, LEAF1_ECX_V3))
        return "the processor lacks AVX, FMA, F16C or MOVBE";
    if (!has(enabled_state(), XCR0_AVX))
        return "the system does not keep AVX registers";
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, LEAF7_EBX_V3))
        return "the processor lacks AVX2, BMI1 or BMI2";
    if (!__get_cpuid(0x80000001u, &a, &b, &c, &d) || !has(c, EXTENDED_ECX_V3))
        return "the processor lacks LZCNT";
    return NULL;
}

static const char *lacks_avx512(void)
{
    uint32_t a, b, c, d;
    const char *lacks = lacks_avx2();
    if (lacks != NULL)
        return lacks;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, LEAF7_EBX_V4 | 1u << 31))
        return "the processor lacks AVX512 F, BW, CD, DQ or VL";
    return has(enabled_state(), XCR0_AVX512) ? NULL : "the system does not keep AVX512 registers";
}

static const char *lacks_avx512bf16(void)
{
    uint32_t a, b, c, d;
    const char *lacks = lacks_avx512();
    if (lacks != NULL)
        return lacks;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(c, LEAF7_ECX_VNNI) ||
        !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !has(a, LEAF71_EAX_BF16))
        return "the processor lacks AVX512 BF16 or VNNI";
    return NULL;
}

/* Linux hands out the 8 KiB of tiles to a process that asks for them, once for all its threads
 * (arch_prctl(2); Documentation/arch/x86/xstate.rst); it may refuse. */
static const char *lacks_amx(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023 };
    uint32_t a, b, c, d;
    const char *lacks = lacks_avx512bf16();
    if (lacks != NULL)
        return lacks;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(d, LEAF7_EDX_AMX))
        return "the processor lacks AMX TILE, BF16 or INT8";
    if (!has(enabled_state(), XCR0_AMX))
        return "the system does not keep AMX tiles";
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, STATE_TILE_DATA) != 0)
        return "the system refuses AMX tiles to this process";
    return NULL;
}
#endif

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

/* What Linux says of the processor (Documentation/arm64/elf_hwcaps.rst). */
static const char *lacks_neon(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0 ? NULL : "the processor lacks Advanced SIMD";
}

static const char *lacks_neonbf16(void)
{
    if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) == 0)
        return "the processor lacks the dot product";
    if ((getauxval(AT_HWCAP2) & HWCAP2_BF16) == 0)
        return "the processor lacks BF16";
    return lacks_neon();
}
#endif

#if defined(QUIRE_EMULATE)
/* What they are compiled for, but for the tests' patience. */
static const char *lacks_avx512bf16_emulated(void)
{
#if defined(__x86_64__)
    return lacks_avx2();
#else
    return NULL;
#endif
}

static const char *lacks_amx_emulated(void)
{
    return lacks_avx512bf16_emulated();
}
#endif

static const struct level_row levels[] = {
#define LEVEL_ROW(name) {&quire__kernels_##name, lacks_##name},
    QUIRE__LEVEL_LIST(LEVEL_ROW)
#undef LEVEL_ROW
};

#define LEVEL_NAME(name) " " #name
#define LEVEL_NAMES      QUIRE__LEVEL_LIST(LEVEL_NAME)

float quire__half_values[65536];
/* What each level lacks; NULL: nothing. CPUID leaves a virtual machine, which takes long. */
static const char *lacking[QUIRE_ARRAY_LEN(levels)];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void look_once(void)
{
    uint64_t mode = quire__float_mode_enter();
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(levels); i++)
        lacking[i] = levels[i].lacks();
    for (uint32_t h = 0; h < QUIRE_ARRAY_LEN(quire__half_values); h++)
        quire__half_values[h] = f16_to_f32((uint16_t)h);
    quire__float_mode_leave(mode);
}

const struct quire__kernels *quire__kernels_at(uint32_t i)
{
    (void)pthread_once(&once, look_once);
    return i < QUIRE_ARRAY_LEN(levels) && lacking[i] == NULL ? levels[i].kernels : NULL;
}

const struct quire__kernels *quire__kernels_select(const char *level, struct quire_error *error)
{
    size_t cap = QUIRE_ARRAY_LEN(levels) - 1;
    (void)pthread_once(&once, look_once);
    if (level != NULL) {
        size_t i = 0;
        while (i < QUIRE_ARRAY_LEN(levels) && strcmp(levels[i].kernels->level, level) != 0)
            i++;
        if (i == QUIRE_ARRAY_LEN(levels)) {
            (void)quire__fail(error, QUIRE_E_INVAL,
                              "no CPU level \"%s\"; there are:" LEVEL_NAMES
                              " (QUIRE_CPU, or cpu_level of the config)",
                              level);
            return NULL;
        }
        cap = i;
    }
    while (cap > 0 && lacking[cap] != NULL)
        cap--;
    return levels[cap].kernels;
}

bool quire__level_describe(uint32_t i, const struct quire__kernels **kernels, const char **lacks)
{
    if (i >= QUIRE_ARRAY_LEN(levels))
        return false;
    (void)pthread_once(&once, look_once);
    *kernels = levels[i].kernels;
    *lacks = lacking[i];
    return true;
}
