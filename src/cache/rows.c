/* rows.c - rows of one layer of a sequence, from and to host memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * On the host a row is [G, D], each head's data and then its scales; in the cache the data of a
 * head lie together, and so do its scales. Both are moved through a bounce buffer of the pool, at
 * most QUIRE__BOUNCE_ROWS positions of one page at a time. Guarded by: pool->mutex, held for the
 * whole call. */
#include "cache/copy.h"
#include "cache/prefix.h"

#include <string.h>

/* Consecutive positions in one page. */
struct run {
    uint32_t layer;
    enum quire__plane plane;
    uint32_t page;
    uint32_t row; /* first row in the page */
    uint32_t count;
};

/* The longest run that starts at `position`, has at most `count` rows, and fits the bounce buffer.
 */
static struct run run_at(const struct quire_pool *pool, const struct quire__seq *seq,
                         const struct quire_rows *rows, uint32_t position, uint32_t count)
{
    const struct quire__layout *layout = &pool->layout;
    uint32_t slot = quire__seq_slot(pool, seq);
    struct run run = {.layer = rows->layer, .page = slot, .row = position, .count = count};
    if (!layout->contiguous) {
        uint64_t row = quire__pool_row(pool, layout->layers[rows->layer].group, slot);
        run.page = pool->table_indices[row + position / layout->block_size];
        run.row = position % layout->block_size;
        if (run.count > layout->block_size - run.row)
            run.count = layout->block_size - run.row;
    }
    if (run.count > QUIRE__BOUNCE_ROWS)
        run.count = QUIRE__BOUNCE_ROWS;
    return run;
}

static void move(uint8_t *outside, uint8_t *inside, uint32_t bytes, bool to_host)
{
    memcpy(to_host ? outside : inside, to_host ? inside : outside, bytes);
}

/* Moves a run between host rows [count, G, D] and the bounce buffer [G, count, D], where a head's
 * data come first and its scales follow. */
static void transpose(const struct quire_pool *pool, const struct run *run, uint8_t *host,
                      bool to_host)
{
    uint32_t heads = pool->layout.layers[run->layer].num_kv_heads;
    struct quire__rows_at rows = quire__layout_rows(&pool->layout, run->layer, run->plane);
    uint64_t bytes = (uint64_t)rows.data_bytes + rows.scale_bytes, count = run->count;
    for (uint32_t head = 0; head < heads; head++) {
        uint8_t *data = pool->bounce + head * count * bytes;
        uint8_t *scales = data + count * rows.data_bytes;
        for (uint64_t i = 0; i < count; i++) {
            uint8_t *outside = host + (i * heads + head) * bytes;
            move(outside, data + i * rows.data_bytes, rows.data_bytes, to_host);
            move(outside + rows.data_bytes, scales + i * rows.scale_bytes, rows.scale_bytes,
                 to_host);
        }
    }
}

/* The pieces of a run, in the arena and in the bounce buffer: data and scales of each head. They
 * are left in pool->uploads; returns how many. */
static uint32_t find_pieces(struct quire_pool *pool, const struct run *run)
{
    uint32_t heads = pool->layout.layers[run->layer].num_kv_heads, count = 0;
    uint8_t *bounce = pool->bounce;
    for (uint32_t head = 0; head < heads; head++) {
        struct quire__rows_at at =
            quire__layout_at(&pool->layout, run->layer, run->plane, run->page, head, run->row);
        uint64_t data = (uint64_t)run->count * at.data_bytes;
        uint64_t scales = (uint64_t)run->count * at.scale_bytes;
        pool->uploads[count++] = (struct quire_upload){at.data, data, bounce};
        if (scales != 0)
            pool->uploads[count++] = (struct quire_upload){at.scales, scales, bounce + data};
        bounce += data + scales;
    }
    return count;
}

static quire_status read_run(struct quire_pool *pool, const struct run *run, uint8_t *host)
{
    const struct quire_memory_ops *memory = pool->backend->memory;
    quire_status status = QUIRE_OK;
    uint32_t count = find_pieces(pool, run);
    for (uint32_t i = 0; i < count && status == QUIRE_OK; i++) {
        const struct quire_upload *piece = &pool->uploads[i];
        uint8_t *to = pool->bounce + ((const uint8_t *)piece->data - pool->bounce);
        status = memory->download(pool->backend, pool->arena, piece->offset, piece->bytes, to);
    }
    quire_fence fence = 0;
    quire_status waited = memory->fence_record(pool->backend, &fence);
    if (waited == QUIRE_OK)
        waited = memory->fence_wait(pool->backend, fence);
    if (status == QUIRE_OK)
        status = waited;
    if (status == QUIRE_OK)
        transpose(pool, run, host, true);
    return status;
}

static quire_status write_run(struct quire_pool *pool, const struct run *run, uint8_t *host)
{
    transpose(pool, run, host, false);
    uint32_t count = find_pieces(pool, run);
    return pool->backend->memory->upload(pool->backend, pool->arena, pool->uploads, count);
}

static quire_status move_plane(struct quire_pool *pool, const struct quire__seq *seq,
                               const struct quire_rows *rows, enum quire__plane plane,
                               uint8_t *host, bool to_host)
{
    uint64_t row_bytes = (uint64_t)quire__layout_row_bytes(&pool->layout, rows->layer, plane) *
                         pool->layout.layers[rows->layer].num_kv_heads;
    quire_status status = QUIRE_OK;
    for (uint32_t done = 0; done < rows->count && status == QUIRE_OK;) {
        struct run run = run_at(pool, seq, rows, rows->first + done, rows->count - done);
        run.plane = plane;
        uint8_t *at = host + done * row_bytes;
        status = to_host ? read_run(pool, &run, at) : write_run(pool, &run, at);
        done += run.count;
    }
    return quire__pool_note(pool, status);
}

/* The item of the open step that holds a sequence; NULL when there is none. */
static struct quire__step_item *item_of(struct quire_pool *pool, const struct quire__seq *seq)
{
    if (seq->step == QUIRE__NO_STEP)
        return NULL;
    struct quire__step *step = &pool->steps[seq->step];
    for (uint32_t i = 0; i < step->num_items; i++) {
        if (step->items[i].slot == quire__seq_slot(pool, seq))
            return &step->items[i];
    }
    return NULL;
}

/* Whether a window has let some of these rows go. */
static bool are_gone(const struct quire_pool *pool, const struct quire__seq *seq,
                     const struct quire_rows *rows)
{
    if (pool->layout.contiguous || rows->count == 0)
        return false;
    uint32_t table = pool->layout.layers[rows->layer].group, size = pool->layout.block_size;
    uint32_t first = quire__seq_first(pool, seq)[table];
    for (uint32_t i = rows->first / size; i <= (rows->first + rows->count - 1) / size; i++) {
        if (!quire__window_needs(pool, table, first, i))
            return true;
    }
    return false;
}

/* P3: whether somebody else can read one of these rows, or the index publishes it. */
static bool are_shared(const struct quire_pool *pool, const struct quire__seq *seq,
                       const struct quire_rows *rows)
{
    if (pool->layout.contiguous || rows->count == 0)
        return false;
    uint32_t table = pool->layout.layers[rows->layer].group, size = pool->layout.block_size;
    const uint32_t *entries = quire__seq_entries(pool, seq, table);
    uint32_t end = rows->first + rows->count; /* what an open step adds is its own */
    end = end < seq->len ? end : seq->len;
    for (uint32_t i = rows->first / size; rows->first < end && i * size < end; i++) {
        uint32_t first = i * size > rows->first ? 0 : rows->first - i * size;
        if (quire__copy_is_due(pool, entries[i], first))
            return true;
    }
    return false;
}

static quire_status check_rows(struct quire_pool *pool, const struct quire__seq *seq,
                               const struct quire_rows *rows, bool to_host)
{
    if (seq == NULL || rows->layer >= pool->layout.num_layers)
        return QUIRE_E_INVAL;
    const struct quire__step_item *item = to_host ? NULL : item_of(pool, seq);
    if ((uint64_t)rows->first + rows->count > (uint64_t)seq->len + (item != NULL ? item->n_new : 0))
        return QUIRE_E_INVAL;
    if (!pool->has_kv)
        return QUIRE_E_UNSUPPORTED;
    if (pool->failed)
        return QUIRE_E_DEVICE;
    if (are_gone(pool, seq, rows))
        return QUIRE_E_NOTFOUND;
    return !to_host && are_shared(pool, seq, rows) ? QUIRE_E_BUSY : QUIRE_OK;
}

static quire_status move_rows(struct quire_pool *pool, quire_seq seq, const struct quire_rows *rows,
                              uint8_t *host[2], bool to_host)
{
    if (pool == NULL || rows == NULL)
        return QUIRE_E_INVAL;
    quire__pool_lock(pool);
    struct quire__seq *found = quire__seq_find(pool, seq);
    quire_status status = check_rows(pool, found, rows, to_host);
    for (int plane = QUIRE__K; plane <= QUIRE__V && status == QUIRE_OK; plane++) {
        if (host[plane] != NULL)
            status = move_plane(pool, found, rows, (enum quire__plane)plane, host[plane], to_host);
    }
    struct quire__step_item *item = status == QUIRE_OK && !to_host ? item_of(pool, found) : NULL;
    bool moved = host[QUIRE__K] != NULL || host[QUIRE__V] != NULL;
    if (item != NULL && moved && (uint64_t)rows->first + rows->count > found->len)
        item->rows_written = true;
    quire__pool_unlock(pool);
    return status;
}

void quire__region_wipe(struct quire_pool *pool, uint32_t slot)
{
    struct quire__region *region = &pool->regions[slot];
    const struct quire_memory_ops *memory = pool->backend->memory;
    quire_status status = QUIRE_OK;
    for (uint32_t layer = 0; layer < pool->layout.num_layers && pool->has_kv && region->high > 0;
         layer++) {
        uint32_t count =
            quire__layout_ranges(&pool->layout, layer, slot, 0, region->high, pool->ranges);
        for (uint32_t i = 0; i < count && status == QUIRE_OK; i++)
            status = memory->fill(pool->backend, pool->arena, pool->ranges[i].offset,
                                  pool->ranges[i].bytes, 0);
    }
    if (status != QUIRE_OK)
        pool->failed = true; /* as quire__block_wipe */
    quire__region_forget(pool, slot);
}

void quire__region_forget(struct quire_pool *pool, uint32_t slot)
{
    struct quire__region *region = &pool->regions[slot];
    quire__tenant_set(&pool->tenants, &region->tenant, QUIRE__TENANT_NOBODY);
    region->high = 0;
}

quire_status quire_seq_read(struct quire_pool *pool, quire_seq seq, const struct quire_rows *rows,
                            void *k, void *v)
{
    uint8_t *host[2] = {k, v};
    return move_rows(pool, seq, rows, host, true);
}

quire_status quire_seq_write(struct quire_pool *pool, quire_seq seq, const struct quire_rows *rows,
                             const void *k, const void *v)
{
    uint8_t *host[2] = {(uint8_t *)(uintptr_t)k, (uint8_t *)(uintptr_t)v};
    return move_rows(pool, seq, rows, host, false);
}
