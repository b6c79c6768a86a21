/* index.c - the prefix index: a tree of token runs, each one logical block long.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Siblings are an AVL tree (Adelson-Velsky, Landis 1962) ordered by their words, a beginning before
 * what it begins. In that order a key's neighbours share the most words with it, and a search
 * passes both, so that the longest match is found without looking at the other siblings.
 *
 * Owns: nodes, their keys, their lists of blocks. Guarded by: the pool's mutex.
 * Invariants: X4 of DESIGN.md. */
#include "cache/index.h"

#include <string.h>

#include <quire/backend.h>

/* An AVL tree of n nodes is at most 1.45 log2(n + 2) high; n is below 2^32. */
#define HEIGHT_MAX 48

quire_status quire__index_init(struct quire__index *self, uint32_t num_nodes, uint32_t num_roots,
                               uint32_t block_size, uint32_t num_tables)
{
    *self = (struct quire__index){
        .num_nodes = num_nodes,
        .num_roots = num_roots,
        .block_size = block_size,
        .num_tables = num_tables,
        .roots = QUIRE__NODE_NONE,
        .free_node = QUIRE__NODE_NONE,
        .free_root = QUIRE__NODE_NONE,
    };
    uint64_t nodes = (uint64_t)num_nodes + num_roots;
    if (nodes >= QUIRE__NODE_NONE)
        return QUIRE_E_NOMEM;
    self->nodes = quire__reserve(nodes * sizeof *self->nodes);
    self->tokens = quire__reserve((uint64_t)num_nodes * block_size * sizeof *self->tokens);
    self->root_words =
        quire__reserve((uint64_t)num_roots * QUIRE__ROOT_WORDS * sizeof *self->root_words);
    self->blocks = quire__reserve((uint64_t)num_nodes * num_tables * sizeof *self->blocks);
    bool complete = self->nodes != NULL && self->tokens != NULL && self->root_words != NULL &&
                    self->blocks != NULL;
    return complete ? QUIRE_OK : QUIRE_E_NOMEM;
}

void quire__index_deinit(struct quire__index *self)
{
    uint64_t n = self->num_nodes, roots = self->num_roots;
    quire__unreserve(self->blocks, n * self->num_tables * sizeof *self->blocks);
    quire__unreserve(self->root_words, roots * QUIRE__ROOT_WORDS * sizeof *self->root_words);
    quire__unreserve(self->tokens, n * self->block_size * sizeof *self->tokens);
    quire__unreserve(self->nodes, (n + roots) * sizeof *self->nodes);
    *self = (struct quire__index){0};
}

uint64_t quire__index_node_bytes(uint32_t num_tables)
{
    return sizeof(struct quire__node) + (uint64_t)num_tables * sizeof(uint32_t);
}

/* ---- words ---- */

static uint32_t common_words(const uint32_t *a, const uint32_t *b, uint32_t count)
{
    if (memcmp(a, b, count * sizeof *a) == 0)
        return count;
    uint32_t same = 0;
    while (a[same] == b[same])
        same++;
    return same;
}

/* How a key lies to a node: below 0 before it, 0 the same, above 0 behind it. */
static int compare(struct quire__index *self, const uint32_t *words, uint32_t count, uint32_t node,
                   uint32_t *common)
{
    uint32_t have = self->nodes[node].num_tokens;
    const uint32_t *key = quire__index_key(self, node);
    self->compares++;
    *common = common_words(words, key, count < have ? count : have);
    if (*common < count && *common < have)
        return words[*common] < key[*common] ? -1 : 1;
    return (count > have) - (count < have);
}

/* ---- the tree of siblings ---- */

static uint32_t *top_of(struct quire__index *self, uint32_t parent)
{
    return parent == QUIRE__NODE_NONE ? &self->roots : &self->nodes[parent].children;
}

static uint32_t height_of(const struct quire__index *self, uint32_t node)
{
    return node == QUIRE__NODE_NONE ? 0 : self->nodes[node].height;
}

static void measure(struct quire__index *self, uint32_t node)
{
    struct quire__node *n = &self->nodes[node];
    uint32_t left = height_of(self, n->left), right = height_of(self, n->right);
    n->height = ((left > right ? left : right) + 1) & 63u;
}

/* Turns the subtree at *link so that its left (or right) child comes on top. */
static void rotate_right(struct quire__index *self, uint32_t *link)
{
    uint32_t old = *link, top = self->nodes[old].left;
    self->nodes[old].left = self->nodes[top].right;
    self->nodes[top].right = old;
    measure(self, old);
    measure(self, top);
    *link = top;
}

static void rotate_left(struct quire__index *self, uint32_t *link)
{
    uint32_t old = *link, top = self->nodes[old].right;
    self->nodes[old].right = self->nodes[top].left;
    self->nodes[top].left = old;
    measure(self, old);
    measure(self, top);
    *link = top;
}

static void balance(struct quire__index *self, uint32_t *link)
{
    struct quire__node *n = &self->nodes[*link];
    int lean = (int)height_of(self, n->left) - (int)height_of(self, n->right);
    if (lean > 1) {
        const struct quire__node *l = &self->nodes[n->left];
        if (height_of(self, l->left) < height_of(self, l->right))
            rotate_left(self, &n->left);
        rotate_right(self, link);
    } else if (lean < -1) {
        const struct quire__node *r = &self->nodes[n->right];
        if (height_of(self, r->right) < height_of(self, r->left))
            rotate_right(self, &n->right);
        rotate_left(self, link);
    } else {
        measure(self, *link);
    }
}

/* The links from the top to where a key is, or would be. */
struct descent {
    uint32_t *links[HEIGHT_MAX];
    uint32_t depth; /* the last link is the key's own */
};

static void descend(struct quire__index *self, uint32_t parent, const uint32_t *words,
                    uint32_t count, struct descent *d)
{
    d->depth = 0;
    d->links[d->depth++] = top_of(self, parent);
    while (*d->links[d->depth - 1] != QUIRE__NODE_NONE) {
        struct quire__node *n = &self->nodes[*d->links[d->depth - 1]];
        uint32_t common;
        int side = compare(self, words, count, *d->links[d->depth - 1], &common);
        if (side == 0)
            return;
        QUIRE_CHECK(d->depth < HEIGHT_MAX);
        d->links[d->depth++] = side < 0 ? &n->left : &n->right;
    }
}

static void balance_upwards(struct quire__index *self, const struct descent *d, uint32_t depth)
{
    while (depth-- > 0)
        balance(self, d->links[depth]);
}

static void link_node(struct quire__index *self, uint32_t node)
{
    struct descent d;
    struct quire__node *n = &self->nodes[node];
    descend(self, n->parent, quire__index_key(self, node), n->num_tokens, &d);
    QUIRE_CHECK(*d.links[d.depth - 1] == QUIRE__NODE_NONE);
    n->left = n->right = QUIRE__NODE_NONE;
    n->height = 1;
    *d.links[d.depth - 1] = node;
    balance_upwards(self, &d, d.depth - 1);
}

static void unlink_node(struct quire__index *self, uint32_t node)
{
    struct descent d;
    struct quire__node *n = &self->nodes[node];
    descend(self, n->parent, quire__index_key(self, node), n->num_tokens, &d);
    uint32_t own = d.depth - 1;
    QUIRE_CHECK(*d.links[own] == node);
    if (n->left == QUIRE__NODE_NONE || n->right == QUIRE__NODE_NONE) {
        *d.links[own] = n->left != QUIRE__NODE_NONE ? n->left : n->right;
        balance_upwards(self, &d, own);
        return;
    }
    /* The next larger sibling takes its place. */
    uint32_t *link = &n->right;
    while (*link != QUIRE__NODE_NONE) {
        QUIRE_CHECK(d.depth < HEIGHT_MAX);
        d.links[d.depth++] = link;
        link = &self->nodes[*link].left;
    }
    uint32_t next = *d.links[d.depth - 1];
    struct quire__node *s = &self->nodes[next];
    *d.links[d.depth - 1] = s->right;
    s->left = n->left;
    s->right = n->right;
    *d.links[own] = next;
    if (d.depth > own + 1)
        d.links[own + 1] = &s->right; /* was the node's own */
    balance_upwards(self, &d, d.depth - 1);
}

struct quire__match quire__index_match(struct quire__index *self, uint32_t parent,
                                       const uint32_t *words, uint32_t count)
{
    struct quire__match best = {QUIRE__NODE_NONE, 0};
    uint32_t at = *top_of(self, parent);
    while (at != QUIRE__NODE_NONE) {
        uint32_t common;
        int side = compare(self, words, count, at, &common);
        if (common > best.common)
            best = (struct quire__match){at, common};
        if (common == count)
            break;
        at = side < 0 ? self->nodes[at].left : self->nodes[at].right;
    }
    return best;
}

uint32_t quire__index_find(struct quire__index *self, uint32_t parent, const uint32_t *words,
                           uint32_t count)
{
    struct descent d;
    descend(self, parent, words, count, &d);
    return *d.links[d.depth - 1];
}

struct quire__match quire__index_beside(struct quire__index *self, uint32_t node, bool behind,
                                        const uint32_t *words, uint32_t count)
{
    struct quire__match found = {QUIRE__NODE_NONE, 0};
    const struct quire__node *n = &self->nodes[node];
    uint32_t at = *top_of(self, n->parent), common;
    while (at != QUIRE__NODE_NONE) {
        int side = compare(self, quire__index_key(self, node), n->num_tokens, at, &common);
        bool beyond = behind ? side < 0 : side > 0;
        if (beyond)
            found.node = at;
        at = beyond == behind ? self->nodes[at].left : self->nodes[at].right;
    }
    if (found.node != QUIRE__NODE_NONE)
        (void)compare(self, words, count, found.node, &found.common);
    return found;
}

/* ---- nodes ---- */

static uint32_t take_node(struct quire__index *self, bool root)
{
    uint32_t *free_list = root ? &self->free_root : &self->free_node;
    uint32_t *fresh = root ? &self->fresh_root : &self->fresh_node;
    uint32_t node = *free_list;
    if (node != QUIRE__NODE_NONE)
        *free_list = self->nodes[node].left;
    else if (*fresh < (root ? self->num_roots : self->num_nodes))
        node = (root ? self->num_nodes : 0) + (*fresh)++;
    return node;
}

uint32_t quire__index_insert(struct quire__index *self, uint32_t parent, const uint32_t *words,
                             uint32_t count, bool detached)
{
    bool root = parent == QUIRE__NODE_NONE;
    uint32_t node = take_node(self, root);
    if (node == QUIRE__NODE_NONE)
        return node;
    self->nodes[node] = (struct quire__node){
        .parent = parent,
        .children = QUIRE__NODE_NONE,
        .left = QUIRE__NODE_NONE,
        .right = QUIRE__NODE_NONE,
        .num_tokens = count & 0x1ffffu,
        .height = 1,
        .hits = 1,
        .detached = detached,
        .severed = detached,
    };
    memcpy(quire__index_key(self, node), words, count * sizeof *words);
    if (!root) {
        memset(quire__index_blocks(self, node), 0xff, self->num_tables * sizeof(uint32_t));
        self->used++;
    }
    if (detached && !root)
        self->nodes[parent].cursors++;
    else
        link_node(self, node);
    return node;
}

void quire__index_extend(struct quire__index *self, uint32_t node, const uint32_t *words,
                         uint32_t count)
{
    struct quire__node *n = &self->nodes[node];
    QUIRE_CHECK(n->children == QUIRE__NODE_NONE && count > n->num_tokens);
    if (!n->severed)
        unlink_node(self, node);
    n->num_tokens = count & 0x1ffffu;
    memcpy(quire__index_key(self, node), words, count * sizeof *words);
    if (!n->severed)
        link_node(self, node);
}

void quire__index_sever(struct quire__index *self, uint32_t node)
{
    struct quire__node *n = &self->nodes[node];
    QUIRE_CHECK(!n->severed);
    unlink_node(self, node);
    n->severed = n->detached = 1;
    if (n->parent != QUIRE__NODE_NONE)
        self->nodes[n->parent].cursors++;
}

uint32_t quire__index_remove(struct quire__index *self, uint32_t node)
{
    struct quire__node *n = &self->nodes[node];
    QUIRE_CHECK(n->children == QUIRE__NODE_NONE && n->cursors == 0 && n->cached_children == 0);
    uint32_t parent = n->parent;
    if (!n->severed)
        unlink_node(self, node);
    else if (parent != QUIRE__NODE_NONE)
        self->nodes[parent].cursors--;
    bool root = quire__index_is_root(self, node);
    uint32_t *free_list = root ? &self->free_root : &self->free_node;
    *n = (struct quire__node){.left = *free_list};
    *free_list = node;
    if (!root)
        self->used--;
    return parent;
}

/* ---- check ---- */

/* What a walk over one tree of siblings found. */
struct walk {
    uint32_t parent, last, count;
};

/* Looks at the subtree of `node` in order. Its height bounds the recursion. */
static bool walk_siblings(struct quire__index *self, uint32_t node, uint32_t depth,
                          struct walk *walk)
{
    if (node == QUIRE__NODE_NONE)
        return true;
    const struct quire__node *n = &self->nodes[node];
    uint32_t left = height_of(self, n->left), right = height_of(self, n->right), common;
    if (depth == 0 || n->parent != walk->parent || n->severed ||
        n->height != (left > right ? left : right) + 1 || left > right + 1 || right > left + 1 ||
        !walk_siblings(self, n->left, depth - 1, walk))
        return false;
    if (walk->last != QUIRE__NODE_NONE &&
        compare(self, quire__index_key(self, node), n->num_tokens, walk->last, &common) <= 0)
        return false;
    walk->last = node;
    walk->count++;
    return walk_siblings(self, n->right, depth - 1, walk);
}

static quire_status check_children(struct quire__index *self, uint32_t parent, uint32_t *linked,
                                   struct quire_error *error)
{
    struct walk walk = {parent, QUIRE__NODE_NONE, 0};
    if (!walk_siblings(self, *top_of(self, parent), HEIGHT_MAX, &walk))
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "X4: the children of node %u are out of order or balance", parent);
    *linked += walk.count;
    return QUIRE_OK;
}

quire_status quire__index_check(struct quire__index *self, struct quire_error *error)
{
    uint32_t linked = 0, severed = 0, used = 0, roots = 0;
    quire_status status = check_children(self, QUIRE__NODE_NONE, &linked, error);
    for (uint32_t i = 0; i < self->num_nodes + self->fresh_root && status == QUIRE_OK; i++) {
        if (i == self->fresh_node)
            i = self->num_nodes; /* behind it nothing was ever used */
        if (i >= self->num_nodes + self->fresh_root || self->nodes[i].height == 0)
            continue;
        const struct quire__node *n = &self->nodes[i];
        bool root = quire__index_is_root(self, i);
        used += !root;
        roots += root;
        severed += n->severed;
        if (root != (n->parent == QUIRE__NODE_NONE) || (n->severed && !n->detached) ||
            (!root && (n->num_tokens == 0 || n->num_tokens > self->block_size ||
                       (n->children != QUIRE__NODE_NONE && n->num_tokens != self->block_size))))
            return quire__fail(error, QUIRE_E_CORRUPT, "X4: node %u of %u tokens is malformed", i,
                               n->num_tokens);
        status = check_children(self, i, &linked, error);
    }
    if (status == QUIRE_OK && (used != self->used || linked + severed != used + roots))
        return quire__fail(error, QUIRE_E_CORRUPT,
                           "X4: %u nodes and %u roots in use, %u counted, %u in trees, %u severed",
                           used, roots, self->used, linked, severed);
    return status;
}
