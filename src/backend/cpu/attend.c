/* attend.c - attention over the tables of a step's sequences.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Online softmax over tiles (arXiv:1805.02867, algorithm 3), splits at fixed positions merged in
 * order (arXiv:2311.01282 describes the merge). What a row computes is set by its own position
 * alone: tiles and splits that it does not see are left out, whoever else is in the unit, so its
 * bits do not depend on the rest of the batch. */
#include "backend/cpu/plan.h"

#include <math.h>
#include <string.h>

enum {
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
    struct quire__kv_plane planes[2]; /* K, V */
};

/* What a unit works on, with its thread's scratch. */
struct work {
    const struct job *job;
    const struct quire__kernels *kernels;
    struct quire__scratch *scratch;
    const struct quire__token *tokens; /* the unit's */
    const uint32_t *table;
    uint32_t head, num_heads;         /* K/V heads */
    uint32_t group, rows;             /* query heads of a K/V head; rows of one K/V head */
    uint32_t first;                   /* the lowest position of a token */
    uint32_t dim_v;                   /* rounded up */
    size_t state_floats, query_bytes; /* of a row; of the rows of a K/V head */
};

/* The positions of one tile that any row sees, and where their rows are for K/V head 0. */
struct stretch {
    uint64_t base, all; /* all: by bits */
    uint32_t positions;
    const uint8_t **rows[4]; /* [K, V, their scales][64] */
};

/* The next tiles of a split that any row sees, as many as go into one call. */
struct batch {
    struct stretch tiles[QUIRE__TILES_AT_ONCE];
    uint32_t count;
};

/* So many rows that their states do not stay in the first-level cache. */
enum { ROWS_OF_BATCH = 32 };

static void reset_states(float *states, uint32_t rows, size_t floats)
{
    memset(states, 0, rows * floats * sizeof(float));
    for (uint32_t r = 0; r < rows; r++)
        states[r * floats + QUIRE__STATE_MAX] = -INFINITY;
}

/* ---- rows between the tiles of a split: their states have no heads meanwhile ---- */

static void begin_split(const struct work *w)
{
    for (uint32_t r = 0; r < w->num_heads * w->rows; r++) {
        w->scratch->max[r] = -INFINITY;
        w->scratch->sum[r] = 0;
    }
}

static void end_split(const struct work *w)
{
    for (uint32_t r = 0; r < w->num_heads * w->rows; r++) {
        float *state = w->scratch->state + r * w->state_floats;
        state[QUIRE__STATE_MAX] = w->scratch->max[r];
        state[QUIRE__STATE_SUM] = w->scratch->sum[r];
    }
}

static uint32_t last_position(const struct work *w)
{
    return w->tokens[w->rows / w->group - 1].position;
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

/* ---- rows of a tile ---- */

/* Where row `row` of K/V head 0 is in a page. */
static void find_row(const struct work *w, const struct stretch *s, uint32_t p, uint32_t block,
                     uint64_t row)
{
    for (int i = 0; i < 2; i++) {
        const struct quire__kv_plane *plane = &w->job->planes[i];
        const uint8_t *page = quire__kv_page(plane, block);
        s->rows[i][p] = page + quire__kv_data_at(plane, 0) + row * plane->data_bytes;
        if (plane->scale_bytes != 0)
            s->rows[2 + i][p] = page + quire__kv_scales_at(plane, 0) + row * plane->scale_bytes;
    }
}

/* Where the rows of K/V head 0 are. Positions that nobody sees get a row that somebody sees. */
static void find_pages(const struct work *w, const struct stretch *s)
{
    const struct quire_kv_spec *spec = &w->job->plan->spec;
    uint32_t per_page = spec->positions_per_page, seen = (uint32_t)__builtin_ctzll(s->all);
    uint32_t at = (uint32_t)s->base + seen, block = at / per_page, row = at % per_page;
    for (uint32_t p = seen; p < s->positions; p++) {
        if ((s->all >> p & 1) != 0)
            find_row(w, s, p, w->table[block], row);
        row++;
        block += row == per_page;
        row = row == per_page ? 0 : row;
    }
    for (uint64_t hidden = ~s->all; hidden != 0; hidden &= hidden - 1) {
        uint32_t p = (uint32_t)__builtin_ctzll(hidden);
        for (int i = 0; i < 4; i++)
            s->rows[i][p] = s->rows[i][seen];
    }
}

/* The rows of one K/V head, from those of head 0. */
static void find_rows(const struct work *w, const struct stretch *s, uint32_t head,
                      const uint8_t **const rows[4])
{
    for (int i = 0; i < 4; i++) {
        const struct quire__kv_plane *plane = &w->job->planes[i % 2];
        uint64_t offset = quire__kv_data_at(plane, head) - quire__kv_data_at(plane, 0);
        for (uint32_t p = 0; p < QUIRE__TILE && (i < 2 || plane->scale_bytes != 0); p++)
            rows[i][p] = s->rows[i][p] + offset;
    }
}

/* Whether every token sees all of a tile, as most do in a long prompt. */
static bool all_see(const struct work *w, uint64_t base)
{
    return w->job->class->window == 0 && base + QUIRE__TILE - 1 <= w->first;
}

static uint64_t visible_to(const struct work *w, uint64_t base, uint32_t token)
{
    uint32_t position = w->tokens[token].position;
    return base <= position ? visible(w->job->class, (uint32_t)base, position) : 0;
}

/* The tile at a base, with room for its rows. */
static struct stretch stretch_at(const struct work *w, uint64_t base, const uint8_t **const rows[4])
{
    struct stretch s = {.base = base, .rows = {rows[0], rows[1], rows[2], rows[3]}};
    if (all_see(w, base))
        s.all = UINT64_MAX;
    for (uint32_t i = 0; i < w->rows / w->group && s.all != UINT64_MAX; i++)
        s.all |= visible_to(w, base, i);
    if (s.all != 0) {
        s.positions = QUIRE__TILE - (uint32_t)__builtin_clzll(s.all);
        find_pages(w, &s);
    }
    return s;
}

/* The batch from *base on, which moves behind it. */
static struct batch next_batch(const struct work *w, uint64_t *base, uint64_t end, uint32_t turn)
{
    struct batch b = {.count = 0};
    uint32_t most = w->rows >= ROWS_OF_BATCH ? QUIRE__TILES_AT_ONCE : 1;
    for (; *base < end && b.count < most; *base += QUIRE__TILE) {
        b.tiles[b.count] = stretch_at(w, *base, w->scratch->pages[turn][b.count]);
        b.count += b.tiles[b.count].all != 0;
    }
    return b;
}

/* Fills the rows' masks for the i-th tile of a batch. */
static void mask_rows(const struct work *w, uint64_t base, uint32_t i)
{
    uint64_t *mask = w->scratch->mask + (size_t)i * w->rows;
    float *distance = w->scratch->distance + (size_t)i * w->rows;
    bool all = all_see(w, base), biased = w->job->slopes != NULL;
    if (all)
        memset(mask, 0xff, w->rows * sizeof *mask);
    for (uint32_t token = 0; token < w->rows / w->group && (!all || biased); token++) {
        uint64_t visible = all ? UINT64_MAX : visible_to(w, base, token);
        float from = (float)((int64_t)base - (int64_t)w->tokens[token].position);
        for (uint32_t j = 0; j < w->group; j++) {
            *mask++ = visible;
            *distance++ = from;
        }
    }
}

/* ---- tiles and splits ---- */

/* K (plane 0) or V of `rows`; none where that is NULL. */
static struct quire__rows rows_of(const struct work *w, int plane, const uint8_t **const *rows)
{
    const struct quire__kv_plane *of = &w->job->planes[plane];
    return (struct quire__rows){
        .data = rows != NULL ? rows[plane] : NULL,
        .scales = rows != NULL && of->scale_bytes != 0 ? rows[2 + plane] : NULL,
        .dtype = of->dtype,
        .dim = of->dim,
        .row_bytes = of->data_bytes,
    };
}

/* One K/V head at the i-th tile of a batch, but for its rows of K and V. */
static struct quire__tile tile_of(const struct work *w, const struct batch *b, uint32_t h,
                                  uint32_t i)
{
    struct quire__scratch *scratch = w->scratch;
    size_t first = (size_t)h * w->rows;
    return (struct quire__tile){
        .rows = w->rows,
        .positions = b->tiles[i].positions,
        .dim_v = w->dim_v,
        .q = (const uint8_t *)scratch->q + h * w->query_bytes,
        .mask = scratch->mask + (size_t)i * w->rows,
        .s = scratch->s,
        .max = scratch->max + first,
        .sum = scratch->sum + first,
        .state = scratch->state + first * w->state_floats,
        .scratch = scratch->tile,
        .softcap = w->job->softcap,
        .slope = w->job->slopes != NULL ? scratch->slope + first : NULL,
        .distance = scratch->distance + (size_t)i * w->rows,
    };
}

/* One K/V head of a batch, whose rows are [tiles][4]; `next`: what is wanted after them, or NULL.
 */
static void do_head(const struct work *w, const struct batch *b, uint32_t h, bool fresh,
                    const uint8_t **(*rows)[4], const uint8_t **const *next)
{
    struct quire__tile tiles[QUIRE__TILES_AT_ONCE];
    for (uint32_t i = 0; i < b->count; i++) {
        const uint8_t **const *then = i + 1 < b->count ? rows[i + 1] : next;
        tiles[i] = tile_of(w, b, h, i);
        tiles[i].fresh = fresh && i == 0;
        tiles[i].first = tiles[i].fresh && h == 0;
        tiles[i].k = rows_of(w, 0, rows[i]);
        tiles[i].v = rows_of(w, 1, rows[i]);
        tiles[i].k_next = rows_of(w, 0, then);
        tiles[i].v_next = rows_of(w, 1, then);
    }
    w->kernels->attend(tiles, b->count);
}

static void find_batch(const struct work *w, const struct batch *b, uint32_t head,
                       const uint8_t **(*rows)[4])
{
    for (uint32_t i = 0; i < b->count; i++)
        find_rows(w, &b->tiles[i], head, rows[i]);
}

/* The K/V heads of a batch in turn, while the rows of the next head, or of the next batch, are on
 * their way. */
static void do_batch(const struct work *w, const struct batch *b, const struct batch *next,
                     bool fresh)
{
    const uint8_t **(*rows)[QUIRE__TILES_AT_ONCE][4] = w->scratch->rows;
    find_batch(w, b, w->head, rows[0]);
    for (uint32_t h = 0; h < w->num_heads; h++) {
        bool more = h + 1 < w->num_heads;
        const struct batch *then = more ? b : next;
        find_batch(w, then, more ? w->head + h + 1 : w->head, rows[(h + 1) % 2]);
        do_head(w, b, h, fresh, rows[h % 2], then->count != 0 ? rows[(h + 1) % 2][0] : NULL);
    }
}

/* Runs the tiles of one split; false when no row sees any of it. */
static bool do_split(const struct work *w, uint32_t split)
{
    uint64_t base = (uint64_t)split * QUIRE__SPLIT, end = base + QUIRE__SPLIT;
    uint64_t last = last_position(w);
    end = end <= last ? end : last + 1;
    struct batch now = next_batch(w, &base, end, 0);
    bool seen = now.count != 0;
    begin_split(w);
    for (uint32_t i = 1; now.count != 0; i++) {
        struct batch next = next_batch(w, &base, end, i % 2);
        for (uint32_t j = 0; j < now.count; j++)
            mask_rows(w, now.tiles[j].base, j);
        do_batch(w, &now, &next, i == 1);
        now = next;
    }
    if (seen)
        end_split(w);
    return seen;
}

/* ---- units ---- */

static struct work work_of(const struct job *job, uint32_t token, uint32_t num_tokens,
                           uint32_t thread)
{
    const struct quire_plan *plan = job->plan;
    uint32_t group = job->layer->num_heads / job->layer->num_kv_heads;
    uint32_t dim_v = (uint32_t)quire__round_up(job->layer->head_dim_v, QUIRE__LANES_MAX);
    const struct quire__token *tokens = &plan->tokens[token];
    uint32_t first = tokens->position;
    for (uint32_t i = 1; i < num_tokens; i++)
        first = tokens[i].position < first ? tokens[i].position : first;
    return (struct work){
        .job = job,
        .kernels = plan->cpu->kernels,
        .scratch = &plan->scratch[thread],
        .tokens = tokens,
        .table = quire__plan_table(plan, job->layer->group, plan->parts[tokens->part].slot),
        .group = group,
        .rows = num_tokens * group,
        .first = first,
        .dim_v = dim_v,
        .state_floats = QUIRE__STATE_HEAD + dim_v,
        .query_bytes = quire__queries_bytes(num_tokens * group, job->layer->head_dim),
    };
}

/* The query head of a row of the h-th K/V head of the unit. */
static uint32_t query_head(const struct work *w, uint32_t h, uint32_t row)
{
    return (w->head + h) * w->group + row % w->group;
}

/* The query of a row, turned where K is stored so. */
static const float *query_of(const struct work *w, uint32_t head, uint32_t row)
{
    const float *q = quire__span_row(&w->job->q, w->tokens[row / w->group].row, head);
    const struct quire__kv_plane *k = &w->job->planes[0];
    if (!k->rotated)
        return q;
    float *turned = w->scratch->turned + (size_t)row * k->dim;
    w->kernels->rotate(turned, q, k->dim);
    return turned;
}

static void take_queries(const struct work *w)
{
    const struct job *job = w->job;
    const float **rows = w->scratch->q_rows;
    for (uint32_t h = 0; h < w->num_heads; h++) {
        for (uint32_t r = 0; r < w->rows; r++) {
            uint32_t head = query_head(w, h, r);
            rows[r] = query_of(w, head, r);
            if (job->slopes != NULL)
                w->scratch->slope[h * w->rows + r] = job->slopes[head];
        }
        w->kernels->queries((uint8_t *)w->scratch->q + h * w->query_bytes, rows, w->rows,
                            job->layer->head_dim, job->scale);
    }
}

static void finish_row(const struct work *w, uint32_t h, uint32_t row, const float *total)
{
    const struct job *job = w->job;
    uint32_t head = query_head(w, h, row), token = w->tokens[row / w->group].row;
    float *lse = job->has_lse ? quire__span_row(&job->lse, token, 0) : NULL;
    if (lse != NULL)
        lse = job->lse.shape[1] == 1 ? lse + head : quire__span_row(&job->lse, token, head);
    const float *sink = job->sink_logits != NULL ? &job->sink_logits[head] : NULL;
    float *out = quire__span_row(&job->out, token, head);
    w->kernels->finish(out, lse, total, sink, job->layer->head_dim_v);
    if (job->planes[1].rotated)
        w->kernels->rotate(out, out, job->layer->head_dim_v);
}

static float *slot_of(const struct work *w, uint32_t h, uint32_t row, uint32_t index)
{
    const struct quire_plan *plan = w->job->plan;
    uint64_t token = (uint64_t)(w->tokens - plan->tokens) + row / w->group;
    uint64_t slot = w->job->class->first_slot[token] + (uint64_t)index * w->job->layer->num_heads +
                    query_head(w, h, row);
    return quire__plan_slot(plan, slot);
}

/* One split more in the totals; false when no row sees any of it. */
static bool add_split(const struct work *w, uint32_t split)
{
    if (!do_split(w, split))
        return false;
    for (uint32_t i = 0; i < w->num_heads * w->rows; i++)
        w->kernels->merge(w->scratch->total + i * w->state_floats,
                          w->scratch->state + i * w->state_floats, w->dim_v);
    return true;
}

/* A total of several splits from the first on is a state too: merging it first has the bits of
 * merging each of them in order. */
static void do_some_splits(const struct work *w, const struct quire__unit *unit)
{
    uint32_t rows = w->num_heads * w->rows;
    const float *states = unit->num_splits == 1 ? w->scratch->state : w->scratch->total;
    bool seen = true; /* the plan makes no unit for a split that nobody sees */
    if (unit->num_splits == 1)
        seen = do_split(w, unit->split);
    else
        reset_states(w->scratch->total, rows, w->state_floats);
    for (uint32_t i = 0; i < unit->num_splits && unit->num_splits > 1; i++)
        seen = add_split(w, unit->split + i) && seen;
    QUIRE_CHECK(seen);
    for (uint32_t i = 0; i < rows; i++)
        memcpy(slot_of(w, i / w->rows, i % w->rows, unit->index), states + i * w->state_floats,
               w->state_floats * sizeof(float));
}

static void do_all_splits(const struct work *w)
{
    uint32_t rows = w->num_heads * w->rows;
    struct quire__splits splits =
        quire__splits_of(w->job->class, w->tokens[0].position, last_position(w));
    reset_states(w->scratch->total, rows, w->state_floats);
    for (uint32_t split = 0; split < splits.end; split++) {
        if (split >= splits.sinks_end && split < splits.first)
            split = splits.first;
        (void)add_split(w, split);
    }
    for (uint32_t i = 0; i < rows; i++)
        finish_row(w, i / w->rows, i % w->rows, w->scratch->total + i * w->state_floats);
}

static void attend_unit(void *argument, uint32_t index, uint32_t thread)
{
    const struct job *job = argument;
    const struct quire__unit *unit = &job->class->units[index];
    struct work w = work_of(job, unit->token, unit->num_tokens, thread);
    w.head = unit->head;
    w.num_heads = unit->num_heads;
    take_queries(&w);
    if (unit->split == QUIRE__ALL_SPLITS)
        do_all_splits(&w);
    else
        do_some_splits(&w, unit);
}

static void merge_unit(void *argument, uint32_t index, uint32_t thread)
{
    const struct job *job = argument;
    const struct quire__merge *merge = &job->class->merges[index];
    struct work w = work_of(job, merge->token, merge->num_tokens, thread);
    float *total = w.scratch->total;
    w.head = merge->head;
    w.num_heads = merge->num_heads;
    for (uint32_t i = 0; i < w.num_heads * w.rows; i++) {
        reset_states(total, 1, w.state_floats);
        for (uint32_t s = 0; s < merge->num_slots; s++)
            w.kernels->merge(total, slot_of(&w, i / w.rows, i % w.rows, s), w.dim_v);
        finish_row(&w, i / w.rows, i % w.rows, total);
    }
}

/* lse is f32 {T, 1, H}. */
static bool take_lse(const struct quire_backend *backend, const struct quire_view *view,
                     struct job *job)
{
    job->has_lse = view->buffer != NULL || view->host != NULL;
    if (!job->has_lse)
        return true;
    return quire__span_of(backend, view, QUIRE_F32, &job->lse) &&
           quire__span_is(&job->lse, job->plan->num_rows, 1, job->layer->num_heads);
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
        .planes = {quire__kv_plane(&plan->spec, layer, true),
                   quire__kv_plane(&plan->spec, layer, false)},
    };
    if (!quire__span_of(backend, q, QUIRE_F32, &job.q) ||
        !quire__span_of(backend, out, QUIRE_F32, &job.out) ||
        !quire__span_is(&job.q, plan->num_rows, layer->num_heads, layer->head_dim) ||
        !quire__span_is(&job.out, plan->num_rows, layer->num_heads, layer->head_dim_v) ||
        !take_lse(backend, &params->lse, &job))
        return QUIRE_E_INVAL;
    quire__threads_run(plan->cpu->threads, attend_unit, &job, class->num_units);
    if (class->num_merges != 0 && class->num_slots * plan->slot_floats < INLINE_FLOATS)
        quire__threads_run(plan->cpu->threads, merge_all, &job, 1);
    else
        quire__threads_run(plan->cpu->threads, merge_unit, &job, class->num_merges);
    return QUIRE_OK;
}
