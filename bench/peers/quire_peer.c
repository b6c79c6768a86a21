/* quire_peer.c - times Quire's pool on the works of bench/peers.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: bench-quire-peer RUNS; prints JSON. It uses the public headers only, on the backend
 * `none`: like the managers it stands beside, it keeps ids and no K/V. */
#include <string.h>

#include <quire/quire.h>
#include <quire/version.h>

#include "works.h"

enum { TAKE, PUBLISH, FREE_PLAIN, HIT, FREE, FORK, UNFORK, ROLL, REQUEST, STEP, NUM_ROWS };

static struct row rows[NUM_ROWS] = {
    [TAKE] = {.name = "take"},
    [PUBLISH] = {.name = "publish"},
    [FREE_PLAIN] = {.name = "free_plain"},
    [HIT] = {.name = "hit"},
    [FREE] = {.name = "free"},
    [FORK] = {.name = "fork"},
    [UNFORK] = {.name = "unfork"},
    [ROLL] = {.name = "rollback"},
    [REQUEST] = {.name = "request"},
    [STEP] = {.name = "step64"},
};
static uint32_t tokens[SEQS][PROMPT + SEQS];
static uint32_t long_tokens[LONG + 1];

/* Ends the program when a call did not do what the work needs. */
static void need(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "quire_peer: %s failed\n", what);
    exit(1);
}

static struct quire_pool *make_pool(struct quire_backend *backend, uint32_t num_blocks,
                                    uint32_t max_seq_len)
{
    const uint32_t layer = 0;
    struct quire_group_config group = {
        .layers = &layer, .num_layers = 1, .num_heads = 1, .num_kv_heads = 1, .head_dim = 64};
    struct quire_pool_config config;
    struct quire_error error = {0};
    struct quire_pool *pool = NULL;
    quire_pool_config_init(&config);
    config.backend = backend;
    config.groups = &group;
    config.num_groups = 1;
    config.layout = QUIRE_LAYOUT_PAGED;
    config.block_size = BLOCK;
    config.num_blocks = num_blocks;
    config.max_seqs = SEQS;
    config.max_seq_len = max_seq_len;
    config.max_step_tokens = PROMPT + SEQS;
    if (quire_pool_create(&config, &pool, &error) != QUIRE_OK)
        fprintf(stderr, "quire_peer: %s\n", error.message);
    need(pool != NULL, "quire_pool_create");
    return pool;
}

/* One transaction that adds tokens to one sequence. */
static void append(struct quire_pool *pool, quire_seq seq, const uint32_t *list, uint32_t count)
{
    struct quire_step_item item = {seq, count, list};
    quire_step step;
    need(quire_step_begin(pool, &item, 1, &step, NULL) == QUIRE_OK, "quire_step_begin");
    need(quire_step_commit(pool, step, NULL) == QUIRE_OK, "quire_step_commit");
}

static void append_long(struct quire_pool *pool, quire_seq seq, const uint32_t *list,
                        uint32_t count)
{
    for (uint32_t done = 0; done < count; done += PROMPT)
        append(pool, seq, list + done, count - done < PROMPT ? count - done : PROMPT);
}

static quire_seq start(struct quire_pool *pool, const uint32_t *list, uint32_t count)
{
    struct quire_seq_config config;
    quire_seq seq;
    quire_seq_config_init(&config);
    config.tokens = list;
    config.num_tokens = count;
    need(quire_seq_create(pool, &config, &seq) == QUIRE_OK, "quire_seq_create");
    return seq;
}

static void end(struct quire_pool *pool, quire_seq seq)
{
    need(quire_seq_destroy(pool, seq) == QUIRE_OK, "quire_seq_destroy");
}

/* 64 prompts take their blocks, and give them back: with tokens the blocks become findable. */
static void prompts_work(struct quire_backend *backend, int runs, int findable)
{
    const double blocks = SEQS * PROMPT / BLOCK;
    struct quire_pool *pool = make_pool(backend, SEQS * PROMPT / BLOCK, PROMPT);
    quire_seq seqs[SEQS];
    for (int run = 0; run < runs; run++) {
        for (int s = 0; s < SEQS; s++)
            seqs[s] = start(pool, NULL, 0);
        double begin = now_ns();
        for (int s = 0; s < SEQS; s++)
            append(pool, seqs[s], findable ? tokens[s] : NULL, PROMPT);
        double taken = now_ns();
        for (int s = 0; s < SEQS; s++)
            end(pool, seqs[s]);
        double freed = now_ns();
        add_run(&rows[findable ? PUBLISH : TAKE], (taken - begin) / blocks);
        if (!findable)
            add_run(&rows[FREE_PLAIN], (freed - taken) / blocks);
        need(quire_pool_reset(pool) == QUIRE_OK, "quire_pool_reset");
    }
    quire_pool_destroy(pool);
}

/* A request of the long prompt: what is cached is found, the last token gets its position. */
static quire_seq admit_long(struct quire_pool *pool)
{
    uint32_t len;
    quire_seq seq = start(pool, long_tokens, LONG + 1);
    need(quire_seq_length(pool, seq, &len) == QUIRE_OK && len == LONG, "the prefix hit");
    append(pool, seq, long_tokens + LONG, 1);
    return seq;
}

/* One long prompt is found in the cache and given back; then forked and cut while it lives. */
static void long_work(struct quire_backend *backend, int runs)
{
    const double blocks = LONG / BLOCK;
    struct quire_pool *pool = make_pool(backend, LONG / BLOCK + 16, LONG + PROMPT);
    quire_seq seq = start(pool, NULL, 0);
    append_long(pool, seq, long_tokens, LONG + 1);
    end(pool, seq);
    for (int run = 0; run < runs; run++) {
        double begin = now_ns();
        seq = admit_long(pool);
        double found = now_ns();
        end(pool, seq);
        add_run(&rows[HIT], (found - begin) / blocks);
        add_run(&rows[FREE], (now_ns() - found) / blocks);
    }
    seq = admit_long(pool);
    for (int run = 0; run < runs; run++) {
        quire_seq fork;
        double begin = now_ns();
        need(quire_seq_fork(pool, seq, LONG, &fork, NULL) == QUIRE_OK, "quire_seq_fork");
        double forked = now_ns();
        end(pool, fork);
        add_run(&rows[FORK], (forked - begin) / 1000);
        add_run(&rows[UNFORK], (now_ns() - forked) / 1000);
    }
    for (int run = 0; run < runs; run++) {
        const uint32_t kept = LONG + 1 - ROLLBACK;
        double begin = now_ns();
        need(quire_seq_truncate(pool, seq, kept, NULL) == QUIRE_OK, "quire_seq_truncate");
        add_run(&rows[ROLL], (now_ns() - begin) / 1000);
        append(pool, seq, long_tokens + kept, ROLLBACK);
    }
    quire_pool_destroy(pool);
}

/* Requests of one block come, find nothing, publish their block and go, in a pool that is full of
 * the blocks of others. */
static void request_work(struct quire_backend *backend, int runs)
{
    static uint32_t lists[REQUESTS][BLOCK];
    struct quire_pool *pool = make_pool(backend, REQUESTS / 2, PROMPT);
    for (int run = -1; run < runs; run++) {
        for (uint32_t r = 0; r < REQUESTS; r++)
            for (uint32_t i = 0; i < BLOCK; i++)
                lists[r][i] = prompt_token((uint32_t)(run + 1) * REQUESTS + r, i);
        double begin = now_ns();
        for (uint32_t r = 0; r < REQUESTS; r++) {
            quire_seq seq = start(pool, lists[r], BLOCK);
            append(pool, seq, lists[r], BLOCK);
            end(pool, seq);
        }
        if (run >= 0)
            add_run(&rows[REQUEST], (now_ns() - begin) / REQUESTS);
    }
    quire_pool_destroy(pool);
}

/* 64 sequences of 2,048 to 2,111 positions grow by one token each: four take a block. */
static void step_work(struct quire_backend *backend, int runs)
{
    const uint32_t max_len = PROMPT + SEQS + RUNS_MAX;
    struct quire_pool *pool = make_pool(backend, SEQS * (max_len / BLOCK + 1), max_len);
    struct quire_step_item items[SEQS];
    uint32_t next[SEQS];
    for (uint32_t s = 0; s < SEQS; s++) {
        quire_seq seq = start(pool, NULL, 0);
        append(pool, seq, tokens[s], PROMPT + s);
        items[s] = (struct quire_step_item){seq, 1, &next[s]};
    }
    for (int run = 0; run < runs; run++) {
        quire_step step;
        for (uint32_t s = 0; s < SEQS; s++)
            next[s] = step_token(s, (uint32_t)run);
        double begin = now_ns();
        need(quire_step_begin(pool, items, SEQS, &step, NULL) == QUIRE_OK, "quire_step_begin");
        need(quire_step_commit(pool, step, NULL) == QUIRE_OK, "quire_step_commit");
        add_run(&rows[STEP], (now_ns() - begin) / 1000);
    }
    quire_pool_destroy(pool);
}

int main(int argc, char **argv)
{
    struct quire_backend *backend = NULL;
    int runs = argc == 2 ? runs_argument(argv[1]) : 0;
    if (runs == 0)
        return 2;
    for (uint32_t s = 0; s < SEQS; s++)
        for (uint32_t i = 0; i < PROMPT + SEQS; i++)
            tokens[s][i] = prompt_token(s, i);
    for (uint32_t i = 0; i <= LONG; i++)
        long_tokens[i] = prompt_token(0, i);
    need(quire_backend_create("none", NULL, &backend, NULL) == QUIRE_OK, "quire_backend_create");
    prompts_work(backend, runs, 0);
    prompts_work(backend, runs, 1);
    long_work(backend, runs);
    request_work(backend, runs);
    step_work(backend, runs);
    quire_backend_destroy(backend);
    print_rows("quire", QUIRE_VERSION, rows, NUM_ROWS);
    return 0;
}
