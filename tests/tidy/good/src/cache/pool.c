/* pool.c - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cache/pool.h"

#include "base/base.h"
#include <quire/quire.h>
#include <stdio.h>
#include <string.h>

struct table {
    void (*free)(void *, int, int, int, int, int, int, int);
};
static const int rows[2] = {1, 2};
void quire__pool_free(struct table *table, struct table value);
__attribute__((target("avx2"), noinline)) static int six(int a, int b, int (*c)(int, int), int d[2],
                                                        int e, int f)
{
    table->free(0);
    value.free(0);
    quire__pool_free(0, 0);
    return rows[0];
}
