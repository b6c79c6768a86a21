/* ahead.h - asking for rows of K and V before they are read.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_AHEAD_H
#define QUIRE_BACKEND_CPU_LANES_AHEAD_H

enum {
    NEAR_BYTES = 1024,
    AHEAD_BYTES = 4096, /* more has left the cache again before it is read */
    ASKING_ROWS = 64,   /* more queries work on a tile for longer than its loading takes */
};

/* How many rows are AHEAD_BYTES, at most a tile's. */
FN uint32_t rows_ahead(const struct quire__rows *rows, uint32_t positions)
{
    uint32_t ahead = AHEAD_BYTES / rows->row_bytes;
    return ahead < positions ? ahead : positions;
}

/* Asks for row `at` of `rows`, where those of `then` come next. The second cache is near enough,
 * and takes more of them at a time than the first one. */
FN void ask_ahead(const struct quire__rows *rows, const struct quire__rows *then, uint32_t at,
                  uint32_t positions)
{
    if (at >= positions) {
        at -= positions;
        rows = then;
    }
    if (rows->data == NULL)
        return;
    for (uint32_t i = 0; i < rows->row_bytes; i += 64)
        __builtin_prefetch(rows->data[at] + i, 0, 1);
    uint32_t back = (AHEAD_BYTES - NEAR_BYTES) / rows->row_bytes;
    if (at >= back)
        for (uint32_t i = 0; i < rows->row_bytes; i += 64)
            __builtin_prefetch(rows->data[at - back] + i, 0, 3);
    if (rows->scales != NULL)
        __builtin_prefetch(rows->scales[at], 0, 1);
}

#endif
