/* tokenizer_gguf.c - the vocabulary of a GGUF file.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/gguf.h"
#include "model/tokenizer.h"

#include <string.h>

#define KEY(name) "tokenizer.ggml." name

/* The vocabulary and the arrays that it stands on. */
struct arrays {
    struct quire__vocab vocab;
    struct quire__text *tokens, *merges;
    int32_t *types;
    float *scores;
};

/* Says in words what a look-up answered. */
static quire_status fail_key(quire_status status, const char *key, struct quire_error *error)
{
    if (status == QUIRE_E_NOTFOUND)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "the file has no %s: without a tokenizer it cannot read or write text",
                           key);
    return quire__fail(error, status, "%s has a wrong type or value", key);
}

static quire_status fail_memory(uint64_t count, const char *key, struct quire_error *error)
{
    return quire__fail(error, QUIRE_E_NOMEM, "out of memory for %s (%llu entries)", key,
                       (unsigned long long)count);
}

static quire_status read_strings(const struct quire__gguf *gguf, const char *key,
                                 struct quire__text **out, uint64_t *count,
                                 struct quire_error *error)
{
    struct quire__gguf_array array;
    struct quire__gguf_string string;
    quire_status status = quire__gguf_array(gguf, key, &array);
    if (status == QUIRE_OK && array.type != QUIRE__GGUF_STRING)
        status = QUIRE_E_CORRUPT;
    if (status != QUIRE_OK)
        return fail_key(status, key, error);
    *out = quire__calloc(array.count, sizeof(**out));
    if (*out == NULL)
        return fail_memory(array.count, key, error);
    struct quire__gguf_strings strings = quire__gguf_strings(&array);
    for (*count = 0; quire__gguf_next_string(&strings, &string); ++*count)
        (*out)[*count] = (struct quire__text){string.data, string.size};
    return QUIRE_OK;
}

static quire_status read_types(const struct quire__gguf *gguf, struct arrays *arrays,
                               struct quire_error *error)
{
    const char *key = KEY("token_type");
    struct quire__gguf_array array;
    quire_status status = quire__gguf_array(gguf, key, &array);
    if (status == QUIRE_E_NOTFOUND)
        return QUIRE_OK;
    if (status != QUIRE_OK)
        return fail_key(status, key, error);
    arrays->types = quire__calloc(array.count, sizeof(*arrays->types));
    if (arrays->types == NULL)
        return fail_memory(array.count, key, error);
    for (uint64_t i = 0; i < array.count; i++) {
        int64_t type;
        status = quire__gguf_array_i64(&array, i, &type);
        if (status != QUIRE_OK)
            return fail_key(status, key, error);
        arrays->types[i] = type < 0 || type > INT32_MAX ? 0 : (int32_t)type;
    }
    arrays->vocab.types = arrays->types;
    arrays->vocab.type_count = array.count;
    return QUIRE_OK;
}

static quire_status read_id(const struct quire__gguf *gguf, const char *key, uint64_t token_count,
                            uint32_t *id, struct quire_error *error)
{
    uint64_t value;
    quire_status status = quire__gguf_u64(gguf, key, &value);
    *id = QUIRE__TOKEN_NONE;
    if (status == QUIRE_E_NOTFOUND)
        return QUIRE_OK;
    if (status != QUIRE_OK)
        return fail_key(status, key, error);
    if (value >= token_count)
        return quire__fail(error, QUIRE_E_CORRUPT, "%s is %llu, but the vocabulary has %llu tokens",
                           key, (unsigned long long)value, (unsigned long long)token_count);
    *id = (uint32_t)value;
    return QUIRE_OK;
}

static quire_status read_scores(const struct quire__gguf *gguf, struct arrays *arrays,
                                struct quire_error *error)
{
    const char *key = KEY("scores");
    struct quire__gguf_array array;
    quire_status status = quire__gguf_array(gguf, key, &array);
    if (status != QUIRE_OK)
        return fail_key(status, key, error);
    arrays->scores = quire__calloc(array.count, sizeof(*arrays->scores));
    if (arrays->scores == NULL)
        return fail_memory(array.count, key, error);
    for (uint64_t i = 0; i < array.count && status == QUIRE_OK; i++)
        status = quire__gguf_array_f32(&array, i, &arrays->scores[i]);
    arrays->vocab.scores = arrays->scores;
    arrays->vocab.score_count = array.count;
    return status == QUIRE_OK ? QUIRE_OK : fail_key(status, key, error);
}

static quire_status read_bool_or(const struct quire__gguf *gguf, const char *key, bool *value,
                                 bool *found, struct quire_error *error)
{
    quire_status status = quire__gguf_bool(gguf, key, value);
    *found = status == QUIRE_OK;
    return *found || status == QUIRE_E_NOTFOUND ? QUIRE_OK : fail_key(status, key, error);
}

static bool is(struct quire__gguf_string string, const char *text)
{
    return string.size == strlen(text) && memcmp(string.data, text, string.size) == 0;
}

static quire_status read_kind(const struct quire__gguf *gguf, struct quire__vocab *vocab,
                              struct quire_error *error)
{
    char quoted[48];
    struct quire__gguf_string model;
    quire_status status = quire__gguf_str(gguf, KEY("model"), &model);
    if (status != QUIRE_OK)
        return fail_key(status, KEY("model"), error);
    vocab->kind = is(model, "llama") ? QUIRE__VOCAB_SPM : QUIRE__VOCAB_BYTE_LEVEL;
    if (!is(model, "llama") && !is(model, "gpt2"))
        return quire__fail(error, QUIRE_E_UNSUPPORTED,
                           "tokenizer.ggml.model: the tokenizer '%s' is not supported (supported: "
                           "gpt2, which is byte-level BPE, and llama, which is SentencePiece)",
                           quire__quote(model.data, model.size, quoted, sizeof(quoted)));
    return QUIRE_OK;
}

static quire_status read_byte_level(const struct quire__gguf *gguf, struct arrays *arrays,
                                    struct quire_error *error)
{
    struct quire__gguf_string pre;
    quire_status status = quire__gguf_str(gguf, KEY("pre"), &pre);
    if (status != QUIRE_OK)
        return fail_key(status, KEY("pre"), error);
    arrays->vocab.pre = (struct quire__text){pre.data, pre.size};
    status = read_strings(gguf, KEY("merges"), &arrays->merges, &arrays->vocab.merge_count, error);
    arrays->vocab.merges = arrays->merges;
    return status;
}

/* A text is encoded as it is but for the spaces; a file that wants more is not known. */
static quire_status read_spm(const struct quire__gguf *gguf, struct arrays *arrays,
                             struct quire_error *error)
{
    bool removes = false, found;
    struct quire__gguf_array charsmap;
    arrays->vocab.space_prefix = true;
    quire_status status = read_scores(gguf, arrays, error);
    if (status == QUIRE_OK)
        status =
            read_bool_or(gguf, KEY("add_space_prefix"), &arrays->vocab.space_prefix, &found, error);
    if (status == QUIRE_OK)
        status = read_bool_or(gguf, KEY("remove_extra_whitespaces"), &removes, &found, error);
    if (status == QUIRE_OK && (removes || quire__gguf_array(gguf, KEY("precompiled_charsmap"),
                                                            &charsmap) != QUIRE_E_NOTFOUND))
        return quire__fail(error, QUIRE_E_UNSUPPORTED,
                           "%s: the tokenizer changes texts before it encodes them, which Quire "
                           "lacks",
                           removes ? KEY("remove_extra_whitespaces") : KEY("precompiled_charsmap"));
    return status;
}

static quire_status read_vocab(const struct quire__gguf *gguf, struct arrays *arrays,
                               struct quire_error *error)
{
    struct quire__vocab *vocab = &arrays->vocab;
    quire_status status = read_kind(gguf, vocab, error);
    if (status == QUIRE_OK)
        status = read_strings(gguf, KEY("tokens"), &arrays->tokens, &vocab->token_count, error);
    vocab->tokens = arrays->tokens;
    if (status == QUIRE_OK)
        status = vocab->kind == QUIRE__VOCAB_SPM ? read_spm(gguf, arrays, error)
                                                 : read_byte_level(gguf, arrays, error);
    if (status == QUIRE_OK)
        status = read_types(gguf, arrays, error);
    if (status == QUIRE_OK)
        status = read_id(gguf, KEY("bos_token_id"), vocab->token_count, &vocab->bos, error);
    if (status == QUIRE_OK)
        status = read_id(gguf, KEY("eos_token_id"), vocab->token_count, &vocab->eos, error);
    if (status == QUIRE_OK)
        status = read_id(gguf, KEY("eot_token_id"), vocab->token_count, &vocab->eot, error);
    if (status == QUIRE_OK)
        status =
            read_bool_or(gguf, KEY("add_bos_token"), &vocab->add_bos, &vocab->has_add_bos, error);
    return status;
}

quire_status quire__tokenizer_from_gguf(const struct quire__gguf *gguf,
                                        struct quire__tokenizer **out, struct quire_error *error)
{
    struct arrays arrays = {0};
    quire_status status = read_vocab(gguf, &arrays, error);
    if (status == QUIRE_OK)
        status = quire__tokenizer_create(&arrays.vocab, out, error);
    quire__free(arrays.tokens);
    quire__free(arrays.merges);
    quire__free(arrays.types);
    quire__free(arrays.scores);
    return status;
}
