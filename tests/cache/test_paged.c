/* test_paged.c - the kernels over a caller's own pages give the bits that a pool gives.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each test feeds the same sequences to a pool and to pages of its own, in other places and of
 * another size, and compares every output with memcmp. */
#include "support/attention_oracle.h"
#include "support/paged_fixture.h"

#include "base/base.h"

#include <string.h>

enum { NUM_STREAMS = 5, ROUNDS = 7 };

/* A pool, pages of the test's own, and streams that are in both: stream s is sequence s. */
struct both {
    struct qt_geometry geometry;
    struct qt_env env;
    struct pg_pages pages;
    struct qt_random random;
    struct qt_stream streams[PG_SEQS];
    uint32_t num_streams;
    bool no_cascade;
};

/* ---- random geometries ---- */

static void draw_geometry(struct both *both, bool quantised)
{
    static const uint32_t layer_of[] = {0, 1, 2};
    struct qt_random *random = &both->random;
    bool windows = qt_chance(random, 40); /* in every layer */
    both->geometry = (struct qt_geometry){"random", 3, 3, {{0}}};
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t kv_heads = 1 + qt_below(random, 3), unit = quantised ? 16 : 1;
        both->geometry.groups[i] = (struct quire_group_config){
            .layers = &layer_of[i],
            .num_layers = 1,
            .num_heads = kv_heads * (1 + qt_below(random, 3)),
            .num_kv_heads = kv_heads,
            .head_dim = unit * (1 + qt_below(random, quantised ? 5 : 80)),
            .head_dim_v = qt_chance(random, 50) ? unit * (1 + qt_below(random, 4)) : 0,
            .window = windows || qt_chance(random, 30) ? 1 + qt_below(random, 12) : 0,
            .sink_positions = qt_chance(random, 40) ? 1 + qt_below(random, 6) : 0,
        };
    }
}

static void both_open(struct both *both, const struct qt_variant *variant, uint32_t page_size,
                      enum pg_memory memory, uint32_t max_seq_len)
{
    struct quire_pool_config config;
    qt_config(&config, variant, &both->geometry);
    config.max_seq_len = max_seq_len;
    config.block_size = 1 + qt_below(&both->random, 20);
    config.num_blocks = 3 * PG_SEQS * (max_seq_len / config.block_size + 2);
    config.kv_rotation = qt_below(&both->random, 3);
    config.rollback_max = max_seq_len;
    if (both->no_cascade) {
        struct quire_backend_config own;
        quire_backend_config_init(&own);
        own.no_cascade = 1;
        qt_assert_ok(quire_backend_create("cpu", &own, &config.backend, NULL));
    }
    qt_open_config(&both->env, variant, &both->geometry, &config);
    pg_open(&both->pages, &both->env, page_size, memory, both->random.state);
    for (uint32_t s = 0; s < both->num_streams; s++)
        qt_stream_open(&both->env, &both->streams[s], s);
}

static void both_close(struct both *both)
{
    for (uint32_t s = 0; s < both->num_streams; s++)
        qt_stream_close(&both->env, &both->streams[s]);
    pg_close(&both->pages);
    qt_close(&both->env);
}

/* ---- steps in both ---- */

/* Pages that no layer shows the new tokens of a sequence become none. */
static void hide_pages(const struct both *both, struct pg_batch *batch, uint32_t i, uint32_t query)
{
    uint64_t size = both->pages.config.page_size;
    for (uint32_t p = 0; p < batch->kv_indptr[i + 1] - batch->kv_indptr[i]; p++) {
        bool hidden = true;
        for (uint32_t g = 0; g < both->geometry.num_groups; g++) {
            const struct quire_group_config *group = &both->geometry.groups[g];
            hidden = hidden && group->window != 0 && p * size >= group->sink_positions &&
                     (p + 1) * size + group->window <= (uint64_t)query + 1;
        }
        if (hidden)
            batch->kv_indices[batch->kv_indptr[i] + p] = QUIRE_BLOCK_NONE;
    }
}

static void compare(const struct both *both, const struct qt_batch *batch, uint32_t layer,
                    const struct qt_attend *how)
{
    const struct quire_group_config *group = qt_group_of(both->env.geometry, layer);
    size_t heads = (size_t)batch->num_tokens * group->num_heads * sizeof(float);
    if (memcmp(both->env.host_out, both->pages.host_out, heads * qt_head_dim_v(group)) != 0)
        fail_msg("layer %u of %u rows: other bits than the pool's", layer, batch->num_tokens);
    if (how->lse && memcmp(both->env.host_lse, both->pages.host_lse, heads) != 0)
        fail_msg("layer %u of %u rows: another lse than the pool's", layer, batch->num_tokens);
}

/* Runs a batch of the pool, and its like in pages, which has been made. */
static void run_step(struct both *both, struct qt_batch *batch, struct pg_batch *own,
                     const struct qt_attend *how)
{
    struct quire_error error = {0};
    if (quire_paged_plan(both->pages.paged, &own->batch, &error) != QUIRE_OK)
        fail_msg("plan: %s", error.message);
    memset(own, 0xff, sizeof *own); /* read before the call returned */
    qt_assert_ok(qt_batch_begin(&both->env, batch));
    for (uint32_t layer = 0; layer < both->geometry.num_layers; layer++) {
        qt_assert_ok(qt_batch_write(&both->env, batch, layer));
        pg_write(&both->pages, batch, layer);
        qt_wait(&both->env);
        qt_assert_ok(qt_batch_attend(&both->env, batch, layer, how));
        pg_attend(&both->pages, batch, layer, how);
        compare(both, batch, layer, how);
        if (batch->num_tokens < 8)
            qt_oracle_check(&both->env, batch, layer, how);
    }
    qt_assert_ok(qt_batch_commit(&both->env, batch, NULL));
}

static struct qt_attend draw_params(struct qt_random *random)
{
    return (struct qt_attend){.scale = qt_chance(random, 30) ? 0.4f : 0,
                              .softcap = qt_chance(random, 30) ? 1.5f : 0,
                              .alibi = qt_chance(random, 30),
                              .sink_logits = qt_chance(random, 30),
                              .lse = qt_chance(random, 60)};
}

/* One random ragged step: prefills, decodes and sequences that stand idle. */
static void random_step(struct both *both)
{
    struct qt_random *random = &both->random;
    struct qt_attend how = draw_params(random);
    struct qt_batch batch = {0};
    struct pg_batch own;
    memset(&own, 0, sizeof own);
    uint32_t first = qt_below(random, both->num_streams);
    for (uint32_t i = 0; i < both->num_streams; i++) {
        uint32_t s = (first + i) % both->num_streams;
        struct qt_stream *stream = &both->streams[s];
        uint32_t room = both->env.config.max_seq_len - stream->len;
        uint32_t rows = both->env.config.max_step_tokens - batch.num_tokens;
        uint32_t most = room < rows ? room : rows;
        most = most < 12 ? most : 12;
        uint32_t n_new = most == 0 || qt_chance(random, 25) ? 0
                         : qt_chance(random, 40)            ? 1
                                                            : 1 + qt_below(random, most);
        if (n_new == 0 && qt_chance(random, 50))
            continue;
        pg_grow(&both->pages, s, n_new);
        pg_add(&both->pages, &own, s, n_new);
        if (qt_chance(random, 70))
            hide_pages(both, &own, own.batch.num_seqs - 1, stream->len);
        if (n_new > 0)
            qt_batch_add(&batch, stream, n_new, NULL);
    }
    if (batch.num_items > 0)
        run_step(both, &batch, &own, &how);
    else if (own.batch.num_seqs > 0)
        qt_assert_ok(quire_paged_plan(both->pages.paged, &own.batch, NULL));
}

static bool is_quantised(const struct qt_variant *variant)
{
    return variant->dtype_k >= QUIRE_Q8 || variant->dtype_v >= QUIRE_Q8;
}

static void test_random_batches_give_the_bits_of_a_pool(void **state)
{
    const struct qt_variant *variant = *state;
    for (uint32_t seed = 0; seed < 9; seed++) {
        struct both both = {.random = {seed * 77 + 5}, .num_streams = NUM_STREAMS};
        draw_geometry(&both, is_quantised(variant));
        uint32_t page_size = seed % 3 == 0 ? 16 : 2 + qt_below(&both.random, 9);
        both_open(&both, variant, page_size, (enum pg_memory)(seed % PG_COUNT), 64);
        for (uint32_t round = 0; round < ROUNDS; round++)
            random_step(&both);
        both_close(&both);
    }
}

/* ---- pages that sequences share ---- */

/* Feeds n_new positions to stream s in both; those of a copy get what its original has. */
static void feed(struct both *both, uint32_t s, uint32_t n_new)
{
    const struct qt_attend how = {.lse = true};
    uint32_t step = both->env.config.max_step_tokens;
    for (; n_new > 0; n_new -= step < n_new ? step : n_new) {
        struct qt_batch batch = {0};
        struct pg_batch own;
        memset(&own, 0, sizeof own);
        pg_grow(&both->pages, s, n_new < step ? n_new : step);
        pg_add(&both->pages, &own, s, n_new < step ? n_new : step);
        qt_batch_add(&batch, &both->streams[s], n_new < step ? n_new : step, NULL);
        run_step(both, &batch, &own, &how);
    }
}

/* Stream `to` of the pool begins as `from` does: computed again there, the same pages here. */
static void share(struct both *both, uint32_t from, uint32_t to, uint32_t len)
{
    struct qt_stream *stream = &both->streams[to];
    for (uint32_t at = 0, n; at < len; at += n) {
        struct qt_batch batch = {0};
        n = len - at < both->env.config.max_step_tokens ? len - at
                                                        : both->env.config.max_step_tokens;
        qt_batch_add(&batch, stream, n, NULL);
        memcpy(stream->salts + at, both->streams[from].salts + at, n * sizeof *stream->salts);
        qt_batch_store(&both->env, &batch);
    }
    pg_share(&both->pages, from, to, len);
}

static void check_shared_pages(const struct qt_variant *variant, bool no_cascade)
{
    static const uint32_t layer_of[] = {0, 1};
    const struct qt_attend how = {.lse = true};
    struct both both = {.random = {9}, .num_streams = 4, .no_cascade = no_cascade};
    both.geometry = (struct qt_geometry){
        "shared",
        2,
        2,
        {{&layer_of[0], 1, 4, 2, 16, 32, 0, 0}, {&layer_of[1], 1, 4, 2, 16, 0, 70, 3}}};
    both_open(&both, variant, 32, PG_EACH, 700);
    feed(&both, 0, 600);
    for (uint32_t s = 1; s < 4; s++)
        share(&both, 0, s, s < 3 ? 576 : 512);
    for (uint32_t round = 0; round < 3; round++) {
        struct qt_batch batch = {0};
        struct pg_batch own;
        memset(&own, 0, sizeof own);
        for (uint32_t s = 0; s < 4; s++) {
            pg_grow(&both.pages, s, round + 1);
            pg_add(&both.pages, &own, s, round + 1);
            qt_batch_add(&batch, &both.streams[s], round + 1, NULL);
        }
        run_step(&both, &batch, &own, &how);
    }
    both_close(&both);
}

/* Beyond a split of positions, where the kernels read what is shared once for all. */
static void test_shared_pages_give_the_bits_of_a_pool(void **state)
{
    check_shared_pages(*state, false);
}

static void test_the_cascade_changes_no_bit(void **state)
{
    check_shared_pages(*state, true);
}

/* ---- the bytes ---- */

/* Puts what sequence s holds of a plane where the header says that it lies. */
static void expect_rows(const struct both *both, uint32_t layer, enum qt_plane plane, uint32_t s,
                        uint8_t *image)
{
    const struct qt_env *env = &both->env;
    const struct quire_group_config *group = qt_group_of(env->geometry, layer);
    uint32_t dtype = plane == QT_K ? env->config.dtype_k : env->config.dtype_v;
    uint32_t dim = plane == QT_K ? group->head_dim : qt_head_dim_v(group);
    uint64_t size = both->pages.config.page_size, heads = group->num_kv_heads;
    uint64_t data = quire_kv_data_bytes(dtype, dim), scales = quire_kv_scale_bytes(dtype, dim);
    uint8_t *row = qt_alloc(qt_row_bytes(env, layer, plane)), *from = row;
    for (uint32_t t = 0; t < both->streams[s].len; t++, from = row) {
        uint8_t *page =
            image + both->pages.seqs[s].pages[t / size] * heads * size * (data + scales);
        qt_stored_row(env, both->streams[s].salts[t], layer, plane, row);
        for (uint32_t h = 0; h < heads; h++, page += size * (data + scales)) {
            memcpy(page + t % size * data, from, data);
            memcpy(page + size * data + t % size * scales, from + data, scales);
            from += data + scales;
        }
    }
    qt_free(row);
}

/* Every row lies where the header says, and nothing else was touched. */
static void test_rows_lie_where_the_header_says(void **state)
{
    struct both both = {.random = {21}, .num_streams = NUM_STREAMS};
    draw_geometry(&both, is_quantised(*state));
    both_open(&both, *state, 6, PG_EACH, 64);
    for (uint32_t round = 0; round < 4; round++)
        random_step(&both);
    for (uint32_t i = 0; i < both.pages.num_memories; i++) {
        enum qt_plane plane = i % 2 == 0 ? QT_K : QT_V;
        uint64_t bytes = (uint64_t)PG_PAGES * 6 * qt_row_bytes(&both.env, i / 2, plane);
        uint8_t *image = qt_alloc(bytes);
        memset(image, 0xff, bytes);
        for (uint32_t s = 0; s < both.num_streams; s++)
            expect_rows(&both, i / 2, plane, s, image);
        if (memcmp(image, both.pages.memory[i], bytes) != 0)
            fail_msg("plane %u holds other bytes", i);
        qt_free(image);
    }
    both_close(&both);
}

/* ---- what a pool shows ---- */

/* An engine's own kernels may be these: the arrays of quire_step_view are a batch, and the pool's
 * arena, here the test's, is the memory. */
static void test_a_view_of_a_step_is_a_batch(void **state)
{
    struct qt_env env;
    struct quire_pool_config config;
    struct qt_stream stream;
    struct quire_paged *paged = NULL;
    uint64_t block_bytes = 0, row_bytes = 0;
    qt_config(&config, *state, &qt_plain);
    qt_assert_ok(quire_pool_measure(&config, &block_bytes, &row_bytes));
    config.memory_bytes = block_bytes * config.num_blocks;
    config.memory = quire__alloc_aligned(64, config.memory_bytes);
    qt_open_config(&env, *state, &qt_plain, &config);
    qt_stream_open(&env, &stream, 1);
    struct quire_paged_layer layers[2];
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t layer = block_bytes / 2 * i; /* K and V of as many bytes each */
        layers[i] = (struct quire_paged_layer){
            4,
            2,
            8,
            0,
            0,
            0,
            QUIRE_F16,
            QUIRE_F16,
            {NULL, config.memory, config.memory_bytes, layer, block_bytes},
            {NULL, config.memory, config.memory_bytes, layer + block_bytes / 4, block_bytes}};
    }
    struct quire_paged_config own;
    quire_paged_config_init(&own);
    own.backend = env.backend, own.layers = layers, own.num_layers = 2;
    own.page_size = config.block_size, own.num_pages = config.num_blocks;
    qt_assert_ok(quire_paged_create(&own, &paged, NULL));
    for (uint32_t round = 0; round < 4; round++) {
        struct qt_batch batch = {0};
        struct quire_step_view view = {.struct_size = sizeof view};
        struct pg_pages pages = {.env = &env, .paged = paged, .out = env.out, .lse = env.lse};
        pages.host_out = qt_alloc(48 * env.out_floats * sizeof(float));
        pages.host_lse = qt_alloc(48 * env.lse_floats * sizeof(float));
        qt_batch_add(&batch, &stream, 1 + 3 * round, NULL);
        qt_assert_ok(qt_batch_begin(&env, &batch));
        qt_assert_ok(quire_step_view(env.pool, batch.step, 0, &view));
        struct quire_paged_batch csr = {sizeof csr,     view.num_items,  view.qo_indptr,
                                        view.kv_indptr, view.kv_indices, view.last_page_len};
        qt_assert_ok(quire_paged_plan(paged, &csr, NULL));
        for (uint32_t layer = 0; layer < 2; layer++) {
            qt_assert_ok(qt_batch_attend(&env, &batch, layer, &(struct qt_attend){0})); /* inputs */
            pg_write(&pages, &batch, layer);
            pg_attend(&pages, &batch, layer, &(struct qt_attend){0});
            qt_assert_ok(qt_batch_attend(&env, &batch, layer, &(struct qt_attend){0}));
            assert_memory_equal(pages.host_out, env.host_out,
                                batch.num_tokens * 4 * 8 * sizeof(float));
            qt_oracle_check(&env, &batch, layer, &(struct qt_attend){0});
        }
        qt_assert_ok(qt_batch_commit(&env, &batch, NULL));
        qt_free(pages.host_out);
        qt_free(pages.host_lse);
    }
    qt_stream_check(&env, &stream);
    qt_stream_close(&env, &stream);
    quire_paged_destroy(paged);
    qt_close(&env);
    quire__free(config.memory);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_random_batches_give_the_bits_of_a_pool,
                QT_ON_CPU | QT_ON_OPAQUE | QT_PAGED | QT_CONTIGUOUS | QT_DTYPES | QT_QUANTISED),
        QT_TEST(test_the_cascade_changes_no_bit, QT_ON_CPU | QT_PAGED | QT_QUANTISED),
        QT_TEST(test_shared_pages_give_the_bits_of_a_pool,
                QT_ON_CPU | QT_ON_OPAQUE | QT_PAGED | QT_QUANTISED),
        QT_TEST(test_rows_lie_where_the_header_says,
                QT_ON_CPU | QT_PAGED | QT_DTYPES | QT_QUANTISED),
        QT_TEST(test_a_view_of_a_step_is_a_batch, QT_ON_CPU | QT_PAGED),
    };
    return qt_run("paged", tests, QT_LEN(tests));
}
