/* pool_model_check.c - what must hold after each operation, told from the model and from tables.
 * SPDX-License-Identifier: Apache-2.0 */
#include "pool_model.h"

#include <string.h>

/* ---- geometry ---- */

uint32_t pm_blocks(const struct pm_model *model, uint64_t len)
{
    return (uint32_t)((len + model->shape.block_size - 1) / model->shape.block_size);
}

uint32_t pm_window_start(const struct quire_group_config *group, uint32_t position)
{
    return group->window == 0 || position < group->window ? 0 : position + 1 - group->window;
}

bool pm_in_sinks(const struct pm_model *model, const struct quire_group_config *group,
                 uint32_t block)
{
    return (uint64_t)block * model->shape.block_size < group->sink_positions;
}

bool pm_windowed(const struct pm_model *model)
{
    for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
        if (model->geometry->groups[g].window != 0)
            return true;
    }
    return false;
}

static uint32_t num_tables(const struct pm_model *model)
{
    return model->shape.contiguous ? 1 : model->geometry->num_groups;
}

bool pm_holds(const struct pm_model *model, const struct pm_seq *seq, uint32_t len)
{
    for (uint32_t g = 0; g < model->geometry->num_groups && !model->shape.contiguous; g++) {
        const struct quire_group_config *group = &model->geometry->groups[g];
        uint32_t end = pm_blocks(model, len) < seq->low[g] ? pm_blocks(model, len) : seq->low[g];
        uint32_t first = pm_window_start(group, len) / model->shape.block_size;
        if (first < end && end > pm_blocks(model, group->sink_positions))
            return false;
    }
    return true;
}

void pm_need(const struct pm_model *model, struct pm_seq *seq, uint32_t len)
{
    for (uint32_t g = 0; g < model->geometry->num_groups; g++)
        seq->low[g] = pm_window_start(&model->geometry->groups[g], len) / model->shape.block_size;
}

/* ---- counts ---- */

void pm_read_stats(struct pm_model *model, struct quire_pool_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    stats->struct_size = sizeof *stats;
    PM_STATUS(model, quire_pool_stats(model->env.pool, stats), QUIRE_OK);
}

static uint32_t pins_live(const struct pm_model *model)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PM_PINS; i++)
        count += model->pins[i].live;
    return count;
}

static void compare_counts(struct pm_model *model, const struct quire_pool_stats *stats)
{
    uint32_t live = 0, open = 0;
    for (uint32_t i = 0; i < PM_SEQS; i++)
        live += model->seqs[i].live;
    for (uint32_t i = 0; i < PM_STEPS; i++)
        open += model->steps[i].open;
    PM_EXPECT(model, stats->blocks_total == model->shape.num_blocks, "P4: %llu blocks in all",
              (unsigned long long)stats->blocks_total);
    PM_EXPECT(model,
              stats->blocks_free + stats->blocks_owned + stats->blocks_cached ==
                      stats->blocks_total &&
                  stats->blocks_in_transit == 0,
              "P4: free %llu, owned %llu, cached %llu", (unsigned long long)stats->blocks_free,
              (unsigned long long)stats->blocks_owned, (unsigned long long)stats->blocks_cached);
    PM_EXPECT(model, stats->seqs == live, "%u sequences, not %u", stats->seqs, live);
    PM_EXPECT(model, stats->open_steps == open, "%u open steps, not %u", stats->open_steps, open);
    PM_EXPECT(model,
              stats->steps_committed == model->committed && stats->steps_aborted == model->aborted,
              "steps: %llu committed, %llu aborted", (unsigned long long)stats->steps_committed,
              (unsigned long long)stats->steps_aborted);
    PM_EXPECT(model, stats->pins == pins_live(model), "%u pins, not %u", stats->pins,
              pins_live(model));
    PM_EXPECT(model, stats->pins > 0 || stats->blocks_pinned == 0, "%llu blocks of no pin",
              (unsigned long long)stats->blocks_pinned);
    PM_EXPECT(model, stats->lookups == model->lookups, "%llu lookups, not %llu",
              (unsigned long long)stats->lookups, (unsigned long long)model->lookups);
    PM_EXPECT(model, stats->hit_tokens <= stats->lookup_tokens, "more hits than lookups");
    if (model->shape.contiguous)
        PM_EXPECT(model, stats->blocks_cached == 0 && stats->index_nodes == 0,
                  "a contiguous pool caches");
}

/* Entries of a table that must be there, and that may. */
static void entries_of(const struct pm_model *model, const struct pm_seq *seq, uint32_t *least,
                       uint32_t *most)
{
    uint32_t count = pm_blocks(model, (uint64_t)seq->len + seq->n_new);
    *least = *most = 0;
    for (uint32_t g = 0; g < num_tables(model); g++) {
        const struct quire_group_config *group = &model->geometry->groups[g];
        uint32_t back = seq->len > model->shape.rollback ? seq->len - model->shape.rollback : 0;
        uint32_t gone = pm_window_start(group, back) / model->shape.block_size;
        for (uint32_t b = 0; b < count; b++) {
            bool must = model->shape.contiguous || b >= seq->low[g] || pm_in_sinks(model, group, b);
            *least += must;
            *most += must || b >= gone || seq->step >= 0;
        }
    }
}

/* Blocks that open steps keep beside tables: originals of copies. */
static uint32_t num_originals(const struct pm_model *model)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PM_STEPS; i++) {
        if (model->steps[i].open)
            count += model->steps[i].num_items * num_tables(model);
    }
    return count;
}

static void compare_held(struct pm_model *model, const struct quire_pool_stats *stats)
{
    uint64_t all = 0, one = 0;
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        const struct pm_seq *seq = &model->seqs[i];
        if (!seq->live)
            continue;
        struct quire_seq_stats held = {.struct_size = sizeof held};
        uint32_t least, most;
        PM_STATUS(model, quire_seq_stats(model->env.pool, seq->handle, &held), QUIRE_OK);
        entries_of(model, seq, &least, &most);
        PM_EXPECT(model, held.len == seq->len, "sequence %u has %u positions, not %u", i, held.len,
                  seq->len);
        PM_EXPECT(model, held.hit_tokens == seq->hit, "sequence %u hit %u tokens, not %u", i,
                  held.hit_tokens, seq->hit);
        PM_EXPECT(model, held.blocks >= least && held.blocks <= most,
                  "S1 or W1: sequence %u of %u positions holds %llu blocks, not %u to %u", i,
                  seq->len, (unsigned long long)held.blocks, least, most);
        PM_EXPECT(model, held.blocks_shared <= held.blocks, "sequence %u shares more than it has",
                  i);
        all += held.blocks;
        one = held.blocks > one ? held.blocks : one;
    }
    uint64_t beside = stats->blocks_pinned + num_originals(model);
    PM_EXPECT(model, stats->blocks_owned >= one && stats->blocks_owned <= all + beside,
              "P2: %llu blocks owned, sequences hold %llu", (unsigned long long)stats->blocks_owned,
              (unsigned long long)all);
    if (model->shape.contiguous)
        PM_EXPECT(model, stats->blocks_owned == all, "P2: %llu blocks owned, not %llu",
                  (unsigned long long)stats->blocks_owned, (unsigned long long)all);
}

/* ---- tables ---- */

void pm_read_table(struct pm_model *model, uint32_t index, struct pm_table *table)
{
    memset(table->count, 0, sizeof table->count);
    for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
        struct quire_kv_cache cache;
        uint32_t layer = model->geometry->groups[g].layers[0];
        PM_STATUS(model,
                  quire_seq_kv_cache(model->env.pool, model->seqs[index].handle, layer, &cache),
                  QUIRE_OK);
        PM_EXPECT(model, cache.len == model->seqs[index].len, "a view of %u positions", cache.len);
        PM_EXPECT(model, cache.paged_block_count <= PM_BLOCKS_MAX, "a table of %u blocks",
                  cache.paged_block_count);
        table->count[g] = cache.paged_block_count;
        memcpy(table->blocks[g], cache.paged_block_indices,
               cache.paged_block_count * sizeof(uint32_t));
    }
}

/* S1 and W1 of one sequence's table. */
static void check_table(struct pm_model *model, uint32_t index)
{
    const struct pm_seq *seq = &model->seqs[index];
    const struct pm_table *table = &model->tables[index];
    uint32_t back = seq->len > model->shape.rollback ? seq->len - model->shape.rollback : 0;
    for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
        const struct quire_group_config *group = &model->geometry->groups[g];
        uint32_t start = pm_window_start(group, seq->len) / model->shape.block_size;
        uint32_t gone = pm_window_start(group, back) / model->shape.block_size;
        PM_EXPECT(model, table->count[g] == pm_blocks(model, (uint64_t)seq->len + seq->n_new),
                  "S1: sequence %u of %u+%u positions has %u entries in group %u", index, seq->len,
                  seq->n_new, table->count[g], g);
        for (uint32_t b = 0; b < table->count[g]; b++) {
            bool there = table->blocks[g][b] != QUIRE_BLOCK_NONE,
                 sink = pm_in_sinks(model, group, b);
            PM_EXPECT(model, !there || table->blocks[g][b] < model->shape.num_blocks,
                      "P5: entry %u of sequence %u is %u", b, index, table->blocks[g][b]);
            PM_EXPECT(model, there || (b < start && b < seq->low[g] && !sink),
                      "S1: sequence %u of %u positions lacks block %u of group %u", index, seq->len,
                      b, g);
            PM_EXPECT(model, !there || b >= gone || sink || seq->step >= 0,
                      "W1: sequence %u of %u positions still holds block %u of group %u", index,
                      seq->len, b, g);
        }
    }
}

/* Who holds a block, as far as tables say. */
struct holder {
    uint8_t seq; /* + 1; 0: nobody */
    uint8_t group;
    uint8_t place;
};

/* Rows of a block that two sequences both have must be the same rows. */
static void check_shared(struct pm_model *model, uint32_t a, uint32_t b, uint32_t place)
{
    uint32_t size = model->shape.block_size;
    for (uint32_t t = place * size; t < (place + 1) * size; t++) {
        if (t >= model->seqs[a].len || t >= model->seqs[b].len)
            return;
        const struct pm_row *x = &model->seqs[a].rows[t], *y = &model->seqs[b].rows[t];
        PM_EXPECT(model, x->content == y->content || x->content == 0 || y->content == 0,
                  "P3 or X1: sequences %u and %u share a block, and differ at position %u", a, b,
                  t);
    }
    PM_EXPECT(model, model->seqs[a].tenant == model->seqs[b].tenant,
              "X3: sequences %u and %u of two tenants share a block", a, b);
}

static void check_tables(struct pm_model *model, const struct quire_pool_stats *stats)
{
    static struct holder holders[PM_ARENA_MAX];
    uint64_t distinct = 0;
    memset(holders, 0, model->shape.num_blocks * sizeof *holders);
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        if (!model->seqs[i].live)
            continue;
        pm_read_table(model, i, &model->tables[i]);
        check_table(model, i);
        for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
            for (uint32_t b = 0; b < model->tables[i].count[g]; b++) {
                uint32_t block = model->tables[i].blocks[g][b];
                if (block == QUIRE_BLOCK_NONE)
                    continue;
                struct holder *holder = &holders[block];
                distinct += holder->seq == 0;
                if (holder->seq != 0) {
                    PM_EXPECT(model, holder->group == g && holder->place == b,
                              "P1: block %u is in two places", block);
                    check_shared(model, i, holder->seq - 1u, b);
                }
                *holder = (struct holder){(uint8_t)(i + 1), (uint8_t)g, (uint8_t)b};
            }
        }
    }
    uint64_t most = distinct + stats->blocks_pinned + num_originals(model);
    PM_EXPECT(model, stats->blocks_owned >= distinct && stats->blocks_owned <= most,
              "P2: %llu blocks owned, tables name %llu", (unsigned long long)stats->blocks_owned,
              (unsigned long long)distinct);
}

/* ---- bytes ---- */

/* Compares rows first .. first + count of one layer. */
static void compare_run(struct pm_model *model, uint32_t index, const struct quire_rows *rows)
{
    const struct pm_seq *seq = &model->seqs[index];
    for (int plane = QT_K; plane <= QT_V; plane++) {
        uint32_t bytes = qt_row_bytes(&model->env, rows->layer, (enum qt_plane)plane);
        uint8_t want[256];
        PM_STATUS(model,
                  quire_seq_read(model->env.pool, seq->handle, rows,
                                 plane == QT_K ? model->rows : NULL,
                                 plane == QT_V ? model->rows : NULL),
                  QUIRE_OK);
        for (uint32_t i = 0; i < rows->count; i++) {
            uint64_t content = seq->rows[rows->first + i].content;
            if (content == 0)
                continue;
            pm_row_stored(model, seq->tenant, content, rows->layer, (enum qt_plane)plane, want);
            PM_EXPECT(model, memcmp(model->rows + i * bytes, want, bytes) == 0,
                      "P3 or X1: sequence %u, layer %u, position %u of %u: other bytes of %s",
                      index, rows->layer, rows->first + i, seq->len, plane == QT_K ? "K" : "V");
        }
    }
}

void pm_compare_rows(struct pm_model *model, uint32_t index)
{
    const struct pm_seq *seq = &model->seqs[index];
    uint32_t size = model->shape.block_size;
    struct pm_table table;
    if (!seq->live || !model->env.has_kv)
        return;
    if (model->has_tables)
        pm_read_table(model, index, &table);
    for (uint32_t layer = 0; layer < model->geometry->num_layers; layer++) {
        const struct quire_group_config *group = qt_group_of(model->geometry, layer);
        uint32_t g = (uint32_t)(group - model->geometry->groups);
        for (uint32_t first = 0; first < seq->len;) {
            bool there = !model->has_tables || table.blocks[g][first / size] != QUIRE_BLOCK_NONE;
            uint32_t end = model->has_tables ? (first / size + 1) * size : seq->len;
            while (model->has_tables && end < seq->len &&
                   (table.blocks[g][end / size] != QUIRE_BLOCK_NONE) == there)
                end += size;
            end = end < seq->len ? end : seq->len;
            struct quire_rows rows = {layer, first, end - first};
            if (there)
                compare_run(model, index, &rows);
            first = end;
        }
    }
}

/* Length and tokens; the tokens known are those up to the first that nobody told, or for which the
 * index had no node. */
void pm_compare_seq(struct pm_model *model, uint32_t index)
{
    struct pm_seq *seq = &model->seqs[index];
    uint32_t tokens[PM_LEN_MAX], count = 0, len = 0;
    if (!seq->live)
        return;
    PM_STATUS(model, quire_seq_length(model->env.pool, seq->handle, &len), QUIRE_OK);
    PM_STATUS(model, quire_seq_tokens(model->env.pool, seq->handle, tokens, PM_LEN_MAX, &count),
              QUIRE_OK);
    PM_EXPECT(model, len == seq->len, "sequence %u has %u positions, not %u", index, len, seq->len);
    for (uint32_t t = count; t < pm_known(seq) && model->index.full; t++)
        seq->rows[t].known = false;
    if (seq->sure > count / model->shape.block_size)
        seq->sure = count / model->shape.block_size;
    PM_EXPECT(model, count == pm_known(seq), "S3: sequence %u knows %u tokens of %u, not %u", index,
              count, len, pm_known(seq));
    for (uint32_t t = 0; t < count; t++)
        PM_EXPECT(model, tokens[t] == seq->rows[t].token,
                  "S3: token %u of sequence %u is %u, not %u", t, index, tokens[t],
                  seq->rows[t].token);
}

/* ---- the arena ---- */

/* Sequences of one salt may take over each other's blocks with what is in them. */
static bool may_hold(const struct pm_model *model, uint32_t tenant)
{
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        if (model->seqs[i].live && model->seqs[i].tenant / PM_ADAPTERS == tenant / PM_ADAPTERS)
            return true;
    }
    return false;
}

/* The salt whose sequence holds each block; -1 where no table names it. */
static void owners(const struct pm_model *model, int8_t *owner)
{
    memset(owner, -1, model->shape.num_blocks);
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        for (uint32_t g = 0; model->seqs[i].live && g < model->geometry->num_groups; g++) {
            for (uint32_t b = 0; b < model->tables[i].count[g]; b++) {
                if (model->tables[i].blocks[g][b] != QUIRE_BLOCK_NONE)
                    owner[model->tables[i].blocks[g][b]] =
                        (int8_t)(model->seqs[i].tenant / PM_ADAPTERS);
            }
        }
    }
}

void pm_scan(struct pm_model *model)
{
    static int8_t owner[PM_ARENA_MAX];
    bool banned[PM_TENANTS];
    uint64_t page = model->stats.block_bytes;
    uint32_t word_bytes = model->shape.f16 ? 2 : 4;
    if (model->memory == NULL || !model->has_tables)
        return;
    qt_wait(&model->env);
    owners(model, owner);
    for (uint32_t i = 0; i < PM_TENANTS; i++)
        banned[i] = model->dropped[i] && !may_hold(model, i);
    for (uint32_t block = 0; block < model->shape.num_blocks; block++) {
        const uint8_t *at = model->memory + block * page;
        for (uint64_t offset = 0; offset + word_bytes <= page; offset += word_bytes) {
            uint32_t word = 0;
            memcpy(&word, at + offset, word_bytes);
            if (word == 0)
                continue;
            int tenant = pm_word_tenant(model, word);
            PM_EXPECT(model, tenant >= 0, "block %u holds bytes that nobody wrote", block);
            PM_EXPECT(model, !banned[tenant],
                      "T2: bytes of tenant %d in block %u, long after it was dropped", tenant,
                      block);
            PM_EXPECT(model, owner[block] < 0 || owner[block] == tenant / PM_ADAPTERS,
                      "T2: block %u of salt %d holds bytes of tenant %d", block, owner[block],
                      tenant);
        }
    }
}

/* ---- together ---- */

/* A pool has as many nodes as blocks. What finds no node is not findable, and its tokens are not
 * known. Sequences that windows let go of blocks of can have more positions than the pool has
 * nodes; else evictions leave nodes without blocks behind. */
static bool index_is_full(const struct pm_model *model, const struct quire_pool_stats *stats)
{
    enum { MARGIN = 2 }; /* nodes that a commit may take and give back */
    bool windows_only = true;
    for (uint32_t g = 0; g < model->geometry->num_groups; g++)
        windows_only = windows_only && model->geometry->groups[g].window != 0;
    return stats->index_nodes + MARGIN >= stats->blocks_total ||
           (windows_only && model->index.full);
}

/* Whether an open step may keep a block as the original of a copy. */
static bool is_original(const struct pm_model *model, uint32_t block)
{
    for (uint32_t i = 0; i < PM_STEPS; i++) {
        const struct pm_step *step = &model->steps[i];
        for (uint32_t j = 0; step->open && j < step->num_items; j++) {
            uint32_t last = model->seqs[step->items[j].seq].len / model->shape.block_size;
            for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
                if (last < step->items[j].count[g] && step->items[j].table[g][last] == block)
                    return true;
            }
        }
    }
    return false;
}

/* T2: what is dropped while nobody holds it is zeroed. */
static void check_dropped(struct pm_model *model, uint32_t block)
{
    static int8_t owner[PM_ARENA_MAX];
    uint64_t page = model->stats.block_bytes;
    if (model->memory == NULL || !model->has_tables || !model->dropping ||
        is_original(model, block))
        return;
    owners(model, owner);
    const uint8_t *at = model->memory + block * page;
    qt_wait(&model->env);
    for (uint64_t i = 0; i < page && owner[block] < 0; i++)
        PM_EXPECT(model, at[i] == 0, "T2: block %u was dropped, and still holds something", block);
}

static void check_events(struct pm_model *model)
{
    struct quire_event events[64];
    uint32_t count = QT_LEN(events);
    uint64_t lost = 0;
    while (count == QT_LEN(events)) {
        PM_STATUS(model, quire_pool_events(model->env.pool, events, QT_LEN(events), &count, &lost),
                  QUIRE_OK);
        for (uint32_t i = 0; i < count && lost == 0; i++) {
            uint32_t block = events[i].block;
            bool leaves =
                events[i].kind == QUIRE_EVENT_EVICTED || events[i].kind == QUIRE_EVENT_DROPPED;
            PM_EXPECT(model, block < model->shape.num_blocks, "an event of block %u", block);
            PM_EXPECT(model, !leaves || model->findable[block],
                      "block %u went, and was never stored", block);
            if (leaves || events[i].kind == QUIRE_EVENT_STORED)
                model->findable[block] = !leaves;
            if (events[i].kind == QUIRE_EVENT_DROPPED)
                check_dropped(model, block);
        }
    }
}

void pm_compare(struct pm_model *model)
{
    struct quire_error error = {0};
    struct quire_pool_stats stats;
    quire_status status = quire_pool_check(model->env.pool, &error);
    PM_EXPECT(model, status == QUIRE_OK, "quire_pool_check: %s", error.message);
    pm_read_stats(model, &stats);
    compare_counts(model, &stats);
    compare_held(model, &stats);
    model->index.full = index_is_full(model, &stats);
    if (stats.blocks_evicted != model->stats.blocks_evicted ||
        (model->index.full && pm_windowed(model))) {
        for (uint32_t i = 0; i < PM_TENANTS; i++)
            model->index.lossy[i] = true;
    }
    if (model->has_tables)
        check_tables(model, &stats);
    if (model->shape.events > 0 && !model->shape.contiguous)
        check_events(model);
    for (uint32_t i = 0; i < PM_SEQS && model->index.full; i++)
        pm_compare_seq(model, i);
    model->stats = stats;
}

void pm_unchanged(struct pm_model *model)
{
    struct quire_pool_stats now;
    const struct quire_pool_stats *before = &model->stats;
    pm_read_stats(model, &now);
    PM_EXPECT(model,
              now.blocks_owned == before->blocks_owned && now.seqs == before->seqs &&
                  now.open_steps == before->open_steps && now.pins == before->pins &&
                  now.blocks_pinned == before->blocks_pinned && now.lookups == before->lookups &&
                  now.hit_tokens == before->hit_tokens &&
                  now.blocks_stored == before->blocks_stored &&
                  now.blocks_copied == before->blocks_copied &&
                  now.blocks_released == before->blocks_released,
              "T1: a refused operation changed something");
}
