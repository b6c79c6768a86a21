/* plan.c - the memory that the steps of a pool need, taken once.
 * SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/plan.h"

#include <string.h>

static const uint64_t slot_bytes_max = 64u << 20; /* beyond it parts are not split */

static uint64_t round_lanes(uint64_t n)
{
    return quire__round_up(n, QUIRE__LANES_MAX);
}

/* ---- checking the spec ---- */

/* Where a plane is, as a spec has it. */
struct place {
    const struct quire_buffer *own; /* NULL: the arena, whose size is checked with the spec */
    uint64_t offset, page_bytes;
};

/* Every page of a plane in a buffer of its own lies inside of it, at whole elements. */
static bool own_pages_fit(const struct quire_backend *backend, const struct quire_kv_spec *spec,
                          const struct place *place, uint64_t bytes, uint32_t element)
{
    uint64_t last, end;
    return spec->num_pages != 0 && bytes <= place->page_bytes &&
           quire__mul_u64(spec->num_pages - 1, place->page_bytes, &last) &&
           quire__add_u64(last, bytes, &end) &&
           quire__host_range(backend, place->own, place->offset, end) != NULL &&
           (uintptr_t)place->own->data % element == 0;
}

static bool plane_fits(const struct quire_backend *backend, const struct quire_kv_spec *spec,
                       const struct quire_kv_layer *layer, bool is_k)
{
    uint32_t dtype = is_k ? layer->dtype_k : layer->dtype_v;
    uint32_t dim = is_k ? layer->head_dim : layer->head_dim_v;
    struct place place = {
        .own = layer->k_buffer, .offset = layer->k_offset, .page_bytes = layer->k_page_bytes};
    if (!is_k)
        place = (struct place){layer->v_buffer, layer->v_offset, layer->v_page_bytes};
    if (place.own == NULL)
        place.page_bytes = spec->page_bytes;
    uint64_t rows, bytes, end;
    uint32_t row_bytes = quire_kv_data_bytes(dtype, dim) + quire_kv_scale_bytes(dtype, dim);
    uint32_t element = quire_dtype_bytes(dtype);
    if (row_bytes == 0 || !quire__mul_u64(layer->num_kv_heads, spec->positions_per_page, &rows) ||
        !quire__mul_u64(rows, row_bytes, &bytes) || !quire__add_u64(place.offset, bytes, &end) ||
        place.offset % element != 0 || place.page_bytes % element != 0)
        return false;
    return place.own != NULL ? own_pages_fit(backend, spec, &place, bytes, element)
                             : spec->arena != NULL && end <= spec->page_bytes;
}

static bool dtype_ok(const struct quire_backend *backend, uint32_t dtype)
{
    return dtype < 32 && (backend->caps.kv_dtypes >> dtype & 1) != 0;
}

/* Only what is quantised is turned. */
static bool rotation_ok(uint32_t rotated, uint32_t dtype)
{
    return rotated == 0 || (rotated == 1 && (dtype == QUIRE_Q8 || dtype == QUIRE_Q4));
}

static bool layer_ok(const struct quire_backend *backend, const struct quire_kv_spec *spec,
                     const struct quire_kv_layer *layer)
{
    return layer->group < spec->num_groups && layer->num_kv_heads != 0 && layer->num_heads != 0 &&
           layer->num_heads % layer->num_kv_heads == 0 && layer->head_dim != 0 &&
           layer->head_dim <= QUIRE__HEAD_DIM_MAX && layer->head_dim_v != 0 &&
           layer->head_dim_v <= QUIRE__HEAD_DIM_MAX && dtype_ok(backend, layer->dtype_k) &&
           dtype_ok(backend, layer->dtype_v) && rotation_ok(layer->rotated_k, layer->dtype_k) &&
           rotation_ok(layer->rotated_v, layer->dtype_v) &&
           plane_fits(backend, spec, layer, true) && plane_fits(backend, spec, layer, false);
}

static bool buffer_holds(const struct quire_backend *backend, const struct quire_buffer *buffer,
                         uint64_t offset, uint64_t count, uint64_t item_bytes)
{
    uint64_t bytes;
    return quire__mul_u64(count, item_bytes, &bytes) &&
           quire__host_range(backend, buffer, offset, bytes) != NULL &&
           (uintptr_t)(buffer->data + offset) % sizeof(uint32_t) == 0;
}

static bool spec_ok(const struct quire_backend *backend, const struct quire_kv_spec *spec)
{
    uint64_t entries;
    if (spec->num_layers == 0 || spec->layers == NULL || spec->num_groups == 0 ||
        spec->positions_per_page == 0 || spec->max_seqs == 0 || spec->max_blocks == 0 ||
        spec->max_step_tokens == 0)
        return false;
    for (uint32_t i = 0; i < spec->num_layers; i++) {
        if (!layer_ok(backend, spec, &spec->layers[i]))
            return false;
    }
    return quire__mul_u64((uint64_t)spec->num_groups * spec->max_seqs, spec->max_blocks,
                          &entries) &&
           (spec->arena == NULL ||
            buffer_holds(backend, spec->arena, 0, spec->num_pages, spec->page_bytes)) &&
           buffer_holds(backend, spec->tables, 0, entries, sizeof(uint32_t)) &&
           buffer_holds(backend, spec->tables, spec->lens_offset, spec->max_seqs, sizeof(uint32_t));
}

/* ---- memory ---- */

/* What one thread's scratch holds at most, over the layers. */
struct extents {
    uint64_t rows, dim, dim_v, state; /* dim_v rounded; state: floats of one row's state */
    size_t queries, tile;             /* bytes */
};

static struct extents extents_of(const struct quire_kv_spec *spec)
{
    struct extents e = {.rows = QUIRE__UNIT_ROWS};
    for (uint32_t i = 0; i < spec->num_layers; i++) {
        const struct quire_kv_layer *layer = &spec->layers[i];
        uint64_t group = layer->num_heads / layer->num_kv_heads;
        uint64_t dim_v = round_lanes(layer->head_dim_v);
        e.rows = group > e.rows ? group : e.rows;
        e.dim = layer->head_dim > e.dim ? layer->head_dim : e.dim;
        e.dim_v = dim_v > e.dim_v ? dim_v : e.dim_v;
    }
    e.state = QUIRE__STATE_HEAD + e.dim_v;
    e.queries = quire__queries_bytes((uint32_t)e.rows, (uint32_t)e.dim);
    e.tile = quire__tile_scratch((uint32_t)e.rows, (uint32_t)e.dim, (uint32_t)e.dim_v);
    return e;
}

/* Cuts the next `bytes` from an allocation whose end is *at; with memory NULL only counts. */
static void *cut(uint8_t *memory, uint64_t *at, uint64_t bytes)
{
    uint64_t start = *at;
    *at = quire__round_up(start + bytes, 64);
    return memory != NULL ? memory + start : NULL;
}

static uint64_t lay_scratch(struct quire__scratch *s, const struct extents *e, uint8_t *memory)
{
    uint64_t at = 0;
    s->q = cut(memory, &at, e->queries);
    s->tile = cut(memory, &at, e->tile);
    s->s = cut(memory, &at, e->rows * QUIRE__TILE * sizeof(float));
    s->state = cut(memory, &at, e->rows * e->state * sizeof(float));
    s->total = cut(memory, &at, e->rows * e->state * sizeof(float));
    s->max = cut(memory, &at, e->rows * sizeof(float));
    s->sum = cut(memory, &at, e->rows * sizeof(float));
    s->slope = cut(memory, &at, e->rows * sizeof(float));
    s->distance = cut(memory, &at, QUIRE__TILES_AT_ONCE * e->rows * sizeof(float));
    s->mask = cut(memory, &at, QUIRE__TILES_AT_ONCE * e->rows * sizeof(uint64_t));
    s->q_rows = cut(memory, &at, e->rows * sizeof(void *));
    s->turned = cut(memory, &at, e->rows * e->dim * sizeof(float));
    for (int i = 0; i < 2 * QUIRE__TILES_AT_ONCE * 4; i++) {
        int turn = i / 4 / QUIRE__TILES_AT_ONCE, tile = i / 4 % QUIRE__TILES_AT_ONCE;
        s->pages[turn][tile][i % 4] = cut(memory, &at, QUIRE__TILE * sizeof(void *));
        s->rows[turn][tile][i % 4] = cut(memory, &at, QUIRE__TILE * sizeof(void *));
    }
    return at;
}

static bool make_scratch(struct quire_plan *plan, const struct extents *e)
{
    uint32_t num_threads = quire__threads_count(plan->cpu->threads);
    struct quire__scratch counted;
    uint64_t bytes = lay_scratch(&counted, e, NULL);
    plan->scratch = quire__calloc(num_threads, sizeof *plan->scratch);
    plan->scratch_memory = quire__alloc_aligned(64, (size_t)bytes * num_threads);
    if (plan->scratch == NULL || plan->scratch_memory == NULL)
        return false;
    memset(plan->scratch_memory, 0, (size_t)bytes * num_threads);
    for (uint32_t i = 0; i < num_threads; i++)
        (void)lay_scratch(&plan->scratch[i], e, plan->scratch_memory + bytes * i);
    return true;
}

static bool same_class(const struct quire__class *c, const struct quire_kv_layer *layer)
{
    return c->num_heads == layer->num_heads && c->num_kv_heads == layer->num_kv_heads &&
           c->window == layer->window && c->sink_positions == layer->sink_positions;
}

static void sort_layers(struct quire_plan *plan)
{
    for (uint32_t i = 0; i < plan->spec.num_layers; i++) {
        const struct quire_kv_layer *layer = &plan->spec.layers[i];
        uint32_t c = 0;
        while (c < plan->num_classes && !same_class(&plan->classes[c], layer))
            c++;
        plan->layer_class[i] = c;
        uint32_t k = 0;
        while (k < plan->num_kinds && (plan->layer_class[plan->kinds[k]] != c ||
                                       plan->spec.layers[plan->kinds[k]].group != layer->group))
            k++;
        if (k == plan->num_kinds)
            plan->kinds[plan->num_kinds++] = i;
        if (c == plan->num_classes) {
            plan->num_classes++;
            plan->classes[c] = (struct quire__class){
                .num_heads = layer->num_heads,
                .num_kv_heads = layer->num_kv_heads,
                .window = layer->window,
                .sink_positions = layer->sink_positions,
            };
        }
    }
}

/* Bounds what a step can need: a unit for every token and K/V head, or for every slot. A split
 * token has a slot for each query head and split that it sees. */
static bool make_units(struct quire_plan *plan, const struct extents *e)
{
    const struct quire_kv_spec *spec = &plan->spec;
    uint64_t positions = (uint64_t)spec->max_blocks * spec->positions_per_page;
    uint64_t heads = 1, kv_heads = 1, units, slots;
    for (uint32_t i = 0; i < plan->num_classes; i++) {
        const struct quire__class *c = &plan->classes[i];
        heads = c->num_heads > heads ? c->num_heads : heads;
        kv_heads = c->num_kv_heads > kv_heads ? c->num_kv_heads : kv_heads;
    }
    plan->slot_floats = e->state;
    plan->max_slots = slot_bytes_max / (e->state * sizeof(float));
    if (quire__mul_u64(heads * spec->max_step_tokens, quire__ceil_div(positions, QUIRE__SPLIT),
                       &slots) &&
        slots < plan->max_slots)
        plan->max_slots = slots;
    if (!quire__mul_u64(spec->max_step_tokens, kv_heads, &units) ||
        units + plan->max_slots > UINT32_MAX)
        return false;
    plan->max_merges = (uint32_t)units;
    plan->max_units = (uint32_t)(units + plan->max_slots);
    plan->slots = quire__reserve(plan->max_slots * e->state * sizeof(float));
    if (plan->slots == NULL)
        return false;
    quire__prefer_huge(plan->slots, plan->max_slots * e->state * sizeof(float));
    for (uint32_t i = 0; i < plan->num_classes; i++) {
        struct quire__class *c = &plan->classes[i];
        c->units = quire__reserve(plan->max_units * sizeof *c->units);
        c->merges = quire__reserve(plan->max_merges * sizeof *c->merges);
        c->first_slot = quire__calloc(spec->max_step_tokens, sizeof *c->first_slot);
        if (c->units == NULL || c->merges == NULL || c->first_slot == NULL)
            return false;
    }
    return true;
}

/* What describes a step's parts and tokens. */
static bool make_tokens(struct quire_plan *plan)
{
    uint32_t max_seqs = plan->spec.max_seqs;
    plan->num_heads = 1;
    while (plan->num_heads < max_seqs)
        plan->num_heads *= 2;
    plan->parts = quire__calloc(max_seqs, sizeof *plan->parts);
    plan->families = quire__calloc((size_t)max_seqs + 1, sizeof *plan->families);
    plan->first_token = quire__calloc(max_seqs, sizeof *plan->first_token);
    plan->next_part = quire__calloc(max_seqs, sizeof *plan->next_part);
    plan->common = quire__calloc(max_seqs, sizeof *plan->common);
    plan->heads = quire__calloc(plan->num_heads, sizeof *plan->heads);
    plan->tokens = quire__calloc(plan->spec.max_step_tokens, sizeof *plan->tokens);
    return plan->parts != NULL && plan->families != NULL && plan->first_token != NULL &&
           plan->next_part != NULL && plan->common != NULL && plan->heads != NULL &&
           plan->tokens != NULL;
}

static void plan_destroy(struct quire_backend *backend, struct quire_plan *plan)
{
    (void)backend;
    if (plan == NULL)
        return;
    for (uint32_t i = 0; i < plan->num_classes; i++) {
        quire__unreserve(plan->classes[i].units, plan->max_units * sizeof(struct quire__unit));
        quire__unreserve(plan->classes[i].merges, plan->max_merges * sizeof(struct quire__merge));
        quire__free(plan->classes[i].first_slot);
    }
    quire__unreserve(plan->slots, plan->max_slots * plan->slot_floats * sizeof(float));
    quire__free(plan->kinds);
    quire__free(plan->layer_class);
    quire__free(plan->classes);
    quire__free(plan->parts);
    quire__free(plan->families);
    quire__free(plan->first_token);
    quire__free(plan->next_part);
    quire__free(plan->common);
    quire__free(plan->heads);
    quire__free(plan->tokens);
    quire__free(plan->scratch_memory);
    quire__free(plan->scratch);
    quire__free(plan);
}

static quire_status plan_create(struct quire_backend *backend, const struct quire_kv_spec *spec,
                                struct quire_plan **out)
{
    if (spec == NULL || out == NULL || !spec_ok(backend, spec))
        return QUIRE_E_INVAL;
    struct quire_plan *plan = quire__calloc(1, sizeof *plan);
    if (plan == NULL)
        return QUIRE_E_NOMEM;
    plan->cpu = (struct quire__cpu *)backend;
    plan->spec = *spec;
    struct extents e = extents_of(spec);
    plan->layer_class = quire__calloc(spec->num_layers, sizeof *plan->layer_class);
    plan->classes = quire__calloc(spec->num_layers, sizeof *plan->classes);
    plan->kinds = quire__calloc(spec->num_layers, sizeof *plan->kinds);
    if (plan->layer_class == NULL || plan->classes == NULL || plan->kinds == NULL ||
        !make_tokens(plan)) {
        plan_destroy(backend, plan);
        return QUIRE_E_NOMEM;
    }
    sort_layers(plan);
    if (!make_scratch(plan, &e) || !make_units(plan, &e)) {
        plan_destroy(backend, plan);
        return QUIRE_E_NOMEM;
    }
    *out = plan;
    return QUIRE_OK;
}

const struct quire_kv_ops quire__cpu_kv_ops = {
    .plan_create = plan_create,
    .plan_destroy = plan_destroy,
    .plan_build = quire__cpu_plan_build,
    .copy = quire__cpu_copy,
    .write = quire__cpu_write,
    .attend = quire__cpu_attend,
};
