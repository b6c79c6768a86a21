/* panels.h - the form in which weights are kept: panels of 16 rows, cut into blocks of 32 columns.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A panel has the codes of all its blocks, then their scales, then the scales of every 8 blocks:
 *
 *     codes [blocks]    in the order of steps: a step is two columns of 16 rows, 32 weights in the
 *                       order [row][column], which is what 16 lanes of bfloat16 pairs are
 *     scales [blocks]   [16 rows], twice where there are offsets or halves
 *     supers [blocks/8] [16 rows] f16, twice where there are offsets
 *
 * NIBBLES of a block are 4 x 32 words of 16 bits: word i of part u has, for the steps 4 u to
 * 4 u + 4 in its 4 nibbles, the weight i of the step. So a shift brings the weights of a step to
 * the bottom of 32 lanes. BYTES, and the types without codes, are as the steps are.
 *
 * Rows past the last one and columns past the last one are 0. */
#ifndef QUIRE_BACKEND_CPU_PANELS_H
#define QUIRE_BACKEND_CPU_PANELS_H

#include <stdint.h>

#include <quire/types.h>

enum {
    QUIRE__PANEL_ROWS = 16,
    QUIRE__BLOCK_COLUMNS = 32,
    QUIRE__BLOCK_STEPS = 16,
    QUIRE__STEP_WEIGHTS = 32,
    QUIRE__BLOCK_WEIGHTS = 512,
    QUIRE__SUPER_BLOCKS = 8, /* blocks of a super-block */
};

/* How the whole numbers of a type are kept; types without any keep their elements. */
enum quire__codes {
    QUIRE__NIBBLES, /* 0 .. 15 */
    QUIRE__BYTES,   /* signed */
    QUIRE__WORDS,   /* f16 or bf16 */
    QUIRE__FLOATS,
};

/* What makes a weight of its code q. */
enum quire__scaling {
    QUIRE__PLAIN,    /* the element itself */
    QUIRE__SCALED,   /* d (q - 8) of nibbles, d q of bytes; d f16 of a block */
    QUIRE__OFFSET,   /* d q + m; d and m f16 of a block */
    QUIRE__SUPER,    /* (d s) q - (m o); s and o bytes of a block, d and m f16 of a super-block */
    QUIRE__SUPER_16, /* (d s) q; s signed, of each 16 columns of a block; d f16 of a super-block */
};

/* X(name, codes, scaling): the format of every weight type. */
#define QUIRE__FORMAT_LIST(X)                                                                      \
    X(F32, QUIRE__FLOATS, QUIRE__PLAIN)                                                            \
    X(F16, QUIRE__WORDS, QUIRE__PLAIN)                                                             \
    X(BF16, QUIRE__WORDS, QUIRE__PLAIN)                                                            \
    X(Q4_0, QUIRE__NIBBLES, QUIRE__SCALED)                                                         \
    X(Q4_1, QUIRE__NIBBLES, QUIRE__OFFSET)                                                         \
    X(Q5_0, QUIRE__BYTES, QUIRE__SCALED)                                                           \
    X(Q5_1, QUIRE__BYTES, QUIRE__OFFSET)                                                           \
    X(Q8_0, QUIRE__BYTES, QUIRE__SCALED)                                                           \
    X(Q4_K, QUIRE__NIBBLES, QUIRE__SUPER)                                                          \
    X(Q5_K, QUIRE__BYTES, QUIRE__SUPER)                                                            \
    X(Q6_K, QUIRE__BYTES, QUIRE__SUPER_16)

/* Bytes of the parts of a panel, for one block and one super-block. */
static inline uint32_t quire__codes_bytes(enum quire__codes codes)
{
    static const uint16_t bytes[] = {256, 512, 1024, 2048};
    return bytes[codes];
}

static inline uint32_t quire__scales_bytes(enum quire__scaling scaling)
{
    static const uint8_t bytes[] = {0, 32, 64, 32, 32};
    return bytes[scaling];
}

static inline uint32_t quire__super_bytes(enum quire__scaling scaling)
{
    static const uint8_t bytes[] = {0, 0, 0, 64, 32};
    return bytes[scaling];
}

/* The panels of a matrix. */
struct quire__panels {
    uint8_t *data; /* aligned to 64 bytes */
    uint32_t type; /* enum quire_weight_type */
    enum quire__codes codes;
    enum quire__scaling scaling;
    uint64_t rows, columns;
    uint32_t num_panels;
    uint32_t blocks;       /* of a panel */
    uint64_t panel_bytes;  /* a multiple of 64 */
    uint64_t scales_start; /* bytes from the start of a panel */
    uint64_t supers_start;
};

static inline uint8_t *quire__panel_at(const struct quire__panels *panels, uint64_t i)
{
    return panels->data + i * panels->panel_bytes;
}

/* Where the parts of one block of a panel lie. */
struct quire__block {
    const uint8_t *codes, *scales, *supers;
};

static inline struct quire__block quire__block_at(const struct quire__panels *panels,
                                                  uint64_t panel, uint64_t block)
{
    const uint8_t *p = quire__panel_at(panels, panel);
    return (struct quire__block){
        p + block * quire__codes_bytes(panels->codes),
        p + panels->scales_start + block * quire__scales_bytes(panels->scaling),
        p + panels->supers_start +
            block / QUIRE__SUPER_BLOCKS * quire__super_bytes(panels->scaling),
    };
}

/* Fills in everything but data. INVAL for a matrix that is too large. */
quire_status quire__panels_shape(struct quire__panels *panels, uint32_t type, uint64_t rows,
                                 uint64_t columns);
/* Packs panel i from the rows of its type, which begin at `rows`; formulas: ref/weights.h. */
void quire__panels_pack(const struct quire__panels *panels, uint64_t i, const uint8_t *rows);
/* Row `row` as f32: the very numbers that the dequant_* of ref/weights.h give. */
void quire__panels_row(const struct quire__panels *panels, uint64_t row, float *to);
/* A block as f32, in the order of steps, padding included. */
void quire__block_decode(const struct quire__block *from, uint32_t type, float *to);

#endif
