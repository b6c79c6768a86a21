/* model.h - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
