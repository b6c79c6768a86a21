/* neon.c - the kernels with lanes of 4 for Armv8.0-A.
 * SPDX-License-Identifier: Apache-2.0 */
#if defined(__aarch64__)
#include "backend/cpu/lanes/neon.h"

#include "backend/cpu/lanes/all.h"

const struct quire__kernels quire__kernels_neon = {
    .level = "neon",
    .arithmetic = "cpu/neon",
    .x_bytes = sizeof(weight_element),
    QUIRE__KERNEL_ENTRIES,
};
#endif
