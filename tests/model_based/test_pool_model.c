/* test_pool_model.c - the cache against a slow, obvious model, under random operations.
 * SPDX-License-Identifier: Apache-2.0
 *
 * QUIRE_TEST_OPS: operations in all (300,000); from a million on, every ordered pair of kinds must
 * be a thousandth of them. QUIRE_TEST_SEED: the seed of the first run. QUIRE_TEST_RUNS: into how
 * many runs the operations are split. QUIRE_TEST_SCRIPT: a file of operations to run instead.
 * QUIRE_TEST_STRICT=1: compares every byte after every operation. QUIRE_TEST_SHRINK=0: says that a
 * run failed, and no more. */
#include "support/pool_model.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 400, PAIRS_FROM_OPS = 1000000, PAIRS_PER = 1000, PAIRS_SEEN_OPS = 200000 };

/* Of a hundred runs, the rest is the opaque backend, which costs as much as the others together. */
enum { NONE_PERCENT = 68, CPU_PERCENT = 30 };

static int run_file(const char *path, bool strict)
{
    struct pm_script script;
    struct pm_how how = {.trace = true, .strict = strict};
    FILE *in = fopen(path, "r");
    if (in == NULL) {
        (void)fprintf(stderr, "%s: cannot be read\n", path);
        return 2;
    }
    bool read = pm_script_read(in, path, &script);
    (void)fclose(in);
    if (!read)
        return 2;
    struct pm_report *report = pm_report_create();
    bool passed = pm_run(&script, &how, report);
    if (passed)
        printf("passed: %u operations\n", script.num_ops);
    else
        printf("FAILED: %s (check %u, operation %u)\n", report->message, report->line, report->at);
    pm_report_destroy(report);
    qt_free(script.ops);
    return passed ? 0 : 1;
}

static enum pm_backend pick_backend(struct qt_random *random)
{
    uint32_t percent = qt_below(random, 100);
    return percent < NONE_PERCENT                 ? PM_NONE
           : percent < NONE_PERCENT + CPU_PERCENT ? PM_CPU
                                                  : PM_OPAQUE;
}

/* Prints the rarest pairs; false when one is too rare. */
static bool pairs_suffice(const struct pm_report *report, uint64_t ops)
{
    uint64_t least = UINT64_MAX;
    uint64_t wanted = ops >= PAIRS_FROM_OPS ? ops / PAIRS_PER : ops >= PAIRS_SEEN_OPS;
    printf("kind         operations  rarest after it\n");
    for (uint32_t a = 0; a < PM_KINDS; a++) {
        uint32_t rarest = 0;
        uint64_t all = 0;
        for (uint32_t b = 0; b < PM_KINDS; b++) {
            all += report->pairs[a][b];
            if (report->pairs[a][b] < report->pairs[a][rarest])
                rarest = b;
        }
        printf("%-12s %10" PRIu64 "  %-12s %" PRIu64 "\n", pm_kind_name((enum pm_kind)a), all,
               pm_kind_name((enum pm_kind)rarest), report->pairs[a][rarest]);
        least = report->pairs[a][rarest] < least ? report->pairs[a][rarest] : least;
    }
    printf("rarest pair: %" PRIu64 " times, at least %" PRIu64 " wanted\n", least, wanted);
    return least >= wanted;
}

int main(void)
{
    const char *path = getenv("QUIRE_TEST_SCRIPT");
    uint64_t ops = qt_env_u64("QUIRE_TEST_OPS", 300000);
    uint64_t seed = qt_env_u64("QUIRE_TEST_SEED", 20261124);
    uint64_t runs = qt_env_u64("QUIRE_TEST_RUNS", RUNS), done = 0;
    bool strict = qt_env_u64("QUIRE_TEST_STRICT", 0) != 0;
    if (path != NULL && path[0] != '\0')
        return run_file(path, strict);
    struct pm_report *report = pm_report_create();
    struct pm_op *list = qt_alloc((ops / runs + 1) * sizeof *list);
    printf("%" PRIu64 " operations in %" PRIu64 " runs, QUIRE_TEST_SEED=%" PRIu64 "\n", ops, runs,
           seed);
    for (uint64_t i = 0; i < runs; i++) {
        struct qt_random random = {qt_mix(seed + i)};
        struct pm_how how = {.strict = strict,
                             .no_shrinking = qt_env_u64("QUIRE_TEST_SHRINK", 1) == 0};
        struct pm_script script = {.seed = seed + i, .ops = list};
        script.num_ops = (uint32_t)(ops / runs + (i < ops % runs));
        script.shape = pm_shape_draw(&random, pick_backend(&random));
        pm_ops_draw(&random, list, script.num_ops);
        if (!pm_try(&script, &how, report)) {
            (void)fprintf(stderr,
                          "QUIRE_TEST_SEED=%" PRIu64 " QUIRE_TEST_RUNS=1 QUIRE_TEST_OPS=%u runs "
                          "the whole again\n",
                          script.seed, script.num_ops);
            return 1;
        }
        done += script.num_ops;
    }
    printf("%" PRIu64 " operations; %u hits, %u known lookups; runs that evicted: %u, that copied: "
           "%u\n",
           done, report->hits, report->exact, report->evicted, report->copied);
    bool enough = pairs_suffice(report, ops);
    pm_report_destroy(report);
    qt_free(list);
    return enough ? 0 : 1;
}
