/* console.h - what the command says: error lines, standard output, progress.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_CONSOLE_H
#define QUIRE_TOOL_CONSOLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

/* Exit statuses. */
enum { CLI_OK = 0, CLI_BAD_DATA = 1, CLI_BAD_USAGE = 2 };

/* Prints "quire: ..." as one line on stderr; control characters in it become '?'. On a terminal it
 * begins a line of its own, also where standard output is inside one. */
void cli_error(const char *format, ...) QUIRE_PRINTF(1, 2);
/* The same for a notice, which changes nothing of the exit status. */
#define cli_notice cli_error
/* Prints an error record and returns BAD_DATA. */
int cli_fail(const struct quire_error *error);

/* Writes to standard output at once. False when it is full or closed: one line has said so, once,
 * and nothing more is written. */
bool cli_write(const void *data, uint64_t count);
/* The same for a line or two of text. */
bool cli_print(const char *format, ...) QUIRE_PRINTF(1, 2);
/* Flushes and closes standard output; returns the exit status, BAD_DATA when anything failed. */
int cli_close_output(int exit_status);

/* A progress bar on stderr, shown only on a terminal and only for what takes a while. */
struct cli_progress {
    const char *label;
    bool terminal, shown;
    uint64_t started_ns, drawn_ns;
};
void cli_progress_begin(struct cli_progress *progress, const char *label);
void cli_progress_update(void *progress, uint64_t done, uint64_t total);
void cli_progress_end(struct cli_progress *progress); /* wipes the bar */

#endif
