/* products.c - what the factors of a level's products are rounded to.
 * SPDX-License-Identifier: Apache-2.0 */
#include "products.h"

#include <string.h>

#include "backend/cpu/kernels.h"

static double product_error(const char *arithmetic)
{
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = quire__kernels_at(i)) != NULL; i++) {
        if (strcmp(kernels->arithmetic, arithmetic) == 0)
            return kernels->products == QUIRE_BF16 ? QT_BF16_PRODUCT : 0;
    }
    return 0;
}

double qt_product_error(const char *arithmetic)
{
    static const char
        *known; /* looking for levels asks the processor, which a hypervisor makes slow */
    static double error;
    if (known == NULL || strcmp(known, arithmetic) != 0) {
        error = product_error(arithmetic);
        known = arithmetic;
    }
    return error;
}
