/* paged.h - the kernels without the pool: a caller's pages, a caller's table in CSR form.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: tables and lengths on the device, the plan, and wrappers of the caller's host memory.
 * Guarded by: nothing; an object belongs to one thread at a time.
 * Invariants: sequence i of a batch is slot i of the tables. Entries used[i] and up of slot i are
 * QUIRE_BLOCK_NONE on the device, where tables_known. Between calls `rows` is all zero. */
#ifndef QUIRE_CACHE_PAGED_H
#define QUIRE_CACHE_PAGED_H

#include "base/base.h"

#include <quire/paged.h>

struct quire_paged {
    struct quire_backend *backend;
    struct quire_kv_layer *layers; /* [num_layers] */
    uint32_t num_layers;
    uint32_t page_size, num_pages, max_seqs, max_seq_pages, max_step_tokens;
    uint32_t window, sink_positions; /* what some layer sees: the widest of all */
    struct quire_buffer **wrapped;   /* [num_wrapped], at most two a layer */
    uint32_t num_wrapped;
    struct quire_buffer *tables; /* u32 [max_seqs][max_seq_pages], then lengths [max_seqs] */
    uint64_t lens_offset;
    struct quire_plan *plan;
    bool tables_known; /* what used[] says of the device is so */
    bool planned;
    uint32_t num_tokens; /* T of the plan */
    uint32_t *used;      /* [max_seqs] */
    uint32_t *lens;      /* [max_seqs] */
    uint32_t *none;      /* [max_seq_pages] QUIRE_BLOCK_NONE */
    struct quire_step_part *parts;
    struct quire_upload *uploads; /* [2 * max_seqs + 1] */
    uint64_t *rows;               /* a bit for each row of each page: it is written in this step */
};

/* Makes used[] true, for the first time or after a failure. */
quire_status quire__paged_clear(struct quire_paged *paged);

#endif
