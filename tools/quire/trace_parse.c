/* trace_parse.c - reads the text of a trace: docs/formats/trace.md.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All tokens lie one after the other in one array that grows, so segments and requests are places
 * in it until everything is read. */
#include <string.h>

#include "base/base.h"
#include "model/utf8.h"
#include "quire/trace.h"

enum {
    LINE_BYTES_MAX = 1 << 20,
    ENTRIES_MAX = 1 << 20, /* segments, and requests */
    NAME_BYTES_MAX = 63,
    QUOTE_BYTES = 48,
    VOCABULARY_DEFAULT = 65536,
    TIME_DECIMALS = 6,
};

struct word {
    const char *data;
    size_t size;
};

struct span {
    uint64_t first, count; /* in parser.tokens */
};

/* A name stands in the text of the trace. */
struct named {
    char sigil; /* '=' of a segment, '@' of a request */
    struct word name;
    struct span span;
};

struct parser {
    const char *file;
    uint64_t line;
    struct quire_error *error;
    uint32_t vocabulary;
    bool has_vocabulary;
    uint32_t *tokens; /* [num_tokens] */
    uint64_t num_tokens, max_tokens;
    struct named *names; /* [num_names] */
    uint32_t num_names, max_names;
    uint32_t *table; /* [table_size] places in names, plus 1; 0 is empty. A power of two */
    uint64_t table_size;
    struct trace_request *requests; /* [num_requests] */
    struct span *spans;             /* [num_requests] their tokens */
    uint32_t num_requests, max_requests;
};

/* ---- messages ---- */

static quire_status wrong(const struct parser *p, struct word what, const char *expected)
{
    char quoted[QUOTE_BYTES];
    return quire__fail(p->error, QUIRE_E_INVAL, "%s:%llu: \"%s\": expected %s", p->file,
                       (unsigned long long)p->line,
                       quire__quote(what.data, what.size, quoted, sizeof quoted), expected);
}

static quire_status no_memory(const struct parser *p)
{
    return quire__fail(p->error, QUIRE_E_NOMEM, "no memory for the trace %s", p->file);
}

static quire_status over(const struct parser *p, const char *limit)
{
    return quire__fail(p->error, QUIRE_E_LIMIT, "%s:%llu: the trace is too large: expected %s",
                       p->file, (unsigned long long)p->line, limit);
}

/* Makes room for one more item; false when there is no memory. */
static bool grow(void **items, uint32_t count, uint32_t *max, size_t item_bytes)
{
    if (count < *max)
        return true;
    uint32_t wanted = *max == 0 ? 64 : *max * 2;
    void *grown = quire__realloc(*items, wanted * item_bytes);
    if (grown == NULL)
        return false;
    *items = grown;
    *max = wanted;
    return true;
}

/* ---- words and numbers ---- */

static bool equals(struct word word, const char *text)
{
    return word.size == strlen(text) && memcmp(word.data, text, word.size) == 0;
}

/* Cuts what lies before the first `sign` off *rest; the whole of it where there is none. Says
 * whether there was one. */
static bool cut(struct word *rest, char sign, struct word *before)
{
    const char *at = rest->size > 0 ? memchr(rest->data, sign, rest->size) : NULL;
    size_t size = at != NULL ? (size_t)(at - rest->data) : rest->size;
    *before = (struct word){rest->data, size};
    size += at != NULL;
    *rest = (struct word){rest->data + size, rest->size - size};
    return at != NULL;
}

/* The next word of a line; of size 0 at its end, which a comment is too. */
static struct word next_word(struct word *line)
{
    while (line->size > 0 && (*line->data == ' ' || *line->data == '\t')) {
        line->data++;
        line->size--;
    }
    struct word word = {line->data, 0};
    if (line->size > 0 && *line->data == '#')
        line->size = 0;
    while (word.size < line->size && word.data[word.size] != ' ' && word.data[word.size] != '\t')
        word.size++;
    line->data += word.size;
    line->size -= word.size;
    return word;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool read_number(struct word word, uint64_t max, uint64_t *value)
{
    uint64_t number = 0;
    for (size_t i = 0; i < word.size; i++) {
        if (!is_digit(word.data[i]) || !quire__mul_u64(number, 10, &number) ||
            !quire__add_u64(number, (uint64_t)(word.data[i] - '0'), &number))
            return false;
    }
    *value = number;
    return word.size > 0 && number <= max;
}

/* Seconds with up to six decimals, as microseconds. */
static bool read_time(struct word word, uint64_t *us)
{
    struct word whole;
    uint64_t seconds = 0, part = 0;
    bool has_part = cut(&word, '.', &whole);
    if (!read_number(whole, UINT32_MAX, &seconds) || word.size > TIME_DECIMALS ||
        (has_part && !read_number(word, UINT64_MAX, &part)))
        return false;
    for (size_t i = has_part ? word.size : 0; i < TIME_DECIMALS; i++)
        part *= 10;
    *us = seconds * 1000000u + part;
    return true;
}

static bool is_name(struct word word)
{
    if (word.size == 0 || word.size > NAME_BYTES_MAX || !is_letter(word.data[0]))
        return false;
    for (size_t i = 1; i < word.size; i++) {
        char c = word.data[i];
        if (!is_letter(c) && !is_digit(c) && c != '_' && c != '-' && c != '.')
            return false;
    }
    return true;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* ---- names ---- */

/* The slot of the table where a name is, or belongs. */
static uint32_t *name_slot(const struct parser *p, char sigil, struct word name)
{
    uint64_t hash = (unsigned char)sigil;
    for (size_t i = 0; i < name.size; i++)
        hash = mix(hash ^ (unsigned char)name.data[i]);
    for (;; hash++) {
        uint32_t *slot = &p->table[hash & (p->table_size - 1)];
        if (*slot == 0)
            return slot;
        const struct named *there = &p->names[*slot - 1];
        if (there->sigil == sigil && there->name.size == name.size &&
            memcmp(there->name.data, name.data, name.size) == 0)
            return slot;
    }
}

static quire_status widen_table(struct parser *p)
{
    if (p->num_names + 1u < p->table_size / 2)
        return QUIRE_OK;
    uint32_t *before = p->table;
    uint64_t size = p->table_size == 0 ? 128 : p->table_size * 2;
    p->table = quire__calloc(size, sizeof *p->table);
    if (p->table == NULL) {
        p->table = before;
        return no_memory(p);
    }
    p->table_size = size;
    quire__free(before);
    for (uint32_t i = 0; i < p->num_names; i++)
        *name_slot(p, p->names[i].sigil, p->names[i].name) = i + 1;
    return QUIRE_OK;
}

static quire_status check_new_name(struct parser *p, char sigil, struct word name)
{
    if (!is_name(name))
        return wrong(p, name,
                     "a name of 1 to 63 letters, digits, _, - and . that begins with a letter");
    quire_status status = widen_table(p);
    if (status == QUIRE_OK && *name_slot(p, sigil, name) != 0)
        status = wrong(p, name, "a name that is not used yet");
    return status;
}

static quire_status add_name(struct parser *p, char sigil, struct word name, struct span span)
{
    if (!grow((void **)&p->names, p->num_names, &p->max_names, sizeof *p->names))
        return no_memory(p);
    p->names[p->num_names++] = (struct named){sigil, name, span};
    *name_slot(p, sigil, name) = p->num_names;
    return QUIRE_OK;
}

static const struct named *find_name(const struct parser *p, char sigil, struct word name)
{
    if (!is_name(name) || p->table_size == 0)
        return NULL;
    uint32_t place = *name_slot(p, sigil, name);
    return place != 0 ? &p->names[place - 1] : NULL;
}

/* ---- tokens ---- */

/* Makes room for `count` more tokens, which the caller then fills. */
static quire_status add_tokens(struct parser *p, uint64_t count, uint32_t **out)
{
    if (count > TRACE_TOKENS_MAX - p->num_tokens)
        return over(p, "at most 2^26 tokens in all segments and requests");
    uint64_t wanted = p->num_tokens + count;
    if (wanted > p->max_tokens) {
        uint64_t max = p->max_tokens * 2 > wanted ? p->max_tokens * 2 : wanted + 4096;
        uint32_t *tokens = quire__realloc(p->tokens, max * sizeof *tokens);
        if (tokens == NULL)
            return no_memory(p);
        p->tokens = tokens;
        p->max_tokens = max;
    }
    *out = p->tokens + p->num_tokens;
    p->num_tokens = wanted;
    return QUIRE_OK;
}

static quire_status add_stream(struct parser *p, uint64_t stream, uint64_t skip, uint64_t count)
{
    uint32_t *tokens = NULL;
    quire_status status = add_tokens(p, count, &tokens);
    for (uint64_t i = 0; i < count && status == QUIRE_OK; i++)
        tokens[i] = (uint32_t)((mix(mix(stream) + skip + i) >> 32) * p->vocabulary >> 32);
    return status;
}

/* 17, 17..40, 17*500 */
static quire_status add_numbers(struct parser *p, struct word part)
{
    static const char expected[] = "TOKEN, FIRST..LAST or TOKEN*COUNT, of tokens in the vocabulary";
    struct word rest = part, number;
    uint64_t first = 0, last = 0, count = 1;
    uint32_t *tokens = NULL;
    bool repeats = cut(&rest, '*', &number);
    if (!repeats)
        rest = number;
    if (repeats) {
        if (!read_number(number, UINT32_MAX, &first) || !read_number(rest, UINT64_MAX, &count) ||
            count == 0)
            return wrong(p, part, expected);
        last = first;
    } else {
        bool ranges = cut(&rest, '.', &number);
        if (!read_number(number, UINT32_MAX, &first))
            return wrong(p, part, expected);
        last = first;
        if (ranges) {
            struct word nothing;
            if (!cut(&rest, '.', &nothing) || nothing.size > 0 ||
                !read_number(rest, UINT32_MAX, &last) || last < first)
                return wrong(p, part, expected);
            count = last - first + 1;
        }
    }
    if (last >= p->vocabulary)
        return wrong(p, part, "tokens below the vocabulary (the vocab line, or 65536)");
    quire_status status = add_tokens(p, count, &tokens);
    for (uint64_t i = 0; i < count && status == QUIRE_OK; i++)
        tokens[i] = (uint32_t)(repeats ? first : first + i);
    return status;
}

/* ~5:1200, ~5+300:40 */
static quire_status add_made_up(struct parser *p, struct word part)
{
    struct word rest = {part.data + 1, part.size - 1}, head, stream;
    uint64_t number = 0, skip = 0, count = 0;
    bool counted = cut(&rest, ':', &head);
    bool skips = cut(&head, '+', &stream);
    if (!counted || !read_number(stream, INT64_MAX, &number) ||
        (skips && !read_number(head, INT64_MAX, &skip)) || !read_number(rest, UINT64_MAX, &count) ||
        count == 0)
        return wrong(p, part, "~STREAM:COUNT or ~STREAM+SKIPPED:COUNT");
    return add_stream(p, number, skip, count);
}

/* NAME, @NAME, @NAME:900 */
static quire_status add_named(struct parser *p, struct word part)
{
    bool earlier = part.data[0] == '@';
    struct word rest = {part.data + earlier, part.size - earlier}, name = rest;
    uint64_t count = 0;
    bool cuts = earlier && cut(&rest, ':', &name);
    const struct named *named = find_name(p, earlier ? '@' : '=', name);
    if (named == NULL)
        return wrong(p, part,
                     earlier ? "@NAME or @NAME:COUNT with the id of a request above"
                             : "tokens: a number, the name of a segment above, ~ or @");
    if (!cuts)
        count = named->span.count;
    else if (!read_number(rest, named->span.count, &count) || count == 0)
        return wrong(p, part, "@NAME:COUNT with at least 1 and at most the tokens of that request");
    const uint64_t first = named->span.first;
    uint32_t *tokens = NULL;
    quire_status status = add_tokens(p, count, &tokens);
    if (status == QUIRE_OK)
        memcpy(tokens, p->tokens + first, count * sizeof *tokens);
    return status;
}

/* Parts with commas between them; *span is where they are. */
static quire_status read_tokens(struct parser *p, struct word list, struct span *span)
{
    quire_status status = QUIRE_OK;
    bool more = true;
    span->first = p->num_tokens;
    while (more && status == QUIRE_OK) {
        struct word part;
        more = cut(&list, ',', &part);
        if (part.size > 0 && is_digit(part.data[0]))
            status = add_numbers(p, part);
        else if (part.size > 0 && part.data[0] == '~')
            status = add_made_up(p, part);
        else if (part.size > 0 && (part.data[0] == '@' || is_letter(part.data[0])))
            status = add_named(p, part);
        else
            status = wrong(p, part, "tokens: a number, the name of a segment above, ~ or @");
    }
    span->count = p->num_tokens - span->first;
    return status;
}

/* ---- lines ---- */

static quire_status read_vocab(struct parser *p, struct word line)
{
    struct word word = next_word(&line), more = next_word(&line);
    uint64_t number = 0;
    if (!read_number(word, UINT32_MAX, &number) || number == 0 || more.size > 0)
        return wrong(p, more.size > 0 ? more : word, "vocab N with a number from 1 to 2^32 - 1");
    if (p->has_vocabulary || p->num_names > 0 || p->num_requests > 0)
        return wrong(p, word, "one vocab line, before segments and requests");
    p->has_vocabulary = true;
    p->vocabulary = (uint32_t)number;
    return QUIRE_OK;
}

static quire_status read_segment(struct parser *p, struct word line)
{
    struct word name = next_word(&line), list = next_word(&line), more = next_word(&line);
    struct span span;
    if (list.size == 0 || more.size > 0)
        return wrong(p, more.size > 0 ? more : name, "segment NAME TOKENS");
    if (p->num_names == 2 * ENTRIES_MAX)
        return over(p, "at most 2^20 segments");
    quire_status status = check_new_name(p, '=', name);
    if (status == QUIRE_OK)
        status = read_tokens(p, list, &span);
    return status == QUIRE_OK ? add_name(p, '=', name, span) : status;
}

/* The words of a request. */
enum key { KEY_AT, KEY_IN, KEY_OUT, KEY_GEN, KEY_ID, KEY_SALT, KEY_ADAPTER, NUM_KEYS };
static const char *const keys[NUM_KEYS] = {"at", "in", "out", "gen", "id", "salt", "adapter"};
static const char request_form[] =
    "request at=TIME in=TOKENS, out=TOKENS or gen=N, and perhaps id=, salt=, adapter=";

static quire_status split_request(struct parser *p, struct word line, struct word values[NUM_KEYS])
{
    for (struct word word = next_word(&line); word.size > 0; word = next_word(&line)) {
        struct word value = word, key;
        uint32_t i = 0;
        if (!cut(&value, '=', &key))
            return wrong(p, word, request_form);
        while (i < NUM_KEYS && !equals(key, keys[i]))
            i++;
        if (i == NUM_KEYS)
            return wrong(p, word, request_form);
        if (values[i].data != NULL)
            return wrong(p, word, "each word of a request once");
        values[i] = value;
    }
    if (values[KEY_AT].data == NULL || values[KEY_IN].data == NULL ||
        (values[KEY_OUT].data == NULL) == (values[KEY_GEN].data == NULL))
        return wrong(p, (struct word){"request", 7}, request_form);
    return QUIRE_OK;
}

static quire_status read_facts(struct parser *p, const struct word values[NUM_KEYS],
                               struct trace_request *request)
{
    uint64_t before = p->num_requests > 0 ? p->requests[p->num_requests - 1].at_us : 0;
    if (!read_time(values[KEY_AT], &request->at_us))
        return wrong(p, values[KEY_AT], "a time in seconds below 2^32, with up to six decimals");
    if (request->at_us < before)
        return wrong(p, values[KEY_AT], "a time not before that of the request above");
    if (values[KEY_SALT].data != NULL && !read_number(values[KEY_SALT], UINT64_MAX, &request->salt))
        return wrong(p, values[KEY_SALT], "a salt from 0 to 2^64 - 1");
    if (values[KEY_ADAPTER].data != NULL &&
        !read_number(values[KEY_ADAPTER], UINT64_MAX, &request->adapter))
        return wrong(p, values[KEY_ADAPTER], "an adapter from 0 to 2^64 - 1");
    return values[KEY_ID].data != NULL ? check_new_name(p, '@', values[KEY_ID]) : QUIRE_OK;
}

static quire_status read_answer(struct parser *p, const struct word values[NUM_KEYS],
                                struct span *answer)
{
    if (values[KEY_OUT].data != NULL)
        return read_tokens(p, values[KEY_OUT], answer);
    uint64_t count = 0;
    if (!read_number(values[KEY_GEN], UINT64_MAX, &count))
        return wrong(p, values[KEY_GEN], "a number of tokens");
    answer->count = count;
    return add_stream(p, (UINT64_C(1) << 63) + p->num_requests, 0, count);
}

static quire_status read_request(struct parser *p, struct word line)
{
    struct word values[NUM_KEYS] = {{NULL, 0}};
    struct trace_request request = {0};
    struct span prompt = {0}, answer = {0};
    if (p->num_requests == ENTRIES_MAX)
        return over(p, "at most 2^20 requests");
    quire_status status = split_request(p, line, values);
    if (status == QUIRE_OK)
        status = read_facts(p, values, &request);
    if (status == QUIRE_OK)
        status = read_tokens(p, values[KEY_IN], &prompt);
    if (status == QUIRE_OK)
        status = read_answer(p, values, &answer);
    if (status != QUIRE_OK)
        return status;
    uint32_t max = p->max_requests;
    if (!grow((void **)&p->requests, p->num_requests, &max, sizeof *p->requests) ||
        !grow((void **)&p->spans, p->num_requests, &p->max_requests, sizeof *p->spans))
        return no_memory(p);
    request.num_prompt = (uint32_t)prompt.count;
    request.num_output = (uint32_t)answer.count;
    const struct span whole = {prompt.first, prompt.count + answer.count};
    p->requests[p->num_requests] = request;
    p->spans[p->num_requests++] = whole;
    return values[KEY_ID].data != NULL ? add_name(p, '@', values[KEY_ID], whole) : QUIRE_OK;
}

static quire_status read_line(struct parser *p, struct word line)
{
    if (p->line == 1)
        return equals(line, "quire-trace 1") ? QUIRE_OK
                                             : wrong(p, line, "quire-trace 1 as the first line");
    struct word first = next_word(&line);
    if (first.size == 0)
        return QUIRE_OK;
    if (equals(first, "vocab"))
        return read_vocab(p, line);
    if (equals(first, "segment"))
        return read_segment(p, line);
    if (equals(first, "request"))
        return read_request(p, line);
    return wrong(p, first, "vocab, segment, request or a comment");
}

static quire_status read_lines(struct parser *p, struct word text)
{
    quire_status status = QUIRE_OK;
    do {
        struct word line;
        (void)cut(&text, '\n', &line);
        p->line++;
        if (line.size > LINE_BYTES_MAX)
            return over(p, "lines of at most 1 MiB");
        if (line.size > 0 && line.data[line.size - 1] == '\r')
            line.size--;
        if (line.size > 0 && memchr(line.data, '\0', line.size) != NULL)
            return wrong(p, line, "text without NUL bytes");
        status = read_line(p, line);
    } while (status == QUIRE_OK && text.size > 0);
    return status;
}

quire_status trace_parse(const char *name, const char *text, uint64_t bytes, struct trace *out,
                         struct quire_error *error)
{
    struct parser p = {.file = name, .error = error, .vocabulary = VOCABULARY_DEFAULT};
    *out = (struct trace){0};
    quire_status status = read_lines(&p, (struct word){bytes > 0 ? text : "", bytes});
    quire__free(p.names);
    quire__free(p.table);
    if (status != QUIRE_OK) {
        quire__free(p.tokens);
        quire__free(p.requests);
        quire__free(p.spans);
        return status;
    }
    *out = (struct trace){.vocabulary = p.vocabulary,
                          .tokens = p.tokens,
                          .requests = p.requests,
                          .num_requests = p.num_requests};
    for (uint32_t i = 0; i < p.num_requests; i++) {
        p.requests[i].tokens = p.tokens + p.spans[i].first;
        if (p.spans[i].count > out->longest)
            out->longest = (uint32_t)p.spans[i].count;
    }
    quire__free(p.spans);
    return QUIRE_OK;
}

void trace_deinit(struct trace *trace)
{
    quire__free(trace->requests);
    quire__free(trace->tokens);
    *trace = (struct trace){0};
}
