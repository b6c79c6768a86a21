/* bench.c - quire bench: finds the bench that the next word names.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "quire/commands.h"
#include "quire/console.h"

int command_bench(int argc, char **argv)
{
    const char *which = argc > 0 ? argv[0] : "";
    if (strcmp(which, "model") == 0)
        return command_bench_model(argc - 1, argv + 1);
    if (strcmp(which, "cache") == 0)
        return command_bench_cache(argc - 1, argv + 1);
    if (strcmp(which, "evict") == 0)
        return command_bench_evict(argc - 1, argv + 1);
    if (strcmp(which, "--help") == 0 || strcmp(which, "-h") == 0) {
        (void)printf("usage: quire bench model|cache|evict [options]\n\n"
                     "  model  tokens per second of a model\n"
                     "  cache  nanoseconds of the cache's own work\n"
                     "  evict  hit rates of the policies of eviction\n\n"
                     "quire bench model --help says more.\n\n"
                     "example:\n  quire bench model -m model.gguf --depth 0,4096\n");
        return CLI_OK;
    }
    cli_error("bench: expected model, cache or evict%s%s; quire bench --help says more",
              argc > 0 ? ", not " : "", which);
    return CLI_BAD_USAGE;
}
