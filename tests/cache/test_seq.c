/* test_seq.c - sequences: handles, lengths, truncate, the per-layer view, rows in and out.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/cache_fixture.h"

#include <string.h>

static uint64_t owned(struct qt_env *env)
{
    struct quire_pool_stats stats;
    qt_stats(env, &stats);
    assert_int_equal(stats.blocks_free + stats.blocks_owned, stats.blocks_total);
    assert_int_equal(stats.bytes_used, stats.blocks_owned * stats.block_bytes);
    return stats.blocks_owned;
}

static uint32_t tables(const struct qt_env *env)
{
    return env->config.layout == QUIRE_LAYOUT_PAGED ? env->geometry->num_groups : 1;
}

/* ---- handles ---- */

/* Every function that takes a sequence refuses a handle that is not alive. */
static void assert_dead(struct qt_env *env, quire_seq seq)
{
    uint32_t len = 77;
    uint32_t tokens[1];
    struct quire_kv_cache cache;
    struct quire_rows rows = {0, 0, 0};
    struct quire_step_item item = {seq, 1, NULL};
    quire_step step;
    char k[64], v[64];
    qt_assert_status(quire_seq_destroy(env->pool, seq), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_reset(env->pool, seq), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_truncate(env->pool, seq, 0, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_length(env->pool, seq, &len), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_tokens(env->pool, seq, tokens, 1, &len), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_kv_cache(env->pool, seq, 0, &cache), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_read(env->pool, seq, &rows, k, v), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_write(env->pool, seq, &rows, k, v), QUIRE_E_INVAL);
    qt_assert_status(quire_step_begin(env->pool, &item, 1, &step, NULL), QUIRE_E_INVAL);
    assert_int_equal(len, 77);
}

static void test_stale_handles_are_refused_for_ever(void **state)
{
    struct qt_env env;
    quire_seq old[40];
    struct quire_seq live;
    qt_open(&env, *state, &qt_plain);
    assert_dead(&env, (quire_seq){0});
    assert_dead(&env, (quire_seq){1});
    assert_dead(&env, (quire_seq){UINT64_MAX});
    assert_dead(&env, (quire_seq){9});
    for (size_t i = 0; i < QT_LEN(old); i++) { /* many lives of the same slots */
        qt_assert_ok(quire_seq_create(env.pool, NULL, &old[i]));
        qt_assert_ok(quire_seq_destroy(env.pool, old[i]));
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(old[i].id, old[j].id);
    }
    qt_assert_ok(quire_seq_create(env.pool, NULL, &live));
    for (size_t i = 0; i < QT_LEN(old); i++)
        assert_dead(&env, old[i]);
    qt_assert_ok(quire_pool_reset(env.pool));
    assert_dead(&env, live);
    qt_close(&env);
}

static void test_handles_of_another_pool(void **state)
{
    struct qt_env a, b;
    struct qt_stream stream;
    quire_seq seqs[3];
    qt_open(&a, *state, &qt_plain);
    qt_open(&b, *state, &qt_plain);
    for (size_t i = 0; i < QT_LEN(seqs); i++)
        qt_assert_ok(quire_seq_create(a.pool, NULL, &seqs[i]));
    assert_dead(&b, seqs[2]); /* b has no third sequence */
    qt_stream_open(&b, &stream, 1);
    qt_append(&b, &stream, 5);
    qt_stream_check(&b, &stream);
    qt_stream_close(&b, &stream);
    qt_close(&a);
    qt_close(&b);
}

static void test_max_seqs(void **state)
{
    struct qt_env env;
    quire_seq seqs[8], extra = {5};
    qt_open(&env, *state, &qt_plain);
    for (size_t i = 0; i < QT_LEN(seqs); i++)
        qt_assert_ok(quire_seq_create(env.pool, NULL, &seqs[i]));
    qt_assert_status(quire_seq_create(env.pool, NULL, &extra), QUIRE_E_LIMIT);
    assert_int_equal(extra.id, 5);
    qt_assert_ok(quire_seq_destroy(env.pool, seqs[3]));
    qt_assert_ok(quire_seq_create(env.pool, NULL, &extra));
    assert_dead(&env, seqs[3]);
    qt_assert_status(quire_seq_create(env.pool, NULL, &seqs[3]), QUIRE_E_LIMIT);
    qt_close(&env);
}

static void test_seq_config(void **state)
{
    const uint32_t prompt[] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct quire_seq_config config;
    struct qt_env env;
    quire_seq seq = {0};
    uint32_t len = 7;
    qt_open(&env, *state, &qt_plain);
    memset(&config, 0xff, sizeof config);
    quire_seq_config_init(&config);
    assert_int_equal(config.struct_size, sizeof config);
    assert_null(config.tokens);
    assert_int_equal(config.num_tokens + config.salt + config.adapter + config.no_lookup, 0);
    config.tokens = prompt;
    config.num_tokens = 8;
    config.salt = 3;
    qt_assert_ok(quire_seq_create(env.pool, &config, &seq));
    qt_assert_ok(quire_seq_length(env.pool, seq, &len));
    assert_int_equal(len, 0); /* nothing is cached yet */
    assert_int_equal(owned(&env), 0);
    config.tokens = NULL;
    qt_assert_status(quire_seq_create(env.pool, &config, &seq), QUIRE_E_INVAL);
    config.num_tokens = 0;
    config.struct_size--;
    qt_assert_status(quire_seq_create(env.pool, &config, &seq), QUIRE_E_INVAL);
    qt_close(&env);
}

/* ---- truncate, reset, destroy ---- */

static void test_truncate_gives_blocks_back_at_once(void **state)
{
    struct qt_env env;
    struct qt_stream stream, other;
    struct qt_random random = {5};
    qt_open(&env, *state, &qt_groups);
    qt_stream_open(&env, &stream, 1);
    qt_stream_open(&env, &other, 2);
    qt_append(&env, &other, 21);
    for (uint32_t round = 0; round < 20; round++) {
        qt_append(&env, &stream, qt_below(&random, 64 - stream.len) + 1);
        assert_int_equal(owned(&env), ((stream.len + 3) / 4 + 6) * tables(&env));
        uint32_t keep = qt_below(&random, stream.len + 1);
        qt_stream_truncate(&env, &stream, keep);
        assert_int_equal(owned(&env), ((keep + 3) / 4 + 6) * tables(&env));
        qt_stream_check(&env, &stream);
        qt_stream_check(&env, &other);
    }
    qt_assert_status(quire_seq_truncate(env.pool, stream.seq, stream.len + 1, NULL), QUIRE_E_INVAL);
    qt_assert_ok(quire_seq_reset(env.pool, stream.seq));
    stream.len = 0;
    assert_int_equal(owned(&env), 6 * tables(&env));
    qt_append(&env, &stream, 9);
    qt_stream_check(&env, &stream);
    qt_stream_close(&env, &stream);
    assert_int_equal(owned(&env), 6 * tables(&env));
    qt_stream_close(&env, &other);
    assert_int_equal(owned(&env), 0);
    qt_close(&env);
}

static void test_pool_reset_ends_everything(void **state)
{
    struct qt_env env;
    struct qt_stream streams[8];
    qt_open(&env, *state, &qt_groups);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 8; i++) {
            qt_stream_open(&env, &streams[i], i);
            qt_append(&env, &streams[i], 5 * i + 1);
        }
        for (uint32_t i = 0; i < 8; i++)
            qt_stream_check(&env, &streams[i]);
        qt_assert_ok(quire_pool_reset(env.pool));
        assert_int_equal(owned(&env), 0);
        for (uint32_t i = 0; i < 8; i++) {
            assert_dead(&env, streams[i].seq);
            qt_stream_free(&streams[i]);
        }
    }
    qt_close(&env);
}

/* ---- the view of a layer ---- */

static void assert_view_shape(const struct quire_view *view, uint32_t dtype, uint64_t heads,
                              uint64_t positions, uint64_t dim)
{
    assert_non_null(view->buffer);
    assert_int_equal(view->dtype, dtype);
    assert_int_equal(view->shape[0], heads);
    assert_int_equal(view->shape[1], positions);
    assert_int_equal(view->shape[2], dim);
    assert_int_equal(view->stride[0], positions * dim);
    assert_int_equal(view->stride[1], dim);
}

static void assert_cache_shape(struct qt_env *env, const struct quire_kv_cache *cache,
                               uint32_t layer, uint32_t len)
{
    const struct quire_group_config *group = qt_group_of(env->geometry, layer);
    bool paged = env->config.layout == QUIRE_LAYOUT_PAGED;
    uint64_t positions = paged ? 4 : 64;
    assert_int_equal(cache->len, len);
    assert_int_equal(cache->capacity, 64);
    assert_int_equal(cache->num_kv_heads, group->num_kv_heads);
    assert_int_equal(cache->head_dim, group->head_dim);
    assert_int_equal(cache->head_dim_v, qt_head_dim_v(group));
    assert_int_equal(cache->dtype_k, env->config.dtype_k);
    assert_int_equal(cache->dtype_v, env->config.dtype_v);
    assert_int_equal(cache->window, group->window);
    assert_int_equal(cache->sink_positions, group->sink_positions);
    assert_view_shape(&cache->k, cache->dtype_k, group->num_kv_heads, positions, group->head_dim);
    assert_view_shape(&cache->v, cache->dtype_v, group->num_kv_heads, positions,
                      qt_head_dim_v(group));
    assert_int_equal(cache->block_size, paged ? 4 : 0);
    assert_int_equal(cache->num_blocks, paged ? 256 : 0);
    assert_int_equal(cache->paged_block_count, paged ? (len + 3) / 4 : 0);
    if (!paged) {
        assert_int_equal(cache->block_stride_k + cache->block_stride_v, 0);
        assert_null(cache->paged_block_indices);
        assert_null(cache->block_table.buffer);
    }
}

/* Where the header says that element (head, t, 0) lies, as a byte offset in the view's buffer. */
static uint64_t row_offset(const struct quire_kv_cache *cache, const uint32_t *table, bool v,
                           uint32_t head, uint32_t t)
{
    const struct quire_view *view = v ? &cache->v : &cache->k;
    uint64_t dim = v ? cache->head_dim_v : cache->head_dim;
    uint64_t stride = v ? cache->block_stride_v : cache->block_stride_k, size = cache->block_size;
    uint64_t element = size == 0 ? head * cache->capacity * dim + t * dim
                                 : table[t / size] * stride + head * size * dim + t % size * dim;
    return view->offset + element * quire_dtype_bytes(view->dtype);
}

static void check_rows_at(struct qt_env *env, const struct qt_stream *stream, uint32_t layer,
                          const struct quire_kv_cache *cache, const uint32_t *table)
{
    const struct quire_memory_ops *memory = env->backend->memory;
    uint8_t want[512], got[512];
    for (uint32_t t = 0; t < stream->len; t++) {
        for (int plane = QT_K; plane <= QT_V; plane++) {
            const struct quire_view *view = plane == QT_V ? &cache->v : &cache->k;
            uint32_t bytes = qt_row_bytes(env, layer, (enum qt_plane)plane);
            uint32_t head_bytes = bytes / cache->num_kv_heads;
            qt_stored_row(env, stream->salts[t], layer, (enum qt_plane)plane, want);
            for (uint32_t head = 0; head < cache->num_kv_heads; head++)
                qt_assert_ok(memory->download(env->backend, view->buffer,
                                              row_offset(cache, table, plane == QT_V, head, t),
                                              head_bytes, got + head * head_bytes));
            qt_wait(env);
            assert_memory_equal(got, want, bytes);
        }
    }
}

/* The device's table and length are those of the host mirror, and unused slots are no block. */
static void check_device_table(struct qt_env *env, const struct quire_kv_cache *cache,
                               uint32_t *table)
{
    const struct quire_memory_ops *memory = env->backend->memory;
    uint32_t slots = (uint32_t)cache->block_table.shape[2], len = 0;
    assert_int_equal(slots, 16);
    assert_int_equal(cache->block_table.dtype, QUIRE_U32);
    assert_int_equal(cache->context_lens.dtype, QUIRE_U32);
    assert_int_equal(cache->context_lens.shape[2], 1);
    qt_assert_ok(memory->download(env->backend, cache->block_table.buffer,
                                  cache->block_table.offset, slots * sizeof *table, table));
    qt_assert_ok(memory->download(env->backend, cache->context_lens.buffer,
                                  cache->context_lens.offset, sizeof len, &len));
    qt_wait(env);
    assert_int_equal(len, cache->len); /* nothing was taken back since the last step */
    for (uint32_t i = 0; i < slots; i++) {
        if (i < cache->paged_block_count)
            assert_int_equal(table[i], cache->paged_block_indices[i]);
        else
            assert_int_equal(table[i], QUIRE_BLOCK_NONE);
    }
}

static void test_kv_cache_says_where_every_element_lies(void **state)
{
    static const uint32_t lens[] = {1, 4, 22};
    struct qt_env env;
    struct qt_stream streams[3];
    qt_open(&env, *state, &qt_groups);
    for (uint32_t i = 0; i < 3; i++) {
        qt_stream_open(&env, &streams[i], i);
        qt_append(&env, &streams[i], lens[i]);
    }
    for (uint32_t i = 0; i < 3; i++) {
        for (uint32_t layer = 0; layer < 5; layer++) {
            struct quire_kv_cache cache;
            uint32_t table[16] = {0};
            memset(&cache, 0xa5, sizeof cache);
            qt_assert_ok(quire_seq_kv_cache(env.pool, streams[i].seq, layer, &cache));
            assert_cache_shape(&env, &cache, layer, streams[i].len);
            if (env.config.layout == QUIRE_LAYOUT_PAGED)
                check_device_table(&env, &cache, table);
            check_rows_at(&env, &streams[i], layer, &cache, table);
        }
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
}

static void assert_same_view(const struct quire_view *a, const struct quire_view *b)
{
    assert_ptr_equal(a->buffer, b->buffer);
    assert_int_equal(a->offset, b->offset);
    assert_memory_equal(a->shape, b->shape, sizeof a->shape);
    assert_memory_equal(a->stride, b->stride, sizeof a->stride);
}

static void test_kv_cache_of_a_sequence_never_moves(void **state)
{
    struct quire_kv_cache first, later;
    struct qt_env env;
    struct qt_stream stream;
    qt_open(&env, *state, &qt_plain);
    qt_stream_open(&env, &stream, 1);
    qt_assert_ok(quire_seq_kv_cache(env.pool, stream.seq, 1, &first));
    qt_append(&env, &stream, 40);
    qt_stream_truncate(&env, &stream, 30);
    qt_assert_ok(quire_seq_kv_cache(env.pool, stream.seq, 1, &later));
    assert_int_equal(first.len, 0);
    assert_int_equal(later.len, 30);
    assert_same_view(&first.k, &later.k);
    assert_same_view(&first.v, &later.v);
    assert_same_view(&first.block_table, &later.block_table);
    assert_same_view(&first.context_lens, &later.context_lens);
    assert_int_equal(first.block_stride_k, later.block_stride_k);
    assert_int_equal(first.block_stride_v, later.block_stride_v);
    assert_int_equal(first.capacity, later.capacity);
    assert_ptr_equal(first.paged_block_indices, later.paged_block_indices);
    qt_assert_status(quire_seq_kv_cache(env.pool, stream.seq, 2, &later), QUIRE_E_INVAL);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* ---- rows ---- */

static void test_rows_make_a_round_trip(void **state)
{
    struct qt_env env;
    struct qt_stream stream, other;
    struct qt_random random = {8};
    uint8_t k[64 * 128], v[64 * 128];
    qt_open(&env, *state, &qt_groups);
    qt_stream_open(&env, &stream, 1);
    qt_stream_open(&env, &other, 2);
    for (uint32_t i = 0; i < 6; i++) { /* blocks of both, interleaved */
        qt_append(&env, &stream, 9);
        qt_append(&env, &other, 7);
    }
    for (uint32_t round = 0; round < 60; round++) {
        uint32_t layer = qt_below(&random, 5), first = qt_below(&random, stream.len);
        struct quire_rows rows = {layer, first, qt_below(&random, stream.len - first + 1)};
        size_t k_bytes = qt_row_bytes(&env, layer, QT_K), v_bytes = qt_row_bytes(&env, layer, QT_V);
        uint8_t got_k[64 * 128], got_v[64 * 128];
        assert_true(k_bytes <= 128 && v_bytes <= 160);
        for (size_t i = 0; i < sizeof k; i++)
            k[i] = (uint8_t)qt_next(&random), v[i] = (uint8_t)qt_next(&random);
        bool with_k = qt_chance(&random, 80), with_v = qt_chance(&random, 80);
        qt_assert_ok(quire_seq_read(env.pool, stream.seq, &rows, got_k, got_v));
        qt_assert_ok(
            quire_seq_write(env.pool, stream.seq, &rows, with_k ? k : NULL, with_v ? v : NULL));
        if (!with_k)
            memcpy(k, got_k, rows.count * k_bytes);
        if (!with_v)
            memcpy(v, got_v, rows.count * v_bytes);
        qt_assert_ok(quire_seq_read(env.pool, stream.seq, &rows, got_k, NULL));
        qt_assert_ok(quire_seq_read(env.pool, stream.seq, &rows, NULL, got_v));
        qt_assert_ok(quire_seq_read(env.pool, stream.seq, &rows, NULL, NULL));
        assert_memory_equal(got_k, k, rows.count * k_bytes);
        assert_memory_equal(got_v, v, rows.count * v_bytes);
    }
    qt_stream_check(&env, &other);
    qt_stream_close(&env, &stream);
    qt_stream_close(&env, &other);
    qt_close(&env);
}

static void test_rows_outside_are_refused(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    uint8_t k[4096] = {0}, v[4096] = {0};
    static const struct quire_rows bad[] = {
        {0, 0, 11},         {0, 10, 1}, {0, 11, 0},         {0, UINT32_MAX, 1},
        {0, 1, UINT32_MAX}, {5, 0, 1},  {UINT32_MAX, 0, 1}, {0, UINT32_MAX, UINT32_MAX},
    };
    qt_open(&env, *state, &qt_groups);
    qt_stream_open(&env, &stream, 1);
    qt_append(&env, &stream, 10);
    for (size_t i = 0; i < QT_LEN(bad); i++) {
        qt_assert_status(quire_seq_read(env.pool, stream.seq, &bad[i], k, v), QUIRE_E_INVAL);
        qt_assert_status(quire_seq_write(env.pool, stream.seq, &bad[i], k, v), QUIRE_E_INVAL);
    }
    qt_assert_status(quire_seq_read(env.pool, stream.seq, NULL, k, v), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_write(env.pool, stream.seq, NULL, k, v), QUIRE_E_INVAL);
    qt_stream_check(&env, &stream);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* An engine may fill the positions that an open step adds. */
static void test_rows_of_an_open_step_are_written_by_hand(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    struct qt_batch batch = {0};
    uint8_t k[16 * 128], v[16 * 160];
    qt_open(&env, *state, &qt_groups);
    qt_stream_open(&env, &stream, 1);
    qt_append(&env, &stream, 6);
    qt_batch_add(&batch, &stream, 7, NULL);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    for (uint32_t layer = 0; layer < 5; layer++) {
        struct quire_rows rows = {layer, 6, 7}, beyond = {layer, 6, 8};
        for (uint32_t t = 0; t < 7; t++) {
            qt_stored_row(&env, stream.salts[6 + t], layer, QT_K,
                          k + t * qt_row_bytes(&env, layer, QT_K));
            qt_stored_row(&env, stream.salts[6 + t], layer, QT_V,
                          v + t * qt_row_bytes(&env, layer, QT_V));
        }
        qt_assert_ok(quire_seq_write(env.pool, stream.seq, &rows, k, v));
        memset(k, 0xa5, sizeof k); /* read before the call returned */
        memset(v, 0xa5, sizeof v);
        qt_assert_status(quire_seq_write(env.pool, stream.seq, &beyond, k, v), QUIRE_E_INVAL);
        qt_assert_status(quire_seq_read(env.pool, stream.seq, &rows, k, v), QUIRE_E_INVAL);
    }
    qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
    qt_stream_check(&env, &stream);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

static void test_none_keeps_no_rows(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    struct quire_kv_cache cache;
    struct quire_rows rows = {0, 0, 1};
    struct quire_view view = quire_view_host(&rows, QUIRE_F32, 3, 2, 8);
    struct qt_batch batch = {0};
    uint8_t k[4096], v[4096];
    qt_open(&env, *state, &qt_plain);
    qt_stream_open(&env, &stream, 1);
    qt_append(&env, &stream, 10);
    qt_assert_status(quire_seq_kv_cache(env.pool, stream.seq, 0, &cache), QUIRE_E_UNSUPPORTED);
    qt_assert_status(quire_seq_read(env.pool, stream.seq, &rows, k, v), QUIRE_E_UNSUPPORTED);
    qt_assert_status(quire_seq_write(env.pool, stream.seq, &rows, k, v), QUIRE_E_UNSUPPORTED);
    qt_batch_add(&batch, &stream, 3, NULL);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    qt_assert_status(quire_step_write(env.pool, batch.step, 0, &view, &view), QUIRE_E_UNSUPPORTED);
    qt_assert_status(quire_step_attend(env.pool, batch.step, 0, &view, &view, NULL),
                     QUIRE_E_UNSUPPORTED);
    qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
    qt_stream_check(&env, &stream);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_stale_handles_are_refused_for_ever, QT_ALL),
        QT_TEST(test_handles_of_another_pool, QT_ALL),
        QT_TEST(test_max_seqs, QT_ALL),
        QT_TEST(test_seq_config, QT_ALL),
        QT_TEST(test_truncate_gives_blocks_back_at_once, QT_ALL),
        QT_TEST(test_pool_reset_ends_everything, QT_ALL),
        QT_TEST(test_kv_cache_says_where_every_element_lies, QT_KV | QT_DTYPES),
        QT_TEST(test_kv_cache_of_a_sequence_never_moves, QT_KV),
        QT_TEST(test_rows_make_a_round_trip, QT_KV),
        QT_TEST(test_rows_outside_are_refused, QT_KV),
        QT_TEST(test_rows_of_an_open_step_are_written_by_hand, QT_KV),
        QT_TEST(test_none_keeps_no_rows, QT_ON_NONE | QT_PAGED | QT_CONTIGUOUS),
    };
    return qt_run("seq", tests, QT_LEN(tests));
}
