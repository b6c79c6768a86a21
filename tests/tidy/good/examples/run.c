/* run.c - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
#include <quire/quire.h>
#include <stdio.h>

#include "model/model.h"
#include "support/setup.h"

int main(void)
{
    printf("x");
}
