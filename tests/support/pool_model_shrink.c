/* pool_model_shrink.c - makes a failing script short.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Delta debugging (Zeller, Hildebrandt: "Simplifying and isolating failure-inducing input", 2002):
 * takes out ever smaller pieces while the rest still fails in the same place, then makes the
 * numbers small. */
#include "pool_model.h"

#include <string.h>

enum { CANDIDATES_MAX = 6000 };

struct shrinking {
    struct pm_script *script;
    struct pm_how how;
    struct pm_report *report;
    uint32_t line; /* of the failure that is looked for */
    uint32_t candidates;
};

/* Whether a candidate fails as the whole script did. */
static bool fails(struct shrinking *shrinking, const struct pm_op *ops, uint32_t num_ops)
{
    struct pm_script candidate = *shrinking->script;
    candidate.ops = (struct pm_op *)ops;
    candidate.num_ops = num_ops;
    if (shrinking->candidates >= CANDIDATES_MAX)
        return false;
    shrinking->candidates++;
    return !pm_run(&candidate, &shrinking->how, shrinking->report) &&
           shrinking->report->line == shrinking->line;
}

/* Takes out pieces of `piece` operations, from the end on. True when something went. */
static bool remove_pieces(struct shrinking *shrinking, uint32_t piece)
{
    struct pm_script *script = shrinking->script;
    struct pm_op *rest = qt_alloc(script->num_ops * sizeof *rest);
    uint32_t before = script->num_ops;
    for (uint32_t end = script->num_ops; end > 0;) {
        uint32_t first = end > piece ? end - piece : 0;
        uint32_t kept = script->num_ops - (end - first);
        memcpy(rest, script->ops, first * sizeof *rest);
        memcpy(rest + first, script->ops + end, (script->num_ops - end) * sizeof *rest);
        if (kept > 0 && fails(shrinking, rest, kept)) {
            memcpy(script->ops, rest, kept * sizeof *rest);
            script->num_ops = kept;
        }
        end = first;
    }
    qt_free(rest);
    return script->num_ops < before;
}

/* Makes each number 0, or half of what it is, where the script still fails. */
static bool lower_numbers(struct shrinking *shrinking)
{
    struct pm_script *script = shrinking->script;
    bool lowered = false;
    for (uint32_t i = 0; i < script->num_ops; i++) {
        for (uint32_t a = 0; a < PM_ARGS; a++) {
            uint32_t *arg = &script->ops[i].args[a], old = *arg;
            *arg = 0;
            if (old != 0 && fails(shrinking, script->ops, script->num_ops)) {
                lowered = true;
                continue;
            }
            *arg = old / 2;
            if (old > 1 && fails(shrinking, script->ops, script->num_ops))
                lowered = true;
            else
                *arg = old;
        }
    }
    return lowered;
}

void pm_shrink(struct pm_script *script, const struct pm_how *how, struct pm_report *report)
{
    struct shrinking shrinking = {script, *how, report, report->line, 0};
    struct pm_op *copy = qt_alloc(script->num_ops * sizeof *copy);
    uint32_t piece = script->num_ops;
    memcpy(copy, script->ops, script->num_ops * sizeof *copy);
    script->ops = copy;
    shrinking.how.quiet = true;
    shrinking.how.trace = false;
    shrinking.how.seconds = how->seconds != 0 ? how->seconds : 20;
    while (piece > 0) {
        bool removed = remove_pieces(&shrinking, piece);
        if (!removed || piece > script->num_ops)
            piece = piece > script->num_ops ? script->num_ops : piece / 2;
    }
    for (uint32_t rounds = 0; rounds < 4 && lower_numbers(&shrinking); rounds++)
        (void)remove_pieces(&shrinking, 1);
    (void)pm_run(script, &shrinking.how, report);
}

bool pm_try(struct pm_script *script, const struct pm_how *how, struct pm_report *report)
{
    if (pm_run(script, how, report))
        return true;
    (void)fprintf(stderr, "FAILED: %s (check %u, operation %u)\n", report->message, report->line,
                  report->at);
    if (how->no_shrinking)
        return false;
    struct pm_script whole = *script;
    struct pm_how strict = *how;
    struct pm_report *told = pm_report_create();
    strict.strict = true;
    /* a strict run looks at more, and fails sooner where it does */
    if (pm_run(&whole, &strict, told)) {
        strict.strict = false;
        (void)pm_run(&whole, &strict, told);
    }
    if (whole.num_ops > told->at + 1)
        whole.num_ops = told->at + 1;
    pm_shrink(&whole, &strict, told);
    (void)fprintf(stderr, "%u operations show it: %s\n", whole.num_ops, told->message);
    pm_script_print(&whole, stderr);
    (void)fprintf(stderr, "# QUIRE_TEST_SCRIPT=FILE runs these lines again\n");
    qt_free(whole.ops);
    pm_report_destroy(told);
    return false;
}
