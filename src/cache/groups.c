/* groups.c - the geometry of a pool before there is one: balanced groups, and what a block costs.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cache/layout.h"

/* Elements of K and V that one position of one layer takes. */
static uint64_t layer_elements(const struct quire_group_config *group)
{
    uint32_t dim_v = group->head_dim_v != 0 ? group->head_dim_v : group->head_dim;
    return (uint64_t)group->num_kv_heads * ((uint64_t)group->head_dim + dim_v);
}

/* Slices of a group when none should hold more than `unit` elements a position. */
static uint64_t slices_of(const struct quire_group_config *group, uint64_t unit)
{
    uint64_t slices = quire__ceil_div(group->num_layers * layer_elements(group), unit);
    return slices < group->num_layers ? slices : group->num_layers;
}

/* What a slice should hold: what the smallest group has, so that no block is padded by more than a
 * layer; or the largest, where that is under a quarter more and slicing would cost more than it
 * saves. */
static uint64_t choose_unit(const struct quire_group_config *groups, uint32_t num_groups)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (uint32_t g = 0; g < num_groups; g++) {
        uint64_t elements = groups[g].num_layers * layer_elements(&groups[g]);
        least = elements < least ? elements : least;
        most = elements > most ? elements : most;
    }
    return most < least + least / 4 ? most : least;
}

/* Cuts a group into `slices` of neighbouring layers, the first ones a layer larger. */
static void cut_group(const struct quire_group_config *group, uint32_t slices,
                      struct quire_group_config *out)
{
    uint32_t small = group->num_layers / slices, large = group->num_layers % slices, at = 0;
    for (uint32_t s = 0; s < slices; s++) {
        out[s] = *group;
        out[s].layers = group->layers + at;
        out[s].num_layers = small + (s < large);
        at += out[s].num_layers;
    }
}

quire_status quire_groups_balance(const struct quire_group_config *groups, uint32_t num_groups,
                                  struct quire_group_config *out, uint32_t max_out,
                                  uint32_t *num_out)
{
    if (groups == NULL || num_groups == 0 || out == NULL || num_out == NULL)
        return QUIRE_E_INVAL;
    for (uint32_t g = 0; g < num_groups; g++) {
        const struct quire_group_config *group = &groups[g];
        if (group->num_layers > QUIRE_MAX_LAYERS || group->num_kv_heads > QUIRE_MAX_HEADS ||
            group->head_dim > QUIRE_MAX_HEAD_DIM || group->head_dim_v > QUIRE_MAX_HEAD_DIM)
            return QUIRE_E_LIMIT;
        if (group->layers == NULL || group->num_layers == 0 || layer_elements(group) == 0)
            return QUIRE_E_INVAL;
    }
    if (num_groups > max_out)
        return QUIRE_E_LIMIT;
    uint64_t total = UINT64_MAX, unit = choose_unit(groups, num_groups);
    QUIRE_CHECK(unit > 0); /* no group is empty */
    for (; total > max_out; unit += (unit + 1) / 2) {
        total = 0;
        for (uint32_t g = 0; g < num_groups; g++)
            total += slices_of(&groups[g], unit);
        if (total <= max_out)
            break;
    }
    uint32_t count = 0;
    for (uint32_t g = 0; g < num_groups; g++) {
        uint32_t slices = (uint32_t)slices_of(&groups[g], unit);
        cut_group(&groups[g], slices, out + count);
        count += slices;
    }
    *num_out = count;
    return QUIRE_OK;
}

quire_status quire_pool_measure(const struct quire_pool_config *config, uint64_t *block_bytes,
                                uint64_t *position_bytes)
{
    if (config == NULL || block_bytes == NULL || position_bytes == NULL ||
        config->struct_size != sizeof *config)
        return QUIRE_E_INVAL;
    struct quire__layout layout;
    uint32_t kind = config->layout != QUIRE_LAYOUT_AUTO ? config->layout : QUIRE_LAYOUT_PAGED;
    quire_status status = quire__layout_init(&layout, config, kind, NULL);
    if (status != QUIRE_OK)
        return status;
    *block_bytes = layout.block_bytes;
    *position_bytes = layout.position_bytes;
    quire__layout_deinit(&layout);
    return QUIRE_OK;
}
