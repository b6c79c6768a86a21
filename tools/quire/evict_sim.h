/* evict_sim.h - a cache of blocks without a pool: what any policy of eviction would have hit.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A workload is a tree of full blocks and a list of requests, each a path from the root. A request
 * finds the longest beginning of its prompt that is cached, holds its whole path while it runs, and
 * leaves it cached. Only a cached block without cached children, that the request itself does not
 * hold, can be evicted (E1). */
#ifndef QUIRE_TOOL_EVICT_SIM_H
#define QUIRE_TOOL_EVICT_SIM_H

#include <stdint.h>

#include <quire/status.h>

#define SIM_NEVER UINT32_MAX

struct sim_node {
    uint32_t parent; /* 0 is the root, which is no block */
    uint32_t depth;  /* of the root 0 */
};

struct sim_request {
    uint32_t leaf;          /* the last node of its path */
    uint32_t prompt_blocks; /* of the path; the rest is the answer, which nobody looks up yet */
};

struct sim_workload {
    struct sim_node *nodes; /* [num_nodes] the root first, parents before children */
    uint32_t num_nodes, max_nodes;
    struct sim_request *requests; /* [num_requests] in the order of arrival */
    uint32_t num_requests, max_requests;
    uint32_t longest; /* blocks of the longest path */
};

/* What a policy may know of a block when it is let go. */
struct sim_facts {
    uint32_t now;      /* number of the request that lets it go */
    uint32_t hits;     /* requests that held it, the one that computed it included */
    uint32_t depth;    /* its place in the prefix, from 1 */
    uint32_t next_use; /* the next request whose prompt has it, or SIM_NEVER: for oracles only */
    double floor;      /* the highest priority that was evicted so far */
};

/* The block with the smallest goes first; among equals the deeper one. */
typedef double (*sim_priority)(const struct sim_facts *facts);

struct sim_result {
    uint64_t blocks_asked; /* of all prompts */
    uint64_t blocks_hit;
    uint64_t blocks_evicted;
};

/* Runs a workload on a cache of `capacity` blocks, at least workload->longest. NOMEM. */
quire_status sim_run(const struct sim_workload *workload, uint32_t capacity, sim_priority priority,
                     struct sim_result *result);

#endif
