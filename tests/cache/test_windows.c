/* test_windows.c - W1: what groups with a window hold, give back, and can take back.
 * SPDX-License-Identifier: Apache-2.0 */
#include "attention_oracle.h"
#include "share_fixture.h"

#include <string.h>

static uint32_t blocks_of(uint32_t len, uint32_t block_size)
{
    return (len + block_size - 1) / block_size;
}

/* Blocks that a sequence of `len` positions holds in a group: those of its sinks, and those from
 * the window of position len - back on. */
static uint32_t held_at(const struct quire_group_config *group, uint32_t len, uint32_t back,
                        uint32_t block_size)
{
    uint32_t end = blocks_of(len, block_size), at = len > back ? len - back : 0;
    uint32_t first =
        group->window > 0 && at + 1 > group->window ? (at + 1 - group->window) / block_size : 0;
    uint32_t sinks = blocks_of(group->sink_positions, block_size);
    if (group->window == 0 || first <= sinks)
        return end;
    return sinks + end - first;
}

/* ---- giving back ---- */

/* At every length, with and without rollback, each group holds what W1 says and no more, and the
 * next token sees its rows. */
static void test_groups_hold_their_window(void **state)
{
    static const uint32_t backs[] = {0, 1, 5, 64};
    for (uint32_t b = 0; b < QT_LEN(backs); b++) {
        for (uint32_t block_size = 1; block_size <= 4; block_size++) {
            struct qt_env env;
            struct qt_line line;
            struct quire_pool_config config;
            uint32_t tokens[40];
            qt_share_config(&config, *state, &qt_unequal, block_size, 400);
            config.rollback_max = backs[b];
            qt_open_config(&env, *state, &qt_unequal, &config);
            qt_tokens(1, tokens, 40);
            struct quire_seq_config empty = qt_prefix(NULL, 0);
            (void)qt_line_open(&env, &line, &empty);
            for (uint32_t len = 1; len <= 40; len++) {
                qt_line_feed(&env, &line, tokens + len - 1, 1);
                for (uint32_t g = 0; g < 3; g++) {
                    struct quire_group_stats stats = {.struct_size = sizeof stats};
                    qt_assert_ok(quire_pool_group_stats(env.pool, g, &stats));
                    assert_int_equal(stats.blocks_owned,
                                     held_at(&qt_unequal.groups[g], len, backs[b], block_size));
                }
                qt_line_check(&env, &line);
            }
            qt_line_close(&env, &line);
            qt_close(&env);
        }
    }
}

/* However long it gets, a windowed sequence of unknown tokens runs in the blocks of its window. */
static void test_a_window_bounds_a_sequence(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    struct quire_pool_stats stats;
    qt_share_open(&env, *state, &qt_window, 2, 3);
    qt_stream_open(&env, &stream, 1);
    for (uint32_t len = 0; len < 500; len++) {
        qt_append(&env, &stream, 1);
        qt_stats(&env, &stats);
        assert_in_range(stats.blocks_owned, 1, 3);
        assert_int_equal(stats.blocks_cached, 0);
    }
    assert_int_equal(stats.blocks_released, 250 - stats.blocks_owned);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* The tokens of such a sequence are known to its end, though its blocks are not cached any more. */
static void test_a_window_knows_all_tokens(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[200];
    qt_share_open(&env, *state, &qt_window, 2, 3);
    qt_tokens(1, tokens, 200);
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    (void)qt_line_open(&env, &line, &empty);
    for (uint32_t i = 0; i < 200; i++)
        qt_line_feed(&env, &line, tokens + i, 1);
    qt_line_check(&env, &line);
    assert_int_equal(qt_cached(&env, tokens, 200), 200); /* its last window is findable */
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* Aborted steps and tokens that are not kept slide no window. */
static void test_only_kept_tokens_slide_a_window(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct qt_batch batch;
    uint32_t tokens[40], keep = 1;
    qt_share_open(&env, *state, &qt_window, 2, 30);
    qt_tokens(1, tokens, 40);
    (void)qt_line_run(&env, &line, tokens, 8);
    qt_assert_states(&env, 26, 2, 2);
    qt_assert_ok(qt_line_begin(&env, &line, tokens + 8, 20, &batch));
    qt_line_write(&env, &batch);
    qt_assert_states(&env, 16, 12, 2);
    qt_assert_ok(qt_batch_abort(&env, &batch));
    qt_assert_states(&env, 26, 2, 2);
    qt_line_check(&env, &line);
    qt_assert_ok(qt_line_begin(&env, &line, tokens + 8, 20, &batch));
    qt_line_write(&env, &batch);
    qt_assert_ok(qt_batch_commit(&env, &batch, &keep));
    qt_line_check(&env, &line);
    qt_assert_states(&env, 25, 2, 3);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* ---- taking back ---- */

static void open_rollback(struct qt_env *env, const struct qt_variant *variant,
                          const struct qt_geometry *geometry, uint32_t rollback_max)
{
    struct quire_pool_config config;
    qt_share_config(&config, variant, geometry, 4, 92);
    config.rollback_max = rollback_max;
    qt_open_config(env, variant, geometry, &config);
}

/* Within rollback_max, truncate and fork need nothing cached. */
static void test_rollback_max_is_kept(void **state)
{
    for (uint32_t back = 0; back <= 12; back++) {
        struct qt_env env;
        struct qt_line line, fork;
        uint32_t tokens[40];
        open_rollback(&env, *state, &qt_unequal, 12);
        qt_tokens(1, tokens, 40);
        (void)qt_line_run(&env, &line, tokens, 40);
        struct quire_seq_config all = qt_prefix(tokens, 1);
        qt_assert_ok(quire_pool_drop_prefix(env.pool, &all, NULL)); /* nothing of it is cached */
        qt_line_fork(&env, &line, 40 - back, &fork);
        qt_line_check(&env, &fork);
        qt_line_close(&env, &fork);
        qt_line_truncate(&env, &line, 40 - back);
        qt_line_check(&env, &line);
        qt_line_feed(&env, &line, tokens, 5);
        qt_line_check(&env, &line);
        qt_line_close(&env, &line);
        qt_close(&env);
    }
}

/* Further back the rows come from the cache, at any position. */
static void test_cached_rows_are_taken_back(void **state)
{
    for (uint32_t len = 0; len <= 40; len++) {
        struct qt_env env;
        struct qt_line line, fork;
        uint32_t tokens[40];
        open_rollback(&env, *state, &qt_unequal, 0);
        qt_tokens(1, tokens, 40);
        (void)qt_line_run(&env, &line, tokens, 40);
        qt_line_fork(&env, &line, len, &fork);
        qt_line_check(&env, &fork);
        qt_line_truncate(&env, &line, len);
        qt_line_check(&env, &line);
        qt_line_feed(&env, &fork, tokens + 20, 9);
        qt_line_feed(&env, &line, tokens + 10, 11);
        qt_line_check(&env, &fork);
        qt_line_check(&env, &line);
        qt_line_close(&env, &line);
        qt_line_close(&env, &fork);
        qt_assert_pool_ok(&env);
        qt_close(&env);
    }
}

/* Where the rows are gone: NOTFOUND, the longest position that works, and nothing changed; that
 * position then works. */
static void test_lost_rows_are_not_found(void **state)
{
    for (uint32_t len = 0; len <= 40; len++) {
        struct qt_env env;
        struct qt_line line;
        struct qt_snapshot snapshot;
        quire_seq fork = {0};
        uint32_t tokens[40], longest = 77;
        open_rollback(&env, *state, &qt_unequal, 0);
        qt_tokens(1, tokens, 40);
        (void)qt_line_run(&env, &line, tokens, 40);
        struct quire_pool_stats stats;
        qt_stats(&env, &stats);
        qt_evict(&env, (uint32_t)stats.blocks_cached - 2);
        qt_stats(&env, &stats);
        assert_int_equal(stats.blocks_cached, 0);
        qt_snapshot_take(&env, &line.stream, 1, &snapshot);
        quire_seq seq = line.stream.seq;
        quire_status status = quire_seq_fork(env.pool, seq, len, &fork, &longest);
        /* The window of 4 holds 36 .. 39 and that of 6 also 0 .. 3: positions 39 and 40 see no
         * more, and up to 4 neither window is left, but for position 0. */
        if (len >= 39 || len == 0) {
            qt_assert_ok(status);
            qt_assert_ok(quire_seq_destroy(env.pool, fork));
            qt_line_truncate(&env, &line, len);
        } else {
            assert_int_equal(status, QUIRE_E_NOTFOUND);
            assert_int_equal(fork.id, 0);
            assert_int_equal(longest, 0);
            longest = 77;
            qt_assert_status(quire_seq_truncate(env.pool, seq, len, NULL), QUIRE_E_NOTFOUND);
            qt_assert_status(quire_seq_truncate(env.pool, seq, len, &longest), QUIRE_E_NOTFOUND);
            assert_int_equal(longest, 0);
            qt_snapshot_same(&env, &line.stream, &snapshot);
            qt_line_check(&env, &line);
            qt_line_truncate(&env, &line, longest);
        }
        qt_line_check(&env, &line);
        qt_line_feed(&env, &line, tokens + 7, 13);
        qt_line_check(&env, &line);
        qt_line_close(&env, &line);
        qt_close(&env);
    }
}

/* The longest position is the right one: with the windows of length 16 pinned, everything between
 * answers 16. */
static void test_the_longest_position_that_works(void **state)
{
    struct qt_env env;
    struct qt_line line;
    quire_pin pin;
    uint32_t tokens[40], pinned = 0;
    qt_share_open(&env, *state, &qt_window, 4, 10);
    qt_tokens(1, tokens, 40);
    (void)qt_line_run(&env, &line, tokens, 40);
    struct quire_seq_config config = qt_prefix(tokens, 16);
    qt_assert_ok(quire_pool_pin(env.pool, &config, &pin, &pinned, NULL));
    assert_int_equal(pinned, 16);
    struct quire_pool_stats stats;
    qt_stats(&env, &stats);
    qt_evict(&env, (uint32_t)stats.blocks_cached);
    for (uint32_t len = 38; len >= 17; len--) {
        uint32_t longest = 77;
        if (len == 38) /* the window of 38 begins at 35 */
            assert_int_equal(qt_cached(&env, tokens, 40), 40);
        qt_assert_status(quire_seq_truncate(env.pool, line.stream.seq, len, &longest),
                         QUIRE_E_NOTFOUND);
        assert_int_equal(longest, 16);
    }
    qt_line_truncate(&env, &line, 16);
    qt_line_check(&env, &line);
    qt_assert_ok(quire_pool_unpin(env.pool, pin));
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* ---- hits ---- */

/* What a test knows of a pool: which blocks of one token list each group has findable. Partial ones
 * lie beside the path of those that are full, and do not count. */
enum { SHADOW_BLOCKS = 24, SHADOW_POOL = 64 };
struct shadow {
    bool has[3][SHADOW_BLOCKS];
    uint32_t group_of[SHADOW_POOL], index_of[SHADOW_POOL]; /* of a physical block */
};

static void shadow_events(struct qt_env *env, struct shadow *shadow)
{
    struct quire_event events[256];
    uint32_t count = qt_drain(env, events, 256);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t group = shadow->group_of[events[i].block];
        uint32_t index = shadow->index_of[events[i].block];
        if (events[i].num_tokens == env->config.block_size &&
            (events[i].kind == QUIRE_EVENT_STORED || events[i].kind == QUIRE_EVENT_EVICTED)) {
            assert_int_equal(events[i].group, group);
            shadow->has[group][index] = events[i].kind == QUIRE_EVENT_STORED;
        }
    }
}

/* Feeds one block's tokens; learns from the step's view which blocks are whose. */
static void shadow_feed(struct qt_env *env, struct shadow *shadow, struct qt_line *line,
                        const uint32_t *tokens, uint32_t count)
{
    struct qt_batch batch;
    struct quire_step_view view = {.struct_size = sizeof view};
    qt_assert_ok(qt_line_begin(env, line, tokens, count, &batch));
    shadow_events(env, shadow); /* evictions, under the old names */
    qt_line_write(env, &batch);
    for (uint32_t group = 0; group < env->geometry->num_groups; group++) {
        qt_assert_ok(quire_step_view(env->pool, batch.step, group, &view));
        for (uint32_t i = 0; i < view.kv_indptr[1]; i++) {
            if (view.kv_indices[i] != QUIRE_BLOCK_NONE) {
                shadow->group_of[view.kv_indices[i]] = group;
                shadow->index_of[view.kv_indices[i]] = i;
            }
        }
    }
    qt_assert_ok(qt_batch_commit(env, &batch, NULL));
    shadow_events(env, shadow);
}

/* Whether the next token of a hit of `len` positions sees only what is there. */
static bool shadow_whole(const struct qt_env *env, const struct shadow *shadow, uint32_t len)
{
    for (uint32_t g = 0; g < env->geometry->num_groups; g++) {
        const struct quire_group_config *group = &env->geometry->groups[g];
        for (uint32_t t = 0; t < len; t++) {
            bool seen = group->window == 0 || t + group->window > len || t < group->sink_positions;
            if (seen && !shadow->has[g][t / env->config.block_size])
                return false;
        }
    }
    return true;
}

/* For every count of tokens, the longest hit among them. */
static void shadow_longest(const struct qt_env *env, const struct shadow *shadow, uint32_t *longest)
{
    longest[0] = 0;
    for (uint32_t len = 1; len <= SHADOW_BLOCKS * env->config.block_size; len++)
        longest[len] = shadow_whole(env, shadow, len) ? len : longest[len - 1];
}

/* One random thing that uses the cache: a run, a look that makes recent, or evictions. */
static void shadow_round(struct qt_env *env, struct shadow *shadow, const uint32_t *tokens,
                         struct qt_random *random)
{
    struct qt_line line;
    struct quire_pool_stats stats;
    uint32_t size = env->config.block_size, kind = qt_below(random, 4);
    uint32_t count = size * (1 + qt_below(random, kind == 0 ? SHADOW_BLOCKS : 8));
    qt_stats(env, &stats);
    if (kind == 3) {
        uint32_t cached = (uint32_t)stats.blocks_cached;
        if (cached > 2)
            qt_evict(env, 1 + qt_below(random, cached - 2));
        shadow_events(env, shadow);
        return;
    }
    struct quire_seq_config config = qt_prefix(tokens, count);
    uint32_t longest[SHADOW_BLOCKS * 4 + 1];
    shadow_longest(env, shadow, longest);
    assert_int_equal(qt_line_open(env, &line, &config), longest[count - 1]);
    while (kind < 2 && line.stream.len < count) {
        uint32_t len = line.stream.len;
        shadow_feed(env, shadow, &line, tokens + len, size - len % size);
    }
    qt_line_check(env, &line);
    qt_line_close(env, &line);
    shadow_events(env, shadow);
}

static void run_holes(const struct qt_variant *variant, const struct qt_geometry *geometry,
                      uint32_t block_size, uint32_t num_blocks)
{
    struct qt_random random = {block_size * 1000 + num_blocks};
    struct qt_env env;
    struct shadow shadow = {0};
    uint32_t tokens[SHADOW_BLOCKS * 4], longest[SHADOW_BLOCKS * 4 + 1] = {0};
    uint32_t total = SHADOW_BLOCKS * block_size, bridged = 0;
    qt_share_open(&env, variant, geometry, block_size, num_blocks);
    qt_tokens(1, tokens, total);
    uint32_t rounds = env.opaque ? 50 : 300;
    for (uint32_t round = 0; round < rounds; round++) {
        shadow_round(&env, &shadow, tokens, &random);
        shadow_longest(&env, &shadow, longest);
        for (uint32_t count = 1; count <= total; count++)
            assert_int_equal(qt_cached(&env, tokens, count), longest[count]);
        for (uint32_t i = 0; i < longest[total] / block_size; i++)
            bridged += !shadow.has[geometry->num_groups - 1][i];
        qt_assert_pool_ok(&env);
    }
    assert_true(bridged > rounds / 10); /* hits with holes before their windows were among them */
    qt_close(&env);
}

/* V-S1, V-H2: whatever was evicted, what is found is what the events say is there. */
static void test_v_s1_random_holes(void **state)
{
    for (uint32_t block_size = 1; block_size <= 4; block_size++) {
        run_holes(*state, &qt_window, block_size, 28);
        run_holes(*state, &qt_unequal, block_size, 60);
    }
}

/* Which blocks a live line holds: what the view of a step over it shows. */
static void learn_held(struct qt_env *env, struct shadow *shadow, struct qt_line *line,
                       bool (*held)[SHADOW_BLOCKS])
{
    static const uint32_t token = 1;
    struct qt_batch batch;
    struct quire_step_view view = {.struct_size = sizeof view};
    qt_assert_ok(qt_line_begin(env, line, &token, 1, &batch));
    for (uint32_t group = 0; group < env->geometry->num_groups; group++) {
        qt_assert_ok(quire_step_view(env->pool, batch.step, group, &view));
        for (uint32_t i = 0; i < SHADOW_BLOCKS; i++)
            held[group][i] = i < view.kv_indptr[1] && view.kv_indices[i] != QUIRE_BLOCK_NONE;
    }
    qt_assert_ok(qt_batch_abort(env, &batch));
    shadow_events(env, shadow);
}

/* Whether a live line can go back to `len`: what its windows need is held, or cached. */
static bool can_go_back(const struct qt_env *env, const struct shadow *shadow,
                        bool (*held)[SHADOW_BLOCKS], uint32_t len)
{
    uint32_t size = env->config.block_size;
    for (uint32_t g = 0; g < env->geometry->num_groups; g++) {
        const struct quire_group_config *group = &env->geometry->groups[g];
        for (uint32_t t = 0; group->window > 0 && t < len; t++) {
            bool seen = t + group->window > len || t < group->sink_positions;
            if (seen && !held[g][t / size] && !shadow->has[g][t / size])
                return false;
        }
    }
    return true;
}

/* At every position: a fork, or NOTFOUND with the longest one that works. Then goes back itself. */
static uint32_t go_back(struct qt_env *env, struct shadow *shadow, struct qt_line *line,
                        struct qt_random *random)
{
    bool held[3][SHADOW_BLOCKS] = {{false}};
    uint32_t best = 0, refused = 0, now = line->stream.len;
    learn_held(env, shadow, line, held);
    for (uint32_t len = 0; len <= now; len++) {
        uint32_t longest = 77;
        quire_seq fork = {0};
        quire_status status = quire_seq_fork(env->pool, line->stream.seq, len, &fork, &longest);
        if (can_go_back(env, shadow, held, len)) {
            qt_assert_ok(status);
            qt_assert_ok(quire_seq_destroy(env->pool, fork));
            best = len;
        } else {
            qt_assert_status(status, QUIRE_E_NOTFOUND);
            assert_int_equal(longest, best);
            refused++;
        }
    }
    uint32_t len = qt_below(random, now + 1), longest = 77;
    if (quire_seq_truncate(env->pool, line->stream.seq, len, &longest) != QUIRE_OK)
        qt_assert_ok(quire_seq_truncate(env->pool, line->stream.seq, len = longest, NULL));
    line->stream.len = len;
    qt_line_check(env, line);
    return refused;
}

/* W1 over any holes: where a live sequence can be forked and cut is what the events say is there,
 * and what it holds itself. */
static void test_going_back_over_random_holes(void **state)
{
    for (uint32_t block_size = 1; block_size <= 4; block_size++) {
        struct qt_random random = {block_size};
        struct quire_pool_config config;
        struct qt_env env;
        struct shadow shadow = {{{false}}, {0}, {0}};
        uint32_t tokens[SHADOW_BLOCKS * 4], refused = 0;
        qt_share_config(&config, *state, &qt_unequal, block_size, SHADOW_POOL);
        config.rollback_max = block_size - 1;
        qt_open_config(&env, *state, &qt_unequal, &config);
        qt_tokens(1, tokens, SHADOW_BLOCKS * block_size);
        for (uint32_t round = 0; round < (env.opaque ? 10 : 60); round++) {
            struct qt_line line;
            uint32_t count = block_size * (2 + qt_below(&random, SHADOW_BLOCKS / 2 - 2));
            struct quire_seq_config prefix = qt_prefix(tokens, count);
            (void)qt_line_open(&env, &line, &prefix);
            for (uint32_t i = 0; i < 3; i++) {
                while (line.stream.len < count) {
                    uint32_t len = line.stream.len;
                    shadow_feed(&env, &shadow, &line, tokens + len, block_size - len % block_size);
                    struct quire_pool_stats stats;
                    qt_stats(&env, &stats);
                    if (stats.blocks_cached > 2 && qt_chance(&random, 20))
                        qt_evict(&env, 1 + qt_below(&random, (uint32_t)stats.blocks_cached - 2));
                    shadow_events(&env, &shadow);
                }
                refused += go_back(&env, &shadow, &line, &random);
                shadow_events(&env, &shadow);
            }
            qt_line_close(&env, &line);
            shadow_events(&env, &shadow);
            qt_assert_pool_ok(&env);
        }
        assert_true(refused > 10);
        qt_close(&env);
    }
}

/* A prefix that ends inside a block is found, also where longer blocks that begin alike have given
 * the rows of their windows back and lost them. */
static void test_a_partial_prefix_is_found_beside_longer_ones(void **state)
{
    enum { LINES = 3, SHARED = 9, TOTAL = 40 };
    struct qt_env env;
    struct qt_line line, lines[LINES];
    quire_pin pin;
    uint32_t tokens[TOTAL], len = 0;
    qt_share_open(&env, *state, &qt_unequal, 4, 120);
    qt_tokens(1, tokens, TOTAL);
    struct quire_seq_config prefix = qt_prefix(tokens, SHARED);
    (void)qt_line_run(&env, &line, tokens, SHARED);
    qt_line_close(&env, &line);
    qt_assert_ok(quire_pool_pin(env.pool, &prefix, &pin, &len, NULL));
    assert_int_equal(len, SHARED);
    for (uint32_t i = 0; i < LINES; i++) {
        struct quire_pool_stats stats;
        for (uint32_t t = SHARED; t < TOTAL; t++)
            tokens[t] = 1000 * (i + 1) + t;
        assert_int_equal(qt_line_run(&env, &lines[i], tokens, TOTAL), SHARED);
        qt_stats(&env, &stats);
        qt_evict(&env, (uint32_t)stats.blocks_cached - 2);
    }
    for (uint32_t i = 0; i < LINES; i++) {
        qt_line_check(&env, &lines[i]);
        qt_line_close(&env, &lines[i]);
    }
    qt_assert_ok(quire_pool_unpin(env.pool, pin));
    qt_close(&env);
}

/* Attention over a hit, with rows before the windows gone, is that over all rows. */
static void test_attention_after_a_hit(void **state)
{
    const struct qt_attend how = {0};
    for (uint32_t len = 1; len <= 21; len += 4) {
        struct qt_env env;
        struct qt_line line, fork;
        struct qt_batch batch = {0};
        uint32_t tokens[40];
        qt_share_open(&env, *state, &qt_unequal, 4, 90);
        qt_tokens(1, tokens, 40);
        qt_line_cache(&env, tokens, 30);
        struct quire_seq_config config = qt_prefix(tokens, len + 1);
        assert_int_equal(qt_line_open(&env, &line, &config), len);
        qt_line_fork(&env, &line, len - len / 2, &fork);
        qt_line_add(&batch, &line, tokens + 3, 7);
        qt_line_add(&batch, &fork, tokens + 9, 6);
        qt_assert_ok(qt_batch_begin(&env, &batch));
        for (uint32_t i = 0; i < qt_unequal.num_layers; i++) {
            qt_assert_ok(qt_batch_write(&env, &batch, i));
            qt_assert_ok(qt_batch_attend(&env, &batch, i, &how));
            qt_oracle_check(&env, &batch, i, &how);
        }
        qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
        qt_line_check(&env, &line);
        qt_line_check(&env, &fork);
        qt_line_close(&env, &line);
        qt_line_close(&env, &fork);
        qt_close(&env);
    }
}

/* An engine with its own kernels sees which blocks a window has let go, and where new rows go. */
static void test_the_view_shows_the_window(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct qt_batch batch;
    uint32_t tokens[40];
    qt_share_open(&env, *state, &qt_unequal, 4, 90);
    qt_tokens(1, tokens, 40);
    (void)qt_line_run(&env, &line, tokens, 30);
    qt_assert_ok(qt_line_begin(&env, &line, tokens + 30, 5, &batch));
    for (uint32_t g = 0; g < 3; g++) {
        struct quire_step_view view = {.struct_size = sizeof view};
        uint32_t held = 0;
        qt_assert_ok(quire_step_view(env.pool, batch.step, g, &view));
        assert_int_equal(view.kv_indptr[1], 9);
        assert_int_equal(view.last_page_len[0], 3);
        assert_int_equal(view.num_copies, 0);
        for (uint32_t i = 0; i < 9; i++)
            held += view.kv_indices[i] != QUIRE_BLOCK_NONE;
        assert_int_equal(held, held_at(&qt_unequal.groups[g], 30, 0, 4) + 1);
        for (uint32_t t = 0; t < 5; t++)
            assert_int_equal(view.slot_mapping[t],
                             (uint64_t)view.kv_indices[(30 + t) / 4] * 4 + (30 + t) % 4);
    }
    qt_assert_ok(qt_batch_abort(&env, &batch));
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* ---- groups of other bytes ---- */

/* Any block serves any group: a long sequence takes nearly all for full attention, many short ones
 * a third for each, in the same pool. */
static void test_no_fixed_split(void **state)
{
    struct qt_env env;
    struct qt_stream stream, many[10];
    struct quire_group_stats stats[3];
    qt_share_open(&env, *state, &qt_unequal, 4, 30);
    qt_stream_open(&env, &stream, 1);
    for (uint32_t i = 0; i < 24; i++)
        qt_append(&env, &stream, 4);
    for (uint32_t g = 0; g < 3; g++) {
        stats[g].struct_size = sizeof stats[g];
        qt_assert_ok(quire_pool_group_stats(env.pool, g, &stats[g]));
        assert_int_equal(stats[g].window, qt_unequal.groups[g].window);
        assert_int_equal(stats[g].sink_positions, qt_unequal.groups[g].sink_positions);
        assert_int_equal(stats[g].num_layers, qt_unequal.groups[g].num_layers);
        assert_int_equal(stats[g].blocks_owned, held_at(&qt_unequal.groups[g], 96, 0, 4));
    }
    assert_int_equal(stats[0].blocks_owned, 24);
    qt_stream_close(&env, &stream);
    for (uint32_t i = 0; i < 10; i++) {
        qt_stream_open(&env, &many[i], i);
        qt_append(&env, &many[i], 4);
    }
    qt_assert_states(&env, 0, 30, 0);
    for (uint32_t g = 0; g < 3; g++) {
        qt_assert_ok(quire_pool_group_stats(env.pool, g, &stats[g]));
        assert_int_equal(stats[g].blocks_owned, 10);
    }
    for (uint32_t i = 0; i < 10; i++)
        qt_stream_close(&env, &many[i]);
    qt_close(&env);
}

/* What a group's layers fill of a block: 2 layers of 2 heads of 16, then one of 1 head of 8, in
 * 16-bit K and V. */
static void test_group_bytes(void **state)
{
    static const uint64_t elements[] = {2 * 2 * 16, 1 * 1 * 8, 1 * 1 * 8};
    struct qt_env env;
    struct quire_pool_stats pool;
    qt_share_open(&env, *state, &qt_unequal, 4, 30);
    qt_stats(&env, &pool);
    for (uint32_t g = 0; g < 3; g++) {
        struct quire_group_stats stats = {.struct_size = sizeof stats};
        qt_assert_ok(quire_pool_group_stats(env.pool, g, &stats));
        assert_int_equal(stats.block_bytes_used, elements[g] * 4 * 2 * 2);
        assert_true(stats.block_bytes_used <= pool.block_bytes);
    }
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_groups_hold_their_window, QT_SHARE),
        QT_TEST(test_a_window_bounds_a_sequence, QT_SHARE),
        QT_TEST(test_a_window_knows_all_tokens, QT_SHARE),
        QT_TEST(test_only_kept_tokens_slide_a_window, QT_SHARE),
        QT_TEST(test_rollback_max_is_kept, QT_SHARE),
        QT_TEST(test_cached_rows_are_taken_back, QT_SHARE),
        QT_TEST(test_lost_rows_are_not_found, QT_SHARE),
        QT_TEST(test_the_longest_position_that_works, QT_SHARE),
        QT_TEST(test_v_s1_random_holes, QT_SHARE),
        QT_TEST(test_going_back_over_random_holes, QT_SHARE),
        QT_TEST(test_a_partial_prefix_is_found_beside_longer_ones, QT_SHARE),
        QT_TEST(test_the_view_shows_the_window, QT_SHARE),
        QT_TEST(test_attention_after_a_hit, QT_SHARE_KV),
        QT_TEST(test_no_fixed_split, QT_SHARE),
        QT_TEST(test_group_bytes, QT_SHARE),
    };
    return qt_run("windows", tests, QT_LEN(tests));
}
