/* products.h - what the factors of a level's products are rounded to.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_PRODUCTS_H
#define QUIRE_TESTS_PRODUCTS_H

/* What rounding both factors to bfloat16 changes of a product, relative: 2^-8 each, and a little.
 */
#define QT_BF16_PRODUCT 0x1.02p-7

/* That where an arithmetic of the CPU backend multiplies in bfloat16, else 0. */
double qt_product_error(const char *arithmetic);

#endif
