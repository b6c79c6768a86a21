/* tenants.c - small numbers for salts, so that every block can say whose bytes it may hold.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A number is a salt's as long as something bears it, a block that was freed long ago included: so
 * a drop finds all that a tenant left. Finding one is a walk over at most QUIRE__TENANTS_MAX salts.
 *
 * Guarded by: the pool's mutex. Invariants: T2. */
#include "cache/tenants.h"

static uint32_t *uses_of(struct quire__tenants *self, uint32_t tenant)
{
    return tenant >= QUIRE__TENANT_FIRST ? &self->uses[tenant - QUIRE__TENANT_FIRST] : NULL;
}

uint32_t quire__tenant_find(const struct quire__tenants *self, uint64_t salt)
{
    for (uint32_t i = 0; i < self->used; i++) {
        if (self->salts[i] == salt && self->uses[i] > 0)
            return i + QUIRE__TENANT_FIRST;
    }
    return QUIRE__TENANT_OTHERS;
}

uint32_t quire__tenant_acquire(struct quire__tenants *self, uint64_t salt)
{
    uint32_t tenant = quire__tenant_find(self, salt);
    if (tenant == QUIRE__TENANT_OTHERS) {
        uint32_t i = 0;
        while (i < self->used && self->uses[i] > 0)
            i++;
        if (i == QUIRE__TENANTS_MAX)
            return tenant;
        self->used = i == self->used ? i + 1 : self->used;
        self->salts[i] = salt;
        tenant = i + QUIRE__TENANT_FIRST;
    }
    (*uses_of(self, tenant))++;
    return tenant;
}

void quire__tenant_set(struct quire__tenants *self, uint32_t *number, uint32_t tenant)
{
    if (*number == tenant)
        return;
    uint32_t *before = uses_of(self, *number), *after = uses_of(self, tenant);
    if (before != NULL) {
        QUIRE_CHECK(*before > 0);
        (*before)--;
    }
    if (after != NULL)
        (*after)++;
    *number = tenant;
}
