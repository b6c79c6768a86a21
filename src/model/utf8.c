/* utf8.c - UTF-8: checking, growable byte strings, and text that arrives in pieces.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/utf8.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
#define REPLACEMENT_BYTES 3

/* ---- byte strings ---- */

quire_status quire__bytes_reserve(struct quire__bytes *bytes, uint64_t extra,
                                  struct quire_error *error)
{
    uint64_t needed, doubled;
    if (!quire__add_u64(bytes->count, extra, &needed))
        return quire__fail(error, QUIRE_E_NOMEM, "text too long: %llu more bytes",
                           (unsigned long long)extra);
    if (needed <= bytes->capacity)
        return QUIRE_OK;
    if (!quire__mul_u64(bytes->capacity, 2, &doubled) || doubled < needed)
        doubled = needed;
    if (doubled < 64)
        doubled = 64;
    char *data = quire__realloc(bytes->data, doubled);
    if (data == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory for %llu bytes of text",
                           (unsigned long long)doubled);
    bytes->data = data;
    bytes->capacity = doubled;
    return QUIRE_OK;
}

quire_status quire__bytes_append(struct quire__bytes *bytes, const char *data, uint64_t count,
                                 struct quire_error *error)
{
    quire_status status = quire__bytes_reserve(bytes, count, error);
    if (status != QUIRE_OK || count == 0)
        return status;
    memcpy(bytes->data + bytes->count, data, count);
    bytes->count += count;
    return QUIRE_OK;
}

void quire__bytes_deinit(struct quire__bytes *bytes)
{
    quire__free(bytes->data);
    *bytes = (struct quire__bytes){0};
}

/* ---- checking ---- */

int quire__utf8_length(const char *text, uint64_t count)
{
    const uint8_t *byte = (const uint8_t *)text;
    uint8_t lead = byte[0], low = 0x80, high = 0xbf;
    int length;
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return -1;
    length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    for (int i = 1; i < length; i++) {
        if ((uint64_t)i == count)
            return 0;
        if (byte[i] < low || byte[i] > high)
            return -1;
        low = 0x80;
        high = 0xbf;
    }
    return length;
}

bool quire__utf8_check(const char *text, uint64_t count, uint64_t *bad_offset)
{
    uint64_t at = 0;
    while (at < count) {
        uint64_t eight;
        if (count - at >= sizeof(eight)) {
            memcpy(&eight, text + at, sizeof(eight));
            if ((eight & 0x8080808080808080u) == 0) {
                at += sizeof(eight);
                continue;
            }
        }
        int length = quire__utf8_length(text + at, count - at);
        if (length <= 0) {
            *bad_offset = at;
            return false;
        }
        at += (uint64_t)length;
    }
    return true;
}

const char *quire__quote(const char *text, uint64_t count, char *out, uint64_t out_size)
{
    uint64_t kept = count < out_size ? count : out_size - 1;
    for (uint64_t i = 0; i < kept; i++)
        out[i] = text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?';
    if (kept < count)
        for (uint64_t i = kept > 3 ? kept - 3 : 0; i < kept; i++)
            out[i] = '.';
    out[kept] = '\0';
    return out;
}

/* ---- streams ---- */

static void put(struct quire__bytes *out, const char *data, uint64_t count)
{
    memcpy(out->data + out->count, data, count);
    out->count += count;
}

quire_status quire__stream_feed(struct quire__stream *stream, const char *data, uint64_t count,
                                struct quire__bytes *out, struct quire_error *error)
{
    uint64_t bytes_max;
    if (!quire__add_u64(count, stream->count, &bytes_max) ||
        !quire__mul_u64(bytes_max, REPLACEMENT_BYTES, &bytes_max))
        return quire__fail(error, QUIRE_E_NOMEM, "text too long: %llu bytes at once",
                           (unsigned long long)count);
    quire_status status = quire__bytes_reserve(out, bytes_max, error);
    if (status != QUIRE_OK)
        return status;
    for (uint64_t i = 0; i < count; i++) {
        stream->tail[stream->count++] = data[i];
        int length = quire__utf8_length(stream->tail, stream->count);
        if (length < 0 && stream->count > 1) {
            put(out, replacement, REPLACEMENT_BYTES);
            stream->tail[0] = data[i];
            stream->count = 1;
            length = quire__utf8_length(stream->tail, 1);
        }
        if (length == 0)
            continue;
        if (length < 0)
            put(out, replacement, REPLACEMENT_BYTES);
        else
            put(out, stream->tail, (uint64_t)length);
        stream->count = 0;
    }
    return QUIRE_OK;
}

quire_status quire__stream_flush(struct quire__stream *stream, struct quire__bytes *out,
                                 struct quire_error *error)
{
    if (stream->count == 0)
        return QUIRE_OK;
    quire_status status = quire__bytes_append(out, replacement, REPLACEMENT_BYTES, error);
    if (status == QUIRE_OK)
        stream->count = 0;
    return status;
}
