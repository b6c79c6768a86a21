/* opaque_backend.h - a test backend whose buffers nobody but itself can read.
 * SPDX-License-Identifier: Apache-2.0
 *
 * It defers every call: commands are queued with copies of their arguments and run late, on an
 * inner "cpu" backend, so that results equal those of "cpu" bit for bit. Handles of buffers are odd
 * numbers, and their memory is inaccessible except while the backend itself works. Reserved buffers
 * keep a shadow byte for each byte: touching what is not committed, or attending over rows that
 * nobody wrote, is a violation, which qt_opaque_violation reports. */
#ifndef QUIRE_TESTS_OPAQUE_BACKEND_H
#define QUIRE_TESTS_OPAQUE_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include <quire/backend.h>

/* Everything that is counted and that can be made to fail. EXECUTE is the late run of a command. */
#define QT_CALL_LIST(X)                                                                            \
    X(BUFFER_CREATE)                                                                               \
    X(BUFFER_WRAP)                                                                                 \
    X(BUFFER_DESTROY)                                                                              \
    X(COMMIT)                                                                                      \
    X(DECOMMIT)                                                                                    \
    X(UPLOAD)                                                                                      \
    X(DOWNLOAD)                                                                                    \
    X(COPY)                                                                                        \
    X(FILL)                                                                                        \
    X(FENCE_RECORD)                                                                                \
    X(FENCE_WAIT)                                                                                  \
    X(FENCE_POLL)                                                                                  \
    X(RECOVER)                                                                                     \
    X(PLAN_CREATE)                                                                                 \
    X(PLAN_DESTROY)                                                                                \
    X(PLAN_BUILD)                                                                                  \
    X(COPY_ROWS)                                                                                   \
    X(WRITE)                                                                                       \
    X(ATTEND)                                                                                      \
    X(NN)                                                                                          \
    X(EXECUTE)

enum qt_call {
#define QT_CALL_ENUM(name) QT_CALL_##name,
    QT_CALL_LIST(QT_CALL_ENUM)
#undef QT_CALL_ENUM
        QT_CALL_COUNT
};

struct qt_opaque_options {
    uint64_t seed;      /* decides when queued work runs */
    uint32_t max_queue; /* at most this many commands wait; 0: 32 */
    bool wrap;          /* offers QUIRE_CAP_WRAP */
    bool no_reserve;    /* lacks QUIRE_CAP_RESERVE */
    uint32_t num_threads;
    const char *cpu_level; /* of the inner backend */
};

quire_status qt_opaque_create(const struct qt_opaque_options *options, struct quire_backend **out);

/* The call of one kind that comes after n others from now on fails with `status`. For EXECUTE the
 * queue stops there for good: a late device error. */
void qt_opaque_fail(struct quire_backend *backend, enum qt_call call, uint64_t n,
                    quire_status status);
/* Forgets every planned fault. */
void qt_opaque_fail_none(struct quire_backend *backend);
uint64_t qt_opaque_calls(struct quire_backend *backend, enum qt_call call);
/* Runs everything queued, then tells how many bytes of reserved buffers are committed. */
uint64_t qt_opaque_committed_bytes(struct quire_backend *backend);
/* Buffers and plans that nobody destroyed yet. */
uint32_t qt_opaque_live_objects(struct quire_backend *backend);
/* Runs everything queued, then returns the first broken rule, or NULL. */
const char *qt_opaque_violation(struct quire_backend *backend);

#endif
