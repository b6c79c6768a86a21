/* test_attend.c - attention of every CPU level against f64, over shapes, lengths and parameters.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every cache starts as 0xff bytes, NaN in each dtype, so a read of an unused row shows; its arena,
 * inputs and outputs lie between pages that must not be touched. */
#include "kernel_fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { F32 = QUIRE_F32, F16 = QUIRE_F16, BF16 = QUIRE_BF16, Q8 = QUIRE_Q8, Q4 = QUIRE_Q4 };

struct run {
    struct kt_shape shape;
    struct kt_params params;
    uint32_t capacity;
    float size;     /* of q and k; 0: the default */
    uint32_t spike; /* 0: none */
    uint32_t stride;
    uint32_t num_parts;
    struct kt_part parts[KT_SLOTS];
};

static void run_on(struct quire_backend *backend, const struct run *run)
{
    struct kt_cache cache;
    kt_cache_open(&cache, backend, &run->shape, run->capacity, run->capacity + run->shape.dim);
    cache.size = run->size != 0.0f ? run->size : cache.size;
    cache.spike = run->spike != 0 ? run->spike : UINT32_MAX;
    cache.check_stride = run->stride != 0 ? run->stride : 1;
    uint32_t tokens = 0;
    for (uint32_t i = 0; i < run->num_parts; i++) {
        kt_cache_fill(&cache, run->parts[i].slot, run->parts[i].len);
        tokens += run->parts[i].n_new;
    }
    size_t rows = (size_t)tokens * run->shape.num_heads;
    float *out = qt_alloc(rows * run->shape.dim_v * sizeof(float));
    float *lse = qt_alloc(rows * sizeof(float));
    kt_cache_step(&cache, run->parts, run->num_parts, &run->params, out,
                  run->params.lse ? lse : NULL);
    kt_cache_check(&cache, run->parts, run->num_parts, &run->params, out,
                   run->params.lse ? lse : NULL);
    qt_free(out);
    qt_free(lse);
    kt_cache_close(&cache);
}

/* Runs a case at every level of the machine, on 2 threads. */
static void run_levels(const struct run *runs, size_t num_runs)
{
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        struct quire_backend *backend = kt_backend(kernels->level, 2);
        for (size_t r = 0; r < num_runs; r++)
            run_on(backend, &runs[r]);
        quire_backend_destroy(backend);
    }
}

static struct run plain(uint32_t dim)
{
    return (struct run){
        .shape = {.num_heads = 4,
                  .num_kv_heads = 2,
                  .dim = dim,
                  .dim_v = dim,
                  .block = 16,
                  .dtype_k = F16,
                  .dtype_v = F16},
        .params = {.lse = true},
        .capacity = 160,
        .num_parts = 1,
        .parts = {{0, 69, 3}},
    };
}

static const uint32_t dims[] = {1, 7, 16, 32, 33, 64, 80, 96, 112, 128, 192, 256, 512};

/* A defect of the reference implementation: kernels that assume head_dim 128. */
static void head_dim_other_than_128_is_read_right(void **state)
{
    (void)state;
    struct run runs[2 * QT_LEN(dims)];
    for (size_t i = 0; i < QT_LEN(dims); i++) {
        runs[2 * i] = plain(dims[i]);
        runs[2 * i + 1] = plain(dims[i]);
        runs[2 * i + 1].shape.dim_v = dims[(i + 5) % QT_LEN(dims)];
        runs[2 * i + 1].shape.dtype_k = F32;
        runs[2 * i + 1].shape.dtype_v = BF16;
    }
    run_levels(runs, QT_LEN(runs));
}

static void every_group_size(void **state)
{
    (void)state;
    struct run runs[19];
    size_t n = 0;
    for (uint32_t group = 1; group <= 16; group++) {
        runs[n] = plain(32);
        runs[n].shape.num_kv_heads = group % 3 + 1;
        runs[n].shape.num_heads = group * runs[n].shape.num_kv_heads;
        n++;
    }
    static const uint32_t pairs[][2] = {{71, 1}, {1, 1}, {128, 1}};
    for (size_t i = 0; i < QT_LEN(pairs); i++) {
        runs[n] = plain(16);
        runs[n].shape.num_heads = pairs[i][0];
        runs[n].shape.num_kv_heads = pairs[i][1];
        n++;
    }
    run_levels(runs, n);
}

static void every_block_size(void **state)
{
    (void)state;
    static const uint32_t blocks[] = {1, 2, 7, 16, 63, 64, 65, 256, 0};
    struct run runs[QT_LEN(blocks)];
    for (size_t i = 0; i < QT_LEN(blocks); i++) {
        runs[i] = plain(64);
        runs[i].shape.block = blocks[i];
        runs[i].capacity = 300;
        runs[i].parts[0] = (struct kt_part){1, 255, 20};
        runs[i].stride = 7;
    }
    run_levels(runs, QT_LEN(blocks));
}

static void lengths_around_every_boundary(void **state)
{
    (void)state;
    static const uint32_t lens[] = {0,   1,   14,  15,  16,  17,  62,  63,   64,   65,   127,
                                    128, 510, 511, 512, 513, 575, 576, 1022, 1023, 1024, 1025};
    struct run runs[2 * QT_LEN(lens)];
    for (size_t i = 0; i < QT_LEN(lens); i++) {
        for (uint32_t n = 0; n < 2; n++) {
            runs[2 * i + n] = plain(16);
            runs[2 * i + n].capacity = 1040;
            runs[2 * i + n].parts[0] = (struct kt_part){2, lens[i], n + 1};
        }
    }
    run_levels(runs, QT_LEN(runs));
}

static void ragged_batches(void **state)
{
    (void)state;
    struct run runs[3];
    runs[0] = plain(64);
    runs[0].capacity = 640;
    runs[0].num_parts = 4;
    memcpy(runs[0].parts, (struct kt_part[]){{3, 600, 1}, {0, 0, 130}, {2, 64, 1}, {1, 500, 20}},
           sizeof runs[0].parts);
    runs[0].stride = 11;
    runs[1] = runs[0];
    runs[1].shape = (struct kt_shape){9, 3, 64, 64, 7, F32, F32, 0, 0, false};
    runs[2] = runs[0];
    runs[2].shape = (struct kt_shape){2, 2, 40, 24, 0, BF16, F16, 50, 3, false};
    run_levels(runs, QT_LEN(runs));
}

static void every_pair_of_dtypes(void **state)
{
    (void)state;
    static const uint32_t dtypes[] = {F32, F16, BF16, Q8, Q4};
    struct run runs[QT_LEN(dtypes) * QT_LEN(dtypes)];
    for (uint32_t i = 0; i < QT_LEN(runs); i++) {
        runs[i] = plain(80);
        runs[i].shape.dtype_k = dtypes[i / QT_LEN(dtypes)];
        runs[i].shape.dtype_v = dtypes[i % QT_LEN(dtypes)];
        runs[i].shape.rotated = i % 2 == 0;
    }
    run_levels(runs, QT_LEN(runs));
}

/* Groups of 32 and of 16, whole units of nibbles and a half one, blocks of rotation from 16 to 512;
 * pages of which every plane begins at an odd place. */
static void quantised_head_dims(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {16, 32, 48, 64, 80, 96, 112, 128, 192, 256, 512};
    struct run runs[4 * QT_LEN(sizes)];
    for (size_t i = 0; i < QT_LEN(runs); i++) {
        runs[i] = plain(sizes[i / 4]);
        runs[i].shape.dim_v = sizes[(i / 4 + 3 * (i % 2)) % QT_LEN(sizes)];
        runs[i].shape.dtype_k = i % 2 == 0 ? Q4 : Q8;
        runs[i].shape.dtype_v = i % 4 < 3 ? Q4 : Q8;
        runs[i].shape.rotated = i % 4 < 2;
        runs[i].shape.block = i % 3 == 0 ? 0 : i % 3 == 1 ? 1 : 7;
    }
    run_levels(runs, QT_LEN(runs));
}

/* A defect of the reference implementation: the window is forgotten once the cache is paged. */
static void sliding_window_survives_paging(void **state)
{
    (void)state;
    static const uint32_t windows[] = {1, 2, 63, 64, 65, 100, 512, 600};
    static const uint32_t blocks[] = {16, 0};
    struct run runs[2 * QT_LEN(windows)];
    for (size_t i = 0; i < QT_LEN(runs); i++) {
        runs[i] = plain(32);
        runs[i].shape.window = windows[i / 2];
        runs[i].shape.block = blocks[i % 2];
        runs[i].capacity = 720;
        runs[i].num_parts = 2;
        runs[i].parts[0] = (struct kt_part){0, 700, 2};
        runs[i].parts[1] = (struct kt_part){1, 30, 70};
        runs[i].stride = 9;
    }
    run_levels(runs, QT_LEN(runs));
}

static void random_parameters(void **state)
{
    (void)state;
    struct qt_random random = {qt_env_u64("QUIRE_TEST_SEED", 1)};
    struct run runs[48];
    for (size_t i = 0; i < QT_LEN(runs); i++) {
        uint32_t group = 1 + qt_below(&random, 6), heads = 1 + qt_below(&random, 3);
        uint32_t len = qt_below(&random, 640);
        runs[i] = plain(1 + qt_below(&random, 70));
        runs[i].shape.num_heads = group * heads;
        runs[i].shape.num_kv_heads = heads;
        runs[i].shape.dim_v = 1 + qt_below(&random, 70);
        runs[i].shape.block = qt_below(&random, 80);
        runs[i].shape.window = qt_chance(&random, 60) ? 1 + qt_below(&random, 600) : 0;
        runs[i].shape.sinks = qt_chance(&random, 50) ? qt_below(&random, 90) : 0;
        runs[i].shape.dtype_k = qt_below(&random, 3);
        runs[i].shape.dtype_v = qt_below(&random, 3);
        runs[i].params.softcap = qt_chance(&random, 40) ? 5.0f : 0.0f;
        runs[i].params.scale = qt_chance(&random, 30) ? 0.3f : 0.0f;
        runs[i].params.alibi = qt_chance(&random, 40);
        runs[i].params.sink_logits = qt_chance(&random, 40);
        runs[i].capacity = 720;
        runs[i].parts[0] = (struct kt_part){qt_below(&random, 4), len, 1 + qt_below(&random, 40)};
        runs[i].stride = 13;
    }
    run_levels(runs, QT_LEN(runs));
}

/* Logits of 1e4 and more, all logits equal, one key that outweighs all others, tiny numbers. */
static void adversarial_logits(void **state)
{
    (void)state;
    static const float sizes[] = {40.0f, 1e-20f, 1e-30f, 2.0f};
    struct run runs[2 * QT_LEN(sizes)];
    for (size_t i = 0; i < QT_LEN(runs); i++) {
        runs[i] = plain(64);
        runs[i].shape.dtype_k = runs[i].shape.dtype_v = F32;
        runs[i].capacity = 600;
        runs[i].size = sizes[i / 2];
        runs[i].spike = i % 2 == 1 ? 100 : 0;
        runs[i].params.scale = sizes[i / 2] > 10.0f ? 1.0f : 0.0f;
        runs[i].parts[0] = (struct kt_part){0, 540, 4};
    }
    run_levels(runs, QT_LEN(runs));
}

/* Rows past the last valid one may lie in memory that is not there. */
static void rows_past_the_last_are_never_read(void **state)
{
    (void)state;
    size_t os_page = (size_t)sysconf(_SC_PAGESIZE);
    uint32_t dim = 64, valid = (uint32_t)(os_page / (dim * sizeof(float)));
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        struct quire_backend *backend = kt_backend(kernels->level, 2);
        struct kt_shape shape = {3, 1, dim, dim, 0, F32, F32, 0, 0, false};
        struct kt_cache cache;
        kt_cache_open(&cache, backend, &shape, 4 * valid, 5);
        kt_cache_fill(&cache, 0, valid - 1);
        /* K and V of slot 0 are 4 OS pages each, of which the first holds the valid rows. */
        uint8_t *keys = (uint8_t *)cache.arena_memory.data + cache.table[0] * 8 * os_page;
        assert_int_equal(mprotect(keys + os_page, 3 * os_page, PROT_NONE), 0);
        assert_int_equal(mprotect(keys + 5 * os_page, 3 * os_page, PROT_NONE), 0);
        struct kt_part part = {0, valid - 1, 1};
        struct kt_params params = {0};
        float out[3 * 64];
        assert_true(dim == 64);
        kt_cache_step(&cache, &part, 1, &params, out, NULL);
        kt_cache_check(&cache, &part, 1, &params, out, NULL);
        kt_cache_close(&cache);
        quire_backend_destroy(backend);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_dim_other_than_128_is_read_right),
        cmocka_unit_test(every_group_size),
        cmocka_unit_test(every_block_size),
        cmocka_unit_test(lengths_around_every_boundary),
        cmocka_unit_test(ragged_batches),
        cmocka_unit_test(every_pair_of_dtypes),
        cmocka_unit_test(quantised_head_dims),
        cmocka_unit_test(sliding_window_survives_paging),
        cmocka_unit_test(random_parameters),
        cmocka_unit_test(adversarial_logits),
        cmocka_unit_test(rows_past_the_last_are_never_read),
    };
    return cmocka_run_group_tests_name("kernel/attend", tests, NULL, NULL);
}
