/* weights.h - plain C decoding of every weight format: the formulas, and the specification.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each format is a row of blocks of 32 or 256 weights. d and m are f16 (the block's scale and
 * offset), q the stored whole number of a weight. In every format the product of d, a sub-scale and
 * q has at most 24 significant bits, so it is exact in f32 and only the last addition rounds: one
 * fma gives the same number. Block layouts: the GGUF documentation of ggml's quantisation types. */
#ifndef QUIRE_BACKEND_CPU_REF_WEIGHTS_H
#define QUIRE_BACKEND_CPU_REF_WEIGHTS_H

#include <stddef.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/scalar.h"

/* w = the element itself. */
static inline void dequant_F32(float *to, const uint8_t *row, size_t columns)
{
    memcpy(to, row, columns * sizeof(float));
}

static inline void dequant_F16(float *to, const uint8_t *row, size_t columns)
{
    for (size_t i = 0; i < columns; i++)
        to[i] = f16_to_f32(u16_at(row + 2 * i));
}

static inline void dequant_BF16(float *to, const uint8_t *row, size_t columns)
{
    for (size_t i = 0; i < columns; i++)
        to[i] = bf16_to_f32(u16_at(row + 2 * i));
}

/* Block: d, 16 bytes. Byte j holds weight j in its low half and weight j + 16 in its high half.
 * w = d (q - 8). */
static inline void dequant_Q4_0(float *to, const uint8_t *row, size_t columns)
{
    for (size_t b = 0; b < columns / 32; b++, row += 18, to += 32) {
        float d = f16_to_f32(u16_at(row));
        for (int j = 0; j < 16; j++) {
            to[j] = d * (float)((row[2 + j] & 15) - 8);
            to[j + 16] = d * (float)((row[2 + j] >> 4) - 8);
        }
    }
}

/* Block: d, m, 16 bytes as in Q4_0. w = d q + m. */
static inline void dequant_Q4_1(float *to, const uint8_t *row, size_t columns)
{
    for (size_t b = 0; b < columns / 32; b++, row += 20, to += 32) {
        float d = f16_to_f32(u16_at(row)), m = f16_to_f32(u16_at(row + 2));
        for (int j = 0; j < 16; j++) {
            to[j] = d * (float)(row[4 + j] & 15) + m;
            to[j + 16] = d * (float)(row[4 + j] >> 4) + m;
        }
    }
}

/* Block: d, 32 bits h, 16 bytes as in Q4_0; bit j of h is bit 4 of weight j. w = d (q - 16). */
static inline void dequant_Q5_0(float *to, const uint8_t *row, size_t columns)
{
    for (size_t b = 0; b < columns / 32; b++, row += 22, to += 32) {
        float d = f16_to_f32(u16_at(row));
        uint32_t h = u32_at(row + 2);
        for (int j = 0; j < 16; j++) {
            int low = (row[6 + j] & 15) | (int)(h >> j & 1) << 4;
            int high = row[6 + j] >> 4 | (int)(h >> (j + 16) & 1) << 4;
            to[j] = d * (float)(low - 16);
            to[j + 16] = d * (float)(high - 16);
        }
    }
}

/* Block: d, m, 32 bits, 16 bytes as in Q5_0. w = d q + m. */
static inline void dequant_Q5_1(float *to, const uint8_t *row, size_t columns)
{
    for (size_t b = 0; b < columns / 32; b++, row += 24, to += 32) {
        float d = f16_to_f32(u16_at(row)), m = f16_to_f32(u16_at(row + 2));
        uint32_t h = u32_at(row + 4);
        for (int j = 0; j < 16; j++) {
            int low = (row[8 + j] & 15) | (int)(h >> j & 1) << 4;
            int high = row[8 + j] >> 4 | (int)(h >> (j + 16) & 1) << 4;
            to[j] = d * (float)low + m;
            to[j + 16] = d * (float)high + m;
        }
    }
}

/* Block: d, 32 signed bytes. w = d q. */
static inline void dequant_Q8_0(float *to, const uint8_t *row, size_t columns)
{
    for (size_t b = 0; b < columns / 32; b++, row += 34, to += 32) {
        float d = f16_to_f32(u16_at(row));
        for (int j = 0; j < 32; j++)
            to[j] = d * (float)(int8_t)row[2 + j];
    }
}

/* Block of 256: d, m, 12 bytes of scales, 128 bytes. Units 2i and 2i + 1 lie in the low and high
 * halves of bytes 32 i .. 32 i + 32. w = (d scale) q - m offset. */
static inline void dequant_Q4_K(float *to, const uint8_t *row, size_t columns)
{
    for (size_t u = 0; u < columns / 32; u++, to += 32) {
        const uint8_t *block = row + u / 8 * 144;
        uint32_t j = (uint32_t)(u % 8);
        uint8_t scale, offset;
        scale_and_offset(block + 4, j, &scale, &offset);
        float d = f16_to_f32(u16_at(block)) * (float)scale;
        float m = f16_to_f32(u16_at(block + 2)) * (float)offset;
        const uint8_t *q = block + 16 + j / 2 * 32;
        for (int i = 0; i < 32; i++)
            to[i] = d * (float)(q[i] >> (j % 2 * 4) & 15) - m;
    }
}

/* Block of 256: d, m, 12 bytes of scales, 32 bytes h, 128 bytes as in Q4_K; bit j of h[i] is bit 4
 * of weight i of unit j. w as in Q4_K. */
static inline void dequant_Q5_K(float *to, const uint8_t *row, size_t columns)
{
    for (size_t u = 0; u < columns / 32; u++, to += 32) {
        const uint8_t *block = row + u / 8 * 176;
        uint32_t j = (uint32_t)(u % 8);
        uint8_t scale, offset;
        scale_and_offset(block + 4, j, &scale, &offset);
        float d = f16_to_f32(u16_at(block)) * (float)scale;
        float m = f16_to_f32(u16_at(block + 2)) * (float)offset;
        const uint8_t *h = block + 16, *q = block + 48 + j / 2 * 32;
        for (int i = 0; i < 32; i++) {
            int whole = (q[i] >> (j % 2 * 4) & 15) | (h[i] >> j & 1) << 4;
            to[i] = d * (float)whole - m;
        }
    }
}

/* Block of 256: 128 bytes low, 64 bytes high, 16 signed scales, d. Unit j of half n (4 units a
 * half) has its low 4 bits in the low (j < 2) or high half of bytes 64 n + 32 (j % 2) .. + 32, its
 * top 2 bits at bit 2 j of high bytes 32 n .. 32 n + 32; 16 weights share a scale. w = (d scale) (q
 * - 32). */
static inline void dequant_Q6_K(float *to, const uint8_t *row, size_t columns)
{
    for (size_t u = 0; u < columns / 32; u++, to += 32) {
        const uint8_t *block = row + u / 8 * 210;
        uint32_t n = (uint32_t)(u % 8 / 4), j = (uint32_t)(u % 4);
        const uint8_t *low = block + 64 * n + j % 2 * 32, *high = block + 128 + 32 * n;
        const uint8_t *scales = block + 192 + 8 * n + 2 * j;
        float d = f16_to_f32(u16_at(block + 208));
        for (int i = 0; i < 32; i++) {
            int whole = (low[i] >> (j / 2 * 4) & 15) | (high[i] >> (2 * j) & 3) << 4;
            to[i] = d * (float)(int8_t)scales[i / 16] * (float)(whole - 32);
        }
    }
}

#endif
