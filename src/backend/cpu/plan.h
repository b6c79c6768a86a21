/* plan.h - a step as the CPU does it: units of work for each class of layers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_PLAN_H
#define QUIRE_BACKEND_CPU_PLAN_H

#include "backend/cpu/cpu.h"

enum {
    QUIRE__CHUNK_ROWS = 96, /* rows (tokens x heads of a group) that share one load of a tile */
    QUIRE__SPLIT_ROWS = 16, /* chunks of more rows are not split over threads */
    QUIRE__WRITE_TOKENS = 32,
    QUIRE__NO_SLOT = -1,
};

/* Some tokens of one part, one K/V head, and either all splits (slot < 0) or one, whose states go
 * to slots slot .. slot + rows of the plan's partial results. */
struct quire__unit {
    uint32_t part;
    uint32_t token, num_tokens; /* in the part */
    uint32_t kv_head;
    uint32_t split, num_splits;
    int64_t slot;
};

/* The splits of one part and K/V head that lie in slots and are to be merged in order: the states
 * of split i, row r are at slot + i * rows + r. */
struct quire__merge {
    struct quire__unit unit;
    uint32_t num_slots; /* splits that see anything */
};

/* Layers with equal geometry share their units. */
struct quire__class {
    uint32_t num_heads, num_kv_heads, window, sink_positions;
    uint32_t num_units, num_merges;
    uint64_t num_slots;          /* in use */
    struct quire__unit *units;   /* [max_units] */
    struct quire__merge *merges; /* [max_merges] */
};

/* One thread's working memory, all of it inside one allocation. */
struct quire__scratch {
    float *q, *s, *keys, *values, *state, *total;
    float *slope, *distance;
    uint64_t *mask;
    const void **key_rows, **value_rows;
};

struct quire_plan {
    struct quire__cpu *cpu;
    struct quire_kv_spec spec;
    uint32_t *layer_class; /* [num_layers] */
    struct quire__class *classes;
    uint32_t num_classes;
    uint32_t *kinds; /* [num_kinds] one layer of each pair of group and class */
    uint32_t num_kinds;
    uint32_t max_units, max_merges; /* of one class */
    struct quire_step_part *parts;  /* [max_seqs] */
    uint32_t num_parts, num_tokens;
    uint32_t num_write_units;
    struct quire__unit *write_units;
    uint64_t max_slots;
    float *slots; /* [max_slots][slot_floats], reserved */
    uint64_t slot_floats;
    uint8_t *scratch_memory;
    struct quire__scratch *scratch; /* [num_threads] */
};

/* A slot of the plan's partial results. */
static inline float *quire__plan_slot(const struct quire_plan *plan, int64_t slot)
{
    return plan->slots + (uint64_t)slot * plan->slot_floats;
}

/* The positions that token position t sees, less the sinks: first .. t. */
static inline uint32_t quire__window_start(uint32_t window, uint32_t t)
{
    return window != 0 && t >= window ? t - window + 1 : 0;
}

/* write.c, attend.c */
quire_status quire__cpu_copy(struct quire_backend *, struct quire_plan *,
                             const struct quire_block_copy *copies, uint32_t num_copies);
quire_status quire__cpu_write(struct quire_backend *, struct quire_plan *, uint32_t layer,
                              const struct quire_view *k, const struct quire_view *v);
quire_status quire__cpu_attend(struct quire_backend *, struct quire_plan *, uint32_t layer,
                               const struct quire_view *q, const struct quire_view *out,
                               const struct quire_attend_params *params);

/* The table row of one sequence: physical pages by logical index. */
static inline const uint32_t *quire__plan_table(const struct quire_plan *plan, uint32_t group,
                                                uint32_t slot)
{
    const struct quire_kv_spec *spec = &plan->spec;
    uint64_t row = (uint64_t)group * spec->max_seqs + slot;
    return (const uint32_t *)(const void *)spec->tables->data + row * spec->max_blocks;
}

#endif
