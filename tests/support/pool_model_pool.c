/* pool_model_pool.c - operations on the whole pool: pin, drop, reset, looking around, misuse.
 * SPDX-License-Identifier: Apache-2.0 */
#include "pool_model.h"

#include <string.h>

#include "base/base.h"

/* ---- pins ---- */

enum { PIN_PIN, PIN_TENANT, PIN_PROMPT, PIN_LEN };

static void bury_pin(struct pm_model *model, struct pm_pin *pin)
{
    model->dead_pins[model->num_dead_pins++ % PM_GRAVES] = pin->handle;
    pin->live = false;
}

static uint64_t pin_budget(const struct pm_model *model)
{
    return model->shape.pinned_blocks != 0 ? model->shape.pinned_blocks
                                           : model->shape.num_blocks / 2;
}

/* Blocks that all pins and one more of n tokens may hold, at most. */
static uint64_t pinned_most(const struct pm_model *model, uint32_t n)
{
    uint64_t blocks = pm_blocks(model, n);
    for (uint32_t i = 0; i < PM_PINS; i++)
        blocks += model->pins[i].live ? pm_blocks(model, model->pins[i].len) : 0;
    return blocks * model->geometry->num_groups;
}

static void check_pin_status(struct pm_model *model, quire_status got, uint32_t tenant,
                             const struct quire_seq_config *config)
{
    uint32_t n = config->num_tokens;
    bool full = true;
    for (uint32_t i = 0; i < PM_PINS; i++)
        full = full && model->pins[i].live;
    uint32_t longest = pm_index_longest(model, tenant, config->tokens, n);
    bool sure = longest > 0 && !model->index.lossy[tenant];
    if (model->shape.contiguous)
        pm_status_is(model, __LINE__, got, QUIRE_E_UNSUPPORTED, "quire_pool_pin");
    else if (got == QUIRE_OK)
        PM_EXPECT(model, !full && longest > 0, "a pin of what is not there, or one too many");
    else if (got == QUIRE_E_NOTFOUND)
        PM_EXPECT(model, !sure, "no pin of a prefix of which %u positions are cached", longest);
    else
        PM_EXPECT(model,
                  got == QUIRE_E_LIMIT && (full || pinned_most(model, n) > pin_budget(model)),
                  "quire_pool_pin answers %s", quire_status_name(got));
}

void pm_op_pin(struct pm_model *model, const uint32_t *args)
{
    struct quire_seq_config config;
    struct quire_error error = {0};
    uint32_t slot = args[PIN_PIN] % PM_PINS, len = 0, tenant = args[PIN_TENANT];
    uint32_t tokens[PM_LEN_MAX], n = args[PIN_LEN] % (model->shape.seq_len + 1);
    quire_pin handle = {0};
    pm_prefix(model, tenant, args[PIN_PROMPT], n, tokens, &config);
    quire_status got = quire_pool_pin(model->env.pool, &config, &handle, &len, &error);
    pm_trace(model, "pin of %u tokens: %s, %u pinned", n, quire_status_name(got), len);
    check_pin_status(model, got, tenant, &config);
    if (got != QUIRE_OK) {
        pm_unchanged(model);
        return;
    }
    while (model->pins[slot].live)
        slot = (slot + 1) % PM_PINS;
    struct pm_pin *pin = &model->pins[slot];
    *pin = (struct pm_pin){.live = true, .handle = handle, .tenant = tenant, .len = len};
    memcpy(pin->tokens, tokens, n * sizeof *tokens);
    uint32_t longest = pm_index_longest(model, tenant, tokens, n);
    PM_EXPECT(model, len > 0 && len <= longest, "pinned %u positions, %u were published", len,
              longest);
    PM_EXPECT(model, len == longest || model->index.lossy[tenant],
              "pinned %u positions, %u are there", len, longest);
}

void pm_op_unpin(struct pm_model *model, const uint32_t *args)
{
    struct pm_pin *pin = &model->pins[args[0] % PM_PINS];
    quire_pin dead = model->dead_pins[args[0] % PM_GRAVES];
    quire_status got = quire_pool_unpin(model->env.pool, pin->live ? pin->handle : dead);
    pm_trace(model, "unpin: %s", quire_status_name(got));
    pm_status_is(model, __LINE__, got, pin->live ? QUIRE_OK : QUIRE_E_INVAL, "quire_pool_unpin");
    if (got == QUIRE_OK)
        bury_pin(model, pin);
    else
        pm_unchanged(model);
}

/* ---- drop ---- */

static bool starts_with(const struct pm_seq *seq, const uint32_t *tokens, uint32_t len)
{
    if (pm_known(seq) < len)
        return false;
    for (uint32_t i = 0; i < len; i++) {
        if (seq->rows[i].token != tokens[i])
            return false;
    }
    return true;
}

/* The blocks of a sequence that hold a dropped prefix are never findable again. */
static void bar(struct pm_model *model, uint32_t tenant, const uint32_t *tokens, uint32_t len)
{
    uint32_t size = model->shape.block_size;
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        struct pm_seq *seq = &model->seqs[i];
        if (!seq->live || seq->tenant != tenant || !starts_with(seq, tokens, len))
            continue;
        seq->dropped = true;
        seq->sure = 0;
        for (uint32_t b = len > 0 ? (len - 1) / size : 0; b < seq->len / size; b++)
            seq->barred[b] = true;
    }
}

void pm_op_drop(struct pm_model *model, const uint32_t *args)
{
    struct quire_seq_config config;
    uint32_t unused[1], first = args[0] % PM_SALTS * PM_ADAPTERS;
    pm_prefix(model, first, 0, 0, unused, &config);
    PM_STATUS(model, quire_pool_drop(model->env.pool, config.salt), QUIRE_OK);
    pm_trace(model, "drop of the tenants %u and %u", first, first + 1);
    for (uint32_t tenant = first; tenant < first + PM_ADAPTERS; tenant++) {
        pm_index_drop(model, tenant, NULL, 0);
        bar(model, tenant, NULL, 0);
        model->dropped[tenant] = true;
        for (uint32_t i = 0; i < PM_PINS; i++) {
            if (model->pins[i].live && model->pins[i].tenant == tenant)
                bury_pin(model, &model->pins[i]);
        }
    }
}

/* Pins of a dropped prefix end. One that ends inside a block that was dropped may: it is let go. */
static void drop_pins(struct pm_model *model, uint32_t tenant, const uint32_t *tokens, uint32_t n)
{
    uint32_t size = model->shape.block_size;
    for (uint32_t i = 0; i < PM_PINS; i++) {
        struct pm_pin *pin = &model->pins[i];
        uint32_t common = 0;
        if (!pin->live || pin->tenant != tenant)
            continue;
        while (common < pin->len && common < n && pin->tokens[common] == tokens[common])
            common++;
        if (common == n) {
            bury_pin(model, pin);
        } else if (common == pin->len && pm_blocks(model, n) <= pm_blocks(model, common) &&
                   common % size != 0) {
            quire_status got = quire_pool_unpin(model->env.pool, pin->handle);
            PM_EXPECT(model, got == QUIRE_OK || got == QUIRE_E_INVAL, "unpin answers %s",
                      quire_status_name(got));
            bury_pin(model, pin);
        }
    }
}

void pm_op_drop_prefix(struct pm_model *model, const uint32_t *args)
{
    struct quire_seq_config config;
    uint32_t tokens[PM_LEN_MAX], n = args[2] % (model->shape.seq_len + 1), len = 0;
    uint64_t dropped = 0;
    pm_prefix(model, args[0], args[1], n, tokens, &config);
    PM_STATUS(model, quire_pool_drop_prefix(model->env.pool, &config, &dropped), QUIRE_OK);
    pm_trace(model, "drop of %u tokens: %llu blocks", n, (unsigned long long)dropped);
    PM_EXPECT(model, dropped <= model->stats.blocks_cached + model->stats.blocks_owned,
              "%llu dropped", (unsigned long long)dropped);
    pm_index_drop(model, args[0], tokens, n);
    bar(model, args[0], tokens, n);
    drop_pins(model, args[0], tokens, n);
    PM_STATUS(model, quire_pool_lookup(model->env.pool, &config, &len), QUIRE_OK);
    PM_EXPECT(model, n == 0 || len < n, "dropped %u tokens, found %u", n, len);
}

/* ---- reset ---- */

/* A late device error: the pool answers DEVICE from the next step on, until it is reset. */
static void fail_device(struct pm_model *model)
{
    const struct quire_memory_ops *memory = model->env.backend->memory;
    struct quire_step_item item = {model->dead_seqs[0], 1, NULL};
    struct quire_upload upload = {0, sizeof(float), model->env.host_inputs};
    quire_step step = {0};
    quire_fence fence = 0;
    qt_opaque_fail(model->env.backend, QT_CALL_EXECUTE, 0, QUIRE_E_DEVICE);
    PM_STATUS(model, memory->upload(model->env.backend, model->env.inputs, &upload, 1), QUIRE_OK);
    PM_STATUS(model, memory->fence_record(model->env.backend, &fence), QUIRE_OK);
    PM_STATUS(model, memory->fence_wait(model->env.backend, fence), QUIRE_E_DEVICE);
    PM_STATUS(model, quire_step_begin(model->env.pool, &item, 1, &step, NULL), QUIRE_E_DEVICE);
    pm_unchanged(model);
    PM_STATUS(model, quire_pool_check(model->env.pool, NULL), QUIRE_OK);
    qt_opaque_fail_none(model->env.backend);
}

void pm_op_reset(struct pm_model *model, const uint32_t *args)
{
    bool open = model->stats.open_steps > 0;
    struct quire_pool_stats stats;
    if (args[0] == 0 && model->env.opaque && !open) {
        quire__alloc_fail_after(-1, false); /* the check takes memory */
        fail_device(model);
    }
    PM_STATUS(model, quire_pool_reset(model->env.pool), open ? QUIRE_E_BUSY : QUIRE_OK);
    if (open) {
        pm_unchanged(model);
        return;
    }
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        if (model->seqs[i].live)
            pm_bury(model, &model->seqs[i]);
    }
    for (uint32_t i = 0; i < PM_PINS; i++) {
        if (model->pins[i].live)
            bury_pin(model, &model->pins[i]);
    }
    pm_read_stats(model, &stats);
    PM_EXPECT(model, stats.blocks_free == stats.blocks_total, "a reset pool has %llu blocks free",
              (unsigned long long)stats.blocks_free);
    model->stats.blocks_evicted = stats.blocks_evicted;
    pm_index_clear(&model->index);
    pm_trace(model, "reset");
}

/* ---- looking around ---- */

static void check_groups(struct pm_model *model)
{
    struct quire_pool_stats stats;
    uint64_t owned = 0, cached = 0;
    pm_read_stats(model, &stats);
    for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
        struct quire_group_stats group = {.struct_size = sizeof group};
        quire_status got = quire_pool_group_stats(model->env.pool, g, &group);
        if (model->shape.contiguous) {
            pm_status_is(model, __LINE__, got, QUIRE_E_UNSUPPORTED, "quire_pool_group_stats");
            return;
        }
        pm_status_is(model, __LINE__, got, QUIRE_OK, "quire_pool_group_stats");
        PM_EXPECT(model, group.window == model->geometry->groups[g].window, "group %u: window %u",
                  g, group.window);
        owned += group.blocks_owned;
        cached += group.blocks_cached;
    }
    PM_EXPECT(model, owned == stats.blocks_owned && cached == stats.blocks_cached,
              "P4: groups own %llu and cache %llu blocks, the pool %llu and %llu",
              (unsigned long long)owned, (unsigned long long)cached,
              (unsigned long long)stats.blocks_owned, (unsigned long long)stats.blocks_cached);
}

/* S2: behind what a sequence owns, its table on the device names no block; what a sequence in a
 * step owns is there as it is on the host. */
static void check_device_table(struct pm_model *model, const struct pm_seq *seq)
{
    const struct quire_memory_ops *memory = model->env.backend->memory;
    for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
        struct quire_kv_cache cache;
        uint32_t device[PM_LEN_MAX + 1], layer = model->geometry->groups[g].layers[0];
        PM_STATUS(model, quire_seq_kv_cache(model->env.pool, seq->handle, layer, &cache), QUIRE_OK);
        uint32_t slots = (uint32_t)cache.block_table.shape[0];
        PM_EXPECT(model, slots <= PM_LEN_MAX, "a table of %u slots", slots);
        PM_STATUS(model,
                  memory->download(model->env.backend, cache.block_table.buffer,
                                   cache.block_table.offset, slots * sizeof *device, device),
                  QUIRE_OK);
        qt_wait(&model->env);
        for (uint32_t i = 0; i < slots; i++) {
            bool owned = i < cache.paged_block_count;
            uint32_t want = owned ? cache.paged_block_indices[i] : QUIRE_BLOCK_NONE;
            PM_EXPECT(model,
                      device[i] == want || (owned && (seq->step < 0 || want == QUIRE_BLOCK_NONE)),
                      "S2: slot %u of the device's table is %u, not %u", i, device[i], want);
        }
    }
}

void pm_op_inspect(struct pm_model *model, const uint32_t *args)
{
    check_groups(model);
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        pm_compare_seq(model, i);
        if (model->seqs[i].live && model->has_tables)
            check_device_table(model, &model->seqs[i]);
    }
    if (args[0] % 8 == 0 && model->shape.geometry == 0 && !model->shape.contiguous) {
        uint64_t reach = pm_index_reach(model);
        pm_trace(model, "%llu blocks reached, %llu cached", (unsigned long long)reach,
                 (unsigned long long)model->stats.blocks_cached);
        PM_EXPECT(model, reach >= model->stats.blocks_cached,
                  "E1: %llu blocks are cached, and lookups reach %llu",
                  (unsigned long long)model->stats.blocks_cached, (unsigned long long)reach);
        pm_unchanged(model);
    }
}

/* ---- misuse ---- */

static void misuse_prefix(struct pm_model *model, struct quire_seq_config *config,
                          quire_status want)
{
    struct quire_pool *pool = model->env.pool;
    quire_seq seq = {0};
    quire_pin pin = {0};
    uint32_t len = 0;
    uint64_t dropped = 0;
    PM_STATUS(model, quire_seq_create(pool, config, &seq), want);
    PM_STATUS(model, quire_pool_lookup(pool, config, &len), want);
    PM_STATUS(model, quire_pool_drop_prefix(pool, config, &dropped), want);
    quire_status got = quire_pool_pin(pool, config, &pin, &len, NULL);
    PM_EXPECT(model, got == want || model->shape.contiguous || got == QUIRE_E_INVAL,
              "a pin answers %s", quire_status_name(got));
}

static void misuse_begin(struct pm_model *model, uint32_t which)
{
    uint32_t token = model->shape.vocab ? model->shape.alphabet : 0;
    struct quire_step_item items[2];
    quire_step step = {0};
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        if (!model->seqs[i].live || model->seqs[i].step >= 0)
            continue;
        items[0] = items[1] = (struct quire_step_item){model->seqs[i].handle, 1, NULL};
        if (which == 0)
            items[0].n_new = 0;
        if (which == 1 && model->shape.vocab)
            items[0].tokens = &token;
        quire_status got = quire_step_begin(model->env.pool, items, 2, &step, NULL);
        PM_EXPECT(model, got == QUIRE_E_INVAL || got == QUIRE_E_BUSY || got == QUIRE_E_LIMIT,
                  "a sequence twice in a step: %s", quire_status_name(got));
        return;
    }
}

static void misuse_dead(struct pm_model *model, uint32_t slot)
{
    struct quire_pool *pool = model->env.pool;
    quire_seq dead = model->dead_seqs[slot % PM_GRAVES], fork = {0};
    struct quire_step_item item = {dead, 1, NULL};
    struct quire_kv_cache cache;
    quire_step step = {0};
    uint32_t len = 0;
    PM_STATUS(model, quire_seq_length(pool, dead, &len), QUIRE_E_INVAL);
    PM_STATUS(model, quire_seq_destroy(pool, dead), QUIRE_E_INVAL);
    PM_STATUS(model, quire_seq_truncate(pool, dead, 0, NULL), QUIRE_E_INVAL);
    PM_STATUS(model, quire_seq_fork(pool, dead, 0, &fork, NULL), QUIRE_E_INVAL);
    quire_status got = quire_seq_publish(pool, dead);
    PM_EXPECT(model, got == QUIRE_E_INVAL || model->shape.contiguous, "P5: published by the dead");
    got = quire_seq_kv_cache(pool, dead, 0, &cache);
    PM_EXPECT(model, got == QUIRE_E_INVAL || !model->env.has_kv, "P5: a view of the dead");
    got = quire_step_begin(pool, &item, 1, &step, NULL);
    PM_EXPECT(model, got == QUIRE_E_INVAL || got == QUIRE_E_BUSY, "P5: a step of the dead: %s",
              quire_status_name(got));
}

void pm_op_misuse(struct pm_model *model, const uint32_t *args)
{
    struct quire_seq_config config;
    uint32_t tokens[PM_LEN_MAX + 1];
    pm_prefix(model, 0, args[0], 1, tokens, &config);
    switch (args[1] % 6) {
    case 0:
        tokens[0] = model->shape.alphabet;
        if (model->shape.vocab)
            misuse_prefix(model, &config, QUIRE_E_INVAL);
        break;
    case 1:
        pm_prefix(model, 0, args[0], model->shape.seq_len + 1, tokens, &config);
        misuse_prefix(model, &config, QUIRE_E_LIMIT);
        break;
    case 2:
        config.tokens = NULL;
        misuse_prefix(model, &config, QUIRE_E_INVAL);
        break;
    case 3:
        config.struct_size--;
        misuse_prefix(model, &config, QUIRE_E_INVAL);
        break;
    case 4:
        misuse_begin(model, args[0] % 3);
        break;
    default:
        misuse_dead(model, args[0]);
        break;
    }
    pm_unchanged(model);
}
