/* test_golden_gemma3.c - Gemma 3 of QUIRE_TEST_MODEL_GEMMA3 against a float64 forward pass.
 * SPDX-License-Identifier: Apache-2.0 */
#include "golden_file.h"

#include <string.h>

/* Prompts, one of them longer than the window, and the long text, with K and V in one dtype. */
static void check_values(const struct qt_engine_config *config, double bound)
{
    struct qt_golden golden;
    struct qt_engine engine;
    qt_engine_open(&engine, qt_real_model("QUIRE_TEST_MODEL_GEMMA3"), config);
    qt_golden_open(&golden, "gemma3/golden.json");
    qt_golden_check(&golden, &engine, bound, 0.05);
    qt_golden_check_nll(&golden, &engine, 1e-3);
    qt_golden_close(&golden);
    qt_engine_close(&engine);
}

static void test_values_f32(void **state)
{
    (void)state;
    check_values(&(struct qt_engine_config){.dtype = QUIRE_F32, .context = 1024}, 5e-3);
}

static void test_values_f16(void **state)
{
    (void)state;
    check_values(&(struct qt_engine_config){.dtype = QUIRE_F16,
                                            .context = 1024,
                                            .layout = QUIRE_LAYOUT_CONTIGUOUS},
                 0.05);
}

/* The same bits in every layout, with any number of threads, in every cut, on both sides of where
 * the window begins to hide positions. */
static void test_bits(void **state)
{
    (void)state;
    enum { FROM = 500, COUNT = 540 };
    static const struct {
        struct qt_engine_config config;
        enum qt_cut cut;
    } manners[] = {
        {{.layout = QUIRE_LAYOUT_CONTIGUOUS, .threads = 2}, QT_RANDOM},
        {{.block_size = 7, .threads = 3}, QT_RANDOM},
        {{.block_size = 16, .threads = 2, .max_tokens = 16}, QT_WHOLE},
        {{.block_size = 64, .threads = 2}, QT_SINGLES},
    };
    struct qt_golden golden;
    struct qt_engine engine;
    const char *path = qt_real_model("QUIRE_TEST_MODEL_GEMMA3");
    qt_golden_open(&golden, "gemma3/golden.json");
    const json_t *text = json_array_get(json_object_get(golden.root, "nll"), 0);
    uint32_t count = 0;
    uint32_t *ids = qt_golden_ids(json_object_get(text, "ids"), &count);
    assert_true(count >= COUNT);
    struct qt_engine_config config = {.threads = 1, .dtype = QUIRE_F16, .context = COUNT};
    qt_engine_open(&engine, path, &config);
    float *want = qt_engine_logits_from(&engine, ids, COUNT, FROM, QT_WHOLE);
    const size_t bytes = (size_t)(COUNT - FROM) * engine.vocabulary * sizeof *want;
    qt_engine_close(&engine);
    for (size_t i = 0; i < QT_LEN(manners); i++) {
        config = manners[i].config;
        config.dtype = QUIRE_F16;
        config.context = COUNT;
        qt_engine_open(&engine, path, &config);
        float *have = qt_engine_logits_from(&engine, ids, COUNT, FROM, manners[i].cut);
        if (memcmp(have, want, bytes) != 0)
            fail_msg("manner %zu: other bits", i);
        qt_free(have);
        qt_engine_close(&engine);
    }
    qt_free(want);
    qt_free(ids);
    qt_golden_close(&golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_f32),
        cmocka_unit_test(test_values_f16),
        cmocka_unit_test(test_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
