/* products.h - what the factors of a level's products are rounded to.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_PRODUCTS_H
#define QUIRE_TESTS_PRODUCTS_H

/* What rounding both factors to bfloat16 changes of a product, relative: 2^-8 each, and a little.
 */
#define QT_BF16_PRODUCT 0x1.02p-7

/* That where an arithmetic of the CPU backend multiplies in bfloat16, else 0. */
double qt_product_error(const char *arithmetic);

/* How far off the weight of a logit that is `below` less than the largest is, relative, where an
 * arithmetic makes it for tiles: a polynomial of degree 4, off by 2.9e-6 and five roundings, of a
 * product that is off by 2^-24 of its size, as is the difference that it is made from; both are by
 * QUIRE__SLACK larger or less. Else 0: exp is as good as f32 allows. */
double qt_weight_error(const char *arithmetic, double below);

#endif
