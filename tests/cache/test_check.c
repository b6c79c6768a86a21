/* test_check.c - quire_pool_check: each invariant, broken by hand, is reported by its name.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The tests reach into the pool, as a stray write would. */
#include "support/cache_fixture.h"

#include <string.h>

#include "cache/pool.h"

/* A pool with two sequences of five blocks. */
struct scene {
    struct qt_env env;
    struct qt_stream streams[2];
    struct quire_pool *pool;
    struct quire__block *blocks;
    struct quire__seq *first, *second;
    uint32_t owned, unused; /* a block that the first sequence owns, and a free one */
};

static void scene_open(struct scene *scene, const struct qt_variant *variant)
{
    memset(scene, 0, sizeof *scene);
    qt_open(&scene->env, variant, &qt_plain);
    for (uint32_t i = 0; i < 2; i++) {
        qt_stream_open(&scene->env, &scene->streams[i], i);
        qt_append(&scene->env, &scene->streams[i], 18);
    }
    scene->pool = scene->env.pool;
    scene->blocks = scene->pool->blocks.blocks;
    scene->first = quire__seq_find(scene->pool, scene->streams[0].seq);
    scene->second = quire__seq_find(scene->pool, scene->streams[1].seq);
    scene->owned = scene->pool->table_indices[0];
    scene->unused = scene->pool->blocks.first_free;
    assert_ptr_equal(scene->first, &scene->pool->seqs[0]);
    assert_int_equal(scene->blocks[scene->owned].state, QUIRE__BLOCK_OWNED);
    assert_int_equal(scene->blocks[scene->unused].state, QUIRE__BLOCK_FREE);
}

/* One word of the pool, a wrong value for it, and what the check must say. */
struct damage {
    const char *what;
    uint32_t *word;
    uint32_t value;
    const char *invariant;
};

static void assert_found(struct scene *scene, const struct damage *damage)
{
    struct quire_error error = {0};
    uint32_t right = *damage->word;
    assert_int_not_equal(right, damage->value);
    qt_assert_ok(quire_pool_check(scene->pool, NULL));
    *damage->word = damage->value;
    quire_status status = quire_pool_check(scene->pool, &error);
    *damage->word = right;
    if (status != QUIRE_E_CORRUPT || error.status != QUIRE_E_CORRUPT)
        fail_msg("%s: %s", damage->what, quire_status_name(status));
    if (strstr(damage->invariant, (char[]){error.message[0], error.message[1], '\0'}) == NULL)
        fail_msg("%s: \"%s\", not one of %s", damage->what, error.message, damage->invariant);
    qt_assert_ok(quire_pool_check(scene->pool, NULL));
}

static void test_every_broken_invariant_is_reported(void **state)
{
    struct scene scene;
    scene_open(&scene, *state);
    struct quire__blocks *all = &scene.pool->blocks;
    struct quire__block *owned = &scene.blocks[scene.owned], *unused = &scene.blocks[scene.unused];
    uint32_t *table = scene.pool->table_indices, *generations = scene.pool->table_generations;
    struct quire__block *last = unused; /* of the free list */
    while (last->next_free != QUIRE_BLOCK_NONE)
        last = &scene.blocks[last->next_free];
    const struct damage damages[] = {
        {"an owned block called free", &owned->state, QUIRE__BLOCK_FREE, "P1"},
        {"an owned block called cached", &owned->state, QUIRE__BLOCK_CACHED, "P1"},
        {"a block in no state", &owned->state, QUIRE__BLOCK_STATES, "P1"},
        {"a free block called owned", &unused->state, QUIRE__BLOCK_OWNED, "P1"},
        {"a free block called in transit", &unused->state, QUIRE__BLOCK_IN_TRANSIT, "P1 P4"},
        {"a reference too many", &owned->refs, 2, "P2"},
        {"a reference too few", &owned->refs, 0, "P1 P2"},
        {"a reference to a free block", &unused->refs, 1, "P1 P2"},
        {"an entry that names another's block", &table[1], table[0], "P2 P5"},
        {"an entry that names a free block", &table[2], scene.unused, "P1 P2 P5"},
        {"an entry that names no block", &table[2], QUIRE_BLOCK_NONE, "P5"},
        {"an entry of the past", &generations[3], generations[3] - 1, "P5"},
        {"a block reborn under its owner", &owned->generation, owned->generation + 1, "P5"},
        {"one free block too many", &all->in_state[QUIRE__BLOCK_FREE],
         all->in_state[QUIRE__BLOCK_FREE] + 1, "P4"},
        {"one owned block too few", &all->in_state[QUIRE__BLOCK_OWNED], 9, "P4"},
        {"a cached block from nowhere", &all->in_state[QUIRE__BLOCK_CACHED], 1, "P4"},
        {"a free list that lost its head", &all->first_free, unused->next_free, "P4"},
        {"an empty free list", &all->first_free, QUIRE_BLOCK_NONE, "P4"},
        {"a free list that holds an owned block", &all->first_free, scene.owned, "P1"},
        {"a free list that leaves the pool", &last->next_free, 1u << 20, "P1"},
        {"a free list in a circle", &last->next_free, scene.unused, "P1"},
        {"a sequence that owns a block too few", &scene.first->num_blocks, 4, "S1"},
        {"a sequence that owns too many blocks", &scene.first->num_blocks, 1000, "S1"},
        {"a length past the blocks", &scene.first->len, 21, "S1"},
        {"a length too short for its blocks", &scene.second->len, 16, "S1"},
        {"more tokens than positions", &scene.second->num_tokens, 19, "S3"},
        {"a sequence uncounted", &scene.pool->num_live, 1, "P4"},
        {"a step that is not there", &scene.pool->num_open, 1, "P4"},
    };
    for (size_t i = 0; i < QT_LEN(damages); i++)
        assert_found(&scene, &damages[i]);
    for (uint32_t i = 0; i < 2; i++) {
        qt_stream_check(&scene.env, &scene.streams[i]);
        qt_stream_close(&scene.env, &scene.streams[i]);
    }
    qt_close(&scene.env);
}

/* ---- the accountant alone ---- */

enum { BLOCKS = 5 };

static void assert_accounts(const struct quire__blocks *blocks, const uint32_t *refs)
{
    struct quire_error error = {0};
    if (quire__blocks_check(blocks, refs, &error) != QUIRE_OK)
        fail_msg("%s", error.message);
}

static void test_a_released_id_is_refused_for_ever(void **state)
{
    struct quire__blocks blocks;
    uint32_t refs[BLOCKS] = {0};
    (void)state;
    qt_assert_ok(quire__blocks_init(&blocks, BLOCKS));
    struct quire__block_id old = quire__blocks_take(&blocks);
    qt_assert_ok(quire__blocks_release(&blocks, old));
    qt_assert_status(quire__blocks_release(&blocks, old), QUIRE_E_INVAL);
    qt_assert_status(quire__blocks_acquire(&blocks, old), QUIRE_E_INVAL);
    for (uint32_t i = 0; i < 100; i++) { /* also while its block lives again */
        struct quire__block_id next = quire__blocks_take(&blocks);
        qt_assert_status(quire__blocks_release(&blocks, old), QUIRE_E_INVAL);
        qt_assert_status(quire__blocks_acquire(&blocks, old), QUIRE_E_INVAL);
        refs[next.index] = 1;
        assert_accounts(&blocks, refs);
        refs[next.index] = 0;
        qt_assert_ok(quire__blocks_release(&blocks, next));
    }
    struct quire__block_id nowhere = {BLOCKS, 1}, none = {QUIRE_BLOCK_NONE, 1};
    struct quire__block_id unborn = {blocks.first_free, 0}; /* the life that comes next */
    unborn.generation = blocks.blocks[unborn.index].generation;
    qt_assert_status(quire__blocks_release(&blocks, unborn), QUIRE_E_INVAL);
    qt_assert_status(quire__blocks_acquire(&blocks, unborn), QUIRE_E_INVAL);
    qt_assert_status(quire__blocks_release(&blocks, nowhere), QUIRE_E_INVAL);
    qt_assert_status(quire__blocks_acquire(&blocks, none), QUIRE_E_INVAL);
    assert_accounts(&blocks, refs);
    quire__blocks_deinit(&blocks);
}

static void test_a_block_is_free_with_its_last_reference(void **state)
{
    struct quire__blocks blocks;
    struct quire__block_id ids[BLOCKS];
    uint32_t refs[BLOCKS];
    (void)state;
    qt_assert_ok(quire__blocks_init(&blocks, BLOCKS));
    for (uint32_t i = 0; i < BLOCKS; i++) {
        ids[i] = quire__blocks_take(&blocks);
        for (uint32_t j = 0; j < i; j++) {
            assert_int_not_equal(ids[i].index, ids[j].index);
            qt_assert_ok(quire__blocks_acquire(&blocks, ids[i]));
        }
    }
    for (uint32_t i = 0; i < BLOCKS; i++)
        refs[ids[i].index] = i + 1;
    assert_accounts(&blocks, refs);
    assert_int_equal(blocks.in_state[QUIRE__BLOCK_FREE], 0);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            assert_int_equal(blocks.in_state[QUIRE__BLOCK_FREE], i);
            qt_assert_ok(quire__blocks_release(&blocks, ids[i]));
            refs[ids[i].index]--;
            assert_accounts(&blocks, refs);
        }
        qt_assert_status(quire__blocks_release(&blocks, ids[i]), QUIRE_E_INVAL);
    }
    assert_int_equal(blocks.in_state[QUIRE__BLOCK_FREE], BLOCKS);
    assert_int_equal(blocks.peak, BLOCKS);
    quire__blocks_deinit(&blocks);
}

static void test_references_do_not_wrap(void **state)
{
    struct quire__blocks blocks;
    (void)state;
    qt_assert_ok(quire__blocks_init(&blocks, BLOCKS));
    struct quire__block_id id = quire__blocks_take(&blocks);
    blocks.blocks[id.index].refs = UINT32_MAX;
    qt_assert_status(quire__blocks_acquire(&blocks, id), QUIRE_E_LIMIT);
    assert_int_equal(blocks.blocks[id.index].refs, UINT32_MAX);
    quire__blocks_deinit(&blocks);
}

int main(void)
{
    static const struct qt_test tests[] = {
        QT_TEST(test_every_broken_invariant_is_reported, QT_ALL),
        QT_TEST(test_a_released_id_is_refused_for_ever, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_a_block_is_free_with_its_last_reference, QT_ON_CPU | QT_PAGED),
        QT_TEST(test_references_do_not_wrap, QT_ON_CPU | QT_PAGED),
    };
    return qt_run("check", tests, QT_LEN(tests));
}
