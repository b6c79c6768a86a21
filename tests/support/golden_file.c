/* golden_file.c - the goldens of a model: what a float64 forward pass computes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "golden_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/kernels.h"

/* What products of bf16 may add. Each factor is off by at most 2^-8 of itself, one way or the
 * other; through 30 layers that has moved a log-probability of SmolLM2 by 0.34 at most and by 0.015
 * in the mean, and the mean NLL by 0.005 %. */
#define ROUNDED_BOUND 0.6
#define ROUNDED_PART  3e-3
#define MEAN_BOUND    0.03 /* of log-probabilities at every level */

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

/* The difference between the largest logit and the second. */
static double margin_of(const float *logits, uint32_t count)
{
    uint32_t best = qt_argmax(logits, count);
    float second = -INFINITY;
    for (uint32_t i = 0; i < count; i++)
        second = i != best && logits[i] > second ? logits[i] : second;
    return (double)logits[best] - (double)second;
}

/* What the rows of a prompt are compared with. */
struct comparison {
    const json_t *prompt;
    const uint32_t *ids;
    uint32_t first, vocabulary; /* position of the step's first row */
    double bound, margin;
    float *last;        /* [V] the last row so far */
    double differences; /* of log-probabilities, their sizes added */
    uint32_t compared;
};

static void check_row(struct comparison *c, const float *row, uint32_t at)
{
    const json_t *logprob = json_array_get(json_object_get(c->prompt, "next_logprob"), at);
    if (logprob != NULL) {
        double want = json_number_value(logprob);
        double have = qt_logprob(row, c->vocabulary, c->ids[at + 1]);
        c->differences += fabs(have - want);
        c->compared++;
        if (!(fabs(have - want) <= c->bound))
            fail_msg("log-probability of token %u is %.6f, expected %.6f", at + 1, have, want);
    }
    const json_t *argmax = json_array_get(json_object_get(c->prompt, "argmax"), at);
    uint32_t want = (uint32_t)json_integer_value(argmax);
    if (argmax == NULL)
        fail_msg("no golden choice after position %u", at);
    if (margin_of(row, c->vocabulary) > c->margin && qt_argmax(row, c->vocabulary) != want)
        fail_msg("the likeliest token after position %u is %u, expected %u", at,
                 qt_argmax(row, c->vocabulary), want);
}

static quire_status check_rows(void *context, const struct quire__logits *logits)
{
    struct comparison *c = context;
    const size_t width = c->vocabulary;
    for (uint32_t i = 0; i < logits->count; i++)
        check_row(c, logits->values + i * width, c->first + logits->token + i);
    memcpy(c->last, logits->values + (logits->count - 1) * width, width * sizeof(float));
    return QUIRE_OK;
}

/* All of the last row, or its largest logits and the logarithm of the sum of their exponentials. */
static void check_last(const struct qt_golden *golden, const struct comparison *c, size_t index)
{
    const json_t *top = json_object_get(c->prompt, "top");
    const char *name = json_string_value(json_object_get(c->prompt, "name"));
    float *want = top == NULL ? read_logits(golden, name, index, c->vocabulary) : NULL;
    const uint32_t count = top == NULL ? c->vocabulary : (uint32_t)json_array_size(top);
    assert_true(count > 0);
    for (uint32_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(top, i);
        uint32_t id = top == NULL ? i : (uint32_t)json_integer_value(json_array_get(pair, 0));
        double value = top == NULL ? (double)want[i] : json_number_value(json_array_get(pair, 1));
        if (!(fabs((double)c->last[id] - value) <= c->bound))
            fail_msg("the last logit %u is %.6f, expected %.6f", id, (double)c->last[id], value);
    }
    if (top != NULL) {
        double lse = json_number_value(json_object_get(c->prompt, "lse"));
        double have = (double)c->last[0] - qt_logprob(c->last, c->vocabulary, 0);
        if (!(fabs(have - lse) <= c->bound))
            fail_msg("the logarithm of the sum is %.6f, expected %.6f", have, lse);
    }
    qt_free(want);
}

/* Feeds ids to a new sequence in steps as long as the runner takes; *first is the position of a
 * step's first row while it runs. */
static void feed(struct qt_engine *engine, const uint32_t *ids, uint32_t count,
                 struct quire__batch *batch, uint32_t *first)
{
    struct quire_error error = {0};
    quire_seq seq;
    assert_int_equal(quire_seq_create(engine->pool, NULL, &seq), QUIRE_OK);
    for (*first = 0; *first < count;) {
        uint32_t left = count - *first;
        struct quire__batch_item item = {.seq = seq,
                                         .tokens = ids + *first,
                                         .count =
                                             left < engine->max_tokens ? left : engine->max_tokens,
                                         .want = QUIRE__WANT_ALL};
        batch->items = &item;
        batch->num_items = 1;
        if (quire__runner_step(engine->runner, batch, &error) != QUIRE_OK)
            fail_msg("%s", error.message);
        *first += item.count;
    }
    assert_int_equal(quire_seq_destroy(engine->pool, seq), QUIRE_OK);
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

/* Whether weights and activations are rounded to bf16 before they are multiplied. */
static bool rounds(const struct qt_engine *engine)
{
    const char *arithmetic = engine->backend->caps.arithmetic;
    const struct quire__kernels *kernels;
    for (uint32_t i = 0; (kernels = quire__kernels_at(i)) != NULL; i++) {
        if (strcmp(kernels->arithmetic, arithmetic) == 0)
            return kernels->products == QUIRE_BF16;
    }
    return false;
}

void qt_golden_check(const struct qt_golden *golden, struct qt_engine *engine, double bound,
                     double margin)
{
    const json_t *prompts = json_object_get(golden->root, "prompts");
    assert_true(json_array_size(prompts) > 0);
    struct comparison c = {.vocabulary = engine->vocabulary, .bound = bound, .margin = margin};
    if (rounds(engine)) {
        c.bound += ROUNDED_BOUND;
        c.margin += ROUNDED_BOUND;
    }
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        const json_t *prompt = json_array_get(prompts, i);
        uint32_t count = 0;
        uint32_t *ids = qt_golden_ids(json_object_get(prompt, "ids"), &count);
        c.prompt = prompt;
        c.ids = ids;
        c.last = qt_alloc(engine->vocabulary * sizeof(float));
        struct quire__batch batch = {.logits = check_rows, .context = &c};
        feed(engine, ids, count, &batch, &c.first);
        check_last(golden, &c, i);
        check_greedy(prompt, engine, ids, count, c.margin);
        qt_free(c.last);
        qt_free(ids);
    }
    double mean = c.differences / c.compared;
    if (!(mean <= MEAN_BOUND))
        fail_msg("log-probabilities differ by %.4f in the mean", mean);
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
    struct likelihood l = {.vocabulary = engine->vocabulary};
    uint32_t *ids = qt_golden_ids(json_object_get(text, "ids"), &l.count);
    assert_int_equal(l.count, json_integer_value(json_object_get(text, "n")));
    l.ids = ids;
    struct quire__batch batch = {.logits = add_rows, .context = &l};
    feed(engine, ids, l.count, &batch, &l.first);
    double mean = l.sum / (l.count - 1);
    part = rounds(engine) ? ROUNDED_PART : part;
    if (!(fabs(mean / want - 1.0) <= part))
        fail_msg("mean NLL is %.6f, expected %.6f within %.2g", mean, want, part);
    qt_free(ids);
}
