/* avx2.c - the kernels with lanes of 8 for x86-64-v3.
 * SPDX-License-Identifier: Apache-2.0 */
#if defined(__x86_64__)
#include "backend/cpu/lanes/avx2.h"

#include "backend/cpu/lanes/all.h"

const struct quire__kernels quire__kernels_avx2 = {
    .level = "avx2",
    .arithmetic = "cpu/avx2",
    .x_bytes = sizeof(weight_element),
    QUIRE__KERNEL_ENTRIES,
};
#endif
