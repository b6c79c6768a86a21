/* build.c - turns a step into units of work.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A unit is some tokens of a part, some K/V heads, and all the splits that the tokens see, walked
 * in order; K and V are read in the order of memory, all heads of a page before the next page.
 * Where that gives too few units for the threads (decoding), each split becomes a unit of its own,
 * and the states meet in slots, to be merged in the same order. So do the states of a family: parts
 * whose tables begin with the same pages read the splits there together, once; and where the units
 * of many rows are as many for each thread, one unit takes them all. Whichever way, a row's
 * arithmetic is the same. */
#include "backend/cpu/plan.h"

#include <string.h>

enum {
    UNITS_PER_THREAD = 8, /* enough that uneven units even out */
    NO_PART = UINT32_MAX,
    LEADERS_MAX = 8, /* of parts with the same first page: bounds the comparing of tables */
    MANY_ROWS = 64,  /* whose queries and states take longer to move than threads wait at the end */
};

/* Fewer units than this leave threads idle, or unevenly loaded. */
static uint64_t units_wanted(const struct quire_plan *plan)
{
    uint32_t num_threads = quire__threads_count(plan->cpu->threads);
    return num_threads > 1 ? (uint64_t)UNITS_PER_THREAD * num_threads : 1;
}

/* ---- checking ---- */

/* Whether entries first .. end of a table are below num_pages. Most of the cost of a plan for many
 * long sequences: four entries at a time, without a branch. */
static bool entries_exist(const uint32_t *table, uint64_t first, uint64_t end, uint32_t num_pages)
{
    typedef uint32_t four __attribute__((vector_size(16), aligned(4), may_alias));
    four bad = {0, 0, 0, 0};
    for (; first + 4 <= end; first += 4)
        bad |= (four)(*(const four *)(table + first) >= num_pages);
    for (; first < end; first++)
        bad[0] |= table[first] >= num_pages;
    return (bad[0] | bad[1] | bad[2] | bad[3]) == 0;
}

/* Every page that a part writes, or that its tokens see in this class, must exist. */
static bool pages_exist(const struct quire_plan *plan, const struct quire_kv_layer *layer,
                        const struct quire_step_part *part)
{
    const struct quire_kv_spec *spec = &plan->spec;
    const uint32_t *table = quire__plan_table(plan, layer->group, part->slot);
    uint32_t per_page = spec->positions_per_page;
    uint32_t last = (part->len + (part->n_new - 1)) / per_page;
    uint32_t first = quire__window_start(layer->window, part->len) / per_page;
    uint64_t sinks_end = quire__ceil_div(layer->sink_positions, per_page);
    return entries_exist(table, 0, first < sinks_end ? first : sinks_end, spec->num_pages) &&
           entries_exist(table, first, (uint64_t)last + 1, spec->num_pages);
}

static bool part_ok(const struct quire_plan *plan, const struct quire_step_desc *desc,
                    const struct quire_step_part *part)
{
    const struct quire_kv_spec *spec = &plan->spec;
    uint64_t positions = (uint64_t)spec->max_blocks * spec->positions_per_page;
    if (part->slot >= spec->max_seqs || part->n_new == 0 ||
        (uint64_t)part->len + part->n_new > positions ||
        (uint64_t)part->len + part->n_new > UINT32_MAX ||
        (uint64_t)part->row + part->n_new > desc->num_tokens)
        return false;
    for (uint32_t k = 0; k < plan->num_kinds; k++) {
        if (!pages_exist(plan, &spec->layers[plan->kinds[k]], part))
            return false;
    }
    return true;
}

static bool desc_ok(const struct quire_plan *plan, const struct quire_step_desc *desc)
{
    if (desc == NULL || desc->num_tokens > plan->spec.max_step_tokens ||
        desc->num_parts > plan->spec.max_seqs || (desc->parts == NULL && desc->num_parts != 0))
        return false;
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < desc->num_parts; i++) {
        if (!part_ok(plan, desc, &desc->parts[i]))
            return false;
        tokens += desc->parts[i].n_new;
    }
    return tokens <= desc->num_tokens;
}

/* ---- families ---- */

/* Splits of which both parts have the same pages, in every group of full attention, and which all
 * their tokens see whole. */
static uint32_t common_splits(const struct quire_plan *plan, uint32_t a, uint32_t b)
{
    const struct quire_step_part *left = &plan->parts[a], *right = &plan->parts[b];
    uint32_t positions = left->len < right->len ? left->len : right->len;
    uint32_t per_page = plan->spec.positions_per_page, pages = positions / per_page;
    for (uint32_t k = 0; k < plan->num_kinds; k++) {
        const struct quire_kv_layer *layer = &plan->spec.layers[plan->kinds[k]];
        if (layer->window != 0)
            continue;
        const uint32_t *x = quire__plan_table(plan, layer->group, left->slot);
        const uint32_t *y = quire__plan_table(plan, layer->group, right->slot);
        uint32_t same = 0;
        while (same < pages && x[same] == y[same])
            same++;
        pages = same;
    }
    return (uint32_t)((uint64_t)pages * per_page / QUIRE__SPLIT);
}

static void put_part(struct quire_plan *plan, uint32_t part)
{
    const struct quire_step_part *p = &plan->parts[part];
    struct quire__token *tokens = &plan->tokens[plan->num_tokens];
    const uint32_t n = p->n_new, position = p->len, row = p->row;
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (struct quire__token){position + i, part, row + i};
    plan->first_token[part] = plan->num_tokens;
    plan->num_tokens += n;
    plan->families[plan->num_families].num_tokens += n;
}

static void end_family(struct quire_plan *plan, uint32_t shared)
{
    plan->families[plan->num_families++].shared = shared;
    plan->families[plan->num_families] = (struct quire__family){.token = plan->num_tokens};
}

/* How many splits a leader's family should share, so that sharing saves most reading; 0 when it has
 * none in common with anybody on the list. Fills common[] for the list. */
static uint32_t best_share(struct quire_plan *plan, uint32_t leader, uint32_t list)
{
    uint64_t best = 0;
    uint32_t shared = 0;
    for (uint32_t i = list; i != NO_PART; i = plan->next_part[i])
        plan->common[i] = common_splits(plan, leader, i);
    for (uint32_t i = list; i != NO_PART; i = plan->next_part[i]) {
        uint32_t common = plan->common[i];
        if (common == shared)
            continue;
        uint64_t others = 0;
        for (uint32_t j = list; j != NO_PART; j = plan->next_part[j])
            others += plan->common[j] >= common;
        if (others * common > best) {
            best = others * common;
            shared = common;
        }
    }
    return shared;
}

/* Makes families of a list of parts. */
static void put_list(struct quire_plan *plan, uint32_t list)
{
    for (uint32_t leaders = 0; list != NO_PART; leaders++) {
        uint32_t leader = list, *link = &list, shared = 0;
        list = plan->next_part[leader];
        if (list != NO_PART && leaders < LEADERS_MAX)
            shared = best_share(plan, leader, list);
        put_part(plan, leader);
        while (shared != 0 && *link != NO_PART) {
            uint32_t part = *link;
            if (plan->common[part] < shared) {
                link = &plan->next_part[part];
            } else {
                *link = plan->next_part[part];
                put_part(plan, part);
            }
        }
        end_family(plan, shared);
    }
}

/* Parts that can share nothing, and lists of the others by their first page. */
static void put_parts(struct quire_plan *plan)
{
    const struct quire_kv_layer *full = NULL;
    for (uint32_t k = 0; k < plan->num_kinds && full == NULL && !plan->cpu->no_cascade; k++) {
        const struct quire_kv_layer *layer = &plan->spec.layers[plan->kinds[k]];
        full = layer->window == 0 ? layer : NULL;
    }
    plan->num_tokens = plan->num_families = 0;
    plan->families[0] = (struct quire__family){0};
    for (uint32_t i = 0; i < plan->num_heads; i++)
        plan->heads[i] = NO_PART;
    for (uint32_t i = plan->num_parts; i-- > 0;) {
        const struct quire_step_part *part = &plan->parts[i];
        if (full == NULL || part->len < QUIRE__SPLIT || plan->num_parts == 1) {
            put_part(plan, i);
            end_family(plan, 0);
            continue;
        }
        uint32_t page = quire__plan_table(plan, full->group, part->slot)[0];
        uint32_t *head = &plan->heads[page * 0x9e3779b1u >> 7 & (plan->num_heads - 1)];
        plan->next_part[i] = *head;
        *head = i;
    }
    for (uint32_t i = 0; i < plan->num_heads; i++)
        put_list(plan, plan->heads[i]);
}

/* ---- units ---- */

/* How a class is cut in this step. */
struct cut {
    struct quire_plan *plan;
    struct quire__class *class;
    uint32_t group;  /* query heads of a K/V head */
    uint32_t rows;   /* of a unit at most */
    uint32_t chunk;  /* tokens of a unit at most */
    uint32_t divide; /* the heads that a unit could have, by this */
    bool scarce;
};

static uint32_t heads_of(const struct cut *cut, uint32_t num_tokens)
{
    uint32_t most = cut->class->num_kv_heads;
    uint32_t rows = num_tokens * cut->group;
    QUIRE_CHECK(rows != 0);
    uint32_t fit = cut->rows / rows;
    uint32_t heads = (fit < most ? fit : most) / cut->divide;
    return heads > 0 ? heads : 1;
}

/* Tokens of a unit of n tokens, so that its units are about alike. */
static uint32_t chunk_of(const struct cut *cut, uint32_t n)
{
    return n <= cut->chunk ? n : (uint32_t)quire__ceil_div(n, quire__ceil_div(n, cut->chunk));
}

static struct quire__splits splits_of(const struct cut *cut, uint32_t token, uint32_t num_tokens)
{
    const struct quire__token *tokens = &cut->plan->tokens[token];
    return quire__splits_of(cut->class, tokens[0].position, tokens[num_tokens - 1].position);
}

static uint32_t count_splits(struct quire__splits splits)
{
    return splits.sinks_end + (splits.end - splits.first);
}

/* Units of the whole step, with splits as units of their own or not. */
static uint64_t count_units(const struct cut *cut, bool split)
{
    const struct quire_plan *plan = cut->plan;
    uint64_t units = 0;
    for (uint32_t i = 0; i < plan->num_parts; i++) {
        uint32_t n = plan->parts[i].n_new, most = chunk_of(cut, n);
        uint64_t each = quire__ceil_div(cut->class->num_kv_heads, heads_of(cut, most));
        if (split)
            each *= count_splits(splits_of(cut, plan->first_token[i], n));
        units += (n <= most ? 1 : quire__ceil_div(n, most)) * each;
    }
    return units;
}

/* Cuts a unit of all heads into units of some. */
static void add_heads(const struct cut *cut, const struct quire__unit *all)
{
    struct quire__class *c = cut->class;
    uint32_t most = c->num_kv_heads, heads = heads_of(cut, all->num_tokens);
    struct quire__unit *unit = &c->units[c->num_units];
    QUIRE_CHECK(c->num_units + quire__ceil_div(most, heads) <= cut->plan->max_units);
    for (uint32_t h = 0; h < most; h += heads, unit++) {
        *unit = *all;
        unit->head = h;
        unit->num_heads = most - h < heads ? most - h : heads;
    }
    c->num_units = (uint32_t)(unit - c->units);
}

/* Splits that a family shares, and how many slots of a row their states take: as many, or one. */
struct shared {
    uint32_t splits, slots;
};

/* Whether states of so many splits of one token each find room. */
static bool has_slots(const struct cut *cut, uint64_t splits)
{
    uint64_t left = cut->plan->max_slots - cut->class->num_slots;
    return splits <= left / cut->class->num_heads;
}

/* Whether units of one K/V head each, with all rows of some tokens, are as many for every thread,
 * and so large that cutting them by splits would cost more than it evens out. */
static bool is_even(const struct cut *cut, uint32_t num_tokens)
{
    uint32_t chunk = chunk_of(cut, num_tokens), rows = chunk * cut->group;
    uint64_t units = quire__ceil_div(num_tokens, chunk) * cut->class->num_kv_heads;
    return rows >= MANY_ROWS && units % quire__threads_count(cut->plan->cpu->threads) == 0;
}

/* Slots for the states of some tokens; false when there are not enough. */
static bool take_slots(const struct cut *cut, uint32_t token, uint32_t num_tokens, uint32_t splits)
{
    struct quire__class *c = cut->class;
    uint64_t of_token = (uint64_t)splits * c->num_heads;
    if (!has_slots(cut, (uint64_t)splits * num_tokens))
        return false;
    for (uint32_t i = 0; i < num_tokens; i++)
        c->first_slot[token + i] = (uint32_t)(c->num_slots + of_token * i);
    c->num_slots += of_token * num_tokens;
    return true;
}

static void add_merges(const struct cut *cut, uint32_t token, uint32_t num_tokens, uint32_t splits)
{
    struct quire__class *c = cut->class;
    uint32_t heads = heads_of(cut, num_tokens);
    for (uint32_t h = 0; h < c->num_kv_heads; h += heads) {
        QUIRE_CHECK(c->num_merges < cut->plan->max_merges);
        uint32_t left = c->num_kv_heads - h;
        c->merges[c->num_merges++] =
            (struct quire__merge){token, num_tokens, h, left < heads ? left : heads, splits};
    }
}

/* The splits of one chunk from the first that its family does not share; without a family, and with
 * units enough, all of them in one. False when slots are lacking. */
static bool add_chunk(const struct cut *cut, uint32_t token, uint32_t num_tokens,
                      struct shared shared)
{
    struct quire__splits splits = splits_of(cut, token, num_tokens);
    uint32_t num = count_splits(splits), slots = num - shared.splits + shared.slots;
    struct quire__unit unit = {.token = token,
                               .num_tokens = num_tokens,
                               .split = QUIRE__ALL_SPLITS,
                               .num_splits = 1,
                               .index = shared.slots};
    bool wanted = shared.splits != 0 || (cut->scarce && num > 1);
    if (wanted && take_slots(cut, token, num_tokens, slots)) {
        for (uint32_t i = shared.splits; i < num; i++, unit.index++) {
            unit.split = i < splits.sinks_end ? i : splits.first + (i - splits.sinks_end);
            add_heads(cut, &unit);
        }
        add_merges(cut, token, num_tokens, slots);
        return true;
    }
    if (shared.splits == 0)
        add_heads(cut, &unit);
    return shared.splits == 0;
}

/* Later chunks see more, and so come first. */
static bool add_part(const struct cut *cut, uint32_t part, struct shared shared)
{
    uint32_t n = cut->plan->parts[part].n_new, first = cut->plan->first_token[part];
    uint32_t chunk = chunk_of(cut, n);
    for (uint32_t at = n <= chunk ? 0 : (n - 1) / chunk * chunk;; at -= chunk) {
        if (!add_chunk(cut, first + at, n - at < chunk ? n - at : chunk, shared))
            return false;
        if (at == 0)
            return true;
    }
}

/* The splits that a family shares: a unit each, or all in one for every K/V head. */
static void add_shared(struct cut cut, const struct quire__family *family, struct shared shared)
{
    uint32_t end = family->token + family->num_tokens, chunk = chunk_of(&cut, family->num_tokens);
    if (shared.slots < shared.splits)
        cut.divide = cut.class->num_kv_heads;
    for (uint32_t i = 0; i < shared.slots; i++) {
        for (uint32_t at = family->token; at < end; at += chunk)
            add_heads(&cut, &(struct quire__unit){.token = at,
                                                  .num_tokens = end - at < chunk ? end - at : chunk,
                                                  .split = i,
                                                  .num_splits = shared.splits / shared.slots,
                                                  .index = i});
    }
}

static bool add_family(const struct cut *cut, const struct quire__family *family, uint32_t splits)
{
    uint32_t end = family->token + family->num_tokens;
    struct shared shared = {splits, splits};
    if (splits != 0 && is_even(cut, family->num_tokens))
        shared.slots = 1;
    if (!has_slots(cut, (uint64_t)shared.slots * family->num_tokens))
        return false; /* before units are added that nobody would have room for */
    add_shared(*cut, family, shared);
    for (uint32_t at = family->token; at < end;) {
        uint32_t part = cut->plan->tokens[at].part;
        if (!add_part(cut, part, shared))
            return false;
        at += cut->plan->parts[part].n_new;
    }
    return true;
}

/* Many rows share what is made of K and V; but units must be so many that threads end together. */
static void set_rows(struct cut *cut, uint32_t rows)
{
    cut->rows = rows;
    cut->chunk = cut->group < rows ? rows / cut->group : 1;
}

static void build_class(struct quire_plan *plan, struct quire__class *c)
{
    uint64_t wanted = units_wanted(plan);
    uint32_t group = c->num_heads / c->num_kv_heads;
    struct cut cut = {.plan = plan, .class = c, .group = group, .divide = 1};
    set_rows(&cut, QUIRE__UNIT_ROWS);
    if (count_units(&cut, false) < 2 * wanted)
        set_rows(&cut, QUIRE__UNIT_ROWS / 2);
    cut.scarce = count_units(&cut, false) < wanted;
    if (cut.scarce && plan->num_parts == 1 && is_even(&cut, plan->parts[0].n_new)) {
        cut.scarce = false;
        cut.divide = c->num_kv_heads;
    }
    if (cut.scarce && plan->num_parts != 0)
        cut.divide = (uint32_t)quire__ceil_div(wanted, count_units(&cut, true));
    c->num_units = c->num_merges = 0;
    c->num_slots = 0;
    for (uint32_t i = 0; i < plan->num_families; i++) {
        const struct quire__family *family = &plan->families[i];
        uint32_t units = c->num_units, merges = c->num_merges;
        uint64_t slots = c->num_slots;
        if (add_family(&cut, family, c->window == 0 ? family->shared : 0))
            continue;
        c->num_units = units; /* slots are lacking: everybody reads for himself */
        c->num_merges = merges;
        c->num_slots = slots;
        (void)add_family(&cut, family, 0);
    }
}

quire_status quire__cpu_plan_build(struct quire_backend *backend, struct quire_plan *plan,
                                   const struct quire_step_desc *desc)
{
    (void)backend;
    if (plan == NULL || !desc_ok(plan, desc))
        return QUIRE_E_INVAL;
    plan->num_parts = desc->num_parts;
    plan->num_rows = desc->num_tokens;
    if (desc->num_parts != 0)
        memcpy(plan->parts, desc->parts, desc->num_parts * sizeof *plan->parts);
    put_parts(plan);
    for (uint32_t i = 0; i < plan->num_classes; i++)
        build_class(plan, &plan->classes[i]);
    return QUIRE_OK;
}
