/* layout.c - where K and V of a position lie; nobody else computes an address.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A page of a group holds, for each of its layers in turn, K [G, P, D] and V [G, P, Dv], dense; of
 * q8 and q4 each head has the data of its P rows, then their scales (docs/formats/kv.md). Planes
 * start at multiples of 16 bytes, so that every plane is a whole number of elements away from every
 * other whatever their dtypes. */
#include "cache/layout.h"
#include "cache/checks.h"

#include <string.h>

#define PLANE_ALIGN 16u

static quire_status check_group(const struct quire_group_config *group, uint32_t index,
                                struct quire_error *error)
{
    if (group->layers == NULL || group->num_layers == 0)
        return quire__fail(error, QUIRE_E_INVAL, "group %u has no layers", index);
    struct quire__heads heads = {group->num_heads, group->num_kv_heads, group->head_dim,
                                 group->head_dim_v};
    return quire__check_heads("group", index, heads, error);
}

static quire_status check_config(const struct quire_pool_config *config, uint64_t *num_layers,
                                 struct quire_error *error)
{
    if (config->groups == NULL || config->num_groups == 0)
        return quire__fail(error, QUIRE_E_INVAL, "a pool needs at least one group of layers");
    if (config->num_groups > QUIRE_MAX_GROUPS)
        return quire__fail(error, QUIRE_E_LIMIT, "%u groups; at most %u", config->num_groups,
                           QUIRE_MAX_GROUPS);
    if (config->block_size == 0 || config->max_seq_len == 0)
        return quire__fail(error, QUIRE_E_INVAL, "block_size and max_seq_len must not be 0");
    if (config->block_size > QUIRE_MAX_BLOCK_SIZE || config->max_seq_len > QUIRE_MAX_SEQ_LEN)
        return quire__fail(error, QUIRE_E_LIMIT, "block_size at most %u, max_seq_len at most %u",
                           QUIRE_MAX_BLOCK_SIZE, QUIRE_MAX_SEQ_LEN);
    quire_status status =
        quire__check_formats(config->kv_rotation, config->dtype_k, config->dtype_v, error);
    if (status != QUIRE_OK)
        return status;
    *num_layers = 0;
    for (uint32_t g = 0; g < config->num_groups; g++) {
        status = check_group(&config->groups[g], g, error);
        if (status != QUIRE_OK)
            return status;
        *num_layers += config->groups[g].num_layers;
    }
    if (*num_layers > QUIRE_MAX_LAYERS)
        return quire__fail(error, QUIRE_E_LIMIT, "%llu layers; at most %u",
                           (unsigned long long)*num_layers, QUIRE_MAX_LAYERS);
    return QUIRE_OK;
}

static uint32_t row_bytes(uint32_t dtype, uint32_t dim)
{
    return quire_kv_data_bytes(dtype, dim) + quire_kv_scale_bytes(dtype, dim);
}

/* Lays out one layer's planes from *offset on and moves *offset behind them. False when the page
 * passes 2^62 bytes; every term below is smaller than that, so the sums do not wrap. */
static bool place_layer(struct quire_kv_layer *layer, uint32_t positions, uint64_t *offset)
{
    uint64_t k_bytes = 0, v_bytes = 0;
    uint64_t k_row = row_bytes(layer->dtype_k, layer->head_dim);
    uint64_t v_row = row_bytes(layer->dtype_v, layer->head_dim_v);
    if (!quire__mul_u64(k_row * layer->num_kv_heads, positions, &k_bytes) ||
        !quire__mul_u64(v_row * layer->num_kv_heads, positions, &v_bytes) ||
        k_bytes > UINT64_MAX / 4 || v_bytes > UINT64_MAX / 4)
        return false;
    layer->k_offset = *offset;
    layer->v_offset = *offset + quire__round_up(k_bytes, PLANE_ALIGN);
    *offset = layer->v_offset + quire__round_up(v_bytes, PLANE_ALIGN);
    return *offset < UINT64_MAX / 4;
}

static quire_status fill_layer(struct quire__layout *self, const struct quire_pool_config *config,
                               uint32_t g, uint32_t index, struct quire_error *error)
{
    const struct quire_group_config *group = &config->groups[g];
    if (index >= self->num_layers)
        return quire__fail(error, QUIRE_E_INVAL, "group %u names layer %u of %u layers", g, index,
                           self->num_layers);
    struct quire_kv_layer *layer = &self->layers[index];
    if (layer->num_heads != 0)
        return quire__fail(error, QUIRE_E_INVAL, "layer %u is named twice", index);
    *layer = (struct quire_kv_layer){
        .group = g,
        .num_heads = group->num_heads,
        .num_kv_heads = group->num_kv_heads,
        .head_dim = group->head_dim,
        .head_dim_v = group->head_dim_v != 0 ? group->head_dim_v : group->head_dim,
        .window = group->window,
        .sink_positions = group->sink_positions,
        .dtype_k = config->dtype_k,
        .dtype_v = config->dtype_v,
        .rotated_k = quire__is_rotated(config->kv_rotation, config->dtype_k),
        .rotated_v = quire__is_rotated(config->kv_rotation, config->dtype_v),
    };
    quire_status status = quire__check_row(index, layer->dtype_k, layer->head_dim, error);
    if (status == QUIRE_OK)
        status = quire__check_row(index, layer->dtype_v, layer->head_dim_v, error);
    if (status != QUIRE_OK)
        return status;
    uint32_t k_row = quire__layout_row_bytes(self, index, QUIRE__K);
    uint32_t v_row = quire__layout_row_bytes(self, index, QUIRE__V);
    self->position_bytes += (uint64_t)layer->num_kv_heads * (k_row + v_row);
    uint32_t row = k_row > v_row ? k_row : v_row;
    self->max_row_bytes = row > self->max_row_bytes ? row : self->max_row_bytes;
    if (layer->num_kv_heads > self->max_plane_heads)
        self->max_plane_heads = layer->num_kv_heads;
    return QUIRE_OK;
}

/* A page of the paged layout belongs to one group; a contiguous region holds all groups. */
static bool place_pages(struct quire__layout *self, const struct quire_pool_config *config)
{
    uint64_t offset = 0;
    for (uint32_t g = 0; g < config->num_groups; g++) {
        const struct quire_group_config *group = &config->groups[g];
        if (!self->contiguous)
            offset = 0;
        for (uint32_t i = 0; i < group->num_layers; i++) {
            if (!place_layer(&self->layers[group->layers[i]], self->page_positions, &offset))
                return false;
        }
        if (offset > self->page_bytes)
            self->page_bytes = offset;
    }
    return true;
}

static void fill_tables(struct quire__layout *self, const struct quire_pool_config *config)
{
    for (uint32_t t = 0; t < self->num_tables; t++) {
        const struct quire_group_config *group = &config->groups[t];
        bool windowed = group->window != 0 && group->window < config->max_seq_len;
        uint64_t sinks = quire__ceil_div(group->sink_positions, self->block_size);
        self->tables[t] = (struct quire__table){
            .window = windowed ? group->window : 0,
            .sink_blocks = !windowed                  ? 0
                           : sinks < self->max_blocks ? (uint32_t)sinks
                                                      : self->max_blocks,
        };
        self->has_windows = self->has_windows || windowed;
    }
}

quire_status quire__layout_init(struct quire__layout *self, const struct quire_pool_config *config,
                                uint32_t layout, struct quire_error *error)
{
    memset(self, 0, sizeof *self);
    uint64_t num_layers = 0;
    quire_status status = check_config(config, &num_layers, error);
    if (status != QUIRE_OK)
        return status;
    self->contiguous = layout == QUIRE_LAYOUT_CONTIGUOUS;
    self->num_layers = (uint32_t)num_layers;
    self->num_groups = config->num_groups;
    self->num_tables = self->contiguous ? 1 : config->num_groups;
    self->block_size = config->block_size;
    self->max_seq_len = config->max_seq_len;
    self->max_blocks = (uint32_t)quire__ceil_div(config->max_seq_len, config->block_size);
    self->page_positions = self->contiguous ? config->max_seq_len : config->block_size;
    self->layers = quire__calloc(num_layers, sizeof *self->layers);
    self->tables = quire__calloc(self->num_tables, sizeof *self->tables);
    if (self->layers == NULL || self->tables == NULL) {
        quire__layout_deinit(self);
        return quire__fail(error, QUIRE_E_NOMEM, "no memory for %u layers", self->num_layers);
    }
    for (uint32_t g = 0; g < config->num_groups && status == QUIRE_OK; g++) {
        const struct quire_group_config *group = &config->groups[g];
        for (uint32_t i = 0; i < group->num_layers && status == QUIRE_OK; i++)
            status = fill_layer(self, config, g, group->layers[i], error);
    }
    if (!self->contiguous)
        fill_tables(self, config);
    if (status == QUIRE_OK && !place_pages(self, config))
        status = quire__fail(error, QUIRE_E_LIMIT, "a page is larger than the address space");
    self->block_bytes =
        self->contiguous ? self->position_bytes * self->block_size : self->page_bytes;
    if (status != QUIRE_OK)
        quire__layout_deinit(self);
    return status;
}

void quire__layout_deinit(struct quire__layout *self)
{
    quire__free(self->tables);
    quire__free(self->layers);
    self->tables = NULL;
    self->layers = NULL;
}

uint32_t quire__layout_blocks(const struct quire__layout *self, uint64_t len)
{
    return (uint32_t)quire__ceil_div(len, self->block_size);
}

struct quire__rows_at quire__layout_rows(const struct quire__layout *self, uint32_t layer,
                                         enum quire__plane plane)
{
    const struct quire_kv_layer *geometry = &self->layers[layer];
    uint32_t dtype = plane == QUIRE__K ? geometry->dtype_k : geometry->dtype_v;
    uint32_t dim = plane == QUIRE__K ? geometry->head_dim : geometry->head_dim_v;
    return (struct quire__rows_at){
        .data_bytes = quire_kv_data_bytes(dtype, dim),
        .scale_bytes = quire_kv_scale_bytes(dtype, dim),
    };
}

uint32_t quire__layout_row_bytes(const struct quire__layout *self, uint32_t layer,
                                 enum quire__plane plane)
{
    struct quire__rows_at rows = quire__layout_rows(self, layer, plane);
    return rows.data_bytes + rows.scale_bytes;
}

struct quire__rows_at quire__layout_at(const struct quire__layout *self, uint32_t layer,
                                       enum quire__plane plane, uint32_t page, uint32_t head,
                                       uint32_t row)
{
    const struct quire_kv_layer *geometry = &self->layers[layer];
    struct quire__rows_at rows = quire__layout_rows(self, layer, plane);
    uint64_t positions = self->page_positions;
    uint64_t start = page * self->page_bytes +
                     (plane == QUIRE__K ? geometry->k_offset : geometry->v_offset) +
                     head * positions * ((uint64_t)rows.data_bytes + rows.scale_bytes);
    rows.data = start + (uint64_t)row * rows.data_bytes;
    rows.scales = start + positions * rows.data_bytes + (uint64_t)row * rows.scale_bytes;
    return rows;
}

uint32_t quire__layout_ranges(const struct quire__layout *self, uint32_t layer, uint32_t slot,
                              uint32_t first, uint32_t end, struct quire_range *ranges)
{
    uint32_t count = 0;
    uint64_t rows = end - first;
    for (int plane = QUIRE__K; plane <= QUIRE__V; plane++) {
        for (uint32_t head = 0; head < self->layers[layer].num_kv_heads; head++) {
            struct quire__rows_at at =
                quire__layout_at(self, layer, (enum quire__plane)plane, slot, head, first);
            ranges[count++] = (struct quire_range){at.data, rows * at.data_bytes};
            if (at.scale_bytes != 0)
                ranges[count++] = (struct quire_range){at.scales, rows * at.scale_bytes};
        }
    }
    return count;
}
