/* special.c - finds the texts of special tokens inside a text.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The texts are kept sorted. From a place in the text, each further byte narrows the range of those
 * that still agree; the ones that are complete come first in it. */
#include "model/special.h"

#include <string.h>

static int compare(const struct quire__token_table *table, uint32_t a, uint32_t b)
{
    struct quire__text x = quire__token_text(table, a), y = quire__token_text(table, b);
    int order = memcmp(x.bytes, y.bytes, x.count < y.count ? x.count : y.count);
    if (order == 0 && x.count != y.count)
        order = x.count < y.count ? -1 : 1;
    return order;
}

/* Heap sort: no memory, and no order of tokens in a file makes it slow. */
static void sift(struct quire__specials *specials, uint32_t at, uint32_t count)
{
    uint32_t *ids = specials->ids, id = ids[at];
    for (uint64_t child = 2 * (uint64_t)at + 1; child < count; child = 2 * (uint64_t)at + 1) {
        if (child + 1 < count && compare(specials->table, ids[child], ids[child + 1]) < 0)
            child++;
        if (compare(specials->table, ids[child], id) <= 0)
            break;
        ids[at] = ids[child];
        at = (uint32_t)child;
    }
    ids[at] = id;
}

static void sort(struct quire__specials *specials)
{
    for (uint32_t i = specials->count / 2; i-- > 0;)
        sift(specials, i, specials->count);
    for (uint32_t last = specials->count; last-- > 1;) {
        uint32_t greatest = specials->ids[0];
        specials->ids[0] = specials->ids[last];
        specials->ids[last] = greatest;
        sift(specials, 0, last);
    }
}

/* Of equal texts only the token that the vocabulary finds is kept. */
static bool is_matched(const struct quire__token_table *table, const bool *chosen, uint32_t id)
{
    uint64_t bad_offset;
    struct quire__text text = quire__token_text(table, id);
    return chosen[id] && text.count > 0 && quire__utf8_check(text.bytes, text.count, &bad_offset) &&
           quire__token_find(table, text, (struct quire__text){0}) == id;
}

quire_status quire__specials_init(struct quire__specials *specials,
                                  const struct quire__token_table *table, const bool *chosen,
                                  struct quire_error *error)
{
    uint32_t count = 0;
    *specials = (struct quire__specials){.table = table};
    for (uint32_t id = 0; id < table->count; id++)
        count += is_matched(table, chosen, id);
    specials->ids = quire__calloc(count, sizeof(*specials->ids));
    if (specials->ids == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "out of memory for %u special tokens", count);
    for (uint32_t id = 0; id < table->count; id++)
        if (is_matched(table, chosen, id))
            specials->ids[specials->count++] = id;
    sort(specials);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t lead = (uint8_t)*quire__token_text(table, specials->ids[i]).bytes;
        specials->first[lead + 1] = i + 1;
    }
    for (unsigned byte = 0; byte < 256; byte++)
        if (specials->first[byte + 1] < specials->first[byte])
            specials->first[byte + 1] = specials->first[byte];
    return QUIRE_OK;
}

void quire__specials_deinit(struct quire__specials *specials)
{
    quire__free(specials->ids);
    *specials = (struct quire__specials){0};
}

/* First place in [from, to) whose text has a byte >= `byte` at `depth`; all are longer than depth
 * and agree before it. */
static uint32_t lower_bound(const struct quire__specials *specials, uint32_t from, uint32_t to,
                            uint64_t depth, unsigned byte)
{
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if ((uint8_t)quire__token_text(specials->table, specials->ids[middle]).bytes[depth] < byte)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* The longest special token that text begins with, or QUIRE__TOKEN_NONE. */
static uint32_t longest_at(const struct quire__specials *specials, struct quire__text text)
{
    uint8_t lead = (uint8_t)text.bytes[0];
    uint32_t from = specials->first[lead], to = specials->first[lead + 1];
    uint32_t best = QUIRE__TOKEN_NONE;
    for (uint64_t depth = 1; from < to; depth++) {
        if (quire__token_text(specials->table, specials->ids[from]).count == depth)
            best = specials->ids[from++];
        if (depth == text.count)
            break;
        unsigned byte = (uint8_t)text.bytes[depth];
        from = lower_bound(specials, from, to, depth, byte);
        to = lower_bound(specials, from, to, depth, byte + 1);
    }
    return best;
}

bool quire__specials_find(const struct quire__specials *specials, struct quire__text text,
                          uint64_t at, uint64_t *found_at, uint32_t *id)
{
    for (; at < text.count; at++) {
        uint8_t byte = (uint8_t)text.bytes[at];
        if (specials->first[byte] == specials->first[byte + 1])
            continue;
        *id = longest_at(specials, (struct quire__text){text.bytes + at, text.count - at});
        if (*id != QUIRE__TOKEN_NONE) {
            *found_at = at;
            return true;
        }
    }
    return false;
}
