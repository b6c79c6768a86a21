/* pool.c - what concerns a pool as a whole: reset, time, and the vocabulary.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by: pool->mutex. */
#include "cache/prefix.h"

bool quire__pool_has_tokens(const struct quire_pool *pool, const uint32_t *tokens, uint32_t count)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; tokens != NULL && pool->vocab_size != 0 && i < count; i++)
        largest = tokens[i] > largest ? tokens[i] : largest;
    return pool->vocab_size == 0 || largest < pool->vocab_size;
}

void quire__pool_keep_young(struct quire_pool *pool)
{
    if (!quire__evictor_is_old(&pool->evictor))
        return;
    for (uint32_t i = 0; i < pool->index.fresh_node; i++)
        pool->index.nodes[i].stamp /= 2;
    quire__evictor_halve(&pool->evictor);
}

/* T2 after an error: a fill that was to zero a tenant's bytes may be among what was lost. */
static void distrust(struct quire_pool *pool)
{
    for (uint32_t i = 0; i < pool->blocks.total; i++)
        quire__tenant_set(&pool->tenants, &pool->blocks.records[i].tenant, QUIRE__TENANT_OTHERS);
    for (uint32_t i = 0; i < pool->max_seqs && pool->layout.contiguous && !pool->commits; i++) {
        quire__tenant_set(&pool->tenants, &pool->regions[i].tenant, QUIRE__TENANT_OTHERS);
        pool->regions[i].high = pool->layout.max_seq_len;
    }
}

/* Gets the device going again; what its buffers held is lost. */
static quire_status recover(struct quire_pool *pool)
{
    const struct quire_memory_ops *memory = pool->backend->memory;
    quire_status status = memory->recover != NULL ? memory->recover(pool->backend) : QUIRE_OK;
    distrust(pool);
    return status == QUIRE_OK && pool->has_kv ? quire__pool_fill_tables(pool) : status;
}

quire_status quire_pool_reset(struct quire_pool *pool)
{
    if (pool == NULL)
        return QUIRE_E_INVAL;
    quire__pool_lock(pool);
    quire_status status = pool->num_open > 0 ? QUIRE_E_BUSY : QUIRE_OK;
    if (status == QUIRE_OK && pool->failed)
        status = recover(pool);
    if (status == QUIRE_OK) {
        pool->failed = false;
        for (uint32_t i = 0; i < pool->max_pins; i++) {
            if (pool->pins[i].live)
                quire__pin_end(pool, &pool->pins[i]);
        }
        for (uint32_t i = 0; i < pool->max_seqs; i++) {
            if (pool->seqs[i].live)
                quire__seq_end(pool, &pool->seqs[i]);
        }
        quire__block_forget_all(pool);
        status = pool->failed ? QUIRE_E_DEVICE : QUIRE_OK;
    }
    quire__pool_unlock(pool);
    return status;
}
