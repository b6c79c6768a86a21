/* model_fixture.c - a model with its pool and runner, ready to compute logits in any manner.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "opaque_backend.h"

static void make_backend(struct qt_engine *engine, const struct qt_engine_config *config)
{
    struct quire_error error = {0};
    const uint32_t threads = config->threads != 0 ? config->threads : 2;
    if (config->opaque) {
        const struct qt_opaque_options options = {
            .seed = 7, .num_threads = threads, .cpu_level = config->cpu_level};
        assert_int_equal(qt_opaque_create(&options, &engine->backend), QUIRE_OK);
        return;
    }
    struct quire_backend_config backend;
    quire_backend_config_init(&backend);
    backend.num_threads = threads;
    backend.cpu_level = config->cpu_level;
    if (quire_backend_create("cpu", &backend, &engine->backend, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
}

static void make_pool(struct qt_engine *engine, const struct qt_engine_config *config)
{
    struct quire_error error = {0};
    struct quire_pool_config pool;
    quire_pool_config_init(&pool);
    pool.backend = engine->backend;
    pool.groups = quire__model_groups(engine->model, &pool.num_groups);
    pool.layout = config->layout != 0 ? config->layout : QUIRE_LAYOUT_PAGED;
    pool.block_size = config->block_size != 0 ? config->block_size : 16;
    pool.dtype_k = config->dtype;
    pool.dtype_v = config->dtype;
    pool.max_seqs = config->max_seqs != 0 ? config->max_seqs : 1;
    pool.max_seq_len = config->context != 0 ? config->context : 512;
    engine->max_tokens = config->max_tokens != 0 ? config->max_tokens : 512;
    pool.max_step_tokens = engine->max_tokens;
    pool.max_open_steps = 1;
    pool.num_blocks = config->num_blocks;
    if (pool.num_blocks == 0)
        pool.num_blocks = (pool.max_seq_len + pool.block_size - 1) / pool.block_size *
                          pool.max_seqs * pool.num_groups;
    if (config->blocks_percent != 0)
        pool.num_blocks = pool.num_blocks * config->blocks_percent / 100;
    pool.merge_equal = config->merge_equal;
    if (quire_pool_create(&pool, &engine->pool, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
    if (quire__runner_create(engine->model, engine->pool, engine->max_tokens, pool.max_seqs,
                             &engine->runner, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
}

void qt_engine_open(struct qt_engine *engine, const char *path,
                    const struct qt_engine_config *config)
{
    struct quire_error error = {0};
    *engine = (struct qt_engine){0};
    if (quire__gguf_open(path, &engine->gguf, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
    make_backend(engine, config);
    struct quire__model_config model = {
        .gguf = engine->gguf, .name = path, .backend = engine->backend};
    if (quire__model_open(&model, &engine->model, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
    engine->vocabulary = quire__model_shapes(engine->model)->vocabulary;
    make_pool(engine, config);
}

void qt_engine_close(struct qt_engine *engine)
{
    struct quire_error error = {0};
    if (quire_pool_check(engine->pool, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
    quire__runner_destroy(engine->runner);
    quire_pool_destroy(engine->pool);
    quire__model_close(engine->model);
    quire_backend_destroy(engine->backend);
    quire__gguf_close(engine->gguf);
}

/* ---- logits ---- */

struct rows {
    float *values;
    uint32_t first, from, vocabulary; /* of the step, of the rows that are kept */
};

static quire_status take(void *context, const struct quire__logits *logits)
{
    const struct rows *rows = context;
    for (uint32_t i = 0; i < logits->count; i++) {
        uint32_t row = rows->first + logits->token + i;
        if (row >= rows->from)
            memcpy(rows->values + (size_t)(row - rows->from) * rows->vocabulary,
                   logits->values + (size_t)i * rows->vocabulary, rows->vocabulary * sizeof(float));
    }
    return QUIRE_OK;
}

float *qt_engine_logits_from(struct qt_engine *engine, const uint32_t *ids, uint32_t count,
                             uint32_t from, enum qt_cut cut)
{
    struct quire_error error = {0};
    struct qt_random random = {count};
    quire_seq seq;
    assert_int_equal(quire_seq_create(engine->pool, NULL, &seq), QUIRE_OK);
    struct rows rows = {.from = from, .vocabulary = engine->vocabulary};
    rows.values = qt_alloc((size_t)(count - from) * engine->vocabulary * sizeof(float));
    while (rows.first < count) {
        uint32_t left = count - rows.first;
        uint32_t piece = cut == QT_SINGLES  ? 1
                         : cut == QT_RANDOM ? 1 + qt_below(&random, 40)
                                            : engine->max_tokens;
        piece = piece < engine->max_tokens ? piece : engine->max_tokens;
        piece = piece < left ? piece : left;
        struct quire__batch_item item = {.seq = seq,
                                         .tokens = ids + rows.first,
                                         .count = piece,
                                         .want = rows.first + piece > from ? QUIRE__WANT_ALL
                                                                           : QUIRE__WANT_NONE};
        struct quire__batch batch = {
            .items = &item, .num_items = 1, .logits = take, .context = &rows};
        if (quire__runner_step(engine->runner, &batch, &error) != QUIRE_OK)
            fail_msg("%s", error.message);
        rows.first += item.count;
    }
    assert_int_equal(quire_seq_destroy(engine->pool, seq), QUIRE_OK);
    return rows.values;
}

float *qt_engine_logits(struct qt_engine *engine, const uint32_t *ids, uint32_t count,
                        enum qt_cut cut)
{
    return qt_engine_logits_from(engine, ids, count, 0, cut);
}

static quire_status take_last(void *context, const struct quire__logits *logits)
{
    const struct rows *rows = context;
    memcpy(rows->values, logits->values, rows->vocabulary * sizeof(float));
    return QUIRE_OK;
}

void qt_engine_append(struct qt_engine *engine, quire_seq seq, const uint32_t *ids, uint32_t count,
                      float *out)
{
    struct quire_error error = {0};
    struct rows rows = {.vocabulary = engine->vocabulary};
    rows.values = out;
    for (uint32_t done = 0; done < count;) {
        uint32_t left = count - done;
        struct quire__batch_item item = {.seq = seq,
                                         .tokens = ids + done,
                                         .count =
                                             left < engine->max_tokens ? left : engine->max_tokens,
                                         .want = QUIRE__WANT_LAST};
        struct quire__batch batch = {
            .items = &item, .num_items = 1, .logits = take_last, .context = &rows};
        if (quire__runner_step(engine->runner, &batch, &error) != QUIRE_OK)
            fail_msg("%s", error.message);
        done += item.count;
    }
}

uint32_t qt_argmax(const float *logits, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

double qt_logprob(const float *logits, uint32_t count, uint32_t token)
{
    double largest = (double)logits[qt_argmax(logits, count)], sum = 0.0;
    for (uint32_t i = 0; i < count; i++)
        sum += exp((double)logits[i] - largest);
    return (double)logits[token] - largest - log(sum);
}

/* ---- models ---- */

const char *qt_real_model(const char *variable)
{
    const char *path = getenv(variable);
    if (path == NULL || path[0] == '\0') {
        print_message("%s names no model\n", variable);
        skip();
    }
    return path;
}

const char *qt_tiny_model(const char *name, const char *arguments)
{
    static char path[1024];
    char temporary[1100], command[4096];
    if (system("python3 -c '' 2>/dev/null") != 0) {
        print_message("no python3, so no tiny model\n");
        skip();
    }
    (void)snprintf(path, sizeof path, "%s/tiny-%s.gguf", QUIRE_BINARY_DIR, name);
    /* Written beside its place and renamed: tests that run at the same time want the same file. */
    (void)snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
    (void)snprintf(command, sizeof command, "python3 '%s/scripts/make_tiny_model.py' %s '%s'",
                   QUIRE_SOURCE_DIR, arguments, temporary);
    if (access(path, R_OK) == 0)
        return path;
    if (system(command) != 0 || rename(temporary, path) != 0)
        fail_msg("cannot make %s", path);
    return path;
}
