/* processors.c - how many processors the process may use, and threads on them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A process is kept from processors by its affinity mask, which covers cpusets, and by the quotas
 * of its control group and of the groups around it (cgroups(7); Documentation/admin-guide:
 * cgroup-v2 section "CPU Interface Files", cgroup-v1 and scheduler/sched-bwc for the quota).
 * /proc/self/cgroup says which group that is, /proc/self/mountinfo (proc_pid_mountinfo(5)) where
 * its files are. What is missing or makes no sense is no limit. */
#include "base/base.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum {
    LINE_MAX_BYTES = 4096 + 1024, /* a path and the other fields; longer lines are passed over */
    PATH_MAX_BYTES = 4096,
    GROUP_DEPTH_MAX = 256, /* levels of groups that are looked at */
    SETS = 8,              /* 8192 processors, the most that Linux can be built for */
};

/* ---- control groups ---- */

/* One of the two hierarchies that can hold a quota. */
struct hierarchy {
    bool v2;
    char path[PATH_MAX_BYTES]; /* of the process's group, inside the hierarchy; empty: none */
};

/* Whether `word` is one of the words of a list with commas. */
static bool has_word(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (;;) {
        size_t n = strcspn(list, ",");
        if (n == length && memcmp(list, word, length) == 0)
            return true;
        if (list[n] == '\0')
            return false;
        list += n + 1;
    }
}

/* The next whole line, without its end; false at the end of the file. */
static bool next_line(FILE *file, char *line, size_t bytes)
{
    while (fgets(line, (int)bytes, file) != NULL) {
        size_t length = strcspn(line, "\n");
        if (line[length] == '\n' || feof(file)) {
            line[length] = '\0';
            return true;
        }
        int c = fgetc(file);
        while (c != '\n' && c != EOF)
            c = fgetc(file);
    }
    return false;
}

static FILE *open_below(const char *root, const char *path)
{
    char whole[2 * PATH_MAX_BYTES];
    int length = snprintf(whole, sizeof whole, "%s%s", root, path);
    return length > 0 && (size_t)length < sizeof whole ? fopen(whole, "re") : NULL;
}

/* Reads lines "hierarchy:controllers:path". */
static void find_group(const char *root, struct hierarchy *h)
{
    char line[LINE_MAX_BYTES];
    FILE *file = open_below(root, "/proc/self/cgroup");
    h->path[0] = '\0';
    while (file != NULL && h->path[0] == '\0' && next_line(file, line, sizeof line)) {
        char *controllers = strchr(line, ':');
        char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (path == NULL || path[1] != '/' || strlen(path + 1) >= sizeof h->path)
            continue;
        *controllers++ = '\0';
        *path++ = '\0';
        if (h->v2 ? strcmp(line, "0") == 0 && *controllers == '\0' : has_word(controllers, "cpu"))
            (void)strncpy(h->path, path, sizeof h->path - 1);
    }
    if (file != NULL)
        (void)fclose(file);
}

/* Undoes the octal escapes of spaces and the like, in place. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; to++) {
        unsigned code = 0;
        if (from[0] == '\\' && sscanf(from + 1, "%3o", &code) == 1 && code != 0 && code < 256) {
            *to = (char)code;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* Splits "id parent device root place options ... - type source options"; false when it is not one.
 */
static bool split_mount(char *line, char **mount_root, char **place, char **type, char **options)
{
    char *rest = NULL, *tail = strstr(line, " - ");
    if (tail == NULL)
        return false;
    *tail = '\0';
    char *field = strtok_r(line, " ", &rest);
    for (int i = 0; i < 3 && field != NULL; i++)
        field = strtok_r(NULL, " ", &rest);
    *mount_root = field;
    *place = field != NULL ? strtok_r(NULL, " ", &rest) : NULL;
    *type = strtok_r(tail + 3, " ", &rest);
    char *source = *type != NULL ? strtok_r(NULL, " ", &rest) : NULL;
    *options = source != NULL ? strtok_r(NULL, " ", &rest) : NULL;
    if (*place == NULL || *options == NULL)
        return false;
    unescape(*mount_root);
    unescape(*place);
    return true;
}

/* The part of a group's path below what is mounted; "" where the mount shows another part. */
static const char *below(const char *path, const char *mount_root)
{
    size_t length = strlen(mount_root);
    if (strcmp(mount_root, "/") == 0)
        return strcmp(path, "/") != 0 ? path : "";
    bool inside =
        strncmp(path, mount_root, length) == 0 && (path[length] == '/' || path[length] == '\0');
    return inside ? path + length : "";
}

/* Where the hierarchy is mounted and the group's folder: `folder` is `place` and what follows. */
static bool find_folder(const char *root, const struct hierarchy *h, char *folder, size_t *place)
{
    char line[LINE_MAX_BYTES], *mount_root, *at, *type, *options;
    FILE *file = open_below(root, "/proc/self/mountinfo");
    bool found = false;
    while (file != NULL && !found && next_line(file, line, sizeof line)) {
        if (!split_mount(line, &mount_root, &at, &type, &options))
            continue;
        if (h->v2 ? strcmp(type, "cgroup2") != 0
                  : strcmp(type, "cgroup") != 0 || !has_word(options, "cpu"))
            continue;
        const char *rest = below(h->path, mount_root);
        int length = snprintf(folder, PATH_MAX_BYTES, "%s%s", at, rest);
        *place = strlen(at);
        found = length > 0 && length < PATH_MAX_BYTES;
    }
    if (file != NULL)
        (void)fclose(file);
    return found;
}

/* Two numbers of a file of the group; what is missing or no number becomes 0. */
static void read_numbers(const char *root, const char *folder, const char *name,
                         long long numbers[2])
{
    char path[PATH_MAX_BYTES + 64];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = open_below(root, path);
    numbers[0] = numbers[1] = 0;
    if (file == NULL)
        return;
    if (fscanf(file, "%lld %lld", &numbers[0], &numbers[1]) < 1)
        numbers[0] = 0;
    (void)fclose(file);
}

/* Processors' worth of time that one group has, rounded up; 0: no limit. */
static uint32_t quota_of(const char *root, const char *folder, bool v2)
{
    long long quota[2], period[2];
    read_numbers(root, folder, v2 ? "cpu.max" : "cpu.cfs_quota_us", quota); /* "max", -1: none */
    if (v2)
        period[0] = quota[1];
    else
        read_numbers(root, folder, "cpu.cfs_period_us", period);
    if (quota[0] <= 0 || period[0] <= 0)
        return 0;
    uint64_t limit = quire__ceil_div((uint64_t)quota[0], (uint64_t)period[0]);
    return limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX;
}

static uint32_t tighter(uint32_t a, uint32_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static uint32_t hierarchy_limit(const char *root, bool v2)
{
    struct hierarchy h = {.v2 = v2};
    char folder[PATH_MAX_BYTES];
    size_t place = 0;
    find_group(root, &h);
    if (h.path[0] == '\0' || !find_folder(root, &h, folder, &place))
        return 0;
    uint32_t limit = quota_of(root, folder, v2);
    for (int i = 0; i < GROUP_DEPTH_MAX && strlen(folder) > place; i++) {
        *strrchr(folder, '/') = '\0'; /* there is one at or past `place` */
        limit = tighter(limit, quota_of(root, folder, v2));
    }
    return limit;
}

uint32_t quire__cgroup_cpu_limit(const char *root)
{
    return tighter(hierarchy_limit(root, true), hierarchy_limit(root, false));
}

/* ---- processors ---- */

static uint32_t allowed(cpu_set_t sets[SETS])
{
    size_t bytes = SETS * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, sets) != 0)
        return 0;
    return (uint32_t)CPU_COUNT_S(bytes, sets);
}

uint32_t quire__cpu_count(void)
{
    cpu_set_t sets[SETS];
    uint32_t count = allowed(sets), limit = quire__cgroup_cpu_limit("");
    count = count != 0 ? count : 1;
    return limit != 0 && limit < count ? limit : count;
}

/* ---- threads ---- */

bool quire__thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    if (quire__fault_due())
        return false;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(thread, NULL, run, argument) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

void quire__thread_pin(pthread_t thread, uint32_t index)
{
    cpu_set_t sets[SETS], one[SETS];
    size_t bytes = sizeof sets;
    uint32_t count = allowed(sets), cpu = 0;
    if (count == 0)
        return;
    for (uint32_t left = index % count;; cpu++) {
        if (CPU_ISSET_S(cpu, bytes, sets) && left-- == 0)
            break;
    }
    CPU_ZERO_S(bytes, one);
    CPU_SET_S(cpu, bytes, one);
    (void)pthread_setaffinity_np(thread, bytes, one);
}
