/* share_fixture.h - lines: sequences whose K and V are a function of their tokens.
 * SPDX-License-Identifier: Apache-2.0
 *
 * In a real model the K and V of a position follow from the tokens up to it, the tenant and the
 * adapter. A line has the same property, so a test can compare every row that a sequence sees,
 * whether it was computed, found, forked or copied. */
#ifndef QUIRE_TESTS_SHARE_FIXTURE_H
#define QUIRE_TESTS_SHARE_FIXTURE_H

#include "cache_fixture.h"

/* Where blocks are shared: paged pools, with K and V or without. */
#define QT_SHARE    (QT_ON_CPU | QT_ON_OPAQUE | QT_ON_NONE | QT_PAGED)
#define QT_SHARE_KV (QT_ON_CPU | QT_ON_OPAQUE | QT_PAGED)

/* No test's prompt holds this token. */
#define QT_TOKEN_NEVER 0xfffffff0u

extern const struct qt_geometry qt_window;  /* 1 layer, one group, window 4 */
extern const struct qt_geometry qt_hybrid;  /* full attention, and twice a window of 32 */
extern const struct qt_geometry qt_unequal; /* full, window 4, window 6 with 3 sinks; other bytes */

struct qt_line {
    struct qt_stream stream;
    uint64_t salt, adapter;
    uint32_t *tokens; /* [max_seq_len], the first stream.len are the sequence's */
};

/* Tokens that follow from a key: lists of two keys differ in the first token already. */
void qt_tokens(uint32_t key, uint32_t *tokens, uint32_t count);

/* A pool config for sharing: blocks of `block_size`, `num_blocks` of them, 12 sequences of 512
 * positions, steps of 256, 1024 events, rollback_max 0. */
void qt_share_config(struct quire_pool_config *config, const struct qt_variant *variant,
                     const struct qt_geometry *geometry, uint32_t block_size, uint32_t num_blocks);
void qt_share_open(struct qt_env *env, const struct qt_variant *variant,
                   const struct qt_geometry *geometry, uint32_t block_size, uint32_t num_blocks);

/* A config that names a prefix; salt and adapter 0. */
struct quire_seq_config qt_prefix(const uint32_t *tokens, uint32_t num_tokens);

/* Memory for a line without a sequence. */
void qt_line_alloc(struct qt_env *env, struct qt_line *line);
/* Sets what positions first .. first + count hold, from the tokens up to them. */
void qt_line_mean(struct qt_line *line, uint32_t first, uint32_t count);
/* Starts a line from a config; returns how much of its tokens was found. */
uint32_t qt_line_open(struct qt_env *env, struct qt_line *line,
                      const struct quire_seq_config *config);
/* Adds tokens, as many steps as it takes. */
void qt_line_feed(struct qt_env *env, struct qt_line *line, const uint32_t *tokens, uint32_t count);
/* Starts a line from a prompt and computes what was not found; returns what was. */
uint32_t qt_line_run(struct qt_env *env, struct qt_line *line, const uint32_t *tokens,
                     uint32_t count);
/* The same under a salt and an adapter. */
uint32_t qt_line_run_as(struct qt_env *env, struct qt_line *line,
                        const struct quire_seq_config *config);
/* Puts a line into a batch: its tokens, and the content that they mean. */
void qt_line_add(struct qt_batch *batch, struct qt_line *line, const uint32_t *tokens,
                 uint32_t count);
quire_status qt_line_begin(struct qt_env *env, struct qt_line *line, const uint32_t *tokens,
                           uint32_t count, struct qt_batch *batch);
/* Writes every layer of an open batch, where there are K and V. */
void qt_line_write(struct qt_env *env, struct qt_batch *batch);
void qt_line_fork(struct qt_env *env, struct qt_line *line, uint32_t len, struct qt_line *fork);
void qt_line_truncate(struct qt_env *env, struct qt_line *line, uint32_t len);
/* Compares length, tokens, and the bytes of every row that the next token sees. */
void qt_line_check(struct qt_env *env, const struct qt_line *line);
/* Frees the memory of a line whose sequence is gone. */
void qt_line_free(struct qt_line *line);
void qt_line_close(struct qt_env *env, struct qt_line *line); /* destroys the sequence */
/* Runs a prompt and ends it: all its tokens are cached. */
void qt_line_cache(struct qt_env *env, const uint32_t *tokens, uint32_t count);

/* How many of the tokens are cached, all of them at most; nothing changes. */
uint32_t qt_cached(struct qt_env *env, const uint32_t *tokens, uint32_t count);
uint32_t qt_cached_as(struct qt_env *env, const struct quire_seq_config *config);
/* What quire_seq_create would find: one token less at most. */
uint32_t qt_found(struct qt_env *env, const uint32_t *tokens, uint32_t count);

/* Makes `count` blocks of K and V leave the cache, or a little more where a position takes a block
 * in several groups; what is free goes first. */
void qt_evict(struct qt_env *env, uint32_t count);

/* The physical blocks of a line in one group; only with K and V. */
uint32_t qt_blocks(struct qt_env *env, const struct qt_line *line, uint32_t group,
                   const uint32_t **blocks);
/* Blocks that are not QUIRE_BLOCK_NONE. */
uint32_t qt_blocks_held(struct qt_env *env, const struct qt_line *line, uint32_t group);

/* Takes all events of the ring; none may be lost. */
uint32_t qt_drain(struct qt_env *env, struct quire_event *events, uint32_t max_events);
/* How many of them have a kind. */
uint32_t qt_count(const struct quire_event *events, uint32_t count, uint32_t kind);

void qt_seq_stats(struct qt_env *env, const struct qt_line *line, struct quire_seq_stats *stats);
/* free, owned and cached blocks must be these. */
void qt_assert_states(struct qt_env *env, uint64_t num_free, uint64_t owned, uint64_t cached);

#endif
