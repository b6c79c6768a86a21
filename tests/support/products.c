/* products.c - what the factors of a level's products are rounded to.
 * SPDX-License-Identifier: Apache-2.0 */
#include "products.h"

#include <string.h>

#include "backend/cpu/kernels.h"

double qt_product_error(const char *arithmetic)
{
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = quire__kernels_at(i)) != NULL; i++) {
        if (strcmp(kernels->arithmetic, arithmetic) == 0)
            return kernels->products == QUIRE_BF16 ? QT_BF16_PRODUCT : 0;
    }
    return 0;
}
