/* generic.c - the kernels with lanes of 4 without fused multiply-add, for any processor.
 * SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/lanes/generic.h"

#include "backend/cpu/lanes/all.h"

const struct quire__kernels quire__kernels_generic = {
    .level = "generic",
    .arithmetic = "cpu/generic",
    .x_bytes = sizeof(weight_element),
    QUIRE__KERNEL_ENTRIES,
};
