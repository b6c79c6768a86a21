/* cache_work.c - the pieces of work that quire bench cache measures.
 * SPDX-License-Identifier: Apache-2.0
 *
 * No K or V is written: the steps say, as an engine with its own kernels does, that it takes care
 * of the rows itself (quire_step_view), and that call is not timed. */
#include "quire/cache_work.h"

#include <string.h>

#include "base/base.h"

enum { DEEP_LAYERS = 32, COLD_BYTES = 256 << 20 };

quire_status cache_work_open(struct cache_work *work, const struct cache_work_config *config,
                             struct quire_error *error)
{
    uint32_t layers[DEEP_LAYERS];
    for (uint32_t i = 0; i < DEEP_LAYERS; i++)
        layers[i] = i;
    const struct quire_group_config deep = {layers, DEEP_LAYERS, 32, 8, 128, 128, 0, 0};
    const struct quire_group_config small = {layers, 1, 1, 1, 8, 8, 0, 0};
    struct quire_pool_config pool;
    quire_pool_config_init(&pool);
    *work =
        (struct cache_work){.max_seq_len = config->max_seq_len, .step_tokens = config->step_tokens};
    quire_status status = quire_backend_create(config->backend, NULL, &work->backend, error);
    if (status != QUIRE_OK)
        return status;
    pool.backend = work->backend;
    pool.groups = config->deep ? &deep : &small;
    pool.num_groups = 1;
    pool.layout = QUIRE_LAYOUT_PAGED;
    pool.block_size = CACHE_WORK_P;
    pool.num_blocks = config->num_blocks;
    pool.max_seqs = config->max_seqs;
    pool.max_seq_len = config->max_seq_len;
    pool.max_step_tokens = config->step_tokens;
    pool.max_open_steps = 1;
    pool.merge_equal = 1;
    work->tokens = quire__calloc(config->max_seq_len, sizeof *work->tokens);
    if (work->tokens == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "no memory for tokens");
    return quire_pool_create(&pool, &work->pool, error);
}

void cache_work_close(struct cache_work *work)
{
    quire_pool_destroy(work->pool);
    quire_backend_destroy(work->backend);
    quire__free(work->tokens);
    *work = (struct cache_work){0};
}

void cache_work_tokens(uint32_t *tokens, uint32_t count, uint32_t key)
{
    uint32_t state = key * 2654435761u + 1;
    for (uint32_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        tokens[i] = state >> 8;
    }
    if (count > 0)
        tokens[0] = key; /* no two keys begin alike */
}

/* One step of one sequence. */
static quire_status step_once(struct cache_work *work, const struct quire_step_item *items,
                              uint32_t num_items, uint64_t *ns)
{
    quire_step step;
    struct quire_step_view view = {.struct_size = sizeof view};
    uint64_t started = quire__now_ns();
    quire_status status = quire_step_begin(work->pool, items, num_items, &step, NULL);
    uint64_t begun = quire__now_ns();
    if (status == QUIRE_OK)
        status = quire_step_view(work->pool, step, 0, &view);
    uint64_t viewed = quire__now_ns();
    if (status == QUIRE_OK)
        status = quire_step_commit(work->pool, step, NULL);
    *ns += (begun - started) + (quire__now_ns() - viewed);
    return status;
}

quire_status cache_work_append(struct cache_work *work, quire_seq seq, const uint32_t *tokens,
                               uint32_t count)
{
    quire_status status = QUIRE_OK;
    uint64_t ns = 0;
    for (uint32_t done = 0; done < count && status == QUIRE_OK;) {
        uint32_t left = count - done;
        struct quire_step_item item = {.seq = seq, .tokens = tokens + done};
        item.n_new = left < work->step_tokens ? left : work->step_tokens;
        status = step_once(work, &item, 1, &ns);
        done += item.n_new;
    }
    return status;
}

quire_status cache_work_fill(struct cache_work *work, uint32_t chains, uint32_t blocks,
                             uint32_t key)
{
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < chains && status == QUIRE_OK; i++) {
        quire_seq seq = {0};
        cache_work_tokens(work->tokens, blocks * CACHE_WORK_P, key + i);
        status = quire_seq_create(work->pool, NULL, &seq);
        if (status == QUIRE_OK)
            status = cache_work_append(work, seq, work->tokens, blocks * CACHE_WORK_P);
        if (status == QUIRE_OK)
            status = quire_seq_destroy(work->pool, seq);
    }
    return status;
}

/* Nanoseconds of a begin + abort that takes `blocks` blocks, mean of `times`. */
static quire_status time_abort(struct cache_work *work, quire_seq seq, uint32_t blocks,
                               uint32_t times, double *ns)
{
    const struct quire_step_item item = {.seq = seq, .n_new = blocks * CACHE_WORK_P};
    quire_status status = QUIRE_OK;
    uint64_t started = quire__now_ns();
    for (uint32_t i = 0; i < times && status == QUIRE_OK; i++) {
        quire_step step;
        status = quire_step_begin(work->pool, &item, 1, &step, NULL);
        if (status == QUIRE_OK)
            status = quire_step_abort(work->pool, step);
    }
    *ns = (double)(quire__now_ns() - started) / times;
    return status;
}

quire_status cache_work_blocks(struct cache_work *work, double *ns)
{
    const uint32_t many = work->step_tokens / CACHE_WORK_P;
    double one_ns = 0, many_ns = 0;
    quire_seq seq = {0};
    quire_status status = quire_seq_create(work->pool, NULL, &seq);
    if (status == QUIRE_OK)
        status = time_abort(work, seq, 1, 1000, &one_ns);
    if (status == QUIRE_OK)
        status = time_abort(work, seq, many, 100, &many_ns);
    if (status == QUIRE_OK)
        status = quire_seq_destroy(work->pool, seq);
    *ns = (many_ns - one_ns) / (many - 1);
    return status;
}

/* Sequences of 2,048, 2,049, ... positions grow by 48 tokens each, one a step: of 64 of them, four
 * fill a block at every step. Mean of the steps. */
quire_status cache_work_step(struct cache_work *work, uint32_t seqs, double *ns)
{
    enum { SEQS_MAX = 64, START = 2048, STEPS = 48 };
    quire_seq handles[SEQS_MAX];
    struct quire_step_item items[SEQS_MAX];
    uint32_t tokens[SEQS_MAX];
    quire_status status = QUIRE_OK;
    uint64_t total = 0;
    for (uint32_t i = 0; i < seqs && status == QUIRE_OK; i++) {
        cache_work_tokens(work->tokens, START + i, i + 1);
        status = quire_seq_create(work->pool, NULL, &handles[i]);
        if (status == QUIRE_OK)
            status = cache_work_append(work, handles[i], work->tokens, START + i);
    }
    for (uint32_t s = 0; s < STEPS && status == QUIRE_OK; s++) {
        for (uint32_t i = 0; i < seqs; i++) {
            tokens[i] = s;
            items[i] = (struct quire_step_item){handles[i], 1, &tokens[i]};
        }
        status = step_once(work, items, seqs, &total);
    }
    for (uint32_t i = 0; i < seqs && status == QUIRE_OK; i++)
        status = quire_seq_destroy(work->pool, handles[i]);
    if (status == QUIRE_OK)
        status = quire_pool_reset(work->pool);
    *ns = (double)total / STEPS;
    return status;
}

quire_status cache_work_fork(struct cache_work *work, double *ns)
{
    enum { TIMES = 20 };
    quire_seq seq = {0}, fork = {0};
    uint64_t total = 0;
    cache_work_tokens(work->tokens, CACHE_WORK_LONG, 1);
    quire_status status = quire_seq_create(work->pool, NULL, &seq);
    if (status == QUIRE_OK)
        status = cache_work_append(work, seq, work->tokens, CACHE_WORK_LONG);
    for (uint32_t i = 0; i < TIMES && status == QUIRE_OK; i++) {
        uint64_t started = quire__now_ns();
        status = quire_seq_fork(work->pool, seq, CACHE_WORK_LONG, &fork, NULL);
        total += quire__now_ns() - started;
        if (status == QUIRE_OK)
            status = quire_seq_destroy(work->pool, fork);
    }
    if (status == QUIRE_OK)
        status = quire_pool_reset(work->pool);
    *ns = (double)total / TIMES;
    return status;
}

/* Leaves nothing of the index in the processor's caches. */
static void chill(void)
{
    volatile uint8_t *memory = quire__alloc(COLD_BYTES);
    for (uint64_t i = 0; memory != NULL && i < COLD_BYTES; i += 64)
        memory[i] = (uint8_t)i;
    quire__free((void *)(uintptr_t)memory);
}

/* Looks the chain of key 1 up, which cache_work_fill left. */
quire_status cache_work_match(struct cache_work *work, bool cold, double *ns)
{
    struct quire_seq_config config;
    uint32_t len = 0;
    quire_seq_config_init(&config);
    config.tokens = work->tokens;
    config.num_tokens = CACHE_WORK_LONG + 1;
    cache_work_tokens(work->tokens, CACHE_WORK_LONG, 1);
    work->tokens[CACHE_WORK_LONG] = 0;
    if (cold)
        chill();
    uint64_t started = quire__now_ns();
    quire_status status = quire_pool_lookup(work->pool, &config, &len);
    *ns = (double)(quire__now_ns() - started);
    return status == QUIRE_OK && len != CACHE_WORK_LONG ? QUIRE_E_MISMATCH : status;
}

/* A block of one prefix, behind it one of `children` blocks that differ somewhere in their second
 * half: mean of lookups that end inside and at the end of such a block. */
quire_status cache_work_fanout(struct cache_work *work, uint32_t children, double *ns)
{
    enum { TIMES = 1000, PROMPT = 2 * CACHE_WORK_P + 1 };
    uint32_t tokens[PROMPT] = {0}, found = 0;
    struct quire_seq_config config;
    quire_seq_config_init(&config);
    config.tokens = tokens;
    config.num_tokens = PROMPT;
    quire_status status = children > 0 ? QUIRE_OK : QUIRE_E_INVAL;
    for (uint32_t i = 0; i < children && status == QUIRE_OK; i++) {
        quire_seq seq = {0};
        tokens[24] = i * 2654435761u;
        tokens[30] = i;
        status = quire_seq_create(work->pool, NULL, &seq);
        if (status == QUIRE_OK)
            status = cache_work_append(work, seq, tokens, 2 * CACHE_WORK_P);
        if (status == QUIRE_OK)
            status = quire_seq_destroy(work->pool, seq);
    }
    uint64_t started = quire__now_ns();
    for (uint32_t t = 0; t < TIMES && status == QUIRE_OK; t++) {
        uint32_t i = t * 7919u % children;
        tokens[24] = i * 2654435761u;
        tokens[30] = i + (t & 1); /* every other one ends inside the block */
        status = quire_pool_lookup(work->pool, &config, &found);
        if (status == QUIRE_OK && found < CACHE_WORK_P + 8)
            status = QUIRE_E_MISMATCH;
    }
    *ns = (double)(quire__now_ns() - started) / TIMES;
    return status == QUIRE_OK ? quire_pool_reset(work->pool) : status;
}

/* The pool is full of cached blocks: steps that take `blocks` of them, per block. */
quire_status cache_work_evict(struct cache_work *work, uint32_t blocks, double *ns)
{
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    uint32_t per_step = work->step_tokens / CACHE_WORK_P;
    quire_status status = quire_pool_stats(work->pool, &stats);
    uint64_t total = 0, before = stats.blocks_evicted;
    for (uint32_t done = 0; done < blocks && status == QUIRE_OK; done += per_step) {
        quire_seq seq = {0};
        quire_step step;
        uint32_t take = blocks - done < per_step ? blocks - done : per_step;
        status = quire_seq_create(work->pool, NULL, &seq);
        struct quire_step_item item = {seq, take * CACHE_WORK_P, NULL};
        uint64_t started = quire__now_ns();
        if (status == QUIRE_OK)
            status = quire_step_begin(work->pool, &item, 1, &step, NULL);
        total += quire__now_ns() - started;
        if (status == QUIRE_OK)
            status = quire_step_commit(work->pool, step, NULL);
    }
    if (status == QUIRE_OK)
        status = quire_pool_stats(work->pool, &stats);
    uint64_t evicted = stats.blocks_evicted - before;
    *ns = evicted != 0 ? (double)total / (double)evicted : 0.0;
    return status == QUIRE_OK && evicted < blocks ? QUIRE_E_MISMATCH : status;
}
