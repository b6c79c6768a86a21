/* test_shared_threads.c - eight threads share prefixes of one pool: find, fork, drop and pin at
 * once. SPDX-License-Identifier: Apache-2.0 */
#include "share_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { THREADS = 8, PREFIX = 14, LEN_MAX = 60 };

/* Failed assertions jump, which only the test's own thread may do; the workers count instead. */
struct worker {
    struct qt_env env; /* scratch of its own, backend and pool shared */
    struct qt_random random;
    uint32_t index;
    uint32_t errors, first_error;          /* how many, and the line of the first */
    uint32_t hits, forks, pinned, refused; /* that the test did not run empty */
    uint64_t events, last_event;
    pthread_t thread;
};

static atomic_uint finished;

static void expect_at(struct worker *worker, bool holds, uint32_t line)
{
    if (!holds && worker->errors++ == 0)
        worker->first_error = line;
}
#define expect(worker, holds) expect_at((worker), (holds), __LINE__)

/* A prompt: one of four beginnings that all threads use, and a few tokens of its own. */
static uint32_t make_prompt(struct worker *worker, uint32_t *tokens)
{
    uint32_t family = qt_below(&worker->random, 4), own = qt_below(&worker->random, 12);
    uint32_t common = 1 + qt_below(&worker->random, PREFIX);
    qt_tokens(family, tokens, common);
    for (uint32_t i = 0; i < own; i++)
        tokens[common + i] = 50000 + qt_below(&worker->random, 4);
    return common + own;
}

/* Adds tokens in pieces; false where the others hold the blocks just now. */
static bool feed(struct worker *worker, struct qt_line *line, const uint32_t *tokens,
                 uint32_t count)
{
    struct qt_env *env = &worker->env;
    while (count > 0) {
        struct qt_batch batch = {0};
        uint32_t piece = 1 + qt_below(&worker->random, count);
        qt_line_add(&batch, line, tokens, piece);
        quire_status status = qt_batch_begin(env, &batch);
        if (status == QUIRE_E_NOSPACE) {
            worker->refused++;
            return false;
        }
        expect(worker, status == QUIRE_OK);
        if (status != QUIRE_OK)
            return false;
        for (uint32_t layer = 0; env->has_kv && layer < env->geometry->num_layers; layer++)
            expect(worker, qt_batch_write(env, &batch, layer) == QUIRE_OK);
        if (qt_chance(&worker->random, 15)) {
            expect(worker, qt_batch_abort(env, &batch) == QUIRE_OK);
            continue;
        }
        expect(worker, qt_batch_commit(env, &batch, NULL) == QUIRE_OK);
        tokens += piece;
        count -= piece;
    }
    return true;
}

static void compare(struct worker *worker, const struct qt_line *line, uint32_t layer)
{
    struct qt_env *env = &worker->env;
    const struct quire_group_config *group = qt_group_of(env->geometry, layer);
    uint32_t len = line->stream.len;
    uint32_t first = group->window > 0 && len + 1 > group->window ? len + 1 - group->window : 0;
    struct quire_rows rows = {layer, first, len - first};
    uint8_t k[LEN_MAX * 64], v[LEN_MAX * 64], want[64];
    size_t k_bytes = qt_row_bytes(env, layer, QT_K), v_bytes = qt_row_bytes(env, layer, QT_V);
    if (!env->has_kv || rows.count == 0)
        return;
    expect(worker, k_bytes <= sizeof want && v_bytes <= sizeof want && rows.count <= LEN_MAX);
    expect(worker, quire_seq_read(env->pool, line->stream.seq, &rows, k, v) == QUIRE_OK);
    for (uint32_t i = 0; i < rows.count; i++) {
        uint64_t salt = line->stream.salts[first + i];
        qt_stored_row(env, salt, layer, QT_K, want);
        expect(worker, memcmp(k + i * k_bytes, want, k_bytes) == 0);
        qt_stored_row(env, salt, layer, QT_V, want);
        expect(worker, memcmp(v + i * v_bytes, want, v_bytes) == 0);
    }
}

static void compare_all(struct worker *worker, const struct qt_line *line)
{
    uint32_t tokens[LEN_MAX], count = 0, len = 0;
    for (uint32_t layer = 0; layer < worker->env.geometry->num_layers; layer++)
        compare(worker, line, layer);
    expect(worker, quire_seq_length(worker->env.pool, line->stream.seq, &len) == QUIRE_OK);
    expect(worker, len == line->stream.len);
    expect(worker, quire_seq_tokens(worker->env.pool, line->stream.seq, tokens, LEN_MAX, &count) ==
                       QUIRE_OK);
    expect(worker, count == len && memcmp(tokens, line->tokens, len * sizeof *tokens) == 0);
}

/* Starts a line from what the pool has of a prompt, at once or after it was looked for again. */
static void start(struct worker *worker, struct qt_line *line,
                  const struct quire_seq_config *config)
{
    struct quire_pool *pool = worker->env.pool;
    struct quire_seq_config late = *config;
    uint32_t hit = 0;
    qt_line_alloc(&worker->env, line);
    line->salt = config->salt;
    late.no_lookup = qt_chance(&worker->random, 30);
    expect(worker, quire_seq_create(pool, &late, &line->stream.seq) == QUIRE_OK);
    if (late.no_lookup)
        expect(worker, quire_seq_rematch(pool, line->stream.seq, config, &hit) == QUIRE_OK);
    expect(worker, quire_seq_length(pool, line->stream.seq, &hit) == QUIRE_OK);
    expect(worker, hit < config->num_tokens);
    memcpy(line->tokens, config->tokens, hit * sizeof *config->tokens);
    line->stream.len = hit;
    qt_line_mean(line, 0, hit);
    worker->hits += hit > 0;
}

/* A fork somewhere; both go on. Windows may have let go what an early fork needs. */
static void fork_and_go_on(struct worker *worker, struct qt_line *line)
{
    struct qt_line fork;
    uint32_t len = qt_below(&worker->random, line->stream.len + 1), longest = 0;
    uint32_t more[] = {60000 + worker->index, qt_below(&worker->random, 3), 7};
    qt_line_alloc(&worker->env, &fork);
    quire_status status =
        quire_seq_fork(worker->env.pool, line->stream.seq, len, &fork.stream.seq, &longest);
    if (status == QUIRE_E_NOTFOUND) {
        expect(worker, longest < len);
        qt_line_free(&fork);
        return;
    }
    expect(worker, status == QUIRE_OK);
    worker->forks++;
    fork.salt = line->salt;
    fork.stream.len = len;
    memcpy(fork.tokens, line->tokens, len * sizeof *fork.tokens);
    qt_line_mean(&fork, 0, len);
    (void)feed(worker, &fork, more, 3);
    (void)feed(worker, line, more + 1, 2);
    compare_all(worker, &fork);
    compare_all(worker, line);
    expect(worker, quire_seq_destroy(worker->env.pool, fork.stream.seq) == QUIRE_OK);
    expect(worker, quire_seq_destroy(worker->env.pool, fork.stream.seq) == QUIRE_E_INVAL);
    qt_line_free(&fork);
}

static void use_pins(struct worker *worker, const struct quire_seq_config *config)
{
    struct quire_pool *pool = worker->env.pool;
    quire_pin pin = {0};
    uint32_t len = 0;
    quire_status status = quire_pool_pin(pool, config, &pin, &len, NULL);
    if (status == QUIRE_OK) {
        struct quire_seq_config longer = *config;
        uint32_t tokens[LEN_MAX], found = 0;
        memcpy(tokens, config->tokens, len * sizeof *tokens);
        tokens[len] = QT_TOKEN_NEVER;
        longer.tokens = tokens;
        longer.num_tokens = len + 1;
        expect(worker, quire_pool_lookup(pool, &longer, &found) == QUIRE_OK);
        status = quire_pool_unpin(pool, pin); /* another thread may have dropped it */
        expect(worker, status == QUIRE_OK || status == QUIRE_E_INVAL);
        expect(worker, status == QUIRE_E_INVAL || found == len);
        worker->pinned++;
    } else {
        expect(worker, status == QUIRE_E_NOTFOUND || status == QUIRE_E_LIMIT);
    }
}

static void look_around(struct worker *worker, const struct quire_seq_config *config)
{
    struct quire_pool *pool = worker->env.pool;
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    struct quire_group_stats group = {.struct_size = sizeof group};
    expect(worker, quire_pool_stats(pool, &stats) == QUIRE_OK);
    expect(worker,
           stats.blocks_free + stats.blocks_owned + stats.blocks_cached == stats.blocks_total);
    expect(worker, quire_pool_group_stats(pool, 1, &group) == QUIRE_OK);
    if (qt_chance(&worker->random, 20))
        expect(worker, quire_pool_check(pool, NULL) == QUIRE_OK);
    if (qt_chance(&worker->random, 10))
        expect(worker, quire_pool_drop_prefix(pool, config, NULL) == QUIRE_OK);
    if (qt_chance(&worker->random, 5))
        expect(worker, quire_pool_drop(pool, 1) == QUIRE_OK);
}

/* One thread at a time drains: the first one. */
static void drain(struct worker *worker)
{
    struct quire_event events[50];
    uint32_t count = 0;
    do {
        expect(worker, quire_pool_events(worker->env.pool, events, 50, &count, NULL) == QUIRE_OK);
        for (uint32_t i = 0; i < count; i++) {
            expect(worker, worker->events == 0 || events[i].number > worker->last_event);
            worker->last_event = events[i].number;
            worker->events++;
        }
    } while (count == 50);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct quire_pool *pool = worker->env.pool;
    uint32_t rounds =
        worker->env.opaque ? 12 : 60; /* it is slow: it protects memory at each command */
    for (uint32_t round = 0; round < rounds; round++) {
        struct qt_line line;
        uint32_t tokens[PREFIX + 12], count = make_prompt(worker, tokens);
        struct quire_seq_config config = qt_prefix(tokens, count);
        config.salt = qt_below(&worker->random, 2);
        start(worker, &line, &config);
        compare_all(worker, &line);
        uint32_t hit = line.stream.len;
        if (feed(worker, &line, tokens + hit, count - hit)) {
            compare_all(worker, &line);
            expect(worker, quire_seq_publish(pool, line.stream.seq) == QUIRE_OK);
            fork_and_go_on(worker, &line);
            uint32_t cut = line.stream.len - qt_below(&worker->random, line.stream.len / 2 + 1);
            quire_status status = quire_seq_truncate(pool, line.stream.seq, cut, NULL);
            expect(worker, status == QUIRE_OK || status == QUIRE_E_NOTFOUND);
            if (status == QUIRE_OK)
                line.stream.len = cut;
            compare_all(worker, &line);
        }
        use_pins(worker, &config);
        look_around(worker, &config);
        expect(worker, quire_seq_destroy(pool, line.stream.seq) == QUIRE_OK);
        qt_line_free(&line);
        if (worker->index == 0)
            drain(worker);
    }
    atomic_fetch_add(&finished, 1);
    while (worker->index == 0 && atomic_load(&finished) < THREADS)
        drain(worker);
    return NULL;
}

static void open_worker(struct worker *worker, const struct qt_env *env, uint32_t index)
{
    const struct quire_memory_ops *memory = env->backend->memory;
    size_t bytes = env->config.max_step_tokens * env->row_floats * sizeof(float);
    *worker = (struct worker){.env = *env, .random = {index}, .index = index};
    worker->env.host_inputs = qt_alloc(bytes);
    if (env->has_kv)
        qt_assert_ok(memory->buffer_create(env->backend, bytes, 0, &worker->env.inputs));
}

static void close_worker(struct worker *worker)
{
    if (worker->env.has_kv)
        worker->env.backend->memory->buffer_destroy(worker->env.backend, worker->env.inputs);
    qt_free(worker->env.host_inputs);
}

static void run_threads(const struct qt_variant *variant, uint32_t num_blocks, uint32_t merge_equal)
{
    struct quire_pool_config config;
    struct quire_pool_stats stats;
    struct qt_env env;
    struct worker *workers = qt_alloc(THREADS * sizeof *workers);
    uint32_t hits = 0, forks = 0, pinned = 0, refused = 0;
    qt_share_config(&config, variant, &qt_unequal, 4, num_blocks);
    config.max_seqs = 2 * THREADS;
    config.max_open_steps = THREADS;
    config.max_step_tokens = 64;
    config.max_seq_len = LEN_MAX;
    config.event_capacity = 256;
    config.merge_equal = merge_equal;
    qt_open_config(&env, variant, &qt_unequal, &config);
    atomic_store(&finished, 0);
    for (uint32_t i = 0; i < THREADS; i++)
        open_worker(&workers[i], &env, i);
    for (uint32_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (uint32_t i = 0; i < THREADS; i++)
        (void)pthread_join(workers[i].thread, NULL);
    for (uint32_t i = 0; i < THREADS; i++) {
        if (workers[i].errors > 0)
            fail_msg("thread %u: %u errors, the first in line %u", i, workers[i].errors,
                     workers[i].first_error);
        hits += workers[i].hits;
        forks += workers[i].forks;
        pinned += workers[i].pinned;
        refused += workers[i].refused;
        close_worker(&workers[i]);
    }
    qt_stats(&env, &stats);
    assert_int_equal(stats.seqs, 0);
    assert_int_equal(stats.pins, 0);
    assert_int_equal(stats.blocks_owned, 0);
    assert_true(hits > THREADS && forks > THREADS && pinned > THREADS);
    assert_true(workers[0].events > 0 &&
                workers[0].events + stats.events_lost >= stats.blocks_stored);
    if (num_blocks < 100) /* where blocks are few, it must have shown */
        assert_true(stats.blocks_evicted > 0);
    (void)refused;
    qt_free(workers);
    qt_close(&env);
}

/* Plenty of blocks; few, so that everything evicts; and with equal blocks merged. */
static void test_threads_share_prefixes(void **state)
{
    run_threads(*state, 600, 0);
}

static void test_threads_with_few_blocks(void **state)
{
    run_threads(*state, 90, 0);
}

static void test_threads_merge_equal_blocks(void **state)
{
    run_threads(*state, 200, 1);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_threads_share_prefixes, QT_SHARE),
        QT_TEST(test_threads_with_few_blocks, QT_SHARE),
        QT_TEST(test_threads_merge_equal_blocks, QT_SHARE),
    };
    return qt_run("shared_threads", tests, QT_LEN(tests));
}
