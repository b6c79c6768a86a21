/* support.h - what every test program shares: random numbers, memory, dtype conversion, capture.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_SUPPORT_H
#define QUIRE_TESTS_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quire/types.h>

#define QT_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Zeroed memory that does not count for quire__alloc_fail_after; ends the program when refused. */
void *qt_alloc(size_t bytes);
void qt_free(void *memory);
/* Memory that must not move under a caller that keeps a size: old content kept, the rest zeroed. */
void *qt_grow(void *memory, size_t old_bytes, size_t new_bytes);

/* splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). */
struct qt_random {
    uint64_t state;
};
uint64_t qt_mix(uint64_t value); /* a hash of one number */
uint64_t qt_next(struct qt_random *random);
uint32_t qt_below(struct qt_random *random, uint32_t limit); /* 0 .. limit - 1; limit > 0 */
bool qt_chance(struct qt_random *random, uint32_t percent);
float qt_unit(uint64_t bits); /* -1 .. 1, from any 64 bits */

/* An environment variable as a number, or `otherwise` where it is unset or empty. */
uint64_t qt_env_u64(const char *name, uint64_t otherwise);

/* Rounds to nearest even, as the cache stores a value; and back. `element` has the dtype's size. */
void qt_store(uint32_t dtype, float value, void *element);
double qt_load(uint32_t dtype, const void *element);

/* Catches what the process writes to stdout and stderr. */
struct qt_capture {
    int saved_out, saved_err, file;
};
void qt_capture_begin(struct qt_capture *capture);
uint64_t qt_capture_end(struct qt_capture *capture); /* bytes written meanwhile */

#endif
