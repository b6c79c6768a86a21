/* branch.h - one branch of a chat: its turns as text, and the sequence that holds them computed.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The turns are what counts. The sequence only saves work: it may hold more, less or nothing of
 * them. Before an answer the turns are composed to ids, and what the sequence or the pool has of
 * them stays computed. */
#ifndef QUIRE_TOOL_BRANCH_H
#define QUIRE_TOOL_BRANCH_H

#include "quire/prompt.h"

enum { BRANCH_NAME_BYTES_MAX = 20 };

struct turn {
    struct quire__bytes user;
    struct quire__ids answer; /* without the token that ended it */
};

struct branch {
    char name[BRANCH_NAME_BYTES_MAX + 1]; /* empty: it has none */
    quire_seq seq;                        /* {0}: none of it is computed */
    struct turn *turns;
    size_t first, count, capacity; /* turns before `first` do not fit into the context any more */
    uint64_t used;                 /* when it was last the current one; later is larger */
};

/* Moves `user` into a new turn at the end. */
int branch_push(struct branch *branch, struct quire__bytes *user);
/* Takes back the newest turn; there is one. */
void branch_pop(struct branch *branch);
/* Copies the turns of one branch to another, which has none. */
int branch_copy(const struct branch *from, struct branch *to);
/* Frees the turns; the sequence is the pool's. */
void branch_deinit(struct branch *branch);

int branch_append_ids(struct quire__ids *to, const struct quire__ids *from);

/* What the branch's turns are made of. */
struct branch_style {
    const struct engine *engine;
    const struct prompt_style *style;
    const char *system;
};
/* Sets ids to all turns from `first` on, the last one's answer as far as it is there. */
int branch_compose(const struct branch *branch, const struct branch_style *style,
                   struct quire__ids *ids);

/* Cuts the sequence to what it has in common with ids. What is cut off stays in the cache as long
 * as nothing else needs its place. A window that has moved on may leave less. */
quire_status branch_cut(struct branch *branch, struct quire_pool *pool,
                        const struct quire__ids *ids);
/* Makes the sequence hold as much of ids, but the last of them, as the pool has computed; *held
 * says how much that is. With whole_blocks it ends at a multiple of that many positions, so that
 * going on copies no block. */
quire_status branch_reuse(struct branch *branch, struct quire_pool *pool,
                          const struct quire__ids *ids, uint32_t whole_blocks, uint32_t *held);

#endif
