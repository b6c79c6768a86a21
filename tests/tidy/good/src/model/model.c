/* model.c - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/model.h"
#include "base/base.h"
#include <stdio.h>
