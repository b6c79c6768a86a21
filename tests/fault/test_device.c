/* test_device.c - a device that refuses, fails late, or is lost.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/attention_oracle.h"

#include <string.h>

static void test_pool_create_on_a_refusing_device(void **state)
{
    static const enum qt_call calls[] = {QT_CALL_BUFFER_CREATE, QT_CALL_PLAN_CREATE, QT_CALL_FILL,
                                         QT_CALL_UPLOAD};
    static const quire_status statuses[] = {QUIRE_E_NOMEM, QUIRE_E_DEVICE};
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    struct quire_pool *pool = NULL;
    qt_config(&config, variant, &qt_groups);
    config.backend = qt_backend("opaque", 3);
    for (size_t i = 0; i < QT_LEN(calls) * QT_LEN(statuses); i++) {
        quire_status wanted = statuses[i % 2], got = wanted;
        for (uint64_t n = 0; got != QUIRE_OK; n++) {
            struct quire_error error = {0};
            qt_opaque_fail(config.backend, calls[i / 2], n, wanted);
            got = quire_pool_create(&config, &pool, &error);
            qt_opaque_fail_none(config.backend);
            if (got != QUIRE_OK) {
                assert_int_equal(got, wanted);
                assert_int_equal(error.status, wanted);
                assert_null(pool);
                assert_int_equal(qt_opaque_live_objects(config.backend), 0);
            }
        }
        quire_pool_destroy(pool);
        pool = NULL;
    }
    assert_int_equal(qt_opaque_live_objects(config.backend), 0);
    quire_backend_destroy(config.backend);
}

/* ---- refusals of a running device ---- */

static void test_begin_that_runs_out_of_device_memory_changes_nothing(void **state)
{
    static const enum qt_call calls[] = {QT_CALL_UPLOAD, QT_CALL_PLAN_BUILD, QT_CALL_COMMIT};
    struct qt_env env;
    struct qt_stream streams[2];
    qt_open(&env, *state, &qt_groups);
    for (uint32_t i = 0; i < 2; i++) {
        qt_stream_open(&env, &streams[i], i);
        qt_append(&env, &streams[i], 7);
    }
    for (uint32_t i = 0; i < 8 * QT_LEN(calls); i++) {
        struct qt_batch batch = {0};
        struct qt_snapshot before, after;
        enum qt_call call = calls[i / 8];
        bool asked = call != QT_CALL_COMMIT || env.config.layout == QUIRE_LAYOUT_CONTIGUOUS;
        if (call != QT_CALL_COMMIT && i % 8 > 0)
            continue;
        qt_snapshot_take(&env, streams, 2, &before);
        for (uint32_t j = 0; j < 2; j++)
            qt_batch_add(&batch, &streams[j], 6, NULL);
        qt_opaque_fail(env.backend, call, i % 8, QUIRE_E_NOMEM);
        qt_assert_status(qt_batch_begin(&env, &batch), asked ? QUIRE_E_NOMEM : QUIRE_OK);
        qt_opaque_fail_none(env.backend);
        if (!asked)
            qt_assert_ok(qt_batch_abort(&env, &batch));
        qt_snapshot_take(&env, streams, 2, &after);
        assert_int_equal(after.stats.blocks_free, before.stats.blocks_free);
        assert_int_equal(after.stats.open_steps, 0);
        assert_memory_equal(after.lens, before.lens, sizeof before.lens);
        for (uint32_t j = 0; j < 2; j++)
            qt_stream_check(&env, &streams[j]);
        qt_assert_pool_ok(&env);
    }
    for (uint32_t j = 0; j < 2; j++) {
        qt_append(&env, &streams[j], 20);
        qt_stream_check(&env, &streams[j]);
        qt_stream_close(&env, &streams[j]);
    }
    qt_close(&env);
}

/* ---- failures ---- */

/* A pool that saw a device error refuses work, still gives blocks back, and starts afresh. */
static void assert_failed_until_reset(struct qt_env *env, struct qt_stream *streams)
{
    struct quire_step_item item = {streams[0].seq, 1, NULL};
    struct quire_rows rows = {0, 0, 1};
    struct quire_pool_stats stats;
    uint8_t k[256] = {0};
    quire_step step = {0};
    quire_seq seq = {0};
    for (int i = 0; i < 2; i++) {
        qt_assert_status(quire_step_begin(env->pool, &item, 1, &step, NULL), QUIRE_E_DEVICE);
        qt_assert_status(quire_seq_create(env->pool, NULL, &seq), QUIRE_E_DEVICE);
        qt_assert_status(quire_seq_read(env->pool, streams[0].seq, &rows, k, NULL), QUIRE_E_DEVICE);
        qt_assert_status(quire_seq_write(env->pool, streams[0].seq, &rows, k, NULL),
                         QUIRE_E_DEVICE);
    }
    assert_int_equal(step.id + seq.id, 0);
    qt_assert_ok(quire_pool_check(env->pool, NULL));
    qt_assert_ok(quire_seq_truncate(env->pool, streams[0].seq, 1, NULL));
    qt_assert_ok(quire_seq_destroy(env->pool, streams[0].seq));
    qt_assert_ok(quire_pool_reset(env->pool));
    qt_stats(env, &stats);
    assert_int_equal(stats.blocks_free, stats.blocks_total);
    assert_int_equal(stats.seqs + stats.open_steps, 0);
    qt_assert_status(quire_seq_destroy(env->pool, streams[1].seq), QUIRE_E_INVAL);
}

static void start(struct qt_env *env, struct qt_stream *streams)
{
    for (uint32_t i = 0; i < 2; i++) {
        qt_stream_open(env, &streams[i], i);
        qt_append(env, &streams[i], 5 + i);
    }
    qt_wait(env);
}

/* After a reset everything works as on the first day. */
static void finish(struct qt_env *env, struct qt_stream *streams)
{
    const struct qt_attend how = {.lse = true};
    for (uint32_t i = 0; i < 2; i++)
        qt_stream_free(&streams[i]);
    start(env, streams);
    struct qt_batch batch = {0};
    qt_batch_add(&batch, &streams[0], 9, NULL);
    qt_batch_add(&batch, &streams[1], 1, NULL);
    qt_assert_ok(qt_batch_begin(env, &batch));
    for (uint32_t layer = 0; layer < env->geometry->num_layers; layer++) {
        qt_assert_ok(qt_batch_write(env, &batch, layer));
        qt_assert_ok(qt_batch_attend(env, &batch, layer, &how));
        qt_oracle_check(env, &batch, layer, &how);
    }
    qt_assert_ok(qt_batch_commit(env, &batch, NULL));
    for (uint32_t i = 0; i < 2; i++) {
        qt_stream_check(env, &streams[i]);
        qt_stream_close(env, &streams[i]);
    }
    qt_close(env);
}

static void test_a_call_that_fails_with_device(void **state)
{
    static const enum qt_call calls[] = {QT_CALL_UPLOAD, QT_CALL_PLAN_BUILD, QT_CALL_WRITE,
                                         QT_CALL_ATTEND};
    const struct qt_attend how = {0};
    for (size_t i = 0; i < QT_LEN(calls); i++) {
        struct qt_env env;
        struct qt_stream streams[2];
        struct qt_batch batch = {0};
        qt_open(&env, *state, &qt_plain);
        start(&env, streams);
        qt_batch_add(&batch, &streams[0], 6, NULL);
        bool opens = i >= 2;
        if (opens)
            qt_assert_ok(qt_batch_begin(&env, &batch));
        if (calls[i] == QT_CALL_ATTEND)
            qt_assert_ok(qt_batch_write(&env, &batch, 0));
        qt_opaque_fail(env.backend, calls[i], 0, QUIRE_E_DEVICE);
        qt_assert_status(!opens                      ? qt_batch_begin(&env, &batch)
                         : calls[i] == QT_CALL_WRITE ? qt_batch_write(&env, &batch, 0)
                                                     : qt_batch_attend(&env, &batch, 0, &how),
                         QUIRE_E_DEVICE);
        qt_opaque_fail_none(env.backend);
        if (opens) {
            qt_assert_status(quire_pool_reset(env.pool), QUIRE_E_BUSY);
            qt_assert_ok(qt_batch_abort(&env, &batch));
        }
        assert_failed_until_reset(&env, streams);
        finish(&env, streams);
    }
}

/* Work that fails after its call returned: the next begin says so at the latest, whatever command
 * it was. */
static void test_late_device_error_lasts_until_reset(void **state)
{
    for (uint64_t n = 0; n < 40; n++) {
        struct qt_env env;
        struct qt_stream streams[2];
        struct qt_batch batch = {0};
        bool open = false;
        qt_open(&env, *state, &qt_plain);
        start(&env, streams);
        qt_opaque_fail(env.backend, QT_CALL_EXECUTE, n, QUIRE_E_DEVICE);
        for (uint32_t round = 0; round < 40; round++) { /* goes on until it is told */
            memset(&batch, 0, sizeof batch);
            qt_batch_add(&batch, &streams[round % 2], 1, NULL);
            if (qt_batch_begin(&env, &batch) != QUIRE_OK)
                break;
            open = qt_batch_write(&env, &batch, 0) != QUIRE_OK ||
                   qt_batch_write(&env, &batch, 1) != QUIRE_OK;
            if (open)
                break;
            qt_assert_ok(qt_batch_commit(&env, &batch, NULL)); /* never waits, so never fails */
        }
        if (open)
            qt_assert_ok(qt_batch_abort(&env, &batch));
        assert_failed_until_reset(&env, streams);
        finish(&env, streams);
    }
}

static void test_a_lost_device_stays_lost(void **state)
{
    struct qt_env env;
    struct qt_stream streams[2];
    struct qt_snapshot before;
    uint8_t k[256];
    struct quire_rows rows = {0, 0, 1};
    qt_open(&env, *state, &qt_plain);
    start(&env, streams);
    qt_opaque_fail(env.backend, QT_CALL_EXECUTE, 0, QUIRE_E_DEVICE);
    qt_assert_status(quire_seq_read(env.pool, streams[1].seq, &rows, k, NULL), QUIRE_E_DEVICE);
    qt_snapshot_take(&env, streams, 2, &before);
    for (int i = 0; i < 3; i++) {
        qt_opaque_fail(env.backend, QT_CALL_RECOVER, 0, QUIRE_E_DEVICE);
        qt_assert_status(quire_pool_reset(env.pool), QUIRE_E_DEVICE);
        qt_snapshot_same(&env, streams, &before);
    }
    assert_failed_until_reset(&env, streams); /* came back after all */
    finish(&env, streams);
}

/* Giving blocks back cannot fail, so when the device refuses to forget them the pool must not go on
 * as if it had: either begin answers DEVICE, or the tables are right at the next step. */
static void test_blocks_given_back_to_a_refusing_device(void **state)
{
    static const quire_status statuses[] = {QUIRE_E_NOMEM, QUIRE_E_DEVICE};
    for (size_t i = 0; i < QT_LEN(statuses); i++) {
        struct qt_env env;
        struct qt_stream streams[2];
        struct qt_batch batch = {0};
        qt_open(&env, *state, &qt_plain);
        start(&env, streams);
        qt_append(&env, &streams[1], 30);
        qt_opaque_fail(env.backend, QT_CALL_FILL, 0, statuses[i]);
        qt_stream_truncate(&env, &streams[1], 3);
        qt_opaque_fail_none(env.backend);
        qt_batch_add(&batch, &streams[1], 4, NULL);
        quire_status status = qt_batch_begin(&env, &batch);
        if (status == QUIRE_OK) {
            for (uint32_t layer = 0; layer < 2; layer++)
                qt_assert_ok(qt_batch_write(&env, &batch, layer));
            qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
            qt_assert_pool_ok(&env);
            qt_assert_ok(quire_pool_reset(env.pool));
        } else {
            qt_assert_status(status, QUIRE_E_DEVICE);
            assert_failed_until_reset(&env, streams);
        }
        finish(&env, streams);
    }
}

/* Nothing of a pool is read or waited for after a step: commit and the giving back of blocks go on
 * while the queue is full. */
static void test_commit_never_waits(void **state)
{
    struct qt_env env;
    struct qt_stream streams[2];
    qt_open(&env, *state, &qt_plain);
    start(&env, streams);
    uint64_t waits = qt_opaque_calls(env.backend, QT_CALL_FENCE_WAIT);
    uint64_t downloads = qt_opaque_calls(env.backend, QT_CALL_DOWNLOAD);
    for (uint32_t round = 0; round < 8; round++) {
        struct qt_batch batch = {0};
        const uint32_t keep[] = {1, 2};
        qt_batch_add(&batch, &streams[0], 5, NULL);
        qt_batch_add(&batch, &streams[1], 3, NULL);
        qt_assert_ok(qt_batch_begin(&env, &batch));
        for (uint32_t layer = 0; layer < 2; layer++)
            qt_assert_ok(qt_batch_write(&env, &batch, layer));
        qt_assert_ok(round % 2 == 0 ? qt_batch_commit(&env, &batch, keep)
                                    : qt_batch_abort(&env, &batch));
        qt_stream_truncate(&env, &streams[1], streams[1].len - 1);
    }
    assert_int_equal(qt_opaque_calls(env.backend, QT_CALL_FENCE_WAIT), waits);
    assert_int_equal(qt_opaque_calls(env.backend, QT_CALL_DOWNLOAD), downloads);
    for (uint32_t i = 0; i < 2; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
}

int main(void)
{
    enum { OPAQUE = QT_ON_OPAQUE | QT_PAGED | QT_CONTIGUOUS };
    static const struct qt_test tests[] = {
        QT_TEST(test_pool_create_on_a_refusing_device, OPAQUE),
        QT_TEST(test_begin_that_runs_out_of_device_memory_changes_nothing, OPAQUE),
        QT_TEST(test_a_call_that_fails_with_device, OPAQUE),
        QT_TEST(test_late_device_error_lasts_until_reset, OPAQUE),
        QT_TEST(test_a_lost_device_stays_lost, OPAQUE),
        QT_TEST(test_blocks_given_back_to_a_refusing_device, OPAQUE),
        QT_TEST(test_commit_never_waits, OPAQUE),
    };
    return qt_run("device faults", tests, QT_LEN(tests));
}
