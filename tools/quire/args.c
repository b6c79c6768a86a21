/* args.c - command lines: one table per command drives both the parser and the help.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/args.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quire/types.h>

#include "quire/console.h"

/* ---- values ---- */

bool cli_read_u64(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
    uint64_t number = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(number, 10u, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number))
            return false;
    }
    if (number < min || number > max)
        return false;
    *value = number;
    return true;
}

static bool read_real(const char *text, double min, double max, double *value)
{
    char *end = NULL;
    /* strtod also takes spaces, hexadecimal and names, which are no decimal numbers. */
    if (*text == '\0' || text[strspn(text, "0123456789+-.eE")] != '\0')
        return false;
    double number = strtod(text, &end);
    if (*end != '\0' || !isfinite(number) || number < min || number > max)
        return false;
    *value = number;
    return true;
}

bool cli_read_size(const char *text, uint64_t *bytes)
{
    static const struct {
        const char *suffix;
        uint64_t unit;
    } units[] = {
        {"", 1},
        {"B", 1},
        {"K", (uint64_t)1 << 10},
        {"M", (uint64_t)1 << 20},
        {"G", (uint64_t)1 << 30},
        {"T", (uint64_t)1 << 40},
        {"KiB", (uint64_t)1 << 10},
        {"MiB", (uint64_t)1 << 20},
        {"GiB", (uint64_t)1 << 30},
        {"TiB", (uint64_t)1 << 40},
    };
    char digits[24];
    size_t length = strspn(text, "0123456789");
    if (length >= sizeof digits)
        return false;
    memcpy(digits, text, length);
    digits[length] = '\0';
    uint64_t number = 0;
    if (!cli_read_u64(digits, 0, UINT64_MAX, &number))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(text + length, units[i].suffix) == 0)
            return !__builtin_mul_overflow(number, units[i].unit, bytes);
    return false;
}

static bool read_list(const char *text, const struct cli_arg *arg)
{
    struct cli_list list = {0};
    char item[24];
    for (;;) {
        size_t length = strcspn(text, ",");
        uint64_t number = 0;
        if (length >= sizeof item || list.count == CLI_LIST_MAX)
            return false;
        memcpy(item, text, length);
        item[length] = '\0';
        if (!cli_read_u64(item, (uint64_t)arg->min, (uint64_t)arg->max, &number))
            return false;
        list.values[list.count++] = (uint32_t)number;
        if (text[length] == '\0')
            break;
        text += length + 1;
    }
    *(struct cli_list *)arg->value = list;
    return true;
}

/* Sets *value to the index of one of the names, which are in the order of an enum. */
static bool read_name(const char *text, const char *const *names, uint32_t count, uint32_t *value)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            *value = i;
            return true;
        }
    }
    return false;
}

static bool read_layout(const char *text, uint32_t *layout)
{
    static const char *const names[] = {"auto", "contiguous", "paged"};
    return read_name(text, names, 3, layout);
}

static bool read_rotation(const char *text, uint32_t *rotation)
{
    static const char *const names[] = {"auto", "none", "hadamard"};
    return read_name(text, names, 3, rotation);
}

/* The dtype of K/V with that name. */
static bool read_dtype(const char *text, size_t length, uint32_t *dtype)
{
    for (uint32_t i = 0; quire_dtype_name(i) != NULL; i++) {
        const char *name = quire_dtype_name(i);
        if (quire_kv_data_bytes(i, 16) != 0 && strlen(name) == length &&
            memcmp(name, text, length) == 0) {
            *dtype = i;
            return true;
        }
    }
    return false;
}

bool cli_read_dtypes(const char *text, uint32_t dtypes[2])
{
    uint32_t k = 0, v = 0;
    size_t length = strcspn(text, ",");
    if (!read_dtype(text, length, &k))
        return false;
    const char *second = text[length] == ',' ? text + length + 1 : text;
    if (!read_dtype(second, strlen(second), &v))
        return false;
    dtypes[0] = k;
    dtypes[1] = v;
    return true;
}

static bool read_value(const struct cli_arg *arg, const char *text)
{
    uint64_t number = 0;
    switch (arg->kind) {
    case CLI_FLAG:
        return false;
    case CLI_TEXT:
        *(const char **)arg->value = text;
        return true;
    case CLI_U32:
        if (!cli_read_u64(text, (uint64_t)arg->min, (uint64_t)arg->max, &number))
            return false;
        *(uint32_t *)arg->value = (uint32_t)number;
        return true;
    case CLI_U64:
        return cli_read_u64(text, 0, INT64_MAX, arg->value);
    case CLI_REAL:
        return read_real(text, arg->min, arg->max, arg->value);
    case CLI_SIZE:
        return cli_read_size(text, arg->value);
    case CLI_NUMBERS:
        return read_list(text, arg);
    case CLI_LAYOUT:
        return read_layout(text, arg->value);
    case CLI_DTYPES:
        return cli_read_dtypes(text, arg->value);
    case CLI_ROTATION:
        return read_rotation(text, arg->value);
    }
    return false;
}

/* What a value of this option looks like, for the error line. */
static const char *expected(const struct cli_arg *arg, char *out, size_t size)
{
    switch (arg->kind) {
    case CLI_U32:
    case CLI_REAL:
        (void)snprintf(out, size, "a %s from %.10g to %.10g",
                       arg->kind == CLI_U32 ? "whole number" : "number", arg->min, arg->max);
        return out;
    case CLI_NUMBERS:
        (void)snprintf(out, size, "up to %d whole numbers from %.10g to %.10g, with commas between",
                       CLI_LIST_MAX, arg->min, arg->max);
        return out;
    case CLI_U64:
        return "a whole number from 0, below 2^63";
    case CLI_SIZE:
        return "a size as 1048576, 512M or 2G";
    case CLI_LAYOUT:
        return "auto, paged or contiguous";
    case CLI_DTYPES:
        return "f32, f16, bf16, q8 or q4, or two of them for K and V, as in q8,q4";
    case CLI_ROTATION:
        return "auto, none or hadamard";
    case CLI_FLAG:
    case CLI_TEXT:
        break;
    }
    return "a value";
}

static const struct cli_arg *arg_at(const struct cli_command *command, size_t index)
{
    return index < command->num_args ? &command->args[index]
                                     : &command->shared[index - command->num_args];
}

/* ---- help ---- */

static void print_help(const struct cli_command *command)
{
    (void)printf("usage: quire %s %s\n\n%s\n\noptions:\n", command->name, command->synopsis,
                 command->about);
    for (size_t i = 0; i < command->num_args + command->num_shared; i++) {
        const struct cli_arg *arg = arg_at(command, i);
        char left[40];
        (void)snprintf(left, sizeof left, "%s%s%s", arg->name, arg->placeholder != NULL ? " " : "",
                       arg->placeholder != NULL ? arg->placeholder : "");
        (void)printf("  %-20s %s\n", left, arg->help);
    }
    (void)printf("  %-20s %s\n\nexample:\n  %s\n", "--help", "print this", command->example);
}

/* ---- parsing ---- */

static enum cli_parsed misuse(const struct cli_command *command, const char *what,
                              const char *which)
{
    cli_error("%s: %s %s; quire %s --help lists what there is", command->name, what, which,
              command->name);
    return CLI_MISUSED;
}

/* Finds "--name", or "--name=value" with *value set to what follows the sign. */
static const struct cli_arg *find(const struct cli_command *command, const char *text,
                                  const char **value)
{
    size_t length = text[1] == '-' ? strcspn(text, "=") : strlen(text);
    *value = text[length] == '=' ? text + length + 1 : NULL;
    for (size_t i = 0; i < command->num_args + command->num_shared; i++) {
        const char *name = arg_at(command, i)->name;
        if (strlen(name) == length && memcmp(name, text, length) == 0)
            return arg_at(command, i);
    }
    return NULL;
}

/* Parses the option at argv[*at], and moves *at over its value when that is an argument of its own.
 */
static enum cli_parsed parse_option(const struct cli_command *command, int argc, char **argv,
                                    int *at)
{
    const char *value = NULL;
    const struct cli_arg *arg = find(command, argv[*at], &value);
    if (arg == NULL)
        return misuse(command, "unknown option", argv[*at]);
    if (arg->kind == CLI_FLAG) {
        if (value != NULL)
            return misuse(command, "no value goes with", arg->name);
        *(bool *)arg->value = true;
        return CLI_PARSED;
    }
    if (value == NULL) {
        if (*at + 1 >= argc)
            return misuse(command, "a value is missing after", arg->name);
        value = argv[++*at];
    }
    if (!read_value(arg, value)) {
        char text[96];
        cli_error("%s: %s is \"%s\", expected %s", command->name, arg->name, value,
                  expected(arg, text, sizeof text));
        return CLI_MISUSED;
    }
    return CLI_PARSED;
}

enum cli_parsed cli_parse(const struct cli_command *command, int argc, char **argv)
{
    bool options_over = false;
    for (int i = 0; i < argc; i++) {
        const char *text = argv[i];
        if (!options_over && strcmp(text, "--") == 0) {
            options_over = true;
        } else if (!options_over && (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0)) {
            print_help(command);
            return CLI_HELPED;
        } else if (!options_over && text[0] == '-' && text[1] != '\0') {
            enum cli_parsed parsed = parse_option(command, argc, argv, &i);
            if (parsed != CLI_PARSED)
                return parsed;
        } else if (command->positional == NULL) {
            return misuse(command, "unexpected argument", text);
        } else if (*command->positional_value != NULL) {
            return misuse(command, "one argument too many:", text);
        } else {
            *command->positional_value = text;
        }
    }
    return CLI_PARSED;
}
