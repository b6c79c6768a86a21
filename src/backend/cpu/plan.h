/* plan.h - a step as the CPU does it: units of work for each class of layers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_PLAN_H
#define QUIRE_BACKEND_CPU_PLAN_H

#include "backend/cpu/cpu.h"

enum {
    QUIRE__UNIT_ROWS = 512, /* rows (tokens x query heads) of a unit; half where units are few */
    QUIRE__WRITE_TOKENS = 32,
};
#define QUIRE__ALL_SPLITS UINT32_MAX

/* One token of a step. Those of a part follow each other, and so do the parts of a family. */
struct quire__token {
    uint32_t position; /* in its sequence */
    uint32_t part;
    uint32_t row; /* of the step's rows */
};

/* Parts whose tables begin with the same pages: they read the first `shared` splits together. */
struct quire__family {
    uint32_t token, num_tokens;
    uint32_t shared; /* splits that every token of the family sees whole; 0: a part by itself */
};

/* What one thread does at a time: some tokens, some K/V heads, and either all splits, or some,
 * whose states go, merged, to the tokens' slots. Tokens of several parts share splits of their
 * common pages. */
struct quire__unit {
    uint32_t token, num_tokens;
    uint32_t head, num_heads;   /* K/V heads */
    uint32_t split, num_splits; /* several only from the first on; split: or QUIRE__ALL_SPLITS */
    uint32_t index;             /* of the slot, among those of a row */
};

/* Tokens whose slots are to be merged in order. */
struct quire__merge {
    uint32_t token, num_tokens;
    uint32_t head, num_heads;
    uint32_t num_slots; /* of each row */
};

/* Layers with equal geometry share their units. The states of a token in slots: the row of query
 * head h in its slot i, of a split or of several, is first_slot[token] + i * num_heads + h. */
struct quire__class {
    uint32_t num_heads, num_kv_heads, window, sink_positions;
    uint32_t num_units, num_merges;
    uint64_t num_slots;          /* in use */
    struct quire__unit *units;   /* [max_units] */
    struct quire__merge *merges; /* [max_merges] */
    uint32_t *first_slot;        /* [max_step_tokens] */
};

/* One thread's working memory, all of it inside one allocation. */
struct quire__scratch {
    void *q, *tile;
    float *s, *state, *total;
    float *max, *sum, *slope; /* [rows] */
    float *distance;          /* [tiles at once][rows], as mask */
    uint64_t *mask;
    const float **q_rows;
    float *turned; /* [rows][dim] q, where K is stored turned */
    /* [now, next][tiles at once][K, V, their scales][64]: of K/V head 0, and of each in turn */
    const uint8_t **pages[2][QUIRE__TILES_AT_ONCE][4], **rows[2][QUIRE__TILES_AT_ONCE][4];
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
    struct quire__token *tokens;    /* [max_step_tokens] */
    struct quire__family *families; /* [max_seqs + 1] */
    uint32_t *first_token;          /* [max_seqs] of a part */
    uint32_t *heads;                /* [num_heads] of lists of parts, by their first page */
    uint32_t num_heads;             /* a power of two */
    uint32_t *next_part, *common;   /* [max_seqs] the list; splits shared with its first */
    uint32_t num_parts, num_families;
    uint32_t num_rows;   /* of the views that the step's calls take */
    uint32_t num_tokens; /* of all parts: at most num_rows */
    uint64_t max_slots;
    float *slots; /* [max_slots][slot_floats], reserved */
    uint64_t slot_floats;
    uint8_t *scratch_memory;
    struct quire__scratch *scratch; /* [num_threads] */
};

/* A slot of the plan's partial results. */
static inline float *quire__plan_slot(const struct quire_plan *plan, uint64_t slot)
{
    return plan->slots + slot * plan->slot_floats;
}

/* The positions that token position t sees, less the sinks: first .. t. */
static inline uint32_t quire__window_start(uint32_t window, uint32_t t)
{
    return window != 0 && t >= window ? t - window + 1 : 0;
}

/* Splits that tokens of a class see through their window, and before them those that hold sinks. */
struct quire__splits {
    uint32_t sinks_end, first, end;
};

static inline struct quire__splits quire__splits_of(const struct quire__class *c,
                                                    uint32_t first_position, uint32_t last_position)
{
    uint32_t first = quire__window_start(c->window, first_position) / QUIRE__SPLIT;
    uint32_t sinks = (uint32_t)quire__ceil_div(c->sink_positions, QUIRE__SPLIT);
    return (struct quire__splits){sinks < first ? sinks : first, first,
                                  last_position / QUIRE__SPLIT + 1};
}

/* One plane of a layer's heads: the data of P rows, then their scales. */
struct quire__kv_plane {
    uint32_t dtype, dim;
    bool rotated;
    uint32_t data_bytes, scale_bytes; /* of a row */
    uint64_t offset;                  /* in a page */
    uint64_t positions;               /* P */
    uint8_t *pages;                   /* page 0 */
    uint64_t page_bytes;              /* between pages */
};

static inline struct quire__kv_plane quire__kv_plane(const struct quire_kv_spec *spec,
                                                     const struct quire_kv_layer *layer, bool is_k)
{
    uint32_t dtype = is_k ? layer->dtype_k : layer->dtype_v;
    uint32_t dim = is_k ? layer->head_dim : layer->head_dim_v;
    const struct quire_buffer *own = is_k ? layer->k_buffer : layer->v_buffer;
    return (struct quire__kv_plane){
        .dtype = dtype,
        .dim = dim,
        .rotated = (is_k ? layer->rotated_k : layer->rotated_v) != 0,
        .data_bytes = quire_kv_data_bytes(dtype, dim),
        .scale_bytes = quire_kv_scale_bytes(dtype, dim),
        .offset = is_k ? layer->k_offset : layer->v_offset,
        .positions = spec->positions_per_page,
        .pages = own != NULL ? own->data : spec->arena->data,
        .page_bytes = own == NULL ? spec->page_bytes
                      : is_k      ? layer->k_page_bytes
                                  : layer->v_page_bytes,
    };
}

static inline uint8_t *quire__kv_page(const struct quire__kv_plane *plane, uint32_t page)
{
    return plane->pages + page * plane->page_bytes;
}

/* Offsets in a page: of a head's first row, and of its first scales. */
static inline uint64_t quire__kv_data_at(const struct quire__kv_plane *plane, uint64_t head)
{
    return plane->offset +
           head * plane->positions * ((uint64_t)plane->data_bytes + plane->scale_bytes);
}

static inline uint64_t quire__kv_scales_at(const struct quire__kv_plane *plane, uint64_t head)
{
    return quire__kv_data_at(plane, head) + plane->positions * plane->data_bytes;
}

/* build.c */
quire_status quire__cpu_plan_build(struct quire_backend *, struct quire_plan *,
                                   const struct quire_step_desc *);
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
