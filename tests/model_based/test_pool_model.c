/* test_pool_model.c - the cache against a slow, obvious model, under random operations.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The model knows of every sequence its tokens and the salts of its rows, and of every open step
 * what it added. From these alone it foretells each answer: the status, how many blocks are
 * missing, every length, every count of blocks, every byte. QUIRE_TEST_OPS sets the number of
 * operations (200,000), QUIRE_TEST_SEED the seed. */
#include "support/cache_fixture.h"

#include <stdio.h>
#include <string.h>

#include "base/base.h"

enum { SEQS = 6, STEPS = 3, LEN_MAX = 100, ROWS_MAX = 60, DEAD_MAX = 32, RUNS = 24 };

static const uint32_t full_layers[] = {1};
static const uint32_t window_layers[] = {0, 2};
static const struct qt_geometry geometry = {
    "model",
    3,
    2,
    {{full_layers, 1, 2, 2, 3, 5, 0, 0}, {window_layers, 2, 2, 1, 4, 0, 9, 1}},
};

struct model_seq {
    bool live;
    struct qt_stream stream;
    uint32_t tokens[LEN_MAX];
    bool known[LEN_MAX]; /* whether a step told the token of this position */
    int step;            /* that holds it, or -1 */
};

struct model_step {
    bool open, with_tokens;
    struct qt_batch batch;
    uint32_t index[SEQS]; /* of each item's sequence */
    uint32_t tokens[SEQS][ROWS_MAX];
    uint32_t layers_written;
};

struct model {
    struct qt_env env;
    struct qt_random random;
    struct model_seq seqs[SEQS];
    struct model_step steps[STEPS];
    quire_seq dead[DEAD_MAX];
    quire_step closed[DEAD_MAX];
    uint32_t num_dead, num_closed;
    uint64_t next_key, committed, aborted;
};

/* ---- what the model foretells ---- */

static uint64_t blocks_of(const struct model *model, uint64_t len)
{
    uint32_t size = model->env.config.block_size;
    uint64_t tables = model->env.config.layout == QUIRE_LAYOUT_PAGED ? geometry.num_groups : 1;
    return (len + size - 1) / size * tables;
}

static uint32_t added(const struct model *model, uint32_t index)
{
    const struct model_seq *seq = &model->seqs[index];
    if (seq->step < 0)
        return 0;
    const struct model_step *step = &model->steps[seq->step];
    for (uint32_t i = 0; i < step->batch.num_items; i++) {
        if (step->index[i] == index)
            return step->batch.items[i].n_new;
    }
    return 0;
}

static uint64_t blocks_owned(const struct model *model)
{
    uint64_t owned = 0;
    for (uint32_t i = 0; i < SEQS; i++) {
        if (model->seqs[i].live)
            owned += blocks_of(model, (uint64_t)model->seqs[i].stream.len + added(model, i));
    }
    return owned;
}

static uint32_t known_tokens(const struct model_seq *seq)
{
    uint32_t count = 0;
    while (count < seq->stream.len && seq->known[count])
        count++;
    return count;
}

/* ---- comparing ---- */

static void compare_counts(struct model *model)
{
    struct quire_pool_stats stats;
    uint32_t live = 0, open = 0;
    qt_stats(&model->env, &stats);
    for (uint32_t i = 0; i < SEQS; i++)
        live += model->seqs[i].live;
    for (uint32_t i = 0; i < STEPS; i++)
        open += model->steps[i].open;
    assert_int_equal(stats.blocks_total, model->env.config.num_blocks);
    assert_int_equal(stats.blocks_owned, blocks_owned(model));
    assert_int_equal(stats.blocks_free, stats.blocks_total - stats.blocks_owned);
    assert_int_equal(stats.blocks_cached + stats.blocks_in_transit, 0);
    assert_int_equal(stats.seqs, live);
    assert_int_equal(stats.open_steps, open);
    assert_int_equal(stats.steps_committed, model->committed);
    assert_int_equal(stats.steps_aborted, model->aborted);
}

static void compare_seq(struct model *model, uint32_t index)
{
    const struct model_seq *seq = &model->seqs[index];
    const uint32_t *tokens = NULL;
    uint32_t count = 0, len = 0;
    if (!seq->live)
        return;
    qt_assert_ok(quire_seq_length(model->env.pool, seq->stream.seq, &len));
    assert_int_equal(len, seq->stream.len);
    qt_assert_ok(quire_seq_tokens(model->env.pool, seq->stream.seq, &tokens, &count));
    assert_int_equal(count, known_tokens(seq));
    for (uint32_t t = 0; t < count; t++)
        assert_int_equal(tokens[t], seq->tokens[t]);
}

static void compare(struct model *model)
{
    struct quire_error error = {0};
    if (quire_pool_check(model->env.pool, &error) != QUIRE_OK)
        fail_msg("quire_pool_check: %s", error.message);
    compare_counts(model);
    compare_seq(model, qt_below(&model->random, SEQS));
}

/* ---- operations on sequences ---- */

static struct model_seq *any(struct model *model)
{
    return &model->seqs[qt_below(&model->random, SEQS)];
}

static void op_create(struct model *model)
{
    struct model_seq *seq = any(model);
    quire_seq handle = {0};
    uint32_t live = 0;
    for (uint32_t i = 0; i < SEQS; i++)
        live += model->seqs[i].live;
    if (live == SEQS) {
        qt_assert_status(quire_seq_create(model->env.pool, NULL, &handle), QUIRE_E_LIMIT);
        return;
    }
    while (seq->live)
        seq = any(model);
    *seq = (struct model_seq){.live = true, .step = -1};
    qt_stream_open(&model->env, &seq->stream, model->next_key++);
}

static void bury(struct model *model, quire_seq seq)
{
    model->dead[model->num_dead++ % DEAD_MAX] = seq;
}

static void op_destroy(struct model *model)
{
    struct model_seq *seq = any(model);
    if (!seq->live)
        return;
    quire_status status = quire_seq_destroy(model->env.pool, seq->stream.seq);
    assert_int_equal(status, seq->step >= 0 ? QUIRE_E_BUSY : QUIRE_OK);
    if (status == QUIRE_OK) {
        bury(model, seq->stream.seq);
        qt_stream_free(&seq->stream);
        seq->live = false;
    }
}

static void op_truncate(struct model *model)
{
    struct model_seq *seq = any(model);
    if (!seq->live)
        return;
    bool reset = qt_chance(&model->random, 15);
    uint32_t len = reset ? 0 : qt_below(&model->random, seq->stream.len + 3);
    quire_status want = seq->step >= 0          ? QUIRE_E_BUSY
                        : len > seq->stream.len ? QUIRE_E_INVAL
                                                : QUIRE_OK;
    quire_status got = reset ? quire_seq_reset(model->env.pool, seq->stream.seq)
                             : quire_seq_truncate(model->env.pool, seq->stream.seq, len);
    assert_int_equal(got, want);
    if (want == QUIRE_OK) {
        seq->stream.len = len;
        seq->stream.epoch++;
    }
}

static void op_read(struct model *model)
{
    struct model_seq *seq = any(model);
    if (seq->live)
        qt_stream_check(&model->env, &seq->stream);
}

/* Replaces some committed rows of every layer by those of new salts. */
static void op_write_rows(struct model *model)
{
    struct qt_env *env = &model->env;
    struct model_seq *seq = any(model);
    uint8_t k[LEN_MAX * 64], v[LEN_MAX * 64];
    if (!seq->live || seq->stream.len == 0 || !env->has_kv)
        return;
    uint32_t first = qt_below(&model->random, seq->stream.len);
    uint32_t count = 1 + qt_below(&model->random, seq->stream.len - first);
    for (uint32_t t = first; t < first + count; t++)
        seq->stream.salts[t] = qt_next(&model->random);
    for (uint32_t layer = 0; layer < geometry.num_layers; layer++) {
        struct quire_rows rows = {layer, first, count};
        for (uint32_t t = 0; t < count; t++) {
            uint64_t salt = seq->stream.salts[first + t];
            qt_stored_row(env, salt, layer, QT_K, k + t * qt_row_bytes(env, layer, QT_K));
            qt_stored_row(env, salt, layer, QT_V, v + t * qt_row_bytes(env, layer, QT_V));
        }
        qt_assert_ok(quire_seq_write(env->pool, seq->stream.seq, &rows, k, v));
    }
}

static void op_stale(struct model *model)
{
    struct quire_pool *pool = model->env.pool;
    if (model->num_dead > 0) {
        quire_seq dead = model->dead[qt_below(
            &model->random, model->num_dead < DEAD_MAX ? model->num_dead : DEAD_MAX)];
        struct quire_step_item item = {dead, 1, NULL};
        quire_step step;
        qt_assert_status(quire_seq_destroy(pool, dead), QUIRE_E_INVAL);
        qt_assert_status(quire_seq_truncate(pool, dead, 0), QUIRE_E_INVAL);
        quire_status status = quire_step_begin(pool, &item, 1, &step, NULL);
        assert_true(status == QUIRE_E_INVAL || status == QUIRE_E_BUSY); /* busy: every slot */
    }
    if (model->num_closed > 0) {
        quire_step closed = model->closed[qt_below(
            &model->random, model->num_closed < DEAD_MAX ? model->num_closed : DEAD_MAX)];
        qt_assert_status(quire_step_abort(pool, closed), QUIRE_E_INVAL);
        qt_assert_status(quire_step_commit(pool, closed, NULL), QUIRE_E_INVAL);
    }
}

static void op_pool_reset(struct model *model)
{
    bool open = false;
    for (uint32_t i = 0; i < STEPS; i++)
        open = open || model->steps[i].open;
    qt_assert_status(quire_pool_reset(model->env.pool), open ? QUIRE_E_BUSY : QUIRE_OK);
    for (uint32_t i = 0; !open && i < SEQS; i++) {
        if (model->seqs[i].live) {
            bury(model, model->seqs[i].stream.seq);
            qt_stream_free(&model->seqs[i].stream);
            model->seqs[i].live = false;
        }
    }
}

/* ---- steps ---- */

/* Adds a random sequence to a batch that is being made; sometimes one that may not be there. */
static void add_item(struct model *model, struct model_step *step, uint32_t index)
{
    struct model_seq *seq = &model->seqs[index];
    uint32_t item = step->batch.num_items;
    uint32_t rows = model->env.config.max_step_tokens - step->batch.num_tokens;
    uint32_t room = model->env.config.max_seq_len - seq->stream.len;
    uint32_t most = room < rows ? room : rows;
    if (most == 0)
        return;
    uint32_t n_new = qt_chance(&model->random, 50) ? 1 : 1 + qt_below(&model->random, most);
    if (seq->step >= 0) { /* a wrong item: its salts must stay */
        step->batch.items[item] = (struct quire_step_item){seq->stream.seq, n_new, NULL};
        step->batch.streams[item] = &seq->stream;
        step->batch.num_items++;
        step->batch.num_tokens += n_new;
    } else {
        for (uint32_t t = 0; t < n_new; t++)
            step->tokens[item][t] = (uint32_t)qt_next(&model->random);
        qt_batch_add(&step->batch, &seq->stream, n_new,
                     step->with_tokens ? step->tokens[item] : NULL);
    }
    step->index[item] = index;
}

struct foretold {
    quire_status status;
    uint64_t missing;
};

static struct foretold foretell(const struct model *model, const struct model_step *step)
{
    struct foretold foretold = {QUIRE_OK, 0};
    uint64_t needed = 0;
    for (uint32_t i = 0; i < step->batch.num_items; i++) {
        const struct model_seq *seq = &model->seqs[step->index[i]];
        if (seq->step >= 0) {
            foretold.status = QUIRE_E_BUSY;
            return foretold;
        }
        needed += blocks_of(model, (uint64_t)seq->stream.len + step->batch.items[i].n_new) -
                  blocks_of(model, seq->stream.len);
    }
    uint64_t free_blocks = model->env.config.num_blocks - blocks_owned(model);
    if (needed > free_blocks)
        foretold = (struct foretold){QUIRE_E_NOSPACE, needed - free_blocks};
    return foretold;
}

/* Makes the device refuse what begin asks of it; what, or OK when it will not be asked. */
static quire_status plan_refusal(struct model *model, const struct model_step *step)
{
    struct quire_backend *backend = model->env.backend;
    bool grows = false;
    if (!model->env.opaque || !qt_chance(&model->random, 10))
        return QUIRE_OK;
    for (uint32_t i = 0; i < step->batch.num_items; i++) {
        uint32_t len = model->seqs[step->index[i]].stream.len;
        grows = grows || blocks_of(model, (uint64_t)len + step->batch.items[i].n_new) >
                             blocks_of(model, len);
    }
    if (grows && model->env.config.layout == QUIRE_LAYOUT_CONTIGUOUS &&
        qt_chance(&model->random, 70))
        qt_opaque_fail(backend, QT_CALL_COMMIT, qt_below(&model->random, geometry.num_layers),
                       QUIRE_E_NOMEM);
    else
        qt_opaque_fail(backend, qt_chance(&model->random, 50) ? QT_CALL_UPLOAD : QT_CALL_PLAN_BUILD,
                       0, QUIRE_E_NOMEM);
    return QUIRE_E_NOMEM;
}

static void begin(struct model *model, uint32_t slot, struct model_step *step)
{
    struct foretold foretold = foretell(model, step);
    if (foretold.status == QUIRE_OK)
        foretold.status = plan_refusal(model, step);
    /* the heap is empty: a running pool takes nothing from it */
    quire__alloc_fail_after(0, true);
    step->batch.missing = 0;
    quire_status status = qt_batch_begin(&model->env, &step->batch);
    quire__alloc_fail_after(-1, false);
    if (model->env.opaque)
        qt_opaque_fail_none(model->env.backend);
    qt_assert_status(status, foretold.status);
    assert_int_equal(step->batch.missing, foretold.missing);
    if (status != QUIRE_OK)
        return;
    step->open = true;
    model->steps[slot] = *step;
    struct model_step *kept = &model->steps[slot];
    for (uint32_t i = 0; i < kept->batch.num_items; i++) {
        model->seqs[kept->index[i]].step = (int)slot;
        if (kept->with_tokens)
            kept->batch.items[i].tokens = kept->tokens[i];
    }
}

static void op_begin(struct model *model)
{
    struct model_step *step = qt_alloc(sizeof *step);
    uint32_t slot = 0, first = qt_below(&model->random, SEQS);
    while (slot < STEPS && model->steps[slot].open)
        slot++;
    step->with_tokens = qt_chance(&model->random, 70);
    for (uint32_t i = 0; i < SEQS; i++) {
        uint32_t index = (first + i) % SEQS;
        const struct model_seq *seq = &model->seqs[index];
        if (seq->live && qt_chance(&model->random, seq->step < 0 ? 50 : 3))
            add_item(model, step, index);
    }
    if (step->batch.num_items > 0 && slot == STEPS)
        qt_assert_status(qt_batch_begin(&model->env, &step->batch), QUIRE_E_BUSY);
    else if (step->batch.num_items > 0)
        begin(model, slot, step);
    qt_free(step);
}

static void op_write(struct model *model)
{
    struct model_step *step = &model->steps[qt_below(&model->random, STEPS)];
    if (!step->open || !model->env.has_kv)
        return;
    uint32_t wanted = qt_chance(&model->random, 90) ? geometry.num_layers : 1;
    for (uint32_t layer = 0; layer < geometry.num_layers && wanted > 0; layer++) {
        if ((step->layers_written & 1u << layer) == 0) {
            qt_assert_ok(qt_batch_write(&model->env, &step->batch, layer));
            step->layers_written |= 1u << layer;
            wanted--;
        }
    }
}

static void close_step(struct model *model, struct model_step *step, const uint32_t *keep)
{
    for (uint32_t i = 0; i < step->batch.num_items; i++) {
        struct model_seq *seq = &model->seqs[step->index[i]];
        uint32_t len = seq->stream.len - keep[i]; /* the fixture has moved it on */
        for (uint32_t t = 0; t < keep[i]; t++) {
            seq->known[len + t] = step->with_tokens;
            seq->tokens[len + t] = step->tokens[i][t];
        }
        seq->step = -1;
    }
    model->closed[model->num_closed++ % DEAD_MAX] = step->batch.step;
    step->open = false;
}

static void op_commit(struct model *model)
{
    struct model_step *step = &model->steps[qt_below(&model->random, STEPS)];
    uint32_t keep[SEQS] = {0}, all = (1u << geometry.num_layers) - 1;
    if (!step->open)
        return;
    bool written = step->layers_written == all || !model->env.has_kv;
    bool whole = written && qt_chance(&model->random, 50);
    for (uint32_t i = 0; written && i < step->batch.num_items; i++) {
        uint32_t n_new = step->batch.items[i].n_new;
        keep[i] = whole ? n_new : qt_below(&model->random, n_new + 1);
    }
    quire_status status = qt_batch_commit(&model->env, &step->batch, whole ? NULL : keep);
    if (!written && step->layers_written != 0) {
        qt_assert_status(status, QUIRE_E_INVAL);
        return;
    }
    qt_assert_status(status, QUIRE_OK);
    close_step(model, step, keep);
    model->committed++;
}

static void op_abort(struct model *model)
{
    const uint32_t keep[SEQS] = {0};
    struct model_step *step = &model->steps[qt_below(&model->random, STEPS)];
    if (!step->open)
        return;
    qt_assert_ok(qt_batch_abort(&model->env, &step->batch));
    close_step(model, step, keep);
    model->aborted++;
}

/* ---- runs ---- */

static const struct {
    void (*run)(struct model *model);
    uint32_t weight;
} operations[] = {
    {op_create, 8},  {op_destroy, 3}, {op_truncate, 8},   {op_begin, 24}, {op_write, 30},
    {op_commit, 18}, {op_abort, 4},   {op_write_rows, 2}, {op_read, 4},   {op_stale, 4},
};

static void operate(struct model *model)
{
    uint32_t total = 0, pick;
    for (size_t i = 0; i < QT_LEN(operations); i++)
        total += operations[i].weight;
    pick = qt_below(&model->random, total);
    if (qt_below(&model->random, 2000) == 0) {
        op_pool_reset(model);
        return;
    }
    for (size_t i = 0; i < QT_LEN(operations); i++) {
        if (pick < operations[i].weight) {
            operations[i].run(model);
            return;
        }
        pick -= operations[i].weight;
    }
}

static void open_model(struct model *model, const struct qt_variant *variant, uint32_t block_size)
{
    struct quire_pool_config config;
    qt_config(&config, variant, &geometry);
    config.block_size = block_size;
    config.max_seqs = SEQS;
    config.max_seq_len = 40 + qt_below(&model->random, LEN_MAX - 40 + 1);
    config.max_step_tokens = 10 + qt_below(&model->random, ROWS_MAX - 10 + 1);
    config.max_open_steps = STEPS;
    /* from one long sequence to all of them */
    uint32_t tables = variant->layout == QUIRE_LAYOUT_PAGED ? geometry.num_groups : 1;
    uint32_t most = tables * (config.max_seq_len / block_size + 1);
    config.num_blocks = most + qt_below(&model->random, (SEQS - 1) * most);
    qt_open_config(&model->env, variant, &geometry, &config);
}

static void run(const struct qt_variant *variant, uint32_t block_size, uint64_t seed, uint64_t ops)
{
    struct model *model = qt_alloc(sizeof *model);
    model->random.state = seed;
    open_model(model, variant, block_size);
    for (uint64_t i = 0; i < ops; i++) {
        operate(model);
        compare(model);
        if (i % 512 == 0)
            qt_assert_pool_ok(&model->env);
    }
    for (uint32_t i = 0; i < SEQS; i++) {
        compare_seq(model, i);
        if (model->seqs[i].live) {
            qt_stream_check(&model->env, &model->seqs[i].stream);
            qt_stream_free(&model->seqs[i].stream);
        }
    }
    qt_close(&model->env);
    qt_free(model);
}

static void test_random_operations_match_the_model(void **state)
{
    static const uint32_t sizes[] = {1, 3, 16, 64};
    uint64_t seed = qt_env_u64("QUIRE_TEST_SEED", 20240607);
    uint64_t ops = qt_env_u64("QUIRE_TEST_OPS", 200000) / RUNS;
    for (size_t i = 0; i < QT_LEN(sizes); i++) {
        print_message("blocks of %u, QUIRE_TEST_SEED=%llu\n", sizes[i], (unsigned long long)seed);
        run(*state, sizes[i], seed + i, ops);
    }
}

int main(void)
{
    static const struct qt_test tests[] = {QT_TEST(test_random_operations_match_the_model, QT_ALL)};
    return qt_run("pool model", tests, QT_LEN(tests));
}
