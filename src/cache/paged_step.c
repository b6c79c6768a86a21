/* paged_step.c - a step over a caller's own pages: plan, write, attend.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A batch is checked whole before the device hears of it, so that a refused one changes nothing. */
#include "cache/checks.h"
#include "cache/paged.h"

#include <string.h>

quire_status quire__paged_clear(struct quire_paged *paged)
{
    if (paged->tables_known)
        return QUIRE_OK;
    quire_status status =
        paged->backend->memory->fill(paged->backend, paged->tables, 0, paged->lens_offset, 0xff);
    memset(paged->used, 0, paged->max_seqs * sizeof *paged->used);
    paged->tables_known = status == QUIRE_OK;
    return status;
}

/* ---- checking a batch ---- */

/* One sequence of a batch. */
struct item {
    uint32_t index;
    uint32_t row, n_new; /* of the step's rows */
    uint32_t len;        /* positions, the new ones included */
    uint32_t num_pages;
    const uint32_t *pages;
};

static quire_status check_indptr(const uint32_t *indptr, uint32_t num_seqs, const char *name,
                                 struct quire_error *error)
{
    if (indptr[0] != 0)
        return quire__fail(error, QUIRE_E_INVAL, "%s begins at %u, not at 0", name, indptr[0]);
    for (uint32_t i = 0; i < num_seqs; i++) {
        if (indptr[i + 1] < indptr[i])
            return quire__fail(error, QUIRE_E_INVAL, "%s falls from %u to %u at sequence %u", name,
                               indptr[i], indptr[i + 1], i);
    }
    return QUIRE_OK;
}

static quire_status check_arrays(const struct quire_paged *paged,
                                 const struct quire_paged_batch *batch, struct quire_error *error)
{
    uint32_t num_seqs = batch->num_seqs;
    if (num_seqs > paged->max_seqs)
        return quire__fail(error, QUIRE_E_LIMIT, "%u sequences, over max_seqs, which is %u",
                           num_seqs, paged->max_seqs);
    if (batch->qo_indptr == NULL || batch->kv_indptr == NULL || batch->last_page_len == NULL)
        return quire__fail(error, QUIRE_E_INVAL,
                           "qo_indptr, kv_indptr and last_page_len must not be NULL");
    quire_status status = check_indptr(batch->qo_indptr, num_seqs, "qo_indptr", error);
    if (status == QUIRE_OK)
        status = check_indptr(batch->kv_indptr, num_seqs, "kv_indptr", error);
    if (status != QUIRE_OK)
        return status;
    if (batch->kv_indices == NULL && batch->kv_indptr[num_seqs] != 0)
        return quire__fail(error, QUIRE_E_INVAL, "kv_indices must not be NULL");
    if (batch->qo_indptr[num_seqs] > paged->max_step_tokens)
        return quire__fail(error, QUIRE_E_LIMIT, "%u new tokens, over max_step_tokens, which is %u",
                           batch->qo_indptr[num_seqs], paged->max_step_tokens);
    return QUIRE_OK;
}

/* Whether no layer shows the item's new tokens, or a next one, anything of its first pages. */
static bool is_hidden(const struct quire_paged *paged, const struct item *item, uint32_t page)
{
    uint64_t first = (uint64_t)page * paged->page_size, end = first + paged->page_size;
    uint64_t query = item->len - item->n_new;
    return paged->window != 0 && first >= paged->sink_positions && end + paged->window <= query + 1;
}

static quire_status check_pages(const struct quire_paged *paged, const struct item *item,
                                struct quire_error *error)
{
    for (uint32_t i = 0; i < item->num_pages; i++) {
        uint32_t page = item->pages[i];
        if (page < paged->num_pages)
            continue;
        if (page != QUIRE_BLOCK_NONE)
            return quire__fail(error, QUIRE_E_INVAL,
                               "sequence %u: page %u of it is %u; there are %u pages", item->index,
                               i, page, paged->num_pages);
        if (!is_hidden(paged, item, i))
            return quire__fail(error, QUIRE_E_INVAL,
                               "sequence %u: page %u of it is none, and a layer sees it",
                               item->index, i);
    }
    return QUIRE_OK;
}

/* Sequence i of a batch whose arrays are sound; to be believed once check_item said so. */
static struct item item_at(const struct quire_paged *paged, const struct quire_paged_batch *batch,
                           uint32_t i)
{
    uint32_t first = batch->kv_indptr[i];
    struct item item = {
        .index = i,
        .row = batch->qo_indptr[i],
        .n_new = batch->qo_indptr[i + 1] - batch->qo_indptr[i],
        .num_pages = batch->kv_indptr[i + 1] - first,
    };
    if (item.num_pages != 0) {
        item.pages = batch->kv_indices + first;
        item.len = (item.num_pages - 1) * paged->page_size + batch->last_page_len[i];
    }
    return item;
}

static quire_status check_item(const struct quire_paged *paged,
                               const struct quire_paged_batch *batch, const struct item *item,
                               struct quire_error *error)
{
    uint32_t i = item->index;
    if (item->num_pages > paged->max_seq_pages)
        return quire__fail(error, QUIRE_E_LIMIT,
                           "sequence %u: %u pages, over max_seq_pages, which is %u", i,
                           item->num_pages, paged->max_seq_pages);
    if (item->num_pages != 0 &&
        (batch->last_page_len[i] == 0 || batch->last_page_len[i] > paged->page_size))
        return quire__fail(error, QUIRE_E_INVAL, "sequence %u: last_page_len is %u, not 1 to %u", i,
                           batch->last_page_len[i], paged->page_size);
    if (item->n_new > item->len)
        return quire__fail(error, QUIRE_E_INVAL,
                           "sequence %u: %u new tokens, but %u positions with them", i, item->n_new,
                           item->len);
    return check_pages(paged, item, error);
}

/* ---- rows that are written ---- */

/* The row of new token i of an item, counted over all pages. */
static uint64_t row_of(const struct quire_paged *paged, const struct item *item, uint32_t i)
{
    uint32_t at = item->len - item->n_new + i;
    return (uint64_t)item->pages[at / paged->page_size] * paged->page_size + at % paged->page_size;
}

/* Sets the bits of an item's new rows up to the first that is set already; returns how many. */
static uint32_t mark_rows(const struct quire_paged *paged, const struct item *item)
{
    for (uint32_t i = 0; i < item->n_new; i++) {
        uint64_t row = row_of(paged, item, i), bit = (uint64_t)1 << row % 64;
        if ((paged->rows[row / 64] & bit) != 0)
            return i;
        paged->rows[row / 64] |= bit;
    }
    return item->n_new;
}

/* Clears the bits of the first `count` new rows of a batch. */
static void clear_rows(const struct quire_paged *paged, const struct quire_paged_batch *batch,
                       uint64_t count)
{
    for (uint32_t s = 0; count > 0; s++) {
        struct item item = item_at(paged, batch, s);
        for (uint32_t i = 0; i < item.n_new && count > 0; i++, count--) {
            uint64_t row = row_of(paged, &item, i);
            paged->rows[row / 64] &= ~((uint64_t)1 << row % 64);
        }
    }
}

/* No two new tokens may be written to one row. */
static quire_status check_rows(const struct quire_paged *paged,
                               const struct quire_paged_batch *batch, struct quire_error *error)
{
    quire_status status = QUIRE_OK;
    uint64_t marked = 0;
    for (uint32_t s = 0; s < batch->num_seqs && status == QUIRE_OK; s++) {
        struct item item = item_at(paged, batch, s);
        uint32_t count = mark_rows(paged, &item);
        marked += count;
        if (count < item.n_new) {
            uint64_t row = row_of(paged, &item, count);
            status = quire__fail(error, QUIRE_E_INVAL,
                                 "sequence %u writes row %u of page %u, which this step writes "
                                 "already; copy the page first",
                                 s, (uint32_t)(row % paged->page_size),
                                 (uint32_t)(row / paged->page_size));
        }
    }
    clear_rows(paged, batch, marked);
    return status;
}

static quire_status check_batch(const struct quire_paged *paged,
                                const struct quire_paged_batch *batch, struct quire_error *error)
{
    quire_status status = check_arrays(paged, batch, error);
    for (uint32_t i = 0; i < batch->num_seqs && status == QUIRE_OK; i++) {
        struct item item = item_at(paged, batch, i);
        status = check_item(paged, batch, &item, error);
    }
    return status == QUIRE_OK ? check_rows(paged, batch, error) : status;
}

/* ---- plan ---- */

/* One upload: the pages of every sequence that has new tokens, none behind them, and lengths. */
static quire_status upload(struct quire_paged *paged, const struct quire_paged_batch *batch,
                           uint32_t *num_parts)
{
    const uint64_t entry = sizeof(uint32_t);
    uint32_t count = 0;
    *num_parts = 0;
    for (uint32_t i = 0; i < batch->num_seqs; i++) {
        struct item item = item_at(paged, batch, i);
        uint64_t row = (uint64_t)i * paged->max_seq_pages;
        paged->lens[i] = item.len;
        if (item.n_new == 0)
            continue;
        paged->parts[(*num_parts)++] = (struct quire_step_part){
            .slot = i, .len = item.len - item.n_new, .n_new = item.n_new, .row = item.row};
        paged->uploads[count++] =
            (struct quire_upload){row * entry, item.num_pages * entry, item.pages};
        if (paged->used[i] > item.num_pages)
            paged->uploads[count++] =
                (struct quire_upload){(row + item.num_pages) * entry,
                                      (paged->used[i] - item.num_pages) * entry, paged->none};
        paged->used[i] = item.num_pages;
    }
    paged->uploads[count++] =
        (struct quire_upload){paged->lens_offset, batch->num_seqs * entry, paged->lens};
    return paged->backend->memory->upload(paged->backend, paged->tables, paged->uploads, count);
}

static quire_status send(struct quire_paged *paged, const struct quire_paged_batch *batch)
{
    struct quire_step_desc desc = {0, batch->qo_indptr[batch->num_seqs], paged->parts};
    quire_status status = paged->backend->memory->fence_poll(paged->backend, 0);
    if (status == QUIRE_OK)
        status = quire__paged_clear(paged);
    if (status == QUIRE_OK)
        status = upload(paged, batch, &desc.num_parts);
    if (status == QUIRE_OK)
        status = paged->backend->kv->plan_build(paged->backend, paged->plan, &desc);
    return status;
}

quire_status quire_paged_plan(struct quire_paged *paged, const struct quire_paged_batch *batch,
                              struct quire_error *error)
{
    if (paged == NULL || batch == NULL || batch->struct_size != sizeof *batch)
        return quire__fail(error, QUIRE_E_INVAL,
                           "quire_paged_plan needs an object and a batch with its struct_size");
    quire_status status = batch->num_seqs != 0 ? check_batch(paged, batch, error) : QUIRE_OK;
    if (status != QUIRE_OK)
        return status;
    uint32_t num_tokens = batch->num_seqs != 0 ? batch->qo_indptr[batch->num_seqs] : 0;
    if (num_tokens != 0)
        status = send(paged, batch);
    paged->planned = status == QUIRE_OK;
    paged->num_tokens = num_tokens;
    if (status == QUIRE_OK)
        return QUIRE_OK;
    paged->tables_known = false;
    return quire__fail(error, status, "backend %s cannot plan the step: %s", paged->backend->name,
                       quire_status_text(status));
}

/* ---- write and attend ---- */

static quire_status check_call(const struct quire_paged *paged, uint32_t layer,
                               struct quire_error *error)
{
    if (paged == NULL)
        return quire__fail(error, QUIRE_E_INVAL, "the object must not be NULL");
    if (layer >= paged->num_layers)
        return quire__fail(error, QUIRE_E_INVAL, "layer %u; there are %u layers", layer,
                           paged->num_layers);
    if (!paged->planned)
        return quire__fail(error, QUIRE_E_INVAL, "no step is planned");
    return QUIRE_OK;
}

static quire_status check_view(const struct quire_paged *paged, const struct quire_view *view,
                               const char *name, const uint32_t heads_and_dim[2],
                               struct quire_error *error)
{
    uint32_t heads = heads_and_dim[0], dim = heads_and_dim[1];
    if (quire__view_has_shape(view, paged->num_tokens, heads, dim))
        return QUIRE_OK;
    return quire__fail(error, QUIRE_E_INVAL, "%s must be a view of f32 [%u, %u, %u]", name,
                       paged->num_tokens, heads, dim);
}

/* Passes on what the backend answered to views of the right shape. */
static quire_status answered(const struct quire_paged *paged, quire_status status,
                             struct quire_error *error)
{
    if (status == QUIRE_OK)
        return QUIRE_OK;
    const char *why = status == QUIRE_E_INVAL ? "a view is misaligned, leaves its buffer, or is of "
                                                "memory that it cannot see"
                                              : quire_status_text(status);
    return quire__fail(error, status, "backend %s: %s", paged->backend->name, why);
}

quire_status quire_paged_write(struct quire_paged *paged, uint32_t layer,
                               const struct quire_view *k, const struct quire_view *v,
                               struct quire_error *error)
{
    quire_status status = check_call(paged, layer, error);
    if (status != QUIRE_OK || paged->num_tokens == 0)
        return status;
    const struct quire_kv_layer *of = &paged->layers[layer];
    status = check_view(paged, k, "k", (uint32_t[]){of->num_kv_heads, of->head_dim}, error);
    if (status == QUIRE_OK)
        status = check_view(paged, v, "v", (uint32_t[]){of->num_kv_heads, of->head_dim_v}, error);
    if (status != QUIRE_OK)
        return status;
    return answered(paged, paged->backend->kv->write(paged->backend, paged->plan, layer, k, v),
                    error);
}

quire_status quire_paged_attend(struct quire_paged *paged, uint32_t layer,
                                const struct quire_view *q, const struct quire_view *out,
                                const struct quire_attend_params *params, struct quire_error *error)
{
    quire_status status = check_call(paged, layer, error);
    if (status != QUIRE_OK || paged->num_tokens == 0)
        return status;
    const struct quire_kv_layer *of = &paged->layers[layer];
    struct quire_attend_params used;
    status = check_view(paged, q, "q", (uint32_t[]){of->num_heads, of->head_dim}, error);
    if (status == QUIRE_OK)
        status = check_view(paged, out, "out", (uint32_t[]){of->num_heads, of->head_dim_v}, error);
    if (status == QUIRE_OK && !quire__view_rows_apart(out))
        status =
            quire__fail(error, QUIRE_E_INVAL,
                        "tokens or heads of out overlap or interleave: strides %llu and %llu",
                        (unsigned long long)out->stride[0], (unsigned long long)out->stride[1]);
    if (status != QUIRE_OK)
        return status;
    if (!quire__attend_params_take(params, paged->num_tokens, of->num_heads, &used))
        return quire__fail(error, QUIRE_E_INVAL,
                           "params need quire_attend_params_init, a finite scale, a finite softcap "
                           "of at least 0, and an lse that is f32 {%u, 1, %u}, its rows apart",
                           paged->num_tokens, of->num_heads);
    return answered(paged,
                    paged->backend->kv->attend(paged->backend, paged->plan, layer, q, out, &used),
                    error);
}
