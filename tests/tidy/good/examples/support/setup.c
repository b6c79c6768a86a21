/* setup.c - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/setup.h"
