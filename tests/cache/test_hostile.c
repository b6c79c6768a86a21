/* test_hostile.c - crafted token lists that try to make the index wrong or slow, and wrong
 * arguments. SPDX-License-Identifier: Apache-2.0
 *
 * The index hashes nothing: children of a node are a balanced tree of token runs. So what could be
 * attacked is its balance, and what is measured is its comparisons, not time. */
#include "share_fixture.h"

#include "cache/pool.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- comparisons ---- */

static uint64_t compares(const struct qt_env *env)
{
    return env->pool->index.compares;
}

/* What a walk over `blocks` blocks may cost where no block has more than `children` followers: the
 * height of a balanced tree is at most 1.45 log2(n + 2) (Adelson-Velsky and Landis, 1962); twice
 * that for one to find the place and one to change it, and the roots' tree. */
static uint64_t bound(uint64_t blocks, uint64_t children)
{
    double height = 1.45 * log2((double)children + 2.0) + 1.0;
    return (uint64_t)(3.0 * (double)(blocks + 1) * height);
}

enum order { ASCENDING, DESCENDING, ALTERNATING, SHUFFLED, ORDERS };

/* The i-th of `count` numbers in an order that an unbalanced tree would suffer from. */
static uint32_t nth(enum order order, uint32_t i, uint32_t count)
{
    switch (order) {
    case ASCENDING:
        return i;
    case DESCENDING:
        return count - 1 - i;
    case ALTERNATING: /* 0, n-1, 1, n-2, .. */
        return i % 2 == 0 ? i / 2 : count - 1 - i / 2;
    default: /* odd, and the count a power of two: a permutation */
        return (i * 2654435761u) % count;
    }
}

/* A pool of ids for many small prompts. */
static void open_many(struct qt_env *env, const struct qt_variant *variant, uint32_t block_size,
                      uint32_t num_blocks)
{
    struct quire_pool_config config;
    qt_share_config(&config, variant, &qt_plain, block_size, num_blocks);
    config.event_capacity = 0;
    qt_open_config(env, variant, &qt_plain, &config);
}

/* Where the tokens of a family of prompts differ: at one place of 16 tokens, in blocks of 8. */
static void fan_out(const struct qt_variant *variant, uint32_t place, enum order order)
{
    enum { CHILDREN = 2048, TOKENS = 16, P = 8, EVICTED = 30 };
    struct qt_env env;
    uint32_t tokens[TOKENS];
    uint64_t most = bound(TOKENS / P, CHILDREN);
    open_many(&env, variant, P, place < P ? 2 * CHILDREN : CHILDREN + 1);
    qt_tokens(1, tokens, TOKENS);
    for (uint32_t i = 0; i < CHILDREN; i++) {
        uint64_t before = compares(&env);
        tokens[place] = nth(order, i, CHILDREN);
        qt_line_cache(&env, tokens, TOKENS);
        /* A lookup, a publication for each block, and the end: each a walk. */
        assert_true(compares(&env) - before <= 3 * most);
    }
    for (uint32_t i = 0; i < CHILDREN; i += 7) {
        uint64_t before = compares(&env);
        tokens[place] = i;
        assert_int_equal(qt_cached(&env, tokens, TOKENS), TOKENS);
        tokens[place] = CHILDREN + i; /* none of them */
        assert_int_equal(qt_cached(&env, tokens, TOKENS), place);
        assert_true(compares(&env) - before <= 2 * most);
    }
    uint64_t before = compares(&env);
    qt_evict(&env, EVICTED);
    assert_true(compares(&env) - before <= EVICTED * most);
    qt_assert_pool_ok(&env);
    struct quire_seq_config config = qt_prefix(tokens, place);
    uint64_t dropped = 0;
    before = compares(&env);
    qt_assert_ok(quire_pool_drop_prefix(env.pool, &config, &dropped));
    assert_true(dropped >= CHILDREN - EVICTED);
    assert_true(compares(&env) - before <= dropped * most);
    qt_close(&env);
}

/* Thousands of prompts that part at one token: the first of all, the last of a block, the first and
 * the last of the next, in orders that would make a list of an unbalanced tree. */
static void test_many_children(void **state)
{
    static const uint32_t places[] = {0, 7, 8, 15};
    for (uint32_t p = 0; p < QT_LEN(places); p++) {
        for (int order = ASCENDING; order < ORDERS; order++)
            fan_out(*state, places[p], (enum order)order);
    }
}

/* Tokens whose bytes, though not their values, are in order: 1 << 24, 2 << 24, and their like. A
 * comparison of bytes and one of words would disagree on where they lie. */
static void test_tokens_of_every_magnitude(void **state)
{
    struct qt_env env;
    struct qt_random random = {5};
    uint32_t firsts[512], tokens[4] = {0, 1, 2, 3};
    open_many(&env, *state, 4, 600);
    for (uint32_t i = 0; i < 512; i++) {
        firsts[i] = (uint32_t)(i % 256) << (i / 256 * 24);
        if (i % 3 == 0)
            firsts[i] = (uint32_t)qt_next(&random);
    }
    for (uint32_t i = 0; i < 512; i++) {
        tokens[0] = firsts[i];
        qt_line_cache(&env, tokens, 4);
    }
    for (uint32_t i = 0; i < 512; i++) {
        tokens[0] = firsts[i];
        assert_int_equal(qt_cached(&env, tokens, 4), 4);
    }
    qt_assert_pool_ok(&env);
    qt_close(&env);
}

/* Chains of partial blocks: prompts of 1 token, of 2, of 3, ..; and, at each, others that part
 * there. */
static void test_partial_prefixes(void **state)
{
    enum { P = 64 };
    for (uint32_t backwards = 0; backwards < 2; backwards++) {
        struct qt_env env;
        uint32_t tokens[P], other[P + 1];
        uint64_t before, most = bound(1, 2 * P);
        open_many(&env, *state, P, 4 * P);
        qt_tokens(1, tokens, P);
        for (uint32_t i = 1; i <= P; i++) {
            uint32_t count = backwards ? P + 1 - i : i;
            before = compares(&env);
            qt_line_cache(&env, tokens, count);
            memcpy(other, tokens, count * sizeof *other);
            other[count] = 7 + count % 5;
            qt_line_cache(&env, other, count < P ? count + 1 : P);
            assert_true(compares(&env) - before <= 8 * most);
            qt_assert_pool_ok(&env);
        }
        for (uint32_t count = 1; count <= P; count++) {
            before = compares(&env);
            assert_int_equal(qt_cached(&env, tokens, count), count);
            memcpy(other, tokens, count * sizeof *other);
            other[count] = 7 + count % 5;
            if (count < P)
                assert_int_equal(qt_cached(&env, other, count + 1), count + 1);
            assert_true(compares(&env) - before <= 2 * most);
        }
        qt_close(&env);
    }
}

/* Deep chains: blocks of one token, 500 of them, with a branch at each. */
static void test_deep_chains(void **state)
{
    enum { DEPTH = 500 };
    struct qt_env env;
    uint32_t tokens[DEPTH + 1];
    open_many(&env, *state, 1, 2 * DEPTH + 20);
    for (uint32_t i = 0; i <= DEPTH; i++)
        tokens[i] = 3; /* every block alike but for its parents */
    uint64_t before = compares(&env);
    qt_line_cache(&env, tokens, DEPTH);
    assert_true(compares(&env) - before <= 3 * bound(DEPTH, 2));
    for (uint32_t i = 0; i < DEPTH; i += 10) {
        before = compares(&env);
        tokens[i] = 4;
        qt_line_cache(&env, tokens, i + 1);
        assert_true(compares(&env) - before <= 3 * bound(i + 1, 2));
        tokens[i] = 3;
    }
    for (uint32_t i = 1; i <= DEPTH; i++) {
        before = compares(&env);
        assert_int_equal(qt_cached(&env, tokens, i), i);
        assert_true(compares(&env) - before <= bound(i, 2));
    }
    tokens[DEPTH - 1] = 5;
    assert_int_equal(qt_cached(&env, tokens, DEPTH), DEPTH - 1);
    qt_assert_pool_ok(&env);
    qt_close(&env);
}

/* Tenants are a tree too: salts in adversarial orders, and as many as sequences can be. */
static void test_many_tenants(void **state)
{
    for (int order = ASCENDING; order < ORDERS; order++) {
        enum { TENANTS = 512 };
        struct qt_env env;
        struct qt_line line;
        uint32_t tokens[4] = {1, 2, 3, 4};
        open_many(&env, *state, 4, TENANTS);
        for (uint32_t i = 0; i < TENANTS; i++) {
            struct quire_seq_config config = qt_prefix(tokens, 4);
            config.salt = (uint64_t)nth((enum order)order, i, TENANTS) << (i % 2 * 32);
            config.adapter = i % 3;
            uint64_t before = compares(&env);
            (void)qt_line_run_as(&env, &line, &config);
            qt_line_close(&env, &line);
            assert_true(compares(&env) - before <= 4 * bound(1, TENANTS));
            assert_int_equal(qt_cached_as(&env, &config), 4);
        }
        qt_assert_pool_ok(&env);
        qt_close(&env);
    }
}

/* Starting a sequence takes no block from anybody, however many tenants there are, while blocks are
 * free. */
static void test_tenants_take_nothing(void **state)
{
    enum { TENANTS = 400 };
    struct qt_env env;
    struct qt_line line;
    struct quire_pool_stats stats;
    uint32_t tokens[4] = {1, 2, 3, 4};
    struct quire_seq_config config = qt_prefix(tokens, 4);
    open_many(&env, *state, 4, 2 * TENANTS);
    for (config.salt = 0; config.salt < TENANTS; config.salt++) {
        (void)qt_line_run_as(&env, &line, &config);
        qt_line_close(&env, &line);
    }
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_evicted, 0);
    for (config.salt = 0; config.salt < TENANTS; config.salt++)
        assert_int_equal(qt_cached_as(&env, &config), 4);
    qt_close(&env);
}

/* ---- wrong arguments ---- */

struct scene {
    struct qt_env env;
    struct qt_line line;
    struct qt_snapshot snapshot;
    uint32_t tokens[8];
};

static void scene_open(struct scene *scene, const struct qt_variant *variant, uint32_t vocab_size)
{
    struct quire_pool_config config;
    qt_share_config(&config, variant, &qt_plain, 4, 20);
    config.vocab_size = vocab_size;
    qt_open_config(&scene->env, variant, &qt_plain, &config);
    for (uint32_t i = 0; i < 8; i++)
        scene->tokens[i] = i;
    qt_line_cache(&scene->env, scene->tokens, 8);
    (void)qt_line_run(&scene->env, &scene->line, scene->tokens, 6);
    qt_snapshot_take(&scene->env, &scene->line.stream, 1, &scene->snapshot);
}

static void scene_close(struct scene *scene)
{
    qt_snapshot_same(&scene->env, &scene->line.stream, &scene->snapshot);
    qt_line_check(&scene->env, &scene->line);
    assert_int_equal(qt_found(&scene->env, scene->tokens, 8), 7);
    qt_line_close(&scene->env, &scene->line);
    qt_close(&scene->env);
}

/* Every call that takes a prefix answers `wanted`, and writes nothing. */
static void assert_prefix_refused(struct scene *scene, const struct quire_seq_config *config,
                                  quire_status wanted)
{
    struct quire_pool *pool = scene->env.pool;
    struct quire_error error = {0};
    quire_seq seq = {0};
    quire_pin pin = {0};
    uint32_t len = 77;
    uint64_t dropped = 77;
    qt_assert_status(quire_seq_create(pool, config, &seq), wanted);
    qt_assert_status(quire_pool_lookup(pool, config, &len), wanted);
    qt_assert_status(quire_pool_pin(pool, config, &pin, &len, &error), wanted);
    qt_assert_status(quire_pool_drop_prefix(pool, config, &dropped), wanted);
    qt_assert_status(quire_seq_rematch(pool, scene->line.stream.seq, config, &len), wanted);
    assert_int_equal(error.status, wanted);
    assert_int_equal(seq.id, 0);
    assert_int_equal(pin.id, 0);
    assert_int_equal(len, 77);
    assert_int_equal(dropped, 77);
}

static void test_tokens_over_the_vocabulary(void **state)
{
    static const uint32_t wrong[] = {100, 101, 1u << 31, UINT32_MAX};
    struct scene scene;
    scene_open(&scene, *state, 100);
    for (uint32_t i = 0; i < QT_LEN(wrong); i++) {
        for (uint32_t at = 0; at < 8; at++) {
            uint32_t tokens[8];
            memcpy(tokens, scene.tokens, sizeof tokens);
            tokens[at] = wrong[i];
            struct quire_seq_config config = qt_prefix(tokens, 8);
            assert_prefix_refused(&scene, &config, QUIRE_E_INVAL);
            struct quire_step_item item = {scene.line.stream.seq, 8, tokens};
            quire_step step = {0};
            qt_assert_status(quire_step_begin(scene.env.pool, &item, 1, &step, NULL),
                             QUIRE_E_INVAL);
            assert_int_equal(step.id, 0);
        }
    }
    scene.tokens[7] = 99; /* the last of the vocabulary is one */
    struct quire_seq_config config = qt_prefix(scene.tokens, 8);
    uint32_t len = 0;
    qt_assert_ok(quire_pool_lookup(scene.env.pool, &config, &len));
    assert_int_equal(len, 7);
    scene_close(&scene);
}

/* Lists too long for any sequence are refused unread: they lie where nothing can be read. */
static void test_endless_lists(void **state)
{
    static const uint32_t counts[] = {513, 1u << 20, 1u << 30, 1u << 31, UINT32_MAX};
    struct scene scene;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint32_t *unreadable = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(unreadable != MAP_FAILED);
    scene_open(&scene, *state, 100);
    for (uint32_t i = 0; i < QT_LEN(counts); i++) {
        struct quire_seq_config config = qt_prefix(unreadable, counts[i]);
        assert_prefix_refused(&scene, &config, QUIRE_E_LIMIT);
        struct quire_step_item item = {scene.line.stream.seq, counts[i], unreadable};
        quire_step step = {0};
        qt_assert_status(quire_step_begin(scene.env.pool, &item, 1, &step, NULL), QUIRE_E_LIMIT);
        assert_int_equal(step.id, 0);
    }
    scene_close(&scene);
    assert_int_equal(munmap(unreadable, page), 0);
}

/* Lists of no tokens, with and without an address. */
static void test_empty_lists(void **state)
{
    struct scene scene;
    struct qt_env *env = &scene.env;
    scene_open(&scene, *state, 0);
    for (uint32_t i = 0; i < 2; i++) {
        struct quire_seq_config config = qt_prefix(i == 0 ? NULL : scene.tokens, 0);
        quire_pin pin = {0};
        uint32_t len = 77;
        qt_assert_ok(quire_pool_lookup(env->pool, &config, &len));
        assert_int_equal(len, 0);
        qt_assert_status(quire_pool_pin(env->pool, &config, &pin, NULL, NULL), QUIRE_E_NOTFOUND);
        qt_assert_status(quire_seq_rematch(env->pool, scene.line.stream.seq, &config, NULL),
                         QUIRE_E_MISMATCH);
        struct qt_line line;
        assert_int_equal(qt_line_open(env, &line, &config), 0);
        qt_line_close(env, &line);
        uint64_t dropped = 77;
        config.salt = 9; /* of nobody */
        qt_assert_ok(quire_pool_drop_prefix(env->pool, &config, &dropped));
        assert_int_equal(dropped, 0);
    }
    struct quire_seq_config nowhere = qt_prefix(NULL, 3);
    assert_prefix_refused(&scene, &nowhere, QUIRE_E_INVAL);
    scene_close(&scene);
}

static void test_null_and_wrong_sizes(void **state)
{
    struct scene scene;
    scene_open(&scene, *state, 0);
    struct quire_pool *pool = scene.env.pool;
    quire_seq seq = scene.line.stream.seq, out = {0};
    quire_pin pin = {0};
    uint32_t len = 77, tokens[8];
    struct quire_seq_config config = qt_prefix(scene.tokens, 8), wrong = config;
    for (uint32_t size = 0; size < 2 * sizeof config; size += 3) {
        if (size == sizeof config)
            continue;
        wrong.struct_size = size;
        assert_prefix_refused(&scene, &wrong, QUIRE_E_INVAL);
    }
    qt_assert_status(quire_seq_create(NULL, &config, &out), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_create(pool, &config, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_rematch(NULL, seq, &config, &len), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_rematch(pool, seq, NULL, &len), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_publish(NULL, seq), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_publish(pool, (quire_seq){0}), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_truncate(NULL, seq, 0, &len), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_truncate(pool, seq, 7, &len), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_tokens(pool, seq, NULL, 1, &len), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_tokens(pool, seq, tokens, 8, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_tokens(NULL, seq, tokens, 8, &len), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_lookup(NULL, &config, &len), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_lookup(pool, NULL, &len), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_lookup(pool, &config, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_pin(NULL, &config, &pin, &len, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_pin(pool, NULL, &pin, &len, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_pin(pool, &config, NULL, &len, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_drop(NULL, 0), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_drop_prefix(NULL, &config, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_drop_prefix(pool, NULL, NULL), QUIRE_E_INVAL);
    assert_int_equal(out.id, 0);
    assert_int_equal(pin.id, 0);
    assert_int_equal(len, 77);
    scene_close(&scene);
}

static void test_figures_of_wrong_sizes(void **state)
{
    struct scene scene;
    scene_open(&scene, *state, 0);
    struct quire_pool *pool = scene.env.pool;
    quire_seq seq = scene.line.stream.seq;
    struct quire_seq_stats of_seq = {.struct_size = sizeof of_seq};
    struct quire_group_stats of_group = {.struct_size = sizeof of_group};
    struct quire_pool_stats of_pool = {.struct_size = sizeof of_pool - 1};
    qt_assert_status(quire_seq_stats(NULL, seq, &of_seq), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_stats(pool, seq, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_stats(pool, (quire_seq){0}, &of_seq), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_group_stats(NULL, 0, &of_group), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_group_stats(pool, 0, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_group_stats(pool, 1, &of_group), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_group_stats(pool, UINT32_MAX, &of_group), QUIRE_E_INVAL);
    of_seq.struct_size = of_group.struct_size = 0;
    qt_assert_status(quire_seq_stats(pool, seq, &of_seq), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_group_stats(pool, 0, &of_group), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_stats(pool, &of_pool), QUIRE_E_INVAL);
    assert_int_equal(of_seq.blocks, 0);
    assert_int_equal(of_group.num_layers, 0);
    scene_close(&scene);
}

static void test_geometries_refused(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    struct quire_group_config out[4], none = qt_plain.groups[0];
    uint64_t block_bytes = 77, position_bytes = 77;
    uint32_t count = 77;
    qt_share_config(&config, variant, &qt_plain, 4, 20);
    qt_assert_status(quire_pool_measure(NULL, &block_bytes, &position_bytes), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_measure(&config, NULL, &position_bytes), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_measure(&config, &block_bytes, NULL), QUIRE_E_INVAL);
    config.struct_size--;
    qt_assert_status(quire_pool_measure(&config, &block_bytes, &position_bytes), QUIRE_E_INVAL);
    config.struct_size++;
    config.num_groups = QUIRE_MAX_GROUPS + 1;
    qt_assert_status(quire_pool_measure(&config, &block_bytes, &position_bytes), QUIRE_E_LIMIT);
    qt_assert_status(quire_groups_balance(NULL, 1, out, 4, &count), QUIRE_E_INVAL);
    qt_assert_status(quire_groups_balance(&none, 0, out, 4, &count), QUIRE_E_INVAL);
    qt_assert_status(quire_groups_balance(&none, 1, NULL, 4, &count), QUIRE_E_INVAL);
    qt_assert_status(quire_groups_balance(&none, 1, out, 4, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_groups_balance(&none, 1, out, 0, &count), QUIRE_E_LIMIT);
    none.num_layers = 0;
    qt_assert_status(quire_groups_balance(&none, 1, out, 4, &count), QUIRE_E_INVAL);
    assert_int_equal(block_bytes, 77);
    assert_int_equal(position_bytes, 77);
    assert_int_equal(count, 77);
}

/* A policy that does not exist is refused when the pool is made. */
static void test_unknown_policy(void **state)
{
    struct quire_pool_config config;
    struct quire_pool *pool = NULL;
    struct quire_error error = {0};
    struct qt_variant variant = *(const struct qt_variant *)*state;
    qt_share_config(&config, &variant, &qt_plain, 4, 20);
    config.backend = qt_backend(variant.backend, 1);
    config.eviction = 2;
    qt_assert_status(quire_pool_create(&config, &pool, &error), QUIRE_E_INVAL);
    assert_string_not_equal(error.message, "");
    assert_null(pool);
    quire_backend_destroy(config.backend);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_many_children, QT_ON_NONE | QT_PAGED),
        QT_TEST(test_tokens_of_every_magnitude, QT_ON_NONE | QT_PAGED),
        QT_TEST(test_partial_prefixes, QT_ON_NONE | QT_PAGED),
        QT_TEST(test_deep_chains, QT_ON_NONE | QT_PAGED),
        QT_TEST(test_many_tenants, QT_ON_NONE | QT_PAGED),
        QT_TEST(test_tenants_take_nothing, QT_ON_NONE | QT_PAGED),
        QT_TEST(test_tokens_over_the_vocabulary, QT_SHARE),
        QT_TEST(test_endless_lists, QT_SHARE),
        QT_TEST(test_empty_lists, QT_SHARE),
        QT_TEST(test_null_and_wrong_sizes, QT_SHARE),
        QT_TEST(test_figures_of_wrong_sizes, QT_SHARE),
        QT_TEST(test_geometries_refused, QT_ON_NONE | QT_PAGED),
        QT_TEST(test_unknown_policy, QT_SHARE),
    };
    return qt_run("hostile", tests, QT_LEN(tests));
}
