/* os.c - the operating system's side of the library: files, time, environment, memory.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

quire_status quire__file_map(const char *path, struct quire__file_map *map,
                             struct quire_error *error)
{
    *map = (struct quire__file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return quire__fail_os(error, QUIRE_E_IO, errno, "cannot open %s", path);
    struct stat st;
    if (fstat(fd, &st) != 0) {
        int os_code = errno;
        (void)close(fd);
        return quire__fail_os(error, QUIRE_E_IO, os_code, "cannot stat %s", path);
    }
    if (!S_ISREG(st.st_mode)) {
        (void)close(fd);
        return quire__fail(error, QUIRE_E_INVAL, "%s is not a regular file", path);
    }
    if (st.st_size > 0) {
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            int os_code = errno;
            (void)close(fd);
            return quire__fail_os(error, QUIRE_E_IO, os_code, "cannot map %s", path);
        }
        map->data = data;
        map->size = (uint64_t)st.st_size;
    }
    (void)close(fd);
    return QUIRE_OK;
}

void quire__file_unmap(struct quire__file_map *map)
{
    if (map->data != NULL)
        (void)munmap((void *)(uintptr_t)map->data, (size_t)map->size);
    *map = (struct quire__file_map){0};
}

void quire__file_forget(const struct quire__file_map *map, uint64_t offset, uint64_t bytes)
{
    uint64_t before = ((uintptr_t)map->data + offset) % QUIRE__HUGE_PAGE_BYTES;
    before = before < offset ? before : offset;
    quire__discard((void *)(uintptr_t)(map->data + offset - before), before + bytes);
}

uint64_t quire__now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const char *quire__getenv(const char *name)
{
    return getenv(name);
}

uint64_t quire__memory_available(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return 0;
    char line[128];
    unsigned long long kib = 0;
    while (kib == 0 && fgets(line, sizeof line, file) != NULL)
        (void)sscanf(line, "MemAvailable: %llu", &kib);
    (void)fclose(file);
    return (uint64_t)kib * 1024;
}
