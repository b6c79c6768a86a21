/* main.c - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "quire/cli.h"
#include "model/model.h"

int main(void)
{
    exit(1);
}
