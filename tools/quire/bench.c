/* bench.c - quire bench: finds the bench that the next word names.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "quire/commands.h"
#include "quire/console.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} benches[] = {
    {"model", command_bench_model, "tokens per second of a model"},
    {"attn", command_bench_attn, "attention over a full cache, beside what the machine can do"},
    {"linear", command_bench_linear, "products with weights of every type, likewise"},
    {"roof", command_bench_roof, "how fast the machine reads and multiplies at most"},
    {"cache", command_bench_cache, "nanoseconds of the cache's own work"},
    {"evict", command_bench_evict, "hit rates of the policies of eviction"},
};

static int help(void)
{
    (void)printf("usage: quire bench model|attn|linear|roof|cache|evict [options]\n\n");
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(benches); i++)
        (void)printf("  %-6s %s\n", benches[i].name, benches[i].about);
    (void)printf("\nquire bench model --help says more.\n\n"
                 "example:\n  quire bench model -m model.gguf --depth 0,4096\n");
    return CLI_OK;
}

int command_bench(int argc, char **argv)
{
    const char *which = argc > 0 ? argv[0] : "";
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(benches); i++)
        if (strcmp(which, benches[i].name) == 0)
            return benches[i].run(argc - 1, argv + 1);
    if (strcmp(which, "--help") == 0 || strcmp(which, "-h") == 0)
        return help();
    cli_error("bench: expected model, attn, linear, roof, cache or evict%s%s; quire bench --help "
              "says more",
              argc > 0 ? ", not " : "", which);
    return CLI_BAD_USAGE;
}
