/* test_attend.c - what attention reads.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Against an oracle in double precision; and bit for bit between layouts, block sizes, ways to cut
 * the input into steps, and threads. */
#include "support/attention_oracle.h"

#include <string.h>

enum { NUM_STREAMS = 4 };

/* ---- against the oracle ---- */

/* A random batch over some of the streams; false when none fits any more. */
static bool random_batch(struct qt_env *env, struct qt_stream *streams, struct qt_random *random,
                         struct qt_batch *batch)
{
    memset(batch, 0, sizeof *batch);
    uint32_t first = qt_below(random, NUM_STREAMS);
    for (uint32_t i = 0; i < NUM_STREAMS; i++) {
        struct qt_stream *stream = &streams[(first + i) % NUM_STREAMS];
        uint32_t room = env->config.max_seq_len - stream->len;
        uint32_t rows = env->config.max_step_tokens - batch->num_tokens;
        uint32_t most = room < rows ? room : rows;
        if (most > 0 && (batch->num_items == 0 || qt_chance(random, 70)))
            qt_batch_add(batch, stream, qt_chance(random, 40) ? 1 : 1 + qt_below(random, most),
                         NULL);
    }
    return batch->num_items > 0;
}

static void run_ragged(struct qt_env *env, uint32_t rounds, uint64_t seed)
{
    struct qt_random random = {seed};
    struct qt_stream streams[NUM_STREAMS];
    struct qt_batch batch;
    for (uint32_t i = 0; i < NUM_STREAMS; i++)
        qt_stream_open(env, &streams[i], i);
    for (uint32_t round = 0; round < rounds && random_batch(env, streams, &random, &batch);
         round++) {
        struct qt_attend how = {.scale = qt_chance(&random, 30) ? 0.4f : 0,
                                .softcap = qt_chance(&random, 30) ? 1.5f : 0,
                                .alibi = qt_chance(&random, 30),
                                .sink_logits = qt_chance(&random, 30),
                                .lse = qt_chance(&random, 60)};
        qt_assert_ok(qt_batch_begin(env, &batch));
        for (uint32_t layer = 0; layer < env->geometry->num_layers; layer++) {
            qt_assert_ok(qt_batch_write(env, &batch, layer));
            qt_assert_ok(qt_batch_attend(env, &batch, layer, &how));
            qt_oracle_check(env, &batch, layer, &how);
        }
        qt_assert_ok(qt_batch_commit(env, &batch, NULL));
    }
    for (uint32_t i = 0; i < NUM_STREAMS; i++) {
        qt_stream_check(env, &streams[i]);
        qt_stream_close(env, &streams[i]);
    }
}

static void test_ragged_batches_match_the_oracle(void **state)
{
    static const struct qt_geometry *const geometries[] = {&qt_plain, &qt_groups};
    for (size_t i = 0; i < QT_LEN(geometries); i++) {
        struct qt_env env;
        qt_open(&env, *state, geometries[i]);
        run_ragged(&env, 8, 11 + i);
        qt_close(&env);
    }
}

static void test_every_block_size_matches_the_oracle(void **state)
{
    static const uint32_t sizes[] = {1, 3, 16, 63, 64, 100};
    for (size_t i = 0; i < QT_LEN(sizes); i++) {
        struct quire_pool_config config;
        struct qt_env env;
        qt_config(&config, *state, &qt_groups);
        config.block_size = sizes[i];
        config.num_blocks = 3 * NUM_STREAMS * (64 / sizes[i] + 1);
        qt_open_config(&env, *state, &qt_groups, &config);
        run_ragged(&env, 5, 100 + i);
        qt_close(&env);
    }
}

/* Rows of a step that was cut short, cut off or aborted are seen by nobody afterwards. */
static void test_attention_ignores_what_was_taken_back(void **state)
{
    const struct qt_attend how = {.lse = true};
    struct qt_random random = {3};
    struct qt_env env;
    struct qt_stream stream;
    qt_open(&env, *state, &qt_groups);
    qt_stream_open(&env, &stream, 9);
    for (uint32_t round = 0; round < 12; round++) {
        struct qt_batch batch = {0};
        uint32_t n_new = 1 + qt_below(&random, 9), keep = qt_below(&random, n_new + 1);
        qt_batch_add(&batch, &stream, n_new, NULL);
        qt_assert_ok(qt_batch_begin(&env, &batch));
        for (uint32_t layer = 0; layer < env.geometry->num_layers; layer++) {
            qt_assert_ok(qt_batch_write(&env, &batch, layer));
            qt_assert_ok(qt_batch_attend(&env, &batch, layer, &how));
            qt_oracle_check(&env, &batch, layer, &how);
        }
        if (round % 3 == 0)
            qt_assert_ok(qt_batch_abort(&env, &batch));
        else
            qt_assert_ok(qt_batch_commit(&env, &batch, &keep));
        if (round % 4 == 3)
            qt_stream_truncate(&env, &stream, qt_below(&random, stream.len + 1));
    }
    qt_stream_check(&env, &stream);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* ---- bit for bit ---- */

static const uint32_t lengths[NUM_STREAMS] = {40, 16, 29, 1};

enum way { WHOLE, TOKEN_BY_TOKEN, PIECES, TOGETHER };

struct run {
    const char *backend;
    uint32_t layout, block_size, num_threads;
    enum way way;
    const char *level; /* NULL: the machine's best */
};

/* The attention outputs of every layer, stream and position. */
struct outputs {
    float *values;
    size_t per_position, count;
    size_t layer_offset[QT_LAYERS_MAX];
};

static void outputs_init(struct outputs *outputs, const struct qt_geometry *geometry)
{
    memset(outputs, 0, sizeof *outputs);
    for (uint32_t layer = 0; layer < geometry->num_layers; layer++) {
        const struct quire_group_config *group = qt_group_of(geometry, layer);
        outputs->layer_offset[layer] = outputs->per_position;
        outputs->per_position += (size_t)group->num_heads * (qt_head_dim_v(group) + 1u);
    }
    for (uint32_t i = 0; i < NUM_STREAMS; i++)
        outputs->count += lengths[i] * outputs->per_position;
    outputs->values = qt_alloc(outputs->count * sizeof(float));
}

static void keep_outputs(const struct qt_env *env, const struct qt_batch *batch, uint32_t layer,
                         struct outputs *outputs)
{
    const struct quire_group_config *group = qt_group_of(env->geometry, layer);
    size_t heads = group->num_heads, count = heads * qt_head_dim_v(group), row = 0;
    for (uint32_t i = 0; i < batch->num_items; i++) {
        const struct qt_stream *stream = batch->streams[i];
        size_t first = 0;
        for (uint64_t s = 0; s < stream->key; s++)
            first += lengths[s];
        for (uint32_t j = 0; j < batch->items[i].n_new; j++, row++) {
            float *to = outputs->values + (first + stream->len + j) * outputs->per_position +
                        outputs->layer_offset[layer];
            memcpy(to, env->host_out + row * count, count * sizeof *to);
            memcpy(to + count, env->host_lse + row * heads, heads * sizeof *to);
        }
    }
}

static uint32_t piece(enum way way, struct qt_random *random, uint32_t left)
{
    uint32_t most = left < 12 ? left : 12;
    if (left == 0)
        return 0;
    return way == WHOLE ? left : way == TOKEN_BY_TOKEN ? 1 : 1 + qt_below(random, most);
}

static void run_batch(struct qt_env *env, struct qt_batch *batch, struct outputs *outputs)
{
    const struct qt_attend how = {.lse = true};
    qt_assert_ok(qt_batch_begin(env, batch));
    for (uint32_t layer = 0; layer < env->geometry->num_layers; layer++) {
        qt_assert_ok(qt_batch_write(env, batch, layer));
        qt_assert_ok(qt_batch_attend(env, batch, layer, &how));
        keep_outputs(env, batch, layer, outputs);
    }
    qt_assert_ok(qt_batch_commit(env, batch, NULL));
    for (uint32_t i = 0; i < batch->num_items; i++)
        batch->streams[i]->epoch = 0; /* the same content in every run */
}

/* Feeds every stream to its length, alone or TOGETHER with the others in each step. */
static void feed(struct qt_env *env, struct qt_stream *streams, enum way way,
                 struct outputs *outputs)
{
    struct qt_random random = {(uint64_t)way + env->config.block_size};
    for (bool more = true; more;) {
        struct qt_batch batch = {0};
        more = false;
        for (uint32_t i = 0; i < NUM_STREAMS; i++) {
            uint32_t n_new = piece(way, &random, lengths[i] - streams[i].len);
            if (n_new == 0)
                continue;
            more = true;
            qt_batch_add(&batch, &streams[i], n_new, NULL);
            if (way != TOGETHER) {
                run_batch(env, &batch, outputs);
                memset(&batch, 0, sizeof batch);
            }
        }
        if (batch.num_items > 0)
            run_batch(env, &batch, outputs);
    }
}

static void run_once(const struct run *run, const struct qt_variant *variant,
                     struct outputs *outputs)
{
    struct qt_variant own = *variant;
    struct quire_pool_config config;
    struct qt_env env;
    struct qt_stream streams[NUM_STREAMS];
    own.backend = run->backend;
    own.layout = run->layout;
    qt_config(&config, &own, &qt_groups);
    config.block_size = run->block_size;
    config.num_blocks = 1000;
    if (run->num_threads != 0) {
        struct quire_backend_config threads;
        quire_backend_config_init(&threads);
        threads.num_threads = run->num_threads;
        threads.cpu_level = run->level;
        qt_assert_ok(quire_backend_create(run->backend, &threads, &config.backend, NULL));
    }
    qt_open_config(&env, &own, &qt_groups, &config);
    for (uint32_t i = 0; i < NUM_STREAMS; i++)
        qt_stream_open(&env, &streams[i], i);
    outputs_init(outputs, env.geometry);
    feed(&env, streams, run->way, outputs);
    for (uint32_t i = 0; i < NUM_STREAMS; i++)
        qt_stream_close(&env, &streams[i]);
    qt_close(&env);
}

/* Every run gives the bits of the first. */
static void assert_same(const struct qt_variant *variant, const struct run *runs, size_t num_runs)
{
    struct outputs first, other;
    run_once(&runs[0], variant, &first);
    for (size_t i = 1; i < num_runs; i++) {
        run_once(&runs[i], variant, &other);
        if (memcmp(first.values, other.values, first.count * sizeof(float)) != 0)
            fail_msg("run %zu gives other bits than run 0", i);
        qt_free(other.values);
    }
    qt_free(first.values);
}

static void test_attention_is_the_same_bit_for_bit(void **state)
{
    static const struct run runs[] = {
        {"cpu", QUIRE_LAYOUT_PAGED, 4, 1, WHOLE, NULL},
        {"cpu", QUIRE_LAYOUT_PAGED, 4, 1, TOKEN_BY_TOKEN, NULL},
        {"cpu", QUIRE_LAYOUT_PAGED, 1, 1, PIECES, NULL},
        {"cpu", QUIRE_LAYOUT_PAGED, 3, 2, TOGETHER, NULL},
        {"cpu", QUIRE_LAYOUT_PAGED, 7, 3, TOGETHER, NULL},
        {"cpu", QUIRE_LAYOUT_PAGED, 16, 2, PIECES, NULL},
        {"cpu", QUIRE_LAYOUT_PAGED, 64, 4, WHOLE, NULL},
        {"cpu", QUIRE_LAYOUT_CONTIGUOUS, 16, 1, WHOLE, NULL},
        {"cpu", QUIRE_LAYOUT_CONTIGUOUS, 3, 2, TOGETHER, NULL},
        {"cpu", QUIRE_LAYOUT_CONTIGUOUS, 16, 3, TOKEN_BY_TOKEN, NULL},
        {"opaque", QUIRE_LAYOUT_PAGED, 5, 0, TOGETHER, NULL},
        {"opaque", QUIRE_LAYOUT_CONTIGUOUS, 5, 0, PIECES, NULL},
    };
    assert_same(*state, runs, QT_LEN(runs));
}

static void test_every_cpu_level_keeps_its_own_bits(void **state)
{
    static const char *const levels[] = {"ref", "generic", "avx2", "avx512", "avx512bf16", "amx"};
    for (size_t i = 0; i < QT_LEN(levels); i++) {
        const struct run runs[] = {
            {"cpu", QUIRE_LAYOUT_PAGED, 16, 2, WHOLE, levels[i]},
            {"cpu", QUIRE_LAYOUT_PAGED, 3, 1, TOKEN_BY_TOKEN, levels[i]},
            {"cpu", QUIRE_LAYOUT_CONTIGUOUS, 16, 3, TOGETHER, levels[i]},
        };
        assert_same(*state, runs, QT_LEN(runs));
    }
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_ragged_batches_match_the_oracle, QT_KV | QT_DTYPES | QT_QUANTISED),
        QT_TEST(test_every_block_size_matches_the_oracle, QT_KV),
        QT_TEST(test_attention_ignores_what_was_taken_back, QT_KV),
        QT_TEST(test_attention_is_the_same_bit_for_bit,
                QT_ON_CPU | QT_PAGED | QT_DTYPES | QT_QUANTISED),
        QT_TEST(test_every_cpu_level_keeps_its_own_bits,
                QT_ON_CPU | QT_PAGED | QT_DTYPES | QT_QUANTISED),
    };
    return qt_run("attend", tests, QT_LEN(tests));
}
