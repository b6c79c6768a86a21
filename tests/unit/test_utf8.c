/* test_utf8.c - UTF-8: what is a character, what is not, and text that arrives in pieces.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "model/utf8.h"
#include "support.h"

/* The definition, without a table: the bits say a length and a number; the number must be allowed
 * and must need that length. 0 when the bytes are not exactly one character. */
static int reference_length(const uint8_t *bytes, int count)
{
    uint32_t code = bytes[0];
    int length = code < 0x80       ? 1
                 : code >> 5 == 6  ? 2
                 : code >> 4 == 14 ? 3
                 : code >> 3 == 30 ? 4
                                   : 0;
    if (length == 0 || length > count)
        return 0;
    if (length > 1)
        code &= 0x7fu >> length;
    for (int i = 1; i < length; i++) {
        if (bytes[i] >> 6 != 2)
            return 0;
        code = code << 6 | (bytes[i] & 0x3fu);
    }
    int needed = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    return needed == length && code < 0x110000 && code >> 11 != 0x1b ? length : 0;
}

static void all_short_sequences(void **state)
{
    (void)state;
    uint32_t whole = 0;
    for (uint32_t value = 0; value < 1u << 24; value++) {
        uint8_t bytes[4] = {(uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value, 0xbf};
        /* One fourth byte stands for all but those that a four-byte character excludes. */
        int expected = reference_length(bytes, 4), found = quire__utf8_length((char *)bytes, 4);
        if (found != (expected > 0 ? expected : -1))
            fail_msg("%06x: %d, not %d", value, found, expected);
        whole += found == 3;
    }
    assert_int_equal(whole, 0x10000 - 0x800 - 0x800); /* of three bytes: no surrogates */
    for (uint32_t last = 0; last < 256; last++) {
        uint8_t bytes[4] = {0xf4, 0x8f, 0xbf, (uint8_t)last};
        assert_int_equal(quire__utf8_length((char *)bytes, 4), last >> 6 == 2 ? 4 : -1);
    }
}

/* A cut-off character is one that some further bytes complete. */
static void all_cut_off_sequences(void **state)
{
    (void)state;
    for (uint32_t value = 0; value < 1u << 16; value++) {
        uint8_t bytes[4] = {(uint8_t)(value >> 8), (uint8_t)value, 0, 0};
        bool completes = false;
        for (uint32_t tail = 0; tail < 1u << 6 && !completes; tail++) {
            bytes[2] = bytes[3] = (uint8_t)(0x80 | tail);
            completes = reference_length(bytes, 4) > 2;
        }
        int found = quire__utf8_length((char *)bytes, 2);
        assert_int_equal(found == 0, completes);
    }
    for (uint32_t lead = 0; lead < 256; lead++) {
        char byte = (char)lead;
        int expected = lead < 0x80 ? 1 : lead >= 0xc2 && lead <= 0xf4 ? 0 : -1;
        assert_int_equal(quire__utf8_length(&byte, 1), expected);
    }
}

static void check_finds_the_first_bad_byte(void **state)
{
    (void)state;
    char text[40];
    uint64_t bad;
    assert_true(quire__utf8_check(NULL, 0, &bad));
    for (uint64_t at = 0; at < sizeof(text); at++) {
        memset(text, 'a', sizeof(text));
        assert_true(quire__utf8_check(text, sizeof(text), &bad));
        text[at] = (char)0xff;
        assert_false(quire__utf8_check(text, sizeof(text), &bad));
        assert_int_equal(bad, at);
        text[at] = (char)0xc3; /* followed by 'a' or by the end */
        assert_false(quire__utf8_check(text, sizeof(text), &bad));
        assert_int_equal(bad, at);
    }
    assert_true(quire__utf8_check("a\0b\xf0\x9f\x98\x80", 7, &bad));
}

static void quote_is_one_short_line(void **state)
{
    (void)state;
    char out[12];
    assert_string_equal(quire__quote("plain", 5, out, sizeof(out)), "plain");
    assert_string_equal(quire__quote("", 0, out, sizeof(out)), "");
    assert_string_equal(quire__quote("a\nb\x1b[0m\xc3\xa9\0", 10, out, sizeof(out)), "a?b?[0m???");
    assert_string_equal(quire__quote("twelve bytes", 12, out, sizeof(out)), "twelve b...");
    assert_string_equal(quire__quote("eleven byte", 11, out, sizeof(out)), "eleven byte");
}

/* ---- streams ---- */

/* Feeds data in pieces of `step` bytes and expects the text. */
static void check_stream(const char *data, uint64_t count, uint64_t step, const char *expected,
                         uint64_t expected_count)
{
    struct quire__stream stream = {0};
    struct quire__bytes out = {0};
    uint64_t bad;
    for (uint64_t at = 0; at < count; at += step) {
        uint64_t piece = count - at < step ? count - at : step;
        assert_int_equal(quire__stream_feed(&stream, data + at, piece, &out, NULL), QUIRE_OK);
        assert_true(quire__utf8_check(out.data, out.count, &bad));
    }
    assert_int_equal(quire__stream_flush(&stream, &out, NULL), QUIRE_OK);
    assert_int_equal(out.count, expected_count);
    if (expected_count > 0)
        assert_memory_equal(out.data, expected, expected_count);
    assert_int_equal(stream.count, 0);
    quire__bytes_deinit(&out);
}

static void check_stream_all_ways(const char *data, uint64_t count, const char *expected)
{
    for (uint64_t step = 1; step <= count + 1; step++)
        check_stream(data, count, step, expected, strlen(expected));
}

#define R "\xef\xbf\xbd"

static void streams_replace_what_cannot_become_valid(void **state)
{
    (void)state;
    static const struct {
        const char *data, *expected;
    } cases[] = {
        {"", ""},
        {"plain", "plain"},
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        /* Tables 3-8 to 3-11 of the Unicode Standard, chapter 3.9. */
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", R R R R R R R R "A"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", R R R R R R R R "A"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", R R R R R "A" R R "B"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", R R R R "A"},
        /* Ends inside a character. */
        {"a\xf0\x9f\x98", "a" R},
        {"a\xc3", "a" R},
        /* A character cut off by another's beginning. */
        {"\xe2\x82\xc3\xa9", R "\xc3\xa9"},
        {"\xf0\x9f\xf0\x9f\x98\x80", R "\xf0\x9f\x98\x80"},
    };
    for (size_t i = 0; i < QT_LEN(cases); i++)
        check_stream_all_ways(cases[i].data, strlen(cases[i].data), cases[i].expected);
    for (uint64_t step = 1; step < 4; step++)
        check_stream("a\0b", 3, step, "a\0b", 3);
}

static void streams_hold_back_half_a_character(void **state)
{
    (void)state;
    struct quire__stream stream = {0};
    struct quire__bytes out = {0};
    assert_int_equal(quire__stream_feed(&stream, "x\xf0\x9f", 3, &out, NULL), QUIRE_OK);
    assert_int_equal(out.count, 1);
    assert_int_equal(quire__stream_feed(&stream, "\x98", 1, &out, NULL), QUIRE_OK);
    assert_int_equal(out.count, 1);
    assert_int_equal(quire__stream_feed(&stream, "\x80y", 2, &out, NULL), QUIRE_OK);
    assert_int_equal(out.count, 6);
    assert_memory_equal(out.data, "x\xf0\x9f\x98\x80y", 6);
    quire__bytes_deinit(&out);
}

static void random_streams_do_not_depend_on_the_pieces(void **state)
{
    (void)state;
    struct qt_random random = {7};
    for (unsigned round = 0; round < 2000; round++) {
        char data[24];
        struct quire__stream stream = {0};
        struct quire__bytes whole = {0};
        uint64_t count = qt_below(&random, sizeof(data));
        for (uint64_t i = 0; i < count; i++)
            data[i] = (char)(qt_chance(&random, 50) ? 0x80 | qt_below(&random, 128)
                                                    : qt_below(&random, 256));
        assert_int_equal(quire__stream_feed(&stream, data, count, &whole, NULL), QUIRE_OK);
        assert_int_equal(quire__stream_flush(&stream, &whole, NULL), QUIRE_OK);
        for (uint64_t step = 1; step <= 5; step++)
            check_stream(data, count, step, whole.data, whole.count);
        quire__bytes_deinit(&whole);
    }
}

static void without_memory_nothing_changes(void **state)
{
    (void)state;
    struct quire__stream stream = {0};
    struct quire__bytes out = {0};
    struct quire_error error = {0};
    assert_int_equal(quire__stream_feed(&stream, "\xe2\x82", 2, &out, NULL), QUIRE_OK);
    quire__bytes_deinit(&out);
    quire__alloc_fail_after(0, true);
    assert_int_equal(quire__stream_feed(&stream, "\xac!", 2, &out, &error), QUIRE_E_NOMEM);
    assert_int_equal(quire__stream_flush(&stream, &out, &error), QUIRE_E_NOMEM);
    assert_int_equal(quire__bytes_append(&out, "x", 1, &error), QUIRE_E_NOMEM);
    quire__alloc_fail_after(-1, false);
    assert_int_equal(error.status, QUIRE_E_NOMEM);
    assert_int_equal(out.count, 0);
    assert_int_equal(stream.count, 2);
    assert_int_equal(quire__stream_feed(&stream, "\xac!", 2, &out, NULL), QUIRE_OK);
    assert_int_equal(out.count, 4);
    assert_memory_equal(out.data, "\xe2\x82\xac!", 4);
    assert_int_equal(quire__bytes_reserve(&out, UINT64_MAX, NULL), QUIRE_E_NOMEM);
    assert_int_equal(quire__stream_feed(&stream, "", UINT64_MAX, &out, NULL), QUIRE_E_NOMEM);
    assert_int_equal(out.count, 4);
    quire__bytes_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_short_sequences),
        cmocka_unit_test(all_cut_off_sequences),
        cmocka_unit_test(check_finds_the_first_bad_byte),
        cmocka_unit_test(quote_is_one_short_line),
        cmocka_unit_test(streams_replace_what_cannot_become_valid),
        cmocka_unit_test(streams_hold_back_half_a_character),
        cmocka_unit_test(random_streams_do_not_depend_on_the_pieces),
        cmocka_unit_test(without_memory_nothing_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
