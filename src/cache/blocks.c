/* blocks.c - the accountant of a pool: which blocks are free, owned or cached, and who names them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: the records and the free list; decides what is in the evictor's heap, and counts the cached
 * children of nodes. Guarded by: the pool's mutex. Invariants: P1, P2, P4, E1, E2, T2, X4. */
#include "cache/blocks.h"

#include "cache/pool.h"

#include <quire/backend.h>

quire_status quire__blocks_init(struct quire__blocks *self, uint32_t total)
{
    *self = (struct quire__blocks){.total = total, .first_free = QUIRE_BLOCK_NONE};
    self->records = quire__calloc(total, sizeof *self->records);
    if (self->records == NULL)
        return QUIRE_E_NOMEM;
    for (uint32_t i = total; i-- > 0;) {
        self->records[i].place = self->first_free;
        self->records[i].node = QUIRE__NODE_NONE;
        self->first_free = i;
    }
    self->in_state[QUIRE__BLOCK_FREE] = total;
    return QUIRE_OK;
}

void quire__blocks_deinit(struct quire__blocks *self)
{
    quire__free(self->records);
    self->records = NULL;
}

static void move(struct quire__blocks *self, struct quire__block *block,
                 enum quire__block_state state)
{
    self->in_state[block->state]--;
    self->in_state[state]++;
    block->state = state & 3u;
}

/* ---- who may be evicted ---- */

static bool is_windowed(const struct quire_pool *pool, uint32_t table)
{
    return pool->layout.has_windows && pool->layout.tables[table].window != 0;
}

bool quire__node_has_cached(const struct quire_pool *pool, uint32_t node)
{
    const uint32_t *blocks = quire__index_blocks(&pool->index, node);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        if (!is_windowed(pool, t) && blocks[t] != QUIRE_BLOCK_NONE &&
            pool->blocks.records[blocks[t]].state == QUIRE__BLOCK_CACHED)
            return true;
    }
    return false;
}

static void offer(struct quire_pool *pool, uint32_t block)
{
    const struct quire__block *record = &pool->blocks.records[block];
    const struct quire__node *node = &pool->index.nodes[record->node];
    const struct quire__evict_facts facts = {
        .hits = node->hits,
        .num_tokens = node->num_tokens,
        .block_size = pool->layout.block_size,
    };
    quire__evictor_push(&pool->evictor, pool->blocks.records, block, node->stamp, &facts);
}

/* Offers a node's cached blocks of groups without a window to the evictor, or takes them back. */
static void offer_node(struct quire_pool *pool, uint32_t node, bool offered)
{
    if (quire__index_is_root(&pool->index, node))
        return;
    const uint32_t *blocks = quire__index_blocks(&pool->index, node);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        if (is_windowed(pool, t) || blocks[t] == QUIRE_BLOCK_NONE ||
            pool->blocks.records[blocks[t]].state != QUIRE__BLOCK_CACHED)
            continue;
        if (offered)
            offer(pool, blocks[t]);
        else
            quire__evictor_remove(&pool->evictor, pool->blocks.records, blocks[t]);
    }
}

/* E1: a node above a cached child waits. */
static void count_cached_child(struct quire_pool *pool, uint32_t node)
{
    struct quire__node *parent = &pool->index.nodes[pool->index.nodes[node].parent];
    if (parent->cached_children++ == 0 && parent->has_cached)
        offer_node(pool, pool->index.nodes[node].parent, false);
}

static void uncount_cached_child(struct quire_pool *pool, uint32_t node)
{
    uint32_t parent = pool->index.nodes[node].parent;
    QUIRE_CHECK(pool->index.nodes[parent].cached_children > 0);
    if (--pool->index.nodes[parent].cached_children == 0)
        offer_node(pool, parent, true);
}

/* `record` is the block's, but for its last reference, which is gone, and is written here. */
static inline void enter_cache(struct quire_pool *pool, uint32_t block, struct quire__block record)
{
    struct quire__node *node = &pool->index.nodes[record.node];
    bool windowed = is_windowed(pool, record.table);
    node->stamp = quire__evictor_cached(&pool->evictor, node->hits);
    record.place = QUIRE__PLACE_NONE;
    record.state = QUIRE__BLOCK_CACHED;
    pool->blocks.records[block] = record;
    pool->blocks.in_state[QUIRE__BLOCK_OWNED]--;
    pool->blocks.in_state[QUIRE__BLOCK_CACHED]++;
    if (!windowed && !node->has_cached) {
        node->has_cached = 1;
        count_cached_child(pool, record.node);
    }
    if (windowed || node->cached_children == 0)
        offer(pool, block);
}

/* From cached to owned or free; the node still names it. */
static void leave_cache(struct quire_pool *pool, uint32_t block, enum quire__block_state state)
{
    struct quire__block *record = &pool->blocks.records[block];
    if (record->place != QUIRE__PLACE_NONE)
        quire__evictor_remove(&pool->evictor, pool->blocks.records, block);
    move(&pool->blocks, record, state);
    if (!is_windowed(pool, record->table) && !quire__node_has_cached(pool, record->node)) {
        pool->index.nodes[record->node].has_cached = 0;
        uncount_cached_child(pool, record->node);
    }
}

/* ---- names ---- */

void quire__block_name(struct quire_pool *pool, uint32_t block, uint32_t node)
{
    struct quire__block *record = &pool->blocks.records[block];
    uint32_t *slot = &quire__index_blocks(&pool->index, node)[record->table];
    QUIRE_CHECK(record->state == QUIRE__BLOCK_OWNED && record->node == QUIRE__NODE_NONE &&
                *slot == QUIRE_BLOCK_NONE);
    *slot = block;
    record->node = node;
}

void quire__block_unname(struct quire_pool *pool, uint32_t block)
{
    struct quire__block *record = &pool->blocks.records[block];
    uint32_t *slot = &quire__index_blocks(&pool->index, record->node)[record->table];
    QUIRE_CHECK(record->state != QUIRE__BLOCK_CACHED && *slot == block);
    *slot = QUIRE_BLOCK_NONE;
    record->node = QUIRE__NODE_NONE;
}

static bool is_useless(const struct quire_pool *pool, uint32_t node)
{
    const struct quire__node *n = &pool->index.nodes[node];
    if (n->children != QUIRE__NODE_NONE || n->cursors != 0)
        return false;
    if (quire__index_is_root(&pool->index, node))
        return true;
    const uint32_t *blocks = quire__index_blocks(&pool->index, node);
    for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
        if (blocks[t] != QUIRE_BLOCK_NONE)
            return false;
    }
    return true;
}

void quire__node_prune(struct quire_pool *pool, uint32_t node)
{
    while (node != QUIRE__NODE_NONE && is_useless(pool, node))
        node = quire__index_remove(&pool->index, node);
}

/* ---- states ---- */

void quire__block_wipe(struct quire_pool *pool, uint32_t block)
{
    struct quire__block *record = &pool->blocks.records[block];
    if (record->tenant == QUIRE__TENANT_NOBODY)
        return;
    quire__tenant_set(&pool->tenants, &record->tenant, QUIRE__TENANT_NOBODY);
    if (!pool->has_kv || pool->layout.contiguous)
        return;
    uint64_t bytes = pool->layout.page_bytes;
    quire_status status =
        pool->backend->memory->fill(pool->backend, pool->arena, block * bytes, bytes, 0);
    if (status != QUIRE_OK)
        pool->failed = true; /* a tenant's bytes must not stay in use */
}

static void put_free(struct quire_pool *pool, uint32_t block)
{
    struct quire__block *record = &pool->blocks.records[block];
    if (record->state != QUIRE__BLOCK_FREE)
        move(&pool->blocks, record, QUIRE__BLOCK_FREE);
    record->place = pool->blocks.first_free;
    pool->blocks.first_free = block;
}

uint32_t quire__block_take(struct quire_pool *pool, uint32_t table, uint32_t tenant)
{
    struct quire__blocks *self = &pool->blocks;
    if (self->first_free == QUIRE_BLOCK_NONE)
        QUIRE_CHECK(quire__block_evict(pool));
    uint32_t block = self->first_free;
    struct quire__block *record = &self->records[block];
    QUIRE_CHECK(record->state == QUIRE__BLOCK_FREE && record->refs == 0);
    self->first_free = record->place;
    record->place = QUIRE__PLACE_NONE;
    record->refs = 1;
    record->table = table & 63u;
    move(self, record, QUIRE__BLOCK_OWNED);
    if (record->tenant != tenant || tenant == QUIRE__TENANT_OTHERS) {
        if (!quire__tenant_may_follow(tenant, record->tenant))
            quire__block_wipe(pool, block);
        quire__tenant_set(&pool->tenants, &record->tenant, tenant);
    }
    uint32_t in_use = self->total - self->in_state[QUIRE__BLOCK_FREE];
    self->peak = in_use > self->peak ? in_use : self->peak;
    return block;
}

void quire__block_acquire(struct quire_pool *pool, uint32_t block)
{
    QUIRE_CHECK(block < pool->blocks.total);
    struct quire__block *record = &pool->blocks.records[block];
    if (record->state == QUIRE__BLOCK_CACHED) {
        quire__evictor_found(&pool->evictor, pool->index.nodes[record->node].hits);
        leave_cache(pool, block, QUIRE__BLOCK_OWNED);
    }
    QUIRE_CHECK(record->state == QUIRE__BLOCK_OWNED && record->refs < QUIRE__REFS_MAX);
    record->refs++;
}

/* The rest of a release: the bytes go with the block, or its node is detached. A function of its
 * own so that the common ones save no registers for it. */
static __attribute__((noinline)) void release_for_good(struct quire_pool *pool, uint32_t block)
{
    uint32_t node = pool->blocks.records[block].node;
    if (node != QUIRE__NODE_NONE) {
        quire__block_unname(pool, block);
        quire__node_prune(pool, node);
    }
    quire__block_wipe(pool, block);
    put_free(pool, block);
}

quire_status quire__block_release_last(struct quire_pool *pool, uint32_t block, bool wipe)
{
    if (block >= pool->blocks.total)
        return QUIRE_E_INVAL;
    /* A copy, written back once: each bit field of the record is a read and a write of its word. */
    struct quire__block record = pool->blocks.records[block];
    if (record.state != QUIRE__BLOCK_OWNED)
        return QUIRE_E_INVAL;
    QUIRE_CHECK(record.refs == 1);
    record.refs = 0;
    if (record.node != QUIRE__NODE_NONE && !pool->index.nodes[record.node].detached) {
        enter_cache(pool, block, record);
    } else if (record.node == QUIRE__NODE_NONE && !wipe) {
        record.state = QUIRE__BLOCK_FREE;
        record.place = pool->blocks.first_free;
        pool->blocks.records[block] = record;
        pool->blocks.first_free = block;
        pool->blocks.in_state[QUIRE__BLOCK_OWNED]--;
        pool->blocks.in_state[QUIRE__BLOCK_FREE]++;
    } else {
        pool->blocks.records[block] = record;
        release_for_good(pool, block);
    }
    return QUIRE_OK;
}

quire_status quire__block_release(struct quire_pool *pool, uint32_t block, bool wipe)
{
    if (quire__block_let_go(&pool->blocks, block))
        return QUIRE_OK;
    return quire__block_release_last(pool, block, wipe);
}

/* Frees a cached block that is in no heap any more. */
static void uncache(struct quire_pool *pool, uint32_t block, enum quire_event_kind kind)
{
    struct quire__block *record = &pool->blocks.records[block];
    uint32_t node = record->node;
    quire__events_block(pool, kind, block);
    leave_cache(pool, block, QUIRE__BLOCK_FREE);
    quire__block_unname(pool, block);
    put_free(pool, block);
    quire__node_prune(pool, node);
}

bool quire__block_evict(struct quire_pool *pool)
{
    uint32_t block = quire__evictor_pop(&pool->evictor, pool->blocks.records);
    if (block == QUIRE_BLOCK_NONE)
        return false;
    uncache(pool, block, QUIRE_EVENT_EVICTED);
    pool->figures.evicted++;
    return true;
}

void quire__block_forget_all(struct quire_pool *pool)
{
    for (;;) {
        uint32_t block = quire__evictor_pop(&pool->evictor, pool->blocks.records);
        if (block == QUIRE_BLOCK_NONE)
            return;
        uncache(pool, block, QUIRE_EVENT_DROPPED);
        pool->figures.dropped++;
    }
}

void quire__block_drop(struct quire_pool *pool, uint32_t block)
{
    uncache(pool, block, QUIRE_EVENT_DROPPED);
    quire__block_wipe(pool, block);
}

/* ---- check ---- */

static quire_status check_free_list(const struct quire__blocks *self, struct quire_error *error)
{
    uint32_t length = 0;
    for (uint32_t i = self->first_free; i != QUIRE_BLOCK_NONE; i = self->records[i].place) {
        if (i >= self->total || self->records[i].state != QUIRE__BLOCK_FREE)
            return quire__fail(error, QUIRE_E_CORRUPT, "P1: block %u in the free list is not free",
                               i);
        if (++length > self->total)
            return quire__fail(error, QUIRE_E_CORRUPT, "P1: the free list has a cycle");
    }
    if (length != self->in_state[QUIRE__BLOCK_FREE])
        return quire__fail(error, QUIRE_E_CORRUPT, "P4: %u blocks in the free list, %u counted",
                           length, self->in_state[QUIRE__BLOCK_FREE]);
    return QUIRE_OK;
}

/* What a block and its node must agree on. */
static quire_status check_named(const struct quire_pool *pool, uint32_t i,
                                struct quire_error *error)
{
    const struct quire__block *block = &pool->blocks.records[i];
    bool named = block->node != QUIRE__NODE_NONE;
    if (named &&
        (block->node >= pool->index.num_nodes || pool->index.nodes[block->node].height == 0 ||
         quire__index_blocks(&pool->index, block->node)[block->table] != i))
        return quire__fail(error, QUIRE_E_CORRUPT, "X4: block %u is not known to its node", i);
    if ((block->state == QUIRE__BLOCK_CACHED && !named) ||
        (block->state == QUIRE__BLOCK_FREE && named))
        return quire__fail(error, QUIRE_E_CORRUPT, "P1: block %u in state %u is %snamed", i,
                           block->state, named ? "" : "not ");
    bool offered =
        block->state == QUIRE__BLOCK_CACHED &&
        (is_windowed(pool, block->table) || pool->index.nodes[block->node].cached_children == 0);
    bool placed = block->state == QUIRE__BLOCK_CACHED && block->place != QUIRE__PLACE_NONE;
    if (offered != placed || (placed && (block->place >= pool->evictor.count ||
                                         pool->evictor.heap[block->place].block != i)))
        return quire__fail(error, QUIRE_E_CORRUPT, "E1: block %u is %sin the heap", i,
                           placed ? "" : "not ");
    return QUIRE_OK;
}

quire_status quire__blocks_check(const struct quire_pool *pool, const uint32_t *refs,
                                 struct quire_error *error)
{
    const struct quire__blocks *self = &pool->blocks;
    uint32_t counted[QUIRE__BLOCK_STATES] = {0};
    for (uint32_t i = 0; i < self->total; i++) {
        const struct quire__block *block = &self->records[i];
        if ((block->refs > 0) != (block->state == QUIRE__BLOCK_OWNED))
            return quire__fail(error, QUIRE_E_CORRUPT, "P1: block %u in state %u has %u references",
                               i, block->state, block->refs);
        if (block->refs != refs[i])
            return quire__fail(error, QUIRE_E_CORRUPT,
                               "P2: block %u has %u references, %u entries name it", i, block->refs,
                               refs[i]);
        quire_status status = check_named(pool, i, error);
        if (status != QUIRE_OK)
            return status;
        counted[block->state]++;
    }
    for (uint32_t state = 0; state < QUIRE__BLOCK_STATES; state++) {
        if (counted[state] != self->in_state[state])
            return quire__fail(error, QUIRE_E_CORRUPT, "P4: %u blocks in state %u, %u counted",
                               counted[state], state, self->in_state[state]);
    }
    return check_free_list(self, error);
}
