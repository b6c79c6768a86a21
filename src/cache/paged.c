/* paged.c - the making of what serves a caller's own pages: checks, planes, memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cache/paged.h"
#include "cache/checks.h"

#include <quire/pool.h>

#include <string.h>

void quire_paged_config_init(struct quire_paged_config *config)
{
    *config = (struct quire_paged_config){
        .struct_size = sizeof *config,
        .page_size = 16,
        .max_seqs = 16,
        .max_seq_pages = 256,
        .max_step_tokens = 512,
    };
}

/* ---- checking a config ---- */

static quire_status check_config(const struct quire_paged_config *config, struct quire_error *error)
{
    if (config->struct_size != sizeof *config || config->backend == NULL)
        return quire__fail(error, QUIRE_E_INVAL,
                           "config needs quire_paged_config_init and a backend");
    quire_status status = quire__check_backend(config->backend, error);
    if (status != QUIRE_OK)
        return status;
    if ((config->backend->caps.flags & QUIRE_CAP_KV) == 0)
        return quire__fail(error, QUIRE_E_UNSUPPORTED, "backend %s holds no K/V",
                           config->backend->name);
    if ((config->backend->caps.layouts & 1u << QUIRE_LAYOUT_PAGED) == 0)
        return quire__fail(error, QUIRE_E_UNSUPPORTED, "backend %s has no paged layout",
                           config->backend->name);
    if (config->layers == NULL || config->num_layers == 0)
        return quire__fail(error, QUIRE_E_INVAL, "there are no layers");
    if (config->page_size == 0 || config->num_pages == 0 || config->max_seqs == 0 ||
        config->max_seq_pages == 0 || config->max_step_tokens == 0)
        return quire__fail(error, QUIRE_E_INVAL,
                           "page_size, num_pages, max_seqs, max_seq_pages and max_step_tokens must "
                           "not be 0");
    if (config->num_layers > QUIRE_MAX_LAYERS || config->page_size > QUIRE_MAX_BLOCK_SIZE ||
        config->max_seqs > QUIRE_MAX_SEQS || config->max_step_tokens > QUIRE_MAX_SEQ_LEN)
        return quire__fail(error, QUIRE_E_LIMIT,
                           "at most %u layers, %u positions of a page, %u sequences, %u tokens in "
                           "a step",
                           QUIRE_MAX_LAYERS, QUIRE_MAX_BLOCK_SIZE, QUIRE_MAX_SEQS,
                           QUIRE_MAX_SEQ_LEN);
    if ((uint64_t)config->max_seq_pages * config->page_size > QUIRE_MAX_SEQ_LEN ||
        config->num_pages == QUIRE_BLOCK_NONE)
        return quire__fail(error, QUIRE_E_LIMIT, "at most %u positions of a sequence and %u pages",
                           QUIRE_MAX_SEQ_LEN, QUIRE_BLOCK_NONE - 1);
    return quire__check_block_size(config->backend, config->page_size, error);
}

static quire_status check_layer(const struct quire_backend *backend, uint32_t index,
                                const struct quire_kv_layer *layer, struct quire_error *error)
{
    quire_status status = quire__check_dtype(backend, layer->dtype_k, error);
    if (status == QUIRE_OK)
        status = quire__check_dtype(backend, layer->dtype_v, error);
    if (status == QUIRE_OK)
        status = quire__check_row(index, layer->dtype_k, layer->head_dim, error);
    if (status == QUIRE_OK)
        status = quire__check_row(index, layer->dtype_v, layer->head_dim_v, error);
    return status == QUIRE_OK ? quire__check_dims(backend, index, layer, error) : status;
}

/* ---- planes ---- */

/* A plane of a layer while it is placed. */
struct place {
    const struct quire_paged_plane *plane;
    uint32_t layer;
    const char *name; /* "k" or "v" */
    uint32_t dtype, dim, heads;
    uint64_t page_bytes; /* between pages */
};

static quire_status check_memory(const struct quire_paged *paged, const struct place *place,
                                 struct quire_error *error)
{
    const struct quire_paged_plane *plane = place->plane;
    if ((plane->buffer == NULL) == (plane->memory == NULL))
        return quire__fail(error, QUIRE_E_INVAL,
                           "layer %u: %s needs a buffer or memory, and not both", place->layer,
                           place->name);
    if (plane->memory != NULL && (paged->backend->caps.flags & QUIRE_CAP_WRAP) == 0)
        return quire__fail(error, QUIRE_E_UNSUPPORTED,
                           "layer %u: backend %s cannot use the caller's memory for %s; give a "
                           "buffer",
                           place->layer, paged->backend->name, place->name);
    return QUIRE_OK;
}

/* Works out the distance of the pages and whether all of them fit. Bytes of a page stay below 2^16
 * positions * 2^16 heads * 2^19 bytes of a row. */
static quire_status check_place(const struct quire_paged *paged, struct place *place,
                                struct quire_error *error)
{
    const struct quire_paged_plane *plane = place->plane;
    uint64_t row = (uint64_t)quire_kv_data_bytes(place->dtype, place->dim) +
                   quire_kv_scale_bytes(place->dtype, place->dim);
    uint64_t bytes = row * place->heads * paged->page_size, last = 0, end = 0;
    uint64_t align = place->dtype == QUIRE_F32 ? 4 : 2;
    place->page_bytes = plane->page_bytes != 0 ? plane->page_bytes : bytes;
    if (place->page_bytes < bytes)
        return quire__fail(error, QUIRE_E_INVAL,
                           "layer %u: pages of %s have %llu bytes and would overlap: page_bytes is "
                           "%llu",
                           place->layer, place->name, (unsigned long long)bytes,
                           (unsigned long long)place->page_bytes);
    if (((uintptr_t)plane->memory + plane->offset) % align != 0 || place->page_bytes % align != 0)
        return quire__fail(error, QUIRE_E_INVAL,
                           "layer %u: pages of %s do not begin at multiples of %llu bytes",
                           place->layer, place->name, (unsigned long long)align);
    if (!quire__mul_u64(paged->num_pages - 1, place->page_bytes, &last) ||
        !quire__add_u64(last, bytes, &end) || !quire__add_u64(end, plane->offset, &end) ||
        end > plane->bytes)
        return quire__fail(error, QUIRE_E_INVAL,
                           "layer %u: %u pages of %s do not fit: %llu bytes from offset %llu on, "
                           "%llu apart",
                           place->layer, paged->num_pages, place->name,
                           (unsigned long long)plane->bytes, (unsigned long long)plane->offset,
                           (unsigned long long)place->page_bytes);
    return QUIRE_OK;
}

/* The plane of `layers` that an index names: K and V in turn. */
static const struct quire_paged_plane *plane_at(const struct quire_paged_layer *layers,
                                                uint32_t index)
{
    return index % 2 == 0 ? &layers[index / 2].k : &layers[index / 2].v;
}

static struct quire_buffer *buffer_at(const struct quire_paged *paged, uint32_t index)
{
    const struct quire_kv_layer *layer = &paged->layers[index / 2];
    return index % 2 == 0 ? layer->k_buffer : layer->v_buffer;
}

/* The buffer of a plane; the same host memory is wrapped once. */
static quire_status find_buffer(struct quire_paged *paged, const struct quire_paged_layer *layers,
                                uint32_t index, struct quire_buffer **buffer)
{
    const struct quire_paged_plane *plane = plane_at(layers, index);
    *buffer = plane->buffer;
    for (uint32_t i = 0; i < index && *buffer == NULL; i++) {
        const struct quire_paged_plane *before = plane_at(layers, i);
        if (before->memory == plane->memory && before->bytes == plane->bytes)
            *buffer = buffer_at(paged, i);
    }
    if (*buffer != NULL)
        return QUIRE_OK;
    quire_status status =
        paged->backend->memory->buffer_wrap(paged->backend, plane->memory, plane->bytes, buffer);
    if (status == QUIRE_OK)
        paged->wrapped[paged->num_wrapped++] = *buffer;
    return status;
}

static quire_status place_plane(struct quire_paged *paged, const struct quire_paged_layer *layers,
                                uint32_t index, struct quire_error *error)
{
    struct quire_kv_layer *layer = &paged->layers[index / 2];
    bool is_k = index % 2 == 0;
    struct place place = {
        .plane = plane_at(layers, index),
        .layer = index / 2,
        .name = is_k ? "k" : "v",
        .dtype = is_k ? layer->dtype_k : layer->dtype_v,
        .dim = is_k ? layer->head_dim : layer->head_dim_v,
        .heads = layer->num_kv_heads,
    };
    struct quire_buffer *buffer = NULL;
    quire_status status = check_memory(paged, &place, error);
    if (status == QUIRE_OK)
        status = check_place(paged, &place, error);
    if (status != QUIRE_OK)
        return status;
    status = find_buffer(paged, layers, index, &buffer);
    if (status != QUIRE_OK)
        return quire__fail(error, status, "layer %u: the memory of %s cannot be used: %s",
                           place.layer, place.name, quire_status_text(status));
    *(is_k ? &layer->k_buffer : &layer->v_buffer) = buffer;
    *(is_k ? &layer->k_offset : &layer->v_offset) = place.plane->offset;
    *(is_k ? &layer->k_page_bytes : &layer->v_page_bytes) = place.page_bytes;
    return QUIRE_OK;
}

/* ---- making one ---- */

static quire_status fill_layer(struct quire_paged *paged, const struct quire_paged_config *config,
                               uint32_t index, struct quire_error *error)
{
    const struct quire_paged_layer *from = &config->layers[index];
    struct quire__heads heads = {from->num_heads, from->num_kv_heads, from->head_dim,
                                 from->head_dim_v};
    quire_status status = quire__check_heads("layer", index, heads, error);
    if (status == QUIRE_OK)
        status = quire__check_formats(config->kv_rotation, from->dtype_k, from->dtype_v, error);
    if (status != QUIRE_OK)
        return status;
    struct quire_kv_layer *layer = &paged->layers[index];
    *layer = (struct quire_kv_layer){
        .num_heads = from->num_heads,
        .num_kv_heads = from->num_kv_heads,
        .head_dim = from->head_dim,
        .head_dim_v = from->head_dim_v != 0 ? from->head_dim_v : from->head_dim,
        .window = from->window,
        .sink_positions = from->sink_positions,
        .dtype_k = from->dtype_k,
        .dtype_v = from->dtype_v,
        .rotated_k = quire__is_rotated(config->kv_rotation, from->dtype_k),
        .rotated_v = quire__is_rotated(config->kv_rotation, from->dtype_v),
    };
    status = check_layer(paged->backend, index, layer, error);
    if (status == QUIRE_OK)
        status = place_plane(paged, config->layers, 2 * index, error);
    if (status == QUIRE_OK)
        status = place_plane(paged, config->layers, 2 * index + 1, error);
    return status;
}

static void note_windows(struct quire_paged *paged)
{
    paged->window = paged->layers[0].window;
    for (uint32_t i = 0; i < paged->num_layers; i++) {
        const struct quire_kv_layer *layer = &paged->layers[i];
        if (layer->window == 0 || paged->window == 0)
            paged->window = 0;
        else if (layer->window > paged->window)
            paged->window = layer->window;
        if (layer->sink_positions > paged->sink_positions)
            paged->sink_positions = layer->sink_positions;
    }
}

static uint64_t rows_bytes(const struct quire_paged *paged)
{
    uint64_t rows = (uint64_t)paged->num_pages * paged->page_size;
    return quire__ceil_div(rows, 64) * sizeof *paged->rows;
}

static quire_status take_host_memory(struct quire_paged *paged)
{
    paged->layers = quire__calloc(paged->num_layers, sizeof *paged->layers);
    paged->wrapped = quire__calloc((size_t)paged->num_layers * 2, sizeof(struct quire_buffer *));
    paged->used = quire__calloc(paged->max_seqs, sizeof *paged->used);
    paged->lens = quire__calloc(paged->max_seqs, sizeof *paged->lens);
    paged->none = quire__calloc(paged->max_seq_pages, sizeof *paged->none);
    paged->parts = quire__calloc(paged->max_seqs, sizeof *paged->parts);
    paged->uploads = quire__calloc((size_t)paged->max_seqs * 2 + 1, sizeof *paged->uploads);
    paged->rows = quire__reserve(rows_bytes(paged));
    if (paged->layers == NULL || paged->wrapped == NULL || paged->used == NULL ||
        paged->lens == NULL || paged->none == NULL || paged->parts == NULL ||
        paged->uploads == NULL || paged->rows == NULL)
        return QUIRE_E_NOMEM;
    memset(paged->none, 0xff, paged->max_seq_pages * sizeof *paged->none);
    return QUIRE_OK;
}

static quire_status take_device_memory(struct quire_paged *paged)
{
    uint64_t entries = (uint64_t)paged->max_seqs * paged->max_seq_pages;
    paged->lens_offset = entries * sizeof(uint32_t);
    quire_status status = paged->backend->memory->buffer_create(
        paged->backend, paged->lens_offset + paged->max_seqs * sizeof(uint32_t), 0, &paged->tables);
    if (status == QUIRE_OK)
        status = quire__paged_clear(paged);
    if (status != QUIRE_OK)
        return status;
    struct quire_kv_spec spec = {
        .num_layers = paged->num_layers,
        .layers = paged->layers,
        .num_groups = 1,
        .positions_per_page = paged->page_size,
        .num_pages = paged->num_pages,
        .max_seqs = paged->max_seqs,
        .max_blocks = paged->max_seq_pages,
        .max_step_tokens = paged->max_step_tokens,
        .tables = paged->tables,
        .lens_offset = paged->lens_offset,
    };
    return paged->backend->kv->plan_create(paged->backend, &spec, &paged->plan);
}

static quire_status build(struct quire_paged *paged, const struct quire_paged_config *config,
                          struct quire_error *error)
{
    quire_status status = take_host_memory(paged);
    if (status != QUIRE_OK)
        return quire__fail(error, status, "no memory for steps of %u sequences over %u pages",
                           paged->max_seqs, paged->num_pages);
    for (uint32_t i = 0; i < paged->num_layers; i++) {
        status = fill_layer(paged, config, i, error);
        if (status != QUIRE_OK)
            return status;
    }
    note_windows(paged);
    status = take_device_memory(paged);
    if (status == QUIRE_E_INVAL) /* all but the buffers was checked above */
        return quire__fail(error, status,
                           "backend %s refuses a buffer: it is not its own, or smaller than said",
                           paged->backend->name);
    if (status != QUIRE_OK)
        return quire__fail(error, status, "cannot plan steps of %u sequences of %u pages: %s",
                           paged->max_seqs, paged->max_seq_pages, quire_status_text(status));
    return QUIRE_OK;
}

quire_status quire_paged_create(const struct quire_paged_config *config, struct quire_paged **out,
                                struct quire_error *error)
{
    if (config == NULL || out == NULL)
        return quire__fail(error, QUIRE_E_INVAL, "config and out must not be NULL");
    quire_status status = check_config(config, error);
    if (status != QUIRE_OK)
        return status;
    struct quire_paged *paged = quire__calloc(1, sizeof *paged);
    if (paged == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "no memory for the object");
    paged->backend = config->backend;
    paged->num_layers = config->num_layers;
    paged->page_size = config->page_size;
    paged->num_pages = config->num_pages;
    paged->max_seqs = config->max_seqs;
    paged->max_seq_pages = config->max_seq_pages;
    paged->max_step_tokens = config->max_step_tokens;
    status = build(paged, config, error);
    if (status != QUIRE_OK) {
        quire_paged_destroy(paged);
        return status;
    }
    *out = paged;
    return QUIRE_OK;
}

void quire_paged_destroy(struct quire_paged *paged)
{
    if (paged == NULL)
        return;
    const struct quire_memory_ops *memory = paged->backend->memory;
    quire_fence fence = 0;
    if (paged->tables != NULL && memory->fence_record(paged->backend, &fence) == QUIRE_OK)
        (void)memory->fence_wait(paged->backend, fence);
    if (paged->plan != NULL)
        paged->backend->kv->plan_destroy(paged->backend, paged->plan);
    memory->buffer_destroy(paged->backend, paged->tables);
    for (uint32_t i = 0; i < paged->num_wrapped; i++)
        memory->buffer_destroy(paged->backend, paged->wrapped[i]);
    quire__unreserve(paged->rows, rows_bytes(paged));
    quire__free(paged->uploads);
    quire__free(paged->parts);
    quire__free(paged->none);
    quire__free(paged->lens);
    quire__free(paged->used);
    quire__free(paged->wrapped);
    quire__free(paged->layers);
    quire__free(paged);
}
