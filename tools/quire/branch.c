/* branch.c - one branch of a chat: its turns as text, and the sequence that holds them computed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/branch.h"

#include "quire/console.h"

/* ---- turns ---- */

static int no_memory(void)
{
    cli_error("no memory for another turn");
    return CLI_BAD_DATA;
}

int branch_push(struct branch *branch, struct quire__bytes *user)
{
    if (branch->count == branch->capacity) {
        size_t capacity = branch->capacity * 2 + 16;
        struct turn *turns = quire__realloc(branch->turns, capacity * sizeof *turns);
        if (turns == NULL)
            return no_memory();
        branch->turns = turns;
        branch->capacity = capacity;
    }
    branch->turns[branch->count++] = (struct turn){.user = *user};
    *user = (struct quire__bytes){0};
    return CLI_OK;
}

void branch_pop(struct branch *branch)
{
    struct turn *turn = &branch->turns[--branch->count];
    quire__bytes_deinit(&turn->user);
    quire__ids_deinit(&turn->answer);
    if (branch->first >= branch->count)
        branch->first = 0;
}

void branch_deinit(struct branch *branch)
{
    while (branch->count > 0)
        branch_pop(branch);
    quire__free(branch->turns);
    *branch = (struct branch){0};
}

int branch_append_ids(struct quire__ids *to, const struct quire__ids *from)
{
    struct quire_error error;
    for (uint64_t i = 0; i < from->count; i++)
        if (quire__ids_push(to, from->ids[i], &error) != QUIRE_OK)
            return cli_fail(&error);
    return CLI_OK;
}

int branch_copy(const struct branch *from, struct branch *to)
{
    struct quire_error error;
    for (size_t i = 0; i < from->count; i++) {
        const struct turn *turn = &from->turns[i];
        struct quire__bytes user = {0};
        int result = CLI_OK;
        if (quire__bytes_append(&user, turn->user.data, turn->user.count, &error) != QUIRE_OK)
            result = cli_fail(&error);
        if (result == CLI_OK)
            result = branch_push(to, &user);
        if (result == CLI_OK)
            result = branch_append_ids(&to->turns[i].answer, &turn->answer);
        quire__bytes_deinit(&user);
        if (result != CLI_OK)
            return result;
    }
    to->first = from->first;
    return CLI_OK;
}

int branch_compose(const struct branch *branch, const struct branch_style *style,
                   struct quire__ids *ids)
{
    int result = CLI_OK;
    ids->count = 0;
    for (size_t i = branch->first; i < branch->count && result == CLI_OK; i++) {
        const struct turn *turn = &branch->turns[i];
        struct quire__text text = {.bytes = turn->user.data, .count = turn->user.count};
        result = i == branch->first
                     ? prompt_begin(style->style, style->engine, style->system, text, ids)
                     : prompt_continue(style->style, style->engine, text, ids);
        if (result == CLI_OK)
            result = branch_append_ids(ids, &turn->answer);
    }
    return result;
}

/* ---- the sequence ---- */

/* How many tokens the sequence and ids begin with alike. */
static quire_status in_common(const struct branch *branch, struct quire_pool *pool,
                              const struct quire__ids *ids, uint32_t *same)
{
    struct quire__ids held = {0};
    uint32_t count = 0;
    *same = 0;
    quire_status status = quire_seq_tokens(pool, branch->seq, NULL, 0, &count);
    if (status == QUIRE_OK)
        status = quire__ids_reserve(&held, count, NULL);
    if (status == QUIRE_OK && count > 0)
        status = quire_seq_tokens(pool, branch->seq, held.ids, count, &count);
    while (status == QUIRE_OK && *same < count && *same < ids->count &&
           held.ids[*same] == ids->ids[*same])
        ++*same;
    quire__ids_deinit(&held);
    return status;
}

static quire_status cut(quire_seq seq, struct quire_pool *pool, uint32_t len)
{
    uint32_t length = 0, longest = 0;
    quire_status status = quire_seq_length(pool, seq, &length);
    if (status != QUIRE_OK || length <= len)
        return status;
    /* So that what is cut off can be found again; a contiguous sequence has nothing to find. */
    (void)quire_seq_publish(pool, seq);
    status = quire_seq_truncate(pool, seq, len, &longest);
    return status == QUIRE_E_NOTFOUND ? quire_seq_truncate(pool, seq, longest, NULL) : status;
}

quire_status branch_cut(struct branch *branch, struct quire_pool *pool,
                        const struct quire__ids *ids)
{
    uint32_t same = 0;
    if (branch->seq.id == 0)
        return QUIRE_OK;
    quire_status status = in_common(branch, pool, ids, &same);
    return status == QUIRE_OK ? cut(branch->seq, pool, same) : status;
}

quire_status branch_reuse(struct branch *branch, struct quire_pool *pool,
                          const struct quire__ids *ids, uint32_t whole_blocks, uint32_t *held)
{
    struct quire_seq_config config;
    uint32_t same = 0;
    quire_status status = QUIRE_OK;
    quire_seq_config_init(&config);
    config.tokens = ids->ids;
    config.num_tokens = (uint32_t)ids->count;
    if (branch->seq.id == 0)
        status = quire_seq_create(pool, &config, &branch->seq);
    if (status == QUIRE_OK)
        status = in_common(branch, pool, ids, &same);
    if (status == QUIRE_OK && same == ids->count)
        same--;
    if (status == QUIRE_OK)
        status = cut(branch->seq, pool, same);
    if (status == QUIRE_OK)
        status = quire_seq_rematch(pool, branch->seq, &config, held);
    if (status == QUIRE_OK && whole_blocks != 0) {
        status = cut(branch->seq, pool, *held / whole_blocks * whole_blocks);
        if (status == QUIRE_OK)
            status = quire_seq_length(pool, branch->seq, held);
    }
    return status;
}
