/* fuzz_tokenizer.c - the tokenizer on any text, and on any vocabulary.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Bits of the first byte: 0-1 the pre-tokenizer; 2 special tokens are parsed; 3 the rest is a
 * vocabulary instead of a text; 4 SentencePiece, where bit 0 means a space in front and no bytes. A
 * vocabulary is lines: 't' token, 'c' control token, 'm' merge; of SentencePiece 't', 'c', 'u'
 * user-defined, 'x' unused, 'b' byte, '?' unknown, then one byte for the score, then the text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "model/tokenizer.h"
#include "small_vocab.h"
#include "support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KINDS     4
#define LINES_MAX 4096

static const char *const kinds[KINDS] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};
static struct quire__tokenizer *tokenizers[KINDS], *spm_tokenizers[2];

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void create_tokenizers(void)
{
    for (unsigned i = 0; i < KINDS; i++) {
        struct qt_vocab vocab;
        qt_vocab_init(&vocab, kinds[i]);
        REQUIRE(quire__tokenizer_create(&vocab.vocab, &tokenizers[i], NULL) == QUIRE_OK);
        qt_vocab_deinit(&vocab);
    }
    for (unsigned prefix = 0; prefix < 2; prefix++) {
        struct qt_vocab vocab;
        qt_vocab_init_spm(&vocab, prefix != 0);
        REQUIRE(quire__tokenizer_create(&vocab.vocab, &spm_tokenizers[prefix], NULL) == QUIRE_OK);
        qt_vocab_deinit(&vocab);
    }
}

/* Streams any bytes in pieces; what comes out is UTF-8 at every moment. */
static void check_stream(const char *bytes, uint64_t count, uint64_t step, bool is_text)
{
    struct quire__stream stream = {0};
    struct quire__bytes out = {0};
    uint64_t bad;
    for (uint64_t at = 0; at < count; at += step) {
        uint64_t piece = count - at < step ? count - at : step;
        REQUIRE(quire__stream_feed(&stream, bytes + at, piece, &out, NULL) == QUIRE_OK);
        REQUIRE(stream.count < sizeof(stream.tail));
    }
    REQUIRE(quire__utf8_check(out.data, out.count, &bad));
    REQUIRE(quire__stream_flush(&stream, &out, NULL) == QUIRE_OK);
    REQUIRE(quire__utf8_check(out.data, out.count, &bad));
    if (is_text) {
        REQUIRE(out.count == count);
        REQUIRE(count == 0 || memcmp(out.data, bytes, count) == 0);
    }
    quire__bytes_deinit(&out);
}

static void decode(const struct quire__tokenizer *tokenizer, const struct quire__ids *ids,
                   struct quire__bytes *decoded)
{
    for (uint64_t i = 0; i < ids->count; i++) {
        const char *piece;
        uint64_t count;
        REQUIRE(ids->ids[i] < quire__tokenizer_vocab_size(tokenizer));
        REQUIRE(quire__tokenizer_piece(tokenizer, ids->ids[i], &piece, &count, NULL) == QUIRE_OK);
        REQUIRE(quire__bytes_append(decoded, piece, count, NULL) == QUIRE_OK);
    }
}

/* The text comes back; SentencePiece's with a space for every U+2581, and where it has no tokens of
 * bytes not all of it. */
static void check_ids(const struct quire__tokenizer *tokenizer, const struct quire__ids *ids,
                      struct quire__text text)
{
    struct quire__bytes decoded = {0}, want = {0};
    const uint64_t marker = sizeof QUIRE__SPM_SPACE - 1;
    const bool spm = tokenizer == spm_tokenizers[0];
    decode(tokenizer, ids, &decoded);
    for (uint64_t at = 0, step; at < text.count; at += step) {
        bool space = spm && text.count - at >= marker &&
                     memcmp(text.bytes + at, QUIRE__SPM_SPACE, marker) == 0;
        step = space ? marker : 1;
        REQUIRE(quire__bytes_append(&want, space ? " " : text.bytes + at, 1, NULL) == QUIRE_OK);
    }
    if (tokenizer != spm_tokenizers[1]) {
        REQUIRE(decoded.count == want.count);
        REQUIRE(want.count == 0 || memcmp(decoded.data, want.data, want.count) == 0);
    }
    quire__bytes_deinit(&decoded);
    quire__bytes_deinit(&want);
}

static void check_text(const struct quire__tokenizer *tokenizer, struct quire__text text,
                       bool parse_special)
{
    struct quire__ids ids = {0}, again = {0};
    struct quire_error error = {0};
    uint64_t bad;
    bool is_text = quire__utf8_check(text.bytes, text.count, &bad);
    quire_status status =
        quire__tokenizer_encode(tokenizer, text.bytes, text.count, parse_special, &ids, &error);
    REQUIRE(status == (is_text ? QUIRE_OK : QUIRE_E_INVAL));
    REQUIRE(error.status == (is_text ? QUIRE_OK : QUIRE_E_INVAL));
    if (is_text) {
        check_ids(tokenizer, &ids, text);
        REQUIRE(quire__tokenizer_encode(tokenizer, text.bytes, text.count, parse_special, &again,
                                        NULL) == QUIRE_OK);
        REQUIRE(again.count == ids.count);
        REQUIRE(ids.count == 0 || memcmp(again.ids, ids.ids, ids.count * sizeof(*ids.ids)) == 0);
    }
    REQUIRE(is_text || ids.count == 0);
    check_stream(text.bytes, text.count, 1, is_text);
    check_stream(text.bytes, text.count, 3, is_text);
    quire__ids_deinit(&ids);
    quire__ids_deinit(&again);
}

/* A vocabulary may be refused; one that is taken gives ids that exist. */
static void check_vocab(const struct quire__vocab *vocab)
{
    static const char text[] = "the <bos>abc aab 12\n\0\xc3\xa9\xe6\x97\xa5";
    struct quire__tokenizer *tokenizer = NULL;
    struct quire_error error = {0};
    quire_status status = quire__tokenizer_create(vocab, &tokenizer, &error);
    REQUIRE(status == QUIRE_OK ? tokenizer != NULL : status == QUIRE_E_CORRUPT);
    REQUIRE(status == error.status);
    if (status != QUIRE_OK)
        return;
    for (unsigned special = 0; special < 2; special++) {
        struct quire__ids ids = {0};
        REQUIRE(quire__tokenizer_encode(tokenizer, text, sizeof(text) - 1, special != 0, &ids,
                                        NULL) == QUIRE_OK);
        /* A space has three bytes in SentencePiece, and one more may stand before each stretch. */
        REQUIRE(ids.count < (vocab->kind == QUIRE__VOCAB_SPM ? 6 : 1) * sizeof(text));
        for (uint64_t i = 0; i < ids.count; i++)
            REQUIRE(ids.ids[i] < vocab->token_count);
        quire__ids_deinit(&ids);
    }
    quire__tokenizer_destroy(tokenizer);
}

/* The line that begins at *at, without its end; *at moves behind it. */
static struct quire__text next_line(struct quire__text lines, uint64_t *at)
{
    const uint64_t start = *at;
    uint64_t end = start;
    while (end < lines.count && lines.bytes[end] != '\n')
        end++;
    *at = end + 1;
    return (struct quire__text){lines.bytes + start, end - start};
}

static void check_byte_level(const char *pre, struct quire__text lines)
{
    static struct quire__text tokens[LINES_MAX], merges[LINES_MAX];
    static int32_t types[LINES_MAX];
    struct quire__vocab vocab = {.pre = {pre, strlen(pre)},
                                 .tokens = tokens,
                                 .types = types,
                                 .merges = merges,
                                 .bos = QUIRE__TOKEN_NONE,
                                 .eos = QUIRE__TOKEN_NONE,
                                 .eot = QUIRE__TOKEN_NONE};
    for (uint64_t at = 0; at < lines.count;) {
        struct quire__text line = next_line(lines, &at);
        if (line.count == 0)
            continue;
        const struct quire__text rest = {line.bytes + 1, line.count - 1};
        if (line.bytes[0] == 'm' && vocab.merge_count < LINES_MAX) {
            merges[vocab.merge_count++] = rest;
        } else if (vocab.token_count < LINES_MAX) {
            types[vocab.token_count] = line.bytes[0] == 'c' ? QUIRE__TOKEN_CONTROL : 1;
            tokens[vocab.token_count++] = rest;
        }
    }
    vocab.type_count = vocab.token_count;
    check_vocab(&vocab);
}

static void check_spm(bool prefix, struct quire__text lines)
{
    static const char letters[] = "?cuxb";
    static const int32_t meanings[] = {QUIRE__TOKEN_UNKNOWN, QUIRE__TOKEN_CONTROL,
                                       QUIRE__TOKEN_USER_DEFINED, QUIRE__TOKEN_UNUSED,
                                       QUIRE__TOKEN_BYTE};
    static struct quire__text tokens[LINES_MAX];
    static int32_t types[LINES_MAX];
    static float scores[LINES_MAX];
    struct quire__vocab vocab = {.kind = QUIRE__VOCAB_SPM,
                                 .tokens = tokens,
                                 .types = types,
                                 .scores = scores,
                                 .space_prefix = prefix,
                                 .bos = QUIRE__TOKEN_NONE,
                                 .eos = QUIRE__TOKEN_NONE,
                                 .eot = QUIRE__TOKEN_NONE};
    for (uint64_t at = 0; at < lines.count;) {
        struct quire__text line = next_line(lines, &at);
        if (line.count < 2 || vocab.token_count == LINES_MAX)
            continue;
        const char *letter = memchr(letters, line.bytes[0], sizeof letters - 1);
        types[vocab.token_count] = letter != NULL ? meanings[letter - letters] : 1;
        scores[vocab.token_count] = (float)(int8_t)line.bytes[1];
        tokens[vocab.token_count++] = (struct quire__text){line.bytes + 2, line.count - 2};
    }
    vocab.type_count = vocab.score_count = vocab.token_count;
    check_vocab(&vocab);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (tokenizers[0] == NULL)
        create_tokenizers();
    unsigned kind = data[0] % KINDS;
    struct quire__text rest = {(const char *)data + 1, size - 1};
    const bool special = (data[0] & 4) != 0, vocabulary = (data[0] & 8) != 0;
    const bool spm = (data[0] & 16) != 0;
    if (vocabulary && spm)
        check_spm((kind & 1) != 0, rest);
    else if (vocabulary)
        check_byte_level(kinds[kind], rest);
    else
        check_text(spm ? spm_tokenizers[kind & 1] : tokenizers[kind], rest, special);
    return 0;
}
