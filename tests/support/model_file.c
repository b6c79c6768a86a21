/* model_file.c - GGUF files of small models, right but for one change.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model_file.h"

#include <string.h>

#include "opaque_backend.h"

enum { ALIGNMENT = 32, PARTS_MAX = 400 };
enum { TYPE_U32 = 4, TYPE_I32 = 5, TYPE_F32 = 6, TYPE_BOOL = 7, TYPE_STRING = 8, TYPE_ARRAY = 9 };

static void put(struct quire__bytes *file, const void *data, uint64_t count)
{
    assert_int_equal(quire__bytes_append(file, data, count, NULL), QUIRE_OK);
}

static void put_u32(struct quire__bytes *file, uint32_t value)
{
    put(file, &value, sizeof value);
}

static void put_u64(struct quire__bytes *file, uint64_t value)
{
    put(file, &value, sizeof value);
}

static void put_text(struct quire__bytes *file, const char *text)
{
    put_u64(file, strlen(text));
    put(file, text, strlen(text));
}

static void put_array(struct quire__bytes *file, const struct qt_key *key)
{
    const uint32_t count = (uint32_t)key->number;
    put_u32(file, key->kind == 'F' ? TYPE_F32 : key->kind == 'I' ? TYPE_I32 : TYPE_STRING);
    put_u64(file, count);
    for (uint32_t i = 0; i < count; i++) {
        if (key->kind == 'F')
            put(file, (const float *)key->values + i, sizeof(float));
        else if (key->kind == 'I')
            put(file, (const int32_t *)key->values + i, sizeof(int32_t));
        else
            put_text(file, key->kind == 'T' ? ((const char *const *)key->values)[i] : "x");
    }
}

static void put_key(struct quire__bytes *file, const struct qt_key *key)
{
    const float real = (float)key->number;
    put_text(file, key->name);
    switch (key->kind) {
    case 'u':
        put_u32(file, TYPE_U32);
        put_u32(file, (uint32_t)key->number);
        break;
    case 'f':
        put_u32(file, TYPE_F32);
        put(file, &real, sizeof real);
        break;
    case 'b':
        put_u32(file, TYPE_BOOL);
        put(file, key->number != 0 ? "\1" : "", 1);
        break;
    case 's':
        put_u32(file, TYPE_STRING);
        put_text(file, key->text);
        break;
    default:
        put_u32(file, TYPE_ARRAY);
        put_array(file, key);
    }
}

static uint64_t tensor_bytes(const struct qt_tensor *tensor)
{
    uint64_t elements = (uint64_t)tensor->columns * (tensor->rows != 0 ? tensor->rows : 1);
    return elements * (tensor->type == QUIRE_W_F32 ? 4 : 2);
}

static void put_tensor(struct quire__bytes *file, const struct qt_tensor *tensor, uint64_t offset)
{
    put_text(file, tensor->name);
    put_u32(file, tensor->rows != 0 ? 2 : 1);
    put_u64(file, tensor->columns);
    if (tensor->rows != 0)
        put_u64(file, tensor->rows);
    put_u32(file, tensor->type);
    put_u64(file, offset);
}

void qt_model_file_build(const struct qt_model_parts *parts, const struct qt_change *change,
                         struct quire__bytes *file)
{
    struct qt_key keys[PARTS_MAX];
    struct qt_tensor tensors[PARTS_MAX];
    size_t num_keys = 0, num_tensors = 0;
    assert_true(parts->num_keys < PARTS_MAX && parts->num_tensors < PARTS_MAX);
    for (size_t i = 0; i < parts->num_keys; i++)
        if (change->key.name == NULL || strcmp(parts->keys[i].name, change->key.name) != 0)
            keys[num_keys++] = parts->keys[i];
    if (change->key.kind != 0)
        keys[num_keys++] = change->key;
    for (size_t i = 0; i < parts->num_tensors; i++)
        if (change->tensor.name == NULL || strcmp(parts->tensors[i].name, change->tensor.name) != 0)
            tensors[num_tensors++] = parts->tensors[i];
    if (change->tensor.columns != 0)
        tensors[num_tensors++] = change->tensor;
    file->count = 0;
    put(file, "GGUF", 4);
    put_u32(file, 3);
    put_u64(file, num_tensors);
    put_u64(file, num_keys);
    for (size_t i = 0; i < num_keys; i++)
        put_key(file, &keys[i]);
    uint64_t offset = 0;
    for (size_t i = 0; i < num_tensors; i++) {
        put_tensor(file, &tensors[i], offset);
        offset += quire__round_up(tensor_bytes(&tensors[i]), ALIGNMENT);
    }
    while (file->count % ALIGNMENT != 0)
        put(file, "", 1);
    struct qt_random random = {3};
    for (uint64_t i = 0; i < offset / 4; i++) {
        float value = qt_unit(qt_next(&random));
        put(file, &value, sizeof value);
    }
}

struct quire_backend *qt_cpu_backend(void)
{
    struct quire_backend *backend = NULL;
    struct quire_backend_config config;
    quire_backend_config_init(&config);
    config.num_threads = 1;
    assert_int_equal(quire_backend_create("cpu", &config, &backend, NULL), QUIRE_OK);
    return backend;
}

struct quire_backend *qt_opaque_backend(void)
{
    struct quire_backend *backend = NULL;
    const struct qt_opaque_options options = {.seed = 1, .num_threads = 1};
    assert_int_equal(qt_opaque_create(&options, &backend), QUIRE_OK);
    return backend;
}

void qt_model_file_check(const struct qt_model_parts *parts, const struct qt_change *change,
                         struct quire_backend *backend)
{
    struct quire__bytes file = {0};
    struct quire__gguf *gguf = NULL;
    struct quire__model *model = NULL;
    struct quire_error error = {0};
    qt_model_file_build(parts, change, &file);
    quire_status status =
        quire__gguf_parse((const uint8_t *)file.data, file.count, "file", &gguf, &error);
    if (status != QUIRE_OK)
        fail_msg("the reader refuses: %s", error.message);
    const struct quire__model_config config = {.gguf = gguf, .name = "file", .backend = backend};
    status = quire__model_open(&config, &model, &error);
    if (status != change->status)
        fail_msg("key %s, tensor %s: %s (%s), expected %s", change->key.name, change->tensor.name,
                 quire_status_name(status), error.message, quire_status_name(change->status));
    if (change->says != NULL && strstr(error.message, change->says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.message, change->says);
    quire__model_close(model);
    quire__gguf_close(gguf);
    quire__bytes_deinit(&file);
}

void qt_model_file_check_all(const struct qt_model_parts *parts, const struct qt_change *changes,
                             size_t count)
{
    struct quire_backend *cpu = qt_cpu_backend(), *opaque = qt_opaque_backend();
    for (size_t i = 0; i < count; i++) {
        qt_model_file_check(parts, &changes[i], NULL);
        qt_model_file_check(parts, &changes[i], cpu);
        qt_model_file_check(parts, &changes[i], opaque);
    }
    quire_backend_destroy(cpu);
    quire_backend_destroy(opaque);
}
