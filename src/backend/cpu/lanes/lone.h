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
#endif

/* A block of the prepared row. */
struct row_block {
    const weight_element *x;
    float scale, sum; /* where the weights have codes and the level multiplies bf16 */
};

FN struct row_block row_block_at(const struct quire__linear *t, uint32_t b)
{
    struct row_block block = {(const weight_element *)t->x + (size_t)b * QUIRE__BLOCK_COLUMNS, 1,
                              0};
#if defined(WITH_TILES)
    if (t->panels->scaling == QUIRE__PLAIN)
        block.x = (const weight_element *)t->x + (size_t)b * X_PART_ELEMENTS;
#endif
    if (t->panels->scaling != QUIRE__PLAIN && t->at.scales != NULL) {
        block.scale = t->at.scales[b * t->at.stride];
        block.sum = t->at.sums[b * t->at.stride];
    }
    return block;
}

#if defined(WITH_TILES)
/* A block as a tile multiplies it: even and odd columns have a sum each, and both are added. */
FN void add_plain_block(vf *sums, const struct quire__block *from, struct form form,
                        const struct row_block *x)
{
    vf even = v_zero(), odd = v_zero();
    UNROLL
    for (int j = 0; j < QUIRE__BLOCK_STEPS; j++) {
        vu pairs = step_words(from->codes, form, j, 0), columns = (vu)step_columns(x->x + 2 * j);
        even = v_fma_flushed((vf)(pairs << 16), (vf)(columns << 16), even);
        odd = v_fma_flushed((vf)(pairs & 0xffff0000u), (vf)(columns & 0xffff0000u), odd);
    }
    sums[0] = v_add_flushed(sums[0], v_add_flushed(even, odd));
}
#elif defined(WITH_PRODUCTS)
FN void add_plain_block(vf *sums, const struct quire__block *from, struct form form,
                        const struct row_block *x)
{
    UNROLL
    for (int v = 0; v < SUM_VECTORS; v++) {
        UNROLL
        for (int j = 0; j < QUIRE__BLOCK_STEPS; j++)
            sums[v] = v_dot2(sums[v], step_words(from->codes, form, j, v),
                             (vu)step_columns(x->x + 2 * j));
    }
}
#endif

#if defined(WITH_PRODUCTS)
/* What a block comes to, scaled, and its addends. */
FN void add_coded_block(vf *sums, const struct quire__block *from, struct form form,
                        const struct row_block *x)
{
    int steps = QUIRE__BLOCK_STEPS / (int)parts_of(form.scaling);
    UNROLL
    for (int first = 0; first < QUIRE__BLOCK_STEPS; first += steps) {
        vf d[ROW_VECTORS];
        load_factors(d, form.scaling, from, first != 0);
        UNROLL
        for (int v = 0; v < SUM_VECTORS; v++) {
            vi dot = v_spread(0);
            UNROLL
            for (int j = first; j < first + steps; j++)
                dot = v_dot_words(dot, step_codes(from->codes, form, j, v),
                                  (vu)step_columns(x->x + 2 * j));
            sums[v] = v_fma(v_float(dot) * v_set1(x->scale), d[v], sums[v]);
        }
    }
    if (has_offset(form.scaling)) {
        vf m[ROW_VECTORS];
        load_addends(m, form.scaling, from);
        UNROLL
        for (int v = 0; v < SUM_VECTORS; v++)
            sums[v] = v_fma(m[v], v_set1(x->sum), sums[v]);
    }
}

FN void add_block(vf *sums, const struct quire__block *from, struct form form,
                  const struct row_block *x)
{
    if (form.scaling == QUIRE__PLAIN)
        add_plain_block(sums, from, form, x);
    else
        add_coded_block(sums, from, form, x);
}

#else
FN void add_block(vf *sums, const struct quire__block *from, struct form form,
                  const struct row_block *block)
{
    const weight_element *x = block->x;
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
        struct row_block x = row_block_at(t, b);
        for (uint32_t p = 0; p < panels; p++) {
            struct quire__block from = quire__block_at(t->panels, panel + p, b);
            prefetch_block(t->panels, &from, form);
            add_block(sums[p], &from, form, &x);
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
#define LONE(name) lone_##name

#endif
