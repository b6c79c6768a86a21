/* test_fork.c - forks share blocks, and a writer copies what somebody else can read.
 * SPDX-License-Identifier: Apache-2.0 */
#include "share_fixture.h"

#include <stdlib.h>
#include <string.h>

static uint64_t copies(struct qt_env *env)
{
    struct quire_pool_stats stats;
    qt_stats(env, &stats);
    return stats.blocks_copied;
}

/* Continues a line with tokens that no other line has. */
static void diverge(struct qt_env *env, struct qt_line *line, uint32_t key, uint32_t count)
{
    uint32_t tokens[32];
    qt_tokens(key, tokens, count);
    qt_line_feed(env, line, tokens, count);
}

/* ---- forks ---- */

/* At every position a fork takes references only; both go on without seeing each other. */
static void test_fork_at_every_position(void **state)
{
    struct qt_env env;
    struct qt_line line, fork;
    struct quire_pool_stats before, after;
    struct quire_seq_stats of_fork;
    uint32_t tokens[14];
    qt_tokens(1, tokens, 14);
    for (uint32_t at = 0; at <= 14; at++) {
        qt_share_open(&env, *state, &qt_plain, 4, 40);
        (void)qt_line_run(&env, &line, tokens, 14);
        qt_stats(&env, &before);
        qt_line_fork(&env, &line, at, &fork);
        qt_stats(&env, &after);
        assert_int_equal(after.blocks_owned, before.blocks_owned);
        assert_int_equal(after.blocks_copied, 0);
        assert_int_equal(after.uploads, before.uploads);
        qt_seq_stats(&env, &fork, &of_fork);
        assert_int_equal(of_fork.blocks, (at + 3) / 4);
        assert_int_equal(of_fork.blocks_shared, (at + 3) / 4);
        assert_int_equal(of_fork.hit_tokens, at);
        assert_int_equal(of_fork.own_bytes, 0);
        qt_line_check(&env, &fork);
        diverge(&env, &fork, 50, 7);
        diverge(&env, &line, 51, 7);
        /* The fork copied where it ended inside a block; then the line is alone with its own. */
        assert_int_equal(copies(&env), at % 4 != 0);
        qt_line_check(&env, &fork);
        qt_line_check(&env, &line);
        qt_line_close(&env, &line);
        qt_line_check(&env, &fork);
        qt_line_close(&env, &fork);
        qt_assert_pool_ok(&env);
        qt_close(&env);
    }
}

/* Of two holders of a last block the first to write copies; the second is then alone. */
static void test_the_last_holder_writes_in_place(void **state)
{
    struct qt_env env;
    struct qt_line lines[8];
    uint32_t tokens[10];
    qt_share_open(&env, *state, &qt_plain, 4, 40);
    qt_tokens(1, tokens, 10);
    (void)qt_line_run(&env, &lines[0], tokens, 10);
    for (uint32_t i = 1; i < 8; i++)
        qt_line_fork(&env, &lines[0], 10, &lines[i]);
    qt_assert_states(&env, 37, 3, 0);
    for (uint32_t i = 0; i < 8; i++) {
        diverge(&env, &lines[i], 10 + i, 1);
        assert_int_equal(copies(&env), i < 7 ? i + 1 : 7);
    }
    qt_assert_states(&env, 30, 2 + 8, 0);
    for (uint32_t i = 0; i < 8; i++) {
        qt_line_check(&env, &lines[i]);
        qt_line_close(&env, &lines[i]);
    }
    qt_close(&env);
}

/* The same in one step over all of them. */
static void test_forks_write_in_one_step(void **state)
{
    struct qt_env env;
    struct qt_line lines[8];
    struct qt_batch batch = {0};
    uint32_t tokens[10], next[8];
    qt_share_open(&env, *state, &qt_plain, 4, 40);
    qt_tokens(1, tokens, 10);
    (void)qt_line_run(&env, &lines[0], tokens, 10);
    for (uint32_t i = 1; i < 8; i++)
        qt_line_fork(&env, &lines[0], 10, &lines[i]);
    for (uint32_t i = 0; i < 8; i++) {
        next[i] = 700 + i;
        qt_line_add(&batch, &lines[i], &next[i], 1);
    }
    qt_batch_store(&env, &batch);
    assert_int_equal(copies(&env), 7); /* the last one has the original */
    for (uint32_t i = 0; i < 8; i++)
        qt_line_check(&env, &lines[i]);
    for (uint32_t i = 0; i < 8; i++)
        qt_line_close(&env, &lines[i]);
    qt_close(&env);
}

/* Forks of other lengths inside one block: the last item of the step stays only where it writes
 * behind what the others see; an abort gives all of them their rows back. */
static void test_forks_of_other_lengths_write_in_one_step(void **state)
{
    for (uint32_t way = 0; way < 4; way++) {
        struct qt_env env;
        struct qt_line lines[3];
        struct qt_batch batch = {0};
        const uint32_t shorter_last = way & 1, aborted = way & 2;
        uint32_t tokens[7], next[] = {7, 8, 9};
        qt_share_open(&env, *state, &qt_plain, 4, 20);
        qt_tokens(1, tokens, 7);
        (void)qt_line_run(&env, &lines[shorter_last ? 0 : 2], tokens, 7);
        qt_line_fork(&env, &lines[shorter_last ? 0 : 2], 6, &lines[1]);
        qt_line_fork(&env, &lines[shorter_last ? 0 : 2], 5, &lines[shorter_last ? 2 : 0]);
        for (uint32_t i = 0; i < 3; i++)
            qt_line_add(&batch, &lines[i], &next[i], 1);
        qt_assert_ok(qt_batch_begin(&env, &batch));
        qt_line_write(&env, &batch);
        qt_assert_pool_ok(&env);
        qt_assert_ok(aborted ? qt_batch_abort(&env, &batch) : qt_batch_commit(&env, &batch, NULL));
        assert_int_equal(copies(&env), aborted ? 0 : shorter_last ? 3 : 2);
        for (uint32_t i = 0; i < 3; i++) {
            qt_line_check(&env, &lines[i]);
            qt_line_close(&env, &lines[i]);
        }
        qt_close(&env);
    }
}

/* Beam search: every step each of four beams is forked or dropped at random. */
static void test_beams(void **state)
{
    struct qt_env env;
    struct qt_line beams[4], next[4];
    struct qt_random random = {3};
    uint32_t tokens[6];
    qt_share_open(&env, *state, &qt_unequal, 4, 400);
    qt_tokens(1, tokens, 6);
    (void)qt_line_run(&env, &beams[0], tokens, 6);
    for (uint32_t i = 1; i < 4; i++)
        qt_line_fork(&env, &beams[0], 6, &beams[i]);
    for (uint32_t round = 0; round < 24; round++) {
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t from = qt_below(&random, 4);
            qt_line_fork(&env, &beams[from], beams[from].stream.len, &next[i]);
        }
        for (uint32_t i = 0; i < 4; i++) {
            qt_line_close(&env, &beams[i]);
            beams[i] = next[i];
            diverge(&env, &beams[i], round * 4 + i, 1);
        }
        for (uint32_t i = 0; i < 4; i++)
            qt_line_check(&env, &beams[i]);
        qt_assert_pool_ok(&env);
    }
    for (uint32_t i = 0; i < 4; i++)
        qt_line_close(&env, &beams[i]);
    struct quire_pool_stats stats;
    qt_stats(&env, &stats);
    assert_int_equal(stats.blocks_owned, 0);
    qt_close(&env);
}

static void test_fork_refuses(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct qt_stream others[12];
    struct qt_batch batch;
    struct qt_snapshot snapshot;
    quire_seq fork = {0};
    uint32_t tokens[6], longest = 77;
    qt_share_open(&env, *state, &qt_plain, 4, 40);
    qt_tokens(1, tokens, 6);
    (void)qt_line_run(&env, &line, tokens, 6);
    quire_seq seq = line.stream.seq;
    qt_snapshot_take(&env, &line.stream, 1, &snapshot);
    qt_assert_status(quire_seq_fork(env.pool, seq, 7, &fork, &longest), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_fork(env.pool, seq, UINT32_MAX, &fork, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_fork(env.pool, seq, 6, NULL, &longest), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_fork(NULL, seq, 6, &fork, &longest), QUIRE_E_INVAL);
    qt_assert_status(quire_seq_fork(env.pool, (quire_seq){0}, 0, &fork, NULL), QUIRE_E_INVAL);
    qt_snapshot_same(&env, &line.stream, &snapshot);
    qt_assert_ok(qt_line_begin(&env, &line, tokens, 1, &batch));
    qt_assert_status(quire_seq_fork(env.pool, seq, 2, &fork, &longest), QUIRE_E_BUSY);
    qt_assert_ok(qt_batch_abort(&env, &batch));
    for (uint32_t i = 0; i < 11; i++)
        qt_stream_open(&env, &others[i], i);
    qt_snapshot_take(&env, &line.stream, 1, &snapshot);
    qt_assert_status(quire_seq_fork(env.pool, seq, 6, &fork, &longest), QUIRE_E_LIMIT);
    qt_snapshot_same(&env, &line.stream, &snapshot);
    for (uint32_t i = 0; i < 11; i++)
        qt_stream_close(&env, &others[i]);
    assert_int_equal(fork.id, 0);
    assert_int_equal(longest, 77);
    qt_line_close(&env, &line);
    qt_assert_status(quire_seq_fork(env.pool, seq, 0, &fork, NULL), QUIRE_E_INVAL);
    qt_close(&env);
}

/* Contiguous: the rows are copied, and the two never meet. */
static void test_contiguous_fork_copies(void **state)
{
    struct qt_env env;
    struct qt_line line, fork;
    uint32_t tokens[14];
    qt_open(&env, *state, &qt_groups);
    qt_tokens(1, tokens, 14);
    (void)qt_line_run(&env, &line, tokens, 14);
    for (uint32_t at = 0; at <= 14; at += 7) {
        qt_line_fork(&env, &line, at, &fork);
        qt_line_check(&env, &fork);
        diverge(&env, &fork, 60 + at, 5);
        qt_line_check(&env, &fork);
        qt_line_check(&env, &line);
        qt_line_close(&env, &fork);
    }
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* ---- copy-on-write ---- */

/* P3: who is alone appends past what is published, without a copy. */
static void test_a_sole_holder_appends_in_place(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[12];
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    qt_share_open(&env, *state, &qt_plain, 4, 3);
    qt_tokens(1, tokens, 12);
    (void)qt_line_open(&env, &line, &empty);
    for (uint32_t i = 0; i < 12; i++) {
        qt_line_feed(&env, &line, tokens + i, 1);
        qt_assert_ok(quire_seq_publish(env.pool, line.stream.seq));
        qt_assert_states(&env, 2 - i / 4, 1 + i / 4, 0);
    }
    assert_int_equal(copies(&env), 0);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* P3: who goes back into a published block and writes there gets a copy; what was published stays
 * as it was, and is still found. */
static void test_truncate_and_write_copies(void **state)
{
    for (uint32_t at = 0; at <= 11; at++) {
        struct qt_env env;
        struct qt_line line, again;
        uint32_t tokens[12];
        qt_share_open(&env, *state, &qt_plain, 4, 20);
        qt_tokens(1, tokens, 12);
        (void)qt_line_run(&env, &line, tokens, 11);
        qt_assert_ok(quire_seq_publish(env.pool, line.stream.seq));
        qt_line_truncate(&env, &line, at);
        qt_line_check(&env, &line);
        diverge(&env, &line, 70, 3);
        assert_int_equal(copies(&env), at % 4 != 0 && at != 11);
        qt_line_check(&env, &line);
        if (at != 11) { /* nobody wrote over it */
            assert_int_equal(qt_cached(&env, tokens, 11), 11);
            assert_int_equal(qt_line_run(&env, &again, tokens, 12), 11);
            qt_line_check(&env, &again);
            qt_line_close(&env, &again);
        }
        qt_line_close(&env, &line);
        qt_assert_pool_ok(&env);
        qt_close(&env);
    }
}

/* Going back to tokens that it then computes again, alike or not, is sound too. */
static void test_truncate_and_write_the_same(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[12];
    qt_share_open(&env, *state, &qt_plain, 4, 20);
    qt_tokens(1, tokens, 12);
    (void)qt_line_run(&env, &line, tokens, 12);
    for (uint32_t at = 0; at < 12; at++) {
        qt_line_truncate(&env, &line, at);
        qt_line_feed(&env, &line, tokens + at, 12 - at);
        qt_line_check(&env, &line);
        assert_int_equal(qt_cached(&env, tokens, 12), 12);
        qt_assert_pool_ok(&env);
    }
    qt_line_close(&env, &line);
    qt_close(&env);
}

static uint8_t *row_of(const struct quire_view *view, uint64_t stride, uint8_t *arena,
                       uint32_t block, uint32_t row)
{
    return arena + view->offset +
           (block * stride + row * view->shape[2]) * quire_dtype_bytes(view->dtype);
}

/* Only the rows that the writer sees are copied: in memory of ours, the rest of the new block holds
 * none of the source's. */
static void test_only_visible_rows_are_copied(void **state)
{
    enum { P = 8, BLOCKS = 6 };
    for (uint32_t at = 9; at < 16; at++) {
        struct qt_env env;
        struct qt_line line, fork;
        struct quire_pool_config config;
        struct quire_kv_cache cache;
        struct quire_event events[16];
        uint64_t block_bytes, position_bytes;
        uint32_t tokens[16];
        qt_share_config(&config, *state, &qt_plain, P, BLOCKS);
        qt_assert_ok(quire_pool_measure(&config, &block_bytes, &position_bytes));
        config.memory_bytes = block_bytes * BLOCKS;
        config.num_blocks = 0;
        uint8_t *arena = aligned_alloc(64, (config.memory_bytes + 63) / 64 * 64);
        assert_non_null(arena);
        memset(arena, 0xab, config.memory_bytes);
        config.memory = arena;
        qt_open_config(&env, *state, &qt_plain, &config);
        qt_tokens(1, tokens, 16);
        (void)qt_line_run(&env, &line, tokens, 16);
        qt_line_fork(&env, &line, at, &fork);
        (void)qt_drain(&env, events, 16);
        diverge(&env, &fork, 80, 1);
        qt_wait(&env);
        uint32_t count = qt_drain(&env, events, 16);
        assert_int_equal(count, at < 15 ? 1 : 2); /* stored, where it is full */
        assert_int_equal(events[0].kind, QUIRE_EVENT_COPIED);
        assert_int_equal(events[0].num_tokens, at - P);
        for (uint32_t layer = 0; layer < 2; layer++) {
            qt_assert_ok(quire_seq_kv_cache(env.pool, fork.stream.seq, layer, &cache));
            size_t bytes = cache.k.shape[2] * quire_dtype_bytes(cache.k.dtype);
            for (uint32_t row = 0; row < P; row++) {
                bool k_same =
                    memcmp(row_of(&cache.k, cache.block_stride_k, arena, events[0].block, row),
                           row_of(&cache.k, cache.block_stride_k, arena, events[0].parent, row),
                           bytes) == 0;
                bool v_same =
                    memcmp(row_of(&cache.v, cache.block_stride_v, arena, events[0].block, row),
                           row_of(&cache.v, cache.block_stride_v, arena, events[0].parent, row),
                           bytes) == 0;
                assert_int_equal(k_same, row < at - P);
                assert_int_equal(v_same, row < at - P);
            }
        }
        qt_line_check(&env, &line);
        qt_line_check(&env, &fork);
        qt_line_close(&env, &line);
        qt_line_close(&env, &fork);
        qt_close(&env);
        free(arena);
    }
}

/* T1: abort brings the table back to the shared block, and commit of nothing keeps the content. */
static void test_abort_after_a_copy_restores(void **state)
{
    struct qt_env env;
    struct qt_line line, fork;
    struct qt_batch batch;
    struct quire_seq_stats before, after;
    uint32_t tokens[10], keep = 0;
    qt_share_open(&env, *state, &qt_plain, 4, 20);
    qt_tokens(1, tokens, 10);
    (void)qt_line_run(&env, &line, tokens, 10);
    qt_line_fork(&env, &line, 10, &fork);
    qt_seq_stats(&env, &fork, &before);
    for (uint32_t round = 0; round < 3; round++) {
        qt_assert_ok(qt_line_begin(&env, &fork, tokens, 7, &batch));
        qt_line_write(&env, &batch);
        qt_assert_states(&env, 20 - 6, 6, 0);
        qt_assert_ok(qt_batch_abort(&env, &batch));
        qt_assert_states(&env, 20 - 3, 3, 0);
        qt_seq_stats(&env, &fork, &after);
        assert_memory_equal(&before, &after, sizeof after);
        qt_line_check(&env, &fork);
        qt_line_check(&env, &line);
    }
    qt_assert_ok(qt_line_begin(&env, &fork, tokens, 7, &batch));
    qt_line_write(&env, &batch);
    qt_assert_ok(qt_batch_commit(&env, &batch, &keep));
    qt_line_check(&env, &fork);
    qt_line_check(&env, &line);
    diverge(&env, &fork, 90, 3);
    qt_line_check(&env, &fork);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_line_close(&env, &fork);
    qt_close(&env);
}

/* Two steps over two holders of a block, open at once, that end in any way and order. */
static void test_two_open_steps(void **state)
{
    for (uint32_t way = 0; way < 16; way++) {
        struct qt_env env;
        struct qt_line lines[2], later;
        struct qt_batch batches[2];
        uint32_t tokens[10], next[] = {1, 2, 3, 4};
        bool published = (way & 8) != 0;
        qt_share_open(&env, *state, &qt_unequal, 4, 60);
        qt_tokens(1, tokens, 10);
        (void)qt_line_run(&env, &lines[0], tokens, 10);
        if (published)
            qt_assert_ok(quire_seq_publish(env.pool, lines[0].stream.seq));
        qt_line_fork(&env, &lines[0], 10, &lines[1]);
        for (uint32_t i = 0; i < 2; i++) {
            qt_assert_ok(qt_line_begin(&env, &lines[i], next + i, 3, &batches[i]));
            qt_assert_pool_ok(&env);
        }
        struct quire_seq_config config = qt_prefix(tokens, 10); /* a third holder meanwhile */
        assert_int_equal(qt_line_open(&env, &later, &config), published ? 9 : 8);
        for (uint32_t i = 0; i < 2; i++)
            qt_line_write(&env, &batches[i]);
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t which = (way & 4) != 0 ? 1 - i : i;
            qt_assert_ok((way >> which & 1) != 0 ? qt_batch_abort(&env, &batches[which])
                                                 : qt_batch_commit(&env, &batches[which], NULL));
            qt_assert_pool_ok(&env);
        }
        qt_line_feed(&env, &later, tokens + later.stream.len, 1);
        for (uint32_t i = 0; i < 2; i++) {
            qt_line_check(&env, &lines[i]);
            qt_line_feed(&env, &lines[i], tokens, 5);
            qt_line_check(&env, &lines[i]);
        }
        qt_line_check(&env, &later);
        for (uint32_t i = 0; i < 2; i++)
            qt_line_close(&env, &lines[i]);
        qt_line_check(&env, &later);
        qt_line_close(&env, &later);
        struct quire_pool_stats stats;
        qt_stats(&env, &stats);
        assert_int_equal(stats.blocks_owned, 0);
        qt_close(&env);
    }
}

/* T1: the blocks of copies count; a step that lacks one changes nothing. */
static void test_a_copy_needs_a_block(void **state)
{
    struct qt_env env;
    struct qt_line line, fork;
    struct qt_batch batch;
    struct qt_snapshot snapshot;
    uint32_t tokens[10];
    qt_share_open(&env, *state, &qt_plain, 4, 3);
    qt_tokens(1, tokens, 10);
    (void)qt_line_run(&env, &line, tokens, 10);
    qt_line_fork(&env, &line, 10, &fork);
    qt_snapshot_take(&env, &fork.stream, 1, &snapshot);
    qt_assert_status(qt_line_begin(&env, &fork, tokens, 1, &batch), QUIRE_E_NOSPACE);
    assert_int_equal(batch.missing, 1);
    qt_assert_status(qt_line_begin(&env, &fork, tokens, 3, &batch), QUIRE_E_NOSPACE);
    assert_int_equal(batch.missing, 2);
    qt_snapshot_same(&env, &fork.stream, &snapshot);
    assert_int_equal(copies(&env), 0);
    qt_line_check(&env, &line);
    qt_line_check(&env, &fork);
    qt_line_close(&env, &line);
    diverge(&env, &fork, 91, 1); /* alone now */
    qt_line_check(&env, &fork);
    qt_line_close(&env, &fork);
    qt_close(&env);
}

/* A pool of one block: a hit inside it must not make a step impossible that runs without the hit
 * (E2: cached blocks cost nothing). */
static void test_one_block_is_enough(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[4];
    qt_share_open(&env, *state, &qt_plain, 4, 1);
    qt_tokens(1, tokens, 4);
    for (uint32_t round = 0; round < 3; round++) {
        assert_int_equal(qt_line_run(&env, &line, tokens, 4), round > 0 ? 3 : 0);
        qt_line_check(&env, &line);
        qt_line_close(&env, &line);
        qt_assert_states(&env, 0, 0, 1);
    }
    qt_close(&env);
}

/* P3: quire_seq_write changes committed rows of a block only while its holder is alone with it and
 * nobody can find it. */
static void test_seq_write_keeps_shared_rows(void **state)
{
    struct qt_env env;
    struct qt_line line, fork;
    uint32_t tokens[10];
    uint8_t k[256], v[256];
    qt_share_open(&env, *state, &qt_plain, 4, 20);
    qt_tokens(1, tokens, 10);
    (void)qt_line_run(&env, &line, tokens, 10);
    quire_seq seq = line.stream.seq;
    struct quire_rows full = {0, 3, 1}, last = {0, 8, 2}, both = {1, 7, 2};
    qt_assert_ok(quire_seq_read(env.pool, seq, &last, k, v));
    qt_assert_ok(quire_seq_write(env.pool, seq, &last, k, v));
    qt_assert_status(quire_seq_write(env.pool, seq, &full, k, v), QUIRE_E_BUSY);
    qt_assert_status(quire_seq_write(env.pool, seq, &both, k, v), QUIRE_E_BUSY);
    qt_line_fork(&env, &line, 9, &fork);
    qt_assert_status(quire_seq_write(env.pool, seq, &last, k, v), QUIRE_E_BUSY);
    qt_line_close(&env, &fork);
    qt_line_check(&env, &line);
    qt_line_close(&env, &line);
    qt_close(&env);
}

/* ---- the copies of an engine with its own memory ---- */

/* Without K and V, the step's view says what the engine must copy before it writes. */
static void test_view_lists_copies(void **state)
{
    struct qt_env env;
    struct qt_line line, fork;
    struct qt_batch batch;
    struct quire_step_view view = {.struct_size = sizeof view};
    struct quire_event events[16];
    uint32_t tokens[10];
    qt_share_open(&env, *state, &qt_plain, 4, 20);
    qt_tokens(1, tokens, 10);
    (void)qt_line_run(&env, &line, tokens, 10);
    qt_line_fork(&env, &line, 10, &fork);
    qt_assert_ok(qt_line_begin(&env, &fork, tokens, 3, &batch));
    qt_assert_ok(quire_step_view(env.pool, batch.step, 0, &view));
    assert_int_equal(view.kv_indptr[1], 4);
    if (env.has_kv) {
        assert_int_equal(view.num_copies, 0); /* it is done */
    } else {
        assert_int_equal(view.num_copies, 1);
        assert_int_equal(view.copies[0].group, 0);
        assert_int_equal(view.copies[0].rows, 2);
        assert_int_equal(view.copies[0].to, view.kv_indices[2]);
        assert_int_equal(view.slot_mapping[0], (uint64_t)view.kv_indices[2] * 4 + 2);
        uint32_t from = view.copies[0].from;
        qt_assert_ok(qt_batch_abort(&env, &batch));
        qt_assert_ok(qt_line_begin(&env, &line, tokens, 1, &batch));
        qt_assert_ok(quire_step_view(env.pool, batch.step, 0, &view));
        assert_int_equal(view.num_copies, 1);
        assert_int_equal(view.copies[0].from, from);
        qt_assert_ok(qt_batch_abort(&env, &batch));
        assert_int_equal(qt_count(events, qt_drain(&env, events, 16), QUIRE_EVENT_COPIED), 0);
        qt_assert_ok(qt_line_begin(&env, &line, tokens, 1, &batch));
        qt_assert_ok(quire_step_view(env.pool, batch.step, 0, &view));
        uint32_t to = view.copies[0].to;
        qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
        assert_int_equal(qt_drain(&env, events, 16), 1);
        assert_int_equal(events[0].kind, QUIRE_EVENT_COPIED);
        assert_int_equal(events[0].parent, from);
        assert_int_equal(events[0].block, to);
        qt_assert_ok(qt_line_begin(&env, &fork, tokens, 1, &batch));
        qt_assert_ok(quire_step_view(env.pool, batch.step, 0, &view));
        assert_int_equal(view.num_copies, 0); /* alone now */
    }
    qt_assert_ok(qt_batch_abort(&env, &batch));
    qt_line_close(&env, &line);
    qt_line_close(&env, &fork);
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_fork_at_every_position, QT_SHARE),
        QT_TEST(test_the_last_holder_writes_in_place, QT_SHARE),
        QT_TEST(test_forks_write_in_one_step, QT_SHARE),
        QT_TEST(test_forks_of_other_lengths_write_in_one_step, QT_SHARE),
        QT_TEST(test_beams, QT_SHARE),
        QT_TEST(test_fork_refuses, QT_SHARE),
        QT_TEST(test_contiguous_fork_copies, QT_ON_CPU | QT_ON_OPAQUE | QT_ON_NONE | QT_CONTIGUOUS),
        QT_TEST(test_a_sole_holder_appends_in_place, QT_SHARE),
        QT_TEST(test_truncate_and_write_copies, QT_SHARE),
        QT_TEST(test_truncate_and_write_the_same, QT_SHARE),
        QT_TEST(test_only_visible_rows_are_copied, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_abort_after_a_copy_restores, QT_SHARE),
        QT_TEST(test_two_open_steps, QT_SHARE),
        QT_TEST(test_a_copy_needs_a_block, QT_SHARE),
        QT_TEST(test_one_block_is_enough, QT_SHARE),
        QT_TEST(test_seq_write_keeps_shared_rows, QT_SHARE_KV),
        QT_TEST(test_view_lists_copies, QT_SHARE),
    };
    return qt_run("fork", tests, QT_LEN(tests));
}
