/* decode.h - panels of weights decoded on lanes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The layout stands in panels.h, the formulas in ref/weights.h. A step is STEP_VECTORS vectors:
 * lane i of vector v is weight v LANES + i, so two neighbouring lanes are two columns of one row.
 * Where the level rounds, a step becomes 32 bf16: one row of a tile, or 16 lanes of pairs. */
#ifndef QUIRE_BACKEND_CPU_LANES_DECODE_H
#define QUIRE_BACKEND_CPU_LANES_DECODE_H

enum {
    STEP_VECTORS = QUIRE__STEP_WEIGHTS / LANES,
    HALF_STEPS = QUIRE__BLOCK_STEPS / 2,
};

#if defined(WITH_PRODUCTS)
typedef uint16_t weight_element;
#else
typedef float weight_element;
#endif

#if defined(WITH_PRODUCTS)
/* Emulated instructions are long: unrolled loops call them. */
#if defined(QUIRE_EMULATE)
#define STEP_FN static __attribute__((noinline, unused)) TARGET
#else
#define STEP_FN FN
#endif
STEP_FN vu step_pairs(vf low, vf high)
{
    return v_pack2(low, high);
}

STEP_FN vf step_dot(vf sum, vu w, vu x)
{
    return v_dot2(sum, w, x);
}
#endif

FN void put_step(weight_element *to, const vf *w)
{
#if defined(WITH_PRODUCTS)
    UNROLL
    for (int v = 0; v < STEP_VECTORS; v += 2) {
        vu pairs = step_pairs(w[v], w[v + 1]);
        memcpy(to + v * LANES, &pairs, sizeof pairs);
    }
#else
    UNROLL
    for (int v = 0; v < STEP_VECTORS; v++)
        v_store(to + v * LANES, w[v]);
#endif
}

/* Factors, and addends where there are any, of the lanes of a step. */
struct lines {
    vf d[STEP_VECTORS], m[STEP_VECTORS];
};

/* 16 numbers, one a row, to the two lanes of each row. */
FN void spread_rows(vf *lanes, const vf *rows)
{
    UNROLL
    for (int i = 0; i < STEP_VECTORS / 2; i++) {
        lanes[2 * i] = v_interleave_low(rows[i], rows[i]);
        lanes[2 * i + 1] = v_interleave_high(rows[i], rows[i]);
    }
}

/* The lines of half a block; scaling is a constant. */
FN void load_lines(struct lines *lines, enum quire__scaling scaling, const uint8_t *scales,
                   const uint8_t *supers, int half)
{
    vf d[STEP_VECTORS / 2], m[STEP_VECTORS / 2];
    UNROLL
    for (int i = 0; i < STEP_VECTORS / 2; i++) {
        int at = i * LANES;
        if (scaling == QUIRE__SCALED || scaling == QUIRE__OFFSET) {
            d[i] = v_from_f16((const uint16_t *)(const void *)scales + at);
        } else {
            d[i] = v_from_f16((const uint16_t *)(const void *)supers + at);
            d[i] *= v_float(scaling == QUIRE__SUPER ? v_from_u8(scales + at)
                                                    : v_from_i8(scales + 16 * half + at));
        }
        if (scaling == QUIRE__OFFSET)
            m[i] = v_from_f16((const uint16_t *)(const void *)scales + 16 + at);
        if (scaling == QUIRE__SUPER)
            m[i] = -v_from_f16((const uint16_t *)(const void *)supers + 16 + at) *
                   v_float(v_from_u8(scales + 16 + at));
    }
    spread_rows(lines->d, d);
    if (scaling == QUIRE__OFFSET || scaling == QUIRE__SUPER)
        spread_rows(lines->m, m);
}

FN vf weight_of(vf q, vf d, vf m, enum quire__scaling scaling)
{
    return scaling == QUIRE__OFFSET || scaling == QUIRE__SUPER ? v_fma(q, d, m) : q * d;
}

/* The whole numbers at the bottom of the lanes; the bits above mean nothing. */
FN vf nibbles_of(vu word, int offset)
{
#if LANES == 16
    vf table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return v_look_up(table - (float)offset, (vi)word);
#else
    return v_float((vi)(word & 15u) - offset);
#endif
}

/* What is known of a type when the kernels are compiled. */
struct form {
    uint32_t type;
    enum quire__codes codes;
    enum quire__scaling scaling;
};

/* Half a block: 8 steps. */
struct half {
    const uint8_t *codes;
    struct lines lines;
};

/* The lines of the first half are those of the second but for halves with scales of their own. */
FN void load_half(struct half *half, const struct quire__block *from, struct form form, int i)
{
    half->codes = from->codes + (size_t)i * quire__codes_bytes(form.codes) / 2;
    if (form.scaling != QUIRE__PLAIN && (i == 0 || form.scaling == QUIRE__SUPER_16))
        load_lines(&half->lines, form.scaling, from->scales, from->supers, i);
}

/* Vector v of step j. */
FN vf half_weights(const struct half *half, struct form form, int j, int v)
{
    size_t at = (size_t)j * QUIRE__STEP_WEIGHTS + (size_t)v * LANES;
    vf q;
    if (form.scaling == QUIRE__PLAIN) {
        uint32_t dtype = form.type == QUIRE_W_F32   ? QUIRE_F32
                         : form.type == QUIRE_W_F16 ? QUIRE_F16
                                                    : QUIRE_BF16;
        return element_load(dtype, element_at(dtype, half->codes, at));
    }
    if (form.codes == QUIRE__NIBBLES) {
        vu words;
        memcpy(&words, half->codes + (size_t)(v * LANES) * 4, sizeof words);
        q = nibbles_of(words >> (4 * j), form.scaling == QUIRE__SCALED ? 8 : 0);
    } else {
        q = v_float(v_from_i8(half->codes + at));
    }
    return weight_of(q, half->lines.d[v], half->lines.m[v], form.scaling);
}

FN void decode_block(weight_element *to, const struct quire__block *from, struct form form)
{
    struct half half;
    UNROLL
    for (int i = 0; i < 2; i++) {
        load_half(&half, from, form, i);
        UNROLL
        for (int j = 0; j < HALF_STEPS; j++, to += QUIRE__STEP_WEIGHTS) {
            vf w[STEP_VECTORS];
            UNROLL
            for (int v = 0; v < STEP_VECTORS; v++)
                w[v] = half_weights(&half, form, j, v);
            put_step(to, w);
        }
    }
}

#define DECODE_KERNEL(name, codes, scaling)                                                        \
    KERNEL void decode_##name(void *to, const struct quire__block *from)                           \
    {                                                                                              \
        decode_block(to, from, (struct form){QUIRE_W_##name, codes, scaling});                     \
    }
QUIRE__FORMAT_LIST(DECODE_KERNEL)
#undef DECODE_KERNEL

#endif
