/* kernels.h - the one list of CPU kernels, and the table that every level fills.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Glossary: a level is one way to compile the kernels, with one arithmetic; a tile is 64 positions
 * at a multiple of 64; a split is 512 positions at a multiple of 512; a row of a tile is one query
 * head of one token; a panel is 16 rows of a weight matrix, as panels.h describes. */
#ifndef QUIRE_BACKEND_CPU_KERNELS_H
#define QUIRE_BACKEND_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quire/status.h>
#include <quire/types.h>

#include "backend/cpu/panels.h"

enum {
    QUIRE__TILE = 64,
    QUIRE__TILES_AT_ONCE = 2, /* at most, in one call of `attend` */
    QUIRE__SPLIT = 512,
    QUIRE__LANES_MAX = 16,
    QUIRE__HEAD_DIM_MAX = 512,
    QUIRE__READ_UNIT = 1024,     /* bytes that read_all takes at a time */
    QUIRE__PEAK_ROUND = 3 << 15, /* multiply-adds of a round of peak_* */
};

/* What one split comes to for a row, and several splits that were merged: a head of
 * QUIRE__STATE_HEAD floats, then the sums of values. */
enum {
    QUIRE__STATE_MAX = 0,   /* as `max` of a tile */
    QUIRE__STATE_SUM = 1,   /* as `sum` of a tile */
    QUIRE__STATE_ALPHA = 2, /* what the sums of values are still to be multiplied by */
    QUIRE__STATE_HEAD = 16, /* keeps the sums aligned to the widest vector */
};

/* The rows of K or V of a tile's positions, one pointer each, up to the next multiple of 16
 * positions. Where no query looks, the pointer is another position's. */
struct quire__rows {
    const uint8_t *const *data;   /* NULL where a tile has no next one */
    const uint8_t *const *scales; /* of q8 and q4, else NULL */
    uint32_t dtype, dim;
    uint32_t row_bytes; /* of data */
};

/* How far a logit may lie over what exponents are taken against, at a level with tiles: ln 256.
 * Weights are at most 256 but for what rounds a sum of large logits, as anywhere. */
#define QUIRE__SLACK 0x1.62e43p+2f

/* The queries of one K/V head at one tile. */
struct quire__tile {
    uint32_t rows;
    uint32_t positions; /* 1..64: the highest visible position of any row, plus 1 */
    uint32_t dim_v;     /* Dv, rounded up to a multiple of QUIRE__LANES_MAX */
    struct quire__rows k, v;
    struct quire__rows k_next,
        v_next;    /* [64] of what comes next in the split, to be asked for; data NULL: nothing */
    const void *q; /* [rows] as `queries` laid them out */
    const uint64_t *mask;  /* [rows]: bit p is set when the row sees position p of the tile */
    float *s;              /* [rows][64], for the kernel's use */
    float *max;            /* [rows]: largest logit so far, or what is at most QUIRE__SLACK under
                              it; -inf before the first position */
    float *sum;            /* [rows]: of exp(logit - max) */
    float *state;          /* [rows][QUIRE__STATE_HEAD + dim_v], of which attend has the sums of
                              values and QUIRE__STATE_ALPHA */
    bool fresh;            /* the first tile of a split: sums of values are not there yet */
    bool first;            /* of a split, of all heads: memory was not asked for its rows */
    void *scratch;         /* quire__tile_scratch bytes, 64-byte aligned, for the kernel's use */
    float softcap;         /* 0: off */
    const float *slope;    /* [rows] ALiBi slopes, or NULL */
    const float *distance; /* [rows]: first position of the tile minus the row's position */
};

/* Bytes of queries in any level's form. */
static inline size_t quire__queries_bytes(uint32_t rows, uint32_t dim)
{
    return (size_t)rows * ((dim + 31u) / 32u * 32u) * sizeof(float);
}

/* Bytes of a tile's scratch: its K or V as f32 or, as bfloat16, its K and the V of two tiles, the
 * logits of twice 16 queries, and of each 16 their weights and one byte. */
static inline size_t quire__tile_scratch(uint32_t rows, uint32_t dim, uint32_t dim_v)
{
    size_t columns = ((dim > dim_v ? dim : dim_v) + 31u) / 32u * 32u, sixteens = (rows + 15u) / 16u;
    return QUIRE__TILE * (6 * columns + 128) + sixteens * (QUIRE__TILES_AT_ONCE * 2048 + 1);
}

/* The scratch of a thread that multiplies: a stretch of decoded panels, the sums of panels whose
 * other stretches are still to come, and products that are still to be scaled. */
enum {
    QUIRE__TOKENS_MAX = 512, /* of one `linear` */
    QUIRE__GROUP = 4,        /* panels that are multiplied together */
    QUIRE__DECODED_BYTES = 64 << 10,
    QUIRE__SUMS_BYTES = 512 << 10,
    QUIRE__DOTS_BYTES = 4 << 10,
    QUIRE__SCRATCH_BYTES = QUIRE__DECODED_BYTES + QUIRE__SUMS_BYTES + QUIRE__DOTS_BYTES,
};

/* Decodes some blocks of a panel, from one on. */
typedef void quire__decode_fn(void *to, const struct quire__panels *panels, uint32_t panel,
                              uint32_t block, uint32_t blocks);

struct quire__weight_kernels;

/* What `prepare` says of each block of a row, where the weights have codes and the level multiplies
 * bf16: [blocks][tokens]. */
struct quire__lines {
    float *scales;
    float *sums;
    size_t stride; /* tokens, rounded up to 16: so many may be read */
};

/* y [tokens, rows] = x [tokens, columns] times the transposed rows of some panels. */
struct quire__linear {
    const struct quire__panels *panels;
    const struct quire__weight_kernels *type; /* the level's, for the type of the panels */
    uint32_t first_panel, num_panels;
    const void *x;          /* rows prepared for so many tokens */
    size_t x_stride;        /* bytes */
    struct quire__lines at; /* of the rows' blocks */
    float *y;               /* of the matrix's row 0 */
    size_t y_stride;        /* elements */
    uint32_t tokens;        /* 1 .. QUIRE__TOKENS_MAX */
    void *scratch;          /* QUIRE__SCRATCH_BYTES, aligned to 64 */
};

/* Rows of x as the caller has them, for `prepare`. */
struct quire__inputs {
    const float *x;
    size_t x_stride; /* elements */
    size_t columns;
    uint32_t rows;
    void *to;
    size_t to_stride;       /* bytes; at least x_bytes for each column of whole blocks */
    struct quire__lines at; /* of the first row */
    uint32_t tokens;        /* of the `linear` that the rows are for */
    bool codes;             /* the weights are of a type with codes */
};

/* clang-format off */
/* X(name, parameters). Every kernel works on any alignment that suits the element type, reads and
 * writes nothing outside of its ranges, and gives results that depend on the level alone.
 *
 * load_*, store_*  n elements to or from f32; stores round to nearest even, NaN stays NaN (quiet),
 *                  too large for f16 becomes infinite. Stores agree bit for bit at all levels
 * *_q8, *_q4       the same of one K/V row, whose bytes docs/formats/kv.md gives; dim is a multiple
 *                  of 16. Loads agree bit for bit as well
 * rotate           turns one row by blocks, as docs/formats/kv.md says, with the same bits at all
 *                  levels; to may be from. rotate_finite takes NaN and infinities as q8 and q4 do
 * queries          scales n rows of q and lays them out as the level's `attend` wants them
 * attend           one tile: logits, softcap, ALiBi, mask, softmax, sums of values; moves the rows'
 *                  states on. A row whose mask is 0 keeps its state, but for the sign of zeros. Two
 *                  tiles have the bits of one after the other: they differ in what comes from K/V,
 *                  masks and distances, and the second is not fresh
 * merge            folds one split's state into the totals; a split that saw nothing, max -inf and
 *                  sum 0, is skipped
 * finish           out = sums / sum, or 0 where sum is 0; *sink, if not NULL, joins the sum as one
 *                  more logit; *lse, if not NULL, becomes the log of the whole denominator. Zeros
 *                  are positive
 * prepare          rows of x as `linear` takes them: padded with zeros to whole blocks. The levels
 *                  that multiply bf16 round x to it or, where the weights have codes, to multiples
 *                  of a power of two, the block's scale: X of at most 2^12 in size, so that the
 *                  largest has 12 bits or 13. Blocks below 2^-100 are 0; those that reach 2^115 or
 *                  are no numbers are NaN. Row i begins i to_stride bytes after `to`; X has 16
 *                  bits. At levels with tiles rows lie 16 side by side instead, [blocks][16][32] of
 *                  bf16, unless weights have codes and there is one token; X is two parts there,
 *                  [blocks][2][16][32]: multiples of 32 scale, and the rests. There `to` has
 *                  room for whole sixteens of rows, and is where one of them begins
 * linear           y = x w': the products of a row and a token are summed in one order, whatever
 *                  the number of tokens; NaN and infinity stay in their token's row of y
 * norm, rotary_*, silu, gelu, add, scale, argmax
 *                  one row, as <quire/backend.h> describes; table [n/2][2] holds cosine and sine
 * read_all         *all becomes the exclusive or of the 64-bit words of `bytes` bytes, a multiple
 *                  of QUIRE__READ_UNIT, as fast as memory allows
 * peak_f32         rounds x QUIRE__PEAK_ROUND multiply-adds x = x / 2 + 1 in independent chains
 *                  from x = 1 on, as fast as the level has them; *end becomes the x of all: 2
 * peak_bf16        the same number of products 1 x 1 of bf16, in sums of f32; *end becomes twice
 *                  the part of them that is in the sums: 2, up to 2^16 rounds. A level that would
 *                  multiply them as f32 does what peak_f32 does
 * peak_codes       the same of the products of weights with codes: of words of 16 bits, or what
 *                  peak_bf16 does
 *
 * and for each weight type
 * decode           blocks in the order of steps, as f32; the formulas stand in ref/weights.h.
 *                  Where the level multiplies bf16, elements rounded to it or, of types with codes,
 *                  the codes' whole numbers, in 16 bits or, for tiles, bf16; then d [16] and m [16]
 *                  of the rows, or d [2][16] of both halves, as f32
 * lone             what `linear` does for one token, without a decoded copy. NULL at level ref */
/* clang-format on */
#define QUIRE__ATTEND_LIST(X)                                                                      \
    X(load_f16, (float *to, const uint16_t *from, size_t n))                                       \
    X(load_bf16, (float *to, const uint16_t *from, size_t n))                                      \
    X(store_f16, (uint16_t * to, const float *from, size_t n))                                     \
    X(store_bf16, (uint16_t * to, const float *from, size_t n))                                    \
    X(queries, (void *to, const float *const *rows, uint32_t n, uint32_t dim, float scale))        \
    X(attend, (const struct quire__tile *tiles, uint32_t n))                                       \
    X(merge, (float *total, const float *state, uint32_t dim_v))                                   \
    X(finish, (float *out, float *lse, const float *total, const float *sink, uint32_t dim))

#define QUIRE__KV_LIST(X)                                                                          \
    X(load_q8, (float *to, const uint8_t *data, const uint8_t *scales, uint32_t dim))              \
    X(load_q4, (float *to, const uint8_t *data, const uint8_t *scales, uint32_t dim))              \
    X(store_q8, (uint8_t * data, uint8_t * scales, const float *from, uint32_t dim))               \
    X(store_q4, (uint8_t * data, uint8_t * scales, const float *from, uint32_t dim))               \
    X(rotate, (float *to, const float *from, uint32_t dim))                                        \
    X(rotate_finite, (float *to, const float *from, uint32_t dim))

#define QUIRE__LINEAR_LIST(X)                                                                      \
    X(prepare, (const struct quire__inputs *rows))                                                 \
    X(linear, (const struct quire__linear *task))

#define QUIRE__NN_LIST(X)                                                                          \
    X(norm, (float *y, const float *x, const float *weight, size_t n, float epsilon))              \
    X(rotary_pairs, (float *x, const float *table, size_t n))                                      \
    X(rotary_halves, (float *x, const float *table, size_t n))                                     \
    X(silu, (float *y, const float *gate, const float *up, size_t n))                              \
    X(gelu, (float *y, const float *gate, const float *up, size_t n))                              \
    X(add, (float *y, const float *x, size_t n))                                                   \
    X(scale, (float *x, float factor, size_t n))                                                   \
    X(argmax, (uint32_t * index, const float *x, size_t n))

#define QUIRE__PEAK_LIST(X)                                                                        \
    X(read_all, (uint64_t * all, const uint8_t *memory, size_t bytes))                             \
    X(peak_f32, (float *end, size_t rounds))                                                       \
    X(peak_bf16, (float *end, size_t rounds))                                                      \
    X(peak_codes, (float *end, size_t rounds))

#define QUIRE__KERNEL_LIST(X)                                                                      \
    QUIRE__ATTEND_LIST(X)                                                                          \
    QUIRE__KV_LIST(X) QUIRE__LINEAR_LIST(X) QUIRE__NN_LIST(X) QUIRE__PEAK_LIST(X)

/* The kernels of one weight type. */
struct quire__weight_kernels {
    uint32_t type;            /* enum quire_weight_type */
    uint32_t elements, bytes; /* of a block in the file */
    quire__decode_fn *decode;
    void (*lone)(const struct quire__linear *task);
};

#define QUIRE__COUNT_WEIGHT(name, value, elements, bytes, text) +1
enum { QUIRE__NUM_WEIGHTS = 0 QUIRE_WEIGHT_LIST(QUIRE__COUNT_WEIGHT) };

struct quire__kernels {
    const char *level;
    const char *arithmetic;
    uint32_t products; /* QUIRE_F32 or QUIRE_BF16: the factors of attention and linear layers */
    uint32_t x_bytes;  /* of a column of a prepared row of `linear`, at most */
    bool tiles;        /* many tokens are multiplied on tiles */
#define QUIRE__KERNEL_FIELD(name, parameters) void(*name) parameters;
    QUIRE__KERNEL_LIST(QUIRE__KERNEL_FIELD)
#undef QUIRE__KERNEL_FIELD
    struct quire__weight_kernels weights[QUIRE__NUM_WEIGHTS];
};

/* The initialisers of the table's kernels, for a file that defines each as a static function, and
 * LONE(name) as lone_##name or NULL. */
#define QUIRE__KERNEL_ENTRY(name, parameters) .name = name,
#define QUIRE__WEIGHT_ENTRY(name, value, elements, bytes, text)                                    \
    {QUIRE_W_##name, (elements), (bytes), decode_##name, LONE(name)},
#define QUIRE__KERNEL_ENTRIES                                                                      \
    QUIRE__KERNEL_LIST(QUIRE__KERNEL_ENTRY).weights = {QUIRE_WEIGHT_LIST(QUIRE__WEIGHT_ENTRY)}

/* The levels of lanes/products.h in C, with the bits that the processors' own have: for tests. */
#if defined(QUIRE_EMULATE)
#define QUIRE__EMULATED_LIST(X) X(avx512bf16_emulated) X(amx_emulated)
#else
#define QUIRE__EMULATED_LIST(X)
#endif

/* X(name): the levels that this build has, in rising order. */
#if defined(__x86_64__)
#define QUIRE__LEVEL_LIST(X)                                                                       \
    X(ref) X(generic) X(avx2) QUIRE__EMULATED_LIST(X) X(avx512) X(avx512bf16) X(amx)
#elif defined(__aarch64__)
#define QUIRE__LEVEL_LIST(X) X(ref) X(generic) QUIRE__EMULATED_LIST(X) X(neon) X(neonbf16)
#else
#define QUIRE__LEVEL_LIST(X) X(ref) X(generic) QUIRE__EMULATED_LIST(X)
#endif

#define QUIRE__COUNT_LEVEL(name) +1
enum { QUIRE__NUM_LEVELS = 0 QUIRE__LEVEL_LIST(QUIRE__COUNT_LEVEL) };

#define QUIRE__LEVEL_TABLE(name) extern const struct quire__kernels quire__kernels_##name;
QUIRE__LEVEL_LIST(QUIRE__LEVEL_TABLE)
#undef QUIRE__LEVEL_TABLE

/* The level of that name or, over the machine, its best; NULL: the best. NULL is returned for an
 * unknown name, and *error names the levels. */
const struct quire__kernels *quire__kernels_select(const char *level, struct quire_error *error);
/* The i-th level that this machine can run, from 0 in rising order; NULL past the last. */
const struct quire__kernels *quire__kernels_at(uint32_t i);
/* Reads about the i-th level of this build: its kernels, and what this machine lacks for it in a
 * few words, or NULL. False past the last. */
bool quire__level_describe(uint32_t i, const struct quire__kernels **kernels, const char **lacks);

#endif
