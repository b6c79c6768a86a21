/* test_shrink.c - the shrinker of the model-based test: it finds what was hidden, and scripts last.
 * SPDX-License-Identifier: Apache-2.0 */
#include "support/pool_model.h"

#include <stdlib.h>
#include <string.h>

enum { OPS = 900 };

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #condition);              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static struct pm_script draw(uint64_t seed)
{
    struct qt_random random = {seed};
    struct pm_script script = {.seed = seed, .num_ops = OPS};
    script.shape = pm_shape_draw(&random, PM_NONE);
    script.ops = qt_alloc(OPS * sizeof *script.ops);
    pm_ops_draw(&random, script.ops, OPS);
    return script;
}

static struct pm_script read_text(const char *text, bool good)
{
    struct pm_script script;
    FILE *in = fmemopen((void *)text, strlen(text), "r");
    CHECK(in != NULL);
    CHECK(pm_script_read(in, NULL, &script) == good);
    (void)fclose(in);
    return script;
}

static char *print_text(const struct pm_script *script)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    CHECK(out != NULL);
    pm_script_print(script, out);
    (void)fclose(out);
    return text;
}

static void test_scripts_survive_as_text(void)
{
    struct pm_script script = draw(11);
    char *text = print_text(&script);
    struct pm_script again = read_text(text, true);
    CHECK(again.num_ops == OPS);
    CHECK(memcmp(&again.shape, &script.shape, sizeof script.shape) == 0);
    CHECK(memcmp(again.ops, script.ops, OPS * sizeof *script.ops) == 0);
    free(text);
    qt_free(script.ops);
    qt_free(again.ops);
}

static void test_other_text_is_refused(void)
{
    struct pm_script script = draw(12);
    static const char *const lines[] = {"forget seq=1",   "publish",      "publish seq=x",
                                        "publish seq=99", "publish seq=", "abort sep=1",
                                        "shape backend=0"};
    script.num_ops = 0;
    char *head = print_text(&script);
    (void)read_text("", false);
    (void)read_text("publish seq=1\n", false);
    for (size_t i = 0; i < QT_LEN(lines); i++) {
        char text[1024];
        (void)snprintf(text, sizeof text, "%s%s\n", head, lines[i]);
        (void)read_text(text, false);
    }
    free(head);
    qt_free(script.ops);
}

/* A script that fails, without one of its operations. */
static bool passes_without(const struct pm_script *script, uint32_t left_out,
                           const struct pm_how *how, struct pm_report *report)
{
    struct pm_script less = *script;
    less.ops = qt_alloc(script->num_ops * sizeof *less.ops);
    less.num_ops = 0;
    for (uint32_t i = 0; i < script->num_ops; i++) {
        if (i != left_out)
            less.ops[less.num_ops++] = script->ops[i];
    }
    bool passed = pm_run(&less, how, report);
    qt_free(less.ops);
    return passed;
}

/* The planted failure needs an owned block (a sequence and a step), a truncate and two forks. */
static void test_a_planted_failure_becomes_five_operations(void)
{
    struct pm_report *report = pm_report_create();
    struct pm_how how = {.planted = PM_PLANT_FORKS, .quiet = true};
    for (uint64_t seed = 21; seed < 26; seed++) {
        struct pm_script script = draw(seed), found;
        CHECK(!pm_run(&script, &how, report));
        CHECK(strcmp(report->message, "the planted failure") == 0);
        found = script;
        found.num_ops = report->at + 1;
        pm_shrink(&found, &how, report);
        CHECK(strcmp(report->message, "the planted failure") == 0);
        CHECK(found.num_ops == 5);
        CHECK(found.ops[4].kind == PM_FORK);
        for (uint32_t i = 0; i < found.num_ops; i++)
            CHECK(passes_without(&found, i, &how, report));
        char *text = print_text(&found);
        struct pm_script again = read_text(text, true);
        CHECK(!pm_run(&again, &how, report));
        CHECK(strcmp(report->message, "the planted failure") == 0);
        free(text);
        qt_free(again.ops);
        qt_free(found.ops);
        qt_free(script.ops);
    }
    pm_report_destroy(report);
}

static void test_a_crash_is_a_failure(void)
{
    struct pm_report *report = pm_report_create();
    struct pm_how how = {.planted = PM_PLANT_CRASH, .quiet = true};
    struct pm_script script = draw(31);
    CHECK(!pm_run(&script, &how, report));
    CHECK(strcmp(report->message, "the process ended with signal 6") == 0);
    script.num_ops = report->at + 1;
    struct pm_script found = script;
    pm_shrink(&found, &how, report);
    CHECK(found.num_ops == 1 && found.ops[0].kind == PM_FORK);
    qt_free(found.ops);
    qt_free(script.ops);
    pm_report_destroy(report);
}

static void test_without_a_failure_a_script_passes(void)
{
    struct pm_report *report = pm_report_create();
    struct pm_how how = {.strict = true};
    struct pm_script script = draw(41);
    if (!pm_run(&script, &how, report))
        (void)fprintf(stderr, "%s\n", report->message);
    CHECK(report->failed == 0 && report->done == OPS);
    qt_free(script.ops);
    pm_report_destroy(report);
}

int main(void)
{
    test_scripts_survive_as_text();
    test_other_text_is_refused();
    test_a_planted_failure_becomes_five_operations();
    test_a_crash_is_a_failure();
    test_without_a_failure_a_script_passes();
    printf("5 tests of scripts and the shrinker passed\n");
    return 0;
}
