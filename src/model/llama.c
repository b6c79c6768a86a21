/* llama.c - the llama architecture: RMSNorm, rotary embedding, grouped attention, SwiGLU.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A layer, for each row x (arXiv:2302.13971, section 2.2; grouped heads: arXiv:2305.13245):
 *   x += Wo attend(rotary(Wq h), rotary(Wk h), Wv h)   with h = norm(x)
 *   x += Wdown (silu(Wgate h) * Wup h)                 with h = norm(x) */
#include "model/arch.h"

struct layer {
    struct quire_view attn_norm, ffn_norm; /* f32 [1,1,E] */
    struct quire_weight *q, *k, *v;        /* [H*D,E], [G*D,E], [G*Dv,E] */
    struct quire_weight *output;           /* [E,H*Dv] */
    struct quire_weight *gate, *up, *down; /* [F,E], [F,E], [E,F] */
};

/* ---- loading ---- */

static quire_status load_layer(struct quire__model *model, uint32_t index, struct layer *layer,
                               struct quire_error *error)
{
    const struct quire__shapes *s = &model->shapes;
    const uint64_t e = s->embedding, f = s->feed_forward;
    const uint64_t q = (uint64_t)s->heads * s->head_dim, k = (uint64_t)s->kv_heads * s->head_dim;
    const uint64_t v = (uint64_t)s->kv_heads * s->head_dim_v;
    const uint64_t o = (uint64_t)s->heads * s->head_dim_v;
    const struct quire__layer_part parts[] = {
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
    return quire__decoder_layer(model, index, parts, QUIRE_ARRAY_LEN(parts), error);
}

static quire_status llama_load(struct quire__model *model, struct quire_error *error)
{
    quire_status status = quire__decoder_shapes(model, error);
    if (status == QUIRE_OK)
        status = quire__rope_load(model, error);
    if (status == QUIRE_OK)
        status = quire__decoder_ends(model, error);
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

static quire_status attention(struct quire__runner *r, quire_step step, uint32_t index,
                              const struct quire__step_views *a)
{
    struct quire_backend *b = r->model->backend;
    const struct quire_nn_ops *nn = b->nn;
    const struct layer *w = (const struct layer *)r->model->arch_data + index;
    QUIRE__TRY(nn->norm(b, &w->attn_norm, r->model->shapes.norm_epsilon, &a->x, &a->h));
    QUIRE__TRY(nn->linear(b, w->q, &a->h, &a->q));
    QUIRE__TRY(nn->linear(b, w->k, &a->h, &a->k));
    QUIRE__TRY(nn->linear(b, w->v, &a->h, &a->v));
    QUIRE__TRY(nn->rotary(b, QUIRE_ROTARY_PAIRS, &a->rope[0], &a->q_heads));
    QUIRE__TRY(nn->rotary(b, QUIRE_ROTARY_PAIRS, &a->rope[0], &a->k_heads));
    QUIRE__TRY(quire_step_write(r->pool, step, index, &a->k_heads, &a->v_heads));
    QUIRE__TRY(quire_step_attend(r->pool, step, index, &a->q_heads, &a->att_heads, NULL));
    QUIRE__TRY(nn->linear(b, w->output, &a->att, &a->h));
    return nn->add(b, &a->h, &a->x);
}

static quire_status feed_forward(struct quire__runner *r, uint32_t index,
                                 const struct quire__step_views *a)
{
    struct quire_backend *b = r->model->backend;
    const struct quire_nn_ops *nn = b->nn;
    const struct layer *w = (const struct layer *)r->model->arch_data + index;
    QUIRE__TRY(nn->norm(b, &w->ffn_norm, r->model->shapes.norm_epsilon, &a->x, &a->h));
    QUIRE__TRY(nn->linear(b, w->gate, &a->h, &a->gate));
    QUIRE__TRY(nn->linear(b, w->up, &a->h, &a->up));
    QUIRE__TRY(nn->activate(b, QUIRE_SILU, &a->gate, &a->up, &a->gate));
    QUIRE__TRY(nn->linear(b, w->down, &a->gate, &a->h));
    return nn->add(b, &a->h, &a->x);
}

static quire_status llama_forward(struct quire__runner *runner, quire_step step,
                                  uint32_t num_tokens)
{
    const struct quire__step_views views = quire__decoder_views(runner, num_tokens);
    for (uint32_t i = 0; i < runner->model->shapes.layers; i++) {
        QUIRE__TRY(attention(runner, step, i, &views));
        QUIRE__TRY(feed_forward(runner, i, &views));
    }
    return QUIRE_OK;
}

const struct quire__arch quire__arch_llama = {
    .name = "llama",
    .load = llama_load,
    .forward = llama_forward,
};
