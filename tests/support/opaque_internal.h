/* opaque_internal.h - what the two files of the opaque test backend share.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Owns: the table of buffers, their memory and shadows, and the queue. Guarded by: opaque.lock.
 * Invariant: outside run_some every buffer that is not wrapped is PROT_NONE. */
#ifndef QUIRE_TESTS_OPAQUE_INTERNAL_H
#define QUIRE_TESTS_OPAQUE_INTERNAL_H

#include <pthread.h>

#include "base/base.h"
#include "opaque_backend.h"
#include "support.h"

enum { OPAQUE_BUFFERS_MAX = 4096, OPAQUE_VIOLATION_MAX = 256, OPAQUE_VIEWS_MAX = 3 };

/* States of one byte of a reserved buffer. */
enum { OPAQUE_ABSENT = 0, OPAQUE_COMMITTED = 1, OPAQUE_WRITTEN = 2 };

#define OPAQUE_POISON 0xA5 /* bytes that were decommitted */
#define OPAQUE_FRESH  0xFF /* bytes just committed: NaN in f32, f16 and bf16 */

struct opaque_buffer {
    bool live, wrapped, reserved;
    uint32_t generation;
    uint8_t *data;
    uint8_t *shadow; /* one state a byte; where not reserved, OPAQUE_ABSENT means committed */
    uint64_t bytes, mapped_bytes;
    struct quire_buffer *inner;
};

struct opaque_plan {
    struct quire_plan *inner;
    struct quire_kv_spec spec;
    struct quire_kv_layer *layers; /* with the handles of inner buffers; owned */
    struct opaque_buffer *tables;
    struct opaque_buffer *(*planes)[2]; /* [num_layers] where K and V lie; owned */
    struct quire_step_part *parts;      /* of the build that ran last */
    uint32_t num_parts;
};

enum opaque_op {
    OPAQUE_NOP,
    OPAQUE_COMMIT,
    OPAQUE_DECOMMIT,
    OPAQUE_UPLOAD,
    OPAQUE_DOWNLOAD,
    OPAQUE_COPY,
    OPAQUE_FILL,
    OPAQUE_PLAN_BUILD,
    OPAQUE_COPY_ROWS,
    OPAQUE_WRITE,
    OPAQUE_ATTEND,
    OPAQUE_LINEAR,
    OPAQUE_NORM,
    OPAQUE_ROTARY,
    OPAQUE_ACTIVATE,
    OPAQUE_ADD,
    OPAQUE_SCALE,
    OPAQUE_EMBED,
    OPAQUE_ARGMAX,
};

struct opaque_command {
    enum opaque_op op;
    struct opaque_buffer *to, *from;
    uint64_t to_offset, from_offset, bytes;
    uint8_t value;
    void *payload; /* owned: upload data, the parts of a step, or copies of rows */
    void *host;    /* where a download goes */
    struct opaque_plan *plan;
    struct quire_step_desc desc;
    uint32_t layer;
    uint32_t num_copies;
    struct quire_view views[OPAQUE_VIEWS_MAX]; /* of inner buffers */
    struct quire_attend_params params;
    float *alibi, *sinks; /* owned */
    struct quire_weight *weight;
    float epsilon, factor;
    enum quire_rotary_style rotary;
    enum quire_activation activation;
};

struct opaque {
    struct quire_backend base;
    struct quire_backend *inner;
    pthread_mutex_t lock;
    struct opaque_buffer buffers[OPAQUE_BUFFERS_MAX];
    uint32_t num_buffers; /* slots ever used */
    uint32_t live_plans;
    struct opaque_command *queue;
    uint32_t queued, queue_limit, queue_max;
    uint64_t pushed, executed;
    struct qt_random random;
    uint64_t calls[QT_CALL_COUNT];
    uint64_t fault_at[QT_CALL_COUNT]; /* value of calls[] that fails; UINT64_MAX: none */
    quire_status fault_status[QT_CALL_COUNT];
    quire_status late;
    char violation[OPAQUE_VIOLATION_MAX];
};

/* Notes the first broken rule. */
void opaque_violate(struct opaque *opaque, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Makes the memory of all buffers accessible, or not. */
void opaque_open_buffers(struct opaque *opaque, bool open);
/* Runs one command on the inner backend; the buffers are open. */
quire_status opaque_run_one(struct opaque *opaque, struct opaque_command *command);

extern const struct quire_nn_ops opaque_nn_ops;
/* For the nn functions: takes the lock, counts, and queues; the command is copied. */
quire_status opaque_submit_nn(struct quire_backend *backend, struct opaque_command *command,
                              const struct quire_view *const *views, uint32_t num_views);

#endif
