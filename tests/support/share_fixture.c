/* share_fixture.c - lines: sequences whose K and V are a function of their tokens.
 * SPDX-License-Identifier: Apache-2.0 */
#include "share_fixture.h"

#include <string.h>

static const uint32_t first_layer[] = {0};
static const uint32_t second_layer[] = {1};
static const uint32_t third_layer[] = {2};
static const uint32_t first_two_layers[] = {0, 3};

const struct qt_geometry qt_window = {
    "window",
    1,
    1,
    {{first_layer, 1, 2, 1, 8, 0, 4, 0}},
};
const struct qt_geometry qt_hybrid = {
    "hybrid",
    3,
    3,
    {{first_layer, 1, 2, 1, 8, 0, 0, 0},
     {second_layer, 1, 2, 1, 8, 0, 32, 0},
     {third_layer, 1, 2, 1, 8, 0, 32, 0}},
};
const struct qt_geometry qt_unequal = {
    "unequal",
    4,
    3,
    {{first_two_layers, 2, 4, 2, 16, 0, 0, 0},
     {second_layer, 1, 2, 1, 8, 0, 4, 0},
     {third_layer, 1, 2, 1, 8, 0, 6, 3}},
};

void qt_tokens(uint32_t key, uint32_t *tokens, uint32_t count)
{
    struct qt_random random = {qt_mix(key + 1)};
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = 1000 + qt_below(&random, 30000);
    if (count > 0)
        tokens[0] = 100000 + key;
}

void qt_share_config(struct quire_pool_config *config, const struct qt_variant *variant,
                     const struct qt_geometry *geometry, uint32_t block_size, uint32_t num_blocks)
{
    qt_config(config, variant, geometry);
    config->block_size = block_size;
    config->num_blocks = num_blocks;
    config->max_seqs = 12;
    config->max_seq_len = 512;
    config->max_step_tokens = 256;
    config->rollback_max = 0;
    config->event_capacity = 1024;
}

void qt_share_open(struct qt_env *env, const struct qt_variant *variant,
                   const struct qt_geometry *geometry, uint32_t block_size, uint32_t num_blocks)
{
    struct quire_pool_config config;
    qt_share_config(&config, variant, geometry, block_size, num_blocks);
    qt_open_config(env, variant, geometry, &config);
}

struct quire_seq_config qt_prefix(const uint32_t *tokens, uint32_t num_tokens)
{
    struct quire_seq_config config;
    quire_seq_config_init(&config);
    config.tokens = tokens;
    config.num_tokens = num_tokens;
    return config;
}

/* ---- lines ---- */

void qt_line_mean(struct qt_line *line, uint32_t first, uint32_t count)
{
    uint64_t *salts = line->stream.salts;
    for (uint32_t t = first; t < first + count; t++) {
        uint64_t before = t > 0 ? salts[t - 1] : qt_mix(line->salt * 3 + 1) + line->adapter;
        salts[t] = qt_mix(before + (uint64_t)line->tokens[t] * 0x9E3779B97F4A7C15u + 1);
    }
}

void qt_line_alloc(struct qt_env *env, struct qt_line *line)
{
    *line = (struct qt_line){0};
    line->stream.salts = qt_alloc(env->config.max_seq_len * sizeof *line->stream.salts);
    line->tokens = qt_alloc(env->config.max_seq_len * sizeof *line->tokens);
}

uint32_t qt_line_open(struct qt_env *env, struct qt_line *line,
                      const struct quire_seq_config *config)
{
    uint32_t hit = 0;
    qt_line_alloc(env, line);
    line->salt = config->salt;
    line->adapter = config->adapter;
    qt_assert_ok(quire_seq_create(env->pool, config, &line->stream.seq));
    qt_assert_ok(quire_seq_length(env->pool, line->stream.seq, &hit));
    assert_true(hit == 0 || hit < config->num_tokens);
    if (hit > 0)
        memcpy(line->tokens, config->tokens, hit * sizeof *config->tokens);
    qt_line_mean(line, 0, hit);
    line->stream.len = hit;
    return hit;
}

void qt_line_add(struct qt_batch *batch, struct qt_line *line, const uint32_t *tokens,
                 uint32_t count)
{
    uint32_t len = line->stream.len;
    qt_batch_add(batch, &line->stream, count, tokens);
    memcpy(line->tokens + len, tokens, count * sizeof *tokens);
    qt_line_mean(line, len, count);
}

quire_status qt_line_begin(struct qt_env *env, struct qt_line *line, const uint32_t *tokens,
                           uint32_t count, struct qt_batch *batch)
{
    *batch = (struct qt_batch){0};
    qt_line_add(batch, line, tokens, count);
    return qt_batch_begin(env, batch);
}

void qt_line_write(struct qt_env *env, struct qt_batch *batch)
{
    for (uint32_t layer = 0; env->has_kv && layer < env->geometry->num_layers; layer++)
        qt_assert_ok(qt_batch_write(env, batch, layer));
}

void qt_line_feed(struct qt_env *env, struct qt_line *line, const uint32_t *tokens, uint32_t count)
{
    while (count > 0) {
        uint32_t piece = count < env->config.max_step_tokens ? count : env->config.max_step_tokens;
        struct qt_batch batch = {0};
        qt_line_add(&batch, line, tokens, piece);
        qt_batch_store(env, &batch);
        tokens += piece;
        count -= piece;
    }
}

uint32_t qt_line_run_as(struct qt_env *env, struct qt_line *line,
                        const struct quire_seq_config *config)
{
    uint32_t hit = qt_line_open(env, line, config);
    qt_line_feed(env, line, config->tokens + hit, config->num_tokens - hit);
    return hit;
}

uint32_t qt_line_run(struct qt_env *env, struct qt_line *line, const uint32_t *tokens,
                     uint32_t count)
{
    struct quire_seq_config config = qt_prefix(tokens, count);
    return qt_line_run_as(env, line, &config);
}

void qt_line_fork(struct qt_env *env, struct qt_line *line, uint32_t len, struct qt_line *fork)
{
    qt_line_alloc(env, fork);
    qt_assert_ok(quire_seq_fork(env->pool, line->stream.seq, len, &fork->stream.seq, NULL));
    fork->salt = line->salt;
    fork->adapter = line->adapter;
    memcpy(fork->tokens, line->tokens, len * sizeof *fork->tokens);
    memcpy(fork->stream.salts, line->stream.salts, len * sizeof *fork->stream.salts);
    fork->stream.len = len;
}

void qt_line_truncate(struct qt_env *env, struct qt_line *line, uint32_t len)
{
    qt_assert_ok(quire_seq_truncate(env->pool, line->stream.seq, len, NULL));
    line->stream.len = len;
}

void qt_line_free(struct qt_line *line)
{
    qt_free(line->tokens);
    line->tokens = NULL;
    qt_stream_free(&line->stream);
}

void qt_line_close(struct qt_env *env, struct qt_line *line)
{
    qt_assert_ok(quire_seq_destroy(env->pool, line->stream.seq));
    qt_line_free(line);
}

void qt_line_cache(struct qt_env *env, const uint32_t *tokens, uint32_t count)
{
    struct qt_line line;
    (void)qt_line_run(env, &line, tokens, count);
    qt_line_close(env, &line);
}

static void check_rows(struct qt_env *env, const struct qt_line *line,
                       const struct quire_rows *rows)
{
    size_t k_bytes = qt_row_bytes(env, rows->layer, QT_K);
    size_t v_bytes = qt_row_bytes(env, rows->layer, QT_V);
    uint8_t *k = qt_alloc(k_bytes * rows->count), *v = qt_alloc(v_bytes * rows->count);
    uint8_t *want_k = qt_alloc(k_bytes), *want_v = qt_alloc(v_bytes);
    qt_assert_ok(quire_seq_read(env->pool, line->stream.seq, rows, k, v));
    for (uint32_t i = 0; i < rows->count; i++) {
        uint64_t salt = line->stream.salts[rows->first + i];
        qt_stored_row(env, salt, rows->layer, QT_K, want_k);
        qt_stored_row(env, salt, rows->layer, QT_V, want_v);
        if (memcmp(k + i * k_bytes, want_k, k_bytes) != 0 ||
            memcmp(v + i * v_bytes, want_v, v_bytes) != 0)
            fail_msg("layer %u, position %u of %u: other bytes than its tokens mean", rows->layer,
                     rows->first + i, line->stream.len);
    }
    qt_free(k);
    qt_free(v);
    qt_free(want_k);
    qt_free(want_v);
}

static void check_tokens(struct qt_env *env, const struct qt_line *line)
{
    uint32_t count = 0, len = line->stream.len;
    uint32_t *tokens = qt_alloc(env->config.max_seq_len * sizeof *tokens);
    qt_assert_ok(
        quire_seq_tokens(env->pool, line->stream.seq, tokens, env->config.max_seq_len, &count));
    assert_int_equal(count, len);
    assert_int_equal(memcmp(tokens, line->tokens, len * sizeof *tokens), 0);
    qt_free(tokens);
}

void qt_line_check(struct qt_env *env, const struct qt_line *line)
{
    uint32_t len = 0;
    qt_assert_ok(quire_seq_length(env->pool, line->stream.seq, &len));
    assert_int_equal(len, line->stream.len);
    check_tokens(env, line);
    for (uint32_t layer = 0; env->has_kv && layer < env->geometry->num_layers; layer++) {
        const struct quire_group_config *group = qt_group_of(env->geometry, layer);
        uint32_t first = group->window > 0 && len + 1 > group->window ? len + 1 - group->window : 0;
        uint32_t sinks = group->sink_positions < first ? group->sink_positions : first;
        struct quire_rows last = {layer, first, len - first}, head = {layer, 0, sinks};
        if (last.count > 0)
            check_rows(env, line, &last);
        if (head.count > 0)
            check_rows(env, line, &head);
    }
}

/* ---- what is cached ---- */

uint32_t qt_cached_as(struct qt_env *env, const struct quire_seq_config *config)
{
    uint32_t found = UINT32_MAX, count = config->num_tokens;
    struct quire_seq_config longer = *config;
    uint32_t *tokens = qt_alloc((count + 1) * sizeof *tokens);
    memcpy(tokens, config->tokens, count * sizeof *tokens);
    tokens[count] = QT_TOKEN_NEVER;
    longer.tokens = tokens;
    longer.num_tokens = count + 1;
    qt_assert_ok(quire_pool_lookup(env->pool, &longer, &found));
    qt_free(tokens);
    return found;
}

uint32_t qt_cached(struct qt_env *env, const uint32_t *tokens, uint32_t count)
{
    struct quire_seq_config config = qt_prefix(tokens, count);
    return qt_cached_as(env, &config);
}

uint32_t qt_found(struct qt_env *env, const uint32_t *tokens, uint32_t count)
{
    struct quire_seq_config config = qt_prefix(tokens, count);
    uint32_t found = UINT32_MAX;
    qt_assert_ok(quire_pool_lookup(env->pool, &config, &found));
    return found;
}

void qt_evict(struct qt_env *env, uint32_t count)
{
    struct quire_pool_stats before, after;
    struct quire_step_item item = {{0}, 0, NULL};
    quire_step step;
    qt_stats(env, &before);
    uint32_t groups = env->geometry->num_groups;
    uint32_t blocks = ((uint32_t)before.blocks_free + count + groups - 1) / groups;
    item.n_new = blocks * env->config.block_size;
    assert_true(item.n_new <= env->config.max_step_tokens);
    qt_assert_ok(quire_seq_create(env->pool, NULL, &item.seq));
    qt_assert_ok(quire_step_begin(env->pool, &item, 1, &step, NULL));
    qt_assert_ok(quire_step_abort(env->pool, step));
    qt_assert_ok(quire_seq_destroy(env->pool, item.seq));
    qt_stats(env, &after);
    assert_int_equal(after.blocks_evicted - before.blocks_evicted,
                     blocks * groups - before.blocks_free);
    assert_int_equal(after.blocks_owned, before.blocks_owned);
}

/* ---- blocks, events and figures ---- */

uint32_t qt_blocks(struct qt_env *env, const struct qt_line *line, uint32_t group,
                   const uint32_t **blocks)
{
    struct quire_kv_cache cache;
    qt_assert_ok(quire_seq_kv_cache(env->pool, line->stream.seq,
                                    env->geometry->groups[group].layers[0], &cache));
    *blocks = cache.paged_block_indices;
    return cache.paged_block_count;
}

uint32_t qt_blocks_held(struct qt_env *env, const struct qt_line *line, uint32_t group)
{
    const uint32_t *blocks;
    uint32_t held = 0, count = qt_blocks(env, line, group, &blocks);
    for (uint32_t i = 0; i < count; i++)
        held += blocks[i] != QUIRE_BLOCK_NONE;
    return held;
}

uint32_t qt_drain(struct qt_env *env, struct quire_event *events, uint32_t max_events)
{
    uint32_t count = 0;
    uint64_t lost = UINT64_MAX;
    qt_assert_ok(quire_pool_events(env->pool, events, max_events, &count, &lost));
    assert_int_equal(lost, 0);
    return count;
}

uint32_t qt_count(const struct quire_event *events, uint32_t count, uint32_t kind)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++)
        found += events[i].kind == kind;
    return found;
}

void qt_seq_stats(struct qt_env *env, const struct qt_line *line, struct quire_seq_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    stats->struct_size = sizeof *stats;
    qt_assert_ok(quire_seq_stats(env->pool, line->stream.seq, stats));
}

void qt_assert_states(struct qt_env *env, uint64_t num_free, uint64_t owned, uint64_t cached)
{
    struct quire_pool_stats stats;
    qt_stats(env, &stats);
    if (stats.blocks_free != num_free || stats.blocks_owned != owned ||
        stats.blocks_cached != cached)
        fail_msg("%u free, %u owned, %u cached; not %u, %u, %u", (unsigned)stats.blocks_free,
                 (unsigned)stats.blocks_owned, (unsigned)stats.blocks_cached, (unsigned)num_free,
                 (unsigned)owned, (unsigned)cached);
    assert_int_equal(num_free + owned + cached, stats.blocks_total);
    qt_assert_pool_ok(env);
}
