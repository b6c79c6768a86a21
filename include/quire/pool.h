/* pool.h - the shared allocator: one arena of K/V blocks for one model on one backend.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A pool owns the memory of all K and V, the block tables and lengths on the device, and a host
 * mirror of both. Any number of sequences up to max_seqs share it. Everything is taken at creation;
 * later calls do not allocate, but quire_pool_check.
 *
 * Blocks are shared: a prefix that was computed once is found by every later sequence with the same
 * salt and adapter (seq.h), and stays findable until its blocks are needed.
 *
 * Threads: every function of pool.h, seq.h and step.h may be called from any thread; one mutex
 * guards a pool. A sequence, and a step, belong to one thread at a time. */
#ifndef QUIRE_POOL_H
#define QUIRE_POOL_H

#include <stdint.h>

#include <quire/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

struct quire_pool;

/* Upper ends of what a config may ask for; larger is QUIRE_E_LIMIT. */
#define QUIRE_MAX_LAYERS     4096u
#define QUIRE_MAX_GROUPS     64u
#define QUIRE_MAX_SEQS       65536u
#define QUIRE_MAX_BLOCK_SIZE 65536u
#define QUIRE_MAX_SEQ_LEN    (1u << 30)
#define QUIRE_MAX_HEADS      65536u
#define QUIRE_MAX_HEAD_DIM   65536u

/* Layers that share one block table. Every layer of the model is in exactly one group. */
struct quire_group_config {
    const uint32_t *layers; /* [num_layers] indices of the model's layers, ascending */
    uint32_t num_layers;
    uint32_t num_heads;      /* H, query heads */
    uint32_t num_kv_heads;   /* G, divides H */
    uint32_t head_dim;       /* D of q and K */
    uint32_t head_dim_v;     /* D of V; 0: the same as head_dim */
    uint32_t window;         /* positions a token sees, itself included; 0: all before it */
    uint32_t sink_positions; /* first positions that every token sees besides its window */
};

/* Which cached block goes first when a pool needs one. Either way a chain loses its tail before its
 * head (E1), and blocks that somebody holds never go. */
enum quire_eviction {
    QUIRE_EVICT_LRU = 0,  /* least recently used */
    QUIRE_EVICT_COST = 1, /* recency, and on top the tokens that a block saves, weighed by how often
                             blocks found as often as this one were found again: one-shot prompts do
                             not push out what returns */
};

/* How a pool is made. Fill with quire_pool_config_init, then set backend and groups. All pointers
 * are borrowed for the call, but backend and memory, which must outlive the pool. */
struct quire_pool_config {
    uint32_t struct_size;
    struct quire_backend *backend;
    const struct quire_group_config *groups; /* [num_groups] */
    uint32_t num_groups;
    uint32_t layout;            /* enum quire_layout; default AUTO */
    uint32_t dtype_k, dtype_v;  /* enum quire_dtype F32, F16, BF16, Q8 or Q4; default F16. Q8 and Q4
                                   need head dims that are multiples of 16 */
    uint32_t kv_rotation;       /* enum quire_kv_rotation, of planes in Q8 or Q4; default AUTO */
    uint32_t block_size;        /* P, positions per block; default 16. Contiguous: the positions by
                                   which memory follows the length */
    uint32_t max_seqs;          /* sequences alive at once; default 16 */
    uint32_t max_seq_len;       /* positions of one sequence; default 4096 */
    uint32_t max_step_tokens;   /* rows of one step; default 512 */
    uint32_t max_open_steps;    /* steps open at once; default 4 */
    uint64_t memory_bytes;      /* budget for K and V; default 1 GiB */
    uint32_t num_blocks;        /* blocks instead of a budget; 0: from memory_bytes */
    uint32_t vocab_size;        /* tokens must be below it; 0: any u32 is a token */
    uint32_t eviction;          /* enum quire_eviction; default LRU */
    uint32_t merge_equal;       /* 1: two sequences that computed the same block end with one. For
                                   engines whose rows do not depend on the batch; default 0 */
    uint32_t rollback_max;      /* positions that truncate and fork can take back in a group with a
                                   window, whatever is cached; default 64 */
    uint32_t max_pins;          /* pins alive at once; default 64 */
    uint32_t max_pinned_blocks; /* that all pins together hold; 0: half of the pool */
    uint32_t event_capacity;    /* events kept for quire_pool_events; 0, the default: none */
    uint32_t recent_lookups;    /* lookups that the recent_* figures look back on; default 1000 */
    void *memory; /* caller's arena of memory_bytes, 64-byte aligned; NULL: the backend's.
                     Contiguous needs max_seqs whole regions in it */
};

/* Blocks by state, and what they cost. At every quiescent point
 * free + owned + cached + in_transit = total. */
struct quire_pool_stats {
    uint32_t struct_size;
    uint32_t layout;      /* the layout AUTO became */
    uint32_t block_size;  /* P, or the growth of a contiguous sequence */
    uint64_t block_bytes; /* K and V of every layer of one group over P positions */
    uint64_t blocks_total;
    uint64_t blocks_free;
    uint64_t blocks_owned;      /* held by a sequence, a step or a pin */
    uint64_t blocks_cached;     /* held by nobody, findable; any allocation may take them */
    uint64_t blocks_in_transit; /* 0 in this version */
    uint64_t blocks_peak;       /* most blocks not free at any moment */
    uint64_t bytes_used;        /* of K and V in blocks that are not free */
    uint64_t metadata_bytes;    /* host memory for blocks, index, tables, tokens, as reserved */
    uint64_t block_meta_bytes;  /* of it, what each block costs without tokens and tables */
    uint32_t seqs;
    uint32_t open_steps;
    uint64_t steps_committed;
    uint64_t steps_aborted;
    uint64_t uploads; /* of tables and lengths: one for each begin; none without K/V */

    /* The prefix index, since creation. */
    uint64_t index_nodes;   /* block-sized token runs that the index knows now */
    uint64_t blocks_pinned; /* that pins hold, one of several pins counted for each */
    uint32_t pins;
    uint64_t lookups;           /* sequences created with tokens, and rematches */
    uint64_t lookup_tokens;     /* that they asked for */
    uint64_t hit_tokens;        /* that they got */
    uint64_t recent_lookups;    /* the same three over the last config.recent_lookups of them */
    uint64_t recent_tokens;     /*   (empty token lists do not count) */
    uint64_t recent_hit_tokens; /*   */
    uint64_t blocks_stored;     /* became findable */
    uint64_t blocks_evicted;    /* were taken from the cache for others */
    uint64_t blocks_copied;     /* copied because somebody else could read them */
    uint64_t blocks_merged;     /* given back because an equal block was there */
    uint64_t blocks_dropped;    /* forgotten by quire_pool_drop or _drop_prefix */
    uint64_t blocks_released;   /* fell out of a window while their sequence lived */
    uint64_t events_lost;
};

/* What one group owns. */
struct quire_group_stats {
    uint32_t struct_size;
    uint32_t window; /* 0: full attention */
    uint32_t sink_positions;
    uint32_t num_layers;
    uint64_t block_bytes_used; /* of a block's bytes, those that this group's layers fill */
    uint64_t blocks_owned;
    uint64_t blocks_cached;
};

/* ---- events ---- */

/* X(name, value, text). Blocks are physical indices. A block is stored once, and again with more
 * tokens while it fills; evicted or dropped comes before it is stored with others, so an index
 * names one content at a time. quire_pool_reset drops all that is cached.
 *
 * STORED   the block became findable, or more of it: num_tokens are its first ones; parent: the
 *          block of the same group before it in its prefix
 * SHARED   a lookup or a fork took blocks; block: the last of them, num_tokens: all positions taken
 * COPIED   a writer got its own copy; parent: the block copied from, num_tokens: rows copied
 * EVICTED  the block was taken for another use
 * DROPPED  the block was forgotten because somebody asked for it */
#define QUIRE_EVENT_LIST(X)                                                                        \
    X(STORED, 0, "stored")                                                                         \
    X(SHARED, 1, "shared")                                                                         \
    X(COPIED, 2, "copied")                                                                         \
    X(EVICTED, 3, "evicted")                                                                       \
    X(DROPPED, 4, "dropped")

enum quire_event_kind {
#define QUIRE_EVENT_ENUM(name, value, text) QUIRE_EVENT_##name = (value),
    QUIRE_EVENT_LIST(QUIRE_EVENT_ENUM)
#undef QUIRE_EVENT_ENUM
};

struct quire_event {
    uint64_t number; /* counts all events of the pool from 0 on: a gap is what was lost */
    uint32_t kind;   /* enum quire_event_kind */
    uint32_t group;
    uint32_t block;
    uint32_t parent;     /* or QUIRE_BLOCK_NONE */
    uint32_t num_tokens; /* of the block, or as the kind says */
};

/* Sets every field of a config to its default.
 *
 * config: written whole; not NULL.
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API void quire_pool_config_init(struct quire_pool_config *config);

/* Makes a pool. Every unsupported request is refused here, never at the first step.
 *
 * config: from _init, borrowed; *out: owned by the caller until quire_pool_destroy; error:
 * optional. Statuses: INVAL for NULL, bad struct_size, zero or contradictory shapes (H not a
 * multiple of G, a layer in no group or in two); LIMIT over a QUIRE_MAX_*; UNSUPPORTED where the
 * backend lacks the layout, dtype, head dim or block size, or the dtype the head dim (the message
 * lists what there is); NOSPACE
 * when the budget holds less than one block a group (the message says how much is needed); NOMEM.
 * Threads: any.
 * Cost: fills the device's tables (4 bytes a slot: groups * max_seqs * max_seq_len / P), makes a
 * record of 16 bytes a block, and takes
 * the plans' scratch; the arena is reserved, and touched as blocks are used. */
QUIRE_API quire_status quire_pool_create(const struct quire_pool_config *config,
                                         struct quire_pool **out, struct quire_error *error);

/* Frees a pool with all its sequences and open steps. Its handles are dead afterwards.
 *
 * pool: from quire_pool_create, or NULL.
 * Statuses: none.
 * Threads: the last user.
 * Cost: waits for the backend's queued work on the pool. */
QUIRE_API void quire_pool_destroy(struct quire_pool *pool);

/* Ends every sequence and every pin and frees every block, and clears a device error. An error is
 * the backend's: every pool on it has lost what it held, and must be reset before it is used.
 *
 * pool: not NULL.
 * Statuses: INVAL for NULL; BUSY while a step is open; DEVICE where the device is lost for good.
 * Threads: any.
 * Cost: O(blocks owned + max_seqs), and O(log) a cached block. */
QUIRE_API quire_status quire_pool_reset(struct quire_pool *pool);

/* Reads the counters and gauges of a pool.
 *
 * pool: not NULL; stats: struct_size set by the caller, the rest written.
 * Statuses: INVAL for NULL or a bad struct_size.
 * Threads: any; the values are of one moment.
 * Cost: constant. */
QUIRE_API quire_status quire_pool_stats(struct quire_pool *pool, struct quire_pool_stats *stats);

/* Verifies the invariants of blocks and sequences: every block in one state, references equal to
 * table entries, the sum of states equal to the total.
 *
 * pool: not NULL; error: optional, names the first block and invariant that fails.
 * Statuses: INVAL for NULL; CORRUPT when an invariant is broken, which is a bug of the library or
 * foreign writes to its memory; NOMEM.
 * Threads: any.
 * Cost: O(blocks + table entries in use). */
QUIRE_API quire_status quire_pool_check(struct quire_pool *pool, struct quire_error *error);

/* Slices groups so that all of them fill a block about equally, as every block of a pool has the
 * bytes of the largest group: 3 layers of full attention beside 15 with a window become one group
 * of 3 and five of 3. Layers of one input group stay in order and keep their geometry.
 *
 * groups [num_groups]: what the model has, one for each kind of layer; out [max_out]: the slices,
 * whose `layers` point into the arrays of `groups`; *num_out: how many.
 * Statuses: INVAL for NULL, no groups or a group without layers, heads or elements; LIMIT over a
 * QUIRE_MAX_*, or when max_out is below num_groups (else few places make larger slices).
 * Threads: any.
 * Cost: O(layers * groups). */
QUIRE_API quire_status quire_groups_balance(const struct quire_group_config *groups,
                                            uint32_t num_groups, struct quire_group_config *out,
                                            uint32_t max_out, uint32_t *num_out);

/* Reads what one group of a paged pool owns.
 *
 * pool: not NULL; group: below num_groups; stats: struct_size set by the caller, the rest written.
 * Statuses: INVAL for NULL, no such group or a bad struct_size; UNSUPPORTED in the contiguous
 * layout, where a block belongs to all groups.
 * Threads: any.
 * Cost: O(blocks). */
QUIRE_API quire_status quire_pool_group_stats(struct quire_pool *pool, uint32_t group,
                                              struct quire_group_stats *stats);

/* Takes events out of the pool's ring, oldest first, without its mutex. None come in the contiguous
 * layout, where nothing is shared.
 *
 * pool: made with event_capacity > 0; events [max_events]; *count: how many were taken; *lost: how
 * many the full ring refused since creation, optional.
 * Statuses: INVAL for NULL; UNSUPPORTED without a ring.
 * Threads: one at a time; any other call may run beside it.
 * Cost: a copy of what is taken. */
QUIRE_API quire_status quire_pool_events(struct quire_pool *pool, struct quire_event *events,
                                         uint32_t max_events, uint32_t *count, uint64_t *lost);

/* Bytes of K and V that one block of each group takes in a geometry, without making a pool.
 *
 * config: from _init, with groups, dtypes and block_size set, borrowed (backend is not used,
 * AUTO counts as paged);
 * *block_bytes: bytes of one page; *position_bytes: bytes of one position over all layers.
 * Statuses: INVAL, LIMIT and UNSUPPORTED (a dtype and a head dim that do not go together) as
 * quire_pool_create.
 * Threads: any.
 * Cost: O(layers). */
QUIRE_API quire_status quire_pool_measure(const struct quire_pool_config *config,
                                          uint64_t *block_bytes, uint64_t *position_bytes);

#ifdef __cplusplus
}
#endif
#endif
