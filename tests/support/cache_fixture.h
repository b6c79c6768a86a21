/* cache_fixture.h - pools on any backend, streams with known K and V, batches, and a test runner.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every test of tests/cache runs over backends, layouts and dtypes: it gets a struct qt_variant as
 * its state. K and V of a position are a function of its salt, so that a test can tell at any time
 * what the cache must hold. */
#ifndef QUIRE_TESTS_CACHE_FIXTURE_H
#define QUIRE_TESTS_CACHE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <quire/quire.h>

#include "opaque_backend.h"
#include "support.h"

/* ---- variants and the runner ---- */

struct qt_variant {
    const char *backend; /* "cpu", "opaque" or "none" */
    uint32_t layout;
    uint32_t dtype_k, dtype_v;
};

enum {
    QT_ON_CPU = 1u << 0,
    QT_ON_OPAQUE = 1u << 1,
    QT_ON_NONE = 1u << 2,
    QT_PAGED = 1u << 3,
    QT_CONTIGUOUS = 1u << 4,
    QT_DTYPES = 1u << 5,    /* every pair of interest, else f16 alone */
    QT_QUANTISED = 1u << 6, /* pairs with q8 and q4 as well: head dims become multiples of 16 */
    QT_KV = QT_ON_CPU | QT_ON_OPAQUE | QT_PAGED | QT_CONTIGUOUS,
    QT_ALL = QT_KV | QT_ON_NONE,
};

struct qt_test {
    const char *name;
    void (*run)(void **state);
    uint32_t variants; /* QT_* */
};

#define QT_TEST(function, variants)                                                                \
    {                                                                                              \
#function, function, (variants)                                                            \
    }

/* Runs each test once for each of its variants. QUIRE_TEST_FILTER, a pattern, picks some. */
int qt_run(const char *group, const struct qt_test *tests, size_t num_tests);

/* ---- geometries ---- */

#define QT_GROUPS_MAX 4
#define QT_LAYERS_MAX 8

struct qt_geometry {
    const char *name;
    uint32_t num_layers, num_groups;
    struct quire_group_config groups[QT_GROUPS_MAX];
};

extern const struct qt_geometry qt_plain;  /* 2 layers, one group, GQA 4:2 */
extern const struct qt_geometry qt_groups; /* 5 layers, three groups, windows, sinks, Dv != D */

const struct quire_group_config *qt_group_of(const struct qt_geometry *geometry, uint32_t layer);
uint32_t qt_head_dim_v(const struct quire_group_config *group);

/* ---- environments ---- */

struct qt_env {
    struct qt_variant variant;
    const struct qt_geometry *geometry;
    struct quire_backend *backend;
    struct quire_pool_config config;
    struct quire_pool *pool;
    bool has_kv, opaque, host_views;
    uint32_t row_floats;         /* q, k and v of one token, the widest layer */
    struct quire_buffer *inputs; /* f32 [max_step_tokens, row_floats] */
    struct quire_buffer *out;    /* f32 [max_step_tokens, widest H * Dv] */
    struct quire_buffer *lse;    /* f32 [max_step_tokens, widest H] */
    uint32_t out_floats, lse_floats;
    float *host_inputs, *host_out, *host_lse;
};

/* A backend by variant name; the test owns it. */
struct quire_backend *qt_backend(const char *name, uint64_t seed);
/* A config for the variant: blocks of 4, 8 sequences of 64 positions, 256 blocks. */
void qt_config(struct quire_pool_config *config, const struct qt_variant *variant,
               const struct qt_geometry *geometry);
/* Makes backend, pool and scratch from a config whose backend may be NULL: the variant's. */
void qt_open_config(struct qt_env *env, const struct qt_variant *variant,
                    const struct qt_geometry *geometry, const struct quire_pool_config *config);
void qt_open(struct qt_env *env, const struct qt_variant *variant,
             const struct qt_geometry *geometry);
/* Checks the pool and the opaque backend's rules, and frees everything. */
void qt_close(struct qt_env *env);
void qt_assert_pool_ok(struct qt_env *env);

/* ---- streams: sequences with known content ---- */

struct qt_stream {
    quire_seq seq;
    uint64_t key;
    uint32_t epoch; /* moves on with truncate, so that new content differs from old */
    uint32_t len;
    uint64_t *salts; /* [max_seq_len] */
};

void qt_stream_open(struct qt_env *env, struct qt_stream *stream, uint64_t key);
void qt_stream_close(struct qt_env *env, struct qt_stream *stream); /* destroys the sequence */
void qt_stream_free(struct qt_stream *stream);                      /* memory only */
void qt_stream_truncate(struct qt_env *env, struct qt_stream *stream, uint32_t len);
/* Reads every row of every layer and compares the bytes; and the length. */
void qt_stream_check(struct qt_env *env, const struct qt_stream *stream);

enum qt_plane { QT_K = 0, QT_V = 1, QT_Q = 2 };
/* Element values of one row, f32 [heads * dim]. */
void qt_row(uint64_t salt, uint32_t layer, enum qt_plane plane, float *row, uint32_t count);
/* The geometry that a variant is run with: `geometry`, or what is like it with other head dims. */
const struct qt_geometry *qt_fit(const struct qt_variant *variant,
                                 const struct qt_geometry *geometry);
/* Bytes of a row of one head, its scales included, and what they are: `turned` says whether the
 * values are of a turned row. */
uint32_t qt_head_bytes(uint32_t dtype, uint32_t dim);
void qt_load_head(uint32_t dtype, const uint8_t *bytes, uint32_t dim, double *values);
bool qt_is_turned(const struct qt_env *env, enum qt_plane plane);
/* What the cache stores for one row: of each head its data, then its scales. */
void qt_stored_row(const struct qt_env *env, uint64_t salt, uint32_t layer, enum qt_plane plane,
                   void *bytes);
uint32_t qt_row_elements(const struct qt_geometry *geometry, uint32_t layer, enum qt_plane plane);
uint32_t qt_row_bytes(const struct qt_env *env, uint32_t layer, enum qt_plane plane);

/* ---- batches: one step over streams ---- */

#define QT_ITEMS_MAX 64

struct qt_batch {
    uint32_t num_items, num_tokens;
    struct qt_stream *streams[QT_ITEMS_MAX];
    struct quire_step_item items[QT_ITEMS_MAX];
    quire_step step;
    uint64_t missing;
};

/* How to attend; all zero: the defaults. */
struct qt_attend {
    float scale, softcap;
    bool alibi, sink_logits, lse;
};

void qt_batch_add(struct qt_batch *batch, struct qt_stream *stream, uint32_t n_new,
                  const uint32_t *tokens);
quire_status qt_batch_begin(struct qt_env *env, struct qt_batch *batch);
quire_status qt_batch_write(struct qt_env *env, const struct qt_batch *batch, uint32_t layer);
/* Attends and waits: env->host_out (and host_lse) hold the rows, dense. */
quire_status qt_batch_attend(struct qt_env *env, const struct qt_batch *batch, uint32_t layer,
                             const struct qt_attend *how);
quire_status qt_batch_commit(struct qt_env *env, struct qt_batch *batch, const uint32_t *n_keep);
quire_status qt_batch_abort(struct qt_env *env, struct qt_batch *batch);
/* begin, write every layer, commit; every call must succeed. */
void qt_batch_store(struct qt_env *env, struct qt_batch *batch);
/* The same for one stream. */
void qt_append(struct qt_env *env, struct qt_stream *stream, uint32_t n_new);
void qt_wait(struct qt_env *env);

/* ---- the state that an error must not change ---- */

struct qt_snapshot {
    struct quire_pool_stats stats;
    uint32_t num_streams;
    uint32_t lens[QT_ITEMS_MAX], num_tokens[QT_ITEMS_MAX];
};

void qt_stats(struct qt_env *env, struct quire_pool_stats *stats);
void qt_snapshot_take(struct qt_env *env, const struct qt_stream *streams, uint32_t num_streams,
                      struct qt_snapshot *snapshot);
bool qt_snapshot_equal(const struct qt_snapshot *a, const struct qt_snapshot *b);
/* Asserts that nothing changed since, and that the pool is sound. */
void qt_snapshot_same(struct qt_env *env, const struct qt_stream *streams,
                      const struct qt_snapshot *snapshot);

/* Says which status came instead of which. */
#define qt_assert_status(expression, wanted)                                                       \
    qt_status_is((expression), (wanted), #expression, __FILE__, __LINE__)
#define qt_assert_ok(expression) qt_assert_status(expression, QUIRE_OK)
void qt_status_is(quire_status status, quire_status wanted, const char *expression,
                  const char *file, int line);

#endif
