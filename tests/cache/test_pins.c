/* test_pins.c - what eviction takes first, and what pins keep from it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "share_fixture.h"

#include <string.h>

/* ---- E1, E2: eviction ---- */

enum { POOL_BLOCKS = 24 };

/* What the events say is stored, and under which parent. */
struct forest {
    bool stored[POOL_BLOCKS];
    uint32_t parent[POOL_BLOCKS];
};

static void follow(struct qt_env *env, struct forest *forest)
{
    struct quire_event events[256];
    uint32_t count = qt_drain(env, events, 256);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t block = events[i].block;
        if (events[i].kind == QUIRE_EVENT_STORED) {
            forest->stored[block] = true;
            forest->parent[block] = events[i].parent;
        } else if (events[i].kind == QUIRE_EVENT_EVICTED) {
            assert_true(forest->stored[block]);
            forest->stored[block] = false;
            for (uint32_t b = 0; b < POOL_BLOCKS; b++) {
                if (forest->stored[b] && forest->parent[b] == block)
                    fail_msg("block %u went before its child %u", block, b);
            }
        }
    }
}

static void run_tree(const struct qt_variant *variant, uint32_t eviction)
{
    struct qt_env env;
    struct quire_pool_config config;
    struct quire_pool_stats stats;
    struct qt_random random = {eviction + 1};
    struct forest forest = {0};
    qt_share_config(&config, variant, &qt_plain, 2, POOL_BLOCKS);
    config.eviction = eviction;
    qt_open_config(&env, variant, &qt_plain, &config);
    for (uint32_t round = 0; round < 200; round++) {
        struct qt_line line;
        uint32_t tokens[24], count = 1 + qt_below(&random, 24);
        for (uint32_t i = 0; i < count; i++)
            tokens[i] = qt_below(&random, i % 4 == 0 ? 3 : 1); /* a bushy tree */
        (void)qt_line_run(&env, &line, tokens, count);
        qt_line_check(&env, &line);
        follow(&env, &forest);
        qt_line_close(&env, &line);
        follow(&env, &forest);
        qt_stats(&env, &stats);
        if (qt_chance(&random, 50) && stats.blocks_cached > 0)
            qt_evict(&env, 1 + qt_below(&random, (uint32_t)stats.blocks_cached));
        follow(&env, &forest);
        qt_assert_pool_ok(&env);
    }
    assert_true(stats.blocks_evicted > 200);
    qt_close(&env);
}

/* E1: under either policy a block goes after everything that follows it. */
static void test_a_chain_loses_its_tail_first(void **state)
{
    run_tree(*state, QUIRE_EVICT_LRU);
    run_tree(*state, QUIRE_EVICT_COST);
}

static void open_policy(struct qt_env *env, const struct qt_variant *variant, uint32_t eviction,
                        uint32_t num_blocks)
{
    struct quire_pool_config config;
    qt_share_config(&config, variant, &qt_plain, 4, num_blocks);
    config.eviction = eviction;
    qt_open_config(env, variant, &qt_plain, &config);
}

/* Caches one block's tokens and makes a number of hits on it. */
static void cache_and_hit(struct qt_env *env, uint32_t key, uint32_t hits)
{
    uint32_t tokens[5];
    qt_tokens(key, tokens, 5);
    qt_line_cache(env, tokens, 4);
    for (uint32_t i = 0; i < hits; i++) {
        struct qt_line line;
        struct quire_seq_config config = qt_prefix(tokens, 5);
        assert_int_equal(qt_line_open(env, &line, &config), 4);
        qt_line_close(env, &line);
    }
}

static bool has(struct qt_env *env, uint32_t key)
{
    uint32_t tokens[5];
    qt_tokens(key, tokens, 5);
    return qt_cached(env, tokens, 4) == 4;
}

/* LRU: of leaves the least recently used goes; a hit is a use. */
static void test_lru_takes_the_least_recent(void **state)
{
    struct qt_env env;
    open_policy(&env, *state, QUIRE_EVICT_LRU, 8);
    for (uint32_t key = 0; key < 8; key++)
        cache_and_hit(&env, key, 0);
    cache_and_hit(&env, 2, 1);
    cache_and_hit(&env, 0, 1);
    static const uint32_t order[] = {1, 3, 4, 5, 6, 7, 2, 0};
    for (uint32_t i = 0; i < 8; i++) {
        assert_true(has(&env, order[i]));
        qt_evict(&env, 1);
        for (uint32_t j = 0; j < 8; j++)
            assert_int_equal(has(&env, order[j]), j > i);
    }
    qt_close(&env);
}

/* Visits a prompt of one block, which may be gone, and hits it twice. */
static void visit(struct qt_env *env, uint32_t key)
{
    struct qt_line line;
    uint32_t tokens[5];
    qt_tokens(key, tokens, 5);
    for (uint32_t i = 0; i < 3; i++) {
        (void)qt_line_run(env, &line, tokens, 4);
        qt_line_close(env, &line);
    }
}

enum { VISITORS = 4, COST_BLOCKS = 16, ONE_SHOTS = 17 };

/* Four prompts that return in every round, between more one-shot prompts than there are blocks. */
static void run_rounds(struct qt_env *env, uint32_t rounds, uint32_t *key)
{
    for (uint32_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < 2 * VISITORS; i++) /* each twice, as a chat of two turns */
            visit(env, i % VISITORS);
        for (uint32_t i = 0; i < ONE_SHOTS; i++)
            cache_and_hit(env, (*key)++, 0);
    }
}

static uint32_t visitors_cached(struct qt_env *env)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < VISITORS; i++)
        count += has(env, i);
    return count;
}

/* COST: one-shot prompts do not push out what returns, as they do under LRU; but what returned once
 * and does so no more ages, and goes after some turnovers of the pool. */
static void test_cost_keeps_what_returns(void **state)
{
    for (uint32_t eviction = QUIRE_EVICT_LRU; eviction <= QUIRE_EVICT_COST; eviction++) {
        struct qt_env env;
        uint32_t key = 100;
        open_policy(&env, *state, eviction, COST_BLOCKS);
        run_rounds(&env, 12, &key);
        assert_int_equal(visitors_cached(&env), eviction == QUIRE_EVICT_COST ? VISITORS : 0);
        for (uint32_t i = 0; i < 20 * COST_BLOCKS; i++)
            cache_and_hit(&env, key++, 0);
        assert_int_equal(visitors_cached(&env), 0);
        qt_close(&env);
    }
}

/* E2 and T1: cached blocks never stand in the way of a step; and a step that would not fit even
 * with all of them evicts none. */
static void test_begin_evicts_all_it_needs_or_none(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct qt_batch batch;
    struct qt_snapshot snapshot;
    uint32_t held[12], cached[28], tokens[33];
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    qt_share_open(&env, *state, &qt_plain, 4, 10);
    qt_tokens(1, held, 12);
    qt_tokens(2, cached, 28);
    qt_tokens(3, tokens, 33);
    quire_pin pin;
    struct quire_seq_config config = qt_prefix(held, 12);
    qt_line_cache(&env, held, 12);
    qt_assert_ok(quire_pool_pin(env.pool, &config, &pin, NULL, NULL));
    qt_line_cache(&env, cached, 24);
    (void)qt_line_open(&env, &line, &empty);
    qt_assert_states(&env, 1, 3, 6);
    qt_snapshot_take(&env, &line.stream, 1, &snapshot);
    qt_assert_status(qt_line_begin(&env, &line, tokens, 29, &batch), QUIRE_E_NOSPACE);
    assert_int_equal(batch.missing, 1);
    qt_snapshot_same(&env, &line.stream, &snapshot);
    assert_int_equal(qt_cached(&env, cached, 24), 24);
    qt_line_feed(&env, &line, tokens, 28);
    qt_assert_states(&env, 0, 10, 0);
    assert_int_equal(qt_cached(&env, held, 12), 12);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_assert_ok(quire_pool_unpin(env.pool, pin));
    qt_close(&env);
}

/* ---- pins ---- */

/* A pin keeps all tokens of a prefix, whatever needs memory, until it is unpinned. */
static void test_pinned_blocks_stay(void **state)
{
    struct qt_env env;
    struct quire_pool_stats stats;
    struct quire_error error = {.status = 77};
    quire_pin pin = {0};
    uint32_t tokens[10], others[28], len = 0;
    qt_share_open(&env, *state, &qt_plain, 4, 10);
    qt_tokens(1, tokens, 10);
    qt_tokens(2, others, 28);
    qt_line_cache(&env, tokens, 10);
    struct quire_seq_config config = qt_prefix(tokens, 10);
    qt_assert_ok(quire_pool_pin(env.pool, &config, &pin, &len, &error));
    assert_int_equal(len, 10);
    assert_int_equal(error.status, 77); /* written only on failure */
    assert_true(pin.id != 0);
    qt_stats(&env, &stats);
    assert_int_equal(stats.pins, 1);
    assert_int_equal(stats.blocks_pinned, 3);
    qt_assert_states(&env, 7, 3, 0);
    for (uint32_t i = 0; i < 3; i++) {
        qt_line_cache(&env, others, 28);
        assert_int_equal(qt_cached(&env, tokens, 10), 10);
        others[0]++;
    }
    struct qt_line line;
    assert_int_equal(qt_line_run(&env, &line, tokens, 10), 9);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_assert_ok(quire_pool_unpin(env.pool, pin));
    qt_stats(&env, &stats);
    assert_int_equal(stats.pins, 0);
    assert_int_equal(stats.blocks_pinned, 0);
    assert_int_equal(stats.blocks_owned, 0);
    qt_evict(&env, (uint32_t)stats.blocks_cached);
    assert_int_equal(qt_cached(&env, tokens, 10), 0);
    qt_close(&env);
}

/* Whoever goes on from a pinned prefix gets a block of its own (P3): the pin can read the rows. */
static void test_a_pinned_block_is_not_appended_to(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct quire_pool_stats stats;
    quire_pin pin;
    uint32_t tokens[8];
    qt_share_open(&env, *state, &qt_plain, 4, 10);
    qt_tokens(1, tokens, 8);
    qt_line_cache(&env, tokens, 6);
    struct quire_seq_config config = qt_prefix(tokens, 6);
    qt_assert_ok(quire_pool_pin(env.pool, &config, &pin, NULL, NULL));
    assert_int_equal(qt_line_run(&env, &line, tokens, 8), 6);
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_copied, 1);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_stats(&env, &stats);
    qt_evict(&env, (uint32_t)stats.blocks_cached);
    assert_int_equal(qt_cached(&env, tokens, 8), 6);
    qt_assert_ok(quire_pool_unpin(env.pool, pin));
    qt_close(&env);
}

/* What is cached of a longer prefix is pinned, and len says how much. */
static void test_pin_what_is_there(void **state)
{
    struct qt_env env;
    struct quire_error error = {0};
    quire_pin pin = {0};
    uint32_t tokens[20], len = 77;
    qt_share_open(&env, *state, &qt_plain, 4, 10);
    qt_tokens(1, tokens, 20);
    struct quire_seq_config config = qt_prefix(tokens, 20);
    qt_assert_status(quire_pool_pin(env.pool, &config, &pin, &len, &error), QUIRE_E_NOTFOUND);
    assert_int_equal(error.status, QUIRE_E_NOTFOUND);
    assert_string_not_equal(error.message, "");
    assert_int_equal(pin.id, 0);
    assert_int_equal(len, 77);
    qt_line_cache(&env, tokens, 13);
    qt_assert_ok(quire_pool_pin(env.pool, &config, &pin, &len, NULL));
    assert_int_equal(len, 13);
    qt_assert_states(&env, 6, 4, 0);
    qt_assert_ok(quire_pool_unpin(env.pool, pin));
    config.num_tokens = 6; /* ends inside a block */
    qt_assert_ok(quire_pool_pin(env.pool, &config, &pin, &len, NULL));
    assert_int_equal(len, 6);
    qt_assert_states(&env, 6, 2, 2);
    qt_evict(&env, 2);
    assert_true(qt_cached(&env, tokens, 13) >= 6);
    qt_assert_ok(quire_pool_unpin(env.pool, pin));
    qt_close(&env);
}

/* The budget: blocks of all pins together, those of several counted for each; the error names what
 * is asked and what is left. */
static void test_pin_budget(void **state)
{
    struct qt_env env;
    struct quire_pool_config config;
    struct quire_error error = {0};
    struct qt_snapshot snapshot;
    struct quire_pool_stats stats;
    quire_pin first, second = {0};
    uint32_t a[12], b[8], len = 77;
    qt_share_config(&config, *state, &qt_plain, 4, 20);
    config.max_pinned_blocks = 4;
    qt_open_config(&env, *state, &qt_plain, &config);
    qt_tokens(1, a, 12);
    qt_tokens(2, b, 8);
    qt_line_cache(&env, a, 12);
    qt_line_cache(&env, b, 8);
    struct quire_seq_config three = qt_prefix(a, 12), two = qt_prefix(b, 8), one = qt_prefix(a, 4);
    qt_assert_ok(quire_pool_pin(env.pool, &three, &first, NULL, NULL));
    qt_snapshot_take(&env, NULL, 0, &snapshot);
    qt_assert_status(quire_pool_pin(env.pool, &two, &second, &len, &error), QUIRE_E_LIMIT);
    assert_int_equal(error.status, QUIRE_E_LIMIT);
    assert_non_null(strstr(error.message, "2 blocks"));
    assert_non_null(strstr(error.message, "3 of 4"));
    assert_int_equal(second.id, 0);
    assert_int_equal(len, 77);
    qt_snapshot_same(&env, NULL, &snapshot);
    qt_assert_ok(quire_pool_pin(env.pool, &one, &second, NULL, NULL)); /* the fourth */
    qt_stats(&env, &stats);
    assert_int_equal(stats.pins, 2);
    quire_pin third = {0};
    qt_assert_status(quire_pool_pin(env.pool, &one, &third, NULL, &error), QUIRE_E_LIMIT);
    qt_assert_ok(quire_pool_unpin(env.pool, first));
    qt_assert_ok(quire_pool_pin(env.pool, &two, &first, NULL, NULL));
    qt_stats(&env, &stats);
    qt_evict(&env, (uint32_t)stats.blocks_cached);
    assert_int_equal(qt_cached(&env, a, 12), 4);
    assert_int_equal(qt_cached(&env, b, 8), 8);
    qt_assert_ok(quire_pool_unpin(env.pool, first));
    qt_assert_ok(quire_pool_unpin(env.pool, second));
    qt_close(&env);
}

/* The default budget is half of the pool. */
static void test_half_of_the_pool_can_be_pinned(void **state)
{
    struct qt_env env;
    quire_pin pin = {0};
    uint32_t tokens[40];
    qt_share_open(&env, *state, &qt_plain, 4, 10);
    qt_tokens(1, tokens, 40);
    qt_line_cache(&env, tokens, 40);
    struct quire_seq_config config = qt_prefix(tokens, 21);
    qt_assert_status(quire_pool_pin(env.pool, &config, &pin, NULL, NULL), QUIRE_E_LIMIT);
    config.num_tokens = 20;
    qt_assert_ok(quire_pool_pin(env.pool, &config, &pin, NULL, NULL));
    qt_assert_ok(quire_pool_unpin(env.pool, pin));
    qt_close(&env);
}

/* max_pins; and that a prefix pinned twice is let go by the second unpin. */
static void test_max_pins(void **state)
{
    struct qt_env env;
    struct quire_pool_config config;
    quire_pin pins[4] = {{0}};
    uint32_t tokens[4];
    qt_share_config(&config, *state, &qt_plain, 4, 20);
    config.max_pins = 3;
    qt_open_config(&env, *state, &qt_plain, &config);
    qt_tokens(1, tokens, 4);
    qt_line_cache(&env, tokens, 4);
    struct quire_seq_config prefix = qt_prefix(tokens, 4);
    for (uint32_t i = 0; i < 4; i++)
        qt_assert_status(quire_pool_pin(env.pool, &prefix, &pins[i], NULL, NULL),
                         i < 3 ? QUIRE_OK : QUIRE_E_LIMIT);
    for (uint32_t i = 0; i < 3; i++) {
        qt_assert_states(&env, 19, 1, 0);
        qt_assert_ok(quire_pool_unpin(env.pool, pins[i]));
    }
    qt_assert_states(&env, 19, 0, 1);
    qt_close(&env);
}

/* P5: a pin is unpinned once; what was never a pin, or one of a former life of its slot, is not. */
static void test_stale_pins_are_refused(void **state)
{
    struct qt_env env;
    struct qt_snapshot snapshot;
    quire_pin old[20], pin;
    uint32_t tokens[8];
    qt_share_open(&env, *state, &qt_plain, 4, 20);
    qt_tokens(1, tokens, 8);
    qt_line_cache(&env, tokens, 8);
    struct quire_seq_config config = qt_prefix(tokens, 8);
    static const uint64_t never[] = {0, 1, 2, 64, 65, 1ull << 32, UINT64_MAX};
    for (uint32_t i = 0; i < QT_LEN(never); i++)
        qt_assert_status(quire_pool_unpin(env.pool, (quire_pin){never[i]}), QUIRE_E_INVAL);
    for (uint32_t i = 0; i < 20; i++) {
        qt_assert_ok(quire_pool_pin(env.pool, &config, &old[i], NULL, NULL));
        qt_assert_ok(quire_pool_unpin(env.pool, old[i]));
    }
    qt_assert_ok(quire_pool_pin(env.pool, &config, &pin, NULL, NULL));
    qt_snapshot_take(&env, NULL, 0, &snapshot);
    for (uint32_t i = 0; i < 20; i++)
        qt_assert_status(quire_pool_unpin(env.pool, old[i]), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_unpin(NULL, pin), QUIRE_E_INVAL);
    qt_snapshot_same(&env, NULL, &snapshot);
    qt_assert_ok(quire_pool_reset(env.pool));
    qt_assert_status(quire_pool_unpin(env.pool, pin), QUIRE_E_INVAL);
    qt_close(&env);
}

/* A pin of a windowed group holds its sinks and its last window. */
static void test_pin_holds_the_window(void **state)
{
    struct qt_env env;
    struct quire_pool_stats stats;
    quire_pin pin;
    uint32_t tokens[40], len;
    qt_share_open(&env, *state, &qt_unequal, 4, 60);
    qt_tokens(1, tokens, 40);
    qt_line_cache(&env, tokens, 40);
    struct quire_seq_config config = qt_prefix(tokens, 32);
    qt_assert_ok(quire_pool_pin(env.pool, &config, &pin, &len, NULL));
    assert_int_equal(len, 32);
    qt_stats(&env, &stats);
    /* 8 of full attention; 29 .. 31 is block 7; 27 .. 31 are blocks 6 and 7, and the sinks block 0
     */
    assert_int_equal(stats.blocks_pinned, 8 + 1 + 3);
    qt_evict(&env, (uint32_t)stats.blocks_cached);
    assert_int_equal(qt_cached(&env, tokens, 40), 32);
    struct qt_line line;
    config.num_tokens = 33;
    config.tokens = tokens;
    assert_int_equal(qt_line_open(&env, &line, &config), 32);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_assert_ok(quire_pool_unpin(env.pool, pin));
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_a_chain_loses_its_tail_first, QT_SHARE),
        QT_TEST(test_lru_takes_the_least_recent, QT_SHARE),
        QT_TEST(test_cost_keeps_what_returns, QT_SHARE),
        QT_TEST(test_begin_evicts_all_it_needs_or_none, QT_SHARE),
        QT_TEST(test_pinned_blocks_stay, QT_SHARE),
        QT_TEST(test_a_pinned_block_is_not_appended_to, QT_SHARE),
        QT_TEST(test_pin_what_is_there, QT_SHARE),
        QT_TEST(test_pin_budget, QT_SHARE),
        QT_TEST(test_half_of_the_pool_can_be_pinned, QT_SHARE),
        QT_TEST(test_max_pins, QT_SHARE),
        QT_TEST(test_stale_pins_are_refused, QT_SHARE),
        QT_TEST(test_pin_holds_the_window, QT_SHARE),
    };
    return qt_run("pins", tests, QT_LEN(tests));
}
