/* embed.c - the cache without the engine: two sequences share one pool.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A small formula stands in for the engine that computes q, k and v.
 * Build: cc embed.c $(pkg-config --cflags --libs quire) -lm */
#include <math.h>
#include <stdio.h>

#include <quire/quire.h>

enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, DIM = 64, TOKENS_MAX = 8 };

static float q[TOKENS_MAX][HEADS][DIM], out[TOKENS_MAX][HEADS][DIM];
static float k[TOKENS_MAX][KV_HEADS][DIM], v[TOKENS_MAX][KV_HEADS][DIM];

static void compute(float *x, uint32_t count, uint32_t layer)
{
    for (uint32_t i = 0; i < count; i++)
        x[i] = sinf((float)(i * 7 + layer * 3) * 0.1f);
}

/* One transaction: reserve, then write and attend in every layer, then keep the tokens. */
static quire_status run_step(struct quire_pool *pool, const struct quire_step_item *items,
                             uint32_t num_items, uint32_t num_tokens)
{
    quire_step step;
    quire_status status = quire_step_begin(pool, items, num_items, &step, NULL);
    if (status != QUIRE_OK)
        return status;
    struct quire_view kv = quire_view_host(k, QUIRE_F32, num_tokens, KV_HEADS, DIM);
    struct quire_view vv = quire_view_host(v, QUIRE_F32, num_tokens, KV_HEADS, DIM);
    struct quire_view qv = quire_view_host(q, QUIRE_F32, num_tokens, HEADS, DIM);
    struct quire_view ov = quire_view_host(out, QUIRE_F32, num_tokens, HEADS, DIM);
    for (uint32_t layer = 0; layer < LAYERS && status == QUIRE_OK; layer++) {
        compute(&k[0][0][0], num_tokens * KV_HEADS * DIM, layer);
        compute(&v[0][0][0], num_tokens * KV_HEADS * DIM, layer + 1);
        compute(&q[0][0][0], num_tokens * HEADS * DIM, layer + 2);
        status = quire_step_write(pool, step, layer, &kv, &vv);
        if (status == QUIRE_OK)
            status = quire_step_attend(pool, step, layer, &qv, &ov, NULL);
    }
    if (status == QUIRE_OK)
        return quire_step_commit(pool, step, NULL);
    (void)quire_step_abort(pool, step);
    return status;
}

int main(void)
{
    struct quire_error error = {0};
    struct quire_backend *backend = NULL;
    struct quire_pool *pool = NULL;
    const uint32_t layers[LAYERS] = {0, 1};
    struct quire_group_config group = {layers, LAYERS, HEADS, KV_HEADS, DIM, DIM, 0, 0};
    struct quire_pool_config config;
    quire_pool_config_init(&config);
    quire_status status = quire_backend_create("cpu", NULL, &backend, &error);
    config.backend = backend;
    config.groups = &group, config.num_groups = 1, config.num_blocks = 64;
    if (status == QUIRE_OK)
        status = quire_pool_create(&config, &pool, &error);
    quire_seq first = {0}, second = {0};
    if (status == QUIRE_OK && (status = quire_seq_create(pool, NULL, &first)) == QUIRE_OK)
        status = quire_seq_create(pool, NULL, &second);
    /* A prompt of five tokens beside one of three, then one token each: the same call. */
    const struct quire_step_item prompts[] = {{first, 5, NULL}, {second, 3, NULL}};
    const struct quire_step_item decode[] = {{first, 1, NULL}, {second, 1, NULL}};
    if (status == QUIRE_OK && (status = run_step(pool, prompts, 2, 8)) == QUIRE_OK)
        status = run_step(pool, decode, 2, 2);
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    if (status == QUIRE_OK && (status = quire_pool_stats(pool, &stats)) == QUIRE_OK)
        printf("out %.6f %.6f; %llu of %llu blocks of %llu bytes in use\n", (double)out[0][0][0],
               (double)out[1][0][0], (unsigned long long)stats.blocks_owned,
               (unsigned long long)stats.blocks_total, (unsigned long long)stats.block_bytes);
    if (status != QUIRE_OK)
        (void)fprintf(stderr, "embed: %s %s\n", quire_status_text(status), error.message);
    quire_pool_destroy(pool);
    quire_backend_destroy(backend);
    return status == QUIRE_OK ? 0 : 1;
}
