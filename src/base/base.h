/* base.h - what every other folder stands on: errors, allocation, the operating system, time.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Nothing else in the library calls malloc, mmap, getenv or a clock, so that tests can replace them
 * here. src/base knows nothing of caches, devices or models. */
#ifndef QUIRE_BASE_H
#define QUIRE_BASE_H

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quire/status.h>

#define QUIRE_ARRAY_LEN(a)      (sizeof(a) / sizeof((a)[0]))
#define QUIRE_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Asserts that stay on in release builds: cheap, and a failure means the library is broken. */
#define QUIRE_CHECK(condition)                                                                     \
    ((condition) ? (void)0 : quire__check_failed(#condition, __FILE__, __LINE__))
_Noreturn void quire__check_failed(const char *condition, const char *file, int line);

/* ---- errors ---- */

/* Fills *error (when not NULL) and returns status, so that a failing function can end with
 * `return quire__fail(error, QUIRE_E_CORRUPT, "...", ...)`. */
quire_status quire__fail(struct quire_error *error, quire_status status, const char *format, ...)
    QUIRE_PRINTF(3, 4);
/* The same, for a failed system call: os_code becomes errno, and its text ends the message. */
quire_status quire__fail_os(struct quire_error *error, quire_status status, int os_code,
                            const char *format, ...) QUIRE_PRINTF(4, 5);

/* ---- checked arithmetic: false on overflow ---- */

static inline bool quire__mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool quire__add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}
static inline uint64_t quire__ceil_div(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}
static inline uint64_t quire__round_up(uint64_t a, uint64_t multiple)
{
    return quire__ceil_div(a, multiple) * multiple;
}

/* ---- heap: the only malloc of the library ---- */

void *quire__alloc(size_t bytes);                     /* uninitialised; NULL when refused */
void *quire__calloc(size_t count, size_t item_bytes); /* zeroed; NULL on overflow or refusal */
void *quire__realloc(void *memory, size_t bytes);     /* NULL when refused, memory kept */
/* Free with quire__free. From 2 MiB on, for memory that is used whole: on huge pages if there are
 * any. */
void *quire__alloc_aligned(size_t alignment, size_t bytes);
void quire__free(void *memory); /* NULL is fine */
char *quire__strdup(const char *text);

/* Test seam: the n-th allocation from now on fails (0: the next one), and every one after it when
 * `forever`; n < 0 turns the fault off. Counts every function above, quire__reserve and
 * quire__thread_start. Not thread-safe. */
void quire__alloc_fail_after(int64_t n, bool forever);
/* Counts one call; true when it is to fail. */
bool quire__fault_due(void);

/* ---- address space ---- */

/* The huge pages of x86-64, and of arm64 with pages of 4 KiB. Where they are larger, advice about
 * ranges of this size changes nothing. */
#define QUIRE__HUGE_PAGE_BYTES ((uint64_t)2 << 20)

/* Zeroed memory of which only touched pages cost anything; from 2 MiB on it begins at a multiple of
 * that. NULL when refused. */
void *quire__reserve(uint64_t bytes);
/* Asks for huge pages: touching a byte may cost 2 MiB. For memory that fills up from some end. */
void quire__prefer_huge(void *memory, uint64_t bytes);
/* Keeps the system from backing a reservation with huge pages, for memory that is used sparsely. */
void quire__keep_sparse(void *memory, uint64_t bytes);
void quire__unreserve(void *memory, uint64_t bytes);
/* Gives back the whole OS pages inside [memory, memory + bytes); they read as zero again. */
void quire__discard(void *memory, uint64_t bytes);
uint64_t quire__os_page_bytes(void);

/* ---- files ---- */

struct quire__file_map {
    const uint8_t *data; /* NULL when size is 0 */
    uint64_t size;
};
/* Maps a whole regular file read-only; IO, or INVAL for what is not a regular file. */
quire_status quire__file_map(const char *path, struct quire__file_map *map,
                             struct quire_error *error);
void quire__file_unmap(struct quire__file_map *map);
/* Gives back the memory of the whole OS pages inside a part of a mapped file, and before it down to
 * where its huge page begins, as a fault may have brought those along. Whoever reads them again
 * waits for the file. */
void quire__file_forget(const struct quire__file_map *map, uint64_t offset, uint64_t bytes);

/* ---- the machine ---- */

uint64_t quire__now_ns(void); /* monotonic */
const char *quire__getenv(const char *name);
uint64_t quire__memory_available(
    void); /* bytes that can still be used without swapping; 0: unknown */

/* ---- processors and threads ---- */

/* Processors that the process may keep busy: its affinity mask, less what the quotas of its control
 * groups take. At least 1. */
uint32_t quire__cpu_count(void);
/* The tightest quota of the process's control groups, version 1 or 2, in processors rounded up; 0:
 * none. root comes before the paths /proc/self/..., for tests; "" is the machine. */
uint32_t quire__cgroup_cpu_limit(const char *root);
/* Starts a thread that takes no signals; false when refused. */
bool quire__thread_start(pthread_t *thread, void *(*run)(void *), void *argument);
/* Keeps a thread on the index-th processor of the caller's affinity mask, counted around. */
void quire__thread_pin(pthread_t thread, uint32_t index);

#endif
