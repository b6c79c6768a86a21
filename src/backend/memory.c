/* memory.c - the memory group of the backends whose buffers are host memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A buffer is reserved address space: pages arrive at first touch, so commit only checks its ranges
 * and decommit gives whole OS pages back and zeroes the rest, as the content is to be lost. Buffers
 * that are not to be committed piecemeal get huge pages. Work is done when a call returns. */
#include "backend/backend.h"

#include <string.h>

uint8_t *quire__host_range(const struct quire_backend *backend, const struct quire_buffer *buffer,
                           uint64_t offset, uint64_t bytes)
{
    if (buffer == NULL || buffer->owner != backend || offset > buffer->bytes ||
        bytes > buffer->bytes - offset)
        return NULL;
    return buffer->data + offset;
}

static quire_status make(struct quire_backend *backend, void *memory, uint64_t bytes,
                         struct quire_buffer **out)
{
    struct quire_buffer *buffer = quire__calloc(1, sizeof *buffer);
    if (buffer == NULL)
        return QUIRE_E_NOMEM;
    *buffer = (struct quire_buffer){backend, memory, bytes, memory != NULL};
    if (memory == NULL) {
        buffer->data = quire__reserve(bytes);
        if (buffer->data == NULL) {
            quire__free(buffer);
            return QUIRE_E_NOMEM;
        }
    }
    *out = buffer;
    return QUIRE_OK;
}

static quire_status buffer_create(struct quire_backend *backend, uint64_t bytes, uint32_t flags,
                                  struct quire_buffer **out)
{
    if (out == NULL || bytes == 0)
        return QUIRE_E_INVAL;
    if ((flags & ~(uint32_t)QUIRE_BUFFER_RESERVED) != 0)
        return QUIRE_E_UNSUPPORTED;
    quire_status status = make(backend, NULL, bytes, out);
    if (status != QUIRE_OK)
        return status;
    if ((flags & QUIRE_BUFFER_RESERVED) != 0)
        quire__keep_sparse((*out)->data, bytes);
    else
        quire__prefer_huge((*out)->data, bytes);
    return QUIRE_OK;
}

static quire_status buffer_wrap(struct quire_backend *backend, void *memory, uint64_t bytes,
                                struct quire_buffer **out)
{
    if (out == NULL || memory == NULL || bytes == 0)
        return QUIRE_E_INVAL;
    return make(backend, memory, bytes, out);
}

static void buffer_destroy(struct quire_backend *backend, struct quire_buffer *buffer)
{
    if (buffer == NULL)
        return;
    QUIRE_CHECK(buffer->owner == backend);
    if (!buffer->wrapped)
        quire__unreserve(buffer->data, buffer->bytes);
    quire__free(buffer);
}

static quire_status commit(struct quire_backend *backend, struct quire_buffer *buffer,
                           const struct quire_range *ranges, uint32_t num_ranges)
{
    if (ranges == NULL && num_ranges != 0)
        return QUIRE_E_INVAL;
    for (uint32_t i = 0; i < num_ranges; i++) {
        if (quire__host_range(backend, buffer, ranges[i].offset, ranges[i].bytes) == NULL)
            return QUIRE_E_INVAL;
    }
    return QUIRE_OK;
}

/* Zeroes a range: whole OS pages by giving them back, the ends by hand. */
static void forget(uint8_t *data, uint64_t bytes)
{
    uint64_t page = quire__os_page_bytes();
    uint64_t head = quire__round_up((uintptr_t)data, page) - (uintptr_t)data;
    head = head < bytes ? head : bytes;
    uint64_t tail = (bytes - head) % page;
    memset(data, 0, head);
    quire__discard(data + head, bytes - head - tail);
    memset(data + bytes - tail, 0, tail);
}

static void decommit(struct quire_backend *backend, struct quire_buffer *buffer,
                     const struct quire_range *ranges, uint32_t num_ranges)
{
    for (uint32_t i = 0; i < num_ranges; i++) {
        uint8_t *data = quire__host_range(backend, buffer, ranges[i].offset, ranges[i].bytes);
        QUIRE_CHECK(data != NULL);
        if (buffer->wrapped)
            memset(data, 0, ranges[i].bytes);
        else
            forget(data, ranges[i].bytes);
    }
}

static quire_status upload(struct quire_backend *backend, struct quire_buffer *buffer,
                           const struct quire_upload *uploads, uint32_t num_uploads)
{
    if (uploads == NULL && num_uploads != 0)
        return QUIRE_E_INVAL;
    for (uint32_t i = 0; i < num_uploads; i++) {
        const struct quire_upload *u = &uploads[i];
        if (quire__host_range(backend, buffer, u->offset, u->bytes) == NULL ||
            (u->data == NULL && u->bytes != 0))
            return QUIRE_E_INVAL;
    }
    for (uint32_t i = 0; i < num_uploads; i++) {
        if (uploads[i].bytes != 0)
            memcpy(buffer->data + uploads[i].offset, uploads[i].data, uploads[i].bytes);
    }
    return QUIRE_OK;
}

static quire_status download(struct quire_backend *backend, struct quire_buffer *buffer,
                             uint64_t offset, uint64_t bytes, void *data)
{
    const uint8_t *from = quire__host_range(backend, buffer, offset, bytes);
    if (from == NULL || (data == NULL && bytes != 0))
        return QUIRE_E_INVAL;
    if (bytes != 0)
        memcpy(data, from, bytes);
    return QUIRE_OK;
}

static quire_status copy(struct quire_backend *backend, struct quire_buffer *to, uint64_t to_offset,
                         struct quire_buffer *from, uint64_t from_offset, uint64_t bytes)
{
    uint8_t *target = quire__host_range(backend, to, to_offset, bytes);
    const uint8_t *source = quire__host_range(backend, from, from_offset, bytes);
    if (target == NULL || source == NULL)
        return QUIRE_E_INVAL;
    bool overlap = to == from && to_offset < from_offset + bytes && from_offset < to_offset + bytes;
    if (overlap && bytes != 0)
        return QUIRE_E_INVAL;
    memcpy(target, source, bytes);
    return QUIRE_OK;
}

static quire_status fill(struct quire_backend *backend, struct quire_buffer *buffer,
                         uint64_t offset, uint64_t bytes, uint8_t value)
{
    uint8_t *data = quire__host_range(backend, buffer, offset, bytes);
    if (data == NULL)
        return QUIRE_E_INVAL;
    memset(data, value, bytes);
    return QUIRE_OK;
}

static quire_status fence_record(struct quire_backend *backend, quire_fence *out)
{
    struct quire__host *host = (struct quire__host *)backend;
    if (out == NULL)
        return QUIRE_E_INVAL;
    *out = atomic_fetch_add(&host->fences, 1) + 1;
    return QUIRE_OK;
}

/* Waiting and polling are the same where nothing is ever queued. */
static quire_status fence_check(struct quire_backend *backend, quire_fence fence)
{
    struct quire__host *host = (struct quire__host *)backend;
    return fence <= atomic_load(&host->fences) ? QUIRE_OK : QUIRE_E_INVAL;
}

const struct quire_memory_ops quire__host_memory_ops = {
    .buffer_create = buffer_create,
    .buffer_wrap = buffer_wrap,
    .buffer_destroy = buffer_destroy,
    .commit = commit,
    .decommit = decommit,
    .upload = upload,
    .download = download,
    .copy = copy,
    .fill = fill,
    .fence_record = fence_record,
    .fence_wait = fence_check,
    .fence_poll = fence_check,
};
