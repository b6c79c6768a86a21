/* generic.h - lanes of 4 for any processor, by the compiler's vector extensions alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_GENERIC_H
#define QUIRE_BACKEND_CPU_LANES_GENERIC_H

#define LANES 4
#define TARGET

#include "backend/cpu/lanes/lanes.h"

/* Register tiles: sums that fit into 16 registers beside their operands. */
enum { PRODUCT_TOKENS = 2, PRODUCT_VECTORS = 4, SCORE_ROWS = 2, VALUE_ROWS = 2 };

#include "backend/cpu/lanes/four.h"

/* Two roundings: this level has no fused multiply-add. */
FN vf v_fma(vf a, vf b, vf c)
{
    return a * b + c;
}

#include "backend/cpu/lanes/portable.h"

#endif
