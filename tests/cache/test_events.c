/* test_events.c - the ring of events: what it says, in which order, and what it loses.
 * SPDX-License-Identifier: Apache-2.0 */
#include "share_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static void open_ring(struct qt_env *env, const struct qt_variant *variant, uint32_t num_blocks,
                      uint32_t capacity)
{
    struct quire_pool_config config;
    qt_share_config(&config, variant, &qt_plain, 4, num_blocks);
    config.event_capacity = capacity;
    qt_open_config(env, variant, &qt_plain, &config);
}

static void test_pools_without_a_ring_have_no_events(void **state)
{
    struct qt_env env;
    struct quire_event event;
    uint32_t tokens[8], count = 77;
    uint64_t lost = 77;
    open_ring(&env, *state, 8, 0);
    qt_tokens(1, tokens, 8);
    qt_line_cache(&env, tokens, 8);
    qt_assert_status(quire_pool_events(env.pool, &event, 1, &count, &lost), QUIRE_E_UNSUPPORTED);
    assert_int_equal(count, 77);
    assert_int_equal(lost, 77);
    qt_close(&env);
}

static void test_events_refuse(void **state)
{
    struct qt_env env;
    struct quire_event event;
    uint32_t tokens[8], count = 77;
    open_ring(&env, *state, 8, 16);
    qt_tokens(1, tokens, 8);
    qt_line_cache(&env, tokens, 8);
    qt_assert_status(quire_pool_events(NULL, &event, 1, &count, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_events(env.pool, NULL, 1, &count, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_pool_events(env.pool, &event, 1, NULL, NULL), QUIRE_E_INVAL);
    assert_int_equal(count, 77);
    qt_assert_ok(quire_pool_events(env.pool, NULL, 0, &count, NULL));
    assert_int_equal(count, 0);
    qt_assert_ok(quire_pool_events(env.pool, &event, 1, &count, NULL)); /* nothing was taken yet */
    assert_int_equal(count, 1);
    assert_int_equal(event.number, 0);
    qt_close(&env);
}

/* One of each kind, in the order that it happened, with what the kind says. */
static void test_each_kind(void **state)
{
    struct qt_env env;
    struct qt_line line, fork;
    struct quire_event e[16];
    uint32_t tokens[9], other[8];
    open_ring(&env, *state, 6, 64);
    qt_tokens(1, tokens, 9);
    qt_tokens(2, other, 8);
    (void)qt_line_run(&env, &line, tokens, 7); /* 0: stored */
    qt_line_fork(&env, &line, 6, &fork);       /* 1: shared */
    qt_line_feed(&env, &fork, other, 1);       /* 2: copied */
    qt_line_close(&env, &fork);                /* 3: stored, the partial block */
    qt_line_close(&env, &line);                /* 4: stored */
    struct quire_seq_config config = qt_prefix(tokens, 9);
    assert_int_equal(qt_line_open(&env, &line, &config), 7); /* 5: shared */
    qt_line_close(&env, &line);
    qt_evict(&env, 1); /* 6: evicted, the fork's */
    config.num_tokens = 5;
    qt_assert_ok(quire_pool_drop_prefix(env.pool, &config, NULL)); /* 7: dropped */
    assert_int_equal(qt_drain(&env, e, 16), 8);
    static const uint32_t kinds[] = {QUIRE_EVENT_STORED,  QUIRE_EVENT_SHARED, QUIRE_EVENT_COPIED,
                                     QUIRE_EVENT_STORED,  QUIRE_EVENT_STORED, QUIRE_EVENT_SHARED,
                                     QUIRE_EVENT_EVICTED, QUIRE_EVENT_DROPPED};
    static const uint32_t counts[] = {4, 6, 2, 3, 3, 7, 3, 3};
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(e[i].number, i);
        assert_int_equal(e[i].kind, kinds[i]);
        assert_int_equal(e[i].group, 0);
        assert_int_equal(e[i].num_tokens, counts[i]);
    }
    uint32_t first = e[0].block, of_line = e[1].block, of_fork = e[2].block;
    assert_int_equal(e[0].parent, QUIRE_BLOCK_NONE);
    assert_int_equal(e[2].parent, of_line);
    assert_int_equal(e[3].block, of_fork);
    assert_int_equal(e[3].parent, first);
    assert_int_equal(e[4].block, of_line);
    assert_int_equal(e[4].parent, first);
    assert_int_equal(e[5].block, of_line);
    assert_int_equal(e[6].block, of_fork);
    assert_int_equal(e[7].block, of_line);
    assert_true(first != of_line && of_line != of_fork && first != of_fork);
    qt_close(&env);
}

/* A full ring refuses events and counts them; numbers go on, so that the gap shows. */
static void test_lost_events_are_counted(void **state)
{
    struct qt_env env;
    struct quire_event events[64];
    uint32_t tokens[160], count = 0;
    uint64_t lost = 77;
    open_ring(&env, *state, 60, 16);
    qt_tokens(1, tokens, 160);
    qt_line_cache(&env, tokens, 160); /* 40 stored */
    qt_assert_ok(quire_pool_events(env.pool, events, 10, &count, &lost));
    assert_int_equal(count, 10);
    assert_int_equal(lost, 24);
    qt_assert_ok(quire_pool_events(env.pool, events + 10, 54, &count, &lost));
    assert_int_equal(count, 6);
    for (uint32_t i = 0; i < 16; i++)
        assert_int_equal(events[i].number, i);
    tokens[0]++;
    qt_line_cache(&env, tokens, 12); /* 3 more */
    qt_assert_ok(quire_pool_events(env.pool, events, 64, &count, &lost));
    assert_int_equal(count, 3);
    assert_int_equal(lost, 24);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(events[i].number, 40 + i);
    struct quire_pool_stats stats;
    qt_stats(&env, &stats);
    assert_int_equal(stats.events_lost, 24);
    qt_close(&env);
}

/* ---- events against figures ---- */

enum { RANDOM_BLOCKS = 40 };

struct tally {
    uint64_t kinds[5];
    uint64_t next;
    bool stored[RANDOM_BLOCKS];
};

static void count_events(struct qt_env *env, struct tally *tally)
{
    struct quire_event events[512];
    uint32_t count = qt_drain(env, events, 512);
    for (uint32_t i = 0; i < count; i++) {
        const struct quire_event *event = &events[i];
        assert_int_equal(event->number, tally->next++);
        assert_in_range(event->kind, QUIRE_EVENT_STORED, QUIRE_EVENT_DROPPED);
        assert_in_range(event->block, 0, RANDOM_BLOCKS - 1);
        tally->kinds[event->kind]++;
        if (event->kind == QUIRE_EVENT_STORED)
            tally->stored[event->block] = true;
        else if (event->kind == QUIRE_EVENT_EVICTED || event->kind == QUIRE_EVENT_DROPPED) {
            assert_true(tally->stored[event->block]); /* and not twice */
            tally->stored[event->block] = false;
        }
    }
}

static void random_use(struct qt_env *env, struct qt_random *random)
{
    struct qt_line line;
    struct quire_pool_stats stats;
    uint32_t tokens[40], count = 1 + qt_below(random, 39);
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = i < 6 ? qt_below(random, 2) : 7;
    struct quire_seq_config config = qt_prefix(tokens, count);
    config.salt = qt_below(random, 2);
    if (qt_chance(random, 10)) {
        qt_assert_ok(quire_pool_drop_prefix(env->pool, &config, NULL));
    } else if (qt_chance(random, 5)) {
        qt_assert_ok(quire_pool_drop(env->pool, config.salt));
    } else if (qt_chance(random, 4)) {
        qt_assert_ok(quire_pool_reset(env->pool));
    } else {
        (void)qt_line_run_as(env, &line, &config);
        qt_line_close(env, &line);
        qt_stats(env, &stats);
        if (stats.blocks_cached > 3 && qt_chance(random, 30))
            qt_evict(env, 1 + qt_below(random, 3));
    }
}

/* The events add up to the figures of the pool; what they leave stored is what is cached; and a
 * block has one content at a time. */
static void test_events_are_the_figures(void **state)
{
    struct qt_env env;
    struct qt_random random = {11};
    struct quire_pool_stats stats;
    struct tally tally = {{0}, 0, {false}};
    open_ring(&env, *state, RANDOM_BLOCKS, 512);
    for (uint32_t round = 0; round < 600; round++) {
        random_use(&env, &random);
        count_events(&env, &tally);
        qt_stats(&env, &stats);
        uint64_t stored = 0;
        for (uint32_t b = 0; b < RANDOM_BLOCKS; b++)
            stored += tally.stored[b];
        assert_int_equal(stored, stats.blocks_cached); /* no sequence is alive */
        assert_int_equal(tally.kinds[QUIRE_EVENT_STORED], stats.blocks_stored);
        assert_int_equal(tally.kinds[QUIRE_EVENT_EVICTED], stats.blocks_evicted);
        assert_int_equal(tally.kinds[QUIRE_EVENT_COPIED], stats.blocks_copied);
        assert_int_equal(tally.kinds[QUIRE_EVENT_DROPPED], stats.blocks_dropped);
    }
    for (uint32_t kind = 0; kind < 5; kind++)
        assert_true(tally.kinds[kind] > 20);
    qt_close(&env);
}

/* ---- a thread that drains ---- */

struct drainer {
    struct quire_pool *pool;
    atomic_bool done;
    uint64_t taken, last, lost;
    uint32_t errors;
    pthread_t thread;
};

static void *drain(void *argument)
{
    struct drainer *drainer = argument;
    bool last_round = false;
    while (!last_round) {
        struct quire_event events[7];
        uint32_t count = 0;
        last_round = atomic_load(&drainer->done);
        do {
            drainer->errors +=
                quire_pool_events(drainer->pool, events, 7, &count, &drainer->lost) != QUIRE_OK;
            for (uint32_t i = 0; i < count; i++) {
                drainer->errors += drainer->taken > 0 && events[i].number <= drainer->last;
                drainer->errors += events[i].kind > QUIRE_EVENT_DROPPED ||
                                   events[i].num_tokens == 0 || events[i].num_tokens > 40;
                drainer->last = events[i].number;
                drainer->taken++;
            }
        } while (count > 0);
    }
    return NULL;
}

/* Beside a worker the drainer sees numbers rise, and at the end what it took and what was lost are
 * all events, whether the ring is small or not. */
static void test_a_thread_drains_beside_the_others(void **state)
{
    static const uint32_t capacities[] = {2, 4096};
    for (uint32_t c = 0; c < QT_LEN(capacities); c++) {
        struct qt_env env;
        struct qt_random random = {13};
        struct quire_pool_stats stats;
        struct drainer drainer = {0};
        uint64_t shared = 0;
        open_ring(&env, *state, RANDOM_BLOCKS, capacities[c]);
        drainer.pool = env.pool;
        assert_int_equal(pthread_create(&drainer.thread, NULL, drain, &drainer), 0);
        for (uint32_t round = 0; round < 300; round++) {
            struct quire_pool_stats before, after;
            qt_stats(&env, &before);
            random_use(&env, &random);
            qt_stats(&env, &after);
            shared += after.hit_tokens > before.hit_tokens; /* one lookup at most a round */
        }
        atomic_store(&drainer.done, true);
        (void)pthread_join(drainer.thread, NULL);
        qt_stats(&env, &stats);
        assert_int_equal(drainer.errors, 0);
        assert_int_equal(drainer.taken + drainer.lost, stats.blocks_stored + stats.blocks_evicted +
                                                           stats.blocks_copied +
                                                           stats.blocks_dropped + shared);
        assert_int_equal(drainer.lost, stats.events_lost);
        qt_close(&env);
    }
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_pools_without_a_ring_have_no_events, QT_SHARE),
        QT_TEST(test_events_refuse, QT_SHARE),
        QT_TEST(test_each_kind, QT_SHARE),
        QT_TEST(test_lost_events_are_counted, QT_SHARE),
        QT_TEST(test_events_are_the_figures, QT_SHARE),
        QT_TEST(test_a_thread_drains_beside_the_others, QT_SHARE),
    };
    return qt_run("events", tests, QT_LEN(tests));
}
