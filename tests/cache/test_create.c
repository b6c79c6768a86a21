/* test_create.c - what quire_pool_create makes and what it refuses, and how it chooses a layout.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/cache_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- refusals: one changed number each ---- */

struct refusal {
    const char *what;
    size_t offset; /* of a u32 in the config, or in its first group */
    bool in_group;
    uint32_t value;
    quire_status status;
    const char *message; /* must occur */
};

#define CONFIG(field) #field, offsetof(struct quire_pool_config, field), false
#define GROUP(field)  #field, offsetof(struct quire_group_config, field), true

static const struct refusal refusals[] = {
    {CONFIG(struct_size), 0, QUIRE_E_INVAL, "quire_pool_config_init"},
    {CONFIG(struct_size), 8, QUIRE_E_INVAL, "quire_pool_config_init"},
    {CONFIG(num_groups), 0, QUIRE_E_INVAL, "group"},
    {CONFIG(num_groups), QUIRE_MAX_GROUPS + 1, QUIRE_E_LIMIT, "64"},
    {CONFIG(layout), 3, QUIRE_E_INVAL, "layout"},
    {CONFIG(layout), UINT32_MAX, QUIRE_E_INVAL, "layout"},
    {CONFIG(dtype_k), QUIRE_U32, QUIRE_E_UNSUPPORTED, "f16"},
    {CONFIG(dtype_v), 77, QUIRE_E_UNSUPPORTED, "f16"},
    {CONFIG(dtype_v), UINT32_MAX, QUIRE_E_UNSUPPORTED, "f16"},
    {CONFIG(dtype_k), QUIRE_Q4, QUIRE_E_UNSUPPORTED, "multiples of 16, not 8"},
    {CONFIG(kv_rotation), 3, QUIRE_E_INVAL, "kv_rotation"},
    {CONFIG(block_size), 0, QUIRE_E_INVAL, "block_size"},
    {CONFIG(block_size), QUIRE_MAX_BLOCK_SIZE + 1, QUIRE_E_LIMIT, "65536"},
    {CONFIG(max_seqs), 0, QUIRE_E_INVAL, "max_seqs"},
    {CONFIG(max_seqs), QUIRE_MAX_SEQS + 1, QUIRE_E_LIMIT, "65536"},
    {CONFIG(max_seqs), UINT32_MAX, QUIRE_E_LIMIT, "65536"},
    {CONFIG(max_seq_len), 0, QUIRE_E_INVAL, "max_seq_len"},
    {CONFIG(max_seq_len), UINT32_MAX, QUIRE_E_LIMIT, "max_seq_len"},
    {CONFIG(max_step_tokens), 0, QUIRE_E_INVAL, "max_step_tokens"},
    {CONFIG(max_step_tokens), UINT32_MAX, QUIRE_E_LIMIT, "tokens"},
    {CONFIG(max_open_steps), 0, QUIRE_E_INVAL, "max_open_steps"},
    {CONFIG(max_open_steps), UINT32_MAX, QUIRE_E_LIMIT, "steps"},
    {GROUP(num_layers), 0, QUIRE_E_INVAL, "group 0"},
    {GROUP(num_layers), QUIRE_MAX_LAYERS + 1, QUIRE_E_LIMIT, "4096"},
    {GROUP(num_heads), 0, QUIRE_E_INVAL, "query heads"},
    {GROUP(num_heads), 5, QUIRE_E_INVAL, "5 query heads"},
    {GROUP(num_heads), 1, QUIRE_E_INVAL, "multiple"},
    {GROUP(num_heads), 1u << 20, QUIRE_E_LIMIT, "heads"},
    {GROUP(num_kv_heads), 0, QUIRE_E_INVAL, "KV heads"},
    {GROUP(num_kv_heads), 3, QUIRE_E_INVAL, "3 KV heads"},
    {GROUP(head_dim), 0, QUIRE_E_INVAL, "head_dim"},
    {GROUP(head_dim), UINT32_MAX, QUIRE_E_LIMIT, "elements"},
    {GROUP(head_dim_v), UINT32_MAX, QUIRE_E_LIMIT, "elements"},
};

/* A refused creation leaves *out alone and says why. */
static void assert_refused(const struct quire_pool_config *config, quire_status status,
                           const char *message, const char *what)
{
    struct quire_pool *const untouched = (struct quire_pool *)(uintptr_t)64;
    struct quire_pool *pool = untouched;
    struct quire_error error = {0};
    quire_status got = quire_pool_create(config, &pool, &error);
    if (got != status || error.status != status || strstr(error.message, message) == NULL)
        fail_msg("%s: %s \"%s\", not %s with \"%s\"", what, quire_status_name(got), error.message,
                 quire_status_name(status), message);
    assert_null(strchr(error.message, '\n'));
    assert_ptr_equal(pool, untouched);
    qt_assert_status(quire_pool_create(config, &pool, NULL), status);
}

static void test_refuses_bad_numbers(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_backend *backend = qt_backend(variant->backend, 1);
    for (size_t i = 0; i < QT_LEN(refusals); i++) {
        const struct refusal *refusal = &refusals[i];
        struct quire_pool_config config;
        struct quire_group_config groups[QUIRE_MAX_GROUPS + 1];
        static uint32_t layers[QUIRE_MAX_LAYERS + 1];
        for (size_t g = 0; g < QT_LEN(groups); g++)
            groups[g] = qt_plain.groups[0];
        for (uint32_t layer = 0; layer < QT_LEN(layers); layer++)
            layers[layer] = layer;
        groups[0].layers = layers;
        qt_config(&config, variant, &qt_plain);
        config.backend = backend;
        config.groups = groups;
        char *base = refusal->in_group ? (char *)&groups[0] : (char *)&config;
        memcpy(base + refusal->offset, &refusal->value, sizeof refusal->value);
        assert_refused(&config, refusal->status, refusal->message, refusal->what);
    }
    quire_backend_destroy(backend);
}

static void test_refuses_null(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    struct quire_pool *pool = NULL;
    struct quire_error error = {0};
    struct quire_group_config group = qt_plain.groups[0];
    qt_config(&config, variant, &qt_plain);
    assert_refused(&config, QUIRE_E_INVAL, "backend", "no backend");
    config.backend = qt_backend(variant->backend, 1);
    qt_assert_status(quire_pool_create(NULL, &pool, &error), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_create(&config, NULL, &error), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_create(NULL, NULL, NULL), QUIRE_E_INVAL);
    config.groups = NULL;
    assert_refused(&config, QUIRE_E_INVAL, "group", "no groups");
    config.groups = &group;
    group.layers = NULL;
    assert_refused(&config, QUIRE_E_INVAL, "layers", "no layers");
    quire_backend_destroy(config.backend);
}

static void test_refuses_layers_in_no_group_or_in_two(void **state)
{
    static const uint32_t lists[][2] = {{0, 0}, {1, 2}, {0, 2}, {0, UINT32_MAX}};
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    qt_config(&config, variant, &qt_plain);
    config.backend = qt_backend(variant->backend, 1);
    for (size_t i = 0; i < QT_LEN(lists); i++) {
        struct quire_group_config group = qt_plain.groups[0];
        group.layers = lists[i];
        config.groups = &group;
        assert_refused(&config, QUIRE_E_INVAL, "layer", "bad list of layers");
    }
    struct quire_group_config groups[2] = {qt_plain.groups[0], qt_plain.groups[0]};
    config.groups = groups;
    config.num_groups = 2;
    assert_refused(&config, QUIRE_E_INVAL, "twice", "a layer in two groups");
    quire_backend_destroy(config.backend);
}

/* ---- what a backend lacks: the message lists what it has ---- */

static void test_lists_what_the_backend_supports(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    qt_config(&config, variant, &qt_plain);
    config.backend = qt_backend(variant->backend, 1);
    struct quire_backend_caps *caps = &config.backend->caps;
    const struct quire_backend_caps all = *caps;
    caps->kv_dtypes = 1u << QUIRE_F32 | 1u << QUIRE_BF16;
    assert_refused(&config, QUIRE_E_UNSUPPORTED, "f32 bf16", "dtype");
    config.dtype_k = QUIRE_F32;
    assert_refused(&config, QUIRE_E_UNSUPPORTED, "f32 bf16", "dtype of V");
    *caps = all;
    caps->head_dim_min = 32;
    caps->head_dim_max = 96;
    assert_refused(&config, QUIRE_E_UNSUPPORTED, "32 to 96", "head dim");
    *caps = all;
    caps->head_dim_max = 7;
    assert_refused(&config, QUIRE_E_UNSUPPORTED, "1 to 7", "head dim");
    *caps = all;
    caps->layouts = 1u << (variant->layout == QUIRE_LAYOUT_PAGED ? QUIRE_LAYOUT_CONTIGUOUS
                                                                 : QUIRE_LAYOUT_PAGED);
    assert_refused(&config, QUIRE_E_UNSUPPORTED,
                   variant->layout == QUIRE_LAYOUT_PAGED ? "it has: contiguous" : "it has: paged",
                   "layout");
    *caps = all;
    caps->block_size_min = 8;
    caps->block_size_max = 32;
    if (variant->layout == QUIRE_LAYOUT_PAGED)
        assert_refused(&config, QUIRE_E_UNSUPPORTED, "8 to 32", "block size");
    *caps = all;
    quire_backend_destroy(config.backend);
}

static void test_refuses_a_budget_below_one_block_a_group(void **state)
{
    const struct qt_variant *variant = *state;
    uint64_t block_bytes = 0, position_bytes = 0;
    char needed[32];
    struct quire_pool_config config;
    struct quire_pool *pool = NULL;
    qt_config(&config, variant, &qt_groups);
    qt_assert_ok(quire_pool_measure(&config, &block_bytes, &position_bytes));
    uint64_t least = block_bytes * (variant->layout == QUIRE_LAYOUT_PAGED ? 3 : 1);
    (void)snprintf(needed, sizeof needed, "%llu", (unsigned long long)least);
    config.backend = qt_backend(variant->backend, 1);
    config.num_blocks = 0;
    config.memory_bytes = least - 1;
    assert_refused(&config, QUIRE_E_NOSPACE, needed, "one byte too few");
    config.memory_bytes = 0;
    assert_refused(&config, QUIRE_E_NOSPACE, needed, "nothing");
    config.memory_bytes = least;
    qt_assert_ok(quire_pool_create(&config, &pool, NULL));
    quire_pool_destroy(pool);
    quire_backend_destroy(config.backend);
}

static void test_sizes_that_overflow_are_refused(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    struct quire_pool *pool = NULL;
    struct quire_group_config group = qt_plain.groups[0];
    struct quire_error error = {0};
    qt_config(&config, variant, &qt_plain);
    config.backend = qt_backend(variant->backend, 1);
    config.backend->caps.head_dim_max = QUIRE_MAX_HEAD_DIM;
    config.groups = &group;
    group.num_heads = group.num_kv_heads = QUIRE_MAX_HEADS;
    group.head_dim = QUIRE_MAX_HEAD_DIM;
    config.block_size = QUIRE_MAX_BLOCK_SIZE;
    config.max_seq_len = QUIRE_MAX_SEQ_LEN;
    config.max_seqs = QUIRE_MAX_SEQS;
    config.num_blocks = UINT32_MAX;
    quire_status status = quire_pool_create(&config, &pool, &error);
    if (status != QUIRE_E_LIMIT && status != QUIRE_E_NOMEM)
        fail_msg("%s: %s", quire_status_name(status), error.message);
    assert_null(pool);
    quire_backend_destroy(config.backend);
}

/* ---- what is made ---- */

static void test_budget_becomes_blocks(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    struct quire_pool_stats stats;
    struct qt_env env;
    uint64_t block_bytes = 0, position_bytes = 0;
    qt_config(&config, variant, &qt_plain);
    qt_assert_ok(quire_pool_measure(&config, &block_bytes, &position_bytes));
    /* 2 layers of K and V, 2 heads of 8 elements */
    assert_int_equal(
        position_bytes,
        2 * 2 * 8 * (quire_dtype_bytes(variant->dtype_k) + quire_dtype_bytes(variant->dtype_v)));
    assert_int_equal(block_bytes, 4 * position_bytes);
    config.num_blocks = 0;
    config.memory_bytes = 10 * block_bytes + block_bytes - 1;
    qt_open_config(&env, variant, &qt_plain, &config);
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_total, 10);
    assert_int_equal(stats.blocks_free, 10);
    assert_int_equal(stats.block_bytes, block_bytes);
    assert_int_equal(stats.block_size, 4);
    assert_int_equal(stats.layout, variant->layout);
    assert_int_equal(stats.blocks_owned + stats.blocks_cached + stats.blocks_in_transit, 0);
    assert_int_equal(stats.bytes_used + stats.blocks_peak + stats.seqs + stats.open_steps, 0);
    assert_true(stats.metadata_bytes > 0);
    qt_close(&env);
}

/* A page belongs to one group and is as large as the largest needs; a contiguous region holds all.
 * In f16, 4 positions: 2 layers of 2 heads of 12 + 20, 2 of 3 heads of 16 + 8, 1 of 10 + 10. */
static void test_a_page_is_that_of_the_largest_group(void **state)
{
    struct quire_pool_config config;
    uint64_t block_bytes = 0, position_bytes = 0;
    qt_config(&config, *state, &qt_groups);
    qt_assert_ok(quire_pool_measure(&config, &block_bytes, &position_bytes));
    assert_int_equal(position_bytes, (2 * 2 * 32 + 2 * 3 * 24 + 20) * 2);
    assert_int_equal(block_bytes,
                     config.layout == QUIRE_LAYOUT_PAGED ? 2 * 3 * 24 * 2 * 4 : 4 * position_bytes);
}

/* Metadata: at most 64 bytes a block, plus tokens (DESIGN, section 6). */
static void test_metadata_is_small(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    struct quire_pool_stats stats;
    struct qt_env env;
    qt_config(&config, variant, &qt_plain);
    config.block_size = 16;
    config.max_seqs = 4;
    config.max_seq_len = 1024;
    config.num_blocks = 4 * 1024 / 16;
    qt_open_config(&env, variant, &qt_plain, &config);
    qt_stats(&env, &stats);
    uint64_t tokens = 4 * (1024 + 16); /* of blocks, and a tail of each sequence */
    assert_true(stats.metadata_bytes <= 64 * stats.blocks_total + tokens * sizeof(uint32_t));
    assert_true(stats.block_meta_bytes <= 64);
    qt_close(&env);
}

static void test_measure_refuses_what_create_refuses(void **state)
{
    uint64_t bytes = 0;
    struct quire_pool_config config;
    struct quire_group_config group = qt_plain.groups[0];
    qt_config(&config, *state, &qt_plain);
    qt_assert_status(quire_pool_measure(NULL, &bytes, &bytes), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_measure(&config, NULL, &bytes), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_measure(&config, &bytes, NULL), QUIRE_E_INVAL);
    config.groups = &group;
    group.num_heads = 3;
    qt_assert_status(quire_pool_measure(&config, &bytes, &bytes), QUIRE_E_INVAL);
    group.num_heads = 4;
    config.block_size = QUIRE_MAX_BLOCK_SIZE + 1;
    qt_assert_status(quire_pool_measure(&config, &bytes, &bytes), QUIRE_E_LIMIT);
    config.block_size = 4;
    config.struct_size = 1;
    qt_assert_status(quire_pool_measure(&config, &bytes, &bytes), QUIRE_E_INVAL);
}

static void test_refuses_an_incomplete_backend(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    qt_config(&config, variant, &qt_plain);
    struct quire_backend *whole = qt_backend(variant->backend, 1);
    struct quire_backend broken = *whole;
    config.backend = &broken;
    broken.struct_size = 0;
    assert_refused(&config, QUIRE_E_INVAL, "backend", "a backend of another version");
    broken = *whole;
    broken.memory = NULL;
    assert_refused(&config, QUIRE_E_INVAL, "backend", "no memory group");
    broken = *whole;
    broken.caps.flags |= QUIRE_CAP_KV;
    broken.kv = NULL;
    assert_refused(&config, QUIRE_E_INVAL, "backend", "no kv group");
    quire_backend_destroy(whole);
}

/* ---- AUTO ---- */

static uint32_t layout_of(struct quire_pool_config *config)
{
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    struct quire_pool *pool = NULL;
    config->layout = QUIRE_LAYOUT_AUTO;
    qt_assert_ok(quire_pool_create(config, &pool, NULL));
    qt_assert_ok(quire_pool_stats(pool, &stats));
    quire_pool_destroy(pool);
    return stats.layout;
}

static void test_auto_reads_quire_paged_kv(void **state)
{
    static const char *const paged[] = {"1", "2", "", "no", "false", "00", "0 ", " 0", "garbage"};
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    qt_config(&config, variant, &qt_plain);
    config.backend = qt_backend(variant->backend, 1);
    (void)unsetenv("QUIRE_PAGED_KV");
    assert_int_equal(layout_of(&config), QUIRE_LAYOUT_PAGED);
    (void)setenv("QUIRE_PAGED_KV", "0", 1);
    assert_int_equal(layout_of(&config), QUIRE_LAYOUT_CONTIGUOUS);
    for (size_t i = 0; i < QT_LEN(paged); i++) {
        (void)setenv("QUIRE_PAGED_KV", paged[i], 1);
        assert_int_equal(layout_of(&config), QUIRE_LAYOUT_PAGED);
    }
    (void)setenv("QUIRE_PAGED_KV", "0", 1);
    struct qt_env env;
    struct quire_pool_stats stats;
    qt_open(&env, variant, &qt_plain); /* an explicit layout does not read it */
    qt_stats(&env, &stats);
    assert_int_equal(stats.layout, variant->layout);
    qt_close(&env);
    (void)unsetenv("QUIRE_PAGED_KV");
    quire_backend_destroy(config.backend);
}

static void test_auto_takes_what_the_backend_has(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    qt_config(&config, variant, &qt_plain);
    config.backend = qt_backend(variant->backend, 1);
    (void)unsetenv("QUIRE_PAGED_KV");
    config.backend->caps.layouts = 1u << QUIRE_LAYOUT_CONTIGUOUS;
    assert_int_equal(layout_of(&config), QUIRE_LAYOUT_CONTIGUOUS);
    config.backend->caps.layouts = 1u << QUIRE_LAYOUT_PAGED;
    assert_int_equal(layout_of(&config), QUIRE_LAYOUT_PAGED);
    quire_backend_destroy(config.backend);
}

static void test_config_init_sets_the_documented_defaults(void **state)
{
    struct quire_pool_config config;
    (void)state;
    memset(&config, 0xff, sizeof config);
    quire_pool_config_init(&config);
    assert_int_equal(config.struct_size, sizeof config);
    assert_null(config.backend);
    assert_null(config.groups);
    assert_null(config.memory);
    assert_int_equal(config.num_groups, 0);
    assert_int_equal(config.layout, QUIRE_LAYOUT_AUTO);
    assert_int_equal(config.dtype_k, QUIRE_F16);
    assert_int_equal(config.dtype_v, QUIRE_F16);
    assert_int_equal(config.block_size, 16);
    assert_int_equal(config.max_seqs, 16);
    assert_int_equal(config.max_seq_len, 4096);
    assert_int_equal(config.max_step_tokens, 512);
    assert_int_equal(config.max_open_steps, 4);
    assert_int_equal(config.memory_bytes, 1u << 30);
    assert_int_equal(config.num_blocks, 0);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_config_init_sets_the_documented_defaults, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_refuses_bad_numbers, QT_ALL),
        QT_TEST(test_refuses_null, QT_ALL),
        QT_TEST(test_refuses_an_incomplete_backend, QT_ALL),
        QT_TEST(test_refuses_layers_in_no_group_or_in_two, QT_ALL),
        QT_TEST(test_lists_what_the_backend_supports, QT_KV),
        QT_TEST(test_refuses_a_budget_below_one_block_a_group, QT_ALL),
        QT_TEST(test_sizes_that_overflow_are_refused, QT_ALL),
        QT_TEST(test_budget_becomes_blocks, QT_ALL | QT_DTYPES),
        QT_TEST(test_a_page_is_that_of_the_largest_group, QT_ALL),
        QT_TEST(test_metadata_is_small, QT_ALL),
        QT_TEST(test_measure_refuses_what_create_refuses, QT_ALL),
        QT_TEST(test_auto_reads_quire_paged_kv, QT_ALL),
        QT_TEST(test_auto_takes_what_the_backend_has, QT_ALL),
    };
    return qt_run("create", tests, QT_LEN(tests));
}
