/* test_view.c - quire_step_view: the batch in CSR form, for engines with their own kernels.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/attention_oracle.h"

#include <string.h>

/* An allocator of ids of the test's own: what each sequence owns in each group, in order. It learns
 * new blocks from kv_indices and knows what must be gone. */
struct model {
    uint32_t num_groups;
    uint32_t blocks[8][QT_GROUPS_MAX][64];
    uint32_t count[8];
};

static uint32_t blocks_of(uint32_t len, uint32_t size)
{
    return (len + size - 1) / size;
}

/* Blocks that a sequence had before are where they were; new ones belong to nobody else. */
static void learn(struct model *model, uint32_t index, uint32_t group, const uint32_t *indices,
                  uint32_t count, uint32_t known)
{
    for (uint32_t i = 0; i < count; i++) {
        if (i < known) {
            assert_int_equal(indices[i], model->blocks[index][group][i]);
            continue;
        }
        for (uint32_t s = 0; s < 8; s++) {
            for (uint32_t g = 0; g < model->num_groups; g++) {
                uint32_t owned = s == index && g == group ? i : model->count[s];
                for (uint32_t b = 0; b < owned; b++)
                    assert_int_not_equal(indices[i], model->blocks[s][g][b]);
            }
        }
        model->blocks[index][group][i] = indices[i];
    }
}

static void check_group(struct qt_env *env, const struct qt_batch *batch, struct model *model,
                        uint32_t group)
{
    uint32_t size = env->config.block_size, row = 0, entry = 0;
    struct quire_step_view view = {.struct_size = sizeof view};
    qt_assert_ok(quire_step_view(env->pool, batch->step, group, &view));
    assert_int_equal(view.num_items, batch->num_items);
    assert_int_equal(view.num_tokens, batch->num_tokens);
    assert_int_equal(view.num_copies, 0);
    for (uint32_t i = 0; i < batch->num_items; i++) {
        const struct qt_stream *stream = batch->streams[i];
        uint32_t index = (uint32_t)stream->key, end = stream->len + batch->items[i].n_new;
        uint32_t count = blocks_of(end, size);
        assert_int_equal(view.qo_indptr[i], row);
        assert_int_equal(view.kv_indptr[i], entry);
        assert_int_equal(view.last_page_len[i], end - (count - 1) * size);
        learn(model, index, group, view.kv_indices + entry, count, blocks_of(stream->len, size));
        for (uint32_t t = stream->len; t < end; t++, row++)
            assert_int_equal(view.slot_mapping[row],
                             (uint64_t)model->blocks[index][group][t / size] * size + t % size);
        entry += count;
    }
    assert_int_equal(view.qo_indptr[batch->num_items], row);
    assert_int_equal(view.kv_indptr[batch->num_items], entry);
}

static void random_step(struct qt_env *env, struct qt_stream *streams, struct model *model,
                        struct qt_random *random)
{
    struct qt_batch batch = {0};
    uint32_t keep[8];
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t room = env->config.max_seq_len - streams[i].len;
        if (room > 0 && qt_chance(random, 50))
            qt_batch_add(&batch, &streams[i], 1 + qt_below(random, room < 6 ? room : 6), NULL);
    }
    if (batch.num_items == 0)
        return;
    qt_assert_ok(qt_batch_begin(env, &batch));
    for (uint32_t group = env->geometry->num_groups; group-- > 0;)
        check_group(env, &batch, model, group);
    for (uint32_t i = 0; i < batch.num_items; i++)
        keep[i] = qt_below(random, batch.items[i].n_new + 1);
    if (qt_chance(random, 30))
        qt_assert_ok(qt_batch_abort(env, &batch));
    else
        qt_assert_ok(qt_batch_commit(env, &batch, qt_chance(random, 50) ? keep : NULL));
    for (uint32_t i = 0; i < 8; i++)
        model->count[i] = blocks_of(streams[i].len, env->config.block_size);
}

static void test_csr_arrays_match_a_model(void **state)
{
    static const uint32_t sizes[] = {1, 3, 4, 64};
    for (size_t s = 0; s < QT_LEN(sizes); s++) {
        struct quire_pool_config config;
        struct qt_env env;
        struct qt_stream streams[8];
        struct model *model = qt_alloc(sizeof *model);
        struct qt_random random = {s};
        model->num_groups = qt_groups.num_groups;
        qt_config(&config, *state, &qt_groups);
        config.block_size = sizes[s];
        config.num_blocks = 8 * 3 * 64;
        qt_open_config(&env, *state, &qt_groups, &config);
        for (uint32_t i = 0; i < 8; i++)
            qt_stream_open(&env, &streams[i], i);
        for (uint32_t round = 0; round < 60; round++) {
            random_step(&env, streams, model, &random);
            uint32_t i = qt_below(&random, 8);
            if (qt_chance(&random, 20)) {
                qt_stream_truncate(&env, &streams[i], qt_below(&random, streams[i].len + 1));
                model->count[i] = blocks_of(streams[i].len, sizes[s]);
            }
            qt_assert_pool_ok(&env);
        }
        for (uint32_t i = 0; i < 8; i++)
            qt_stream_close(&env, &streams[i]);
        qt_free(model);
        qt_close(&env);
    }
}

/* Rows put where slot_mapping says, past the cache, are those that quire_seq_read returns. */
static void test_slot_mapping_is_where_rows_are_read(void **state)
{
    struct qt_env env;
    struct qt_stream stream, other;
    struct qt_batch batch = {0};
    struct quire_kv_cache cache;
    struct quire_step_view view = {.struct_size = sizeof view};
    qt_open(&env, *state, &qt_groups);
    qt_stream_open(&env, &stream, 1);
    qt_stream_open(&env, &other, 2);
    qt_append(&env, &stream, 5);
    qt_append(&env, &other, 9);
    qt_batch_add(&batch, &other, 3, NULL);
    qt_batch_add(&batch, &stream, 14, NULL);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    for (uint32_t layer = 0; layer < 5; layer++) {
        const struct quire_group_config *group = qt_group_of(&qt_groups, layer);
        qt_assert_ok(quire_seq_kv_cache(env.pool, stream.seq, layer, &cache));
        qt_assert_ok(
            quire_step_view(env.pool, batch.step, (uint32_t)(group - qt_groups.groups), &view));
        for (uint32_t row = 0; row < 17; row++) {
            uint64_t salt = row < 3 ? other.salts[9 + row] : stream.salts[5 + row - 3];
            uint64_t block = view.slot_mapping[row] / 4, r = view.slot_mapping[row] % 4;
            for (int plane = QT_K; plane <= QT_V; plane++) {
                const struct quire_view *at = plane == QT_K ? &cache.k : &cache.v;
                uint64_t stride = plane == QT_K ? cache.block_stride_k : cache.block_stride_v;
                uint64_t size = quire_dtype_bytes(at->dtype), dim = at->shape[2];
                uint8_t bytes[512];
                qt_stored_row(&env, salt, layer, (enum qt_plane)plane, bytes);
                for (uint64_t head = 0; head < at->shape[0]; head++) {
                    uint64_t element = block * stride + (head * 4 + r) * dim;
                    struct quire_upload upload = {at->offset + element * size, dim * size,
                                                  bytes + head * dim * size};
                    qt_assert_ok(env.backend->memory->upload(env.backend, at->buffer, &upload, 1));
                }
            }
        }
    }
    qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
    qt_stream_check(&env, &stream);
    qt_stream_check(&env, &other);
    qt_stream_close(&env, &stream);
    qt_stream_close(&env, &other);
    qt_close(&env);
}

/* After quire_step_view the engine writes K and V itself, in some layers or in all: commit and
 * attend take its word for it. */
static void test_an_engine_may_write_some_layers_itself(void **state)
{
    const struct qt_attend how = {0};
    struct qt_env env;
    struct qt_stream stream;
    struct quire_step_view view = {.struct_size = sizeof view};
    uint8_t k[5 * 64], v[5 * 64];
    qt_open(&env, *state, &qt_plain);
    qt_stream_open(&env, &stream, 1);
    for (uint32_t round = 0; round < 3; round++) {
        struct qt_batch batch = {0};
        struct quire_rows rows = {0, stream.len, 5};
        qt_batch_add(&batch, &stream, 5, NULL);
        qt_assert_ok(qt_batch_begin(&env, &batch));
        qt_assert_ok(qt_batch_write(&env, &batch, 1));
        qt_assert_status(qt_batch_attend(&env, &batch, 0, &how), QUIRE_E_INVAL);
        qt_assert_status(qt_batch_commit(&env, &batch, NULL), QUIRE_E_INVAL);
        qt_assert_ok(quire_step_view(env.pool, batch.step, 0, &view));
        for (uint32_t t = 0; t < 5; t++) {
            uint64_t salt = stream.salts[stream.len + t];
            qt_stored_row(&env, salt, 0, QT_K, k + t * qt_row_bytes(&env, 0, QT_K));
            qt_stored_row(&env, salt, 0, QT_V, v + t * qt_row_bytes(&env, 0, QT_V));
        }
        qt_assert_ok(quire_seq_write(env.pool, stream.seq, &rows, k, v));
        qt_assert_ok(qt_batch_attend(&env, &batch, 0, &how));
        qt_oracle_check(&env, &batch, 0, &how);
        qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
        qt_stream_check(&env, &stream);
    }
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

static void test_view_refuses(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    struct qt_batch batch = {0};
    struct quire_step_view view = {.struct_size = sizeof view};
    qt_open(&env, *state, &qt_groups);
    bool paged = env.config.layout == QUIRE_LAYOUT_PAGED;
    qt_stream_open(&env, &stream, 1);
    qt_batch_add(&batch, &stream, 3, NULL);
    qt_assert_ok(qt_batch_begin(&env, &batch));
    qt_assert_status(quire_step_view(env.pool, batch.step, 0, &view),
                     paged ? QUIRE_OK : QUIRE_E_UNSUPPORTED);
    qt_assert_status(quire_step_view(env.pool, batch.step, 3, &view), QUIRE_E_INVAL);
    qt_assert_status(quire_step_view(env.pool, batch.step, 0, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_step_view(NULL, batch.step, 0, &view), QUIRE_E_INVAL);
    view.struct_size = 1;
    qt_assert_status(quire_step_view(env.pool, batch.step, 0, &view), QUIRE_E_INVAL);
    view.struct_size = sizeof view;
    qt_assert_ok(qt_batch_abort(&env, &batch));
    qt_assert_status(quire_step_view(env.pool, batch.step, 0, &view), QUIRE_E_INVAL);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_csr_arrays_match_a_model, QT_ON_CPU | QT_ON_OPAQUE | QT_ON_NONE | QT_PAGED),
        QT_TEST(test_slot_mapping_is_where_rows_are_read, QT_ON_CPU | QT_ON_OPAQUE | QT_PAGED),
        QT_TEST(test_an_engine_may_write_some_layers_itself, QT_ON_CPU | QT_ON_OPAQUE | QT_PAGED),
        QT_TEST(test_view_refuses, QT_ALL),
    };
    return qt_run("view", tests, QT_LEN(tests));
}
