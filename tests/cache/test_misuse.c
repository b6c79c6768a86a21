/* test_misuse.c - wrong calls: each answers the documented status, prints nothing, changes nothing.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/cache_fixture.h"

#include <math.h>
#include <string.h>

/* What a wrong call may name. Streams: 0 idle, 1 in the open step, 2 never used; `dead` was
 * destroyed, `closed` was committed, `aborted` was aborted. */
struct scene {
    struct qt_env env;
    struct qt_stream streams[3];
    quire_seq dead;
    struct qt_batch open; /* stream 1, three new rows; layer 0 is written */
    quire_step closed, aborted;
    struct quire_view k, v, q, out; /* right for the open step in layer 0 and 1 */
};

static struct quire_step_item item(quire_seq seq, uint32_t n_new)
{
    return (struct quire_step_item){seq, n_new, NULL};
}

static void scene_open(struct scene *scene, const struct qt_variant *variant)
{
    struct qt_env *env = &scene->env;
    memset(scene, 0, sizeof *scene);
    qt_open(env, variant, &qt_plain);
    qt_assert_ok(quire_seq_create(env->pool, NULL, &scene->dead));
    for (uint32_t i = 0; i < 3; i++)
        qt_stream_open(env, &scene->streams[i], i);
    qt_assert_ok(quire_seq_destroy(env->pool, scene->dead));
    for (uint32_t i = 0; i < 2; i++) {
        struct qt_batch batch = {0};
        qt_batch_add(&batch, &scene->streams[i], 6, NULL);
        qt_batch_store(env, &batch);
        scene->closed = batch.step;
    }
    struct qt_batch aborted = {0};
    qt_batch_add(&aborted, &scene->streams[0], 2, NULL);
    qt_assert_ok(qt_batch_begin(env, &aborted));
    qt_assert_ok(qt_batch_abort(env, &aborted));
    scene->aborted = aborted.step;
    qt_batch_add(&scene->open, &scene->streams[1], 3, NULL);
    qt_assert_ok(qt_batch_begin(env, &scene->open));
    if (env->has_kv) {
        qt_assert_ok(qt_batch_write(env, &scene->open, 0));
        scene->k = quire_view_buffer(env->inputs, 0, QUIRE_F32, 3, 2, 8);
        scene->v = scene->k;
        scene->q = quire_view_buffer(env->inputs, 0, QUIRE_F32, 3, 4, 8);
        scene->out = quire_view_buffer(env->out, 0, QUIRE_F32, 3, 4, 8);
    }
}

static void scene_close(struct scene *scene)
{
    struct qt_env *env = &scene->env;
    if (env->has_kv) { /* the open step can still be finished */
        for (uint32_t layer = 0; layer < 2; layer++)
            qt_assert_ok(qt_batch_write(env, &scene->open, layer));
    }
    qt_assert_ok(qt_batch_commit(env, &scene->open, NULL));
    for (uint32_t i = 0; i < 3; i++) {
        qt_stream_check(env, &scene->streams[i]);
        qt_stream_close(env, &scene->streams[i]);
    }
    qt_close(env);
}

/* ---- the calls ---- */

static quire_status begin(struct scene *scene, const struct quire_step_item *items, uint32_t count)
{
    quire_step step = {0};
    quire_status status = quire_step_begin(scene->env.pool, items, count, &step, NULL);
    assert_int_equal(step.id, 0);
    return status;
}

static quire_status begin_one(struct scene *scene, quire_seq seq, uint32_t n_new)
{
    struct quire_step_item one = item(seq, n_new);
    return begin(scene, &one, 1);
}

static quire_status begin_null_pool(struct scene *scene)
{
    struct quire_step_item one = item(scene->streams[0].seq, 1);
    quire_step step;
    return quire_step_begin(NULL, &one, 1, &step, NULL);
}
static quire_status begin_null_items(struct scene *scene)
{
    return begin(scene, NULL, 1);
}
static quire_status begin_null_step(struct scene *scene)
{
    struct quire_step_item one = item(scene->streams[0].seq, 1);
    return quire_step_begin(scene->env.pool, &one, 1, NULL, NULL);
}
static quire_status begin_no_items(struct scene *scene)
{
    struct quire_step_item one = item(scene->streams[0].seq, 1);
    return begin(scene, &one, 0);
}
static quire_status begin_stale(struct scene *scene)
{
    return begin_one(scene, scene->dead, 1);
}
static quire_status begin_second_item_stale(struct scene *scene)
{
    struct quire_step_item two[] = {item(scene->streams[0].seq, 5), item(scene->dead, 1)};
    return begin(scene, two, 2);
}
static quire_status begin_zero_handle(struct scene *scene)
{
    return begin_one(scene, (quire_seq){0}, 1);
}
static quire_status begin_no_tokens(struct scene *scene)
{
    return begin_one(scene, scene->streams[0].seq, 0);
}
static quire_status begin_second_item_no_tokens(struct scene *scene)
{
    struct quire_step_item two[] = {item(scene->streams[0].seq, 5), item(scene->streams[2].seq, 0)};
    return begin(scene, two, 2);
}
static quire_status begin_in_two_steps(struct scene *scene)
{
    return begin_one(scene, scene->streams[1].seq, 1);
}
static quire_status begin_second_item_in_two_steps(struct scene *scene)
{
    struct quire_step_item two[] = {item(scene->streams[0].seq, 5), item(scene->streams[1].seq, 1)};
    return begin(scene, two, 2);
}
static quire_status begin_twice_in_one_step(struct scene *scene)
{
    struct quire_step_item three[] = {item(scene->streams[0].seq, 5),
                                      item(scene->streams[2].seq, 1),
                                      item(scene->streams[0].seq, 1)};
    return begin(scene, three, 3);
}
static quire_status begin_over_max_seq_len(struct scene *scene)
{
    struct quire_step_item two[] = {item(scene->streams[2].seq, 1),
                                    item(scene->streams[0].seq, 59)};
    return begin(scene, two, 2);
}
static quire_status begin_over_max_step_tokens(struct scene *scene)
{
    struct quire_step_item two[] = {item(scene->streams[2].seq, 48),
                                    item(scene->streams[0].seq, 1)};
    return begin(scene, two, 2);
}

static quire_status destroy_null(struct scene *scene)
{
    return quire_seq_destroy(NULL, scene->streams[0].seq);
}
static quire_status destroy_twice(struct scene *scene)
{
    return quire_seq_destroy(scene->env.pool, scene->dead);
}
static quire_status destroy_in_step(struct scene *scene)
{
    return quire_seq_destroy(scene->env.pool, scene->streams[1].seq);
}
static quire_status truncate_null(struct scene *scene)
{
    return quire_seq_truncate(NULL, scene->streams[0].seq, 0, NULL);
}
static quire_status truncate_stale(struct scene *scene)
{
    return quire_seq_truncate(scene->env.pool, scene->dead, 0, NULL);
}
static quire_status truncate_longer(struct scene *scene)
{
    return quire_seq_truncate(scene->env.pool, scene->streams[0].seq, 7, NULL);
}
static quire_status truncate_in_step(struct scene *scene)
{
    return quire_seq_truncate(scene->env.pool, scene->streams[1].seq, 2, NULL);
}
static quire_status truncate_in_step_to_its_length(struct scene *scene)
{
    return quire_seq_truncate(scene->env.pool, scene->streams[1].seq, 6, NULL);
}
static quire_status reset_in_step(struct scene *scene)
{
    return quire_seq_reset(scene->env.pool, scene->streams[1].seq);
}
static quire_status reset_stale(struct scene *scene)
{
    return quire_seq_reset(scene->env.pool, scene->dead);
}
static quire_status pool_reset_null(struct scene *scene)
{
    (void)scene;
    return quire_pool_reset(NULL);
}
static quire_status pool_reset_with_open_step(struct scene *scene)
{
    return quire_pool_reset(scene->env.pool);
}

static quire_status create_null_pool(struct scene *scene)
{
    (void)scene;
    quire_seq seq;
    return quire_seq_create(NULL, NULL, &seq);
}
static quire_status create_null_seq(struct scene *scene)
{
    return quire_seq_create(scene->env.pool, NULL, NULL);
}
static quire_status create_bad_size(struct scene *scene)
{
    struct quire_seq_config config = {.struct_size = 3};
    quire_seq seq;
    return quire_seq_create(scene->env.pool, &config, &seq);
}
static quire_status length_null(struct scene *scene)
{
    return quire_seq_length(scene->env.pool, scene->streams[0].seq, NULL);
}
static quire_status length_null_pool(struct scene *scene)
{
    uint32_t len;
    return quire_seq_length(NULL, scene->streams[0].seq, &len);
}
static quire_status tokens_null(struct scene *scene)
{
    uint32_t count;
    return quire_seq_tokens(scene->env.pool, scene->streams[0].seq, NULL, 1, &count);
}
static quire_status tokens_null_count(struct scene *scene)
{
    uint32_t tokens[1];
    return quire_seq_tokens(scene->env.pool, scene->streams[0].seq, tokens, 1, NULL);
}
static quire_status kv_cache_null(struct scene *scene)
{
    return quire_seq_kv_cache(scene->env.pool, scene->streams[0].seq, 0, NULL);
}
static quire_status kv_cache_no_layer(struct scene *scene)
{
    struct quire_kv_cache cache;
    return quire_seq_kv_cache(scene->env.pool, scene->streams[0].seq, 2, &cache);
}
static quire_status stats_null(struct scene *scene)
{
    return quire_pool_stats(scene->env.pool, NULL);
}
static quire_status stats_null_pool(struct scene *scene)
{
    (void)scene;
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    return quire_pool_stats(NULL, &stats);
}
static quire_status stats_bad_size(struct scene *scene)
{
    struct quire_pool_stats stats = {.struct_size = 4};
    return quire_pool_stats(scene->env.pool, &stats);
}
static quire_status check_null(struct scene *scene)
{
    (void)scene;
    return quire_pool_check(NULL, NULL);
}

static quire_status write_stale_step(struct scene *scene)
{
    return quire_step_write(scene->env.pool, scene->closed, 0, &scene->k, &scene->v);
}
static quire_status write_aborted_step(struct scene *scene)
{
    return quire_step_write(scene->env.pool, scene->aborted, 0, &scene->k, &scene->v);
}
static quire_status write_zero_step(struct scene *scene)
{
    return quire_step_write(scene->env.pool, (quire_step){0}, 0, &scene->k, &scene->v);
}
static quire_status write_null_pool(struct scene *scene)
{
    return quire_step_write(NULL, scene->open.step, 0, &scene->k, &scene->v);
}
static quire_status write_null_k(struct scene *scene)
{
    return quire_step_write(scene->env.pool, scene->open.step, 0, NULL, &scene->v);
}
static quire_status write_null_v(struct scene *scene)
{
    return quire_step_write(scene->env.pool, scene->open.step, 0, &scene->k, NULL);
}
static quire_status write_no_layer(struct scene *scene)
{
    return quire_step_write(scene->env.pool, scene->open.step, 2, &scene->k, &scene->v);
}
static quire_status write_empty_view(struct scene *scene)
{
    struct quire_view empty = scene->k;
    empty.buffer = NULL;
    return quire_step_write(scene->env.pool, scene->open.step, 0, &empty, &scene->v);
}
static quire_status write_rows(struct scene *scene)
{
    struct quire_view v = scene->v;
    v.shape[0] = 4;
    return quire_step_write(scene->env.pool, scene->open.step, 0, &scene->k, &v);
}
static quire_status write_heads(struct scene *scene)
{
    return quire_step_write(scene->env.pool, scene->open.step, 0, &scene->q, &scene->v);
}
static quire_status write_dim(struct scene *scene)
{
    struct quire_view k = scene->k;
    k.shape[2] = 7;
    return quire_step_write(scene->env.pool, scene->open.step, 0, &k, &scene->v);
}
static quire_status write_dtype(struct scene *scene)
{
    struct quire_view k = scene->k;
    k.dtype = QUIRE_F16;
    return quire_step_write(scene->env.pool, scene->open.step, 0, &k, &scene->v);
}
static quire_status write_past_the_buffer(struct scene *scene)
{
    struct quire_view k = scene->k;
    k.offset = UINT64_MAX / 2;
    return quire_step_write(scene->env.pool, scene->open.step, 0, &k, &scene->v);
}
static quire_status write_strides_past_the_buffer(struct scene *scene)
{
    struct quire_view k = scene->k;
    k.stride[0] = UINT64_MAX / 2;
    return quire_step_write(scene->env.pool, scene->open.step, 0, &k, &scene->v);
}

static quire_status attend(struct scene *scene, uint32_t layer, const struct quire_view *q,
                           const struct quire_view *out)
{
    return quire_step_attend(scene->env.pool, scene->open.step, layer, q, out, NULL);
}
static quire_status attend_before_write(struct scene *scene)
{
    return attend(scene, 1, &scene->q, &scene->out);
}
static quire_status attend_no_layer(struct scene *scene)
{
    return attend(scene, 2, &scene->q, &scene->out);
}
static quire_status attend_null_q(struct scene *scene)
{
    return attend(scene, 0, NULL, &scene->out);
}
static quire_status attend_null_out(struct scene *scene)
{
    return attend(scene, 0, &scene->q, NULL);
}
static quire_status attend_kv_heads(struct scene *scene)
{
    return attend(scene, 0, &scene->k, &scene->out);
}
static quire_status attend_out_rows(struct scene *scene)
{
    struct quire_view out = scene->out;
    out.shape[0] = 2;
    return attend(scene, 0, &scene->q, &out);
}
static quire_status attend_out_dtype(struct scene *scene)
{
    struct quire_view out = scene->out;
    out.dtype = QUIRE_BF16;
    return attend(scene, 0, &scene->q, &out);
}
static quire_status attend_out_past_the_buffer(struct scene *scene)
{
    struct quire_view out = scene->out;
    out.offset = 1u << 30;
    return attend(scene, 0, &scene->q, &out);
}
static quire_status attend_with_strides(struct scene *scene, uint64_t outer, uint64_t inner)
{
    struct quire_view out = scene->out;
    out.stride[0] = outer;
    out.stride[1] = inner;
    return attend(scene, 0, &scene->q, &out);
}
static quire_status attend_out_rows_overlap(struct scene *scene)
{
    return attend_with_strides(scene, scene->out.stride[0] - 1, scene->out.stride[1]);
}
static quire_status attend_out_heads_overlap(struct scene *scene)
{
    return attend_with_strides(scene, scene->out.stride[0], scene->out.stride[1] - 1);
}
static quire_status attend_out_heads_fold(struct scene *scene)
{
    return attend_with_strides(scene, 0, scene->out.stride[1]);
}
static quire_status attend_out_strides_overflow(struct scene *scene)
{
    return attend_with_strides(scene, 1, UINT64_MAX);
}
static quire_status attend_bad_params(struct scene *scene)
{
    struct quire_attend_params params;
    quire_attend_params_init(&params);
    params.struct_size = 1;
    return quire_step_attend(scene->env.pool, scene->open.step, 0, &scene->q, &scene->out, &params);
}
static quire_status attend_with(struct scene *scene, float scale, float softcap)
{
    struct quire_attend_params params;
    quire_attend_params_init(&params);
    params.scale = scale;
    params.softcap = softcap;
    return quire_step_attend(scene->env.pool, scene->open.step, 0, &scene->q, &scene->out, &params);
}
static quire_status attend_scale_nan(struct scene *scene)
{
    return attend_with(scene, (float)NAN, 0.0f);
}
static quire_status attend_scale_infinite(struct scene *scene)
{
    return attend_with(scene, INFINITY, 0.0f);
}
static quire_status attend_softcap_infinite(struct scene *scene)
{
    return attend_with(scene, 0.0f, INFINITY);
}
static quire_status attend_softcap_negative(struct scene *scene)
{
    return attend_with(scene, 0.0f, -1.0f);
}
static quire_status attend_bad_lse(struct scene *scene)
{
    struct quire_attend_params params;
    quire_attend_params_init(&params);
    params.lse = quire_view_buffer(scene->env.lse, 0, QUIRE_F32, 3, 1, 3);
    return quire_step_attend(scene->env.pool, scene->open.step, 0, &scene->q, &scene->out, &params);
}
static quire_status attend_stale_step(struct scene *scene)
{
    return quire_step_attend(scene->env.pool, scene->closed, 0, &scene->q, &scene->out, NULL);
}

static quire_status commit_twice(struct scene *scene)
{
    return quire_step_commit(scene->env.pool, scene->closed, NULL);
}
static quire_status commit_aborted(struct scene *scene)
{
    return quire_step_commit(scene->env.pool, scene->aborted, NULL);
}
static quire_status commit_null_pool(struct scene *scene)
{
    return quire_step_commit(NULL, scene->open.step, NULL);
}
static quire_status commit_some_layers(struct scene *scene)
{
    return quire_step_commit(scene->env.pool, scene->open.step, NULL);
}
static quire_status commit_some_layers_keep_none(struct scene *scene)
{
    const uint32_t keep = 0;
    return quire_step_commit(scene->env.pool, scene->open.step, &keep);
}
static quire_status commit_too_many(struct scene *scene)
{
    const uint32_t keep = 4;
    return quire_step_commit(scene->env.pool, scene->open.step, &keep);
}
static quire_status abort_twice(struct scene *scene)
{
    return quire_step_abort(scene->env.pool, scene->aborted);
}
static quire_status abort_committed(struct scene *scene)
{
    return quire_step_abort(scene->env.pool, scene->closed);
}
static quire_status abort_null_pool(struct scene *scene)
{
    return quire_step_abort(NULL, scene->open.step);
}
static quire_status abort_unknown(struct scene *scene)
{
    return quire_step_abort(scene->env.pool, (quire_step){UINT64_MAX});
}

static quire_status read_step_rows(struct scene *scene)
{
    char k[256];
    struct quire_rows rows = {0, 6, 3};
    return quire_seq_read(scene->env.pool, scene->streams[1].seq, &rows, k, NULL);
}
static quire_status write_rows_past_the_step(struct scene *scene)
{
    char k[256] = {0};
    struct quire_rows rows = {0, 8, 2};
    return quire_seq_write(scene->env.pool, scene->streams[1].seq, &rows, k, NULL);
}
static quire_status write_rows_of_an_idle_sequence(struct scene *scene)
{
    char k[256] = {0};
    struct quire_rows rows = {0, 5, 2};
    return quire_seq_write(scene->env.pool, scene->streams[0].seq, &rows, k, NULL);
}
static quire_status read_null_pool(struct scene *scene)
{
    char k[256];
    struct quire_rows rows = {0, 0, 1};
    return quire_seq_read(NULL, scene->streams[0].seq, &rows, k, NULL);
}

struct misuse {
    const char *name;
    quire_status (*call)(struct scene *scene);
    quire_status status;
    bool needs_kv; /* otherwise UNSUPPORTED or harmless */
};

#define CALL(function, status)                                                                     \
    {                                                                                              \
#function, function, QUIRE_E_##status, false                                               \
    }
#define KV_CALL(function, status)                                                                  \
    {                                                                                              \
#function, function, QUIRE_E_##status, true                                                \
    }

static const struct misuse table[] = {
    CALL(begin_null_pool, INVAL),
    CALL(begin_null_items, INVAL),
    CALL(begin_null_step, INVAL),
    CALL(begin_no_items, INVAL),
    CALL(begin_stale, INVAL),
    CALL(begin_second_item_stale, INVAL),
    CALL(begin_zero_handle, INVAL),
    CALL(begin_no_tokens, INVAL),
    CALL(begin_second_item_no_tokens, INVAL),
    CALL(begin_in_two_steps, BUSY),
    CALL(begin_second_item_in_two_steps, BUSY),
    CALL(begin_twice_in_one_step, INVAL),
    CALL(begin_over_max_seq_len, LIMIT),
    CALL(begin_over_max_step_tokens, LIMIT),
    CALL(destroy_null, INVAL),
    CALL(destroy_twice, INVAL),
    CALL(destroy_in_step, BUSY),
    CALL(truncate_null, INVAL),
    CALL(truncate_stale, INVAL),
    CALL(truncate_longer, INVAL),
    CALL(truncate_in_step, BUSY),
    CALL(truncate_in_step_to_its_length, BUSY),
    CALL(reset_in_step, BUSY),
    CALL(reset_stale, INVAL),
    CALL(pool_reset_null, INVAL),
    CALL(pool_reset_with_open_step, BUSY),
    CALL(create_null_pool, INVAL),
    CALL(create_null_seq, INVAL),
    CALL(create_bad_size, INVAL),
    CALL(length_null, INVAL),
    CALL(length_null_pool, INVAL),
    CALL(tokens_null, INVAL),
    CALL(tokens_null_count, INVAL),
    CALL(kv_cache_null, INVAL),
    CALL(kv_cache_no_layer, INVAL),
    CALL(stats_null, INVAL),
    CALL(stats_null_pool, INVAL),
    CALL(stats_bad_size, INVAL),
    CALL(check_null, INVAL),
    CALL(write_stale_step, INVAL),
    CALL(write_aborted_step, INVAL),
    CALL(write_zero_step, INVAL),
    CALL(write_null_pool, INVAL),
    KV_CALL(write_null_k, INVAL),
    KV_CALL(write_null_v, INVAL),
    KV_CALL(write_no_layer, INVAL),
    KV_CALL(write_empty_view, INVAL),
    KV_CALL(write_rows, INVAL),
    KV_CALL(write_heads, INVAL),
    KV_CALL(write_dim, INVAL),
    KV_CALL(write_dtype, INVAL),
    KV_CALL(write_past_the_buffer, INVAL),
    KV_CALL(write_strides_past_the_buffer, INVAL),
    KV_CALL(attend_before_write, INVAL),
    KV_CALL(attend_no_layer, INVAL),
    KV_CALL(attend_null_q, INVAL),
    KV_CALL(attend_null_out, INVAL),
    KV_CALL(attend_kv_heads, INVAL),
    KV_CALL(attend_out_rows, INVAL),
    KV_CALL(attend_out_dtype, INVAL),
    KV_CALL(attend_out_past_the_buffer, INVAL),
    KV_CALL(attend_out_rows_overlap, INVAL),
    KV_CALL(attend_out_heads_overlap, INVAL),
    KV_CALL(attend_out_heads_fold, INVAL),
    KV_CALL(attend_out_strides_overflow, INVAL),
    KV_CALL(attend_bad_params, INVAL),
    KV_CALL(attend_scale_nan, INVAL),
    KV_CALL(attend_scale_infinite, INVAL),
    KV_CALL(attend_softcap_infinite, INVAL),
    KV_CALL(attend_softcap_negative, INVAL),
    KV_CALL(attend_bad_lse, INVAL),
    CALL(attend_stale_step, INVAL),
    CALL(commit_twice, INVAL),
    CALL(commit_aborted, INVAL),
    CALL(commit_null_pool, INVAL),
    KV_CALL(commit_some_layers, INVAL),
    KV_CALL(commit_some_layers_keep_none, INVAL),
    CALL(commit_too_many, INVAL),
    CALL(abort_twice, INVAL),
    CALL(abort_committed, INVAL),
    CALL(abort_null_pool, INVAL),
    CALL(abort_unknown, INVAL),
    KV_CALL(read_step_rows, INVAL),
    KV_CALL(write_rows_past_the_step, INVAL),
    KV_CALL(write_rows_of_an_idle_sequence, INVAL),
    CALL(read_null_pool, INVAL),
};

/* Rows and lengths of the idle streams are checked too: a wrong call must not even write a byte. */
static void assert_unchanged(struct scene *scene, const struct qt_snapshot *before,
                             const char *name)
{
    struct qt_snapshot now;
    qt_snapshot_take(&scene->env, scene->streams, 3, &now);
    if (!qt_snapshot_equal(&now, before))
        fail_msg("%s changed the pool", name);
    qt_assert_pool_ok(&scene->env);
    for (uint32_t i = 0; i < 3; i++)
        qt_stream_check(&scene->env, &scene->streams[i]);
}

static void test_every_wrong_call_is_refused_and_changes_nothing(void **state)
{
    struct scene scene;
    struct qt_snapshot before;
    scene_open(&scene, *state);
    qt_snapshot_take(&scene.env, scene.streams, 3, &before);
    for (size_t i = 0; i < QT_LEN(table); i++) {
        if (table[i].needs_kv && !scene.env.has_kv)
            continue;
        quire_status status = table[i].call(&scene);
        if (status != table[i].status)
            fail_msg("%s answers %s, not %s", table[i].name, quire_status_name(status),
                     quire_status_name(table[i].status));
        assert_unchanged(&scene, &before, table[i].name);
    }
    scene_close(&scene);
}

/* An engine that stops at an error, or one that prints, is no library (DESIGN, section 3). */
static void test_defect_prints_or_aborts_instead_of_returning_error(void **state)
{
    struct scene scene;
    struct qt_capture capture;
    scene_open(&scene, *state);
    qt_capture_begin(&capture);
    for (size_t i = 0; i < QT_LEN(table); i++) {
        if (!table[i].needs_kv || scene.env.has_kv)
            (void)table[i].call(&scene);
    }
    struct quire_pool *pool = NULL;
    struct quire_error error;
    for (uint32_t size = 0; size < sizeof(struct quire_pool_config); size += 4) {
        struct quire_pool_config config = scene.env.config;
        memset((char *)&config + size, 0xff, 4); /* one wrong word at a time */
        config.backend = scene.env.backend;
        config.groups = qt_plain.groups;
        config.num_groups = config.num_groups == 1 ? 1 : 0;
        config.num_blocks = 256;
        config.memory = NULL;
        if (quire_pool_create(&config, &pool, &error) == QUIRE_OK)
            quire_pool_destroy(pool);
    }
    uint64_t printed = qt_capture_end(&capture);
    assert_int_equal(printed, 0);
    scene_close(&scene);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_every_wrong_call_is_refused_and_changes_nothing, QT_ALL),
        QT_TEST(test_defect_prints_or_aborts_instead_of_returning_error, QT_ALL),
    };
    return qt_run("misuse", tests, QT_LEN(tests));
}
