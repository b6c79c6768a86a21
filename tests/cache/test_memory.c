/* test_memory.c - what memory a pool costs, and when it is given back.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/cache_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/backend.h"

/* ---- contiguous on the strict backend: to the byte ---- */

static void test_contiguous_commits_what_the_length_needs(void **state)
{
    struct qt_env env;
    struct qt_stream streams[2];
    struct quire_pool_stats stats;
    uint64_t block_bytes, position_bytes;
    struct qt_random random = {2};
    qt_open(&env, *state, &qt_groups);
    qt_assert_ok(quire_pool_measure(&env.config, &block_bytes, &position_bytes));
    for (uint32_t i = 0; i < 2; i++)
        qt_stream_open(&env, &streams[i], i);
    assert_int_equal(qt_opaque_committed_bytes(env.backend), 0);
    for (uint32_t round = 0; round < 40; round++) {
        struct qt_stream *stream = &streams[qt_below(&random, 2)];
        if (stream->len < 64 && qt_chance(&random, 60))
            qt_append(&env, stream, 1 + qt_below(&random, 64 - stream->len));
        else
            qt_stream_truncate(&env, stream, qt_below(&random, stream->len + 1));
        uint64_t blocks = (streams[0].len + 3) / 4 + (streams[1].len + 3) / 4;
        assert_int_equal(qt_opaque_committed_bytes(env.backend), blocks * 4 * position_bytes);
        qt_stats(&env, &stats);
        assert_int_equal(stats.bytes_used, blocks * 4 * position_bytes);
        for (uint32_t i = 0; i < 2; i++)
            qt_stream_check(&env, &streams[i]);
    }
    for (uint32_t i = 0; i < 2; i++)
        qt_stream_close(&env, &streams[i]);
    assert_int_equal(qt_opaque_committed_bytes(env.backend), 0);
    qt_close(&env);
}

/* The last block of a region may be cut by its capacity. */
static void test_contiguous_to_an_uneven_capacity(void **state)
{
    struct quire_pool_config config;
    struct qt_env env;
    struct qt_stream streams[8];
    qt_config(&config, *state, &qt_groups);
    config.max_seq_len = 30; /* seven blocks of 4 and a half */
    qt_open_config(&env, *state, &qt_groups, &config);
    for (uint32_t i = 0; i < 8; i++) {
        qt_stream_open(&env, &streams[i], i);
        qt_append(&env, &streams[i], 30);
    }
    for (uint32_t i = 0; i < 8; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_stream_truncate(&env, &streams[i], i);
    }
    for (uint32_t i = 0; i < 8; i++) {
        qt_append(&env, &streams[i], 30 - i);
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
}

static void test_contiguous_without_reserve(void **state)
{
    const struct qt_opaque_options options = {.no_reserve = true};
    struct quire_pool_config config;
    struct qt_env env;
    struct qt_stream stream;
    qt_config(&config, *state, &qt_groups);
    qt_assert_ok(qt_opaque_create(&options, &config.backend));
    qt_open_config(&env, *state, &qt_groups, &config);
    qt_stream_open(&env, &stream, 1);
    qt_append(&env, &stream, 50);
    qt_stream_truncate(&env, &stream, 7);
    qt_append(&env, &stream, 20);
    qt_stream_check(&env, &stream);
    assert_int_equal(qt_opaque_calls(env.backend, QT_CALL_COMMIT), 0);
    assert_int_equal(qt_opaque_calls(env.backend, QT_CALL_DECOMMIT), 0);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* ---- resident memory of the CPU backend ---- */

enum { LONG_LEN = 8192, LONG_SEQS = 3 };

static const uint32_t long_layers[] = {0, 1};
static const struct qt_geometry long_geometry = {
    "long",
    2,
    1,
    {{long_layers, 2, 2, 2, 64, 0, 0, 0}},
};

static void open_long(struct qt_env *env, const struct qt_variant *variant)
{
    struct quire_pool_config config;
    qt_config(&config, variant, &long_geometry);
    config.block_size = 16;
    config.max_seqs = LONG_SEQS;
    config.max_seq_len = LONG_LEN;
    config.max_step_tokens = 512;
    config.num_blocks = LONG_SEQS * LONG_LEN / 16;
    qt_open_config(env, variant, &long_geometry, &config);
}

/* Bytes of the arena that the system holds for us. One position has 1 KiB of K/V in f16. */
static uint64_t resident_bytes(struct qt_env *env, quire_seq seq)
{
    struct quire_kv_cache cache;
    uint64_t page = quire__os_page_bytes(), count = 0;
    uint64_t bytes = (uint64_t)LONG_SEQS * LONG_LEN * 1024, pages = bytes / page;
    unsigned char *present = qt_alloc(pages);
    qt_assert_ok(quire_seq_kv_cache(env->pool, seq, 0, &cache));
    assert_int_equal(
        mincore(quire__host_range(env->backend, cache.k.buffer, 0, bytes), bytes, present), 0);
    for (uint64_t i = 0; i < pages; i++)
        count += present[i] & 1u;
    qt_free(present);
    return count * page;
}

/* Each of the 8 planes (layer, K or V, head) may keep a part of a page at its end, and one more
 * where it shares a page with its neighbour. */
static void assert_resident(struct qt_env *env, quire_seq seq, uint64_t positions)
{
    uint64_t slack = 8 * 2 * quire__os_page_bytes(), bytes = resident_bytes(env, seq);
    if (bytes > positions * 1024 + slack || bytes < positions * 1024)
        fail_msg("%llu bytes resident for %llu positions of 1024 bytes", (unsigned long long)bytes,
                 (unsigned long long)positions);
}

static void test_resident_memory_follows_the_length(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    open_long(&env, *state);
    qt_stream_open(&env, &stream, 1);
    assert_int_equal(resident_bytes(&env, stream.seq), 0);
    for (uint32_t len = 512; len <= 4096; len *= 2) {
        qt_append(&env, &stream, len - stream.len);
        assert_resident(&env, stream.seq, len);
    }
    qt_stream_truncate(&env, &stream, 1024);
    assert_resident(&env, stream.seq, 1024);
    qt_stream_check(&env, &stream);
    qt_stream_truncate(&env, &stream, 0);
    assert_resident(&env, stream.seq, 0);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* Small cuts give as much back as one large cut. */
static void test_resident_memory_follows_many_small_cuts(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    open_long(&env, *state);
    qt_stream_open(&env, &stream, 1);
    qt_append(&env, &stream, 4096);
    while (stream.len > 1024)
        qt_stream_truncate(&env, &stream, stream.len - 16);
    assert_resident(&env, stream.seq, 1024);
    qt_stream_check(&env, &stream);
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* The arena of a paged pool is on huge pages where there are any, and its blocks are taken from one
 * end: it grows by 2 MiB. */
static void test_a_pool_costs_nothing_up_front(void **state)
{
    struct qt_env env;
    struct qt_stream stream;
    const struct qt_variant *variant = *state;
    uint64_t step = variant->layout == QUIRE_LAYOUT_PAGED ? 2u << 20 : 16 * quire__os_page_bytes();
    open_long(&env, variant);
    qt_stream_open(&env, &stream, 1);
    assert_int_equal(resident_bytes(&env, stream.seq), 0);
    for (uint32_t len = 16; len <= LONG_LEN; len *= 4) {
        qt_append(&env, &stream, len - stream.len);
        uint64_t bytes = resident_bytes(&env, stream.seq);
        assert_true(bytes >= len * 1024 && bytes <= len * 1024 + step);
    }
    qt_stream_close(&env, &stream);
    qt_close(&env);
}

/* ---- the caller's memory ---- */

enum { GUARD = 4096 };

static void use_memory(const struct qt_variant *variant, struct quire_pool_config *config,
                       uint64_t bytes)
{
    struct qt_env env;
    struct qt_stream streams[2];
    uint8_t *area = aligned_alloc(64, (GUARD + bytes + GUARD + 63) / 64 * 64);
    assert_non_null(area);
    memset(area, 0x5a, GUARD + bytes + GUARD);
    config->memory = area + GUARD;
    config->memory_bytes = bytes;
    qt_open_config(&env, variant, &qt_groups, config);
    for (uint32_t i = 0; i < 2; i++) {
        qt_stream_open(&env, &streams[i], i);
        qt_append(&env, &streams[i], 40);
    }
    qt_stream_truncate(&env, &streams[0], 3);
    qt_append(&env, &streams[0], 61);
    for (uint32_t i = 0; i < 2; i++) {
        qt_stream_check(&env, &streams[i]);
        qt_stream_close(&env, &streams[i]);
    }
    qt_close(&env);
    uint64_t touched = 0;
    for (uint64_t i = 0; i < GUARD; i++) {
        assert_int_equal(area[i], 0x5a);
        assert_int_equal(area[GUARD + bytes + i], 0x5a);
    }
    for (uint64_t i = 0; i < bytes; i++)
        touched += area[GUARD + i] != 0x5a;
    assert_true(touched > 0); /* K and V were put there */
    free(area);
}

static uint64_t arena_bytes(const struct quire_pool_config *config)
{
    uint64_t block_bytes, position_bytes;
    qt_assert_ok(quire_pool_measure(config, &block_bytes, &position_bytes));
    return config->layout == QUIRE_LAYOUT_PAGED
               ? config->num_blocks * block_bytes
               : config->max_seqs * config->max_seq_len * position_bytes;
}

static struct quire_backend *wrapping_backend(const struct qt_variant *variant)
{
    const struct qt_opaque_options options = {.wrap = true};
    struct quire_backend *backend = NULL;
    if (strcmp(variant->backend, "opaque") != 0)
        return qt_backend(variant->backend, 1);
    qt_assert_ok(qt_opaque_create(&options, &backend));
    return backend;
}

static void test_the_callers_memory_holds_the_arena(void **state)
{
    struct quire_pool_config config;
    qt_config(&config, *state, &qt_groups);
    config.max_seqs = 2;
    config.num_blocks = 3 * 32;
    config.backend = wrapping_backend(*state);
    use_memory(*state, &config, arena_bytes(&config));
}

static void test_the_callers_memory_is_the_budget(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    qt_config(&config, *state, &qt_groups);
    config.max_seqs = 2;
    config.num_blocks = 3 * 32;
    uint64_t bytes = arena_bytes(&config);
    config.num_blocks = 0;
    config.backend = wrapping_backend(*state);
    use_memory(variant, &config, bytes + (variant->layout == QUIRE_LAYOUT_PAGED ? 100 : 0));
}

static void assert_memory_refused(struct quire_pool_config *config, quire_status status,
                                  const char *message)
{
    struct quire_error error = {0};
    struct quire_pool *pool = NULL;
    qt_assert_status(quire_pool_create(config, &pool, &error), status);
    assert_null(pool);
    if (strstr(error.message, message) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", error.message, message);
}

static void test_memory_that_does_not_do_is_refused(void **state)
{
    const struct qt_variant *variant = *state;
    struct quire_pool_config config;
    struct quire_pool *pool = NULL;
    char needed[32];
    qt_config(&config, variant, &qt_groups);
    config.max_seqs = 2;
    config.num_blocks = 3 * 32;
    uint64_t bytes = arena_bytes(&config);
    uint8_t *area = aligned_alloc(64, (bytes + 128) / 64 * 64);
    assert_non_null(area);
    config.backend = wrapping_backend(variant);
    config.memory = area;
    config.memory_bytes = bytes - 1;
    (void)snprintf(needed, sizeof needed, "%llu", (unsigned long long)bytes);
    assert_memory_refused(&config, QUIRE_E_NOSPACE, needed);
    config.memory_bytes = bytes;
    config.memory = area + 8;
    assert_memory_refused(&config, QUIRE_E_INVAL, "aligned");
    config.memory = area;
    qt_assert_ok(quire_pool_create(&config, &pool, NULL));
    quire_pool_destroy(pool);
    quire_backend_destroy(config.backend);
    if (strcmp(variant->backend, "opaque") == 0) {
        config.backend = qt_backend("opaque", 1);
        assert_memory_refused(&config, QUIRE_E_UNSUPPORTED, "memory");
        quire_backend_destroy(config.backend);
    }
    free(area);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_contiguous_commits_what_the_length_needs,
                QT_ON_OPAQUE | QT_CONTIGUOUS | QT_DTYPES | QT_QUANTISED),
        QT_TEST(test_contiguous_to_an_uneven_capacity, QT_KV),
        QT_TEST(test_contiguous_without_reserve, QT_ON_OPAQUE | QT_CONTIGUOUS),
        QT_TEST(test_resident_memory_follows_the_length, QT_ON_CPU | QT_CONTIGUOUS),
        QT_TEST(test_resident_memory_follows_many_small_cuts, QT_ON_CPU | QT_CONTIGUOUS),
        QT_TEST(test_a_pool_costs_nothing_up_front, QT_ON_CPU | QT_PAGED | QT_CONTIGUOUS),
        QT_TEST(test_the_callers_memory_holds_the_arena, QT_KV),
        QT_TEST(test_the_callers_memory_is_the_budget, QT_KV),
        QT_TEST(test_memory_that_does_not_do_is_refused, QT_KV),
    };
    return qt_run("memory", tests, QT_LEN(tests));
}
