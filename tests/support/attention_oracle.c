/* attention_oracle.c - attention in double precision, with every score kept.
 * SPDX-License-Identifier: Apache-2.0
 *
 * softmax(scale q.k + bias) v: arXiv:1706.03762, section 3.2.1. */
#include "attention_oracle.h"

#include <math.h>

#include "products.h"

/* Outputs and logits of the tests lie within a few units; f32 sums over at most a few hundred terms
 * of size one err by less than 300 * 2^-24 * a few. */
#define ORACLE_TOLERANCE 1e-4
/* Where factors are rounded to bfloat16: logits by this part of sum |q_i k_i|, which lies below 16
 * here, and what they weigh by twice that; the weights and values by the part itself. */
#define ORACLE_LOGITS 16

float qt_alibi_slope(uint32_t head)
{
    return ldexpf(1.0f, -(int)(head % 8 + 1));
}

float qt_sink_logit(uint32_t head)
{
    return 0.5f * (float)(head % 3) - 0.25f;
}

struct query {
    const struct qt_env *env;
    const struct qt_stream *stream;
    const struct quire_group_config *group;
    const struct qt_attend *how;
    uint32_t layer, position;
    double *k, *v; /* [position + 1][G * D], [position + 1][G * Dv] as stored */
    double *scores;
};

/* Turns back what was stored turned, by the definition: docs/formats/kv.md. */
static void turn(double *x, uint32_t dim)
{
    uint32_t n = dim & (0u - dim);
    for (uint32_t first = 0; first < dim; first += n) {
        double turned[512];
        for (uint32_t i = 0; i < n; i++) {
            turned[i] = 0;
            for (uint32_t j = 0; j < n; j++)
                turned[i] += __builtin_parity(i & j) != 0 ? -x[first + j] : x[first + j];
        }
        for (uint32_t i = 0; i < n; i++)
            x[first + i] = turned[i] / sqrt(n);
    }
}

static void load_rows(struct query *query, enum qt_plane plane, double *to)
{
    const struct qt_env *env = query->env;
    uint32_t dim = plane == QT_K ? query->group->head_dim : qt_head_dim_v(query->group);
    uint32_t dtype = plane == QT_K ? env->config.dtype_k : env->config.dtype_v;
    uint8_t *bytes = qt_alloc(qt_row_bytes(env, query->layer, plane));
    for (uint32_t t = 0; t <= query->position; t++) {
        qt_stored_row(env, query->stream->salts[t], query->layer, plane, bytes);
        for (uint32_t h = 0; h < query->group->num_kv_heads; h++, to += dim) {
            qt_load_head(dtype, bytes + (size_t)h * qt_head_bytes(dtype, dim), dim, to);
            if (qt_is_turned(env, plane))
                turn(to, dim);
        }
    }
    qt_free(bytes);
}

static bool visible(const struct query *query, uint32_t t)
{
    const struct quire_group_config *group = query->group;
    return group->window == 0 || t < group->sink_positions ||
           (uint64_t)t + group->window > query->position;
}

static double score(const struct query *query, const float *q, uint32_t head, uint32_t t)
{
    const struct quire_group_config *group = query->group;
    const struct qt_attend *how = query->how;
    uint32_t dim = group->head_dim, kv_head = head / (group->num_heads / group->num_kv_heads);
    const double *k = query->k + ((size_t)t * group->num_kv_heads + kv_head) * dim;
    double sum = 0;
    for (uint32_t i = 0; i < dim; i++)
        sum += (double)q[head * dim + i] * k[i];
    sum *= how->scale != 0 ? (double)how->scale : 1 / sqrt(dim);
    if (how->softcap != 0)
        sum = (double)how->softcap * tanh(sum / (double)how->softcap);
    if (how->alibi)
        sum += (double)qt_alibi_slope(head) * ((double)t - (double)query->position);
    return sum;
}

static void attend_head(const struct query *query, const float *q, uint32_t head, double *out,
                        double *lse)
{
    const struct quire_group_config *group = query->group;
    uint32_t dim = qt_head_dim_v(group);
    uint32_t kv_head = head / (group->num_heads / group->num_kv_heads);
    double largest = query->how->sink_logits ? (double)qt_sink_logit(head) : -INFINITY;
    for (uint32_t t = 0; t <= query->position; t++) {
        query->scores[t] = visible(query, t) ? score(query, q, head, t) : -INFINITY;
        largest = fmax(largest, query->scores[t]);
    }
    double sum = query->how->sink_logits ? exp((double)qt_sink_logit(head) - largest) : 0;
    for (uint32_t i = 0; i < dim; i++)
        out[i] = 0;
    for (uint32_t t = 0; t <= query->position; t++) {
        double weight = exp(query->scores[t] - largest);
        const double *v = query->v + ((size_t)t * group->num_kv_heads + kv_head) * dim;
        sum += weight;
        for (uint32_t i = 0; i < dim; i++)
            out[i] += weight * v[i];
    }
    for (uint32_t i = 0; i < dim; i++)
        out[i] /= sum;
    *lse = largest + log(sum);
}

/* out [H * Dv] and lse [H] of the query's position, from K and V as the pool's dtypes store them.
 */
static void attend_row(struct query *query, double *out, double *lse)
{
    const struct qt_geometry *geometry = query->env->geometry;
    uint32_t layer = query->layer, q_count = qt_row_elements(geometry, layer, QT_Q);
    size_t rows = (size_t)query->position + 1;
    query->k = qt_alloc(rows * qt_row_elements(geometry, layer, QT_K) * sizeof(double));
    query->v = qt_alloc(rows * qt_row_elements(geometry, layer, QT_V) * sizeof(double));
    query->scores = qt_alloc(rows * sizeof(double));
    float *q = qt_alloc(q_count * sizeof *q);
    load_rows(query, QT_K, query->k);
    load_rows(query, QT_V, query->v);
    qt_row(query->stream->salts[query->position], layer, QT_Q, q, q_count);
    for (uint32_t head = 0; head < query->group->num_heads; head++)
        attend_head(query, q, head, out + (size_t)head * qt_head_dim_v(query->group), lse + head);
    qt_free(q);
    qt_free(query->k);
    qt_free(query->v);
    qt_free(query->scores);
}

static void assert_near(const struct query *query, const float *got, const double *want,
                        uint32_t count, const char *what)
{
    double part = qt_product_error(query->env->backend->caps.arithmetic);
    double limit = ORACLE_TOLERANCE + part * (2 * ORACLE_LOGITS + 1);
    uint32_t position = query->position;
    for (uint32_t i = 0; i < count; i++) {
        if (!(fabs((double)got[i] - want[i]) <= limit))
            fail_msg("%s of position %u, element %u: %.9g, the oracle says %.9g", what, position, i,
                     (double)got[i], want[i]);
    }
}

void qt_oracle_check(const struct qt_env *env, const struct qt_batch *batch, uint32_t layer,
                     const struct qt_attend *how)
{
    const struct quire_group_config *group = qt_group_of(env->geometry, layer);
    uint32_t heads = group->num_heads, count = heads * qt_head_dim_v(group);
    double *out = qt_alloc(count * sizeof *out), *lse = qt_alloc(heads * sizeof *lse);
    size_t row = 0;
    for (uint32_t i = 0; i < batch->num_items; i++) {
        const struct qt_stream *stream = batch->streams[i];
        for (uint32_t j = 0; j < batch->items[i].n_new; j++, row++) {
            uint32_t position = stream->len + j;
            struct query query = {env, stream, group, how, layer, position, NULL, NULL, NULL};
            attend_row(&query, out, lse);
            assert_near(&query, env->host_out + row * count, out, count, "attention");
            if (how->lse)
                assert_near(&query, env->host_lse + row * heads, lse, heads, "lse");
        }
    }
    qt_free(out);
    qt_free(lse);
}
