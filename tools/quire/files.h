/* files.h - what the command reads and writes whole: texts, lists of ids, JSON, logits.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_FILES_H
#define QUIRE_TOOL_FILES_H

#include <jansson.h>
#include <stdint.h>

#include "model/vocab.h"

/* Reads a whole file, or standard input for "-"; gives an exit status after one line on stderr. */
int files_read(const char *path, struct quire__bytes *out);

/* Reads a JSON array of token ids, or an object with one under "ids", each below `vocabulary`.
 * where names the text in messages. */
int files_parse_ids(const char *where, const struct quire__bytes *text, uint32_t vocabulary,
                    struct quire__ids *out);

/* Writes a file that is there whole or not at all. A device, as /dev/stdout, is written in place.
 */
int files_write(const char *path, const void *data, uint64_t bytes);

/* Fails as files_write would where it cannot begin, so that nobody measures for minutes first. NULL
 * is fine. */
int files_try_write(const char *path);

/* Prints a JSON value as one line on standard output and releases it; NULL means no memory. */
int files_print_json(json_t *value);
json_t *files_json_ids(const uint32_t *ids, uint64_t count);

#endif
