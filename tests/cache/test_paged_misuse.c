/* test_paged_misuse.c - wrong configs, batches and views over a caller's own pages.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each is a status and one line, and changes nothing: the last plan still works. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "cache_fixture.h"

enum { PAGES = 8, P = 4, G = 2, H = 4, D = 16, PLANE = PAGES * P * G * D };

struct own {
    struct quire_backend *backend;
    struct quire_paged_config config;
    struct quire_paged_layer layers[2];
    float memory[4][PLANE + 1]; /* K, V of both layers */
    struct quire_paged *paged;
    float q[8 * H * D], k[8 * G * D], v[8 * G * D], out[8 * H * D];
};

static void own_init(struct own *own)
{
    memset(own, 0, sizeof *own);
    own->backend = qt_backend("cpu", 1);
    for (uint32_t i = 0; i < 2; i++)
        own->layers[i] = (struct quire_paged_layer){
            .num_heads = H,
            .num_kv_heads = G,
            .head_dim = D,
            .window = i == 0 ? 9 : 6,
            .k = {.memory = own->memory[2 * i], .bytes = PLANE * sizeof(float)},
            .v = {.memory = own->memory[2 * i + 1], .bytes = PLANE * sizeof(float)},
        };
    quire_paged_config_init(&own->config);
    own->config.backend = own->backend;
    own->config.layers = own->layers;
    own->config.num_layers = 2;
    own->config.page_size = P;
    own->config.num_pages = PAGES;
    own->config.max_seqs = 3;
    own->config.max_seq_pages = 6;
    own->config.max_step_tokens = 8;
}

static struct own *own_open(void)
{
    struct own *own = qt_alloc(sizeof *own);
    own_init(own);
    qt_assert_ok(quire_paged_create(&own->config, &own->paged, NULL));
    return own;
}

static void own_close(struct own *own)
{
    quire_paged_destroy(own->paged);
    quire_backend_destroy(own->backend);
    qt_free(own);
}

/* A failed call says why, in one line. */
static void assert_says(const struct quire_error *error, quire_status status, const char *what)
{
    assert_int_equal(error->status, status);
    assert_null(strchr(error->message, '\n'));
    if (strstr(error->message, what) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error->message, what);
}

/* ---- configs ---- */

#define CONFIG_CASE(field, value, status, says)                                                    \
    do {                                                                                           \
        struct quire_error error = {0};                                                            \
        struct quire_paged *paged = NULL;                                                          \
        own_init(own);                                                                             \
        (field) = (value);                                                                         \
        qt_assert_status(quire_paged_create(&own->config, &paged, &error), status);                \
        assert_null(paged);                                                                        \
        assert_says(&error, status, says);                                                         \
        own->config.backend = own->backend;                                                        \
        quire_backend_destroy(own->backend);                                                       \
    } while (0)

static void test_bad_configs_are_refused(void **state)
{
    (void)state;
    struct own *own = qt_alloc(sizeof *own);
    struct quire_paged_layer *layer = &own->layers[1];
    CONFIG_CASE(own->config.struct_size, 8, QUIRE_E_INVAL, "quire_paged_config_init");
    CONFIG_CASE(own->config.backend, NULL, QUIRE_E_INVAL, "backend");
    CONFIG_CASE(own->backend->struct_size, 1, QUIRE_E_INVAL, "version");
    CONFIG_CASE(own->config.layers, NULL, QUIRE_E_INVAL, "no layers");
    CONFIG_CASE(own->config.num_layers, 0, QUIRE_E_INVAL, "no layers");
    CONFIG_CASE(own->config.num_layers, QUIRE_MAX_LAYERS + 1, QUIRE_E_LIMIT, "4096 layers");
    CONFIG_CASE(own->config.kv_rotation, 3, QUIRE_E_INVAL, "kv_rotation is 3");
    CONFIG_CASE(own->config.page_size, 0, QUIRE_E_INVAL, "page_size");
    CONFIG_CASE(own->config.page_size, 65537, QUIRE_E_LIMIT, "65536 positions");
    CONFIG_CASE(own->backend->caps.block_size_max, 2, QUIRE_E_UNSUPPORTED, "1 to 2, not 4");
    CONFIG_CASE(own->config.num_pages, 0, QUIRE_E_INVAL, "num_pages");
    CONFIG_CASE(own->config.num_pages, UINT32_MAX, QUIRE_E_LIMIT, "pages");
    CONFIG_CASE(own->config.num_pages, PAGES + 1, QUIRE_E_INVAL, "layer 0: 9 pages of k");
    CONFIG_CASE(own->config.max_seqs, 0, QUIRE_E_INVAL, "max_seqs");
    CONFIG_CASE(own->config.max_seqs, QUIRE_MAX_SEQS + 1, QUIRE_E_LIMIT, "65536 sequences");
    CONFIG_CASE(own->config.max_seq_pages, 0, QUIRE_E_INVAL, "max_seq_pages");
    CONFIG_CASE(own->config.max_seq_pages, QUIRE_MAX_SEQ_LEN / P + 1, QUIRE_E_LIMIT, "positions");
    CONFIG_CASE(own->config.max_step_tokens, 0, QUIRE_E_INVAL, "max_step_tokens");
    CONFIG_CASE(own->config.max_step_tokens, UINT32_MAX, QUIRE_E_LIMIT, "tokens in a step");
    CONFIG_CASE(layer->num_heads, 3, QUIRE_E_INVAL, "layer 1: 3 query heads are not a multiple");
    CONFIG_CASE(layer->num_heads, 0, QUIRE_E_INVAL, "layer 1");
    CONFIG_CASE(layer->num_kv_heads, 0, QUIRE_E_INVAL, "layer 1");
    CONFIG_CASE(layer->num_heads, QUIRE_MAX_HEADS * 2, QUIRE_E_LIMIT, "65536 heads");
    CONFIG_CASE(layer->head_dim, 0, QUIRE_E_INVAL, "head_dim is 0");
    CONFIG_CASE(layer->head_dim, 513, QUIRE_E_UNSUPPORTED, "head dims 1 to 512, not 513");
    CONFIG_CASE(layer->head_dim_v, UINT32_MAX, QUIRE_E_LIMIT, "65536 elements");
    CONFIG_CASE(layer->dtype_k, QUIRE_U32, QUIRE_E_UNSUPPORTED, "f32, f16, bf16, q8 or q4");
    CONFIG_CASE(layer->dtype_v, 99, QUIRE_E_UNSUPPORTED, "f32, f16, bf16, q8 or q4");
    CONFIG_CASE(own->backend->caps.kv_dtypes, 2, QUIRE_E_UNSUPPORTED, "in f32; it has: f16");
    own_init(own);
    layer->head_dim = 24;
    layer->dtype_v = QUIRE_Q4;
    struct quire_error error = {0};
    qt_assert_status(quire_paged_create(&own->config, &own->paged, &error), QUIRE_E_UNSUPPORTED);
    assert_says(&error, QUIRE_E_UNSUPPORTED, "q4 has head dims that are multiples of 16, not 24");
    qt_assert_status(quire_paged_create(NULL, &own->paged, &error), QUIRE_E_INVAL);
    qt_assert_status(quire_paged_create(&own->config, NULL, NULL), QUIRE_E_INVAL);
    quire_paged_destroy(NULL);
    own_close(own);
}

static void test_bad_planes_are_refused(void **state)
{
    (void)state;
    struct own *own = qt_alloc(sizeof *own);
    struct quire_paged_plane *v = &own->layers[1].v;
    const uint64_t page = P * G * D * sizeof(float);
    CONFIG_CASE(v->memory, NULL, QUIRE_E_INVAL, "layer 1: v needs a buffer or memory");
    CONFIG_CASE(v->buffer, (struct quire_buffer *)own, QUIRE_E_INVAL, "and not both");
    CONFIG_CASE(v->bytes, PAGES * page - 1, QUIRE_E_INVAL, "layer 1: 8 pages of v do not fit");
    CONFIG_CASE(v->bytes, 0, QUIRE_E_INVAL, "do not fit");
    CONFIG_CASE(v->offset, 4, QUIRE_E_INVAL, "from offset 4 on");
    CONFIG_CASE(v->offset, 2, QUIRE_E_INVAL, "multiples of 4 bytes");
    CONFIG_CASE(v->offset, UINT64_MAX - 3, QUIRE_E_INVAL, "do not fit");
    CONFIG_CASE(v->memory, (uint8_t *)own->memory[3] + 1, QUIRE_E_INVAL, "multiples of 4 bytes");
    CONFIG_CASE(v->page_bytes, page - 4, QUIRE_E_INVAL, "would overlap");
    CONFIG_CASE(v->page_bytes, page + 2, QUIRE_E_INVAL, "multiples of 4 bytes");
    CONFIG_CASE(v->page_bytes, page + 4, QUIRE_E_INVAL, "do not fit");
    CONFIG_CASE(v->page_bytes, UINT64_MAX - 3, QUIRE_E_INVAL, "do not fit");
    CONFIG_CASE(own->backend->caps.flags, QUIRE_CAP_KV, QUIRE_E_UNSUPPORTED, "give a buffer");
    CONFIG_CASE(own->backend->caps.layouts, 2, QUIRE_E_UNSUPPORTED, "no paged layout");
    qt_free(own);
}

static void test_backends_that_cannot(void **state)
{
    (void)state;
    struct own *own = qt_alloc(sizeof *own);
    struct quire_error error = {0};
    own_init(own);
    struct quire_backend *none = qt_backend("none", 1), *cpu = own->backend;
    own->config.backend = none;
    qt_assert_status(quire_paged_create(&own->config, &own->paged, &error), QUIRE_E_UNSUPPORTED);
    assert_says(&error, QUIRE_E_UNSUPPORTED, "backend none holds no K/V");
    /* A buffer that is smaller than said, and one of another backend. */
    struct quire_paged_plane *k = &own->layers[0].k;
    for (uint32_t i = 0; i < 2; i++) {
        struct quire_backend *maker = i == 0 ? cpu : none;
        qt_assert_ok(
            maker->memory->buffer_create(maker, i == 0 ? k->bytes - 4 : k->bytes, 0, &k->buffer));
        k->memory = NULL;
        own->config.backend = cpu;
        qt_assert_status(quire_paged_create(&own->config, &own->paged, &error), QUIRE_E_INVAL);
        assert_says(&error, QUIRE_E_INVAL, "backend cpu refuses a buffer");
        maker->memory->buffer_destroy(maker, k->buffer);
    }
    quire_backend_destroy(none);
    own_close(own);
}

static void test_refused_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    struct own *own = qt_alloc(sizeof *own);
    own_init(own);
    for (int64_t n = 0; own->paged == NULL; n++) {
        struct quire_error error = {0};
        quire__alloc_fail_after(n, false);
        quire_status status = quire_paged_create(&own->config, &own->paged, &error);
        quire__alloc_fail_after(-1, false);
        qt_status_is(status, own->paged == NULL ? QUIRE_E_NOMEM : QUIRE_OK, "create", __FILE__,
                     __LINE__);
        assert_true(status == QUIRE_OK ? n > 10 : error.message[0] != '\0');
    }
    own_close(own);
}

/* ---- batches ---- */

/* Two sequences: 7 positions, 2 of them new, and 5 positions, 3 of them new. */
struct csr {
    uint32_t qo[4], kv[4], pages[12], last[3];
    struct quire_paged_batch batch;
};

static void csr_init(struct csr *csr)
{
    *csr = (struct csr){.qo = {0, 2, 5}, .kv = {0, 2, 4}, .pages = {3, 1, 6, 0}, .last = {3, 1}};
    csr->batch =
        (struct quire_paged_batch){sizeof csr->batch, 2, csr->qo, csr->kv, csr->pages, csr->last};
}

static quire_status run(struct own *own, uint32_t rows)
{
    struct quire_error error = {0};
    struct quire_view k = quire_view_host(own->k, QUIRE_F32, rows, G, D);
    struct quire_view v = quire_view_host(own->v, QUIRE_F32, rows, G, D);
    struct quire_view q = quire_view_host(own->q, QUIRE_F32, rows, H, D);
    struct quire_view out = quire_view_host(own->out, QUIRE_F32, rows, H, D);
    quire_status status = quire_paged_write(own->paged, 1, &k, &v, &error);
    if (status == QUIRE_OK)
        status = quire_paged_attend(own->paged, 1, &q, &out, NULL, &error);
    assert_true((status == QUIRE_OK) == (error.message[0] == '\0'));
    return status;
}

#define BATCH_CASE(field, value, status, says)                                                     \
    do {                                                                                           \
        struct quire_error error = {0};                                                            \
        struct csr csr;                                                                            \
        csr_init(&csr);                                                                            \
        (field) = (value);                                                                         \
        qt_assert_status(quire_paged_plan(own->paged, &csr.batch, &error), status);                \
        assert_says(&error, status, says);                                                         \
        qt_assert_ok(run(own, 5)); /* the plan before it */                                        \
    } while (0)

static void test_bad_batches_are_refused(void **state)
{
    (void)state;
    struct own *own = own_open();
    struct csr good;
    csr_init(&good);
    qt_assert_status(run(own, 5), QUIRE_E_INVAL); /* no plan yet */
    qt_assert_ok(quire_paged_plan(own->paged, &good.batch, NULL));
    qt_assert_status(quire_paged_plan(NULL, &good.batch, NULL), QUIRE_E_INVAL);
    qt_assert_status(quire_paged_plan(own->paged, NULL, NULL), QUIRE_E_INVAL);
    BATCH_CASE(csr.batch.struct_size, 0, QUIRE_E_INVAL, "struct_size");
    BATCH_CASE(csr.batch.num_seqs, 4, QUIRE_E_LIMIT, "4 sequences, over max_seqs, which is 3");
    BATCH_CASE(csr.batch.qo_indptr, NULL, QUIRE_E_INVAL, "NULL");
    BATCH_CASE(csr.batch.kv_indptr, NULL, QUIRE_E_INVAL, "NULL");
    BATCH_CASE(csr.batch.kv_indices, NULL, QUIRE_E_INVAL, "kv_indices");
    BATCH_CASE(csr.batch.last_page_len, NULL, QUIRE_E_INVAL, "NULL");
    BATCH_CASE(csr.qo[0], 1, QUIRE_E_INVAL, "qo_indptr begins at 1");
    BATCH_CASE(csr.kv[0], 1, QUIRE_E_INVAL, "kv_indptr begins at 1");
    BATCH_CASE(csr.qo[1], 6, QUIRE_E_INVAL, "qo_indptr falls from 6 to 5 at sequence 1");
    BATCH_CASE(csr.kv[2], 1, QUIRE_E_INVAL, "kv_indptr falls from 2 to 1 at sequence 1");
    BATCH_CASE(csr.qo[2], 9, QUIRE_E_LIMIT, "9 new tokens, over max_step_tokens, which is 8");
    BATCH_CASE(csr.kv[2], 9, QUIRE_E_LIMIT, "sequence 1: 7 pages, over max_seq_pages");
    BATCH_CASE(csr.kv[2], UINT32_MAX, QUIRE_E_LIMIT, "over max_seq_pages");
    BATCH_CASE(csr.pages[2], PAGES, QUIRE_E_INVAL, "sequence 1: page 0 of it is 8; there are 8");
    BATCH_CASE(csr.pages[3], QUIRE_BLOCK_NONE, QUIRE_E_INVAL, "sequence 1: page 1 of it is none");
    BATCH_CASE(csr.last[0], 0, QUIRE_E_INVAL, "sequence 0: last_page_len is 0, not 1 to 4");
    BATCH_CASE(csr.last[1], 5, QUIRE_E_INVAL, "sequence 1: last_page_len is 5, not 1 to 4");
    BATCH_CASE(csr.qo[2], 8, QUIRE_E_INVAL, "sequence 1: 6 new tokens, but 5 positions");
    BATCH_CASE(csr.kv[2], 2, QUIRE_E_INVAL, "sequence 1: 3 new tokens, but 0 positions");
    BATCH_CASE(csr.pages[2], 1, QUIRE_E_INVAL, "sequence 1 writes row 2 of page 1");
    own_close(own);
}

static void test_what_may_be_empty(void **state)
{
    (void)state;
    struct own *own = own_open();
    struct csr csr;
    csr_init(&csr);
    struct quire_paged_batch empty = {.struct_size = sizeof empty};
    qt_assert_ok(quire_paged_plan(own->paged, &empty, NULL));
    qt_assert_ok(quire_paged_write(own->paged, 0, NULL, NULL, NULL)); /* no row is read */
    qt_assert_ok(quire_paged_attend(own->paged, 0, NULL, NULL, NULL, NULL));
    qt_assert_status(quire_paged_write(own->paged, 2, NULL, NULL, NULL), QUIRE_E_INVAL);
    csr.batch.num_seqs = 3; /* the third has no pages and no new tokens */
    csr.qo[3] = 5, csr.kv[3] = 4, csr.last[2] = 77;
    qt_assert_ok(quire_paged_plan(own->paged, &csr.batch, NULL));
    qt_assert_ok(run(own, 5));
    csr.qo[1] = 0; /* now the first only lies there, and the second has five new ones */
    qt_assert_ok(quire_paged_plan(own->paged, &csr.batch, NULL));
    qt_assert_ok(run(own, 5));
    memset(csr.qo, 0, sizeof csr.qo);
    qt_assert_ok(quire_paged_plan(own->paged, &csr.batch, NULL));
    qt_assert_ok(quire_paged_attend(own->paged, 1, NULL, NULL, NULL, NULL));
    memset(own->memory, 0, sizeof own->memory);
    qt_assert_ok(quire_paged_plan(own->paged, &csr.batch, NULL));
    for (uint32_t i = 0; i < 4 * (PLANE + 1); i++)
        assert_true((&own->memory[0][0])[i] == 0.0f);
    own_close(own);
}

/* Sequences may write to other rows of one page, and read what another writes. */
static void test_one_page_may_be_written_in_other_rows(void **state)
{
    (void)state;
    struct own *own = own_open();
    struct csr csr;
    csr_init(&csr);
    csr.pages[3] = csr.pages[1]; /* its row 0, beside rows 1 and 2 */
    csr.qo[2] = 3;
    qt_assert_ok(quire_paged_plan(own->paged, &csr.batch, NULL));
    qt_assert_ok(run(own, 3));
    csr.last[1] = 2; /* row 1 as well */
    qt_assert_status(quire_paged_plan(own->paged, &csr.batch, NULL), QUIRE_E_INVAL);
    csr.last[1] = 1; /* nothing is left of the refused one */
    qt_assert_ok(quire_paged_plan(own->paged, &csr.batch, NULL));
    own_close(own);
}

/* ---- calls ---- */

static void test_bad_calls_are_refused(void **state)
{
    (void)state;
    struct own *own = own_open();
    struct quire_error error = {0};
    struct csr csr;
    csr_init(&csr);
    qt_assert_ok(quire_paged_plan(own->paged, &csr.batch, NULL));
    memset(own->memory, 0, sizeof own->memory);
    memset(own->k, 1, sizeof own->k);
    memset(own->v, 1, sizeof own->v);
    const struct quire_view k = quire_view_host(own->k, QUIRE_F32, 5, G, D);
    const struct quire_view q = quire_view_host(own->q, QUIRE_F32, 5, H, D);
    struct quire_view bad[8] = {k, k, k, k, k, k, k, k};
    bad[0].shape[0] = 4;
    bad[1].shape[1] = 1;
    bad[2].shape[2] = 8;
    bad[3].dtype = QUIRE_F16;
    bad[4].host = NULL;
    bad[5].host = (uint8_t *)own->k + 1;
    bad[6].stride[0] = UINT64_MAX;
    struct quire_view folded = q;
    folded.stride[0] = 0;
    for (uint32_t i = 0; i < 7; i++) {
        qt_assert_status(quire_paged_write(own->paged, 0, &bad[i], &k, &error), QUIRE_E_INVAL);
        assert_says(&error, QUIRE_E_INVAL, i < 5 ? "k must be a view of f32 [5, 2, 16]" : "cpu");
        qt_assert_status(quire_paged_write(own->paged, 0, &k, &bad[i], &error), QUIRE_E_INVAL);
        qt_assert_status(quire_paged_attend(own->paged, 0, &bad[i], &q, NULL, &error),
                         QUIRE_E_INVAL);
        assert_says(&error, QUIRE_E_INVAL, "q must be");
        qt_assert_status(quire_paged_attend(own->paged, 0, &q, &bad[i], NULL, &error),
                         QUIRE_E_INVAL);
    }
    qt_assert_status(quire_paged_attend(own->paged, 0, &q, &folded, NULL, &error), QUIRE_E_INVAL);
    assert_says(&error, QUIRE_E_INVAL,
                "tokens or heads of out overlap or interleave: strides 0 and 16");
    qt_assert_status(quire_paged_write(NULL, 0, &k, &k, &error), QUIRE_E_INVAL);
    qt_assert_status(quire_paged_write(own->paged, 0, NULL, &k, &error), QUIRE_E_INVAL);
    qt_assert_status(quire_paged_write(own->paged, 0, &k, NULL, &error), QUIRE_E_INVAL);
    qt_assert_status(quire_paged_write(own->paged, 2, &k, &k, &error), QUIRE_E_INVAL);
    assert_says(&error, QUIRE_E_INVAL, "layer 2; there are 2 layers");
    qt_assert_status(quire_paged_attend(NULL, 0, &q, &q, NULL, &error), QUIRE_E_INVAL);
    qt_assert_status(quire_paged_attend(own->paged, 0, NULL, &q, NULL, &error), QUIRE_E_INVAL);
    qt_assert_status(quire_paged_attend(own->paged, 0, &q, NULL, NULL, &error), QUIRE_E_INVAL);
    for (uint32_t i = 0; i < 4 * (PLANE + 1); i++)
        assert_true((&own->memory[0][0])[i] == 0.0f); /* nothing was written */
    own_close(own);
}

static void test_bad_params_are_refused(void **state)
{
    (void)state;
    struct own *own = own_open();
    struct csr csr;
    csr_init(&csr);
    qt_assert_ok(quire_paged_plan(own->paged, &csr.batch, NULL));
    const struct quire_view q = quire_view_host(own->q, QUIRE_F32, 5, H, D);
    const struct quire_view out = quire_view_host(own->out, QUIRE_F32, 5, H, D);
    for (uint32_t i = 0; i < 6; i++) {
        struct quire_error error = {0};
        struct quire_attend_params params;
        quire_attend_params_init(&params);
        params.struct_size -= i == 0;
        params.scale = i == 1 ? NAN : 0;
        params.softcap = i == 2 ? INFINITY : i == 3 ? -1.0f : 0;
        if (i == 4)
            params.lse = quire_view_host(own->q, QUIRE_F32, 5, H, 1);
        if (i == 5)
            params.lse = quire_view_host(own->q, QUIRE_F16, 5, 1, H);
        qt_assert_status(quire_paged_attend(own->paged, 0, &q, &out, &params, &error),
                         QUIRE_E_INVAL);
        assert_says(&error, QUIRE_E_INVAL, "quire_attend_params_init");
    }
    own_close(own);
}

/* After a device's late failure there is no plan; once it has recovered, a plan works again. */
static void test_a_device_that_fails(void **state)
{
    (void)state;
    struct own *own = qt_alloc(sizeof *own);
    own_init(own);
    struct quire_backend *cpu = own->backend, *opaque = NULL;
    struct qt_opaque_options options = {.seed = 1, .wrap = true, .max_queue = 1};
    struct quire_error error = {0};
    struct csr csr;
    csr_init(&csr);
    qt_assert_ok(qt_opaque_create(&options, &opaque));
    own->config.backend = opaque;
    qt_assert_ok(quire_paged_create(&own->config, &own->paged, NULL));
    qt_assert_ok(quire_paged_plan(own->paged, &csr.batch, NULL));
    qt_opaque_fail(opaque, QT_CALL_EXECUTE, 0, QUIRE_E_DEVICE);
    quire_fence fence = 0;
    qt_assert_ok(opaque->memory->fence_record(opaque, &fence));
    (void)opaque->memory->fence_wait(opaque, fence);
    qt_assert_status(quire_paged_plan(own->paged, &csr.batch, &error), QUIRE_E_DEVICE);
    assert_says(&error, QUIRE_E_DEVICE, "backend opaque cannot plan the step: device error");
    qt_assert_status(run(own, 5), QUIRE_E_INVAL);
    qt_opaque_fail_none(opaque);
    qt_assert_ok(opaque->memory->recover(opaque));
    qt_assert_ok(quire_paged_plan(own->paged, &csr.batch, NULL));
    quire_paged_destroy(own->paged);
    assert_int_equal(qt_opaque_live_objects(opaque), 0);
    assert_null(qt_opaque_violation(opaque));
    quire_backend_destroy(opaque);
    quire_backend_destroy(cpu);
    qt_free(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_configs_are_refused),
        cmocka_unit_test(test_bad_planes_are_refused),
        cmocka_unit_test(test_backends_that_cannot),
        cmocka_unit_test(test_refused_memory_leaves_nothing_behind),
        cmocka_unit_test(test_bad_batches_are_refused),
        cmocka_unit_test(test_what_may_be_empty),
        cmocka_unit_test(test_one_page_may_be_written_in_other_rows),
        cmocka_unit_test(test_bad_calls_are_refused),
        cmocka_unit_test(test_bad_params_are_refused),
        cmocka_unit_test(test_a_device_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
