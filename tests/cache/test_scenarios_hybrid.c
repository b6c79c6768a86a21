/* test_scenarios_hybrid.c - the behaviours of several cache groups that vLLM's own tests check.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Rows H1 to H14 and those P rows of docs/scenarios.md that need several groups. A window gives its
 * blocks back at the commit that leaves them behind, not at the next step as in vLLM, and they stay
 * findable; rollback_max is 0 here, so that nothing more is kept. */
#include "share_fixture.h"

#include <string.h>

static const uint32_t layers[] = {0, 1, 2, 3};

/* One layer a group; windows[i] 0 is full attention. */
static struct qt_geometry geometry_of(const uint32_t *windows, uint32_t count)
{
    struct qt_geometry geometry = {"made", count, count, {{0}}};
    for (uint32_t i = 0; i < count; i++) {
        struct quire_group_config group = {&layers[i], 1, 2, 1, 8, 0, windows[i], 0};
        geometry.groups[i] = group;
    }
    return geometry;
}

static uint64_t cached_in(struct qt_env *env, uint32_t group, uint64_t *owned)
{
    struct quire_group_stats stats = {.struct_size = sizeof stats};
    qt_assert_ok(quire_pool_group_stats(env->pool, group, &stats));
    *owned = stats.blocks_owned;
    return stats.blocks_cached;
}

static void prompt(uint32_t key, uint32_t *tokens, uint32_t count)
{
    qt_tokens(1, tokens, 48);
    qt_tokens(100 + key, tokens + 48, count - 48);
}

/* V-P9: a block that only some groups hold is no hit for all of them. */
static void test_v_p9_a_hit_needs_every_group(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[64];
    uint64_t owned;
    qt_share_open(&env, *state, &qt_hybrid, 16, 20);
    qt_tokens(1, tokens, 64);
    (void)qt_line_run(&env, &line, tokens, 64);
    qt_assert_states(&env, 8, 4 + 2 + 2, 2 + 2);
    assert_int_equal(qt_cached(&env, tokens, 48), 48);
    qt_evict(&env, 4); /* blocks 0 and 1 of both windows */
    assert_int_equal(cached_in(&env, 0, &owned), 0);
    assert_int_equal(owned, 4);
    for (uint32_t group = 1; group < 3; group++) {
        assert_int_equal(cached_in(&env, group, &owned), 0);
        assert_int_equal(owned, 2);
    }
    assert_int_equal(qt_cached(&env, tokens, 48), 0);
    /* The next token of a hit sees 31 positions before it: from block 2 on that is 63 and more. */
    assert_int_equal(qt_cached(&env, tokens, 62), 0);
    assert_int_equal(qt_cached(&env, tokens, 63), 63);
    assert_int_equal(qt_cached(&env, tokens, 64), 64);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-P17: a block whose parent is gone is stored without one, and found. */
static void test_v_p17_parent_out_of_the_window(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct quire_event events[8];
    uint32_t tokens[8];
    qt_share_open(&env, *state, &qt_window, 4, 8);
    qt_tokens(1, tokens, 8);
    (void)qt_line_run(&env, &line, tokens, 4);
    qt_line_feed(&env, &line, tokens + 4, 3); /* the next token sees 4 .. 7 */
    qt_assert_states(&env, 6, 1, 1);
    qt_evict(&env, 1);
    assert_int_equal(qt_drain(&env, events, 8), 2);
    assert_int_equal(events[1].kind, QUIRE_EVENT_EVICTED);
    qt_line_feed(&env, &line, tokens + 7, 1);
    assert_int_equal(qt_drain(&env, events, 8), 1);
    assert_int_equal(events[0].kind, QUIRE_EVENT_STORED);
    assert_int_equal(events[0].parent, QUIRE_BLOCK_NONE);
    assert_int_equal(qt_cached(&env, tokens, 4), 0);
    assert_int_equal(qt_cached(&env, tokens, 8), 8);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-P19: events carry the group, and the group says what it is. Here a group that does not exist is
 * refused. */
static void test_v_p19_events_carry_the_group(void **state)
{
    struct qt_env env;
    struct quire_event events[32];
    struct quire_group_stats stats = {.struct_size = sizeof stats};
    uint32_t tokens[48], in_group[3] = {0};
    static const uint32_t windows[] = {0, 32, 32};
    qt_share_open(&env, *state, &qt_hybrid, 16, 20);
    qt_tokens(1, tokens, 48);
    qt_line_cache(&env, tokens, 48);
    assert_int_equal(qt_drain(&env, events, 32), 9);
    for (uint32_t i = 0; i < 9; i++) {
        assert_int_equal(events[i].kind, QUIRE_EVENT_STORED);
        assert_in_range(events[i].group, 0, 2);
        in_group[events[i].group]++;
    }
    for (uint32_t group = 0; group < 3; group++) {
        assert_int_equal(in_group[group], 3);
        qt_assert_ok(quire_pool_group_stats(env.pool, group, &stats));
        assert_int_equal(stats.window, windows[group]);
        assert_int_equal(stats.blocks_cached, 3);
    }
    qt_assert_status(quire_pool_group_stats(env.pool, 3, &stats), QUIRE_E_INVAL);
    qt_close(&env);
}

/* Every physical block that a line holds is its own: no group's table names it twice. */
static void assert_distinct(struct qt_env *env, const struct qt_line *line)
{
    bool *used = qt_alloc(env->config.num_blocks * sizeof *used);
    for (uint32_t group = 0; group < env->geometry->num_groups; group++) {
        const uint32_t *blocks;
        uint32_t count = qt_blocks(env, line, group, &blocks);
        for (uint32_t i = 0; i < count; i++) {
            if (blocks[i] == QUIRE_BLOCK_NONE)
                continue;
            assert_in_range(blocks[i], 0, env->config.num_blocks - 1);
            assert_false(used[blocks[i]]);
            used[blocks[i]] = true;
        }
    }
    qt_free(used);
}

/* V-P25: found, new and again: no block is in two places. vLLM's two external blocks are five
 * blocks found and three computed here, as there is no tier yet. */
static void test_v_p25_no_block_twice(void **state)
{
    static const uint32_t windows[] = {0, 32, 32};
    for (uint32_t groups = 2; groups <= 3; groups++) {
        struct qt_geometry geometry = geometry_of(windows, groups);
        struct qt_env env;
        struct qt_line line;
        uint32_t tokens[128];
        qt_share_open(&env, *state, &geometry, 16, 40);
        qt_tokens(1, tokens, 128);
        qt_line_cache(&env, tokens, 80);
        for (uint32_t round = 0; round < 3; round++) { /* run, preempted, run again */
            uint32_t hit = qt_line_run(&env, &line, tokens, 128);
            assert_int_equal(hit, round == 0 ? 80 : 127);
            assert_distinct(&env, &line);
            qt_line_check(&env, &line);
            qt_line_close(&env, &line);
        }
        struct quire_pool_stats stats;
        qt_stats(&env, &stats);
        assert_int_equal(stats.blocks_owned, 0);
        qt_close(&env);
    }
}

/* V-H1: one group of full attention and two with a window of two blocks. Here the first block of
 * the windows is given back by the first request's commit: ten owned, not twelve. */
static void test_v_h1_second_request_hits_the_window(void **state)
{
    struct qt_env env;
    struct qt_line first, second;
    struct quire_seq_stats stats;
    uint32_t a[55], b[53];
    qt_share_open(&env, *state, &qt_hybrid, 16, 20);
    prompt(0, a, 55);
    prompt(1, b, 53);
    assert_int_equal(qt_line_run(&env, &first, a, 55), 0);
    qt_assert_states(&env, 8, 4 + 3 + 3, 2);
    struct quire_seq_config config = qt_prefix(b, 53);
    assert_int_equal(qt_line_open(&env, &second, &config), 48);
    qt_seq_stats(&env, &second, &stats);
    assert_int_equal(stats.blocks, 3 + 2 + 2);
    assert_int_equal(stats.blocks_shared, 3 + 2 + 2);
    qt_line_feed(&env, &second, b + 48, 5);
    qt_assert_states(&env, 5, 4 + 3 + 3 + 3, 2);
    if (env.has_kv) {
        for (uint32_t group = 0; group < 3; group++) {
            const uint32_t *blocks;
            assert_int_equal(qt_blocks(&env, &second, group, &blocks), 4);
            assert_int_equal(blocks[0] == QUIRE_BLOCK_NONE, group > 0);
            assert_int_equal(qt_blocks_held(&env, &second, group), group > 0 ? 3 : 4);
        }
    }
    qt_line_check(&env, &first);
    qt_line_check(&env, &second);
    qt_line_close(&env, &first);
    qt_line_close(&env, &second);
    qt_close(&env);
}

/* A pool of `num_blocks` in which 48 and 7 tokens are computed and, where asked, the first block of
 * both windows is evicted while they are. */
static void h2_open(struct qt_env *env, const struct qt_variant *variant, uint32_t *tokens,
                    bool evict_first_of_windows)
{
    struct qt_line line;
    qt_share_open(env, variant, &qt_hybrid, 16, 19);
    prompt(0, tokens, 55);
    (void)qt_line_run(env, &line, tokens, 55);
    if (evict_first_of_windows) {
        qt_assert_states(env, 7, 10, 2);
        qt_evict(env, 2);
    }
    qt_line_close(env, &line);
}

static void h2_drop(struct qt_env *env, const uint32_t *tokens, uint32_t count)
{
    struct quire_seq_config config = qt_prefix(tokens, count);
    qt_assert_ok(quire_pool_drop_prefix(env->pool, &config, NULL));
    qt_assert_pool_ok(env);
}

/* V-H2: what is left of a hit after evictions, in blocks of the 48 tokens: 3 when blocks outside
 * the window went, 0 after the first, 2 after the last, 0 after the last and the window's first.
 * Here no eviction takes the head of a chain (E1), so blocks are dropped where vLLM evicts; the
 * cases where one of two windows lost its last block are those of test_v_s1_random_holes. */
static void test_v_h2_hit_after_evictions(void **state)
{
    struct qt_env env;
    uint32_t tokens[55];
    h2_open(&env, *state, tokens, true);
    assert_int_equal(qt_cached(&env, tokens, 48), 48);
    h2_drop(&env, tokens, 48);
    assert_int_equal(qt_cached(&env, tokens, 48), 0);
    qt_close(&env);
    h2_open(&env, *state, tokens, false);
    assert_int_equal(qt_cached(&env, tokens, 48), 48);
    h2_drop(&env, tokens, 48);
    assert_int_equal(qt_cached(&env, tokens, 48), 32);
    h2_drop(&env, tokens, 16);
    assert_int_equal(qt_cached(&env, tokens, 48), 0);
    qt_close(&env);
}

static void h4_run(const struct qt_variant *variant, const uint32_t *windows, uint32_t count)
{
    struct qt_geometry geometry = geometry_of(windows, count);
    struct qt_env env;
    struct qt_line lines[3];
    uint32_t tokens[55];
    qt_share_open(&env, variant, &geometry, 16, 64);
    for (uint32_t i = 0; i < 3; i++) {
        prompt(i, tokens, 55 - i);
        assert_int_equal(qt_line_run(&env, &lines[i], tokens, 55 - i), i > 0 ? 48 : 0);
        for (uint32_t group = 0; env.has_kv && group < count; group++)
            assert_in_range(qt_blocks_held(&env, &lines[i], group), 3, 4);
        qt_line_check(&env, &lines[i]);
        if (i == 1) { /* also when those that computed the prefix are gone */
            qt_line_close(&env, &lines[0]);
            qt_line_close(&env, &lines[1]);
        }
    }
    qt_line_close(&env, &lines[2]);
    qt_close(&env);
}

/* V-H4: every mix of full attention, a window of 2 blocks and one of 4 in two to four groups hits
 * 48 tokens; those without full attention too. (State-space layers are out of scope.) */
static void test_v_h4_every_mix_of_groups(void **state)
{
    static const uint32_t kinds[] = {0, 32, 64};
    for (uint32_t count = 2; count <= 4; count++) {
        uint32_t mixes = count == 2 ? 9 : count == 3 ? 27 : 81;
        for (uint32_t mix = 0; mix < mixes; mix++) {
            uint32_t windows[4], rest = mix, ascending = 1;
            for (uint32_t i = 0; i < count; i++, rest /= 3) {
                windows[i] = kinds[rest % 3];
                ascending &= i == 0 || windows[i] >= windows[i - 1];
            }
            if (ascending)
                h4_run(*state, windows, count);
        }
    }
}

/* V-H6: 16 tokens drafted and one kept, then one drafted: no block more than the length needs. Here
 * the blocks of rejected tokens are free when commit returns. */
static void test_v_h6_drafts_of_any_length(void **state)
{
    static const uint32_t drafted[] = {16, 1, 16, 3};
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[64];
    qt_share_open(&env, *state, &qt_hybrid, 16, 20);
    qt_tokens(1, tokens, 64);
    (void)qt_line_run(&env, &line, tokens, 20);
    qt_assert_states(&env, 14, 6, 0);
    for (uint32_t i = 0; i < QT_LEN(drafted); i++) {
        struct qt_batch batch;
        uint32_t keep = 1, len = line.stream.len;
        qt_assert_ok(qt_line_begin(&env, &line, tokens + len, 1 + drafted[i], &batch));
        qt_line_write(&env, &batch);
        uint32_t during = 3 * ((len + 1 + drafted[i] + 15) / 16);
        qt_assert_states(&env, 20 - during, during, 0);
        qt_assert_ok(qt_batch_commit(&env, &batch, &keep));
        qt_assert_states(&env, 14, 6, 0);
        qt_line_check(&env, &line);
    }
    assert_int_equal(qt_cached(&env, tokens, 24), 16); /* no rejected token is found */
    qt_line_close(&env, &line);
    assert_int_equal(qt_cached(&env, tokens, 64), 24);
    qt_close(&env);
}

/* V-H11, unset: a pool of one window keeps all its blocks findable. Here the replay hits all but
 * the last token, 255, where vLLM's ends at a block, 240. */
static void test_v_h11_pure_window_replay(void **state)
{
    static const uint32_t windows[] = {32};
    struct qt_geometry geometry = geometry_of(windows, 1);
    struct qt_env env;
    struct qt_line line;
    struct quire_pool_stats stats;
    uint32_t tokens[256];
    qt_share_open(&env, *state, &geometry, 16, 20);
    qt_tokens(1, tokens, 256);
    qt_line_cache(&env, tokens, 256);
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_stored, 16);
    qt_assert_states(&env, 4, 0, 16);
    assert_int_equal(qt_line_run(&env, &line, tokens, 256), 255);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-H13: a prompt of 512 tokens in steps of 128 runs in 32 blocks of full attention and 13 of a
 * window of 64, though 64 blocks would hold it all; a pool of 5 refuses the first step. */
static void test_v_h13_window_admission(void **state)
{
    static const uint32_t windows[] = {0, 64};
    struct qt_geometry geometry = geometry_of(windows, 2);
    struct qt_env env;
    struct qt_line line;
    struct qt_batch batch;
    struct quire_pool_config config;
    uint32_t tokens[512];
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    qt_tokens(1, tokens, 512);
    qt_share_config(&config, *state, &geometry, 16, 32 + 13);
    config.max_step_tokens = 128;
    qt_open_config(&env, *state, &geometry, &config);
    (void)qt_line_open(&env, &line, &empty);
    qt_line_feed(&env, &line, tokens, 512);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
    qt_share_config(&config, *state, &geometry, 16, 5);
    config.max_step_tokens = 128;
    qt_open_config(&env, *state, &geometry, &config);
    (void)qt_line_open(&env, &line, &empty);
    qt_assert_status(qt_line_begin(&env, &line, tokens, 128, &batch), QUIRE_E_NOSPACE);
    assert_int_equal(batch.missing, 8 + 8 - 5);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-H14: blocks that fell out of a window and cannot be found are taken before any cached one. */
static void test_v_h14_unfindable_blocks_go_first(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    struct quire_pool_stats stats;
    uint32_t tokens[64];
    qt_share_open(&env, *state, &qt_hybrid, 16, 24);
    qt_tokens(1, tokens, 64);
    qt_line_cache(&env, tokens, 64);
    qt_assert_states(&env, 12, 0, 12);
    qt_stream_open(&env, &stream, 1);
    qt_append(&env, &stream, 64);
    qt_assert_states(&env, 4, 8, 12); /* blocks 0 and 1 of both windows are free again */
    qt_append(&env, &stream, 16);
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_evicted, 0);
    assert_int_equal(qt_cached(&env, tokens, 64), 64);
    qt_append(&env, &stream, 16); /* three blocks needed, three free */
    qt_append(&env, &stream, 16);
    qt_append(&env, &stream, 16); /* full attention takes one block more in each step */
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_evicted, 2);
    qt_assert_states(&env, 2, 12, 10);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_v_p9_a_hit_needs_every_group, QT_SHARE),
        QT_TEST(test_v_p17_parent_out_of_the_window, QT_SHARE),
        QT_TEST(test_v_p19_events_carry_the_group, QT_SHARE),
        QT_TEST(test_v_p25_no_block_twice, QT_SHARE_KV),
        QT_TEST(test_v_h1_second_request_hits_the_window, QT_SHARE),
        QT_TEST(test_v_h2_hit_after_evictions, QT_SHARE),
        QT_TEST(test_v_h4_every_mix_of_groups, QT_SHARE),
        QT_TEST(test_v_h6_drafts_of_any_length, QT_SHARE),
        QT_TEST(test_v_h11_pure_window_replay, QT_SHARE),
        QT_TEST(test_v_h13_window_admission, QT_SHARE),
        QT_TEST(test_v_h14_unfindable_blocks_go_first, QT_SHARE),
    };
    return qt_run("scenarios_hybrid", tests, QT_LEN(tests));
}
