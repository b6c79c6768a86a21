/* registry.c - makes backends by name, and sets the defaults of their parameter structs.
 * SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend.h"

#include <string.h>

struct backend_row {
    const char *name;
    quire_status (*create)(const struct quire_backend_config *, struct quire_backend **,
                           struct quire_error *);
};

static const struct backend_row rows[] = {
    {"cpu", quire__cpu_create},
    {"none", quire__none_create},
};

void quire_backend_config_init(struct quire_backend_config *config)
{
    *config = (struct quire_backend_config){.struct_size = sizeof *config};
}

void quire_attend_params_init(struct quire_attend_params *params)
{
    *params = (struct quire_attend_params){.struct_size = sizeof *params};
}

quire_status quire_backend_create(const char *name, const struct quire_backend_config *config,
                                  struct quire_backend **out, struct quire_error *error)
{
    if (name == NULL || out == NULL)
        return quire__fail(error, QUIRE_E_INVAL, "quire_backend_create: name or out is NULL");
    struct quire_backend_config complete;
    quire_backend_config_init(&complete);
    if (config != NULL) {
        if (config->struct_size != sizeof complete)
            return quire__fail(error, QUIRE_E_INVAL,
                               "quire_backend_create: struct_size is %u, not %zu; call "
                               "quire_backend_config_init first",
                               config->struct_size, sizeof complete);
        complete = *config;
    }
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].name, name) == 0)
            return rows[i].create(&complete, out, error);
    }
    return quire__fail(error, QUIRE_E_NOTFOUND, "no backend \"%s\"; there are: cpu, none", name);
}

void quire_backend_destroy(struct quire_backend *backend)
{
    if (backend != NULL)
        backend->destroy(backend);
}
