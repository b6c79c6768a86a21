/* info.c - quire info: what a model file holds and what its cache costs.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "quire/commands.h"
#include "quire/console.h"
#include "quire/engine.h"
#include "quire/files.h"

struct tensor_kind {
    uint32_t type; /* enum quire_weight_type */
    uint64_t count, bytes;
};

static const uint32_t weight_types[] = {
#define WEIGHT_TYPE(name, number, elements, bytes, text) number,
    QUIRE_WEIGHT_LIST(WEIGHT_TYPE)
#undef WEIGHT_TYPE
};

enum { NUM_KINDS = QUIRE_ARRAY_LEN(weight_types), NUM_DTYPES = QUIRE_Q4 + 1 };

struct facts {
    const char *path;
    const struct quire__shapes *shapes;
    const char *architecture;
    char name[64];         /* general.name, made printable */
    char pretokenizer[32]; /* tokenizer.ggml.pre */
    struct tensor_kind kinds[NUM_KINDS];
    uint64_t tensors, parameters, bytes;
    uint64_t kv_bytes[NUM_DTYPES]; /* of one token; 0 where the model's shapes do not go with it */
    const struct quire_group_config *groups;
    uint32_t num_groups;
    uint64_t free_memory;
};

/* ---- collecting ---- */

static void read_name(const struct quire__gguf *gguf, const char *key, char *out, uint64_t size)
{
    struct quire__gguf_string text;
    out[0] = '\0';
    if (quire__gguf_str(gguf, key, &text) == QUIRE_OK)
        (void)quire__quote(text.data, text.size, out, size);
}

static void count_tensors(const struct quire__gguf *gguf, struct facts *facts)
{
    for (size_t i = 0; i < NUM_KINDS; i++)
        facts->kinds[i].type = weight_types[i];
    facts->tensors = quire__gguf_tensor_count(gguf);
    for (uint64_t i = 0; i < facts->tensors; i++) {
        const struct quire__gguf_tensor *tensor = quire__gguf_tensor_at(gguf, i);
        facts->parameters += tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * tensor->dims[3];
        facts->bytes += tensor->bytes;
        for (size_t k = 0; k < NUM_KINDS; k++) {
            if (facts->kinds[k].type == tensor->type) {
                facts->kinds[k].count++;
                facts->kinds[k].bytes += tensor->bytes;
            }
        }
    }
}

static int measure_cache(const struct quire__model *model, struct facts *facts)
{
    for (uint32_t dtype = QUIRE_F32; dtype < NUM_DTYPES; dtype++) {
        struct quire_pool_config config;
        quire_pool_config_init(&config);
        config.groups = quire__model_groups(model, &config.num_groups);
        config.dtype_k = dtype;
        config.dtype_v = dtype;
        uint64_t block_bytes = 0;
        quire_status status = quire_pool_measure(&config, &block_bytes, &facts->kv_bytes[dtype]);
        if (status == QUIRE_E_UNSUPPORTED && dtype != QUIRE_F32) {
            facts->kv_bytes[dtype] = 0;
            continue;
        }
        if (status != QUIRE_OK || facts->kv_bytes[dtype] == 0) {
            cli_error("%s: the cache cannot hold its shapes: %s", facts->path,
                      quire_status_text(status));
            return CLI_BAD_DATA;
        }
    }
    return CLI_OK;
}

/* ---- telling ---- */

static json_t *json_kinds(const struct facts *facts)
{
    json_t *kinds = json_object();
    for (size_t i = 0; i < NUM_KINDS; i++) {
        const struct tensor_kind *kind = &facts->kinds[i];
        if (kind->count > 0)
            (void)json_object_set_new(kinds, quire_weight_name(kind->type),
                                      json_pack("{s:I, s:I}", "count", (json_int_t)kind->count,
                                                "bytes", (json_int_t)kind->bytes));
    }
    return kinds;
}

static json_t *json_groups(const struct facts *facts)
{
    json_t *groups = json_array();
    for (uint32_t g = 0; g < facts->num_groups; g++) {
        const struct quire_group_config *group = &facts->groups[g];
        (void)json_array_append_new(groups,
                                    json_pack("{s:o, s:I}", "layers",
                                              files_json_ids(group->layers, group->num_layers),
                                              "window", (json_int_t)group->window));
    }
    return groups;
}

static int print_json(const struct facts *facts)
{
    const struct quire__shapes *s = facts->shapes;
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f}", "file",
        facts->path, "architecture", facts->architecture, "name", facts->name, "pretokenizer",
        facts->pretokenizer, "layers", (int)s->layers, "embedding", (int)s->embedding, "heads",
        (int)s->heads, "kv_heads", (int)s->kv_heads, "head_dim", (int)s->head_dim, "head_dim_v",
        (int)s->head_dim_v, "feed_forward", (int)s->feed_forward, "vocabulary", (int)s->vocabulary,
        "context_length", (int)s->context_length, "rope_dim", (int)s->rope_dim, "rope_base",
        (double)s->rope_base);
    json_t *per_token = json_object(), *fits = json_object();
    for (uint32_t dtype = QUIRE_F32; dtype < NUM_DTYPES; dtype++) {
        uint64_t bytes = facts->kv_bytes[dtype];
        if (bytes == 0)
            continue;
        (void)json_object_set_new(per_token, quire_dtype_name(dtype),
                                  json_integer((json_int_t)bytes));
        (void)json_object_set_new(fits, quire_dtype_name(dtype),
                                  json_integer((json_int_t)(facts->free_memory / bytes)));
    }
    json_t *rest = json_pack(
        "{s:o, s:I, s:I, s:I, s:o, s:o, s:I, s:o}", "groups", json_groups(facts), "parameters",
        (json_int_t)facts->parameters, "tensors", (json_int_t)facts->tensors, "tensor_bytes",
        (json_int_t)facts->bytes, "tensor_types", json_kinds(facts), "kv_bytes_per_token",
        per_token, "free_memory", (json_int_t)facts->free_memory, "tokens_in_free_memory", fits);
    bool whole = root != NULL && rest != NULL && json_object_update(root, rest) == 0;
    json_decref(rest);
    if (!whole) {
        json_decref(root);
        root = NULL;
    }
    return files_print_json(root);
}

/* `15 layers in 5 groups see`, and so that one of either reads well. */
static const char *who_sees(uint32_t layers, uint32_t groups, char text[48])
{
    (void)snprintf(text, 48, "%u layer%s in %u group%s %s", layers, layers == 1 ? "" : "s", groups,
                   groups == 1 ? "" : "s", layers == 1 ? "sees" : "see");
    return text;
}

/* Groups and layers of the cache by what they see; said only where the layers differ. */
static void print_groups(const struct facts *facts)
{
    const struct quire__shapes *s = facts->shapes;
    char all[48], windows[48];
    if (s->window == 0)
        return;
    uint32_t groups[2] = {0}, layers[2] = {0};
    for (uint32_t g = 0; g < facts->num_groups; g++) {
        groups[facts->groups[g].window != 0]++;
        layers[facts->groups[g].window != 0] += facts->groups[g].num_layers;
    }
    (void)printf("cache groups  %u\n"
                 "  all         %s every position\n"
                 "  window      %s %u positions, rotary base %.9g\n",
                 facts->num_groups, who_sees(layers[0], groups[0], all),
                 who_sees(layers[1], groups[1], windows), s->window, (double)s->rope_base_local);
}

static int print_text(const struct facts *facts)
{
    const struct quire__shapes *s = facts->shapes;
    (void)printf("file          %s\n"
                 "architecture  %s\n"
                 "name          %s\n"
                 "parameters    %llu\n"
                 "layers        %u\n"
                 "embedding     %u\n"
                 "heads         %u, with %u key/value heads of %u and %u elements\n"
                 "feed forward  %u\n"
                 "vocabulary    %u, pre-tokenizer %s\n"
                 "context       %u positions\n"
                 "rotary        %u elements, base %.9g\n",
                 facts->path, facts->architecture, facts->name,
                 (unsigned long long)facts->parameters, s->layers, s->embedding, s->heads,
                 s->kv_heads, s->head_dim, s->head_dim_v, s->feed_forward, s->vocabulary,
                 facts->pretokenizer, s->context_length, s->rope_dim, (double)s->rope_base);
    print_groups(facts);
    (void)printf("tensors       %llu, %llu bytes\n", (unsigned long long)facts->tensors,
                 (unsigned long long)facts->bytes);
    for (size_t i = 0; i < NUM_KINDS; i++) {
        const struct tensor_kind *kind = &facts->kinds[i];
        if (kind->count > 0)
            (void)printf("  %-11s %llu, %llu bytes\n", quire_weight_name(kind->type),
                         (unsigned long long)kind->count, (unsigned long long)kind->bytes);
    }
    (void)printf("K/V           per token, and tokens that fit in the %llu bytes of free memory\n",
                 (unsigned long long)facts->free_memory);
    for (uint32_t dtype = QUIRE_F32; dtype < NUM_DTYPES; dtype++) {
        if (facts->kv_bytes[dtype] != 0)
            (void)printf("  %-11s %llu bytes, %llu tokens\n", quire_dtype_name(dtype),
                         (unsigned long long)facts->kv_bytes[dtype],
                         (unsigned long long)(facts->free_memory / facts->kv_bytes[dtype]));
    }
    if (s->window != 0)
        (void)printf("  Windows keep only what they see, so a long sequence takes less: quire plan "
                     "counts it.\n");
    return CLI_OK;
}

static int describe(const struct engine *engine, bool json)
{
    struct facts facts = {.path = engine->options->model,
                          .shapes = quire__model_shapes(engine->model),
                          .architecture = quire__model_architecture(engine->model),
                          .free_memory = quire__memory_available()};
    facts.groups = quire__model_groups(engine->model, &facts.num_groups);
    read_name(engine->gguf, "general.name", facts.name, sizeof facts.name);
    read_name(engine->gguf, "tokenizer.ggml.pre", facts.pretokenizer, sizeof facts.pretokenizer);
    count_tensors(engine->gguf, &facts);
    int result = measure_cache(engine->model, &facts);
    if (result != CLI_OK)
        return result;
    return json ? print_json(&facts) : print_text(&facts);
}

int command_info(int argc, char **argv)
{
    struct engine_options options = ENGINE_OPTIONS_DEFAULT;
    bool json = false, cpu = false;
    const struct cli_arg args[] = {
        {"--cpu", CLI_FLAG, &cpu, 0, 0, NULL, "describe the processor's kernels instead"},
        {"--json", CLI_FLAG, &json, 0, 0, NULL, "print one JSON object"},
    };
    const struct cli_command command = {
        .name = "info",
        .synopsis = "MODEL [--json] | --cpu [--json]",
        .about = "Describes a GGUF file: architecture, shapes, tensor types, bytes of K/V per "
                 "token, and how many\ntokens fit in the free memory. With --cpu: which kernels "
                 "this machine runs, which it lacks what for,\nand which are chosen.",
        .example = "quire info model.gguf",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
        .positional = "MODEL",
        .positional_value = &options.model,
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    if (cpu && options.model != NULL) {
        cli_error("info: --cpu describes no model: leave %s out", options.model);
        return CLI_BAD_USAGE;
    }
    if (cpu)
        return info_cpu(json);
    if (options.model == NULL) {
        cli_error("info: no model is given: name a GGUF file, or --cpu");
        return CLI_BAD_USAGE;
    }
    struct engine engine;
    int result = engine_open_file(&engine, &options, false);
    if (result == CLI_OK)
        result = engine_describe(&engine);
    if (result == CLI_OK)
        result = describe(&engine, json);
    engine_close(&engine);
    return result;
}
