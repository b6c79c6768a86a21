/* alloc.c - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <stdlib.h>

/* It may say malloc(), sprintf("x") and TODOS in a comment, and "exit(1)" in a string. */
void *quire__alloc(unsigned long bytes)
{
    const char *text = "exit(1) { /* not a comment";
    return malloc(bytes);
}
