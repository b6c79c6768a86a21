/* trace_replay.c - plays a trace on a pool of ids: docs/formats/trace.md has the rules.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "quire/trace.h"

/* What is known of a request besides its line. */
struct progress {
    uint32_t generated; /* tokens of its answer so far */
    bool started;
    bool no_lookup; /* even alone it could not run from the cache */
};

struct running {
    uint32_t request;
    uint32_t len;
    quire_seq seq;
};

struct replay {
    const struct trace *trace;
    const struct trace_replay_config *config;
    struct quire_pool *pool;
    struct trace_figures *figures;
    struct quire_error *error;
    struct progress *progress;     /* [num_requests] */
    struct running *running;       /* [num_running] of max_seqs, in the order they started */
    struct quire_step_item *items; /* [max_seqs] */
    uint32_t *returned;            /* [num_returned] of max_seqs, preempted; the last goes first */
    uint32_t num_running, num_returned;
    uint32_t next; /* request to arrive */
    bool full;     /* the head of the line lacked blocks, and nothing has ended since */
    uint64_t now_us;
    double waste_sum;
};

/* ---- small facts ---- */

static uint64_t blocks_of(const struct replay *r, uint64_t positions)
{
    return quire__ceil_div(positions, r->config->block_size);
}

/* Tokens of a request that there are to compute by now. */
static uint32_t known_tokens(const struct replay *r, uint32_t request)
{
    return r->trace->requests[request].num_prompt + r->progress[request].generated;
}

/* Positions that a request computes in all: not that of the last token. */
static uint32_t last_position(const struct trace_request *request)
{
    return request->num_prompt + (request->num_output > 0 ? request->num_output - 1 : 0);
}

static bool is_decoding(const struct replay *r, const struct running *running)
{
    return r->progress[running->request].generated > 0 &&
           known_tokens(r, running->request) - running->len == 1;
}

static quire_status failed(const struct replay *r, quire_status status, const char *what)
{
    return quire__fail(r->error, status, "the replay failed at %s: %s", what,
                       quire_status_text(status));
}

static struct quire_seq_config seq_config(const struct replay *r, uint32_t request)
{
    const struct trace_request *asked = &r->trace->requests[request];
    struct quire_seq_config config;
    quire_seq_config_init(&config);
    config.tokens = asked->tokens;
    config.num_tokens = known_tokens(r, request);
    config.salt = asked->salt;
    config.adapter = asked->adapter;
    config.no_lookup = r->progress[request].no_lookup;
    return config;
}

static struct quire_pool_stats pool_stats(const struct replay *r)
{
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    QUIRE_CHECK(quire_pool_stats(r->pool, &stats) == QUIRE_OK);
    return stats;
}

/* ---- starting ---- */

/* Whether the blocks that this and the running prompts still lack are there. */
static bool has_room(const struct replay *r, const struct running *added)
{
    const struct quire_pool_stats stats = pool_stats(r);
    uint64_t lacking =
        blocks_of(r, known_tokens(r, added->request)) - added->len / r->config->block_size;
    for (uint32_t i = 0; i < r->num_running; i++) {
        const struct running *other = &r->running[i];
        lacking += blocks_of(r, known_tokens(r, other->request)) - blocks_of(r, other->len);
    }
    return lacking <= stats.blocks_free + stats.blocks_cached;
}

static void count_start(struct replay *r, const struct running *added)
{
    const struct trace_request *asked = &r->trace->requests[added->request];
    struct progress *progress = &r->progress[added->request];
    struct trace_figures *f = r->figures;
    if (progress->started)
        return;
    progress->started = true;
    const uint64_t wait_us = r->now_us - asked->at_us;
    f->served++;
    f->waited += wait_us >= r->config->step_us;
    f->wait_us_mean += (double)wait_us;
    f->wait_us_max = wait_us > f->wait_us_max ? wait_us : f->wait_us_max;
    f->prompt_tokens += asked->num_prompt;
    f->hit_requests += added->len > 0;
    f->hit_tokens += added->len;
}

/* Starts one request, or leaves it where it is: *started says which. */
static quire_status start(struct replay *r, uint32_t request, bool *started)
{
    struct running added = {.request = request};
    const struct quire_seq_config config = seq_config(r, request);
    quire_status status = quire_seq_create(r->pool, &config, &added.seq);
    if (status == QUIRE_OK)
        status = quire_seq_length(r->pool, added.seq, &added.len);
    if (status != QUIRE_OK)
        return failed(r, status, "the start of a request");
    *started = r->num_running == 0 || has_room(r, &added);
    if (!*started)
        return quire_seq_destroy(r->pool, added.seq);
    count_start(r, &added);
    r->running[r->num_running++] = added;
    return QUIRE_OK;
}

static quire_status start_all(struct replay *r)
{
    const struct trace *trace = r->trace;
    while (r->num_running < r->config->max_seqs && !r->full) {
        bool started = true;
        bool again = r->num_returned > 0;
        uint32_t request = again ? r->returned[r->num_returned - 1] : r->next;
        if (!again &&
            (request == trace->num_requests || trace->requests[request].at_us > r->now_us))
            break;
        if (blocks_of(r, last_position(&trace->requests[request])) > r->figures->num_blocks) {
            r->figures->refused++;
            r->next++;
            continue;
        }
        quire_status status = start(r, request, &started);
        if (status != QUIRE_OK)
            return status;
        r->full = !started;
        if (started && again)
            r->num_returned--;
        else if (started)
            r->next++;
    }
    return QUIRE_OK;
}

/* ---- a step ---- */

static void remove_running(struct replay *r, uint32_t place)
{
    r->num_running--;
    memmove(&r->running[place], &r->running[place + 1],
            (r->num_running - place) * sizeof *r->running);
    r->full = false;
}

/* The request that started last gives way. One that is alone and still lacks a block holds cached
 * blocks beside the copies it needs: it starts again without. */
static quire_status preempt(struct replay *r)
{
    const struct running *last = &r->running[r->num_running - 1];
    struct progress *progress = &r->progress[last->request];
    if (progress->no_lookup && r->num_running == 1)
        return QUIRE_E_NOSPACE;
    quire_status status = quire_seq_destroy(r->pool, last->seq);
    progress->no_lookup = r->num_running == 1;
    r->returned[r->num_returned++] = last->request;
    r->figures->preempted++;
    remove_running(r, r->num_running - 1);
    return status;
}

/* What others computed of a prompt since it was looked up. */
static quire_status look_again(struct replay *r, struct running *running)
{
    const struct quire_seq_config config = seq_config(r, running->request);
    uint32_t len = running->len;
    if (config.no_lookup)
        return QUIRE_OK;
    quire_status status = quire_seq_rematch(r->pool, running->seq, &config, &len);
    const uint32_t prompt = r->trace->requests[running->request].num_prompt;
    if (status == QUIRE_OK && len > running->len && len <= prompt) {
        r->figures->hit_requests += running->len == 0;
        r->figures->hit_tokens += len - running->len;
    }
    running->len = len;
    return status;
}

/* Fills r->items: one token of each that generates, then prompts. */
static quire_status choose(struct replay *r, uint32_t *num_items)
{
    uint32_t left = r->config->step_tokens;
    *num_items = 0;
    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < r->num_running && left > 0; i++) {
            struct running *running = &r->running[i];
            if (is_decoding(r, running) != (pass == 0))
                continue;
            quire_status status = pass == 0 ? QUIRE_OK : look_again(r, running);
            if (status != QUIRE_OK)
                return failed(r, status, "a second look at a prompt");
            uint32_t lacking = known_tokens(r, running->request) - running->len;
            uint32_t count = lacking < left ? lacking : left;
            left -= count;
            r->items[(*num_items)++] = (struct quire_step_item){
                running->seq, count, r->trace->requests[running->request].tokens + running->len};
        }
    }
    return QUIRE_OK;
}

/* Begins and commits a step; where blocks are lacking, with fewer requests. */
static quire_status step(struct replay *r, uint32_t *num_items)
{
    quire_status status;
    quire_step open;
    do {
        status = choose(r, num_items);
        if (status != QUIRE_OK || *num_items == 0)
            return status;
        status = quire_step_begin(r->pool, r->items, *num_items, &open, NULL);
        if (status == QUIRE_E_NOSPACE && preempt(r) != QUIRE_OK)
            return failed(r, QUIRE_E_NOSPACE, "a request that gave way");
    } while (status == QUIRE_E_NOSPACE);
    if (status == QUIRE_OK)
        status = quire_step_commit(r->pool, open, NULL);
    return status == QUIRE_OK ? QUIRE_OK : failed(r, status, "a step");
}

/* What the running requests hold at this moment. */
static quire_status measure(struct replay *r)
{
    const struct quire_pool_stats stats = pool_stats(r);
    uint64_t blocks = 0, positions = 0;
    for (uint32_t i = 0; i < r->num_running; i++) {
        struct quire_seq_stats seq = {.struct_size = sizeof seq};
        quire_status status = quire_seq_stats(r->pool, r->running[i].seq, &seq);
        if (status != QUIRE_OK)
            return failed(r, status, "the figures of a sequence");
        blocks += seq.blocks;
        positions += seq.len;
    }
    /* Blocks that several hold are full: each empty position is counted once. */
    const uint64_t size = r->config->block_size, empty = blocks * size - positions;
    const double waste_pct = 100.0 * (double)empty / (double)(stats.blocks_owned * size - empty);
    struct trace_figures *f = r->figures;
    f->waste_pct_max = waste_pct > f->waste_pct_max ? waste_pct : f->waste_pct_max;
    f->peak_held = stats.blocks_owned > f->peak_held ? stats.blocks_owned : f->peak_held;
    r->waste_sum += waste_pct;
    return QUIRE_OK;
}

/* Every item's request has its tokens: it generates one more, or is done. */
static quire_status advance(struct replay *r, uint32_t num_items)
{
    for (uint32_t i = r->num_running; i-- > 0;) {
        struct running *running = &r->running[i];
        const struct trace_request *asked = &r->trace->requests[running->request];
        uint32_t count = 0;
        for (uint32_t k = 0; k < num_items && count == 0; k++)
            count = r->items[k].seq.id == running->seq.id ? r->items[k].n_new : 0;
        running->len += count;
        r->figures->computed_tokens += count;
        if (count == 0 || running->len < known_tokens(r, running->request))
            continue;
        uint32_t *generated = &r->progress[running->request].generated;
        if (*generated < asked->num_output) {
            (*generated)++;
            r->figures->output_tokens++;
        }
        if (*generated < asked->num_output)
            continue;
        quire_status status = quire_seq_destroy(r->pool, running->seq);
        if (status != QUIRE_OK)
            return failed(r, status, "the end of a request");
        remove_running(r, i);
    }
    return QUIRE_OK;
}

static quire_status play(struct replay *r)
{
    const struct trace *trace = r->trace;
    quire_status status = QUIRE_OK;
    while (status == QUIRE_OK) {
        uint32_t num_items = 0;
        if (r->num_running == 0 && r->num_returned == 0) {
            if (r->next == trace->num_requests)
                break;
            if (trace->requests[r->next].at_us > r->now_us)
                r->now_us = trace->requests[r->next].at_us;
        }
        status = start_all(r);
        if (status == QUIRE_OK)
            status = step(r, &num_items);
        if (status != QUIRE_OK || num_items == 0)
            continue;
        status = measure(r);
        r->now_us += r->config->step_us;
        r->figures->steps++;
        r->figures->end_us = r->now_us;
        if (status == QUIRE_OK)
            status = advance(r, num_items);
    }
    return status;
}

/* ---- the whole ---- */

static quire_status make_pool(struct replay *r, struct quire_backend *backend)
{
    const uint32_t layer = 0;
    const struct quire_group_config group = {
        .layers = &layer, .num_layers = 1, .num_heads = 1, .num_kv_heads = 1, .head_dim = 1};
    struct quire_pool_config config;
    uint64_t blocks = r->config->num_blocks, *largest = &r->figures->largest_blocks;
    for (uint32_t i = 0; i < r->trace->num_requests; i++) {
        const uint64_t needed = blocks_of(r, last_position(&r->trace->requests[i]));
        *largest = needed > *largest ? needed : *largest;
        blocks += r->config->num_blocks == 0 ? needed + 1 : 0;
    }
    quire_pool_config_init(&config);
    config.backend = backend;
    config.groups = &group;
    config.num_groups = 1;
    config.layout = QUIRE_LAYOUT_PAGED;
    config.block_size = r->config->block_size;
    config.num_blocks = blocks > 0 ? (uint32_t)blocks : 1;
    config.max_seqs = r->config->max_seqs;
    config.max_seq_len = r->trace->longest > 0 ? r->trace->longest : 1;
    config.max_step_tokens = r->config->step_tokens;
    config.max_open_steps = 1;
    config.vocab_size = r->trace->vocabulary;
    config.eviction = r->config->eviction;
    config.merge_equal = 1;
    r->figures->num_blocks = config.num_blocks;
    return quire_pool_create(&config, &r->pool, r->error);
}

static void finish(const struct replay *r)
{
    const struct quire_pool_stats stats = pool_stats(r);
    struct trace_figures *f = r->figures;
    f->evictions = stats.blocks_evicted;
    f->copies = stats.blocks_copied;
    f->merges = stats.blocks_merged;
    f->peak_blocks = stats.blocks_peak;
    f->waste_pct_mean = f->steps > 0 ? r->waste_sum / (double)f->steps : 0;
    f->wait_us_mean = f->served > 0 ? f->wait_us_mean / f->served : 0;
}

quire_status trace_replay(const struct trace *trace, const struct trace_replay_config *config,
                          struct trace_figures *figures, struct quire_error *error)
{
    struct replay r = {.trace = trace, .config = config, .figures = figures, .error = error};
    struct quire_backend *backend = NULL;
    const uint32_t seqs = config->max_seqs;
    *figures = (struct trace_figures){.requests = trace->num_requests};
    r.progress = quire__calloc(trace->num_requests + 1u, sizeof *r.progress);
    r.running = quire__calloc(seqs, sizeof *r.running);
    r.items = quire__calloc(seqs, sizeof *r.items);
    r.returned = quire__calloc(seqs, sizeof *r.returned);
    quire_status status = QUIRE_OK;
    if (r.progress == NULL || r.running == NULL || r.items == NULL || r.returned == NULL)
        status = quire__fail(error, QUIRE_E_NOMEM, "no memory for the replay");
    if (status == QUIRE_OK)
        status = quire_backend_create("none", NULL, &backend, error);
    if (status == QUIRE_OK)
        status = make_pool(&r, backend);
    if (status == QUIRE_OK)
        status = play(&r);
    if (status == QUIRE_OK)
        finish(&r);
    quire_pool_destroy(r.pool);
    quire_backend_destroy(backend);
    quire__free(r.progress);
    quire__free(r.running);
    quire__free(r.items);
    quire__free(r.returned);
    return status;
}

quire_status trace_measure_waste(uint32_t block_size, double *waste_pct, struct quire_error *error)
{
    enum { REQUESTS = 64, LINE_BYTES = 96, SHORTEST = 1000, SPREAD = 3001, FACTOR = 787 };
    char text[(REQUESTS + 1) * LINE_BYTES];
    size_t used = (size_t)snprintf(text, sizeof text, "quire-trace 1\n");
    for (uint32_t i = 0; i < REQUESTS; i++)
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "request at=%u in=~%u:%u gen=%u\n",
                             i / 16, i, SHORTEST + i * FACTOR % SPREAD, 50 + i);
    struct trace trace;
    struct trace_figures figures;
    struct trace_replay_config config = TRACE_REPLAY_DEFAULT;
    config.block_size = block_size;
    quire_status status = trace_parse("waste", text, used, &trace, error);
    if (status == QUIRE_OK)
        status = trace_replay(&trace, &config, &figures, error);
    if (status == QUIRE_OK)
        *waste_pct = figures.waste_pct_max;
    trace_deinit(&trace);
    return status;
}
