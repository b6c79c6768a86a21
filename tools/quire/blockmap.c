/* blockmap.c - a drawing of the pool: what each physical block is, and which branch holds it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/blockmap.h"

#include <stdio.h>
#include <string.h>

#include "quire/console.h"

enum { LINE_CELLS = 64, GAP_CELLS = 16, EVENTS_AT_ONCE = 256, LINE_BYTES_MAX = 2048 };

/* ---- beginning and end ---- */

quire_status blockmap_open(struct blockmap *map, struct quire_pool *pool,
                           const struct quire__model *model)
{
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    *map = (struct blockmap){.pool = pool, .model = model};
    quire_status status = quire_pool_stats(pool, &stats);
    if (status != QUIRE_OK)
        return status;
    if (stats.layout != QUIRE_LAYOUT_PAGED)
        return QUIRE_E_UNSUPPORTED;
    map->num_blocks = (uint32_t)stats.blocks_total;
    map->block_size = stats.block_size;
    map->block_bytes = stats.block_bytes;
    map->holders = quire__calloc(map->num_blocks, sizeof *map->holders);
    map->findable = quire__calloc(map->num_blocks, sizeof *map->findable);
    map->pinned = quire__calloc(map->num_blocks, sizeof *map->pinned);
    if (map->holders != NULL && map->findable != NULL && map->pinned != NULL)
        return QUIRE_OK;
    blockmap_close(map);
    return QUIRE_E_NOMEM;
}

void blockmap_close(struct blockmap *map)
{
    quire__free(map->holders);
    quire__free(map->findable);
    quire__free(map->pinned);
    *map = (struct blockmap){0};
}

/* ---- reading the pool ---- */

quire_status blockmap_watch(struct blockmap *map)
{
    struct quire_event events[EVENTS_AT_ONCE];
    uint32_t count = 0;
    do {
        quire_status status =
            quire_pool_events(map->pool, events, EVENTS_AT_ONCE, &count, &map->lost);
        if (status != QUIRE_OK)
            return status;
        for (uint32_t i = 0; i < count; i++) {
            if (events[i].block >= map->num_blocks)
                continue;
            if (events[i].kind == QUIRE_EVENT_STORED)
                map->findable[events[i].block] = true;
            else if (events[i].kind == QUIRE_EVENT_EVICTED || events[i].kind == QUIRE_EVENT_DROPPED)
                map->findable[events[i].block] = false;
        }
    } while (count == EVENTS_AT_ONCE);
    return QUIRE_OK;
}

/* Calls mark for every block in the tables of a sequence. */
static quire_status each_block(struct blockmap *map, quire_seq seq, uint32_t bit,
                               void (*mark)(struct blockmap *map, uint32_t block, uint32_t bit))
{
    uint32_t num_groups = 0;
    const struct quire_group_config *groups = quire__model_groups(map->model, &num_groups);
    for (uint32_t g = 0; g < num_groups; g++) {
        struct quire_kv_cache cache;
        quire_status status = quire_seq_kv_cache(map->pool, seq, groups[g].layers[0], &cache);
        if (status != QUIRE_OK)
            return status;
        for (uint32_t i = 0; i < cache.paged_block_count; i++)
            if (cache.paged_block_indices[i] < map->num_blocks) /* not one before the window */
                mark(map, cache.paged_block_indices[i], bit);
    }
    return QUIRE_OK;
}

static void mark_pinned(struct blockmap *map, uint32_t block, uint32_t bit)
{
    (void)bit;
    map->pinned[block] = true;
}

static void mark_held(struct blockmap *map, uint32_t block, uint32_t bit)
{
    map->holders[block] |= bit;
}

quire_status blockmap_pin(struct blockmap *map, quire_seq seq)
{
    return each_block(map, seq, 0, mark_pinned);
}

quire_status blockmap_look(struct blockmap *map, const quire_seq *seqs, uint32_t count)
{
    quire_status status = blockmap_watch(map);
    memset(map->holders, 0, map->num_blocks * sizeof *map->holders);
    for (uint32_t i = 0; i < count && status == QUIRE_OK; i++)
        if (seqs[i].id != 0)
            status = each_block(map, seqs[i], 1u << i, mark_held);
    return status;
}

/* ---- what a block is ---- */

enum state { STATE_FREE, STATE_CACHED, STATE_PINNED, STATE_OWN, STATE_SHARED };

static enum state state_of(const struct blockmap *map, uint32_t block)
{
    const uint32_t holders = map->holders[block];
    if (map->pinned[block])
        return STATE_PINNED;
    if (holders == 0)
        return map->findable[block] ? STATE_CACHED : STATE_FREE;
    return (holders & (holders - 1)) == 0 ? STATE_OWN : STATE_SHARED;
}

static uint32_t first_holder(uint32_t holders)
{
    return (uint32_t)__builtin_ctz(holders);
}

struct blockmap_counts blockmap_count(const struct blockmap *map)
{
    struct blockmap_counts counts = {0};
    uint64_t *const of[] = {[STATE_FREE] = &counts.free,
                            [STATE_CACHED] = &counts.cached,
                            [STATE_PINNED] = &counts.pinned,
                            [STATE_OWN] = &counts.own,
                            [STATE_SHARED] = &counts.shared};
    for (uint32_t i = 0; i < map->num_blocks; i++)
        ++*of[state_of(map, i)];
    return counts;
}

/* ---- drawing ---- */

/* A cell and its colour (ECMA-48, SGR); two cells that look alike are alike. */
struct cell {
    char character;
    uint8_t bold, colour;
};

static const char *const styles[2] = {"\033[0;%dm", "\033[0;1;%dm"};

static struct cell cell_of(const struct blockmap *map, uint32_t block)
{
    const uint32_t holders = map->holders[block];
    switch (state_of(map, block)) {
    case STATE_FREE:
        return (struct cell){'.', 0, 90};
    case STATE_CACHED:
        return (struct cell){'+', 0, 37};
    case STATE_PINNED:
        return (struct cell){'*', 1, 37};
    case STATE_OWN:
        return (struct cell){(char)('a' + first_holder(holders)), 0,
                             (uint8_t)(31 + first_holder(holders) % 6)};
    case STATE_SHARED:
        return (struct cell){(char)('A' + first_holder(holders)), 1,
                             (uint8_t)(31 + first_holder(holders) % 6)};
    }
    return (struct cell){'?', 0, 0};
}

const char *blockmap_letter(uint32_t i, bool colour, char text[16])
{
    const int length = colour ? snprintf(text, 12, styles[0], 31 + (int)(i % 6)) : 0;
    text[length] = (char)('a' + i);
    (void)snprintf(text + length + 1, 5, "%s", colour ? "\033[0m" : "");
    return text;
}

static bool same_line(const struct blockmap *map, uint32_t a, uint32_t b)
{
    for (uint32_t i = 0; i < LINE_CELLS; i++)
        if (cell_of(map, a + i).character != cell_of(map, b + i).character)
            return false;
    return true;
}

static bool draw_line(const struct blockmap *map, uint32_t first, bool colour)
{
    char line[LINE_BYTES_MAX];
    size_t at = (size_t)snprintf(line, sizeof line, "%7u ", first);
    struct cell before = {0};
    for (uint32_t i = 0; i < LINE_CELLS && first + i < map->num_blocks; i++) {
        struct cell cell = cell_of(map, first + i);
        if (i % GAP_CELLS == 0)
            line[at++] = ' ';
        if (colour && (cell.bold != before.bold || cell.colour != before.colour))
            at += (size_t)snprintf(line + at, sizeof line - at, styles[cell.bold], cell.colour);
        line[at++] = cell.character;
        before = cell;
    }
    at += (size_t)snprintf(line + at, sizeof line - at, "%s\n", colour ? "\033[0m" : "");
    return cli_write(line, at);
}

/* Lines that are all like the one above them are one line of text. */
static bool draw_cells(const struct blockmap *map, bool colour)
{
    bool ok = true;
    for (uint32_t first = 0; first < map->num_blocks && ok; first += LINE_CELLS) {
        uint32_t next = first + LINE_CELLS, alike = 0;
        ok = draw_line(map, first, colour);
        while (next + LINE_CELLS <= map->num_blocks && same_line(map, first, next)) {
            next += LINE_CELLS;
            alike++;
        }
        if (alike > 1) {
            ok = ok && cli_print("         and %u lines like it, to block %u\n", alike, next - 1);
            first = next - LINE_CELLS;
        }
    }
    return ok;
}

/* Which kind of layers owns how much, where there are several. */
static bool draw_groups(const struct blockmap *map)
{
    uint32_t num_groups = 0;
    bool ok = true;
    (void)quire__model_groups(map->model, &num_groups);
    for (uint32_t g = 0; g < num_groups && num_groups > 1 && ok; g++) {
        struct quire_group_stats stats = {.struct_size = sizeof stats};
        char sees[32] = "all positions";
        if (quire_pool_group_stats(map->pool, g, &stats) != QUIRE_OK)
            continue;
        if (stats.window != 0)
            (void)snprintf(sees, sizeof sees, "%u positions", stats.window);
        ok = cli_print("group %u: %u layers that see %s: %llu blocks held, %llu cached\n", g,
                       stats.num_layers, sees, (unsigned long long)stats.blocks_owned,
                       (unsigned long long)stats.blocks_cached);
    }
    return ok;
}

bool blockmap_draw(const struct blockmap *map, bool colour)
{
    const struct blockmap_counts counts = blockmap_count(map);
    if (!cli_print("%u blocks of %u positions, %llu bytes each\n", map->num_blocks, map->block_size,
                   (unsigned long long)map->block_bytes) ||
        !draw_cells(map, colour))
        return false;
    return cli_print("a: held by branch a alone  A: by a and others  *: pinned  +: cached  "
                     ".: free\n"
                     "%llu own, %llu shared, %llu pinned, %llu cached, %llu free\n",
                     (unsigned long long)counts.own, (unsigned long long)counts.shared,
                     (unsigned long long)counts.pinned, (unsigned long long)counts.cached,
                     (unsigned long long)counts.free) &&
           draw_groups(map) &&
           (map->lost == 0 ||
            cli_print("%llu events were lost: some blocks shown as free may be cached\n",
                      (unsigned long long)map->lost));
}
