/* small_vocab.c - the vocabularies of tests/golden/tokenizer, for tests that need no model.
 * SPDX-License-Identifier: Apache-2.0 */
#include "small_vocab.h"

#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void give_up(const char *what, const char *about)
{
    (void)fprintf(stderr, "tests/golden/tokenizer: %s: %s\n", what, about);
    abort();
}

char *qt_read_golden(const char *name, size_t *size)
{
    char path[1024];
    (void)snprintf(path, sizeof(path), "%s/tests/golden/tokenizer/%s", QUIRE_SOURCE_DIR, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        give_up("cannot read", path);
    size_t count = (size_t)ftell(file);
    rewind(file);
    char *bytes = qt_alloc(count + 1);
    if (fread(bytes, 1, count, file) != count)
        give_up("cannot read", path);
    (void)fclose(file);
    if (size != NULL)
        *size = count;
    return bytes;
}

static bool has_token(const struct qt_vocab *vocab, struct quire__text text)
{
    for (uint64_t i = 0; i < vocab->vocab.token_count; i++)
        if (vocab->tokens[i].count == text.count &&
            memcmp(vocab->tokens[i].bytes, text.bytes, text.count) == 0)
            return true;
    return false;
}

static void add_token(struct qt_vocab *vocab, const char *bytes, uint64_t count, int32_t type)
{
    uint64_t index = vocab->vocab.token_count++;
    vocab->tokens[index] = (struct quire__text){bytes, count};
    vocab->types[index] = type;
}

/* Adds the tokens of the 256 bytes, whose texts go to `out` (512 bytes). */
static void add_bytes(struct qt_vocab *vocab, char *out)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char raw = (char)byte;
        uint64_t count = quire__byte_level_encode(&raw, 1, out);
        add_token(vocab, out, count, 1);
        out += count;
    }
}

/* Adds the merge on a line, and the joined token (written to `out`) where it is new. Returns how
 * much of out is used. */
static uint64_t add_merge(struct qt_vocab *vocab, const char *line, uint64_t count, char *out)
{
    vocab->merges[vocab->vocab.merge_count++] = (struct quire__text){line, count};
    uint64_t used = 0;
    for (uint64_t i = 0; i < count; i++)
        if (line[i] != ' ')
            out[used++] = line[i];
    if (has_token(vocab, (struct quire__text){out, used}))
        return 0;
    add_token(vocab, out, used, 1);
    return used;
}

void qt_vocab_init(struct qt_vocab *vocab, const char *pre)
{
    size_t size;
    char *file = qt_read_golden("vocab.txt", &size);
    *vocab = (struct qt_vocab){.vocab = {.pre = {pre, strlen(pre)},
                                         .bos = QUIRE__TOKEN_NONE,
                                         .eos = QUIRE__TOKEN_NONE,
                                         .eot = QUIRE__TOKEN_NONE}};
    size_t lines = 0;
    for (size_t i = 0; i < size; i++)
        lines += file[i] == '\n';
    vocab->tokens = qt_alloc((lines + 256) * sizeof(*vocab->tokens));
    vocab->types = qt_alloc((lines + 256) * sizeof(*vocab->types));
    vocab->merges = qt_alloc(lines * sizeof(*vocab->merges));
    /* The file, the bytes' tokens, the joined tokens. */
    vocab->bytes = qt_alloc(size + 512 + size);
    memcpy(vocab->bytes, file, size);
    qt_free(file);
    char *out = vocab->bytes + size + 512;
    bool have_bytes = false;
    for (char *line = vocab->bytes, *end; line < vocab->bytes + size; line = end + 1) {
        end = strchr(line, '\n');
        if (end == NULL || end - line < 3 || strchr("cutm", line[0]) == NULL || line[1] != ' ')
            give_up("vocab.txt", "a line is malformed");
        uint64_t count = (uint64_t)(end - line) - 2;
        if (!have_bytes && (line[0] == 't' || line[0] == 'm')) {
            add_bytes(vocab, vocab->bytes + size);
            have_bytes = true;
        }
        if (line[0] == 'm')
            out += add_merge(vocab, line + 2, count, out);
        else
            add_token(vocab, line + 2, count,
                      line[0] == 'c'   ? QUIRE__TOKEN_CONTROL
                      : line[0] == 'u' ? QUIRE__TOKEN_USER_DEFINED
                                       : 1);
    }
    vocab->vocab.tokens = vocab->tokens;
    vocab->vocab.types = vocab->types;
    vocab->vocab.type_count = vocab->vocab.token_count;
    vocab->vocab.merges = vocab->merges;
}

uint64_t qt_unescape(char *text)
{
    uint64_t count = 0;
    for (const char *at = text; *at != '\0'; count++) {
        if (*at == '\\') {
            char hex[3] = {at[2], at[3], '\0'};
            text[count] = (char)strtoul(hex, NULL, 16);
            at += 4;
        } else {
            text[count] = *at++;
        }
    }
    return count;
}

void qt_vocab_init_spm(struct qt_vocab *vocab, bool prefix)
{
    size_t size, lines = 0;
    char *file = qt_read_golden("spm.txt", &size);
    *vocab = (struct qt_vocab){.vocab = {.kind = QUIRE__VOCAB_SPM,
                                         .space_prefix = prefix,
                                         .bos = QUIRE__TOKEN_NONE,
                                         .eos = QUIRE__TOKEN_NONE,
                                         .eot = QUIRE__TOKEN_NONE},
                               .bytes = file};
    for (size_t i = 0; i < size; i++)
        lines += file[i] == '\n';
    vocab->tokens = qt_alloc(lines * sizeof(*vocab->tokens));
    vocab->types = qt_alloc(lines * sizeof(*vocab->types));
    vocab->scores = qt_alloc(lines * sizeof(*vocab->scores));
    for (char *line = file, *end; line < file + size; line = end + 1) {
        end = strchr(line, '\n');
        if (end == NULL)
            give_up("spm.txt", "a line is malformed");
        *end = '\0';
        char *score, *text;
        int32_t type = (int32_t)strtol(line, &score, 10);
        vocab->scores[vocab->vocab.token_count] = strtof(score, &text);
        if (*text != ' ')
            give_up("spm.txt", "a line is malformed");
        if (prefix && type == QUIRE__TOKEN_BYTE)
            type = QUIRE__TOKEN_CONTROL;
        add_token(vocab, text + 1, qt_unescape(text + 1), type);
    }
    vocab->vocab.tokens = vocab->tokens;
    vocab->vocab.types = vocab->types;
    vocab->vocab.scores = vocab->scores;
    vocab->vocab.type_count = vocab->vocab.score_count = vocab->vocab.token_count;
}

void qt_vocab_deinit(struct qt_vocab *vocab)
{
    qt_free(vocab->scores);
    qt_free(vocab->tokens);
    qt_free(vocab->types);
    qt_free(vocab->merges);
    qt_free(vocab->bytes);
}

uint32_t qt_vocab_find(const struct qt_vocab *vocab, const char *text)
{
    for (uint32_t i = 0; i < vocab->vocab.token_count; i++)
        if (vocab->tokens[i].count == strlen(text) &&
            memcmp(vocab->tokens[i].bytes, text, strlen(text)) == 0)
            return i;
    give_up("the vocabulary has no token", text);
}

void qt_vocab_replace(struct qt_vocab *vocab, const char *old_text, const char *text)
{
    vocab->tokens[qt_vocab_find(vocab, old_text)] = (struct quire__text){text, strlen(text)};
}
