/* console.c - what the command says: error lines, standard output, progress.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/console.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR_WIDTH = 30, LINE_BYTES_MAX = 1024 };
/* A bar that comes and goes in a blink only disturbs. */
static const uint64_t show_after_ns = 250000000, redraw_ns = 100000000;

static bool output_failed;
static bool inside_line; /* of standard output: its last byte ended no line */

void cli_error(const char *format, ...)
{
    char line[LINE_BYTES_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *c = line; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    if (inside_line && isatty(STDOUT_FILENO) == 1 && isatty(STDERR_FILENO) == 1) {
        (void)fputc('\n', stderr);
        inside_line = false;
    }
    (void)fprintf(stderr, "quire: %s\n", line);
}

int cli_fail(const struct quire_error *error)
{
    cli_error("%s", error->message);
    return CLI_BAD_DATA;
}

static void output_error(int os_code)
{
    if (output_failed)
        return;
    output_failed = true;
    if (os_code == EPIPE)
        cli_error("standard output was closed by its reader; nothing more is written");
    else
        cli_error("cannot write to standard output: %s", strerror(os_code));
}

bool cli_write(const void *data, uint64_t count)
{
    if (output_failed)
        return false;
    errno = 0;
    if (fwrite(data, 1, (size_t)count, stdout) != count || fflush(stdout) != 0) {
        output_error(errno);
        return false;
    }
    if (count > 0)
        inside_line = ((const char *)data)[count - 1] != '\n';
    return true;
}

bool cli_print(const char *format, ...)
{
    char text[LINE_BYTES_MAX];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return cli_write(text, (uint64_t)(length < LINE_BYTES_MAX ? length : LINE_BYTES_MAX - 1));
}

int cli_close_output(int exit_status)
{
    errno = 0;
    if (!output_failed && (fflush(stdout) != 0 || ferror(stdout) != 0 || fclose(stdout) != 0))
        output_error(errno != 0 ? errno : EIO);
    return output_failed && exit_status == CLI_OK ? CLI_BAD_DATA : exit_status;
}

void cli_progress_begin(struct cli_progress *progress, const char *label)
{
    *progress = (struct cli_progress){
        .label = label, .terminal = isatty(STDERR_FILENO) == 1, .started_ns = quire__now_ns()};
}

void cli_progress_update(void *context, uint64_t done, uint64_t total)
{
    struct cli_progress *progress = context;
    if (!progress->terminal || total == 0)
        return;
    uint64_t now_ns = quire__now_ns();
    if (now_ns - progress->started_ns < show_after_ns || now_ns - progress->drawn_ns < redraw_ns)
        return;
    progress->drawn_ns = now_ns;
    progress->shown = true;
    char bar[BAR_WIDTH + 1];
    double part = (double)done / (double)total;
    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < (int)(part * BAR_WIDTH) ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    (void)fprintf(stderr, "\r%s [%s] %3d %%", progress->label, bar, (int)(part * 100));
    (void)fflush(stderr);
}

void cli_progress_end(struct cli_progress *progress)
{
    if (!progress->shown)
        return;
    (void)fprintf(stderr, "\r%*s\r", (int)strlen(progress->label) + BAR_WIDTH + 10, "");
    (void)fflush(stderr);
    progress->shown = false;
}
