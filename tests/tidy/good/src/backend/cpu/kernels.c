/* kernels.c - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernels.h"
#include "backend/cpu/kernels.h"
