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

/* What item i copies from in a table; QUIRE_BLOCK_NONE where it writes in place. */
static uint32_t *original(const struct quire_pool *pool, const struct quire__step *step, uint32_t i,
                          uint32_t table)
{
    return &step->originals[(uint64_t)i * pool->layout.num_tables + table];
}

/* The block of a table that an item begins to write into; NONE when it is a new one. */
static uint32_t *written(const struct quire_pool *pool, const struct quire_step_part *part,
                         uint32_t table)
{
    const struct quire__seq *seq = &pool->seqs[part->slot];
    bool inside = !pool->layout.contiguous && part->len % pool->layout.block_size != 0;
    return inside ? &quire__seq_entries(pool, seq, table)[part->len / pool->layout.block_size]
                  : NULL;
}

static uint32_t first_row(const struct quire_pool *pool, const struct quire_step_part *part)
{
    return part->len % pool->layout.block_size;
}

/* Whether item i is the last holder of a block that earlier items of the step copy, and writes
 * behind all rows that they see: it may stay, also if they come back by an abort. */
static bool is_last_holder(const struct quire_pool *pool, const struct quire__step *step,
                           uint32_t i, uint32_t table, uint32_t block)
{
    uint32_t others = 0, row = first_row(pool, &step->parts[i]);
    for (uint32_t j = 0; j < i; j++) {
        if (*original(pool, step, j, table) != block)
            continue;
        if (first_row(pool, &step->parts[j]) > row)
            return false;
        others++;
    }
    return pool->blocks.records[block].refs == others + 1;
}

static bool must_copy(const struct quire_pool *pool, const struct quire__step *step, uint32_t i,
                      uint32_t table, uint32_t block)
{
    const struct quire__block *record = &pool->blocks.records[block];
    if (!quire__copy_is_due(pool, block, first_row(pool, &step->parts[i])))
        return false;
    bool published = record->node != QUIRE__NODE_NONE &&
                     pool->index.nodes[record->node].num_tokens > first_row(pool, &step->parts[i]);
    return published || !is_last_holder(pool, step, i, table, block);
}

uint64_t quire__copies_plan(const struct quire_pool *pool, const struct quire__step *step)
{
    uint64_t needed = 0;
    for (uint32_t i = 0; i < step->num_items; i++) {
        for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
            const uint32_t *block = written(pool, &step->parts[i], t);
            bool copies = block != NULL && must_copy(pool, step, i, t, *block);
            *original(pool, step, i, t) = copies ? *block : QUIRE_BLOCK_NONE;
            needed += copies;
        }
    }
    return needed;
}

/* A copy that the index alone asks for. */
static bool is_avoidable(const struct quire_pool *pool, uint32_t block)
{
    return block != QUIRE_BLOCK_NONE && pool->blocks.records[block].refs == 1;
}

uint64_t quire__copies_avoidable(const struct quire_pool *pool, const struct quire__step *step)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < step->num_items; i++) {
        for (uint32_t t = 0; t < pool->layout.num_tables; t++)
            count += is_avoidable(pool, *original(pool, step, i, t));
    }
    return count;
}

void quire__copies_avoid(struct quire_pool *pool, const struct quire__step *step, uint64_t count)
{
    for (uint32_t i = 0; i < step->num_items; i++) {
        for (uint32_t t = 0; t < pool->layout.num_tables && count > 0; t++) {
            uint32_t *from = original(pool, step, i, t), block = *from;
            if (!is_avoidable(pool, block))
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
            *from = QUIRE_BLOCK_NONE;
            count--;
        }
    }
}

static void copy_one(struct quire_pool *pool, struct quire__step *step, uint32_t i, uint32_t table)
{
    const struct quire_step_part *part = &step->parts[i];
    uint32_t from = *original(pool, step, i, table);
    if (from == QUIRE_BLOCK_NONE)
        return;
    struct quire__seq *seq = &pool->seqs[part->slot];
    uint32_t to = quire__block_take(pool, table, seq->tenant);
    *written(pool, part, table) = to;
    quire__seq_mark_dirty(seq, part->len / pool->layout.block_size);
    step->copies[step->num_copies++] = (struct quire_block_copy){
        .group = table, .from = from, .to = to, .rows = first_row(pool, part)};
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
        const struct quire_step_part *part = &step->parts[i];
        struct quire__seq *seq = &pool->seqs[part->slot];
        for (uint32_t t = 0; t < pool->layout.num_tables; t++) {
            uint32_t from = *original(pool, step, i, t);
            if (from == QUIRE_BLOCK_NONE)
                continue;
            uint32_t *entry = written(pool, part, t), to = *entry;
            if (!keep) {
                *entry = from;
                quire__seq_mark_dirty(seq, part->len / pool->layout.block_size);
            }
            QUIRE_CHECK(quire__block_release(pool, keep ? from : to, seq->wipe) == QUIRE_OK);
            if (keep)
                note_copied(pool, t, from, to, first_row(pool, part));
        }
    }
    step->num_copies = 0;
}
