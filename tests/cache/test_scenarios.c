/* test_scenarios.c - the behaviours of prefix caching that vLLM's own tests check, one group.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Rows P1 to P22 of docs/scenarios.md, with vLLM's numbers where the contract is the same. Its
 * pools have one block more, the null block. A line that starts with "Here" says where Quire
 * differs. */
#include "share_fixture.h"

#include <string.h>

enum { COMMON = 48 };

/* 48 tokens that all requests share, and a tail of their own. */
static void prompt(uint32_t key, uint32_t *tokens, uint32_t count)
{
    qt_tokens(1, tokens, COMMON);
    qt_tokens(100 + key, tokens + COMMON, count - COMMON);
}

/* V-P1: the first request finds nothing; its full blocks become findable, in a chain. */
static void test_v_p1_prefill_publishes_full_blocks(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct quire_event events[16];
    uint32_t tokens[55];
    qt_share_open(&env, *state, &qt_plain, 16, 10);
    prompt(0, tokens, 55);
    assert_int_equal(qt_line_run(&env, &line, tokens, 55), 0);
    qt_assert_states(&env, 6, 4, 0);
    assert_int_equal(qt_cached(&env, tokens, 55), 48); /* the fourth block is not full */
    assert_int_equal(qt_drain(&env, events, 16), 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(events[i].kind, QUIRE_EVENT_STORED);
        assert_int_equal(events[i].num_tokens, 16);
        assert_int_equal(events[i].parent, i > 0 ? events[i - 1].block : QUIRE_BLOCK_NONE);
    }
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-P1b: a second request takes the three common blocks of a live one and one new block. */
static void test_v_p1b_live_request_is_shared(void **state)
{
    struct qt_env env;
    struct qt_line first, second;
    struct quire_seq_stats stats;
    struct quire_pool_stats pool;
    uint32_t a[55], b[53];
    qt_share_open(&env, *state, &qt_plain, 16, 10);
    prompt(0, a, 55);
    prompt(1, b, 53);
    (void)qt_line_run(&env, &first, a, 55);
    assert_int_equal(qt_line_run(&env, &second, b, 53), 48);
    qt_assert_states(&env, 5, 5, 0);
    qt_seq_stats(&env, &second, &stats);
    assert_int_equal(stats.hit_tokens, 48);
    assert_int_equal(stats.blocks, 4);
    assert_int_equal(stats.blocks_shared, 3);
    qt_stats(&env, &pool);
    assert_int_equal(stats.own_bytes, pool.block_bytes);
    assert_int_equal(stats.shared_bytes, 3 * pool.block_bytes);
    if (env.has_kv) {
        const uint32_t *of_first, *of_second;
        assert_int_equal(qt_blocks(&env, &first, 0, &of_first), 4);
        assert_int_equal(qt_blocks(&env, &second, 0, &of_second), 4);
        assert_memory_equal(of_first, of_second, 3 * sizeof *of_first);
        assert_int_not_equal(of_first[3], of_second[3]);
    }
    qt_line_check(&env, &first);
    qt_line_check(&env, &second);
    qt_line_close(&env, &first);
    qt_line_close(&env, &second);
    qt_close(&env);
}

/* Two requests that ran at once and ended, the first one first. */
static void run_and_end_two(struct qt_env *env, const uint32_t *a, uint32_t a_count,
                            const uint32_t *b, uint32_t b_count)
{
    struct qt_line first, second;
    (void)qt_line_run(env, &first, a, a_count);
    (void)qt_line_run(env, &second, b, b_count);
    qt_line_close(env, &first);
    qt_line_close(env, &second);
}

/* V-P1c: all blocks can be had again; those that nobody can find go first, then the cached ones
 * from the tail. Here the partly filled last blocks stay findable, so five are free and five are
 * cached where vLLM's queue has ten free ones; the order of taking is the same. */
static void test_v_p1c_order_after_both_ended(void **state)
{
    struct qt_env env;
    uint32_t a[55], b[53];
    static const uint32_t left[] = {48, 48, 32, 16, 0}; /* of a, after each eviction */
    qt_share_open(&env, *state, &qt_plain, 16, 10);
    prompt(0, a, 55);
    prompt(1, b, 53);
    run_and_end_two(&env, a, 55, b, 53);
    qt_assert_states(&env, 5, 0, 5);
    assert_int_equal(qt_cached(&env, a, 55), 55);
    assert_int_equal(qt_cached(&env, b, 53), 53);
    for (uint32_t i = 0; i < QT_LEN(left); i++) {
        qt_evict(&env, 1);
        assert_int_equal(qt_cached(&env, a, 55), left[i]);
        assert_int_equal(qt_cached(&env, b, 53), i == 0 ? 53 : left[i]);
    }
    qt_assert_states(&env, 10, 0, 0);
    qt_close(&env);
}

/* V-P1d: a third request finds the blocks of the ended ones. Here it also finds the rest of a tail
 * that it shares with one of them, but for its last token (X2). */
static void test_v_p1d_ended_requests_are_found(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t a[55], b[53], c[54];
    qt_share_open(&env, *state, &qt_plain, 16, 10);
    prompt(0, a, 55);
    prompt(1, b, 53);
    prompt(2, c, 54);
    run_and_end_two(&env, a, 55, b, 53);
    assert_int_equal(qt_line_run(&env, &line, c, 54), 48);
    qt_assert_states(&env, 4, 4, 2); /* vLLM: six free */
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    memcpy(c, a, sizeof c);
    assert_int_equal(qt_line_run(&env, &line, c, 54), 53);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-P1e: a request as large as the pool evicts everything that nobody holds. */
static void test_v_p1e_whole_pool(void **state)
{
    struct qt_env env;
    struct qt_line line, next;
    struct qt_batch batch;
    uint32_t a[55], b[53], c[160];
    qt_share_open(&env, *state, &qt_plain, 16, 10);
    prompt(0, a, 55);
    prompt(1, b, 53);
    for (uint32_t i = 0; i < 160; i++)
        c[i] = 99;
    run_and_end_two(&env, a, 55, b, 53);
    assert_int_equal(qt_line_run(&env, &line, c, 160), 0);
    qt_assert_states(&env, 0, 10, 0);
    assert_int_equal(qt_cached(&env, a, 55), 0);
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    (void)qt_line_open(&env, &next, &empty);
    qt_assert_status(qt_line_begin(&env, &next, a, 1, &batch), QUIRE_E_NOSPACE);
    assert_int_equal(batch.missing, 1);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_line_close(&env, &next);
    qt_close(&env);
}

/* V-P2: a request that needs every position computed does not look anything up, but is found. The
 * flag of vLLM's prompt logprobs is no_lookup. */
static void test_v_p2_no_lookup_computes_again(void **state)
{
    struct qt_env env;
    struct qt_line lines[3];
    uint32_t tokens[3][55];
    qt_share_open(&env, *state, &qt_plain, 16, 12);
    for (uint32_t i = 0; i < 3; i++) {
        prompt(i, tokens[i], 55);
        struct quire_seq_config config = qt_prefix(tokens[i], 55);
        config.no_lookup = i != 1;
        assert_int_equal(qt_line_run_as(&env, &lines[i], &config), i == 1 ? 48 : 0);
    }
    qt_assert_states(&env, 12 - 4 - 1 - 4, 4 + 1 + 4, 0);
    struct quire_seq_stats stats;
    qt_seq_stats(&env, &lines[2], &stats);
    assert_int_equal(stats.blocks_shared, 0);
    for (uint32_t i = 0; i < 3; i++) {
        qt_line_check(&env, &lines[i]);
        qt_line_close(&env, &lines[i]);
    }
    qt_close(&env);
}

/* V-P3: decoding fills the last block, which becomes findable when it is full. */
static void test_v_p3_decode_publishes_what_fills(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[78];
    qt_share_open(&env, *state, &qt_plain, 16, 10);
    prompt(0, tokens, 78);
    (void)qt_line_run(&env, &line, tokens, 55);
    qt_line_feed(&env, &line, tokens + 55, 4);
    qt_assert_states(&env, 6, 4, 0);
    assert_int_equal(qt_cached(&env, tokens, 59), 48);
    qt_line_feed(&env, &line, tokens + 59, 19);
    qt_assert_states(&env, 5, 5, 0);
    assert_int_equal(qt_cached(&env, tokens, 78), 64);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-P4: 87 and 48 tokens, then the first 35 of the former. Here the hit ends inside the third block
 * (34 tokens, not 32), which is copied before the 35th token is written. */
static void test_v_p4_evict(void **state)
{
    struct qt_env env;
    struct qt_line first, second, third;
    struct quire_pool_stats stats;
    uint32_t a[87], b[48];
    qt_share_open(&env, *state, &qt_plain, 16, 10);
    qt_tokens(1, a, 87);
    qt_tokens(2, b, 48);
    (void)qt_line_run(&env, &first, a, 87);
    (void)qt_line_run(&env, &second, b, 48);
    qt_assert_states(&env, 1, 9, 0);
    qt_line_close(&env, &first);
    qt_line_close(&env, &second);
    qt_assert_states(&env, 1, 0, 9);
    assert_int_equal(qt_line_run(&env, &third, a, 35), 34);
    qt_assert_states(&env, 0, 3, 7); /* vLLM: seven free */
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_copied, 1);
    assert_int_equal(stats.blocks_evicted, 0);
    assert_int_equal(qt_cached(&env, a, 87), 87);
    assert_int_equal(qt_cached(&env, b, 48), 48);
    qt_line_check(&env, &third);
    qt_line_close(&env, &third);
    qt_close(&env);
}

/* V-P5: a block that is used again is no longer found under its old tokens. */
static void test_v_p5_reuse_forgets(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct quire_event events[8];
    uint32_t a[16], b[15];
    qt_share_open(&env, *state, &qt_plain, 16, 1);
    qt_tokens(1, a, 16);
    qt_tokens(2, b, 15);
    qt_line_cache(&env, a, 16);
    assert_int_equal(qt_cached(&env, a, 16), 16);
    (void)qt_line_run(&env, &line, b, 15);
    assert_int_equal(qt_cached(&env, a, 16), 0);
    assert_int_equal(qt_drain(&env, events, 8), 2);
    assert_int_equal(events[0].kind, QUIRE_EVENT_STORED);
    assert_int_equal(events[1].kind, QUIRE_EVENT_EVICTED);
    assert_int_equal(events[0].block, events[1].block);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-P6: what a request has found is not evicted for it. Here the hit goes up to the last token, so
 * both blocks are held, and a third one, though the younger, goes for the copy of the second. */
static void test_v_p6_hit_blocks_are_not_evicted(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[32], other[16];
    qt_share_open(&env, *state, &qt_plain, 16, 3);
    qt_tokens(1, tokens, 32);
    qt_tokens(2, other, 16);
    qt_line_cache(&env, tokens, 32);
    qt_line_cache(&env, other, 16);
    qt_assert_states(&env, 0, 0, 3);
    assert_int_equal(qt_line_run(&env, &line, tokens, 32), 31);
    qt_assert_states(&env, 0, 2, 1);
    assert_int_equal(qt_cached(&env, tokens, 32), 32);
    assert_int_equal(qt_cached(&env, other, 16), 0);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-P7: without tokens nothing is cached. */
static void test_v_p7_without_tokens_nothing_is_cached(void **state)
{
    struct qt_env env;
    struct qt_stream first, second, third;
    struct qt_batch batch = {0};
    struct quire_pool_stats stats;
    qt_share_open(&env, *state, &qt_plain, 4, 4);
    qt_stream_open(&env, &first, 1);
    qt_append(&env, &first, 10);
    qt_assert_states(&env, 1, 3, 0);
    qt_stream_close(&env, &first);
    qt_assert_states(&env, 4, 0, 0);
    qt_stream_open(&env, &second, 1);
    qt_append(&env, &second, 16);
    qt_assert_states(&env, 0, 4, 0);
    qt_stream_open(&env, &third, 2);
    qt_batch_add(&batch, &third, 4, NULL);
    qt_assert_status(qt_batch_begin(&env, &batch), QUIRE_E_NOSPACE);
    assert_int_equal(batch.missing, 1);
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_stored, 0);
    assert_int_equal(stats.index_nodes, 0);
    qt_stream_close(&env, &second);
    qt_stream_close(&env, &third);
    qt_close(&env);
}

/* V-P8: two blocks are findable, then three; the partly filled fourth is not. Here it is once the
 * sequence asks for it or ends. */
static void test_v_p8_full_blocks_are_cached(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct quire_pool_stats stats;
    uint32_t tokens[14];
    static const uint32_t cuts[] = {0, 8, 12, 14}, stored[] = {0, 2, 3, 3};
    qt_share_open(&env, *state, &qt_plain, 4, 10);
    qt_tokens(1, tokens, 14);
    struct quire_seq_config config = qt_prefix(tokens, 14);
    (void)qt_line_open(&env, &line, &config);
    for (uint32_t i = 1; i < QT_LEN(cuts); i++) {
        qt_line_feed(&env, &line, tokens + cuts[i - 1], cuts[i] - cuts[i - 1]);
        qt_stats(&env, &stats);
        assert_int_equal(stats.blocks_stored, stored[i]);
        assert_int_equal(qt_cached(&env, tokens, 14), stored[i] * 4);
    }
    qt_assert_ok(quire_seq_publish(env.pool, line.stream.seq));
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_stored, 4);
    assert_int_equal(qt_cached(&env, tokens, 14), 14);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* V-P11: the salt separates tenants: the same tokens hit under the same salt alone, and lie in
 * other blocks under another. Here the salt is part of every lookup, not of the first block's hash.
 */
static void test_v_p11_salt(void **state)
{
    struct qt_env env;
    struct qt_line lines[3];
    uint32_t tokens[59];
    static const uint64_t salts[] = {1, 1, 2};
    static const uint32_t hits[] = {0, 48, 0};
    qt_share_open(&env, *state, &qt_plain, 16, 20);
    prompt(0, tokens, 59);
    for (uint32_t i = 0; i < 3; i++) {
        struct quire_seq_config config = qt_prefix(tokens, 59);
        config.salt = salts[i];
        assert_int_equal(qt_line_run_as(&env, &lines[i], &config), hits[i]);
    }
    struct quire_seq_stats stats;
    qt_seq_stats(&env, &lines[2], &stats);
    assert_int_equal(stats.blocks_shared, 0);
    assert_int_equal(qt_cached(&env, tokens, 59), 0); /* salt 0 */
    for (uint32_t i = 0; i < 3; i++) {
        qt_line_check(&env, &lines[i]);
        qt_line_close(&env, &lines[i]);
    }
    qt_close(&env);
}

/* V-P12: blocks that a request has found do not count as free for the rest of it. */
static void test_v_p12_not_enough_blocks(void **state)
{
    struct qt_env env;
    struct qt_line held, ended, other, line;
    struct qt_batch batch;
    struct qt_snapshot snapshot;
    uint32_t tokens[144], others[32];
    qt_share_open(&env, *state, &qt_plain, 16, 10);
    qt_tokens(1, tokens, 144);
    qt_tokens(2, others, 32);
    (void)qt_line_run(&env, &held, tokens, 48);
    assert_int_equal(qt_line_run(&env, &ended, tokens, 96), 48);
    qt_line_close(&env, &ended);
    (void)qt_line_run(&env, &other, others, 32);
    qt_assert_states(&env, 2, 5, 3); /* vLLM: five free */
    struct quire_seq_config config = qt_prefix(tokens, 144);
    assert_int_equal(qt_line_open(&env, &line, &config), 96);
    qt_snapshot_take(&env, &line.stream, 1, &snapshot);
    qt_assert_status(qt_line_begin(&env, &line, tokens + 96, 48, &batch), QUIRE_E_NOSPACE);
    assert_int_equal(batch.missing, 1);
    qt_snapshot_same(&env, &line.stream, &snapshot);
    qt_line_close(&env, &line);
    qt_assert_states(&env, 2, 5, 3);
    assert_int_equal(qt_cached(&env, tokens, 96), 96);
    qt_line_close(&env, &held);
    qt_line_close(&env, &other);
    qt_close(&env);
}

/* V-P13: the cache can be reset, but not under an open step. Here reset ends live sequences rather
 * than to refuse while any request holds a block. */
static void test_v_p13_reset(void **state)
{
    struct qt_env env;
    struct qt_line first, second;
    struct qt_batch batch;
    struct quire_pool_stats stats;
    uint32_t tokens[55], len;
    qt_share_open(&env, *state, &qt_plain, 16, 10);
    prompt(0, tokens, 55);
    (void)qt_line_run(&env, &first, tokens, 55);
    (void)qt_line_run(&env, &second, tokens, 53);
    qt_assert_ok(qt_line_begin(&env, &first, tokens, 1, &batch));
    qt_assert_status(quire_pool_reset(env.pool), QUIRE_E_BUSY);
    assert_int_equal(qt_cached(&env, tokens, 55), 48);
    qt_assert_ok(qt_batch_abort(&env, &batch));
    qt_assert_ok(quire_pool_reset(env.pool));
    assert_int_equal(qt_cached(&env, tokens, 55), 0);
    qt_assert_states(&env, 10, 0, 0);
    qt_stats(&env, &stats);
    assert_int_equal(stats.index_nodes, 0);
    qt_assert_status(quire_seq_length(env.pool, first.stream.seq, &len), QUIRE_E_INVAL);
    qt_line_free(&first);
    qt_line_free(&second);
    qt_close(&env);
}

/* V-P15: of two equal blocks the first is found; when it is evicted, the second takes its place. */
static void test_v_p15_duplicates(void **state)
{
    struct qt_env env;
    struct qt_line first, second;
    uint32_t tokens[12];
    qt_share_open(&env, *state, &qt_plain, 4, 8);
    qt_tokens(1, tokens, 12);
    struct quire_seq_config config = qt_prefix(tokens, 12);
    config.no_lookup = 1;
    (void)qt_line_run_as(&env, &first, &config);
    (void)qt_line_run_as(&env, &second, &config);
    qt_assert_states(&env, 2, 6, 0);
    qt_line_close(&env, &first);
    qt_assert_states(&env, 2, 3, 3);
    qt_evict(&env, 3);
    qt_assert_states(&env, 5, 3, 0);
    qt_line_check(&env, &second);
    qt_line_close(&env, &second);
    qt_assert_states(&env, 5, 0, 3);
    assert_int_equal(qt_cached(&env, tokens, 12), 12);
    qt_evict(&env, 3);
    assert_int_equal(qt_cached(&env, tokens, 12), 0);
    qt_close(&env);
}

/* V-P16: n blocks are stored, then evicted for n others. Here each block is an event of its own, in
 * the order that they happened: a chain is evicted from its tail. */
static void test_v_p16_events(void **state)
{
    static const uint32_t counts[] = {2, 3, 10};
    for (uint32_t c = 0; c < QT_LEN(counts); c++) {
        struct qt_env env;
        struct quire_event stored[16], again[32];
        uint32_t n = counts[c], a[40], b[40];
        qt_share_open(&env, *state, &qt_plain, 4, n);
        qt_tokens(1, a, n * 4);
        qt_tokens(2, b, n * 4);
        qt_line_cache(&env, a, n * 4);
        assert_int_equal(qt_drain(&env, stored, 16), n);
        assert_int_equal(qt_count(stored, n, QUIRE_EVENT_STORED), n);
        assert_int_equal(qt_drain(&env, again, 32), 0);
        qt_line_cache(&env, b, n * 4);
        assert_int_equal(qt_drain(&env, again, 32), 2 * n);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(again[i].kind, QUIRE_EVENT_EVICTED);
            assert_int_equal(again[i].block, stored[n - 1 - i].block);
            assert_int_equal(again[n + i].kind, QUIRE_EVENT_STORED);
            assert_int_equal(again[n + i].num_tokens, 4);
            assert_int_equal(again[n + i].parent,
                             i > 0 ? again[n + i - 1].block : QUIRE_BLOCK_NONE);
        }
        qt_assert_ok(quire_pool_reset(env.pool));
        assert_int_equal(qt_drain(&env, again, 32), n);
        assert_int_equal(qt_count(again, n, QUIRE_EVENT_DROPPED), n);
        qt_close(&env);
    }
}

/* V-P18: the same tokens under an adapter are other content. Here events name blocks, and do not
 * tell whose they are. */
static void test_v_p18_adapter(void **state)
{
    struct qt_env env;
    struct qt_line base, adapted;
    struct quire_event events[16];
    uint32_t tokens[32];
    qt_share_open(&env, *state, &qt_plain, 16, 10);
    qt_tokens(1, tokens, 32);
    struct quire_seq_config config = qt_prefix(tokens, 32);
    assert_int_equal(qt_line_run_as(&env, &base, &config), 0);
    config.adapter = 42;
    assert_int_equal(qt_cached_as(&env, &config), 0);
    assert_int_equal(qt_line_run_as(&env, &adapted, &config), 0);
    assert_int_equal(qt_cached_as(&env, &config), 32);
    assert_int_equal(qt_drain(&env, events, 16), 4);
    assert_int_equal(events[2].parent, QUIRE_BLOCK_NONE);
    assert_int_equal(events[3].parent, events[2].block);
    qt_line_check(&env, &base);
    qt_line_check(&env, &adapted);
    qt_line_close(&env, &base);
    qt_line_close(&env, &adapted);
    qt_close(&env);
}

/* V-P21: blocks that are not stored make no event; and a stream whose tokens were not told once is
 * not stored any more. */
static void test_v_p21_no_event_without_tokens(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct quire_event events[8];
    uint32_t tokens[16];
    qt_share_open(&env, *state, &qt_plain, 4, 10);
    qt_tokens(1, tokens, 16);
    (void)qt_line_run(&env, &line, tokens, 8);
    assert_int_equal(qt_drain(&env, events, 8), 2);
    qt_append(&env, &line.stream, 4);
    qt_append(&env, &line.stream, 4);
    assert_int_equal(qt_drain(&env, events, 8), 0);
    struct qt_batch batch = {0};
    qt_batch_add(&batch, &line.stream, 4, tokens + 8);
    qt_batch_store(&env, &batch);
    assert_int_equal(qt_drain(&env, events, 8), 0);
    assert_int_equal(qt_cached(&env, tokens, 16), 8);
    qt_line_close(&env, &line);
    assert_int_equal(qt_drain(&env, events, 8), 0);
    qt_close(&env);
}

/* V-P22: of two blocks with the same content the first one stored is the one that is found. */
static void test_v_p22_first_stored_is_found(void **state)
{
    struct qt_env env;
    struct qt_line lines[3];
    const uint32_t *blocks[3];
    uint32_t tokens[8];
    qt_share_open(&env, *state, &qt_plain, 4, 10);
    qt_tokens(1, tokens, 8);
    for (uint32_t i = 0; i < 3; i++) {
        struct quire_seq_config config = qt_prefix(tokens, i < 2 ? 4 : 8);
        config.no_lookup = i < 2;
        assert_int_equal(qt_line_open(&env, &lines[i], &config), i < 2 ? 0 : 4);
        if (i < 2)
            qt_line_feed(&env, &lines[i], tokens, 4);
        assert_int_equal(qt_blocks(&env, &lines[i], 0, &blocks[i]), 1);
    }
    assert_int_equal(blocks[2][0], blocks[0][0]);
    assert_int_not_equal(blocks[1][0], blocks[0][0]);
    for (uint32_t i = 0; i < 3; i++)
        qt_line_close(&env, &lines[i]);
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_v_p1_prefill_publishes_full_blocks, QT_SHARE),
        QT_TEST(test_v_p1b_live_request_is_shared, QT_SHARE),
        QT_TEST(test_v_p1c_order_after_both_ended, QT_SHARE),
        QT_TEST(test_v_p1d_ended_requests_are_found, QT_SHARE),
        QT_TEST(test_v_p1e_whole_pool, QT_SHARE),
        QT_TEST(test_v_p2_no_lookup_computes_again, QT_SHARE),
        QT_TEST(test_v_p3_decode_publishes_what_fills, QT_SHARE),
        QT_TEST(test_v_p4_evict, QT_SHARE),
        QT_TEST(test_v_p5_reuse_forgets, QT_SHARE),
        QT_TEST(test_v_p6_hit_blocks_are_not_evicted, QT_SHARE),
        QT_TEST(test_v_p7_without_tokens_nothing_is_cached, QT_SHARE),
        QT_TEST(test_v_p8_full_blocks_are_cached, QT_SHARE),
        QT_TEST(test_v_p11_salt, QT_SHARE),
        QT_TEST(test_v_p12_not_enough_blocks, QT_SHARE),
        QT_TEST(test_v_p13_reset, QT_SHARE),
        QT_TEST(test_v_p15_duplicates, QT_SHARE),
        QT_TEST(test_v_p16_events, QT_SHARE),
        QT_TEST(test_v_p18_adapter, QT_SHARE),
        QT_TEST(test_v_p21_no_event_without_tokens, QT_SHARE),
        QT_TEST(test_v_p22_first_stored_is_found, QT_SHARE_KV),
    };
    return qt_run("scenarios", tests, QT_LEN(tests));
}
