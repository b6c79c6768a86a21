/* avx512bf16.c - the kernels with lanes of 16 and products of bfloat16 (AVX512-BF16).
 * SPDX-License-Identifier: Apache-2.0 */
#if defined(QUIRE_EMULATE)
#include "backend/cpu/lanes/wide.h"
#elif defined(__x86_64__)
#define MORE ",avx512bf16,avx512vnni"
#include "backend/cpu/lanes/avx512.h"
#endif

#if defined(QUIRE_EMULATE) || defined(__x86_64__)
#include "backend/cpu/lanes/products.h"

#include "backend/cpu/lanes/all.h"

const struct quire__kernels LEVEL_TABLE(avx512bf16) = {
    .level = LEVEL_NAME(avx512bf16),
    .arithmetic = "cpu/avx512bf16",
    .products = QUIRE_BF16,
    .x_bytes = sizeof(weight_element),
    QUIRE__KERNEL_ENTRIES,
};
#endif
