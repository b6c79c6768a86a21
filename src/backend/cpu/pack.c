/* pack.c - weights from the blocks of their file into panels, and rows back out of them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Layout: panels.h. Formulas and source layouts: ref/weights.h. Nothing is computed here: codes
 * and scales move, so a weight stays the number that its file says. */
#include "base/base.h"

#include "backend/cpu/panels.h"
#include "backend/cpu/scalar.h"

#include <string.h>

/* ---- shapes ---- */

#define FORMAT_ROW(name, codes, scaling) {QUIRE_W_##name, (codes), (scaling)},
static const struct {
    uint32_t type;
    enum quire__codes codes;
    enum quire__scaling scaling;
} formats[] = {QUIRE__FORMAT_LIST(FORMAT_ROW)};
#undef FORMAT_ROW

quire_status quire__panels_shape(struct quire__panels *panels, uint32_t type, uint64_t rows,
                                 uint64_t columns)
{
    size_t i = 0;
    while (i < QUIRE_ARRAY_LEN(formats) && formats[i].type != type)
        i++;
    uint64_t num_panels = quire__ceil_div(rows, QUIRE__PANEL_ROWS), bytes;
    uint64_t blocks = quire__ceil_div(columns, QUIRE__BLOCK_COLUMNS);
    if (i == QUIRE_ARRAY_LEN(formats) || num_panels > UINT32_MAX / 2 || blocks > UINT32_MAX / 2)
        return QUIRE_E_INVAL;
    *panels = (struct quire__panels){
        .type = type,
        .codes = formats[i].codes,
        .scaling = formats[i].scaling,
        .rows = rows,
        .columns = columns,
        .num_panels = (uint32_t)num_panels,
        .blocks = (uint32_t)blocks,
    };
    panels->scales_start = blocks * quire__codes_bytes(panels->codes);
    panels->supers_start = panels->scales_start + blocks * quire__scales_bytes(panels->scaling);
    uint64_t supers = quire__ceil_div(blocks, QUIRE__SUPER_BLOCKS);
    panels->panel_bytes =
        quire__round_up(panels->supers_start + supers * quire__super_bytes(panels->scaling), 64);
    return quire__mul_u64(panels->panel_bytes, num_panels, &bytes) && bytes <= SIZE_MAX / 2
               ? QUIRE_OK
               : QUIRE_E_INVAL;
}

/* ---- units: 32 weights of one row, as every source type has them ---- */

struct unit {
    uint8_t q[QUIRE__BLOCK_COLUMNS]; /* codes; signed in two's complement */
    uint8_t d[2], m[2];              /* f16 as it lies */
    uint8_t scale[2];                /* of the unit and its offset, or of its halves */
};

/* 32 halves of 16 bytes: byte j has weight j low and weight j + 16 high. */
static void read_halves(struct unit *u, const uint8_t *bytes)
{
    for (int j = 0; j < 16; j++) {
        u->q[j] = bytes[j] & 15;
        u->q[j + 16] = bytes[j] >> 4;
    }
}

/* Adds bit 4 of the weights, and an offset. */
static void read_fifths(struct unit *u, uint32_t h, int offset)
{
    for (int j = 0; j < 32; j++)
        u->q[j] = (uint8_t)((u->q[j] | (h >> j & 1) << 4) - (uint32_t)offset);
}

static void read_Q4_0(struct unit *u, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit * 18;
    memcpy(u->d, block, 2);
    read_halves(u, block + 2);
}

static void read_Q4_1(struct unit *u, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit * 20;
    memcpy(u->d, block, 2);
    memcpy(u->m, block + 2, 2);
    read_halves(u, block + 4);
}

static void read_Q5_0(struct unit *u, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit * 22;
    memcpy(u->d, block, 2);
    read_halves(u, block + 6);
    read_fifths(u, u32_at(block + 2), 16);
}

static void read_Q5_1(struct unit *u, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit * 24;
    memcpy(u->d, block, 2);
    memcpy(u->m, block + 2, 2);
    read_halves(u, block + 8);
    read_fifths(u, u32_at(block + 4), 0);
}

static void read_Q8_0(struct unit *u, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit * 34;
    memcpy(u->d, block, 2);
    memcpy(u->q, block + 2, 32);
}

static void read_Q4_K(struct unit *u, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit / 8 * 144;
    uint32_t j = (uint32_t)(unit % 8);
    const uint8_t *q = block + 16 + j / 2 * 32;
    memcpy(u->d, block, 2);
    memcpy(u->m, block + 2, 2);
    scale_and_offset(block + 4, j, &u->scale[0], &u->scale[1]);
    for (int i = 0; i < 32; i++)
        u->q[i] = q[i] >> (j % 2 * 4) & 15;
}

static void read_Q5_K(struct unit *u, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit / 8 * 176;
    uint32_t j = (uint32_t)(unit % 8);
    const uint8_t *h = block + 16, *q = block + 48 + j / 2 * 32;
    memcpy(u->d, block, 2);
    memcpy(u->m, block + 2, 2);
    scale_and_offset(block + 4, j, &u->scale[0], &u->scale[1]);
    for (int i = 0; i < 32; i++)
        u->q[i] = (uint8_t)((q[i] >> (j % 2 * 4) & 15) | (h[i] >> j & 1) << 4);
}

static void read_Q6_K(struct unit *u, const uint8_t *row, size_t unit)
{
    const uint8_t *block = row + unit / 8 * 210;
    uint32_t n = (uint32_t)(unit % 8 / 4), j = (uint32_t)(unit % 4);
    const uint8_t *low = block + 64 * n + j % 2 * 32, *high = block + 128 + 32 * n;
    memcpy(u->d, block + 208, 2);
    memcpy(u->scale, block + 192 + 8 * n + 2 * j, 2);
    for (int i = 0; i < 32; i++)
        u->q[i] = (uint8_t)(((low[i] >> (j / 2 * 4) & 15) | (high[i] >> (2 * j) & 3) << 4) - 32);
}

static void read_unit(uint32_t type, struct unit *u, const uint8_t *row, size_t unit)
{
    switch (type) {
    case QUIRE_W_Q4_0:
        read_Q4_0(u, row, unit);
        break;
    case QUIRE_W_Q4_1:
        read_Q4_1(u, row, unit);
        break;
    case QUIRE_W_Q5_0:
        read_Q5_0(u, row, unit);
        break;
    case QUIRE_W_Q5_1:
        read_Q5_1(u, row, unit);
        break;
    case QUIRE_W_Q8_0:
        read_Q8_0(u, row, unit);
        break;
    case QUIRE_W_Q4_K:
        read_Q4_K(u, row, unit);
        break;
    case QUIRE_W_Q5_K:
        read_Q5_K(u, row, unit);
        break;
    default:
        read_Q6_K(u, row, unit);
        break;
    }
}

/* ---- a row of a panel ---- */

/* Where a row's part of a block lies. */
struct place {
    uint8_t *codes, *scales, *supers;
    uint32_t row; /* of the panel */
};

static struct place place_of(const struct quire__panels *panels, uint8_t *panel, uint32_t row,
                             size_t block)
{
    return (struct place){
        panel + block * quire__codes_bytes(panels->codes),
        panel + panels->scales_start + block * quire__scales_bytes(panels->scaling),
        panel + panels->supers_start +
            block / QUIRE__SUPER_BLOCKS * quire__super_bytes(panels->scaling),
        row,
    };
}

/* The place of weight k of a row's part of a block in the order of steps. */
static size_t step_order(uint32_t row, size_t k)
{
    return k / 2 * QUIRE__STEP_WEIGHTS + 2 * row + k % 2;
}

/* The word with weight k of a row's part of a block; its nibble is that of the step, mod 4. */
static uint8_t *nibbles_at(const struct place *place, uint32_t k)
{
    return place->codes + 64 * (k / 8) + 2 * (2 * place->row + k % 2);
}

static uint32_t nibble_shift(uint32_t k)
{
    return k / 2 % 4 * 4;
}

static void put_nibbles(const struct place *place, const uint8_t *q)
{
    for (uint32_t k = 0; k < QUIRE__BLOCK_COLUMNS; k++) {
        uint8_t *at = nibbles_at(place, k);
        uint32_t others = nibble_shift(k) == 0 ? 0 : u16_at(at);
        uint16_t word = (uint16_t)(others | (uint32_t)q[k] << nibble_shift(k));
        memcpy(at, &word, sizeof word);
    }
}

/* Elements of `bytes` bytes, in the order of steps; n of them, the others are left as they are. */
static void put_elements(const struct place *place, const uint8_t *elements, size_t bytes, size_t n)
{
    for (size_t k = 0; k < n; k++)
        memcpy(place->codes + step_order(place->row, k) * bytes, elements + k * bytes, bytes);
}

static void put_scales(const struct place *place, enum quire__scaling scaling, const struct unit *u)
{
    uint8_t *halves =
        scaling == QUIRE__SCALED || scaling == QUIRE__OFFSET ? place->scales : place->supers;
    memcpy(halves + 2 * place->row, u->d, 2);
    if (scaling == QUIRE__OFFSET || scaling == QUIRE__SUPER)
        memcpy(halves + 32 + 2 * place->row, u->m, 2);
    if (scaling == QUIRE__SUPER || scaling == QUIRE__SUPER_16) {
        place->scales[place->row] = u->scale[0];
        place->scales[16 + place->row] = u->scale[1];
    }
}

static void pack_row(const struct quire__panels *panels, uint8_t *panel, uint32_t row,
                     const uint8_t *data)
{
    for (size_t b = 0; b < panels->blocks; b++) {
        struct place place = place_of(panels, panel, row, b);
        size_t left = panels->columns - b * QUIRE__BLOCK_COLUMNS;
        size_t n = left < QUIRE__BLOCK_COLUMNS ? left : QUIRE__BLOCK_COLUMNS;
        size_t bytes = quire__codes_bytes(panels->codes) / QUIRE__BLOCK_WEIGHTS;
        if (panels->scaling == QUIRE__PLAIN) {
            put_elements(&place, data + b * QUIRE__BLOCK_COLUMNS * bytes, bytes, n);
            continue;
        }
        struct unit u;
        read_unit(panels->type, &u, data, b);
        if (panels->codes == QUIRE__NIBBLES)
            put_nibbles(&place, u.q);
        else
            put_elements(&place, u.q, 1, n);
        put_scales(&place, panels->scaling, &u);
    }
}

void quire__panels_pack(const struct quire__panels *panels, uint64_t i, const uint8_t *rows)
{
    uint64_t row_bytes = 0, left = panels->rows - i * QUIRE__PANEL_ROWS;
    (void)quire_weight_row_bytes(panels->type, panels->columns, &row_bytes);
    uint8_t *panel = quire__panel_at(panels, i);
    if (left < QUIRE__PANEL_ROWS || panels->columns % QUIRE__BLOCK_COLUMNS != 0)
        memset(panel, 0, panels->panel_bytes);
    for (uint32_t r = 0; r < QUIRE__PANEL_ROWS && r < left; r++)
        pack_row(panels, panel, r, rows + r * row_bytes);
}

/* ---- rows back ---- */

/* The factor and the addend of the weights of one half of a block. */
struct line {
    float d, m;
};

static struct line line_of(const struct quire__panels *panels, const struct place *place,
                           uint32_t half)
{
    uint32_t r = place->row;
    const uint8_t *scales = place->scales, *supers = place->supers;
    switch (panels->scaling) {
    case QUIRE__SCALED:
        return (struct line){f16_to_f32(u16_at(scales + 2 * r)), 0.0f};
    case QUIRE__OFFSET:
        return (struct line){f16_to_f32(u16_at(scales + 2 * r)),
                             f16_to_f32(u16_at(scales + 32 + 2 * r))};
    case QUIRE__SUPER:
        return (struct line){f16_to_f32(u16_at(supers + 2 * r)) * (float)scales[r],
                             -(f16_to_f32(u16_at(supers + 32 + 2 * r)) * (float)scales[16 + r])};
    default:
        return (struct line){
            f16_to_f32(u16_at(supers + 2 * r)) * (float)(int8_t)scales[16 * half + r], 0.0f};
    }
}

static int code_of(const struct quire__panels *panels, const struct place *place, uint32_t k)
{
    if (panels->codes == QUIRE__BYTES)
        return (int8_t)place->codes[step_order(place->row, k)];
    int q = u16_at(nibbles_at(place, k)) >> nibble_shift(k) & 15;
    return panels->scaling == QUIRE__SCALED ? q - 8 : q;
}

static float element_of(const struct quire__panels *panels, const struct place *place, uint32_t k)
{
    size_t at = step_order(place->row, k);
    if (panels->codes == QUIRE__FLOATS)
        return f32_from(u32_at(place->codes + 4 * at));
    uint16_t half = u16_at(place->codes + 2 * at);
    return panels->type == QUIRE_W_F16 ? f16_to_f32(half) : bf16_to_f32(half);
}

/* n weights from weight k of the row's part of a block, in one half of it. */
static void unpack_half(const struct quire__panels *panels, const struct place *place, uint32_t k,
                        uint32_t n, float *to)
{
    if (panels->scaling == QUIRE__PLAIN) {
        for (uint32_t i = 0; i < n; i++)
            to[i] = element_of(panels, place, k + i);
        return;
    }
    struct line line = line_of(panels, place, k / 16);
    bool offset = panels->scaling == QUIRE__OFFSET || panels->scaling == QUIRE__SUPER;
    for (uint32_t i = 0; i < n; i++) {
        float scaled = line.d * (float)code_of(panels, place, k + i);
        to[i] = offset ? scaled + line.m : scaled;
    }
}

void quire__panels_row(const struct quire__panels *panels, uint64_t row, float *to)
{
    uint8_t *panel = quire__panel_at(panels, row / QUIRE__PANEL_ROWS);
    for (size_t k = 0; k < panels->columns; k += 16) {
        struct place place =
            place_of(panels, panel, (uint32_t)(row % QUIRE__PANEL_ROWS), k / QUIRE__BLOCK_COLUMNS);
        size_t left = panels->columns - k;
        unpack_half(panels, &place, (uint32_t)(k % QUIRE__BLOCK_COLUMNS),
                    left < 16 ? (uint32_t)left : 16, to + k);
    }
}

void quire__block_decode(const struct quire__block *from, uint32_t type, float *to)
{
    struct quire__panels panels;
    (void)quire__panels_shape(&panels, type, QUIRE__PANEL_ROWS, QUIRE__BLOCK_COLUMNS);
    for (uint32_t r = 0; r < QUIRE__PANEL_ROWS; r++) {
        struct place place = {(uint8_t *)(uintptr_t)from->codes, (uint8_t *)(uintptr_t)from->scales,
                              (uint8_t *)(uintptr_t)from->supers, r};
        for (uint32_t k = 0; k < QUIRE__BLOCK_COLUMNS; k++)
            unpack_half(&panels, &place, k, 1, to + step_order(r, k));
    }
}
