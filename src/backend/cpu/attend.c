/* attend.c - attention of one layer: tiles, splits and their merging.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Online softmax over tiles at fixed positions (arXiv:1805.02867, algorithm 3), splits at fixed
 * positions merged in order (arXiv:2311.01282 describes the merge). What a row computes is set by
 * its own position alone: tiles and splits that it does not see are left out, whoever else is in
 * the chunk, so its bits do not depend on the rest of the batch. */
#include "backend/cpu/plan.h"

#include <math.h>
#include <string.h>

enum {
    CACHE_LINE = 64,
    PREFETCH_ROWS = 32,      /* more rows work on a tile for longer than its loading takes */
    INLINE_FLOATS = 1 << 14, /* fewer are merged before another thread would have woken */
};

struct job {
    const struct quire_plan *plan;
    const struct quire_kv_layer *layer;
    const struct quire__class *class;
    struct quire__span q, out, lse;
    bool has_lse;
    float scale, softcap;
    const float *slopes, *sink_logits;
};

/* What a unit works on, with its thread's scratch. */
struct work {
    const struct job *job;
    const struct quire__kernels *kernels;
    struct quire__scratch *scratch;
    const struct quire__unit *unit;
    const struct quire_step_part *part;
    const uint32_t *table;
    uint32_t group, rows, dim_v; /* heads of a group; rows of the chunk; rounded Dv */
    size_t state_floats;
    bool started; /* the states belong to the present split */
};

static void reset_states(float *states, uint32_t rows, size_t floats)
{
    memset(states, 0, rows * floats * sizeof(float));
    for (uint32_t r = 0; r < rows; r++)
        states[r * floats + QUIRE__STATE_MAX] = -INFINITY;
}

static uint32_t position_of(const struct work *w, uint32_t row)
{
    return w->part->len + w->unit->token + row / w->group;
}

/* Bits of the positions base .. base + 64 that lie in [from, to). */
static uint64_t bits_between(uint32_t base, uint64_t from, uint64_t to)
{
    uint64_t low = from > base ? from - base : 0;
    uint64_t high = to > base ? to - base : 0;
    if (low >= QUIRE__TILE || high <= low)
        return 0;
    uint64_t below_high = high >= QUIRE__TILE ? UINT64_MAX : ((uint64_t)1 << high) - 1;
    return below_high & (UINT64_MAX << low);
}

/* The positions of a tile that a token at `position` sees. */
static uint64_t visible(const struct quire__class *c, uint32_t base, uint32_t position)
{
    uint64_t end = (uint64_t)position + 1;
    uint64_t sinks = c->sink_positions < end ? c->sink_positions : end;
    return bits_between(base, quire__window_start(c->window, position), end) |
           bits_between(base, 0, sinks);
}

/* Points at the K and V rows of the positions in `mask`, NULL at the others below `positions`. */
static void find_rows(const struct work *w, uint32_t base, uint64_t mask, uint32_t positions)
{
    const struct quire_kv_spec *spec = &w->job->plan->spec;
    const struct quire_kv_layer *layer = w->job->layer;
    uint64_t key_bytes = (uint64_t)layer->head_dim * quire_dtype_bytes(layer->dtype_k);
    uint64_t value_bytes = (uint64_t)layer->head_dim_v * quire_dtype_bytes(layer->dtype_v);
    uint32_t per_page = spec->positions_per_page;
    uint32_t block = base / per_page, row = base % per_page;
    uint64_t head_row = (uint64_t)w->unit->kv_head * per_page;
    for (uint32_t p = 0; p < positions; p++) {
        const uint8_t *key = NULL, *value = NULL;
        if ((mask >> p & 1) != 0) {
            const uint8_t *page = spec->arena->data + w->table[block] * spec->page_bytes;
            key = page + layer->k_offset + (head_row + row) * key_bytes;
            value = page + layer->v_offset + (head_row + row) * value_bytes;
        }
        w->scratch->key_rows[p] = key;
        w->scratch->value_rows[p] = value;
        if (++row == per_page) {
            row = 0;
            block++;
        }
    }
}

static void prefetch(const void *const *rows, uint32_t positions, uint64_t row_bytes)
{
    for (uint32_t p = 0; p < positions; p++) {
        for (uint64_t i = 0; i < row_bytes && rows[p] != NULL; i += CACHE_LINE)
            __builtin_prefetch((const uint8_t *)rows[p] + i);
    }
}

/* Asks for the K rows of the next tile. */
static void prefetch_tile(const struct work *w, uint32_t base)
{
    const struct quire_kv_layer *layer = w->job->layer;
    uint32_t last = position_of(w, w->rows - 1);
    if (base > last)
        return;
    uint64_t mask = visible(w->job->class, base, last);
    if (mask == 0)
        return;
    uint32_t positions = QUIRE__TILE - (uint32_t)__builtin_clzll(mask);
    find_rows(w, base, mask, positions);
    prefetch(w->scratch->key_rows, positions,
             (uint64_t)layer->head_dim * quire_dtype_bytes(layer->dtype_k));
}

static void load_tile(const struct work *w, uint32_t positions)
{
    const struct quire__kernels *k = w->kernels;
    const struct quire_kv_layer *layer = w->job->layer;
    struct quire__scratch *s = w->scratch;
    if (layer->dtype_k == QUIRE_F32)
        k->keys_f32(s->keys, s->key_rows, positions, layer->head_dim);
    else if (layer->dtype_k == QUIRE_F16)
        k->keys_f16(s->keys, s->key_rows, positions, layer->head_dim);
    else
        k->keys_bf16(s->keys, s->key_rows, positions, layer->head_dim);
}

static void load_values(const struct work *w, uint32_t positions)
{
    const struct quire__kernels *k = w->kernels;
    const struct quire_kv_layer *layer = w->job->layer;
    struct quire__scratch *s = w->scratch;
    if (layer->dtype_v == QUIRE_F32)
        k->values_f32(s->values, w->dim_v, s->value_rows, positions, layer->head_dim_v);
    else if (layer->dtype_v == QUIRE_F16)
        k->values_f16(s->values, w->dim_v, s->value_rows, positions, layer->head_dim_v);
    else
        k->values_bf16(s->values, w->dim_v, s->value_rows, positions, layer->head_dim_v);
}

/* Fills the rows' masks for a tile; returns what any of them sees, and the first and past-the-last
 * row that see something. */
static uint64_t mask_rows(const struct work *w, uint32_t base, uint32_t *first, uint32_t *end)
{
    uint64_t all = 0;
    *first = w->rows;
    *end = 0;
    for (uint32_t r = 0; r < w->rows; r += w->group) {
        uint32_t position = position_of(w, r);
        uint64_t mask = visible(w->job->class, base, position);
        float distance = (float)((int64_t)base - (int64_t)position);
        for (uint32_t h = r; h < r + w->group; h++) {
            w->scratch->mask[h] = mask;
            w->scratch->distance[h] = distance;
        }
        if (mask != 0) {
            *first = *first < r ? *first : r;
            *end = r + w->group;
        }
        all |= mask;
    }
    return all;
}

static void do_tile(struct work *w, uint32_t base)
{
    struct quire__scratch *s = w->scratch;
    uint32_t first, end;
    uint64_t all = mask_rows(w, base, &first, &end);
    if (all == 0)
        return;
    if (!w->started) {
        reset_states(s->state, w->rows, w->state_floats);
        w->started = true;
    }
    uint32_t positions = QUIRE__TILE - (uint32_t)__builtin_clzll(all);
    find_rows(w, base, all, positions);
    if (w->rows <= PREFETCH_ROWS)
        prefetch(s->value_rows, positions,
                 (uint64_t)w->job->layer->head_dim_v * quire_dtype_bytes(w->job->layer->dtype_v));
    load_tile(w, positions);
    struct quire__tile tile = {
        .rows = end - first,
        .positions = positions,
        .dim = w->job->layer->head_dim,
        .dim_v = w->dim_v,
        .q = s->q + (size_t)first * w->job->layer->head_dim,
        .keys = s->keys,
        .values = s->values,
        .mask = s->mask + first,
        .s = s->s + (size_t)first * QUIRE__TILE,
        .state = s->state + first * w->state_floats,
        .softcap = w->job->softcap,
        .slope = w->job->slopes != NULL ? s->slope + first : NULL,
        .distance = s->distance + first,
    };
    w->kernels->scores(&tile);
    w->kernels->softmax(&tile);
    load_values(w, positions);
    if (w->rows <= PREFETCH_ROWS)
        prefetch_tile(w, base + QUIRE__TILE);
    w->kernels->accumulate(&tile);
}

/* Runs the tiles of one split; false when no row sees any of it. */
static bool do_split(struct work *w, uint32_t split)
{
    uint32_t last = position_of(w, w->rows - 1);
    w->started = false;
    for (uint32_t i = 0; i < QUIRE__SPLIT / QUIRE__TILE; i++) {
        uint64_t base = (uint64_t)split * QUIRE__SPLIT + i * QUIRE__TILE;
        if (base <= last)
            do_tile(w, (uint32_t)base);
    }
    return w->started;
}

static void finish_row(const struct work *w, uint32_t row, const float *total)
{
    const struct job *job = w->job;
    uint32_t head = w->unit->kv_head * w->group + row % w->group;
    uint32_t token = w->part->row + w->unit->token + row / w->group;
    float *lse = job->has_lse ? quire__span_row(&job->lse, token, 0) : NULL;
    if (lse != NULL)
        lse = job->lse.shape[1] == 1 ? lse + head : quire__span_row(&job->lse, token, head);
    const float *sink = job->sink_logits != NULL ? &job->sink_logits[head] : NULL;
    w->kernels->finish(quire__span_row(&job->out, token, head), lse, total, sink,
                       job->layer->head_dim_v);
}

static struct work work_of(const struct job *job, const struct quire__unit *unit, uint32_t thread)
{
    const struct quire_plan *plan = job->plan;
    uint32_t group = job->layer->num_heads / job->layer->num_kv_heads;
    uint32_t dim_v = (uint32_t)quire__round_up(job->layer->head_dim_v, QUIRE__LANES_MAX);
    const struct quire_step_part *part = &plan->parts[unit->part];
    return (struct work){
        .job = job,
        .kernels = plan->cpu->kernels,
        .scratch = &plan->scratch[thread],
        .unit = unit,
        .part = part,
        .table = quire__plan_table(plan, job->layer->group, part->slot),
        .group = group,
        .rows = unit->num_tokens * group,
        .dim_v = dim_v,
        .state_floats = QUIRE__STATE_HEAD + dim_v,
    };
}

static void take_queries(const struct work *w)
{
    const struct job *job = w->job;
    uint32_t dim = job->layer->head_dim;
    for (uint32_t r = 0; r < w->rows; r++) {
        uint32_t head = w->unit->kv_head * w->group + r % w->group;
        const float *q =
            quire__span_row(&job->q, w->part->row + w->unit->token + r / w->group, head);
        float *to = w->scratch->q + (size_t)r * dim;
        for (uint32_t d = 0; d < dim; d++)
            to[d] = q[d] * job->scale;
        if (job->slopes != NULL)
            w->scratch->slope[r] = job->slopes[head];
    }
}

static void merge_states(const struct work *w, float *totals, const float *states)
{
    for (uint32_t r = 0; r < w->rows; r++)
        w->kernels->merge(totals + r * w->state_floats, states + r * w->state_floats, w->dim_v);
}

static void attend_unit(void *argument, uint32_t index, uint32_t thread)
{
    const struct job *job = argument;
    const struct quire__unit *unit = &job->class->units[index];
    struct work w = work_of(job, unit, thread);
    take_queries(&w);
    if (unit->slot >= 0) {
        bool seen = do_split(&w, unit->split);
        QUIRE_CHECK(seen); /* the plan makes no unit for a split that nobody sees */
        for (uint32_t r = 0; r < w.rows; r++)
            memcpy(quire__plan_slot(job->plan, unit->slot + r),
                   w.scratch->state + r * w.state_floats, w.state_floats * sizeof(float));
        return;
    }
    reset_states(w.scratch->total, w.rows, w.state_floats);
    uint32_t end = position_of(&w, w.rows - 1) / QUIRE__SPLIT + 1;
    uint32_t first = quire__window_start(job->class->window, position_of(&w, 0)) / QUIRE__SPLIT;
    uint32_t sinks_end = (uint32_t)quire__ceil_div(job->class->sink_positions, QUIRE__SPLIT);
    for (uint32_t split = 0; split < end; split++) {
        if (split >= sinks_end && split < first)
            split = first;
        if (do_split(&w, split))
            merge_states(&w, w.scratch->total, w.scratch->state);
    }
    for (uint32_t r = 0; r < w.rows; r++)
        finish_row(&w, r, w.scratch->total + r * w.state_floats);
}

static void merge_unit(void *argument, uint32_t index, uint32_t thread)
{
    const struct job *job = argument;
    const struct quire__merge *merge = &job->class->merges[index];
    struct work w = work_of(job, &merge->unit, thread);
    float *total = w.scratch->total;
    for (uint32_t r = 0; r < w.rows; r++) {
        reset_states(total, 1, w.state_floats);
        for (uint32_t i = 0; i < merge->num_slots; i++) {
            int64_t slot = merge->unit.slot + (int64_t)i * w.rows + r;
            w.kernels->merge(total, quire__plan_slot(job->plan, slot), w.dim_v);
        }
        finish_row(&w, r, total);
    }
}

/* lse is f32 [T, H], as {T, 1, H} or {T, H, 1}. */
static bool take_lse(const struct quire_backend *backend, const struct quire_view *view,
                     struct job *job)
{
    job->has_lse = view->buffer != NULL || view->host != NULL;
    if (!job->has_lse)
        return true;
    uint64_t tokens = job->plan->num_tokens, heads = job->layer->num_heads;
    return quire__span_of(backend, view, QUIRE_F32, &job->lse) &&
           (quire__span_is(&job->lse, tokens, 1, heads) ||
            quire__span_is(&job->lse, tokens, heads, 1));
}

static void merge_all(void *argument, uint32_t index, uint32_t thread)
{
    const struct job *job = argument;
    (void)index;
    for (uint32_t i = 0; i < job->class->num_merges; i++)
        merge_unit(argument, i, thread);
}

quire_status quire__cpu_attend(struct quire_backend *backend, struct quire_plan *plan,
                               uint32_t layer_index, const struct quire_view *q,
                               const struct quire_view *out,
                               const struct quire_attend_params *params)
{
    if (plan == NULL || layer_index >= plan->spec.num_layers || params == NULL ||
        params->struct_size != sizeof *params || !(params->softcap >= 0.0f))
        return QUIRE_E_INVAL;
    const struct quire_kv_layer *layer = &plan->spec.layers[layer_index];
    const struct quire__class *class = &plan->classes[plan->layer_class[layer_index]];
    struct job job = {
        .plan = plan,
        .layer = layer,
        .class = class,
        .scale = params->scale != 0.0f ? params->scale : 1.0f / sqrtf((float)layer->head_dim),
        .softcap = params->softcap,
        .slopes = params->alibi_slopes,
        .sink_logits = params->sink_logits,
    };
    if (!quire__span_of(backend, q, QUIRE_F32, &job.q) ||
        !quire__span_of(backend, out, QUIRE_F32, &job.out) ||
        !quire__span_is(&job.q, plan->num_tokens, layer->num_heads, layer->head_dim) ||
        !quire__span_is(&job.out, plan->num_tokens, layer->num_heads, layer->head_dim_v) ||
        !take_lse(backend, &params->lse, &job))
        return QUIRE_E_INVAL;
    quire__threads_run(plan->cpu->threads, attend_unit, &job, class->num_units);
    if (class->num_merges != 0 && class->num_slots * plan->slot_floats < INLINE_FLOATS)
        quire__threads_run(plan->cpu->threads, merge_all, &job, 1);
    else
        quire__threads_run(plan->cpu->threads, merge_unit, &job, class->num_merges);
    return QUIRE_OK;
}
