/* float_mode.h - the rounding and denormal rules under which kernels run.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A host may set others on its thread (flush to zero, a rounding direction). Kernels run on that
 * thread and on workers, so every entry sets the default rules and puts the caller's back: results
 * must not show who did what. */
#ifndef QUIRE_BACKEND_CPU_FLOAT_MODE_H
#define QUIRE_BACKEND_CPU_FLOAT_MODE_H

#include <stdint.h>

#if defined(__x86_64__)
/* MXCSR with every exception masked, round to nearest, denormals kept: its value at reset. */
#define QUIRE__FLOAT_MODE 0x1f80u

static inline uint64_t quire__float_mode_enter(void)
{
    uint32_t saved = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(QUIRE__FLOAT_MODE);
    return saved;
}

static inline void quire__float_mode_leave(uint64_t saved)
{
    __builtin_ia32_ldmxcsr((uint32_t)saved);
}
#elif defined(__aarch64__)
static inline void quire__float_mode_leave(uint64_t saved)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(saved));
}

/* FPCR 0: round to nearest, denormals kept, no traps. */
static inline uint64_t quire__float_mode_enter(void)
{
    uint64_t saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    quire__float_mode_leave(0);
    return saved;
}
#else
static inline uint64_t quire__float_mode_enter(void)
{
    return 0;
}

static inline void quire__float_mode_leave(uint64_t saved)
{
    (void)saved;
}
#endif

#endif
