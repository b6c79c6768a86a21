/* test_step.c - the step as a transaction: all or nothing, keep, abort, several open, tokens.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/cache_fixture.h"

#include <string.h>

static void open_small(struct qt_env *env, const struct qt_variant *variant,
                       const struct qt_geometry *geometry, uint32_t num_blocks)
{
    struct quire_pool_config config;
    qt_config(&config, variant, geometry);
    config.num_blocks = num_blocks;
    config.max_step_tokens = 64;
    qt_open_config(env, variant, geometry, &config);
}

static uint64_t blocks_free(struct qt_env *env)
{
    struct quire_pool_stats stats;
    qt_stats(env, &stats);
    return stats.blocks_free;
}

/* Tables that the accountant keeps: a contiguous region counts once for all groups. */
static uint32_t tables(const struct qt_env *env)
{
    return env->config.layout == QUIRE_LAYOUT_PAGED ? env->geometry->num_groups : 1;
}

/* ---- reservation ---- */

static void test_nospace_says_how_many_and_changes_nothing(void **state)
{
    struct qt_env env;
    struct qt_stream streams[3];
    struct qt_snapshot before;
    struct qt_batch batch = {0};
    open_small(&env, *state, &qt_groups, 24); /* paged: 8 a table */
    uint32_t extra = 24 / tables(&env) - 8;   /* contiguous counts once, so it has 16 more */
    for (uint32_t i = 0; i < 3; i++)
        qt_stream_open(&env, &streams[i], i);
    qt_append(&env, &streams[0], 5); /* two blocks */
    qt_append(&env, &streams[1], extra > 0 ? 48 : 4);
    uint32_t left = (uint32_t)blocks_free(&env) / tables(&env);
    qt_snapshot_take(&env, streams, 3, &before);
    qt_batch_add(&batch, &streams[0], 3, NULL);                /* fits its second block */
    qt_batch_add(&batch, &streams[1], 1, NULL);                /* one more */
    qt_batch_add(&batch, &streams[2], 4 * left + 1 + 4, NULL); /* left + 2 more: 3 too many */
    batch.missing = 77;
    qt_assert_status(qt_batch_begin(&env, &batch), QUIRE_E_NOSPACE);
    assert_int_equal(batch.missing, 3 * tables(&env));
    assert_int_equal(batch.step.id, 0);
    qt_snapshot_same(&env, streams, &before);
    qt_assert_status(quire_step_begin(env.pool, batch.items, 3, &batch.step, NULL),
                     QUIRE_E_NOSPACE);
    qt_snapshot_same(&env, streams, &before);
    for (uint32_t i = 0; i < 3; i++)
        qt_stream_check(&env, &streams[i]);
    memset(&batch, 0, sizeof batch);
    qt_batch_add(&batch, &streams[0], 3, NULL);
    qt_batch_add(&batch, &streams[1], 1, NULL);
    qt_batch_add(&batch, &streams[2], 4 * left - 4, NULL); /* exactly all */
    qt_batch_store(&env, &batch);
    assert_int_equal(blocks_free(&env), 0);
    for (uint32_t i = 0; i < 3; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    assert_int_equal(blocks_free(&env), 24);
    qt_close(&env);
}

static void test_blocks_are_taken_one_at_a_time(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    open_small(&env, *state, &qt_groups, 60);
    qt_stream_open(&env, &stream, 1);
    assert_int_equal(blocks_free(&env), 60);
    for (uint32_t len = 1; len <= 33; len++) {
        qt_append(&env, &stream, 1);
        assert_int_equal(blocks_free(&env), 60 - (len + 3) / 4 * tables(&env));
    }
    qt_stream_check(&env, &stream);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

static void test_limits(void **state)
{
    struct qt_env env;
    struct qt_stream streams[2];
    struct qt_snapshot before;
    struct qt_batch batch = {0};
    qt_open(&env, *state, &qt_plain); /* 64 positions a sequence, 48 rows a step */
    qt_stream_open(&env, &streams[0], 1);
    qt_stream_open(&env, &streams[1], 2);
    qt_append(&env, &streams[0], 40);
    qt_snapshot_take(&env, streams, 2, &before);
    struct quire_step_item items[2] = {{streams[0].seq, 25, NULL}, {streams[1].seq, 1, NULL}};
    quire_step step = {0};
    qt_assert_status(quire_step_begin(env.pool, items, 2, &step, NULL), QUIRE_E_LIMIT);
    items[0].n_new = UINT32_MAX;
    qt_assert_status(quire_step_begin(env.pool, items, 2, &step, NULL), QUIRE_E_LIMIT);
    items[0].n_new = 24;
    items[1].n_new = 25;
    qt_assert_status(quire_step_begin(env.pool, items, 2, &step, NULL), QUIRE_E_LIMIT);
    items[1].n_new = UINT32_MAX - 10;
    qt_assert_status(quire_step_begin(env.pool, items, 2, &step, NULL), QUIRE_E_LIMIT);
    qt_snapshot_same(&env, streams, &before);
    assert_int_equal(step.id, 0);
    qt_batch_add(&batch, &streams[0], 24, NULL);
    qt_batch_add(&batch, &streams[1], 24, NULL);
    qt_batch_store(&env, &batch); /* to the last position and the last row */
    qt_stream_check(&env, &streams[0]);
    items[0].n_new = 1;
    qt_assert_status(quire_step_begin(env.pool, items, 1, &step, NULL), QUIRE_E_LIMIT);
    qt_stream_truncate(&env, &streams[0], 63);
    qt_append(&env, &streams[0], 1);
    qt_stream_check(&env, &streams[0]);
    for (uint32_t i = 0; i < 2; i++)
        qt_stream_close(&env, &streams[i]);
    qt_close(&env);
}

static void test_more_items_than_sequences(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    struct quire_step_item items[QT_ITEMS_MAX];
    quire_step step;
    qt_open(&env, *state, &qt_plain);
    qt_stream_open(&env, &stream, 1);
    for (size_t i = 0; i < QT_LEN(items); i++)
        items[i] = (struct quire_step_item){stream.seq, 1, NULL};
    qt_assert_status(quire_step_begin(env.pool, items, QT_ITEMS_MAX, &step, NULL), QUIRE_E_LIMIT);
    qt_append(&env, &stream, 3);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* ---- keep and abort ---- */

static void test_commit_keeps_what_it_is_told(void **state)
{
    struct qt_env env;
    struct qt_stream streams[3];
    struct qt_batch batch = {0};
    const uint32_t keep[] = {0, 3, 6}, too_many[] = {0, 3, 7};
    open_small(&env, *state, &qt_groups, 90);
    for (uint32_t i = 0; i < 3; i++) {
        qt_stream_open(&env, &streams[i], i);
        qt_append(&env, &streams[i], 4 * i + 3);
    }
    uint64_t before = blocks_free(&env);
    for (uint32_t i = 0; i < 3; i++)
        qt_batch_add(&batch, &streams[i], 6, NULL);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    for (uint32_t layer = 0; env.has_kv && layer < 5; layer++)
        qt_assert_ok(qt_batch_write(&env, &batch, layer));
    assert_int_equal(blocks_free(&env), before - 3 * 2 * tables(&env));
    qt_assert_status(qt_batch_commit(&env, &batch, too_many), QUIRE_E_INVAL);
    assert_int_equal(blocks_free(&env), before - 3 * 2 * tables(&env));
    qt_assert_ok(qt_batch_commit(&env, &batch, keep));
    /* 3 stays at 3; 7 becomes 10 and needs one block more; 11 becomes 17 and needs two */
    assert_int_equal(blocks_free(&env), before - 3 * tables(&env));
    for (uint32_t i = 0; i < 3; i++)
        qt_stream_check(&env, &streams[i]);
    memset(&batch, 0, sizeof batch);
    for (uint32_t i = 0; i < 3; i++)
        qt_batch_add(&batch, &streams[i], 5, NULL);
    qt_batch_store(&env, &batch);
    for (uint32_t i = 0; i < 3; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
}

static void test_abort_restores_every_sequence(void **state)
{
    struct qt_env env;
    struct qt_stream streams[3];
    struct qt_snapshot before, after;
    struct qt_batch batch = {0};
    open_small(&env, *state, &qt_groups, 90);
    for (uint32_t i = 0; i < 3; i++) {
        qt_stream_open(&env, &streams[i], i);
        if (i > 0)
            qt_append(&env, &streams[i], 4 * i + i);
    }
    qt_snapshot_take(&env, streams, 3, &before);
    for (uint32_t i = 0; i < 3; i++)
        qt_batch_add(&batch, &streams[i], 9, NULL);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    if (env.has_kv) /* half of it is written */
        qt_assert_ok(qt_batch_write(&env, &batch, 3));
    qt_assert_ok(qt_batch_abort(&env, &batch));
    qt_snapshot_take(&env, streams, 3, &after);
    assert_int_equal(after.stats.steps_aborted, before.stats.steps_aborted + 1);
    assert_int_equal(after.stats.blocks_free, before.stats.blocks_free);
    assert_int_equal(after.stats.bytes_used, before.stats.bytes_used);
    assert_int_equal(after.stats.open_steps, 0);
    assert_memory_equal(after.lens, before.lens, sizeof before.lens);
    for (uint32_t i = 0; i < 3; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_append(&env, &streams[i], 10);
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
}

static void test_a_layer_may_be_written_again(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    struct qt_batch batch = {0};
    qt_open(&env, *state, &qt_groups);
    qt_stream_open(&env, &stream, 1);
    qt_append(&env, &stream, 3);
    stream.key = 2;
    qt_batch_add(&batch, &stream, 7, NULL);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    for (uint32_t layer = 5; layer-- > 0;) /* in any order */
        qt_assert_ok(qt_batch_write(&env, &batch, layer));
    for (uint32_t i = 3; i < 10; i++)
        stream.salts[i] += 1;
    for (uint32_t layer = 0; layer < 5; layer++)
        qt_assert_ok(qt_batch_write(&env, &batch, layer));
    qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
    qt_stream_check(&env, &stream);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* ---- several steps at once ---- */

static void test_steps_on_disjoint_sequences_may_be_open_at_once(void **state)
{
    struct qt_env env;
    struct qt_stream streams[6];
    struct qt_batch batches[3] = {0};
    qt_open(&env, *state, &qt_groups);
    for (uint32_t i = 0; i < 6; i++) {
        qt_stream_open(&env, &streams[i], i);
        qt_append(&env, &streams[i], i + 2);
    }
    for (uint32_t b = 0; b < 3; b++) {
        qt_batch_add(&batches[b], &streams[b], 5, NULL);
        qt_batch_add(&batches[b], &streams[5 - b], 3, NULL);
        qt_assert_ok(qt_batch_begin(&env, &batches[b]));
    }
    for (uint32_t layer = 0; env.has_kv && layer < 5; layer++) {
        for (uint32_t b = 0; b < 3; b++)
            qt_assert_ok(qt_batch_write(&env, &batches[b], layer));
    }
    qt_assert_ok(qt_batch_commit(&env, &batches[1], NULL));
    qt_assert_ok(qt_batch_abort(&env, &batches[0]));
    qt_append(&env, &streams[0], 4); /* free again while step 2 is open */
    qt_append(&env, &streams[4], 2);
    qt_assert_ok(qt_batch_commit(&env, &batches[2], NULL));
    for (uint32_t i = 0; i < 6; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
}

static void test_open_steps_are_limited(void **state)
{
    struct qt_env env;
    struct qt_stream streams[5];
    struct qt_batch batches[5] = {0};
    struct quire_pool_stats stats;
    qt_open(&env, *state, &qt_plain);
    for (uint32_t i = 0; i < 5; i++) {
        qt_stream_open(&env, &streams[i], i);
        qt_batch_add(&batches[i], &streams[i], 2, NULL);
    }
    for (uint32_t i = 0; i < 4; i++)
        qt_assert_ok(qt_batch_begin(&env, &batches[i]));
    qt_assert_status(qt_batch_begin(&env, &batches[4]), QUIRE_E_BUSY);
    qt_stats(&env, &stats);
    assert_int_equal(stats.open_steps, 4);
    assert_int_equal(stats.seqs, 5);
    qt_assert_status(quire_pool_reset(env.pool), QUIRE_E_BUSY);
    qt_assert_ok(qt_batch_abort(&env, &batches[2]));
    qt_assert_ok(qt_batch_begin(&env, &batches[4]));
    assert_int_not_equal(batches[4].step.id, batches[2].step.id);
    qt_assert_status(qt_batch_commit(&env, &batches[2], NULL), QUIRE_E_INVAL);
    qt_close(&env); /* frees a pool with open steps */
    for (uint32_t i = 0; i < 5; i++)
        qt_stream_free(&streams[i]);
}

/* ---- tokens ---- */

static void assert_tokens(struct qt_env *env, quire_seq seq, const uint32_t *want, uint32_t count)
{
    uint32_t tokens[64] = {0}, got = 77;
    qt_assert_ok(quire_seq_tokens(env->pool, seq, tokens, 64, &got));
    assert_int_equal(got, count);
    if (count > 0)
        assert_memory_equal(tokens, want, count * sizeof *want);
}

/* A step with or without tokens that keeps `keep` of n. */
static void tell(struct qt_env *env, struct qt_stream *stream, const uint32_t *tokens, uint32_t n,
                 uint32_t keep)
{
    struct qt_batch batch = {0};
    qt_batch_add(&batch, stream, n, tokens);
    qt_assert_ok(qt_batch_begin(env, &batch));
    for (uint32_t layer = 0; env->has_kv && layer < env->geometry->num_layers; layer++)
        qt_assert_ok(qt_batch_write(env, &batch, layer));
    qt_assert_ok(qt_batch_commit(env, &batch, &keep));
}

/* Rows that nobody wrote are not those of their tokens. */
static void test_tokens_of_a_step_that_wrote_nothing_are_unknown(void **state)
{
    const uint32_t tokens[] = {1, 2, 3};
    struct qt_env env;
    struct qt_stream stream;
    struct qt_batch batch = {0};
    qt_open(&env, *state, &qt_plain);
    qt_stream_open(&env, &stream, 1);
    tell(&env, &stream, tokens, 3, 3);
    qt_batch_add(&batch, &stream, 3, tokens);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
    assert_tokens(&env, stream.seq, tokens, 3);
    /* nor does a write of nothing make them so, or one of rows that were there */
    qt_stream_truncate(&env, &stream, 3);
    struct quire_rows added = {0, 3, 1}, there = {0, 0, 1};
    uint8_t row[256] = {0};
    batch = (struct qt_batch){0};
    qt_batch_add(&batch, &stream, 3, tokens);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    qt_assert_ok(quire_seq_write(env.pool, stream.seq, &added, NULL, NULL));
    qt_assert_ok(quire_seq_write(env.pool, stream.seq, &there, row, row));
    qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
    assert_tokens(&env, stream.seq, tokens, 3);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

static void test_tokens_end_where_a_step_had_none(void **state)
{
    const uint32_t a[] = {10, 11, 12, 13, 14}, b[] = {20, UINT32_MAX, 22};
    const uint32_t both[] = {10, 11, 12, 20, UINT32_MAX, 22};
    const uint32_t cut[] = {10, 11, 12, 20, 20, UINT32_MAX, 22};
    struct qt_env env;
    struct qt_stream stream;
    qt_open(&env, *state, &qt_plain);
    qt_stream_open(&env, &stream, 1);
    assert_tokens(&env, stream.seq, NULL, 0);
    tell(&env, &stream, a, 5, 3);
    assert_tokens(&env, stream.seq, both, 3);
    tell(&env, &stream, b, 3, 3);
    assert_tokens(&env, stream.seq, both, 6);
    tell(&env, &stream, NULL, 4, 0); /* kept nothing, so nothing is unknown */
    tell(&env, &stream, NULL, 4, 2);
    assert_tokens(&env, stream.seq, both, 6);
    tell(&env, &stream, b, 3, 3); /* after a gap */
    assert_tokens(&env, stream.seq, both, 6);
    qt_stream_truncate(&env, &stream, 7);
    assert_tokens(&env, stream.seq, both, 6);
    tell(&env, &stream, b, 3, 1);
    assert_tokens(&env, stream.seq, both, 6);
    qt_stream_truncate(&env, &stream, 4); /* the gap is cut off */
    assert_tokens(&env, stream.seq, both, 4);
    tell(&env, &stream, b, 3, 3);
    assert_tokens(&env, stream.seq, cut, 7);
    qt_assert_ok(quire_seq_reset(env.pool, stream.seq));
    assert_tokens(&env, stream.seq, NULL, 0);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

static void test_tokens_of_an_aborted_step_are_forgotten(void **state)
{
    const uint32_t a[] = {1, 2, 3}, b[] = {7, 8, 9}, all[] = {1, 2, 3, 1, 2, 3};
    struct qt_env env;
    struct qt_stream stream;
    struct qt_batch batch = {0};
    qt_open(&env, *state, &qt_plain);
    qt_stream_open(&env, &stream, 1);
    tell(&env, &stream, a, 3, 3);
    qt_batch_add(&batch, &stream, 3, b);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    assert_tokens(&env, stream.seq, all, 3);
    qt_assert_ok(qt_batch_abort(&env, &batch));
    assert_tokens(&env, stream.seq, all, 3);
    tell(&env, &stream, a, 3, 3);
    assert_tokens(&env, stream.seq, all, 6);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* Tokens of one sequence never touch those of its neighbours, to the last position. */
static void test_tokens_of_full_sequences(void **state)
{
    uint32_t tokens[48];
    struct qt_env env;
    struct qt_stream streams[8];
    qt_open(&env, *state, &qt_plain);
    for (uint32_t i = 0; i < 8; i++) {
        qt_stream_open(&env, &streams[i], i);
        for (uint32_t done = 0; done < 64; done += 32) {
            for (uint32_t t = 0; t < 32; t++)
                tokens[t] = i << 16 | (done + t);
            tell(&env, &streams[i], tokens, 32, 32);
        }
    }
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t got[64], count;
        qt_assert_ok(quire_seq_tokens(env.pool, streams[i].seq, got, 64, &count));
        assert_int_equal(count, 64);
        for (uint32_t t = 0; t < 64; t++)
            assert_int_equal(got[t], i << 16 | t);
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
}

static void test_counters_of_steps(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    struct quire_pool_stats stats;
    qt_open(&env, *state, &qt_plain);
    qt_stream_open(&env, &stream, 1);
    for (uint32_t i = 1; i <= 6; i++) {
        struct qt_batch batch = {0};
        qt_batch_add(&batch, &stream, 7, NULL);
        qt_assert_ok(qt_batch_begin(&env, &batch));
        if (i % 3 == 0)
            qt_assert_ok(qt_batch_abort(&env, &batch));
        else
            qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
        qt_stats(&env, &stats);
        assert_int_equal(stats.steps_committed + stats.steps_aborted, i);
        assert_int_equal(stats.steps_aborted, i / 3);
        assert_int_equal(stats.uploads, env.has_kv ? i : 0);
    }
    assert_int_equal(stats.blocks_owned, 7);
    assert_int_equal(stats.bytes_used, 7 * stats.block_bytes);
    assert_int_equal(stats.blocks_peak, 9);
    qt_stream_close(&env, &stream);
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_owned + stats.bytes_used + stats.seqs, 0);
    assert_int_equal(stats.blocks_peak, 9);
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_nospace_says_how_many_and_changes_nothing, QT_ALL),
        QT_TEST(test_blocks_are_taken_one_at_a_time, QT_ALL),
        QT_TEST(test_limits, QT_ALL),
        QT_TEST(test_more_items_than_sequences, QT_ALL),
        QT_TEST(test_commit_keeps_what_it_is_told, QT_ALL),
        QT_TEST(test_abort_restores_every_sequence, QT_ALL),
        QT_TEST(test_a_layer_may_be_written_again, QT_KV),
        QT_TEST(test_steps_on_disjoint_sequences_may_be_open_at_once, QT_ALL),
        QT_TEST(test_open_steps_are_limited, QT_ALL),
        QT_TEST(test_tokens_of_a_step_that_wrote_nothing_are_unknown, QT_KV),
        QT_TEST(test_tokens_end_where_a_step_had_none, QT_ALL),
        QT_TEST(test_tokens_of_an_aborted_step_are_forgotten, QT_ALL),
        QT_TEST(test_tokens_of_full_sequences, QT_ALL),
        QT_TEST(test_counters_of_steps, QT_ALL),
    };
    return qt_run("step", tests, QT_LEN(tests));
}
