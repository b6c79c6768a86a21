/* test_peak.c - the kernels that measure the machine, at every level.
 * SPDX-License-Identifier: Apache-2.0 */
#include "kernel_fixture.h"

#include <math.h>

static void check_read_all(const struct quire__kernels *k)
{
    static const size_t units[] = {0, 1, 2, 1023, 1024, 1025, 3000};
    struct qt_random random = {4};
    for (size_t i = 0; i < QT_LEN(units); i++) {
        const size_t bytes = units[i] * QUIRE__READ_UNIT;
        struct kt_guard guard = kt_guard_new(bytes);
        uint64_t *words = guard.data, all = 7, want = 0;
        for (size_t w = 0; w < bytes / sizeof *words; w++) {
            words[w] = qt_next(&random);
            want ^= words[w];
        }
        k->read_all(&all, guard.data, bytes);
        if (all != want)
            fail_msg("read_all at level %s: %zu bytes give %llx, not %llx", k->level, bytes,
                     (unsigned long long)all, (unsigned long long)want);
        kt_guard_free(&guard);
    }
}

static void check_peak(const struct quire__kernels *k, void (*peak)(float *, size_t))
{
    static const size_t rounds[] = {1, 2, 7, 100};
    for (size_t i = 0; i < QT_LEN(rounds); i++) {
        float end = 0;
        peak(&end, rounds[i]);
        if (!(fabsf(end - 2) <= 0x1p-20f))
            fail_msg("a peak at level %s: %zu rounds end at %.9g, not 2", k->level, rounds[i],
                     (double)end);
    }
}

static void check_peak_f32(const struct quire__kernels *k)
{
    check_peak(k, k->peak_f32);
}

static void check_peak_bf16(const struct quire__kernels *k)
{
    check_peak(k, k->peak_bf16);
}

static void check_peak_codes(const struct quire__kernels *k)
{
    check_peak(k, k->peak_codes);
}

static void every_level_reads_and_multiplies(void **state)
{
    (void)state;
    for (uint32_t i = 0; kt_level(i) != NULL; i++) {
#define CHECK(name, parameters) check_##name(kt_level(i));
        QUIRE__PEAK_LIST(CHECK)
#undef CHECK
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_reads_and_multiplies),
    };
    return cmocka_run_group_tests_name("kernel/peak", tests, NULL, NULL);
}
