/* ggml_attend.c - times ggml's attention, flash and not, over caches that no processor cache holds.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: ggml_attend RING_MIB RUNS THREADS [WORK TYPE]; prints JSON. bench/llama.sh builds it
 * against ggml's own headers.
 *
 * K is stored as llama.cpp stores it: positions of all heads side by side. So is V for the flash
 * path; for the other, llama.cpp keeps V transposed, which only plain floats can be. Calls go round
 * in as many layers as make RING_MIB; the time of a call is the median of RUNS runs of 30 ms. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ggml-cpu.h"
#include "ggml.h"

enum { DIM = 128, HEADS = 32, KV_HEADS = 8, TENSORS = 64, RUNS_MAX = 101 };

struct work {
    const char *name;
    int64_t positions, tokens;
};
static const struct work works[] = {{"decode-16k", 16384, 1}, {"prefill-512-8k", 8704, 512}};
static const enum ggml_type types[] = {GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0,
                                       GGML_TYPE_Q4_0};

/* One graph, of one layer; K and V are pointed to another layer before each call. */
struct scene {
    struct ggml_context *context;
    struct ggml_cgraph *graph;
    struct ggml_tensor *k, *k_heads, *v, *v_heads;
    uint8_t *ring;
    size_t layer_bytes, k_bytes;
    int layers;
    struct ggml_threadpool *threads;
    struct ggml_cplan plan;
};

static void need(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "ggml_attend: %s failed\n", what);
    exit(1);
}

static double now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void *get(size_t bytes)
{
    void *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    need(memory != NULL, "memory");
    memset(memory, 0, bytes);
    return memory;
}

static float next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u; /* TAOCP vol. 2, 3.3.4 */
    return (float)(int32_t)(*state >> 32) * 0x1p-31f;
}

/* ---- memory ---- */

/* Both matrices of a layer are rows of DIM in whatever order: random is random. */
static void fill_layers(struct scene *scene, enum ggml_type type, int64_t positions)
{
    const int64_t rows = 2 * positions * KV_HEADS;
    float *values = get((size_t)rows * DIM * sizeof(float));
    uint64_t state = 1;
    for (int64_t i = 0; i < rows * DIM; i++)
        values[i] = next_random(&state);
    (void)ggml_quantize_chunk(type, values, scene->ring, 0, rows, DIM, NULL);
    free(values);
    for (int i = 1; i < scene->layers; i++)
        memcpy(scene->ring + (size_t)i * scene->layer_bytes, scene->ring, scene->layer_bytes);
}

static void point_to_layer(struct scene *scene, int layer)
{
    uint8_t *k = scene->ring + (size_t)layer * scene->layer_bytes;
    scene->k->data = scene->k_heads->data = k;
    scene->v->data = scene->v_heads->data = k + scene->k_bytes;
}

/* Places for q, the mask, and what the graph computes. */
static void place_tensors(struct scene *scene)
{
    for (int i = 0; i < ggml_graph_n_nodes(scene->graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(scene->graph, i);
        if (node->view_src != NULL)
            node->data = (uint8_t *)node->view_src->data + node->view_offs;
        else if (node->data == NULL)
            node->data = get(ggml_nbytes(node));
    }
}

/* ---- the graph ---- */

static struct ggml_tensor *make_q(struct scene *scene, int64_t tokens)
{
    struct ggml_tensor *q = ggml_new_tensor_3d(scene->context, GGML_TYPE_F32, DIM, HEADS, tokens);
    uint64_t state = 2;
    q->data = get(ggml_nbytes(q));
    for (int64_t i = 0; i < ggml_nelements(q); i++)
        ((float *)q->data)[i] = next_random(&state);
    struct ggml_tensor *heads = ggml_permute(scene->context, q, 0, 2, 1, 3);
    heads->data = q->data;
    return heads;
}

/* Causal: token t is at the position `tokens` - t before the last. */
static struct ggml_tensor *make_mask(struct scene *scene, const struct work *work)
{
    struct ggml_tensor *mask =
        ggml_new_tensor_2d(scene->context, GGML_TYPE_F16, work->positions, work->tokens);
    mask->data = get(ggml_nbytes(mask));
    ggml_fp16_t *bits = mask->data;
    for (int64_t t = 0; t < work->tokens; t++) {
        for (int64_t p = work->positions - work->tokens + t + 1; p < work->positions; p++)
            bits[t * work->positions + p] = ggml_fp32_to_fp16(-INFINITY);
    }
    return mask;
}

static struct ggml_tensor *make_flash(struct scene *scene, const struct work *work,
                                      struct ggml_tensor *q, struct ggml_tensor *mask)
{
    struct ggml_context *c = scene->context;
    scene->v = ggml_new_tensor_3d(c, scene->k->type, DIM, KV_HEADS, work->positions);
    scene->v_heads = ggml_permute(c, scene->v, 0, 2, 1, 3);
    struct ggml_tensor *out = ggml_flash_attn_ext(c, q, scene->k_heads, scene->v_heads, mask,
                                                  1 / sqrtf((float)DIM), 0, 0);
    ggml_prec_set_acc(out, GGML_PREC_F32);
    return out;
}

static struct ggml_tensor *make_plain(struct scene *scene, const struct work *work,
                                      struct ggml_tensor *q, struct ggml_tensor *mask)
{
    struct ggml_context *c = scene->context;
    scene->v = ggml_new_tensor_3d(c, scene->k->type, work->positions, DIM, KV_HEADS);
    scene->v_heads = scene->v;
    struct ggml_tensor *scores = ggml_mul_mat(c, scene->k_heads, q);
    ggml_prec_set_acc(scores, GGML_PREC_F32);
    scores = ggml_soft_max_ext(c, scores, mask, 1 / sqrtf((float)DIM), 0);
    struct ggml_tensor *sums = ggml_mul_mat(c, scene->v, scores);
    sums = ggml_permute(c, sums, 0, 2, 1, 3);
    return ggml_cont_2d(c, sums, (int64_t)DIM * HEADS, work->tokens);
}

static void open_scene(struct scene *scene, const struct work *work, enum ggml_type type,
                       bool flash, const long *limits)
{
    const struct ggml_init_params params = {
        .mem_size = TENSORS * ggml_tensor_overhead() + ggml_graph_overhead(), .no_alloc = true};
    const size_t row = ggml_row_size(type, DIM);
    scene->context = ggml_init(params);
    need(scene->context != NULL, "ggml_init");
    scene->k_bytes = (size_t)work->positions * KV_HEADS * row;
    scene->layer_bytes = 2 * scene->k_bytes;
    scene->layers = (int)((size_t)limits[0] * 1048576 / scene->layer_bytes) + 1;
    scene->ring = get((size_t)scene->layers * scene->layer_bytes);
    fill_layers(scene, type, work->positions);
    scene->k = ggml_new_tensor_3d(scene->context, type, DIM, KV_HEADS, work->positions);
    scene->k_heads = ggml_permute(scene->context, scene->k, 0, 2, 1, 3);
    struct ggml_tensor *q = make_q(scene, work->tokens), *mask = make_mask(scene, work);
    struct ggml_tensor *out =
        flash ? make_flash(scene, work, q, mask) : make_plain(scene, work, q, mask);
    scene->graph = ggml_new_graph(scene->context);
    ggml_build_forward_expand(scene->graph, out);
    point_to_layer(scene, 0);
    place_tensors(scene);
    struct ggml_threadpool_params threads = ggml_threadpool_params_default((int)limits[2]);
    scene->threads = ggml_threadpool_new(&threads);
    scene->plan = ggml_graph_plan(scene->graph, (int)limits[2], scene->threads);
    scene->plan.work_data = get(scene->plan.work_size + 1);
}

static void close_scene(struct scene *scene)
{
    for (int i = 0; i < ggml_graph_n_nodes(scene->graph); i++) {
        struct ggml_tensor *node = ggml_graph_node(scene->graph, i);
        if (node->view_src == NULL)
            free(node->data);
    }
    for (struct ggml_tensor *t = ggml_get_first_tensor(scene->context); t != NULL;
         t = ggml_get_next_tensor(scene->context, t)) {
        if (t->op == GGML_OP_NONE && t != scene->k && t != scene->v)
            free(t->data);
    }
    free(scene->plan.work_data);
    ggml_threadpool_free(scene->threads);
    ggml_free(scene->context);
    free(scene->ring);
}

/* ---- measuring ---- */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double time_calls(struct scene *scene, int calls, int *at)
{
    const double start = now_ms();
    for (int i = 0; i < calls; i++, *at = (*at + 1) % scene->layers) {
        point_to_layer(scene, *at);
        need(ggml_graph_compute(scene->graph, &scene->plan) == GGML_STATUS_SUCCESS, "a graph");
    }
    return (now_ms() - start) / calls;
}

static double median_ms(struct scene *scene, long runs)
{
    double ms[RUNS_MAX];
    int at = 0;
    const double first = time_calls(scene, 1, &at);
    int calls = 30 / first + 1 < scene->layers ? (int)(30 / first + 1) : scene->layers;
    for (long i = 0; i < runs; i++)
        ms[i] = time_calls(scene, calls, &at);
    qsort(ms, (size_t)runs, sizeof *ms, compare);
    return runs % 2 == 1 ? ms[runs / 2] : (ms[runs / 2 - 1] + ms[runs / 2]) / 2;
}

static double measure(const struct work *work, enum ggml_type type, bool flash, const long *limits)
{
    struct scene scene = {0};
    open_scene(&scene, work, type, flash, limits);
    const double ms = median_ms(&scene, limits[1]);
    close_scene(&scene);
    return ms;
}

static void print_row(const struct work *work, enum ggml_type type, const long *limits)
{
    static bool printed;
    printf("%s\n {\"work\": \"%s\", \"type\": \"%s\", \"flash_ms\": %.4f", printed ? "," : "",
           work->name, ggml_type_name(type), measure(work, type, true, limits));
    if (!ggml_is_quantized(type))
        printf(", \"plain_ms\": %.4f", measure(work, type, false, limits));
    printf("}");
    printed = true;
}

int main(int argc, char **argv)
{
    long limits[3] = {0}; /* ring_mib, runs, threads */
    const bool all = argc == 4;
    for (int i = 0; i < 3 && (all || argc == 6); i++)
        limits[i] = strtol(argv[i + 1], NULL, 10);
    if (limits[0] < 1 || limits[1] < 1 || limits[1] > RUNS_MAX || limits[2] < 1) {
        fprintf(stderr, "usage: ggml_attend RING_MIB RUNS THREADS [WORK TYPE]\n");
        return 2;
    }
    printf("{\"rows\": [");
    for (size_t w = 0; w < sizeof works / sizeof *works; w++) {
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            if (all || (strcmp(argv[4], works[w].name) == 0 &&
                        strcmp(argv[5], ggml_type_name(types[t])) == 0))
                print_row(&works[w], types[t], limits);
        }
    }
    printf("\n]}\n");
    return 0;
}
