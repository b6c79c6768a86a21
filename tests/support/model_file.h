/* model_file.h - GGUF files of small models, right but for one change.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_MODEL_FILE_H
#define QUIRE_TESTS_MODEL_FILE_H

#include "model/utf8.h"
#include "model_fixture.h"

struct qt_key {
    const char *name;
    char kind; /* 'u' u32, 'f' f32, 'b' bool, 's' string, 't' an array of `number` strings "x";
                  arrays of `number` values: 'T' strings, 'F' f32, 'I' i32 */
    double number;
    const char *text;
    const void *values;
};

struct qt_tensor {
    const char *name;
    uint32_t columns, rows; /* rows 0: one dimension */
    uint32_t type;          /* F32 or F16 */
};

/* A right file. */
struct qt_model_parts {
    const struct qt_key *keys;
    size_t num_keys;
    const struct qt_tensor *tensors;
    size_t num_tensors;
};

/* A key or tensor replaces the one of its name, or is added; one with kind 0, or no columns, is
 * taken out. */
struct qt_change {
    struct qt_key key;
    struct qt_tensor tensor;
    quire_status status; /* what opening the model answers */
    const char *says;    /* part of the message, or NULL */
};

#define QT_NO_KEY                                                                                  \
    {                                                                                              \
        NULL, 0, 0, NULL, NULL                                                                     \
    }
#define QT_NO_TENSOR                                                                               \
    {                                                                                              \
        NULL, 0, 0, 0                                                                              \
    }

/* Writes the changed file; the tensors hold random numbers. */
void qt_model_file_build(const struct qt_model_parts *parts, const struct qt_change *change,
                         struct quire__bytes *file);
/* Builds the file and opens a model of it, with a backend or without one; nothing stays. */
void qt_model_file_check(const struct qt_model_parts *parts, const struct qt_change *change,
                         struct quire_backend *backend);
/* All of them, without a backend, on the CPU's and on the one that hides its memory. */
void qt_model_file_check_all(const struct qt_model_parts *parts, const struct qt_change *changes,
                             size_t count);

struct quire_backend *qt_cpu_backend(void);    /* of one thread */
struct quire_backend *qt_opaque_backend(void); /* the same */

#endif
