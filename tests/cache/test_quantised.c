/* test_quantised.c - K and V in q8 and q4 through all that a pool does with rows.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A row lies in two places, its data and its scales; whoever moves rows must move both. What a row
 * must hold is known bit for bit (docs/formats/kv.md), so every test compares bytes. */
#include "support/attention_oracle.h"
#include "support/share_fixture.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t block_sizes[] = {1, 3, 4, 16, 63};

static void open_with(struct qt_env *env, const struct qt_variant *variant,
                      const struct qt_geometry *geometry, uint32_t block_size, uint32_t rotation)
{
    struct quire_pool_config config;
    qt_config(&config, variant, geometry);
    config.block_size = block_size;
    config.num_blocks = 1500;
    config.kv_rotation = rotation;
    qt_open_config(env, variant, geometry, &config);
}

static void fork_stream(struct qt_env *env, const struct qt_stream *from, uint32_t len,
                        struct qt_stream *fork)
{
    *fork = (struct qt_stream){.key = from->key + 100, .len = len};
    fork->salts = qt_alloc(env->config.max_seq_len * sizeof *fork->salts);
    memcpy(fork->salts, from->salts, len * sizeof *fork->salts);
    qt_assert_ok(quire_seq_fork(env->pool, from->seq, len, &fork->seq, NULL));
}

/* Append, cut, fork, diverge: copies of part of a block, and of part of a region. */
static void test_rows_survive_forks_and_cuts(void **state)
{
    for (size_t i = 0; i < QT_LEN(block_sizes); i++) {
        struct qt_env env;
        struct qt_stream stream, fork;
        open_with(&env, *state, &qt_plain, block_sizes[i], QUIRE_KV_ROTATION_AUTO);
        qt_stream_open(&env, &stream, 1);
        qt_append(&env, &stream, 37);
        fork_stream(&env, &stream, 22, &fork);
        qt_append(&env, &fork, 7);
        qt_stream_check(&env, &stream);
        qt_stream_check(&env, &fork);
        qt_stream_truncate(&env, &stream, 18);
        qt_append(&env, &stream, 25);
        qt_stream_truncate(&env, &fork, 3);
        qt_append(&env, &fork, 1);
        qt_stream_check(&env, &stream);
        qt_stream_check(&env, &fork);
        qt_stream_close(&env, &stream);
        qt_stream_check(&env, &fork);
        qt_stream_close(&env, &fork);
        qt_close(&env);
    }
}

/* A prefix that somebody computed is found, copied where it is written to, evicted, found again. */
static void test_rows_survive_sharing_and_eviction(void **state)
{
    static const uint32_t sizes[] = {3, 16};
    for (size_t i = 0; i < QT_LEN(sizes); i++) {
        struct qt_env env;
        struct qt_line a, b;
        uint32_t tokens[60];
        qt_share_open(&env, *state, &qt_plain, sizes[i], 160 / sizes[i]);
        qt_tokens(1, tokens, 60);
        qt_line_cache(&env, tokens, 50);
        assert_int_equal(qt_line_run(&env, &a, tokens, 60), 50);
        qt_tokens(2, tokens + 41, 19);
        assert_int_equal(qt_line_run(&env, &b, tokens, 60), 41);
        qt_line_check(&env, &a);
        qt_line_check(&env, &b);
        qt_line_close(&env, &a);
        qt_evict(&env, 2);
        qt_line_check(&env, &b);
        qt_line_close(&env, &b);
        qt_close(&env);
    }
}

/* Any bytes that are written by hand come back, and nothing beside them changes. */
static void test_rows_by_hand(void **state)
{
    struct qt_random random = {7};
    for (size_t i = 0; i < QT_LEN(block_sizes); i++) {
        struct qt_env env;
        struct qt_stream stream, other;
        open_with(&env, *state, &qt_groups, block_sizes[i], QUIRE_KV_ROTATION_AUTO);
        qt_stream_open(&env, &stream, 1);
        qt_stream_open(&env, &other, 2);
        qt_append(&env, &stream, 5);
        qt_append(&env, &other, 48);
        qt_append(&env, &stream, 43);
        for (uint32_t layer = 0; layer < 5; layer++) {
            struct quire_rows all = {layer, 0, 48}, some = {layer, 11, 20};
            if (qt_group_of(env.geometry, layer)->window != 0)
                all = some = (struct quire_rows){layer, 46, 2};
            size_t k_bytes = qt_row_bytes(&env, layer, QT_K);
            size_t v_bytes = qt_row_bytes(&env, layer, QT_V);
            uint8_t *k = qt_alloc(48 * k_bytes), *v = qt_alloc(48 * v_bytes);
            uint8_t *got_k = qt_alloc(48 * k_bytes), *got_v = qt_alloc(48 * v_bytes);
            qt_assert_ok(quire_seq_read(env.pool, stream.seq, &all, k, v));
            uint32_t skipped = some.first - all.first;
            for (size_t b = 0; b < some.count * k_bytes; b++)
                k[skipped * k_bytes + b] = (uint8_t)qt_next(&random);
            for (size_t b = 0; b < some.count * v_bytes; b++)
                v[skipped * v_bytes + b] = (uint8_t)qt_next(&random);
            qt_assert_ok(quire_seq_write(env.pool, stream.seq, &some, k + skipped * k_bytes,
                                         v + skipped * v_bytes));
            qt_assert_ok(quire_seq_read(env.pool, stream.seq, &all, got_k, got_v));
            assert_memory_equal(got_k, k, all.count * k_bytes);
            assert_memory_equal(got_v, v, all.count * v_bytes);
            qt_free(k);
            qt_free(v);
            qt_free(got_k);
            qt_free(got_v);
        }
        qt_stream_check(&env, &other);
        qt_stream_close(&env, &stream);
        qt_stream_close(&env, &other);
        qt_close(&env);
    }
}

/* Where docs/formats/kv.md says that a row lies, from the view of a layer. */
static void check_view(struct qt_env *env, const struct qt_stream *stream, uint32_t layer,
                       enum qt_plane plane)
{
    struct quire_kv_cache cache;
    const struct quire_memory_ops *memory = env->backend->memory;
    qt_assert_ok(quire_seq_kv_cache(env->pool, stream->seq, layer, &cache));
    const struct quire_view *view = plane == QT_K ? &cache.k : &cache.v;
    uint32_t dtype = plane == QT_K ? cache.dtype_k : cache.dtype_v;
    uint32_t dim = plane == QT_K ? cache.head_dim : cache.head_dim_v;
    uint64_t stride = plane == QT_K ? cache.block_stride_k : cache.block_stride_v;
    uint64_t data = quire_kv_data_bytes(dtype, dim), scales = quire_kv_scale_bytes(dtype, dim);
    uint64_t positions = cache.block_size != 0 ? cache.block_size : cache.capacity;
    uint32_t bytes = qt_row_bytes(env, layer, plane);
    uint8_t *want = qt_alloc(bytes), *got = qt_alloc(bytes);
    assert_int_equal(plane == QT_K ? cache.rotated_k : cache.rotated_v, qt_is_turned(env, plane));
    assert_int_equal(view->shape[1], positions);
    for (uint32_t t = 0; t < stream->len; t++) {
        uint64_t page = cache.block_size != 0 ? cache.paged_block_indices[t / positions] : 0;
        uint64_t unit = quire_dtype_bytes(dtype), row = t % positions;
        qt_stored_row(env, stream->salts[t], layer, plane, want);
        for (uint32_t head = 0; head < cache.num_kv_heads; head++) {
            uint64_t start = view->offset + (page * stride + head * view->stride[0]) * unit;
            uint8_t *to = got + head * (data + scales);
            qt_assert_ok(
                memory->download(env->backend, view->buffer, start + row * data, data, to));
            if (scales != 0)
                qt_assert_ok(memory->download(env->backend, view->buffer,
                                              start + positions * data + row * scales, scales,
                                              to + data));
        }
        qt_wait(env);
        assert_memory_equal(got, want, bytes);
    }
    qt_free(want);
    qt_free(got);
}

static void test_views_say_where_data_and_scales_lie(void **state)
{
    struct qt_env env;
    struct qt_stream first, stream;
    open_with(&env, *state, &qt_plain, 5, QUIRE_KV_ROTATION_AUTO);
    qt_stream_open(&env, &first, 1);
    qt_append(&env, &first, 8);
    qt_stream_open(&env, &stream, 2);
    qt_append(&env, &stream, 13);
    for (uint32_t layer = 0; layer < 2; layer++) {
        check_view(&env, &stream, layer, QT_K);
        check_view(&env, &stream, layer, QT_V);
    }
    qt_stream_close(&env, &first);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* Asked for or not, on every plane that is quantised; the bytes and the attention follow. */
static void test_rotation_is_a_choice(void **state)
{
    const struct qt_attend how = {.lse = true};
    for (uint32_t rotation = 0; rotation <= QUIRE_KV_ROTATION_HADAMARD; rotation++) {
        struct qt_env env;
        struct qt_stream stream;
        struct qt_batch batch = {0};
        open_with(&env, *state, &qt_groups, 4, rotation);
        qt_stream_open(&env, &stream, 1);
        qt_append(&env, &stream, 21);
        qt_batch_add(&batch, &stream, 4, NULL);
        qt_assert_ok(qt_batch_begin(&env, &batch));
        for (uint32_t layer = 0; layer < 5; layer++) {
            qt_assert_ok(qt_batch_write(&env, &batch, layer));
            qt_assert_ok(qt_batch_attend(&env, &batch, layer, &how));
            qt_oracle_check(&env, &batch, layer, &how);
        }
        qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
        qt_stream_check(&env, &stream);
        qt_stream_close(&env, &stream);
        qt_close(&env);
    }
}

/* What a tenant leaves is zeroed, scales and all. */
static void test_dropped_rows_leave_nothing(void **state)
{
    struct quire_pool_config config;
    struct qt_env env;
    struct qt_stream stream = {.key = 1};
    struct quire_seq_config tenant;
    uint64_t block_bytes, position_bytes;
    qt_config(&config, *state, &qt_plain);
    config.max_seqs = 2;
    qt_assert_ok(quire_pool_measure(&config, &block_bytes, &position_bytes));
    config.memory_bytes = 2 * 64 * position_bytes + 4096;
    config.num_blocks = 0;
    uint8_t *memory = aligned_alloc(64, config.memory_bytes / 64 * 64 + 64);
    assert_non_null(memory);
    memset(memory, 0, config.memory_bytes);
    config.memory = memory;
    qt_open_config(&env, *state, &qt_plain, &config);
    quire_seq_config_init(&tenant);
    tenant.salt = 77;
    stream.salts = qt_alloc(64 * sizeof *stream.salts);
    qt_assert_ok(quire_seq_create(env.pool, &tenant, &stream.seq));
    qt_append(&env, &stream, 23);
    qt_stream_check(&env, &stream);
    qt_stream_close(&env, &stream);
    qt_assert_ok(quire_pool_drop(env.pool, 77));
    qt_wait(&env);
    for (uint64_t i = 0; i < config.memory_bytes; i++)
        assert_int_equal(memory[i], 0);
    qt_close(&env);
    free(memory);
}

/* ---- what a pool takes and refuses ---- */

static void test_bytes_of_a_position(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    struct quire_pool_stats stats;
    struct qt_env env;
    struct qt_stream stream;
    uint64_t block_bytes, position_bytes;
    const uint32_t dim = qt_fit(variant, &qt_plain)->groups[0].head_dim;
    const struct {
        uint32_t dtype, row; /* 8.5 bits an element, and 6 */
    } rows[] = {{QUIRE_F16, 2 * dim}, {QUIRE_Q8, dim * 17 / 16}, {QUIRE_Q4, dim * 3 / 4}};
    uint64_t want = 0;
    for (size_t i = 0; i < QT_LEN(rows); i++) {
        want += rows[i].dtype == variant->dtype_k ? rows[i].row : 0;
        want += rows[i].dtype == variant->dtype_v ? rows[i].row : 0;
    }
    qt_config(&config, variant, &qt_plain);
    qt_assert_ok(quire_pool_measure(&config, &block_bytes, &position_bytes));
    assert_int_equal(position_bytes, 2 * 2 * want); /* 2 layers of 2 heads */
    assert_int_equal(block_bytes, 4 * position_bytes);
    qt_open(&env, variant, &qt_plain);
    qt_stream_open(&env, &stream, 1);
    qt_append(&env, &stream, 10);
    qt_stats(&env, &stats);
    assert_int_equal(stats.bytes_used, 3 * block_bytes);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

static void refuse(const struct quire_pool_config *config, quire_status status, const char *part,
                   const char *other)
{
    struct quire_pool *pool = NULL;
    struct quire_error error = {0};
    uint64_t bytes;
    qt_assert_status(quire_pool_create(config, &pool, &error), status);
    qt_assert_status(quire_pool_measure(config, &bytes, &bytes), status);
    if (strstr(error.message, part) == NULL || strstr(error.message, other) == NULL)
        fail_msg("\"%s\" says neither %s nor %s", error.message, part, other);
    assert_null(pool);
}

/* A head dim that a format cannot have is refused at creation, and the message says what can be. */
static void test_odd_head_dims_are_refused(void **state)
{
    const struct qt_variant *variant = *state;
    static const uint32_t odd[] = {1, 8, 24, 72, 100};
    struct quire_pool_config config;
    struct quire_backend *backend = qt_backend(variant->backend, 1);
    for (size_t i = 0; i < QT_LEN(odd) * 4; i++) {
        struct quire_group_config group = qt_plain.groups[0];
        const uint32_t dtype = i % 4 < 2 ? QUIRE_Q8 : QUIRE_Q4;
        bool of_k = i % 2 == 0;
        qt_config(&config, variant, &qt_plain);
        config.backend = backend;
        config.groups = &group;
        config.dtype_k = of_k ? dtype : QUIRE_F16;
        config.dtype_v = of_k ? QUIRE_F16 : dtype;
        group.head_dim = of_k ? odd[i / 4] : 64;
        group.head_dim_v = of_k ? 64 : odd[i / 4];
        refuse(&config, QUIRE_E_UNSUPPORTED, "multiples of 16", "f32 f16 bf16");
        config.dtype_k = config.dtype_v = QUIRE_F16;
        struct quire_pool *pool = NULL;
        qt_assert_ok(quire_pool_create(&config, &pool, NULL));
        quire_pool_destroy(pool);
    }
    qt_config(&config, variant, &qt_plain);
    config.backend = backend;
    config.kv_rotation = 3;
    refuse(&config, QUIRE_E_INVAL, "kv_rotation", "3");
    quire_backend_destroy(backend);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_rows_survive_forks_and_cuts, QT_KV | QT_QUANTISED),
        QT_TEST(test_rows_survive_sharing_and_eviction, QT_SHARE_KV | QT_QUANTISED),
        QT_TEST(test_rows_by_hand, QT_KV | QT_QUANTISED),
        QT_TEST(test_views_say_where_data_and_scales_lie, QT_KV | QT_QUANTISED),
        QT_TEST(test_rotation_is_a_choice, QT_KV | QT_QUANTISED),
        QT_TEST(test_dropped_rows_leave_nothing,
                QT_ON_CPU | QT_PAGED | QT_CONTIGUOUS | QT_QUANTISED),
        QT_TEST(test_bytes_of_a_position, QT_ALL | QT_QUANTISED),
        QT_TEST(test_odd_head_dims_are_refused, QT_ALL),
    };
    return qt_run("quantised", tests, QT_LEN(tests));
}
