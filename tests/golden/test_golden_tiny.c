/* test_golden_tiny.c - tiny models against a float64 forward pass, and against themselves.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Bounds of the values: 5e-3 with K and V in f32, 0.05 in f16 and 0.1 in bf16, which has a tenth of
 * the digits. Against themselves there is no bound: layouts, threads, cuts and batches give the
 * same bits. */
#include "golden_file.h"

#include <stdio.h>
#include <string.h>

static const char *const variants[] = {"f32_4_4",  "mixed_4_2",  "mixed_9_3",
                                       "q4_1_4_1", "gemma3_4_2", "gemma3_6_1"};

/* Every weight type by itself, in small shapes. */
static const char *const weight_types[] = {"F32",  "F16",  "Q4_0", "Q4_1", "Q5_0", "Q5_1",
                                           "Q8_0", "Q4_K", "Q5_K", "Q6_K", "BF16"};

static const char *open_variant(const char *variant, struct qt_golden *golden)
{
    char file[64], arguments[512];
    (void)snprintf(file, sizeof file, "tiny/%s.json", variant);
    qt_golden_open(golden, file);
    qt_golden_arguments(golden, arguments, sizeof arguments);
    return qt_tiny_model(variant, arguments);
}

static void check_variants(const struct qt_engine_config *config, double bound)
{
    for (size_t i = 0; i < QT_LEN(variants); i++) {
        struct qt_golden golden;
        struct qt_engine engine;
        qt_engine_open(&engine, open_variant(variants[i], &golden), config);
        qt_golden_check(&golden, &engine, bound, 0.05);
        qt_engine_close(&engine);
        qt_golden_close(&golden);
    }
}

static void test_values_f32(void **state)
{
    (void)state;
    check_variants(&(struct qt_engine_config){.dtype = QUIRE_F32}, 5e-3);
}

static void test_values_f32_contiguous(void **state)
{
    (void)state;
    check_variants(&(struct qt_engine_config){.layout = QUIRE_LAYOUT_CONTIGUOUS}, 5e-3);
}

static void test_values_f32_plain_kernels(void **state)
{
    (void)state;
    check_variants(&(struct qt_engine_config){.cpu_level = "ref"}, 5e-3);
}

static void test_values_f16(void **state)
{
    (void)state;
    check_variants(&(struct qt_engine_config){.dtype = QUIRE_F16}, 0.05);
}

static void test_values_bf16(void **state)
{
    (void)state;
    for (size_t i = 0; i < QT_LEN(variants); i++) {
        struct qt_golden golden;
        struct qt_engine engine;
        const struct qt_engine_config config = {.dtype = QUIRE_BF16};
        qt_engine_open(&engine, open_variant(variants[i], &golden), &config);
        qt_golden_check(&golden, &engine, 0.1, 0.2);
        qt_engine_close(&engine);
        qt_golden_close(&golden);
    }
}

/* ---- the same bits ---- */

static const struct qt_engine_config manners[] = {
    {.layout = QUIRE_LAYOUT_CONTIGUOUS, .threads = 2},
    {.layout = QUIRE_LAYOUT_CONTIGUOUS, .threads = 3, .block_size = 7, .max_tokens = 33},
    {.block_size = 1, .threads = 2},
    {.block_size = 7, .threads = 3, .max_tokens = 5},
    {.block_size = 16, .threads = 1, .max_tokens = 64},
    {.block_size = 64, .threads = 2},
    {.block_size = 16, .threads = 2, .opaque = true},
    {.layout = QUIRE_LAYOUT_CONTIGUOUS, .threads = 1, .opaque = true},
};

static void random_ids(uint32_t *ids, uint32_t count, uint32_t vocabulary)
{
    struct qt_random random = {vocabulary};
    for (uint32_t i = 0; i < count; i++)
        ids[i] = qt_below(&random, vocabulary);
}

/* All positions' logits in every manner equal those of one thread and one step. */
static void check_bits(const char *path, uint32_t dtype)
{
    enum { COUNT = 150 };
    uint32_t ids[COUNT];
    struct qt_engine engine;
    qt_engine_open(&engine, path, &(struct qt_engine_config){.threads = 1, .dtype = dtype});
    const uint32_t vocabulary = engine.vocabulary;
    random_ids(ids, COUNT, vocabulary);
    float *want = qt_engine_logits(&engine, ids, COUNT, QT_WHOLE);
    qt_engine_close(&engine);
    for (size_t i = 0; i < QT_LEN(manners); i++) {
        struct qt_engine_config config = manners[i];
        config.dtype = dtype;
        qt_engine_open(&engine, path, &config);
        for (int cut = QT_WHOLE; cut < QT_CUT_COUNT; cut++) {
            float *have = qt_engine_logits(&engine, ids, COUNT, (enum qt_cut)cut);
            if (memcmp(have, want, (size_t)COUNT * vocabulary * sizeof *have) != 0)
                fail_msg("%s: manner %zu, cut %d: other bits", path, i, cut);
            qt_free(have);
        }
        qt_engine_close(&engine);
    }
    qt_free(want);
}

static void test_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < QT_LEN(variants); i++) {
        struct qt_golden golden;
        const char *path = open_variant(variants[i], &golden);
        check_bits(path, QUIRE_F32);
        check_bits(path, QUIRE_F16);
        qt_golden_close(&golden);
    }
}

static void test_bits_of_each_weight_type(void **state)
{
    (void)state;
    for (size_t i = 0; i < QT_LEN(weight_types); i++) {
        char name[32], arguments[96];
        (void)snprintf(name, sizeof name, "type_%s", weight_types[i]);
        (void)snprintf(arguments, sizeof arguments,
                       "--type %s --heads 6 --kv-heads 3 --head-dim 32 --rope-factors",
                       weight_types[i]);
        check_bits(qt_tiny_model(name, arguments), QUIRE_F16);
    }
}

/* ---- batches ---- */

enum { SEQS = 5, LENGTH_MAX = 60 };

struct batch_rows {
    float *last[SEQS]; /* [V] of each sequence */
    uint32_t vocabulary, calls;
};

static quire_status take_row(void *context, const struct quire__logits *logits)
{
    struct batch_rows *rows = context;
    assert_int_equal(logits->count, 1);
    memcpy(rows->last[logits->item], logits->values, rows->vocabulary * sizeof(float));
    rows->calls++;
    return QUIRE_OK;
}

/* Sequences of different lengths that go on together, some with many tokens and some with one, give
 * the bits that each gives alone. */
static void check_batch(const char *variant)
{
    static const uint32_t first[SEQS] = {1, 40, 17, 3, 30}, second[SEQS] = {1, 1, 20, 1, 7};
    struct qt_golden golden;
    struct qt_engine engine;
    const struct qt_engine_config config = {.max_seqs = SEQS + 1, .dtype = QUIRE_F16};
    qt_engine_open(&engine, open_variant(variant, &golden), &config);
    uint32_t ids[SEQS][LENGTH_MAX];
    quire_seq seqs[SEQS];
    struct quire__batch_item items[SEQS];
    struct batch_rows rows = {.vocabulary = engine.vocabulary};
    struct quire_error error = {0};
    for (uint32_t i = 0; i < SEQS; i++) {
        random_ids(ids[i], LENGTH_MAX, engine.vocabulary - i);
        rows.last[i] = qt_alloc(engine.vocabulary * sizeof(float));
        assert_int_equal(quire_seq_create(engine.pool, NULL, &seqs[i]), QUIRE_OK);
        items[i] = (struct quire__batch_item){
            .seq = seqs[i], .tokens = ids[i], .count = first[i], .want = QUIRE__WANT_NONE};
    }
    struct quire__batch batch = {
        .items = items, .num_items = SEQS, .logits = take_row, .context = &rows};
    assert_int_equal(quire__runner_step(engine.runner, &batch, &error), QUIRE_OK);
    assert_int_equal(rows.calls, 0);
    for (uint32_t i = 0; i < SEQS; i++) {
        items[i].tokens = ids[i] + first[i];
        items[i].count = second[i];
        items[i].want = QUIRE__WANT_LAST;
    }
    assert_int_equal(quire__runner_step(engine.runner, &batch, &error), QUIRE_OK);
    assert_int_equal(rows.calls, SEQS);
    for (uint32_t i = 0; i < SEQS; i++) {
        uint32_t count = first[i] + second[i];
        float *alone = qt_engine_logits(&engine, ids[i], count, QT_WHOLE);
        assert_memory_equal(rows.last[i], alone + (size_t)(count - 1) * engine.vocabulary,
                            engine.vocabulary * sizeof(float));
        qt_free(alone);
        qt_free(rows.last[i]);
    }
    qt_engine_close(&engine);
    qt_golden_close(&golden);
}

static void test_batch(void **state)
{
    (void)state;
    check_batch("mixed_9_3");
    check_batch("gemma3_4_2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_f32),
        cmocka_unit_test(test_values_f32_contiguous),
        cmocka_unit_test(test_values_f32_plain_kernels),
        cmocka_unit_test(test_values_f16),
        cmocka_unit_test(test_values_bf16),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_bits_of_each_weight_type),
        cmocka_unit_test(test_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
