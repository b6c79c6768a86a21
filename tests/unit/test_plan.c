/* test_plan.c - what quire plan says, against pools that are filled until they refuse.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "quire/plan_fit.h"
#include "support.h"

enum { LAYERS_MAX = 8, GROUPS_MAX = 4, CONTEXT_MAX = 1024 };

/* A pool and what is asked of it. */
struct scene {
    const char *backend;
    uint32_t layers[LAYERS_MAX];
    struct quire_group_config groups[GROUPS_MAX];
    struct quire_pool_config config;
    struct plan_question question;
};

struct shape {
    uint32_t num_layers, head_dim, window, sink_positions;
};

/* Lists of groups end with one of no layers. */
static void set_groups(struct scene *scene, const struct shape *shapes)
{
    uint32_t layer = 0, count = 0;
    quire_pool_config_init(&scene->config);
    for (; count < GROUPS_MAX && shapes[count].num_layers > 0; count++) {
        scene->groups[count] = (struct quire_group_config){
            .layers = scene->layers + layer,
            .num_layers = shapes[count].num_layers,
            .num_heads = 2,
            .num_kv_heads = 1,
            .head_dim = shapes[count].head_dim,
            .window = shapes[count].window,
            .sink_positions = shapes[count].sink_positions,
        };
        for (uint32_t i = 0; i < shapes[count].num_layers; i++, layer++)
            scene->layers[layer] = layer;
    }
    scene->config.groups = scene->groups;
    scene->config.num_groups = count;
    scene->config.layout = QUIRE_LAYOUT_PAGED;
    scene->question.config = &scene->config;
}

/* The shared prefix, then tokens of the sequence `number` alone. */
static void write_tokens(const struct scene *scene, uint32_t number, uint32_t *tokens)
{
    for (uint32_t i = 0; i < scene->question.context; i++)
        tokens[i] = i < scene->question.prefix ? i : (number + 1) * CONTEXT_MAX + i;
}

/* Grows a sequence by steps to `end`; OK or NOSPACE. */
static quire_status grow(const struct scene *scene, struct quire_pool *pool, quire_seq seq,
                         const uint32_t *tokens, uint32_t end)
{
    uint32_t len = 0;
    assert_int_equal(quire_seq_length(pool, seq, &len), QUIRE_OK);
    while (len < end) {
        const uint32_t left = end - len, step_tokens = scene->question.step_tokens;
        const uint32_t count = left < step_tokens ? left : step_tokens;
        const struct quire_step_item item = {seq, count, tokens + len};
        struct quire_step_view view = {.struct_size = sizeof view};
        quire_step step;
        quire_status status = quire_step_begin(pool, &item, 1, &step, NULL);
        if (status != QUIRE_OK) {
            assert_int_equal(status, QUIRE_E_NOSPACE);
            return status;
        }
        /* Taken: this test writes the rows, and none of them matters. */
        assert_int_equal(quire_step_view(pool, step, 0, &view), QUIRE_OK);
        assert_int_equal(quire_step_commit(pool, step, NULL), QUIRE_OK);
        len += count;
    }
    return QUIRE_OK;
}

/* Computes the prefix and pins it. */
static quire_status share_prefix(const struct scene *scene, struct quire_pool *pool,
                                 const uint32_t *tokens)
{
    const uint32_t prefix = scene->question.prefix;
    struct quire_seq_config config;
    quire_seq seq;
    quire_pin pin;
    uint32_t len = 0;
    if (prefix == 0)
        return QUIRE_OK;
    quire_seq_config_init(&config);
    config.tokens = tokens;
    config.num_tokens = prefix;
    assert_int_equal(quire_seq_create(pool, &config, &seq), QUIRE_OK);
    if (grow(scene, pool, seq, tokens, prefix) != QUIRE_OK)
        return QUIRE_E_NOSPACE;
    assert_int_equal(quire_seq_destroy(pool, seq), QUIRE_OK);
    assert_int_equal(quire_pool_pin(pool, &config, &pin, &len, NULL), QUIRE_OK);
    assert_int_equal(len, prefix);
    return QUIRE_OK;
}

static quire_status add_sequence(const struct scene *scene, struct quire_pool *pool,
                                 uint32_t number)
{
    uint32_t tokens[CONTEXT_MAX], len = 0;
    struct quire_seq_config config;
    quire_seq seq;
    write_tokens(scene, number, tokens);
    quire_seq_config_init(&config);
    config.tokens = tokens;
    config.num_tokens = scene->question.context;
    assert_int_equal(quire_seq_create(pool, &config, &seq), QUIRE_OK);
    assert_int_equal(quire_seq_length(pool, seq, &len), QUIRE_OK);
    assert_int_equal(len, scene->question.prefix);
    return grow(scene, pool, seq, tokens, scene->question.context);
}

static void check_blocks(const struct scene *scene, struct quire_pool *pool,
                         const struct plan *plan)
{
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    assert_int_equal(quire_pool_stats(pool, &stats), QUIRE_OK);
    assert_int_equal(stats.blocks_total, plan->num_blocks);
    assert_int_equal(stats.blocks_owned,
                     plan->blocks_shared + plan->sequences * plan->blocks_sequence);
    assert_int_equal(stats.block_bytes, plan->block_bytes);
    for (uint32_t g = 0; g < scene->config.num_groups; g++) {
        struct quire_group_stats group = {.struct_size = sizeof group};
        assert_int_equal(quire_pool_group_stats(pool, g, &group), QUIRE_OK);
        assert_int_equal(group.blocks_owned, plan->groups[g].blocks_shared +
                                                 plan->sequences * plan->groups[g].blocks_sequence);
        assert_int_equal(group.block_bytes_used, plan->groups[g].block_bytes);
    }
}

/* Exactly as many sequences as planned fit. */
static void fill(struct scene *scene)
{
    struct plan plan;
    struct quire_backend *backend = NULL;
    struct quire_pool *pool = NULL;
    uint32_t tokens[CONTEXT_MAX];
    struct plan_question *question = &scene->question;
    assert_in_range(question->context, 1, CONTEXT_MAX);
    assert_int_equal(plan_fit(question, &plan), QUIRE_OK);
    struct quire_pool_config config = scene->config;
    assert_int_equal(quire_backend_create(scene->backend, NULL, &backend, NULL), QUIRE_OK);
    config.backend = backend;
    config.max_seq_len = question->context;
    config.max_seqs = (uint32_t)plan.sequences + 2;
    config.max_step_tokens = question->step_tokens;
    config.max_pinned_blocks = (uint32_t)plan.num_blocks;
    assert_int_equal(quire_pool_create(&config, &pool, NULL), QUIRE_OK);
    write_tokens(scene, 0, tokens);
    quire_status status = share_prefix(scene, pool, tokens);
    for (uint32_t i = 0; i < plan.sequences; i++) {
        assert_int_equal(status, QUIRE_OK);
        status = add_sequence(scene, pool, i);
    }
    if (plan.sequences > 0) {
        assert_int_equal(status, QUIRE_OK);
        check_blocks(scene, pool, &plan);
        assert_int_equal(quire_pool_check(pool, NULL), QUIRE_OK);
    }
    if (status == QUIRE_OK)
        status = add_sequence(scene, pool, (uint32_t)plan.sequences);
    assert_int_equal(status, QUIRE_E_NOSPACE);
    quire_pool_destroy(pool);
    quire_backend_destroy(backend);
}

static const struct shape geometries[][GROUPS_MAX] = {
    {{3, 16, 0, 0}},
    {{1, 16, 0, 0}, {2, 16, 40, 0}},
    {{2, 16, 0, 0}, {2, 32, 100, 20}},
    {{1, 32, 33, 5}},
    {{1, 16, 0, 0}, {1, 16, 1, 0}, {2, 16, 64, 17}, {1, 64, 2000, 4}},
};

static void fill_all(const char *backend, uint32_t blocks)
{
    static const uint32_t prefixes[] = {0, 16, 64, 112};
    for (size_t g = 0; g < QT_LEN(geometries); g++) {
        for (size_t p = 0; p < QT_LEN(prefixes); p++) {
            struct scene scene = {.backend = backend};
            set_groups(&scene, geometries[g]);
            scene.config.num_blocks = blocks;
            scene.question.context = 300;
            scene.question.prefix = prefixes[p];
            scene.question.step_tokens = 48;
            fill(&scene);
        }
    }
}

static void test_geometries(void **state)
{
    (void)state;
    fill_all("none", 200);
    fill_all("none", 97);
    fill_all("cpu", 200);
}

static void test_too_small(void **state)
{
    (void)state;
    fill_all("none", 12);
    for (uint32_t blocks = 18; blocks <= 20; blocks++) {
        struct scene scene = {.backend = "none"};
        struct plan plan;
        set_groups(&scene, geometries[0]);
        scene.config.num_blocks = blocks;
        scene.question.context = 300;
        scene.question.step_tokens = 300;
        assert_int_equal(plan_fit(&scene.question, &plan), QUIRE_OK);
        assert_int_equal(plan.sequences, blocks >= 19);
        fill(&scene);
    }
}

/* Shapes, sizes and steps at random. */
static void test_random(void **state)
{
    (void)state;
    struct qt_random random = {qt_env_u64("QUIRE_TEST_SEED", 4)};
    const uint64_t rounds = qt_env_u64("QUIRE_TEST_ROUNDS", 300);
    print_message("seed %llu, %llu rounds\n", (unsigned long long)random.state,
                  (unsigned long long)rounds);
    for (uint64_t round = 0; round < rounds; round++) {
        struct shape shapes[GROUPS_MAX] = {{0}};
        const uint32_t num_groups = 1 + qt_below(&random, GROUPS_MAX - 1);
        for (uint32_t g = 0; g < num_groups; g++)
            shapes[g] =
                (struct shape){1 + qt_below(&random, 2), 16 * (1 + qt_below(&random, 3)),
                               g == 0 || qt_chance(&random, 20) ? 0 : 1 + qt_below(&random, 300),
                               qt_chance(&random, 50) ? 0 : qt_below(&random, 70)};
        bool has_windows = false;
        for (uint32_t g = 0; g < num_groups; g++)
            has_windows = has_windows || shapes[g].window != 0;
        struct scene scene = {.backend = "none"};
        set_groups(&scene, shapes);
        scene.config.block_size = 1 + qt_below(&random, 40);
        scene.config.rollback_max = qt_chance(&random, 30) ? 0 : qt_below(&random, 130);
        scene.config.num_blocks = num_groups + qt_below(&random, 400);
        scene.question.context = 1 + qt_below(&random, 700);
        scene.question.prefix =
            qt_chance(&random, 30) ? 0 : qt_below(&random, scene.question.context);
        scene.question.step_tokens = qt_chance(&random, 20) ? 1 : 1 + qt_below(&random, 200);
        /* Behind the first sequence, a prefix that ends inside a block is found to that block's
         * start where windows need it whole. */
        if (has_windows)
            scene.question.prefix -= scene.question.prefix % scene.config.block_size;
        fill(&scene);
    }
}

/* Bytes: of full attention the waste is the empty end of the last block, and nothing else. */
static void test_bytes(void **state)
{
    (void)state;
    struct scene scene = {.backend = "none"};
    struct plan plan;
    set_groups(&scene, geometries[0]);
    scene.config.memory_bytes = 1000000;
    scene.question.context = 100;
    scene.question.step_tokens = 100;
    assert_int_equal(plan_fit(&scene.question, &plan), QUIRE_OK);
    const uint64_t position = 3 * 2 * 16 * 2; /* layers, K and V, elements, bytes */
    assert_int_equal(plan.block_bytes, 16 * position);
    assert_int_equal(plan.num_blocks, 1000000 / (16 * position));
    assert_int_equal(plan.blocks_sequence, 7);
    assert_int_equal(plan.sequences, plan.num_blocks / 7);
    assert_int_equal(plan.waste_bytes, plan.sequences * 12 * position);
    assert_int_equal(plan.used_bytes + plan.left_bytes, 1000000);
    fill(&scene);

    /* A window and a group whose layers fill half of a block. */
    set_groups(&scene, (const struct shape[GROUPS_MAX]){{2, 16, 0, 0}, {1, 16, 32, 0}});
    scene.config.num_blocks = 100;
    scene.config.rollback_max = 0;
    assert_int_equal(plan_fit(&scene.question, &plan), QUIRE_OK);
    /* The token at 100 sees 69 .. 100: 31 positions before itself, in the blocks 4, 5 and 6. */
    assert_int_equal(plan.groups[1].blocks_sequence, 3);
    assert_int_equal(plan.groups[1].block_bytes * 2, plan.block_bytes);
    assert_int_equal(plan.waste_bytes,
                     plan.sequences * (10 * plan.block_bytes - (100 * 2 + 31) * 2 * 16 * 2));
    fill(&scene);
}

static void test_bad_questions(void **state)
{
    (void)state;
    struct scene scene = {.backend = "none"};
    struct plan plan;
    set_groups(&scene, geometries[1]);
    static const uint32_t bad[][3] = {{0, 0, 1}, {10, 10, 1}, {10, 11, 1}, {10, 0, 0}};
    for (size_t i = 0; i < QT_LEN(bad); i++) {
        scene.question.context = bad[i][0];
        scene.question.prefix = bad[i][1];
        scene.question.step_tokens = bad[i][2];
        assert_int_equal(plan_fit(&scene.question, &plan), QUIRE_E_INVAL);
    }
    scene.question.step_tokens = 1;
    scene.config.num_groups = 0;
    assert_int_equal(plan_fit(&scene.question, &plan), QUIRE_E_INVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_geometries),    cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_random),        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_bad_questions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
