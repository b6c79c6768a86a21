/* test_threads.c - the pool of threads: every unit once, turns, help, sleepers, refused threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"

#include "backend/cpu/threads.h"

#include "support.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum {
    UNITS = 1000,
    THREADS_MAX = 8,
    CALLERS = 4,
    ROUNDS = 20,
    NAP_US = 2000, /* longer than a worker spins */
};

/* Failed assertions jump, which only the test's own thread may do; jobs count instead. */
struct tally {
    _Atomic uint32_t done[UNITS];
    _Atomic uint32_t busy[THREADS_MAX]; /* by thread: two units at once on one would show */
    _Atomic uint32_t errors;
    uint64_t seed; /* not 0: some units take a while */
};

static void tally_unit(void *job, uint32_t unit, uint32_t thread)
{
    struct tally *tally = job;
    if (thread >= THREADS_MAX || unit >= UNITS) {
        atomic_fetch_add(&tally->errors, 1);
        return;
    }
    atomic_fetch_add(&tally->errors, atomic_fetch_add(&tally->busy[thread], 1));
    uint64_t delay = tally->seed != 0 ? qt_mix(tally->seed + unit) % 128 : 128;
    if (delay == 0)
        (void)usleep(50);
    else if (delay == 1) /* on a busy machine each takes a time slice of somebody */
        (void)sched_yield();
    atomic_fetch_add(&tally->done[unit], 1);
    atomic_fetch_sub(&tally->busy[thread], 1);
}

/* Runs one job; how many units were not done exactly once, and whatever else went wrong. */
static uint32_t run_tally(struct quire__threads *threads, uint32_t units, uint64_t seed)
{
    struct tally *tally = qt_alloc(sizeof *tally);
    tally->seed = seed;
    quire__threads_run(threads, tally_unit, tally, units);
    uint32_t errors = atomic_load(&tally->errors);
    for (uint32_t u = 0; u < UNITS; u++)
        errors += atomic_load(&tally->done[u]) != (u < units);
    qt_free(tally);
    return errors;
}

static struct quire__threads *make(uint32_t num_threads)
{
    struct quire__threads *threads = NULL;
    assert_int_equal(quire__threads_create(num_threads, false, &threads), QUIRE_OK);
    assert_int_equal(quire__threads_count(threads), num_threads);
    return threads;
}

static void every_unit_runs_once_whatever_the_timing(void **state)
{
    (void)state;
    static const uint32_t units[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, UNITS - 1, UNITS};
    for (uint32_t n = 1; n <= THREADS_MAX; n++) {
        struct quire__threads *threads = make(n);
        for (size_t i = 0; i < QT_LEN(units); i++) {
            for (uint64_t seed = 0; seed < 4; seed++)
                assert_int_equal(run_tally(threads, units[i], seed), 0);
        }
        quire__threads_destroy(threads);
    }
}

struct caller {
    struct quire__threads *threads;
    uint32_t errors;
    _Atomic uint32_t *locked; /* how many hold the turn */
};

static void *call(void *argument)
{
    struct caller *caller = argument;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        caller->errors += run_tally(caller->threads, i % 3 == 0 ? 1 : UNITS, i % 5);
        quire__threads_lock(caller->threads);
        caller->errors += atomic_fetch_add(caller->locked, 1);
        (void)sched_yield();
        (void)atomic_fetch_sub(caller->locked, 1);
        quire__threads_unlock(caller->threads);
        if (i % 16 == 0)
            (void)usleep(NAP_US);
    }
    return NULL;
}

static void callers_take_turns(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 5; n += 2) {
        struct caller callers[CALLERS];
        pthread_t ids[CALLERS];
        _Atomic uint32_t locked = 0;
        struct quire__threads *threads = make(n);
        for (uint32_t i = 0; i < CALLERS; i++) {
            callers[i] = (struct caller){threads, 0, &locked};
            assert_int_equal(pthread_create(&ids[i], NULL, call, &callers[i]), 0);
        }
        for (uint32_t i = 0; i < CALLERS; i++) {
            assert_int_equal(pthread_join(ids[i], NULL), 0);
            assert_int_equal(callers[i].errors, 0);
        }
        quire__threads_destroy(threads);
    }
}

/* ---- who does what ---- */

/* Two units that wait for each other need two threads. */
static void meet(void *job, uint32_t unit, uint32_t thread)
{
    _Atomic uint32_t *arrived = job;
    (void)unit;
    (void)thread;
    (void)atomic_fetch_add(arrived, 1);
    while (atomic_load(arrived) < 2)
        (void)sched_yield();
}

static void sleepers_wake(void **state)
{
    (void)state;
    struct quire__threads *threads = make(2);
    for (uint32_t i = 0; i < 20; i++) {
        _Atomic uint32_t arrived = 0;
        (void)usleep(i % 2 == 0 ? NAP_US : 0);
        quire__threads_run(threads, meet, &arrived, 2);
        assert_int_equal(atomic_load(&arrived), 2);
    }
    quire__threads_destroy(threads);
}

/* The first unit of the slow thread's share lasts until all others are done. */
struct stuck {
    uint32_t unit, num_units;
    _Atomic uint32_t done;
};

static void get_stuck(void *job, uint32_t unit, uint32_t thread)
{
    struct stuck *stuck = job;
    (void)thread;
    while (unit == stuck->unit && atomic_load(&stuck->done) < stuck->num_units - 1)
        (void)sched_yield();
    (void)atomic_fetch_add(&stuck->done, 1);
}

static void a_stuck_thread_is_helped(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 4; n++) {
        struct quire__threads *threads = make(n);
        for (uint32_t slow = 0; slow < n; slow++) {
            struct stuck stuck = {.unit = slow * 16, .num_units = 16 * n};
            quire__threads_run(threads, get_stuck, &stuck, stuck.num_units);
            assert_int_equal(atomic_load(&stuck.done), 16 * n);
        }
        quire__threads_destroy(threads);
    }
}

/* Two units a thread, and each waits until all threads do one: nobody has time to help. */
struct owners {
    uint32_t num_threads;
    _Atomic uint32_t begun[2];
    uint32_t thread[2 * THREADS_MAX];
};

static void own(void *job, uint32_t unit, uint32_t thread)
{
    struct owners *o = job;
    o->thread[unit] = thread;
    (void)atomic_fetch_add(&o->begun[unit % 2], 1);
    while (atomic_load(&o->begun[unit % 2]) < o->num_threads)
        (void)sched_yield();
}

static void a_share_is_a_run_of_units(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= THREADS_MAX; n++) {
        struct quire__threads *threads = make(n);
        struct owners o = {.num_threads = n};
        quire__threads_run(threads, own, &o, 2 * n);
        for (uint32_t i = 0; i < 2 * n; i++)
            assert_int_equal(o.thread[i], i / 2);
        quire__threads_destroy(threads);
    }
}

static void jobs_run_here_in_order(void **state)
{
    (void)state;
    struct tally *tally = qt_alloc(sizeof *tally);
    quire__threads_run_here(tally_unit, tally, 5);
    assert_int_equal(atomic_load(&tally->errors), 0);
    for (uint32_t u = 0; u < 6; u++)
        assert_int_equal(atomic_load(&tally->done[u]), u < 5);
    qt_free(tally);
}

/* ---- life ---- */

static void pools_end_while_idle_or_asleep(void **state)
{
    (void)state;
    quire__threads_destroy(NULL);
    for (uint32_t i = 0; i < 40; i++) {
        struct quire__threads *threads = make(1 + i % 4);
        if (i % 3 != 0)
            assert_int_equal(run_tally(threads, 10, 0), 0);
        if (i % 5 == 0)
            (void)usleep(NAP_US);
        quire__threads_destroy(threads);
    }
}

static void refused_threads_are_nomem(void **state)
{
    (void)state;
    for (int64_t n = 0; n <= 4; n++) { /* the pool's memory, then three threads */
        struct quire__threads *threads = NULL;
        quire__alloc_fail_after(n, false);
        quire_status status = quire__threads_create(4, n % 2 == 0, &threads);
        quire__alloc_fail_after(-1, false);
        assert_int_equal(status, n < 4 ? QUIRE_E_NOMEM : QUIRE_OK);
        assert_true((threads != NULL) == (n == 4));
        quire__threads_destroy(threads);
    }
}

/* Every thread notes its mask, and waits until all have. */
struct places {
    cpu_set_t sets[3];
    _Atomic uint32_t arrived;
};

static void note_place(void *job, uint32_t unit, uint32_t thread)
{
    struct places *places = job;
    (void)unit;
    (void)sched_getaffinity(0, sizeof places->sets[thread], &places->sets[thread]);
    (void)atomic_fetch_add(&places->arrived, 1);
    while (atomic_load(&places->arrived) < QT_LEN(places->sets))
        (void)sched_yield();
}

static void pinned_threads_stay(void **state)
{
    (void)state;
    struct places places = {0};
    const cpu_set_t *sets = places.sets;
    cpu_set_t before, after;
    struct quire__threads *threads = NULL;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(quire__threads_create(3, true, &threads), QUIRE_OK);
    quire__threads_run(threads, note_place, &places, 3);
    quire__threads_destroy(threads);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after)); /* the caller's thread is left alone */
    assert_true(CPU_EQUAL(&before, &sets[0]));
    for (uint32_t i = 1; i < 3; i++) {
        cpu_set_t both;
        CPU_AND(&both, &before, &sets[i]);
        assert_int_equal(CPU_COUNT(&sets[i]), 1);
        assert_int_equal(CPU_COUNT(&both), 1);
    }
    if (CPU_COUNT(&before) >= 2) /* counted from the second: 1, 2 of two are different ones */
        assert_false(CPU_EQUAL(&sets[1], &sets[2]));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_unit_runs_once_whatever_the_timing),
        cmocka_unit_test(callers_take_turns),
        cmocka_unit_test(sleepers_wake),
        cmocka_unit_test(a_stuck_thread_is_helped),
        cmocka_unit_test(a_share_is_a_run_of_units),
        cmocka_unit_test(jobs_run_here_in_order),
        cmocka_unit_test(pools_end_while_idle_or_asleep),
        cmocka_unit_test(refused_threads_are_nomem),
        cmocka_unit_test(pinned_threads_stay),
    };
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
