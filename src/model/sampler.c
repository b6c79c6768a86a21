/* sampler.c - the filters and the draw behind the next token.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* Divides positive and multiplies negative logits of recent tokens, each once (arXiv:1909.05858,
 * section 4.1, with the sign taken care of). */
static void penalise(struct quire__sampler *sampler)
{
    const double penalty = sampler->config.repeat_penalty;
    if (penalty == 1.0)
        return;
    for (uint32_t i = 0; i < sampler->num_recent; i++) {
        uint32_t token = sampler->recent[i];
        bool seen = token >= sampler->vocabulary;
        for (uint32_t j = 0; j < i && !seen; j++)
            seen = sampler->recent[j] == token;
        if (seen)
            continue;
        double *logit = &sampler->candidates[token].logit;
        *logit = *logit > 0.0 ? *logit / penalty : *logit * penalty;
    }
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

/* Moves the k likeliest of n to the front, in no order; k < n. */
static void select_top(struct candidate *candidates, uint32_t n, uint32_t k)
{
    for (uint32_t i = k / 2; i-- > 0;)
        sift_down(candidates, k, i);
    for (uint32_t i = k; i < n; i++) {
        if (!before(&candidates[i], &candidates[0]))
            continue;
        swap(&candidates[i], &candidates[0]);
        sift_down(candidates, k, 0);
    }
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
    struct candidate *candidates = sampler->candidates;
    for (uint32_t i = 0; i < sampler->vocabulary; i++)
        candidates[i] = (struct candidate){.logit = (double)logits[i], .id = i};
    penalise(sampler);
    uint32_t n = 0, best = 0;
    for (uint32_t i = 0; i < sampler->vocabulary; i++) {
        if (!isfinite(candidates[i].logit))
            continue;
        candidates[n] = candidates[i];
        best = before(&candidates[n], &candidates[best]) ? n : best;
        n++;
    }
    if (n == 0)
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "the model computes no numbers: its file is damaged");
    if (sampler->config.temperature == 0.0) {
        *token = candidates[best].id;
        return QUIRE_OK;
    }
    if (sampler->config.top_k != 0 && sampler->config.top_k < n) {
        select_top(candidates, n, sampler->config.top_k);
        n = sampler->config.top_k;
        /* A fixed order of summing, whatever order the selection left. */
        qsort(candidates, n, sizeof *candidates, compare);
    }
    *token = draw(sampler, cut_by_probability(sampler, n));
    return QUIRE_OK;
}
