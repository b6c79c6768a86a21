/* evict_sim.c - a cache of blocks without a pool: what any policy of eviction would have hit.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/evict_sim.h"

#include <stdbool.h>
#include <string.h>

#include "base/base.h"

/* A block that could go, as of its node's `version`; entries of older versions are skipped. */
struct candidate {
    double priority;
    uint32_t stamp;
    uint32_t node;
    uint32_t version;
};

struct block {
    double priority;
    uint32_t stamp; /* of the request that let it go last */
    uint32_t hits;
    uint32_t version;
    uint32_t cached_children;
    bool cached, held;
};

struct sim {
    const struct sim_workload *workload;
    sim_priority priority;
    uint32_t capacity, used;
    double floor;
    struct block *blocks; /* [num_nodes] */
    uint32_t *path;       /* [longest] of the request at hand */
    uint32_t *next_use;   /* of each block of each request's path, one request after the other */
    struct candidate *heap;
    uint64_t heap_count, heap_max;
    struct sim_result *result;
};

/* ---- the heap ---- */

static bool goes_before(const struct sim *sim, const struct candidate *a, const struct candidate *b)
{
    const struct sim_node *nodes = sim->workload->nodes;
    if (a->priority != b->priority)
        return a->priority < b->priority;
    if (a->stamp != b->stamp)
        return a->stamp < b->stamp;
    if (nodes[a->node].depth != nodes[b->node].depth)
        return nodes[a->node].depth > nodes[b->node].depth;
    return a->node < b->node;
}

static quire_status push(struct sim *sim, uint32_t node)
{
    const struct block *block = &sim->blocks[node];
    const struct candidate added = {block->priority, block->stamp, node, block->version};
    if (sim->heap_count == sim->heap_max) {
        uint64_t max = sim->heap_max == 0 ? 1024 : sim->heap_max * 2;
        struct candidate *heap = quire__realloc(sim->heap, max * sizeof *heap);
        if (heap == NULL)
            return QUIRE_E_NOMEM;
        sim->heap = heap;
        sim->heap_max = max;
    }
    uint64_t at = sim->heap_count++;
    for (; at > 0 && goes_before(sim, &added, &sim->heap[(at - 1) / 2]); at = (at - 1) / 2)
        sim->heap[at] = sim->heap[(at - 1) / 2];
    sim->heap[at] = added;
    return QUIRE_OK;
}

static struct candidate pop(struct sim *sim)
{
    QUIRE_CHECK(sim->heap_count > 0);
    const struct candidate first = sim->heap[0], last = sim->heap[--sim->heap_count];
    uint64_t at = 0;
    for (;;) {
        uint64_t child = at * 2 + 1;
        if (child >= sim->heap_count)
            break;
        if (child + 1 < sim->heap_count &&
            goes_before(sim, &sim->heap[child + 1], &sim->heap[child]))
            child++;
        if (!goes_before(sim, &sim->heap[child], &last))
            break;
        sim->heap[at] = sim->heap[child];
        at = child;
    }
    sim->heap[at] = last;
    return first;
}

/* ---- the cache ---- */

static quire_status evict(struct sim *sim)
{
    for (;;) {
        const struct candidate candidate = pop(sim);
        struct block *block = &sim->blocks[candidate.node];
        if (candidate.version != block->version || !block->cached || block->held ||
            block->cached_children > 0)
            continue;
        uint32_t parent = sim->workload->nodes[candidate.node].parent;
        block->cached = false;
        block->hits = 0;
        sim->used--;
        sim->result->blocks_evicted++;
        if (candidate.priority > sim->floor)
            sim->floor = candidate.priority;
        struct block *above = &sim->blocks[parent];
        above->cached_children--;
        return parent != 0 && above->cached_children == 0 && !above->held ? push(sim, parent)
                                                                          : QUIRE_OK;
    }
}

static quire_status let_go(struct sim *sim, uint32_t number, uint32_t length,
                           const uint32_t *next_use)
{
    for (uint32_t i = length; i-- > 0;) {
        struct block *block = &sim->blocks[sim->path[i]];
        const struct sim_facts facts = {.now = number,
                                        .hits = block->hits,
                                        .depth = i + 1,
                                        .next_use = next_use[i],
                                        .floor = sim->floor};
        block->held = false;
        block->version++;
        block->stamp = number;
        block->priority = sim->priority(&facts);
        if (block->cached_children == 0 && push(sim, sim->path[i]) != QUIRE_OK)
            return QUIRE_E_NOMEM;
    }
    return QUIRE_OK;
}

static quire_status serve(struct sim *sim, uint32_t number, const uint32_t *next_use)
{
    const struct sim_node *nodes = sim->workload->nodes;
    const struct sim_request *request = &sim->workload->requests[number];
    const uint32_t length = nodes[request->leaf].depth;
    for (uint32_t node = request->leaf; node != 0; node = nodes[node].parent)
        sim->path[nodes[node].depth - 1] = node;
    uint32_t hit = 0;
    while (hit < request->prompt_blocks && sim->blocks[sim->path[hit]].cached)
        hit++;
    sim->result->blocks_asked += request->prompt_blocks;
    sim->result->blocks_hit += hit;
    for (uint32_t i = 0; i < hit; i++)
        sim->blocks[sim->path[i]].held = true;
    for (uint32_t i = 0; i < length; i++) {
        struct block *block = &sim->blocks[sim->path[i]];
        block->hits++;
        if (i < hit)
            continue;
        QUIRE_CHECK(!block->cached);
        if (sim->used == sim->capacity && evict(sim) != QUIRE_OK)
            return QUIRE_E_NOMEM;
        sim->used++;
        block->cached = true;
        block->held = true;
        sim->blocks[nodes[sim->path[i]].parent].cached_children++;
    }
    return let_go(sim, number, length, next_use);
}

/* For every block of every request's path the next request whose prompt has it. */
static void look_ahead(struct sim *sim, uint32_t *next, uint64_t total)
{
    const struct sim_workload *workload = sim->workload;
    for (uint32_t i = 0; i < workload->num_nodes; i++)
        next[i] = SIM_NEVER;
    for (uint32_t number = workload->num_requests; number-- > 0;) {
        const struct sim_request *request = &workload->requests[number];
        const uint32_t length = workload->nodes[request->leaf].depth;
        total -= length;
        for (uint32_t node = request->leaf; node != 0; node = workload->nodes[node].parent) {
            uint32_t depth = workload->nodes[node].depth;
            sim->next_use[total + depth - 1] = next[node];
            if (depth <= request->prompt_blocks)
                next[node] = number;
        }
    }
}

quire_status sim_run(const struct sim_workload *workload, uint32_t capacity, sim_priority priority,
                     struct sim_result *result)
{
    struct sim sim = {
        .workload = workload, .priority = priority, .capacity = capacity, .result = result};
    uint64_t total = 0, at = 0;
    *result = (struct sim_result){0};
    QUIRE_CHECK(capacity >= workload->longest);
    for (uint32_t i = 0; i < workload->num_requests; i++)
        total += workload->nodes[workload->requests[i].leaf].depth;
    uint32_t *next = quire__calloc(workload->num_nodes, sizeof *next);
    sim.blocks = quire__calloc(workload->num_nodes, sizeof *sim.blocks);
    sim.path = quire__calloc(workload->longest + 1, sizeof *sim.path);
    sim.next_use = quire__calloc(total + 1, sizeof *sim.next_use);
    quire_status status = QUIRE_E_NOMEM;
    if (next != NULL && sim.blocks != NULL && sim.path != NULL && sim.next_use != NULL) {
        look_ahead(&sim, next, total);
        status = QUIRE_OK;
    }
    for (uint32_t i = 0; i < workload->num_requests && status == QUIRE_OK; i++) {
        status = serve(&sim, i, sim.next_use + at);
        at += workload->nodes[workload->requests[i].leaf].depth;
    }
    quire__free(next);
    quire__free(sim.blocks);
    quire__free(sim.path);
    quire__free(sim.next_use);
    quire__free(sim.heap);
    return status;
}
