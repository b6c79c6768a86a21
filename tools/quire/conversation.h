/* conversation.h - what a chat is made of: branches over one pool, one of them the current one.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_CONVERSATION_H
#define QUIRE_TOOL_CONVERSATION_H

#include "quire/blockmap.h"
#include "quire/branch.h"
#include "quire/generate.h"

/* A letter for each in the drawing of the pool. */
enum { BRANCHES_MAX = BLOCKMAP_HOLDERS_MAX };

struct conversation {
    struct generation *generation; /* its seq is that of the branch that was answered last */
    struct branch_style style;
    uint64_t max_new;
    struct branch branches[BRANCHES_MAX];
    uint32_t num_branches, current;
    uint64_t clock; /* of branch.used */
    struct blockmap map;
    bool over;             /* /quit was said */
    bool mapped;           /* there is a map: the layout is paged */
    quire_pin system;      /* keeps the system message; {0}: nothing is kept */
    struct quire__ids ids; /* composed; scratch */
};

struct branch *conversation_branch(struct conversation *c); /* the current one */
struct quire_pool *conversation_pool(const struct conversation *c);

/* Obeys a line that begins with one slash, and cuts it up. What is wrong with it is one line on
 * stderr, after which the chat goes on; other results than CLI_OK end it. */
int conversation_command(struct conversation *c, char *line);

#endif
