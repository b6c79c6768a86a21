/* create.c - creation and end of a pool.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: all memory of a pool, host and device; everything is taken in quire_pool_create. */
#include "cache/checks.h"
#include "cache/pool.h"

#include <string.h>

#define ARENA_ALIGN 64u

void quire_pool_config_init(struct quire_pool_config *config)
{
    memset(config, 0, sizeof *config);
    config->struct_size = sizeof *config;
    config->layout = QUIRE_LAYOUT_AUTO;
    config->dtype_k = QUIRE_F16;
    config->dtype_v = QUIRE_F16;
    config->block_size = 16;
    config->max_seqs = 16;
    config->max_seq_len = 4096;
    config->max_step_tokens = 512;
    config->max_open_steps = 4;
    config->memory_bytes = (uint64_t)1 << 30;
    config->eviction = QUIRE_EVICT_LRU;
    config->rollback_max = 64;
    config->max_pins = 64;
    config->recent_lookups = 1000;
}

/* ---- what the backend must have ---- */

static uint32_t choose_layout(const struct quire_pool_config *config)
{
    if (config->layout != QUIRE_LAYOUT_AUTO)
        return config->layout;
    const char *paged = quire__getenv("QUIRE_PAGED_KV");
    if (paged != NULL)
        return strcmp(paged, "0") == 0 ? QUIRE_LAYOUT_CONTIGUOUS : QUIRE_LAYOUT_PAGED;
    bool has_paged = (config->backend->caps.layouts & 1u << QUIRE_LAYOUT_PAGED) != 0;
    return has_paged ? QUIRE_LAYOUT_PAGED : QUIRE_LAYOUT_CONTIGUOUS;
}

static quire_status check_layout(const struct quire_backend *backend, uint32_t layout,
                                 struct quire_error *error)
{
    uint32_t layouts = backend->caps.layouts;
    if ((layouts & 1u << layout) != 0)
        return QUIRE_OK;
    return quire__fail(error, QUIRE_E_UNSUPPORTED, "backend %s has no %s layout; it has:%s%s",
                       backend->name, layout == QUIRE_LAYOUT_PAGED ? "paged" : "contiguous",
                       layouts & 1u << QUIRE_LAYOUT_CONTIGUOUS ? " contiguous" : "",
                       layouts & 1u << QUIRE_LAYOUT_PAGED ? " paged" : "");
}

static quire_status check_shapes(const struct quire_backend *backend,
                                 const struct quire__layout *layout, struct quire_error *error)
{
    for (uint32_t i = 0; i < layout->num_layers; i++) {
        quire_status status = quire__check_dims(backend, i, &layout->layers[i], error);
        if (status != QUIRE_OK)
            return status;
    }
    return layout->contiguous ? QUIRE_OK
                              : quire__check_block_size(backend, layout->block_size, error);
}

static quire_status check_support(const struct quire_pool *pool,
                                  const struct quire_pool_config *config, struct quire_error *error)
{
    if (!pool->has_kv)
        return QUIRE_OK;
    quire_status status = quire__check_dtype(pool->backend, config->dtype_k, error);
    if (status == QUIRE_OK)
        status = quire__check_dtype(pool->backend, config->dtype_v, error);
    if (status == QUIRE_OK)
        status = check_shapes(pool->backend, &pool->layout, error);
    if (status == QUIRE_OK && config->memory != NULL &&
        (pool->backend->caps.flags & QUIRE_CAP_WRAP) == 0)
        status = quire__fail(error, QUIRE_E_UNSUPPORTED,
                             "backend %s cannot use the caller's memory", pool->backend->name);
    return status;
}

static quire_status check_config(const struct quire_pool_config *config, struct quire_error *error)
{
    if (config->struct_size != sizeof *config || config->backend == NULL)
        return quire__fail(error, QUIRE_E_INVAL,
                           "config needs quire_pool_config_init and a backend");
    quire_status status = quire__check_backend(config->backend, error);
    if (status != QUIRE_OK)
        return status;
    if (config->layout > QUIRE_LAYOUT_PAGED)
        return quire__fail(error, QUIRE_E_INVAL, "layout %u is unknown", config->layout);
    if (config->max_seqs == 0 || config->max_step_tokens == 0 || config->max_open_steps == 0)
        return quire__fail(error, QUIRE_E_INVAL,
                           "max_seqs, max_step_tokens and max_open_steps must not be 0");
    if (config->max_seqs > QUIRE_MAX_SEQS || config->max_open_steps > QUIRE_MAX_SEQS ||
        config->max_step_tokens > QUIRE_MAX_SEQ_LEN)
        return quire__fail(error, QUIRE_E_LIMIT,
                           "at most %u sequences and open steps, %u tokens in a step",
                           QUIRE_MAX_SEQS, QUIRE_MAX_SEQ_LEN);
    if (config->eviction > QUIRE_EVICT_COST || config->merge_equal > 1)
        return quire__fail(error, QUIRE_E_INVAL, "eviction %u, merge_equal %u: each must be 0 or 1",
                           config->eviction, config->merge_equal);
    if (config->max_pins > QUIRE_MAX_SEQS || config->event_capacity > QUIRE_MAX_SEQ_LEN ||
        config->recent_lookups > QUIRE_MAX_SEQ_LEN)
        return quire__fail(error, QUIRE_E_LIMIT, "at most %u pins, %u events and %u recent lookups",
                           QUIRE_MAX_SEQS, QUIRE_MAX_SEQ_LEN, QUIRE_MAX_SEQ_LEN);
    if (config->memory != NULL && (uintptr_t)config->memory % ARENA_ALIGN != 0)
        return quire__fail(error, QUIRE_E_INVAL, "memory is not aligned to %u bytes", ARENA_ALIGN);
    return QUIRE_OK;
}

/* How many blocks the budget gives, and how many pages the arena has. */
static quire_status size_pool(const struct quire_pool *pool, const struct quire_pool_config *config,
                              uint32_t *num_blocks, uint32_t *num_pages, struct quire_error *error)
{
    const struct quire__layout *layout = &pool->layout;
    uint64_t blocks = config->num_blocks;
    if (blocks == 0)
        blocks = config->memory_bytes / layout->block_bytes;
    if (blocks >= QUIRE_BLOCK_NONE)
        blocks = QUIRE_BLOCK_NONE - 1;
    if (config->num_blocks != 0 && blocks < layout->num_tables)
        return quire__fail(error, QUIRE_E_NOSPACE, "%u blocks; at least one a group is needed, %u",
                           config->num_blocks, layout->num_tables);
    if (blocks < layout->num_tables)
        return quire__fail(error, QUIRE_E_NOSPACE,
                           "%llu bytes of K/V memory hold no block; at least %llu are needed",
                           (unsigned long long)config->memory_bytes,
                           (unsigned long long)layout->block_bytes * layout->num_tables);
    *num_blocks = (uint32_t)blocks;
    *num_pages = layout->contiguous ? pool->max_seqs : (uint32_t)blocks;
    uint64_t arena_bytes = 0;
    if (!quire__mul_u64(*num_pages, layout->page_bytes, &arena_bytes))
        return quire__fail(error, QUIRE_E_LIMIT, "the arena is larger than the address space");
    if (config->memory != NULL && arena_bytes > config->memory_bytes)
        return quire__fail(error, QUIRE_E_NOSPACE, "memory has %llu bytes; %llu are needed",
                           (unsigned long long)config->memory_bytes,
                           (unsigned long long)arena_bytes);
    return QUIRE_OK;
}

/* ---- memory ---- */

static uint64_t table_slots(const struct quire_pool *pool)
{
    return (uint64_t)pool->layout.num_tables * pool->max_seqs * pool->layout.max_blocks;
}

static uint64_t tail_slots(const struct quire_pool *pool)
{
    return (uint64_t)pool->max_seqs * pool->tail_stride;
}

static uint32_t recent_capacity(const struct quire_pool_config *config)
{
    return config->recent_lookups != 0 ? config->recent_lookups : 1;
}

/* A node has a block of a group without a window, or stands for one that a twin's sequence holds.
 * Where every group has a window, nodes outlive their blocks: what a sequence has computed, and no
 * window needs any more, is known by its tokens only. */
static uint64_t num_nodes(const struct quire_pool *pool, uint32_t num_blocks)
{
    bool all_windowed = true;
    for (uint32_t t = 0; t < pool->layout.num_tables; t++)
        all_windowed = all_windowed && pool->layout.tables[t].window != 0;
    uint64_t slots = (uint64_t)pool->max_seqs * pool->layout.max_blocks;
    uint64_t nodes = num_blocks + (all_windowed ? slots : 0);
    return nodes < UINT32_MAX / 2 ? nodes : UINT32_MAX / 2;
}

/* What finds and evicts: of the paged layout only. */
static quire_status take_index(struct quire_pool *pool, const struct quire_pool_config *config,
                               uint32_t num_blocks)
{
    if (pool->layout.contiguous)
        return QUIRE_OK;
    /* Every sequence, pin and block may have a root of its own. */
    uint64_t roots = (uint64_t)pool->max_seqs + pool->max_pins + num_blocks + 1u;
    uint64_t nodes = num_nodes(pool, num_blocks);
    if (roots + nodes >= UINT32_MAX)
        return QUIRE_E_NOMEM;
    quire_status status = quire__index_init(&pool->index, (uint32_t)nodes, (uint32_t)roots,
                                            pool->layout.block_size, pool->layout.num_tables);
    if (status == QUIRE_OK)
        status = quire__evictor_init(&pool->evictor, config->eviction, num_blocks);
    return status;
}

static void start_slots(struct quire_pool *pool)
{
    for (uint32_t i = 0; i < pool->max_seqs; i++)
        pool->seqs[i] = (struct quire__seq){.generation = 1,
                                            .step = QUIRE__NO_STEP,
                                            .cursor = QUIRE__NODE_NONE,
                                            .twins_from = QUIRE__NO_TWIN,
                                            .dirty_from = QUIRE__CLEAN,
                                            .next_free = i + 1};
    for (uint32_t i = 0; i < pool->max_pins; i++)
        pool->pins[i] = (struct quire__pin){.generation = 1, .next_free = i + 1};
    for (uint32_t i = 0; i < pool->max_open_steps; i++)
        pool->steps[i].generation = 1;
}

/* metadata_bytes and block_meta_bytes. */
static void count_metadata(struct quire_pool *pool, uint32_t num_blocks, uint64_t slot_bytes)
{
    uint64_t node_bytes = 0, tokens = 0;
    if (!pool->layout.contiguous) {
        node_bytes =
            quire__index_node_bytes(pool->layout.num_tables) + sizeof(struct quire__candidate);
        tokens = (uint64_t)pool->index.num_nodes * pool->layout.block_size * sizeof(uint32_t);
    }
    pool->block_meta_bytes = sizeof(struct quire__block) + node_bytes;
    pool->metadata_bytes = num_blocks * sizeof(struct quire__block) +
                           pool->index.num_nodes * node_bytes + tokens + slot_bytes +
                           tail_slots(pool) * sizeof *pool->tails;
}

static quire_status take_host_memory(struct quire_pool *pool,
                                     const struct quire_pool_config *config, uint32_t num_blocks)
{
    const struct quire__layout *layout = &pool->layout;
    uint64_t slots = 0, slot_bytes = 0;
    if (!quire__mul_u64((uint64_t)layout->num_tables * pool->max_seqs, layout->max_blocks,
                        &slots) ||
        !quire__mul_u64(slots, sizeof(uint32_t), &slot_bytes))
        return QUIRE_E_NOMEM;
    uint64_t uploads = (uint64_t)pool->max_items * (layout->num_tables + 1u);
    uint64_t ranges = (uint64_t)QUIRE__HEAD_RANGES * layout->max_plane_heads;
    uploads = uploads > ranges ? uploads : ranges;
    pool->tail_stride = layout->contiguous ? layout->max_seq_len : layout->block_size;
    pool->recent.capacity = recent_capacity(config);
    pool->seqs = quire__calloc(pool->max_seqs, sizeof *pool->seqs);
    pool->first = quire__calloc((uint64_t)pool->max_seqs * layout->num_tables, sizeof *pool->first);
    pool->regions = quire__calloc(pool->max_seqs, sizeof *pool->regions);
    pool->pins = quire__calloc((uint64_t)pool->max_pins + 1, sizeof *pool->pins);
    pool->path = quire__reserve((uint64_t)layout->max_blocks * sizeof *pool->path);
    pool->recent.ring = quire__reserve(pool->recent.capacity * sizeof *pool->recent.ring);
    pool->steps = quire__calloc(pool->max_open_steps, sizeof *pool->steps);
    pool->lens = quire__calloc(pool->max_seqs, sizeof *pool->lens);
    pool->uploads = quire__calloc(uploads, sizeof *pool->uploads);
    pool->ranges = quire__calloc(ranges, sizeof *pool->ranges);
    pool->bounce = quire__calloc((uint64_t)layout->max_plane_heads * QUIRE__BOUNCE_ROWS,
                                 layout->max_row_bytes);
    pool->table_indices = quire__reserve(slot_bytes);
    pool->tails = quire__reserve(tail_slots(pool) * sizeof *pool->tails);
    if (quire__blocks_init(&pool->blocks, num_blocks) != QUIRE_OK ||
        take_index(pool, config, num_blocks) != QUIRE_OK ||
        quire__events_init(&pool->events, config->event_capacity) != QUIRE_OK ||
        pool->seqs == NULL || pool->first == NULL || pool->regions == NULL || pool->pins == NULL ||
        pool->path == NULL || pool->recent.ring == NULL || pool->steps == NULL ||
        pool->lens == NULL || pool->uploads == NULL || pool->ranges == NULL ||
        pool->bounce == NULL || pool->table_indices == NULL || pool->tails == NULL)
        return QUIRE_E_NOMEM;
    start_slots(pool);
    count_metadata(pool, num_blocks, slot_bytes);
    return QUIRE_OK;
}

static uint64_t device_table_bytes(const struct quire_pool *pool)
{
    uint64_t row = pool->layout.contiguous ? 1 : pool->layout.max_blocks;
    return pool->layout.num_groups * row * pool->max_seqs * sizeof(uint32_t);
}

quire_status quire__pool_fill_tables(struct quire_pool *pool)
{
    const struct quire_memory_ops *memory = pool->backend->memory;
    if (!pool->layout.contiguous)
        return memory->fill(pool->backend, pool->tables, 0, device_table_bytes(pool), 0xff);
    quire_status status = QUIRE_OK;
    for (uint32_t g = 0; g < pool->layout.num_groups && status == QUIRE_OK; g++) {
        for (uint32_t slot = 0; slot < pool->max_seqs && status == QUIRE_OK; slot++) {
            uint64_t index = (uint64_t)g * pool->max_seqs + slot;
            struct quire_upload upload = {index * sizeof slot, sizeof slot, &slot};
            status = memory->upload(pool->backend, pool->tables, &upload, 1);
        }
    }
    return status;
}

static quire_status take_device_memory(struct quire_pool *pool,
                                       const struct quire_pool_config *config, uint32_t num_pages)
{
    if (!pool->has_kv)
        return QUIRE_OK;
    const struct quire_memory_ops *memory = pool->backend->memory;
    uint64_t arena_bytes = num_pages * pool->layout.page_bytes;
    pool->commits = pool->layout.contiguous && config->memory == NULL &&
                    (pool->backend->caps.flags & QUIRE_CAP_RESERVE) != 0;
    uint32_t flags = pool->commits ? QUIRE_BUFFER_RESERVED : 0;
    quire_status status =
        config->memory != NULL
            ? memory->buffer_wrap(pool->backend, config->memory, arena_bytes, &pool->arena)
            : memory->buffer_create(pool->backend, arena_bytes, flags, &pool->arena);
    pool->lens_offset = device_table_bytes(pool);
    uint64_t table_bytes = pool->lens_offset + pool->max_seqs * sizeof(uint32_t);
    if (status == QUIRE_OK)
        status = memory->buffer_create(pool->backend, table_bytes, 0, &pool->tables);
    return status == QUIRE_OK ? quire__pool_fill_tables(pool) : status;
}

static quire_status make_plans(struct quire_pool *pool, uint32_t num_pages)
{
    struct quire_kv_spec spec = {
        .num_layers = pool->layout.num_layers,
        .layers = pool->layout.layers,
        .num_groups = pool->layout.num_groups,
        .positions_per_page = pool->layout.page_positions,
        .page_bytes = pool->layout.page_bytes,
        .num_pages = num_pages,
        .max_seqs = pool->max_seqs,
        .max_blocks = pool->layout.contiguous ? 1 : pool->layout.max_blocks,
        .max_step_tokens = pool->max_step_tokens,
        .arena = pool->arena,
        .tables = pool->tables,
        .lens_offset = pool->lens_offset,
    };
    for (uint32_t i = 0; i < pool->max_open_steps; i++) {
        quire_status status = quire__step_init(pool, &pool->steps[i]);
        if (status == QUIRE_OK && pool->has_kv)
            status = pool->backend->kv->plan_create(pool->backend, &spec, &pool->steps[i].plan);
        if (status != QUIRE_OK)
            return status;
    }
    return QUIRE_OK;
}

static quire_status build(struct quire_pool *pool, const struct quire_pool_config *config,
                          struct quire_error *error)
{
    uint32_t layout = choose_layout(config);
    quire_status status = check_layout(config->backend, layout, error);
    if (status == QUIRE_OK)
        status = quire__layout_init(&pool->layout, config, layout, error);
    if (status == QUIRE_OK)
        status = check_support(pool, config, error);
    uint32_t num_blocks = 0, num_pages = 0;
    if (status == QUIRE_OK)
        status = size_pool(pool, config, &num_blocks, &num_pages, error);
    if (status != QUIRE_OK)
        return status;
    status = take_host_memory(pool, config, num_blocks);
    pool->max_pinned_blocks =
        config->max_pinned_blocks != 0 ? config->max_pinned_blocks : num_blocks / 2;
    if (status == QUIRE_OK)
        status = take_device_memory(pool, config, num_pages);
    if (status == QUIRE_OK)
        status = make_plans(pool, num_pages);
    if (status == QUIRE_OK)
        return QUIRE_OK;
    return quire__fail(error, status, "cannot make a pool of %u blocks of %llu bytes: %s",
                       num_blocks, (unsigned long long)pool->layout.block_bytes,
                       quire_status_text(status));
}

quire_status quire_pool_create(const struct quire_pool_config *config, struct quire_pool **out,
                               struct quire_error *error)
{
    if (config == NULL || out == NULL)
        return quire__fail(error, QUIRE_E_INVAL, "config and out must not be NULL");
    quire_status status = check_config(config, error);
    if (status != QUIRE_OK)
        return status;
    struct quire_pool *pool = quire__calloc(1, sizeof *pool);
    if (pool == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "no memory for a pool");
    (void)pthread_mutex_init(&pool->mutex, NULL);
    pool->backend = config->backend;
    pool->has_kv = (config->backend->caps.flags & QUIRE_CAP_KV) != 0;
    pool->max_seqs = config->max_seqs;
    pool->max_step_tokens = config->max_step_tokens;
    pool->max_items =
        config->max_seqs < config->max_step_tokens ? config->max_seqs : config->max_step_tokens;
    pool->max_open_steps = config->max_open_steps;
    pool->max_pins = config->max_pins;
    pool->vocab_size = config->vocab_size;
    pool->rollback_max = config->rollback_max;
    pool->merges = config->merge_equal != 0;
    status = build(pool, config, error);
    if (status != QUIRE_OK) {
        quire_pool_destroy(pool);
        return status;
    }
    *out = pool;
    return QUIRE_OK;
}

static void wait_for_device(struct quire_pool *pool)
{
    quire_fence fence = 0;
    const struct quire_memory_ops *memory = pool->backend->memory;
    if (memory->fence_record(pool->backend, &fence) == QUIRE_OK)
        (void)memory->fence_wait(pool->backend, fence);
}

void quire_pool_destroy(struct quire_pool *pool)
{
    if (pool == NULL)
        return;
    if (pool->has_kv && pool->arena != NULL)
        wait_for_device(pool);
    for (uint32_t i = 0; pool->steps != NULL && i < pool->max_open_steps; i++)
        quire__step_deinit(pool, &pool->steps[i]);
    if (pool->has_kv) {
        const struct quire_memory_ops *memory = pool->backend->memory;
        memory->buffer_destroy(pool->backend, pool->tables);
        memory->buffer_destroy(pool->backend, pool->arena);
    }
    quire__unreserve(pool->tails, tail_slots(pool) * sizeof *pool->tails);
    quire__unreserve(pool->table_indices, table_slots(pool) * sizeof(uint32_t));
    quire__free(pool->bounce);
    quire__free(pool->ranges);
    quire__free(pool->uploads);
    quire__free(pool->lens);
    quire__free(pool->steps);
    quire__unreserve(pool->recent.ring, pool->recent.capacity * sizeof *pool->recent.ring);
    quire__unreserve(pool->path, pool->layout.max_blocks * sizeof *pool->path);
    quire__free(pool->pins);
    quire__free(pool->regions);
    quire__free(pool->first);
    quire__free(pool->seqs);
    quire__events_deinit(&pool->events);
    quire__evictor_deinit(&pool->evictor);
    quire__index_deinit(&pool->index);
    quire__blocks_deinit(&pool->blocks);
    quire__layout_deinit(&pool->layout);
    (void)pthread_mutex_destroy(&pool->mutex);
    quire__free(pool);
}
