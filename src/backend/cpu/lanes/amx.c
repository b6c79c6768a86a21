/* amx.c - the kernels with lanes of 16 and tiles of bfloat16 (AMX-BF16).
 * SPDX-License-Identifier: Apache-2.0 */
#if defined(__x86_64__)
#define MORE ",avx512bf16,avx512vnni,amx-tile,amx-bf16,amx-int8"
#define WITH_TILES
#include "backend/cpu/lanes/avx512.h"

#include "backend/cpu/lanes/products.h"

#include "backend/cpu/lanes/all.h"

const struct quire__kernels quire__kernels_amx = {
    .level = "amx",
    .arithmetic = "cpu/amx",
    .lanes = LANES,
    .fma = true,
    QUIRE__KERNEL_ENTRIES,
};
#endif
