/* pool_model_run.c - runs scripts in child processes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A child may die of an assertion, a signal or a hang: the parent sees all of them as a failure,
 * and what the child told in shared memory as the reason. */
#include "pool_model.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"

struct pm_report *pm_report_create(void)
{
    void *memory = mmap(NULL, sizeof(struct pm_report), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        (void)fprintf(stderr, "tests: out of memory\n");
        abort();
    }
    return memory;
}

void pm_report_destroy(struct pm_report *report)
{
    (void)munmap(report, sizeof *report);
}

/* ---- what a child says ---- */

_Noreturn void pm_fail(struct pm_model *model, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(model->report->message, PM_MESSAGE, format, args);
    va_end(args);
    model->report->line = (uint32_t)line;
    model->report->failed = 1;
    (void)fflush(NULL);
    _exit(1);
}

void pm_status_is(struct pm_model *model, int line, quire_status got, quire_status wanted,
                  const char *expression)
{
    if (got != wanted)
        pm_fail(model, line, "%s answers %s, not %s", expression, quire_status_name(got),
                quire_status_name(wanted));
}

void pm_trace(struct pm_model *model, const char *format, ...)
{
    va_list args;
    if (model->trace == NULL)
        return;
    (void)fputs("    ", model->trace);
    va_start(args, format);
    (void)vfprintf(model->trace, format, args);
    va_end(args);
    (void)fputc('\n', model->trace);
    (void)fflush(model->trace);
}

/* ---- one run ---- */

static struct quire_backend *make_backend(const struct pm_shape *shape)
{
    static const char *const names[] = {"none", "cpu", "opaque"};
    if (shape->backend == PM_OPAQUE)
        return qt_backend("opaque", shape->num_blocks);
    struct quire_backend_config config;
    struct quire_backend *backend = NULL;
    struct quire_error error = {0};
    quire_backend_config_init(&config);
    config.num_threads = 1;
    if (quire_backend_create(names[shape->backend], &config, &backend, &error) != QUIRE_OK)
        fail_msg("backend %s: %s", names[shape->backend], error.message);
    return backend;
}

static void set_memory(struct pm_model *model, struct quire_pool_config *config)
{
    uint64_t block_bytes = 0, position_bytes = 0;
    if (!model->shape.memory || model->shape.contiguous)
        return;
    PM_STATUS(model, quire_pool_measure(config, &block_bytes, &position_bytes), QUIRE_OK);
    model->memory_bytes = block_bytes * model->shape.num_blocks;
    if (posix_memalign((void **)&model->memory, 64, model->memory_bytes) != 0)
        abort();
    memset(model->memory, 0, model->memory_bytes);
    config->memory = model->memory;
    config->memory_bytes = model->memory_bytes;
}

static void open_model(struct pm_model *model)
{
    static const char *const names[] = {"none", "cpu", "opaque"};
    const struct pm_shape *shape = &model->shape;
    uint32_t dtype = shape->f16 ? QUIRE_F16 : QUIRE_F32;
    struct qt_variant variant = {names[shape->backend],
                                 shape->contiguous ? QUIRE_LAYOUT_CONTIGUOUS : QUIRE_LAYOUT_PAGED,
                                 dtype, dtype};
    struct quire_pool_config config;
    model->geometry = &pm_geometries[shape->geometry];
    qt_config(&config, &variant, model->geometry);
    config.backend = make_backend(shape);
    config.block_size = shape->block_size;
    config.num_blocks = shape->num_blocks;
    config.max_seqs = PM_SEQS;
    config.max_seq_len = shape->seq_len;
    config.max_step_tokens = shape->step_tokens;
    config.max_open_steps = PM_STEPS;
    config.rollback_max = shape->rollback;
    config.max_pins = PM_PINS;
    config.max_pinned_blocks = shape->pinned_blocks;
    config.merge_equal = shape->merge_equal;
    config.eviction = shape->eviction;
    config.vocab_size = shape->vocab ? shape->alphabet : 0;
    config.event_capacity = shape->events;
    set_memory(model, &config);
    qt_open_config(&model->env, &variant, model->geometry, &config);
    model->has_tables = model->env.has_kv && !shape->contiguous;
    model->rows = qt_alloc((size_t)PM_LEN_MAX * 2 * 256);
    pm_index_clear(&model->index);
    pm_read_stats(model, &model->stats);
}

static void (*const operations[PM_KINDS])(struct pm_model *, const uint32_t *) = {
    [PM_CREATE] = pm_op_create,
    [PM_LOOKUP] = pm_op_lookup,
    [PM_REMATCH] = pm_op_rematch,
    [PM_BEGIN] = pm_op_begin,
    [PM_WRITE] = pm_op_write,
    [PM_COMMIT] = pm_op_commit,
    [PM_ABORT] = pm_op_abort,
    [PM_FORK] = pm_op_fork,
    [PM_TRUNCATE] = pm_op_truncate,
    [PM_DESTROY] = pm_op_destroy,
    [PM_PUBLISH] = pm_op_publish,
    [PM_PIN] = pm_op_pin,
    [PM_UNPIN] = pm_op_unpin,
    [PM_DROP] = pm_op_drop,
    [PM_DROP_PREFIX] = pm_op_drop_prefix,
    [PM_RESET] = pm_op_reset,
    [PM_READ] = pm_op_read,
    [PM_WRITE_ROWS] = pm_op_write_rows,
    [PM_INSPECT] = pm_op_inspect,
    [PM_MISUSE] = pm_op_misuse,
};

static void plant(struct pm_model *model, const struct pm_op *op)
{
    if (model->planted == PM_PLANT_CRASH && op->kind == PM_FORK)
        abort();
    if (model->planted != PM_PLANT_FORKS)
        return;
    if (op->kind == PM_TRUNCATE && model->num_planted == 0)
        model->num_planted = 1;
    if (op->kind == PM_FORK && model->num_planted > 0 && model->stats.blocks_owned > 0)
        model->num_planted++;
    PM_EXPECT(model, model->num_planted < 3, "the planted failure");
}

/* One operation, without the heap: a running pool takes nothing from it. */
static void run_op(struct pm_model *model, const struct pm_op *op)
{
    if (model->trace != NULL) {
        (void)fprintf(model->trace, "%llu %s\n", (unsigned long long)model->op,
                      pm_kind_name((enum pm_kind)op->kind));
        (void)fflush(model->trace);
    }
    quire__alloc_fail_after(0, true);
    operations[op->kind](model, op->args);
    quire__alloc_fail_after(-1, false);
    model->dropping = op->kind == PM_DROP || op->kind == PM_DROP_PREFIX;
    pm_compare(model);
    plant(model, op);
}

static void close_model(struct pm_model *model)
{
    for (uint32_t i = 0; i < PM_SEQS; i++) {
        pm_compare_seq(model, i);
        pm_compare_rows(model, i);
    }
    model->report->evicted += model->stats.blocks_evicted > 0;
    model->report->copied += model->stats.blocks_copied > 0;
    qt_close(&model->env);
    qt_free(model->memory);
    qt_free(model->index.nodes);
    qt_free(model->rows);
}

/* Broken rules of the opaque backend end its queue: they are asked for now and then. */
static void check_backend(struct pm_model *model, bool strict)
{
    if (model->env.opaque && (strict || model->op % 64 == 0)) {
        const char *violation = qt_opaque_violation(model->env.backend);
        PM_EXPECT(model, violation == NULL, "backend: %s", violation);
    }
}

static void run_script(const struct pm_script *script, const struct pm_how *how,
                       struct pm_report *report)
{
    struct pm_model *model = qt_alloc(sizeof *model);
    uint32_t before = PM_KINDS;
    model->shape = script->shape;
    model->report = report;
    model->planted = how->planted;
    model->trace = how->trace ? stdout : NULL;
    open_model(model);
    for (uint32_t i = 0; i < script->num_ops; i++) {
        const struct pm_op *op = &script->ops[i];
        model->op = report->at = i;
        run_op(model, op);
        check_backend(model, how->strict);
        for (uint32_t s = 0; how->strict && s < PM_SEQS; s++)
            pm_compare_rows(model, s);
        if (how->strict || i % 4 == 0)
            pm_scan(model);
        if (before < PM_KINDS)
            report->pairs[before][op->kind]++;
        before = op->kind;
        report->done++;
    }
    close_model(model);
    qt_free(model);
}

/* ---- children ---- */

static void child(const struct pm_script *script, const struct pm_how *how,
                  struct pm_report *report)
{
    if (how->quiet) {
        int nowhere = open("/dev/null", O_WRONLY);
        if (nowhere >= 0)
            (void)dup2(nowhere, STDERR_FILENO);
    }
    (void)alarm(how->seconds != 0 ? how->seconds : 600);
    run_script(script, how, report);
    (void)fflush(NULL);
    _exit(0);
}

bool pm_run(const struct pm_script *script, const struct pm_how *how, struct pm_report *report)
{
    int status = 0;
    report->failed = 0;
    report->message[0] = '\0';
    report->line = 0;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        child(script, how, report);
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        (void)fprintf(stderr, "tests: no child process\n");
        abort();
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (!report->failed) {
        report->failed = 1;
        report->line = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0;
        (void)snprintf(report->message, PM_MESSAGE, "the process ended with %s %d",
                       WIFSIGNALED(status) ? "signal" : "status",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    return false;
}
