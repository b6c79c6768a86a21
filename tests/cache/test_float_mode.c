/* test_float_mode.c - results do not show the caller's floating-point rules, and NaN stays seen.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/cache_fixture.h"

#include <fenv.h>
#include <math.h>
#include <string.h>

#include <quire/quire.h>

enum { TOKENS = 40, HEADS = 4, DIM = 32, FLOATS = TOKENS * HEADS * DIM };

static float q[FLOATS], k[FLOATS], v[FLOATS];

static void fill(float *x, uint32_t seed)
{
    for (uint32_t i = 0; i < FLOATS; i++)
        x[i] = sinf((float)(i * seed % 1009)) * (i % 7 == 0 ? 1e-39f : 1.0f);
}

/* Attends over one prompt and puts the output in out. */
static void attend_once(uint32_t num_threads, float *out)
{
    struct quire_backend_config backend_config;
    quire_backend_config_init(&backend_config);
    backend_config.num_threads = num_threads;
    struct quire_pool_config config;
    quire_pool_config_init(&config);
    const uint32_t layer = 0;
    struct quire_group_config group = {&layer, 1, HEADS, HEADS, DIM, DIM, 0, 0};
    config.groups = &group;
    config.num_groups = 1;
    config.dtype_k = config.dtype_v = QUIRE_F32;
    config.num_blocks = 16;
    assert_int_equal(quire_backend_create("cpu", &backend_config, &config.backend, NULL), 0);
    struct quire_pool *pool = NULL;
    assert_int_equal(quire_pool_create(&config, &pool, NULL), QUIRE_OK);
    quire_seq seq;
    quire_step step;
    assert_int_equal(quire_seq_create(pool, NULL, &seq), QUIRE_OK);
    struct quire_step_item item = {seq, TOKENS, NULL};
    assert_int_equal(quire_step_begin(pool, &item, 1, &step, NULL), QUIRE_OK);
    struct quire_view views[4] = {
        quire_view_host(q, QUIRE_F32, TOKENS, HEADS, DIM),
        quire_view_host(k, QUIRE_F32, TOKENS, HEADS, DIM),
        quire_view_host(v, QUIRE_F32, TOKENS, HEADS, DIM),
        quire_view_host(out, QUIRE_F32, TOKENS, HEADS, DIM),
    };
    assert_int_equal(quire_step_write(pool, step, 0, &views[1], &views[2]), QUIRE_OK);
    assert_int_equal(quire_step_attend(pool, step, 0, &views[0], &views[3], NULL), QUIRE_OK);
    assert_int_equal(quire_step_commit(pool, step, NULL), QUIRE_OK);
    quire_pool_destroy(pool);
    quire_backend_destroy(config.backend);
}

static void test_rounding_of_the_caller_does_not_show(void **state)
{
    (void)state;
    static const int modes[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    static float plain[FLOATS], other[FLOATS];
    fill(q, 3);
    fill(k, 5);
    fill(v, 7);
    attend_once(2, plain);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        for (uint32_t num_threads = 1; num_threads <= 3; num_threads++) {
            assert_int_equal(fesetround(modes[i]), 0);
            attend_once(num_threads, other);
            int mode = fegetround();
            assert_int_equal(fesetround(FE_TONEAREST), 0);
            assert_int_equal(mode, modes[i]);
            assert_memory_equal(plain, other, sizeof plain);
        }
    }
}

static void test_flushed_denormals_of_the_caller_do_not_show(void **state)
{
    (void)state;
#if defined(__x86_64__)
    static float plain[FLOATS], other[FLOATS];
    fill(q, 3);
    fill(k, 5);
    fill(v, 7);
    attend_once(2, plain);
    uint32_t saved = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(saved | 0x8040u); /* flush to zero, denormals are zero */
    attend_once(2, other);
    __builtin_ia32_ldmxcsr(saved);
    assert_memory_equal(plain, other, sizeof plain);
#else
    skip();
#endif
}

/* A query that is not a number must not become a plausible zero. */
static void test_not_a_number_stays_seen(void **state)
{
    (void)state;
    static float out[FLOATS];
    fill(q, 3);
    fill(k, 5);
    fill(v, 7);
    q[0] = NAN;
    attend_once(2, out);
    assert_true(out[0] != out[0]);
    assert_true(out[DIM] == out[DIM]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding_of_the_caller_does_not_show),
        cmocka_unit_test(test_flushed_denormals_of_the_caller_do_not_show),
        cmocka_unit_test(test_not_a_number_stays_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
