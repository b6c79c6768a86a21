/* test_tokenizer.c - encoding, decoding, special tokens, properties, and how much work a text is.
 * SPDX-License-Identifier: Apache-2.0 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <pcre2.h>

#include "base/base.h"
#include "model/pretokenize.h"
#include "model/tokenizer.h"
#include "small_vocab.h"
#include "support.h"

static const char *const kinds[] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};

static struct quire__tokenizer *make(const char *pre)
{
    struct qt_vocab vocab;
    struct quire__tokenizer *tokenizer = NULL;
    qt_vocab_init(&vocab, pre);
    vocab.vocab.bos = qt_vocab_find(&vocab, "<|im_start|>");
    vocab.vocab.eos = qt_vocab_find(&vocab, "<tool>");
    assert_int_equal(quire__tokenizer_create(&vocab.vocab, &tokenizer, NULL), QUIRE_OK);
    qt_vocab_deinit(&vocab);
    return tokenizer;
}

static void encode(const struct quire__tokenizer *tokenizer, struct quire__text text,
                   bool parse_special, struct quire__ids *ids)
{
    ids->count = 0;
    assert_int_equal(
        quire__tokenizer_encode(tokenizer, text.bytes, text.count, parse_special, ids, NULL),
        QUIRE_OK);
}

static struct quire__text text_of(const char *string)
{
    return (struct quire__text){string, strlen(string)};
}

/* Expects the pieces of a text's tokens, written with '|' between them. */
static void check_pieces(const struct quire__tokenizer *tokenizer, const char *text,
                         bool parse_special, const char *expected)
{
    struct quire__ids ids = {0};
    struct quire__bytes joined = {0};
    const char *piece;
    uint64_t count;
    encode(tokenizer, text_of(text), parse_special, &ids);
    for (uint64_t i = 0; i < ids.count; i++) {
        assert_int_equal(quire__tokenizer_piece(tokenizer, ids.ids[i], &piece, &count, NULL),
                         QUIRE_OK);
        assert_int_equal(quire__bytes_append(&joined, i > 0 ? "|" : "", i > 0, NULL), QUIRE_OK);
        assert_int_equal(quire__bytes_append(&joined, piece, count, NULL), QUIRE_OK);
    }
    assert_int_equal(quire__bytes_append(&joined, "", 1, NULL), QUIRE_OK);
    assert_string_equal(joined.data, expected);
    quire__ids_deinit(&ids);
    quire__bytes_deinit(&joined);
}

/* ---- encoding and decoding ---- */

static void each_family_cuts_its_own_way(void **state)
{
    (void)state;
    /* Every way differs from every other in one of these. */
    static const struct {
        const char *pre, *text, *expected;
    } cases[] = {
        {"smollm", "x 123", "x| |1|2|3"},
        {"gpt-2", "x 123", "x| 1|2|3"},
        {"llama-bpe", "x 123", "x| |123"},
        {"qwen2", "x 123", "x| |1|2|3"},
        {"llama-bpe", "1234", "123|4"},
        {"gpt-2", "!\n", "!|\n"},
        {"smollm", "a  1", "a|  |1"},
        {"gpt-2", "a  1", "a| | 1"},
        {"llama-bpe", " quire", " quire"},
        {"qwen2", "don'T", "don|'|T"},
        {"smollm", "don'T", "don|'|T"},
        {"qwen2", "\t\t", "\t|\t"},
        {"llama-bpe", "\n\n\n\n\n", "\n\n\n\n\n"},
    };
    for (size_t i = 0; i < QT_LEN(cases); i++) {
        struct quire__tokenizer *tokenizer = make(cases[i].pre);
        check_pieces(tokenizer, cases[i].text, false, cases[i].expected);
        quire__tokenizer_destroy(tokenizer);
    }
}

static uint64_t first_piece(enum quire__pretokenizer_kind kind, const char *text)
{
    struct quire__pretokenizer *pre;
    struct quire__pretokenizer_scratch *scratch;
    uint64_t length = 0;
    assert_int_equal(quire__pretokenizer_create(kind, &pre, NULL), QUIRE_OK);
    assert_int_equal(quire__pretokenizer_scratch_create(pre, &scratch, NULL), QUIRE_OK);
    assert_int_equal(quire__pretokenizer_next(pre, scratch, text_of(text), 0, &length, NULL),
                     QUIRE_OK);
    quire__pretokenizer_scratch_destroy(scratch);
    quire__pretokenizer_destroy(pre);
    return length;
}

/* Two spaces and white space are one piece; before anything else the second space is kept back. */
static void white_space_is_the_property_of_unicode(void **state)
{
    (void)state;
    static const char *const spaces[] = {
        "  \t",     "  \n",     "  \v",     "  \f",     "  \r",     "   ",      "  \xc2\x85",
        "  \u00a0", "  \u1680", "  \u2000", "  \u2001", "  \u2002", "  \u2003", "  \u2004",
        "  \u2005", "  \u2006", "  \u2007", "  \u2008", "  \u2009", "  \u200a", "  \u2028",
        "  \u2029", "  \u202f", "  \u205f", "  \u3000"};
    static const char *const others[] = {"  \u180e", "  \u200b", "  \u2060", "  \ufeff",
                                         "  \x1c",   "  \x1f",   "  \x08"};
    for (unsigned kind = 0; kind < QUIRE__PRE_COUNT; kind++) {
        for (size_t i = 0; i < QT_LEN(spaces); i++)
            assert_int_equal(first_piece((enum quire__pretokenizer_kind)kind, spaces[i]),
                             strlen(spaces[i]));
        for (size_t i = 0; i < QT_LEN(others); i++)
            assert_int_equal(first_piece((enum quire__pretokenizer_kind)kind, others[i]), 1);
    }
}

static void special_tokens_are_leftmost_and_longest(void **state)
{
    (void)state;
    struct quire__tokenizer *tokenizer = make("gpt-2");
    check_pieces(tokenizer, "<tool>s<tool><tool", true, "<tool>s|<tool>|<|to|ol");
    check_pieces(tokenizer, "<<bos><bos", true, "<|<bos>|<|b|os");
    check_pieces(tokenizer, "<|im_start|><|im_end|>", true, "<|im_start|>|<|im_end|>");
    check_pieces(tokenizer, "a    x", true, "a|    x");
    check_pieces(tokenizer, "a    x", false, "a|   | |x");
    check_pieces(tokenizer, "\u65e5\u672c", true, "\u65e5\u672c");
    check_pieces(tokenizer, "<bos>", false, "<|b|os|>");
    quire__tokenizer_destroy(tokenizer);
}

static void ids_are_appended(void **state)
{
    (void)state;
    struct quire__tokenizer *tokenizer = make("smollm");
    struct quire__ids ids = {0};
    assert_int_equal(quire__tokenizer_encode(tokenizer, "a", 1, true, &ids, NULL), QUIRE_OK);
    assert_int_equal(quire__tokenizer_encode(tokenizer, NULL, 0, true, &ids, NULL), QUIRE_OK);
    assert_int_equal(ids.count, 1);
    assert_int_equal(quire__tokenizer_encode(tokenizer, "\0", 1, true, &ids, NULL), QUIRE_OK);
    assert_int_equal(ids.count, 2);
    const char *piece;
    uint64_t count;
    assert_int_equal(quire__tokenizer_piece(tokenizer, ids.ids[1], &piece, &count, NULL), QUIRE_OK);
    assert_int_equal(count, 1);
    assert_int_equal(piece[0], 0);
    quire__ids_deinit(&ids);
    quire__tokenizer_destroy(tokenizer);
}

static void room_is_made_for_all_that_is_asked(void **state)
{
    (void)state;
    for (uint64_t capacity = 1; capacity < 200; capacity++) {
        for (uint64_t extra = 1; extra <= 2 * capacity + 2; extra++) {
            struct quire__ids ids = {qt_alloc(capacity * 4), capacity, capacity};
            assert_int_equal(quire__ids_reserve(&ids, extra, NULL), QUIRE_OK);
            assert_true(ids.capacity >= capacity + extra);
            quire__ids_deinit(&ids);
        }
    }
    struct quire__ids none = {0};
    assert_int_equal(quire__ids_reserve(&none, UINT64_MAX, NULL), QUIRE_E_NOMEM);
    none.count = 1;
    assert_int_equal(quire__ids_reserve(&none, UINT64_MAX, NULL), QUIRE_E_NOMEM);
}

static void bad_text_says_where(void **state)
{
    (void)state;
    struct quire__tokenizer *tokenizer = make("smollm");
    struct quire__ids ids = {0};
    struct quire_error error = {0};
    encode(tokenizer, text_of("kept"), false, &ids);
    uint64_t before = ids.count;
    assert_int_equal(quire__tokenizer_encode(tokenizer, "ab\xff", 3, true, &ids, &error),
                     QUIRE_E_INVAL);
    assert_string_equal(error.message, "the text is not UTF-8: byte 0xff at offset 2");
    assert_int_equal(
        quire__tokenizer_encode(tokenizer, "a", (uint64_t)INT32_MAX + 1, true, &ids, &error),
        QUIRE_E_LIMIT);
    assert_int_equal(ids.count, before);
    quire__ids_deinit(&ids);
    quire__tokenizer_destroy(tokenizer);
}

static void every_token_decodes(void **state)
{
    (void)state;
    struct quire__tokenizer *tokenizer = make("gpt-2");
    uint32_t size = quire__tokenizer_vocab_size(tokenizer);
    const char *piece;
    uint64_t count;
    bool seen[256] = {false};
    assert_true(size > 2000);
    for (uint32_t id = 0; id < size; id++) {
        assert_int_equal(quire__tokenizer_piece(tokenizer, id, &piece, &count, NULL), QUIRE_OK);
        assert_true(count > 0);
        if (count == 1)
            seen[(uint8_t)piece[0]] = true;
    }
    for (unsigned byte = 0; byte < 256; byte++)
        assert_true(seen[byte]);
    struct quire_error error = {0};
    assert_int_equal(quire__tokenizer_piece(tokenizer, size, &piece, &count, &error),
                     QUIRE_E_INVAL);
    assert_int_equal(error.status, QUIRE_E_INVAL);
    assert_int_equal(quire__tokenizer_piece(tokenizer, UINT32_MAX, &piece, &count, NULL),
                     QUIRE_E_INVAL);
    quire__tokenizer_destroy(tokenizer);
}

static void properties(void **state)
{
    (void)state;
    struct quire__tokenizer *tokenizer = make("llama-bpe");
    uint32_t tool = quire__tokenizer_find(tokenizer, "<tool>");
    uint32_t think = quire__tokenizer_find(tokenizer, "<think>");
    assert_int_equal(quire__tokenizer_bos(tokenizer),
                     quire__tokenizer_find(tokenizer, "<|im_start|>"));
    assert_int_equal(quire__tokenizer_eos(tokenizer), tool);
    assert_int_equal(quire__tokenizer_eot(tokenizer), QUIRE__TOKEN_NONE);
    assert_int_equal(quire__tokenizer_find(tokenizer, "<nothing>"), QUIRE__TOKEN_NONE);
    assert_true(quire__tokenizer_add_bos(tokenizer));
    assert_true(quire__tokenizer_is_special(tokenizer, tool));
    assert_true(quire__tokenizer_is_special(tokenizer, think));
    assert_false(quire__tokenizer_is_special(tokenizer, quire__tokenizer_find(tokenizer, "a")));
    assert_false(quire__tokenizer_is_special(tokenizer, UINT32_MAX));
    static const char *const ends[] = {"<|im_end|>",      "<|eot_id|>",    "<end_of_turn>",
                                       "<|end_of_text|>", "<|endoftext|>", "<tool>"};
    for (size_t i = 0; i < QT_LEN(ends); i++)
        assert_true(quire__tokenizer_is_end(tokenizer, quire__tokenizer_find(tokenizer, ends[i])));
    uint32_t end_count = 0;
    for (uint32_t id = 0; id < quire__tokenizer_vocab_size(tokenizer); id++)
        end_count += quire__tokenizer_is_end(tokenizer, id);
    assert_int_equal(end_count, QT_LEN(ends));
    assert_false(quire__tokenizer_is_end(tokenizer, QUIRE__TOKEN_NONE));
    quire__tokenizer_destroy(tokenizer);
}

static void bos_is_added_as_the_file_says(void **state)
{
    (void)state;
    static const struct {
        const char *pre;
        bool has_bos, has_add_bos, add_bos, expected;
    } cases[] = {
        {"llama-bpe", true, false, false, true},   {"llama-bpe", true, true, false, false},
        {"llama-bpe", false, false, false, false}, {"smollm", true, false, false, false},
        {"smollm", true, true, true, true},        {"qwen2", false, true, true, false},
        {"llama3", true, false, false, true},      {"llama-v3", true, false, false, true},
    };
    for (size_t i = 0; i < QT_LEN(cases); i++) {
        struct qt_vocab vocab;
        struct quire__tokenizer *tokenizer = NULL;
        qt_vocab_init(&vocab, cases[i].pre);
        vocab.vocab.bos = cases[i].has_bos ? 0 : QUIRE__TOKEN_NONE;
        vocab.vocab.has_add_bos = cases[i].has_add_bos;
        vocab.vocab.add_bos = cases[i].add_bos;
        assert_int_equal(quire__tokenizer_create(&vocab.vocab, &tokenizer, NULL), QUIRE_OK);
        assert_int_equal(quire__tokenizer_add_bos(tokenizer), cases[i].expected);
        quire__tokenizer_destroy(tokenizer);
        qt_vocab_deinit(&vocab);
    }
}

/* ---- round trips ---- */

static void append_random_character(struct qt_random *random, struct quire__bytes *text)
{
    static const char *const pieces[] = {
        "'s",       "'LL",   " ",      "  \n",   "\r\n", "12",
        "\xc2\xa0", "the ",  " quire", "\u65e5", "!?",   "\xf0\x9f\x98\x80",
        "<tool>",   "<|im_", "\u0301", "\x04",   "e",    "\u05d0"};
    const char *piece = pieces[qt_below(random, QT_LEN(pieces))];
    assert_int_equal(quire__bytes_append(text, piece, strlen(piece), NULL), QUIRE_OK);
}

static void check_round_trip(const struct quire__tokenizer *tokenizer, struct quire__text text,
                             bool parse_special)
{
    struct quire__ids ids = {0};
    struct quire__bytes decoded = {0}, streamed = {0};
    struct quire__stream stream = {0};
    const char *piece;
    uint64_t count;
    encode(tokenizer, text, parse_special, &ids);
    for (uint64_t i = 0; i < ids.count; i++) {
        assert_int_equal(quire__tokenizer_piece(tokenizer, ids.ids[i], &piece, &count, NULL),
                         QUIRE_OK);
        assert_int_equal(quire__bytes_append(&decoded, piece, count, NULL), QUIRE_OK);
        assert_int_equal(quire__stream_feed(&stream, piece, count, &streamed, NULL), QUIRE_OK);
    }
    assert_int_equal(decoded.count, text.count);
    assert_int_equal(streamed.count, text.count);
    if (text.count > 0) {
        assert_memory_equal(decoded.data, text.bytes, text.count);
        assert_memory_equal(streamed.data, text.bytes, text.count);
    }
    quire__ids_deinit(&ids);
    quire__bytes_deinit(&decoded);
    quire__bytes_deinit(&streamed);
}

static void texts_come_back(void **state)
{
    (void)state;
    struct qt_random random = {3};
    for (size_t kind = 0; kind < QT_LEN(kinds); kind++) {
        struct quire__tokenizer *tokenizer = make(kinds[kind]);
        for (unsigned round = 0; round < 500; round++) {
            struct quire__bytes text = {0};
            for (uint32_t left = qt_below(&random, 20); left > 0; left--)
                append_random_character(&random, &text);
            check_round_trip(tokenizer, (struct quire__text){text.data, text.count}, round % 2);
            quire__bytes_deinit(&text);
        }
        quire__tokenizer_destroy(tokenizer);
    }
}

/* ---- memory and threads ---- */

static quire_status create_and_encode(const struct qt_vocab *vocab, struct quire__ids *ids)
{
    struct quire__tokenizer *tokenizer = NULL;
    quire_status status = quire__tokenizer_create(&vocab->vocab, &tokenizer, NULL);
    if (status == QUIRE_OK)
        status = quire__tokenizer_encode(tokenizer, "the <tool> quire 12345", 22, true, ids, NULL);
    else
        assert_null(tokenizer);
    quire__tokenizer_destroy(tokenizer);
    return status;
}

/* One run with a fault at allocation n; true when the fault came. */
static bool run_with_fault(const struct qt_vocab *vocab, int64_t n, bool forever, uint64_t expected,
                           unsigned *refused)
{
    struct quire__ids ids = {0};
    quire__alloc_fail_after(n, forever);
    quire_status status = create_and_encode(vocab, &ids);
    void *probe = quire__alloc(1);
    quire__alloc_fail_after(-1, false);
    bool fault_came = forever ? probe == NULL : status != QUIRE_OK;
    quire__free(probe);
    /* Only the pattern's compiler to machine code can fail without harm. */
    assert_true(status == QUIRE_OK || status == QUIRE_E_NOMEM);
    assert_int_equal(ids.count, status == QUIRE_OK ? expected : 0);
    *refused += status != QUIRE_OK;
    quire__ids_deinit(&ids);
    return fault_came;
}

static void every_failed_allocation_is_survived(void **state)
{
    (void)state;
    struct qt_vocab vocab;
    struct quire__ids ids = {0};
    int64_t allocations = 0;
    unsigned refused = 0, refused_once = 0;
    qt_vocab_init(&vocab, "llama-bpe");
    assert_int_equal(create_and_encode(&vocab, &ids), QUIRE_OK);
    while (run_with_fault(&vocab, allocations, true, ids.count, &refused))
        allocations++;
    assert_true(refused >= 20);
    for (int64_t n = 0; n < allocations; n++)
        (void)run_with_fault(&vocab, n, false, ids.count, &refused_once);
    assert_true(refused_once >= 20);
    quire__ids_deinit(&ids);
    qt_vocab_deinit(&vocab);
}

struct worker {
    const struct quire__tokenizer *tokenizer;
    struct quire__ids ids;
    quire_status status;
};

static void *work(void *argument)
{
    struct worker *worker = argument;
    for (unsigned round = 0; round < 200 && worker->status == QUIRE_OK; round++) {
        worker->ids.count = 0;
        worker->status = quire__tokenizer_encode(worker->tokenizer, "<tool> the 12 quires\n", 21,
                                                 true, &worker->ids, NULL);
    }
    return NULL;
}

static void threads_share_one(void **state)
{
    (void)state;
    struct quire__tokenizer *tokenizer = make("smollm");
    struct worker workers[4] = {{0}};
    pthread_t threads[4];
    for (size_t i = 0; i < QT_LEN(workers); i++) {
        workers[i].tokenizer = tokenizer;
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < QT_LEN(workers); i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].status, QUIRE_OK);
        assert_int_equal(workers[i].ids.count, workers[0].ids.count);
        assert_memory_equal(workers[i].ids.ids, workers[0].ids.ids, workers[0].ids.count * 4);
    }
    for (size_t i = 0; i < QT_LEN(workers); i++)
        quire__ids_deinit(&workers[i].ids);
    quire__tokenizer_destroy(tokenizer);
}

/* ---- work: no text is quadratic ---- */

static const char *const repeated[] = {
    "a",        " ",      "\n",     "\r\n",     "\t",
    "7",        "!",      "'",      "'s",       " \n",
    "\n ",      "  a",    "ab",     "the ",     "\xc3\xa9",
    "\xc2\xa0", "\u65e5", "\u0301", "e\u0301",  "\xf0\x9f\x91\x8d",
    "<|",       "the",    "x  1 ",  "\u3000\n", " '",
    ".\n ",     "  !",
};

static struct quire__text repeat(const char *piece, uint64_t bytes, struct quire__bytes *text)
{
    text->count = 0;
    while (text->count < bytes)
        assert_int_equal(quire__bytes_append(text, piece, strlen(piece), NULL), QUIRE_OK);
    return (struct quire__text){text->data, text->count};
}

/* Four times the text is at most five and a half times the work: n log n, not n squared. */
static void merging_is_not_quadratic(void **state)
{
    (void)state;
    struct quire__bytes text = {0};
    struct quire__ids ids = {0};
    struct quire__encode_work small, large;
    for (size_t kind = 0; kind < QT_LEN(kinds); kind++) {
        struct quire__tokenizer *tokenizer = make(kinds[kind]);
        for (size_t i = 0; i < QT_LEN(repeated); i++) {
            ids.count = 0;
            assert_int_equal(quire__tokenizer_measure(tokenizer, repeat(repeated[i], 4096, &text),
                                                      &ids, &small, NULL),
                             QUIRE_OK);
            ids.count = 0;
            assert_int_equal(quire__tokenizer_measure(tokenizer, repeat(repeated[i], 16384, &text),
                                                      &ids, &large, NULL),
                             QUIRE_OK);
            assert_true(small.pieces > 0 && small.pieces <= 4100);
            assert_true(large.pieces <= 4 * small.pieces + 16);
            if (large.heap_steps > small.heap_steps * 11 / 2 + 1024)
                fail_msg("%s: \"%s\": %llu steps, then %llu", kinds[kind], repeated[i],
                         (unsigned long long)small.heap_steps,
                         (unsigned long long)large.heap_steps);
        }
        quire__tokenizer_destroy(tokenizer);
    }
    quire__ids_deinit(&ids);
    quire__bytes_deinit(&text);
}

/* Cuts a text as the tokenizer does, without the compiler to machine code, whose work cannot be
 * counted. Returns the sum over the pieces of the least limit, doubled from 16, under which the
 * interpreter finds the piece: at most twice its steps, and 16. */
static uint64_t cutting_steps(const char *pattern, struct quire__text text)
{
    int code_number;
    PCRE2_SIZE offset;
    uint64_t steps = 0;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code_number, &offset, NULL);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    assert_non_null(code);
    assert_non_null(data);
    assert_non_null(context);
    for (PCRE2_SIZE at = 0; at < text.count; at = pcre2_get_ovector_pointer(data)[1]) {
        int found = PCRE2_ERROR_MATCHLIMIT;
        for (uint32_t limit = 16; found == PCRE2_ERROR_MATCHLIMIT; limit *= 2) {
            assert_true(limit <= 1u << 30);
            pcre2_set_match_limit(context, limit);
            found = pcre2_match(code, (PCRE2_SPTR)text.bytes, text.count, at, PCRE2_NO_UTF_CHECK,
                                data, context);
            if (found != PCRE2_ERROR_MATCHLIMIT)
                steps += limit;
        }
        assert_int_equal(found, 1);
    }
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return steps;
}

static void cutting_is_linear(void **state)
{
    (void)state;
    struct quire__bytes text = {0};
    for (size_t kind = 0; kind < QUIRE__PRE_COUNT; kind++) {
        const char *pattern =
            quire__pretokenizer_rules((enum quire__pretokenizer_kind)kind)->pattern;
        for (size_t i = 0; i < QT_LEN(repeated); i++) {
            uint64_t small = cutting_steps(pattern, repeat(repeated[i], 4096, &text));
            uint64_t large = cutting_steps(pattern, repeat(repeated[i], 16384, &text));
            if (large > 9 * small)
                fail_msg("%s: \"%s\": %llu steps, then %llu", kinds[kind], repeated[i],
                         (unsigned long long)small, (unsigned long long)large);
            assert_true(large <= 32 * 16384);
        }
    }
    quire__bytes_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_family_cuts_its_own_way),
        cmocka_unit_test(white_space_is_the_property_of_unicode),
        cmocka_unit_test(special_tokens_are_leftmost_and_longest),
        cmocka_unit_test(ids_are_appended),
        cmocka_unit_test(room_is_made_for_all_that_is_asked),
        cmocka_unit_test(bad_text_says_where),
        cmocka_unit_test(every_token_decodes),
        cmocka_unit_test(properties),
        cmocka_unit_test(bos_is_added_as_the_file_says),
        cmocka_unit_test(texts_come_back),
        cmocka_unit_test(every_failed_allocation_is_survived),
        cmocka_unit_test(threads_share_one),
        cmocka_unit_test(merging_is_not_quadratic),
        cmocka_unit_test(cutting_is_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
