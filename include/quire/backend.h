/* backend.h - the interface between the cache, or a model, and a compute device.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A backend is one struct of functions in three groups: memory, kv (write and attend over the
 * cache) and nn (the rest of a transformer; may be absent, then only the cache runs there).
 *
 * Work is queued: a function that takes buffers or views may return before it has read or written
 * them. Work of one backend runs in the order it was queued. Nobody but the backend dereferences a
 * buffer. A late failure is sticky: fence_poll and fence_wait answer QUIRE_E_DEVICE until recover.
 *
 * Threads: a backend may be used from any number of threads; it orders their calls itself. */
#ifndef QUIRE_BACKEND_H
#define QUIRE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quire/status.h>
#include <quire/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct quire_backend; /* a device and its functions, below */
struct quire_buffer;  /* device memory; only its backend knows what is inside */
struct quire_plan;    /* a backend's own form of one step */
struct quire_weight;  /* a backend's own form of one weight matrix */

/* "No block": the value of every unused slot of a block table. Never a valid physical block. */
#define QUIRE_BLOCK_NONE UINT32_MAX

/* A strided 3-d piece of memory, innermost dimension dense. Two-dimensional data [rows, columns]
 * is shape {rows, 1, columns}, a list [rows] is shape {rows, 1, 1}. Where the backend has
 * QUIRE_CAP_HOST_VIEWS, `buffer` may be NULL and `host` is the memory itself; it must then stay as
 * it is until the work that uses it is done. */
struct quire_view {
    struct quire_buffer *buffer;
    void *host;      /* used when buffer is NULL */
    uint64_t offset; /* bytes from the start of the buffer or of host */
    uint32_t dtype;  /* enum quire_dtype */
    uint64_t shape[3];
    uint64_t stride[2]; /* elements between neighbours in dimensions 0 and 1 */
};

/* Views of host memory and of buffers, dense and row-major.
 *
 * The two below fill in a dense view. memory/buffer: where, borrowed; d0, d1, d2: shape. */
static inline struct quire_view quire_view_host(void *memory, uint32_t dtype, uint64_t d0,
                                                uint64_t d1, uint64_t d2)
{
    struct quire_view view = {
        NULL, memory, 0, dtype, {d0, d1, d2}, {d1 * d2, d2},
    };
    return view;
}

static inline struct quire_view quire_view_buffer(struct quire_buffer *buffer, uint64_t offset,
                                                  uint32_t dtype, uint64_t d0, uint64_t d1,
                                                  uint64_t d2)
{
    struct quire_view view = {
        buffer, NULL, offset, dtype, {d0, d1, d2}, {d1 * d2, d2},
    };
    return view;
}

/* ---- what a backend can do ---- */

enum {
    QUIRE_CAP_HOST_VIEWS = 1u << 0, /* host memory is a view, without a copy */
    QUIRE_CAP_RESERVE = 1u << 1,    /* buffers can cost only what is committed */
    QUIRE_CAP_WRAP = 1u << 2,       /* buffer_wrap works */
    QUIRE_CAP_KV = 1u << 3,         /* holds K/V; without it, a pool keeps ids only */
    QUIRE_CAP_NN = 1u << 4,         /* has the nn group */
};

struct quire_backend_caps {
    uint32_t flags;                          /* QUIRE_CAP_* */
    uint32_t kv_dtypes;                      /* bit set: 1u << enum quire_dtype, for K and for V */
    uint32_t layouts;                        /* bit set: 1u << enum quire_layout */
    uint64_t weight_types;                   /* bit set: 1ull << enum quire_weight_type */
    uint32_t head_dim_min, head_dim_max;     /* inclusive */
    uint32_t block_size_min, block_size_max; /* inclusive */
    const char *arithmetic; /* names what decides the bits of results, as "cpu/avx2"; static */
};

/* ---- memory ---- */

enum { QUIRE_BUFFER_RESERVED = 1u << 0 }; /* address space only, until committed */

struct quire_range {
    uint64_t offset; /* bytes from the start of the buffer */
    uint64_t bytes;
};

struct quire_upload {
    uint64_t offset; /* bytes from the start of the buffer */
    uint64_t bytes;
    const void *data; /* read before the call returns */
};

typedef uint64_t quire_fence; /* a point of the queue; later points compare greater */

struct quire_memory_ops {
    /* Makes a zeroed buffer. NOMEM; UNSUPPORTED for a flag that the backend lacks. */
    quire_status (*buffer_create)(struct quire_backend *, uint64_t bytes, uint32_t flags,
                                  struct quire_buffer **out);
    /* Makes a buffer over the caller's memory, which must outlive it. UNSUPPORTED without WRAP. */
    quire_status (*buffer_wrap)(struct quire_backend *, void *memory, uint64_t bytes,
                                struct quire_buffer **out);
    /* Frees a buffer after the queued work that uses it. NULL is fine. */
    void (*buffer_destroy)(struct quire_backend *, struct quire_buffer *);
    /* Makes ranges of a reserved buffer usable: all of them, or NOMEM and none. Committing a
     * committed range is allowed and keeps its content. */
    quire_status (*commit)(struct quire_backend *, struct quire_buffer *,
                           const struct quire_range *ranges, uint32_t num_ranges);
    /* Takes the memory of ranges back, after the queued work; their content is lost. Ranges that
     * are not committed stay so. */
    void (*decommit)(struct quire_backend *, struct quire_buffer *,
                     const struct quire_range *ranges, uint32_t num_ranges);
    /* Queues copies from the host; the data is read before the call returns. */
    quire_status (*upload)(struct quire_backend *, struct quire_buffer *,
                           const struct quire_upload *uploads, uint32_t num_uploads);
    /* Queues a copy to the host; data is there once a later fence has passed. */
    quire_status (*download)(struct quire_backend *, struct quire_buffer *, uint64_t offset,
                             uint64_t bytes, void *data);
    /* Queues a copy between two buffers, or inside one where the ranges do not overlap. */
    quire_status (*copy)(struct quire_backend *, struct quire_buffer *to, uint64_t to_offset,
                         struct quire_buffer *from, uint64_t from_offset, uint64_t bytes);
    /* Queues setting `bytes` bytes to `value`. */
    quire_status (*fill)(struct quire_backend *, struct quire_buffer *, uint64_t offset,
                         uint64_t bytes, uint8_t value);
    /* Marks the present end of the queue. */
    quire_status (*fence_record)(struct quire_backend *, quire_fence *out);
    /* Waits until the work before the fence is done. DEVICE when any work failed. */
    quire_status (*fence_wait)(struct quire_backend *, quire_fence);
    /* OK: done; BUSY: not yet; DEVICE: some work failed. Never waits. Fence 0 asks for errors only.
     */
    quire_status (*fence_poll)(struct quire_backend *, quire_fence);
    /* Waits for the queue and forgets late failures; buffers keep their place, not their content,
     * so every pool on the backend must be reset. DEVICE when the device is lost for good. NULL
     * where work cannot fail late. */
    quire_status (*recover)(struct quire_backend *);
};

/* ---- kv: the cache's own kernels ---- */

/* The geometry of one layer. A page holds K and V of all layers of one group; offsets are bytes
 * from the start of a page. K of one layer is [num_kv_heads, P, head_dim], V is
 * [num_kv_heads, P, head_dim_v], both dense, with P the positions of a page. A plane of q8 or q4
 * has for each head the data of its P rows, then their scales (quire_kv_data_bytes,
 * docs/formats/kv.md), and needs a head dim that is a multiple of 16.
 *
 * A plane lies in the arena of the spec, or in a buffer of its own: then page p of it begins
 * p * page_bytes + offset bytes into that buffer, and its pages must not overlap. */
struct quire_kv_layer {
    uint32_t group;
    uint32_t num_heads;    /* H */
    uint32_t num_kv_heads; /* G, divides H */
    uint32_t head_dim;     /* D of q and K */
    uint32_t head_dim_v;   /* D of V and of the output */
    uint32_t window;       /* W positions are visible, own position included; 0: all */
    uint32_t sink_positions;
    uint32_t dtype_k, dtype_v;
    uint32_t rotated_k, rotated_v; /* 1: rows of q8 or q4 are turned before they are stored */
    uint64_t k_offset, v_offset;
    struct quire_buffer *k_buffer, *v_buffer; /* NULL: the arena */
    uint64_t k_page_bytes, v_page_bytes;      /* between pages of that buffer; arena: not read */
};

/* Everything about a pool that stays the same. Position t of the sequence in slot s lies in page
 * tables[group][s][t / P], row t % P. In the contiguous layout P is the capacity, and the table of
 * slot s has the one entry s: the kernels see one layout. */
struct quire_kv_spec {
    uint32_t num_layers;
    const struct quire_kv_layer *layers; /* [num_layers]; lives as long as the plans */
    uint32_t num_groups;
    uint32_t positions_per_page; /* P */
    uint64_t page_bytes;         /* distance between pages of the arena; without one not read */
    uint32_t num_pages;
    uint32_t max_seqs;
    uint32_t max_blocks; /* slots of one row of a table */
    uint32_t max_step_tokens;
    struct quire_buffer *arena;  /* num_pages pages; NULL: every plane has its own buffer */
    struct quire_buffer *tables; /* u32 [num_groups][max_seqs][max_blocks], then, at lens_offset, */
    uint64_t lens_offset;        /* bytes: u32 [max_seqs], the positions that the open step sees */
};

/* One sequence of a step: tokens row .. row + n_new of the step's rows are its positions
 * len .. len + n_new. */
struct quire_step_part {
    uint32_t slot;
    uint32_t len;
    uint32_t n_new;
    uint32_t row;
};

struct quire_step_desc {
    uint32_t num_parts;
    uint32_t num_tokens;
    const struct quire_step_part *parts; /* [num_parts], read before plan_build returns */
};

/* How to attend. `_init` sets scale 0 (taken as 1/sqrt(head_dim)) and everything else off.
 * Softcap: Gemma 2 report (arXiv:2408.00118, section 2). ALiBi: arXiv:2108.12409, section 3. Sink
 * logits: arXiv:2309.17453, section 3.1, as a learned logit a head. */
struct quire_attend_params {
    uint32_t struct_size;
    float scale;               /* multiplies q.k */
    float softcap;             /* 0: off; else logits become softcap * tanh(logit / softcap) */
    const float *alibi_slopes; /* [H] host, or NULL: adds slope * (key position - query position) */
    const float *sink_logits;  /* [H] host, or NULL: joins the softmax denominator */
    struct quire_view lse;     /* f32 {T,1,H}: log of the denominator; buffer and host NULL: none */
};

/* Rows 0 .. rows of every layer of a group, from one page to another. */
struct quire_block_copy {
    uint32_t group;
    uint32_t from, to; /* pages, different */
    uint32_t rows;     /* at most the positions of a page */
};

struct quire_kv_ops {
    /* Makes a plan that can be built again for every step; all its memory is taken here. The spec
     * is copied; its layers, buffers, tables and lens must outlive the plan. */
    quire_status (*plan_create)(struct quire_backend *, const struct quire_kv_spec *,
                                struct quire_plan **out);
    void (*plan_destroy)(struct quire_backend *, struct quire_plan *);
    /* Turns the description of one step into shares or launches. The tables and lengths of its
     * slots were uploaded before. */
    quire_status (*plan_build)(struct quire_backend *, struct quire_plan *,
                               const struct quire_step_desc *);
    /* Queues copies of rows, one after the other. Rows past the copied ones are not touched. */
    quire_status (*copy)(struct quire_backend *, struct quire_plan *,
                         const struct quire_block_copy *copies, uint32_t num_copies);
    /* Converts k [T,G,D] and v [T,G,Dv] to the layer's dtypes, turned where it says so, and stores
     * them in its pages. */
    quire_status (*write)(struct quire_backend *, struct quire_plan *, uint32_t layer,
                          const struct quire_view *k, const struct quire_view *v);
    /* out [T,H,Dv] = attention of q [T,H,D] over positions 0 .. len + i of each row's sequence,
     * less what the layer's window hides, plus its sinks. q and out are f32. params is read before
     * the call returns. */
    quire_status (*attend)(struct quire_backend *, struct quire_plan *, uint32_t layer,
                           const struct quire_view *q, const struct quire_view *out,
                           const struct quire_attend_params *params);
};

/* ---- nn: the rest of a transformer. All activations are f32 ---- */

/* A matrix of `rows` rows of `columns` weights; y = W x takes `columns` inputs to `rows` outputs.
 */
struct quire_weight_desc {
    uint32_t type; /* enum quire_weight_type */
    uint64_t rows, columns;
    const void *data; /* read before weight_create returns */
    uint64_t bytes;
    /* Called, unless NULL, from weight_create on its thread as it goes on: the first `bytes` bytes
     * of the data are no longer needed. */
    void (*taken)(void *context, uint64_t bytes);
    void *context;
};

enum quire_activation {
    QUIRE_SILU = 0, /* x / (1 + exp(-x)) */
    QUIRE_GELU = 1, /* tanh form, arXiv:1606.08415 section 2 */
};

enum quire_rotary_style {
    QUIRE_ROTARY_PAIRS = 0,  /* elements 2i and 2i + 1 turn together */
    QUIRE_ROTARY_HALVES = 1, /* elements i and i + n/2 turn together */
};

struct quire_nn_ops {
    /* Takes a matrix in the backend's own form; nothing of desc is kept. INVAL for sizes that do
     * not agree, UNSUPPORTED, NOMEM. */
    quire_status (*weight_create)(struct quire_backend *, const struct quire_weight_desc *,
                                  struct quire_weight **out);
    void (*weight_destroy)(struct quire_backend *, struct quire_weight *);
    /* y [T, rows] = x [T, columns] times the transposed matrix. A row of y depends on its row of x
     * alone, bit for bit, whatever T is. */
    quire_status (*linear)(struct quire_backend *, struct quire_weight *,
                           const struct quire_view *x, const struct quire_view *y);
    /* y = x / sqrt(mean(x^2) + epsilon) * weight, over the last dimension (arXiv:1910.07467,
     * equation 4). weight f32 [1,1,E]. y may be x. */
    quire_status (*norm)(struct quire_backend *, const struct quire_view *weight, float epsilon,
                         const struct quire_view *x, const struct quire_view *y);
    /* Turns x [T, heads, D] in place (arXiv:2104.09864, section 3.2). table f32 [T, n/2, 2] holds
     * cosine and sine of each row's angles; n <= D elements of each head turn. */
    quire_status (*rotary)(struct quire_backend *, enum quire_rotary_style,
                           const struct quire_view *table, const struct quire_view *x);
    /* y = activation(gate) * up, element by element (arXiv:2002.05202, section 2). y may be gate.
     */
    quire_status (*activate)(struct quire_backend *, enum quire_activation,
                             const struct quire_view *gate, const struct quire_view *up,
                             const struct quire_view *y);
    /* y += x */
    quire_status (*add)(struct quire_backend *, const struct quire_view *x,
                        const struct quire_view *y);
    /* x *= factor */
    quire_status (*scale)(struct quire_backend *, float factor, const struct quire_view *x);
    /* y [T, columns] = the rows ids [T] (u32) of the matrix. */
    quire_status (*embed)(struct quire_backend *, struct quire_weight *,
                          const struct quire_view *ids, const struct quire_view *y);
    /* ids [T] (u32) = the index of the largest element of each row of x; the lowest wins a tie. */
    quire_status (*argmax)(struct quire_backend *, const struct quire_view *x,
                           const struct quire_view *ids);
};

/* A backend. An implementation embeds it as the first member of its own struct. */
struct quire_backend {
    uint32_t struct_size;
    const char *name;
    struct quire_backend_caps caps;
    const struct quire_memory_ops *memory;
    const struct quire_kv_ops *kv; /* NULL without QUIRE_CAP_KV */
    const struct quire_nn_ops *nn; /* NULL without QUIRE_CAP_NN */
    void (*destroy)(struct quire_backend *);
};

/* ---- the registry ---- */

struct quire_backend_config {
    uint32_t struct_size;
    uint32_t num_threads;  /* 0: what the affinity mask and the quotas of control groups allow */
    const char *cpu_level; /* caps the kernel level: "ref", "generic", "avx2", "avx512",
                              "avx512bf16", "amx", on Arm "neon", "neonbf16"; NULL: QUIRE_CPU of
                              the environment, else the best. A cap over the machine means its
                              best */
    uint32_t pin_threads;  /* 1: keep each thread that is started on a processor of its own, counted
                              from the second of the affinity mask; callers' threads go where they
                              like. Default 0 */
    uint32_t no_cascade;   /* 1: sequences of a step read what they share once each, not once for
                              all; the same bits, for comparisons. Default 0 */
};

/* Sets every field of a config to its default.
 *
 * config: written whole; not NULL.
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API void quire_backend_config_init(struct quire_backend_config *config);

/* Makes a backend by name: "cpu", or "none", which holds no K/V and keeps ids only.
 *
 * name: NUL-terminated; config: from _init, or NULL for the defaults; *out: owned by the caller
 * until quire_backend_destroy; error: optional. Statuses: INVAL for NULL, an unknown level or a bad
 * struct_size; NOTFOUND for an unknown name; NOMEM. Threads: any. Cost: starts num_threads - 1
 * threads. */
QUIRE_API quire_status quire_backend_create(const char *name,
                                            const struct quire_backend_config *config,
                                            struct quire_backend **out, struct quire_error *error);

/* Waits for queued work and frees a backend. Its pools, buffers, plans and weights go first.
 *
 * backend: from quire_backend_create, or NULL.
 * Statuses: none.
 * Threads: the last user.
 * Cost: joins its threads. */
QUIRE_API void quire_backend_destroy(struct quire_backend *backend);

/* Sets attend parameters to their defaults.
 *
 * params: written whole; not NULL.
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API void quire_attend_params_init(struct quire_attend_params *params);

#ifdef __cplusplus
}
#endif
#endif
