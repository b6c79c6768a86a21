/* cache_fixture.c - pools on any backend, streams with known K and V, and batches over them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cache_fixture.h"

#include <string.h>

#include "attention_oracle.h"
#include "backend/cpu/kernels.h"

static const uint32_t plain_layers[] = {0, 1};
static const uint32_t full_layers[] = {0, 3};
static const uint32_t window_layers[] = {1, 2};
static const uint32_t sink_layers[] = {4};

const struct qt_geometry qt_plain = {
    "plain",
    2,
    1,
    {{plain_layers, 2, 4, 2, 8, 0, 0, 0}},
};
const struct qt_geometry qt_groups = {
    "groups",
    5,
    3,
    {{full_layers, 2, 6, 2, 12, 20, 0, 0},
     {window_layers, 2, 3, 3, 16, 8, 7, 0},
     {sink_layers, 1, 5, 1, 10, 0, 5, 3}},
};

/* The same with head dims that q8 and q4 have: whole and half units of nibbles, groups of 32 and
 * 16, blocks of rotation of 16 to 64. */
static const struct qt_geometry plain_16 = {
    "plain 16",
    2,
    1,
    {{plain_layers, 2, 4, 2, 64, 0, 0, 0}},
};
static const struct qt_geometry groups_16 = {
    "groups 16",
    5,
    3,
    {{full_layers, 2, 6, 2, 48, 32, 0, 0},
     {window_layers, 2, 3, 3, 16, 32, 7, 0},
     {sink_layers, 1, 5, 1, 80, 0, 5, 3}},
};

static bool is_quantised(uint32_t dtype)
{
    return dtype == QUIRE_Q8 || dtype == QUIRE_Q4;
}

const struct qt_geometry *qt_fit(const struct qt_variant *variant,
                                 const struct qt_geometry *geometry)
{
    if (!is_quantised(variant->dtype_k) && !is_quantised(variant->dtype_v))
        return geometry;
    return geometry == &qt_plain ? &plain_16 : geometry == &qt_groups ? &groups_16 : geometry;
}

const struct quire_group_config *qt_group_of(const struct qt_geometry *geometry, uint32_t layer)
{
    for (uint32_t g = 0; g < geometry->num_groups; g++) {
        for (uint32_t i = 0; i < geometry->groups[g].num_layers; i++) {
            if (geometry->groups[g].layers[i] == layer)
                return &geometry->groups[g];
        }
    }
    return NULL;
}

uint32_t qt_head_dim_v(const struct quire_group_config *group)
{
    return group->head_dim_v != 0 ? group->head_dim_v : group->head_dim;
}

uint32_t qt_row_elements(const struct qt_geometry *geometry, uint32_t layer, enum qt_plane plane)
{
    const struct quire_group_config *group = qt_group_of(geometry, layer);
    if (plane == QT_Q)
        return group->num_heads * group->head_dim;
    return group->num_kv_heads * (plane == QT_K ? group->head_dim : qt_head_dim_v(group));
}

uint32_t qt_head_bytes(uint32_t dtype, uint32_t dim)
{
    return quire_kv_data_bytes(dtype, dim) + quire_kv_scale_bytes(dtype, dim);
}

static uint32_t plane_dim(const struct qt_geometry *geometry, uint32_t layer, enum qt_plane plane)
{
    const struct quire_group_config *group = qt_group_of(geometry, layer);
    return plane == QT_V ? qt_head_dim_v(group) : group->head_dim;
}

uint32_t qt_row_bytes(const struct qt_env *env, uint32_t layer, enum qt_plane plane)
{
    uint32_t dtype = plane == QT_K ? env->config.dtype_k : env->config.dtype_v;
    uint32_t dim = plane_dim(env->geometry, layer, plane);
    return qt_row_elements(env->geometry, layer, plane) / dim * qt_head_bytes(dtype, dim);
}

bool qt_is_turned(const struct qt_env *env, enum qt_plane plane)
{
    uint32_t dtype = plane == QT_K ? env->config.dtype_k : env->config.dtype_v;
    if (env->config.kv_rotation == QUIRE_KV_ROTATION_AUTO)
        return dtype == QUIRE_Q4;
    return is_quantised(dtype) && env->config.kv_rotation == QUIRE_KV_ROTATION_HADAMARD;
}

/* A head's row as the formats' specification has it, or element by element. */
static void store_head(uint32_t dtype, bool turned, const float *row, uint32_t dim, uint8_t *bytes)
{
    const struct quire__kernels *ref = quire__kernels_at(0);
    float values[QUIRE__HEAD_DIM_MAX];
    uint8_t *scales = bytes + quire_kv_data_bytes(dtype, dim);
    for (uint32_t i = 0; i < dim && !is_quantised(dtype); i++)
        qt_store(dtype, row[i], bytes + i * quire_dtype_bytes(dtype));
    memcpy(values, row, dim * sizeof *values);
    if (turned)
        ref->rotate_finite(values, row, dim);
    if (dtype == QUIRE_Q8)
        ref->store_q8(bytes, scales, values, dim);
    if (dtype == QUIRE_Q4)
        ref->store_q4(bytes, scales, values, dim);
}

void qt_load_head(uint32_t dtype, const uint8_t *bytes, uint32_t dim, double *values)
{
    const struct quire__kernels *ref = quire__kernels_at(0);
    float loaded[QUIRE__HEAD_DIM_MAX];
    const uint8_t *scales = bytes + quire_kv_data_bytes(dtype, dim);
    if (dtype == QUIRE_Q8)
        ref->load_q8(loaded, bytes, scales, dim);
    if (dtype == QUIRE_Q4)
        ref->load_q4(loaded, bytes, scales, dim);
    for (uint32_t i = 0; i < dim; i++)
        values[i] = is_quantised(dtype) ? (double)loaded[i]
                                        : qt_load(dtype, bytes + i * quire_dtype_bytes(dtype));
}

void qt_row(uint64_t salt, uint32_t layer, enum qt_plane plane, float *row, uint32_t count)
{
    struct qt_random random = {qt_mix(salt * 64 + layer * 4 + plane)};
    for (uint32_t i = 0; i < count; i++)
        row[i] = qt_unit(qt_next(&random));
}

void qt_stored_row(const struct qt_env *env, uint64_t salt, uint32_t layer, enum qt_plane plane,
                   void *bytes)
{
    uint32_t dtype = plane == QT_K ? env->config.dtype_k : env->config.dtype_v;
    uint32_t count = qt_row_elements(env->geometry, layer, plane);
    uint32_t dim = plane_dim(env->geometry, layer, plane);
    float *row = qt_alloc(count * sizeof *row);
    qt_row(salt, layer, plane, row, count);
    for (uint32_t i = 0; i < count; i += dim)
        store_head(dtype, qt_is_turned(env, plane), row + i, dim,
                   (uint8_t *)bytes + (size_t)(i / dim) * qt_head_bytes(dtype, dim));
    qt_free(row);
}

/* ---- environments ---- */

struct quire_backend *qt_backend(const char *name, uint64_t seed)
{
    struct quire_backend *backend = NULL;
    if (strcmp(name, "opaque") == 0) {
        struct qt_opaque_options options = {.seed = seed};
        qt_assert_ok(qt_opaque_create(&options, &backend));
        return backend;
    }
    struct quire_backend_config config;
    struct quire_error error = {0};
    quire_backend_config_init(&config);
    config.num_threads = 2;
    if (quire_backend_create(name, &config, &backend, &error) != QUIRE_OK)
        fail_msg("backend %s: %s", name, error.message);
    return backend;
}

void qt_config(struct quire_pool_config *config, const struct qt_variant *variant,
               const struct qt_geometry *geometry)
{
    geometry = qt_fit(variant, geometry);
    quire_pool_config_init(config);
    config->groups = geometry->groups;
    config->num_groups = geometry->num_groups;
    config->layout = variant->layout;
    config->dtype_k = variant->dtype_k;
    config->dtype_v = variant->dtype_v;
    config->block_size = 4;
    config->max_seqs = 8;
    config->max_seq_len = 64;
    config->max_step_tokens = 48;
    config->num_blocks = 256;
}

static void make_scratch(struct qt_env *env)
{
    const struct qt_geometry *geometry = env->geometry;
    for (uint32_t layer = 0; layer < geometry->num_layers; layer++) {
        const struct quire_group_config *group = qt_group_of(geometry, layer);
        uint32_t row = 0;
        for (int plane = QT_K; plane <= QT_Q; plane++)
            row += qt_row_elements(geometry, layer, (enum qt_plane)plane);
        uint32_t out = group->num_heads * qt_head_dim_v(group);
        env->row_floats = row > env->row_floats ? row : env->row_floats;
        env->out_floats = out > env->out_floats ? out : env->out_floats;
        env->lse_floats = group->num_heads > env->lse_floats ? group->num_heads : env->lse_floats;
    }
    size_t rows = env->config.max_step_tokens;
    size_t inputs = rows * env->row_floats * sizeof(float);
    size_t out = rows * env->out_floats * sizeof(float);
    size_t lse = rows * env->lse_floats * sizeof(float);
    env->host_inputs = qt_alloc(inputs);
    env->host_out = qt_alloc(out);
    env->host_lse = qt_alloc(lse);
    if (env->has_kv) {
        const struct quire_memory_ops *memory = env->backend->memory;
        qt_assert_ok(memory->buffer_create(env->backend, inputs, 0, &env->inputs));
        qt_assert_ok(memory->buffer_create(env->backend, out, 0, &env->out));
        qt_assert_ok(memory->buffer_create(env->backend, lse, 0, &env->lse));
    }
}

void qt_open_config(struct qt_env *env, const struct qt_variant *variant,
                    const struct qt_geometry *geometry, const struct quire_pool_config *config)
{
    struct quire_error error = {0};
    *env = (struct qt_env){
        .variant = *variant, .geometry = qt_fit(variant, geometry), .config = *config};
    env->backend =
        config->backend != NULL ? config->backend : qt_backend(variant->backend, config->max_seqs);
    env->config.backend = env->backend;
    env->has_kv = (env->backend->caps.flags & QUIRE_CAP_KV) != 0;
    env->host_views = (env->backend->caps.flags & QUIRE_CAP_HOST_VIEWS) != 0;
    env->opaque = strcmp(env->backend->name, "opaque") == 0;
    if (quire_pool_create(&env->config, &env->pool, &error) != QUIRE_OK)
        fail_msg("pool: %s", error.message);
    make_scratch(env);
}

void qt_open(struct qt_env *env, const struct qt_variant *variant,
             const struct qt_geometry *geometry)
{
    struct quire_pool_config config;
    qt_config(&config, variant, geometry);
    qt_open_config(env, variant, geometry, &config);
}

void qt_assert_pool_ok(struct qt_env *env)
{
    struct quire_error error = {0};
    if (quire_pool_check(env->pool, &error) != QUIRE_OK)
        fail_msg("quire_pool_check: %s", error.message);
    if (env->opaque && qt_opaque_violation(env->backend) != NULL)
        fail_msg("backend: %s", qt_opaque_violation(env->backend));
}

void qt_close(struct qt_env *env)
{
    const struct quire_memory_ops *memory = env->backend->memory;
    qt_assert_pool_ok(env);
    quire_pool_destroy(env->pool);
    if (env->has_kv) {
        memory->buffer_destroy(env->backend, env->inputs);
        memory->buffer_destroy(env->backend, env->out);
        memory->buffer_destroy(env->backend, env->lse);
    }
    if (env->opaque) {
        assert_int_equal(qt_opaque_live_objects(env->backend), 0);
        if (qt_opaque_violation(env->backend) != NULL)
            fail_msg("backend: %s", qt_opaque_violation(env->backend));
    }
    quire_backend_destroy(env->backend);
    qt_free(env->host_inputs);
    qt_free(env->host_out);
    qt_free(env->host_lse);
}

void qt_wait(struct qt_env *env)
{
    quire_fence fence = 0;
    if (env->has_kv) {
        qt_assert_ok(env->backend->memory->fence_record(env->backend, &fence));
        qt_assert_ok(env->backend->memory->fence_wait(env->backend, fence));
    }
}

/* ---- streams ---- */

void qt_stream_open(struct qt_env *env, struct qt_stream *stream, uint64_t key)
{
    *stream = (struct qt_stream){.key = key};
    stream->salts = qt_alloc(env->config.max_seq_len * sizeof *stream->salts);
    qt_assert_ok(quire_seq_create(env->pool, NULL, &stream->seq));
}

void qt_stream_free(struct qt_stream *stream)
{
    qt_free(stream->salts);
    stream->salts = NULL;
}

void qt_stream_close(struct qt_env *env, struct qt_stream *stream)
{
    qt_assert_ok(quire_seq_destroy(env->pool, stream->seq));
    qt_stream_free(stream);
}

void qt_stream_truncate(struct qt_env *env, struct qt_stream *stream, uint32_t len)
{
    qt_assert_ok(quire_seq_truncate(env->pool, stream->seq, len, NULL));
    stream->len = len;
    stream->epoch++;
}

static void check_layer(struct qt_env *env, const struct qt_stream *stream, uint32_t layer)
{
    size_t k_bytes = qt_row_bytes(env, layer, QT_K), v_bytes = qt_row_bytes(env, layer, QT_V);
    uint8_t *k = qt_alloc(k_bytes * stream->len), *v = qt_alloc(v_bytes * stream->len);
    uint8_t *want_k = qt_alloc(k_bytes), *want_v = qt_alloc(v_bytes);
    struct quire_rows rows = {layer, 0, stream->len};
    qt_assert_ok(quire_seq_read(env->pool, stream->seq, &rows, k, v));
    for (uint32_t t = 0; t < stream->len; t++) {
        qt_stored_row(env, stream->salts[t], layer, QT_K, want_k);
        qt_stored_row(env, stream->salts[t], layer, QT_V, want_v);
        if (memcmp(k + t * k_bytes, want_k, k_bytes) != 0 ||
            memcmp(v + t * v_bytes, want_v, v_bytes) != 0)
            fail_msg("layer %u, position %u of %u: other bytes than were written", layer, t,
                     stream->len);
    }
    qt_free(k);
    qt_free(v);
    qt_free(want_k);
    qt_free(want_v);
}

void qt_stream_check(struct qt_env *env, const struct qt_stream *stream)
{
    uint32_t len = 0;
    qt_assert_ok(quire_seq_length(env->pool, stream->seq, &len));
    assert_int_equal(len, stream->len);
    for (uint32_t layer = 0; env->has_kv && layer < env->geometry->num_layers; layer++)
        check_layer(env, stream, layer);
}

/* ---- batches ---- */

void qt_batch_add(struct qt_batch *batch, struct qt_stream *stream, uint32_t n_new,
                  const uint32_t *tokens)
{
    uint32_t i = batch->num_items++;
    assert_true(i < QT_ITEMS_MAX);
    for (uint32_t j = 0; j < n_new; j++)
        stream->salts[stream->len + j] =
            qt_mix(stream->key << 40 ^ (uint64_t)stream->epoch << 20 ^ (stream->len + j));
    batch->streams[i] = stream;
    batch->items[i] = (struct quire_step_item){stream->seq, n_new, tokens};
    batch->num_tokens += n_new;
}

quire_status qt_batch_begin(struct qt_env *env, struct qt_batch *batch)
{
    return quire_step_begin(env->pool, batch->items, batch->num_items, &batch->step,
                            &batch->missing);
}

/* A strided view of q, k or v inside the rows of `inputs`: [T, heads, dim]. Odd layers use host
 * memory where the backend takes it. */
static struct quire_view input_view(struct qt_env *env, const struct qt_batch *batch,
                                    uint32_t layer, enum qt_plane plane)
{
    const struct quire_group_config *group = qt_group_of(env->geometry, layer);
    uint32_t heads = plane == QT_Q ? group->num_heads : group->num_kv_heads;
    uint32_t dim = plane == QT_V ? qt_head_dim_v(group) : group->head_dim;
    uint32_t first = 0;
    for (int before = QT_K; before < (int)plane; before++)
        first += qt_row_elements(env->geometry, layer, (enum qt_plane)before);
    struct quire_view view = quire_view_buffer(env->inputs, first * sizeof(float), QUIRE_F32,
                                               batch->num_tokens, heads, dim);
    view.stride[0] = env->row_floats;
    if (env->host_views && layer % 2 == 1) {
        view.buffer = NULL;
        view.host = env->host_inputs;
    }
    return view;
}

/* Puts k, v and q of the batch into host_inputs, and on the device where they are read there. */
static quire_status send_inputs(struct qt_env *env, const struct qt_batch *batch, uint32_t layer)
{
    float *row = env->host_inputs;
    for (uint32_t i = 0; i < batch->num_items; i++) {
        const struct qt_stream *stream = batch->streams[i];
        for (uint32_t j = 0; j < batch->items[i].n_new; j++, row += env->row_floats) {
            float *at = row;
            for (int plane = QT_K; plane <= QT_Q; plane++) {
                uint32_t count = qt_row_elements(env->geometry, layer, (enum qt_plane)plane);
                qt_row(stream->salts[stream->len + j], layer, (enum qt_plane)plane, at, count);
                at += count;
            }
        }
    }
    if (env->host_views && layer % 2 == 1)
        return QUIRE_OK;
    struct quire_upload upload = {0, (uint64_t)batch->num_tokens * env->row_floats * sizeof(float),
                                  env->host_inputs};
    return env->backend->memory->upload(env->backend, env->inputs, &upload, 1);
}

quire_status qt_batch_write(struct qt_env *env, const struct qt_batch *batch, uint32_t layer)
{
    struct quire_view k = input_view(env, batch, layer, QT_K);
    struct quire_view v = input_view(env, batch, layer, QT_V);
    quire_status status = send_inputs(env, batch, layer);
    if (status == QUIRE_OK)
        status = quire_step_write(env->pool, batch->step, layer, &k, &v);
    if (status == QUIRE_OK && env->host_views) /* the host rows are filled again for the next */
        qt_wait(env);
    return status;
}

quire_status qt_batch_attend(struct qt_env *env, const struct qt_batch *batch, uint32_t layer,
                             const struct qt_attend *how)
{
    const struct quire_memory_ops *memory = env->backend->memory;
    const struct quire_group_config *group = qt_group_of(env->geometry, layer);
    uint32_t heads = group->num_heads, dim = qt_head_dim_v(group), rows = batch->num_tokens;
    float slopes[64], sinks[64];
    struct quire_attend_params params;
    quire_attend_params_init(&params);
    params.scale = how->scale;
    params.softcap = how->softcap;
    for (uint32_t h = 0; h < heads; h++) {
        slopes[h] = qt_alibi_slope(h);
        sinks[h] = qt_sink_logit(h);
    }
    params.alibi_slopes = how->alibi ? slopes : NULL;
    params.sink_logits = how->sink_logits ? sinks : NULL;
    if (how->lse)
        params.lse = quire_view_buffer(env->lse, 0, QUIRE_F32, rows, 1, heads);
    struct quire_view q = input_view(env, batch, layer, QT_Q);
    struct quire_view out = quire_view_buffer(env->out, 0, QUIRE_F32, rows, heads, dim);
    quire_status status = send_inputs(env, batch, layer);
    if (status == QUIRE_OK)
        status = quire_step_attend(env->pool, batch->step, layer, &q, &out, &params);
    memset(slopes, 0xff, sizeof slopes); /* params were read before the call returned */
    memset(sinks, 0xff, sizeof sinks);
    if (status == QUIRE_OK)
        status = memory->download(env->backend, env->out, 0,
                                  (uint64_t)rows * heads * dim * sizeof(float), env->host_out);
    if (status == QUIRE_OK && how->lse)
        status = memory->download(env->backend, env->lse, 0, (uint64_t)rows * heads * sizeof(float),
                                  env->host_lse);
    quire_fence fence = 0;
    if (status == QUIRE_OK)
        status = memory->fence_record(env->backend, &fence);
    return status == QUIRE_OK ? memory->fence_wait(env->backend, fence) : status;
}

quire_status qt_batch_commit(struct qt_env *env, struct qt_batch *batch, const uint32_t *n_keep)
{
    quire_status status = quire_step_commit(env->pool, batch->step, n_keep);
    for (uint32_t i = 0; status == QUIRE_OK && i < batch->num_items; i++) {
        batch->streams[i]->len += n_keep != NULL ? n_keep[i] : batch->items[i].n_new;
        batch->streams[i]->epoch++;
    }
    return status;
}

quire_status qt_batch_abort(struct qt_env *env, struct qt_batch *batch)
{
    quire_status status = quire_step_abort(env->pool, batch->step);
    for (uint32_t i = 0; status == QUIRE_OK && i < batch->num_items; i++)
        batch->streams[i]->epoch++;
    return status;
}

void qt_batch_store(struct qt_env *env, struct qt_batch *batch)
{
    qt_assert_ok(qt_batch_begin(env, batch));
    for (uint32_t layer = 0; env->has_kv && layer < env->geometry->num_layers; layer++)
        qt_assert_ok(qt_batch_write(env, batch, layer));
    qt_assert_ok(qt_batch_commit(env, batch, NULL));
}

void qt_append(struct qt_env *env, struct qt_stream *stream, uint32_t n_new)
{
    while (n_new > 0) {
        uint32_t piece = n_new < env->config.max_step_tokens ? n_new : env->config.max_step_tokens;
        struct qt_batch batch = {0};
        qt_batch_add(&batch, stream, piece, NULL);
        qt_batch_store(env, &batch);
        n_new -= piece;
    }
}

/* ---- snapshots ---- */

void qt_stats(struct qt_env *env, struct quire_pool_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    stats->struct_size = sizeof *stats;
    qt_assert_ok(quire_pool_stats(env->pool, stats));
}

void qt_snapshot_take(struct qt_env *env, const struct qt_stream *streams, uint32_t num_streams,
                      struct qt_snapshot *snapshot)
{
    memset(snapshot, 0, sizeof *snapshot);
    qt_stats(env, &snapshot->stats);
    snapshot->num_streams = num_streams;
    for (uint32_t i = 0; i < num_streams; i++) {
        qt_assert_ok(quire_seq_length(env->pool, streams[i].seq, &snapshot->lens[i]));
        qt_assert_ok(
            quire_seq_tokens(env->pool, streams[i].seq, NULL, 0, &snapshot->num_tokens[i]));
    }
}

static bool same_stats(const struct quire_pool_stats *a, const struct quire_pool_stats *b)
{
    return a->layout == b->layout && a->block_size == b->block_size &&
           a->block_bytes == b->block_bytes && a->blocks_total == b->blocks_total &&
           a->blocks_free == b->blocks_free && a->blocks_owned == b->blocks_owned &&
           a->blocks_cached == b->blocks_cached && a->blocks_in_transit == b->blocks_in_transit &&
           a->blocks_peak == b->blocks_peak && a->bytes_used == b->bytes_used &&
           a->metadata_bytes == b->metadata_bytes && a->seqs == b->seqs &&
           a->open_steps == b->open_steps && a->steps_committed == b->steps_committed &&
           a->steps_aborted == b->steps_aborted && a->uploads == b->uploads;
}

bool qt_snapshot_equal(const struct qt_snapshot *a, const struct qt_snapshot *b)
{
    return same_stats(&a->stats, &b->stats) && a->num_streams == b->num_streams &&
           memcmp(a->lens, b->lens, sizeof a->lens) == 0 &&
           memcmp(a->num_tokens, b->num_tokens, sizeof a->num_tokens) == 0;
}

void qt_snapshot_same(struct qt_env *env, const struct qt_stream *streams,
                      const struct qt_snapshot *snapshot)
{
    struct qt_snapshot now;
    qt_snapshot_take(env, streams, snapshot->num_streams, &now);
    assert_true(qt_snapshot_equal(&now, snapshot));
    qt_assert_pool_ok(env);
}
