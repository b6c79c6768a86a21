/* opaque_backend.c - the calling half of the opaque test backend: handles, the queue, faults.
 * SPDX-License-Identifier: Apache-2.0 */
#include "opaque_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* A handle is slot and generation, shifted left, and odd: as a pointer it would be misaligned. */
#define OPAQUE_SLOT_BITS 12
_Static_assert(OPAQUE_BUFFERS_MAX == 1 << OPAQUE_SLOT_BITS, "handles hold every slot");

static struct opaque *lock(struct quire_backend *backend)
{
    struct opaque *opaque = (struct opaque *)backend;
    (void)pthread_mutex_lock(&opaque->lock);
    return opaque;
}

static quire_status unlock(struct opaque *opaque, quire_status status)
{
    (void)pthread_mutex_unlock(&opaque->lock);
    return status;
}

void opaque_violate(struct opaque *opaque, const char *format, ...)
{
    char text[OPAQUE_VIOLATION_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (opaque->violation[0] == '\0')
        memcpy(opaque->violation, text, sizeof text);
}

/* ---- the queue ---- */

/* Counts a call; the status of its planned fault, or OK. */
static quire_status count(struct opaque *opaque, enum qt_call call)
{
    return opaque->calls[call]++ == opaque->fault_at[call] ? opaque->fault_status[call] : QUIRE_OK;
}

static void run_some(struct opaque *opaque, uint32_t wanted)
{
    uint32_t number = wanted < opaque->queued ? wanted : opaque->queued;
    if (number == 0)
        return;
    opaque_open_buffers(opaque, true);
    for (uint32_t i = 0; i < number; i++) {
        struct opaque_command *command = &opaque->queue[i];
        if (opaque->late == QUIRE_OK)
            opaque->late = count(opaque, QT_CALL_EXECUTE);
        if (opaque->late == QUIRE_OK)
            opaque->late = opaque_run_one(opaque, command);
        qt_free(command->payload);
        qt_free(command->alibi);
        qt_free(command->sinks);
    }
    opaque_open_buffers(opaque, false);
    opaque->executed += number;
    opaque->queued -= number;
    memmove(opaque->queue, opaque->queue + number, opaque->queued * sizeof *opaque->queue);
}

static void push(struct opaque *opaque, const struct opaque_command *command)
{
    if (opaque->queued == opaque->queue_limit) {
        run_some(opaque, 1 + qt_below(&opaque->random, opaque->queued));
        opaque->queue_limit = opaque->queued + 1 + qt_below(&opaque->random, opaque->queue_max);
        if (opaque->queue_limit > opaque->queue_max)
            opaque->queue_limit = opaque->queue_max;
    }
    if (opaque->queued == opaque->queue_limit)
        run_some(opaque, 1);
    opaque->queue[opaque->queued++] = *command;
    opaque->pushed++;
}

/* ---- buffers ---- */

static struct opaque_buffer *find(struct opaque *opaque, const struct quire_buffer *handle)
{
    uintptr_t number = (uintptr_t)handle;
    uint32_t slot = (uint32_t)(number >> 1) & (OPAQUE_BUFFERS_MAX - 1);
    struct opaque_buffer *buffer = &opaque->buffers[slot];
    if ((number & 1) == 0 || !buffer->live ||
        buffer->generation != (uint32_t)(number >> (OPAQUE_SLOT_BITS + 1))) {
        opaque_violate(opaque, "%p is not a live buffer", (const void *)handle);
        return NULL;
    }
    return buffer;
}

static bool inside(struct opaque *opaque, const struct opaque_buffer *buffer, uint64_t offset,
                   uint64_t bytes)
{
    if (buffer == NULL)
        return false;
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset)
        return true;
    opaque_violate(opaque, "bytes %llu + %llu of a buffer of %llu", (unsigned long long)offset,
                   (unsigned long long)bytes, (unsigned long long)buffer->bytes);
    return false;
}

static void *map(uint64_t bytes, int protection)
{
    void *memory =
        mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory != MAP_FAILED ? memory : NULL;
}

static void free_buffer(struct opaque *opaque, struct opaque_buffer *buffer)
{
    if (buffer->inner != NULL)
        opaque->inner->memory->buffer_destroy(opaque->inner, buffer->inner);
    if (buffer->data != NULL && !buffer->wrapped)
        (void)munmap(buffer->data, buffer->mapped_bytes);
    if (buffer->shadow != NULL)
        (void)munmap(buffer->shadow, buffer->mapped_bytes);
    *buffer = (struct opaque_buffer){.generation = buffer->generation + 1};
}

static struct quire_buffer *new_buffer(struct opaque *opaque, uint64_t bytes, bool reserved,
                                       void *memory)
{
    uint32_t slot = 0;
    while (slot < opaque->num_buffers && opaque->buffers[slot].live)
        slot++;
    if (slot == OPAQUE_BUFFERS_MAX || bytes == 0 || bytes > UINT64_MAX / 2)
        return NULL;
    struct opaque_buffer *buffer = &opaque->buffers[slot];
    buffer->bytes = bytes;
    buffer->mapped_bytes = (bytes + 4095) / 4096 * 4096;
    buffer->wrapped = memory != NULL;
    buffer->data = memory != NULL ? memory : map(buffer->mapped_bytes, PROT_NONE);
    buffer->reserved = reserved;
    buffer->shadow = map(buffer->mapped_bytes, PROT_READ | PROT_WRITE);
    if (buffer->data == NULL || buffer->shadow == NULL ||
        opaque->inner->memory->buffer_wrap(opaque->inner, buffer->data, bytes, &buffer->inner) !=
            QUIRE_OK) {
        free_buffer(opaque, buffer);
        return NULL;
    }
    buffer->live = true;
    if (slot == opaque->num_buffers)
        opaque->num_buffers++;
    uintptr_t number = ((uintptr_t)buffer->generation << OPAQUE_SLOT_BITS | slot) << 1 | 1;
    return (struct quire_buffer *)number;
}

static quire_status buffer_create(struct quire_backend *backend, uint64_t bytes, uint32_t flags,
                                  struct quire_buffer **out)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_BUFFER_CREATE);
    bool reserved = (flags & QUIRE_BUFFER_RESERVED) != 0;
    if (status == QUIRE_OK && reserved && (backend->caps.flags & QUIRE_CAP_RESERVE) == 0)
        status = QUIRE_E_UNSUPPORTED;
    if (status == QUIRE_OK) {
        *out = new_buffer(opaque, bytes, reserved, NULL);
        status = *out != NULL ? QUIRE_OK : QUIRE_E_NOMEM;
    }
    return unlock(opaque, status);
}

static quire_status buffer_wrap(struct quire_backend *backend, void *memory, uint64_t bytes,
                                struct quire_buffer **out)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_BUFFER_WRAP);
    if (status == QUIRE_OK && (backend->caps.flags & QUIRE_CAP_WRAP) == 0)
        status = QUIRE_E_UNSUPPORTED;
    if (status == QUIRE_OK) {
        *out = new_buffer(opaque, bytes, false, memory);
        status = *out != NULL ? QUIRE_OK : QUIRE_E_NOMEM;
    }
    return unlock(opaque, status);
}

static void buffer_destroy(struct quire_backend *backend, struct quire_buffer *handle)
{
    struct opaque *opaque = lock(backend);
    (void)count(opaque, QT_CALL_BUFFER_DESTROY);
    if (handle != NULL) {
        run_some(opaque, opaque->queued);
        struct opaque_buffer *buffer = find(opaque, handle);
        if (buffer != NULL)
            free_buffer(opaque, buffer);
    }
    (void)unlock(opaque, QUIRE_OK);
}

static quire_status commit(struct quire_backend *backend, struct quire_buffer *handle,
                           const struct quire_range *ranges, uint32_t num_ranges)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_COMMIT);
    struct opaque_buffer *buffer = find(opaque, handle);
    if (buffer == NULL || !buffer->reserved) {
        opaque_violate(opaque, "commit on a buffer that is not reserved");
        status = QUIRE_E_INVAL;
    }
    for (uint32_t i = 0; status == QUIRE_OK && i < num_ranges; i++) {
        if (!inside(opaque, buffer, ranges[i].offset, ranges[i].bytes))
            status = QUIRE_E_INVAL;
    }
    for (uint32_t i = 0; status == QUIRE_OK && i < num_ranges; i++) {
        struct opaque_command command = {.op = OPAQUE_COMMIT, .to = buffer};
        command.to_offset = ranges[i].offset;
        command.bytes = ranges[i].bytes;
        push(opaque, &command);
    }
    return unlock(opaque, status);
}

static void decommit(struct quire_backend *backend, struct quire_buffer *handle,
                     const struct quire_range *ranges, uint32_t num_ranges)
{
    struct opaque *opaque = lock(backend);
    (void)count(opaque, QT_CALL_DECOMMIT);
    struct opaque_buffer *buffer = find(opaque, handle);
    for (uint32_t i = 0; buffer != NULL && buffer->reserved && i < num_ranges; i++) {
        struct opaque_command command = {.op = OPAQUE_DECOMMIT, .to = buffer};
        command.to_offset = ranges[i].offset;
        command.bytes = ranges[i].bytes;
        if (inside(opaque, buffer, ranges[i].offset, ranges[i].bytes))
            push(opaque, &command);
    }
    if (buffer == NULL || !buffer->reserved)
        opaque_violate(opaque, "decommit on a buffer that is not reserved");
    (void)unlock(opaque, QUIRE_OK);
}

static quire_status upload(struct quire_backend *backend, struct quire_buffer *handle,
                           const struct quire_upload *uploads, uint32_t num_uploads)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_UPLOAD);
    struct opaque_buffer *buffer = find(opaque, handle);
    for (uint32_t i = 0; status == QUIRE_OK && i < num_uploads; i++) {
        if (!inside(opaque, buffer, uploads[i].offset, uploads[i].bytes))
            status = QUIRE_E_INVAL;
    }
    for (uint32_t i = 0; status == QUIRE_OK && i < num_uploads; i++) {
        struct opaque_command command = {.op = OPAQUE_UPLOAD, .to = buffer};
        command.to_offset = uploads[i].offset;
        command.bytes = uploads[i].bytes;
        command.payload = qt_alloc(command.bytes);
        memcpy(command.payload, uploads[i].data, command.bytes);
        push(opaque, &command);
    }
    return unlock(opaque, status);
}

static quire_status download(struct quire_backend *backend, struct quire_buffer *handle,
                             uint64_t offset, uint64_t bytes, void *data)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_DOWNLOAD);
    struct opaque_command command = {.op = OPAQUE_DOWNLOAD, .from = find(opaque, handle)};
    if (status == QUIRE_OK && !inside(opaque, command.from, offset, bytes))
        status = QUIRE_E_INVAL;
    command.from_offset = offset;
    command.bytes = bytes;
    command.host = data;
    if (status == QUIRE_OK)
        push(opaque, &command);
    return unlock(opaque, status);
}

static quire_status copy(struct quire_backend *backend, struct quire_buffer *to, uint64_t to_offset,
                         struct quire_buffer *from, uint64_t from_offset, uint64_t bytes)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_COPY);
    struct opaque_command command = {.op = OPAQUE_COPY};
    command.to = find(opaque, to);
    command.from = find(opaque, from);
    if (status == QUIRE_OK && (!inside(opaque, command.to, to_offset, bytes) ||
                               !inside(opaque, command.from, from_offset, bytes)))
        status = QUIRE_E_INVAL;
    command.to_offset = to_offset;
    command.from_offset = from_offset;
    command.bytes = bytes;
    if (status == QUIRE_OK)
        push(opaque, &command);
    return unlock(opaque, status);
}

static quire_status fill(struct quire_backend *backend, struct quire_buffer *handle,
                         uint64_t offset, uint64_t bytes, uint8_t value)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_FILL);
    struct opaque_command command = {.op = OPAQUE_FILL, .to = find(opaque, handle)};
    if (status == QUIRE_OK && !inside(opaque, command.to, offset, bytes))
        status = QUIRE_E_INVAL;
    command.to_offset = offset;
    command.bytes = bytes;
    command.value = value;
    if (status == QUIRE_OK)
        push(opaque, &command);
    return unlock(opaque, status);
}

/* ---- fences: the number of commands pushed so far, the fence's own included ---- */

static quire_status fence_record(struct quire_backend *backend, quire_fence *out)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_FENCE_RECORD);
    struct opaque_command command = {.op = OPAQUE_NOP};
    if (status == QUIRE_OK) {
        push(opaque, &command);
        *out = opaque->pushed;
    }
    return unlock(opaque, status);
}

static quire_status fence_wait(struct quire_backend *backend, quire_fence fence)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_FENCE_WAIT);
    if (fence > opaque->pushed)
        opaque_violate(opaque, "waits for a fence that nobody recorded");
    if (fence > opaque->executed)
        run_some(opaque, (uint32_t)(fence - opaque->executed));
    return unlock(opaque, opaque->late != QUIRE_OK ? opaque->late : status);
}

static quire_status fence_poll(struct quire_backend *backend, quire_fence fence)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_FENCE_POLL);
    if (fence > opaque->executed)
        run_some(opaque, qt_below(&opaque->random, 3));
    if (status == QUIRE_OK && fence > opaque->executed)
        status = QUIRE_E_BUSY;
    return unlock(opaque, opaque->late != QUIRE_OK ? opaque->late : status);
}

/* Content is lost: what was written reads as poison, and what was committed stays so. */
static quire_status recover(struct quire_backend *backend)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_RECOVER);
    run_some(opaque, opaque->queued);
    opaque_open_buffers(opaque, true);
    for (uint32_t i = 0; status == QUIRE_OK && i < opaque->num_buffers; i++) {
        struct opaque_buffer *buffer = &opaque->buffers[i];
        if (!buffer->live)
            continue;
        memset(buffer->data, OPAQUE_POISON, buffer->bytes);
        for (uint64_t b = 0; buffer->shadow != NULL && b < buffer->bytes; b++)
            buffer->shadow[b] =
                buffer->shadow[b] != OPAQUE_ABSENT ? OPAQUE_COMMITTED : OPAQUE_ABSENT;
    }
    opaque_open_buffers(opaque, false);
    if (status == QUIRE_OK)
        opaque->late = QUIRE_OK;
    return unlock(opaque, status);
}

/* ---- views and kv ---- */

/* Which part of a buffer a caller's view names is not the cache's business, so a bad one is INVAL
 * and no violation. */
static bool translate(struct opaque *opaque, const struct quire_view *from, struct quire_view *to)
{
    *to = *from;
    if (from->buffer == NULL)
        return false;
    struct opaque_buffer *buffer = find(opaque, from->buffer);
    uint64_t elements = from->shape[2], bytes;
    bool fits = buffer != NULL && from->shape[0] > 0 && from->shape[1] > 0;
    for (uint32_t i = 0; fits && i < 2; i++) {
        uint64_t step;
        fits = quire__mul_u64(from->shape[i] - 1, from->stride[i], &step) &&
               quire__add_u64(elements, step, &elements);
    }
    fits = fits && quire__mul_u64(elements, quire_dtype_bytes(from->dtype), &bytes) &&
           from->offset <= buffer->bytes && bytes <= buffer->bytes - from->offset;
    if (!fits)
        return false;
    to->buffer = buffer->inner;
    return true;
}

static void free_plan(struct opaque_plan *plan)
{
    qt_free(plan->layers);
    qt_free(plan->planes);
    qt_free(plan->parts);
    qt_free(plan);
}

/* Finds the buffers of every plane; false when one is none. */
static bool find_planes(struct opaque *opaque, struct opaque_plan *plan,
                        const struct opaque_buffer *arena)
{
    const struct quire_kv_spec *spec = &plan->spec;
    for (uint32_t i = 0; i < spec->num_layers; i++) {
        struct quire_kv_layer *layer = &plan->layers[i];
        struct quire_buffer **const own[2] = {&layer->k_buffer, &layer->v_buffer};
        *layer = spec->layers[i];
        for (uint32_t p = 0; p < 2; p++) {
            if (*own[p] == NULL && arena == NULL)
                return false;
            plan->planes[i][p] = find(opaque, *own[p] != NULL ? *own[p] : spec->arena);
            if (plan->planes[i][p] == NULL)
                return false;
            if (*own[p] != NULL)
                *own[p] = plan->planes[i][p]->inner;
        }
    }
    return true;
}

static quire_status plan_create(struct quire_backend *backend, const struct quire_kv_spec *spec,
                                struct quire_plan **out)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_PLAN_CREATE);
    struct opaque_plan *plan = qt_alloc(sizeof *plan);
    plan->spec = *spec;
    plan->layers = qt_alloc(spec->num_layers * sizeof *plan->layers);
    plan->planes = qt_alloc(spec->num_layers * sizeof *plan->planes);
    plan->parts = qt_alloc(spec->max_seqs * sizeof *plan->parts);
    const struct opaque_buffer *arena = spec->arena != NULL ? find(opaque, spec->arena) : NULL;
    plan->tables = find(opaque, spec->tables);
    if (plan->tables == NULL || !find_planes(opaque, plan, arena)) {
        status = QUIRE_E_INVAL;
    } else if (status == QUIRE_OK) {
        struct quire_kv_spec inner = *spec;
        inner.layers = plan->layers;
        inner.arena = arena != NULL ? arena->inner : NULL;
        inner.tables = plan->tables->inner;
        status = opaque->inner->kv->plan_create(opaque->inner, &inner, &plan->inner);
    }
    if (status == QUIRE_OK) {
        *out = (struct quire_plan *)plan;
        opaque->live_plans++;
    } else {
        free_plan(plan);
    }
    return unlock(opaque, status);
}

static void plan_destroy(struct quire_backend *backend, struct quire_plan *handle)
{
    struct opaque *opaque = lock(backend);
    struct opaque_plan *plan = (struct opaque_plan *)handle;
    (void)count(opaque, QT_CALL_PLAN_DESTROY);
    if (plan != NULL) {
        run_some(opaque, opaque->queued);
        opaque->inner->kv->plan_destroy(opaque->inner, plan->inner);
        free_plan(plan);
        opaque->live_plans--;
    }
    (void)unlock(opaque, QUIRE_OK);
}

static quire_status plan_build(struct quire_backend *backend, struct quire_plan *plan,
                               const struct quire_step_desc *desc)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_PLAN_BUILD);
    struct opaque_command command = {.op = OPAQUE_PLAN_BUILD, .desc = *desc};
    command.plan = (struct opaque_plan *)plan;
    if (desc->num_parts == 0 || desc->num_parts > command.plan->spec.max_seqs) {
        opaque_violate(opaque, "a step of %u parts", desc->num_parts);
        status = QUIRE_E_INVAL;
    }
    if (status == QUIRE_OK) {
        command.payload = qt_alloc(desc->num_parts * sizeof *desc->parts);
        memcpy(command.payload, desc->parts, desc->num_parts * sizeof *desc->parts);
        push(opaque, &command);
    }
    return unlock(opaque, status);
}

static quire_status copy_rows(struct quire_backend *backend, struct quire_plan *plan,
                              const struct quire_block_copy *copies, uint32_t num_copies)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_COPY_ROWS);
    struct opaque_command command = {.op = OPAQUE_COPY_ROWS, .num_copies = num_copies};
    command.plan = (struct opaque_plan *)plan;
    if (num_copies == 0) {
        opaque_violate(opaque, "no copies");
        status = QUIRE_E_INVAL;
    }
    if (status == QUIRE_OK) {
        command.payload = qt_alloc(num_copies * sizeof *copies);
        memcpy(command.payload, copies, num_copies * sizeof *copies);
        push(opaque, &command);
    }
    return unlock(opaque, status);
}

static quire_status kv_write(struct quire_backend *backend, struct quire_plan *plan, uint32_t layer,
                             const struct quire_view *k, const struct quire_view *v)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_WRITE);
    struct opaque_command command = {.op = OPAQUE_WRITE, .layer = layer};
    command.plan = (struct opaque_plan *)plan;
    if (status == QUIRE_OK &&
        (!translate(opaque, k, &command.views[0]) || !translate(opaque, v, &command.views[1])))
        status = QUIRE_E_INVAL;
    if (status == QUIRE_OK)
        push(opaque, &command);
    return unlock(opaque, status);
}

static float *copy_floats(const float *from, uint32_t number)
{
    if (from == NULL)
        return NULL;
    float *floats = qt_alloc(number * sizeof *floats);
    memcpy(floats, from, number * sizeof *floats);
    return floats;
}

static quire_status kv_attend(struct quire_backend *backend, struct quire_plan *plan,
                              uint32_t layer, const struct quire_view *q,
                              const struct quire_view *out,
                              const struct quire_attend_params *params)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_ATTEND);
    struct opaque_command command = {.op = OPAQUE_ATTEND, .layer = layer, .params = *params};
    command.plan = (struct opaque_plan *)plan;
    bool lse = params->lse.buffer != NULL || params->lse.host != NULL;
    if (status == QUIRE_OK &&
        (!translate(opaque, q, &command.views[0]) || !translate(opaque, out, &command.views[1]) ||
         (lse && !translate(opaque, &params->lse, &command.views[2]))))
        status = QUIRE_E_INVAL;
    if (status == QUIRE_OK) {
        uint32_t heads = command.plan->spec.layers[layer].num_heads;
        command.alibi = copy_floats(params->alibi_slopes, heads);
        command.sinks = copy_floats(params->sink_logits, heads);
        push(opaque, &command);
    }
    return unlock(opaque, status);
}

quire_status opaque_submit_nn(struct quire_backend *backend, struct opaque_command *command,
                              const struct quire_view *const *views, uint32_t num_views)
{
    struct opaque *opaque = lock(backend);
    quire_status status = count(opaque, QT_CALL_NN);
    for (uint32_t i = 0; status == QUIRE_OK && i < num_views; i++) {
        if (!translate(opaque, views[i], &command->views[i]))
            status = QUIRE_E_INVAL;
    }
    if (status == QUIRE_OK)
        push(opaque, command);
    return unlock(opaque, status);
}

/* ---- making one, and the tests' side ---- */

static void destroy(struct quire_backend *backend)
{
    struct opaque *opaque = lock(backend);
    run_some(opaque, opaque->queued);
    for (uint32_t i = 0; i < opaque->num_buffers; i++) {
        if (opaque->buffers[i].live)
            free_buffer(opaque, &opaque->buffers[i]);
    }
    quire_backend_destroy(opaque->inner);
    (void)unlock(opaque, QUIRE_OK);
    (void)pthread_mutex_destroy(&opaque->lock);
    qt_free(opaque->queue);
    qt_free(opaque);
}

static const struct quire_memory_ops memory_ops = {
    buffer_create, buffer_wrap, buffer_destroy, commit,     decommit,   upload,  download,
    copy,          fill,        fence_record,   fence_wait, fence_poll, recover,
};

static const struct quire_kv_ops kv_ops = {
    plan_create, plan_destroy, plan_build, copy_rows, kv_write, kv_attend,
};

quire_status qt_opaque_create(const struct qt_opaque_options *options, struct quire_backend **out)
{
    struct quire_backend_config config;
    struct quire_backend *inner;
    quire_backend_config_init(&config);
    config.num_threads = options->num_threads != 0 ? options->num_threads : 1;
    config.cpu_level = options->cpu_level;
    quire_status status = quire_backend_create("cpu", &config, &inner, NULL);
    if (status != QUIRE_OK)
        return status;
    struct opaque *opaque = qt_alloc(sizeof *opaque);
    opaque->base = *inner;
    opaque->base.name = "opaque";
    opaque->base.caps.flags = (options->no_reserve ? 0 : QUIRE_CAP_RESERVE) |
                              (options->wrap ? QUIRE_CAP_WRAP : 0) |
                              (inner->caps.flags & (QUIRE_CAP_KV | QUIRE_CAP_NN));
    opaque->base.memory = &memory_ops;
    opaque->base.kv = &kv_ops;
    opaque->base.nn = inner->nn != NULL ? &opaque_nn_ops : NULL;
    opaque->base.destroy = destroy;
    opaque->inner = inner;
    opaque->queue_max = options->max_queue != 0 ? options->max_queue : 32;
    opaque->queue_limit = opaque->queue_max;
    opaque->queue = qt_alloc(opaque->queue_max * sizeof *opaque->queue);
    opaque->random.state = options->seed;
    (void)pthread_mutex_init(&opaque->lock, NULL);
    *out = &opaque->base;
    qt_opaque_fail_none(*out);
    return QUIRE_OK;
}

void qt_opaque_fail(struct quire_backend *backend, enum qt_call call, uint64_t n,
                    quire_status status)
{
    struct opaque *opaque = lock(backend);
    opaque->fault_at[call] = opaque->calls[call] + n;
    opaque->fault_status[call] = status;
    (void)unlock(opaque, QUIRE_OK);
}

void qt_opaque_fail_none(struct quire_backend *backend)
{
    struct opaque *opaque = lock(backend);
    for (uint32_t i = 0; i < QT_CALL_COUNT; i++)
        opaque->fault_at[i] = UINT64_MAX;
    (void)unlock(opaque, QUIRE_OK);
}

uint64_t qt_opaque_calls(struct quire_backend *backend, enum qt_call call)
{
    struct opaque *opaque = lock(backend);
    uint64_t calls = opaque->calls[call];
    (void)unlock(opaque, QUIRE_OK);
    return calls;
}

uint64_t qt_opaque_committed_bytes(struct quire_backend *backend)
{
    struct opaque *opaque = lock(backend);
    uint64_t bytes = 0;
    run_some(opaque, opaque->queued);
    for (uint32_t i = 0; i < opaque->num_buffers; i++) {
        const struct opaque_buffer *buffer = &opaque->buffers[i];
        for (uint64_t b = 0; buffer->live && buffer->reserved && b < buffer->bytes; b++)
            bytes += buffer->shadow[b] != OPAQUE_ABSENT;
    }
    (void)unlock(opaque, QUIRE_OK);
    return bytes;
}

uint32_t qt_opaque_live_objects(struct quire_backend *backend)
{
    struct opaque *opaque = lock(backend);
    uint32_t live = opaque->live_plans;
    for (uint32_t i = 0; i < opaque->num_buffers; i++)
        live += opaque->buffers[i].live;
    (void)unlock(opaque, QUIRE_OK);
    return live;
}

const char *qt_opaque_violation(struct quire_backend *backend)
{
    struct opaque *opaque = lock(backend);
    run_some(opaque, opaque->queued);
    (void)unlock(opaque, QUIRE_OK);
    return opaque->violation[0] != '\0' ? opaque->violation : NULL;
}
