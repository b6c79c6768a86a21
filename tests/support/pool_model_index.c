/* pool_model_index.c - what has been published, as a plain tree of tokens: what a lookup may find.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A row is marked when a block with it becomes findable. Nothing tells when an unneeded block is
 * evicted, so a mark says "may be there": the longest marked prefix bounds every hit from above.
 * Where nothing was evicted or dropped, it is the hit. */
#include "pool_model.h"

#include <string.h>

/* Nodes 1 .. PM_TENANTS are the roots; 0 is no node. */
void pm_index_clear(struct pm_index *index)
{
    if (index->size == 0) {
        index->size = 1024;
        index->nodes = qt_alloc(index->size * sizeof *index->nodes);
    }
    memset(index->nodes, 0, (1 + PM_TENANTS) * sizeof *index->nodes);
    memset(index->lossy, 0, sizeof index->lossy);
    index->count = 1 + PM_TENANTS;
    index->full = false;
}

static uint32_t child_of(struct pm_index *index, uint32_t node, uint32_t token)
{
    if (index->nodes[node].children[token] != 0)
        return index->nodes[node].children[token];
    if (index->count == index->size) {
        size_t bytes = index->size * sizeof *index->nodes;
        index->nodes = qt_grow(index->nodes, bytes, 2 * bytes);
        index->size *= 2;
    }
    uint32_t child = index->count++;
    memset(&index->nodes[child], 0, sizeof index->nodes[child]);
    index->nodes[node].children[token] = child;
    return child;
}

/* A full block that nobody published before is the sequence's own, and so is one that was merged.
 */
static void note_sure(const struct pm_model *model, struct pm_seq *seq, uint32_t node, uint32_t i)
{
    uint32_t size = model->shape.block_size;
    if ((i + 1) % size == 0 && i / size == seq->sure && !seq->dropped &&
        (!model->index.nodes[node].ever || model->shape.merge_equal))
        seq->sure++;
}

void pm_index_publish(struct pm_model *model, struct pm_seq *seq, uint32_t len)
{
    struct pm_index *index = &model->index;
    uint32_t node = 1 + seq->tenant, size = model->shape.block_size;
    if (model->shape.contiguous)
        return;
    for (uint32_t i = 0; i < len; i++) {
        node = child_of(index, node, seq->rows[i].token);
        if (seq->barred[i / size])
            continue;
        note_sure(model, seq, node, i);
        index->nodes[node].published = index->nodes[node].ever = true;
        if ((i + 1) % size == 0 || i + 1 == len)
            index->nodes[node].end = true;
    }
}

void pm_index_drop(struct pm_model *model, uint32_t tenant, const uint32_t *tokens, uint32_t len)
{
    struct pm_index *index = &model->index;
    uint32_t node = 1 + tenant;
    index->lossy[tenant] = true;
    for (uint32_t i = 0; i < len && node != 0; i++) {
        uint32_t *child = &index->nodes[node].children[tokens[i]];
        node = *child;
        if (i + 1 == len)
            *child = 0;
    }
    if (len == 0)
        memset(&index->nodes[node], 0, sizeof index->nodes[node]);
}

/* Whether a token at position `end` sees published rows only, in every group. */
static bool sees_published(const struct pm_model *model, const bool *published, uint32_t end)
{
    for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
        const struct quire_group_config *group = &model->geometry->groups[g];
        uint32_t start = pm_window_start(group, end);
        for (uint32_t i = 0; i < end; i++) {
            if ((i >= start || i < group->sink_positions) && !published[i])
                return false;
        }
    }
    return true;
}

uint32_t pm_index_longest(const struct pm_model *model, uint32_t tenant, const uint32_t *tokens,
                          uint32_t cap)
{
    bool published[PM_LEN_MAX];
    uint32_t node = 1 + tenant, depth = 0;
    for (; depth < cap; depth++) {
        node = model->index.nodes[node].children[tokens[depth]];
        if (node == 0)
            break;
        published[depth] = model->index.nodes[node].published;
    }
    while (depth > 0 && !(published[depth - 1] && sees_published(model, published, depth)))
        depth--;
    return depth;
}

void pm_index_learn(struct pm_model *model, uint32_t tenant, const uint32_t *tokens, uint32_t len,
                    uint32_t n)
{
    uint32_t node = 1 + tenant, size = model->shape.block_size, end = (len / size + 1) * size;
    if (pm_windowed(model) || end > n)
        return;
    for (uint32_t i = 0; i < end && node != 0; i++)
        node = model->index.nodes[node].children[tokens[i]];
    if (node != 0)
        model->index.nodes[node].published = model->index.nodes[node].end = false;
}

/* Whether a sequence holds what a hit of `len` positions, whole blocks, needs. */
static bool holds_hit(const struct pm_model *model, const struct pm_seq *seq, uint32_t len)
{
    uint32_t size = model->shape.block_size;
    for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
        if (pm_window_start(&model->geometry->groups[g], len) / size < seq->low[g])
            return false;
    }
    return true;
}

/* What is there for sure: what a live sequence has published and still holds, or a pin keeps. */
static uint32_t least_of(const struct pm_model *model, uint32_t tenant, const uint32_t *tokens,
                         uint32_t cap)
{
    uint32_t least = 0, size = model->shape.block_size;
    for (uint32_t s = 0; s < PM_SEQS; s++) {
        const struct pm_seq *seq = &model->seqs[s];
        uint32_t end = seq->sure * size, common = 0;
        if (!seq->live || seq->tenant != tenant || seq->dropped || model->index.full)
            continue;
        end = end < cap ? end : cap;
        while (common < end && seq->rows[common].token == tokens[common])
            common++;
        if (pm_windowed(model))
            common = common / size * size;
        while (common > 0 && !holds_hit(model, seq, common))
            common -= size;
        least = common > least ? common : least;
    }
    for (uint32_t i = 0; i < PM_PINS; i++) {
        const struct pm_pin *pin = &model->pins[i];
        if (pin->live && pin->tenant == tenant && pin->len <= cap && pin->len > least &&
            memcmp(pin->tokens, tokens, pin->len * sizeof *tokens) == 0)
            least = pin->len;
    }
    return least;
}

void pm_index_judge(struct pm_model *model, const struct quire_seq_config *config, uint32_t tenant,
                    uint32_t cap, uint32_t len)
{
    uint32_t longest = pm_index_longest(model, tenant, config->tokens, cap);
    PM_EXPECT(model, len <= cap, "found %u positions, at most %u may be", len, cap);
    PM_EXPECT(model, len <= longest,
              "found %u positions of %u tokens of tenant %u: only %u were ever published", len,
              config->num_tokens, tenant, longest);
    uint32_t least = least_of(model, tenant, config->tokens, cap);
    PM_EXPECT(model, len >= least,
              "found %u positions of %u tokens of tenant %u: %u are held and findable", len,
              config->num_tokens, tenant, least);
    if (!model->index.lossy[tenant]) {
        PM_EXPECT(model, len == longest,
                  "found %u positions of %u tokens of tenant %u: %u are published, none is gone",
                  len, config->num_tokens, tenant, longest);
        model->report->exact++;
    }
    model->report->hits += len > 0;
    pm_index_learn(model, tenant, config->tokens, len, cap);
}

/* ---- reach ---- */

struct walk {
    struct pm_model *model;
    uint32_t tenant, tokens[PM_LEN_MAX + 1];
    uint64_t reached;
};

static void walk_node(struct walk *walk, uint32_t node, uint32_t depth)
{
    struct pm_model *model = walk->model;
    const struct pm_node *here = &model->index.nodes[node];
    if (depth > 0 && !here->published)
        return;
    if (here->end && depth < model->shape.seq_len) {
        struct quire_seq_config config;
        uint32_t unused[1], len = 0;
        pm_prefix(model, walk->tenant, 0, 0, unused, &config);
        config.tokens = walk->tokens;
        config.num_tokens = depth + 1;
        walk->tokens[depth] = 0;
        PM_STATUS(model, quire_pool_lookup(model->env.pool, &config, &len), QUIRE_OK);
        pm_index_learn(model, walk->tenant, walk->tokens, len, depth);
        if (len < depth)
            return;
    }
    walk->reached += here->end; /* at the end of max_seq_len it is taken as there */
    for (uint32_t token = 0; token < model->shape.alphabet; token++) {
        uint32_t child = model->index.nodes[node].children[token];
        if (child != 0) {
            walk->tokens[depth] = token;
            walk_node(walk, child, depth + 1);
        }
    }
}

uint64_t pm_index_reach(struct pm_model *model)
{
    struct walk walk = {.model = model};
    for (walk.tenant = 0; walk.tenant < PM_TENANTS; walk.tenant++)
        walk_node(&walk, 1 + walk.tenant, 0);
    return walk.reached;
}
