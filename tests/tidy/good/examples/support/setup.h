/* setup.h - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
#include <quire/quire.h>
