/* heap.h - a heap of 64-bit keys, the smallest first: the merges that wait, of bpe.c and spm.c.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A key is rank << 32 | place, so that of the best merges the leftmost comes first. Whoever pushes
 * has made room. */
#ifndef QUIRE_MODEL_HEAP_H
#define QUIRE_MODEL_HEAP_H

#include <stdint.h>

struct quire__heap {
    uint64_t *keys;
    uint64_t count;
    uint64_t steps; /* work done so far: levels that were touched */
};

static inline void quire__heap_sink(struct quire__heap *heap, uint64_t at)
{
    uint64_t *keys = heap->keys, count = heap->count, key = keys[at];
    for (;;) {
        uint64_t child = 2 * at + 1;
        heap->steps++;
        if (child + 1 < count && keys[child + 1] < keys[child])
            child++;
        if (child >= count || keys[child] >= key)
            break;
        keys[at] = keys[child];
        at = child;
    }
    keys[at] = key;
}

/* Orders keys that were written to the array in any order. */
static inline void quire__heap_build(struct quire__heap *heap)
{
    for (uint64_t i = heap->count / 2; i-- > 0;)
        quire__heap_sink(heap, i);
}

static inline void quire__heap_push(struct quire__heap *heap, uint64_t key)
{
    uint64_t *keys = heap->keys, at = heap->count++;
    while (at > 0 && keys[(at - 1) / 2] > key) {
        keys[at] = keys[(at - 1) / 2];
        at = (at - 1) / 2;
        heap->steps++;
    }
    keys[at] = key;
    heap->steps++;
}

/* count >= 1. */
static inline uint64_t quire__heap_pop(struct quire__heap *heap)
{
    uint64_t key = heap->keys[0];
    heap->keys[0] = heap->keys[--heap->count];
    quire__heap_sink(heap, 0);
    return key;
}

#endif
