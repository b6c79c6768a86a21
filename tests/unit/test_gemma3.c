/* test_gemma3.c - opening Gemma 3: its keys and tensors, and the groups of its layers.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "model_file.h"

enum { E = 8, F = 12, V = 20, H = 2, G = 1, D = 4, W = 3, LAYERS_MAX = 26 };

/* ---- files of any number of layers ---- */

struct file {
    struct qt_key keys[16];
    struct qt_tensor tensors[2 + 13 * LAYERS_MAX];
    char names[13 * LAYERS_MAX][48];
    struct qt_model_parts parts;
};

/* pattern 0: no key for it. */
static void file_init(struct file *file, uint32_t layers, uint32_t pattern)
{
    static const struct qt_tensor of_a_layer[] = {
        {"attn_norm", E, 0, QUIRE_W_F32},       {"attn_q", E, H * D, QUIRE_W_F32},
        {"attn_k", E, G * D, QUIRE_W_F32},      {"attn_v", E, G * D, QUIRE_W_F32},
        {"attn_q_norm", D, 0, QUIRE_W_F32},     {"attn_k_norm", D, 0, QUIRE_W_F32},
        {"attn_output", H * D, E, QUIRE_W_F32}, {"post_attention_norm", E, 0, QUIRE_W_F32},
        {"ffn_norm", E, 0, QUIRE_W_F32},        {"ffn_gate", E, F, QUIRE_W_F32},
        {"ffn_up", E, F, QUIRE_W_F32},          {"ffn_down", F, E, QUIRE_W_F32},
        {"post_ffw_norm", E, 0, QUIRE_W_F32},
    };
    const struct qt_key keys[] = {
        {"general.architecture", 's', 0, "gemma3", NULL},
        {"gemma3.block_count", 'u', layers, NULL, NULL},
        {"gemma3.embedding_length", 'u', E, NULL, NULL},
        {"gemma3.feed_forward_length", 'u', F, NULL, NULL},
        {"gemma3.context_length", 'u', 64, NULL, NULL},
        {"gemma3.attention.head_count", 'u', H, NULL, NULL},
        {"gemma3.attention.head_count_kv", 'u', G, NULL, NULL},
        {"gemma3.attention.layer_norm_rms_epsilon", 'f', 1e-5, NULL, NULL},
        {"gemma3.attention.sliding_window", 'u', W, NULL, NULL},
        {"gemma3.rope.freq_base", 'f', 1e6, NULL, NULL},
        {"gemma3.attention.sliding_window_pattern", 'u', pattern, NULL, NULL},
    };
    memcpy(file->keys, keys, sizeof keys);
    file->tensors[0] = (struct qt_tensor){"token_embd.weight", E, V, QUIRE_W_F32};
    file->tensors[1] = (struct qt_tensor){"output_norm.weight", E, 0, QUIRE_W_F32};
    for (uint32_t i = 0; i < layers * QT_LEN(of_a_layer); i++) {
        const struct qt_tensor *part = &of_a_layer[i % QT_LEN(of_a_layer)];
        (void)snprintf(file->names[i], sizeof file->names[i], "blk.%zu.%s.weight",
                       i / QT_LEN(of_a_layer), part->name);
        file->tensors[2 + i] = *part;
        file->tensors[2 + i].name = file->names[i];
    }
    file->parts = (struct qt_model_parts){file->keys, QT_LEN(keys) - (pattern == 0), file->tensors,
                                          2 + layers * QT_LEN(of_a_layer)};
}

static const struct qt_change changes[] = {
    {QT_NO_KEY, QT_NO_TENSOR, QUIRE_OK, NULL},
    {QT_NO_KEY, {"output.weight", E, V, QUIRE_W_F16}, QUIRE_OK, NULL},
    {{"gemma3.rope.scaling.type", 's', 0, "linear", NULL}, QT_NO_TENSOR, QUIRE_OK, NULL},
    {{"gemma3.rope.freq_base_swa", 'f', 5000, NULL, NULL}, QT_NO_TENSOR, QUIRE_OK, NULL},

    {{"gemma3.attention.sliding_window", 0, 0, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "gemma3.attention.sliding_window is missing"},
    {{"gemma3.attention.sliding_window", 'u', 0, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "sliding_window is 0"},
    {{"gemma3.attention.sliding_window_pattern", 'u', 0, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "sliding_window_pattern is 0"},
    {{"gemma3.rope.freq_base_swa", 'f', -1, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_CORRUPT,
     "freq_base_swa"},
    {{"gemma3.rope.scaling.type", 's', 0, "yarn", NULL}, QT_NO_TENSOR, QUIRE_E_UNSUPPORTED, "yarn"},
    {{"gemma3.attn_logit_softcapping", 'f', 50, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_UNSUPPORTED,
     "gemma3.attn_logit_softcapping"},
    {{"gemma3.final_logit_softcapping", 'f', 30, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_UNSUPPORTED,
     "gemma3.final_logit_softcapping"},
    {{"gemma3.attention.scale", 'f', 1, NULL, NULL},
     QT_NO_TENSOR,
     QUIRE_E_UNSUPPORTED,
     "gemma3.attention.scale"},
    {{"gemma3.block_count", 'u', 62, NULL, NULL}, QT_NO_TENSOR, QUIRE_E_UNSUPPORTED, "27B"},

    {QT_NO_KEY,
     {"blk.1.post_ffw_norm.weight", 0, 0, 0},
     QUIRE_E_CORRUPT,
     "blk.1.post_ffw_norm.weight is missing"},
    {QT_NO_KEY,
     {"blk.0.post_attention_norm.weight", E + 1, 0, QUIRE_W_F32},
     QUIRE_E_CORRUPT,
     "post_attention_norm"},
    {QT_NO_KEY,
     {"blk.0.attn_q_norm.weight", H *D, 0, QUIRE_W_F32},
     QUIRE_E_CORRUPT,
     "attn_q_norm.weight is 8, its keys ask for 4"},
    {QT_NO_KEY,
     {"blk.0.attn_q.bias", H *D, 0, QUIRE_W_F32},
     QUIRE_E_UNSUPPORTED,
     "no part of the gemma3 architecture"},
};

static void test_changes(void **state)
{
    (void)state;
    static struct file file;
    file_init(&file, 2, 2);
    qt_model_file_check_all(&file.parts, changes, QT_LEN(changes));
}

/* ---- groups ---- */

static struct quire__model *open_file(struct file *file, struct quire__bytes *bytes,
                                      struct quire__gguf **gguf)
{
    struct quire__model *model = NULL;
    struct quire_error error = {0};
    qt_model_file_build(&file->parts, &changes[0], bytes);
    assert_int_equal(
        quire__gguf_parse((const uint8_t *)bytes->data, bytes->count, "file", gguf, &error),
        QUIRE_OK);
    const struct quire__model_config config = {.gguf = *gguf, .name = "file"};
    if (quire__model_open(&config, &model, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
    return model;
}

/* Every layer is in one group, with its window, and no group is larger than it may be. */
static void check_groups(uint32_t layers, uint32_t pattern, const uint32_t *sizes, uint32_t count)
{
    static struct file file;
    struct quire__bytes bytes = {0};
    struct quire__gguf *gguf = NULL;
    uint32_t num_groups = 0, seen[LAYERS_MAX] = {0};
    file_init(&file, layers, pattern);
    struct quire__model *model = open_file(&file, &bytes, &gguf);
    const struct quire_group_config *groups = quire__model_groups(model, &num_groups);
    assert_int_equal(num_groups, count);
    for (uint32_t g = 0; g < num_groups; g++) {
        assert_int_equal(groups[g].num_layers, sizes[g]);
        for (uint32_t i = 0; i < groups[g].num_layers; i++) {
            uint32_t layer = groups[g].layers[i];
            assert_true(layer < layers && (i == 0 || layer > groups[g].layers[i - 1]));
            bool all = (layer + 1) % (pattern != 0 ? pattern : 6) == 0;
            assert_int_equal(groups[g].window, all ? 0 : W);
            seen[layer]++;
        }
    }
    for (uint32_t i = 0; i < layers; i++)
        assert_int_equal(seen[i], 1);
    quire__model_close(model);
    quire__gguf_close(gguf);
    quire__bytes_deinit(&bytes);
}

static void test_groups(void **state)
{
    (void)state;
    check_groups(18, 0, (const uint32_t[]){3, 3, 3, 3, 3, 3}, 6);
    check_groups(26, 6, (const uint32_t[]){4, 4, 4, 4, 4, 3, 3}, 7);
    check_groups(7, 0, (const uint32_t[]){1, 1, 1, 1, 1, 1, 1}, 7);
    check_groups(5, 0, (const uint32_t[]){5}, 1);
    check_groups(4, 1, (const uint32_t[]){4}, 1);
    check_groups(7, 2, (const uint32_t[]){3, 2, 2}, 3);
}

/* ---- memory ---- */

static void test_no_memory(void **state)
{
    (void)state;
    static struct file file;
    struct quire__bytes bytes = {0};
    struct quire__gguf *gguf = NULL;
    file_init(&file, 2, 2);
    quire__model_close(open_file(&file, &bytes, &gguf));
    const struct quire__model_config config = {.gguf = gguf, .name = "file"};
    quire_status status = QUIRE_E_NOMEM;
    int64_t n = 0;
    for (; status == QUIRE_E_NOMEM; n++) {
        struct quire__model *model = NULL;
        struct quire_error error = {0};
        quire__alloc_fail_after(n, false);
        status = quire__model_open(&config, &model, &error);
        quire__alloc_fail_after(-1, false);
        assert_true(status == QUIRE_OK ? model != NULL : strlen(error.message) > 0);
        quire__model_close(model);
    }
    assert_int_equal(status, QUIRE_OK);
    assert_true(n > 7);
    quire__gguf_close(gguf);
    quire__bytes_deinit(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
