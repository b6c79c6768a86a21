/* test_bench_stats.c - the arithmetic behind the benches: medians, roofs, cliffs.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "quire/bench_stats.h"
#include "support.h"

static void assert_near(double got, double want)
{
    if (!(got >= want * (1 - 1e-12) && got <= want * (1 + 1e-12)))
        fail_msg("%.17g, not %.17g", got, want);
}

static void medians(void **state)
{
    (void)state;
    double one[] = {7}, two[] = {9, 1}, odd[] = {5, 100, 1}, even[] = {4, 1, 3, 1000};
    assert_near(stats_median(one, 1), 7);
    assert_near(stats_median(two, 2), 5);
    assert_near(stats_median(odd, 3), 5);
    assert_near(stats_median(even, 4), 3.5);
}

static void a_roof_is_the_longer_of_two_times(void **state)
{
    (void)state;
    struct stats_roof roof = {0};
    const struct stats_roof slow = {.bytes = 1e9, .products = 50e9},
                            fast = {.bytes = 20e9, .products = 10e9};
    bool by_memory = false;
    stats_roof_raise(&roof, &slow);
    stats_roof_raise(&roof, &fast);
    assert_near(roof.bytes, 20e9);
    assert_near(roof.products, 50e9);
    assert_near(stats_roof_ns(&roof, 40e6, 50e6, &by_memory), 2e6); /* 2 ms against 1 ms */
    assert_true(by_memory);
    assert_near(stats_roof_ns(&roof, 20e6, 150e6, &by_memory), 3e6);
    assert_false(by_memory);
    assert_near(stats_roof_ns(&roof, 20e6, 0, NULL), 1e6);
}

static void cliffs(void **state)
{
    (void)state;
    const double line[] = {10, 20, 30, 40, 50}, hump[] = {10, 20, 60, 40, 50},
                 fall[] = {10, 10, 10, 9, 8}, one[] = {3};
    struct stats_cliff cliff = stats_cliff(line, 5);
    assert_near(cliff.over, 1);
    assert_near(cliff.drop, 1);
    cliff = stats_cliff(hump, 5);
    assert_near(cliff.over, 2);
    assert_int_equal(cliff.over_at, 3);
    assert_near(cliff.drop, 40.0 / 60);
    assert_int_equal(cliff.drop_at, 4);
    cliff = stats_cliff(fall, 5);
    assert_near(cliff.drop, 8.0 / 9);
    assert_int_equal(cliff.drop_at, 5);
    assert_near(cliff.over, 10.0 / 9); /* the chord is at 9 by the third */
    assert_int_equal(cliff.over_at, 3);
    cliff = stats_cliff(one, 1);
    assert_near(cliff.over, 1);
    assert_near(cliff.drop, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(medians),
        cmocka_unit_test(a_roof_is_the_longer_of_two_times),
        cmocka_unit_test(cliffs),
    };
    return cmocka_run_group_tests_name("unit/bench_stats", tests, NULL, NULL);
}
