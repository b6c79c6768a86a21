/* amx.c - the kernels with lanes of 16 and tiles of bfloat16 (AMX-BF16).
 * SPDX-License-Identifier: Apache-2.0 */
#if defined(QUIRE_EMULATE)
#define WITH_TILES
#include "backend/cpu/lanes/wide.h"
#elif defined(__x86_64__)
#define MORE ",avx512bf16,avx512vnni,amx-tile,amx-bf16,amx-int8"
#define WITH_TILES
#include "backend/cpu/lanes/avx512.h"
#endif

#if defined(QUIRE_EMULATE) || defined(__x86_64__)
#include "backend/cpu/lanes/products.h"

#include "backend/cpu/lanes/all.h"

const struct quire__kernels LEVEL_TABLE(amx) = {
    .level = LEVEL_NAME(amx),
    .arithmetic = "cpu/amx",
    .products = QUIRE_BF16,
    .x_bytes = 2 * sizeof(weight_element),
    .tiles = true,
    QUIRE__KERNEL_ENTRIES,
};
#endif
