/* pool_model_rows.c - what a model knows without a pool: tokens of prompts and bytes of rows.
 * SPDX-License-Identifier: Apache-2.0 */
#include "pool_model.h"

#include <string.h>

/* Words of rows are floats from 0.5 to 1 whose ten upper bits of mantissa, which f16 keeps too,
 * are three of the tenant (1 and up) and seven of the content. */
enum { CONTENT_BITS = 7, F16_BASE = 0x3800, F32_SHIFT = 13 };
#define F32_BASE 0x3F000000u

static const uint32_t layers_01[] = {0, 1};
static const uint32_t layers_0[] = {0};
static const uint32_t layers_1[] = {1};
static const uint32_t layers_2[] = {2};

const struct qt_geometry pm_geometries[] = {
    {"full", 2, 1, {{layers_01, 2, 2, 1, 2, 3, 0, 0}}},
    {"full and window", 2, 2, {{layers_1, 1, 2, 2, 2, 0, 0, 0}, {layers_0, 1, 1, 1, 4, 3, 5, 0}}},
    {"two windows and full, sinks",
     3,
     3,
     {{layers_0, 1, 1, 1, 3, 0, 0, 0},
      {layers_1, 1, 2, 1, 3, 0, 3, 2},
      {layers_2, 1, 1, 1, 2, 0, 9, 1}}},
    {"window", 1, 1, {{layers_0, 1, 2, 1, 3, 0, 6, 0}}},
    {"window, sinks", 2, 1, {{layers_01, 2, 1, 1, 2, 0, 4, 3}}},
    {"two full", 2, 2, {{layers_0, 1, 1, 1, 2, 0, 0, 0}, {layers_1, 1, 2, 2, 3, 2, 0, 0}}},
    {"full and a wide window",
     2,
     2,
     {{layers_0, 1, 1, 1, 2, 0, 0, 0}, {layers_1, 1, 1, 1, 2, 0, 16, 0}}},
};

uint32_t pm_num_geometries(void)
{
    return QT_LEN(pm_geometries);
}

struct qt_random pm_random(uint32_t seed)
{
    return (struct qt_random){qt_mix(seed + 0x51ED27u)};
}

/* ---- prompts: family (3 bits), two cuts of 7 bits with a branch of 2 bits each ---- */

enum { CUT = 7, BRANCH = 2, FAMILY = 3, FIRST = FAMILY, SECOND = FAMILY + CUT + BRANCH };

static uint32_t bits(uint32_t value, uint32_t from, uint32_t count)
{
    return value >> from & ((1u << count) - 1);
}

uint32_t pm_token(const struct pm_model *model, uint32_t prompt, uint32_t i)
{
    uint64_t stream = bits(prompt, 0, FAMILY);
    if (i >= bits(prompt, FIRST, CUT))
        stream = qt_mix(stream * 8 + 1 + bits(prompt, FIRST + CUT, BRANCH));
    if (i >= bits(prompt, SECOND, CUT))
        stream = qt_mix(stream * 8 + 5 + bits(prompt, SECOND + CUT, BRANCH));
    return (uint32_t)(qt_mix(stream * 128 + i + 1) % model->shape.alphabet);
}

uint32_t pm_turn(uint32_t prompt, uint32_t i, uint32_t branch)
{
    uint32_t kept = prompt & ((1u << SECOND) - 1);
    return kept | (i & ((1u << CUT) - 1)) << SECOND | (branch & 3u) << (SECOND + CUT);
}

uint32_t pm_prompt_draw(struct qt_random *random)
{
    uint32_t first = qt_chance(random, 50) ? 127 : qt_below(random, 40);
    uint32_t second = qt_chance(random, 50) ? 127 : qt_below(random, PM_LEN_MAX);
    uint32_t family = qt_chance(random, 70) ? qt_below(random, 2) : qt_below(random, 1u << FAMILY);
    return family | first << FIRST | qt_below(random, 2) << (FIRST + CUT) | second << SECOND |
           qt_below(random, 4) << (SECOND + CUT);
}

void pm_prefix(const struct pm_model *model, uint32_t tenant, uint32_t prompt, uint32_t len,
               uint32_t *tokens, struct quire_seq_config *config)
{
    static const uint64_t salts[PM_SALTS] = {0, 7, 7 + (1ull << 32)};
    static const uint64_t adapters[PM_ADAPTERS] = {0, 1ull << 40};
    quire_seq_config_init(config);
    for (uint32_t i = 0; i < len; i++)
        tokens[i] = pm_token(model, prompt, i);
    config->tokens = len > 0 ? tokens : NULL;
    config->num_tokens = len;
    config->salt = salts[tenant / PM_ADAPTERS];
    config->adapter = adapters[tenant % PM_ADAPTERS];
}

/* ---- content ---- */

uint64_t pm_chain(uint32_t tenant, uint64_t before, uint32_t token)
{
    return qt_mix(before + qt_mix(token + 1) + tenant + 1) | 1u;
}

uint64_t pm_unique(struct pm_model *model)
{
    return qt_mix(++model->unique ^ 0x0BADull << 48) | 1u;
}

uint32_t pm_computed(const struct pm_seq *seq)
{
    uint64_t before = 0;
    uint32_t count = 0;
    while (count < seq->len && seq->rows[count].known) {
        before = pm_chain(seq->tenant, before, seq->rows[count].token);
        if (seq->rows[count].content != before)
            break;
        count++;
    }
    return count;
}

uint32_t pm_known(const struct pm_seq *seq)
{
    uint32_t count = 0;
    while (count < seq->len && seq->rows[count].known)
        count++;
    return count;
}

/* ---- bytes ---- */

static uint32_t mantissa(struct qt_random *random, uint32_t tenant)
{
    return (tenant + 1) << CONTENT_BITS | (uint32_t)(qt_next(random) >> (64 - CONTENT_BITS));
}

static struct qt_random row_random(uint64_t content, uint32_t layer, enum qt_plane plane)
{
    return (struct qt_random){content + layer * 0x10001u + (uint32_t)plane};
}

void pm_row_floats(const struct pm_model *model, uint32_t tenant, uint64_t content, uint32_t layer,
                   enum qt_plane plane, float *row)
{
    struct qt_random random = row_random(content, layer, plane);
    uint32_t count = qt_row_elements(model->geometry, layer, plane);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t word = F32_BASE | mantissa(&random, tenant) << F32_SHIFT;
        memcpy(&row[i], &word, sizeof word);
    }
}

void pm_row_stored(const struct pm_model *model, uint32_t tenant, uint64_t content, uint32_t layer,
                   enum qt_plane plane, void *bytes)
{
    struct qt_random random = row_random(content, layer, plane);
    uint32_t count = qt_row_elements(model->geometry, layer, plane);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t ten = mantissa(&random, tenant);
        uint16_t half = (uint16_t)(F16_BASE | ten);
        uint32_t word = F32_BASE | ten << F32_SHIFT;
        if (model->shape.f16)
            memcpy((uint8_t *)bytes + i * sizeof half, &half, sizeof half);
        else
            memcpy((uint8_t *)bytes + i * sizeof word, &word, sizeof word);
    }
}

int pm_word_tenant(const struct pm_model *model, uint32_t word)
{
    uint32_t base = model->shape.f16 ? F16_BASE : F32_BASE;
    uint32_t shift = model->shape.f16 ? 0 : F32_SHIFT;
    uint32_t tenant = (word >> shift & 0x3FFu) >> CONTENT_BITS;
    if ((word & ~(0x3FFu << shift)) != base || tenant == 0 || tenant > PM_TENANTS)
        return -1;
    return (int)tenant - 1;
}

/* ---- shapes ---- */

/* From what one sequence needs, or less, to room for all of them twice. */
static uint32_t draw_blocks(struct qt_random *random, const struct pm_shape *shape)
{
    uint32_t tables = shape->contiguous ? 1 : pm_geometries[shape->geometry].num_groups;
    uint32_t one = tables * ((shape->seq_len + shape->block_size - 1) / shape->block_size);
    switch (qt_below(random, 5)) {
    case 0:
        return tables + qt_below(random, 3);
    case 1:
        return tables + qt_below(random, one + 1);
    case 2:
        return one + qt_below(random, one + 1);
    case 3:
        return 2 * one + qt_below(random, 3 * one);
    default:
        return PM_SEQS * one + qt_below(random, PM_SEQS * one);
    }
}

struct pm_shape pm_shape_draw(struct qt_random *random, enum pm_backend backend)
{
    static const uint32_t sizes[] = {1, 2, 3, 4, 7, 16};
    struct pm_shape shape = {.backend = backend};
    shape.contiguous = qt_chance(random, 12);
    shape.geometry = qt_chance(random, 35) ? 0 : qt_below(random, (uint32_t)QT_LEN(pm_geometries));
    shape.block_size = sizes[qt_below(random, QT_LEN(sizes))];
    uint32_t len = qt_chance(random, 60) ? 40 : PM_LEN_MAX;
    shape.seq_len = 8 + qt_below(random, len - 8 + 1);
    shape.step_tokens = 6 + qt_below(random, PM_ROWS_MAX - 6 + 1);
    shape.rollback = qt_chance(random, 50) ? qt_below(random, 4) : qt_below(random, 20);
    shape.num_blocks = draw_blocks(random, &shape);
    shape.pinned_blocks = qt_chance(random, 40) ? 1 + qt_below(random, shape.num_blocks) : 0;
    shape.merge_equal = qt_chance(random, 50);
    shape.eviction = qt_chance(random, 35) ? QUIRE_EVICT_COST : QUIRE_EVICT_LRU;
    shape.alphabet = 2 + qt_below(random, PM_ALPHABET_MAX - 1);
    shape.vocab = qt_chance(random, 50);
    shape.events = qt_chance(random, 50) ? 1 + qt_below(random, 600) : 0;
    shape.memory = backend == PM_CPU && qt_chance(random, 70);
    if (shape.memory) /* with events it is seen which blocks a drop took */
        shape.events = 600;
    shape.f16 = qt_chance(random, 30);
    return shape;
}
