/* test_scenarios_units.c - what vLLM's tests check of one manager, of its helpers and partial hits.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Rows S1 to S11, U2 to U13 and PP1 of docs/scenarios.md. */
#include "share_fixture.h"

#include <string.h>

/* ---- one group with a window ---- */

/* V-S1: blocks of 2, a window of 4: a hit needs the blocks of its window, whatever lies before it.
 * The holes are made by eviction around pinned windows; patterns with a single block between two
 * holes are those of test_v_s1_random_holes. */
static void test_v_s1_window_hits(void **state)
{
    struct qt_env env;
    uint32_t tokens[24];
    quire_pin pins[3];
    static const uint32_t lengths[] = {4, 16, 24};
    struct quire_seq_config config;
    qt_tokens(1, tokens, 24);
    for (uint32_t blocks = 0; blocks < 4; blocks++) { /* F.., TF.., TTF.., TTTF.. */
        qt_share_open(&env, *state, &qt_window, 2, 12);
        qt_line_cache(&env, tokens, blocks * 2);
        assert_int_equal(qt_cached(&env, tokens, 20), blocks * 2);
        qt_close(&env);
    }
    qt_share_open(&env, *state, &qt_window, 2, 12);
    qt_line_cache(&env, tokens, 24);
    for (uint32_t i = 0; i < 3; i++) {
        config = qt_prefix(tokens, lengths[i]);
        qt_assert_ok(quire_pool_pin(env.pool, &config, &pins[i], NULL, NULL));
    }
    qt_assert_states(&env, 0, 6, 6);
    qt_evict(&env, 6); /* TTFFFFTTFFTT */
    assert_int_equal(qt_cached(&env, tokens, 24), 24);
    assert_int_equal(qt_cached(&env, tokens, 22), 16);
    assert_int_equal(qt_cached(&env, tokens, 14), 4);
    assert_int_equal(qt_cached(&env, tokens, 3), 3); /* a hit ends at any token */
    qt_assert_ok(quire_pool_unpin(env.pool, pins[2]));
    qt_evict(&env, 2); /* TTFFFFTTFFFF */
    assert_int_equal(qt_cached(&env, tokens, 24), 16);
    for (uint32_t i = 0; i < 2; i++)
        qt_assert_ok(quire_pool_unpin(env.pool, pins[i]));
    qt_close(&env);
}

/* V-S3: blocks of 2, a window of 4: how many blocks were given back at each length. */
static void test_v_s3_blocks_given_back(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct quire_pool_stats stats;
    uint32_t tokens[11];
    static const uint32_t lengths[] = {4, 5, 6, 7, 11}, released[] = {0, 1, 1, 2, 4};
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    qt_share_open(&env, *state, &qt_window, 2, 12);
    qt_tokens(1, tokens, 11);
    (void)qt_line_open(&env, &line, &empty);
    for (uint32_t i = 0; i < QT_LEN(lengths); i++) {
        qt_line_feed(&env, &line, tokens + line.stream.len, lengths[i] - line.stream.len);
        qt_stats(&env, &stats);
        assert_int_equal(stats.blocks_released, released[i]);
        assert_int_equal(stats.blocks_owned, (lengths[i] + 1) / 2 - released[i]);
        qt_line_check(&env, &line);
    }
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-S5: blocks of 4, a window of 8 and 16 positions that stay: the gap between them grows. The
 * positions are sinks of the group here, not the prompt of a request. */
static void test_v_s5_gap_after_the_sinks(void **state)
{
    static const uint32_t layer[] = {0};
    const struct qt_geometry geometry = {"sinks", 1, 1, {{layer, 1, 2, 1, 8, 0, 8, 16}}};
    struct qt_env env;
    struct qt_line line;
    struct quire_pool_stats stats;
    uint32_t tokens[36];
    static const uint32_t lengths[] = {16, 28, 36}, released[] = {0, 1, 3};
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    qt_share_open(&env, *state, &geometry, 4, 12);
    qt_tokens(1, tokens, 36);
    (void)qt_line_open(&env, &line, &empty);
    for (uint32_t i = 0; i < QT_LEN(lengths); i++) {
        qt_line_feed(&env, &line, tokens + line.stream.len, lengths[i] - line.stream.len);
        qt_stats(&env, &stats);
        assert_int_equal(stats.blocks_released, released[i]);
        for (uint32_t b = 0; env.has_kv && b < lengths[i] / 4; b++) {
            const uint32_t *blocks;
            (void)qt_blocks(&env, &line, 0, &blocks);
            assert_int_equal(blocks[b] == QUIRE_BLOCK_NONE, b >= 4 && b < 4 + released[i]);
        }
        qt_line_check(&env, &line);
    }
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* ---- what an allocation needs ---- */

/* V-S6: twenty blocks wanted, ten of them cached: all twenty count. Here the ten are taken when the
 * sequence is created, and the step needs the other ten. */
static void test_v_s6_cached_hits_count(void **state)
{
    static const uint32_t sizes[] = {20, 19};
    for (uint32_t i = 0; i < QT_LEN(sizes); i++) {
        struct qt_env env;
        struct qt_line line;
        struct qt_batch batch;
        uint32_t tokens[80];
        qt_share_open(&env, *state, &qt_plain, 4, sizes[i]);
        qt_tokens(1, tokens, 80);
        qt_line_cache(&env, tokens, 40);
        struct quire_seq_config config = qt_prefix(tokens, 80);
        assert_int_equal(qt_line_open(&env, &line, &config), 40);
        quire_status status = qt_line_begin(&env, &line, tokens + 40, 40, &batch);
        assert_int_equal(status, i == 0 ? QUIRE_OK : QUIRE_E_NOSPACE);
        if (i == 0)
            qt_assert_ok(qt_batch_abort(&env, &batch));
        else
            assert_int_equal(batch.missing, 1);
        qt_line_check(&env, &line);
        qt_line_close(&env, &line);
        qt_close(&env);
    }
}

/* V-S6, with a window: of ten blocks found only those of the window are taken. */
static void test_v_s6_window_takes_its_own(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[24];
    qt_share_open(&env, *state, &qt_window, 2, 12);
    qt_tokens(1, tokens, 24);
    qt_line_cache(&env, tokens, 20);
    struct quire_seq_config config = qt_prefix(tokens, 24);
    assert_int_equal(qt_line_open(&env, &line, &config), 20);
    qt_assert_states(&env, 2, 2, 8);
    qt_line_feed(&env, &line, tokens + 20, 4);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-S7: two blocks wanted, one of them cached: one new block does, and nothing is evicted. */
static void test_v_s7_a_hit_is_not_counted_twice(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct quire_pool_stats stats;
    uint32_t tokens[8];
    qt_share_open(&env, *state, &qt_plain, 4, 2);
    qt_tokens(1, tokens, 8);
    qt_line_cache(&env, tokens, 4);
    assert_int_equal(qt_line_run(&env, &line, tokens, 8), 4);
    qt_assert_states(&env, 0, 2, 0);
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_evicted, 0);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-S8: what begin says is missing is what is missing, at every length of a windowed sequence: with
 * so many blocks more it succeeds, with one less than that it does not. */
static void test_v_s8_missing_is_exact(void **state)
{
    enum { BLOCKS = 20 };
    static const uint32_t layer[] = {0};
    const struct qt_geometry geometry = {"window8", 1, 1, {{layer, 1, 2, 1, 8, 0, 8, 0}}};
    struct qt_env env;
    struct qt_line line;
    struct quire_pool_config config;
    uint32_t tokens[64];
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    qt_share_config(&config, *state, &geometry, 4, BLOCKS);
    config.max_seqs = BLOCKS + 1;
    qt_open_config(&env, *state, &geometry, &config);
    qt_tokens(1, tokens, 64);
    (void)qt_line_open(&env, &line, &empty);
    for (uint32_t len = 4; len <= 16; len += 4) {
        struct quire_pool_stats stats;
        struct qt_stream others[BLOCKS];
        struct qt_batch batch;
        uint32_t before = line.stream.len, left, n_new = 4 * (1 + len / 8);
        qt_stats(&env, &stats);
        left = (uint32_t)(stats.blocks_free + stats.blocks_cached);
        for (uint32_t i = 0; i < left; i++) { /* a block each */
            qt_stream_open(&env, &others[i], i);
            qt_append(&env, &others[i], 4);
        }
        for (uint32_t missing = n_new / 4; missing > 0; missing--) {
            qt_assert_status(qt_line_begin(&env, &line, tokens + before, n_new, &batch),
                             QUIRE_E_NOSPACE);
            assert_int_equal(batch.missing, missing);
            qt_stream_close(&env, &others[--left]);
        }
        qt_assert_ok(qt_line_begin(&env, &line, tokens + before, n_new, &batch));
        qt_line_write(&env, &batch);
        uint32_t keep = len - before;
        qt_assert_ok(qt_batch_commit(&env, &batch, &keep));
        qt_line_check(&env, &line);
        while (left > 0)
            qt_stream_close(&env, &others[--left]);
    }
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* ---- helpers ---- */

/* V-U2: an empty pool gives nothing and says how much is missing. Here that is a status. */
static void test_v_u2_empty_pool(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct qt_batch batch;
    struct qt_snapshot snapshot;
    uint32_t tokens[24];
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    qt_share_open(&env, *state, &qt_plain, 4, 5);
    qt_tokens(1, tokens, 24);
    (void)qt_line_open(&env, &line, &empty);
    qt_line_feed(&env, &line, tokens, 20);
    qt_snapshot_take(&env, &line.stream, 1, &snapshot);
    for (uint32_t n_new = 1; n_new <= 4; n_new++) {
        qt_assert_status(qt_line_begin(&env, &line, tokens + 20, n_new, &batch), QUIRE_E_NOSPACE);
        assert_int_equal(batch.missing, 1);
        qt_snapshot_same(&env, &line.stream, &snapshot);
    }
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-U7: a block is named by all tokens before it too: the same three tokens after others are not
 * the same block. */
static void test_v_u7_parents_are_part_of_a_block(void **state)
{
    struct qt_env env;
    struct quire_pool_stats stats;
    static const uint32_t a[] = {0, 1, 2, 3, 4, 5}, b[] = {9, 1, 2, 3, 4, 5};
    qt_share_open(&env, *state, &qt_plain, 3, 8);
    qt_line_cache(&env, a, 6);
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_stored, 2);
    assert_int_equal(qt_cached(&env, b, 6), 0);
    assert_int_equal(qt_cached(&env, a + 3, 3), 0);
    qt_line_cache(&env, b, 6);
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_stored, 4);
    assert_int_equal(qt_cached(&env, a, 6), 6);
    assert_int_equal(qt_cached(&env, b, 6), 6);
    qt_close(&env);
}

/* One lookup of `count` tokens, `hits` of them cached in `base`. */
static void look_up(struct qt_env *env, const uint32_t *base, uint32_t count, uint32_t hits)
{
    struct qt_line line;
    uint32_t tokens[64];
    assert_true(hits < count && count <= 64);
    memcpy(tokens, base, hits * sizeof *base);
    for (uint32_t i = hits; i < count; i++)
        tokens[i] = 500000 + i;
    struct quire_seq_config config = qt_prefix(tokens, count);
    assert_int_equal(qt_line_open(env, &line, &config), hits);
    qt_line_close(env, &line);
}

static void assert_recent(struct qt_env *env, uint64_t lookups, uint64_t tokens, uint64_t hits)
{
    struct quire_pool_stats stats;
    qt_stats(env, &stats);
    assert_int_equal(stats.recent_lookups, lookups);
    assert_int_equal(stats.recent_tokens, tokens);
    assert_int_equal(stats.recent_hit_tokens, hits);
}

/* V-U8: the hit rate over the last five requests: 9/20, 25/100, then 18/90; empty ones do not
 * count. Here the window is exact, where vLLM keeps a report of eleven requests whole. */
static void test_v_u8_recent_hit_rate(void **state)
{
    struct qt_env env;
    struct quire_pool_config config;
    struct quire_pool_stats stats;
    uint32_t base[32];
    qt_share_config(&config, *state, &qt_plain, 4, 64);
    config.recent_lookups = 5;
    qt_open_config(&env, *state, &qt_plain, &config);
    qt_tokens(1, base, 32);
    qt_line_cache(&env, base, 32);
    qt_assert_ok(quire_pool_reset(env.pool));
    qt_line_cache(&env, base, 32); /* a lookup of 32 tokens, none found */
    for (uint32_t i = 0; i < 5; i++)
        look_up(&env, base, 1, 0);
    look_up(&env, base, 20, 9);
    assert_recent(&env, 5, 4 + 20, 9);
    for (uint32_t i = 0; i < 4; i++) /* 4 requests, 80 tokens, 16 found */
        look_up(&env, base, 20, 4);
    assert_recent(&env, 5, 100, 25);
    look_up(&env, base, 10, 2);
    assert_recent(&env, 5, 90, 18);
    struct qt_line line;
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    (void)qt_line_open(&env, &line, &empty);
    qt_line_close(&env, &line);
    (void)qt_found(&env, base, 32);
    assert_recent(&env, 5, 90, 18);
    for (uint32_t i = 0; i < 11; i++)
        look_up(&env, base, 2, 1);
    assert_recent(&env, 5, 10, 5);
    for (uint32_t i = 0; i < 22; i++)
        look_up(&env, base, 4, 3);
    assert_recent(&env, 5, 20, 15);
    qt_stats(&env, &stats);
    assert_int_equal(stats.lookups, 2 + 5 + 1 + 4 + 1 + 11 + 22);
    assert_int_equal(stats.lookup_tokens, 64 + 5 + 20 + 80 + 10 + 22 + 88);
    assert_int_equal(stats.hit_tokens, 9 + 16 + 2 + 11 + 66);
    qt_close(&env);
}

/* V-U9: blocks of 4: three tokens and two more that may be rejected take two blocks, three and four
 * too. Here the rejected ones' block is free when the commit returns. */
static void test_v_u9_lookahead(void **state)
{
    static const uint32_t ahead[] = {2, 4};
    for (uint32_t i = 0; i < QT_LEN(ahead); i++) {
        struct qt_env env;
        struct qt_line line;
        struct qt_batch batch;
        uint32_t tokens[7], keep = 3;
        struct quire_seq_config empty = qt_prefix(NULL, 0);
        qt_share_open(&env, *state, &qt_plain, 4, 8);
        qt_tokens(1, tokens, 7);
        (void)qt_line_open(&env, &line, &empty);
        qt_assert_ok(qt_line_begin(&env, &line, tokens, 3 + ahead[i], &batch));
        qt_line_write(&env, &batch);
        qt_assert_states(&env, 6, 2, 0);
        qt_assert_ok(qt_batch_commit(&env, &batch, &keep));
        qt_assert_states(&env, 7, 1, 0);
        qt_line_check(&env, &line);
        qt_line_close(&env, &line);
        qt_close(&env);
    }
}

/* V-U12: 512 tokens fit into 32 blocks of 16. Here no block is set aside: vLLM needs 33. */
static void test_v_u12_no_null_block(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[512];
    qt_share_open(&env, *state, &qt_plain, 16, 32);
    qt_tokens(1, tokens, 512);
    assert_int_equal(qt_line_run(&env, &line, tokens, 512), 0);
    qt_assert_states(&env, 0, 32, 0);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* `full` layers of full attention beside `windowed` layers, in groups of these sizes. */
static void assert_balance(uint32_t full, uint32_t windowed, const uint32_t *sizes, uint32_t count)
{
    uint32_t layers[32], num_out = 0;
    struct quire_group_config out[32];
    for (uint32_t i = 0; i < 32; i++)
        layers[i] = i;
    const struct quire_group_config groups[] = {{layers, full, 2, 1, 8, 0, 0, 0},
                                                {layers + full, windowed, 2, 1, 8, 0, 32, 0}};
    qt_assert_ok(quire_groups_balance(groups, 2, out, 32, &num_out));
    assert_int_equal(num_out, count);
    const uint32_t *next = layers;
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(out[i].num_layers, sizes[i]);
        assert_ptr_equal(out[i].layers, next);
        assert_int_equal(out[i].window, next < layers + full ? 0 : 32);
        assert_int_equal(out[i].head_dim, 8);
        next += sizes[i];
    }
    assert_ptr_equal(next, layers + full + windowed);
    num_out = 77;
    qt_assert_status(quire_groups_balance(groups, 2, out, 1, &num_out), QUIRE_E_LIMIT);
    assert_int_equal(num_out, 77);
    qt_assert_ok(quire_groups_balance(groups, 2, out, 2, &num_out)); /* coarser, where it must be */
    assert_int_equal(num_out, 2);
    assert_int_equal(out[0].num_layers + out[1].num_layers, full + windowed);
}

/* V-U13: how layers of two kinds are cut into groups of about one size. The last case is Gemma 3's,
 * with 3 layers of full attention and 15 with a window. */
static void test_v_u13_groups(void **state)
{
    static const uint32_t two_four[] = {2, 2, 2}, three_seven[] = {3, 3, 2, 2}, six_five[] = {6, 5},
                          gemma[] = {3, 3, 3, 3, 3, 3};
    (void)state;
    assert_balance(2, 4, two_four, 3);
    assert_balance(3, 7, three_seven, 4);
    assert_balance(6, 5, six_five, 2);
    assert_balance(3, 15, gemma, 6);
}

/* ---- hits inside a block ---- */

/* V-PP1: a request of six tokens ends, one of eight finds six, inside the second block of four.
 * While somebody else can read the block, the writer gets a copy: the source keeps its name, and
 * the copy gets one when it is full. Here that holds for attention, not only for state-space
 * layers, and a sole holder appends in place, past the rows that are findable. */
static void test_v_pp1_partial_hit(void **state)
{
    struct qt_env env;
    struct qt_line first, second;
    struct quire_event events[16];
    uint32_t tokens[8], other[8];
    qt_share_open(&env, *state, &qt_plain, 4, 8);
    qt_tokens(1, tokens, 8);
    memcpy(other, tokens, sizeof other);
    other[6] = 7;
    qt_line_cache(&env, tokens, 6);
    assert_int_equal(qt_drain(&env, events, 16), 2);
    uint32_t source = events[1].block;
    assert_int_equal(events[1].num_tokens, 2);
    struct quire_seq_config config = qt_prefix(other, 8);
    assert_int_equal(qt_line_open(&env, &first, &config), 6);
    config.tokens = tokens;
    assert_int_equal(qt_line_open(&env, &second, &config), 6);
    assert_int_equal(qt_drain(&env, events, 16), 2);
    assert_int_equal(events[1].kind, QUIRE_EVENT_SHARED);
    assert_int_equal(events[1].num_tokens, 6);
    qt_line_feed(&env, &first, other + 6, 2); /* copied: the second one reads the block too */
    assert_int_equal(qt_drain(&env, events, 16), 2);
    assert_int_equal(events[0].kind, QUIRE_EVENT_COPIED);
    assert_int_equal(events[0].parent, source);
    assert_int_equal(events[0].num_tokens, 2);
    assert_int_equal(events[1].kind, QUIRE_EVENT_STORED);
    assert_int_equal(events[1].block, events[0].block);
    assert_int_equal(events[1].num_tokens, 4);
    assert_int_equal(qt_cached(&env, tokens, 6), 6);
    qt_line_feed(&env, &second, tokens + 6, 2); /* in place: the first one has a block of its own */
    assert_int_equal(qt_drain(&env, events, 16), 1);
    assert_int_equal(events[0].kind, QUIRE_EVENT_STORED);
    assert_int_equal(events[0].block, source);
    assert_int_equal(events[0].num_tokens, 4);
    assert_int_equal(qt_cached(&env, other, 8), 8);
    assert_int_equal(qt_cached(&env, tokens, 8), 8);
    qt_line_check(&env, &first);
    qt_line_check(&env, &second);
    qt_line_close(&env, &first);
    qt_line_close(&env, &second);
    qt_close(&env);
}

/* Shapes over the limits are refused before anything is computed of them. */
static void test_balance_refuses_shapes_over_the_limits(void **state)
{
    static const uint32_t layers[2] = {0, 1};
    const uint32_t huge[] = {QUIRE_MAX_HEADS + 1, 1u << 31, UINT32_MAX};
    (void)state;
    for (size_t i = 0; i < QT_LEN(huge); i++) {
        struct quire_group_config out[4], group = {layers, 2, 1, 1, 8, 8, 0, 0};
        uint32_t count = 77;
        group.num_kv_heads = huge[i];
        group.head_dim = huge[i];
        qt_assert_status(quire_groups_balance(&group, 1, out, 4, &count), QUIRE_E_LIMIT);
        group = (struct quire_group_config){layers, huge[i], 1, 1, 8, 8, 0, 0};
        qt_assert_status(quire_groups_balance(&group, 1, out, 4, &count), QUIRE_E_LIMIT);
        assert_int_equal(count, 77);
    }
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_balance_refuses_shapes_over_the_limits, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_v_s1_window_hits, QT_SHARE),
        QT_TEST(test_v_s3_blocks_given_back, QT_SHARE),
        QT_TEST(test_v_s5_gap_after_the_sinks, QT_SHARE),
        QT_TEST(test_v_s6_cached_hits_count, QT_SHARE),
        QT_TEST(test_v_s6_window_takes_its_own, QT_SHARE),
        QT_TEST(test_v_s7_a_hit_is_not_counted_twice, QT_SHARE),
        QT_TEST(test_v_s8_missing_is_exact, QT_SHARE),
        QT_TEST(test_v_u2_empty_pool, QT_SHARE),
        QT_TEST(test_v_u7_parents_are_part_of_a_block, QT_SHARE),
        QT_TEST(test_v_u8_recent_hit_rate, QT_SHARE),
        QT_TEST(test_v_u9_lookahead, QT_SHARE),
        QT_TEST(test_v_u12_no_null_block, QT_SHARE),
        QT_TEST(test_v_u13_groups, QT_ON_NONE | QT_PAGED),
        QT_TEST(test_v_pp1_partial_hit, QT_SHARE),
    };
    return qt_run("scenarios_units", tests, QT_LEN(tests));
}
