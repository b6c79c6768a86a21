/* decoder.c - what the architectures share: shapes, embeddings, tensors of a layer, activations.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/arch.h"

#include <stdio.h>

/* More than any model has, and small enough that no product of two overflows 64 bits. */
#define WIDTH_MAX (1u << 24)

/* ---- shapes ---- */

static quire_status load_heads(struct quire__model *model, struct quire_error *error)
{
    struct quire__shapes *s = &model->shapes;
    quire_status status =
        quire__model_key_u32(model, "attention.head_count", 1, QUIRE_MAX_HEADS, &s->heads, error);
    s->kv_heads = s->heads;
    if (status == QUIRE_OK)
        status = quire__model_key_u32_or(model, "attention.head_count_kv", 1, QUIRE_MAX_HEADS,
                                         &s->kv_heads, error);
    if (status != QUIRE_OK)
        return status;
    if (s->heads % s->kv_heads != 0)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "%s: %u heads do not divide into %u key/value heads: the file is "
                           "damaged",
                           model->name, s->heads, s->kv_heads);
    const bool has_dim = quire__model_has_key(model, "attention.key_length");
    if (!has_dim && s->embedding % s->heads != 0)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "%s: a width of %u does not divide into %u heads: the file is damaged",
                           model->name, s->embedding, s->heads);
    s->head_dim = has_dim ? 0 : s->embedding / s->heads;
    status = quire__model_key_u32_or(model, "attention.key_length", 1, QUIRE_MAX_HEAD_DIM,
                                     &s->head_dim, error);
    s->head_dim_v = s->head_dim;
    if (status == QUIRE_OK)
        status = quire__model_key_u32_or(model, "attention.value_length", 1, QUIRE_MAX_HEAD_DIM,
                                         &s->head_dim_v, error);
    return status;
}

quire_status quire__decoder_shapes(struct quire__model *model, struct quire_error *error)
{
    struct quire__shapes *s = &model->shapes;
    quire_status status =
        quire__model_key_u32(model, "block_count", 1, QUIRE_MAX_LAYERS, &s->layers, error);
    if (status == QUIRE_OK)
        status =
            quire__model_key_u32(model, "embedding_length", 1, WIDTH_MAX, &s->embedding, error);
    if (status == QUIRE_OK)
        status = quire__model_key_u32(model, "feed_forward_length", 1, WIDTH_MAX, &s->feed_forward,
                                      error);
    if (status == QUIRE_OK)
        status = quire__model_key_u32(model, "context_length", 1, QUIRE_MAX_SEQ_LEN,
                                      &s->context_length, error);
    if (status == QUIRE_OK)
        status = load_heads(model, error);
    s->rope_dim = s->head_dim;
    if (status == QUIRE_OK)
        status = quire__model_key_u32_or(model, "rope.dimension_count", 2, s->head_dim,
                                         &s->rope_dim, error);
    if (status == QUIRE_OK && s->rope_dim % 2 != 0)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "%s: rotary embedding over %u elements, an odd number: the file is "
                           "damaged",
                           model->name, s->rope_dim);
    s->norm_epsilon = 0.0f;
    if (status == QUIRE_OK)
        status = quire__model_key_f32_or(model, "attention.layer_norm_rms_epsilon",
                                         &s->norm_epsilon, error);
    if (status == QUIRE_OK && s->norm_epsilon == 0.0f)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "%s: key %s.attention.layer_norm_rms_epsilon is missing: not a whole "
                           "model",
                           model->name, model->arch->name);
    uint32_t experts = 0;
    if (status == QUIRE_OK)
        status = quire__model_key_u32_or(model, "expert_count", 0, UINT32_MAX, &experts, error);
    if (status == QUIRE_OK && experts != 0)
        return quire__fail(error, QUIRE_E_UNSUPPORTED,
                           "%s: a mixture of %u experts; Quire runs dense %s models", model->name,
                           experts, model->arch->name);
    return status;
}

/* ---- tensors ---- */

quire_status quire__decoder_ends(struct quire__model *model, struct quire_error *error)
{
    struct quire__shapes *s = &model->shapes;
    const struct quire__gguf_tensor *embedding =
        quire__gguf_find_tensor(model->gguf, "token_embd.weight");
    if (embedding != NULL && (embedding->dims[1] > WIDTH_MAX || embedding->dims[1] < 2))
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "%s: tensor token_embd.weight has %llu rows: the file is damaged",
                           model->name, (unsigned long long)embedding->dims[1]);
    s->vocabulary = embedding != NULL ? (uint32_t)embedding->dims[1] : 0;
    uint32_t stated = s->vocabulary;
    quire_status status =
        quire__model_key_u32_or(model, "vocab_size", 1, WIDTH_MAX, &stated, error);
    if (status != QUIRE_OK)
        return status;
    if (embedding != NULL && stated != s->vocabulary)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "%s: %s.vocab_size is %u, tensor token_embd.weight has %u rows: the "
                           "file is damaged",
                           model->name, model->arch->name, stated, s->vocabulary);
    status = quire__model_matrix(model, "token_embd.weight", s->vocabulary, s->embedding,
                                 &model->embedding, error);
    if (status == QUIRE_OK)
        status = quire__model_vector(model, "output_norm.weight", s->embedding, &model->output_norm,
                                     error);
    if (status != QUIRE_OK)
        return status;
    model->output = model->embedding;
    if (!quire__model_has_tensor(model, "output.weight"))
        return QUIRE_OK;
    return quire__model_matrix(model, "output.weight", s->vocabulary, s->embedding, &model->output,
                               error);
}

quire_status quire__decoder_layer(struct quire__model *model, uint32_t index,
                                  const struct quire__layer_part *parts, size_t count,
                                  struct quire_error *error)
{
    for (size_t i = 0; i < count; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%u.%s.weight", index, parts[i].name);
        quire_status status =
            parts[i].vector != NULL
                ? quire__model_vector(model, name, parts[i].columns, parts[i].vector, error)
                : quire__model_matrix(model, name, parts[i].rows, parts[i].columns, parts[i].matrix,
                                      error);
        if (status != QUIRE_OK)
            return status;
    }
    return QUIRE_OK;
}

/* ---- activations ---- */

struct quire__step_views quire__decoder_views(const struct quire__runner *r, uint64_t t)
{
    const struct quire__shapes *s = &r->model->shapes;
    const uint64_t h = s->heads, g = s->kv_heads, d = s->head_dim, dv = s->head_dim_v;
    struct quire__step_views views = {
        .x = quire_view_buffer(r->x, 0, QUIRE_F32, t, 1, s->embedding),
        .h = quire_view_buffer(r->h, 0, QUIRE_F32, t, 1, s->embedding),
        .gate = quire_view_buffer(r->gate, 0, QUIRE_F32, t, 1, s->feed_forward),
        .up = quire_view_buffer(r->up, 0, QUIRE_F32, t, 1, s->feed_forward),
        .q = quire_view_buffer(r->q, 0, QUIRE_F32, t, 1, h * d),
        .k = quire_view_buffer(r->k, 0, QUIRE_F32, t, 1, g * d),
        .v = quire_view_buffer(r->v, 0, QUIRE_F32, t, 1, g * dv),
        .att = quire_view_buffer(r->att, 0, QUIRE_F32, t, 1, h * dv),
        .q_heads = quire_view_buffer(r->q, 0, QUIRE_F32, t, h, d),
        .k_heads = quire_view_buffer(r->k, 0, QUIRE_F32, t, g, d),
        .v_heads = quire_view_buffer(r->v, 0, QUIRE_F32, t, g, dv),
        .att_heads = quire_view_buffer(r->att, 0, QUIRE_F32, t, h, dv),
    };
    for (uint32_t i = 0; i < r->model->num_ropes; i++)
        views.rope[i] = quire_view_buffer(r->rope, quire__runner_rope_at(r, i) * sizeof(float),
                                          QUIRE_F32, t, s->rope_dim / 2, 2);
    return views;
}
