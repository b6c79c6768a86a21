/* cache_work.h - the pieces of work that quire bench cache measures.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_CACHE_WORK_H
#define QUIRE_TOOL_CACHE_WORK_H

#include <quire/quire.h>

enum { CACHE_WORK_P = 16, CACHE_WORK_LONG = 100000 };

/* A pool of one small layer, or of an 8B model's 32, and what is in it. */
struct cache_work {
    struct quire_backend *backend;
    struct quire_pool *pool;
    uint32_t *tokens; /* [max_seq_len] scratch */
    uint32_t max_seq_len, step_tokens;
};

struct cache_work_config {
    const char *backend;
    uint32_t num_blocks, max_seqs, max_seq_len;
    uint32_t step_tokens; /* rows of one step */
    bool deep;            /* 32 layers of 8 K/V heads of 128; else one of one head of 8 */
};

quire_status cache_work_open(struct cache_work *work, const struct cache_work_config *config,
                             struct quire_error *error);
void cache_work_close(struct cache_work *work);

/* Fills tokens [count]: different ones for different keys, from the first token on. */
void cache_work_tokens(uint32_t *tokens, uint32_t count, uint32_t key);
/* Appends tokens in as many steps as it takes, as an engine with its own kernels does. */
quire_status cache_work_append(struct cache_work *work, quire_seq seq, const uint32_t *tokens,
                               uint32_t count);
/* Leaves `chains` cached chains of `blocks` blocks; their keys count from `key` on. */
quire_status cache_work_fill(struct cache_work *work, uint32_t chains, uint32_t blocks,
                             uint32_t key);

/* Each gives nanoseconds of one piece of work, averaged where it is short. */
quire_status cache_work_blocks(struct cache_work *work, double *ns); /* a block: take, release */
quire_status cache_work_step(struct cache_work *work, uint32_t seqs, double *ns);
quire_status cache_work_fork(struct cache_work *work, double *ns);
quire_status cache_work_match(struct cache_work *work, bool cold, double *ns);
quire_status cache_work_fanout(struct cache_work *work, uint32_t children, double *ns);
quire_status cache_work_evict(struct cache_work *work, uint32_t blocks, double *ns);

#endif
