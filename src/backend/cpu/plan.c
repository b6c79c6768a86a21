/* plan.c - turns a step into units of work, and owns the memory that the work needs.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A part's queries are cut into chunks of tokens; a chunk and a K/V head are one unit, which walks
 * the splits it sees in order. Where that gives too few units for the threads (decoding), the
 * splits of small chunks become units of their own, and their states meet in slots, to be merged in
 * the same order. Either way a row's arithmetic is the same. */
#include "backend/cpu/plan.h"

#include <string.h>

enum {
    UNITS_PER_THREAD = 4, /* enough that uneven units even out */
};
static const uint64_t slot_bytes_max = 64u << 20; /* beyond it parts are not split */

static uint32_t chunk_tokens(const struct quire__class *c)
{
    uint32_t group = c->num_heads / c->num_kv_heads;
    return group < QUIRE__CHUNK_ROWS ? QUIRE__CHUNK_ROWS / group : 1;
}

static uint64_t round_lanes(uint64_t n)
{
    return quire__round_up(n, QUIRE__LANES_MAX);
}

/* ---- checking the spec ---- */

static bool plane_fits(const struct quire_kv_spec *spec, const struct quire_kv_layer *layer,
                       uint32_t dim, uint32_t dtype, uint64_t offset)
{
    uint64_t rows, elements, bytes, end;
    return quire__mul_u64(layer->num_kv_heads, spec->positions_per_page, &rows) &&
           quire__mul_u64(rows, dim, &elements) &&
           quire__mul_u64(elements, quire_dtype_bytes(dtype), &bytes) &&
           quire__add_u64(offset, bytes, &end) && end <= spec->page_bytes &&
           offset % quire_dtype_bytes(dtype) == 0 &&
           spec->page_bytes % quire_dtype_bytes(dtype) == 0;
}

static bool dtype_ok(const struct quire_backend *backend, uint32_t dtype)
{
    return dtype < 32 && (backend->caps.kv_dtypes >> dtype & 1) != 0;
}

static bool layer_ok(const struct quire_backend *backend, const struct quire_kv_spec *spec,
                     const struct quire_kv_layer *layer)
{
    return layer->group < spec->num_groups && layer->num_kv_heads != 0 && layer->num_heads != 0 &&
           layer->num_heads % layer->num_kv_heads == 0 && layer->head_dim != 0 &&
           layer->head_dim <= QUIRE__HEAD_DIM_MAX && layer->head_dim_v != 0 &&
           layer->head_dim_v <= QUIRE__HEAD_DIM_MAX && dtype_ok(backend, layer->dtype_k) &&
           dtype_ok(backend, layer->dtype_v) &&
           plane_fits(spec, layer, layer->head_dim, layer->dtype_k, layer->k_offset) &&
           plane_fits(spec, layer, layer->head_dim_v, layer->dtype_v, layer->v_offset);
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
           buffer_holds(backend, spec->arena, 0, spec->num_pages, spec->page_bytes) &&
           buffer_holds(backend, spec->tables, 0, entries, sizeof(uint32_t)) &&
           buffer_holds(backend, spec->tables, spec->lens_offset, spec->max_seqs, sizeof(uint32_t));
}

/* ---- memory ---- */

/* What one thread's scratch holds at most, over the layers. */
struct extents {
    uint64_t rows, dim, dim_v, state; /* state: floats of one row's state */
};

static struct extents extents_of(const struct quire_kv_spec *spec)
{
    struct extents e = {.rows = QUIRE__CHUNK_ROWS};
    for (uint32_t i = 0; i < spec->num_layers; i++) {
        const struct quire_kv_layer *layer = &spec->layers[i];
        uint64_t group = layer->num_heads / layer->num_kv_heads;
        uint64_t dim_v = round_lanes(layer->head_dim_v);
        e.rows = group > e.rows ? group : e.rows;
        e.dim = layer->head_dim > e.dim ? layer->head_dim : e.dim;
        e.dim_v = dim_v > e.dim_v ? dim_v : e.dim_v;
    }
    e.state = QUIRE__STATE_HEAD + e.dim_v;
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
    s->keys = cut(memory, &at, e->dim * QUIRE__TILE * sizeof(float));
    s->values = cut(memory, &at, e->dim_v * QUIRE__TILE * sizeof(float));
    s->q = cut(memory, &at, e->rows * e->dim * sizeof(float));
    s->s = cut(memory, &at, e->rows * QUIRE__TILE * sizeof(float));
    s->state = cut(memory, &at, e->rows * e->state * sizeof(float));
    s->total = cut(memory, &at, e->rows * e->state * sizeof(float));
    s->slope = cut(memory, &at, e->rows * sizeof(float));
    s->distance = cut(memory, &at, e->rows * sizeof(float));
    s->mask = cut(memory, &at, e->rows * sizeof(uint64_t));
    s->key_rows = cut(memory, &at, QUIRE__TILE * sizeof(void *));
    s->value_rows = cut(memory, &at, QUIRE__TILE * sizeof(void *));
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

/* Bounds what plan_build can make: a chunk of at least one token for every K/V head, and the splits
 * of chunks while there are fewer units than the threads want. */
static bool make_units(struct quire_plan *plan, const struct extents *e)
{
    const struct quire_kv_spec *spec = &plan->spec;
    uint64_t wanted = (uint64_t)UNITS_PER_THREAD * quire__threads_count(plan->cpu->threads);
    uint64_t positions = (uint64_t)spec->max_blocks * spec->positions_per_page;
    uint64_t splits = quire__ceil_div(positions, QUIRE__SPLIT);
    uint64_t heads = 1, units, slots;
    for (uint32_t i = 0; i < plan->num_classes; i++)
        heads = plan->classes[i].num_kv_heads > heads ? plan->classes[i].num_kv_heads : heads;
    plan->slot_floats = e->state;
    plan->max_slots = slot_bytes_max / (e->state * sizeof(float));
    if (quire__mul_u64(wanted * QUIRE__SPLIT_ROWS, splits, &slots) && slots < plan->max_slots)
        plan->max_slots = slots;
    if (!quire__mul_u64(spec->max_step_tokens, heads, &units) ||
        !quire__add_u64(units, plan->max_slots, &units) || units > UINT32_MAX)
        return false;
    plan->max_units = (uint32_t)units;
    plan->max_merges = (uint32_t)wanted;
    plan->slots = quire__reserve(plan->max_slots * e->state * sizeof(float));
    if (plan->slots == NULL)
        return false;
    for (uint32_t i = 0; i < plan->num_classes; i++) {
        struct quire__class *c = &plan->classes[i];
        c->units = quire__reserve(units * sizeof *c->units);
        c->merges = quire__calloc(wanted, sizeof *c->merges);
        if (c->units == NULL || c->merges == NULL)
            return false;
    }
    return true;
}

static void plan_destroy(struct quire_backend *backend, struct quire_plan *plan)
{
    (void)backend;
    if (plan == NULL)
        return;
    for (uint32_t i = 0; i < plan->num_classes; i++) {
        quire__unreserve(plan->classes[i].units, plan->max_units * sizeof(struct quire__unit));
        quire__free(plan->classes[i].merges);
    }
    quire__unreserve(plan->slots, plan->max_slots * plan->slot_floats * sizeof(float));
    quire__free(plan->kinds);
    quire__free(plan->layer_class);
    quire__free(plan->classes);
    quire__free(plan->parts);
    quire__free(plan->write_units);
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
    uint64_t write_units =
        (uint64_t)spec->max_seqs + spec->max_step_tokens / QUIRE__WRITE_TOKENS + 1;
    plan->layer_class = quire__calloc(spec->num_layers, sizeof *plan->layer_class);
    plan->classes = quire__calloc(spec->num_layers, sizeof *plan->classes);
    plan->kinds = quire__calloc(spec->num_layers, sizeof *plan->kinds);
    plan->parts = quire__calloc(spec->max_seqs, sizeof *plan->parts);
    plan->write_units = quire__calloc(write_units, sizeof *plan->write_units);
    if (plan->layer_class == NULL || plan->classes == NULL || plan->kinds == NULL ||
        plan->parts == NULL || plan->write_units == NULL) {
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

/* ---- building a step ---- */

/* Whether entries first .. end of a table are below num_pages. Most of the cost of a plan for many
 * long sequences: four entries at a time, without a branch. */
static bool entries_exist(const uint32_t *table, uint64_t first, uint64_t end, uint32_t num_pages)
{
    typedef uint32_t four __attribute__((vector_size(16), aligned(4), may_alias));
    four bad = {0, 0, 0, 0};
    for (; first + 4 <= end; first += 4)
        bad |= (four)(*(const four *)(table + first) >= num_pages);
    for (; first < end; first++)
        bad[0] |= table[first] >= num_pages;
    return (bad[0] | bad[1] | bad[2] | bad[3]) == 0;
}

/* Every page that a part writes, or that its tokens see in this class, must exist. */
static bool pages_exist(const struct quire_plan *plan, const struct quire_kv_layer *layer,
                        const struct quire_step_part *part)
{
    const struct quire_kv_spec *spec = &plan->spec;
    const uint32_t *table = quire__plan_table(plan, layer->group, part->slot);
    uint32_t per_page = spec->positions_per_page;
    uint32_t last = (part->len + (part->n_new - 1)) / per_page;
    uint32_t first = quire__window_start(layer->window, part->len) / per_page;
    uint64_t sinks_end = quire__ceil_div(layer->sink_positions, per_page);
    return entries_exist(table, 0, first < sinks_end ? first : sinks_end, spec->num_pages) &&
           entries_exist(table, first, (uint64_t)last + 1, spec->num_pages);
}

static bool part_ok(const struct quire_plan *plan, const struct quire_step_desc *desc,
                    const struct quire_step_part *part)
{
    const struct quire_kv_spec *spec = &plan->spec;
    uint64_t positions = (uint64_t)spec->max_blocks * spec->positions_per_page;
    if (part->slot >= spec->max_seqs || part->n_new == 0 ||
        (uint64_t)part->len + part->n_new > positions ||
        (uint64_t)part->len + part->n_new > UINT32_MAX ||
        (uint64_t)part->row + part->n_new > desc->num_tokens)
        return false;
    for (uint32_t k = 0; k < plan->num_kinds; k++) {
        if (!pages_exist(plan, &spec->layers[plan->kinds[k]], part))
            return false;
    }
    return true;
}

static bool desc_ok(const struct quire_plan *plan, const struct quire_step_desc *desc)
{
    if (desc == NULL || desc->num_tokens > plan->spec.max_step_tokens ||
        desc->num_parts > plan->spec.max_seqs || (desc->parts == NULL && desc->num_parts != 0))
        return false;
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < desc->num_parts; i++) {
        if (!part_ok(plan, desc, &desc->parts[i]))
            return false;
        tokens += desc->parts[i].n_new;
    }
    return tokens <= desc->num_tokens;
}

static void add_unit(struct quire_plan *plan, struct quire__class *c, const struct quire__unit *u)
{
    QUIRE_CHECK(c->num_units < plan->max_units);
    c->units[c->num_units++] = *u;
}

/* Splits that the tokens see through their window, and before them those that hold sinks. */
struct visible_splits {
    uint32_t sinks_end, first, end;
};

static struct visible_splits splits_of(const struct quire__class *c, uint32_t first_position,
                                       uint32_t last_position)
{
    uint32_t first = quire__window_start(c->window, first_position) / QUIRE__SPLIT;
    uint32_t sinks = (uint32_t)quire__ceil_div(c->sink_positions, QUIRE__SPLIT);
    return (struct visible_splits){sinks < first ? sinks : first, first,
                                   last_position / QUIRE__SPLIT + 1};
}

/* Cuts the one chunk of a small part and one K/V head at its splits; false when the slots or merges
 * are used up. */
static bool add_split(struct quire_plan *plan, struct quire__class *c, const struct quire__unit *u,
                      int64_t *next_slot)
{
    const struct quire_step_part *part = &plan->parts[u->part];
    struct visible_splits v = splits_of(c, part->len, part->len + (part->n_new - 1));
    uint32_t num = v.sinks_end + (v.end - v.first);
    uint32_t rows = u->num_tokens * (c->num_heads / c->num_kv_heads);
    if (num < 2 || c->num_merges == plan->max_merges ||
        (uint64_t)*next_slot + (uint64_t)num * rows > plan->max_slots)
        return false;
    struct quire__unit unit = *u;
    unit.num_splits = 1;
    unit.slot = *next_slot;
    c->merges[c->num_merges++] = (struct quire__merge){unit, num};
    for (uint32_t i = 0; i < num; i++) {
        unit.split = i < v.sinks_end ? i : v.first + (i - v.sinks_end);
        unit.slot = *next_slot;
        *next_slot += rows;
        add_unit(plan, c, &unit);
    }
    return true;
}

/* Most parts of most steps are one token. */
static uint64_t chunks_of(uint32_t n, uint32_t chunk)
{
    return n <= chunk ? 1 : quire__ceil_div(n, chunk);
}

static void build_class(struct quire_plan *plan, struct quire__class *c)
{
    uint32_t chunk = chunk_tokens(c), group = c->num_heads / c->num_kv_heads;
    uint32_t num_threads = quire__threads_count(plan->cpu->threads);
    uint64_t whole = 0;
    int64_t next_slot = 0;
    c->num_units = c->num_merges = 0;
    for (uint32_t i = 0; i < plan->num_parts; i++)
        whole += chunks_of(plan->parts[i].n_new, chunk) * c->num_kv_heads;
    bool scarce = num_threads > 1 && whole < (uint64_t)UNITS_PER_THREAD * num_threads;
    for (uint32_t i = 0; i < plan->num_parts; i++) {
        uint32_t n = plan->parts[i].n_new;
        bool small = (uint64_t)n * group <= QUIRE__SPLIT_ROWS && n <= chunk;
        /* Later chunks see more, and so come first. */
        for (uint32_t at = n <= chunk ? 0 : (n - 1) / chunk * chunk;; at -= chunk) {
            for (uint32_t h = 0; h < c->num_kv_heads; h++) {
                uint32_t end = n - at < chunk ? n : at + chunk;
                struct quire__unit u = {i, at, end - at, h, 0, UINT32_MAX, QUIRE__NO_SLOT};
                if (!(scarce && small && add_split(plan, c, &u, &next_slot)))
                    add_unit(plan, c, &u);
            }
            if (at == 0)
                break;
        }
    }
    c->num_slots = (uint64_t)next_slot;
}

static quire_status plan_build(struct quire_backend *backend, struct quire_plan *plan,
                               const struct quire_step_desc *desc)
{
    (void)backend;
    if (plan == NULL || !desc_ok(plan, desc))
        return QUIRE_E_INVAL;
    plan->num_parts = desc->num_parts;
    plan->num_tokens = desc->num_tokens;
    plan->num_write_units = 0;
    for (uint32_t i = 0; i < desc->num_parts; i++) {
        plan->parts[i] = desc->parts[i];
        for (uint32_t at = 0; at < desc->parts[i].n_new; at += QUIRE__WRITE_TOKENS) {
            uint32_t left = desc->parts[i].n_new - at;
            plan->write_units[plan->num_write_units++] = (struct quire__unit){
                .part = i,
                .token = at,
                .num_tokens = left < QUIRE__WRITE_TOKENS ? left : QUIRE__WRITE_TOKENS,
            };
        }
    }
    for (uint32_t i = 0; i < plan->num_classes; i++)
        build_class(plan, &plan->classes[i]);
    return QUIRE_OK;
}

const struct quire_kv_ops quire__cpu_kv_ops = {
    .plan_create = plan_create,
    .plan_destroy = plan_destroy,
    .plan_build = plan_build,
    .copy = quire__cpu_copy,
    .write = quire__cpu_write,
    .attend = quire__cpu_attend,
};
