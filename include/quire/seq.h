/* seq.h - sequences: one token stream each, and the per-layer view of their K and V.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_SEQ_H
#define QUIRE_SEQ_H

#include <stdint.h>

#include <quire/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A sequence of one pool: slot and generation. A handle of an ended sequence is refused with INVAL,
 * also when its slot lives again. {0} is never a sequence. */
typedef struct quire_seq {
    uint64_t id;
} quire_seq;

/* What a sequence starts from. Fill with quire_seq_config_init. This version caches no prefixes: a
 * sequence starts empty whatever its tokens are. */
struct quire_seq_config {
    uint32_t struct_size;
    const uint32_t *tokens; /* [num_tokens] the prompt to look up, borrowed; NULL: none */
    uint32_t num_tokens;
    uint64_t salt;      /* namespace of a tenant: sequences with different salts never share */
    uint64_t adapter;   /* weights beside the model's, as a LoRA: never shared across adapters */
    uint32_t no_lookup; /* 1: start empty whatever is cached */
};

/* The cache of one layer of one sequence, as a model or kernel sees it. Element (h, t, d) lies, in
 * elements of its dtype,
 *   contiguous: at h*capacity*D + t*D + d of k (or v);
 *   paged: at block_table[t/P]*block_stride + h*(P*D) + (t%P)*D + d of k (or v).
 * It is a view: len is the committed length when it was taken, everything else stays as long as the
 * sequence lives. */
struct quire_kv_cache {
    struct quire_view k; /* contiguous [G, capacity, D]; paged: the first block's [G, P, D] of K */
    struct quire_view v; /* the same for V */
    uint64_t block_stride_k; /* elements between blocks; 0 when contiguous */
    uint64_t block_stride_v;
    uint32_t num_blocks; /* blocks of the arena; 0 when contiguous */
    uint32_t len;        /* valid positions */
    uint32_t capacity;   /* positions addressable: max_seq_len, or max_num_blocks_per_seq * P */
    uint32_t num_kv_heads;
    uint32_t head_dim;
    uint32_t head_dim_v;
    uint32_t dtype_k, dtype_v;
    uint32_t window;
    uint32_t sink_positions;
    uint32_t block_size;            /* P; 0 when contiguous */
    struct quire_view block_table;  /* u32 [max_num_blocks_per_seq], unused: QUIRE_BLOCK_NONE */
    struct quire_view context_lens; /* u32 [1]: the length that kernels of an open step read */
    const uint32_t *paged_block_indices; /* host mirror of the blocks owned; NULL when contiguous */
    uint32_t paged_block_count;
};

/* Sets every field of a config to its default: empty, salt 0, adapter 0.
 *
 * config: written whole; not NULL.
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API void quire_seq_config_init(struct quire_seq_config *config);

/* Starts a sequence. Its length says how much of `tokens` the pool had cached.
 *
 * pool: not NULL; config: borrowed, or NULL for the defaults; *seq: the handle.
 * Statuses: INVAL for NULL, bad struct_size, or tokens NULL with num_tokens > 0; LIMIT when
 * max_seqs are alive; DEVICE after a device error. Threads: any. Cost: constant; takes no block. */
QUIRE_API quire_status quire_seq_create(struct quire_pool *pool,
                                        const struct quire_seq_config *config, quire_seq *seq);

/* Ends a sequence and gives its blocks back at once, from the host mirror.
 *
 * pool, seq: a live sequence.
 * Statuses: INVAL for a stale handle (also one destroyed twice); BUSY in an open step.
 * Threads: any.
 * Cost: O(its blocks); never reads the device. */
QUIRE_API quire_status quire_seq_destroy(struct quire_pool *pool, quire_seq seq);

/* Empties a sequence: truncate to 0.
 *
 * pool, seq: a live sequence.
 * Statuses: as quire_seq_truncate.
 * Threads: any.
 * Cost: as quire_seq_truncate. */
QUIRE_API quire_status quire_seq_reset(struct quire_pool *pool, quire_seq seq);

/* Cuts a sequence to its first `len` positions; blocks past them are free when it returns.
 *
 * pool, seq: a live sequence; len: at most its length.
 * Statuses: INVAL for a stale handle or a larger len; BUSY in an open step.
 * Threads: any.
 * Cost: O(blocks given back). */
QUIRE_API quire_status quire_seq_truncate(struct quire_pool *pool, quire_seq seq, uint32_t len);

/* Reads the committed length.
 *
 * pool, seq: a live sequence; *len: positions.
 * Statuses: INVAL for NULL or a stale handle.
 * Threads: any.
 * Cost: constant. */
QUIRE_API quire_status quire_seq_length(struct quire_pool *pool, quire_seq seq, uint32_t *len);

/* Reads the tokens that steps committed. They end where the first step without tokens began.
 *
 * pool, seq: a live sequence; *tokens: borrowed until the sequence is next changed; *count: how
 * many. Statuses: INVAL for NULL or a stale handle. Threads: any. Cost: constant. */
QUIRE_API quire_status quire_seq_tokens(struct quire_pool *pool, quire_seq seq,
                                        const uint32_t **tokens, uint32_t *count);

/* Gives the view of one layer (struct quire_kv_cache).
 *
 * pool, seq: a live sequence; layer: below the model's layers; *cache: written whole.
 * Statuses: INVAL for NULL, a stale handle or no such layer; UNSUPPORTED on a backend without K/V.
 * Threads: any.
 * Cost: constant. */
QUIRE_API quire_status quire_seq_kv_cache(struct quire_pool *pool, quire_seq seq, uint32_t layer,
                                          struct quire_kv_cache *cache);

/* Rows of one layer of a sequence: positions first .. first + count. */
struct quire_rows {
    uint32_t layer;
    uint32_t first;
    uint32_t count;
};

/* Copies rows of one layer out of the cache, and waits for them.
 *
 * pool, seq: a live sequence; rows: inside the committed length; k [count, G, D] and v
 * [count, G, Dv]: host memory in the pool's dtypes, dense; either may be NULL.
 * Statuses: INVAL for NULL, a stale handle or rows out of range; UNSUPPORTED on a backend without
 * K/V; DEVICE.
 * Threads: the sequence's.
 * Cost: one download for each run of rows and head; waits for the queue. */
QUIRE_API quire_status quire_seq_read(struct quire_pool *pool, quire_seq seq,
                                      const struct quire_rows *rows, void *k, void *v);

/* Copies rows of one layer into the cache: of committed positions, or of the positions that the
 * sequence's open step adds.
 *
 * pool, seq: a live sequence; rows: inside the length, or inside length and new tokens of the open
 * step; k, v: as quire_seq_read.
 * Statuses: as quire_seq_read.
 * Threads: the sequence's.
 * Cost: one upload for each run of at most 64 rows of a block, of K and of V; the data is read
 * before it returns. */
QUIRE_API quire_status quire_seq_write(struct quire_pool *pool, quire_seq seq,
                                       const struct quire_rows *rows, const void *k, const void *v);

#ifdef __cplusplus
}
#endif
#endif
