/* test_tiles.c - what a tile of attention leaves does not depend on what it is computed with.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tile_fixture.h"

#include <string.h>

/* The states of a case's rows, to go back to and to compare with. */
struct states {
    float max[TF_ROWS_MAX], sum[TF_ROWS_MAX], *values;
    size_t bytes;
};

static struct states states_save(const struct tf_case *c)
{
    struct states s = {.bytes = c->tile.rows * c->state_floats * sizeof(float)};
    s.values = qt_alloc(s.bytes);
    memcpy(s.max, c->max, sizeof s.max);
    memcpy(s.sum, c->sum, sizeof s.sum);
    memcpy(s.values, c->tile.state, s.bytes);
    return s;
}

static void states_restore(const struct states *s, struct tf_case *c)
{
    memcpy(c->max, s->max, sizeof s->max);
    memcpy(c->sum, s->sum, sizeof s->sum);
    memcpy(c->tile.state, s->values, s->bytes);
}

/* Random cases of all sizes, of the j-th kind. */
static struct tf_shape jth_shape(uint32_t j, uint32_t rows)
{
    return (struct tf_shape){rows, tf_sizes[j % TF_SIZES_LEN], tf_dims[j % TF_DIMS_LEN],
                             tf_dims[j * 5 % TF_DIMS_LEN]};
}

static void same(const struct quire__kernels *kernels, const char *what, size_t at, const void *got,
                 const void *want, size_t floats)
{
    if (memcmp(got, want, floats * sizeof(float)) != 0)
        fail_msg("%s at level %s, %zu: the bits differ", what, kernels->level, at);
}

/* A row's state has the same bits alone and among others, of which some see other positions. */
static void a_row_is_the_same_in_any_company(void **state)
{
    (void)state;
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        for (uint32_t j = 0; j < 40; j++) {
            struct qt_random random = {j};
            struct tf_case c;
            struct tf_shape shape = jth_shape(j, 1 + j % TF_ROWS_MAX);
            tf_open(&c, kernels, &random, &shape);
            size_t floats = c.state_floats;
            struct states before = states_save(&c);
            kernels->attend(&c.tile, 1);
            struct states after = states_save(&c);
            for (uint32_t r = j % 7; r < c.tile.rows; r += 7) {
                const float *q = c.queries + (size_t)r * c.tile.k.dim;
                struct quire__tile one = c.tile;
                if (c.mask[r] == 0)
                    continue;
                memcpy(one.state, before.values + r * floats, floats * sizeof(float));
                one.max = &before.max[r];
                one.sum = &before.sum[r];
                kernels->queries(c.q.data, &q, 1, c.tile.k.dim, TF_SCALE);
                one.rows = 1;
                one.mask = &c.mask[r];
                one.distance = &c.distance[r];
                kernels->attend(&one, 1);
                same(kernels, "a row's max", r, one.max, &after.max[r], 1);
                same(kernels, "a row's sum", r, one.sum, &after.sum[r], 1);
                for (size_t d = QUIRE__STATE_HEAD;
                     d < QUIRE__STATE_HEAD + c.tile.v.dim && !tf_sees_wild(&c, r); d++)
                    assert_true(one.state[d] == after.values[r * floats + d]); /* 0 may be -0 */
            }
            qt_free(before.values);
            qt_free(after.values);
            tf_close(&c);
        }
    }
}

/* The second case's tile, after the first one's and for the same rows. */
static struct quire__tile second_tile(const struct tf_case *first, const struct tf_case *c)
{
    struct quire__tile t = first->tile;
    t.fresh = false;
    t.positions = c->tile.positions;
    t.k = c->tile.k;
    t.v = c->tile.v;
    t.mask = c->mask;
    t.distance = c->distance;
    return t;
}

/* Two tiles at once leave the bits of one after the other: in every other case with logits so large
 * that the second one moves what exponents are taken against. */
static void two_tiles_are_one_after_the_other(void **state)
{
    (void)state;
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = kt_level(i)) != NULL; i++) {
        for (uint32_t j = 0; j < 60; j++) {
            struct qt_random random = {j};
            struct tf_case c, d;
            const float *at[TF_ROWS_MAX];
            uint32_t rows = TF_ROWS_MAX - j % 20;
            struct tf_shape shape = jth_shape(j, rows);
            tf_open(&c, kernels, &random, &shape);
            shape.positions = tf_sizes[j / 6 % TF_SIZES_LEN];
            tf_open(&d, kernels, &random, &shape);
            for (uint32_t r = 0; r < rows; r++)
                at[r] = c.queries + (size_t)r * c.tile.k.dim;
            kernels->queries(c.q.data, at, rows, c.tile.k.dim, j % 2 == 0 ? TF_SCALE : 16.0f);
            struct quire__tile tiles[2] = {c.tile, second_tile(&c, &d)};
            struct states before = states_save(&c);
            kernels->attend(&tiles[0], 1);
            kernels->attend(&tiles[1], 1);
            struct states apart = states_save(&c);
            states_restore(&before, &c);
            kernels->attend(tiles, 2);
            same(kernels, "two tiles: max", j, c.max, apart.max, rows);
            same(kernels, "two tiles: sum", j, c.sum, apart.sum, rows);
            for (uint32_t r = 0; r < rows; r++)
                same(kernels, "two tiles: values", r,
                     c.tile.state + r * c.state_floats + QUIRE__STATE_HEAD,
                     apart.values + r * c.state_floats + QUIRE__STATE_HEAD, c.tile.dim_v);
            qt_free(before.values);
            qt_free(apart.values);
            tf_close(&d);
            tf_close(&c);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_is_the_same_in_any_company),
        cmocka_unit_test(two_tiles_are_one_after_the_other),
    };
    return cmocka_run_group_tests_name("kernel/tiles", tests, NULL, NULL);
}
