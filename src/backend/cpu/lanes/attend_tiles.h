/* attend_tiles.h - attention over one tile of positions by tiles of bfloat16.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Sixteen queries at a time. Logits come as [position][query]: K is the left factor, read as it
 * lies, and the queries, in pairs, the right one. So a lane of the softmax is a query, and maxima
 * and sums run over vectors. The weights are turned to [query][position], the left factor of the
 * sums of values; V is woven into pairs of positions, the right one. Weights and factors are
 * rounded to bfloat16, sums are f32; the denominator adds the weights as they were.
 *
 * Exponents are taken against the largest logit until one lies QUIRE__SLACK over it: as long as
 * that lasts, sums need no new factor, so the values of two tiles are added to them at a time. Sums
 * of many queries come from the second-level cache and go back there, which is most of what they
 * cost. Two tiles at once have the bits of one after the other. */
#ifndef QUIRE_BACKEND_CPU_LANES_ATTEND_TILES_H
#define QUIRE_BACKEND_CPU_LANES_ATTEND_TILES_H

#include "backend/cpu/lanes/softmax.h"

#include "backend/cpu/lanes/pairs.h"

enum {
    SIDE = 16,                        /* rows of a tile, and pairs or f32 of a row */
    GROUPS = QUIRE__TILE / SIDE,      /* of positions */
    VALUE_STEPS = QUIRE__TILE / PAIR, /* of positions in a sum of values */
    TILE_LOGITS = 0,                  /* the first of GROUPS, [position][query] */
    TILE_WHOLE = 4,                   /* of K or V, 16 rows of 64 bytes */
    TILE_QUERIES = 5,                 /* [pair of dimensions][query] */
    TILE_SUMS = 6,
    TILE_WEIGHTS = 7,                      /* [query][dimension], [query][position] */
    WEIGHT_WORDS = SIDE * QUIRE__TILE / 2, /* of sixteen queries and a tile of positions */
};
/* Of sixteen queries: their sums of values are there; those of the first tile are still to be added
 * to them. */
enum { HAS_SUMS = 1, OWES_FIRST = 2 };

FN uint32_t padded(uint32_t dim)
{
    return (uint32_t)quire__round_up(dim, PAIR);
}

/* How many of m queries, of at most 16, lie side by side: the next power of two. */
FN uint32_t width_of(uint32_t m)
{
    return m > 8 ? 16 : m > 4 ? 8 : m > 2 ? 4 : m;
}

/* Turns [16 positions][w queries] to [w][16], or a square of anything: four rounds of interleaving
 * the lower half with the upper one move the four bits of the position from the top of an element's
 * number to its end. */
FN void turn_square(vf *a, uint32_t w)
{
    UNROLL
    for (int round = 0; round < 4 && w > 1; round++) {
        vf b[SIDE];
        UNROLL
        for (uint32_t i = 0; i < w / 2; i++) {
            b[2 * i] = v_interleave_low(a[i], a[i + w / 2]);
            b[2 * i + 1] = v_interleave_high(a[i], a[i + w / 2]);
        }
        UNROLL
        for (uint32_t i = 0; i < w; i++)
            a[i] = b[i];
    }
}

/* ---- queries ---- */

/* PAIR dimensions of a query, scaled, from d on. */
FN vu query_pairs(const float *row, uint32_t d, uint32_t dim, float scale)
{
    return v_pack2(v_load_row(row, d, dim) * scale, v_load_row(row, d + LANES, dim) * scale);
}

/* m queries as [pairs of dimensions][width]. */
FN void some_queries(uint32_t *to, const float *const *rows, uint32_t m, uint32_t width,
                     uint32_t dim, float scale)
{
    for (uint32_t d = 0; d < padded(dim); d += PAIR) {
        vf square[SIDE];
        UNROLL
        for (uint32_t r = 0; r < SIDE; r++)
            square[r] = r < m ? (vf)query_pairs(rows[r], d, dim, scale) : v_zero();
        turn_square(square, SIDE);
        for (uint32_t i = 0; i < LANES; i++) {
            float *at = (float *)(void *)(to + (size_t)(d / 2 + i) * width);
            if (width == SIDE)
                v_store(at, square[i]);
            else
                v_store_part(at, square[i], width);
        }
    }
}

/* Sixteen queries are [pairs of dimensions][queries]; the last ones lie beside zeros, as do up to
 * eight alone, which are fewer in a row. */
KERNEL void queries(void *to, const float *const *rows, uint32_t n, uint32_t dim, float scale)
{
    uint32_t words = padded(dim) / 2, width = n < SIDE ? width_of(n) : SIDE;
    for (uint32_t first = 0; first < n; first += SIDE)
        some_queries((uint32_t *)to + (size_t)first * words, rows + first,
                     n - first < SIDE ? n - first : SIDE, width, dim, scale);
}

/* What tiles are worked on with, in their scratch. */
struct tile_work {
    uint32_t tile;                          /* at hand, of those at once */
    bool everybody;                         /* sees all positions of the tile at hand */
    float *logits;                          /* [64][width] */
    float *next_logits;                     /* of the sixteen queries after these */
    uint32_t *values[QUIRE__TILES_AT_ONCE]; /* [32 pairs of positions][dim_v] */
    uint16_t *keys;                         /* [64][padded dim] of the tile at hand */
    uint32_t *weights;  /* [sixteens][tiles at once][16][32 pairs of positions] */
    uint8_t *sums;      /* [sixteens] HAS_SUMS, OWES_FIRST */
    uint32_t row_words; /* of keys */
    struct asking *ask; /* for what comes after the tile at hand */
};

/* How long things take, and so how much each of them asks for: K, V, and sixteen queries. */
enum { ASK_KEYS = 3, ASK_VALUES = 3, ASK_SIXTEEN = 2 };

FN uint32_t ask_share(const struct quire__tile *t, const struct tile_work *w, uint32_t part,
                      uint32_t n)
{
    uint32_t sixteens = (uint32_t)quire__ceil_div(t->rows, SIDE);
    return share_of(w->ask, part, ASK_KEYS + ASK_VALUES + ASK_SIXTEEN * sixteens, n);
}

FN struct tile_work work_of(const struct quire__tile *t)
{
    size_t sixteens = quire__ceil_div(t->rows, SIDE);
    struct tile_work w = {.logits = t->scratch, .row_words = padded(t->k.dim)};
    w.next_logits = w.logits + QUIRE__TILE * SIDE;
    w.values[0] = (uint32_t *)(void *)(w.next_logits + QUIRE__TILE * SIDE);
    w.values[1] = w.values[0] + (size_t)t->dim_v * QUIRE__TILE / 2;
    w.keys = (uint16_t *)(void *)(w.values[1] + (size_t)t->dim_v * QUIRE__TILE / 2);
    w.weights = (uint32_t *)(void *)(w.keys + (size_t)QUIRE__TILE * w.row_words);
    w.sums = (uint8_t *)(w.weights + sixteens * QUIRE__TILES_AT_ONCE * WEIGHT_WORDS);
    memset(w.sums, t->fresh ? 0 : HAS_SUMS, sixteens);
    return w;
}

/* The weights of some queries for one of the tiles. */
FN uint32_t *weights_of(const struct tile_work *w, uint32_t r, uint32_t tile)
{
    return w->weights + ((size_t)r / SIDE * QUIRE__TILES_AT_ONCE + tile) * WEIGHT_WORDS;
}

/* Of the tiles with their bit set: m rows, and rows of as many pairs as m queries are wide. */
FN void shape(uint32_t m, uint32_t of_queries, uint32_t narrow)
{
    struct tiles shapes = {.palette = 1};
    UNROLL
    for (int i = 0; i < TILES; i++) {
        shapes.rows[i] = (uint8_t)(of_queries >> i & 1 ? m : SIDE);
        shapes.colsb[i] = (uint16_t)(narrow >> i & 1 ? 4 * width_of(m) : TILE_ROW_BYTES_MAX);
    }
    tiles_configure(&shapes);
}

FN void shape_for_queries(uint32_t m)
{
    shape(m, 1 << TILE_SUMS | 1 << TILE_WEIGHTS, 15 << TILE_LOGITS | 1 << TILE_QUERIES);
}

/* For sums of values of m queries that lie sixteen wide: all tiles but the two of values. */
FN void shape_for_sums(uint32_t m)
{
    shape(m, 0xf3, 0);
}

/* ---- K and V ---- */

FN void take_keys(const struct quire__tile *t, const struct tile_work *w, uint32_t dtype,
                  bool whole)
{
    uint32_t end = (uint32_t)quire__round_up(t->positions, SIDE), words = w->row_words;
    uint32_t share = ask_share(t, w, ASK_KEYS, end);
    uint16_t *to = w->keys;
    for (uint32_t p = 0; p < end; p++, to += words) {
        struct row row = row_of(dtype, &t->k, p);
        ask(w->ask, share);
        for (uint32_t d = 0; d < words; d += PAIR)
            v_store((float *)(void *)(to + d), (vf)pair_load(dtype, whole, row, d));
    }
}

/* Of the positions in `mask`; the others' values become 0. */
FN void take_values(const struct quire__tile *t, const struct tile_work *w, uint32_t dtype,
                    bool whole, uint64_t mask)
{
    uint32_t share = ask_share(t, w, ASK_VALUES, QUIRE__TILE / 2), dim = t->dim_v;
    uint32_t step = whole ? PAIR : LANES;
    float *to = (float *)(void *)w->values[w->tile];
    for (uint32_t p = 0; p < QUIRE__TILE; p += 2, to += dim) {
        struct row low = row_of(dtype, &t->v, p), high = row_of(dtype, &t->v, p + 1);
        uint32_t here = (uint32_t)(mask >> p) & 3u;
        vu keep = (vu)v_spread((here & 1u ? 0xffffu : 0u) | (here & 2u ? 0xffff0000u : 0u));
        ask(w->ask, share);
        if (here == 0)
            memset(to, 0, dim * sizeof *to);
        for (uint32_t d = 0; here != 0 && d < dim; d += step) {
            UNROLL
            for (uint32_t i = d; i < d + step; i += LANES)
                v_store(to + i, (vf)(pair_of_rows(dtype, whole, low, high, i) & keep));
        }
    }
}

#define TAKE_DTYPE(what, dtype, whole, ...)                                                        \
    do {                                                                                           \
        if (whole)                                                                                 \
            what(t, w, dtype, true __VA_ARGS__);                                                   \
        else                                                                                       \
            what(t, w, dtype, false __VA_ARGS__);                                                  \
    } while (0)

#define TAKE(what, rows, ...)                                                                      \
    do {                                                                                           \
        bool whole = (rows)->dim % PAIR == 0;                                                      \
        if ((rows)->dtype == QUIRE_F32)                                                            \
            TAKE_DTYPE(what, QUIRE_F32, whole, __VA_ARGS__);                                       \
        else if ((rows)->dtype == QUIRE_F16)                                                       \
            TAKE_DTYPE(what, QUIRE_F16, whole, __VA_ARGS__);                                       \
        else if ((rows)->dtype == QUIRE_BF16)                                                      \
            TAKE_DTYPE(what, QUIRE_BF16, whole, __VA_ARGS__);                                      \
        else if ((rows)->dtype == QUIRE_Q8)                                                        \
            TAKE_DTYPE(what, QUIRE_Q8, whole, __VA_ARGS__);                                        \
        else                                                                                       \
            TAKE_DTYPE(what, QUIRE_Q4, whole, __VA_ARGS__);                                        \
    } while (0)

static TARGET __attribute__((noinline)) void take_all_keys(const struct quire__tile *t,
                                                           const struct tile_work *w)
{
    TAKE(take_keys, &t->k, );
}

static TARGET __attribute__((noinline)) void take_seen_values(const struct quire__tile *t,
                                                              const struct tile_work *w,
                                                              uint64_t mask)
{
    TAKE(take_values, &t->v, , mask);
}
#undef TAKE
#undef TAKE_DTYPE

/* ---- logits ---- */

/* Logits of sixteen positions a tile of K; `whole` is a tile that K may take. Sixteen queries leave
 * more than one, so that a load does not wait for the products before it. */
FN void tile_logits(const struct quire__tile *t, const struct tile_work *w, uint32_t r, uint32_t m)
{
    const uint32_t *q = (const uint32_t *)t->q + (size_t)r * w->row_words / 2;
    size_t step = (size_t)SIDE * w->row_words, row = 2 * (size_t)w->row_words;
    uint32_t width = width_of(m);
    uint32_t share = ask_share(t, w, ASK_SIXTEEN / 2, GROUPS * w->row_words / PAIR);
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
    for (uint32_t d = 0; d < w->row_words; d += PAIR) {
        const uint16_t *k = w->keys + d;
        TILE_LOAD(TILE_QUERIES, q + (size_t)d / 2 * width, 4 * width);
#define LOGITS(i, whole)                                                                           \
    if (t->positions > (i)*SIDE) {                                                                 \
        TILE_LOAD(whole, k + (i)*step, row);                                                       \
        TILE_DOT(TILE_LOGITS + (i), whole, TILE_QUERIES);                                          \
        if (m < SIDE)                                                                              \
            ask(w->ask, share);                                                                    \
    }
        if (m == SIDE) {
            LOGITS(0, 4)
            LOGITS(1, 6)
            LOGITS(2, 7)
            LOGITS(3, 4)
        } else {
            LOGITS(0, TILE_WHOLE)
            LOGITS(1, TILE_WHOLE)
            LOGITS(2, TILE_WHOLE)
            LOGITS(3, TILE_WHOLE)
        }
#undef LOGITS
    }
    TILE_STORE(0, w->logits, 4 * width);
    TILE_STORE(1, w->logits + SIDE * width, 4 * width);
    TILE_STORE(2, w->logits + 2 * SIDE * width, 4 * width);
    TILE_STORE(3, w->logits + 3 * SIDE * width, 4 * width);
}

/* ---- softmax ----
 *
 * A lane is a position and a query: lane i of vector v is position v (16 / W) + i / W, query i mod
 * W, where W queries, a power of two, lie side by side. W is a constant wherever it is used. */

/* Lane i + n mod 16; n is a constant. */
FN vf turn_lanes(vf a, int n)
{
    if (n == 8)
        return __builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    if (n == 4)
        return __builtin_shufflevector(a, a, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3);
    if (n == 2)
        return __builtin_shufflevector(a, a, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1);
    return __builtin_shufflevector(a, a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0);
}

/* What the queries have in common, or their own in each lane. */
struct lanes {
    uint32_t first, m;
    uint64_t any, all;        /* positions that some query, and every query, sees */
    vf slope, distance, step; /* step: a lane's position in its vector */
};

/* The element of each lane's query, of m. */
FN vf spread_lanes(const float *from, uint32_t m, uint32_t w)
{
    float lanes[SIDE];
    for (uint32_t i = 0; i < SIDE; i++)
        lanes[i] = i % w < m ? from[i % w] : 0.0f;
    return v_load(lanes);
}

FN struct lanes lanes_of(const struct quire__tile *t, bool everybody, uint32_t r, uint32_t m,
                         uint32_t w)
{
    struct lanes l = {.first = r, .m = m, .any = everybody ? UINT64_MAX : 0, .all = UINT64_MAX};
    for (uint32_t i = r; i < r + m && !everybody; i++) {
        l.any |= t->mask[i];
        l.all &= t->mask[i];
    }
    if (t->slope != NULL) {
        l.slope = spread_lanes(t->slope + r, m, w);
        l.distance = spread_lanes(t->distance + r, m, w);
        for (uint32_t i = 0; i < SIDE; i++) {
            uint32_t position = i / w;
            l.step[i] = (float)position;
        }
    }
    return l;
}

/* The lanes of a vector whose query sees its position. */
FN uint32_t who_sees(const struct quire__tile *t, const struct lanes *l, uint32_t v, uint32_t w)
{
    uint32_t bits = 0;
    for (uint32_t j = 0; j < SIDE / w; j++) {
        uint32_t p = v * (SIDE / w) + j, here = 0;
        bool some = (l->any >> p & 1) != 0, every = (l->all >> p & 1) != 0;
        for (uint32_t i = 0; i < l->m && some && !every; i++)
            here |= (uint32_t)(t->mask[l->first + i] >> p & 1) << i;
        if (every)
            here = (1u << w) - 1;
        bits |= here << (j * w);
    }
    return bits;
}

/* Finishes the logits in place; returns the largest of each query, in all its lanes. */
FN vf largest_logits(const struct quire__tile *t, const struct tile_work *work,
                     const struct lanes *l, uint32_t w)
{
    vf most[4];
    bool plain = l->all == UINT64_MAX && t->softcap == 0.0f && t->slope == NULL;
    uint32_t apart = SIDE / w; /* positions of a vector */
    UNROLL
    for (int i = 0; i < 4; i++)
        most[i] = v_set1(-INFINITY);
    for (uint32_t v = 0; v < 4 * w; v += 4) {
        UNROLL
        for (uint32_t i = 0; i < 4; i++) {
            float *at = work->logits + (size_t)(v + i) * SIDE;
            vf x = v_load(at);
            if (!plain) {
                if (t->softcap != 0.0f)
                    x = softcap_lanes(x, t->softcap);
                if (t->slope != NULL)
                    x = v_fma(l->slope, l->distance + (l->step + (float)((v + i) * apart)), x);
                x = v_if_bits(who_sees(t, l, v + i, w), x, v_set1(-INFINITY));
                v_store(at, x);
            }
            most[i] = v_max(x, most[i]);
        }
    }
    vf max = v_max(v_max(most[3], most[2]), v_max(most[1], most[0]));
    UNROLL
    for (uint32_t n = SIDE / 2; n >= w; n /= 2)
        max = v_max(turn_lanes(max, (int)n), max);
    return max;
}

/* exp(x) of x of at most QUIRE__SLACK, off by 2.9e-6: weights are rounded to 2^-8 anyway. 2^r of r
 * in 0 .. 1 is the polynomial of degree 4 with p(0) = 1 whose largest relative error is least. */
FN vf weight_of(vf x)
{
    vf power = x * EXP_LOG2E, r = v_fraction(power);
    vf p = v_fma(v_set1(0x1.b7f78p-7f), r, v_set1(0x1.abf848p-5f));
    p = v_fma(p, r, v_set1(0x1.ee2454p-3f));
    p = v_fma(p, r, v_set1(0x1.62d6c6p-1f));
    p = v_fma(p, r, v_set1(1.0f));
    return v_times_power(p, power);
}

/* exp(logit - base) of 32 positions, rounded and turned to [query][position]; adds what was not yet
 * rounded to the sums. */
FN void weigh_some(const float *logits, vf base, vf *sums, uint32_t *to, uint32_t w)
{
    vf low[SIDE], high[SIDE];
    UNROLL
    for (uint32_t i = 0; i < w; i++) {
        low[i] = weight_of(v_load(logits + i * SIDE) - base);
        sums[i] += low[i];
    }
    turn_square(low, w);
    UNROLL
    for (uint32_t i = 0; i < w; i++) {
        high[i] = weight_of(v_load(logits + (w + i) * SIDE) - base);
        sums[i] += high[i];
    }
    turn_square(high, w);
    UNROLL
    for (uint32_t i = 0; i < w; i++)
        v_store((float *)(void *)(to + i * (QUIRE__TILE / 2)), (vf)v_pack2(low[i], high[i]));
}

/* The same of sixteen queries: two positions become one vector of pairs first, so that half as many
 * are turned. */
FN void weigh_sixteen(const float *logits, vf base, vf *sums, uint32_t *to)
{
    vf pairs[SIDE];
    UNROLL
    for (uint32_t i = 0; i < SIDE; i++) {
        vf low = weight_of(v_load(logits + 2 * i * SIDE) - base);
        vf high = weight_of(v_load(logits + (2 * i + 1) * SIDE) - base);
        sums[2 * i % SIDE] += low;
        sums[(2 * i + 1) % SIDE] += high;
        pairs[i] = (vf)weave(v_pack2(low, high));
    }
    turn_square(pairs, SIDE);
    UNROLL
    for (uint32_t i = 0; i < SIDE; i++)
        v_store((float *)(void *)(to + i * (QUIRE__TILE / 2)), pairs[i]);
}

/* The weights of all positions. Returns the sums of what was not yet rounded, in all lanes of a
 * query: positions with the same remainder of 16 in order, then as a tree of halves. */
FN vf weigh(const float *logits, uint32_t *weights, vf base, uint32_t w)
{
    vf sums[SIDE];
    UNROLL
    for (uint32_t i = 0; i < w; i++)
        sums[i] = v_zero();
    for (uint32_t step = 0; step < VALUE_STEPS; step++) {
        const float *from = logits + (size_t)step * PAIR * w;
        uint32_t *to = weights + step * SIDE;
        if (w == SIDE)
            weigh_sixteen(from, base, sums, to);
        else
            weigh_some(from, base, sums, to, w);
    }
    UNROLL
    for (uint32_t n = w / 2; n > 0; n /= 2) {
        UNROLL
        for (uint32_t i = 0; i < n; i++)
            sums[i] += sums[i + n];
    }
    UNROLL
    for (uint32_t n = SIDE / 2; n >= w; n /= 2)
        sums[0] += turn_lanes(sums[0], (int)n);
    return sums[0];
}

/* Moves on what the queries' exponents are taken against and what they come to. True where sums of
 * values are to be multiplied by `factors`. */
FN bool move_states(const struct quire__tile *t, const struct tile_work *work, uint32_t r,
                    uint32_t m, uint32_t w, float factors[SIDE])
{
    struct lanes l = lanes_of(t, work->everybody, r, m, w);
    vf before = m == SIDE ? v_load(t->max + r) : spread_lanes(t->max + r, m, w);
    vf sum = m == SIDE ? v_load(t->sum + r) : spread_lanes(t->sum + r, m, w);
    vf most = largest_logits(t, work, &l, w), limit = before + QUIRE__SLACK;
    vf max = v_if_less(limit, most, most, before);
    vf base = v_if_less(max, v_set1(-FLT_MAX), v_zero(), max);
    vf added = weigh(work->logits, weights_of(work, r, work->tile), base, w);
    vf alpha = v_if_less(limit, most, v_exp(before - base), v_set1(1.0f));
    sum = v_fma(sum, alpha, added);
    if (m == SIDE) {
        v_store(t->max + r, max);
        v_store(t->sum + r, sum);
    } else {
        v_store_part(t->max + r, max, m);
        v_store_part(t->sum + r, sum, m);
    }
    v_store(factors, alpha);
    return v_some_less(limit, most);
}

#define MOVE_STATES(w)                                                                             \
    static TARGET __attribute__((noinline)) bool move_states_##w(                                  \
        const struct quire__tile *t, const struct tile_work *work, uint32_t r, uint32_t m,         \
        float factors[SIDE])                                                                       \
    {                                                                                              \
        return move_states(t, work, r, m, w, factors);                                             \
    }
MOVE_STATES(1)
MOVE_STATES(2)
MOVE_STATES(4)
MOVE_STATES(8)
MOVE_STATES(16)
#undef MOVE_STATES

FN bool move_few_states(const struct quire__tile *t, const struct tile_work *work, uint32_t m,
                        float factors[SIDE])
{
    if (m > 4)
        return move_states_8(t, work, 0, m, factors);
    if (m > 2)
        return move_states_4(t, work, 0, m, factors);
    if (m > 1)
        return move_states_2(t, work, 0, m, factors);
    return move_states_1(t, work, 0, m, factors);
}

/* ---- sums of values ---- */

/* The sums of some queries, and how many floats those of two neighbours are apart. */
struct sums {
    float *at;
    size_t stride;
};

FN struct sums sums_of(const struct quire__tile *t, uint32_t r)
{
    size_t floats = QUIRE__STATE_HEAD + t->dim_v;
    return (struct sums){t->state + r * floats + QUIRE__STATE_HEAD, floats};
}

FN void scale_sums(const struct quire__tile *t, uint32_t r, uint32_t m, const float factors[SIDE])
{
    struct sums sums = sums_of(t, r);
    for (uint32_t i = 0; i < m; i++, sums.at += sums.stride) {
        for (uint32_t d = 0; factors[i] != 1.0f && d < t->dim_v; d += LANES)
            v_store(sums.at + d, v_load(sums.at + d) * factors[i]);
    }
}

/* One tile of sums after the other, for fewer queries than a tile has rows. */
FN void few_values(const struct quire__tile *t, const struct tile_work *w, uint32_t r,
                   struct sums sums)
{
    const uint32_t *weights = weights_of(w, r, w->tile), *values = w->values[w->tile];
    uint32_t share = ask_share(t, w, ASK_SIXTEEN / 2, VALUE_STEPS * t->dim_v / LANES);
    for (uint32_t d = 0; d < t->dim_v; d += LANES) {
        TILE_LOAD(TILE_SUMS, sums.at + d, sums.stride * sizeof(float));
        for (uint32_t step = 0; step < VALUE_STEPS; step++) {
            TILE_LOAD(TILE_WEIGHTS, weights + (size_t)step * SIDE, 2 * QUIRE__TILE);
            TILE_LOAD(TILE_WHOLE, values + (size_t)step * SIDE * t->dim_v + d, 4 * t->dim_v);
            TILE_DOT(TILE_SUMS, TILE_WEIGHTS, TILE_WHOLE);
            ask(w->ask, share);
        }
        TILE_STORE(TILE_SUMS, sums.at + d, sums.stride * sizeof(float));
    }
}

/* What sixteen queries add: the weights of `tiles` tiles, and the values of each. */
struct addends {
    const uint32_t *weights, *values[QUIRE__TILES_AT_ONCE];
    uint32_t tiles, dim_v;
    bool empty; /* there are no sums yet */
};

/* Weights lie in tiles 4 to 7, of 32 positions each; sums of dimensions from d on are in tile 0
 * and, of a second sixteen, in tile 1: two at a time hide each other's latency. */
#define MEET(weights, from)                                                                        \
    do {                                                                                           \
        TILE_LOAD(2, (from) + d, row);                                                             \
        TILE_DOT(0, weights, 2);                                                                   \
        if (second) {                                                                              \
            TILE_LOAD(3, (from) + d + LANES, row);                                                 \
            TILE_DOT(1, weights, 3);                                                               \
        }                                                                                          \
    } while (0)

FN void meet_values(const struct addends *a, struct sums sums, uint32_t d, bool second)
{
    size_t row = 4 * (size_t)a->dim_v, to = sums.stride * sizeof(float);
    size_t step = (size_t)SIDE * a->dim_v;
    if (a->empty) {
        TILE_ZERO(0);
        TILE_ZERO(1);
    } else {
        TILE_LOAD(0, sums.at + d, to);
        if (second)
            TILE_LOAD(1, sums.at + d + LANES, to);
    }
    MEET(4, a->values[0]);
    MEET(5, a->values[0] + step);
    if (a->tiles > 1) {
        MEET(6, a->values[1]);
        MEET(7, a->values[1] + step);
    }
    TILE_STORE(0, sums.at + d, to);
    if (second)
        TILE_STORE(1, sums.at + d + LANES, to);
}
#undef MEET

FN void sixteen_values(const struct addends *a, struct sums sums)
{
    uint32_t d = 0;
    TILE_LOAD(4, a->weights, 2 * QUIRE__TILE);
    TILE_LOAD(5, a->weights + SIDE, 2 * QUIRE__TILE);
    if (a->tiles > 1) {
        TILE_LOAD(6, a->weights + WEIGHT_WORDS, 2 * QUIRE__TILE);
        TILE_LOAD(7, a->weights + WEIGHT_WORDS + SIDE, 2 * QUIRE__TILE);
    }
    for (; d + 2 * LANES <= a->dim_v; d += 2 * LANES)
        meet_values(a, sums, d, true);
    if (d < a->dim_v)
        meet_values(a, sums, d, false);
}

/* How many rows are in the sixteen of row r. */
FN uint32_t queries_at(const struct quire__tile *t, uint32_t r)
{
    return t->rows - r < SIDE ? t->rows - r : SIDE;
}

/* Adds the values of one tile, or of both, to the sums of m queries. */
FN void add_values(const struct quire__tile *t, const struct tile_work *w, uint32_t r, uint32_t m,
                   uint32_t first, uint32_t tiles)
{
    uint8_t *has = &w->sums[r / SIDE];
    struct addends a = {.weights = weights_of(w, r, first),
                        .values = {w->values[first], w->values[1]},
                        .tiles = tiles,
                        .dim_v = t->dim_v,
                        .empty = (*has & HAS_SUMS) == 0};
    if (m < SIDE)
        shape_for_sums(m);
    sixteen_values(&a, sums_of(t, r));
    if (m < SIDE)
        shape_for_queries(SIDE);
    *has = HAS_SUMS;
}

/* Sums that get a factor hold all that came before. */
static TARGET __attribute__((noinline)) void move_sums(const struct quire__tile *t,
                                                       const struct tile_work *w, uint32_t r,
                                                       uint32_t m, const float *factors)
{
    if (w->tile == 1 && (w->sums[r / SIDE] & OWES_FIRST) != 0)
        add_values(t, w, r, m, 0, 1);
    if ((w->sums[r / SIDE] & HAS_SUMS) != 0)
        scale_sums(t, r, m, factors);
}

/* Whether some value of the tile is infinite or NaN: then 0 times it is not 0. */
static TARGET __attribute__((noinline)) bool has_wild_values(const struct quire__tile *t,
                                                             const struct tile_work *w)
{
    vu wild = (vu)v_zero();
    for (size_t i = 0; i < (size_t)t->dim_v * QUIRE__TILE / 2; i += LANES) {
        vu x = (vu)v_load((const float *)(const void *)(w->values[w->tile] + i));
        wild |= (vu)((x & 0x7f80u) == 0x7f80u) | (vu)((x & 0x7f800000u) == 0x7f800000u);
    }
    for (int i = 0; i < LANES; i++) {
        if (wild[i] != 0)
            return true;
    }
    return false;
}

/* Some value is not finite, and some query does not see it: each query takes alone what it sees. */
static TARGET __attribute__((noinline)) void wild_values(const struct quire__tile *t,
                                                         const struct tile_work *w, uint32_t r,
                                                         uint32_t m)
{
    _Alignas(64) float alone[SIDE * QUIRE__HEAD_DIM_MAX];
    struct sums sums = sums_of(t, r);
    for (uint32_t i = 0; i < m; i++) {
        take_seen_values(t, w, t->mask[r + i]);
        memset(alone, 0, sizeof alone);
        memcpy(alone + (size_t)i * t->dim_v, sums.at + i * sums.stride, t->dim_v * sizeof(float));
        few_values(t, w, r, (struct sums){alone, t->dim_v});
        memcpy(sums.at + i * sums.stride, alone + (size_t)i * t->dim_v, t->dim_v * sizeof(float));
    }
}

/* ---- tiles ---- */

/* The weights of all rows, sixteen at a time: K stays in the first-level cache, and the logits that
 * tiles store have left for it before lanes read them. */
FN void weigh_sixteens(const struct quire__tile *t, const struct tile_work *w)
{
    struct tile_work now = *w, next = *w;
    uint32_t share = ask_share(t, w, ASK_SIXTEEN, 1);
    _Alignas(64) float factors[SIDE];
    tile_logits(t, &now, 0, SIDE);
    for (uint32_t r = 0; r < t->rows; r += SIDE) {
        uint32_t m = queries_at(t, r);
        next.logits = now.next_logits;
        if (r + SIDE < t->rows)
            tile_logits(t, &next, r + SIDE, SIDE);
        ask(w->ask, share);
        if (move_states_16(t, &now, r, m, factors))
            move_sums(t, w, r, m, factors);
        if (w->tile == 0)
            w->sums[r / SIDE] |= OWES_FIRST;
        now.next_logits = now.logits;
        now.logits = next.logits;
    }
}

/* The values of the tile at hand, and of the one before where those are still owed. */
FN void add_sixteens(const struct quire__tile *t, const struct tile_work *w, bool wild)
{
    for (uint32_t r = 0; r < t->rows; r += SIDE) {
        bool owes = w->tile == 1 && (w->sums[r / SIDE] & OWES_FIRST) != 0;
        uint32_t m = queries_at(t, r);
        if (!wild) {
            add_values(t, w, r, m, owes ? 0 : w->tile, owes ? 2 : 1);
            continue;
        }
        if (owes)
            add_values(t, w, r, m, 0, 1);
        if ((w->sums[r / SIDE] & HAS_SUMS) == 0)
            clear_sums(t, r, m);
        wild_values(t, w, r, m);
        w->sums[r / SIDE] = HAS_SUMS;
    }
}

/* Up to eight queries. */
FN void few_queries(const struct quire__tile *t, const struct tile_work *w, bool wild)
{
    uint32_t m = t->rows;
    _Alignas(64) float factors[SIDE];
    if (t->fresh)
        clear_sums(t, 0, m);
    tile_logits(t, w, 0, m);
    if (move_few_states(t, w, m, factors))
        scale_sums(t, 0, m, factors);
    if (wild)
        wild_values(t, w, 0, m);
    else
        few_values(t, w, 0, sums_of(t, 0));
}

/* Makes K and V of the tile at hand. Whether its values are wild. */
FN bool take_tile(const struct quire__tile *t, struct tile_work *w)
{
    uint64_t seen = 0, by_all = UINT64_MAX;
    for (uint32_t r = 0; r < t->rows; r++) {
        seen |= t->mask[r];
        by_all &= t->mask[r];
    }
    w->everybody = by_all == UINT64_MAX;
    take_all_keys(t, w);
    take_seen_values(t, w, seen);
    return seen != by_all && has_wild_values(t, w);
}

/* Tiles are shaped once a split: that takes longer than a product of sixteen rows. */
KERNEL void attend(const struct quire__tile *tiles, uint32_t n)
{
    struct tile_work w = work_of(tiles);
    bool few = tiles->rows <= SIDE / 2;
    if (tiles->first) {
        ask_now(tiles);
        shape_for_queries(few ? tiles->rows : SIDE);
    }
    for (; w.tile < n; w.tile++) {
        const struct quire__tile *t = &tiles[w.tile];
        struct asking ask = asking_after(t);
        w.ask = &ask;
        bool wild = take_tile(t, &w);
        if (few)
            few_queries(t, &w, wild);
        else
            weigh_sixteens(t, &w);
        if (!few && (wild || w.tile + 1 == n))
            add_sixteens(t, &w, wild);
    }
    if (tiles[n - 1].k_next.data == NULL)
        tiles_release();
}

#endif
