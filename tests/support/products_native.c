/* products_native.c - the processor's own products of bfloat16, for the test that compares them.
 * SPDX-License-Identifier: Apache-2.0 */
#if defined(__aarch64__)
#define WITH_BF16
#include "backend/cpu/lanes/neon.h"

#include "backend/cpu/lanes/products.h"
#elif defined(__x86_64__)
#define MORE ",avx512bf16,avx512vnni,amx-tile,amx-bf16,amx-int8"
#define WITH_TILES
#include "backend/cpu/lanes/avx512.h"

#include "backend/cpu/lanes/products.h"
#endif

#include "products_fixture.h"

#if defined(LANES)
static const struct pf_products native = PRODUCTS_TABLE;
const struct pf_products *const pf_native = &native;
#else
const struct pf_products *const pf_native = NULL;
#endif
