/* test_gguf.c - the GGUF reader: good files, every kind of bad file, truncation, flips, no memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * With `--write-corpus FOLDER` it writes its files as seeds of the fuzz target instead. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "model/gguf.h"
#include "support/gguf_files.h"

/* ---- reading ---- */

/* Parses a copy of exactly size bytes, so that the sanitizer sees a read past them. */
static quire_status parse(const uint8_t *data, size_t size, struct quire__gguf **gguf,
                          uint8_t **copy, struct quire_error *error)
{
    *copy = quire__alloc(size);
    assert_non_null(*copy);
    if (size != 0)
        memcpy(*copy, data, size);
    return quire__gguf_parse(*copy, size, "case.gguf", gguf, error);
}

static volatile uint8_t sink; /* what is read must not be optimised away */

static void touch(const void *data, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++)
        sink = ((const uint8_t *)data)[i];
}

/* Reads everything that an accepted file promises. */
static void read_all(const struct quire__gguf *gguf)
{
    for (uint64_t i = 0; i < quire__gguf_key_count(gguf); i++) {
        const struct quire__gguf_key *key = quire__gguf_key_at(gguf, i);
        char *name = quire__calloc((size_t)key->name.size + 1, 1);
        assert_non_null(name);
        memcpy(name, key->name.data, (size_t)key->name.size);
        struct quire__gguf_string string;
        struct quire__gguf_array array;
        if (key->type == QUIRE__GGUF_STRING) {
            assert_int_equal(quire__gguf_str(gguf, name, &string), QUIRE_OK);
            touch(string.data, string.size);
        } else if (key->type == QUIRE__GGUF_ARRAY) {
            assert_int_equal(quire__gguf_array(gguf, name, &array), QUIRE_OK);
            struct quire__gguf_strings strings = quire__gguf_strings(&array);
            while (quire__gguf_next_string(&strings, &string))
                touch(string.data, string.size);
        }
        quire__free(name);
    }
    for (uint64_t i = 0; i < quire__gguf_tensor_count(gguf); i++) {
        const struct quire__gguf_tensor *tensor = quire__gguf_tensor_at(gguf, i);
        touch(tensor->data, tensor->bytes);
    }
}

static void test_every_case(void **state)
{
    (void)state;
    for (size_t i = 0; i < qt_gguf_num_files; i++) {
        const struct qt_gguf_file *c = &qt_gguf_files[i];
        struct qt_writer w = {.size = 0};
        c->build(&w);
        uint8_t *copy;
        struct quire__gguf *gguf = NULL;
        struct quire_error error = {0};
        quire_status status = parse(w.bytes, w.size, &gguf, &copy, &error);
        if (status != c->status || (c->says != NULL && strstr(error.message, c->says) == NULL))
            fail_msg("%s: status %d (expected %d), message \"%s\" (expected \"%s\")", c->name,
                     status, c->status, error.message, c->says != NULL ? c->says : "");
        if (status == QUIRE_OK) {
            read_all(gguf);
        } else {
            assert_null(gguf);
            assert_int_equal(error.status, status);
            assert_non_null(strstr(error.message, "case.gguf: "));
            assert_true(strlen(error.message) < sizeof error.message - 1); /* not cut off */
            for (const char *p = error.message; *p != 0; p++)
                assert_in_range((uint8_t)*p, ' ', '~');
            assert_int_equal(quire__gguf_parse(copy, w.size, "x", &gguf, NULL), status);
        }
        quire__gguf_close(gguf);
        quire__free(copy);
    }
}

static void check_numbers(const struct quire__gguf *g)
{
    static const struct {
        const char *key;
        quire_status status;
        uint64_t value;
    } integers[] = {
        {"t.u8", QUIRE_OK, 254},         {"t.i8", QUIRE_E_CORRUPT, 0},
        {"t.u16", QUIRE_OK, 0xf234},     {"t.i16", QUIRE_OK, 0x7234},
        {"t.u32", QUIRE_OK, 4000000000}, {"t.i32", QUIRE_E_CORRUPT, 0},
        {"t.u64", QUIRE_OK, UINT64_MAX}, {"t.i64", QUIRE_OK, INT64_MAX},
        {"t.f32", QUIRE_E_CORRUPT, 0},   {"t.true", QUIRE_E_CORRUPT, 0},
        {"t.none", QUIRE_E_NOTFOUND, 0}, {"t.string", QUIRE_E_CORRUPT, 0},
    };
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(integers); i++) {
        uint64_t value = 0;
        assert_int_equal(quire__gguf_u64(g, integers[i].key, &value), integers[i].status);
        assert_true(value == integers[i].value);
    }
    float real = 0;
    assert_int_equal(quire__gguf_f32(g, "t.f32", &real), QUIRE_OK);
    assert_true(real == 1.5f);
    assert_int_equal(quire__gguf_f32(g, "t.f64", &real), QUIRE_OK);
    assert_true(real == -0.25f);
    assert_int_equal(quire__gguf_f32(g, "t.f64_wide", &real), QUIRE_E_CORRUPT);
    assert_int_equal(quire__gguf_f32(g, "t.u32", &real), QUIRE_E_CORRUPT);
    assert_int_equal(quire__gguf_f32(g, "t.none", &real), QUIRE_E_NOTFOUND);
    bool flag = false;
    assert_int_equal(quire__gguf_bool(g, "t.true", &flag), QUIRE_OK);
    assert_true(flag);
    assert_int_equal(quire__gguf_bool(g, "t.false", &flag), QUIRE_OK);
    assert_false(flag);
    assert_int_equal(quire__gguf_bool(g, "t.u8", &flag), QUIRE_E_CORRUPT);
    assert_int_equal(quire__gguf_bool(g, "t.tru", &flag), QUIRE_E_NOTFOUND);
}

static void check_arrays(const struct quire__gguf *g)
{
    struct quire__gguf_string string;
    struct quire__gguf_array array;
    assert_int_equal(quire__gguf_str(g, "t.string", &string), QUIRE_OK);
    assert_int_equal(string.size, 5);
    assert_memory_equal(string.data, "quire", 5);
    assert_int_equal(quire__gguf_str(g, "a.strings", &string), QUIRE_E_CORRUPT);
    assert_int_equal(quire__gguf_array(g, "t.string", &array), QUIRE_E_CORRUPT);
    assert_int_equal(quire__gguf_array(g, "a", &array), QUIRE_E_NOTFOUND);

    static const char *const expected[] = {"one", "", "three"};
    assert_int_equal(quire__gguf_array(g, "a.strings", &array), QUIRE_OK);
    assert_int_equal(array.count, 3);
    struct quire__gguf_strings strings = quire__gguf_strings(&array);
    for (size_t i = 0; i < 3; i++) {
        assert_true(quire__gguf_next_string(&strings, &string));
        assert_int_equal(string.size, strlen(expected[i]));
        assert_memory_equal(string.data, expected[i], string.size);
    }
    assert_false(quire__gguf_next_string(&strings, &string));

    int64_t integer;
    float real;
    assert_int_equal(quire__gguf_array_i64(&array, 0, &integer), QUIRE_E_CORRUPT);
    assert_int_equal(quire__gguf_array(g, "a.i32", &array), QUIRE_OK);
    assert_int_equal(array.type, QUIRE__GGUF_I32);
    assert_int_equal(quire__gguf_array_i64(&array, 1, &integer), QUIRE_OK);
    assert_int_equal(integer, -7);
    assert_int_equal(quire__gguf_array_i64(&array, 2, &integer), QUIRE_E_INVAL);
    assert_int_equal(quire__gguf_array_f32(&array, 0, &real), QUIRE_E_CORRUPT);
    strings = quire__gguf_strings(&array);
    assert_false(quire__gguf_next_string(&strings, &string));
    assert_int_equal(quire__gguf_array(g, "a.f32", &array), QUIRE_OK);
    assert_int_equal(quire__gguf_array_f32(&array, 0, &real), QUIRE_OK);
    assert_true(real == 0.5f);
    assert_int_equal(quire__gguf_array_f32(&array, 1, &real), QUIRE_E_INVAL);
    assert_int_equal(quire__gguf_array(g, "a.u64", &array), QUIRE_OK);
    assert_int_equal(quire__gguf_array_i64(&array, 0, &integer), QUIRE_E_CORRUPT);
    assert_int_equal(quire__gguf_array(g, "a.empty", &array), QUIRE_OK);
    assert_int_equal(array.count, 0);
}

static void test_values(void **state)
{
    (void)state;
    struct qt_writer w = {.size = 0};
    qt_gguf_files[0].build(&w);
    uint8_t *copy;
    struct quire__gguf *g = NULL;
    assert_int_equal(parse(w.bytes, w.size, &g, &copy, NULL), QUIRE_OK);
    check_numbers(g);
    check_arrays(g);
    assert_int_equal(quire__gguf_key_count(g), QT_GGUF_KEYS);
    assert_memory_equal(quire__gguf_key_at(g, 0)->name.data, "t.u8", 4);
    assert_string_equal(quire__gguf_type_name(quire__gguf_key_at(g, 0)->type), "u8");
    assert_string_equal(quire__gguf_type_name(13), "unknown");

    assert_int_equal(quire__gguf_tensor_count(g), QT_GGUF_TENSORS);
    const struct quire__gguf_tensor *t = quire__gguf_find_tensor(g, "vector");
    assert_ptr_equal(t, quire__gguf_tensor_at(g, 0));
    assert_int_equal(t->num_dims, 1);
    assert_int_equal(t->bytes, 20);
    assert_ptr_equal(t->data, copy + w.size - 20); /* no copy */
    assert_memory_equal(t->data, ((float[]){1, 2, 3, 4, 5}), 20);
    t = quire__gguf_find_tensor(g, "blk.0.matrix");
    assert_int_equal(t->type, QUIRE_W_Q4_0);
    assert_memory_equal(t->dims, ((uint64_t[]){64, 3, 1, 1}), sizeof t->dims);
    assert_int_equal(t->bytes, 3 * 2 * 18);
    assert_ptr_equal(t->data, copy + w.size - 20 - 192 + 64);
    assert_non_null(quire__gguf_find_tensor(g, "one"));
    assert_null(quire__gguf_find_tensor(g, "on"));
    assert_null(quire__gguf_find_tensor(g, "ones"));
    assert_null(quire__gguf_find_tensor(g, ""));
    quire__gguf_close(g);
    quire__gguf_close(NULL);
    quire__free(copy);
}

static void test_truncated_anywhere(void **state)
{
    (void)state;
    struct qt_writer w = {.size = 0};
    qt_gguf_files[0].build(&w);
    for (size_t size = 0; size < w.size; size++) {
        uint8_t *copy;
        struct quire__gguf *gguf = NULL;
        struct quire_error error = {0};
        assert_int_equal(parse(w.bytes, size, &gguf, &copy, &error), QUIRE_E_CORRUPT);
        assert_true(error.message[0] != 0);
        quire__free(copy);
    }
}

static void test_every_bit_flipped(void **state)
{
    (void)state;
    uint32_t refused = 0;
    for (size_t which = 0; which < QT_GGUF_GOOD; which++) {
        struct qt_writer w = {.size = 0};
        qt_gguf_files[which].build(&w);
        for (size_t bit = 0; bit < 8 * w.size; bit++) {
            w.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            uint8_t *copy;
            struct quire__gguf *gguf = NULL;
            struct quire_error error = {0};
            if (parse(w.bytes, w.size, &gguf, &copy, &error) == QUIRE_OK)
                read_all(gguf);
            else
                refused++;
            quire__gguf_close(gguf);
            quire__free(copy);
            w.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    assert_true(refused > 1000); /* of about 30,000; most flips change a value or a name only */
}

static void test_no_memory(void **state)
{
    (void)state;
    struct qt_writer w = {.size = 0};
    qt_gguf_files[0].build(&w);
    int64_t failures = 0;
    for (;; failures++) {
        struct quire__gguf *gguf = NULL;
        struct quire_error error = {0};
        quire__alloc_fail_after(failures, false);
        quire_status status = quire__gguf_parse(w.bytes, w.size, "case.gguf", &gguf, &error);
        quire__alloc_fail_after(-1, false);
        quire__gguf_close(gguf);
        if (status == QUIRE_OK)
            break;
        assert_int_equal(status, QUIRE_E_NOMEM);
        assert_null(gguf);
        assert_string_equal(error.message, "case.gguf: no memory to index the file");
    }
    assert_int_equal(failures, 6);
}

/* A count that the bytes would allow is still bounded, so that it drives no large allocation. */
static void test_too_many(void **state)
{
    (void)state;
    struct {
        char magic[4];
        uint32_t version;
        uint64_t tensors, keys;
    } head = {{'G', 'G', 'U', 'F'}, 3, 65537, 65537};
    size_t size = 8 << 20;
    uint8_t *data = quire__calloc(size, 1);
    assert_non_null(data);
    struct quire__gguf *gguf = NULL;
    struct quire_error error = {0};
    memcpy(data, &head, sizeof head);
    assert_int_equal(quire__gguf_parse(data, size, "x", &gguf, &error), QUIRE_E_CORRUPT);
    assert_non_null(strstr(error.message, "it states 65537 tensors, but at most 65536 fit"));
    head.tensors = 65536;
    memcpy(data, &head, sizeof head);
    assert_int_equal(quire__gguf_parse(data, size, "x", &gguf, &error), QUIRE_E_CORRUPT);
    assert_non_null(strstr(error.message, "it states 65537 keys, but at most 65536 fit"));
    quire__free(data);
}

/* ---- files ---- */

static void write_file(const char *path, const struct qt_writer *w)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, w->bytes, w->size), (ssize_t)w->size);
    assert_int_equal(close(fd), 0);
}

static void test_open(void **state)
{
    (void)state;
    static const char path[] = QUIRE_BINARY_DIR
        "/test_gguf_with_a_long_name_that_no_message_must_let_push_the_reason_out_of_sight.gguf";
    struct quire__gguf *gguf = NULL;
    struct quire_error error = {0};
    struct qt_writer w = {.size = 0};
    qt_gguf_files[0].build(&w);
    write_file(path, &w);
    assert_int_equal(quire__gguf_open(path, &gguf, &error), QUIRE_OK);
    read_all(gguf);
    quire__gguf_close(gguf);

    gguf = NULL;
    w.size -= 1;
    write_file(path, &w);
    assert_int_equal(quire__gguf_open(path, &gguf, &error), QUIRE_E_CORRUPT);
    assert_non_null(strstr(error.message, "reason_out_of_sight.gguf: tensor 'vector' at byte"));
    assert_non_null(strstr(error.message, "passes the end of the file; the file is damaged"));
    w.size = 0;
    write_file(path, &w);
    assert_int_equal(quire__gguf_open(path, &gguf, &error), QUIRE_E_CORRUPT);
    assert_non_null(strstr(error.message, "the file is empty"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(quire__gguf_open(path, &gguf, &error), QUIRE_E_IO);
    assert_int_equal(quire__gguf_open(QUIRE_BINARY_DIR, &gguf, &error), QUIRE_E_INVAL);
    assert_null(gguf);
}

static void test_real_model(void **state)
{
    (void)state;
    const char *path = quire__getenv("QUIRE_TEST_MODEL");
    if (path == NULL) {
        print_message("QUIRE_TEST_MODEL is not set\n");
        skip();
    }
    struct quire__gguf *g = NULL;
    struct quire_error error = {0};
    assert_int_equal(quire__gguf_open(path, &g, &error), QUIRE_OK);
    assert_int_equal(quire__gguf_key_count(g), 33);
    assert_int_equal(quire__gguf_tensor_count(g), 272);
    uint64_t layers;
    assert_int_equal(quire__gguf_u64(g, "llama.block_count", &layers), QUIRE_OK);
    assert_int_equal(layers, 30);
    struct quire__gguf_array tokens;
    assert_int_equal(quire__gguf_array(g, "tokenizer.ggml.tokens", &tokens), QUIRE_OK);
    assert_int_equal(tokens.count, 49152);
    const struct quire__gguf_tensor *t = quire__gguf_find_tensor(g, "blk.29.attn_q.weight");
    assert_non_null(t);
    assert_int_equal(t->type, QUIRE_W_Q4_1);
    assert_int_equal(t->bytes, 576 / 32 * 20 * 576);
    assert_int_equal((uintptr_t)t->data % 32, 0);
    quire__gguf_close(g);
}

static int write_corpus(const char *folder)
{
    for (size_t i = 0; i < qt_gguf_num_files; i++) {
        char path[4096];
        struct qt_writer w = {.size = 0};
        qt_gguf_files[i].build(&w);
        (void)snprintf(path, sizeof path, "%s/%s.gguf", folder, qt_gguf_files[i].name);
        write_file(path, &w);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write-corpus") == 0)
        return write_corpus(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_case),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_truncated_anywhere),
        cmocka_unit_test(test_every_bit_flipped),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_real_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
