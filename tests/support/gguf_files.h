/* gguf_files.h - a writer of GGUF bytes, and small good and bad files that it writes.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TEST_GGUF_FILES_H
#define QUIRE_TEST_GGUF_FILES_H

#include <stddef.h>
#include <stdint.h>

#include <quire/status.h>

struct qt_writer {
    uint8_t bytes[4096];
    size_t size;
};

struct qt_gguf_file {
    const char *name;
    void (*build)(struct qt_writer *w); /* appends the file's bytes */
    quire_status status;                /* what the reader answers */
    const char *says;                   /* part of its message; NULL for a good file */
};

/* The good files stand first; the very first has QT_GGUF_KEYS keys of every type of value, and
 * QT_GGUF_TENSORS tensors. */
#define QT_GGUF_GOOD    3u
#define QT_GGUF_KEYS    20u
#define QT_GGUF_TENSORS 3u

extern const struct qt_gguf_file qt_gguf_files[];
extern const size_t qt_gguf_num_files;

#endif
