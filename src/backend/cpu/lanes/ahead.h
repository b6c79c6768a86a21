/* ahead.h - asking for rows of K and V before they are read.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_AHEAD_H
#define QUIRE_BACKEND_CPU_LANES_AHEAD_H

enum {
    AHEAD = 16,       /* rows: enough that memory is never idle, few enough for the first cache */
    ASKING_ROWS = 32, /* more queries work on a tile for longer than its loading takes */
};

/* Asks for the row that is read AHEAD rows after row p of `rows`, where those of `then` come next.
 */
FN void ask_ahead(const struct quire__rows *rows, const struct quire__rows *then, uint32_t p,
                  uint32_t positions)
{
    uint32_t at = p + AHEAD;
    if (at >= positions) {
        at -= positions;
        rows = then;
    }
    if (rows->data == NULL)
        return;
    for (uint32_t i = 0; i < rows->row_bytes; i += 64)
        __builtin_prefetch(rows->data[at] + i, 0, 3);
    if (rows->scales != NULL)
        __builtin_prefetch(rows->scales[at], 0, 3);
}

#endif
