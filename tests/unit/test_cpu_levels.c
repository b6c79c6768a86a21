/* test_cpu_levels.c - what quire/cpu.h says of levels and of choices, and that its roof is one.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernel_fixture.h"

#include <quire/cpu.h>

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

static bool level_named(const char *name, struct quire_cpu_level *level)
{
    for (uint32_t i = 0;; i++) {
        *level = (struct quire_cpu_level){.struct_size = sizeof *level};
        if (quire_cpu_level(i, level) != QUIRE_OK)
            return false;
        if (strcmp(level->name, name) == 0)
            return true;
    }
}

static void every_level_runs_or_says_what_it_lacks(void **state)
{
    (void)state;
    static const char *const names[] = {"ref",        "generic", "avx2", "avx512",
                                        "avx512bf16", "amx",     "neon", "neonbf16"};
    struct quire_cpu_level level = {.struct_size = sizeof level};
    uint32_t runs = 0, count = 0;
    for (; quire_cpu_level(count, &level) == QUIRE_OK; count++) {
        const struct quire__kernels *kernels = level.lacks == NULL ? kt_level(runs) : NULL;
        if (level.lacks == NULL) {
            assert_non_null(kernels);
            assert_string_equal(level.name, kernels->level);
            assert_int_equal(level.products, kernels->products);
            runs++;
        } else {
            assert_true(strlen(level.lacks) > 0);
        }
    }
    assert_null(kt_level(runs));
    assert_int_equal(count, QT_LEN(names));
    for (size_t i = 0; i < QT_LEN(names); i++)
        assert_true(level_named(names[i], &level));
    assert_int_equal(quire_cpu_level(count, &level), QUIRE_E_NOTFOUND);
    assert_int_equal(quire_cpu_level(0, NULL), QUIRE_E_INVAL);
    level.struct_size--;
    assert_int_equal(quire_cpu_level(0, &level), QUIRE_E_INVAL);
}

static struct quire_cpu_choice choose(const char *cap, uint32_t num_threads)
{
    struct quire_backend_config config;
    struct quire_cpu_choice choice = {.struct_size = sizeof choice};
    struct quire_error error;
    quire_backend_config_init(&config);
    config.cpu_level = cap;
    config.num_threads = num_threads;
    if (quire_cpu_choose(&config, &choice, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
    return choice;
}

static void a_choice_is_what_is_made(void **state)
{
    (void)state;
    struct quire_cpu_level level;
    for (uint32_t i = 0; i < QUIRE__NUM_LEVELS; i++) {
        level = (struct quire_cpu_level){.struct_size = sizeof level};
        assert_int_equal(quire_cpu_level(i, &level), QUIRE_OK);
        struct quire_cpu_choice choice = choose(level.name, 3);
        struct quire_backend *backend = kt_backend(level.name, 1);
        assert_string_equal(strchr(backend->caps.arithmetic, '/') + 1, choice.level.name);
        quire_backend_destroy(backend);
        assert_int_equal(choice.num_threads, 3);
        assert_string_equal(choice.threads_why, "as asked for");
        if (level.lacks == NULL) {
            assert_string_equal(choice.level.name, level.name);
            assert_string_equal(choice.level_why, "cpu_level caps it");
        } else {
            assert_non_null(strstr(choice.level_why, "not "));
        }
        assert_true(strlen(choice.processor) > 0);
    }
}

static void the_environment_caps_too(void **state)
{
    (void)state;
    const char *saved = getenv("QUIRE_CPU");
    char *copy = saved != NULL ? strdup(saved) : NULL;
    struct quire_cpu_choice choice = {.struct_size = sizeof choice};
    struct quire_error error = {0};
    assert_int_equal(setenv("QUIRE_CPU", "generic", 1), 0);
    assert_int_equal(quire_cpu_choose(NULL, &choice, &error), QUIRE_OK);
    assert_string_equal(choice.level.name, "generic");
    assert_string_equal(choice.level_why, "QUIRE_CPU caps it");
    assert_int_equal(choice.num_threads, quire__cpu_count());
    assert_int_equal(setenv("QUIRE_CPU", "sse9", 1), 0);
    assert_int_equal(quire_cpu_choose(NULL, &choice, &error), QUIRE_E_INVAL);
    assert_non_null(strstr(error.message, "sse9"));
    assert_string_equal(choice.level.name, "generic"); /* unchanged */
    assert_int_equal(copy != NULL ? setenv("QUIRE_CPU", copy, 1) : unsetenv("QUIRE_CPU"), 0);
    free(copy);
    assert_int_equal(quire_cpu_choose(NULL, NULL, &error), QUIRE_E_INVAL);
    choice.struct_size = 0;
    assert_int_equal(quire_cpu_choose(NULL, &choice, &error), QUIRE_E_INVAL);
    struct quire_backend_config config;
    quire_backend_config_init(&config);
    config.num_threads = 100000;
    choice.struct_size = sizeof choice;
    assert_int_equal(quire_cpu_choose(&config, &choice, &error), QUIRE_E_INVAL);
}

static void rates_are_of_the_cpu_backend(void **state)
{
    (void)state;
    enum { BYTES = 9 << 20 };
    static _Alignas(64) uint8_t memory[BYTES];
    struct quire_backend *backend = NULL, *none = NULL;
    double rate = 0;
    memset(memory, 7, sizeof memory);
    assert_int_equal(quire_backend_create("none", NULL, &none, NULL), QUIRE_OK);
    assert_int_equal(quire_cpu_read_rate(none, memory, BYTES, &rate), QUIRE_E_UNSUPPORTED);
    assert_int_equal(quire_cpu_product_rate(none, QUIRE_F32, &rate), QUIRE_E_UNSUPPORTED);
    quire_backend_destroy(none);
    for (uint32_t i = 0; kt_level(i) != NULL; i++) {
        backend = kt_backend(kt_level(i)->level, 2);
        rate = 0;
        assert_int_equal(quire_cpu_read_rate(backend, memory, BYTES, &rate), QUIRE_OK);
        assert_true(rate > 1e6);
        const uint32_t products[] = {QUIRE_F32, QUIRE_BF16, QUIRE_Q8};
        for (size_t p = 0; p < QT_LEN(products); p++) {
            rate = 0;
            assert_int_equal(quire_cpu_product_rate(backend, products[p], &rate), QUIRE_OK);
            assert_true(rate > 1e6);
        }
        assert_int_equal(quire_cpu_read_rate(backend, memory, BYTES - 1, &rate), QUIRE_E_INVAL);
        assert_int_equal(quire_cpu_read_rate(backend, memory, 0, &rate), QUIRE_E_INVAL);
        assert_int_equal(quire_cpu_read_rate(backend, NULL, BYTES, &rate), QUIRE_E_INVAL);
        assert_int_equal(quire_cpu_read_rate(backend, memory, BYTES, NULL), QUIRE_E_INVAL);
        assert_int_equal(quire_cpu_product_rate(backend, QUIRE_F16, &rate), QUIRE_E_INVAL);
        assert_int_equal(quire_cpu_product_rate(backend, QUIRE_F32, NULL), QUIRE_E_INVAL);
        quire_backend_destroy(backend);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_runs_or_says_what_it_lacks),
        cmocka_unit_test(a_choice_is_what_is_made),
        cmocka_unit_test(the_environment_caps_too),
        cmocka_unit_test(rates_are_of_the_cpu_backend),
    };
    return cmocka_run_group_tests_name("unit/cpu_levels", tests, NULL, NULL);
}
