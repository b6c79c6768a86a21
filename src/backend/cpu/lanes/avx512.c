/* avx512.c - the kernels with lanes of 16 for x86-64-v4.
 * SPDX-License-Identifier: Apache-2.0 */
#if defined(__x86_64__)
#include "backend/cpu/lanes/avx512.h"

#include "backend/cpu/lanes/all.h"

const struct quire__kernels quire__kernels_avx512 = {
    .level = "avx512",
    .arithmetic = "cpu/avx512",
    .x_bytes = sizeof(weight_element),
    QUIRE__KERNEL_ENTRIES,
};
#endif
