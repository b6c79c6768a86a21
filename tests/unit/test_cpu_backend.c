/* test_cpu_backend.c - the registry, host memory, and misuse of the CPU backend.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernel_fixture.h"

#include "base/base.h"

#include <quire/paged.h>

#include <stdlib.h>
#include <string.h>

/* ---- the registry ---- */

static void names_and_levels(void **state)
{
    (void)state;
    struct quire_backend_config config;
    struct quire_backend *backend = NULL;
    struct quire_error error = {0};
    quire_backend_config_init(&config);
    assert_int_equal(quire_backend_create(NULL, NULL, &backend, NULL), QUIRE_E_INVAL);
    assert_int_equal(quire_backend_create("cpu", NULL, NULL, NULL), QUIRE_E_INVAL);
    assert_int_equal(quire_backend_create("gpu", NULL, &backend, &error), QUIRE_E_NOTFOUND);
    assert_non_null(strstr(error.message, "cpu, none"));
    config.struct_size--;
    assert_int_equal(quire_backend_create("cpu", &config, &backend, &error), QUIRE_E_INVAL);
    config.struct_size++;
    config.cpu_level = "sse9";
    assert_int_equal(quire_backend_create("cpu", &config, &backend, &error), QUIRE_E_INVAL);
    assert_non_null(strstr(error.message, "ref generic"));
    config.cpu_level = NULL;
    config.num_threads = 100000;
    assert_int_equal(quire_backend_create("cpu", &config, &backend, &error), QUIRE_E_INVAL);
    assert_null(backend);
    quire_backend_destroy(NULL);
}

static void a_cap_means_that_level_or_the_best_below(void **state)
{
    (void)state;
    const char *saved = getenv("QUIRE_CPU");
    char *copy = saved != NULL ? strdup(saved) : NULL;
    const struct quire__kernels *best = NULL;
    for (uint32_t i = 0; kt_level(i) != NULL; i++) {
        best = kt_level(i);
        struct quire_backend *backend = kt_backend(best->level, 1);
        assert_string_equal(backend->caps.arithmetic, best->arithmetic);
        quire_backend_destroy(backend);
        assert_int_equal(setenv("QUIRE_CPU", best->level, 1), 0);
        backend = kt_backend(NULL, 1);
        assert_string_equal(backend->caps.arithmetic, best->arithmetic);
        quire_backend_destroy(backend);
    }
#if defined(__x86_64__)
    struct quire_backend *capped = kt_backend("amx", 1); /* known everywhere on x86-64 */
    assert_string_equal(capped->caps.arithmetic, best->arithmetic);
    quire_backend_destroy(capped);
#endif
    struct quire_backend *backend = NULL;
    assert_int_equal(setenv("QUIRE_CPU", "nonsense", 1), 0);
    assert_int_equal(quire_backend_create("cpu", NULL, &backend, NULL), QUIRE_E_INVAL);
    if (copy != NULL)
        assert_int_equal(setenv("QUIRE_CPU", copy, 1), 0);
    else
        assert_int_equal(unsetenv("QUIRE_CPU"), 0);
    free(copy);
}

static void none_keeps_ids_only(void **state)
{
    (void)state;
    struct quire_backend *backend = NULL;
    assert_int_equal(quire_backend_create("none", NULL, &backend, NULL), QUIRE_OK);
    assert_int_equal(backend->caps.flags & (QUIRE_CAP_KV | QUIRE_CAP_NN), 0);
    assert_null(backend->kv);
    assert_null(backend->nn);
    struct quire_buffer *buffer = NULL;
    uint32_t word = 7, back = 0;
    struct quire_upload upload = {4, 4, &word};
    assert_int_equal(backend->memory->buffer_create(backend, 8, 0, &buffer), QUIRE_OK);
    assert_int_equal(backend->memory->upload(backend, buffer, &upload, 1), QUIRE_OK);
    assert_int_equal(backend->memory->download(backend, buffer, 4, 4, &back), QUIRE_OK);
    assert_int_equal(back, 7);
    backend->memory->buffer_destroy(backend, buffer);
    quire_backend_destroy(backend);
}

static void refused_memory_is_nomem(void **state)
{
    (void)state;
    for (int64_t n = 0;; n++) {
        struct quire_backend *backend = NULL;
        quire__alloc_fail_after(n, false);
        quire_status status = quire_backend_create("cpu", NULL, &backend, NULL);
        quire__alloc_fail_after(-1, false);
        quire_backend_destroy(backend);
        if (status == QUIRE_OK) {
            assert_true(n > 2);
            break;
        }
        assert_int_equal(status, QUIRE_E_NOMEM);
        assert_null(backend);
    }
}

/* ---- memory ---- */

static void memory_checks_its_ranges(void **state)
{
    (void)state;
    struct quire_backend *backend = kt_backend(NULL, 1), *other = kt_backend(NULL, 1);
    const struct quire_memory_ops *m = backend->memory;
    struct quire_buffer *a = NULL, *b = NULL, *huge = NULL;
    uint8_t bytes[64] = {0};
    assert_int_equal(m->buffer_create(backend, 0, 0, &a), QUIRE_E_INVAL);
    assert_int_equal(m->buffer_create(backend, 64, 0, NULL), QUIRE_E_INVAL);
    assert_int_equal(m->buffer_create(backend, 64, 1u << 9, &a), QUIRE_E_UNSUPPORTED);
    assert_int_equal(m->buffer_create(backend, UINT64_MAX, QUIRE_BUFFER_RESERVED, &huge),
                     QUIRE_E_NOMEM);
    assert_int_equal(m->buffer_create(backend, 1ull << 62, QUIRE_BUFFER_RESERVED, &huge),
                     QUIRE_E_NOMEM);
    assert_null(huge);
    assert_int_equal(m->buffer_create(backend, 64, 0, &a), QUIRE_OK);
    assert_int_equal(m->buffer_wrap(backend, NULL, 64, &b), QUIRE_E_INVAL);
    assert_int_equal(m->buffer_wrap(backend, bytes, sizeof bytes, &b), QUIRE_OK);
    static const struct quire_range bad[] = {{65, 0}, {0, 65}, {60, 5}, {1, UINT64_MAX}};
    for (size_t i = 0; i < QT_LEN(bad); i++) {
        struct quire_upload upload = {bad[i].offset, bad[i].bytes, bytes};
        assert_int_equal(m->commit(backend, a, &bad[i], 1), QUIRE_E_INVAL);
        assert_int_equal(m->upload(backend, a, &upload, 1), QUIRE_E_INVAL);
        assert_int_equal(m->download(backend, a, bad[i].offset, bad[i].bytes, bytes),
                         QUIRE_E_INVAL);
        assert_int_equal(m->fill(backend, a, bad[i].offset, bad[i].bytes, 1), QUIRE_E_INVAL);
        assert_int_equal(m->copy(backend, a, bad[i].offset, b, 0, bad[i].bytes), QUIRE_E_INVAL);
        assert_int_equal(m->copy(backend, b, 0, a, bad[i].offset, bad[i].bytes), QUIRE_E_INVAL);
    }
    struct quire_upload mixed[] = {{0, 4, "abcd"}, {62, 4, "abcd"}}; /* all or nothing */
    assert_int_equal(m->upload(backend, a, mixed, 2), QUIRE_E_INVAL);
    assert_int_equal(m->download(backend, a, 0, 4, bytes), QUIRE_OK);
    assert_memory_equal(bytes, "\0\0\0\0", 4);
    assert_int_equal(m->copy(backend, a, 0, a, 2, 4), QUIRE_E_INVAL);
    assert_int_equal(m->copy(backend, a, 0, a, 4, 4), QUIRE_OK);
    assert_int_equal(m->fill(other, a, 0, 1, 1), QUIRE_E_INVAL); /* another backend's buffer */
    quire_fence fence, later;
    assert_int_equal(m->fence_record(backend, &fence), QUIRE_OK);
    assert_int_equal(m->fence_record(backend, &later), QUIRE_OK);
    assert_true(later > fence);
    assert_int_equal(m->fence_wait(backend, later), QUIRE_OK);
    assert_int_equal(m->fence_poll(backend, 0), QUIRE_OK);
    assert_int_equal(m->fence_wait(backend, later + 1), QUIRE_E_INVAL);
    m->buffer_destroy(backend, a);
    m->buffer_destroy(backend, b);
    m->buffer_destroy(backend, NULL);
    quire_backend_destroy(backend);
    quire_backend_destroy(other);
}

static void decommitted_memory_reads_as_zero(void **state)
{
    (void)state;
    struct quire_backend *backend = kt_backend(NULL, 1);
    const struct quire_memory_ops *m = backend->memory;
    uint64_t page = quire__os_page_bytes();
    struct quire_buffer *buffer = NULL;
    uint8_t byte = 1;
    assert_int_equal(m->buffer_create(backend, 1ull << 40, QUIRE_BUFFER_RESERVED, &buffer),
                     QUIRE_OK);
    struct quire_range range = {page, 2 * page};
    assert_int_equal(m->commit(backend, buffer, &range, 1), QUIRE_OK);
    assert_int_equal(m->fill(backend, buffer, page, 2 * page, 9), QUIRE_OK);
    assert_int_equal(m->commit(backend, buffer, &range, 1), QUIRE_OK); /* keeps the content */
    assert_int_equal(m->download(backend, buffer, 2 * page, 1, &byte), QUIRE_OK);
    assert_int_equal(byte, 9);
    m->decommit(backend, buffer, &range, 1);
    assert_int_equal(m->download(backend, buffer, 2 * page, 1, &byte), QUIRE_OK);
    assert_int_equal(byte, 0);
    m->buffer_destroy(backend, buffer);
    quire_backend_destroy(backend);
}

/* ---- plans ---- */

struct plan_case {
    struct quire_backend *backend;
    struct kt_cache cache;
};

static void plan_open(struct plan_case *c)
{
    static const struct kt_shape shape = {4, 2, 8, 8, 4, QUIRE_F16, QUIRE_F16, 0, 0, false};
    c->backend = kt_backend(NULL, 2);
    kt_cache_open(&c->cache, c->backend, &shape, 32, 3);
}

static void plan_close(struct plan_case *c)
{
    kt_cache_close(&c->cache);
    quire_backend_destroy(c->backend);
}

static struct quire_kv_spec spec_of(const struct plan_case *c)
{
    uint32_t entries = KT_SLOTS * c->cache.blocks;
    return (struct quire_kv_spec){1,
                                  &c->cache.layer,
                                  1,
                                  4,
                                  512 / 2,
                                  c->cache.num_pages,
                                  KT_SLOTS,
                                  c->cache.blocks,
                                  64,
                                  c->cache.arena,
                                  c->cache.tables,
                                  entries * 4};
}

#define SPEC_CASE(field, value)                                                                    \
    do {                                                                                           \
        struct quire_kv_layer layer = c.cache.layer;                                               \
        struct quire_kv_spec spec = spec_of(&c);                                                   \
        spec.layers = &layer;                                                                      \
        field = (value);                                                                           \
        assert_int_equal(c.backend->kv->plan_create(c.backend, &spec, &plan), QUIRE_E_INVAL);      \
        assert_null(plan);                                                                         \
    } while (0)

static void bad_specs_are_refused(void **state)
{
    (void)state;
    struct plan_case c;
    struct quire_plan *plan = NULL;
    plan_open(&c);
    struct quire_kv_spec good = spec_of(&c);
    assert_int_equal(c.backend->kv->plan_create(c.backend, NULL, &plan), QUIRE_E_INVAL);
    assert_int_equal(c.backend->kv->plan_create(c.backend, &good, NULL), QUIRE_E_INVAL);
    SPEC_CASE(spec.num_layers, 0);
    SPEC_CASE(spec.layers, NULL);
    SPEC_CASE(spec.num_groups, 0);
    SPEC_CASE(spec.positions_per_page, 0);
    SPEC_CASE(spec.positions_per_page, 8);
    SPEC_CASE(spec.page_bytes, 16);
    SPEC_CASE(spec.page_bytes, UINT64_MAX);
    SPEC_CASE(spec.num_pages, UINT32_MAX);
    SPEC_CASE(spec.max_seqs, 0);
    SPEC_CASE(spec.max_seqs, UINT32_MAX);
    SPEC_CASE(spec.max_blocks, 0);
    SPEC_CASE(spec.max_blocks, UINT32_MAX);
    SPEC_CASE(spec.max_step_tokens, 0);
    SPEC_CASE(spec.arena, NULL);
    SPEC_CASE(spec.tables, NULL);
    SPEC_CASE(spec.lens_offset, UINT64_MAX);
    SPEC_CASE(layer.group, 1);
    SPEC_CASE(layer.num_heads, 0);
    SPEC_CASE(layer.num_heads, 3);
    SPEC_CASE(layer.num_kv_heads, 0);
    SPEC_CASE(layer.head_dim, 0);
    SPEC_CASE(layer.head_dim, 513);
    SPEC_CASE(layer.head_dim_v, 0);
    SPEC_CASE(layer.head_dim_v, 513);
    SPEC_CASE(layer.dtype_k, QUIRE_U32);
    SPEC_CASE(layer.dtype_v, 99);
    SPEC_CASE(layer.dtype_k, QUIRE_Q8); /* of 8 elements */
    SPEC_CASE(layer.dtype_v, QUIRE_Q4);
    SPEC_CASE(layer.rotated_k, 1);
    SPEC_CASE(layer.rotated_v, 1);
    SPEC_CASE(layer.k_offset, 1);
    SPEC_CASE(layer.v_offset, UINT64_MAX - 1);
    assert_int_equal(c.backend->kv->plan_create(c.backend, &good, &plan), QUIRE_OK);
    c.backend->kv->plan_destroy(c.backend, plan);
    c.backend->kv->plan_destroy(c.backend, NULL);
    plan_close(&c);
}

/* K and V in buffers of their own, here the two halves of the arena's pages. */
static void own_buffers_must_hold_every_page(void **state)
{
    (void)state;
    struct plan_case c;
    plan_open(&c);
    for (uint32_t i = 0; i <= 9; i++) {
        struct quire_plan *plan = NULL;
        struct quire_kv_layer layer = c.cache.layer;
        struct quire_kv_spec spec = spec_of(&c);
        spec.layers = &layer;
        spec.arena = NULL;
        spec.page_bytes = 0;
        layer.k_buffer = layer.v_buffer = c.cache.arena;
        layer.k_page_bytes = layer.v_page_bytes = 256;
        spec.num_pages = i == 1 ? 0 : i == 2 ? spec.num_pages + 1 : spec.num_pages;
        layer.v_offset += i == 3 ? 2 : 0;
        layer.k_offset = i == 4 ? UINT64_MAX - 1 : i == 5 ? 1 : 0;
        layer.k_page_bytes = i == 6 ? 127 : i == 7 ? 126 : i == 8 ? UINT64_MAX - 1 : 256;
        layer.v_buffer = i == 9 ? NULL : c.cache.arena;
        quire_status status = c.backend->kv->plan_create(c.backend, &spec, &plan);
        assert_int_equal(status, i == 0 ? QUIRE_OK : QUIRE_E_INVAL);
        c.backend->kv->plan_destroy(c.backend, plan);
    }
    plan_close(&c);
}

static void plans_survive_refused_memory(void **state)
{
    (void)state;
    struct plan_case c;
    plan_open(&c);
    struct quire_kv_spec spec = spec_of(&c);
    for (int64_t n = 0;; n++) {
        struct quire_plan *plan = NULL;
        quire__alloc_fail_after(n, false);
        quire_status status = c.backend->kv->plan_create(c.backend, &spec, &plan);
        quire__alloc_fail_after(-1, false);
        c.backend->kv->plan_destroy(c.backend, plan);
        if (status == QUIRE_OK) {
            assert_true(n > 5);
            break;
        }
        assert_int_equal(status, QUIRE_E_NOMEM);
    }
    plan_close(&c);
}

/* Sequences of one new token that share all before it, in so many rows that the states of their
 * splits find no room: each reads for itself. Nothing is written, so nothing of the pages is
 * touched.
 */
static void a_family_without_room_is_none(void **state)
{
    (void)state;
    enum { SEQS = 512, SHARED = 72, HEADS = 512, DIM = 16, DIM_V = 512, PAGE = 512 };
    const uint64_t positions = (uint64_t)(SEQS + 1) * PAGE;
    struct quire_backend *backend = kt_backend(NULL, 2);
    struct quire_error error = {0};
    struct quire_paged_layer layer = {
        .num_heads = HEADS,
        .num_kv_heads = 1,
        .head_dim = DIM,
        .head_dim_v = DIM_V,
        .dtype_k = QUIRE_F16,
        .dtype_v = QUIRE_F16,
        .k = {.memory = quire__reserve(positions * DIM * 2), .bytes = positions * DIM * 2},
        .v = {.memory = quire__reserve(positions * DIM_V * 2), .bytes = positions * DIM_V * 2},
    };
    static uint32_t qo[SEQS + 1], kv[SEQS + 1], pages[SEQS * (SHARED + 1)], last[SEQS];
    struct quire_paged_config config;
    struct quire_paged *paged = NULL;
    quire_paged_config_init(&config);
    config.backend = backend;
    config.layers = &layer;
    config.num_layers = 1;
    config.page_size = PAGE;
    config.num_pages = SEQS + 1;
    config.max_seqs = config.max_step_tokens = SEQS;
    config.max_seq_pages = SHARED + 1;
    for (uint32_t s = 0; s < SEQS; s++) {
        qo[s + 1] = s + 1;
        kv[s + 1] = (s + 1) * (SHARED + 1);
        pages[kv[s] + SHARED] = s + 1; /* before it, page 0 over and over */
        last[s] = 1;
    }
    struct quire_paged_batch batch = {sizeof batch, SEQS, qo, kv, pages, last};
    if (quire_paged_create(&config, &paged, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(quire_paged_plan(paged, &batch, &error), QUIRE_OK);
    quire_paged_destroy(paged);
    quire_backend_destroy(backend);
    quire__unreserve(layer.k.memory, layer.k.bytes);
    quire__unreserve(layer.v.memory, layer.v.bytes);
}

static quire_status build(struct plan_case *c, struct quire_step_part part, uint32_t tokens)
{
    struct quire_step_desc desc = {1, tokens, &part};
    return c->backend->kv->plan_build(c->backend, c->cache.plan, &desc);
}

static void bad_steps_are_refused(void **state)
{
    (void)state;
    struct plan_case c;
    plan_open(&c);
    const struct quire_kv_ops *kv = c.backend->kv;
    assert_int_equal(kv->plan_build(c.backend, c.cache.plan, NULL), QUIRE_E_INVAL);
    assert_int_equal(build(&c, (struct quire_step_part){KT_SLOTS, 0, 1, 0}, 1), QUIRE_E_INVAL);
    assert_int_equal(build(&c, (struct quire_step_part){0, 0, 0, 0}, 1), QUIRE_E_INVAL);
    assert_int_equal(build(&c, (struct quire_step_part){0, 32, 1, 0}, 1), QUIRE_E_INVAL);
    assert_int_equal(build(&c, (struct quire_step_part){0, UINT32_MAX, 2, 0}, 2), QUIRE_E_INVAL);
    assert_int_equal(build(&c, (struct quire_step_part){0, 0, 2, 1}, 2), QUIRE_E_INVAL);
    assert_int_equal(build(&c, (struct quire_step_part){0, 0, 1, 0}, UINT32_MAX), QUIRE_E_INVAL);
    assert_int_equal(build(&c, (struct quire_step_part){0, 5, 1, 0}, 1), QUIRE_OK);
    /* A table that names no page where the step writes, or reads. */
    uint32_t none = QUIRE_BLOCK_NONE, page = c.cache.table[0];
    struct quire_upload hole = {0, 4, &none}, mend = {0, 4, &page};
    assert_int_equal(c.backend->memory->upload(c.backend, c.cache.tables, &hole, 1), QUIRE_OK);
    assert_int_equal(build(&c, (struct quire_step_part){0, 0, 1, 0}, 1), QUIRE_E_INVAL);
    assert_int_equal(build(&c, (struct quire_step_part){0, 5, 1, 0}, 1), QUIRE_E_INVAL);
    assert_int_equal(c.backend->memory->upload(c.backend, c.cache.tables, &mend, 1), QUIRE_OK);
    assert_int_equal(build(&c, (struct quire_step_part){0, 5, 1, 0}, 1), QUIRE_OK);
    plan_close(&c);
}

/* Pages below the window need not exist. */
static void pages_out_of_the_window_may_be_gone(void **state)
{
    (void)state;
    struct quire_backend *backend = kt_backend(NULL, 2);
    static const struct kt_shape shape = {2, 1, 8, 8, 4, QUIRE_F32, QUIRE_F32, 6, 3, false};
    struct kt_cache cache;
    kt_cache_open(&cache, backend, &shape, 64, 3);
    kt_cache_fill(&cache, 0, 40);
    uint32_t gone[7];
    memset(gone, 0xff, sizeof gone);
    struct quire_upload upload = {4, sizeof gone, gone}; /* blocks 1 .. 7; the sinks keep block 0 */
    assert_int_equal(backend->memory->upload(backend, cache.tables, &upload, 1), QUIRE_OK);
    struct kt_part part = {0, 40, 2};
    struct kt_params params = {0};
    float out[2 * 2 * 8];
    kt_cache_step(&cache, &part, 1, &params, out, NULL);
    kt_cache_check(&cache, &part, 1, &params, out, NULL);
    kt_cache_close(&cache);
    quire_backend_destroy(backend);
}

static void bad_views_are_refused(void **state)
{
    (void)state;
    struct plan_case c;
    plan_open(&c);
    const struct quire_kv_ops *kv = c.backend->kv;
    float data[64] = {0};
    struct quire_attend_params params;
    quire_attend_params_init(&params);
    assert_int_equal(build(&c, (struct quire_step_part){0, 0, 1, 0}, 1), QUIRE_OK);
    struct quire_view k = quire_view_host(data, QUIRE_F32, 1, 2, 8);
    struct quire_view q = quire_view_host(data, QUIRE_F32, 1, 4, 8), o = q;
    struct quire_buffer *small = NULL;
    assert_int_equal(c.backend->memory->buffer_create(c.backend, 60, 0, &small), QUIRE_OK);
    struct quire_view bad[8] = {k, k, k, k, k, k, k, k};
    bad[0].host = NULL;
    bad[1].dtype = QUIRE_F16;
    bad[2].shape[0] = 2;
    bad[3].shape[1] = 1;
    bad[4].shape[2] = 7;
    bad[5].offset = 2;
    bad[6] = quire_view_buffer(small, 0, QUIRE_F32, 1, 2, 8);
    bad[7].stride[1] = UINT64_MAX / 2;
    for (size_t i = 0; i < QT_LEN(bad); i++) {
        assert_int_equal(kv->write(c.backend, c.cache.plan, 0, &bad[i], &k), QUIRE_E_INVAL);
        assert_int_equal(kv->write(c.backend, c.cache.plan, 0, &k, &bad[i]), QUIRE_E_INVAL);
        assert_int_equal(kv->attend(c.backend, c.cache.plan, 0, &bad[i], &o, &params),
                         QUIRE_E_INVAL);
        assert_int_equal(kv->attend(c.backend, c.cache.plan, 0, &q, &bad[i], &params),
                         QUIRE_E_INVAL);
    }
    assert_int_equal(kv->write(c.backend, c.cache.plan, 1, &k, &k), QUIRE_E_INVAL);
    assert_int_equal(kv->write(c.backend, NULL, 0, &k, &k), QUIRE_E_INVAL);
    assert_int_equal(kv->attend(c.backend, c.cache.plan, 1, &q, &o, &params), QUIRE_E_INVAL);
    assert_int_equal(kv->attend(c.backend, c.cache.plan, 0, &q, &o, NULL), QUIRE_E_INVAL);
    params.lse = quire_view_host(data, QUIRE_F32, 1, 1, 3);
    assert_int_equal(kv->attend(c.backend, c.cache.plan, 0, &q, &o, &params), QUIRE_E_INVAL);
    quire_attend_params_init(&params);
    params.softcap = -1;
    assert_int_equal(kv->attend(c.backend, c.cache.plan, 0, &q, &o, &params), QUIRE_E_INVAL);
    params.softcap = 0;
    params.struct_size = 1;
    assert_int_equal(kv->attend(c.backend, c.cache.plan, 0, &q, &o, &params), QUIRE_E_INVAL);
    c.backend->memory->buffer_destroy(c.backend, small);
    plan_close(&c);
}

/* ---- nn ---- */

static struct quire_weight_desc weight_desc(uint32_t type, uint64_t rows, uint64_t columns,
                                            const void *data, uint64_t bytes)
{
    return (struct quire_weight_desc){
        .type = type, .rows = rows, .columns = columns, .data = data, .bytes = bytes};
}

static void bad_weights_are_refused(void **state)
{
    (void)state;
    struct quire_backend *backend = kt_backend(NULL, 2);
    uint8_t bytes[40] = {0}, odd_bytes[132] = {0};
    struct quire_weight *weight = NULL;
    const struct quire_weight_desc bad[] = {
        weight_desc(QUIRE_W_Q4_1, 2, 33, "", 40),
        weight_desc(QUIRE_W_Q4_1, 0, 32, "", 40),
        weight_desc(QUIRE_W_Q4_1, 2, 0, "", 40),
        weight_desc(QUIRE_W_Q4_1, 3, 32, "", 40),
        weight_desc(QUIRE_W_Q4_1, 1, 32, "", 40),
        weight_desc(999, 2, 32, "", 40),
        weight_desc(QUIRE_W_Q4_1, 2, 32, NULL, 40),
        weight_desc(QUIRE_W_F32, UINT64_MAX, UINT64_MAX, "", 40),
    };
    for (size_t i = 0; i < QT_LEN(bad); i++) {
        assert_int_equal(backend->nn->weight_create(backend, &bad[i], &weight), QUIRE_E_INVAL);
        assert_null(weight);
    }
    struct quire_weight_desc good = weight_desc(QUIRE_W_Q4_1, 2, 32, bytes, 40);
    assert_int_equal(backend->nn->weight_create(backend, NULL, &weight), QUIRE_E_INVAL);
    assert_int_equal(backend->nn->weight_create(backend, &good, NULL), QUIRE_E_INVAL);
    quire__alloc_fail_after(0, false);
    assert_int_equal(backend->nn->weight_create(backend, &good, &weight), QUIRE_E_NOMEM);
    quire__alloc_fail_after(-1, false);
    /* The panels; then, as 33 columns need rows of x that are padded, room for those. */
    struct quire_weight_desc odd = weight_desc(QUIRE_W_F32, 1, 33, odd_bytes, sizeof odd_bytes);
    for (int64_t i = 1; i <= 2; i++) {
        quire__alloc_fail_after(i, false);
        assert_int_equal(backend->nn->weight_create(backend, &odd, &weight), QUIRE_E_NOMEM);
    }
    quire__alloc_fail_after(-1, false);
    assert_int_equal(backend->nn->weight_create(backend, &good, &weight), QUIRE_OK);
    float x[64] = {0}, y[8] = {0};
    uint32_t ids[2] = {1, 2};
    struct quire_view xv = quire_view_host(x, QUIRE_F32, 2, 1, 32);
    struct quire_view yv = quire_view_host(y, QUIRE_F32, 2, 1, 2);
    struct quire_view short_y = quire_view_host(y, QUIRE_F32, 1, 1, 2);
    struct quire_view id_view = quire_view_host(ids, QUIRE_U32, 2, 1, 1);
    assert_int_equal(backend->nn->linear(backend, weight, &xv, &yv), QUIRE_OK);
    assert_int_equal(backend->nn->linear(backend, weight, &yv, &yv), QUIRE_E_INVAL);
    assert_int_equal(backend->nn->linear(backend, weight, &xv, &short_y), QUIRE_E_INVAL);
    assert_int_equal(backend->nn->linear(backend, NULL, &xv, &yv), QUIRE_E_INVAL);
    x[0] = 5;
    assert_int_equal(backend->nn->embed(backend, weight, &id_view, &xv), QUIRE_E_INVAL);
    assert_true(x[0] == 5); /* id 2 is one too many: nothing was written */
    ids[1] = 0;
    assert_int_equal(backend->nn->embed(backend, weight, &id_view, &xv), QUIRE_OK);
    backend->nn->weight_destroy(backend, weight);
    backend->nn->weight_destroy(backend, NULL);
    quire_backend_destroy(backend);
}

/* The operations on rows, over views with gaps, many rows (on threads) and few; misuse. */
static void operations_walk_their_views(void **state)
{
    (void)state;
    enum { T = 200, H = 3, D = 50, GAP = 4, STRIDE = H * D + GAP };
    struct quire_backend *backend = kt_backend(NULL, 2);
    const struct quire_nn_ops *nn = backend->nn;
    struct qt_random random = {4};
    struct kt_guard xg, yg, wg, tg;
    float *x = kt_floats(&xg, &random, T * STRIDE - GAP, 1);
    float *y = kt_floats(&yg, &random, T * STRIDE - GAP, 1);
    float *w = kt_floats(&wg, &random, D, 1), *table = kt_floats(&tg, &random, T * D, 1);
    float *before = qt_alloc((T * STRIDE - GAP) * 4);
    struct quire_view xv = quire_view_host(x, QUIRE_F32, T, H, D), yv = xv;
    yv.host = y;
    xv.stride[0] = yv.stride[0] = STRIDE;
    struct quire_view wv = quire_view_host(w, QUIRE_F32, 1, 1, D);
    struct quire_view tv = quire_view_host(table, QUIRE_F32, T, D / 2, 2);
    memcpy(before, y, (T * STRIDE - GAP) * 4);
    assert_int_equal(nn->add(backend, &xv, &yv), QUIRE_OK);
    for (uint32_t i = 0; i < T * STRIDE - GAP; i++)
        assert_true(y[i] == (i % STRIDE < H * D ? before[i] + x[i] : before[i]));
    memcpy(before, y, (T * STRIDE - GAP) * 4);
    assert_int_equal(nn->scale(backend, -2.5f, &yv), QUIRE_OK);
    for (uint32_t i = 0; i < T * STRIDE - GAP; i++)
        assert_true(y[i] == (i % STRIDE < H * D ? before[i] * -2.5f : before[i]));
    assert_int_equal(nn->norm(backend, &wv, 1e-5f, &xv, &yv), QUIRE_OK);
    assert_int_equal(nn->activate(backend, QUIRE_SILU, &xv, &yv, &yv), QUIRE_OK);
    assert_int_equal(nn->activate(backend, QUIRE_GELU, &yv, &xv, &yv), QUIRE_OK);
    assert_int_equal(nn->rotary(backend, QUIRE_ROTARY_PAIRS, &tv, &xv), QUIRE_OK);
    assert_int_equal(nn->rotary(backend, QUIRE_ROTARY_HALVES, &tv, &xv), QUIRE_OK);
    for (uint32_t i = 0; i < T * STRIDE - GAP; i++)
        assert_true(i % STRIDE < H * D || y[i] == before[i]);
    struct quire_view bad = xv;
    bad.shape[2]--;
    struct quire_view wide = tv;
    wide.shape[1] = D / 2 + 1;
    assert_int_equal(nn->add(backend, &bad, &yv), QUIRE_E_INVAL);
    assert_int_equal(nn->add(backend, NULL, &yv), QUIRE_E_INVAL);
    assert_int_equal(nn->scale(backend, 2.0f, NULL), QUIRE_E_INVAL);
    assert_int_equal(nn->norm(backend, &wv, 1e-5f, &bad, &bad), QUIRE_E_INVAL);
    assert_int_equal(nn->activate(backend, QUIRE_SILU, &xv, &bad, &yv), QUIRE_E_INVAL);
    assert_int_equal(nn->activate(backend, (enum quire_activation)7, &xv, &yv, &yv), QUIRE_E_INVAL);
    assert_int_equal(nn->rotary(backend, QUIRE_ROTARY_PAIRS, &wide, &xv), QUIRE_E_INVAL);
    assert_int_equal(nn->rotary(backend, (enum quire_rotary_style)7, &tv, &xv), QUIRE_E_INVAL);
    uint32_t ids[T];
    struct quire_view rows = quire_view_host(x, QUIRE_F32, T, 1, D);
    struct quire_view id_view = quire_view_host(ids, QUIRE_U32, T, 1, 1);
    assert_int_equal(nn->argmax(backend, &rows, &id_view), QUIRE_OK);
    for (uint32_t t = 0; t < T; t++) {
        for (uint32_t d = 0; d < D; d++)
            assert_true(x[t * D + d] <= x[t * D + ids[t]]);
    }
    id_view.shape[0]--;
    assert_int_equal(nn->argmax(backend, &rows, &id_view), QUIRE_E_INVAL);
    struct quire_view empty = quire_view_host(NULL, QUIRE_F32, 0, H, D);
    assert_int_equal(nn->add(backend, &empty, &empty), QUIRE_OK);
    qt_free(before);
    kt_guard_free(&xg);
    kt_guard_free(&yg);
    kt_guard_free(&wg);
    kt_guard_free(&tg);
    quire_backend_destroy(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_levels),
        cmocka_unit_test(a_cap_means_that_level_or_the_best_below),
        cmocka_unit_test(none_keeps_ids_only),
        cmocka_unit_test(refused_memory_is_nomem),
        cmocka_unit_test(memory_checks_its_ranges),
        cmocka_unit_test(decommitted_memory_reads_as_zero),
        cmocka_unit_test(bad_specs_are_refused),
        cmocka_unit_test(own_buffers_must_hold_every_page),
        cmocka_unit_test(plans_survive_refused_memory),
        cmocka_unit_test(a_family_without_room_is_none),
        cmocka_unit_test(bad_steps_are_refused),
        cmocka_unit_test(pages_out_of_the_window_may_be_gone),
        cmocka_unit_test(bad_views_are_refused),
        cmocka_unit_test(bad_weights_are_refused),
        cmocka_unit_test(operations_walk_their_views),
    };
    return cmocka_run_group_tests_name("unit/cpu_backend", tests, NULL, NULL);
}
