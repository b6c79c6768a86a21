/* pretokenize.c - cuts text into the pieces inside which byte pairs are merged.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The patterns are the published ones of each model family. Two things are spelled differently:
 *
 * White space is listed. It is the property White_Space, which the reference engine's \s stands
 * for; PCRE2's \s has U+180E as well.
 *
 * smollm cuts out every number character and applies the gpt-2 pattern to what lies between. That
 * is one pattern: no other alternative crosses a number, and a run of white space ends either at a
 * number or at the end of the text, where it is kept whole, or before something else, which gets
 * its last character.
 *
 * A match costs time in proportion to its length: every alternative is a run of one class; the only
 * runs that are given back are white space's, and what was scanned in vain is matched by the next
 * alternative but for one character. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/pretokenize.h"

#include <pcre2.h>
#include <string.h>

#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define SPACE     "[" SPACES "]"
#define NOT_SPACE "[^" SPACES "]"
#define OTHER     "[^" SPACES "\\p{L}\\p{N}]"

#define ENDINGS "'s|'t|'re|'ve|'m|'ll|'d"

#define LLAMA_LIKE(numbers)                                                                        \
    "(?i:" ENDINGS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "| ?" OTHER "+[\\r\\n]*|" SPACE      \
    "*[\\r\\n]+|" SPACE "+(?!" NOT_SPACE ")|" SPACE "+"

static const struct quire__pretokenizer_rules rules[QUIRE__PRE_COUNT] = {
    [QUIRE__PRE_SMOLLM] = {"\\p{N}|" ENDINGS "| ?\\p{L}+| ?" OTHER "+|" SPACE "+(?!" OTHER
                           "|\\p{L})|" SPACE "+",
                           false, false},
    [QUIRE__PRE_GPT2] = {ENDINGS "| ?\\p{L}+| ?\\p{N}+| ?" OTHER "+|" SPACE "+(?!" NOT_SPACE
                                 ")|" SPACE "+",
                         false, false},
    [QUIRE__PRE_LLAMA_BPE] = {LLAMA_LIKE("\\p{N}{1,3}"), true, true},
    [QUIRE__PRE_QWEN2] = {LLAMA_LIKE("\\p{N}"), false, false},
};

static const struct {
    const char *name;
    enum quire__pretokenizer_kind kind;
} names[] = {
    {"smollm", QUIRE__PRE_SMOLLM},       {"gpt-2", QUIRE__PRE_GPT2},
    {"llama-bpe", QUIRE__PRE_LLAMA_BPE}, {"llama3", QUIRE__PRE_LLAMA_BPE},
    {"llama-v3", QUIRE__PRE_LLAMA_BPE},  {"qwen2", QUIRE__PRE_QWEN2},
};

struct quire__pretokenizer {
    pcre2_code *code;
};

struct quire__pretokenizer_scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
};

const struct quire__pretokenizer_rules *quire__pretokenizer_rules(
    enum quire__pretokenizer_kind kind)
{
    return &rules[kind];
}

quire_status quire__pretokenizer_find(struct quire__text name, enum quire__pretokenizer_kind *kind,
                                      struct quire_error *error)
{
    char quoted[48];
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(names); i++) {
        if (strlen(names[i].name) == name.count &&
            memcmp(names[i].name, name.bytes, name.count) == 0) {
            *kind = names[i].kind;
            return QUIRE_OK;
        }
    }
    return quire__fail(error, QUIRE_E_UNSUPPORTED,
                       "tokenizer.ggml.pre: the pre-tokenizer '%s' is not supported (supported: "
                       "smollm, gpt-2, llama-bpe, llama3, llama-v3, qwen2)",
                       quire__quote(name.bytes, name.count, quoted, sizeof(quoted)));
}

/* ---- PCRE2 with the library's heap ---- */

static void *pcre_alloc(size_t bytes, void *unused)
{
    (void)unused;
    return quire__alloc(bytes);
}

static void pcre_free(void *memory, void *unused)
{
    (void)unused;
    quire__free(memory);
}

quire_status quire__pretokenizer_create(enum quire__pretokenizer_kind kind,
                                        struct quire__pretokenizer **out, struct quire_error *error)
{
    int code = 0;
    PCRE2_SIZE offset = 0;
    struct quire__pretokenizer *pre = quire__calloc(1, sizeof(*pre));
    pcre2_general_context *heap = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    pcre2_compile_context *context = heap != NULL ? pcre2_compile_context_create(heap) : NULL;
    if (pre != NULL && context != NULL)
        pre->code = pcre2_compile((PCRE2_SPTR)rules[kind].pattern, PCRE2_ZERO_TERMINATED,
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NO_START_OPTIMIZE,
                                  &code, &offset, context);
    pcre2_compile_context_free(context);
    pcre2_general_context_free(heap);
    if (pre == NULL || pre->code == NULL) {
        quire__pretokenizer_destroy(pre);
        if (code != 0 && code != PCRE2_ERROR_HEAP_FAILED)
            return quire__fail(error, QUIRE_E_UNSUPPORTED,
                               "PCRE2 refuses a tokenizer pattern (error %d at %zu): it must be "
                               "built with Unicode support",
                               code, offset);
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory for the tokenizer's pattern");
    }
    /* Without it (not built in, or no executable memory) the same matches are found, slower. */
    (void)pcre2_jit_compile(pre->code, PCRE2_JIT_COMPLETE);
    *out = pre;
    return QUIRE_OK;
}

void quire__pretokenizer_destroy(struct quire__pretokenizer *pre)
{
    if (pre == NULL)
        return;
    pcre2_code_free(pre->code);
    quire__free(pre);
}

quire_status quire__pretokenizer_scratch_create(const struct quire__pretokenizer *pre,
                                                struct quire__pretokenizer_scratch **out,
                                                struct quire_error *error)
{
    (void)pre;
    struct quire__pretokenizer_scratch *scratch = quire__calloc(1, sizeof(*scratch));
    pcre2_general_context *heap = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (scratch != NULL && heap != NULL) {
        scratch->data = pcre2_match_data_create(1, heap);
        scratch->context = pcre2_match_context_create(heap);
    }
    pcre2_general_context_free(heap);
    if (scratch == NULL || scratch->data == NULL || scratch->context == NULL) {
        quire__pretokenizer_scratch_destroy(scratch);
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory for the tokenizer");
    }
    /* Work is in proportion to the text, so that a fixed limit would only cap the text's length. */
    pcre2_set_match_limit(scratch->context, UINT32_MAX);
    *out = scratch;
    return QUIRE_OK;
}

void quire__pretokenizer_scratch_destroy(struct quire__pretokenizer_scratch *scratch)
{
    if (scratch == NULL)
        return;
    pcre2_match_data_free(scratch->data);
    pcre2_match_context_free(scratch->context);
    quire__free(scratch);
}

quire_status quire__pretokenizer_next(const struct quire__pretokenizer *pre,
                                      struct quire__pretokenizer_scratch *scratch,
                                      struct quire__text text, uint64_t at, uint64_t *length,
                                      struct quire_error *error)
{
    int found = pcre2_match(pre->code, (PCRE2_SPTR)text.bytes, text.count, at, PCRE2_NO_UTF_CHECK,
                            scratch->data, scratch->context);
    if (found == PCRE2_ERROR_NOMEMORY || found == PCRE2_ERROR_HEAPLIMIT)
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory to cut the text into tokens");
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(scratch->data);
    if (found < 0 || span[1] <= at)
        return quire__fail(error, QUIRE_E_UNSUPPORTED, "PCRE2 fails on the text at byte %llu (%d)",
                           (unsigned long long)at, found);
    *length = span[1] - at;
    return QUIRE_OK;
}
