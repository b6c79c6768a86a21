/* gguf.c - reader of GGUF v3 model files: checks the whole structure once, then only looks up.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: the map of the file, two arrays (keys, tensors) and their indices sorted by name. Their
 * sizes follow counts that the file states, so those are bounded first: by COUNT_MAX, and by the
 * bytes that so many entries would take in the file. Nothing else is allocated.
 *
 * Invariants of an open file:
 *   G1 every value, string, array element and tensor lies inside the bytes of the file
 *   G2 names of keys are unique, so are names of tensors; neither is empty or has control bytes
 *   G3 a boolean is 0 or 1; the elements of an array are of a known type and no arrays
 *   G4 the tensors' types are known, their data aligned, and each begins where the one before it
 *      and its padding end: what a damaged type or shape makes too large or too small is seen
 *
 * Source of the layout: the GGUF specification, version 3. */
#include "model/gguf.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define GGUF_VERSION      3u
#define ALIGNMENT_DEFAULT 32u    /* where the file has no general.alignment */
#define ALIGNMENT_MIN     8u     /* the specification: a multiple of 8 */
#define COUNT_MAX         65536u /* keys, tensors: the largest known models have a few thousand */
#define KEY_BYTES_MIN     14u    /* length 8, name 1, type 4, value 1 */
#define TENSOR_BYTES_MIN  33u    /* length 8, name 1, dimensions 4 + 8, type 4, offset 8 */

/* An entry of an index: the item-th key or tensor. */
struct name_ref {
    struct quire__gguf_string name;
    uint64_t item;
};

/* Where the data of the item-th tensor lies: relative to the data section, then to the file. */
struct span {
    uint64_t begin;
    uint64_t end;
    uint64_t item;
};

struct quire__gguf {
    struct quire__file_map map; /* {0} when the bytes are borrowed */
    uint64_t num_keys;
    uint64_t num_tensors;
    struct quire__gguf_key *keys;
    struct quire__gguf_tensor *tensors;
    struct name_ref *key_index; /* sorted by name */
    struct name_ref *tensor_index;
};

/* A walk over the file, and what a message needs to say where it failed. */
struct reader {
    const uint8_t *data;
    uint64_t size;
    uint64_t at;
    const char *file;
    const char *kind;               /* "header", "key" or "tensor" */
    struct quire__gguf_string item; /* the name of the key or tensor; {0} until it is known */
    struct quire_error *error;
};

struct type_row {
    uint32_t bytes; /* of one value; 0: it has no fixed size */
    const char *text;
};

static const struct type_row types[] = {
#define TYPE_ROW(name, value, bytes, text) [value] = {(bytes), (text)},
    QUIRE__GGUF_TYPE_LIST(TYPE_ROW)
#undef TYPE_ROW
};

/* ---- messages ---- */

#define FILE_SHOWN_MAX 64u /* of a long path its end says most */
#define NAME_SHOWN_MAX 48u

struct shown {
    char text[NAME_SHOWN_MAX + 4];
};

/* The name as a person can read it: bytes of a damaged file must not reach a terminal. */
static struct shown show(struct quire__gguf_string name)
{
    struct shown shown = {{0}};
    size_t n = name.size < NAME_SHOWN_MAX ? (size_t)name.size : NAME_SHOWN_MAX;
    for (size_t i = 0; i < n; i++)
        shown.text[i] = name.data[i] >= ' ' && name.data[i] <= '~' ? name.data[i] : '?';
    if (name.size > n)
        memcpy(shown.text + n, "...", 3);
    return shown;
}

/* Fails with "FILE: KIND 'NAME' at byte AT: DETAIL", and for CORRUPT what to do. */
QUIRE_PRINTF(3, 4)
static quire_status fail_at(const struct reader *r, quire_status status, const char *format, ...)
{
    char detail[QUIRE_ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(detail, sizeof detail, format, args);
    va_end(args);

    size_t n = strlen(r->file);
    bool cut = n > FILE_SHOWN_MAX;
    const char *quote = r->item.data != NULL ? "'" : "";
    struct shown name = show(r->item);
    return quire__fail(r->error, status, "%s%s: %s %s%s%s%sat byte %llu: %s%s", cut ? "..." : "",
                       r->file + (cut ? n - FILE_SHOWN_MAX : 0), r->kind, quote, name.text, quote,
                       r->item.data != NULL ? " " : "", (unsigned long long)r->at, detail,
                       status == QUIRE_E_CORRUPT ? "; the file is damaged, get it again" : "");
}

static quire_status fail_memory(const struct reader *r)
{
    return quire__fail(r->error, QUIRE_E_NOMEM, "%s: no memory to index the file", r->file);
}

/* ---- raw values ---- */

/* Little-endian, on any host. */
static uint64_t load(const uint8_t *p, uint32_t bytes)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < bytes; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static bool is_integer(uint32_t type)
{
    return type <= QUIRE__GGUF_I32 || type == QUIRE__GGUF_U64 || type == QUIRE__GGUF_I64;
}

static bool is_signed(uint32_t type)
{
    return type == QUIRE__GGUF_I8 || type == QUIRE__GGUF_I16 || type == QUIRE__GGUF_I32 ||
           type == QUIRE__GGUF_I64;
}

/* The value of an integer type, sign-extended to 64 bits. */
static uint64_t load_integer(uint32_t type, const uint8_t *p)
{
    uint64_t value = load(p, types[type].bytes);
    uint64_t sign = is_signed(type) ? (uint64_t)1 << (8 * types[type].bytes - 1) : 0;
    return (value ^ sign) - sign;
}

static quire_status load_float(uint32_t type, const uint8_t *p, float *value)
{
    if (type == QUIRE__GGUF_F32) {
        uint32_t bits = (uint32_t)load(p, 4);
        memcpy(value, &bits, sizeof bits);
        return QUIRE_OK;
    }
    if (type != QUIRE__GGUF_F64)
        return QUIRE_E_CORRUPT;
    uint64_t bits = load(p, 8);
    double wide;
    memcpy(&wide, &bits, sizeof bits);
    if (isfinite(wide) && fabs(wide) > (double)FLT_MAX)
        return QUIRE_E_CORRUPT;
    *value = (float)wide;
    return QUIRE_OK;
}

/* ---- the walk: every read is checked against the end of the file ---- */

/* The next bytes of the file, or NULL (then the error is CORRUPT). */
static const uint8_t *take(struct reader *r, uint64_t bytes, const char *what)
{
    if (bytes > r->size - r->at) {
        (void)fail_at(r, QUIRE_E_CORRUPT, "%s of %llu bytes passes the end of the file", what,
                      (unsigned long long)bytes);
        return NULL;
    }
    const uint8_t *p = r->data + r->at;
    r->at += bytes;
    return p;
}

static quire_status read_u32(struct reader *r, const char *what, uint32_t *value)
{
    const uint8_t *p = take(r, 4, what);
    if (p == NULL)
        return QUIRE_E_CORRUPT;
    *value = (uint32_t)load(p, 4);
    return QUIRE_OK;
}

static quire_status read_u64(struct reader *r, const char *what, uint64_t *value)
{
    const uint8_t *p = take(r, 8, what);
    if (p == NULL)
        return QUIRE_E_CORRUPT;
    *value = load(p, 8);
    return QUIRE_OK;
}

static quire_status read_string(struct reader *r, const char *what, struct quire__gguf_string *out)
{
    uint64_t size;
    if (read_u64(r, what, &size) != QUIRE_OK)
        return QUIRE_E_CORRUPT;
    const uint8_t *p = take(r, size, what);
    if (p == NULL)
        return QUIRE_E_CORRUPT;
    *out = (struct quire__gguf_string){(const char *)p, size};
    return QUIRE_OK;
}

/* Begins a key or a tensor: from here on messages name it. */
static quire_status read_name(struct reader *r, struct quire__gguf_string *name)
{
    r->item = (struct quire__gguf_string){0};
    quire_status status = read_string(r, "a name", name);
    if (status != QUIRE_OK)
        return status;
    r->item = *name;
    if (name->size == 0)
        return fail_at(r, QUIRE_E_CORRUPT, "the name is empty");
    for (uint64_t i = 0; i < name->size; i++) {
        uint8_t byte = (uint8_t)name->data[i];
        if (byte < ' ' || byte == 0x7f)
            return fail_at(r, QUIRE_E_CORRUPT, "the name has the control character 0x%02x", byte);
    }
    return QUIRE_OK;
}

/* ---- keys ---- */

/* Passes count values of a type of fixed size. */
static quire_status skip_values(struct reader *r, uint32_t type, uint64_t count)
{
    uint64_t bytes;
    if (!quire__mul_u64(count, types[type].bytes, &bytes))
        return fail_at(r, QUIRE_E_CORRUPT, "an array states %llu elements",
                       (unsigned long long)count);
    const uint8_t *p = take(r, bytes, "a value");
    if (p == NULL)
        return QUIRE_E_CORRUPT;
    for (uint64_t i = 0; type == QUIRE__GGUF_BOOL && i < count; i++) {
        if (p[i] > 1)
            return fail_at(r, QUIRE_E_CORRUPT, "a boolean is %u, not 0 or 1", p[i]);
    }
    return QUIRE_OK;
}

static quire_status skip_array(struct reader *r)
{
    uint32_t type;
    uint64_t count;
    quire_status status = read_u32(r, "an element type", &type);
    if (status == QUIRE_OK)
        status = read_u64(r, "an element count", &count);
    if (status != QUIRE_OK)
        return status;
    if (type >= QUIRE_ARRAY_LEN(types))
        return fail_at(r, QUIRE_E_CORRUPT, "unknown element type %u", type);
    if (type == QUIRE__GGUF_ARRAY)
        return fail_at(r, QUIRE_E_UNSUPPORTED, "an array of arrays; no supported model has one");
    if (type != QUIRE__GGUF_STRING)
        return skip_values(r, type, count);
    if (count > (r->size - r->at) / 8)
        return fail_at(r, QUIRE_E_CORRUPT, "%llu strings pass the end of the file",
                       (unsigned long long)count);
    for (uint64_t i = 0; i < count && status == QUIRE_OK; i++) {
        struct quire__gguf_string string;
        status = read_string(r, "a string", &string);
    }
    return status;
}

static quire_status read_key(struct reader *r, struct quire__gguf_key *key)
{
    quire_status status = read_name(r, &key->name);
    if (status == QUIRE_OK)
        status = read_u32(r, "a value type", &key->type);
    if (status != QUIRE_OK)
        return status;
    key->value = r->data + r->at;
    if (key->type >= QUIRE_ARRAY_LEN(types))
        return fail_at(r, QUIRE_E_CORRUPT, "unknown value type %u", key->type);
    if (key->type == QUIRE__GGUF_ARRAY)
        return skip_array(r);
    if (key->type != QUIRE__GGUF_STRING)
        return skip_values(r, key->type, 1);
    struct quire__gguf_string string;
    return read_string(r, "a string", &string);
}

/* ---- indices by name ---- */

static int compare_strings(struct quire__gguf_string a, struct quire__gguf_string b)
{
    uint64_t n = a.size < b.size ? a.size : b.size;
    int order = n != 0 ? memcmp(a.data, b.data, (size_t)n) : 0;
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

/* Equal names in the order of the file. */
static int compare_refs(const void *left, const void *right)
{
    const struct name_ref *a = left, *b = right;
    int order = compare_strings(a->name, b->name);
    return order != 0 ? order : (a->item > b->item) - (a->item < b->item);
}

/* Sorts, and refuses a name that comes twice. */
static quire_status sort_index(struct reader *r, struct name_ref *index, uint64_t count)
{
    qsort(index, (size_t)count, sizeof index[0], compare_refs);
    for (uint64_t i = 1; i < count; i++) {
        if (compare_strings(index[i - 1].name, index[i].name) == 0) {
            r->item = index[i].name;
            r->at = (uint64_t)((const uint8_t *)index[i].name.data - r->data);
            return fail_at(r, QUIRE_E_CORRUPT, "the %s comes twice, first at byte %llu", r->kind,
                           (unsigned long long)((const uint8_t *)index[i - 1].name.data - r->data));
        }
    }
    return QUIRE_OK;
}

/* The item of that name, or UINT64_MAX. */
static uint64_t find(const struct name_ref *index, uint64_t count, const char *name)
{
    struct quire__gguf_string wanted = {name, strlen(name)};
    uint64_t first = 0, end = count;
    while (first < end) {
        uint64_t middle = first + (end - first) / 2;
        int order = compare_strings(wanted, index[middle].name);
        if (order == 0)
            return index[middle].item;
        if (order < 0)
            end = middle;
        else
            first = middle + 1;
    }
    return UINT64_MAX;
}

static quire_status read_keys(struct quire__gguf *g, struct reader *r)
{
    g->keys = quire__calloc((size_t)g->num_keys, sizeof g->keys[0]);
    g->key_index = quire__calloc((size_t)g->num_keys, sizeof g->key_index[0]);
    if (g->keys == NULL || g->key_index == NULL)
        return fail_memory(r);
    r->kind = "key";
    for (uint64_t i = 0; i < g->num_keys; i++) {
        quire_status status = read_key(r, &g->keys[i]);
        if (status != QUIRE_OK)
            return status;
        g->key_index[i] = (struct name_ref){g->keys[i].name, i};
    }
    uint64_t end = r->at;
    quire_status status = sort_index(r, g->key_index, g->num_keys);
    r->at = end;
    return status;
}

/* ---- tensors ---- */

#define TYPE_TEXT(name, value, elements, bytes, text) " " text
static const char supported_types[] = QUIRE_WEIGHT_LIST(TYPE_TEXT);
#undef TYPE_TEXT

static quire_status read_shape(struct reader *r, struct quire__gguf_tensor *t)
{
    quire_status status = read_u32(r, "a number of dimensions", &t->num_dims);
    if (status != QUIRE_OK)
        return status;
    if (t->num_dims < 1 || t->num_dims > QUIRE__GGUF_DIMS_MAX)
        return fail_at(r, QUIRE_E_CORRUPT, "it states %u dimensions, not 1 to %u", t->num_dims,
                       (unsigned)QUIRE__GGUF_DIMS_MAX);
    for (uint32_t i = 0; i < QUIRE__GGUF_DIMS_MAX; i++)
        t->dims[i] = 1;
    for (uint32_t i = 0; i < t->num_dims; i++) {
        status = read_u64(r, "a dimension", &t->dims[i]);
        if (status != QUIRE_OK)
            return status;
        if (t->dims[i] == 0)
            return fail_at(r, QUIRE_E_CORRUPT, "dimension %u is 0", i);
    }
    status = read_u32(r, "a tensor type", &t->type);
    if (status == QUIRE_OK && quire_weight_name(t->type) == NULL)
        return fail_at(r, QUIRE_E_UNSUPPORTED, "unsupported type %u; convert the model to one of%s",
                       t->type, supported_types);
    return status;
}

static quire_status read_tensor(struct reader *r, struct quire__gguf_tensor *t, uint64_t *offset)
{
    quire_status status = read_name(r, &t->name);
    if (status == QUIRE_OK)
        status = read_shape(r, t);
    if (status != QUIRE_OK)
        return status;
    uint64_t rows, elements, wide;
    /* With room for 8 bytes an element, the sizes below cannot overflow. */
    if (!quire__mul_u64(t->dims[1], t->dims[2], &rows) ||
        !quire__mul_u64(rows, t->dims[3], &rows) || !quire__mul_u64(rows, t->dims[0], &elements) ||
        !quire__mul_u64(elements, 8, &wide))
        return fail_at(r, QUIRE_E_CORRUPT, "the product of its dimensions is over 64 bits");
    uint64_t row_bytes;
    if (quire_weight_row_bytes(t->type, t->dims[0], &row_bytes) != QUIRE_OK)
        return fail_at(r, QUIRE_E_CORRUPT, "%llu columns do not fill whole blocks of %s",
                       (unsigned long long)t->dims[0], quire_weight_name(t->type));
    QUIRE_CHECK(quire__mul_u64(row_bytes, rows, &t->bytes));
    return read_u64(r, "a data offset", offset);
}

static quire_status read_alignment(const struct quire__gguf *g, struct reader *r,
                                   uint64_t *alignment)
{
    static const char name[] = "general.alignment";
    *alignment = ALIGNMENT_DEFAULT;
    quire_status status = quire__gguf_u64(g, name, alignment);
    if (status == QUIRE_E_NOTFOUND)
        return QUIRE_OK;
    if (status == QUIRE_OK && *alignment >= ALIGNMENT_MIN && (*alignment & (*alignment - 1)) == 0)
        return QUIRE_OK;
    const struct quire__gguf_key *key = &g->keys[find(g->key_index, g->num_keys, name)];
    r->kind = "key";
    r->item = key->name;
    r->at = (uint64_t)(key->value - r->data);
    return fail_at(r, QUIRE_E_CORRUPT, "the value is not a power of two of at least %u",
                   ALIGNMENT_MIN);
}

static int compare_spans(const void *left, const void *right)
{
    const struct span *a = left, *b = right;
    return (a->begin > b->begin) - (a->begin < b->begin);
}

/* G4 of the tensors in order of their data. Ends are inside the file, so rounding them up does not
 * wrap. */
static quire_status check_neighbours(const struct quire__gguf *g, struct reader *r,
                                     const struct span *spans, uint64_t alignment)
{
    for (uint64_t i = 1; i < g->num_tensors; i++) {
        uint64_t end = spans[i - 1].end;
        if (spans[i].begin == quire__round_up(end, alignment))
            continue;
        r->item = g->tensors[spans[i].item].name;
        r->at = spans[i].begin;
        return fail_at(r, QUIRE_E_CORRUPT, "its data %s that of '%s'",
                       end > spans[i].begin ? "overlaps" : "leaves a gap behind",
                       show(g->tensors[spans[i - 1].item].name).text);
    }
    return QUIRE_OK;
}

/* Finds the data of every tensor; the walk stands behind the last tensor's description. */
static quire_status place_tensors(struct quire__gguf *g, struct reader *r, struct span *spans)
{
    uint64_t alignment, base;
    uint64_t end = r->at;
    quire_status status = read_alignment(g, r, &alignment);
    if (status != QUIRE_OK)
        return status;
    r->kind = "tensor";
    bool fits = quire__add_u64(end, alignment - 1, &base);
    base &= ~(alignment - 1);
    for (uint64_t i = 0; i < g->num_tensors; i++) {
        struct quire__gguf_tensor *t = &g->tensors[i];
        struct span *span = &spans[i];
        r->item = t->name;
        r->at = (uint64_t)((const uint8_t *)t->name.data - r->data);
        if (span->begin % alignment != 0)
            return fail_at(r, QUIRE_E_CORRUPT,
                           "its data offset %llu is not a multiple of the alignment %llu",
                           (unsigned long long)span->begin, (unsigned long long)alignment);
        if (!fits || !quire__add_u64(base, span->begin, &span->begin) ||
            !quire__add_u64(span->begin, t->bytes, &span->end) || span->end > r->size)
            return fail_at(r, QUIRE_E_CORRUPT, "its data of %llu bytes passes the end of the file",
                           (unsigned long long)t->bytes);
        t->data = r->data + span->begin;
    }
    qsort(spans, (size_t)g->num_tensors, sizeof spans[0], compare_spans);
    return check_neighbours(g, r, spans, alignment);
}

static quire_status read_tensors(struct quire__gguf *g, struct reader *r)
{
    quire_status status = QUIRE_OK;
    struct span *spans = quire__calloc((size_t)g->num_tensors, sizeof spans[0]);
    g->tensors = quire__calloc((size_t)g->num_tensors, sizeof g->tensors[0]);
    g->tensor_index = quire__calloc((size_t)g->num_tensors, sizeof g->tensor_index[0]);
    if (spans == NULL || g->tensors == NULL || g->tensor_index == NULL)
        status = fail_memory(r);
    r->kind = "tensor";
    for (uint64_t i = 0; i < g->num_tensors && status == QUIRE_OK; i++) {
        spans[i].item = i;
        status = read_tensor(r, &g->tensors[i], &spans[i].begin);
        if (status == QUIRE_OK)
            g->tensor_index[i] = (struct name_ref){g->tensors[i].name, i};
    }
    uint64_t end = r->at;
    if (status == QUIRE_OK)
        status = sort_index(r, g->tensor_index, g->num_tensors);
    r->at = end;
    if (status == QUIRE_OK)
        status = place_tensors(g, r, spans);
    quire__free(spans);
    return status;
}

/* ---- opening ---- */

static quire_status check_version(const struct reader *r, uint32_t version)
{
    if (version == GGUF_VERSION)
        return QUIRE_OK;
    uint32_t swapped = __builtin_bswap32(version);
    if (swapped != 0 && swapped <= UINT16_MAX)
        return quire__fail(r->error, QUIRE_E_UNSUPPORTED,
                           "%s: a big-endian GGUF file; convert the model to little-endian",
                           r->file);
    return quire__fail(r->error, QUIRE_E_VERSION,
                       "%s: GGUF version %u, but only version %u is supported; convert the model",
                       r->file, version, GGUF_VERSION);
}

static quire_status check_count(const struct reader *r, const char *what, uint64_t count,
                                uint32_t bytes_min)
{
    uint64_t fit = r->size / bytes_min;
    if (fit > COUNT_MAX)
        fit = COUNT_MAX;
    if (count > fit)
        return fail_at(r, QUIRE_E_CORRUPT, "it states %llu %s, but at most %llu fit",
                       (unsigned long long)count, what, (unsigned long long)fit);
    return QUIRE_OK;
}

static quire_status read_header(struct quire__gguf *g, struct reader *r)
{
    static const char magic[] = {'G', 'G', 'U', 'F'};
    if (r->size == 0)
        return quire__fail(r->error, QUIRE_E_CORRUPT, "%s: the file is empty, get it again",
                           r->file);
    if (memcmp(r->data, magic, r->size < 4 ? (size_t)r->size : 4) != 0)
        return quire__fail(r->error, QUIRE_E_CORRUPT,
                           "%s: not a GGUF file; give a model in the GGUF format", r->file);
    uint32_t word, version;
    quire_status status = read_u32(r, "the magic", &word);
    if (status == QUIRE_OK)
        status = read_u32(r, "the version", &version);
    if (status == QUIRE_OK)
        status = check_version(r, version);
    if (status == QUIRE_OK)
        status = read_u64(r, "the number of tensors", &g->num_tensors);
    if (status == QUIRE_OK)
        status = read_u64(r, "the number of keys", &g->num_keys);
    if (status == QUIRE_OK)
        status = check_count(r, "tensors", g->num_tensors, TENSOR_BYTES_MIN);
    if (status == QUIRE_OK)
        status = check_count(r, "keys", g->num_keys, KEY_BYTES_MIN);
    return status;
}

quire_status quire__gguf_parse(const uint8_t *data, uint64_t size, const char *name,
                               struct quire__gguf **out, struct quire_error *error)
{
    struct reader r = {.data = data, .size = size, .file = name, .kind = "header", .error = error};
    struct quire__gguf *g = quire__calloc(1, sizeof *g);
    if (g == NULL)
        return fail_memory(&r);
    quire_status status = read_header(g, &r);
    if (status == QUIRE_OK)
        status = read_keys(g, &r);
    if (status == QUIRE_OK)
        status = read_tensors(g, &r);
    if (status != QUIRE_OK) {
        quire__gguf_close(g);
        return status;
    }
    *out = g;
    return QUIRE_OK;
}

quire_status quire__gguf_open(const char *path, struct quire__gguf **out, struct quire_error *error)
{
    struct quire__file_map map;
    quire_status status = quire__file_map(path, &map, error);
    if (status != QUIRE_OK)
        return status;
    status = quire__gguf_parse(map.data, map.size, path, out, error);
    if (status == QUIRE_OK)
        (*out)->map = map;
    else
        quire__file_unmap(&map);
    return status;
}

void quire__gguf_close(struct quire__gguf *gguf)
{
    if (gguf == NULL)
        return;
    quire__free(gguf->keys);
    quire__free(gguf->key_index);
    quire__free(gguf->tensors);
    quire__free(gguf->tensor_index);
    quire__file_unmap(&gguf->map);
    quire__free(gguf);
}

/* ---- lookups ---- */

static quire_status find_key(const struct quire__gguf *g, const char *name,
                             const struct quire__gguf_key **key)
{
    uint64_t item = find(g->key_index, g->num_keys, name);
    if (item == UINT64_MAX)
        return QUIRE_E_NOTFOUND;
    *key = &g->keys[item];
    return QUIRE_OK;
}

quire_status quire__gguf_u64(const struct quire__gguf *gguf, const char *key, uint64_t *value)
{
    const struct quire__gguf_key *k;
    quire_status status = find_key(gguf, key, &k);
    if (status != QUIRE_OK)
        return status;
    if (!is_integer(k->type))
        return QUIRE_E_CORRUPT;
    uint64_t found = load_integer(k->type, k->value);
    if (is_signed(k->type) && found > INT64_MAX)
        return QUIRE_E_CORRUPT;
    *value = found;
    return QUIRE_OK;
}

quire_status quire__gguf_f32(const struct quire__gguf *gguf, const char *key, float *value)
{
    const struct quire__gguf_key *k;
    quire_status status = find_key(gguf, key, &k);
    return status == QUIRE_OK ? load_float(k->type, k->value, value) : status;
}

quire_status quire__gguf_bool(const struct quire__gguf *gguf, const char *key, bool *value)
{
    const struct quire__gguf_key *k;
    quire_status status = find_key(gguf, key, &k);
    if (status != QUIRE_OK)
        return status;
    if (k->type != QUIRE__GGUF_BOOL)
        return QUIRE_E_CORRUPT;
    *value = k->value[0] != 0;
    return QUIRE_OK;
}

quire_status quire__gguf_str(const struct quire__gguf *gguf, const char *key,
                             struct quire__gguf_string *value)
{
    const struct quire__gguf_key *k;
    quire_status status = find_key(gguf, key, &k);
    if (status != QUIRE_OK)
        return status;
    if (k->type != QUIRE__GGUF_STRING)
        return QUIRE_E_CORRUPT;
    *value = (struct quire__gguf_string){(const char *)k->value + 8, load(k->value, 8)};
    return QUIRE_OK;
}

quire_status quire__gguf_array(const struct quire__gguf *gguf, const char *key,
                               struct quire__gguf_array *value)
{
    const struct quire__gguf_key *k;
    quire_status status = find_key(gguf, key, &k);
    if (status != QUIRE_OK)
        return status;
    if (k->type != QUIRE__GGUF_ARRAY)
        return QUIRE_E_CORRUPT;
    *value = (struct quire__gguf_array){
        (uint32_t)load(k->value, 4),
        load(k->value + 4, 8),
        k->value + 12,
    };
    return QUIRE_OK;
}

uint64_t quire__gguf_key_count(const struct quire__gguf *gguf)
{
    return gguf->num_keys;
}

const struct quire__gguf_key *quire__gguf_key_at(const struct quire__gguf *gguf, uint64_t index)
{
    QUIRE_CHECK(index < gguf->num_keys);
    return &gguf->keys[index];
}

const char *quire__gguf_type_name(uint32_t type)
{
    return type < QUIRE_ARRAY_LEN(types) ? types[type].text : "unknown";
}

quire_status quire__gguf_array_i64(const struct quire__gguf_array *array, uint64_t index,
                                   int64_t *value)
{
    if (index >= array->count)
        return QUIRE_E_INVAL;
    if (!is_integer(array->type))
        return QUIRE_E_CORRUPT;
    uint64_t found = load_integer(array->type, array->data + index * types[array->type].bytes);
    if (!is_signed(array->type) && found > INT64_MAX)
        return QUIRE_E_CORRUPT;
    *value = (int64_t)found;
    return QUIRE_OK;
}

quire_status quire__gguf_array_f32(const struct quire__gguf_array *array, uint64_t index,
                                   float *value)
{
    if (index >= array->count)
        return QUIRE_E_INVAL;
    return load_float(array->type, array->data + index * types[array->type].bytes, value);
}

struct quire__gguf_strings quire__gguf_strings(const struct quire__gguf_array *array)
{
    bool strings = array->type == QUIRE__GGUF_STRING;
    return (struct quire__gguf_strings){array->data, strings ? array->count : 0};
}

bool quire__gguf_next_string(struct quire__gguf_strings *strings, struct quire__gguf_string *value)
{
    if (strings->left == 0)
        return false;
    *value = (struct quire__gguf_string){(const char *)strings->next + 8, load(strings->next, 8)};
    strings->next += 8 + value->size;
    strings->left--;
    return true;
}

const struct quire__gguf_tensor *quire__gguf_find_tensor(const struct quire__gguf *gguf,
                                                         const char *name)
{
    uint64_t item = find(gguf->tensor_index, gguf->num_tensors, name);
    return item != UINT64_MAX ? &gguf->tensors[item] : NULL;
}

void quire__gguf_forget(const struct quire__gguf *gguf, const struct quire__gguf_tensor *tensor,
                        uint64_t from, uint64_t to)
{
    if (gguf->map.data != NULL)
        quire__file_forget(&gguf->map, (uint64_t)(tensor->data - gguf->map.data) + from, to - from);
}

uint64_t quire__gguf_tensor_count(const struct quire__gguf *gguf)
{
    return gguf->num_tensors;
}

const struct quire__gguf_tensor *quire__gguf_tensor_at(const struct quire__gguf *gguf,
                                                       uint64_t index)
{
    QUIRE_CHECK(index < gguf->num_tensors);
    return &gguf->tensors[index];
}
