/* test_processors.c - the quotas of control groups, read from trees of files made up here.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"

#include "support.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a machine of files ---- */

static char root[] = "/tmp/quire-processors-XXXXXX";

/* Writes a file below the root, and the folders above it. */
static void put(const char *path, const char *text)
{
    char whole[8192];
    (void)snprintf(whole, sizeof whole, "%s%s", root, path);
    for (char *slash = strchr(whole + strlen(root) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(whole, 0700);
        *slash = '/';
    }
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void clear(void)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", root);
    assert_int_equal(system(command), 0);
}

static int open_machine(void **state)
{
    (void)state;
    memset(root + strlen(root) - 6, 'X', 6);
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int close_machine(void **state)
{
    (void)state;
    clear();
    return 0;
}

static void assert_limit(uint32_t want)
{
    assert_int_equal(quire__cgroup_cpu_limit(root), want);
}

static const char v2_mounts[] =
    "22 28 0:21 / /proc rw,nosuid - proc proc rw\n"
    "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n";
static const char v1_mounts[] =
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

/* ---- version 2 ---- */

static void the_tightest_quota_on_the_path_counts(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/proc/self/mountinfo", v2_mounts);
    assert_limit(0);
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    assert_limit(0);
    put("/sys/fs/cgroup/a/b/cpu.max", "350000 100000\n");
    assert_limit(4);
    put("/sys/fs/cgroup/a/cpu.max", "200001 100000\n");
    assert_limit(3);
    put("/sys/fs/cgroup/cpu.max", "1000 100000\n");
    assert_limit(1);
    put("/sys/fs/cgroup/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "900000 100000\n");
    assert_limit(4);
    put("/sys/fs/cgroup/a/other/cpu.max", "1 100000\n"); /* not on the path */
    assert_limit(4);
}

/* In a container with a namespace of its own, the group is the root and its limit is there. */
static void the_root_has_a_quota_too(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/\n");
    put("/proc/self/mountinfo", v2_mounts);
    put("/sys/fs/cgroup/cpu.max", "150000 100000\n");
    assert_limit(2);
}

/* ---- version 1 ---- */

static void version_1_has_quota_and_period(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "5:cpuset:/x\n4:cpu,cpuacct:/docker/one\n0::/\n");
    put("/proc/self/mountinfo", v1_mounts);
    assert_limit(0);
    put("/sys/fs/cgroup/cpu,cpuacct/docker/one/cpu.cfs_quota_us", "250000\n");
    assert_limit(0); /* no period */
    put("/sys/fs/cgroup/cpu,cpuacct/docker/one/cpu.cfs_period_us", "100000\n");
    assert_limit(3);
    put("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "50000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "50000\n");
    assert_limit(1);
    put("/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "-1\n");
    assert_limit(3);
    put("/sys/fs/cgroup/cpu.max", "100000 100000\n"); /* version 2 is not mounted there */
    assert_limit(3);
}

/* A container without a namespace sees its own group's folder as the mount. */
static void a_mount_can_show_one_group(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "4:cpu:/docker/one/inner\n");
    put("/proc/self/mountinfo",
        "9 1 0:2 /docker/on /wrong rw - cgroup cgroup rw,cpuset\n"
        "32 31 0:29 /docker/one /sys/fs/my\\040cgroup rw - cgroup cgroup rw,cpu\n");
    put("/sys/fs/my cgroup/inner/cpu.cfs_quota_us", "500000\n");
    put("/sys/fs/my cgroup/inner/cpu.cfs_period_us", "100000\n");
    assert_limit(5);
    put("/sys/fs/my cgroup/cpu.cfs_quota_us", "400000\n");
    put("/sys/fs/my cgroup/cpu.cfs_period_us", "100000\n");
    assert_limit(4);
    put("/sys/fs/cpu.cfs_quota_us", "100000\n"); /* above the mount */
    put("/sys/fs/cpu.cfs_period_us", "100000\n");
    assert_limit(4);
    put("/proc/self/cgroup", "4:cpu:/elsewhere\n");
    assert_limit(4); /* another part: the mount itself */
    put("/proc/self/cgroup", "4:cpu:/docker/one2\n");
    assert_limit(4); /* a longer name is not below */
}

static void both_versions_count(void **state)
{
    (void)state;
    char mounts[1024];
    (void)snprintf(mounts, sizeof mounts,
                   "%s41 31 0:38 / /sys/fs/unified rw - cgroup2 cgroup2 rw\n", v1_mounts);
    put("/proc/self/cgroup", "4:cpu,cpuacct:/g\n0::/h\n");
    put("/proc/self/mountinfo", mounts);
    put("/sys/fs/cgroup/cpu,cpuacct/g/cpu.cfs_quota_us", "300000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/g/cpu.cfs_period_us", "100000\n");
    assert_limit(3);
    put("/sys/fs/unified/h/cpu.max", "200000 100000\n");
    assert_limit(2);
    put("/sys/fs/unified/h/cpu.max", "700000 100000\n");
    assert_limit(3);
}

/* ---- what makes no sense ---- */

static void nonsense_is_no_limit(void **state)
{
    (void)state;
    static const char *const quotas[] = {"",          "\n",       "max",      "0 100000",
                                         "-5 100000", "7",        "100000 0", "100000 -1",
                                         "x y",       "100000 x", "\xff\xfe", "max max"};
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", v2_mounts);
    for (size_t i = 0; i < QT_LEN(quotas); i++) {
        put("/sys/fs/cgroup/a/cpu.max", quotas[i]);
        assert_limit(0);
    }
    put("/sys/fs/cgroup/a/cpu.max", "9223372036854775807 1\n");
    assert_limit(UINT32_MAX);
    put("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    assert_limit(2);
    static const char *const groups[] = {"",     "\n",   "0",         "0:",          "0::",  "::\n",
                                         "0::a", ":::/", "1:cpux:/a", "1:name=c:/a", "2::/a"};
    for (size_t i = 0; i < QT_LEN(groups); i++) {
        put("/proc/self/cgroup", groups[i]);
        assert_limit(0);
    }
    put("/proc/self/cgroup", "0::/a\n");
    static const char *const mounts[] = {"",
                                         "\n",
                                         " - ",
                                         " - cgroup2",
                                         "1 2 3 4 5 6",
                                         "1 2 3 - cgroup2 x y",
                                         "1 2 3 / /sys/fs/cgroup rw - cgroup2 x",
                                         "1 2 3 / /sys/fs/cgroup rw - cgroup x cpu"};
    for (size_t i = 0; i < QT_LEN(mounts); i++) {
        put("/proc/self/mountinfo", mounts[i]);
        assert_limit(0);
    }
    put("/proc/self/mountinfo", v2_mounts);
    assert_limit(2);
}

/* Lines that are too long are passed over, and those after them are read. */
static void long_lines_are_passed_over(void **state)
{
    (void)state;
    enum { LONG = 20000 };
    char *text = qt_alloc(LONG + 4096);
    memset(text, 'x', LONG);
    (void)snprintf(text + LONG, 4096, " - cgroup2 a b\n%s", v2_mounts);
    put("/proc/self/mountinfo", text);
    memset(text, '/', LONG);
    text[0] = '0';
    text[1] = text[2] = ':';
    (void)snprintf(text + LONG, 4096, "\n0::/a");
    put("/proc/self/cgroup", text);
    put("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    assert_limit(2);
    qt_free(text);
}

static void without_files_there_is_no_limit(void **state)
{
    (void)state;
    assert_limit(0);
    put("/proc/self/cgroup", "0::/a\n");
    assert_limit(0);
    assert_int_equal(quire__cgroup_cpu_limit("/nowhere/at/all"), 0);
}

/* ---- this machine ---- */

static void the_affinity_mask_counts(void **state)
{
    (void)state;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    uint32_t all = quire__cpu_count();
    assert_true(all >= 1 && all <= (uint32_t)CPU_COUNT(&before));
    size_t first = 0;
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(quire__cpu_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(quire__cpu_count(), all);
}

#define ON_A_MACHINE(test) cmocka_unit_test_setup_teardown(test, open_machine, close_machine)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        ON_A_MACHINE(the_tightest_quota_on_the_path_counts),
        ON_A_MACHINE(the_root_has_a_quota_too),
        ON_A_MACHINE(version_1_has_quota_and_period),
        ON_A_MACHINE(a_mount_can_show_one_group),
        ON_A_MACHINE(both_versions_count),
        ON_A_MACHINE(nonsense_is_no_limit),
        ON_A_MACHINE(long_lines_are_passed_over),
        ON_A_MACHINE(without_files_there_is_no_limit),
        cmocka_unit_test(the_affinity_mask_counts),
    };
    return cmocka_run_group_tests_name("processors", tests, NULL, NULL);
}
