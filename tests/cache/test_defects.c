/* test_defects.c - one test named after each known defect of other caches (DESIGN, section 3).
 * SPDX-License-Identifier: Apache-2.0
 *
 * The one about printing and aborting stands in test_misuse.c, beside the table it needs. */
#include "support/attention_oracle.h"

#include <stdlib.h>
#include <string.h>

static void stats_of(struct qt_env *env, struct quire_pool_stats *stats)
{
    qt_stats(env, stats);
    assert_int_equal(stats->blocks_free + stats->blocks_owned + stats->blocks_cached +
                         stats->blocks_in_transit,
                     stats->blocks_total);
}

/* One step with attention over a stream, checked against the oracle in every layer. */
static void attend_and_check(struct qt_env *env, struct qt_stream *stream, uint32_t n_new)
{
    const struct qt_attend how = {.lse = true};
    struct qt_batch batch = {0};
    qt_batch_add(&batch, stream, n_new, NULL);
    qt_assert_ok(qt_batch_begin(env, &batch));
    for (uint32_t layer = 0; layer < env->geometry->num_layers; layer++) {
        qt_assert_ok(qt_batch_write(env, &batch, layer));
        qt_assert_ok(qt_batch_attend(env, &batch, layer, &how));
        qt_oracle_check(env, &batch, layer, &how);
    }
    qt_assert_ok(qt_batch_commit(env, &batch, NULL));
}

/* The first blocks that a pool gives out include block 0, so padding with 0 would name it. Every
 * slot past the owned ones is QUIRE_BLOCK_NONE on the device, from the start, after a step that
 * kept nothing, after an abort and after a cut. */
static void assert_padding(struct qt_env *env, const struct qt_stream *stream, bool *zero_used)
{
    struct quire_kv_cache cache;
    uint32_t table[16];
    qt_assert_ok(quire_seq_kv_cache(env->pool, stream->seq, 0, &cache));
    qt_assert_ok(env->backend->memory->download(env->backend, cache.block_table.buffer,
                                                cache.block_table.offset, sizeof table, table));
    qt_wait(env);
    for (uint32_t i = 0; i < 16; i++) {
        if (i >= cache.paged_block_count)
            assert_int_equal(table[i], QUIRE_BLOCK_NONE);
        else
            assert_true(table[i] < cache.num_blocks);
        *zero_used = *zero_used || table[i] == 0;
    }
}

static void test_defect_table_padding_equals_a_valid_block_id(void **state)
{
    struct quire_pool_config config;
    struct qt_env env;
    struct qt_stream streams[4];
    struct qt_batch batch = {0};
    const uint32_t none[] = {0, 0, 0, 0};
    bool zero_used = false;
    qt_config(&config, *state, &qt_plain);
    config.num_blocks = 64;
    qt_open_config(&env, *state, &qt_plain, &config);
    for (uint32_t i = 0; i < 4; i++) {
        qt_stream_open(&env, &streams[i], i);
        assert_padding(&env, &streams[i], &zero_used);
        qt_append(&env, &streams[i], 9 * i + 5);
    }
    for (uint32_t i = 0; i < 4; i++)
        assert_padding(&env, &streams[i], &zero_used);
    for (uint32_t i = 0; i < 4; i++)
        qt_batch_add(&batch, &streams[i], 11, NULL);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    qt_assert_ok(qt_batch_commit(&env, &batch, none));
    for (uint32_t i = 0; i < 4; i++)
        assert_padding(&env, &streams[i], &zero_used);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    qt_assert_ok(qt_batch_abort(&env, &batch));
    for (uint32_t i = 0; i < 4; i++) {
        qt_stream_truncate(&env, &streams[i], 3);
        assert_padding(&env, &streams[i], &zero_used);
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    assert_true(zero_used);
    qt_close(&env);
}

/* As far as it can be without prefix sharing: the token after a length that is a multiple of P
 * goes to a new block of its own, and no row of a neighbour changes. */
static void test_defect_fully_cached_prompt_writes_into_foreign_block(void **state)
{
    struct qt_env env;
    struct qt_stream streams[3];
    struct quire_pool_stats before, after;
    qt_open(&env, *state, &qt_plain);
    for (uint32_t i = 0; i < 3; i++) {
        qt_stream_open(&env, &streams[i], i);
        qt_append(&env, &streams[i], 16);
    }
    stats_of(&env, &before);
    attend_and_check(&env, &streams[1], 1);
    stats_of(&env, &after);
    assert_int_equal(after.blocks_owned, before.blocks_owned + 1);
    qt_stream_truncate(&env, &streams[1], 16); /* the same once the block was given back */
    qt_append(&env, &streams[2], 1);
    attend_and_check(&env, &streams[1], 1);
    for (uint32_t i = 0; i < 3; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
}

static void test_defect_reset_or_truncate_keeps_blocks(void **state)
{
    struct qt_env env;
    struct qt_stream stream, other;
    struct quire_pool_stats stats;
    qt_open(&env, *state, &qt_groups);
    uint64_t tables = env.config.layout == QUIRE_LAYOUT_PAGED ? 3 : 1;
    qt_stream_open(&env, &stream, 1);
    qt_stream_open(&env, &other, 2);
    for (uint32_t round = 0; round < 50; round++) { /* would run dry if one block leaked a round */
        qt_append(&env, &stream, 64);
        qt_stream_truncate(&env, &stream, 13);
        stats_of(&env, &stats);
        assert_int_equal(stats.blocks_owned, 4 * tables);
        assert_int_equal(stats.bytes_used, 4 * tables * stats.block_bytes);
        qt_assert_ok(quire_seq_reset(env.pool, stream.seq));
        stream.len = 0;
        stats_of(&env, &stats);
        assert_int_equal(stats.blocks_owned, 0);
    }
    qt_stream_close(&env, &stream);
    qt_stream_close(&env, &other);
    qt_close(&env);
}

static void test_defect_double_free_found_only_in_debug(void **state)
{
    struct qt_env env;
    struct qt_stream stream, next;
    struct quire_pool_stats stats;
    qt_open(&env, *state, &qt_plain);
    qt_stream_open(&env, &stream, 1);
    qt_append(&env, &stream, 20);
    quire_seq old = stream.seq;
    qt_stream_close(&env, &stream);
    qt_assert_status(quire_seq_destroy(env.pool, old), QUIRE_E_INVAL);
    qt_stream_open(&env, &next, 2); /* lives in the same slot, with the same blocks */
    qt_append(&env, &next, 20);
    qt_assert_status(quire_seq_destroy(env.pool, old), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_truncate(env.pool, old, 0, NULL), QUIRE_E_INVAL);
    stats_of(&env, &stats);
    assert_int_equal(stats.blocks_owned, 5);
    assert_int_equal(stats.seqs, 1);
    qt_stream_check(&env, &next);
    qt_stream_close(&env, &next);
    qt_close(&env);
}

static void test_defect_capacity_unchecked_on_batched_path(void **state)
{
    struct qt_env env;
    struct qt_stream streams[4];
    struct qt_snapshot before;
    struct qt_batch batch = {0};
    quire_step step = {0};
    qt_open(&env, *state, &qt_plain);
    for (uint32_t i = 0; i < 4; i++) {
        qt_stream_open(&env, &streams[i], i);
        qt_append(&env, &streams[i], 58 + i);
    }
    for (uint32_t i = 0; i < 4; i++)
        qt_batch_add(&batch, &streams[i], 3, NULL); /* the last ends at 64 */
    qt_snapshot_take(&env, streams, 4, &before);
    for (uint32_t i = 0; i < 4; i++) { /* each item alone is one too long */
        struct quire_step_item items[4];
        memcpy(items, batch.items, sizeof items);
        items[i].n_new = 64 - streams[i].len + 1;
        qt_assert_status(quire_step_begin(env.pool, items, 4, &step, NULL), QUIRE_E_LIMIT);
        qt_snapshot_same(&env, streams, &before);
    }
    qt_batch_store(&env, &batch);
    for (uint32_t i = 0; i < 4; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
}

static void test_defect_full_quota_taken_up_front(void **state)
{
    struct quire_pool_config config;
    struct qt_env env;
    struct qt_stream streams[8];
    struct quire_pool_stats stats;
    qt_config(&config, *state, &qt_plain);
    config.num_blocks = 16; /* one full sequence; yet eight live in it */
    qt_open_config(&env, *state, &qt_plain, &config);
    for (uint32_t i = 0; i < 8; i++) {
        qt_stream_open(&env, &streams[i], i);
        stats_of(&env, &stats);
        assert_int_equal(stats.blocks_owned, i);
        qt_append(&env, &streams[i], 3);
    }
    for (uint32_t i = 0; i < 8; i++)
        qt_append(&env, &streams[i], 5);
    stats_of(&env, &stats);
    assert_int_equal(stats.blocks_free, 0);
    if (env.opaque && env.config.layout == QUIRE_LAYOUT_CONTIGUOUS)
        assert_int_equal(qt_opaque_committed_bytes(env.backend), stats.bytes_used);
    for (uint32_t i = 0; i < 8; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
}

static void test_defect_head_dim_other_than_128_read_wrongly(void **state)
{
    static const uint32_t dims[][2] = {{1, 1},   {7, 3},     {32, 32},   {64, 80},   {80, 64},
                                       {96, 96}, {112, 112}, {128, 128}, {128, 100}, {256, 192}};
    static const uint32_t layers[] = {0, 1};
    for (size_t i = 0; i < QT_LEN(dims); i++) {
        const struct qt_geometry geometry = {
            "dims", 2, 1, {{layers, 2, 4, 2, dims[i][0], dims[i][1], 0, 0}}};
        struct qt_env env;
        struct qt_stream stream;
        qt_open(&env, *state, &geometry);
        qt_stream_open(&env, &stream, i);
        attend_and_check(&env, &stream, 19);
        attend_and_check(&env, &stream, 1);
        qt_stream_check(&env, &stream);
        qt_stream_close(&env, &stream);
        qt_close(&env);
    }
}

static void test_defect_sliding_window_dropped_when_paged(void **state)
{
    static const uint32_t shapes[][2] = {{1, 0}, {3, 0}, {4, 2}, {5, 4}, {16, 1}, {64, 0}, {2, 9}};
    static const uint32_t layers[] = {0};
    for (size_t i = 0; i < QT_LEN(shapes); i++) {
        const struct qt_geometry geometry = {
            "window", 1, 1, {{layers, 1, 4, 2, 16, 0, shapes[i][0], shapes[i][1]}}};
        struct qt_env env;
        struct qt_stream stream;
        qt_open(&env, *state, &geometry);
        qt_stream_open(&env, &stream, i);
        attend_and_check(&env, &stream, 11);
        attend_and_check(&env, &stream, 1);
        attend_and_check(&env, &stream, 25);
        while (stream.len < 64)
            attend_and_check(&env, &stream, 1);
        qt_stream_close(&env, &stream);
        qt_close(&env);
    }
}

static void test_defect_paged_request_falls_through_without_paging(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    struct quire_pool *pool = NULL;
    struct quire_error error = {0};
    qt_config(&config, variant, &qt_plain);
    config.backend = qt_backend(variant->backend, 1);
    config.backend->caps.layouts = 1u << QUIRE_LAYOUT_CONTIGUOUS;
    config.layout = QUIRE_LAYOUT_PAGED;
    qt_assert_status(quire_pool_create(&config, &pool, &error), QUIRE_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "contiguous"));
    (void)setenv("QUIRE_PAGED_KV", "1", 1); /* asked for, so not silently dropped either */
    config.layout = QUIRE_LAYOUT_AUTO;
    qt_assert_status(quire_pool_create(&config, &pool, &error), QUIRE_E_UNSUPPORTED);
    (void)unsetenv("QUIRE_PAGED_KV");
    assert_null(pool);
    quire_backend_destroy(config.backend);
}

static void test_defect_one_table_upload_per_layer(void **state)
{
    struct qt_env env;
    struct qt_stream streams[4];
    struct quire_pool_stats stats;
    qt_open(&env, *state, &qt_groups);
    for (uint32_t i = 0; i < 4; i++)
        qt_stream_open(&env, &streams[i], i);
    for (uint32_t round = 1; round <= 10; round++) {
        struct qt_batch batch = {0};
        for (uint32_t i = 0; i < 4; i++)
            qt_batch_add(&batch, &streams[i], 1 + round % 5, NULL);
        uint64_t before = qt_opaque_calls(env.backend, QT_CALL_UPLOAD);
        qt_assert_ok(qt_batch_begin(&env, &batch));
        assert_int_equal(qt_opaque_calls(env.backend, QT_CALL_UPLOAD), before + 1);
        assert_int_equal(qt_opaque_calls(env.backend, QT_CALL_PLAN_BUILD), round);
        uint64_t own = 0;
        for (uint32_t layer = 0; layer < 5; layer++, own++)
            qt_assert_ok(qt_batch_write(&env, &batch, layer)); /* the fixture uploads its k and v */
        qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
        assert_int_equal(qt_opaque_calls(env.backend, QT_CALL_UPLOAD), before + 1 + own);
        stats_of(&env, &stats);
        assert_int_equal(stats.uploads, round);
    }
    /* and giving back never reads the device, nor waits for it */
    uint64_t downloads = qt_opaque_calls(env.backend, QT_CALL_DOWNLOAD);
    uint64_t waits = qt_opaque_calls(env.backend, QT_CALL_FENCE_WAIT);
    for (uint32_t i = 0; i < 4; i++) {
        qt_stream_truncate(&env, &streams[i], 5);
        qt_stream_close(&env, &streams[i]);
    }
    assert_int_equal(qt_opaque_calls(env.backend, QT_CALL_DOWNLOAD), downloads);
    assert_int_equal(qt_opaque_calls(env.backend, QT_CALL_FENCE_WAIT), waits);
    qt_close(&env);
}

/* Stats, the sum over sequences, the views and the check all say the same at any moment. */
static void test_defect_two_accountants_of_the_same_blocks(void **state)
{
    struct qt_env env;
    struct qt_stream streams[5];
    struct qt_random random = {21};
    qt_open(&env, *state, &qt_groups);
    uint32_t tables = env.config.layout == QUIRE_LAYOUT_PAGED ? 3 : 1;
    for (uint32_t i = 0; i < 5; i++)
        qt_stream_open(&env, &streams[i], i);
    for (uint32_t round = 0; round < 80; round++) {
        struct qt_stream *stream = &streams[qt_below(&random, 5)];
        struct quire_pool_stats stats;
        uint64_t owned = 0;
        if (stream->len < 64 && qt_chance(&random, 70))
            qt_append(&env, stream, 1 + qt_below(&random, 64 - stream->len));
        else
            qt_stream_truncate(&env, stream, qt_below(&random, stream->len + 1));
        for (uint32_t i = 0; i < 5; i++) {
            struct quire_kv_cache cache;
            owned += (streams[i].len + 3) / 4 * tables;
            if (env.has_kv && tables == 3) {
                qt_assert_ok(quire_seq_kv_cache(env.pool, streams[i].seq, 4, &cache));
                assert_int_equal(cache.paged_block_count, (streams[i].len + 3) / 4);
            }
        }
        stats_of(&env, &stats);
        assert_int_equal(stats.blocks_owned, owned);
        assert_int_equal(stats.bytes_used, owned * stats.block_bytes);
        assert_true(stats.blocks_peak >= owned && stats.blocks_peak <= stats.blocks_total);
        qt_assert_pool_ok(&env);
    }
    for (uint32_t i = 0; i < 5; i++)
        qt_stream_close(&env, &streams[i]);
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_defect_table_padding_equals_a_valid_block_id,
                QT_ON_CPU | QT_ON_OPAQUE | QT_PAGED),
        QT_TEST(test_defect_fully_cached_prompt_writes_into_foreign_block, QT_KV),
        QT_TEST(test_defect_reset_or_truncate_keeps_blocks, QT_ALL),
        QT_TEST(test_defect_double_free_found_only_in_debug, QT_ALL),
        QT_TEST(test_defect_capacity_unchecked_on_batched_path, QT_ALL),
        QT_TEST(test_defect_full_quota_taken_up_front, QT_ALL),
        QT_TEST(test_defect_head_dim_other_than_128_read_wrongly, QT_KV | QT_DTYPES),
        QT_TEST(test_defect_sliding_window_dropped_when_paged, QT_KV),
        QT_TEST(test_defect_paged_request_falls_through_without_paging,
                QT_ALL & ~(uint32_t)QT_CONTIGUOUS),
        QT_TEST(test_defect_one_table_upload_per_layer, QT_ON_OPAQUE | QT_PAGED | QT_CONTIGUOUS),
        QT_TEST(test_defect_two_accountants_of_the_same_blocks, QT_ALL),
    };
    return qt_run("defects", tests, QT_LEN(tests));
}
