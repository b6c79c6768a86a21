/* test_model.c - opening models that do not fit together, and the runner's rules.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "model/utf8.h"
#include "model_file.h"
#include "opaque_backend.h"

/* ---- a file of one layer, with something changed in it ---- */

enum { E = 8, F = 12, V = 20, H = 2, G = 1, D = 4 };

static const struct qt_key good_keys[] = {
    {"general.architecture", 's', 0, "llama", NULL},
    {"llama.block_count", 'u', 1, NULL, NULL},
    {"llama.embedding_length", 'u', E, NULL, NULL},
    {"llama.feed_forward_length", 'u', F, NULL, NULL},
    {"llama.context_length", 'u', 64, NULL, NULL},
    {"llama.attention.head_count", 'u', H, NULL, NULL},
    {"llama.attention.head_count_kv", 'u', G, NULL, NULL},
    {"llama.attention.layer_norm_rms_epsilon", 'f', 1e-5, NULL, NULL},
};

static const struct qt_tensor good_tensors[] = {
    {"token_embd.weight", E, V, QUIRE_W_F32},
    {"output_norm.weight", E, 0, QUIRE_W_F32},
    {"blk.0.attn_norm.weight", E, 0, QUIRE_W_F32},
    {"blk.0.attn_q.weight", E, H *D, QUIRE_W_F32},
    {"blk.0.attn_k.weight", E, G *D, QUIRE_W_F32},
    {"blk.0.attn_v.weight", E, G *D, QUIRE_W_F32},
    {"blk.0.attn_output.weight", H *D, E, QUIRE_W_F32},
    {"blk.0.ffn_norm.weight", E, 0, QUIRE_W_F32},
    {"blk.0.ffn_gate.weight", E, F, QUIRE_W_F32},
    {"blk.0.ffn_up.weight", E, F, QUIRE_W_F32},
    {"blk.0.ffn_down.weight", F, E, QUIRE_W_F32},
};

static const struct qt_model_parts good_file = {good_keys, QT_LEN(good_keys), good_tensors,
                                                QT_LEN(good_tensors)};

/* ---- opening ---- */

static const struct qt_change changes[] = {
    {QT_NO_KEY, QT_NO_TENSOR, QUIRE_OK, NULL},
    /* a separate output matrix, a value dim of its own, fewer rotating elements, factors */
    {QT_NO_KEY, {"output.weight", E, V, QUIRE_W_F16}, QUIRE_OK, NULL},
    {{"llama.rope.dimension_count", 'u', 2, NULL, NULL}, QT_NO_TENSOR, QUIRE_OK, NULL},
    {QT_NO_KEY, {"rope_freqs.weight", D / 2, 0, QUIRE_W_F32}, QUIRE_E_CORRUPT, "positive"},
    {{"llama.rope.scaling.type", 's', 0, "linear", NULL}, QT_NO_TENSOR, QUIRE_OK, NULL},
    {{"llama.rope.scaling.type", 's', 0, "none", NULL}, QT_NO_TENSOR, QUIRE_OK, NULL},
    {{"tokenizer.ggml.tokens", 't', V, NULL, NULL}, QT_NO_TENSOR, QUIRE_OK, NULL},

    {{"general.architecture", 0, 0, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "general.architecture"},
    {{"general.architecture", 's', 0, "mamba\n", NULL},
     QT_NO_TENSOR,
     QUIRE_E_UNSUPPORTED,
     "mamba?"},
    {{"general.architecture", 's', 0, "", NULL}, QT_NO_TENSOR, QUIRE_E_UNSUPPORTED, "llama"},
    {{"llama.block_count", 0, 0, NULL, NULL}, QT_NO_TENSOR, QUIRE_E_CORRUPT, "llama.block_count"},
    {{"llama.block_count", 'u', 0, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "llama.block_count is 0"},
    {{"llama.block_count", 'u', 5000, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "llama.block_count"},
    {{"llama.block_count", 'f', 1, NULL, NULL}, QT_NO_TENSOR, QUIRE_E_CORRUPT, "whole number"},
    {{"llama.block_count", 'u', 2, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "blk.1.attn_norm.weight"},
    {{"llama.embedding_length", 'u', 4294967295., NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "embedding"},
    {{"llama.embedding_length", 'u', 9, NULL, NULL}, QT_NO_TENSOR, QUIRE_E_CORRUPT, "width of 9"},
    {{"llama.embedding_length", 'u', 16, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "token_embd.weight is 8"},
    {{"llama.feed_forward_length", 'u', 13, NULL, NULL}, QT_NO_TENSOR, QUIRE_E_CORRUPT, "8 x 13"},
    {{"llama.context_length", 'u', 0, NULL, NULL}, QT_NO_TENSOR, QUIRE_E_CORRUPT, "context_length"},
    {{"llama.attention.head_count", 'u', 0, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "head_count"},
    {{"llama.attention.head_count_kv", 'u', 3, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "2 heads"},
    {{"llama.attention.head_count_kv", 'u', 2, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "attn_k.weight"},
    {{"llama.attention.key_length", 'u', 6, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "attn_q.weight"},
    {{"llama.attention.value_length", 'u', 6, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "attn_v.weight"},
    {{"llama.attention.layer_norm_rms_epsilon", 0, 0, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "epsilon"},
    {{"llama.attention.layer_norm_rms_epsilon", 'f', -1, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "epsilon"},
    {{"llama.attention.layer_norm_rms_epsilon", 'f', 1e300, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "epsilon"},
    {{"llama.rope.dimension_count", 'u', 3, NULL, NULL}, QT_NO_TENSOR, QUIRE_E_CORRUPT, "odd"},
    {{"llama.rope.dimension_count", 'u', 6, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "dimension_count"},
    {{"llama.rope.freq_base", 'f', 0, NULL, NULL}, QT_NO_TENSOR, QUIRE_E_CORRUPT, "freq_base"},
    {{"llama.rope.scaling.type", 's', 0, "yarn", NULL}, QT_NO_TENSOR, QUIRE_E_UNSUPPORTED, "yarn"},
    {{"llama.rope.scaling.type", 'u', 1, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "scaling.type"},
    {{"llama.rope.scale_linear", 'f', -2, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "scale_linear"},
    {{"llama.vocab_size", 'u', V + 1, NULL, NULL}, QT_NO_TENSOR, QUIRE_E_CORRUPT, "vocab_size"},
    {{"llama.expert_count", 'u', 8, NULL, NULL}, QT_NO_TENSOR, QUIRE_E_UNSUPPORTED, "8 experts"},
    {{"tokenizer.ggml.tokens", 't', V - 1, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "tokenizer has 19"},

    {QT_NO_KEY, {"token_embd.weight", 0, 0, 0}, QUIRE_E_CORRUPT, "token_embd.weight is missing"},
    {QT_NO_KEY, {"token_embd.weight", E, 1, 0}, QUIRE_E_CORRUPT, "token_embd.weight"},
    {QT_NO_KEY, {"output_norm.weight", 0, 0, 0}, QUIRE_E_CORRUPT, "output_norm.weight is missing"},
    {QT_NO_KEY, {"output_norm.weight", E, 0, QUIRE_W_F16}, QUIRE_E_UNSUPPORTED, "expected F32"},
    {QT_NO_KEY, {"output_norm.weight", E, 2, 0}, QUIRE_E_CORRUPT, "8 x 2"},
    {QT_NO_KEY, {"blk.0.attn_q.weight", E, 7, 0}, QUIRE_E_CORRUPT, "8 x 7, its keys ask for 8 x 8"},
    {QT_NO_KEY, {"blk.0.ffn_down.weight", E, F, 0}, QUIRE_E_CORRUPT, "8 x 12"},
    {QT_NO_KEY,
     {"blk.0.ffn_up.weight", 0, 0, 0},
     QUIRE_E_CORRUPT,
     "blk.0.ffn_up.weight is missing"},
    {QT_NO_KEY, {"blk.0.attn_q.bias", H *D, 0, 0}, QUIRE_E_UNSUPPORTED, "blk.0.attn_q.bias"},
    {QT_NO_KEY, {"output.weight", E, V + 1, 0}, QUIRE_E_CORRUPT, "output.weight"},
    {QT_NO_KEY, {"rope_freqs.weight", D, 0, QUIRE_W_F32}, QUIRE_E_CORRUPT, "rope_freqs.weight"},
};

static void test_changes(void **state)
{
    (void)state;
    qt_model_file_check_all(&good_file, changes, QT_LEN(changes));
}

static void test_backend_without_nn(void **state)
{
    (void)state;
    struct quire_backend *none = NULL;
    assert_int_equal(quire_backend_create("none", NULL, &none, NULL), QUIRE_OK);
    const struct qt_change change = {QT_NO_KEY, QT_NO_TENSOR, QUIRE_E_UNSUPPORTED,
                                     "computes no models"};
    qt_model_file_check(&good_file, &change, none);
    quire_backend_destroy(none);
}

/* ---- the runner, on the good file ---- */

struct small {
    struct quire__bytes file;
    struct quire__gguf *gguf;
    struct quire_backend *backend;
    struct quire__model *model;
    struct quire_pool *pool;
    struct quire__runner *runner;
    quire_seq seq;
};

/* Everything up to the pool; returns what failed first. */
static quire_status small_open(struct small *s, struct quire_error *error)
{
    const struct quire__model_config model = {
        .gguf = s->gguf, .name = "file", .backend = s->backend};
    quire_status status = quire__model_open(&model, &s->model, error);
    if (status != QUIRE_OK)
        return status;
    struct quire_pool_config pool;
    quire_pool_config_init(&pool);
    pool.backend = s->backend;
    pool.groups = quire__model_groups(s->model, &pool.num_groups);
    pool.dtype_k = pool.dtype_v = QUIRE_F32;
    pool.layout = QUIRE_LAYOUT_PAGED;
    pool.block_size = 4;
    pool.max_seqs = 3;
    pool.max_seq_len = 64;
    pool.max_step_tokens = 16;
    pool.num_blocks = 4; /* 16 positions */
    status = quire_pool_create(&pool, &s->pool, error);
    if (status == QUIRE_OK)
        status = quire__runner_create(s->model, s->pool, 16, 2, &s->runner, error);
    return status;
}

static void small_close(struct small *s)
{
    quire__runner_destroy(s->runner);
    quire_pool_destroy(s->pool);
    quire__model_close(s->model);
    s->runner = NULL;
    s->pool = NULL;
    s->model = NULL;
}

static int setup(void **state)
{
    static struct small s;
    struct quire_error error = {0};
    memset(&s, 0, sizeof s);
    qt_model_file_build(&good_file, &changes[0], &s.file);
    s.backend = qt_cpu_backend();
    assert_int_equal(
        quire__gguf_parse((const uint8_t *)s.file.data, s.file.count, "file", &s.gguf, &error),
        QUIRE_OK);
    assert_int_equal(small_open(&s, &error), QUIRE_OK);
    assert_int_equal(quire_seq_create(s.pool, NULL, &s.seq), QUIRE_OK);
    *state = &s;
    return 0;
}

static int teardown(void **state)
{
    struct small *s = *state;
    small_close(s);
    quire_backend_destroy(s->backend);
    quire__gguf_close(s->gguf);
    quire__bytes_deinit(&s->file);
    return 0;
}

struct taken {
    uint32_t calls, rows;
    float last[V];
    quire_status answer;
};

static quire_status take(void *context, const struct quire__logits *logits)
{
    struct taken *taken = context;
    taken->calls++;
    taken->rows += logits->count;
    memcpy(taken->last, logits->values + (size_t)(logits->count - 1) * V, sizeof taken->last);
    return taken->answer;
}

static void expect_length(const struct small *s, uint32_t expected)
{
    uint32_t length = 0;
    assert_int_equal(quire_seq_length(s->pool, s->seq, &length), QUIRE_OK);
    assert_int_equal(length, expected);
    assert_int_equal(quire_pool_check(s->pool, NULL), QUIRE_OK);
}

/* One step of one item that must answer `status` and say `says`. */
static void step(const struct small *s, struct quire__batch_item item, struct taken *taken,
                 quire_status status, const char *says)
{
    struct quire_error error = {0};
    struct quire__batch batch = {
        .items = &item, .num_items = 1, .logits = taken != NULL ? take : NULL, .context = taken};
    assert_int_equal(quire__runner_step(s->runner, &batch, &error), status);
    if (says != NULL && strstr(error.message, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.message, says);
}

static const uint32_t tokens[17] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};

static void test_refusals(void **state)
{
    const struct small *s = *state;
    const uint32_t foreign = V;
    struct taken taken = {0};
    struct quire_error error = {0};
    const struct quire__batch_item good = {s->seq, tokens, 3, QUIRE__WANT_LAST};
    struct quire__batch_item bad = good;
    step(s, good, &taken, QUIRE_OK, NULL);
    bad.count = 0;
    step(s, bad, &taken, QUIRE_E_INVAL, "no tokens");
    bad = good;
    bad.tokens = NULL;
    step(s, bad, &taken, QUIRE_E_INVAL, "no tokens");
    bad = (struct quire__batch_item){s->seq, &foreign, 1, QUIRE__WANT_LAST};
    step(s, bad, &taken, QUIRE_E_INVAL, "outside the vocabulary of 20");
    step(s, good, NULL, QUIRE_E_INVAL, "nobody takes");
    bad = (struct quire__batch_item){s->seq, tokens, 17, QUIRE__WANT_NONE};
    step(s, bad, NULL, QUIRE_E_LIMIT, "a step of 17 tokens, this runner takes 16");
    bad = good;
    bad.seq.id = 0;
    step(s, bad, &taken, QUIRE_E_INVAL, "no living sequence");
    bad = (struct quire__batch_item){s->seq, tokens, 14, QUIRE__WANT_NONE};
    step(s, bad, NULL, QUIRE_E_NOSPACE, "1 more block");
    struct quire__batch none = {.items = &good, .num_items = 0};
    assert_int_equal(quire__runner_step(s->runner, &none, &error), QUIRE_E_INVAL);
    none.num_items = 3;
    assert_int_equal(quire__runner_step(s->runner, &none, &error), QUIRE_E_LIMIT);
    assert_int_equal(taken.calls, 1);
    expect_length(s, 3);

    struct quire__runner *runner = NULL;
    assert_int_equal(quire__runner_create(s->model, NULL, 4, 1, &runner, &error), QUIRE_E_INVAL);
    assert_int_equal(quire__runner_create(s->model, s->pool, 0, 1, &runner, &error), QUIRE_E_INVAL);
    assert_int_equal(quire__runner_create(s->model, s->pool, 4, 0, &runner, &error), QUIRE_E_INVAL);
    assert_null(runner);
    quire__runner_destroy(NULL);
    quire__model_close(NULL);
}

/* Who takes the logits may stop the step: the sequence is as before. */
static void test_stopped_by_taker(void **state)
{
    const struct small *s = *state;
    struct taken taken = {.answer = QUIRE_E_CANCELED};
    step(s, (struct quire__batch_item){s->seq, tokens, 5, QUIRE__WANT_ALL}, &taken,
         QUIRE_E_CANCELED, NULL);
    assert_int_equal(taken.calls, 1);
    expect_length(s, 0);
}

/* A step left open, as for verifying guesses: what commit keeps counts, and the rest is as if it
 * had never been. */
static void test_open_step(void **state)
{
    const struct small *s = *state;
    struct taken first = {0}, again = {0};
    struct quire_error error = {0};
    quire_step open = {0};
    const struct quire__batch_item item = {s->seq, tokens, 6, QUIRE__WANT_ALL};
    struct quire__batch batch = {
        .items = &item, .num_items = 1, .logits = take, .context = &first, .open = &open};
    assert_int_equal(quire__runner_step(s->runner, &batch, &error), QUIRE_OK);
    assert_int_equal(first.rows, 6);
    expect_length(s, 0);
    const uint32_t keep = 2;
    assert_int_equal(quire_step_commit(s->pool, open, &keep), QUIRE_OK);
    expect_length(s, 2);
    step(s, (struct quire__batch_item){s->seq, tokens + 2, 4, QUIRE__WANT_LAST}, &again, QUIRE_OK,
         NULL);
    assert_memory_equal(first.last, again.last, sizeof first.last);
    expect_length(s, 6);
}

/* Every allocation on the way fails once: an error, nothing kept, and all well afterwards. */
static void test_no_memory(void **state)
{
    struct small *s = *state;
    small_close(s);
    struct quire_error error = {0};
    quire_status status = QUIRE_E_NOMEM;
    int64_t n = 0;
    for (; status == QUIRE_E_NOMEM; n++) {
        quire__alloc_fail_after(n, false);
        status = small_open(s, &error);
        quire__alloc_fail_after(-1, false);
        if (status == QUIRE_E_NOMEM) {
            assert_true(strlen(error.message) > 0);
            small_close(s);
        }
    }
    assert_int_equal(status, QUIRE_OK);
    assert_true(n > 20);
    assert_int_equal(quire_seq_create(s->pool, NULL, &s->seq), QUIRE_OK);
    struct taken taken = {0};
    step(s, (struct quire__batch_item){s->seq, tokens, 5, QUIRE__WANT_LAST}, &taken, QUIRE_OK,
         NULL);
    expect_length(s, 5);
}

/* A device that fails at any call of a step: an error, and the sequence as before. */
static void test_device_errors(void **state)
{
    static const enum qt_call calls[] = {
        QT_CALL_UPLOAD, QT_CALL_DOWNLOAD,     QT_CALL_NN,         QT_CALL_WRITE,
        QT_CALL_ATTEND, QT_CALL_FENCE_RECORD, QT_CALL_FENCE_WAIT, QT_CALL_PLAN_BUILD};
    struct small *s = *state;
    small_close(s);
    quire_backend_destroy(s->backend);
    s->backend = qt_opaque_backend();
    struct quire_error error = {0};
    assert_int_equal(small_open(s, &error), QUIRE_OK);
    assert_int_equal(quire_seq_create(s->pool, NULL, &s->seq), QUIRE_OK);
    for (size_t i = 0; i < QT_LEN(calls); i++) {
        struct taken taken = {0};
        struct quire__batch_item item = {s->seq, tokens, 3, QUIRE__WANT_LAST};
        struct quire__batch batch = {
            .items = &item, .num_items = 1, .logits = take, .context = &taken};
        qt_opaque_fail(s->backend, calls[i], 0, QUIRE_E_NOMEM);
        assert_int_equal(quire__runner_step(s->runner, &batch, &error), QUIRE_E_NOMEM);
        qt_opaque_fail_none(s->backend);
        expect_length(s, 0);
        assert_int_equal(taken.calls, 0);
    }
    assert_null(qt_opaque_violation(s->backend));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_backend_without_nn),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stopped_by_taker, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_step, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_device_errors, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
