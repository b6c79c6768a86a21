/* gemma3.c - the Gemma 3 architecture: norms around both parts, QK norms, windows, GeGLU.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A layer, for each row x, which begins as the embedding times sqrt(E) (Gemma 3 report,
 * arXiv:2503.19786, section 2; norms around each part: Gemma 2 report, arXiv:2408.00118, section
 * 2): x += norm(Wo attend(rotary(norm(Wq h)), rotary(norm(Wk h)), Wv h))   with h = norm(x) x +=
 * norm(Wdown (gelu(Wgate h) * Wup h))                             with h = norm(x) The norms of
 * queries and keys go over each head. Every sixth layer sees all positions and turns with the base
 * of the file; the others see a window and turn with base 10000, and a file that stretches
 * positions stretches those of the former only (section 2, "Long context"). */
#include "model/arch.h"

#include <math.h>

enum { ROPE_GLOBAL, ROPE_LOCAL };

/* The 27B model divides its queries by another root than that of the head, and says so nowhere in
 * its file; its number of layers gives it away (arXiv:2503.19786, table 1 and its configuration).
 */
enum { LAYERS_OF_27B = 62 };

struct layer {
    struct quire_view attn_norm, post_attention_norm; /* f32 [1,1,E] */
    struct quire_view ffn_norm, post_ffw_norm;        /* f32 [1,1,E] */
    struct quire_view q_norm, k_norm;                 /* f32 [1,1,D] */
    struct quire_weight *q, *k, *v;                   /* [H*D,E], [G*D,E], [G*Dv,E] */
    struct quire_weight *output;                      /* [E,H*Dv] */
    struct quire_weight *gate, *up, *down;            /* [F,E], [F,E], [E,F] */
};

/* ---- loading ---- */

/* What other members of the family do to their logits; this file does not. */
static quire_status refuse_others(const struct quire__model *model, struct quire_error *error)
{
    static const char *const keys[] = {"attn_logit_softcapping", "final_logit_softcapping",
                                       "attention.scale"};
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(keys); i++)
        if (quire__model_has_key(model, keys[i]))
            return quire__fail(error, QUIRE_E_UNSUPPORTED,
                               "%s: key %s.%s is no part of Gemma 3 as Quire computes it",
                               model->name, model->arch->name, keys[i]);
    if (model->shapes.layers == LAYERS_OF_27B)
        return quire__fail(error, QUIRE_E_UNSUPPORTED,
                           "%s: Gemma 3 of %u layers (27B) scales its queries in a way of its own, "
                           "which Quire lacks: use a smaller one",
                           model->name, model->shapes.layers);
    return QUIRE_OK;
}

static quire_status load_windows(struct quire__model *model, struct quire_error *error)
{
    struct quire__shapes *s = &model->shapes;
    s->window_pattern = 6;
    quire_status status = quire__model_key_u32(model, "attention.sliding_window", 1,
                                               QUIRE_MAX_SEQ_LEN, &s->window, error);
    if (status == QUIRE_OK)
        status = quire__model_key_u32_or(model, "attention.sliding_window_pattern", 1,
                                         QUIRE_MAX_LAYERS, &s->window_pattern, error);
    return status;
}

static quire_status load_ropes(struct quire__model *model, struct quire_error *error)
{
    struct quire__shapes *s = &model->shapes;
    quire_status status = quire__rope_load(model, error);
    s->rope_base_local = 10000.0f;
    if (status == QUIRE_OK)
        status = quire__model_key_f32_or(model, "rope.freq_base_swa", &s->rope_base_local, error);
    return status == QUIRE_OK ? quire__rope_add(model, s->rope_base_local, error) : status;
}

static quire_status load_layer(struct quire__model *model, uint32_t index, struct layer *layer,
                               struct quire_error *error)
{
    const struct quire__shapes *s = &model->shapes;
    const uint64_t e = s->embedding, f = s->feed_forward, d = s->head_dim;
    const uint64_t q = s->heads * d, k = s->kv_heads * d;
    const uint64_t v = (uint64_t)s->kv_heads * s->head_dim_v;
    const uint64_t o = (uint64_t)s->heads * s->head_dim_v;
    const struct quire__layer_part parts[] = {
        {"attn_norm", 1, e, NULL, &layer->attn_norm},
        {"attn_q", q, e, &layer->q, NULL},
        {"attn_k", k, e, &layer->k, NULL},
        {"attn_v", v, e, &layer->v, NULL},
        {"attn_q_norm", 1, d, NULL, &layer->q_norm},
        {"attn_k_norm", 1, d, NULL, &layer->k_norm},
        {"attn_output", e, o, &layer->output, NULL},
        {"post_attention_norm", 1, e, NULL, &layer->post_attention_norm},
        {"ffn_norm", 1, e, NULL, &layer->ffn_norm},
        {"ffn_gate", f, e, &layer->gate, NULL},
        {"ffn_up", f, e, &layer->up, NULL},
        {"ffn_down", e, f, &layer->down, NULL},
        {"post_ffw_norm", 1, e, NULL, &layer->post_ffw_norm},
    };
    return quire__decoder_layer(model, index, parts, QUIRE_ARRAY_LEN(parts), error);
}

static quire_status gemma3_load(struct quire__model *model, struct quire_error *error)
{
    quire_status status = quire__decoder_shapes(model, error);
    if (status == QUIRE_OK)
        status = refuse_others(model, error);
    if (status == QUIRE_OK)
        status = load_windows(model, error);
    if (status == QUIRE_OK)
        status = load_ropes(model, error);
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
    const struct quire__shapes *s = &r->model->shapes;
    struct quire_backend *b = r->model->backend;
    const struct quire_nn_ops *nn = b->nn;
    const struct layer *w = (const struct layer *)r->model->arch_data + index;
    const float epsilon = s->norm_epsilon;
    const struct quire_view *rope =
        &a->rope[quire__layer_is_windowed(s, index) ? ROPE_LOCAL : ROPE_GLOBAL];
    QUIRE__TRY(nn->norm(b, &w->attn_norm, epsilon, &a->x, &a->h));
    QUIRE__TRY(nn->linear(b, w->q, &a->h, &a->q));
    QUIRE__TRY(nn->linear(b, w->k, &a->h, &a->k));
    QUIRE__TRY(nn->linear(b, w->v, &a->h, &a->v));
    QUIRE__TRY(nn->norm(b, &w->q_norm, epsilon, &a->q_heads, &a->q_heads));
    QUIRE__TRY(nn->norm(b, &w->k_norm, epsilon, &a->k_heads, &a->k_heads));
    QUIRE__TRY(nn->rotary(b, QUIRE_ROTARY_HALVES, rope, &a->q_heads));
    QUIRE__TRY(nn->rotary(b, QUIRE_ROTARY_HALVES, rope, &a->k_heads));
    QUIRE__TRY(quire_step_write(r->pool, step, index, &a->k_heads, &a->v_heads));
    QUIRE__TRY(quire_step_attend(r->pool, step, index, &a->q_heads, &a->att_heads, NULL));
    QUIRE__TRY(nn->linear(b, w->output, &a->att, &a->h));
    QUIRE__TRY(nn->norm(b, &w->post_attention_norm, epsilon, &a->h, &a->h));
    return nn->add(b, &a->h, &a->x);
}

static quire_status feed_forward(struct quire__runner *r, uint32_t index,
                                 const struct quire__step_views *a)
{
    struct quire_backend *b = r->model->backend;
    const struct quire_nn_ops *nn = b->nn;
    const struct layer *w = (const struct layer *)r->model->arch_data + index;
    const float epsilon = r->model->shapes.norm_epsilon;
    QUIRE__TRY(nn->norm(b, &w->ffn_norm, epsilon, &a->x, &a->h));
    QUIRE__TRY(nn->linear(b, w->gate, &a->h, &a->gate));
    QUIRE__TRY(nn->linear(b, w->up, &a->h, &a->up));
    QUIRE__TRY(nn->activate(b, QUIRE_GELU, &a->gate, &a->up, &a->gate));
    QUIRE__TRY(nn->linear(b, w->down, &a->gate, &a->h));
    QUIRE__TRY(nn->norm(b, &w->post_ffw_norm, epsilon, &a->h, &a->h));
    return nn->add(b, &a->h, &a->x);
}

static quire_status gemma3_forward(struct quire__runner *runner, quire_step step,
                                   uint32_t num_tokens)
{
    const struct quire__model *model = runner->model;
    const struct quire__step_views views = quire__decoder_views(runner, num_tokens);
    const float root = (float)sqrt((double)model->shapes.embedding);
    QUIRE__TRY(model->backend->nn->scale(model->backend, root, &views.x));
    for (uint32_t i = 0; i < model->shapes.layers; i++) {
        QUIRE__TRY(attention(runner, step, i, &views));
        QUIRE__TRY(feed_forward(runner, i, &views));
    }
    return QUIRE_OK;
}

const struct quire__arch quire__arch_gemma3 = {
    .name = "gemma3",
    .load = gemma3_load,
    .forward = gemma3_forward,
};
