/* step.h - the step: one transaction over a ragged batch of sequences.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   begin -> for each layer: write, attend -> commit or abort
 *
 * Prefill, decode, mixed and verify batches are the same call. begin reserves for all items or for
 * none; commit or abort ends the step, after which its handle is refused. */
#ifndef QUIRE_STEP_H
#define QUIRE_STEP_H

#include <stdint.h>

#include <quire/seq.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An open step of one pool. {0} is never a step. */
typedef struct quire_step {
    uint64_t id;
} quire_step;

/* One sequence of a batch. Its rows follow those of the item before it. */
struct quire_step_item {
    quire_seq seq;
    uint32_t n_new;         /* tokens to add, at least 1 */
    const uint32_t *tokens; /* [n_new], copied; NULL: the tokens are not known */
};

/* What an engine with its own kernels needs of an open step and one group of layers. The arrays
 * live as long as the step; the block indices are those of the arena. */
struct quire_step_view {
    uint32_t struct_size;
    uint32_t num_items;
    uint32_t num_tokens;
    const uint32_t *qo_indptr;     /* [num_items + 1] first row of each item */
    const uint32_t *kv_indptr;     /* [num_items + 1] first entry of each item in kv_indices */
    const uint32_t *kv_indices;    /* [kv_indptr[num_items]] blocks of each item, in order;
                                      QUIRE_BLOCK_NONE for those before a window */
    const uint32_t *last_page_len; /* [num_items] positions used in the last block, 1 .. P */
    const uint64_t *slot_mapping;  /* [num_tokens] block * P + row of every new token */
    uint32_t num_copies;           /* copies due before the first write: for the caller on a */
    const struct quire_block_copy *copies; /* backend without K/V, else done: 0 */
};

/* Opens a step: reserves positions for all items or for none, builds the plan, and uploads what
 * changed of tables and lengths, once. Cached blocks are evicted where free ones do not do. A
 * partly filled block that somebody else can read is copied first: the rows that the item sees. One
 * that only the index could read is written in place where there is no block for the copy, and not
 * findable any more.
 *
 * pool: not NULL; items [num_items]: different live sequences, in no open step; *step: the handle;
 * *missing_blocks: optional; on NOSPACE how many blocks are missing.
 * Statuses: INVAL for NULL, no items, a stale handle, n_new 0, a token over vocab_size, or a
 * sequence named twice; BUSY when a sequence is in an open step or max_open_steps are open; LIMIT
 * past max_seq_len, max_seqs or max_step_tokens; NOSPACE; NOMEM where the system refuses the memory
 * of new positions; DEVICE. Threads: the sequences'. Cost: O(items + new blocks) and one upload,
 * and the plan of the backend: on the CPU a look at every block that the new tokens see. */
QUIRE_API quire_status quire_step_begin(struct quire_pool *pool,
                                        const struct quire_step_item *items, uint32_t num_items,
                                        quire_step *step, uint64_t *missing_blocks);

/* Stores the K and V of every new token in one layer.
 *
 * pool, step: open; layer; k f32 [T,G,D] and v f32 [T,G,Dv]: views, rows in the order of the items.
 * Statuses: INVAL for a stale step, no such layer, or a wrong shape or dtype; UNSUPPORTED on a
 * backend without K/V; DEVICE. Threads: the step's. Cost: reads and writes T rows; queued. */
QUIRE_API quire_status quire_step_write(struct quire_pool *pool, quire_step step, uint32_t layer,
                                        const struct quire_view *k, const struct quire_view *v);

/* Attends in one layer: token i of an item sees positions 0 .. len + i of its sequence, less what
 * the layer's window hides, plus its sinks.
 *
 * pool, step: open, this layer written; q f32 [T,H,D], out f32 [T,H,Dv]: views; params: from _init,
 * read before the call returns, or NULL for the defaults.
 * Statuses: INVAL as quire_step_write, and for a layer not yet written, params as
 * quire_paged_attend (paged.h) refuses, and tokens or heads of out or lse that overlap;
 * UNSUPPORTED; DEVICE.
 * Threads: the step's.
 * Cost: reads the K and V of every item once per group of query heads; queued. */
QUIRE_API quire_status quire_step_attend(struct quire_pool *pool, quire_step step, uint32_t layer,
                                         const struct quire_view *q, const struct quire_view *out,
                                         const struct quire_attend_params *params);

/* Ends a step and keeps its tokens. Never waits for the device. Blocks that are now full become
 * findable by their tokens (those of a step that wrote no rows do not; without K/V in the backend
 * every step counts as written), and blocks wholly before a group's window are given back.
 *
 * pool, step: open; n_keep [num_items]: how many new tokens of each item stay (0 .. n_new), or NULL
 * for all. Blocks that hold no kept position are free when it returns.
 * Statuses: INVAL for a stale step, an n_keep over n_new, or when some layers were written and
 * others not; the step stays open then. Threads: the step's. Cost: O(items + blocks given back). */
QUIRE_API quire_status quire_step_commit(struct quire_pool *pool, quire_step step,
                                         const uint32_t *n_keep);

/* Ends a step and restores every sequence; the blocks it took are free when it returns.
 *
 * pool, step: open.
 * Statuses: INVAL for a stale step.
 * Threads: the step's.
 * Cost: O(items + blocks given back). */
QUIRE_API quire_status quire_step_abort(struct quire_pool *pool, quire_step step);

/* Gives an engine with its own kernels the batch in CSR form. The engine then writes K and V
 * itself: commit no longer asks that every layer was written.
 *
 * pool, step: open; group: below num_groups; view: struct_size set by the caller, the rest written.
 * Statuses: INVAL for NULL, a stale step, no such group or a bad struct_size; UNSUPPORTED in the
 * contiguous layout; LIMIT for 2^32 blocks of all items and more.
 * Threads: the step's.
 * Cost: O(blocks of the items + new tokens); each call overwrites the arrays of the last. */
QUIRE_API quire_status quire_step_view(struct quire_pool *pool, quire_step step, uint32_t group,
                                       struct quire_step_view *view);

#ifdef __cplusplus
}
#endif
#endif
