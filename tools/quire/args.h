/* args.h - command lines: one table per command drives both the parser and the help.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_ARGS_H
#define QUIRE_TOOL_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLI_LIST_MAX 16

/* Numbers separated by commas. */
struct cli_list {
    uint32_t count;
    uint32_t values[CLI_LIST_MAX];
};

/* What an option's value is and what `value` points to. */
enum cli_arg_kind {
    CLI_FLAG,    /* bool; takes no value */
    CLI_TEXT,    /* const char *, borrowed from argv */
    CLI_U32,     /* uint32_t in min .. max */
    CLI_U64,     /* uint64_t below 2^63 */
    CLI_REAL,    /* double in min .. max */
    CLI_SIZE,    /* uint64_t bytes: 1048576, 512M, 2GiB */
    CLI_NUMBERS, /* struct cli_list, each in min .. max */
    CLI_LAYOUT,  /* uint32_t enum quire_layout */
    CLI_DTYPES,  /* uint32_t[2]: K and V */
    CLI_ROTATION /* uint32_t enum quire_kv_rotation */
};

struct cli_arg {
    const char *name; /* "--temp", or "-m" */
    enum cli_arg_kind kind;
    void *value;             /* holds the default before parsing */
    double min, max;         /* inclusive */
    const char *placeholder; /* of the value in help; NULL for a flag */
    const char *help;
};

struct cli_command {
    const char *name;     /* "run", or "bench model" */
    const char *synopsis; /* what follows the name */
    const char *about;    /* one or more lines */
    const char *example;
    const struct cli_arg *args; /* [num_args] its own */
    size_t num_args;
    const struct cli_arg *shared; /* [num_shared] those it has in common with others */
    size_t num_shared;
    const char *positional; /* placeholder of the one plain argument; NULL: none is taken */
    const char **positional_value;
};

enum cli_parsed { CLI_PARSED, CLI_HELPED, CLI_MISUSED };

/* Parses argv[0 .. argc), which begins behind the command's name. HELPED: --help was there and has
 * been printed. MISUSED: one line on stderr said what is wrong. */
enum cli_parsed cli_parse(const struct cli_command *command, int argc, char **argv);

/* Whole-string readers of numbers; false for anything but a number in range. */
bool cli_read_u64(const char *text, uint64_t min, uint64_t max, uint64_t *value);
bool cli_read_size(const char *text, uint64_t *bytes);
/* "f16", or "q8,q4" for K and V apart. */
bool cli_read_dtypes(const char *text, uint32_t dtypes[2]);

#endif
