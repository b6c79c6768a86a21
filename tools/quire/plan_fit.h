/* plan_fit.h - how many sequences fit into a pool, exactly.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Sequences grow one after the other, from the end of the shared prefix to `context` positions, in
 * steps of step_tokens, and stay. The shared prefix is pinned, so that its windows stay whole. */
#ifndef QUIRE_TOOL_PLAN_FIT_H
#define QUIRE_TOOL_PLAN_FIT_H

#include <quire/quire.h>

struct plan_question {
    /* groups, dtypes, block_size, rollback_max, and memory_bytes or num_blocks; paged */
    const struct quire_pool_config *config;
    uint32_t context;     /* N, positions of each sequence; max_seq_len of the pool */
    uint32_t prefix;      /* the first of them that all share, below context */
    uint32_t step_tokens; /* positions that a step adds */
};

struct plan_group {
    uint64_t block_bytes;     /* of a block, those that the group's layers fill */
    uint64_t blocks_shared;   /* of the prefix */
    uint64_t blocks_sequence; /* that a sequence of N positions holds beside them */
};

struct plan {
    uint64_t block_bytes, num_blocks; /* of the pool */
    uint64_t blocks_shared;           /* over all groups */
    uint64_t blocks_sequence;
    uint64_t blocks_growing; /* most that one holds while it grows; at least blocks_sequence */
    uint64_t blocks_first;   /* that the prefix and one sequence need, growing */
    uint64_t sequences;      /* that fit: the next one fails with NOSPACE */
    uint64_t used_bytes;     /* blocks of prefix and sequences */
    uint64_t waste_bytes;    /* of them, those without K or V that a window still reaches */
    uint64_t left_bytes;     /* of the pool, in no block that is used */
    struct plan_group groups[QUIRE_MAX_GROUPS];
};

/* Statuses as quire_pool_measure; INVAL also for no context, no step or a prefix that is not
 * below the context. */
quire_status plan_fit(const struct plan_question *question, struct plan *plan);

#endif
