/* cache_runner.c - runs cache tests once for each backend, layout and pair of dtypes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cache_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 160 };

static const struct {
    const char *name;
    uint32_t flag;
} backends[] = {{"cpu", QT_ON_CPU}, {"opaque", QT_ON_OPAQUE}, {"none", QT_ON_NONE}};

static const struct {
    const char *name;
    uint32_t flag, layout;
} layouts[] = {{"paged", QT_PAGED, QUIRE_LAYOUT_PAGED},
               {"contiguous", QT_CONTIGUOUS, QUIRE_LAYOUT_CONTIGUOUS}};

/* f16 first: tests without QT_DTYPES use the first pair alone. */
static const uint32_t dtypes[][2] = {
    {QUIRE_F16, QUIRE_F16}, {QUIRE_F32, QUIRE_F32},  {QUIRE_BF16, QUIRE_BF16},
    {QUIRE_F32, QUIRE_F16}, {QUIRE_BF16, QUIRE_F32}, {QUIRE_F16, QUIRE_BF16},
};

static const uint32_t quantised[][2] = {
    {QUIRE_Q8, QUIRE_Q8},
    {QUIRE_Q4, QUIRE_Q4},
    {QUIRE_Q8, QUIRE_Q4},
    {QUIRE_F16, QUIRE_Q8},
};

enum { VARIANTS_MAX = QT_LEN(backends) * QT_LEN(layouts) * (QT_LEN(dtypes) + QT_LEN(quantised)) };

struct suite {
    struct CMUnitTest *tests;
    struct qt_variant *variants;
    char (*names)[NAME_MAX_BYTES];
    size_t count;
};

static void add(struct suite *suite, const struct qt_test *test, const struct qt_variant *variant,
                const char *layout)
{
    size_t i = suite->count++;
    suite->variants[i] = *variant;
    (void)snprintf(suite->names[i], NAME_MAX_BYTES, "%s [%s %s %s/%s]", test->name,
                   variant->backend, layout, quire_dtype_name(variant->dtype_k),
                   quire_dtype_name(variant->dtype_v));
    suite->tests[i] = (struct CMUnitTest){
        .name = suite->names[i], .test_func = test->run, .initial_state = &suite->variants[i]};
}

static void add_layouts(struct suite *suite, const struct qt_test *test, const char *backend,
                        const uint32_t pair[2])
{
    for (size_t l = 0; l < QT_LEN(layouts); l++) {
        struct qt_variant variant = {backend, layouts[l].layout, pair[0], pair[1]};
        if ((test->variants & layouts[l].flag) != 0)
            add(suite, test, &variant, layouts[l].name);
    }
}

static void add_all(struct suite *suite, const struct qt_test *test)
{
    size_t num_dtypes = (test->variants & QT_DTYPES) != 0 ? QT_LEN(dtypes) : 1;
    size_t num_quantised = (test->variants & QT_QUANTISED) != 0 ? QT_LEN(quantised) : 0;
    for (size_t b = 0; b < QT_LEN(backends); b++) {
        if ((test->variants & backends[b].flag) == 0)
            continue;
        for (size_t d = 0; d < num_dtypes; d++)
            add_layouts(suite, test, backends[b].name, dtypes[d]);
        for (size_t d = 0; d < num_quantised; d++)
            add_layouts(suite, test, backends[b].name, quantised[d]);
    }
}

int qt_run(const char *group, const struct qt_test *tests, size_t num_tests)
{
    struct suite suite = {
        .tests = qt_alloc(num_tests * VARIANTS_MAX * sizeof *suite.tests),
        .variants = qt_alloc(num_tests * VARIANTS_MAX * sizeof *suite.variants),
        .names = qt_alloc(num_tests * VARIANTS_MAX * sizeof *suite.names),
    };
    const char *filter = getenv("QUIRE_TEST_FILTER");
    for (size_t i = 0; i < num_tests; i++)
        add_all(&suite, &tests[i]);
    if (filter != NULL)
        cmocka_set_test_filter(filter);
    int failed = _cmocka_run_group_tests(group, suite.tests, suite.count, NULL, NULL);
    qt_free(suite.tests);
    qt_free(suite.variants);
    qt_free(suite.names);
    return failed;
}

void qt_status_is(quire_status status, quire_status wanted, const char *expression,
                  const char *file, int line)
{
    if (status == wanted)
        return;
    print_error("%s answers %s, not %s\n", expression, quire_status_name(status),
                quire_status_name(wanted));
    _fail(file, line);
}
