/* publish.c - blocks to tokens: what a sequence has computed becomes findable.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by: the pool's mutex. Invariants: X4; P3 rests on `num_tokens` of a node, the rows that
 * it publishes. */
#include "cache/prefix.h"

#include <string.h>

static struct quire__block *record_of(const struct quire_pool *pool, uint32_t block)
{
    return &pool->blocks.records[block];
}

/* The sequence's block i in a table, or QUIRE_BLOCK_NONE. */
static uint32_t entry(const struct quire_pool *pool, const struct quire__seq *seq, uint32_t table,
                      uint32_t i)
{
    return quire__seq_entries(pool, seq, table)[i];
}

/* A block that is hidden, as its prefix was dropped, is not findable and makes no event. */
static void note_stored(struct quire_pool *pool, uint32_t block)
{
    if (pool->index.nodes[record_of(pool, block)->node].detached)
        return;
    pool->figures.stored++;
    quire__events_block(pool, QUIRE_EVENT_STORED, block);
}

/* The partial node that names the sequence's blocks i, all of its blocks being theirs. */
static uint32_t own_partial(const struct quire_pool *pool, const struct quire__seq *seq, uint32_t i)
{
    uint32_t node = QUIRE__NODE_NONE;
    for (uint32_t t = 0; t < pool->layout.num_tables && node == QUIRE__NODE_NONE; t++) {
        uint32_t block = entry(pool, seq, t, i);
        if (block != QUIRE_BLOCK_NONE)
            node = record_of(pool, block)->node;
    }
    if (node == QUIRE__NODE_NONE)
        return node;
    const uint32_t *blocks = quire__index_blocks(&pool->index, node);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        if (blocks[t] != QUIRE_BLOCK_NONE && blocks[t] != entry(pool, seq, t, i))
            return QUIRE__NODE_NONE;
    }
    return node;
}

/* Makes a node name the sequence's blocks i in the tables where it names none. A block that only
 * the sequence holds leaves a node that published fewer of its rows. */
static void fill_node(struct quire_pool *pool, const struct quire__seq *seq, uint32_t node,
                      uint32_t i)
{
    const struct quire__node *nodes = pool->index.nodes;
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        uint32_t block = entry(pool, seq, t, i);
        if (block == QUIRE_BLOCK_NONE ||
            quire__index_blocks(&pool->index, node)[t] != QUIRE_BLOCK_NONE)
            continue;
        uint32_t other = record_of(pool, block)->node;
        if (other != QUIRE__NODE_NONE && record_of(pool, block)->refs == 1 &&
            nodes[other].num_tokens < nodes[node].num_tokens) {
            quire__block_unname(pool, block);
            quire__node_prune(pool, other);
            other = QUIRE__NODE_NONE;
        }
        if (other == QUIRE__NODE_NONE) {
            quire__block_name(pool, block, node);
            note_stored(pool, block);
        }
    }
}

static void extend_node(struct quire_pool *pool, uint32_t node, const uint32_t *tokens,
                        uint32_t count)
{
    quire__index_extend(&pool->index, node, tokens, count);
    const uint32_t *blocks = quire__index_blocks(&pool->index, node);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        if (blocks[t] != QUIRE_BLOCK_NONE)
            note_stored(pool, blocks[t]);
    }
}

/* Points the sequence's tables at the blocks of a node that holds the same. */
static void merge(struct quire_pool *pool, struct quire__seq *seq, uint32_t node, uint32_t i)
{
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        uint32_t *mine = &quire__seq_entries(pool, seq, t)[i];
        uint32_t theirs = quire__index_blocks(&pool->index, node)[t];
        if (*mine == QUIRE_BLOCK_NONE || theirs == QUIRE_BLOCK_NONE || theirs == *mine)
            continue;
        quire__block_acquire(pool, theirs);
        QUIRE_CHECK(quire__block_release(pool, *mine, seq->wipe) == QUIRE_OK);
        *mine = theirs;
        quire__seq_mark_dirty(seq, i);
        pool->figures.merged++;
    }
}

/* A new child of a node. Where hollow nodes of what is cached have used all up, evicts until one is
 * free; NONE when living sequences have. */
static uint32_t insert_node(struct quire_pool *pool, uint32_t parent, const uint32_t *tokens,
                            uint32_t count, bool hidden)
{
    uint32_t node;
    do
        node = quire__index_insert(&pool->index, parent, tokens, count, hidden);
    while (node == QUIRE__NODE_NONE && quire__block_evict(pool));
    return node;
}

/* Whether the sequence holds blocks of its own where a node names others. */
static bool is_twin(const struct quire_pool *pool, const struct quire__seq *seq, uint32_t node,
                    uint32_t i)
{
    const uint32_t *blocks = quire__index_blocks(&pool->index, node);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        uint32_t block = entry(pool, seq, t, i);
        if (block != QUIRE_BLOCK_NONE && blocks[t] != block)
            return true;
    }
    return false;
}

/* Publishes block num_published, whose tokens are the whole tail. False when no node is free: the
 * sequence's indexable prefix ends here. */
static bool publish_full(struct quire_pool *pool, struct quire__seq *seq)
{
    uint32_t i = seq->num_published, size = pool->layout.block_size;
    const uint32_t *tail = quire__seq_tail(pool, seq);
    uint32_t own = own_partial(pool, seq, i);
    bool hidden = seq->hidden || pool->index.nodes[seq->cursor].detached;
    struct quire__match match = {QUIRE__NODE_NONE, 0};
    if (!hidden)
        match = quire__index_match(&pool->index, seq->cursor, tail, size);
    uint32_t node = match.node;
    if (match.common == size) {
        fill_node(pool, seq, node, i);
        if (pool->merges)
            merge(pool, seq, node, i);
    } else if (own != QUIRE__NODE_NONE && hidden == pool->index.nodes[own].severed) {
        node = own;
        extend_node(pool, node, tail, size);
        fill_node(pool, seq, node, i);
    } else {
        node = insert_node(pool, seq->cursor, tail, size, hidden);
        if (node == QUIRE__NODE_NONE)
            return false;
        fill_node(pool, seq, node, i);
    }
    if (seq->twins_from == QUIRE__NO_TWIN && is_twin(pool, seq, node, i))
        seq->twins_from = i;
    seq->num_published++;
    seq->tail_count = 0;
    quire__prefix_stand(pool, seq, node);
    return true;
}

void quire__prefix_append(struct quire_pool *pool, struct quire__seq *seq, const uint32_t *tokens,
                          uint32_t count)
{
    uint32_t *tail = quire__seq_tail(pool, seq);
    if (!pool->layout.contiguous)
        quire__prefix_refill(pool, seq);
    while (count > 0 && seq->has_tokens) {
        uint32_t room = pool->tail_stride - seq->tail_count;
        uint32_t part = count < room ? count : room;
        memcpy(tail + seq->tail_count, tokens, part * sizeof *tail);
        seq->tail_count += part;
        tokens += part;
        count -= part;
        if (!pool->layout.contiguous && seq->tail_count == pool->layout.block_size &&
            !publish_full(pool, seq)) {
            seq->tail_count -= part; /* what does not fit the index is not known */
            seq->has_tokens = false;
        }
    }
}

void quire__prefix_publish_tail(struct quire_pool *pool, struct quire__seq *seq)
{
    if (!seq->has_tokens || seq->tail_count == 0)
        return;
    uint32_t i = seq->num_published, count = seq->tail_count;
    const uint32_t *tail = quire__seq_tail(pool, seq);
    uint32_t own = own_partial(pool, seq, i);
    if (own != QUIRE__NODE_NONE && pool->index.nodes[own].num_tokens >= count)
        return;
    bool hidden = seq->hidden || pool->index.nodes[seq->cursor].detached;
    struct quire__match match = {QUIRE__NODE_NONE, 0};
    if (!hidden)
        match = quire__index_match(&pool->index, seq->cursor, tail, count);
    if (match.common == count && quire__prefix_is_whole(pool, match.node))
        return; /* somebody published these rows and perhaps more */
    uint32_t same = QUIRE__NODE_NONE;
    if (match.common == count) /* one that has lost its blocks; or a longer one that has */
        same = quire__index_find(&pool->index, seq->cursor, tail, count);
    if (same != QUIRE__NODE_NONE) {
        fill_node(pool, seq, same, i);
        return;
    }
    if (own != QUIRE__NODE_NONE && hidden == pool->index.nodes[own].severed) {
        extend_node(pool, own, tail, count);
        return;
    }
    uint32_t node = insert_node(pool, seq->cursor, tail, count, hidden);
    if (node == QUIRE__NODE_NONE)
        return;
    fill_node(pool, seq, node, i);
    quire__node_prune(pool, node); /* where others hold its blocks under another name */
}

void quire__prefix_refill(struct quire_pool *pool, struct quire__seq *seq)
{
    uint32_t node = seq->cursor, first = seq->twins_from;
    seq->twins_from = QUIRE__NO_TWIN;
    for (uint32_t i = seq->num_published; i-- > 0 && i >= first;
         node = pool->index.nodes[node].parent) {
        fill_node(pool, seq, node, i);
        if (is_twin(pool, seq, node, i))
            seq->twins_from = i;
    }
}
