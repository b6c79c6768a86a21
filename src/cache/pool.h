/* pool.h - the inside of a pool, shared by the files of src/cache.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_CACHE_POOL_H
#define QUIRE_CACHE_POOL_H

#include "base/base.h"
#include "cache/blocks.h"
#include "cache/events.h"
#include "cache/evict.h"
#include "cache/index.h"
#include "cache/layout.h"
#include "cache/tenants.h"

#include <pthread.h>

#include <quire/quire.h>

#define QUIRE__NO_STEP UINT32_MAX
#define QUIRE__CLEAN   UINT32_MAX /* of dirty_from: the device knows the whole row */
#define QUIRE__NO_TWIN UINT32_MAX /* of twins_from */

/* A slot for one sequence. Its rows in the pool's arrays are those of its index. */
struct quire__seq {
    uint32_t generation; /* counts the sequences that lived here */
    bool live;
    bool has_tokens;        /* false once a step without tokens was committed */
    bool wipe;              /* its tenant was dropped: what it lets go is zeroed */
    bool hidden;            /* its prefix was dropped: what it computes is not findable */
    uint32_t step;          /* index of the open step that holds it, or QUIRE__NO_STEP */
    uint32_t len;           /* committed positions */
    uint32_t num_blocks;    /* in every table, from 0 on (S1) */
    uint32_t num_published; /* of them, full ones that the path to the cursor stands for */
    uint32_t tail_count;    /* tokens known behind those (S3) */
    uint32_t cursor;        /* node of the last published block, or the tenant's root */
    uint32_t twins_from;    /* published blocks before it are those that their nodes name */
    uint32_t dirty_from;    /* the device does not know the tables from this block on */
    uint32_t hit_tokens;
    uint32_t tenant;    /* number of its salt */
    uint32_t next_free; /* while not live: the next free slot, or max_seqs */
    uint64_t salt;
    uint64_t adapter;
};

/* A contiguous region remembers whose rows it may hold after its sequence has ended (T2). */
struct quire__region {
    uint32_t tenant;
    uint32_t high; /* positions that may hold rows */
};

struct quire__pin {
    uint32_t generation;
    bool live;
    uint32_t len;    /* positions pinned */
    uint32_t node;   /* of its last block, which counts it as a cursor */
    uint32_t blocks; /* references it holds */
    uint32_t next_free;
};

struct quire__step_item {
    uint32_t slot;
    uint32_t n_new;
    uint32_t num_blocks_before;
    bool has_tokens;
    bool rows_written; /* by quire_seq_write */
};

/* A slot for one open step; its memory is taken when the pool is created. */
struct quire__step {
    uint32_t generation;
    bool open;
    bool external; /* the engine writes K and V itself: quire_step_view was asked */
    uint32_t num_items;
    uint32_t num_tokens;
    uint32_t num_layers_written;
    struct quire__step_item *items;  /* [max_items] */
    uint32_t *tokens;                /* [max_step_tokens] of items that have some */
    uint32_t *originals;             /* [max_items][num_tables] blocks that were copied, or NONE */
    struct quire_block_copy *copies; /* [max_items * num_tables] */
    uint32_t num_copies;
    struct quire_step_part *parts; /* [max_items] */
    uint8_t *layer_written;        /* [num_layers] */
    struct quire_plan *plan;       /* NULL on a backend without K/V */
    uint32_t *qo_indptr;           /* [max_items + 1] the arrays of quire_step_view */
    uint32_t *kv_indptr;           /* [max_items + 1] */
    uint32_t *last_page_len;       /* [max_items] */
    uint64_t *slot_mapping;        /* [max_step_tokens] */
    uint32_t *kv_indices;          /* [max_items * max_blocks], reserved */
};

/* Counters of quire_pool_stats. */
struct quire__figures {
    uint64_t steps_committed, steps_aborted, uploads;
    uint64_t lookups, lookup_tokens, hit_tokens;
    uint64_t stored, evicted, copied, merged, dropped, released;
};

/* The last lookups, a ring of tokens asked and found. */
struct quire__recent {
    uint32_t (*ring)[2]; /* [capacity] */
    uint32_t capacity, count, next;
    uint64_t tokens, hit_tokens;
};

/* One mutex guards everything below `mutex`. */
struct quire_pool {
    struct quire_backend *backend;
    struct quire__layout layout;
    bool has_kv;  /* the backend holds K and V */
    bool commits; /* memory of a contiguous sequence follows its length */
    uint32_t max_seqs;
    uint32_t max_items; /* of one step */
    uint32_t max_step_tokens;
    uint32_t max_open_steps;
    uint32_t max_pins;
    uint32_t max_pinned_blocks;
    uint32_t vocab_size; /* 0: any */
    uint32_t rollback_max;
    bool merges;          /* equal blocks */
    uint32_t tail_stride; /* tokens kept for each sequence beside the index */
    uint64_t metadata_bytes, block_meta_bytes;
    struct quire_buffer *arena;
    struct quire_buffer *tables; /* on the device: block tables, then lengths at lens_offset */
    uint64_t lens_offset;

    pthread_mutex_t mutex;
    bool failed; /* a device error was seen; only reset goes on */
    struct quire__blocks blocks;
    struct quire__index index; /* paged only */
    struct quire__evictor evictor;
    struct quire__events events;
    struct quire__recent recent;
    struct quire__tenants tenants;
    struct quire__figures figures;
    struct quire__seq *seqs;   /* [max_seqs] */
    uint32_t first_free_seq;   /* heads a list through next_free; max_seqs ends it */
    struct quire__step *steps; /* [max_open_steps] */
    struct quire__pin *pins;   /* [max_pins] */
    uint32_t first_free_pin;   /* as first_free_seq */
    uint32_t num_pins, num_pinned_blocks;
    struct quire__region *regions; /* [max_seqs] contiguous only */
    uint32_t *table_indices;       /* [num_tables][max_seqs][max_blocks] host mirror, reserved */
    uint32_t *first;               /* [max_seqs][num_tables] first block from the window on */
    uint32_t *path;                /* [max_blocks] nodes of one walk */
    uint32_t *lens;                /* [max_seqs] host mirror */
    uint32_t *tails;               /* [max_seqs][tail_stride], reserved */
    struct quire_upload *uploads;  /* [max_items * (num_tables + 1)] of begin; [G] of seq_write */
    struct quire_range *ranges;    /* [2 * G] */
    uint8_t *bounce;               /* QUIRE__BOUNCE_ROWS rows of every head of a layer */
    uint32_t num_live, num_open;
};

/* Positions that quire_seq_read and quire_seq_write move at a time. */
#define QUIRE__BOUNCE_ROWS 64u

static inline void quire__pool_lock(struct quire_pool *pool)
{
    (void)pthread_mutex_lock(&pool->mutex);
}
static inline void quire__pool_unlock(struct quire_pool *pool)
{
    (void)pthread_mutex_unlock(&pool->mutex);
}

/* Remembers a device error, and returns the status. */
static inline quire_status quire__pool_note(struct quire_pool *pool, quire_status status)
{
    pool->failed = pool->failed || status == QUIRE_E_DEVICE;
    return status;
}

/* Halves the evictor's time when it is old. */
void quire__pool_keep_young(struct quire_pool *pool);
/* Whether all tokens (NULL: none) are below vocab_size. */
bool quire__pool_has_tokens(const struct quire_pool *pool, const uint32_t *tokens, uint32_t count);

/* The first entry of a sequence's row in one table, as an index of the pool's mirrors. */
static inline uint64_t quire__pool_row(const struct quire_pool *pool, uint32_t table, uint32_t slot)
{
    return ((uint64_t)table * pool->max_seqs + slot) * pool->layout.max_blocks;
}

/* Blocks that a sequence holds in one table: entries below num_blocks that are in its sinks, or
 * from `first` on. The others hold QUIRE_BLOCK_NONE. */
static inline uint32_t *quire__seq_entries(const struct quire_pool *pool,
                                           const struct quire__seq *seq, uint32_t table)
{
    return pool->table_indices + quire__pool_row(pool, table, (uint32_t)(seq - pool->seqs));
}
static inline uint32_t *quire__seq_first(const struct quire_pool *pool,
                                         const struct quire__seq *seq)
{
    return pool->first + (uint64_t)(seq - pool->seqs) * pool->layout.num_tables;
}
static inline uint32_t *quire__seq_tail(const struct quire_pool *pool, const struct quire__seq *seq)
{
    return pool->tails + (uint64_t)(seq - pool->seqs) * pool->tail_stride;
}

/* create.c: S2 from the start: every slot on the device holds QUIRE_BLOCK_NONE, whose bytes are all
 * 0xff; or, contiguous, the one page of its sequence. */
quire_status quire__pool_fill_tables(struct quire_pool *pool);

/* seq.c */

/* The live sequence that a handle names; NULL for a stale one. */
struct quire__seq *quire__seq_find(struct quire_pool *pool, quire_seq seq);
/* Locks the pool and finds a sequence; unlocked again when the handle is stale. */
struct quire__seq *quire__seq_lock(struct quire_pool *pool, quire_seq seq);
/* Slot of a sequence. */
static inline uint32_t quire__seq_slot(const struct quire_pool *pool, const struct quire__seq *seq)
{
    return (uint32_t)(seq - pool->seqs);
}
/* Starts an empty sequence in a free slot, of which there is one; returns its handle. */
quire_seq quire__seq_start(struct quire_pool *pool, uint64_t salt, uint64_t adapter,
                           struct quire__seq **seq);
/* Grows a sequence to `num_blocks` in each table. The caller has seen that they are available. */
void quire__seq_grow(struct quire_pool *pool, struct quire__seq *seq, uint32_t num_blocks);
/* Gives the blocks past the first `num_blocks` of each table back, the last first, and keeps S2. */
void quire__seq_shrink(struct quire_pool *pool, struct quire__seq *seq, uint32_t num_blocks);
/* Whether the windows of position `len` can be had, held or from the index. Where the index is
 * needed, pool->path has the nodes afterwards; *longest (optional) is set when they cannot. */
bool quire__seq_can_return(struct quire_pool *pool, const struct quire__seq *seq, uint32_t len,
                           uint32_t *longest);
/* Ends a sequence: its blocks are cached or free and its handle stale. */
void quire__seq_end(struct quire_pool *pool, struct quire__seq *seq);
static inline void quire__seq_mark_dirty(struct quire__seq *seq, uint32_t block)
{
    seq->dirty_from = block < seq->dirty_from ? block : seq->dirty_from;
}

/* rows.c: contiguous regions of dropped tenants. */

/* Zeroes the rows that a region may hold; notes that it holds none. */
void quire__region_wipe(struct quire_pool *pool, uint32_t slot);
void quire__region_forget(struct quire_pool *pool, uint32_t slot);

/* step.c */
quire_status quire__step_init(struct quire_pool *pool, struct quire__step *step);
void quire__step_deinit(struct quire_pool *pool, struct quire__step *step);

#endif
