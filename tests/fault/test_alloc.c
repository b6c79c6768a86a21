/* test_alloc.c - every allocation may fail: creation fails cleanly, and a running pool takes none.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/attention_oracle.h"

#include <string.h>

#include "base/base.h"

enum { ALLOCATIONS_MAX = 500 };

static void assert_nomem(quire_status status, const struct quire_error *error, int64_t n)
{
    if (status != QUIRE_E_NOMEM || error->status != QUIRE_E_NOMEM || error->message[0] == '\0')
        fail_msg("allocation %lld refused: %s \"%s\"", (long long)n, quire_status_name(status),
                 error->message);
}

static void test_backend_create(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_backend *const untouched = (struct quire_backend *)(uintptr_t)64;
    struct quire_backend_config config;
    quire_backend_config_init(&config);
    config.num_threads = 3;
    for (int forever = 0; forever < 2; forever++) {
        quire_status status = QUIRE_E_NOMEM;
        int64_t n = 0;
        for (; status != QUIRE_OK && n < ALLOCATIONS_MAX; n++) {
            struct quire_backend *backend = untouched;
            struct quire_error error = {0};
            quire__alloc_fail_after(n, forever != 0);
            status = quire_backend_create(variant->backend, &config, &backend, &error);
            quire__alloc_fail_after(-1, false);
            if (status == QUIRE_OK) {
                quire_backend_destroy(backend);
            } else {
                assert_nomem(status, &error, n);
                assert_ptr_equal(backend, untouched);
            }
        }
        assert_int_equal(status, QUIRE_OK);
        assert_true(n >= 2); /* one refusal at least */
    }
}

static void use(struct qt_env *env)
{
    struct qt_stream stream;
    qt_stream_open(env, &stream, 1);
    qt_append(env, &stream, 30);
    qt_stream_check(env, &stream);
    qt_stream_close(env, &stream);
}

static void test_pool_create(void **state)
{
    struct quire_pool *const untouched = (struct quire_pool *)(uintptr_t)64;
    struct qt_env env;
    qt_open(&env, *state, &qt_groups);
    for (int forever = 0; forever < 2; forever++) {
        quire_status status = QUIRE_E_NOMEM;
        int64_t n = 0;
        for (; status != QUIRE_OK && n < ALLOCATIONS_MAX; n++) {
            struct quire_pool *pool = untouched;
            struct quire_error error = {0};
            quire__alloc_fail_after(n, forever != 0);
            status = quire_pool_create(&env.config, &pool, &error);
            quire__alloc_fail_after(-1, false);
            if (status == QUIRE_OK) {
                quire_pool_destroy(pool);
            } else {
                assert_nomem(status, &error, n);
                assert_ptr_equal(pool, untouched);
            }
        }
        assert_int_equal(status, QUIRE_OK);
        assert_true(n > 10);
    }
    use(&env);
    qt_close(&env);
}

static void test_check_and_measure(void **state)
{
    uint64_t bytes = 0;
    struct qt_env env;
    struct quire_error error = {0};
    qt_open(&env, *state, &qt_groups);
    quire__alloc_fail_after(0, false);
    assert_nomem(quire_pool_check(env.pool, &error), &error, 0);
    quire__alloc_fail_after(0, false);
    qt_assert_status(quire_pool_measure(&env.config, &bytes, &bytes), QUIRE_E_NOMEM);
    quire__alloc_fail_after(-1, false);
    assert_int_equal(bytes, 0);
    use(&env);
    qt_close(&env);
}

/* The whole life of sequences and steps, with a heap that refuses everything. */
static void test_a_running_pool_allocates_nothing(void **state)
{
    const struct qt_attend how = {.lse = true, .alibi = true, .sink_logits = true};
    struct qt_env env;
    struct qt_stream streams[3];
    qt_open(&env, *state, &qt_groups);
    quire__alloc_fail_after(0, true);
    for (uint32_t i = 0; i < 3; i++)
        qt_stream_open(&env, &streams[i], i);
    for (uint32_t round = 0; round < 6; round++) {
        struct qt_batch batch = {0};
        for (uint32_t i = 0; i < 3; i++)
            qt_batch_add(&batch, &streams[i], 1 + 3 * i, NULL);
        qt_assert_ok(qt_batch_begin(&env, &batch));
        for (uint32_t layer = 0; env.has_kv && layer < 5; layer++) {
            qt_assert_ok(qt_batch_write(&env, &batch, layer));
            qt_assert_ok(qt_batch_attend(&env, &batch, layer, &how));
            qt_oracle_check(&env, &batch, layer, &how);
        }
        if (round % 3 == 2)
            qt_assert_ok(qt_batch_abort(&env, &batch));
        else
            qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
        qt_stream_truncate(&env, &streams[2], streams[2].len / 2);
    }
    for (uint32_t i = 0; i < 3; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    qt_assert_ok(quire_pool_reset(env.pool));
    quire__alloc_fail_after(-1, false);
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_backend_create, QT_ON_CPU | QT_ON_NONE | QT_PAGED),
        QT_TEST(test_pool_create, QT_ALL),
        QT_TEST(test_check_and_measure, QT_ALL),
        QT_TEST(test_a_running_pool_allocates_nothing, QT_ALL),
    };
    return qt_run("alloc faults", tests, QT_LEN(tests));
}
