/* products.c - what the factors of a level's products are rounded to.
 * SPDX-License-Identifier: Apache-2.0 */
#include "products.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/kernels.h"

static const struct quire__kernels *kernels_of(const char *arithmetic)
{
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = quire__kernels_at(i)) != NULL; i++) {
        if (strcmp(kernels->arithmetic, arithmetic) == 0)
            return kernels;
    }
    return NULL;
}

double qt_product_error(const char *arithmetic)
{
    const struct quire__kernels *kernels = kernels_of(arithmetic);
    return kernels != NULL && kernels->products == QUIRE_BF16 ? QT_BF16_PRODUCT : 0;
}

double qt_weight_error(const char *arithmetic, double below)
{
    const struct quire__kernels *kernels = kernels_of(arithmetic);
    double slack = (double)QUIRE__SLACK;
    return kernels != NULL && kernels->tiles ? 2.9e-6 + (5 + fabs(below) + 2 * slack) * 0x1p-24 : 0;
}
