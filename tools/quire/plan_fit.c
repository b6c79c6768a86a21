/* plan_fit.c - how many sequences fit into a pool, exactly.
 * SPDX-License-Identifier: Apache-2.0
 *
 * After a commit at length n a group with the window W holds the blocks of positions
 * n - rollback_max - W + 1 .. n, and its sinks (W1). A step takes its blocks before that. */
#include "quire/plan_fit.h"

#include <string.h>

#include "base/base.h"

struct range {
    uint64_t first, end;
};

struct fit {
    const struct plan_question *question;
    struct plan *plan;
    uint64_t size; /* P */
};

static uint64_t greater(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static const struct quire_group_config *group_at(const struct fit *fit, uint32_t index)
{
    return &fit->question->config->groups[index];
}

/* A window that spans the whole sequence is none. */
static uint64_t window_of(const struct fit *fit, uint32_t index)
{
    const uint32_t window = group_at(fit, index)->window;
    return window < fit->question->context ? window : 0;
}

/* The first position that the token at `position` sees, sinks aside. */
static uint64_t window_start(const struct fit *fit, uint32_t index, uint64_t position)
{
    const uint64_t window = window_of(fit, index);
    return window != 0 && position + 1 > window ? position + 1 - window : 0;
}

static uint64_t rolled_back(const struct fit *fit, uint64_t len)
{
    const uint64_t back = fit->question->config->rollback_max;
    return len > back ? len - back : 0;
}

/* The first position that a sequence keeps after its commit at `len`; `start` is where it began,
 * with the window of that position alone. */
static uint64_t kept_from(const struct fit *fit, uint32_t index, uint64_t start, uint64_t len)
{
    return greater(window_start(fit, index, start),
                   window_start(fit, index, rolled_back(fit, len)));
}

/* How many of [range.first, range.end) are at or after `from`, or before `sinks`. */
static uint64_t count_needed(struct range range, uint64_t from, uint64_t sinks)
{
    const uint64_t tail = greater(range.first, from);
    const uint64_t before = lesser(lesser(sinks, from), range.end);
    return (range.end > tail ? range.end - tail : 0) +
           (before > range.first ? before - range.first : 0);
}

static uint64_t sink_positions(const struct fit *fit, uint32_t index)
{
    return window_of(fit, index) != 0 ? group_at(fit, index)->sink_positions : 0;
}

/* Blocks of a group from block `own` on that a sequence which keeps positions from `from` on holds
 * up to `end`. */
static uint64_t blocks_held(const struct fit *fit, uint32_t index, uint64_t own, uint64_t from,
                            uint64_t end)
{
    const struct range range = {own, quire__ceil_div(end, fit->size)};
    return count_needed(range, from / fit->size,
                        quire__ceil_div(sink_positions(fit, index), fit->size));
}

/* Most blocks that a sequence holds while it grows from `start` to `end`. */
static uint64_t most_held(const struct fit *fit, uint64_t start, uint64_t end)
{
    const uint32_t num_groups = fit->question->config->num_groups;
    uint64_t most = 0;
    for (uint64_t len = start; len < end;) {
        const uint64_t after = lesser(len + fit->question->step_tokens, end);
        uint64_t held = 0;
        for (uint32_t g = 0; g < num_groups; g++)
            held += blocks_held(fit, g, start / fit->size, kept_from(fit, g, start, len), after);
        most = greater(most, held);
        len = after;
    }
    return most;
}

/* Bytes of one position in all layers of a group. */
static uint64_t position_bytes(const struct fit *fit, uint32_t index)
{
    const struct quire_group_config *group = group_at(fit, index);
    const struct quire_pool_config *config = fit->question->config;
    const uint32_t dim_v = group->head_dim_v != 0 ? group->head_dim_v : group->head_dim;
    return (uint64_t)group->num_layers * group->num_kv_heads *
           ((uint64_t)quire_kv_data_bytes(config->dtype_k, group->head_dim) +
            quire_kv_scale_bytes(config->dtype_k, group->head_dim) +
            quire_kv_data_bytes(config->dtype_v, dim_v) +
            quire_kv_scale_bytes(config->dtype_v, dim_v));
}

/* Bytes of the positions that are held for a reason, shared ones once. */
static uint64_t useful_bytes(const struct fit *fit)
{
    const uint64_t prefix = fit->question->prefix, context = fit->question->context;
    uint64_t bytes = 0;
    for (uint32_t g = 0; g < fit->question->config->num_groups; g++) {
        const uint64_t sinks = sink_positions(fit, g);
        const struct range shared = {0, prefix}, own = {prefix, context};
        const uint64_t positions =
            count_needed(shared, window_start(fit, g, prefix), sinks) +
            fit->plan->sequences * count_needed(own, kept_from(fit, g, prefix, context), sinks);
        bytes += positions * position_bytes(fit, g);
    }
    return bytes;
}

static void count_groups(const struct fit *fit)
{
    const uint64_t prefix = fit->question->prefix, context = fit->question->context;
    struct plan *plan = fit->plan;
    for (uint32_t g = 0; g < fit->question->config->num_groups; g++) {
        struct plan_group *group = &plan->groups[g];
        group->block_bytes = position_bytes(fit, g) * fit->size;
        group->blocks_shared =
            prefix > 0 ? blocks_held(fit, g, 0, window_start(fit, g, prefix), prefix) : 0;
        group->blocks_sequence =
            blocks_held(fit, g, prefix / fit->size, kept_from(fit, g, prefix, context), context);
        plan->blocks_shared += group->blocks_shared;
        plan->blocks_sequence += group->blocks_sequence;
    }
    plan->blocks_growing = greater(most_held(fit, prefix, context), plan->blocks_sequence);
}

quire_status plan_fit(const struct plan_question *question, struct plan *plan)
{
    const struct quire_pool_config *config = question->config;
    uint64_t all_bytes = 0;
    memset(plan, 0, sizeof *plan);
    if (question->context == 0 || question->prefix >= question->context ||
        question->step_tokens == 0)
        return QUIRE_E_INVAL;
    quire_status status = quire_pool_measure(config, &plan->block_bytes, &all_bytes);
    if (status != QUIRE_OK)
        return status;
    plan->num_blocks =
        config->num_blocks != 0 ? config->num_blocks : config->memory_bytes / plan->block_bytes;
    const struct fit fit = {.question = question, .plan = plan, .size = config->block_size};
    count_groups(&fit);
    /* The prefix is computed before it is pinned, and all but the last sequence are at rest when
     * the last one grows. */
    plan->blocks_first = greater(plan->blocks_shared + plan->blocks_growing,
                                 question->prefix > 0 ? most_held(&fit, 0, question->prefix) : 0);
    if (plan->blocks_first <= plan->num_blocks)
        plan->sequences = 1 + (plan->num_blocks - plan->blocks_shared - plan->blocks_growing) /
                                  plan->blocks_sequence;
    const uint64_t used =
        plan->sequences > 0 ? plan->blocks_shared + plan->sequences * plan->blocks_sequence : 0;
    plan->used_bytes = used * plan->block_bytes;
    plan->waste_bytes = plan->sequences > 0 ? plan->used_bytes - useful_bytes(&fit) : 0;
    const uint64_t pool_bytes =
        config->num_blocks != 0 ? plan->num_blocks * plan->block_bytes : config->memory_bytes;
    plan->left_bytes = pool_bytes - plan->used_bytes;
    return QUIRE_OK;
}
