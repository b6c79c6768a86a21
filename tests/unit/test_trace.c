/* test_trace.c - traces: what the format means, what is refused, and what a replay makes of them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "quire/evict_sim.h"
#include "quire/trace.h"
#include "quire/workload.h"
#include "support.h"

#define HEAD "quire-trace 1\n"

static struct trace parsed(const char *text)
{
    struct trace trace;
    struct quire_error error;
    if (trace_parse("a.trace", text, strlen(text), &trace, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
    return trace;
}

static void refused(const char *text, size_t bytes, quire_status expected, const char *says)
{
    struct trace trace;
    struct quire_error error;
    assert_int_equal(trace_parse("a.trace", text, bytes, &trace, &error), expected);
    assert_int_equal(trace.num_requests, 0);
    assert_null(trace.requests);
    if (strstr(error.message, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error.message, says);
}

/* The tokens of request `number`; the list ends with -1. */
static void check_tokens(const struct trace *trace, uint32_t number, const int *expected)
{
    const struct trace_request *request = &trace->requests[number];
    uint32_t count = 0;
    for (; expected[count] >= 0; count++)
        assert_int_equal(request->tokens[count], expected[count]);
    assert_int_equal(request->num_prompt + request->num_output, count);
}

/* ---- the format ---- */

static void test_tokens(void **state)
{
    (void)state;
    struct trace trace = parsed(HEAD "vocab 1000\n"
                                     "segment a 1,2\n"
                                     "segment b.b-_9 a,7..9,a,5*3\n"
                                     "request at=0 in=b.b-_9 out=3 id=a\n"
                                     "request at=0 in=@a:3,@a,0 out=999\n"
                                     "request at=0.25 in=1..1 gen=0 salt=18446744073709551615\n");
    assert_int_equal(trace.num_requests, 3);
    check_tokens(&trace, 0, (const int[]){1, 2, 7, 8, 9, 1, 2, 5, 5, 5, 3, -1});
    assert_int_equal(trace.requests[0].num_output, 1);
    check_tokens(&trace, 1, (const int[]){1, 2, 7, 1, 2, 7, 8, 9, 1, 2, 5, 5, 5, 3, 0, 999, -1});
    check_tokens(&trace, 2, (const int[]){1, -1});
    assert_int_equal(trace.requests[2].num_output, 0);
    assert_int_equal(trace.requests[2].at_us, 250000);
    assert_true(trace.requests[2].salt == UINT64_MAX);
    assert_int_equal(trace.longest, 16);
    assert_int_equal(trace.vocabulary, 1000);
    trace_deinit(&trace);
}

static uint64_t mixed(uint64_t x)
{
    return qt_mix(x + 0x9e3779b97f4a7c15u);
}

/* Streams continue where they were cut, differ, and stay below the vocabulary. */
static void test_made_up_tokens(void **state)
{
    (void)state;
    struct trace trace = parsed(HEAD "vocab 500\n"
                                     "request at=0 in=~5:40 gen=40\n"
                                     "request at=0 in=~5:10,~5+10:30 gen=40\n"
                                     "request at=0 in=~6:40 gen=1\n");
    const struct trace_request *r = trace.requests;
    const size_t bytes = 40 * sizeof(uint32_t);
    assert_memory_equal(r[0].tokens, r[1].tokens, bytes);
    assert_memory_not_equal(r[0].tokens + 40, r[1].tokens + 40, bytes);
    assert_memory_not_equal(r[0].tokens, r[2].tokens, bytes);
    for (uint32_t i = 0; i < 80; i++)
        assert_in_range(r[0].tokens[i], 0, 499);
    /* The formula of the document. */
    assert_int_equal(r[0].tokens[0], (mixed(mixed(5)) >> 32) * 500 >> 32);
    const uint64_t answer = mixed(mixed((UINT64_C(1) << 63) + 1) + 2) >> 32;
    assert_int_equal(r[1].tokens[42], answer * 500 >> 32);
    trace_deinit(&trace);
}

static void test_line_ends(void **state)
{
    (void)state;
    static const char *const texts[] = {
        HEAD "request at=0 in=1 gen=1\nrequest at=1 in=2 gen=1\n",
        HEAD "request at=0 in=1 gen=1\nrequest at=1 in=2 gen=1",
        "quire-trace 1\r\nrequest at=0 in=1 gen=1\r\n\r\nrequest at=1 in=2 gen=1\r\n",
        HEAD
        "# request\n\n  \t\n\trequest  at=0\tin=1 gen=1 # and so on\n#\nrequest at=1 in=2 gen=1",
    };
    for (size_t i = 0; i < QT_LEN(texts); i++) {
        struct trace trace = parsed(texts[i]);
        assert_int_equal(trace.num_requests, 2);
        assert_int_equal(trace.requests[1].tokens[0], 2);
        assert_int_equal(trace.requests[1].at_us, 1000000);
        trace_deinit(&trace);
    }
    struct trace trace = parsed("quire-trace 1");
    assert_int_equal(trace.num_requests, 0);
    trace_deinit(&trace);
}

static void test_times(void **state)
{
    (void)state;
    struct trace trace =
        parsed(HEAD "request at=0.000001 in=1 gen=1\nrequest at=1.5 in=1 gen=1\n"
                    "request at=1.50 in=1 gen=1\nrequest at=4294967295 in=1 gen=1\n");
    assert_int_equal(trace.requests[0].at_us, 1);
    assert_int_equal(trace.requests[1].at_us, 1500000);
    assert_int_equal(trace.requests[2].at_us, 1500000);
    assert_true(trace.requests[3].at_us == 4294967295u * UINT64_C(1000000));
    trace_deinit(&trace);
    static const char *const bad[] = {"",    "-1",  "1.",         ".5",  "1.0000001", "1e3",
                                      "0x1", "nan", "4294967296", "1,5", "1.-5",      "1.5.5"};
    for (size_t i = 0; i < QT_LEN(bad); i++) {
        char text[96];
        (void)snprintf(text, sizeof text, HEAD "request at=%s in=1 gen=1\n", bad[i]);
        refused(text, strlen(text), QUIRE_E_INVAL, "a.trace:2: ");
    }
}

/* ---- broken files ---- */

static void test_broken_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } rows[] = {
        {"walk", "expected vocab, segment, request"},
        {"request", "expected request at=TIME"},
        {"request at=0 in=1", "expected request at=TIME"},
        {"request at=0 gen=1", "expected request at=TIME"},
        {"request in=1 gen=1", "expected request at=TIME"},
        {"request at=0 in=1 gen=1 out=1", "expected request at=TIME"},
        {"request at=0 in=1 gen=1 gen=1", "once"},
        {"request at=0 in=1 gen=1 x=1", "expected request at=TIME"},
        {"request at=0 in=1 gen=1 salt", "expected request at=TIME"},
        {"request at=0 in=1 gen=1 salt=18446744073709551616", "salt"},
        {"request at=0 in=1 gen=1 adapter=-1", "adapter"},
        {"request at=0 in=1 gen=x", "number of tokens"},
        {"request at=0 in= gen=1", "tokens"},
        {"request at=0 in=1,,2 gen=1", "tokens"},
        {"request at=0 in=1, gen=1", "tokens"},
        {"request at=0 in=1 out= ", "tokens"},
        {"request at=0 in=1x gen=1", "FIRST..LAST"},
        {"request at=0 in=5..4 gen=1", "FIRST..LAST"},
        {"request at=0 in=5.6 gen=1", "FIRST..LAST"},
        {"request at=0 in=5... gen=1", "FIRST..LAST"},
        {"request at=0 in=5* gen=1", "TOKEN*COUNT"},
        {"request at=0 in=5*0 gen=1", "TOKEN*COUNT"},
        {"request at=0 in=~5 gen=1", "~STREAM:COUNT"},
        {"request at=0 in=~5:0 gen=1", "~STREAM:COUNT"},
        {"request at=0 in=~:5 gen=1", "~STREAM:COUNT"},
        {"request at=0 in=~9223372036854775808:1 gen=1", "~STREAM:COUNT"},
        {"request at=0 in=nobody gen=1", "segment above"},
        {"request at=0 in=@nobody gen=1", "request above"},
        {"request at=0 in=@me gen=1 id=me", "request above"},
        {"request at=0 in=1 gen=1 id=9", "letters"},
        {"request at=0 in=1 gen=1 id=", "letters"},
        {"segment", "segment NAME TOKENS"},
        {"segment a", "segment NAME TOKENS"},
        {"segment a 1 2", "segment NAME TOKENS"},
        {"segment a/b 1", "letters"},
        {"segment a a", "segment above"},
        {"vocab", "vocab N"},
        {"vocab 0", "vocab N"},
        {"vocab 4294967296", "vocab N"},
        {"vocab 5 6", "vocab N"},
        {"quire-trace 1", "expected vocab"},
    };
    for (size_t i = 0; i < QT_LEN(rows); i++) {
        char text[160];
        (void)snprintf(text, sizeof text, HEAD "# two\n%s\nrequest at=9 in=1 gen=1\n",
                       rows[i].line);
        refused(text, strlen(text), QUIRE_E_INVAL, "a.trace:3: ");
        refused(text, strlen(text), QUIRE_E_INVAL, rows[i].says);
    }
}

static void test_broken_names(void **state)
{
    (void)state;
    static const char *const texts[] = {
        HEAD "segment a 1\nsegment a 2\n",
        HEAD "request at=0 in=1 gen=1 id=a\nrequest at=0 in=1 gen=1 id=a\n",
        HEAD "request at=0 in=1 gen=1 id=a\nrequest at=0 in=@a:3 gen=1\n",
        HEAD "request at=0 in=1 gen=1 id=a\nrequest at=0 in=@a:0 gen=1\n",
        HEAD "request at=0 in=1 gen=1 id=a\nrequest at=0 in=a gen=1\n",
        HEAD "segment a 1\nvocab 5\n",
        HEAD "vocab 5\nvocab 5\n",
    };
    for (size_t i = 0; i < QT_LEN(texts); i++)
        refused(texts[i], strlen(texts[i]), QUIRE_E_INVAL, "a.trace:3: ");
    char text[256];
    memset(text, 'n', sizeof text);
    memcpy(text, HEAD "segment ", sizeof HEAD - 1 + 8);
    (void)snprintf(text + sizeof HEAD - 1 + 8 + 63, 8, " 1\n");
    struct trace trace = parsed(text);
    trace_deinit(&trace);
    (void)snprintf(text + sizeof HEAD - 1 + 8 + 63, 8, "n 1\n");
    refused(text, strlen(text), QUIRE_E_INVAL, "1 to 63");
}

static void test_empty_file(void **state)
{
    (void)state;
    refused("", 0, QUIRE_E_INVAL, "a.trace:1: \"\": expected quire-trace 1");
    refused(NULL, 0, QUIRE_E_INVAL, "a.trace:1: \"\": expected quire-trace 1");
    refused("\n", 1, QUIRE_E_INVAL, "a.trace:1: ");
}

static void test_wrong_version(void **state)
{
    (void)state;
    static const char *const texts[] = {"quire-trace 2\n",
                                        "quire-trace 10\n",
                                        "quire-trace\n",
                                        " quire-trace 1\n",
                                        "quire-trace 1 \n",
                                        "# quire-trace 1\n",
                                        "\xef\xbb\xbfquire-trace 1\n"};
    for (size_t i = 0; i < QT_LEN(texts); i++)
        refused(texts[i], strlen(texts[i]), QUIRE_E_INVAL, "a.trace:1: ");
}

static void test_nul_bytes(void **state)
{
    (void)state;
    static const char in_comment[] = HEAD "# a \0 b\n", in_word[] = HEAD "\n\0\n",
                      in_head[] = "quire-trace 1\0\n";
    refused(in_comment, sizeof in_comment - 1, QUIRE_E_INVAL, "a.trace:2: ");
    refused(in_word, sizeof in_word - 1, QUIRE_E_INVAL, "a.trace:3: ");
    refused(in_head, sizeof in_head - 1, QUIRE_E_INVAL, "a.trace:1: ");
}

static void test_token_over_the_vocabulary(void **state)
{
    (void)state;
    static const char *const lines[] = {"in=100 gen=1", "in=99..100 gen=1", "in=100*2 gen=1",
                                        "in=1 out=100", "in=4294967295 gen=1"};
    for (size_t i = 0; i < QT_LEN(lines); i++) {
        char text[96];
        (void)snprintf(text, sizeof text, HEAD "vocab 100\nrequest at=0 %s\n", lines[i]);
        refused(text, strlen(text), QUIRE_E_INVAL, "below the vocabulary");
    }
    refused(HEAD "segment a 65536\n", sizeof HEAD + 15, QUIRE_E_INVAL, "below the vocabulary");
    struct trace trace = parsed(HEAD "vocab 4294967295\nrequest at=0 in=4294967294 gen=1\n");
    assert_int_equal(trace.requests[0].tokens[0], 4294967294u);
    trace_deinit(&trace);
}

static void test_arrivals_out_of_order(void **state)
{
    (void)state;
    static const char text[] = HEAD "request at=2 in=1 gen=1\nrequest at=2 in=1 gen=1\n"
                                    "request at=1.999999 in=1 gen=1\n";
    refused(text, sizeof text - 1, QUIRE_E_INVAL, "a.trace:4: \"1.999999\": expected a time");
}

/* Numbers that no 64 bits hold, counts that no memory holds, and texts that double with each line:
 * refused before anything is taken. */
static void test_huge_numbers(void **state)
{
    (void)state;
    static const char *const limits[] = {
        "in=~1:67108865 gen=1", "in=1 gen=67108864", "in=1*18446744073709551615 gen=1",
        "in=~1:18446744073709551615 gen=1", "in=1 gen=99999999999"};
    for (size_t i = 0; i < QT_LEN(limits); i++) {
        char text[96];
        (void)snprintf(text, sizeof text, HEAD "request at=0 %s\n", limits[i]);
        refused(text, strlen(text), QUIRE_E_LIMIT, "a.trace:2: the trace is too large");
    }
    static const char *const numbers[] = {"in=18446744073709551616 gen=1",
                                          "in=1*99999999999999999999 gen=1",
                                          "in=1 gen=99999999999999999999"};
    for (size_t i = 0; i < QT_LEN(numbers); i++) {
        char text[96];
        (void)snprintf(text, sizeof text, HEAD "request at=0 %s\n", numbers[i]);
        refused(text, strlen(text), QUIRE_E_INVAL, "a.trace:2: ");
    }
    char text[2048] = HEAD "segment s0 1,2\n";
    size_t used = strlen(text);
    for (uint32_t i = 1; i < 60; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "segment s%u s%u,s%u\n", i, i - 1,
                                 i - 1);
    refused(text, used, QUIRE_E_LIMIT, "2^26");
}

static void test_long_line(void **state)
{
    (void)state;
    const size_t bytes = (1u << 20) + sizeof HEAD + 1;
    char *text = qt_alloc(bytes);
    memset(text, ' ', bytes);
    memcpy(text, HEAD, sizeof HEAD - 1);
    refused(text, bytes, QUIRE_E_LIMIT, "a.trace:2: ");
    struct trace trace;
    assert_int_equal(trace_parse("a", text, bytes - 2, &trace, NULL), QUIRE_OK);
    trace_deinit(&trace);
    qt_free(text);
}

/* Every name is found, however many there are. */
static void test_many_names(void **state)
{
    (void)state;
    enum { COUNT = 20000, LINE_BYTES = 64 };
    char *text = qt_alloc((COUNT * 2 + 1) * LINE_BYTES);
    size_t used = (size_t)snprintf(text, LINE_BYTES, HEAD);
    for (uint32_t i = 0; i < COUNT; i++)
        used += (size_t)snprintf(text + used, LINE_BYTES, "segment n%u %u\n", i, i);
    for (uint32_t i = 0; i < COUNT; i++)
        used += (size_t)snprintf(text + used, LINE_BYTES, "request at=%u in=n%u gen=1 id=n%u\n", i,
                                 COUNT - 1 - i, i);
    struct trace trace;
    assert_int_equal(trace_parse("a", text, used, &trace, NULL), QUIRE_OK);
    assert_int_equal(trace.num_requests, COUNT);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(trace.requests[i].tokens[0], COUNT - 1 - i);
    trace_deinit(&trace);
    qt_free(text);
}

/* Any byte changed: an error with a line, or a trace that can be played. */
static void test_damaged(void **state)
{
    (void)state;
    static const char text[] = HEAD "vocab 999\nsegment a ~1:40,3..9,5*3\n"
                                    "request at=0.5 in=a,~2:9 gen=9 id=b\n"
                                    "request at=1 in=@b,@b:9 out=1,2 salt=3\n";
    struct qt_random random = {qt_env_u64("QUIRE_TEST_SEED", 11)};
    for (uint32_t round = 0; round < 20000; round++) {
        char damaged[sizeof text];
        struct trace trace;
        struct quire_error error;
        memcpy(damaged, text, sizeof text);
        for (uint32_t i = 0; i <= qt_below(&random, 3); i++)
            damaged[qt_below(&random, sizeof text - 1)] =
                "\n\r\t #~@=,.:*+-0199ax\377"[qt_below(&random, 20)];
        quire_status status =
            trace_parse("d", damaged, qt_below(&random, sizeof text), &trace, &error);
        if (status != QUIRE_OK)
            assert_memory_equal(error.message, "d:", 2);
        trace_deinit(&trace);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    static const char text[] = HEAD "segment a ~1:5000\nrequest at=0 in=a gen=9 id=b\n";
    struct trace trace;
    quire_status status = QUIRE_E_NOMEM;
    for (int64_t n = 0; status == QUIRE_E_NOMEM; n++) {
        quire__alloc_fail_after(n, false);
        status = trace_parse("a", text, sizeof text - 1, &trace, NULL);
        quire__alloc_fail_after(-1, false);
        assert_in_range(n, 0, 100);
    }
    assert_int_equal(status, QUIRE_OK);
    trace_deinit(&trace);
}

/* ---- the replay ---- */

static struct trace_figures replayed(const char *text, const struct trace_replay_config *config)
{
    struct trace trace = parsed(text);
    struct trace_figures figures;
    struct quire_error error;
    if (trace_replay(&trace, config, &figures, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
    trace_deinit(&trace);
    return figures;
}

/* Figures that can be counted by hand. */
static void test_replay_counts(void **state)
{
    (void)state;
    const struct trace_replay_config config = TRACE_REPLAY_DEFAULT;
    /* 100 + 9 positions are computed: 6 full blocks and 13 of the seventh. The second prompt finds
     * the 100 and the 9; the third only 32; the fourth is of another tenant. */
    struct trace_figures f = replayed(HEAD "request at=0 in=~1:100 gen=10 id=a\n"
                                           "request at=10 in=@a,~2:20 gen=1\n"
                                           "request at=20 in=@a:32,~3:10 gen=1\n"
                                           "request at=30 in=~1:100 gen=1 salt=1\n",
                                      &config);
    assert_int_equal(f.requests, 4);
    assert_int_equal(f.served, 4);
    assert_int_equal(f.prompt_tokens, 100 + 130 + 42 + 100);
    assert_int_equal(f.hit_requests, 2);
    assert_int_equal(f.hit_tokens, 109 + 32);
    assert_int_equal(f.output_tokens, 13);
    assert_int_equal(f.computed_tokens, 109 + 21 + 10 + 100);
    assert_int_equal(f.steps, 10 + 3);
    assert_int_equal(f.end_us, 30025000);
    assert_int_equal(f.waited + f.refused + f.preempted, 0);
    assert_int_equal(f.evictions + f.merges, 0);
    assert_int_equal(f.peak_held, 9);
    assert_true(f.waste_pct_max > 14.2 && f.waste_pct_max < 52.4); /* 12 of 100; 22 of 42 */
}

static void test_replay_waits(void **state)
{
    (void)state;
    struct trace_replay_config config = TRACE_REPLAY_DEFAULT;
    static const char text[] = HEAD "request at=0 in=~1:64 gen=5\nrequest at=0 in=~2:64 gen=5\n"
                                    "request at=0 in=~3:64 gen=5\nrequest at=9 in=~4:600 gen=1\n";
    config.max_seqs = 2;
    struct trace_figures f = replayed(text, &config);
    assert_int_equal(f.served, 4);
    assert_int_equal(f.waited, 1);
    assert_int_equal(f.wait_us_max, 5 * 25000);
    /* Room for two prompts and no more; the last one is larger than the pool. */
    config.max_seqs = 16;
    config.num_blocks = 10;
    f = replayed(text, &config);
    assert_int_equal(f.served, 3);
    assert_int_equal(f.refused, 1);
    assert_int_equal(f.waited, 1);
    assert_int_equal(f.preempted, 0);
    /* Two prompts of 4 blocks fit, but not both of their answers: the second gives way and starts
     * again when the first is done, from what it left, and so does the third. */
    config.num_blocks = 9;
    f = replayed(text, &config);
    assert_int_equal(f.served, 3);
    assert_int_equal(f.preempted, 2);
    assert_int_equal(f.output_tokens, 15);
    assert_int_equal(f.computed_tokens, 3 * (64 + 4));
    assert_int_equal(f.peak_held, 9);
}

/* Requests that come at once and compute the same: the later ones look again. */
static void test_replay_together(void **state)
{
    (void)state;
    struct trace_replay_config config = TRACE_REPLAY_DEFAULT;
    struct trace_figures f = replayed(HEAD "segment s ~1:2000\n"
                                           "request at=0 in=s,1 gen=8\nrequest at=0 in=s,2 gen=8\n"
                                           "request at=0 in=s,3 gen=8\n",
                                      &config);
    assert_int_equal(f.served, 3);
    assert_int_equal(f.hit_requests, 2);
    assert_true(f.hit_tokens >= 2 * 1900);
    assert_true(f.peak_held < 2 * 126);
}

/* A pool without one block to spare: a request that is alone may have to give up what it found. */
static void test_replay_full_pool(void **state)
{
    (void)state;
    struct trace_replay_config config = TRACE_REPLAY_DEFAULT;
    config.num_blocks = 4;
    struct trace_figures f = replayed(HEAD "request at=0 in=~1:56 gen=1\n"
                                           "request at=9 in=~1:52,~2:12 gen=1\n"
                                           "request at=19 in=~1:52,~3:12 gen=1\n"
                                           "request at=29 in=~1:52,~3:13 gen=1\n",
                                      &config);
    assert_int_equal(f.served, 3);
    assert_int_equal(f.refused, 1);
    assert_int_equal(f.peak_held, 4);
    assert_int_equal(f.output_tokens, 3);
}

/* Every request is served once, whatever the sizes, and no step finds the pool in a wrong state. */
static void test_replay_random(void **state)
{
    (void)state;
    struct qt_random random = {qt_env_u64("QUIRE_TEST_SEED", 21)};
    for (uint32_t round = 0; round < 60; round++) {
        enum { REQUESTS = 40 };
        char text[REQUESTS * 96 + 64];
        size_t used = (size_t)snprintf(text, sizeof text, HEAD "segment s ~0:90\n");
        uint64_t output = 0;
        for (uint32_t i = 0; i < REQUESTS; i++) {
            const uint32_t gen = qt_below(&random, 30);
            output += gen;
            used += (size_t)snprintf(
                text + used, sizeof text - used, "request at=%u.%u in=%s%u,~%u:%u gen=%u id=r%u\n",
                i / 8, i % 8, i > 0 && qt_chance(&random, 60) ? "@r" : "s,",
                i > 0 ? qt_below(&random, i) : 0, i, 1 + qt_below(&random, 60), gen, i);
        }
        const struct trace_replay_config config = {
            .block_size = 1 + qt_below(&random, 24),
            .num_blocks = qt_chance(&random, 30) ? 0 : 1 + qt_below(&random, 300),
            .eviction = qt_below(&random, 2),
            .max_seqs = 1 + qt_below(&random, 8),
            .step_tokens = 8 + qt_below(&random, 100),
            .step_us = 25000};
        struct trace_figures f = replayed(text, &config);
        assert_int_equal(f.served + f.refused, REQUESTS);
        assert_true(f.hit_tokens + f.computed_tokens + f.preempted * 10000 >= f.prompt_tokens);
        assert_true(f.peak_held <= f.num_blocks && f.peak_blocks <= f.num_blocks);
        if (f.refused == 0)
            assert_int_equal(f.output_tokens, output);
        if (config.num_blocks == 0)
            assert_int_equal(f.refused + f.evictions + f.preempted, 0);
    }
}

static void test_waste(void **state)
{
    (void)state;
    double pct = 0, small_pct = 0;
    assert_int_equal(trace_measure_waste(16, &pct, NULL), QUIRE_OK);
    assert_int_equal(trace_measure_waste(1, &small_pct, NULL), QUIRE_OK);
    print_message("waste %.3f %% at P = 16\n", pct);
    assert_true(pct > 0.2 && pct < 2);
    assert_true(small_pct == 0);
}

/* ---- the simulator of quire bench evict ---- */

static double lru(const struct sim_facts *facts)
{
    return facts->now;
}

static double oracle(const struct sim_facts *facts)
{
    return -(double)facts->next_use;
}

/* Room for two paths of two blocks; a, b, a, c, b: LRU loses b for c, the oracle a. */
static void test_simulator(void **state)
{
    (void)state;
    struct sim_node nodes[] = {{0, 0}, {0, 1}, {1, 2}, {0, 1}, {3, 2}, {0, 1}, {5, 2}};
    struct sim_request requests[] = {{2, 2}, {4, 2}, {2, 2}, {6, 2}, {4, 2}};
    const struct sim_workload workload = {.nodes = nodes,
                                          .num_nodes = QT_LEN(nodes),
                                          .requests = requests,
                                          .num_requests = QT_LEN(requests),
                                          .longest = 2};
    struct sim_result result;
    assert_int_equal(sim_run(&workload, 4, lru, &result), QUIRE_OK);
    assert_int_equal(result.blocks_asked, 10);
    assert_int_equal(result.blocks_hit, 2);
    assert_int_equal(result.blocks_evicted, 4);
    assert_int_equal(sim_run(&workload, 4, oracle, &result), QUIRE_OK);
    assert_int_equal(result.blocks_hit, 4);
    /* Five blocks: LRU loses the tail of b first, and its head stays. */
    assert_int_equal(sim_run(&workload, 5, lru, &result), QUIRE_OK);
    assert_int_equal(result.blocks_hit, 3);
    assert_int_equal(sim_run(&workload, 6, lru, &result), QUIRE_OK);
    assert_int_equal(result.blocks_hit, 4);
}

static void test_workloads(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < NUM_WORKLOADS; kind++) {
        struct sim_workload a, b;
        struct sim_result known, least;
        assert_int_equal(workload_create(kind, 300, 5, &a), QUIRE_OK);
        assert_int_equal(workload_create(kind, 300, 5, &b), QUIRE_OK);
        assert_int_equal(a.num_requests, 300);
        assert_int_equal(a.num_nodes, b.num_nodes);
        assert_memory_equal(a.nodes, b.nodes, a.num_nodes * sizeof *a.nodes);
        assert_memory_equal(a.requests, b.requests, a.num_requests * sizeof *a.requests);
        for (uint32_t size = a.longest; size < 4 * a.longest; size += a.longest) {
            assert_int_equal(sim_run(&a, size, oracle, &known), QUIRE_OK);
            assert_int_equal(sim_run(&a, size, lru, &least), QUIRE_OK);
            assert_true(known.blocks_hit >= least.blocks_hit);
        }
        workload_deinit(&a);
        workload_deinit(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_made_up_tokens),
        cmocka_unit_test(test_line_ends),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_broken_lines),
        cmocka_unit_test(test_broken_names),
        cmocka_unit_test(test_empty_file),
        cmocka_unit_test(test_wrong_version),
        cmocka_unit_test(test_nul_bytes),
        cmocka_unit_test(test_token_over_the_vocabulary),
        cmocka_unit_test(test_arrivals_out_of_order),
        cmocka_unit_test(test_huge_numbers),
        cmocka_unit_test(test_long_line),
        cmocka_unit_test(test_many_names),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_replay_counts),
        cmocka_unit_test(test_replay_waits),
        cmocka_unit_test(test_replay_together),
        cmocka_unit_test(test_replay_full_pool),
        cmocka_unit_test(test_replay_random),
        cmocka_unit_test(test_waste),
        cmocka_unit_test(test_simulator),
        cmocka_unit_test(test_workloads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
