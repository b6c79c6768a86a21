/* pool_model_steps.c - operations on steps: begin, write, commit, abort.
 * SPDX-License-Identifier: Apache-2.0 */
#include "pool_model.h"

#include <string.h>

#include "base/base.h"

static struct pm_step *step_at(struct pm_model *model, uint32_t slot, quire_step *handle)
{
    struct pm_step *step = &model->steps[slot % PM_STEPS];
    *handle = step->open ? step->handle : model->dead_steps[slot % PM_GRAVES];
    return step->open ? step : NULL;
}

/* ---- begin ---- */

struct batch {
    struct pm_step *step;
    struct quire_step_item items[PM_SEQS];
    struct qt_random random;
    const uint32_t *args;
};

enum { BEGIN_ITEMS, BEGIN_SIZES, BEGIN_UNTOLD, BEGIN_TURN, BEGIN_FAULT };

/* Rows of an item: what everybody computes who has the same tokens, else something unique. */
static void fill_item(struct pm_model *model, const struct pm_seq *seq, struct pm_item *item)
{
    uint32_t computed = pm_computed(seq);
    bool chained = item->told && computed == seq->len;
    uint64_t before = computed > 0 ? seq->rows[computed - 1].content : 0;
    for (uint32_t j = 0; j < item->n_new; j++) {
        uint32_t token = pm_token(model, seq->prompt, seq->len + j);
        item->tokens[j] = token;
        before = chained ? pm_chain(seq->tenant, before, token) : pm_unique(model);
        item->rows[j] = (struct pm_row){token, item->told, before};
    }
}

/* How many tokens an item gets; 0: it stays out. */
static uint32_t draw_size(struct pm_model *model, struct batch *batch, const struct pm_seq *seq)
{
    uint32_t rows = model->shape.step_tokens - batch->step->num_tokens;
    uint32_t room = model->shape.seq_len - seq->len, most = room < rows ? room : rows;
    bool wrong = qt_chance(&batch->random, 4);
    uint32_t size =
        qt_chance(&batch->random, 45) ? 1 : 1 + qt_below(&batch->random, most > 1 ? most : 1);
    if (seq->step >= 0 || most == 0)
        return wrong ? 1 : 0;
    return size;
}

static void add_item(struct pm_model *model, struct batch *batch, uint32_t index)
{
    struct pm_seq *seq = &model->seqs[index];
    struct pm_step *step = batch->step;
    uint32_t n_new = draw_size(model, batch, seq);
    if (n_new == 0)
        return;
    struct pm_item *item = &step->items[step->num_items];
    *item = (struct pm_item){.seq = index, .n_new = n_new};
    item->told = (batch->args[BEGIN_UNTOLD] & 1u << index) == 0;
    if (seq->step < 0 && seq->len + n_new <= model->shape.seq_len) {
        if (batch->args[BEGIN_TURN] == index)
            seq->prompt = pm_turn(seq->prompt, seq->len, batch->args[BEGIN_SIZES]);
        fill_item(model, seq, item);
    }
    batch->items[step->num_items] =
        (struct quire_step_item){seq->handle, n_new, item->told ? item->tokens : NULL};
    step->num_items++;
    step->num_tokens += n_new;
}

/* The first reason to refuse, in the order of the items. */
static quire_status refusal(const struct pm_model *model, const struct pm_step *step)
{
    uint32_t rows = 0;
    if (step->num_items == 0)
        return QUIRE_E_INVAL;
    for (uint32_t i = 0; i < step->num_items; i++) {
        const struct pm_seq *seq = &model->seqs[step->items[i].seq];
        rows += step->items[i].n_new;
        if (seq->step >= 0)
            return QUIRE_E_BUSY;
        if (seq->len + step->items[i].n_new > model->shape.seq_len ||
            rows > model->shape.step_tokens)
            return QUIRE_E_LIMIT;
    }
    return QUIRE_OK;
}

static bool in_step(const struct pm_step *step, uint32_t seq)
{
    for (uint32_t i = 0; i < step->num_items; i++) {
        if (step->items[i].seq == seq)
            return true;
    }
    return false;
}

/* Copies that begin must make: of last blocks that a sequence outside the step has too. */
static uint32_t copies_least(const struct pm_model *model, const struct pm_step *step, uint32_t i)
{
    const struct pm_item *item = &step->items[i];
    uint32_t count = 0, last = model->seqs[item->seq].len / model->shape.block_size;
    for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
        bool shared = false;
        for (uint32_t s = 0; s < PM_SEQS; s++) {
            const struct pm_table *other = &model->tables[s];
            shared =
                shared || (model->seqs[s].live && !in_step(step, s) && other->count[g] > last &&
                           other->blocks[g][last] == item->table[g][last]);
        }
        count += shared;
    }
    return count;
}

struct needs {
    uint64_t least, most, available;
};

static struct needs needs_of(const struct pm_model *model, const struct pm_step *step)
{
    struct needs needs = {.available = model->stats.blocks_free + model->stats.blocks_cached};
    uint32_t tables = model->shape.contiguous ? 1 : model->geometry->num_groups;
    for (uint32_t i = 0; i < step->num_items; i++) {
        const struct pm_seq *seq = &model->seqs[step->items[i].seq];
        uint32_t grown = pm_blocks(model, (uint64_t)seq->len + step->items[i].n_new) -
                         pm_blocks(model, seq->len);
        bool partial = seq->len % model->shape.block_size != 0 && !model->shape.contiguous;
        needs.least += (uint64_t)grown * tables;
        needs.most += (uint64_t)(grown + partial) * tables;
        if (partial && model->has_tables)
            needs.least += copies_least(model, step, i);
    }
    return needs;
}

/* Makes the device refuse what begin asks of it. */
static bool plan_refusal(struct pm_model *model, uint32_t fault)
{
    if (!model->env.opaque || fault > 1)
        return false;
    qt_opaque_fail(model->env.backend, fault == 0 ? QT_CALL_UPLOAD : QT_CALL_PLAN_BUILD, 0,
                   QUIRE_E_NOMEM);
    return true;
}

static void keep_step(struct pm_model *model, struct pm_step *step)
{
    uint32_t slot = 0;
    while (model->steps[slot].open)
        slot++;
    step->open = true;
    model->steps[slot] = *step;
    for (uint32_t i = 0; i < step->num_items; i++) {
        struct pm_seq *seq = &model->seqs[step->items[i].seq];
        seq->step = (int)slot;
        seq->n_new = step->items[i].n_new;
    }
}

/* A refused begin leaves every table as it was. */
static void check_untouched(struct pm_model *model, const struct pm_step *step)
{
    for (uint32_t i = 0; i < step->num_items && model->has_tables; i++) {
        const struct pm_item *item = &step->items[i];
        struct pm_table table;
        pm_read_table(model, item->seq, &table);
        for (uint32_t g = 0; g < model->geometry->num_groups; g++)
            PM_EXPECT(
                model,
                table.count[g] == item->count[g] &&
                    memcmp(table.blocks[g], item->table[g], table.count[g] * sizeof(uint32_t)) == 0,
                "T1: the table of sequence %u is not what begin saw", item->seq);
    }
}

static void begin(struct pm_model *model, struct batch *batch)
{
    struct pm_step *step = batch->step;
    quire_status want = refusal(model, step);
    uint64_t missing = 0;
    struct needs needs = {0};
    bool refused = false;
    if (want == QUIRE_OK) {
        needs = needs_of(model, step);
        refused = plan_refusal(model, batch->args[BEGIN_FAULT]);
    }
    quire_status got =
        quire_step_begin(model->env.pool, batch->items, step->num_items, &step->handle, &missing);
    if (model->env.opaque)
        qt_opaque_fail_none(model->env.backend);
    pm_trace(model, "begin of %u items: %s", step->num_items, quire_status_name(got));
    if (want != QUIRE_OK) {
        pm_status_is(model, __LINE__, got, want, "quire_step_begin");
    } else if (got == QUIRE_E_NOSPACE) {
        PM_EXPECT(model, needs.most > needs.available,
                  "E2: NOSPACE for %llu blocks, with %llu free or cached",
                  (unsigned long long)needs.most, (unsigned long long)needs.available);
        PM_EXPECT(model,
                  missing > 0 && missing <= needs.most - needs.available &&
                      needs.least <= missing + needs.available,
                  "%llu blocks missing: %llu to %llu needed, %llu there",
                  (unsigned long long)missing, (unsigned long long)needs.least,
                  (unsigned long long)needs.most, (unsigned long long)needs.available);
    } else if (refused) {
        pm_status_is(model, __LINE__, got, QUIRE_E_NOMEM, "quire_step_begin, refused");
    } else {
        pm_status_is(model, __LINE__, got, QUIRE_OK, "quire_step_begin");
        PM_EXPECT(model, needs.least <= needs.available, "%llu blocks taken, %llu were there",
                  (unsigned long long)needs.least, (unsigned long long)needs.available);
    }
    if (got == QUIRE_OK) {
        keep_step(model, step);
    } else {
        pm_unchanged(model);
        check_untouched(model, step);
    }
}

void pm_op_begin(struct pm_model *model, const uint32_t *args)
{
    static struct pm_step step;
    struct batch batch = {.step = &step, .random = pm_random(args[BEGIN_SIZES]), .args = args};
    uint32_t open = 0, first = qt_below(&batch.random, PM_SEQS);
    memset(&step, 0, sizeof step);
    for (uint32_t i = 0; i < PM_STEPS; i++)
        open += model->steps[i].open;
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        uint32_t index = (first + i) % PM_SEQS;
        if (model->seqs[index].live && (args[BEGIN_ITEMS] & 1u << index) != 0)
            add_item(model, &batch, index);
    }
    for (uint32_t i = 0; i < step.num_items && model->has_tables; i++) {
        const struct pm_table *table = &model->tables[step.items[i].seq];
        memcpy(step.items[i].count, table->count, sizeof table->count);
        memcpy(step.items[i].table, table->blocks, sizeof table->blocks);
    }
    if (step.num_items > 0 && open == PM_STEPS)
        PM_STATUS(
            model,
            quire_step_begin(model->env.pool, batch.items, step.num_items, &step.handle, NULL),
            QUIRE_E_BUSY);
    else
        begin(model, &batch);
}

/* ---- write ---- */

enum { WRITE_STEP, WRITE_HOW };

static struct quire_view input_view(struct pm_model *model, uint32_t layer, enum qt_plane plane,
                                    uint64_t offset)
{
    const struct quire_group_config *group = qt_group_of(model->geometry, layer);
    uint32_t dim = plane == QT_V ? qt_head_dim_v(group) : group->head_dim;
    struct quire_view view =
        quire_view_buffer(model->env.inputs, offset, QUIRE_F32, 0, group->num_kv_heads, dim);
    if (model->env.host_views) {
        view.buffer = NULL;
        view.host = model->env.host_inputs;
    }
    return view;
}

static void write_layer(struct pm_model *model, struct pm_step *step, uint32_t layer)
{
    struct qt_env *env = &model->env;
    uint64_t k_count = qt_row_elements(model->geometry, layer, QT_K) * (uint64_t)step->num_tokens;
    float *k_row = env->host_inputs, *v_row = env->host_inputs + k_count;
    uint64_t v_count = qt_row_elements(model->geometry, layer, QT_V) * (uint64_t)step->num_tokens;
    for (uint32_t i = 0; i < step->num_items; i++) {
        uint32_t tenant = model->seqs[step->items[i].seq].tenant;
        for (uint32_t j = 0; j < step->items[i].n_new; j++) {
            uint64_t content = step->items[i].rows[j].content;
            pm_row_floats(model, tenant, content, layer, QT_K, k_row);
            pm_row_floats(model, tenant, content, layer, QT_V, v_row);
            k_row += qt_row_elements(model->geometry, layer, QT_K);
            v_row += qt_row_elements(model->geometry, layer, QT_V);
        }
    }
    struct quire_view k = input_view(model, layer, QT_K, 0);
    struct quire_view v = input_view(model, layer, QT_V, k_count * sizeof(float));
    k.shape[0] = v.shape[0] = step->num_tokens;
    struct quire_upload upload = {0, (k_count + v_count) * sizeof(float), env->host_inputs};
    if (!env->host_views)
        PM_STATUS(model, env->backend->memory->upload(env->backend, env->inputs, &upload, 1),
                  QUIRE_OK);
    PM_STATUS(model, quire_step_write(env->pool, step->handle, layer, &k, &v), QUIRE_OK);
    if (env->host_views) /* the host's rows are filled again for the next layer */
        qt_wait(env);
    step->written |= 1u << layer;
}

/* As an engine with its own kernels: puts the rows there itself. */
static void write_rows(struct pm_model *model, struct pm_step *step)
{
    for (uint32_t layer = 0; layer < model->geometry->num_layers; layer++) {
        uint32_t k_bytes = qt_row_bytes(&model->env, layer, QT_K);
        uint32_t v_bytes = qt_row_bytes(&model->env, layer, QT_V);
        for (uint32_t i = 0; i < step->num_items && model->env.has_kv; i++) {
            const struct pm_item *item = &step->items[i];
            const struct pm_seq *seq = &model->seqs[item->seq];
            uint8_t *k = model->rows, *v = model->rows + (size_t)k_bytes * item->n_new;
            for (uint32_t j = 0; j < item->n_new; j++) {
                uint64_t content = item->rows[j].content;
                pm_row_stored(model, seq->tenant, content, layer, QT_K, k + j * k_bytes);
                pm_row_stored(model, seq->tenant, content, layer, QT_V, v + j * v_bytes);
            }
            struct quire_rows rows = {layer, seq->len, item->n_new};
            quire_status got = quire_seq_write(model->env.pool, seq->handle, &rows, k, v);
            PM_STATUS(model, got, QUIRE_OK);
        }
    }
    step->rows_written = true;
}

/* The batch in CSR form is the batch, and names blocks that exist. */
static void check_view(struct pm_model *model, const struct pm_step *step, uint32_t group)
{
    struct quire_step_view view = {.struct_size = sizeof view};
    uint32_t size = model->shape.block_size, row = 0;
    PM_STATUS(model, quire_step_view(model->env.pool, step->handle, group, &view), QUIRE_OK);
    PM_EXPECT(model, view.num_items == step->num_items && view.num_tokens == step->num_tokens,
              "a view of %u items", view.num_items);
    PM_EXPECT(model, view.num_copies == 0 || !model->env.has_kv, "copies left to the caller");
    for (uint32_t i = 0; i < step->num_items; i++) {
        const struct pm_seq *seq = &model->seqs[step->items[i].seq];
        uint32_t first = view.kv_indptr[i], end = seq->len + seq->n_new;
        PM_EXPECT(model, view.kv_indptr[i + 1] - first == pm_blocks(model, end),
                  "item %u has %u blocks in the view", i, view.kv_indptr[i + 1] - first);
        PM_EXPECT(model, view.last_page_len[i] == end - (pm_blocks(model, end) - 1) * size,
                  "item %u has %u positions in its last block", i, view.last_page_len[i]);
        for (uint32_t t = seq->len; t < end; t++, row++) {
            uint32_t block = view.kv_indices[first + t / size];
            PM_EXPECT(model, block < model->shape.num_blocks, "S1: no block for a new position");
            PM_EXPECT(model, view.slot_mapping[row] == (uint64_t)block * size + t % size,
                      "a slot of the view");
        }
    }
}

void pm_op_write(struct pm_model *model, const uint32_t *args)
{
    quire_step handle;
    struct pm_step *step = step_at(model, args[WRITE_STEP], &handle);
    uint32_t layers = model->geometry->num_layers;
    if (step == NULL || !model->env.has_kv) {
        float row[64] = {0};
        struct quire_view view = quire_view_host(row, QUIRE_F32, 1, 1, 1);
        quire_status got = quire_step_write(model->env.pool, handle, 0, &view, &view);
        PM_EXPECT(model, got == (step == NULL ? QUIRE_E_INVAL : QUIRE_E_UNSUPPORTED),
                  "a write of nothing answers %s", quire_status_name(got));
    }
    if (step == NULL)
        return;
    bool by_rows = args[WRITE_HOW] <= 1 && !model->shape.contiguous;
    if (by_rows) {
        for (uint32_t g = 0; g < model->geometry->num_groups && args[WRITE_HOW] == 0; g++)
            check_view(model, step, g);
        step->viewed = step->viewed || args[WRITE_HOW] == 0;
        write_rows(model, step);
    }
    if (!model->env.has_kv)
        return;
    uint32_t wanted = args[WRITE_HOW] == 2 ? 1 : layers;
    for (uint32_t layer = 0; layer < layers && wanted > 0 && !by_rows; layer++) {
        if ((step->written & 1u << layer) == 0) {
            write_layer(model, step, layer);
            wanted--;
        }
    }
}

/* ---- commit and abort ---- */

enum { COMMIT_STEP, COMMIT_KEEP };

static void close_step(struct pm_model *model, struct pm_step *step)
{
    for (uint32_t i = 0; i < step->num_items; i++) {
        model->seqs[step->items[i].seq].step = -1;
        model->seqs[step->items[i].seq].n_new = 0;
    }
    model->dead_steps[model->num_dead_steps++ % PM_GRAVES] = step->handle;
    step->open = false;
}

static void commit_item(struct pm_model *model, const struct pm_step *step, uint32_t i,
                        uint32_t keep)
{
    const struct pm_item *item = &step->items[i];
    struct pm_seq *seq = &model->seqs[item->seq];
    bool written = !model->env.has_kv || step->viewed || step->rows_written || step->written != 0;
    for (uint32_t j = 0; j < keep; j++) {
        seq->rows[seq->len + j] = item->rows[j];
        if (!written) /* tokens of rows that nobody wrote are not known either */
            seq->rows[seq->len + j] = (struct pm_row){.token = item->rows[j].token};
    }
    seq->len += keep;
    pm_index_publish(model, seq,
                     pm_computed(seq) / model->shape.block_size * model->shape.block_size);
    for (uint32_t g = 0; g < model->geometry->num_groups; g++) {
        uint32_t back = seq->len > model->shape.rollback ? seq->len - model->shape.rollback : 0;
        uint32_t low = pm_window_start(&model->geometry->groups[g], back) / model->shape.block_size;
        seq->low[g] = low > seq->low[g] ? low : seq->low[g];
    }
}

void pm_op_commit(struct pm_model *model, const uint32_t *args)
{
    quire_step handle;
    struct pm_step *step = step_at(model, args[COMMIT_STEP], &handle);
    struct qt_random random = pm_random(args[COMMIT_KEEP]);
    uint32_t keep[PM_SEQS] = {0}, all = (1u << model->geometry->num_layers) - 1;
    if (step == NULL) {
        PM_STATUS(model, quire_step_commit(model->env.pool, handle, keep), QUIRE_E_INVAL);
        return;
    }
    bool whole = args[COMMIT_KEEP] % 2 == 0, over = args[COMMIT_KEEP] % 64 == 63;
    for (uint32_t i = 0; i < step->num_items; i++)
        keep[i] = whole ? step->items[i].n_new : qt_below(&random, step->items[i].n_new + 1);
    keep[0] += over ? step->items[0].n_new + 1 : 0;
    bool torn = step->written != 0 && step->written != all && !step->viewed;
    quire_status got = quire_step_commit(model->env.pool, handle, whole ? NULL : keep);
    pm_trace(model, "commit: %s", quire_status_name(got));
    pm_status_is(model, __LINE__, got, over || torn ? QUIRE_E_INVAL : QUIRE_OK,
                 "quire_step_commit");
    if (got != QUIRE_OK) {
        pm_unchanged(model);
        return;
    }
    for (uint32_t i = 0; i < step->num_items; i++)
        commit_item(model, step, i, keep[i]);
    close_step(model, step);
    model->committed++;
}

void pm_op_abort(struct pm_model *model, const uint32_t *args)
{
    quire_step handle;
    struct pm_step *step = step_at(model, args[0], &handle);
    if (step == NULL) {
        PM_STATUS(model, quire_step_abort(model->env.pool, handle), QUIRE_E_INVAL);
        return;
    }
    PM_STATUS(model, quire_step_abort(model->env.pool, handle), QUIRE_OK);
    pm_trace(model, "abort of %u items", step->num_items);
    close_step(model, step);
    check_untouched(model, step);
    model->aborted++;
}
