/* test_check.c - quire_pool_check: each invariant, broken by hand, is reported by its name.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The tests reach into the pool, as a stray write would. */
#include "support/cache_fixture.h"

#include <string.h>

#include "cache/pool.h"

enum { TOKENS = 18 };

/* A pool with two live sequences of five blocks, the first with known tokens, and the cached blocks
 * of a third that has ended. */
struct scene {
    struct qt_env env;
    struct qt_stream streams[2];
    struct quire_pool *pool;
    struct quire__block *blocks;
    struct quire__seq *first, *second;
    uint32_t owned, unused; /* a block that the first sequence owns, and a free one */
    uint32_t leaf, inner;   /* cached blocks, paged only */
};

static void append(struct scene *scene, struct qt_stream *stream, uint32_t first_token)
{
    uint32_t tokens[TOKENS];
    struct qt_batch batch = {0};
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = first_token + i;
    qt_batch_add(&batch, stream, TOKENS, tokens);
    qt_batch_store(&scene->env, &batch);
}

static void scene_open(struct scene *scene, const struct qt_variant *variant)
{
    struct qt_stream third;
    memset(scene, 0, sizeof *scene);
    qt_open(&scene->env, variant, &qt_plain);
    scene->pool = scene->env.pool;
    scene->blocks = scene->pool->blocks.records;
    qt_stream_open(&scene->env, &scene->streams[0], 0);
    append(scene, &scene->streams[0], 100);
    qt_stream_open(&scene->env, &scene->streams[1], 1);
    qt_append(&scene->env, &scene->streams[1], TOKENS);
    qt_stream_open(&scene->env, &third, 2);
    append(scene, &third, 200);
    scene->inner = scene->pool->table_indices[quire__pool_row(scene->pool, 0, 2)];
    scene->leaf = scene->pool->table_indices[quire__pool_row(scene->pool, 0, 2) + 4];
    qt_stream_close(&scene->env, &third);
    scene->first = quire__seq_find(scene->pool, scene->streams[0].seq);
    scene->second = quire__seq_find(scene->pool, scene->streams[1].seq);
    scene->owned = scene->pool->table_indices[0];
    scene->unused = scene->pool->blocks.first_free;
    assert_ptr_equal(scene->first, &scene->pool->seqs[0]);
    assert_int_equal(scene->blocks[scene->owned].state, QUIRE__BLOCK_OWNED);
    assert_int_equal(scene->blocks[scene->unused].state, QUIRE__BLOCK_FREE);
}

static void scene_close(struct scene *scene)
{
    for (uint32_t i = 0; i < 2; i++) {
        qt_stream_check(&scene->env, &scene->streams[i]);
        qt_stream_close(&scene->env, &scene->streams[i]);
    }
    qt_close(&scene->env);
}

/* Some bytes of the pool, wrong ones for them, and what the check must say. */
struct damage {
    const char *what;
    void *at;
    const void *wrong;
    size_t bytes;
    const char *invariants;
};

static void assert_found(struct scene *scene, const struct damage *damage)
{
    struct quire_error error = {0};
    uint8_t right[64];
    assert_true(damage->bytes <= sizeof right);
    assert_memory_not_equal(damage->at, damage->wrong, damage->bytes);
    qt_assert_ok(quire_pool_check(scene->pool, NULL));
    memcpy(right, damage->at, damage->bytes);
    memcpy(damage->at, damage->wrong, damage->bytes);
    quire_status status = quire_pool_check(scene->pool, &error);
    memcpy(damage->at, right, damage->bytes);
    if (status != QUIRE_E_CORRUPT || error.status != QUIRE_E_CORRUPT)
        fail_msg("%s: %s", damage->what, quire_status_name(status));
    if (strstr(damage->invariants, (char[]){error.message[0], error.message[1], '\0'}) == NULL)
        fail_msg("%s: \"%s\", not one of %s", damage->what, error.message, damage->invariants);
    qt_assert_ok(quire_pool_check(scene->pool, NULL));
}

#define WORD(what, at, value, invariants)                                                          \
    {                                                                                              \
        (what), &(at), &(const uint32_t){(value)}, sizeof(uint32_t), (invariants)                  \
    }
/* A record in which one field is changed. */
#define RECORD(what, type, at, field, value, invariants)                                           \
    {                                                                                              \
        (what), &(at), changed_##type##_##field(&(at), (value)), sizeof(at), (invariants)          \
    }
#define CHANGE(type, field)                                                                        \
    static const void *changed_##type##_##field(const struct quire__##type *from, uint32_t value)  \
    {                                                                                              \
        static struct quire__##type copies[8];                                                     \
        static uint32_t next;                                                                      \
        struct quire__##type *copy = &copies[next++ % 8];                                          \
        memcpy(copy, from, sizeof *copy);                                                          \
        copy->field = value;                                                                       \
        return copy;                                                                               \
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
CHANGE(block, state)
CHANGE(block, refs)
CHANGE(block, table)
CHANGE(block, node)
CHANGE(block, place)
CHANGE(node, num_tokens)
CHANGE(node, height)
CHANGE(node, severed)
CHANGE(node, cursors)
CHANGE(node, cached_children)
CHANGE(node, has_cached)
CHANGE(node, parent)
CHANGE(node, children)
CHANGE(node, left)
#pragma GCC diagnostic pop

static void test_every_broken_invariant_is_reported(void **state)
{
    struct scene scene;
    scene_open(&scene, *state);
    struct quire__blocks *all = &scene.pool->blocks;
    struct quire__block *owned = &scene.blocks[scene.owned], *unused = &scene.blocks[scene.unused];
    uint32_t *table = scene.pool->table_indices;
    struct quire__block *last = unused; /* of the free list */
    while (last->place != QUIRE_BLOCK_NONE)
        last = &scene.blocks[last->place];
    const struct damage damages[] = {
        RECORD("an owned block called free", block, *owned, state, QUIRE__BLOCK_FREE, "P1"),
        RECORD("an owned block called cached", block, *owned, state, QUIRE__BLOCK_CACHED, "P1 X4"),
        RECORD("a free block called owned", block, *unused, state, QUIRE__BLOCK_OWNED, "P1"),
        RECORD("a free block in transit", block, *unused, state, QUIRE__BLOCK_IN_TRANSIT, "P1 P4"),
        RECORD("a reference too many", block, *owned, refs, 2, "P2"),
        RECORD("a reference too few", block, *owned, refs, 0, "P1 P2"),
        RECORD("a reference to a free block", block, *unused, refs, 1, "P1 P2"),
        WORD("an entry that names another's block", table[1], table[0], "P2"),
        WORD("an entry that names a free block", table[2], scene.unused, "P1 P2"),
        WORD("an entry that names no block", table[2], QUIRE_BLOCK_NONE, "P1"),
        WORD("one free block too many", all->in_state[QUIRE__BLOCK_FREE],
             all->in_state[QUIRE__BLOCK_FREE] + 1, "P4"),
        WORD("one owned block too few", all->in_state[QUIRE__BLOCK_OWNED], 9, "P4"),
        WORD("a cached block from nowhere", all->in_state[QUIRE__BLOCK_CACHED],
             all->in_state[QUIRE__BLOCK_CACHED] + 1, "P4"),
        WORD("a free list that lost its head", all->first_free, unused->place, "P4"),
        WORD("an empty free list", all->first_free, QUIRE_BLOCK_NONE, "P4"),
        WORD("a free list that holds an owned block", all->first_free, scene.owned, "P1"),
        RECORD("a free list that leaves the pool", block, *last, place, 1u << 20, "P1"),
        RECORD("a free list in a circle", block, *last, place, scene.unused, "P1"),
        WORD("a sequence that owns a block too few", scene.first->num_blocks, 4, "S1"),
        WORD("a sequence that owns too many blocks", scene.first->num_blocks, 1000, "S1"),
        WORD("a length past the blocks", scene.second->len, 21, "S1"),
        WORD("a length too short for its blocks", scene.second->len, 16, "S1"),
        WORD("more tokens than positions", scene.second->tail_count, 19, "S3"),
        WORD("fewer tokens than are known", scene.first->tail_count, 1, "S3"),
        WORD("a sequence uncounted", scene.pool->num_live, 1, "P4"),
        WORD("a step that is not there", scene.pool->num_open, 1, "P4"),
    };
    for (size_t i = 0; i < QT_LEN(damages); i++)
        assert_found(&scene, &damages[i]);
    scene_close(&scene);
}

static void test_every_broken_invariant_of_the_index_is_reported(void **state)
{
    struct scene scene;
    scene_open(&scene, *state);
    struct quire__index *index = &scene.pool->index;
    struct quire__block *leaf = &scene.blocks[scene.leaf], *inner = &scene.blocks[scene.inner];
    struct quire__node *top = &index->nodes[inner->node], *end = &index->nodes[leaf->node];
    struct quire__node *path = &index->nodes[scene.first->cursor];
    struct quire__candidate *heap = scene.pool->evictor.heap;
    const struct damage damages[] = {
        RECORD("a cached block called free", block, *leaf, state, QUIRE__BLOCK_FREE, "P1 X4"),
        RECORD("a cached block of another table", block, *leaf, table, 1, "X4 P1"),
        RECORD("a block that names no node", block, *leaf, node, QUIRE__NODE_NONE, "X4"),
        RECORD("a block that names another's node", block, *leaf, node, inner->node, "X4"),
        RECORD("a leaf that is not in the heap", block, *leaf, place, QUIRE__PLACE_NONE, "E1"),
        RECORD("a block above a cached one, in the heap", block, *inner, place, 0, "E1"),
        WORD("a heap that lost its last", scene.pool->evictor.count, 0, "E1"),
        WORD("a heap with another's block", heap[0].block, scene.inner, "E1"),
        RECORD("a node that counts no cached child", node, *top, cached_children, 0, "X4"),
        RECORD("a node that forgot its cached block", node, *end, has_cached, 0, "X4"),
        RECORD("a cursor too many", node, *path, cursors, 2, "X4"),
        RECORD("a cursor too few", node, *path, cursors, 0, "X4"),
        RECORD("a node too high", node, *end, height, 2, "X4"),
        RECORD("a node of no tokens", node, *end, num_tokens, 0, "X4"),
        RECORD("a partial node with children", node, *top, num_tokens, 3, "X4"),
        RECORD("a severed node in a tree", node, *end, severed, 1, "X4"),
        RECORD("a node of another parent", node, *end, parent, inner->node, "X4"),
        RECORD("a lost subtree", node, *top, children, QUIRE__NODE_NONE, "X4"),
        RECORD("a sibling twice", node, *end, left, leaf->node, "X4"),
        WORD("tokens out of order", quire__index_key(index, inner->node)[0], 1, "X4"),
        WORD("a node uncounted", index->used, index->used - 1, "X4"),
        WORD("a node that lost its block", quire__index_blocks(index, leaf->node)[0],
             QUIRE_BLOCK_NONE, "X4"),
        WORD("a node with another's block", quire__index_blocks(index, leaf->node)[0], scene.owned,
             "X4"),
    };
    for (size_t i = 0; i < QT_LEN(damages); i++)
        assert_found(&scene, &damages[i]);
    scene_close(&scene);
}

/* ---- the accountant alone ---- */

static void test_a_released_block_is_not_released_again(void **state)
{
    struct scene scene;
    scene_open(&scene, *state);
    struct quire_pool *pool = scene.pool;
    uint32_t block = quire__block_take(pool, 0, 1), total = pool->blocks.total;
    assert_int_equal(pool->blocks.records[block].refs, 1);
    quire__block_acquire(pool, block);
    qt_assert_ok(quire__block_release(pool, block, false));
    assert_int_equal(pool->blocks.records[block].state, QUIRE__BLOCK_OWNED);
    qt_assert_ok(quire__block_release(pool, block, false));
    assert_int_equal(pool->blocks.records[block].state, QUIRE__BLOCK_FREE);
    qt_assert_status(quire__block_release(pool, block, false), QUIRE_E_INVAL);
    qt_assert_status(quire__block_release(pool, total, false), QUIRE_E_INVAL);
    qt_assert_status(quire__block_release(pool, QUIRE_BLOCK_NONE, false), QUIRE_E_INVAL);
    qt_assert_status(quire__block_release(pool, scene.leaf, false), QUIRE_E_INVAL); /* cached */
    scene_close(&scene);
}

static void test_blocks_are_recorded_in_few_bytes(void **state)
{
    (void)state;
    assert_int_equal(sizeof(struct quire__block), 16);
    assert_int_equal(sizeof(struct quire__node), 32);
    assert_int_equal(sizeof(struct quire__candidate), 8);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_every_broken_invariant_is_reported, QT_ALL),
        QT_TEST(test_every_broken_invariant_of_the_index_is_reported,
                QT_ON_CPU | QT_ON_OPAQUE | QT_ON_NONE | QT_PAGED),
        QT_TEST(test_a_released_block_is_not_released_again, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_blocks_are_recorded_in_few_bytes, QT_ON_CPU | QT_PAGED),
    };
    return qt_run("check", tests, QT_LEN(tests));
}
