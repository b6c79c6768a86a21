/* chat.c - a conversation on a terminal, whose branches share what is computed of them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Before every answer the ids of the current branch are composed anew, and what its sequence or the
 * pool holds of them stays computed. So a new turn costs only its own tokens, and dropping old
 * turns costs what follows the system message. */
#include "quire/chat.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "quire/console.h"
#include "quire/conversation.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

struct branch *conversation_branch(struct conversation *c)
{
    return &c->branches[c->current];
}

struct quire_pool *conversation_pool(const struct conversation *c)
{
    return c->generation->engine->pool;
}

int chat_open_pool(struct engine *engine)
{
    struct engine_room room = {.num_seqs = BRANCHES_MAX, .events = BLOCKMAP_EVENTS};
    const bool bounded = engine->options->kv_memory != UINT64_MAX;
    const uint64_t context = quire__round_up(engine->context, engine->options->block_size);
    int result = engine_positions_max(engine, &room.positions);
    if (!bounded && room.positions > 2 * context)
        room.positions = 2 * context;
    if (room.positions < context)
        room.positions = context;
    return result == CLI_OK ? engine_open_shared_pool(engine, &room) : result;
}

/* ---- what fits into the context ---- */

/* Composes ids that leave room for an answer in the context, dropping the oldest turns until they
 * do. *fits says whether that worked with at least the newest turn. */
static int compose_fitting(struct conversation *c, bool *fits)
{
    struct branch *branch = conversation_branch(c);
    struct quire__ids *ids = &c->ids;
    const uint32_t context = c->generation->engine->context;
    const uint64_t room_wanted = context / 4 + 1;
    const uint64_t room = c->max_new < room_wanted ? c->max_new : room_wanted;
    const size_t first_before = branch->first;
    int result = branch_compose(branch, &c->style, ids);
    while (result == CLI_OK && ids->count + room > context && branch->first + 1 < branch->count) {
        branch->first++;
        result = branch_compose(branch, &c->style, ids);
    }
    *fits = ids->count <= context;
    if (!*fits)
        branch->first = first_before;
    else if (branch->first != first_before)
        cli_notice("the context of %u positions is full: dropped the oldest %zu of %zu turns",
                   context, branch->first - first_before, branch->count - first_before);
    return result;
}

/* ---- what fits into the memory ---- */

/* Lets go of what was computed of the branch that was left longest ago. False when no other branch
 * holds anything. */
static bool make_room(struct conversation *c)
{
    struct branch *oldest = NULL;
    for (uint32_t i = 0; i < c->num_branches; i++) {
        struct branch *branch = &c->branches[i];
        if (i != c->current && branch->seq.id != 0 &&
            (oldest == NULL || branch->used < oldest->used))
            oldest = branch;
    }
    if (oldest == NULL || quire_seq_destroy(conversation_pool(c), oldest->seq) != QUIRE_OK)
        return false;
    oldest->seq = (quire_seq){0};
    cli_notice("the K/V memory is full: branch %td keeps its text and may be computed again when "
               "you switch to it (--kv-memory gives more room)",
               oldest - c->branches + 1);
    return true;
}

/* ---- an answer ---- */

/* Makes the sequence hold the ids, computing only what the pool does not hold yet, and picks the
 * token after them. */
static quire_status catch_up(struct conversation *c, bool whole_blocks, struct quire_error *error)
{
    struct generation *g = c->generation;
    struct branch *branch = conversation_branch(c);
    uint32_t held = 0;
    quire_status status = branch_reuse(branch, conversation_pool(c), &c->ids,
                                       whole_blocks ? g->engine->options->block_size : 0, &held);
    g->seq = branch->seq;
    if (status != QUIRE_OK)
        return quire__fail(error, status, "cannot go back in the conversation: %s",
                           quire_status_text(status));
    return generation_prompt(g, &c->ids, held, error);
}

/* Keeps the output of the generation as the newest turn's answer. */
static int keep_answer(struct conversation *c, enum generation_end end)
{
    struct branch *branch = conversation_branch(c);
    struct quire__ids *answer = &branch->turns[branch->count - 1].answer;
    answer->count = 0;
    int result = branch_append_ids(answer, &c->generation->output);
    if (end == GENERATION_ENDED && answer->count > 0)
        answer->count--;
    return result;
}

/* Computes as far as context and memory allow. FULL: something must go before it goes on. */
static int compute(struct conversation *c, bool *whole_blocks, enum generation_end *end,
                   bool *no_space)
{
    struct quire_error error;
    *end = GENERATION_STOPPED;
    *no_space = false;
    quire_status status = catch_up(c, *whole_blocks, &error);
    if (status == QUIRE_OK)
        status = generation_answer(c->generation, c->max_new, end, &error);
    if (status == QUIRE_E_NOSPACE) {
        *no_space = make_room(c);
        /* Alone in a pool of exactly one context, it can still do without copying a block. */
        if (!*no_space && !*whole_blocks)
            *no_space = *whole_blocks = true;
        if (*no_space) {
            *end = GENERATION_FULL;
            status = QUIRE_OK;
        }
    }
    if (status != QUIRE_OK && status != QUIRE_E_CANCELED)
        return cli_fail(&error);
    int result = keep_answer(c, *end);
    return *end == GENERATION_UNPRINTED ? CLI_BAD_DATA : result;
}

/* Answers the newest turn. A context that fills up on the way loses old turns and goes on. */
static int answer(struct conversation *c)
{
    struct generation *g = c->generation;
    struct branch *branch = conversation_branch(c);
    bool whole_blocks = false, no_space = false;
    branch->used = ++c->clock;
    generation_begin(g);
    for (;;) {
        bool fits = false;
        const size_t first_before = branch->first;
        const bool going_on = g->output.count > 0 && !no_space;
        int result = compose_fitting(c, &fits);
        if (result != CLI_OK)
            return result;
        if (going_on && branch->first == first_before) {
            cli_notice("the context is full: the answer ends here");
            return CLI_OK;
        }
        if (!fits) {
            cli_notice("this message is longer than the context of %u positions: it was left out",
                       g->engine->context);
            branch_pop(branch);
            return CLI_OK;
        }
        enum generation_end end = GENERATION_STOPPED;
        struct quire_error error;
        result = compute(c, &whole_blocks, &end, &no_space);
        if (result != CLI_OK)
            return result;
        if (end != GENERATION_FULL)
            return generation_finish(g, &error) == QUIRE_OK ? CLI_OK : cli_fail(&error);
    }
}

/* ---- the system message ---- */

/* The ids that every conversation with this system message begins with: what two have in common. */
static int system_prefix(const struct branch_style *s, struct quire__ids *ids)
{
    const struct quire__text texts[2] = {{.bytes = "a", .count = 1}, {.bytes = "b", .count = 1}};
    struct quire__ids other = {0};
    uint64_t same = 0;
    int result = prompt_begin(s->style, s->engine, s->system, texts[0], ids);
    if (result == CLI_OK)
        result = prompt_begin(s->style, s->engine, s->system, texts[1], &other);
    while (same < ids->count && same < other.count && ids->ids[same] == other.ids[same])
        same++;
    ids->count = same;
    quire__ids_deinit(&other);
    return result;
}

/* Keeps the system message computed, whatever else needs memory: also where a window has moved past
 * it, dropping old turns then costs only what follows it. Tried again after the next answer when
 * not all of it is there. */
static int keep_system(struct conversation *c)
{
    struct quire_pool *pool = conversation_pool(c);
    struct quire__ids ids = {0};
    struct quire_seq_config prefix;
    quire_seq seq = {0};
    uint32_t kept = 0;
    if (!c->mapped || c->system.id != 0 || c->style.system == NULL || c->style.system[0] == '\0')
        return CLI_OK;
    int result = system_prefix(&c->style, &ids);
    quire_seq_config_init(&prefix);
    prefix.tokens = ids.ids;
    prefix.num_tokens = (uint32_t)ids.count;
    if (result == CLI_OK && ids.count > 0 &&
        quire_pool_pin(pool, &prefix, &c->system, &kept, NULL) == QUIRE_OK) {
        if (kept < prefix.num_tokens) {
            (void)quire_pool_unpin(pool, c->system);
            c->system = (quire_pin){0};
        } else if (quire_seq_create(pool, &prefix, &seq) == QUIRE_OK) {
            (void)blockmap_pin(&c->map, seq);
            (void)quire_seq_destroy(pool, seq);
        }
    }
    quire__ids_deinit(&ids);
    return result;
}

/* ---- the terminal ---- */

/* What was read from the terminal and not used yet; a paste may bring many lines at once. */
struct input {
    char data[4096];
    size_t at, count;
};

/* Waits for input. False when Ctrl-C comes first: it is blocked but for the wait itself, so that it
 * cannot slip in between a look at `interrupted` and the wait. */
static bool wait_for_input(void)
{
    sigset_t interrupt, before;
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    (void)sigemptyset(&interrupt);
    (void)sigaddset(&interrupt, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &interrupt, &before);
    while (interrupted == 0 && ppoll(&input, 1, NULL, &before) < 0 && errno == EINTR)
        continue;
    bool ready = interrupted == 0;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return ready;
}

/* Reads a line without its end. False at the end of input, or when Ctrl-C came. */
static bool read_line(struct input *input, struct quire__bytes *line)
{
    struct quire_error error;
    line->count = 0;
    interrupted = 0;
    (void)fputs("> ", stderr);
    for (;;) {
        if (input->at == input->count) {
            ssize_t count =
                wait_for_input() ? read(STDIN_FILENO, input->data, sizeof input->data) : 0;
            if (count <= 0)
                break;
            input->at = 0;
            input->count = (size_t)count;
        }
        const char *start = input->data + input->at;
        const char *end = memchr(start, '\n', input->count - input->at);
        size_t count = end != NULL ? (size_t)(end - start) : input->count - input->at;
        if (quire__bytes_append(line, start, count, &error) != QUIRE_OK) {
            (void)cli_fail(&error);
            return false;
        }
        input->at += count + (end != NULL);
        if (end != NULL)
            return true;
    }
    (void)fputs("\n", stderr);
    return false;
}

static bool is_blank(const struct quire__bytes *line)
{
    for (uint64_t i = 0; i < line->count; i++)
        if (strchr(" \t\r", line->data[i]) == NULL)
            return false;
    return true;
}

/* Blanks before a slash are a slip of the finger, before other text they belong to it. */
static void drop_blanks_before_slash(struct quire__bytes *line)
{
    uint64_t blanks = 0;
    while (blanks < line->count && strchr(" \t", line->data[blanks]) != NULL)
        blanks++;
    if (blanks == line->count || line->data[blanks] != '/')
        return;
    line->count -= blanks;
    memmove(line->data, line->data + blanks, line->count);
}

/* Answers a message, or obeys a command. Two slashes are a message that begins with one. */
static int handle(struct conversation *c, struct quire__bytes *line)
{
    drop_blanks_before_slash(line);
    struct quire__text text = {.bytes = line->data, .count = line->count};
    struct quire_error error;
    if (is_blank(line) || prompt_check_text("the message", text) != CLI_OK)
        return CLI_OK;
    if (text.bytes[0] == '/' && (text.count == 1 || text.bytes[1] != '/')) {
        if (quire__bytes_append(line, "", 1, &error) != QUIRE_OK)
            return cli_fail(&error);
        return conversation_command(c, line->data);
    }
    if (text.bytes[0] == '/')
        memmove(line->data, line->data + 1, --line->count);
    int result = branch_push(conversation_branch(c), line);
    if (result == CLI_OK)
        result = answer(c);
    if (result == CLI_OK && !cli_write("\n", 1))
        result = CLI_BAD_DATA;
    if (result == CLI_OK)
        result = keep_system(c);
    if (c->mapped)
        (void)blockmap_watch(&c->map);
    return result;
}

static int converse(struct conversation *c)
{
    struct input input = {.count = 0};
    struct quire__bytes line = {0};
    int result = CLI_OK;
    while (result == CLI_OK && !c->over && read_line(&input, &line))
        result = handle(c, &line);
    quire__bytes_deinit(&line);
    return result;
}

int chat(struct generation *generation, const struct prompt_style *style, const char *system,
         uint64_t max_new)
{
    struct conversation *c = quire__calloc(1, sizeof *c);
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    quire_status mapped = QUIRE_E_NOMEM;
    if (c != NULL)
        mapped = blockmap_open(&c->map, generation->engine->pool, generation->engine->model);
    if (mapped != QUIRE_OK && mapped != QUIRE_E_UNSUPPORTED) {
        quire__free(c);
        cli_error("cannot start the chat: %s", quire_status_text(mapped));
        return CLI_BAD_DATA;
    }
    c->generation = generation;
    c->style = (struct branch_style){generation->engine, style, system};
    c->max_new = max_new;
    c->mapped = mapped == QUIRE_OK;
    c->num_branches = 1;
    c->branches[0].seq = generation->seq;
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, &before);
    generation->stop = &interrupted;
    (void)fputs("Ctrl-C stops an answer, Ctrl-D ends the chat, /help lists commands.\n", stderr);
    int result = converse(c);
    (void)sigaction(SIGINT, &before, NULL);
    for (uint32_t i = 0; i < c->num_branches; i++)
        branch_deinit(&c->branches[i]); /* the pool ends their sequences */
    quire__ids_deinit(&c->ids);
    blockmap_close(&c->map);
    quire__free(c);
    return result;
}
