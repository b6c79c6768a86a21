/* prompt.h - from what the user gave to the ids that the model reads.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_PROMPT_H
#define QUIRE_TOOL_PROMPT_H

#include "model/template.h"
#include "quire/engine.h"

struct prompt_options {
    const char *text, *file, *ids; /* at most one */
    const char *system, *template_name;
    bool raw;
};

/* A template, or none: then texts are completed as they are. */
struct prompt_style {
    bool templated;
    struct quire__template turns;
};

/* Chooses the template: that of --template, else the model's; none with --raw, and with one notice
 * where the model has none. Exit statuses. */
int prompt_style_init(struct prompt_style *style, const struct engine *engine,
                      const struct prompt_options *options);
void prompt_style_deinit(struct prompt_style *style);

/* A text that a model can read: UTF-8, not empty, without NUL. One line on stderr says what is
 * wrong; where names it. */
int prompt_check_text(const char *where, struct quire__text text);

/* Appends the ids of the first text of a conversation, up to where the model's answer begins. */
int prompt_begin(const struct prompt_style *style, const struct engine *engine, const char *system,
                 struct quire__text text, struct quire__ids *ids);

/* Appends the ids of a later text of the user, up to where the model's answer begins; those of the
 * answer before it are in ids. */
int prompt_continue(const struct prompt_style *style, const struct engine *engine,
                    struct quire__text text, struct quire__ids *ids);

/* Reads -p, -f, --ids or standard input and turns it into ids. */
int prompt_load(const struct prompt_style *style, const struct engine *engine,
                const struct prompt_options *options, struct quire__ids *ids);

#endif
