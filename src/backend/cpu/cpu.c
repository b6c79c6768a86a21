/* cpu.c - the CPU backend: what it can do, its making and its end.
 * SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/cpu.h"

enum { THREADS_MAX = 1024 };

static void destroy(struct quire_backend *backend)
{
    struct quire__cpu *cpu = (struct quire__cpu *)backend;
    quire__threads_destroy(cpu->threads);
    quire__free(cpu->scratch);
    quire__free(cpu->rows);
    (void)pthread_mutex_destroy(&cpu->rows_turn);
    quire__free(cpu);
}

static struct quire_backend_caps caps_of(const struct quire__kernels *kernels)
{
    struct quire_backend_caps caps = {
        .flags =
            QUIRE_CAP_HOST_VIEWS | QUIRE_CAP_RESERVE | QUIRE_CAP_WRAP | QUIRE_CAP_KV | QUIRE_CAP_NN,
        .kv_dtypes =
            1u << QUIRE_F32 | 1u << QUIRE_F16 | 1u << QUIRE_BF16 | 1u << QUIRE_Q8 | 1u << QUIRE_Q4,
        .layouts = 1u << QUIRE_LAYOUT_CONTIGUOUS | 1u << QUIRE_LAYOUT_PAGED,
        .head_dim_min = 1,
        .head_dim_max = QUIRE__HEAD_DIM_MAX,
        .block_size_min = 1,
        .block_size_max = 65536,
        .arithmetic = kernels->arithmetic,
    };
    for (uint32_t i = 0; i < QUIRE__NUM_WEIGHTS; i++)
        caps.weight_types |= 1ull << kernels->weights[i].type;
    return caps;
}

const char *quire__cpu_cap(const struct quire_backend_config *config)
{
    const char *level = quire__getenv("QUIRE_CPU");
    if (config->cpu_level != NULL)
        return config->cpu_level;
    return level != NULL && *level != '\0' ? level : NULL; /* empty: as if it were not there */
}

quire_status quire__cpu_num_threads(const struct quire_backend_config *config,
                                    uint32_t *num_threads, struct quire_error *error)
{
    *num_threads = config->num_threads != 0 ? config->num_threads : quire__cpu_count();
    if (*num_threads > THREADS_MAX)
        return quire__fail(error, QUIRE_E_INVAL, "num_threads is %u, over %d", *num_threads,
                           THREADS_MAX);
    return QUIRE_OK;
}

quire_status quire__cpu_create(const struct quire_backend_config *config,
                               struct quire_backend **out, struct quire_error *error)
{
    const struct quire__kernels *kernels = quire__kernels_select(quire__cpu_cap(config), error);
    if (kernels == NULL)
        return QUIRE_E_INVAL;
    uint32_t num_threads = 0;
    quire_status status = quire__cpu_num_threads(config, &num_threads, error);
    if (status != QUIRE_OK)
        return status;
    struct quire__cpu *cpu = quire__calloc(1, sizeof *cpu);
    if (cpu == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "no memory for the backend cpu");
    cpu->kernels = kernels;
    cpu->no_cascade = config->no_cascade != 0;
    (void)pthread_mutex_init(&cpu->rows_turn, NULL);
    cpu->scratch = quire__alloc_aligned(64, (size_t)num_threads * QUIRE__SCRATCH_BYTES);
    cpu->host.base = (struct quire_backend){
        .struct_size = sizeof cpu->host.base,
        .name = "cpu",
        .caps = caps_of(kernels),
        .memory = &quire__host_memory_ops,
        .kv = &quire__cpu_kv_ops,
        .nn = &quire__cpu_nn_ops,
        .destroy = destroy,
    };
    if (cpu->scratch == NULL ||
        quire__threads_create(num_threads, config->pin_threads != 0, &cpu->threads) != QUIRE_OK) {
        destroy(&cpu->host.base);
        return quire__fail(error, QUIRE_E_NOMEM, "cannot start the backend cpu with %u threads",
                           num_threads);
    }
    *out = &cpu->host.base;
    return QUIRE_OK;
}
