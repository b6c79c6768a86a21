/* gguf.h - reader of GGUF v3 model files: keys and tensors, straight out of the file's bytes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything a lookup returns (names, strings, arrays, tensor data) is borrowed from the mapped
 * file and lives until quire__gguf_close: nothing of the file is copied. The whole structure is
 * checked on opening, so a reader of what the lookups return needs no bounds checks of its own.
 * What the values mean (an architecture, a vocabulary, shapes) is the caller's to check, floats
 * included: they may be infinite or not a number.
 *
 * An open file is immutable: any number of threads may read it. Source of the layout: the GGUF
 * specification, version 3, little-endian. */
#ifndef QUIRE_MODEL_GGUF_H
#define QUIRE_MODEL_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include <quire/types.h>

#define QUIRE__GGUF_DIMS_MAX 4

/* Types of a key's value. X(name, number in the file, bytes of one value or 0, text) */
#define QUIRE__GGUF_TYPE_LIST(X)                                                                   \
    X(U8, 0, 1, "u8")                                                                              \
    X(I8, 1, 1, "i8")                                                                              \
    X(U16, 2, 2, "u16")                                                                            \
    X(I16, 3, 2, "i16")                                                                            \
    X(U32, 4, 4, "u32")                                                                            \
    X(I32, 5, 4, "i32")                                                                            \
    X(F32, 6, 4, "f32")                                                                            \
    X(BOOL, 7, 1, "bool")                                                                          \
    X(STRING, 8, 0, "string")                                                                      \
    X(ARRAY, 9, 0, "array")                                                                        \
    X(U64, 10, 8, "u64")                                                                           \
    X(I64, 11, 8, "i64")                                                                           \
    X(F64, 12, 8, "f64")

enum quire__gguf_type {
#define QUIRE__GGUF_TYPE_ENUM(name, value, bytes, text) QUIRE__GGUF_##name = (value),
    QUIRE__GGUF_TYPE_LIST(QUIRE__GGUF_TYPE_ENUM)
#undef QUIRE__GGUF_TYPE_ENUM
};

struct quire__gguf; /* an open file */

/* Bytes of the file; not NUL-terminated, and any bytes at all in a value. */
struct quire__gguf_string {
    const char *data;
    uint64_t size;
};

struct quire__gguf_key {
    struct quire__gguf_string name; /* not empty, no control characters */
    uint32_t type;                  /* enum quire__gguf_type */
    const uint8_t *value;           /* raw, unaligned: read it through the lookups below */
};

/* An array value. Elements are read with the functions below. */
struct quire__gguf_array {
    uint32_t type; /* of the elements; never ARRAY */
    uint64_t count;
    const uint8_t *data; /* raw, unaligned */
};

struct quire__gguf_tensor {
    struct quire__gguf_string name; /* not empty, no control characters */
    uint32_t type;                  /* enum quire_weight_type */
    uint32_t num_dims;              /* 1 .. 4 */
    /* dims[0]: columns, adjacent in memory and a multiple of the type's block; dims[1]: rows. None
     * is 0, unused ones are 1. */
    uint64_t dims[QUIRE__GGUF_DIMS_MAX];
    const uint8_t *data; /* aligned to at least 8 bytes when the file's bytes are */
    uint64_t bytes;
};

/* ---- opening ---- */

/* Maps and checks a file; touches only its header. IO or INVAL when it cannot be read, VERSION,
 * UNSUPPORTED for big-endian files and unknown tensor types, CORRUPT, NOMEM. The message names the
 * path, the key or tensor, and the byte. The file must not shrink while it is open. */
quire_status quire__gguf_open(const char *path, struct quire__gguf **out,
                              struct quire_error *error);

/* The same over borrowed bytes that outlive *out. name stands for the path in messages. */
quire_status quire__gguf_parse(const uint8_t *data, uint64_t size, const char *name,
                               struct quire__gguf **out, struct quire_error *error);

void quire__gguf_close(struct quire__gguf *gguf); /* NULL is fine */

/* ---- keys: NOTFOUND without the key; CORRUPT when its type or value does not fit ---- */

/* Any integer type; CORRUPT when negative. */
quire_status quire__gguf_u64(const struct quire__gguf *gguf, const char *key, uint64_t *value);
/* f32, or f64 that is in the range of f32. */
quire_status quire__gguf_f32(const struct quire__gguf *gguf, const char *key, float *value);
quire_status quire__gguf_bool(const struct quire__gguf *gguf, const char *key, bool *value);
quire_status quire__gguf_str(const struct quire__gguf *gguf, const char *key,
                             struct quire__gguf_string *value);
quire_status quire__gguf_array(const struct quire__gguf *gguf, const char *key,
                               struct quire__gguf_array *value);

uint64_t quire__gguf_key_count(const struct quire__gguf *gguf);
/* In the order of the file; index < count. */
const struct quire__gguf_key *quire__gguf_key_at(const struct quire__gguf *gguf, uint64_t index);

/* "u32"; for an unknown type "unknown". */
const char *quire__gguf_type_name(uint32_t type);

/* ---- elements of an array ---- */

/* Any integer type, INVAL past the end, CORRUPT for another type or a u64 over INT64_MAX. */
quire_status quire__gguf_array_i64(const struct quire__gguf_array *array, uint64_t index,
                                   int64_t *value);
/* As quire__gguf_f32; INVAL past the end. */
quire_status quire__gguf_array_f32(const struct quire__gguf_array *array, uint64_t index,
                                   float *value);

/* Walks an array of strings, in constant time per string:
 *     struct quire__gguf_strings it = quire__gguf_strings(&array);
 *     while (quire__gguf_next_string(&it, &string)) ...
 * An array of another type counts as empty. */
struct quire__gguf_strings {
    const uint8_t *next;
    uint64_t left;
};
struct quire__gguf_strings quire__gguf_strings(const struct quire__gguf_array *array);
bool quire__gguf_next_string(struct quire__gguf_strings *strings, struct quire__gguf_string *value);

/* ---- tensors ---- */

/* NULL when there is none of that name. Cost: O(log n). */
const struct quire__gguf_tensor *quire__gguf_find_tensor(const struct quire__gguf *gguf,
                                                         const char *name);
/* Bytes `from` to `to` of a tensor will not be read again soon: where the file is mapped, they need
 * not stay in memory. */
void quire__gguf_forget(const struct quire__gguf *gguf, const struct quire__gguf_tensor *tensor,
                        uint64_t from, uint64_t to);
uint64_t quire__gguf_tensor_count(const struct quire__gguf *gguf);
/* In the order of the file; index < count. */
const struct quire__gguf_tensor *quire__gguf_tensor_at(const struct quire__gguf *gguf,
                                                       uint64_t index);

#endif
