/* threads.c - a small pool of threads that share the units of one job at a time.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: the worker threads.
 * Guarded by: `turn` (who may open a job, and writes of fn, job and the shares, which workers use
 * while they are inside the gate), `sleep` (the two conditions).
 *
 * The word `gate` is epoch << 32 | open << 31 | workers inside. A caller sets the job, then opens
 * the gate with a new epoch. A worker that sees a new epoch enters by adding 1 to a gate that is
 * still open, takes units until none is left, and leaves by subtracting 1. The caller takes units
 * too, closes the gate, and waits until nobody is inside: a worker that woke too late finds the
 * gate closed, so the caller never waits for a sleeper.
 *
 * Every thread has a share of the job, a run of units that follows from their number alone, so that
 * it reads again what it touched first. It takes them from the front; whose share is empty takes
 * units of others from the back, so a job does not wait for a thread that is off its processor.
 *
 * Invariants:
 * T1 nobody is inside a closed gate once _run has returned, so the job's fields may change.
 * T2 a worker enters each epoch at most once.
 * T3 a unit leaves its share once, by one atomic step on the share's word; shares only shrink while
 *    the gate is open. */
#include "backend/cpu/threads.h"

#include "backend/cpu/float_mode.h"

#include "base/base.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define OPEN      ((uint64_t)1 << 31)
#define INSIDE(g) ((uint32_t)((g) & (OPEN - 1)))
#define EPOCH(g)  ((uint32_t)((g) >> 32))

/* A share: units next .. end, as next << 32 | end. */
#define SHARE(next, end) ((uint64_t)(next) << 32 | (end))
#define NEXT(s)          ((uint32_t)((s) >> 32))
#define END(s)           ((uint32_t)(s))

/* States of `turn`. */
enum { TURN_FREE, TURN_TAKEN, TURN_AWAITED };

enum {
    LINES = 128,      /* processors fetch lines of 64 bytes in pairs */
    SPIN_NS = 10000,  /* longer than the gap between most jobs of a layer */
    AWAKE_NS = 60000, /* longer than other gaps of a step, shorter than a nap */
    SPIN_BATCH = 64,  /* pauses between two looks at the clock */
};

/* What belongs to one thread: 0 is whoever calls _run. */
struct member {
    _Alignas(LINES) _Atomic uint64_t share;
    struct quire__threads *pool;
    pthread_t thread;
    uint32_t index;
};

struct quire__threads {
    _Alignas(LINES) _Atomic uint64_t gate;
    _Alignas(LINES) _Atomic uint32_t turn;
    _Atomic uint32_t sleepers;
    _Atomic bool stop;
    quire__unit_fn *fn;
    void *job;
    uint32_t num_threads;
    uint32_t num_started; /* workers */
    pthread_mutex_t sleep;
    pthread_cond_t wake, turn_free;
    struct member members[]; /* [num_threads] */
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- units ---- */

static void share_out(struct quire__threads *t, uint32_t num_units)
{
    for (uint64_t i = 0; i < t->num_threads; i++) {
        uint64_t first = i * num_units / t->num_threads;
        uint64_t end = (i + 1) * num_units / t->num_threads;
        atomic_store_explicit(&t->members[i].share, SHARE(first, end), memory_order_relaxed);
    }
}

/* Takes the first unit of the thread's own share. */
static bool take_own(struct member *self, uint32_t *unit)
{
    uint64_t share = atomic_load_explicit(&self->share, memory_order_relaxed);
    if (NEXT(share) >= END(share))
        return false;
    share = atomic_fetch_add_explicit(&self->share, SHARE(1, 0), memory_order_relaxed);
    *unit = NEXT(share);
    return NEXT(share) < END(share); /* a helper may have been faster */
}

static struct member *slowest(struct quire__threads *t, uint64_t *share)
{
    struct member *slow = NULL;
    int64_t most = 0;
    for (uint32_t i = 0; i < t->num_threads; i++) {
        uint64_t s = atomic_load_explicit(&t->members[i].share, memory_order_relaxed);
        int64_t left = (int64_t)END(s) - NEXT(s);
        if (left > most) {
            most = left;
            slow = &t->members[i];
            *share = s;
        }
    }
    return slow;
}

/* Takes the last unit of the share that has most left. */
static bool take_others(struct quire__threads *t, uint32_t *unit)
{
    uint64_t share = 0;
    for (;;) {
        struct member *slow = slowest(t, &share);
        if (slow == NULL)
            return false;
        *unit = END(share) - 1;
        if (atomic_compare_exchange_strong_explicit(&slow->share, &share, share - SHARE(0, 1),
                                                    memory_order_relaxed, memory_order_relaxed))
            return true;
    }
}

static void do_units(struct quire__threads *t, struct member *self)
{
    uint64_t mode = quire__float_mode_enter();
    uint32_t unit;
    while (take_own(self, &unit) || take_others(t, &unit))
        t->fn(t->job, unit, self->index);
    quire__float_mode_leave(mode);
}

/* ---- workers ---- */

/* Looks for an epoch other than `seen` for a while, and soon offers its processor to others after
 * each look: where there are more threads than processors, the one that works is among them. */
static uint64_t spin(struct quire__threads *t, uint32_t seen)
{
    uint64_t gate = atomic_load(&t->gate), start = quire__now_ns(), waited = 0;
    while (EPOCH(gate) == seen && waited < AWAKE_NS) {
        for (int i = 0; i < SPIN_BATCH && EPOCH(gate) == seen; i++) {
            pause_cpu();
            gate = atomic_load(&t->gate);
        }
        if (EPOCH(gate) == seen && waited > SPIN_NS)
            (void)sched_yield();
        waited = quire__now_ns() - start;
    }
    return gate;
}

/* Waits for an epoch other than `seen`, or for stop. */
static uint64_t await_epoch(struct quire__threads *t, uint32_t seen)
{
    uint64_t gate = spin(t, seen);
    if (EPOCH(gate) != seen)
        return gate;
    (void)pthread_mutex_lock(&t->sleep);
    atomic_fetch_add(&t->sleepers, 1);
    /* Sequentially consistent: either this load sees the new epoch, or its caller sees a sleeper.
     */
    gate = atomic_load(&t->gate);
    while (EPOCH(gate) == seen && !atomic_load(&t->stop)) {
        (void)pthread_cond_wait(&t->wake, &t->sleep);
        gate = atomic_load(&t->gate);
    }
    atomic_fetch_sub(&t->sleepers, 1);
    (void)pthread_mutex_unlock(&t->sleep);
    return gate;
}

static void *worker_main(void *argument)
{
    struct member *self = argument;
    struct quire__threads *t = self->pool;
    uint32_t seen = 0;
    while (!atomic_load(&t->stop)) {
        uint64_t gate = await_epoch(t, seen);
        if (EPOCH(gate) == seen)
            continue;
        seen = EPOCH(gate);
        bool inside = false;
        while ((gate & OPEN) != 0 && EPOCH(gate) == seen && !inside)
            inside = atomic_compare_exchange_weak(&t->gate, &gate, gate + 1);
        if (inside) {
            do_units(t, self);
            atomic_fetch_sub(&t->gate, 1);
        }
    }
    return NULL;
}

static void wake_all(struct quire__threads *t)
{
    (void)pthread_mutex_lock(&t->sleep);
    (void)pthread_cond_broadcast(&t->wake);
    (void)pthread_mutex_unlock(&t->sleep);
}

/* ---- callers ---- */

/* Every sleeper has set TURN_AWAITED under `sleep`, so whoever takes that away signals one. */
void quire__threads_lock(struct quire__threads *t)
{
    uint32_t turn = TURN_FREE;
    if (atomic_compare_exchange_strong(&t->turn, &turn, TURN_TAKEN))
        return;
    (void)pthread_mutex_lock(&t->sleep);
    while (atomic_exchange(&t->turn, TURN_AWAITED) != TURN_FREE)
        (void)pthread_cond_wait(&t->turn_free, &t->sleep);
    (void)pthread_mutex_unlock(&t->sleep);
}

void quire__threads_unlock(struct quire__threads *t)
{
    if (atomic_exchange(&t->turn, TURN_FREE) != TURN_AWAITED)
        return;
    (void)pthread_mutex_lock(&t->sleep);
    (void)pthread_cond_signal(&t->turn_free);
    (void)pthread_mutex_unlock(&t->sleep);
}

static void run_shared(struct quire__threads *t, uint32_t num_units)
{
    uint64_t gate = atomic_load(&t->gate);
    QUIRE_CHECK((gate & OPEN) == 0 && INSIDE(gate) == 0);
    share_out(t, num_units);
    uint32_t epoch = EPOCH(gate) + 1;
    atomic_store(&t->gate, (uint64_t)epoch << 32 | OPEN);
    if (atomic_load(&t->sleepers) != 0)
        wake_all(t);
    do_units(t, &t->members[0]);
    gate = atomic_fetch_and(&t->gate, ~OPEN);
    for (uint32_t i = 1; INSIDE(gate) != 0; i++) {
        pause_cpu();
        if (i % SPIN_BATCH == 0)
            (void)sched_yield();
        gate = atomic_load(&t->gate);
    }
}

void quire__threads_run(struct quire__threads *t, quire__unit_fn *fn, void *job, uint32_t num_units)
{
    if (num_units == 0)
        return;
    quire__threads_lock(t);
    if (num_units == 1 || t->num_started == 0) {
        quire__threads_run_here(fn, job, num_units);
    } else {
        t->fn = fn;
        t->job = job;
        run_shared(t, num_units);
    }
    quire__threads_unlock(t);
}

void quire__threads_run_here(quire__unit_fn *fn, void *job, uint32_t num_units)
{
    uint64_t mode = quire__float_mode_enter();
    for (uint32_t i = 0; i < num_units; i++)
        fn(job, i, 0);
    quire__float_mode_leave(mode);
}

uint32_t quire__threads_count(const struct quire__threads *t)
{
    return t->num_threads;
}

/* ---- the pool's life ---- */

void quire__threads_destroy(struct quire__threads *t)
{
    if (t == NULL)
        return;
    atomic_store(&t->stop, true);
    wake_all(t);
    for (uint32_t i = 1; i <= t->num_started; i++)
        (void)pthread_join(t->members[i].thread, NULL);
    (void)pthread_cond_destroy(&t->turn_free);
    (void)pthread_cond_destroy(&t->wake);
    (void)pthread_mutex_destroy(&t->sleep);
    quire__free(t);
}

quire_status quire__threads_create(uint32_t num_threads, bool pin, struct quire__threads **out)
{
    size_t bytes = sizeof(struct quire__threads) + num_threads * sizeof(struct member);
    struct quire__threads *t = quire__alloc_aligned(LINES, bytes);
    if (t == NULL)
        return QUIRE_E_NOMEM;
    *t = (struct quire__threads){.num_threads = num_threads};
    (void)pthread_mutex_init(&t->sleep, NULL);
    (void)pthread_cond_init(&t->wake, NULL);
    (void)pthread_cond_init(&t->turn_free, NULL);
    bool started = true;
    for (uint32_t i = 0; i < num_threads; i++)
        t->members[i] = (struct member){.pool = t, .index = i};
    for (uint32_t i = 1; i < num_threads && started; i++) {
        started = quire__thread_start(&t->members[i].thread, worker_main, &t->members[i]);
        t->num_started += started;
        if (started && pin)
            quire__thread_pin(t->members[i].thread, i);
    }
    if (!started) {
        quire__threads_destroy(t);
        return QUIRE_E_NOMEM;
    }
    *out = t;
    return QUIRE_OK;
}
