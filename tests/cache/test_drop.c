/* test_drop.c - forgetting on purpose: by tenant, by prefix, by reset; and what is left in memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The pool lies in memory of the test, which looks for the bytes of K and V itself. */
#include "share_fixture.h"

#include "cache/pool.h"

#include <stdlib.h>
#include <string.h>

/* ---- an arena of our own ---- */

struct arena {
    struct qt_env env;
    uint8_t *memory;
    uint64_t bytes;
};

static void arena_open(struct arena *arena, const struct qt_variant *variant,
                       const struct qt_geometry *geometry, uint32_t num_blocks)
{
    struct quire_pool_config config;
    uint64_t block_bytes, position_bytes;
    qt_share_config(&config, variant, geometry, 4, 0);
    config.max_seqs = 4;
    config.max_seq_len = 64;
    qt_assert_ok(quire_pool_measure(&config, &block_bytes, &position_bytes));
    arena->bytes = variant->layout == QUIRE_LAYOUT_PAGED
                       ? block_bytes * num_blocks
                       : position_bytes * config.max_seqs * config.max_seq_len;
    arena->memory = aligned_alloc(64, (arena->bytes + 63) / 64 * 64);
    assert_non_null(arena->memory);
    memset(arena->memory, 0, arena->bytes);
    config.memory_bytes = arena->bytes;
    config.memory = arena->memory;
    qt_open_config(&arena->env, variant, geometry, &config);
}

static void arena_close(struct arena *arena)
{
    qt_close(&arena->env);
    free(arena->memory);
}

/* Whether the K or V of one position, of any head of any layer, lies anywhere in memory. */
static bool holds_position(struct arena *arena, uint64_t salt)
{
    struct qt_env *env = &arena->env;
    for (uint32_t layer = 0; layer < env->geometry->num_layers; layer++) {
        const struct quire_group_config *group = qt_group_of(env->geometry, layer);
        for (int plane = QT_K; plane <= QT_V; plane++) {
            uint8_t row[512];
            uint32_t bytes = qt_row_bytes(env, layer, (enum qt_plane)plane);
            uint32_t of_head = bytes / group->num_kv_heads;
            assert_true(bytes <= sizeof row);
            qt_stored_row(env, salt, layer, (enum qt_plane)plane, row);
            for (uint32_t head = 0; head < group->num_kv_heads; head++) {
                if (memmem(arena->memory, arena->bytes, row + head * of_head, of_head) != NULL)
                    return true;
            }
        }
    }
    return false;
}

/* How many positions of a line, from `first` on, are in memory; `salts` outlive the line. */
static uint32_t positions_in_memory(struct arena *arena, const uint64_t *salts, uint32_t first,
                                    uint32_t end)
{
    uint32_t found = 0;
    qt_wait(&arena->env);
    for (uint32_t t = first; t < end; t++)
        found += holds_position(arena, salts[t]);
    return found;
}

/* Runs a prompt; keeps what its positions hold. */
static void run(struct arena *arena, struct qt_line *line, const struct quire_seq_config *config,
                uint64_t *salts)
{
    (void)qt_line_run_as(&arena->env, line, config);
    memcpy(salts, line->stream.salts, config->num_tokens * sizeof *salts);
}

/* ---- by tenant ---- */

/* The blocks of a tenant are forgotten and zeroed: those cached, under every adapter, and those
 * given back without a name before. Others keep theirs. */
static void test_drop_zeroes_a_tenant(void **state)
{
    struct arena arena;
    struct qt_env *env = &arena.env;
    struct qt_line line, unnamed;
    uint64_t salts[5][12];
    uint32_t tokens[12];
    struct quire_pool_stats before, after;
    arena_open(&arena, *state, &qt_plain, 30);
    qt_tokens(1, tokens, 12);
    struct quire_seq_config config = qt_prefix(tokens, 12);
    for (uint32_t i = 0; i < 4; i++) { /* two tenants, two adapters */
        config.salt = 1 + i / 2;
        config.adapter = i % 2;
        run(&arena, &line, &config, salts[i]);
        qt_line_close(env, &line);
    }
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    empty.salt = 1;
    (void)qt_line_open(env, &unnamed, &empty);
    qt_append(env, &unnamed.stream, 12);
    memcpy(salts[4], unnamed.stream.salts, sizeof salts[4]);
    qt_line_close(env, &unnamed);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(positions_in_memory(&arena, salts[i], 0, 12), 12);
    qt_stats(env, &before);
    qt_assert_ok(quire_pool_drop(env->pool, 3)); /* nobody */
    qt_stats(env, &after);
    assert_memory_equal(&before, &after, sizeof after);
    qt_assert_ok(quire_pool_drop(env->pool, 1));
    qt_stats(env, &after);
    assert_int_equal(after.blocks_dropped - before.blocks_dropped, 6);
    qt_assert_states(env, 24, 0, 6);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(positions_in_memory(&arena, salts[i], 0, 12), i / 2 == 1 ? 12 : 0);
    for (uint32_t i = 0; i < 4; i++) {
        config.salt = 1 + i / 2;
        config.adapter = i % 2;
        assert_int_equal(qt_cached_as(env, &config), i / 2 == 1 ? 12 : 0);
    }
    arena_close(&arena);
}

/* Live sequences keep their blocks, and go on; those are zeroed when the last holder lets go, in
 * windowed groups too, and never found. A pin of the tenant ends. */
static void test_drop_waits_for_holders(void **state)
{
    struct arena arena;
    struct qt_env *env = &arena.env;
    struct qt_line line, fork, fresh;
    struct quire_pool_stats stats;
    quire_pin pin;
    uint64_t salts[20], of_fork[20];
    uint32_t tokens[20];
    arena_open(&arena, *state, &qt_unequal, 60);
    qt_tokens(1, tokens, 20);
    struct quire_seq_config config = qt_prefix(tokens, 14);
    config.salt = UINT64_MAX;
    run(&arena, &line, &config, salts);
    qt_line_fork(env, &line, 10, &fork);
    config.num_tokens = 8;
    qt_assert_ok(quire_pool_pin(env->pool, &config, &pin, NULL, NULL));
    qt_assert_ok(quire_pool_drop(env->pool, UINT64_MAX));
    qt_assert_status(quire_pool_unpin(env->pool, pin), QUIRE_E_INVAL);
    qt_stats(env, &stats);
    assert_int_equal(stats.pins, 0);
    assert_int_equal(stats.blocks_pinned, 0);
    assert_int_equal(stats.blocks_cached, 0);
    config.num_tokens = 14;
    assert_int_equal(qt_cached_as(env, &config), 0);
    qt_line_check(env, &line);
    qt_line_check(env, &fork);
    qt_line_feed(env, &line, tokens + 14, 6);
    qt_line_feed(env, &fork, tokens, 5);
    memcpy(salts, line.stream.salts, sizeof salts);
    memcpy(of_fork, fork.stream.salts, sizeof of_fork);
    qt_line_check(env, &line);
    qt_line_check(env, &fork);
    qt_line_close(env, &line);
    assert_true(positions_in_memory(&arena, salts, 0, 10) > 0);
    assert_int_equal(positions_in_memory(&arena, salts, 12, 20), 0);
    qt_line_check(env, &fork);
    qt_line_close(env, &fork);
    assert_int_equal(positions_in_memory(&arena, salts, 0, 20), 0);
    assert_int_equal(positions_in_memory(&arena, of_fork, 0, 15), 0);
    qt_assert_states(env, 60, 0, 0);
    config.num_tokens = 20;
    assert_int_equal(qt_cached_as(env, &config), 0);
    run(&arena, &fresh, &config, salts); /* the tenant may come back */
    qt_line_close(env, &fresh);
    assert_int_equal(qt_cached_as(env, &config), 20);
    arena_close(&arena);
}

/* V-S11: a block that changes tenants is zeroed when it is taken, whether it was cached or given
 * back without a name; vLLM hands the engine a list of blocks to zero. */
static void test_v_s11_a_block_that_changes_tenants_is_zeroed(void **state)
{
    struct arena arena;
    struct qt_env *env = &arena.env;
    struct qt_line line, other;
    uint64_t salts[8], others[8];
    uint32_t tokens[8];
    arena_open(&arena, *state, &qt_plain, 2);
    qt_tokens(1, tokens, 8);
    for (uint32_t named = 0; named < 2; named++) {
        struct quire_seq_config config = qt_prefix(tokens, named == 1 ? 8 : 0);
        config.salt = 7;
        (void)qt_line_run_as(env, &line, &config);
        if (named == 0)
            qt_append(env, &line.stream, 8);
        memcpy(salts, line.stream.salts, sizeof salts);
        qt_line_close(env, &line);
        qt_assert_states(env, named == 1 ? 0 : 2, 0, named == 1 ? 2 : 0);
        assert_int_equal(positions_in_memory(&arena, salts, 0, 8), 8);
        config = qt_prefix(tokens, 1);
        config.salt = 8;
        run(&arena, &other, &config, others);
        assert_int_equal(positions_in_memory(&arena, salts, 0, 8), 4); /* one block was taken */
        assert_int_equal(positions_in_memory(&arena, others, 0, 1), 1);
        qt_line_check(env, &other);
        qt_line_close(env, &other);
        qt_assert_ok(quire_pool_reset(env->pool));
    }
    arena_close(&arena);
}

/* A sequence whose findable tail is shorter than the dropped prefix, and which went on into it:
 * what it computes further stays hidden, and meets no key that others have published since. */
static void test_a_hidden_tail_extends_nothing_findable(void **state)
{
    for (uint32_t others = 0; others < 2; others++) {
        struct qt_env env;
        struct qt_line hidden;
        uint32_t tokens[4];
        qt_share_open(&env, *state, &qt_plain, 4, 8);
        qt_tokens(1, tokens, 4);
        (void)qt_line_run(&env, &hidden, tokens, 1);
        qt_assert_ok(quire_seq_publish(env.pool, hidden.stream.seq));
        qt_line_feed(&env, &hidden, tokens + 1, 1);
        struct quire_seq_config prefix = qt_prefix(tokens, 2);
        qt_assert_ok(quire_pool_drop_prefix(env.pool, &prefix, NULL));
        if (others != 0)
            qt_line_cache(&env, tokens, 4);
        qt_line_feed(&env, &hidden, tokens + 2, 2);
        qt_assert_pool_ok(&env);
        assert_int_equal(qt_cached(&env, tokens, 4) > 1, others != 0);
        qt_line_check(&env, &hidden);
        qt_line_close(&env, &hidden);
        qt_close(&env);
    }
}

/* T2 past the tenants that have a number of their own: two that share one are two still. */
static void test_tenants_without_a_number_are_two(void **state)
{
    struct arena arena;
    struct qt_line line;
    uint64_t salts[8], others[1];
    uint32_t tokens[8];
    arena_open(&arena, *state, &qt_plain, 1);
    struct quire__tenants *tenants = &arena.env.pool->tenants;
    for (uint32_t i = 0; i < QUIRE__TENANTS_MAX; i++) {
        tenants->salts[i] = UINT64_MAX - i;
        tenants->uses[i] = 1;
    }
    tenants->used = QUIRE__TENANTS_MAX;
    qt_tokens(1, tokens, 8);
    struct quire_seq_config config = qt_prefix(tokens, 4);
    config.salt = 1;
    run(&arena, &line, &config, salts);
    assert_int_equal(positions_in_memory(&arena, salts, 0, 4), 4);
    qt_line_close(&arena.env, &line);
    config.num_tokens = 1;
    config.salt = 2;
    assert_int_equal(qt_cached_as(&arena.env, &config), 0);
    run(&arena, &line, &config, others);
    assert_int_equal(positions_in_memory(&arena, salts, 0, 4), 0);
    qt_line_close(&arena.env, &line);
    qt_assert_ok(quire_pool_drop(arena.env.pool, 2));
    assert_int_equal(positions_in_memory(&arena, others, 0, 1), 0);
    memset(tenants->uses, 0, sizeof tenants->uses);
    arena_close(&arena);
}

/* What a tenant left before it had a number of its own is zeroed by a drop as well. */
static void test_a_drop_finds_what_had_no_number(void **state)
{
    struct arena arena;
    struct qt_line line;
    uint64_t salts[8];
    uint32_t tokens[8];
    arena_open(&arena, *state, &qt_plain, 4);
    struct quire__tenants *tenants = &arena.env.pool->tenants;
    memset(tenants->uses, 1, sizeof tenants->uses);
    tenants->used = QUIRE__TENANTS_MAX;
    qt_tokens(1, tokens, 8);
    struct quire_seq_config config = qt_prefix(tokens, 4);
    config.salt = 7;
    run(&arena, &line, &config, salts);
    qt_assert_ok(quire_pool_drop_prefix(arena.env.pool, &config, NULL));
    qt_line_close(&arena.env, &line);
    config.num_tokens = 2;
    run(&arena, &line, &config, salts);
    qt_line_truncate(&arena.env, &line, 0); /* not findable: the block is free, and not zero */
    assert_int_equal(positions_in_memory(&arena, salts, 0, 2), 2);
    memset(tenants->uses, 0, sizeof tenants->uses);
    struct quire_seq_config empty = qt_prefix(NULL, 0);
    struct qt_line other;
    empty.salt = 7;
    (void)qt_line_open(&arena.env, &other, &empty); /* has a number now */
    qt_assert_ok(quire_pool_drop(arena.env.pool, 7));
    assert_int_equal(positions_in_memory(&arena, salts, 0, 2), 0);
    qt_line_close(&arena.env, &other);
    qt_line_close(&arena.env, &line);
    arena_close(&arena);
}

/* A device error may have lost the fill that was to zero a tenant's bytes: after the reset nobody
 * else gets them. */
static quire_status fill_is_lost(struct quire_backend *backend, struct quire_buffer *buffer,
                                 uint64_t offset, uint64_t bytes, uint8_t value)
{
    (void)backend, (void)buffer, (void)offset, (void)bytes, (void)value;
    return QUIRE_E_DEVICE;
}

static quire_status recover_all(struct quire_backend *backend)
{
    (void)backend;
    return QUIRE_OK;
}

static void test_a_lost_fill_shows_nothing(void **state)
{
    struct arena arena;
    struct qt_line line;
    uint64_t salts[8];
    uint32_t tokens[8];
    arena_open(&arena, *state, &qt_plain, 1);
    struct quire_backend *backend = arena.env.backend;
    const struct quire_memory_ops *real = backend->memory;
    struct quire_memory_ops broken = *real;
    qt_tokens(1, tokens, 8);
    struct quire_seq_config config = qt_prefix(tokens, 4);
    config.salt = 1;
    run(&arena, &line, &config, salts);
    qt_line_close(&arena.env, &line);
    broken.fill = fill_is_lost;
    broken.recover = recover_all;
    backend->memory = &broken;
    struct quire_step_item item = {{0}, 1, NULL};
    quire_step step;
    config = qt_prefix(NULL, 0);
    config.salt = 2;
    qt_assert_ok(quire_seq_create(arena.env.pool, &config, &item.seq));
    qt_assert_status(quire_step_begin(arena.env.pool, &item, 1, &step, NULL), QUIRE_E_DEVICE);
    broken.fill = real->fill;
    qt_assert_ok(quire_pool_reset(arena.env.pool));
    qt_assert_ok(quire_seq_create(arena.env.pool, &config, &item.seq));
    qt_assert_ok(quire_step_begin(arena.env.pool, &item, 1, &step, NULL));
    qt_assert_ok(quire_step_commit(arena.env.pool, step, NULL));
    assert_int_equal(positions_in_memory(&arena, salts, 0, 4), 0);
    backend->memory = real;
    arena_close(&arena);
}

/* A number is a salt's as long as something bears it, and free afterwards. */
static void test_numbers_of_tenants_are_used_again(void **state)
{
    struct quire__tenants *tenants = qt_alloc(sizeof *tenants);
    uint32_t number = QUIRE__TENANT_NOBODY;
    (void)state;
    uint32_t first = quire__tenant_acquire(tenants, 7);
    assert_int_equal(quire__tenant_acquire(tenants, 7), first);
    uint32_t second = quire__tenant_acquire(tenants, 8);
    assert_true(first != second && first >= QUIRE__TENANT_FIRST);
    quire__tenant_set(tenants, &number, second);
    quire__tenant_set(tenants, &second, QUIRE__TENANT_NOBODY);
    assert_int_equal(quire__tenant_find(tenants, 8), number);
    quire__tenant_set(tenants, &number, QUIRE__TENANT_NOBODY);
    assert_int_equal(quire__tenant_find(tenants, 8), QUIRE__TENANT_OTHERS);
    for (uint64_t salt = 100; salt < 100 + QUIRE__TENANTS_MAX - 1; salt++)
        assert_true(quire__tenant_acquire(tenants, salt) >= QUIRE__TENANT_FIRST);
    assert_int_equal(quire__tenant_acquire(tenants, 9), QUIRE__TENANT_OTHERS);
    assert_false(quire__tenant_may_follow(QUIRE__TENANT_OTHERS, QUIRE__TENANT_OTHERS));
    assert_true(quire__tenant_may_follow(first, first));
    assert_true(quire__tenant_may_follow(first, QUIRE__TENANT_NOBODY));
    qt_free(tenants);
}

/* What another tenant has cached shows in no figure: a lookup of its tokens looks as one of tokens
 * that nobody has. */
static void test_tenants_cannot_see_each_other(void **state)
{
    struct qt_env env;
    struct quire_pool_stats stats[3];
    uint32_t known[12], unknown[12];
    qt_share_open(&env, *state, &qt_plain, 4, 40);
    qt_tokens(1, known, 12);
    qt_tokens(2, unknown, 12);
    qt_line_cache(&env, known, 12);
    for (uint32_t i = 0; i < 2; i++) {
        struct qt_line line;
        struct quire_seq_stats of_line;
        struct quire_seq_config config = qt_prefix(i == 0 ? known : unknown, 12);
        config.salt = 5;
        qt_stats(&env, &stats[i]);
        assert_int_equal(qt_line_run_as(&env, &line, &config), 0);
        qt_seq_stats(&env, &line, &of_line);
        assert_int_equal(of_line.hit_tokens, 0);
        assert_int_equal(of_line.blocks_shared, 0);
        qt_line_close(&env, &line);
    }
    qt_stats(&env, &stats[2]);
    assert_int_equal(stats[1].hit_tokens - stats[0].hit_tokens, 0);
    assert_int_equal(stats[2].hit_tokens - stats[1].hit_tokens, 0);
    assert_int_equal(stats[2].blocks_stored - stats[1].blocks_stored,
                     stats[1].blocks_stored - stats[0].blocks_stored);
    assert_int_equal(stats[2].blocks_merged - stats[0].blocks_merged, 0);
    assert_int_equal(stats[2].index_nodes - stats[1].index_nodes,
                     stats[1].index_nodes - stats[0].index_nodes);
    qt_close(&env);
}

/* A contiguous sequence lies in a region of its own: that is zeroed at once, or when the sequence
 * ends; and before another tenant's sequence gets it. */
static void test_contiguous_drop(void **state)
{
    struct arena arena;
    struct qt_env *env = &arena.env;
    struct qt_line lines[3], line;
    uint64_t salts[3][12];
    uint32_t tokens[12];
    arena_open(&arena, *state, &qt_plain, 0);
    qt_tokens(1, tokens, 12);
    struct quire_seq_config config = qt_prefix(tokens, 12);
    for (uint32_t i = 0; i < 3; i++) { /* tenants 1, 1, 2 */
        config.salt = 1 + i / 2;
        config.adapter = i; /* so that each has other content */
        run(&arena, &lines[i], &config, salts[i]);
    }
    qt_line_close(env, &lines[0]);
    assert_int_equal(positions_in_memory(&arena, salts[0], 0, 12), 12);
    qt_assert_ok(quire_pool_drop(env->pool, 1));
    assert_int_equal(positions_in_memory(&arena, salts[0], 0, 12), 0);
    assert_int_equal(positions_in_memory(&arena, salts[1], 0, 12), 12);
    qt_line_check(env, &lines[1]);
    qt_line_close(env, &lines[1]);
    assert_int_equal(positions_in_memory(&arena, salts[1], 0, 12), 0);
    assert_int_equal(positions_in_memory(&arena, salts[2], 0, 12), 12);
    qt_line_close(env, &lines[2]);
    assert_int_equal(positions_in_memory(&arena, salts[2], 0, 12), 12);
    config = qt_prefix(NULL, 0);
    config.salt = 3;
    (void)qt_line_open(env, &line, &config); /* the last region given back is the next */
    assert_int_equal(positions_in_memory(&arena, salts[2], 0, 12), 0);
    qt_line_close(env, &line);
    arena_close(&arena);
}

/* A step that is open meanwhile, with blocks that it has copied, can end either way; nothing of it
 * is found, or left in memory. */
static void test_drop_under_an_open_step(void **state)
{
    for (uint32_t way = 0; way < 4; way++) {
        struct arena arena;
        struct qt_env *env = &arena.env;
        struct qt_line line, fork;
        struct qt_batch batch;
        uint64_t of_line[20], of_fork[20];
        uint32_t tokens[20];
        arena_open(&arena, *state, &qt_unequal, 60);
        qt_tokens(1, tokens, 20);
        struct quire_seq_config config = qt_prefix(tokens, 14);
        config.salt = 4;
        run(&arena, &line, &config, of_line);
        qt_line_fork(env, &line, 10, &fork);
        qt_assert_ok(qt_line_begin(env, &fork, tokens + 2, 9, &batch));
        qt_line_write(env, &batch);
        memcpy(of_fork, fork.stream.salts, sizeof of_fork);
        config.num_tokens = 1;
        if (way < 2)
            qt_assert_ok(quire_pool_drop(env->pool, 4));
        else
            qt_assert_ok(quire_pool_drop_prefix(env->pool, &config, NULL));
        qt_line_close(env, &line);
        if (way % 2 == 1)
            qt_assert_ok(qt_batch_commit(env, &batch, NULL));
        else
            qt_assert_ok(qt_batch_abort(env, &batch));
        qt_line_check(env, &fork);
        qt_assert_pool_ok(env);
        qt_line_close(env, &fork);
        /* Blocks of an aborted step were never findable: dropping a prefix is not about them. */
        if (way != 2) {
            assert_int_equal(positions_in_memory(&arena, of_line, 0, 14), 0);
            assert_int_equal(positions_in_memory(&arena, of_fork, 0, 19), 0);
        }
        assert_int_equal(qt_cached_as(env, &config), 0);
        qt_assert_states(env, 60, 0, 0);
        arena_close(&arena);
    }
}

/* ---- by prefix ---- */

/* Two prompts share ten tokens; one of them is dropped from some token on. What begins with the
 * prefix goes, in memory too; what it shares with the other stays. */
static void test_drop_prefix(void **state)
{
    /* Blocks end at 4, 8, 12, ..: those with the whole prefix in them go. From 9 tokens on the
     * other prompt's third block still has the two that it shares. */
    static const uint32_t left_of_a[] = {0,  0,  0,  0,  0,  4,  4,  4,  4,  8, 8,
                                         10, 10, 12, 12, 12, 12, 16, 16, 16, 16};
    for (uint32_t count = 1; count <= 20; count++) {
        struct arena arena;
        struct qt_env *env = &arena.env;
        struct qt_line line;
        struct quire_pool_stats before, after;
        uint64_t of_a[20], of_b[20], dropped = 77;
        uint32_t a[20], b[20];
        arena_open(&arena, *state, &qt_plain, 40);
        qt_tokens(1, a, 20);
        qt_tokens(2, b, 20);
        memcpy(b, a, 10 * sizeof *b);
        struct quire_seq_config all = qt_prefix(a, 20), of_other = qt_prefix(b, 20);
        run(&arena, &line, &all, of_a);
        qt_line_close(env, &line);
        run(&arena, &line, &of_other, of_b);
        qt_line_close(env, &line);
        qt_stats(env, &before);
        struct quire_seq_config config = qt_prefix(a, count);
        qt_assert_ok(quire_pool_drop_prefix(env->pool, &config, &dropped));
        qt_stats(env, &after);
        assert_int_equal(after.blocks_dropped - before.blocks_dropped, dropped);
        assert_int_equal(before.blocks_cached - after.blocks_cached, dropped);
        /* Five blocks of a, and three of b behind the two that they share. */
        uint32_t gone = 5 - (count - 1) / 4;
        assert_int_equal(dropped, count <= 8 || (count <= 10 && count > 8) ? gone + 3 : gone);
        if (count > 10)
            assert_int_equal(qt_cached(env, b, 20), 20);
        assert_int_equal(qt_cached(env, a, 20), left_of_a[count]);
        uint32_t kept = (count - 1) / 4 * 4;
        assert_int_equal(positions_in_memory(&arena, of_a, kept > 10 ? kept : 10, 20), 0);
        assert_int_equal(positions_in_memory(&arena, of_a, 0, kept), kept);
        qt_assert_pool_ok(env);
        arena_close(&arena);
    }
}

/* No tokens: everything of a salt under one adapter. */
static void test_drop_prefix_of_nothing(void **state)
{
    struct qt_env env;
    struct qt_line line;
    uint32_t tokens[9];
    uint64_t dropped = 0;
    qt_share_open(&env, *state, &qt_plain, 4, 40);
    qt_tokens(1, tokens, 9);
    struct quire_seq_config config = qt_prefix(tokens, 9);
    for (uint32_t i = 0; i < 4; i++) {
        config.salt = i / 2;
        config.adapter = i % 2;
        (void)qt_line_run_as(&env, &line, &config);
        qt_line_close(&env, &line);
    }
    struct quire_seq_config none = qt_prefix(NULL, 0);
    none.adapter = 1;
    qt_assert_ok(quire_pool_drop_prefix(env.pool, &none, &dropped));
    assert_int_equal(dropped, 3);
    for (uint32_t i = 0; i < 4; i++) {
        config.salt = i / 2;
        config.adapter = i % 2;
        assert_int_equal(qt_cached_as(&env, &config), i == 1 ? 0 : 9);
    }
    qt_assert_ok(quire_pool_drop_prefix(env.pool, &none, &dropped));
    assert_int_equal(dropped, 0);
    qt_close(&env);
}

/* Live sequences with the prefix keep it and go on, unfound; sequences that started with less of it
 * do not bring it back; pins of it end, pins of what stays do not. */
static void test_drop_prefix_under_live_sequences(void **state)
{
    struct arena arena;
    struct qt_env *env = &arena.env;
    struct qt_line line, shorter;
    quire_pin longer, first_block;
    uint64_t salts[24];
    uint32_t tokens[24];
    arena_open(&arena, *state, &qt_plain, 40);
    qt_tokens(1, tokens, 24);
    struct quire_seq_config config = qt_prefix(tokens, 16);
    run(&arena, &line, &config, salts);
    qt_assert_ok(quire_pool_pin(env->pool, &config, &longer, NULL, NULL));
    config.num_tokens = 4;
    qt_assert_ok(quire_pool_pin(env->pool, &config, &first_block, NULL, NULL));
    config.num_tokens = 7;
    (void)qt_line_run_as(env, &shorter, &config); /* stands inside the block that goes */
    config.num_tokens = 6;
    qt_assert_ok(quire_pool_drop_prefix(env->pool, &config, NULL));
    qt_assert_status(quire_pool_unpin(env->pool, longer), QUIRE_E_INVAL);
    assert_int_equal(qt_cached(env, tokens, 24), 4);
    qt_line_feed(env, &line, tokens + 16, 8);
    qt_line_feed(env, &shorter, tokens + 7, 6);
    assert_int_equal(qt_cached(env, tokens, 24), 4);
    memcpy(salts, line.stream.salts, sizeof salts);
    qt_line_check(env, &line);
    qt_line_check(env, &shorter);
    qt_line_close(env, &line);
    qt_line_close(env, &shorter);
    assert_int_equal(qt_cached(env, tokens, 24), 4);
    assert_int_equal(positions_in_memory(&arena, salts, 4, 24), 0);
    assert_int_equal(positions_in_memory(&arena, salts, 0, 4), 4);
    qt_assert_ok(quire_pool_unpin(env->pool, first_block));
    qt_line_cache(env, tokens, 24); /* and it may come back */
    assert_int_equal(qt_cached(env, tokens, 24), 24);
    arena_close(&arena);
}

/* ---- reset ---- */

/* Reset ends sequences and pins, and forgets every block; the pool is as new. */
static void test_reset_forgets(void **state)
{
    struct qt_env env;
    struct qt_line line;
    struct quire_event events[64];
    quire_pin pin;
    uint32_t tokens[10], len;
    qt_share_open(&env, *state, &qt_unequal, 4, 60);
    qt_tokens(1, tokens, 10);
    struct quire_seq_config config = qt_prefix(tokens, 10);
    for (uint32_t round = 0; round < 3; round++) {
        qt_line_cache(&env, tokens, 10);
        qt_assert_ok(quire_pool_pin(env.pool, &config, &pin, NULL, NULL));
        assert_int_equal(qt_line_run(&env, &line, tokens, 10), 9);
        (void)qt_drain(&env, events, 64);
        qt_assert_ok(quire_pool_reset(env.pool));
        qt_assert_states(&env, 60, 0, 0);
        assert_int_equal(qt_cached(&env, tokens, 10), 0);
        qt_assert_status(quire_seq_length(env.pool, line.stream.seq, &len), QUIRE_E_INVAL);
        qt_assert_status(quire_pool_unpin(env.pool, pin), QUIRE_E_INVAL);
        uint32_t count = qt_drain(&env, events, 64);
        assert_true(qt_count(events, count, QUIRE_EVENT_DROPPED) >= 9);
        qt_line_free(&line);
    }
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_drop_zeroes_a_tenant, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_drop_waits_for_holders, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_v_s11_a_block_that_changes_tenants_is_zeroed, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_a_hidden_tail_extends_nothing_findable, QT_SHARE),
        QT_TEST(test_tenants_without_a_number_are_two, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_numbers_of_tenants_are_used_again, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_a_drop_finds_what_had_no_number, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_a_lost_fill_shows_nothing, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_tenants_cannot_see_each_other, QT_SHARE),
        QT_TEST(test_contiguous_drop, QT_ON_CPU | QT_CONTIGUOUS),
        QT_TEST(test_drop_under_an_open_step, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_drop_prefix, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_drop_prefix_of_nothing, QT_SHARE),
        QT_TEST(test_drop_prefix_under_live_sequences, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_reset_forgets, QT_SHARE),
    };
    return qt_run("drop", tests, QT_LEN(tests));
}
