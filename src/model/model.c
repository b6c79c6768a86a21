/* model.c - opening a model: architecture, keys, tensors, and handing the weights to the backend.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/utf8.h"

/* The registry: a new architecture is one file and one row here. */
static const struct quire__arch *const architectures[] = {
    &quire__arch_llama,
    &quire__arch_gemma3,
};

enum { KEY_BYTES_MAX = 96 };

/* ---- keys ---- */

static void full_key(const struct quire__model *model, const char *key, char out[KEY_BYTES_MAX])
{
    (void)snprintf(out, KEY_BYTES_MAX, "%s.%s", model->arch->name, key);
}

bool quire__model_has_key(const struct quire__model *model, const char *key)
{
    char name[KEY_BYTES_MAX];
    full_key(model, key, name);
    uint64_t ignored = 0;
    return quire__gguf_u64(model->gguf, name, &ignored) != QUIRE_E_NOTFOUND;
}

quire_status quire__model_key_u32_or(struct quire__model *model, const char *key, uint32_t min,
                                     uint32_t max, uint32_t *value, struct quire_error *error)
{
    char name[KEY_BYTES_MAX];
    full_key(model, key, name);
    uint64_t read = 0;
    quire_status status = quire__gguf_u64(model->gguf, name, &read);
    if (status == QUIRE_E_NOTFOUND)
        return QUIRE_OK;
    if (status != QUIRE_OK)
        return quire__fail(error, QUIRE_E_CORRUPT, "%s: key %s is not a whole number", model->name,
                           name);
    if (read < min || read > max)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "%s: key %s is %llu, outside %u to %u: the file is damaged", model->name,
                           name, (unsigned long long)read, min, max);
    *value = (uint32_t)read;
    return QUIRE_OK;
}

quire_status quire__model_key_u32(struct quire__model *model, const char *key, uint32_t min,
                                  uint32_t max, uint32_t *value, struct quire_error *error)
{
    if (!quire__model_has_key(model, key))
        return quire__fail(error, QUIRE_E_CORRUPT, "%s: key %s.%s is missing: not a whole model",
                           model->name, model->arch->name, key);
    return quire__model_key_u32_or(model, key, min, max, value, error);
}

quire_status quire__model_key_f32_or(struct quire__model *model, const char *key, float *value,
                                     struct quire_error *error)
{
    char name[KEY_BYTES_MAX];
    full_key(model, key, name);
    float read = 0.0f;
    quire_status status = quire__gguf_f32(model->gguf, name, &read);
    if (status == QUIRE_E_NOTFOUND)
        return QUIRE_OK;
    if (status != QUIRE_OK || !isfinite(read) || read <= 0.0f)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "%s: key %s is not a positive number: the file is damaged", model->name,
                           name);
    *value = read;
    return QUIRE_OK;
}

/* ---- tensors ---- */

bool quire__model_has_tensor(const struct quire__model *model, const char *name)
{
    return quire__gguf_find_tensor(model->gguf, name) != NULL;
}

/* "576 x 49152", columns first as the file has it. */
static const char *shape_text(const uint64_t *dims, uint32_t num_dims, char *out, size_t out_size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < num_dims && used < out_size; i++) {
        int wrote = snprintf(out + used, out_size - used, i == 0 ? "%llu" : " x %llu",
                             (unsigned long long)dims[i]);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    return out;
}

/* Finds a tensor, checks that it has just these dimensions, and marks it as used. */
static quire_status find(struct quire__model *model, const char *name, uint64_t columns,
                         uint64_t rows, const struct quire__gguf_tensor **out,
                         struct quire_error *error)
{
    const struct quire__gguf_tensor *tensor = quire__gguf_find_tensor(model->gguf, name);
    if (tensor == NULL)
        return quire__fail(error, QUIRE_E_CORRUPT, "%s: tensor %s is missing: not a whole model",
                           model->name, name);
    bool fits = tensor->dims[0] == columns && tensor->dims[1] == rows;
    for (uint32_t i = 2; i < QUIRE__GGUF_DIMS_MAX; i++)
        fits = fits && tensor->dims[i] == 1;
    if (!fits) {
        uint64_t expected[2] = {columns, rows};
        char want[64], have[96];
        return quire__fail(
            error, QUIRE_E_CORRUPT, "%s: tensor %s is %s, its keys ask for %s: the file is damaged",
            model->name, name, shape_text(tensor->dims, tensor->num_dims, have, sizeof have),
            shape_text(expected, rows == 1 ? 1 : 2, want, sizeof want));
    }
    model->used[tensor - quire__gguf_tensor_at(model->gguf, 0)] = true;
    *out = tensor;
    return QUIRE_OK;
}

static void report(struct quire__model *model, uint64_t bytes)
{
    model->bytes_done += bytes;
    if (model->progress != NULL)
        model->progress(model->progress_context, model->bytes_done, model->bytes_total);
}

/* A tensor that a backend is making a weight of. */
struct handover {
    struct quire__model *model;
    const struct quire__gguf_tensor *tensor;
    uint64_t taken;
};

/* The first `bytes` bytes are the backend's own by now: the file need not stay in memory. */
static void take(void *context, uint64_t bytes)
{
    struct handover *handover = context;
    quire__gguf_forget(handover->model->gguf, handover->tensor, handover->taken, bytes);
    report(handover->model, bytes - handover->taken);
    handover->taken = bytes;
}

quire_status quire__model_matrix(struct quire__model *model, const char *name, uint64_t rows,
                                 uint64_t columns, struct quire_weight **out,
                                 struct quire_error *error)
{
    const struct quire__gguf_tensor *tensor = NULL;
    quire_status status = find(model, name, columns, rows, &tensor, error);
    if (status != QUIRE_OK || model->backend == NULL)
        return status;
    struct quire_backend *backend = model->backend;
    if ((backend->caps.weight_types >> tensor->type & 1) == 0)
        return quire__fail(error, QUIRE_E_UNSUPPORTED,
                           "%s: tensor %s is %s, which backend %s does not compute", model->name,
                           name, quire_weight_name(tensor->type), backend->name);
    struct handover handover = {model, tensor, 0};
    struct quire_weight_desc desc = {.type = tensor->type,
                                     .rows = rows,
                                     .columns = columns,
                                     .data = tensor->data,
                                     .bytes = tensor->bytes,
                                     .taken = take,
                                     .context = &handover};
    status = backend->nn->weight_create(backend, &desc, out);
    if (status != QUIRE_OK)
        return quire__fail(error, status, "%s: backend %s refuses tensor %s: %s", model->name,
                           backend->name, name, quire_status_text(status));
    model->weights[model->num_weights++] = *out;
    if (handover.taken < tensor->bytes)
        take(&handover, tensor->bytes);
    return QUIRE_OK;
}

static quire_status find_vector(struct quire__model *model, const char *name, uint64_t count,
                                const struct quire__gguf_tensor **out, struct quire_error *error)
{
    quire_status status = find(model, name, count, 1, out, error);
    if (status == QUIRE_OK && (*out)->type != QUIRE_W_F32)
        return quire__fail(error, QUIRE_E_UNSUPPORTED, "%s: tensor %s is %s, expected F32",
                           model->name, name, quire_weight_name((*out)->type));
    return status;
}

quire_status quire__model_vector(struct quire__model *model, const char *name, uint64_t count,
                                 struct quire_view *out, struct quire_error *error)
{
    const struct quire__gguf_tensor *tensor = NULL;
    quire_status status = find_vector(model, name, count, &tensor, error);
    if (status != QUIRE_OK || model->backend == NULL)
        return status;
    report(model, tensor->bytes);
    struct quire_backend *backend = model->backend;
    struct quire_buffer *buffer = NULL;
    status = backend->memory->buffer_create(backend, tensor->bytes, 0, &buffer);
    if (status == QUIRE_OK) {
        model->buffers[model->num_buffers++] = buffer;
        struct quire_upload upload = {.offset = 0, .bytes = tensor->bytes, .data = tensor->data};
        status = backend->memory->upload(backend, buffer, &upload, 1);
    }
    if (status != QUIRE_OK)
        return quire__fail(error, status, "%s: backend %s refuses tensor %s: %s", model->name,
                           backend->name, name, quire_status_text(status));
    *out = quire_view_buffer(buffer, 0, QUIRE_F32, 1, 1, count);
    return QUIRE_OK;
}

quire_status quire__model_host_vector(struct quire__model *model, const char *name, uint64_t count,
                                      const float **out, struct quire_error *error)
{
    *out = NULL;
    if (!quire__model_has_tensor(model, name))
        return QUIRE_OK;
    const struct quire__gguf_tensor *tensor = NULL;
    quire_status status = find_vector(model, name, count, &tensor, error);
    if (status != QUIRE_OK)
        return status;
    model->bytes_done += tensor->bytes;
    *out = (const float *)(const void *)tensor->data;
    return QUIRE_OK;
}

/* A tensor that nobody asked for, as a bias, would change what the model computes. */
static quire_status check_all_used(const struct quire__model *model, struct quire_error *error)
{
    for (uint64_t i = 0; i < quire__gguf_tensor_count(model->gguf); i++) {
        const struct quire__gguf_tensor *tensor = quire__gguf_tensor_at(model->gguf, i);
        char name[80];
        if (!model->used[i])
            return quire__fail(
                error, QUIRE_E_UNSUPPORTED,
                "%s: tensor %s is no part of the %s architecture as Quire computes it", model->name,
                quire__quote(tensor->name.data, tensor->name.size, name, sizeof name),
                model->arch->name);
    }
    return QUIRE_OK;
}

/* ---- open and close ---- */

static quire_status find_architecture(struct quire__model *model, struct quire_error *error)
{
    struct quire__gguf_string name;
    if (quire__gguf_str(model->gguf, "general.architecture", &name) != QUIRE_OK)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "%s: key general.architecture is missing: not a model", model->name);
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(architectures); i++) {
        const char *known = architectures[i]->name;
        if (name.size == strlen(known) && memcmp(name.data, known, name.size) == 0) {
            model->arch = architectures[i];
            return QUIRE_OK;
        }
    }
    char text[48], runs[128] = "";
    for (size_t i = 0, used = 0; i < QUIRE_ARRAY_LEN(architectures) && used < sizeof runs; i++)
        used += (size_t)snprintf(runs + used, sizeof runs - used, i == 0 ? "%s" : ", %s",
                                 architectures[i]->name);
    return quire__fail(error, QUIRE_E_UNSUPPORTED,
                       "%s: architecture \"%s\" is not supported; Quire runs: %s", model->name,
                       quire__quote(name.data, name.size, text, sizeof text), runs);
}

/* The vocabulary of the tokenizer, where the file has one, is that of the embedding. */
static quire_status check_vocabulary(const struct quire__model *model, struct quire_error *error)
{
    struct quire__gguf_array tokens;
    quire_status status = quire__gguf_array(model->gguf, "tokenizer.ggml.tokens", &tokens);
    if (status == QUIRE_OK && tokens.count != model->shapes.vocabulary)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "%s: the tokenizer has %llu tokens, the embedding %u: the file is "
                           "damaged",
                           model->name, (unsigned long long)tokens.count, model->shapes.vocabulary);
    return QUIRE_OK;
}

/* One kind of layers that see everything, one with the window; a model may lack either. */
static quire_status make_groups(struct quire__model *model, struct quire_error *error)
{
    const struct quire__shapes *shapes = &model->shapes;
    model->layer_indices = quire__calloc(shapes->layers, sizeof(uint32_t));
    if (model->layer_indices == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "%s: no memory for the model", model->name);
    struct quire_group_config kinds[2];
    uint32_t num_kinds = 0, done = 0;
    for (int windowed = 0; windowed <= 1; windowed++) {
        const uint32_t first = done;
        for (uint32_t i = 0; i < shapes->layers; i++)
            if (quire__layer_is_windowed(shapes, i) == (windowed != 0))
                model->layer_indices[done++] = i;
        if (done > first)
            kinds[num_kinds++] =
                (struct quire_group_config){.layers = model->layer_indices + first,
                                            .num_layers = done - first,
                                            .num_heads = shapes->heads,
                                            .num_kv_heads = shapes->kv_heads,
                                            .head_dim = shapes->head_dim,
                                            .head_dim_v = shapes->head_dim_v,
                                            .window = windowed != 0 ? shapes->window : 0};
    }
    quire_status status =
        quire_groups_balance(kinds, num_kinds, model->groups, QUIRE_MAX_GROUPS, &model->num_groups);
    if (status != QUIRE_OK)
        return quire__fail(error, status, "%s: its layers make no cache groups: %s", model->name,
                           quire_status_text(status));
    return QUIRE_OK;
}

static quire_status load(struct quire__model *model, struct quire_error *error)
{
    uint64_t count = quire__gguf_tensor_count(model->gguf);
    if (count == 0)
        return quire__fail(error, QUIRE_E_CORRUPT, "%s: has no tensors: not a model", model->name);
    if (model->backend != NULL && model->backend->nn == NULL)
        return quire__fail(error, QUIRE_E_UNSUPPORTED, "%s: backend %s computes no models",
                           model->name, model->backend->name);
    model->weights = quire__calloc(count, sizeof *model->weights);
    model->buffers = quire__calloc(count, sizeof *model->buffers);
    model->used = quire__calloc(count, sizeof *model->used);
    if (model->weights == NULL || model->buffers == NULL || model->used == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "%s: no memory for the model", model->name);
    for (uint64_t i = 0; i < count; i++)
        model->bytes_total += quire__gguf_tensor_at(model->gguf, i)->bytes;
    quire_status status = find_architecture(model, error);
    if (status == QUIRE_OK)
        status = model->arch->load(model, error);
    if (status == QUIRE_OK)
        status = check_vocabulary(model, error);
    if (status == QUIRE_OK)
        status = check_all_used(model, error);
    return status == QUIRE_OK ? make_groups(model, error) : status;
}

quire_status quire__model_open(const struct quire__model_config *config, struct quire__model **out,
                               struct quire_error *error)
{
    struct quire__model *model = quire__calloc(1, sizeof *model);
    if (model == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "%s: no memory for the model", config->name);
    model->gguf = config->gguf;
    model->name = config->name;
    model->backend = config->backend;
    model->progress = config->progress;
    model->progress_context = config->progress_context;
    quire_status status = load(model, error);
    if (status != QUIRE_OK) {
        quire__model_close(model);
        return status;
    }
    *out = model;
    return QUIRE_OK;
}

void quire__model_close(struct quire__model *model)
{
    if (model == NULL)
        return;
    struct quire_backend *backend = model->backend;
    for (uint64_t i = 0; i < model->num_weights; i++)
        backend->nn->weight_destroy(backend, model->weights[i]);
    for (uint64_t i = 0; i < model->num_buffers; i++)
        backend->memory->buffer_destroy(backend, model->buffers[i]);
    quire__free(model->weights);
    quire__free(model->buffers);
    quire__free(model->used);
    quire__free(model->layer_indices);
    for (uint32_t i = 0; i < model->num_ropes; i++)
        quire__free(model->rope_frequencies[i]);
    quire__free(model->arch_data);
    quire__free(model);
}

const struct quire__shapes *quire__model_shapes(const struct quire__model *model)
{
    return &model->shapes;
}

const char *quire__model_architecture(const struct quire__model *model)
{
    return model->arch->name;
}

const struct quire_group_config *quire__model_groups(const struct quire__model *model,
                                                     uint32_t *num_groups)
{
    *num_groups = model->num_groups;
    return model->groups;
}
