/* index.h - the prefix index: a tree of token runs, each one logical block long.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Knows tokens, parents and siblings; which blocks a node names is an array that blocks.c fills.
 * Nothing allocates after init. Guarded by the pool's mutex. */
#ifndef QUIRE_CACHE_INDEX_H
#define QUIRE_CACHE_INDEX_H

#include "base/base.h"

#define QUIRE__NODE_NONE UINT32_MAX

enum {
    QUIRE__ROOT_WORDS = 4, /* of a tenant's root: salt, adapter, low words first */
    QUIRE__HITS_MAX = 127,
};

/* 32 bytes: two to a cache line. */
struct quire__node {
    uint32_t parent;      /* NONE for a root */
    uint32_t children;    /* the top of its children's tree */
    uint32_t left, right; /* in its parent's tree; left links the free list */
    uint32_t num_tokens : 17;
    uint32_t height : 6;      /* in its parent's tree, 1 for a leaf; 0 while free */
    uint32_t hits : 7;        /* lookups that came by, saturated */
    uint32_t detached : 1;    /* dropped: nobody finds it, its blocks are not cached again */
    uint32_t severed : 1;     /* in no tree of its parent, which counts it as a cursor instead */
    uint32_t cursors : 31;    /* sequences and pins that stand here */
    uint32_t has_cached : 1;  /* a cached block of a group without a window */
    uint32_t cached_children; /* children that have a cached block */
    uint32_t stamp;           /* when its blocks were last let go, in the policy's time */
};

struct quire__index {
    struct quire__node *nodes; /* [num_nodes + num_roots], the roots last */
    uint32_t *tokens;          /* [num_nodes][block_size] */
    uint32_t *root_words;      /* [num_roots][ROOT_WORDS] */
    uint32_t *blocks;          /* [num_nodes][num_tables] physical blocks, or QUIRE_BLOCK_NONE */
    uint32_t num_nodes, num_roots;
    uint32_t block_size, num_tables;
    uint32_t roots;     /* the top of the roots' tree */
    uint32_t free_node; /* lists through left; behind them what was never used */
    uint32_t free_root;
    uint32_t fresh_node, fresh_root;
    uint32_t used; /* nodes in use, roots not counted */
    uint64_t compares;
};

/* Reserves everything; pages cost when they are first used. NOMEM. */
quire_status quire__index_init(struct quire__index *self, uint32_t num_nodes, uint32_t num_roots,
                               uint32_t block_size, uint32_t num_tables);
void quire__index_deinit(struct quire__index *self);
/* Bytes of host memory for each node, tokens not counted. */
uint64_t quire__index_node_bytes(uint32_t num_tables);

static inline bool quire__index_is_root(const struct quire__index *self, uint32_t node)
{
    return node >= self->num_nodes;
}

/* The words that a node is ordered by: its tokens, or a root's salt and adapter. */
static inline uint32_t *quire__index_key(const struct quire__index *self, uint32_t node)
{
    if (quire__index_is_root(self, node))
        return self->root_words + (uint64_t)(node - self->num_nodes) * QUIRE__ROOT_WORDS;
    return self->tokens + (uint64_t)node * self->block_size;
}

static inline uint32_t *quire__index_blocks(const struct quire__index *self, uint32_t node)
{
    return self->blocks + (uint64_t)node * self->num_tables;
}

struct quire__match {
    uint32_t node;   /* NONE: no child begins like the key */
    uint32_t common; /* words that node and key share from the start */
};

/* The child of `parent` (NONE: the root) that shares the most words with the key. count: at most
 * the words of a key. O(log children) comparisons. */
struct quire__match quire__index_match(struct quire__index *self, uint32_t parent,
                                       const uint32_t *words, uint32_t count);

/* The child with just this key; NONE when there is none. */
uint32_t quire__index_find(struct quire__index *self, uint32_t parent, const uint32_t *words,
                           uint32_t count);
/* The sibling behind (or before) a node in their order, and what it shares with a key; NONE and 0
 * at the end. */
struct quire__match quire__index_beside(struct quire__index *self, uint32_t node, bool behind,
                                        const uint32_t *words, uint32_t count);

/* Adds a child, whose key no sibling has; a detached one is severed too, and may be anything. NONE
 * when every node is in use. */
uint32_t quire__index_insert(struct quire__index *self, uint32_t parent, const uint32_t *words,
                             uint32_t count, bool detached);
/* Lengthens the key of a partial node, which keeps its place in time and its blocks. */
void quire__index_extend(struct quire__index *self, uint32_t node, const uint32_t *words,
                         uint32_t count);
/* Takes a node out of its parent's tree: it is severed and detached, and a cursor of its parent. */
void quire__index_sever(struct quire__index *self, uint32_t node);
/* Frees a node without blocks, children and cursors; returns its parent. */
uint32_t quire__index_remove(struct quire__index *self, uint32_t node);

/* X4: order, balance, heights, parents; and that as many nodes are in use as counted. */
quire_status quire__index_check(struct quire__index *self, struct quire_error *error);

#endif
