/* pool_model.h - a slow, obvious model of a pool, and scripts of operations that run on both.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A run is a shape (backend, layout, sizes) and a script of operations. An operation is a kind and
 * a few small numbers; it names sequences, steps and pins by slots of the model. One whose slot is
 * empty is called with a dead handle instead, so that every operation says something, whatever
 * stood before it, and a script stays one when operations are taken out of it.
 * tests/model_based/README.md has the whole. */
#ifndef QUIRE_TESTS_POOL_MODEL_H
#define QUIRE_TESTS_POOL_MODEL_H

#include "cache_fixture.h"

#include <stdio.h>

enum {
    PM_SEQS = 6,
    PM_STEPS = 3,
    PM_PINS = 3,
    PM_SALTS = 3,
    PM_ADAPTERS = 2,
    PM_TENANTS = PM_SALTS * PM_ADAPTERS, /* tenant = salt * PM_ADAPTERS + adapter */
    PM_LEN_MAX = 96,
    PM_ROWS_MAX = 48,
    PM_ALPHABET_MAX = 6,
    PM_BLOCKS_MAX = PM_LEN_MAX, /* of one sequence and group */
    PM_ARENA_MAX = 2048,        /* blocks of a pool */
    PM_GRAVES = 16,
    PM_ARGS = 5,
    PM_MESSAGE = 400,
};

/* ---- shapes ---- */

enum pm_backend { PM_NONE = 0, PM_CPU = 1, PM_OPAQUE = 2 };

struct pm_shape {
    uint32_t backend;
    uint32_t contiguous;
    uint32_t geometry; /* index of pm_geometries */
    uint32_t block_size, num_blocks;
    uint32_t seq_len, step_tokens;
    uint32_t rollback;
    uint32_t pinned_blocks;
    uint32_t merge_equal, eviction;
    uint32_t alphabet; /* tokens are below it */
    uint32_t vocab;    /* 1: the pool knows that */
    uint32_t events;
    uint32_t memory; /* 1: the arena is the test's own memory (cpu) */
    uint32_t f16;    /* else f32 */
};

extern const struct qt_geometry pm_geometries[];
uint32_t pm_num_geometries(void);
/* Draws a shape of a kind of backend. */
struct pm_shape pm_shape_draw(struct qt_random *random, enum pm_backend backend);

/* ---- operations and scripts ---- */

enum pm_kind {
    PM_CREATE,
    PM_LOOKUP,
    PM_REMATCH,
    PM_BEGIN,
    PM_WRITE,
    PM_COMMIT,
    PM_ABORT,
    PM_FORK,
    PM_TRUNCATE,
    PM_DESTROY,
    PM_PUBLISH,
    PM_PIN,
    PM_UNPIN,
    PM_DROP,
    PM_DROP_PREFIX,
    PM_RESET,
    PM_READ,
    PM_WRITE_ROWS,
    PM_INSPECT,
    PM_MISUSE,
    PM_KINDS
};

struct pm_op {
    uint32_t kind; /* enum pm_kind */
    uint32_t args[PM_ARGS];
};

struct pm_script {
    struct pm_shape shape;
    uint64_t seed; /* it was drawn from; 0: from none */
    struct pm_op *ops;
    uint32_t num_ops;
};

const char *pm_kind_name(enum pm_kind kind);
/* Draws operations that depend on nothing but `random`. */
void pm_ops_draw(struct qt_random *random, struct pm_op *ops, uint32_t num_ops);
void pm_script_print(const struct pm_script *script, FILE *out);
/* Reads what pm_script_print wrote; the caller frees script->ops. False, and with a name a line on
 * stderr, when it is no script. */
bool pm_script_read(FILE *in, const char *name, struct pm_script *script);

/* ---- what a run reports, in memory that parent and child share ---- */

struct pm_report {
    uint32_t failed;                       /* 1: message says why */
    uint32_t line;                         /* of the check that failed */
    uint64_t done;                         /* operations that ran, of all runs */
    uint32_t at;                           /* the operation that failed */
    uint32_t hits, exact, evicted, copied; /* what the runs saw, for the log */
    uint64_t pairs[PM_KINDS][PM_KINDS];
    char message[PM_MESSAGE];
};

/* ---- the model ---- */

struct pm_row {
    uint32_t token;
    bool known;       /* the pool was told the token */
    uint64_t content; /* names the bytes; 0: nobody wrote any */
};

struct pm_seq {
    bool live;
    quire_seq handle;
    uint32_t tenant, prompt, len;
    struct pm_row rows[PM_LEN_MAX];
    uint32_t low[QT_GROUPS_MAX]; /* blocks from here on are held for sure, beside sinks */
    bool barred[PM_BLOCKS_MAX];  /* dropped while held: never findable again */
    bool dropped;                /* some of it is: nothing of it is findable for sure */
    uint32_t sure;  /* first blocks that the index names, as long as the sequence lives */
    int step;       /* that holds it, or -1 */
    uint32_t n_new; /* of that step */
    uint32_t hit;   /* hit_tokens of its stats */
};

struct pm_item {
    uint32_t seq, n_new;
    bool told;
    struct pm_row rows[PM_ROWS_MAX];
    uint32_t tokens[PM_ROWS_MAX];
    uint32_t count[QT_GROUPS_MAX]; /* table as begin saw it */
    uint32_t table[QT_GROUPS_MAX][PM_BLOCKS_MAX];
};

struct pm_step {
    bool open, viewed, rows_written;
    quire_step handle;
    uint32_t num_items, num_tokens;
    struct pm_item items[PM_SEQS];
    uint32_t written; /* layers, a bit set */
};

struct pm_pin {
    bool live;
    quire_pin handle;
    uint32_t tenant, len;
    uint32_t tokens[PM_LEN_MAX];
};

/* What has ever been published: a tree of tokens for each tenant. */
struct pm_node {
    uint32_t children[PM_ALPHABET_MAX];
    bool published; /* its row may be findable after those before it */
    bool ever;      /* it was, at some time */
    bool end;       /* a block that was published ends here */
};

struct pm_index {
    struct pm_node *nodes;
    uint32_t count, size;
    bool full;              /* the pool's index had no node left */
    bool lossy[PM_TENANTS]; /* something of it may be gone: hits are bounded, not known */
};

/* The tables of one sequence, read through quire_seq_kv_cache. */
struct pm_table {
    uint32_t count[QT_GROUPS_MAX];
    uint32_t blocks[QT_GROUPS_MAX][PM_BLOCKS_MAX];
};

struct pm_model {
    struct pm_shape shape;
    struct qt_env env;
    const struct qt_geometry *geometry;
    struct pm_report *report;
    FILE *trace;      /* where operations tell what they did, or NULL */
    uint32_t planted; /* a failure to test the shrinker with, enum pm_plant */
    uint32_t num_planted;
    struct pm_seq seqs[PM_SEQS];
    struct pm_step steps[PM_STEPS];
    struct pm_pin pins[PM_PINS];
    quire_seq dead_seqs[PM_GRAVES];
    quire_step dead_steps[PM_GRAVES];
    quire_pin dead_pins[PM_GRAVES];
    uint32_t num_dead_seqs, num_dead_steps, num_dead_pins;
    struct pm_index index;
    uint64_t unique;               /* names content that nobody else computes */
    uint64_t op;                   /* number of the operation that runs */
    struct quire_pool_stats stats; /* after the last operation */
    uint64_t committed, aborted, lookups, lookup_tokens;
    bool dropping;            /* the operation is a drop */
    bool dropped[PM_TENANTS]; /* no byte of it may be left once nobody holds any */
    struct pm_table tables[PM_SEQS];
    bool has_tables; /* the backend lets tables be seen */
    uint8_t *memory; /* of the arena, or NULL */
    uint64_t memory_bytes;
    uint8_t *rows;         /* scratch: rows of K and V */
    uint64_t stored, gone; /* events seen */
    bool findable[PM_ARENA_MAX];
};

/* Ends the run: records the message and leaves the process, which is a child of the test. */
_Noreturn void pm_fail(struct pm_model *model, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define PM_EXPECT(model, condition, ...)                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            pm_fail((model), __LINE__, __VA_ARGS__);                                               \
    } while (0)
#define PM_STATUS(model, expression, wanted)                                                       \
    pm_status_is((model), __LINE__, (expression), (wanted), #expression)
void pm_status_is(struct pm_model *model, int line, quire_status got, quire_status wanted,
                  const char *expression);
void pm_trace(struct pm_model *model, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- tokens, prompts, content (pool_model_rows.c) ---- */

/* Token i of a prompt: a family's stream, left at two cuts for a branch. */
uint32_t pm_token(const struct pm_model *model, uint32_t prompt, uint32_t i);
/* The prompt that leaves `prompt` at position i for another branch. */
uint32_t pm_turn(uint32_t prompt, uint32_t i, uint32_t branch);
uint32_t pm_prompt_draw(struct qt_random *random);
void pm_prefix(const struct pm_model *model, uint32_t tenant, uint32_t prompt, uint32_t len,
               uint32_t *tokens, struct quire_seq_config *config);
/* The content that everybody computes who has these tokens before and this one here. */
uint64_t pm_chain(uint32_t tenant, uint64_t before, uint32_t token);
uint64_t pm_unique(struct pm_model *model);
/* Positions whose rows are what their tokens say, so that they may be found. */
uint32_t pm_computed(const struct pm_seq *seq);
uint32_t pm_known(const struct pm_seq *seq);
/* One row as a step takes it, and as the cache stores it: values carry their tenant. */
void pm_row_floats(const struct pm_model *model, uint32_t tenant, uint64_t content, uint32_t layer,
                   enum qt_plane plane, float *row);
void pm_row_stored(const struct pm_model *model, uint32_t tenant, uint64_t content, uint32_t layer,
                   enum qt_plane plane, void *bytes);
/* The tenant that a stored word names, or -1; 0 is nobody's. */
int pm_word_tenant(const struct pm_model *model, uint32_t word);

/* ---- the index (pool_model_index.c) ---- */

void pm_index_clear(struct pm_index *index);
void pm_index_publish(struct pm_model *model, struct pm_seq *seq, uint32_t len);
/* Forgets everything of a tenant that starts with tokens. */
void pm_index_drop(struct pm_model *model, uint32_t tenant, const uint32_t *tokens, uint32_t len);
/* The longest position, at most `cap`, that may be found; of n tokens. */
uint32_t pm_index_longest(const struct pm_model *model, uint32_t tenant, const uint32_t *tokens,
                          uint32_t cap);
/* A lookup found `len` of n tokens and no more: the whole block where it ended is gone. Those
 * behind it may be there, and are found again when somebody publishes that one. */
void pm_index_learn(struct pm_model *model, uint32_t tenant, const uint32_t *tokens, uint32_t len,
                    uint32_t n);
/* Checks a length that the pool found. */
void pm_index_judge(struct pm_model *model, const struct quire_seq_config *config, uint32_t tenant,
                    uint32_t cap, uint32_t len);
/* Counts the published blocks that a lookup reaches now. */
uint64_t pm_index_reach(struct pm_model *model);

/* ---- checks (pool_model_check.c) ---- */

uint32_t pm_blocks(const struct pm_model *model, uint64_t len);
uint32_t pm_window_start(const struct quire_group_config *group, uint32_t position);
bool pm_in_sinks(const struct pm_model *model, const struct quire_group_config *group,
                 uint32_t block);
bool pm_windowed(const struct pm_model *model);
void pm_read_stats(struct pm_model *model, struct quire_pool_stats *stats);
void pm_read_table(struct pm_model *model, uint32_t seq, struct pm_table *table);
/* After each operation: the pool's own check, counts, tables. */
void pm_compare(struct pm_model *model);
/* An operation that was refused changed nothing; free and cached may have changed places. */
void pm_unchanged(struct pm_model *model);
/* Reads the rows of a sequence that it holds and compares every byte. */
void pm_compare_rows(struct pm_model *model, uint32_t seq);
void pm_compare_seq(struct pm_model *model, uint32_t seq);
/* No word of the arena belongs to somebody who may not be there. */
void pm_scan(struct pm_model *model);
/* Whether the blocks that hold what `len` needs are held for sure. */
bool pm_holds(const struct pm_model *model, const struct pm_seq *seq, uint32_t len);
void pm_need(const struct pm_model *model, struct pm_seq *seq, uint32_t len);

/* ---- operations ---- */

void pm_op_create(struct pm_model *model, const uint32_t *args);
void pm_op_lookup(struct pm_model *model, const uint32_t *args);
void pm_op_rematch(struct pm_model *model, const uint32_t *args);
void pm_op_fork(struct pm_model *model, const uint32_t *args);
void pm_op_truncate(struct pm_model *model, const uint32_t *args);
void pm_op_destroy(struct pm_model *model, const uint32_t *args);
void pm_op_publish(struct pm_model *model, const uint32_t *args);
void pm_op_pin(struct pm_model *model, const uint32_t *args);
void pm_op_unpin(struct pm_model *model, const uint32_t *args);
void pm_op_drop(struct pm_model *model, const uint32_t *args);
void pm_op_drop_prefix(struct pm_model *model, const uint32_t *args);
void pm_op_reset(struct pm_model *model, const uint32_t *args);
void pm_op_read(struct pm_model *model, const uint32_t *args);
void pm_op_write_rows(struct pm_model *model, const uint32_t *args);
void pm_op_inspect(struct pm_model *model, const uint32_t *args);
void pm_op_misuse(struct pm_model *model, const uint32_t *args);
void pm_op_begin(struct pm_model *model, const uint32_t *args);
void pm_op_write(struct pm_model *model, const uint32_t *args);
void pm_op_commit(struct pm_model *model, const uint32_t *args);
void pm_op_abort(struct pm_model *model, const uint32_t *args);

/* A sequence by slot: itself, or NULL, and then *handle is dead. */
struct pm_seq *pm_seq_at(struct pm_model *model, uint32_t slot, quire_seq *handle);
void pm_bury(struct pm_model *model, struct pm_seq *seq);
struct qt_random pm_random(uint32_t seed);

/* ---- running (pool_model_run.c) ---- */

/* Failures that the test of the shrinker puts in. FORKS: at the second fork, of any outcome, after
 * a truncate, while some block is owned. CRASH: the process dies at the first fork. */
enum pm_plant { PM_PLANT_NONE, PM_PLANT_FORKS, PM_PLANT_CRASH };

struct pm_how {
    bool quiet;  /* the child's stderr is lost */
    bool strict; /* every byte after every operation */
    bool trace;  /* tell each operation on stdout */
    bool no_shrinking;
    uint32_t planted; /* enum pm_plant */
    uint32_t seconds; /* a child that hangs this long has failed; 0: 600 */
};

/* Runs a script in a child process. True when it passed; else report says what went wrong. */
bool pm_run(const struct pm_script *script, const struct pm_how *how, struct pm_report *report);
/* Memory for a report that children write. */
struct pm_report *pm_report_create(void);
void pm_report_destroy(struct pm_report *report);
/* Takes operations out of a failing script, and makes their numbers small, while it fails. */
void pm_shrink(struct pm_script *script, const struct pm_how *how, struct pm_report *report);
/* Runs a script; when it fails, shrinks it and prints it with what it does. */
bool pm_try(struct pm_script *script, const struct pm_how *how, struct pm_report *report);

#endif
