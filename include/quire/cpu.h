/* cpu.h - the CPU backend's own questions: its levels, which one is chosen and why, its roof.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A level is one way to compile the kernels, with one arithmetic. The best one that the machine
 * runs is taken; QUIRE_CPU, or cpu_level of the backend's config, caps it. */
#ifndef QUIRE_CPU_H
#define QUIRE_CPU_H

#include <stdint.h>

#include <quire/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

struct quire_cpu_level {
    uint32_t struct_size;
    const char *name;  /* "avx2"; static, as all strings here */
    const char *lacks; /* what is missing for it on this machine, in a few words; NULL: it runs */
    uint32_t products; /* enum quire_dtype: attention and linear layers multiply F32, or what they
                          round to BF16 first; sums are f32 */
};

/* What quire_backend_create would make. */
struct quire_cpu_choice {
    uint32_t struct_size;
    uint32_t num_threads;
    struct quire_cpu_level level; /* struct_size is set by the callee */
    char processor[64];           /* its name, or the architecture's */
    char level_why[QUIRE_ERROR_MESSAGE_MAX];
    char threads_why[QUIRE_ERROR_MESSAGE_MAX];
};

/* Reads about one level that Quire has, of any architecture, in rising order.
 *
 * index: from 0; level: struct_size set by the caller, the rest written.
 * Statuses: INVAL for NULL or a bad struct_size; NOTFOUND past the last.
 * Threads: any.
 * Cost: some CPUID, and for amx a question to the system, which hands out the tiles with it. */
QUIRE_API quire_status quire_cpu_level(uint32_t index, struct quire_cpu_level *level);

/* Says which level and how many threads quire_backend_create("cpu", config) would take, and why.
 *
 * config: from quire_backend_config_init, or NULL for the defaults; choice: struct_size set by the
 * caller, the rest written; error: optional.
 * Statuses: INVAL for NULL, a bad struct_size, or what quire_backend_create refuses.
 * Threads: any.
 * Cost: as quire_cpu_level, and a look at the limits of the system. */
QUIRE_API quire_status quire_cpu_choose(const struct quire_backend_config *config,
                                        struct quire_cpu_choice *choice, struct quire_error *error);

/* Reads memory once with all threads of a backend, and says how fast that was. Take the best of
 * several; with less memory than the caches hold, they are what is measured.
 *
 * backend: "cpu", idle; memory [bytes]: read whole, so that it should have been written before;
 * bytes: a multiple of 1024, at least 1024; *bytes_per_second: the rate.
 * Statuses: INVAL for NULL or another number of bytes; UNSUPPORTED for another backend.
 * Threads: any; other work of the backend waits.
 * Cost: reads `bytes` bytes. */
QUIRE_API quire_status quire_cpu_read_rate(struct quire_backend *backend, const void *memory,
                                           uint64_t bytes, double *bytes_per_second);

/* Multiplies and adds without any memory, on all threads of a backend, and says how fast that was:
 * the peak of the level's arithmetic. Take the best of several.
 *
 * backend: "cpu", idle; products: QUIRE_F32; QUIRE_BF16 for products of bf16 with sums of f32,
 * which a level without instructions for them makes in f32; or QUIRE_Q8 for those of weights with
 * codes in linear layers: of whole numbers of 16 bits, of bf16 on tiles, where a weight then takes
 * two of them, or of f32; *per_second: multiply-adds.
 * Statuses: INVAL for NULL or other products; UNSUPPORTED for another backend.
 * Threads: any; other work of the backend waits.
 * Cost: some 10 ms. */
QUIRE_API quire_status quire_cpu_product_rate(struct quire_backend *backend, uint32_t products,
                                              double *per_second);

#ifdef __cplusplus
}
#endif
#endif
