/* test_sharing.c - shared blocks give the bits that a fresh computation gives, with whole models.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Texts form a tree of shared beginnings. Their logits are computed one text at a time in a pool
 * where nothing is cached. Then sequences walk through the texts in a random order, over a pool
 * too small for all of them: they start with what is cached, fork, go back, change to another text
 * that begins alike, are ended and evicted, in ragged batches. Whenever one stands where logits
 * are known, its own must be the same bytes. */
#include "model_fixture.h"

#include <string.h>

enum { TEXTS = 10, LENGTH_MAX = 112, MARK = 8, MARKS = LENGTH_MAX / MARK, SEQS = 6 };

struct scene {
    struct qt_engine engine;
    struct qt_random random;
    uint32_t texts[TEXTS][LENGTH_MAX];
    float *known[TEXTS][MARKS]; /* logits of position (m + 1) * MARK - 1 */
    quire_seq seqs[SEQS];
    bool live[SEQS];
    uint32_t text[SEQS], len[SEQS];
    uint32_t compared, steps;
};

/* Each text takes a beginning of an earlier one, of any length, and goes on by itself. */
static void write_texts(struct scene *scene, uint32_t vocabulary)
{
    for (uint32_t i = 0; i < TEXTS; i++) {
        uint32_t same = i == 0 ? 0 : qt_below(&scene->random, LENGTH_MAX - 16);
        const uint32_t *from = scene->texts[i == 0 ? 0 : qt_below(&scene->random, i)];
        for (uint32_t t = 0; t < LENGTH_MAX; t++)
            scene->texts[i][t] = t < same ? from[t] : qt_below(&scene->random, vocabulary);
    }
}

static void compute_alone(struct scene *scene, const char *path)
{
    const struct qt_engine_config config = {.dtype = QUIRE_F16, .context = 128, .threads = 1};
    qt_engine_open(&scene->engine, path, &config);
    write_texts(scene, scene->engine.vocabulary);
    for (uint32_t i = 0; i < TEXTS; i++) {
        quire_seq seq;
        assert_int_equal(quire_seq_create(scene->engine.pool, NULL, &seq), QUIRE_OK);
        for (uint32_t m = 0; m < MARKS; m++) {
            scene->known[i][m] = qt_alloc(scene->engine.vocabulary * sizeof(float));
            qt_engine_append(&scene->engine, seq, scene->texts[i] + m * MARK, MARK,
                             scene->known[i][m]);
        }
        assert_int_equal(quire_pool_reset(scene->engine.pool), QUIRE_OK);
    }
    qt_engine_close(&scene->engine);
}

/* ---- the walk ---- */

static void start(struct scene *scene, uint32_t i)
{
    struct quire_seq_config config;
    quire_seq_config_init(&config);
    scene->text[i] = qt_below(&scene->random, TEXTS);
    config.tokens = scene->texts[scene->text[i]];
    config.num_tokens = 2 + qt_below(&scene->random, LENGTH_MAX - 1);
    config.no_lookup = qt_chance(&scene->random, 10);
    assert_int_equal(quire_seq_create(scene->engine.pool, &config, &scene->seqs[i]), QUIRE_OK);
    assert_int_equal(quire_seq_length(scene->engine.pool, scene->seqs[i], &scene->len[i]),
                     QUIRE_OK);
    scene->live[i] = true;
}

/* A sequence may go on with any text that begins as it does. */
static void change_text(struct scene *scene, uint32_t i)
{
    uint32_t other = qt_below(&scene->random, TEXTS);
    if (memcmp(scene->texts[other], scene->texts[scene->text[i]],
               scene->len[i] * sizeof(uint32_t)) == 0)
        scene->text[i] = other;
}

static void branch(struct scene *scene, uint32_t i)
{
    uint32_t to = 0, len = qt_below(&scene->random, scene->len[i] + 1);
    while (to < SEQS && scene->live[to])
        to++;
    if (to == SEQS)
        return;
    quire_status status =
        quire_seq_fork(scene->engine.pool, scene->seqs[i], len, &scene->seqs[to], &len);
    if (status == QUIRE_E_NOTFOUND)
        status = quire_seq_fork(scene->engine.pool, scene->seqs[i], len, &scene->seqs[to], NULL);
    assert_int_equal(status, QUIRE_OK);
    scene->live[to] = true;
    scene->text[to] = scene->text[i];
    scene->len[to] = len;
    change_text(scene, to);
}

static void go_back(struct scene *scene, uint32_t i)
{
    uint32_t len = qt_below(&scene->random, scene->len[i] + 1);
    quire_status status = quire_seq_truncate(scene->engine.pool, scene->seqs[i], len, &len);
    if (status == QUIRE_E_NOTFOUND)
        status = quire_seq_truncate(scene->engine.pool, scene->seqs[i], len, NULL);
    assert_int_equal(status, QUIRE_OK);
    scene->len[i] = len;
    change_text(scene, i);
}

static void end(struct scene *scene, uint32_t i)
{
    assert_int_equal(quire_seq_destroy(scene->engine.pool, scene->seqs[i]), QUIRE_OK);
    scene->live[i] = false;
}

/* The items of a step, and which sequence each of them is. */
struct batch {
    struct scene *scene;
    struct quire__batch_item items[SEQS];
    uint32_t index[SEQS], num_items;
};

static quire_status compare(void *context, const struct quire__logits *logits)
{
    const struct batch *batch = context;
    struct scene *scene = batch->scene;
    uint32_t i = batch->index[logits->item];
    uint32_t after = scene->len[i] + batch->items[logits->item].count;
    if (after % MARK != 0)
        return QUIRE_OK;
    scene->compared++;
    if (memcmp(logits->values, scene->known[scene->text[i]][after / MARK - 1],
               scene->engine.vocabulary * sizeof(float)) != 0)
        fail_msg("text %u at %u: other bits (step %u)", scene->text[i], after, scene->steps);
    return QUIRE_OK;
}

static void step(struct scene *scene)
{
    struct batch batch = {.scene = scene};
    struct quire_error error = {0};
    for (uint32_t i = 0; i < SEQS; i++) {
        uint32_t left = scene->live[i] ? LENGTH_MAX - scene->len[i] : 0;
        if (left == 0 || qt_chance(&scene->random, 30))
            continue;
        uint32_t to_mark = MARK - scene->len[i] % MARK;
        uint32_t count = qt_chance(&scene->random, 60) ? to_mark : 1 + qt_below(&scene->random, 20);
        batch.index[batch.num_items] = i;
        batch.items[batch.num_items++] = (struct quire__batch_item){
            .seq = scene->seqs[i],
            .tokens = scene->texts[scene->text[i]] + scene->len[i],
            .count = count < left ? count : left,
            .want = QUIRE__WANT_LAST,
        };
    }
    if (batch.num_items == 0)
        return;
    const struct quire__batch run = {
        .items = batch.items, .num_items = batch.num_items, .logits = compare, .context = &batch};
    quire_status status = quire__runner_step(scene->engine.runner, &run, &error);
    scene->steps++;
    if (status == QUIRE_E_NOSPACE) {
        end(scene, batch.index[qt_below(&scene->random, batch.num_items)]);
        return;
    }
    if (status != QUIRE_OK)
        fail_msg("%s", error.message);
    for (uint32_t k = 0; k < batch.num_items; k++)
        scene->len[batch.index[k]] += batch.items[k].count;
}

static void act(struct scene *scene)
{
    uint32_t i = qt_below(&scene->random, SEQS), what = qt_below(&scene->random, 100);
    if (!scene->live[i])
        start(scene, i);
    else if (what < 15)
        end(scene, i);
    else if (what < 30)
        branch(scene, i);
    else if (what < 45)
        go_back(scene, i);
    else
        step(scene);
}

static void check_walk(const char *path, uint32_t num_steps)
{
    struct scene *scene = qt_alloc(sizeof *scene);
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    const uint64_t seed = qt_env_u64("QUIRE_TEST_SEED", 1);
    print_message("seed %llu\n", (unsigned long long)seed);
    scene->random.state = seed;
    compute_alone(scene, path);
    for (uint32_t merge = 0; merge < 2; merge++) {
        const struct qt_engine_config config = {.dtype = QUIRE_F16,
                                                .context = 128,
                                                .block_size = merge == 0 ? 16 : 5,
                                                .max_seqs = SEQS,
                                                .max_tokens = 256,
                                                .blocks_percent = 40,
                                                .merge_equal = merge};
        qt_engine_open(&scene->engine, path, &config);
        memset(scene->live, 0, sizeof scene->live);
        for (scene->steps = 0; scene->steps < num_steps;)
            act(scene);
        assert_int_equal(quire_pool_stats(scene->engine.pool, &stats), QUIRE_OK);
        assert_true(stats.hit_tokens > 0 && stats.blocks_copied > 0 && stats.blocks_evicted > 0);
        assert_true((stats.blocks_merged > 0) == (merge != 0));
        qt_engine_close(&scene->engine);
    }
    assert_true(scene->compared > num_steps);
    for (uint32_t i = 0; i < TEXTS; i++) {
        for (uint32_t m = 0; m < MARKS; m++)
            qt_free(scene->known[i][m]);
    }
    qt_free(scene);
}

/* ---- models ---- */

static void test_tiny_llama(void **state)
{
    (void)state;
    check_walk(qt_tiny_model("sharing", "--heads 4 --kv-heads 2"), 2000);
}

/* Windows of 8 positions: what is cached of a text is often too little to begin with. */
static void test_tiny_gemma3(void **state)
{
    (void)state;
    check_walk(qt_tiny_model("sharing_gemma3", "--arch gemma3 --layers 7 --vocab 512"), 1000);
}

static void test_smollm2(void **state)
{
    (void)state;
    check_walk(qt_real_model("QUIRE_TEST_MODEL"), 60);
}

static void test_gemma3(void **state)
{
    (void)state;
    check_walk(qt_real_model("QUIRE_TEST_MODEL_GEMMA3"), 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_llama),
        cmocka_unit_test(test_tiny_gemma3),
        cmocka_unit_test(test_smollm2),
        cmocka_unit_test(test_gemma3),
    };
    return cmocka_run_group_tests_name("sharing", tests, NULL, NULL);
}
