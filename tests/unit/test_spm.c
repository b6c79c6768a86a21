/* test_spm.c - SentencePiece: merging by score, what texts become, bad vocabularies, work, memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "model/tokenizer.h"
#include "model_file.h"
#include "small_vocab.h"
#include "support.h"

#define SPACE QUIRE__SPM_SPACE

/* ---- a vocabulary of a few tokens ---- */

struct entry {
    const char *text;
    int32_t type;
    float score;
};

enum { UNK, BOS, NEWLINES, SPACES, A, B, C, AB, BC, ABC, BLANK, AA, GONE, TOKENS };

static const struct entry entries[TOKENS] = {
    [UNK] = {"<unk>", QUIRE__TOKEN_UNKNOWN, 0},
    [BOS] = {"<s>", QUIRE__TOKEN_CONTROL, 0},
    [NEWLINES] = {"\n\n", QUIRE__TOKEN_USER_DEFINED, 0},
    [SPACES] = {"  ", QUIRE__TOKEN_USER_DEFINED, 0}, /* as files write it */
    [A] = {"a", 1, -9},
    [B] = {"b", 1, -9},
    [C] = {"c", 1, -9},
    [AB] = {"ab", 1, -2},
    [BC] = {"bc", 1, -1},
    [ABC] = {"abc", 1, -3},
    [BLANK] = {SPACE, 1, -9},
    [AA] = {"aa", 1, -2},
    [GONE] = {SPACE "a", QUIRE__TOKEN_UNUSED, -1},
};

struct few {
    struct quire__text tokens[TOKENS + 256];
    int32_t types[TOKENS + 256];
    float scores[TOKENS + 256];
    char bytes[256][8];
    struct quire__vocab vocab;
};

static void few_init(struct few *few, bool with_bytes)
{
    static const char digits[] = "0123456789ABCDEF";
    for (uint32_t i = 0; i < TOKENS + 256; i++) {
        bool is_byte = i >= TOKENS;
        uint32_t byte = i - TOKENS;
        if (is_byte) {
            const char text[8] = {'<', '0', 'x', digits[byte / 16], digits[byte % 16], '>'};
            memcpy(few->bytes[byte], text, sizeof text);
        }
        const char *text = is_byte ? few->bytes[byte] : entries[i].text;
        few->tokens[i] = (struct quire__text){text, strlen(text)};
        few->types[i] = is_byte ? QUIRE__TOKEN_BYTE : entries[i].type;
        few->scores[i] = is_byte ? 0 : entries[i].score;
    }
    const uint64_t count = TOKENS + (with_bytes ? 256 : 0);
    few->vocab = (struct quire__vocab){.kind = QUIRE__VOCAB_SPM,
                                       .tokens = few->tokens,
                                       .token_count = count,
                                       .types = few->types,
                                       .type_count = count,
                                       .scores = few->scores,
                                       .score_count = count,
                                       .bos = BOS,
                                       .eos = QUIRE__TOKEN_NONE,
                                       .eot = QUIRE__TOKEN_NONE};
}

static struct quire__tokenizer *make(const struct few *few)
{
    struct quire__tokenizer *tokenizer = NULL;
    assert_int_equal(quire__tokenizer_create(&few->vocab, &tokenizer, NULL), QUIRE_OK);
    return tokenizer;
}

/* Encodes and compares with ids up to UINT32_MAX. */
static void expect(const struct quire__tokenizer *tokenizer, const char *text, bool parse_special,
                   const uint32_t *want)
{
    struct quire__ids ids = {0};
    uint64_t count = 0;
    assert_int_equal(
        quire__tokenizer_encode(tokenizer, text, strlen(text), parse_special, &ids, NULL),
        QUIRE_OK);
    while (want[count] != UINT32_MAX)
        count++;
    if (ids.count != count || (count > 0 && memcmp(ids.ids, want, count * sizeof *want) != 0))
        fail_msg("\"%s\": %llu ids, the first %u; expected %llu", text,
                 (unsigned long long)ids.count, ids.count > 0 ? ids.ids[0] : 0,
                 (unsigned long long)count);
    quire__ids_deinit(&ids);
}

#define IDS(...) ((const uint32_t[]){__VA_ARGS__, UINT32_MAX})

/* ---- encoding ---- */

static void the_best_score_joins_first(void **state)
{
    (void)state;
    struct few few;
    few_init(&few, true);
    struct quire__tokenizer *tokenizer = make(&few);
    /* bc before ab, then no token is "abc" of a and bc but abc itself */
    expect(tokenizer, "abc", true, IDS(ABC));
    expect(tokenizer, "abbc", true, IDS(AB, BC));
    /* ab and aa have one score: the leftmost of them comes first, as of aa alone */
    expect(tokenizer, "aab", true, IDS(AA, B));
    expect(tokenizer, "aaa", true, IDS(AA, A));
    expect(tokenizer, "aaaab", true, IDS(AA, AA, B));
    quire__tokenizer_destroy(tokenizer);
}

static void texts_are_never_markers_by_themselves(void **state)
{
    (void)state;
    struct few few;
    few_init(&few, true);
    struct quire__tokenizer *tokenizer = make(&few);
    const uint32_t less = TOKENS + '<', s = TOKENS + 's', more = TOKENS + '>';
    expect(tokenizer, "<s>a", true, IDS(BOS, A));
    expect(tokenizer, "<s>a", false, IDS(less, s, more, A));
    expect(tokenizer, "\n\n\n", false, IDS(NEWLINES, TOKENS + '\n'));
    expect(tokenizer, "b   b", false, IDS(B, SPACES, BLANK, B));
    expect(tokenizer, "<0x41>", true,
           IDS(less, TOKENS + '0', TOKENS + 'x', TOKENS + '4', TOKENS + '1', more));
    /* U+2581 is a space; a token that is not used comes apart */
    expect(tokenizer, "b" SPACE "b", false, IDS(B, BLANK, B));
    expect(tokenizer, "b a", false, IDS(B, BLANK, A));
    assert_true(quire__tokenizer_is_special(tokenizer, BOS));
    assert_false(quire__tokenizer_is_special(tokenizer, NEWLINES));
    assert_true(quire__tokenizer_add_bos(tokenizer));
    quire__tokenizer_destroy(tokenizer);
}

static void unknown_characters(void **state)
{
    (void)state;
    struct few few;
    few_init(&few, true);
    struct quire__tokenizer *tokenizer = make(&few);
    expect(tokenizer, "a\xc3\xa9", true, IDS(A, TOKENS + 0xc3, TOKENS + 0xa9));
    quire__tokenizer_destroy(tokenizer);
    few_init(&few, false);
    tokenizer = make(&few);
    expect(tokenizer, "xya\xc3\xa9", true, IDS(UNK, A, UNK));
    quire__tokenizer_destroy(tokenizer);
    few.types[UNK] = 1;
    tokenizer = make(&few);
    expect(tokenizer, "xya\xc3\xa9", true, IDS(A));
    quire__tokenizer_destroy(tokenizer);
}

static void a_space_may_stand_in_front(void **state)
{
    (void)state;
    struct few few;
    few_init(&few, true);
    few.vocab.space_prefix = true;
    struct quire__tokenizer *tokenizer = make(&few);
    expect(tokenizer, "bc", true, IDS(BLANK, BC));
    expect(tokenizer, " b", true, IDS(SPACES, B));
    expect(tokenizer, "<s>b<s><s>c", true, IDS(BOS, BLANK, B, BOS, BOS, BLANK, C));
    expect(tokenizer, "", true, IDS(UINT32_MAX));
    quire__tokenizer_destroy(tokenizer);
}

/* ---- decoding ---- */

static void pieces_are_what_people_read(void **state)
{
    (void)state;
    static const struct {
        uint32_t id;
        const char *piece;
    } cases[] = {{BLANK, " "},   {SPACES, "  "},      {GONE, " a"},
                 {BOS, "<s>"},   {NEWLINES, "\n\n"},  {TOKENS + 0xc3, "\xc3"},
                 {UNK, "<unk>"}, {TOKENS + '<', "<"}, {ABC, "abc"}};
    struct few few;
    few_init(&few, true);
    struct quire__tokenizer *tokenizer = make(&few);
    for (size_t i = 0; i < QT_LEN(cases); i++) {
        const char *piece;
        uint64_t count;
        assert_int_equal(quire__tokenizer_piece(tokenizer, cases[i].id, &piece, &count, NULL),
                         QUIRE_OK);
        assert_int_equal(count, strlen(cases[i].piece));
        assert_memory_equal(piece, cases[i].piece, count);
    }
    /* bytes of a character that come one by one are held back until it is whole */
    struct quire__stream stream = {0};
    struct quire__bytes out = {0};
    assert_int_equal(quire__stream_feed(&stream, "\xc3", 1, &out, NULL), QUIRE_OK);
    assert_int_equal(out.count, 0);
    assert_int_equal(quire__stream_feed(&stream, "\xa9", 1, &out, NULL), QUIRE_OK);
    assert_int_equal(out.count, 2);
    quire__bytes_deinit(&out);
    quire__tokenizer_destroy(tokenizer);
}

/* ---- vocabularies that are not right ---- */

static void bad_vocabularies(void **state)
{
    (void)state;
    struct few few;
    struct quire__tokenizer *tokenizer = NULL;
    struct quire_error error = {0};
    few_init(&few, true);
    few.vocab.score_count--;
    assert_int_equal(quire__tokenizer_create(&few.vocab, &tokenizer, &error), QUIRE_E_CORRUPT);
    assert_non_null(strstr(error.message, "scores has 268 entries for 269 tokens"));
    few_init(&few, true);
    few.scores[AB] = (float)NAN;
    assert_int_equal(quire__tokenizer_create(&few.vocab, &tokenizer, &error), QUIRE_E_CORRUPT);
    assert_non_null(strstr(error.message, "scores[7]"));
    assert_null(tokenizer);
}

static void check_keys(const struct qt_key *change, quire_status want, const char *says)
{
    static const char *const tokens[] = {"<unk>", "a"};
    static const float scores[] = {0, -1};
    static const int32_t types[] = {2, 1};
    static const struct qt_key keys[] = {
        {"tokenizer.ggml.model", 's', 0, "llama", NULL},
        {"tokenizer.ggml.tokens", 'T', 2, NULL, tokens},
        {"tokenizer.ggml.scores", 'F', 2, NULL, scores},
        {"tokenizer.ggml.token_type", 'I', 2, NULL, types},
    };
    static const struct qt_tensor tensor = {"x", 4, 0, QUIRE_W_F32};
    const struct qt_model_parts parts = {keys, QT_LEN(keys), &tensor, 1};
    const struct qt_change whole = {.key = *change};
    struct quire__bytes file = {0};
    struct quire__gguf *gguf = NULL;
    struct quire__tokenizer *tokenizer = NULL;
    struct quire_error error = {0};
    qt_model_file_build(&parts, &whole, &file);
    assert_int_equal(quire__gguf_parse((const uint8_t *)file.data, file.count, "file", &gguf, NULL),
                     QUIRE_OK);
    assert_int_equal(quire__tokenizer_from_gguf(gguf, &tokenizer, &error), want);
    if (says != NULL)
        assert_non_null(strstr(error.message, says));
    quire__tokenizer_destroy(tokenizer);
    quire__gguf_close(gguf);
    quire__bytes_deinit(&file);
}

static void keys_of_a_file(void **state)
{
    (void)state;
    static const int32_t whole[] = {1, 2};
    static const float one[] = {1};
    const struct {
        struct qt_key key;
        quire_status status;
        const char *says;
    } cases[] = {
        {QT_NO_KEY, QUIRE_OK, NULL},
        {{"tokenizer.ggml.add_space_prefix", 'b', 0, NULL, NULL}, QUIRE_OK, NULL},
        {{"tokenizer.ggml.remove_extra_whitespaces", 'b', 0, NULL, NULL}, QUIRE_OK, NULL},
        {{"tokenizer.ggml.remove_extra_whitespaces", 'b', 1, NULL, NULL},
         QUIRE_E_UNSUPPORTED,
         "remove_extra_whitespaces"},
        {{"tokenizer.ggml.precompiled_charsmap", 'I', 2, NULL, whole},
         QUIRE_E_UNSUPPORTED,
         "precompiled_charsmap"},
        {{"tokenizer.ggml.add_space_prefix", 'u', 1, NULL, NULL},
         QUIRE_E_CORRUPT,
         "add_space_prefix"},
        {{"tokenizer.ggml.scores", 0, 0, NULL, NULL}, QUIRE_E_CORRUPT, "no tokenizer.ggml.scores"},
        {{"tokenizer.ggml.scores", 'I', 2, NULL, whole}, QUIRE_E_CORRUPT, "tokenizer.ggml.scores"},
        {{"tokenizer.ggml.scores", 'F', 1, NULL, one}, QUIRE_E_CORRUPT, "1 entries for 2 tokens"},
        {{"tokenizer.ggml.model", 's', 0, "bert", NULL}, QUIRE_E_UNSUPPORTED, "'bert'"},
    };
    for (size_t i = 0; i < QT_LEN(cases); i++)
        check_keys(&cases[i].key, cases[i].status, cases[i].says);
}

/* ---- work and memory ---- */

/* Texts of one letter, and random ones, of growing length: work per byte grows as the logarithm,
 * where a quadratic way would grow a thousandfold. */
static void work_is_n_log_n(void **state)
{
    (void)state;
    enum { SHORT = 1 << 8, LONG = 1 << 18 };
    struct few few;
    few_init(&few, true);
    struct quire__tokenizer *tokenizer = make(&few);
    char *text = qt_alloc(LONG);
    for (int kind = 0; kind < 2; kind++) {
        struct qt_random random = {5};
        for (uint32_t i = 0; i < LONG; i++)
            text[i] = kind == 0 ? 'a' : "abc "[qt_below(&random, 4)];
        uint64_t steps[2] = {0};
        for (int i = 0; i < 2; i++) {
            struct quire__ids ids = {0};
            struct quire__encode_work work;
            struct quire__text part = {text, i == 0 ? SHORT : LONG};
            assert_int_equal(quire__tokenizer_measure(tokenizer, part, &ids, &work, NULL),
                             QUIRE_OK);
            steps[i] = work.heap_steps;
            assert_true(ids.count > part.count / 4);
            quire__ids_deinit(&ids);
        }
        assert_true(steps[0] > SHORT / 4);
        /* a heap of LONG is 18 / 8 times as deep */
        assert_true(steps[1] <= steps[0] * (LONG / SHORT) * 4);
    }
    qt_free(text);
    quire__tokenizer_destroy(tokenizer);
}

static void every_failed_allocation(void **state)
{
    (void)state;
    struct few few;
    few_init(&few, true);
    unsigned refused = 0;
    quire_status status = QUIRE_E_NOMEM;
    for (int64_t n = 0; status == QUIRE_E_NOMEM; n++) {
        struct quire__tokenizer *tokenizer = NULL;
        struct quire__ids ids = {0};
        quire__alloc_fail_after(n, false);
        status = quire__tokenizer_create(&few.vocab, &tokenizer, NULL);
        if (status == QUIRE_OK)
            status =
                quire__tokenizer_encode(tokenizer, "ab  \n\n a<s>\xc3\xa9", 13, true, &ids, NULL);
        quire__alloc_fail_after(-1, false);
        assert_true(status == QUIRE_OK || ids.count == 0);
        refused += status != QUIRE_OK;
        quire__tokenizer_destroy(tokenizer);
        quire__ids_deinit(&ids);
    }
    assert_int_equal(status, QUIRE_OK);
    assert_true(refused >= 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_score_joins_first),
        cmocka_unit_test(texts_are_never_markers_by_themselves),
        cmocka_unit_test(unknown_characters),
        cmocka_unit_test(a_space_may_stand_in_front),
        cmocka_unit_test(pieces_are_what_people_read),
        cmocka_unit_test(bad_vocabularies),
        cmocka_unit_test(keys_of_a_file),
        cmocka_unit_test(work_is_n_log_n),
        cmocka_unit_test(every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
