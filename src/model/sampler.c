/* sampler.c - the filters and the draw behind the next token.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SCAN = 32 }; /* logits that are passed over at a time */

struct candidate {
    double logit;
    double weight; /* exp(logit - the largest logit): a probability without its denominator */
    uint32_t id;
};

struct quire__sampler {
    struct quire__sampler_config config;
    uint32_t vocabulary;
    uint64_t random_state;
    struct candidate *candidates; /* [vocabulary] */
    uint32_t recent[QUIRE__REPEAT_WINDOW];
    uint32_t num_recent, next_recent; /* recent is a ring */
};

void quire__sampler_config_init(struct quire__sampler_config *config)
{
    *config = (struct quire__sampler_config){
        .temperature = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.05, .repeat_penalty = 1.0};
}

quire_status quire__sampler_create(const struct quire__sampler_config *config, uint32_t vocabulary,
                                   struct quire__sampler **out, struct quire_error *error)
{
    bool valid = isfinite(config->temperature) && config->temperature >= 0.0 &&
                 isfinite(config->repeat_penalty) && config->repeat_penalty > 0.0 &&
                 config->top_p > 0.0 && config->top_p <= 1.0 && config->min_p >= 0.0 &&
                 config->min_p <= 1.0 && vocabulary > 0;
    if (!valid)
        return quire__fail(error, QUIRE_E_INVAL, "a sampling option is out of its range");
    struct quire__sampler *sampler = quire__calloc(1, sizeof *sampler);
    struct candidate *candidates = quire__calloc(vocabulary, sizeof *candidates);
    if (sampler == NULL || candidates == NULL) {
        quire__free(sampler);
        quire__free(candidates);
        return quire__fail(error, QUIRE_E_NOMEM, "no memory for the sampler");
    }
    sampler->config = *config;
    sampler->vocabulary = vocabulary;
    sampler->random_state = config->seed;
    sampler->candidates = candidates;
    *out = sampler;
    return QUIRE_OK;
}

void quire__sampler_destroy(struct quire__sampler *sampler)
{
    if (sampler == NULL)
        return;
    quire__free(sampler->candidates);
    quire__free(sampler);
}

void quire__sampler_accept(struct quire__sampler *sampler, uint32_t token)
{
    sampler->recent[sampler->next_recent] = token;
    sampler->next_recent = (sampler->next_recent + 1) % QUIRE__REPEAT_WINDOW;
    if (sampler->num_recent < QUIRE__REPEAT_WINDOW)
        sampler->num_recent++;
}

/* SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
 * figure 14): a number in [0, 1) of 53 random bits. */
static double next_random(struct quire__sampler *sampler)
{
    uint64_t z = sampler->random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

/* ---- the filters ---- */

/* Whether a token is among the first `count` of the ring of recent ones. */
static bool is_recent(const struct quire__sampler *sampler, uint32_t token, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (sampler->recent[i] == token)
            return true;
    return false;
}

/* Whether the penalty changes a token's logit. */
static bool is_penalised(const struct quire__sampler *sampler, uint32_t token)
{
    return sampler->config.repeat_penalty != 1.0 && is_recent(sampler, token, sampler->num_recent);
}

/* Divides positive and multiplies negative logits of recent tokens, each once (arXiv:1909.05858,
 * section 4.1, with the sign taken care of). */
static double penalise(const struct quire__sampler *sampler, double logit)
{
    const double penalty = sampler->config.repeat_penalty;
    return logit > 0.0 ? logit / penalty : logit * penalty;
}

/* Likelier first; of equals the lower id. */
static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static int compare(const void *a, const void *b)
{
    return before(a, b) ? -1 : 1;
}

static void swap(struct candidate *a, struct candidate *b)
{
    struct candidate kept = *a;
    *a = *b;
    *b = kept;
}

/* Restores a heap of `count` with the least likely on top, where `at` may be too unlikely. */
static void sift_down(struct candidate *heap, uint32_t count, uint32_t at)
{
    for (;;) {
        uint32_t last = at;
        for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++)
            if (before(&heap[last], &heap[child]))
                last = child;
        if (last == at)
            return;
        swap(&heap[at], &heap[last]);
        at = last;
    }
}

/* Every candidate, by id; returns how many. */
static uint32_t gather_all(struct quire__sampler *sampler, const float *logits)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < sampler->vocabulary; i++) {
        double logit = (double)logits[i];
        if (is_penalised(sampler, i))
            logit = penalise(sampler, logit);
        if (isfinite(logit))
            sampler->candidates[n++] = (struct candidate){.logit = logit, .id = i};
    }
    return n;
}

/* A candidate for the k likeliest, of which there are *n so far: a heap as soon as there are k. */
static void offer(struct quire__sampler *sampler, uint32_t k, uint32_t *n, uint32_t id,
                  double logit)
{
    struct candidate *heap = sampler->candidates;
    const struct candidate candidate = {.logit = logit, .id = id};
    if (!isfinite(logit))
        return;
    if (*n < k) {
        heap[(*n)++] = candidate;
        for (uint32_t i = *n == k ? k / 2 : 0; i-- > 0;)
            sift_down(heap, k, i);
    } else if (before(&candidate, &heap[0])) {
        heap[0] = candidate;
        sift_down(heap, k, 0);
    }
}

static bool any_reaches(const float *logits, float floor)
{
    uint32_t any = 0;
    for (uint32_t i = 0; i < SCAN; i++)
        any |= logits[i] >= floor;
    return any != 0;
}

/* The k likeliest candidates, in no order; returns how many there are. Most of a vocabulary is
 * passed over, SCAN logits at a time: they do not reach the least of k. The few that the penalty
 * changes come first. */
static uint32_t gather_top(struct quire__sampler *sampler, const float *logits, uint32_t k)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < sampler->num_recent; i++) {
        uint32_t id = sampler->recent[i];
        if (id < sampler->vocabulary && is_penalised(sampler, id) && !is_recent(sampler, id, i))
            offer(sampler, k, &n, id, penalise(sampler, (double)logits[id]));
    }
    for (uint32_t i = 0; i < sampler->vocabulary; i++) {
        const float floor = n == k ? (float)sampler->candidates[0].logit : -INFINITY;
        while (sampler->vocabulary - i > SCAN && !any_reaches(&logits[i], floor))
            i += SCAN;
        if (logits[i] >= floor && !is_penalised(sampler, i))
            offer(sampler, k, &n, i, (double)logits[i]);
    }
    return n;
}

/* Cuts to what top-p (arXiv:1904.09751, section 3.1) and min-p (arXiv:2407.01082, section 3.2)
 * leave, sorted. Both keep a head of the sorted list, so min-p may go first and spare the sort most
 * of its work; top-p's probabilities are still those of all n candidates. */
static uint32_t cut_by_probability(const struct quire__sampler *sampler, uint32_t n)
{
    struct candidate *all = sampler->candidates;
    const struct quire__sampler_config *config = &sampler->config;
    double largest = all[0].logit, total = 0.0;
    for (uint32_t i = 1; i < n; i++)
        largest = all[i].logit > largest ? all[i].logit : largest;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        all[i].weight = exp(all[i].logit - largest);
        total += all[i].weight;
        if (all[i].weight >= config->min_p)
            all[kept++] = all[i];
    }
    qsort(all, kept, sizeof *all, compare);
    if (config->top_p == 1.0)
        return kept;
    double sum = 0.0;
    for (uint32_t i = 0; i < kept; i++) {
        sum += all[i].weight;
        if (sum >= config->top_p * total)
            return i + 1;
    }
    return kept;
}

/* ---- the draw ---- */

static uint32_t draw(struct quire__sampler *sampler, uint32_t n)
{
    struct candidate *kept = sampler->candidates;
    const double largest = kept[0].logit, temperature = sampler->config.temperature;
    double total = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        kept[i].weight = exp((kept[i].logit - largest) / temperature);
        total += kept[i].weight;
    }
    double left = next_random(sampler) * total;
    for (uint32_t i = 0; i < n; i++) {
        left -= kept[i].weight;
        if (left < 0.0)
            return kept[i].id;
    }
    return kept[0].id; /* rounding ate the last of the weight: the likeliest is never wrong */
}

quire_status quire__sampler_pick(struct quire__sampler *sampler, const float *logits,
                                 uint32_t *token, struct quire_error *error)
{
    const struct quire__sampler_config *config = &sampler->config;
    const uint32_t k = config->temperature == 0.0 ? 1 : config->top_k;
    const bool top = k != 0 && k < sampler->vocabulary;
    const uint32_t n = top ? gather_top(sampler, logits, k) : gather_all(sampler, logits);
    if (n == 0)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "the model computes no numbers: its file is damaged");
    /* A fixed order of summing, whatever order the selection left. */
    if (top)
        qsort(sampler->candidates, n, sizeof *sampler->candidates, compare);
    *token = config->temperature == 0.0 ? sampler->candidates[0].id
                                        : draw(sampler, cut_by_probability(sampler, n));
    return QUIRE_OK;
}
