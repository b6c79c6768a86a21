/* test_x.c - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
#include "../../src/cache/pool.h"
int main(void)
{
    free(malloc(1));
}
