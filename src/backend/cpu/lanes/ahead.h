/* ahead.h - asking for the next rows of K and V while a tile is worked on.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Memory answers some 30 lines of 64 bytes at a time, if it is asked for them all the time and in
 * several places: a loop that waits for its own rows, or one that multiplies, leaves it idle. So
 * the next tile is asked for evenly while this one is worked on, a line of each of four rows of K
 * and of V by turns, into the second-level cache. */
#ifndef QUIRE_BACKEND_CPU_LANES_AHEAD_H
#define QUIRE_BACKEND_CPU_LANES_AHEAD_H

enum {
    CACHE_LINE = 64,
    STREAMS = 4, /* rows of a tile that are asked for together, as far apart as can be */
    STREAM_ROWS = QUIRE__TILE / STREAMS,
    DUE_BITS = 12,
};

/* A beat is a line of each stream, of K or of V. */
struct asking {
    const struct quire__rows *rows[2]; /* K and V */
    uint32_t beats, done;              /* of the tile; and those that were asked for */
    uint32_t due;                      /* how many should have been, in 2^-DUE_BITS */
    uint32_t row, line;                /* of the next beat; row: in its stream */
    uint32_t lines;                    /* of the longer row */
    uint32_t scaled[2];                /* rows whose scales are in one line, or nearly; 2^n */
};

/* The scales of a row of q8 or q4 take a sixteenth or a quarter of a byte an element. */
FN uint32_t scales_in_line(const struct quire__rows *rows)
{
    uint32_t bytes = rows->dim / (rows->dtype == QUIRE_Q4 ? 4 : 16), n = 1;
    while (2 * n * bytes <= CACHE_LINE && n < STREAM_ROWS)
        n *= 2;
    return n;
}

FN struct asking asking_for(const struct quire__rows *k, const struct quire__rows *v)
{
    uint32_t longer = k->row_bytes > v->row_bytes ? k->row_bytes : v->row_bytes;
    struct asking a = {.rows = {k, v}, .lines = (uint32_t)quire__ceil_div(longer, CACHE_LINE)};
    if (k->data != NULL && v->data != NULL)
        a.beats = 2 * STREAM_ROWS * a.lines;
    a.scaled[0] = scales_in_line(k);
    a.scaled[1] = scales_in_line(v);
    return a;
}

/* Of what comes after t, if anything does. */
FN struct asking asking_after(const struct quire__tile *t)
{
    return asking_for(&t->k_next, &t->v_next);
}

FN void ask_beat(struct asking *a)
{
    const struct quire__rows *rows = a->rows[a->done % 2];
    bool scales =
        rows->scales != NULL && a->line == 0 && (a->row & (a->scaled[a->done % 2] - 1)) == 0;
    uint32_t at = a->line * CACHE_LINE;
    UNROLL
    for (uint32_t s = 0; s < STREAMS; s++) {
        uint32_t row = s * STREAM_ROWS + a->row;
        if (at < rows->row_bytes)
            __builtin_prefetch(rows->data[row] + at, 0, 1);
        if (scales)
            __builtin_prefetch(rows->scales[row], 0, 1);
    }
    if (a->done++ % 2 == 0)
        return;
    bool next_row = ++a->line == a->lines;
    a->line = next_row ? 0 : a->line;
    a->row += next_row;
}

/* What `ask` is to be given n times for part/whole of the beats. */
FN uint32_t share_of(const struct asking *a, uint32_t part, uint32_t whole, uint32_t n)
{
    return ((a->beats << DUE_BITS) * part + whole * n - 1) / (whole * n);
}

/* Apart, so that the loops which ask keep their registers. */
static TARGET __attribute__((noinline, unused)) void ask_due(struct asking *a)
{
    while (a->done < a->beats && a->done < a->due >> DUE_BITS)
        ask_beat(a);
}

FN void ask(struct asking *a, uint32_t share)
{
    a->due += share;
    if (a->done < a->due >> DUE_BITS)
        ask_due(a);
}

/* Asks for all rows of a tile that nobody has asked for. */
FN void ask_now(const struct quire__tile *t)
{
    struct asking a = asking_for(&t->k, &t->v);
    while (a.done < a.beats)
        ask_beat(&a);
}

#endif
