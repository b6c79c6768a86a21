/* check.c - the invariants of a pool, walked.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by: pool->mutex. Invariants: P1, P2, P4, P5, X4, E1, T2, W1, S1 and S3 of DESIGN.md. */
#include "cache/prefix.h"

/* What a walk counts, to be held against what the pool keeps. */
struct counts {
    uint32_t *refs;            /* [blocks] entries that name each block */
    uint32_t *cursors;         /* [nodes and roots] */
    uint32_t *cached_children; /* [nodes and roots] */
};

static quire_status count_entry(const struct quire_pool *pool, uint32_t table, uint32_t block,
                                struct counts *counts, struct quire_error *error)
{
    if (block >= pool->blocks.total || pool->blocks.records[block].state != QUIRE__BLOCK_OWNED ||
        pool->blocks.records[block].table != table)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "P1: table %u names block %u, which is not owned there", table, block);
    counts->refs[block]++;
    return QUIRE_OK;
}

/* S1 and P2 of one table of a sequence. */
static quire_status check_table(const struct quire_pool *pool, const struct quire__seq *seq,
                                uint32_t table, struct counts *counts, struct quire_error *error)
{
    const uint32_t *entries = quire__seq_entries(pool, seq, table);
    uint32_t first = quire__seq_first(pool, seq)[table];
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < seq->num_blocks && status == QUIRE_OK; i++) {
        bool needed = quire__window_needs(pool, table, first, i);
        if (needed)
            status = count_entry(pool, table, entries[i], counts, error);
        else if (entries[i] != QUIRE_BLOCK_NONE)
            status = quire__fail(error, QUIRE_E_CORRUPT,
                                 "S1: table %u of sequence %u keeps block %u before its window",
                                 table, quire__seq_slot(pool, seq), entries[i]);
    }
    if (status == QUIRE_OK && first > quire__window_first(pool, table, seq->len))
        status = quire__fail(error, QUIRE_E_CORRUPT,
                             "W1: table %u of sequence %u starts at block %u, behind its window",
                             table, quire__seq_slot(pool, seq), first);
    return status;
}

/* S1 and S3 of one sequence, its part of P2, and its cursor. */
static quire_status check_seq(const struct quire_pool *pool, const struct quire__seq *seq,
                              struct counts *counts, struct quire_error *error)
{
    uint32_t slot = quire__seq_slot(pool, seq);
    uint64_t known = (uint64_t)seq->num_published * pool->layout.block_size + seq->tail_count;
    if (known > seq->len || (seq->has_tokens && known != seq->len))
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "S3: sequence %u has %llu tokens in %u positions", slot,
                           (unsigned long long)known, seq->len);
    if (seq->num_blocks > pool->layout.max_blocks ||
        (seq->step == QUIRE__NO_STEP &&
         seq->num_blocks != quire__layout_blocks(&pool->layout, seq->len)))
        return quire__fail(error, QUIRE_E_CORRUPT, "S1: sequence %u has %u blocks for %u positions",
                           slot, seq->num_blocks, seq->len);
    quire_status status = QUIRE_OK;
    for (uint32_t table = 0; table < pool->layout.num_tables && status == QUIRE_OK; table++)
        status = check_table(pool, seq, table, counts, error);
    if (!pool->layout.contiguous)
        counts->cursors[seq->cursor]++;
    if (status == QUIRE_OK && seq->step != QUIRE__NO_STEP &&
        (seq->step >= pool->max_open_steps || !pool->steps[seq->step].open))
        status = quire__fail(error, QUIRE_E_CORRUPT,
                             "P5: sequence %u is in step %u, which is not open", slot, seq->step);
    return status;
}

static quire_status check_step(const struct quire_pool *pool, const struct quire__step *step,
                               struct counts *counts, struct quire_error *error)
{
    quire_status status = QUIRE_OK;
    uint64_t originals = (uint64_t)step->num_items * pool->layout.num_tables;
    for (uint64_t i = 0; step->num_copies > 0 && i < originals && status == QUIRE_OK; i++) {
        if (step->originals[i] != QUIRE_BLOCK_NONE)
            status = count_entry(pool, (uint32_t)(i % pool->layout.num_tables), step->originals[i],
                                 counts, error);
    }
    return status;
}

/* X4 and E1 of the nodes: names are mutual, cursors and cached children are as many as counted,
 * and no node is there for nothing. */
static quire_status check_nodes(struct quire_pool *pool, struct counts *counts,
                                struct quire_error *error)
{
    const struct quire__index *index = &pool->index;
    for (uint32_t i = 0; i < index->fresh_node; i++) {
        const struct quire__node *node = &index->nodes[i];
        if (node->height == 0)
            continue;
        if (node->severed)
            counts->cursors[node->parent]++;
        bool has_cached = quire__node_has_cached(pool, i);
        if (has_cached)
            counts->cached_children[node->parent]++;
        if (node->has_cached != has_cached)
            return quire__fail(error, QUIRE_E_CORRUPT, "X4: node %u %s a cached block", i,
                               has_cached ? "does not know of" : "has not");
        for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
            uint32_t block = quire__index_blocks(index, i)[t];
            if (block != QUIRE_BLOCK_NONE &&
                (block >= pool->blocks.total || pool->blocks.records[block].node != i ||
                 pool->blocks.records[block].table != t))
                return quire__fail(error, QUIRE_E_CORRUPT, "X4: block %u does not know node %u",
                                   block, i);
        }
    }
    for (uint32_t i = 0; i < index->num_nodes + index->fresh_root; i++) {
        if (i == index->fresh_node)
            i = index->num_nodes;
        if (i >= index->num_nodes + index->fresh_root || index->nodes[i].height == 0)
            continue;
        const struct quire__node *node = &index->nodes[i];
        bool empty = node->children == QUIRE__NODE_NONE && node->cursors == 0;
        for (uint32_t t = 0; empty && i < index->num_nodes && t < pool->layout.num_tables; t++)
            empty = quire__index_blocks(index, i)[t] == QUIRE_BLOCK_NONE;
        if (node->cursors != counts->cursors[i] ||
            node->cached_children != counts->cached_children[i] || empty)
            return quire__fail(error, QUIRE_E_CORRUPT,
                               "X4: node %u has %u cursors and %u cached children, %u and %u "
                               "counted%s",
                               i, node->cursors, node->cached_children, counts->cursors[i],
                               counts->cached_children[i], empty ? ": it is useless" : "");
    }
    return QUIRE_OK;
}

/* T2: the numbers of tenants are borne by as many as counted. */
static quire_status check_tenants(const struct quire_pool *pool, struct quire_error *error)
{
    const struct quire__tenants *tenants = &pool->tenants;
    uint32_t uses[QUIRE__TENANTS_MAX + QUIRE__TENANT_FIRST] = {0};
    for (uint32_t i = 0; i < pool->blocks.total; i++)
        uses[pool->blocks.records[i].tenant % QUIRE_ARRAY_LEN(uses)]++;
    for (uint32_t i = 0; i < pool->max_seqs; i++) {
        uses[pool->seqs[i].tenant % QUIRE_ARRAY_LEN(uses)]++;
        uses[pool->regions[i].tenant % QUIRE_ARRAY_LEN(uses)]++;
    }
    for (uint32_t i = 0; i < QUIRE__TENANTS_MAX; i++) {
        uint32_t counted = uses[i + QUIRE__TENANT_FIRST];
        if (counted != tenants->uses[i] || (counted > 0 && i >= tenants->used))
            return quire__fail(error, QUIRE_E_CORRUPT,
                               "T2: tenant %u is borne %u times, %u counted",
                               i + QUIRE__TENANT_FIRST, counted, tenants->uses[i]);
    }
    return QUIRE_OK;
}

/* P2 of pins: as many blocks, and as many pins, as counted. */
static quire_status check_pins(struct quire_pool *pool, struct counts *counts,
                               struct quire_error *error)
{
    uint32_t pins = 0, blocks = 0;
    for (uint32_t i = 0; i < pool->max_pins; i++) {
        pins += pool->pins[i].live;
        blocks += pool->pins[i].blocks;
    }
    uint32_t held = quire__pins_count(pool, counts->refs, counts->cursors);
    if (pins != pool->num_pins || blocks != pool->num_pinned_blocks || held != blocks)
        return quire__fail(error, QUIRE_E_CORRUPT, "P2: %u pins hold %u blocks, %u and %u counted",
                           pins, held, pool->num_pins, pool->num_pinned_blocks);
    return QUIRE_OK;
}

static quire_status check_locked(struct quire_pool *pool, struct counts *counts,
                                 struct quire_error *error)
{
    uint32_t live = 0, open = 0;
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < pool->max_seqs && status == QUIRE_OK; i++) {
        if (!pool->seqs[i].live)
            continue;
        live++;
        status = check_seq(pool, &pool->seqs[i], counts, error);
    }
    for (uint32_t i = 0; i < pool->max_open_steps && status == QUIRE_OK; i++) {
        if (!pool->steps[i].open)
            continue;
        open++;
        status = check_step(pool, &pool->steps[i], counts, error);
    }
    if (status == QUIRE_OK && (live != pool->num_live || open != pool->num_open))
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "P4: %u sequences and %u steps live, %u and %u counted", live, open,
                           pool->num_live, pool->num_open);
    if (status == QUIRE_OK)
        status = check_pins(pool, counts, error);
    if (status == QUIRE_OK && !pool->layout.contiguous)
        status = quire__index_check(&pool->index, error);
    if (status == QUIRE_OK && !pool->layout.contiguous)
        status = check_nodes(pool, counts, error);
    if (status == QUIRE_OK)
        status = check_tenants(pool, error);
    if (status == QUIRE_OK)
        status = quire__evictor_check(&pool->evictor, pool->blocks.records, error);
    return status == QUIRE_OK ? quire__blocks_check(pool, counts->refs, error) : status;
}

quire_status quire_pool_check(struct quire_pool *pool, struct quire_error *error)
{
    if (pool == NULL)
        return quire__fail(error, QUIRE_E_INVAL, "pool must not be NULL");
    uint64_t nodes = (uint64_t)pool->index.num_nodes + pool->index.num_roots;
    struct counts counts = {
        .refs = quire__calloc(pool->blocks.total, sizeof(uint32_t)),
        .cursors = quire__calloc(nodes + 1, sizeof(uint32_t)),
        .cached_children = quire__calloc(nodes + 1, sizeof(uint32_t)),
    };
    quire_status status = QUIRE_E_NOMEM;
    if (counts.refs != NULL && counts.cursors != NULL && counts.cached_children != NULL) {
        quire__pool_lock(pool);
        status = check_locked(pool, &counts, error);
        quire__pool_unlock(pool);
    } else {
        (void)quire__fail(error, status, "no memory to count references");
    }
    quire__free(counts.cached_children);
    quire__free(counts.cursors);
    quire__free(counts.refs);
    return status;
}
