/* threads.h - a small pool of threads that share the units of one job at a time.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_THREADS_H
#define QUIRE_BACKEND_CPU_THREADS_H

#include <stdbool.h>
#include <stdint.h>

#include <quire/status.h>

struct quire__threads;

/* Does one unit of a job; thread is 0 .. num_threads - 1 and nobody else has it meanwhile. */
typedef void quire__unit_fn(void *job, uint32_t unit, uint32_t thread);

/* Starts num_threads - 1 threads, each kept on a processor of its own with `pin`; the caller of
 * _run is the last one, and stays where it is. NOMEM when refused. */
quire_status quire__threads_create(uint32_t num_threads, bool pin, struct quire__threads **out);
/* Joins them. NULL is fine; no job may be open. */
void quire__threads_destroy(struct quire__threads *threads);
uint32_t quire__threads_count(const struct quire__threads *threads);

/* Does units 0 .. num_units of a job, each once, and returns when all are done. Jobs of several
 * callers take turns. Thread i does units i * num_units / num_threads and on, in order, unless
 * another that is done with its own helps it: a unit must not depend on who does it, nor on another
 * unit of the job. */
void quire__threads_run(struct quire__threads *threads, quire__unit_fn *fn, void *job,
                        uint32_t num_units);

/* Elements of a job that is done before another thread would have woken. */
enum { QUIRE__INLINE_ELEMENTS = 1 << 14 };

/* Does the units on the caller's thread, in order, without waiting for other jobs. */
void quire__threads_run_here(quire__unit_fn *fn, void *job, uint32_t num_units);

/* Keeps jobs out, so that what they use can be changed. */
void quire__threads_lock(struct quire__threads *threads);
void quire__threads_unlock(struct quire__threads *threads);

#endif
