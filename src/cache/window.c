/* window.c - what windows still need of a sequence, and what they let go.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The token at position t sees t - W + 1 .. t, and the sinks. A sequence of length `len` will next
 * be asked for the window of position `len`, or, after a rollback, of an earlier one.
 *
 * Guarded by: the pool's mutex. Invariants: W1, S1 of DESIGN.md. */
#include "cache/prefix.h"

uint32_t quire__window_first(const struct quire_pool *pool, uint32_t table, uint32_t len)
{
    uint32_t window = pool->layout.tables[table].window;
    if (window == 0 || (uint64_t)len + 1 <= window)
        return 0;
    return (len + 1 - window) / pool->layout.block_size;
}

static bool is_there(const struct quire_pool *pool, const struct quire__seq *seq, uint32_t num_path,
                     uint32_t table, uint32_t i)
{
    if (seq != NULL && i < seq->num_blocks &&
        quire__window_needs(pool, table, quire__seq_first(pool, seq)[table], i))
        return true;
    return i < num_path &&
           quire__index_blocks(&pool->index, pool->path[i])[table] != QUIRE_BLOCK_NONE;
}

/* The longest position, at most `len`, that one look at one table allows. */
static uint32_t cut(const struct quire_pool *pool, const struct quire__seq *seq, uint32_t num_path,
                    uint32_t table, uint32_t len)
{
    uint32_t end = quire__layout_blocks(&pool->layout, len);
    uint32_t first = quire__window_first(pool, table, len);
    uint32_t sinks = pool->layout.tables[table].sink_blocks;
    for (uint32_t i = 0; i < sinks && i < first; i++) {
        if (!is_there(pool, seq, num_path, table, i))
            return i * pool->layout.block_size;
    }
    /* A block that is not there is in the window of every position up to the window's length
     * behind it: nothing between it and `len` works. */
    for (uint32_t i = end; i-- > first;) {
        if (!is_there(pool, seq, num_path, table, i))
            return i * pool->layout.block_size;
    }
    return len;
}

uint32_t quire__window_longest(const struct quire_pool *pool, const struct quire__seq *seq,
                               uint32_t num_path, uint32_t len)
{
    uint32_t before;
    do {
        before = len;
        for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
            if (pool->layout.tables[t].window != 0)
                len = cut(pool, seq, num_path, t, len);
        }
    } while (len != before);
    return len;
}

void quire__window_release(struct quire_pool *pool, struct quire__seq *seq)
{
    if (!pool->layout.has_windows)
        return;
    uint32_t back = seq->len > pool->rollback_max ? seq->len - pool->rollback_max : 0;
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        uint32_t *first = &quire__seq_first(pool, seq)[t];
        uint32_t until = quire__window_first(pool, t, back);
        uint32_t sinks = pool->layout.tables[t].sink_blocks;
        uint32_t *entries = quire__seq_entries(pool, seq, t);
        for (uint32_t i = *first > sinks ? *first : sinks; i < until; i++) {
            QUIRE_CHECK(quire__block_release(pool, entries[i], seq->wipe) == QUIRE_OK);
            entries[i] = QUIRE_BLOCK_NONE;
            quire__seq_mark_dirty(seq, i);
            pool->figures.released++;
        }
        if (until > *first)
            *first = until;
    }
}
