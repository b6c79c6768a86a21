/* chat.h - a conversation on a terminal.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_CHAT_H
#define QUIRE_TOOL_CHAT_H

#include "quire/generate.h"
#include "quire/prompt.h"

/* Makes a pool whose sequences share: one context, and as much again for other branches as the
 * memory allows. The context is chosen. */
int chat_open_pool(struct engine *engine);

/* Reads lines from standard input and answers each until the end of input or Ctrl-C at the prompt;
 * lines that begin with a slash are commands. Answers take up to max_new tokens. Exit statuses. */
int chat(struct generation *generation, const struct prompt_style *style, const char *system,
         uint64_t max_new);

#endif
