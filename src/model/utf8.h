/* utf8.h - UTF-8: checking, growable byte strings, and text that arrives in pieces.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_MODEL_UTF8_H
#define QUIRE_MODEL_UTF8_H

#include "base/base.h"

/* Bytes of somebody else, not NUL-terminated. */
struct quire__text {
    const char *bytes;
    uint64_t count;
};

/* A byte string that grows. Zero-initialise; give back with quire__bytes_deinit. */
struct quire__bytes {
    char *data;
    uint64_t count, capacity;
};

/* Makes room for `extra` more bytes; NOMEM leaves the string as it was. */
quire_status quire__bytes_reserve(struct quire__bytes *bytes, uint64_t extra,
                                  struct quire_error *error);
quire_status quire__bytes_append(struct quire__bytes *bytes, const char *data, uint64_t count,
                                 struct quire_error *error);
void quire__bytes_deinit(struct quire__bytes *bytes);

/* What the first bytes of `text` are: 1 to 4, the length of a whole character; 0, the beginning of
 * one that is cut off after `count` bytes; -1, bytes that can never become one. count >= 1.
 * Table 3-7 of the Unicode Standard: no overlong form, no surrogate, nothing past U+10FFFF. */
int quire__utf8_length(const char *text, uint64_t count);

/* True when the whole text is UTF-8; else *bad_offset is the first byte that is not. */
bool quire__utf8_check(const char *text, uint64_t count, uint64_t *bad_offset);

/* Copies text into out for an error message: one line, control and non-ASCII bytes as '?', cut to
 * out_size with "..." at the end. Returns out. */
const char *quire__quote(const char *text, uint64_t count, char *out, uint64_t out_size);

/* ---- text that arrives in pieces, for a terminal ---- */

/* The cut-off beginning of a character, at most 3 bytes. Zero-initialise. */
struct quire__stream {
    char tail[4];
    uint32_t count;
};

/* Appends to out every character that is whole once `data` has arrived and keeps the rest. Each
 * longest run of bytes that begins a character but cannot end as one becomes one U+FFFD, as
 * chapter 3.9 of the Unicode Standard recommends, so out stays UTF-8 whatever comes in. On NOMEM
 * neither stream nor out has changed. */
quire_status quire__stream_feed(struct quire__stream *stream, const char *data, uint64_t count,
                                struct quire__bytes *out, struct quire_error *error);
/* The end: a kept tail becomes one U+FFFD. */
quire_status quire__stream_flush(struct quire__stream *stream, struct quire__bytes *out,
                                 struct quire_error *error);

#endif
