/* alloc.c - the heap and address space of the library, with a seam that makes them fail.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Allocations left before the injected fault; negative: no fault. */
static _Atomic int64_t fault_countdown = -1;
static _Atomic bool fault_forever;

void quire__alloc_fail_after(int64_t n, bool forever)
{
    atomic_store(&fault_forever, forever);
    atomic_store(&fault_countdown, n);
}

bool quire__fault_due(void)
{
    int64_t left = atomic_load_explicit(&fault_countdown, memory_order_relaxed);
    if (left < 0)
        return false;
    if (left == 0) {
        if (!atomic_load(&fault_forever))
            atomic_store(&fault_countdown, -1);
        return true;
    }
    atomic_store(&fault_countdown, left - 1);
    return false;
}

void *quire__alloc(size_t bytes)
{
    return quire__fault_due() ? NULL : malloc(bytes != 0 ? bytes : 1);
}

void *quire__calloc(size_t count, size_t item_bytes)
{
    return quire__fault_due() ? NULL
                              : calloc(count != 0 ? count : 1, item_bytes != 0 ? item_bytes : 1);
}

void *quire__realloc(void *memory, size_t bytes)
{
    return quire__fault_due() ? NULL : realloc(memory, bytes != 0 ? bytes : 1);
}

void *quire__alloc_aligned(size_t alignment, size_t bytes)
{
    void *memory = NULL;
    if (bytes >= QUIRE__HUGE_PAGE_BYTES && alignment < QUIRE__HUGE_PAGE_BYTES)
        alignment = QUIRE__HUGE_PAGE_BYTES;
    if (quire__fault_due() || posix_memalign(&memory, alignment, bytes != 0 ? bytes : 1) != 0)
        return NULL;
    quire__prefer_huge(memory, bytes);
    return memory;
}

void quire__free(void *memory)
{
    free(memory);
}

char *quire__strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = quire__alloc(bytes);
    if (copy != NULL)
        memcpy(copy, text, bytes);
    return copy;
}

uint64_t quire__os_page_bytes(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

static void *map_zeroed(uint64_t bytes)
{
    void *memory = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory != MAP_FAILED ? memory : NULL;
}

/* Maps more than is asked for, and cuts off what lies before and after whole huge pages. */
static void *map_aligned(uint64_t bytes)
{
    bytes = quire__round_up(bytes, quire__os_page_bytes());
    uint8_t *memory = map_zeroed(bytes + QUIRE__HUGE_PAGE_BYTES);
    if (memory == NULL)
        return NULL;
    uint64_t head = quire__round_up((uintptr_t)memory, QUIRE__HUGE_PAGE_BYTES) - (uintptr_t)memory;
    if (head != 0)
        (void)munmap(memory, (size_t)head);
    if (head != QUIRE__HUGE_PAGE_BYTES)
        (void)munmap(memory + head + bytes, (size_t)(QUIRE__HUGE_PAGE_BYTES - head));
    return memory + head;
}

void *quire__reserve(uint64_t bytes)
{
    if (quire__fault_due() || bytes == 0 || bytes > SIZE_MAX / 2)
        return NULL;
    return bytes < QUIRE__HUGE_PAGE_BYTES ? map_zeroed(bytes) : map_aligned(bytes);
}

void quire__keep_sparse(void *memory, uint64_t bytes)
{
    /* A system without huge pages refuses, and needs nothing. */
    (void)madvise(memory, (size_t)bytes, MADV_NOHUGEPAGE);
}

void quire__prefer_huge(void *memory, uint64_t bytes)
{
    uint64_t first = quire__round_up((uintptr_t)memory, QUIRE__HUGE_PAGE_BYTES);
    uint64_t end = ((uintptr_t)memory + bytes) / QUIRE__HUGE_PAGE_BYTES * QUIRE__HUGE_PAGE_BYTES;
    if (first < end) /* refused where there are none */
        (void)madvise((void *)(uintptr_t)first, (size_t)(end - first), MADV_HUGEPAGE);
}

void quire__unreserve(void *memory, uint64_t bytes)
{
    if (memory != NULL)
        (void)munmap(memory, (size_t)bytes);
}

void quire__discard(void *memory, uint64_t bytes)
{
    uint64_t page = quire__os_page_bytes();
    uint64_t first = quire__round_up((uint64_t)(uintptr_t)memory, page);
    uint64_t end = ((uint64_t)(uintptr_t)memory + bytes) / page * page;
    if (first < end)
        (void)madvise((void *)(uintptr_t)first, (size_t)(end - first), MADV_DONTNEED);
}
