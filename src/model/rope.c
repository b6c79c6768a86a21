/* rope.c - the angles of rotary embedding: frequencies of a model, cosines and sines of a position.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/utf8.h"

static bool is(const struct quire__gguf_string *string, const char *text)
{
    return string->size == strlen(text) && memcmp(string->data, text, string->size) == 0;
}

/* Scaling that stretches all positions alike, arXiv:2306.15595 section 2.3; other kinds bend the
 * frequencies in ways that this file does not know. */
static quire_status load_scaling(struct quire__model *model, struct quire_error *error)
{
    struct quire__shapes *shapes = &model->shapes;
    shapes->rope_scale = 1.0f;
    struct quire__gguf_string kind;
    char key[96];
    (void)snprintf(key, sizeof key, "%s.rope.scaling.type", model->arch->name);
    quire_status status = quire__gguf_str(model->gguf, key, &kind);
    if (status == QUIRE_E_NOTFOUND) /* files from before the key had a type used this one */
        return quire__model_key_f32_or(model, "rope.scale_linear", &shapes->rope_scale, error);
    if (status != QUIRE_OK)
        return quire__fail(error, QUIRE_E_CORRUPT, "%s: key %s is not a string", model->name, key);
    if (is(&kind, "none"))
        return QUIRE_OK;
    if (is(&kind, "linear"))
        return quire__model_key_f32_or(model, "rope.scaling.factor", &shapes->rope_scale, error);
    char text[32];
    return quire__fail(error, QUIRE_E_UNSUPPORTED,
                       "%s: %s is \"%s\"; Quire has none and linear: use a model without it",
                       model->name, key, quire__quote(kind.data, kind.size, text, sizeof text));
}

/* Frequency i is base^(-2i/n) (arXiv:2104.09864, equation 15), divided by the position scale and by
 * the file's factor for it (the Llama 3.1 scaling, worked out by who wrote the file). */
static quire_status add_kind(struct quire__model *model, float base, float scale,
                             const float *factors, struct quire_error *error)
{
    uint32_t half = model->shapes.rope_dim / 2;
    QUIRE_CHECK(model->num_ropes < QUIRE__ROPES_MAX);
    double *frequencies = quire__calloc(half, sizeof(double));
    if (frequencies == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "%s: no memory for the model", model->name);
    model->rope_frequencies[model->num_ropes++] = frequencies;
    for (uint32_t i = 0; i < half; i++) {
        double factor = factors != NULL ? (double)factors[i] : 1.0;
        if (!isfinite(factor) || factor <= 0.0)
            return quire__fail(error, QUIRE_E_CORRUPT,
                               "%s: element %u of rope_freqs.weight is not a positive number",
                               model->name, i);
        double exponent = -2.0 * (double)i / (double)model->shapes.rope_dim;
        frequencies[i] = pow((double)base, exponent) / (double)scale / factor;
    }
    return QUIRE_OK;
}

quire_status quire__rope_load(struct quire__model *model, struct quire_error *error)
{
    struct quire__shapes *shapes = &model->shapes;
    shapes->rope_base = 10000.0f;
    quire_status status =
        quire__model_key_f32_or(model, "rope.freq_base", &shapes->rope_base, error);
    if (status == QUIRE_OK)
        status = load_scaling(model, error);
    const float *factors = NULL;
    if (status == QUIRE_OK)
        status = quire__model_host_vector(model, "rope_freqs.weight", shapes->rope_dim / 2,
                                          &factors, error);
    if (status != QUIRE_OK)
        return status;
    return add_kind(model, shapes->rope_base, shapes->rope_scale, factors, error);
}

quire_status quire__rope_add(struct quire__model *model, float base, struct quire_error *error)
{
    return add_kind(model, base, 1.0f, NULL, error);
}

void quire__rope_row(const struct quire__model *model, uint32_t kind, uint64_t position,
                     float *table)
{
    for (uint32_t i = 0; i < model->shapes.rope_dim / 2; i++) {
        double angle = (double)position * model->rope_frequencies[kind][i];
        table[2 * i] = (float)cos(angle);
        table[2 * i + 1] = (float)sin(angle);
    }
}
