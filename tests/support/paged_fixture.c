/* paged_fixture.c - pages of a caller's own beside a pool that holds the same sequences.
 * SPDX-License-Identifier: Apache-2.0 */
#include "paged_fixture.h"

#include <string.h>

#include "attention_oracle.h"

static uint64_t plane_bytes(const struct quire_paged_layer *layer, uint32_t page_size, bool is_k)
{
    uint32_t dtype = is_k ? layer->dtype_k : layer->dtype_v;
    uint32_t dim = is_k || layer->head_dim_v == 0 ? layer->head_dim : layer->head_dim_v;
    return (uint64_t)layer->num_kv_heads * page_size * qt_head_bytes(dtype, dim);
}

/* Memory for planes: the host's where the backend takes it, else a buffer. The bytes are NaN or
 * nonsense before they are written. */
static void give_memory(struct pg_pages *pages, struct quire_paged_plane *plane, uint64_t bytes)
{
    uint32_t i = pages->num_memories++;
    struct quire_backend *backend = pages->env->backend;
    if ((backend->caps.flags & QUIRE_CAP_WRAP) != 0) {
        pages->memory[i] = qt_alloc(bytes);
        memset(pages->memory[i], 0xff, bytes);
    } else {
        qt_assert_ok(backend->memory->buffer_create(backend, bytes, 0, &pages->buffers[i]));
        qt_assert_ok(backend->memory->fill(backend, pages->buffers[i], 0, bytes, 0xff));
    }
    *plane = (struct quire_paged_plane){
        .buffer = pages->buffers[i], .memory = pages->memory[i], .bytes = bytes};
}

static void place_planes(struct pg_pages *pages, enum pg_memory memory)
{
    uint64_t page = 0, offset = 0;
    uint32_t num = pages->config.num_layers, size = pages->config.page_size;
    struct quire_paged_plane all;
    for (uint32_t i = 0; i < 2 * num; i++)
        page += (plane_bytes(&pages->layers[i / 2], size, i % 2 == 0) + 7) / 4 * 4;
    if (memory != PG_EACH)
        give_memory(pages, &all, page * PG_PAGES);
    for (uint32_t i = 0; i < 2 * num; i++) {
        struct quire_paged_layer *layer = &pages->layers[i / 2];
        struct quire_paged_plane *plane = i % 2 == 0 ? &layer->k : &layer->v;
        uint64_t bytes = plane_bytes(layer, size, i % 2 == 0);
        if (memory == PG_EACH) {
            give_memory(pages, plane, bytes * PG_PAGES);
            continue;
        }
        *plane = all;
        plane->offset = offset;
        bytes = (bytes + 7) / 4 * 4; /* a gap as well */
        plane->page_bytes = memory == PG_WEAVE ? page : bytes;
        offset += memory == PG_WEAVE ? bytes : bytes * PG_PAGES;
    }
}

void pg_open(struct pg_pages *pages, struct qt_env *env, uint32_t page_size, enum pg_memory memory,
             uint64_t seed)
{
    const struct quire_memory_ops *ops = env->backend->memory;
    struct qt_random random = {seed};
    struct quire_error error = {0};
    memset(pages, 0, sizeof *pages);
    pages->env = env;
    for (uint32_t i = 0; i < env->geometry->num_layers; i++) {
        const struct quire_group_config *group = qt_group_of(env->geometry, i);
        pages->layers[i] = (struct quire_paged_layer){
            .num_heads = group->num_heads,
            .num_kv_heads = group->num_kv_heads,
            .head_dim = group->head_dim,
            .head_dim_v = group->head_dim_v,
            .window = group->window,
            .sink_positions = group->sink_positions,
            .dtype_k = env->config.dtype_k,
            .dtype_v = env->config.dtype_v,
        };
    }
    quire_paged_config_init(&pages->config);
    pages->config.backend = env->backend;
    pages->config.layers = pages->layers;
    pages->config.num_layers = env->geometry->num_layers;
    pages->config.kv_rotation = env->config.kv_rotation;
    pages->config.page_size = page_size;
    pages->config.num_pages = PG_PAGES;
    pages->config.max_seqs = PG_SEQS;
    pages->config.max_seq_pages = PG_SEQ_PAGES;
    pages->config.max_step_tokens = env->config.max_step_tokens;
    place_planes(pages, memory);
    if (quire_paged_create(&pages->config, &pages->paged, &error) != QUIRE_OK)
        fail_msg("paged: %s", error.message);
    memset(pages->layers, 0xff, sizeof pages->layers); /* read before the call returned */
    for (uint32_t i = 0; i < PG_PAGES; i++) {
        uint32_t j = qt_below(&random, i + 1);
        pages->free[i] = pages->free[j];
        pages->free[j] = i;
    }
    pages->num_free = PG_PAGES;
    uint64_t rows = env->config.max_step_tokens * sizeof(float);
    pages->host_out = qt_alloc(rows * env->out_floats);
    pages->host_lse = qt_alloc(rows * env->lse_floats);
    qt_assert_ok(ops->buffer_create(env->backend, rows * env->out_floats, 0, &pages->out));
    qt_assert_ok(ops->buffer_create(env->backend, rows * env->lse_floats, 0, &pages->lse));
}

void pg_close(struct pg_pages *pages)
{
    struct quire_backend *backend = pages->env->backend;
    quire_paged_destroy(pages->paged);
    backend->memory->buffer_destroy(backend, pages->out);
    backend->memory->buffer_destroy(backend, pages->lse);
    for (uint32_t i = 0; i < pages->num_memories; i++) {
        backend->memory->buffer_destroy(backend, pages->buffers[i]);
        qt_free(pages->memory[i]);
    }
    qt_free(pages->host_out);
    qt_free(pages->host_lse);
}

void pg_grow(struct pg_pages *pages, uint32_t s, uint32_t n_new)
{
    struct pg_sequence *seq = &pages->seqs[s];
    uint32_t size = pages->config.page_size;
    seq->len += n_new;
    for (; (uint64_t)seq->num_pages * size < seq->len; seq->num_pages++) {
        assert_true(pages->num_free > 0 && seq->num_pages < PG_SEQ_PAGES);
        seq->pages[seq->num_pages] = pages->free[--pages->num_free];
    }
}

void pg_share(struct pg_pages *pages, uint32_t from, uint32_t to, uint32_t len)
{
    struct pg_sequence *seq = &pages->seqs[to];
    assert_int_equal(len % pages->config.page_size, 0);
    seq->len = len;
    seq->num_pages = len / pages->config.page_size;
    memcpy(seq->pages, pages->seqs[from].pages, sizeof seq->pages);
}

void pg_add(const struct pg_pages *pages, struct pg_batch *batch, uint32_t s, uint32_t n_new)
{
    const struct pg_sequence *seq = &pages->seqs[s];
    uint32_t i = batch->batch.num_seqs, size = pages->config.page_size;
    batch->batch = (struct quire_paged_batch){
        sizeof batch->batch,  i + 1, batch->qo_indptr, batch->kv_indptr, batch->kv_indices,
        batch->last_page_len,
    };
    batch->qo_indptr[i + 1] = batch->qo_indptr[i] + n_new;
    batch->kv_indptr[i + 1] = batch->kv_indptr[i] + seq->num_pages;
    memcpy(batch->kv_indices + batch->kv_indptr[i], seq->pages,
           seq->num_pages * sizeof *seq->pages);
    batch->last_page_len[i] = seq->len == 0 ? 0 : (seq->len - 1) % size + 1;
}

/* k, v or q as the pool's call left it: rows of the host, or on the device. */
static struct quire_view input(const struct pg_pages *pages, const struct qt_batch *batch,
                               uint32_t layer, enum qt_plane plane)
{
    const struct qt_env *env = pages->env;
    const struct quire_group_config *group = qt_group_of(env->geometry, layer);
    uint32_t heads = plane == QT_Q ? group->num_heads : group->num_kv_heads;
    uint32_t dim = plane == QT_V ? qt_head_dim_v(group) : group->head_dim;
    uint32_t first = 0;
    for (int before = QT_K; before < (int)plane; before++)
        first += qt_row_elements(env->geometry, layer, (enum qt_plane)before);
    struct quire_view view =
        quire_view_host(env->host_inputs, QUIRE_F32, batch->num_tokens, heads, dim);
    view.offset = first * sizeof(float);
    view.stride[0] = env->row_floats;
    if (!env->host_views)
        view.buffer = env->inputs;
    return view;
}

static void assert_done(quire_status status, const struct quire_error *error)
{
    if (status != QUIRE_OK)
        fail_msg("%s: %s", quire_status_name(status), error->message);
}

void pg_write(struct pg_pages *pages, const struct qt_batch *batch, uint32_t layer)
{
    struct quire_error error = {0};
    struct quire_view k = input(pages, batch, layer, QT_K), v = input(pages, batch, layer, QT_V);
    assert_done(quire_paged_write(pages->paged, layer, &k, &v, &error), &error);
}

void pg_attend(struct pg_pages *pages, const struct qt_batch *batch, uint32_t layer,
               const struct qt_attend *how)
{
    struct qt_env *env = pages->env;
    const struct quire_memory_ops *memory = env->backend->memory;
    const struct quire_group_config *group = qt_group_of(env->geometry, layer);
    uint32_t heads = group->num_heads, dim = qt_head_dim_v(group), rows = batch->num_tokens;
    struct quire_error error = {0};
    struct quire_attend_params params;
    float slopes[64], sinks[64];
    quire_attend_params_init(&params);
    params.scale = how->scale;
    params.softcap = how->softcap;
    for (uint32_t h = 0; h < heads; h++) {
        slopes[h] = qt_alibi_slope(h);
        sinks[h] = qt_sink_logit(h);
    }
    params.alibi_slopes = how->alibi ? slopes : NULL;
    params.sink_logits = how->sink_logits ? sinks : NULL;
    if (how->lse)
        params.lse = quire_view_buffer(pages->lse, 0, QUIRE_F32, rows, 1, heads);
    struct quire_view q = input(pages, batch, layer, QT_Q);
    struct quire_view out = quire_view_buffer(pages->out, 0, QUIRE_F32, rows, heads, dim);
    assert_done(quire_paged_attend(pages->paged, layer, &q, &out, &params, &error), &error);
    uint64_t bytes = (uint64_t)rows * heads * sizeof(float);
    qt_assert_ok(memory->download(env->backend, pages->out, 0, bytes * dim, pages->host_out));
    qt_assert_ok(
        memory->download(env->backend, pages->lse, 0, how->lse ? bytes : 0, pages->host_lse));
    qt_wait(env);
}
