/* roof.c - how fast this machine reads and multiplies at most.
 * SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/cpu.h"

#include <quire/cpu.h>

enum {
    READ_UNIT_BYTES = 4 << 20, /* long against the start of a unit, short against a buffer */
    UNITS_OF_THREAD = 8,       /* so that threads that start late lose little */
    ROUNDS_FIRST = 8,
    ROUNDS_MAX = 1 << 16, /* peak_bf16 counts so far */
};
static const uint64_t products_ns = 5000000;

/* The CPU backend behind an interface; NULL for another backend. */
static struct quire__cpu *cpu_of(struct quire_backend *backend)
{
    return backend->kv == &quire__cpu_kv_ops ? (struct quire__cpu *)backend : NULL;
}

struct reading {
    const struct quire__kernels *kernels;
    const uint8_t *memory;
    uint64_t bytes;
};

static void read_unit(void *job, uint32_t unit, uint32_t thread)
{
    const struct reading *reading = job;
    const uint64_t at = (uint64_t)unit * READ_UNIT_BYTES, left = reading->bytes - at;
    uint64_t all;
    (void)thread;
    reading->kernels->read_all(&all, reading->memory + at,
                               left < READ_UNIT_BYTES ? left : READ_UNIT_BYTES);
}

static double rate(double count, uint64_t ns)
{
    return count * 1e9 / (double)(ns != 0 ? ns : 1);
}

quire_status quire_cpu_read_rate(struct quire_backend *backend, const void *memory, uint64_t bytes,
                                 double *bytes_per_second)
{
    if (backend == NULL || memory == NULL || bytes_per_second == NULL || bytes == 0 ||
        bytes % QUIRE__READ_UNIT != 0 || bytes / READ_UNIT_BYTES >= UINT32_MAX)
        return QUIRE_E_INVAL;
    struct quire__cpu *cpu = cpu_of(backend);
    if (cpu == NULL)
        return QUIRE_E_UNSUPPORTED;
    struct reading reading = {cpu->kernels, memory, bytes};
    uint64_t started_ns = quire__now_ns();
    quire__threads_run(cpu->threads, read_unit, &reading,
                       (uint32_t)quire__ceil_div(bytes, READ_UNIT_BYTES));
    *bytes_per_second = rate((double)bytes, quire__now_ns() - started_ns);
    return QUIRE_OK;
}

struct multiplying {
    void (*peak)(float *end, size_t rounds);
    size_t rounds;
};

static void multiply_unit(void *job, uint32_t unit, uint32_t thread)
{
    const struct multiplying *multiplying = job;
    float end;
    (void)unit;
    (void)thread;
    multiplying->peak(&end, multiplying->rounds);
}

quire_status quire_cpu_product_rate(struct quire_backend *backend, uint32_t products,
                                    double *per_second)
{
    if (backend == NULL || per_second == NULL ||
        (products != QUIRE_F32 && products != QUIRE_BF16 && products != QUIRE_Q8))
        return QUIRE_E_INVAL;
    struct quire__cpu *cpu = cpu_of(backend);
    if (cpu == NULL)
        return QUIRE_E_UNSUPPORTED;
    const uint32_t units = quire__threads_count(cpu->threads) * UNITS_OF_THREAD;
    struct multiplying multiplying = {products == QUIRE_F32    ? cpu->kernels->peak_f32
                                      : products == QUIRE_BF16 ? cpu->kernels->peak_bf16
                                                               : cpu->kernels->peak_codes,
                                      ROUNDS_FIRST};
    for (;; multiplying.rounds *= 2) {
        uint64_t started_ns = quire__now_ns();
        quire__threads_run(cpu->threads, multiply_unit, &multiplying, units);
        uint64_t ns = quire__now_ns() - started_ns;
        if (ns >= products_ns || multiplying.rounds == ROUNDS_MAX) {
            *per_second = rate((double)units * (double)multiplying.rounds * QUIRE__PEAK_ROUND, ns);
            return QUIRE_OK;
        }
    }
}
