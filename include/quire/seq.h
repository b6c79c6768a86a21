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

/* A prefix: what a sequence starts from, and what lookup, pin and drop go by. Fill with
 * quire_seq_config_init. */
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
 * The views of q8 and q4 count bytes: rows of quire_kv_data_bytes, heads that are stride[0] apart,
 * and the scales of a head's first row P (or capacity) rows after its data (docs/formats/kv.md).
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
    uint32_t rotated_k, rotated_v; /* 1: rows of q8 or q4 are stored turned (docs/formats/kv.md) */
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

/* Starts a sequence. Its length says how much of `tokens` the pool had cached: the longest prefix
 * that was published under the same salt and adapter, ending at any token, at most num_tokens - 1,
 * so that one token is left to compute. Blocks are published when they are full and committed, the
 * last one of a sequence when the sequence ends, or by quire_seq_publish. (Where blocks that begin
 * alike have lost theirs, a few of their neighbours are tried, not all.) The rest of `tokens` is
 * for the caller's steps to add.
 *
 * pool: not NULL; config: borrowed, or NULL for the defaults; *seq: the handle.
 * Statuses: INVAL for NULL, bad struct_size, tokens NULL with num_tokens > 0, or a token over
 * vocab_size; LIMIT for more tokens than max_seq_len, or when max_seqs are alive; DEVICE after a
 * device error. Threads: any. Cost: O(num_tokens), and O(log) of the blocks that follow the same
 * prefix; takes no block from anybody. */
QUIRE_API quire_status quire_seq_create(struct quire_pool *pool,
                                        const struct quire_seq_config *config, quire_seq *seq);

/* Looks again, for a sequence that waited while others computed: where more of `config`'s tokens
 * is cached than the sequence has, it takes the longer prefix.
 *
 * pool, seq: a live sequence whose tokens are the first of config's; config: as it was created,
 * no_lookup is not read; *len: the sequence's length afterwards, optional.
 * Statuses: INVAL as quire_seq_create and for a stale handle; MISMATCH when the sequence has other
 * tokens, salt or adapter; BUSY in an open step; LIMIT; DEVICE. Threads: any.
 * Cost: as quire_seq_create. */
QUIRE_API quire_status quire_seq_rematch(struct quire_pool *pool, quire_seq seq,
                                         const struct quire_seq_config *config, uint32_t *len);

/* Starts a sequence that shares the first `len` positions of another one. Nothing is copied until
 * one of the two writes into a block that both hold. (Contiguous: the rows are copied.)
 *
 * pool, seq: a live sequence; len: at most its length; *fork: the handle; *longest: optional, on
 * NOTFOUND the longest position that works.
 * Statuses: INVAL for NULL, a stale handle or a larger len; BUSY in an open step; LIMIT when
 * max_seqs are alive; NOTFOUND where a group's window before `len` has been released and is not
 * cached any more; NOSPACE and NOMEM (contiguous); DEVICE. Threads: any.
 * Cost: O(blocks): a reference each. Contiguous: a copy of the K and V of `len` positions. */
QUIRE_API quire_status quire_seq_fork(struct quire_pool *pool, quire_seq seq, uint32_t len,
                                      quire_seq *fork, uint32_t *longest);

/* Makes the last, partly filled block of a sequence findable; full ones are since their commit.
 *
 * pool, seq: a live sequence.
 * Statuses: INVAL for a stale handle; BUSY in an open step; UNSUPPORTED in the contiguous layout.
 * Threads: any.
 * Cost: constant, and O(log) of the blocks that follow the same prefix. */
QUIRE_API quire_status quire_seq_publish(struct quire_pool *pool, quire_seq seq);

/* Ends a sequence and gives its blocks back at once, from the host mirror. Its last block becomes
 * findable too. Blocks that nobody else holds stay cached where they are findable, else are free.
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

/* Cuts a sequence to its first `len` positions and gives the blocks past them back.
 *
 * pool, seq: a live sequence; len: at most its length; *longest: optional, on NOTFOUND the longest
 * position, below `len`, that works.
 * Statuses: INVAL for a stale handle or a larger len; BUSY in an open step; NOTFOUND where a
 * group's window before `len` has been released (more than rollback_max back) and is not cached any
 * more: the state is unchanged.
 * Threads: any.
 * Cost: O(blocks given back). */
QUIRE_API quire_status quire_seq_truncate(struct quire_pool *pool, quire_seq seq, uint32_t len,
                                          uint32_t *longest);

/* Reads the committed length.
 *
 * pool, seq: a live sequence; *len: positions.
 * Statuses: INVAL for NULL or a stale handle.
 * Threads: any.
 * Cost: constant. */
QUIRE_API quire_status quire_seq_length(struct quire_pool *pool, quire_seq seq, uint32_t *len);

/* Copies the tokens that the pool knows of a sequence: those of its prefix hit and of its steps, up
 * to the first step that told none, or wrote no rows.
 *
 * pool, seq: a live sequence; tokens [max_tokens]: gets the first of them; *count: how many are
 * known, which may be more than max_tokens.
 * Statuses: INVAL for NULL (tokens may be NULL with max_tokens 0) or a stale handle.
 * Threads: any.
 * Cost: O(tokens known). */
QUIRE_API quire_status quire_seq_tokens(struct quire_pool *pool, quire_seq seq, uint32_t *tokens,
                                        uint32_t max_tokens, uint32_t *count);

/* What one sequence holds. */
struct quire_seq_stats {
    uint32_t struct_size;
    uint32_t len;
    uint32_t hit_tokens;    /* positions that its creation, rematch or fork found computed */
    uint64_t blocks;        /* held, over all groups */
    uint64_t blocks_shared; /* of them, held by others too */
    uint64_t own_bytes;     /* K and V that would be given back or cached if it ended now */
    uint64_t shared_bytes;
};

/* Reads what a sequence holds.
 *
 * pool, seq: a live sequence; stats: struct_size set by the caller, the rest written.
 * Statuses: INVAL for NULL, a stale handle or a bad struct_size.
 * Threads: any.
 * Cost: O(its blocks). */
QUIRE_API quire_status quire_seq_stats(struct quire_pool *pool, quire_seq seq,
                                       struct quire_seq_stats *stats);

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
 * [count, G, Dv]: host memory in the pool's dtypes, dense, a q8 or q4 row of a head its data and
 * then its scales, as stored and thus rotated; either may be NULL. Statuses: INVAL for NULL, a
 * stale handle or rows out of range; NOTFOUND for rows that a window has let go; UNSUPPORTED on a
 * backend without K/V; DEVICE. Threads: the sequence's. Cost: one download for each run of rows and
 * head; waits for the queue. */
QUIRE_API quire_status quire_seq_read(struct quire_pool *pool, quire_seq seq,
                                      const struct quire_rows *rows, void *k, void *v);

/* Copies rows of one layer into the cache: of committed positions, or of the positions that the
 * sequence's open step adds.
 *
 * pool, seq: a live sequence; rows: inside the length, or inside length and new tokens of the open
 * step; k, v: as quire_seq_read.
 * Statuses: as quire_seq_read; BUSY for committed rows of a block that is findable or held by
 * others too (P3).
 * Threads: the sequence's.
 * Cost: one upload for each run of at most 64 rows of a block, of K and of V; the data is read
 * before it returns. */
QUIRE_API quire_status quire_seq_write(struct quire_pool *pool, quire_seq seq,
                                       const struct quire_rows *rows, const void *k, const void *v);

/* ---- prefixes without a sequence ---- */

/* Says how much of a prefix is cached, and changes nothing: no reference, no recency, no figure.
 *
 * pool; config: the prefix; no_lookup is not read; *len: positions that quire_seq_create would
 * find. Statuses: INVAL and LIMIT as quire_seq_create. Threads: any. Cost: as quire_seq_create. */
QUIRE_API quire_status quire_pool_lookup(struct quire_pool *pool,
                                         const struct quire_seq_config *config, uint32_t *len);

/* A prefix that is kept. {0} is never a pin. */
typedef struct quire_pin {
    uint64_t id;
} quire_pin;

/* Keeps what is cached of a prefix, up to all of its tokens, from eviction until it is unpinned,
 * dropped or the pool is reset.
 *
 * pool; config: the prefix; *pin: the handle; *len: positions pinned, optional; error: optional,
 * says how many blocks the budget lacks.
 * Statuses: INVAL as quire_seq_create; NOTFOUND when nothing of it is cached; LIMIT past max_pins
 * or max_pinned_blocks (blocks that several pins hold count for each); UNSUPPORTED in the
 * contiguous layout; DEVICE. Threads: any. Cost: as quire_seq_create. */
QUIRE_API quire_status quire_pool_pin(struct quire_pool *pool,
                                      const struct quire_seq_config *config, quire_pin *pin,
                                      uint32_t *len, struct quire_error *error);

/* Lets a pinned prefix go: it is cached as any other.
 *
 * pool, pin: from quire_pool_pin.
 * Statuses: INVAL for a stale or dropped pin, or one unpinned twice.
 * Threads: any.
 * Cost: O(its blocks). */
QUIRE_API quire_status quire_pool_unpin(struct quire_pool *pool, quire_pin pin);

/* Forgets every cached block of a tenant and zeroes its bytes, in blocks given back earlier too;
 * live sequences keep theirs, and those blocks are zeroed when the last holder lets go; what such
 * a sequence computes from then on is not findable either. Pins of the tenant end.
 *
 * pool; salt: the tenant's, under every adapter.
 * Statuses: INVAL for NULL; DEVICE. Threads: any.
 * Cost: O(blocks of the pool) and a fill for each block zeroed. */
QUIRE_API quire_status quire_pool_drop(struct quire_pool *pool, uint64_t salt);

/* Forgets every cached block whose prefix starts with these tokens, and zeroes it; what the tokens
 * share with others before their last one stays. Live sequences keep theirs until they let go; pins
 * of such prefixes end. A step that is open meanwhile publishes what it adds at its commit.
 *
 * pool; config: the prefix; no tokens: everything under its salt and adapter; *dropped: blocks
 * forgotten, optional.
 * Statuses: INVAL and LIMIT as quire_seq_create; DEVICE. Threads: any.
 * Cost: as quire_seq_create, O(max_seqs + max_pins + blocks forgotten), and a fill for each block
 * zeroed. */
QUIRE_API quire_status quire_pool_drop_prefix(struct quire_pool *pool,
                                              const struct quire_seq_config *config,
                                              uint64_t *dropped);

#ifdef __cplusplus
}
#endif
#endif
