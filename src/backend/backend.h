/* backend.h - what the backends share: the host's memory group, and who makes each backend.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_BACKEND_H
#define QUIRE_BACKEND_BACKEND_H

#include <stdatomic.h>

#include <quire/backend.h>

#include "base/base.h"

/* A backend whose buffers are host memory and whose queue is always empty: every call does its work
 * before it returns, so a fence is a number that has passed. */
struct quire__host {
    struct quire_backend base;
    _Atomic uint64_t fences;
};

struct quire_buffer {
    const struct quire_backend *owner;
    uint8_t *data;
    uint64_t bytes;
    bool wrapped; /* the caller's memory: never freed, never given back */
};

extern const struct quire_memory_ops quire__host_memory_ops;

/* The first byte of [offset, offset + bytes) of a buffer of this backend; NULL outside. */
uint8_t *quire__host_range(const struct quire_backend *backend, const struct quire_buffer *buffer,
                           uint64_t offset, uint64_t bytes);

/* config is complete: every field set by _init or the caller. */
quire_status quire__cpu_create(const struct quire_backend_config *config,
                               struct quire_backend **out, struct quire_error *error);
quire_status quire__none_create(const struct quire_backend_config *config,
                                struct quire_backend **out, struct quire_error *error);

#endif
