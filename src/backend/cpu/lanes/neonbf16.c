/* neonbf16.c - the kernels with lanes of 4 and products of bfloat16 (Armv8.6-A).
 * SPDX-License-Identifier: Apache-2.0 */
#if defined(__aarch64__)
#define WITH_BF16
#include "backend/cpu/lanes/neon.h"

#include "backend/cpu/lanes/products.h"

#include "backend/cpu/lanes/all.h"

const struct quire__kernels LEVEL_TABLE(neonbf16) = {
    .level = LEVEL_NAME(neonbf16),
    .arithmetic = "cpu/neonbf16",
    .products = QUIRE_BF16,
    .x_bytes = sizeof(weight_element),
    QUIRE__KERNEL_ENTRIES,
};
#endif
