/* lone.h - products of one token: a step is multiplied in the registers where it is decoded.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_LONE_H
#define QUIRE_BACKEND_CPU_LANES_LONE_H

/* The two columns of a step of one token, over all lanes. */
FN vf step_columns(const weight_element *x)
{
#if defined(WITH_PRODUCTS)
    uint32_t pair;
    memcpy(&pair, x, sizeof pair);
    return (vf)v_spread(pair);
#else
    return v_set2(x);
#endif
}

#if defined(WITH_PRODUCTS)
/* Whether a block has two factors a row, one for each half. */
FN uint32_t parts_of(enum quire__scaling scaling)
{
    return scaling == QUIRE__SUPER_16 ? 2 : 1;
}

/* Adds the addends of a stretch, from block `first`, times the sums of x. */
FN void add_addends(const struct quire__linear *t, struct form form, vf *sums, uint32_t panel,
                    uint32_t first)
{
    for (uint32_t b = first; b < first + STRETCH_BLOCKS && b < t->panels->blocks; b++) {
        struct quire__block from = quire__block_at(t->panels, panel, b);
        vf m[ROW_VECTORS], x_sum = v_set1(t->x_sums[b * t->x_sums_stride]);
        load_addends(m, form.scaling, &from);
        UNROLL
        for (int v = 0; v < SUM_VECTORS; v++)
            sums[v] = v_fma(m[v], x_sum, sums[v]);
    }
}
#endif

#if defined(WITH_TILES)
/* What a tile's product is: even columns and odd ones have a sum each, the two are added, and the
 * result goes to zero. Whole numbers have no subnormal sums, so a multiply-add serves. */
struct part_sums {
    vf even, odd;
};

/* A block's row of x as f32: 16 even columns, then 16 odd ones. */
FN void split_columns(float *to, const weight_element *x)
{
    vu pairs;
    memcpy(&pairs, x, sizeof pairs);
    v_store(to, (vf)(pairs << 16));
    v_store(to + QUIRE__BLOCK_STEPS, (vf)(pairs & 0xffff0000u));
}

FN void add_step(struct part_sums *s, const uint8_t *codes, struct form form, int j, const float *x)
{
    vu words;
    vf even, odd;
    if (form.codes == QUIRE__NIBBLES) {
        memcpy(&words, nibble_words(codes, j), sizeof words);
        even = nibbles_of(words >> (4 * (j % 4)), offset_of(form));
        odd = nibbles_of(words >> (16 + 4 * (j % 4)), offset_of(form));
    } else {
        words = (vu)v_from_u16((const uint16_t *)(const void *)codes + j * QUIRE__PANEL_ROWS);
        even = v_float((vi)(words << 24) >> 24);
        odd = v_float((vi)(words << 16) >> 24);
    }
    s->even = v_fma(even, v_set1(x[j]), s->even);
    s->odd = v_fma(odd, v_set1(x[QUIRE__BLOCK_STEPS + j]), s->odd);
}

FN void add_block(vf *sums, const struct quire__block *from, struct form form, const float *x)
{
    int steps = QUIRE__BLOCK_STEPS / (int)parts_of(form.scaling);
    UNROLL
    for (int first = 0; first < QUIRE__BLOCK_STEPS; first += steps) {
        struct part_sums s = {{0}, {0}};
        vf d[ROW_VECTORS];
        load_factors(d, form.scaling, from, first != 0);
        UNROLL
        for (int j = first; j < first + steps; j++)
            add_step(&s, from->codes, form, j, x);
        sums[0] = v_fma(v_zero() + (s.even + s.odd), d[0], sums[0]);
    }
}

#elif defined(WITH_PRODUCTS)
FN void add_block(vf *sums, const struct quire__block *from, struct form form,
                  const weight_element *x)
{
    int steps = QUIRE__BLOCK_STEPS / (int)parts_of(form.scaling);
    UNROLL
    for (int first = 0; first < QUIRE__BLOCK_STEPS; first += steps) {
        vf d[ROW_VECTORS];
        if (form.scaling != QUIRE__PLAIN)
            load_factors(d, form.scaling, from, first != 0);
        UNROLL
        for (int v = 0; v < SUM_VECTORS; v++) {
            vf dot = form.scaling == QUIRE__PLAIN ? sums[v] : v_zero();
            UNROLL
            for (int j = first; j < first + steps; j++)
                dot =
                    step_dot(dot, step_words(from->codes, form, j, v), (vu)step_columns(x + 2 * j));
            sums[v] = form.scaling == QUIRE__PLAIN ? dot : v_fma(dot, d[v], sums[v]);
        }
    }
}

#else
FN void add_block(vf *sums, const struct quire__block *from, struct form form,
                  const weight_element *x)
{
    struct half half;
    UNROLL
    for (int i = 0; i < 2; i++, x += QUIRE__BLOCK_COLUMNS / 2) {
        load_half(&half, from, form, i);
        UNROLL
        for (int v = 0; v < STEP_VECTORS; v++) {
            UNROLL
            for (int j = 0; j < PART_STEPS; j++)
                sums[v] = v_fma(half_weights(&half, form, j, v), step_columns(x + 2 * j), sums[v]);
        }
    }
}
#endif

FN void lone_panels(const struct quire__linear *t, struct form form, vf (*sums)[SUM_VECTORS],
                    uint32_t panel, uint32_t panels)
{
    for (uint32_t b = 0; b < t->panels->blocks; b++) {
        const weight_element *x = (const weight_element *)t->x + (size_t)b * QUIRE__BLOCK_COLUMNS;
#if defined(WITH_TILES)
        float split[QUIRE__BLOCK_COLUMNS];
        split_columns(split, x);
#else
        const weight_element *split = x;
#endif
        for (uint32_t p = 0; p < panels; p++) {
            struct quire__block from = quire__block_at(t->panels, panel + p, b);
            prefetch_block(t->panels, &from, form);
#if defined(WITH_PRODUCTS)
            if (has_offset(form.scaling) && b % STRETCH_BLOCKS == 0)
                add_addends(t, form, sums[p], panel + p, b);
#endif
            add_block(sums[p], &from, form, split);
        }
    }
}

FN void lone(const struct quire__linear *t, struct form form)
{
    uint32_t end = t->first_panel + t->num_panels;
    for (uint32_t panel = t->first_panel; panel < end; panel += QUIRE__GROUP) {
        uint32_t panels = end - panel < QUIRE__GROUP ? end - panel : QUIRE__GROUP;
        vf sums[QUIRE__GROUP][SUM_VECTORS];
        memset(sums, 0, sizeof sums);
        lone_panels(t, form, sums, panel, panels);
        for (uint32_t p = 0; p < panels; p++)
            copy_rows(t, sums[p], panel + p, 0);
    }
}

#define LONE_KERNEL(name, codes, scaling)                                                          \
    KERNEL void lone_##name(const struct quire__linear *task)                                      \
    {                                                                                              \
        lone(task, (struct form){QUIRE_W_##name, codes, scaling});                                 \
    }
QUIRE__FORMAT_LIST(LONE_KERNEL)
#undef LONE_KERNEL

#if defined(WITH_TILES)
/* Tiles serve one token of a type without codes too. */
#define IS_LONE(name, codes, scaling) IS_LONE_##name = (scaling) != QUIRE__PLAIN,
enum { QUIRE__FORMAT_LIST(IS_LONE) };
#undef IS_LONE
#define LONE(name) (IS_LONE_##name ? lone_##name : NULL)
#else
#define LONE(name) lone_##name
#endif

#endif
