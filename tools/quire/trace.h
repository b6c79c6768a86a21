/* trace.h - recorded requests, and what a pool makes of them without a model.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The format and the rules of the replay are in docs/formats/trace.md. */
#ifndef QUIRE_TOOL_TRACE_H
#define QUIRE_TOOL_TRACE_H

#include <stdint.h>

#include <quire/quire.h>

#define TRACE_TOKENS_MAX (UINT32_C(1) << 26)

struct trace_request {
    uint64_t at_us;
    uint64_t salt, adapter;
    const uint32_t *tokens; /* [num_prompt + num_output] */
    uint32_t num_prompt, num_output;
};

struct trace {
    uint32_t vocabulary;
    uint32_t *tokens;               /* of all requests */
    struct trace_request *requests; /* [num_requests] in the order of arrival */
    uint32_t num_requests;
    uint32_t longest; /* tokens of the longest request */
};

/* Reads a trace. name: of the file, for messages; text [bytes]. INVAL with "NAME:LINE: ..." for
 * what is no trace, LIMIT for one that is too large, NOMEM. */
quire_status trace_parse(const char *name, const char *text, uint64_t bytes, struct trace *out,
                         struct quire_error *error);
void trace_deinit(struct trace *trace);

struct trace_replay_config {
    uint32_t block_size;  /* P */
    uint32_t num_blocks;  /* 0: as many as all requests need together */
    uint32_t eviction;    /* enum quire_eviction */
    uint32_t max_seqs;    /* requests that run at once, at most step_tokens */
    uint32_t step_tokens; /* of one step at most */
    uint32_t step_us;     /* that a step takes */
};

#define TRACE_REPLAY_DEFAULT                                                                       \
    {                                                                                              \
        .block_size = 16, .max_seqs = 16, .step_tokens = 512, .step_us = 25000                     \
    }

struct trace_figures {
    uint32_t num_blocks;      /* of the pool */
    uint32_t requests;        /* of the trace */
    uint32_t served, waited;  /* waited: did not start in the step after they arrived */
    uint32_t refused;         /* larger than the pool */
    uint64_t largest_blocks;  /* that one request needs at most */
    uint32_t preempted;       /* times that a running request had to give way */
    uint32_t hit_requests;    /* that found some of their prompt */
    uint64_t prompt_tokens;   /* of the requests served */
    uint64_t hit_tokens;      /* of them, found */
    uint64_t output_tokens;   /* generated */
    uint64_t computed_tokens; /* in all steps, what was computed again included */
    uint64_t steps, end_us;   /* end_us: when the last request was done */
    uint64_t wait_us_max;     /* from arrival to start */
    double wait_us_mean;      /* over the requests served */
    /* Positions of held blocks without a token, of those with one: at the worst moment, and the
     * mean of all steps. */
    double waste_pct_max, waste_pct_mean;
    uint64_t evictions, copies, merges;
    uint64_t peak_held, peak_blocks; /* most blocks of running requests, and with cached ones */
};

/* Plays a trace on a pool of the backend none. Statuses as quire_pool_create. */
quire_status trace_replay(const struct trace *trace, const struct trace_replay_config *config,
                          struct trace_figures *figures, struct quire_error *error);

/* waste_pct_max of requests with prompts of 1,000 to 4,000 tokens in blocks of `block_size`, with
 * room for all: what the blocks themselves cost. */
quire_status trace_measure_waste(uint32_t block_size, double *waste_pct, struct quire_error *error);

#endif
