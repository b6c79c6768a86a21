/* test_prefix.c - what is found of a prefix, when it becomes findable, and by whom.
 * SPDX-License-Identifier: Apache-2.0 */
#include "share_fixture.h"

#include <string.h>

/* ---- X1, X2, X3 ---- */

/* X2: a hit ends at the token where the prompts part, and leaves one token to compute. */
static void test_a_hit_ends_at_any_token(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[23], prompt[23 + 5];
    qt_share_open(&env, *state, &qt_plain, 4, 200);
    qt_tokens(1, tokens, 23);
    qt_line_cache(&env, tokens, 23);
    for (uint32_t common = 0; common <= 23; common++) {
        memcpy(prompt, tokens, common * sizeof *tokens);
        for (uint32_t i = 0; i < 5; i++)
            prompt[common + i] = 60000 + common * 8 + i;
        assert_int_equal(qt_found(&env, prompt, common + 5), common);
        if (common > 0)
            assert_int_equal(qt_found(&env, tokens, common), common - 1);
        assert_int_equal(qt_line_run(&env, &line, prompt, common + 5), common);
        qt_line_check(&env, &line);
        qt_line_close(&env, &line);
        qt_assert_pool_ok(&env);
    }
    assert_int_equal(qt_cached(&env, tokens, 23), 23);
    qt_close(&env);
}

/* n-1: a prompt that is cached whole, also one that ends at a block, is computed for one token. */
static void test_one_token_is_left_to_compute(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[16];
    qt_share_open(&env, *state, &qt_plain, 4, 16);
    qt_tokens(1, tokens, 16);
    qt_line_cache(&env, tokens, 16);
    for (uint32_t count = 1; count <= 16; count++) {
        struct quire_seq_stats stats;
        assert_int_equal(qt_line_run(&env, &line, tokens, count), count - 1);
        qt_seq_stats(&env, &line, &stats);
        assert_int_equal(stats.len, count);
        assert_int_equal(stats.hit_tokens, count - 1);
        qt_line_check(&env, &line);
        qt_line_close(&env, &line);
    }
    qt_close(&env);
}

/* The longest beginning that a prompt shares with any of the prompts computed. */
static uint32_t longest_common(const uint32_t (*prompts)[20], const uint32_t *counts, uint32_t num,
                               const uint32_t *prompt, uint32_t count)
{
    uint32_t longest = 0;
    for (uint32_t i = 0; i < num; i++) {
        uint32_t common = 0;
        while (common < count && common < counts[i] && prompts[i][common] == prompt[common])
            common++;
        longest = common > longest ? common : longest;
    }
    return longest < count ? longest : count - 1;
}

/* X1: with three tokens in all, so that everything is nearly equal to everything, what is found is
 * what a comparison with every prompt says. */
static void test_the_longest_prefix_is_found(void **state)
{
    struct qt_random random = {7};
    for (uint32_t block_size = 1; block_size <= 7; block_size++) {
        uint32_t prompts[60][20], counts[60];
        struct qt_env env;
        struct qt_line line;
        qt_share_open(&env, *state, &qt_plain, block_size, 1200);
        for (uint32_t i = 0; i < 60; i++) {
            counts[i] = 1 + qt_below(&random, 20);
            for (uint32_t t = 0; t < counts[i]; t++)
                prompts[i][t] = qt_below(&random, 3);
            uint32_t want = longest_common(prompts, counts, i, prompts[i], counts[i]);
            assert_int_equal(qt_found(&env, prompts[i], counts[i]), want);
            assert_int_equal(qt_line_run(&env, &line, prompts[i], counts[i]), want);
            qt_line_check(&env, &line);
            qt_line_close(&env, &line);
        }
        qt_assert_pool_ok(&env);
        qt_close(&env);
    }
}

/* X3: neither another salt nor another adapter hits, and each finds its own. */
static void test_salt_and_adapter_separate(void **state)
{
    static const uint64_t values[] = {0, 1, 1ull << 32, UINT64_MAX};
    struct qt_env env;
    struct qt_line lines[16];
    uint32_t tokens[9];
    struct quire_pool_config config;
    qt_share_config(&config, *state, &qt_plain, 4, 64);
    config.max_seqs = 16;
    qt_open_config(&env, *state, &qt_plain, &config);
    qt_tokens(1, tokens, 9);
    for (uint32_t i = 0; i < 16; i++) {
        struct quire_seq_config prefix = qt_prefix(tokens, 9);
        prefix.salt = values[i / 4];
        prefix.adapter = values[i % 4];
        assert_int_equal(qt_cached_as(&env, &prefix), 0);
        assert_int_equal(qt_line_run_as(&env, &lines[i], &prefix), 0);
        assert_int_equal(qt_cached_as(&env, &prefix), 8);
    }
    for (uint32_t i = 0; i < 16; i++) {
        qt_line_check(&env, &lines[i]);
        qt_line_close(&env, &lines[i]);
    }
    qt_close(&env);
}

/* ---- when something becomes findable ---- */

/* Full blocks at their commit, the last one by publish; what is appended later is found too. */
static void test_publish_makes_the_last_block_findable(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct quire_pool_stats stats;
    uint32_t tokens[12];
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    qt_share_open(&env, *state, &qt_plain, 4, 16);
    qt_tokens(1, tokens, 12);
    (void)qt_line_open(&env, &line, &empty);
    qt_assert_ok(quire_seq_publish(env.pool, line.stream.seq)); /* nothing is there yet */
    for (uint32_t len = 1; len <= 12; len++) {
        qt_line_feed(&env, &line, tokens + len - 1, 1);
        assert_true(qt_cached(&env, tokens, len) >= len / 4 * 4);
        assert_true(qt_cached(&env, tokens, len) < len || len % 4 == 0);
        if (len % 3 == 0)
            continue;
        qt_assert_ok(quire_seq_publish(env.pool, line.stream.seq));
        qt_assert_ok(quire_seq_publish(env.pool, line.stream.seq));
        assert_int_equal(qt_cached(&env, tokens, len), len);
    }
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_copied, 0); /* its sole holder appends in place */
    qt_assert_states(&env, 13, 3, 0);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* Only what a step keeps is published; an aborted one publishes nothing. */
static void test_only_kept_tokens_are_published(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct qt_batch batch;
    uint32_t tokens[8], keep = 3;
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    qt_share_open(&env, *state, &qt_plain, 4, 16);
    qt_tokens(1, tokens, 8);
    (void)qt_line_open(&env, &line, &empty);
    qt_assert_ok(qt_line_begin(&env, &line, tokens, 8, &batch));
    qt_line_write(&env, &batch);
    assert_int_equal(qt_cached(&env, tokens, 8), 0);
    qt_assert_ok(qt_batch_abort(&env, &batch));
    assert_int_equal(qt_cached(&env, tokens, 8), 0);
    qt_assert_ok(qt_line_begin(&env, &line, tokens, 8, &batch));
    qt_line_write(&env, &batch);
    qt_assert_ok(qt_batch_commit(&env, &batch, &keep));
    assert_int_equal(qt_cached(&env, tokens, 8), 0);
    keep = 2;
    qt_assert_ok(qt_line_begin(&env, &line, tokens + 3, 5, &batch));
    qt_line_write(&env, &batch);
    qt_assert_ok(qt_batch_commit(&env, &batch, &keep));
    assert_int_equal(qt_cached(&env, tokens, 8), 4);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    assert_int_equal(qt_cached(&env, tokens, 8), 5);
    qt_close(&env);
}

/* A step that wrote no K and V is not published, and nor is what follows it. */
static void test_a_step_without_rows_is_not_published(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct qt_batch batch;
    uint32_t tokens[12];
    qt_share_open(&env, *state, &qt_plain, 4, 16);
    qt_tokens(1, tokens, 12);
    (void)qt_line_run(&env, &line, tokens, 4);
    qt_assert_ok(qt_line_begin(&env, &line, tokens + 4, 4, &batch));
    qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
    assert_int_equal(qt_cached(&env, tokens, 12), 4);
    qt_line_feed(&env, &line, tokens + 8, 4);
    assert_int_equal(qt_cached(&env, tokens, 12), 4);
    qt_line_close(&env, &line);
    assert_int_equal(qt_cached(&env, tokens, 12), 4);
    qt_close(&env);
}

/* Unless the engine asked for the step's view: then it writes K and V itself. */
static void test_rows_of_an_engine_are_published(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct qt_batch batch;
    struct quire_step_view view = {.struct_size = sizeof view};
    uint32_t tokens[8];
    qt_share_open(&env, *state, &qt_plain, 4, 16);
    qt_tokens(1, tokens, 8);
    struct quire_seq_config config = qt_prefix(tokens, 8);
    (void)qt_line_open(&env, &line, &config);
    qt_assert_ok(qt_line_begin(&env, &line, tokens, 8, &batch));
    qt_assert_ok(quire_step_view(env.pool, batch.step, 0, &view));
    qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
    assert_int_equal(qt_cached(&env, tokens, 8), 8);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* Tokens that were not told end what is known, unless none of them is kept; and a truncate before
 * them brings back what was known. */
static void test_unknown_tokens_end_a_prefix(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct qt_batch batch = {0};
    uint32_t tokens[16], keep = 0;
    qt_share_open(&env, *state, &qt_plain, 4, 16);
    qt_tokens(1, tokens, 16);
    (void)qt_line_run(&env, &line, tokens, 6);
    qt_batch_add(&batch, &line.stream, 5, NULL);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    qt_line_write(&env, &batch);
    qt_assert_ok(qt_batch_commit(&env, &batch, &keep));
    qt_line_feed(&env, &line, tokens + 6, 2);
    assert_int_equal(qt_cached(&env, tokens, 16), 8);
    qt_append(&env, &line.stream, 4);
    qt_assert_ok(quire_seq_publish(env.pool, line.stream.seq));
    assert_int_equal(qt_cached(&env, tokens, 16), 8);
    qt_line_truncate(&env, &line, 8);
    qt_line_feed(&env, &line, tokens + 8, 8);
    qt_line_check(&env, &line);
    assert_int_equal(qt_cached(&env, tokens, 16), 16);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* The backend none holds no rows: its steps are published by their tokens alone. */
static void test_ids_alone_are_published(void **state)
{
    struct qt_env env;
    uint32_t tokens[10];
    qt_share_open(&env, *state, &qt_plain, 4, 16);
    qt_tokens(1, tokens, 10);
    qt_line_cache(&env, tokens, 10);
    assert_int_equal(qt_cached(&env, tokens, 10), 10);
    qt_close(&env);
}

/* quire_seq_tokens: of the hit and of the steps, up to the first step without tokens. */
static void test_tokens_are_copied_out(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[20], out[20] = {0}, count = 0;
    qt_share_open(&env, *state, &qt_plain, 4, 16);
    qt_tokens(1, tokens, 20);
    qt_line_cache(&env, tokens, 11);
    assert_int_equal(qt_line_run(&env, &line, tokens, 15), 11);
    for (uint32_t room = 0; room <= 20; room++) {
        uint32_t known = room < 15 ? room : 15;
        memset(out, 0xee, sizeof out);
        qt_assert_ok(
            quire_seq_tokens(env.pool, line.stream.seq, room > 0 ? out : NULL, room, &count));
        assert_int_equal(count, 15);
        assert_memory_equal(out, tokens, known * sizeof *out);
        for (uint32_t i = known; i < 20; i++)
            assert_int_equal(out[i], 0xeeeeeeee);
    }
    qt_append(&env, &line.stream, 2);
    qt_assert_ok(quire_seq_tokens(env.pool, line.stream.seq, out, 20, &count));
    assert_int_equal(count, 15);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* ---- lookup and rematch ---- */

/* A lookup takes no reference, counts in no figure, and makes nothing more recent. */
static void test_lookup_changes_nothing(void **state)
{
    struct qt_env env;
    struct quire_pool_stats before, after;
    uint32_t old[8], young[8];
    qt_share_open(&env, *state, &qt_plain, 4, 4);
    qt_tokens(1, old, 8);
    qt_tokens(2, young, 8);
    qt_line_cache(&env, old, 8);
    qt_line_cache(&env, young, 8);
    qt_stats(&env, &before);
    for (uint32_t i = 0; i < 9; i++)
        assert_int_equal(qt_cached(&env, old, 8), 8);
    qt_stats(&env, &after);
    assert_memory_equal(&before, &after, sizeof after);
    qt_evict(&env, 2);
    assert_int_equal(qt_cached(&env, old, 8), 0);
    assert_int_equal(qt_cached(&env, young, 8), 8);
    qt_close(&env);
}

/* Where a create, which is a use, does. */
static void test_a_hit_makes_recent(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t old[9], young[8];
    qt_share_open(&env, *state, &qt_plain, 4, 4);
    qt_tokens(1, old, 9);
    qt_tokens(2, young, 8);
    qt_line_cache(&env, old, 8);
    qt_line_cache(&env, young, 8);
    struct quire_seq_config config = qt_prefix(old, 9);
    assert_int_equal(qt_line_open(&env, &line, &config), 8);
    qt_line_close(&env, &line);
    qt_evict(&env, 2);
    assert_int_equal(qt_cached(&env, old, 8), 8);
    assert_int_equal(qt_cached(&env, young, 8), 0);
    qt_close(&env);
}

/* A sequence that waited takes what another one has computed meanwhile, at any point of its own. */
static void test_rematch_takes_the_longer_prefix(void **state)
{
    for (uint32_t own = 0; own <= 9; own++) {
        struct qt_env env;
        struct qt_line worker, waiter;
        struct quire_seq_stats stats;
        uint32_t tokens[16], len = 0;
        qt_share_open(&env, *state, &qt_plain, 4, 16);
        qt_tokens(1, tokens, 16);
        struct quire_seq_config config = qt_prefix(tokens, 16);
        assert_int_equal(qt_line_open(&env, &waiter, &config), 0);
        qt_line_feed(&env, &waiter, tokens, own);
        config.no_lookup = 1; /* rematch does not read it */
        qt_assert_ok(quire_seq_rematch(env.pool, waiter.stream.seq, &config, &len));
        assert_int_equal(len, own);
        (void)qt_line_run(&env, &worker, tokens, 14);
        qt_assert_ok(quire_seq_rematch(env.pool, waiter.stream.seq, &config, &len));
        assert_int_equal(len, own > 12 ? own : 12);
        qt_line_close(&env, &worker);
        qt_assert_ok(quire_seq_rematch(env.pool, waiter.stream.seq, &config, NULL));
        memcpy(waiter.tokens, tokens, 14 * sizeof *tokens);
        waiter.stream.len = 14;
        qt_seq_stats(&env, &waiter, &stats);
        assert_int_equal(stats.len, 14);
        assert_int_equal(stats.blocks, 4);
        qt_line_free(&waiter);
        qt_assert_pool_ok(&env);
        qt_close(&env); /* with the sequence alive */
    }
}

/* The rows that a rematch brings are those that the tokens mean. */
static void test_rematch_content(void **state)
{
    struct qt_env env;
    struct qt_line worker, waiter, twin;
    uint32_t tokens[16], len = 0;
    qt_share_open(&env, *state, &qt_unequal, 4, 64);
    qt_tokens(1, tokens, 16);
    struct quire_seq_config config = qt_prefix(tokens, 16);
    (void)qt_line_open(&env, &waiter, &config);
    qt_line_feed(&env, &waiter, tokens, 6);
    (void)qt_line_run(&env, &worker, tokens, 15);
    qt_line_close(&env, &worker);
    qt_assert_ok(quire_seq_rematch(env.pool, waiter.stream.seq, &config, &len));
    assert_int_equal(len, 15);
    assert_int_equal(qt_line_open(&env, &twin, &config), 15);
    quire_seq twins = twin.stream.seq;
    twin.stream.seq = waiter.stream.seq; /* the twin knows what 15 tokens mean */
    qt_line_check(&env, &twin);
    qt_line_feed(&env, &twin, tokens + 15, 1);
    qt_line_check(&env, &twin);
    qt_line_close(&env, &twin);
    qt_assert_ok(quire_seq_destroy(env.pool, twins));
    qt_line_free(&waiter);
    qt_close(&env);
}

static void test_rematch_refuses(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct qt_batch batch;
    struct qt_snapshot snapshot;
    uint32_t tokens[16], other[16], len = 77;
    qt_share_open(&env, *state, &qt_plain, 4, 16);
    qt_tokens(1, tokens, 16);
    qt_line_cache(&env, tokens, 12);
    struct quire_seq_config config = qt_prefix(tokens, 7), wrong;
    assert_int_equal(qt_line_run_as(&env, &line, &config), 6);
    quire_seq seq = line.stream.seq;
    config.num_tokens = 16;
    qt_snapshot_take(&env, &line.stream, 1, &snapshot);
    for (uint32_t at = 0; at < 7; at++) {
        memcpy(other, tokens, sizeof other);
        other[at]++;
        wrong = qt_prefix(other, 16);
        qt_assert_status(quire_seq_rematch(env.pool, seq, &wrong, &len), QUIRE_E_MISMATCH);
    }
    wrong = config;
    wrong.num_tokens = 6; /* the sequence is longer than that */
    qt_assert_status(quire_seq_rematch(env.pool, seq, &wrong, &len), QUIRE_E_MISMATCH);
    wrong = config;
    wrong.salt = 1;
    qt_assert_status(quire_seq_rematch(env.pool, seq, &wrong, &len), QUIRE_E_MISMATCH);
    wrong = config;
    wrong.adapter = 1;
    qt_assert_status(quire_seq_rematch(env.pool, seq, &wrong, &len), QUIRE_E_MISMATCH);
    qt_snapshot_same(&env, &line.stream, &snapshot);
    qt_assert_ok(qt_line_begin(&env, &line, tokens + 7, 1, &batch));
    qt_assert_status(quire_seq_rematch(env.pool, seq, &config, &len), QUIRE_E_BUSY);
    qt_assert_ok(qt_batch_abort(&env, &batch));
    assert_int_equal(len, 77);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_assert_status(quire_seq_rematch(env.pool, seq, &config, &len), QUIRE_E_INVAL);
    qt_close(&env);
}

/* ---- two sequences that computed the same ---- */

static void run_twice(struct qt_env *env, const struct qt_variant *variant, uint32_t merge_equal,
                      struct qt_line *lines, uint32_t *tokens)
{
    struct quire_pool_config config;
    qt_share_config(&config, variant, &qt_unequal, 4, 64);
    config.merge_equal = merge_equal;
    qt_open_config(env, variant, &qt_unequal, &config);
    qt_tokens(1, tokens, 10);
    struct quire_seq_config prefix = qt_prefix(tokens, 10);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(qt_line_open(env, &lines[i], &prefix), 0);
    for (uint32_t i = 0; i < 2; i++)
        qt_line_feed(env, &lines[i], tokens, 10);
}

/* merge_equal: the later one's tables point at the first one's blocks; its own are free again. */
static void test_equal_blocks_merge(void **state)
{
    struct qt_env env;
    struct qt_line lines[2];
    struct quire_pool_stats stats;
    struct quire_seq_stats second;
    uint32_t tokens[10];
    run_twice(&env, *state, 1, lines, tokens);
    qt_stats(&env, &stats);
    qt_seq_stats(&env, &lines[1], &second);
    /* Full attention: two blocks of three are full and equal. The window of 4 holds 7 .. 9, blocks
     * 1 and 2; that of 6 and its sinks hold all three. The last ones are partial, and stay apart.
     */
    assert_int_equal(second.blocks, 3 + 2 + 3);
    assert_int_equal(second.blocks_shared, 2 + 1 + 2);
    assert_in_range(stats.blocks_merged, 5,
                    6); /* and block 0 of the window, where it was in time */
    for (uint32_t i = 0; i < 2; i++) {
        qt_line_check(&env, &lines[i]);
        qt_line_close(&env, &lines[i]);
    }
    qt_close(&env);
}

/* Without it each keeps its own, and what the first computed is what others find. */
static void test_equal_blocks_stay_apart(void **state)
{
    struct qt_env env;
    struct qt_line lines[2];
    struct quire_pool_stats stats;
    struct quire_seq_stats second;
    uint32_t tokens[10];
    run_twice(&env, *state, 0, lines, tokens);
    qt_stats(&env, &stats);
    qt_seq_stats(&env, &lines[1], &second);
    assert_int_equal(second.blocks_shared, 0);
    assert_int_equal(stats.blocks_merged, 0);
    for (uint32_t i = 0; i < 2; i++) {
        qt_line_check(&env, &lines[i]);
        qt_line_close(&env, &lines[i]);
        qt_assert_pool_ok(&env);
        assert_int_equal(qt_cached(&env, tokens, 10), 10);
    }
    qt_close(&env);
}

/* Blocks of a twin take the place of evicted ones at the twin's next publication, also when that
 * publishes a block behind them. */
static void test_a_twin_fills_what_was_evicted(void **state)
{
    struct qt_env env;
    struct qt_line lines[2];
    uint32_t tokens[16];
    qt_share_open(&env, *state, &qt_plain, 4, 12);
    qt_tokens(1, tokens, 16);
    struct quire_seq_config config = qt_prefix(tokens, 16);
    for (uint32_t i = 0; i < 2; i++)
        (void)qt_line_open(&env, &lines[i], &config);
    for (uint32_t i = 0; i < 2; i++)
        qt_line_feed(&env, &lines[i], tokens, 12);
    qt_line_close(&env, &lines[0]);
    qt_evict(&env, 3);
    qt_line_feed(&env, &lines[1], tokens + 12, 4);
    assert_int_equal(qt_cached(&env, tokens, 16), 16);
    qt_line_check(&env, &lines[1]);
    qt_line_close(&env, &lines[1]);
    assert_int_equal(qt_cached(&env, tokens, 16), 16);
    qt_close(&env);
}

/* The same where whole nodes stand behind the hollow one, which the twin published itself. */
static void test_a_twin_fills_above_its_own(void **state)
{
    struct qt_env env;
    struct qt_line twin;
    uint32_t tokens[9];
    qt_share_open(&env, *state, &qt_plain, 4, 4);
    qt_tokens(1, tokens, 9);
    qt_line_cache(&env, tokens, 4);
    struct quire_seq_config config = qt_prefix(tokens, 8);
    config.no_lookup = 1;
    (void)qt_line_run_as(&env, &twin, &config);
    qt_evict(&env, 1);
    qt_line_close(&env, &twin);
    assert_int_equal(qt_cached(&env, tokens, 8), 8);
    qt_close(&env);
}

/* A node whose block was evicted while a twin stands on it hides no other block that begins alike.
 */
static void test_a_hollow_node_hides_nothing(void **state)
{
    struct qt_env env;
    struct qt_line lines[2];
    uint32_t tokens[8];
    qt_share_open(&env, *state, &qt_plain, 4, 12);
    qt_tokens(1, tokens, 8);
    struct quire_seq_config config = qt_prefix(tokens, 8);
    for (uint32_t i = 0; i < 2; i++)
        (void)qt_line_open(&env, &lines[i], &config);
    for (uint32_t i = 0; i < 2; i++)
        qt_line_feed(&env, &lines[i], tokens, 4);
    qt_line_close(&env, &lines[0]);
    qt_evict(&env, 1);
    config.num_tokens = 3;
    config.no_lookup = 1;
    (void)qt_line_run_as(&env, &lines[0], &config);
    qt_line_close(&env, &lines[0]);
    assert_true(qt_cached(&env, tokens, 4) >= 3);
    qt_line_close(&env, &lines[1]);
    assert_int_equal(qt_cached(&env, tokens, 4), 4);
    qt_close(&env);
}

/* ---- contiguous ---- */

/* A contiguous sequence owns its region alone: nothing is found, pinned or published. */
static void test_contiguous_shares_nothing(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[10];
    quire_pin pin = {0};
    struct quire_error error = {0};
    qt_open(&env, *state, &qt_plain);
    qt_tokens(1, tokens, 10);
    struct quire_seq_config config = qt_prefix(tokens, 10);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(qt_line_run(&env, &line, tokens, 10), 0);
        qt_assert_status(quire_seq_publish(env.pool, line.stream.seq), QUIRE_E_UNSUPPORTED);
        qt_line_check(&env, &line);
        qt_line_close(&env, &line);
        assert_int_equal(qt_cached(&env, tokens, 10), 0);
    }
    qt_assert_status(quire_pool_pin(env.pool, &config, &pin, NULL, &error), QUIRE_E_UNSUPPORTED);
    struct quire_group_stats group = {.struct_size = sizeof group};
    qt_assert_status(quire_pool_group_stats(env.pool, 0, &group), QUIRE_E_UNSUPPORTED);
    config.num_tokens = 0;
    uint64_t dropped = 77;
    qt_assert_ok(quire_pool_drop_prefix(env.pool, &config, &dropped));
    assert_int_equal(dropped, 0);
    assert_string_not_equal(error.message, "");
    assert_int_equal(pin.id, 0);
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_a_hit_ends_at_any_token, QT_SHARE),
        QT_TEST(test_one_token_is_left_to_compute, QT_SHARE),
        QT_TEST(test_the_longest_prefix_is_found, QT_SHARE),
        QT_TEST(test_salt_and_adapter_separate, QT_SHARE),
        QT_TEST(test_publish_makes_the_last_block_findable, QT_SHARE),
        QT_TEST(test_only_kept_tokens_are_published, QT_SHARE),
        QT_TEST(test_a_step_without_rows_is_not_published, QT_SHARE_KV),
        QT_TEST(test_rows_of_an_engine_are_published, QT_SHARE),
        QT_TEST(test_unknown_tokens_end_a_prefix, QT_SHARE),
        QT_TEST(test_ids_alone_are_published, QT_ON_NONE | QT_PAGED),
        QT_TEST(test_tokens_are_copied_out, QT_SHARE),
        QT_TEST(test_lookup_changes_nothing, QT_SHARE),
        QT_TEST(test_a_hit_makes_recent, QT_SHARE),
        QT_TEST(test_rematch_takes_the_longer_prefix, QT_SHARE),
        QT_TEST(test_rematch_content, QT_SHARE_KV),
        QT_TEST(test_rematch_refuses, QT_SHARE),
        QT_TEST(test_equal_blocks_merge, QT_SHARE),
        QT_TEST(test_equal_blocks_stay_apart, QT_SHARE),
        QT_TEST(test_a_twin_fills_what_was_evicted, QT_SHARE),
        QT_TEST(test_a_twin_fills_above_its_own, QT_SHARE),
        QT_TEST(test_a_hollow_node_hides_nothing, QT_SHARE),
        QT_TEST(test_contiguous_shares_nothing,
                QT_ON_CPU | QT_ON_OPAQUE | QT_ON_NONE | QT_CONTIGUOUS),
    };
    return qt_run("prefix", tests, QT_LEN(tests));
}
