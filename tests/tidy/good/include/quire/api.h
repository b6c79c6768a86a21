/* api.h - a sample.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>

/* Adds a callback, and
 * tells how many there are.
 *
 * call: what to call, with a context; names [num_names]: borrowed; *count: how many.
 * Statuses: INVAL for NULL. Threads: any.
 * Cost: constant. */
QUIRE_API int quire_callback_add(int (*call)(void *context, int), const char *const names[],
                                 uint32_t num_names, uint32_t *count);

/* Says the version.
 *
 * No parameters. Returns a static string.
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API const char *quire_version(void);
