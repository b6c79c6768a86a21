/* status.h - status codes and the error record of every fallible call.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_STATUS_H
#define QUIRE_STATUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QUIRE_API __attribute__((visibility("default")))
#else
#define QUIRE_API
#endif

/* Zero or one of the negative codes below. */
typedef int quire_status;

/* X(name, code, text). After any error the state is what it was before the call.
 *
 * INVAL        an argument is wrong, a handle is stale, or a call is out of order
 * NOMEM        the system refused memory
 * NOSPACE      the pool has too few free blocks
 * NOTFOUND     the thing asked for does not exist
 * BUSY         the sequence is in an open step, or every step slot is taken
 * LIMIT        a configured limit would be passed (capacity, sequences, step tokens)
 * UNSUPPORTED  the backend or layout cannot do this
 * MISMATCH     two things that must agree do not
 * VERSION      a file or struct of a version that this library does not know
 * CORRUPT      data that breaks its own format
 * IO           reading or writing a file failed; os_code has errno
 * NET          a network peer failed
 * TIMEOUT      a deadline passed
 * CANCELED     the caller asked to stop
 * DEVICE       the compute device failed; the pool refuses work until reset */
#define QUIRE_STATUS_LIST(X)                                                                       \
    X(INVAL, -1, "invalid argument or call")                                                       \
    X(NOMEM, -2, "out of memory")                                                                  \
    X(NOSPACE, -3, "not enough free blocks")                                                       \
    X(NOTFOUND, -4, "not found")                                                                   \
    X(BUSY, -5, "in use")                                                                          \
    X(LIMIT, -6, "over a configured limit")                                                        \
    X(UNSUPPORTED, -7, "not supported")                                                            \
    X(MISMATCH, -8, "mismatch")                                                                    \
    X(VERSION, -9, "unknown version")                                                              \
    X(CORRUPT, -10, "corrupt data")                                                                \
    X(IO, -11, "input/output error")                                                               \
    X(NET, -12, "network error")                                                                   \
    X(TIMEOUT, -13, "timed out")                                                                   \
    X(CANCELED, -14, "canceled")                                                                   \
    X(DEVICE, -15, "device error")

enum {
    QUIRE_OK = 0,
#define QUIRE_STATUS_ENUM(name, code, text) QUIRE_E_##name = (code),
    QUIRE_STATUS_LIST(QUIRE_STATUS_ENUM)
#undef QUIRE_STATUS_ENUM
};

#define QUIRE_ERROR_MESSAGE_MAX 256

/* What went wrong, in one line for a person. Calls that touch the world take an optional pointer to
 * one; it is written only when the call fails. */
struct quire_error {
    quire_status status;
    int os_code; /* errno of the failing system call, or 0 */
    char message[QUIRE_ERROR_MESSAGE_MAX];
};

/* Names a status: "QUIRE_E_NOSPACE", or "QUIRE_OK".
 *
 * status: any value. Returns a static string; for an unknown value "QUIRE_E_UNKNOWN".
 * Statuses: none.
 * Threads: any.
 * Cost: a walk over 16 codes. */
QUIRE_API const char *quire_status_name(quire_status status);

/* Describes a status in a few lower-case words: "not enough free blocks".
 *
 * status: any value. Returns a static string; for an unknown value "unknown status".
 * Statuses: none.
 * Threads: any.
 * Cost: a walk over 16 codes. */
QUIRE_API const char *quire_status_text(quire_status status);

#ifdef __cplusplus
}
#endif
#endif
