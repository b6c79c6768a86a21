/* paged.h - write and attend without the pool: over the caller's pages, by a table in CSR form.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For engines that keep their own allocator. The engine owns the memory of K and V and decides
 * which page holds what; Quire converts, stores and attends, with the kernels and the bits that a
 * pool has. One object serves the layers that share a page table.
 *
 *   create once; for each step: plan, then for each layer write, attend
 *
 * A page is page_size positions (P) of one sequence. Of each layer it has two planes, K
 * [num_kv_heads, P, head_dim] and V [num_kv_heads, P, head_dim_v], dense, so that a layer's K is
 * [num_pages, num_kv_heads, P, head_dim] where its pages follow each other; pages with the
 * positions outside the heads are not read. A page of a plane takes
 * num_kv_heads * P * (quire_kv_data_bytes + quire_kv_scale_bytes) bytes; for q8 and q4
 * docs/formats/kv.md says what they are, and kv_rotation whether they lie rotated. Pages may be
 * shared by any number of sequences, and be read, copied and written by the engine between steps,
 * on a device in the order of its queue.
 *
 * On the backend cpu, write and attend are done when they return; on another one, their outputs can
 * be read after a fence (backend.h).
 *
 * Threads: an object belongs to one thread at a time; different ones, over different pages, to
 * different threads. */
#ifndef QUIRE_PAGED_H
#define QUIRE_PAGED_H

#include <stdint.h>

#include <quire/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

struct quire_paged;

/* Where K or V of one layer lies: page p begins at byte offset + p * page_bytes of a buffer of the
 * backend, or of host memory where the backend has QUIRE_CAP_WRAP (the CPU has). An allocation for
 * each plane leaves offset and page_bytes 0. Planes that share one name the same start and bytes,
 * and differ in the offset. Both outlive the object. */
struct quire_paged_plane {
    struct quire_buffer *buffer; /* or NULL: */
    void *memory;
    uint64_t bytes;      /* of all of it, from its start on */
    uint64_t offset;     /* of page 0 */
    uint64_t page_bytes; /* between pages; 0: they follow each other */
};

/* A layer. Pages of f32 begin at multiples of 4 bytes, of other dtypes at multiples of 2. A plane
 * whose page_bytes are fewer than a page has is refused; whether two planes overlap is not checked.
 */
struct quire_paged_layer {
    uint32_t num_heads;        /* H, query heads */
    uint32_t num_kv_heads;     /* G, divides H */
    uint32_t head_dim;         /* D of q and K */
    uint32_t head_dim_v;       /* D of V and of the output; 0: the same as head_dim */
    uint32_t window;           /* positions a token sees, itself included; 0: all before it */
    uint32_t sink_positions;   /* first positions that every token sees besides its window */
    uint32_t dtype_k, dtype_v; /* enum quire_dtype F32, F16, BF16, Q8 or Q4. Q8 and Q4 need head
                                  dims that are multiples of 16 */
    struct quire_paged_plane k, v;
};

/* How an object is made. Fill with quire_paged_config_init, then set backend, layers and num_pages.
 * The layers are read before quire_paged_create returns. */
struct quire_paged_config {
    uint32_t struct_size;
    struct quire_backend *backend;          /* outlives the object */
    const struct quire_paged_layer *layers; /* [num_layers] */
    uint32_t num_layers;
    uint32_t kv_rotation;   /* enum quire_kv_rotation, of planes in Q8 or Q4; default AUTO: rows of
                               Q4 lie rotated, and an engine that stores or reads them itself must
                               do so too, or say NONE */
    uint32_t page_size;     /* P, positions of a page; default 16 */
    uint32_t num_pages;     /* that every plane has; a page index is below it */
    uint32_t max_seqs;      /* sequences of one step; default 16 */
    uint32_t max_seq_pages; /* pages of one sequence; default 256 */
    uint32_t max_step_tokens; /* new tokens of one step; default 512 */
};

/* A ragged batch, as FlashInfer and quire_step_view have it (there the arrays are of 32-bit
 * integers with a sign, which is never used). Lengths include the new tokens: sequence i is
 *
 *   its pages      kv_indices[kv_indptr[i] .. kv_indptr[i + 1]], n of them
 *   its positions  (n - 1) * P + last_page_len[i], of which the last
 *   its new rows   qo_indptr[i] .. qo_indptr[i + 1] of k, v, q and out
 *
 * belong together in order. A sequence without new tokens is passed over; only such a one may have
 * no pages, and its last_page_len is not read then. A page that no new token of its sequence sees
 * in any layer, as it lies before every window, may be QUIRE_BLOCK_NONE. */
struct quire_paged_batch {
    uint32_t struct_size;
    uint32_t num_seqs;             /* S; 0: the arrays are not read */
    const uint32_t *qo_indptr;     /* [S + 1] from 0, ascending */
    const uint32_t *kv_indptr;     /* [S + 1] from 0, ascending */
    const uint32_t *kv_indices;    /* [kv_indptr[S]] */
    const uint32_t *last_page_len; /* [S] 1 .. P */
};

/* Sets every field of a config to its default.
 *
 * config: written whole; not NULL.
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API void quire_paged_config_init(struct quire_paged_config *config);

/* Makes an object over the caller's pages, which it neither reads nor writes. What the backend
 * cannot do is refused here, never at the first step.
 *
 * config: from _init, borrowed; *out: owned by the caller until quire_paged_destroy; error:
 * optional.
 * Statuses: INVAL for NULL, a bad struct_size, zero or contradictory shapes (H not a multiple of
 * G), and planes that are nowhere, too small, misaligned, or with too few page_bytes; LIMIT over a
 * QUIRE_MAX_* (pool.h; pages of a sequence times P: QUIRE_MAX_SEQ_LEN); UNSUPPORTED where the
 * backend holds no K/V or lacks the dtype, head dim, page size or the use of host memory, or the
 * dtype the head dim (the message lists what there is); NOMEM; DEVICE.
 * Threads: any.
 * Cost: takes all memory that steps need: tables of 4 * max_seqs * max_seq_pages bytes, scratch,
 * and a bit for each position of the pages. */
QUIRE_API quire_status quire_paged_create(const struct quire_paged_config *config,
                                          struct quire_paged **out, struct quire_error *error);

/* Frees an object, not the pages. NULL is fine.
 *
 * paged: from quire_paged_create, or NULL.
 * Statuses: none.
 * Threads: the last user.
 * Cost: waits for the backend's queued work. */
QUIRE_API void quire_paged_destroy(struct quire_paged *paged);

/* Plans a step: checks the batch, uploads its tables and lengths once, and cuts the work into
 * shares. Every layer uses the plan, until the next one. After any error but DEVICE and NOMEM the
 * last plan is still there; after those there is none.
 *
 * paged: not NULL; batch: struct_size set by the caller, read before the call returns; error:
 * optional, names the sequence. A batch without sequences or new tokens is fine: write and attend
 * then do nothing.
 * Statuses: INVAL for NULL, a bad struct_size, an indptr that does not begin at 0 or does not
 * ascend, a page index that is out of range, a last_page_len of 0 or over P, fewer positions than
 * new tokens, and a row of a page that two new tokens would be written to (a page that others read
 * must be copied before it is written); LIMIT past max_seqs, max_seq_pages or max_step_tokens;
 * NOMEM; DEVICE.
 * Threads: one at a time.
 * Cost: O(pages of the sequences + new tokens) and one upload; no allocation. */
QUIRE_API quire_status quire_paged_plan(struct quire_paged *paged,
                                        const struct quire_paged_batch *batch,
                                        struct quire_error *error);

/* Stores the K and V of every new token of the plan in one layer, in the layer's dtypes. An engine
 * that stores them itself leaves it out.
 *
 * paged: planned; layer: below num_layers; k f32 [T,G,D] and v f32 [T,G,Dv]: views, T the new
 * tokens; error: optional.
 * Statuses: INVAL for NULL, no plan, no such layer, a wrong shape or dtype, or a view that is
 * misaligned, leaves its buffer or is of memory that the backend cannot see; DEVICE.
 * Threads: one at a time.
 * Cost: reads and writes T rows; queued; no allocation. */
QUIRE_API quire_status quire_paged_write(struct quire_paged *paged, uint32_t layer,
                                         const struct quire_view *k, const struct quire_view *v,
                                         struct quire_error *error);

/* Attends in one layer: each new token sees its sequence up to itself, less what the layer's window
 * hides, plus its sinks. The bits of a row depend on its query, its sequence's K and V, and params.
 *
 * paged: planned, the new rows of this layer stored; layer: below num_layers; q f32 [T,H,D], out
 * f32 [T,H,Dv]: views; params: from quire_attend_params_init, read before the call returns, or NULL
 * for the defaults; error: optional.
 * Statuses: as quire_paged_write, and INVAL for params with a bad struct_size, a scale or softcap
 * that is not finite, a softcap below 0, an lse that is not f32 {T,1,H}, and an out or lse whose
 * tokens, and also whose heads, overlap or interleave. That out, lse and q are apart from each
 * other is not checked, nor from K and V. Threads: one at a time. Cost: reads K and V of every
 * sequence once per group of query heads, and pages that sequences share at their beginning about
 * once for all; queued; no allocation. */
QUIRE_API quire_status quire_paged_attend(struct quire_paged *paged, uint32_t layer,
                                          const struct quire_view *q, const struct quire_view *out,
                                          const struct quire_attend_params *params,
                                          struct quire_error *error);

#ifdef __cplusplus
}
#endif
#endif
