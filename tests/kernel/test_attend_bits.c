/* test_attend_bits.c - the same query gives the same bits, however it is asked.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The first answer is that of the whole prompt at once, on one thread, in the contiguous layout. At
 * the same level every other way must give equal bytes: other block sizes, other chunks, other
 * sequences in the batch, other numbers of threads. */
#include "kernel_fixture.h"

#include <stdio.h>
#include <string.h>

#include "backend/cpu/plan.h"

enum { TOKENS = 1100, HEADS = 6, KV_HEADS = 2, DIM = 24, DIM_V = 20, DIM_Q = 48, DIM_WHOLE = 64 };

struct fixture {
    const char *level;
    struct kt_shape shape;
    size_t row; /* floats of a token's output */
    struct kt_params params;
    float *out, *lse; /* of the whole prompt of slot 0 */
};

/* Positions of slot 0, and what attend gave for them. */
struct piece {
    uint32_t first, count;
    const float *out, *lse;
};

static void compare(const struct fixture *f, const char *what, uint32_t detail, struct piece got)
{
    const float *out = f->out + (size_t)got.first * f->row;
    const float *lse = f->lse + (size_t)got.first * HEADS;
    bool same = memcmp(got.out, out, got.count * f->row * sizeof(float)) == 0 &&
                memcmp(got.lse, lse, got.count * HEADS * sizeof(float)) == 0;
    if (!same)
        fail_msg("%s %u: positions %u .. %u differ at level %s (window %u, dtypes %u %u)", what,
                 detail, got.first, got.first + got.count, f->level, f->shape.window,
                 f->shape.dtype_k, f->shape.dtype_v);
}

static void whole(struct fixture *f)
{
    struct quire_backend *backend = kt_backend(f->level, 1);
    struct kt_cache cache;
    struct kt_part part = {0, 0, TOKENS};
    f->shape.block = 0;
    f->row = (size_t)HEADS * f->shape.dim_v;
    f->out = qt_alloc(TOKENS * f->row * sizeof(float));
    f->lse = qt_alloc(TOKENS * HEADS * sizeof(float));
    kt_cache_open(&cache, backend, &f->shape, TOKENS, 77);
    cache.check_stride = 499;
    kt_cache_step(&cache, &part, 1, &f->params, f->out, f->lse);
    kt_cache_check(&cache, &part, 1, &f->params, f->out, f->lse);
    kt_cache_close(&cache);
    quire_backend_destroy(backend);
}

/* The prompt from a position on, in pieces; chunk 0: of random sizes. */
static void in_chunks(const struct fixture *f, uint32_t threads, uint32_t block, uint32_t chunk,
                      uint32_t from)
{
    struct quire_backend *backend = kt_backend(f->level, threads);
    struct kt_shape shape = f->shape;
    struct kt_cache cache;
    struct qt_random random = {threads * 1000 + block};
    float *out = qt_alloc(TOKENS * f->row * sizeof(float));
    float *lse = qt_alloc(TOKENS * HEADS * sizeof(float));
    shape.block = block;
    kt_cache_open(&cache, backend, &shape, TOKENS, 77);
    kt_cache_fill(&cache, 0, from);
    for (uint32_t at = from; at < TOKENS;) {
        uint32_t n = chunk != 0 ? chunk : 1 + qt_below(&random, 200);
        n = n < TOKENS - at ? n : TOKENS - at;
        struct kt_part part = {0, at, n};
        kt_cache_step(&cache, &part, 1, &f->params, out, lse);
        compare(f, "chunk of a prompt, block size", block, (struct piece){at, n, out, lse});
        at += n;
    }
    kt_cache_close(&cache);
    quire_backend_destroy(backend);
    qt_free(out);
    qt_free(lse);
}

/* Single tokens and short runs of slot 0 beside other sequences, at varying rows of the batch. */
static void in_batches(const struct fixture *f, uint32_t threads)
{
    struct quire_backend *backend = kt_backend(f->level, threads);
    struct kt_shape shape = f->shape;
    struct kt_cache cache;
    shape.block = 16;
    kt_cache_open(&cache, backend, &shape, TOKENS, 77);
    for (uint32_t slot = 0; slot < KT_SLOTS; slot++)
        kt_cache_fill(&cache, slot, TOKENS);
    float *out = qt_alloc(4 * 128 * f->row * sizeof(float));
    float *lse = qt_alloc(4 * 128 * HEADS * sizeof(float));
    static const uint32_t starts[] = {0, 63, 64, 500, 511, 512, 1023, 1024, 1090};
    for (uint32_t i = 0; i < QT_LEN(starts); i++) {
        uint32_t others = i % 4, row = 0, count = 1 + i * i % 10;
        struct kt_part parts[KT_SLOTS];
        for (uint32_t o = 0; o < others; o++) {
            uint32_t n = o % 2 == 0 ? 1 : 100;
            parts[o] = (struct kt_part){o + 1, (i * 211 + o * 97) % 1000, n};
            row += n;
        }
        parts[others] = (struct kt_part){0, starts[i], count};
        kt_cache_attend(&cache, parts, others + 1, &f->params, out, lse);
        compare(f, "beside other sequences:", others,
                (struct piece){starts[i], count, out + (size_t)row * f->row,
                               lse + (size_t)row * HEADS});
    }
    kt_cache_close(&cache);
    quire_backend_destroy(backend);
    qt_free(out);
    qt_free(lse);
}

/* An emulated level, if there was one, comes before its own. */
static void as_emulated(const struct fixture *f, const struct quire__kernels *kernels)
{
    const struct quire__kernels *other;
    for (uint32_t i = 0; (other = kt_level(i)) != kernels; i++) {
        if (strcmp(other->arithmetic, kernels->arithmetic) != 0)
            continue;
        struct fixture emulated = *f;
        emulated.level = other->level;
        whole(&emulated);
        compare(f, "level against emulated", i,
                (struct piece){0, TOKENS, emulated.out, emulated.lse});
        qt_free(emulated.out);
        qt_free(emulated.lse);
    }
}

static void every_way(const struct fixture *f, bool all_blocks)
{
    static const uint32_t blocks[] = {7, 1, 16, 64, 256};
    static const uint32_t threads[] = {1, 2, 5};
    for (uint32_t t = 0; t < QT_LEN(threads); t++) {
        in_chunks(f, threads[t], 0, TOKENS, 0);
        in_batches(f, threads[t]);
    }
    for (uint32_t b = 0; b < (all_blocks ? QT_LEN(blocks) : 1); b++)
        in_chunks(f, 1 + b % 2, blocks[b], 0, 0);
    in_chunks(f, 2, 16, 1, 1000);
}

static void at_every_level(const struct kt_shape *shape, const struct kt_params *params,
                           bool all_blocks)
{
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        struct fixture f = {.level = kernels->level, .shape = *shape, .params = *params};
        whole(&f);
        as_emulated(&f, kernels);
        if (strstr(kernels->level, "_emulated") != NULL)
            in_batches(&f, 2); /* C for instructions takes its time */
        else
            every_way(&f, all_blocks);
        qt_free(f.out);
        qt_free(f.lse);
    }
}

static void full_attention(void **state)
{
    (void)state;
    at_every_level(
        &(struct kt_shape){HEADS, KV_HEADS, DIM, DIM_V, 0, QUIRE_F16, QUIRE_F16, 0, 0, false},
        &(struct kt_params){0}, true);
}

static void windows_with_sinks_and_biases(void **state)
{
    (void)state;
    at_every_level(
        &(struct kt_shape){HEADS, KV_HEADS, DIM, DIM_V, 0, QUIRE_F32, QUIRE_BF16, 100, 70, false},
        &(struct kt_params){.softcap = 8.0f, .alibi = true, .sink_logits = true}, false);
}

/* One head for each K/V head, and one K/V head for all: other units, the same bits. */
static void without_groups(void **state)
{
    (void)state;
    at_every_level(
        &(struct kt_shape){HEADS, HEADS, DIM, DIM_V, 0, QUIRE_BF16, QUIRE_F16, 600, 0, false},
        &(struct kt_params){.scale = 0.5f}, false);
    at_every_level(&(struct kt_shape){HEADS, 1, DIM, DIM_V, 0, QUIRE_F16, QUIRE_F32, 0, 0, false},
                   &(struct kt_params){0}, false);
}

/* Rows that share scales, turned and not. */
static void quantised(void **state)
{
    (void)state;
    at_every_level(
        &(struct kt_shape){HEADS, KV_HEADS, DIM_Q, DIM_WHOLE, 0, QUIRE_Q8, QUIRE_Q4, 0, 0, true},
        &(struct kt_params){0}, false);
    at_every_level(&(struct kt_shape){HEADS, KV_HEADS, DIM_WHOLE, DIM_Q, 0, QUIRE_Q4, QUIRE_Q8, 100,
                                      70, false},
                   &(struct kt_params){.softcap = 8.0f}, false);
}

/* How two sequences with the pages of one are asked for their last tokens, and what comes of it. */
struct sharing {
    uint32_t threads, tokens;
    bool no_cascade;
    uint32_t families, slots; /* as they were planned; slots of a row */
    uint32_t shared_heads;    /* at most, of a unit that reads several splits */
};
enum { SHARED_TOKENS = 30 };

static void share_pages(struct sharing *how, float *out)
{
    const uint32_t first = TOKENS - how->tokens;
    const struct kt_part parts[] = {{0, first, how->tokens}, {1, first, how->tokens}};
    const struct kt_shape shape = {HEADS,     KV_HEADS,  DIM, DIM_V, 16,
                                   QUIRE_F16, QUIRE_F16, 0,   0,     false};
    struct quire_backend_config config;
    struct quire_backend *backend;
    struct kt_cache cache;
    quire_backend_config_init(&config);
    config.num_threads = how->threads;
    config.no_cascade = how->no_cascade;
    assert_int_equal(quire_backend_create("cpu", &config, &backend, NULL), QUIRE_OK);
    kt_cache_open(&cache, backend, &shape, TOKENS, 7);
    kt_cache_fill(&cache, 0, TOKENS);
    memcpy(cache.table + cache.blocks, cache.table, cache.blocks * sizeof *cache.table);
    struct quire_upload upload = {0, 2 * (uint64_t)cache.blocks * sizeof *cache.table, cache.table};
    assert_int_equal(backend->memory->upload(backend, cache.tables, &upload, 1), QUIRE_OK);
    kt_cache_attend(&cache, parts, 2, &(struct kt_params){0}, out, NULL);
    const struct quire__class *class = &cache.plan->classes[0];
    how->families = cache.plan->num_families;
    how->slots = class->num_merges != 0 ? class->merges[0].num_slots : 0;
    how->shared_heads = 0;
    for (const struct quire__unit *u = class->units; u < class->units + class->num_units; u++) {
        if (u->num_splits > 1 && u->num_heads > how->shared_heads)
            how->shared_heads = u->num_heads;
    }
    kt_cache_close(&cache);
    quire_backend_destroy(backend);
}

/* What is shared is read once for both, or by each for itself: as the backend was asked. One unit
 * reads all of it where the rows are many and the K/V heads as many for each thread: the two splits
 * of 512 positions have one slot then, and those that are a sequence's own another. Each head is a
 * unit then, or one thread would read for all. */
static void with_and_without_cascade(void **state)
{
    (void)state;
    enum { FLOATS = 2 * SHARED_TOKENS * HEADS * DIM_V };
    static const uint32_t threads[] = {1, 2, 5};
    float *together = qt_alloc(FLOATS * sizeof *together),
          *alone = qt_alloc(FLOATS * sizeof *alone);
    for (uint32_t tokens = 1; tokens <= SHARED_TOKENS; tokens += SHARED_TOKENS - 1) {
        struct sharing how = {.threads = 1, .tokens = tokens, .no_cascade = true};
        share_pages(&how, alone);
        assert_int_equal(how.families, 2);
        for (uint32_t t = 0; t < QT_LEN(threads); t++) {
            how = (struct sharing){.threads = threads[t], .tokens = tokens};
            share_pages(&how, together);
            assert_int_equal(how.families, 1);
            bool one_unit = tokens > 1 && KV_HEADS % threads[t] == 0;
            assert_int_equal(how.slots, one_unit ? 2 : 3);
            assert_int_equal(how.shared_heads, one_unit ? 1 : 0);
            assert_memory_equal(together, alone, 2 * tokens * HEADS * DIM_V * sizeof *together);
        }
    }
    qt_free(together);
    qt_free(alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_and_without_cascade),
        cmocka_unit_test(full_attention),
        cmocka_unit_test(windows_with_sinks_and_biases),
        cmocka_unit_test(without_groups),
        cmocka_unit_test(quantised),
    };
    return cmocka_run_group_tests_name("kernel/attend_bits", tests, NULL, NULL);
}
