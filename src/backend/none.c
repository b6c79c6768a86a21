/* none.c - the backend that holds no K/V: a pool over it keeps ids only.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For trace replay and for engines with their own memory. It has the memory group, for the pool's
 * tables and lengths, and neither kernels nor K/V. */
#include "backend/backend.h"

static void destroy(struct quire_backend *backend)
{
    quire__free(backend);
}

quire_status quire__none_create(const struct quire_backend_config *config,
                                struct quire_backend **out, struct quire_error *error)
{
    (void)config;
    struct quire__host *host = quire__calloc(1, sizeof *host);
    if (host == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "no memory for the backend none");
    host->base = (struct quire_backend){
        .struct_size = sizeof host->base,
        .name = "none",
        .caps =
            {
                .flags = QUIRE_CAP_RESERVE | QUIRE_CAP_WRAP,
                .layouts = 1u << QUIRE_LAYOUT_CONTIGUOUS | 1u << QUIRE_LAYOUT_PAGED,
                .head_dim_min = 1,
                .head_dim_max = 512,
                .block_size_min = 1,
                .block_size_max = 65536,
                .arithmetic = "none",
            },
        .memory = &quire__host_memory_ops,
        .destroy = destroy,
    };
    *out = &host->base;
    return QUIRE_OK;
}
