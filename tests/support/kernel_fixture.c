/* kernel_fixture.c - levels, guarded memory and an f64 attention for the tests of the CPU backend.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernel_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- levels ---- */

/* Beside ref, the level that QUIRE_TEST_LEVEL names. */
static const struct quire__kernels *only_level(uint32_t i, const char *name)
{
    const struct quire__kernels *kernels = NULL;
    if (i > 1)
        return NULL;
    for (uint32_t j = i; (kernels = quire__kernels_at(j)) != NULL; j++) {
        if (i == 0 || strcmp(kernels->level, name) == 0)
            return kernels;
    }
    fail_msg("QUIRE_TEST_LEVEL is \"%s\", which this processor cannot run", name);
    return NULL;
}

/* The levels of the processor, without the emulated ones. */
static uint32_t own_levels(void)
{
    const struct quire__kernels *kernels;
    uint32_t own = 0;
    for (uint32_t i = 0; (kernels = quire__kernels_at(i)) != NULL; i++)
        own += strstr(kernels->level, "_emulated") == NULL;
    return own;
}

const struct quire__kernels *kt_level(uint32_t i)
{
    static bool said;
    const char *only = getenv("QUIRE_TEST_LEVEL");
    if (only != NULL)
        return only_level(i, only);
    const struct quire__kernels *kernels = quire__kernels_at(i);
    if (kernels == NULL && !said && own_levels() < QUIRE__NUM_LEVELS) {
        said = true;
        print_message("[  NOTE    ] this processor runs %u of %d levels; the others are skipped\n",
                      own_levels(), QUIRE__NUM_LEVELS);
    }
    return kernels;
}

struct quire_backend *kt_backend(const char *level, uint32_t num_threads)
{
    struct quire_backend_config config;
    struct quire_backend *backend = NULL;
    quire_backend_config_init(&config);
    config.cpu_level = level;
    config.num_threads = num_threads;
    assert_int_equal(quire_backend_create("cpu", &config, &backend, NULL), QUIRE_OK);
    return backend;
}

/* ---- guarded memory ---- */

struct kt_guard kt_guard_new(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inner = (bytes + page - 1) / page * page;
    struct kt_guard guard = {.map_bytes = inner + 2 * page};
    guard.map = mmap(NULL, guard.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(guard.map != MAP_FAILED);
    uint8_t *first = (uint8_t *)guard.map + page;
    if (inner != 0) {
        assert_int_equal(mprotect(first, inner, PROT_READ | PROT_WRITE), 0);
        memset(first, 0xff, inner);
    }
    guard.data = first + (inner - bytes);
    return guard;
}

void kt_guard_free(struct kt_guard *guard)
{
    assert_int_equal(munmap(guard->map, guard->map_bytes), 0);
}

float *kt_floats(struct kt_guard *guard, struct qt_random *random, size_t n, float size)
{
    *guard = kt_guard_new(n * sizeof(float));
    float *data = guard->data;
    for (size_t i = 0; i < n; i++)
        data[i] = size * qt_unit(qt_next(random));
    return data;
}

/* ---- content ---- */

enum plane { PLANE_Q, PLANE_K, PLANE_V };

static float element(const struct kt_cache *cache, enum plane plane, uint32_t slot,
                     uint32_t position, uint32_t i)
{
    uint64_t key = cache->seed * 31 + (uint64_t)plane;
    key = key * 1000003 + slot;
    key = key * 1000003 + position;
    float x = qt_unit(qt_mix(key * 1000003 + i));
    if (plane == PLANE_V)
        return x;
    return plane == PLANE_K && position == cache->spike ? 40.0f * cache->size * x : cache->size * x;
}

static void fill_rows(const struct kt_cache *cache, enum plane plane, const struct kt_part *part,
                      uint32_t count, float *rows)
{
    for (uint32_t t = 0; t < part->n_new; t++) {
        for (uint32_t i = 0; i < count; i++)
            rows[(size_t)t * count + i] = element(cache, plane, part->slot, part->len + t, i);
    }
}

/* ---- the cache ---- */

static void shuffle(uint32_t *pages, uint32_t n, uint64_t seed)
{
    struct qt_random random = {seed};
    for (uint32_t i = 0; i < n; i++)
        pages[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = qt_below(&random, i), page = pages[i - 1];
        pages[i - 1] = pages[j];
        pages[j] = page;
    }
}

static void make_plan(struct kt_cache *cache, uint64_t page_bytes, uint32_t per_page)
{
    const struct quire_memory_ops *memory = cache->backend->memory;
    uint64_t entries = (uint64_t)KT_SLOTS * cache->blocks;
    cache->arena_memory = kt_guard_new(page_bytes * cache->num_pages);
    assert_int_equal(memory->buffer_wrap(cache->backend, cache->arena_memory.data,
                                         page_bytes * cache->num_pages, &cache->arena),
                     QUIRE_OK);
    assert_int_equal(
        memory->buffer_create(cache->backend, (entries + KT_SLOTS) * 4, 0, &cache->tables),
        QUIRE_OK);
    struct quire_upload upload = {0, entries * 4, cache->table};
    assert_int_equal(memory->upload(cache->backend, cache->tables, &upload, 1), QUIRE_OK);
    struct quire_kv_spec spec = {
        .num_layers = 1,
        .layers = &cache->layer,
        .num_groups = 1,
        .positions_per_page = per_page,
        .page_bytes = page_bytes,
        .num_pages = cache->num_pages,
        .max_seqs = KT_SLOTS,
        .max_blocks = cache->blocks,
        .max_step_tokens = cache->capacity * KT_SLOTS,
        .arena = cache->arena,
        .tables = cache->tables,
        .lens_offset = entries * 4,
    };
    assert_int_equal(cache->backend->kv->plan_create(cache->backend, &spec, &cache->plan),
                     QUIRE_OK);
}

static uint64_t row_bytes(uint32_t dtype, uint32_t dim)
{
    return quire_kv_data_bytes(dtype, dim) + quire_kv_scale_bytes(dtype, dim);
}

static bool is_turned(const struct kt_shape *shape, enum plane plane)
{
    uint32_t dtype = plane == PLANE_K ? shape->dtype_k : shape->dtype_v;
    return shape->rotated && (dtype == QUIRE_Q8 || dtype == QUIRE_Q4);
}

void kt_cache_open(struct kt_cache *cache, struct quire_backend *backend,
                   const struct kt_shape *shape, uint32_t capacity, uint64_t seed)
{
    *cache = (struct kt_cache){.backend = backend,
                               .shape = *shape,
                               .capacity = capacity,
                               .seed = seed,
                               .size = 2.0f,
                               .spike = UINT32_MAX,
                               .check_stride = 1};
    uint32_t per_page = shape->block != 0 ? shape->block : capacity;
    cache->blocks = (capacity + per_page - 1) / per_page;
    cache->num_pages = KT_SLOTS * cache->blocks;
    cache->table = qt_alloc(sizeof(uint32_t) * cache->num_pages);
    shuffle(cache->table, cache->num_pages, seed + 1);
    uint64_t rows = (uint64_t)shape->num_kv_heads * per_page;
    uint64_t k_bytes = rows * row_bytes(shape->dtype_k, shape->dim);
    uint64_t v_bytes = rows * row_bytes(shape->dtype_v, shape->dim_v);
    uint64_t v_offset = (k_bytes + 3) / 4 * 4;
    cache->layer = (struct quire_kv_layer){
        .num_heads = shape->num_heads,
        .num_kv_heads = shape->num_kv_heads,
        .head_dim = shape->dim,
        .head_dim_v = shape->dim_v,
        .window = shape->window,
        .sink_positions = shape->sinks,
        .dtype_k = shape->dtype_k,
        .dtype_v = shape->dtype_v,
        .rotated_k = is_turned(shape, PLANE_K),
        .rotated_v = is_turned(shape, PLANE_V),
        .v_offset = v_offset,
    };
    make_plan(cache, (v_offset + v_bytes + 3) / 4 * 4, per_page);
}

void kt_cache_close(struct kt_cache *cache)
{
    cache->backend->kv->plan_destroy(cache->backend, cache->plan);
    cache->backend->memory->buffer_destroy(cache->backend, cache->arena);
    cache->backend->memory->buffer_destroy(cache->backend, cache->tables);
    kt_guard_free(&cache->arena_memory);
    qt_free(cache->table);
}

static uint32_t count_tokens(const struct kt_part *parts, uint32_t num_parts)
{
    uint32_t tokens = 0;
    for (uint32_t i = 0; i < num_parts; i++)
        tokens += parts[i].n_new;
    return tokens;
}

static void build(struct kt_cache *cache, const struct kt_part *parts, uint32_t num_parts)
{
    struct quire_step_part steps[KT_SLOTS];
    uint32_t row = 0;
    for (uint32_t i = 0; i < num_parts; i++) {
        steps[i] = (struct quire_step_part){parts[i].slot, parts[i].len, parts[i].n_new, row};
        row += parts[i].n_new;
    }
    struct quire_step_desc desc = {num_parts, row, steps};
    assert_int_equal(cache->backend->kv->plan_build(cache->backend, cache->plan, &desc), QUIRE_OK);
}

/* The rows of all parts, dense, in memory with guards. */
static struct kt_guard gather(const struct kt_cache *cache, enum plane plane, uint32_t count,
                              const struct kt_part *parts, uint32_t num_parts)
{
    struct kt_guard guard =
        kt_guard_new((size_t)count_tokens(parts, num_parts) * count * sizeof(float));
    float *rows = guard.data;
    for (uint32_t i = 0; i < num_parts; i++) {
        fill_rows(cache, plane, &parts[i], count, rows);
        rows += (size_t)parts[i].n_new * count;
    }
    return guard;
}

static void write_rows(struct kt_cache *cache, const struct kt_part *parts, uint32_t num_parts)
{
    const struct kt_shape *s = &cache->shape;
    uint32_t tokens = count_tokens(parts, num_parts);
    struct kt_guard k = gather(cache, PLANE_K, s->num_kv_heads * s->dim, parts, num_parts);
    struct kt_guard v = gather(cache, PLANE_V, s->num_kv_heads * s->dim_v, parts, num_parts);
    struct quire_view k_view = quire_view_host(k.data, QUIRE_F32, tokens, s->num_kv_heads, s->dim);
    struct quire_view v_view =
        quire_view_host(v.data, QUIRE_F32, tokens, s->num_kv_heads, s->dim_v);
    assert_int_equal(cache->backend->kv->write(cache->backend, cache->plan, 0, &k_view, &v_view),
                     QUIRE_OK);
    kt_guard_free(&k);
    kt_guard_free(&v);
}

static float slope_of(uint32_t head)
{
    return ldexpf(1.0f, -(int)(head % 8 + 1));
}

static float sink_of(uint32_t head)
{
    return 0.75f * (float)(head % 5) - 1.0f;
}

static void attend_rows(struct kt_cache *cache, const struct kt_part *parts, uint32_t num_parts,
                        const struct kt_params *how, float *out, float *lse)
{
    const struct kt_shape *s = &cache->shape;
    uint32_t tokens = count_tokens(parts, num_parts);
    struct kt_guard q = gather(cache, PLANE_Q, s->num_heads * s->dim, parts, num_parts);
    struct kt_guard o = kt_guard_new((size_t)tokens * s->num_heads * s->dim_v * sizeof(float));
    struct kt_guard l = kt_guard_new((size_t)tokens * s->num_heads * sizeof(float));
    float *slopes = qt_alloc(s->num_heads * sizeof(float));
    float *sinks = qt_alloc(s->num_heads * sizeof(float));
    for (uint32_t h = 0; h < s->num_heads; h++) {
        slopes[h] = slope_of(h);
        sinks[h] = sink_of(h);
    }
    struct quire_attend_params params;
    quire_attend_params_init(&params);
    params.scale = how->scale;
    params.softcap = how->softcap;
    params.alibi_slopes = how->alibi ? slopes : NULL;
    params.sink_logits = how->sink_logits ? sinks : NULL;
    if (lse != NULL)
        params.lse = quire_view_host(l.data, QUIRE_F32, tokens, 1, s->num_heads);
    struct quire_view q_view = quire_view_host(q.data, QUIRE_F32, tokens, s->num_heads, s->dim);
    struct quire_view o_view = quire_view_host(o.data, QUIRE_F32, tokens, s->num_heads, s->dim_v);
    assert_int_equal(
        cache->backend->kv->attend(cache->backend, cache->plan, 0, &q_view, &o_view, &params),
        QUIRE_OK);
    memcpy(out, o.data, (size_t)tokens * s->num_heads * s->dim_v * sizeof(float));
    if (lse != NULL)
        memcpy(lse, l.data, (size_t)tokens * s->num_heads * sizeof(float));
    qt_free(slopes);
    qt_free(sinks);
    kt_guard_free(&q);
    kt_guard_free(&o);
    kt_guard_free(&l);
}

void kt_cache_fill(struct kt_cache *cache, uint32_t slot, uint32_t len)
{
    if (len == 0)
        return;
    struct kt_part part = {slot, 0, len};
    build(cache, &part, 1);
    write_rows(cache, &part, 1);
}

void kt_cache_step(struct kt_cache *cache, const struct kt_part *parts, uint32_t num_parts,
                   const struct kt_params *params, float *out, float *lse)
{
    build(cache, parts, num_parts);
    write_rows(cache, parts, num_parts);
    attend_rows(cache, parts, num_parts, params, out, lse);
}

void kt_cache_attend(struct kt_cache *cache, const struct kt_part *parts, uint32_t num_parts,
                     const struct kt_params *params, float *out, float *lse)
{
    build(cache, parts, num_parts);
    attend_rows(cache, parts, num_parts, params, out, lse);
}

/* ---- the oracle ----
 *
 * out = sum p_i v_i / sum p_i with p_i = exp(s_i - m). To first order, with u = 2^-24:
 * - s_i: a sum of D products, scaled: off by scale (D + 3) u sum |q_d k_d|; with softcap that plus
 *   10 u cap (exp, two sums, two quotients and a product of numbers within the cap); with ALiBi
 *   plus 2 u |slope distance|; rounding of s itself u |s| for each of the two.
 * - s_i - m: off by u |s_i - m|; exp by 2 units of the last place, 4 u.
 * - each tile and split multiplies what came before by a factor with relative error 6 u at most.
 * The relative error of p_i is then at most e_i = sum of these, and the sums of N terms add N u.
 * So |out - exact| <= sum p_i (e_i + N u) (|v_i| + |out|) / sum p_i, and the log of the sum is off
 * by sum p_i (e_i + N u) / sum p_i plus 4 u |lse|. 1.1 covers second-order terms, 1e-30 weights
 * below the smallest normal number, which count as 0.
 *
 * A level that multiplies in bfloat16 rounds both factors of every product, each by 2^-8 relative:
 * b = 2^-7 of sum |q_d k_d| and of sum p_i |v_i| more. Then e_i may be large: exp(e_i) - 1 takes
 * its place, and the quotient's denominator is less by as much. On tiles exp is off
 * by more (products.h).
 *
 * Where rows are stored turned, q is turned in f64 and the output turned back. The turn of n
 * elements x in f32 is off by turn_u(n) sum |x| / sqrt(n) (log2 n sums, a product, a factor), which
 * comes to each q_d, and on top of what the turned errors of the output add up to. */

struct oracle {
    double products; /* b, or 0 */
    const struct kt_cache *cache;
    const struct kt_params *how;
    uint32_t slot, position, head;
    double *s, *e; /* [position + 1]: logits and relative errors of the weights */
    double *k, *v; /* [position + 1][G][dim] as stored in the slot, turned where it is */
    double q[QUIRE__HEAD_DIM_MAX], q_off[QUIRE__HEAD_DIM_MAX]; /* of position and head */
};

static double turn_u(uint32_t n)
{
    return (log2(n) + 3) * KT_U;
}

/* x and the bounds of its errors, turned by the definition: docs/formats/kv.md. */
static void turn(double *x, double *off, uint32_t dim)
{
    uint32_t n = dim & (0u - dim);
    for (uint32_t first = 0; first < dim; first += n) {
        double turned[QUIRE__HEAD_DIM_MAX], size = 0, sum_off = 0, root = sqrt((double)n);
        for (uint32_t i = 0; i < n; i++) {
            turned[i] = 0;
            for (uint32_t j = 0; j < n; j++)
                turned[i] += __builtin_parity(i & j) != 0 ? -x[first + j] : x[first + j];
            size += fabs(x[first + i]);
            sum_off += off[first + i];
        }
        for (uint32_t i = 0; i < n; i++) {
            x[first + i] = turned[i] / root;
            off[first + i] = (sum_off + turn_u(n) * size) / root;
        }
    }
}

/* What a row of one head decodes to after it was stored: by ref, which the tests of the formats
 * hold against their definition. */
static void decode(uint32_t dtype, bool turned, const float *row, uint32_t dim, double *to)
{
    const struct quire__kernels *ref = quire__kernels_at(0);
    uint8_t data[QUIRE__HEAD_DIM_MAX], scales[QUIRE__HEAD_DIM_MAX];
    float values[QUIRE__HEAD_DIM_MAX];
    if (dtype != QUIRE_Q8 && dtype != QUIRE_Q4) {
        for (uint32_t d = 0; d < dim; d++) {
            float bytes;
            qt_store(dtype, row[d], &bytes);
            to[d] = qt_load(dtype, &bytes);
        }
        return;
    }
    memcpy(values, row, dim * sizeof *values);
    if (turned)
        ref->rotate_finite(values, row, dim);
    if (dtype == QUIRE_Q8) {
        ref->store_q8(data, scales, values, dim);
        ref->load_q8(values, data, scales, dim);
    } else {
        ref->store_q4(data, scales, values, dim);
        ref->load_q4(values, data, scales, dim);
    }
    for (uint32_t d = 0; d < dim; d++)
        to[d] = (double)values[d];
}

/* The rows of a slot below `end`. */
static void load_plane(const struct oracle *o, enum plane plane, uint32_t end, double *to)
{
    const struct kt_shape *s = &o->cache->shape;
    uint32_t dim = plane == PLANE_K ? s->dim : s->dim_v;
    uint32_t dtype = plane == PLANE_K ? s->dtype_k : s->dtype_v;
    for (uint32_t t = 0; t < end; t++) {
        for (uint32_t h = 0; h < s->num_kv_heads; h++, to += dim) {
            float row[QUIRE__HEAD_DIM_MAX];
            for (uint32_t d = 0; d < dim; d++)
                row[d] = element(o->cache, plane, o->slot, t, h * dim + d);
            decode(dtype, is_turned(s, plane), row, dim, to);
        }
    }
}

static void take_query(struct oracle *o)
{
    const struct kt_shape *s = &o->cache->shape;
    for (uint32_t d = 0; d < s->dim; d++) {
        o->q[d] = (double)element(o->cache, PLANE_Q, o->slot, o->position, o->head * s->dim + d);
        o->q_off[d] = 0;
    }
    if (is_turned(s, PLANE_K))
        turn(o->q, o->q_off, s->dim);
}

static bool sees(const struct kt_shape *s, uint32_t position, uint32_t t)
{
    return s->window == 0 || t < s->sinks || (uint64_t)t + s->window > position;
}

static void score(struct oracle *o, uint32_t t)
{
    const struct kt_shape *s = &o->cache->shape;
    uint32_t kv_head = o->head / (s->num_heads / s->num_kv_heads);
    double sum = 0, size = 0, off = 0;
    const double *k = o->k + ((size_t)t * s->num_kv_heads + kv_head) * s->dim;
    for (uint32_t d = 0; d < s->dim; d++) {
        sum += o->q[d] * k[d];
        size += fabs(o->q[d] * k[d]);
        off += o->q_off[d] * fabs(k[d]);
    }
    double scale = o->how->scale != 0.0f ? (double)o->how->scale : 1.0 / sqrt((double)s->dim);
    double value = sum * scale;
    double error = (size * ((s->dim + 3) * KT_U + o->products) + off) * fabs(scale);
    if (o->how->softcap != 0.0f) {
        double cap = (double)o->how->softcap;
        value = cap * tanh(value / cap);
        error += 10 * KT_U * cap;
    }
    if (o->how->alibi) {
        double bias = (double)slope_of(o->head) * ((double)t - (double)o->position);
        value += bias;
        error += 2 * KT_U * fabs(bias);
    }
    o->s[t] = value;
    o->e[t] = error + 2 * KT_U * fabs(value) + 4 * KT_U;
}

struct row_bound {
    double sum, weighted; /* sum p_i, sum p_i (e_i + N u) */
    double worst;         /* largest e_i + N u: no logit, and so no log of a sum, is off by more */
};

/* Turns logits into weights. Returns the largest logit. */
static double weigh(struct oracle *o, struct row_bound *bound)
{
    const struct kt_shape *s = &o->cache->shape;
    double max = o->how->sink_logits ? (double)sink_of(o->head) : -INFINITY;
    uint32_t merges = o->position / QUIRE__TILE + o->position / QUIRE__SPLIT + 4;
    double steps = merges;
    for (uint32_t t = 0; t <= o->position; t++) {
        if (sees(s, o->position, t)) {
            score(o, t);
            max = fmax(max, o->s[t]);
        }
    }
    *bound = (struct row_bound){0};
    if (o->how->sink_logits) {
        bound->sum = exp((double)sink_of(o->head) - max);
        bound->weighted = bound->sum * 10 * KT_U;
    }
    for (uint32_t t = 0; t <= o->position; t++) {
        if (!sees(s, o->position, t)) {
            o->s[t] = 0;
            continue;
        }
        o->e[t] += KT_U * fabs(o->s[t] - max) + 6 * KT_U * steps + (o->position + 1) * KT_U;
        o->e[t] += qt_weight_error(o->cache->backend->caps.arithmetic, max - o->s[t]);
        bound->worst = fmax(bound->worst, o->e[t]);
        o->e[t] = expm1(o->e[t]);
        o->s[t] = exp(o->s[t] - max);
        bound->sum += o->s[t];
        bound->weighted += o->s[t] * o->e[t];
    }
    return max;
}

static void fail_case(const struct oracle *o, const char *what, double got, double want,
                      double bound)
{
    const struct kt_shape *s = &o->cache->shape;
    fail_msg(
        "%s of slot %u position %u head %u is %.9g, not %.9g (bound %.3g): level %s, H %u G %u "
        "D %u Dv %u block %u dtypes %u %u window %u sinks %u, scale %g softcap %g alibi %d "
        "sink logits %d, seed %llu",
        what, o->slot, o->position, o->head, got, want, bound, o->cache->backend->caps.arithmetic,
        s->num_heads, s->num_kv_heads, s->dim, s->dim_v, s->block, s->dtype_k, s->dtype_v,
        s->window, s->sinks, (double)o->how->scale, (double)o->how->softcap, o->how->alibi,
        o->how->sink_logits, (unsigned long long)o->cache->seed);
}

/* The output before it is turned back, and the bounds of its errors. */
static void mix(const struct oracle *o, const struct row_bound *bound, double *want, double *limit)
{
    const struct kt_shape *s = &o->cache->shape;
    uint32_t kv_head = o->head / (s->num_heads / s->num_kv_heads);
    double least = fmax(bound->sum - bound->weighted, 0);
    for (uint32_t d = 0; d < s->dim_v; d++) {
        double sum = 0, error = 0, most = 0;
        for (uint32_t t = 0; t <= o->position; t++) {
            if (o->s[t] == 0)
                continue;
            double v = o->v[((size_t)t * s->num_kv_heads + kv_head) * s->dim_v + d];
            sum += o->s[t] * v;
            most = fmax(most, fabs(v));
            error += o->s[t] * (o->e[t] + o->products * (1 + o->e[t])) * fabs(v);
        }
        want[d] = sum / bound->sum;
        limit[d] = 1.1 * (error + bound->weighted * fabs(want[d])) / least + 1e-30;
        limit[d] = fmin(isnan(limit[d]) ? INFINITY : limit[d], 2.1 * most); /* an average */
    }
}

static void check_row(struct oracle *o, const float *out, const float *lse)
{
    const struct kt_shape *s = &o->cache->shape;
    struct row_bound bound;
    double out_want[QUIRE__HEAD_DIM_MAX], out_limit[QUIRE__HEAD_DIM_MAX];
    take_query(o);
    double max = weigh(o, &bound), least = fmax(bound.sum - bound.weighted, 0);
    mix(o, &bound, out_want, out_limit);
    if (is_turned(s, PLANE_V))
        turn(out_want, out_limit, s->dim_v);
    for (uint32_t d = 0; d < s->dim_v; d++) {
        if (!(fabs((double)out[d] - out_want[d]) <= out_limit[d]))
            fail_case(o, "out", (double)out[d], out_want[d], out_limit[d]);
    }
    if (lse != NULL) {
        double want = max + log(bound.sum);
        double mean = log1p(bound.weighted / least);
        mean = isnan(mean) ? bound.worst : fmin(mean, bound.worst);
        double limit = 1.1 * mean + 4 * KT_U * (fabs(want) + fabs(max) + 1);
        if (!(fabs((double)*lse - want) <= limit))
            fail_case(o, "lse", (double)*lse, want, limit);
    }
}

void kt_cache_check(const struct kt_cache *cache, const struct kt_part *parts, uint32_t num_parts,
                    const struct kt_params *params, const float *out, const float *lse)
{
    const struct kt_shape *s = &cache->shape;
    struct oracle o = {.products = qt_product_error(cache->backend->caps.arithmetic),
                       .cache = cache,
                       .how = params};
    o.s = qt_alloc(cache->capacity * sizeof(double));
    o.e = qt_alloc(cache->capacity * sizeof(double));
    o.k = qt_alloc((size_t)cache->capacity * s->num_kv_heads * s->dim * sizeof(double));
    o.v = qt_alloc((size_t)cache->capacity * s->num_kv_heads * s->dim_v * sizeof(double));
    uint32_t row = 0;
    for (uint32_t i = 0; i < num_parts; i++) {
        o.slot = parts[i].slot;
        load_plane(&o, PLANE_K, parts[i].len + parts[i].n_new, o.k);
        load_plane(&o, PLANE_V, parts[i].len + parts[i].n_new, o.v);
        for (uint32_t t = 0; t < parts[i].n_new; t++, row++) {
            if (t % cache->check_stride != 0 && t + 1 != parts[i].n_new)
                continue;
            o.position = parts[i].len + t;
            for (o.head = 0; o.head < s->num_heads; o.head++) {
                size_t at = (size_t)row * s->num_heads + o.head;
                check_row(&o, out + at * s->dim_v, lse != NULL ? lse + at : NULL);
            }
        }
    }
    qt_free(o.s);
    qt_free(o.e);
    qt_free(o.k);
    qt_free(o.v);
}
