/* test_threads.c - one pool used from several threads: disjoint sequences, steps open at once.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/cache_fixture.h"

#include <pthread.h>
#include <string.h>

enum { THREADS = 3, ROUNDS = 60 };

/* Failed assertions jump, which only the test's own thread may do; the workers count instead. */
struct worker {
    struct qt_env env; /* scratch of its own, backend and pool shared */
    struct qt_stream streams[2];
    struct qt_random random;
    uint32_t errors;
    pthread_t thread;
};

static void expect(struct worker *worker, bool holds)
{
    worker->errors += !holds;
}

static void step(struct worker *worker)
{
    struct qt_env *env = &worker->env;
    struct qt_batch batch = {0};
    uint32_t keep[2];
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t room = env->config.max_seq_len - worker->streams[i].len;
        uint32_t n_new = 1 + qt_below(&worker->random, room < 7 ? room : 7);
        keep[i] = qt_below(&worker->random, n_new + 1);
        qt_batch_add(&batch, &worker->streams[i], n_new, NULL);
    }
    quire_status status = qt_batch_begin(env, &batch);
    if (status == QUIRE_E_NOSPACE) /* the other threads hold the blocks just now */
        return;
    expect(worker, status == QUIRE_OK);
    for (uint32_t layer = 0; env->has_kv && layer < env->geometry->num_layers; layer++)
        expect(worker, qt_batch_write(env, &batch, layer) == QUIRE_OK);
    if (qt_chance(&worker->random, 20))
        expect(worker, qt_batch_abort(env, &batch) == QUIRE_OK);
    else
        expect(worker, qt_batch_commit(env, &batch, keep) == QUIRE_OK);
}

/* What qt_stream_check does, without assertions. */
static void compare(struct worker *worker, const struct qt_stream *stream, uint32_t layer)
{
    struct qt_env *env = &worker->env;
    struct quire_rows rows = {layer, 0, stream->len};
    uint8_t k[64 * 64], want[64];
    size_t bytes = qt_row_bytes(env, layer, QT_K);
    if (!env->has_kv || bytes > sizeof want)
        return;
    expect(worker, quire_seq_read(env->pool, stream->seq, &rows, k, NULL) == QUIRE_OK);
    for (uint32_t t = 0; t < stream->len; t++) {
        qt_stored_row(env, stream->salts[t], layer, QT_K, want);
        expect(worker, memcmp(k + t * bytes, want, bytes) == 0);
    }
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct qt_env *env = &worker->env;
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct qt_stream *stream = &worker->streams[round % 2];
        uint32_t len = 0;
        step(worker);
        compare(worker, stream, round % env->geometry->num_layers);
        expect(worker, quire_seq_length(env->pool, stream->seq, &len) == QUIRE_OK);
        expect(worker, len == stream->len);
        expect(worker, quire_pool_stats(env->pool, &stats) == QUIRE_OK);
        expect(worker, stats.blocks_free + stats.blocks_owned == stats.blocks_total);
        if (round % 8 == 0)
            expect(worker, quire_pool_check(env->pool, NULL) == QUIRE_OK);
        if (stream->len > 50 || qt_chance(&worker->random, 15)) {
            uint32_t cut = qt_below(&worker->random, stream->len + 1);
            expect(worker, quire_seq_truncate(env->pool, stream->seq, cut, NULL) == QUIRE_OK);
            stream->len = cut;
        }
        if (round % 16 == 15) {
            quire_seq old = stream->seq;
            expect(worker, quire_seq_destroy(env->pool, old) == QUIRE_OK);
            expect(worker, quire_seq_destroy(env->pool, old) == QUIRE_E_INVAL);
            expect(worker, quire_seq_create(env->pool, NULL, &stream->seq) == QUIRE_OK);
            stream->len = 0;
        }
    }
    return NULL;
}

static void share(struct worker *worker, const struct qt_env *env, uint64_t index)
{
    const struct quire_memory_ops *memory = env->backend->memory;
    size_t bytes = env->config.max_step_tokens * env->row_floats * sizeof(float);
    *worker = (struct worker){.env = *env, .random = {index}};
    worker->env.host_inputs = qt_alloc(bytes);
    if (env->has_kv)
        qt_assert_ok(memory->buffer_create(env->backend, bytes, 0, &worker->env.inputs));
    for (uint32_t i = 0; i < 2; i++)
        qt_stream_open(&worker->env, &worker->streams[i], 2 * index + i);
}

static void test_threads_share_a_pool(void **state)
{
    struct quire_pool_config config;
    struct qt_env env;
    struct worker *workers = qt_alloc(THREADS * sizeof *workers);
    qt_config(&config, *state, &qt_groups);
    config.num_blocks = config.layout == QUIRE_LAYOUT_PAGED ? 3 * 48 : 48;
    qt_open_config(&env, *state, &qt_groups, &config);
    for (uint32_t i = 0; i < THREADS; i++)
        share(&workers[i], &env, i);
    for (uint32_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (uint32_t i = 0; i < THREADS; i++)
        (void)pthread_join(workers[i].thread, NULL);
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(workers[i].errors, 0);
        for (uint32_t j = 0; j < 2; j++) {
            qt_stream_check(&env, &workers[i].streams[j]);
            qt_stream_close(&env, &workers[i].streams[j]);
        }
        if (env.has_kv)
            env.backend->memory->buffer_destroy(env.backend, workers[i].env.inputs);
        qt_free(workers[i].env.host_inputs);
    }
    qt_free(workers);
    qt_close(&env);
}

int main(void)
{
    static const struct qt_test tests[] = {QT_TEST(test_threads_share_a_pool, QT_ALL)};
    return qt_run("threads", tests, QT_LEN(tests));
}
