/* compare.c - runs formats of K/V side by side: the same few positions in each, then the next.
 * SPDX-License-Identifier: Apache-2.0
 *
 * How a text is cut into steps does not change a bit of the logits, so that steps can be as small
 * as what is kept of the first format allows. The divergence is that of Kullback and Leibler from
 * the first format's distribution p: sum p (log p - log q). */
#include "quire/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quire/console.h"

enum { ROWS_MAX = 128, KEPT_BYTES_MAX = 32 << 20 };

/* ---- making ---- */

static int parse_one(struct compare *self, const char *name)
{
    struct compare_format *format = &self->formats[self->count];
    if (self->count == COMPARE_MAX) {
        cli_error("eval: --compare takes at most %d formats", COMPARE_MAX);
        return CLI_BAD_USAGE;
    }
    if (!cli_read_dtypes(name, format->options.dtypes)) {
        cli_error("eval: --compare has \"%s\", expected f32, f16, bf16, q8 or q4, or two of them "
                  "for K and V, as in q8,q4",
                  name);
        return CLI_BAD_USAGE;
    }
    memcpy(format->name, name, strlen(name) + 1);
    self->count++;
    return CLI_OK;
}

int compare_parse(struct compare *self, const char *list)
{
    int result = CLI_OK;
    while (result == CLI_OK && *(list += strspn(list, " ")) != '\0') {
        char name[sizeof self->formats[0].name] = "";
        size_t length = strcspn(list, " ");
        memcpy(name, list, length < sizeof name ? length : sizeof name - 1);
        result = parse_one(self, name);
        list += length;
    }
    if (result == CLI_OK && self->count < 2) {
        cli_error("eval: --compare needs two formats or more, as in --compare \"f16 q8 q8,q4 q4\"");
        return CLI_BAD_USAGE;
    }
    return result;
}

static int open_format(struct compare *self, struct compare_format *format,
                       const struct engine *engine)
{
    const uint32_t dtypes[2] = {format->options.dtypes[0], format->options.dtypes[1]};
    struct quire_pool_config config;
    uint64_t block_bytes;
    format->options = *engine->options;
    memcpy(format->options.dtypes, dtypes, sizeof dtypes);
    format->engine = *engine;
    format->engine.options = &format->options;
    int result = engine_open_pool(&format->engine, 1);
    if (result != CLI_OK)
        return result;
    quire_pool_config_init(&config);
    config.groups = quire__model_groups(engine->model, &config.num_groups);
    config.dtype_k = dtypes[0];
    config.dtype_v = dtypes[1];
    QUIRE_CHECK(quire_pool_measure(&config, &block_bytes, &format->position_bytes) == QUIRE_OK);
    format->divergences = quire__calloc(self->tokens_max, sizeof *format->divergences);
    if (format->divergences != NULL)
        return CLI_OK;
    cli_error("no memory for the figures of %llu tokens", (unsigned long long)self->tokens_max);
    return CLI_BAD_DATA;
}

int compare_open(struct compare *self, const struct engine *engine, uint64_t tokens_max)
{
    self->vocabulary = quire__model_shapes(engine->model)->vocabulary;
    self->tokens_max = tokens_max != 0 ? tokens_max : 1;
    uint64_t row_bytes = (uint64_t)self->vocabulary * sizeof(float), rows = ROWS_MAX;
    if (rows * row_bytes > KEPT_BYTES_MAX)
        rows = KEPT_BYTES_MAX / row_bytes;
    self->rows = rows != 0 ? (uint32_t)rows : 1;
    self->logits = quire__calloc(self->rows, row_bytes);
    self->weights = quire__calloc(self->rows, row_bytes);
    self->denominators = quire__calloc(self->rows, sizeof *self->denominators);
    self->best = quire__calloc(self->rows, sizeof *self->best);
    if (self->logits == NULL || self->weights == NULL || self->denominators == NULL ||
        self->best == NULL) {
        cli_error("no memory for the logits of %u positions", self->rows);
        return CLI_BAD_DATA;
    }
    int result = CLI_OK;
    for (uint32_t i = 0; i < self->count && result == CLI_OK; i++)
        result = open_format(self, &self->formats[i], engine);
    return result;
}

void compare_close(struct compare *self)
{
    for (uint32_t i = 0; i < self->count; i++) {
        engine_close_pool(&self->formats[i].engine);
        quire__free(self->formats[i].divergences);
    }
    quire__free(self->logits);
    quire__free(self->weights);
    quire__free(self->denominators);
    quire__free(self->best);
}

/* ---- computing ---- */

double compare_denominator(const float *logits, uint32_t count)
{
    float largest = logits[0];
    for (uint32_t i = 1; i < count; i++)
        largest = logits[i] > largest ? logits[i] : largest;
    double sum = exp((double)logits[0] - (double)largest);
    for (uint32_t i = 1; i < count; i++)
        sum += exp((double)logits[i] - (double)largest);
    return (double)largest + log(sum);
}

static uint32_t likeliest(const float *logits, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* Keeps a row of the first format. */
static void keep(struct compare *self, uint32_t row, const float *logits)
{
    const uint32_t v = self->vocabulary;
    double denominator = compare_denominator(logits, v);
    float *weights = self->weights + (size_t)row * v;
    memcpy(self->logits + (size_t)row * v, logits, v * sizeof *logits);
    for (uint32_t i = 0; i < v; i++)
        weights[i] = expf((float)((double)logits[i] - denominator));
    self->denominators[row] = denominator;
    self->best[row] = likeliest(logits, v);
}

/* sum p (log p - log q); rounding can leave a little less than 0 where both are alike. */
static double divergence_of(const struct compare *self, uint32_t row, const float *logits,
                            double denominator)
{
    const uint32_t v = self->vocabulary;
    const float *first = self->logits + (size_t)row * v, *weights = self->weights + (size_t)row * v;
    double sum = 0.0, total = 0.0;
    for (uint32_t i = 0; i < v; i++) {
        sum += (double)weights[i] * ((double)first[i] - (double)logits[i]);
        total += (double)weights[i];
    }
    double divergence = sum / total + denominator - self->denominators[row];
    return divergence > 0.0 ? divergence : 0.0;
}

static quire_status take_logits(void *context, const struct quire__logits *logits)
{
    struct compare *self = context;
    struct compare_format *format = self->taker;
    const uint64_t started = quire__now_ns();
    for (uint32_t i = 0; i < logits->count; i++) {
        const float *values = logits->values + (size_t)i * self->vocabulary;
        const uint32_t row = logits->token + i, next = self->at + row + 1;
        if (next == self->chunk_count)
            continue;
        if (format == self->formats)
            keep(self, row, values);
        double denominator = format == self->formats
                                 ? self->denominators[row]
                                 : compare_denominator(values, self->vocabulary);
        double divergence = divergence_of(self, row, values, denominator);
        format->nll += denominator - (double)values[self->chunk[next]];
        format->divergence += divergence;
        format->divergences[self->tokens + row] = (float)divergence;
        format->same_best += likeliest(values, self->vocabulary) == self->best[row];
    }
    format->ns -= quire__now_ns() - started;
    return QUIRE_OK;
}

/* The same positions in every format. */
static quire_status compare_rows(struct compare *self, uint32_t count, struct quire_error *error)
{
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < self->count && status == QUIRE_OK; i++) {
        struct compare_format *format = &self->formats[i];
        struct engine_feed feed = {.seq = format->seq,
                                   .tokens = self->chunk + self->at,
                                   .count = count,
                                   .want = QUIRE__WANT_ALL,
                                   .logits = take_logits,
                                   .context = self};
        const uint64_t started = quire__now_ns();
        self->taker = format;
        status = engine_feed_tokens(&format->engine, &feed, error);
        format->ns += quire__now_ns() - started;
    }
    self->at += count;
    self->tokens += self->at == self->chunk_count ? count - 1 : count;
    return status;
}

int compare_chunk(struct compare *self, const uint32_t *tokens, uint32_t count)
{
    struct quire_error error;
    quire_status status = QUIRE_OK;
    struct cli_progress progress;
    self->chunk = tokens;
    self->chunk_count = count;
    self->at = 0;
    for (uint32_t i = 0; i < self->count && status == QUIRE_OK; i++)
        status = quire_seq_create(self->formats[i].engine.pool, NULL, &self->formats[i].seq);
    if (status != QUIRE_OK) {
        cli_error("cannot start a sequence");
        return CLI_BAD_DATA;
    }
    cli_progress_begin(&progress, "comparing");
    while (self->at < count && status == QUIRE_OK) {
        uint32_t left = count - self->at;
        status = compare_rows(self, left < self->rows ? left : self->rows, &error);
        cli_progress_update(&progress, self->at, count);
    }
    cli_progress_end(&progress);
    for (uint32_t i = 0; i < self->count; i++)
        (void)quire_seq_destroy(self->formats[i].engine.pool, self->formats[i].seq);
    return status == QUIRE_OK ? CLI_OK : cli_fail(&error);
}
