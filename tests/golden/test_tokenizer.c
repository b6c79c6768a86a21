/* test_tokenizer.c - token ids as Hugging Face tokenizers and SentencePiece give them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * 10,000 random strings per pre-tokenizer, and for SentencePiece, over vocabularies of the
 * project's own, and those of the real models where QUIRE_TEST_MODEL and QUIRE_TEST_MODEL_GEMMA3
 * name them. tests/golden/tokenizer/README.md has the rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "model/gguf.h"
#include "model/tokenizer.h"
#include "small_vocab.h"
#include "support.h"

#define STRINGS 10000

/* ---- random strings ---- */

#define PIECES_MAX 256
#define RANGES_MAX 1024

struct ingredients {
    struct quire__text pieces[PIECES_MAX];
    uint32_t ranges[RANGES_MAX][2];
    uint32_t piece_count, range_count;
    char *file;
};

static void ingredients_init(struct ingredients *in)
{
    *in = (struct ingredients){.file = qt_read_golden("strings.txt", NULL)};
    for (char *line = in->file, *end; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        if (line[0] == 's') {
            assert_true(in->piece_count < PIECES_MAX);
            in->pieces[in->piece_count++] = (struct quire__text){line + 2, qt_unescape(line + 2)};
        } else {
            char *last;
            assert_true(in->range_count < RANGES_MAX);
            uint32_t *range = in->ranges[in->range_count++];
            range[0] = (uint32_t)strtoul(line + 2, &last, 16);
            range[1] = (uint32_t)strtoul(last, NULL, 16);
        }
    }
    assert_true(in->piece_count > 100 && in->range_count > 500);
}

static void append(struct quire__bytes *text, const char *bytes, uint64_t count)
{
    assert_int_equal(quire__bytes_append(text, bytes, count, NULL), QUIRE_OK);
}

static void append_code(struct quire__bytes *text, uint32_t code)
{
    char utf8[4];
    uint64_t count = 1;
    if (code < 0x80) {
        utf8[0] = (char)code;
    } else if (code < 0x800) {
        count = 2;
        utf8[0] = (char)(0xc0 | code >> 6);
    } else if (code < 0x10000) {
        count = 3;
        utf8[0] = (char)(0xe0 | code >> 12);
    } else {
        count = 4;
        utf8[0] = (char)(0xf0 | code >> 18);
    }
    for (uint64_t i = 1; i < count; i++)
        utf8[i] = (char)(0x80 | ((code >> 6 * (count - 1 - i)) & 0x3f));
    append(text, utf8, count);
}

static void make_string(const struct ingredients *in, uint64_t number, struct quire__bytes *text)
{
    struct qt_random random = {number};
    text->count = 0;
    for (uint32_t left = 1 + qt_below(&random, 16); left > 0; left--) {
        uint32_t kind = qt_below(&random, 10);
        if (kind < 6) {
            struct quire__text piece = in->pieces[qt_below(&random, in->piece_count)];
            for (uint32_t n = kind < 5 ? 1 : 2 + qt_below(&random, 5); n > 0; n--)
                append(text, piece.bytes, piece.count);
        } else if (kind < 9) {
            const uint32_t *range = in->ranges[qt_below(&random, in->range_count)];
            for (uint32_t n = kind < 8 ? 1 : 1 + qt_below(&random, 8); n > 0; n--)
                append_code(text, range[0] + qt_below(&random, range[1] - range[0] + 1));
        } else {
            for (uint32_t n = 1 + qt_below(&random, 8); n > 0; n--)
                append_code(text, 32 + qt_below(&random, 95));
        }
    }
}

static uint64_t fnv(uint64_t hash, uint32_t value)
{
    for (unsigned shift = 0; shift < 32; shift += 8)
        hash = (hash ^ ((value >> shift) & 0xff)) * 0x100000001b3u;
    return hash;
}

/* Compares the ids of all strings with NAME.fnv. */
static void check_hashes(const struct quire__tokenizer *tokenizer, const char *golden_name)
{
    struct ingredients in;
    struct quire__ids ids = {0};
    struct quire__bytes text = {0};
    char name[32];
    size_t size;
    (void)snprintf(name, sizeof(name), "%s.fnv", golden_name);
    uint8_t *golden = (uint8_t *)qt_read_golden(name, &size);
    assert_int_equal(size, STRINGS * 8);
    ingredients_init(&in);
    uint32_t bad = 0;
    for (uint32_t i = 0; i < STRINGS; i++) {
        uint64_t expected = 0, hash = 0xcbf29ce484222325u;
        make_string(&in, i, &text);
        ids.count = 0;
        assert_int_equal(
            quire__tokenizer_encode(tokenizer, text.data, text.count, i % 2 != 0, &ids, NULL),
            QUIRE_OK);
        hash = fnv(hash, (uint32_t)ids.count);
        for (uint64_t j = 0; j < ids.count; j++)
            hash = fnv(hash, ids.ids[j]);
        for (unsigned byte = 8; byte-- > 0;)
            expected = expected << 8 | golden[8 * i + byte];
        if (hash != expected && bad++ < 5)
            print_message("%s: string %u differs\n", golden_name, i);
    }
    assert_int_equal(bad, 0);
    quire__ids_deinit(&ids);
    quire__bytes_deinit(&text);
    qt_free(in.file);
    qt_free(golden);
}

/* Takes the vocabulary. */
static void check_vocab(struct qt_vocab *vocab, const char *golden_name)
{
    struct quire__tokenizer *tokenizer;
    assert_int_equal(quire__tokenizer_create(&vocab->vocab, &tokenizer, NULL), QUIRE_OK);
    qt_vocab_deinit(vocab);
    check_hashes(tokenizer, golden_name);
    quire__tokenizer_destroy(tokenizer);
}

static void check_strings(const char *pre, bool lacks_bytes)
{
    struct qt_vocab vocab;
    qt_vocab_init(&vocab, pre);
    if (lacks_bytes) {
        qt_vocab_replace(&vocab, "\u0104", "<missing 4>");
        qt_vocab_replace(&vocab, "\u0113", "<missing 19>");
        qt_vocab_replace(&vocab, "\u0121", "<missing 127>");
    }
    check_vocab(&vocab, pre);
}

static void smollm_strings(void **state)
{
    (void)state;
    check_strings("smollm", true);
}

static void gpt2_strings(void **state)
{
    (void)state;
    check_strings("gpt-2", false);
}

static void llama_bpe_strings(void **state)
{
    (void)state;
    check_strings("llama-bpe", false);
}

static void qwen2_strings(void **state)
{
    (void)state;
    check_strings("qwen2", false);
}

static void spm_strings(void **state)
{
    (void)state;
    struct qt_vocab vocab;
    qt_vocab_init_spm(&vocab, false);
    check_vocab(&vocab, "spm");
}

/* A space in front of every text, and one unknown token for a run of what the vocabulary lacks. */
static void spm_prefix_strings(void **state)
{
    (void)state;
    struct qt_vocab vocab;
    qt_vocab_init_spm(&vocab, true);
    check_vocab(&vocab, "spm-prefix");
}

/* ---- the real vocabularies ---- */

/* Opens the tokenizer of the model that a variable names, or skips the test. */
static struct quire__tokenizer *real_tokenizer(const char *variable)
{
    struct quire__gguf *gguf;
    struct quire__tokenizer *tokenizer;
    const char *path = getenv(variable);
    if (path == NULL || *path == '\0') {
        print_message("%s is not set\n", variable);
        skip();
    }
    assert_int_equal(quire__gguf_open(path, &gguf, NULL), QUIRE_OK);
    assert_int_equal(quire__tokenizer_from_gguf(gguf, &tokenizer, NULL), QUIRE_OK);
    quire__gguf_close(gguf);
    return tokenizer;
}

static void gemma3_strings(void **state)
{
    (void)state;
    struct quire__tokenizer *tokenizer = real_tokenizer("QUIRE_TEST_MODEL_GEMMA3");
    assert_int_equal(quire__tokenizer_vocab_size(tokenizer), 262144);
    assert_int_equal(quire__tokenizer_bos(tokenizer), 2);
    assert_int_equal(quire__tokenizer_eos(tokenizer), 1);
    assert_true(quire__tokenizer_add_bos(tokenizer));
    check_hashes(tokenizer, "gemma3");
    quire__tokenizer_destroy(tokenizer);
}

/* Reads the JSON string that begins at *at (after its quote), \u escapes included, and moves *at
 * behind it. */
static void read_json_string(const char **at, struct quire__bytes *text)
{
    static const char letters[] = "bfnrt", meanings[] = "\b\f\n\r\t";
    text->count = 0;
    for (; **at != '"'; ++*at) {
        assert_true(**at != '\0');
        if (**at != '\\') {
            append(text, *at, 1);
            continue;
        }
        ++*at;
        const char *letter = strchr(letters, **at);
        if (letter != NULL) {
            append(text, &meanings[letter - letters], 1);
        } else if (**at == 'u') {
            char hex[5] = {(*at)[1], (*at)[2], (*at)[3], (*at)[4], '\0'};
            uint32_t code = (uint32_t)strtoul(hex, NULL, 16);
            *at += 4;
            if (code >= 0xd800 && code < 0xdc00) {
                assert_true((*at)[1] == '\\' && (*at)[2] == 'u');
                memcpy(hex, *at + 3, 4);
                code =
                    0x10000 + ((code - 0xd800) << 10) + (uint32_t)strtoul(hex, NULL, 16) - 0xdc00;
                *at += 6;
            }
            append_code(text, code);
        } else {
            append(text, *at, 1);
        }
    }
    ++*at;
}

/* Goes behind the next `what`, which must come before the next `before` when that is not NULL. */
static bool skip_to(const char **at, const char *what, const char *before)
{
    const char *found = strstr(*at, what), *stop = before != NULL ? strstr(*at, before) : NULL;
    if (found == NULL || (stop != NULL && stop < found))
        return false;
    *at = found + strlen(what);
    return true;
}

static void check_case(const struct quire__tokenizer *tokenizer, const struct quire__bytes *text,
                       const char **at)
{
    struct quire__ids ids = {0};
    struct quire__bytes decoded = {0};
    const char *piece;
    uint64_t count;
    assert_int_equal(quire__tokenizer_encode(tokenizer, text->data, text->count, true, &ids, NULL),
                     QUIRE_OK);
    for (uint64_t i = 0; i < ids.count; i++) {
        char *end;
        assert_int_equal(strtoul(*at, &end, 10), ids.ids[i]);
        assert_true(end != *at);
        *at = end + strspn(end, ", \n");
        assert_int_equal(quire__tokenizer_piece(tokenizer, ids.ids[i], &piece, &count, NULL),
                         QUIRE_OK);
        append(&decoded, piece, count);
    }
    assert_int_equal(**at, ']');
    assert_int_equal(decoded.count, text->count);
    if (text->count > 0)
        assert_memory_equal(decoded.data, text->data, text->count);
    quire__ids_deinit(&ids);
    quire__bytes_deinit(&decoded);
}

static void smollm2_cases(void **state)
{
    (void)state;
    struct quire__bytes text = {0};
    struct quire__tokenizer *tokenizer = real_tokenizer("QUIRE_TEST_MODEL");
    assert_int_equal(quire__tokenizer_vocab_size(tokenizer), 49152);
    assert_int_equal(quire__tokenizer_bos(tokenizer), 1);
    assert_int_equal(quire__tokenizer_eos(tokenizer), 2);
    assert_false(quire__tokenizer_add_bos(tokenizer));

    char *file = qt_read_golden("../smollm2/golden.json", NULL);
    const char *at = file;
    uint32_t cases = 0;
    assert_true(skip_to(&at, "\"tokenizer\":", NULL));
    for (; skip_to(&at, "\"text\":", "\"prompts\":"); cases++) {
        assert_true(skip_to(&at, "\"", NULL));
        read_json_string(&at, &text);
        assert_true(skip_to(&at, "\"ids\":", NULL) && skip_to(&at, "[", NULL));
        at += strspn(at, " \n");
        check_case(tokenizer, &text, &at);
    }
    assert_int_equal(cases, 55);
    for (; skip_to(&at, "\"text\":", "\"nll\":"); cases++) {
        assert_true(skip_to(&at, "\"", NULL));
        read_json_string(&at, &text);
        assert_true(skip_to(&at, "\"ids\":", NULL) && skip_to(&at, "[", NULL));
        at += strspn(at, " \n");
        check_case(tokenizer, &text, &at);
    }
    assert_int_equal(cases, 55 + 6);
    qt_free(file);
    quire__bytes_deinit(&text);
    quire__tokenizer_destroy(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smollm_strings),    cmocka_unit_test(gpt2_strings),
        cmocka_unit_test(llama_bpe_strings), cmocka_unit_test(qwen2_strings),
        cmocka_unit_test(spm_strings),       cmocka_unit_test(spm_prefix_strings),
        cmocka_unit_test(smollm2_cases),     cmocka_unit_test(gemma3_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
