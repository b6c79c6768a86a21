/* pool.h - the inside of a pool, shared by the files of src/cache.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_CACHE_POOL_H
#define QUIRE_CACHE_POOL_H

#include "base/base.h"
#include "cache/blocks.h"
#include "cache/layout.h"

#include <pthread.h>

#include <quire/quire.h>

#define QUIRE__NO_STEP UINT32_MAX

/* A slot for one sequence. Its rows in the pool's arrays are those of its index. */
struct quire__seq {
    uint32_t generation; /* counts the sequences that lived here */
    bool live;
    bool has_tokens;     /* false once a step without tokens was committed */
    uint32_t step;       /* index of the open step that holds it, or QUIRE__NO_STEP */
    uint32_t len;        /* committed positions */
    uint32_t num_tokens; /* tokens known, from position 0 on (S3) */
    uint32_t num_blocks; /* owned in every table (S1) */
    uint32_t next_free;  /* while not live: the next free slot, or max_seqs */
    uint64_t salt;
    uint64_t adapter;
};

struct quire__step_item {
    uint32_t slot;
    uint32_t n_new;
    uint32_t num_blocks_before;
    bool has_tokens;
};

/* A slot for one open step; its memory is taken when the pool is created. */
struct quire__step {
    uint32_t generation;
    bool open;
    bool external; /* the engine writes K and V itself: quire_step_view was asked */
    uint32_t num_items;
    uint32_t num_tokens;
    uint32_t num_layers_written;
    struct quire__step_item *items; /* [max_items] */
    struct quire_step_part *parts;  /* [max_items] */
    uint8_t *layer_written;         /* [num_layers] */
    struct quire_plan *plan;        /* NULL on a backend without K/V */
    uint32_t *qo_indptr;            /* [max_items + 1] the arrays of quire_step_view */
    uint32_t *kv_indptr;            /* [max_items + 1] */
    uint32_t *last_page_len;        /* [max_items] */
    uint64_t *slot_mapping;         /* [max_step_tokens] */
    uint32_t *kv_indices;           /* [max_items * max_blocks], reserved */
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
    uint64_t metadata_bytes;
    struct quire_buffer *arena;
    struct quire_buffer *tables; /* on the device: block tables, then lengths at lens_offset */
    uint64_t lens_offset;

    pthread_mutex_t mutex;
    bool failed; /* a device error was seen; only reset goes on */
    struct quire__blocks blocks;
    struct quire__seq *seqs;      /* [max_seqs] */
    uint32_t first_free_seq;      /* heads a list through next_free; max_seqs ends it */
    struct quire__step *steps;    /* [max_open_steps] */
    uint32_t *table_indices;      /* [num_tables][max_seqs][max_blocks] host mirror, reserved */
    uint32_t *table_generations;  /* the same shape */
    uint32_t *lens;               /* [max_seqs] host mirror */
    uint32_t *tokens;             /* [max_seqs][max_seq_len], reserved */
    struct quire_upload *uploads; /* [max_items * (num_tables + 1)] of begin; [G] of seq_write */
    struct quire_range *ranges;   /* [2 * G] */
    uint8_t *bounce;              /* QUIRE__BOUNCE_ROWS rows of every head of a layer */
    uint32_t num_live, num_open;
    uint64_t steps_committed, steps_aborted, num_uploads;
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

/* The first entry of a sequence's row in one table, as an index of the pool's mirrors. */
static inline uint64_t quire__pool_row(const struct quire_pool *pool, uint32_t table, uint32_t slot)
{
    return ((uint64_t)table * pool->max_seqs + slot) * pool->layout.max_blocks;
}

/* S2 from the start: every slot on the device holds QUIRE_BLOCK_NONE, whose bytes are all 0xff; or,
 * contiguous, the one page of its sequence. */
quire_status quire__pool_fill_tables(struct quire_pool *pool);

/* The live sequence that a handle names; NULL for a stale one. */
struct quire__seq *quire__seq_find(struct quire_pool *pool, quire_seq seq);
/* Slot of a sequence. */
static inline uint32_t quire__seq_slot(const struct quire_pool *pool, const struct quire__seq *seq)
{
    return (uint32_t)(seq - pool->seqs);
}
/* Grows a sequence to `num_blocks` in each table. The caller has seen that they are free. */
void quire__seq_grow(struct quire_pool *pool, struct quire__seq *seq, uint32_t num_blocks);
/* Gives the blocks past the first `num_blocks` of each table back, and keeps S2. */
void quire__seq_shrink(struct quire_pool *pool, struct quire__seq *seq, uint32_t num_blocks);
/* Ends a sequence: its blocks are free and its handle stale. */
void quire__seq_end(struct quire_pool *pool, struct quire__seq *seq);

quire_status quire__step_init(struct quire_pool *pool, struct quire__step *step);
void quire__step_deinit(struct quire_pool *pool, struct quire__step *step);

#endif
