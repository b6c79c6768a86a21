/* test_vocab.c - vocabularies: odd ones, bad ones, and the keys of a GGUF file.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "model/gguf.h"
#include "model/tokenizer.h"
#include "small_vocab.h"
#include "support.h"

#define TOKENS_MAX 16

/* A vocabulary written in a test: lists end with NULL. */
struct tiny {
    const char *tokens[TOKENS_MAX], *merges[TOKENS_MAX];
    int32_t types[TOKENS_MAX];
    const char *pre;
};

static uint64_t texts_of(const char *const *strings, struct quire__text *texts)
{
    uint64_t count = 0;
    for (; count < TOKENS_MAX && strings[count] != NULL; count++)
        texts[count] = (struct quire__text){strings[count], strlen(strings[count])};
    return count;
}

static quire_status create(const struct tiny *tiny, struct quire__tokenizer **tokenizer,
                           struct quire_error *error)
{
    struct quire__text tokens[TOKENS_MAX], merges[TOKENS_MAX];
    const char *pre = tiny->pre != NULL ? tiny->pre : "gpt-2";
    struct quire__vocab vocab = {.pre = {pre, strlen(pre)},
                                 .tokens = tokens,
                                 .types = tiny->types,
                                 .merges = merges,
                                 .bos = QUIRE__TOKEN_NONE,
                                 .eos = QUIRE__TOKEN_NONE,
                                 .eot = QUIRE__TOKEN_NONE};
    vocab.token_count = vocab.type_count = texts_of(tiny->tokens, tokens);
    vocab.merge_count = texts_of(tiny->merges, merges);
    return quire__tokenizer_create(&vocab, tokenizer, error);
}

/* Expects the ids of a text; the list ends with -1. */
static void check_ids(const struct tiny *tiny, const char *text, bool parse_special,
                      const int *expected)
{
    struct quire__tokenizer *tokenizer = NULL;
    struct quire__ids ids = {0};
    assert_int_equal(create(tiny, &tokenizer, NULL), QUIRE_OK);
    assert_int_equal(
        quire__tokenizer_encode(tokenizer, text, strlen(text), parse_special, &ids, NULL),
        QUIRE_OK);
    uint64_t count = 0;
    for (; expected[count] >= 0; count++) {
        assert_true(count < ids.count);
        assert_int_equal(ids.ids[count], expected[count]);
    }
    assert_int_equal(ids.count, count);
    quire__ids_deinit(&ids);
    quire__tokenizer_destroy(tokenizer);
}

#define CHECK_IDS(tiny, text, special, ...)                                                        \
    check_ids(tiny, text, special, (const int[]){__VA_ARGS__, -1})

/* ---- odd vocabularies: what Hugging Face tokenizers does with them ---- */

static void merges_go_by_rank_then_from_the_left(void **state)
{
    (void)state;
    struct tiny tiny = {.tokens = {"a", "b", "aa", "ab", "aab"}, .merges = {"a a", "a b", "aa b"}};
    CHECK_IDS(&tiny, "aaa", false, 2, 0);
    CHECK_IDS(&tiny, "aaab", false, 2, 3);
    CHECK_IDS(&tiny, "aab", false, 4);
    struct tiny other = {.tokens = {"a", "b", "aa", "ab", "aab"}, .merges = {"a b", "a a", "aa b"}};
    CHECK_IDS(&other, "aab", false, 0, 3);
    CHECK_IDS(&other, "aaab", false, 2, 3);
}

static void of_equal_entries_the_last_counts(void **state)
{
    (void)state;
    struct tiny tokens = {.tokens = {"a", "b", "a", "ab", "ab"}, .merges = {"a b"}};
    CHECK_IDS(&tokens, "aab", false, 2, 4);
    struct tiny merges = {.tokens = {"a", "b", "c", "ab", "bc"}, .merges = {"a b", "b c", "a b"}};
    CHECK_IDS(&merges, "abc", false, 0, 4);
}

static void missing_bytes_are_left_out(void **state)
{
    (void)state;
    struct tiny tiny = {.tokens = {"a", "!", "!!"}, .merges = {"! !"}};
    CHECK_IDS(&tiny, "b", false, -1);
    CHECK_IDS(&tiny, "bab", false, 0);
    CHECK_IDS(&tiny, "!?!", false, 2); /* the neighbours of a missing byte meet */
}

static void whole_pieces_need_no_merge_in_llama_bpe(void **state)
{
    (void)state;
    struct tiny tiny = {.tokens = {"a", "b", "c", "ab", "abc", "\u0120ab", "\u0120"},
                        .merges = {"a b"},
                        .pre = "llama-bpe"};
    CHECK_IDS(&tiny, "abc", false, 4);
    CHECK_IDS(&tiny, "ab abc ab", false, 3, 6, 3, 2, 5);
    tiny.types[4] = QUIRE__TOKEN_CONTROL;
    CHECK_IDS(&tiny, "abc", false, 3, 2); /* never out of a plain text */
    CHECK_IDS(&tiny, "abc", true, 4);
    tiny.pre = "qwen2";
    tiny.types[4] = 1;
    CHECK_IDS(&tiny, "abc", false, 3, 2);
}

static void special_texts_may_be_anything(void **state)
{
    (void)state;
    struct tiny tiny = {.tokens = {"a", "b", "", "\xff", "aa", "aab", "aa", "\xc3", "\u0120"},
                        .types = {1, 1, 3, 3, 3, 4, 4, 3, 3}};
    CHECK_IDS(&tiny, "aaab", true, 6, 0, 1);
    CHECK_IDS(&tiny, "aab", true, 5);
    CHECK_IDS(&tiny, "\u00e9", true, -1); /* 0xc3 is no character: not looked for */
    CHECK_IDS(&tiny, "a\u0120", true, 0, 8);
}

static void odd_texts_decode_to_themselves(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a",    " a",     "\u65e5", "\xff\xfe", "",
                                         "\xc3", "\u0144", "\u0120", "a b"};
    struct tiny tiny = {
        .tokens = {"a", "\u0120a", "\u65e5", "\xff\xfe", "", "\u00c3", "\u0144", "\u0120", "a b"},
        .types = {1, 77, 1, 0, -5, 6, 2, 3, 5}};
    struct quire__tokenizer *tokenizer = NULL;
    assert_int_equal(create(&tiny, &tokenizer, NULL), QUIRE_OK);
    for (uint32_t id = 0; id < QT_LEN(pieces); id++) {
        const char *bytes;
        uint64_t count;
        assert_int_equal(quire__tokenizer_piece(tokenizer, id, &bytes, &count, NULL), QUIRE_OK);
        assert_int_equal(count, strlen(pieces[id]));
        assert_memory_equal(bytes, pieces[id], count);
    }
    assert_int_equal(quire__tokenizer_vocab_size(tokenizer), QT_LEN(pieces));
    quire__tokenizer_destroy(tokenizer);
}

/* ---- bad vocabularies ---- */

static void bad_vocabularies_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct tiny tiny;
        quire_status status;
        const char *says;
    } cases[] = {
        {{.tokens = {NULL}}, QUIRE_E_CORRUPT, "tokens is empty"},
        {{.tokens = {"a"}, .pre = "tekken"}, QUIRE_E_UNSUPPORTED, "'tekken' is not supported"},
        {{.tokens = {"a"}, .pre = "tekken"}, QUIRE_E_UNSUPPORTED, "llama-bpe"},
        {{.tokens = {"a"}, .pre = "smollm2\x1b[31m"}, QUIRE_E_UNSUPPORTED, "'smollm2?[31m'"},
        {{.tokens = {"a"}, .merges = {"a b"}}, QUIRE_E_CORRUPT, "merges[0] = \"a b\""},
        {{.tokens = {"a", "b"}, .merges = {"a b"}}, QUIRE_E_CORRUPT, "joined token is not"},
        {{.tokens = {"a", "aa"}, .merges = {"a a", "b a"}}, QUIRE_E_CORRUPT, "merges[1]"},
        {{.tokens = {"a", "aa"}, .merges = {"aa"}}, QUIRE_E_CORRUPT, "one space between"},
        {{.tokens = {"a", "aa"}, .merges = {"a  a"}}, QUIRE_E_CORRUPT, "one space between"},
        {{.tokens = {"a", "aa"}, .merges = {" a"}}, QUIRE_E_CORRUPT, "one space between"},
        {{.tokens = {"a", "aa"}, .merges = {"a "}}, QUIRE_E_CORRUPT, "one space between"},
        {{.tokens = {"a", "aa"}, .merges = {""}}, QUIRE_E_CORRUPT, "one space between"},
        {{.tokens = {"a", "aa"}, .merges = {"a a a"}}, QUIRE_E_CORRUPT, "one space between"},
    };
    for (size_t i = 0; i < QT_LEN(cases); i++) {
        struct quire__tokenizer *tokenizer = NULL;
        struct quire_error error = {0};
        assert_int_equal(create(&cases[i].tiny, &tokenizer, &error), cases[i].status);
        assert_null(tokenizer);
        if (strstr(error.message, cases[i].says) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", error.message, cases[i].says);
    }
}

static void numbers_must_fit_the_tokens(void **state)
{
    (void)state;
    struct qt_vocab vocab;
    struct quire__tokenizer *tokenizer = NULL;
    struct quire_error error;
    qt_vocab_init(&vocab, "smollm");
    uint32_t count = (uint32_t)vocab.vocab.token_count;
    uint32_t *const ids[] = {&vocab.vocab.bos, &vocab.vocab.eos, &vocab.vocab.eot};
    static const char *const names[] = {"bos", "eos", "eot"};
    for (size_t i = 0; i < QT_LEN(ids); i++) {
        *ids[i] = count;
        assert_int_equal(quire__tokenizer_create(&vocab.vocab, &tokenizer, &error),
                         QUIRE_E_CORRUPT);
        assert_non_null(strstr(error.message, names[i]));
        *ids[i] = count - 1;
        assert_int_equal(quire__tokenizer_create(&vocab.vocab, &tokenizer, &error), QUIRE_OK);
        quire__tokenizer_destroy(tokenizer);
    }
    vocab.vocab.type_count--;
    assert_int_equal(quire__tokenizer_create(&vocab.vocab, &tokenizer, &error), QUIRE_E_CORRUPT);
    assert_non_null(strstr(error.message, "token_type"));
    vocab.vocab.types = NULL; /* without types, every token is an ordinary one */
    assert_int_equal(quire__tokenizer_create(&vocab.vocab, &tokenizer, &error), QUIRE_OK);
    assert_false(quire__tokenizer_is_special(tokenizer, 0));
    quire__tokenizer_destroy(tokenizer);
    qt_vocab_deinit(&vocab);
}

/* ---- GGUF ---- */

struct file {
    struct quire__bytes bytes;
    uint64_t keys;
};

static void put(struct file *file, const void *data, uint64_t count)
{
    assert_int_equal(quire__bytes_append(&file->bytes, data, count, NULL), QUIRE_OK);
}

static void put_number(struct file *file, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        put(file, &(char){(char)(value >> 8 * i)}, 1);
}

static void put_string(struct file *file, const char *text)
{
    put_number(file, strlen(text), 8);
    put(file, text, strlen(text));
}

static void put_key(struct file *file, const char *key, uint32_t type)
{
    put_string(file, key);
    put_number(file, type, 4);
    file->keys++;
}

static void put_string_key(struct file *file, const char *key, const char *value)
{
    put_key(file, key, QUIRE__GGUF_STRING);
    put_string(file, value);
}

static void put_strings_key(struct file *file, const char *key, const char *const *values)
{
    uint64_t count = 0;
    while (values[count] != NULL)
        count++;
    put_key(file, key, QUIRE__GGUF_ARRAY);
    put_number(file, QUIRE__GGUF_STRING, 4);
    put_number(file, count, 8);
    for (uint64_t i = 0; i < count; i++)
        put_string(file, values[i]);
}

static void put_types_key(struct file *file, uint32_t type, uint64_t count)
{
    put_key(file, "tokenizer.ggml.token_type", QUIRE__GGUF_ARRAY);
    put_number(file, type, 4);
    put_number(file, count, 8);
    for (uint64_t i = 0; i < count; i++)
        put_number(file, i == 3 ? QUIRE__TOKEN_CONTROL : 1, 4);
}

enum key { MODEL, PRE, TOKENS, MERGES, TYPES, BOS, EOS, EOT, ADD_BOS, NUM_KEYS };

/* Writes the keys of a good vocabulary; `skip` is left out (NUM_KEYS: none). */
static void write_keys(struct file *file, enum key skip)
{
    static const char *const tokens[] = {"a", "b", "ab", "<end>", NULL};
    static const char *const merges[] = {"a b", NULL};
    static const char *const ids[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                      "tokenizer.ggml.eot_token_id"};
    if (skip != MODEL)
        put_string_key(file, "tokenizer.ggml.model", "gpt2");
    if (skip != PRE)
        put_string_key(file, "tokenizer.ggml.pre", "qwen2");
    if (skip != TOKENS)
        put_strings_key(file, "tokenizer.ggml.tokens", tokens);
    if (skip != MERGES)
        put_strings_key(file, "tokenizer.ggml.merges", merges);
    if (skip != TYPES)
        put_types_key(file, QUIRE__GGUF_I32, 4);
    for (unsigned i = 0; i < 3; i++) {
        if (skip == BOS + i)
            continue;
        put_key(file, ids[i], QUIRE__GGUF_U32);
        put_number(file, 3 - i, 4);
    }
    if (skip != ADD_BOS) {
        put_key(file, "tokenizer.ggml.add_bos_token", QUIRE__GGUF_BOOL);
        put_number(file, 1, 1);
    }
}

/* Loads a tokenizer out of the keys, of a file without tensors that is closed at once. */
static quire_status load(struct file *keys, struct quire__tokenizer **tokenizer,
                         struct quire_error *error)
{
    struct file file = {0};
    struct quire__gguf *gguf;
    put(&file, "GGUF", 4);
    put_number(&file, 3, 4);
    put_number(&file, 0, 8);
    put_number(&file, keys->keys, 8);
    put(&file, keys->bytes.data, keys->bytes.count);
    assert_int_equal(
        quire__gguf_parse((uint8_t *)file.bytes.data, file.bytes.count, "test.gguf", &gguf, error),
        QUIRE_OK);
    quire_status status = quire__tokenizer_from_gguf(gguf, tokenizer, error);
    quire__gguf_close(gguf);
    quire__bytes_deinit(&file.bytes);
    quire__bytes_deinit(&keys->bytes);
    return status;
}

static void a_file_brings_its_tokenizer(void **state)
{
    (void)state;
    struct file keys = {0};
    struct quire__tokenizer *tokenizer = NULL;
    struct quire__ids ids = {0};
    write_keys(&keys, NUM_KEYS);
    assert_int_equal(load(&keys, &tokenizer, NULL), QUIRE_OK);
    assert_int_equal(quire__tokenizer_encode(tokenizer, "ab<end>b", 8, true, &ids, NULL), QUIRE_OK);
    assert_int_equal(ids.count, 3);
    assert_memory_equal(ids.ids, ((uint32_t[]){2, 3, 1}), 12);
    assert_int_equal(quire__tokenizer_bos(tokenizer), 3);
    assert_int_equal(quire__tokenizer_eos(tokenizer), 2);
    assert_int_equal(quire__tokenizer_eot(tokenizer), 1);
    assert_true(quire__tokenizer_add_bos(tokenizer));
    quire__ids_deinit(&ids);
    quire__tokenizer_destroy(tokenizer);
}

static void some_keys_may_be_missing(void **state)
{
    (void)state;
    static const char *const says[NUM_KEYS] = {
        [MODEL] = "no tokenizer.ggml.model",
        [PRE] = "no tokenizer.ggml.pre",
        [TOKENS] = "no tokenizer.ggml.tokens",
        [MERGES] = "no tokenizer.ggml.merges",
    };
    for (enum key skip = 0; skip < NUM_KEYS; skip++) {
        struct file keys = {0};
        struct quire__tokenizer *tokenizer = NULL;
        struct quire_error error = {0};
        write_keys(&keys, skip);
        quire_status status = load(&keys, &tokenizer, &error);
        if (says[skip] != NULL) {
            assert_int_equal(status, QUIRE_E_CORRUPT);
            assert_non_null(strstr(error.message, says[skip]));
            continue;
        }
        assert_int_equal(status, QUIRE_OK);
        assert_int_equal(quire__tokenizer_is_special(tokenizer, 3), skip != TYPES);
        assert_int_equal(quire__tokenizer_bos(tokenizer), skip == BOS ? QUIRE__TOKEN_NONE : 3);
        assert_int_equal(quire__tokenizer_eot(tokenizer), skip == EOT ? QUIRE__TOKEN_NONE : 1);
        assert_int_equal(quire__tokenizer_add_bos(tokenizer), skip != BOS && skip != ADD_BOS);
        quire__tokenizer_destroy(tokenizer);
    }
}

static void write_bad_key(struct file *keys, unsigned number)
{
    static const char *const none[] = {NULL};
    static const enum key replaced[] = {MODEL, PRE,   TOKENS, TOKENS, MERGES, TYPES,
                                        TYPES, TYPES, EOS,    EOS,    EOS,    ADD_BOS};
    write_keys(keys, replaced[number]);
    switch (number) {
    case 0:
        put_string_key(keys, "tokenizer.ggml.model", "wordpiece");
        break;
    case 1:
        put_string_key(keys, "tokenizer.ggml.pre", "unheard-of");
        break;
    case 2:
        put_strings_key(keys, "tokenizer.ggml.tokens", none);
        break;
    case 3:
        put_string_key(keys, "tokenizer.ggml.tokens", "a b ab");
        break;
    case 4:
        put_key(keys, "tokenizer.ggml.merges", QUIRE__GGUF_ARRAY);
        put_number(keys, QUIRE__GGUF_U32, 4);
        put_number(keys, 0, 8);
        break;
    case 5:
    case 6:
        put_types_key(keys, number == 5 ? QUIRE__GGUF_F32 : QUIRE__GGUF_I32, number == 5 ? 4 : 5);
        break;
    case 7:
        put_string_key(keys, "tokenizer.ggml.token_type", "normal");
        break;
    case 8:
    case 9:
        put_key(keys, "tokenizer.ggml.eos_token_id", QUIRE__GGUF_U64);
        put_number(keys, number == 8 ? 4 : UINT64_MAX, 8);
        break;
    case 10:
        put_string_key(keys, "tokenizer.ggml.eos_token_id", "2");
        break;
    default:
        put_string_key(keys, "tokenizer.ggml.add_bos_token", "yes");
    }
}

static void bad_keys_are_named(void **state)
{
    (void)state;
    static const char *const says[] = {"'wordpiece' is not supported (supported: gpt2",
                                       "'unheard-of' is not supported",
                                       "vocabulary has 0 tokens",
                                       "tokenizer.ggml.tokens has a wrong type",
                                       "tokenizer.ggml.merges has a wrong type",
                                       "tokenizer.ggml.token_type has a wrong type",
                                       "5 entries for 4 tokens",
                                       "tokenizer.ggml.token_type has a wrong type",
                                       "eos_token_id is 4, but the vocabulary has 4 tokens",
                                       "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eos_token_id has a wrong type",
                                       "add_bos_token has a wrong type"};
    for (unsigned i = 0; i < QT_LEN(says); i++) {
        struct file keys = {0};
        struct quire__tokenizer *tokenizer = NULL;
        struct quire_error error = {0};
        write_bad_key(&keys, i);
        assert_int_equal(load(&keys, &tokenizer, &error),
                         i < 2 ? QUIRE_E_UNSUPPORTED : QUIRE_E_CORRUPT);
        assert_null(tokenizer);
        if (strstr(error.message, says[i]) == NULL)
            fail_msg("%u: \"%s\" does not say \"%s\"", i, error.message, says[i]);
    }
}

static void loading_survives_every_failed_allocation(void **state)
{
    (void)state;
    unsigned refused = 0;
    for (int64_t n = 0; n < 64; n++) {
        struct file keys = {0}, file = {0};
        struct quire__gguf *gguf;
        struct quire__tokenizer *tokenizer = NULL;
        write_keys(&keys, NUM_KEYS);
        put(&file, "GGUF", 4);
        put_number(&file, 3, 4);
        put_number(&file, 0, 8);
        put_number(&file, keys.keys, 8);
        put(&file, keys.bytes.data, keys.bytes.count);
        assert_int_equal(
            quire__gguf_parse((uint8_t *)file.bytes.data, file.bytes.count, "x", &gguf, NULL),
            QUIRE_OK);
        quire__alloc_fail_after(n, true);
        quire_status status = quire__tokenizer_from_gguf(gguf, &tokenizer, NULL);
        quire__alloc_fail_after(-1, false);
        assert_true(status == QUIRE_OK ? tokenizer != NULL : status == QUIRE_E_NOMEM);
        refused += status != QUIRE_OK;
        quire__tokenizer_destroy(tokenizer);
        quire__gguf_close(gguf);
        quire__bytes_deinit(&file.bytes);
        quire__bytes_deinit(&keys.bytes);
    }
    assert_true(refused >= 12 && refused < 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_go_by_rank_then_from_the_left),
        cmocka_unit_test(of_equal_entries_the_last_counts),
        cmocka_unit_test(missing_bytes_are_left_out),
        cmocka_unit_test(whole_pieces_need_no_merge_in_llama_bpe),
        cmocka_unit_test(special_texts_may_be_anything),
        cmocka_unit_test(odd_texts_decode_to_themselves),
        cmocka_unit_test(bad_vocabularies_are_refused),
        cmocka_unit_test(numbers_must_fit_the_tokens),
        cmocka_unit_test(a_file_brings_its_tokenizer),
        cmocka_unit_test(some_keys_may_be_missing),
        cmocka_unit_test(bad_keys_are_named),
        cmocka_unit_test(loading_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
