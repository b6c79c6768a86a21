/* paged_fixture.h - pages of a caller's own beside a pool that holds the same sequences.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_PAGED_FIXTURE_H
#define QUIRE_TESTS_PAGED_FIXTURE_H

#include "cache_fixture.h"

enum { PG_PAGES = 160, PG_SEQS = 8, PG_SEQ_PAGES = 80 };

/* Where the planes lie. */
enum pg_memory {
    PG_EACH,  /* an allocation for each plane */
    PG_SPLIT, /* one of all layers; plane after plane */
    PG_WEAVE, /* one of all layers; page after page */
    PG_COUNT
};

struct pg_sequence {
    uint32_t pages[PG_SEQ_PAGES];
    uint32_t len, num_pages; /* of these the new ones included, once pg_plan has them */
};

struct pg_batch {
    uint32_t qo_indptr[PG_SEQS + 1], kv_indptr[PG_SEQS + 1], last_page_len[PG_SEQS];
    uint32_t kv_indices[PG_SEQS * PG_SEQ_PAGES];
    struct quire_paged_batch batch;
};

/* Pages for the layers of an environment's geometry, on its backend. */
struct pg_pages {
    struct qt_env *env;
    struct quire_paged_layer layers[QT_LAYERS_MAX];
    struct quire_paged_config config;
    struct quire_paged *paged;
    void *memory[2 * QT_LAYERS_MAX]; /* of the host, or: */
    struct quire_buffer *buffers[2 * QT_LAYERS_MAX];
    uint32_t num_memories;
    uint32_t free[PG_PAGES], num_free; /* shuffled */
    struct pg_sequence seqs[PG_SEQS];
    struct quire_buffer *out, *lse;
    float *host_out, *host_lse;
};

void pg_open(struct pg_pages *pages, struct qt_env *env, uint32_t page_size, enum pg_memory memory,
             uint64_t seed);
void pg_close(struct pg_pages *pages);
/* Gives sequence s the pages that n_new more positions need. */
void pg_grow(struct pg_pages *pages, uint32_t s, uint32_t n_new);
/* Sequence `to` begins with the first len positions of `from`, in the same pages: len is a multiple
 * of the page size. */
void pg_share(struct pg_pages *pages, uint32_t from, uint32_t to, uint32_t len);
/* Adds sequence s, whose last n_new positions are new, to a batch that is zero at first. */
void pg_add(const struct pg_pages *pages, struct pg_batch *batch, uint32_t s, uint32_t n_new);
/* Writes and attends as qt_batch_write and qt_batch_attend just did for the pool: the inputs are
 * those that they left. host_out and host_lse hold the rows. */
void pg_write(struct pg_pages *pages, const struct qt_batch *batch, uint32_t layer);
void pg_attend(struct pg_pages *pages, const struct qt_batch *batch, uint32_t layer,
               const struct qt_attend *how);

#endif
