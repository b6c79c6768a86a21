/* workload.h - synthetic requests: chats, agents, documents, and all of them at once.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_WORKLOAD_H
#define QUIRE_TOOL_WORKLOAD_H

#include "quire/evict_sim.h"

enum workload_kind {
    WORKLOAD_CHATS,     /* many people, several turns each, a few system prompts */
    WORKLOAD_AGENTS,    /* tasks over long shared tool descriptions that fork and go back */
    WORKLOAD_DOCUMENTS, /* questions on some documents, between documents read once */
    WORKLOAD_MIXED,     /* all three at once */
    NUM_WORKLOADS,
};

/* "chats" and so on. */
const char *workload_name(enum workload_kind kind);

/* Makes a workload of `num_requests` requests; the same seed gives the same one. NOMEM. */
quire_status workload_create(enum workload_kind kind, uint32_t num_requests, uint64_t seed,
                             struct sim_workload *out);
void workload_deinit(struct sim_workload *workload);

#endif
