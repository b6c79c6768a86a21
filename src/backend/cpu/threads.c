/* threads.c - a small pool of threads that share the units of one job at a time.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: the worker threads.
 * Guarded by: `turn` (who may open a job, and writes of fn, job, num_units, which workers read
 * while they are inside the gate), `sleep` (the condition).
 *
 * The word `gate` is epoch << 32 | open << 31 | workers inside. A caller sets the job, then opens
 * the gate with a new epoch. A worker that sees a new epoch enters by adding 1 to a gate that is
 * still open, takes units until none is left, and leaves by subtracting 1. The caller takes units
 * too, closes the gate, and waits until nobody is inside: a worker that woke too late finds the
 * gate closed, so the caller never waits for a sleeper.
 *
 * Invariants:
 * T1 nobody is inside a closed gate once _run has returned, so the job's fields may change.
 * T2 a worker enters each epoch at most once. */
#include "backend/cpu/threads.h"

#include "backend/cpu/float_mode.h"

#include "base/base.h"

#include <pthread.h>
#include <signal.h>
#include <sched.h>
#include <stdatomic.h>

#define OPEN      ((uint64_t)1 << 31)
#define INSIDE(g) ((uint32_t)((g) & (OPEN - 1)))
#define EPOCH(g)  ((uint32_t)((g) >> 32))

enum {
    SPIN_NS = 30000, /* longer than the gap between two matrices of a layer, shorter than a nap */
    SPIN_BATCH = 64, /* pauses between two looks at the clock */
};

struct worker {
    struct quire__threads *pool;
    pthread_t thread;
    uint32_t index;
};

struct quire__threads {
    _Alignas(64) _Atomic uint64_t gate;
    _Alignas(64) _Atomic uint32_t next; /* the next unit to be taken */
    _Alignas(64) quire__unit_fn *fn;
    void *job;
    uint32_t num_units;
    _Atomic uint32_t sleepers;
    _Atomic bool stop;
    pthread_mutex_t turn;
    pthread_mutex_t sleep;
    pthread_cond_t wake;
    uint32_t num_threads;
    uint32_t num_started;
    struct worker workers[];
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_units(struct quire__threads *t, uint32_t thread)
{
    uint64_t mode = quire__float_mode_enter();
    for (;;) {
        uint32_t unit = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);
        if (unit >= t->num_units)
            break;
        t->fn(t->job, unit, thread);
    }
    quire__float_mode_leave(mode);
}

/* Waits for an epoch other than `seen`, or for stop: spins for a while, then sleeps. */
static uint64_t await_epoch(struct quire__threads *t, uint32_t seen)
{
    uint64_t gate = atomic_load(&t->gate);
    uint64_t start = quire__now_ns();
    while (EPOCH(gate) == seen && quire__now_ns() - start < SPIN_NS) {
        for (int i = 0; i < SPIN_BATCH && EPOCH(gate) == seen; i++) {
            pause_cpu();
            gate = atomic_load(&t->gate);
        }
    }
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
    struct worker *self = argument;
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
            take_units(t, self->index);
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

void quire__threads_run(struct quire__threads *t, quire__unit_fn *fn, void *job, uint32_t num_units)
{
    if (num_units == 0)
        return;
    quire__threads_lock(t);
    t->fn = fn;
    t->job = job;
    t->num_units = num_units;
    atomic_store_explicit(&t->next, 0, memory_order_relaxed);
    bool shared = num_units > 1 && t->num_started > 0;
    if (shared) {
        uint64_t gate = atomic_load(&t->gate);
        QUIRE_CHECK((gate & OPEN) == 0 && INSIDE(gate) == 0);
        uint32_t epoch = EPOCH(gate) + 1;
        atomic_store(&t->gate, (uint64_t)epoch << 32 | OPEN);
        if (atomic_load(&t->sleepers) != 0)
            wake_all(t);
    }
    take_units(t, 0);
    if (shared) {
        uint64_t gate = atomic_fetch_and(&t->gate, ~OPEN);
        for (uint32_t i = 1; INSIDE(gate) != 0; i++) {
            pause_cpu();
            if (i % 4096 == 0)
                (void)sched_yield();
            gate = atomic_load(&t->gate);
        }
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

void quire__threads_lock(struct quire__threads *t)
{
    (void)pthread_mutex_lock(&t->turn);
}

void quire__threads_unlock(struct quire__threads *t)
{
    (void)pthread_mutex_unlock(&t->turn);
}

uint32_t quire__threads_count(const struct quire__threads *t)
{
    return t->num_threads;
}

void quire__threads_destroy(struct quire__threads *t)
{
    if (t == NULL)
        return;
    atomic_store(&t->stop, true);
    wake_all(t);
    for (uint32_t i = 0; i < t->num_started; i++)
        (void)pthread_join(t->workers[i].thread, NULL);
    (void)pthread_cond_destroy(&t->wake);
    (void)pthread_mutex_destroy(&t->sleep);
    (void)pthread_mutex_destroy(&t->turn);
    quire__free(t);
}

/* Workers take no signals: one that a worker handles does not wake the caller's own wait. */
static bool start_workers(struct quire__threads *t)
{
    sigset_t all, before;
    bool started = true;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 0; i + 1 < t->num_threads && started; i++) {
        t->workers[i] = (struct worker){.pool = t, .index = i + 1};
        started = pthread_create(&t->workers[i].thread, NULL, worker_main, &t->workers[i]) == 0;
        t->num_started += started;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

quire_status quire__threads_create(uint32_t num_threads, struct quire__threads **out)
{
    size_t bytes = sizeof(struct quire__threads) + (num_threads - 1) * sizeof(struct worker);
    struct quire__threads *t = quire__alloc_aligned(64, bytes);
    if (t == NULL)
        return QUIRE_E_NOMEM;
    *t = (struct quire__threads){.num_threads = num_threads};
    atomic_init(&t->gate, 0);
    (void)pthread_mutex_init(&t->turn, NULL);
    (void)pthread_mutex_init(&t->sleep, NULL);
    (void)pthread_cond_init(&t->wake, NULL);
    if (!start_workers(t)) {
        quire__threads_destroy(t);
        return QUIRE_E_NOMEM;
    }
    *out = t;
    return QUIRE_OK;
}
