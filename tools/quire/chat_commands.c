/* chat_commands.c - the lines of a chat that begin with a slash.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/conversation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "quire/args.h"
#include "quire/console.h"

/* ---- words ---- */

static int printed(bool ok)
{
    return ok ? CLI_OK : CLI_BAD_DATA;
}

/* `branch 2 "name"`, or without a name. */
static const char *title(const struct conversation *c, uint32_t i, char text[64])
{
    const char *name = c->branches[i].name;
    (void)snprintf(text, 64, name[0] != '\0' ? "branch %u \"%s\"" : "branch %u", i + 1, name);
    return text;
}

static const char *turns_text(size_t count, char text[32])
{
    (void)snprintf(text, 32, "%zu turn%s", count, count == 1 ? "" : "s");
    return text;
}

static bool colours(void)
{
    const char *no = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) == 1 && (no == NULL || no[0] == '\0') &&
           (terminal == NULL || strcmp(terminal, "dumb") != 0);
}

static int failed(const char *what, quire_status status)
{
    cli_error("%s: %s", what, quire_status_text(status));
    return CLI_OK;
}

/* ---- /fork ---- */

static bool is_number(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* As /blocks and /stats name the branches. */
static bool is_letter(const char *text)
{
    return text[0] >= 'a' && text[0] < 'a' + BRANCHES_MAX && text[1] == '\0';
}

static uint32_t find_name(const struct conversation *c, const char *name)
{
    uint32_t i = 0;
    while (i < c->num_branches && strcmp(c->branches[i].name, name) != 0)
        i++;
    return i;
}

static bool check_name(const struct conversation *c, const char *name)
{
    const char *control = name;
    while (*control != '\0' && (unsigned char)*control >= 0x20 && *control != 0x7f)
        control++;
    if (*control != '\0')
        cli_error("/fork: a name holds no control characters");
    else if (strlen(name) > BRANCH_NAME_BYTES_MAX)
        cli_error("/fork: a name of %zu bytes, at most %d are kept: choose a shorter one",
                  strlen(name), BRANCH_NAME_BYTES_MAX);
    else if (is_number(name) || is_letter(name))
        cli_error("/fork: %s is a %s, and those name branches already: choose a word", name,
                  is_letter(name) ? "letter" : "number");
    else if (name[0] != '\0' && find_name(c, name) < c->num_branches)
        cli_error("/fork: there is a branch %s already: choose another name", name);
    else
        return true;
    return false;
}

/* Forks the sequence, where there is one. What cannot be forked is computed when it is needed. */
static void fork_seq(struct conversation *c, const struct branch *from, struct branch *to)
{
    struct quire_pool *pool = conversation_pool(c);
    uint32_t len = 0, longest = 0;
    if (from->seq.id == 0 || quire_seq_length(pool, from->seq, &len) != QUIRE_OK)
        return;
    quire_status status = quire_seq_fork(pool, from->seq, len, &to->seq, &longest);
    if (status == QUIRE_E_NOTFOUND)
        status = quire_seq_fork(pool, from->seq, longest, &to->seq, NULL);
    if (status == QUIRE_OK && !c->mapped)
        cli_notice("the contiguous layout shares nothing: %u positions were copied "
                   "(--layout paged shares them)",
                   len);
    else if (status != QUIRE_OK)
        cli_notice("nothing of the branch could be taken over (%s): it is computed again when you "
                   "write in it",
                   quire_status_text(status));
}

static int command_fork(struct conversation *c, const char *name)
{
    if (c->num_branches == BRANCHES_MAX) {
        cli_error("/fork: %d branches are the most that a chat keeps: go on in one with /switch",
                  BRANCHES_MAX);
        return CLI_OK;
    }
    if (!check_name(c, name))
        return CLI_OK;
    const struct branch *from = conversation_branch(c);
    struct branch *to = &c->branches[c->num_branches];
    char old[64], new[64], turns[32];
    *to = (struct branch){.used = ++c->clock};
    int result = branch_copy(from, to);
    if (result != CLI_OK) {
        branch_deinit(to);
        return result;
    }
    (void)snprintf(to->name, sizeof to->name, "%s", name);
    fork_seq(c, from, to);
    const uint32_t left = c->current;
    c->current = c->num_branches++;
    return printed(cli_print("%s begins here, after %s; /switch %u goes back to %s\n",
                             title(c, c->current, new), turns_text(to->count, turns), left + 1,
                             title(c, left, old)));
}

/* ---- /switch ---- */

static int command_switch(struct conversation *c, const char *which)
{
    uint64_t number = 0;
    uint32_t to = c->num_branches;
    char text[64], turns[32];
    if (which[0] == '\0') {
        cli_error(
            "/switch needs the number, letter or name of a branch: 1 to %u (/stats lists them)",
            c->num_branches);
        return CLI_OK;
    }
    if (cli_read_u64(which, 1, c->num_branches, &number))
        to = (uint32_t)number - 1;
    else if (is_letter(which))
        to = (uint32_t)(which[0] - 'a');
    else if (!is_number(which))
        to = find_name(c, which);
    if (to >= c->num_branches) {
        cli_error("/switch: there is no branch %s, only 1 to %u (/stats lists them)", which,
                  c->num_branches);
        return CLI_OK;
    }
    c->current = to;
    struct branch *branch = conversation_branch(c);
    branch->used = ++c->clock;
    return printed(
        cli_print("in %s, after %s\n", title(c, to, text), turns_text(branch->count, turns)));
}

/* ---- /back ---- */

static int command_back(struct conversation *c, const char *how_many)
{
    struct branch *branch = conversation_branch(c);
    uint64_t count = 1;
    char taken[32], left[32];
    if (branch->count == 0) {
        cli_error("/back: this branch has no turn to take back");
        return CLI_OK;
    }
    if (how_many[0] != '\0' && !cli_read_u64(how_many, 1, branch->count, &count)) {
        cli_error("/back: %s is not a number of turns from 1 to %zu", how_many, branch->count);
        return CLI_OK;
    }
    for (uint64_t i = 0; i < count; i++)
        branch_pop(branch);
    int result = branch_compose(branch, &c->style, &c->ids);
    quire_status status = QUIRE_OK;
    uint32_t len = 0;
    if (result == CLI_OK)
        status = branch_cut(branch, conversation_pool(c), &c->ids);
    if (status == QUIRE_OK && branch->seq.id != 0)
        status = quire_seq_length(conversation_pool(c), branch->seq, &len);
    if (result != CLI_OK || status != QUIRE_OK)
        return result != CLI_OK ? result : failed("/back", status);
    return printed(cli_print("took back %s; left: %s, %u of %llu tokens computed\n",
                             turns_text((size_t)count, taken), turns_text(branch->count, left), len,
                             (unsigned long long)c->ids.count));
}

/* ---- /stats and /blocks ---- */

static int look(struct conversation *c)
{
    quire_seq seqs[BRANCHES_MAX];
    for (uint32_t i = 0; i < c->num_branches; i++)
        seqs[i] = c->branches[i].seq;
    quire_status status = blockmap_look(&c->map, seqs, c->num_branches);
    return status == QUIRE_OK ? CLI_OK : failed("cannot read the cache", status);
}

/* One line for each branch, in 80 columns. */
static bool list_branches(struct conversation *c, bool colour)
{
    bool ok = true;
    for (uint32_t i = 0; i < c->num_branches && ok; i++) {
        const struct branch *branch = &c->branches[i];
        struct quire_seq_stats held = {.struct_size = sizeof held};
        char text[64], turns[32], letter[16];
        if (branch->seq.id != 0)
            (void)quire_seq_stats(conversation_pool(c), branch->seq, &held);
        ok = cli_print("%s%c %s: %s, %u tokens, %llu blocks, %llu shared\n",
                       blockmap_letter(i, colour, letter), i == c->current ? '>' : ' ',
                       title(c, i, text), turns_text(branch->count, turns), held.len,
                       (unsigned long long)held.blocks, (unsigned long long)held.blocks_shared);
    }
    return ok;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole != 0 ? 100.0 * (double)part / (double)whole : 0.0;
}

static bool print_figures(const struct figures *f, const struct quire_pool_stats *s,
                          uint64_t saved_blocks)
{
    typedef unsigned long long number;
    const uint64_t saved_bytes = saved_blocks * s->block_bytes;
    return cli_print("prompts  %llu tokens computed, %llu reused: %.1f %% were in the cache\n"
                     "answers  %llu tokens\n",
                     (number)f->prompt_tokens, (number)f->reused_tokens,
                     percent(f->reused_tokens, f->reused_tokens + f->prompt_tokens),
                     (number)f->answer_tokens) &&
           cli_print("blocks   %llu: %llu held, %llu cached, %llu free; at most %llu in use\n"
                     "saved    %llu blocks, %llu bytes of K/V, by sharing\n",
                     (number)s->blocks_total, (number)s->blocks_owned, (number)s->blocks_cached,
                     (number)s->blocks_free, (number)s->blocks_peak, (number)saved_blocks,
                     (number)saved_bytes) &&
           cli_print("index    %llu lookups found %.1f %% of their tokens (lately %.1f %%)\n"
                     "so far   %llu blocks evicted, %llu copied, %llu merged\n",
                     (number)s->lookups, percent(s->hit_tokens, s->lookup_tokens),
                     percent(s->recent_hit_tokens, s->recent_tokens), (number)s->blocks_evicted,
                     (number)s->blocks_copied, (number)s->blocks_merged);
}

static int command_stats(struct conversation *c, const char *none)
{
    (void)none;
    struct quire_pool_stats stats = {.struct_size = sizeof stats};
    quire_status status = quire_pool_stats(conversation_pool(c), &stats);
    uint64_t alone = 0;
    if (status != QUIRE_OK)
        return failed("/stats", status);
    for (uint32_t i = 0; i < c->num_branches; i++) {
        struct quire_seq_stats held = {.struct_size = sizeof held};
        if (c->branches[i].seq.id != 0 &&
            quire_seq_stats(conversation_pool(c), c->branches[i].seq, &held) == QUIRE_OK)
            alone += held.blocks;
    }
    return printed(print_figures(&c->generation->figures, &stats,
                                 alone > stats.blocks_owned ? alone - stats.blocks_owned : 0) &&
                   list_branches(c, colours()));
}

static int command_blocks(struct conversation *c, const char *none)
{
    (void)none;
    if (!c->mapped) {
        cli_error("/blocks: the contiguous layout has no blocks to draw: every branch has a region "
                  "of its own (--layout paged has blocks)");
        return CLI_OK;
    }
    int result = look(c);
    return result != CLI_OK
               ? result
               : printed(blockmap_draw(&c->map, colours()) && list_branches(c, colours()));
}

static int command_quit(struct conversation *c, const char *none)
{
    (void)none;
    c->over = true;
    return CLI_OK;
}

/* ---- the table ---- */

static int command_help(struct conversation *c, const char *none);

static const struct {
    const char *name, *argument, *about;
    int (*run)(struct conversation *c, const char *argument);
} commands[] = {
    {"/fork", "[NAME]", "branch the conversation here, and go on in the branch", command_fork},
    {"/switch", "N", "go on in branch N, or in that of a letter or name", command_switch},
    {"/back", "[N]", "take back the last N turns (1)", command_back},
    {"/stats", NULL, "what was reused, computed, shared and evicted", command_stats},
    {"/blocks", NULL, "draw the blocks of the cache, and who holds them", command_blocks},
    {"/help", NULL, "print this", command_help},
    {"/quit", NULL, "end the chat, as Ctrl-D does", command_quit},
};

static int command_help(struct conversation *c, const char *none)
{
    (void)c;
    (void)none;
    bool ok = true;
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(commands) && ok; i++) {
        char left[32];
        (void)snprintf(left, sizeof left, "%s %s", commands[i].name,
                       commands[i].argument != NULL ? commands[i].argument : "");
        ok = cli_print("  %-14s %s\n", left, commands[i].about);
    }
    return printed(ok && cli_print("  %-14s %s\n", "//text", "say a text that begins with /"));
}

int conversation_command(struct conversation *c, char *line)
{
    const size_t length = strcspn(line, " \t\r");
    char *text = line + length + strspn(line + length, " \t\r");
    size_t count = strlen(text);
    while (count > 0 && strchr(" \t\r", text[count - 1]) != NULL)
        text[--count] = '\0';
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(commands); i++) {
        if (strlen(commands[i].name) != length || memcmp(commands[i].name, line, length) != 0)
            continue;
        if (commands[i].argument == NULL && text[0] != '\0') {
            cli_error("%s takes no argument", commands[i].name);
            return CLI_OK;
        }
        return commands[i].run(c, text);
    }
    cli_error("there is no command %.*s: /help lists them, and // begins a text with a slash",
              (int)(length < 40 ? length : 40), line);
    return CLI_OK;
}
