/* step.c - the step: one transaction over a ragged batch of sequences.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: the step slots. While a step is open, the sequences of its items belong to it.
 * Guarded by: pool->mutex; the backend's work is queued without it.
 * Invariants: T1 of DESIGN.md: what fails to begin changed nothing.
 *
 *            begin                 write, attend
 *   closed ---------> open  <--------------------
 *      ^               |
 *      +---------------+  commit, abort */
#include "cache/checks.h"
#include "cache/copy.h"
#include "cache/prefix.h"

#include <string.h>

/* ---- slots and handles ---- */

static void *array(uint64_t count, size_t item_bytes)
{
    return quire__calloc((size_t)count, item_bytes);
}

quire_status quire__step_init(struct quire_pool *pool, struct quire__step *step)
{
    uint64_t items = pool->max_items;
    step->items = array(items, sizeof *step->items);
    step->parts = array(items, sizeof *step->parts);
    step->tokens = array(pool->max_step_tokens, sizeof *step->tokens);
    step->originals = array(items * pool->layout.num_tables, sizeof *step->originals);
    step->copies = array(items * pool->layout.num_tables, sizeof *step->copies);
    step->layer_written = array(pool->layout.num_layers, sizeof *step->layer_written);
    step->qo_indptr = array(items + 1, sizeof *step->qo_indptr);
    step->kv_indptr = array(items + 1, sizeof *step->kv_indptr);
    step->last_page_len = array(items, sizeof *step->last_page_len);
    step->slot_mapping = array(pool->max_step_tokens, sizeof *step->slot_mapping);
    step->kv_indices = quire__reserve(items * pool->layout.max_blocks * sizeof *step->kv_indices);
    bool complete = step->items != NULL && step->parts != NULL && step->tokens != NULL &&
                    step->originals != NULL && step->copies != NULL &&
                    step->layer_written != NULL && step->qo_indptr != NULL &&
                    step->kv_indptr != NULL && step->last_page_len != NULL &&
                    step->slot_mapping != NULL && step->kv_indices != NULL;
    return complete ? QUIRE_OK : QUIRE_E_NOMEM;
}

void quire__step_deinit(struct quire_pool *pool, struct quire__step *step)
{
    if (step->plan != NULL)
        pool->backend->kv->plan_destroy(pool->backend, step->plan);
    quire__unreserve(step->kv_indices, (uint64_t)pool->max_items * pool->layout.max_blocks *
                                           sizeof *step->kv_indices);
    quire__free(step->slot_mapping);
    quire__free(step->last_page_len);
    quire__free(step->kv_indptr);
    quire__free(step->qo_indptr);
    quire__free(step->layer_written);
    quire__free(step->copies);
    quire__free(step->originals);
    quire__free(step->tokens);
    quire__free(step->parts);
    quire__free(step->items);
}

static struct quire__step *find_step(struct quire_pool *pool, quire_step step)
{
    uint32_t index = (uint32_t)step.id - 1u;
    if (index >= pool->max_open_steps)
        return NULL;
    struct quire__step *found = &pool->steps[index];
    return found->open && found->generation == (uint32_t)(step.id >> 32) ? found : NULL;
}

static struct quire__step *lock_step(struct quire_pool *pool, quire_step step)
{
    if (pool == NULL)
        return NULL;
    quire__pool_lock(pool);
    struct quire__step *found = find_step(pool, step);
    if (found == NULL)
        quire__pool_unlock(pool);
    return found;
}

static struct quire__step *free_step(struct quire_pool *pool)
{
    for (uint32_t i = 0; i < pool->max_open_steps; i++) {
        if (!pool->steps[i].open)
            return &pool->steps[i];
    }
    return NULL;
}

/* ---- begin ---- */

/* Looks at one item and marks its sequence as taken by the step. */
static quire_status claim(struct quire_pool *pool, const struct quire_step_item *item,
                          struct quire__step *step)
{
    struct quire__seq *seq = quire__seq_find(pool, item->seq);
    if (seq == NULL || item->n_new == 0)
        return QUIRE_E_INVAL;
    if (item->n_new <= pool->max_step_tokens &&
        !quire__pool_has_tokens(pool, item->tokens, item->n_new))
        return QUIRE_E_INVAL;
    uint32_t index = (uint32_t)(step - pool->steps);
    if (seq->step == index)
        return QUIRE_E_INVAL; /* named twice */
    if (seq->step != QUIRE__NO_STEP)
        return QUIRE_E_BUSY;
    if ((uint64_t)seq->len + item->n_new > pool->layout.max_seq_len ||
        (uint64_t)step->num_tokens + item->n_new > pool->max_step_tokens)
        return QUIRE_E_LIMIT;
    seq->step = index;
    step->parts[step->num_items] = (struct quire_step_part){
        .slot = quire__seq_slot(pool, seq),
        .len = seq->len,
        .n_new = item->n_new,
        .row = step->num_tokens,
    };
    step->items[step->num_items++] = (struct quire__step_item){
        .slot = quire__seq_slot(pool, seq),
        .n_new = item->n_new,
        .num_blocks_before = seq->num_blocks,
        .has_tokens = item->tokens != NULL,
    };
    step->num_tokens += item->n_new;
    return QUIRE_OK;
}

static struct quire__seq *seq_of(struct quire_pool *pool, const struct quire__step_item *item)
{
    return &pool->seqs[item->slot];
}

static uint32_t blocks_after(const struct quire_pool *pool, const struct quire__step *step,
                             uint32_t i)
{
    return quire__layout_blocks(&pool->layout, (uint64_t)step->parts[i].len + step->parts[i].n_new);
}

/* Blocks that all items together still need, copies included, which it plans. */
static uint64_t blocks_needed(const struct quire_pool *pool, const struct quire__step *step)
{
    uint64_t needed = 0;
    for (uint32_t i = 0; i < step->num_items; i++)
        needed += blocks_after(pool, step, i) - step->items[i].num_blocks_before;
    return needed * pool->layout.num_tables + quire__copies_plan(pool, step);
}

/* Gives blocks back that an item holds past the first `num_blocks`, and lets its sequence go. */
static void let_go(struct quire_pool *pool, const struct quire__step_item *item,
                   uint32_t num_blocks)
{
    struct quire__seq *seq = seq_of(pool, item);
    quire__seq_shrink(pool, seq, num_blocks);
    seq->step = QUIRE__NO_STEP;
}

static void undo(struct quire_pool *pool, struct quire__step *step)
{
    quire__copies_end(pool, step, false);
    for (uint32_t i = 0; i < step->num_items; i++)
        let_go(pool, &step->items[i], step->items[i].num_blocks_before);
    step->num_items = 0;
    step->num_tokens = 0;
}

/* Contiguous: makes the memory of an item's new blocks usable. */
static quire_status commit_memory(struct quire_pool *pool, const struct quire__step_item *item,
                                  uint32_t num_blocks)
{
    const struct quire__layout *layout = &pool->layout;
    uint64_t first = (uint64_t)item->num_blocks_before * layout->block_size;
    uint64_t end = (uint64_t)num_blocks * layout->block_size;
    end = end < layout->max_seq_len ? end : layout->max_seq_len;
    quire_status status = QUIRE_OK;
    if (pool->regions[item->slot].high < end)
        pool->regions[item->slot].high = (uint32_t)end;
    for (uint32_t layer = 0; layer < layout->num_layers && status == QUIRE_OK && pool->commits;
         layer++) {
        uint32_t count = quire__layout_ranges(layout, layer, item->slot, (uint32_t)first,
                                              (uint32_t)end, pool->ranges);
        status = pool->backend->memory->commit(pool->backend, pool->arena, pool->ranges, count);
    }
    return status;
}

static quire_status take_blocks(struct quire_pool *pool, struct quire__step *step)
{
    for (uint32_t i = 0; i < step->num_items; i++) {
        uint32_t num_blocks = blocks_after(pool, step, i);
        if (num_blocks == step->items[i].num_blocks_before)
            continue;
        quire__seq_grow(pool, seq_of(pool, &step->items[i]), num_blocks);
        quire_status status =
            pool->layout.contiguous ? commit_memory(pool, &step->items[i], num_blocks) : QUIRE_OK;
        if (status != QUIRE_OK)
            return status;
    }
    return QUIRE_OK;
}

/* One upload: the new table entries of every item, and the lengths that its kernels will read. */
static quire_status upload_changes(struct quire_pool *pool, const struct quire__step *step)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < step->num_items; i++) {
        const struct quire__step_item *item = &step->items[i];
        struct quire__seq *seq = seq_of(pool, item);
        uint32_t first = item->num_blocks_before;
        first = seq->dirty_from < first ? seq->dirty_from : first;
        uint32_t added = seq->num_blocks - first;
        for (uint32_t t = 0; t < pool->layout.num_tables && added > 0 && !pool->layout.contiguous;
             t++) {
            uint64_t row = quire__pool_row(pool, t, item->slot) + first;
            pool->uploads[count++] = (struct quire_upload){
                row * sizeof(uint32_t), added * sizeof(uint32_t), pool->table_indices + row};
        }
        pool->lens[item->slot] = step->parts[i].len + item->n_new;
        pool->uploads[count++] =
            (struct quire_upload){pool->lens_offset + item->slot * sizeof(uint32_t),
                                  sizeof(uint32_t), &pool->lens[item->slot]};
    }
    pool->figures.uploads++;
    quire_status status =
        pool->backend->memory->upload(pool->backend, pool->tables, pool->uploads, count);
    for (uint32_t i = 0; i < step->num_items && status == QUIRE_OK; i++)
        seq_of(pool, &step->items[i])->dirty_from = QUIRE__CLEAN;
    return status;
}

static quire_status prepare_device(struct quire_pool *pool, struct quire__step *step)
{
    if (!pool->has_kv)
        return QUIRE_OK;
    struct quire_step_desc desc = {step->num_items, step->num_tokens, step->parts};
    quire_status status = upload_changes(pool, step);
    if (status == QUIRE_OK && step->num_copies > 0)
        status = pool->backend->kv->copy(pool->backend, step->plan, step->copies, step->num_copies);
    if (status == QUIRE_OK)
        status = pool->backend->kv->plan_build(pool->backend, step->plan, &desc);
    return quire__pool_note(pool, status);
}

static void keep_tokens(struct quire__step *step, const struct quire_step_item *items)
{
    for (uint32_t i = 0; i < step->num_items; i++) {
        const struct quire_step_part *part = &step->parts[i];
        if (items[i].tokens != NULL)
            memcpy(step->tokens + part->row, items[i].tokens, part->n_new * sizeof *step->tokens);
    }
}

static quire_status begin_locked(struct quire_pool *pool, const struct quire_step_item *items,
                                 uint32_t num_items, struct quire__step *step, uint64_t *missing)
{
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < num_items && status == QUIRE_OK; i++)
        status = claim(pool, &items[i], step);
    if (status == QUIRE_OK) {
        uint64_t needed = blocks_needed(pool, step);
        uint64_t available = quire__blocks_available(&pool->blocks);
        uint64_t lacking = needed > available ? needed - available : 0;
        uint64_t avoidable = lacking > 0 ? quire__copies_avoidable(pool, step) : 0;
        if (lacking > avoidable) {
            status = QUIRE_E_NOSPACE;
            *missing = lacking - avoidable;
        } else {
            quire__copies_avoid(pool, step, lacking);
        }
    }
    if (status == QUIRE_OK) {
        quire__copies_begin(pool, step);
        status = take_blocks(pool, step);
    }
    if (pool->failed) /* a block could not be zeroed for its new tenant */
        status = QUIRE_E_DEVICE;
    if (status == QUIRE_OK)
        status = prepare_device(pool, step);
    if (status != QUIRE_OK) {
        undo(pool, step);
        return status;
    }
    keep_tokens(step, items);
    memset(step->layer_written, 0, pool->layout.num_layers);
    step->num_layers_written = 0;
    step->external = !pool->has_kv;
    step->open = true;
    pool->num_open++;
    return QUIRE_OK;
}

/* A late device error shows here at the latest. */
static quire_status poll_device(struct quire_pool *pool)
{
    if (!pool->failed && pool->has_kv)
        (void)quire__pool_note(pool, pool->backend->memory->fence_poll(pool->backend, 0));
    return pool->failed ? QUIRE_E_DEVICE : QUIRE_OK;
}

quire_status quire_step_begin(struct quire_pool *pool, const struct quire_step_item *items,
                              uint32_t num_items, quire_step *step, uint64_t *missing_blocks)
{
    if (pool == NULL || items == NULL || step == NULL || num_items == 0)
        return QUIRE_E_INVAL;
    if (num_items > pool->max_items)
        return QUIRE_E_LIMIT;
    uint64_t missing = 0;
    quire__pool_lock(pool);
    quire_status status = poll_device(pool);
    struct quire__step *slot = status == QUIRE_OK ? free_step(pool) : NULL;
    if (status == QUIRE_OK && slot == NULL)
        status = QUIRE_E_BUSY;
    if (status == QUIRE_OK)
        status = begin_locked(pool, items, num_items, slot, &missing);
    if (status == QUIRE_OK) {
        uint32_t index = (uint32_t)(slot - pool->steps);
        *step = (quire_step){(uint64_t)slot->generation << 32 | (index + 1u)};
    }
    quire__pool_unlock(pool);
    if (status == QUIRE_E_NOSPACE && missing_blocks != NULL)
        *missing_blocks = missing;
    return status;
}

/* ---- write and attend ---- */

/* Passes on what the backend answered to an open step; a device error fails the pool. */
static quire_status answered(struct quire_pool *pool, quire_status status)
{
    if (status == QUIRE_E_DEVICE) {
        quire__pool_lock(pool);
        pool->failed = true;
        quire__pool_unlock(pool);
    }
    return status;
}

quire_status quire_step_write(struct quire_pool *pool, quire_step step, uint32_t layer,
                              const struct quire_view *k, const struct quire_view *v)
{
    struct quire__step *open = lock_step(pool, step);
    if (open == NULL)
        return QUIRE_E_INVAL;
    quire__pool_unlock(pool); /* an open step belongs to its thread */
    if (layer >= pool->layout.num_layers)
        return QUIRE_E_INVAL;
    if (!pool->has_kv)
        return QUIRE_E_UNSUPPORTED;
    const struct quire_kv_layer *geometry = &pool->layout.layers[layer];
    if (!quire__view_has_shape(k, open->num_tokens, geometry->num_kv_heads, geometry->head_dim) ||
        !quire__view_has_shape(v, open->num_tokens, geometry->num_kv_heads, geometry->head_dim_v))
        return QUIRE_E_INVAL;
    quire_status status = pool->backend->kv->write(pool->backend, open->plan, layer, k, v);
    if (status == QUIRE_OK && open->layer_written[layer] == 0) {
        open->layer_written[layer] = 1;
        open->num_layers_written++;
    }
    return answered(pool, status);
}

quire_status quire_step_attend(struct quire_pool *pool, quire_step step, uint32_t layer,
                               const struct quire_view *q, const struct quire_view *out,
                               const struct quire_attend_params *params)
{
    struct quire__step *open = lock_step(pool, step);
    if (open == NULL)
        return QUIRE_E_INVAL;
    quire__pool_unlock(pool);
    if (layer >= pool->layout.num_layers)
        return QUIRE_E_INVAL;
    if (!pool->has_kv)
        return QUIRE_E_UNSUPPORTED;
    const struct quire_kv_layer *geometry = &pool->layout.layers[layer];
    struct quire_attend_params used;
    if (!quire__attend_params_take(params, open->num_tokens, geometry->num_heads, &used) ||
        !quire__view_has_shape(q, open->num_tokens, geometry->num_heads, geometry->head_dim) ||
        !quire__view_has_shape(out, open->num_tokens, geometry->num_heads, geometry->head_dim_v) ||
        !quire__view_rows_apart(out) || (open->layer_written[layer] == 0 && !open->external))
        return QUIRE_E_INVAL;
    return answered(pool,
                    pool->backend->kv->attend(pool->backend, open->plan, layer, q, out, &used));
}

/* ---- commit and abort ---- */

static void close_step(struct quire_pool *pool, struct quire__step *step)
{
    step->open = false;
    step->generation++;
    step->num_items = 0;
    step->num_tokens = 0;
    pool->num_open--;
}

/* Whether the rows of an item are known to be its tokens': written through the step, by the caller
 * whose kernels they are, or by quire_seq_write. */
static bool rows_are_there(const struct quire__step *step, const struct quire__step_item *item)
{
    return step->external || step->num_layers_written > 0 || item->rows_written;
}

static void commit_item(struct quire_pool *pool, const struct quire__step *step, uint32_t i,
                        uint32_t kept)
{
    const struct quire__step_item *item = &step->items[i];
    struct quire__seq *seq = seq_of(pool, item);
    if (kept > 0) {
        seq->len += kept;
        seq->has_tokens = seq->has_tokens && item->has_tokens && rows_are_there(step, item);
        quire__prefix_append(pool, seq, step->tokens + step->parts[i].row, kept);
    }
    let_go(pool, item, quire__layout_blocks(&pool->layout, seq->len));
    if (kept > 0)
        quire__window_release(pool, seq);
}

quire_status quire_step_commit(struct quire_pool *pool, quire_step step, const uint32_t *n_keep)
{
    struct quire__step *open = lock_step(pool, step);
    if (open == NULL)
        return QUIRE_E_INVAL;
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; n_keep != NULL && i < open->num_items; i++) {
        if (n_keep[i] > open->items[i].n_new)
            status = QUIRE_E_INVAL;
    }
    if (!open->external && open->num_layers_written > 0 &&
        open->num_layers_written < pool->layout.num_layers)
        status = QUIRE_E_INVAL;
    if (status == QUIRE_OK) {
        quire__copies_end(pool, open, true);
        for (uint32_t i = 0; i < open->num_items; i++)
            commit_item(pool, open, i, n_keep != NULL ? n_keep[i] : open->items[i].n_new);
        quire__pool_keep_young(pool);
        close_step(pool, open);
        pool->figures.steps_committed++;
    }
    quire__pool_unlock(pool);
    return status;
}

quire_status quire_step_abort(struct quire_pool *pool, quire_step step)
{
    struct quire__step *open = lock_step(pool, step);
    if (open == NULL)
        return QUIRE_E_INVAL;
    undo(pool, open);
    close_step(pool, open);
    pool->figures.steps_aborted++;
    quire__pool_unlock(pool);
    return QUIRE_OK;
}

/* ---- the batch for foreign kernels ---- */

static void view_item(const struct quire_pool *pool, struct quire__step *step, uint32_t i,
                      uint32_t table)
{
    const struct quire_step_part *part = &step->parts[i];
    uint32_t size = pool->layout.block_size;
    uint32_t num_blocks = pool->seqs[part->slot].num_blocks;
    const uint32_t *row = pool->table_indices + quire__pool_row(pool, table, part->slot);
    step->qo_indptr[i + 1] = part->row + part->n_new;
    step->kv_indptr[i + 1] = step->kv_indptr[i] + num_blocks;
    memcpy(step->kv_indices + step->kv_indptr[i], row, num_blocks * sizeof *row);
    step->last_page_len[i] = (part->len + part->n_new - 1) % size + 1;
    for (uint32_t t = 0; t < part->n_new; t++) {
        uint32_t position = part->len + t;
        step->slot_mapping[part->row + t] = (uint64_t)row[position / size] * size + position % size;
    }
}

static uint64_t entries_of(const struct quire_pool *pool, const struct quire__step *step)
{
    uint64_t entries = 0;
    for (uint32_t i = 0; i < step->num_items; i++)
        entries += pool->seqs[step->parts[i].slot].num_blocks;
    return entries;
}

quire_status quire_step_view(struct quire_pool *pool, quire_step step, uint32_t group,
                             struct quire_step_view *view)
{
    if (view == NULL || view->struct_size != sizeof *view)
        return QUIRE_E_INVAL;
    struct quire__step *open = lock_step(pool, step);
    if (open == NULL)
        return QUIRE_E_INVAL;
    quire_status status = QUIRE_OK;
    if (group >= pool->layout.num_groups)
        status = QUIRE_E_INVAL;
    else if (pool->layout.contiguous)
        status = QUIRE_E_UNSUPPORTED;
    else if (entries_of(pool, open) > UINT32_MAX)
        status = QUIRE_E_LIMIT;
    if (status == QUIRE_OK) {
        open->qo_indptr[0] = 0;
        open->kv_indptr[0] = 0;
        for (uint32_t i = 0; i < open->num_items; i++)
            view_item(pool, open, i, group);
        open->external = true;
        *view = (struct quire_step_view){
            .struct_size = sizeof *view,
            .num_items = open->num_items,
            .num_tokens = open->num_tokens,
            .qo_indptr = open->qo_indptr,
            .kv_indptr = open->kv_indptr,
            .kv_indices = open->kv_indices,
            .last_page_len = open->last_page_len,
            .slot_mapping = open->slot_mapping,
            .num_copies = pool->has_kv ? 0 : open->num_copies,
            .copies = open->copies,
        };
    }
    quire__pool_unlock(pool);
    return status;
}
