/* workload.c - synthetic requests: chats, agents, documents, and all of them at once.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A number of actors live at once, each with a time of its next request; the earliest goes next.
 * An actor that has ended makes room for a new one. Lengths are in blocks (16 tokens in the
 * comments). Every request ends its prompt with a block of its own, so no prompt is cached whole.
 */
#include "quire/workload.h"

#include <math.h>
#include <string.h>

#include "base/base.h"

enum {
    CHATS = 200,        /* people who chat at once */
    SYSTEM_PROMPTS = 4, /* that they start from */
    TASKS = 32,         /* of agents at once */
    AGENTS = 3,         /* kinds of agents, each with its tools */
    READERS = 16,       /* that ask about documents at once */
    DOCUMENTS = 64,     /* on the shelf; one is replaced now and then */
    STEPS_MAX = 64,     /* of one task, that it can go back to */
    ACTORS_MAX = CHATS + TASKS + READERS,
};

enum actor_kind { CHAT, TASK, READER };

struct actor {
    enum actor_kind kind;
    double time;                          /* of its next request */
    uint32_t node;                        /* what was said so far */
    uint32_t turns_left;                  /* 0: it ends */
    uint32_t document;                    /* of a reader; DOCUMENTS: one that is read once */
    uint32_t steps[STEPS_MAX], num_steps; /* of a task: where it stood after each step */
    uint32_t branches_left;               /* of a fork, still to be tried */
    uint32_t fork;                        /* the node where they begin */
};

struct maker {
    struct sim_workload *workload;
    uint64_t state; /* of the random numbers */
    bool failed;    /* no memory */
    struct actor actors[ACTORS_MAX];
    uint32_t num_actors;
    uint32_t system_prompts[SYSTEM_PROMPTS], agents[AGENTS], documents[DOCUMENTS];
};

/* ---- random numbers ---- */

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(struct maker *maker)
{
    uint64_t z = maker->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double unit(struct maker *maker)
{
    return (double)(next_random(maker) >> 11) * 0x1p-53;
}

static bool chance(struct maker *maker, uint32_t percent)
{
    return next_random(maker) % 100 < percent;
}

static uint32_t between(struct maker *maker, uint32_t low, uint32_t high)
{
    return low + (uint32_t)(next_random(maker) % (high - low + 1));
}

/* Log-uniform: short ones are as likely as long ones in every octave. */
static uint32_t spread(struct maker *maker, uint32_t low, uint32_t high)
{
    return (uint32_t)(low * pow((double)(high + 1) / low, unit(maker)));
}

/* 0 .. count - 1, i with a weight of 1 / (i + 1). */
static uint32_t favoured(struct maker *maker, uint32_t count)
{
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += 1.0 / (i + 1);
    double left = unit(maker) * sum;
    for (uint32_t i = 0; i + 1 < count; i++) {
        left -= 1.0 / (i + 1);
        if (left < 0)
            return i;
    }
    return count - 1;
}

/* Exponential: the time of what has no memory. */
static double pause(struct maker *maker, double mean)
{
    return -log(1 - unit(maker)) * mean;
}

/* ---- growing ---- */

static uint32_t grow_node(struct maker *maker, uint32_t parent)
{
    struct sim_workload *w = maker->workload;
    if (w->num_nodes == w->max_nodes) {
        uint32_t max = w->max_nodes == 0 ? 1024 : w->max_nodes * 2;
        struct sim_node *nodes = quire__realloc(w->nodes, max * sizeof *nodes);
        if (nodes == NULL) {
            maker->failed = true;
            return 0;
        }
        w->nodes = nodes;
        w->max_nodes = max;
    }
    uint32_t depth = w->num_nodes == 0 ? 0 : w->nodes[parent].depth + 1;
    w->nodes[w->num_nodes] = (struct sim_node){parent, depth};
    return w->num_nodes++;
}

static uint32_t grow(struct maker *maker, uint32_t node, uint32_t blocks)
{
    for (uint32_t i = 0; i < blocks; i++)
        node = grow_node(maker, node);
    return node;
}

/* A request: `said` new blocks after `node`, and an answer of `answered`. Gives the last node. */
static uint32_t ask(struct maker *maker, uint32_t node, uint32_t said, uint32_t answered)
{
    struct sim_workload *w = maker->workload;
    if (w->num_requests == w->max_requests)
        return node;
    uint32_t prompt = grow(maker, node, said), leaf = grow(maker, prompt, answered);
    if (maker->failed)
        return node;
    w->requests[w->num_requests++] = (struct sim_request){leaf, w->nodes[prompt].depth};
    if (w->nodes[leaf].depth > w->longest)
        w->longest = w->nodes[leaf].depth;
    return leaf;
}

/* ---- actors ---- */

static void start(struct maker *maker, struct actor *actor, double now)
{
    actor->num_steps = actor->branches_left = 0;
    switch (actor->kind) {
    case CHAT:
        actor->time = now + pause(maker, 30);
        actor->node = maker->system_prompts[favoured(maker, SYSTEM_PROMPTS)];
        actor->turns_left = 1 + (uint32_t)pause(maker, 5);
        break;
    case TASK:
        actor->time = now + pause(maker, 20);
        actor->node = grow(maker, maker->agents[favoured(maker, AGENTS)], spread(maker, 4, 32));
        actor->turns_left = spread(maker, 4, 40);
        break;
    case READER:
        actor->time = now + pause(maker, 10);
        actor->turns_left = 1 + (uint32_t)pause(maker, 0.5);
        actor->document = DOCUMENTS;
        if (chance(maker, 35)) {
            actor->node = grow(maker, 0, spread(maker, 40, 600));
            break;
        }
        actor->document = favoured(maker, DOCUMENTS);
        if (chance(maker, 2))
            maker->documents[actor->document] = grow(maker, 0, spread(maker, 60, 800));
        actor->node = maker->documents[actor->document];
        break;
    }
}

/* A turn of 16 to 200 tokens, sometimes a page; an answer of 64 to 600. Most people answer within
 * 4 to 40 seconds, some of them after minutes. */
static void chat(struct maker *maker, struct actor *actor)
{
    uint32_t said = chance(maker, 5) ? spread(maker, 20, 100) : spread(maker, 1, 12);
    actor->node = ask(maker, actor->node, said, spread(maker, 4, 40));
    actor->time += chance(maker, 10) ? between(maker, 60, 240) : between(maker, 4, 40);
}

/* A call of a tool and what came back. A task may try two to four branches from where it stands,
 * and may go back by some steps. */
static void work(struct maker *maker, struct actor *actor)
{
    if (actor->branches_left > 0 && chance(maker, 40)) {
        actor->branches_left--;
        actor->node = actor->fork;
    } else if (actor->branches_left == 0 && chance(maker, 10)) {
        actor->branches_left = between(maker, 1, 3);
        actor->fork = actor->node;
    } else if (actor->num_steps > 3 && chance(maker, 5)) {
        actor->num_steps -= between(maker, 1, 3);
        actor->node = actor->steps[actor->num_steps - 1];
    }
    actor->node = ask(maker, actor->node, spread(maker, 2, 60), spread(maker, 1, 10));
    if (actor->num_steps < STEPS_MAX)
        actor->steps[actor->num_steps++] = actor->node;
    actor->time += pause(maker, 6);
}

static void read_document(struct maker *maker, struct actor *actor)
{
    actor->node = ask(maker, actor->node, spread(maker, 1, 4), spread(maker, 2, 16));
    actor->time += pause(maker, 15);
}

static void act(struct maker *maker)
{
    struct actor *next = &maker->actors[0];
    for (uint32_t i = 1; i < maker->num_actors; i++)
        if (maker->actors[i].time < next->time)
            next = &maker->actors[i];
    if (next->turns_left == 0) {
        start(maker, next, next->time);
        return;
    }
    next->turns_left--;
    switch (next->kind) {
    case CHAT:
        chat(maker, next);
        break;
    case TASK:
        work(maker, next);
        break;
    case READER:
        read_document(maker, next);
        break;
    }
}

static void enlist(struct maker *maker, enum actor_kind kind, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct actor *actor = &maker->actors[maker->num_actors++];
        *actor = (struct actor){.kind = kind};
        start(maker, actor, pause(maker, 60));
    }
}

/* ---- workloads ---- */

const char *workload_name(enum workload_kind kind)
{
    static const char *const names[NUM_WORKLOADS] = {"chats", "agents", "documents", "mixed"};
    return names[kind];
}

quire_status workload_create(enum workload_kind kind, uint32_t num_requests, uint64_t seed,
                             struct sim_workload *out)
{
    static struct maker maker;
    *out = (struct sim_workload){.max_requests = num_requests};
    maker = (struct maker){.workload = out, .state = seed};
    out->requests = quire__calloc(num_requests, sizeof *out->requests);
    maker.failed = out->requests == NULL;
    (void)grow_node(&maker, 0); /* the root */
    for (uint32_t i = 0; i < SYSTEM_PROMPTS; i++)
        maker.system_prompts[i] = grow(&maker, 0, spread(&maker, 16, 120));
    for (uint32_t i = 0; i < AGENTS; i++)
        maker.agents[i] = grow(&maker, 0, spread(&maker, 200, 400));
    for (uint32_t i = 0; i < DOCUMENTS; i++)
        maker.documents[i] = grow(&maker, 0, spread(&maker, 60, 800));
    if (kind == WORKLOAD_CHATS || kind == WORKLOAD_MIXED)
        enlist(&maker, CHAT, CHATS);
    if (kind == WORKLOAD_AGENTS || kind == WORKLOAD_MIXED)
        enlist(&maker, TASK, TASKS);
    if (kind == WORKLOAD_DOCUMENTS || kind == WORKLOAD_MIXED)
        enlist(&maker, READER, READERS);
    while (out->num_requests < num_requests && !maker.failed)
        act(&maker);
    if (!maker.failed)
        return QUIRE_OK;
    workload_deinit(out);
    return QUIRE_E_NOMEM;
}

void workload_deinit(struct sim_workload *workload)
{
    quire__free(workload->nodes);
    quire__free(workload->requests);
    *workload = (struct sim_workload){0};
}
