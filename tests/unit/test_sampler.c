/* test_sampler.c - every filter against a plain version of its definition; ties, seeds, bad input.
 * SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "model/sampler.h"
#include "support.h"

#define VOCABULARY 97u
#define DRAWS      20000u

static struct quire__sampler_config all_off(void)
{
    return (struct quire__sampler_config){
        .temperature = 1.0, .top_p = 1.0, .repeat_penalty = 1.0, .seed = 5};
}

static struct quire__sampler *make(const struct quire__sampler_config *config, uint32_t vocabulary)
{
    struct quire__sampler *sampler = NULL;
    struct quire_error error = {0};
    if (quire__sampler_create(config, vocabulary, &sampler, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
    return sampler;
}

static uint32_t pick(struct quire__sampler *sampler, const float *logits)
{
    uint32_t token = UINT32_MAX;
    struct quire_error error = {0};
    assert_int_equal(quire__sampler_pick(sampler, logits, &token, &error), QUIRE_OK);
    return token;
}

static void random_logits(uint64_t seed, float *logits, uint32_t count)
{
    struct qt_random random = {seed};
    for (uint32_t i = 0; i < count; i++)
        logits[i] = 6.0f * qt_unit(qt_next(&random));
}

/* ---- a plain version: probabilities after every filter in turn ---- */

struct plain {
    uint32_t id;
    double logit;
};

static int likelier(const void *a, const void *b)
{
    const struct plain *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static uint32_t head_of_mass(const struct plain *sorted, uint32_t n, double top_p)
{
    double total = 0.0, sum = 0.0;
    for (uint32_t i = 0; i < n; i++)
        total += exp(sorted[i].logit - sorted[0].logit);
    for (uint32_t i = 0; i < n; i++) {
        sum += exp(sorted[i].logit - sorted[0].logit) / total;
        if (sum >= top_p)
            return i + 1;
    }
    return n;
}

/* Fills probabilities [VOCABULARY]; returns how many tokens are left. */
static uint32_t expected(const struct quire__sampler_config *config, const float *logits,
                         const bool *recent, double *probabilities)
{
    struct plain sorted[VOCABULARY];
    for (uint32_t i = 0; i < VOCABULARY; i++) {
        double logit = (double)logits[i];
        if (recent != NULL && recent[i])
            logit = logit > 0 ? logit / config->repeat_penalty : logit * config->repeat_penalty;
        sorted[i] = (struct plain){.id = i, .logit = logit};
        probabilities[i] = 0.0;
    }
    qsort(sorted, VOCABULARY, sizeof *sorted, likelier);
    uint32_t n = VOCABULARY;
    if (config->top_k != 0 && config->top_k < n)
        n = config->top_k;
    if (config->top_p < 1.0)
        n = head_of_mass(sorted, n, config->top_p);
    uint32_t kept = 1;
    while (kept < n && exp(sorted[kept].logit - sorted[0].logit) >= config->min_p)
        kept++;
    double total = 0.0;
    for (uint32_t i = 0; i < kept; i++)
        total += exp((sorted[i].logit - sorted[0].logit) / config->temperature);
    for (uint32_t i = 0; i < kept; i++)
        probabilities[sorted[i].id] =
            exp((sorted[i].logit - sorted[0].logit) / config->temperature) / total;
    return kept;
}

/* Draws often: nothing that the filters remove may come, and everything else as often as its
 * probability says, within five standard deviations. */
static void check_frequencies(const struct quire__sampler_config *config, const float *logits)
{
    double probabilities[VOCABULARY];
    uint32_t counts[VOCABULARY] = {0};
    expected(config, logits, NULL, probabilities);
    struct quire__sampler *sampler = make(config, VOCABULARY);
    for (uint32_t i = 0; i < DRAWS; i++)
        counts[pick(sampler, logits)]++;
    for (uint32_t i = 0; i < VOCABULARY; i++) {
        double p = probabilities[i], deviation = sqrt(DRAWS * p * (1 - p));
        if (p == 0.0)
            assert_int_equal(counts[i], 0);
        else if (fabs(counts[i] - DRAWS * p) > 5 * deviation + 1)
            fail_msg("token %u came %u times, expected %.0f +- %.0f", i, counts[i], DRAWS * p,
                     deviation);
    }
    quire__sampler_destroy(sampler);
}

static void test_frequencies(void **state)
{
    (void)state;
    static const struct quire__sampler_config configs[] = {
        {.temperature = 1.0, .top_p = 1.0, .repeat_penalty = 1.0},
        {.temperature = 0.5, .top_p = 1.0, .repeat_penalty = 1.0},
        {.temperature = 2.0, .top_p = 1.0, .repeat_penalty = 1.0},
        {.temperature = 1.0, .top_k = 7, .top_p = 1.0, .repeat_penalty = 1.0},
        {.temperature = 1.0, .top_k = VOCABULARY, .top_p = 1.0, .repeat_penalty = 1.0},
        {.temperature = 1.0, .top_p = 0.7, .repeat_penalty = 1.0},
        {.temperature = 1.0, .top_p = 1.0, .min_p = 0.2, .repeat_penalty = 1.0},
        {.temperature = 3.0, .top_k = 40, .top_p = 0.8, .min_p = 0.05, .repeat_penalty = 1.0},
        {.temperature = 0.8, .top_k = 5, .top_p = 0.99, .min_p = 0.9, .repeat_penalty = 1.0},
    };
    float logits[VOCABULARY];
    for (size_t i = 0; i < QT_LEN(configs); i++) {
        random_logits(i, logits, VOCABULARY);
        check_frequencies(&configs[i], logits);
    }
}

/* The set of tokens that can come, for many random logits and filters. */
static void test_kept_sets(void **state)
{
    (void)state;
    float logits[VOCABULARY];
    double probabilities[VOCABULARY];
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct qt_random random = {seed + 1000};
        struct quire__sampler_config config = all_off();
        config.temperature = 50.0; /* nearly even, so that all that is left comes soon */
        config.top_k = qt_below(&random, 12);
        config.top_p = qt_chance(&random, 50) ? 1.0 : 0.3 + 0.01 * qt_below(&random, 65);
        config.min_p = qt_chance(&random, 50) ? 0.0 : 0.01 * qt_below(&random, 60);
        config.seed = seed;
        random_logits(seed, logits, VOCABULARY);
        uint32_t kept = expected(&config, logits, NULL, probabilities);
        struct quire__sampler *sampler = make(&config, VOCABULARY);
        bool seen[VOCABULARY] = {false};
        uint32_t distinct = 0;
        for (uint32_t i = 0; i < 60 * kept; i++) {
            uint32_t token = pick(sampler, logits);
            assert_true(probabilities[token] > 0.0);
            distinct += !seen[token];
            seen[token] = true;
        }
        assert_int_equal(distinct, kept);
        quire__sampler_destroy(sampler);
    }
}

/* ---- single properties ---- */

static void test_greedy(void **state)
{
    (void)state;
    float logits[VOCABULARY];
    struct quire__sampler_config config = all_off();
    config.temperature = 0.0;
    struct quire__sampler *sampler = make(&config, VOCABULARY);
    for (uint64_t seed = 0; seed < 50; seed++) {
        random_logits(seed, logits, VOCABULARY);
        uint32_t best = 0;
        for (uint32_t i = 0; i < VOCABULARY; i++)
            best = logits[i] > logits[best] ? i : best;
        assert_int_equal(pick(sampler, logits), best);
        logits[best == 0 ? 1 : 0] = logits[best]; /* of equals the lowest id */
        assert_int_equal(pick(sampler, logits), 0);
    }
    quire__sampler_destroy(sampler);
}

/* Equal logits at the edge of top-k: the lower ids stay. */
static void test_top_k_ties(void **state)
{
    (void)state;
    float logits[VOCABULARY] = {0};
    struct quire__sampler_config config = all_off();
    config.top_k = 3;
    struct quire__sampler *sampler = make(&config, VOCABULARY);
    for (int i = 0; i < 200; i++)
        assert_true(pick(sampler, logits) < 3);
    logits[50] = 0.1f;
    for (int i = 0; i < 200; i++) {
        uint32_t token = pick(sampler, logits);
        assert_true(token == 50 || token < 2);
    }
    quire__sampler_destroy(sampler);
}

static void test_penalty(void **state)
{
    (void)state;
    struct quire__sampler_config config = all_off();
    config.temperature = 0.0;
    config.repeat_penalty = 2.0;
    const float logits[4] = {1.0f, 1.9f, -1.0f, -1.5f};
    struct quire__sampler *sampler = make(&config, 4);
    assert_int_equal(pick(sampler, logits), 1);
    quire__sampler_accept(sampler, 1); /* 1.9 becomes 0.95 */
    quire__sampler_accept(sampler, 1); /* and is not halved again */
    assert_int_equal(pick(sampler, logits), 0);
    quire__sampler_accept(sampler, 0); /* 1.0 becomes 0.5, under 0.95 */
    assert_int_equal(pick(sampler, logits), 1);
    for (uint32_t i = 0; i < QUIRE__REPEAT_WINDOW; i++)
        quire__sampler_accept(sampler, 2); /* 0 and 1 leave the window */
    assert_int_equal(pick(sampler, logits), 1);
    quire__sampler_accept(sampler, 4); /* no token of the vocabulary */
    assert_int_equal(pick(sampler, logits), 1);
    const float negative[4] = {-9.0f, -9.0f, -1.0f, -1.5f};
    assert_int_equal(pick(sampler, negative), 3); /* -1 becomes -2 */
    quire__sampler_destroy(sampler);
}

enum { WIDE = 1003 }; /* many times what is passed over at once, and a rest */

/* Sorts the penalised logits, equal ones among them; recent tokens are id 3, 14, 25, ... */
static void plain_order(const float *logits, double penalty, struct plain *sorted)
{
    for (uint32_t i = 0; i < WIDE; i++) {
        double logit = (double)logits[i];
        bool recent = i % 11 == 3 && i / 11 < QUIRE__REPEAT_WINDOW;
        if (recent && isfinite(logit))
            logit = logit > 0.0 ? logit / penalty : logit * penalty;
        sorted[i] = (struct plain){i, isfinite(logit) ? logit : -1e300};
    }
    qsort(sorted, WIDE, sizeof *sorted, likelier);
}

/* The k likeliest are found in a wide vocabulary, whatever the penalty does to recent ones. */
static void test_top_k_of_many(void **state)
{
    (void)state;
    static const double penalties[] = {1.0, 0.5, 1.3, 3.0};
    static const uint32_t tops[] = {1, 2, 7, 40};
    float logits[WIDE];
    struct plain sorted[WIDE];
    for (uint32_t round = 0; round < 64; round++) {
        struct quire__sampler_config config = all_off();
        const uint32_t k = tops[round / 4 % 4];
        config.repeat_penalty = penalties[round % 4];
        config.temperature = round % 2 == 0 ? 1e3 : 0.0;
        config.top_k = k;
        random_logits(round, logits, WIDE);
        for (uint32_t i = 0; i < WIDE; i++)
            logits[i] = round % 3 == 0   ? roundf(4 * logits[i]) /* many are equal */
                        : round % 7 == 0 ? 0.0f                  /* all are */
                                         : logits[i];
        logits[round] = NAN;
        logits[WIDE - 1 - round] = round % 5 == 0 ? INFINITY : -INFINITY;
        struct quire__sampler *sampler = make(&config, WIDE);
        for (uint32_t i = 0; i < 2 * QUIRE__REPEAT_WINDOW; i++) /* the ring goes around */
            quire__sampler_accept(sampler, i % QUIRE__REPEAT_WINDOW * 11 + 3);
        plain_order(logits, config.repeat_penalty, sorted);
        uint32_t seen[40] = {0}, draws = config.temperature == 0.0 ? 3 : 40 * k;
        for (uint32_t d = 0; d < draws; d++) {
            uint32_t token = pick(sampler, logits), at = 0;
            while (at < k && sorted[at].id != token)
                at++;
            assert_true(at < (config.temperature == 0.0 ? 1 : k));
            seen[at]++;
        }
        for (uint32_t at = 0; at < k && config.temperature != 0.0; at++)
            assert_true(seen[at] > 0); /* missed by chance once in exp(40) */
        quire__sampler_destroy(sampler);
    }
}

static void test_seed(void **state)
{
    (void)state;
    float logits[VOCABULARY];
    random_logits(1, logits, VOCABULARY);
    struct quire__sampler_config config = all_off();
    struct quire__sampler *a = make(&config, VOCABULARY), *b = make(&config, VOCABULARY);
    config.seed++;
    struct quire__sampler *other = make(&config, VOCABULARY);
    uint32_t different = 0;
    for (int i = 0; i < 500; i++) {
        uint32_t token = pick(a, logits);
        assert_int_equal(pick(b, logits), token);
        different += pick(other, logits) != token;
    }
    assert_true(different > 100);
    quire__sampler_destroy(a);
    quire__sampler_destroy(b);
    quire__sampler_destroy(other);
}

/* The first draws of one seed, computed apart from this code: a seed that somebody wrote down goes
 * on giving its text. */
static void test_seed_stays(void **state)
{
    (void)state;
    static const uint32_t drawn[8] = {47, 10, 17, 22, 2, 55, 13, 51};
    float logits[64] = {0};
    struct quire__sampler_config config = all_off();
    config.seed = 42;
    struct quire__sampler *sampler = make(&config, 64);
    for (uint32_t i = 0; i < QT_LEN(drawn); i++)
        assert_int_equal(pick(sampler, logits), drawn[i]);
    quire__sampler_destroy(sampler);
}

static void test_not_numbers(void **state)
{
    (void)state;
    float logits[4] = {NAN, 1.0f, -INFINITY, NAN};
    struct quire__sampler_config config = all_off();
    struct quire__sampler *sampler = make(&config, 4);
    struct quire_error error = {0};
    uint32_t token = 9;
    for (int i = 0; i < 20; i++)
        assert_int_equal(pick(sampler, logits), 1);
    logits[1] = INFINITY;
    assert_int_equal(quire__sampler_pick(sampler, logits, &token, &error), QUIRE_E_CORRUPT);
    assert_int_equal(token, 9);
    assert_true(strlen(error.message) > 0);
    quire__sampler_destroy(sampler);
}

static void test_bad_config(void **state)
{
    (void)state;
    struct quire__sampler *sampler = NULL;
    struct quire_error error = {0};
    struct quire__sampler_config configs[9];
    for (size_t i = 0; i < QT_LEN(configs); i++)
        configs[i] = all_off();
    configs[0].temperature = -0.1;
    configs[1].temperature = NAN;
    configs[2].temperature = INFINITY;
    configs[3].top_p = 0.0;
    configs[4].top_p = 1.5;
    configs[5].min_p = -0.5;
    configs[6].min_p = NAN;
    configs[7].repeat_penalty = 0.0;
    configs[8].repeat_penalty = NAN;
    for (size_t i = 0; i < QT_LEN(configs); i++)
        assert_int_equal(quire__sampler_create(&configs[i], 4, &sampler, &error), QUIRE_E_INVAL);
    struct quire__sampler_config good;
    quire__sampler_config_init(&good);
    assert_int_equal(quire__sampler_create(&good, 0, &sampler, &error), QUIRE_E_INVAL);
    for (int64_t n = 0; n < 2; n++) {
        quire__alloc_fail_after(n, false);
        assert_int_equal(quire__sampler_create(&good, 4, &sampler, &error), QUIRE_E_NOMEM);
    }
    quire__alloc_fail_after(-1, false);
    assert_null(sampler);
    quire__sampler_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frequencies),   cmocka_unit_test(test_kept_sets),
        cmocka_unit_test(test_greedy),        cmocka_unit_test(test_top_k_ties),
        cmocka_unit_test(test_top_k_of_many), cmocka_unit_test(test_penalty),
        cmocka_unit_test(test_seed),          cmocka_unit_test(test_seed_stays),
        cmocka_unit_test(test_not_numbers),   cmocka_unit_test(test_bad_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
