/* tile_fixture.c - random tiles for the kernel `attend`, between pages that must not be touched.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tile_fixture.h"

#include <math.h>

const uint32_t tf_sizes[TF_SIZES_LEN] = {1, 5, 16, 17, 63, 64};
const uint32_t tf_dims[TF_DIMS_LEN] = {1, 7, 16, 32, 33, 64, 80, 96, 112, 128, 192, 256};
static const uint32_t kv_dtypes[] = {QUIRE_F32, QUIRE_F16, QUIRE_BF16};

static void rows_open(struct tf_rows *r, struct qt_random *random, uint32_t dtype, uint32_t n,
                      uint32_t dim, uint64_t seen)
{
    uint32_t bytes = quire_dtype_bytes(dtype), end = (n + 15) / 16 * 16;
    *r = (struct tf_rows){.n = n};
    for (uint32_t p = 0; p < n; p++) {
        r->guards[p] = kt_guard_new((size_t)dim * bytes);
        r->at[p] = r->guards[p].data;
        for (uint32_t d = 0; d < dim && (seen >> p & 1) != 0; d++)
            qt_store(dtype, qt_unit(qt_next(random)),
                     (uint8_t *)r->guards[p].data + (size_t)d * bytes);
    }
    for (uint32_t p = n; p < end; p++)
        r->at[p] = r->at[n - 1];
    r->rows =
        (struct quire__rows){.data = r->at, .dtype = dtype, .dim = dim, .row_bytes = dim * bytes};
}

static void rows_close(struct tf_rows *r)
{
    for (uint32_t p = 0; p < r->n; p++)
        kt_guard_free(&r->guards[p]);
}

double tf_element(const struct quire__rows *rows, uint32_t p, uint32_t d)
{
    return qt_load(rows->dtype, rows->data[p] + (size_t)d * quire_dtype_bytes(rows->dtype));
}

static void open_masks(struct tf_case *c, struct qt_random *random, uint32_t rows,
                       uint32_t positions)
{
    uint64_t below = UINT64_MAX >> (QUIRE__TILE - positions);
    bool even = qt_chance(random, 50); /* as in decoding: everybody sees the same */
    c->seen = 0;
    for (uint32_t r = 0; r < rows; r++) {
        uint64_t mask = qt_next(random);
        mask = r % 5 == 0 ? UINT64_MAX : r % 5 == 1 ? mask : r % 5 == 4 ? 0 : UINT64_MAX >> 3;
        c->mask[r] = (even ? UINT64_MAX : mask) & below;
        c->seen |= c->mask[r];
        c->slope[r] = 0.25f;
        c->distance[r] = -(float)qt_below(random, 1000);
        bool first = r % 2 == 0 || c->tile.fresh;
        c->max[r] = first ? -INFINITY : 3 * qt_unit(qt_next(random));
        c->sum[r] = first ? 0 : 1.5f;
    }
}

/* Sums of values that a fresh tile must not read. */
static void spoil_sums(struct tf_case *c)
{
    for (size_t i = 0; c->tile.fresh && i < c->tile.rows * c->state_floats; i++)
        c->tile.state[i] = NAN;
}

/* Makes the values of one position infinite that some rows see and some do not. */
static void open_wild(struct tf_case *c, struct qt_random *random)
{
    const struct quire__rows *v = &c->v.rows;
    uint64_t all = UINT64_MAX;
    c->wild = QUIRE__TILE;
    for (uint32_t r = 0; r < c->tile.rows; r++)
        all &= c->mask[r];
    uint64_t some = c->seen & ~all;
    if (some == 0 || qt_chance(random, 50))
        return;
    c->wild = (uint32_t)__builtin_ctzll(some);
    for (uint32_t d = 0; d < v->dim; d++)
        qt_store(v->dtype, INFINITY,
                 (uint8_t *)c->v.guards[c->wild].data + (size_t)d * quire_dtype_bytes(v->dtype));
}

bool tf_sees_wild(const struct tf_case *c, uint32_t r)
{
    return c->wild != QUIRE__TILE && (c->mask[r] >> c->wild & 1) != 0;
}

void tf_open(struct tf_case *c, const struct quire__kernels *kernels, struct qt_random *random,
             const struct tf_shape *shape)
{
    uint32_t rows = shape->rows, positions = shape->positions, dim = shape->dim;
    uint32_t dim_v = shape->dim_v, rounded = (dim_v + 15) / 16 * 16;
    *c = (struct tf_case){.state_floats = QUIRE__STATE_HEAD + rounded};
    c->tile = (struct quire__tile){.rows = rows,
                                   .positions = positions,
                                   .dim_v = rounded,
                                   .mask = c->mask,
                                   .max = c->max,
                                   .sum = c->sum,
                                   .fresh = qt_chance(random, 30),
                                   .first = true};
    c->tile.state = kt_floats(&c->state, random, rows * c->state_floats, 1);
    spoil_sums(c);
    open_masks(c, random, rows, positions);
    rows_open(&c->k, random, kv_dtypes[qt_below(random, 3)], positions, dim, c->seen);
    rows_open(&c->v, random, kv_dtypes[qt_below(random, 3)], positions, dim_v, c->seen);
    open_wild(c, random);
    c->tile.k = c->k.rows;
    c->tile.v = c->v.rows;
    c->queries = kt_floats(&c->q_in, random, (size_t)rows * dim, 1);
    const float *at[TF_ROWS_MAX];
    for (uint32_t r = 0; r < rows; r++)
        at[r] = c->queries + (size_t)r * dim;
    c->q = kt_guard_new(quire__queries_bytes(rows, dim));
    c->s = kt_guard_new((size_t)rows * QUIRE__TILE * 4);
    c->scratch = kt_guard_new(quire__tile_scratch(rows, dim, dim_v));
    kernels->queries(c->q.data, at, rows, dim, TF_SCALE);
    c->tile.q = c->q.data;
    c->tile.s = c->s.data;
    c->tile.scratch = c->scratch.data;
    c->tile.distance = c->distance;
}

void tf_close(struct tf_case *c)
{
    rows_close(&c->k);
    rows_close(&c->v);
    kt_guard_free(&c->q_in);
    kt_guard_free(&c->q);
    kt_guard_free(&c->s);
    kt_guard_free(&c->state);
    kt_guard_free(&c->scratch);
}
