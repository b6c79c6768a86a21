/* prefix.c - tokens to blocks: roots, lookup, adoption, and where a sequence stands in the index.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by: the pool's mutex. Invariants: X1, X2, X3 of DESIGN.md. */
#include "cache/prefix.h"

#include <string.h>

/* ---- roots ---- */

static void root_words(uint64_t salt, uint64_t adapter, uint32_t words[QUIRE__ROOT_WORDS])
{
    words[0] = (uint32_t)salt;
    words[1] = (uint32_t)(salt >> 32);
    words[2] = (uint32_t)adapter;
    words[3] = (uint32_t)(adapter >> 32);
}

uint32_t quire__prefix_root(struct quire_pool *pool, uint64_t salt, uint64_t adapter)
{
    uint32_t words[QUIRE__ROOT_WORDS];
    root_words(salt, adapter, words);
    struct quire__match match =
        quire__index_match(&pool->index, QUIRE__NODE_NONE, words, QUIRE__ROOT_WORDS);
    return match.common == QUIRE__ROOT_WORDS ? match.node : QUIRE__NODE_NONE;
}

uint32_t quire__prefix_make_root(struct quire_pool *pool, uint64_t salt, uint64_t adapter)
{
    uint32_t words[QUIRE__ROOT_WORDS];
    root_words(salt, adapter, words);
    uint32_t root = quire__prefix_root(pool, salt, adapter);
    if (root == QUIRE__NODE_NONE)
        root = quire__index_insert(&pool->index, QUIRE__NODE_NONE, words, QUIRE__ROOT_WORDS, false);
    QUIRE_CHECK(root != QUIRE__NODE_NONE); /* there are as many as can be stood on */
    return root;
}

/* ---- lookup ---- */

quire_status quire__prefix_check(const struct quire_pool *pool,
                                 const struct quire_seq_config *config)
{
    if (config->struct_size != sizeof *config || (config->tokens == NULL && config->num_tokens > 0))
        return QUIRE_E_INVAL;
    if (config->num_tokens > pool->layout.max_seq_len)
        return QUIRE_E_LIMIT;
    return quire__pool_has_tokens(pool, config->tokens, config->num_tokens) ? QUIRE_OK
                                                                            : QUIRE_E_INVAL;
}

bool quire__prefix_is_whole(const struct quire_pool *pool, uint32_t node)
{
    const uint32_t *blocks = quire__index_blocks(&pool->index, node);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        if (pool->layout.tables[t].window == 0 && blocks[t] == QUIRE_BLOCK_NONE)
            return false;
    }
    return true;
}

/* Whether a hit may end in, or pass, a node that shares `common` tokens: a full block is passed,
 * and its windows are looked at later; a partial one ends the hit, whose windows all reach into it.
 */
static bool is_usable(const struct quire_pool *pool, struct quire__match match, bool passes)
{
    const uint32_t *blocks = quire__index_blocks(&pool->index, match.node);
    if (passes && match.common == pool->layout.block_size)
        return quire__prefix_is_whole(pool, match.node);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        if (blocks[t] == QUIRE_BLOCK_NONE)
            return false;
    }
    return true;
}

/* The usable child that shares the most tokens with a key. Mostly it is the best match. Where that
 * has lost a block, the partial node of just the shared tokens is tried, and then the neighbours on
 * both sides, a few of them: so many prefixes may part here that a look at all is out of bounds. */
static struct quire__match match_usable(struct quire_pool *pool, uint32_t parent,
                                        const uint32_t *tokens, uint32_t count, bool passes)
{
    enum { NEIGHBOURS_MAX = 16 };
    struct quire__match best = quire__index_match(&pool->index, parent, tokens, count);
    if (best.common == 0 || is_usable(pool, best, passes))
        return best;
    struct quire__match found = {QUIRE__NODE_NONE, 0}, same = best;
    same.node = quire__index_find(&pool->index, parent, tokens, best.common);
    if (same.node != QUIRE__NODE_NONE && is_usable(pool, same, passes))
        return same;
    for (int side = 0; side < 2; side++) {
        struct quire__match next = best;
        for (int i = 0; i < NEIGHBOURS_MAX && next.common > found.common; i++) {
            if (is_usable(pool, next, passes))
                found = next;
            next = quire__index_beside(&pool->index, next.node, side != 0, tokens, count);
        }
    }
    return found;
}

/* Ends a walk of num_path nodes and `len` positions where all windows are whole. That is the end of
 * a block, if it is not `len`; a sibling of the next one may still share tokens, and have windows.
 */
static uint32_t end_in_windows(struct quire_pool *pool, const struct quire_seq_config *config,
                               uint32_t num_path, uint32_t len)
{
    uint32_t size = pool->layout.block_size;
    uint32_t ends = quire__window_longest(pool, NULL, num_path, len), i = ends / size;
    if (ends == len)
        return len;
    uint32_t parent = pool->index.nodes[pool->path[i]].parent;
    struct quire__match match = match_usable(pool, parent, config->tokens + ends,
                                             len - ends < size ? len - ends : size, false);
    if (match.common == 0)
        return ends;
    pool->path[i] = match.node;
    uint32_t longer = quire__window_longest(pool, NULL, i + 1, ends + match.common);
    return longer > ends ? longer : ends;
}

uint32_t quire__prefix_find(struct quire_pool *pool, const struct quire_seq_config *config,
                            uint32_t limit)
{
    if (pool->layout.contiguous || limit == 0)
        return 0;
    uint32_t node = quire__prefix_root(pool, config->salt, config->adapter);
    uint32_t size = pool->layout.block_size, len = 0, num_path = 0;
    while (node != QUIRE__NODE_NONE && len < limit) {
        uint32_t left = limit - len;
        struct quire__match match =
            match_usable(pool, node, config->tokens + len, left < size ? left : size, true);
        if (match.common == 0)
            break;
        pool->path[num_path++] = match.node;
        len += match.common;
        node = match.common == size ? match.node : QUIRE__NODE_NONE;
    }
    return pool->layout.has_windows ? end_in_windows(pool, config, num_path, len) : len;
}

void quire__prefix_note(struct quire_pool *pool, uint32_t asked, uint32_t found)
{
    if (asked == 0)
        return;
    pool->figures.lookups++;
    pool->figures.lookup_tokens += asked;
    pool->figures.hit_tokens += found;
    struct quire__recent *r = &pool->recent;
    uint32_t *slot = r->ring[r->next];
    if (r->count == r->capacity) {
        r->tokens -= slot[0];
        r->hit_tokens -= slot[1];
    } else {
        r->count++;
    }
    slot[0] = asked;
    slot[1] = found;
    r->tokens += asked;
    r->hit_tokens += found;
    r->next = (r->next + 1) % r->capacity;
}

/* ---- where a sequence stands ---- */

void quire__prefix_stand(struct quire_pool *pool, struct quire__seq *seq, uint32_t node)
{
    uint32_t before = seq->cursor;
    pool->index.nodes[node].cursors++;
    seq->cursor = node;
    if (before != QUIRE__NODE_NONE) {
        pool->index.nodes[before].cursors--;
        quire__node_prune(pool, before);
    }
}

void quire__prefix_path(struct quire_pool *pool, const struct quire__seq *seq, uint32_t from)
{
    uint32_t node = seq->cursor;
    for (uint32_t i = seq->num_published; i-- > from;) {
        pool->path[i] = node;
        node = pool->index.nodes[node].parent;
    }
}

void quire__prefix_rewind(struct quire_pool *pool, struct quire__seq *seq, uint32_t len)
{
    uint32_t size = pool->layout.block_size;
    uint32_t known = seq->num_published * size + seq->tail_count;
    uint32_t full = len / size;
    if (full < seq->num_published) {
        uint32_t node = seq->cursor, last = node;
        for (uint32_t i = seq->num_published; i > full; i--) {
            last = node;
            node = pool->index.nodes[node].parent;
        }
        memcpy(quire__seq_tail(pool, seq), quire__index_key(&pool->index, last),
               (len - full * size) * sizeof(uint32_t));
        seq->num_published = full;
        seq->hidden = pool->index.nodes[last].detached; /* the tail was dropped with its block */
        quire__prefix_stand(pool, seq, node);
    }
    if (known >= len) {
        seq->tail_count = len - seq->num_published * size;
        seq->has_tokens = true;
        seq->hidden = seq->hidden && seq->tail_count > 0;
    }
}

void quire__prefix_adopt(struct quire_pool *pool, struct quire__seq *seq, const uint32_t *tokens,
                         uint32_t len)
{
    uint32_t size = pool->layout.block_size, full = len / size;
    uint32_t num_blocks = quire__layout_blocks(&pool->layout, len);
    QUIRE_CHECK(seq->len == 0 && seq->num_blocks == 0);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        uint32_t *entries = quire__seq_entries(pool, seq, t);
        uint32_t first = quire__window_first(pool, t, len);
        quire__seq_first(pool, seq)[t] = first;
        for (uint32_t i = 0; i < num_blocks; i++) {
            entries[i] = QUIRE_BLOCK_NONE;
            if (quire__window_needs(pool, t, first, i)) {
                entries[i] = quire__index_blocks(&pool->index, pool->path[i])[t];
                quire__block_acquire(pool, entries[i]);
            }
        }
    }
    for (uint32_t i = 0; i < num_blocks; i++) {
        struct quire__node *node = &pool->index.nodes[pool->path[i]];
        if (node->hits < QUIRE__HITS_MAX)
            node->hits++;
    }
    seq->len = len;
    seq->hit_tokens = len;
    seq->num_blocks = num_blocks;
    seq->num_published = full;
    seq->tail_count = len - full * size;
    memcpy(quire__seq_tail(pool, seq), tokens + full * size, seq->tail_count * sizeof *tokens);
    seq->dirty_from = 0;
    if (len > 0)
        quire__prefix_stand(
            pool, seq, full > 0 ? pool->path[full - 1] : pool->index.nodes[pool->path[0]].parent);
    if (len > 0)
        quire__events_put(pool, (struct quire_event){
                                    .kind = QUIRE_EVENT_SHARED,
                                    .block = quire__seq_entries(pool, seq, 0)[num_blocks - 1],
                                    .parent = QUIRE_BLOCK_NONE,
                                    .num_tokens = len,
                                });
}
