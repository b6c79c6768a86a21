/* test_base.c - statuses, dtypes, checked arithmetic, the heap's seam, address space, files.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <quire/types.h>
#include <quire/version.h>

/* ---- statuses and errors ---- */

static void test_every_status_has_a_name_and_a_text(void **state)
{
    (void)state;
    assert_int_equal(QUIRE_OK, 0);
    assert_string_equal(quire_status_name(QUIRE_OK), "QUIRE_OK");
#define CHECK(name, code, text)                                                                    \
    assert_int_equal(QUIRE_E_##name, code);                                                        \
    assert_true(QUIRE_E_##name < 0);                                                               \
    assert_string_equal(quire_status_name(code), "QUIRE_E_" #name);                                \
    assert_string_equal(quire_status_text(code), text);
    QUIRE_STATUS_LIST(CHECK)
#undef CHECK
    static const int unknown[] = {1, -16, -1000, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(unknown); i++) {
        assert_string_equal(quire_status_name(unknown[i]), "QUIRE_E_UNKNOWN");
        assert_string_equal(quire_status_text(unknown[i]), "unknown status");
    }
}

static void test_fail_fills_the_error(void **state)
{
    (void)state;
    struct quire_error error = {QUIRE_OK, 77, "before"};
    assert_int_equal(quire__fail(&error, QUIRE_E_LIMIT, "%s has %d", "it", 5), QUIRE_E_LIMIT);
    assert_int_equal(error.status, QUIRE_E_LIMIT);
    assert_int_equal(error.os_code, 0);
    assert_string_equal(error.message, "it has 5");
    assert_int_equal(quire__fail(NULL, QUIRE_E_NET, "nobody reads %d", 1), QUIRE_E_NET);
    assert_int_equal(quire__fail_os(&error, QUIRE_E_IO, ENOENT, "cannot open %s", "x"), QUIRE_E_IO);
    assert_int_equal(error.os_code, ENOENT);
    assert_string_equal(error.message, "cannot open x: No such file or directory");
    assert_int_equal(quire__fail_os(NULL, QUIRE_E_IO, EIO, "x"), QUIRE_E_IO);
}

/* A message that is too long is cut, and always ends. */
static void test_long_messages_are_cut(void **state)
{
    (void)state;
    char text[2 * QUIRE_ERROR_MESSAGE_MAX];
    struct quire_error error;
    memset(text, 'a', sizeof text);
    for (size_t len = QUIRE_ERROR_MESSAGE_MAX - 40; len < sizeof text; len++) {
        memset(&error, 0xa5, sizeof error);
        (void)quire__fail_os(&error, QUIRE_E_IO, EACCES, "%.*s", (int)len, text);
        size_t got = strnlen(error.message, sizeof error.message);
        size_t whole = len + strlen(": Permission denied");
        assert_int_equal(got, whole < sizeof error.message ? whole : sizeof error.message - 1);
        (void)quire__fail(&error, QUIRE_E_IO, "%.*s", (int)len, text);
        assert_true(strnlen(error.message, sizeof error.message) < sizeof error.message);
    }
}

static void test_the_version_is_that_of_the_headers(void **state)
{
    char version[32];
    (void)state;
    (void)snprintf(version, sizeof version, "%d.%d.%d", QUIRE_VERSION_MAJOR, QUIRE_VERSION_MINOR,
                   QUIRE_VERSION_PATCH);
    assert_string_equal(quire_version(), version);
    assert_string_equal(QUIRE_VERSION, version);
}

/* ---- types ---- */

static void test_dtypes(void **state)
{
    (void)state;
#define CHECK(name, value, bytes, text)                                                            \
    assert_int_equal(quire_dtype_bytes(value), bytes);                                             \
    assert_string_equal(quire_dtype_name(value), text);
    QUIRE_DTYPE_LIST(CHECK)
#undef CHECK
    assert_int_equal(quire_dtype_bytes(6), 0);
    assert_int_equal(quire_dtype_bytes(UINT32_MAX), 0);
    assert_null(quire_dtype_name(6));
    assert_null(quire_dtype_name(UINT32_MAX));
}

/* docs/formats/kv.md, "Where a byte of it lies". */
static void test_kv_rows(void **state)
{
    static const struct {
        uint32_t dtype, dim, data, scales;
    } rows[] = {
        {QUIRE_F32, 7, 28, 0},       {QUIRE_F16, 7, 14, 0},
        {QUIRE_BF16, 80, 160, 0},    {QUIRE_Q8, 64, 64, 4},
        {QUIRE_Q8, 32, 32, 2},       {QUIRE_Q8, 80, 80, 10},
        {QUIRE_Q8, 16, 16, 2},       {QUIRE_Q4, 64, 32, 16},
        {QUIRE_Q4, 112, 56, 28},     {QUIRE_Q4, 16, 8, 4},
        {QUIRE_Q8, 24, 0, 0},        {QUIRE_Q4, 72, 0, 0},
        {QUIRE_Q8, 1, 0, 0},         {QUIRE_Q4, 15, 0, 0},
        {QUIRE_U32, 16, 0, 0},       {6, 16, 0, 0},
        {UINT32_MAX, 16, 0, 0},      {QUIRE_F32, 65536, 262144, 0},
        {QUIRE_F32, 1u << 30, 0, 0}, {QUIRE_Q8, 1u << 31, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(rows); i++) {
        assert_int_equal(quire_kv_data_bytes(rows[i].dtype, rows[i].dim), rows[i].data);
        assert_int_equal(quire_kv_scale_bytes(rows[i].dtype, rows[i].dim), rows[i].scales);
    }
}

static void test_weight_rows(void **state)
{
    uint64_t bytes = 77;
    (void)state;
#define CHECK(name, value, elements, block_bytes, text)                                            \
    assert_string_equal(quire_weight_name(value), text);                                           \
    assert_int_equal(quire_weight_row_bytes(value, 3 * (elements), &bytes), QUIRE_OK);             \
    assert_int_equal(bytes, 3 * (block_bytes));                                                    \
    assert_int_equal(quire_weight_row_bytes(value, 0, &bytes), QUIRE_E_INVAL);                     \
    assert_int_equal(quire_weight_row_bytes(value, elements, NULL), QUIRE_E_INVAL);                \
    if ((elements) > 1)                                                                            \
        assert_int_equal(quire_weight_row_bytes(value, (elements) + 1, &bytes), QUIRE_E_INVAL);
    QUIRE_WEIGHT_LIST(CHECK)
#undef CHECK
    assert_null(quire_weight_name(4));
    assert_int_equal(quire_weight_row_bytes(4, 32, &bytes), QUIRE_E_INVAL);
    assert_int_equal(quire_weight_row_bytes(QUIRE_W_F32, UINT64_MAX / 2, &bytes), QUIRE_E_INVAL);
    assert_int_equal(quire_weight_row_bytes(QUIRE_W_F16, UINT64_MAX, &bytes), QUIRE_E_INVAL);
}

static void test_checked_arithmetic(void **state)
{
    uint64_t out = 0;
    (void)state;
    assert_true(quire__mul_u64(UINT32_MAX, UINT32_MAX, &out));
    assert_true(out == (uint64_t)UINT32_MAX * UINT32_MAX);
    assert_false(quire__mul_u64(UINT64_MAX / 2 + 1, 2, &out));
    assert_true(quire__mul_u64(UINT64_MAX, 0, &out));
    assert_true(quire__add_u64(UINT64_MAX - 1, 1, &out));
    assert_true(out == UINT64_MAX);
    assert_false(quire__add_u64(UINT64_MAX, 1, &out));
    assert_true(quire__ceil_div(UINT64_MAX, 2) == UINT64_MAX / 2 + 1);
    assert_int_equal(quire__ceil_div(0, 7), 0);
    assert_int_equal(quire__ceil_div(7, 7), 1);
    assert_int_equal(quire__ceil_div(8, 7), 2);
    assert_int_equal(quire__round_up(0, 16), 0);
    assert_int_equal(quire__round_up(1, 16), 16);
    assert_int_equal(quire__round_up(16, 16), 16);
}

/* ---- the heap and its seam ---- */

/* One call of every function that the seam counts; true when it was refused. */
static bool refused(int which)
{
    void *memory = NULL;
    if (which == 0)
        memory = quire__alloc(10);
    if (which == 1)
        memory = quire__calloc(3, 5);
    if (which == 2)
        memory = quire__realloc(NULL, 10);
    if (which == 3)
        memory = quire__alloc_aligned(128, 10);
    if (which == 4)
        memory = quire__strdup("text");
    if (which == 5) {
        memory = quire__reserve(100000);
        quire__unreserve(memory, 100000);
        return memory == NULL;
    }
    quire__free(memory);
    return memory == NULL;
}

enum { KINDS = 6 };

static void test_the_nth_allocation_fails(void **state)
{
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        for (int n = 0; n < 4; n++) {
            quire__alloc_fail_after(n, false);
            for (int i = 0; i < 8; i++)
                assert_int_equal(refused((kind + i) % KINDS), i == n);
            quire__alloc_fail_after(n, true);
            for (int i = 0; i < 8; i++)
                assert_int_equal(refused((kind + i) % KINDS), i >= n);
            quire__alloc_fail_after(-1, true);
            assert_false(refused(kind));
        }
    }
}

static void test_a_refused_realloc_keeps_the_memory(void **state)
{
    (void)state;
    char *text = quire__strdup("kept");
    assert_non_null(text);
    quire__alloc_fail_after(0, false);
    assert_null(quire__realloc(text, 1 << 20));
    assert_string_equal(text, "kept");
    text = quire__realloc(text, 1 << 20);
    assert_non_null(text);
    assert_string_equal(text, "kept");
    quire__free(text);
}

static void test_heap_edges(void **state)
{
    (void)state;
    void *nothing = quire__alloc(0), *none = quire__calloc(0, 8);
    assert_non_null(nothing); /* NULL always means refused */
    assert_non_null(none);
    quire__free(nothing);
    quire__free(none);
    quire__free(NULL);
    volatile size_t huge = SIZE_MAX / 2;
    assert_null(quire__calloc(huge, 4));
    uint8_t *zeroed = quire__calloc(100, 7);
    assert_non_null(zeroed);
    for (size_t i = 0; i < 700; i++)
        assert_int_equal(zeroed[i], 0);
    quire__free(zeroed);
    for (size_t alignment = sizeof(void *); alignment <= 4096; alignment *= 2) {
        void *memory = quire__alloc_aligned(alignment, 100);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % alignment, 0);
        quire__free(memory);
    }
}

/* ---- address space ---- */

static uint64_t resident_pages(void *memory, uint64_t bytes)
{
    unsigned char present[1024];
    uint64_t page = quire__os_page_bytes(), count = 0;
    assert_true(bytes / page <= sizeof present);
    assert_int_equal(mincore(memory, bytes, present), 0);
    for (uint64_t i = 0; i < bytes / page; i++)
        count += present[i] & 1u;
    return count;
}

static void test_reserved_memory_costs_what_is_touched(void **state)
{
    (void)state;
    uint64_t page = quire__os_page_bytes(), bytes = 256 * page;
    uint8_t *memory = quire__reserve(bytes);
    assert_non_null(memory);
    (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
    assert_int_equal(resident_pages(memory, bytes), 0);
    for (uint64_t i = 0; i < 10; i++)
        memory[i * page + 5] = 7;
    assert_int_equal(resident_pages(memory, bytes), 10);
    quire__discard(memory, bytes);
    assert_int_equal(resident_pages(memory, bytes), 0);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(memory[i * page + 5], 0);
    quire__unreserve(memory, bytes);
    quire__unreserve(NULL, bytes);
}

/* Only whole pages inside the range go; its neighbours keep their bytes. */
static void test_discard_keeps_what_is_outside(void **state)
{
    (void)state;
    uint64_t page = quire__os_page_bytes(), bytes = 8 * page;
    uint8_t *memory = quire__reserve(bytes);
    assert_non_null(memory);
    (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
    static const int ends[][2] = {{1, 1}, {0, 0}, {-1, -1}, {1, -1}, {-1, 1}};
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(ends); i++) {
        memset(memory, 9, bytes);
        uint64_t first = 2 * page + (uint64_t)ends[i][0], end = 5 * page + (uint64_t)ends[i][1];
        quire__discard(memory + first, end - first);
        uint64_t gone = ends[i][0] > 0 ? 3 : 2, stays = ends[i][1] < 0 ? 4 : 5;
        for (uint64_t b = 0; b < bytes; b++)
            assert_int_equal(memory[b], b >= gone * page && b < stays * page ? 0 : 9);
    }
    memset(memory, 9, bytes);
    quire__discard(memory + 1, page); /* holds no whole page */
    quire__discard(memory + page, 0);
    for (uint64_t b = 0; b < bytes; b++)
        assert_int_equal(memory[b], 9);
    quire__unreserve(memory, bytes);
}

/* From 2 MiB on, memory begins where a huge page could; nothing is mapped around it. */
static void test_large_memory_is_aligned(void **state)
{
    (void)state;
    const uint64_t huge = 2u << 20, page = quire__os_page_bytes();
    const uint64_t sizes[] = {huge, huge + 1, 3 * huge - 1, 5 * huge};
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(sizes); i++) {
        unsigned char present;
        uint8_t *memory = quire__reserve(sizes[i]);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % huge, 0);
        quire__prefer_huge(memory, sizes[i]);
        quire__prefer_huge(memory + 1, sizes[i] - 1);
        memory[0] = memory[sizes[i] - 1] = 1;
        uint64_t mapped = quire__round_up(sizes[i], page);
        quire__unreserve(memory, sizes[i]);
        assert_int_equal(mincore(memory, page, &present), -1);
        assert_int_equal(mincore(memory + mapped - page, page, &present), -1);
        memory = quire__alloc_aligned(64, sizes[i]);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % huge, 0);
        memset(memory, 7, sizes[i]);
        quire__free(memory);
    }
}

static uint64_t mapped_bytes(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llu", &pages), 1);
    (void)fclose(file);
    return pages * quire__os_page_bytes();
}

static void test_alignment_leaves_nothing_mapped(void **state)
{
    (void)state;
    const uint64_t bytes = (2u << 20) + 4096;
    uint64_t before = mapped_bytes();
    for (int i = 0; i < 100; i++)
        quire__unreserve(quire__reserve(bytes), bytes);
    assert_true(mapped_bytes() < before + (20u << 20)); /* 100 times 2 MiB would be left */
}

static bool has_huge_pages(void)
{
    char text[64] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (file != NULL) {
        (void)!fgets(text, sizeof text, file);
        (void)fclose(file);
    }
    return strstr(text, "[always]") != NULL || strstr(text, "[madvise]") != NULL;
}

/* One byte brings 2 MiB of memory that prefers huge pages, and one page of sparse memory. */
static void test_advice_about_huge_pages(void **state)
{
    (void)state;
    const uint64_t bytes = 4u << 20, page = quire__os_page_bytes();
    if (!has_huge_pages() || page != 4096)
        skip();
    uint8_t *memory = quire__reserve(bytes);
    assert_non_null(memory);
    quire__prefer_huge(memory, bytes);
    memory[1] = 1;
    uint64_t dense = resident_pages(memory, bytes);
    assert_true(dense == 512 || dense == 1); /* 1: the system had no huge page left */
    quire__keep_sparse(memory, bytes);
    quire__discard(memory, bytes);
    assert_int_equal(resident_pages(memory, bytes), 0);
    memory[1] = 1;
    assert_int_equal(resident_pages(memory, bytes), 1);
    quire__unreserve(memory, bytes);
}

static void test_reserve_refuses(void **state)
{
    (void)state;
    assert_null(quire__reserve(0));
    assert_null(quire__reserve(UINT64_MAX));
    assert_null(quire__reserve(UINT64_MAX / 2 + 1));
    assert_null(quire__reserve((uint64_t)1 << 60));
}

/* ---- files ---- */

struct place {
    char folder[64];
    char path[96];
};

static void place_make(struct place *place, const char *content, size_t bytes)
{
    (void)snprintf(place->folder, sizeof place->folder, "/tmp/quire-test-XXXXXX");
    assert_non_null(mkdtemp(place->folder));
    (void)snprintf(place->path, sizeof place->path, "%s/file", place->folder);
    int fd = open(place->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, bytes), bytes);
    (void)close(fd);
}

static void place_remove(struct place *place)
{
    (void)unlink(place->path);
    (void)rmdir(place->folder);
}

static void test_file_map_shows_the_file(void **state)
{
    struct place place;
    struct quire__file_map map;
    struct quire_error error = {0};
    (void)state;
    place_make(&place, "some bytes", 10);
    assert_int_equal(quire__file_map(place.path, &map, &error), QUIRE_OK);
    assert_int_equal(map.size, 10);
    assert_memory_equal(map.data, "some bytes", 10);
    quire__file_unmap(&map);
    assert_null(map.data);
    quire__file_unmap(&map); /* twice is harmless */
    place_remove(&place);
    place_make(&place, "", 0);
    map.data = (const uint8_t *)"x";
    assert_int_equal(quire__file_map(place.path, &map, NULL), QUIRE_OK);
    assert_null(map.data);
    assert_int_equal(map.size, 0);
    quire__file_unmap(&map);
    place_remove(&place);
}

static void assert_unmappable(const char *path, quire_status status, int os_code)
{
    struct quire__file_map map = {(const uint8_t *)"x", 1};
    struct quire_error error = {0};
    assert_int_equal(quire__file_map(path, &map, &error), status);
    assert_int_equal(error.status, status);
    assert_int_equal(error.os_code, os_code);
    assert_non_null(strstr(error.message, path)); /* which file */
    assert_null(map.data);
    assert_int_equal(map.size, 0);
    assert_int_equal(quire__file_map(path, &map, NULL), status);
}

static void test_file_map_refuses(void **state)
{
    struct place place;
    char fifo[128];
    (void)state;
    place_make(&place, "x", 1);
    assert_unmappable(place.folder, QUIRE_E_INVAL, 0);
    assert_unmappable("/dev/null", QUIRE_E_INVAL, 0);
    (void)snprintf(fifo, sizeof fifo, "%s/fifo", place.folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_unmappable(fifo, QUIRE_E_INVAL, 0); /* and does not wait for a writer */
    (void)unlink(fifo);
    if (geteuid() != 0) {
        (void)chmod(place.path, 0);
        assert_unmappable(place.path, QUIRE_E_IO, EACCES);
    }
    place_remove(&place);
    assert_unmappable(place.path, QUIRE_E_IO, ENOENT);
    assert_unmappable("", QUIRE_E_IO, ENOENT);
}

/* ---- the machine ---- */

static void test_the_machine(void **state)
{
    (void)state;
    uint64_t before = quire__now_ns(), after = quire__now_ns();
    assert_true(after >= before && before > 0);
    assert_true(quire__cpu_count() >= 1);
    assert_true(quire__cpu_count() <= (uint32_t)sysconf(_SC_NPROCESSORS_CONF));
    assert_true(quire__memory_available() > 0);
    uint64_t page = quire__os_page_bytes();
    assert_true(page >= 4096 && (page & (page - 1)) == 0);
    (void)setenv("QUIRE_TEST_VARIABLE", "value", 1);
    assert_string_equal(quire__getenv("QUIRE_TEST_VARIABLE"), "value");
    (void)unsetenv("QUIRE_TEST_VARIABLE");
    assert_null(quire__getenv("QUIRE_TEST_VARIABLE"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_status_has_a_name_and_a_text),
        cmocka_unit_test(test_fail_fills_the_error),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_the_version_is_that_of_the_headers),
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_kv_rows),
        cmocka_unit_test(test_weight_rows),
        cmocka_unit_test(test_checked_arithmetic),
        cmocka_unit_test(test_the_nth_allocation_fails),
        cmocka_unit_test(test_a_refused_realloc_keeps_the_memory),
        cmocka_unit_test(test_heap_edges),
        cmocka_unit_test(test_reserved_memory_costs_what_is_touched),
        cmocka_unit_test(test_discard_keeps_what_is_outside),
        cmocka_unit_test(test_large_memory_is_aligned),
        cmocka_unit_test(test_alignment_leaves_nothing_mapped),
        cmocka_unit_test(test_advice_about_huge_pages),
        cmocka_unit_test(test_reserve_refuses),
        cmocka_unit_test(test_file_map_shows_the_file),
        cmocka_unit_test(test_file_map_refuses),
        cmocka_unit_test(test_the_machine),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
