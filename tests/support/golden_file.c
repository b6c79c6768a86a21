/* golden_file.c - the goldens of a model: what a float64 forward pass computes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "golden_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void qt_golden_open(struct qt_golden *golden, const char *file)
{
    char path[1024];
    json_error_t error;
    *golden = (struct qt_golden){0};
    (void)snprintf(path, sizeof path, "%s/tests/golden/%s", QUIRE_SOURCE_DIR, file);
    golden->root = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (golden->root == NULL)
        fail_msg("%s: %s", path, error.text);
    char *slash = strrchr(path, '/');
    if (json_object_get(golden->root, "sha256") != NULL) {
        const char *name = slash + 1;
        (void)snprintf(golden->logits_name, sizeof golden->logits_name, "%.*s.logits.f32",
                       (int)strcspn(name, "."), name);
    }
    *slash = '\0';
    assert_true(strlen(path) < sizeof golden->folder);
    memcpy(golden->folder, path, strlen(path) + 1);
}

void qt_golden_close(struct qt_golden *golden)
{
    json_decref(golden->root);
}

uint32_t *qt_golden_ids(const json_t *array, uint32_t *count)
{
    *count = (uint32_t)json_array_size(array);
    uint32_t *ids = qt_alloc(*count * sizeof *ids);
    for (uint32_t i = 0; i < *count; i++)
        ids[i] = (uint32_t)json_integer_value(json_array_get(array, i));
    return ids;
}

void qt_golden_arguments(const struct qt_golden *golden, char *out, size_t size)
{
    const json_t *argv = json_object_get(golden->root, "argv");
    size_t used = 0;
    for (size_t i = 0; i < json_array_size(argv); i++)
        used += (size_t)snprintf(out + used, size - used, "%s ",
                                 json_string_value(json_array_get(argv, i)));
    used += (size_t)snprintf(out + used, size - used, "--sha256 %s",
                             json_string_value(json_object_get(golden->root, "sha256")));
    assert_true(used < size);
}

/* The f32 logits of prompt `index`; give back with qt_free. */
static float *read_logits(const struct qt_golden *golden, const char *prompt, size_t index,
                          uint32_t vocabulary)
{
    char path[700];
    if (golden->logits_name[0] != '\0')
        (void)snprintf(path, sizeof path, "%s/%s", golden->folder, golden->logits_name);
    else
        (void)snprintf(path, sizeof path, "%s/%s.logits.f32", golden->folder, prompt);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    float *logits = qt_alloc(vocabulary * sizeof *logits);
    if (golden->logits_name[0] != '\0')
        assert_int_equal(fseek(file, (long)(index * vocabulary * sizeof *logits), SEEK_SET), 0);
    assert_int_equal(fread(logits, sizeof *logits, vocabulary, file), vocabulary);
    assert_int_equal(fclose(file), 0);
    return logits;
}

/* ---- comparing ---- */

static void check_logprobs(const json_t *prompt, const struct qt_engine *engine,
                           const float *logits, const uint32_t *ids, double bound)
{
    const json_t *expected = json_object_get(prompt, "next_logprob");
    for (size_t i = 0; i < json_array_size(expected); i++) {
        double want = json_number_value(json_array_get(expected, i));
        double have = qt_logprob(logits + i * engine->vocabulary, engine->vocabulary, ids[i + 1]);
        if (!(fabs(have - want) <= bound))
            fail_msg("log-probability of token %zu is %.6f, expected %.6f", i + 1, have, want);
    }
}

/* The difference between the largest logit and the second. */
static double margin_of(const float *logits, uint32_t count)
{
    uint32_t best = qt_argmax(logits, count);
    float second = -INFINITY;
    for (uint32_t i = 0; i < count; i++)
        second = i != best && logits[i] > second ? logits[i] : second;
    return (double)logits[best] - (double)second;
}

static void check_choices(const json_t *prompt, const struct qt_engine *engine, const float *logits,
                          double margin)
{
    const json_t *expected = json_object_get(prompt, "argmax");
    for (size_t i = 0; i < json_array_size(expected); i++) {
        const float *row = logits + i * engine->vocabulary;
        uint32_t want = (uint32_t)json_integer_value(json_array_get(expected, i));
        if (margin_of(row, engine->vocabulary) > margin &&
            qt_argmax(row, engine->vocabulary) != want)
            fail_msg("the likeliest token after position %zu is %u, expected %u", i,
                     qt_argmax(row, engine->vocabulary), want);
    }
}

static void check_last(const struct qt_engine *engine, const float *have, const float *want,
                       double bound)
{
    for (uint32_t i = 0; i < engine->vocabulary; i++)
        if (!(fabs((double)have[i] - (double)want[i]) <= bound))
            fail_msg("the last logit %u is %.6f, expected %.6f", i, (double)have[i],
                     (double)want[i]);
}

/* Follows the golden continuation, whatever this model would choose where the choice is close. */
static void check_greedy(const json_t *prompt, struct qt_engine *engine, const uint32_t *ids,
                         uint32_t count, double margin)
{
    const json_t *greedy = json_object_get(prompt, "greedy");
    float *logits = qt_alloc(engine->vocabulary * sizeof *logits);
    quire_seq seq;
    assert_int_equal(quire_seq_create(engine->pool, NULL, &seq), QUIRE_OK);
    for (size_t i = 0; i < json_array_size(greedy); i++) {
        if (i == 0) {
            qt_engine_append(engine, seq, ids, count, logits);
        } else {
            const json_t *before = json_array_get(json_array_get(greedy, i - 1), 0);
            uint32_t token = (uint32_t)json_integer_value(before);
            qt_engine_append(engine, seq, &token, 1, logits);
        }
        const json_t *choice = json_array_get(greedy, i);
        uint32_t want = (uint32_t)json_integer_value(json_array_get(choice, 0));
        if (json_number_value(json_array_get(choice, 1)) > margin &&
            qt_argmax(logits, engine->vocabulary) != want)
            fail_msg("greedy token %zu is %u, expected %u", i,
                     qt_argmax(logits, engine->vocabulary), want);
    }
    assert_int_equal(quire_seq_destroy(engine->pool, seq), QUIRE_OK);
    qt_free(logits);
}

void qt_golden_check(const struct qt_golden *golden, struct qt_engine *engine, double bound,
                     double margin)
{
    const json_t *prompts = json_object_get(golden->root, "prompts");
    assert_true(json_array_size(prompts) > 0);
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        const json_t *prompt = json_array_get(prompts, i);
        const char *name = json_string_value(json_object_get(prompt, "name"));
        uint32_t count = 0;
        uint32_t *ids = qt_golden_ids(json_object_get(prompt, "ids"), &count);
        float *logits = qt_engine_logits(engine, ids, count, QT_WHOLE);
        float *want = read_logits(golden, name, i, engine->vocabulary);
        check_last(engine, logits + (size_t)(count - 1) * engine->vocabulary, want, bound);
        check_logprobs(prompt, engine, logits, ids, bound);
        check_choices(prompt, engine, logits, margin);
        check_greedy(prompt, engine, ids, count, margin);
        qt_free(want);
        qt_free(logits);
        qt_free(ids);
    }
}

/* ---- the long text ---- */

struct likelihood {
    const uint32_t *ids;
    uint32_t count, first, vocabulary;
    double sum;
};

static quire_status add_rows(void *context, const struct quire__logits *logits)
{
    struct likelihood *l = context;
    for (uint32_t i = 0; i < logits->count; i++) {
        uint32_t next = l->first + logits->token + i + 1;
        if (next < l->count)
            l->sum -=
                qt_logprob(logits->values + (size_t)i * l->vocabulary, l->vocabulary, l->ids[next]);
    }
    return QUIRE_OK;
}

void qt_golden_check_nll(const struct qt_golden *golden, struct qt_engine *engine, double part)
{
    const json_t *text = json_array_get(json_object_get(golden->root, "nll"), 0);
    const double want = json_number_value(json_object_get(text, "mean_nll"));
    struct quire_error error = {0};
    struct likelihood l = {.vocabulary = engine->vocabulary};
    uint32_t *ids = qt_golden_ids(json_object_get(text, "ids"), &l.count);
    assert_int_equal(l.count, json_integer_value(json_object_get(text, "n")));
    l.ids = ids;
    quire_seq seq;
    assert_int_equal(quire_seq_create(engine->pool, NULL, &seq), QUIRE_OK);
    while (l.first < l.count) {
        uint32_t left = l.count - l.first;
        struct quire__batch_item item = {.seq = seq,
                                         .tokens = ids + l.first,
                                         .count =
                                             left < engine->max_tokens ? left : engine->max_tokens,
                                         .want = QUIRE__WANT_ALL};
        struct quire__batch batch = {
            .items = &item, .num_items = 1, .logits = add_rows, .context = &l};
        if (quire__runner_step(engine->runner, &batch, &error) != QUIRE_OK)
            fail_msg("%s", error.message);
        l.first += item.count;
    }
    double mean = l.sum / (l.count - 1);
    if (!(fabs(mean / want - 1.0) <= part))
        fail_msg("mean NLL is %.6f, expected %.6f within %.2g", mean, want, part);
    assert_int_equal(quire_seq_destroy(engine->pool, seq), QUIRE_OK);
    qt_free(ids);
}
