/* tenants.h - small numbers for salts, so that every block can say whose bytes it may hold.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by the pool's mutex. */
#ifndef QUIRE_CACHE_TENANTS_H
#define QUIRE_CACHE_TENANTS_H

#include "base/base.h"

/* A tenant's number. */
enum {
    QUIRE__TENANT_NOBODY = 0, /* bytes that are zero, or were never used */
    QUIRE__TENANT_OTHERS = 1, /* one of those that came when every number was taken */
    QUIRE__TENANT_FIRST = 2,
};

/* Tenants at once that have a number of their own. Past it blocks are zeroed more often, and a drop
 * zeroes more of them; nothing else changes. */
#define QUIRE__TENANTS_MAX 1024u

struct quire__tenants {
    uint64_t salts[QUIRE__TENANTS_MAX];
    uint32_t uses[QUIRE__TENANTS_MAX]; /* sequences, blocks and regions that bear the number */
    uint32_t used;                     /* entries that were ever in use */
};

/* The number of a salt, with one more use. */
uint32_t quire__tenant_acquire(struct quire__tenants *self, uint64_t salt);
/* The number of a salt; OTHERS where it has none. */
uint32_t quire__tenant_find(const struct quire__tenants *self, uint64_t salt);
/* Makes *number bear another tenant's, and moves the use. */
void quire__tenant_set(struct quire__tenants *self, uint32_t *number, uint32_t tenant);
/* Whether what one tenant left must be zeroed before another may have it. */
static inline bool quire__tenant_may_follow(uint32_t tenant, uint32_t before)
{
    return before == QUIRE__TENANT_NOBODY || (before == tenant && before != QUIRE__TENANT_OTHERS);
}

#endif
