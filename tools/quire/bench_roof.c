/* bench_roof.c - quire bench roof: what this machine reads and multiplies at most, level by level.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "quire/commands.h"
#include "quire/console.h"
#include "quire/files.h"
#include "quire/ruler.h"

enum { BAR_WIDTH = 30 };

struct rates {
    double read, f32, bf16, codes;
};

static quire_status measure_once(struct quire_backend *backend, const struct ruler *ruler,
                                 struct rates *best)
{
    struct rates now = {0};
    quire_status status = quire_cpu_read_rate(backend, ruler->memory, ruler->ring_bytes, &now.read);
    if (status == QUIRE_OK)
        status = quire_cpu_product_rate(backend, QUIRE_F32, &now.f32);
    if (status == QUIRE_OK)
        status = quire_cpu_product_rate(backend, QUIRE_BF16, &now.bf16);
    if (status == QUIRE_OK)
        status = quire_cpu_product_rate(backend, QUIRE_Q8, &now.codes);
    best->read = fmax(best->read, now.read);
    best->f32 = fmax(best->f32, now.f32);
    best->bf16 = fmax(best->bf16, now.bf16);
    best->codes = fmax(best->codes, now.codes);
    return status;
}

static int measure(const struct ruler *ruler, const char *level, uint32_t threads,
                   struct rates *best)
{
    struct quire_backend *backend = NULL;
    struct quire_backend_config config;
    struct quire_error error;
    quire_backend_config_init(&config);
    config.cpu_level = level;
    config.num_threads = threads;
    quire_status status = quire_backend_create("cpu", &config, &backend, &error);
    if (status != QUIRE_OK)
        return cli_fail(&error);
    const uint32_t runs = ruler->runs;
    for (uint32_t i = 0; i < runs && status == QUIRE_OK; i++)
        status = measure_once(backend, ruler, best);
    quire_backend_destroy(backend);
    if (status != QUIRE_OK)
        cli_error("bench roof: %s", quire_status_text(status));
    return status == QUIRE_OK ? CLI_OK : CLI_BAD_DATA;
}

/* A bar on a logarithmic scale, as levels are far apart: six steps are ten times as much. */
static void print_row(const char *level, uint32_t threads, const struct rates *rates)
{
    char bar[BAR_WIDTH + 1] = "";
    const double most = fmax(fmax(rates->bf16, rates->f32), rates->codes);
    const double steps = isatty(STDOUT_FILENO) == 1 ? 6 * log10(most / 1e9) : 0;
    for (int i = 0; i < BAR_WIDTH && i < steps; i++)
        bar[i] = '#';
    (void)cli_print("%-11s %7u %10.1f %12.1f %12.1f %12.1f  %s\n", level, threads,
                    rates->read / 1e9, rates->f32 / 1e9, rates->bf16 / 1e9, rates->codes / 1e9,
                    bar);
}

static int measure_level(struct ruler *ruler, const char *level)
{
    const uint32_t most = ruler->choice.num_threads;
    int result = CLI_OK;
    for (uint32_t threads = 1; result == CLI_OK; threads = most) {
        char name[40];
        struct rates best = {0};
        (void)snprintf(name, sizeof name, "%s-%u", level, threads);
        if (ruler_wants(ruler, name)) {
            result = measure(ruler, level, threads, &best);
            (void)json_array_append_new(
                ruler->json, json_pack("{s:s, s:s, s:i, s:f, s:f, s:f, s:f}", "name", name, "level",
                                       level, "threads", (int)threads, "read_gb_s", best.read / 1e9,
                                       "f32_gmac_s", best.f32 / 1e9, "bf16_gmac_s", best.bf16 / 1e9,
                                       "codes_gmac_s", best.codes / 1e9));
            if (result == CLI_OK && !ruler->options->json)
                print_row(level, threads, &best);
        }
        if (threads == most)
            break;
    }
    return result;
}

/* The levels that the cap allows, as every other command obeys it. */
static int run(struct ruler *ruler)
{
    struct quire_cpu_level level = {.struct_size = sizeof level};
    int result = CLI_OK;
    if (!ruler->options->json)
        (void)cli_print("\n%-11s %7s %10s %12s %12s %12s\n", "level", "threads", "read GB/s",
                        "f32 GMAC/s", "bf16 GMAC/s", "codes GMAC/s");
    for (uint32_t i = 0; result == CLI_OK && quire_cpu_level(i, &level) == QUIRE_OK; i++) {
        if (level.lacks == NULL)
            result = measure_level(ruler, level.name);
        if (strcmp(level.name, ruler->choice.level.name) == 0)
            break;
    }
    return result;
}

static int finish(const struct ruler *ruler)
{
    const struct quire_cpu_choice *choice = &ruler->choice;
    if (json_array_size(ruler->json) == 0) {
        cli_error("bench roof: no row has %s in its name", ruler->options->only);
        return CLI_BAD_DATA;
    }
    if (!ruler->options->json)
        return CLI_OK;
    return files_print_json(json_pack(
        "{s:s, s:s, s:s, s:i, s:b, s:I, s:I, s:b, s:O}", "bench", "roof", "processor",
        choice->processor, "level", choice->level.name, "threads", (int)choice->num_threads,
        "quick", ruler->options->quick, "cache_bytes", (json_int_t)ruler->cache_bytes, "ring_bytes",
        (json_int_t)ruler->ring_bytes, "capped", ruler->capped, "rows", ruler->json));
}

int command_bench_roof(int argc, char **argv)
{
    struct ruler_options options = {0};
    struct cli_arg shared[RULER_ARGS];
    ruler_args(&options, shared);
    const struct cli_command command = {
        .name = "bench roof",
        .synopsis = "[--only NAME] [options]",
        .about = "Prints how fast this machine reads memory and multiplies at most, at every level "
                 "of the kernels up\nto the chosen one, with one thread and with all: the best "
                 "of several runs.",
        .example = "quire bench roof --only avx2",
        .shared = shared,
        .num_shared = RULER_ARGS,
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    struct ruler ruler;
    int result = ruler_open(&ruler, "roof", &options);
    if (result == CLI_OK)
        result = run(&ruler);
    if (result == CLI_OK)
        result = finish(&ruler);
    ruler_close(&ruler);
    return result;
}
