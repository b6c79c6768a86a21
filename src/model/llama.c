/* llama.c - the llama architecture: RMSNorm, rotary embedding, grouped attention, SwiGLU.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A layer, for each row x (arXiv:2302.13971, section 2.2; grouped heads: arXiv:2305.13245):
 *   x += Wo attend(rotary(Wq h), rotary(Wk h), Wv h)   with h = norm(x)
 *   x += Wdown (silu(Wgate h) * Wup h)                 with h = norm(x) */
#include "model/arch.h"

#include <stdio.h>
#include <string.h>

/* More than any model has, and small enough that no product of two overflows 64 bits. */
#define WIDTH_MAX (1u << 24)

struct layer {
    struct quire_view attn_norm, ffn_norm; /* f32 [1,1,E] */
    struct quire_weight *q, *k, *v;        /* [H*D,E], [G*D,E], [G*Dv,E] */
    struct quire_weight *output;           /* [E,H*Dv] */
    struct quire_weight *gate, *up, *down; /* [F,E], [F,E], [E,F] */
};

/* ---- loading ---- */

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

static quire_status load_shapes(struct quire__model *model, struct quire_error *error)
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
                           "%s: key llama.attention.layer_norm_rms_epsilon is missing: not a whole "
                           "model",
                           model->name);
    uint32_t experts = 0;
    if (status == QUIRE_OK)
        status = quire__model_key_u32_or(model, "expert_count", 0, UINT32_MAX, &experts, error);
    if (status == QUIRE_OK && experts != 0)
        return quire__fail(error, QUIRE_E_UNSUPPORTED,
                           "%s: a mixture of %u experts; Quire runs dense llama models",
                           model->name, experts);
    return status;
}

static quire_status load_ends(struct quire__model *model, struct quire_error *error)
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
                           "%s: llama.vocab_size is %u, tensor token_embd.weight has %u rows: the "
                           "file is damaged",
                           model->name, stated, s->vocabulary);
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

static quire_status load_layer(struct quire__model *model, uint32_t index, struct layer *layer,
                               struct quire_error *error)
{
    const struct quire__shapes *s = &model->shapes;
    const uint64_t e = s->embedding, f = s->feed_forward;
    const uint64_t q = (uint64_t)s->heads * s->head_dim, k = (uint64_t)s->kv_heads * s->head_dim;
    const uint64_t v = (uint64_t)s->kv_heads * s->head_dim_v;
    const uint64_t o = (uint64_t)s->heads * s->head_dim_v;
    const struct {
        const char *name;
        uint64_t rows, columns; /* rows 1: a vector */
        struct quire_weight **matrix;
        struct quire_view *vector;
    } parts[] = {
        {"attn_norm", 1, e, NULL, &layer->attn_norm},
        {"attn_q", q, e, &layer->q, NULL},
        {"attn_k", k, e, &layer->k, NULL},
        {"attn_v", v, e, &layer->v, NULL},
        {"attn_output", e, o, &layer->output, NULL},
        {"ffn_norm", 1, e, NULL, &layer->ffn_norm},
        {"ffn_gate", f, e, &layer->gate, NULL},
        {"ffn_up", f, e, &layer->up, NULL},
        {"ffn_down", e, f, &layer->down, NULL},
    };
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(parts); i++) {
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

static quire_status llama_load(struct quire__model *model, struct quire_error *error)
{
    quire_status status = load_shapes(model, error);
    if (status == QUIRE_OK)
        status = quire__rope_load(model, error);
    if (status == QUIRE_OK)
        status = load_ends(model, error);
    if (status != QUIRE_OK)
        return status;
    struct layer *layers = quire__calloc(model->shapes.layers, sizeof *layers);
    if (layers == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "%s: no memory for the model", model->name);
    model->arch_data = layers;
    for (uint32_t i = 0; i < model->shapes.layers && status == QUIRE_OK; i++)
        status = load_layer(model, i, &layers[i], error);
    return status;
}

/* ---- the forward pass ---- */

/* The activations of a step of T rows; the same memory as a matrix and by heads. */
struct views {
    struct quire_view x, h, gate, up;
    struct quire_view q, k, v, att;
    struct quire_view q_heads, k_heads, v_heads, att_heads;
    struct quire_view rope;
};

static struct views make_views(const struct quire__runner *r, uint64_t t)
{
    const struct quire__shapes *s = &r->model->shapes;
    const uint64_t h = s->heads, g = s->kv_heads, d = s->head_dim, dv = s->head_dim_v;
    return (struct views){
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
        .rope = quire_view_buffer(r->rope, 0, QUIRE_F32, t, s->rope_dim / 2, 2),
    };
}

/* Runs one call and leaves the function with its status when it fails. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        quire_status try_status = (call);                                                          \
        if (try_status != QUIRE_OK)                                                                \
            return try_status;                                                                     \
    } while (0)

static quire_status attention(struct quire__runner *r, quire_step step, uint32_t index,
                              const struct views *a)
{
    struct quire_backend *b = r->model->backend;
    const struct quire_nn_ops *nn = b->nn;
    const struct layer *w = (const struct layer *)r->model->arch_data + index;
    TRY(nn->norm(b, &w->attn_norm, r->model->shapes.norm_epsilon, &a->x, &a->h));
    TRY(nn->linear(b, w->q, &a->h, &a->q));
    TRY(nn->linear(b, w->k, &a->h, &a->k));
    TRY(nn->linear(b, w->v, &a->h, &a->v));
    TRY(nn->rotary(b, QUIRE_ROTARY_PAIRS, &a->rope, &a->q_heads));
    TRY(nn->rotary(b, QUIRE_ROTARY_PAIRS, &a->rope, &a->k_heads));
    TRY(quire_step_write(r->pool, step, index, &a->k_heads, &a->v_heads));
    TRY(quire_step_attend(r->pool, step, index, &a->q_heads, &a->att_heads, NULL));
    TRY(nn->linear(b, w->output, &a->att, &a->h));
    return nn->add(b, &a->h, &a->x);
}

static quire_status feed_forward(struct quire__runner *r, uint32_t index, const struct views *a)
{
    struct quire_backend *b = r->model->backend;
    const struct quire_nn_ops *nn = b->nn;
    const struct layer *w = (const struct layer *)r->model->arch_data + index;
    TRY(nn->norm(b, &w->ffn_norm, r->model->shapes.norm_epsilon, &a->x, &a->h));
    TRY(nn->linear(b, w->gate, &a->h, &a->gate));
    TRY(nn->linear(b, w->up, &a->h, &a->up));
    TRY(nn->activate(b, QUIRE_SILU, &a->gate, &a->up, &a->gate));
    TRY(nn->linear(b, w->down, &a->gate, &a->h));
    return nn->add(b, &a->h, &a->x);
}

static quire_status llama_forward(struct quire__runner *runner, quire_step step,
                                  uint32_t num_tokens)
{
    const struct views views = make_views(runner, num_tokens);
    for (uint32_t i = 0; i < runner->model->shapes.layers; i++) {
        TRY(attention(runner, step, i, &views));
        TRY(feed_forward(runner, i, &views));
    }
    return QUIRE_OK;
}

const struct quire__arch quire__arch_llama = {
    .name = "llama",
    .load = llama_load,
    .forward = llama_forward,
};
