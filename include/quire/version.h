/* version.h - the version of the library.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_VERSION_H
#define QUIRE_VERSION_H

#include <quire/status.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUIRE_VERSION_MAJOR 0
#define QUIRE_VERSION_MINOR 1
#define QUIRE_VERSION_PATCH 0
#define QUIRE_VERSION       "0.1.0"

/* The version of the library that is linked, as opposed to QUIRE_VERSION of the headers.
 *
 * No parameters. Returns a static string: "0.1.0".
 * Statuses: none.
 * Threads: any.
 * Cost: constant. */
QUIRE_API const char *quire_version(void);

#ifdef __cplusplus
}
#endif
#endif
