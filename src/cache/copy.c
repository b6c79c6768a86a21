/* copy.c - copy-on-write: what a step must copy before it may write.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Guarded by: pool->mutex. Invariants: P2, P3 of DESIGN.md. */
#include "cache/copy.h"

#include "cache/prefix.h"

bool quire__copy_is_due(const struct quire_pool *pool, uint32_t block, uint32_t row)
{
    const struct quire__block *record = &pool->blocks.records[block];
    return record->refs > 1 ||
           (record->node != QUIRE__NODE_NONE && pool->index.nodes[record->node].num_tokens > row);
}

/* The block of a table that an item writes into and that must be copied; NONE when it need not. */
static uint32_t original(const struct quire_pool *pool, const struct quire_step_part *part,
                         uint32_t table)
{
    uint32_t row = part->len % pool->layout.block_size;
    if (pool->layout.contiguous || row == 0)
        return QUIRE_BLOCK_NONE;
    const struct quire__seq *seq = &pool->seqs[part->slot];
    uint32_t block = quire__seq_entries(pool, seq, table)[part->len / pool->layout.block_size];
    return quire__copy_is_due(pool, block, row) ? block : QUIRE_BLOCK_NONE;
}

uint64_t quire__copies_needed(const struct quire_pool *pool, const struct quire__step *step)
{
    uint64_t needed = 0;
    for (uint32_t i = 0; i < step->num_items; i++) {
        for (uint32_t t = 0; t < pool->layout.num_tables; t++)
            needed += original(pool, &step->parts[i], t) != QUIRE_BLOCK_NONE;
    }
    return needed;
}

uint64_t quire__copies_avoidable(const struct quire_pool *pool, const struct quire__step *step)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < step->num_items; i++) {
        for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
            uint32_t block = original(pool, &step->parts[i], t);
            count += block != QUIRE_BLOCK_NONE && pool->blocks.records[block].refs == 1;
        }
    }
    return count;
}

void quire__copies_avoid(struct quire_pool *pool, const struct quire__step *step, uint64_t count)
{
    for (uint32_t i = 0; i < step->num_items; i++) {
        for (uint32_t t = 0; t < pool->layout.num_tables && count > 0; t++) {
            uint32_t block = original(pool, &step->parts[i], t);
            if (block == QUIRE_BLOCK_NONE || pool->blocks.records[block].refs > 1)
                continue;
            uint32_t node = pool->blocks.records[block].node;
            if (pool->index.nodes[node].detached) {
                pool->seqs[step->parts[i].slot].wipe = true; /* as the drop has promised */
            } else {
                quire__events_block(pool, QUIRE_EVENT_EVICTED, block);
                pool->figures.evicted++;
            }
            quire__block_unname(pool, block);
            quire__node_prune(pool, node);
            count--;
        }
    }
}

static void copy_one(struct quire_pool *pool, struct quire__step *step, uint32_t i, uint32_t table)
{
    const struct quire_step_part *part = &step->parts[i];
    uint32_t from = original(pool, part, table), index = part->len / pool->layout.block_size;
    step->originals[(uint64_t)i * pool->layout.num_tables + table] = from;
    if (from == QUIRE_BLOCK_NONE)
        return;
    struct quire__seq *seq = &pool->seqs[part->slot];
    uint32_t to = quire__block_take(pool, table, seq->tenant);
    quire__seq_entries(pool, seq, table)[index] = to;
    quire__seq_mark_dirty(seq, index);
    step->copies[step->num_copies++] = (struct quire_block_copy){
        .group = table, .from = from, .to = to, .rows = part->len % pool->layout.block_size};
}

void quire__copies_begin(struct quire_pool *pool, struct quire__step *step)
{
    step->num_copies = 0;
    for (uint32_t i = 0; i < step->num_items; i++) {
        for (uint32_t t = 0; t < pool->layout.num_tables; t++)
            copy_one(pool, step, i, t);
    }
}

static void note_copied(struct quire_pool *pool, uint32_t table, uint32_t from, uint32_t to,
                        uint32_t rows)
{
    pool->figures.copied++;
    quire__events_put(pool, (struct quire_event){.kind = QUIRE_EVENT_COPIED,
                                                 .group = table,
                                                 .block = to,
                                                 .parent = from,
                                                 .num_tokens = rows});
}

void quire__copies_end(struct quire_pool *pool, struct quire__step *step, bool keep)
{
    for (uint32_t i = 0; step->num_copies > 0 && i < step->num_items; i++) {
        struct quire__seq *seq = &pool->seqs[step->parts[i].slot];
        uint32_t index = step->parts[i].len / pool->layout.block_size;
        for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
            uint32_t from = step->originals[(uint64_t)i * pool->layout.num_tables + t];
            if (from == QUIRE_BLOCK_NONE)
                continue;
            uint32_t *entry = &quire__seq_entries(pool, seq, t)[index], to = *entry;
            if (!keep) {
                *entry = from;
                quire__seq_mark_dirty(seq, index);
            }
            QUIRE_CHECK(quire__block_release(pool, keep ? from : to, seq->wipe) == QUIRE_OK);
            if (keep)
                note_copied(pool, t, from, to, step->parts[i].len % pool->layout.block_size);
        }
    }
    step->num_copies = 0;
}
