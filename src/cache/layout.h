/* layout.h - where K and V of a position lie; nobody else computes an address.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_CACHE_LAYOUT_H
#define QUIRE_CACHE_LAYOUT_H

#include "base/base.h"

#include <quire/pool.h>

enum quire__plane { QUIRE__K = 0, QUIRE__V = 1 };

enum { QUIRE__HEAD_RANGES = 4 }; /* of one head: data and scales of K and of V */

/* What the layers of one table see. */
struct quire__table {
    uint32_t window; /* 0: everything before; always 0 when contiguous, where nothing is let go */
    uint32_t sink_blocks; /* first blocks of a table with a window that are never let go */
};

struct quire__layout {
    bool contiguous;
    uint32_t num_layers;
    uint32_t num_groups;
    uint32_t num_tables; /* that the accountant keeps: num_groups, or 1 when contiguous */
    uint32_t block_size; /* P; contiguous: the positions by which memory follows the length */
    uint32_t max_seq_len;
    uint32_t max_blocks;           /* blocks of one sequence in one table */
    uint32_t page_positions;       /* positions of one page: P, or max_seq_len when contiguous */
    uint64_t page_bytes;           /* distance between pages of the arena */
    uint64_t block_bytes;          /* of K and V that one block stands for */
    uint64_t position_bytes;       /* of K and V of one position over all layers */
    uint32_t max_plane_heads;      /* largest G */
    uint32_t max_row_bytes;        /* largest row of one head, with its scales */
    bool has_windows;              /* some table has one */
    struct quire_kv_layer *layers; /* [num_layers] owned */
    struct quire__table *tables;   /* [num_tables] owned */
};

/* Checks the shapes of a config and works out the layout (`layout` is not AUTO any more). Statuses
 * and messages as quire_pool_create. */
quire_status quire__layout_init(struct quire__layout *self, const struct quire_pool_config *config,
                                uint32_t layout, struct quire_error *error);
void quire__layout_deinit(struct quire__layout *self);

/* Blocks that `len` positions need in each table. */
uint32_t quire__layout_blocks(const struct quire__layout *self, uint64_t len);

/* Where rows (positions of one head) lie in the arena: their data, and behind the data of all rows
 * of the page and head their scales, which q8 and q4 have. Offsets in bytes. */
struct quire__rows_at {
    uint64_t data, scales;
    uint32_t data_bytes, scale_bytes; /* of one row */
};

/* The bytes of a row; its offsets stay 0. */
struct quire__rows_at quire__layout_rows(const struct quire__layout *self, uint32_t layer,
                                         enum quire__plane plane);

/* Bytes of one row, data and scales. */
uint32_t quire__layout_row_bytes(const struct quire__layout *self, uint32_t layer,
                                 enum quire__plane plane);

/* A row. page: a physical block, or the slot when contiguous. */
struct quire__rows_at quire__layout_at(const struct quire__layout *self, uint32_t layer,
                                       enum quire__plane plane, uint32_t page, uint32_t head,
                                       uint32_t row);

/* Contiguous: the arena's ranges of positions first .. end of one slot and layer, K then V, for
 * each head its data and its scales. ranges [QUIRE__HEAD_RANGES * G of the layer]; returns how
 * many. */
uint32_t quire__layout_ranges(const struct quire__layout *self, uint32_t layer, uint32_t slot,
                              uint32_t first, uint32_t end, struct quire_range *ranges);

#endif
