/* chat.c - a conversation on a terminal, over one sequence that is kept between turns.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The conversation is a list of turns. Before every answer its ids are composed anew and compared
 * with the tokens of the sequence: what they share stays computed. So a new turn costs only its own
 * tokens, and dropping old turns costs what follows the system message. */
#include "quire/chat.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "quire/console.h"

struct turn {
    struct quire__bytes user;
    struct quire__ids answer; /* without the token that ended it */
};

struct conversation {
    struct generation *generation;
    const struct prompt_style *style;
    const char *system;
    uint64_t max_new;
    struct turn *turns;
    size_t first, count, capacity; /* turns before `first` were dropped */
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

/* ---- turns ---- */

/* Moves `user` into a new turn at the end. */
static int push_turn(struct conversation *c, struct quire__bytes *user)
{
    if (c->count == c->capacity) {
        size_t capacity = c->capacity * 2 + 16;
        struct turn *turns = quire__realloc(c->turns, capacity * sizeof *turns);
        if (turns == NULL) {
            cli_error("no memory for another turn");
            return CLI_BAD_DATA;
        }
        c->turns = turns;
        c->capacity = capacity;
    }
    c->turns[c->count++] = (struct turn){.user = *user};
    *user = (struct quire__bytes){0};
    return CLI_OK;
}

static void pop_turn(struct conversation *c)
{
    struct turn *turn = &c->turns[--c->count];
    quire__bytes_deinit(&turn->user);
    quire__ids_deinit(&turn->answer);
}

static int append_ids(struct quire__ids *to, const struct quire__ids *from)
{
    struct quire_error error;
    for (uint64_t i = 0; i < from->count; i++)
        if (quire__ids_push(to, from->ids[i], &error) != QUIRE_OK)
            return cli_fail(&error);
    return CLI_OK;
}

/* All turns from c->first on, the last one's answer as far as it is there. */
static int compose(const struct conversation *c, struct quire__ids *ids)
{
    const struct engine *engine = c->generation->engine;
    int result = CLI_OK;
    ids->count = 0;
    for (size_t i = c->first; i < c->count && result == CLI_OK; i++) {
        struct quire__text text = {.bytes = c->turns[i].user.data, .count = c->turns[i].user.count};
        result = i == c->first ? prompt_begin(c->style, engine, c->system, text, ids)
                               : prompt_continue(c->style, engine, text, ids);
        if (result == CLI_OK)
            result = append_ids(ids, &c->turns[i].answer);
    }
    return result;
}

/* Composes ids that leave room for an answer in the context, dropping the oldest turns until they
 * do. *fits says whether that worked with at least the newest turn. */
static int compose_fitting(struct conversation *c, struct quire__ids *ids, bool *fits)
{
    const uint32_t context = c->generation->engine->context;
    const uint64_t room_wanted = context / 4 + 1;
    const uint64_t room = c->max_new < room_wanted ? c->max_new : room_wanted;
    const size_t first_before = c->first;
    int result = compose(c, ids);
    while (result == CLI_OK && ids->count + room > context && c->first + 1 < c->count) {
        c->first++;
        result = compose(c, ids);
    }
    *fits = ids->count <= context;
    if (!*fits)
        c->first = first_before;
    else if (c->first != first_before)
        cli_notice("the context of %u positions is full: dropped the oldest %zu of %zu turns",
                   context, c->first - first_before, c->count - first_before);
    return result;
}

/* ---- an answer ---- */

/* Makes the sequence hold the ids, computing only what it does not hold yet, and picks the token
 * after them. */
static quire_status catch_up(struct generation *g, const struct quire__ids *ids,
                             struct quire_error *error)
{
    uint32_t num_held = 0, same = 0;
    uint32_t *held = quire__calloc(g->engine->context, sizeof *held);
    if (held == NULL)
        return quire__fail(error, QUIRE_E_NOMEM, "no memory for the conversation");
    quire_status status =
        quire_seq_tokens(g->engine->pool, g->seq, held, g->engine->context, &num_held);
    while (same < num_held && same + 1 < ids->count && held[same] == ids->ids[same])
        same++;
    quire__free(held);
    if (status == QUIRE_OK)
        status = quire_seq_truncate(g->engine->pool, g->seq, same, NULL);
    if (status != QUIRE_OK)
        return quire__fail(error, status, "cannot go back in the conversation: %s",
                           quire_status_text(status));
    return generation_prompt(g, ids->ids + same, (uint32_t)(ids->count - same), error);
}

/* Keeps the output of the generation as the newest turn's answer. */
static int keep_answer(struct conversation *c, enum generation_end end)
{
    struct quire__ids *answer = &c->turns[c->count - 1].answer;
    answer->count = 0;
    int result = append_ids(answer, &c->generation->output);
    if (end == GENERATION_ENDED && answer->count > 0)
        answer->count--;
    return result;
}

/* Answers the newest turn. A context that fills up on the way loses old turns and goes on. */
static int answer(struct conversation *c, struct quire__ids *ids)
{
    struct generation *g = c->generation;
    struct quire_error error;
    generation_begin(g);
    for (;;) {
        bool fits = false;
        const size_t first_before = c->first;
        const bool going_on = g->output.count > 0;
        int result = compose_fitting(c, ids, &fits);
        if (result != CLI_OK)
            return result;
        if (going_on && c->first == first_before) {
            cli_notice("the context is full: the answer ends here");
            return CLI_OK;
        }
        if (!fits) {
            cli_notice("this message is longer than the context of %u positions: it was left out",
                       g->engine->context);
            pop_turn(c);
            return CLI_OK;
        }
        enum generation_end end = GENERATION_STOPPED;
        quire_status status = catch_up(g, ids, &error);
        if (status == QUIRE_OK)
            status = generation_answer(g, c->max_new, &end, &error);
        if (status != QUIRE_OK && status != QUIRE_E_CANCELED)
            return cli_fail(&error);
        result = keep_answer(c, end);
        if (result != CLI_OK || end == GENERATION_UNPRINTED)
            return CLI_BAD_DATA;
        if (end != GENERATION_FULL)
            return generation_finish(g, &error) == QUIRE_OK ? CLI_OK : cli_fail(&error);
    }
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

static int converse(struct conversation *c)
{
    struct input input = {.count = 0};
    struct quire__bytes line = {0};
    struct quire__ids ids = {0};
    int result = CLI_OK;
    while (result == CLI_OK && read_line(&input, &line)) {
        struct quire__text text = {.bytes = line.data, .count = line.count};
        if (is_blank(&line) || prompt_check_text("the message", text) != CLI_OK)
            continue;
        result = push_turn(c, &line);
        if (result == CLI_OK)
            result = answer(c, &ids);
        if (result == CLI_OK && !cli_write("\n", 1))
            result = CLI_BAD_DATA;
    }
    quire__ids_deinit(&ids);
    quire__bytes_deinit(&line);
    return result;
}

int chat(struct generation *generation, const struct prompt_style *style, const char *system,
         uint64_t max_new)
{
    struct conversation c = {
        .generation = generation, .style = style, .system = system, .max_new = max_new};
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, &before);
    generation->stop = &interrupted;
    (void)fputs("Ctrl-C stops an answer, Ctrl-D ends the chat.\n", stderr);
    int result = converse(&c);
    (void)sigaction(SIGINT, &before, NULL);
    while (c.count > 0)
        pop_turn(&c);
    quire__free(c.turns);
    return result;
}
