/* pool_model_seqs.c - operations on sequences: create, fork, truncate, rows and the rest.
 * SPDX-License-Identifier: Apache-2.0 */
#include "pool_model.h"

#include <string.h>

struct pm_seq *pm_seq_at(struct pm_model *model, uint32_t slot, quire_seq *handle)
{
    struct pm_seq *seq = &model->seqs[slot % PM_SEQS];
    *handle = seq->live ? seq->handle : model->dead_seqs[slot % PM_GRAVES];
    return seq->live ? seq : NULL;
}

void pm_bury(struct pm_model *model, struct pm_seq *seq)
{
    model->dead_seqs[model->num_dead_seqs++ % PM_GRAVES] = seq->handle;
    seq->live = false;
}

/* An empty slot, the wanted one if it is; PM_SEQS: none. */
static uint32_t empty_slot(const struct pm_model *model, uint32_t wanted)
{
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        if (!model->seqs[(wanted + i) % PM_SEQS].live)
            return (wanted + i) % PM_SEQS;
    }
    return PM_SEQS;
}

/* Gives rows from .. to the content that their tokens say. */
static void fill_rows(struct pm_seq *seq, const uint32_t *tokens, uint32_t from, uint32_t to)
{
    uint64_t before = 0;
    for (uint32_t i = 0; i < to; i++) {
        before = pm_chain(seq->tenant, before, tokens[i]);
        if (i >= from)
            seq->rows[i] = (struct pm_row){tokens[i], true, before};
    }
}

/* What a sequence lets go may take the place of equal blocks that were evicted. */
static void publish_full(struct pm_model *model, struct pm_seq *seq)
{
    uint32_t size = model->shape.block_size;
    pm_index_publish(model, seq, pm_computed(seq) / size * size);
}

/* ---- create, lookup, rematch ---- */

enum { CREATE_SEQ, CREATE_TENANT, CREATE_PROMPT, CREATE_LEN, CREATE_LOOKUP };

/* What a lookup may take of n tokens. */
static uint32_t cap_of(const struct pm_model *model, uint32_t n)
{
    return n == 0 || model->shape.contiguous ? 0 : n - 1;
}

static void start_seq(struct pm_model *model, uint32_t slot, const uint32_t *args, quire_seq handle)
{
    struct pm_seq *seq = &model->seqs[slot];
    *seq = (struct pm_seq){.live = true, .handle = handle, .step = -1};
    seq->tenant = args[CREATE_TENANT];
    seq->prompt = args[CREATE_PROMPT];
    model->dropped[seq->tenant] = false;
    for (uint32_t i = 0; i < PM_GRAVES; i++)
        PM_EXPECT(model, model->dead_seqs[i].id != handle.id, "P5: a handle lives again");
}

void pm_op_create(struct pm_model *model, const uint32_t *args)
{
    struct quire_seq_config config;
    uint32_t tokens[PM_LEN_MAX], peek = 0, len = 0, slot = empty_slot(model, args[CREATE_SEQ]);
    uint32_t n = args[CREATE_LEN] % (model->shape.seq_len + 1);
    quire_seq handle = {0};
    pm_prefix(model, args[CREATE_TENANT], args[CREATE_PROMPT], n, tokens, &config);
    config.no_lookup = args[CREATE_LOOKUP] == 0;
    PM_STATUS(model, quire_pool_lookup(model->env.pool, &config, &peek), QUIRE_OK);
    pm_unchanged(model);
    quire_status got = quire_seq_create(model->env.pool, &config, &handle);
    pm_trace(model, "create in slot %u with %u tokens: %s, %u found", slot, n,
             quire_status_name(got), peek);
    if (slot == PM_SEQS) {
        pm_status_is(model, __LINE__, got, QUIRE_E_LIMIT, "quire_seq_create");
        pm_unchanged(model);
        return;
    }
    pm_status_is(model, __LINE__, got, QUIRE_OK, "quire_seq_create");
    start_seq(model, slot, args, handle);
    struct pm_seq *seq = &model->seqs[slot];
    PM_STATUS(model, quire_seq_length(model->env.pool, handle, &len), QUIRE_OK);
    PM_EXPECT(model, len == (config.no_lookup ? 0 : peek), "lookup says %u, create has %u", peek,
              len);
    pm_index_judge(model, &config, seq->tenant, cap_of(model, n), peek);
    model->lookups += n > 0;
    fill_rows(seq, tokens, 0, len);
    seq->len = seq->hit = len;
    seq->sure = len / model->shape.block_size;
    pm_need(model, seq, len);
    pm_compare_seq(model, slot);
    pm_compare_rows(model, slot);
}

void pm_op_lookup(struct pm_model *model, const uint32_t *args)
{
    struct quire_seq_config config;
    uint32_t tokens[PM_LEN_MAX + 1], len = 0, n = args[2] % (model->shape.seq_len + 2);
    pm_prefix(model, args[0], args[1], n, tokens, &config);
    quire_status got = quire_pool_lookup(model->env.pool, &config, &len);
    pm_trace(model, "lookup of %u tokens: %s, %u found", n, quire_status_name(got), len);
    pm_status_is(model, __LINE__, got, n > model->shape.seq_len ? QUIRE_E_LIMIT : QUIRE_OK,
                 "quire_pool_lookup");
    pm_unchanged(model);
    if (got == QUIRE_OK)
        pm_index_judge(model, &config, args[0], cap_of(model, n), len);
}

enum { REMATCH_SEQ, REMATCH_MORE, REMATCH_WRONG };

/* The tokens of a sequence, and more of its prompt; `wrong` changes one of them. */
static uint32_t rematch_tokens(const struct pm_model *model, const struct pm_seq *seq,
                               const uint32_t *args, uint32_t *tokens)
{
    uint32_t n = seq->len + args[REMATCH_MORE] % (model->shape.seq_len - seq->len + 1);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = i < seq->len ? seq->rows[i].token : pm_token(model, seq->prompt, i);
    if (args[REMATCH_WRONG] == 0 && seq->len > 0) {
        uint32_t *token = &tokens[args[REMATCH_MORE] % seq->len];
        *token = (*token + 1) % model->shape.alphabet;
    }
    return n;
}

void pm_op_rematch(struct pm_model *model, const uint32_t *args)
{
    struct quire_seq_config config;
    uint32_t tokens[PM_LEN_MAX] = {0}, len = 0, tenant = 0, n = 1;
    quire_seq handle;
    struct pm_seq *seq = pm_seq_at(model, args[REMATCH_SEQ], &handle);
    if (seq != NULL) {
        tenant = args[REMATCH_WRONG] == 1 ? (seq->tenant + 1) % PM_TENANTS : seq->tenant;
        n = rematch_tokens(model, seq, args, tokens);
    }
    pm_prefix(model, tenant, 0, 0, tokens, &config);
    config.tokens = n > 0 ? tokens : NULL;
    config.num_tokens = n;
    quire_status got = quire_seq_rematch(model->env.pool, handle, &config, &len);
    pm_trace(model, "rematch with %u tokens: %s, %u now", n, quire_status_name(got), len);
    bool wrong = seq != NULL && (tenant != seq->tenant || pm_known(seq) < seq->len ||
                                 (args[REMATCH_WRONG] == 0 && seq->len > 0));
    quire_status want = seq == NULL      ? QUIRE_E_INVAL
                        : seq->step >= 0 ? QUIRE_E_BUSY
                        : wrong          ? QUIRE_E_MISMATCH
                                         : QUIRE_OK;
    pm_status_is(model, __LINE__, got, want, "quire_seq_rematch");
    if (got != QUIRE_OK) {
        pm_unchanged(model);
        return;
    }
    PM_EXPECT(model, len >= seq->len, "rematch shortened %u to %u", seq->len, len);
    model->lookups += n > 0;
    if (len > seq->len)
        pm_index_judge(model, &config, tenant, cap_of(model, n), len);
    else if (!model->index.lossy[tenant])
        PM_EXPECT(model, pm_index_longest(model, tenant, tokens, cap_of(model, n)) <= len,
                  "rematch found nothing past %u", len);
    if (len > seq->len) {
        publish_full(model, seq);
        fill_rows(seq, tokens, seq->len, len);
        memset(seq->barred, 0, sizeof seq->barred);
        seq->len = len;
        seq->hit = len;
        seq->sure = len / model->shape.block_size;
        pm_need(model, seq, len);
    }
    pm_compare_seq(model, args[REMATCH_SEQ] % PM_SEQS);
    pm_compare_rows(model, args[REMATCH_SEQ] % PM_SEQS);
}

/* ---- fork, truncate ---- */

/* Whether a cut at `len` must work: the rows before it are held, or cached without any doubt. */
static bool cut_works(const struct pm_model *model, const struct pm_seq *seq, uint32_t len)
{
    uint32_t whole = pm_computed(seq) / model->shape.block_size * model->shape.block_size;
    return pm_holds(model, seq, len) || (!model->index.lossy[seq->tenant] && whole >= len);
}

enum { FORK_SEQ, FORK_TO, FORK_LEN };

/* The status and the longest position of a refused cut. */
static void check_refused_cut(struct pm_model *model, const struct pm_seq *seq, uint32_t len,
                              uint32_t longest)
{
    PM_EXPECT(model, !cut_works(model, seq, len), "W1: no cut of %u positions at %u", seq->len,
              len);
    PM_EXPECT(model, longest < len, "W1: a cut at %u fails, and at %u would work", len, longest);
    for (uint32_t at = longest + 1; at < len; at++)
        PM_EXPECT(model, !pm_holds(model, seq, at), "W1: longest is %u, but %u works", longest, at);
    pm_unchanged(model);
}

static void check_fork_room(struct pm_model *model, const struct pm_seq *seq, uint32_t len)
{
    uint64_t there = model->stats.blocks_free + model->stats.blocks_cached;
    PM_EXPECT(model, model->shape.contiguous && pm_blocks(model, len) > there,
              "a fork of %u of %u positions has no space", len, seq->len);
    pm_unchanged(model);
}

void pm_op_fork(struct pm_model *model, const uint32_t *args)
{
    quire_seq handle, fork = {0};
    uint32_t longest = 0, slot = empty_slot(model, args[FORK_TO]);
    struct pm_seq *seq = pm_seq_at(model, args[FORK_SEQ], &handle);
    uint32_t len = seq != NULL ? args[FORK_LEN] % (seq->len + 2) : 0;
    if (seq != NULL && args[FORK_LEN] % 3 == 0)
        len = seq->len;
    quire_status got = quire_seq_fork(model->env.pool, handle, len, &fork, &longest);
    pm_trace(model, "fork at %u into slot %u: %s", len, slot, quire_status_name(got));
    if (seq != NULL && seq->step >= 0) {
        pm_status_is(model, __LINE__, got, QUIRE_E_BUSY, "quire_seq_fork");
    } else if (seq == NULL || len > seq->len) {
        pm_status_is(model, __LINE__, got, QUIRE_E_INVAL, "quire_seq_fork");
    } else if (slot == PM_SEQS) {
        pm_status_is(model, __LINE__, got, QUIRE_E_LIMIT, "quire_seq_fork");
    } else if (got == QUIRE_E_NOSPACE) {
        check_fork_room(model, seq, len);
    } else if (got == QUIRE_E_NOTFOUND) {
        check_refused_cut(model, seq, len, longest);
    } else {
        pm_status_is(model, __LINE__, got, QUIRE_OK, "quire_seq_fork");
    }
    if (got != QUIRE_OK) {
        pm_unchanged(model);
        return;
    }
    struct pm_seq *child = &model->seqs[slot];
    *child = *seq;
    child->handle = fork;
    child->len = child->hit = len;
    if (child->sure > len / model->shape.block_size)
        child->sure = len / model->shape.block_size;
    pm_need(model, child, len);
    for (uint32_t b = pm_blocks(model, len); b < PM_BLOCKS_MAX; b++)
        child->barred[b] = false;
    if (args[FORK_LEN] % 2 == 0)
        child->prompt = pm_turn(child->prompt, len, args[FORK_LEN] / 2);
    pm_compare_seq(model, slot);
    pm_compare_rows(model, slot);
}

enum { TRUNCATE_SEQ, TRUNCATE_LEN, TRUNCATE_HOW };

static void cut(struct pm_model *model, struct pm_seq *seq, uint32_t len)
{
    publish_full(model, seq);
    for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
        uint32_t need = pm_window_start(&model->geometry->groups[g], len) / model->shape.block_size;
        seq->low[g] = need < seq->low[g] ? need : seq->low[g];
    }
    for (uint32_t b = len / model->shape.block_size; b < PM_BLOCKS_MAX; b++)
        seq->barred[b] = false;
    seq->sure =
        seq->sure < len / model->shape.block_size ? seq->sure : len / model->shape.block_size;
    seq->len = len;
}

void pm_op_truncate(struct pm_model *model, const uint32_t *args)
{
    quire_seq handle;
    uint32_t longest = 0;
    struct pm_seq *seq = pm_seq_at(model, args[TRUNCATE_SEQ], &handle);
    bool reset = args[TRUNCATE_HOW] == 0;
    uint32_t len = seq != NULL && !reset ? args[TRUNCATE_LEN] % (seq->len + 2) : 0;
    if (seq != NULL && args[TRUNCATE_HOW] % 2 == 1 && seq->len > 0)
        len = seq->len - args[TRUNCATE_LEN] % (seq->len < 4 ? seq->len : 4); /* a little */
    quire_status got = reset ? quire_seq_reset(model->env.pool, handle)
                             : quire_seq_truncate(model->env.pool, handle, len, &longest);
    pm_trace(model, "truncate to %u: %s", len, quire_status_name(got));
    if (seq != NULL && seq->step >= 0) {
        pm_status_is(model, __LINE__, got, QUIRE_E_BUSY, "quire_seq_truncate");
    } else if (seq == NULL || len > seq->len) {
        pm_status_is(model, __LINE__, got, QUIRE_E_INVAL, "quire_seq_truncate");
    } else if (got == QUIRE_E_NOTFOUND) {
        check_refused_cut(model, seq, len, longest);
        PM_STATUS(model, quire_seq_truncate(model->env.pool, handle, longest, NULL), QUIRE_OK);
        cut(model, seq, longest);
        return;
    } else {
        pm_status_is(model, __LINE__, got, QUIRE_OK, "quire_seq_truncate");
    }
    if (got == QUIRE_OK)
        cut(model, seq, len);
    else
        pm_unchanged(model);
}

/* ---- destroy, publish ---- */

void pm_op_destroy(struct pm_model *model, const uint32_t *args)
{
    quire_seq handle;
    struct pm_seq *seq = pm_seq_at(model, args[0], &handle);
    quire_status got = quire_seq_destroy(model->env.pool, handle);
    pm_trace(model, "destroy: %s", quire_status_name(got));
    pm_status_is(model, __LINE__, got,
                 seq == NULL      ? QUIRE_E_INVAL
                 : seq->step >= 0 ? QUIRE_E_BUSY
                                  : QUIRE_OK,
                 "quire_seq_destroy");
    if (got != QUIRE_OK) {
        pm_unchanged(model);
        return;
    }
    pm_index_publish(model, seq, pm_computed(seq));
    if (pm_computed(seq) < seq->len) /* whether half of a block may be published is not said */
        model->index.lossy[seq->tenant] = true;
    pm_bury(model, seq);
    if (args[1] % 4 == 0)
        PM_STATUS(model, quire_seq_destroy(model->env.pool, handle), QUIRE_E_INVAL);
}

void pm_op_publish(struct pm_model *model, const uint32_t *args)
{
    quire_seq handle;
    struct pm_seq *seq = pm_seq_at(model, args[0], &handle);
    quire_status got = quire_seq_publish(model->env.pool, handle);
    pm_trace(model, "publish: %s", quire_status_name(got));
    bool unable = model->shape.contiguous;
    if (unable && (seq == NULL || seq->step >= 0)) {
        PM_EXPECT(model, got != QUIRE_OK, "a contiguous pool publishes");
        return;
    }
    pm_status_is(model, __LINE__, got,
                 seq == NULL      ? QUIRE_E_INVAL
                 : seq->step >= 0 ? QUIRE_E_BUSY
                 : unable         ? QUIRE_E_UNSUPPORTED
                                  : QUIRE_OK,
                 "quire_seq_publish");
    if (got != QUIRE_OK) {
        pm_unchanged(model);
        return;
    }
    pm_index_publish(model, seq, pm_computed(seq));
    if (pm_computed(seq) < seq->len)
        model->index.lossy[seq->tenant] = true;
}

/* ---- rows ---- */

void pm_op_read(struct pm_model *model, const uint32_t *args)
{
    uint32_t first = args[0] < PM_SEQS ? args[0] : 0;
    uint32_t end = args[0] < PM_SEQS ? args[0] + 1 : PM_SEQS;
    for (uint32_t i = first; i < end; i++) {
        pm_compare_seq(model, i);
        pm_compare_rows(model, i);
    }
    quire_seq handle;
    struct quire_rows rows = {0, 0, 1};
    const struct pm_seq *seq = pm_seq_at(model, first, &handle);
    if (seq == NULL || !model->env.has_kv) {
        quire_status got = quire_seq_read(model->env.pool, handle, &rows, NULL, NULL);
        PM_EXPECT(model, got == QUIRE_E_INVAL || (seq != NULL && got == QUIRE_E_UNSUPPORTED),
                  "a read of nothing answers %s", quire_status_name(got));
    }
}

/* Whether somebody else has one of the blocks of a run for sure. */
static bool surely_shared(const struct pm_model *model, uint32_t index, uint32_t first,
                          uint32_t last)
{
    for (uint32_t s = 0; s < PM_SEQS && model->has_tables; s++) {
        for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
            const struct pm_table *mine = &model->tables[index], *other = &model->tables[s];
            for (uint32_t b = first; b <= last && s != index && model->seqs[s].live; b++) {
                if (b < other->count[g] && mine->blocks[g][b] != QUIRE_BLOCK_NONE &&
                    mine->blocks[g][b] == other->blocks[g][b])
                    return true;
            }
        }
    }
    return false;
}

/* Writes rows of every layer as the model has them, until one is refused. */
static quire_status write_all(struct pm_model *model, const struct pm_seq *seq, uint32_t first,
                              uint32_t count)
{
    quire_status status = QUIRE_OK;
    for (uint32_t layer = 0; layer < model->geometry->num_layers && status == QUIRE_OK; layer++) {
        uint32_t k_bytes = qt_row_bytes(&model->env, layer, QT_K);
        uint32_t v_bytes = qt_row_bytes(&model->env, layer, QT_V);
        uint8_t *k = model->rows, *v = model->rows + (size_t)k_bytes * count;
        struct quire_rows rows = {layer, first, count};
        for (uint32_t i = 0; i < count; i++) {
            uint64_t content = seq->rows[first + i].content;
            content = content != 0 ? content : 1;
            pm_row_stored(model, seq->tenant, content, layer, QT_K, k + i * k_bytes);
            pm_row_stored(model, seq->tenant, content, layer, QT_V, v + i * v_bytes);
        }
        status = quire_seq_write(model->env.pool, seq->handle, &rows, k, v);
    }
    return status;
}

enum { ROWS_SEQ, ROWS_FIRST, ROWS_COUNT };

/* The rows of a run that a sequence holds for sure in every group; false: none. */
static bool held_run(const struct pm_model *model, const struct pm_seq *seq, const uint32_t *args,
                     struct quire_rows *run)
{
    uint32_t start = 0;
    if (seq->len == 0 || seq->step >= 0)
        return false;
    for (uint32_t g = 0; g < model->geometry->num_groups && !model->shape.contiguous; g++) {
        uint32_t low = seq->low[g] * model->shape.block_size;
        start = low > start ? low : start;
    }
    uint32_t first = args[ROWS_FIRST] % seq->len;
    run->first = first < start ? start : first;
    if (run->first >= seq->len)
        return false;
    run->count = 1 + args[ROWS_COUNT] % (seq->len - run->first);
    return true;
}

/* Writes committed rows again as they are; then those that no tokens name anew. */
void pm_op_write_rows(struct pm_model *model, const uint32_t *args)
{
    quire_seq handle;
    struct quire_rows run = {0, 0, 1};
    uint32_t index = args[ROWS_SEQ] % PM_SEQS, size = model->shape.block_size;
    struct pm_seq *seq = pm_seq_at(model, index, &handle);
    if (seq == NULL || !model->env.has_kv) {
        quire_status got = quire_seq_write(model->env.pool, handle, &run, model->rows, model->rows);
        PM_EXPECT(model, got == QUIRE_E_INVAL || (seq != NULL && got == QUIRE_E_UNSUPPORTED),
                  "a write of nothing answers %s", quire_status_name(got));
        return;
    }
    if (!held_run(model, seq, args, &run))
        return;
    uint32_t end = run.first + run.count, computed = pm_computed(seq);
    quire_status got = write_all(model, seq, run.first, run.count);
    pm_trace(model, "write of rows %u to %u: %s", run.first, end, quire_status_name(got));
    bool shared = surely_shared(model, index, run.first / size, (end - 1) / size);
    bool alone = model->shape.contiguous ||
                 (run.first / size * size >= computed && !shared && model->stats.open_steps == 0);
    PM_EXPECT(model, got == QUIRE_OK || got == QUIRE_E_BUSY, "quire_seq_write answers %s",
              quire_status_name(got));
    PM_EXPECT(model, got == QUIRE_E_BUSY || !shared, "P3: rows that others hold were written");
    PM_EXPECT(model, got == QUIRE_OK || !alone, "rows that nobody else can read are busy");
    if (got == QUIRE_OK && end > computed) {
        for (uint32_t i = computed > run.first ? computed : run.first; i < end; i++)
            seq->rows[i].content = pm_unique(model);
        PM_STATUS(model, write_all(model, seq, run.first, run.count), QUIRE_OK);
    }
    pm_compare_rows(model, index);
}
