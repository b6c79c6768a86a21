/* main.c - the quire command: finds the command that the first argument names.
 * SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <quire/quire.h>

#include "quire/commands.h"
#include "quire/console.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
    {"run", command_run, "writes text with a model, or chats"},
    {"tokenize", command_tokenize, "turns text into token ids, and back"},
    {"eval", command_eval, "measures how well a model predicts a text"},
    {"info", command_info, "describes a model file"},
    {"plan", command_plan, "says how many sequences fit into memory"},
    {"trace", command_trace, "plays recorded requests against a cache without a model"},
    {"bench", command_bench, "measures the speed of a model or of the cache"},
};

static int help(void)
{
    (void)printf("usage: quire COMMAND [options]\n\n"
                 "Runs a language model whose keys and values live in Quire's cache.\n\n"
                 "commands:\n");
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(commands); i++)
        (void)printf("  %-10s %s\n", commands[i].name, commands[i].about);
    (void)printf("\n  --help     print this; quire COMMAND --help says more\n"
                 "  --version  print the version\n\n"
                 "example:\n  quire run -m model.gguf -p \"Why is the sky blue?\"\n");
    return CLI_OK;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        cli_error("no command is given: quire --help lists them");
        return CLI_BAD_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help();
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("quire %s\n", quire_version());
        return CLI_OK;
    }
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
    cli_error("unknown command %s: quire --help lists them", argv[1]);
    return CLI_BAD_USAGE;
}

int main(int argc, char **argv)
{
    /* A closed pipe then is a failed write, which ends in one line and a clean exit. */
    (void)signal(SIGPIPE, SIG_IGN);
    return cli_close_output(dispatch(argc, argv));
}
