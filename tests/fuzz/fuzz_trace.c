/* fuzz_trace.c - any bytes as a trace: read, and played where they are one.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include "quire/trace.h"

enum { TOKENS_MAX = 20000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct trace trace;
    struct trace_figures figures;
    if (trace_parse("fuzz", (const char *)data, size, &trace, NULL) != QUIRE_OK)
        return 0;
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < trace.num_requests; i++)
        tokens += trace.requests[i].num_prompt + trace.requests[i].num_output;
    struct trace_replay_config config = TRACE_REPLAY_DEFAULT;
    config.max_seqs = 3;
    config.num_blocks = 40;
    config.eviction = (uint32_t)(size % 2);
    if (tokens <= TOKENS_MAX) {
        QUIRE_CHECK(trace_replay(&trace, &config, &figures, NULL) == QUIRE_OK);
        QUIRE_CHECK(figures.served + figures.refused == trace.num_requests);
    }
    trace_deinit(&trace);
    return 0;
}
